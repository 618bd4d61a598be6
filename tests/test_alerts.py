"""Alerts over a real daemon and real receivers: who is told what, once, and what nobody may read in it."""

from __future__ import annotations

import datetime as dt
import functools
import json
import smtplib
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest

from gateway.demo import documents
from gateway.demo.pki import Pki
from gateway.message import VIETNAM
from tests import harness
from tests.receiver import Receiver

DEPARTMENT = f"vanthu@sonoivu.{harness.OURS}"
DISTRICT = f"vanthu@huyenmau.{harness.OURS}"
LEADER, DELEGATE = f"chutich@huyenmau.{harness.OURS}", f"phochutich@huyenmau.{harness.OURS}"

DIRECTORY = f"""
agencies:
  - id: ubnd
    name: Ủy ban nhân dân tỉnh Demo
    level: province
    domains: [{harness.OURS}]
  - id: so-noi-vu
    name: Sở Nội vụ tỉnh Demo
    level: department
    parent: ubnd
    domains: [sonoivu.{harness.OURS}]
    certificate: {{issued_on: 2020-01-01}}
    leaders: [{{title: Giám đốc, phone: "0901 000 001"}}]
  - id: huyen-mau
    name: Ủy ban nhân dân huyện Mẫu
    level: district
    parent: ubnd
    domains: [huyenmau.{harness.OURS}]
    leaders: [{{title: Chủ tịch, phone: "0902 000 002", email: {LEADER}}}]
    delegate: {{title: Phó Chủ tịch, phone: "0903 000 003", email: {DELEGATE}}}
"""


@functools.cache
def signer() -> Pki:
    return Pki.create(dt.datetime.now(VIETNAM))


@functools.cache
def paper(code: str, urgency: str = "HỎA TỐC", secrecy: str = "") -> bytes:
    day = dt.datetime.now(VIETNAM).date()
    about = "Về việc ứng phó bão ABCXYZ"
    fields = {"urgency": urgency, "secrecy": secrecy}
    made = documents.Paper("SỞ NỘI VỤ", code, day, about, "THÔNG BÁO", **fields)
    return documents.signed_pdf(made, signer())


def letter(code: str, *, to: str = DISTRICT, sender: str = DEPARTMENT, urgency: str = "HỎA TỐC", **fields: str) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = sender, to, f"Thông báo số {code}"
    message["Message-ID"] = f"<{code.replace('/', '.')}.{to}@{harness.OURS}>"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content("Kính gửi văn bản.", charset="utf-8", cte="base64")
    name = code.replace("/", "-") + ".signed.pdf"
    message.add_attachment(paper(code, urgency), maintype="application", subtype="pdf", filename=name)
    return message.as_bytes()


def submit(gateway: harness.Gateway, raw: bytes, to: str = DISTRICT, sender: str = DEPARTMENT) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", gateway.ports["submission"], local_hostname="may", timeout=60) as client:
        client.starttls(context=context)
        client.login(sender, "mat-khau-dung")
        client.mail(sender)
        client.rcpt(to)
        code, text = client.data(raw)
        return f"{code} {text.decode()}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def configured(tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer, alerts: str) -> harness.Gateway:
    config = harness.write_config(
        tmp_path, hop_port=sink.port, auth_port=passwords.port, directory=DIRECTORY, extra=alerts
    )
    signer().write_trust(config / "trust")
    return harness.Gateway(config)


def listing(gateway: harness.Gateway, *words: str) -> list[dict]:
    return [json.loads(line) for line in gateway.command("alerts", "list", "--json", *words).splitlines()]


def test_a_most_urgent_document_is_told_once_to_the_leader(
    tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer, receiver: Receiver
) -> None:
    alerts = f"""
alerts:
  channels: [{{name: sms, kind: sms, url: "{receiver.url}/gui?key={{secret}}", secret_file: sms.key}}]
  urgent: {{channels: [sms]}}
"""
    gateway = configured(tmp_path, sink, passwords, alerts)
    (gateway.config / "sms.key").write_text("KHOA-BI-MAT&x=1\n")
    gateway.start()
    answer = submit(gateway, letter("15/TB-SNV"))
    assert answer.startswith("250"), answer
    first = receiver.wait(1)[0]
    case = answer.split()[-1]
    assert first.query == {"key": ["KHOA-BI-MAT&x=1"]}
    assert first.json["to"] == "84902000002"
    text = first.json["text"]
    assert text.startswith("VB HOA TOC so 15/TB-SNV cua So Noi vu tinh Demo den luc ")
    assert text.endswith(f"Ma {case}") and text.isascii() and len(text) <= 160
    # the same document to another mailbox of the agency, and once more: nobody is told again
    other = f"phong@huyenmau.{harness.OURS}"
    assert submit(gateway, letter("15/TB-SNV", to=other), other).startswith("250")
    # an ordinary one, and one marked KHẨN
    assert submit(gateway, letter("16/TB-SNV", urgency="")).startswith("250")
    assert submit(gateway, letter("17/TB-SNV", urgency="KHẨN")).startswith("250")
    # the next one, which comes after all of them
    assert submit(gateway, letter("18/TB-SNV")).startswith("250")
    assert [one.json["text"].split()[4] for one in receiver.wait(2)] == ["15/TB-SNV", "18/TB-SNV"]
    gateway.stop()
    rows = listing(gateway)
    assert [row["document"] for row in rows] == ["18/TB-SNV", "15/TB-SNV"]
    assert [one["state"] for one in rows[1]["sends"]] == ["sent", "waiting"]  # the delegate's turn comes in ten minutes
    assert "KHOA-BI-MAT" not in gateway.log.read_text() + (gateway.data / "mail.log").read_text()
    done = json.loads(gateway.command("alerts", "ack", case.lower(), "--who", "chanh van phong", "--json"))
    assert done["acked_by"] == "chanh van phong" and done["ack_seconds"] >= 0
    assert [one["state"] for one in listing(gateway)[1]["sends"]] == ["sent", "cancelled"]
    assert len(listing(gateway, "--open")) == 1
    gateway.command("alerts", "ack", "999", code=1)
