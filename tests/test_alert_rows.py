"""The worker of alerts over real receivers, with a clock of its own: retries, limits, quiet hours, acknowledgement,
processes that die. And the words: what fits into one SMS whatever a message says."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import os
import re
import ssl
import stat
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gateway import archive as keeping
from gateway import config, directory
from gateway.alerts import Alerts, held_text, of_message, released, trouble_text, urgent_text
from gateway.archive import Alert, Archive, Owed, Reach
from gateway.config import Gateway, international
from gateway.database import Database, sqlite_url
from gateway.directory import Directory
from gateway.inspection.findings import Document, DocumentField, Finding, Inspection, Mailbox, MessageFacts
from gateway.message import VIETNAM, new_case
from gateway.policy import Disposition
from gateway.store import Store
from tests import cases
from tests.receiver import Receiver

NOON = dt.datetime(2026, 11, 23, 12, 0, tzinfo=VIETNAM)


class House:
    """Database, archive and worker over one folder; `restart` is a process that was killed and started again."""

    def __init__(
        self,
        folder: Path,
        alerts: dict[str, Any],
        hostname: str = "cong.tinh.gov.vn",
        url: str = "",
        busy_seconds: float = 60,
    ) -> None:
        self.folder, self.busy_seconds = folder, busy_seconds
        self.url = url or sqlite_url(folder / "gateway.db")
        self.now = NOON.timestamp()
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.settings = Gateway.model_validate(
            {
                "hostname": hostname,
                "data": str(folder),
                "listeners": [{"kind": "relay", "port": 0}],
                "next_hops": [{"name": "hop", "host": "127.0.0.1", "port": 9, "domains": ["*"]}],
                "alerts": alerts,
            }
        )
        self.task: asyncio.Task[None] | None = None
        self._open()

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **about: self.lines.append((level, event, about))

    def _open(self) -> None:
        self.database = Database.open(self.url, busy_seconds=self.busy_seconds)
        self.archive = Archive(self.database, Store(self.folder / "blobs"), self.settings)
        self.alerts = Alerts(self.settings, self.archive, log=self, clock=lambda: self.now)
        self.stop = asyncio.Event()

    def start(self) -> None:
        self.task = asyncio.create_task(self.alerts.run(self.stop))

    async def end(self) -> None:
        if self.task is not None:
            self.stop.set()
            await self.task
        self.task = None
        await self.archive.close()
        self.database.close()

    async def owe(
        self, key: str, *reaches: Reach, kind: str = "urgent", text: str = "", give_up: float = 86400
    ) -> None:
        """An alert, as a commit writes it."""
        alert = Alert(
            key, kind, "hoa_toc", text or f"VB HOA TOC {key}", reaches, give_up, "xa", new_case(), key, "So X"
        )
        await self.database.write(lambda c: keeping.append_alert(c, alert, int(self.now * 1000)))
        self.alerts.wake()

    async def rows(self) -> list[dict[str, Any]]:
        return list(reversed(await self.alerts.listing()))

    async def states(self) -> list[list[str]]:
        return [[one["state"] for one in row["sends"]] for row in await self.rows()]

    async def until(self, states: list[list[str]]) -> None:
        await settled(self.states, states)


async def settled(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    found: Any = None
    try:
        async with asyncio.timeout(240):
            while (found := await ask()) != expected:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{found}, not {expected}") from None


@asynccontextmanager
async def house(folder: Path, alerts: dict[str, Any], **more: Any) -> AsyncIterator[House]:
    built = House(folder, alerts, **more)
    built.start()
    try:
        yield built
    finally:
        await built.end()


@pytest.fixture
def receiver() -> Any:
    made = Receiver()
    yield made
    made.close()


def sms(receiver: Receiver, **more: Any) -> dict[str, Any]:
    channel = {"name": "sms", "kind": "sms", "url": receiver.url + "/gui", **more.pop("channel", {})}
    return {"channels": [channel], "urgent": {"channels": ["sms"]}, **more}


def to(phone: str = "84901", role: str = "leader", delay: float = 0, pressing: bool = True) -> Reach:
    return Reach("sms", role, phone, "", delay, pressing)


def run(work: Awaitable[None]) -> None:
    asyncio.run(work)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ the words

GSM = set("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
          "¿abcdefghijklmnopqrstuvwxyzäöñüà")  # fmt: skip


@given(
    st.sampled_from(["hoa_toc", "hoa_toc_hen_gio", "thuong_khan", "khan"]), st.text(max_size=300), st.text(max_size=300)
)
def test_whatever_a_message_says_fits_into_one_sms(level: str, number: str, issuer: str) -> None:
    case = "06H06RTXVY0XVA99"
    for text in (urgent_text(level, number, issuer, NOON, case), held_text(level, issuer, NOON, case)):
        assert len(text) <= 160 and set(text) <= GSM, text
        assert text.startswith("VB ") and text.endswith(f"Ma {case}") and "12:00 23/11" in text
        assert text.count("Ma " + case) == 1 or case in number + issuer
        assert "\n" not in text
    assert len(trouble_text("cong.tinh.gov.vn", number)) <= 160


def test_the_sms_of_the_rules() -> None:
    text = urgent_text("hoa_toc", "15/CĐ-UBND", "Ủy ban nhân dân tỉnh Demo", NOON, "06H06RTXVY0XVA99")
    assert text == (
        "VB HOA TOC so 15/CD-UBND cua Uy ban nhan dan tinh Demo den luc 12:00 23/11. "
        "De nghi xem hop thu cong vu. Ma 06H06RTXVY0XVA99"
    )
    long = "Ủy ban nhân dân thành phố trực thuộc Trung ương có tên rất dài để thử cắt " * 3
    text = urgent_text("hoa_toc_hen_gio", "1234/QĐ-BCĐ-TTCCHC", long, NOON, "06H06RTXVY0XVA99")
    assert "so 1234/QD-BCD-TTCCHC cua Uy ban nhan dan thanh pho truc thuoc Trung den luc" in text and len(text) <= 160
    # tricks: a link, a line of its own, a number of another service, right-to-left, letters that are two units long
    text = urgent_text("hoa_toc", "15/TB http://x.vn\r\nTo: 113\u202e{[~^]}|\\€", "A", NOON, "06H06RTXVY0XVA99")
    assert text.startswith("VB HOA TOC so 15/TBhttp//xvnTo113 cua A den luc")


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("0912 345 678", "84912345678"), ("+84 912 345 678", "84912345678"), ("(0274) 3822.822", "842743822822"),
        ("0084912345678", "84912345678"), ("84912345678", "84912345678"), ("113", ""), ("0912x345678", ""),
        ("0912345678;rm", ""), ("+84912345678901234", ""), ("--help 0912345678", ""), ("", ""),
    ],
)  # fmt: skip
def test_telephone_numbers(written: str, digits: str) -> None:
    assert international(written) == digits


# ---------------------------------------------------------------------------------------------------- what is owed

PEOPLE = """
agencies:
  - {id: so, name: Sở Nội vụ, level: department, domains: [so.gov.vn]}
  - id: xa
    name: Ủy ban nhân dân xã Mẫu
    level: commune
    domains: [xa.gov.vn]
    leaders: [{phone: 0901 000 001}, {email: pct@xa.gov.vn}, {phone: 0901 000 001}]
    delegate: {phone: 0903 000 003, email: vp@xa.gov.vn}
  - {id: phuong, name: Phường, level: commune, domains: [phuong.gov.vn], clerk: {phone: 0904 000 004}}
  - {id: khong, name: Không, level: commune, domains: [khong.gov.vn]}
"""
CHANNELS = {
    "channels": [{"name": "sms", "kind": "sms", "url": "https://x.vn/"}, {"name": "thu", "kind": "mail"}],
    "urgent": {"channels": ["sms", "thu"], "levels": ["hoa_toc", "khan"]},
    "security": {"channels": ["sms"], "phone": "0909000009"},
    "admin": {"channels": ["thu"], "email": "quan.tri@so.gov.vn"},
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    folder = tmp_path_factory.mktemp("people") / "directory"
    folder.mkdir()
    (folder / "agencies.yaml").write_text(PEOPLE)
    return directory.load(folder)


def owed(known: Directory, states: dict[str, str], **more: Any) -> tuple[Alert, ...]:
    """The alerts of an urgent document of Sở Nội vụ; `states`: agency → what becomes of its copy."""
    level, code = more.get("level", "hoa_toc"), more.get("code", "15/TB-SNV")
    document = Document(code=DocumentField(value=code), date=DocumentField(value="2026-11-20")) if code else None
    found = (Finding(kind="urgency", value=level, grade=more.get("grade", "strong")),)
    facts = Inspection(message=MessageFacts(from_=(Mailbox(address="vt@so.gov.vn"),)), findings=found)
    verdict = SimpleNamespace(
        disposition=more.get("disposition", Disposition.DELIVER),
        urgency=level,
        annotations=(SimpleNamespace(rule=more.get("rule", "TM-04")),),
        document=document,
    )
    case = dataclasses.replace(
        cases.case(sender="vt@so.gov.vn"),
        inspection=facts,
        verdict=verdict,
        owed=tuple(Owed(f"vt@{one}", "", "", one, "deliver", state, "hop") for one, state in states.items()),
    )
    return of_message(config.Alerts.model_validate(CHANNELS), known, case)


def people(alert: Alert) -> list[tuple[str, str, str, float]]:
    return [(one.role, one.channel, one.phone or one.email, one.delay) for one in alert.reaches]


def test_leaders_then_the_delegate_and_somebody_always(known: Directory) -> None:
    xa, phuong, khong = owed(known, {"xa": "queued", "phuong": "seen", "khong": "queued", "so": "queued"})
    assert people(xa) == [
        ("leader", "sms", "84901000001", 0), ("leader", "thu", "pct@xa.gov.vn", 0),
        ("delegate", "sms", "84903000003", 600), ("delegate", "thu", "vp@xa.gov.vn", 600),
    ]  # fmt: skip
    assert people(phuong) == [("clerk", "sms", "84904000004", 0)]
    assert people(khong) == [("admin", "thu", "quan.tri@so.gov.vn", 0)]
    assert all(one.pressing for one in xa.reaches)


def test_a_document_that_is_held_is_told_without_its_number(known: Directory) -> None:
    (alert,) = owed(known, {"xa": "held"})
    assert alert.text.startswith("VB HOA TOC gui Uy ban nhan dan xa Mau luc ") and "tam giu" in alert.text
    assert "15/TB-SNV" not in alert.text + alert.document + alert.detail
    (later,) = owed(known, {"xa": "queued"})
    assert later.key != alert.key  # when it arrives, it is told


def test_what_is_not_told(known: Directory) -> None:
    assert owed(known, {"xa": "returned"}) == owed(known, {"xa": "refused"}) == ()
    assert owed(known, {"xa": "queued"}, rule="TM-05") == ()  # nobody proves the sender
    assert owed(known, {"xa": "queued"}, level="thuong_khan") == ()  # not one of the levels
    assert owed(known, {"xa": "queued"}, level="khan", grade="weak") == ()  # `CÔNG ĐIỆN KHẨN`, a title
    (mild,) = owed(known, {"xa": "queued"}, level="khan")
    assert not any(one.pressing for one in mild.reaches)
    assert of_message(None, known, cases.case()) == ()


def test_the_same_number_is_the_same_document_within_year_and_issuer(known: Directory) -> None:
    def key(**more: Any) -> str:
        return owed(known, {"xa": "queued"}, **more)[0].key

    assert key() == key(code="15 / TB-SNV") == key(code="15/tb-snv")
    assert key() != key(code="16/TB-SNV") and key() != key(code="")


# ---------------------------------------------------------------------------------------------------------- the worker


def test_retries_survive_a_kill_and_nothing_is_lost_or_told_twice_in_silence(
    tmp_path: Path, receiver: Receiver
) -> None:
    async def work() -> None:
        receiver.answers = [500, 503]
        async with house(tmp_path, sms(receiver)) as built:
            await built.owe("one", to())
            for count in (1, 2):
                await asyncio.to_thread(receiver.wait, count)
                await settled(lambda: _attempts(built), count)
                built.now += 60
                built.alerts.wake()
            await built.until([["sent"]])
            assert (await built.rows())[0]["sends"][0]["attempts"] == 3
            # a kill while the service has the request and we have no answer
            receiver.gate.clear()
            await built.owe("two", to())
            await asyncio.to_thread(receiver.wait, 4)
            for task in built.alerts._tasks | {built.task}:  # what SIGKILL does: nothing is written any more
                task.cancel()
            await asyncio.gather(*built.alerts._tasks, built.task, return_exceptions=True)
            receiver.gate.set()
            built.task = None
            await built.archive.close()
            built.database.close()
            built._open()
            built.start()
            await built.until([["sent"], ["sent"]])
            send = (await built.rows())[1]["sends"][0]
            assert send["possible_duplicates"] == 1
            assert ("warning", "possible duplicate of an alert") in [line[:2] for line in built.lines]
            keys = [one.headers["Idempotency-Key"] for one in receiver.requests]
            assert keys[3] == keys[4] and len(receiver.requests) == 5  # the service can tell that it is the same

    async def _attempts(built: House) -> int:
        return int((await built.rows())[0]["sends"][0]["attempts"])

    run(work())


def test_gives_up_after_a_day_and_the_delegate_does_not_wait(tmp_path: Path, receiver: Receiver) -> None:
    async def work() -> None:
        receiver.answers = [500]
        async with house(tmp_path, sms(receiver)) as built:
            await built.owe("one", to(), to("84902", "delegate", 9999999), give_up=10)
            await built.until([["failed", "sent"]])
            assert [one.json["to"] for one in receiver.requests] == ["84901", "84902"]

    run(work())


def test_the_delegate_is_told_when_nobody_acknowledges_and_not_when_somebody_does(
    tmp_path: Path, receiver: Receiver
) -> None:
    async def work() -> None:
        async with house(tmp_path, sms(receiver)) as built:
            await built.owe("one", to(), to("84902", "delegate", 600))
            await built.owe("two", to(), to("84902", "delegate", 600))
            await built.until([["sent", "waiting"], ["sent", "waiting"]])
            rows = await built.rows()
            built.now += 90
            assert await built.alerts.acknowledge(str(rows[0]["alert"]), "van thu") == [rows[0]["alert"]]
            assert await built.alerts.acknowledge(rows[0]["case"], "ai khac") == []  # the first one counts
            assert await built.alerts.acknowledge("ZZZZ", "x") is None
            built.now += 600
            built.alerts.wake()
            await built.until([["sent", "cancelled"], ["sent", "sent"]])
            row = (await built.rows())[0]
            assert (row["ack_seconds"], row["acked_by"], row["acked_how"]) == (90, "van thu", "command")
            await built.owe("one", to())  # a second alert with the same key is never made
            assert len(await built.rows()) == 2

    run(work())


def test_a_reply_to_the_letter_acknowledges_and_one_by_somebody_else_does_not(tmp_path: Path) -> None:
    async def work() -> None:
        mail = {"channels": [{"name": "thu", "kind": "mail"}], "urgent": {"channels": ["thu"]}}
        async with house(tmp_path, mail) as built:
            await built.owe("one", Reach("thu", "leader", "", "Chu.Tich@xa.gov.vn", 0, True))
            await built.until([["sent"]])
            sql = "select sha256, kind from message"
            rows = await built.database.read(lambda c: c.exec_driver_sql(sql).all())
            assert [row[1] for row in rows] == ["alert"]
            data = built.archive.store.read(rows[0][0]).decode()
            name = next(line for line in data.splitlines() if line.startswith("Message-ID:")).split(": ")[1]
            facts = MessageFacts(references=("<other@x>", name))
            assert await built.alerts.answered(facts, "ke.gian@xa.gov.vn") == []
            assert await built.alerts.answered(MessageFacts(in_reply_to="<alert." + "0" * 32 + "@x>"), "x@y.vn") == []
            assert await built.alerts.answered(facts, "chu.tich@xa.gov.vn") == [1]
            assert (await built.rows())[0]["acked_how"] == "mail"
            acked = "select value, agency from event where kind = 'urgent_acked'"
            assert (await built.database.read(lambda c: c.exec_driver_sql(acked).all())) == [("0", "xa")]

    run(work())


def test_a_letter_that_nobody_takes_told_nobody(tmp_path: Path) -> None:
    async def work() -> None:
        mail = {"channels": [{"name": "thu", "kind": "mail"}], "urgent": {"channels": ["thu"]}}
        async with house(tmp_path, mail) as built:
            leader = Reach("thu", "leader", "", "ct@xa.gov.vn", 0, True)
            await built.owe("one", leader, Reach("thu", "delegate", "", "pct@xa.gov.vn", 600, True))
            await built.until([["sent", "waiting"]])
            await settle(built, 0, "failed", "550 5.1.1 no such mailbox")
            await built.until([["failed", "sent"]])  # the delegate does not wait
            await settle(built, 1, "delivered", "250 taken")
            await settled(lambda: results(built), ["550 5.1.1 no such mailbox", "250 taken"])
            assert await built.states() == [["failed", "sent"]]

    async def settle(built: House, number: int, state: str, reply: str) -> None:
        """What the queue writes when a letter has come to an end."""
        sql = "update recipient set state = ?, last_reply = ? where id = (select id from recipient limit 1 offset ?)"
        await built.database.write(lambda c: c.exec_driver_sql(sql, (state, reply, number)) and None)
        built.alerts.wake()

    async def results(built: House) -> list[str]:
        return [one["result"] for one in (await built.rows())[0]["sends"]]

    run(work())


def test_what_was_told_together_is_acknowledged_by_one_reply(tmp_path: Path) -> None:
    async def work() -> None:
        mail = {"channels": [{"name": "thu", "kind": "mail"}], "admin": {"channels": ["thu"], "email": "qt@so.gov.vn"}}
        async with house(tmp_path, {**mail, "quiet": "11:00-13:00"}) as built:
            for number in range(5):
                await built.owe(f"w{number}", Reach("thu", "admin", "", "qt@so.gov.vn"), kind="trouble")
            built.now += 7200
            built.alerts.wake()
            await built.until([["sent"]] + [["merged"]] * 4)
            sql = "select sha256 from message"
            ((digest,),) = await built.database.read(lambda c: c.exec_driver_sql(sql).all())
            data = built.archive.store.read(digest).decode()
            name = next(line for line in data.splitlines() if line.startswith("Message-ID:")).split(": ")[1]
            assert await built.alerts.answered(MessageFacts(in_reply_to=name), "qt@so.gov.vn") == [1, 2, 3, 4, 5]

    run(work())


def test_limits_and_quiet_hours_gather_what_can_wait_and_never_delay_what_presses(
    tmp_path: Path, receiver: Receiver
) -> None:
    async def work() -> None:
        async with house(tmp_path, sms(receiver, quiet="22:00-06:00", per_hour=3)) as built:
            built.now = NOON.replace(hour=23).timestamp()
            for number in range(9):
                await built.owe(f"w{number}", to(pressing=False), kind="trouble", text=f"viec {number}")
            await built.owe("gap", to())
            assert (await asyncio.to_thread(receiver.wait, 1))[0].json["text"] == "VB HOA TOC gap"
            await built.until([["waiting"]] * 9 + [["sent"]])
            built.now = NOON.replace(hour=23).timestamp() + 7 * 3600 + 1
            built.alerts.wake()
            await built.until([["sent"]] + [["merged"]] * 8 + [["sent"]])
            text = receiver.requests[1].json["text"]
            assert "9 viec" in text and text.endswith("viec 8") and len(receiver.requests) == 2
            for number in range(2):
                await built.owe(f"x{number}", to(pressing=False), kind="trouble")
            await asyncio.to_thread(receiver.wait, 4)
            await built.owe("over", to(pressing=False), kind="trouble")  # the limit of the hour is reached
            await built.owe("gap2", to())
            assert (await asyncio.to_thread(receiver.wait, 5))[4].json["text"] == "VB HOA TOC gap2"
            assert (await built.states())[-2] == ["waiting"]

    run(work())


def test_a_held_document_that_is_released_is_told_again(tmp_path: Path, receiver: Receiver) -> None:
    async def work() -> None:
        async with house(tmp_path, sms(receiver)) as built:
            text = held_text("hoa_toc", "Xã Mẫu", NOON, "06H06RTXVY0XVA99")
            await built.owe("urgent|xa|1|held", to(), to("84902", "delegate", 600), text=text)
            await built.until([["sent", "waiting"]])
            case = (await built.rows())[0]["case"]
            built.now += 60
            now = int(built.now * 1000)
            for _ in range(2):
                await built.database.write(lambda connection: released(connection, case, now))
            built.alerts.wake()
            await built.until([["sent", "cancelled"], ["sent", "waiting"]])
            assert receiver.requests[1].json["text"] == (
                "VB HOA TOC gui Xa Mau luc 12:00 23/11 da chuyen den hop thu cong vu. Ma 06H06RTXVY0XVA99"
            )

    run(work())


def test_https_is_verified_and_redirects_and_proxies_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    good, other = Receiver(context), Receiver()
    monkeypatch.setenv("HTTPS_PROXY", other.url)
    monkeypatch.setenv("HTTP_PROXY", other.url)

    async def work() -> None:
        key = tmp_path / "khoa"
        key.write_text("S3CRET\n")
        known = {"name": "known", "kind": "http", "url": good.url + "/a/{document}?x={text}",
                 "ca": str(tmp_path / "ca.pem"),
                 "headers": {"Authorization": "Bearer {secret}"}, "secret_file": str(key)}  # fmt: skip
        unknown = {"name": "unknown", "kind": "http", "url": good.url + "/b"}
        moved = {"name": "moved", "kind": "http", "url": other.url + "/c", "method": "GET", "success": "^OK$"}
        async with house(tmp_path, {"channels": [known, unknown, moved]}) as built:
            other.answers, other.headers = [302], {"Location": good.url + "/stolen"}
            reaches = [Reach(name, "leader", "84901", "", 0, True) for name in ("known", "unknown", "moved")]
            await built.owe("../../admin?a=b&c#d", *reaches)
            results = ["answer 200", "the certificate of the service is not accepted", "answer 302"]
            await settled(lambda: _results(built), results)
            assert await built.states() == [["sent", "waiting", "waiting"]]
            assert [one.path for one in good.requests] == ["/a/..%2F..%2Fadmin%3Fa%3Db%26c%23d"]
            assert good.requests[0].headers["Authorization"] == "Bearer S3CRET"
            body = good.requests[0].json
            assert body["document"] == "../../admin?a=b&c#d" and body["case"] and "secret" not in body
            other.headers = {}
            built.now += 60
            built.alerts.wake()
            await asyncio.to_thread(other.wait, 2)  # 200, but not what `success` asks for
            await settled(lambda: _results(built), [*results[:2], "answer 200, but not with what `success` asks for"])
            assert "S3CRET" not in repr(built.lines) + json.dumps(await built.rows())

    async def _results(built: House) -> list[str]:
        return [one["result"] for one in (await built.rows())[0]["sends"]]

    run(work())
    good.close()
    other.close()


def test_a_command_gets_values_and_no_options_and_is_ended_in_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "goi"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys, time\n"
        "seen = [sys.argv[1:], json.load(sys.stdin), dict(os.environ)]\n"
        f"json.dump(seen, open({str(out)!r}, 'w'))\n"
        "if '84999' in sys.argv: time.sleep(600)\nsys.exit(3 if '84998' in sys.argv else 0)\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)

    async def work() -> None:
        argv = [str(script), "--to", "{phone}", "{document}", "--", "{text}"]
        channel = {"name": "goi", "kind": "command", "argv": argv, "timeout": "60s"}
        hasty = {**channel, "name": "voi", "timeout": "1s"}
        async with house(tmp_path, {"channels": [channel, hasty]}) as built:
            os.environ["CONGVAN_TEST_SECRET"] = "x"
            for phone, document in (
                ("84901", "15; $(reboot) `id`"),
                ("84998", "a"),
                ("84999", "b"),
                ("84997", "--exec=x"),
            ):
                await built.owe(document, Reach("voi" if phone == "84999" else "goi", "leader", phone, "", 0, True))
                await built.alerts._turn()
                await settled(lambda: _first(built), True)
                if phone == "84901":
                    argv, values, environment = json.loads(out.read_text())
                    assert argv == ["--to", "84901", document, "--", f"VB HOA TOC {document}"]
                    assert values["document"] == document and "CONGVAN_TEST_SECRET" not in environment
            results = [row["sends"][0]["result"] for row in await built.rows()]
            assert results == ["exit code 0", "exit code 3", "no answer in 1 s",
                               "a value begins with a hyphen, it is not made an option"]  # fmt: skip

    async def _first(built: House) -> bool:
        return all(row["sends"][0]["attempts"] > 0 for row in await built.rows())

    run(work())


def test_two_gateways_over_one_database_tell_once(tmp_path: Path, receiver: Receiver) -> None:
    async def work() -> None:
        async with house(tmp_path, sms(receiver)) as first:
            second = House(tmp_path, sms(receiver), hostname="cong2.tinh.gov.vn")
            second.start()
            for number in range(30):
                await first.owe(f"n{number}", to(f"849{number:02}"))
                second.alerts.wake()
            await first.until([["sent"]] * 30)
            await second.end()
        assert sorted(one.json["to"] for one in receiver.requests) == [f"849{number:02}" for number in range(30)]

    run(work())


def test_the_examples_of_the_document_are_channels() -> None:
    text = (Path(__file__).parent.parent / "docs" / "alerts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    (gateways,) = [textwrap.dedent(block) for block in blocks if "# Kannel" in block]
    for one in YAML(typ="safe").load(gateways):
        config.AlertChannel.model_validate(one)
    (settings,) = [textwrap.dedent(block) for block in blocks if "escalate: 10m" in block]
    config.Alerts.model_validate(YAML(typ="safe").load(settings)["alerts"])


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ({"kind": "sms", "url": "https://{agency}/gui"}, "a fixed host"),
        ({"kind": "sms", "url": "https://x.vn:{id}/gui"}, "a fixed host"),
        ({"kind": "sms", "url": "https://x.vn{document}.ke-gian.vn/"}, "a fixed host"),
        ({"kind": "sms", "url": "https://a@x.vn/"}, "a fixed host"),
        ({"kind": "sms", "url": "file:///etc/passwd"}, "a fixed host"),
        ({"kind": "sms", "url": "http://sms.tinh.gov.vn/"}, "http://"),
        ({"kind": "sms", "url": "https://x.vn/?k={secret}"}, "needs `secret_file`"),
        ({"kind": "sms", "url": "https://x.vn/?k={abstract}"}, "unknown value {abstract}"),
        ({"kind": "http", "url": "https://x.vn/", "headers": {"X-A": "a\r\nHost: b"}}, "one line"),
        ({"kind": "http", "url": "https://x.vn/", "headers": {"X-A": "{text}"}}, "unknown value {text}"),
        ({"kind": "http", "url": "https://x.vn/", "success": "("}, "not a pattern"),
        ({"kind": "http"}, "`url` is needed"),
        ({"kind": "mail", "url": "https://x.vn/"}, "`url` is not for"),
        ({"kind": "command", "argv": ["goi-dien"]}, "the whole path of a program"),
        ({"kind": "command", "argv": ["/usr/bin/{document}"]}, "the whole path of a program"),
        ({"kind": "command", "argv": ["/bin/x", "{secret}"]}, "unknown value {secret}"),
    ],
)
def test_settings_that_would_let_a_message_choose(channel: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        config.AlertChannel.model_validate({"name": "x", **channel})
