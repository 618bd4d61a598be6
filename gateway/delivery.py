"""One attempt at one next hop: SMTP (RFC 5321) or LMTP (RFC 2033), an outcome for every recipient.

The client is our own because the libraries change what they carry: smtplib passes bare CR and LF on, aiosmtplib
rewrites them. Here the bytes leave exactly as they were received, under the trace fields, or they do not leave at all
(`Content.fault`).

How an answer is read:

- 2xx to the end of data is `delivered`; 5xx that speaks of the message or the recipient is `failed`.
- Everything else is `deferred`: 4xx, silence, hang-up, garbage, a failed TLS handshake; also 5xx to the greeting, EHLO,
  STARTTLS or AUTH and the authentication codes of RFC 4954, because they speak of two servers of the same office and
  not of the mail: a slip in a configuration must not send back a whole queue.
- What is cut off between the final dot and its answer is `deferred` and `interrupted`: the hop may have it (RFC 1047).
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.config import NextHop
from gateway.errors import Reply

BLOCK = 1 << 18  # bytes handed to the transport at once
_LONGEST_LINE = 4096  # of a reply; RFC 5321 4.5.3.1.5 says 512, real hops exceed it
_MOST_LINES = 200  # of one reply
_LIFETIME = 300.0  # seconds one connection is used again (Postfix smtp_connection_reuse_time_limit)
_AUTHENTICATION = {530, 534, 535, 538}  # RFC 4954 section 6: about the session, not about the mail
_STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for a whole reply, however slowly it drips (RFC 5321 section 4.5.3.2)."""

    connect: float = 30
    greeting: float = 300
    tls: float = 60
    command: float = 300  # EHLO, MAIL, RCPT
    data: float = 120
    block: float = 180  # for one block to leave
    end: float = 600  # after the final dot: a hasty client makes duplicates (RFC 1047)
    quit: float = 5


@dataclass(frozen=True, slots=True)
class Target:
    """One recipient of an attempt, with its DSN parameters as the sender gave them (RFC 3461)."""

    address: str
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient. result: `delivered`, `deferred` or `failed`.

    reply: one line, the hop's own words or, when it had none, ours with a status code in front. status: RFC 3463.
    remote: name and address of the hop. interrupted: the hop may have taken the message all the same.
    hop_down: nothing is known about this mail, the hop itself could not be used. dsn: the hop took the DSN parameters
    over, so that a report of success is its duty (RFC 3461 section 6.2). from_hop: `reply` is the hop's, not ours.
    """

    address: str
    result: str
    reply: str
    status: str = ""
    remote: str = ""
    interrupted: bool = False
    hop_down: bool = False
    dsn: bool = False
    from_hop: bool = False


class Content:
    """The bytes of one transaction, looked at before any of them leaves.

    fault: why they must not leave, empty when they may. eight_bit: any byte above 127; wide_header: one in the header.
    Small messages stay in memory, large ones are read again from `again` while they are sent.
    """

    __slots__ = ("_again", "_blocks", "eight_bit", "fault", "size", "wide_header")

    def __init__(self, trace: bytes, body: Iterable[bytes], again: Callable[[], Iterator[bytes]] | None = None) -> None:
        """`body` is read once, here (a thread is the place for large ones); `again` gives it a second time, and without
        it the blocks are kept. Raises what `body` raises."""
        blocks: list[bytes] = []
        self.size = 0
        self.eight_bit = self.wide_header = False
        in_header, last = True, b""
        feeds = breaks = returns = 0
        for block in _chain(trace, body):
            if not block:
                continue
            self.size += len(block)
            feeds += block.count(b"\n")
            returns += block.count(b"\r")
            breaks += block.count(b"\r\n") + (last == b"\r" and block[:1] == b"\n")
            if in_header:
                # A blank line cut in two by a block border is missed; the rest then counts as header, which is safe:
                # at worst SMTPUTF8 is asked for where 8BITMIME would have done.
                end = block.find(b"\r\n\r\n")
                header = block if end < 0 else block[:end]
                self.wide_header = self.wide_header or not header.isascii()
                in_header = end < 0
            self.eight_bit = self.eight_bit or not block.isascii()
            last = block[-1:]
            if again is None:
                blocks.append(block)
        if feeds != breaks or returns != breaks:
            self.fault = "a line of the message ends with a bare CR or LF"
        else:
            self.fault = ""
        self._blocks = blocks
        self._again = (lambda: _chain(trace, again())) if again is not None else None

    async def blocks(self) -> AsyncIterator[bytes]:
        if self._again is None:
            if self.size <= BLOCK:
                yield b"".join(self._blocks)
                return
            for block in self._blocks:
                yield block
            return
        source = iter(self._again())
        while block := await asyncio.to_thread(next, source, b""):
            yield block


def _chain(trace: bytes, body: Iterable[bytes]) -> Iterator[bytes]:
    if trace:
        yield trace
    yield from body


@dataclass(frozen=True, slots=True)
class Letter:
    """One message for one next hop: envelope and bytes. sender: empty for the null sender."""

    sender: str
    targets: tuple[Target, ...]
    content: Content
    ret: str = ""
    envid: str = ""
    smtputf8: bool = False


class DotStuffer:
    """Doubles the dot at the start of a line (RFC 5321 section 4.5.2), block by block."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, block: bytes) -> bytes:
        if not block:
            return block
        stuffed = block.replace(b"\r\n.", b"\r\n..")
        if self._tail == b"\r\n":
            if block[:1] == b".":
                stuffed = b"." + stuffed
        elif self._tail[-1:] == b"\r" and block[:2] == b"\n.":
            stuffed = b"\n." + stuffed[1:]
        self._tail = block[-2:] if len(block) > 1 else self._tail[-1:] + block
        return stuffed

    def end(self) -> bytes:
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


class _Broken(Exception):
    """The dialogue cannot go on. status: the RFC 3463 code that says how."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Refused(Exception):
    """The hop answered, and the answer ends the session before any mail was spoken of."""

    def __init__(self, reply: Reply, stage: str) -> None:
        super().__init__(stage)
        self.reply = reply
        self.stage = stage


class _TlsFailed(Exception):
    pass


class _Wire(asyncio.Protocol):
    """Lines in, blocks out, each with one deadline."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self.expected = 1  # replies on their way: whoever waits need not wake for each
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.expected == 1 or self.buffer.count(b"\n") >= self.expected or len(self.buffer) > _LONGEST_LINE:
            _release(self._reader)

    def eof_received(self) -> bool:
        self.gone = True
        _release(self._reader)
        return False  # close

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        _release(self._reader)
        _release(self._writer)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        _release(self._writer)

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.gone:
            self.transport.write(data)

    async def flushed(self, seconds: float, stage: str) -> None:
        """Until the kernel has taken enough to go on. Raises _Broken."""
        if self._paused and not self.gone:
            self._writer = self.loop.create_future()
            try:
                await self._within(self._writer, self.loop.time() + seconds, stage)
            finally:
                self._writer = None
        if self.gone:
            raise _Broken("4.4.2", f"lost connection {stage}")

    async def reply(self, seconds: float, stage: str) -> Reply:
        """One whole reply. Raises _Broken on silence, hang-up or garbage."""
        deadline = self.loop.time() + seconds
        code, texts = 0, []
        while True:
            end = self.buffer.find(b"\n")
            if end < 0 or end > _LONGEST_LINE:
                if len(self.buffer) > _LONGEST_LINE:
                    raise _Broken("4.5.0", f"reply line without end {stage}")
                if self.gone:
                    raise _Broken("4.4.2", f"lost connection {stage}")
                self._reader = self.loop.create_future()
                try:
                    await self._within(self._reader, deadline, stage)
                except _Broken:
                    if self.expected == 1 or b"\n" not in self.buffer:
                        raise
                    self.expected = 1  # some did come
                finally:
                    self._reader = None
                continue
            line = bytes(self.buffer[:end]).rstrip(b"\r")
            del self.buffer[: end + 1]
            head, sign = line[:3], line[3:4]
            if not (len(head) == 3 and head.isdigit() and b"200" <= head < b"600" and sign in (b"", b" ", b"-")):
                raise _Broken("4.5.0", f"unreadable reply {stage}: {_readable(line)[:80]}")
            if code and int(head) != code:
                raise _Broken("4.5.0", f"reply with two codes {stage}: {_readable(line)[:80]}")
            code = int(head)
            texts.append(_readable(line[4:]))
            if sign != b"-":
                self.expected = max(1, self.expected - 1)
                return Reply(code, "\n".join(texts))
            if len(texts) >= _MOST_LINES:
                raise _Broken("4.5.0", f"reply without end {stage}")

    async def _within(self, waiter: asyncio.Future[None], deadline: float, stage: str) -> None:
        timer = self.loop.call_at(deadline, _expire, waiter)
        try:
            await waiter
        except TimeoutError:
            raise _Broken("4.4.2", f"timed out {stage}") from None
        finally:
            timer.cancel()

    def abort(self) -> None:
        self.gone = True
        if self.transport is not None:
            self.transport.abort()


def _release(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


def _readable(raw: bytes) -> str:
    """A hop's words as text that harms no log: UTF-8 where it is, no control characters."""
    text = raw.decode("utf-8", "replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def one_line(reply: Reply) -> str:
    """`550 5.1.1 No such user` however many lines it had."""
    return f"{reply.code} {' '.join(part.strip() for part in reply.text.split(chr(10)))}".strip()


def status_of(reply: Reply) -> str:
    """The RFC 3463 status of a reply: its own when it agrees with the code, else the class alone."""
    digit = "4" if reply.code < 400 else str(reply.code // 100)
    if 200 <= reply.code < 300:
        digit = "2"
    found = _STATUS.match(reply.text)
    return found[0] if found and found[1] == digit else f"{digit}.0.0"


def tls_context(hop: NextHop) -> ssl.SSLContext:
    """The client side of the hop's TLS policy. Raises OSError (ssl.SSLError) for an unusable `ca`."""
    context = ssl.create_default_context(cafile=str(hop.ca) if hop.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if hop.tls != "verify":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def read_password(path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip("\r\n")


class Connection:
    """One persistent connection to a next hop, opened when first needed and again when it has gone stale.

    Not to be shared between tasks: each lane of the queue has as many as `hop.connections`.
    """

    def __init__(self, hop: NextHop, hostname: str, timeouts: Timeouts | None = None) -> None:
        self.hop = hop
        self.timeouts = timeouts or Timeouts()
        self._hostname = hostname
        self._wire: _Wire | None = None
        self._features: dict[str, str] = {}
        self._opened = 0.0
        self._dirty = False  # a transaction may be open at the hop: RSET first
        self._context: ssl.SSLContext | None = None
        self.remote = f"{hop.host}:{hop.port}"
        self.tls = ""
        self.sending = False  # content has begun to leave: a cut now may make a duplicate

    async def attempt(self, letter: Letter, before_data: Callable[[], Awaitable[None]] | None = None) -> list[Outcome]:
        """Offer one letter. Never raises for what a hop does; cancellation cuts the connection.

        before_data: awaited before DATA is sent, at the price of a round trip.
        Returns one outcome per target, in their order.
        """
        done: dict[Target, Outcome] = {}
        todo = list(letter.targets)
        self.sending = False
        if letter.content.fault:
            return [self._ours(target, "failed", "5.6.0", letter.content.fault) for target in todo]
        try:
            while todo:
                again = await self._round(letter, todo, done, before_data)
                todo = again if len(again) < len(todo) else []
        except BaseException:
            self.abort()  # `sending` stays as it is: the caller may ask
            raise
        return [done[target] for target in letter.targets]

    async def _round(
        self,
        letter: Letter,
        todo: list[Target],
        done: dict[Target, Outcome],
        before_data: Callable[[], Awaitable[None]] | None,
    ) -> list[Target]:
        """One transaction; returns the recipients that this hop takes in another one only (452, too many)."""
        for last_try in (False, True):
            used = self.open
            try:
                await self._ready()
            except _Refused as refusal:
                self.abort()
                text = f"{one_line(refusal.reply)} (in reply to {refusal.stage})"
                for target in todo:
                    status = "4" + status_of(refusal.reply)[1:]
                    done[target] = Outcome(
                        target.address, "deferred", text, status, self.remote, hop_down=True, from_hop=True
                    )
                return []
            except _Broken as broken:
                self.abort()
                for target in todo:
                    done[target] = self._ours(target, "deferred", broken.status, broken.text, hop_down=True)
                return []
            transaction = _Transaction(self, letter, todo, done, before_data)
            await transaction.run()
            self.sending = False
            if transaction.untouched and used and not last_try:
                continue  # the hop had closed a connection kept from before: nothing was said about this letter yet
            return transaction.again
        return []

    @property
    def open(self) -> bool:
        return (
            self._wire is not None
            and not self._wire.gone
            and not self._wire.buffer  # a hop that speaks unasked says good-bye (421)
            and self._wire.loop.time() - self._opened < _LIFETIME
        )

    async def _ready(self) -> None:
        """A connection after EHLO, TLS and AUTH. Raises _Refused or _Broken."""
        if self.open:
            return
        await self.close()
        try:
            await self._connect(tls=self.hop.tls != "none")
        except _TlsFailed as failed:
            self.abort()
            if self.hop.tls != "may":
                raise _Broken("4.7.5", f"TLS handshake failed: {failed}") from None
            await self._connect(tls=False)  # opportunistic: better in clear than not at all (RFC 7435)

    async def _connect(self, tls: bool) -> None:
        loop = asyncio.get_running_loop()
        hop, seconds = self.hop, self.timeouts
        self._dirty, self.tls = False, ""
        try:
            async with asyncio.timeout(seconds.connect):
                transport, wire = await loop.create_connection(lambda: _Wire(loop), hop.host, hop.port)
        except TimeoutError:
            raise _Broken("4.4.1", f"connect to {hop.host}:{hop.port}: timed out") from None
        except OSError as error:
            reason = error.strerror if error.strerror and not error.strerror.startswith("[") else str(error)
            raise _Broken("4.4.1", f"connect to {hop.host}:{hop.port}: {reason}") from None
        self._wire, self._opened = wire, loop.time()
        peer = transport.get_extra_info("peername")
        self.remote = f"{hop.host}[{peer[0]}]:{hop.port}" if peer else f"{hop.host}:{hop.port}"
        greeting = await wire.reply(seconds.greeting, "waiting for the greeting")
        if greeting.code != 220:
            raise _Refused(greeting, "greeting")
        await self._hello()
        if tls:
            await self._start_tls()
        if hop.login:
            await self._authenticate()

    async def _hello(self) -> None:
        seconds = self.timeouts.command
        verb = "LHLO" if self.hop.protocol == "lmtp" else "EHLO"
        reply = await self._command(f"{verb} {self._hostname}", seconds, f"after {verb}")
        self._features = {}
        if reply.code == 250:
            for line in reply.text.split("\n")[1:]:
                keyword, _, value = line.strip().partition(" ")
                if keyword.upper().startswith("AUTH="):  # the spelling of old servers
                    keyword, value = "AUTH", keyword[5:] + " " + value
                self._features[keyword.upper()] = value.strip()
            return
        if reply.permanent and verb == "EHLO" and reply.code != 521:
            reply = await self._command(f"HELO {self._hostname}", seconds, "after HELO")
        if reply.code != 250:
            raise _Refused(reply, verb)

    async def _start_tls(self) -> None:
        wire = self._wire
        assert wire is not None and wire.transport is not None
        required = self.hop.tls != "may"
        if "STARTTLS" not in self._features:
            if required:
                raise _Broken("4.7.4", "the next hop does not offer STARTTLS, which `tls` requires")
            return
        reply = await self._command("STARTTLS", self.timeouts.command, "after STARTTLS")
        if reply.code != 220:
            if required:
                raise _Refused(reply, "STARTTLS")
            return
        if wire.buffer:
            # Words after the go-ahead were put there by somebody else to be taken for the hop's (CVE-2011-0411).
            raise _TlsFailed("bytes of the next hop before the handshake")
        try:
            if self._context is None:
                self._context = await asyncio.to_thread(tls_context, self.hop)
            transport = await wire.loop.start_tls(
                wire.transport,
                wire,
                self._context,
                server_hostname=self.hop.host,
                ssl_handshake_timeout=self.timeouts.tls,
            )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise _TlsFailed(_readable(str(error).encode()) or type(error).__name__) from None
        if transport is None:  # the peer was gone before the handshake began
            raise _TlsFailed("connection lost")
        wire.transport = transport  # type: ignore[assignment]
        cipher = transport.get_extra_info("cipher")
        self.tls = f"{cipher[1]} {cipher[0]}" if cipher else "TLS"
        await self._hello()

    async def _authenticate(self) -> None:
        wire = self._wire
        assert wire is not None and wire.transport is not None
        peer = wire.transport.get_extra_info("peername")
        if not self.tls and not (peer and peer[0] in ("127.0.0.1", "::1")):
            raise _Broken("4.7.0", "no TLS to the next hop: the password was not sent")
        mechanisms = self._features.get("AUTH", "").upper().split()
        try:
            password = await asyncio.to_thread(read_password, self.hop.password_file) if self.hop.password_file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise _Broken("4.3.5", f"password_file cannot be read: {type(error).__name__}") from None
        seconds = self.timeouts.command
        if "PLAIN" in mechanisms:
            token = base64.b64encode(f"\0{self.hop.login}\0{password}".encode()).decode()
            reply = await self._command(f"AUTH PLAIN {token}", seconds, "after AUTH")
        elif "LOGIN" in mechanisms:
            reply = await self._command("AUTH LOGIN", seconds, "after AUTH")
            for word in (self.hop.login, password):
                if reply.code != 334:
                    break
                reply = await self._command(base64.b64encode(word.encode()).decode(), seconds, "after AUTH")
        else:
            raise _Broken("4.7.0", "the next hop offers neither AUTH PLAIN nor AUTH LOGIN")
        if reply.code != 235:
            raise _Refused(reply, "AUTH")

    async def _command(self, line: str, seconds: float, stage: str) -> Reply:
        assert self._wire is not None
        self._wire.write(line.encode() + b"\r\n")
        return await self._wire.reply(seconds, stage)

    def _ours(self, target: Target, result: str, status: str, text: str, **more: bool) -> Outcome:
        return Outcome(target.address, result, f"{status} {text}", status, self.remote, **more)

    def abort(self) -> None:
        """Cut the connection: nothing that was half said will be taken for whole."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    async def close(self) -> None:
        """QUIT, politely but not for long."""
        wire, self._wire = self._wire, None
        if wire is None:
            return
        try:
            if not wire.gone and not wire.buffer:
                wire.write(b"QUIT\r\n")
                await wire.reply(self.timeouts.quit, "after QUIT")
        except _Broken:
            pass
        finally:
            wire.abort()


class _Transaction:
    """MAIL to the end of data. Fills `done`; `untouched` tells that the connection died before a first answer."""

    def __init__(
        self,
        connection: Connection,
        letter: Letter,
        todo: list[Target],
        done: dict[Target, Outcome],
        before_data: Callable[[], Awaitable[None]] | None,
    ) -> None:
        assert connection._wire is not None
        self.connection = connection
        self.wire = connection._wire
        self.letter = letter
        self.todo = todo
        self.done = done
        self.before_data = before_data
        self.again: list[Target] = []
        self.untouched = False
        self.passes_dsn = "DSN" in connection._features

    async def run(self) -> None:
        if self._unfit():
            return
        self.untouched = True
        accepted: list[Target] = []
        try:
            await self._dialogue(accepted)
        except _Broken as broken:
            self.connection.abort()
            for target in self.todo:
                if target not in self.done:
                    self.done[target] = self.connection._ours(target, "deferred", broken.status, broken.text)

    def _unfit(self) -> bool:
        """What this hop cannot carry by its own word is refused here, before a byte is sent."""
        features, letter = self.connection._features, self.letter
        limit = features.get("SIZE", "")
        wide_envelope = not letter.sender.isascii() or any(not target.address.isascii() for target in self.todo)
        if limit.isdigit() and 0 < int(limit) < letter.content.size:
            fault = ("5.3.4", f"the message has {letter.content.size} bytes, the next hop takes {limit}")
        elif (wide_envelope or (letter.smtputf8 and letter.content.wide_header)) and "SMTPUTF8" not in features:
            fault = ("5.6.7", "the next hop does not offer SMTPUTF8, which this message needs")
        elif letter.content.eight_bit and "8BITMIME" not in features:
            # RFC 6152 section 3: convert or refuse; we change no byte.
            fault = ("5.6.3", "the next hop does not offer 8BITMIME, which this message needs")
        else:
            return False
        for target in self.todo:
            self.done[target] = self.connection._ours(target, "failed", *fault)
        return True

    def _mail(self) -> bytes:
        features, letter = self.connection._features, self.letter
        words = [f"MAIL FROM:<{letter.sender}>"]
        if "SIZE" in features:
            words.append(f"SIZE={letter.content.size}")
        if "8BITMIME" in features and letter.content.eight_bit:
            words.append("BODY=8BITMIME")
        if "SMTPUTF8" in features and (
            letter.smtputf8 or not letter.sender.isascii() or any(not target.address.isascii() for target in self.todo)
        ):
            words.append("SMTPUTF8")
        if self.passes_dsn and letter.ret:
            words.append(f"RET={letter.ret}")
        if self.passes_dsn and letter.envid:
            words.append(f"ENVID={letter.envid}")
        return " ".join(words).encode() + b"\r\n"

    def _rcpt(self, target: Target) -> bytes:
        line = f"RCPT TO:<{target.address}>"
        if self.passes_dsn and target.notify:
            line += f" NOTIFY={target.notify}"
        if self.passes_dsn and target.orcpt:
            line += f" ORCPT={target.orcpt}"
        return line.encode() + b"\r\n"

    async def _dialogue(self, accepted: list[Target]) -> None:
        connection, wire, seconds = self.connection, self.wire, self.connection.timeouts
        pipelined = "PIPELINING" in connection._features
        ahead = pipelined and self.before_data is None  # DATA may travel with MAIL and RCPT (RFC 2920)
        reset = b"RSET\r\n" if connection._dirty else b""
        connection._dirty = True
        if pipelined:
            wire.expected = bool(reset) + 1 + len(self.todo) + ahead
            wire.write(b"".join([reset, self._mail(), *map(self._rcpt, self.todo), b"DATA\r\n" if ahead else b""]))
        else:
            if reset:
                wire.write(reset)
                await wire.reply(seconds.command, "after RSET")
                self.untouched, reset = False, b""
            wire.write(self._mail())
        if reset:
            await wire.reply(seconds.command, "after RSET")
            self.untouched = False
        mail = await self._answer(seconds.command, "after MAIL FROM")
        self.untouched = False
        if not pipelined and mail.code != 250:
            return self._settle(self.todo, mail)
        for target in self.todo:
            if not pipelined:
                wire.write(self._rcpt(target))
            reply = await self._answer(seconds.command, "after RCPT TO")
            if mail.code != 250:
                self._settle([target], mail)
            elif reply.code in (250, 251):
                accepted.append(target)
            elif reply.code in (452, 552) and accepted:
                self.again.append(target)  # too many for one transaction (RFC 5321 section 4.5.3.1.10)
            else:
                self._settle([target], reply)
        for target in self.again:  # stands if no further round can be made
            self.done[target] = connection._ours(target, "deferred", "4.5.3", "too many recipients for the next hop")
        if not accepted and not ahead:
            return
        if not ahead:
            if self.before_data is not None:
                await self.before_data()
            wire.write(b"DATA\r\n")
        go = await self._answer(seconds.data, "after DATA")
        if go.code == 354 and mail.code == 250:
            await self._content(accepted)
        elif go.code == 354 or go.code < 400:
            raise _Broken("4.5.0", f"unexpected reply after DATA: {go.code}")
        else:
            self._settle(accepted, go)

    async def _answer(self, seconds: float, stage: str) -> Reply:
        reply = await self.wire.reply(seconds, stage)
        if reply.code == 421:
            self._farewell(reply)
        if reply.code == 250:
            return reply
        if 200 <= reply.code < 400 and reply.code not in (251, 354):
            raise _Broken("4.5.0", f"unexpected reply {stage}: {reply.code}")
        if reply.code == 354 and stage != "after DATA":
            raise _Broken("4.5.0", f"unexpected reply {stage}: 354")
        return reply

    def _farewell(self, reply: Reply) -> None:
        """421: the hop closes; whoever has no answer yet has this one."""
        again = set(self.again)
        for target in self.todo:
            if target not in self.done or target in again:
                self.done[target] = self._outcome(target, reply)
        self.again = []
        raise _Broken("4.4.2", "the next hop closed the session")

    async def _content(self, accepted: list[Target]) -> None:
        connection, wire, seconds = self.connection, self.wire, self.connection.timeouts
        if not accepted:
            wire.write(b".\r\n")  # every recipient was refused after DATA was already on its way (RFC 2920 3.1)
            await wire.reply(seconds.end, "after the empty message")
            connection._dirty = False
            return
        stuffer = DotStuffer()
        if wire.buffer:  # what is here already cannot be about a message that nobody sent yet
            raise _Broken("4.5.0", "a reply before the message")
        connection.sending = True
        try:
            if self.letter.content.size <= BLOCK:
                async for block in self.letter.content.blocks():
                    wire.write(stuffer.feed(block) + stuffer.end())
            else:
                async for block in self.letter.content.blocks():
                    wire.write(stuffer.feed(block))
                    await wire.flushed(seconds.block, "while sending the message")
                if wire.buffer[:1] in (b"2", b"3"):  # taken before it was whole: then not taken
                    raise _Broken("4.5.0", "a reply before the end of the message")
                wire.write(stuffer.end())
                await wire.flushed(seconds.block, "while sending the message")
        except _Broken:
            if wire.buffer:  # the hop said why before it hung up
                self._settle(accepted, await wire.reply(0.1, "while sending the message"))
            raise
        lmtp = connection.hop.protocol == "lmtp"
        for turn in [[target] for target in accepted] if lmtp else [accepted]:
            try:
                reply = await wire.reply(seconds.end, "after the end of the message")
                if 300 <= reply.code < 400:
                    raise _Broken("4.5.0", f"unexpected reply after the end of the message: {reply.code}")
            except _Broken as broken:
                connection.abort()
                self.again = []
                for target in self.todo:
                    if target not in self.done:
                        self.done[target] = connection._ours(
                            target, "deferred", broken.status, f"{broken.text}: it may arrive twice", interrupted=True
                        )
                return
            self._settle(turn, reply)
        connection._dirty = False

    def _settle(self, targets: list[Target], reply: Reply) -> None:
        for target in targets:
            self.done[target] = self._outcome(target, reply)

    def _outcome(self, target: Target, reply: Reply) -> Outcome:
        down = reply.code in _AUTHENTICATION
        result = "delivered" if 200 <= reply.code < 300 else "failed" if reply.code >= 500 and not down else "deferred"
        status = status_of(reply)
        return Outcome(
            target.address,
            result,
            one_line(reply),
            "4" + status[1:] if result == "deferred" else status,
            self.connection.remote,
            hop_down=down,
            dsn=self.passes_dsn,
            from_hop=True,
        )


async def attempt(
    hop: NextHop,
    hostname: str,
    letter: Letter,
    before_data: Callable[[], Awaitable[None]] | None = None,
    timeouts: Timeouts | None = None,
) -> list[Outcome]:
    """One attempt on a connection of its own. See `Connection.attempt`."""
    connection = Connection(hop, hostname, timeouts)
    try:
        return await connection.attempt(letter, before_data)
    finally:
        await connection.close()
