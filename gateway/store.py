"""Message bytes, by their SHA-256, in a folder.

`blobs/sha256/ab/ab12….eml` holds exactly the bytes between DATA and the final dot, never rewritten. A name appears
only when its bytes are on disk: temporary file, fsync, rename, fsync of the directory. The same bytes are kept once.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from gateway import durable
from gateway.errors import LOCAL_ERROR, Failure

_DIGEST = re.compile(r"[0-9a-f]{64}")

#: Out of room: nothing was damaged, and it passes. Everything else that a write answers is a disk we no longer trust.
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: Not the disk at all: out of descriptors or memory, or interrupted.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN}


class Damaged(Exception):
    """The bytes on disk are not those that were put there, or are gone. `digest` says which."""

    def __init__(self, digest: str, reason: str) -> None:
        super().__init__(f"blob {digest}: {reason}")
        self.digest = digest
        self.reason = reason


class Store:
    """A content-addressed folder. All calls block; run them in a thread.

    broken: why nothing more is taken until a restart, or empty. After an fsync error the page cache may already call
    the lost pages clean, so a second fsync proves nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken = ""
        self._names = itertools.count()
        self._temporary = root / "tmp"
        self._shards = root / "sha256"
        if not (self._shards / "ff").is_dir():  # made last
            durable.make_folder(self._temporary)
            durable.make_folder(self._shards)
            for number in range(256):
                (self._shards / f"{number:02x}").mkdir(mode=0o750, exist_ok=True)
            durable.sync_folder(self._shards)

    def clear(self) -> None:
        """Remove what a crash left half written. Only for the daemon, at its start, before anything is put."""
        for path in self._temporary.iterdir():
            path.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Where these bytes are or would be. Raises ValueError for what is no lower-case SHA-256."""
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"not a SHA-256 digest: {sha256!r}")
        return self._shards / sha256[:2] / f"{sha256}.eml"

    def put(self, chunks: Iterable[bytes], sha256: str) -> None:
        """Keep these bytes; when it returns they survive a power cut. Putting the same bytes again is harmless.

        Raises Failure (retryable) when the disk does not take them, or when the chunks do not have this digest.
        """
        self.put_all([(chunks, sha256)])

    def put_all(self, items: Iterable[tuple[Iterable[bytes], str]]) -> None:
        """`put` for several at once, with one fsync for each directory."""
        if self.broken:
            raise Failure(LOCAL_ERROR.text, f"store: {self.broken}")
        folders: set[Path] = set()
        try:
            for chunks, sha256 in items:
                folders.add(self._place(chunks, sha256))
            for folder in folders:
                durable.sync_folder(folder)
        except OSError as error:
            reason = f"{errno.errorcode.get(error.errno or 0, '?')}: {error.strerror}"
            if error.errno not in _FULL | _PASSING:
                self.broken = reason
            raise Failure(LOCAL_ERROR.text, f"store: {reason}") from error

    def _place(self, chunks: Iterable[bytes], sha256: str) -> Path:
        """One file under its name; the directory is still to be synced."""
        target = self.path(sha256)
        if target.exists() and self.problem(sha256) == "":
            # The name may be of a put that has not synced its directory yet, so ours is synced all the same.
            return target.parent
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk

        temporary = self._temporary / f"{sha256[:16]}.{os.getpid()}.{next(self._names)}"
        temporary.unlink(missing_ok=True)
        durable.write_new(temporary, hashed())
        if digest.hexdigest() != sha256:
            temporary.unlink()
            raise Failure(LOCAL_ERROR.text, f"store: bytes offered as {sha256} have digest {digest.hexdigest()}")
        durable.step()
        temporary.replace(target)
        return target.parent

    def exists(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def chunks(self, sha256: str, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes in pieces. Raises Damaged when they are missing or, after the last piece, when they are others."""
        digest = hashlib.sha256()
        try:
            with self.path(sha256).open("rb") as file:
                while chunk := file.read(size):
                    digest.update(chunk)
                    yield chunk
        except FileNotFoundError:
            raise Damaged(sha256, "missing") from None
        except OSError as error:
            raise Damaged(sha256, f"cannot be read: {error.strerror}") from None
        if digest.hexdigest() != sha256:
            raise Damaged(sha256, "changed")

    def read(self, sha256: str) -> bytes:
        """The bytes, checked. Raises Damaged."""
        return b"".join(self.chunks(sha256))

    def problem(self, sha256: str) -> str:
        """What is wrong with these bytes: `missing`, `changed`, `cannot be read: …`, or nothing."""
        try:
            for _ in self.chunks(sha256):
                pass
        except Damaged as error:
            return error.reason
        return ""

    def digests(self) -> Iterator[str]:
        """All that is kept, in order of digest. Files that do not belong here are given by their path in the store."""
        for folder in sorted(self._shards.iterdir()):
            for path in sorted(folder.iterdir()):
                name = path.name.removesuffix(".eml")
                if _DIGEST.fullmatch(name) and path.name.endswith(".eml") and folder.name == name[:2]:
                    yield name
                else:
                    yield str(path.relative_to(self.root))
