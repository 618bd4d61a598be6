"""Old mail under another policy: judge again from the facts the archive keeps, without touching message bytes."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import Connection, select

from gateway import database as db
from gateway import policy
from gateway.directory import Directory
from gateway.inspection.findings import Inspection
from gateway.message import VIETNAM, Address, Envelope, NullSender, Origin, Recipient

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
        for name in ("verdicts_before", "verdicts_after", "rules_before", "rules_after"):
            getattr(self, name).update(getattr(other, name))
        self.changes += other.changes


def stored(
    connection: Connection, since: dt.datetime | None = None, until: dt.datetime | None = None
) -> Iterator[Stored]:
    """The archived messages of a time, oldest first, a few at a time."""
    m = db.message.c
    query = select(m.id, m.received_at, m.direction, m.agency, m.verdict, m.record).where(m.kind == "mail")
    if since is not None:
        query = query.where(m.received_at >= int(since.timestamp() * 1000))
    if until is not None:
        query = query.where(m.received_at < int(until.timestamp() * 1000))
    rows = connection.execution_options(stream_results=True, yield_per=BATCH).execute(query.order_by(m.received_at))
    for row in rows:
        yield Stored(*row)


def situation(row: Stored, record: dict[str, Any]) -> policy.Situation:
    """What was judged then. `record`: the row's, read from JSON. Raises ValueError when it is not what was written."""
    try:
        envelope = record["envelope"]
        sender = _address(envelope["sender"]) if envelope["sender"] else NullSender()
        return policy.Situation(
            at=dt.datetime.fromtimestamp(row.at_ms / 1000, VIETNAM),
            direction=row.direction,
            origin=Origin(**record["origin"]),
            envelope=Envelope(sender, tuple(Recipient(_address(one)) for one in envelope["recipients"])),
            inspection=Inspection.model_validate(record["inspection"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"record of {row.case}: {error}") from None


def _address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(local, domain) if local else Address(domain, "")


def judge(rows: Iterable[Stored], judged_by: policy.Policy, directory: Directory) -> Result:
    """Judge rows again in this process."""
    result = Result()
    for row in rows:
        result.total += 1
        try:
            record = json.loads(row.record)
            verdict = policy.judge(judged_by, directory, situation(row, record))
            told = record["verdict"]
        except (ValueError, KeyError):
            result.unreadable.append(row.case)
            continue
        before = tuple(sorted({f"{one['rule']}/{one['mode']}" for one in told.get("findings", ())}))
        after = tuple(sorted({f"{one.rule}/{one.mode}" for one in verdict.findings}))
        result.verdicts_before[row.verdict] += 1
        result.verdicts_after[verdict.disposition.text] += 1
        result.rules_before.update((one, row.agency) for one in before)
        result.rules_after.update((one, row.agency) for one in after)
        if before != after or row.verdict != verdict.disposition.text:
            at = dt.datetime.fromtimestamp(row.at_ms / 1000, VIETNAM)
            result.changes.append(
                Change(row.case, at, row.agency, row.verdict, verdict.disposition.text, before, after)
            )
    return result


_here: tuple[policy.Policy, Directory] | None = None


def _prepare(text: str, directory: Directory) -> None:
    global _here
    _here = (policy.restore(text), directory)


def _batch(rows: list[Stored]) -> Result:
    assert _here is not None
    return judge(rows, *_here)


def run(rows: Iterator[Stored], judged_by: policy.Policy, directory: Directory, processes: int = 2) -> Result:
    """Judge rows again, in some processes when there are many."""
    first = list(islice(rows, BATCH))
    if len(first) < BATCH or processes < 2:
        result = judge(first, judged_by, directory)
        result.add(judge(rows, judged_by, directory))
        return result
    result = Result()
    with ProcessPoolExecutor(processes, initializer=_prepare, initargs=(judged_by.canonical(), directory)) as pool:
        waiting = [pool.submit(_batch, first)]
        while batch := list(islice(rows, BATCH)):
            waiting.append(pool.submit(_batch, batch))
            if len(waiting) > 4 * processes:
                result.add(waiting.pop(0).result())
        for one in waiting:
            result.add(one.result())
    return result
