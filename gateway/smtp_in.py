"""The SMTP door: a dialogue in, one `Received` out to the receiver it is given, the receiver's reply back.

aiosmtpd gives the protocol class (its place in asyncio, the `smtp_*` methods, the PROXY protocol); the command loop,
the DATA reader, the replies, the limits and the clock are ours, because those of 1.4.6 do not keep the promises of
a gateway. docs/protocol.md lists each of its traps with the decision taken here.

Time is kept by one sweeper per listener that compares numbers, so a session costs no timer. Nothing that a peer does
can cancel a message that was taken: hang-ups only wake the reader.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime as dt
import functools
import ipaddress
import re
import socket
import ssl
from asyncio import sslproto
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from aiosmtpd.proxy_protocol import AF, get_proxy
from aiosmtpd.smtp import SMTP

from gateway import config
from gateway.errors import LOCAL_ERROR, Reply
from gateway.message import VIETNAM, AuthResult, Envelope, Origin, Received, Recipient, Sender, new_case
from gateway.wire import (
    BARE_LINE_END,
    NUL_BYTE,
    TOO_LARGE,
    BodyWriter,
    DataReader,
    Mail,
    Pool,
    Refused,
    domain_key,
    parse_attributes,
    parse_mail,
    parse_rcpt,
)


class Receiver(Protocol):
    """What is behind the door."""

    def may_accept(self) -> Reply | None:
        """Asked at connect and at MAIL: None, or why not now (stopping, low disk)."""

    async def sender(self, origin: Origin, sender: Sender, size: int | None) -> Reply | None:
        """At MAIL: None when the sender is fine."""

    async def recipient(self, origin: Origin, sender: Sender, recipient: Recipient) -> Reply | None:
        """At RCPT: None when the recipient is fine."""

    async def message(self, received: Received) -> Reply:
        """At the end of data. Never cancelled by what the peer does."""


class Authenticator(Protocol):
    async def check(self, login: str, password: str, host: str) -> AuthResult: ...


#: RFC 5321 4.5.3.1.4 asks for 512 octets; SIZE, SMTPUTF8, DSN and XFORWARD add to it (RFC 1870, 6531, 3461).
COMMAND_LIMIT = 2048
#: RFC 4954 section 4: lines of AUTH may have 12288 octets.
AUTH_LIMIT = 12288
#: Read blocks of this size from the socket; also where a connection that nobody reads is told to wait.
BLOCK = 64 << 10
#: Two TLS records of the largest size.
TLS_BUFFER = 32 << 10
#: NOOP, RSET, VRFY and the like without any mail, as Postfix's smtpd_junk_command_limit; each further one is an error.
JUNK_COMMANDS = 100
#: RCPT commands of one transaction above the limit of recipients (refused, doubled, too many) before each further one
#: is an error (Postfix smtpd_recipient_overshoot_limit).
OVERSHOOT = 1000
#: Commands of one session that are obeyed in one go before the others have their turn.
TURN = 32
#: How long a connection that we closed may take to let go.
LINGER = 5.0
#: ... and how much it may still send meanwhile.
LINGER_OCTETS = 1 << 20
#: Seconds for a PROXY header, which a proxy sends at once.
PROXY_SECONDS = 10.0
#: Above this share of all connections a peer must hurry (Postfix's stress mode: smtpd_timeout 10s).
STRESS_SHARE = 0.8
STRESS_SECONDS = 10.0

_NEVER = float("inf")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HELO = re.compile(r"[!-~\x80-\U0010ffff]{1,255}")
_XFORWARD = frozenset({"NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"})
_XCLIENT = frozenset({"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT", "REVERSE_NAME"})
#: A browser that is tricked into talking to us, or a mail header where a command should be: nothing good follows.
_FOREIGN = re.compile(rb"(?:GET|POST|PUT|HEAD|OPTIONS|CONNECT|BDAT)\b|[A-Z][A-Z-]*:(?!\S*$)")

OK = Reply(250, "Ok", "0.0")
GO_AHEAD = Reply(354, "End data with <CR><LF>.<CR><LF>")
BYE = Reply(221, "Bye", "0.0")
NEED_EHLO = Reply(503, "Send EHLO first", "5.1")
NEED_MAIL = Reply(503, "Send MAIL first", "5.1")
NEED_TLS = Reply(530, "Must issue a STARTTLS command first", "7.0")
NEED_AUTH = Reply(530, "Authentication required", "7.0")
NESTED = Reply(503, "A mail transaction is open already", "5.1")
NO_ARGUMENT = Reply(501, "This command takes no argument", "5.4")
BAD_LINE = Reply(500, "Commands end with CRLF and hold no control characters", "5.2")
LONG_LINE = Reply(500, "Line too long", "5.2")
UNKNOWN = Reply(500, "Command not recognized", "5.1")
NOT_HERE = Reply(502, "Command not implemented", "5.1")
NO_RECIPIENTS = Reply(554, "No valid recipients", "5.1")
TOO_MANY_RECIPIENTS = Reply(452, "Too many recipients", "5.3")
RELAY_DENIED = Reply(550, "Relay access denied", "7.1")
NO_SPACE = Reply(452, "Insufficient system storage", "3.1")
TOO_MANY_ERRORS = Reply(421, "Too many errors, closing", "7.0")
TOO_MANY_MESSAGES = Reply(421, "Too many messages in one session, please reconnect", "7.0")
TOO_MANY_CONNECTIONS = Reply(421, "Too many connections, please try again later", "3.2")
TOO_MANY_FROM_HOST = Reply(421, "Too many connections from your host, please try again later", "7.0")
TIMED_OUT = Reply(421, "Timeout exceeded, closing", "4.2")
SESSION_OVER = Reply(421, "Session too long, closing", "4.2")
TOO_SLOW = Reply(421, "Data comes too slowly, closing", "4.2")
STOPPING = Reply(421, "Service shutting down, please try again later", "3.2")
BROKEN = Reply(421, "Local error, closing", "3.0")
EARLY = Reply(554, "Protocol error: you spoke before it was your turn", "5.0")
FORBIDDEN = Reply(554, "This service is not for your host", "7.1")
AUTH_GOOD = Reply(235, "Authentication successful", "7.0")
AUTH_BAD = Reply(535, "Authentication credentials invalid", "7.8")
AUTH_LATER = Reply(454, "Temporary authentication failure", "7.0")
AUTH_LOCKED = Reply(454, "Too many failed logins, please try again later", "7.0")


class _End(Exception):
    """The session is to end; with a last word, or without one when nobody listens any more."""

    def __init__(self, why: str, reply: Reply | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.reply = reply


def _plain_address(text: str) -> str:
    """An IP address in its one spelling: no zone, no IPv4 inside IPv6. Empty when it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _within(host: str, networks: tuple[config.Network, ...]) -> bool:
    if not networks or not host:
        return False
    address = ipaddress.ip_address(host)
    return any(address.version == network.version and address in network for network in networks)


@functools.lru_cache(512)
def _encode(reply: Reply) -> bytes:
    """The reply as octets: ASCII, one line each, no line longer than RFC 5321 4.5.3.1.5 allows (512 octets)."""
    rows = (re.sub(r"[^ -~]", "?", row)[:510] for row in reply.lines())
    return "".join(row + "\r\n" for row in rows).encode("ascii")


class Gate:
    """What all listeners of one process share: admission (connections in all, connections and their rate per host)
    and the memory for bodies.

    An IPv6 host is its /64, which is what one customer gets.
    """

    def __init__(self, limits: config.Limits) -> None:
        self._limits = limits
        self.pool = Pool()
        self.connections = 0
        self._hosts: dict[str, int] = {}
        self._minute = 0
        self._new: dict[str, int] = {}

    @property
    def stressed(self) -> bool:
        return self.connections > STRESS_SHARE * self._limits.connections

    def enter(self) -> bool:
        """Count a connection; false (and not counted) when there are too many."""
        if self.connections >= self._limits.connections:
            return False
        self.connections += 1
        return True

    def leave(self) -> None:
        self.connections -= 1

    def enter_host(self, host: str, now: float) -> bool:
        """Count a connection of one host; false (and not counted) when the host has too many or they come too fast."""
        key = _host_key(host)
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._new.clear()
        if self._hosts.get(key, 0) >= self._limits.connections_per_host:
            return False
        if self._new.get(key, 0) >= self._limits.new_connections_per_minute:
            return False
        self._new[key] = self._new.get(key, 0) + 1
        self._hosts[key] = self._hosts.get(key, 0) + 1
        return True

    def leave_host(self, host: str) -> None:
        key = _host_key(host)
        self._hosts[key] -= 1
        if not self._hosts[key]:
            del self._hosts[key]


def _host_key(host: str) -> str:
    if ":" in host:
        return str(ipaddress.ip_network((host, 64), strict=False).network_address)
    return host


class _Inbox(asyncio.StreamReader):
    """asyncio's reader, plus what it lacks: take what is there without waiting. The only place that touches the
    private parts of StreamReader (unchanged from Python 3.4 to 3.14; tests would notice)."""

    _buffer: bytearray
    _eof: bool

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def take_line(self, limit: int) -> bytes | None:
        """A line with its line end, or None when there is none within `limit` octets yet."""
        end = self._buffer.find(b"\n", 0, limit) + 1
        if not end:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._maybe_resume_transport()  # type: ignore[attr-defined]
        return line

    def take_all(self) -> bytes:
        block = bytes(self._buffer)
        self._buffer.clear()
        self._maybe_resume_transport()  # type: ignore[attr-defined]
        return block

    def put_back(self, data: bytes) -> None:
        self._buffer[:0] = data

    async def more(self) -> bool:
        """Wait for further octets; false when the peer has none. Raises what `set_exception` was given."""
        error = self.exception()
        if error is not None:
            raise error
        if self._eof:
            return False
        had = len(self._buffer)
        await self._wait_for_data("more")  # type: ignore[attr-defined]
        return len(self._buffer) > had

    def new_transport(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._paused = False


class _Session(SMTP):
    """One connection. Everything here survives STARTTLS but what RFC 3207 4.2 tells us to forget."""

    transport: asyncio.Transport | None
    _reader: _Inbox

    def __init__(self, server: Server) -> None:
        # aiosmtpd's own constructor looks through all methods and logs, for each connection (0.2 ms); we need from
        # it what StreamReaderProtocol needs.
        self.loop = server.loop
        asyncio.StreamReaderProtocol.__init__(
            self,
            _Inbox(limit=BLOCK // 2, loop=server.loop),
            client_connected_cb=self._cb_client_connected,
            loop=server.loop,
        )
        self._server = server
        self._settings = server.settings
        self._limits = server.settings.limits
        self._listener = server.listener
        self.transport = None
        self.task: asyncio.Task[None] | None = None
        self._out: list[bytes] = []
        self._host_counted = ""
        self._holds = 0  # who still needs the place in the gate: the connection, the task

        self.until = _NEVER  # when the sweeper has to act, in loop time
        self._reading = False
        self._late = TIMED_OUT
        self._ends = _NEVER

        self._peer = ""  # who is connected
        self._host = ""  # who is meant: by PROXY or XCLIENT another one
        self._front = ""  # the same before XCLIENT: who asks for XFORWARD and XCLIENT
        self._client_name = ""
        self._tls = ""
        self._errors = 0
        self._junk = 0
        self._turn = TURN
        self._unknown = 0
        self._messages = 0
        self._forget()

    def _forget(self) -> None:
        """Back to the state after connect (RFC 3207 4.2, XCLIENT). Counters stay: a peer cannot wash itself clean."""
        self._helo = ""
        self._extended = False
        self._login = ""
        self._reset()

    def _reset(self) -> None:
        """Back to no transaction (RSET, EHLO, end of data)."""
        self._mail: Mail | None = None
        self._origin: Origin | None = None
        self._recipients: dict[str, Recipient] = {}
        self._asked = 0  # RCPT commands
        self._told: dict[str, str] = {}  # XFORWARD

    # --- asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if hasattr(transport, "max_size"):
            transport.max_size = BLOCK  # asyncio's 256 KiB per read would be 256 MB for a thousand connections
        peer = transport.get_extra_info("peername")
        self._peer = self._host = _plain_address(peer[0]) if peer else ""
        server = self._server
        server.sessions.add(self)
        if server.stopping or not server.gate.enter():
            if self._listener.kind != "submissions":
                transport.write(_encode(STOPPING if server.stopping else TOO_MANY_CONNECTIONS))
            self._close()
            return
        self._holds = 2
        self.task = self.loop.create_task(self._handle_client())

    def connection_lost(self, error: Exception | None) -> None:
        # Not aiosmtpd's: it would cancel the task, and with it a message that is being committed (P4).
        if self not in self._server.sessions:
            return
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._server.sessions.discard(self)
        self._server.look()
        self.until = _NEVER
        self.transport = None
        self._let_go()

    def eof_received(self) -> bool:
        # A peer may close its half and wait for our reply (P4). TLS has no half-close in asyncio.
        self._reader.feed_eof()
        return not self._tls

    def _let_go(self) -> None:
        if self._holds:
            self._holds -= 1
            if not self._holds:
                self._server.gate.leave()
                if self._host_counted:
                    self._server.gate.leave_host(self._host_counted)

    # --- time ---

    def expire(self) -> None:
        """The sweeper found us late."""
        self.until = _NEVER
        if self._reading:
            self._reader.set_exception(_End("timeout", self._late))
        elif self.transport is not None:
            self.transport.abort()

    def stop(self) -> None:
        """End now if nothing was promised: we wait for a command, not for data."""
        if self._reading and self._late is not TOO_SLOW:
            self._reader.set_exception(_End("stopping", STOPPING))

    async def _more(self, until: float, late: Reply = TIMED_OUT) -> bool:
        """Send what is waiting to be sent, then wait for the peer until `until`."""
        if self._out:
            had = self._reader.pending
            await self._flush()
            if self._reader.pending > had:  # it came while we were held up by a peer that does not read
                return True
        if until > self._ends:
            until, late = self._ends, SESSION_OVER if late is not TOO_SLOW else TOO_SLOW
        self.until, self._late, self._reading = until, late, True
        try:
            return await self._reader.more()
        finally:
            self.until, self._reading = _NEVER, False

    def _command_seconds(self) -> float:
        limit = self._limits.command_timeout
        return min(limit, STRESS_SECONDS) if self._server.gate.stressed else limit

    # --- speaking ---

    def _say(self, reply: Reply) -> None:
        """Put a reply into the row of replies, which goes out when the peer has nothing more to say (RFC 2920)."""
        self._out.append(_encode(reply))
        if reply.code in (421, 521):
            raise _End(reply.text, None)

    async def _flush(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            raise _End("hang-up")
        transport.write(b"".join(self._out))
        self._out.clear()
        if transport.get_write_buffer_size():
            self.until = self.loop.time() + self._command_seconds()
            try:
                await self._writer.drain()  # waits when more than 64 KiB lie unread
            finally:
                self.until = _NEVER

    def _error(self, reply: Reply) -> None:
        """Say no to a mistake of the peer, and count it."""
        self._errors += 1
        if self._errors > self._limits.errors_per_session:
            self._say(TOO_MANY_ERRORS)
        self._say(reply)

    def _close(self) -> None:
        """Close; the sweeper cuts the connection when the peer does not take our last words."""
        self._reading = False
        if self.transport is not None:
            self.until = self.loop.time() + LINGER
            self.transport.close()

    # --- the dialogue ---

    async def _handle_client(self) -> None:
        started = self.loop.time()
        why = "broken"
        try:
            await self._converse(started)
        except _End as end:
            why = end.why
            if end.reply is not None:
                self._out.append(_encode(end.reply))
            await self._part(why)
        except (ConnectionError, TimeoutError, ssl.SSLError) as error:
            why = f"connection: {type(error).__name__}"
        except asyncio.CancelledError:
            why = "cancelled"
            raise
        except Exception:
            self._server.log.exception("smtp session broke", peer=self._peer, listener=self._listener.kind)
            self._out.append(_encode(BROKEN))
            await self._part(why)
        finally:
            self._close()
            self._let_go()
            say = self._server.log.debug if why == "quit" and not self._errors else self._server.log.info
            say(
                "smtp session",
                listener=self._listener.kind,
                peer=self._peer,
                client=self._host,
                helo=self._helo,
                login=self._login,
                tls=self._tls,
                messages=self._messages,
                errors=self._errors,
                seconds=round(self.loop.time() - started, 3),
                end=why,
            )

    async def _part(self, why: str) -> None:
        """Say the last words and let the peer hear them: a close over unread octets would reset the connection."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        with contextlib.suppress(_End, ConnectionError, ssl.SSLError):
            if self._out:
                await self._flush()
            if why not in ("quit", "hang-up") and transport.can_write_eof():
                transport.write_eof()
                self.until = self.loop.time() + LINGER
                heard = 0
                while self._reader.exception() is None and heard < LINGER_OCTETS:
                    heard += len(self._reader.take_all())
                    if not await self._reader.more():
                        break

    async def _converse(self, started: float) -> None:
        listener, server = self._listener, self._server
        self._ends = started + self._limits.session_timeout
        if _within(self._peer, listener.proxy_from):
            await self._read_proxy_header()
        self._front = self._host
        trusted = self._is_trusted() or _within(self._host, listener.xforward_from)
        quiet = listener.kind == "submissions"  # a TLS client would take a plain 421 for noise
        if listener.kind == "filter" and not trusted:
            raise _End("not for this host", FORBIDDEN)
        if not trusted:
            if not server.gate.enter_host(self._host, started):
                raise _End("too many connections", None if quiet else TOO_MANY_FROM_HOST)
            self._host_counted = self._host
        if listener.kind == "submissions":
            await self._start_tls()
        no = server.receiver.may_accept()
        if no is not None and no.code == 421:
            raise _End("not accepting", no)
        if self._reader.pending:
            raise _End("spoke before the greeting", EARLY)
        self._say(Reply(220, f"{self._settings.hostname} ESMTP"))
        while True:
            if server.stopping:
                raise _End("stopping", STOPPING)
            line = await self._read_line(AUTH_LIMIT)
            if line is None:
                self._error(LONG_LINE)
                continue
            try:
                await self._command(line)
            except Refused as no_way:
                self._error(no_way.reply)

    async def _read_line(self, limit: int) -> bytes | None:
        """The next line without its CRLF, None for one that is too long (and gone). One time limit for the whole
        line, so that nobody keeps us by single octets. A line with a bare CR or LF or a NUL comes back as it is."""
        until = _NEVER
        inbox = self._reader
        while (line := inbox.take_line(limit)) is None:
            if inbox.pending >= limit:
                return await self._skip_line()
            if until == _NEVER:
                until = self.loop.time() + self._command_seconds()
            if not await self._more(until):
                raise _End("hang-up")
        self._turn -= 1
        if not self._turn:
            self._turn = TURN
            if self._out:  # a peer that never pauses must hear us, or be found not listening
                await self._flush()
            await asyncio.sleep(0)
        return line[:-2] if line.endswith(b"\r\n") else line

    async def _skip_line(self) -> bytes | None:
        """Throw away a line that is too long, but not for ever. Always None, as the line is gone."""
        until = self.loop.time() + self._command_seconds()
        inbox = self._reader
        skipped = 0
        while inbox.take_line(BLOCK) is None:
            skipped += len(inbox.take_all())
            if skipped > 16 * BLOCK:
                raise _End("endless line", LONG_LINE)
            if not await self._more(until):
                raise _End("hang-up")
        return None

    async def _command(self, line: bytes) -> None:
        verb, _, arguments = line.partition(b" ")
        verb = verb.upper()
        if _CONTROL.search(line):
            raise Refused(BAD_LINE)
        method = _COMMANDS.get(verb)
        if method is None:
            if _FOREIGN.match(line.upper()):
                raise _End("not SMTP", UNKNOWN if verb != b"BDAT" else NOT_HERE)
            raise Refused(UNKNOWN)
        if len(line) > COMMAND_LIMIT and verb != b"AUTH":
            raise Refused(LONG_LINE)
        await method(self, arguments.strip(b" "))

    def _count_junk(self) -> None:
        self._junk += 1
        if self._junk > JUNK_COMMANDS:
            self._errors += 1
            if self._errors > self._limits.errors_per_session:
                self._say(TOO_MANY_ERRORS)

    # --- who speaks ---

    def _is_trusted(self) -> bool:
        """The peer is one of our own servers."""
        listener = self._listener
        return listener.kind in ("relay", "filter") and _within(self._host, listener.networks)

    async def _read_proxy_header(self) -> None:
        self.until, self._late, self._reading = self.loop.time() + PROXY_SECONDS, TIMED_OUT, True
        try:
            header = await get_proxy(self._reader)
        except (_End, ConnectionError):
            raise
        except Exception as error:  # it raises whatever comes up for octets that are no header
            raise _End("bad PROXY header") from error
        finally:
            self.until, self._reading = _NEVER, False
        if not header.valid:
            raise _End("bad PROXY header")
        # LOCAL and UNKNOWN: the proxy speaks for itself (a health check).
        if header.command != 0 and header.family in (AF.INET, AF.INET6):
            self._host = _plain_address(str(header.src_addr))

    async def _start_tls(self) -> None:
        """Turn the connection into TLS. Octets that came before it are gone: they were not protected (RFC 3207 4.2,
        CVE-2024-34083)."""
        context = self._server.tls
        transport = self.transport
        if transport is None or context is None:
            raise _End("hang-up")
        if self._out:
            await self._flush()
        try:
            secure = await self._handshake(transport, context)
        except BaseException as error:
            transport.abort()
            # asyncio tells nobody of a connection that is lost during the handshake.
            self.connection_lost(error if isinstance(error, Exception) else None)
            raise
        if secure is None:
            raise _End("hang-up")
        self.transport = secure
        self._reader.new_transport(secure)
        self._writer._transport = secure  # type: ignore[attr-defined]
        self._transport = secure
        self._over_ssl = True
        secured = secure.get_extra_info("ssl_object")
        self._tls = f"{secured.version()} {secured.cipher()[0]}"

    async def _handshake(self, transport: asyncio.Transport, context: ssl.SSLContext) -> asyncio.Transport | None:
        early = self._reader.take_all()
        upgrade = self.loop.start_tls(
            transport,
            self,
            context,
            server_side=True,
            ssl_handshake_timeout=max(self._command_seconds(), 0.1),
            ssl_shutdown_timeout=LINGER,
        )
        if early and self._listener.kind == "submissions":
            # The client's first TLS record came in one read with the PROXY header.
            handshake = self.loop.create_task(upgrade)
            while transport.get_protocol() is self and not handshake.done():
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # connection_made, which start_tls has only scheduled
            _feed(transport.get_protocol(), early)
            return await handshake
        # Nothing is awaited between taking what was there and the change of protocol inside start_tls.
        return await upgrade

    def _make_origin(self, mail: Mail) -> Origin:
        told = self._told
        protocol = ("UTF8SMTP" if mail.smtputf8 else "ESMTP") if self._extended else "SMTP"  # RFC 3848, RFC 6531 4.3
        if self._extended:
            protocol += ("S" if self._tls else "") + ("A" if self._login else "")
        kind = self._listener.kind
        return Origin(
            channel="submission" if kind == "submissions" else kind,
            peer=self._peer,
            helo=told.get("HELO") or self._helo,
            tls=self._tls,
            login=self._login,
            client=_plain_address(_without_prefix(told.get("ADDR", ""))) or self._host,
            client_name=told.get("NAME") or self._client_name,
            protocol=protocol,
            trusted=self._is_trusted(),
            next_hop=self._listener.next_hop,
        )

    # --- commands ---

    async def smtp_HELO(self, arguments: bytes) -> None:  # type: ignore[override]
        self._greet(arguments, extended=False)
        self._say(Reply(250, self._settings.hostname))

    async def smtp_EHLO(self, arguments: bytes) -> None:  # type: ignore[override]
        self._greet(arguments, extended=True)
        words = [self._settings.hostname, "PIPELINING", f"SIZE {self._limits.message_size}"]
        if self._server.tls is not None and not self._tls:
            words.append("STARTTLS")
        if self._server.submission and self._tls:
            words.append("AUTH PLAIN LOGIN")
        if _within(self._front, self._listener.xforward_from):
            words += ["XFORWARD " + " ".join(sorted(_XFORWARD)), "XCLIENT " + " ".join(sorted(_XCLIENT))]
        words += ["ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "DSN"]
        self._say(Reply(250, "\n".join(words)))

    def _greet(self, arguments: bytes, *, extended: bool) -> None:
        name = arguments.decode("utf-8", "replace")
        if not _HELO.fullmatch(name):
            raise Refused(Reply(501, "Syntax: EHLO hostname", "5.4"))
        self._reset()
        self._count_junk()
        self._helo = name
        self._extended = extended

    async def smtp_STARTTLS(self, arguments: bytes) -> None:  # type: ignore[override]
        if arguments:
            raise Refused(NO_ARGUMENT)
        if self._tls:
            raise Refused(Reply(503, "TLS is active already", "5.1"))
        if self._server.tls is None:
            raise Refused(NOT_HERE)
        if self._reader.pending:
            raise _End("spoke between STARTTLS and TLS", EARLY)
        self._say(Reply(220, "Ready to start TLS", "0.0"))
        await self._start_tls()
        self._forget()

    async def smtp_AUTH(self, arguments: bytes) -> None:  # type: ignore[override]
        authenticator = self._server.authenticator
        if not self._server.submission or authenticator is None:
            raise Refused(NOT_HERE)
        if not self._tls:
            raise Refused(Reply(538, "Encryption required for requested authentication mechanism", "7.11"))
        if not self._extended:
            raise Refused(NEED_EHLO)
        if self._login or self._mail is not None:
            raise Refused(Reply(503, "Not now: authenticated already, or a mail transaction is open", "5.1"))
        mechanism, _, initial = arguments.partition(b" ")
        if mechanism.upper() == b"PLAIN":
            parts = (await self._secret(initial, b"")).split(b"\0")
            if len(parts) != 3 or parts[0] not in (b"", parts[1]):
                raise Refused(AUTH_BAD)
            login, password = parts[1], parts[2]
        elif mechanism.upper() == b"LOGIN":
            login = await self._secret(initial, b"VXNlcm5hbWU6")  # "Username:", which clients look for
            password = await self._secret(b"", b"UGFzc3dvcmQ6")  # "Password:"
        else:
            raise Refused(Reply(504, "Unrecognized authentication type", "5.4"))
        try:
            name, secret = login.decode("utf-8"), password.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(AUTH_BAD) from None
        if not name or not secret or "\0" in name + secret:
            raise Refused(AUTH_BAD)
        result = await authenticator.check(name, secret, self._host)
        if result is AuthResult.GOOD:
            self._login = name
            self._say(AUTH_GOOD)
            return
        self._server.log.warning("login refused", host=self._host, result=str(result))
        if result is AuthResult.BAD:
            raise Refused(AUTH_BAD)
        self._error(AUTH_LOCKED if result is AuthResult.LOCKED else AUTH_LATER)

    async def _secret(self, initial: bytes, challenge: bytes) -> bytes:
        """A base64 answer of the client: the initial response, or the reply to our challenge (RFC 4954 section 4)."""
        if not initial:
            self._out.append(b"334 " + challenge + b"\r\n")
            line = await self._read_line(AUTH_LIMIT)
            if line is None:
                raise Refused(LONG_LINE)
            initial = line
            if initial == b"*":
                raise Refused(Reply(501, "Authentication cancelled", "7.0"))
        elif initial == b"=":
            return b""
        try:
            return base64.b64decode(initial, validate=True)
        except binascii.Error:
            raise Refused(Reply(501, "Cannot decode base64", "5.2")) from None

    async def smtp_MAIL(self, arguments: bytes) -> None:  # type: ignore[override]
        server = self._server
        if not self._helo:
            raise Refused(NEED_EHLO)
        if not self._tls and (server.submission or self._listener.require_tls):
            raise Refused(NEED_TLS)
        if server.submission and not self._login:
            raise Refused(NEED_AUTH)
        if self._mail is not None:
            raise Refused(NESTED)
        mail = parse_mail(arguments, extended=self._extended)
        if mail.size is not None and mail.size > self._limits.message_size:
            self._count_junk()
            self._say(TOO_LARGE)
            return
        if self._messages >= self._limits.messages_per_session and not self._is_trusted():
            self._say(TOO_MANY_MESSAGES)
        no = server.receiver.may_accept()
        origin = self._make_origin(mail)
        if no is None:
            no = await self._ask(server.receiver.sender(origin, mail.sender, mail.size))
        if no is None:
            self._mail, self._origin = mail, origin
        else:
            self._count_junk()
        self._say(no or Reply(250, "Ok", "1.0"))

    async def smtp_RCPT(self, arguments: bytes) -> None:  # type: ignore[override]
        mail, origin = self._mail, self._origin
        if mail is None or origin is None:
            raise Refused(NEED_MAIL)
        self._asked += 1
        if self._asked > self._limits.recipients + OVERSHOOT:
            raise Refused(TOO_MANY_RECIPIENTS)
        recipient = parse_rcpt(arguments, smtputf8=mail.smtputf8, extended=self._extended)
        key = str(recipient.address)
        if key in self._recipients:  # once is enough; the first one's parameters count
            self._say(Reply(250, "Ok", "1.5"))
            return
        if len(self._recipients) >= self._limits.recipients:
            self._say(TOO_MANY_RECIPIENTS)
            return
        domain = recipient.address.domain
        if self._listener.kind == "relay" and not origin.trusted and domain and not self._server.answers_for(domain):
            raise Refused(RELAY_DENIED)
        no = await self._ask(self._server.receiver.recipient(origin, mail.sender, recipient))
        if no is None:
            self._recipients[key] = recipient
        elif no.code == 550 and no.detail == "1.1" and not origin.trusted:
            self._unknown += 1
            if self._unknown > self._limits.unknown_recipients:
                self._say(TOO_MANY_ERRORS)
        self._say(no or Reply(250, "Ok", "1.5"))

    async def _ask(self, question: Awaitable[Reply | None]) -> Reply | None:
        """The receiver's answer; what it cannot answer is a temporary failure."""
        try:
            return await question
        except Exception:
            self._server.log.exception("the receiver broke", peer=self._peer)
            return LOCAL_ERROR

    async def smtp_DATA(self, arguments: bytes) -> None:  # type: ignore[override]
        if self._reader.pending:
            # RFC 2920 3.1: DATA ends a group. What came with it is a body that would be read as commands if we
            # said no, and no answer to a 354 if we said yes.
            raise _End("data before 354", EARLY)
        if arguments:
            raise Refused(NO_ARGUMENT)
        mail, origin = self._mail, self._origin
        if mail is None or origin is None:
            raise Refused(NEED_MAIL)
        if not self._recipients:
            raise Refused(NO_RECIPIENTS)
        self._say(GO_AHEAD)
        recipients = tuple(self._recipients.values())
        writer = BodyWriter(self._server.spill, self._limits.memory_size, self._server.gate.pool)
        try:
            reader = await self._read_data(writer)
            self._reset()
            if reader.fault in (BARE_LINE_END, NUL_BYTE):
                # Whoever sent this may see another end of data than we do; what he sends next is not to be trusted.
                raise _End("ambiguous end of data", reader.fault)
            if reader.fault is not None:
                self._error(reader.fault)
                return
            envelope = Envelope(mail.sender, recipients, mail.ret, mail.envid, mail.smtputf8, mail.body)
            received = Received(new_case(), dt.datetime.now(VIETNAM), envelope, origin, writer.finish())
        finally:
            writer.discard()
        reply = await self._hand_over(received)
        self._messages += 1
        if reply.accepted:
            self._errors = self._junk = 0
        self._say(reply)

    async def _read_data(self, writer: BodyWriter) -> DataReader:
        """Read to the end of data. Raises _End when the peer leaves or takes too long."""
        inbox, limits, loop = self._reader, self._limits, self.loop
        reader = DataReader(writer, limits.message_size, limits.line_length)
        started = loop.time()
        total = 0
        while True:
            # Each read may take the time of a command; all of them data_timeout plus what the minimum rate allows
            # for the octets that came (as Postfix's smtpd_min_data_rate), within the session's time.
            until = min(
                loop.time() + limits.command_timeout,
                started + limits.data_timeout + total / max(limits.minimum_rate, 1),
            )
            # Octets may be here already: they came while the body was being spilled.
            if not inbox.pending and not await self._more(until, TOO_SLOW):
                raise _End("hang-up in data")
            block = inbox.take_all()
            total += len(block)
            if reader.feed(block):
                break
            if reader.hopeless:
                raise _End("refused message without end", reader.fault)
            if writer.wants_spill:
                await self._spill(writer, reader)
        if reader.fault is None and (writer.spilled or writer.wants_spill):
            await self._spill(writer, reader)
        inbox.put_back(reader.rest)
        return reader

    async def _spill(self, writer: BodyWriter, reader: DataReader) -> None:
        try:
            await asyncio.to_thread(writer.spill)
        except OSError as error:
            self._server.log.error("cannot spill a body", error=error.strerror)
            reader.fail(NO_SPACE)

    async def _hand_over(self, received: Received) -> Reply:
        """Give the message to the receiver. Whatever happens to this session, the receiver finishes."""
        server = self._server
        task: asyncio.Task[Reply] = self.loop.create_task(_run(server.receiver.message(received)))
        server.handing_over.add(task)
        task.add_done_callback(server.handed_over)
        try:
            reply = await asyncio.shield(task)
            if isinstance(reply, Reply):
                return reply
            server.log.error("the receiver gave no reply", case=received.case)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
        except Exception:
            server.log.exception("the receiver broke", case=received.case)
        return LOCAL_ERROR

    async def smtp_RSET(self, arguments: bytes) -> None:  # type: ignore[override]
        if arguments:
            raise Refused(NO_ARGUMENT)
        self._count_junk()
        self._reset()
        self._say(OK)

    async def smtp_NOOP(self, arguments: bytes) -> None:  # type: ignore[override]
        self._count_junk()
        self._say(OK)

    async def smtp_QUIT(self, arguments: bytes) -> None:  # type: ignore[override]
        if arguments:
            raise Refused(NO_ARGUMENT)
        raise _End("quit", BYE)

    async def smtp_VRFY(self, arguments: bytes) -> None:  # type: ignore[override]
        self._count_junk()
        self._say(Reply(252, "Cannot VRFY user, but will accept message and attempt delivery", "1.5"))

    async def smtp_HELP(self, arguments: bytes) -> None:  # type: ignore[override]
        self._count_junk()
        self._say(Reply(214, "See RFC 5321", "0.0"))

    async def smtp_EXPN(self, arguments: bytes) -> None:  # type: ignore[override]
        raise Refused(NOT_HERE)

    async def smtp_XFORWARD(self, arguments: bytes) -> None:
        """What a mail server in front of us knows of the original client; for one transaction."""
        if not _within(self._front, self._listener.xforward_from):
            raise Refused(Reply(550, "Not permitted", "7.0"))
        if self._mail is not None:
            raise Refused(NESTED)
        self._told.update(parse_attributes(arguments, _XFORWARD))
        self._say(OK)

    async def smtp_XCLIENT(self, arguments: bytes) -> None:
        """As if the named client had connected itself: the dialogue begins anew (Postfix XCLIENT_README)."""
        if not _within(self._front, self._listener.xforward_from):
            raise Refused(Reply(550, "Not permitted", "7.0"))
        if self._mail is not None:
            raise Refused(NESTED)
        told = parse_attributes(arguments, _XCLIENT)
        address = _plain_address(_without_prefix(told.get("ADDR", "")))
        if told.get("ADDR") and not address:
            raise Refused(Reply(501, "Bad address", "5.4"))
        self._forget()
        self._host = address or self._host
        self._client_name = told.get("NAME", self._client_name)
        self._login = told.get("LOGIN", "")
        self._say(Reply(220, f"{self._settings.hostname} ESMTP"))


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Give octets to a protocol as its transport would."""
    while data and isinstance(protocol, asyncio.BufferedProtocol):
        space = memoryview(protocol.get_buffer(len(data)))
        count = min(len(space), len(data))
        space[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]


async def _run(question: Awaitable[Reply]) -> Reply:
    return await question


def _without_prefix(address: str) -> str:
    return address[5:] if address[:5].upper() == "IPV6:" else address


_Method = Callable[[_Session, bytes], Awaitable[None]]
_COMMANDS: dict[bytes, _Method] = {
    name.encode(): getattr(_Session, f"smtp_{name}")
    for name in (
        *("HELO", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT"),
        *("VRFY", "EXPN", "HELP", "XFORWARD", "XCLIENT"),
    )
}


def tls_context(settings: config.Tls) -> ssl.SSLContext | None:
    """The TLS side of a server, None when no certificate is configured. Raises OSError (ssl.SSLError) for bad files."""
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(settings.certificate, settings.key)
    return context


class Server:
    """One listening socket and its sessions."""

    def __init__(
        self,
        listener: config.Listener,
        settings: config.Gateway,
        receiver: Receiver,
        authenticator: Authenticator | None,
        log: Any,
        gate: Gate,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.listener = listener
        self.settings = settings
        self.receiver = receiver
        self.authenticator = authenticator
        self.log = log
        self.gate = gate
        self.spill = settings.data / "spill"
        self.tls = tls_context(settings.tls)
        self.submission = listener.kind in ("submission", "submissions")
        self.sessions: set[_Session] = set()
        self.handing_over: set[asyncio.Task[Reply]] = set()
        self.stopping = False
        self.port = 0
        self._domains = frozenset(domain_key(name) for name in settings.domains if not name.startswith("."))
        self._below = tuple("." + domain_key(name[1:]) for name in settings.domains if name.startswith("."))
        self._server: asyncio.AbstractServer | None = None
        limits = settings.limits
        shortest = min(limits.command_timeout, limits.data_timeout, limits.session_timeout)
        self._pause = min(max(shortest / 4, 0.02), 1.0)
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()

    def answers_for(self, domain: str) -> bool:
        """Whether mail for this domain is ours: named, or below a name that begins with a dot."""
        key = domain_key(domain)
        return key in self._domains or bool(self._below and ("." + key).endswith(self._below))

    async def listen(self, sock: socket.socket | None) -> None:
        if self.submission and self.tls is None:
            raise ValueError("submission needs a certificate")
        # asyncio gives each TLS connection a buffer of 256 KiB: 256 MB for a thousand that do nothing.
        sslproto.SSLProtocol.max_size = TLS_BUFFER
        self.spill.mkdir(mode=0o700, parents=True, exist_ok=True)
        where: dict[str, Any] = (
            {"sock": sock} if sock else {"host": self.listener.address or None, "port": self.listener.port}
        )
        self._server = await self.loop.create_server(lambda: _Session(self), backlog=512, **where)
        for listening in self._server.sockets:
            # Connections inherit it. Replies are short; without it a peer that reads none of them fills megabytes.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweep()

    def _sweep(self) -> None:
        now = self.loop.time()
        for session in [session for session in self.sessions if session.until <= now]:
            session.expire()
        self._sweeper = self.loop.call_later(self._pause, self._sweep)

    def handed_over(self, task: asyncio.Task[Reply]) -> None:
        self.handing_over.discard(task)
        self.look()

    def look(self) -> None:
        """Notice whether nothing is left to wait for."""
        if self.stopping and not self.sessions and not self.handing_over:
            self._idle.set()

    def reload_tls(self) -> None:
        """Read certificate and key again for connections to come. Raises OSError for bad files; the old ones stay."""
        self.tls = tls_context(self.settings.tls)

    def close(self) -> None:
        """Listen no more, and end every session that has nothing of ours in hand."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for session in list(self.sessions):
            session.stop()

    async def wait_closed(self) -> None:
        """Until every session and every message in hand is done."""
        self.look()
        await self._idle.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def drain(self, seconds: float) -> bool:
        """Stop, let messages that are being sent or judged come to their reply, and cut the rest after `seconds`.
        True when nothing had to be cut."""
        self.close()
        try:
            await asyncio.wait_for(self.wait_closed(), seconds)
            return True
        except TimeoutError:
            for session in list(self.sessions):
                if session.task is not None:
                    session.task.cancel()
                if session.transport is not None:
                    session.transport.abort()
            return False
        finally:
            if self._sweeper is not None:
                self._sweeper.cancel()


async def start(
    listener: config.Listener,
    settings: config.Gateway,
    receiver: Receiver,
    authenticator: Authenticator | None,
    log: Any = None,
    *,
    gate: Gate | None = None,
    sock: socket.socket | None = None,
) -> Server:
    """Listen. gate: shared by the listeners of a process, so that its limits count all of them; sock: an open socket
    from systemd. Raises OSError when the port is taken or the certificate cannot be read."""
    server = Server(
        listener, settings, receiver, authenticator, log or structlog.get_logger(), gate or Gate(settings.limits)
    )
    await server.listen(sock)
    return server
