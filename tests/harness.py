"""A gateway as a process of its own, and small peers for it: what the end-to-end tests and the measurements share."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme

ROOT = Path(__file__).resolve().parent.parent

#: domains of the test province
OURS = "tinhdemo.gov.vn"


def out_of_proportion(whole: Callable[[], object], quarter: Callable[[], object]) -> str:
    """What `whole` takes compared with `quarter`, the same over a quarter of the input, when it is far more than four
    times as much (quadratic is sixteen times); empty when not.

    Said only when five pairs of measurements agree: what disturbs one of them, on a machine that does other things,
    disturbs no five, and what grows out of proportion does so each time.
    """

    def spent(work: Callable[[], object]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    said = ""
    for _ in range(5):
        long = spent(whole)
        if long < 0.5:  # CPU seconds below which nothing is asked
            return ""
        short = max(spent(quarter), spent(quarter))
        if long <= 9 * short:
            return ""
        said = f"{long:.2f} s, a quarter of it {short:.2f} s"
    return said


class Sink:
    """A next hop that accepts everything, or answers as told, and keeps what it got: (sender, recipients, bytes).

    `answers` maps a stage (`connect`, `mail`, `rcpt`, `data`, `dot`) to a reply line, or to a function of the command
    line that returns one; None closes the connection without an answer. `wire` is every octet that came, by connection.
    """

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.wire: list[bytearray] = []
        self.answers: dict[str, Any] = {}
        self.arrived = threading.Condition()
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    sink._serve(_Tapped(self.rfile, sink.wire), self.wfile)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _answer(self, stage: str, line: str, usual: str) -> bytes | None:
        answer = self.answers.get(stage, usual)
        if callable(answer):
            answer = answer(line) or usual
        return None if answer is None else f"{answer}\r\n".encode()

    def _serve(self, lines: Any, out: Any) -> None:
        greeting = self._answer("connect", "", "220 sink")
        if greeting is None:
            return
        out.write(greeting)
        sender, recipients = "", []
        while line := lines.readline():
            command = line.decode("utf-8", "replace").strip()
            verb = command[:4].upper()
            if verb in ("EHLO", "LHLO"):
                out.write(b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 0\r\n")
            elif verb == "MAIL":
                sender, recipients = _path(command), []
                if (answer := self._answer("mail", command, "250 ok")) is None:
                    return
                out.write(answer)
            elif verb == "RCPT":
                if (answer := self._answer("rcpt", command, "250 ok")) is None:
                    return
                if answer.startswith(b"250"):
                    recipients.append(_path(command))
                out.write(answer)
            elif verb == "DATA":
                usual = "354 go" if recipients else "554 no recipients"  # as a pipelining server must
                if (answer := self._answer("data", command, usual)) is None:
                    return
                out.write(answer)
                if not answer.startswith(b"354"):
                    continue
                body = bytearray()
                while (row := lines.readline()) not in (b".\r\n", b""):
                    body += row[1:] if row.startswith(b".") else row
                if not row:
                    return
                if (answer := self._answer("dot", command, "250 taken")) is None:
                    return
                if answer.startswith(b"250"):
                    with self.arrived:
                        self.messages.append((sender, recipients, bytes(body)))
                        self.arrived.notify_all()
                out.write(answer)
            elif verb == "QUIT":
                out.write(b"221 bye\r\n")
                return
            else:
                out.write(b"250 ok\r\n")

    def wait(self, count: int, seconds: float = 240) -> list[tuple[str, list[str], bytes]]:
        """Until `count` messages have arrived; fails with what came when they have not."""
        with self.arrived:
            ok = self.arrived.wait_for(lambda: len(self.messages) >= count, seconds)
        assert ok, f"{len(self.messages)} of {count} messages arrived"
        return self.messages

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Tapped:
    """A reader that writes down what it reads."""

    def __init__(self, lines: Any, wire: list[bytearray]) -> None:
        self._lines, self._seen = lines, bytearray()
        wire.append(self._seen)

    def readline(self) -> bytes:
        line = self._lines.readline()
        self._seen += line
        return line


def _path(command: str) -> str:
    found = re.search(r"<([^>]*)>", command)
    return found[1] if found else ""


class PasswordServer:
    """The existing mail server, as far as submission needs it: IMAP LOGIN for one password for everybody."""

    def __init__(self, password: str = "mat-khau-dung") -> None:
        expected = password

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")
                while line := self.rfile.readline():
                    tag, _, command = line.decode("utf-8", "replace").strip().partition(" ")
                    verb = command.split(" ")[0].upper()
                    if verb == "CAPABILITY":
                        self.wfile.write(b"* CAPABILITY IMAP4rev1\r\n")
                    elif verb == "LOGOUT":
                        self.wfile.write(f"* BYE bye\r\n{tag} OK bye\r\n".encode())
                        return
                    if verb == "LOGIN":
                        size = re.search(r"\{(\d+)\}$", command)
                        while size:
                            self.wfile.write(b"+ go\r\n")
                            rest = self.rfile.read(int(size[1])).decode() + self.rfile.readline().decode().strip()
                            command += rest
                            size = re.search(r"\{(\d+)\}$", rest)
                        good = expected in command
                        self.wfile.write(f"{tag} {'OK in' if good else 'NO wrong'}\r\n".encode())
                    else:
                        self.wfile.write(f"{tag} OK done\r\n".encode())

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.password = password
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


DIRECTORY = f"""
agencies:
  - id: ubnd
    name: Ủy ban nhân dân tỉnh Demo
    short_name: UBND
    level: province
    domains: [{OURS}]
    valid_from: 2004-01-01
"""

POLICY = "profile: national_2026\n"


#: The budget of an inspection in a configuration that sets none of its own: empty, so the product's defaults, which is
#: right for measurements. The tests have the times of `PATIENCE` (conftest.py).
BUDGET = ""
#: Times of an inspection that no machine exceeds: what is found in a message must not hang on how busy the machine is.
PATIENCE = {"seconds": 600.0, "late": 1200.0, "file_seconds": 300.0, "ocr_seconds": 300.0}


def write_config(
    folder: Path, *, hop_port: int, auth_port: int, extra: str = "", policy: str = POLICY, directory: str = DIRECTORY
) -> Path:
    """A configuration folder on ports that the system chooses. Returns its path."""
    config = folder / "config"
    (config / "directory").mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(config / "tls.pem"))
    authority.cert_pem.write_to_path(str(config / "ca.pem"))
    (config / "gateway.yaml").write_text(
        f"""
hostname: cong.{OURS}
data: ../data
domains: [{OURS}]
tls: {{certificate: tls.pem, key: tls.pem}}
passwords: {{protocol: imap, host: 127.0.0.1, port: {auth_port}, tls: none, timeout: 60}}
listeners:
  - {{kind: relay, port: 0}}
  - {{kind: submission, port: 0}}
  - {{kind: submissions, port: 0}}
  - {{kind: filter, port: 0, networks: [127.0.0.0/8], xforward_from: [127.0.0.0/8], next_hop: back}}
next_hops:
  - {{name: back, host: 127.0.0.1, port: {hop_port}, tls: none, domains: ["*"]}}
{"" if "budget:" in extra else BUDGET}
{extra}
""",
        encoding="utf-8",
    )
    (config / "policy.yaml").write_text(policy, encoding="utf-8")
    (config / "directory" / "agencies.yaml").write_text(directory, encoding="utf-8")
    for part in ("profiles", "lists", "citations.yaml", "templates"):
        source = ROOT / "config" / part
        if source.exists() and not (config / part).exists():
            (config / part).symlink_to(source)
    return config


#: Every gateway that a test started: conftest.py shows the logs when the test fails, and ends what is left of them.
STARTED: list[Gateway] = []


class Gateway:
    """`congvan serve` as a process. `start` returns when it says READY=1."""

    def __init__(self, config: Path, environment: dict[str, str] | None = None) -> None:
        self.config = config
        self.data = config.parent / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = config.parent / "gateway.log"
        self._environment = environment or {}

    def start(self, seconds: float = 240) -> Gateway:
        # A name and no file (unix(7)): a file's path may have 107 letters at most, which pytest's folders can exceed.
        address = f"@congvan-{os.getpid()}-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, self.log.open("ab") as log:
            told.bind("\0" + address[1:])
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "serve", "--config", str(self.config)],
                env={**os.environ, "NOTIFY_SOCKET": address, "PYTHONPATH": str(ROOT), **self._environment},
                stderr=log, stdout=log, cwd=self.config.parent,
            )  # fmt: skip
            deadline = time.monotonic() + seconds
            while True:
                ready, _, _ = select.select([told], [], [], 0.2)
                if ready and b"READY=1" in told.recv(4096):
                    break
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the gateway did not start:\n{self.told()}")
        STARTED.append(self)
        self.ports = {
            key.split(":")[0]: port for key, port in json.loads((self.data / "ports.json").read_text()).items()
        }
        return self

    def told(self) -> str:
        """The end of its log, for the message of a test that failed."""
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def stop(self, seconds: float = 240) -> int:
        """Its exit code after SIGTERM. One that does not end in this time is killed, and told with its log."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not end:\n{self.told()}") from None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def command(self, *words: str, code: int | None = 0) -> str:
        """Run `congvan …` on this configuration; checks the exit code unless `code` is None."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words, "--config", str(self.config)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
