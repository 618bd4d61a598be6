# ruff: noqa: E501 - an attack is a row of a table
"""Hostile conversations with a running gateway: what it answers, what leaves it, and that it stays well.

    ./run measure wire_attacks

A daemon of its own with a next hop that keeps what it gets. Each attack is a list of steps: octets to send, or a number
of replies to wait for. Counted: messages that were taken without being whole and meant, envelopes at the next hop that
nobody sent, replies that tell of the inside, and conversations after which honest mail did not pass.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import struct
import sys
import tempfile
from pathlib import Path

from tests.harness import OURS, Gateway, PasswordServer, Sink, write_config

TO = f"van.thu@{OURS}"
BAD = f"smuggled@{OURS}"
MAIL = (
    b"From: <a@example.vn>\r\nTo: <"
    + TO.encode()
    + b">\r\nSubject: x\r\nDate: Fri, 20 Nov 2026 09:00:00 +0700\r\nMessage-ID: <%d@x>\r\n\r\nXin chao\r\n"
)
OPEN: list[bytes | int] = [1, b"EHLO client.example\r\n", 1]
ENVELOPE: list[bytes | int] = [b"MAIL FROM:<a@example.vn>\r\n", 1, f"RCPT TO:<{TO}>\r\n".encode(), 1, b"DATA\r\n", 1]
SMUGGLED = f"MAIL FROM:<a@example.vn>\r\nRCPT TO:<{BAD}>\r\nDATA\r\nSubject: y\r\n\r\ny\r\n.\r\n".encode()


def command(line: bytes) -> list[bytes | int]:
    """A session with one odd command, then an attempt to go on as if it had been good."""
    return [*OPEN, line + b"\r\n", 1, b"QUIT\r\n"]


def rcpt(path: str) -> list[bytes | int]:
    return [
        *OPEN,
        b"MAIL FROM:<a@example.vn>\r\n",
        1,
        f"RCPT TO:{path}\r\n".encode(),
        1,
        b"DATA\r\n",
        1,
        MAIL % 2 + b".\r\n",
        1,
        b"QUIT\r\n",
    ]


def data(octets: bytes, *more: bytes) -> list[bytes | int]:
    return [*OPEN, *ENVELOPE, octets, *more]


_LINE_ENDS = (
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\r\n\n",
    b"\0\r\n",
    b"\r\0\n",
    b"\x0b\r\n",
    b"\x85",
    b"\xe2\x80\xa8",
)
_ENDS = [
    first + b"." + second for first in _LINE_ENDS for second in _LINE_ENDS if (first, second) != (b"\r\n", b"\r\n")
]


def attacks() -> dict[str, tuple[str, list[bytes | int], int]]:
    """name: (listener, steps, messages that may be taken)."""
    found: dict[str, tuple[str, list[bytes | int], int]] = {}

    def add(name: str, steps: list[bytes | int], taken: int = 0, where: str = "relay") -> None:
        found[name] = (where, steps, taken)

    for number, end in enumerate(_ENDS):
        # An end of data of another form, then a second transaction: at most one message may come of it.
        add(f"end {end!r}", data(MAIL % number + end, SMUGGLED, b".\r\n", b"QUIT\r\n"), 1)
        add(
            f"end {end!r}, octet by octet",
            data(*[bytes([b]) for b in MAIL % number + end + SMUGGLED[:40]], b"\r\n.\r\n"),
            1,
        )
    for number in range(1, 5):
        add(f"end cut at {number}", data(MAIL % 900 + b"\r\n.\r\n"[:number]), 0)
    for name, line in {
        "NUL": b"MAIL FROM:<a\0@example.vn>", "NUL behind": b"NOOP\0", "8-bit verb": b"MA\xccL FROM:<a@example.vn>", "bad UTF-8": b"MAIL FROM:<\xff\xfe@example.vn>",
        "bare CR": b"MAIL FROM:<a@example.vn>\rRCPT TO:<" + BAD.encode() + b">", "bare LF": b"MAIL FROM:<a@example.vn>\nRCPT TO:<" + BAD.encode() + b">",
        "very long": b"NOOP " + b"x" * 100_000, "endless": b"NOOP " + b"x" * 3_000_000, "long path": b"MAIL FROM:<" + b"a" * 5000 + b"@example.vn>",
        "no blank": b"MAILFROM:<a@example.vn>", "tab": b"MAIL\tFROM:<a@example.vn>", "blank before": b" MAIL FROM:<a@example.vn>", "two commands": b"MAIL FROM:<a@example.vn> RCPT TO:<b@x.vn>",
        "empty": b"", "blanks": b"     ", "BDAT": b"BDAT 100 LAST", "BURL": b"BURL imap://x LAST", "ETRN": b"ETRN x", "EXPN": b"EXPN staff", "VRFY": b"VRFY root", "TURN": b"TURN", "SEND": b"SEND FROM:<a@b.vn>",
        "XCLIENT": b"XCLIENT ADDR=127.0.0.1 LOGIN=admin", "XFORWARD": b"XFORWARD ADDR=127.0.0.1", "XEXCH50": b"XEXCH50 1 1", "PROXY": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25", "DEBUG": b"DEBUG", "WIZ": b"WIZ",
        "AUTH": b"AUTH PLAIN AGEAYg==", "HTTP": b"GET / HTTP/1.1", "format": b"NOOP %s%s%n%x", "template": b"EHLO {0.__class__} ${jndi:ldap://x}", "shell": b"MAIL FROM:<`id`@example.vn>",
        "escape": b"NOOP \x1b[2J", "two MAIL": b"MAIL FROM:<a@b.vn>\r\nMAIL FROM:<c@d.vn>", "SIZE lie, huge": b"MAIL FROM:<a@b.vn> SIZE=99999999999999999999", "SIZE minus": b"MAIL FROM:<a@b.vn> SIZE=-1", "SIZE letters": b"MAIL FROM:<a@b.vn> SIZE=1e9",
        "SIZE of 21 digits": b"MAIL FROM:<a@b.vn> SIZE=999999999999999999999", "BODY": b"MAIL FROM:<a@b.vn> BODY=BINARYMIME", "twice": b"MAIL FROM:<a@b.vn> SIZE=1 SIZE=2", "unknown": b"MAIL FROM:<a@b.vn> X=1", "RET": b"MAIL FROM:<a@b.vn> RET=ALL",
        "ENVID": b"MAIL FROM:<a@b.vn> ENVID=+0D+0ARCPT", "AUTH=": b"MAIL FROM:<a@b.vn> AUTH=+0D+0A", "SMTPUTF8 not asked": "MAIL FROM:<vănthư@example.vn>".encode(), "EHLO nothing": b"EHLO", "EHLO two": b"EHLO a b", "EHLO long": b"EHLO " + b"a" * 300,
        "literal": b"MAIL FROM:<a@[300.1.1.1]>", "literal IPv6": b"MAIL FROM:<a@[IPv6:::g]>", "zone": b"MAIL FROM:<a@[IPv6:fe80::1%25eth0]>", "right to left": "MAIL FROM:<a@ex\u202eample.vn> SMTPUTF8".encode(), "label of 64": b"MAIL FROM:<a@" + b"a" * 64 + b".vn>",
    }.items():  # fmt: skip
        add(f"command: {name}", command(line))
    for name, path in {
        "source route": f"<@x.vn,@y.vn:smuggled@{OURS}>", "percent": f"<a%x.vn@{OURS}>", "bang": f"<x.vn!a@{OURS}>", "route to a stranger": f"<@{OURS}:a@stranger.example>", "two at": f"<a@stranger.example@{OURS}>",
        "quoted at": f'<"a@stranger.example"@{OURS}>', "quoted": f'<"van thu"@{OURS}>', "quoted line end": f'<"a\\\r"@{OURS}>', "comment": f"<van.thu(x)@{OURS}>", "no brackets": TO, "brackets inside": f"<<{TO}>>", "trailing": f"<{TO}>x",
        "stranger": "<a@stranger.example>", "stranger below": f"<a@{OURS}.stranger.example>", "stranger before": f"<a@x{OURS}>", "dot behind": f"<a@{OURS}.>", "literal": "<a@[127.0.0.1]>", "punycode": "<a@xn--tnhdemo-fwa.gov.vn>",
        "empty": "<>", "no local": f"<@{OURS}>", "no domain": "<a@>", "NOTIFY": f"<{TO}> NOTIFY=NEVER,SUCCESS", "ORCPT": f"<{TO}> ORCPT=rfc822;a+0Ab", "ORCPT without kind": f"<{TO}> ORCPT=abc", "parameter": f"<{TO}> X=1", "local of 65": f"<{'a' * 65}@{OURS}>",
        "dots": f"<a..b@{OURS}>", "list": f"<a@{OURS}>,<b@{OURS}>", "pipe": f"<|id@{OURS}>", "path": f"</etc/passwd@{OURS}>", "include": f"<:include:/etc/passwd@{OURS}>", "minus": f"<-oQ/tmp@{OURS}>",
    }.items():  # fmt: skip
        may = name in ("source route", "percent", "bang", "quoted at", "quoted", "pipe", "path", "minus")
        add(f"recipient: {name}", rcpt(path), 1 if may else 0)
    add("group behind STARTTLS", [*OPEN, b"STARTTLS\r\n" + SMUGGLED, 1])
    add(
        "group behind DATA",
        [
            *OPEN,
            b"MAIL FROM:<a@example.vn>\r\n" + f"RCPT TO:<{TO}>\r\nDATA\r\n".encode() + MAIL % 5 + b".\r\n" + SMUGGLED,
        ],
    )
    add("spoke first", [SMUGGLED])
    add("TLS to a plain listener", [1, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)])
    add("half closed in data", data(MAIL % 6))
    add("half closed after the end", data(MAIL % 7 + b".\r\n"), 1)
    add("nothing but line ends", [1, b"\r\n" * 5000])
    add("two thousand NOOP", [*OPEN, b"NOOP\r\n" * 2000])
    add("two thousand RSET", [*OPEN, b"RSET\r\n" * 2000])
    add(
        "five thousand recipients",
        [
            *OPEN,
            b"MAIL FROM:<a@example.vn>\r\n",
            1,
            b"".join(b"RCPT TO:<a%d@%s>\r\n" % (n, OURS.encode()) for n in range(5000)),
        ],
    )
    add("a hundred thousand header lines", data(b"X: y\r\n" * 100_000 + b"\r\n.\r\n"), 1)
    add("header without end", data(b"X: " + b"y" * 60_000 + b"\r\n" + MAIL % 8 + b".\r\n"), 1)
    add("a line of a megabyte", data(b"x" * 1_000_000 + b"\r\n.\r\n", SMUGGLED))
    add("dots", data(b"".join(b"." * n + b"\r\n" for n in range(2, 400)) + b".\r\n"), 1)
    add("only the end", data(b".\r\n"), 1)
    add("loop", data(b"Received: from x by y; Fri, 20 Nov 2026 09:00:00 +0700\r\n" * 120 + MAIL % 9 + b".\r\n"), 0)
    for where in ("submission", "relay", "filter"):
        add(
            f"AUTH over plain text at {where}",
            [*OPEN, b"AUTH PLAIN " + base64.b64encode(b"\0a@b\0mat-khau-dung") + b"\r\n", 1, *ENVELOPE[:1], 1],
            0,
            where,
        )
    plain = base64.b64encode(b"\0van.thu@tinhdemo.gov.vn\0sai").decode()
    for name, lines in {
        "junk": ["AUTH PLAIN !!!!"], "cancelled": ["AUTH PLAIN", "*"], "oversize": ["AUTH PLAIN " + "A" * 13000], "unknown": ["AUTH CRAM-MD5"], "XOAUTH2": ["AUTH XOAUTH2 " + plain], "nothing": ["AUTH PLAIN ="],
        "two NUL": ["AUTH PLAIN " + base64.b64encode(b"\0\0\0").decode()], "another identity": ["AUTH PLAIN " + base64.b64encode(b"root\0van.thu@tinhdemo.gov.vn\0mat-khau-dung").decode()], "LOGIN junk": ["AUTH LOGIN", "%%%", "%%%"],
        "LOGIN empty": ["AUTH LOGIN", "", ""], "line end in the name": ["AUTH PLAIN " + base64.b64encode(b"\0a\r\nb\0mat-khau-dung").decode()], "command as an answer": ["AUTH LOGIN", "MAIL FROM:<a@b.vn>", "QUIT"], "wrong": ["AUTH PLAIN " + plain],
    }.items():  # fmt: skip
        add(
            f"AUTH: {name}",
            [
                *OPEN,
                *[step for line in lines for step in (line.encode() + b"\r\n", 1)],
                b"MAIL FROM:<van.thu@tinhdemo.gov.vn>\r\n",
                1,
                b"QUIT\r\n",
            ],
            0,
            "submissions",
        )
    add("AUTH and a group", [*OPEN, b"AUTH LOGIN\r\nMAIL FROM:<a@b.vn>\r\n" + SMUGGLED, 1], 0, "submissions")
    add("MAIL without login", [*OPEN, *ENVELOPE[:1], 1], 0, "submissions")
    return found


_REPLY = re.compile(rb"(?:\d{3}-[^\n]*\n)*\d{3} [^\n]*\n|\d{3}\r?\n")


class Peer:
    """One conversation."""

    def __init__(self, port: int, tls: bool) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard = b""
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)

    def play(self, steps: list[bytes | int]) -> bytes:
        """Everything the server said."""
        position = 0
        with contextlib.suppress(OSError):
            for step in steps:
                if isinstance(step, bytes):
                    self.socket.sendall(step)
                    continue
                for _ in range(step):
                    while not (found := _REPLY.match(self.heard, position)):
                        more = self.socket.recv(65536)
                        if not more:
                            return self.heard
                        self.heard += more
                    position = found.end()
        with contextlib.suppress(OSError):
            if isinstance(self.socket, ssl.SSLSocket):
                self.socket.close()
                return self.heard
            self.socket.shutdown(socket.SHUT_WR)
            while more := self.socket.recv(65536):
                self.heard += more
        return self.heard

    def reset(self) -> None:
        """Cut with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def taken(heard: bytes) -> int:
    return len(re.findall(rb"(?m)^250 2\.0\.0 [^\r\n]*\b[0-9A-Za-z-]{10,}", heard.replace(b"250 2.0.0 Ok\r\n", b"")))


def honest(gateway: Gateway, number: int) -> bool:
    peer = Peer(gateway.ports["relay"], False)
    return taken(peer.play([*OPEN, *ENVELOPE, MAIL % (100_000 + number) + b".\r\n", 1, b"QUIT\r\n"])) == 1


def run(folder: Path) -> dict[str, object]:
    sink, passwords = Sink(), PasswordServer()
    extra = "limits: {command_timeout: 60, new_connections_per_minute: 100000, connections_per_host: 1000, recipients: 200, errors_per_session: 20}"
    gateway = Gateway(write_config(folder, hop_port=sink.port, auth_port=passwords.port, extra=extra)).start()
    wrong: list[str] = []
    good = count = 0
    try:
        for count, (name, (where, steps, most)) in enumerate(attacks().items(), 1):
            heard = Peer(gateway.ports[where], where == "submissions").play(steps)
            got = taken(heard)
            good += got
            if got > most:
                wrong.append(f"{name}: {got} taken")
            if re.search(rb"(?i)traceback|exception|errno|/work|/tmp|\.py\b|aiosmtpd", heard):
                wrong.append(f"{name}: tells of the inside: {heard[-200:]!r}")
            for line in heard.replace(b"\r\n", b"\n").split(b"\n"):
                if line and (not re.match(rb"\d{3}[ -]", line) or b"\r" in line or any(b > 126 for b in line)):
                    wrong.append(f"{name}: odd reply {line[:80]!r}")
                    break
            if count % 25 == 0:
                good += 1
                if not honest(gateway, count):
                    wrong.append(f"after {name}: honest mail did not pass")
        for cut in range(0, len(OPEN) + len(ENVELOPE)):  # RST at each moment
            peer = Peer(gateway.ports["relay"], False)
            position = [step for step in [*OPEN, *ENVELOPE][:cut]]
            with contextlib.suppress(OSError):
                for step in position:
                    if isinstance(step, bytes):
                        peer.socket.sendall(step)
                    else:
                        peer.socket.recv(65536)
            peer.reset()
            count += 1
        good += 1
        if not honest(gateway, 999):
            wrong.append("after RST: honest mail did not pass")
        messages = list(sink.wait(1))
        strangers = [to for _, to, _ in messages if not all(one.endswith(f"@{OURS}") for one in to)]
        if strangers:
            wrong.append(f"left for a stranger: {strangers[:3]}")
        bare = sum(bool(re.search(rb"(?<!\r)\n|\r(?!\n)", bytes(wire))) for wire in sink.wire)
        if bare:
            wrong.append(f"{bare} connections with bare CR or LF")
        code = gateway.stop()
        if code:
            wrong.append(f"exit code {code}")
        log = gateway.log.read_text(errors="replace")
        if "Traceback" in log or '"level": "error"' in log:
            wrong.append(
                "an error in the log: "
                + next(line for line in log.splitlines() if "Traceback" in line or '"error"' in line)[:300]
            )
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.kill()
        sink.close()
        passwords.close()
    return {"attacks": count, "taken": good, "wrong": wrong}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        row = run(Path(folder))
    print(json.dumps(row, ensure_ascii=False))
    return 1 if row["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
