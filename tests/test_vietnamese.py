"""Vietnamese text in old encodings and disguises."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.text_corpus import ENCODINGS, papers, to_mojibake, to_tcvn3, to_viscii, to_vni
from gateway import vietnamese

WORDS = "Quyết định về việc ban hành quy chế gửi, nhận văn bản điện tử giữa các cơ quan hành chính nhà nước"


def test_fold_keeps_places_and_knows_d_with_stroke() -> None:
    assert vietnamese.fold("Đường TRƯỜNG Sơn, ỦY BAN") == "duong truong son, uy ban"
    assert len(vietnamese.fold(WORDS)) == len(WORDS)
    assert vietnamese.fold(unicodedata.normalize("NFD", "Đặng Thị Hạnh")) == "dang thi hanh"


@given(st.text())
def test_fold_and_clean_are_total(text: str) -> None:
    assert isinstance(vietnamese.fold(text), str)
    cleaned = vietnamese.clean(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert "\u200b" not in cleaned and "\u00ad" not in cleaned
    vietnamese.charset_of(text)


@given(st.binary(max_size=300), st.sampled_from(["", "utf-8", "viscii", "tcvn3", "x-nonsense", "iso-8859-1", "cp1258"]))
def test_decode_is_total(data: bytes, charset: str) -> None:
    assert isinstance(vietnamese.decode(data, charset), str)


@pytest.mark.parametrize(
    ("legacy", "back"),
    [(to_vni, vietnamese.from_vni), (to_viscii, vietnamese.from_viscii), (to_mojibake, vietnamese.from_mojibake)],
)
def test_round_trip(legacy, back) -> None:  # type: ignore[no-untyped-def]
    for source in (WORDS, WORDS.upper(), "Hỏa tốc, thượng khẩn, mật, tối mật, tuyệt mật; ỹ ỵ ĩ ị"):
        assert legacy(source) != source
        assert back(legacy(source)) == source


def test_tcvn3_has_no_accented_capitals() -> None:
    assert vietnamese.from_tcvn3(to_tcvn3(WORDS)) == WORDS
    assert vietnamese.from_tcvn3("TèI MËT").upper() == "TỐI MẬT"
    assert vietnamese.from_tcvn3("th\u00adîng khÈn") == "thượng khẩn"  # the soft hyphen is ư


@pytest.mark.skipif(shutil.which("iconv") is None, reason="no iconv to compare with")
@pytest.mark.parametrize(("name", "table"), [("TCVN", vietnamese._TCVN3), ("VISCII", vietnamese._VISCII)])
def test_tables_agree_with_iconv(name: str, table: dict[int, str]) -> None:
    data = b" ".join(bytes([byte]) for byte in sorted(table))
    run = subprocess.run(["iconv", "-f", name, "-t", "utf-8"], input=data, capture_output=True, check=True)
    assert vietnamese.nfc(run.stdout.decode()).split(" ") == [table[byte] for byte in sorted(table)]


def test_viqr() -> None:
    assert vietnamese.from_viqr("TUYE^.T MA^.T, HO?A TO^'C, THU+O+.NG KHA^?N, ddo^. ma^.t") == (
        "TUYỆT MẬT, HỎA TỐC, THƯỢNG KHẨN, độ mật"
    )


def test_disguises_are_undone() -> None:
    assert vietnamese.clean("M\u200bẬ\u2060T") == "MẬT"
    assert vietnamese.clean("ＭẬＴ") == "MẬT"
    assert vietnamese.clean("МẬТ") == "MẬT"  # Cyrillic М and Т
    assert vietnamese.clean("MÂ\u0323T") == "MẬT"  # windows-1258
    assert vietnamese.clean("Số: 1/QÐ-UBND") == "Số: 1/QĐ-UBND"  # Eth
    assert vietnamese.join_spaced_letters("T U Y Ệ T  M Ậ T") == "TUYỆTMẬT"
    assert vietnamese.join_spaced_letters("a b và c") == "a b và c"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("tcvn3", "tcvn3"), ("vni", "vni"), ("viscii", "viscii"), ("mojibake", "mojibake"), ("mojibake-nfd", "mojibake"),
     ("nfc", ""), ("nfd", ""), ("upper", "")],
)  # fmt: skip
def test_charset_is_recognised(encoding: str, name: str) -> None:
    for paper in papers(20):
        assert vietnamese.charset_of(ENCODINGS[encoding](paper.text)) == name, paper.code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plain English text only",
        "Noël, café, Zürich, São Paulo, señor, garçon",
        "déjà vu: élève, forêt, hôtel, être",
    ],
)
def test_other_languages_are_no_legacy_vietnamese(text: str) -> None:
    assert vietnamese.charset_of(text) == ""


def test_syllables() -> None:
    for word in ("nguyễn", "quyết", "mật", "hoả", "khuya", "giếng", "gì", "nghiệp", "uỷ"):
        assert vietnamese.is_syllable(word) is True
    for word in ("bỏo", "cỏo", "Noël", "strength", "mậật", "quyẽt"):
        assert vietnamese.is_syllable(word) is False


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1258"])
def test_undeclared_bytes(codec: str) -> None:
    source = WORDS if codec != "cp1258" else _for_cp1258(WORDS)
    assert vietnamese.nfc(vietnamese.decode(source.encode(codec))) == WORDS


def _for_cp1258(text: str) -> str:
    """windows-1258 writes the tone as a combining mark after the vowel."""
    out = []
    for letter in text:
        decomposed = unicodedata.normalize("NFD", letter)
        tone = "".join(c for c in decomposed if c in "\u0300\u0301\u0303\u0309\u0323")
        out.append(unicodedata.normalize("NFC", "".join(c for c in decomposed if c not in tone)) + tone)
    return "".join(out)
