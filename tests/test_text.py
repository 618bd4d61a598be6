"""Text of files, with places; active content; what cannot be read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import text_corpus as corpus
from gateway.inspection import containers, text
from tests.data.inspection import ole

MARK = "ỦY BAN NHÂN DÂN TỈNH\nSố: 05/KH-UBND\nTỐI MẬT\nKính gửi: các sở"


def read(data: bytes, name: str = "") -> text.Text:
    return text.extract(data, containers.sniff(data, name))


def zones(found: text.Text) -> dict[str, str]:
    out: dict[str, str] = {}
    for segment in found.segments:
        out[segment.zone] = out.get(segment.zone, "") + segment.text + "\n"
    return out


def values(found: text.Text, kind: str) -> set[str]:
    return {finding.value for finding in found.findings if finding.kind == kind}


def lines(content: str) -> list[str]:
    return [line.strip() for line in content.split("\n") if line.strip()]


# -- Office ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [False, True])
def test_docx_places(split: bool) -> None:
    found = zones(read(corpus.docx("Kính gửi", header="TUYỆT MẬT", box="TỐI MẬT", watermark="MẬT", split=split)))
    assert lines(found["body"]) == ["Kính gửi"]
    assert lines(found["header"]) == ["TUYỆT MẬT"]
    assert lines(found["textbox"]) == ["TỐI MẬT"]
    assert lines(found["watermark"]) == ["MẬT"]


def test_docx_small_letters_shown_as_capitals() -> None:
    run = "<w:p><w:r><w:rPr><w:caps/></w:rPr><w:t>tuyệt mật</w:t></w:r></w:p>"
    run += '<w:p><w:pPr><w:pStyle w:val="Dau"/></w:pPr><w:r><w:t>mật</w:t></w:r></w:p>'
    data = corpus.docx(
        "x",
        word__document=f"<w:document {corpus._W}><w:body>{run}</w:body></w:document>",
        word__styles=f'<w:styles {corpus._W}><w:style w:styleId="Dau"><w:rPr><w:caps/></w:rPr></w:style></w:styles>',
    )
    assert lines(zones(read(data))["body"]) == ["TUYỆT MẬT", "MẬT"]


def test_docx_properties_and_fonts() -> None:
    data = corpus.docx(
        "x",
        docProps__core="<cp:coreProperties xmlns:cp='c' xmlns:dc='d'><dc:subject>TỐI "
        "MẬT</dc:subject></cp:coreProperties>",
        docProps__custom="<Properties xmlns:vt='v'><property name='Độ "
        "mật'><vt:lpwstr>Mật</vt:lpwstr></property></Properties>",
        word__fontTable=f'<w:fonts {corpus._W}><w:font w:name=".VnTime"/><w:font w:name="VNI-Times"/><w:font '
        f'w:name="Arial"/></w:fonts>',
    )
    found = read(data)
    assert {"TỐI MẬT", "Mật"} <= set(lines(zones(found)["property"]))
    assert found.fonts == (".VnTime", "VNI-Times")


def test_xlsx_rows_headers_and_sheet_names() -> None:
    found = zones(read(corpus.xlsx([["STT", "Nội dung"], ["1", "TỐI MẬT"]], header="MẬT")))
    assert lines(found["body"]) == ["STT\tNội dung", "1\tTỐI MẬT"]
    assert lines(found["header"]) == ["MẬT"]
    assert "Trang 1" in found["property"]


def test_pptx_slides() -> None:
    found = read(corpus.pptx(["Một", "TUYỆT MẬT\nhai"]))
    assert [(s.page, lines(s.text)) for s in found.segments] == [(1, ["Một"]), (2, ["TUYỆT MẬT", "hai"])]


def test_odt_and_ods() -> None:
    found = zones(read(corpus.odt(MARK, header="MẬT")))
    assert lines(found["body"]) == MARK.split("\n") and lines(found["header"]) == ["MẬT"]


def test_doc_piece_table() -> None:
    found = zones(read(ole.doc(MARK, header="MẬT", box="TUYỆT MẬT")))
    assert lines(found["body"]) == MARK.split("\n")
    assert lines(found["header"]) == ["MẬT"] and lines(found["textbox"]) == ["TUYỆT MẬT"]
    assert lines(zones(read(ole.doc("TUYÖT MËT\nabc", compressed=True)))["body"]) == ["TUYÖT MËT", "abc"]


def test_xls_cells_and_header() -> None:
    found = zones(read(ole.xls([["a", "Số 5"], ["TỐI MẬT", "x"]], header="MẬT")))
    assert lines(found["body"]) == ["a\tSố 5", "TỐI MẬT\tx"] and lines(found["header"]) == ["MẬT"]


def test_ppt_atoms() -> None:
    assert lines(zones(read(ole.ppt(["Kính gửi", "TUYỆT MẬT"])))["body"]) == ["Kính gửi", "TUYỆT MẬT"]


@pytest.mark.parametrize(
    "data",
    [ole.doc("x" * 9, encrypted=True), ole.xls([["a"]], encrypted=True), ole.ppt(["x"], encrypted=True),
     ole.compound({"EncryptionInfo": bytes(5000), "EncryptedPackage": bytes(5000)})],
)  # fmt: skip
def test_encrypted_office(data: bytes) -> None:
    found = read(data, "a.docx")
    assert found.encrypted and values(found, "uninspectable") == {"encrypted"} and not found.segments


def test_office_macros() -> None:
    assert values(
        read(
            corpus.docx("x")
            and corpus.zipped({"[Content_Types].xml": "<T/>", "word/document.xml": "<d/>", "word/vbaProject.bin": "x"})
        ),
        "active",
    ) == {"macro"}
    macro = ole.compound({"WordDocument": bytes(5000), "Macros/VBA/dir": b"x"})
    assert "macro" in values(read(macro), "active")


def test_xml_bombs_are_refused() -> None:
    bomb = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><d>&b;</d>'
    found = read(corpus.docx("x", word__document=bomb))
    assert found.damaged and values(found, "uninspectable") and "aaaa" not in found.plain
    assert text.extract(bomb.encode(), "xml").damaged
    external = '<!DOCTYPE d SYSTEM "file:///etc/passwd"><d>x</d>'
    assert text.extract(external.encode(), "xml").damaged


def test_large_part_is_refused() -> None:
    data = corpus.zipped(
        {"[Content_Types].xml": "<T/>", "word/document.xml": b"<d>" + b" " * (text.MAX_XML + 10) + b"</d>"}
    )
    assert values(text.extract(data, "docx"), "uninspectable") == {"ratio"}


# -- RTF, HTML, plain --------------------------------------------------------------------------------------------


def test_rtf() -> None:
    found = zones(read(corpus.rtf(MARK, header="MẬT")))
    assert lines(found["body"]) == MARK.split("\n") and lines(found["header"]) == ["MẬT"]


def test_rtf_codepages_and_fonts() -> None:
    data = rb"{\rtf1\ansi{\fonttbl{\f0\fcharset163 Times New Roman;}{\f1 .VnTime;}}"
    data += rb"\f0 M\'c2\'f2T\par \f1 tuy\'d6t m\'cbt\par}"
    found = read(data)
    assert found.fonts == (".VnTime",)
    from gateway import vietnamese

    body = lines(zones(found)["body"])
    assert vietnamese.clean(body[0]) == "MẬT"
    assert vietnamese.from_tcvn3(body[1]) == "tuyệt mật"


def test_rtf_objects_and_depth() -> None:
    assert "ole_object" in values(read(rb"{\rtf1{\object\objemb{\*\objdata 0105}}x}"), "active")
    assert values(read(b"{\\rtf1 " + b"{" * 9000 + b"x"), "uninspectable") == {"too_deep"}


def test_html() -> None:
    page = "<html><head><style>p{}</style></head><body><p>Kính gửi</p><table><tr><td>M<b>Ậ</b>T</td></tr></table>"
    page += "<!-- ẩn --><p style='text-transform:uppercase'>tuyệt mật</p>&nbsp;</body></html>"
    found = zones(read(page.encode()))
    assert {"Kính gửi", "MẬT", "TUYỆT MẬT"} <= set(lines(found["html"]))
    assert "ẩn" not in found["html"] and "p{}" not in found["html"]
    assert "script" in values(read(b"<html><script>x()</script></html>"), "active")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("<p style='TEXT-TRANSFORM: Uppercase'>tuy&ecirc;t <b>m\u1eadt</b></p><p>thường</p>", ["TUYÊT MẬT", "thường"]),
        (
            "<style>p.a, .dau{color:red;text-transform:uppercase}</style><p class='x dau'>mật</p><p>mật</p>",
            ["MẬT", "mật"],
        ),
        ("<div style='text-transform:uppercase'><div>a</div>b</div><div>c</div>", ["A", "B", "c"]),
        ("<div style='text-transform:uppercase'>không đóng", ["KHÔNG ĐÓNG"]),
    ],
)
def test_html_small_letters_shown_as_capitals(source: str, shown: list[str]) -> None:
    assert lines(text.rendered(source)) == shown


def test_docx_custom_property_is_a_label() -> None:
    custom = "<Properties xmlns:vt='v'><property name='Độ mật'><vt:lpwstr>Mật</vt:lpwstr></property></Properties>"
    assert "Độ mật: Mật" in lines(zones(read(corpus.docx("x", docProps__custom=custom)))["property"])


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "utf-8-sig"])
def test_plain(codec: str) -> None:
    assert lines(zones(read(MARK.encode(codec), "a.txt"))["body"]) == MARK.split("\n")


def test_inline_pgp() -> None:
    found = read(b"abc\n-----BEGIN PGP MESSAGE-----\nx\n-----END PGP MESSAGE-----\n", "a.txt")
    assert values(found, "uninspectable") == {"pgp"} and found.encrypted


# -- PDF ---------------------------------------------------------------------------------------------------------


def test_pdf_pages_and_columns() -> None:
    data = corpus.pdf(
        [
            [
                (50, 60, "UBND TỈNH"),
                (320, 60, "CỘNG HÒA XÃ HỘI"),
                (50, 80, "Số:"),
                (100, 80, "/QĐ-UBND"),
                (320, 80, "Hà Nội, ngày 5"),
                (76, 80, "25"),
            ],
            [(60, 60, "TỐI MẬT")],
        ]
    )
    found = read(data)
    assert found.pages == 2
    first = found.segments[[s.page for s in found.segments].index(1)]
    assert first.text.split("\n")[0] == "UBND TỈNH\tCỘNG HÒA XÃ HỘI"
    assert first.text.split("\n")[1].split("\t")[0].replace(" ", "") == "Số:25/QĐ-UBND"  # drawn last, read in its place
    assert [s.text for s in found.segments if s.page == 2] == ["TỐI MẬT"]


def _with(data: bytes, catalogue: bytes, objects: bytes = b"") -> bytes:
    """The PDF with entries added to its catalogue; its offsets are then wrong and PDFium rebuilds them."""
    return data.replace(b"/Type /Catalog", b"/Type /Catalog " + catalogue, 1).replace(b"xref\n", objects + b"xref\n", 1)


@pytest.mark.parametrize(
    ("catalogue", "objects", "value"),
    [
        (b"/OpenAction << /S /JavaScript /JS (app.alert\\(1\\)) >>", b"", "javascript"),
        (b"/OpenAction << /S /#4aavaScript /#4a#53 (x) >>", b"", "javascript"),
        (b"/OpenAction << /S /Launch /F (cmd.exe) >>", b"", "launch"),
        (b"/OpenAction 900 0 R", b"900 0 obj\n<< /S /URI /URI (http://a.example) >>\nendobj\n", "openaction"),
        (b"/AcroForm << /XFA (x) >>", b"", "xfa"),
        (b"/Names << /EmbeddedFiles << /Names [] >> >>", b"", "embedded_file"),
    ],
)
def test_pdf_active_content(catalogue: bytes, objects: bytes, value: str) -> None:
    assert value in values(read(_with(corpus.pdf("Kính gửi"), catalogue, objects)), "active")


def test_pdf_opening_a_page_is_not_active() -> None:
    assert not values(read(_with(corpus.pdf("Kính gửi"), b"/OpenAction [3 0 R /FitH 800]")), "active")
    assert not values(read(corpus.pdf("Kính gửi")), "active")


def _protected(user: str, owner: str) -> bytes:
    from io import BytesIO

    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter()
    writer.append(PdfReader(BytesIO(corpus.pdf("Kính gửi\nTỐI MẬT"))))
    writer.encrypt(user_password=user, owner_password=owner, algorithm="AES-128")
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def test_pdf_passwords() -> None:
    locked = read(_protected("mo", "chu"))
    assert locked.encrypted and values(locked, "uninspectable") == {"encrypted"}
    opens = read(_protected("", "chu"))  # only changing it is restricted: the text is there to be read
    assert not opens.encrypted and "TỐI MẬT" in opens.plain


def test_pdf_annotations_and_embedded_files() -> None:
    from io import BytesIO

    from pypdf import PdfReader, PdfWriter
    from pypdf.annotations import FreeText

    writer = PdfWriter()
    writer.append(PdfReader(BytesIO(corpus.pdf("Kính gửi"))))
    writer.add_annotation(0, FreeText(text="TUYỆT MẬT", rect=(50, 550, 200, 650)))
    writer.add_attachment("kèm.txt", b"abc")
    out = BytesIO()
    writer.write(out)
    found = read(out.getvalue())
    assert "TUYỆT MẬT" in zones(found)["annotation"]
    assert found.embedded == [("kèm.txt", b"abc")] and "embedded_file" in values(found, "active")


def _written(change: Callable[[Any], None], *, locked: bool = False) -> bytes:
    from io import BytesIO

    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter()
    writer.append(PdfReader(BytesIO(corpus.pdf("Kính gửi"))))
    change(writer)
    if locked:
        writer.encrypt(user_password="", owner_password="chu", algorithm="AES-256")
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def _attached(writer: Any) -> None:
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject, StreamObject, TextStringObject

    stream = StreamObject()
    stream.set_data("TỐI MẬT".encode())
    files = DictionaryObject({NameObject("/F"): writer._add_object(stream)})
    specification = DictionaryObject(
        {NameObject("/UF"): TextStringObject("ghi chú.txt"), NameObject("/EF"): files}
    )  # no /Type: readers do without
    annotation = {NameObject("/Subtype"): NameObject("/FileAttachment"), NameObject("/FS"): specification}
    writer.pages[0][NameObject("/Annots")] = ArrayObject([DictionaryObject(annotation)])


def _started_by_a_page(writer: Any) -> None:
    from pypdf.generic import DictionaryObject, NameObject, TextStringObject

    action = {NameObject("/S"): NameObject("/URI"), NameObject("/URI"): TextStringObject("http://a.example")}
    writer.pages[0][NameObject("/AA")] = DictionaryObject({NameObject("/O"): DictionaryObject(action)})


def test_pdf_file_of_an_annotation() -> None:
    found = read(_written(_attached))
    assert found.embedded == [("ghi chú.txt", "TỐI MẬT".encode())]
    assert [(f.value, f.where) for f in found.findings] == [("embedded_file", "ghi chú.txt")]


def test_pdf_action_of_a_page() -> None:
    assert ("openaction", "trang 1") in {(f.value, f.where) for f in read(_written(_started_by_a_page)).findings}


def test_pdf_under_an_empty_password() -> None:
    """Strings and files are encrypted; readers open it without asking, and so does this."""
    found = read(_written(_attached, locked=True))
    assert found.embedded == [("ghi chú.txt", "TỐI MẬT".encode())] and not found.encrypted


def test_pdf_script_behind_a_false_stream() -> None:
    data = _with(corpus.pdf("Kính gửi"), b"/OpenAction 900 0 R")
    data = data.replace(b"xref\n", b"%stream\n900 0 obj\n<< /S /JavaScript /JS (x) >>\nendobj\nxref\n", 1)
    assert "javascript" in values(read(data), "active")


@pytest.mark.parametrize(("letters", "found"), [
    (b"\x9c\x01/JS(\xf0/3D \x88/XFA[\x00", set()),
    (b"<< /S /JavaScript /JS (x) >>", {"javascript"}),
])  # fmt: skip
def test_pdf_names_that_compressed_bytes_spell_by_chance(letters: bytes, found: set[str]) -> None:
    image = b"900 0 obj\n<< /Length %d >>\nstream\n%s\nendstream\nendobj\n" % (len(letters), letters)
    assert values(read(_with(corpus.pdf("Kính gửi"), b"", image)), "active") == found


def test_pdf_properties_and_fields_without_a_page() -> None:
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject, TextStringObject

    def change(writer: Any) -> None:
        writer.add_metadata({"/DoMat": "TỐI MẬT", "/Title": "Báo cáo"})
        writer.xmp_metadata = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r xmlns:d="d" d:muc="MẬT"><d:a>Hỏa tốc</d:a></r></x:xmpmeta>'.encode()
        )
        field = {NameObject("/FT"): NameObject("/Tx"), NameObject("/V"): TextStringObject("TUYỆT MẬT")}
        form = {NameObject("/Fields"): ArrayObject([DictionaryObject(field)])}
        writer.root_object[NameObject("/AcroForm")] = DictionaryObject(form)

    found = zones(read(_written(change)))
    assert {"TỐI MẬT", "Báo cáo", "MẬT", "Hỏa tốc"} <= set(lines(found["property"]))
    assert lines(found["form"]) == ["TUYỆT MẬT"]


def test_pdf_without_text_layer_and_damaged() -> None:
    blank = read(corpus.pdf([[]]))
    assert blank.layer == "none" and blank.pages == 1
    assert read(corpus.pdf(MARK * 5)).layer == "full"
    hurt = read(b"%PDF-1.4\n" + bytes(200))
    assert hurt.damaged and values(hurt, "uninspectable")


def test_garbage_layer() -> None:
    assert text.is_garbage("\ue001\ue002 \ue003\ue004 " * 60)
    assert text.is_garbage("xkq zzt wrrt bcdfg hjkl mnpq rstv wxz " * 20)
    for paper in corpus.papers(10):
        for encode in corpus.ENCODINGS.values():
            assert not text.is_garbage(encode(paper.text))
    assert not text.is_garbage("The quick brown fox jumps over the lazy dog. " * 20)
    assert not text.is_garbage("1 234 567,89\t12\t2024\n" * 40)


@pytest.mark.parametrize("kind", sorted(text.READERS))
@settings(max_examples=15)
@given(data=st.binary(max_size=200))
def test_total(kind: str, data: bytes) -> None:
    head = {"pdf": b"%PDF-1.4\n", "rtf": b"{\\rtf1 ", "xml": b"<?xml version='1.0'?><a>", "html": b"<html>"}.get(
        kind, b""
    )
    text.extract(head + data, kind)


def test_types_without_text_give_none() -> None:
    assert not text.extract(b"\xff\xd8\xff", "jpg").segments


def test_zip_package_with_a_password(tmp_path: Path) -> None:
    raw = bytearray(corpus.docx("x"))
    at = raw.find(b"PK\x01\x02")
    while at >= 0:
        raw[at + 8] |= 1
        at = raw.find(b"PK\x01\x02", at + 4)
    assert zipfile.is_zipfile(_kept(tmp_path, bytes(raw)))
    assert text.extract(bytes(raw), "docx").encrypted


def _kept(folder: Path, data: bytes) -> Path:
    path = folder / "a.docx"
    path.write_bytes(data)
    return path


def test_slanted_letters_keep_the_order_they_were_drawn_in() -> None:
    """A watermark across the page, letter by letter: each stands on a line of its own."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.pdfgen import canvas

    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=(595, 842))
    pdfmetrics.registerFont(TTFont("Serif", str(corpus.font())))
    sheet.setFont("Serif", 60)
    sheet.translate(300, 400)
    sheet.rotate(55)
    sheet.drawCentredString(0, 0, "T Ố I  M Ậ T")
    sheet.save()
    assert "T Ố I M Ậ T" in "\n".join(segment.text for segment in text.extract(out.getvalue(), "pdf").segments)


def test_an_italic_made_from_upright_letters_stands_in_its_line() -> None:
    """Signing programs put day and number into the gaps of a text, in letters that lean and lines that do not."""
    from reportlab.pdfgen import canvas

    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=(595, 842))
    sheet.setFont("Times-Roman", 13)
    sheet.drawString(300, 725, "ngay        thang 02 nam 2025")
    stamp = sheet.beginText()
    stamp.setTextTransform(1, 0, 0.2126, 1, 330, 725.3)
    stamp.textOut("20")
    sheet.drawText(stamp)
    sheet.save()
    read = "\n".join(segment.text for segment in text.extract(out.getvalue(), "pdf").segments)
    assert "ngay 20 thang 02 nam 2025" in " ".join(read.split())


def test_small_capitals_are_capitals() -> None:
    run = "<w:p><w:r><w:rPr><w:smallCaps/></w:rPr><w:t>Mật</w:t></w:r></w:p>"
    off = '<w:p><w:r><w:rPr><w:caps/><w:smallCaps w:val="0"/></w:rPr><w:t>Tối</w:t></w:r></w:p>'
    data = corpus.zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f"<w:document {corpus._W}><w:body>{run}{off}</w:body></w:document>",
        }
    )
    assert lines(zones(text.extract(data, "docx"))["body"]) == ["MẬT", "TỐI"]
