"""A copy of the archive elsewhere, made while mail runs, and a new host from such a copy.

A backup is laid out as the data folder is, so that `congvan-verify` reads it as it stands:

    backup.json      what this is a copy of: name and size of the log, root, digest of the database, time
    gateway.db       the rows as they were at one moment (from PostgreSQL too), with a checkpoint over all leaves
    blobs/           the bytes in the form in which they were kept: what was encrypted stays so
    log/, checkpoints/, keys/log*.vkey, keys/store/
    keys/            the signing key and the salt, only when they were asked for

Bytes lie where they are before a row names them, so the rows are copied first and then the bytes that they name. What
a second call finds it leaves alone; the old database is replaced only when everything the new one names is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, exc, func, make_url, select, text

from gateway import database as db
from gateway import durable
from gateway.archive import Archive, stamp
from gateway.audit import audit
from gateway.config import Gateway
from gateway.database import Database, sqlite_url
from gateway.errors import Failure
from gateway.hashtree import TILE_WIDTH, BadProof
from gateway.message import VIETNAM
from gateway.objectstore import open_store
from gateway.store import Damaged, Store
from gateway.treelog import TreeLog

_DATABASE, _MANIFEST, _NEW = "gateway.db", "backup.json", ".new"
#: Files copied at the same time: their fsyncs share the work of the disk.
_THREADS = 8
#: Rows and leaves in one piece.
_ROWS, _LEAVES = 1000, 16 * TILE_WIDTH
#: Keys of mail whose verdict is still to come: they are destroyed when it proves secret, so no copy may exist.
_NEVER = "late"

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Done:
    """What a backup or a restore did. blobs: all that there are; copied: of them, now; removed: destroyed in the
    archive since the last backup; owed: recipients still queued in it, who are served when a restored gateway starts;
    damage: what could not be copied, or what the check found, one line each."""

    size: int = 0
    root: str = ""
    at: str = ""
    blobs: int = 0
    copied: int = 0
    bytes: int = 0
    removed: int = 0
    owed: int = 0
    keys: bool = False
    damage: list[str] = field(default_factory=list)


def _quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def _refuse(reason: str) -> Failure:
    return Failure(reason, reason, retryable=False)


# ---------------------------------------------------------------------- backup


def backup(archive: Archive, target: Path, *, keys: bool = False, progress: Progress = _quiet) -> Done:
    """Copy the archive to `target`, or bring the copy there up to date. Blocks. Safe to call again after a kill.

    Raises Failure: retryable when database, store or target cannot be used now, else when `target` is no place for it
    or when the history of the archive is not the one that was copied before.
    """
    try:
        durable.make_folder(target)
        if any(target.iterdir()) and not any((target / name).exists() for name in (_MANIFEST, _DATABASE + _NEW)):
            raise _refuse(f"{target} holds something that is no backup; choose an empty folder")
        with (target / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failure("busy", f"{target}: another backup is at work there") from None
            return _Backup(archive, target, progress).run(keys)
    except OSError as error:
        raise Failure("backup", f"backup: {error.filename or target}: {error.strerror}") from error


class _Backup:
    def __init__(self, archive: Archive, target: Path, progress: Progress) -> None:
        self.archive, self.target, self.progress = archive, target, progress
        self.log = TreeLog(target, archive.log.origin)
        self.fresh = target / (_DATABASE + _NEW)
        self.done = Done()

    def run(self, keys: bool) -> Done:
        done, before = self.done, _manifest(self.target)
        if before is not None and before["origin"] != self.log.origin:
            raise _refuse(f"{self.target} is a backup of {before['origin']}, not of {self.log.origin}")
        self.progress("database", 0, 1)
        _snapshot(self.archive.database.engine, self.fresh)
        with contextlib.closing(sqlite3.connect(self.fresh)) as rows:
            self._keys(keys)
            note = self._tree(rows, before)
            named = _named(rows)
            self._blobs(named)
            _settle_file(rows)
        checkpoint = self.archive.log.open(note)
        done.size, done.root, done.keys = checkpoint.size, checkpoint.root.hex(), keys
        done.at = stamp(dt.datetime.now(VIETNAM))
        if done.damage:
            return done  # the older copy of the rows stays: it names nothing that is missing
        self._publish(note)
        _copy_checkpoints(self.archive.folder, self.target, done.size)
        self._remove(named)
        return done

    def _keys(self, all_of_them: bool) -> None:
        """Public halves, and store keys, which are wrapped; the rest only when asked for."""
        source, target = self.archive.folder / "keys", self.target / "keys"
        self.archive.log.signer()  # made now, if this is a new archive
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            public = path.suffix == ".vkey" or inside.parts[0] == "store"
            if path.is_file() and inside.parts[0] != _NEVER and (public or all_of_them):
                durable.make_folder((target / inside).parent, 0o700)
                durable.replace(target / inside, path.read_bytes(), 0o644 if public else 0o600)

    def _tree(self, rows: sqlite3.Connection, before: dict[str, Any] | None) -> str:
        """The log over the leaves of the copy, and its signed note. Whatever was signed before must be in it."""
        (size,) = rows.execute("SELECT coalesce(max(idx) + 1, 0) FROM leaf").fetchone()
        if not size:
            raise _refuse("the archive is empty: there is nothing to copy yet")
        signed = rows.execute("SELECT size, root, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        old = int(before["size"]) if before else 0
        roots = {old: bytes.fromhex(before["root"])} if before else {}
        if signed:
            roots[signed[0]] = signed[1]
        try:
            root = self._extend(rows, old, size)
        except BadProof:  # of a backup that was cut short, or damaged
            root = self._extend(rows, 0, size)
        for known, expected in roots.items():
            if known > size or self.log.root(known) != expected:
                raise _refuse(
                    f"the archive is not what it was: of the tree of {known} leaves that was signed nothing is left; "
                    "the backup stays as it is. `congvan archive verify` says more"
                )
        if signed and signed[0] == size:
            note = signed[2]
        else:
            at = dt.datetime.now(VIETNAM)
            note = self.archive.log.sign(size, root, stamp(at))
            row = (size, root, int(at.timestamp() * 1000), note)
            rows.execute("INSERT INTO checkpoint (size, root, at, note) VALUES (?, ?, ?, ?)", row)
            rows.commit()
        return str(note)

    def _extend(self, rows: sqlite3.Connection, old: int, size: int) -> bytes:
        start = old - old % TILE_WIDTH if old <= size else 0
        while start < size:
            self.progress("tree", start, size)
            entries = [
                bytes(one[0])
                for one in rows.execute(
                    "SELECT entry FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx", (start, start + _LEAVES)
                )
            ]
            if len(entries) != min(size - start, _LEAVES):
                raise _refuse(f"leaves between {start} and {start + _LEAVES} are missing; see `congvan archive verify`")
            self.log.extend(start, entries)
            start += len(entries)
        return self.log.root(size)

    def _blobs(self, named: set[str]) -> None:
        source = self.archive.store
        kept = Store(self.target / "blobs", keyring=source.keyring)
        kept.clear()
        there = set(kept.digests())
        missing = sorted(named - there)
        self.done.blobs = len(named)
        counted, lock = 0, threading.Lock()

        def copy(digest: str) -> int:
            nonlocal counted
            size = 0

            def measured(pieces: Iterable[bytes]) -> Iterator[bytes]:
                nonlocal size
                for piece in pieces:
                    size += len(piece)
                    yield piece

            try:
                kind, pieces = source.raw(digest)
                kept.put_raw(digest, kind, measured(pieces))
                reason = kept.problem(digest)
                if reason:
                    kept.remove(digest)
            except Damaged as damage:
                reason = damage.reason
            with lock:
                counted += 1
                if reason:
                    self.done.damage.append(f"{digest}: {reason}")
                else:
                    self.done.copied += 1
                    self.done.bytes += size
                if counted % 100 == 0 or counted == len(missing):
                    self.progress("messages", counted, len(missing))
            return size

        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(copy, missing):
                pass

    def _publish(self, note: str) -> None:
        done = self.done
        told = {
            "version": 1,
            "origin": self.log.origin,
            "at": done.at,
            "size": done.size,
            "root": done.root,
            "checkpoint": note,
            "blobs": done.blobs,
            "database": _digest(self.fresh),
            "keys": (self.target / "keys" / "log.key").exists(),
        }
        # Between the two renames the old rows are gone and the new description has not its name yet: `_manifest` takes
        # the one that fits.
        durable.replace(self.target / (_MANIFEST + _NEW), (json.dumps(told, indent=1) + "\n").encode(), 0o640)
        durable.step()
        self.fresh.replace(self.target / _DATABASE)
        durable.sync_folder(self.target)
        durable.step()
        (self.target / (_MANIFEST + _NEW)).replace(self.target / _MANIFEST)
        durable.sync_folder(self.target)
        self.log.publish(note)
        self.log.prune(done.size)

    def _remove(self, named: set[str]) -> None:
        """What was destroyed in the archive must not live on here."""
        kept = Store(self.target / "blobs")
        for digest in list(kept.digests()):
            if "/" not in digest and digest not in named:
                kept.remove(digest)
                self.done.removed += 1


def _snapshot(engine: Engine, path: Path) -> None:
    """All rows as they are at one moment, in an SQLite file. Mail goes on being taken meanwhile."""
    for leftover in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-journal")):
        leftover.unlink(missing_ok=True)
    try:
        if engine.dialect.name == "sqlite":
            # In one step: one snapshot of the WAL, under which writers go on.
            with (
                contextlib.closing(sqlite3.connect(str(engine.url.database), timeout=30)) as live,
                contextlib.closing(sqlite3.connect(path)) as copy,
            ):
                live.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")
        else:
            copied = create_engine(sqlite_url(path))
            db.metadata.create_all(copied)
            with (
                engine.connect().execution_options(isolation_level="REPEATABLE READ") as live,
                copied.begin() as into,
            ):
                _copy_rows(live, into)
            copied.dispose()
    except (sqlite3.Error, exc.DBAPIError) as error:
        raise Failure("backup", f"backup: database: {' '.join(str(error).split())[:200]}") from error
    path.chmod(0o640)
    _sync(path)


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in db.metadata.sorted_tables:
        result = source.execution_options(stream_results=True).execute(select(table))
        for rows in result.mappings().partitions(_ROWS):
            target.execute(table.insert(), [dict(row) for row in rows])
        if target.dialect.name == "postgresql" and (column := table.autoincrement_column) is not None:
            highest = target.execute(select(func.max(column))).scalar()
            if highest is not None:
                values = {"name": f'"{table.name}"', "column": column.name, "highest": highest}
                target.execute(text("SELECT setval(pg_get_serial_sequence(:name, :column), :highest)"), values)


def _named(rows: sqlite3.Connection) -> set[str]:
    """The digests of all bytes that must be there: those of messages that were not destroyed."""
    question = "SELECT DISTINCT sha256 FROM message WHERE id NOT IN (SELECT message FROM destroyed)"
    return {one[0] for one in rows.execute(question)}


def _settle_file(rows: sqlite3.Connection) -> None:
    rows.commit()
    (path,) = [one[2] for one in rows.execute("PRAGMA database_list") if one[1] == "main"]
    _sync(Path(path))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        durable.sync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The description that fits the database beside it; None when there is none. Raises OSError."""
    if not (folder / _DATABASE).is_file():
        return None
    digest = ""
    for name in (_MANIFEST, _MANIFEST + _NEW):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            told = json.loads((folder / name).read_text())
            digest = digest or _digest(folder / _DATABASE)
            if told["database"] == digest and told["version"] == 1:
                return dict(told)
    return None


def _copy_checkpoints(source: Path, target: Path, size: int) -> None:
    """Notes and time stamps of older checkpoints, as far as these `size` leaves go."""
    folder = source / "checkpoints"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        there = target / "checkpoints" / path.name
        if path.stem.isdigit() and int(path.stem) <= size:
            data = path.read_bytes()
            if not there.exists() or there.read_bytes() != data:
                durable.make_folder(there.parent)
                durable.replace(there, data, 0o644)


def _copy_log(source: Path, target: Path) -> None:
    for path in sorted((source / "log" / "tile").rglob("*")):
        there = target / path.relative_to(source)
        if path.is_file() and not path.name.startswith("."):
            durable.make_folder(there.parent)
            durable.replace(there, path.read_bytes(), 0o644)


# ---------------------------------------------------------------------- restore


def restore(
    source: Path, settings: Gateway, *, known: Iterable[str] = (), keys: Path | None = None, progress: Progress = _quiet
) -> Done:
    """Make the archive of an empty host from a backup. Blocks. Safe to call again after a kill.

    The rows come last, and only when everything was checked: against the checkpoint of the backup, and those that
    somebody remembered elsewhere (`known`, signed notes). keys: a folder with the signing key and the salt, when they
    are not in the backup. Raises Failure; `damage` of the answer says what was not as it must be: then there is no
    archive yet.
    """
    try:
        return _restore(source, settings, tuple(known), keys, progress)
    except OSError as error:
        raise Failure("restore", f"restore: {error.filename or settings.data}: {error.strerror}") from error


def _restore(source: Path, settings: Gateway, known: tuple[str, ...], keys: Path | None, progress: Progress) -> Done:
    told = _manifest(source)
    if told is None:
        raise _refuse(f"{source} holds no complete backup (backup.json and the gateway.db it describes)")
    data = settings.data
    url = make_url(settings.database_url)
    place = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    _must_be_empty(settings, place)
    origin = f"{settings.hostname}/archive"
    if told["origin"] != origin:
        raise _refuse(f"this is the backup of {told['origin']}, and `hostname` makes this {origin}")
    done = Done(told["size"], told["root"], told["at"])
    durable.make_folder(data)
    _restore_keys(source, data, keys)
    done.keys = (data / "keys" / "log.key").exists()
    _copy_log(source, data)
    _copy_checkpoints(source, data, told["size"])
    log = TreeLog(data, origin)
    log.publish(told["checkpoint"])

    rows = data / "restoring.db"
    for leftover in data.glob("restoring.db*"):
        leftover.unlink()
    shutil.copyfile(source / _DATABASE, rows)
    store = open_store(settings)
    with contextlib.closing(sqlite3.connect(rows)) as opened:
        named = sorted(_named(opened))
        for size, note in opened.execute("SELECT size, note FROM checkpoint WHERE size < ?", (told["size"],)):
            log.keep(size, note)
        (done.owed,) = opened.execute("SELECT count(*) FROM recipient WHERE state = 'queued'").fetchone()
    kept = Store(source / "blobs", keyring=store.keyring)
    done.blobs = len(named)

    def bring(digest: str) -> str:
        try:
            store.put(kept.chunks(digest), digest)
        except Damaged as damage:
            return f"blob_{'missing' if damage.reason == 'missing' else 'changed'}: {digest}"
        return ""

    with ThreadPoolExecutor(_THREADS) as pool:
        for number, wrong in enumerate(pool.map(bring, named), 1):
            done.damage += [wrong] if wrong else []
            if number % 100 == 0 or number == len(named):
                progress("messages", number, len(named))
    if done.damage:
        return done
    done.copied = len(named)

    database = Database.open(sqlite_url(rows))
    archive = Archive(database, store, settings)
    try:
        notes = (*known, told["checkpoint"])
        report = audit(archive, known=notes, progress=lambda at, size: progress("check", at, size))
    finally:
        asyncio.run(archive.close())
        database.close()
    done.damage = [f"{one.kind}: {one.case} {one.detail}" for one in report.damage]
    done.bytes = report.bytes
    if not report.damage and report.signed != told["size"]:
        done.damage = [f"truncated: {told['size']} leaves were copied, {report.signed} are signed here"]
    if done.damage:
        return done
    if place is not None:
        _sync(rows)
        for suffix in ("-wal", "-shm"):
            place.with_name(place.name + suffix).unlink(missing_ok=True)
        durable.make_folder(place.parent)
        rows.replace(place)
        durable.sync_folder(place.parent)
    else:
        _into_server(rows, settings)
        rows.unlink()
    return done


def _must_be_empty(settings: Gateway, place: Path | None) -> None:
    if place is not None and not place.exists():
        return
    opened = Database.open(settings.database_url)
    try:
        with opened.engine.connect() as connection:
            if connection.execute(select(func.count()).select_from(db.leaf)).scalar():
                reason = f"there is an archive in {opened.engine.url} already; a backup is restored into an empty host"
                raise _refuse(reason)
    finally:
        opened.close()


def _restore_keys(source: Path, data: Path, keys: Path | None) -> None:
    for folder in (source / "keys", keys):
        for path in sorted(folder.rglob("*")) if folder is not None else ():
            target = data / "keys" / path.relative_to(folder)  # type: ignore[arg-type]
            if path.is_file():
                durable.make_folder(target.parent, 0o700)
                durable.replace(target, path.read_bytes(), 0o644 if path.suffix == ".vkey" else 0o600)


def _into_server(rows: Path, settings: Gateway) -> None:
    source, target = create_engine(sqlite_url(rows)), Database.open(settings.database_url)
    try:
        with source.connect() as live, target.engine.begin() as into:
            for table in reversed(db.metadata.sorted_tables):
                into.execute(table.delete())
            _copy_rows(live, into)
            for table in (db.leaf, db.message):
                count = select(func.count()).select_from(table)
                if live.execute(count).scalar() != into.execute(count).scalar():
                    raise Failure("restore", f"restore: rows of {table.name} are missing in the database")
    except exc.DBAPIError as error:
        raise Failure("restore", f"restore: {' '.join(str(error.orig).split())[:200]}") from error
    finally:
        source.dispose()
        target.close()
