"""An SMTP door of its own for tests and measurements: a listener on a free port of the loopback, in a thread, with a
receiver that keeps what it gets, and a client that says exactly the octets it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import trustme

from gateway import config, smtp_in
from gateway.errors import Reply
from gateway.message import AuthResult, Origin, Received, Recipient, Sender

HOST = "mail.tinhdemo.gov.vn"
OURS = "tinhdemo.gov.vn"
PASSWORD = "mật khẩu 1"


class Keeper:
    """A receiver that accepts everything, or answers a stage (`accept`, `sender`, `recipient`, `message`) as told:
    a Reply, an exception to raise, or a function of the stage's arguments that returns one of these or None."""

    def __init__(self) -> None:
        self.messages: list[tuple[Received, bytes]] = []
        self.answers: dict[str, Any] = {}
        self.arrived = threading.Condition()
        self.keep_bytes = True
        self.go: asyncio.Event | None = None  # when set: the message waits for it
        self.entered = threading.Event()
        self.cancelled = False

    def _answer(self, stage: str, *about: Any) -> Any:
        answer = self.answers.get(stage)
        if callable(answer):
            answer = answer(*about)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def may_accept(self) -> Reply | None:
        return self._answer("accept")

    async def sender(self, origin: Origin, sender: Sender, size: int | None) -> Reply | None:
        return self._answer("sender", origin, sender, size)

    async def recipient(self, origin: Origin, sender: Sender, recipient: Recipient) -> Reply | None:
        return self._answer("recipient", origin, sender, recipient)

    async def message(self, received: Received) -> Reply:
        self.entered.set()
        try:
            if self.go is not None:
                await self.go.wait()
            answer = self._answer("message", received)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        with self.arrived:
            self.messages.append((received, received.body.read() if self.keep_bytes else b""))
            self.arrived.notify_all()
        if not self.keep_bytes:
            received.body.close()
        return Reply(250, f"Ok: {received.case}", "0.0") if answer is None else answer

    def wait(self, count: int, seconds: float = 240) -> None:
        """Until so many messages are here. Raises AssertionError after `seconds`."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, seconds), f"{len(self.messages)} messages"


class Passwords:
    """An authenticator that knows one password, of every login; `answer` overrides it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.answer: AuthResult | None = None

    async def check(self, login: str, password: str, host: str) -> AuthResult:
        self.asked.append((login, password, host))
        return self.answer or (AuthResult.GOOD if password == PASSWORD else AuthResult.BAD)


_CA: list[trustme.CA] = []


def certificate(folder: Path) -> tuple[config.Tls, ssl.SSLContext]:
    """A certificate for HOST and 127.0.0.1 in files, and a client's context that trusts it."""
    if not _CA:
        _CA.append(trustme.CA())
    issued = _CA[0].issue_cert(HOST, "127.0.0.1", "localhost")
    folder.mkdir(parents=True, exist_ok=True)
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    context = ssl.create_default_context()
    _CA[0].configure_trust(context)
    return config.Tls(certificate=chain, key=key), context


class HandLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still until it is moved: a limit of time is over when the test says so, and never
    because the machine was busy."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now


class Door:
    """A listener in a thread. Use as a context manager; `port`, `keeper`, `passwords`, `log` (list of entries)."""

    def __init__(self, folder: Path, kind: str = "relay", *, tls: bool | None = None, **options: Any) -> None:
        self.keeper: Any = options.pop("receiver", None) or Keeper()
        self.passwords = options.pop("authenticator", None) or Passwords()
        self.log: list[dict[str, Any]] = []
        limits, hands = config.Limits(**options.pop("limits", {})), options.pop("hands", False)
        gate = options.pop("gate", None)
        submission = kind in ("submission", "submissions")
        if kind == "filter":
            options = {"next_hop": "back", "networks": ("127.0.0.0/8",)} | options
        listener = config.Listener(kind=kind, port=0, **options)
        certificates, self.trust = config.Tls(), ssl.create_default_context()
        if submission or tls:
            certificates, self.trust = certificate(folder / "tls")
        self.settings = config.Gateway(
            hostname=HOST,
            data=folder / "data",
            listeners=(listener,),
            domains=(OURS, f".{OURS}"),
            tls=certificates,
            passwords=config.PasswordCheck(host="127.0.0.1", port=1) if submission else None,
            next_hops=(config.NextHop(name="back", host="127.0.0.1"),),
            limits=limits,
        )
        self._start: Callable[[], Any] = lambda: smtp_in.start(
            listener, self.settings, self.keeper, self.passwords, self._logger(), gate=gate
        )
        self.kind = kind
        self.port = 0
        self.server: Any = None
        self.loop = HandLoop() if hands else asyncio.new_event_loop()
        self.unhandled: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def _logger(self) -> Any:
        def keep(_logger: Any, level: str, entry: dict[str, Any]) -> Any:
            self.log.append({"level": level} | entry)
            raise structlog.DropEvent

        return structlog.wrap_logger(None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0))

    def __enter__(self) -> Door:
        self._thread.start()
        self.server = self.run(self._start())
        self.port = self.server.port
        return self

    def __exit__(self, *_: object) -> None:
        if self.keeper.__class__ is Keeper and self.keeper.go is not None:
            self.loop.call_soon_threadsafe(self.keeper.go.set)
        drained = self.run(self.server.drain(240))
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        assert not self.unhandled, self.unhandled
        assert drained, "a session would not end"
        assert self.server.gate.connections == 0 and not self.server.gate._hosts, "a place in the gate was lost"
        assert not list((self.settings.data / "spill").iterdir())

    def run(self, work: Any, seconds: float = 240) -> Any:
        """The result of a coroutine on the door's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def call(self, function: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return function()

        return self.run(run())

    def advance(self, seconds: float) -> None:
        """Let time pass at a door that was opened with `hands=True`."""
        loop = self.loop
        assert isinstance(loop, HandLoop)

        def move() -> None:
            loop.now += seconds

        self.call(move)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == name]

    def client(self, *, tls: bool | None = None, timeout: float = 240, source: str = "") -> Client:
        client = Client(self.port, self.trust, timeout, source)
        if self.kind == "submissions" if tls is None else tls:
            client.start_tls()
        return client


class Client:
    """Says what it is told, octet by octet; a context manager."""

    def __init__(self, port: int, trust: ssl.SSLContext, timeout: float = 240, source: str = "") -> None:
        self.socket: socket.socket = socket.create_connection(
            ("127.0.0.1", port), timeout, source_address=(source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._trust = trust
        self._read = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def start_tls(self) -> None:
        self.socket = self._trust.wrap_socket(self.socket, server_hostname=HOST)

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def line(self) -> bytes:
        """The next line of the server with its CRLF; empty when it closed."""
        while b"\n" not in self._read:
            try:
                more = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLError):
                more = b""
            if not more:
                rest, self._read = self._read, b""
                return rest
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line + b"\n"

    def reply(self) -> str:
        """The next whole reply; lines joined by LF, without CRLF. Empty when the server closed."""
        lines = []
        while True:
            line = self.line()
            if not line:
                return "\n".join(lines)
            assert line.endswith(b"\r\n") and len(line) <= 512, line
            lines.append(line[:-2].decode("ascii"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    def say(self, command: bytes | str) -> str:
        """Send a command (CRLF is added) and read its reply."""
        self.send((command.encode() if isinstance(command, str) else command) + b"\r\n")
        return self.reply()

    def greet(self) -> str:
        """Banner and EHLO; returns the answer to EHLO."""
        banner = self.reply()
        assert banner.startswith("220 "), banner
        return self.say("EHLO client.example")

    def envelope(self, sender: str = "a@example.vn", *recipients: str) -> None:
        for command in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{to}>" for to in recipients or (f"b@{OURS}",))):
            answer = self.say(command)
            assert answer.startswith("250 "), f"{command}: {answer}"

    def mail(self, data: bytes = b"Subject: x\r\n\r\nx\r\n", sender: str = "a@example.vn", *recipients: str) -> str:
        """A whole transaction; `data` is sent as it is, then the end of data."""
        self.envelope(sender, *recipients)
        answer = self.say("DATA")
        assert answer.startswith("354 "), answer
        self.send(data + b".\r\n")
        return self.reply()

    def gone(self) -> bool:
        """True when the server closed and said nothing more."""
        with contextlib.suppress(OSError):
            return self.line() == b""
        return True
