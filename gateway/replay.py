"""Old mail under another policy: judge again from the facts the archive keeps, without touching message bytes."""

from __future__ import annotations

import datetime as dt
import gc
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, select

from gateway import database as db
from gateway import policy
from gateway.directory import Directory
from gateway.errors import Failure
from gateway.inspection.findings import Inspection, SenderFacts
from gateway.message import VIETNAM, Address, Envelope, NullSender, Origin, Recipient
from gateway.store import Damaged, Store

#: Messages handed to a process at once: long enough to hide the transfer, short enough for memory.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """One archived message: `record` as archive.py wrote it."""

    case: str
    at_ms: int
    direction: str
    agency: str
    verdict: str
    record: str
    sha256: str = ""  # of the message's bytes, for one that must be inspected again


@dataclass(frozen=True, slots=True)
class Change:
    """A message that another policy would judge otherwise."""

    case: str
    at: dt.datetime
    agency: str
    before: str
    after: str
    rules_before: tuple[str, ...]
    rules_after: tuple[str, ...]


@dataclass(slots=True)
class Result:
    """Numbers before and after: by verdict, and by (rule, agency)."""

    total: int = 0
    unreadable: list[str] = field(default_factory=list)
    inspected: list[str] = field(default_factory=list)  # cases whose facts were read anew from the bytes
    verdicts_before: Counter[str] = field(default_factory=Counter)
    verdicts_after: Counter[str] = field(default_factory=Counter)
    rules_before: Counter[tuple[str, str]] = field(default_factory=Counter)
    rules_after: Counter[tuple[str, str]] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Changed messages over all."""
        return len(self.changes) / self.total if self.total else 0.0

    def add(self, other: Result) -> None:
        self.total += other.total
        self.unreadable += other.unreadable
        self.inspected += other.inspected
        for name in ("verdicts_before", "verdicts_after", "rules_before", "rules_after"):
            getattr(self, name).update(getattr(other, name))
        self.changes += other.changes


#: Facts of one message read anew, or None.
Inspect = Callable[[Stored], "_Record | None"]


def stored(
    connection: Connection, since: dt.datetime | None = None, until: dt.datetime | None = None
) -> Iterator[Stored]:
    """The archived messages of a time, oldest first, a few at a time."""
    m = db.message.c
    query = select(m.id, m.received_at, m.direction, m.agency, m.verdict, m.record, m.sha256).where(m.kind == "mail")
    if since is not None:
        query = query.where(m.received_at >= int(since.timestamp() * 1000))
    if until is not None:
        query = query.where(m.received_at < int(until.timestamp() * 1000))
    rows = connection.execution_options(stream_results=True, yield_per=BATCH).execute(query.order_by(m.received_at))
    for row in rows:
        yield Stored(*row)


class _Told(BaseModel):
    """A finding of the verdict that was given then, as far as it is compared."""

    rule: str
    mode: str = ""


class _Verdict(BaseModel):
    findings: tuple[_Told, ...] = ()


class _Envelope(BaseModel):
    sender: str = ""
    recipients: tuple[str, ...]


class _Past(BaseModel):
    documents: tuple[policy.KnownDocument, ...] = ()
    calendar_publications: tuple[dt.datetime, ...] = ()
    meeting_start: dt.datetime | None = None
    meeting_chaired_by_committee: bool | None = None


class _Record(BaseModel):
    """What archive.py wrote. Read as one JSON text by pydantic's own parser: half the time of doing it in steps."""

    envelope: _Envelope
    origin: Origin
    inspection: Inspection
    verdict: _Verdict
    history: _Past = _Past()


def read(record: str) -> _Record:
    """Raises ValueError when it is not what this program's archive writes."""
    return _Record.model_validate_json(record)


def situation(row: Stored, record: _Record | None = None) -> policy.Situation:
    """What was judged then. Raises ValueError."""
    known = record or read(row.record)
    sender, past = known.envelope.sender, known.history
    return policy.Situation(
        at=dt.datetime.fromtimestamp(row.at_ms / 1000, VIETNAM),
        direction=row.direction,
        origin=known.origin,
        envelope=Envelope(
            _address(sender) if sender else NullSender(),
            tuple(Recipient(_address(one)) for one in known.envelope.recipients),
        ),
        inspection=known.inspection,
        history=policy.History(
            past.documents, past.calendar_publications, past.meeting_start, past.meeting_chaired_by_committee
        ),
    )


def _address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(local, domain) if local else Address(domain, "")


def judge(
    rows: Iterable[Stored], judged_by: policy.Policy, directory: Directory, inspect: Inspect | None = None
) -> Result:
    """Judge rows again in this process. `inspect` reads the facts of a message anew where the record lacks them."""
    result = Result()
    for row in rows:
        try:
            record = read(row.record)
        except ValueError:
            fresh = inspect(row) if inspect is not None else None
            if fresh is None:
                result.total += 1
                result.unreadable.append(row.case)
                continue
            record = fresh
            result.inspected.append(row.case)
        result.total += 1
        verdict = policy.judge(judged_by, directory, situation(row, record))
        before = tuple(sorted({f"{one.rule}/{one.mode}" for one in record.verdict.findings}))
        after = tuple(sorted({f"{one.rule}/{one.mode}" for one in verdict.findings}))
        outcome = verdict.disposition.text
        result.verdicts_before[row.verdict] += 1
        result.verdicts_after[outcome] += 1
        for one in before:
            result.rules_before[one, row.agency] += 1
        for one in after:
            result.rules_after[one, row.agency] += 1
        if before != after or row.verdict != outcome:
            at = dt.datetime.fromtimestamp(row.at_ms / 1000, VIETNAM)
            result.changes.append(Change(row.case, at, row.agency, row.verdict, outcome, before, after))
    return result


def inspector(store: Store, settings: Any) -> Inspect:
    """Reads a message again from its bytes: what has to be done where the stored facts cannot be used. settings:
    `examine.Settings`. Who sent it stays as it was found then, for the DNS of today does not tell."""

    def inspect(row: Stored) -> _Record | None:
        from gateway.inspection import examine

        try:
            record = json.loads(row.record)
            kept = record.get("inspection", {}).get("sender", {})
            facts = examine.examine_message(store.read(row.sha256), settings)
            facts = facts.model_copy(update={"sender": SenderFacts.model_validate(kept), "texts": {}})
            return _Record.model_validate({**record, "inspection": facts})
        except (Failure, Damaged, OSError, KeyError, ValueError, AttributeError, TypeError):
            return None  # the bytes are gone or damaged, or the record is none

    return inspect


_here: tuple[policy.Policy, Directory] | None = None


def _batch(rows: list[Stored]) -> Result:
    assert _here is not None
    return judge(rows, *_here)


def run(
    rows: Iterator[Stored],
    judged_by: policy.Policy,
    directory: Directory,
    processes: int = 2,
    inspect: Inspect | None = None,
) -> Result:
    """Judge rows again, in some processes when there are many; what must be inspected again is, in this one."""
    first = list(islice(rows, BATCH))
    if len(first) < BATCH or processes < 2:
        result = judge(first, judged_by, directory, inspect)
        result.add(judge(rows, judged_by, directory, inspect))
        return result
    global _here
    _here = (judged_by, directory)
    again: list[Stored] = []
    result = Result()

    def take(batch: list[Stored], future: Future[Result]) -> None:
        part = future.result()
        if inspect is not None and part.unreadable:
            missing = set(part.unreadable)
            again.extend(row for row in batch if row.case in missing)
            part.total -= len(missing)
            part.unreadable = []
        result.add(part)

    try:
        # Forked, so that the directory (half a million objects in a province) is shared, not sent. No thread of ours
        # runs yet but the database's, which no child uses.
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
            gc.freeze()
            waiting = [(first, pool.submit(_batch, first))]
            while batch := list(islice(rows, BATCH)):
                waiting.append((batch, pool.submit(_batch, batch)))
                if len(waiting) > 4 * processes:
                    take(*waiting.pop(0))
            for one in waiting:
                take(*one)
    finally:
        _here = None
        gc.unfreeze()
    result.add(judge(again, judged_by, directory, inspect))
    return result
