"""Mails that programs read differently, file names that deceive, From fields that name two people.

Written for the tests M1, M5 and D1; `bench/mime_corpus.py` shows the same mails to other parsers.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

MARKER = b"MARKER-7f3a-of-the-attachment"
FILE = b"%PDF-1.4\n" + MARKER + b"\n" + bytes(range(32, 127)) * 4 + b"\n%%EOF\n"
B64 = base64.encodebytes(FILE).decode()
UU = "begin 644 a.pdf\n" + "".join(
    binascii.b2a_uu(FILE[n : n + 45]).decode() for n in range(0, len(FILE), 45)
) + "`\nend\n"  # fmt: skip


@dataclass(frozen=True)
class Case:
    """held: we must say that it cannot be read in one way. file: else, whether we find the marker."""

    name: str
    raw: bytes
    held: bool
    file: bool


CASES: list[Case] = []
TOP = "From: a@x.gov.vn\nTo: b@y.gov.vn\nSubject: s\nDate: Tue, 02 Jun 2026 08:00:00 +0700\nMessage-ID: <1@x>\n"
VERSION = "MIME-Version: 1.0\n"


def _wire(text: str) -> bytes:
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8", "surrogateescape")


def add(name: str, text: str | bytes, held: bool = True, file: bool = False) -> None:
    CASES.append(Case(name, text if isinstance(text, bytes) else _wire(text), held, file))


def mixed(
    part: str, body: str = B64, *, head: str | None = None, first: str = "\nxin chao\n", tail: str = "--b1--\n"
) -> str:
    """A multipart/mixed of a text and one part with the header `part` and the body."""
    head = TOP + VERSION + "Content-Type: multipart/mixed; boundary=b1\n" if head is None else head
    return f"{head}\n--b1\n{first}--b1\n{part}\n{body}{tail}"


ATTACHED = 'Content-Type: application/pdf; name="a.pdf"\nContent-Disposition: attachment; filename="a.pdf"\n'
BASE64 = "Content-Transfer-Encoding: base64\n"

add("plain attachment", mixed(ATTACHED + BASE64), held=False, file=True)


def ordinary() -> dict[str, bytes]:
    return {"plain attachment": _wire(mixed(ATTACHED + BASE64))}


FROM_FORMS: list[tuple[str, str | None]] = [
    ("a@gov.vn", "a@gov.vn"),
    ("a@so-tttt.gov.vn", "a@so-tttt.gov.vn"),
    ('"x@evil.com"@gov.vn', None),
]

FILENAMES: list[tuple[str, str, str, list[str]]] = [
    ("plain", 'attachment; filename="a.pdf"', "a.pdf", []),
]
