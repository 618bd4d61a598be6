"""Mailboxes that can only be read: what arrives in them and what is sent from them takes the same way as other mail.

One task for each mailbox, one connection at most, in turns where there are more mailboxes than connections. A look at
a mailbox lists what is new in its folders, fetches it in pieces, hands it to the receiver (`pipeline.polled`), and
writes down in one commit that it was taken and what is to be done with it. Acts on the server are written down before
and confirmed after, and each looks first whether it has happened already: a crash between any two lines leaves the
message in one place. `docs/imap.md` tells what staff see of this in their mailbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway import config
from gateway import imap_state as state
from gateway.database import Database
from gateway.errors import Failure, Reply
from gateway.imap_session import DOUBLED, LISTED, PIECE, TROUBLE, Folder, Listed, Refused, Session
from gateway.message import Body, Polled, Taken
from gateway.wire import BodyWriter, Pool

#: Messages in one FETCH, and how many rows of the backlog are read at a time.
BATCH, BACKLOG = 64, 256
#: Batches of one server in memory at a time, each as large as `memory` of the settings: hundreds of mailboxes take no
#: more, and a server that stalls keeps no other waiting.
IN_MEMORY = 8
#: Connections of one server that log in at the same time.
LOGINS = 4
#: Seconds for one command, however slowly the server drips: then the connection is cut.
PATIENCE = 600.0
#: After a server could not be reached: seconds until the next try, doubled up to the last. After a login was refused
#: at least a minute: servers lock out accounts with wrong passwords.
BACKOFF, BACKOFF_LAST, BACKOFF_LOGIN = 2.0, 300.0, 60.0
#: How often the table is asked for decisions of people.
DECISIONS_SECONDS = 2.0
#: A message larger than this multiple of the message limit is a server that does not end.
ENDLESS = 4
#: Milliseconds by which the server's clock may be behind ours. INTERNALDATE has whole seconds besides: without this,
#: what arrives in the second of the first look would count as mail from before it, and be left where it lies.
SKEW = 300_000
#: How many messages that are shorter than announced are fetched twice, before a server is believed to count badly
#: (Exchange does by default: EnableExactRFC822Size).
INEXACT = 3

T = TypeVar("T")


class Receiver(Protocol):
    """What the poller hands messages to."""

    def may_accept(self) -> Reply | None: ...

    async def polled(self, polled: Polled) -> Taken:
        """Judge and archive. When it returns, the message is durable, or its tombstone. Raises Failure."""
        ...

    async def disguise(self, sha256: str) -> str:
        """The digest by which a secret is known."""
        ...


@dataclass(slots=True)
class _Server:
    """What all mailboxes of one server share."""

    settings: config.ImapServer
    slots: asyncio.Semaphore
    logins: asyncio.Semaphore
    room: asyncio.Semaphore
    failures: int = 0
    until: float = 0.0
    inexact: int = 0  # messages that were shorter than announced, twice the same


@dataclass(slots=True)
class _Mailbox:
    settings: config.ImapAccount
    server: _Server
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    decided: bool = False  # a person's decision waits to be carried out
    resync: bool = True  # ask what changed since the last look; not after a server has failed over it
    seen: dict[str, Folder] = field(default_factory=dict)


@dataclass(slots=True)
class _Fetched:
    """A message off the server. body None: it is gone there; reason: why it could not be fetched."""

    row: Any
    body: Body | None = None
    reason: str = ""


class _Link:
    """A session, each call in a thread and under a deadline."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self.session: Session | None = None

    async def open(self, server: config.ImapServer, account: config.ImapAccount) -> None:
        session = Session(server, account)
        self.session = session
        await self.call(session.connect)

    async def call(self, fn: Callable[..., T], *args: Any, **more: Any) -> T:
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._threads, lambda: fn(*args, **more))
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(job)
        except BaseException:
            if not job.done():  # the thread hangs on the socket: without it the call ends at once
                self.kill()
                job.add_done_callback(_forget)
            raise

    def kill(self) -> None:
        if self.session is not None:
            self.session.kill()

    async def close(self) -> None:
        if self.session is not None:
            with contextlib.suppress(*TROUBLE, TimeoutError, Refused):
                await self.call(self.session.close)


def _forget(job: Any) -> None:
    if not job.cancelled():
        job.exception()


class Poller:
    """All mailboxes of the settings. `run` stays until cancelled or told to stop."""

    def __init__(
        self,
        settings: config.Imap,
        receiver: Receiver,
        database: Database,
        log: Any,
        *,
        spill: Path,
        limits: config.Limits,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._receiver = receiver
        self._database = database
        self._log = log
        self._spill = spill
        self._limits = limits
        self._clock = clock
        self._chance = chance
        self._pool = Pool()
        self._slots = asyncio.Semaphore(settings.connections)
        self._threads = ThreadPoolExecutor(settings.connections, "imap")
        self._mailboxes: dict[str, _Mailbox] = {}
        for one in settings.servers:
            server = _Server(
                one, asyncio.Semaphore(one.connections), asyncio.Semaphore(LOGINS), asyncio.Semaphore(IN_MEMORY)
            )
            for account in one.accounts:
                self._mailboxes[account.address] = _Mailbox(account, server)

    async def run(self, stop: asyncio.Event) -> None:
        """Read all mailboxes until `stop` is set; ends within seconds. Raises what is a bug of ours."""
        async with asyncio.TaskGroup() as tasks:
            mine = [tasks.create_task(self._mailbox(one)) for one in self._mailboxes.values()]
            mine.append(tasks.create_task(self._decisions()))
            await stop.wait()
            for task in mine:
                task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ connections

    async def _mailbox(self, box: _Mailbox) -> None:
        failures = 0
        while True:
            pause = self._settings.poll * (0.8 + 0.4 * self._chance())
            try:
                async with self._connected(box) as link:
                    await self._round(box, link)
                    failures = 0
                    while self._keeps(box.server):
                        await self._wait(box, link)
            except (Failure, Refused, TimeoutError, *TROUBLE) as error:
                failures += 1
                reason = _reason(error)
                self._log.warning("mailbox not read", mailbox=box.settings.address, reason=reason)
                await self._note(box, None, reason)
                pause = min(BACKOFF * 2 ** min(failures, 12), BACKOFF_LAST) * (0.8 + 0.4 * self._chance())
                if isinstance(error, Failure):
                    pause = max(pause, BACKOFF_LOGIN)
            box.wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await box.wake.wait()

    def _keeps(self, server: _Server) -> bool:
        """Whether there is a connection for every mailbox; else they take turns."""
        return (
            len(server.settings.accounts) <= server.settings.connections
            and len(self._mailboxes) <= self._settings.connections
        )

    @contextlib.asynccontextmanager
    async def _connected(self, box: _Mailbox) -> AsyncIterator[_Link]:
        server = box.server
        async with server.slots, self._slots:
            link = _Link(self._threads)
            try:
                async with server.logins:
                    # One mailbox finds out that a server is down; the others wait with it.
                    while (rest := server.until - self._clock()) > 0:
                        await asyncio.sleep(rest * (1 + 0.2 * self._chance()))
                    try:
                        await link.open(server.settings, box.settings)
                    except (TimeoutError, *TROUBLE):
                        server.failures += 1
                        wait = min(BACKOFF * 2 ** min(server.failures - 1, 12), BACKOFF_LAST)
                        server.until = self._clock() + wait
                        raise
                    server.failures = 0
                yield link
            finally:
                await asyncio.shield(link.close())

    async def _wait(self, box: _Mailbox, link: _Link) -> None:
        """Until the server has news of the inbox, somebody decided something, or the time has come to look at all
        folders again; then look."""
        session = link.session
        assert session is not None
        interval = self._settings.poll * (0.8 + 0.4 * self._chance())
        loop = asyncio.get_running_loop()
        end = loop.time() + interval
        idle = box.server.settings.idle and "IDLE" in session.capabilities
        while True:
            news = False
            if idle:
                # What came since the last look would not be told again: IDLE tells of changes only.
                now, before = await link.call(session.examine, "INBOX"), box.seen.get("INBOX")
                news = before is None or (now.exists, now.uidnext) != (before.exists, before.uidnext)
                news = news or not await link.call(session.idle)
            if not news and not box.decided:
                await self._parked(box, session if idle else None, max(0.0, end - loop.time()))
                if idle and session.idling:
                    news = await link.call(session.idle_end)
            box.wake.clear()
            if box.decided or loop.time() >= end:
                box.decided = False
                await self._round(box, link)
                return
            if news:
                await self._look(box, link, "INBOX", "inbox")
                await self._act_all(box, link)

    async def _parked(self, box: _Mailbox, session: Session | None, seconds: float) -> None:
        """No thread waits here: the loop watches the socket."""
        loop = asyncio.get_running_loop()
        handle = session.fileno() if session is not None else -1
        if handle >= 0:
            loop.add_reader(handle, box.wake.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await box.wake.wait()
        finally:
            if handle >= 0:
                loop.remove_reader(handle)

    async def _decisions(self) -> None:
        while True:
            await asyncio.sleep(DECISIONS_SECONDS)
            with contextlib.suppress(Failure):
                now = self._now()
                for account in await self._database.read(lambda c, now=now: state.wanting(c, now)):
                    if account in self._mailboxes:
                        self._mailboxes[account].decided = True
                        self._mailboxes[account].wake.set()

    # ------------------------------------------------------------------ looking

    async def _round(self, box: _Mailbox, link: _Link) -> None:
        """All folders of a mailbox, each for itself: one that cannot be opened does not keep the others waiting."""
        session = link.session
        assert session is not None
        account = box.settings.address
        away = {session.place(name) for name in (self._settings.folder, self._settings.restricted)}
        found = dict(await link.call(session.folders, box.settings))
        # A folder that was renamed is another one now. The old one is looked at until the server does not know it.
        known = await self._database.read(lambda c: state.folders(c, account))
        for name, role in {**known, **found}.items():
            if name in away:
                continue  # what we moved there is known
            try:
                await self._look(box, link, name, role)
            except Refused as error:
                reason = str(error)
                self._log.warning("folder not read", mailbox=account, folder=name, reason=reason)
                if name in found:
                    await self._note(box, name, reason)
                else:
                    await self._database.write(lambda c, name=name: state.closed(c, account, name, self._now()))
        await self._act_all(box, link)

    async def _look(self, box: _Mailbox, link: _Link, name: str, role: str) -> None:
        """List what is new in a folder, take what is due, and note what is missing."""
        session = link.session
        assert session is not None
        if (reply := self._receiver.may_accept()) is not None:
            raise Failure(reply.text, f"not reading: {reply.text}")
        account, now = box.settings.address, self._now()
        since = None
        if session.qresync and box.resync:
            since = await self._database.read(lambda c: state.named(c, account, name))
        box.resync = since is None  # until it has answered: what it says can be more than a command may bring
        seen = await link.call(session.examine, name, since=since)
        box.resync = True
        row = await self._database.write(lambda c: state.open_folder(c, account, role, seen, now))
        if seen.vanished and since is not None and since[0] == row["uidvalidity"]:
            await self._database.write(lambda c: state.vanished(c, row, seen.vanished, now))
        last = (row["present"], row["uidnext"], row["modseq"])
        changed = not seen.modseq or last != (seen.exists, seen.uidnext, seen.modseq)
        if seen.uidnext > row["uidnext"]:
            first = row["uidnext"]
            uids = await link.call(session.search, "UID", f"{first}:*")  # `n:*` names the last one even below n
            await self._list(box, link, row, [uid for uid in uids if uid >= first], seen.uidnext)
        believed = await self._database.read(lambda c: state.present(c, row)) if changed else seen.exists
        if believed != seen.exists or now - (row["audited_at"] or 0) > self._settings.audit * 1000:
            uids = await link.call(session.search, "ALL")
            if len(uids) < seen.exists:
                uids += await link.call(session.doubled, seen.exists)
            unknown = await self._database.write(lambda c: state.audit(c, row, uids, now))
            await self._list(box, link, row, unknown, 0)
        await self._take(box, link, row)
        unseen = None
        if changed and role == "inbox":
            unseen = await link.call(session.search, "UNSEEN")
        await self._database.write(lambda c: state.looked(c, row, seen, unseen, self._now()))
        box.seen[name] = seen

    async def _list(self, box: _Mailbox, link: _Link, row: dict[str, Any], uids: list[int], uidnext: int) -> None:
        """Write down that these messages are on the server and not taken yet."""
        session = link.session
        assert session is not None
        for some in _alone(uids, LISTED):
            told = {one.uid: one for one in await link.call(session.listed, some)}
            # A message without an answer may be gone or may be one the server stumbles over: it is owed either way.
            found = [told.get(uid) or Listed(uid, 0, None) for uid in some]
            reached = some[-1] + 1 if some[-1] < DOUBLED else 0
            await self._database.write(
                lambda c, found=found, reached=reached: state.add(
                    c, row, found, reached, box.settings.since, self._now()
                )
            )
        if uidnext > row["uidnext"]:
            await self._database.write(lambda c: state.add(c, row, (), uidnext, None, self._now()))

    async def _take(self, box: _Mailbox, link: _Link, row: dict[str, Any]) -> None:
        """Everything of the folder that is due. The next batch is fetched while this one is judged."""
        while True:
            now = self._now()
            rows = await self._database.read(lambda c, now=now: state.due(c, row, now, BACKLOG))
            if not rows:
                return
            batches = self._batches(rows)
            coming: asyncio.Task[list[_Fetched]] | None = asyncio.create_task(
                self._fetch_in_turn(box, link, row, batches[0])
            )
            try:
                for batch in (*batches[1:], None):
                    assert coming is not None
                    fetched, coming = await coming, None
                    try:
                        if batch is not None:
                            coming = asyncio.create_task(self._fetch_in_turn(box, link, row, batch))
                        before = await self._before(box, row, fetched)
                        await asyncio.gather(*(self._one(box, link, row, one, before) for one in fetched))
                    finally:
                        box.server.room.release()
            finally:
                if coming is not None:
                    coming.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Failure, Refused, TimeoutError, *TROUBLE):
                        for one in await coming:
                            if one.body is not None:
                                one.body.close()
                        box.server.room.release()

    def _batches(self, rows: list[Any]) -> list[list[Any]]:
        """Small messages together, within the memory; a large one by itself."""
        batches: list[list[Any]] = []
        room = 0
        for row in rows:
            # Sizes are the server's word; a piece of each is what really comes.
            size = min(row.size or PIECE, PIECE)
            alone = row.tries or row.uid >= DOUBLED
            if not batches or size > room or len(batches[-1]) >= BATCH or alone:
                batches.append([])
                room = self._settings.memory
            if alone:
                room = 0  # what failed before is asked for alone, so that it fails alone
            batches[-1].append(row)
            room -= size
        return batches

    # ------------------------------------------------------------------ bytes

    async def _fetch_in_turn(self, box: _Mailbox, link: _Link, row: dict[str, Any], rows: list[Any]) -> list[_Fetched]:
        """`_fetch` when there is room; who gets the messages gives the room back."""
        await box.server.room.acquire()
        try:
            return await self._fetch(box, link, row, rows)
        except BaseException:
            box.server.room.release()
            raise

    async def _fetch(self, box: _Mailbox, link: _Link, row: dict[str, Any], rows: list[Any]) -> list[_Fetched]:
        """The bytes of some messages. What a server cannot give of one message does not concern the others; a broken
        connection concerns all and is raised, after it was noted against a message that was asked for alone."""
        session = link.session
        assert session is not None
        try:
            if rows[0].uid >= DOUBLED:
                exists = (await link.call(session.examine, row["name"])).exists
                await link.call(session.doubled, exists)  # places change with every message that goes
            first = await link.call(session.pieces, [one.uid for one in rows])
        except Refused as error:
            if len(rows) == 1:
                return [_Fetched(rows[0], reason=str(error))]
            return [fetched for one in rows for fetched in await self._fetch(box, link, row, [one])]
        except (TimeoutError, *TROUBLE) as error:
            await self._blame(row, rows, error)
            raise
        found: list[_Fetched] = []
        try:
            for one in rows:
                found.append(await self._finish(box, link, one, first.get(one.uid)))
        except BaseException as error:
            for fetched in found:
                if fetched.body is not None:
                    fetched.body.close()
            if isinstance(error, (TimeoutError, *TROUBLE)):
                await self._blame(row, rows[len(found) : len(found) + 1], error)
            raise
        return found

    async def _blame(self, row: dict[str, Any], rows: list[Any], error: BaseException) -> None:
        """The connection broke over these messages. One that was asked for alone waits; of several each comes alone
        next time, so that the one that breaks it is found and the others pass."""
        reason, alone = _reason(error), len(rows) == 1
        with contextlib.suppress(Failure):
            for one in rows:
                await self._database.write(
                    lambda c, one=one: state.not_taken(
                        c, row, one.uid, one.tries, reason, self._now(), wait=alone and one.tries > 0
                    )
                )

    async def _finish(self, box: _Mailbox, link: _Link, row: Any, first: bytes | None) -> _Fetched:
        session = link.session
        assert session is not None
        try:
            if first is None:
                uids = await link.call(session.search, "UID", str(row.uid % DOUBLED))
                return _Fetched(row, reason="the server shows the message and does not give it" if uids else "")
            if len(first) < PIECE and len(first) >= row.size:
                return _Fetched(row, self._small(first))
            body = await link.call(self._whole, session, row.uid, row.size, first)
            if body is not None and body.size < row.size and box.server.inexact < INEXACT:
                again = await link.call(self._whole, session, row.uid, row.size, b"")
                same = again is not None and again.sha256 == body.sha256
                if again is not None:
                    again.close()
                if not same:
                    body.close()
                    return _Fetched(row, reason="the server gave other bytes when asked again")
                box.server.inexact += 1
                self._log.warning(
                    "size announced wrongly", mailbox=box.settings.address, announced=row.size, size=body.size
                )
            return _Fetched(row, body)
        except Refused as error:
            return _Fetched(row, reason=str(error))

    def _small(self, data: bytes) -> Body:
        writer = BodyWriter(self._spill, self._limits.memory_size, self._pool)
        writer.write(data)
        return writer.finish()

    def _whole(self, session: Session, uid: int, announced: int, first: bytes) -> Body | None:
        """All of a message in pieces, whatever was announced; None when it goes while we read. In a thread."""
        writer = BodyWriter(self._spill, self._limits.memory_size, self._pool)
        try:
            piece: bytes | None = first or session.pieces([uid]).get(uid)
            while piece:
                writer.put(piece)
                if len(piece) < PIECE and writer.size >= announced:
                    break  # RFC 9051 6.4.5.1: a piece is cut short by the end of the message, and by nothing else
                if writer.size > ENDLESS * self._limits.message_size:
                    raise Refused(f"the message does not end after {writer.size} bytes")
                piece = session.pieces([uid], writer.size).get(uid)
            if piece is None:
                writer.discard()
                return None
            return writer.finish()
        except BaseException:
            writer.discard()
            raise

    # ------------------------------------------------------------------ one message

    async def _before(self, box: _Mailbox, row: dict[str, Any], fetched: list[_Fetched]) -> dict[str, str]:
        """What of these lay in this mailbox under another number: digest to case."""
        account, digests = box.settings.address, [one.body.sha256 for one in fetched if one.body is not None]
        return await self._database.read(lambda c: state.known(c, account, row["role"], digests))

    async def _one(
        self, box: _Mailbox, link: _Link, row: dict[str, Any], fetched: _Fetched, before: dict[str, str]
    ) -> None:
        """Hand one message over, and write down what became of it. Never raises for what the message is."""
        uid, body = fetched.row.uid, fetched.body
        if body is None:
            if fetched.reason:
                await self._owe(box, row, fetched, fetched.reason)
            else:
                await self._database.write(lambda c: state.lost(c, row, uid, self._now()))
                self._log.warning("gone before it was taken", mailbox=box.settings.address, folder=row["name"], uid=uid)
            return
        try:
            await self._hand_over(box, link, row, fetched.row, body, before.get(body.sha256, ""))
        except Failure as failure:
            await self._owe(box, row, fetched, failure.private or failure.public)
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except Exception as error:
            self._log.exception("message not taken", mailbox=box.settings.address, folder=row["name"], uid=uid)
            await self._owe(box, row, fetched, type(error).__name__)
        finally:
            body.close()

    async def _hand_over(
        self, box: _Mailbox, link: _Link, row: dict[str, Any], one: Any, body: Body, case: str
    ) -> None:
        account, role, sha256, size = box.settings.address, row["role"], body.sha256, body.size
        if case:
            # Seen before in this mailbox under another number: nothing to judge, count or do.
            await self._database.write(
                lambda c: state.taken(c, row, one.uid, case, sha256, size, False, None, self._now())
            )
            return
        history = one.uid < row["history"] or bool(one.internal_at and one.internal_at < row["first_at"] - SKEW)
        tls = link.session.tls if link.session is not None else ""
        at = self._moment(one.internal_at)
        journal = box.settings.journal and role != "sent"
        taken = await self._receiver.polled(
            Polled(body, account, role, at, box.server.settings.host, tls, history, journal)
        )
        act = None
        if one.uid >= DOUBLED:
            pass  # an act on its UID would touch the others, too; the one under the bare UID has been judged for it
        elif taken.offends and (not history or self._settings.act_on_history):
            act = self._act_for(role, taken.secret)
            if taken.secret and await self._database.read(lambda c: state.known(c, account, role, (taken.digest,))):
                act = None  # a person put it back
        if act is not None:
            act["internal_at"] = one.internal_at
        await self._database.write(
            lambda c: state.taken(c, row, one.uid, taken.case, taken.digest, size, taken.secret, act, self._now())
        )

    def _act_for(self, role: str, secret: bool) -> dict[str, Any] | None:
        settings = self._settings
        wanted = settings.secret if secret else settings.action
        if wanted == "move" and (secret or role != "sent"):
            return {"kind": "move", "target": settings.restricted if secret else settings.folder}
        return None if wanted == "leave" else {"kind": "flag", "keyword": settings.keyword}

    def _moment(self, internal: int | None) -> dt.datetime:
        """INTERNALDATE, unless it is none or lies in the future: then now."""
        now = self._now()
        at = internal if internal is not None and 0 < internal <= now + 86_400_000 else now
        return dt.datetime.fromtimestamp(at / 1000, dt.UTC)

    async def _owe(self, box: _Mailbox, row: dict[str, Any], fetched: _Fetched, reason: str) -> None:
        one = fetched.row
        self._log.warning(
            "message not taken", mailbox=box.settings.address, folder=row["name"], uid=one.uid, reason=reason
        )
        await self._database.write(lambda c: state.not_taken(c, row, one.uid, one.tries, reason, self._now()))

    # ------------------------------------------------------------------ acts

    async def _act_all(self, box: _Mailbox, link: _Link) -> None:
        account, now = box.settings.address, self._now()
        for act in await self._database.read(lambda c: state.open_actions(c, account, now)):
            try:
                await self._act(box, link, act)
            except Refused as error:  # quota, rights, no such folder: tried again later, and shown until then
                reason = str(error)
                self._log.warning("not done on the server", mailbox=account, act=act["kind"], reason=reason)
                await self._database.write(lambda c, act=act, reason=reason: state.put_off(c, act, reason))

    async def _act(self, box: _Mailbox, link: _Link, act: dict[str, Any]) -> None:
        """Carry out one act that is written down, unless it has happened already."""
        session = link.session
        assert session is not None
        if act["closed_at"] is not None:
            found = await self._database.write(lambda c: state.renumbered(c, act))
            if found is None:
                if act["kind"] != "release":
                    await self._done(act, "gone")
                    return
            else:
                act = found
        tried = act["tries"]
        await self._database.write(lambda c: state.begin(c, act, self._now()))
        if act["kind"] == "release":
            await self._done(act, await self._release(link, session, act))
            return
        opened = await link.call(session.examine, act["name"], writing=True)
        if opened.uidvalidity != act["uidvalidity"]:
            return  # the next look will find out
        flags = await link.call(session.flags, act["uid"])
        if act["kind"] == "flag":
            if flags is None:
                await self._done(act, "gone")
            else:
                await link.call(session.keyword, act["uid"], act["keyword"])
                await self._done(act, "done")
            return
        await self._done(act, await self._move(link, session, act, flags, tried))

    async def _move(
        self, link: _Link, session: Session, act: dict[str, Any], flags: tuple[bytes, ...] | None, tried: int
    ) -> str:
        target = await link.call(session.place, act["target"])
        uid = act["uid"]
        await link.call(session.ensure, target)
        if flags is None:
            return "done" if await self._find(link, session, target, act) else "gone"
        if "MOVE" in session.capabilities:
            await link.call(session.move, uid, target)
            return "done"
        if "UIDPLUS" not in session.capabilities:
            # EXPUNGE without a UID would remove what people have marked as deleted and may still want.
            await link.call(session.keyword, uid, self._settings.keyword)
            return "flagged"
        copied = bool(tried) and bool(await self._find(link, session, target, act))
        if not copied:
            if b"\\Deleted" in flags:
                return "gone"  # its owner has thrown it away and a copy would bring it back
            await link.call(session.examine, act["name"], writing=True)
            await link.call(session.copy, uid, target)
        await link.call(session.examine, act["name"], writing=True)
        await link.call(session.expunge, uid)
        return "done"

    async def _release(self, link: _Link, session: Session, act: dict[str, Any]) -> str:
        """Back from where it was moved to, into the folder it was found in."""
        source = await link.call(session.place, act["target"])
        back = await self._find(link, session, act["name"], act) if act["tries"] else []
        there = await self._find(link, session, source, act)
        if not there:
            back = back or await self._find(link, session, act["name"], act)
            return "done" if back else "gone"
        await link.call(session.examine, source, writing=True)
        if "MOVE" in session.capabilities:
            await link.call(session.move, there[0], act["name"])
        else:
            if not back:
                await link.call(session.copy, there[0], act["name"])
            await link.call(session.expunge, there[0])
        return "done"

    async def _find(self, link: _Link, session: Session, name: str, act: dict[str, Any]) -> list[int]:
        """UIDs of this very message in a folder: INTERNALDATE narrows (COPY and MOVE keep it), the digest decides."""
        try:
            await link.call(session.examine, name)
        except Refused:
            return []
        criteria = ["ALL"]
        if act["internal_at"] is not None:
            day = dt.datetime.fromtimestamp(act["internal_at"] / 1000, dt.UTC).date()
            # Servers cut days in a time zone of their own.
            since, before = day - dt.timedelta(days=1), day + dt.timedelta(days=2)
            criteria = ["SINCE", _imap_date(since), "BEFORE", _imap_date(before)]
        uids = await link.call(session.search, *criteria)
        found = []
        for start in range(0, len(uids), LISTED):
            for one in await link.call(session.listed, uids[start : start + LISTED]):
                at = int(one.internal.timestamp() * 1000) if one.internal else None
                if act["internal_at"] is not None and at != act["internal_at"]:
                    continue
                if act["internal_at"] is None and one.size != act["size"]:
                    continue
                body = await link.call(self._whole, session, one.uid, 0, b"")
                if body is not None:
                    body.close()
                    if act["digest"] in (body.sha256, await self._receiver.disguise(body.sha256)):
                        found.append(one.uid)
        return found

    async def _done(self, act: dict[str, Any], result: str) -> None:
        await self._database.write(lambda c: state.done(c, act, result, self._now()))
        self._log.info(
            "done on the server", case=act["case_id"], mailbox=act["account"], act=act["kind"], result=result
        )

    # ------------------------------------------------------------------ small things

    async def _note(self, box: _Mailbox, name: str | None, reason: str) -> None:
        account = box.settings.address
        with contextlib.suppress(Failure):
            await self._database.write(lambda c: state.failed(c, account, name, reason, self._now()))

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _alone(uids: list[int], most: int) -> Iterator[list[int]]:
    """At most so many at a time; those that share a UID one by one."""
    plain = [uid for uid in uids if uid < DOUBLED]
    for start in range(0, len(plain), most):
        yield plain[start : start + most]
    for uid in uids:
        if uid >= DOUBLED:
            yield [uid]


def _imap_date(day: dt.date) -> str:
    """RFC 9051 `date`: English month names, whatever the locale."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{day.day}-{months[day.month - 1]}-{day.year}"


def _reason(error: BaseException) -> str:
    if isinstance(error, Failure):
        return error.private or error.public
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
