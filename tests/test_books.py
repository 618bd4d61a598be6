"""Registers as files: every cell is what the register says, nothing is a formula, and the PDF can be bound."""

from __future__ import annotations

import csv
import io
import zipfile

import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from gateway import books
from gateway.books import Title
from gateway.register import columns_of

TITLE = Title("Sở Nội vụ tỉnh Demo", "Ủy ban nhân dân tỉnh Demo", "in", 2026)


def entry(number: int | None, **values: object) -> dict:
    one: dict = {column.name: "" for column in columns_of(str(values.get("direction", "in")))}
    one |= {
        "id": f"E{number}", "agency": "snv", "direction": "in", "year": 2026, "origin": "mail", "number": number,
        "series": "in", "state": "registered", "day": "2026-11-20", "status": "03", "flags": [], "compared": "",
        "cases": ["C1", "C2"], "sha256": "", "corrected": [], "arrival_date": "2026-11-20",
        "arrival_number": "" if number is None else str(number), "document_code": "15/TB-SNV",
        "issued_date": "2026-11-19", "type_name": "Thông báo", "abstract": "Về việc sử dụng văn bản điện tử",
        "issuing_agency": "Ủy ban nhân dân huyện Mẫu", "mailboxes": "vanthu@snv.tinh.gov.vn",
    }  # fmt: skip
    return one | values


def table(data: bytes) -> list[dict[str, str]]:
    assert data.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


DANGEROUS = ["=1+1", "+84", "-1", "@SUM(A1)", "\t=1", " =1", '=HYPERLINK("http://x","y")', "=cmd|' /C calc'!A0"]


def test_csv_has_every_field_and_no_formula():
    data = books.csv_file([entry(1, abstract=one, signed_for='"a",\r\nb') for one in DANGEROUS], "in")
    rows = table(data)
    assert [row["abstract"] for row in rows] == [f"'{one}" for one in DANGEROUS]
    assert rows[0]["signed_for"] == '"a",\r\nb' and rows[0]["cases"] == "C1 C2"
    assert {column.name for column in columns_of("in")} < rows[0].keys()


def test_xlsx_is_text_dates_and_numbers():
    out = io.BytesIO()
    rows = [entry(n, abstract=one) for n, one in enumerate(DANGEROUS, 1)]
    books.xlsx_file([*rows, entry(None, issued_date="", description="https://x.vn/")], "in", TITLE, out)
    with zipfile.ZipFile(out) as whole:
        sheet = whole.read("xl/worksheets/sheet1.xml").decode()
        assert "<f>" not in sheet and "<hyperlink" not in sheet and 'orientation="landscape"' in sheet
    out.seek(0)
    found = CalamineWorkbook.from_filelike(out).get_sheet_by_index(0).to_python()
    heading = found[0]
    assert heading[:3] == ["Ngày đến", "Số đến", "Số văn bản đến"]
    at = heading.index("Trích yếu")
    assert [row[at] for row in found[1:-1]] == DANGEROUS
    assert str(found[1][heading.index("Ngày, tháng văn bản")]) == "2026-11-19"
    assert found[1][heading.index("Số đến")] == 1


def read(data: bytes) -> tuple[pypdf.PdfReader, list[str]]:
    reader = pypdf.PdfReader(io.BytesIO(data))
    return reader, [page.extract_text() for page in reader.pages]


def test_pdf_across_with_heading_numbers_and_embedded_letters():
    rows = [entry(n, flags=["same_number"] if n == 3 else []) for n in range(1, 121)]
    rows[4] |= {"state": "cancelled", "description": "SỐ HỦY: gõ nhầm"}
    out = io.BytesIO()
    pages = books.pdf_file(rows, TITLE, out)
    reader, texts = read(out.getvalue())
    assert pages == len(reader.pages) > 4
    for number, (page, text) in enumerate(zip(reader.pages, texts, strict=True), 1):
        assert float(page.mediabox.width) > float(page.mediabox.height)  # A4 across
        assert f"Trang {number}/{pages}" in text
        assert (number in (1, pages)) != ("Tên loại và trích yếu" in text)
    assert "SỔ ĐĂNG KÝ VĂN BẢN ĐẾN" in texts[0] and "Từ số 1 đến số 120" in texts[0] and "Năm: 2026" in texts[0]
    assert "SỐ HỦY: gõ" in texts[1] and "trùng số" in texts[1] and "Số hủy: 5" in texts[-1]
    everything = " ".join(" ".join(texts).split())
    for number in (1, 60, 120):
        assert f"20/11/2026 {number} Ủy ban nhân dân" in everything
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():
            parts = font.get_object()["/FontDescriptor"]
            assert "/FontFile2" in parts  # embedded


def test_pdf_of_outgoing_documents_with_several_series():
    own = {"direction": "out", "sent_to": "a@b.vn", "issued_amount": "3", "copy_holder": "VT", "forwarded_on": ""}
    rows = [entry(1, **own, series="QĐ"), entry(7, **own, series="TB"), entry(9, **own, series="TB")]
    out = io.BytesIO()
    books.pdf_file(rows, Title("Sở Nội vụ", "", "out", 2026), out)
    _, texts = read(out.getvalue())
    assert "SỔ ĐĂNG KÝ VĂN BẢN ĐI" in texts[0] and "Các số: QĐ 1–1, TB 7–9" in texts[0]
    assert "Nơi nhận văn bản" in texts[1]


def test_an_empty_register_can_be_printed():
    out = io.BytesIO()
    assert books.pdf_file([], TITLE, out) == 3
    books.xlsx_file([], "in", TITLE, io.BytesIO())
    assert table(books.csv_file([], "in")) == []


def words(text: str) -> str:
    return "".join(one for one in text if not one.isspace())


def test_a_row_higher_than_a_page_goes_on():
    long = " ".join(f"chữ{n}" for n in range(3000))
    out = io.BytesIO()
    books.pdf_file([entry(1), entry(2, abstract=long), entry(3)], TITLE, out)
    _, texts = read(out.getvalue())
    assert all(f"chữ{n}" in words(" ".join(texts)) for n in range(0, 3000, 100))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.sampled_from(["abstract", "mailboxes", "document_code"]))
def test_any_text_can_be_printed_and_fits(text, name):
    out = io.BytesIO()
    page = books._Pages(out, TITLE, books._IN)
    (rows,) = page.layout([books.annex(entry(1, **{name: text}))]) or [[]]
    for cells, _ in rows:
        for lines, width in zip(cells, page.widths, strict=True):
            for line in lines:
                assert page.measure(line, page.regular) <= width - 2 * books._PAD + 0.01 or len(line) == 1
    assert books.pdf_file([entry(1, **{name: text})], TITLE, io.BytesIO()) >= 3


@pytest.mark.parametrize("text", ["Về việc", "15/TB-SNV", "", "2026", "a=b", "a@b"])
def test_ordinary_text_stays_as_it_is(text):
    assert books.harmless(text) == text
