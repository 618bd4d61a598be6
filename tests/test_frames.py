"""Framed marks on scans: read, told apart by their borders, reviewed when unreadable."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench" / "scans"))

import generate

from gateway.inspection import frames
from gateway.inspection.annotate import drawn
from gateway.inspection.pages import open_pages
from gateway.inspection.seal import SealFacts, SealState

reading = pytest.mark.skipif(frames._reader() is None, reason="needs Tesseract's Vietnamese data")
RED, BLACK = (200, 30, 45), (30, 30, 34)


def page(text: str | None, *, width: float = 30, double: bool = True, colour=RED, angle=0.0, dpi=150, mode="colour"):
    """A scanned first page with one framed text at 40, 60 mm."""
    random = np.random.default_rng(11)
    sheet, truth = generate.Sheet(random, dpi), generate.Truth()
    generate._body(sheet, free=True)
    if text is not None:
        mask, _, _ = generate.frame_mask(random, text, width, sheet.scale, double)
        sheet.ink(generate._turned(mask, angle), 40, 40, colour)
    return generate.scanned(sheet, truth, dpi, mode)


def seen(scan: generate.Scan) -> list[frames.Frame]:
    with open_pages(scan.pdf(), "pdf") as pages:
        return frames.frames_of(pages, 1)


def marks(scan: generate.Scan) -> list[tuple[str, str, str]]:
    with open_pages(scan.pdf(), "pdf") as pages:
        return [(f.kind, f.value, f.grade) for f in frames.marks(pages)]


@reading
@pytest.mark.parametrize("value", sorted(generate.FRAMES))
def test_every_mark_is_read_from_its_frame(value: str) -> None:
    kind, texts, width = generate.FRAMES[value]
    for text in texts:
        assert marks(page(text, width=width, double=kind == "secrecy")) == [(kind, value, "strong")]


@reading
def test_the_border_tells_secrecy_from_urgency_where_sizes_collide() -> None:
    (double,) = seen(page("MẬT", width=20, double=True))
    (single,) = seen(page("KHẨN", width=20, double=False))
    assert double.double and not single.double
    assert (double.borders, single.borders) == (4, 4)


@reading
@pytest.mark.parametrize("angle", [-10.0, 12.0])
def test_a_tilted_stamp_is_straightened(angle: float) -> None:
    assert marks(page("TỐI MẬT", angle=angle)) == [("secrecy", "toi_mat", "strong")]


@reading
@pytest.mark.parametrize("mode", ["grey", "colour"])
def test_a_photocopied_mark_is_read_from_dark_ink(mode: str) -> None:
    ((kind, value, _),) = marks(page("TUYỆT MẬT", width=40, colour=BLACK, mode=mode, dpi=200))
    assert (kind, value) == ("secrecy", "tuyet_mat")


@reading
def test_a_mark_that_runs_together_with_another_stamp_is_read() -> None:
    random = np.random.default_rng(12)
    sheet, truth = generate.Sheet(random, 150), generate.Truth()
    mask, _, _ = generate.frame_mask(random, "THƯỢNG KHẨN", 40, sheet.scale, False)
    sheet.ink(mask, 40, 60, RED)
    box = np.zeros((300, 300), np.uint8)
    cv2.rectangle(box, (6, 6), (290, 290), 255, 3)  # its left side stands between the two words
    sheet.ink(box, 63.5, 45, RED)
    assert marks(generate.scanned(sheet, truth, 150, "colour")) == [("urgency", "thuong_khan", "strong")]


def test_secrecy_findings_quote_nothing() -> None:
    with open_pages(page("MẬT", width=20).pdf(), "pdf") as pages:
        found = frames.marks(pages)
    assert len(found) == 1
    assert found[0].evidence == ""
    assert found[0].where == "trang 1"


def test_a_red_frame_that_cannot_be_read_is_reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert marks(page("=#=~#=", width=30)) == [("frame", "red_box", "weak")]
    monkeypatch.setattr(frames, "_reader", lambda: None)  # an installation without OCR data
    assert marks(page("MẬT", width=20)) == [("frame", "red_box", "weak")]


@reading
def test_other_framed_words_are_no_finding() -> None:
    assert marks(page("BẢN SAO", width=32, double=False, dpi=200)) == []
    assert marks(page(None)) == []


@pytest.mark.parametrize("kind", ["den", "oval", "blue_stamp", "emblem", "red_logo", "circled", "heading"])
def test_seals_and_stamps_are_no_frames(kind: str) -> None:
    random = np.random.default_rng(41)
    sheet, truth = generate.Sheet(random, 120), generate.Truth()
    generate._body(sheet)
    generate._negative(sheet, kind, "development", truth)
    if kind == "den":
        generate._seal(sheet, "development", truth, 60, 60)
    assert marks(generate.scanned(sheet, truth, 120, "colour")) == []


def test_frames_are_drawn() -> None:
    facts = SealFacts(True, (), SealState.ABSENT, None, ())
    with open_pages(page("MẬT", width=20).pdf(), "pdf") as pages:
        ((number, marked),) = drawn(pages, facts, "png")
        plain = cv2.cvtColor(pages.image(1, 100), cv2.COLOR_RGB2BGR)
    assert number == 1 and (cv2.imdecode(np.frombuffer(marked, np.uint8), 1) != plain).any(axis=2).sum() > 200
    with open_pages(page(None).pdf(), "pdf") as pages:
        ((number, same),) = drawn(pages, facts, "png")
        plain = cv2.cvtColor(pages.image(1, 100), cv2.COLOR_RGB2BGR)
    assert number == 1 and (cv2.imdecode(np.frombuffer(same, np.uint8), 1) == plain).all(), "nothing seen: as it is"


def frame(text: str, **more: object) -> frames.Frame:
    values = {"page": 1, "box": (0, 0, 0.1, 0.1), "red": True, "borders": 4, "double": True, "solid": True,
              "text": text, "confidence": 90, "readable": True, "width_mm": 20.0, **more}  # fmt: skip
    return frames.Frame(**values)  # type: ignore[arg-type]


def told(one: frames.Frame) -> tuple[str, str, str] | None:
    found = frames.judge(one)
    return (found.kind, found.value, found.grade) if found else None


def test_words_in_frames() -> None:
    assert told(frame("MẬT")) == ("secrecy", "mat", "strong")
    assert told(frame("MAT")) == ("secrecy", "mat", "strong")  # red and framed: accents may be lost
    assert told(frame("MẶT", red=False)) == ("secrecy", "mat", "weak")  # dark: they may not
    assert (
        told(frame("HOẢ TỐC", width_mm=30)) == told(frame("HỎA  TỐC", width_mm=30)) == ("urgency", "hoa_toc", "strong")
    )
    assert told(frame("THƯỢNG KHÂM", width_mm=40)) == ("urgency", "thuong_khan", "strong")
    assert told(frame("GIẢI MẬT Từ: 01/01/2026", width_mm=30)) == ("secrecy", "declassified", "weak")
    assert told(frame("TÔ MẠT", width_mm=30, readable=False)) == ("secrecy", "toi_mat", "weak")
    assert told(frame("KHẨN", width_mm=40)) != ("urgency", "khan", "strong")  # half of THƯỢNG KHẨN
    assert told(frame("SAO Y BẢN CHÍNH", width_mm=40)) is None
    assert told(frame("", readable=False)) == ("frame", "red_box", "weak")
    assert told(frame("", readable=False, red=False)) is None
    assert told(frame("", readable=False, borders=3)) == ("frame", "red_box", "weak")
    assert told(frame("", readable=False, borders=3, double=False)) is None
    assert told(frame("", readable=False, solid=False)) is None


@given(st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_a_distance(a: str, b: str) -> None:
    assert frames._distance(a, b) == frames._distance(b, a)
    assert (frames._distance(a, b) == 0) == (a == b)
    assert frames._distance(a, b) <= max(len(a), len(b))
