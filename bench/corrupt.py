"""R10: stored mail and the database are damaged behind the gateway's back; all is noticed, nothing else is stopped.

    ./run measure corrupt --seed 1 [--files 1000] [--pages 100]

files: each of 1,000 stored messages gets a flipped bit, is cut, made longer, overwritten with garbage, emptied or
       removed; others are left whole. Each damaged one must be set aside (its file in `corrupt/`, its case in both
       logs, its recipients held) and none sent; each whole one must arrive.
pages: databases in which ten random bytes were changed. The queue runs over each. A message may only arrive with its
       own bytes, from its own sender, at its own recipient; where one does not arrive there must be an alarm, a refusal
       to start, or a finding of `archive verify`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway.archive import Archive
from gateway.audit import audit
from gateway.errors import Failure
from tests import cases
from tests.hop import Hop, undotted
from tests.house import House


class MailLog:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def write(self, case: str, act: str, **_: object) -> None:
        self.lines.append((case, act))


def damage(path: Path, chance: random.Random) -> str:
    """Hurt a file in one of six ways."""
    path.chmod(0o640)
    data = bytearray(path.read_bytes())
    way = chance.choice(("bit", "cut", "longer", "garbage", "empty", "gone"))
    if way == "bit":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif way == "cut":
        del data[chance.randrange(len(data)) :]
    elif way == "longer":
        data += chance.randbytes(chance.randrange(1, 100))
    elif way == "garbage":
        data[:] = chance.randbytes(len(data))
    elif way == "empty":
        data.clear()
    path.write_bytes(data)
    if way == "gone":
        path.unlink()
    return way


async def files(folder: Path, count: int, seed: int) -> dict[str, Any]:
    chance, log = random.Random(seed), MailLog()
    async with Hop("") as hop:
        built = House(folder, {"hop": hop}, timeouts=None)
        built.queue._mail_log = log  # type: ignore[assignment]
        hurt: dict[str, str] = {}
        ways: dict[str, int] = {}
        for number in range(count + count // 10):
            case = await built.commit(number=number, data=cases.mail(number, chance.choice((0, 500, 5000))))
            row = await built.archive.row(case)
            assert row is not None
            if number % 11 != 10:
                way = damage(built.store.path(row["sha256"]), chance)
                hurt[case] = row["sha256"]
                ways[way] = ways.get(way, 0) + 1
        built.start()
        states = "select count(*) from recipient where state = 'queued'"
        await built.until(states, [0], 600)
        await built.end()
        held = {row[0] for row in await built.sql("select message from recipient where state = 'held'")}
        alarmed = {about["case"] for _, event, about in built.log.lines if event.startswith("ALARM: damaged message")}
        told = {case for case, act in log.lines if act == "damaged"}
        kept = {path.stem for path in (folder / "corrupt").iterdir()}
        left = {case for case, sha in hurt.items() if built.store.path(sha).exists()}
        arrived = len(hop.messages)
        await built.close()
    wrong = (
        sorted(set(hurt) ^ held)
        + sorted(set(hurt) ^ alarmed)
        + sorted(set(hurt) ^ told)
        + sorted(left)
        + ([f"{arrived} whole ones arrived"] if arrived != count // 10 else [])
        + ([f"{len(kept)} files set aside"] if len(kept) != len(hurt) - ways.get("gone", 0) else [])
    )
    return {
        "damaged": len(hurt),
        "ways": ways,
        "noticed": len(held & alarmed & told),
        "others": arrived,
        "wrong": wrong,
    }


async def pages(folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    result = {"databases": rounds, "messages": 0, "arrived": 0, "set_aside": 0, "refused_to_start": 0, "stopped": 0}
    result["named_by_verify_alone"] = 0
    wrong: list[str] = []
    whole = folder / "whole"
    whole.mkdir()
    addresses = {}
    async with Hop("") as hop:
        built = House(whole, {"hop": hop})
        for number in range(40):
            addresses[number] = f"nguoi{number}@x.vn"
            await built.commit(number=number, data=cases.mail(number, 300), to=(addresses[number],))
        await built.archive.checkpoint()
        await built.close()
        size = (whole / "gateway.db").stat().st_size
        for turn in range(rounds):
            one = folder / "one"
            shutil.copytree(whole, one)
            with (one / "gateway.db").open("r+b") as file:
                for _ in range(10):
                    file.seek(chance.randrange(size))
                    file.write(chance.randbytes(1))
            hop.messages.clear()
            result["messages"] += len(addresses)
            loud = False
            try:
                built = House(one, {"hop": hop})
            except Failure:
                result["refused_to_start"] += 1
                shutil.rmtree(one)
                continue
            built.start()
            quiet, seen = time.monotonic(), -1
            while time.monotonic() - quiet < 0.7 and time.monotonic() - quiet < 20:
                now = len(hop.messages) + len(built.log.lines)
                if now != seen:
                    quiet, seen = time.monotonic(), now
                if len(hop.messages) == len(addresses) or built.log.events("error").count(
                    "queue cannot reach the database"
                ):
                    break
                await asyncio.sleep(0.02)
            await built.end()
            for mail, rcpt, wire in hop.messages:
                body = undotted(wire).removeprefix(b"Received: x\r\n")
                number = int(body.partition(b"@")[0].rpartition(b"<")[2] or b"-1")
                if (
                    body != cases.mail(number, 300)
                    or addresses[number] not in str(rcpt)
                    or "van.thu@so-tttt" not in mail
                ):
                    wrong.append(f"round {turn}: sent wrongly {mail} {rcpt}")
            errors = built.log.events("error") + built.log.events("exception")
            errors = [event for event in errors if "clock" not in event]  # that of the tests stands in the past
            loud = bool(errors)
            result["arrived"] += len(hop.messages)
            result["set_aside"] += sum(event.startswith("ALARM") for event in errors)
            missing = len(addresses) - len(hop.messages)
            result["stopped"] += "queue cannot reach the database" in errors
            if missing and not loud:
                try:
                    report = await asyncio.to_thread(audit, Archive(built.database, built.store, built.settings))
                    named = bool(report.damage)
                except Exception:
                    named = True
                result["named_by_verify_alone"] += named
                if not named:
                    wrong.append(f"round {turn}: {missing} missing and nothing said")
            await built.close()
            shutil.rmtree(one)
            print(f"round {turn + 1}: {len(hop.messages)} arrived, {errors[:2]}", file=sys.stderr, flush=True)
    return {**result, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--pages", type=int, default=100, help="databases, ten bytes each")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    bad = False
    for name, work, count in (("files", files, given.files), ("pages", pages, given.pages)):
        if count:
            with tempfile.TemporaryDirectory(prefix="congvan-corrupt-") as folder:
                result = asyncio.run(work(Path(folder), count, given.seed))
            print(json.dumps({"measurement": f"corrupt {name}", "seed": given.seed, **result}), flush=True)
            bad = bad or bool(result["wrong"])
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
