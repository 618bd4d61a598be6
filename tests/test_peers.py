"""Real servers and real clients: Postfix before and behind the gateway, Dovecot for the passwords, four clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import harness, peers
from tests.test_gateway import CITIZEN, PROVINCE, letter, query, relay

pytestmark = pytest.mark.peer

NEEDS_POSTFIX = pytest.mark.skipif(bool(peers.missing("postfix")), reason=peers.missing("postfix") or "-")
NEEDS_DOVECOT = pytest.mark.skipif(bool(peers.missing("dovecot")), reason=peers.missing("dovecot") or "-")

PASSWORD = "mat-khau-dung"


def needs(program: str) -> pytest.MarkDecorator:
    reason = peers.missing(program)
    return pytest.mark.skipif("not installed" in reason, reason=reason or "-")


@pytest.fixture
def postfix_before(open_folder: Path, gateway: harness.Gateway) -> Iterator[peers.Postfix]:
    """Postfix takes mail from the world and relays all of it to the gateway."""
    made = peers.Postfix(open_folder / "before", relay_port=gateway.ports["relay"]).start()
    yield made
    made.stop()


def send(port: int, raw: bytes) -> str:
    import smtplib

    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=240) as client:
        try:
            client.sendmail(CITIZEN, [PROVINCE], raw)
        except smtplib.SMTPDataError as error:
            return f"{error.smtp_code} {error.smtp_error.decode()}"
        except smtplib.SMTPRecipientsRefused as error:
            return " ".join(f"{code} {text.decode()}" for code, text in error.recipients.values())
    return "250"


@NEEDS_POSTFIX
def test_postfix_in_front_as_relay(postfix_before: peers.Postfix, sink: harness.Sink) -> None:
    raw = letter()
    assert send(postfix_before.port, raw) == "250"
    sender, recipients, arrived = sink.wait(1)[0]
    assert (sender, recipients) == (CITIZEN, [PROVINCE])
    assert arrived.endswith(raw.split(b"\r\n\r\n", 1)[1])


@NEEDS_POSTFIX
def test_postfix_asks_the_gateway_before_its_queue(
    open_folder: Path, gateway: harness.Gateway, sink: harness.Sink
) -> None:
    """smtpd_proxy_filter: what the gateway refuses, Postfix refuses in its own session, with the gateway's words; what
    conforms comes back to Postfix on its second port (here: the sink), and the original client is told by XFORWARD."""
    made = peers.Postfix(
        open_folder / "proxy",
        relay_port=sink.port,
        smtpd=f"smtpd_proxy_filter=127.0.0.1:{gateway.ports['filter']} smtpd_proxy_options=speed_adjust",
    ).start()
    try:
        assert send(made.port, letter()) == "250"
        arrived = sink.wait(1)[0][2]
        assert b"Received: from client.example ([127.0.0.1])" in arrived
        answer = send(made.port, letter(subject="[TUYỆT MẬT] Báo cáo"))
        assert answer.startswith("550 5.7.1 VBDT POLICY"), answer
        assert query(gateway, "select count(*) from tombstone") == [(1,)]
    finally:
        made.stop()


@NEEDS_POSTFIX
def test_postfix_asks_the_gateway_after_its_queue(
    open_folder: Path, gateway: harness.Gateway, sink: harness.Sink
) -> None:
    """content_filter: Postfix queues first, hands the message to the gateway, and gets it back."""
    made = peers.Postfix(
        open_folder / "after",
        relay_port=sink.port,
        smtpd=f"content_filter=scan:[127.0.0.1]:{gateway.ports['filter']}",
        services="scan unix - - n - 4 smtp\n  -o smtp_send_xforward_command=yes\n  -o disable_dns_lookups=yes\n",
    ).start()
    try:
        assert send(made.port, letter()) == "250"
        assert sink.wait(1)[0][:2] == (CITIZEN, [PROVINCE])
        assert query(gateway, "select channel, peer from message where kind = 'mail'") == [("filter", "127.0.0.1")]
    finally:
        made.stop()


@NEEDS_POSTFIX
def test_postfix_behind_as_next_hop(
    tmp_path: Path, open_folder: Path, sink: harness.Sink, passwords: harness.PasswordServer
) -> None:
    behind = peers.Postfix(open_folder / "behind", relay_port=sink.port).start()
    gateway = harness.Gateway(harness.write_config(tmp_path, hop_port=behind.port, auth_port=passwords.port)).start()
    try:
        for number in range(5):
            assert relay(gateway, letter(subject=f"thư {number}")).startswith("250")
        assert len(sink.wait(5)) == 5
    finally:
        assert gateway.stop() == 0
        behind.stop()


@pytest.fixture
def with_dovecot(tmp_path: Path, open_folder: Path, sink: harness.Sink) -> Iterator[harness.Gateway]:
    """A gateway whose staff have their passwords in a real Dovecot."""
    server = peers.Dovecot(open_folder / "dovecot", PASSWORD).start()
    made = harness.Gateway(harness.write_config(tmp_path, hop_port=sink.port, auth_port=server.port)).start()
    yield made
    assert made.stop() == 0
    server.stop()


def run(*words: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **environment}
    )


PLAIN = f"From: {PROVINCE}\nTo: {CITIZEN}\nSubject: Tra loi kien nghi\n\nKinh gui ong/ba.\n"


@NEEDS_DOVECOT
@needs("swaks")
def test_client_swaks(with_dovecot: harness.Gateway, sink: harness.Sink) -> None:
    words = ["swaks", "--server", "127.0.0.1", "--port", str(with_dovecot.ports["submission"]), "--tls"]
    words += ["--auth", "PLAIN", "--auth-user", PROVINCE, "--from", PROVINCE, "--to", CITIZEN]
    good = run(*words, "--auth-password", PASSWORD)
    assert good.returncode == 0, good.stdout
    assert sink.wait(1)[0][:2] == (PROVINCE, [CITIZEN])
    bad = run(*words, "--auth-password", "sai")
    assert bad.returncode != 0
    assert "535 5.7.8" in bad.stdout
    unencrypted = run(*[word for word in words if word != "--tls"], "--auth-password", PASSWORD)
    assert unencrypted.returncode != 0, "AUTH without TLS"


@NEEDS_DOVECOT
@needs("msmtp")
def test_client_msmtp(with_dovecot: harness.Gateway, sink: harness.Sink, tmp_path: Path) -> None:
    settings = tmp_path / "msmtprc"
    settings.write_text(
        f"account default\nhost localhost\nport {with_dovecot.ports['submission']}\nfrom {PROVINCE}\nauth on\n"
        f"user {PROVINCE}\npassword {PASSWORD}\ntls on\ntls_trust_file {with_dovecot.config / 'ca.pem'}\n"
    )
    settings.chmod(0o600)
    done = run("msmtp", "-C", str(settings), CITIZEN, text=PLAIN)
    assert done.returncode == 0, done.stderr
    assert sink.wait(1)[0][:2] == (PROVINCE, [CITIZEN])
    secret = run("msmtp", "-C", str(settings), CITIZEN, text=PLAIN.replace("Tra loi", "[TỐI MẬT] Tra loi"))
    assert secret.returncode != 0
    assert "VBDT POLICY" in secret.stderr, "the person must see why"


@NEEDS_DOVECOT
@needs("curl")
def test_client_curl(with_dovecot: harness.Gateway, sink: harness.Sink, tmp_path: Path) -> None:
    mail = tmp_path / "mail.txt"
    mail.write_text(PLAIN.replace("\n", "\r\n"), newline="")
    words = ["curl", "-sS", "--url", f"smtps://localhost:{with_dovecot.ports['submissions']}"]
    words += ["--cacert", str(with_dovecot.config / "ca.pem"), "--user", f"{PROVINCE}:{PASSWORD}"]
    done = run(*words, "--mail-from", PROVINCE, "--mail-rcpt", CITIZEN, "--upload-file", str(mail))
    assert done.returncode == 0, done.stderr
    assert sink.wait(1)[0][:2] == (PROVINCE, [CITIZEN])


@NEEDS_DOVECOT
@needs("mutt")
def test_client_mutt(with_dovecot: harness.Gateway, sink: harness.Sink, tmp_path: Path) -> None:
    settings = tmp_path / "muttrc"
    authority = with_dovecot.config / "ca.pem"
    settings.write_text(
        f"set smtp_url='smtps://{PROVINCE.replace('@', '%40')}@localhost:{with_dovecot.ports['submissions']}/'\n"
        f"set smtp_pass='{PASSWORD}'\nset from={PROVINCE}\nset use_from=yes\nset use_envelope_from=yes\n"
        f"set envelope_from_address={PROVINCE}\nset ssl_verify_host=no\nset copy=no\n"
        f"set ssl_ca_certificates_file={authority}\nset certificate_file={authority}\n"
    )
    done = run(
        "mutt", "-n", "-F", str(settings), "-s", "Tra loi kien nghi", CITIZEN, text="Kinh gui.\n", HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert sink.wait(1)[0][:2] == (PROVINCE, [CITIZEN])
