"""Entries handed to other systems: edXML with the files of the document, and the folder an agency's system reads.

Message bodies are read here, so this runs in a process of its own (`congvan register drop`), never in the daemon.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from gateway import database as db
from gateway import durable, edxml, mime, register
from gateway.config import Registers
from gateway.database import Database
from gateway.directory import Directory
from gateway.edxml import Attached, Incomplete
from gateway.errors import Failure
from gateway.message import VIETNAM
from gateway.store import Damaged, Store

#: Media types of the short names that inspection gives.
_TYPES = {
    "pdf": "application/pdf", "doc": "application/msword", "xls": "application/vnd.ms-excel", "zip": "application/zip",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "jpg": "image/jpeg",
    "png": "image/png", "tiff": "image/tiff", "xml": "application/xml", "txt": "text/plain",
}  # fmt: skip
_SUFFIXES = {
    b"%PDF": (".pdf", "pdf"),
    b"\x89PNG": (".png", "png"),
    b"\xff\xd8": (".jpg", "jpg"),
    b"II*": (".tif", "tiff"),
}


def files_of(connection: Connection, store: Store, entry: Mapping[str, Any]) -> list[Attached]:
    """The files attached to the first message of an entry, the document first; of a paper entry its scan. Raises
    Damaged, Failure."""
    if not entry["cases"]:
        if not entry["sha256"]:
            return []
        data = store.read(entry["sha256"])
        suffix, kind = next((found for start, found in _SUFFIXES.items() if data.startswith(start)), ("", ""))
        return [Attached(f"{entry['id']}{suffix}", data, _TYPES.get(kind, "application/octet-stream"))]
    m, a = db.message.c, db.attachment.c
    case = entry["cases"][0]
    sha256 = connection.execute(select(m.sha256).where(m.id == case)).scalar_one()
    rows = connection.execute(select(a.path, a.sha256, a.type).where(a.message == case).order_by(a.id)).all()
    wanted = {row.sha256: row for row in rows if "/" not in row.path}
    message = mime.parse(store.read(sha256))
    found: dict[str, Attached] = {}
    for part in message.attachments:
        data = part.decode(message.raw)
        row = wanted.get(hashlib.sha256(data).hexdigest())
        if row is not None:
            found[row.sha256] = Attached(row.path, bytes(data), _TYPES.get(row.type, "application/octet-stream"))
    main = entry["sha256"]
    return [found[key] for key in sorted(found, key=lambda key: key != main)]


def envelope(
    connection: Connection,
    store: Store,
    settings: Registers,
    directory: Directory,
    key: str,
    *,
    with_files: bool = True,
) -> bytes:
    """An entry as edXML, checked against the schema. Raises NoEntry, Incomplete, Damaged, Failure."""
    one = register.entry(connection, key, settings, directory)
    meant = {name for link in one["links"] if link["way"] == "to" for name in link["entries"]}
    targets = {}
    for name in meant:
        target = register.entry(connection, name, settings, directory)
        try:
            organ = edxml.parties(target, directory)[0].id
        except Incomplete:
            organ = ""
        targets[name] = {**target, "organ": organ}
    files = files_of(connection, store, one) if with_files else []
    data = edxml.document(one, directory, files, one["links"], targets)
    if wrong := edxml.problems(data):
        raise Incomplete(f"{key}: không đúng lược đồ edXML / not by the schema: {wrong[0]}")
    return data


def name_of(one: Mapping[str, Any], suffix: str) -> str:
    """A file name that sorts by day and is the same each time."""
    return f"{one['day']}_{one['direction']}_{one['id']}.{suffix}"


# ---------------------------------------------------------------------- the folder


async def drop(database: Database, store: Store, settings: Registers, directory: Directory) -> tuple[int, list[str]]:
    """Put incoming entries that were not handed over yet into the folders of their agencies: how many, and what could
    not be.

    Each file appears whole and once: it is written under a name that begins with a dot and synced; then the row says
    that it is coming; then it is renamed. After a crash the row without `done_at` is looked at: if the dotted file is
    still there it is renamed, if not the rename had happened.
    """
    done, failed = 0, []
    for agency, one in settings.agencies.items():
        if one.drop is None:
            continue
        try:
            done += await _finish(database, one.drop, agency)
            keys = await database.read(lambda c, agency=agency: _waiting(c, agency))
            for key in keys:
                try:
                    await _hand_over(database, store, settings, directory, key, one.drop, one.drop_as)
                    done += 1
                except (Incomplete, Damaged, Failure) as error:
                    failed.append(f"{key}: {error}")
        except OSError as error:
            failed.append(f"{agency}: {one.drop}: {error.strerror or error}")
    return done, failed


def anything(connection: Connection, settings: Registers) -> bool:
    """Is there something for a folder?"""
    agencies = [name for name, one in settings.agencies.items() if one.drop is not None]
    e, d = db.register_entry.c, db.register_drop.c
    question = (
        select(e.id)
        .outerjoin(db.register_drop, d.entry == e.id)
        .where(e.agency.in_(agencies), e.direction == "in", e.year != 0, d.done_at.is_(None))
    )
    return connection.execute(question.limit(1)).first() is not None


def _waiting(connection: Connection, agency: str) -> list[str]:
    e, d = db.register_entry.c, db.register_drop.c
    question = (
        select(e.id)
        .outerjoin(db.register_drop, d.entry == e.id)
        .where(e.agency == agency, e.direction == "in", e.year != 0, d.entry.is_(None))
    )
    return list(connection.execute(question.order_by(e.at, e.id)).scalars())


async def _finish(database: Database, folder: Path, agency: str) -> int:
    """What a crash left between the row and the rename."""
    e, d = db.register_entry.c, db.register_drop.c
    question = select(d.entry, d.name).join(db.register_entry, e.id == d.entry).where(e.agency == agency)
    rows = await database.read(lambda c: c.execute(question.where(d.done_at.is_(None))).all())
    for row in rows:
        await _rename(database, folder, row.entry, row.name)
    return len(rows)


async def _rename(database: Database, folder: Path, key: str, name: str) -> None:
    hidden = folder / f".{name}"
    if hidden.exists():
        hidden.rename(folder / name)
        durable.sync_folder(folder)
    now = int(time.time() * 1000)
    d = db.register_drop
    await database.write(lambda c: c.execute(d.update().where(d.c.entry == key).values(done_at=now)))


async def _hand_over(
    database: Database,
    store: Store,
    settings: Registers,
    directory: Directory,
    key: str,
    folder: Path,
    form: str,
) -> None:
    one = await database.read(lambda c: register.entry(c, key, settings, directory))
    if form == "edxml":
        data = await database.read(lambda c: envelope(c, store, settings, directory, key))
    else:
        data = json.dumps(one, ensure_ascii=False, indent=1).encode() + b"\n"
    durable.make_folder(folder)
    name = name_of(one, form)
    durable.replace(folder / f".{name}", data)
    row = {"entry": key, "name": name, "at": int(time.time() * 1000), "done_at": None}
    if await database.write(lambda c: db.insert(c, db.register_drop, [row], ignore=True)):
        await _rename(database, folder, key, name)
    else:  # another process was quicker
        (folder / f".{name}").unlink(missing_ok=True)


def status_message(
    connection: Connection, settings: Registers, directory: Directory, key: str, code: str, staff: str, words: str
) -> bytes:
    """A status message of Decision 28/2018 about an entry, checked against the schema. Raises NoEntry, Incomplete."""
    one = register.entry(connection, key, settings, directory)
    data = edxml.status(one, directory, code, staff=staff, words=words, at=dt.datetime.now(VIETNAM))
    if wrong := edxml.problems(data):
        raise Incomplete(f"{key}: không đúng lược đồ edXML / not by the schema: {wrong[0]}")
    return data
