"""Alerts over a real daemon and real receivers: who is told what, once, and what nobody may read in it."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest

from gateway import config
from gateway.alerts import Alerts
from gateway.commands import archive as commands
from gateway.demo import documents
from gateway.demo.pki import Pki
from gateway.message import VIETNAM
from tests import harness
from tests.receiver import Receiver

DEPARTMENT = f"vanthu@sonoivu.{harness.OURS}"
DISTRICT = f"vanthu@huyenmau.{harness.OURS}"
LEADER, DELEGATE = f"chutich@huyenmau.{harness.OURS}", f"phochutich@huyenmau.{harness.OURS}"

OURS, OFFICER = f"ubnd@{harness.OURS}", f"baomat@{harness.OURS}"

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


def letter(
    code: str, *, to: str = DISTRICT, sender: str = DEPARTMENT, urgency: str = "HỎA TỐC", **fields: str
) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = sender, to, fields.pop("Subject", f"Thông báo số {code}")
    message["Message-ID"] = f"<{code.replace('/', '.')}.{to}@{harness.OURS}>"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content("Kính gửi văn bản.", charset="utf-8", cte="base64")
    name = code.replace("/", "-") + ".signed.pdf"
    message.add_attachment(paper(code, urgency), maintype="application", subtype="pdf", filename=name)
    return message.as_bytes()


def relay(gateway: harness.Gateway, raw: bytes, sender: str) -> str:
    with smtplib.SMTP("127.0.0.1", gateway.ports["relay"], local_hostname="mx.example", timeout=240) as client:
        client.ehlo()
        client.mail(sender)
        client.rcpt(OURS)
        code, text = client.data(raw)
        return f"{code} {text.decode()}"


def submit(gateway: harness.Gateway, raw: bytes, to: str = DISTRICT, sender: str = DEPARTMENT) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", gateway.ports["submission"], local_hostname="may", timeout=240) as client:
        client.starttls(context=context)
        client.login(sender, "mat-khau-dung")
        client.mail(sender)
        client.rcpt(to)
        code, text = client.data(raw)
        return f"{code} {text.decode()}"


@dataclass
class Place:
    gateway: harness.Gateway
    sink: harness.Sink
    receiver: Receiver

    def told(self, path: str) -> list[dict[str, Any]]:
        return [one.json for one in self.receiver.requests if one.path == path]

    def wait(self, path: str, words: str) -> dict[str, Any]:
        """The first alert on `path` with these words; waits for it."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [one for one in self.told(path) if words in one["text"]]
            return bool(found)

        with self.receiver.arrived:
            assert self.receiver.arrived.wait_for(there, 240), self.receiver.requests
        return found[0]

    def letter_to(self, address: str, words: str) -> EmailMessage:
        """The alert by mail that went to `address`; waits for it."""
        found: list[EmailMessage] = []

        def there() -> bool:
            for sender, to, data in self.sink.messages:
                if (
                    sender == ""
                    and to == [address]
                    and words in (made := message_from_bytes(data, policy=SMTP))["Subject"]
                ):
                    found.append(made)
            return bool(found)

        with self.sink.arrived:
            assert self.sink.arrived.wait_for(there, 240), [(s, t) for s, t, _ in self.sink.messages]
        return found[0]

    def listing(self, open_only: bool = False) -> list[dict[str, Any]]:
        """What `congvan alerts list` shows, without the start of a process."""

        async def ask() -> list[dict[str, Any]]:
            async with commands.opened(self.gateway.config) as archive:
                return await Alerts(settings, archive).listing(open_only=open_only)

        settings = config.read(self.gateway.config)
        return asyncio.run(ask())

    def row(self, document: str) -> dict[str, Any]:
        return next(row for row in self.listing() if row["document"] == document)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One gateway for all tests here, with every kind of channel that can be had without a program."""
    folder = tmp_path_factory.mktemp("alerts")
    receiver, sink, passwords = Receiver(), harness.Sink(), harness.PasswordServer()
    alerts = f"""
contacts: {{notice_from: cong-thu@{harness.OURS}, security_officer: "bao mat, so may 0"}}
alerts:
  channels:
    - {{name: sms, kind: sms, url: "{receiver.url}/gui?key={{secret}}", secret_file: sms.key}}
    - {{name: so, kind: http, url: "{receiver.url}/truc"}}
    - {{name: thu, kind: mail}}
  urgent: {{channels: [sms, thu]}}
  security: {{channels: [so, thu], email: {OFFICER}}}
  admin: {{channels: [so]}}
"""
    config = harness.write_config(
        folder, hop_port=sink.port, auth_port=passwords.port, directory=DIRECTORY, extra=alerts
    )
    signer().write_trust(config / "trust")
    (config / "sms.key").write_text("KHOA-BI-MAT&x=1\n")
    gateway = harness.Gateway(config).start()
    yield Place(gateway, sink, receiver)
    assert gateway.stop() == 0, gateway.log.read_text()[-4000:]
    for one in (receiver, sink, passwords):
        one.close()


def test_a_most_urgent_document_is_told_once_to_the_leader(place: Place) -> None:
    gateway = place.gateway
    answer = submit(gateway, letter("15/TB-SNV"))
    assert answer.startswith("250"), answer
    case = answer.split()[-1]
    first = place.wait("/gui", case)
    assert first["to"] == "84902000002"
    assert next(one for one in place.receiver.requests if one.path == "/gui").query == {"key": ["KHOA-BI-MAT&x=1"]}
    text = first["text"]
    assert text.startswith("VB HOA TOC so 15/TB-SNV cua So Noi vu tinh Demo den luc ")
    assert text.isascii() and len(text) <= 160
    # the same document to another mailbox of the agency: nobody is told again
    other = f"phong@huyenmau.{harness.OURS}"
    assert submit(gateway, letter("15/TB-SNV", to=other), other).startswith("250")
    # an ordinary one, one marked KHẨN, one to colleagues, and one from outside whose sender nobody proves
    assert submit(gateway, letter("16/TB-SNV", urgency="")).startswith("250")
    assert submit(gateway, letter("17/TB-SNV", urgency="KHẨN")).startswith("250")
    own = f"phong@sonoivu.{harness.OURS}"
    assert submit(gateway, letter("19/TB-SNV", to=own), own).startswith("250")
    assert relay(gateway, letter("20/TB-SNV", to=OURS), DEPARTMENT).startswith("250")
    # the last one, which comes after all of them
    assert submit(gateway, letter("18/TB-SNV")).startswith("250")
    place.wait("/gui", "18/TB-SNV")
    numbers = [re.search(r"so (\S+)", one["text"])[1] for one in place.told("/gui")]  # type: ignore[index]
    assert numbers == ["15/TB-SNV", "18/TB-SNV"]
    assert not any("20/TB-SNV" in one["text"] for one in place.told("/truc"))  # whose leaders are not known
    assert place.letter_to(LEADER, case)["Subject"].startswith("[HỎA TỐC]")
    sends = place.row("15/TB-SNV")["sends"]
    assert {(one["role"], one["channel"]): one["state"] for one in sends} == {
        ("leader", "sms"): "sent", ("leader", "thu"): "sent",
        ("delegate", "sms"): "waiting", ("delegate", "thu"): "waiting",  # their turn comes in ten minutes
    }  # fmt: skip
    done = json.loads(gateway.command("alerts", "ack", case.lower(), "--who", "chánh văn phòng", "--json"))
    assert done["acked_by"] == "chánh văn phòng" and done["ack_seconds"] >= 0
    assert [one["state"] for one in place.row("15/TB-SNV")["sends"]] == ["sent", "sent", "cancelled", "cancelled"]
    # the host may have had troubles of its own meanwhile, such as a clock that was set
    assert [row["document"] for row in place.listing(open_only=True) if row["kind"] == "urgent"] == ["18/TB-SNV"]
    told = [json.loads(line) for line in gateway.command("alerts", "list", "--open", "--json").splitlines()]
    (shown,) = [row for row in told if row["kind"] == "urgent"]
    assert shown["document"] == "18/TB-SNV" and shown["case"] in gateway.command("alerts", "show", shown["case"])
    gateway.command("alerts", "ack", "999", code=1)
    assert "KHOA-BI-MAT" not in gateway.log.read_text() + (gateway.data / "mail.log").read_text()


def test_a_reply_by_the_leader_acknowledges(place: Place) -> None:
    answer = submit(place.gateway, letter("21/TB-SNV"))
    alert = place.letter_to(LEADER, answer.split()[-1])
    text = alert.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "số 21/TB-SNV của Sở Nội vụ tỉnh Demo" in text and "Ủy ban nhân dân huyện Mẫu" in text

    def reply(sender: str, **fields: str) -> None:
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"] = sender, f"cong-thu@{harness.OURS}"
        message["Subject"], message["In-Reply-To"] = "Re: đã nhận", alert["Message-ID"]
        message["Message-ID"] = f"<{len(fields)}.{sender}>"
        for name, value in fields.items():
            message[name.replace("_", "-")] = value
        message.set_content("Đã nhận.", charset="utf-8")
        assert submit(place.gateway, message.as_bytes(), f"cong-thu@{harness.OURS}", sender).startswith("250")

    reply(DELEGATE)  # was not written to with this letter
    reply(LEADER, Auto_Submitted="auto-replied")  # away on business
    assert place.row("21/TB-SNV")["acked_at"] is None
    reply(LEADER)
    row = place.row("21/TB-SNV")
    assert row["acked_by"] == LEADER and row["acked_how"] == "mail"


def test_nothing_of_a_secret_is_told_or_kept(place: Place) -> None:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = DEPARTMENT, DISTRICT, "Phương án Kim Quy"
    message.set_content("Kính gửi.\n\nHỎA TỐC\n\nTỐI MẬT\n\nNội dung Kim Quy.\n", charset="utf-8", cte="base64")
    message.add_attachment(b"Kim Quy", maintype="text", subtype="plain", filename="kim-quy.txt")
    assert "VBDT POLICY" in submit(place.gateway, message.as_bytes())
    told = place.wait("/truc", "bi mat nha nuoc")
    assert told["kind"] == "secret" and told["document"] == told["detail"] == "" and told["level"] == ""
    assert re.fullmatch(
        r"CANH BAO: mot thong diep bi chan vi dau hieu bi mat nha nuoc luc \d\d:\d\d \d\d/\d\d\. Ma \w{16}",
        told["text"],
    )
    assert not any("TOI MAT" in one["text"] or "HOA TOC" in one["text"] for one in place.told("/truc"))
    letter_ = place.letter_to(OFFICER, told["case"])
    assert "HỎA TỐC" not in str(letter_) and "TỐI MẬT" not in letter_.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    place.gateway.command("archive", "checkpoint")
    seen = b"".join(path.read_bytes() for path in place.gateway.config.parent.rglob("*") if path.is_file())
    for word in ("Kim Quy", "kim-quy", "S2ltIFF1eQ"):
        assert word.encode() not in seen


def test_malware_is_told_once_a_day_for_one_sender(place: Place) -> None:
    for number in range(2):
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"], message["Subject"] = DEPARTMENT, DISTRICT, f"Phần mềm {number}"
        message["Message-ID"] = f"<exe.{number}@x>"
        message.set_content("Kính gửi.", charset="utf-8", cte="base64")
        program = b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0" + bytes(200)
        message.add_attachment(program, maintype="application", subtype="octet-stream", filename="cap-nhat.exe")
        answer = submit(place.gateway, message.as_bytes())
        assert answer.startswith("550"), answer
    told = place.wait("/truc", "ma doc")
    assert told["kind"] == "malware" and "cap-nhat" not in json.dumps(told)
    assert len([row for row in place.listing() if row["kind"] == "malware"]) == 1


def test_tricks_in_the_subject_go_nowhere(place: Place) -> None:
    subject = "=?utf-8?b?SOG7j2EgdOG7kWMNCkJjYzoga2UuZ2lhbkB4LnZuDQoNCg==?= " + "x" * 60_000
    raw = letter("23/TB-SNV", Subject="T").replace(b"Subject: T\r\n", f"Subject: {subject}\r\n".encode(), 1)
    answer = submit(place.gateway, raw)
    assert answer.startswith("250"), answer
    alert = place.letter_to(LEADER, answer.split()[-1])
    assert alert["Bcc"] is None and alert["To"] == LEADER and len(alert["Subject"]) < 300
    assert len(place.wait("/gui", "23/TB-SNV")["text"]) <= 160
    assert not any("ke.gian" in " ".join(to) for _, to, _ in place.sink.messages)


def test_channels_are_tried_from_the_command_line(place: Place) -> None:
    words = ("alerts", "test", "--json", "--phone", "0911 222 333", "--email", LEADER)
    rows = [json.loads(line) for line in place.gateway.command(*words).splitlines()]
    assert [(row["channel"], row["ok"]) for row in rows] == [("sms", True), ("so", True), ("thu", True)]
    assert place.wait("/gui", "tin thu kenh sms")["to"] == "84911222333"
    place.receiver.answers = [500]
    assert '"ok": false' in place.gateway.command("alerts", "test", "--channel", "so", "--json", code=1)
