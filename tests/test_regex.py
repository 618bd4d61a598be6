"""No text makes a check slow: repeated pieces, seeded mixtures, each through everything that reads text."""

from __future__ import annotations

import random
from collections.abc import Callable

import pypdf  # noqa: F401  # its import takes half a second and belongs to no input
import pytest

from gateway import vietnamese
from gateway.inspection import containers, document, examine, ocr, secrecy, text
from gateway.inspection.segments import Segment
from tests.harness import out_of_proportion

SIZE = 64 << 10

PIECES = (
    " ", ".", "/", "0", " 0", "1/", "…", "_", "-", "\t", "\n", " \n", "A", "a", "Đ", "A ", "M Ậ T ", "(", "[(",
    "*", "|", "mật ", "MẬT ", "MẬT\n", "tuyệt ", "độ mật", "độ mật: mật, ", "ngày ", "ngày 1 tháng ", "Số: ",
    "Số: 1\n", "1/QĐ-", "1/A-A-", "1-A/", "TM. ", "KT. CHỦ TỊCH\n", "Nguyễn Văn A\n", "phụ lục I, ", "gửi ",
    "gửi\n", "(để ", "Re: ", "<", "<a ", '<a alt="', "<!--", "<!-- -->", "<p style='text-transform:uppercase'>",
    ".a{text-transform:uppercase", "{", "}", "font-family:", "<meta ", "\\'", "\\u8 ", "{\\", "\\a0 ", "/JS",
    "/#4", "stream\n", "/BaseFont /", "a^", "a('", "thời hạn bảo vệ bí mật nhà nước ", "không phổ biến ",
    "giải mật từ", "V/v ", "x-a:\n ", "dim a\n", "DỰ THẢO (", "ĐẾN Số: 1. ", "tỉnh ", "Hà Nội - ", "\u0300",
    "\u200b", "\u00ad", "áº", "Ã", "&nbsp;", "công điện ",
)  # fmt: skip


def _everything(source: str) -> dict[str, Callable[[], object]]:
    raw = source.encode("utf-8", "replace")
    readings: dict[str, Callable[[], object]] = {
        f"marks in {zone}": lambda zone=zone: secrecy.marks([Segment("x", source, 1, zone)])
        for zone in ("body", "subject", "filename", "property")
    }
    readings |= {
        f"reading {kind}": lambda kind=kind, head=head: text.extract(head + raw, kind)
        for kind, head in (
            ("txt", b""),
            ("html", b"<html>"),
            ("rtf", b"{\\rtf1 "),
            ("pdf", b"%PDF-1.4\n"),
            ("xml", b"<a>"),
        )
    }
    readings |= {
        "fields": lambda: document.fields([Segment("x", source, 1, "body")], (), "a.pdf"),
        "fields of a scan": lambda: document.fields([Segment("x", source, 1, "ocr")], (), "a.pdf"),
        "charset": lambda: vietnamese.charset_of(source),
        "decode": lambda: vietnamese.decode(raw),
        "garbage": lambda: text.is_garbage(source),
        "type": lambda: containers.sniff(raw),
        "scan's number": lambda: (ocr._NUMBER.search(source), ocr._NUMBER_LINE.search(source)),
        "blank header": lambda: examine._blank_header([Segment("x", source, 1)]),
    }
    return readings


def _slow(source: str) -> dict[str, str]:
    """What takes time out of proportion to the text: a ratio on one machine, so that a slow one fails nothing."""
    slow = {}
    quarter = _everything(source[: len(source) // 4])
    for name, reading in _everything(source).items():
        if said := out_of_proportion(reading, quarter[name]):
            slow[name] = said
    return slow


def _filled(piece: str, size: int = SIZE) -> str:
    return (piece * (size // len(piece) + 1))[:size]


@pytest.mark.parametrize("piece", PIECES)
def test_one_piece_over_and_over(piece: str) -> None:
    assert not _slow(_filled(piece) + "!")


@pytest.mark.parametrize("seed", range(12))
def test_mixtures(seed: int) -> None:
    rng = random.Random(seed)
    assert not _slow(_filled("".join(rng.choices(PIECES, k=rng.randrange(2, 6)))) + rng.choice(PIECES))


@pytest.mark.heavy
@pytest.mark.parametrize("piece", PIECES)
def test_a_mebibyte(piece: str) -> None:
    assert not _slow(_filled(piece, 1 << 20) + "!")
