"""What travels on the wire of SMTP: the end-of-data reader, the body it fills, and the grammar of addresses.

Pure of dialogue and of asyncio: bytes in, values or a `Refused` out. `smtp_in.py` speaks; this file only reads.
RFC 5321 (SMTP), 6531 (SMTPUTF8), 1870 (SIZE), 3461 (DSN parameters), 4954 (AUTH=). Each deviation is in
docs/protocol.md with its reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import tempfile
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import idna
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from gateway.errors import Reply
from gateway.message import Address, Body, MemoryBody, NullSender, Recipient, Sender


class Refused(Exception):
    """A command or a message that cannot be taken, with the reply that says so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


# --- the body ---------------------------------------------------------------------------------------------------------

#: Once a body is on disk, it is written in pieces of this many bytes: few thread changes, little memory.
SPILL_PIECE = 256 << 10
#: Pieces below this are put together: octets that come one by one would cost forty times their size as objects.
SMALL_PIECE = 2048
#: A body below this stays in memory even when the pool is used up: 1,000 connections then hold 16 MB at most.
ALWAYS_MEMORY = 16 << 10
#: Bytes of bodies that all connections together hold in memory before larger ones are spilled early. From the target
#: of reliability.md R12: 200 MB for the whole process with a thousand connections.
POOL = 64 << 20

END = b"\r\n.\r\n"


class Pool:
    """How many bytes of bodies lie in memory, over all connections."""

    def __init__(self, limit: int = POOL) -> None:
        self.limit = limit
        self.used = 0
        self._lock = threading.Lock()

    def add(self, octets: int) -> None:
        """Count octets in, or out when negative."""
        with self._lock:
            self.used += octets


class _PooledBody(MemoryBody):
    """A body in memory that gives its bytes back to the pool when it is closed or forgotten."""

    def __init__(self, data: bytes, sha256: str, pool: Pool) -> None:
        super().__init__(data, sha256)
        self._pool: Pool | None = pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.add(-self.size)
            self._pool = None
        super().close()

    def __del__(self) -> None:
        self.close()


class SpilledBody:
    """A large body in a file that has no name, under an AES-256-CTR key that is in memory only and used once.

    CTR without authentication: nobody else can write to the file, and the digest over the plain bytes is kept.
    """

    def __init__(self, handle: int, key: bytearray, size: int, sha256: str) -> None:
        self._handle = handle
        self._key = key
        self.size = size
        self.sha256 = sha256

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """The plain bytes in pieces. Raises OSError when the disk fails or the body was closed."""
        cipher = _cipher(self._key).decryptor()
        offset = 0
        while offset < self.size:
            if self._handle < 0:
                raise OSError("the body was closed")
            piece = os.pread(self._handle, min(size, self.size - offset), offset)
            if not piece:
                raise OSError("the spilled body ends early")
            offset += len(piece)
            yield cipher.update(piece)

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            self._key[:] = bytes(len(self._key))

    def __del__(self) -> None:
        self.close()


def _cipher(key: bytearray) -> Cipher[modes.CTR]:
    # A key for one body only, so the counter may start at nought.
    return Cipher(algorithms.AES(bytes(key)), modes.CTR(bytes(16)))


def _nameless_file(folder: Path) -> int:
    """A file for reading and writing that no directory lists. Raises OSError."""
    with contextlib.suppress(OSError, AttributeError):  # not every file system knows O_TMPFILE
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    handle, name = tempfile.mkstemp(dir=folder)
    Path(name).unlink()
    return handle


class BodyWriter:
    """Takes the bytes of one message and becomes a `Body`.

    folder: where large bodies are spilled. memory: bytes that may stay in memory. `write` never blocks; when
    `wants_spill` is true the caller runs `spill` in a thread (it writes to the disk) before it writes more. Who is in
    a thread already uses `put`.
    """

    def __init__(self, folder: Path, memory: int, pool: Pool) -> None:
        self._folder = folder
        self._memory = memory
        self._pool = pool
        self._digest = hashlib.sha256()
        self._pieces: list[bytes | bytearray] = []
        self._pending = 0
        self._handle = -1
        self._key = bytearray()
        self._cipher: CipherContext | None = None
        self._lock = threading.Lock()  # a cancelled session must not close the file under a thread that writes to it
        self.size = 0

    def write(self, data: bytes) -> None:
        if data:
            self._digest.update(data)
            if len(data) >= SMALL_PIECE:
                self._pieces.append(data)
            elif self._pieces and isinstance(self._pieces[-1], bytearray):
                self._pieces[-1] += data
            else:
                self._pieces.append(bytearray(data))
            self._pending += len(data)
            self._pool.add(len(data))
            self.size += len(data)

    def put(self, data: bytes) -> None:
        """`write`, and `spill` when it is wanted. Blocks. Raises OSError."""
        self.write(data)
        if self.wants_spill:
            self.spill()

    @property
    def wants_spill(self) -> bool:
        if self._handle >= 0:
            return self._pending >= SPILL_PIECE
        return self._pending > self._memory or (self._pending > ALWAYS_MEMORY and self._pool.used > self._pool.limit)

    def spill(self) -> None:
        """Encrypt what is pending and write it to the nameless file. Blocks. Raises OSError."""
        with self._lock:
            if self._cipher is None:
                self._key = bytearray(os.urandom(32))
                self._handle = _nameless_file(self._folder)
                self._cipher = _cipher(self._key).encryptor()
            while self._pieces:
                view = memoryview(self._cipher.update(self._pieces.pop(0)))
                while view:
                    view = view[os.write(self._handle, view) :]
            self._pool.add(-self._pending)
            self._pending = 0

    def finish(self) -> Body:
        """The body; the writer is empty afterwards. Blocks if a part was spilled and another is pending."""
        sha256 = self._digest.hexdigest()
        if self._handle < 0:
            data = bytes(self._pieces[0]) if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._pending = 0  # the pool's bytes go with the body
            return _PooledBody(data, sha256, self._pool)
        if self._pending:
            self.spill()
        handle, self._handle = self._handle, -1
        return SpilledBody(handle, self._key, self.size, sha256)

    @property
    def spilled(self) -> bool:
        return self._handle >= 0

    def discard(self) -> None:
        """Forget everything. Safe to call twice, and after `finish`."""
        with self._lock:
            self._pieces.clear()
            self._pool.add(-self._pending)
            self._pending = 0
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
                self._key[:] = bytes(len(self._key))


# --- the end of data --------------------------------------------------------------------------------------------------

BARE_LINE_END = Reply(550, "Message refused: it contains CR or LF outside a CRLF pair", "5.2")
NUL_BYTE = Reply(550, "Message refused: it contains a NUL byte", "6.0")
LINE_TOO_LONG = Reply(550, "Message refused: it contains a line that is too long", "6.0")
TOO_LARGE = Reply(552, "Message size exceeds fixed maximum message size", "3.4")

_GRAVITY = {LINE_TOO_LONG: 1, NUL_BYTE: 2, BARE_LINE_END: 3}  # the last two end the session

#: A refused message is read to its end, so that its bytes are never taken for commands, but not for ever.
DRAIN_FACTOR = 4


class DataReader:
    """Reads what follows `354` in blocks of any size, up to CRLF.CRLF, and undoes dot-stuffing (RFC 5321 4.5.2).

    Only CRLF ends a line. A CR or LF alone, a NUL, a line longer than `line_limit` octets or more than `size_limit`
    octets set `fault`; the bytes are then thrown away and reading goes on to the end of data. Any split of the same
    stream gives the same result. Memory is that of one block and at most four octets kept back.
    """

    def __init__(self, writer: BodyWriter, size_limit: int, line_limit: int) -> None:
        self._writer = writer
        self._size_limit = size_limit
        self._line_limit = line_limit
        self._kept = b"\r\n"  # the end of the DATA command counts as the line end before a first dot
        self._skip = 2  # ... and is no part of the message
        self._line = 0  # octets of the line that the last block left open
        self._size = 0
        self.fault: Reply | None = None
        self.rest = b""  # what came after the end of data: the next commands

    def feed(self, block: bytes) -> bool:
        """Take a block; true when the end of data was in it. What follows the end is in `rest`."""
        data = self._kept + block
        # Base64 has no dots: one fast search spares two slow ones for most blocks.
        dot = data.find(b".")
        stop = data.find(END, max(dot - 2, 0)) if dot >= 0 else -1
        if stop >= 0:
            self.rest = data[stop + 5 :]
            self._kept = b""
            data = data[: stop + 2]
        else:
            keep = _open_end(data)
            self._kept = data[len(data) - keep :]
            data = data[: len(data) - keep]
        self._take(data, dot >= 0)
        return stop >= 0

    @property
    def hopeless(self) -> bool:
        """True when a refused message has gone on for so long that its end is no longer awaited."""
        return self.fault is not None and self._size > DRAIN_FACTOR * self._size_limit

    def fail(self, reply: Reply) -> None:
        """Refuse the message, here or for a reason found elsewhere (disk full); reading goes on to the end.

        The gravest fault is the one that is told, so that it does not depend on how the octets were split.
        """
        if self.fault is None or _GRAVITY.get(reply, 0) > _GRAVITY.get(self.fault, 0):
            self.fault = reply
        self._writer.discard()

    def _take(self, data: bytes, dots: bool) -> None:
        # Every CRLF lies whole within `data`, because an open end is kept back: so counts are enough to see
        # a CR or LF that stands alone.
        pairs = data.count(b"\r\n")
        if data.count(b"\n") != pairs or data.count(b"\r") != pairs:
            self.fail(BARE_LINE_END)
        if b"\0" in data:
            self.fail(NUL_BYTE)
        if self._too_long(data):
            self.fail(LINE_TOO_LONG)
        if dots:
            data = data.replace(b"\r\n.", b"\r\n")
        if self._skip and data:
            data = data[self._skip :]
            self._skip = 0
        self._size += len(data)
        if self._size > self._size_limit:
            self.fail(TOO_LARGE)
        if self.fault is None:
            self._writer.write(data)

    def _too_long(self, data: bytes) -> bool:
        limit = self._line_limit
        first = data.find(b"\n")
        if first < 0:
            self._line += len(data)
            return self._line > limit
        if self._line + first - 1 > limit:
            return True
        start = first + 1
        while len(data) - start > limit:
            end = data.rfind(b"\n", start, start + limit + 2)
            if end < 0:
                return True
            start = end + 1
        self._line = len(data) - 1 - max(data.rfind(b"\n", start), start - 1)
        return False


def _open_end(data: bytes) -> int:
    """How many octets at the end of `data` may be the beginning of the end of data."""
    for length in (4, 3, 2, 1):
        if data.endswith(END[:length]):
            return length
    return 0


# --- addresses --------------------------------------------------------------------------------------------------------

# Non-ASCII characters that may stand in an address (RFC 6531 3.3 with RFC 3629): no C1 controls, no separators, no
# characters that change the direction of writing or cannot be seen, no surrogates, no private use.
_BAD_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = r'"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*"'
_ROUTE = r"@[^\s<>@,:\[\]]+(?:,@[^\s<>@,:\[\]]+)*:"
_PATH = re.compile(
    rf"<(?P<route>{_ROUTE})?(?P<local>{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@(?P<domain>\[[!-Z^-~]+\]|[^\s<>@\[\]\\\"(),:;]+)>"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

PATH_LIMIT = 256  # RFC 5321 4.5.3.1.3, with the angle brackets
LOCAL_LIMIT = 64  # RFC 5321 4.5.3.1.1; asked of recipients only, bounce senders (VERP, SRS, BATV) really are longer
DOMAIN_LIMIT = 253  # RFC 1035 2.3.4 in text form

BAD_SENDER = Reply(501, "Bad sender address syntax", "1.7")
BAD_RECIPIENT = Reply(501, "Bad recipient address syntax", "1.3")
NEEDS_SMTPUTF8 = Reply(553, "Internationalized addresses need the SMTPUTF8 parameter of MAIL", "6.7")
BAD_PARAMETER = Reply(501, "Bad parameter syntax", "5.4")
UNKNOWN_PARAMETER = Reply(555, "Parameter not recognized or not implemented", "5.4")


def domain_key(domain: str) -> str:
    """The one spelling of a domain for comparing: lower-case A-labels without a dot at the end."""
    domain = domain.rstrip(".").lower()
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return domain


def parse_domain(text: str) -> str | None:
    """A domain or address literal as it will be kept: lower case, mapped by UTS 46. None when it is none."""
    if text.startswith("["):
        inner = text[1:-1]
        try:
            if inner[:5].lower() == "ipv6:":
                return f"[ipv6:{ipaddress.IPv6Address(inner[5:]).compressed}]"
            return f"[{ipaddress.IPv4Address(inner)}]"
        except ValueError:
            return None
    if not text.isascii():
        # UTS 46 brings full-width letters and ideographic stops to the form that look-ups know.
        try:
            text = idna.uts46_remap(text, std3_rules=True)
            encoded = idna.encode(text).decode("ascii")
        except idna.IDNAError:
            return None
    else:
        encoded = text = text.lower()
    if len(encoded) > DOMAIN_LIMIT or not all(map(_LABEL.fullmatch, encoded.split("."))):
        return None
    return text


def _parse_local(text: str) -> str:
    """The one spelling of a local part: `"john.doe"` and `john.doe` are the same mailbox (RFC 5321 4.1.2)."""
    if text.startswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
        if not _DOT_STRING.fullmatch(text):
            return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
    return text


def parse_path(text: str, bad: Reply) -> tuple[Address, str]:
    """`<local@domain>` at the beginning of `text`, and what follows. Source routes are checked and dropped
    (RFC 5321 4.1.1.3). Raises Refused(bad)."""
    match = _PATH.match(text)
    if match is None or len(match[0].encode()) > PATH_LIMIT:
        raise Refused(bad)
    if any(letter > "~" and unicodedata.category(letter) in _BAD_CATEGORIES for letter in match[0]):
        raise Refused(bad)
    domain = parse_domain(match["domain"])
    if domain is None:
        raise Refused(bad)
    if match["route"] and not all(parse_domain(hop[1:]) for hop in match["route"][:-1].split(",")):
        raise Refused(bad)
    local = _parse_local(match["local"])
    if local == '""':
        raise Refused(bad)
    return Address(local, domain), text[match.end() :]


# --- commands ---------------------------------------------------------------------------------------------------------

_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*")
_VALUE = re.compile(r"[!-<>-~\x80-\U0010ffff]+")  # RFC 5321 4.1.2 esmtp-value, RFC 6531 3.3
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")  # RFC 3461 4
_NOTIFY = {"SUCCESS", "FAILURE", "DELAY"}
_ORCPT = re.compile(r"(rfc822|utf-8);(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mail:
    """A MAIL command. size: octets as announced, None when not. `auth` (RFC 4954) is checked and not kept: it says
    who another server believes the sender to be, and we believe nobody."""

    sender: Sender
    size: int | None = None
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


def xtext(value: str) -> str | None:
    """Decode RFC 3461 xtext to printable text; None when it is not xtext or hides a control character."""
    if not _XTEXT.fullmatch(value):
        return None
    try:
        text = re.sub(rb"\+([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), value.encode("ascii")).decode(
            "utf-8"
        )
    except UnicodeError:
        return None
    return text if text.isprintable() else None


def _text(arguments: bytes) -> str:
    try:
        text = arguments.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(Reply(501, "Command is neither ASCII nor UTF-8", "5.2")) from None
    return text if text.isascii() else unicodedata.normalize("NFC", text)  # RFC 6532 3.1


def _parameters(text: str, extended: bool) -> dict[str, str | None]:
    """` KEY=value KEY …` to a dictionary with upper-case keys. Raises Refused for bad or doubled ones."""
    if not text.strip(" "):
        return {}
    if text[0] != " ":
        raise Refused(BAD_PARAMETER)
    if not extended:
        raise Refused(Reply(501, "Parameters need EHLO", "5.4"))
    found: dict[str, str | None] = {}
    for item in filter(None, text.split(" ")):
        key, equals, value = item.partition("=")
        key = key.upper()
        if not _KEYWORD.fullmatch(key) or (equals and not _VALUE.fullmatch(value)) or key in found:
            raise Refused(BAD_PARAMETER)
        found[key] = value if equals else None
    return found


def _after(keyword: str, text: str) -> str:
    # A space behind the colon is against RFC 5321 3.3 and sent by so many programs that everyone takes it.
    if text[: len(keyword)].upper() != keyword:
        raise Refused(Reply(501, f"Syntax: {'MAIL' if keyword == 'FROM:' else 'RCPT'} {keyword}<address>", "5.4"))
    return text[len(keyword) :].lstrip(" ")


def parse_mail(arguments: bytes, *, extended: bool = True) -> Mail:
    """What follows `MAIL `. Raises Refused."""
    text = _after("FROM:", _text(arguments))
    sender: Sender
    if text.startswith("<>"):
        sender, rest = NullSender(), text[2:]
    else:
        sender, rest = parse_path(text, BAD_SENDER)
    size: int | None = None
    body = ret = envid = ""
    smtputf8 = False
    for key, value in _parameters(rest, extended).items():
        if key == "SIZE":
            if value is None or not re.fullmatch(r"[0-9]{1,20}", value):
                raise Refused(BAD_PARAMETER)
            size = int(value)
        elif key == "BODY":
            body = (value or "").upper()
            if body not in ("7BIT", "8BITMIME"):
                raise Refused(BAD_PARAMETER)
        elif key == "SMTPUTF8":
            if value is not None:
                raise Refused(BAD_PARAMETER)
            smtputf8 = True
        elif key == "RET":
            ret = (value or "").upper()
            if ret not in ("FULL", "HDRS"):
                raise Refused(BAD_PARAMETER)
        elif key == "ENVID":
            envid = value or ""
            if not envid or len(envid) > 100 or not xtext(envid):
                raise Refused(BAD_PARAMETER)
        elif key == "AUTH":
            if not value or not xtext(value):
                raise Refused(BAD_PARAMETER)
        else:
            raise Refused(UNKNOWN_PARAMETER)
    if isinstance(sender, Address) and not smtputf8 and not str(sender).isascii():
        raise Refused(NEEDS_SMTPUTF8)
    return Mail(sender, size, body, smtputf8, ret, envid)


def parse_rcpt(arguments: bytes, *, smtputf8: bool = False, extended: bool = True) -> Recipient:
    """What follows `RCPT `; smtputf8: whether MAIL asked for it. Raises Refused."""
    text = _after("TO:", _text(arguments))
    if text[:12].lower() == "<postmaster>":  # RFC 5321 4.5.1: always, with no domain
        address, rest = Address("postmaster", ""), text[12:]
    else:
        address, rest = parse_path(text, BAD_RECIPIENT)
    if len(address.local.encode()) > LOCAL_LIMIT:
        raise Refused(BAD_RECIPIENT)
    notify = orcpt = ""
    for key, value in _parameters(rest, extended).items():
        if key == "NOTIFY":
            words = (value or "").upper().split(",")
            if words != ["NEVER"] and (len(set(words)) < len(words) or not set(words) <= _NOTIFY):
                raise Refused(BAD_PARAMETER)
            notify = ",".join(words)
        elif key == "ORCPT":
            match = _ORCPT.fullmatch(value or "")
            # utf-8 addresses may be written plainly when SMTPUTF8 was asked for (RFC 6533 3)
            if match is None or len(match[0]) > 500 or not (xtext(match[2]) or (smtputf8 and not match[2].isascii())):
                raise Refused(BAD_PARAMETER)
            orcpt = match[0]
        else:
            raise Refused(UNKNOWN_PARAMETER)
    if not smtputf8 and not str(address).isascii():
        raise Refused(NEEDS_SMTPUTF8)
    return Recipient(address, notify, orcpt)


def parse_attributes(arguments: bytes, known: frozenset[str]) -> dict[str, str]:
    """What follows `XFORWARD ` or `XCLIENT `: decoded values; `[UNAVAILABLE]` and `[TEMPUNAVAIL]` become empty.
    Raises Refused."""
    found: dict[str, str] = {}
    for item in filter(None, _text(arguments).split(" ")):
        key, equals, value = item.partition("=")
        decoded = xtext(value.upper() if value.startswith("[") else value)
        if key.upper() not in known or not equals or decoded is None or len(decoded) > 255:
            raise Refused(BAD_PARAMETER)
        found[key.upper()] = "" if decoded in ("[UNAVAILABLE]", "[TEMPUNAVAIL]") else decoded
    if not found:
        raise Refused(BAD_PARAMETER)
    return found
