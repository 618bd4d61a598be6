"""Passwords asked of a mail server: a real Dovecot, our own SMTP door, and servers that break."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway import config
from gateway.message import AuthResult
from gateway.passwords import DOWN_SECONDS, PasswordChecker
from tests import peers
from tests.door import _CA, PASSWORD, Door

GOOD, BAD, LOCKED, UNAVAILABLE = AuthResult.GOOD, AuthResult.BAD, AuthResult.LOCKED, AuthResult.UNAVAILABLE


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counting(PasswordChecker):
    """Asks a function instead of a server, and counts."""

    def __init__(self, answer: Callable[[str, str], AuthResult], **options: Any) -> None:
        self.clock = Clock()
        self.asked = 0
        self.answer = answer
        super().__init__(config.PasswordCheck(host="127.0.0.1", port=1, **options), self.clock)

    def _ask(self, login: str, password: str, host: str) -> AuthResult:
        self.asked += 1
        return self.answer(login, password)


def right(login: str, password: str) -> AuthResult:
    return GOOD if password == PASSWORD else BAD


def run(checker: PasswordChecker, *tries: tuple[str, str] | tuple[str, str, str]) -> list[AuthResult]:
    async def go() -> list[AuthResult]:
        return [await checker.check(login, password, *(host or ["192.0.2.1"])) for login, password, *host in tries]

    return asyncio.run(go())


def test_a_good_password_is_asked_once_and_remembered_for_a_while() -> None:
    checker = Counting(right, cache=60)
    assert run(checker, ("a", PASSWORD), ("a", PASSWORD), ("A", PASSWORD)) == [GOOD] * 3
    assert checker.asked == 2, "another spelling of the login is another question"
    assert run(checker, ("A", "wrong")) == [BAD]
    checker.clock.now += 61
    assert run(checker, ("A", PASSWORD)) == [GOOD] and checker.asked == 4


def test_nothing_readable_is_remembered() -> None:
    checker = Counting(right)
    run(checker, ("a", PASSWORD))
    assert PASSWORD not in repr(checker._good) and PASSWORD.encode() not in repr(checker._good).encode()
    one = checker._good["a"]
    run(checker, ("b", PASSWORD))
    assert checker._good["b"].digest != one.digest and checker._good["b"].salt != one.salt
    checker.close()
    assert not checker._good


def test_wrong_passwords_lock_the_login_out_for_a_while() -> None:
    checker = Counting(right, failures=3, lockout=900)
    assert run(checker, *[("a", "x", f"192.0.2.{n}") for n in range(4)]) == [BAD, BAD, BAD, LOCKED]
    assert checker.asked == 3
    assert run(checker, ("A", PASSWORD)) == [LOCKED], "not even the right one"
    assert run(checker, ("b", PASSWORD)) == [GOOD]
    checker.clock.now += 901
    assert run(checker, ("a", PASSWORD)) == [GOOD]


def test_old_failures_do_not_count() -> None:
    checker = Counting(right, failures=3, lockout=900)
    for _ in range(10):
        assert run(checker, ("a", "x")) == [BAD]
        checker.clock.now += 500
    assert run(checker, ("a", PASSWORD)) == [GOOD]


def test_a_good_password_forgives_earlier_failures() -> None:
    checker = Counting(right, failures=3)
    for _ in range(5):
        assert run(checker, ("a", "x"), ("a", "x"), ("a", PASSWORD)) == [BAD, BAD, GOOD]


def test_strangers_cannot_lock_a_known_host_out() -> None:
    checker = Counting(right, failures=3, cache=0)
    assert run(checker, ("a", PASSWORD, "10.0.0.1")) == [GOOD]
    assert run(checker, *[("a", "x", "203.0.113.5")] * 4)[-1] == LOCKED
    assert run(checker, ("a", PASSWORD, "10.0.0.2")) == [LOCKED]
    assert run(checker, ("a", PASSWORD, "10.0.0.1")) == [GOOD]
    assert run(checker, *[("a", "x", "10.0.0.1")] * 4)[-1] == LOCKED, "nor may the known host guess for ever"


def test_a_host_that_tries_many_logins_is_locked_out() -> None:
    checker = Counting(right, failures=2)
    answers = run(checker, *[(f"user{n}", "x", "203.0.113.5") for n in range(25)])
    assert answers == [BAD] * 20 + [LOCKED] * 5
    assert run(checker, ("user30", PASSWORD, "203.0.113.5"), ("user30", PASSWORD, "10.0.0.1")) == [LOCKED, GOOD]


def test_a_burst_of_guesses_does_not_outrun_the_count() -> None:
    checker = Counting(right, failures=3)

    async def burst() -> list[AuthResult]:
        return await asyncio.gather(*(checker.check("a", f"x{n}", "192.0.2.1") for n in range(50)))

    answers = asyncio.run(burst())
    assert answers.count(BAD) == 3 and checker.asked == 3 and not checker._locks


def test_a_burst_of_one_persons_clients_asks_once() -> None:
    checker = Counting(right)

    async def burst() -> list[AuthResult]:
        return await asyncio.gather(*(checker.check("a", PASSWORD, "192.0.2.1") for _ in range(20)))

    assert asyncio.run(burst()) == [GOOD] * 20 and checker.asked == 1


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("", "x"),
        ("a", ""),
        ("a\r\nb", "x"),
        ("a", "x\r\nA1 DELETE INBOX"),
        ("a\0", "x"),
        ("a" * 256, "x"),
        ("a", "x" * 1025),
    ],
)
def test_what_could_be_a_command_is_not_passed_on(login: str, password: str) -> None:
    checker = Counting(right)
    assert run(checker, (login, password)) == [BAD] and checker.asked == 0


def test_a_server_that_is_down_is_unavailable_and_left_alone_for_a_moment() -> None:
    answers = [UNAVAILABLE, GOOD]
    checker = Counting(lambda *_: answers.pop(0), failures=1)
    assert run(checker, ("a", "x"), ("b", "x")) == [UNAVAILABLE, UNAVAILABLE] and checker.asked == 1
    checker.clock.now += DOWN_SECONDS + 1
    assert run(checker, ("a", "x")) == [GOOD], "and nobody is blamed"


def test_a_flood_of_logins_does_not_fill_the_memory(monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.passwords.ENTRIES", 10)
    checker = Counting(lambda *_: BAD, failures=100)
    run(checker, *[(f"user{n}", "x", f"192.0.2.{n}") for n in range(50)])
    assert len(checker._failures) == 10


# --- broken servers ---


@contextlib.contextmanager
def babbler(*answers: bytes | None) -> Iterator[int]:
    """A server that says these things whatever it is asked; None: it hangs up."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(60)

    def serve() -> None:
        with contextlib.suppress(OSError):
            peer, _ = server.accept()
            with peer:
                peer.settimeout(60)
                for number, answer in enumerate(answers):
                    if answer is None:
                        return
                    if number and not peer.recv(4096):
                        return
                    peer.sendall(answer)
                peer.recv(4096)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
        thread.join(10)


@pytest.mark.parametrize("protocol", ["imap", "smtp"])
@pytest.mark.parametrize(
    "answers",
    [
        (None,), (b"garbage\r\n", None), (b"* OK hi\r\n", None), (b"220 hi\r\n", b"250 hi\r\n", b"454 4.7.0 later\r\n"),
        (b"220 hi\r\n", b"250 hi\r\n", b"538 5.7.11 TLS please\r\n"), (b"220 hi\r\n", b"250 hi\r\n", None),
        (b"* BYE full\r\n", None), (b"\xff\xfe\0\0" * 100 + b"\r\n", None), (b"421 busy\r\n", None),
    ],
)  # fmt: skip
def test_a_broken_server_is_unavailable_never_a_wrong_password(
    protocol: Any, answers: tuple[bytes | None, ...]
) -> None:
    with babbler(*answers) as port:
        settings = config.PasswordCheck(protocol=protocol, host="127.0.0.1", port=port, tls="none", timeout=2)
        assert run(PasswordChecker(settings), ("a", "x")) == [UNAVAILABLE]


def test_nobody_listening_is_unavailable() -> None:
    port = peers.free_port()
    for tls in ("none", "starttls", "implicit"):
        settings = config.PasswordCheck(host="127.0.0.1", port=port, tls=tls, timeout=2)  # type: ignore[arg-type]
        assert run(PasswordChecker(settings), ("a", "x")) == [UNAVAILABLE]


# --- real servers ---


@pytest.mark.parametrize("kind", ["submission", "submissions"])
def test_over_smtp(tmp_path: Path, kind: str) -> None:
    with Door(tmp_path, kind) as door:
        ca = tmp_path / "ca.pem"
        _CA[0].cert_pem.write_to_path(str(ca))
        settings = config.PasswordCheck(
            protocol="smtp",
            host="localhost",
            port=door.port,
            tls="starttls" if kind == "submission" else "implicit",
            ca=ca,
            timeout=60,
        )
        assert run(PasswordChecker(settings), ("van.thu", PASSWORD), ("van.thu", "sai")) == [GOOD, BAD]
        strict = settings.model_copy(update={"ca": None})
        assert run(PasswordChecker(strict), ("van.thu", PASSWORD)) == [UNAVAILABLE], "an unknown certificate"
        lenient = settings.model_copy(update={"ca": None, "verify": False})
        assert run(PasswordChecker(lenient), ("van.thu", PASSWORD)) == [GOOD]
        door.passwords.answer = UNAVAILABLE
        assert run(PasswordChecker(settings), ("van.thu", PASSWORD)) == [UNAVAILABLE]


@pytest.fixture(scope="module")
def dovecot(tmp_path_factory: Any) -> Iterator[dict[str, Any]]:
    """A private Dovecot with STARTTLS, TLS from the start, and two accounts."""
    reason = peers.missing("dovecot")
    if reason:
        pytest.skip(f"Dovecot: {reason}")
    folder = tmp_path_factory.mktemp("dovecot")
    for part in (folder, *folder.parents):
        if part.stat().st_uid == os.geteuid() and not part.stat().st_mode & 0o001:
            part.chmod(part.stat().st_mode | 0o011)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    (folder / "users").write_text(
        f"van.thu@x.vn:{{PLAIN}}{PASSWORD}:65534:65534::{folder}/mail\n"
        f'ngoac:{{PLAIN}}a"b\\c %:65534:65534::{folder}/mail\n'
    )
    (folder / "users").chmod(0o644)
    (folder / "mail").mkdir()
    shutil.chown(folder / "mail", "nobody", "nogroup")
    plain, secure = peers.free_port(), peers.free_port()
    (folder / "dovecot.conf").write_text(
        f"""
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
auth_verbose = yes
protocols = imap
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = yes
login_trusted_networks = 127.0.0.1
auth_failure_delay = 0
auth_mechanisms = plain login
default_internal_user = nobody
default_login_user = nobody
default_internal_group = nogroup
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/mail/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    address = 127.0.0.1
    port = {plain}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {secure}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""
    )
    process = subprocess.Popen(["dovecot", "-F", "-c", str(folder / "dovecot.conf")])
    try:
        peers.wait_port(plain, process=process, log=folder / "dovecot.log")
        first = config.PasswordCheck(host="localhost", port=plain, tls="starttls", verify=False, timeout=60)
        until = time.monotonic() + 240  # it listens before it can answer
        while run(PasswordChecker(first), ("van.thu@x.vn", PASSWORD)) == [UNAVAILABLE]:
            assert time.monotonic() < until, "Dovecot does not answer"
        yield {"folder": folder, "starttls": plain, "implicit": secure, "ca": folder / "ca.pem"}
    finally:
        peers.end(process)


@pytest.mark.peer
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_over_imap_with_dovecot(dovecot: dict[str, Any], tls: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    settings = config.PasswordCheck(
        host="localhost", port=dovecot[tls], tls=tls, ca=dovecot["ca"], timeout=60, failures=50
    )
    checker = PasswordChecker(settings)
    tries = [("van.thu@x.vn", PASSWORD), ("van.thu@x.vn", "sai"), ("ngoac", 'a"b\\c %'), ("nobody@x.vn", PASSWORD)]
    assert run(checker, *tries) == [GOOD, BAD, GOOD, BAD]
    assert PASSWORD not in caplog.text and "sai" not in caplog.text
    log = (dovecot["folder"] / "dovecot.log").read_text()
    assert "user=<van.thu@x.vn>, method=PLAIN, rip=192.0.2.1" in log, "the client's address is passed on"
    # a certificate nobody vouches for, and one for another name
    strict = settings.model_copy(update={"ca": None})
    assert run(PasswordChecker(strict), ("van.thu@x.vn", PASSWORD)) == [UNAVAILABLE]
    other = settings.model_copy(update={"host": "127.0.0.2"})
    assert run(PasswordChecker(other), ("van.thu@x.vn", PASSWORD)) == [UNAVAILABLE]
