"""Journal reports and copies of all mail: what is read in them, and what becomes of the mail they tell of."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import email
import email.policy
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import config, journal, likeness
from gateway import log as logs
from gateway.archive import Archive
from gateway.daemon import read_rules
from gateway.database import Database
from gateway.errors import ConfigError
from gateway.message import (
    VIETNAM,
    Address,
    Envelope,
    MemoryBody,
    NullSender,
    Origin,
    Polled,
    Received,
    Recipient,
    Sender,
    Taken,
    new_case,
)
from gateway.pipeline import Pipeline
from gateway.store import Store
from tests import harness
from tests.facts import Facts
from tests.test_gateway import CITIZEN, PROVINCE, SECRETS, letter, query

JOURNAL = f"journal@{harness.OURS}"
STAFF = f"canbo@{harness.OURS}"
EXCHANGE = "MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@tinhdemo.gov.vn"

ENGLISH = """\
Sender: {sender}
Subject: =?utf-8?q?kh=C3=B4ng_quan_tr=E1=BB=8Dng?=
Message-Id: <1@tinhdemo.gov.vn>
To: {recipient}, Expanded: toan-co-quan@tinhdemo.gov.vn
Cc: phong@so.example
Bcc: an@so.example
On-Behalf-Of: lanhdao@tinhdemo.gov.vn
"""
PLAIN = """\
Sender: {sender}
Message-Id: <1@tinhdemo.gov.vn>
Recipient: {recipient}
Recipient: an@so.example
"""
VIETNAMESE = """\
Người gửi: {sender}
Chủ đề: Tin
Mã thư: <1@tinhdemo.gov.vn>
Đến: Ủy ban <{recipient}>, Mở rộng: toan-co-quan@tinhdemo.gov.vn
Đồng gửi: phong@so.example
Bí mật: an@so.example
Thay mặt cho: lanhdao@tinhdemo.gov.vn
"""


def report(
    inner: bytes,
    text: str = ENGLISH,
    *,
    sender: str = CITIZEN,
    recipient: str = PROVINCE,
    encoding: str = "7bit",
    marked: bool = True,
    kind: str = "message/rfc822",
) -> bytes:
    """A journal report as Exchange writes one."""
    told = text.format(sender=sender, recipient=recipient).replace("\n", "\r\n").encode()
    held = base64.encodebytes(inner).replace(b"\n", b"\r\n") if encoding == "base64" else inner
    return (
        f"From: {EXCHANGE}\r\nTo: {JOURNAL}\r\nSubject: Journal Report\r\nMessage-ID: <journal.1@tinhdemo.gov.vn>\r\n"
        f"{'X-MS-Journal-Report:' + chr(13) + chr(10) if marked else ''}MIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="_ranh_gioi_"\r\n\r\n'
        "--_ranh_gioi_\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    ).encode() + base64.encodebytes(told).replace(b"\n", b"\r\n") + (
        f"\r\n--_ranh_gioi_\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    ).encode() + held + b"\r\n--_ranh_gioi_--\r\n"  # fmt: skip


@pytest.mark.parametrize("text", [ENGLISH, VIETNAMESE], ids=["english", "vietnamese"])
@pytest.mark.parametrize("encoding", ["7bit", "8bit", "base64"])
@pytest.mark.parametrize("marked", [True, False])
def test_a_report_is_unwrapped(text: str, encoding: str, marked: bool) -> None:
    inner = letter()
    found = journal.read(report(inner, text, encoding=encoding, marked=marked))
    assert found is not None
    assert (found.defect, found.inner) == ("", inner)
    assert (found.sender, found.on_behalf_of, found.message_id) == (
        CITIZEN,
        f"lanhdao@{harness.OURS}",
        "<1@tinhdemo.gov.vn>",
    )
    assert [(one.address, one.kind, one.expanded) for one in found.recipients] == [
        (PROVINCE, "to", f"toan-co-quan@{harness.OURS}"),
        ("phong@so.example", "cc", ""),
        ("an@so.example", "bcc", ""),
    ]
    assert found.head.endswith(b"\r\n\r\n")
    assert json.loads(found.text())["recipients"][2] == {"address": "an@so.example", "kind": "bcc"}


@pytest.mark.parametrize(
    ("raw", "defect"),
    [
        (report(letter(), "Không có gì ở đây.\n"), "names neither"),
        (report(b"x", kind="application/octet-stream"), "no message in it"),
        (report(b"  \r\n"), "empty"),
        (report(b"", PLAIN)[:-60], "no message|empty"),
        (b"X-MS-Journal-Report:\r\nSubject: x\r\n\r\n\x00\xff", "names neither"),
    ],
    ids=["no envelope", "no message", "empty", "cut off", "no report"],
)
def test_a_report_that_cannot_be_unwrapped_says_why(raw: bytes, defect: str) -> None:
    found = journal.read(raw)
    assert found is not None
    assert found.inner is None
    assert re.search(defect, found.defect), found.defect


def test_lines_of_a_report() -> None:
    text = (
        'Sender: <>\nTo: "Trần, B" <b@x.example>, Expanded: <ds@x.example>, Forwarded: cu@x.example\n'
        "Recipient: B@x.example\nRecipients: c@x.example; d@x.example\nCc: không có\nThu: la@x.example\n"
    )
    found = journal.read(report(letter(), text))
    assert found is not None
    assert found.sender == ""
    assert [(one.address, one.kind, one.expanded, one.forwarded) for one in found.recipients] == [
        ("b@x.example", "to", "ds@x.example", "cu@x.example"),
        ("c@x.example", "recipient", "", ""),
        ("d@x.example", "recipient", "", ""),
    ]


def test_other_mail_is_no_report() -> None:
    assert journal.read(letter()) is None
    assert journal.read(b"") is None
    assert journal.read(letter(text="Sender: a@b.example\nRecipient: c@d.example")) is None
    # a person who forwards a message writes something above it
    assert journal.read(report(letter(), "Chuyển để biết.\n", marked=False)) is None


def test_the_same_message_below_what_servers_put_on_top() -> None:
    raw = letter()

    def core(data: bytes) -> tuple[str, bytes]:
        return likeness.core(MemoryBody(data, hashlib.sha256(data).hexdigest()))

    top = (
        b"Return-Path: <a@b>\r\nDelivered-To: c@d\r\nReceived: from x\r\n\tby y;\r\n z\r\nX-VBDT-Case: 1\r\n"
        b"Authentication-Results: k; spf=pass\r\n"
    )
    assert core(raw) == (hashlib.sha256(raw).hexdigest(), b"")
    assert core(top + raw) == (core(raw)[0], top)
    assert core(top + raw.replace(b"citizen", b"citizan"))[0] != core(raw)[0]
    # without a number of its own a message is what all its bytes are
    anonymous = b"Received: from x\r\nSubject: a\r\n\r\nMessage-ID: <1@x>\r\n"
    assert core(anonymous) == (hashlib.sha256(anonymous).hexdigest(), b"")
    large = top + raw + b"x" * 3_000_000
    assert core(large)[0] == hashlib.sha256(large[len(top) :]).hexdigest()


# ---------------------------------------------------------------------- the whole way


def configured(folder: Path, hop_port: int, auth_port: int, extra: str = "") -> Path:
    """A gateway that takes journals from hosts on loopback."""
    made = harness.write_config(folder, hop_port=hop_port, auth_port=auth_port, extra=extra)
    path = made / "gateway.yaml"
    text = path.read_text().replace("{kind: relay, port: 0}", "{kind: relay, port: 0, networks: [127.0.0.0/8]}")
    path.write_text(f"{text}\njournal: [{JOURNAL}]\n")
    return made


class House:
    """Pipeline, archive and policy in this process, without the workers."""

    def __init__(self, folder: Path) -> None:
        path = configured(folder, 1, 1, "limits: {free_disk: 0}\n")
        self.settings = config.read(path)
        self.settings.data.mkdir()
        self.rules = read_rules(path)
        self.database = Database.open(self.settings.database_url)

    async def open(self) -> None:
        self.archive = Archive(self.database, Store(self.settings.data / "blobs"), self.settings)
        await self.archive.start()
        self.pipeline = Pipeline(
            self.settings, self.rules, inspector=Facts(), archive=self.archive, wake=lambda: None, log=logs.get(),
            mail_log=logs.MailLog((self.settings.data / "mail.log").open("a")), data=self.settings.data,
        )  # fmt: skip

    async def smtp(self, raw: bytes, *recipients: str, sender: str | None = None, trusted: bool = True) -> str:
        origin = Origin("relay", "127.0.0.1", helo="mail", trusted=trusted)
        path: Sender = Address(*sender.split("@")) if sender else NullSender()
        to = [Recipient(Address(*one.split("@"))) for one in recipients or (JOURNAL,)]
        for one in to:
            if reply := await self.pipeline.recipient(origin, path, one):
                return f"{reply.code} {reply.text}"
        body = MemoryBody(raw, hashlib.sha256(raw).hexdigest())
        received = Received(new_case(), dt.datetime.now(VIETNAM), Envelope(path, tuple(to)), origin, body)
        reply = await self.pipeline.message(received)
        return f"{reply.code} {reply.text}"

    async def imap(self, raw: bytes, account: str = PROVINCE, role: str = "inbox", journal: bool = False) -> Taken:
        body = MemoryBody(raw, hashlib.sha256(raw).hexdigest())
        at = dt.datetime.now(VIETNAM)
        return await self.pipeline.polled(Polled(body, account, role, at, "mail.example", journal=journal))

    async def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return await self.database.read(lambda c: [tuple(row) for row in c.exec_driver_sql(statement).all()])

    async def mail(self) -> list[bytes]:
        rows = await self.sql("select id from message where kind = 'mail' order by id")
        return [await self.archive.data(row[0]) for row in rows]

    async def counted(self) -> list[tuple[Any, ...]]:
        return await self.sql(
            "select kind, direction, agency, count(*) from event where kind in ('sent', 'received', 'blocked_secret')"
            " group by 1, 2, 3 order by 1, 2, 3"
        )


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    made = House(folder)
    try:
        await made.open()
        yield made
        await made.archive.close()
    finally:
        made.database.close()


def walk(folder: Path, work: Any) -> None:
    async def whole() -> None:
        async with house(folder) as made:
            await work(made)

    asyncio.run(whole())


@pytest.mark.parametrize("first", ["journal", "smtp", "imap"])
def test_a_message_in_journal_smtp_and_mailbox_is_archived_and_counted_once(tmp_path: Path, first: str) -> None:
    raw = b"Received: from ngoai by mail; Mon, 2 Nov 2026 08:00:00 +0700\r\n" + letter()
    delivered = b"Return-Path: <%s>\r\nDelivered-To: %s\r\n" % (CITIZEN.encode(), PROVINCE.encode()) + raw

    async def work(one: House) -> None:
        async def journaled() -> None:
            assert (await one.smtp(report(raw))).startswith("250 ")

        async def relayed() -> None:
            assert (await one.smtp(raw, PROVINCE, sender=CITIZEN)).startswith("250 ")

        async def polled() -> None:
            await one.imap(delivered)

        ways = {"journal": journaled, "smtp": relayed, "imap": polled}
        await ways[first]()
        for name, way in ways.items():
            if name != first:
                await way()
        await journaled()  # the server did not hear our answer
        assert await one.counted() == [("received", "in", "ubnd", 1)], first
        places = await one.sql("select via, place from sighting order by via")
        assert ("journal", JOURNAL) in places
        assert len(places) == len(set(places))
        # What comes by SMTP is owed to somebody: it is a row of its own when it was only watched before.
        assert await one.mail() == {"smtp": [raw], "journal": [raw, raw], "imap": [delivered, raw]}[first]
        case = (await one.sql("select id from message where kind = 'mail' order by id"))[0][0]
        assert {row[0] for row in await one.sql("select case_id from sighting")} == {case}
        envelope = json.loads((await one.sql("select envelope from sighting where via = 'journal'"))[0][0])
        assert [row["address"] for row in envelope["recipients"]] == [PROVINCE, "phong@so.example", "an@so.example"]

    walk(tmp_path, work)


def test_a_journal_alone(tmp_path: Path) -> None:
    """The envelope of the report is the envelope of the message; nothing is owed to anybody."""

    async def work(one: House) -> None:
        sent = letter(sender=STAFF)
        assert (await one.smtp(report(sent, sender=STAFF, recipient=CITIZEN))).startswith("250 ")
        assert await one.mail() == [sent]
        assert await one.sql("select channel, direction, sender from message") == [("journal", "out", STAFF)]
        assert await one.sql("select address, state, destination from recipient order by id") == [
            (CITIZEN, "seen", ""),
            ("phong@so.example", "seen", ""),
            ("an@so.example", "seen", ""),
        ]
        assert await one.counted() == [("sent", "out", "ubnd", 1)]

    walk(tmp_path, work)


def test_copies_of_all_mail(tmp_path: Path) -> None:
    """Postfix's always_bcc: the envelope sender is the real one, the recipients are those of the header; and where the
    copy comes in one transaction with the message itself, it is the message."""

    async def work(one: House) -> None:
        copy = letter("Bản sao")
        assert (await one.smtp(copy, sender=CITIZEN)).startswith("250 ")
        assert (await one.smtp(letter("Cùng nhau"), PROVINCE, JOURNAL, sender=CITIZEN)).startswith("250 ")
        assert await one.sql("select channel, sender from message order by id") == [
            ("journal", CITIZEN),
            ("relay", CITIZEN),
        ]
        assert await one.sql("select address, state from recipient order by id") == [
            (PROVINCE, "seen"),
            (PROVINCE, "queued"),
        ]
        assert await one.sql("select via, place from sighting") == [("bcc", JOURNAL)]
        assert await one.counted() == [("received", "in", "ubnd", 2)]

    walk(tmp_path, work)


def test_what_cannot_be_unwrapped_is_archived_as_it_came(tmp_path: Path) -> None:
    raw = report(b"x", kind="application/octet-stream")

    async def work(one: House) -> None:
        assert (await one.smtp(raw)).startswith("250 ")
        assert await one.mail() == [raw]
        record = json.loads((await one.sql("select record from message"))[0][0])
        found = [row for row in record["inspection"]["findings"] if row["value"] == "journal_report"]
        assert [row["where"] for row in found] == ["the report has no message in it"]

    walk(tmp_path, work)


def test_a_secret_in_a_journal_is_buried_and_answered_250(tmp_path: Path) -> None:
    async def work(one: House) -> None:
        secret = b"Received: from a by b\r\n" + SECRETS["body"]
        assert (await one.smtp(report(secret))).startswith("250 ")
        taken = await one.imap(b"Delivered-To: x\r\n" + secret)
        assert taken.secret
        assert await one.mail() == []
        assert await one.sql("select count(*) from tombstone") == [(1,)]
        assert ("blocked_secret", "in", "ubnd", 1) in await one.counted()
        assert await one.sql("select head, envelope from sighting where length(head) > 0 or envelope != ''") == []

    walk(tmp_path, work)


def test_a_journal_that_nobody_could_fill_is_a_mistake(tmp_path: Path) -> None:
    made = harness.write_config(tmp_path, hop_port=1, auth_port=1, extra=f"journal: [{JOURNAL}]\n")
    with pytest.raises(ConfigError, match="no relay listener has `networks`"):
        config.read(made)


def test_strangers_cannot_tell_tales(tmp_path: Path) -> None:
    async def work(one: House) -> None:
        assert (await one.smtp(report(letter()), trusted=False)).startswith("550 ")
        assert await one.mail() == []

    walk(tmp_path, work)


def test_a_mailbox_of_journal_reports(tmp_path: Path) -> None:
    async def work(one: House) -> None:
        raw = letter()
        taken = await one.imap(report(raw), account=JOURNAL, journal=True)
        assert (taken.digest, taken.offends) == (hashlib.sha256(report(raw)).hexdigest(), False)
        assert await one.mail() == [raw]
        assert await one.sql("select via, place from sighting") == [("journal", JOURNAL)]

    walk(tmp_path, work)


def test_over_smtp(tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer) -> None:
    """As a mail server sends it, through the whole gateway."""
    import smtplib

    made = configured(tmp_path, sink.port, passwords.port)
    gateway = harness.Gateway(made).start()
    inner = letter()
    with smtplib.SMTP("127.0.0.1", gateway.ports["relay"], timeout=240) as mail:
        mail.sendmail("", [JOURNAL], report(inner, VIETNAMESE))
    case = query(gateway, "select id from message")[0][0]
    path = gateway.data / "out.eml"
    gateway.command("archive", "export", case, "-o", str(path))
    assert path.read_bytes() == inner
    rows = [json.loads(line) for line in gateway.command("imap", "sightings", case, "--json").splitlines()]
    assert [(row["via"], row["mailbox"]) for row in rows] == [("journal", JOURNAL)]
    assert [one["kind"] for one in rows[0]["envelope"]["recipients"]] == ["to", "cc", "bcc"]
    gateway.command("archive", "verify")
    assert gateway.stop() == 0
    assert sink.messages == []


# ---------------------------------------------------------------------- who is told


def test_the_clerk_is_told_of_mail_whose_sender_nobody_knows(tmp_path: Path) -> None:
    """The sender gets nothing; the notice itself, when it lies in the mailbox, is known as ours."""
    forged = letter(
        "Công văn số 12/UBND-VP về việc họp", "Kính gửi các sở, ngành. Số: 12/UBND-VP",
        sender='"Ủy ban nhân dân tỉnh Demo" <ubnd.demo@gmail.com>',
    )  # fmt: skip

    async def work(one: House) -> None:
        assert (await one.imap(forged)).offends
        assert await one.sql(
            "select r.address from recipient r join message m on m.id = r.message where kind = 'notice'"
        ) == [(PROVINCE,)]
        case, notice = (await one.sql("select id, about from message where kind = 'notice'"))[0]
        data = await one.archive.data(case)
        text = email.message_from_bytes(data, policy=email.policy.SMTP).get_body(("plain",))  # type: ignore[attr-defined]
        assert text is not None
        assert "ubnd.demo@gmail.com" in text.get_content()
        assert notice in text.get_content()
        delivered = b"Return-Path: <>\r\nReceived: from cong by mail; Mon, 2 Nov 2026 08:00:00 +0700\r\n" + data
        assert (await one.imap(delivered)).case == case
        assert await one.counted() == [("received", "in", "ubnd", 1)]
        # a second mailbox with the same message makes no second notice
        await one.imap(b"Delivered-To: x\r\n" + forged, account=STAFF)
        assert await one.sql("select count(*) from message where kind = 'notice'") == [(1,)]

    walk(tmp_path, work)


def test_the_owner_of_a_mailbox_is_told_of_what_they_sent(tmp_path: Path) -> None:
    """Whoever the header names: who can put mail into the folder of sent mail has logged in."""

    async def work(one: House) -> None:
        raw = letter("Thư", "TỐI MẬT\n\nPhương án Kim Quy.", sender=f"lanhdao@{harness.OURS}")
        assert (await one.imap(raw, account=STAFF, role="sent")).secret
        told = "select kind, r.address from recipient r join message m on m.id = r.message"
        assert await one.sql(told) == [("notice", STAFF)]

    walk(tmp_path, work)


def test_history_is_told_to_nobody(tmp_path: Path) -> None:
    async def work(one: House) -> None:
        raw = letter("Số: 12/UBND-VP", sender='"Ủy ban nhân dân tỉnh Demo" <ubnd.demo@gmail.com>')
        body = MemoryBody(raw, hashlib.sha256(raw).hexdigest())
        at = dt.datetime.now(VIETNAM)
        await one.pipeline.polled(Polled(body, PROVINCE, "inbox", at, "mail.example", history=True))
        assert await one.sql("select kind from message") == [("mail",)]

    walk(tmp_path, work)
