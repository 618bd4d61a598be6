"""Registers of incoming and outgoing documents, by agency and year (Decree 30/2020, Annexes IV and VI; seed 002, 8.2).

An entry is a document that reached an agency (`in`) or was issued by it (`out`); however many messages and mailboxes
brought it, it is one entry. Entries follow from the archive: `enter` derives those of a message from its rows and can
be called again at any time with the same result, inside the commit of the message, when held mail is released, and by
`rebuild` for an archive that had no registers. What people add (corrections, numbers, links, comparisons) is kept apart
and never overwritten. Secrets have no row of `message`, so they cannot be here; drafts, comments and mail of citizens
are not registered unless the settings say so (rules.md 1.11b).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.exc import InterfaceError, OperationalError

from gateway import archive, classify, numbers
from gateway import database as db
from gateway.archive import Count, clean, from_ms, stamp
from gateway.config import Registers
from gateway.directory import name_key
from gateway.inspection.document import KINDS
from gateway.inspection.findings import Document, FileFacts, Inspection
from gateway.numbers import ARRIVALS, Series
from gateway.search import document_key
from gateway.vietnamese import fold

if TYPE_CHECKING:
    from gateway.directory import Directory

#: [value, source, confidence]. source: text, ocr, subject, file name, form (read from the document); header, envelope
#: (of the mail); gateway (its clock, its numbers); directory; clerk (typed in or corrected by a person).
Value = list[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a register. annex: its column in Annex IV; form: its name in Annex VI; most: letters at most, there.
    only: the direction that has it. edit: whether a person may correct it."""

    name: str
    vi: str
    annex: str = ""
    form: str = ""
    most: int = 1000
    only: str = ""  # in, out
    edit: bool = True
    date: bool = False


COLUMNS = (
    Column("arrival_date", "Ngày đến", "Ngày đến", "ArrivalDate", only="in", date=True),
    Column("arrival_number", "Số đến", "Số đến", "ArrivalNumber", only="in", edit=False),
    Column("incoming_document_no", "Số văn bản đến", only="in", most=64),
    Column("issuing_agency", "Cơ quan ban hành", "Tác giả", "OrganName", 200),
    Column("agency_level", "Cấp cơ quan", most=64),
    Column("sent_from", "Nơi gửi", most=320, only="in"),
    Column("document_code", "Số, ký hiệu", "Số, ký hiệu văn bản", most=64),
    Column("code_number", "Số", form="CodeNumber", most=11, edit=False),
    Column("code_notation", "Ký hiệu", form="CodeNotation", most=30, edit=False),
    Column("issued_date", "Ngày, tháng văn bản", "Ngày tháng văn bản", "IssuedDate", date=True),
    Column("document_kind", "Loại (viết tắt)", most=10),
    Column("type_name", "Tên loại", "Tên loại và trích yếu", "TypeName", 100),
    Column("abstract", "Trích yếu", "Tên loại và trích yếu", "Subject", 500),
    Column("signed_date", "Ngày ký", date=True),
    Column("signer_name", "Người ký", "Người ký", "SignerInfo.FullName", 50),
    Column("signer_title", "Chức vụ người ký", form="SignerInfo.Position", most=100),
    Column("recipients", "Nơi nhận", "Nơi nhận", "To.OrganName"),
    Column("issue_place", "Địa danh", most=100),
    Column("priority", "Mức độ khẩn", form="Priority", most=20),
    Column("delivery_mode", "Hình thức gửi", most=40),
    Column("page_amount", "Số trang", form="PageAmount", most=3),
    Column("language", "Ngôn ngữ", form="Language", most=30),
    Column("sent_date", "Ngày gửi", only="out", date=True),
    Column("sent_to", "Địa chỉ nhận", only="out"),
    Column("issued_amount", "Số lượng bản", "Số lượng bản", "IssuedAmount", 3, only="out"),
    Column("copy_holder", "Đơn vị/người nhận bản lưu", "Đơn vị/người nhận bản lưu", most=200, only="out"),
    Column("mailboxes", "Hộp thư nhận", only="in"),
    Column("forwarded_to", "Đơn vị hoặc người nhận", "Đơn vị hoặc người nhận", "ToPlaces", only="in"),
    Column("forwarded_on", "Ngày chuyển", "Ngày chuyển", date=True),
    Column("signed_for", "Ký nhận", "Ký nhận", most=200),
    Column("due_date", "Hạn trả lời", form="DueDate", date=True),
    Column("file_code", "Mã hồ sơ", form="FileCode", most=64),
    Column("ordinal", "STT trong hồ sơ", form="DocOrdinal", most=3),
    Column("instruction", "Ý kiến chỉ đạo", form="TraceHeaderList"),
    Column("description", "Ghi chú", "Ghi chú", "Description", 500),
)
BY_NAME = {one.name: one for one in COLUMNS}

#: Decision 28/2018, as far as the register of an agency can say it (rules.md 2.3).
STATUS = {
    "01": "đã đến", "02": "từ chối tiếp nhận", "03": "đã tiếp nhận", "04": "phân công", "05": "đang xử lý",
    "06": "hoàn thành", "13": "yêu cầu lấy lại", "15": "đồng ý lấy lại", "16": "từ chối lấy lại",
}  # fmt: skip

LINKS = {
    "reply": "trả lời", "replace": "thay thế", "correct": "đính chính", "amend": "sửa đổi, bổ sung",
    "recall": "thu hồi", "cite": "viện dẫn",
}  # fmt: skip
_BACK = {
    "reply": "được trả lời bởi", "replace": "được thay thế bởi", "correct": "được đính chính bởi",
    "amend": "được sửa đổi, bổ sung bởi", "recall": "bị thu hồi bởi", "cite": "được viện dẫn bởi",
}  # fmt: skip

FLAGS = {
    "same_number": "trùng số, khác nội dung",
    "recalled": "đã bị thu hồi",
    "replaced": "đã được thay thế",
    "forwarded": "chuyển tiếp văn bản của cơ quan khác",
    "undelivered": "chưa giao được tới hộp thư",
    "check": "có trường cần kiểm tra",
    "not_ours": "số không do hệ thống cấp",
}

#: Classes without văn bản chính thức; the first three may be registered by a setting.
_NEVER = frozenset({"DRAFT", "COMMENT", "CITIZEN_MAIL", "SYSTEM", "WORK_MAIL", ""})
#: Kinds of messages that are not our own.
RECEIVED = ("mail", "imported")
#: States of a recipient that nothing reached (yet).
OUTSIDE = ("held", "returned", "refused")
#: Messages whose content was destroyed at the end of their time.
DESTROYED = select(db.destroyed.c.message)
_PRIORITY = {"": "0", "khan": "1", "thuong_khan": "2", "hoa_toc": "3", "hoa_toc_hen_gio": "4"}
PRIORITY_VI = {"0": "Thường", "1": "Khẩn", "2": "Thượng khẩn", "3": "Hỏa tốc", "4": "Hỏa tốc hẹn giờ"}
_TYPE_NAMES = {short: name.capitalize() for name, short in reversed(KINDS.items())}
#: Below this a person is asked to look at a field.
SURE = 0.75


class NoEntry(LookupError):
    """There is no such entry; `args[0]` is what was asked for."""


# ---------------------------------------------------------------------- from the archive


@dataclass(frozen=True, slots=True)
class _Found:
    """A document of a message. identity: what makes two of them the same."""

    identity: str
    path: str
    document: Document


def enter(
    connection: Connection, case: str, settings: Registers, agencies: Collection[str] = (), *, give: bool = True
) -> list[str]:
    """Bring the registers up to what the archive says about a message; the entries it is in. Safe to repeat.

    agencies: further ones in whose mailboxes it was seen, besides those of its recipients. give: arrival numbers to new
    entries, where the agency lets the gateway give them. Only in `Database.write`.
    """
    message = next(iter(_messages(connection, [case], settings)), None)
    if message is None:
        return []
    entries = []
    places = _placements(connection, message, settings, agencies)
    if places:  # the order of locks is the same everywhere: leaves, then series
        archive.take_turns(connection)
    for place in places:
        source = {"entry": place.entry, "message": case, "path": place.path, "message_id": message.message_id}
        known = connection.execute(select(_ENTRY.c.id).where(_ENTRY.c.id == place.entry)).first()
        if known is None:
            values = _derived(place.direction, place.agency, [(message, place.path)])
            links, event = _put(connection, place.entry, place.agency, place.direction, values, {}, settings)
            db.insert(connection, db.register_source, [source], ignore=True)
            db.insert(connection, db.register_link, links, ignore=True)
            db.insert(connection, db.event, event, ignore=True)
            if give and message.kind != "imported":
                _number_new(connection, place, values["year"], settings)
        else:
            db.insert(connection, db.register_source, [source], ignore=True)
            derive(connection, place.entry, place.agency, place.direction, settings)
        entries.append(place.entry)
    return entries


@dataclass(frozen=True, slots=True)
class Placement:
    """A document of a message in a register. path: of the document among the message's files."""

    entry: str
    agency: str
    direction: str
    path: str


def placements(
    connection: Connection, case: str, settings: Registers, agencies: Collection[str] = ()
) -> list[Placement]:
    """The registers that a message belongs into, by the archive alone."""
    return [
        place
        for message in _messages(connection, [case], settings)
        for place in _placements(connection, message, settings, agencies)
    ]


@dataclass(frozen=True, slots=True)
class _Message:
    """What the archive has of a message, as far as registers ask. people: (address, agency) of those it reached."""

    id: str
    kind: str
    direction: str
    channel: str
    login: str
    agency: str
    message_class: str
    message_id: str
    received_at: int
    author: str
    delivery_mode: str
    record: Mapping[str, Any]
    facts: Inspection
    people: tuple[tuple[str, str], ...]
    texts: bytes | None


def _messages(connection: Connection, cases: list[str], settings: Registers | None = None) -> list[_Message]:
    """Messages in order of time, without those that were destroyed. settings: only those that registers take, and that
    reached somebody."""
    m, r, t = db.message.c, db.recipient.c, db.fulltext.c
    question = select(
        m.id, m.kind, m.direction, m.channel, m.login, m.agency, m.message_class, m.message_id, m.received_at,
        m.header_from, m.sender, m.delivery_mode, m.record, t.texts,
    ).outerjoin(db.fulltext, t.message == m.id)  # fmt: skip
    out = never(settings) if settings is not None else frozenset()
    question = question.where(m.id.not_in(DESTROYED))
    found = []
    for row in connection.execute(question.where(m.id.in_(cases)).order_by(m.id)).all():
        if row.kind not in RECEIVED or row.message_class in out:
            continue
        reached = connection.execute(
            select(r.address, r.agency).where(r.message == row.id, r.state.not_in(OUTSIDE)).order_by(r.id)
        )
        people = tuple((one.address.lower(), one.agency) for one in reached)
        if settings is not None and not people:
            continue
        record = json.loads(row.record)
        facts = Inspection.model_validate(record.get("inspection", {}))
        author = row.header_from or row.sender
        found.append(_Message(*row[:9], author, row.delivery_mode, record, facts, people, row.texts))
    return found


def _placements(
    connection: Connection, message: _Message, settings: Registers, agencies: Collection[str]
) -> list[Placement]:
    sides = _sides(message, agencies)
    if not sides:
        return []
    found = _documents(message, settings)
    asked = message.message_class == _NUMBERED and _NUMBERED not in settings.also
    return [
        Placement(entry_id(agency, direction, one.identity), agency, direction, clean(one.path))
        for direction, agency in sides
        for one in found
        if not asked or (direction == "out" and _was_given(connection, agency, one.document))
    ]


#: A comment is not registered, unless its agency took a number for it: then it stands in the register already.
_NUMBERED = "COMMENT"


def _was_given(connection: Connection, agency: str, document: Document) -> bool:
    """Did the gateway give the number of this document?"""
    code = document.code.value if document.code is not None else ""
    digits = re.match(r"\d+", split_code(code)[0])
    if digits is None:
        return False
    n = db.register_number.c
    rows = connection.execute(
        select(n.code).where(n.agency == agency, n.number == int(digits[0]), n.series != ARRIVALS, n.state == "used")
    )
    return document_key(code) in {document_key(given) for given in rows.scalars()}


class Follower:
    """Makes the entries of a message in the transaction that archives it. Trouble with them never keeps a message out
    of the archive: their rows are undone, it is told, and `rebuild` makes them later."""

    def __init__(self, settings: Registers, log: Any) -> None:
        self._settings, self._log = settings, log

    def __call__(self, connection: Connection, case: str, counts: Iterable[Count]) -> None:
        seen = {one.agency for one in counts if one.kind == "received" and one.direction == "in"}
        try:
            with connection.begin_nested():
                enter(connection, case, self._settings, seen)
        except (OperationalError, InterfaceError):
            raise  # locked, full, broken: that concerns the message too
        except Exception:
            self._log.exception("no entry in the registers", case=case, help="congvan register rebuild")


def never(settings: Registers) -> frozenset[str]:
    """Classes of messages that cannot be in a register."""
    return _NEVER - frozenset(settings.also) - {_NUMBERED}


def entry_id(agency: str, direction: str, identity: str) -> str:
    """Ten letters and digits that follow from the document alone, so that a register made anew has the same ones."""
    digest = hashlib.sha256(f"{agency}\n{direction}\n{identity}".encode()).digest()
    number = int.from_bytes(digest[:7], "big")
    return "".join(_LETTERS[(number >> shift) & 31] for shift in range(45, -1, -5))


_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _sides(message: _Message, agencies: Collection[str]) -> list[tuple[str, str]]:
    """(direction, agency) of the registers a message belongs into."""
    sides = []
    # A mailbox proves its own side only: sent mail that it was sent, not that it came.
    polled = message.channel == "imap"
    own = message.agency if message.direction in ("out", "internal") else ""
    if own and message.people and (not polled or message.login):
        sides.append(("out", own))
    reached = set() if polled and message.login else {agency for _, agency in message.people}
    # What an agency issued itself is not a document that came to it.
    sides += [("in", one) for one in sorted((set(agencies) | reached) - {"", own})]
    return sides


def _documents(message: _Message, settings: Registers) -> list[_Found]:
    """The official documents of a message: its main one, and others of the same agency and day with numbers of their
    own (a dossier's other files are what it is about, and have been registered before)."""
    facts = message.facts
    main = classify.main_file(facts)
    stated = _stated(message)
    if main is None:
        if message.message_class != "OFFICIAL_DOC" or stated is None:
            return []
        # Old records, and numbers that stand in the subject alone.
        code = document_key(stated.code.value) if stated.code else ""
        sender = message.record.get("envelope", {}).get("sender", "")
        return [_Found(f"{code}|{facts.message.message_id}|{sender}", "", stated)]
    document = main.document or Document()
    if message.message_class not in settings.also and not _official(message.message_class, main):
        return []
    found = [_Found(main.sha256, main.path, document)]
    if message.message_class != "DOSSIER" and document.code and document.date and document.issuing_agency:
        codes = {document_key(document.code.value)}
        for one in facts.files:
            other = one.document
            if (
                other is None or one.path == main.path or other.draft or other.components < 3
                or other.code is None or other.date is None or other.issuing_agency is None
                or other.date.value != document.date.value
                or name_key(other.issuing_agency.value) != name_key(document.issuing_agency.value)
                or document_key(other.code.value) in codes
            ):  # fmt: skip
                continue
            codes.add(document_key(other.code.value))
            found.append(_Found(one.sha256, one.path, other))
    return found


def _stated(message: _Message) -> Document | None:
    """The document that was judged."""
    stated = message.record.get("verdict", {}).get("document")
    return Document.model_validate(stated) if stated else None


def _official(message_class: str, main: FileFacts) -> bool:
    """Number and form, or a number and a good signature, or the organisation's signature (`classify.read`)."""
    document = main.document
    good = [one for one in main.signatures if one.state in classify.GOOD and one.kind != "timestamp"]
    if document is not None and document.draft and not good:
        return False
    code = document is not None and document.code is not None
    return (
        message_class == "OFFICIAL_DOC"
        or (code and document is not None and document.components >= 3)
        or any(one.kind == "organisation" for one in good)
        or (code and bool(good))
    )


_ENTRY = db.register_entry


def derive(connection: Connection, key: str, agency: str, direction: str, settings: Registers) -> None:
    """Make an entry of its sources, whatever order they came in."""
    values = derived(connection, key, agency, direction)
    if values is None:
        return
    changes = changes_of(connection, [key])
    connection.execute(delete(db.register_link).where(db.register_link.c.entry == key))
    links, event = _put(connection, key, agency, direction, values, changes, settings)
    db.insert(connection, db.register_link, links, ignore=True)
    db.insert(connection, db.event, event, ignore=True)


def _put(
    connection: Connection,
    key: str,
    agency: str,
    direction: str,
    values: dict[str, Any],
    changes: Mapping[str, list[Any]],
    settings: Registers,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the row of an entry. Returns its links and its event."""
    fields = json.loads(values["fields"])
    columns = search_columns(agency, direction, values["day"], fields, changes.get(key, ()), settings)
    row = {name: value for name, value in values.items() if name not in ("links", "first", "counted")} | columns
    place = {"id": key, "agency": agency, "direction": direction, "origin": "mail"}
    if not db.insert(connection, _ENTRY, [place | row], ignore=True):
        connection.execute(_ENTRY.update().where(_ENTRY.c.id == key).values(**row))
    links = [{"entry": key, **one} for one in values["links"]]
    if not values["counted"]:
        return links, []
    at = from_ms(values["at"])
    event = {
        "key": f"registered|{key}",
        "at": values["at"],
        "month": f"{at.year}-{at.month:02}",
        "kind": "registered",
        "agency": agency,
        "direction": direction,
        "message_class": values["message_class"],
        "value": columns["series"],
        "message": values["first"],
    }
    return links, [event]


def derived(connection: Connection, key: str, agency: str, direction: str) -> dict[str, Any] | None:
    """What the archive says about an entry: columns of `register_entry`, and besides `links`, the `first` case, and
    whether it is `counted`. None without sources, and when one of them was destroyed: a register outlives its documents
    and stays as it was."""
    s = db.register_source.c
    paths = {row.message: row.path for row in connection.execute(select(s.message, s.path).where(s.entry == key))}
    if connection.execute(select(s.message).where(s.entry == key, s.message.in_(DESTROYED)).limit(1)).first():
        return None
    sources = [(one, paths[one.id]) for one in _messages(connection, list(paths))]
    return _derived(direction, agency, sources) if sources else None


def _derived(direction: str, agency: str, sources: list[tuple[_Message, str]]) -> dict[str, Any]:
    """sources: messages in order of time, each with the path of the document."""
    first, path = sources[0]
    at = min(one.received_at for one, _ in sources)
    people = [person for one, _ in sources for person in one.people]
    addresses = list(dict.fromkeys(address for address, owner in people if direction == "out" or owner == agency))
    file = next((one for one in first.facts.files if one.path == path), None) if path else None
    document = (file.document if file else None) or _stated(first) or Document()
    fields = _fields(direction, document, file, first, at, addresses)
    day = from_ms(at).date().isoformat()
    year = from_ms(at).year
    issued = fields.get("issued_date", [""])[0]
    if direction == "out" and issued:
        day = issued
        # A document of December that was sent in January has a number of the old year.
        year = int(issued[:4]) if year - 1 <= int(issued[:4]) <= year else year
    return {
        "year": year,
        "day": day,
        "at": at,
        "message_class": first.message_class,
        "sha256": file.sha256 if file else "",
        "fields": json.dumps(fields, ensure_ascii=False, sort_keys=True),
        "links": _links(document, first.facts, path, first.texts),
        "first": first.id,
        "counted": any(one.kind == "mail" for one, _ in sources),
    }


def _fields(
    direction: str,
    document: Document,
    file: FileFacts | None,
    first: _Message,
    at: int,
    addresses: list[str],
) -> dict[str, Value]:
    fields: dict[str, Value] = {}

    def put(name: str, value: str, source: str, confidence: float = 1.0) -> None:
        value = clean(" ".join(value.split()))
        if value:
            fields[name] = [value[: BY_NAME[name].most], source, confidence]

    def read(name: str, attribute: str) -> None:
        found = getattr(document, attribute)
        if found is not None:
            put(name, found.value, found.source or "text", found.confidence)

    for name, attribute in (
        ("document_code", "code"), ("document_kind", "kind"), ("abstract", "abstract"), ("issued_date", "date"),
        ("issue_place", "place"), ("issuing_agency", "issuing_agency"), ("signer_name", "signer"),
        ("signer_title", "signer_title"),
    ):  # fmt: skip
        read(name, attribute)
    if "abstract" not in fields:
        put("abstract", classify.bare_subject(first.facts.message.subject), "subject", 0.5)
    signed = [one.signed_at for one in file.signatures if one.signed_at and one.kind != "timestamp"] if file else []
    if signed:
        put("signed_date", min(signed)[:10], "signature", 0.95)
    elif document.date is not None:
        put("signed_date", document.date.value, document.date.source or "text", document.date.confidence)
    if document.recipients:
        names = [f"{one.name} ({one.purpose})" if one.purpose else one.name for one in document.recipients]
        put("recipients", "; ".join(names), "text", 0.9)
    put("priority", _PRIORITY.get(first.record.get("verdict", {}).get("urgency", ""), "0"), "text", 0.9)
    put("delivery_mode", first.delivery_mode, "gateway")
    if file is not None and file.pages:
        put("page_amount", str(min(file.pages, 999)), "text")
    put("language", "Tiếng Việt", "gateway", 0.9)
    date = from_ms(at).date().isoformat()
    if direction == "in":
        put("arrival_date", date, "gateway")
        put("sent_from", first.author, "header")
        put("mailboxes", "; ".join(addresses), "envelope")
    else:
        put("sent_date", date, "gateway")
        put("sent_to", "; ".join(addresses), "envelope")
        put("issued_amount", str(min(len(addresses), 999)), "envelope", 0.9)
        put("forwarded_on", date, "gateway")
        kept = next((one.name for one in document.recipients if fold(one.name).startswith("luu")), "")
        if kept:
            put("copy_holder", re.sub(r"^\W*[Ll]ưu\W*", "", kept), "text", 0.8)
    return fields


# ---------------------------------------------------------------------- what documents say about each other

#: What stands before the number of another document, folded; the nearest one counts. Per cent of confidence.
_VERBS = (
    ("replace", re.compile(r"thay the"), 90),
    ("correct", re.compile(r"dinh chinh"), 90),
    ("amend", re.compile(r"sua doi"), 85),
    ("recall", re.compile(r"thu hoi"), 90),
    ("reply", re.compile(r"tra loi|phuc dap|hoi am"), 90),
    ("reply", re.compile(r"thuc hien (?:cong van|van ban|y kien)|theo (?:de nghi|yeu cau) (?:cua|tai)"), 60),
)
#: Letters before a number in which its verb may stand: `trả lời Công văn số`, with a date or an agency in between.
_BEFORE = 90
#: Letters before a number in which its sentence is looked for. `Căn cứ Nghị định số 92 sửa đổi Nghị định số 48` says
#: what another document does.
_SENTENCE = 500
_BASIS = re.compile(r"\bcan cu\b")
#: Letters of a text that are looked at; what a document is about stands at its beginning.
_LOOKED_AT = 20_000


def _links(document: Document, facts: Inspection, path: str, texts: bytes | None) -> list[dict[str, Any]]:
    own = document_key(document.code.value) if document.code else ""
    words = [document.abstract.value if document.abstract else "", facts.message.subject]
    if texts:
        known = json.loads(zlib.decompress(texts))
        words += [known.get(path, "")[:_LOOKED_AT], known.get("", "")[:4000]]
    text = "\n".join(" ".join(fold(one).split()) for one in words if one)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for code in document.cites:
        target = document_key(code)
        if target in ("", own):
            continue
        kind, sure = _verb(text, code)
        if document.recall and kind == "cite":
            kind, sure = "recall", 70
        link = {"kind": kind, "target": target, "source": "text", "confidence": sure, "said": clean(code)}
        found[kind, target] = link
    if answered := facts.message.in_reply_to.strip():
        link = {"kind": "reply", "target": clean(answered), "source": "header", "confidence": 80}
        found["reply", answered] = link
    for one in facts.message.references[-10:]:
        if one != answered:
            link = {"kind": "cite", "target": clean(one), "source": "header", "confidence": 60}
            found["cite", one] = link
    return list(found.values())


def _verb(text: str, code: str) -> tuple[str, int]:
    number = r"\s*".join(re.escape(one) for one in re.split(r"\s+|(?<=[/-])|(?=[/-])", fold(code).lstrip("0")) if one)
    best: tuple[int, str, int] | None = None
    for place in re.finditer(rf"(?<![\w/.-])0*{number}(?![\w/])", text):
        sentence = re.split(r"[.;!?]\s|\n", text[max(0, place.start() - _SENTENCE) : place.start()])[-1]
        if _BASIS.search(sentence):
            continue
        before = sentence[-_BEFORE:]
        for kind, pattern, sure in _VERBS:
            for verb in pattern.finditer(before):
                distance = len(before) - verb.end()
                if best is None or distance < best[0]:
                    best = (distance, kind, sure)
    return (best[1], best[2]) if best else ("cite", 90)


# ---------------------------------------------------------------------- the values that count


def effective(fields: Mapping[str, Value], changes: Iterable[Any]) -> dict[str, Value]:
    """Fields with the corrections of people; the newest one counts."""
    result = dict(fields)
    for change in changes:
        if change.field in BY_NAME:
            result[change.field] = [change.new, "clerk", 1.0]
    code = result.get("document_code", [""])
    number, notation = split_code(code[0])
    for name, value in (("code_number", number), ("code_notation", notation)):
        if value:
            result[name] = [value, code[1], code[2]]
    kind = result.get("document_kind", [""])
    if kind[0] and "type_name" not in result:
        result["type_name"] = [_TYPE_NAMES.get(kind[0], kind[0]), kind[1], kind[2]]
    return result


_CODE = re.compile(r"\s*(?P<number>\d{1,6}[A-Za-z]?)\s*(?P<bar>[/-])\s*(?P<rest>.+?)\s*")


def split_code(code: str) -> tuple[str, str]:
    """`15/TB-SNV` to `15` and `TB-SNV`; `57-NQ/TW` to `57` and `NQ/TW`; without a number, all is notation."""
    match = _CODE.fullmatch(code)
    return (match["number"], match["rest"]) if match else ("", code.strip())


def series_of(kind: str, agency: str, settings: Registers) -> str:
    """The series an agency's documents of this kind are numbered in."""
    return settings.of(agency).series.get(kind or "CV", kind or "CV")


def search_columns(
    agency: str, direction: str, day: str, fields: Mapping[str, Value], changes: Iterable[Any], settings: Registers
) -> dict[str, Any]:
    """Columns of `register_entry` for searching and numbering."""
    values = {name: one[0] for name, one in effective(fields, changes).items()}
    code, issued = values.get("document_code", ""), values.get("issued_date", "")
    digits = re.match(r"\d+", values.get("code_number", ""))
    number = int(digits[0]) if digits and direction == "out" else None
    searched = ("document_code", "abstract", "issuing_agency", "signer_name", "recipients", "sent_from", "file_code")
    return {
        "document_key": document_key(code),
        "issuer_key": name_key(values.get("issuing_agency", "")),
        "document_year": int((issued or day)[:4] or 0),
        "series": series_of(values.get("document_kind", ""), agency, settings) if direction == "out" else "",
        "number": number if number is None or number < 1 << 31 else None,
        "words": fold(" ".join(values.get(name, "") for name in searched)),
    }


def changes_of(connection: Connection, entries: Iterable[str]) -> dict[str, list[Any]]:
    """What people did to entries or numbers, oldest first."""
    found: dict[str, list[Any]] = {}
    wanted = list(entries)
    c = db.register_change.c
    for begin in range(0, len(wanted), 500):
        question = select(db.register_change).where(c.about.in_(wanted[begin : begin + 500])).order_by(c.id)
        for row in connection.execute(question):
            found.setdefault(row.about, []).append(row)
    return found


def give_number(connection: Connection, key: str, settings: Registers) -> int | None:
    """The next arrival number for an entry that has none, where the agency lets the gateway give them."""
    row = connection.execute(select(_ENTRY).where(_ENTRY.c.id == key)).one()
    if numbers.of_entries(connection, [key]):
        return None
    return _number_new(connection, Placement(key, row.agency, row.direction, ""), row.year, settings)


def _number_new(connection: Connection, place: Placement, year: int, settings: Registers) -> int | None:
    if place.direction != "in" or settings.of(place.agency).incoming != "allocate":
        return None
    series, now = Series(place.agency, year, ARRIVALS), int(time.time() * 1000)
    number = numbers.take(connection, series, who="gateway", at=now, entry=place.entry)
    _note(
        connection, "allocate", place.agency, {"entry": place.entry, "year": year, "series": ARRIVALS, "number": number}
    )
    return number


def _note(connection: Connection, act: str, agency: str, body: Mapping[str, Any], who: str = "gateway") -> None:
    """The same in the tree, so that no hand can change it later. Values of fields go in as digests: a leaf stays for
    ever and everybody who audits reads it."""
    archive.leaf(connection, "register", {"act": act, "agency": agency, "who": who, **body})


# ---------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Query:
    """Which entries; empty means any. days: ISO 8601, both included. text: words, accents do not matter. flag: one of
    `FLAGS`, `unnumbered` or `compared`."""

    agency: str = ""
    direction: str = ""
    year: int = 0
    since: str = ""
    until: str = ""
    kind: str = ""
    code: str = ""
    text: str = ""
    number: int = 0
    flag: str = ""
    ids: tuple[str, ...] = ()


def entries(
    connection: Connection, query: Query, settings: Registers, directory: Directory | None = None
) -> list[dict[str, Any]]:
    """The entries of registers, each as JSON can hold it, in the order of a printed register: arrivals by number, then
    those without one; outgoing ones by series and number. Numbers that were given or cancelled and have no document
    stand in their place."""
    e = db.register_entry.c
    question = select(db.register_entry).where(e.year != 0)
    for column, value in ((e.agency, query.agency), (e.direction, query.direction), (e.year, query.year)):
        if value:
            question = question.where(column == value)
    if query.since:
        question = question.where(e.day >= query.since)
    if query.until:
        question = question.where(e.day <= query.until)
    if query.code:
        question = question.where(e.document_key.startswith(document_key(query.code), autoescape=True))
    for word in fold(query.text).split():
        question = question.where(e.words.contains(word, autoescape=True))
    if query.ids:
        question = question.where(e.id.in_(query.ids))
    rows = connection.execute(question).all()
    found = _shown(connection, rows, settings, directory)
    if not (query.code or query.text or query.ids or query.since or query.until):
        found += _bare_numbers(connection, query, rows, settings)
    if query.kind:
        found = [one for one in found if one.get("document_kind", "") == query.kind or one["series"] == query.kind]
    if query.number:
        found = [one for one in found if one["number"] == query.number]
    if query.flag == "unnumbered":
        found = [one for one in found if one["number"] is None]
    elif query.flag == "compared":
        found = [one for one in found if one["compared"]]
    elif query.flag:
        found = [one for one in found if query.flag in one["flags"]]
    return sorted(found, key=_order)


def _order(one: Mapping[str, Any]) -> tuple[Any, ...]:
    number = one["number"] if one["number"] is not None else 1 << 40
    if one["direction"] == "in":
        return one["agency"], "in", one["year"], "", number, one["at"], one["id"]
    return one["agency"], "out", one["year"], one["series"], number, one["day"], one["id"]


def entry(connection: Connection, key: str, settings: Registers, directory: Directory | None = None) -> dict[str, Any]:
    """One entry with its files, links to and from it, and everything people did to it. Raises NoEntry."""
    rows = connection.execute(select(db.register_entry).where(db.register_entry.c.id == key)).all()
    if not rows:
        raise NoEntry(key)
    (one,) = _shown(connection, rows, settings, directory)
    one["links"] = links(connection, rows[0])
    one["files"] = _files(connection, rows[0])
    named = [key, *([one["number_about"]] if one["number_about"] else [])]
    changes = sorted((c for many in changes_of(connection, named).values() for c in many), key=lambda c: c.id)
    one["history"] = [
        {
            "at": stamp(from_ms(c.at)),
            "who": c.who,
            "field": c.field,
            "old": c.old,
            "new": c.new,
            "reason": c.reason,
        }
        for c in changes
    ]
    return one


def _shown(
    connection: Connection, rows: list[Any], settings: Registers, directory: Directory | None
) -> list[dict[str, Any]]:
    keys = [row.id for row in rows]
    changes = changes_of(connection, keys)
    given = numbers.of_entries(connection, keys)
    by_number = _by_number(connection, rows)
    cases = _cases(connection, keys)
    flagged = _flags(connection, rows)
    arrived = _arrived(connection, rows)
    result = []
    for row in rows:
        mine = changes.get(row.id, [])
        number_row = given.get(row.id)
        if row.direction == "out" and number_row is None:
            number_row = next((by_number[name] for name in _names(row) if name in by_number), None)
        fields = json.loads(row.fields)
        if number_row is not None:  # what was said when the number was given fills what the document does not say
            fields = {**json.loads(number_row.fields), **fields}
        fields = effective(fields, mine)
        number = number_row.number if number_row is not None else row.number if row.direction == "out" else None
        if row.direction == "in" and number is not None:
            who = number_row.who if number_row is not None else "gateway"
            fields["arrival_number"] = [str(number), "gateway" if who == "gateway" else "clerk", 1.0]
            fields.setdefault("incoming_document_no", [str(number), "gateway", 1.0])
        if directory is not None:
            _from_directory(fields, row, directory)
        flags = list(flagged.get(row.id, ()))
        states = arrived.get(row.id, {"delivered"})
        if states == {"failed"}:
            flags.append("undelivered")
        if row.direction == "out" and row.origin == "mail":
            ours = settings.of(row.agency).outgoing == "allocate"
            if directory is not None and _forwarded(fields, row, directory):
                flags.append("forwarded")
            elif ours and row.number is not None and (number_row is None or number_row.state != "used"):
                flags.append("not_ours")
        needed = ("document_code", "abstract", "issued_date", "issuing_agency")
        if row.origin == "mail" and any(name not in fields or fields[name][2] < SURE for name in needed):
            flags.append("check")
        compared = next((c.new for c in reversed(mine) if c.field == "compared"), "")
        status = next((c.new for c in reversed(mine) if c.field == "status"), "")
        result.append(
            {
                "id": row.id,
                "agency": row.agency,
                "direction": row.direction,
                "year": row.year,
                "origin": row.origin,
                "number": number,
                "series": number_row.series if number_row is not None else row.series or ARRIVALS,
                "state": "registered",
                "day": row.day,
                "at": row.at,
                "registered_at": stamp(from_ms(row.at)),
                "message_class": row.message_class,
                **{column.name: fields[column.name][0] if column.name in fields else "" for column in _of(row)},
                "status": status or (_status(number, states) if row.direction == "in" else ""),
                "flags": [name for name in FLAGS if name in flags],
                "compared": compared,
                "cases": cases.get(row.id, []),
                "sha256": row.sha256,
                "corrected": sorted({c.field for c in mine if c.field in BY_NAME}),
                "number_about": (
                    Series(row.agency, number_row.year, number_row.series).about(number_row.number)
                    if number_row is not None
                    else ""
                ),
                "fields": {
                    name: {"value": one[0], "source": one[1], "confidence": one[2]} for name, one in fields.items()
                },
            }
        )
    return result


def _status(number: int | None, states: set[str]) -> str:
    """Of an incoming entry about which nobody said anything: 03 with a number, 01 when it is in a mailbox."""
    return "03" if number is not None else "01" if states & {"delivered", "seen"} else ""


def _arrived(connection: Connection, rows: Iterable[Any]) -> dict[str, set[str]]:
    """States of the recipients at the agency of incoming entries; those seen in a mailbox in another way have none."""
    keys = [row.id for row in rows if row.direction == "in" and row.origin == "mail"]
    s, r, e = db.register_source.c, db.recipient.c, _ENTRY.c
    found: dict[str, set[str]] = {}
    for begin in range(0, len(keys), 500):
        question = (
            select(s.entry, r.state)
            .distinct()
            .join(_ENTRY, e.id == s.entry)
            .join(db.recipient, (r.message == s.message) & (r.agency == e.agency))
            .where(s.entry.in_(keys[begin : begin + 500]), r.state.not_in(OUTSIDE))
        )
        for row in connection.execute(question):
            found.setdefault(row.entry, set()).add(row.state)
    return found


def _of(row: Any) -> list[Column]:
    return [one for one in COLUMNS if one.only in ("", row.direction)]


def columns_of(direction: str) -> list[Column]:
    """The fields of one register."""
    return [one for one in COLUMNS if one.only in ("", direction)]


def _from_directory(fields: dict[str, Value], row: Any, directory: Directory) -> None:
    """Level and name of the issuing agency as of the day; the directory keeps its own past."""
    day = from_ms(row.at).date()
    issuer = None
    if row.direction == "out":
        issuer = directory.agency(row.agency, day)
    if "issuing_agency" in fields:
        issuer = directory.agency_named(fields["issuing_agency"][0], day) or issuer
    elif row.direction == "in":
        issuer = directory.agency_of(fields.get("sent_from", [""])[0], day)
    if issuer is not None:
        fields.setdefault("issuing_agency", [issuer.name, "directory", 0.8])
        fields.setdefault("agency_level", [LEVELS.get(issuer.level, issuer.level), "directory", 1.0])


def _forwarded(fields: Mapping[str, Value], row: Any, directory: Directory) -> bool:
    """A document that another agency issued; its number is not one of this agency's."""
    name = fields.get("issuing_agency", [""])[0]
    issuer = directory.agency_named(name, from_ms(row.at).date()) if name else None
    return issuer is not None and issuer.id != row.agency


LEVELS = {
    "central": "Trung ương", "ministry": "Bộ, ngành", "province": "Cấp tỉnh", "department": "Sở, ban, ngành",
    "district": "Cấp huyện", "commune": "Cấp xã", "unit": "Đơn vị trực thuộc",
}  # fmt: skip


def _by_number(connection: Connection, rows: Iterable[Any]) -> dict[tuple[Any, ...], Any]:
    """Numbers that were given in the years of these outgoing entries, by `_names`."""
    found: dict[tuple[Any, ...], Any] = {}
    for agency, year in {(row.agency, row.year) for row in rows if row.direction == "out"}:
        for one in numbers.numbers(connection, agency, year):
            if one.series != ARRIVALS:
                found[agency, year, one.series, one.number] = one
                if one.code:
                    found[agency, year, document_key(one.code)] = one
    return found


def _names(row: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What finds the number of an outgoing entry: as it is written on the document, then its place in the series (the
    kind may have been read wrong, or the symbol)."""
    return (row.agency, row.year, row.document_key or None), (row.agency, row.year, row.series, row.number)


def _bare_numbers(
    connection: Connection, query: Query, rows: Iterable[Any], settings: Registers
) -> list[dict[str, Any]]:
    """Numbers without an entry: given and not used yet, or cancelled."""
    seen = {name for row in rows if row.direction == "out" for name in _names(row)}
    result = []
    for row in numbers.numbers(connection, query.agency, query.year):
        direction = "in" if row.series == ARRIVALS else "out"
        if row.entry or row.state == "reserved" or query.direction not in ("", direction):
            continue
        names = ((row.agency, row.year, document_key(row.code)), (row.agency, row.year, row.series, row.number))
        if row.state != "cancelled" and any(name in seen for name in names):
            continue
        fields = effective({**json.loads(row.fields), "document_code": [row.code, "gateway", 1.0]}, ())
        at = from_ms(row.at)
        state = "cancelled" if row.state == "cancelled" else "allocated"
        about = Series(row.agency, row.year, row.series).about(row.number)
        result.append(
            {
                "id": about,
                "agency": row.agency,
                "direction": direction,
                "year": row.year,
                "origin": "number",
                "number": row.number,
                "series": row.series,
                "state": state,
                "day": at.date().isoformat(),
                "at": row.at,
                "registered_at": stamp(at),
                "message_class": "",
                **{one.name: fields[one.name][0] if one.name in fields else "" for one in columns_of(direction)},
                "description": f"SỐ HỦY: {row.reason}".strip(": ") if state == "cancelled" else "đã cấp số, chưa gửi",
                "status": "",
                "flags": [],
                "compared": "",
                "cases": [],
                "sha256": "",
                "corrected": [],
                "number_about": about,
                "fields": {name: {"value": v[0], "source": v[1], "confidence": v[2]} for name, v in fields.items()},
            }
        )
    return result


def _cases(connection: Connection, keys: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    s = db.register_source.c
    for begin in range(0, len(keys), 500):
        question = select(s.entry, s.message).where(s.entry.in_(keys[begin : begin + 500])).order_by(s.message)
        for row in connection.execute(question):
            found.setdefault(row.entry, []).append(row.message)
    return found


def _files(connection: Connection, row: Any) -> list[dict[str, Any]]:
    """Files of the first message; of a paper entry its scan."""
    s, a = db.register_source.c, db.attachment.c
    first = connection.execute(select(func.min(s.message)).where(s.entry == row.id)).scalar()
    if first is None:
        return [{"path": f"{row.sha256}", "sha256": row.sha256, "main": True}] if row.sha256 else []
    files = connection.execute(
        select(a.path, a.sha256, a.size, a.type).where(a.message == first).order_by(a.id)
    ).mappings()
    return [{**one, "main": one["sha256"] == row.sha256} for one in files]


def _flags(connection: Connection, rows: list[Any]) -> dict[str, set[str]]:
    """What the register says about entries by looking at others of the same agency."""
    found: dict[str, set[str]] = {}
    e = db.register_entry.c
    for agency, mine in groupby(sorted(rows, key=lambda row: row.agency), key=lambda row: row.agency):
        group = list(mine)
        keyed = [row for row in group if row.document_key]
        # All entries of the agency that share a number with one of these.
        columns = (e.id, e.direction, e.document_key, e.issuer_key, e.document_year, e.sha256)
        shared = (
            select(e.document_key)
            .where(e.agency == agency, e.document_key != "")
            .group_by(e.document_key, e.direction)
            .having(func.count() > 1)
        )
        others: dict[str, list[Any]] = {}
        for one in connection.execute(select(*columns).where(e.agency == agency, e.document_key.in_(shared))):
            others.setdefault(one.document_key, []).append(one)
        for row in keyed:
            for one in others.get(row.document_key, ()):
                same = one.direction == row.direction and one.document_year == row.document_year
                issuer = one.issuer_key == row.issuer_key or not (one.issuer_key and row.issuer_key)
                if one.id != row.id and same and (issuer or row.direction == "out"):
                    found.setdefault(row.id, set()).add("same_number")
        taken, by_hand = _taken_back(connection, agency)
        for row in group:
            for kind, issuer in taken.get(row.document_key, ()) if row.document_key else ():
                # Only the agency that issued a document, or one that names none, takes it back.
                if not issuer or not row.issuer_key or issuer == row.issuer_key:
                    found.setdefault(row.id, set()).add(_TAKEN_BACK[kind])
            for kind in by_hand.get(row.id, ()):
                found.setdefault(row.id, set()).add(_TAKEN_BACK[kind])
    return found


_TAKEN_BACK = {"recall": "recalled", "replace": "replaced"}


def _taken_back(connection: Connection, agency: str) -> tuple[dict[str, list[tuple[str, str]]], dict[str, set[str]]]:
    """What entries of an agency recall or replace: document keys with how and who says so, as it was read; and entries,
    as people linked them. What people unlinked does not count."""
    e, link, change = _ENTRY.c, db.register_link.c, db.register_change.c
    linked: set[tuple[str, str, str]] = set()
    removed: set[tuple[str, str, str]] = set()
    acts = select(change.about, change.field, change.new).where(change.field.in_(("link", "unlink")))
    for row in connection.execute(acts.order_by(change.id)):
        kind, _, target = row.new.partition(":")
        if kind not in _TAKEN_BACK:
            continue
        if row.field == "link":
            linked.add((row.about, kind, target))
            continue
        linked.discard((row.about, kind, target))
        meant = connection.execute(select(e.document_key).where(e.id == target)).scalar()
        removed.add((row.about, kind, meant or document_key(target)))
    question = (
        select(link.entry, link.target, link.kind, e.issuer_key)
        .join(_ENTRY, e.id == link.entry)
        .where(e.agency == agency, link.kind.in_(tuple(_TAKEN_BACK)))
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for row in connection.execute(question):
        if (row.entry, row.kind, row.target) not in removed:
            found.setdefault(row.target, []).append((row.kind, row.issuer_key))
    by_hand: dict[str, set[str]] = {}
    for _, kind, target in linked:
        by_hand.setdefault(target, set()).add(kind)
        if "/" in target:
            found.setdefault(document_key(target), []).append((kind, ""))
    return found, by_hand


def links(connection: Connection, row: Any) -> list[dict[str, Any]]:
    """What an entry says about others, and what others of the agency say about it. `entries`: those meant, which may be
    none yet, or several where a number is there twice."""
    e, link, s = db.register_entry.c, db.register_link.c, db.register_source.c
    result: dict[tuple[str, str, str], dict[str, Any]] = {}

    def put(kind: str, way: str, target: str, found: list[str], source: str, confidence: float, said: str = "") -> None:
        old = result.get((kind, way, target))
        if old is None or confidence > old["confidence"]:
            words = LINKS[kind] if way == "to" else _BACK[kind]
            result[kind, way, target] = {
                "kind": kind, "way": way, "vi": words, "target": target, "said": said or target, "entries": found,
                "source": source, "confidence": confidence,
            }  # fmt: skip

    for one in connection.execute(select(db.register_link).where(link.entry == row.id).order_by(link.kind)):
        meant = _meant(connection, row, one.target)
        if one.source == "text" or meant:
            put(one.kind, "to", one.target, meant, one.source, one.confidence / 100, one.said)
    targets = [row.document_key] if row.document_key else []
    targets += [one for one in connection.execute(select(s.message_id).where(s.entry == row.id)).scalars() if one]
    back = (
        select(link.kind, link.entry, link.source, link.confidence, link.target)
        .join(db.register_entry, e.id == link.entry)
        .where(link.target.in_(targets), e.agency == row.agency, e.id != row.id)
        .order_by(link.entry)
    )
    for one in connection.execute(back):
        other_row = _row(connection, one.entry)
        if row.id in _meant(connection, other_row, one.target):
            said = other_row.document_key
            put(one.kind, "from", one.entry, [one.entry], one.source, one.confidence / 100, said)
    changes = select(db.register_change).where(db.register_change.c.field.in_(("link", "unlink")))
    about = db.register_change.c
    question = changes.where((about.about == row.id) | about.new.endswith(f":{row.id}")).order_by(about.id)
    for one in connection.execute(question):
        kind, _, target = one.new.partition(":")
        way, other = ("to", target) if one.about == row.id else ("from", one.about)
        if one.field == "unlink":
            result.pop((kind, way, other), None)
            for key in [key for key, value in result.items() if key[:2] == (kind, way) and other in value["entries"]]:
                del result[key]
        else:
            found = [other] if _row(connection, other) is not None else _meant(connection, row, other)
            put(kind, way, other, found, "clerk", 1.0)
    return list(result.values())


def _row(connection: Connection, key: str) -> Any:
    return connection.execute(select(db.register_entry).where(db.register_entry.c.id == key)).first()


def _meant(connection: Connection, row: Any, target: str) -> list[str]:
    """Entries of the same agency that a number or a Message-ID means."""
    e, s = db.register_entry.c, db.register_source.c
    if target.startswith("<"):
        question = (
            select(s.entry)
            .distinct()
            .join(db.register_entry, e.id == s.entry)
            .where(s.message_id == target, e.agency == row.agency, e.id != row.id)
        )
    else:
        question = select(e.id).where(e.document_key == target, e.agency == row.agency, e.id != row.id)
    return sorted(connection.execute(question).scalars())
