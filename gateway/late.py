"""Mail whose inspection takes longer than its sender can wait, held under a key of its own until the verdict.

    late/<case>.json     envelope and origin: when it is there, the message is ours and `250` may be said
    late/<case>.sealed   the bytes, encrypted under a key that is used for nothing else (`blobfile.seal`)
    keys/late/<case>.key that key; never part of a backup

Until the verdict nobody knows whether this is a state secret, so nothing readable lies on the disk. When it is one, the
key is destroyed: overwritten where it lies, then removed. (A file system that copies on write, and a disk that moves
blocks about, may keep what was overwritten; such a disk must be encrypted itself.) All calls block.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway import blobfile, durable
from gateway.message import VIETNAM, Address, Body, Envelope, MemoryBody, NullSender, Origin, Received, Recipient


@dataclass(frozen=True, slots=True)
class Held:
    """One message that waits. mark: the salted digest by which the same bytes are known again."""

    case: str
    at: dt.datetime
    envelope: Envelope
    origin: Origin
    size: int
    mark: str


class Waiting:
    """All messages that wait, in the data folder."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "late"
        self._keys = data / "keys" / "late"

    def hold(self, received: Received, mark: str) -> None:
        """When this returns, the message survives a power cut. Raises OSError; what a kill leaves behind is no
        promise, and `clear` removes it."""
        durable.make_folder(self._folder, 0o700)
        durable.make_folder(self._keys, 0o700)
        key, case, envelope = os.urandom(32), received.case, received.envelope
        sender = envelope.sender
        durable.replace(self._keys / f"{case}.key", key, 0o600)
        durable.write_new(self._folder / f"{case}.sealed", blobfile.seal(received.body.chunks(), key), 0o600)
        told = {
            "at": received.at.isoformat(),
            "sender": [sender.local, sender.domain] if isinstance(sender, Address) else None,
            "recipients": [
                [one.address.local, one.address.domain, one.notify, one.orcpt] for one in envelope.recipients
            ],
            "parameters": [envelope.ret, envelope.envid, envelope.smtputf8, envelope.body],
            "origin": asdict(received.origin),
            "size": received.body.size,
            "mark": mark,
        }
        durable.replace(self._folder / f"{case}.json", json.dumps(told).encode(), 0o600)

    def all(self) -> Iterator[Held]:
        """Oldest first; a file that cannot be read is left out, and stays."""
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                yield _read(path.stem, json.loads(path.read_bytes()))

    def body(self, case: str) -> Body | None:
        """The bytes; None when the key is gone, which happens only after the verdict. Raises OSError,
        blobfile.Unreadable."""
        try:
            key = (self._keys / f"{case}.key").read_bytes()
        except FileNotFoundError:
            return None
        if len(key) != 32 or key == bytes(32):  # stopped while it was being destroyed
            return None
        with (self._folder / f"{case}.sealed").open("rb") as file:
            data = b"".join(blobfile.unseal(iter(lambda: file.read(1 << 20), b""), key))
        return MemoryBody(data, hashlib.sha256(data).hexdigest())

    def forget(self, case: str) -> None:
        """After the verdict: the key first, then the rest. Safe to repeat. Raises OSError."""
        key = self._keys / f"{case}.key"
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(key, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(handle, bytes(32), 0)
                durable.sync(handle)
            finally:
                os.close(handle)
            durable.step()
            key.unlink()
            durable.sync_folder(self._keys)
        for suffix in (".sealed", ".json"):
            durable.step()
            (self._folder / f"{case}{suffix}").unlink(missing_ok=True)
        durable.sync_folder(self._folder)

    def clear(self) -> None:
        """Remove what a kill left of messages that were never promised. For the daemon, at its start."""
        promised = {path.stem for path in self._folder.glob("*.json")} if self._folder.is_dir() else set()
        for folder in (self._folder, self._keys):
            for path in list(folder.iterdir()) if folder.is_dir() else ():
                if path.name.startswith(".") or path.stem not in promised:
                    path.unlink()


def _read(case: str, told: dict[str, Any]) -> Held:
    sender = Address(*told["sender"]) if told["sender"] else NullSender()
    recipients = tuple(
        Recipient(Address(local, domain), notify, orcpt) for local, domain, notify, orcpt in told["recipients"]
    )
    envelope = Envelope(sender, recipients, *told["parameters"])
    at = dt.datetime.fromisoformat(told["at"]).astimezone(VIETNAM)
    return Held(case, at, envelope, Origin(**told["origin"]), told["size"], told["mark"])
