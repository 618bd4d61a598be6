"""Old mail as it lies in files: single messages, mbox, Maildir, in folders of any depth. The bytes stay as they are.

mbox: a line `From …` after an empty line begins a message when a header field follows; a line that was quoted with `>`
loses one of them (mboxrd, RFC 4155 leaves it open). Nothing here fails for what a file holds: what cannot be read is
found with its reason, and the search goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: More than any server takes; a file beyond it is no message.
LARGEST = 256 << 20
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_SEPARATOR = re.compile(rb"From \S.*\d")
_QUOTED = re.compile(rb">+From ")
#: What mail programs put beside the mail.
_BESIDE = re.compile(
    r"dovecot.*|maildirfolder|maildirsize|subscriptions|courierimap.*|\.uidvalidity|\.mh_sequences|.*\.(?:msf|dat|lock)"
)


@dataclass(frozen=True, slots=True)
class Found:
    """One message, or why there is none. source: the file, with `#n` for the n-th message of an mbox; form: `eml`,
    `mbox` or `maildir`; skipped: the file is simply no mail."""

    source: str
    form: str
    data: bytes = b""
    problem: str = ""
    skipped: bool = False


def find(path: Path) -> Iterator[Found]:
    """All messages of a file or below a folder, in order of name. Symbolic links to folders are not followed."""
    if path.is_dir():
        yield from _folder(path)
    else:
        yield from _file(path, named=True)


def size(path: Path) -> int:
    """Bytes of all files, for the progress."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(
        (Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path, onerror=None) for name in names
    )


def _folder(folder: Path) -> Iterator[Found]:
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        yield Found(str(folder), "", problem=error.strerror or "cannot be read")
        return
    maildir = all((folder / name).is_dir() for name in ("cur", "new"))
    for path in inside:
        if path.is_dir():
            if maildir and path.name in ("cur", "new"):
                for message in sorted(path.iterdir()):
                    if not message.name.startswith("."):
                        yield _whole(message, "maildir")
            elif not path.is_symlink() and not (maildir and path.name == "tmp"):
                yield from _folder(path)
        elif not _BESIDE.fullmatch(path.name):
            yield from _file(path, named=False)


def _file(path: Path, named: bool) -> Iterator[Found]:
    try:
        if not path.is_file():
            yield Found(str(path), "", problem="no file" if not path.exists() else "not a regular file")
            return
        with path.open("rb") as file:
            first = [file.readline(1 << 16) for _ in range(3)]
    except OSError as error:
        yield Found(str(path), "", problem=error.strerror or "cannot be read")
        return
    if first[0].startswith(b"From ") and (_FIELD.match(first[1]) or path.suffix.lower() in ("", ".mbox")):
        yield from _mbox(path)
    elif path.suffix.lower() == ".eml" or any(map(_FIELD.match, first)):
        yield _whole(path, "eml")
    elif not any(first):
        yield Found(str(path), "", problem="empty", skipped=not named)
    else:
        yield Found(str(path), "", problem="not a message, mbox or Maildir", skipped=not named)


def _whole(path: Path, form: str) -> Found:
    try:
        if path.stat().st_size > LARGEST:
            return Found(str(path), form, problem=f"larger than {LARGEST >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        return Found(str(path), form, problem=error.strerror or "cannot be read")
    return Found(str(path), form, data) if data else Found(str(path), form, problem="empty", skipped=True)


def _mbox(path: Path) -> Iterator[Found]:
    number = 0
    try:
        with path.open("rb") as file:
            for data in split(file):
                number += 1
                if data is None:
                    yield Found(f"{path}#{number}", "mbox", problem=f"larger than {LARGEST >> 20} MiB")
                else:
                    problem = "" if data.strip() else "empty"
                    yield Found(f"{path}#{number}", "mbox", data, problem, skipped=bool(problem))
    except OSError as error:
        yield Found(f"{path}#{number + 1}", "mbox", problem=error.strerror or "cannot be read")


def split(file: BinaryIO) -> Iterator[bytes | None]:
    """The messages of an mbox; None for one that is too large."""
    lines: list[bytes] = []
    total, begun, empty, line = 0, False, True, file.readline()
    while line:
        after = file.readline()
        if empty and _SEPARATOR.match(line) and (not begun or not after or _FIELD.match(after)):
            if begun:
                yield _message(lines, total)
            lines, total, begun = [], 0, True
        else:
            total += len(line)
            if total <= LARGEST:
                lines.append(line[1:] if _QUOTED.match(line) else line)
        empty, line = not line.strip(b"\r\n"), after
    if begun:
        yield _message(lines, total)


def _message(lines: list[bytes], total: int) -> bytes | None:
    if total > LARGEST:
        return None
    if lines and not lines[-1].strip(b"\r\n"):  # the empty line belongs to the separator
        lines.pop()
    return b"".join(lines)
