"""Round seals: found, told from what is red or round, undecidable where colour is missing."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pypdf
import pytest
from PIL import Image as Pillow
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen import canvas

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench" / "scans"))

import generate

from gateway.inspection import seal
from gateway.inspection.annotate import drawn
from gateway.inspection.findings import SealState
from gateway.inspection.pages import PageError, Pages, open_pages

# Seeds of their own: the ranges of bench/seal_train.py (from 1 000 000) and bench/seal_eval.py (80 000 000) are others.
FIRST = 60_000_000


def stamped(seed: int, *, hand: bool = False, dpi: int = 120, mode: str = "colour") -> generate.Scan:
    """A page of text with one seal, free of other red things."""
    random = np.random.default_rng(seed)
    sheet, truth = generate.Sheet(random, dpi), generate.Truth()
    generate._body(sheet)
    generate._block(sheet, "evaluation", truth, True, hand)
    return generate.scanned(sheet, truth, dpi, mode)


def bare(seed: int, kind: str | None, dpi: int = 120) -> generate.Scan:
    """A page of text without a seal, with one hard negative."""
    random = np.random.default_rng(seed)
    sheet, truth = generate.Sheet(random, dpi), generate.Truth()
    generate._body(sheet)
    if kind:
        generate._negative(sheet, kind, "evaluation", truth)
    return generate.scanned(sheet, truth, dpi, "colour")


def look(scan: generate.Scan, **options: object) -> seal.SealFacts:
    with open_pages(scan.pdf(), "pdf") as pages:
        return seal.look(pages, **options)  # type: ignore[arg-type]


def at(facts: seal.SealFacts, scan: generate.Scan) -> bool:
    """Whether a seal was found at the labelled place."""
    ((x, y, r),) = scan.truth.seals
    middles = [((s.box[0] + s.box[2]) * 105, (s.box[1] + s.box[3]) * 148.5) for s in facts.seals]
    return any(np.hypot(a - x, b - y) < 0.3 * r for a, b in middles)


def test_seals_are_found_where_they_are() -> None:
    found = 0
    for i in range(5):
        scan = stamped(FIRST + i, dpi=(100, 120, 150)[i % 3])
        facts = look(scan)
        assert facts.scan
        found += facts.state is SealState.PRESENT and at(facts, scan)
    assert found >= 4  # the whole measure is bench/seal_eval.py; some ink is hardly there


@pytest.mark.parametrize("kind", [None, *generate.NEGATIVES])
def test_what_is_red_or_round_is_not_a_seal(kind: str | None) -> None:
    assert look(bare(FIRST + 100, kind, dpi=100)).state is not SealState.PRESENT


def test_an_oval_stamp_is_for_a_person() -> None:
    facts = look(bare(890_001, "oval", dpi=150))
    assert facts.state is SealState.UNDECIDABLE and facts.seals and max(one.score for one in facts.seals) > 0.5


def test_a_ring_in_a_photograph_is_for_a_person() -> None:
    scan = stamped(FIRST + 1, dpi=120)
    ((x, y, radius),) = scan.truth.seals
    mm = 120 / 25.4
    box = [int((value + shift) * mm) for value in (x, y) for shift in (-1.6 * radius, 1.6 * radius)]
    part = scan.image[max(box[2], 0) : box[3], max(box[0], 0) : box[1]]
    assert look(scan).state is SealState.PRESENT and at(look(scan), scan)
    blotches = np.random.default_rng(1).integers(90, 255, (8, 8, 3), np.uint8)
    blotches[..., 0] //= 2  # the blues and greens of a landscape
    part[:] = np.minimum(part, cv2.resize(blotches, part.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    facts = look(scan)
    assert facts.state is SealState.UNDECIDABLE and at(facts, scan)


def test_a_grey_scan_is_undecidable_and_shows_the_place() -> None:
    shown = 0
    for i in range(3):
        scan = stamped(FIRST + 200 + i, dpi=150, mode="grey")
        facts = look(scan)
        assert facts.state is SealState.UNDECIDABLE
        shown += at(facts, scan)
    assert shown >= 2


def test_grey_saved_in_three_channels_is_still_grey() -> None:
    scan = stamped(FIRST + 210, dpi=120, mode="grey")
    scan.image = np.repeat(scan.image[:, :, None], 3, axis=2)
    assert look(scan).state is SealState.UNDECIDABLE


def test_a_bilevel_scan_is_never_present() -> None:
    for i in range(2):
        assert look(stamped(FIRST + 220 + i, dpi=150, mode="bilevel")).state is SealState.UNDECIDABLE
    scan = stamped(FIRST + 223, dpi=150, mode="bilevel")
    scan.image, scan.mode = np.repeat(scan.image[:, :, None], 3, axis=2), "colour"
    assert look(scan).state is SealState.UNDECIDABLE


def test_a_coarse_scan_is_undecidable() -> None:
    scan = stamped(FIRST + 230, dpi=120)
    scan.image = cv2.resize(scan.image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    scan.dpi = 60
    assert look(scan).state is SealState.UNDECIDABLE


def test_a_turned_page_changes_nothing() -> None:
    scan = stamped(FIRST + 4, dpi=120)
    for turns in (1, 2):
        turned = generate.Scan(np.ascontiguousarray(np.rot90(scan.image, turns)), 120, "colour", scan.truth, 85)
        assert look(turned).state is SealState.PRESENT


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_boxes_are_told_of_the_page_as_the_file_shows_it(quarters: int) -> None:
    """OCR turns a page upright for itself; who looks at the file sees it lying."""
    scan = stamped(3)
    with open_pages(scan.pdf(), "pdf") as upright:
        told = seal.look(upright, wanted=(1,)).seals[0].box
    with open_pages(scan.pdf(), "pdf") as lying:
        lying.turn(1, quarters)
        found = seal.look(lying, wanted=(1,)).seals[0].box
    assert found == pytest.approx(told, abs=0.02)


def test_points_of_another_size() -> None:
    """ISO 32000-1, table 30: /UserUnit 2 makes a point 1/36 inch."""
    scan = stamped(3)
    writer, out = pypdf.PdfWriter(), io.BytesIO()
    writer.append(pypdf.PdfReader(io.BytesIO(scan.pdf())))
    writer.pages[0].scale_by(0.5)
    writer.pages[0][pypdf.generic.NameObject("/UserUnit")] = pypdf.generic.NumberObject(2)
    writer.write(out)
    with open_pages(out.getvalue(), "pdf") as pages, open_pages(scan.pdf(), "pdf") as before:
        assert pages.size_mm(1) == pytest.approx(before.size_mm(1), abs=0.1)
        assert pages.image(1, 100).shape == before.image(1, 100).shape
        assert seal.look(pages, wanted=(1,)).state is SealState.PRESENT


def test_the_scan_of_a_paper_on_a_larger_sheet_is_no_pasted_seal() -> None:
    scan = stamped(3)
    writer, out = pypdf.PdfWriter(), io.BytesIO()
    writer.append(pypdf.PdfReader(io.BytesIO(scan.pdf())))
    writer.pages[0].mediabox = writer.pages[0].cropbox = pypdf.generic.RectangleObject((0, 0, 842, 1191))
    writer.write(out)
    with open_pages(out.getvalue(), "pdf") as pages:
        facts = seal.look(pages, wanted=(1,))
    assert facts.state is SealState.PRESENT and not facts.seals[0].pasted and not facts.findings


def born_digital(picture: np.ndarray | None) -> bytes:
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=(595, 842))
    for row in range(30):
        sheet.drawString(70, 760 - 14 * row, "Thong bao ket luan cuoc hop giao ban thang")
    if picture is not None:
        sheet.drawImage(ImageReader(Pillow.fromarray(picture)), 330, 150, 105, 105, mask=None)
    sheet.showPage()
    sheet.save()
    return out.getvalue()


def seal_picture() -> np.ndarray:
    mask = generate.seal_mask(np.random.default_rng(5), 18, 8)
    side = mask.shape[0]
    share = mask[:, :, None].astype(np.float32) / 255
    return (255 * (1 - share) + share * np.array([210, 25, 35])).astype(np.uint8).reshape(side, side, 3)


def test_a_picture_of_a_seal_on_a_born_digital_page_is_pasted() -> None:
    with open_pages(born_digital(seal_picture()), "pdf") as pages:
        facts = seal.look(pages)
    assert not facts.scan
    assert [s.pasted for s in facts.seals] == [True]
    assert [(f.kind, f.value, f.where) for f in facts.findings] == [("seal", "pasted", "trang 1")]
    with open_pages(born_digital(None), "pdf") as pages:
        facts = seal.look(pages)
    assert (facts.state, facts.seals, facts.findings) == (SealState.ABSENT, (), ())


def test_a_seal_inside_a_signature_box_is_a_picture() -> None:
    scan = stamped(FIRST + 4)
    ((x, y, r),) = scan.truth.seals
    box = ((x - r) / 210, (y - r) / 297, (x + r) / 210, (y + r) / 297)
    assert not any(s.pasted for s in look(scan).seals)
    facts = look(scan, signature_boxes=((1, box),))
    assert facts.seals and all(s.pasted for s in facts.seals)
    assert len(facts.findings) == len(facts.seals)


def test_handwriting_beside_the_seal_is_told_from_none() -> None:
    # Where no seal is found no hand is looked for: pages with ink that is hardly there are left out (301).
    seen = [look(stamped(FIRST + 300 + i, hand=True, dpi=100)).handwritten for i in (3, 4, 5)]
    none = [look(stamped(FIRST + 400 + i, hand=False, dpi=100)).handwritten for i in range(3)]
    assert seen.count(True) >= 2
    assert none.count(True) == 0


class Recorder:
    """Pages that are white, or cannot be shown, and say which were asked for."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken, self.asked = count, broken, []

    def image(self, n: int, dpi: float) -> np.ndarray:
        if n in self.broken:
            raise PageError("unreadable_scan", f"page {n}")
        self.asked.append(n)
        return np.full((300, 200, 3), 255, np.uint8)

    def is_scan(self, n: int) -> bool:
        return False

    def kind(self, n: int) -> str:
        return "colour"

    def dpi(self, n: int) -> None:
        return None

    def quarters(self, n: int) -> int:
        return 0

    def pictures(self, n: int) -> tuple[()]:
        return ()


def recorder(count: int, broken: tuple[int, ...] = ()) -> Pages:
    return Recorder(count, broken)  # type: ignore[return-value]


def test_pages_are_looked_at_in_the_order_of_likelihood_and_within_a_budget() -> None:
    pages = recorder(100)
    seal.look(pages, signature_boxes=((7, (0.5, 0.5, 0.7, 0.7)), (200, (0, 0, 1, 1))))
    asked = list(dict.fromkeys(pages.asked))  # type: ignore[attr-defined]
    assert asked[:6] == [7, 100, 1, 2, 3, 99]
    assert len(asked) == seal.MAX_PAGES
    pages = recorder(100)
    seal.look(pages, wanted=[5, 5, 9])
    assert list(dict.fromkeys(pages.asked)) == [5, 9]  # type: ignore[attr-defined]


def test_pages_that_cannot_be_shown() -> None:
    with pytest.raises(PageError):
        seal.look(recorder(2, broken=(1, 2)))
    assert seal.look(recorder(2, broken=(2,))).state is SealState.UNDECIDABLE
    assert seal.look(recorder(2), wanted=()).state is SealState.NOT_CHECKED


def test_boxes_are_drawn() -> None:
    scan = stamped(FIRST + 4)
    with open_pages(scan.pdf(), "pdf") as pages:
        facts = seal.look(pages)
        assert facts.seals
        ((_, png),) = drawn(pages, facts, "png")
        ((_, pdf),) = drawn(pages, facts, "pdf", signature_boxes=((1, (0.1, 0.1, 0.2, 0.2)),))
        plain = pages.image(1, 100)
    picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert picture.shape == plain.shape
    assert (picture != plain).any(axis=2).sum() > 200
    with open_pages(pdf, "pdf") as again:
        assert again.count == 1
        assert again.size_mm(1) == pytest.approx((210, 297), abs=1)


def test_pieces_go_round_and_end_at_the_rim() -> None:
    planes = np.arange(2 * 8 * 6 * 3, dtype=np.float32).reshape(2, 8, 6, 3)
    pieces = seal.windows(planes, 3).reshape(2, 4, 3, 3, 3, 3)
    assert (pieces[:, 1, 1] == planes[:, 1:4, 1:4]).all()
    assert (pieces[:, 0, 1, 0] == planes[:, -1, 1:4]).all(), "the last angle is beside the first"
    assert (pieces[:, :, 0, :, 0] == 0).all(), "there is nothing inside the centre"


@pytest.mark.parametrize("which", ["colour", "grey"])
def test_a_turned_ring_is_the_same_ring(which: str) -> None:
    views = np.random.default_rng(3).integers(0, 255, (3, seal.ROWS, seal.COLUMNS, 3)).astype(np.uint8)
    network = seal._weights(which)
    radii, residuals = np.full(3, 70, np.float32), np.full(3, 1, np.float32)
    one, other = (
        network.scores(*seal.inputs(v, radii, residuals, which == "grey")) for v in (views, np.roll(views, 32, axis=1))
    )
    assert one == pytest.approx(other, abs=1e-5)


def test_weights_that_do_not_fit_are_refused() -> None:
    with np.load(Path(seal.__file__).parent / "weights" / "seal.npz", allow_pickle=False) as data:
        arrays = {name.removeprefix("grey_"): data[name] for name in data.files if name.startswith("grey_")}
    seal.Network(arrays)
    for name in ("c1", "c2", "f1", "f2"):
        with pytest.raises(ValueError, match="fit"):
            seal.Network({**arrays, name: arrays[name][:-1]})
