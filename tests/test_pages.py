"""Pages as pictures: sizes, scan or not, colour, limits, broken files."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen import canvas

from gateway.inspection import pages
from gateway.inspection.pages import PageError, colourless, open_pages, two_valued

A4 = (595.28, 841.89)


def paper(width: int = 413, height: int = 585, seed: int = 1) -> np.ndarray:
    """A page of a colour scan at 50 dpi: off-white paper with chroma noise, lines of dark ink, one red square."""
    random = np.random.default_rng(seed)
    page = np.clip(random.normal((246, 244, 238), 5, (height, width, 3)), 0, 255).astype(np.uint8)
    page[60:500:14, 40:370] = (40, 38, 45)
    page[500:540, 300:340] = (200, 40, 50)
    return page


def encoded(image: np.ndarray, suffix: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(image).save(out, suffix, **options)
    return out.getvalue()


def pdf(image: np.ndarray | None, *, text: int = 0, invisible: bool = False, share: float = 1.0) -> bytes:
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=A4)
    if image is not None:
        width, height = A4[0] * share, A4[1] * share
        sheet.drawImage(ImageReader(Pillow.fromarray(image)), 0, A4[1] - height, width, height)
    for row in range(text):
        line = sheet.beginText(60, 760 - 14 * row)
        line.setTextRenderMode(3 if invisible else 0)
        line.textLine("Uy ban nhan dan tinh thong bao noi dung cuoc hop")
        sheet.drawText(line)
    sheet.showPage()
    sheet.save()
    return out.getvalue()


def test_a_scanned_pdf_is_told_from_a_born_digital_one() -> None:
    with open_pages(pdf(paper()), "pdf") as scan:
        assert scan.count == 1
        assert scan.is_scan(1)
        assert not scan.has_text(1)
        assert scan.dpi(1) == pytest.approx(50, abs=1)
        assert scan.kind(1) == "colour"
        assert scan.size_mm(1) == pytest.approx((210, 297), abs=0.5)
        image = scan.image(1, 50)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.shape[:2] == pytest.approx((585, 414), abs=1)
        red, green, _ = image[520, 320]
        assert red > 170 and green < 80  # RGB, not BGR
    with open_pages(pdf(None, text=20), "pdf") as born:
        assert not born.is_scan(1)
        assert born.has_text(1)
        assert born.dpi(1) is None


def test_text_under_a_scan_from_ocr_does_not_make_it_born_digital() -> None:
    with open_pages(pdf(paper(), text=20, invisible=True), "pdf") as searchable:
        assert searchable.has_text(1)
        assert searchable.is_scan(1)
    with open_pages(pdf(paper(), text=20), "pdf") as background:
        assert not background.is_scan(1)
    with open_pages(pdf(paper(), share=0.5), "pdf") as illustration:
        assert not illustration.is_scan(1)


@pytest.mark.parametrize(("name", "suffix"), [("jpg", "JPEG"), ("png", "PNG"), ("tiff", "TIFF")])
def test_raster_files(name: str, suffix: str) -> None:
    with open_pages(encoded(paper(), suffix, dpi=(50, 50)), name) as scan:
        assert scan.count == 1
        assert scan.is_scan(1)
        assert scan.kind(1) == "colour"
        assert scan.dpi(1) == pytest.approx(50, abs=0.5)
        image = scan.image(1, 50)
        assert image.shape == (585, 413, 3)
        red, green, _ = image[520, 320]
        assert red > 170 and green < 90
        assert scan.image(1, 25).shape[:2] == pytest.approx((292, 206), abs=1)


def test_a_raster_file_without_a_credible_scale_is_taken_for_a4() -> None:
    for dpi in ((72, 72), None):
        data = encoded(np.full((2339, 1654, 3), 255, np.uint8), "PNG", **({"dpi": dpi} if dpi else {}))
        with open_pages(data, "png") as scan:
            assert scan.size_mm(1) == pytest.approx((210, 297), abs=0.5)
    with open_pages(encoded(np.full((120, 200, 3), 255, np.uint8)), "png") as logo:
        assert not logo.is_scan(1)


def test_pages_of_a_tiff() -> None:
    out = io.BytesIO()
    sheets = [
        Pillow.fromarray(paper()),
        Pillow.fromarray(paper()).convert("L"),
        Pillow.fromarray(paper()).convert("1", dither=Pillow.Dither.NONE),
    ]
    sheets[0].save(out, "TIFF", save_all=True, append_images=sheets[1:], dpi=(50, 50))
    with open_pages(out.getvalue(), "tiff") as scan:
        assert scan.count == 3
        assert [scan.kind(n) for n in (1, 2, 3)] == ["colour", "grey", "bilevel"]
        assert colourless(scan.image(2, 50)) and not colourless(scan.image(1, 50))
        assert two_valued(scan.image(3, 50)) and not two_valued(scan.image(1, 50))
        assert scan.image(3, 50).shape == (585, 413, 3)
        with pytest.raises(IndexError):
            scan.image(4, 50)


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_pictures_of_a_rotated_page_stand_where_they_are_seen(angle: int) -> None:
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=A4)
    sheet.drawImage(ImageReader(Pillow.fromarray(np.full((40, 40, 3), (250, 0, 0), np.uint8))), 0, 0, 100, 100)
    sheet.showPage()
    sheet.save()
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(out.getvalue()))
    writer.pages[0].rotate(angle)
    out = io.BytesIO()
    writer.write(out)
    with open_pages(out.getvalue(), "pdf") as turned:
        (picture,) = turned.pictures(1)
        image = turned.image(1, 50)
        height, width = image.shape[:2]
        assert (width > height) == (angle in (90, 270))
        left, top, right, bottom = picture.box
        middle = image[int((top + bottom) / 2 * height), int((left + right) / 2 * width)]
        assert middle[0] > 200 and middle[1] < 60


def png_header(width: int, height: int) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0" * 20


def test_bombs_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(PageError) as bomb:
        open_pages(png_header(60_000, 60_000), "png")
    assert bomb.value.value == "too_large"
    with open_pages(pdf(paper()), "pdf") as scan, pytest.raises(PageError) as sharp:
        scan.image(1, 5000)
    assert sharp.value.value == "too_large"


def test_a_huge_image_inside_a_pdf_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_PIXELS", 200_000)
    with open_pages(pdf(paper()), "pdf") as scan, pytest.raises(PageError) as bomb:
        scan.image(1, 20)
    assert bomb.value.value == "too_large"


def test_a_tiff_that_points_at_itself_ends() -> None:
    data = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 2)
    data += struct.pack("<HHII", 256, 4, 1, 10) + struct.pack("<HHII", 257, 4, 1, 10) + struct.pack("<I", 8)
    with open_pages(data, "tiff") as scan, pytest.raises(PageError):
        scan.image(1, 50)


@pytest.mark.parametrize("name", ["pdf", "jpg", "png", "tiff"])
def test_broken_files_say_so(name: str) -> None:
    for data in (b"", b"nothing of the kind", b"%PDF-1.4\n", b"\xff\xd8\xff\xe0", b"II*\0\xff\xff\xff\xff"):
        with pytest.raises(PageError):
            open_pages(data, name)
    with pytest.raises(PageError):
        open_pages(b"", "docx")


def test_an_encrypted_pdf_says_so() -> None:
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=A4, encrypt="van-thu")
    sheet.showPage()
    sheet.save()
    with pytest.raises(PageError) as locked:
        open_pages(out.getvalue(), "pdf")
    assert locked.value.value == "encrypted"


SMALL = cv2.resize(paper(), (64, 90))
WHOLE = {
    "jpg": encoded(SMALL, "JPEG"),
    "png": encoded(SMALL, "PNG"),
    "tiff": encoded(SMALL, "TIFF"),
    "pdf": pdf(SMALL),
}


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    cuts=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=12),
    length=st.floats(0.2, 1.0),
)
def test_damage_ends_as_a_page_or_as_a_page_error(name: str, cuts: list[tuple[float, int]], length: float) -> None:
    data = bytearray(WHOLE[name])
    for place, value in cuts:
        data[int(place * len(data))] = value
    try:
        with open_pages(bytes(data[: int(len(data) * length)]), name) as damaged:
            for n in range(1, min(damaged.count, 3) + 1):
                assert damaged.image(n, 30).shape[2] == 3
                assert damaged.is_scan(n) in (True, False)
                damaged.pictures(n)
    except PageError as error:
        assert error.value


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_page_that_lay_in_the_scanner_otherwise_is_turned(quarters: int) -> None:
    picture = np.full((1754, 1240, 3), 255, np.uint8)
    picture[100:200, 50:400] = (200, 30, 30)  # left top when upright
    lying = np.ascontiguousarray(np.rot90(picture, -quarters))
    data = cv2.imencode(".png", lying)[1].tobytes()
    with open_pages(data, "png") as pages:
        before = pages.size_mm(1)
        pages.turn(1, quarters)
        assert pages.size_mm(1) == (before if quarters == 2 else before[::-1])
        shown = pages.image(1, 75)
        assert shown.shape[0] > shown.shape[1]
        dark = np.argwhere(shown.min(axis=2) < 128)
        assert dark.min(axis=0)[0] < 0.07 * shown.shape[0] and dark.max(axis=0)[1] < 0.4 * shown.shape[1]
        pages.turn(1, 4 - quarters)
        assert pages.size_mm(1) == before
