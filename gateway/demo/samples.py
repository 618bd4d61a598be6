"""The messages of the demonstration: what comes in on an ordinary day, right and wrong, with what must become of it."""

from __future__ import annotations

import base64
import datetime as dt
import unicodedata
import zlib
from dataclasses import dataclass, replace
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial

from gateway.demo import documents
from gateway.demo.documents import Paper
from gateway.demo.pki import DOMAIN, Pki
from gateway.message import VIETNAM

PROVINCE = f"ubnd@{DOMAIN}"  # has a certificate
DEPARTMENT = f"sonoivu@{DOMAIN}"  # has a certificate
DISTRICT = f"huyenmau@{DOMAIN}"  # has none
COMMUNE = f"xamau@{DOMAIN}"  # has none
OFFICIAL = f"chuyenvien.snv@{DOMAIN}"  # a member of the department's staff
PRIVATE = "chuyenvien.snv.demo@gmail.com"  # the same person's free mailbox
CITIZEN = "nguoidan.demo@gmail.com"

COMMITTEE = "ỦY BAN NHÂN DÂN TỈNH DEMO"


@dataclass(frozen=True, slots=True)
class Sample:
    """One message as it is offered. login: whose password is used (submission). expected: text of the disposition."""

    name: str
    title_vi: str
    mail_from: str
    rcpts: tuple[str, ...]
    login: str | None
    channel: str  # submission | relay
    raw: bytes
    expected: str


def demo_directory() -> dict[str, str]:
    """The fictitious province: file names of `config/directory/` with their YAML."""
    return {"agencies.yaml": _AGENCIES, "mailboxes.yaml": _MAILBOXES}


def samples(now: dt.datetime, pki: Pki) -> list[Sample]:
    """The messages in the order in which they are told. `pki` signs; its trust directory must be in use."""
    day = now.astimezone(VIETNAM).date()
    notice = Paper(
        agency="SỞ NỘI VỤ",
        parent=COMMITTEE,
        code="15/TB-SNV",
        date=day,
        kind="THÔNG BÁO",
        abstract="Về việc tăng cường sử dụng văn bản điện tử trong cơ quan nhà nước",
        to=("Ủy ban nhân dân tỉnh Demo",),
        recipients=("Như trên", "Các phòng, đơn vị trực thuộc (để t/h)", "Lưu: VT, VP"),
    )
    unsigned = _change(notice, code="16/TB-SNV", abstract="Về việc kiểm tra công tác văn thư, lưu trữ")
    letter = _change(notice, code="17/SNV-VP", kind="", abstract="cung cấp số liệu báo cáo quý")
    draft = _change(
        notice,
        code="      /KH-UBND",
        date=None,
        kind="KẾ HOẠCH",
        abstract="Ứng dụng chữ ký số trong cơ quan nhà nước",
        draft=True,
    )
    urgent = _change(notice, code="18/TB-SNV", abstract="Về việc trực, ứng phó thiên tai", urgency="HỎA TỐC")
    secret = _change(notice, code="03/BC-SNV", kind="BÁO CÁO", abstract="Về tình hình nội bộ", secrecy="TỐI MẬT")
    spaced = _change(secret, code="04/BC-SNV", secrecy="T Ố I   M Ậ T")
    report = Paper(
        agency="ỦY BAN NHÂN DÂN HUYỆN MẪU",
        code="21/BC-UBND",
        date=day,
        kind="BÁO CÁO",
        abstract="Kết quả công tác cải cách hành chính quý",
        place="Huyện Mẫu",
        to=("Sở Nội vụ tỉnh Demo",),
        title=("TM. ỦY BAN NHÂN DÂN", "CHỦ TỊCH"),
        recipients=("Như trên", "Lưu: VT"),
    )
    pdf, docx = ("application", "pdf"), ("application", "vnd.openxmlformats-officedocument.wordprocessingml.document")
    mail = partial(_mail, now)
    plain = "Kính gửi quý cơ quan văn bản kèm theo. Trân trọng./."
    rows: list[Sample] = []

    def add(name: str, title: str, sender: str, to: tuple[str, ...], raw: bytes, expected: str) -> None:
        inside = sender.endswith("@" + DOMAIN)
        login, channel = (sender, "submission") if inside else (None, "relay")
        rows.append(Sample(name, title, sender, to, login, channel, raw, expected))

    signed = documents.signed_pdf(notice, pki, at=now)
    add(
        "signed-pdf",
        "Văn bản PDF có chữ ký số của lãnh đạo và của cơ quan",
        DEPARTMENT,
        (PROVINCE,),
        mail(DEPARTMENT, PROVINCE, f"{notice.code}: {notice.abstract}", plain, ("15-TB-SNV.signed.pdf", pdf, signed)),
        "deliver",
    )
    scanned = documents.scan(report, seal="ỦY BAN NHÂN DÂN HUYỆN MẪU")
    add(
        "scan-with-seal",
        "Bản quét có dấu đỏ của cơ quan chưa được cấp chứng thư số",
        DISTRICT,
        (DEPARTMENT,),
        mail(DISTRICT, DEPARTMENT, f"{report.code}: {report.abstract}", plain, ("21-BC-UBND.pdf", pdf, scanned)),
        "deliver",
    )
    add(
        "unsigned-pdf",
        "Văn bản PDF không ký số của cơ quan đã có chứng thư số",
        DEPARTMENT,
        (PROVINCE,),
        mail(
            DEPARTMENT,
            PROVINCE,
            f"{unsigned.code}: {unsigned.abstract}",
            plain,
            ("16-TB-SNV.pdf", pdf, documents.pdf(unsigned)),
        ),
        "return",
    )
    add(
        "official-docx",
        "Văn bản chính thức gửi dưới dạng .docx",
        DEPARTMENT,
        (PROVINCE,),
        mail(
            DEPARTMENT,
            PROVINCE,
            f"{letter.code} V/v {letter.abstract}",
            plain,
            ("17-SNV-VP.docx", docx, documents.docx(letter)),
        ),
        "return",
    )
    add(
        "draft-docx",
        "Dự thảo .docx gửi lấy ý kiến",
        OFFICIAL,
        (PROVINCE,),
        mail(
            OFFICIAL,
            PROVINCE,
            "Dự thảo Kế hoạch ứng dụng chữ ký số",
            "Kính gửi dự thảo để xin ý kiến góp ý.",
            ("du-thao-ke-hoach.docx", docx, documents.docx(draft)),
        ),
        "deliver",
    )
    add(
        "gmail-recipient",
        "Gửi văn bản cho hộp thư gmail của người đã có hộp thư công vụ",
        DEPARTMENT,
        (PRIVATE,),
        mail(DEPARTMENT, PRIVATE, f"{notice.code}: {notice.abstract}", plain, ("15-TB-SNV.signed.pdf", pdf, signed)),
        "return",
    )
    add(
        "gmail-sender",
        "Công chức dùng gmail để gửi văn bản của cơ quan",
        PRIVATE,
        (DISTRICT,),
        mail(
            PRIVATE,
            DISTRICT,
            f"{unsigned.code}: {unsigned.abstract}",
            plain,
            ("16-TB-SNV.pdf", pdf, documents.pdf(unsigned)),
            display="Sở Nội vụ tỉnh Demo",
        ),
        "hold",  # nobody proved to be the sender: a person looks, and no forged name is blamed
    )
    add(
        "citizen-petition",
        "Thư kiến nghị của công dân gửi từ gmail",
        CITIZEN,
        (COMMUNE,),
        mail(
            CITIZEN,
            COMMUNE,
            "Kiến nghị về việc sửa chữa đường thôn",
            "Kính gửi Ủy ban nhân dân xã Mẫu,\n\nĐường vào thôn bị hư hỏng sau mưa lớn, người dân đi lại khó khăn. "
            "Kính đề nghị Ủy ban nhân dân xã xem xét, cho sửa chữa.\n\nTrân trọng cảm ơn.",
        ),
        "deliver",
    )
    add(
        "secret",
        "Văn bản có dấu TỐI MẬT",
        DEPARTMENT,
        (PROVINCE,),
        mail(DEPARTMENT, PROVINCE, "Gửi báo cáo", plain, ("bao-cao.pdf", pdf, documents.pdf(secret))),
        "block-secret",
    )
    add(
        "secret-spaced",
        "Dấu mật viết cách chữ: T Ố I   M Ậ T",
        DEPARTMENT,
        (PROVINCE,),
        mail(DEPARTMENT, PROVINCE, "Gửi báo cáo", plain, ("bao-cao-2.pdf", pdf, documents.pdf(spaced))),
        "block-secret",
    )
    decomposed = _change(secret, code="05/BC-SNV", secrecy=unicodedata.normalize("NFD", "TỐI MẬT"))
    add(
        "secret-nfd",
        "Dấu mật viết bằng Unicode tổ hợp, trong tệp .docx",
        DEPARTMENT,
        (PROVINCE,),
        mail(DEPARTMENT, PROVINCE, "Gửi báo cáo", plain, ("bao-cao-3.docx", docx, documents.docx(decomposed))),
        "block-secret",
    )
    sealed = documents.encrypted_zip({"16-TB-SNV.pdf": documents.pdf(unsigned)}, b"demo")
    add(
        "encrypted-zip",
        "Tệp ZIP đặt mật khẩu, không kiểm tra được nội dung",
        DISTRICT,
        (DEPARTMENT,),
        mail(DISTRICT, DEPARTMENT, "Gửi hồ sơ", plain, ("ho-so.zip", ("application", "zip"), sealed)),
        "hold",
    )
    add(
        "urgent",
        "Văn bản HỎA TỐC, ký số hợp lệ",
        DEPARTMENT,
        (DISTRICT,),
        mail(
            DEPARTMENT,
            DISTRICT,
            f"[HỎA TỐC] {urgent.code}: {urgent.abstract}",
            plain,
            ("18-TB-SNV.signed.pdf", pdf, documents.signed_pdf(urgent, pki, at=now)),
        ),
        "deliver",
    )
    add(
        "broken-mime",
        "Thư có cấu trúc MIME hỏng, hai cách đọc cho hai kết quả",
        "vanthu@congtydemo.example",
        (COMMUNE,),
        _broken(now, documents.pdf(unsigned)),
        "hold",
    )
    return rows


def _change(paper: Paper, **values: object) -> Paper:
    return replace(paper, **values)  # type: ignore[arg-type]


def _mail(
    now: dt.datetime,
    sender: str,
    recipient: str,
    subject: str,
    text: str,
    *files: tuple[str, tuple[str, str], bytes],
    display: str = "",
) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = f"{display} <{sender}>" if display else sender
    message["To"] = recipient
    message["Subject"] = "-"
    message["Date"] = format_datetime(now.astimezone(VIETNAM))
    local = f"{zlib.crc32(f'{sender} {recipient} {subject}'.encode()):08x}.{now.timestamp():.0f}"
    message["Message-ID"] = f"<{local}@{sender.rpartition('@')[2]}>"
    message.set_content(text, charset="utf-8", cte="base64")  # for hops without 8BITMIME
    for name, (kind, sub), data in files:
        message.add_attachment(data, maintype=kind, subtype=sub, filename=name)
    # The library's folding of a new-style message drops blanks between encoded words; its older class keeps them.
    folded = Header(subject, "utf-8", header_name="Subject").encode(linesep="\r\n").encode("ascii")
    return message.as_bytes().replace(b"Subject: -", b"Subject: " + folded, 1)


def _broken(now: dt.datetime, data: bytes) -> bytes:
    """Two Content-Type fields that disagree on the boundary: two readers find two different attachments."""
    encoded = base64.encodebytes(data).replace(b"\n", b"\r\n")
    head = (
        "From: vanthu@congtydemo.example\r\n"
        f"To: {COMMUNE}\r\n"
        "Subject: =?utf-8?q?H=E1=BB=93_s=C6=A1?=\r\n"
        f"Date: {format_datetime(now.astimezone(VIETNAM))}\r\n"
        f"Message-ID: <broken.{now.timestamp():.0f}@congtydemo.example>\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="one"\r\n'
        'Content-Type: multipart/mixed; boundary="two"\r\n\r\n'
    ).encode()
    parts = b""
    for boundary, name in ((b"one", b"ho-so.pdf"), (b"two", b"khac.pdf")):
        parts += (
            b"--" + boundary + b"\r\nContent-Type: application/pdf; name=" + name
            + b"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=" + name
            + b"\r\n\r\n" + encoded
        )  # fmt: skip
    return head + parts  # and no closing boundary of either


_AGENCIES = f"""\
agencies:
  - id: ubnd-tinh
    name: Ủy ban nhân dân tỉnh Demo
    short_name: UBND tỉnh
    level: province
    organ_id: H99
    domains: [{DOMAIN}]
    certificate:
      issued_on: 2020-01-01
      subjects: ["MNS:9900001"]
  - id: so-noi-vu
    name: Sở Nội vụ tỉnh Demo
    short_name: SNV
    aliases: [Sở Nội vụ]
    level: department
    parent: ubnd-tinh
    organ_id: H99.01
    certificate:
      issued_on: 2020-01-01
      subjects: ["MNS:9900002"]
    signers:
      - title: Giám đốc
        name: {documents.SIGNER}
        subjects: ["giamdoc.snv@{DOMAIN}"]
  - id: so-van-hoa
    name: Sở Văn hóa tỉnh Demo
    short_name: SVH
    level: department
    parent: ubnd-tinh
    organ_id: H99.02
  - id: huyen-mau
    name: Ủy ban nhân dân huyện Mẫu
    short_name: UBND huyện Mẫu
    level: district
    parent: ubnd-tinh
    organ_id: H99.21
    leaders: [{{title: Chủ tịch, phone: "0900 000 001", email: chutich.huyenmau@{DOMAIN}}}]
    delegate: {{title: Phó Chủ tịch, phone: "0900 000 002", email: phochutich.huyenmau@{DOMAIN}}}
  - id: xa-mau
    name: Ủy ban nhân dân xã Mẫu
    short_name: UBND xã Mẫu
    level: commune
    parent: huyen-mau
    organ_id: H99.21.01
"""

_MAILBOXES = f"""\
mailboxes:
  - address: {PROVINCE}
    kind: AGENCY
    agency: ubnd-tinh
  - address: {DEPARTMENT}
    kind: AGENCY
    agency: so-noi-vu
  - address: giamdoc.snv@{DOMAIN}
    kind: PERSONAL
    holder: {documents.SIGNER}
    agency: so-noi-vu
  - address: {OFFICIAL}
    kind: PERSONAL
    holder: Chuyên viên Sở Nội vụ
    agency: so-noi-vu
    private: [{PRIVATE}]
  - address: {DISTRICT}
    kind: AGENCY
    agency: huyen-mau
  - address: {COMMUNE}
    kind: AGENCY
    agency: xa-mau
"""
