"""edXML: by the schema, and read by parsers that are not the one that wrote it."""

from __future__ import annotations

import asyncio
import base64
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import defusedxml.ElementTree as defused
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from sqlalchemy import select

from gateway import database as db
from gateway import directory, edxml, handover, register, registrar
from gateway.config import Registers
from gateway.edxml import Attached
from tests.books import ALLOCATE, message, opened, paper, rows
from tests.cases import AT, close

NS = {"e": "http://www.mic.gov.vn/TBT/QCVN_102_2016"}
AGENCIES = """\
agencies:
  - {id: ubnd, name: UBND tỉnh Demo, level: province, organ_id: H99, domains: [ubnd.tinh.gov.vn]}
  - {id: snv, name: Sở Nội vụ, level: department, parent: ubnd, organ_id: H99.01, domains: [snv.tinh.gov.vn]}
  - {id: stc, name: Sở Tài chính, level: department, parent: ubnd, domains: [stc.tinh.gov.vn]}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> directory.Directory:
    folder = tmp_path_factory.mktemp("d") / "directory"
    folder.mkdir()
    (folder / "agencies.yaml").write_text(AGENCIES, encoding="utf-8")
    return directory.load(folder)


def entry(**values: object) -> dict:
    one = {column.name: "" for column in register.COLUMNS}
    one |= {
        "id": "X", "agency": "ubnd", "direction": "in", "origin": "mail", "at": int(AT.timestamp() * 1000),
        "document_code": "15/TB-SNV", "code_number": "15", "code_notation": "TB-SNV", "document_kind": "TB",
        "type_name": "Thông báo", "abstract": "Về việc <thử> & kiểm tra", "issued_date": "2026-11-20",
        "issuing_agency": "Sở Nội vụ", "sent_from": "vanthu@snv.tinh.gov.vn", "priority": "3",
        "recipients": "Như trên; Lưu: VT", "page_amount": "2", "delivery_mode": "electronic_and_paper",
    }  # fmt: skip
    return one | values


def read(data: bytes) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    return etree.fromstring(data, parser)


def text(tree: etree._Element, path: str) -> str:
    return tree.findtext(
        "/".join(f".//e:{one}" if n == 0 else f"e:{one}" for n, one in enumerate(path.split("/"))), "", NS
    )


def test_the_fields_of_the_standard(places):
    files = [Attached("15-TB-SNV.pdf", b"%PDF-1.4 \x00\xff", "application/pdf"), Attached("phụ lục.xlsx", b"PK")]
    data = edxml.document(entry(), places, files)
    assert edxml.problems(data) == []
    tree = read(data)
    assert [etree.QName(one).localname for one in tree.find(".//e:MessageHeader", NS)] == [
        "From", "To", "Code", "PromulgationInfo", "DocumentType", "Subject", "Content", "SignerInfo", "DueDate",
        "ToPlaces", "OtherInfo", "SteeringType", "DocumentId",
    ]  # fmt: skip
    assert text(tree, "From/OrganId") == "H99.01" and text(tree, "To/OrganId") == "H99"
    assert text(tree, "From/OrganizationInCharge") == "UBND tỉnh Demo"
    assert text(tree, "Code/CodeNumber") == "15" and text(tree, "Code/CodeNotation") == "TB-SNV"
    assert text(tree, "PromulgationInfo/PromulgationDate") == "2026/11/20"
    assert text(tree, "DocumentType/Type") == "7" and text(tree, "Subject") == "Về việc <thử> & kiểm tra"
    assert text(tree, "OtherInfo/Priority") == "3" and text(tree, "Bussiness/Paper") == "1"
    assert text(tree, "Bussiness/BussinessDocType") == "0"
    assert text(tree, "TraceHeader/Timestamp") == "2026/11/20 08:30:00"
    assert text(tree, "DocumentId") == "H99.01,2026/11/20,15/TB-SNV"
    assert [one.text for one in tree.findall(".//e:ToPlaces/e:Place", NS)] == ["Như trên", "Lưu: VT"]
    attached = tree.findall("e:AttachmentEncoded/e:Attachment", NS)  # outside the envelope
    found = [base64.b64decode(one.findtext("e:ContentTransferEncoded", "", NS)) for one in attached]
    assert found == [b"%PDF-1.4 \x00\xff", b"PK"]
    named = [one.findtext("e:ContentId", "", NS) for one in attached]
    assert [one.get("{http://www.w3.org/1999/xlink}href") for one in tree.iter(f"{{{NS['e']}}}Reference")] == [
        f"cid:{name}" for name in named
    ]
    # Strict readers look for the prefix, whatever the namespace says.
    assert data.count(b"<edXML:") > 40 and b"<edXML xmlns=" in data
    # The same with another parser.
    assert defused.fromstring(data).find(".//e:Subject", NS).text == "Về việc <thử> & kiểm tra"


def test_outgoing_to_each_agency(places):
    sent = "a@snv.tinh.gov.vn; b@snv.tinh.gov.vn; congdan@example.com; c@stc.tinh.gov.vn"
    data = edxml.document(entry(direction="out", sent_to=sent, issued_amount="4"), places)
    assert edxml.problems(data) == []
    tree = read(data)
    assert text(tree, "From/OrganId") == "H99"
    names = [one.findtext("e:OrganName", "", NS) for one in tree.findall(".//e:To", NS)]
    assert names == ["Sở Nội vụ", "congdan@example.com", "Sở Tài chính"]


@pytest.mark.parametrize(("kind", "business"), [("replace", "3"), ("recall", "1"), ("correct", "2"), ("reply", "0")])
def test_what_it_does_to_another_document(places, kind, business):
    links = [
        {"kind": kind, "way": "to", "entries": ["Y"], "target": "9/TB-SNV"},
        {"kind": kind, "way": "from", "entries": ["Z"], "target": "Z"},
        {"kind": kind, "way": "to", "entries": [], "target": "8/TB-SNV"},
    ]
    targets = {"Y": {"organ": "H99.01", "document_code": "09/TB-SNV", "issued_date": "2026-11-01"}}
    data = edxml.document(entry(), places, (), links, targets)
    assert edxml.problems(data) == []
    tree = read(data)
    assert text(tree, "Bussiness/BussinessDocType") == business
    found = [one.findtext("e:DocumentId", "", NS) for one in tree.findall(".//e:ResponseFor", NS)]
    assert found == ["H99.01,2026/11/01,09/TB-SNV", ",,8/TB-SNV"]


def test_status_messages(places):
    for code in register.STATUS:
        data = edxml.status(entry(), places, code, staff="Văn thư", at=AT)
        assert edxml.problems(data) == []
        tree = read(data)
        assert text(tree, "Status/StatusCode") == code and text(tree, "ResponseFor/OrganId") == "H99.01"
        assert text(tree, "Status/From/OrganId") == "H99"
        assert text(tree, "Status/Timestamp") == "2026/11/20 08:30:00"


def test_an_agency_without_an_identifier_is_told(places):
    with pytest.raises(edxml.Incomplete, match="organ_id"):
        edxml.document(entry(agency="stc"), places)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)


@settings(max_examples=120, deadline=None)
@given(TEXT, TEXT, TEXT, st.dates().map(str), st.sampled_from(["", "QĐ", "XX", "CV"]))
def test_any_text_is_text(places, abstract, name, signer, day, kind):
    one = entry(abstract=abstract, signer_name=signer[:50], issued_date=day, document_kind=kind, recipients=name)
    data = edxml.document(one, places, [Attached(name[:200] or "x", name.encode())])
    assert edxml.problems(data) == []
    allowed = "".join(" " if letter in edxml._FORBIDDEN.findall(letter) else letter for letter in abstract)
    # A line end is a line feed to every reader (XML 1.0, 2.11).
    assert text(read(data), "Subject") == allowed.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<edXML:Priority>3", b"<edXML:Priority>9"),
        (b"2026/11/20</edXML:PromulgationDate>", b"20/11/2026</edXML:PromulgationDate>"),
        (b"<edXML:Bussiness>", b"<edXML:Business>"),
        (b"<edXML:OrganId>H99.01</edXML:OrganId>", b""),
        (b"<edXML:Subject>", b"<edXML:Subject>" + b"x" * 501),
        (b'<?xml version="1.0" encoding="utf-8"?>', b'<!DOCTYPE edXML [<!ENTITY a "b">]>'),
        (b"<edXML:Paper>1", b"<edXML:Paper>&a;"),
    ],
)
def test_the_schema_finds(places, old, new):
    data = edxml.document(entry(), places)
    assert old in data
    assert edxml.problems(data.replace(old, new, 1))


def test_through_the_archive_with_links_and_once_into_the_folder(tmp_path, places, monkeypatch):
    folder = tmp_path / "qlvb"
    chosen = {"incoming": "allocate", "drop": folder}
    config = Registers.model_validate({"default": ALLOCATE.default, "agencies": {"ubnd": chosen, "snv": {}}})

    async def work():
        archive = opened(tmp_path / "data", config)
        try:
            await archive.commit(message(1, paper("14/TB-SNV")))
            new = message(2, paper("15/TB-SNV", cites=("14/TB-SNV",), abstract="Thay thế Thông báo số 14/TB-SNV"))
            await archive.commit(new)

            async def drop():
                return await handover.drop(archive.database, archive.store, config, places)

            # Stopped between the row and the rename, and before the row.
            async def stopped(*_):
                raise OSError("stopped")

            monkeypatch.setattr(handover, "_rename", stopped)
            done, failed = await drop()
            assert done == 0 and len(failed) == 1 and list(folder.glob("[!.]*")) == []
            monkeypatch.undo()
            assert (await drop())[0] == 2
            names = sorted(path.name for path in folder.iterdir())
            found = await rows(archive, config, agency="ubnd", direction="in")
            assert names == sorted(f"2026-11-20_in_{one['id']}.edxml" for one in found)
            for path in folder.iterdir():
                path.unlink()  # the other system takes them
            assert await drop() == (0, [])
            await registrar.rebuild(archive.database, config)
            assert await drop() == (0, []) and list(folder.iterdir()) == []

            def envelope(c):
                return handover.envelope(c, archive.store, config, places, found[1]["id"])

            tree = read(await archive.database.read(envelope))
            assert text(tree, "Bussiness/BussinessDocType") == "3"
            assert text(tree, "ResponseFor/DocumentId") == "H99.01,2026/11/20,14/TB-SNV"
            rows_of = select(db.register_drop.c.done_at)
            assert all(await archive.database.read(lambda c: c.execute(rows_of).scalars().all()))
        finally:
            await close(archive)

    asyncio.run(work())


def test_the_schema_is_in_the_package():
    path = Path(edxml.__file__).with_name("edxml.xsd")
    assert ElementTree.parse(path).getroot().get("targetNamespace") == edxml.NAMESPACE
