"""Marks of secrecy and urgency: every strong form found, nothing on ordinary texts, in every encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import text_corpus as corpus
from gateway.inspection import secrecy
from gateway.inspection.segments import Segment


def found(text: str, zone: str = "body", page: int | None = None) -> set[tuple[str, str]]:
    return {(f.value, f.grade) for f in secrecy.marks([Segment("chỗ", text, page, zone)]) if f.kind == "secrecy"}


def urgent(text: str, zone: str = "body") -> set[tuple[str, str]]:
    return {(f.value, f.grade) for f in secrecy.marks([Segment("chỗ", text, None, zone)]) if f.kind == "urgency"}


@pytest.mark.parametrize("encoding", corpus.ENCODINGS)
@pytest.mark.parametrize("mark", corpus.STRONG_LINES)
def test_strong_lines_in_every_encoding(mark: str, encoding: str) -> None:
    assert (corpus.STRONG_LINES[mark], "strong") in found(corpus.ENCODINGS[encoding](mark))


@pytest.mark.parametrize("encoding", corpus.ENCODINGS)
@pytest.mark.parametrize("mark", corpus.STRONG_LINES)
def test_strong_lines_inside_a_document(mark: str, encoding: str) -> None:
    text = f"ỦY BAN NHÂN DÂN TỈNH\nSố: 05/KH-UBND\n{mark}\nKính gửi: các sở, ban, ngành"
    assert (corpus.STRONG_LINES[mark], "strong") in found(corpus.ENCODINGS[encoding](text))


@pytest.mark.parametrize("line", corpus.STRONG_CELLS)
@pytest.mark.parametrize("encoding", corpus.ENCODINGS)
def test_glued_header_cells(line: str, encoding: str) -> None:
    assert (corpus.STRONG_CELLS[line], "strong") in found(corpus.ENCODINGS[encoding](line))


@pytest.mark.parametrize("encoding", corpus.ENCODINGS)
@pytest.mark.parametrize("subject", corpus.STRONG_SUBJECTS)
def test_subjects(subject: str, encoding: str) -> None:
    assert (corpus.STRONG_SUBJECTS[subject], "strong") in found(corpus.ENCODINGS[encoding](subject), "subject")


@pytest.mark.parametrize("disguise", corpus.DISGUISES)
@pytest.mark.parametrize("mark", ["MẬT", "TỐI MẬT", "TUYỆT MẬT", "Độ mật: Mật"])
def test_disguises(mark: str, disguise: str) -> None:
    assert any(grade == "strong" for _, grade in found(corpus.DISGUISES[disguise](mark)))


@pytest.mark.parametrize("line", corpus.WEAK_LINES)
def test_weak_forms_ask_for_a_person(line: str) -> None:
    grades = {grade for _, grade in found(line)}
    assert grades == {"weak"}


@pytest.mark.parametrize("phrase", corpus.BENIGN)
@pytest.mark.parametrize("around", ["{}", "Quy định về {} trong cơ quan nhà nước.", "- {};"])
def test_benign_phrases(phrase: str, around: str) -> None:
    text = around.format(phrase)
    assert not found(text) and not urgent(text)
    assert not found(text, "subject")


@pytest.mark.parametrize("encoding", corpus.ENCODINGS)
def test_ordinary_documents_raise_nothing(encoding: str) -> None:
    for paper in corpus.papers(20):
        text = corpus.ENCODINGS[encoding](paper.text)
        assert secrecy.marks([Segment("trang 1", text, 1)]) == [], paper.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("BC mật.docx", "mat"), ("ke_hoach_tuyet_mat.pdf", "tuyet_mat"), ("tối mật - phương án.doc", "toi_mat"),
     ("[MẬT] Bao cao.pdf", "mat"), ("TUYỆT MẬT.zip", "tuyet_mat"), ("thu muc/toi_mat.xlsx", "toi_mat")],
)  # fmt: skip
def test_file_names(name: str, value: str) -> None:
    assert value in {level for level, _ in found(name, "filename")}


@pytest.mark.parametrize(
    "name",
    ["mật khẩu.txt", "quy-che-bao-mat.pdf", "bí mật kinh doanh.doc", "mat bang.dwg", "mật độ dân số.xlsx",
        "mat_khau_moi.txt",
     "Mặt trận Tổ quốc.pdf", "toi mat dien thoai.txt", "Luật bảo vệ bí mật nhà nước.pdf"],
)  # fmt: skip
def test_harmless_file_names(name: str) -> None:
    assert not found(name, "filename")


def test_table_headings_with_all_levels_are_for_a_person() -> None:
    assert {grade for _, grade in found("TUYỆT MẬT\tTỐI MẬT\tMẬT")} == {"weak"}
    assert {grade for _, grade in found("TUYỆT MẬT\nTỐI MẬT\nMẬT")} == {"weak"}
    assert {grade for _, grade in found("Độ mật: Mật/Tối mật/Tuyệt mật")} == {"weak"}


def test_figures_on_inner_pages_are_for_a_person_unless_page_one_is_marked() -> None:
    inner = Segment("trang 3", "Hình 2\nTUYỆT MẬT\nMẫu dấu", 3)
    assert [f.grade for f in secrecy.marks([Segment("trang 1", "QUY CHẾ", 1), inner])] == ["weak"]
    assert {f.grade for f in secrecy.marks([Segment("trang 1", "Số: 1\nMẬT", 1), inner])} == {"strong"}
    label = Segment("trang 5", "Độ mật: Tối mật", 5)
    assert [f.grade for f in secrecy.marks([label])] == ["strong"]  # strong labels count on all pages


def test_recall_mark_is_strong_only_in_company() -> None:
    assert found("TÀI LIỆU THU HỒI") == {("recall_mark", "weak")}
    assert ("recall_mark", "strong") in found("TÀI LIỆU THU HỒI\nMẬT")


def test_findings_of_secrecy_carry_no_text() -> None:
    for finding in secrecy.marks([Segment("trang 1", "Số: 1\nTUYỆT MẬT\nKế hoạch X", 1)], "tep.pdf"):
        assert finding.evidence == "" and finding.where == "trang 1" and finding.about == "tep.pdf"


@pytest.mark.parametrize(
    ("text", "value"),
    [("HỎA TỐC", "hoa_toc"), ("HOẢ TỐC", "hoa_toc"), ("THƯỢNG KHẨN", "thuong_khan"), ("KHẨN", "khan"),
        ("HỎA TỐC HẸN GIỜ", "hoa_toc_hen_gio"),
     ("Độ khẩn: Hỏa tốc", "hoa_toc"), ("Mức độ khẩn: Thượng khẩn", "thuong_khan")],
)  # fmt: skip
@pytest.mark.parametrize("encoding", corpus.ENCODINGS)
def test_urgency(text: str, value: str, encoding: str) -> None:
    assert (value, "strong") in urgent(corpus.ENCODINGS[encoding](text))


def test_urgency_of_subjects() -> None:
    assert urgent("[HỎA TỐC] Mời họp", "subject") == {("hoa_toc", "strong")}
    assert urgent("KHẨN: báo cáo mưa lũ", "subject") == {("khan", "strong")}
    assert urgent("Khẩn trương báo cáo", "subject") == set()
    assert urgent("CÔNG ĐIỆN KHẨN") == {("khan", "weak")}


@pytest.mark.parametrize(
    ("line", "value"),
    [("LƯU HÀNH NỘI BỘ", "internal"), ("XEM XONG TRẢ LẠI", "return_after_reading"), ("XONG HỘI NGHỊ TRẢ LẠI",
        "return_after_reading"),
     ("TÀI LIỆU THU HỒI", "recall"), ("KHÔNG PHỔ BIẾN TRÊN PHƯƠNG TIỆN THÔNG TIN ĐẠI CHÚNG", "no_spread")],
)  # fmt: skip
def test_circulation(line: str, value: str) -> None:
    marks = secrecy.marks([Segment("trang 1", f"UBND TỈNH\n{line}\nKính gửi", 1)])
    assert value in {f.value for f in marks if f.kind == "circulation"}


@given(st.text(alphabet=st.characters(), max_size=400))
def test_total(text: str) -> None:
    for zone in ("body", "subject", "filename"):
        secrecy.marks([Segment("x", text, 1, zone)])


@given(st.text(alphabet="MẬTmật tốiTỐI\n\t.|-[]()ABC:độĐ", max_size=200))
def test_total_on_near_marks(text: str) -> None:
    for zone in ("body", "subject", "filename"):
        assert all(f.evidence == "" for f in secrecy.marks([Segment("x", text, 1, zone)]))


@pytest.mark.parametrize("text", ["mật " + "bản số . " * 17, "mật " + "bản số . " * 220, "MẬT" + "(a)" * 600 + "x"])
def test_near_marks_cost_no_time(text: str) -> None:
    """Patterns that could go back and forth over the same signs took for ever on these: it ends is the test."""
    for zone in ("body", "subject", "filename"):
        assert found(text, zone) <= {("mat", "weak")}


@pytest.mark.parametrize(
    "text",
    ["MẬ T", "M/Ậ/T", "M|Ậ|T", "M_Ậ_T", "TUYỆT-MẬT", "🔒 MẬT 🔒", "T Ố I  M Ậ T", "TUYỆTMẬT"],
)
def test_letters_parted_by_anything(text: str) -> None:
    assert {grade for _, grade in found(f"Số: 05/KH-UBND\n{text}\nKính gửi: các đơn vị")} == {"strong"}


@pytest.mark.parametrize("subject", ["🔒 MẬT - Báo cáo", "MẬT. - Báo cáo", "TUYỆT MẬT (A) - Báo cáo", "TUYỆT-MẬT: họp"])
def test_subjects_with_signs_beside_the_mark(subject: str) -> None:
    assert {grade for _, grade in found(subject, "subject")} == {"strong"}


def test_other_labels_ask_for_a_person() -> None:
    assert found("Phân loại: MẬT") == {("mat", "weak")} and found("Classification: TỐI MẬT") == {("toi_mat", "weak")}
    assert found("Phân loại: mật ong") == set() and found("Họ và tên: MẬT") == set()


@pytest.mark.parametrize(
    "text",
    [
        "BẢO\tVỆ\tBÍ\tMẬT\tNHÀ\tNƯỚC",  # a justified line
        "MẬT\tĐỘ\tDÂN\tSỐ",
        "10 năm đối với bí mật nhà nước độ\nMật.",
        "a) Tuyệt mật;\nb) Tối mật;\nc) Mật.",
        "Độ mật: □ Mật □ Tối mật □ Tuyệt mật",
        "A. MẬT\nB. TỐI MẬT\nC. TUYỆT MẬT",
        "1. TUYỆT MẬT\n2. TỐI MẬT\n3. MẬT",
        "Tuyệt mật\t0\nTối mật\t2\nMật\t5",
    ],
)
def test_texts_about_secrecy(text: str) -> None:
    assert found(text, page=1) == set()


@pytest.mark.parametrize("text", ["CÁC ĐỘ MẬT\nTUYỆT MẬT – TỐI MẬT – MẬT", "1\tMẬT\t12\n2\tTỐI MẬT\t3"])
def test_tables_of_levels_are_for_a_person(text: str) -> None:
    assert {grade for _, grade in found(text, page=1)} == {"weak"}


def test_values_of_properties_stand_alone() -> None:
    assert found("Hình 1\nMẬT\nx", "property") == {("mat", "strong")}
