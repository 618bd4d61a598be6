"""Bytes that stay: the few calls between us and the disk, each with its place for a test to pull the plug.

Everything that must survive a power cut goes through here or through `database.py`. The environment variable
CONGVAN_CRASH_AT=n makes the n-th `step` kill this process as SIGKILL would, so that a test can die between any two
durable operations (reliability.md, test R2). Without the variable `step` is a comparison and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

_crash_at = int(os.environ.get("CONGVAN_CRASH_AT") or 0)
_steps = 0
_lock = threading.Lock()


def step() -> None:
    """A point between two durable operations."""
    if _crash_at:
        global _steps
        with _lock:
            _steps += 1
            if _steps == _crash_at:
                os.kill(os.getpid(), signal.SIGKILL)


def create(path: Path, chunks: Iterable[bytes], mode: int = 0o440) -> int:
    """Create `path`, which must not exist, with these bytes. Returns the open file, not synced yet, for the caller to
    `sync` and close. Raises OSError and whatever `chunks` raises; then no file is left."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(handle, view) :]
    except BaseException:
        os.close(handle)
        path.unlink(missing_ok=True)
        raise
    return handle


def sync(handle: int) -> None:
    step()
    os.fsync(handle)


def start_writing(handle: int) -> None:
    """Let the kernel begin to write a file that will be synced soon. When many files begin together, the first fsync
    commits the journal for all and the others find nothing left to do: on ext4 16 files took a twentieth of the time.
    Errors of this early writing are told by the fsync that follows."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def write_new(path: Path, chunks: Iterable[bytes], mode: int = 0o440) -> None:
    """Create `path`, which must not exist, with these bytes, and fsync it. Raises OSError; the torn file is removed."""
    handle = create(path, chunks, mode)
    try:
        sync(handle)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Make the names in a directory durable. Without it the last rename is lost in a power cut, every time."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        step()
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Put `data` in place of `path`, wholly or not at all: temporary file, fsync, rename, fsync of the directory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.unlink(missing_ok=True)
    write_new(temporary, (data,), mode)
    step()
    temporary.replace(path)
    sync_folder(path.parent)


def identity(folder: Path) -> str:
    """The name of the gateway whose folder this is: `host/random`, the same at each start, another for a copy of the
    folder on another host. It is made, durably, when there is none. Blocks. Raises OSError."""
    path = folder / "gateway.id"
    if not path.exists():
        make_folder(folder)
        new = path.with_suffix(f".{secrets.token_hex(8)}")
        write_new(new, (f"{new.suffix[1:]}\n".encode(),))
        with contextlib.suppress(FileExistsError):  # of two that begin together one names both
            os.link(new, path)
        new.unlink()
        sync_folder(folder)
    return f"{socket.gethostname()}/{path.read_text('ascii').strip()}"


def make_folder(path: Path, mode: int = 0o750) -> None:
    """Create a directory and all above it, durably."""
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync_folder(path.parent)
