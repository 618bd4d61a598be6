"""The same archive over PostgreSQL, two gateways at once: one unbroken tree, each message once."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import exc, func, select

from gateway import database as db
from gateway import stats
from gateway.archive import Archive, Notice, Tombstone
from gateway.audit import audit
from gateway.errors import Failure
from gateway.store import Store
from gateway.witness import Witnesses
from tests import outside
from tests import test_alert_rows as rows
from tests.cases import AT, SETTINGS, case, close
from tests.receiver import Receiver

pytestmark = pytest.mark.peer


def program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture
def server() -> Iterator[tuple[str, Path]]:
    """A server of our own on a Unix socket. Gives its URL and its folder."""
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    user: dict = {}
    with tempfile.TemporaryDirectory() as name:  # short: a socket's path has 107 letters at most
        if os.getuid() == 0:  # the server refuses to run as root
            try:
                account = pwd.getpwnam("postgres")
            except KeyError:
                pytest.skip("no account `postgres` to run the server under")
            os.chown(name, account.pw_uid, account.pw_gid)
            user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        data = f"{name}/data"
        command = [initdb, "-D", data, "-A", "trust", "-E", "UTF8", "-U", "gateway", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=name, **user)
        process = subprocess.Popen(
            [postgres, "-D", data, "-k", name, "-c", "listen_addresses="],
            cwd=name,
            stderr=subprocess.PIPE,
            text=True,
            **user,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "ready to accept connections" in line:
                break
        yield f"postgresql+psycopg://gateway@/postgres?host={name}", Path(name)
        process.send_signal(signal.SIGINT)  # fast: SIGTERM would wait for connections left open by a failed test
        process.stderr.close()
        process.wait()


def test_two_gateways_one_archive(server, tmp_path):
    url, _ = server

    async def work():
        one, two = (Archive(db.Database.open(url), Store(tmp_path / "blobs"), SETTINGS) for _ in range(2))
        await one.start()
        cases = []
        for n in range(40):
            notice = Notice("notice", b"%d" % n, (("a@tinh.gov.vn", "hop"),), "X", f"key {n}")
            # the same message at both gateways at the same moment
            cases += [(gateway, case(number=n, notices=(notice,), subject="\0 \udcff")) for gateway in (one, two)]
        receipts = await asyncio.gather(*[gateway.commit(each) for gateway, each in cases])
        assert sum(not receipt.duplicate for receipt in receipts) == 40
        assert len({receipt.case for receipt in receipts}) == 40
        await two.bury(Tombstone("STONE", AT, "a@b", ("c@d",), "::1", 5, "mat", "SC-01", "ab" * 32))
        checkpoint = await one.checkpoint()
        assert checkpoint.size == 81
        report = await asyncio.to_thread(audit, two)
        assert report.damage == [] and report.leaves == report.signed == 81
        # Both ask the witness; what it says is kept once, and goes into the tree with the next leaf.
        made = outside.make_witness(tmp_path / "w", "w.example", one.log.verifier())
        with outside.witness(made) as address:
            given = outside.settings(witnesses=[{"name": "w", "url": address, "keys": made.public_keys()}])
            await asyncio.gather(*[Witnesses(gateway, given).round(now=True) for gateway in (one, two)])
        await two.commit(case(number=999))
        assert (await two.checkpoint()).size == 83
        report = await asyncio.to_thread(audit, one)
        assert report.damage == [] and report.leaves == report.signed == 83
        (row,) = await one.database.read(lambda c: stats.month_table(c, "2026-11"))
        assert row.figures["sent"] == 41
        with pytest.raises(exc.IntegrityError):
            await one.database.write(lambda c: db.insert(c, db.notice_sent, [{"key": "key 1", "at": 1}]))
        assert await two.database.write(
            lambda c: db.insert(c, db.notice_sent, [{"key": f"key {n}", "at": 1} for n in (1, 99)], ignore=True)
        ) in (1, -1)
        await close(one)
        await close(two)

    asyncio.run(work())


def test_a_server_that_is_gone_is_a_failure_and_back_again_is_fine(server, tmp_path):
    url, _ = server

    async def work():
        archive = Archive(db.Database.open(url), Store(tmp_path / "blobs"), SETTINGS)
        await archive.commit(case(number=1))

        def gone(connection):
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

        with pytest.raises(Failure) as caught:
            await archive.database.write(gone)
        assert caught.value.retryable and archive.broken == ""
        assert (await archive.commit(case(number=2))).leaf == 1
        count = await archive.database.read(lambda c: c.execute(select(func.count()).select_from(db.message)).scalar())
        assert count == 2
        await close(archive)

    asyncio.run(work())


def test_each_host_keeps_what_another_has_signed(server, tmp_path, monkeypatch):
    url, _ = server
    monkeypatch.setattr("gateway.archive._KEEP_MS", 1)  # each checkpoint is kept for good

    async def work():
        hosts = []
        (tmp_path / "blobs").mkdir()
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "blobs").symlink_to(tmp_path / "blobs")
            if hosts:
                shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
            hosts.append(Archive(db.Database.open(url), Store(tmp_path / name / "blobs"), SETTINGS))
            hosts[-1].log.signer()
        for n in range(8):
            await hosts[0].commit(case(number=n))
            await hosts[n // 3 % 2].checkpoint()
        for host in hosts:
            await host.checkpoint()
            assert (await asyncio.to_thread(audit, host)).damage == []
            await close(host)

    asyncio.run(work())


def test_two_gateways_tell_an_alert_once(server, tmp_path):
    """Rows are claimed, limits counted, trouble ended and acknowledged in PostgreSQL as in SQLite."""
    url, _ = server
    receiver = Receiver()

    async def work():
        places = [tmp_path / name for name in ("one", "two")]
        settings = {**rows.sms(receiver, per_hour=2), "admin": {"channels": ["sms"], "phone": "0909000009"}}
        one, two = (rows.House(place, settings, f"cong{n}.tinh.gov.vn", url) for n, place in enumerate(places))
        for house in (one, two):
            house.start()
        for number in range(20):
            await one.owe(f"n{number}", rows.to(f"849{number:02}"))
            await two.owe(f"n{number}", rows.to(f"849{number:02}"))  # the same document came to both
        await one.until([["sent"]] * 20)
        assert sorted(row.json["to"] for row in receiver.requests) == [f"849{number:02}" for number in range(20)]
        assert await two.alerts.acknowledge("3", "văn thư") == [3]
        await two.alerts.begin("trouble|x|disk|1", "disk", "o dia sap day")
        await asyncio.to_thread(receiver.wait, 21)
        await two.until([["sent"]] * 21)
        await one.alerts.end("trouble|x|disk|1")
        await asyncio.to_thread(receiver.wait, 22)
        await two.until([["sent"]] * 20 + [["sent", "sent"]])
        for house in (one, two):
            await house.end()

    asyncio.run(work())
    receiver.close()


def test_of_two_that_sign_at_once_one_is_told_so(server, tmp_path):
    url, _ = server

    async def work():
        one = Archive(db.Database.open(url), Store(tmp_path / "blobs"), SETTINGS)
        two = Archive(db.Database.open(url), Store(tmp_path / "blobs"), SETTINGS)
        await one.start()
        for n in range(10):
            await one.commit(case(number=n))
            answers = await asyncio.gather(one.checkpoint(), two.checkpoint(), return_exceptions=True)
            assert any(not isinstance(answer, BaseException) for answer in answers)
            question = select(func.count()).select_from(db.checkpoint)
            rows = await one.database.read(lambda c, question=question: c.execute(question).scalar())
            assert rows == 1  # all of the same ten minutes: each replaces the one before
        await close(one)
        await close(two)

    asyncio.run(work())
