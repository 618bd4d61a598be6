"""The whole house over real SMTP: what becomes of a message, and what the promises mean."""

from __future__ import annotations

import base64
import hashlib
import json
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest

from tests import harness

PROVINCE = f"ubnd@{harness.OURS}"
CITIZEN = "nguoidan@citizen.example"


def letter(
    subject: str = "Kiến nghị về đường thôn", text: str = "Kính gửi quý cơ quan.", sender: str = CITIZEN
) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = PROVINCE
    message["Subject"] = subject
    name = hashlib.sha256(f"{subject}\0{text}".encode()).hexdigest()[:20]
    message["Message-ID"] = f"<{name}@citizen.example>"
    message["Date"] = "Mon, 02 Nov 2026 08:00:00 +0700"
    message.set_content(text, charset="utf-8", cte="base64")
    return message.as_bytes()


def relay(
    gateway: harness.Gateway, raw: bytes, sender: str = CITIZEN, recipients: tuple[str, ...] = (PROVINCE,)
) -> str:
    """The answer to the last command of one transaction from another server."""
    with smtplib.SMTP("127.0.0.1", gateway.ports["relay"], local_hostname="client.example", timeout=240) as client:
        client.ehlo()
        code, text = client.mail(sender)
        for recipient in recipients:
            if code == 250:
                code, text = client.rcpt(recipient)
        if code == 250:
            code, text = client.data(raw)
        return f"{code} {text.decode()}"


def submit(gateway: harness.Gateway, raw: bytes, sender: str, recipient: str, password: str) -> str:
    """The answer to a member of staff."""
    context = ssl.create_default_context(cafile=str(gateway.config / "ca.pem"))
    with smtplib.SMTP("localhost", gateway.ports["submission"], local_hostname="may-tram", timeout=240) as client:
        client.starttls(context=context)
        client.login(sender, password)
        code, text = client.mail(sender)
        if code == 250:
            code, text = client.rcpt(recipient)
        if code == 250:
            code, text = client.data(raw)
        return f"{code} {text.decode()}"


def query(gateway: harness.Gateway, statement: str) -> list[tuple]:
    with sqlite3.connect(f"file:{gateway.data / 'gateway.db'}?mode=ro", timeout=240, uri=True) as base:
        return base.execute(statement).fetchall()


def until(ask: Callable[[], bool], gateway: harness.Gateway, seconds: float = 240) -> None:
    """Until `ask` says yes, while the gateway runs."""
    deadline = time.monotonic() + seconds
    while not ask():
        assert gateway.process is not None and gateway.process.poll() is None, "the gateway has ended"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_conforming_mail_arrives_unchanged_and_is_archived(gateway: harness.Gateway, sink: harness.Sink) -> None:
    raw = letter()
    assert relay(gateway, raw).startswith("250")
    sender, recipients, arrived = sink.wait(1)[0]
    assert (sender, recipients) == (CITIZEN, [PROVINCE])
    assert arrived.endswith(raw), "the received bytes were changed"
    trace = arrived[: -len(raw)].decode()
    assert trace.startswith("Received: from client.example ([127.0.0.1])")
    case = trace.split("X-VBDT-Case: ")[1].split("\r\n")[0]

    shown = json.loads(gateway.command("archive", "show", case, "--json"))
    assert shown["case"] == case
    exported = gateway.data / "out.eml"
    gateway.command("archive", "export", case, "-o", str(exported))
    assert exported.read_bytes() == raw
    gateway.command("archive", "verify")


def test_the_same_message_offered_again_happens_once(gateway: harness.Gateway, sink: harness.Sink) -> None:
    raw = letter()
    first, second = relay(gateway, raw), relay(gateway, raw)
    assert first.startswith("250")
    assert second.startswith("250")
    sink.wait(1)
    assert query(gateway, "select count(*) from message where kind = 'mail'") == [(1,)]
    assert query(gateway, "select count(*) from event where kind = 'received'") == [(1,)]
    # and it goes to a recipient who was not named the first time, once
    assert relay(gateway, raw, recipients=(PROVINCE, f"vanthu@{harness.OURS}")).startswith("250")
    assert [one[1] for one in sink.wait(2)] == [[PROVINCE], [f"vanthu@{harness.OURS}"]]
    assert query(gateway, "select count(*) from event where kind = 'received'") == [(1,)]


SECRETS = {
    "subject": letter(subject="[TỐI MẬT] Phương án Kim Quy"),
    "body": letter(text="Kính gửi quý cơ quan.\n\nTỐI MẬT\n\nPhương án Kim Quy."),
    "spaced": letter(text="T Ố I   M Ậ T\n\nPhương án Kim Quy."),
    "decomposed": letter(text=unicodedata.normalize("NFD", "TUYỆT MẬT") + "\n\nPhương án Kim Quy."),
    "large": letter(text="TỐI MẬT\n\n" + "Phương án Kim Quy.\n" * 150_000),
}


@pytest.mark.parametrize("where", SECRETS)
def test_of_a_secret_nothing_stays(gateway: harness.Gateway, sink: harness.Sink, where: str) -> None:
    answer = relay(gateway, SECRETS[where])
    assert answer.split()[:4] == ["550", "5.7.1", "VBDT", "POLICY"], answer
    assert query(gateway, "select count(*) from tombstone") == [(1,)]
    assert query(gateway, "select count(*) from message where kind = 'mail'") == [(0,)]
    gateway.stop()
    encoded = base64.b64encode("Phương án Kim Quy".encode())
    traces = [
        b"Kim Quy",
        "Phương án Kim Quy".encode(),
        unicodedata.normalize("NFD", "Phương án Kim Quy").encode(),
        encoded[:-4],
        base64.b64encode(b"1" + "Phương án Kim Quy".encode())[4:-4],
    ]
    for path in gateway.config.parent.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(trace in data for trace in traces), path
    assert not sink.messages


def test_a_login_may_only_use_its_own_addresses(gateway: harness.Gateway, passwords: harness.PasswordServer) -> None:
    raw = letter(sender=PROVINCE)
    answer = submit(gateway, raw, PROVINCE, CITIZEN, passwords.password)
    assert answer.startswith("250"), answer
    with pytest.raises(smtplib.SMTPAuthenticationError):
        submit(gateway, raw, PROVINCE, CITIZEN, "sai")
    context = ssl.create_default_context(cafile=str(gateway.config / "ca.pem"))
    with smtplib.SMTP_SSL("localhost", gateway.ports["submissions"], context=context, timeout=240) as client:
        client.login(PROVINCE, passwords.password)
        code, text = client.mail(f"khac@{harness.OURS}")
        assert code == 553, text


def test_a_stranger_cannot_relay(gateway: harness.Gateway, sink: harness.Sink) -> None:
    assert relay(gateway, letter(), recipients=("ai-do@elsewhere.example",)).startswith("550 5.7.1")
    assert not sink.messages


def test_next_hop_down_then_back(gateway: harness.Gateway, sink: harness.Sink) -> None:
    sink.answers["mail"] = "451 4.3.0 later"
    assert relay(gateway, letter()).startswith("250")
    until(lambda: query(gateway, "select last_reply from recipient") == [("451 4.3.0 later",)], gateway)
    rows = [json.loads(row) for row in gateway.command("queue", "list", "--json").splitlines()]
    assert [one["state"] for row in rows for one in row["recipients"]] == ["queued"]
    sink.answers.clear()
    gateway.command("queue", "retry", rows[0]["case"])
    sink.wait(1)


def test_refused_by_the_next_hop_is_reported_only_to_senders_who_are_not_forged(
    gateway: harness.Gateway, sink: harness.Sink, passwords: harness.PasswordServer
) -> None:
    sink.answers["rcpt"] = lambda line: "550 5.1.1 no such user" if "khong-co" in line else None
    nobody = f"khong-co@{harness.OURS}"
    assert relay(gateway, letter(), recipients=(nobody,)).startswith("250")  # a stranger's sender may be forged
    assert submit(gateway, letter(sender=PROVINCE), PROVINCE, nobody, passwords.password).startswith("250")
    sender, recipients, report = sink.wait(1)[0]
    assert (sender, recipients) == ("", [PROVINCE])
    assert b"message/delivery-status" in report
    assert b"no such user" in report
    assert len(sink.messages) == 1


def test_database_locked_is_451_and_nothing_stays(gateway: harness.Gateway, sink: harness.Sink) -> None:
    with sqlite3.connect(gateway.data / "gateway.db", timeout=240, isolation_level=None) as base:
        base.execute("begin immediate")
        assert relay(gateway, letter()).startswith("451")
        base.execute("rollback")
    assert relay(gateway, letter()).startswith("250")
    assert len(sink.wait(1)) == 1


def test_low_disk_is_452_at_mail(tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer) -> None:
    config = harness.write_config(
        tmp_path, hop_port=sink.port, auth_port=passwords.port, extra="limits: {free_disk: 1000000G}"
    )
    gateway = harness.Gateway(config).start()
    assert relay(gateway, letter()).startswith("452 4.3.1")
    assert gateway.stop() == 0


def test_sigterm_finishes_what_was_begun(gateway: harness.Gateway, sink: harness.Sink) -> None:
    with socket.create_connection(("127.0.0.1", gateway.ports["relay"])) as connection:
        lines = connection.makefile("rb")
        for command in (
            b"",
            b"EHLO a\r\n",
            f"MAIL FROM:<{CITIZEN}>\r\n".encode(),
            f"RCPT TO:<{PROVINCE}>\r\n".encode(),
            b"DATA\r\n",
        ):
            connection.sendall(command)
            while lines.readline()[3:4] == b"-":
                pass
        raw = letter()
        connection.sendall(raw[:100])
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(gateway.stop()))
        thread.start()
        connection.sendall(raw[100:] + b".\r\n")
        assert lines.readline().startswith(b"250")
    thread.join()
    assert ended == [0]
    gateway.start()
    sink.wait(1)


def test_reload_takes_a_good_policy_and_refuses_a_bad_one(gateway: harness.Gateway) -> None:
    import signal

    assert gateway.process is not None
    policy = gateway.config / "policy.yaml"
    good = policy.read_text()
    policy.write_text("profil: x\n")
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: "not reloaded" in gateway.log.read_text(), gateway)
    assert relay(gateway, letter(subject="một")).startswith("250")
    policy.write_text(good)
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: "policy reloaded" in gateway.log.read_text(), gateway)
    assert relay(gateway, letter(subject="hai")).startswith("250")


def test_a_hop_that_hangs_does_not_stop_the_door(gateway: harness.Gateway, sink: harness.Sink) -> None:
    release = threading.Event()
    sink.answers["connect"] = lambda line: (release.wait(240), "421 no")[1]
    for number in range(3):
        assert relay(gateway, letter(subject=f"thư {number}")).startswith("250")
    assert query(gateway, "select count(*) from recipient where state = 'queued'") == [(3,)]
    release.set()


def test_loop_is_refused(gateway: harness.Gateway) -> None:
    looped = b"".join(b"Received: from a by b; Mon, 02 Nov 2026 08:00:00 +0700\r\n" for _ in range(51)) + letter()
    assert relay(gateway, looped).startswith("554 5.4.6")


def test_one_gateway_for_one_folder(gateway: harness.Gateway) -> None:
    """Two would take each other's work for what a crash left behind."""
    second = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "serve", "--config", str(gateway.config)],
        capture_output=True, text=True, timeout=600, check=False, cwd=harness.ROOT,
    )  # fmt: skip
    assert second.returncode == 75 and "another gateway runs on it" in second.stderr, second.stderr
    assert "Traceback" not in second.stderr


def test_a_busy_port_is_said_in_one_line(tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer) -> None:
    config = harness.write_config(tmp_path, hop_port=sink.port, auth_port=passwords.port)
    settings = config / "gateway.yaml"
    settings.write_text(settings.read_text().replace("{kind: relay, port: 0}", f"{{kind: relay, port: {sink.port}}}"))
    gateway = harness.Gateway(config)
    with pytest.raises(AssertionError, match="did not start"):
        gateway.start()
    assert gateway.process is not None
    assert gateway.process.returncode == 2
    log = gateway.log.read_text()
    assert f"gateway.yaml: listener relay on 127.0.0.1:{sink.port}: " in log
    assert "Traceback" not in log


def test_new_revocation_lists_are_read_without_a_restart(gateway: harness.Gateway) -> None:
    """The trust store is read by the workers when they start; SIGHUP starts them anew."""
    import signal

    assert relay(gateway, letter(subject="một")).startswith("250")
    (gateway.config / "trust" / "crl").mkdir(parents=True)
    (gateway.config / "trust" / "crl" / "x.crl").write_bytes(b"-")
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: "trust store changed" in gateway.log.read_text(), gateway)
    assert relay(gateway, letter(subject="hai")).startswith("250")
