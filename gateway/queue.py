"""What is owed and not yet done: the loop over recipients that are due, and the mail that waits for a person.

The queue is the rows of `recipient` with state `queued`; nothing is known here that a restart would lose. Each next hop
has a lane of its own with at most `connections` connections, so one that is dead or slow delays its own mail alone.

One attempt leaves two marks in the table `attempt`, the relay journal: the intent, durable before DATA, and the result.
An intent without a result at start-up is a delivery that may have happened: it is marked `interrupted`, logged as a
possible duplicate, and tried again. Losing mail is no option, so a duplicate is; but each one is explained.

The loop makes turns: one transaction writes down what has happened since the last and claims what is due, with the
intents. A claimed recipient has no `next_attempt_at` until its result is written, and names its `owner`.

Several gateways may share a database of PostgreSQL. Each holds a lease there and renews it while it lives; what a
gateway has claimed is left alone until its lease is over, then the others take it up. Its own claims it takes up at
once when it starts again. One that cannot renew its lease claims nothing and begins no delivery. Over SQLite there is
one gateway (`serve.lock`): whatever is claimed when it starts is its own.

A person's decisions come from another process (`congvan held`, `congvan queue`): they are rows too, and a touch of the
file `queue.poke` beside the database, which the daemon looks at once a second, tells it to look at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import random
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, exc

from gateway import alerts, durable, register, returns
from gateway import database as db
from gateway.archive import Notice, append_leaf, append_notice, clean, from_ms, stamp
from gateway.config import Gateway, NextHop
from gateway.database import Database
from gateway.delivery import Connection as HopConnection
from gateway.delivery import Content, Letter, Outcome, Target, Timeouts
from gateway.errors import Failure
from gateway.hashtree import leaf_hash
from gateway.inspection.findings import Document, Inspection
from gateway.store import Damaged, Store

if TYPE_CHECKING:
    from gateway.log import MailLog

#: Messages claimed for each connection. All have their intent written: more would save little and make a crash explain
#: duplicates that cannot be.
_AHEAD = 4
#: Rows of one look at the queue.
_ROWS = 500
#: Late recipients told of in one go.
_LATE = 100
#: Recipients of one transaction with a next hop: every server takes 100 (RFC 5321 section 4.5.3.1.8).
_RECIPIENTS = 100
#: Bytes of one message that are read into memory; larger ones are read from disk while they are sent.
_IN_MEMORY = 1 << 20
#: Bytes of a message that is read together with others, in one change of threads.
_SMALL = 1 << 16
#: Seconds between two turns: what comes in between shares a transaction. Nobody notices in a mail.
_PACE = 0.01
#: How long a connection is kept without mail, seconds.
_IDLE = 5.0
#: A next hop that cannot be used is left alone for a minute, then two, up to five (the first step of the schedule).
_BACK_OFF = (60.0, 120.0, 240.0, 300.0)
#: Sessions of one lane that break one after another before it counts as down (Postfix: 1 cohort of 5).
_BREAKS = 3
#: After so many good attempts a lane that was crowded tries one connection more.
_REGAIN = 50
#: A message given back whole to its sender (RET=FULL) may be this large (Postfix bounce_size_limit: 50000).
_WHOLE = 50_000
#: Seconds between looks at `queue.poke`, and between looks for mail that is late.
_POKE, _REMIND = 1.0, 60.0
#: Seconds that the claims of a gateway are its own after it was heard of, how often it is heard of, and how long it
#: begins deliveries without: what it has begun then has a quarter of the lease to end.
_LEASE, _RENEW, _FRESH = 60.0, 15.0, 45.0
#: The clock of the host is followed when it is moved gently; by more than this at once, in seconds, it has jumped.
_JUMP = 5.0
#: Seconds after a failed turn.
_WRITE_AGAIN = 2.0

_DUE = """
SELECT r.id, r.message, r.address, r.notify, r.orcpt, r.destination, r.attempts, r.first_attempt_at, r.last_reply,
       m.kind, m.sender, m.sha256, m.size, m.trace, m.smtputf8, m.ret, m.envid, m.received_at, l.entry, l.hash
FROM recipient r JOIN message m ON m.id = r.message LEFT JOIN leaf l ON l.case_id = m.id AND l.type = 'message'
"""


@dataclass(slots=True)
class Due:
    """One recipient that is owed a message, with what of the message an attempt needs. Times in milliseconds."""

    id: int
    case: str
    address: str
    notify: str
    orcpt: str
    destination: str
    attempts: int
    first_attempt_at: int | None
    last_reply: str
    kind: str
    sender: str
    sha256: str
    size: int
    trace: bytes
    smtputf8: int
    ret: str
    envid: str
    received_at: int
    entry: bytes | None
    hash: bytes | None
    moved: int = 0  # of the jumps of the clock, those that `first_attempt_at` has taken part in


@dataclass(slots=True)
class _Job:
    """One message for one next hop."""

    rows: list[Due]
    content: Content | None = None

    @property
    def first(self) -> Due:
        return self.rows[0]


@dataclass(slots=True)
class _Settled:
    """What became of one recipient, as it goes into the rows."""

    row: Due
    state: str
    result: str
    reply: str
    next_attempt_at: int | None
    attempted: bool  # an intent is open
    at: int
    counted: bool = True  # as an attempt of the schedule


@dataclass(slots=True)
class _Results:
    """What has happened and is not written down yet."""

    settled: list[_Settled] = field(default_factory=list)
    leaves: list[dict[str, Any]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.settled)

    def then(self, later: _Results) -> _Results:
        return _Results(self.settled + later.settled, self.leaves + later.leaves, self.notices + later.notices)


@dataclass(slots=True)
class _Claimed:
    """What a turn found due."""

    jobs: list[_Job] = field(default_factory=list)
    put_off: list[_Job] = field(default_factory=list)  # their hop is down, or there is none
    shut: set[str] = field(default_factory=set)  # lanes for which there may be more
    unread: bool = False  # there were too many rows for one turn
    pause: float = _REMIND
    unreadable: list[int] = field(default_factory=list)
    lost: list[_Settled] = field(default_factory=list)  # results for what another gateway has taken up


class _Lane:
    """The mail of one next hop: what is pending, what is under way, and how the hop is."""

    def __init__(self, hop: NextHop) -> None:
        self.hop = hop
        self.pending: deque[_Job] = deque()
        self.workers: dict[asyncio.Task[None], HopConnection] = {}
        self.idle: list[tuple[float, HopConnection]] = []
        self.limit = hop.connections
        self.more = False  # the database may hold more that is due
        self.down_until = 0.0  # loop time
        self.down_reply = ""
        self.downs = 0  # times in a row that it was found down
        self.breaks = 0  # sessions in a row that broke
        self.successes = 0

    def room(self) -> int:
        """How many messages it takes now; -1: it is down, and what is due is put off."""
        if self.down_until > asyncio.get_running_loop().time():
            return -1
        if self.downs:  # one message tries whether it is back
            return 0 if self.workers or self.pending else 1
        return max(0, _AHEAD * self.limit - len(self.pending))


class Queue:
    """Delivers what is due, tells senders what failed, and lets people decide about held mail."""

    def __init__(
        self,
        database: Database,
        store: Store,
        settings: Gateway,
        clock: Callable[[], float] = time.time,
        log: Any = None,
        *,
        mail_log: MailLog | None = None,
        timeouts: Timeouts | None = None,
        chance: Callable[[], float] = random.random,
        steady: Callable[[], float] | None = None,
    ) -> None:
        """`clock`: seconds since the epoch. `chance`: for the jitter, from 0 to 1. `steady`: seconds that nobody can
        set; with a clock of one's own, that clock."""
        self._database = database
        self._store = store
        self._settings = settings
        self._follower = register.Follower(settings.registers, log)
        self._clock = clock
        self._steady = steady or (_since_boot if clock is time.time else lambda: self._clock())
        self._ahead = clock() - self._steady()  # of the clock, when it was last looked at
        self._unreadable: set[int] = set()  # recipients whose rows cannot be read; told once
        self._moved = 0  # sum of all jumps, milliseconds
        self._log = log
        self._mail_log = mail_log
        self._timeouts = timeouts or Timeouts()
        self._chance = chance
        self._lanes = {hop.name: _Lane(hop) for hop in settings.next_hops}
        self._wake = asyncio.Event()
        self._results = _Results()
        self._turned = 0.0  # when the last turn ended, loop time
        self._stopping = False
        self._tasks: set[asyncio.Future[None]] = set()
        self._poke_file = store.root.parent / "queue.poke"
        self._shared = database.engine.dialect.name == "postgresql"
        self._owner = ""  # who we are in the rows, from the start of the loop on
        self._mine: set[int] = set()  # recipients that are claimed, and known here
        self._unsure = False  # did the last turn claim more than we know of? Its COMMIT may have failed on the way back
        self._renewed = self._heard = 0.0  # of our lease, loop time: the last time, and the first without a lapse since

    # ------------------------------------------------------------------------------------------------------ the loop

    def wake(self) -> None:
        """There may be something new: look now."""
        self._wake.set()

    async def run(self, stop: asyncio.Event, drain: float = 15.0) -> None:
        """Deliver until `stop`; then let attempts under way finish, for `drain` seconds at most."""
        loop = asyncio.get_running_loop()
        works = [self._stopper(stop), self._watch_poke(), self._reminders()]
        helpers = [asyncio.create_task(work) for work in works]
        recovered = False
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    if not recovered:
                        await self._recover()
                        recovered = True
                        if self._shared:
                            helpers.append(asyncio.create_task(self._keep_lease()))
                    pause = await self._turn()
                except Failure as failure:
                    self._error("queue cannot reach the database", reason=failure.private)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _WRITE_AGAIN)
                    self._wake.set()
                    continue
                timer = loop.call_later(pause, self._wake.set)
                await self._wake.wait()
                timer.cancel()
                if (early := self._turned + _PACE - loop.time()) > 0:
                    await asyncio.sleep(early)
        finally:
            for helper in helpers:
                helper.cancel()
            await self._drain(drain)

    async def _stopper(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _watch_poke(self) -> None:
        seen = _touched(self._poke_file)
        while True:
            await asyncio.sleep(_POKE)
            if (now := _touched(self._poke_file)) != seen or abs(self._jump()) > _JUMP:
                seen = now
                self.wake()

    async def _drain(self, seconds: float) -> None:
        """Whoever is sending content is waited for: a cut there makes a duplicate. The others lose nothing."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        for patience in (min(1.0, seconds), seconds):
            busy = [task for lane in self._lanes.values() for task in lane.workers]
            if busy:
                await asyncio.wait(busy, timeout=max(0.0, min(patience, end - loop.time())))
            for lane in self._lanes.values():
                for task, connection in lane.workers.items():
                    if not connection.sending or loop.time() >= end:
                        task.cancel()
        workers = [task for lane in self._lanes.values() for task in lane.workers]
        await asyncio.gather(*workers, return_exceptions=True)
        for lane in self._lanes.values():
            for job in lane.pending:
                self._settle(job, _stopped(job, False), again=True)
            lane.pending.clear()
            for _, connection in lane.idle:
                await connection.close()
            lane.idle.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)
        try:
            await self._turn(claim=False)
        except Failure as failure:  # the intents stay open: the next start finds them
            self._error("results not written", reason=failure.private)

    async def _recover(self) -> None:
        """What our last process left claimed."""

        def find(connection: Connection) -> list[Any]:
            # Claims without an owner are of an earlier version of this program.
            rows = self._take_up(connection, now, "owner IN ('', :me)" if self._shared else ":me = :me")
            if self._shared:
                self._renew(connection)
            # A clock that was set back while nobody looked would keep mail waiting until it has caught up.
            latest = now + int(max(self._settings.retry.schedule) * (1 + self._settings.retry.jitter) * 1000)
            values = {"now": now, "latest": latest}
            early = "UPDATE recipient SET next_attempt_at = :now WHERE state = 'queued' AND next_attempt_at > :latest"
            first = "UPDATE recipient SET first_attempt_at = :now WHERE state = 'queued' AND first_attempt_at > :now"
            _execute(connection, early, [values])
            _execute(connection, first, [{"now": now}])
            return rows

        def newest(connection: Connection) -> int:
            return int(_execute(connection, "SELECT coalesce(max(at), 0) FROM leaf", [{}]).scalar())

        now = self._now()
        behind = await self._database.read(newest) / 1000 - now / 1000
        if behind > _JUMP:
            self._error("ALARM: the clock is behind the archive", seconds=round(behind))
        try:
            self._owner = await asyncio.to_thread(durable.identity, self._store.root.parent)
        except OSError as error:
            raise Failure("Local error", f"{error.filename}: {error.strerror}") from error
        begun = asyncio.get_running_loop().time()
        self._tell_taken_up(await self._database.write(find), "stopped in between")
        self._renewed = self._heard = begun

    def _take_up(self, connection: Connection, now: int, whose: str) -> list[Any]:
        """Make due what was claimed by those whom `whose` names. An intent without a result: a delivery that may have
        happened."""
        values = [{"me": self._owner}]
        rows = _execute(
            connection,
            "SELECT r.message, r.address, a.destination, a.owner FROM recipient r JOIN"
            f" (SELECT recipient, destination, owner FROM attempt WHERE finished_at IS NULL AND {whose}) a"
            " ON a.recipient = r.id",
            values,
        ).all()
        _execute(
            connection,
            "UPDATE recipient SET next_attempt_at = :now, owner = '' WHERE state = 'queued' AND"
            f" (next_attempt_at IS NULL AND {whose} OR id IN"
            f" (SELECT recipient FROM attempt WHERE finished_at IS NULL AND {whose}))",
            [{"now": now, "me": self._owner}],
        )
        _execute(
            connection,
            "UPDATE attempt SET finished_at = :now, result = 'interrupted', reply = :reply"
            f" WHERE finished_at IS NULL AND {whose}",
            [{"now": now, "reply": "4.3.0 the gateway was stopped during the attempt", "me": self._owner}],
        )
        return list(rows)

    def _tell_taken_up(self, rows: Sequence[Any], reason: str) -> None:
        for case, address, hop, owner in rows:
            self._warning("possible duplicate", case=case, recipient=address, hop=hop, reason=reason, gateway=owner)
            self._tell(case, "possible-duplicate", recipient=address, hop=hop)

    def _renew(self, connection: Connection) -> None:
        _execute(
            connection,
            f"INSERT INTO lease (owner, lease_at) VALUES (:me, {_DATABASE_NOW} + :lease)"
            " ON CONFLICT (owner) DO UPDATE SET lease_at = excluded.lease_at",
            [{"me": self._owner, "lease": int(_LEASE * 1000)}],
        )

    async def _keep_lease(self) -> None:
        """Be heard of, and take up what a gateway left that is not heard of any more. After a lapse of our own (the
        database was away, the process stood still) the others get the time of a lease to be heard of again."""
        loop = asyncio.get_running_loop()

        def write(connection: Connection) -> list[Any]:
            self._renew(connection)
            if loop.time() - self._heard < _LEASE:
                return []
            over = f"SELECT owner FROM lease WHERE lease_at > {_DATABASE_NOW}"
            rows = self._take_up(connection, self._now(), f"owner <> '' AND owner NOT IN ({over})")
            _execute(connection, f"DELETE FROM lease WHERE lease_at < {_DATABASE_NOW} - 86400000", [{}])
            return rows

        while True:
            await asyncio.sleep(_RENEW if self._has_lease() else min(_RENEW, _WRITE_AGAIN))
            begun = loop.time()
            if begun - self._renewed > _LEASE:
                self._heard = begun
            try:
                rows = await self._database.write(write)
            except Failure as failure:
                self._error("lease not renewed", reason=failure.private)
                continue
            self._renewed = begun
            self._tell_taken_up(rows, "the gateway that had it is not heard of")
            self.wake()

    def _has_lease(self) -> bool:
        """Is what we have claimed ours for a while yet?"""
        return not self._shared or asyncio.get_running_loop().time() - self._renewed < _FRESH

    def _now(self) -> int:
        """Milliseconds since the epoch by a clock that does not jump."""
        return int((self._steady() + self._ahead) * 1000)

    def _jump(self) -> float:
        """By how many seconds the clock of the host has left ours."""
        return self._clock() - self._steady() - self._ahead

    async def _keep_time(self) -> None:
        """Follow the clock of the host. When it has jumped (reliability.md R15), what waits is moved with it: nobody is
        tried or given up a day early, or left waiting a day more, because somebody set the clock. Raises Failure."""
        jump = self._jump()
        if abs(jump) <= _JUMP:
            self._ahead += jump
            return
        self._error("ALARM: the clock jumped", seconds=round(jump, 1))
        moved = int(jump * 1000)

        def write(connection: Connection) -> None:
            _execute(
                connection,
                "UPDATE recipient SET first_attempt_at = first_attempt_at + :moved,"
                " next_attempt_at = next_attempt_at + :moved WHERE state = 'queued' AND first_attempt_at IS NOT NULL",
                [{"moved": moved}],
            )
            _execute(  # what was never tried is due
                connection,
                "UPDATE recipient SET next_attempt_at = :now WHERE state = 'queued' AND first_attempt_at IS NULL"
                " AND next_attempt_at > :now",
                [{"now": self._now() + moved}],
            )

        await self._database.write(write)
        self._ahead += jump
        self._moved += moved

    # ------------------------------------------------------------------------------------------------------ one turn

    async def _turn(self, claim: bool = True) -> float:
        """One transaction: what has happened is written down, what is due is claimed, with its intent, for the lanes
        that have room. Returns the seconds until something else will be due. Raises Failure; then nothing has changed.
        """
        results, self._results = self._results, _Results()
        rooms = {name: lane.room() for name, lane in self._lanes.items()}
        try:
            await self._keep_time()
            digests = [hashlib.sha256(notice.data).hexdigest() for notice in results.notices]
            if results.notices:
                puts = [((one.data,), digest) for one, digest in zip(results.notices, digests, strict=True)]
                await asyncio.to_thread(self._store.put_all, puts)
            claim = claim and self._has_lease()
            claimed = await self._database.write(
                functools.partial(self._rows, results=results, digests=digests, rooms=rooms, claim=claim)
            )
        except BaseException as error:
            self._results = results.then(self._results)
            self._unsure = True
            if isinstance(error, Exception) and not isinstance(error, Failure):
                self._exception("a turn of the queue failed in an unforeseen way")
                raise Failure("Local error", repr(error)) from error
            raise
        self._turned = asyncio.get_running_loop().time()
        for name, lane in self._lanes.items():
            lane.more = name in claimed.shut
        small = [job for job in claimed.jobs if job.first.size <= _SMALL]
        if small:
            await asyncio.to_thread(self._load_small, small)
        self._mine -= {one.row.id for one in results.settled}
        self._mine |= {row.id for job in claimed.jobs + claimed.put_off for row in job.rows}
        lost, self._unsure = [] if self._unsure else claimed.lost, False  # else: written the first time
        for one in lost:
            self._warning(
                "possible duplicate", case=one.row.case, recipient=one.row.address, hop=one.row.destination,
                reason="taken up by another gateway before the result was written", result=one.result, reply=one.reply,
            )  # fmt: skip
        for number in claimed.unreadable:
            self._error("ALARM: a row of the queue cannot be read", recipient=number)
            self._tell("-", "damaged", recipient=number, reason="the row of this recipient cannot be read")
        for job in claimed.put_off:
            known = self._lanes.get(job.first.destination)
            domain = job.first.address.rpartition("@")[2]
            reply = known.down_reply if known else f"4.4.4 no next hop for {domain} in the configuration"
            self._put_off(job, reply, attempted=False)
        for job in claimed.jobs:
            lane = self._lanes[job.first.destination]
            lane.pending.append(job)
            self._staff(lane)
        if self._results or claimed.unread:
            self._wake.set()
        return claimed.pause

    def _rows(
        self, connection: Connection, *, results: _Results, digests: Sequence[str], rooms: dict[str, int], claim: bool
    ) -> _Claimed:
        """Runs in the writer's thread, inside its transaction."""
        now = self._now()
        claimed = _Claimed()
        if self._shared and results:
            results, digests, claimed.lost = self._still_ours(connection, results, digests)
        self._write_results(connection, results, digests, now)
        if self._unsure:
            self._find_claims(connection, now)
        if not claim:
            return claimed
        claimed.shut = {name for name, room in rooms.items() if room == 0}
        for _ in range(8):
            values: dict[str, Any] = {"now": now, "limit": _ROWS}
            values |= {f"shut{number}": name for number, name in enumerate(sorted(claimed.shut))}
            marks = ", ".join(f":shut{number}" for number in range(len(claimed.shut)))
            other = f" AND r.destination NOT IN ({marks})" if marks else ""
            due = (
                f"r.state = 'queued' AND r.next_attempt_at <= :now{other} ORDER BY r.next_attempt_at, r.id LIMIT :limit"
            )
            found = self._read_due(connection, due, values, claimed)
            jobs: dict[tuple[str, str], _Job] = {}
            taken: list[dict[str, Any]] = []
            intents: list[dict[str, Any]] = []
            for row in (Due(*one) for one in found):
                row.moved = self._moved
                if row.destination not in rooms:  # that hop is gone from the configuration: take today's way
                    hop = self._settings.hop_for(row.address.rpartition("@")[2].lower())
                    row.destination = hop.name if hop else row.destination
                room = rooms.get(row.destination, -1)
                key = (row.case, row.destination)
                if key in jobs and len(jobs[key].rows) < _RECIPIENTS:
                    jobs[key].rows.append(row)
                elif room == 0:
                    claimed.shut.add(row.destination)
                    continue
                else:
                    jobs[key] = _Job([row])
                    if room > 0:
                        rooms[row.destination] -= 1
                    (claimed.jobs if room > 0 else claimed.put_off).append(jobs[key])
                taken.append({"id": row.id, "me": self._owner})
                if room >= 0:
                    intents.append({"recipient": row.id, "at": now, "destination": row.destination, "me": self._owner})
            if taken:
                _execute(connection, "UPDATE recipient SET next_attempt_at = NULL, owner = :me WHERE id = :id", taken)
            if intents:
                _execute(
                    connection,
                    "INSERT INTO attempt (recipient, intent_at, destination, result, reply, owner)"
                    " VALUES (:recipient, :at, :destination, '', '', :me)",
                    intents,
                )
            claimed.unread = len(found) == _ROWS
            if not claimed.unread:
                break
        soon = _execute(
            connection,
            "SELECT next_attempt_at FROM recipient WHERE state = 'queued' AND next_attempt_at > :now"
            " ORDER BY next_attempt_at LIMIT 1",
            [{"now": now}],
        ).scalar()
        if soon is not None:
            claimed.pause = min(_REMIND, (soon - now) / 1000)
        return claimed

    def _read_due(self, connection: Connection, where: str, values: dict[str, Any], claimed: _Claimed) -> list[Any]:
        """Rows of _DUE. Where pages of the database are damaged, those that can be read one by one: a damaged row must
        not stop the others."""
        # What another gateway is just claiming is not ours to wait for.
        lock = " FOR UPDATE OF r SKIP LOCKED" if self._shared else ""
        try:
            if not self._unreadable:
                found = list(_execute(connection, f"{_DUE} WHERE {where}{lock}", [values]).all())
                if all(map(_readable, found)):
                    return found
        except exc.OperationalError:
            raise
        except exc.DatabaseError:
            pass
        found = []
        # The columns stand in an index of their own: no page of the table is touched.
        simple = where.replace("r.", "").replace(
            " ORDER BY next_attempt_at, id LIMIT :limit", " ORDER BY next_attempt_at"
        )
        lock = lock.replace(" OF r", "")
        for (number,) in _execute(connection, f"SELECT id FROM recipient WHERE {simple}{lock}", [values]).all():
            if number in self._unreadable:
                continue
            try:
                row = _execute(connection, f"{_DUE} WHERE r.id = :id", [{"id": number}]).first()
            except exc.OperationalError:
                raise
            except exc.DatabaseError:
                row = None
            if row is None or not _readable(row):
                self._unreadable.add(number)
                claimed.unreadable.append(number)
            elif len(found) < _ROWS - 1:
                found.append(row)
        return found

    def _find_claims(self, connection: Connection, now: int) -> None:
        """Make due what is claimed in our name and was never begun, because we did not hear that it was claimed."""
        mine = "SELECT id FROM recipient WHERE state = 'queued' AND next_attempt_at IS NULL AND owner = :me"
        found = [row[0] for row in _execute(connection, mine, [{"me": self._owner}])]
        values = [{"id": one, "now": now, "me": self._owner} for one in found if one not in self._mine]
        if values:
            _execute(connection, "UPDATE recipient SET next_attempt_at = :now, owner = '' WHERE id = :id", values)
            _execute(
                connection,
                "UPDATE attempt SET finished_at = :now, result = 'deferred', reply = '4.3.0 not begun'"
                " WHERE recipient = :id AND finished_at IS NULL AND owner = :me",
                values,
            )

    def _still_ours(
        self, connection: Connection, results: _Results, digests: Sequence[str]
    ) -> tuple[_Results, Sequence[str], list[_Settled]]:
        """Without the results for what another gateway took up since, because our lease was over: it will have its own,
        with leaf and reports. What nobody has claimed again is still ours to settle."""
        kept = _execute(
            connection,
            "SELECT id FROM recipient WHERE id = ANY(:ids) AND state = 'queued' AND owner IN ('', :me) FOR UPDATE",
            [{"ids": [one.row.id for one in results.settled], "me": self._owner}],
        )
        ours = {row[0] for row in kept}
        lost = [one for one in results.settled if one.row.id not in ours]
        if not lost:
            return results, digests, lost
        cases = {one.row.case for one in lost}
        told = [pair for pair in zip(results.notices, digests, strict=True) if pair[0].about not in cases]
        return (
            _Results(
                [one for one in results.settled if one.row.id in ours],
                [leaf for leaf in results.leaves if leaf["case"] not in cases],
                [notice for notice, _ in told],
            ),
            [digest for _, digest in told],
            lost,
        )

    def _write_results(self, connection: Connection, results: _Results, digests: Sequence[str], now: int) -> None:
        journal = [
            {"id": one.row.id, "now": now, "result": one.result, "reply": one.reply, "me": self._owner}
            for one in results.settled
            if one.attempted
        ]
        if journal:
            _execute(
                connection,
                "UPDATE attempt SET finished_at = :now, result = :result, reply = :reply"
                " WHERE recipient = :id AND finished_at IS NULL AND owner = :me",
                journal,
            )
        if results.settled:
            _execute(
                connection,
                "UPDATE recipient SET state = :state, attempts = attempts + :one, next_attempt_at = :next,"
                " first_attempt_at = coalesce(first_attempt_at, :now), settled_at = :settled, last_reply = :reply,"
                " destination = :destination, owner = '' WHERE id = :id AND state = 'queued' AND owner IN ('', :me)",
                [
                    {
                        "id": one.row.id,
                        "state": one.state,
                        "one": int(one.counted),
                        "next": one.next_attempt_at and one.next_attempt_at + self._moved - one.row.moved,
                        "now": one.at + self._moved - one.row.moved,
                        "settled": now if one.state in ("delivered", "failed") else None,
                        "reply": one.reply,
                        "destination": one.row.destination,
                        "me": self._owner,
                    }
                    for one in results.settled
                ],
            )
        for leaf in results.leaves:
            append_leaf(connection, now / 1000, leaf)
        for notice, digest in zip(results.notices, digests, strict=True):
            append_notice(connection, notice, digest, now / 1000)

    def _load_small(self, jobs: Sequence[_Job]) -> None:
        """Blocks."""
        for job in jobs:
            with contextlib.suppress(Damaged, Failure):  # the worker finds it again, and says so
                job.content = self._load(job.rows)

    def _load(self, rows: Sequence[Due]) -> Content:
        """Blocks. Raises Damaged, Failure."""
        row = rows[0]
        if reason := _unlike_its_leaf(rows):
            raise Damaged(row.sha256, reason)
        if row.size <= _IN_MEMORY:
            return Content(row.trace, (self._store.read(row.sha256),))
        return Content(row.trace, self._store.chunks(row.sha256), lambda: self._store.chunks(row.sha256))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------------------------------------------ the lanes

    def _staff(self, lane: _Lane) -> None:
        """As many workers as there is work for, within the lane's limit."""
        while lane.pending and len(lane.workers) < lane.limit and not self._stopping:
            if lane.idle:
                connection = lane.idle.pop()[1]
            else:
                connection = HopConnection(lane.hop, self._settings.hostname, self._timeouts)
            task = asyncio.create_task(self._work(lane, connection, lane.pending.popleft()))
            lane.workers[task] = connection

    async def _work(self, lane: _Lane, connection: HopConnection, job: _Job | None) -> None:
        """Deliver `job` and then what is pending, one after another, on one connection."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        try:
            while job is not None:
                if lane.more and len(lane.pending) <= lane.limit:
                    self._wake.set()
                if not await self._one(lane, connection, job):
                    break
                job = lane.pending.popleft() if lane.pending and not self._stopping else None
        except asyncio.CancelledError:
            assert job is not None
            self._settle(job, _stopped(job, connection.sending), again=True)
            connection.abort()
        except Exception:
            assert job is not None
            self._exception("delivery failed in an unforeseen way", hop=lane.hop.name, case=job.first.case)
            reply = "4.3.0 local error"
            self._settle(
                job,
                [Outcome(row.address, "deferred", reply, "4.3.0", interrupted=connection.sending) for row in job.rows],
            )
            connection.abort()
        finally:
            del lane.workers[task]
            if connection.open and not self._stopping:
                lane.idle.append((loop.time() + _IDLE, connection))
                loop.call_later(_IDLE + 0.1, self._sweep, lane)
            else:
                connection.abort()
            self._staff(lane)
            if lane.more:
                self._wake.set()

    def _sweep(self, lane: _Lane) -> None:
        """Close connections that had no mail for a while."""
        now = asyncio.get_running_loop().time()
        old = [connection for until, connection in lane.idle if until <= now]
        lane.idle = [(until, connection) for until, connection in lane.idle if until > now]
        for connection in old:
            self._background(connection.close())

    async def _one(self, lane: _Lane, connection: HopConnection, job: _Job) -> bool:
        """One attempt. Returns whether this worker should go on."""
        first, content = job.first, job.content
        if not self._has_lease():  # it waited while the database was away: another gateway may have it by now
            reply = "4.3.0 the gateway was cut off from its database before the attempt"
            self._settle(job, [Outcome(row.address, "deferred", reply, "4.3.0") for row in job.rows], again=True)
            return True
        try:
            if content is None:
                content = await asyncio.to_thread(self._load, job.rows)
        except Damaged as damage:
            await self._set_aside(job, damage)
            return True
        except Failure as failure:  # the store does not answer now; nothing is said about the next hop
            self._warning("message cannot be read now", case=first.case, reason=failure.private)
            reply = "4.3.0 the message cannot be read now"
            self._settle(job, [Outcome(row.address, "deferred", reply, "4.3.0") for row in job.rows])
            return True
        letter = Letter(
            first.sender,
            tuple(Target(row.address, row.notify, row.orcpt) for row in job.rows),
            content,
            first.ret,
            first.envid,
            bool(first.smtputf8),
        )
        outcomes = await connection.attempt(letter)
        health = self._judge(lane, outcomes)
        self._settle(job, outcomes, again=health == "crowded")
        return health == "good"

    def _judge(self, lane: _Lane, outcomes: Sequence[Outcome]) -> str:
        """How is the hop: `good`; `crowded`, it takes no more connections than the others of this lane; or `down`."""
        broken = all(one.hop_down or one.interrupted or one.status == "4.4.2" for one in outcomes)
        if not broken:
            lane.breaks = 0
            lane.successes += 1
            if lane.downs:
                self._info("next hop is back", hop=lane.hop.name)
                self._background(self._release_lane(lane, lane.down_reply))
                lane.downs, lane.down_until, lane.limit = 0, 0.0, lane.hop.connections
            elif lane.limit < lane.hop.connections and lane.successes % _REGAIN == 0:
                lane.limit += 1
            return "good"
        lane.breaks += 1
        down = all(one.hop_down for one in outcomes)
        if down and len(lane.workers) > 1:
            lane.limit = max(1, len(lane.workers) - 1)
            return "crowded"
        if not down and lane.breaks < _BREAKS:
            return "good"
        pause = _BACK_OFF[min(lane.downs, len(_BACK_OFF) - 1)]
        lane.downs += 1
        lane.down_until = asyncio.get_running_loop().time() + pause
        lane.down_reply = outcomes[0].reply
        self._warning("next hop is down", hop=lane.hop.name, reply=lane.down_reply, seconds=pause)
        for job in lane.pending:
            self._put_off(job, lane.down_reply, attempted=True)
        lane.pending.clear()
        return "down"

    def down(self) -> dict[str, str]:
        """The next hops that cannot be used, each with why: what they answered last."""
        return {name: lane.down_reply for name, lane in self._lanes.items() if lane.downs}

    def _put_off(self, job: _Job, reply: str, attempted: bool) -> None:
        """The hop is known to be down: the schedule goes on as if it had been asked."""
        outcomes = [Outcome(row.address, "deferred", reply, "4.4.1", hop_down=True) for row in job.rows]
        self._settle(job, outcomes, attempted=attempted)

    async def _release_lane(self, lane: _Lane, reply: str) -> None:
        """The hop works again: what waited for it, and for nothing else, need not wait for its schedule."""
        now = self._now()
        values = {"now": now, "destination": lane.hop.name, "reply": reply[:1000]}
        statement = (
            "UPDATE recipient SET next_attempt_at = :now WHERE state = 'queued' AND destination = :destination"
            " AND next_attempt_at > :now AND (last_reply = :reply OR last_reply LIKE '4.4.1 %')"
        )
        with contextlib.suppress(Failure):  # then it waits for its schedule
            await self._database.write(lambda connection: _execute(connection, statement, [values]))
        self._wake.set()

    async def _set_aside(self, job: _Job, damage: Damaged) -> None:
        """The bytes are not those we took (reliability.md R10): never sent, never skipped in silence, the file moved to
        `corrupt`. A person puts it back and releases the message, or returns it."""
        first = job.first
        if damage.reason == "changed":
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._store.set_aside, damage.digest)
        self._error("ALARM: damaged message set aside", case=first.case, digest=damage.digest, reason=damage.reason)
        self._tell(first.case, "damaged", reason=damage.reason)
        reply = f"5.3.0 the stored message is damaged ({damage.reason})"
        self._results.settled += [_Settled(row, "held", "deferred", reply, None, True, self._now()) for row in job.rows]
        self._wake.set()

    # ------------------------------------------------------------------------------------------------------ results

    def _settle(self, job: _Job, outcomes: Sequence[Outcome], *, attempted: bool = True, again: bool = False) -> None:
        """What became of a job goes into the next turn, together with the reports that are owed for it.

        attempted: an intent is open. again: it was no attempt of the schedule, and is due at once."""
        now = self._now()
        settled, reports = [], []
        for row, outcome in zip(job.rows, outcomes, strict=True):
            one, report = self._decide(row, outcome, now, attempted, again)
            settled.append(one)
            if report is not None:
                reports.append(report)
        if reports:
            self._background(self._settle_with_reports(job, settled, outcomes, reports, now))
        else:
            self._result(job, settled, outcomes, ())

    async def _settle_with_reports(
        self,
        job: _Job,
        settled: Sequence[_Settled],
        outcomes: Sequence[Outcome],
        reports: Sequence[returns.Report],
        now: int,
    ) -> None:
        notices: list[Notice] = []
        while True:
            try:
                notices = await self._reports(job.first, reports, now)
            except Failure as failure:
                self._error("reports not made yet", case=job.first.case, reason=failure.private)
                await asyncio.sleep(_WRITE_AGAIN)
                continue
            except Exception:
                self._exception("ALARM: no report could be made", case=job.first.case)
            break
        self._result(job, settled, outcomes, notices)

    def _result(
        self, job: _Job, settled: Sequence[_Settled], outcomes: Sequence[Outcome], notices: Sequence[Notice]
    ) -> None:
        results = self._results
        results.settled += settled
        results.notices += notices
        if leaf := _delivery_leaf(job, settled, outcomes, notices):
            results.leaves.append(leaf)
        for one, outcome in zip(settled, outcomes, strict=True):
            self._tell_outcome(one, outcome)
        self._wake.set()

    def _decide(
        self, row: Due, outcome: Outcome, now: int, attempted: bool, again: bool
    ) -> tuple[_Settled, returns.Report | None]:
        """The next state of one recipient, and the report it is owed. No clock, no disk."""
        retry = self._settings.retry
        if row.first_attempt_at is not None:
            row.first_attempt_at += self._moved - row.moved
        row.moved = self._moved
        wanted = _notify(row)
        reply = outcome.reply[:1000]
        if outcome.result == "delivered":
            report = None
            if "SUCCESS" in wanted and not outcome.dsn:
                lane = self._lanes.get(row.destination)
                final = lane is not None and lane.hop.protocol == "lmtp"
                report = _report(row, "delivered" if final else "relayed", outcome.status, outcome, now)
            return _Settled(row, "delivered", "delivered", reply, None, attempted, now), report
        if outcome.result == "failed":
            report = _report(row, "failed", outcome.status, outcome, now) if _wants(wanted, "FAILURE") else None
            return _Settled(row, "failed", "failed", reply, None, attempted, now), report
        result = "interrupted" if outcome.interrupted else "deferred"
        if again:
            return _Settled(row, "queued", result, reply, now, attempted, now, counted=False), None
        first = row.first_attempt_at if row.first_attempt_at is not None else now
        end = first + int(retry.give_up * 1000)
        if now >= end:
            report = _report(row, "failed", "5.4.7", outcome, now) if _wants(wanted, "FAILURE") else None
            return _Settled(row, "failed", result, reply, None, attempted, now), report
        step = retry.schedule[min(row.attempts, len(retry.schedule) - 1)]
        wait = step * (1 + retry.jitter * (2 * self._chance() - 1))
        # The last attempt is made when time is up, not up to an hour after.
        return _Settled(row, "queued", result, reply, min(now + int(wait * 1000), end), attempted, now), None

    async def _reports(self, first: Due, reports: Sequence[returns.Report], now: int) -> list[Notice]:
        """The DSNs owed for one message, or none: a bounce gets no bounce, and a sender that may be forged no mail.
        Raises Failure."""
        if first.kind != "mail" or not first.sender:
            return []

        def ask(connection: Connection) -> str:
            found = _execute(connection, "SELECT record FROM message WHERE id = :id", [{"id": first.case}]).scalar()
            return str(found or "{}")

        record = await self._database.read(ask)
        return await asyncio.to_thread(self._make_reports, first, reports, now, record)

    def _make_reports(self, first: Due, reports: Sequence[returns.Report], now: int, record: str) -> list[Notice]:
        """Blocks."""
        hop = self._settings.hop_for(first.sender.rpartition("@")[2].lower())
        if first.kind != "mail" or not first.sender or hop is None or json.loads(record).get("answerable") is not True:
            self._info("no report", case=first.case, reason="sender may be forged" if hop else "no way back")
            return []
        whole = first.ret.upper() == "FULL" and first.size <= _WHOLE
        try:
            original = self._original(first, whole)
        except Damaged:
            original = first.trace
        notices = []
        for kind in ("failed", "delayed", "delivered", "relayed"):
            some = [one for one in reports if one.action == kind]
            if not some:
                continue
            end = (first.first_attempt_at or now) + int(self._settings.retry.give_up * 1000)
            data = returns.dsn(
                kind,
                some,
                to=first.sender,
                case=first.case,
                received_at=from_ms(first.received_at),
                now=from_ms(now),
                original=original,
                whole=whole and kind == "failed",
                envid=first.envid,
                until=from_ms(end) if kind == "delayed" else None,
                contacts=self._settings.contacts,
                hostname=self._settings.hostname,
            )
            addresses = hashlib.sha256("\n".join(sorted(one.address for one in some)).encode()).hexdigest()[:16]
            when = now if kind == "delayed" else 0  # there are two delay notices and one end
            key = f"dsn|{kind}|{first.case}|{addresses}|{when}"
            notices.append(Notice("dsn", data, ((first.sender, hop.name),), first.case, key))
        return notices

    def _original(self, row: Due, whole: bool) -> bytes:
        """The message, or as much of it as holds the header. Blocks."""
        found = row.trace
        for chunk in self._store.chunks(row.sha256, 1 << 16):
            found += chunk
            if not whole and (b"\r\n\r\n" in found or len(found) > 1 << 18):
                break
        return found

    # ------------------------------------------------------------------------------------------------------ late mail

    async def _reminders(self) -> None:
        """Once a minute: whose mail has waited for four hours, or for a day, is told so (reliability.md 1.1)."""
        while True:
            more = False
            try:
                for number, seconds in enumerate(self._settings.retry.delay_notices):
                    more = await self._remind(number, self._now() - int(seconds * 1000)) or more
            except Failure as failure:
                self._error("delays not told yet", reason=failure.private)
            except Exception:
                self._exception("ALARM: delays not told")
            await asyncio.sleep(0 if more else _REMIND)

    async def _remind(self, number: int, before: int) -> bool:
        """Tell of mail first tried `before` that was told of `number` times. Returns whether there is more. In groups,
        and beside the turns: after some hours with a hop that is down there are thousands. Raises Failure."""

        def ask(connection: Connection) -> list[tuple[Due, str]]:
            rows = _execute(
                connection,
                _DUE.replace("\nFROM", ", m.record\nFROM", 1)
                + " WHERE r.state = 'queued' AND r.delay_notices = :number AND r.first_attempt_at <= :before"
                " ORDER BY r.message LIMIT :limit",
                [{"number": number, "before": before, "limit": _LATE}],
            )
            return [(Due(*row[:-1]), row[-1]) for row in rows]

        def make(late: list[tuple[Due, str]]) -> list[tuple[Notice, str]]:
            groups: dict[str, tuple[list[Due], str]] = {}
            for row, record in late:
                groups.setdefault(row.case, ([], record))[0].append(row)
            found = []
            for rows, record in groups.values():
                reports = [_delayed(row, now) for row in rows if _wants(_notify(row), "DELAY")]
                if reports:
                    found += self._make_reports(rows[0], reports, now, record)
            digests = [hashlib.sha256(notice.data).hexdigest() for notice in found]
            self._store.put_all([((one.data,), digest) for one, digest in zip(found, digests, strict=True)])
            return list(zip(found, digests, strict=True))

        def write(connection: Connection) -> None:
            if self._shared:  # another gateway may have told them meanwhile
                values = {"ids": [row.id for row, _ in late], "number": number}
                query = "SELECT id FROM recipient WHERE id = ANY(:ids) AND delay_notices = :number FOR UPDATE"
                if len(_execute(connection, query, [values]).all()) < len(late):
                    return
            _execute(
                connection,
                "UPDATE recipient SET delay_notices = :number WHERE id = :id",
                [{"id": row.id, "number": number + 1} for row, _ in late],
            )
            for notice, digest in notices:
                append_notice(connection, notice, digest, now / 1000)

        late = await self._database.read(ask)
        if not late:
            return False
        now = self._now()
        notices = await asyncio.to_thread(make, late)
        await self._database.write(write)
        self._wake.set()
        return len(late) == _LATE

    # ------------------------------------------------------------------------------------------------------ for people

    async def queued(self) -> list[dict[str, Any]]:
        """Messages with a recipient that is still owed, oldest first."""
        return await self._listing("queued")

    async def held(self) -> list[dict[str, Any]]:
        """Messages that wait for a person, oldest first."""
        return await self._listing("held")

    async def _listing(self, state: str) -> list[dict[str, Any]]:
        def ask(connection: Connection) -> list[dict[str, Any]]:
            return _messages(
                connection, "m.id IN (SELECT message FROM recipient WHERE state = :state)", {"state": state}
            )

        return await self._database.read(ask)

    async def show(self, case: str) -> dict[str, Any] | None:
        """One message with its recipients, attempts and decisions; None when there is none."""

        def ask(connection: Connection) -> dict[str, Any] | None:
            found = _messages(connection, "m.id = :case", {"case": case})
            if not found:
                return None
            values = [{"case": case}]
            attempts = _execute(
                connection,
                "SELECT r.address, a.intent_at, a.finished_at, a.destination, a.result, a.reply FROM attempt a"
                " JOIN recipient r ON r.id = a.recipient WHERE r.message = :case ORDER BY a.id",
                values,
            )
            found[0]["attempts"] = [
                {
                    "address": row[0],
                    "at": _shown(row[1]),
                    "finished_at": _shown(row[2]),
                    "hop": row[3],
                    "result": row[4] or ("under way" if row[2] is None else ""),
                    "reply": row[5],
                }
                for row in attempts
            ]
            decisions = _execute(
                connection, "SELECT at, who, act, reason FROM decision WHERE message = :case ORDER BY id", values
            )
            found[0]["decisions"] = [
                {"at": _shown(row[0]), "who": row[1], "act": row[2], "reason": row[3]} for row in decisions
            ]
            return found[0]

        return await self._database.read(ask)

    async def retry(self, case: str | None, who: str = "", reason: str = "") -> int:
        """Make queued mail due now: of one message, or (None) all. Returns how many recipients."""
        now = self._now()

        def write(connection: Connection) -> int:
            where = " AND message = :case" if case else ""
            values = {"now": now, "case": case} if case else {"now": now}
            found = _execute(connection, f"SELECT count(*) FROM recipient WHERE state = 'queued'{where}", [values])
            count = int(found.scalar() or 0)
            _execute(  # those under way are claimed
                connection,
                "UPDATE recipient SET next_attempt_at = :now WHERE state = 'queued'"
                f" AND next_attempt_at IS NOT NULL{where}",
                [values],
            )
            if count:
                _decide_row(connection, case or "*", now, who, "retry", reason)
            return count

        count = await self._database.write(write)
        self._poke()
        return count

    async def release(self, case: str, who: str, reason: str) -> int:
        """Let a held message go to its recipients. Returns how many; 0: nothing of this case is held."""
        now = self._now()

        def write(connection: Connection) -> int:
            count = _execute(
                connection,
                "UPDATE recipient SET state = 'queued', next_attempt_at = :now, last_reply = ''"
                " WHERE message = :case AND state = 'held'",
                [{"now": now, "case": case}],
            ).rowcount
            if count:
                _decide_row(connection, case, now, who, "release", reason)
                self._follower(connection, case, ())
                alerts.released(connection, case, now)
            return count

        count = await self._database.write(write)
        if count:
            self._tell(case, "released", who=who)
        self._poke()
        return count

    async def give_back(self, case: str, who: str, reason: str) -> int:
        """Return a held message: nobody receives it, and its sender is told why, when the sender is not forged."""
        now = self._now()

        def ask(connection: Connection) -> tuple[Any, list[str]]:
            row = connection.execute(db.message.select().where(db.message.c.id == case)).mappings().first()
            held = _execute(
                connection,
                "SELECT address FROM recipient WHERE message = :case AND state = 'held' ORDER BY id",
                [{"case": case}],
            )
            return row, [str(one[0]) for one in held]

        row, held = await self._database.read(ask)
        if not held:
            return 0
        notice = self._return_notice(row, held, reason)
        digest = hashlib.sha256(notice.data).hexdigest() if notice else ""
        if notice is not None:
            await asyncio.to_thread(self._store.put, (notice.data,), digest)

        def write(connection: Connection) -> int:
            count = _execute(
                connection,
                "UPDATE recipient SET state = 'returned', next_attempt_at = NULL, settled_at = :now"
                " WHERE message = :case AND state = 'held'",
                [{"now": now, "case": case}],
            ).rowcount
            if count:
                _decide_row(connection, case, now, who, "return", reason)
                if notice is not None:
                    append_notice(connection, notice, digest, now / 1000)
            return count

        count = await self._database.write(write)
        if count:
            self._tell(case, "returned", who=who)
        self._poke()
        return count

    def _return_notice(self, row: Any, recipients: Sequence[str], reason: str) -> Notice | None:
        record = json.loads(row["record"])
        facts = Inspection.model_validate(record.get("inspection", {}))
        sender = row["sender"]
        hop = self._settings.hop_for(sender.rpartition("@")[2].lower())
        if hop is None or not returns.may_notify(facts.message, sender, record.get("answerable") is True):
            return None
        data = returns.notice(
            read_verdict(record.get("verdict", {})),
            facts.message,
            sender=sender,
            recipients=recipients,
            case=row["id"],
            received_at=from_ms(row["received_at"]),
            sha256=row["sha256"],
            contacts=self._settings.contacts,
            hostname=self._settings.hostname,
            inspection=facts,
            reason=reason,
            given_back=True,
        )
        return Notice("notice", data, ((sender, hop.name),), row["id"], f"returned|{row['id']}") if data else None

    def _poke(self) -> None:
        """Tell the daemon, which may be another process."""
        self._poke_file.touch()
        self.wake()

    # ------------------------------------------------------------------------------------------------------ logs

    def _tell_outcome(self, one: _Settled, outcome: Outcome) -> None:
        act = one.state if one.state in ("delivered", "failed") else "deferred"
        self._tell(one.row.case, act, recipient=one.row.address, hop=one.row.destination, reply=one.reply)
        if outcome.interrupted:
            self._warning(
                "possible duplicate", case=one.row.case, recipient=one.row.address, hop=one.row.destination,
                reason=outcome.reply,
            )  # fmt: skip

    def _tell(self, case: str, act: str, **about: object) -> None:
        if self._mail_log is not None:
            self._mail_log.write(case, act, **about)

    def _info(self, event: str, **about: Any) -> None:
        if self._log is not None:
            self._log.info(event, **about)

    def _warning(self, event: str, **about: Any) -> None:
        if self._log is not None:
            self._log.warning(event, **about)

    def _error(self, event: str, **about: Any) -> None:
        if self._log is not None:
            self._log.error(event, **about)

    def _exception(self, event: str, **about: Any) -> None:
        if self._log is not None:
            self._log.exception(event, **about)


# ---------------------------------------------------------------------------------------------------------- values


def _stopped(job: _Job, interrupted: bool) -> list[Outcome]:
    reply = "4.3.2 the gateway was stopped during the attempt"
    return [Outcome(row.address, "deferred", reply, "4.3.2", interrupted=interrupted) for row in job.rows]


def _report(row: Due, action: str, status: str, outcome: Outcome, now: int) -> returns.Report:
    return returns.Report(
        address=row.address,
        action=action,
        status=status or _status(outcome.reply),
        reply=outcome.reply[:1000],
        from_hop=outcome.from_hop or bool(re.match(r"[245]\d\d( |$)", outcome.reply)),
        remote=outcome.remote,
        orcpt=row.orcpt,
        at=from_ms(now),
    )


def _status(reply: str) -> str:
    found = re.search(r"\b[245]\.\d{1,3}\.\d{1,3}\b", reply[:40])
    return found[0] if found else "4.0.0"


def _delayed(row: Due, now: int) -> returns.Report:
    outcome = Outcome(row.address, "deferred", row.last_reply)
    return _report(row, "delayed", _status(row.last_reply), outcome, now)


def _notify(row: Due) -> set[str]:
    return {word.strip().upper() for word in row.notify.split(",") if word.strip()}


def _wants(wanted: set[str], what: str) -> bool:
    """RFC 3461 section 4.1: without NOTIFY failures and delays are told; with it what it names."""
    return what in wanted if wanted else what in ("FAILURE", "DELAY")


def _delivery_leaf(
    job: _Job, settled: Sequence[_Settled], outcomes: Sequence[Outcome], notices: Sequence[Notice]
) -> dict[str, Any] | None:
    """What the tree keeps of deliveries that are over (reliability.md 2.4); attempts in between are in the journal."""
    results = [
        [clean(one.row.address), one.state, clean(one.reply), one.row.attempts + 1]
        for one in settled
        if one.state in ("delivered", "failed")
    ]
    if not results:
        return None
    entry: dict[str, Any] = {
        "type": "delivery",
        "case": job.first.case,
        "hop": job.first.destination,
        "remote": clean(outcomes[0].remote),
        "recipients": results,
    }
    if notices:
        entry["reports"] = [hashlib.sha256(notice.data).hexdigest() for notice in notices]
    return entry


def _decide_row(connection: Connection, case: str, now: int, who: str, act: str, reason: str) -> None:
    """A person's act: a row, and a leaf of the tree."""
    row = {"message": case, "at": now, "who": who, "act": act, "reason": reason}
    db.insert(connection, db.decision, [row])
    entry = {"type": "admin", "case": case, "who": clean(who), "act": act, "reason": clean(reason)}
    append_leaf(connection, now / 1000, entry)


def read_verdict(record: dict[str, Any]) -> Any:
    """A verdict as the archive keeps it, as far as a notice needs it."""
    words = ("deliver", "deliver-warn", "hold", "return", "reject-malware", "block-secret")

    def number(text: str) -> int:
        return words.index(text) + 1 if text in words else 1

    texts = {
        "rule": "", "mode": "", "about": "", "where": "", "evidence": "", "legal_basis": "", "vi": "", "en": "",
        "cure_vi": "", "cure_en": "", "notice": "",
    }  # fmt: skip
    findings = [
        SimpleNamespace(
            **{
                **texts,
                **one,
                "recipients": tuple(one.get("recipients", ())),
                "disposition": number(one.get("disposition", "")),
            }
        )
        for one in record.get("findings", ())
    ]
    document = record.get("document")
    return SimpleNamespace(
        disposition=number(record.get("disposition", "")),
        findings=findings,
        document=Document.model_validate(document) if document else None,
        acknowledge=False,
    )


def _messages(connection: Connection, where: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages with their recipients, under stable keys."""
    rows = _execute(
        connection,
        "SELECT m.id, m.kind, m.received_at, m.sender, m.size, m.subject, m.verdict, r.address, r.state, r.attempts,"
        " r.next_attempt_at, r.last_reply, r.destination FROM message m JOIN recipient r ON r.message = m.id"
        f" WHERE {where} ORDER BY m.received_at, m.id, r.id",
        [values],
    )
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = found.setdefault(
            row[0],
            {
                "case": row[0],
                "kind": row[1],
                "received_at": _shown(row[2]),
                "sender": row[3],
                "size": row[4],
                "subject": row[5],
                "verdict": row[6],
                "recipients": [],
            },
        )
        one["recipients"].append(
            {
                "address": row[7],
                "state": row[8],
                "attempts": row[9],
                "next_attempt_at": _shown(row[10]),
                "last_reply": row[11],
                "destination": row[12],
            }
        )
    return list(found.values())


def _shown(at: int | None) -> str | None:
    return stamp(from_ms(at)) if at is not None else None


def _readable(row: Any) -> bool:
    """Does each column hold the kind of value that was written there?"""
    one = Due(*row)
    texts = (one.case, one.address, one.notify, one.orcpt, one.destination, one.last_reply, one.kind, one.sender)
    more = (one.sha256, one.ret, one.envid)
    numbers = (one.attempts, one.size, one.smtputf8, one.received_at)
    return (
        all(type(value) is str for value in texts + more)
        and all(type(value) is int for value in numbers)
        and type(one.first_attempt_at) in (int, type(None))
        and type(one.trace) is bytes
    )


def _unlike_its_leaf(rows: Sequence[Due]) -> str:
    """Why rows of one message are not those that were committed, or nothing: a flipped bit in the database must send
    nothing to anybody else, or under another name."""
    first = rows[0]
    if not isinstance(first.entry, bytes) or leaf_hash(first.entry) != first.hash:
        return "the leaf is damaged"
    told = json.loads(first.entry)
    listed = told["recipients"]  # a very long list stands there by its digest
    addresses = {one[0] for one in listed} if isinstance(listed, list) else {clean(row.address) for row in rows}
    same = (
        (told["case"], told["kind"], told["sha256"], told["size"], told["sender"])
        == (first.case, first.kind, first.sha256, first.size, clean(first.sender))
        and told["trace"] == hashlib.sha256(first.trace).hexdigest()
        and all(clean(row.address) in addresses for row in rows)
    )
    return "" if same else "the row is not what its leaf says"


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps


def _touched(path: Any) -> int:
    try:
        return int(path.stat().st_mtime_ns)
    except OSError:
        return 0


#: Milliseconds by the clock of PostgreSQL: those of the gateways may differ.
_DATABASE_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_NAME = re.compile(r"(?<!:):(\w+)")


@functools.lru_cache(maxsize=64)
def _native(statement: str, dialect: str) -> str:
    """`:name` as the driver writes it. Statements here hold no other colon, and a per cent sign only in LIKE."""
    if dialect == "sqlite":
        return statement
    return _NAME.sub(r"%(\1)s", statement.replace("%", "%%"))


def _execute(connection: Connection, statement: str, values: Sequence[dict[str, Any]]) -> Any:
    """Without SQLAlchemy's expression layer, which takes several times the CPU of the statement itself."""
    native = _native(statement, connection.dialect.name)
    return connection.exec_driver_sql(native, list(values) if len(values) > 1 else values[0])
