"""Mail whose inspection takes longer than its sender can wait: nothing readable on disk before the verdict, nothing at
all of a secret after it, and no kill changes that."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway import config, durable
from gateway import database as db
from gateway import log as logs
from gateway.archive import Archive
from gateway.daemon import read_rules
from gateway.inspection.findings import CheckRun, Finding, Inspection, Mailbox, MessageFacts, Status
from gateway.late import Waiting
from gateway.message import Address, Envelope, MemoryBody, Origin, Received, Recipient, new_case
from gateway.objectstore import open_store
from gateway.pipeline import Pipeline
from tests import harness
from tests.test_gateway import PROVINCE, SECRETS, letter, query, relay, submit

#: No inspection ends within this; a late one ends.
HASTY = "budget: {seconds: 0.00001, late: 1200}"
WORDS = b"Phuong an Kim Quy"
LETTER = b"From: ubnd@tinhdemo.gov.vn\r\nSubject: x\r\n\r\n" + WORDS + b"\r\n"


@pytest.fixture
def hasty(tmp_path, sink, passwords):
    made = harness.Gateway(harness.write_config(tmp_path, hop_port=sink.port, auth_port=passwords.port, extra=HASTY))
    yield made.start()
    assert made.stop() == 0, made.told()


def left_of_it(data: Path) -> list[str]:
    return [str(path) for name in ("late", "keys/late") for path in (data / name).glob("*")]


def until(question, wanted, process: harness.Gateway) -> None:
    """Ask until it is so, or until the gateway has ended."""
    for _ in range(4800):
        if question() == wanted:
            return
        assert process.process is not None and process.process.poll() is None
        time.sleep(0.05)
    raise AssertionError(f"{question()}, not {wanted}")


def traces(folder: Path) -> list[Path]:
    words = [WORDS, "Phương án Kim Quy".encode(), "TỐI MẬT".encode()]
    return [path for path in folder.rglob("*") if path.is_file() and any(word in path.read_bytes() for word in words)]


def test_staff_are_told_250_and_the_mail_goes_on(hasty, sink, passwords):
    raw = letter(sender=PROVINCE)
    answer = submit(hasty, raw, PROVINCE, "nguoidan@citizen.example", passwords.password)
    case = re.search(r"HOLD .* ma (\w+)", answer)
    assert answer.startswith("250") and case, answer
    ((sender, _, arrived),) = sink.wait(1)
    assert sender == PROVINCE and arrived.endswith(raw)
    assert json.loads(hasty.command("archive", "show", case[1], "--json"))["case"] == case[1]
    until(lambda: left_of_it(hasty.data), [], hasty)
    hasty.command("archive", "verify")
    # offered again: known
    assert submit(hasty, raw, PROVINCE, "nguoidan@citizen.example", passwords.password).startswith("250")
    until(lambda: left_of_it(hasty.data), [], hasty)
    assert query(hasty, "select count(*) from message where kind = 'mail'") == [(1,)]


def test_of_a_secret_nothing_stays_also_after_a_kill_before_the_verdict(hasty, sink, passwords):
    raw = SECRETS["large"].replace(b"nguoidan@citizen.example", PROVINCE.encode())
    answer = submit(hasty, raw, PROVINCE, "nguoidan@citizen.example", passwords.password)
    assert answer.startswith("250 2.0.0 VBDT HOLD"), answer
    hasty.kill()
    assert traces(hasty.config.parent) == []
    (held,) = json.loads(f"[{hasty.command('held', 'list', '--json').strip()}]")
    assert held["recipients"][0]["state"] == "inspecting" and held["case"] in answer
    assert query(hasty, "select count(*) from tombstone") == [(0,)]
    hasty.start()
    # the sender learns the bare fact by mail, the message goes nowhere
    ((_, recipients, notice),) = sink.wait(1)
    assert recipients == [PROVINCE] and b"Kim Quy" not in notice
    assert query(hasty, "select id from tombstone") == [(held["case"],)]
    until(lambda: left_of_it(hasty.data), [], hasty)
    assert query(hasty, "select count(*) from message where kind = 'mail'") == [(0,)]
    assert traces(hasty.config.parent) == []


def test_servers_are_told_to_come_again_and_find_the_answer(hasty, sink):
    for raw, wanted in ((letter(), "250"), (SECRETS["body"], "550 5.7.1 VBDT POLICY")):
        assert relay(hasty, raw).startswith("451 4.3.0 Inspection takes longer")
        assert traces(hasty.data) == []
        until(lambda raw=raw, wanted=wanted: relay(hasty, raw)[: len(wanted)], wanted, hasty)
    assert query(hasty, "select (select count(*) from message where kind = 'mail'), count(*) from tombstone") == [
        (1, 1)
    ]
    assert left_of_it(hasty.data) == []


# ---------------------------------------------------------------------- a kill at each step


class Early:
    """Never has time."""

    async def message(self, body) -> Inspection:
        return Inspection(runs=(CheckRun(check="secrecy", status=Status.TIMED_OUT),))


class Late:
    """Has time: whoever is called with SECRET says that it is one."""

    def __init__(self, secret: bool) -> None:
        self.secret = secret

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        pass

    async def message(self, body) -> Inspection:
        found = (Finding(kind="secrecy", value="toi_mat", grade="strong", about="body"),) if self.secret else ()
        return Inspection(findings=found, message=MessageFacts(from_=(Mailbox(address=PROVINCE),)))


def pipeline(folder: Path, secret: bool) -> Pipeline:
    settings = config.read(folder / "config")
    archive = Archive(db.Database.open(settings.database_url), open_store(settings), settings)
    return Pipeline(
        settings, read_rules(folder / "config"), inspector=Early(), archive=archive, late=lambda: Late(secret),
        wake=lambda: None, log=logs.get(), mail_log=logs.MailLog(io.StringIO()), data=settings.data,
    )  # fmt: skip


async def take(made: Pipeline) -> bool:
    """Was 250 said?"""
    to = Recipient(Address("nguoidan", "citizen.example"))
    envelope = Envelope(Address("ubnd", harness.OURS), (to,))
    body = MemoryBody(LETTER, hashlib.sha256(LETTER).hexdigest())
    origin = Origin("submission", "127.0.0.1", login=PROVINCE)
    reply = await made.message(Received(new_case(), made_at(), envelope, origin, body))
    return reply.code == 250


def made_at():
    from tests.cases import AT

    return AT


async def decide(made: Pipeline) -> None:
    """Verdicts until nothing waits."""
    task = asyncio.create_task(made.run_late())
    while any(made._waiting.all()):
        assert not task.done()
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def whole(folder: Path, secret: bool, told: int = -1) -> None:
    made = pipeline(folder, secret)
    if told >= 0 and await take(made):
        os.write(told, b"250")
    await decide(made)
    await made._archive.close()
    made._archive.database.close()


def dies_at(step: int, folder: Path, secret: bool) -> tuple[bool, bool]:
    """The same in a process that is killed at its n-th durable step. Was 250 said, and was it killed at all?"""
    there, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            durable._crash_at = durable._steps + step
            asyncio.run(whole(folder, secret, told))
        finally:
            os._exit(0)
    os.close(told)
    said = os.read(there, 3)
    os.close(there)
    return said == b"250", os.waitpid(child, 0)[1] == 9


def walk(base: Path, secret: bool, steps: Iterable[int]) -> int:
    """A kill at each of these steps, then the next start; ends with the first step that is never reached. Returns how
    many were killed after 250."""
    told = 0
    for step in steps:
        folder = base / f"{step}{secret}"
        harness.write_config(folder, hop_port=1, auth_port=1)
        (folder / "data").mkdir()
        asyncio.run(decide_nothing(folder))
        said, killed = dies_at(step, folder, secret)
        archived = bool(list((folder / "data" / "blobs").rglob("*.eml*")))
        if secret or not archived:
            assert traces(folder / "data") == [], step
        asyncio.run(whole(folder, secret))  # the next start
        assert list(Waiting(folder / "data").all()) == [] and left_of_it(folder / "data") == [], step
        messages, stones = asyncio.run(counted(folder))
        assert (stones if secret else messages) == 1 or (not said and messages == stones == 0), (step, said)
        assert messages + stones <= 1
        assert not secret or traces(folder / "data") == []
        told += said and killed
        if not killed:
            break
    return told


@pytest.mark.parametrize("secret", [True, False])
def test_a_kill_loses_nothing_and_shows_nothing(tmp_path, secret):
    """Some of the steps; all of them: `./run measure late_kills`."""
    logs.configure()
    assert walk(tmp_path, secret, (9, 14)) == 1


async def decide_nothing(folder: Path) -> None:
    """Tables, keys and folders, so that the steps that are counted are those of the message."""
    made = pipeline(folder, False)
    await made._archive.disguise("00" * 32)
    await made._archive.close()
    made._archive.database.close()


async def counted(folder: Path) -> tuple[int, int]:
    base = db.Database.open(config.read(folder / "config").database_url)
    try:
        return await base.read(
            lambda c: (
                c.exec_driver_sql("SELECT count(*) FROM message WHERE kind = 'mail'").scalar(),
                c.exec_driver_sql("SELECT count(*) FROM tombstone").scalar(),
            )
        )
    finally:
        base.close()
