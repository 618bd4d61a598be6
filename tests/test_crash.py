"""Test R2: killed at every single durable operation, nothing acknowledged is lost and nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from sqlalchemy import func, select

from gateway import database as db
from gateway import durable
from gateway.archive import Notice, Tombstone
from gateway.audit import audit
from tests.cases import AT, case, close, mail, open_archive

SIZES = (0, 70_000, 1_500_000)
BURIED = "0" * 13 + "XYZ"


def offers():
    """Always the same messages, as a sender offers them again who has read no answer."""
    for number, size in enumerate(SIZES):
        notice = Notice("notice", b"notice %d" % number, (("a@tinh.gov.vn", "hop"),), "X", f"key {number}")
        yield case(mail(number, size), number=number, notices=(notice,))


async def offer_all(folder: Path, told) -> None:
    archive = open_archive(folder)
    await archive.start()
    await archive.checkpoint()
    for one in offers():
        known = await archive.known(one.received.body.sha256, str(one.received.envelope.sender), "out")
        if known is None:
            receipt = await archive.commit(one)
            told(receipt.case)
        else:
            told(known.case)
        await archive.checkpoint()
    if await archive.database.read(lambda c: c.execute(select(db.tombstone.c.id)).first()) is None:
        await archive.bury(Tombstone(BURIED, AT, "a@b", ("c@d",), "::1", 5, "mat", "SC-01", "ab" * 32))
    told(BURIED)
    await archive.checkpoint()
    await close(archive)


def child(folder: Path, crash_at: int) -> tuple[list[str], bool]:
    """Run in a process of its own. Returns the cases that were acknowledged, and whether it was killed."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread of ours runs here
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            durable._crash_at = crash_at
            asyncio.run(offer_all(folder, lambda name: os.write(writing, f"{name}\n".encode())))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        acknowledged = pipe.read().split()
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"step {crash_at}: neither killed nor well, status {status}"
    return acknowledged, killed


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.heavy)])
def test_killed_at_every_step(tmp_path, stride):
    crash_at = 1 - stride
    while True:
        crash_at += stride
        folder = tmp_path / str(crash_at)
        acknowledged, killed = child(folder, crash_at)

        async def look_after(folder=folder, acknowledged=acknowledged, crash_at=crash_at):
            archive = open_archive(folder)
            try:
                for name in acknowledged:
                    if name == BURIED:
                        found = await archive.database.read(lambda c: c.execute(select(db.tombstone.c.id)).scalar())
                        assert found == BURIED
                        continue
                    row = await archive.row(name)
                    assert row is not None, f"step {crash_at}: {name} was acknowledged and is lost"
                    assert len(await archive.data(name)) == row["size"]
                    assert [one["state"] for one in row["recipients"]] == ["queued"]
                report = await asyncio.to_thread(audit, archive)
                assert report.damage == [], f"step {crash_at}: {report.damage}"
            finally:
                await close(archive)

        asyncio.run(look_after())
        again, _ = child(folder, 0)
        assert set(acknowledged) <= set(again), "an acknowledged message was archived anew under another case"

        async def look_again(folder=folder, crash_at=crash_at):
            archive = open_archive(folder)
            try:
                report = await asyncio.to_thread(audit, archive)
                assert report.damage == [], f"step {crash_at}: {report.damage}"
                assert report.leaves == report.signed == 2 * len(SIZES) + 1
                numbers = [
                    await archive.database.read(
                        lambda c, t=table: c.execute(select(func.count()).select_from(t)).scalar()
                    )
                    for table in (db.message, db.event, db.notice_sent, db.recipient, db.tombstone)
                ]
                assert numbers == [2 * len(SIZES), len(SIZES), len(SIZES), 2 * len(SIZES), 1]
                assert list((folder / "blobs" / "tmp").iterdir()) == []
            finally:
                await close(archive)

        asyncio.run(look_again())
        if not killed:
            break
    print(f"{crash_at} durable operations in a run of {len(SIZES)} messages, each {stride}. killed")
    assert crash_at > 60, "fewer durable operations than there were: is something no longer synced?"


def test_the_variable_kills_and_without_it_nothing_does(tmp_path):
    script = "from gateway import durable; [durable.step() for _ in range(5)]; print('alive')"
    root = Path(__file__).parent.parent
    for value, code in (("3", -signal.SIGKILL), ("6", 0), ("", 0)):
        env = {**os.environ, "CONGVAN_CRASH_AT": value, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, timeout=240)
        assert done.returncode == code
