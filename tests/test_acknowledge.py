"""The same-day acknowledgement of Decree 30/2020, article 21.2.c, over real SMTP: who gets it, once; who does not."""

from __future__ import annotations

import hashlib
import smtplib
import socket
import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from gateway.demo import documents
from gateway.demo.pki import Pki
from gateway.message import VIETNAM
from tests import harness
from tests.test_gateway import query, until

OTHER = "vanthu@tinhban.gov.vn"
OURS = f"ubnd@{harness.OURS}"


@pytest.fixture
def resolver() -> Iterator[int]:
    """A name server that knows one SPF record. Its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))

        def serve() -> None:
            while data := door.recvfrom(4096):
                question = dns.message.from_wire(data[0]).question[0] if data[0] != b"stop" else None
                if question is None:
                    return
                answer = dns.message.make_response(dns.message.from_wire(data[0]))
                answer.flags |= dns.flags.RA
                if str(question.name) == "tinhban.gov.vn." and question.rdtype == dns.rdatatype.TXT:
                    answer.answer.append(
                        dns.rrset.from_text(question.name, 60, "IN", "TXT", '"v=spf1 ip4:127.0.0.1 -all"')
                    )
                door.sendto(answer.to_wire(), data[1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield door.getsockname()[1]
        door.sendto(b"stop", door.getsockname())
        thread.join()


def document(subject: str, **fields: str) -> bytes:
    import datetime as dt

    now = dt.datetime.now(VIETNAM)
    paper = documents.Paper("SỞ NỘI VỤ", "15/TB-SNV", now.date(), "Về công tác văn thư", "THÔNG BÁO")
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = OTHER, OURS, subject
    message["Message-ID"] = f"<{hashlib.sha256(subject.encode()).hexdigest()[:20]}@tinhban.gov.vn>"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content("Kính gửi văn bản.", charset="utf-8", cte="base64")
    data = documents.signed_pdf(paper, signer())
    message.add_attachment(data, maintype="application", subtype="pdf", filename="15-TB.signed.pdf")
    return message.as_bytes()


_pki: list[Pki] = []


def signer() -> Pki:
    import datetime as dt

    if not _pki:
        _pki.append(Pki.create(dt.datetime.now(VIETNAM)))
    return _pki[0]


def relay(gateway: harness.Gateway, raw: bytes, sender: str = OTHER) -> str:
    with smtplib.SMTP("127.0.0.1", gateway.ports["relay"], local_hostname="mx.tinhban.gov.vn", timeout=240) as client:
        client.ehlo()
        client.mail(sender)
        client.rcpt(OURS)
        code, text = client.data(raw)
        return f"{code} {text.decode()}"


def test_a_document_is_acknowledged_once_and_never_to_lists_or_bounces(
    tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer, resolver: int
) -> None:
    config = harness.write_config(
        tmp_path,
        hop_port=sink.port,
        auth_port=passwords.port,
        extra=f"sender_check: {{enabled: true, resolvers: ['127.0.0.1:{resolver}'], timeout: 60}}",
    )
    signer().write_trust(config / "trust")
    gateway = harness.Gateway(config).start()
    raw = document("Thông báo số 15/TB-SNV")
    assert relay(gateway, raw).startswith("250")
    assert relay(gateway, raw).startswith("250")  # offered again: nothing happens twice
    assert relay(gateway, document("Thông báo cho danh sách", List_Id="<ds.tinhban.gov.vn>")).startswith("250")
    assert relay(gateway, document("Thông báo tự động", Auto_Submitted="auto-generated")).startswith("250")
    assert relay(gateway, document("Thư không có người gửi"), sender="").startswith("250")
    # the forged one: our name server knows nothing of this domain
    assert relay(gateway, document("Thư mạo danh"), sender="vanthu@tinhkhac.gov.vn").startswith("250")
    # whoever is told of a message is written down before the answer to it
    until(lambda: query(gateway, "select count(*) from recipient where state = 'queued'") == [(0,)], gateway)
    gateway.stop()
    notices = [(to, data) for sender, to, data in sink.messages if sender == "" and OURS not in to]
    assert len(notices) == 1 and notices[0][0] == [OTHER], [(s, t) for s, t, _ in sink.messages]
    notice = message_from_bytes(notices[0][1], policy=SMTP)
    assert notice["Subject"].startswith("[Đã nhận] Số 15/TB-SNV")
    assert notice["Auto-Submitted"] == "auto-replied"
    text = notice.get_body(("plain",)).get_content()
    assert "Tình trạng chữ ký số: hợp lệ" in text and "Số đến: sẽ do Văn thư cấp" in text
