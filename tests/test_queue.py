"""The queue: what is due goes out, what fails is told, what waits for a person waits, and nothing is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import email
import email.policy
import json
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from bench import retry_clock
from gateway import durable
from gateway.config import Retry
from gateway.database import Database, sqlite_url
from gateway.delivery import Connection as HopConnection
from gateway.errors import Failure
from gateway.queue import Queue
from tests import cases
from tests.hop import Hop, run, undotted
from tests.house import House, house
from tests.test_postgresql import server

__all__ = ["server"]

SENDER = "van.thu@so-tttt.tinh.gov.vn"


Play = Callable[[House], Awaitable[None]]


def play(tmp_path: Path, main: Play, *scripts: str, **more: Any) -> None:
    async def whole() -> None:
        async with house(tmp_path, *scripts, **more) as built:
            await main(built)

    run(whole())


def report(hop: Hop, number: int = 0) -> EmailMessage:
    mail, _, wire = hop.messages[number]
    assert mail.startswith("MAIL FROM:<>")
    message = email.message_from_bytes(undotted(wire), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_mail_goes_out_with_its_trace_and_is_settled(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit(number=1, to=("a@x.vn", "b@x.vn"))
        await built.commit(number=2)
        await built.states(["delivered"] * 3)
        hop = built.hops["hop"]
        assert sorted(len(message[1]) for message in hop.messages) == [1, 2]
        assert undotted(hop.messages[0][2]) == b"Received: x\r\n" + cases.mail(1)
        assert await built.sql("select result, finished_at is not null from attempt") == [("delivered", 1)] * 3
        leaves = [json.loads(row[0]) for row in await built.sql("select entry from leaf where type = 'delivery'")]
        assert sorted(len(leaf["recipients"]) for leaf in leaves) == [1, 2]
        assert leaves[0]["recipients"][0][1:3] == ["delivered", "250 2.0.0 taken"]

    play(tmp_path, main)


def test_many_messages_use_few_connections_and_few_commits(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        for number in range(100):
            await built.commit(number=number)
        built.start()
        await built.states(["delivered"] * 100)
        hop = built.hops["hop"]
        assert len(hop.messages) == 100 and hop.most_open <= 4 and hop.connections <= 4
        assert len({message[2] for message in hop.messages}) == 100

    play(tmp_path, main)


def test_intent_is_durable_before_data(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def main(built: House) -> None:
        hop = built.hops["hop"]
        say = hop._say

        async def spy(writer: Any, answer: str) -> str:
            if answer.startswith("354"):
                seen.extend(await built.sql("select recipient, result, finished_at from attempt"))
            return await say(writer, answer)

        hop._say = spy  # type: ignore[method-assign]
        built.start()
        await built.commit()
        await built.states(["delivered"])
        assert seen == [(1, "", None)]

    play(tmp_path, main)


def test_each_recipient_has_its_own_fate(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        case = await built.commit(to=("a@x.vn", "b@x.vn", "c@x.vn"))
        await built.states(["delivered", "failed", "queued"])
        await built.hops["hop"].wait(2)
        (waiting,) = await built.sql(
            "select attempts, next_attempt_at, last_reply from recipient where address = 'c@x.vn'"
        )
        assert waiting == (1, int((built.now + 300) * 1000), "450 4.2.1 later")
        sent = report(built.hops["hop"], 1)
        assert sent["To"] == SENDER
        status = list(sent.iter_parts())[1].get_payload()
        assert [part["Final-Recipient"] for part in status[1:]] == ["rfc822; b@x.vn"]
        assert status[0]["X-VBDT-Case"] == case
        assert await built.sql("select kind, about, sender from message where kind = 'dsn'") == [("dsn", case, "")]
        await built.until("select state from recipient where address = '" + SENDER + "'", ["delivered"])

    play(tmp_path, main, "rcpt b@x.vn: 550 5.1.1 no such user\nrcpt c@x.vn: 450 4.2.1 later")


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({}, 1),
        ({"answerable": False}, 0),
        ({"notify": "NEVER"}, 0),
        ({"notify": "SUCCESS"}, 0),
        ({"notify": "FAILURE,DELAY"}, 1),
    ],
)
def test_who_is_told_of_a_failure(more: dict[str, Any], count: int, tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit(to=("b@x.vn",), **more)
        await built.states(["failed"])
        assert len(await built.sql("select id from message where kind = 'dsn'")) == count

    play(tmp_path, main, "rcpt b@x.vn: 550 5.1.1 no such user")


def test_a_bounce_gets_no_bounce(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit(to=("b@x.vn",))
        await built.until("select state from recipient order by id", ["failed", "failed"])
        await built.sql("update recipient set state = 'queued', next_attempt_at = 1 where address = ?", (SENDER,))
        built.queue.wake()
        await built.until("select attempts from recipient order by id", [1, 2])
        assert len(await built.sql("select id from message")) == 2

    play(tmp_path, main, "rcpt: 550 5.1.1 no such user")


@pytest.mark.parametrize(("features", "kinds"), [("PIPELINING", ["relayed"]), ("DSN", [])])
def test_success_is_reported_by_us_only_when_the_hop_does_not(features: str, kinds: list[str], tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit(to=("b@x.vn",), notify="SUCCESS,FAILURE", orcpt="rfc822;goc@x.vn")
        await built.states(["delivered"])
        hop = built.hops["hop"]
        await hop.wait(1 + len(kinds))
        found = [list(report(hop, 1 + n).iter_parts())[1].get_payload()[1] for n in range(len(kinds))]
        assert [part["Action"] for part in found] == kinds
        assert [part["Original-Recipient"] for part in found] == ["rfc822; goc@x.vn"] * len(kinds)
        assert len(await built.sql("select id from message where kind = 'dsn'")) == len(kinds)

    play(tmp_path, main, f"ehlo: 250-hop | 250 {features}")


def test_a_dead_hop_starves_nobody(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        await built.hops["xa"].close()  # nobody listens there any more
        for number in range(60):
            await built.commit(number=number, hop="xa")
        for number in range(60, 70):
            await built.commit(number=number, hop="hop")
        built.start()
        await built.until("select count(*) from recipient where state = 'delivered'", [10])
        await built.until("select count(*) from recipient where attempts = 1 and state = 'queued'", [60])
        assert len(await built.sql("select id from attempt where destination = 'xa'")) <= 16  # the others were put off
        assert built.log.events("warning").count("next hop is down") == 1

    play(tmp_path, main, "", "")


def test_a_hop_that_hangs_starves_nobody(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        for number in range(20):
            await built.commit(number=number, hop="xa")
        built.start()
        await built.commit(number=100, hop="hop")
        await built.until("select count(*) from recipient where state = 'delivered'", [1])
        assert built.hops["xa"].most_open <= 4

    play(tmp_path, main, "", "greeting: stall")


def test_a_hop_with_few_connections_gets_few_and_loses_no_time(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        hop = built.hops["hop"]
        greet = hop._next

        def busy(*stages: str) -> str:
            return "421 4.7.0 too many connections" if stages[0] == "greeting" and hop.open > 1 else greet(*stages)

        hop._next = busy  # type: ignore[method-assign]
        for number in range(40):
            await built.commit(number=number)
        built.start()
        await built.states(["delivered"] * 40)
        assert len(hop.messages) == 40

    play(tmp_path, main)


def test_a_hop_that_comes_back_gets_all_at_once(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        hop = built.hops["hop"]
        await hop.close()
        for number in range(20):
            await built.commit(number=number)
        built.start()
        await built.until("select min(attempts) from recipient", [1])
        await hop.__aenter__()
        lane = built.queue._lanes["hop"]
        lane.down_until = 0.0
        assert await built.queue.retry((await built.queue.queued())[0]["case"], "test") == 1  # one probe
        await built.states(["delivered"] * 20)

    play(tmp_path, main)


def test_drop_after_the_dot_is_tried_again_and_explained(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit()
        await built.until("select result from attempt", ["interrupted"])
        await built.states(["queued"])
        assert "possible duplicate" in built.log.events("warning")
        await built.queue.retry(None)
        await built.states(["delivered"])
        assert len(built.hops["hop"].offered) == 2

    play(tmp_path, main, "end: drop ; 250 taken")


def test_an_intent_without_a_result_is_told_at_the_next_start(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        await built.commit()
        await built.sql(
            "insert into attempt (recipient, intent_at, destination, result, reply) values (1, 1, 'hop', '', '')"
        )
        await built.sql("update recipient set next_attempt_at = 9000000000000")
        built.start()
        await built.states(["delivered"])
        assert await built.sql("select result from attempt order by id") == [("interrupted",), ("delivered",)]
        assert built.log.events("warning") == ["possible duplicate"]

    play(tmp_path, main)


def test_stop_waits_for_content_that_is_under_way_and_for_nothing_else(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        hop = built.hops["hop"]
        release = asyncio.Event()
        say = hop._say

        async def slow(writer: Any, answer: str) -> str:
            if answer.startswith("250 2.0.0 taken"):
                await release.wait()
            return await say(writer, answer)

        hop._say = slow  # type: ignore[method-assign]
        built.start()
        await built.commit(number=1, hop="hop")
        await built.commit(number=2, hop="xa")  # waits for a greeting that never comes
        await built.until("select count(*) from attempt", [2])
        while not hop.offered:
            await asyncio.sleep(0.01)
        ending = asyncio.create_task(built.end())
        await asyncio.sleep(1.2)
        assert not ending.done()
        release.set()
        await ending
        await built.states(["delivered", "queued"])
        assert sorted(await built.sql("select result from attempt")) == [("deferred",), ("delivered",)]
        await built.restart()
        assert "possible duplicate" not in built.log.events()

    play(tmp_path, main, "", "greeting: stall")


def test_a_damaged_message_is_set_aside_with_an_alarm(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        case = await built.commit(number=1)
        await built.commit(number=2)
        (digest,) = (await built.sql("select sha256 from message where id = ?", (case,)))[0]
        path = built.store.path(digest)
        good = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(good.replace(b"thu", b"xxx"))
        built.start()
        await built.states(["held", "delivered"])
        assert "ALARM: damaged message set aside" in built.log.events("error")
        assert len(built.hops["hop"].messages) == 1
        path.write_bytes(good)  # from a backup
        assert await built.queue.release(case, "quan.tri", "phục hồi từ bản sao") == 1
        await built.states(["delivered", "delivered"])

    play(tmp_path, main)


def test_large_messages_are_streamed_from_disk(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        data = cases.mail(1, 3 << 20)
        await built.commit(data=data)
        await built.states(["delivered"])
        assert undotted(built.hops["hop"].messages[0][2]) == b"Received: x\r\n" + data

    play(tmp_path, main, "ehlo: 250-hop | 250 PIPELINING")


def test_a_hop_gone_from_the_configuration(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit(hop="ngay-xua")  # `*` takes it today
        await built.states(["delivered"])
        assert await built.sql("select destination from recipient") == [("hop",)]

    play(tmp_path, main)


def test_without_any_way_mail_waits(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit(hop="ngay-xua", to=("a@noi-khac.vn",))
        await built.until(
            "select last_reply from recipient", ["4.4.4 no next hop for noi-khac.vn in the configuration"]
        )
        await built.states(["queued"])

    async def whole() -> None:
        async with Hop() as hop:
            built = House(tmp_path, {"xa": hop})
            await main(built)
            await built.close()

    run(whole())


# ----------------------------------------------------------------------------------------------------- held mail


def test_held_mail_waits_and_goes_when_released(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        case = await built.commit(state="held", to=("a@x.vn", "b@x.vn"))
        (row,) = await built.queue.held()
        assert row["case"] == case and [one["state"] for one in row["recipients"]] == ["held", "held"]
        assert set(row) == {"case", "kind", "received_at", "sender", "size", "subject", "verdict", "recipients"}
        assert await built.queue.release("KHONG-CO", "van.thu", "") == 0
        assert await built.queue.release(case, "van.thu", "đã xem") == 2
        await built.states(["delivered", "delivered"])
        assert await built.queue.release(case, "van.thu", "lần nữa") == 0
        shown = await built.queue.show(case)
        assert shown is not None and [(one["who"], one["act"], one["reason"]) for one in shown["decisions"]] == [
            ("van.thu", "release", "đã xem")
        ]
        assert [one["result"] for one in shown["attempts"]] == ["delivered"] * 2
        assert len(await built.sql("select idx from leaf where type = 'admin'")) == 1
        assert await built.queue.show("KHONG-CO") is None

    play(tmp_path, main)


@pytest.mark.parametrize("answerable", [True, False])
def test_held_mail_is_given_back_with_the_reason(answerable: bool, tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        case = await built.commit(state="held", answerable=answerable)
        assert await built.queue.give_back(case, "van.thu", "Sai nơi nhận") == 1
        assert await built.queue.give_back(case, "van.thu", "Sai nơi nhận") == 0
        await built.states(["returned"])
        hop = built.hops["hop"]
        if answerable:
            await hop.wait(1)
            sent = report(hop)
            body = sent.get_body(("plain",))
            assert sent["To"] == SENDER and body is not None and "Lý do: Sai nơi nhận" in body.get_content()
        assert len(await built.sql("select id from message where kind = 'notice'")) == int(answerable)

    play(tmp_path, main)


def test_another_process_can_decide(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        case = await built.commit(state="held")
        other = Database.open(sqlite_url(tmp_path / "gateway.db"))
        try:
            assert await Queue(other, built.store, built.settings, lambda: built.now).release(case, "van.thu", "") == 1
            await built.states(["delivered"], 5)
        finally:
            other.close()

    play(tmp_path, main)


# --------------------------------------------------------------------------------------------------- the schedule


def test_decisions_follow_the_schedule(tmp_path: Path) -> None:
    """Without a clock, disk or network: what is next after each failed attempt."""
    from gateway.delivery import Outcome
    from gateway.queue import Due

    async def main(built: House) -> None:
        queue = built.queue
        queue._chance = lambda: 1.0  # the longest wait
        start = 1_000_000
        row = Due(
            1, "C", "a@x.vn", "", "", "hop", 0, None, "", "mail", "b@y.vn", "", 1, b"", 0, "", "", start, None, None
        )
        outcome = Outcome("a@x.vn", "deferred", "451 4.3.0 later", "4.3.0")
        waits = []
        for attempts in range(7):
            settled, told = queue._decide(dataclasses.replace(row, attempts=attempts), outcome, start, True, False)
            assert settled.state == "queued" and told is None and settled.next_attempt_at is not None
            waits.append((settled.next_attempt_at - start) / 1000)
        assert waits == [360, 720, 1440, 2880, 4320, 4320, 4320]
        old = dataclasses.replace(row, attempts=100, first_attempt_at=start)
        end = start + 5 * 86400 * 1000
        settled, told = queue._decide(old, outcome, end - 60_000, True, False)
        assert settled.next_attempt_at == end  # the last attempt is made when time is up
        settled, told = queue._decide(old, outcome, end, True, False)
        assert settled.state == "failed" and told is not None and (told.action, told.status) == ("failed", "5.4.7")

    assert Retry().schedule == (300, 600, 1200, 2400, 3600)
    play(tmp_path, main)


@pytest.mark.parametrize(
    ("count", "hours"), [(3, 6), pytest.param(20, 121, marks=pytest.mark.heavy)], ids=["6 hours", "5 days"]
)
def test_a_hop_that_is_down_for_long_by_a_clock_that_jumps(count: int, hours: int, tmp_path: Path) -> None:
    """R7 in small; `./run measure retry_clock` is the whole."""
    result = retry_clock.jumping(retry_clock.scenario(tmp_path, count, hours * 3600.0, seed=1))
    assert result["wrong"] == [] and result["reports"] == count * (1 if hours == 6 else 3)


def test_rows_that_are_not_what_their_leaf_says_send_nothing(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        for number in range(1, 5):
            await built.commit(number=number, to=(f"n{number}@x.vn",))
        other = (await built.sql("select sha256 from message order by rowid desc limit 1"))[0][0]
        await built.sql("update recipient set address = 'ai-do@x.vn' where id = 1")
        await built.sql("update message set sha256 = ? where rowid = 2", (other,))
        await built.sql("update leaf set entry = x'7b7d' where idx = 2")
        built.start()
        await built.states(["held", "held", "held", "delivered"])
        assert [message[1] for message in built.hops["hop"].messages] == [["RCPT TO:<n4@x.vn>"]]
        assert built.log.events("error").count("ALARM: damaged message set aside") == 3
        assert not (tmp_path / "corrupt").exists()  # the bytes are as they were

    play(tmp_path, main)


def test_a_row_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        for number in range(1, 4):
            await built.commit(number=number)
        await built.sql("update message set size = 'x' where rowid = 1")
        await built.sql("update recipient set address = cast(x'ff40a4' as text) where id = 2")
        built.start()
        await built.states(["queued", "held", "delivered"])
        built.queue.wake()
        await built.commit(number=4)
        await built.states(["queued", "held", "delivered", "delivered"])
        assert built.log.events("error").count("ALARM: a row of the queue cannot be read") == 1

    play(tmp_path, main)


DAY = 86_400.0


@pytest.mark.parametrize("jump", [DAY, -DAY, 6 * DAY, 61.0, -3600.0])
def test_a_clock_that_jumps_neither_hurries_nor_delays(jump: float, tmp_path: Path) -> None:
    """R15. What waits keeps waiting as long as it was to wait; what is new is due; an alarm is logged."""

    async def main(built: House) -> None:
        steady = 0.0
        built.queue._steady, built.queue._ahead = lambda: steady, built.now
        built.start()
        while not built.queue._owner:  # it has compared the clock with the archive, whose leaves are of today
            await asyncio.sleep(0.01)
        await built.commit(number=1, to=("c@x.vn",))
        await built.until("select attempts from recipient", [1])
        built.now += jump
        built.queue.wake()
        await built.until("select next_attempt_at from recipient", [int((built.now + 300) * 1000)])
        assert await built.sql("select first_attempt_at from recipient") == [(int(built.now * 1000),)]
        assert built.log.events("error") == ["ALARM: the clock jumped"]
        await built.commit(number=2, to=("a@x.vn",))
        await built.states(["queued", "delivered"])
        assert await built.sql("select attempts from recipient where address = 'c@x.vn'") == [(1,)]
        steady, built.now = steady + 301, built.now + 301
        built.queue.wake()
        await built.until("select attempts from recipient order by id", [2, 1])
        assert await built.sql("select state from recipient where address = 'c@x.vn'") == [("queued",)]  # not given up
        assert len(built.log.events("error")) == 1

    play(tmp_path, main, "rcpt c@x.vn: 450 4.2.1 later")


@pytest.mark.parametrize("jump", [1.0, -1.0, 0.128])
def test_a_leap_second_is_followed_without_a_word(jump: float, tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.queue._steady, built.queue._ahead = lambda: 0.0, built.now
        built.start()
        await built.commit(number=1, to=("c@x.vn",))
        await built.until("select attempts from recipient", [1])
        due = await built.sql("select next_attempt_at from recipient")
        built.now += jump
        await built.commit(number=2, to=("a@x.vn",))
        await built.states(["queued", "delivered"])
        assert await built.sql("select next_attempt_at from recipient where id = 1") == due
        assert built.log.events("error") == []

    play(tmp_path, main, "rcpt c@x.vn: 450 4.2.1 later")


def test_a_jump_during_an_attempt(tmp_path: Path) -> None:
    from gateway.delivery import Outcome
    from gateway.queue import Due

    async def main(built: House) -> None:
        start, queue = int(built.now * 1000), built.queue
        row = Due(
            1, "C", "a@x.vn", "", "", "hop", 3, start, "", "mail", "b@y.vn", "", 1, b"", 0, "", "", start, None, None
        )
        queue._moved = int(6 * DAY * 1000)  # since the row was claimed
        outcome = Outcome("a@x.vn", "deferred", "451 4.3.0 later", "4.3.0")
        settled, told = queue._decide(row, outcome, start + queue._moved, True, False)
        assert settled.state == "queued" and told is None
        assert settled.next_attempt_at == start + queue._moved + 2_400_000

    play(tmp_path, main)


def test_a_clock_that_was_set_back_between_two_starts(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        built.start()
        await built.commit(number=1, to=("c@x.vn",))
        await built.until("select attempts from recipient", [1])
        built.now = cases.AT.timestamp() - 400 * DAY
        await built.restart()
        await built.until("select attempts from recipient", [2])
        assert "ALARM: the clock is behind the archive" in built.log.events("error")
        (first,) = (await built.sql("select first_attempt_at from recipient"))[0]
        assert first == int(built.now * 1000)

    play(tmp_path, main, "rcpt c@x.vn: 450 4.2.1 later")


@pytest.mark.peer
def test_the_same_over_postgresql(server: tuple[str, Path], tmp_path: Path) -> None:
    async def main(built: House) -> None:
        await built.commit(number=1, to=("a@x.vn", "b@x.vn", "c@x.vn"))
        held = await built.commit(number=2, state="held")
        back = await built.commit(number=3, state="held")
        built.start()
        await built.states(["delivered", "failed", "queued", "held", "held"])
        assert await built.queue.release(held, "van.thu", "đã xem") == 1
        assert await built.queue.give_back(back, "van.thu", "sai nơi nhận") == 1
        assert await built.queue.retry(None) >= 1
        await built.states(["delivered", "failed", "queued", "delivered", "returned"])
        await built.until("select attempts from recipient where address = 'c@x.vn'", [2])
        assert len(await built.queue.queued()) == 1 and (await built.queue.show(held) or {})["attempts"]
        await built.restart()
        await built.until("select count(*) from message where kind <> 'mail'", [2])

    play(tmp_path, main, "rcpt b@x.vn: 550 5.1.1 no\nrcpt c@x.vn: 450 4.2.1 later", url=server[0])


# ------------------------------------------------------------------------- several gateways over one PostgreSQL


async def another(built: House, folder: Path, url: str) -> House:
    """A second gateway over the same database and store, with a folder of its own."""
    folder.mkdir()
    (folder / "blobs").symlink_to(built.folder / "blobs")
    return House(folder, built.hops, url=url, timeouts=None)


async def claimed_by(built: House, owner: str, *, lease_at: int) -> None:
    """As if a gateway of that name had everything that is queued under way."""
    await built.sql("update recipient set next_attempt_at = null, owner = ? where state = 'queued'", (owner,))
    await built.sql(
        "insert into attempt (recipient, intent_at, destination, owner, result, reply)"
        " select id, 1, 'hop', ?, '', '' from recipient where state = 'queued'",
        (owner,),
    )
    await built.sql("insert into lease (owner, lease_at) values (?, ?)", (owner, lease_at))


@pytest.mark.peer
def test_two_gateways_share_the_work_and_send_nothing_twice(server: tuple[str, Path], tmp_path: Path) -> None:
    async def main(built: House) -> None:
        for number in range(60):
            await built.commit(number=number)
        other = await another(built, tmp_path / "other", server[0])
        built.start()
        other.start()
        await built.states(["delivered"] * 60, 90)
        assert len(built.hops["hop"].messages) == 60
        assert await built.sql("select count(*), count(distinct recipient) from attempt") == [(60, 60)]
        await other.close()

    play(tmp_path, main, url=server[0], timeouts=None)


@pytest.mark.peer
def test_claims_of_a_living_gateway_are_left_alone_until_its_lease_is_over(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_LEASE", 2.0), ("_RENEW", 0.05), ("_FRESH", 1.5)):
        monkeypatch.setattr(f"gateway.queue.{name}", seconds)

    async def main(built: House) -> None:
        await built.commit(number=1)
        await claimed_by(built, "other/1", lease_at=9_000_000_000_000)
        built.start()
        await built.commit(number=2)
        await built.states(["queued", "delivered"], 90)  # its start took up nothing
        mine = "select count(*) from lease where owner <> 'other/1'"
        await built.until(mine, [1], 90)
        assert await built.sql("select owner, next_attempt_at from recipient where id = 1") == [("other/1", None)]
        await built.sql("update lease set lease_at = 1 where owner = 'other/1'")
        await built.states(["delivered", "delivered"], 90)
        results = "select owner = 'other/1', result from attempt where recipient = 1 order by id"
        assert await built.sql(results) == [(True, "interrupted"), (False, "delivered")]
        told = [about for level, event, about in built.log.lines if event == "possible duplicate"]
        assert [(one["gateway"], one["reason"]) for one in told] == [
            ("other/1", "the gateway that had it is not heard of")
        ]
        await built.until("select count(*) from lease where owner = 'other/1'", [0], 90)

    play(tmp_path, main, url=server[0], timeouts=None)


@pytest.mark.peer
def test_a_gateway_takes_up_its_own_claims_at_once(server: tuple[str, Path], tmp_path: Path) -> None:
    async def main(built: House) -> None:
        await built.commit(number=1)
        await claimed_by(built, durable.identity(tmp_path), lease_at=9_000_000_000_000)
        await built.commit(number=2)
        await built.sql("update recipient set next_attempt_at = null where id = 2")  # as earlier versions claimed
        built.start()
        await built.states(["delivered", "delivered"], 90)
        assert built.log.events("warning") == ["possible duplicate"]

    play(tmp_path, main, url=server[0], timeouts=None)


@pytest.mark.peer
def test_a_result_that_comes_after_another_gateway_took_over_changes_nothing(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    """It stood still for longer than its lease, in the middle of an attempt that fails for good."""

    async def main(built: House) -> None:
        one, two = [await built.commit(number=number) for number in (1, 2)]
        built.start()
        await built.until("select count(*) from attempt", [2], 90)
        await built.sql("update attempt set finished_at = 1, result = 'interrupted'")
        await built.sql("update recipient set owner = 'other/1' where id = 1")  # it has it under way
        await built.sql("update recipient set owner = '', next_attempt_at = 9000000000000 where id = 2")
        gate.set()
        await built.states(["queued", "failed"], 90)
        async with asyncio.timeout(90):
            while built.log.events("warning") != ["possible duplicate"]:
                await asyncio.sleep(0.01)
        assert await built.sql("select owner, last_reply from recipient where id = 1") == [("other/1", "")]
        told = await built.sql("select case_id from leaf where type = 'delivery' and case_id in (?, ?)", (one, two))
        assert told == [(two,)]
        assert await built.sql("select about from message where kind = 'dsn'") == [(two,)]

    gate = asyncio.Event()
    monkey = pytest.MonkeyPatch()
    attempt = HopConnection.attempt

    async def later(self: HopConnection, letter: Any) -> Any:
        await gate.wait()
        return await attempt(self, letter)

    monkey.setattr(HopConnection, "attempt", later)
    try:
        play(tmp_path, main, "rcpt: 550 5.1.1 no", url=server[0], timeouts=None)
    finally:
        monkey.undo()


def test_a_claim_that_was_committed_without_a_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the database breaks between COMMIT and its answer."""

    async def main(built: House) -> None:
        await built.commit(number=1)
        write, failed = built.database.write, []

        async def deaf(work: Any) -> Any:
            result = await write(work)
            if getattr(result, "jobs", None) and not failed:
                failed.append(result)
                raise Failure("Local error", "the connection was lost")
            return result

        monkeypatch.setattr(built.database, "write", deaf)
        built.start()
        await built.states(["delivered"], 90)
        assert failed and await built.sql("select result from attempt order by id") == [("deferred",), ("delivered",)]
        assert len(built.hops["hop"].messages) == 1 and not built.log.events("warning")

    play(tmp_path, main, timeouts=None)


@pytest.mark.peer
def test_without_its_lease_a_gateway_begins_nothing(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.queue._RENEW", 0.05)
    monkeypatch.setattr("gateway.queue._WRITE_AGAIN", 0.05)

    async def main(built: House) -> None:
        built.start()
        await built.commit(number=1)
        await built.states(["delivered"], 90)
        monkeypatch.setattr(Queue, "_renew", refuse)
        monkeypatch.setattr("gateway.queue._FRESH", -1.0)
        await built.commit(number=2)
        async with asyncio.timeout(90):
            while "lease not renewed" not in built.log.events("error"):
                await asyncio.sleep(0.01)
        assert await built.sql("select count(*) from attempt") == [(1,)]
        monkeypatch.setattr(Queue, "_renew", renew)
        monkeypatch.setattr("gateway.queue._FRESH", 45.0)
        await built.states(["delivered"] * 2, 90)

    renew = Queue._renew

    def refuse(self: Queue, connection: Any) -> None:
        raise Failure("Local error", "the database does not answer")

    play(tmp_path, main, url=server[0], timeouts=None)


def test_a_folder_has_one_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(lambda _: durable.identity(tmp_path / "data"), range(8)))
    assert len(names) == 1 and [path.name for path in (tmp_path / "data").iterdir()] == ["gateway.id"]
    assert durable.identity(tmp_path / "other") not in names


# ------------------------------------------------------------------------------------------------------- commands


def test_commands(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from gateway.commands import held, queue

    config = tmp_path / "config"
    config.mkdir()
    (config / "gateway.yaml").write_text(
        "hostname: cong.tinh.gov.vn\ndata: ..\nlisteners: [{kind: relay, port: 0}]\n"
        "next_hops: [{name: hop, host: 127.0.0.1, domains: ['*']}]\n"
    )
    made: dict[str, str] = {}

    async def make(built: House) -> None:
        made["held"] = await built.commit(number=1, state="held")
        made["back"] = await built.commit(number=2, state="held")
        made["queued"] = await built.commit(number=3)

    play(tmp_path, make)
    runner = CliRunner()

    def call(app: Any, *words: str, code: int = 0) -> list[Any]:
        done = runner.invoke(app, [*words, "--config", str(config)])
        assert done.exit_code == code, done.output
        return (
            [json.loads(line) for line in done.stdout.splitlines()] if "--json" in words else done.stdout.splitlines()
        )

    (waiting,) = call(queue.app, "list", "--json")
    assert waiting["case"] == made["queued"] and set(waiting["recipients"][0]) == {
        "address", "state", "attempts", "next_attempt_at", "last_reply", "destination",
    }  # fmt: skip
    assert [one["case"] for one in call(held.app, "list", "--json")] == [made["held"], made["back"]]
    assert made["held"] in call(held.app, "list")[0]
    call(held.app, "release", made["held"], "--who", "van.thu", "--reason", "đã xem")
    call(held.app, "release", made["held"], code=1)
    call(held.app, "return", made["back"], "--who", "van.thu", "--reason", "sai nơi nhận")
    call(held.app, "return", "KHONG-CO", "--reason", "x", code=1)
    call(held.app, "show", "KHONG-CO", code=1)
    (shown,) = call(held.app, "show", made["back"], "--json")
    assert shown["recipients"][0]["state"] == "returned" and shown["decisions"][0]["reason"] == "sai nơi nhận"
    assert call(held.app, "list", "--json") == []
    assert len(call(queue.app, "list", "--json")) == 3  # released, still queued, and the notice of the return
    call(queue.app, "retry", made["queued"])
    call(queue.app, "retry", "KHONG-CO", code=1)
    call(queue.app, "retry")
    assert any("retry" in line for line in call(queue.app, "show", made["queued"]))


# --------------------------------------------------------------------------------------------- damage and restarts


def test_whatever_is_damaged_is_noticed_and_the_others_go_out(tmp_path: Path) -> None:
    """R10 in small: flipped bytes, cut files, emptied files, garbage, and files that are gone."""

    def flip(path: Path, chance: random.Random) -> None:
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)

    def cut(path: Path, chance: random.Random) -> None:
        path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])

    ways: list[Callable[[Path, random.Random], Any]] = [
        flip,
        flip,
        flip,
        cut,
        lambda path, _: path.write_bytes(b""),
        lambda path, chance: path.write_bytes(chance.randbytes(5000)),
        lambda path, _: path.unlink(),
    ]

    async def main(built: House) -> None:
        chance = random.Random(7)
        damaged = []
        for number in range(40):
            case = await built.commit(number=number, data=cases.mail(number, 200_000 if number % 4 == 0 else 400))
            if number % 2:
                continue
            ((digest,),) = await built.sql("select sha256 from message where id = ?", (case,))
            path = built.store.path(digest)
            path.chmod(0o600)
            chance.choice(ways)(path, chance)
            damaged.append(case)
        built.start()
        await built.until("select count(*) from recipient where state = 'queued'", [0])
        assert [
            row[0] for row in await built.sql("select message from recipient where state = 'held' order by id")
        ] == damaged
        assert len(built.hops["hop"].messages) == 20
        alarms = [about["case"] for _, event, about in built.log.lines if event.startswith("ALARM: damaged")]
        assert sorted(alarms) == sorted(damaged)

    play(tmp_path, main)


def test_twenty_restarts_under_load_lose_nothing(tmp_path: Path) -> None:
    """R11 in small: orderly restarts while mail comes in; nothing lost, and nothing twice."""

    async def main(built: House) -> None:
        built.start()
        number = 0
        for turn in range(20):
            for _ in range(5):
                number += 1
                await built.commit(number=number)
            await asyncio.sleep(0.003 * (turn % 4))
            await built.restart()
        await built.states(["delivered"] * number)
        hop = built.hops["hop"]
        assert len(hop.messages) == number and len({message[2] for message in hop.messages}) == number
        assert not await built.sql("select id from attempt where result = 'interrupted' or finished_at is null")

    play(tmp_path, main)


def test_a_database_that_cannot_be_written_loses_no_result(tmp_path: Path) -> None:
    async def main(built: House) -> None:
        from gateway import queue as module
        from gateway.errors import Failure

        built.start()
        write, failures = built.database.write, [0]

        async def failing(fn: Any) -> Any:
            if built.hops["hop"].messages and failures[0] < 3:
                failures[0] += 1
                raise Failure("local error", "database: SQLITE_FULL")
            return await write(fn)

        module._WRITE_AGAIN, before = 0.01, module._WRITE_AGAIN
        try:
            case = await built.commit()
            built.database.write = failing  # type: ignore[method-assign]
            await built.states(["delivered"])
        finally:
            module._WRITE_AGAIN = before
        assert failures == [3] and len(built.hops["hop"].messages) == 1
        assert await built.sql("select result from attempt") == [("delivered",)]
        assert built.log.events("error").count("queue cannot reach the database") == 3
        assert case

    play(tmp_path, main)
