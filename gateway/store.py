"""Message bytes, by their SHA-256, in a folder (or, `objectstore.py`, in a bucket).

`blobs/sha256/ab/ab12….eml.gz` holds exactly the bytes between DATA and the final dot, in one of the forms of
`blobfile.py`, never rewritten. A name appears only when its bytes are on disk: temporary file, fsync, rename, fsync of
the directory. The same bytes are kept once. All forms are read, whatever is written now.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway import blobfile, durable
from gateway.blobfile import ENCRYPTED, GZIP, KINDS, PLAIN, Keyring
from gateway.errors import LOCAL_ERROR, Failure

_DIGEST = re.compile(r"[0-9a-f]{64}")

#: Out of room: nothing was damaged, and it passes. Everything else that a write answers is a disk we no longer trust.
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: Not the disk at all: out of descriptors or memory, or interrupted.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN}


#: fsyncs at the same time: more wait in the same queue of the disk.
_SYNCING = 8

_names = itertools.count()  # of temporary files: with the process id, no two puts on this host share one

#: Bytes in pieces, and their SHA-256.
Item = tuple[Iterable[bytes], str]


class Damaged(Exception):
    """The bytes on disk are not those that were put there, or are gone. `digest` says which."""

    def __init__(self, digest: str, reason: str) -> None:
        super().__init__(f"blob {digest}: {reason}")
        self.digest = digest
        self.reason = reason


class Store:
    """A content-addressed folder. All calls block; run them in a thread.

    kind: how bytes are written from now on (`blobfile.KINDS`). keyring: needed where any of them are encrypted.
    broken: why nothing more is taken until a restart, or empty. After an fsync error the page cache may already call
    the lost pages clean, so a second fsync proves nothing.
    """

    def __init__(self, root: Path, *, kind: str = PLAIN, keyring: Keyring | None = None) -> None:
        self.root = root
        self.broken = ""
        self._kind = kind
        self.keyring = keyring
        self._kinds = (kind, *(one for one in KINDS if one != kind))
        self._syncing = ThreadPoolExecutor(_SYNCING, "store-sync")  # its threads start when they are needed
        self._temporary = root / "tmp"
        self._shards = root / "sha256"
        self._prepare()

    def _prepare(self) -> None:
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
        paths = [self._shards / blob_name(sha256, kind) for kind in self._kinds]
        return next((path for path in paths if path.exists()), paths[0])

    def put(self, chunks: Iterable[bytes], sha256: str) -> None:
        """Keep these bytes; when it returns they survive a power cut. Putting the same bytes again is harmless.

        Raises Failure (retryable) when the disk does not take them, or when the chunks do not have this digest.
        """
        self.put_all([(chunks, sha256)])

    def put_all(self, items: Iterable[Item]) -> None:
        """`put` for several at once; all of them or none is promised."""
        (error,) = self.put_groups([items])
        if error is not None:
            raise error

    def put_groups(self, groups: Sequence[Iterable[Item]]) -> list[BaseException | None]:
        """`put_all` for several callers at once, who share the work of the disk. One answer for each: None, or what it
        is to be told. One caller's bad bytes are nobody else's trouble; a disk that fails is everybody's."""
        answers: list[BaseException | None] = [None] * len(groups)
        begun: list[tuple[int, int, Path, Path]] = []  # caller, open file, temporary name, final name
        folders: dict[Path, set[int]] = {}
        try:
            for caller, items in enumerate(groups):
                try:
                    if self.broken:
                        raise Failure(LOCAL_ERROR.text, f"store: {self.broken}")
                    for chunks, sha256 in items:
                        target = self.path(sha256)
                        # The name may be of a put that has not synced its directory yet: ours is synced all the same.
                        folders.setdefault(target.parent, set()).add(caller)
                        if not target.exists():
                            target = self._shards / blob_name(sha256, self._kind)
                        elif not self.problem(sha256):
                            continue
                        elif not target.name.endswith(self._kind):  # damaged, and of another kind
                            target.unlink()
                            target = self._shards / blob_name(sha256, self._kind)
                        handle, temporary = self._begin(chunks, sha256)
                        begun.append((caller, handle, temporary, target))
                except Exception as error:
                    answers[caller] = self._failure(error)
            if len(begun) > 1:
                for _, handle, _, _ in begun:
                    durable.start_writing(handle)
            written = [one for one in begun if answers[one[0]] is None]
            for (caller, *_), failure in zip(
                written, self._each(durable.sync, [one[1] for one in written]), strict=True
            ):
                answers[caller] = answers[caller] or failure
            for caller, _, temporary, target in written:
                try:
                    if answers[caller] is None:
                        durable.step()
                        temporary.replace(target)
                except Exception as error:
                    answers[caller] = self._failure(error)
            failures = self._each(durable.sync_folder, list(folders))
            for callers, failure in zip(folders.values(), failures, strict=True):
                for caller in callers if failure is not None else ():
                    answers[caller] = answers[caller] or failure
            if self.broken:  # what was synced before the error is there, but nobody is told so
                failure = Failure(LOCAL_ERROR.text, f"store: {self.broken}")
                answers = [answer or failure for answer in answers]
            return answers
        finally:
            for _, handle, temporary, _ in begun:
                os.close(handle)
                temporary.unlink(missing_ok=True)  # still there only when something failed

    def _each(self, fn: Callable[[Any], None], items: Sequence[Any]) -> list[Exception | None]:
        """`fn` for each of them, with what went wrong. fsyncs that wait at the same time share the commits of the file
        system's journal."""

        def one(item: Any) -> Exception | None:
            try:
                fn(item)
            except Exception as error:
                return self._failure(error)
            return None

        return list(self._syncing.map(one, items)) if len(items) > 1 else [one(item) for item in items]

    def _failure(self, error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        reason = f"{errno.errorcode.get(error.errno or 0, '?')}: {error.strerror}"
        if error.errno not in _FULL | _PASSING:
            self.broken = reason
        failure = Failure(LOCAL_ERROR.text, f"store: {reason}")
        failure.__cause__ = error
        return failure

    def _begin(self, chunks: Iterable[bytes], sha256: str) -> tuple[int, Path]:
        """An open file under a temporary name that holds these bytes, not synced yet."""
        temporary = self._temporary / f"{sha256[:16]}.{os.getpid()}.{next(_names)}"
        temporary.unlink(missing_ok=True)
        return durable.create(temporary, self._written(chunks, sha256)), temporary

    def _written(self, chunks: Iterable[bytes], sha256: str) -> Iterator[bytes]:
        """The bytes in the form in which they are kept. Raises Failure when they do not have this digest."""
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk
            if digest.hexdigest() != sha256:
                raise Failure(LOCAL_ERROR.text, f"store: bytes offered as {sha256} have digest {digest.hexdigest()}")

        if self.keyring is not None and self._kind == ENCRYPTED:
            return blobfile.encrypt(hashed(), sha256, self.keyring)
        return blobfile.compress(hashed()) if self._kind == GZIP else hashed()

    def exists(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def raw(self, sha256: str, size: int = 1 << 20) -> tuple[str, Iterator[bytes]]:
        """The bytes in the form in which they are kept, unchecked, and which form that is. Raises Damaged, Failure."""
        path = self.path(sha256)
        try:
            file = path.open("rb")
        except OSError as error:
            raise _unread(sha256, error) from None

        def pieces() -> Iterator[bytes]:
            with file:
                try:
                    while chunk := file.read(size):
                        yield chunk
                except OSError as error:
                    raise _unread(sha256, error) from None

        return path.name[len(sha256) :], pieces()

    def put_raw(self, sha256: str, kind: str, pieces: Iterable[bytes]) -> None:
        """Keep bytes that are in one of the forms already, durably, unchecked. Raises OSError."""
        target = self._shards / blob_name(sha256, kind)
        temporary = self._temporary / f"{sha256[:16]}.{os.getpid()}.{next(_names)}"
        temporary.unlink(missing_ok=True)
        durable.write_new(temporary, pieces)
        durable.step()
        temporary.replace(target)
        durable.sync_folder(target.parent)

    def remove(self, sha256: str) -> None:
        """Destroy these bytes; bytes that are not there are no trouble. Raises Failure, not retryable while a lock of
        the store forbids it."""
        try:
            for kind in KINDS:
                (self._shards / blob_name(sha256, kind)).unlink(missing_ok=True)
            durable.step()
            durable.sync_folder(self._shards / sha256[:2])
        except OSError as error:
            raise self._failure(error) from error

    def chunks(self, sha256: str, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes in pieces. Raises Damaged when they are missing or, after the last piece, when they are others;
        Failure when this host is out of descriptors or memory."""
        digest = hashlib.sha256()
        kind, pieces = self.raw(sha256, size)
        try:
            for chunk in self._read(kind, pieces, sha256):
                digest.update(chunk)
                yield chunk
        except blobfile.Unreadable:
            raise Damaged(sha256, "changed") from None
        if digest.hexdigest() != sha256:
            raise Damaged(sha256, "changed")

    def _read(self, kind: str, pieces: Iterator[bytes], sha256: str) -> Iterator[bytes]:
        if kind == GZIP:
            return blobfile.decompress(pieces)
        if kind == ENCRYPTED:
            if self.keyring is None:
                reason = f"blob {sha256} is encrypted, and `store.encryption` names no key"
                raise Failure(reason, reason, retryable=False)
            return blobfile.decrypt(pieces, sha256, self.keyring)
        return pieces

    def read(self, sha256: str) -> bytes:
        """The bytes, checked. Raises Damaged, Failure."""
        return b"".join(self.chunks(sha256))

    def set_aside(self, sha256: str) -> None:
        """Move bytes that are not what their name says to the folder `corrupt` beside the store, for a person to look
        at; a file that is gone stays gone. Raises OSError."""
        path = self.path(sha256)
        if not path.exists():
            return
        corrupt = self.root.parent / "corrupt"
        durable.make_folder(corrupt)
        durable.step()
        path.replace(corrupt / path.name)
        durable.sync_folder(corrupt)
        durable.sync_folder(path.parent)

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
                yield digest_of(folder.name, path.name) or str(path.relative_to(self.root))


def blob_name(sha256: str, kind: str) -> str:
    """Name below `sha256/`. Raises ValueError for what is no lower-case SHA-256."""
    if not _DIGEST.fullmatch(sha256):
        raise ValueError(f"not a SHA-256 digest: {sha256!r}")
    return f"{sha256[:2]}/{sha256}{kind}"


def digest_of(folder: str, name: str) -> str:
    """The digest that a name below `sha256/` stands for; empty for a stranger."""
    found = re.fullmatch(r"([0-9a-f]{64})(\.eml(?:\.gz|\.enc)?)", name)
    return found[1] if found and folder == found[1][:2] else ""


def _unread(sha256: str, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError):
        return Damaged(sha256, "missing")
    if error.errno in _PASSING:
        return Failure(LOCAL_ERROR.text, f"store: {error.strerror}")
    return Damaged(sha256, f"cannot be read: {error.strerror}")


class GroupWriter:
    """Puts from many tasks at once, in one thread: what comes while the disk is busy goes together in the next round.

    Large bodies take the caller's own thread, so that small ones need not wait for them.
    """

    #: Bodies up to this size share rounds; more than this in a round, or more callers, waits for the next.
    SMALL, ROUND = 1 << 18, 64

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[tuple[list[Item], asyncio.AbstractEventLoop, asyncio.Future[None]] | None]
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-write", daemon=True)
        self._thread.start()
        self._large = ThreadPoolExecutor(4, "store-large")

    async def put(self, items: list[Item], size: int) -> None:
        """`Store.put_all`; `size` is that of all bytes together. Raises Failure."""
        loop = asyncio.get_running_loop()
        if size > self.SMALL:
            await loop.run_in_executor(self._large, self._store.put_all, items)
            return
        future: asyncio.Future[None] = loop.create_future()
        self._queue.put((items, loop, future))
        await future

    def close(self) -> None:
        """Finish what is queued."""
        self._queue.put(None)
        self._thread.join()
        self._large.shutdown()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            jobs, last = [first], False
            while len(jobs) < self.ROUND and not last:
                try:
                    another = self._queue.get_nowait()
                except queue.Empty:
                    break
                if another is None:
                    last = True
                else:
                    jobs.append(another)
            try:
                answers = self._store.put_groups([items for items, _, _ in jobs])
            except Exception as error:
                answers = [error] * len(jobs)
            loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], BaseException | None]]] = {}
            for (_, loop, future), answer in zip(jobs, answers, strict=True):
                loops.setdefault(loop, []).append((future, answer))
            for loop, mine in loops.items():
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_settle, mine)
            if last:
                break


def _settle(jobs: list[tuple[asyncio.Future[None], BaseException | None]]) -> None:
    for future, answer in jobs:
        if future.done():  # cancelled by its caller
            continue
        if answer is None:
            future.set_result(None)
        else:
            future.set_exception(answer)
