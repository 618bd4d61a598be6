"""What people read: replies in the session, notices, delivery status notifications."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import returns
from gateway.config import Contacts
from gateway.errors import ConfigError
from gateway.inspection.findings import (
    Document,
    DocumentField,
    FileFacts,
    Inspection,
    Mailbox,
    MessageFacts,
    Signature,
    SignatureState,
)
from gateway.message import VIETNAM, Address, Envelope, MemoryBody, NullSender, Origin, Received, Recipient
from gateway.returns import Report

AT = dt.datetime(2026, 11, 22, 9, 30, tzinfo=VIETNAM)
CASE = "01J9ZK3V7Q8W2E4R"
CONTACTS = Contacts(
    agency_name="Ủy ban nhân dân tỉnh Demo",
    clerk_phone="0274 000 000",
    clerk_email="van.thu@tinhdemo.gov.vn",
    mail_admin="quan.tri@tinhdemo.gov.vn",
    security_officer="bao.mat@tinhdemo.gov.vn",
    notice_from="Cổng thư <cong@tinhdemo.gov.vn>",
)


@dataclass(frozen=True)
class Finding:
    rule: str
    notice: str
    disposition: int = returns.RETURN
    mode: str = "enforce"
    about: str = ""
    where: str = ""
    evidence: str = ""
    legal_basis: str = "CT 14/CT-UBND, mục 1.d"
    vi: str = "Thư đi từ hộp thư miễn phí."
    en: str = "Mail from a free mailbox."
    cure_vi: str = "Gửi lại từ hộp thư công vụ."
    cure_en: str = "Send again from the official mailbox."
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    disposition: int
    findings: tuple[Finding, ...] = ()
    document: Document | None = None
    acknowledge: bool = False


FREE = Finding("MB-01", "N01")
PDF = Finding("FM-01", "N04", about="bao-cao.docx", where="trang 1", vi="Tệp không phải .pdf.", en="Not a PDF.")
SIGN = Finding("SG-01", "N06", about="12-BC.pdf")
SECRET = Finding("SC-01", "N08", disposition=returns.BLOCK_SECRET, about="mat.pdf", vi="Độ mật: Tối mật")
WAITS = Finding("AR-09", "N18", disposition=returns.HOLD, vi="Không kiểm tra được.")
WARN = Finding("TM-02", "N14", disposition=returns.DELIVER_WARN, vi="Gửi chậm.")


def facts(**more: Any) -> MessageFacts:
    return MessageFacts(subject="Báo cáo mật của tỉnh", from_=(Mailbox(name="Văn thư", address="a@gmail.com"),), **more)


def notice(verdict: Verdict, **more: Any) -> bytes | None:
    return returns.notice(
        verdict,  # type: ignore[arg-type]
        facts(),
        sender="a@gmail.com",
        recipients=["vt@tinhdemo.gov.vn"],
        case=CASE,
        received_at=AT,
        sha256="ab" * 32,
        contacts=CONTACTS,
        hostname="cong.tinhdemo.gov.vn",
        **more,
    )


def parse(data: bytes | None) -> EmailMessage:
    assert data is not None
    assert b"\n" not in data.replace(b"\r\n", b"") and b"\r" not in data.replace(b"\r\n", b"")
    assert data.isascii() and max(map(len, data.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert not [defect for part in message.walk() for defect in part.defects]
    assert isinstance(message, EmailMessage)
    return message


def text_of(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


# ------------------------------------------------------------------------------------------------- in the session


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (
            Verdict(returns.RETURN, (FREE,)),
            f"550 5.7.1 VBDT MB-FREE Hop thu mien phi khong duoc dung trong cong vu (ma {CASE})",
        ),
        (
            Verdict(returns.RETURN, (FREE, PDF, SIGN, WARN)),
            "550 5.7.1 VBDT MB-FREE Hop thu mien phi khong duoc dung trong cong vu; "
            f"FM-PDF Van ban chinh thuc phai o dinh dang .pdf; va 1 loi khac (ma {CASE})",
        ),
        (Verdict(returns.BLOCK_SECRET, (SECRET, FREE)), "550 5.7.1 VBDT POLICY Thong diep bi tu choi"),
        (Verdict(returns.HOLD, (WAITS,)), f"250 2.0.0 VBDT HOLD Thong diep cho Van thu xem xet, ma {CASE}"),
        (Verdict(returns.DELIVER), f"250 2.0.0 Ok, accepted as {CASE}"),
        (Verdict(returns.DELIVER_WARN, (WARN,)), f"250 2.0.0 Ok, accepted as {CASE}, luu y TM-LATE"),
        (
            Verdict(returns.REJECT_MALWARE, (Finding("ML-02", "N17", disposition=returns.REJECT_MALWARE),)),
            f"550 5.7.1 VBDT ML-MALWARE Thong diep co ma doc hoac tep thuc thi (ma {CASE})",
        ),
        (
            Verdict(returns.RETURN, (Finding("XX-01", "", vi="Đề nghị gửi lại."),)),
            f"550 5.7.1 VBDT XX-01 De nghi gui lai. (ma {CASE})",
        ),
    ],
)
def test_reply(verdict: Verdict, expected: str) -> None:
    assert str(returns.reply(verdict, CASE)) == expected  # type: ignore[arg-type]


@settings(max_examples=50)
@given(
    st.lists(
        st.builds(
            Finding,
            rule=st.text(max_size=30),
            notice=st.sampled_from(["", "N01", "N04", "N99"]),
            vi=st.text(max_size=600),
            disposition=st.integers(2, 5),
            mode=st.sampled_from(["observe", "warn", "enforce"]),
        ),
        max_size=6,
    )
)
def test_a_reply_is_one_ascii_line_whatever_the_findings(findings: list[Finding]) -> None:
    worst = max([one.disposition for one in findings], default=returns.RETURN)
    lines = returns.reply(Verdict(worst, tuple(findings)), CASE).lines()  # type: ignore[arg-type]
    assert len(lines) == 1 and lines[0].isascii() and lines[0].isprintable() and len(lines[0]) <= 510
    if worst >= returns.RETURN:
        assert lines[0].startswith("550 5.7.1 VBDT ")


def test_a_refused_recipient_never_shows_a_secrecy_rule() -> None:
    assert str(returns.reply_to_findings([FREE, SECRET], "")) == "550 5.7.1 VBDT POLICY Thong diep bi tu choi"  # type: ignore[list-item]


# ---------------------------------------------------------------------------------------------------------- notices


def test_a_notice_tells_everything_in_both_languages() -> None:
    message = parse(notice(Verdict(returns.RETURN, (WARN, FREE, PDF))))
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["From"] == "Cổng thư <cong@tinhdemo.gov.vn>" and message["To"] == "a@gmail.com"
    assert message["Subject"].startswith("[Trả lại] Sử dụng hộp thư không phải hộp thư công vụ (và 2 điểm khác) / ")
    text = text_of(message)
    for part in (
        CASE, "Báo cáo mật của tỉnh", "09:30:00 ngày 22/11/2026 (+07:00)", "[MB-01]", "[FM-01]", "[TM-02]",
        "bao-cao.docx, trang 1", "CT 14/CT-UBND, mục 1.d", "Gửi lại từ hộp thư công vụ.",
        "Send again from the official mailbox.", "0274 000 000", "van.thu@tinhdemo.gov.vn",
    ):  # fmt: skip
        assert part in text, part
    assert text.index("Kính gửi") < text.index("To: ")  # Vietnamese first
    assert "[[" not in text and "{" not in text and "…" not in text
    page = message.get_body(("html",))
    assert page is not None and "[FM-01]" in page.get_content() and "<script" not in page.get_content()
    (attached,) = message.iter_attachments()
    machine = json.loads(attached.get_content())
    assert machine["verdict"] == "return" and [one["rule"] for one in machine["findings"]] == [
        "MB-01",
        "FM-01",
        "TM-02",
    ]


def test_a_returned_message_is_not_said_to_be_held() -> None:
    text = text_of(parse(notice(Verdict(returns.RETURN, (FREE, WAITS)))))
    assert "[AR-09] Không kiểm tra được." in text and "tạm giữ" not in text
    held = text_of(parse(notice(Verdict(returns.HOLD, (WAITS,)))))
    assert held.count("đang được tạm giữ") == 1 and "[AR-09]" in held


def test_the_same_input_gives_the_same_bytes() -> None:
    assert notice(Verdict(returns.RETURN, (FREE,))) == notice(Verdict(returns.RETURN, (FREE,)))


def test_what_is_only_observed_is_not_told() -> None:
    observed = Finding("MB-02", "N01", mode="observe", disposition=returns.DELIVER)
    assert notice(Verdict(returns.DELIVER, (observed,))) is None
    assert "MB-02" not in text_of(parse(notice(Verdict(returns.RETURN, (FREE, observed)))))


def test_signature_details_come_from_the_file() -> None:
    signature = Signature(state=SignatureState.REVOKED, signer="Sở Demo", issuer="CA Demo", signed_at="2026-11-20")
    file = FileFacts(name="12-BC.pdf", path="12-BC.pdf", sha256="", size=1, type="pdf", signatures=(signature,))
    text = text_of(parse(notice(Verdict(returns.RETURN, (SIGN,)), inspection=Inspection(files=(file,)))))
    assert "12-BC.pdf: chứng thư bị thu hồi" in text and "Chủ thể ký: Sở Demo" in text
    assert "Hiệu lực chứng thư" not in text  # not known, so the line is left out


@pytest.mark.parametrize("disposition", [returns.BLOCK_SECRET, returns.HOLD, returns.RETURN])
def test_nothing_of_a_secret_is_told(disposition: int) -> None:
    document = Document(code=DocumentField(value="12/BC-UBND"), abstract=DocumentField(value="trích yếu mật"))
    secret = Finding(
        "SC-01", "N08", disposition=disposition, about="to-trinh.pdf", where="trang 3", vi="Tối mật ở tiêu đề"
    )
    data = notice(Verdict(disposition, (secret, PDF), document))
    whole = str(parse(data)) + text_of(parse(data)) + str(parse(data)["Subject"])
    (attached,) = parse(data).iter_attachments()
    whole += str(attached.get_content())
    for hidden in ("Báo cáo", "to-trinh", "bao-cao", "trang 3", "Tối mật", "12/BC", "trích yếu", "SC-01", "ab" * 32):
        assert hidden not in whole, hidden
    assert not returns.notice(
        Verdict(returns.DELIVER_WARN, (Finding("SC-03", "", disposition=returns.DELIVER_WARN),)),  # type: ignore[arg-type]
        facts(), sender="a@y.vn", recipients=[], case=CASE, received_at=AT, contacts=CONTACTS, hostname="h",
    )  # fmt: skip


def test_acknowledgement() -> None:
    document = Document(code=DocumentField(value="12/BC-UBND"), date=DocumentField(value="2026-11-20"))
    message = parse(notice(Verdict(returns.DELIVER, (), document, acknowledge=True)))
    assert message["Subject"].startswith(f"[Đã nhận] Số 12/BC-UBND - {CASE}")
    assert "số 12/BC-UBND ngày 20/11/2026" in text_of(message) and "ab" * 32 in text_of(message)
    assert notice(Verdict(returns.DELIVER)) is None


def test_a_message_given_back_by_a_person_carries_their_reason() -> None:
    text = text_of(parse(notice(Verdict(returns.HOLD, (WAITS,)), given_back=True, reason="Sai nơi nhận")))
    assert "Lý do: Sai nơi nhận" in text and "[AR-09]" in text


def test_alert_to_the_security_officer_names_nothing_of_the_content() -> None:
    envelope = Envelope(Address("a", "y.vn"), (Recipient(Address("b", "tinhdemo.gov.vn")),))
    received = Received(CASE, AT, envelope, Origin("relay", "192.0.2.1"), MemoryBody(b"Subject: x\r\n", "ab"))
    message = parse(returns.secrecy_alert(received, Verdict(returns.BLOCK_SECRET, (SECRET,)), CONTACTS, "h.vn"))  # type: ignore[arg-type]
    assert message["To"] == "bao.mat@tinhdemo.gov.vn"
    text = text_of(message)
    assert "a@y.vn" in text and "b@tinhdemo.gov.vn" in text and "192.0.2.1" in text and "SC-01" in text
    assert "mat.pdf" not in text and "Tối mật" not in text


@settings(max_examples=50)
@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=40))
def test_hostile_words_do_not_break_a_notice(subject: str, about: str, name: str) -> None:
    hostile = MessageFacts(subject=subject + "\r\nBcc: x@y.vn", from_=(Mailbox(name=name + "\n.", address="a@y.vn"),))
    data = returns.notice(
        Verdict(returns.RETURN, (Finding("FM-01", "N04", about=about),)),  # type: ignore[arg-type]
        hostile, sender="a@y.vn", recipients=["b@x.vn"], case=CASE, received_at=AT, contacts=CONTACTS, hostname="h.vn",
    )  # fmt: skip
    message = parse(data)
    assert message["Bcc"] is None and len(message.get_all("Subject") or ()) == 1
    page = message.get_body(("html",))
    assert page is not None and not re.search(
        r"<(?!/?(html|head|meta|body|div|p|br|hr|h3|ul|li|b)\b|!DOCTYPE)", page.get_content()
    )


# ---------------------------------------------------------------------------------------------------------- whom not


@pytest.mark.parametrize(
    ("to", "shown"),
    [
        ("a@gmail.com", "a@gmail.com"),
        ("van thu@tinhdemo.gov.vn", '"van thu"@tinhdemo.gov.vn'),
        ("văn.thư@tỉnh.vn", "văn.thư@tỉnh.vn"),
        ("a\r\nBcc: b@c.vn", "undisclosed-recipients:;"),
    ],
)
@pytest.mark.parametrize("subject", ["Báo cáo", "=?utf-8?q?no?= word", "long ASCII words " * 30, "Đ" * 500, ""])
def test_letters_are_read_back_as_they_were_meant(to: str, shown: str, subject: str) -> None:
    data = returns.letter(
        to=to, subject=subject, vi="Một\nHai", en="One", facts={"số": 1}, at=AT, key="k", contacts=CONTACTS,
        hostname="cong.tinhdemo.gov.vn",
    )  # fmt: skip
    assert max(map(len, data.split(b"\r\n"))) <= 998 and b"Bcc:" not in data
    message = email.message_from_bytes(data, policy=email.policy.default.clone(utf8=True))
    assert message["Subject"] == " ".join(subject.split())
    assert f"To: {shown}\r\n".encode() in data
    body = message.get_body(("plain",))
    assert body is not None and body.get_content().splitlines()[:2] == ["Một", "Hai"]
    assert not [defect for part in message.walk() for defect in part.defects]


@pytest.mark.parametrize(
    ("more", "sender", "authenticated", "expected"),
    [
        ({}, Address("a", "y.vn"), True, True),
        ({"auto_submitted": "no"}, Address("a", "y.vn"), True, True),
        ({}, Address("a", "y.vn"), False, False),
        ({}, NullSender(), True, False),
        ({"auto_submitted": "auto-replied; x"}, Address("a", "y.vn"), True, False),
        ({"auto_submitted": "auto-generated"}, Address("a", "y.vn"), True, False),
        ({"precedence": "Bulk"}, Address("a", "y.vn"), True, False),
        ({"precedence": "list"}, Address("a", "y.vn"), True, False),
        ({"precedence": "junk"}, Address("a", "y.vn"), True, False),
        ({"list_id": "<x.y.vn>"}, Address("a", "y.vn"), True, False),
        ({}, Address("MAILER-DAEMON", "y.vn"), True, False),
        ({}, Address("owner-x", "y.vn"), True, False),
        ({}, Address("x-request", "y.vn"), True, False),
        ({}, Address("x-bounces+b=c", "y.vn"), True, False),
        ({}, Address("van.thu.bounce", "y.vn"), True, True),
        ({}, Address("noreply", "y.vn"), True, False),
    ],
)
def test_may_notify(more: dict[str, str], sender: Any, authenticated: bool, expected: bool) -> None:
    assert returns.may_notify(facts(**more), sender, authenticated) is expected


# -------------------------------------------------------------------------------------------------------- templates


def test_all_templates_load_and_every_notice_has_its_words() -> None:
    returns.use_templates(None)
    for number in range(19):
        template = returns.Templates().get(f"N{number:02}")
        assert template.code and template.subject_vi and template.subject_en and template.vi and template.en


def test_an_administrator_overwrites_one_text(tmp_path: Path) -> None:
    (tmp_path / "N01.yaml").write_text("code: MB-FREE\nreply: Xin dung hop thu cong vu\nvi: Xin chào {address}\n")
    try:
        returns.use_templates(tmp_path)
        assert "Xin dung hop thu cong vu" in returns.reply(Verdict(returns.RETURN, (FREE,)), CASE).text  # type: ignore[arg-type]
        assert "Xin chào a@gmail.com" in text_of(parse(notice(Verdict(returns.RETURN, (FREE,)))))
        (tmp_path / "N02.yaml").write_text("vi: |\n  {adress} sai\n")
        (tmp_path / "N03.yaml").write_text("reply: Tiếng Việt\n")
        (tmp_path / "N77.yaml").write_text("vi: x\n")
        with pytest.raises(ConfigError) as error:
            returns.use_templates(tmp_path)
        found = [f"{problem.place}: {problem.text}" for problem in error.value.problems]
        assert any(one.startswith("templates/N02.yaml:2:3: unknown value {adress}") for one in found)
        assert any(one.startswith("templates/N03.yaml:1:1: reply") for one in found)
        assert any(one.startswith("templates/N77.yaml: no such template") for one in found)
        assert "Xin dung hop thu cong vu" in returns.reply(Verdict(returns.RETURN, (FREE,)), CASE).text  # type: ignore[arg-type]
    finally:
        returns.use_templates(None)


# -------------------------------------------------------------------------------------------------------------- DSN

REPORTS = (
    Report(
        "b@x.vn", "failed", "5.1.1", "550 5.1.1 no such user", True, "mx.x.vn[192.0.2.1]:25", "rfc822;B+2Bc@x.vn", AT
    ),
    Report("thư@x.vn", "failed", "4.4.1", "4.4.1 connect to mx: refused", at=AT),
)
SHORT = b"Subject: thu\r\n\r\nNoi dung\r\n"
ORIGINAL = b"Received: by x\r\nSubject: thu\r\nX-Long: " + b"a b " * 400 + b"\r\n\r\nNoi dung bi mat\r\n"


def dsn(kind: str = "failed", reports: tuple[Report, ...] = REPORTS, **more: Any) -> bytes:
    values: dict[str, Any] = {
        "to": "a@y.vn", "case": CASE, "received_at": AT, "now": AT, "original": ORIGINAL, "contacts": CONTACTS,
        "hostname": "cong.tinhdemo.gov.vn", **more,
    }  # fmt: skip
    return returns.dsn(kind, reports, **values)


def test_dsn_is_a_report_with_three_parts() -> None:
    message = parse(dsn(envid="QQ+2B1"))
    assert message.get_content_type() == "multipart/report" and message.get_param("report-type") == "delivery-status"
    human, machine, headers = message.iter_parts()
    text = human.get_content()
    assert "550 5.1.1 no such user" in text and text.index("Thư của quý vị") < text.index("Your message")
    whole, first, second = machine.get_payload()
    assert whole["Reporting-MTA"] == "dns; cong.tinhdemo.gov.vn" and whole["Original-Envelope-Id"] == "QQ+1"
    assert first["Final-Recipient"] == "rfc822; b@x.vn" and first["Original-Recipient"] == "rfc822; B+c@x.vn"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert first["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user" and first["Remote-MTA"].startswith("dns; mx.x.vn")
    assert second["Final-Recipient"] == "utf-8; th\\x{1B0}@x.vn" and second["Remote-MTA"] is None
    assert headers.get_content_type() == "text/rfc822-headers"
    assert "Subject: thu" in headers.get_content() and b"Noi dung" not in dsn()


def test_dsn_gives_the_whole_message_back_when_asked() -> None:
    message = parse(dsn(whole=True, original=SHORT))
    assert list(message.iter_parts())[2].get_content_type() == "message/rfc822"
    assert SHORT.removesuffix(b"\r\n") in dsn(whole=True, original=SHORT)


def test_delay_says_until_when() -> None:
    message = parse(dsn("delayed", (Report("b@x.vn", "delayed", "4.4.1", "4.4.1 refused"),), until=AT))
    status = list(message.iter_parts())[1].get_payload()[1]
    assert status["Action"] == "delayed" and status["Will-Retry-Until"] == "Sun, 22 Nov 2026 09:30:00 +0700"


reports = st.builds(
    Report,
    address=st.text(min_size=1, max_size=60).map(lambda text: text + "@x.vn"),
    action=st.sampled_from(["failed", "delayed", "delivered", "relayed"]),
    status=st.sampled_from(["5.1.1", "4.4.1", "2.0.0"]),
    reply=st.text(max_size=2500),
    from_hop=st.booleans(),
    remote=st.text(max_size=40),
    orcpt=st.text(max_size=40),
)


@settings(max_examples=50)
@given(st.lists(reports, min_size=1, max_size=4), st.binary(max_size=300), st.text(max_size=40))
def test_any_dsn_parses(some: list[Report], original: bytes, envid: str) -> None:
    data = dsn(reports=tuple(some), original=original.replace(b"\r", b"").replace(b"\n", b"\r\n"), envid=envid)
    _, machine, _ = parse(data).iter_parts()
    groups = machine.get_payload()
    assert len(groups) == 1 + len(some)
    for group, one in zip(groups[1:], some, strict=True):
        assert group["Action"] == one.action and group["Status"] == one.status
        assert group["Final-Recipient"].split(";")[0] in ("rfc822", "utf-8")


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("reformime"), reason="reformime (Debian package maildrop) is not installed")
@pytest.mark.parametrize(
    ("data", "types"),
    [
        (dsn(), "multipart/report text/plain message/delivery-status text/rfc822-headers"),
        (
            dsn(original="Subject: Chào\r\n\r\n".encode()),
            "multipart/report text/plain message/delivery-status text/rfc822-headers",
        ),
        (
            dsn(whole=True, original=SHORT),
            "multipart/report text/plain message/delivery-status message/rfc822 text/plain",
        ),
        (
            notice(Verdict(returns.RETURN, (FREE, PDF))),
            "multipart/mixed multipart/alternative text/plain text/html application/json",
        ),
    ],
)
def test_a_second_parser_sees_the_same(data: bytes, types: str) -> None:
    told = subprocess.run(["reformime", "-i"], input=data, capture_output=True, check=True).stdout.decode()
    assert re.findall(r"^content-type: (\S+)", told, re.MULTILINE) == types.split()


# ------------------------------------------------------------------------------------------- what a clerk reads


def test_a_delivered_message_is_never_told_as_returned() -> None:
    """The words of a return would make the clerk send again what has arrived."""
    late = replace(FREE, disposition=returns.DELIVER_WARN)
    pdf = replace(PDF, disposition=returns.DELIVER_WARN)
    message = parse(notice(Verdict(returns.DELIVER_WARN, (late, pdf))))
    assert message["Subject"].startswith("[Nhắc] Thư đi từ hộp thư miễn phí (và 1 điểm khác) / [Reminder] Mail from")
    text = text_of(message)
    assert "[Trả lại]" not in text and "[Returned]" not in text
    assert "- Kết quả: đã chuyển tới người nhận" in text and "- Result: delivered" in text
    assert "2. [FM-01] Tệp không phải .pdf." in text and "- Chi tiết: Tệp không phải .pdf." not in text
    returned = text_of(parse(notice(Verdict(returns.RETURN, (FREE,)))))
    assert "Kết quả" not in returned and "[MB-01] Sử dụng hộp thư không phải hộp thư công vụ" in returned


def test_findings_of_held_mail_are_counted_from_one() -> None:
    text = text_of(parse(notice(Verdict(returns.HOLD, (WAITS, replace(FREE, disposition=returns.HOLD))))))
    assert "1. [AR-09]" in text and "2. [MB-01]" in text and "3. [" not in text
    alone = text_of(parse(notice(Verdict(returns.HOLD, (WAITS,)))))
    assert "[AR-09]" in alone and "1. [AR-09]" not in alone


def test_places_and_times_are_words_of_the_language() -> None:
    text = text_of(parse(notice(Verdict(returns.RETURN, (replace(FREE, about="From"),)))))
    assert "- Vị trí: địa chỉ gửi (From)" in text and "- Place: sender (From)" in text
    received = next(line for line in text.splitlines() if line.startswith("- Received:"))
    assert "ngày" not in received


def test_a_free_recipient_is_not_told_as_a_free_sender() -> None:
    told = replace(FREE, notice="N02", recipients=("ai.do@gmail.com",), about="To")
    text = text_of(parse(notice(Verdict(returns.RETURN, (told,)))))
    assert "Địa chỉ nhận ai.do@gmail.com là hộp thư miễn phí. Thông điệp chưa được gửi" in text
