"""edXML of QCVN 102:2016/BTTTT: a register entry as the envelope that document systems exchange, and status messages.

The names are those of the standard, its spelling `Bussiness` included; lengths and types are in `edxml.xsd`, written
from the published list of fields. Every child of the envelope carries the prefix, which strict readers ask for. Status
codes are those of Decision 28/2018/QĐ-TTg. What is written here is checked against the schema before anybody gets it.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import XMLGenerator

from gateway.directory import Agency, Directory
from gateway.inspection.document import KINDS
from gateway.message import VIETNAM
from gateway.register import STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = "http://www.mic.gov.vn/TBT/QCVN_102_2016"
_XLINK = "http://www.w3.org/1999/xlink"
_ACTOR = "http://schemas.xmlsoap.org/soap/actor/next"

#: Number of a kind: its place in Article 7 of Decree 30/2020, where công văn is 18; others have none.
_ORDER = (
    "NQ", "QĐ", "CT", "QC", "QyĐ", "TC", "TB", "HD", "CTr", "KH", "PA", "ĐA", "DA", "BC", "BB", "TTr", "HĐ", "CV", "CĐ",
    "BGN", "BTT", "GUQ", "GM", "GGT", "GNP", "PG", "PC", "PB", "ThC",
)  # fmt: skip
TYPES = {short: at for at, short in enumerate(_ORDER, 1)}
_NAMES = {short: name.capitalize() for name, short in reversed(KINDS.items())}

#: BussinessDocType by what the document does to another.
_BUSINESS = {"recall": "1", "amend": "2", "correct": "2", "replace": "3"}
_REASON = {"0": "Văn bản điện tử mới", "1": "Thu hồi văn bản", "2": "Cập nhật văn bản", "3": "Thay thế văn bản"}

#: What XML 1.0 has no way to write (section 2.2).
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Incomplete(ValueError):
    """Something is missing without which the envelope is none; `args[0]` says what and where to put it."""


@dataclass(frozen=True, slots=True)
class Organ:
    """An agency as edXML names it."""

    id: str = ""
    name: str = ""
    above: str = ""
    email: str = ""
    phone: str = ""

    @classmethod
    def of(cls, agency: Agency, directory: Directory, day: dt.date, email: str = "") -> Organ:
        parent = directory.agency(agency.parent, day) if agency.parent else None
        clerk = agency.clerk
        if not email:
            boxes = [one.address for one in directory.mailboxes(agency.id) if one.kind == "AGENCY" and one.issued(day)]
            email = (clerk.email if clerk is not None else "") or (boxes[0] if boxes else "")
        phone = clerk.phone if clerk is not None else ""
        return cls(agency.organ_id, agency.name, parent.name if parent is not None else "", email, phone)


@dataclass(frozen=True, slots=True)
class Attached:
    """A file: its name and bytes."""

    name: str
    data: bytes
    type: str = "application/octet-stream"


class _Writer:
    """Elements with the prefix, in order."""

    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.xml = XMLGenerator(self.out, "utf-8", short_empty_elements=True)
        self.xml.startDocument()

    @contextmanager
    def inside(self, name: str, attributes: Mapping[str, str] | None = None) -> Iterator[None]:
        self.xml.startElement(name, dict(attributes or {}))  # type: ignore[arg-type]
        yield
        self.xml.endElement(name)

    def put(self, name: str, text: str = "", prefix: str = "edXML:") -> None:
        self.xml.startElement(prefix + name, {})  # type: ignore[arg-type]
        self.xml.characters(_FORBIDDEN.sub(" ", text))
        self.xml.endElement(prefix + name)

    def data(self) -> bytes:
        self.xml.endDocument()
        return self.out.getvalue()

    def organ(self, name: str, organ: Organ) -> None:
        with self.inside(f"edXML:{name}"):
            self.put("OrganId", organ.id)
            self.put("OrganizationInCharge", organ.above[:200])
            self.put("OrganName", organ.name[:200])
            self.put("OrganAdd")
            self.put("Email", organ.email[:100])
            self.put("Telephone", organ.phone[:50])
            self.put("Fax")
            self.put("Website")

    def answer(self, target: Mapping[str, str]) -> None:
        """ResponseFor: the document that this one is about."""
        with self.inside("edXML:ResponseFor"):
            self.put("OrganId", target.get("organ", ""))
            self.put("Code", target.get("code", ""))
            self.put("PromulgationDate", _day(target.get("date", "")))
            self.put("DocumentId", document_id(target))


def _day(iso: str) -> str:
    return iso.replace("-", "/") if re.fullmatch(r"\d{4}-\d\d-\d\d", iso) else ""


def document_id(target: Mapping[str, str]) -> str:
    """`{OrganId},{yyyy/MM/dd},{number}/{notation}`."""
    return f"{target.get('organ', '')},{_day(target.get('date', ''))},{target.get('code', '')}"


def parties(one: Mapping[str, Any], directory: Directory) -> tuple[Organ, list[Organ]]:
    """Who issued the document of an entry, and to whom it went. Raises Incomplete for an agency of ours without an
    identifier."""
    day = dt.datetime.fromtimestamp(one["at"] / 1000, VIETNAM).date()
    own = directory.agency(one["agency"], day)
    if own is None or not own.organ_id:
        cure = "đặt organ_id trong directory/agencies / set organ_id there"
        raise Incomplete(f"cơ quan / agency {one['agency']}: chưa có mã định danh / no identifier; {cure}")
    ours = Organ.of(own, directory, day)
    if one["direction"] == "in":
        name = one["issuing_agency"]
        issuer = directory.agency_named(name, day) if name else None
        issuer = issuer or directory.agency_of(one["sent_from"], day) if one["sent_from"] else issuer
        if issuer is not None:
            return Organ.of(issuer, directory, day, one["sent_from"]), [ours]
        return Organ(name=name or one["sent_from"], email=one["sent_from"]), [ours]
    to: dict[str, Organ] = {}
    for address in filter(None, (part.strip() for part in one["sent_to"].split(";"))):
        agency = directory.agency_of(address, day)
        if agency is not None and agency.id != own.id:
            to.setdefault(agency.id, Organ.of(agency, directory, day, address))
        elif agency is None:
            to.setdefault(address, Organ(name=address, email=address))
    return ours, list(to.values()) or [ours]


def document(
    one: Mapping[str, Any],
    directory: Directory,
    files: Sequence[Attached] = (),
    links: Iterable[Mapping[str, Any]] = (),
    targets: Mapping[str, Mapping[str, Any]] | None = None,
) -> bytes:
    """An entry (`register.entry`) as an edXML document. links: those of the entry; targets: the entries they mean, by
    id. Raises Incomplete."""
    sender, receivers = parties(one, directory)
    code = {"organ": sender.id, "date": one["issued_date"], "code": f"{one['code_number']}/{one['code_notation']}"}
    if not one["code_number"]:
        code["code"] = one["document_code"]
    answered = [link for link in links if link["way"] == "to" and link["kind"] in (*_BUSINESS, "reply")]
    business = next((_BUSINESS[link["kind"]] for link in answered if link["kind"] in _BUSINESS), "0")
    stamp = dt.datetime.fromtimestamp(one["at"] / 1000, VIETNAM)
    w = _Writer()
    root = {"xmlns": NAMESPACE, "xmlns:edXML": NAMESPACE, "xmlns:xlink": _XLINK}
    with w.inside("edXML", root):
        with w.inside("edXML:edXMLEnvelope"):
            with w.inside("edXML:edXMLHeader"):
                with w.inside("edXML:MessageHeader"):
                    _message_header(w, one, sender, receivers, code, answered, targets or {})
                _trace(w, one, sender, stamp, business, code)
                w.put("DigitalSignature")
            names = [f"{number}-{hashlib.sha256(file.data).hexdigest()[:24]}" for number, file in enumerate(files, 1)]
            with w.inside("edXML:edXMLBody"), w.inside("edXML:edXMLManifest", {"version": "1.0"}):
                for name, file in zip(names, files, strict=True):
                    link = {"xlink:type": "simple", "xlink:href": f"cid:{name}", "xlink:role": "XLinkRole"}
                    with w.inside("edXML:Reference", link):
                        w.put("ContentId", f"cid:{name}")
                        w.put("ContentType", file.type)
                        w.put("Description", file.name[:200])
                        w.put("AttachmentName", file.name[:200])
        if files:
            with w.inside("AttachmentEncoded"):
                for name, file in zip(names, files, strict=True):
                    with w.inside("Attachment"):
                        w.put("ContentType", file.type, "")
                        w.put("ContentId", name, "")
                        w.put("Description", file.name[:200], "")
                        w.put("ContentTransferEncoded", base64.b64encode(file.data).decode(), "")
                        w.put("AttachmentName", file.name[:200], "")
    return w.data()


def _message_header(
    w: _Writer,
    one: Mapping[str, Any],
    sender: Organ,
    receivers: Sequence[Organ],
    code: Mapping[str, str],
    answered: Iterable[Mapping[str, Any]],
    targets: Mapping[str, Mapping[str, Any]],
) -> None:
    w.organ("From", sender)
    for organ in receivers:
        w.organ("To", organ)
    with w.inside("edXML:Code"):
        w.put("CodeNumber", one["code_number"])
        w.put("CodeNotation", one["code_notation"] or one["document_code"])
    with w.inside("edXML:PromulgationInfo"):
        w.put("Place", one["issue_place"][:100])
        w.put("PromulgationDate", _day(one["issued_date"]))
    kind = one["document_kind"] or "CV"
    with w.inside("edXML:DocumentType"):
        w.put("Type", str(TYPES.get(kind, 0)))
        w.put("TypeName", (one["type_name"] or _NAMES.get(kind, kind))[:100])
        w.put("TypeDetail", "0")
    w.put("Subject", one["abstract"][:500])
    w.put("Content", one["abstract"][:500])
    with w.inside("edXML:SignerInfo"):
        w.put("Competence")
        w.put("Position", one["signer_title"][:100])
        w.put("FullName", one["signer_name"][:50])
    w.put("DueDate", _day(one["due_date"]))
    with w.inside("edXML:ToPlaces"):
        for place in [part.strip() for part in one["recipients"].split(";")] if one["recipients"] else [""]:
            w.put("Place", place[:1000])
    with w.inside("edXML:OtherInfo"):
        w.put("Priority", one["priority"] or "0")
        w.put("SphereOfPromulgation")
        w.put("TyperNotation")
        w.put("PromulgationAmount", one.get("issued_amount", "") or "1")
        w.put("PageAmount", one["page_amount"] or "0")
        with w.inside("edXML:Appendixes"):
            w.put("Appendix")
    for link in answered:
        meant = next((targets[key] for key in link["entries"] if key in targets), None)
        if meant is not None:
            w.answer({"organ": meant["organ"], "code": meant["document_code"], "date": meant["issued_date"]})
        elif not link["target"].startswith("<"):
            w.answer({"code": link.get("said") or link["target"]})
    w.put("SteeringType", "0")
    w.put("DocumentId", document_id(code))


def _trace(
    w: _Writer, one: Mapping[str, Any], sender: Organ, stamp: dt.datetime, business: str, code: Mapping[str, str]
) -> None:
    name = hashlib.sha256(document_id(code).encode()).hexdigest()[:16]
    attributes = {"id": f"t{name}", "version": "1.0", "mustUnderstand": "1", "actor": _ACTOR}
    with w.inside("edXML:TraceHeaderList", attributes):
        with w.inside("edXML:TraceHeader"):
            w.put("OrganId", sender.id)
            w.put("Timestamp", f"{stamp:%Y/%m/%d %H:%M:%S}")
        with w.inside("edXML:Bussiness"):
            w.put("BussinessDocType", business)
            w.put("BussinessDocReason", _REASON[business])
            _staff(w, "")
            w.put("Paper", "1" if one["delivery_mode"] == "electronic_and_paper" or one["origin"] == "paper" else "0")


def _staff(w: _Writer, staff: str) -> None:
    with w.inside("edXML:StaffInfo"):
        w.put("Department")
        w.put("Staff", staff[:100])
        w.put("Mobile")
        w.put("Email")


def status(
    one: Mapping[str, Any], directory: Directory, code: str, *, staff: str = "", words: str = "", at: dt.datetime
) -> bytes:
    """A status message about an incoming entry, from its agency to the one that issued the document. Raises
    Incomplete."""
    issuer, (ours, *_) = parties(one, directory)
    w = _Writer()
    with (
        w.inside("edXML", {"xmlns": NAMESPACE, "xmlns:edXML": NAMESPACE}),
        w.inside("edXML:edXMLEnvelope"),
        w.inside("edXML:edXMLHeader"),
        w.inside("edXML:Status"),
    ):
        w.answer({"organ": issuer.id, "code": one["document_code"], "date": one["issued_date"]})
        w.organ("From", ours)
        w.put("StatusCode", code)
        w.put("Description", (words or STATUS[code])[:500])
        w.put("Timestamp", f"{at.astimezone(VIETNAM):%Y/%m/%d %H:%M:%S}")
        _staff(w, staff)
    return w.data()


# ---------------------------------------------------------------------- checking


@cache
def _schema() -> Any:
    from lxml import etree

    return etree.XMLSchema(etree.parse(str(Path(__file__).with_name("edxml.xsd"))))


def problems(data: bytes) -> list[str]:
    """What the schema finds wrong, `line: what`; an XML declaration of types or entities is refused unread."""
    from lxml import etree

    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return ["1: DOCTYPE: không được dùng / is not allowed"]
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    try:
        tree = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        return [f"{error.lineno}: {error.msg}"]
    schema = _schema()
    if schema.validate(tree):
        return []
    return [f"{error.line}: {error.message}" for error in schema.error_log]
