"""The catalogue: one small pure function for each rule of the directives.

A rule looks at a `Case` and returns its hits, or a sentence why it does not apply. It does not know modes, dates or
exceptions of the policy: `policy.py` decides what a hit leads to. Rule ids are those of the directives' table in
docs/rules.md; texts are Vietnamese first and can be overwritten in policy.yaml.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from gateway.classify import (
    GOOD,
    Delivery,
    KnownDocument,
    MessageClass,
    Reading,
    Situation,
    has,
    padded,
)
from gateway.directory import Agency, Directory, Mailbox, name_key
from gateway.inspection.findings import FileFacts, SealState, SignatureState, Status
from gateway.message import VIETNAM


class Disposition(IntEnum):
    """Verdicts, weakest first (rules.md 0.1)."""

    DELIVER = 1
    DELIVER_WARN = 2
    HOLD = 3
    RETURN = 4
    REJECT_MALWARE = 5
    BLOCK_SECRET = 6

    @property
    def text(self) -> str:
        return self.name.lower().replace("_", "-")


#: `deliver-warn` → Disposition.DELIVER_WARN
DISPOSITIONS = {one.text: one for one in Disposition}


@dataclass(frozen=True, slots=True)
class Target:
    """One recipient as the directory knows it."""

    address: str
    agency: Agency | None
    box: Mailbox | None
    official: bool
    free: bool


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule looks at: one message, for the recipients that are judged under one agency's profile."""

    situation: Situation
    directory: Directory
    reading: Reading
    delivery: Delivery
    settings: Any  # policy.Profile
    agency: Agency | None  # whose profile judges
    targets: tuple[Target, ...]

    @property
    def day(self) -> dt.date:
        return self.reading.day

    def findings(self, kind: str, *values: str) -> list[Any]:
        return [f for f in self.situation.inspection.findings if f.kind == kind and (not values or f.value in values)]

    def exempt(self) -> str:
        """Why rules on official business do not apply at all, or an empty string."""
        if self.reading.message_class == MessageClass.CITIZEN_MAIL:
            return "mail of a citizen or business (MB-06)"
        if self.reading.message_class == MessageClass.SYSTEM:
            return "automatic mail"
        return ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing a rule found. `text` names a variant of the rule's texts; `facts` fill its placeholders."""

    about: str = ""
    where: str = ""
    evidence: str = ""
    disposition: Disposition | None = None  # None: the rule's own
    text: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    recipients: tuple[str, ...] = ()  # empty: all recipients of the case
    note: str = ""  # a value for an annotation
    rule: str = ""  # a more exact id than the rule's, such as the item of a delivery list
    notice: str = ""  # a more exact notice than the rule's
    values: dict[str, str] = field(default_factory=dict)  # what the templates of notices ask for, by their names


_OPTIONAL = re.compile(r"\[\[(.*?)\]\]")
_PLACE = re.compile(r"\{(\w+)\}")


def fill(text: str, facts: dict[str, str]) -> str:
    """`text` with its facts. `[[ … ]]` is left out when a fact in it is missing; elsewhere `…` stands for it."""

    def optional(part: re.Match[str]) -> str:
        return part[1] if all(facts.get(name) for name in _PLACE.findall(part[1])) else ""

    return _PLACE.sub(lambda found: facts.get(found[1]) or "…", _OPTIONAL.sub(optional, text) if "[[" in text else text)


@dataclass(frozen=True, slots=True)
class Text:
    """Texts of one rule or variant; placeholders in braces, optional parts in double brackets."""

    vi: str
    en: str
    cure_vi: str = ""
    cure_en: str = ""


Answer = list[Hit] | str
Judge = Callable[[Case], Answer]


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    title_vi: str
    title_en: str
    disposition: Disposition  # DELIVER: an annotation, never part of the verdict
    notice: str
    judge: Judge
    texts: dict[str, Text]
    fixed: bool = False  # protects secrets or against malware: no mode, no dates, no exceptions


CATALOGUE: dict[str, Rule] = {}


def rule(
    identifier: str,
    title_vi: str,
    title_en: str,
    disposition: Disposition,
    notice: str = "",
    *,
    fixed: bool = False,
    **texts: Text,
) -> Callable[[Judge], Judge]:
    """Enter a rule into the catalogue. The text named `text` is the default one."""

    def enter(judge: Judge) -> Judge:
        named = {("" if key == "text" else key): value for key, value in texts.items()}
        CATALOGUE[identifier] = Rule(identifier, title_vi, title_en, disposition, notice, judge, named, fixed)
        return judge

    return enter


DELIVER, WARN, HOLD, RETURN = Disposition.DELIVER, Disposition.DELIVER_WARN, Disposition.HOLD, Disposition.RETURN

# -- secrecy (rules.md 1.2, 3.1) -------------------------------------------------------------------------------------

_SECRET = Text(
    "Thông điệp có dấu hiệu chứa bí mật nhà nước.",
    "The message bears a mark of state secrecy.",
    "Không gửi lại bằng thư điện tử; xóa khỏi thiết bị nối mạng và báo cáo người phụ trách bảo vệ bí mật nhà nước.",
    "Do not send it again by mail; remove it from networked devices and tell the officer in charge of state secrets.",
)
_REVIEW = Text(
    "Thông điệp cần người có thẩm quyền xem xét trước khi chuyển.",
    "A person has to look at the message before it is passed on.",
    "Chờ kết quả xem xét trong giờ làm việc; không gửi lại bằng thư điện tử.",
    "Wait for the decision within working hours; do not send it again by mail.",
)
_NOT_INSPECTED = Text(
    "{what}: không kiểm tra được nội dung ({reason_vi}).",
    "{what_en}: the content could not be inspected ({reason_en}).",
    "Gửi lại tệp ở dạng không đặt mật khẩu, đọc được bằng phần mềm phổ biến, hoặc chờ Văn thư xem xét.",
    "Send the file again without a password and in a common format, or wait for the clerk to look at it.",
)
_CHECK_FAILED = Text(
    "Việc kiểm tra {check_vi} chưa hoàn thành[[ ({of_vi})]].",
    "The check of {check_en} did not finish[[ ({of_en})]].",
    "Không cần gửi lại; Văn thư sẽ xem xét và xử lý.",
    "No need to send it again; the clerk will look at it.",
)
_AMBIGUOUS = Text(
    "Cấu trúc thư không rõ ràng: có thể được đọc theo hai cách khác nhau.",
    "The structure of the message is ambiguous: it can be read in two ways.",
    "Gửi lại bằng một phần mềm thư điện tử thông dụng.",
    "Send it again with a common mail program.",
)
_LEVELS = ("mat", "toi_mat", "tuyet_mat")
_IN_MESSAGE = ("subject", "body", "")


def _marks(c: Case, *, strong: bool, where: Callable[[str], bool] = lambda _: True) -> list[Hit]:
    """Hits for secrecy marks. No evidence, no place: nothing of a secret is repeated."""
    hits = []
    for found in c.findings("secrecy"):
        # THU HỒI alone is also a circulation mark, and a declassified document needs a look at the decision
        blocking = found.grade == "strong" and found.value not in ("declassified", "recall_mark")
        if blocking == strong and where(found.about):
            hits.append(Hit(disposition=Disposition.BLOCK_SECRET) if strong else Hit(disposition=HOLD, text="review"))
    return hits[:1]


def _extraction_failures(c: Case) -> list[Any]:
    return [
        run
        for run in c.situation.inspection.runs
        if run.check in ("mime", "containers", "text", "secrecy", "ocr", "frames", "inspection")
        and run.status in (Status.FAILED, Status.TIMED_OUT)
    ]


#: Kinds of `uninspectable` findings that another rule answers for.
_OTHER_RULE = ("encrypted", "smime", "pgp")
_REASONS = {
    "too_deep": ("lồng nhiều lớp", "nested too deep"),
    "too_many": ("quá nhiều tệp", "too many files"),
    "too_large": ("vượt dung lượng", "too large"),
    "ratio": ("tỷ lệ nén bất thường", "compressed beyond measure"),
    "unknown_container": ("dạng tệp nén không đọc được", "archive of an unknown kind"),
    "unreadable_scan": ("bản quét không đọc được", "scan that cannot be read"),
    "garbage_text": ("lớp chữ không đọc được", "text layer that cannot be read"),
    "no_extractor": ("không có công cụ đọc định dạng này", "no tool for this format"),
    "encrypted": ("có mật khẩu", "protected by a password"),
    "damaged": ("bị lỗi", "damaged"),
}


@rule(
    "SC-01",
    "Văn bản mật không gửi, nhận qua thư điện tử",
    "No secret documents by mail",
    Disposition.BLOCK_SECRET,
    "N08",
    fixed=True,
    text=_SECRET,
    review=_REVIEW,
    failed=_CHECK_FAILED,
    ambiguous=_AMBIGUOUS,
    uninspectable=_NOT_INSPECTED,
)
def secrecy(c: Case) -> Answer:
    hits = _marks(c, strong=True) + _marks(c, strong=False)
    hits += [Hit(disposition=HOLD, text="review") for _ in c.findings("frame", "red_box")[:1]]
    for run in _extraction_failures(c):
        if run.check == "ocr" and _trusted_agency(c):
            disposition = WARN  # unreadable_scan: warn for agencies whose sender is proved, hold for others
        else:
            disposition = HOLD
        hits.append(
            Hit(run.about, disposition=disposition, text="failed", facts=_run_facts(run), evidence=run.status.value)
        )
    hits += [Hit(f.about, f.where, f.value, HOLD, "ambiguous") for f in c.findings("ambiguous")[:5]]
    for found in c.findings("uninspectable"):
        if found.value in _OTHER_RULE or _archive_of(c, found.about):
            continue
        readable = found.value in ("unreadable_scan", "garbage_text")
        vi, en = _REASONS.get(found.value, ("không rõ lý do", found.value or "unknown reason"))
        facts = _named(found.about, "what") | {"reason_vi": vi, "reason_en": en}
        disposition = WARN if readable and _trusted_agency(c) else HOLD
        hits.append(Hit(found.about, found.where, found.value, disposition, "uninspectable", facts))
    return hits


def _archives(c: Case) -> dict[str, FileFacts]:
    return {f.path: f for f in c.situation.inspection.files if f.type in ("zip", "rar", "7z", "tar", "gz")}


def _archive_of(c: Case, path: str) -> str:
    """The archive that a path is or lies in; empty when there is none."""
    archives = _archives(c)
    return path if path in archives else next((a for a in archives if path.startswith(a + "/")), "")


def _trusted_agency(c: Case) -> bool:
    return c.reading.authenticated and c.reading.official_author


_CHECKS = {
    "secrecy": ("dấu chỉ độ mật", "secrecy marks"),
    "malware": ("mã độc", "malware"),
    "signature": ("chữ ký số", "signatures"),
    "seal": ("hình con dấu", "seals"),
    "sender": ("nơi gửi", "the sender"),
    "document": ("thể thức văn bản", "document fields"),
    "ocr": ("bản quét", "scanned pages"),
    "text": ("nội dung tệp", "file text"),
    "containers": ("tệp nén", "archives"),
    "mime": ("cấu trúc thư", "message structure"),
    "inspection": ("nội dung thông điệp", "the message"),
    "frames": ("khung dấu trên bản quét", "frames on scans"),
}


def _run_facts(run: Any) -> dict[str, str]:
    vi, en = _CHECKS.get(run.check, (run.check, run.check))
    of_vi, of_en = _PLACES.get(run.about, (run.about, run.about)) if run.about else ("", "")
    return {"check_vi": vi, "check_en": en, "of_vi": of_vi, "of_en": of_en}


#: Places of a message that are no files.
_PLACES = {
    "": ("Thông điệp", "The message"),
    "subject": ("tiêu đề thư", "the subject"),
    "body": ("nội dung thư", "the body"),
    "headers": ("phần đầu thư", "the header"),
}


def _named(about: str, key: str = "file", other: str = "") -> dict[str, str]:
    """A file, or a place of the message as the beginning of a sentence, for the texts in both languages."""
    vi, en = _PLACES.get(about, (about, about))
    vi = other or vi if not about else vi
    place = about in _PLACES
    return {key: vi[:1].upper() + vi[1:] if place else vi, f"{key}_en": en[:1].upper() + en[1:] if place else en}


@rule(
    "SC-02",
    "Ba độ mật: mật, tối mật, tuyệt mật",
    "Three levels of secrecy",
    Disposition.BLOCK_SECRET,
    "N08",
    fixed=True,
    text=_SECRET,
)
def secrecy_level(c: Case) -> Answer:
    levels = [f.value for f in c.findings("secrecy", *_LEVELS) if f.grade == "strong"]
    if not levels:
        return []
    return [Hit(note=max(levels, key=_LEVELS.index))]


@rule(
    "SC-03",
    "Văn bản quy định không được gửi qua hệ thống điện tử",
    "Kinds that must not be sent electronically",
    RETURN,
    "N09",
    text=Text(
        "{file}: loại văn bản này ({item}) được quy định không gửi qua hệ thống điện tử.",
        "{file_en}: this kind of document ({item}) must not be sent electronically.",
        "Gửi bản giấy theo quy định.",
        "Send it on paper.",
    ),
)
def forbidden_kind(c: Case) -> Answer:
    kinds = c.settings.forbidden_kinds
    if not kinds:
        return "no forbidden kinds are listed"
    document = c.reading.document
    kind = document.kind.value if document and document.kind else ""
    abstract = document.abstract.value if document and document.abstract else ""
    about = f"{c.situation.inspection.message.subject}\n{abstract}"
    for item in kinds:
        if (item.kind and item.kind == kind) or (item.pattern and re.search(item.pattern, about, re.IGNORECASE)):
            name = c.reading.main.path if c.reading.main else "subject"
            return [Hit(name, facts=_named(name) | {"item": item.name}, evidence=item.name)]
    return []


@rule(
    "SC-04",
    "Thông tin mật trong tiêu đề, nội dung thư",
    "Secret information in subject or body",
    Disposition.BLOCK_SECRET,
    "N08",
    fixed=True,
    text=_SECRET,
    review=_REVIEW,
)
def secret_information(c: Case) -> Answer:
    inside = lambda about: about in _IN_MESSAGE or about.startswith("header")  # noqa: E731
    return _marks(c, strong=True, where=inside) + _marks(c, strong=False, where=inside)


# -- malware (rules.md 1.11) -----------------------------------------------------------------------------------------


_ACTIVE = {
    "macro": ("macro", "macro"),
    "javascript": ("mã JavaScript", "JavaScript"),
    "launch": ("lệnh chạy chương trình", "a command that starts a program"),
    "embedded_file": ("tệp nhúng", "an embedded file"),
    "openaction": ("hành động tự chạy khi mở", "an action on opening"),
    "richmedia": ("nội dung đa phương tiện", "rich media"),
    "xfa": ("biểu mẫu XFA", "an XFA form"),
    "executable": ("tệp thực thi", "an executable"),
    "script": ("mã lệnh", "a script"),
    "polyglot": ("một tệp đọc được thành hai loại", "a file of two kinds at once"),
    "external_link": ("liên kết tới tệp bên ngoài", "a link to an outside file"),
    "ole_object": ("đối tượng OLE", "an OLE object"),
}
_FILENAMES = {
    "rtl_override": ("có ký tự đảo chiều chữ", "it has characters that turn the reading direction"),
    "double_extension": ("hai đuôi tệp", "two extensions"),
    "path": ("có đường dẫn", "it has a path"),
    "nul": ("có ký tự rỗng", "it has a NUL"),
    "homoglyph": ("có chữ của bộ chữ khác", "it has look-alike letters"),
    "type_mismatch": ("đuôi tệp không đúng với nội dung", "the extension does not fit the content"),
    "conflict": ("thư ghi hai tên khác nhau", "the message gives two names"),
}


def _worded(words: dict[str, tuple[str, str]], value: str) -> dict[str, str]:
    vi, en = words.get(value, (value, value))
    return {"name": vi, "name_en": en}


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split(" "))


_EXECUTABLE = _types(
    "exe elf macho msi lnk js vbs vbe jse wsf wsh hta ps1 bat cmd scr dll jar iso img vhd com cpl reg apk"
)


@rule(
    "ML-01",
    "Mã độc",
    "Malware",
    Disposition.REJECT_MALWARE,
    "N17",
    fixed=True,
    text=Text(
        "{file}: phát hiện mã độc ({name}).",
        "{file_en}: malware found ({name}).",
        "Kiểm tra máy tính và báo đơn vị chuyên trách công nghệ thông tin.",
        "Have the computer checked and tell your IT unit.",
    ),
    failed=_CHECK_FAILED,
)
def malware(c: Case) -> Answer:
    hits = [
        Hit(f.about, f.where, f.evidence, facts=_named(f.about) | {"name": f.value or "malware"})
        for f in c.situation.inspection.findings
        if f.kind in ("malware", "virus")
    ]
    for run in c.situation.inspection.runs:
        if run.check == "malware" and run.status in (Status.FAILED, Status.TIMED_OUT):
            hits.append(Hit(run.about, "", run.status.value, HOLD, "failed", _run_facts(run), notice="plain"))
    return hits


@rule(
    "ML-02",
    "Tệp thực thi, nội dung động",
    "Executables and active content",
    Disposition.REJECT_MALWARE,
    "N17",
    fixed=True,
    text=Text(
        "{file}: tệp thực thi hoặc mã lệnh ({name}).",
        "{file_en}: executable or script ({name_en}).",
        "Không gửi tệp thực thi qua thư điện tử; gửi liên kết hoặc tên công cụ, tài liệu ở dạng .pdf.",
        "Do not mail executables; send a link or the tool's name, and documents as .pdf.",
    ),
    active=Text(
        "{file}: có nội dung động ({name}).",
        "{file_en}: has active content ({name_en}).",
        "Bỏ macro, mã lệnh hoặc tệp nhúng rồi gửi lại ở dạng .pdf, .docx, .xlsx.",
        "Remove macros, scripts or embedded files and send it again as .pdf, .docx or .xlsx.",
    ),
    name=Text(
        "{file}: tên tệp gây nhầm lẫn ({name}).",
        "{file_en}: misleading file name ({name_en}).",
        "Đặt lại tên tệp đúng với định dạng rồi gửi lại.",
        "Give the file a name that fits its format and send it again.",
    ),
)
def active_content(c: Case) -> Answer:
    hits, told = [], set()
    for found in c.findings("active"):
        facts = _named(found.about) | _worded(_ACTIVE, found.value)
        if found.value in ("executable", "script"):
            hits.append(Hit(found.about, found.where, found.value, facts=facts))
            told.add(found.about)
        else:
            disposition = WARN if found.value in ("external_link", "openaction") else HOLD
            hits.append(Hit(found.about, found.where, found.value, disposition, "active", facts, notice="plain"))
    for file in c.situation.inspection.files:
        if file.type in _EXECUTABLE and file.path not in told:
            hits.append(
                Hit(file.path, evidence=file.type, facts=_named(file.path) | {"name": file.type, "name_en": file.type})
            )
    for found in c.findings("filename"):
        disposition = WARN if found.value in ("path", "homoglyph", "type_mismatch") else HOLD
        facts = _named(found.about, other="Tên tệp") | _worded(_FILENAMES, found.value)
        hits.append(Hit(found.about, found.where, found.value, disposition, "name", facts, notice="plain"))
    return hits


# -- mailboxes (rules.md 1.1) ----------------------------------------------------------------------------------------

_FREE = Text(
    "Văn bản phục vụ công việc được gửi từ địa chỉ {address} không phải hộp thư công vụ.",
    "Official business was sent from {address}, which is not an official mailbox.",
    "Gửi lại từ hộp thư công vụ[[ {box}]].",
    "Send it again from the official mailbox[[ {box}]].",
)
_FREE_RECIPIENT = Text(
    "Địa chỉ nhận {address} là hộp thư miễn phí, không phải hộp thư công vụ.",
    "The recipient {address} is a free mailbox, not an official one.",
    "Gửi tới hộp thư công vụ[[ {box}]]. Nếu người nhận là công dân, doanh nghiệp: trả lời thư của họ hoặc ghi rõ "
    "“Kính gửi: Ông/Bà/Công ty …”.",
    "Send it to the official mailbox[[ {box}]]. If the recipient is a citizen or business, reply to their message or "
    "address them as “Kính gửi: Ông/Bà/Công ty …”.",
)
_NOT_ISSUED = Text(
    "Địa chỉ {address} là hộp thư miễn phí; cơ quan, cá nhân này chưa được cấp hộp thư công vụ.",
    "{address} is a free mailbox; this agency or person has no official one yet.",
    "Đề nghị cấp hộp thư công vụ.",
    "Ask for an official mailbox.",
)


def _box_text(box: Mailbox | None) -> str:
    return box.address if box is not None else ""


def _outgoing(c: Case) -> bool:
    return c.situation.direction in ("out", "internal")


@rule(
    "MB-01",
    "Sử dụng hộp thư công vụ, không dùng hộp thư miễn phí",
    "Official mailboxes, no free ones",
    RETURN,
    "N01",
    text=_FREE,
    recipient=_FREE_RECIPIENT,
    unissued=_NOT_ISSUED,
    other=Text(
        "Địa chỉ {address} không phải hộp thư công vụ.",
        "{address} is not an official mailbox.",
        "Sử dụng hộp thư công vụ[[ {box}]].",
        "Use the official mailbox[[ {box}]].",
    ),
)
def free_mailbox(c: Case) -> Answer:
    if c.settings.mailbox_ban == "none":
        return "this profile bans no mailboxes"
    return (_free_recipients(c) if _outgoing(c) else []) + _free_sender(c)


def _free_sender(c: Case) -> list[Hit]:
    r = c.reading
    if r.message_class in (MessageClass.CITIZEN_MAIL, MessageClass.SYSTEM) or r.official_author or not r.author:
        return []
    official_use = r.staff is not None or (
        r.claims_agency
        and not r.citizen_cue
        and (r.official or r.message_class not in (MessageClass.WORK_MAIL, MessageClass.OFFICIAL_DOC))
    )
    if not official_use or _exception(c, r.author):
        return []
    box = r.staff
    if box is None and r.issuer is not None:
        box = next((b for b in c.directory.mailboxes(r.issuer.id) if b.kind == "AGENCY" and b.issued(c.day)), None)
    facts = {"address": r.author, "box": _box_text(box)}
    if not r.free_author:
        return [Hit("From", evidence=r.author, disposition=WARN, text="other", facts=facts)]
    unknown = r.staff is None and r.issuer is None  # then only 003's "nếu đã được cấp phát" speaks for the sender
    issued = (box is not None and box.issued(c.day)) or (unknown and c.settings.mailbox_ban != "if_issued")
    if not issued:
        return [Hit("From", evidence=r.author, disposition=WARN, text="unissued", facts=facts)]
    return [Hit("From", evidence=r.author, facts=facts)]


def _free_recipients(c: Case) -> list[Hit]:
    r, hits = c.reading, []
    reply = bool(c.situation.inspection.message.in_reply_to or c.situation.inspection.message.references)
    for target in c.targets:
        if target.official or not target.address or _exception(c, target.address):
            continue
        staff = c.directory.owner_of_private(target.address)
        facts = {"address": target.address, "box": _box_text(staff)}
        values = {"address": target.address}
        hit = Hit("To", evidence=target.address, text="recipient", facts=facts, recipients=(target.address,))
        if staff is not None and not target.free:
            hits.append(replace(hit, disposition=WARN, text="other"))
        elif staff is not None and not staff.issued(c.day):
            hits.append(replace(hit, disposition=WARN, text="unissued"))
        elif staff is not None:
            hits.append(replace(hit, notice="N02", values=values | {"official_address": staff.address}))
        elif target.free and c.settings.free_recipients == "citizens" and not reply and not r.to_citizen:
            hits.append(replace(hit, notice="N02", values=values))
    return hits


def _exception(c: Case, address: str) -> bool:
    """MB-04: an unexpired exception that the profile knows, of an agency without mailboxes of its own."""
    if not c.settings.free_mailbox_exceptions:
        return False
    return any(
        one.expires_on >= c.day and not c.directory.has_mailbox(one.agency, c.day)
        for one in c.directory.exceptions(address)
    )


@rule(
    "MB-02",
    "Chỉ dùng hộp thư tên miền .gov.vn",
    "Only mailboxes under .gov.vn",
    RETURN,
    "N01",
    text=_FREE,
    recipient=Text(
        "Địa chỉ nhận {address} của cán bộ, cơ quan không thuộc tên miền .gov.vn.",
        "The recipient {address} is a member of staff or agency outside .gov.vn.",
        "Gửi tới hộp thư công vụ[[ {box}]].",
        "Send it to the official mailbox[[ {box}]].",
    ),
    imitation=Text(
        "Tên miền {domain} giống tên miền chính thức {official} nhưng không phải là tên miền đó.",
        "The domain {domain} looks like {official} but is not it.",
        "Kiểm tra lại địa chỉ nơi gửi trước khi xử lý.",
        "Check where the message came from.",
    ),
    mixed=Text(
        "Tên miền {domain} ghép chữ của nhiều hệ chữ viết trông giống nhau.",
        "The domain {domain} mixes letters of scripts that look alike.",
        "Kiểm tra lại địa chỉ nơi gửi trước khi xử lý.",
        "Check where the message came from.",
    ),
)
def non_official_mailbox(c: Case) -> Answer:
    hits = []
    for field_name, address in _identities(c):
        domain = address.rpartition("@")[2]
        official, way = c.directory.imitated(domain)
        if way:
            facts = {"domain": domain, "official": official}
            text = "imitation" if official else "mixed"
            hits.append(Hit(field_name, evidence=address, disposition=HOLD, text=text, facts=facts))
    if c.settings.mailbox_ban != "non_official":
        return hits or "this profile bans free mailboxes only"
    r = c.reading
    facts = {"address": r.author, "box": _box_text(r.staff)}
    ours = r.staff is not None or (r.author_agency is not None and r.author_box is not None)
    if ours and not c.directory.is_listed_official(r.author.rpartition("@")[2]):
        hits.append(Hit("From", evidence=r.author, facts=facts))
    for target in c.targets if _outgoing(c) else ():
        staff = c.directory.owner_of_private(target.address)
        if staff is not None and not c.directory.is_listed_official(target.address.rpartition("@")[2]):
            facts = {"address": target.address, "box": _box_text(staff)}
            hits.append(Hit("To", evidence=target.address, text="recipient", facts=facts, recipients=(target.address,)))
    return hits


def _identities(c: Case) -> list[tuple[str, str]]:
    m = c.situation.inspection.message
    found = [("MAIL FROM", c.situation.envelope.sender.key)]
    for name, boxes in (("From", m.from_), ("Sender", m.sender), ("Reply-To", m.reply_to)):
        found += [(name, box.address) for box in boxes if box.address]
    seen: set[str] = set()
    return [(n, a) for n, a in found if a and not (a in seen or seen.add(a))]  # type: ignore[func-returns-value]


@rule(
    "MB-03",
    "Dùng hộp thư .gov.vn nếu đã được cấp phát",
    "The .gov.vn mailbox, if one was issued",
    RETURN,
    "N01",
    text=_FREE,
)
def issued_mailbox(c: Case) -> Answer:
    r = c.reading
    if c.settings.mailbox_ban != "if_issued":
        return "this profile does not make the ban depend on issue alone"
    if r.staff is None:
        return "the sender is not a known member of staff at a private address"
    if not r.staff.issued(c.day):
        return f"no official mailbox was issued to the sender by {c.day}"
    if c.directory.is_official(r.author.rpartition("@")[2]) or _exception(c, r.author):
        return []
    return [Hit("From", evidence=r.author, facts={"address": r.author, "box": _box_text(r.staff)})]


@rule(
    "MB-04",
    "Tạm thời dùng hộp thư miễn phí tại nơi chưa đủ điều kiện",
    "Free mailbox for a time where there is no other",
    DELIVER,
    text=Text("Hộp thư miễn phí được phép dùng tạm thời.", "A free mailbox that is allowed for a time."),
    expired=Text(
        "Thời hạn tạm dùng hộp thư miễn phí {address} đã hết ngày {date}.",
        "The permission to use the free mailbox {address} ended on {date}.",
        "Sử dụng hộp thư công vụ hoặc đề nghị gia hạn.",
        "Use the official mailbox or ask for an extension.",
    ),
)
def free_mailbox_exception(c: Case) -> Answer:
    if not c.settings.free_mailbox_exceptions:
        return "this profile knows no exceptions for free mailboxes"
    addresses = [c.reading.author, *(t.address for t in c.targets if _outgoing(c))]
    for address in addresses:
        if _exception(c, address):
            return [Hit(address, note="MB-04")]
        for one in c.directory.exceptions(address):
            if one.expires_on < c.day:
                facts = {"address": address, "date": _vn(one.expires_on)}
                return [Hit(address, disposition=WARN, text="expired", facts=facts)]
    return []


@rule(
    "MB-05",
    "Văn bản chính thức gửi, nhận qua hộp thư của cơ quan",
    "Official documents go through the agency's mailbox",
    RETURN,
    "N03",
    text=Text(
        "Văn bản chính thức[[ {code}]] được gửi từ hộp thư cá nhân {address}.",
        "The official document[[ {code}]] was sent from the personal mailbox {address}.",
        "Văn thư cơ quan gửi lại từ hộp thư công vụ của cơ quan[[ {box}]].",
        "The registry sends it again from the agency's mailbox[[ {box}]].",
    ),
    recipient=Text(
        "Văn bản chính thức[[ {code}]] chỉ gửi tới hộp thư cá nhân, không có hộp thư của cơ quan.",
        "The official document[[ {code}]] went to personal mailboxes only, none of an agency.",
        "Gửi tới hộp thư công vụ của cơ quan nhận; cá nhân có thể nhận đồng gửi.",
        "Send it to the agency's mailbox; persons may get a copy.",
    ),
)
def agency_mailbox(c: Case) -> Answer:
    r = c.reading
    if not r.formal:
        return c.exempt() or "no official document: drafts and comments may go through any official mailbox"
    code = r.document.code.value if r.document and r.document.code else ""
    hits = []
    if r.author_box is not None and r.author_box.kind == "PERSONAL":
        box = next(
            (b for b in c.directory.mailboxes(r.author_box.agency) if b.kind == "AGENCY" and b.issued(c.day)), None
        )
        facts = {"code": code, "address": r.author, "box": _box_text(box)}
        hits.append(Hit("From", evidence=r.author, facts=facts))
    known = [t for t in c.targets if t.box is not None]
    if known and len(known) == len(c.targets) and all(t.box and t.box.kind == "PERSONAL" for t in known):
        hits.append(Hit("To", disposition=WARN, text="recipient", facts={"code": code}))
    return hits


@rule(
    "MB-06",
    "Thư của tổ chức, công dân, doanh nghiệp",
    "Mail of citizens and businesses",
    DELIVER,
    "N18",
    text=Text("Thư của tổ chức, công dân.", "Mail of a citizen or business."),
    claim=Text(
        "Thư từ hộp thư {address} mang danh cơ quan, cán bộ: {claim}.",
        "Mail from {address} claims to come from an agency or its staff: {claim}.",
        "Chờ Văn thư xác minh; cơ quan, cán bộ gửi lại từ hộp thư công vụ.",
        "Wait for the clerk to verify; agencies and staff send from their official mailbox.",
    ),
    reply_to=Text(
        "Địa chỉ trả lời {address} là hộp thư miễn phí, khác với nơi gửi chính thức.",
        "The reply address {address} is a free mailbox, unlike the official sender.",
        "Bỏ địa chỉ trả lời miễn phí rồi gửi lại.",
        "Remove the free reply address and send it again.",
    ),
)
def citizen_mail(c: Case) -> Answer:
    r = c.reading
    hits = []
    if r.message_class == MessageClass.CITIZEN_MAIL:
        hits.append(Hit("From", note="citizen_in"))
    elif _outgoing(c) and any(not t.official and t.agency is None for t in c.targets):
        hits.append(Hit("To", note="citizen_out"))
    if r.claims_agency and not _exception(c, r.author) and not c.situation.origin.login:
        facts = {"address": r.author, "claim": r.claims_agency}
        hits.append(Hit("From", evidence=r.claims_agency, disposition=HOLD, text="claim", facts=facts))
    if r.official_author:
        for name, address in _identities(c):
            if name in ("Reply-To", "Sender") and c.directory.is_free(address.rpartition("@")[2]):
                disposition = HOLD if r.formal else WARN
                hits.append(
                    Hit(name, evidence=address, disposition=disposition, text="reply_to", facts={"address": address})
                )
    return hits


@rule(
    "MB-08",
    "Địa chỉ thư điện tử có trong danh bạ công khai",
    "Addresses are in the published directory",
    WARN,
    text=Text(
        "Địa chỉ {address} thuộc {agency} nhưng không có trong danh bạ.",
        "{address} belongs to {agency} but is not in the directory.",
        "Cập nhật danh bạ hộp thư công vụ.",
        "Update the directory of official mailboxes.",
    ),
    revoked=Text(
        "Hộp thư {address} đã bị thu hồi ngày {date}.",
        "The mailbox {address} was revoked on {date}.",
        "Gửi từ hộp thư đang được cấp.",
        "Send from a mailbox that is in use.",
    ),
)
def known_mailbox(c: Case) -> Answer:
    r = c.reading
    if r.author_agency is None:
        return "the sender's domain belongs to no agency of the directory"
    if r.author_box is not None:
        if r.author_box.revoked_on and r.author_box.revoked_on <= c.day:
            facts = {"address": r.author, "date": _vn(r.author_box.revoked_on)}
            return [Hit("From", evidence=r.author, text="revoked", facts=facts)]
        return []
    if not c.directory.has_mailbox(r.author_agency.id, c.day):
        return "the agency has no mailboxes in the directory"
    return [Hit("From", evidence=r.author, facts={"address": r.author, "agency": r.author_agency.name})]


@rule("MB-11", "Tần suất sử dụng hộp thư công vụ", "How much official mailboxes are used", DELIVER)
def mailbox_use(c: Case) -> Answer:
    return [Hit("From", note=c.reading.author)] if c.reading.author_box is not None else []


# -- format and encoding (rules.md 1.3) ------------------------------------------------------------------------------

_SPECIAL = _types("dwg dxf shp gdb mdb accdb dicom dgn kml kmz gpkg mpp vsd vsdx skp rvt")
_PICTURES = _types("jpg jpeg png tiff tif bmp gif heic webp")
_ACCEPTED = _types("doc docx xls xlsx pdf zip rar")  # seed 002, Điều 6.2
_ASIDE = _types("p7s p7m ics tnef eml")  # parts a mail program makes, not files of the sender
_MADE = re.compile(r"ATT\d+\.(?:txt|html?)", re.IGNORECASE)  # text that Outlook and Exchange put beside files


@rule(
    "FM-01",
    "Văn bản chính thức ở định dạng .pdf",
    "Official documents are PDF",
    RETURN,
    "N04",
    text=Text(
        "Tệp {file} (định dạng nhận biết: {type}) không phải .pdf.",
        "{file} (recognised as {type}) is not a PDF.",
        "Cơ quan phát hành chuyển văn bản thành .pdf rồi gửi lại.",
        "The issuing agency converts the document to PDF and sends it again.",
    ),
    broken=Text(
        "Tệp {file} không đọc được ({reason}).",
        "{file} cannot be read ({reason}).",
        "Xuất lại tệp .pdf không đặt mật khẩu rồi gửi lại.",
        "Export the PDF again, without a password, and send it again.",
    ),
)
def pdf_only(c: Case) -> Answer:
    r = c.reading
    if not r.formal or r.main is None:
        return c.exempt() or f"no official document ({r.message_class.value})"
    if r.message_class == MessageClass.DOSSIER and c.settings.dossier_editable:
        return "a dossier's main document may be editable under this profile"
    code = r.document.code.value if r.document and r.document.code else ""
    for file in r.files:
        same = file is r.main or not code or (file.document and file.document.code and file.document.code.value == code)
        if file.type == "pdf" and same and not file.damaged and not file.encrypted:
            return []
    if r.main.type == "pdf":
        reason = "có mật khẩu" if r.main.encrypted else "bị lỗi"
        return [Hit(r.main.path, evidence=r.main.type, text="broken", facts={"file": r.main.path, "reason": reason})]
    facts = {"file": r.main.path, "type": _shown(r.main.type)}
    return [Hit(r.main.path, evidence=r.main.type, facts=facts)]


def _shown(kind: str) -> str:
    """A file type for a person."""
    return "không rõ" if kind in ("", "unknown") else kind


def _received_by_committee(c: Case) -> tuple[str, ...]:
    """Recipients to which the list of accepted formats applies: agencies or levels named by the profile."""
    wanted = c.settings.format_receivers
    return tuple(
        t.address
        for t in c.targets
        if t.agency is not None and (t.agency.id in wanted.agencies or t.agency.level in wanted.levels)
    )


def _format_hits(
    c: Case, types: Callable[[FileFacts], bool], text: str = "", disposition: Disposition | None = None
) -> Answer:
    if c.exempt():
        return c.exempt()
    receivers = _received_by_committee(c)
    if not receivers:
        return "no recipient to which the list of accepted formats applies"
    only = () if len(receivers) == len(c.targets) else receivers
    return [
        Hit(
            f.path,
            evidence=f.type,
            disposition=disposition,
            text=text,
            facts={"file": f.path, "type": _shown(f.type)},
            recipients=only,
        )
        for f in c.situation.inspection.files
        if not f.inline and types(f)
    ]


@rule(
    "FM-02",
    "Chỉ nhận .doc, .docx, .xls, .xlsx, .pdf, .zip, .rar",
    "Only .doc, .docx, .xls, .xlsx, .pdf, .zip, .rar",
    RETURN,
    "N09",
    text=Text(
        "Tệp {file} (định dạng nhận biết: {type}) không thuộc các định dạng được tiếp nhận.",
        "{file} (recognised as {type}) is not of an accepted format.",
        "Chuyển sang .doc, .docx, .xls, .xlsx, .pdf hoặc nén .zip, .rar rồi gửi lại.",
        "Convert it to .doc, .docx, .xls, .xlsx or .pdf, or pack those as .zip or .rar.",
    ),
)
def accepted_formats(c: Case) -> Answer:
    other = _ACCEPTED | _ASIDE | _SPECIAL | _PICTURES | _EXECUTABLE | {"ppt", "pptx"}
    return _format_hits(c, lambda f: f.type not in other and not _MADE.fullmatch(f.name))


@rule(
    "FM-03",
    "Tệp trình chiếu",
    "Presentations",
    WARN,
    "N09",
    text=Text(
        "Tệp trình chiếu {file}: quy chế nêu tệp trình chiếu nhưng không liệt kê đuôi {type}.",
        "Presentation {file}: the regulation names presentations but does not list {type}.",
        "Nên chuyển sang .pdf.",
        "Better send a PDF.",
    ),
)
def presentations(c: Case) -> Answer:
    return _format_hits(c, lambda f: f.type in ("ppt", "pptx", "odp"))


@rule(
    "FM-04",
    "Định dạng chuyên dụng",
    "Special formats",
    HOLD,
    "N09",
    text=Text(
        "Tệp {file} có định dạng chuyên dụng ({type}).",
        "{file} is of a special format ({type}).",
        "Ghi rõ công cụ để đọc trong thư; Văn thư sẽ xem xét. Không gửi kèm tệp thực thi.",
        "Name the tool that reads it in the message; the clerk will look at it. Do not attach executables.",
    ),
)
def special_formats(c: Case) -> Answer:
    def special(file: FileFacts) -> bool:
        return file.type in _SPECIAL or (
            file.type in ("unknown", "") and file.name.rpartition(".")[2].lower() in _SPECIAL
        )

    return _format_hits(c, special)


@rule(
    "FM-05",
    "Tài liệu chính của hồ sơ có thể chỉnh sửa, tra cứu được",
    "A dossier's main document can be edited and searched",
    WARN,
    text=Text(
        "Tài liệu chính {file} của hồ sơ chỉ là hình quét, không tra cứu toàn văn được.",
        "The dossier's main document {file} is a picture and cannot be searched.",
        "Gửi kèm bản .docx hoặc .pdf có lớp chữ.",
        "Add a .docx, or a PDF with text.",
    ),
)
def editable_dossier(c: Case) -> Answer:
    r = c.reading
    if r.message_class != MessageClass.DOSSIER or r.main is None:
        return "no dossier"
    editable = any(f.type in ("doc", "docx", "odt", "rtf") for f in r.files)
    if editable or (r.main.type == "pdf" and r.main.text_layer not in ("none", "garbage")):
        return []
    return [Hit(r.main.path, evidence=r.main.text_layer or r.main.type, facts={"file": r.main.path})]


@rule(
    "FM-06",
    "Bản quét ở định dạng .pdf",
    "Scans are PDF",
    RETURN,
    "N09",
    text=Text(
        "Bản quét {file} là tệp ảnh ({type}), không phải .pdf.",
        "The scan {file} is a picture ({type}), not a PDF.",
        "Quét lại sang .pdf rồi gửi lại.",
        "Scan it to PDF and send it again.",
    ),
)
def scanned_pictures(c: Case) -> Answer:
    if c.exempt():
        return c.exempt()
    if c.settings.format_receivers.listed:
        return _format_hits(c, lambda f: f.type in _PICTURES)
    if not c.reading.formal and c.reading.message_class not in (
        MessageClass.DOSSIER,
        MessageClass.DRAFT,
        MessageClass.COMMENT,
    ):
        return "no document"
    return [
        Hit(f.path, evidence=f.type, disposition=WARN, facts={"file": f.path, "type": f.type})
        for f in c.reading.attached
        if f.type in _PICTURES
    ]


@rule(
    "FM-07",
    "Đầy đủ tài liệu như bản giấy",
    "As complete as on paper",
    WARN,
    "N11",
    text=Text(
        "Văn bản nêu {named} phụ lục, tài liệu kèm theo nhưng chỉ có {found} tệp ngoài văn bản chính.",
        "The document names {named} annexes, but {found} files came besides it.",
        "Kiểm tra và gửi đủ tài liệu kèm theo.",
        "Check and send all annexes.",
    ),
)
def complete(c: Case) -> Answer:
    r = c.reading
    if r.document is None or not r.document.annexes_named or r.main is None:
        return "the document names no annexes"
    found = sum(1 for f in r.files if f is not r.main)
    # annexes usually sit in the document's own file: only a message that has none beside it is worth a word
    if found >= len(r.document.annexes_named) or (r.main.pages or 0) > 2:
        return []
    facts = {"named": str(len(r.document.annexes_named)), "found": str(found)}
    return [Hit(r.main.path, evidence="; ".join(r.document.annexes_named[:3]), facts=facts)]


@rule("FM-08", "Thể thức văn bản", "Form of the document", DELIVER)
def form(c: Case) -> Answer:
    if c.reading.document is None or c.reading.main is None:
        return "no document"
    return [Hit(c.reading.main.path, note=str(c.reading.document.components))]


@rule(
    "FM-09",
    "Hồ sơ gửi qua Hệ thống Gửi, nhận văn bản điện tử",
    "Dossiers go through the document exchange system",
    WARN,
    text=Text(
        "Hồ sơ điện tử được gửi bằng thư điện tử.",
        "A dossier was sent by mail.",
        "Gửi hồ sơ qua Hệ thống Gửi, nhận văn bản điện tử[[: {address}]].",
        "Send dossiers through the document exchange system[[: {address}]].",
    ),
)
def dossier_channel(c: Case) -> Answer:
    if c.reading.message_class != MessageClass.DOSSIER:
        return "no dossier"
    address = c.settings.exchange_system
    return [Hit(facts={"address": address})]


_CHARSETS = {
    "tcvn3": "TCVN3 (ABC)",
    "vni": "VNI",
    "viscii": "VISCII",
    "viqr": "VIQR",
    "mojibake": "UTF-8 bị giải mã sai",
    "undeclared": "không khai báo",
    "font": "phông cũ",
}


@rule(
    "CS-01",
    "Bộ mã ký tự tiếng Việt TCVN 6909:2001 (Unicode)",
    "Vietnamese in Unicode (TCVN 6909:2001)",
    WARN,
    "N16",
    text=Text(
        "{what} dùng bộ mã {encoding}, không phải Unicode.",
        "{what_en} uses {encoding}, not Unicode.",
        "Dùng bộ mã Unicode theo TCVN 6909:2001.",
        "Use Unicode (TCVN 6909:2001).",
    ),
)
def mail_charset(c: Case) -> Answer:
    names = {f.path for f in c.situation.inspection.files}
    return [
        Hit(
            f.about,
            f.where,
            f.value,
            facts=_named(f.about or "body", "what") | {"encoding": _CHARSETS.get(f.value, f.value)},
            values={"encoding_vi": _CHARSETS.get(f.value, f.value)},
        )
        for f in c.findings("charset")
        if f.value != "font" and (f.about not in names or f.where == "filename")
    ]


@rule(
    "CS-02",
    "Phông chữ, bộ mã của tài liệu",
    "Fonts and encoding of documents",
    WARN,
    "N16",
    text=Text(
        "Tệp {what} dùng {encoding}, không phải Unicode.",
        "{what} uses {encoding}, not Unicode.",
        "Soạn lại bằng phông Unicode (Times New Roman) theo TCVN 6909:2001.",
        "Use a Unicode font (TCVN 6909:2001).",
    ),
)
def document_charset(c: Case) -> Answer:
    hits, told = [], set()
    paths = {f.path for f in c.situation.inspection.files}
    for f in c.findings("charset"):
        if f.about in paths and f.where != "filename" and f.about not in told:
            told.add(f.about)
            hits.append(
                Hit(
                    f.about,
                    f.where,
                    f.value,
                    facts={"what": f.about, "encoding": _CHARSETS.get(f.value, f.value)},
                    values={"encoding_vi": _CHARSETS.get(f.value, f.value)},
                )
            )
    for file in c.situation.inspection.files:
        if file.fonts and file.path not in told:
            fonts = ", ".join(file.fonts[:3])
            facts = {"what": file.path, "encoding": f"phông {fonts}"}
            hits.append(Hit(file.path, evidence=fonts, facts=facts, values={"font": fonts}))
    return hits


# -- signature and seal (rules.md 1.4) -------------------------------------------------------------------------------


def _all_signatures(file: FileFacts) -> list[Any]:
    return [s for s in file.signatures if s.kind != "timestamp" and s.state != SignatureState.NO_SIGNATURE]


def _certified(c: Case) -> bool | None:
    """Had the issuing agency a certificate on the document's date? None: the directory does not know the agency."""
    r = c.reading
    if r.issuer is None:
        return None
    return r.issuer.certified(r.issued_on or c.day)


def _signable(c: Case) -> str:
    """Why signature and seal rules do not apply, or an empty string."""
    r = c.reading
    if not r.formal or r.main is None:
        return c.exempt() or f"no official document ({r.message_class.value})"
    if _all_signatures(r.main):
        return "the document is signed; SG-04 judges the signatures"
    if any(run.check == "signature" and run.about in ("", r.main.path) for run in c.situation.inspection.failed):
        return "the signature check did not finish, which SG-04 tells: nobody may be told that a signature is missing"
    return ""


@rule(
    "SG-01",
    "Ký số khi đã được cấp chứng thư số",
    "A digital signature once a certificate was issued",
    RETURN,
    "N05",
    text=Text(
        "{issuer} đã được cấp chứng thư số từ {since} nhưng văn bản[[ {code}]] chưa có chữ ký số.",
        "{issuer} has had a certificate since {since}, but the document[[ {code}]] is not signed.",
        "Ký số văn bản rồi gửi lại.",
        "Sign the document digitally and send it again.",
    ),
    expected=Text(
        "Văn bản[[ {code}]] chưa có chữ ký số của người có thẩm quyền và của cơ quan.",
        "The document[[ {code}]] is signed neither by the competent person nor by the agency.",
        "Ký số văn bản rồi gửi lại.",
        "Sign the document digitally and send it again.",
    ),
    partly=Text(
        "Văn bản[[ {code}]] thiếu chữ ký số của {missing_vi}.",
        "The document[[ {code}]] lacks the signature of {missing_en}.",
        "Bổ sung chữ ký số còn thiếu.",
        "Add the missing signature.",
    ),
)
def signature_missing(c: Case) -> Answer:
    r = c.reading
    why = _signable(c)
    code = r.document.code.value if r.document and r.document.code else ""
    if r.formal and r.main is not None and c.settings.signature == "two" and _all_signatures(r.main):
        kinds = {s.kind for s in _all_signatures(r.main)}
        if kinds & {"person", "organisation"} and len(kinds & {"person", "organisation"}) == 1:
            missing = (
                ("cơ quan, tổ chức", "the organisation")
                if "person" in kinds
                else ("người có thẩm quyền", "the competent person")
            )
            facts = {"code": code, "missing_vi": missing[0], "missing_en": missing[1]}
            return [Hit(r.main.path, disposition=WARN, text="partly", facts=facts)]
        return []
    if why:
        return why
    assert r.main is not None
    certified = _certified(c)
    if c.settings.signature == "optional":
        return "this profile does not require a signature (SG-07)"
    if certified is False:
        return "the issuing agency had no certificate on the document's date (SG-02)"
    if certified is None:
        if c.settings.signature == "two":
            return [Hit(r.main.path, text="expected", facts={"code": code})]
        return "the directory does not say whether the issuing agency has a certificate"
    assert r.issuer is not None and r.issuer.certificate is not None
    facts = {"issuer": r.issuer.name, "since": _vn(r.issuer.certificate.issued_on), "code": code}
    values = {"issuing_agency": r.issuer.name, "cert_since": facts["since"]}
    return [Hit(r.main.path, evidence="NO_SIGNATURE", facts=facts, values=values)]


@rule(
    "SG-02",
    "Hình quét con dấu và chữ ký khi chưa được cấp chứng thư số",
    "Scanned seal and signature where there is no certificate",
    RETURN,
    "N07",
    text=Text(
        "{issuer} chưa được cấp chứng thư số; tệp {file} không có hình con dấu, chữ ký.",
        "{issuer} has no certificate; no seal or signature was found on {file}.",
        "Quét màu văn bản giấy đã ký, đóng dấu, độ phân giải từ 200 dpi, rồi gửi lại.",
        "Scan the signed and sealed paper in colour, 200 dpi or more, and send it again.",
    ),
    undecidable=Text(
        "Không xác định được hình con dấu, chữ ký trên tệp {file} (bản quét đen trắng hoặc mờ).",
        "Whether {file} bears a seal and signature cannot be told (grey or faint scan).",
        "Quét màu, độ phân giải từ 200 dpi.",
        "Scan in colour, 200 dpi or more.",
    ),
    failed=_CHECK_FAILED,
)
def seal_missing(c: Case) -> Answer:
    why = _signable(c)
    if why:
        return why
    r = c.reading
    assert r.main is not None
    if c.settings.signature == "optional":
        return "this profile does not require a signature or seal (SG-07)"
    certified = _certified(c)
    if certified or (certified is None and c.settings.signature == "two"):
        return "a certificate is expected (SG-01)"
    name = r.issuer_name or "Cơ quan phát hành"
    facts = {"issuer": name, "file": r.main.path}
    if r.main.seal_state == SealState.PRESENT:
        return []
    for run in c.situation.inspection.failed:
        if run.check == "seal" and run.about in ("", r.main.path) and r.main.seal_state != SealState.ABSENT:
            return [Hit(r.main.path, disposition=WARN, text="failed", facts=_run_facts(run))]
    if r.main.seal_state != SealState.ABSENT or certified is None:
        if r.main.seal_state == SealState.NOT_CHECKED:
            return "the seal was not looked for"
        return [Hit(r.main.path, evidence=r.main.seal_state.value, disposition=WARN, text="undecidable", facts=facts)]
    return [Hit(r.main.path, evidence=r.main.seal_state.value, facts=facts)]


@rule("SG-03", "Văn bản đã ký số không phải gửi bản giấy", "No paper after a signature", DELIVER)
def no_paper(c: Case) -> Answer:
    if not c.reading.signed or c.reading.main is None:
        return "no good signature"
    return [Hit(c.reading.main.path, note="not_required")]


_STATES = {
    SignatureState.VALID: "hợp lệ",
    SignatureState.VALID_UNTIMESTAMPED: "hợp lệ (thời điểm ký chưa được xác nhận bằng dấu thời gian)",
    SignatureState.UNKNOWN_REVOCATION: "chưa kiểm tra được tình trạng thu hồi",
    SignatureState.EXPIRED_AT_SIGNING: "chứng thư hết hạn tại thời điểm ký",
    SignatureState.REVOKED: "chứng thư bị thu hồi",
    SignatureState.UNTRUSTED_CHAIN: "không xác định được đường dẫn tin cậy",
    SignatureState.TAMPERED: "nội dung bị thay đổi sau khi ký",
    SignatureState.PARTIAL_COVERAGE: "chữ ký không bao trùm toàn bộ tài liệu",
    SignatureState.WEAK_ALGORITHM: "thuật toán không an toàn",
    SignatureState.SUBJECT_MISMATCH: "chủ thể ký không thuộc cơ quan ban hành",
    SignatureState.NO_SIGNATURE: "không có chữ ký số",
    SignatureState.ERROR: "không kiểm tra được chữ ký",
}
#: rules.md 1.4. An error is a check that failed, not a signature that failed.
_ANSWERS = {
    SignatureState.TAMPERED: RETURN,
    SignatureState.REVOKED: RETURN,
    SignatureState.EXPIRED_AT_SIGNING: RETURN,
    SignatureState.UNTRUSTED_CHAIN: HOLD,
    SignatureState.SUBJECT_MISMATCH: HOLD,
    SignatureState.PARTIAL_COVERAGE: HOLD,
    SignatureState.WEAK_ALGORITHM: HOLD,
    SignatureState.UNKNOWN_REVOCATION: WARN,
    SignatureState.ERROR: WARN,
}


@rule(
    "SG-04",
    "Chữ ký số hợp lệ theo bốn điều kiện",
    "Signatures meet the four conditions",
    RETURN,
    "N06",
    text=Text(
        "Chữ ký số trên tệp {file}: {state_vi}. Chủ thể ký: {signer}; cơ quan cấp chứng thư: {issuer}.",
        "Signature on {file}: {state}. Signer: {signer}; issuer: {issuer}.",
        "Kiểm tra, ký lại và gửi lại văn bản.",
        "Check it, sign again and send it again.",
    ),
    removed=Text(
        "Tệp {file} có dấu vết chữ ký số đã bị gỡ bỏ.",
        "{file} shows traces of a removed signature.",
        "Gửi lại bản gốc đã ký.",
        "Send the signed original.",
    ),
    failed=_CHECK_FAILED,
)
def signature_valid(c: Case) -> Answer:
    hits = []
    for file in c.situation.inspection.files:
        for signature in _all_signatures(file):
            if signature.state in GOOD:
                continue
            facts = {
                "file": file.path,
                "state": signature.state.value,
                "state_vi": signature.reason_vi or _STATES[signature.state],
                "signer": signature.signer or "không rõ",
                "issuer": signature.issuer or "không rõ",
            }
            hits.append(Hit(file.path, signature.field, signature.state.value, _ANSWERS[signature.state], facts=facts))
        if file.signature_removed:
            hits.append(Hit(file.path, "", "removed", HOLD, "removed", {"file": file.path}))
    for run in c.situation.inspection.failed:
        if run.check == "signature":
            hits.append(Hit(run.about, "", run.status.value, WARN, "failed", _run_facts(run)))
    return hits


@rule("SG-05", "Chữ ký số cá nhân", "Personal signature", DELIVER)
def personal_signature(c: Case) -> Answer:
    main = c.reading.main
    if main is None:
        return "no document"
    return [Hit(main.path, note="person") for s in main.signatures if s.kind == "person" and s.state in GOOD][:1]


@rule(
    "SG-06",
    "Chữ ký của người có thẩm quyền quản lý, sử dụng con dấu",
    "Signed by whom the seal belongs to",
    HOLD,
    "N06",
    text=Text(
        "Chữ ký số trên tệp {file} ({signer}) không thuộc {issuer}.",
        "The signature on {file} ({signer}) does not belong to {issuer}.",
        "Ký lại bằng chứng thư số của cơ quan ban hành, hoặc chờ Văn thư xác minh.",
        "Sign with a certificate of the issuing agency, or wait for the clerk to verify.",
    ),
    trust=Text(
        "Chữ ký số trên tệp {file} dùng chứng thư công cộng, không phải chữ ký số chuyên dùng công vụ.",
        "The signature on {file} uses a public certificate, not one for state agencies.",
        "Dùng chữ ký số chuyên dùng công vụ.",
        "Use a certificate for state agencies.",
    ),
)
def authorised_signer(c: Case) -> Answer:
    r = c.reading
    if r.main is None or not r.signed:
        return "no good signature"
    if r.issuer is None:
        return "the issuing agency is not in the directory"
    day = r.issued_on or c.day
    known = {s.casefold() for s in (r.issuer.certificate.subjects if r.issuer.certificate else ())}
    for signer in r.issuer.signers:
        if (not signer.valid_from or signer.valid_from <= day) and (not signer.valid_to or day <= signer.valid_to):
            known |= {s.casefold() for s in signer.subjects}
    good = [s for s in r.main.signatures if s.state in GOOD and s.kind != "timestamp"]
    hits = []
    if known and not any(known & {i.casefold() for i in (*s.subject_ids, s.subject)} for s in good):
        facts = {"file": r.main.path, "signer": good[0].signer or good[0].organisation, "issuer": r.issuer.name}
        hits.append(Hit(r.main.path, good[0].field, SignatureState.SUBJECT_MISMATCH.value, facts=facts))
    if good and all(s.trust == "quoc_gia" for s in good):
        hits.append(Hit(r.main.path, good[0].field, "quoc_gia", WARN, "trust", {"file": r.main.path}))
    return hits or ([] if known else "the directory lists no certificate subjects of the issuing agency")


@rule(
    "SG-07",
    "Không nhất thiết có chữ ký điện tử nếu xác thực được nguồn gốc",
    "No signature needed where origin is proved",
    WARN,
    text=Text(
        "Văn bản {file} chưa ký số; được chấp nhận vì xác thực được nơi gửi.",
        "{file} is not signed; it is accepted because its origin is proved.",
        "Nên ký số văn bản.",
        "Better sign the document.",
    ),
)
def signature_optional(c: Case) -> Answer:
    if c.settings.signature != "optional":
        return "this profile has no such exception"
    why = _signable(c)
    if why:
        return why
    assert c.reading.main is not None
    if not _trusted_agency(c):
        return "the sender is not proved (SG-08)"
    return [Hit(c.reading.main.path, evidence="NO_SIGNATURE", facts={"file": c.reading.main.path})]


@rule(
    "SG-08",
    "Kiểm tra xác thực nơi gửi và toàn vẹn",
    "Origin and integrity are checked",
    HOLD,
    "N18",
    text=Text(
        "Chưa xác thực được nơi gửi của văn bản ({author}) và văn bản không có chữ ký số hợp lệ.",
        "Where the document came from ({author}) is not proved, and it has no good signature.",
        "Gửi từ hộp thư công vụ qua máy chủ thư của cơ quan, hoặc ký số văn bản.",
        "Send it from the official mailbox through the agency's mail server, or sign it.",
    ),
    forged=Text(
        "Nơi gửi {author} không qua được kiểm tra xác thực ({results}).",
        "The sender {author} failed authentication ({results}).",
        "Gửi qua máy chủ thư chính thức của cơ quan.",
        "Send it through the agency's own mail server.",
    ),
    failed=_CHECK_FAILED,
)
def origin_proved(c: Case) -> Answer:
    r, s = c.reading, c.situation.inspection.sender
    hits = []
    for run in c.situation.inspection.failed:
        if run.check in ("sender", "document"):
            hits.append(Hit(run.about, "", run.status.value, WARN, "failed", _run_facts(run)))
    if c.situation.direction != "in" or r.authenticated:
        return hits
    results = ", ".join(f"{k}={v}" for k, v in (("spf", s.spf), ("dkim", s.dkim), ("dmarc", s.dmarc)) if v)
    if s.dmarc == "fail" and r.official_author:
        hits.append(Hit("From", evidence=results, text="forged", facts={"author": r.author, "results": results}))
    elif r.formal and not r.signed and r.official_author and (s.spf == "fail" or c.settings.signature == "optional"):
        hits.append(Hit("From", evidence=results, facts={"author": r.author}))
    return hits


@rule(
    "SG-09",
    "Nội dung mã hóa",
    "Encrypted content",
    HOLD,
    "N18",
    fixed=True,
    text=Text(
        "{file} được mã hóa nên không kiểm tra được.",
        "{file_en} is encrypted and cannot be inspected.",
        "Gửi bản không mã hóa, hoặc thỏa thuận tuyến gửi mã hóa với Văn thư.",
        "Send it unencrypted, or agree on an encrypted route with the clerk.",
    ),
)
def encrypted(c: Case) -> Answer:
    hits = [
        Hit(f.about, f.where, f.value, facts=_named(f.about))
        for f in c.findings("uninspectable", *_OTHER_RULE)
        if not _archive_of(c, f.about)
    ]
    told = {h.about for h in hits}
    for file in c.situation.inspection.files:
        if file.encrypted and file.path not in told and not _archive_of(c, file.path):
            hits.append(Hit(file.path, evidence="encrypted", facts=_named(file.path)))
    return hits


# -- grouping and archives (rules.md 1.5) ----------------------------------------------------------------------------


@rule(
    "AR-01",
    "Nhóm và nén nhiều tệp thành một tệp",
    "Many files are packed into one",
    WARN,
    "N11",
    text=Text(
        "Hồ sơ có {count} tệp rời.",
        "The dossier has {count} loose files.",
        "Nén các tệp thành một tệp .zip hoặc .rar, tên như tên tài liệu chính.",
        "Pack them into one .zip or .rar named like the main document.",
    ),
)
def packed(c: Case) -> Answer:
    if c.reading.message_class != MessageClass.DOSSIER:
        return "no dossier"
    count = len(c.reading.attached)
    return [Hit(evidence=str(count), facts={"count": str(count)})] if count > c.settings.loose_files else []


def _stem(name: str) -> str:
    stem = re.sub(r"\.(?:zip|rar|7z|pdf|docx?|xlsx?|pptx?|odt|rtf)$", "", name.strip(), flags=re.IGNORECASE)
    return re.sub(r"[\s_-]+", " ", re.sub(r"\.signed$", "", stem, flags=re.IGNORECASE)).strip()


@rule(
    "AR-02",
    "Tên tệp nén như tên tài liệu chính",
    "The archive is named like the main document",
    WARN,
    "N10",
    text=Text(
        "Tên tệp nén {file} không trùng tên tài liệu nào bên trong.",
        "The archive {file} is named like none of the documents in it.",
        "Đặt tên tệp nén như tên tài liệu chính.",
        "Name the archive like the main document.",
    ),
)
def archive_name(c: Case) -> Answer:
    archives = [f for f in c.reading.attached if f.type in ("zip", "rar") and f.files]
    if not archives:
        return "no archive"
    hits = []
    for archive in archives:
        inside = {padded(_stem(path.rpartition("/")[2])) for path in archive.files}
        if padded(_stem(archive.name)) not in inside:
            hits.append(Hit(archive.path, facts={"file": archive.path}))
    return hits


#: The end of an entry of a file list: extension, then size. Its name is what stands before in the line.
_LISTED = re.compile(
    r"\.(?:pdf|docx?|xlsx?|zip|rar|pptx?)(?P<gap>[\s|;:,(–-]{1,40})(?P<size>\d+(?:[.,]\d+)?)\s*"
    r"(?P<unit>KiB|MiB|KB|MB|GB|bytes|byte|B)\b",
    re.IGNORECASE,
)
#: What parts a name from what stands before it in the line; a number, dash or bullet before it is not part of it.
_BEFORE_NAME = re.compile(r"[\n|;:*?\"<>\t]|,\s")
_ORDINAL = re.compile(r"^\s*(?:\(?\d{1,3}\s*[.)/]\s+|[-+•–]\s*)")


def _listed(text: str) -> list[tuple[str, str, str]]:
    """Name, size and unit of every entry of a list in the body. Linear in the text."""
    found = []
    for match in _LISTED.finditer(text):
        head = text[max(0, match.start() - 160) : match.start("gap")]
        end = max((one.end() for one in _BEFORE_NAME.finditer(head)), default=0)
        name = _ORDINAL.sub("", head[end:]).strip()
        if name.rpartition(".")[0]:
            found.append((name, match["size"], match["unit"]))
    return found


@rule(
    "AR-03",
    "Danh mục tài liệu có tên và kích thước tệp",
    "A list of files with names and sizes",
    WARN,
    "N11",
    text=Text(
        "Hồ sơ có nhiều tài liệu nhưng không có danh mục tên, kích thước các tệp.",
        "The dossier has several files but no list of names and sizes.",
        "Ghi danh mục tên tệp, kích thước trong nội dung thư hoặc trong một tệp “danh mục”.",
        "List names and sizes in the message or in a file “danh mục”.",
    ),
    wrong=Text(
        "Tệp {file} nêu trong danh mục: {reason_vi}.",
        "{file}, named in the list: {reason_en}.",
        "Gửi lại đủ tài liệu đúng như danh mục.",
        "Send all files as listed.",
    ),
)
def file_list(c: Case) -> Answer:
    r = c.reading
    if r.message_class != MessageClass.DOSSIER:
        return "no dossier with several annexes"
    # the list stands in the body; a list inside a file is not compared, only noticed
    listed = _listed(c.situation.inspection.message.body_text)
    if len(r.files) < 3 and len(listed) < 2:  # a list counts also when it is the annexes that are missing
        return "no dossier with several annexes"
    if not listed:
        if any(
            has(padded(f.name.replace("_", " ")), (" danh muc ", f" {padded('danh mục').strip()} ")) for f in r.files
        ):
            return []
        return [Hit("body")]
    present = {padded(f.name).strip(): f for f in (*r.files, *r.attached)}
    hits = []
    values = {"n_listed": str(len(listed)), "n_found": str(len(r.files))}
    for name, size, unit in listed:
        file = present.get(padded(name).strip()) or next(
            (f for key, f in present.items() if padded(name).strip().endswith(f" {key}")), None
        )
        if file is None:
            facts = {"file": name, "reason_vi": "không có trong thư", "reason_en": "not in the message"}
            hits.append(Hit(name, "danh mục", "missing", RETURN, "wrong", facts, values=values | {"list": name}))
        elif not _size_fits(file.size, size, unit):
            facts = {
                "file": name,
                "reason_vi": f"kích thước thực tế {file.size} byte",
                "reason_en": f"its size is {file.size} bytes",
            }
            stated = f"{size} {unit}"
            hits.append(Hit(name, "danh mục", stated, RETURN, "wrong", facts, values=values | {"list": name}))
    return hits


def _size_fits(actual: int, stated: str, unit: str) -> bool:
    """Within 5 % or 1 KiB, counting in 1000 or 1024 (rules.md AR-03)."""
    value = float(stated.replace(",", "."))
    power = {"k": 1, "m": 2, "g": 3}.get(unit[0].lower(), 0)
    decimals = len(stated.replace(",", ".").partition(".")[2])
    rounding = 0.5 * 10**-decimals
    return any(
        abs(actual - value * base**power) <= max(0.05 * actual, 1024, rounding * base**power) for base in (1000, 1024)
    )


@rule(
    "AR-04",
    "Tệp nén kiểm tra được",
    "Archives can be inspected",
    HOLD,
    "N10",
    fixed=True,
    text=Text(
        "Tệp nén {file}: {reason_vi}, không kiểm tra được.",
        "The archive {file} cannot be inspected: {reason_en}.",
        "Nén lại dạng .zip hoặc .rar không đặt mật khẩu, không lồng nhiều lớp, rồi gửi lại.",
        "Pack it again as .zip or .rar without a password, not nested, and send it again.",
    ),
)
def archive_open(c: Case) -> Answer:
    archives = _archives(c)
    if not archives:
        return "no archive"
    locked = RETURN if c.settings.encrypted_archive == "return" else HOLD
    reasons: dict[str, tuple[str, Disposition]] = {}
    for file in c.situation.inspection.files:
        owner = _archive_of(c, file.path)
        if owner and file.encrypted:
            reasons[owner] = ("encrypted", locked)
        elif file.path in archives and file.damaged:
            reasons.setdefault(file.path, ("damaged", HOLD))
    for found in c.findings("uninspectable"):
        owner = _archive_of(c, found.about)
        if owner and found.value in _OTHER_RULE:
            reasons[owner] = ("encrypted", locked)
        elif owner:
            reasons.setdefault(owner, (found.value if found.value in _REASONS else "unknown_container", HOLD))
    return [
        Hit(
            path,
            evidence=value,
            disposition=disposition,
            facts={"file": path, "reason_vi": _REASONS[value][0], "reason_en": _REASONS[value][1]},
            values={"reason": f"{_REASONS[value][0]}, không kiểm tra được.", "reason_en": f"{_REASONS[value][1]}."},
        )
        for path, (value, disposition) in reasons.items()
    ]


@rule(
    "AR-05",
    "Hồ sơ không đủ, không đúng bị trả lại",
    "Incomplete dossiers are returned",
    RETURN,
    "N11",
    text=Text(
        "Hồ sơ trình không có tài liệu chính (tờ trình, công văn).",
        "The dossier has no main document (proposal or letter).",
        "Gửi đủ tờ trình hoặc công văn cùng tài liệu kèm theo.",
        "Send the proposal or letter with its annexes.",
    ),
)
def dossier_complete(c: Case) -> Answer:
    r = c.reading
    if r.message_class != MessageClass.DOSSIER:
        return "no dossier"
    if r.main is not None or c.situation.inspection.failed:
        return []
    return [Hit()]


@rule(
    "AR-06",
    "Cơ quan chỉ nhận hồ sơ điện tử",
    "Agencies that require electronic filing",
    DELIVER,
    text=Text("Cơ quan nhận yêu cầu gửi điện tử.", "The receiving agency requires electronic filing."),
)
def electronic_required(c: Case) -> Answer:
    wanting = [t for t in c.targets if t.agency is not None and t.agency.require_electronic]
    return [Hit("To", note=t.agency.id, recipients=(t.address,)) for t in wanting if t.agency]


@rule(
    "AR-07",
    "Không gửi văn bản nội bộ cho UBND tỉnh",
    "No internal papers to the provincial committee",
    RETURN,
    "N12",
    text=Text(
        "{file} là văn bản nội bộ.",
        "{file_en} is an internal paper.",
        "Không gửi văn bản nội bộ cho Ủy ban nhân dân tỉnh.",
        "Do not send internal papers to the provincial committee.",
    ),
)
def internal_paper(c: Case) -> Answer:
    r = c.reading
    receivers = tuple(
        t.address
        for t in c.targets
        if t.agency is not None
        and t.agency.level == "province"
        and (r.author_agency is None or r.author_agency.id != t.agency.id)
    )
    if not receivers:
        return "no recipient at a provincial committee other than the sender's own"
    files = [f.path for f in r.files if f.document is not None and f.document.internal]
    files += [f.about for f in c.findings("circulation", "internal") if f.about not in files]
    only = () if len(receivers) == len(c.targets) else receivers
    return [Hit(path, evidence="internal", facts=_named(path), recipients=only) for path in files]


# -- delivery lists (rules.md 1.6) -----------------------------------------------------------------------------------


@rule(
    "DL",
    "Văn bản cần gửi kèm bản giấy",
    "Documents that also go on paper",
    WARN,
    "N15",
    text=Text(
        "Văn bản[[ {code}]] thuộc loại gửi đồng thời bản điện tử và bản giấy ({item}).",
        "The document[[ {code}]] goes both electronically and on paper ({item}).",
        "Gửi bản giấy theo quy định.",
        "Send the paper copy as well.",
    ),
)
def paper_due(c: Case) -> Answer:
    if c.delivery.mode != "electronic_and_paper":
        return f"delivery mode {c.delivery.mode}"
    if c.delivery.item == "mode_line":
        return "the document itself says that paper follows"
    if not _outgoing(c):
        return "only our own senders are reminded"
    code = c.reading.document.code.value if c.reading.document and c.reading.document.code else ""
    return [
        Hit(
            c.reading.main.path if c.reading.main else "",
            evidence=c.delivery.item,
            facts={"code": code, "item": c.delivery.item_vi},
            rule=c.delivery.item,
            values={"list_item_vi": c.delivery.item_vi},
        )
    ]


@rule(
    "DL-HT-C",
    "Văn bản xin góp ý có đủ số, ngày, người ký",
    "Requests for comment carry number, date and signer",
    WARN,
    text=Text(
        "Văn bản gửi xin góp ý thiếu {missing}.",
        "A request for comment lacks {missing}.",
        "Điền đủ số, ngày, tháng, năm ban hành và người ký.",
        "Fill in number, date and signer.",
    ),
)
def comment_request(c: Case) -> Answer:
    r = c.reading
    if r.message_class != MessageClass.COMMENT or r.main is None or r.document is None:
        return "no request for comment"
    missing = [
        name
        for name, value in (
            ("số, ký hiệu", r.document.code),
            ("ngày, tháng, năm", r.document.date),
            ("người ký", r.document.signer),
        )
        if value is None
    ]
    return [Hit(r.main.path, facts={"missing": ", ".join(missing)})] if missing else []


# -- time (rules.md 1.7) ---------------------------------------------------------------------------------------------


def _vn(day: dt.date) -> str:
    return f"{day:%d/%m/%Y}"


def _moment(value: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=VIETNAM)


_HOUR = r"(?P<hour>\d{1,2})\s*(?:giờ|h|g|:)\s*(?P<minute>\d{2})?(?:\s*phút)?"
_DATE = r"ngày\s+(?P<day>\d{1,2})(?:\s*[/.-]\s*|\s+tháng\s+)(?P<month>\d{1,2})(?:\s*[/.-]\s*|\s+năm\s+)(?P<year>\d{4})"
_BETWEEN = r"[^\d\n]{0,40}?"
#: `08 giờ 00, ngày 15/6/2014`, `8h30 sáng thứ Hai, ngày 15 tháng 6 năm 2014`, or the date first.
_STARTS = tuple(
    re.compile(pattern, re.IGNORECASE) for pattern in (f"{_HOUR}{_BETWEEN}{_DATE}", f"{_DATE}{_BETWEEN}{_HOUR}")
)


def _told_start(body: str) -> dt.datetime | None:
    """The start of the meeting as the text tells it: the first hour with a date."""
    found = [match for one in _STARTS if (match := one.search(body[:8000]))]
    for match in sorted(found, key=lambda one: one.start()):
        year, month, day, hour = (int(match[name]) for name in ("year", "month", "day", "hour"))
        afternoon = hour < 12 and re.search(r"\b(?:chiều|tối)\b", match[0], re.IGNORECASE)
        try:
            return dt.datetime(
                year, month, day, hour + 12 if afternoon else hour, int(match["minute"] or 0), tzinfo=VIETNAM
            )
        except ValueError:
            continue
    return None


_CHAIR = re.compile(r"\bchủ\s+trì\b", re.IGNORECASE)
_COMMITTEE_CHAIR = re.compile(
    r"(?:chủ tịch|phó chủ tịch|lãnh đạo|đ/c pct|pct|đ/c ct)\s*,?\s*(?:ubnd|[uủ][yỷ] ban nhân dân|tỉnh)"
    r"|ubnd tỉnh\W+(?:\w+\W+){0,6}chủ trì",
    re.IGNORECASE,
)


@rule(
    "TM-01",
    "Tài liệu họp gửi trước 24 giờ",
    "Meeting papers 24 hours before",
    WARN,
    "N13",
    text=Text(
        "Cuộc họp bắt đầu lúc {start}; tài liệu gửi trước khi họp {hours}, chậm hơn mức 24 giờ.",
        "The meeting starts at {start}; the papers came {hours_en} before, less than 24 hours.",
        "Gửi tài liệu họp trước khi họp 24 giờ.",
        "Send meeting papers 24 hours ahead.",
    ),
    past=Text(
        "Cuộc họp đã bắt đầu lúc {start}; tài liệu gửi sau đó.",
        "The meeting started at {start}, before the papers came.",
        "Gửi tài liệu họp trước khi họp 24 giờ.",
        "Send meeting papers 24 hours ahead.",
    ),
)
def meeting_papers(c: Case) -> Answer:
    r, m = c.reading, c.situation.inspection.message
    if r.message_class != MessageClass.MEETING_MATERIAL:
        return "no meeting papers"
    start = c.situation.history.meeting_start or _moment(m.meeting_start) or _told_start(m.body_text)
    if start is None:
        return "the start of the meeting is not known"
    text = f"{m.subject}\n{m.body_text[:4000]}"
    chaired = c.situation.history.meeting_chaired_by_committee
    if chaired is None and _CHAIR.search(text):
        chaired = bool(_COMMITTEE_CHAIR.search(text))
    lead = start - c.situation.at
    if chaired is False:
        return "the meeting is not chaired by the committee: counted only"
    if lead >= dt.timedelta(hours=24):
        return []
    shown = f"{start.astimezone(VIETNAM):%H:%M ngày %d/%m/%Y}"
    late = lead < dt.timedelta()
    whole, minutes = divmod(int(abs(lead).total_seconds()) // 60, 60)
    told = {"hours": f"{whole} giờ {minutes:02} phút", "hours_en": f"{whole} hours {minutes:02} minutes"}
    facts = {"start": shown, **told}
    values = {"meeting_start": shown} | ({} if late else told)
    evidence = f"{lead.total_seconds() / 3600:.1f}".replace(".", ",")
    return [Hit("meeting", evidence=evidence, text="past" if late else "", facts=facts, values=values)]


_OFFICES = tuple(
    name_key(f"Văn phòng {name} {level}") for name in ("Ủy ban nhân dân", "UBND") for level in ("tỉnh", "thành phố")
)


@rule(
    "TM-02",
    "Lịch làm việc gửi trước khi đăng website ít nhất một giờ",
    "Work calendar one hour before it is published",
    WARN,
    text=Text(
        "Lịch làm việc gửi lúc {sent}, chưa đủ một giờ trước khi đăng website ({published}).",
        "The work calendar was sent at {sent}, less than an hour before publication ({published}).",
        "Gửi lịch làm việc ít nhất một giờ trước khi đăng.",
        "Send the calendar at least an hour before it is published.",
    ),
)
def work_calendar(c: Case) -> Answer:
    if c.reading.message_class != MessageClass.WORK_CALENDAR:
        return "no work calendar"
    times = c.situation.history.calendar_publications
    if not times:
        return "no time of publication is known"
    agency = c.reading.author_agency
    if agency is not None and agency.level != "province" and not name_key(agency.name).startswith(_OFFICES):
        return "not the calendar of the province's committee"
    nearest = min(times, key=lambda t: abs(t - c.situation.at))
    if nearest - c.situation.at >= dt.timedelta(hours=1):
        return []
    facts = {
        "sent": f"{c.situation.at.astimezone(VIETNAM):%H:%M %d/%m/%Y}",
        "published": f"{nearest.astimezone(VIETNAM):%H:%M %d/%m/%Y}",
    }
    return [Hit("calendar", facts=facts)]


_LIMITS = {
    "trong ngày": "the same day",
    "chậm nhất trong ngày làm việc tiếp theo": "at the latest on the next working day",
}


def next_working_day(day: dt.date, holidays: Iterable[dt.date]) -> dt.date:
    """The first day after `day` that is neither Saturday, Sunday nor a holiday."""
    off = frozenset(holidays)
    day += dt.timedelta(days=1)
    while day.weekday() >= 5 or day in off:
        day += dt.timedelta(days=1)
    return day


@rule(
    "TM-03",
    "Gửi văn bản trong ngày ký",
    "Documents go out on the day they are signed",
    WARN,
    "N14",
    text=Text(
        "Văn bản[[ {code}]] ký ngày {signed}, gửi ngày {sent}.",
        "The document[[ {code}]] was signed on {signed} and sent on {sent}.",
        "Gửi văn bản điện tử ngay sau khi ký, {limit}.",
        "Send documents right after signing, {limit_en}.",
    ),
    future=Text(
        "Văn bản[[ {code}]] ghi ngày {signed}, sau ngày gửi {sent}.",
        "The document[[ {code}]] bears the date {signed}, after the day it was sent, {sent}.",
        "Kiểm tra ngày ký của văn bản.",
        "Check the date of the document.",
    ),
)
def same_day(c: Case) -> Answer:
    r = c.reading
    if not r.formal or r.issued_on is None or r.main is None:
        return c.exempt() or "no official document with a date"
    if c.settings.dispatch == "none":
        return "this profile sets no time limit for sending"
    code = r.document.code.value if r.document and r.document.code else ""
    facts = {"code": code, "signed": _vn(r.issued_on), "sent": _vn(c.day), "limit": "trong ngày"}
    if r.issued_on > c.day:
        return [Hit(r.main.path, evidence=str(r.issued_on), text="future", facts=facts, notice="plain")]
    if r.issued_on == c.day:
        return []
    soft = c.day <= next_working_day(r.issued_on, {*c.settings.holidays, *c.directory.holidays})
    if soft and c.settings.dispatch == "next_working_day" and not r.urgency:
        return []
    if c.settings.dispatch == "next_working_day" and not r.urgency:
        facts["limit"] = "chậm nhất trong ngày làm việc tiếp theo"
    values = {"limit": facts["limit"], "limit_en": _LIMITS[facts["limit"]]}
    return [Hit(r.main.path, evidence="late_soft" if soft else "late", facts=facts | values, values=values)]


@rule("TM-04", "Tin nhắn công vụ cho văn bản hỏa tốc", "Text message for very urgent documents", DELIVER)
def urgent_message(c: Case) -> Answer:
    if not c.reading.urgency:
        return "not urgent"
    if not _trusted_agency(c):
        return "the sender is not a proved official one"
    return [Hit(note=c.reading.urgency)]  # alerts.py tells the leaders, from the level that gateway.yaml names


@rule("TM-05", "Văn bản khẩn được xử lý trước", "Urgent documents go first", DELIVER)
def urgent_first(c: Case) -> Answer:
    return [Hit(note=c.reading.urgency)] if c.reading.urgency else []


@rule("TM-06", "Văn bản khẩn gửi điện tử", "Urgent documents go electronically", DELIVER)
def urgent_electronic(c: Case) -> Answer:
    if not c.reading.urgency:
        return "not urgent"
    return [Hit(note=c.delivery.mode)]


#: TM-07 and TM-08 are not judged by a function of their own: policy.py adds them when it weakens a hit because the
#: mandatory date of the level (TM-07) or of the agency (TM-08) has not come.
for _id, _vi_title, _en_title in (
    ("TM-07", "Thời điểm bắt buộc theo cấp cơ quan", "Mandatory from a date set for the agency's level"),
    ("TM-08", "Thời điểm bắt buộc do cấp huyện quy định", "Mandatory from a date set by the district"),
):
    CATALOGUE[_id] = Rule(
        _id,
        _vi_title,
        _en_title,
        WARN,
        "",
        lambda _: "no finding was weakened because of a date",
        {
            "": Text(
                "Quy định {rules} bắt buộc đối với {agency} từ ngày {date}; trước ngày đó chỉ nhắc.",
                "Mandatory for {agency} from {date}: {rules}; until then only a reminder is given.",
                "Chuẩn bị thực hiện từ ngày {date}.",
                "Be ready by {date}.",
            ),
            "open": Text(
                "Chưa quy định thời điểm bắt buộc thực hiện {rules} đối với {agency}; hiện chỉ nhắc.",
                "No date is set from which {rules} are mandatory for {agency}; only a reminder is given.",
            ),
        },
    )


@rule(
    "TM-11",
    "Chuyển sang cổng thông tin văn bản liên thông",
    "Official documents move to the exchange portal",
    WARN,
    text=Text(
        "Từ ngày {date} văn bản chính thức gửi qua cổng thông tin văn bản liên thông.",
        "Since {date} official documents go through the exchange portal.",
        "Gửi văn bản qua cổng liên thông.",
        "Send it through the portal.",
    ),
)
def portal(c: Case) -> Answer:
    date = c.settings.portal_from
    if date is None:
        return "no date is set for the portal"
    if not c.reading.formal:
        return "no official document"
    return [Hit(facts={"date": _vn(date)})] if c.day >= date else []


# -- register (rules.md 1.8) -----------------------------------------------------------------------------------------


@rule(
    "RG-05",
    "Số văn bản trùng nhưng nội dung khác",
    "A document number used twice with different content",
    HOLD,
    "N18",
    text=Text(
        "Số {code} của {issuer} đã có trong kho lưu với nội dung khác (mã {case}).",
        "Number {code} of {issuer} is already in the archive with other content (case {case}).",
        "Kiểm tra số văn bản; nếu thay thế, đính chính thì gửi kèm văn bản thông báo.",
        "Check the number; a replacement or correction needs a letter that says so.",
    ),
)
def number_twice(c: Case) -> Answer:
    r = c.reading
    if r.document is None or r.document.code is None or r.main is None or not c.situation.history.documents:
        return "no document of the same number is known"
    year = str(r.issued_on.year) if r.issued_on else ""
    for known in c.situation.history.documents:
        same_issuer = not known.issuer or not r.issuer_name or padded(known.issuer) == padded(r.issuer_name)
        same_year = not year or not known.date or known.date.startswith(year)
        if same_issuer and same_year and not known.recalled and not _one_document(known, r.main):
            facts = {"code": r.document.code.value, "issuer": r.issuer_name or "cơ quan phát hành", "case": known.case}
            return [Hit(r.main.path, evidence=known.case, facts=facts)]
    return []


def _one_document(known: KnownDocument, file: FileFacts) -> bool:
    """The same bytes, or the same signed bytes with more signatures on one or both: what the next signer has added is
    judged by the signature rules."""
    mine = {file.sha256, *(one.revision for one in file.signatures if one.revision)}
    return not mine.isdisjoint({known.content, *known.revisions})


@rule(
    "RG-06",
    "Văn bản đã thu hồi",
    "Recalled documents",
    WARN,
    text=Text(
        "Văn bản[[ {code}]] đã bị thu hồi (mã {case}).",
        "The document[[ {code}]] was recalled (case {case}).",
        "Không sử dụng văn bản đã thu hồi.",
        "Do not use a recalled document.",
    ),
    recall=Text(
        "Thông báo thu hồi văn bản[[ {code}]].",
        "A notice that recalls a document[[: {code}]].",
        "Hủy bỏ văn bản bị thu hồi trên hệ thống và báo lại cho nơi gửi.",
        "Cancel the recalled document in your system and tell the sender.",
    ),
)
def recalled(c: Case) -> Answer:
    r = c.reading
    hits = []
    if r.document is not None and r.document.recall:
        codes = ", ".join(r.document.cites[:3]) or (r.document.code.value if r.document.code else "")
        hits.append(Hit(r.main.path if r.main else "", text="recall", facts={"code": codes}, note="recall"))
    for known in c.situation.history.documents:
        if known.recalled and r.main is not None and known.content in ("", r.main.sha256):
            code = r.document.code.value if r.document and r.document.code else ""
            hits.append(Hit(r.main.path, evidence=known.case, facts={"code": code, "case": known.case}))
    return hits or "no recall is known"


@rule("RG-01", "Lưu vào cơ sở dữ liệu văn bản đến", "Entered into the incoming register", DELIVER)
def registered(c: Case) -> Answer:
    if c.situation.direction == "out" or not c.reading.formal:
        return "no incoming official document"
    return [Hit(note="incoming")]


# -- accounts (rules.md 1.11) ----------------------------------------------------------------------------------------

_PASSWORD = re.compile(r"(?:mật\s*khẩu|mat\s*khau|password|pass)\s*(?:là|:|=)\s*\S+", re.IGNORECASE)
_LOGIN = re.compile(
    r"(?:tên\s+đăng\s+nhập|tài\s+khoản|ten dang nhap|tai khoan|user(?:name)?|login)\s*(?:là|:|=)\s*\S+", re.IGNORECASE
)


@rule(
    "AC-03",
    "Không cung cấp mật khẩu cho người không liên quan",
    "Passwords are not passed on",
    WARN,
    text=Text(
        "Nội dung thư có vẻ chứa tên đăng nhập và mật khẩu.",
        "The message seems to hold a login and its password.",
        "Không gửi mật khẩu qua thư điện tử; đổi mật khẩu nếu đã gửi.",
        "Do not mail passwords; change it if it was sent.",
    ),
)
def passwords(c: Case) -> Answer:
    if not _outgoing(c):
        return "incoming mail"
    text = c.situation.inspection.message.body_text
    return [Hit("body")] if _PASSWORD.search(text) and _LOGIN.search(text) else []
