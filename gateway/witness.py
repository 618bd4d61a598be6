"""Checkpoints go outside: to witnesses that countersign them, to folders, web servers and mailboxes that keep them, and
to an authority that stamps them with its time.

Nothing waits for any of this. Each gets the newest checkpoint when its time has come and there is something new; what
one missed while it was away needs no catching up one by one, because the newest checkpoint commits to all before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import email.message
import email.policy
import hashlib
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from gateway import database as db
from gateway import durable, timestamps
from gateway.archive import Archive, Notice, from_ms, stamp
from gateway.config import Gateway, Timestamps, Witness
from gateway.errors import LOCAL_ERROR, Failure
from gateway.hashtree import (
    BadProof,
    Checkpoint,
    Verifier,
    consistency,
    consistency_text,
    signatures_by,
    split_note,
)

#: A witness answers with a size, or with a few signature lines; ML-DSA-44 takes 3.3 KB each.
_MOST_ANSWER = 256 << 10
#: After a failure it is tried again soon, but not with every look.
_AGAIN_SECONDS = 10.0


class Unwilling(Exception):
    """It did not take the checkpoint; the text says why, in one line."""


class Witnesses:
    """All that are configured. One per process; several processes may share an archive."""

    def __init__(self, archive: Archive, settings: Gateway) -> None:
        self.archive = archive
        self.settings = settings
        self._parties: list[Witness | Timestamps] = [*settings.witnesses]
        if settings.timestamps is not None:
            self._parties.append(settings.timestamps)
        self._busy: set[str] = set()

    async def round(self, *, now: bool = False, tell: Callable[[str, str], None] = lambda name, error: None) -> None:
        """Send the newest checkpoint to each whose time has come; with `now` to all that do not have it. `tell` hears
        name and error (empty when it went well) of each that was tried. Raises Failure only for the archive's own
        trouble."""
        if not self._parties:
            return
        note = await asyncio.to_thread(self.archive.log.newest_note)
        if not note:
            return
        try:
            checkpoint = self.archive.log.open(note)
        except BadProof as error:
            raise Failure(LOCAL_ERROR.text, f"log/checkpoint: {error}") from error
        states = await self.archive.database.read(_states)
        at = time.time() * 1000
        due = []
        for one in self._parties:
            state = states.get(name_of(one))
            if state is not None and state.size >= checkpoint.size:
                continue
            wait = _AGAIN_SECONDS if state is not None and state.error else _interval(one)
            hurry = now and kind_of(one) != "mail"  # a mailbox is not filled by whoever asks often
            tried = state.tried_at if state is not None else None
            if not hurry and tried is not None and 0 <= at - tried < wait * 1000:
                continue
            if name_of(one) not in self._busy:
                due.append(self._send(one, states.get(name_of(one)), note, checkpoint, tell))
        await asyncio.gather(*due)

    async def _send(
        self, one: Witness | Timestamps, state: Any, note: str, checkpoint: Checkpoint, tell: Callable[[str, str], None]
    ) -> None:
        name, error = name_of(one), ""
        self._busy.add(name)
        try:
            if isinstance(one, Timestamps):
                await self._stamp(one, note)
            elif one.url:
                await self._cosign(one, state.size if state else 0, note, checkpoint)
            elif one.mail:
                await self._mail(one, note, checkpoint)
            else:
                await self._hand_over(one, state.size if state else 0, note, checkpoint)
        except (Unwilling, BadProof, Failure, OSError) as trouble:
            error = (" ".join(str(getattr(trouble, "private", "") or trouble).split()) or type(trouble).__name__)[:300]
        finally:
            self._busy.discard(name)
        await self.archive.database.write(lambda connection: _note_state(connection, name, checkpoint.size, error))
        tell(name, error)

    # ------------------------------------------------------------------ countersigned

    async def _cosign(self, one: Witness, known: int, note: str, checkpoint: Checkpoint) -> None:
        """C2SP tlog-witness: the proof begins at the size the witness knows, which a 409 tells us."""
        keys = [Verifier.parse(key) for key in one.keys]
        nodes = self.archive.log.nodes(checkpoint.size)
        for _ in range(3):
            path = await asyncio.to_thread(consistency, min(known, checkpoint.size), checkpoint.size, nodes)
            request = consistency_text(min(known, checkpoint.size), path, note).encode()
            status, kind, answer = await _apart(one.url.rstrip("/") + "/add-checkpoint", request, one.timeout)
            if status == 200:
                break
            told = int(answer) if status == 409 and answer.strip().isdigit() else -1
            if status == 409 and kind.startswith("text/x.tlog.size") and told >= 0:
                if told > checkpoint.size:
                    newest = await asyncio.to_thread(self.archive.log.newest)
                    if newest is not None and newest.size >= told:
                        return  # another gateway of this archive was there with a newer one
                    raise Unwilling(f"it knows {told} leaves, {checkpoint.size} are signed here: was this rolled back?")
                if told == known:
                    raise Unwilling(f"it knows another tree of {told} leaves than ours: history was rewritten")
                known = told
                continue
            raise Unwilling(f"HTTP {status}: {answer.decode('utf-8', 'replace')[:200]}")
        else:
            raise Unwilling("it names another size each time")
        body = split_note(note)[0]
        try:
            found = list(signatures_by(body, answer.decode().removesuffix("\n").split("\n"), keys))
        except (BadProof, UnicodeDecodeError) as error:
            raise Unwilling(f"its answer does not hold: {error}") from None
        if not found:
            raise Unwilling("its answer has no signature by a configured key")
        lines = "".join(f"{line}\n" for _, _, line in found)
        await self.archive.attest(note, one.name, min(at for _, at, _ in found) * 1000, lines.encode())

    # ------------------------------------------------------------------ stamped

    async def _stamp(self, one: Timestamps, note: str) -> None:
        body = split_note(note)[0].encode()
        request, nonce = timestamps.request(body)
        headers = {"Content-Type": "application/timestamp-query"}
        status, _, answer = await _apart(one.url, request, one.timeout, headers)
        if status != 200:
            raise Unwilling(f"HTTP {status}")
        roots = await asyncio.to_thread(timestamps.read_roots, one.ca)
        try:
            found = await asyncio.to_thread(timestamps.check, answer, body, roots, nonce=nonce)
        except timestamps.BadStamp as error:
            raise Unwilling(f"its stamp does not hold: {error}") from None
        await self.archive.attest(note, "timestamps", int(found.at.timestamp() * 1000), answer)

    # ------------------------------------------------------------------ kept elsewhere

    async def _hand_over(self, one: Witness, known: int, note: str, checkpoint: Checkpoint) -> None:
        """The newest, and those kept since the last that was taken."""
        log = self.archive.log
        notes = {checkpoint.size: note}
        for name, text in await asyncio.to_thread(lambda: list(log.kept())):
            size = int(name.partition(".")[0]) if name.partition(".")[0].isdigit() else 0
            if known < size < checkpoint.size:
                notes[size] = text
        for size in sorted(notes):
            name = f"{origin_digest(checkpoint.origin)}/{size:012d}.note"
            if one.folder is not None:
                await asyncio.to_thread(_drop, one.folder, name, notes[size].encode())
                continue
            address = f"{one.put.rstrip('/')}/{name}"
            status, _, answer = await _apart(address, notes[size].encode(), one.timeout, {}, "PUT")
            if not 200 <= status < 300:
                raise Unwilling(f"HTTP {status}: {answer.decode('utf-8', 'replace')[:200]}")

    async def _mail(self, one: Witness, note: str, checkpoint: Checkpoint) -> None:
        hop = self.settings.hop_for(one.mail.rpartition("@")[2].lower())
        if hop is None:
            raise Unwilling(f"no next hop takes mail for {one.mail}")
        data = letter(one.mail, note, checkpoint, self.settings)
        key = f"checkpoint|{one.name}|{checkpoint.size}"
        await self.archive.notify([Notice("notice", data, ((one.mail, hop.name),), "", key)])

    # ------------------------------------------------------------------ how they stand

    async def status(self) -> dict[str, Any]:
        """What is signed, what of it is attested, and how far each one lags: leaves and seconds since the oldest leaf
        that its last checkpoint does not cover (0 when it covers all)."""

        def look(connection: Connection) -> dict[str, Any]:
            states = _states(connection)
            leaf = db.leaf.c
            last = connection.execute(select(leaf.idx).order_by(leaf.idx.desc()).limit(1)).scalar()
            leaves = 0 if last is None else last + 1
            newest = connection.execute(
                select(db.checkpoint.c.size, db.checkpoint.c.at).order_by(db.checkpoint.c.size.desc()).limit(1)
            ).first()
            now = time.time() * 1000

            def lag(size: int) -> float:
                first = connection.execute(select(leaf.at).where(leaf.idx == size)).scalar()
                return 0.0 if first is None else max(0.0, round((now - first) / 1000, 1))

            def attested(names: list[str]) -> dict[str, Any] | None:
                a = db.attest.c
                row = connection.execute(
                    select(a.size, a.at, a.name).where(a.name.in_(names)).order_by(a.size.desc()).limit(1)
                ).first()
                return row and {"size": row.size, "at": stamp(from_ms(row.at)), "by": row.name}

            parties = []
            for one in self._parties:
                state = states.get(name_of(one))
                size = state.size if state else 0
                parties.append(
                    {
                        "name": name_of(one),
                        "kind": kind_of(one),
                        "size": size,
                        "at": stamp(from_ms(state.at)) if state and state.at else None,
                        "tried_at": stamp(from_ms(state.tried_at)) if state and state.tried_at else None,
                        "lag_leaves": leaves - size,
                        "lag_seconds": lag(size),
                        "error": state.error if state else "",
                    }
                )
            return {
                "leaves": leaves,
                "signed": {"size": newest.size, "at": stamp(from_ms(newest.at))} if newest else None,
                "cosigned": attested([one.name for one in self.settings.witnesses]),
                "stamped": attested(["timestamps"]),
                "witnesses": parties,
            }

        return await self.archive.database.read(look)


def name_of(one: Witness | Timestamps) -> str:
    return one.name if isinstance(one, Witness) else "timestamps"


def kind_of(one: Witness | Timestamps) -> str:
    if isinstance(one, Timestamps):
        return "timestamps"
    return "cosigns" if one.url else "folder" if one.folder else "put" if one.put else "mail"


def _interval(one: Witness | Timestamps) -> float:
    return one.interval if isinstance(one, Witness) else one.every


def origin_digest(origin: str) -> str:
    """The folder of a log's checkpoints at a witness: SHA-256 of the origin, hexadecimal."""
    return hashlib.sha256(origin.encode()).hexdigest()


def ask(
    url: str, data: bytes | None, timeout: float, headers: dict[str, str] | None = None, method: str | None = None
) -> tuple[int, str, bytes]:
    """One HTTP request. Gives status, content type and body, at most 256 KB. Blocks. Raises OSError, Unwilling."""
    request = urllib.request.Request(url, data, headers or {"Content-Type": "text/plain"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.headers.get("Content-Type") or "", answer.read(_MOST_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Content-Type") or "", error.read(_MOST_ANSWER)
    except urllib.error.URLError as error:
        raise Unwilling(f"{url}: {error.reason}") from None
    except (http.client.HTTPException, ValueError) as error:
        raise Unwilling(f"{url}: {type(error).__name__} {error}") from None


async def _apart(
    url: str, data: bytes, seconds: float, headers: dict[str, str] | None = None, method: str | None = None
) -> tuple[int, str, bytes]:
    """`ask` in a thread that nobody waits for at the end: whoever answers byte by byte holds up neither us nor the
    shutdown. Raises OSError, Unwilling."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[int, str, bytes]] = loop.create_future()

    def settle(act: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            act(value)

    def run() -> None:
        try:
            outcome = (future.set_result, ask(url, data, seconds, headers, method))
        except Exception as error:
            outcome = (future.set_exception, error)  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="witness", daemon=True).start()
    try:
        return await asyncio.wait_for(future, 3 * seconds)
    except TimeoutError:
        raise Unwilling(f"{url}: no whole answer within {3 * seconds:g} s") from None


def _drop(folder: Path, name: str, data: bytes) -> None:
    if not folder.is_dir():  # a medium that is not there must not be mistaken for an empty one
        raise Unwilling(f"{folder} is not there")
    path = folder / name
    if path.exists() and len(path.read_bytes()) >= len(data):
        return
    durable.make_folder(path.parent)
    durable.replace(path, data, 0o644)


def letter(to: str, note: str, checkpoint: Checkpoint, settings: Gateway) -> bytes:
    """The mail that carries a checkpoint to somebody who keeps it."""
    message = email.message.EmailMessage(email.policy.SMTP)
    message["From"] = settings.contacts.notice_from or f"congvan@{settings.hostname}"
    message["To"] = to
    message["Date"] = dt.datetime.now().astimezone()
    message["Message-ID"] = f"<checkpoint.{checkpoint.size}.{checkpoint.root.hex()[:16]}@{settings.hostname}>"
    message["Auto-Submitted"] = "auto-generated"
    message["Subject"] = f"Điểm kiểm tra kho lưu trữ {checkpoint.origin}: {checkpoint.size} lá"
    message.set_content(
        f"Đây là điểm kiểm tra đã ký của kho lưu trữ {checkpoint.origin}, gồm {checkpoint.size} lá.\n"
        "Xin giữ lại tệp đính kèm. Có tệp này, bất kỳ ai cũng phát hiện được nếu quá khứ của kho bị sửa:\n"
        "    congvan-verify audit --key KEY --known TỆP THƯ-MỤC\n\n"
        "This is a signed checkpoint of the archive. Please keep the attachment: with it anybody can tell\n"
        "whether what was archived before was changed.\n\n" + note,
        cte="base64",
    )
    message.add_attachment(
        note.encode(), maintype="application", subtype="octet-stream", filename=f"{checkpoint.size:012d}.note"
    )
    return message.as_bytes()


def _states(connection: Connection) -> dict[str, Any]:
    return {row.name: row for row in connection.execute(select(db.witness))}


def _note_state(connection: Connection, name: str, size: int, error: str) -> None:
    now = int(time.time() * 1000)
    db.insert(connection, db.witness, [{"name": name}], ignore=True)
    table = db.witness
    if error:
        connection.execute(table.update().where(table.c.name == name).values(tried_at=now, error=error))
        return
    connection.execute(
        table.update()
        .where(table.c.name == name, table.c.size <= size)
        .values(size=size, at=now, tried_at=now, error="")
    )
