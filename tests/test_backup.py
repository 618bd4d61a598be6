"""Copies made while mail runs, and a new host from one: everything is there, the tree goes on, and what is not as it
was signed is never restored."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from gateway import backup as backups
from gateway import database as db
from gateway.archive import Archive, Tombstone
from gateway.audit import audit
from gateway.backup import backup, restore
from gateway.config import Gateway
from gateway.errors import Failure
from gateway.objectstore import open_store
from tests.cases import AT, SETTINGS, case, close, mail
from tests.test_postgresql import server  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent.parent / "verifier"))
import congvan_verify  # a program of its own, beside the gateway


def settings(folder: Path, **more: object) -> Gateway:
    return Gateway.model_validate({**SETTINGS.model_dump(mode="json"), "data": str(folder), **more})


def opened(folder: Path, **more: object) -> Archive:
    of = settings(folder, **more)
    return Archive(db.Database.open(of.database_url), open_store(of), of)


async def filled(folder: Path, numbers: range = range(6), **more: object) -> Archive:
    archive = opened(folder, **more)
    for number in numbers:
        await archive.commit(case(number=number))
    if numbers.start == 0:
        await archive.bury(Tombstone("STONE", AT, "a@b", ("c@d",), "::1", 5, "mat", "SC-01", "ab" * 32))
    await archive.checkpoint()
    return archive


async def fill(folder: Path, numbers: range = range(6), **more: object) -> None:
    await close(await filled(folder, numbers, **more))


async def copy(folder: Path, target: Path, keys: bool = True, **more: object) -> backups.Done:
    archive = opened(folder, **more)
    try:
        return await asyncio.to_thread(backup, archive, target, keys=keys)
    finally:
        await close(archive)


async def good(folder: Path, known: tuple[str, ...] = (), **more: object) -> int:
    """Leaves of an archive in which nothing is wrong."""
    archive = opened(folder, **more)
    try:
        report = await asyncio.to_thread(audit, archive, known=known)
        assert report.damage == [] and report.notes == []
        return report.leaves
    finally:
        await close(archive)


def anew(*words, **more) -> backups.Done:
    """`restore`, wherever it is called from."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(restore, *words, **more).result()


def audited(folder: Path) -> int:
    """The exit code of the separate verifier over a folder."""
    return congvan_verify.main(["audit", "--key", (folder / "keys" / "log.vkey").read_text().strip(), str(folder)])


def test_while_mail_runs_and_on_with_it_elsewhere(tmp_path):
    async def work():
        live = await filled(tmp_path / "live")
        running, numbers = True, iter(range(100, 10_000))

        async def flow():
            while running:
                await live.commit(case(number=next(numbers)))

        tasks = [asyncio.create_task(flow()) for _ in range(4)]
        first = await asyncio.to_thread(backup, live, tmp_path / "copy", keys=True)
        known = (tmp_path / "copy" / "log" / "checkpoint").read_text()
        await live.checkpoint()
        second = await asyncio.to_thread(backup, live, tmp_path / "copy", keys=True)
        running = False
        await asyncio.gather(*tasks)
        assert first.damage == second.damage == []
        assert second.size > first.size and second.copied == second.blobs - first.blobs > 0
        third = await asyncio.to_thread(backup, live, tmp_path / "copy", keys=True)
        again = await asyncio.to_thread(backup, live, tmp_path / "copy", keys=True)
        assert again.copied == 0 and again.size == third.size
        await live.checkpoint()
        report = await asyncio.to_thread(audit, live, known=(known,))  # what the backup signed is of the same tree
        assert report.damage == [] and report.leaves >= third.size
        await close(live)
        assert audited(tmp_path / "copy") == 0

        new = settings(tmp_path / "new")
        done = await asyncio.to_thread(restore, tmp_path / "copy", new, known=(known,))
        assert done.damage == [] and (done.size, done.blobs) == (third.size, third.blobs)
        assert done.owed == done.blobs  # as many as were queued in these
        assert await good(tmp_path / "new", (known,)) == third.size
        archive = opened(tmp_path / "new")
        assert (await archive.commit(case(number=3))).duplicate
        receipt = await archive.commit(case(number=9999))
        assert receipt.leaf == third.size
        await archive.checkpoint()
        assert await archive.data(receipt.case) == mail(9999)
        await close(archive)
        assert await good(tmp_path / "new", (known,)) == third.size + 1
        with pytest.raises(Failure, match="already"):
            anew(tmp_path / "copy", new)

    asyncio.run(work())


def test_keys_only_when_asked_for(tmp_path):
    async def work():
        await fill(tmp_path / "live")
        (tmp_path / "live" / "keys" / "late").mkdir()
        (tmp_path / "live" / "keys" / "late" / "CASE.key").write_bytes(b"never")
        done = await copy(tmp_path / "live", tmp_path / "copy", keys=False)
        assert not done.keys
        assert [path.name for path in (tmp_path / "copy" / "keys").iterdir()] == ["log.vkey"]
        assert audited(tmp_path / "copy") == 0
        done = anew(tmp_path / "copy", settings(tmp_path / "new"), keys=tmp_path / "live" / "keys")
        assert done.damage == [] and done.keys
        done = anew(tmp_path / "copy", settings(tmp_path / "other"))
        assert done.damage == [] and not done.keys
        archive = opened(tmp_path / "other")
        with pytest.raises(Failure):  # no key is made up in silence
            await archive.commit(case(number=77))
            await archive.checkpoint()
        await close(archive)
        await copy(tmp_path / "live", tmp_path / "copy", keys=True)
        names = {path.name for path in (tmp_path / "copy" / "keys").rglob("*")}
        assert {"log.key", "tombstone.salt"} <= names and "CASE.key" not in names

    asyncio.run(work())


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 4
    path.chmod(0o640)
    path.write_bytes(data)


def blobs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "blobs" / "sha256").glob("*/*"))


def swap_rows(folder: Path) -> None:
    """Rows of another archive with a description that fits them: a forgery by whoever can write to the backup."""
    with contextlib.closing(sqlite3.connect(folder / "gateway.db")) as rows:
        rows.execute("UPDATE message SET sender = 'gia.mao@x' WHERE id = (SELECT min(id) FROM message)")
        rows.commit()
    manifest = folder / "backup.json"
    digest = hashlib.sha256((folder / "gateway.db").read_bytes()).hexdigest()
    old = manifest.read_text()
    manifest.write_text(old.replace(old.split('"database": "')[1][:64], digest))


BREAKS = {
    "byte of a message": lambda copy: flip(blobs(copy)[2]),
    "message gone": lambda copy: blobs(copy)[1].unlink(),
    "rows forged": swap_rows,
    "log": lambda copy: flip(next((copy / "log" / "tile" / "entries").rglob("*.p/*"))),
    "checkpoint": lambda copy: (copy / "backup.json").write_text(
        (copy / "backup.json").read_text().replace("ntime 2", "ntime 3")
    ),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copied")
    asyncio.run(fill(folder / "live"))
    asyncio.run(copy(folder / "live", folder / "copy"))
    return folder


@pytest.mark.parametrize("what", BREAKS)
def test_a_damaged_backup_is_not_restored(copied, tmp_path, what):
    shutil.copytree(copied / "copy", tmp_path / "copy")
    BREAKS[what](tmp_path / "copy")
    done = anew(tmp_path / "copy", settings(tmp_path / "new"))
    assert done.damage, what
    assert not (tmp_path / "new" / "gateway.db").exists()
    # and after the right bytes are there again, it is
    for path in (copied / "copy").rglob("*"):
        if path.is_file():
            (tmp_path / "copy" / path.relative_to(copied / "copy")).unlink(missing_ok=True)
            shutil.copy(path, tmp_path / "copy" / path.relative_to(copied / "copy"))
    assert anew(tmp_path / "copy", settings(tmp_path / "new")).damage == []
    asyncio.run(good(tmp_path / "new"))


def test_what_is_no_backup_and_what_is_older_than_a_known_checkpoint(copied, tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(Failure, match="no complete backup"):
        anew(tmp_path / "x", settings(tmp_path / "new"))
    shutil.copytree(copied / "copy", tmp_path / "copy")
    flip(tmp_path / "copy" / "gateway.db")
    with pytest.raises(Failure, match="no complete backup"):
        anew(tmp_path / "copy", settings(tmp_path / "new"))
    with pytest.raises(Failure, match="hostname"):
        other = settings(tmp_path / "new").model_copy(update={"hostname": "khac.gov.vn"})
        anew(copied / "copy", other)
    (tmp_path / "x" / "something").write_text("x")
    with pytest.raises(Failure, match="no backup"):
        asyncio.run(copy(copied / "live", tmp_path / "x"))
    # A checkpoint that somebody kept is newer than this backup: it is said, and nothing is restored.
    shutil.copytree(copied / "live", tmp_path / "later")
    asyncio.run(fill(tmp_path / "later", range(50, 53)))
    known = (tmp_path / "later" / "log" / "checkpoint").read_text()
    done = anew(copied / "copy", settings(tmp_path / "new"), known=(known,))
    assert any(line.startswith("rolled_back") for line in done.damage)
    assert not (tmp_path / "new" / "gateway.db").exists()


def test_a_changed_history_is_not_copied_over_a_good_one(copied, tmp_path):
    shutil.copytree(copied / "live", tmp_path / "live")
    shutil.copytree(copied / "copy", tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(tmp_path / "live" / "gateway.db")) as rows:
        rows.execute("DELETE FROM leaf WHERE idx = (SELECT max(idx) FROM leaf)")
        rows.commit()
    before = {path: path.read_bytes() for path in (tmp_path / "copy").glob("*.*")}
    with pytest.raises(Failure, match="not what it was"):
        asyncio.run(copy(tmp_path / "live", tmp_path / "copy"))
    assert all(path.read_bytes() == data for path, data in before.items())
    assert anew(tmp_path / "copy", settings(tmp_path / "new")).damage == []
    # Bytes that are gone are named, the older copy stays.
    shutil.rmtree(tmp_path / "live")
    shutil.copytree(copied / "live", tmp_path / "live")
    asyncio.run(fill(tmp_path / "live", range(60, 62)))
    fresh = next(path for path in blobs(tmp_path / "live") if path not in blobs(copied / "live") and not (
        tmp_path / "copy" / path.relative_to(tmp_path / "live")).exists())  # fmt: skip
    flip(fresh)
    done = asyncio.run(copy(tmp_path / "live", tmp_path / "copy"))
    assert done.damage == [f"{fresh.name.partition('.')[0]}: changed"]
    assert anew(tmp_path / "copy", settings(tmp_path / "third")).damage == []


KILLED = """
import asyncio, sys
from pathlib import Path
from gateway import durable
from tests.test_backup import backup, close, opened, restore, settings
what, source, target, at = sys.argv[1:]
async def work():
    archive = opened(Path(source))
    durable._crash_at = int(at)
    await asyncio.to_thread(backup, archive, Path(target), keys=True)
    await close(archive)
if what == "backup":
    asyncio.run(work())
else:
    of = settings(Path(target))
    durable._crash_at = int(at)
    restore(Path(source), of)
"""


def killed(what: str, source: Path, target: Path, at: int) -> bool:
    words = [sys.executable, "-c", KILLED, what, str(source), str(target), str(at)]
    root = Path(__file__).parent.parent
    return subprocess.run(words, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False).returncode == -9


@pytest.mark.parametrize("at", [30])
def test_a_kill_leaves_the_older_backup_and_the_next_call_ends_it(copied, tmp_path, at):
    shutil.copytree(copied / "live", tmp_path / "live")
    shutil.copytree(copied / "copy", tmp_path / "copy")
    asyncio.run(fill(tmp_path / "live", range(70, 74)))
    assert killed("backup", tmp_path / "live", tmp_path / "copy", at)
    assert anew(tmp_path / "copy", settings(tmp_path / "new")).damage == []
    assert asyncio.run(copy(tmp_path / "live", tmp_path / "copy")).damage == []
    assert audited(tmp_path / "copy") == 0
    leaves = asyncio.run(good(tmp_path / "live"))
    # and a restore that is killed goes on as well
    killed("restore", tmp_path / "copy", tmp_path / "other", at)
    assert anew(tmp_path / "copy", settings(tmp_path / "other")).damage == []
    assert asyncio.run(good(tmp_path / "other")) == leaves


def test_what_is_encrypted_stays_so_in_the_backup(tmp_path):
    key = tmp_path / "outside.key"
    key.write_text("6b" * 32)
    more = {"store": {"encryption": {"key": {"file": str(key)}}}}

    async def work():
        await fill(tmp_path / "live", **more)
        assert (await copy(tmp_path / "live", tmp_path / "copy", **more)).damage == []
        for path in blobs(tmp_path / "copy"):
            assert path.name.endswith(".enc") and b"Message-ID" not in path.read_bytes()
        done = anew(tmp_path / "copy", settings(tmp_path / "new", **more))
        assert done.damage == []
        await good(tmp_path / "new", **more)
        with pytest.raises(Failure, match="encrypted"):
            anew(tmp_path / "copy", settings(tmp_path / "plain"))
        key.unlink()
        with pytest.raises(Failure, match="No such file"):
            anew(tmp_path / "copy", settings(tmp_path / "other", **more))

    asyncio.run(work())


@pytest.mark.peer
def test_from_and_into_postgresql(server, tmp_path):  # noqa: F811
    url, _ = server

    async def work():
        await fill(tmp_path / "live", database=url)
        assert (await copy(tmp_path / "live", tmp_path / "copy", database=url)).damage == []
        assert audited(tmp_path / "copy") == 0
        # into SQLite, and from there back into an empty server
        assert anew(tmp_path / "copy", settings(tmp_path / "new")).damage == []
        await fill(tmp_path / "new", range(20, 23))
        assert (await copy(tmp_path / "new", tmp_path / "second")).damage == []
        with pytest.raises(Failure, match="already"):
            anew(tmp_path / "second", settings(tmp_path / "third", database=url))
        database = db.Database.open(url)
        await database.write(lambda c: [c.execute(table.delete()) for table in reversed(db.metadata.sorted_tables)])
        database.close()
        assert anew(tmp_path / "second", settings(tmp_path / "third", database=url)).damage == []
        leaves = await good(tmp_path / "third", database=url)
        archive = opened(tmp_path / "third", database=url)
        receipt = await archive.commit(case(number=33))  # numbers of rows go on, too
        assert receipt.leaf == leaves
        count = await archive.database.read(lambda c: c.execute(select(func.count()).select_from(db.message)).scalar())
        assert count == 10
        await close(archive)

    asyncio.run(work())
