"""Signed PDFs for tests: genuine ones as agencies make them, and the published attacks on them.

Made at run time with the demonstration's own certificates; nothing of anybody else's files is kept here.
"""

from __future__ import annotations

import datetime as dt
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from gateway.demo import documents
from gateway.demo.documents import Paper
from gateway.demo.pki import Pki
from gateway.inspection.trust import TrustStore

NOW = dt.datetime(2026, 3, 2, 3, 4, 5, tzinfo=dt.UTC)

PAPER = Paper(
    agency="SỞ NỘI VỤ",
    parent="ỦY BAN NHÂN DÂN TỈNH DEMO",
    code="15/TB-SNV",
    date=NOW.date(),
    kind="THÔNG BÁO",
    abstract="Về việc kiểm tra chữ ký số",
)


@cache
def pki() -> Pki:
    """One PKI for the whole run; its keys are what takes time."""
    return Pki.create(NOW)


def store(at: dt.datetime = NOW, days: int = 7, only: tuple[str, ...] = (), revoked: dict | None = None) -> TrustStore:
    """The store that trusts the demonstration. at, days: issue and life of its revocation lists; only: their names."""
    own = pki()
    own.revoked.clear()
    own.revoked.update(revoked or {})
    with tempfile.TemporaryDirectory() as folder:
        own.write_trust(Path(folder), at, days)
        own.revoked.clear()
        if only:
            for path in (Path(folder) / "crl").iterdir():
                if path.name not in only:
                    path.unlink()
        return TrustStore.load(Path(folder))


@cache
def plain() -> bytes:
    return documents.pdf(PAPER)


@cache
def one() -> bytes:
    """Signed once, by the organisation, visibly."""
    box = documents.signature_box(PAPER)
    return documents.sign(plain(), pki().department, pki(), box=box, picture=documents.seal_picture(PAPER.agency))


@cache
def two() -> bytes:
    """Signed by the leader and then by the organisation."""
    return documents.signed_pdf(PAPER, pki())


@cache
def many(count: int) -> bytes:
    """Number, date, signer and seal each as their own signature, as several tools do it."""
    data = plain()
    for number in range(count):
        box = (100 + 20 * (number % 8), 300 + 30 * (number // 8), 118 + 20 * (number % 8), 325 + 30 * (number // 8))
        own = pki()
        signer = own.leader if number == 0 else own.department
        data = documents.sign(data, signer, own, field=f"ChuKy{number}", box=box)
    return data


# -- taking a PDF apart and putting updates on it ----------------------------------------------------------------------


def startxref(data: bytes) -> int:
    return int(re.findall(rb"startxref\s+(\d+)", data)[-1])


def last_root(data: bytes) -> bytes:
    return re.findall(rb"/Root\s+(\d+ \d+ R)", data)[-1]


def size(data: bytes) -> int:
    return max(int(one) for one in re.findall(rb"/Size\s+(\d+)", data))


def current(data: bytes, number: int) -> bytes:
    """The body of the newest definition of an object in the raw bytes."""
    return re.findall(rb"(?<!\d)%d 0 obj(.*?)endobj" % number, data, re.S)[-1].strip()


def append(
    data: bytes, objects: dict[int, bytes], root: bytes = b"", extra: bytes = b"", free: tuple[int, ...] = ()
) -> bytes:
    """One more incremental update: a classic table with these objects."""
    out = bytearray(data if data.endswith(b"\n") else data + b"\n")
    rows = []
    for number, body in objects.items():
        rows.append((number, b"%010d 00000 n \n" % len(out)))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    rows += [(number, b"0000000000 00001 f \n") for number in free]
    at = len(out)
    out += b"xref\n"
    for number, row in sorted(rows):
        out += b"%d 1\n" % number + row
    total = max([size(data), *(number + 1 for number in objects)])
    out += b"trailer\n<< /Size %d /Root %s /Prev %d %s>>\n" % (total, root or last_root(data), startxref(data), extra)
    out += b"startxref\n%d\n%%%%EOF\n" % at
    return bytes(out)


def root_number(data: bytes) -> int:
    return int(last_root(data).split()[0])


def page_number(data: bytes) -> int:
    """The number of the first page object."""
    return next(
        int(found) for found in re.findall(rb"(\d+) 0 obj\s*<<(?:(?!endobj).)*?/Type\s*/Page\b(?!s)", data, re.S)
    )


def with_key(body: bytes, key: bytes, value: bytes) -> bytes:
    """A dictionary body with one key set anew."""
    body = re.sub(rb"/%s\s*(?:\[[^\]]*\]|\d+ \d+ R|/[^\s/<>\[\]]+|<<.*?>>)" % key, b"", body, count=1, flags=re.S)
    at = body.rindex(b">>")
    return body[:at] + b" /" + key + b" " + value + b" " + body[at:]


OVERLAY = b"<< /Length 62 >>\nstream\nBT /F1 40 Tf 100 500 Td (Changed after signing) Tj ET 1 0 0 rg     \nendstream"


Attack = Callable[[bytes], bytes]
