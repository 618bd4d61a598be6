"""Messages as the archive gets them, for tests and measurements: no policy, no inspection, only their results."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from gateway import database as db
from gateway.archive import Archive, Case, Count, Notice, Owed
from gateway.config import Gateway
from gateway.inspection.findings import Document, DocumentField, FileFacts, Inspection, Mailbox, MessageFacts
from gateway.message import VIETNAM, Address, Envelope, MemoryBody, Origin, Received, Recipient, new_case
from gateway.store import Store


class Disposition(IntEnum):
    DELIVER = 1
    RETURN = 4

    @property
    def text(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Found:
    rule: str
    disposition: Disposition
    evidence: str = ""
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipientVerdict:
    address: str
    disposition: Disposition
    agency: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    disposition: Disposition = Disposition.DELIVER
    findings: tuple[Found, ...] = ()
    recipients: tuple[RecipientVerdict, ...] = ()
    message_class: str = "OFFICIAL_DOC"
    profile: str = "national_2026"
    delivery_mode: str = ""
    policy_digest: str = "d" * 64
    agency: str = "so-tttt"
    document: Document | None = None
    urgency: str = ""
    headers: tuple[tuple[str, str], ...] = (("X-VBDT-Class", "official"),)
    acknowledge: bool = False


SETTINGS = Gateway.model_validate(
    {
        "hostname": "mail.tinh.gov.vn",
        "data": "data",
        "listeners": [{"kind": "relay", "port": 0}],
        "next_hops": [{"name": "hop", "host": "127.0.0.1"}],
    }
)
AT = dt.datetime(2026, 11, 20, 8, 30, tzinfo=VIETNAM)


def open_archive(folder: Path) -> Archive:
    return Archive(db.Database.open(db.sqlite_url(folder / "gateway.db")), Store(folder / "blobs"), SETTINGS)


async def close(archive: Archive) -> None:
    await archive.close()
    archive.database.close()


def mail(number: int = 1, size: int = 0) -> bytes:
    head = f"Message-ID: <{number}@tinh.gov.vn>\r\nSubject: thu {number}\r\n\r\n"
    return head.encode() + (b"x" * 76 + b"\r\n") * (size // 78)


def case(
    data: bytes = b"",
    *,
    number: int = 1,
    sender: str = "van.thu@so-tttt.tinh.gov.vn",
    to: tuple[str, ...] = ("ubnd@tinh.gov.vn",),
    state: str = "queued",
    direction: str = "out",
    code: str = "14/CT-UBND",
    subject: str = "Chỉ thị về văn bản điện tử",
    texts: dict[str, str] | None = None,
    notices: tuple[Notice, ...] = (),
    counts: tuple[Count, ...] | None = None,
    files: tuple[FileFacts, ...] = (),
    at: dt.datetime = AT,
    rules: tuple[str, ...] = (),
) -> Case:
    data = data or mail(number)
    sha = hashlib.sha256(data).hexdigest()

    def address(text: str) -> Address:
        local, _, domain = text.rpartition("@")
        return Address(local, domain)

    envelope = Envelope(address(sender), tuple(Recipient(address(one)) for one in to))
    received = Received(
        new_case(), at, envelope, Origin("submission", "127.0.0.1", login=sender), MemoryBody(data, sha)
    )
    if counts is None:
        key = "|".join((sha, sender.lower(), direction, "so-tttt", "sent", ""))
        counts = (Count(key, "sent", "so-tttt", direction, "OFFICIAL_DOC", Verdict().profile),)
    verdict = Verdict(
        document=Document(
            code=DocumentField(value=code),
            kind=DocumentField(value="CT"),
            date=DocumentField(value="2026-11-20"),
            abstract=DocumentField(value="Về việc sử dụng văn bản điện tử"),
            signer=DocumentField(value="Lê Văn Đ"),
            issuing_agency=DocumentField(value="UBND TỈNH"),
        ),
        findings=tuple(Found(rule, Disposition.DELIVER) for rule in rules),
        recipients=tuple(RecipientVerdict(one, Disposition.DELIVER) for one in to),
    )
    inspection = Inspection(
        message=MessageFacts(subject=subject, from_=(Mailbox(address=sender),), message_id=f"<{number}@tinh.gov.vn>"),
        files=files,
        texts=texts or {},
    )
    owed = tuple(Owed(one, "", "", "ubnd", "deliver", state, "hop") for one in to)
    return Case(received, direction, inspection, verdict, b"Received: x\r\n", owed, notices, counts, '{"rules":[]}')
