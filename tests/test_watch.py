"""Trouble of the gateway, real where it can be had: a locked database, a folder that refuses writes, a dead scanner,
mailboxes and revocation lists; each is told once, and once that it is over."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import sqlite3
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway import imap_state, watch
from gateway.watch import Trouble, Watch
from tests import test_alert_rows as rows
from tests.receiver import Receiver


@pytest.fixture
def receiver() -> Any:
    made = Receiver()
    yield made
    made.close()


class Post:
    """A watch over a house, with hands for the clock."""

    def __init__(self, house: rows.House, folder: Path) -> None:
        self.house = house
        self.folder = folder
        self.steady = 1000.0
        self.hops: dict[str, str] = {}
        self.anew()

    def anew(self) -> None:
        """As a new process."""
        self.watch = Watch(
            self.house.settings, self.folder, self.house.archive, self.house.alerts, hops_down=lambda: self.hops,
            log=self.house, clock=lambda: self.house.now, steady=lambda: self.steady,
        )  # fmt: skip

    async def turns(self, seconds: float) -> None:
        """Let time pass, a look every ten seconds."""
        for _ in range(int(seconds / watch.EVERY)):
            await self.watch.turn()
            self.steady += watch.EVERY
            self.house.now += watch.EVERY

    async def told(self) -> list[tuple[str, bool]]:
        """Name of the trouble, and whether it is over."""
        return [(row["subject"], row["ended_at"] is not None) for row in await self.house.rows()]


@asynccontextmanager
async def post(folder: Path, receiver: Receiver, busy_seconds: float = 60, **more: Any) -> AsyncIterator[Post]:
    alerts = {
        "channels": [{"name": "so", "kind": "http", "url": receiver.url + "/truc"}],
        "admin": {"channels": ["so"]},
    }
    async with rows.house(folder / "data", alerts, busy_seconds=busy_seconds) as house:
        # One that has more free space than any disk of a test is short of; the disk has a test of its own.
        limits = house.settings.limits.model_copy(update={"free_disk": 0, "message_size": 1 << 20})
        house.settings = house.settings.model_copy(update={"limits": limits, **more})
        yield Post(house, folder)


def run(work: Any) -> None:
    asyncio.run(work)


def test_a_dead_hop_is_told_once_with_its_end_and_not_when_it_comes_and_goes(
    tmp_path: Path, receiver: Receiver
) -> None:
    async def work() -> None:
        async with post(tmp_path, receiver) as here:
            here.hops = {"hop-thu": "4.4.1 connection refused"}
            await here.turns(200)
            assert await here.told() == []  # five minutes must pass
            await here.turns(200)
            assert await here.told() == [("next-hop|hop-thu", False)]
            await rows.settled(here.house.states, [["sent"]])  # its end, which comes at once here, must not overtake it
            here.anew()  # a restart neither repeats nor forgets
            await here.turns(600)
            here.hops = {}
            await here.turns(100)
            assert await here.told() == [("next-hop|hop-thu", True)]
            await rows.settled(here.house.states, [["sent", "sent"]])
            texts = [one.json["text"] for one in receiver.requests]
            first = "CANH BAO cong.tinh.gov.vn: khong giao duoc thu toi hop-thu"
            assert texts == [first, f"CANH BAO cong.tinh.gov.vn: HET: {first}"]
            assert receiver.requests[0].json["detail"] == "hop-thu: 4.4.1 connection refused"
            for _ in range(3):  # it comes and goes: half an hour between two beginnings
                here.hops = {"hop-thu": "4.4.1 no answer"}
                await here.turns(400)
                here.hops = {}
                await here.turns(100)
            assert len(await here.told()) == 2

    run(work())


def test_trouble_of_every_kind_is_seen(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = tmp_path / "trust" / "crl"
    trust.mkdir(parents=True)
    (trust / "ca.crl").write_bytes(revocation_list())
    from gateway.config import Clamd

    async def work() -> None:
        async with post(tmp_path, receiver, clamd=Clamd(socket=tmp_path / "none.sock")) as here:
            house = here.house
            now = int(house.now * 1000)
            await house.database.write(lambda c: imap_state.failed(c, "vt@xa.gov.vn", None, "wrong password", now))
            await house.database.write(lambda c: watch_leaf(c, house.now - 120))
            await house.owe("x", rows.Reach("so", "leader", "84901", "", 0, True))
            receiver.answers = [500] * 50
            for _ in range(3):
                await settled_attempts(house, 1 + _)
                house.now += 1000
                house.alerts.wake()
            here.watch.note("archive", Trouble("kiem chung kho luu tru thay sai lech"))
            monkeypatch.setattr(watch.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1 << 20))
            names = set(await here.watch.look())
            assert names == {
                "archive",
                "disk",
                "clamd",
                "checkpoint",
                "mailbox|vt@xa.gov.vn",
                "channel|so",
                "crl|ca.crl",
            }

    async def settled_attempts(house: rows.House, count: int) -> None:
        async def ask() -> bool:
            return bool((await house.rows())[0]["sends"][0]["attempts"] >= count)

        await rows.settled(ask, True)

    run(work())


def test_a_clock_that_jumps_is_told_and_what_waits_moves_with_it(tmp_path: Path, receiver: Receiver) -> None:
    async def work() -> None:
        async with post(tmp_path, receiver) as here:
            await here.house.owe("one", rows.Reach("so", "delegate", "84901", "", 600, True))
            await here.turns(20)
            here.house.now -= 86400  # somebody set it back a day
            await here.turns(20)
            assert ("clock", True) in await here.told() and len(await here.told()) == 2
            (clock,) = await asyncio.to_thread(receiver.wait, 1)
            assert "dong ho may chu nhay" in clock.json["text"]
            here.house.now += 600
            here.house.alerts.wake()
            await rows.settled(lambda: first(here), "sent")

    async def first(here: Post) -> str:
        return str((await here.house.rows())[0]["sends"][0]["state"])

    run(work())


def test_a_database_that_cannot_be_written_is_told_past_it(tmp_path: Path, receiver: Receiver) -> None:
    async def work() -> None:
        async with post(tmp_path, receiver, busy_seconds=2) as here:
            await here.turns(10)
            lock = sqlite3.connect(here.house.folder / "gateway.db", isolation_level=None)
            lock.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                await here.watch.turn()  # each waits for the lock as long as a commit of a message would
                here.steady += 30
            (one,) = receiver.requests
            assert "khong ghi duoc co so du lieu" in one.json["text"]
            here.anew()  # killed and started again: nobody is told twice
            await here.watch.turn()
            assert len(receiver.requests) == 1
            lock.close()
            await here.turns(20)
            assert await here.told() == [("database", True)]
            await rows.settled(here.house.states, [["sent", "sent"]])
            assert len(receiver.requests) == 2 and "HET:" in receiver.requests[1].json["text"]

    run(work())


def watch_leaf(connection: Any, at: float) -> None:
    from gateway.archive import append_leaf

    append_leaf(connection, at, {"type": "admin", "act": "test"})


def revocation_list() -> bytes:
    """One whose time is over."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA " + hashlib.sha256(b"x").hexdigest()[:4])])
    built = x509.CertificateRevocationListBuilder().issuer_name(name)
    built = built.last_update(now - dt.timedelta(days=9)).next_update(now - dt.timedelta(days=2))
    return built.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
