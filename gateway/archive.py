"""The archive: what was received, what was decided, what is owed, in one commit.

Bytes lie in `store.py`, rows in `database.py`. Each message is a leaf of a hash tree (`hashtree.py`): its entry names
the digest of the bytes, of the record and of every attachment, so that a change of any of them shows. Entries never
hold content of a message, and of a secret not even its digest.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import json
import os
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select, text

from gateway import database as db
from gateway import durable
from gateway.config import Gateway
from gateway.database import Database
from gateway.errors import Failure
from gateway.hashtree import MAX_ENTRY, leaf_hash
from gateway.inspection.findings import Document, Inspection
from gateway.message import VIETNAM, Received, new_case
from gateway.store import Store
from gateway.vietnamese import fold

if TYPE_CHECKING:
    from gateway.policy import Verdict

#: A lock number of our own in PostgreSQL, so that leaves stay dense with several writers.
_LEAF_LOCK = 0x7662_6474


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

    puts: list[tuple[Iterable[bytes], str]] = field(default_factory=list)
    notices: list[tuple[Notice, str]] = field(default_factory=list)


class Archive:
    """Append and read. One per process; safe for many tasks at once."""

    def __init__(self, database: Database, store: Store, settings: Gateway) -> None:
        self.database = database
        self.store = store
        self.folder = store.root.parent
        self.hostname = settings.hostname
        self._disk = ThreadPoolExecutor(4, "archive-store")
        self._salt = b""
        self._policies: set[str] = set()

    @property
    def broken(self) -> str:
        """Why nothing is taken any more, or empty."""
        return self.store.broken or self.database.broken

    async def start(self) -> None:
        """Clear what a crash left half written. For the daemon alone."""
        await self._blocking(self.store.clear)

    async def close(self) -> None:
        self._disk.shutdown()

    async def _blocking(self, fn: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._disk, fn, *args)

    # ------------------------------------------------------------------ append

    async def known(self, sha256: str, sender: str, direction: str) -> Known | None:
        """Were these bytes from this sender archived before? Raises Failure."""

        def ask(connection: Connection) -> Known | None:
            return _known(connection, sha256, sender, direction)

        return await self.database.read(ask)

    async def commit(self, case: Case) -> Receipt:
        """THE commit point. When this returns, the message is ours: bytes, verdict, deliveries and notices are durable.

        Raises Failure (retryable) when anything of it could not be made durable; then `250` must not be said.
        """
        received = case.received
        record = _record(case)
        row = _row(case, record)
        files = _Files([(received.body.chunks(), received.body.sha256)])
        self._add_notices(files, case.notices)
        # First the bytes, so that no row ever names bytes that are not there. A crash after this line leaves bytes
        # without a row: they are no promise, and the next offer of the message finds them in place.
        await self._blocking(self.store.put_all, files.puts)
        # Then everything else in one transaction. COMMIT in `database.py` is the moment from which `250` is true:
        # before it the sender still owns the message, after it we do.
        receipt = await self.database.write(lambda connection: self._append(connection, case, row, record, files))
        if case.verdict.policy_digest:
            self._policies.add(case.verdict.policy_digest)
        return receipt

    def _add_notices(self, files: _Files, notices: Iterable[Notice]) -> None:
        for notice in notices:
            digest = hashlib.sha256(notice.data).hexdigest()
            files.puts.append(((notice.data,), digest))
            files.notices.append((notice, digest))

    def _append(
        self, connection: Connection, case: Case, row: dict[str, Any], record: dict[str, Any], files: _Files
    ) -> Receipt:
        """Runs in the writer's thread, inside the transaction."""
        received, now = case.received, time.time()
        known = _known(connection, row["sha256"], row["sender"], row["direction"])
        owed = [one for one in case.owed if known is None or one.address.lower() not in known.accepted]
        if known is not None and not owed:
            index, at = connection.execute(
                select(db.leaf.c.idx, db.leaf.c.at).where(db.leaf.c.case_id == known.case).order_by(db.leaf.c.idx)
            ).one()
            return Receipt(known.case, index, from_ms(at), duplicate=True)

        db.insert(connection, db.message, [row])
        due = to_ms(received.at)
        db.insert(
            connection,
            db.recipient,
            [
                {
                    "message": row["id"],
                    "address": one.address,
                    "notify": one.notify,
                    "orcpt": one.orcpt,
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
                {"message": row["id"], "path": one.path, "sha256": one.sha256, "size": one.size, "type": one.type}
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
                "path": one.path,
                "sha256": one.sha256,
                "size": one.size,
                "type": one.type,
                "signatures": [signature.state.value for signature in one.signatures],
            }
            for one in case.inspection.files
        ]
        leaf = append_leaf(connection, now, message_entry(row, owed, files_in_entry, record["origin"]))
        _count(connection, case.counts, received.at, row["id"])
        for notice, notice_digest in files.notices:
            self._append_notice(connection, notice, notice_digest, now)
        return Receipt(row["id"], leaf, from_ms(int(now * 1000)))

    def _append_notice(self, connection: Connection, notice: Notice, digest: str, now: float) -> None:
        """A message of ours as a message of its own: null sender, queued like any other. Nothing if its key is used."""
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

    async def notify(self, notices: Iterable[Notice]) -> None:
        """Make messages of ours durable and queue them: what the queue owes for failed and late deliveries. A notice
        whose key was used before is left out. Raises Failure."""
        files = _Files()
        self._add_notices(files, notices)
        if not files.notices:
            return
        await self._blocking(self.store.put_all, files.puts)

        def append(connection: Connection) -> None:
            for notice, digest in files.notices:
                self._append_notice(connection, notice, digest, time.time())

        await self.database.write(append)

    async def bury(self, tombstone: Tombstone) -> None:
        """Keep that a secret was refused, and nothing of it. The digest is an HMAC under the installation's salt, so
        that the same message can be recognised here and by nobody else. Raises Failure."""
        salt = await self._blocking(self._load_salt)
        digest = hmac.new(salt, bytes.fromhex(tombstone.sha256), hashlib.sha256).hexdigest()
        # Keys are made of the digest of the bytes elsewhere; here that would let a guess at the bytes be proved.
        counts = [replace(one, key=one.key.replace(tombstone.sha256, digest)) for one in tombstone.counts]
        notices = [replace(one, key=one.key.replace(tombstone.sha256, digest)) for one in tombstone.notices]
        files = _Files()
        self._add_notices(files, notices)
        if files.puts:
            await self._blocking(self.store.put_all, files.puts)

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
            _count(connection, counts, tombstone.at, tombstone.case)
            for notice, notice_digest in files.notices:
                self._append_notice(connection, notice, notice_digest, now)

        await self.database.write(append)

    async def count(self, counts: Iterable[Count], at: dt.datetime) -> None:
        """Events without a message, such as a recipient refused at the door. Raises Failure."""
        rows = tuple(counts)
        if rows:
            await self.database.write(lambda connection: _count(connection, rows, at, ""))

    def _load_salt(self) -> bytes:
        if not self._salt:
            path = self.folder / "keys" / "tombstone.salt"
            if not path.exists():
                durable.make_folder(path.parent, 0o700)
                durable.replace(path, os.urandom(32), 0o600)
            self._salt = path.read_bytes()
        return self._salt

    # ------------------------------------------------------------------ read

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
        return await self._blocking(self.store.read, row["sha256"])  # type: ignore[no-any-return]


# ---------------------------------------------------------------------- rows


def _known(connection: Connection, sha256: str, sender: str, direction: str) -> Known | None:
    rows = connection.execute(
        select(db.message.c.id, db.message.c.verdict, db.recipient.c.address, db.recipient.c.state)
        .outerjoin(db.recipient, db.recipient.c.message == db.message.c.id)
        .where(
            db.message.c.sha256 == sha256,
            db.message.c.sender == sender,
            db.message.c.direction == direction,
            db.message.c.kind == "mail",
        )
        .order_by(db.message.c.id)
    ).all()
    if not rows:
        return None
    accepted = [row for row in rows if row.state not in (None, "refused")]
    first = accepted[0] if accepted else rows[0]
    return Known(first.id, first.verdict, frozenset(row.address.lower() for row in accepted))


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


def _row(case: Case, record: dict[str, Any]) -> dict[str, Any]:
    """The row of `message`: columns to search on are copies of what `record` holds."""
    received, verdict, facts = case.received, case.verdict, case.inspection.message
    envelope, origin = received.envelope, received.origin
    return {
        "id": received.case,
        "kind": "mail",
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
        **_document_columns(verdict.document),
        "record": canonical(record).decode(),
        "smtputf8": int(envelope.smtputf8),
        "ret": envelope.ret,
        "envid": clean(envelope.envid),
    }


def _document_columns(document: Document | None) -> dict[str, str]:
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


def _count(connection: Connection, counts: Iterable[Count], at: dt.datetime, message: str) -> None:
    month = at.astimezone(VIETNAM).strftime("%Y-%m")
    rows = [
        {**{name: getattr(one, name) for name in one.__slots__}, "at": to_ms(at), "month": month, "message": message}
        for one in counts
    ]
    db.insert(connection, db.event, rows, ignore=True)


# ---------------------------------------------------------------------- leaves


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


def append_leaf(connection: Connection, now: float, entry: dict[str, Any]) -> int:
    """Put `entry` (with `type` and perhaps `case`) at the end of the tree, inside the caller's transaction.

    Adds `v`, `seq` and `t`. Time never goes back in the tree, whatever the clock does. Returns the index.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LEAF_LOCK})"))
    last = connection.exec_driver_sql("SELECT idx, at FROM leaf ORDER BY idx DESC LIMIT 1").first()
    index = last[0] + 1 if last else 0
    at = max(int(now * 1000), last[1]) if last else int(now * 1000)
    whole = {"v": 1, "seq": index, "t": stamp(from_ms(at)), **entry}
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


def document_key(code: str) -> str:
    """`14 / ct - ubnd` and `14/CT-UBND` are one number: no spaces, no accents, upper case, without leading zeros."""
    return "".join(fold(code).upper().split()).lstrip("0")


def to_ms(at: dt.datetime) -> int:
    return int(at.timestamp() * 1000)


def from_ms(at: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at / 1000, VIETNAM)


def stamp(at: dt.datetime) -> str:
    """RFC 3339 with milliseconds in the time of Vietnam, always 29 characters: sorts as text."""
    return at.astimezone(VIETNAM).isoformat(timespec="milliseconds")
