"""Where else an archived message was seen: in another mailbox, in a journal. It is archived once, and counted once for
each agency and direction.

Functions for `Database.write` and `Database.read`. What a sighting has that the archived bytes have not (the header
lines on top of a copy, the report of a journal) is kept with it, so that the copy can be put together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from gateway import database as db


@dataclass(frozen=True, slots=True)
class Sighting:
    """via: `imap`, `journal` or `bcc`; place: the mailbox, or the journal address; digest: SHA-256 of the bytes that
    were seen; head: what stood on top of the message there; envelope: what is known of it, as JSON."""

    via: str
    place: str
    digest: str
    head: bytes = b""
    envelope: str = ""


class Counted(Protocol):
    """What of `archive.Count` is looked at here."""

    @property
    def kind(self) -> str: ...
    @property
    def agency(self) -> str: ...
    @property
    def direction(self) -> str: ...
    @property
    def rule(self) -> str: ...


C = TypeVar("C", bound=Counted)

# What was imported from files was seen by nobody: it stands for no message that comes.
# Said to the driver directly: these run once for each message that is read from a mailbox.
_FIRST = (
    "SELECT id, kind FROM message WHERE kind <> 'imported' AND (sha256 IN ({0}, {0}) OR id IN"
    " (SELECT message FROM likeness WHERE core IN ({0}, {0}))) ORDER BY id LIMIT 1"
)
#: Of mail that was only watched: a message that comes by SMTP later is owed to somebody, and is a row of its own.
_WATCHED = _FIRST.replace("WHERE ", "WHERE channel IN ('imap', 'journal') AND ", 1)
_EVENTS = "SELECT kind, agency, direction, rule FROM event WHERE message = {0}"
_MARK = {"sqlite": "?", "postgresql": "%s"}


def first(connection: Connection, sha256: str, core: str) -> tuple[str, bool]:
    """The case of the first archived message of these bytes, whichever way it came, or of one that is alike below the
    fields on top (`likeness.core`), and whether it is a letter of our own, such as a notice; empty when there is none.
    """
    question = _FIRST.format(_MARK[connection.dialect.name])
    row = connection.exec_driver_sql(question, (sha256, core, sha256, core)).first()
    return (row[0], row[1] != "mail") if row else ("", False)


def watched(connection: Connection, sha256: str, core: str) -> str:
    """`first` among the messages that were only read from a mailbox or told of by a journal."""
    question = _WATCHED.format(_MARK[connection.dialect.name])
    row = connection.exec_driver_sql(question, (sha256, core, sha256, core)).first()
    return row[0] if row else ""


def uncounted(connection: Connection, case: str, counts: Iterable[C]) -> list[C]:
    """Those of `counts` that no sighting of this message was counted for. Not by their keys: a mailbox shows other
    bytes and another sender than the envelope had."""
    question = _EVENTS.format(_MARK[connection.dialect.name])
    there = {tuple(row) for row in connection.exec_driver_sql(question, (case,))}
    return [one for one in counts if (one.kind, one.agency, one.direction, one.rule) not in there]


def add(connection: Connection, case: str, sighting: Sighting, at: int) -> bool:
    """Write down a sighting. at: milliseconds. The same bytes at the same place are one; False when it was known."""
    row = {
        "case_id": case,
        "at": at,
        "via": sighting.via,
        "place": sighting.place,
        "digest": sighting.digest,
        "head": sighting.head,
        "envelope": sighting.envelope,
    }
    return bool(db.insert(connection, db.sighting, [row], ignore=True))


def of(connection: Connection, case: str) -> Sequence[Any]:
    """All of one message, in order of time."""
    table = db.sighting
    return connection.execute(table.select().where(table.c.case_id == case).order_by(table.c.id)).all()
