"""Figures: which events a message makes, and the questions that add them up (rules.md 1.9, 1.10).

Every figure is a count of rows in `event`; each row names its message. The key of an event is made of the message's
digest, sender, direction and agency, so that the same message offered again counts once for each agency.

A `Book` holds the events of one period (month, half-year, year; months are cut in the time of Vietnam), added up by
all that they can be asked for; `Book.rows` answers by agency, level, direction, class or profile, with or without
the agencies below and before.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, select, true

from gateway import database as db
from gateway.archive import Count, from_ms, to_ms
from gateway.inspection.findings import Inspection, SealState, SignatureState
from gateway.message import VIETNAM, NullSender, Origin, Received, Recipient, Sender

if TYPE_CHECKING:
    from gateway.directory import Agency, Directory
    from gateway.policy import Finding, History, Verdict

#: The event that tells what became of a message. Messages that were delivered, with or without a warning, have none:
#: they are the rest.
_OUTCOMES = {
    "hold": "held",
    "return": "returned",
    "reject-malware": "malware",
    "block-secret": "blocked_secret",
}
_REFUSED = ("return", "reject-malware", "block-secret")
_SIGNED = {SignatureState.VALID, SignatureState.VALID_UNTIMESTAMPED}
#: Classes that are documents (văn bản); letters from citizens, mail about work and automatic mail are not.
DOCUMENTS = (
    "OFFICIAL_DOC",
    "DRAFT",
    "COMMENT",
    "DOSSIER",
    "INVITATION",
    "MEETING_MATERIAL",
    "WORK_CALENDAR",
    "ROOM_BOOKING",
    "REPORT",
    "DIRECTION",
)
#: Signed and sealed are asked of these: an invitation to a meeting room needs neither.
_FORMAL = ("OFFICIAL_DOC", "DOSSIER", "INVITATION", "REPORT", "DIRECTION")


# ---------------------------------------------------------------------- events


def counts(
    received: Received,
    direction: str,
    verdict: Verdict,
    inspection: Inspection | None = None,
    history: History | None = None,
    directory: Directory | None = None,
) -> tuple[Count, ...]:
    """The events of one message: sent, for the sender's agency, and received, for each agency it is addressed to;
    mail between two agencies of ours makes both. An agency that is not in the directory is the empty one."""
    secret = verdict.disposition.text == "block-secret"
    sender = received.envelope.sender
    found: list[Count] = []
    sides: list[tuple[str, str, str]] = []  # direction, agency, strongest disposition that concerns it
    if direction in ("out", "internal"):
        sides.append(("out", verdict.agency, verdict.disposition.text))
    agencies: dict[str, Any] = {}
    for one in verdict.recipients:
        agencies[one.agency] = max(agencies.get(one.agency, one.disposition), one.disposition)
    if direction != "in":  # the other side is a stranger, or an agency that we stand before too
        agencies = {agency: worst for agency, worst in agencies.items() if agency}
    if direction == "out" and received.origin.channel == "submission" and verdict.disposition.text in _REFUSED:
        agencies = {}  # one refused recipient refuses the message
    sides += [("in", agency, worst.text) for agency, worst in agencies.items()]
    scope = _scope(received, direction, verdict, directory)
    more = [] if secret else [*_properties(received, verdict, inspection, history)]
    for way, agency, outcome in sides:

        def add(
            kind: str,
            rule: str = "",
            mode: str = "",
            value: str = "",
            scope: str = "",
            way: str = way,
            agency: str = agency,
        ) -> None:
            key = "|".join((received.body.sha256, sender.key, way, agency, kind, rule))
            shown = "" if secret else verdict.message_class
            found.append(Count(key, kind, agency, way, shown, verdict.profile, rule, mode, value, scope))

        # A message that is refused was not sent; one that is held was, and waits for a person.
        if outcome in ("deliver", "deliver-warn", "hold"):
            add("sent" if way == "out" else "received", value=verdict.delivery_mode, scope=scope)
            for kind, value in more:
                add(kind, value=value)
            if way == "out" and scope == "outside" and inspection is not None and inspection.message.in_reply_to:
                add("answer", value=inspection.message.in_reply_to[:250])
        if direction == "out" and way == "in":
            continue  # what was wrong with it is the sender's
        if outcome in _OUTCOMES:
            add(_OUTCOMES[outcome])
        for each in verdict.findings:
            if secret and each.disposition.text != "block-secret":
                continue
            add("finding", each.rule, each.mode, each.disposition.text)
            if each.rule == "TM-03" and getattr(each, "evidence", "") in ("late", "late_soft"):
                add(each.evidence, each.rule, each.mode)
    if direction != "in" and directory is not None and not isinstance(sender, NullSender):
        found += _active(directory, sender.key, received.at)
    # One rule may have several findings in a message; it counts once.
    return tuple({one.key: one for one in found}.values())


def _properties(
    received: Received, verdict: Verdict, inspection: Inspection | None, history: History | None
) -> Iterator[tuple[str, str]]:
    """Kind and value of what is true of the message on whichever side."""
    if verdict.urgency:
        yield "urgent", verdict.urgency
    if any(one.rule == "MB-04" for one in getattr(verdict, "annotations", ())):
        yield "exception", ""
    if inspection is None:
        return
    states = {signature.state for file in inspection.files for signature in file.signatures}
    if states & _SIGNED:
        yield "signed", ""
    elif states - {SignatureState.NO_SIGNATURE}:
        yield "signed_other", ""
    elif verdict.message_class in _FORMAL and inspection.files:
        yield "unsigned", ""
    if any(file.seal_state == SealState.PRESENT for file in inspection.files):
        yield "seal_scanned", ""
    rules = {one.rule for one in verdict.findings}
    if verdict.message_class == "MEETING_MATERIAL":
        start = history.meeting_start if history is not None else None
        if start is None and inspection.message.meeting_start:
            start = _moment(inspection.message.meeting_start)
        if start is not None:
            yield "meeting", "on_time" if start - received.at >= dt.timedelta(hours=24) else "late"
        elif "TM-01" in rules:
            yield "meeting", "late"
    if verdict.message_class == "WORK_CALENDAR" and history is not None and history.calendar_publications:
        yield "calendar", "late" if "TM-02" in rules else "lead_ok"


def _scope(received: Received, direction: str, verdict: Verdict, directory: Directory | None) -> str:
    """Between whom: `internal` within one agency, `inter_agency`, `outside` with citizens and firms."""
    if direction == "internal":
        return "internal"
    if direction == "in":
        if verdict.message_class == "CITIZEN_MAIL":
            return "outside"
        sender = received.envelope.sender
        if directory is None or isinstance(sender, NullSender):
            return "inter_agency"
        known = directory.agency_of(sender.key, received.at) is not None or directory.is_official(sender.domain)
        return "inter_agency" if known else "outside"
    if any(one.agency for one in verdict.recipients):
        return "inter_agency"
    domains = {one.address.domain for one in received.envelope.recipients}
    official = directory is None or any(directory.is_official(one) for one in domains)
    return "inter_agency" if official else "outside"


def _active(directory: Directory, address: str, at: dt.datetime) -> list[Count]:
    """The mailbox was used this month (MB-09); counts once a month, as a digest of its address."""
    box = directory.mailbox(address)
    day = at.astimezone(VIETNAM).date()
    agency = directory.agency(box.agency, day) if box is not None and box.issued(day) else None
    if agency is None:
        return []
    return [Count(f"active|{day:%Y-%m}|{address}", "active", agency.id, "out", value=_mailbox(address))]


def _mailbox(address: str) -> str:
    return hashlib.sha256(address.lower().encode()).hexdigest()[:16]


def _moment(text: str) -> dt.datetime | None:
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=VIETNAM)


def counts_of_refused_recipient(
    directory: Directory,
    origin: Origin,
    sender: Sender,
    recipient: Recipient,
    findings: Iterable[Finding],
    at: dt.datetime,
) -> tuple[Count, ...]:
    """The events of a recipient refused at RCPT, before there were any bytes: once a day for the same pair and rule,
    so that a client that tries again and again does not fill the figures."""
    outgoing = bool(origin.login)
    address = str(sender) if outgoing else str(recipient.address)
    agency = "" if outgoing and isinstance(sender, NullSender) else _agency_id(directory.agency_of(address, at))
    way = "out" if outgoing else "in"
    day = at.astimezone(VIETNAM).date().isoformat()
    pair = hashlib.sha256(f"{sender.key}|{recipient.address.key}".encode()).hexdigest()
    return tuple(
        Count(f"rcpt|{day}|{pair}|{one.rule}", "refused_envelope", agency, way, rule=one.rule, mode=one.mode)
        for one in findings
    )


def counts_of_unread(
    directory: Directory, oldest: Mapping[str, dt.datetime], now: dt.datetime, hours: int
) -> list[Count]:
    """Mailboxes whose oldest unread message is older than `hours` (MB-07), once a month each. oldest: by address."""
    found = []
    day = now.astimezone(VIETNAM).date()
    for address, since in oldest.items():
        agency = directory.agency_of(address, day)
        if agency is not None and now - since > dt.timedelta(hours=hours):
            key = f"unread|{day:%Y-%m}|{address.lower()}"
            found.append(Count(key, "unread_over", agency.id, "in", value=_mailbox(address)))
    return found


def _agency_id(agency: Any) -> str:
    return agency if isinstance(agency, str) else getattr(agency, "id", "")


# ---------------------------------------------------------------------- periods


@dataclass(frozen=True, slots=True)
class Period:
    """A month (`2026-11`), a half-year (`2026-H2`) or a year (`2026`)."""

    text: str
    first: dt.date
    last: dt.date

    @classmethod
    def parse(cls, text: str) -> Period:
        """Raises ValueError, with what a period looks like."""
        if match := re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", text):
            year, start, length = int(match[1]), int(match[2]), 1
        elif match := re.fullmatch(r"(\d{4})-H([12])", text):
            year, start, length = int(match[1]), 1 if match[2] == "1" else 7, 6
        elif match := re.fullmatch(r"(\d{4})", text):
            year, start, length = int(match[1]), 1, 12
        else:
            raise ValueError(
                f"{text!r}: kỳ dạng 2026-11, 2026-H1 hoặc 2026 / a period such as 2026-11, 2026-H1 or 2026"
            )
        if not 1970 <= year <= 9998:
            raise ValueError(f"{text!r}: năm từ 1970 đến 9998 / years from 1970 to 9998")
        end = start + length  # the month after
        after = dt.date(year + (end > 12), end - 12 * (end > 12), 1)
        return cls(text, dt.date(year, start, 1), after - dt.timedelta(days=1))

    @classmethod
    def of(cls, day: dt.date) -> Period:
        """The month of a day."""
        return cls.parse(f"{day.year:04}-{day.month:02}")

    @property
    def kind(self) -> str:
        """`month`, `half` or `year`."""
        return "year" if len(self.text) == 4 else "half" if "H" in self.text else "month"

    @property
    def months(self) -> tuple[str, ...]:
        return tuple(f"{self.first.year:04}-{month:02}" for month in range(self.first.month, self.last.month + 1))

    @property
    def start(self) -> dt.datetime:
        return dt.datetime.combine(self.first, dt.time(), VIETNAM)

    @property
    def end(self) -> dt.datetime:
        """The first moment after it."""
        return dt.datetime.combine(self.last + dt.timedelta(days=1), dt.time(), VIETNAM)

    @property
    def before(self) -> Period:
        """The period before this one, of the same kind."""
        day = self.first - dt.timedelta(days=1)
        if self.kind == "year":
            return Period.parse(f"{day.year:04}")
        return Period.parse(f"{day.year:04}-H{1 if day.month <= 6 else 2}") if self.kind == "half" else Period.of(day)

    @property
    def vi(self) -> str:
        if self.kind == "year":
            return f"Năm {self.first.year}"
        if self.kind == "half":
            return f"6 tháng {'đầu' if self.first.month == 1 else 'cuối'} năm {self.first.year}"
        return f"Tháng {self.first.month}/{self.first.year}"

    @property
    def en(self) -> str:
        if self.kind == "year":
            return f"Year {self.first.year}"
        if self.kind == "half":
            return f"{'First' if self.first.month == 1 else 'Second'} half of {self.first.year}"
        return f"{_MONTHS[self.first.month - 1]} {self.first.year}"


_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


# ---------------------------------------------------------------------- definitions


class Cell(NamedTuple):
    """Events that are alike, and how many. day: a day on which agencies were what they were for all of them."""

    day: dt.date
    agency: str
    direction: str
    message_class: str
    profile: str
    scope: str
    kind: str
    rule: str
    mode: str
    value: str
    number: int


@dataclass(frozen=True, slots=True)
class Figure:
    """One count: which events it is the number of. Empty means any. distinct: not events but different values of
    theirs are counted (mailboxes). group: where it stands on a page."""

    key: str
    vi: str
    en: str
    kind: tuple[str, ...]
    group: str = ""
    direction: str = ""
    classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    distinct: bool = False

    def counts(self, event: Any) -> bool:
        return (
            event.kind in self.kind
            and (not self.direction or event.direction == self.direction)
            and (not self.classes or event.message_class in self.classes)
            and (not self.values or event.value in self.values)
            and (not self.rules or event.rule in self.rules)
            and (not self.scopes or event.scope in self.scopes)
        )

    def clause(self) -> ColumnElement[bool]:
        """The same as SQL."""
        e = db.event.c
        parts: list[ColumnElement[bool]] = [e.kind.in_(self.kind)]
        for column, wanted in (
            (e.message_class, self.classes),
            (e.value, self.values),
            (e.rule, self.rules),
            (e.scope, self.scopes),
        ):
            if wanted:
                parts.append(column.in_(wanted))
        if self.direction:
            parts.append(e.direction == self.direction)
        return and_(*parts)

    def definition(self) -> str:
        """The question in words of the table, for `explain` and for what is published."""
        parts = [f"kind in ({', '.join(self.kind)})"]
        for name, wanted in (
            ("direction", (self.direction,) if self.direction else ()),
            ("message_class", self.classes),
            ("value", self.values),
            ("rule", self.rules),
            ("scope", tuple(one or "''" for one in self.scopes)),
        ):
            if wanted:
                parts.append(f"{name} in ({', '.join(wanted)})")
        what = "different values of events" if self.distinct else "events"
        return f"number of {what} with " + " and ".join(parts)


_FIRST = ("sent", "received")
#: Exchanged with others, or of unknown scope (events of an earlier version): everything but mail within one agency.
_EXCHANGED = ("inter_agency", "outside", "")

FIGURES = (
    Figure("sent", "Thư gửi đi", "Messages sent", ("sent",), "traffic"),
    Figure("received", "Thư nhận", "Messages received", ("received",), "traffic"),
    Figure("documents_sent", "Văn bản gửi", "Documents sent", ("sent",), "documents", classes=DOCUMENTS),
    Figure("documents_received", "Văn bản nhận", "Documents received", ("received",), "documents", classes=DOCUMENTS),
    Figure("official", "Văn bản chính thức", "Official documents", _FIRST, "documents", classes=("OFFICIAL_DOC",)),
    Figure(
        "official_sent",
        "Văn bản chính thức gửi",
        "Official documents sent",
        ("sent",),
        "documents",
        classes=("OFFICIAL_DOC",),
    ),
    Figure(
        "official_received",
        "Văn bản chính thức nhận",
        "Official documents received",
        ("received",),
        "documents",
        classes=("OFFICIAL_DOC",),
    ),
    Figure("drafts", "Dự thảo", "Drafts", _FIRST, "documents", classes=("DRAFT",)),
    Figure(
        "e_only",
        "Chỉ gửi điện tử",
        "Electronic only",
        _FIRST,
        "delivery",
        classes=DOCUMENTS,
        values=("electronic_only",),
    ),
    Figure(
        "e_and_paper",
        "Điện tử và giấy",
        "Electronic and paper",
        _FIRST,
        "delivery",
        classes=DOCUMENTS,
        values=("electronic_and_paper",),
    ),
    Figure(
        "unlisted", "Ngoài danh mục", "On neither list", _FIRST, "delivery", classes=DOCUMENTS, values=("unlisted",)
    ),
    Figure("signed_valid", "Chữ ký số hợp lệ", "Valid digital signature", ("signed",), "signature", classes=DOCUMENTS),
    Figure(
        "signed_other",
        "Chữ ký số chưa đủ tin cậy",
        "Signature not proved",
        ("signed_other",),
        "signature",
        classes=DOCUMENTS,
    ),
    Figure("unsigned", "Không có chữ ký số", "No digital signature", ("unsigned",), "signature"),
    Figure("seal_scanned", "Có dấu quét", "Scanned seal", ("seal_scanned",), "signature", classes=DOCUMENTS),
    Figure("urgent", "Văn bản khẩn", "With an urgency mark", ("urgent",), "time"),
    Figure("urgent_khan", "Khẩn", "Khẩn (urgent)", ("urgent",), "time", values=("khan",)),
    Figure(
        "urgent_thuong_khan", "Thượng khẩn", "Thượng khẩn (very urgent)", ("urgent",), "time", values=("thuong_khan",)
    ),
    Figure(
        "urgent_hoa_toc",
        "Hỏa tốc",
        "Hỏa tốc (express)",
        ("urgent",),
        "time",
        values=("hoa_toc", "hoa_toc_hen_gio"),
    ),
    Figure("late", "Gửi muộn", "Sent late", ("late",), "time"),
    Figure("late_soft", "Gửi ngày làm việc tiếp theo", "Sent the next working day", ("late_soft",), "time"),
    Figure(
        "meeting_on_time",
        "Tài liệu họp đúng hạn",
        "Meeting papers in time",
        ("meeting",),
        "time",
        values=("on_time",),
    ),
    Figure("meeting_late", "Tài liệu họp muộn", "Meeting papers late", ("meeting",), "time", values=("late",)),
    Figure(
        "calendar_lead_ok",
        "Lịch công tác gửi trước một giờ",
        "Work calendar an hour ahead",
        ("calendar",),
        "time",
        values=("lead_ok",),
    ),
    Figure("calendar_late", "Lịch công tác gửi muộn", "Work calendar late", ("calendar",), "time", values=("late",)),
    Figure("citizen_in", "Thư công dân nhận", "From citizens", ("received",), "citizens", classes=("CITIZEN_MAIL",)),
    Figure("citizen_out", "Thư gửi công dân", "To citizens", ("sent",), "citizens", scopes=("outside",)),
    Figure("returned", "Bị trả lại", "Returned", ("returned",), "refused"),
    Figure("returned_out", "Thư gửi bị trả lại", "Outgoing, returned", ("returned",), "refused", direction="out"),
    Figure("returned_in", "Thư đến bị trả lại", "Incoming, returned", ("returned",), "refused", direction="in"),
    Figure("held", "Tạm giữ", "Held", ("held",), "refused"),
    Figure("blocked_secret", "Chặn vì dấu mật", "Blocked for a secrecy mark", ("blocked_secret",), "refused"),
    Figure("malware", "Mã độc", "Malware", ("malware",), "refused"),
    Figure("refused_envelope", "Từ chối địa chỉ nhận", "Recipients refused", ("refused_envelope",), "refused"),
    Figure(
        "free_mailbox_findings",
        "Dùng hộp thư ngoài công vụ",
        "Unofficial mailboxes used",
        ("finding", "refused_envelope"),
        "refused",
        rules=("MB-01", "MB-02", "MB-03"),
    ),
    Figure("exception_uses", "Dùng theo ngoại lệ", "Under an exception", ("exception",), "refused"),
    Figure("active_mailboxes", "Hộp thư có gửi", "Mailboxes in use", ("active",), "mailboxes", distinct=True),
    Figure(
        "unread_over",
        "Hộp thư có thư chưa đọc quá hạn",
        "Mailboxes with mail unread too long",
        ("unread_over",),
        "mailboxes",
        distinct=True,
    ),
)
#: Parts of the ratios; not shown by themselves.
PARTS = (
    Figure("e_out", "", "", ("sent",), classes=DOCUMENTS, scopes=_EXCHANGED),
    Figure("e_in", "", "", ("received",), classes=DOCUMENTS, scopes=_EXCHANGED),
    Figure("e_internal", "", "", ("sent",), classes=DOCUMENTS, scopes=("internal",)),
    Figure("e_inter_agency", "", "", ("sent",), classes=DOCUMENTS, scopes=("inter_agency", "")),
    Figure("full_out", "", "", ("sent",), classes=DOCUMENTS, scopes=_EXCHANGED, values=("electronic_only",)),
    Figure("full_in", "", "", ("received",), classes=DOCUMENTS, scopes=_EXCHANGED, values=("electronic_only",)),
    Figure("full_internal", "", "", ("sent",), classes=DOCUMENTS, scopes=("internal",), values=("electronic_only",)),
    Figure(
        "full_inter_agency",
        "",
        "",
        ("sent",),
        classes=DOCUMENTS,
        scopes=("inter_agency", ""),
        values=("electronic_only",),
    ),
    Figure("exchanged", "", "", _FIRST, scopes=("inter_agency", "")),
)
BY_KEY = {one.key: one for one in (*FIGURES, *PARTS)}


@dataclass(frozen=True, slots=True)
class Ratio:
    """A share: numerator over denominator, where the denominator has the documents on paper only as well.

    part, whole: keys of figures that are added up; paper: directions of the paper counts that belong to it.
    """

    key: str
    vi: str
    en: str
    part: tuple[str, ...]
    whole: tuple[str, ...]
    paper: tuple[str, ...] = ()

    def definition(self) -> str:
        paper = "".join(f" + paper counts ({one})" for one in self.paper)
        return f"({' + '.join(self.part)}) / ({' + '.join(self.whole)}{paper})"


RATIOS = (
    Ratio(
        "e_any_ratio",
        "Tỷ lệ gửi, nhận qua môi trường mạng",
        "Exchanged electronically",
        ("e_out", "e_in"),
        ("e_out", "e_in"),
        ("out", "in"),
    ),
    Ratio(
        "e_full_ratio",
        "Tỷ lệ hoàn toàn điện tử",
        "Fully electronic",
        ("full_out", "full_in"),
        ("e_out", "e_in"),
        ("out", "in"),
    ),
    Ratio("e_any_ratio_out", "Tỷ lệ gửi qua mạng", "Sent electronically", ("e_out",), ("e_out",), ("out",)),
    Ratio("e_any_ratio_in", "Tỷ lệ nhận qua mạng", "Received electronically", ("e_in",), ("e_in",), ("in",)),
    Ratio(
        "e_full_ratio_internal",
        "Văn bản nội bộ hoàn toàn điện tử",
        "Internal documents fully electronic",
        ("full_internal",),
        ("e_internal",),
        ("internal",),
    ),
    Ratio(
        "e_full_ratio_inter_agency",
        "Văn bản giữa các cơ quan hoàn toàn điện tử",
        "Documents between agencies fully electronic",
        ("full_inter_agency",),
        ("e_inter_agency",),
        ("out",),
    ),
    Ratio(
        "mailbox_ratio",
        "Tỷ lệ sử dụng hộp thư",
        "Mailboxes in use",
        ("active_mailboxes",),
        ("issued_mailboxes",),
    ),
)
RATIO = {one.key: one for one in RATIOS}
#: Numbers that are no sums: from the directory, and middle values.
OTHERS = {
    "issued_mailboxes": ("Hộp thư đã cấp", "Mailboxes issued", "mailboxes of the directory, issued on the last day"),
    "urgent_ack_median_s": (
        "Trung vị thời gian xác nhận văn bản khẩn (giây)",
        "Median acknowledgement of urgent documents (s)",
        "median of value of events with kind in (urgent_acked)",
    ),
    "hoa_toc_ack_median_s": (
        "Trung vị thời gian xác nhận văn bản hỏa tốc (giây)",
        "Median acknowledgement of hỏa tốc documents (s)",
        "median of value of events with kind in (urgent_acked) and rule in (hoa_toc, hoa_toc_hen_gio)",
    ),
    "citizen_reply_median_h": (
        "Trung vị thời gian trả lời công dân (giờ)",
        "Median time to answer citizens (h)",
        "median time from a citizen's message to the first message that answers it (events with kind in (answer))",
    ),
    "spam": ("Thư rác", "Spam", "not measured: the gateway has no spam filter of its own; null, never 0"),
}

NOT_REPORTED = ("không đủ số liệu", "not enough data")
NO_PAPER = ("chưa có số liệu văn bản giấy", "no paper counts")
NO_DOCUMENTS = ("không có văn bản", "no documents")


class Share(NamedTuple):
    """A ratio of one row. reason: empty, or (Vietnamese, English) why there is no number."""

    part: int
    whole: int | None
    reason: tuple[str, str] | None = None

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole and self.reason is None else None

    @property
    def percent(self) -> str:
        """With one decimal place, cut and not rounded: 89.96 % has not reached 90. Empty when there is none."""
        if not self.whole or self.reason is not None:
            return ""
        return f"{self.part * 1000 // self.whole / 10:.1f}"


@dataclass(frozen=True, slots=True)
class Target:
    """rules.md 1.10: `percent` of `ratio`, asked for by the directive behind `profiles`."""

    key: str
    percent: int
    ratio: str
    vi: str
    en: str
    source: str
    profiles: tuple[str, ...] = ()


TARGETS = (
    Target(
        "any_80",
        80,
        "e_any_ratio",
        "Văn bản chính thức trao đổi dưới dạng điện tử",
        "Official documents exchanged electronically",
        "Chỉ thị 02/CT-BNV (2012), 4e",
        ("bnv_2012",),
    ),
    Target(
        "internal_90",
        90,
        "e_full_ratio_internal",
        "Văn bản nội bộ hoàn toàn dưới dạng điện tử",
        "Internal documents fully electronic",
        "Chỉ thị của UBND tỉnh Hà Tĩnh, 1c",
        ("ha_tinh_2014", "ha_tinh_ct"),
    ),
    Target(
        "inter_agency_70",
        70,
        "e_full_ratio_inter_agency",
        "Văn bản giữa các cơ quan hoàn toàn dưới dạng điện tử",
        "Documents between agencies fully electronic",
        "Chỉ thị của UBND tỉnh Hà Tĩnh, 1c",
        ("ha_tinh_2014", "ha_tinh_ct"),
    ),
    Target(
        "communes_100",
        100,
        "communes_ratio",
        "Cấp xã trao đổi văn bản điện tử với cấp tỉnh, cấp huyện",
        "Communes that exchange documents electronically",
        "Chỉ thị của UBND tỉnh Hà Tĩnh, 1c",
        ("ha_tinh_2014", "ha_tinh_ct"),
    ),
)


# ---------------------------------------------------------------------- rows


@dataclass(slots=True)
class Row:
    """One line of a table. group: what it is the line of (`agency`, `level` …) to its value; `figures` by key;
    `returned_by` and `observed_by`: rule to number of messages; members: agencies that are in it; paper: direction to
    documents on paper only, None when an agency has not reported; reported: agencies with paper counts for every month
    and both directions; told: the shares over these alone, in lines of several agencies of which some have not."""

    period: str
    group: dict[str, str]
    figures: dict[str, Any] = field(default_factory=lambda: {one.key: 0 for one in FIGURES})
    returned_by: dict[str, int] = field(default_factory=dict)
    observed_by: dict[str, int] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)
    told: dict[str, Share] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    reported: int = 0
    paper: dict[str, int | None] = field(default_factory=dict)
    parts: Counter[str] = field(default_factory=Counter)
    _distinct: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _of: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # parts by agency

    @property
    def agency(self) -> str:
        return self.group.get("agency", "")

    @property
    def month(self) -> str:
        return self.period

    @property
    def silent(self) -> bool:
        """Nothing happened and nothing was told."""
        counted = (one.key for one in FIGURES)
        return not any(self.figures[key] for key in counted) and not self.observed_by and not self.reported

    def add(self, cell: Cell, hits: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]) -> None:
        number = cell.number
        for key in hits[0]:
            self.figures[key] += number
        for key in hits[1]:
            self.parts[key] += number
            self._of[cell.agency][key] += number
        for key in hits[2]:
            self._distinct[key].add(cell.value)
        if cell.kind == "finding":
            if cell.value in _REFUSED:
                self.returned_by[cell.rule] = self.returned_by.get(cell.rule, 0) + number
            if cell.mode == "observe":
                self.observed_by[cell.rule] = self.observed_by.get(cell.rule, 0) + number

    def values(self) -> dict[str, Any]:
        """Flat, with stable keys, for JSON and CSV. Ratios are fractions of 1 or null; `missing` says why."""
        missing = {key: share.reason[0] for key, share in self.shares.items() if share.reason is not None}
        return {
            "period": self.period,
            **({"month": self.period} if len(self.period) == 7 and "H" not in self.period else {}),
            **self.group,
            **self.figures,
            **{f"paper_{way}": self.paper.get(way) for way in ("out", "in", "internal")},
            **{key: None if share.value is None else round(share.value, 6) for key, share in self.shares.items()},
            "paper_reported": self.reported,
            "agencies": len(self.members),
            "returned_by": dict(sorted(self.returned_by.items())),
            "observed_by": dict(sorted(self.observed_by.items())),
            "missing": missing,
        }


DIMENSIONS = ("agency", "level", "direction", "message_class", "profile")


class Book:
    """The figures of one period, from the events as they are in one snapshot of the database.

    directory: as it is now, asked for the days of the period. Without it (tests, an archive alone) there are no levels,
    no roll-up and no issued mailboxes.
    """

    def __init__(self, connection: Connection, period: Period, directory: Directory | None = None) -> None:
        self.period = period
        self.directory = directory
        self.cells = list(_cells(connection, period, directory))
        self.events = sum(one.number for one in self.cells)
        self.policies = policies(connection, period)
        self._paper = _paper(connection, period)
        self._acknowledged = _acknowledgements(connection, period)
        self._answers = _answers(connection, period)
        self._hits: dict[tuple[str, ...], Any] = {}
        self._above: dict[tuple[str, dt.date], frozenset[str]] = {}
        self._told: dict[tuple[str, str, str], int | None] = {}
        self._rows: dict[tuple[Any, ...], list[Row]] = {}

    # -- agencies ----------------------------------------------------------------------------------------------------

    @cached_property
    def agencies(self) -> dict[str, Agency]:
        """The agencies of the period by id, each as it was last in it."""
        found: dict[str, Agency] = {}
        if self.directory is not None:
            for one in self.directory.agencies():
                begins, ends = one.valid_from or dt.date.min, one.valid_to or dt.date.max
                if begins <= self.period.last and ends >= self.period.first:
                    known = found.get(one.id)
                    if known is None or (known.valid_from or dt.date.min) < begins:
                        found[one.id] = one
        return found

    def level(self, agency: str, day: dt.date | None = None) -> str:
        """The level the agency had on that day (the last of the period); empty when it is not in the directory."""
        if self.directory is None or not agency:
            return ""
        found = self.directory.agency(agency, day or self.period.last) or self.agencies.get(agency)
        return found.level if found is not None else ""

    def above(self, agency: str, day: dt.date) -> frozenset[str]:
        """The agency itself, those above it on that day, and the successors of all of them in the period."""
        key = (agency, day)
        if key not in self._above:
            found: set[str] = set()
            todo = [(agency, day)]
            while todo:
                name, at = todo.pop()
                if name in found:
                    continue
                found.add(name)
                if self.directory is None or not name:
                    continue
                was = self.directory.agency(name, at)
                if was is not None and was.id == name and was.parent:
                    todo.append((was.parent, at))
                now = self.directory.agency(name, self.period.last)
                if now is not None and now.id != name:
                    todo.append((now.id, self.period.last))
            self._above[key] = frozenset(found)
        return self._above[key]

    def members(self, agency: str, rollup: bool) -> frozenset[str]:
        """The agencies whose mail a line of this agency holds."""
        if not rollup:
            return frozenset((agency,))
        return self._below.get(agency, frozenset((agency,)))

    @cached_property
    def _below(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        days: dict[str, set[dt.date]] = {one.agency: set() for one in self.cells}
        for cell in self.cells:
            days[cell.agency].add(cell.day)
        for name, agency in self.agencies.items():
            days.setdefault(name, set()).add(min(self.period.last, agency.valid_to or self.period.last))
        for name, seen in days.items():
            for day in seen:
                for upper in self.above(name, day):
                    found[upper].add(name)
        return {key: frozenset(many | {key}) for key, many in found.items()}

    # -- tables ------------------------------------------------------------------------------------------------------

    def rows(
        self,
        by: tuple[str, ...] = ("agency",),
        *,
        rollup: bool = False,
        agency: str | None = None,
        level: str | None = None,
    ) -> list[Row]:
        """Lines by the dimensions wanted, in order of their values. agency, level: only those; with `rollup` a line of
        an agency holds those below it and those it succeeded too."""
        asked = (by, rollup, agency, level)
        if asked not in self._rows:
            self._rows[asked] = self._add_up(by, rollup, agency, level)
        return list(self._rows[asked])

    def _add_up(self, by: tuple[str, ...], rollup: bool, agency: str | None, level: str | None) -> list[Row]:
        only = self.members(agency, rollup) if agency is not None else None
        rows: dict[tuple[str, ...], Row] = {}
        members: dict[tuple[str, ...], set[str]] = defaultdict(set)
        place = {name: index for index, name in enumerate(by)}

        def row_of(key: tuple[str, ...]) -> Row:
            row = rows.get(key)
            if row is None:
                row = rows[key] = Row(self.period.text, dict(zip(by, key, strict=True)))
            return row

        levels: dict[tuple[str, dt.date], str] = {}
        for cell in self.cells:
            if only is not None and cell.agency not in only:
                continue
            own = (cell.agency, cell.day)
            if own not in levels:
                levels[own] = self.level(*own)
            if level is not None and levels[own] != level and not (rollup and "agency" in place):
                continue
            key = tuple(levels[own] if one == "level" else getattr(cell, one) for one in by)
            hits = self._hits_of(cell)
            if rollup and "agency" in place:
                at = place["agency"]
                for upper in self.above(*own):
                    wide = (*key[:at], upper, *key[at + 1 :])
                    if agency is None or upper == agency:
                        row_of(wide).add(cell, hits)
                        members[wide].add(cell.agency)
            else:
                row_of(key).add(cell, hits)
                members[key].add(cell.agency)
        if not set(by) - {"agency", "level"}:
            for name, last in self._silent.items():
                for upper in self.above(name, last) if rollup else (name,):
                    if agency is None or upper == agency:
                        row_of(tuple(upper if one == "agency" else self.level(name, last) for one in by))
        if level is not None:
            of = {
                key: self.level(row.agency) if "agency" in place else row.group.get("level", level)
                for key, row in rows.items()
            }
            rows = {key: row for key, row in rows.items() if of[key] == level}
        for key, row in rows.items():
            self._finish(row, self._members_of(row, rollup, only, level, members[key]))
        return [rows[key] for key in sorted(rows)]

    @cached_property
    def _silent(self) -> dict[str, dt.date]:
        """All agencies of the directory, with their last day in the period: they have a line without any mail too."""
        return {name: min(self.period.last, one.valid_to or self.period.last) for name, one in self.agencies.items()}

    def _members_of(
        self, row: Row, rollup: bool, only: frozenset[str] | None, level: str | None, seen: set[str]
    ) -> frozenset[str]:
        """The agencies of a line, those without mail included: their paper counts too."""
        if "agency" in row.group:
            return self.members(row.agency, rollup)
        wanted = row.group.get("level", level)
        found = set(self.agencies) if wanted is None else {one for one in self.agencies if self.level(one) == wanted}
        return frozenset((found | seen) if only is None else (found | seen) & only)

    def total(self) -> Row:
        """Everything in one line. Mail between two agencies of ours is in it twice, as sent and as received."""
        return self._total

    @cached_property
    def _total(self) -> Row:
        row = Row(self.period.text, {"agency": "*"})
        for cell in self.cells:
            row.add(cell, self._hits_of(cell))
        self._finish(row, frozenset(self.agencies) | {one.agency for one in self.cells})
        return row

    def _hits_of(self, cell: Cell) -> Any:
        kind = (cell.kind, cell.direction, cell.message_class, cell.value, cell.rule, cell.scope)
        if cell.kind in ("active", "unread_over", "answer", "urgent_acked"):
            kind = (cell.kind, cell.direction, cell.message_class, "", cell.rule, cell.scope)
        found = self._hits.get(kind)
        if found is None:
            found = self._hits[kind] = (
                tuple(one.key for one in FIGURES if not one.distinct and one.counts(cell)),
                tuple(one.key for one in PARTS if one.counts(cell)),
                tuple(one.key for one in FIGURES if one.distinct and one.counts(cell)),
            )
        return found

    def _finish(self, row: Row, members: frozenset[str]) -> None:
        """What is no sum of events: mailboxes, middle values, paper and the shares."""
        row.members = members
        for key, values in row._distinct.items():
            row.figures[key] = len(values)
        whole = not set(row.group) - {"agency", "level"}
        issued = sum(self._boxes[one] for one in members) if whole and self.directory is not None else None
        row.figures["issued_mailboxes"] = issued
        acked = self._acknowledged if whole else []
        row.figures["urgent_ack_median_s"] = _median([one[:2] for one in acked], members)
        express = [one[:2] for one in acked if one[2].startswith("hoa_toc")]
        row.figures["hoa_toc_ack_median_s"] = _median(express, members)
        row.figures["citizen_reply_median_h"] = _median(self._answers, members, 1) if whole else None
        row.figures["spam"] = None
        for way in ("out", "in", "internal"):
            row.paper[way] = self._paper_of(row, members, way)
        told = ("out", "in")
        row.reported = sum(
            all(self._paper_of_agency(one, way, "") is not None for way in told) for one in members if one
        )
        for ratio in RATIOS:
            row.shares[ratio.key] = self._share(row, ratio)
        if whole and 0 < row.reported < len(members - {""}):
            self._tell(row, members)

    def _tell(self, row: Row, members: frozenset[str]) -> None:
        """The shares of those who have told their paper counts."""
        for key in ("e_any_ratio", "e_full_ratio"):
            ratio, part, total = RATIO[key], 0, 0
            for one in members - {""}:
                on_paper = [self._paper_of_agency(one, way, "") for way in ratio.paper]
                if all(number is not None for number in on_paper):
                    part += sum(row._of[one][name] for name in ratio.part)
                    total += sum(row._of[one][name] for name in ratio.whole) + sum(number or 0 for number in on_paper)
            row.told[key] = Share(part, total, None if total else NO_DOCUMENTS)

    @cached_property
    def _boxes(self) -> Counter[str]:
        """Mailboxes by agency on the last day; those of an agency that ended are its successor's by then."""
        found: Counter[str] = Counter()
        for box in self.directory.mailboxes() if self.directory is not None else ():
            if box.issued(self.period.last):
                owner = self.directory.agency(box.agency, self.period.last)  # type: ignore[union-attr]
                found[owner.id if owner is not None else box.agency] += 1
        return found

    def _paper_of(self, row: Row, members: frozenset[str], way: str) -> int | None:
        """Documents on paper only; None when one of the agencies has not told for one of the months."""
        if "profile" in row.group or row.group.get("direction", way) != way:
            return None
        only = row.group.get("message_class", "")
        told = [self._paper_of_agency(one, way, only) for one in members if one]
        return None if any(one is None for one in told) else sum(one or 0 for one in told)

    def _paper_of_agency(self, agency: str, way: str, only: str) -> int | None:
        key = (agency, way, only)
        if key not in self._told:
            total = 0
            for month in self.period.months:
                if not self._existed(agency, month):
                    continue
                classes = self._paper.get((month, agency, way))
                if classes is None or (only and only not in classes):
                    break
                if only:
                    total += classes[only]
                elif "" in classes:
                    total += classes[""]
                else:
                    total += sum(number for name, number in classes.items() if name in DOCUMENTS)
            else:
                self._told[key] = total
                return total
            self._told[key] = None
        return self._told[key]

    def _existed(self, agency: str, month: str) -> bool:
        """Must it tell paper counts for that month? An agency of the directory from its first day to its last."""
        spans = self._spans.get(agency)
        if not spans:
            return True
        span = Period.parse(month)
        return any(begins <= span.last and ends >= span.first for begins, ends in spans)

    @cached_property
    def _spans(self) -> dict[str, list[tuple[dt.date, dt.date]]]:
        found: dict[str, list[tuple[dt.date, dt.date]]] = defaultdict(list)
        for one in self.directory.agencies() if self.directory is not None else ():
            found[one.id].append((one.valid_from or dt.date.min, one.valid_to or dt.date.max))
        return found

    def _share(self, row: Row, ratio: Ratio) -> Share:
        numbers = {**row.figures, **row.parts}
        part = sum(numbers.get(key) or 0 for key in ratio.part)
        if ratio.key == "mailbox_ratio":
            issued = numbers.get("issued_mailboxes")
            return Share(part, issued, None if issued else NOT_REPORTED)
        ways = [way for way in ratio.paper if row.group.get("direction", way) == way]
        on_paper = [row.paper.get(way) for way in ways]
        if any(one is None for one in on_paper) or not ways:
            return Share(part, None, NO_PAPER)
        if not row.members - {""}:
            return Share(part, None, NO_PAPER)
        whole = sum(numbers.get(key) or 0 for key in ratio.whole) + sum(one or 0 for one in on_paper)
        return Share(part, whole, None if whole else NO_DOCUMENTS)

    # -- targets -----------------------------------------------------------------------------------------------------

    def communes(self) -> Share:
        """Communes with at least one exchange in each month of the period, over all there were on its last day."""
        level = {
            one for one, agency in self.agencies.items() if agency.level == "commune" and agency.valid(self.period.last)
        }
        exchanged = BY_KEY["exchanged"]
        seen: dict[str, set[str]] = defaultdict(set)
        for cell in self.cells:
            if cell.agency in level and exchanged.counts(cell):
                seen[cell.agency].add(f"{cell.day.year:04}-{cell.day.month:02}")
        wanted = {one: {month for month in self.period.months if self._existed(one, month)} for one in level}
        part = sum(wanted[one] <= seen[one] for one in level)
        return Share(part, len(level), None if level else NOT_REPORTED)

    def targets(self) -> list[tuple[Target, Share, bool]]:
        """Each target with what was reached, over all agencies, and whether a profile in use asks for it."""
        total, used = self.total(), {one.profile for one in self.cells}
        reached = {**total.shares, "communes_ratio": self.communes()}
        return [(one, reached[one.ratio], bool(used & set(one.profiles))) for one in TARGETS]


def _cells(connection: Connection, period: Period, directory: Directory | None) -> Iterator[Cell]:
    """Events that are alike, month by month, and within a month by pieces in which no agency changed."""
    e = db.event.c
    columns = (e.agency, e.direction, e.message_class, e.profile, e.scope, e.kind, e.rule, e.mode, e.value)
    known: dict[str, str] = {}  # each word once in memory: a year of a province has half a million cells
    for month in period.months:
        span = Period.parse(month)
        cuts = sorted(_changes(directory, span)) if directory is not None else []
        starts = [span.first, *cuts]
        for place, day in enumerate(starts):
            within: list[ColumnElement[bool]] = [true()]
            if place > 0:
                within.append(e.at >= to_ms(dt.datetime.combine(day, dt.time(), VIETNAM)))
            if place + 1 < len(starts):
                within.append(e.at < to_ms(dt.datetime.combine(starts[place + 1], dt.time(), VIETNAM)))
            question = select(*columns, func.count()).where(e.month == month, *within).group_by(*columns)
            for row in connection.execute(question):
                words = [known.setdefault(word, word) for word in row[:-1]]
                yield Cell(day, *words, number=row[-1])  # type: ignore[arg-type]


def _changes(directory: Directory, span: Period) -> set[dt.date]:
    """Days of the month, its first aside, from which on an agency was another, or no more."""
    days: set[dt.date] = set()
    for one in directory.agencies():
        begins = one.valid_from
        ends = one.valid_to + dt.timedelta(days=1) if one.valid_to and one.valid_to < dt.date.max else None
        days |= {day for day in (begins, ends) if day is not None and span.first < day <= span.last}
    return days


def _paper(connection: Connection, period: Period) -> dict[tuple[str, str, str], dict[str, int]]:
    """Month, agency and direction to documents on paper only by class, as they were told last."""
    p = db.paper_count.c
    question = select(p.month, p.agency, p.direction, p.message_class, p.number).where(p.month.in_(period.months))
    found: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for month, agency, way, message_class, number in connection.execute(question.order_by(p.id)):
        found[month, agency, way][message_class] = number
    return found


def policies(connection: Connection, period: Period) -> list[str]:
    """Digests of the policies that judged mail of the period."""
    m = db.message.c
    question = (
        select(m.policy_digest)
        .where(m.received_at >= to_ms(period.start), m.received_at < to_ms(period.end), m.policy_digest != "")
        .distinct()
    )
    return sorted(connection.execute(question).scalars())


def _acknowledgements(connection: Connection, period: Period) -> list[tuple[str, float, str]]:
    """Agency, seconds and level of each urgent document whose alert a leader has acknowledged."""
    e = db.event.c
    question = select(e.agency, e.value, e.rule).where(e.month.in_(period.months), e.kind == "urgent_acked")
    return [(row.agency, float(row.value), row.rule) for row in connection.execute(question) if row.value.isdecimal()]


def _answers(connection: Connection, period: Period) -> list[tuple[str, float]]:
    """Agency and hours, of each citizen's message of the period that was answered: to the first answer."""
    e, m = db.event.c, db.message.c
    question = select(e.agency, e.at, e.value).where(e.kind == "answer", e.at >= to_ms(period.start))
    answers: dict[tuple[str, str], int] = {}
    # An answer may come in a later month than its question: half a year after the period is late enough.
    months = [*period.months]
    for _ in range(6):
        months.append(Period.of(Period.parse(months[-1]).last + dt.timedelta(days=1)).text)
    for row in connection.execute(question.where(e.month.in_(months))):
        key = (row.agency, row.value)
        answers[key] = min(row.at, answers.get(key, row.at))
    if not answers:
        return []
    asked = (
        select(e.agency, e.at, m.message_id)
        .join(db.message, m.id == e.message)
        .where(e.month.in_(period.months), e.kind == "received", e.message_class == "CITIZEN_MAIL")
    )
    found = []
    for row in connection.execute(asked):
        answered = answers.get((row.agency, row.message_id))
        if answered is not None and answered >= row.at:
            found.append((row.agency, (answered - row.at) / 3_600_000))
    return found


def _median(pairs: list[tuple[str, float]], members: frozenset[str], digits: int = 0) -> float | int | None:
    values = [value for agency, value in pairs if agency in members]
    if not values:
        return None
    middle = statistics.median(values)
    return round(middle, digits) if digits else round(middle)


# ---------------------------------------------------------------------- questions


def told(row: Row, key: str) -> dict[str, Any]:
    """A figure of a row with what it is: number, words, definition. Raises KeyError for a figure there is not."""
    share, more = row.shares.get(key), dict[str, Any]()
    if key in RATIO:
        vi, en = RATIO[key].vi, RATIO[key].en
        share = share or Share(0, None, NO_PAPER)
        number, shown = share.value, shown_share(share)
        more = {
            "part": share.part,
            "whole": share.whole,
            "paper": {way: row.paper.get(way) for way in RATIO[key].paper},
        }
    else:
        vi, en = OTHERS[key][:2] if key in OTHERS else (BY_KEY[key].vi, BY_KEY[key].en)
        number = row.figures.get(key)
        shown = "không có số liệu / no data" if number is None else str(number)
    return {
        "figure": key,
        "period": row.period,
        "vi": vi,
        "en": en,
        "value": number,
        "shown": shown,
        "definition": definition(key),
        **more,
    }


def shown_share(share: Share) -> str:
    """`87.3 % (131 / 150)`, or why there is none, in both languages."""
    if share.reason is not None:
        return f"{NOT_REPORTED[0]}: {share.reason[0]} / {NOT_REPORTED[1]}: {share.reason[1]}"
    return f"{share.percent} % ({share.part} / {share.whole})"


def month_table(connection: Connection, month: str, agency: str | None = None) -> list[Row]:
    """The figures of one month (`2026-11`), by agency in order of its id; of one agency when given."""
    return Book(connection, Period.parse(month)).rows(agency=agency)


def total(period: str, rows: Iterable[Row]) -> Row:
    """The sum of lines, of what can be added. Mail between agencies is in it twice, as sent and as received."""
    result = Row(period, {"agency": "*"})
    for row in rows:
        for one in FIGURES:
            result.figures[one.key] += row.figures[one.key]
        for mine, theirs in ((result.returned_by, row.returned_by), (result.observed_by, row.observed_by)):
            for rule, number in theirs.items():
                mine[rule] = mine.get(rule, 0) + number
    return result


class Behind(NamedTuple):
    """An event behind a number: `case` is its message, or a tombstone; empty for a recipient refused at the door."""

    case: str
    at: dt.datetime
    agency: str
    part: str


def figures_of(key: str) -> list[tuple[str, Figure]]:
    """The counts behind a figure or ratio, with their part in it. Raises KeyError."""
    if key in RATIO:
        ratio = RATIO[key]
        whole = [("denominator", BY_KEY[one]) for one in ratio.whole if one in BY_KEY and one not in ratio.part]
        return [("numerator", BY_KEY[one]) for one in ratio.part] + whole
    return [("count", BY_KEY[key])]


def definition(key: str) -> str:
    """What a figure counts, in words of the table `event`. Raises KeyError."""
    if key in OTHERS:
        return OTHERS[key][2]
    if key in RATIO:
        ratio = RATIO[key]
        parts = {one: BY_KEY[one].definition() for one in (*ratio.part, *ratio.whole) if one in BY_KEY}
        return "; ".join([ratio.definition(), *(f"{one} = {text}" for one, text in parts.items())])
    return BY_KEY[key].definition()


def behind(connection: Connection, period: Period, key: str, agencies: Iterable[str] | None) -> Iterator[Behind]:
    """The events behind a number, oldest first; of all agencies when None. Raises KeyError for no such figure."""
    e = db.event.c
    for part, figure in figures_of(key):
        question = select(e.message, e.at, e.agency).where(e.month.in_(period.months), figure.clause())
        if agencies is not None:
            question = question.where(e.agency.in_(tuple(agencies)))
        for row in connection.execute(question.order_by(e.at, e.id)):
            yield Behind(row.message, from_ms(row.at), row.agency, part)


def messages_of(connection: Connection, month: str, figure: str, agency: str) -> list[str]:
    """The case ids behind one number of a month. Raises KeyError for a figure there is not."""
    figures_of(figure)
    return [one.case for one in behind(connection, Period.parse(month), figure, (agency,))]


# ---------------------------------------------------------------------- proof


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the archive does not bear out. kind: missing (the archive has it, the figures do not), extra (the
    figures have it, the archive does not), changed, record (a record that does not fit its leaf), published."""

    kind: str
    case: str
    detail: str


@dataclass(slots=True)
class Proof:
    """What was looked at: messages and events; `unproved` events have no message in the archive (recipients refused at
    the door, mailboxes in use, unread mail, mail destroyed in good order) and are taken as they are."""

    messages: int = 0
    events: int = 0
    unproved: int = 0
    differences: list[Difference] = field(default_factory=list)


#: Events that no message proves: what they tell is not kept anywhere else.
_TOLD = ("kind", "agency", "direction", "message_class", "profile", "rule", "mode", "value", "scope")
_UNPROVED = ("refused_envelope", "active", "unread_over", "urgent_acked", "recalled", "registered", "imported")
_PIECE = 2000


def months(connection: Connection) -> list[Period]:
    """The months that have events or messages, oldest first."""
    e, m = db.event.c, db.message.c
    found = {Period.parse(one) for one in connection.execute(select(e.month).distinct()).scalars() if _MONTH.match(one)}
    tenth = 10 * 86_400_000  # shorter than a month: both its ends together touch every month there is
    for part in connection.execute(select(m.received_at // tenth).distinct()).scalars():
        for at in (int(part) * tenth, int(part) * tenth + tenth - 1):
            if 0 <= at < _LAST:  # a row may have been tampered with
                found.add(Period.of(from_ms(at).astimezone(VIETNAM).date()))
    return sorted(found, key=lambda one: one.first)


#: A month as events name it; the end of the last one that a `Period` can be.
_MONTH = re.compile(r"(19[7-9]\d|[2-9]\d\d\d)-(0[1-9]|1[0-2])\Z")
_LAST = 253_370_764_800_000


def prove(connection: Connection, period: Period) -> Proof:
    """Hold the events of a period against the archived messages: each record says what its message counts as, and the
    digest of the record is in the message's leaf of the tree."""
    proof = Proof()
    for month in period.months:  # one by one: a year of events need not fit into memory
        _prove_month(connection, proof, Period.parse(month))
    return proof


def _prove_month(connection: Connection, proof: Proof, period: Period) -> None:
    m, e = db.message.c, db.event.c
    known: dict[str, list[Any]] = defaultdict(list)  # events by the case they name
    columns = (e.key, e.kind, e.agency, e.direction, e.message_class, e.profile, e.rule, e.mode, e.value, e.scope)
    for row in connection.execute(select(*columns, e.message, e.at).where(e.month.in_(period.months))):
        proof.events += 1
        if row.kind in _UNPROVED:
            proof.unproved += 1
        else:
            known[row.message].append(row)
    leaves = _record_digests(connection, period)
    after = ""
    while True:
        question = (
            select(m.id, m.sha256, m.sender, m.received_at, m.message_class, m.profile, m.record)
            .where(
                m.received_at >= to_ms(period.start), m.received_at < to_ms(period.end), m.kind == "mail", m.id > after
            )
            .order_by(m.id)
            .limit(_PIECE)
        )
        rows = connection.execute(question).all()
        if not rows:
            break
        after = rows[-1].id
        for row in rows:
            proof.messages += 1
            _prove_one(connection, proof, row, known.pop(row.id, []), leaves.get(row.id))
    _prove_rest(connection, proof, known)


def _record_digests(connection: Connection, period: Period) -> dict[str, str]:
    """Case to the digest of its record, from the leaves. A message's leaf is written when it is received."""
    leaf = db.leaf.c
    question = select(leaf.case_id, leaf.entry).where(
        leaf.type == "message", leaf.at >= to_ms(period.start), leaf.at < to_ms(period.end) + 86_400_000
    )
    return {row.case_id: json.loads(row.entry).get("record", "") for row in connection.execute(question)}


def _prove_one(connection: Connection, proof: Proof, row: Any, events: list[Any], digest: str | None) -> None:
    if row.record == "{}" and _destroyed(connection, row.id):
        proof.unproved += len(events)  # its record is gone with its content; what it counted as stays
        return
    if digest is None:  # archived later than it was received: a mailbox read afterwards
        found = connection.execute(
            select(db.leaf.c.entry).where(db.leaf.c.case_id == row.id, db.leaf.c.type == "message")
        ).scalar()
        digest = json.loads(found).get("record", "") if found is not None else ""
    if hashlib.sha256(row.record.encode()).hexdigest() != digest:
        proof.differences.append(Difference("record", row.id, "the record is not the one that its leaf names"))
    told = json.loads(row.record).get("counts")
    if told is None:
        return  # archived by a version that did not write it
    expected: dict[str, tuple[str, ...]] = {}
    for kind, agency, way, rule, mode, value, scope in told:
        key = "|".join((row.sha256, row.sender.lower(), way, agency, kind, rule))
        expected[key] = (kind, agency, way, row.message_class, row.profile, rule, mode, value, scope)
    there = {one.key: one for one in events}
    for key, values in expected.items():
        one = there.pop(key, None)
        if one is None:
            if not _counted_elsewhere(connection, row, key, values):
                what = f"{values[0]} {values[5]}".strip()
                proof.differences.append(Difference("missing", row.id, f"{what} of {values[1] or '(none)'}"))
            continue
        given = tuple(one[1:10])
        if given != values or one.at != row.received_at:
            wrong = [name for name, a, b in zip(_TOLD, given, values, strict=True) if a != b] or ["time"]
            proof.differences.append(Difference("changed", row.id, f"{one.kind} of {one.agency}: {', '.join(wrong)}"))
    for one in there.values():
        if not _seen_elsewhere(connection, row.id):
            what = f"{one.kind} {one.rule}".strip()
            proof.differences.append(Difference("extra", row.id, f"{what} of {one.agency or '(none)'}"))


def _destroyed(connection: Connection, case: str) -> bool:
    return connection.execute(select(db.destroyed.c.message).where(db.destroyed.c.message == case)).first() is not None


def _counted_elsewhere(connection: Connection, row: Any, key: str, values: tuple[str, ...]) -> bool:
    """The same bytes may have been counted under another case; so may the same message with other lines on top."""
    e, m, k = db.event.c, db.message.c, db.likeness.c
    if connection.execute(select(e.id).where(e.key == key)).first() is not None:
        return True
    cores = [row.sha256, *connection.execute(select(k.core).where(k.message == row.id)).scalars()]
    alike = set(connection.execute(select(m.id).where(m.sha256.in_(cores))).scalars())
    alike |= set(connection.execute(select(k.message).where(k.core.in_(cores))).scalars())
    kind, agency, way, _, _, rule, *_ = values
    question = select(e.id).where(
        e.message.in_(alike), e.kind == kind, e.agency == agency, e.direction == way, e.rule == rule
    )
    return connection.execute(question.limit(1)).first() is not None


def _seen_elsewhere(connection: Connection, case: str) -> bool:
    """The message was seen in a further mailbox or journal later on; that counts for the agencies there."""
    i, s = db.imap_message.c, db.sighting.c
    return (
        connection.execute(select(i.uid).where(i.case_id == case).limit(1)).first() is not None
        or connection.execute(select(s.id).where(s.case_id == case).limit(1)).first() is not None
    )


def _prove_rest(connection: Connection, proof: Proof, events: dict[str, list[Any]]) -> None:
    """Events whose message was not received in the period: secrets have a tombstone, further sightings a message."""
    names = [one for one in events if one]
    buried: set[str] = set()
    elsewhere: set[str] = set()
    for start in range(0, len(names), 500):
        some = names[start : start + 500]
        buried |= set(connection.execute(select(db.tombstone.c.id).where(db.tombstone.c.id.in_(some))).scalars())
        m = db.message.c
        elsewhere |= set(connection.execute(select(m.id).where(m.id.in_(some))).scalars())
    for case, many in events.items():
        if case in buried:
            proof.differences += [
                Difference("extra", case, f"{one.kind} of {one.agency}, of a secret")
                for one in many
                if one.kind not in ("blocked_secret", "finding")
            ]
        elif case in elsewhere and _seen_elsewhere(connection, case):
            continue
        else:
            proof.differences += [
                Difference(
                    "extra", case, f"{one.kind} {one.rule}".strip() + f" of {one.agency or '(none)'}, no message"
                )
                for one in many
            ]


def first_month(connection: Connection) -> str:
    """The first month with events, or empty."""
    return connection.execute(select(func.min(db.event.c.month))).scalar() or ""


def numbers_by_month(connection: Connection) -> dict[str, int]:
    """How many events each month has: when a published month has others than then, it may have to be restated."""
    e = db.event.c
    return {row.month: row[1] for row in connection.execute(select(e.month, func.count()).group_by(e.month))}


def series(connection: Connection, months: Iterable[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Documents sent and received by month and agency."""
    e = db.event.c
    question = (
        select(e.month, e.agency, e.kind, func.count())
        .where(e.month.in_(tuple(months)), e.kind.in_(_FIRST), e.message_class.in_(DOCUMENTS))
        .group_by(e.month, e.agency, e.kind)
    )
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for month, agency, kind, number in connection.execute(question):
        found[month, agency][kind == "received"] += number
    return {key: (one[0], one[1]) for key, one in found.items()}
