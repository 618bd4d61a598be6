"""A message on its way through the house, one type per stage of its life.

`Envelope` and `Origin` are what the dialogue told us; `Received` adds the bytes. What is inside the bytes is not known
here: `mime.py` reads it, in a worker process.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from zoneinfo import ZoneInfo

#: Times are shown, and months are cut, in the time of Vietnam (rules.md 3.5).
VIETNAM = ZoneInfo("Asia/Ho_Chi_Minh")


@dataclass(frozen=True, slots=True)
class Address:
    """An e-mail address as SMTP carries it. `local` keeps its case; `domain` is lower case, U-labels as given.

    RFC 5321 section 4.1.2. `Postmaster` without a domain has an empty `domain`.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def key(self) -> str:
        """Lower-cased spelling for look-ups: mailboxes of one domain that differ in case alone do not occur."""
        return str(self).lower()


@dataclass(frozen=True, slots=True)
class NullSender:
    """The reverse-path `<>` (RFC 5321 section 4.5.5): a bounce or notice, which never gets an answer."""

    key = ""

    def __str__(self) -> str:
        return ""


Sender = Address | NullSender


@dataclass(frozen=True, slots=True)
class Recipient:
    """A forward-path with its DSN parameters (RFC 3461) as given: `notify` as `SUCCESS,FAILURE`, `orcpt` undecoded."""

    address: Address
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """RFC 5321 envelope. `ret`, `envid` (DSN), `smtputf8` and `body` (7BIT, 8BITMIME) are the parameters of MAIL."""

    sender: Sender
    recipients: tuple[Recipient, ...]
    ret: str = ""
    envid: str = ""
    smtputf8: bool = False
    body: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message came from.

    channel: `submission` (a member of staff, authenticated), `relay` (another server), `filter` (a mail server that
    asks us as its content filter), `imap` (read from a mailbox).
    peer: address of the connecting host. client: the original client's address when a trusted host told it
    (XFORWARD, XCLIENT, PROXY), else the same as `peer`. trusted: the peer is one of our own servers.
    next_hop: name of the hop that takes everything back, when we are another server's content filter.
    """

    channel: str
    peer: str
    helo: str = ""
    tls: str = ""
    login: str = ""
    client: str = ""
    client_name: str = ""
    protocol: str = "ESMTP"
    trusted: bool = False
    next_hop: str = ""


class AuthResult(StrEnum):
    """What the server that knows the passwords says of a login. UNAVAILABLE and LOCKED are worth another try later."""

    GOOD = "good"
    BAD = "bad"
    LOCKED = "locked"
    UNAVAILABLE = "unavailable"


class Body(Protocol):
    """The received bytes: dot-unstuffed, CRLF line ends, never changed. In memory when small, else spilled under a
    one-time key (design.md section 2), so read it in pieces where size matters."""

    size: int
    sha256: str

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]: ...

    def read(self) -> bytes: ...

    def close(self) -> None:
        """Forget the bytes (and the one-time key). Safe to call twice."""


@dataclass(slots=True)
class MemoryBody:
    """A body small enough to stay in memory."""

    data: bytes
    sha256: str
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.data)

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        for start in range(0, len(self.data), size):
            yield self.data[start : start + size]

    def read(self) -> bytes:
        return self.data

    def close(self) -> None:
        self.data = b""


@dataclass(frozen=True, slots=True)
class Received:
    """One message as taken at the door, not judged yet. `at` is timezone-aware."""

    case: str
    at: dt.datetime
    envelope: Envelope
    origin: Origin
    body: Body


@dataclass(frozen=True, slots=True)
class Polled:
    """A message read from a mailbox. role: `inbox`, `sent` or `other`; at: the server's INTERNALDATE, or now when it
    has none that can be true; history: it was there before the mailbox was first connected; journal: the mailbox holds
    journal reports."""

    body: Body
    account: str
    role: str
    at: dt.datetime
    server: str
    tls: str = ""
    history: bool = False
    journal: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a polled message. case: the archived message, or the tombstone of a secret; digest: SHA-256, of
    a secret an HMAC; offends: its verdict asks for an act on the mailbox."""

    case: str
    digest: str
    secret: bool = False
    offends: bool = False


_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base 32: no I, L, O, U to misread over a telephone


def new_case(now: float | None = None) -> str:
    """A new case id: 16 letters and digits, sorted by time (milliseconds), unique by 32 random bits.

    Bound to every log line, shown in replies, notices and headers.
    """
    number = (int((time.time() if now is None else now) * 1000) << 32) | int.from_bytes(os.urandom(4), "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(75, -1, -5))
