"""Figures by agency and month: which events a message makes, and the questions that add them up.

Every figure is a count of rows in `event`; each row names its message. The key of an event is made of the message's
digest, sender, direction and agency, so that the same message offered again counts once for each agency.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select

from gateway import database as db
from gateway.archive import Count
from gateway.inspection.findings import Inspection, SignatureState
from gateway.message import VIETNAM, NullSender, Origin, Received, Recipient, Sender

if TYPE_CHECKING:
    from gateway.directory import Directory
    from gateway.policy import Finding, Verdict

#: The event that tells what became of a message. Messages that were delivered, with or without a warning, have none:
#: they are the rest.
_OUTCOMES = {
    "hold": "held",
    "return": "returned",
    "reject-malware": "malware",
    "block-secret": "blocked_secret",
}
_SIGNED = {SignatureState.VALID, SignatureState.VALID_UNTIMESTAMPED, SignatureState.UNKNOWN_REVOCATION}
#: Rules on time limits: what breaks one of them is late (rules.md 1.7).
_LATE = ("TM-01", "TM-02", "TM-03")


def counts(
    received: Received, direction: str, verdict: Verdict, inspection: Inspection | None = None
) -> tuple[Count, ...]:
    """The events of one message: for outgoing mail for the sender's agency, for incoming mail for each agency it is
    addressed to, for internal mail both. An agency that is not in the directory is the empty one."""
    secret = verdict.disposition.text == "block-secret"
    envelope = received.envelope
    found: list[Count] = []
    sides: list[tuple[str, str, str]] = []  # direction, agency, strongest disposition that concerns it
    if direction in ("out", "internal"):
        sides.append(("out", verdict.agency, verdict.disposition.text))
    if direction in ("in", "internal"):
        agencies: dict[str, Any] = {}
        for one in verdict.recipients:
            agencies[one.agency] = max(agencies.get(one.agency, one.disposition), one.disposition)
        if direction == "internal":
            agencies = {agency: worst for agency, worst in agencies.items() if agency}
        sides += [("in", agency, worst.text) for agency, worst in agencies.items()]
    signed = inspection is not None and any(
        signature.state in _SIGNED for file in inspection.files for signature in file.signatures
    )
    for way, agency, outcome in sides:

        def add(
            kind: str, rule: str = "", mode: str = "", value: str = "", way: str = way, agency: str = agency
        ) -> None:
            key = "|".join((received.body.sha256, envelope.sender.key, way, agency, kind, rule))
            shown = "" if secret else verdict.message_class
            found.append(Count(key, kind, agency, way, shown, verdict.profile, rule, mode, value))

        # A message that is refused was not sent; one that is held was, and waits for a person.
        if outcome in ("deliver", "deliver-warn", "hold"):
            add("sent" if way == "out" else "received", value=verdict.delivery_mode)
            if signed:
                add("signed")
            if verdict.urgency:
                add("urgent", value=verdict.urgency)
        if outcome in _OUTCOMES:
            add(_OUTCOMES[outcome])
        for one in verdict.findings:
            if secret and one.disposition.text != "block-secret":
                continue
            add("finding", one.rule, one.mode, one.disposition.text)
    # One rule may have several findings in a message; it counts once.
    return tuple({one.key: one for one in found}.values())


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


def _agency_id(agency: Any) -> str:
    return agency if isinstance(agency, str) else getattr(agency, "id", "")


# ---------------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Figure:
    """One column: its key, what it is called, what it counts, and which events those are."""

    key: str
    vi: str
    en: str
    counts: Callable[[Any], bool]


def _first(event: Any) -> bool:
    """The event that stands for the message itself."""
    return event.kind in ("sent", "received")


FIGURES = (
    Figure("sent", "Thư gửi đi", "messages sent", lambda e: e.kind == "sent"),
    Figure("received", "Thư nhận", "messages received", lambda e: e.kind == "received"),
    Figure(
        "official_sent",
        "Văn bản gửi",
        "official documents sent",
        lambda e: e.kind == "sent" and e.message_class == "OFFICIAL_DOC",
    ),
    Figure(
        "official_received",
        "Văn bản nhận",
        "official documents received",
        lambda e: e.kind == "received" and e.message_class == "OFFICIAL_DOC",
    ),
    Figure("drafts", "Dự thảo", "drafts", lambda e: _first(e) and e.message_class == "DRAFT"),
    Figure(
        "signed",
        "Có chữ ký số",
        "official documents with a valid digital signature",
        lambda e: e.kind == "signed" and e.message_class == "OFFICIAL_DOC",
    ),
    Figure("e_only", "Chỉ điện tử", "electronic only", lambda e: _first(e) and e.value == "electronic_only"),
    Figure(
        "e_and_paper",
        "Điện tử và giấy",
        "electronic and paper",
        lambda e: _first(e) and e.value == "electronic_and_paper",
    ),
    Figure("unlisted", "Ngoài danh mục", "on neither list", lambda e: _first(e) and e.value == "unlisted"),
    Figure("citizen", "Thư công dân", "from citizens", lambda e: _first(e) and e.message_class == "CITIZEN_MAIL"),
    Figure("urgent", "Khẩn", "with an urgency mark", lambda e: e.kind == "urgent"),
    Figure("returned", "Bị trả lại", "returned", lambda e: e.kind == "returned"),
    Figure("held", "Tạm giữ", "held", lambda e: e.kind == "held"),
    Figure("blocked_secret", "Chặn vì dấu mật", "blocked for a secrecy mark", lambda e: e.kind == "blocked_secret"),
    Figure("malware", "Mã độc", "malware", lambda e: e.kind == "malware"),
    Figure("late", "Gửi muộn", "late", lambda e: e.kind == "finding" and e.rule in _LATE),
    Figure("refused_envelope", "Từ chối địa chỉ", "recipients refused", lambda e: e.kind == "refused_envelope"),
)


@dataclass(slots=True)
class Row:
    """One agency in one month. `figures` by key; `returned_by` and `observed_by`: rule to number of messages."""

    month: str
    agency: str
    figures: dict[str, int] = field(default_factory=lambda: {one.key: 0 for one in FIGURES})
    returned_by: dict[str, int] = field(default_factory=dict)
    observed_by: dict[str, int] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Flat, with stable keys, for JSON and CSV."""
        return {
            "month": self.month,
            "agency": self.agency,
            **self.figures,
            "returned_by": dict(sorted(self.returned_by.items())),
            "observed_by": dict(sorted(self.observed_by.items())),
        }


def month_table(connection: Connection, month: str, agency: str | None = None) -> list[Row]:
    """The figures of one month (`2026-11`), by agency in order of its id; of one agency when given."""
    e = db.event.c
    columns = (e.agency, e.kind, e.direction, e.message_class, e.rule, e.mode, e.value)
    question = select(*columns, func.count().label("number")).where(e.month == month).group_by(*columns)
    if agency is not None:
        question = question.where(e.agency == agency)
    rows: dict[str, Row] = {}
    for event in connection.execute(question):
        row = rows.setdefault(event.agency, Row(month, event.agency))
        for figure in FIGURES:
            if figure.counts(event):
                row.figures[figure.key] += event.number
        if event.kind == "finding" and event.value in ("return", "reject-malware", "block-secret"):
            row.returned_by[event.rule] = row.returned_by.get(event.rule, 0) + event.number
        if event.kind == "finding" and event.mode == "observe":
            row.observed_by[event.rule] = row.observed_by.get(event.rule, 0) + event.number
    return [rows[one] for one in sorted(rows)]


def total(month: str, rows: Iterable[Row]) -> Row:
    """The sum over agencies. Internal mail is in it twice, as sent and as received."""
    result = Row(month, "*")
    for row in rows:
        for key, number in row.figures.items():
            result.figures[key] += number
        for mine, theirs in ((result.returned_by, row.returned_by), (result.observed_by, row.observed_by)):
            for rule, number in theirs.items():
                mine[rule] = mine.get(rule, 0) + number
    return result


def messages_of(connection: Connection, month: str, figure: str, agency: str) -> list[str]:
    """The case ids behind one number. Raises KeyError for a figure there is not."""
    wanted = {one.key: one for one in FIGURES}[figure]
    e = db.event.c
    rows = connection.execute(select(db.event).where(e.month == month, e.agency == agency).order_by(e.id))
    return [event.message for event in rows if wanted.counts(event)]
