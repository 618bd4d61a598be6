"""The archive: what was received, what was decided, what is owed, in one commit.

Bytes lie in `store.py`, rows in `database.py`. Each message is a leaf of a hash tree (`hashtree.py`): its entry names
the digest of the bytes, of the record and of every attachment, so that a change of any of them shows. Entries never
hold content of a message, and of a secret not even its digest.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, exists, select, text

from gateway import clock, durable, sightings
from gateway import database as db
from gateway.classify import KnownDocument, name_key
from gateway.config import Gateway
from gateway.database import Database
from gateway.errors import LOCAL_ERROR, Failure
from gateway.hashtree import (
    MAX_ENTRY,
    TILE_WIDTH,
    BadProof,
    Checkpoint,
    inclusion,
    leaf_hash,
    proof_text,
    rotation,
    split_note,
)
from gateway.hashtree import root as tree_root
from gateway.inspection.findings import Document, Inspection
from gateway.message import VIETNAM, Received, new_case
from gateway.search import Index, Page, Progress, Query, SqliteIndex, document_key
from gateway.sightings import Sighting
from gateway.store import GroupWriter, Item, Store
from gateway.treelog import TreeLog

if TYPE_CHECKING:
    from gateway.policy import History, Verdict

#: A lock number of our own in PostgreSQL, so that leaves stay dense and a message is one with several gateways.
_LEAF_LOCK = 0x7662_6474
#: Seconds between a commit and its indexing, so that messages are indexed together.
_INDEX_DELAY = 0.2
#: Leaves sequenced in one piece; whole tiles, so that the next piece begins with one.
_PIECE = 16 * TILE_WIDTH
#: A clock this far behind the newest leaf was set back; less is the order of tasks.
_BEHIND_MS = 5000
#: Of the checkpoints of ten minutes the last is kept for good: at most 53,000 small files a year.
_KEEP_MS = 600_000


@dataclass(frozen=True, slots=True)
class Owed:
    """One recipient and what becomes of it. state: queued, held, returned, refused; destination: the next hop."""

    address: str
    notify: str
    orcpt: str
    agency: str
    verdict: str
    state: str
    destination: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A message of ours, owed from the same commit on. kind: notice, dsn, alert; recipients: (address, destination);
    about: the case it speaks of; key: a second notice with the same key is never made."""

    kind: str
    data: bytes
    recipients: tuple[tuple[str, str], ...]
    about: str
    key: str


@dataclass(frozen=True, slots=True)
class Count:
    """One event for the figures; the same `key` counts once, however often it is offered."""

    key: str
    kind: str
    agency: str
    direction: str
    message_class: str = ""
    profile: str = ""
    rule: str = ""
    mode: str = ""
    value: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """One person to be told over one channel, `delay` seconds from now. role: leader, delegate, clerk, security, admin;
    pressing: whatever the hour and however many."""

    channel: str
    role: str
    phone: str
    email: str
    delay: float = 0
    pressing: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to be told at once, owed from the same commit on; a second one with the same key is never made.
    Columns of `database.alert`; give_up: seconds after which nobody tries any more."""

    key: str
    kind: str
    subject: str
    text: str
    reaches: tuple[Reach, ...]
    give_up: float
    agency: str = ""
    case: str = ""
    document: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A message with all that was found, decided and is owed. answerable: the sender is not forged and may be written
    to, so that a failed delivery may be told."""

    received: Received
    direction: str
    inspection: Inspection
    verdict: Verdict
    trace: bytes
    owed: tuple[Owed, ...]
    notices: tuple[Notice, ...] = ()
    counts: tuple[Count, ...] = ()
    policy_text: str = ""
    answerable: bool = False
    history: History | None = None
    core: str = ""  # what the message is below the fields that servers put on top (`likeness.core`)
    alerts: tuple[Alert, ...] = ()
    kind: str = "mail"  # or `imported`: old mail from files, which nobody here saw arrive


@dataclass(frozen=True, slots=True)
class Tombstone:
    """All that stays of a secret. sha256 is of the bytes and goes no further: only an HMAC of it is kept."""

    case: str
    at: dt.datetime
    sender: str
    recipients: tuple[str, ...]
    peer: str
    size: int
    level: str
    rule: str
    sha256: str
    counts: tuple[Count, ...] = ()
    notices: tuple[Notice, ...] = ()
    alerts: tuple[Alert, ...] = ()
    core: str = ""  # what it is below the fields on top (`likeness.core`): of this, too, only an HMAC is kept


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a commit gives. duplicate: everything was archived before; the receipt is the earlier one."""

    case: str
    leaf: int
    at: dt.datetime
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """The same bytes from the same sender, seen before. accepted: lower-cased addresses we answered 250 for."""

    case: str
    verdict: str
    accepted: frozenset[str]


@dataclass(slots=True)
class _Files:
    """What of a case goes to the store: digest and bytes of the message and of its notices."""

    puts: list[Item] = field(default_factory=list)
    size: int = 0
    notices: list[tuple[Notice, str]] = field(default_factory=list)


class Archive:
    """Append and read. One per process; safe for many tasks at once."""

    def __init__(self, database: Database, store: Store, settings: Gateway) -> None:
        self.database = database
        self.store = store
        self.folder = store.root.parent
        self.log = TreeLog(self.folder, f"{settings.hostname}/archive")
        url = database.engine.url
        self.index: Index
        if url.get_backend_name() == "sqlite":
            self.index = SqliteIndex(self.folder / "index.db", Path(url.database or ""))
        else:
            from gateway.search_postgres import PostgresIndex

            self.index = PostgresIndex(database.engine)
        self._disk = GroupWriter(store)
        self._aside = ThreadPoolExecutor(2, "archive-aside")  # index and tree, which no message waits for
        self._signing = asyncio.Lock()
        self._fresh = asyncio.Event()
        self._indexing: asyncio.Task[None] | None = None
        self._salt = b""
        self._policies: set[str] = set()
        #: What follows from a message in the same transaction: its entries in registers (`register.Follower`). Called
        #: with the counts of a message that was seen once more, else with none.
        self.follower: Callable[[Connection, str, Iterable[Count]], None] | None = None

    @property
    def broken(self) -> str:
        """Why nothing is taken any more, or empty."""
        return self.store.broken or self.database.broken

    async def start(self) -> None:
        """Clear what a crash left half written, see that the log is whole, and start indexing. For the daemon alone."""
        await self.blocking(self.store.clear)
        with contextlib.suppress(BadProof):  # a lost key: every checkpoint says so, and mail goes on
            await self.blocking(self.log.signer)
        self._fresh.set()
        self._indexing = asyncio.create_task(self._follow(), name="search-index")

    async def close(self) -> None:
        """Let go. What was started keeps its newest checkpoint beside the log."""
        if self._indexing is not None:
            self._indexing.cancel()
            await asyncio.gather(self._indexing, return_exceptions=True)
            await self.blocking(self._keep_newest)
        await asyncio.to_thread(self._disk.close)
        self._aside.shutdown()
        self.index.close()

    async def _follow(self) -> None:
        """Index behind the commits, some messages at a time. Trouble never reaches the archiving: it is shown, and the
        next search or the next commit tries again."""
        while True:
            await self._fresh.wait()
            await asyncio.sleep(_INDEX_DELAY)
            self._fresh.clear()
            with contextlib.suppress(Failure, OSError, sqlite3.Error):
                while await self.blocking(self.index.catch_up, 200):
                    await asyncio.sleep(0)

    async def blocking(self, fn: Any, *args: Any) -> Any:
        """Run what waits for disk or index in the archive's own threads, beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, fn, *args)

    async def _put(self, files: _Files) -> None:
        await self._disk.put(files.puts, files.size)

    # ------------------------------------------------------------------ append

    async def known(self, sha256: str, sender: str, direction: str) -> Known | None:
        """Were these bytes from this sender archived before? Raises Failure."""

        def ask(connection: Connection) -> Known | None:
            return _known(connection, sha256, sender, direction)

        return await self.database.read(ask)

    async def history(self, facts: Inspection) -> tuple[KnownDocument, ...]:
        """Documents taken before with a number of this message, and whether they were recalled since. Reads only when
        the message has a document with a number. Raises Failure."""
        if not any(one.document is not None and one.document.code is not None for one in facts.files):
            return ()
        return await self.database.read(lambda connection: known_documents(connection, facts))

    async def commit(self, case: Case, sighting: Sighting | None = None) -> Receipt:
        """THE commit point. When this returns, the message is ours: bytes, verdict, deliveries and notices are durable.

        sighting: the message was only seen, in a mailbox or a journal; if it is archived already, it is counted where
        it was not, and nothing else.

        Raises Failure (retryable) when anything of it could not be made durable; then `250` must not be said.
        """
        received = case.received
        record = _record(case)
        row = _row(case, record)
        files = _Files([(received.body.chunks(), received.body.sha256)], received.body.size)
        self._add_notices(files, case.notices)
        # First the bytes, so that no row ever names bytes that are not there. A crash after this line leaves bytes
        # without a row: they are no promise, and the next offer of the message finds them in place.
        await self._put(files)
        # Then everything else in one transaction. COMMIT in `database.py` is the moment from which `250` is true:
        # before it the sender still owns the message, after it we do.
        receipt = await self.database.write(
            lambda connection: self._append(connection, case, row, record, files, sighting)
        )
        if case.verdict.policy_digest:
            self._policies.add(case.verdict.policy_digest)
        self._fresh.set()
        return receipt

    def _add_notices(self, files: _Files, notices: Iterable[Notice]) -> None:
        for notice in notices:
            digest = hashlib.sha256(notice.data).hexdigest()
            files.puts.append(((notice.data,), digest))
            files.size += len(notice.data)
            files.notices.append((notice, digest))

    def _append(
        self,
        connection: Connection,
        case: Case,
        row: dict[str, Any],
        record: dict[str, Any],
        files: _Files,
        sighting: Sighting | None = None,
    ) -> Receipt:
        """Runs in the writer's thread, inside the transaction."""
        take_turns(connection)
        if case.kind == "imported" and (first := _imported(connection, row["sha256"])):
            return _receipt(connection, first)
        if sighting is not None:
            first, _ = sightings.first(connection, row["sha256"], case.core)
            if first:
                _see(connection, first, case.counts, case.received.at, sighting)
                self._follow_up(connection, first, case.verdict.message_class, case.counts)
                return _receipt(connection, first)
            if sighting.via != "imap":
                sightings.add(connection, row["id"], sighting, to_ms(case.received.at))
        received, now = case.received, time.time()
        known = _known(connection, row["sha256"], row["sender"], row["direction"])
        owed = [one for one in case.owed if known is None or one.address.lower() not in known.accepted]
        if known is not None and not owed:
            return _receipt(connection, known.case)

        db.insert(connection, db.message, [row])
        if case.core and case.core != row["sha256"]:
            db.insert(connection, db.likeness, [{"message": row["id"], "core": case.core}])
        due = to_ms(received.at)
        db.insert(
            connection,
            db.recipient,
            [
                {
                    "message": row["id"],
                    "address": clean(one.address),
                    "notify": one.notify,
                    "orcpt": clean(one.orcpt),
                    "agency": one.agency,
                    "verdict": one.verdict,
                    "state": one.state,
                    "destination": one.destination,
                    "next_attempt_at": due if one.state == "queued" else None,
                    "settled_at": due if one.state in ("returned", "refused") else None,
                }
                for one in owed
            ],
        )
        db.insert(
            connection,
            db.attachment,
            [
                {
                    "message": row["id"],
                    "path": clean(one.path),
                    "sha256": one.sha256,
                    "size": one.size,
                    "type": one.type,
                }
                for one in case.inspection.files
            ],
        )
        if texts := _texts(case.inspection):
            db.insert(connection, db.fulltext, [{"message": row["id"], "texts": texts}])
        digest = case.verdict.policy_digest
        if digest and digest not in self._policies:
            policy = {"digest": digest, "first_used_at": due, "text": case.policy_text}
            db.insert(connection, db.policy, [policy], ignore=True)
        files_in_entry = [
            {
                "path": clean(one.path),
                "sha256": one.sha256,
                "size": one.size,
                "type": one.type,
                "signatures": [signature.state.value for signature in one.signatures],
            }
            for one in case.inspection.files
        ]
        entry = message_entry(row, owed, files_in_entry, record["origin"])
        # Three times, each named for what it is: `received` is our clock, which the kernel calls in step or not; the
        # others are the word of the first server that took the message, and of its sender.
        said = case.inspection.message
        entry["times"] = {
            "clock_synchronised": clock.state()["synchronised"],
            "first_received": clean(said.first_received_at)[:100],
            "date_field": clean(said.date)[:100],
        }
        leaf = append_leaf(connection, now, entry)
        counts: Iterable[Count] = (*case.counts, *(_recalls(case) if case.kind == "mail" else ()))
        if sighting is None and case.core and (first := sightings.watched(connection, row["sha256"], case.core)):
            counts = sightings.uncounted(connection, first, counts)
        count_events(connection, counts, received.at, row["id"])
        for notice, notice_digest in files.notices:
            append_notice(connection, notice, notice_digest, now)
        for alert in case.alerts:
            append_alert(connection, alert, int(now * 1000))
        if case.kind == "mail":
            self._follow_up(connection, row["id"], row["message_class"], ())
        return Receipt(row["id"], leaf, from_ms(int(now * 1000)))

    def _follow_up(self, connection: Connection, case: str, message_class: str, counts: Iterable[Count]) -> None:
        if self.follower is not None and message_class not in ("WORK_MAIL", "SYSTEM", ""):
            self.follower(connection, case, counts)

    async def notify(self, notices: Iterable[Notice]) -> None:
        """Make messages of ours durable and queue them: what the queue owes for failed and late deliveries. A notice
        whose key was used before is left out. Raises Failure."""
        files = _Files()
        self._add_notices(files, notices)
        if not files.notices:
            return
        await self._put(files)

        def append(connection: Connection) -> None:
            for notice, digest in files.notices:
                append_notice(connection, notice, digest, time.time())

        await self.database.write(append)

    async def bury(self, tombstone: Tombstone) -> None:
        """Keep that a secret was refused, and nothing of it. The digest is an HMAC under the installation's salt, so
        that the same message can be recognised here and by nobody else. Raises Failure."""
        digest = await self.disguise(tombstone.sha256)
        alike = ""
        if tombstone.core and tombstone.core != tombstone.sha256:
            alike = await self.disguise(tombstone.core)
        # Keys are made of the digest of the bytes elsewhere; here that would let a guess at the bytes be proved.
        counts = [replace(one, key=one.key.replace(tombstone.sha256, digest)) for one in tombstone.counts]
        notices = [replace(one, key=one.key.replace(tombstone.sha256, digest)) for one in tombstone.notices]
        files = _Files()
        self._add_notices(files, notices)
        if files.puts:
            await self._put(files)

        def append(connection: Connection) -> None:
            now = time.time()
            row = {
                "id": tombstone.case,
                "at": to_ms(tombstone.at),
                "sender": tombstone.sender,
                "recipients": json.dumps(tombstone.recipients),
                "peer": tombstone.peer,
                "size": tombstone.size,
                "level": tombstone.level,
                "rule": tombstone.rule,
                "digest": digest,
            }
            db.insert(connection, db.tombstone, [row])
            entry = {
                "type": "tombstone",
                "case": tombstone.case,
                "at": stamp(tombstone.at),
                "sender": tombstone.sender,
                "recipients": list(tombstone.recipients),
                "peer": tombstone.peer,
                "size": tombstone.size,
                "level": tombstone.level,
                "rule": tombstone.rule,
                "hmac": digest,
            }
            append_leaf(connection, now, entry)
            if alike:
                sightings.add(connection, tombstone.case, Sighting("core", "", alike), to_ms(tombstone.at))
            count_events(connection, counts, tombstone.at, tombstone.case)
            for notice, notice_digest in files.notices:
                append_notice(connection, notice, notice_digest, now)
            for alert in tombstone.alerts:
                append_alert(connection, alert, int(now * 1000))

        await self.database.write(append)

    async def disguise(self, sha256: str) -> str:
        """The digest as a tombstone keeps it: an HMAC under the installation's salt."""
        salt = await self.blocking(self._load_salt)
        return hmac.new(salt, bytes.fromhex(sha256), hashlib.sha256).hexdigest()

    async def count(self, counts: Iterable[Count], at: dt.datetime, message: str = "") -> None:
        """Events that come without a commit, such as a recipient refused at the door. Raises Failure."""
        rows = tuple(counts)
        if rows:
            await self.database.write(lambda connection: count_events(connection, rows, at, message))

    async def see(self, case: str, counts: Iterable[Count], at: dt.datetime, sighting: Sighting | None) -> None:
        """An archived message, or the tombstone of a secret, was seen once more. Raises Failure."""
        rows = tuple(counts)

        def write(connection: Connection) -> None:
            _see(connection, case, rows, at, sighting)
            self._follow_up(connection, case, "seen", rows)

        await self.database.write(write)

    def _load_salt(self) -> bytes:
        if not self._salt:
            path = self.folder / "keys" / "tombstone.salt"
            if not path.exists():
                durable.make_folder(path.parent, 0o700)
                durable.replace(path, os.urandom(32), 0o600)
            self._salt = path.read_bytes()
        return self._salt

    async def note(self, kind: str, body: Mapping[str, Any], *, case: str = "") -> int:
        """Append one typed leaf in a transaction of its own; see `leaf`. Returns its index. Raises Failure."""
        return await self.database.write(lambda connection: leaf(connection, kind, body, case=case))

    # ------------------------------------------------------------------ read

    async def first_case(self, sha256: str, core: str) -> tuple[str, bool]:
        """The first message of these bytes or of this core, whichever way it came, or empty; and whether it is ours."""
        return await self.database.read(lambda connection: sightings.first(connection, sha256, core))

    async def imported_case(self, sha256: str) -> str:
        """The case of these bytes, received or imported, or empty."""
        return await self.database.read(lambda connection: _imported(connection, sha256))

    async def decided(self, case: str) -> bool:
        """Is there a message or a tombstone of this case?"""
        question = select(db.leaf.c.idx).where(db.leaf.c.case_id == case, db.leaf.c.type.in_(("message", "tombstone")))
        return await self.database.read(lambda connection: connection.execute(question).first() is not None)

    async def buried(self, digest: str, alike: str) -> str:
        """The tombstone of the same secret, by the `disguise` of its bytes or of its core; empty when there is none."""

        def ask(connection: Connection) -> str:
            for table, column in ((db.tombstone, db.tombstone.c.id), (db.sighting, db.sighting.c.case_id)):
                question = select(column).where(table.c.digest.in_((digest, alike))).limit(1)
                if found := connection.execute(question).scalar():
                    return str(found)
            return ""

        return await self.database.read(ask)

    async def row(self, case: str) -> dict[str, Any] | None:
        """The row of a message as a dict, with `recipients` and `attachments`; None when there is none."""

        def ask(connection: Connection) -> dict[str, Any] | None:
            found = connection.execute(select(db.message).where(db.message.c.id == case)).mappings().first()
            if found is None:
                return None
            row: dict[str, Any] = dict(found)
            for name, table in (("recipients", db.recipient), ("attachments", db.attachment)):
                rows = connection.execute(select(table).where(table.c.message == case).order_by(table.c.id))
                row[name] = [dict(one) for one in rows.mappings()]
            return row

        return await self.database.read(ask)

    async def data(self, case: str) -> bytes:
        """The received bytes, checked against their digest. Raises KeyError for an unknown case, Damaged."""
        row = await self.row(case)
        if row is None:
            raise KeyError(case)
        return await self.blocking(self.store.read, row["sha256"])  # type: ignore[no-any-return]

    async def search(self, query: Query, progress: Progress | None = None) -> Page:
        """Raises Failure."""
        return await self.blocking(self.index.search, query, progress)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ the tree

    async def checkpoint(self) -> Checkpoint | None:
        """Put the new leaves into the tree on disk and sign its root. None while there is no leaf at all.

        Nothing is signed that does not continue what was signed last, and nothing that was not read back from disk.
        Raises Failure: with a reason that begins with `rolled back` or `rewritten` when history has changed.
        """
        async with self._signing:
            try:
                return await self._checkpoint()
            except (BadProof, OSError) as error:
                raise Failure(LOCAL_ERROR.text, f"checkpoint: {error}") from error

    async def _checkpoint(self) -> Checkpoint | None:
        last = await self.blocking(self.log.newest)
        size, row = await self.database.read(_log_state)
        if last is not None and (row is None or row.size < last.size):
            signed = row.size if row else 0
            raise Failure(LOCAL_ERROR.text, f"rolled back: the database knows {signed} leaves, {last.size} are signed")
        if row is not None and (last is None or last.size < row.size):
            # Signed, then stopped before it was published; or this host was away while another one signed.
            if not await self.blocking(self._tiles_hold, row.size, row.root):
                await self._sequence(last.size if last else 0, row.size)
            # What another host has signed and kept belongs beside the log of this one, too.
            for older, note in await self.database.read(lambda c: _notes(c, last.size if last else 0, row.size)):
                await self.blocking(self.log.keep, older, note)
            await self.blocking(self.log.publish, row.note)
            last = self.log.open(row.note)
        if size == 0 or (last is not None and last.size == size):
            return last
        if last is not None and size < last.size:
            raise Failure(LOCAL_ERROR.text, f"rolled back: {size} leaves, {last.size} are signed")
        # Anchors come only with other leaves, so that a log at rest stays as it was cosigned.
        if await self.database.read(_unanchored):
            size += await self.database.write(_anchor)
        root = await self._grow(last, last.size if last else 0, size)
        if root is None:  # tiles are lost or damaged; made again from the leaves they must fit
            root = await self._grow(last, 0, size)
        if root is None:
            raise Failure(LOCAL_ERROR.text, "rewritten: the leaves do not continue the checkpoint that was signed last")
        at = int(time.time() * 1000)
        note = self.log.sign(size, root, stamp(from_ms(at)))
        expected = last.size if last else None
        previous = await self.database.write(
            lambda connection: _swap_checkpoint(
                connection, expected, {"size": size, "root": root, "at": at, "note": note}
            )
        )
        if previous is not None:
            await self.blocking(self.log.keep, *previous)
        await self.blocking(self.log.publish, note)
        await self.blocking(self.log.prune, size)
        return self.log.open(note)

    async def _grow(self, last: Checkpoint | None, old: int, size: int) -> bytes | None:
        """Tiles up to `size`, and their root read back from disk; None when damaged or not continuing `last`."""
        try:
            await self._sequence(old, size)
            nodes = self.log.nodes(size)
            if last is not None and await self.blocking(tree_root, last.size, nodes) != last.root:
                return None
            return await self.blocking(tree_root, size, nodes)  # type: ignore[no-any-return]
        except BadProof:
            return None

    def _tiles_hold(self, size: int, root: bytes) -> bool:
        try:
            return self.log.root(size) == root
        except BadProof:
            return False

    async def _sequence(self, old: int, size: int) -> None:
        """Bring the tiles from `old` leaves to `size`, from the database, each leaf hashed anew: a bit that flipped
        since must not be signed."""
        start = old - old % TILE_WIDTH
        while start < size:
            end = min(size, start + _PIECE)
            rows = await self.database.read(lambda connection, start=start, end=end: _leaves(connection, start, end))
            if [row.idx for row in rows] != list(range(start, end)):
                raise Failure(LOCAL_ERROR.text, f"rewritten: leaves between {start} and {end} are missing")
            for row in rows:
                if leaf_hash(row.entry) != row.hash:
                    raise Failure(LOCAL_ERROR.text, f"rewritten: leaf {row.idx} does not match its hash")
            await self.blocking(self.log.extend, start, [row.entry for row in rows])
            start = end

    async def rotate_key(self, who: str, reason: str, *, lost: bool = False) -> tuple[str, str]:
        """Replace the signing key by a new one; gives the old and the new public key. A `key` leaf tells of it, signed
        with the old key unless that is lost; the next checkpoint has both signatures, later ones that of the new key.
        After a crash it goes on where it was. Raises Failure."""
        try:
            old = await self.blocking(self.log.verifier)
            fresh = await self.blocking(self.log.next_signer)
            statement = rotation(str(old), str(fresh.verifier))
            signature = None if lost else (await self.blocking(self.log.signer)).sign_bytes(statement)
        except (BadProof, OSError) as error:
            raise Failure(LOCAL_ERROR.text, f"key: {error}", retryable=False) from error
        body: dict[str, Any] = {"old": str(old), "new": str(fresh.verifier), "who": who, "reason": reason}
        if signature is not None:
            body["signature"] = base64.b64encode(signature).decode()
        if old != fresh.verifier:
            await self.note("key", body)
        for attempt in range(10):
            try:
                await self.checkpoint()
                break
            except Failure:  # the running gateway may have signed at this moment
                if attempt == 9:
                    raise
        async with self._signing:
            newest = await self.blocking(self.log.newest)
            if newest is not None:  # the one with both signatures stays for good
                await self.blocking(self.log.keep, newest.size, self.log.newest_note())
            await self.blocking(self.log.replace_key)
        return str(old), str(fresh.verifier)

    def _keep_newest(self) -> None:
        with contextlib.suppress(BadProof, OSError):
            if newest := self.log.newest():
                self.log.keep(newest.size, self.log.newest_note())

    async def prove(self, case: str) -> str:
        """A C2SP tlog-proof of the message's leaf, the entry itself in its `extra` line, against a signed checkpoint
        (a new one when the leaf is younger than the last). Raises KeyError for an unknown case, Failure."""

        def ask(connection: Connection) -> Any:
            question = select(db.leaf.c.idx, db.leaf.c.entry).where(
                db.leaf.c.case_id == case, db.leaf.c.type.in_(("message", "tombstone"))
            )
            return connection.execute(question.order_by(db.leaf.c.idx)).first()

        leaf = await self.database.read(ask)
        if leaf is None:
            raise KeyError(case)
        newest = await self.blocking(self.log.newest)
        if newest is None or newest.size <= leaf.idx:
            newest = await self.checkpoint()
        assert newest is not None
        note = await self._attested(leaf.idx) or await self.blocking(self.log.newest_note)
        try:
            signed = self.log.open(note)
            path = await self.blocking(inclusion, leaf.idx, signed.size, self.log.nodes(signed.size))
        except BadProof as error:
            raise Failure(LOCAL_ERROR.text, f"proof: {error}") from error
        return proof_text(leaf.idx, leaf.entry, path, note, await self.blocking(self.log.stamp_of, signed.size))

    async def _attested(self, leaf: int) -> str:
        """The checkpoint over this leaf that others attested best: with a time stamp and cosignatures, the earliest of
        those with most. Empty when nobody attested any."""

        def ask(connection: Connection) -> dict[int, list[str]]:
            a = db.attest.c
            rows = connection.execute(select(a.size, a.name).where(a.size > leaf).order_by(a.size).limit(1000)).all()
            found: dict[int, list[str]] = {}
            for row in rows:
                found.setdefault(row.size, []).append(row.name)
            return found

        found = await self.database.read(ask)
        for size in sorted(found, key=lambda one: (-("timestamps" in found[one]), -len(found[one]), one)):
            if note := await self.blocking(self.log.kept_note, size):
                return str(note)
        return ""

    async def attest(self, note: str, name: str, at: int, data: bytes) -> None:
        """Keep what the witness or authority `name` said of a checkpoint at `at` (milliseconds): signature lines, or
        the RFC 3161 response of `timestamps`. Its digest goes into the tree as an `anchor` with the next leaves, so
        that it cannot vanish unnoticed. Raises Failure."""
        checkpoint = self.log.open(note)
        row = {"size": checkpoint.size, "root": checkpoint.root, "at": at, "note": note}

        def keep(data: bytes) -> None:
            self.log.keep(checkpoint.size, note)
            if name == "timestamps":
                self.log.keep_stamp(checkpoint.size, data)
                return
            self.log.keep(checkpoint.size, note + data.decode())
            if split_note(self.log.newest_note())[0] == split_note(note)[0]:
                self.log.publish(self.log.kept_note(checkpoint.size))

        def insert(connection: Connection) -> bytes:
            db.insert(connection, db.checkpoint, [row], ignore=True)
            found = {"size": checkpoint.size, "name": name, "at": at, "data": data}
            db.insert(connection, db.attest, [found], ignore=True)
            a = db.attest.c
            return connection.execute(select(a.data).where(a.size == checkpoint.size, a.name == name)).scalar_one()

        async with self._signing:
            try:
                # The files first: an anchor never names one that is not there. And once more, with what the database
                # has: another gateway may have had an answer, and written, at the same moment.
                await self.blocking(keep, data)
                await self.blocking(keep, await self.database.write(insert))
            except (BadProof, OSError) as error:
                raise Failure(LOCAL_ERROR.text, f"checkpoint {checkpoint.size}: {error}") from error


# ---------------------------------------------------------------------- rows


def _log_state(connection: Connection) -> tuple[int, Any]:
    """How many leaves there are, and the newest row of `checkpoint`."""
    last = connection.execute(select(db.leaf.c.idx).order_by(db.leaf.c.idx.desc()).limit(1)).scalar()
    row = connection.execute(select(db.checkpoint).order_by(db.checkpoint.c.size.desc()).limit(1)).first()
    return (0 if last is None else last + 1), row


def _notes(connection: Connection, start: int, end: int) -> list[Any]:
    c = db.checkpoint.c
    return list(connection.execute(select(c.size, c.note).where(c.size >= start, c.size < end).order_by(c.size)))


def _leaves(connection: Connection, start: int, end: int) -> list[Any]:
    leaf = db.leaf.c
    question = select(leaf.idx, leaf.entry, leaf.hash).where(leaf.idx >= start, leaf.idx < end).order_by(leaf.idx)
    return list(connection.execute(question))


def _swap_checkpoint(connection: Connection, expected: int | None, fresh: dict[str, Any]) -> tuple[int, str] | None:
    """Compare and swap: signs only on top of the checkpoint that was seen, whoever else signs at the same time.

    Returns size and note of the one before when its ten minutes are over and it is to be kept."""
    take_turns(connection)  # else two gateways on PostgreSQL see the same one, and both sign
    row = connection.execute(select(db.checkpoint).order_by(db.checkpoint.c.size.desc()).limit(1)).first()
    if (row.size if row else None) != expected:
        raise Failure(LOCAL_ERROR.text, "checkpoint: another process has just signed")
    db.insert(connection, db.checkpoint, [fresh])
    if row is None:
        return None
    attested = connection.execute(select(exists().where(db.attest.c.size == row.size))).scalar()
    if row.at // _KEEP_MS == fresh["at"] // _KEEP_MS and not attested:
        connection.execute(db.checkpoint.delete().where(db.checkpoint.c.size == row.size))
        return None
    return row.size, row.note


def _unanchored(connection: Connection) -> bool:
    return bool(connection.execute(select(exists().where(db.attest.c.leaf.is_(None)))).scalar())


def _anchor(connection: Connection) -> int:
    """A leaf for each checkpoint with something attested that no leaf names yet. Returns how many."""
    a = db.attest.c
    rows = connection.execute(
        select(a.size, a.name, a.at, a.data, db.checkpoint.c.note, db.checkpoint.c.root)
        .join(db.checkpoint, db.checkpoint.c.size == a.size)
        .where(a.leaf.is_(None))
        .order_by(a.size, a.name)
    ).all()
    sizes: dict[int, list[Any]] = {}
    for row in rows:
        sizes.setdefault(row.size, []).append(row)
    for size, found in sizes.items():
        body = split_note(found[0].note)[0]
        entry: dict[str, Any] = {
            "size": size,
            "root": found[0].root.hex(),
            "note": hashlib.sha256(body.encode()).hexdigest(),
            "cosignatures": [
                {"witness": row.name, "time": row.at // 1000, "sha256": hashlib.sha256(line.encode()).hexdigest()}
                for row in found
                if row.name != "timestamps"
                for line in row.data.decode()[:-1].split("\n")
            ],
        }
        for row in found:
            if row.name == "timestamps":
                entry["stamp"] = {"sha256": hashlib.sha256(row.data).hexdigest(), "time": row.at // 1000}
        place = leaf(connection, "anchor", entry)
        names = [row.name for row in found]
        connection.execute(db.attest.update().where(a.size == size, a.name.in_(names)).values(leaf=place))
    return len(sizes)


#: Asked twice for each message, so written out: a tenth of the CPU.
_KNOWN = (
    "SELECT m.id, m.verdict, r.address, r.state FROM message m LEFT JOIN recipient r ON r.message = m.id "
    "WHERE m.sha256 = {0} AND m.sender = {1} AND m.direction = {2} AND m.kind = 'mail' ORDER BY m.id"
)
_KNOWN_SQL = {"sqlite": _KNOWN.format("?", "?", "?"), "postgresql": _KNOWN.format("%s", "%s", "%s")}


def _known(connection: Connection, sha256: str, sender: str, direction: str) -> Known | None:
    question = _KNOWN_SQL[connection.dialect.name]
    rows = connection.exec_driver_sql(question, (sha256, clean(sender), direction)).all()
    if not rows:
        return None
    # What was only seen in a mailbox (a client's copy of sent mail may be there first) was never accepted for delivery.
    accepted = [row for row in rows if row.state not in (None, "refused", "seen")]
    first = accepted[0] if accepted else rows[0]
    return Known(first.id, first.verdict, frozenset(row.address.lower() for row in accepted))


#: Documents of one number looked at: a number belongs to one document a year and agency (Decree 30/2020, 15.1).
_MOST_KNOWN = 50


def known_documents(connection: Connection, facts: Inspection) -> tuple[KnownDocument, ...]:
    """Documents of the archive with a number of this message that reached somebody, oldest first; two indexed reads.

    A message that was returned is none: its sender mends it and sends it again under the same number.
    """
    files = [one for one in facts.files if one.document is not None and one.document.code is not None]
    keys = {document_key(one.document.code.value) for one in files if one.document and one.document.code} - {""}
    if not keys:
        return ()
    m, e, a = db.message.c, db.event.c, db.attachment.c
    mine = {one.sha256 for one in files}
    recalls: dict[str, list[Any]] = {}
    for key in sorted(keys):
        mark = f"recall|{key}|"
        query = (
            select(m.id, m.issuing_agency, m.sender)
            .join(db.event, e.message == m.id)
            .where(e.key >= mark, e.key < f"recall|{key}}}")
            .order_by(m.id.desc())
            .limit(_MOST_KNOWN)
        )
        if found := connection.execute(query).all():
            recalls[key] = list(found)
    rows = connection.execute(
        select(m.id, m.document_key, m.issuing_agency, m.document_date, m.sender, m.record, a.sha256)
        .join(db.attachment, a.message == m.id)
        .where(
            m.document_key.in_(keys),
            exists().where(db.recipient.c.message == m.id, db.recipient.c.state.in_(("queued", "delivered", "seen"))),
            m.message_class.not_in(("DRAFT", "COMMENT", "CITIZEN_MAIL")),
            a.type.in_({one.type for one in files}),  # the .docx beside a .pdf is no other content
        )
        .order_by(m.id.desc(), a.id)
        .limit(_MOST_KNOWN)
    ).all()
    known: dict[str, KnownDocument] = {}
    for row in rows:
        gone = any(one.id > row.id and _same_issuer(one, row) for one in recalls.get(row.document_key, ()))
        if row.id not in known or row.sha256 in mine:
            signed = () if row.sha256 in mine else _signed_revisions(row.record, row.sha256)
            known[row.id] = KnownDocument(row.id, row.issuing_agency, row.document_date, row.sha256, gone, signed)
    seen = {row.document_key for row in rows}
    unseen = [
        KnownDocument(one[0].id, one[0].issuing_agency, "", "", True) for key, one in recalls.items() if key not in seen
    ]
    return tuple(sorted((*known.values(), *unseen), key=lambda one: one.case))


def _signed_revisions(record: str, sha256: str) -> tuple[str, ...]:
    """What was signed in an archived file, by the record of its message."""
    files = json.loads(record).get("inspection", {}).get("files", [])
    return tuple(
        signature["revision"]
        for one in files
        if one.get("sha256") == sha256
        for signature in one.get("signatures", [])
        if signature.get("revision")
    )


def _same_issuer(recall: Any, document: Any) -> bool:
    """Only who issued a document recalls it: the same agency by its letterhead, sent from the same domain."""
    if recall.sender.rpartition("@")[2].lower() != document.sender.rpartition("@")[2].lower():
        return False
    names = (recall.issuing_agency, document.issuing_agency)
    return not all(names) or name_key(names[0]) == name_key(names[1])


def _recalls(case: Case) -> list[Count]:
    """A recall notice that counts is remembered under each number it recalls, as an event `known_documents` finds."""
    document, verdict = case.verdict.document, case.verdict
    if document is None or not document.recall or verdict.disposition.text not in ("deliver", "deliver-warn"):
        return []
    origin = case.received.origin
    if not (origin.login or case.inspection.sender.aligned or (origin.trusted and case.direction == "out")):
        return []  # anybody could recall another's document in a forged letter
    own = document_key(document.code.value) if document.code is not None else ""
    keys = {document_key(code) for code in document.cites} - {"", own}
    return [
        Count(
            f"recall|{key}|{case.received.case}",
            "recalled",
            verdict.agency,
            case.direction,
            verdict.message_class,
            verdict.profile,
            value=key,
        )
        for key in sorted(keys)
    ]


def _record(case: Case) -> dict[str, Any]:
    """Everything known about the message, as JSON can hold it; the long texts are kept elsewhere, for the search."""
    received, verdict = case.received, case.verdict
    envelope, origin = received.envelope, received.origin
    facts = case.inspection
    if facts.texts:
        facts = facts.model_copy(update={"texts": {}})
    return {
        "envelope": {
            "sender": str(envelope.sender),
            "recipients": [str(one.address) for one in envelope.recipients],
            "ret": envelope.ret,
            "envid": envelope.envid,
            "smtputf8": envelope.smtputf8,
            "body": envelope.body,
        },
        "origin": {name: getattr(origin, name) for name in origin.__slots__},
        "answerable": case.answerable,
        # What the message counts as in the figures: the record's digest is in the tree, so the events can be proved.
        "counts": [
            [one.kind, one.agency, one.direction, one.rule, one.mode, one.value, one.scope]
            for one in case.counts
            if one.key.startswith(received.body.sha256)
        ],
        **({"history": past} if case.history is not None and (past := _past(case.history)) else {}),
        "inspection": facts.model_dump(mode="json", exclude_defaults=True),
        "verdict": {
            "disposition": verdict.disposition.text,
            "findings": [
                {
                    name: value.text if name == "disposition" else value
                    for name in one.__slots__
                    if (value := getattr(one, name)) not in ("", ())
                }
                for one in verdict.findings
            ],
            "recipients": [
                {"address": one.address, "disposition": one.disposition.text, "agency": one.agency}
                for one in verdict.recipients
            ],
            "message_class": verdict.message_class,
            "profile": verdict.profile,
            "delivery_mode": verdict.delivery_mode,
            "policy_digest": verdict.policy_digest,
            "agency": verdict.agency,
            "document": verdict.document.model_dump(mode="json", exclude_defaults=True) if verdict.document else None,
            "urgency": verdict.urgency,
            "headers": [list(one) for one in verdict.headers],
            "acknowledge": verdict.acknowledge,
        },
    }


def _past(history: History) -> dict[str, Any]:
    """What was known of the past when the message was judged; only what is there."""
    past = {
        "documents": [{name: getattr(one, name) for name in one.__slots__} for one in history.documents],
        "calendar_publications": [one.isoformat() for one in history.calendar_publications],
        "meeting_start": history.meeting_start.isoformat() if history.meeting_start else "",
        "meeting_chaired_by_committee": history.meeting_chaired_by_committee,
    }
    return {key: value for key, value in past.items() if value not in ([], "", None)}


def _row(case: Case, record: dict[str, Any]) -> dict[str, Any]:
    """The row of `message`: columns to search on are copies of what `record` holds."""
    received, verdict, facts = case.received, case.verdict, case.inspection.message
    envelope, origin = received.envelope, received.origin
    return {
        "id": received.case,
        "kind": case.kind,
        "about": None,
        "direction": case.direction,
        "channel": origin.channel,
        "received_at": to_ms(received.at),
        "sha256": received.body.sha256,
        "size": received.body.size,
        "sender": clean(str(envelope.sender)),
        "login": clean(origin.login),
        "peer": clean(origin.client or origin.peer),
        "trace": case.trace,
        "subject": clean(facts.subject),
        "header_from": clean(", ".join(one.address or one.name for one in facts.from_)),
        "message_id": clean(facts.message_id),
        "message_class": verdict.message_class,
        "verdict": verdict.disposition.text,
        "profile": verdict.profile,
        "delivery_mode": verdict.delivery_mode,
        "policy_digest": verdict.policy_digest,
        "agency": verdict.agency,
        **document_columns(verdict.document),
        "record": canonical(record).decode(),
        "smtputf8": int(envelope.smtputf8),
        "ret": envelope.ret,
        "envid": clean(envelope.envid),
    }


def document_columns(document: Document | None) -> dict[str, str]:
    def value(name: str) -> str:
        found = getattr(document, name, None)
        return clean(found.value) if found is not None else ""

    return {
        "document_code": value("code"),
        "document_key": document_key(value("code")),
        "document_kind": value("kind"),
        "document_date": value("date"),
        "abstract": value("abstract"),
        "signer": value("signer"),
        "issuing_agency": value("issuing_agency"),
    }


def _texts(facts: Inspection) -> bytes:
    texts = {path: words for path, words in facts.texts.items() if words.strip()}
    if facts.message.body_text.strip():
        texts.setdefault("", facts.message.body_text)
    return zlib.compress(canonical(texts), 1) if texts else b""


def _imported(connection: Connection, sha256: str) -> str:
    """The case of these bytes, received or imported, or empty."""
    m = db.message.c
    question = select(m.id).where(m.sha256 == sha256, m.kind.in_(("mail", "imported"))).order_by(m.id).limit(1)
    return connection.execute(question).scalar() or ""


def _receipt(connection: Connection, case: str) -> Receipt:
    """What the first commit of a message gave."""
    index, at = connection.execute(
        select(db.leaf.c.idx, db.leaf.c.at).where(db.leaf.c.case_id == case, db.leaf.c.type == "message")
    ).one()
    return Receipt(case, index, from_ms(at), duplicate=True)


def _see(
    connection: Connection, case: str, counts: Iterable[Count], at: dt.datetime, sighting: Sighting | None
) -> None:
    """A message is there and was seen again: counted for agencies that it was not counted for. In a mailbox its row in
    `imap_message` is the sighting, unless there is something on top of it to be kept."""
    count_events(connection, sightings.uncounted(connection, case, counts), at, case)
    if sighting is not None and (sighting.via != "imap" or sighting.head):
        sightings.add(connection, case, sighting, to_ms(at))


def count_events(connection: Connection, counts: Iterable[Count], at: dt.datetime, message: str) -> None:
    """Events, in the caller's transaction; one that is there already is the same one."""
    local = at.astimezone(VIETNAM)
    month = f"{local.year}-{local.month:02}"
    rows = [
        {**{name: getattr(one, name) for name in one.__slots__}, "at": to_ms(at), "month": month, "message": message}
        for one in counts
    ]
    db.insert(connection, db.event, rows, ignore=True)


# ---------------------------------------------------------------------- notices and leaves


def append_notice(connection: Connection, notice: Notice, digest: str, now: float) -> None:
    """A message of ours as a message of its own, inside the caller's transaction: null sender, queued like any
    other. Its bytes are in the store under `digest` already. Nothing happens when the notice's key was used before."""
    at = int(now * 1000)
    if not db.insert(connection, db.notice_sent, [{"key": notice.key, "at": at}], ignore=True):
        return
    owed = [Owed(address, "NEVER", "", "", "deliver", "queued", hop) for address, hop in notice.recipients]
    row: dict[str, Any] = {
        "id": new_case(now),
        "kind": notice.kind,
        "about": notice.about,
        "direction": "out",
        "channel": "gateway",
        "received_at": at,
        "sha256": digest,
        "size": len(notice.data),
        "sender": "",
        "verdict": "deliver",
        "record": "{}",
    }
    db.insert(connection, db.message, [row])
    db.insert(
        connection,
        db.recipient,
        [
            {
                "message": row["id"],
                "address": one.address,
                "notify": one.notify,
                "verdict": one.verdict,
                "state": one.state,
                "destination": one.destination,
                "next_attempt_at": at,
            }
            for one in owed
        ],
    )
    append_leaf(connection, now, message_entry(row, owed, [], {}))


def append_alert(connection: Connection, alert: Alert, at: int) -> bool:
    """Owe an alert, inside the caller's transaction; False when its key was used before. `at`: milliseconds."""
    row = {
        "key": clean(alert.key),
        "kind": alert.kind,
        "subject": alert.subject,
        "agency": alert.agency,
        "case_id": alert.case,
        "document": clean(alert.document),
        "text": clean(alert.text),
        "detail": clean(alert.detail),
        "at": at,
    }
    if not db.insert(connection, db.alert, [row], ignore=True):
        return False
    number = connection.execute(select(db.alert.c.id).where(db.alert.c.key == row["key"])).scalar_one()
    db.insert(connection, db.alert_send, [reach_row(one, number, at, alert.give_up) for one in alert.reaches])
    return True


def reach_row(reach: Reach, alert: int, at: int, give_up: float, what: str = "start") -> dict[str, Any]:
    """The row of `alert_send` for one person and channel. `at`: milliseconds; give_up: seconds."""
    due = at + int(reach.delay * 1000)
    return {
        "alert": alert,
        "what": what,
        "channel": reach.channel,
        "role": reach.role,
        "phone": reach.phone,
        "email": clean(reach.email),
        "token": os.urandom(16).hex(),
        "pressing": int(reach.pressing),
        "next_at": due,
        "give_up_at": due + int(give_up * 1000),
    }


def message_entry(
    row: dict[str, Any], owed: Iterable[Owed], files: list[dict[str, Any]], origin: dict[str, Any]
) -> dict[str, Any]:
    """What the tree commits to for one message: digests of bytes, record and trace, envelope, times, verdict."""
    return {
        "type": "message",
        "case": row["id"],
        "kind": row["kind"],
        "about": row.get("about") or "",
        "direction": row["direction"],
        "channel": row["channel"],
        "received": stamp(from_ms(row["received_at"])),
        "sha256": row["sha256"],
        "size": row["size"],
        "sender": row["sender"],
        "recipients": [[clean(one.address), one.verdict] for one in owed],
        "login": row.get("login", ""),
        "peer": row.get("peer", ""),
        "tls": clean(origin.get("tls", "")),
        "verdict": row["verdict"],
        "class": row.get("message_class", ""),
        "policy": row.get("policy_digest", ""),
        "files": files,
        "record": hashlib.sha256(row["record"].encode()).hexdigest(),
        "trace": hashlib.sha256(row.get("trace", b"")).hexdigest(),
    }


def take_turns(connection: Connection) -> None:
    """One appender at a time, to the end of the transaction: SQLite has one writer anyway, PostgreSQL a lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LEAF_LOCK})"))


def append_leaf(connection: Connection, now: float, entry: dict[str, Any]) -> int:
    """Put `entry` (with `type` and perhaps `case`) at the end of the tree, inside the caller's transaction.

    Adds `v`, `seq` and `t`. Time never goes back in the tree, whatever the clock does; `clock` is what it said when it
    was behind the leaf before. Returns the index.
    """
    take_turns(connection)
    last = connection.exec_driver_sql("SELECT idx, at FROM leaf ORDER BY idx DESC LIMIT 1").first()
    index = last[0] + 1 if last else 0
    at = max(int(now * 1000), last[1]) if last else int(now * 1000)
    whole = {"v": 1, "seq": index, "t": stamp(from_ms(at)), **entry}
    if at - int(now * 1000) > _BEHIND_MS:
        whole["clock"] = stamp(from_ms(int(now * 1000)))
    data = canonical(whole)
    for name in ("files", "recipients"):
        # An entry bundle gives each entry 16 bits of length (C2SP tlog-tiles): very long lists go in by their digest.
        if len(data) > MAX_ENTRY and name in whole:
            listed = whole[name]
            whole[name] = {"count": len(listed), "sha256": hashlib.sha256(canonical(listed)).hexdigest()}
            data = canonical(whole)
    if len(data) > MAX_ENTRY:
        raise Failure("Local error in processing", f"archive: an entry of {len(data)} bytes", retryable=False)
    db.insert(
        connection,
        db.leaf,
        [
            {
                "idx": index,
                "type": entry["type"],
                "case_id": entry.get("case", ""),
                "at": at,
                "entry": data,
                "hash": leaf_hash(data),
            }
        ],
    )
    return index


#: What `append_leaf` itself writes into an entry.
_TAKEN = frozenset(("v", "seq", "t", "type", "case", "clock"))


def leaf(connection: Connection, kind: str, body: Mapping[str, Any], *, case: str = "") -> int:
    """Append a leaf of type `kind` at the current time, inside the caller's transaction; with it the change that it
    tells of is durable, or neither is. Returns its index.

    kind: a word of lower-case letters and `-`; docs/archive.md lists those in use. body: JSON of strings, integers,
    booleans, None, lists and objects, 60 KB at most. Never content of a message, a password, or a digest of a secret:
    a leaf stays for ever and every auditor reads it. case: the message it is about, if one.
    Raises ValueError for what cannot be a leaf.
    """
    if not kind.isascii() or not kind.replace("-", "").isalpha() or kind != kind.lower():
        raise ValueError(f"type of a leaf: {kind!r}")
    if taken := _TAKEN & body.keys():
        raise ValueError(f"a leaf has {', '.join(sorted(taken))} of its own")
    entry: dict[str, Any] = {**_tidy(body), "type": kind}
    if case:
        entry["case"] = case
    return append_leaf(connection, time.time(), entry)


def _tidy(value: Any) -> Any:
    """Strings made clean; ValueError for what RFC 8785 would spell in more than one way."""
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) and name.isascii() for name in value):
            raise ValueError("names in a leaf are ASCII")
        return {name: _tidy(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_tidy(one) for one in value]
    raise ValueError(f"a leaf cannot hold {type(value).__name__}")


# ---------------------------------------------------------------------- values

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def canonical(value: Any) -> bytes:
    """RFC 8785 for what we write: ASCII keys, strings, integers, booleans, null. (Fractions occur in records only,
    which are compared as bytes and never written again by others.) Lone surrogates become U+FFFD."""
    return _encode(value).encode("utf-8", "replace")


def clean(words: str) -> str:
    """Without lone surrogates and NUL, which not every database takes."""
    words = words.replace("\0", "\ufffd")
    return words if words.isascii() else words.encode("utf-8", "replace").decode()


def to_ms(at: dt.datetime) -> int:
    return int(at.timestamp() * 1000)


def from_ms(at: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at / 1000, VIETNAM)


def stamp(at: dt.datetime) -> str:
    """RFC 3339 with milliseconds in the time of Vietnam, always 29 characters: sorts as text."""
    return at.astimezone(VIETNAM).isoformat(timespec="milliseconds")
