"""One writer, grouped commits, and errors that stop it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import exc, func, select

from gateway import database as db
from gateway.errors import Failure


def run(work):
    return asyncio.run(work)


@pytest.fixture
def database(tmp_path: Path):
    opened = db.Database.open(db.sqlite_url(tmp_path / "congvan.db"), busy_seconds=0.2)
    yield opened
    opened.close()


def key(name: str):
    return lambda connection: db.insert(connection, db.notice_sent, [{"key": name, "at": 1}])


async def keys(database: db.Database) -> list[str]:
    return await database.read(lambda c: list(c.execute(select(db.notice_sent.c.key)).scalars()))


def test_durability_is_asserted(database):
    async def work():
        def pragmas(connection):
            return [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]

        assert await database.read(pragmas) == ["wal", 2, 1]
        assert await database.write(pragmas) == ["wal", 2, 1]

    run(work())


def test_many_writes_share_commits_and_each_fails_alone(database, monkeypatch):
    commits = []
    original = db.Database._commit
    monkeypatch.setattr(db.Database, "_commit", lambda self, jobs: (commits.append(len(jobs)), original(self, jobs))[1])

    def bad(connection):
        key("bad")(connection)
        raise ValueError("mine")

    async def work():
        results = await asyncio.gather(
            *[database.write(bad if n % 10 == 5 else key(f"k{n:03}")) for n in range(200)], return_exceptions=True
        )
        assert [type(r) for r in results if not isinstance(r, int)] == [ValueError] * 20
        assert len(await keys(database)) == 180
        with pytest.raises(exc.IntegrityError):
            await database.write(key("k001"))
        with pytest.raises(ValueError):
            await database.write(bad)
        assert await database.write(key("after")) == 1

    run(work())
    assert sum(commits) == 203
    assert len(commits) < 50


def test_insert_fills_defaults_and_ignores_what_is_there(database):
    async def work():
        row = {"key": "a", "at": 1, "month": "2026-11", "kind": "sent", "agency": "x", "direction": "out"}
        assert await database.write(lambda c: db.insert(c, db.event, [row, {**row, "key": "b"}], ignore=True)) == 2
        assert await database.write(lambda c: db.insert(c, db.event, [row, {**row, "key": "c"}], ignore=True)) == 1
        rows = await database.read(lambda c: c.execute(select(db.event).order_by(db.event.c.id)).all())
        assert [(r.key, r.rule) for r in rows] == [("a", ""), ("b", ""), ("c", "")]
        assert await database.write(lambda c: db.insert(c, db.event, [])) == 0

    run(work())


def test_a_locked_database_is_a_failure_not_a_hang_and_passes(database, tmp_path):
    async def work():
        other = sqlite3.connect(tmp_path / "congvan.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Failure) as caught:
            await database.write(key("a"))
        assert caught.value.retryable and "locked" in caught.value.private
        assert await keys(database) == []
        other.execute("ROLLBACK")
        other.close()
        await database.write(key("a"))
        assert await keys(database) == ["a"]

    run(work())


def error(code: int) -> exc.OperationalError:
    original = sqlite3.OperationalError("disk I/O error")
    original.sqlite_errorcode = code
    return exc.OperationalError("COMMIT", {}, original)


@pytest.mark.parametrize(
    ("code", "broken"),
    [(sqlite3.SQLITE_IOERR_FSYNC, True), (sqlite3.SQLITE_CORRUPT, True), (sqlite3.SQLITE_FULL, False)],
)
def test_a_failed_fsync_stops_all_writing_a_full_disk_does_not(database, monkeypatch, code, broken):
    async def work():
        await database.write(key("before"))
        with monkeypatch.context() as patch:
            patch.setattr("sqlalchemy.engine.Connection.commit", lambda self: (_ for _ in ()).throw(error(code)))
            results = await asyncio.gather(*[database.write(key(str(n))) for n in range(5)], return_exceptions=True)
        assert [type(r) for r in results] == [Failure] * 5
        assert all(r.retryable for r in results)
        if broken:
            assert database.broken
            with pytest.raises(Failure):
                await database.write(key("after"))
            assert await keys(database) == ["before"]
        else:
            await database.write(key("after"))
            assert sorted(await keys(database)) == ["after", "before"]

    run(work())


def test_an_operational_error_inside_a_function_fails_the_group(database):
    def full(connection):
        key("half")(connection)
        raise error(sqlite3.SQLITE_FULL)

    async def work():
        results = await asyncio.gather(database.write(key("a")), database.write(full), return_exceptions=True)
        assert isinstance(results[1], Failure)
        # the first may have had a commit of its own, but is never told yes without its row
        assert (await keys(database) == ["a"]) == (results[0] == 1)

    run(work())


def test_a_cancelled_caller_does_not_stop_the_writer(database):
    async def work():
        task = asyncio.create_task(database.write(key("a")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.write(key("b"))
        assert "b" in await keys(database)

    run(work())


def test_close_finishes_what_is_queued_and_it_is_there_after_reopening(tmp_path):
    url = db.sqlite_url(tmp_path / "x" / "congvan.db")

    async def work():
        database = db.Database.open(url)
        tasks = [asyncio.create_task(database.write(key(str(n)))) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(database.close)
        await asyncio.gather(*tasks)
        database.close()
        with pytest.raises(Failure):
            await database.write(key("late"))
        again = db.Database.open(url)
        assert await again.read(lambda c: c.execute(select(func.count()).select_from(db.notice_sent)).scalar()) == 50
        again.close()

    run(work())


def test_a_database_of_another_version_is_refused(tmp_path):
    url = db.sqlite_url(tmp_path / "congvan.db")
    db.Database.open(url).close()
    with sqlite3.connect(tmp_path / "congvan.db") as other:
        other.execute("UPDATE schema SET version = 99")
    with pytest.raises(Failure) as caught:
        db.Database.open(url)
    assert "99" in caught.value.private and not caught.value.retryable
