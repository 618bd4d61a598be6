"""Fields of documents: number, date, kind, abstract, agency, signer, recipients."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import fields_eval
from bench import text_corpus as corpus
from gateway.inspection import document, spelling, text
from gateway.inspection.findings import Document, Signature, SignatureState
from gateway.inspection.segments import Segment


def read(content: str, name: str = "", signatures: tuple[Signature, ...] = ()) -> Document:
    return document.fields([Segment("trang 1", content, 1)], signatures, name)


HEAD = "ỦY BAN NHÂN DÂN\tCỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\nTỈNH BẮC SƠN\tĐộc lập - Tự do - Hạnh phúc\n"


def code(line: str) -> str | None:
    found = read(f"{HEAD}{line}\tBắc Sơn, ngày 05 tháng 3 năm 2024\nQUYẾT ĐỊNH\nVề việc thử\nCăn cứ Luật").code
    return found.value if found else None


@pytest.mark.parametrize(
    "wanted",
    ["14/CT-UBND", "2437/QĐ-UBND", "34/2008/CT-TTg", "10/2006/CT-TTg", "64/2007/NĐ-CP", "01/2011/TT-BNV",
        "29/2018/QH14",
     "117/2025/QH15", "30/2000/PL-UBTVQH10", "08/2018/L-CTN", "757/NQ-UBTVQH15", "10495/UBND-CNXD", "8132/BXD-GĐ",
     "5598/VPCP-TTĐT", "2663/VPCP-NC", "557/BKHCN-CĐSQG", "30191/TB-SNNMT-BTTĐC", "03/VBHN-VPQH", "125a/QĐ-UBND",
     "12/QyĐ-UBND", "05/TTr-SNV", "07/CTr-UBND", "1234/SY-UBND", "11/TrS-VP", "01/2013/TTLT-BNV-BTC", "57-NQ/TW",
     "40-HD/VPTW",
     "19130-CV/VPTW", "12-QĐ/TU", "05-KH/ĐU", "24-QĐ/UBKTTW"],
)  # fmt: skip
def test_numbers(wanted: str) -> None:
    assert code(f"Số: {wanted}") == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("Số:251    /QĐ-UBND", "251/QĐ-UBND"), ("Số: 101           /QĐ-TTPVHCC", "101/QĐ-TTPVHCC"), ("Số: 7/QÐ-UBND",
        "07/QĐ-UBND"),
     ("**Số:** 05 /QĐ-UBND", "05/QĐ-UBND"), ("SỐ: 9/BC - SYT", "09/BC-SYT"), ("Số 57-NQ/TW", "57-NQ/TW")],
)  # fmt: skip
def test_written_forms(line: str, wanted: str) -> None:
    assert code(line) == wanted


def test_glued_place() -> None:
    found = read("BỘ NỘI VỤ\nSố: 02 /CT-BNVHà Nội, ngày 11 tháng 9 năm 2012\nCHỈ THỊ")
    assert found.code and found.code.value == "02/CT-BNV"
    assert found.place and found.place.value == "Hà Nội"


def test_the_parents_number_is_not_our_own() -> None:
    found = read("PHỤ LỤC\n(Kèm theo Quyết định\nsố: 261 /QĐ-UBND ngày 05 tháng 3 năm 2024)\nNội dung")
    assert found.code is None and found.cites == ("261/QĐ-UBND",)


def test_no_numbers_in_dates_roads_and_addresses() -> None:
    assert (
        read(
            "ngày 30/5/2014; 24/7; 1/3 chữ ký; http://a.gov.vn/2014/CT-UBND; Điều 5/6 TT; 12/QL1A; TCVN 6909:2001"
        ).cites
        == ()
    )


@pytest.mark.parametrize(
    ("line", "date", "place"),
    [("Hà Tĩnh, ngày 20 tháng 8 năm 2014", "2014-08-20", "Hà Tĩnh"), ("Mỹ Tho, ngày 17  tháng 02 năm 2009",
        "2009-02-17", "Mỹ Tho"),
     ("Hà Nội, ngày **11** tháng **9** năm **2012**", "2012-09-11", "Hà Nội"),
     ("Thành phố Hồ Chí Minh, ngày 1 tháng 1 năm 2025", "2025-01-01", "Thành phố Hồ Chí Minh"),
     ("Bà Rịa - Vũng Tàu, ngày 31 tháng 12 năm 2023", "2023-12-31", "Bà Rịa - Vũng Tàu")],
)  # fmt: skip
def test_dates(line: str, date: str, place: str) -> None:
    found = read(f"SỞ NỘI VỤ\nSố: 1/BC-SNV\t{line}\nBÁO CÁO")
    assert found.date and found.date.value == date
    assert found.place and found.place.value == place


def test_impossible_and_cited_dates() -> None:
    found = read("SỞ NỘI VỤ\nSố: 1/BC-SNV\tHà Nội, ngày 31 tháng 02 năm 2024\nCăn cứ Luật ngày 01 tháng 01 năm 2020")
    assert found.date is None


def test_a_whole_decision() -> None:
    found = read(
        HEAD + "Số: 15 /QĐ-UBND\tBắc Sơn, ngày 05 tháng 3 năm 2024\n\nQUYẾT ĐỊNH\nVề việc ban hành Quy chế làm "
        "việc\ncủa Hội đồng thi đua\n"
        "CHỦ TỊCH ỦY BAN NHÂN DÂN TỈNH\nCăn cứ Nghị định số 30/2020/NĐ-CP ngày 05 tháng 3 năm 2020;\nĐiều 1. Ban "
        "hành kèm theo Phụ lục I, II.\n"
        "Nơi nhận:\tTM. ỦY BAN NHÂN DÂN\n- Như Điều 3;\tKT. CHỦ TỊCH\n- Bộ Nội vụ (để b/c);\tPHÓ CHỦ TỊCH\n- Lưu: "
        "VT, TH.\tTrần Văn An\nGửi: Văn bản điện tử."
    )
    assert found.issuing_agency and found.issuing_agency.value == "ỦY BAN NHÂN DÂN TỈNH BẮC SƠN"
    assert found.abstract and found.abstract.value == "Về việc ban hành Quy chế làm việc của Hội đồng thi đua"
    assert found.kind and found.kind.value == "QĐ"
    assert found.signer and found.signer.value == "Trần Văn An"
    assert found.signer_title and found.signer_title.value == "PHÓ CHỦ TỊCH"
    assert [(r.name, r.purpose) for r in found.recipients] == [
        ("Như Điều 3", ""),
        ("Bộ Nội vụ", "để b/c"),
        ("Lưu: VT, TH", ""),
    ]
    assert found.mode_line == "electronic_only" and found.components == 6 and not found.draft
    assert found.cites == ("30/2020/NĐ-CP",) and found.annexes_named == ("Phụ lục I", "Phụ lục II")


def test_an_official_letter() -> None:
    found = read(
        "UBND TỈNH BẮC SƠN\nSỞ NỘI VỤ\nSố: 88/SNV-VP\nV/v góp ý dự thảo kế hoạch\ntuyên truyền năm 2024\nCỘNG HÒA "
        "XÃ HỘI CHỦ NGHĨA VIỆT NAM\n"
        "Bắc Sơn, ngày 6 tháng 5 năm 2024\nKính gửi: Sở Tài chính\nNội dung.\nGIÁM ĐỐC\nLê Thị Hạnh"
    )
    assert found.kind and found.kind.value == "CV"
    assert found.abstract and found.abstract.value == "góp ý dự thảo kế hoạch tuyên truyền năm 2024"
    assert found.issuing_agency and found.issuing_agency.value == "SỞ NỘI VỤ"
    assert found.signer and found.signer.value == "Lê Thị Hạnh"


@pytest.mark.parametrize("line", ["Số:      /QĐ-UBND", "Số: …../QĐ-UBND", "Số: ____/QĐ-UBND"])
def test_blank_number_is_a_draft_unless_signed(line: str) -> None:
    content = f"{HEAD}{line}\tBắc Sơn, ngày     tháng    năm 2024\nQUYẾT ĐỊNH\nVề việc thử"
    assert read(content).draft and read(content).code is None
    assert not read(content, signatures=(Signature(state=SignatureState.VALID, kind="organisation"),)).draft


def test_draft_mark() -> None:
    assert read(HEAD + "DỰ THẢO\nSố: 1/BC-UBND\nBÁO CÁO").draft
    assert not read(HEAD + "Số: 1/BC-UBND\nBÁO CÁO\nVề việc góp ý dự thảo Luật").draft


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("Gửi: Văn bản điện tử.", "electronic_only"),
        ("- Gửi bản giấy và điện tử.", "electronic_and_paper"),
        ("Gửi bản giấy.", "paper"),
        ("x", ""),
    ],
)
def test_mode_line(line: str, mode: str) -> None:
    assert read(f"Nơi nhận:\n- Như trên;\n{line}").mode_line == mode


def test_internal_and_recall() -> None:
    assert read(HEAD + "Số: 1/BC-UBND\nLƯU HÀNH NỘI BỘ\nBÁO CÁO").internal
    assert read("SỞ NỘI VỤ\nSố: 1/SNV-VP\nV/v thu hồi văn bản số 5/SNV-VP\nKính gửi: x").recall


def test_signer_from_the_certificate() -> None:
    person = Signature(state=SignatureState.VALID, kind="person", signer="Nguyễn Thị Lan")
    found = read(HEAD + "Số: 1/BC-UBND", signatures=(person,))
    assert found.signer and (found.signer.value, found.signer.source) == ("Nguyễn Thị Lan", "signature")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("14-CT-UBND.pdf", "14/CT-UBND"), ("2437_QĐ_UBND.signed.pdf", "2437/QĐ-UBND"), ("2437_QD_UBND.pdf",
        "2437/QĐ-UBND"),
     ("anh chup.jpg", None), ("05-06-2024.pdf", None)],
)  # fmt: skip
def test_file_names_only_propose(name: str, wanted: str | None) -> None:
    found = read("", name)
    assert (found.code.value if found.code else None) == wanted
    if found.code:
        assert found.code.source == "file name" and found.code.confidence < 0.5


def test_number_in_the_subject() -> None:
    found = document.fields([Segment("tiêu đề", "Gửi QĐ số 15/QĐ-UBND ngày 5/3", None, "subject")])
    assert found.code and (found.code.value, found.code.source) == ("15/QĐ-UBND", "subject")


@pytest.mark.parametrize("encoding", ["nfc", "nfd", "vni", "viscii", "mojibake"])
def test_made_papers_from_plain_text(encoding: str) -> None:
    for paper in corpus.papers(40, seed=11):
        found = read(corpus.ENCODINGS[encoding](paper.text))
        assert found.code and found.code.value == paper.code
        assert found.date and found.date.value == paper.date
        assert found.kind and found.kind.value == paper.kind
        assert found.signer and found.signer.value == paper.signer
        assert document.is_document(found)


def test_made_papers_from_pdf_pages() -> None:
    right = 0
    for paper in corpus.papers(30, seed=12):
        found = document.fields(text.extract(corpus.pdf(corpus.laid_out(paper)), "pdf").segments)
        right += (
            found.code and found.code.value,
            found.date and found.date.value,
            found.signer and found.signer.value,
        ) == (paper.code, paper.date, paper.signer)
    assert right == 30


def test_letters_and_notes_are_no_documents() -> None:
    assert not document.is_document(read("Chào anh,\nEm gửi anh tài liệu họp ngày mai.\nCảm ơn anh."))
    assert not document.is_document(read(""))


@given(
    st.text(
        alphabet=st.sampled_from("Số: /QĐ-UBND12345 ngày tháng năm\n\tTM. KT. CHỦ TỊCH Nơi nhận:-V/v,"), max_size=400
    )
)
def test_total(content: str) -> None:
    read(content, content[:40])


def test_documents_of_every_level_and_kind() -> None:
    """The made documents of bench/fields_eval.py, as Word keeps them and as a table engine draws them."""
    wrong = []
    for as_pdf in (False, True):
        for n, made in fields_eval.documents(58, seed=2):
            rng = random.Random(n)
            data = fields_eval.as_pdf(made, rng) if as_pdf else fields_eval.as_docx(made, rng)
            found = document.fields(text.extract(data, "pdf" if as_pdf else "docx").segments)
            got = fields_eval.values(found, "")
            wrong += [
                (n, as_pdf, name, made.truth[name], got[name])
                for name in fields_eval.FIELDS
                if name != "urgency" and fields_eval.verdict(name, made.truth[name], got[name], ocr=False) != "right"
            ]
    assert wrong == []


@pytest.mark.parametrize(
    ("lines", "agency"),
    [
        ("UBND TỈNH X\nSỞ NÔNG NGHIỆP VÀ MÔI\nTRƯỜNG", "SỞ NÔNG NGHIỆP VÀ MÔI TRƯỜNG"),
        ("UBND TỈNH X\nSỞ NỘI VỤ -\nSỞ TÀI CHÍNH", "SỞ NỘI VỤ - SỞ TÀI CHÍNH"),
        ("ỦY BAN NHÂN DÂN\nPHƯỜNG 14", "ỦY BAN NHÂN DÂN PHƯỜNG 14"),
        ("NGÂN HÀNG NHÀ NƯỚC VIỆT\nNAM", "NGÂN HÀNG NHÀ NƯỚC VIỆT NAM"),
        ("VĂN PHÒNG ỦY BAN NHÂN DÂN CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\nTỈNH X", "VĂN PHÒNG ỦY BAN NHÂN DÂN TỈNH X"),
    ],
)
def test_names_of_agencies_over_lines(lines: str, agency: str) -> None:
    found = read(f"{lines}\nSố: 12/BC-SNV\nBÁO CÁO\nTình hình quý I\nCăn cứ Luật")
    assert found.issuing_agency and found.issuing_agency.value == agency


@pytest.mark.parametrize("name", ["Lưu Văn Tình", "Nguyễn Thị Trang Anh", "Y Xuân Ước", "Phạm Quốc Tính"])
@pytest.mark.parametrize("rank", ["", "Ts. ", "Đại tá "])
def test_names_that_look_like_other_words(name: str, rank: str) -> None:
    found = read(
        f"{HEAD}Số: 12/BC-UBND\nBÁO CÁO\nTình hình\nNơi nhận:\tKT. CHỦ TỊCH\n- Lưu: VT.\tPHÓ CHỦ TỊCH\n{rank}{name}"
    )
    assert found.signer and found.signer.value == name


@pytest.mark.parametrize(
    ("block", "title"),
    [
        ("KT. TỔNG KIỂM TOÁN NHÀ NƯỚC\nPHÓ TỔNG KIỂM TOÁN NHÀ\nNƯỚC", "PHÓ TỔNG KIỂM TOÁN NHÀ NƯỚC"),
        ("TL. CHỦ TỊCH\nCÔNG CHỨC VĂN PHÒNG - THỐNG KÊ", "CÔNG CHỨC VĂN PHÒNG - THỐNG KÊ"),
        ("TL. CHỦ TỊCH\nCÔNG CHỨC VĂN PHÒNG -\nTHỐNG KÊ", "CÔNG CHỨC VĂN PHÒNG - THỐNG KÊ"),
        ("T/M BAN BÍ THƯ\nTHƯỜNG TRỰC BAN BÍ THƯ", "THƯỜNG TRỰC BAN BÍ THƯ"),
        ("K/T CHÁNH VĂN PHÒNG\nPHÓ CHÁNH VĂN PHÒNG", "PHÓ CHÁNH VĂN PHÒNG"),
    ],
)
def test_titles_over_lines(block: str, title: str) -> None:
    found = read(f"{HEAD}Số: 12/BC-UBND\nBÁO CÁO\nTình hình\nNội dung.\n{block}\nTrần Văn An")
    assert found.signer_title and found.signer_title.value == title
    assert found.signer and found.signer.value == "Trần Văn An"


def test_recipients_whose_dashes_word_draws() -> None:
    found = read(
        f"{HEAD}Số: 12/BC-UBND\nBÁO CÁO\nTình hình\nNơi nhận:\nNhư trên;\nSở Tài chính (để p/h);\nLưu: VT.\nCHỦ TỊCH"
    )
    assert [(r.name, r.purpose) for r in found.recipients] == [
        ("Như trên", ""),
        ("Sở Tài chính", "để p/h"),
        ("Lưu: VT", ""),
    ]


def test_the_mode_line_is_no_recipient() -> None:
    found = read(f"{HEAD}Số: 12/BC-UBND\nBÁO CÁO\nNơi nhận:\n- Như trên;\n- Lưu: VT.\n- Gửi bản giấy và điện tử.")
    assert [r.name for r in found.recipients] == ["Như trên", "Lưu: VT"] and found.mode_line == "electronic_and_paper"


def test_an_unnumbered_letter_is_a_letter_from_its_place() -> None:
    found = read("SỞ NỘI VỤ\nSố:     /SNV-VP\nV/v thử\nVinh, ngày    tháng 5 năm 2024\nKính gửi: x")
    assert found.kind and found.kind.value == "CV" and found.place and found.place.value == "Vinh"
    assert found.draft and found.date is None


@pytest.mark.parametrize("line", ["Số: 45/HD-SNV-\nSTC", "Số: 45\n/HD-SNV-STC"])
def test_a_symbol_its_column_was_too_narrow_for(line: str) -> None:
    found = read(f"SỞ NỘI VỤ - SỞ TÀI CHÍNH\n{line}\nHƯỚNG DẪN\nVề việc thử")
    assert found.code and found.code.value == "45/HD-SNV-STC"


def scanned(content: str) -> Document:
    return document.fields([Segment("trang 1 (bản quét)", content, 1, "ocr")])


def test_what_ocr_misreads_of_known_words() -> None:
    found = scanned(
        "UỶ BAN NHÂN DÂN THÀNH PHÓ HÁI PHÒNG   CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM\n"
        "Số: 12/UBND-TH   Hải Phòng, ngày 05 tháng 3 năm 2024\nVW: triển khai chiến dịch\nKính gửi: x\nNội dung.\n"
        "ma.      KT. CHU TỊCH\n~ Cống Thông tin điện tử (đế đăng tải);   PHO CHU TỊCH\n- Lưu: VT.\nĐỉnh Bá Êban"
    )
    assert found.issuing_agency and found.issuing_agency.value == "UỶ BAN NHÂN DÂN THÀNH PHỐ HẢI PHÒNG"
    assert (
        found.kind and found.kind.value == "CV" and found.abstract and found.abstract.value == "triển khai chiến dịch"
    )
    assert found.signer_title and found.signer_title.value == "PHÓ CHỦ TỊCH"
    assert found.signer and found.signer.value == "Đinh Bá Êban"
    assert [(r.name, r.purpose) for r in found.recipients] == [
        ("Cổng Thông tin điện tử", "để đăng tải"),
        ("Lưu: VT", ""),
    ]


def test_spelling_leaves_what_it_does_not_know() -> None:
    for line in ("Số: 12/QĐ-UBND", "HOÀ BÌNH", "ỦY BAN", "UỶ BAN NHÂN DÂN", "xyz 12", ""):
        assert spelling.mended(line) == line
