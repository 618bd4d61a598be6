"""What kind of message is it? Classes, main document, sender and way of delivery, from facts alone (rules.md 0.2, 1.6).

Pure: no clock, disk or network. `read` makes one `Reading` per message; every rule looks at it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from gateway.directory import Agency, Directory, Mailbox, name_key
from gateway.inspection.findings import Document, FileFacts, Inspection, SignatureState
from gateway.message import VIETNAM, Envelope, Origin


class MessageClass(StrEnum):
    """rules.md 0.2."""

    OFFICIAL_DOC = "OFFICIAL_DOC"
    DRAFT = "DRAFT"
    COMMENT = "COMMENT"
    DOSSIER = "DOSSIER"
    INVITATION = "INVITATION"
    MEETING_MATERIAL = "MEETING_MATERIAL"
    WORK_CALENDAR = "WORK_CALENDAR"
    ROOM_BOOKING = "ROOM_BOOKING"
    REPORT = "REPORT"
    DIRECTION = "DIRECTION"
    CITIZEN_MAIL = "CITIZEN_MAIL"
    WORK_MAIL = "WORK_MAIL"
    SYSTEM = "SYSTEM"


#: Classes whose main document is a văn bản chính thức when it carries number and form: PDF and signature apply.
FORMAL = frozenset(
    {
        MessageClass.OFFICIAL_DOC,
        MessageClass.DOSSIER,
        MessageClass.INVITATION,
        MessageClass.REPORT,
        MessageClass.DIRECTION,
    }
)


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """A document of the archive with the same number: `content` is the SHA-256 of a file of it, empty when the archive
    knows only that it was recalled; `revisions` those of what was signed in it, one for each signature."""

    case: str
    issuer: str
    date: str
    content: str
    recalled: bool = False
    revisions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What the past knows about this message; looked up by the caller so that judging stays pure."""

    documents: tuple[KnownDocument, ...] = ()
    calendar_publications: tuple[dt.datetime, ...] = ()  # planned times on the web site (TM-02)
    meeting_start: dt.datetime | None = None
    meeting_chaired_by_committee: bool | None = None


def history(
    directory: Directory,
    sender: str,
    at: dt.datetime,
    inspection: Inspection,
    documents: Iterable[KnownDocument] = (),
) -> History:
    """What directory and archive know about a message. documents: those of the archive with its numbers."""
    documents = tuple(documents)
    m = inspection.message
    if not directory._meetings and not directory._publications:  # the usual case, for every message
        return History(documents) if documents else _NOTHING
    text = padded(f"{m.subject} {' '.join(f.name for f in inspection.files)} {m.body_text[:4000]}")
    spelled = re.sub(r"\s+", "", f"{m.subject} {m.body_text[:4000]}").upper()
    codes = {code.upper() for f in inspection.files if f.document for code in f.document.cites}
    codes |= {one for one in (m.code.upper().replace(" ", "") for m in directory._meetings if m.code) if one in spelled}
    meeting = directory.meeting(codes, text, at)
    author = m.from_[0].address if len(m.from_) == 1 and m.from_[0].address else sender
    agency = directory.agency_of(author, at) if author else None
    return History(
        documents,
        directory.publications(agency.id, at) if agency is not None else (),
        meeting.start if meeting is not None else None,
        meeting.chaired_by_committee if meeting is not None else None,
    )


_NOTHING = History()


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a judgement may look at. `at` is timezone-aware; `direction` is in, out or internal."""

    at: dt.datetime
    direction: str
    origin: Origin
    envelope: Envelope
    inspection: Inspection
    history: History = field(default_factory=History)


#: Signatures whose cryptography and chain are in order.
GOOD = frozenset({SignatureState.VALID, SignatureState.VALID_UNTIMESTAMPED})

_CONTAINERS = frozenset({"zip", "rar", "7z", "tar", "gz", "eml", "tnef"})
_DOCUMENTS = frozenset({"pdf", "doc", "docx", "rtf", "odt"})
_ATTENDANTS = frozenset({"p7s", "p7m", "ics", "tnef"})  # parts that accompany a message rather than being its files

STATE_CODE = re.compile(
    r"(?<![\w/.-])\d{1,6}[A-Za-z]?\s{0,2}/(?:\s?(?:19|20)\d\d\s?/)?\s?[A-ZĐƯƠ][\wĐđ&]*(?:-[\wĐđ&]+)+"
)
_PREFIX = re.compile(r"^(?:\s*(?:re|fw|fwd|trả lời|chuyển tiếp|tl|ct)\s*:\s*)+", re.IGNORECASE)
_DRAFT_LEAD = re.compile(
    r"^\W*(?:gửi\s+)?(?:bản\s+)?(?:dự\s*thảo|bản\s+thảo|draft)\b|[\[(]\s*dự\s*thảo\s*[\])]", re.IGNORECASE
)
_DRAFT_FILE = re.compile(r"(?:^|[\W_])(?:dự[\W_]*thảo|du[\W_]*thao|bản[\W_]*thảo|draft)(?:$|[\W_\d])", re.IGNORECASE)


def _phrases(*phrases: str) -> tuple[str, ...]:
    return tuple(f" {name_key(phrase)} " for phrase in phrases)


_COMMENT = _phrases(
    "góp ý", "tham gia ý kiến", "đóng góp ý kiến", "ý kiến đối với dự thảo", "cho ý kiến dự thảo", "ý kiến góp ý"
)
_DOSSIER = _phrases("tờ trình", "phiếu trình", "hồ sơ trình", "hồ sơ điện tử", "trình ký")
_INVITATION = _phrases("giấy mời", "thư mời", "mời họp", "mời dự")
_MATERIAL = _phrases(
    "tài liệu họp",
    "tài liệu phục vụ họp",
    "tài liệu phục vụ cuộc họp",
    "tài liệu cuộc họp",
    "tài liệu hội nghị",
    "tài liệu phục vụ hội nghị",
    "tài liệu kỳ họp",
)
_CALENDAR = _phrases("lịch làm việc", "lịch công tác")
_BOOKING = _phrases("đăng ký lịch họp", "đăng ký phòng họp", "đặt phòng họp", "đăng ký họp")
_PERIOD = _phrases(
    "tháng", "quý", "6 tháng", "sáu tháng", "năm", "báo cáo nhanh", "báo cáo tuần", "thống kê", "định kỳ"
)
_REPORT = _phrases("báo cáo")
_DIRECTION = _phrases(
    "ý kiến chỉ đạo", "thông tin chỉ đạo", "chỉ đạo điều hành", "chỉ đạo, điều hành", "truyền đạt ý kiến"
)
_CITIZEN = _phrases(
    "tôi là",
    "tôi tên là",
    "công dân",
    "đơn kiến nghị",
    "đơn đề nghị",
    "đơn khiếu nại",
    "đơn tố cáo",
    "kiến nghị",
    "phản ánh",
    "khiếu nại",
    "tố cáo",
    "người dân",
    "hộ gia đình",
    "gia đình tôi",
    "doanh nghiệp chúng tôi",
    "công ty chúng tôi",
    "thủ tục hành chính",
    "dịch vụ công",
)
_ADDRESSED_TO_CITIZEN = _phrases(
    "kính gửi ông",
    "kính gửi bà",
    "kính gửi anh",
    "kính gửi chị",
    "kính gửi công ty",
    "kính gửi hộ kinh doanh",
    "kính gửi doanh nghiệp",
    "kính gửi quý công ty",
    "kính gửi quý khách",
    "trả lời kiến nghị",
    "trả lời phản ánh",
    "trả lời đơn",
    "trả lời khiếu nại",
    "kết quả giải quyết thủ tục",
    "kết quả giải quyết hồ sơ",
    "công dân",
)
_CITIZEN_NAMES = _phrases(
    "ông", "bà", "công ty", "doanh nghiệp", "hợp tác xã", "hộ kinh doanh", "hộ gia đình", "công dân"
)
_STATE_NAMES = _phrases(
    "ủy ban nhân dân",
    "ubnd",
    "hội đồng nhân dân",
    "hđnd",
    "sở",
    "bộ",
    "cục",
    "chi cục",
    "tổng cục",
    "thanh tra",
    "văn phòng ubnd",
    "văn phòng ủy ban nhân dân",
    "văn phòng chính phủ",
    "kho bạc nhà nước",
    "phòng nội vụ",
    "ban quản lý",
    "mặt trận tổ quốc",
    "văn thư",
    "công an",
)


def has(text_key: str, phrases: tuple[str, ...]) -> bool:
    """Does a keyed text (see `padded`) hold one of the phrases as whole words?"""
    for phrase in phrases:  # noqa: SIM110 - a generator takes three times as long, a hundred times per message
        if phrase in text_key:
            return True
    return False


@lru_cache(maxsize=4096)
def padded(text: str) -> str:
    """`name_key` between blanks, for whole-word search. Cached: the same subject is looked at by many rules."""
    return f" {name_key(text)} "


@dataclass(frozen=True, slots=True)
class Reading:
    """What a message is. Addresses are lower case; `author` is the single From address, else the envelope sender."""

    message_class: MessageClass
    files: tuple[FileFacts, ...]  # files of the message, containers and attendants left out
    attached: tuple[FileFacts, ...]  # depth 0, inline pictures and attendants left out
    main: FileFacts | None
    document: Document | None
    formal: bool  # a văn bản chính thức: PDF and signature rules apply
    official: bool  # the main document has number and form, whatever the class
    signed: bool  # a good signature on the main document
    author: str
    author_name: str
    author_agency: Agency | None
    author_box: Mailbox | None
    issuer: Agency | None  # the directory's agency that issued the document
    issuer_name: str
    issued_on: dt.date | None
    authenticated: bool
    official_author: bool
    free_author: bool
    staff: Mailbox | None  # the author writes from a private address of this mailbox's holder
    citizen_cue: bool
    to_citizen: bool
    claims_agency: str  # an outside sender's claim to be an agency or one of its staff
    urgency: str
    day: dt.date
    subject_key: str
    abstract_key: str
    body_key: str


_URGENCY = ("khan", "thuong_khan", "hoa_toc", "hoa_toc_hen_gio")


def read(directory: Directory, situation: Situation) -> Reading:
    """Classify one message."""
    facts = situation.inspection.message
    day = situation.at.astimezone(VIETNAM).date()
    sender = situation.envelope.sender.key
    single = facts.from_[0] if len(facts.from_) == 1 else None
    author = (single.address if single and single.address else sender).lower()
    domain = author.rpartition("@")[2]
    box = directory.mailbox(author)
    agency = directory.agency_of(author, day) if author else None
    authenticated = (
        bool(situation.origin.login)
        or situation.inspection.sender.aligned
        or (situation.origin.trusted and situation.direction != "in")  # our own server speaks for our own senders
    )
    staff = directory.owner_of_private(author) if author else None
    if staff is None and box is None and situation.origin.login and not directory.is_official(domain):
        staff = directory.mailbox(situation.origin.login)

    files = tuple(f for f in situation.inspection.files if f.type not in _CONTAINERS and not _aside(f))
    attached = tuple(f for f in situation.inspection.files if f.depth == 0 and not _aside(f))
    main = _main_document(files)
    document = main.document if main is not None else None
    subject = bare_subject(facts.subject)
    subject_key, body_key = padded(subject), padded(facts.body_text[:4000])
    abstract_key = padded(document.abstract.value) if document and document.abstract else "  "
    signed = main is not None and any(s.state in GOOD and s.kind != "timestamp" for s in main.signatures)
    organisation_signed = main is not None and any(
        s.state in GOOD and s.kind == "organisation" for s in main.signatures
    )
    code = document is not None and document.code is not None
    official = (
        main is not None
        and not (document is not None and document.draft and not signed)
        and (
            (code and document is not None and document.components >= 3)
            or organisation_signed
            or (code and signed)
            or (box is not None and box.kind != "PERSONAL" and bool(STATE_CODE.search(subject)))
        )
    )
    issuer_name = document.issuing_agency.value if document and document.issuing_agency else ""
    issued_on = _date(document.date.value) if document and document.date else None
    signing_day = issued_on or day  # the agency's state counts on the day of the document
    issuer = directory.agency_named(issuer_name, signing_day) if issuer_name else None
    if issuer is None and box is not None and box.kind != "PERSONAL":
        issuer = directory.agency(box.agency, signing_day)
    elif issuer is None and agency is not None and not issuer_name:
        issuer = agency
    official_author = box is not None or directory.is_official(domain)
    citizen_cue = has(subject_key, _CITIZEN) or has(body_key, _CITIZEN)
    claims = ""
    if not official_author and author:
        proved = staff if authenticated else None
        name = single.name if single else ""
        if staff is not None and proved is None:
            claims = staff.address
        else:
            claims = _claim(directory, name, issuer_name if official else "", issuer, proved)
    to_citizen = bool(
        has(subject_key + abstract_key + body_key, _ADDRESSED_TO_CITIZEN)
        or (document and any(padded(one.name).startswith(_CITIZEN_NAMES) for one in document.recipients))
    )
    message_class = _class(
        situation,
        subject,
        subject_key,
        abstract_key,
        files,
        attached,
        main,
        document,
        official,
        signed,
        official_author,
        agency,
        staff,
        citizen_cue,
        claims,
    )
    levels = [f.value for f in situation.inspection.findings if f.kind == "urgency" and f.value in _URGENCY]
    return Reading(
        message_class=message_class,
        files=files,
        attached=attached,
        main=main,
        document=document,
        formal=official and message_class in FORMAL,
        official=official,
        signed=signed,
        author=author,
        author_name=single.name if single else "",
        author_agency=agency,
        author_box=box,
        issuer=issuer,
        issuer_name=issuer_name or (issuer.name if issuer else ""),
        issued_on=issued_on,
        authenticated=authenticated,
        official_author=official_author,
        free_author=directory.is_free(domain),
        staff=staff,
        citizen_cue=citizen_cue,
        to_citizen=to_citizen,
        claims_agency=claims,
        urgency=max(levels, key=_URGENCY.index) if levels else "",
        day=day,
        subject_key=subject_key,
        abstract_key=abstract_key,
        body_key=body_key,
    )


def _aside(file: FileFacts) -> bool:
    return file.inline or file.type in _ATTENDANTS


def _date(value: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(value[:10])
    except ValueError:
        return None


def main_file(inspection: Inspection) -> FileFacts | None:
    """The file of a message that is its document, as `read` takes it."""
    return _main_document(f for f in inspection.files if f.type not in _CONTAINERS and not _aside(f))


def bare_subject(subject: str) -> str:
    """Without `Re:`, `Fwd:` and the like."""
    return _PREFIX.sub("", subject)


def _main_document(files: Iterable[FileFacts]) -> FileFacts | None:
    """The file that is the document: numbered before unnumbered, PDF before others, outer before inner."""
    candidates = [f for f in files if f.type in _DOCUMENTS or f.document is not None]
    if not candidates:
        return None

    def rank(file: FileFacts) -> tuple[bool, int, bool, int]:
        document = file.document
        numbered = document is not None and document.code is not None and not document.draft
        return (not numbered, -(document.components if document else 0) // 3, file.type != "pdf", file.depth)

    return min(candidates, key=rank)


def _claim(directory: Directory, name: str, issuer_name: str, issuer: Agency | None, proved: Mailbox | None) -> str:
    """What makes an outside sender look like an agency: its name, its letterhead, or the name of one of its staff.

    proved: who it is, by a private address of the directory and authentication; then neither the own name nor the
    letterhead of the own agency is a claim, and MB-01 alone speaks (seed 000, 1d: "đã được cấp")."""
    if proved is not None:
        own = issuer is not None and issuer.id == proved.agency
        return "" if own or not issuer_name else issuer_name
    key = padded(name)
    if name and (has(key, _STATE_NAMES) or key.strip() in directory._names):
        return name
    if name and directory.holders(name):
        return name
    if issuer_name and (issuer is not None or has(padded(issuer_name), _STATE_NAMES)):
        return issuer_name
    return ""


def _class(
    situation: Situation,
    subject: str,
    subject_key: str,
    abstract_key: str,
    files: tuple[FileFacts, ...],
    attached: tuple[FileFacts, ...],
    main: FileFacts | None,
    document: Document | None,
    official: bool,
    signed: bool,
    official_author: bool,
    agency: Agency | None,
    staff: Mailbox | None,
    citizen_cue: bool,
    claims: str,
) -> MessageClass:
    facts = situation.inspection.message
    kind = document.kind.value if document and document.kind else ""
    about = subject_key + abstract_key
    names = padded(" ".join(f.name.replace("_", " ") for f in attached)) if attached else "  "
    outsider = not official_author and agency is None and staff is None
    if outsider and situation.origin.login == "" and (not claims or (citizen_cue and main is None)):
        if facts.auto_submitted not in ("", "no") or not situation.envelope.sender.key:
            return MessageClass.SYSTEM
        return MessageClass.CITIZEN_MAIL
    if (
        outsider
        and citizen_cue
        and situation.origin.login == ""
        and not has(padded(facts.from_[0].name if facts.from_ else ""), _STATE_NAMES)
    ):
        return MessageClass.CITIZEN_MAIL
    draft = any(f.document is not None and f.document.draft for f in files) or any(
        _DRAFT_FILE.search(f.name) for f in files
    )
    if not official and (draft or (_DRAFT_LEAD.search(subject) and not signed)):
        return MessageClass.DRAFT
    if official and not signed and document is not None and document.code is None and _DRAFT_LEAD.search(subject):
        return MessageClass.DRAFT
    if has(about, _COMMENT):
        return MessageClass.COMMENT
    proposal = (
        kind == "TTr"
        or has(about, _DOSSIER)
        or any(f.document is not None and f.document.kind is not None and f.document.kind.value == "TTr" for f in files)
    )
    if proposal and (len(files) > 1 or any(f.type in ("zip", "rar", "7z") for f in attached)):
        return MessageClass.DOSSIER
    if has(about + names, _BOOKING):
        return MessageClass.ROOM_BOOKING
    if has(about, _MATERIAL) or (has(names, _MATERIAL) and kind != "GM"):
        return MessageClass.MEETING_MATERIAL
    invited = any(f.type == "ics" for f in situation.inspection.files) or bool(facts.meeting_start and not official)
    if kind == "GM" or has(about, _INVITATION) or (invited and not official):
        return MessageClass.INVITATION
    if has(about + names, _CALENDAR):
        return MessageClass.WORK_CALENDAR
    if kind == "BC" and has(about, _PERIOD):
        return MessageClass.REPORT
    if official:
        return MessageClass.OFFICIAL_DOC
    if attached and has(subject_key, _REPORT) and has(subject_key, _PERIOD):
        return MessageClass.REPORT
    if has(about, _DIRECTION):
        return MessageClass.DIRECTION
    if facts.auto_submitted not in ("", "no") or not situation.envelope.sender.key:
        return MessageClass.SYSTEM
    return MessageClass.WORK_MAIL


# -- delivery lists (rules.md 1.6) -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """Which way a document goes: mode, the list item that says so, and its wording."""

    mode: str  # electronic_only, electronic_and_paper, unlisted
    item: str = ""
    item_vi: str = ""


_MONEY = _phrases("kinh phí", "dự toán", "quyết toán", "tạm ứng", "ngân sách", "thanh toán", "tài chính")
_STAFF = _phrases(
    "bổ nhiệm",
    "miễn nhiệm",
    "điều động",
    "luân chuyển",
    "nâng lương",
    "tuyển dụng",
    "kỷ luật",
    "nhân sự",
    "biên chế",
    "tổ chức bộ máy",
)
_LICENCE = _phrases("giấy phép", "cấp phép", "giấy chứng nhận", "thi đua", "khen thưởng")
_LAND = _phrases(
    "giao đất",
    "thuê đất",
    "khoáng sản",
    "dự án đầu tư",
    "đấu thầu",
    "xây dựng cơ bản",
    "một cửa",
    "cấp phát vật tư",
    "lương thực",
    "cấp phép đầu tư",
)
_YEARLY = _phrases("báo cáo năm", "cả năm", "thống kê chuyên ngành", "số liệu thống kê")
_INTRODUCTION = _phrases(
    "giới thiệu con dấu", "giới thiệu chữ ký", "con dấu", "trụ sở", "kết luận", "giới thiệu chức danh"
)
_COPY = _phrases("sao gửi", "sao y", "sao lục", "trích sao")
_NOTICE = _phrases("thông báo")
_TABLE = _phrases("bảng biểu", "thống kê")
_FILE_COPY = _phrases("lưu")
_FOR_INFORMATION = re.compile(r"để\s+(?:b/?c|báo\s+cáo|biết)|đề\s+(?:biết|báo\s+cáo)", re.IGNORECASE)
_YEAR_IN_CODE = re.compile(r"/(?:19|20)\d\d/")
_YEAR_REPORT = re.compile(r"\bbáo cáo\b.*\bnăm (?:19|20)\d\d|\bnăm (?:19|20)\d\d\b", re.IGNORECASE)
_SHORT_PERIOD = re.compile(r"\b(?:tháng|quý|tuần|6 tháng|sáu tháng|nhanh)\b", re.IGNORECASE)


def delivery(reading: Reading, lists: str) -> Delivery:
    """The delivery mode under a profile's lists: `binh_duong`, `ha_tinh`, `bnv` or empty.

    A draft is always electronic; a mode line of the document itself wins over the lists; then electronic-and-paper
    items win over electronic-only ones (rules.md 1.6).
    """
    document, cls = reading.document, reading.message_class
    drafts = {"binh_duong": "DL-BD-A8", "ha_tinh": "DL-HT-A", "bnv": "DL-BN-MAIL"}
    if cls == MessageClass.DRAFT and lists:
        return Delivery("electronic_only", drafts[lists], "văn bản dự thảo")
    if document is not None and document.mode_line == "electronic_only":
        return Delivery("electronic_only", "mode_line", "dòng “Gửi: Văn bản điện tử” của văn bản")
    if document is not None and document.mode_line in ("electronic_and_paper", "paper"):
        return Delivery("electronic_and_paper", "mode_line", "dòng “Gửi bản giấy và điện tử” của văn bản")
    if not lists or cls in (MessageClass.CITIZEN_MAIL, MessageClass.SYSTEM):
        return Delivery("unlisted")
    about = reading.abstract_key + reading.subject_key
    kind = document.kind.value if document and document.kind else ""
    informed = document is not None and bool(document.recipients) and _informed(reading, document)
    if lists == "binh_duong":
        return _binh_duong(reading, cls, kind, about, informed)
    if lists == "ha_tinh":
        return _ha_tinh(reading, cls, kind, about, informed)
    return _bnv(reading, cls, kind, about, informed)


def _informed(reading: Reading, document: Document) -> bool:
    """Every recipient line but the file copy has the purpose `để biết` or `để báo cáo`."""
    lines = [one for one in document.recipients if not padded(one.name).startswith(_FILE_COPY)]
    return bool(lines) and all(_FOR_INFORMATION.search(one.purpose) for one in lines)


def _binh_duong(reading: Reading, cls: MessageClass, kind: str, about: str, informed: bool) -> Delivery:
    both, only = "electronic_and_paper", "electronic_only"
    text = about.strip()
    if cls == MessageClass.COMMENT:
        return Delivery(only, "DL-BD-A8", "công văn trao đổi, đóng góp ý kiến cho dự thảo văn bản")
    if cls == MessageClass.DOSSIER or kind == "TTr":
        return Delivery(both, "DL-BD-B1", "hồ sơ, phiếu trình Lãnh đạo cấp trên")
    if has(about, _MONEY):
        return Delivery(both, "DL-BD-B2", "văn bản, tài liệu liên quan đến kinh phí")
    if has(about, _STAFF):
        return Delivery(both, "DL-BD-B3", "văn bản, tài liệu liên quan đến nhân sự")
    if has(about, _LICENCE):
        return Delivery(both, "DL-BD-B4", "hồ sơ, tài liệu về cấp phép, thi đua khen thưởng")
    plain = _plain(reading)
    if kind == "BC" and (has(about, _YEARLY) or (_YEAR_REPORT.search(plain) and not _SHORT_PERIOD.search(plain))):
        return Delivery(both, "DL-BD-B5", "báo cáo năm, báo cáo số liệu thống kê chuyên ngành")
    normative = (
        reading.document is not None
        and reading.document.code is not None
        and bool(_YEAR_IN_CODE.search(reading.document.code.value))
    )
    if kind in ("CTr", "KH", "ĐA", "DA", "QĐ") and not informed and not normative:
        return Delivery(both, "DL-BD-B6", "chương trình, kế hoạch, đề án, dự án, quyết định gửi để thực hiện")
    if cls == MessageClass.WORK_CALENDAR:
        return Delivery(only, "DL-BD-A1", "lịch làm việc")
    if cls in (MessageClass.INVITATION, MessageClass.MEETING_MATERIAL):
        return Delivery(only, "DL-BD-A2", "thư mời họp, giấy mời họp, tài liệu phục vụ cuộc họp")
    if cls == MessageClass.ROOM_BOOKING:
        return Delivery(only, "DL-BD-A3", "đăng ký lịch họp, phòng họp")
    if kind == "TB" and has(about, _INTRODUCTION):
        return Delivery(only, "DL-BD-A4", "thông báo giới thiệu con dấu, chữ ký, trụ sở; thông báo kết luận cuộc họp")
    if kind == "GUQ":
        return Delivery(only, "DL-BD-A5", "giấy ủy quyền gửi báo cáo lãnh đạo cấp trên")
    if kind == "BC" or cls == MessageClass.REPORT:
        return Delivery(only, "DL-BD-A6", "báo cáo công tác, báo cáo tháng, quý, 6 tháng, báo cáo nhanh")
    if normative:
        return Delivery(only, "DL-BD-A10", "văn bản quy phạm pháp luật gửi đến nhiều đơn vị để biết")
    if informed:
        return Delivery(only, "DL-BD-A7", "văn bản gửi Lãnh đạo để báo cáo, để biết")
    if kind in ("SY", "SL", "TrS") or has(f" {text} ", _COPY):
        return Delivery(only, "DL-BD-A9", "bản sao gửi để phối hợp xử lý công việc")
    return Delivery("unlisted")


def _ha_tinh(reading: Reading, cls: MessageClass, kind: str, about: str, informed: bool) -> Delivery:
    only = "electronic_only"
    if cls == MessageClass.COMMENT:
        return Delivery(only, "DL-HT-A", "văn bản góp ý, chỉ gửi bản mềm")
    if has(about, _MONEY + _STAFF + _LAND + _LICENCE[:3]):
        return Delivery("electronic_and_paper", "DL-HT-B", "tài chính, tổ chức, tuyển dụng, cấp phép, đất đai, đầu tư")
    if reading.urgency:
        return Delivery(only, "DL-HT-A", "văn bản khẩn")
    listed = kind in ("SY", "NQ", "CT", "CV", "GM", "BC", "TB", "KH", "CTr") or cls in (
        MessageClass.WORK_CALENDAR,
        MessageClass.INVITATION,
        MessageClass.MEETING_MATERIAL,
        MessageClass.REPORT,
        MessageClass.DIRECTION,
    )
    normative = (
        kind == "QĐ"
        and reading.document is not None
        and reading.document.code is not None
        and bool(_YEAR_IN_CODE.search(reading.document.code.value))
    )
    if listed or normative or informed:
        return Delivery(only, "DL-HT-A", "văn bản thực hiện việc gửi, nhận bằng bản điện tử")
    return Delivery("unlisted")


def _bnv(reading: Reading, cls: MessageClass, kind: str, about: str, informed: bool) -> Delivery:
    if cls == MessageClass.DOSSIER:
        # seed 001 2d: from the first quarter of 2013 a dossier goes both ways (TM-09)
        if reading.day >= dt.date(2013, 1, 1):
            return Delivery("electronic_and_paper", "TM-09", "hồ sơ trình gửi song song bản điện tử và bản giấy")
        return Delivery("unlisted")
    if cls in (MessageClass.INVITATION, MessageClass.MEETING_MATERIAL, MessageClass.COMMENT) or informed:
        return Delivery("electronic_only", "DL-BN-MAIL", "văn bản trao đổi nội bộ qua thư điện tử công vụ")
    if kind == "TB" or has(about, _NOTICE + _TABLE):
        return Delivery("electronic_only", "DL-BN-MAIL", "thông báo chung, bảng biểu thống kê")
    if kind in ("CTr", "KH") or cls in (MessageClass.DIRECTION, MessageClass.WORK_CALENDAR):
        return Delivery("electronic_only", "DL-BN-EOFFICE", "thông tin trao đổi qua phần mềm quản lý văn bản")
    return Delivery("unlisted")


def _plain(reading: Reading) -> str:
    document = reading.document
    return document.abstract.value if document and document.abstract else ""
