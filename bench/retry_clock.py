"""R7: a next hop that is down for six hours, and one that is down for five days, by a clock that jumps.

    ./run measure retry_clock --queued 10000

The queue runs as it is, on real files and real sockets; only the event loop's time, and with it the clock, jumps to the
next timer whenever nothing else is to be done. Checked for every message: each wait is the step of the schedule within
the jitter; a delay is told at 4 hours and at 24, within the minute in which the queue looks; after five days there is
one final report; when the hop comes back all is delivered. Prints JSON; `cpu_percent` is CPU time by virtual time.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import email
import email.policy
import json
import random
import selectors
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from gateway import database as db
from gateway.archive import Owed, append_leaf, message_entry
from tests.hop import Hop, undotted
from tests.house import House

HOUR, DAY = 3600.0, 86400.0
START = 1_790_000_000.0


class JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer it moves the loop's clock there, when threads and sockets have nothing left."""

    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if found or timeout is None or timeout <= 0:
            return found or (super().select(None) if timeout is None else [])
        if self.loop.threads:
            return super().select(1.0)
        # What is on its way through the loopback; more patience while somebody has a connection, which is seldom: the
        # loop's own pipe and the two next hops that listen are always there.
        found = super().select(0.003 if len(self.get_map()) <= 3 else 0.05)
        if not found:
            self.loop.skipped += timeout
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.skipped = 0.0
        self.threads = 0  # calls under way in other threads
        selector = JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.skipped  # what is computed takes no time

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._back)
        return future

    def _back(self, _: Any) -> None:
        self.threads -= 1


def jumping(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)


def count_writes(built: House, loop: JumpingLoop) -> None:
    write = built.database.write

    async def counted(fn: Any) -> Any:
        loop.threads += 1
        try:
            return await write(fn)
        finally:
            loop.threads -= 1

    built.database.write = counted  # type: ignore[method-assign]


async def fill(built: House, count: int) -> None:
    """`count` messages to the hop that is down, from a sender whose hop is up; they share their bytes."""
    first = await built.commit(hop="xa", to=("0@xa.vn",), sender="van.thu@ben.vn")
    row = (await built.archive.row(first)) or {}
    columns = {column.name for column in db.message.columns}

    def insert(connection: Any) -> None:
        message = {name: value for name, value in row.items() if name in columns}
        to = {name: value for name, value in row["recipients"][0].items() if name != "id"}
        for number in range(1, count):
            case = f"CASE{number:012}"
            one, address = {**message, "id": case}, f"{number}@xa.vn"
            db.insert(connection, db.message, [one])
            db.insert(connection, db.recipient, [{**to, "message": case, "address": address}])
            owed = Owed(address, "", "", "", to["verdict"], "queued", "xa")
            append_leaf(connection, START, message_entry(one, [owed], [], {}))

    await built.database.write(insert)


async def scenario(folder: Path, count: int, down: float, seed: int) -> dict[str, Any]:
    """`count` messages, their hop down for `down` seconds. Returns what was found; `wrong` lists what must not be."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    dead, alive = Hop(), Hop()
    async with dead, alive:
        built = House(folder, {"xa": dead, "ben": alive}, timeouts=None)
        await dead.close()
        await fill(built, count)
        count_writes(built, loop)
        zero = loop.time()
        built.queue._clock = lambda: START + loop.time() - zero
        await built.sql("update recipient set next_attempt_at = ?", (int(START * 1000),))
        built.queue._chance = random.Random(seed).random
        built.queue._watch_poke = asyncio.Event().wait  # type: ignore[method-assign]  # a look each second is all it does
        decisions: dict[int, list[tuple[int, Any]]] = collections.defaultdict(list)
        decide = built.queue._decide

        def spy(row: Any, outcome: Any, now: int, *more: Any) -> Any:
            settled, report = decide(row, outcome, now, *more)
            if row.destination == "xa" and settled.counted:
                decisions[row.id].append((now, settled))
            return settled, report

        built.queue._decide = spy  # type: ignore[method-assign]
        cpu, wall = time.process_time(), time.monotonic()
        built.start()
        await asyncio.sleep(down)
        probes = len(await built.sql("select distinct intent_at from attempt where destination = 'xa'"))
        used = time.process_time() - cpu
        await dead.__aenter__()
        await asyncio.sleep(2 * HOUR)  # the longest wait, and more
        ((lost,),) = await built.sql("select count(*) from recipient where state = 'queued'")
        states = dict(await built.sql(
            "select r.state, count(*) from recipient r join message m on m.id = r.message"
            " where m.kind = 'mail' group by r.state"))  # fmt: skip
        await built.close()
        wrong = check(built, decisions, alive, count, down)
        if lost:
            wrong.append(f"{lost} still queued")
        final = "failed" if down >= 5 * DAY else "delivered"
        if states != {final: count}:
            wrong.append(f"states {states}")
        if final == "delivered" and len(dead.messages) != count:
            wrong.append(f"{len(dead.messages)} arrived")
        return {
            "queued": count,
            "down_hours": down / HOUR,
            "decisions": sum(map(len, decisions.values())),
            "connects_while_down": probes,
            "reports": len(alive.messages),
            "cpu_percent": round(100 * used / down, 3),
            "seconds": round(time.monotonic() - wall, 1),
            "wrong": wrong[:10],
        }


def check(built: House, decisions: dict[int, list[tuple[int, Any]]], alive: Hop, count: int, down: float) -> list[str]:
    retry, wrong = built.settings.retry, []
    end = int((START + retry.give_up) * 1000)
    if len(decisions) != count:
        wrong.append(f"{len(decisions)} messages were tried")
    for number, rows in decisions.items():
        previous = None
        for turn, (now, settled) in enumerate(rows):
            if previous is not None and now - previous > 5000:
                wrong.append(f"recipient {number}: attempt {turn} came {now - previous} ms late")
            previous = settled.next_attempt_at
            if settled.state != "queued":
                continue
            step = retry.schedule[min(turn, len(retry.schedule) - 1)]
            wait = (settled.next_attempt_at - now) / 1000
            if not (step * 0.8 - 1 <= wait <= step * 1.2 + 1 or abs(settled.next_attempt_at - end) < 5000):
                wrong.append(f"recipient {number}: wait {turn} is {wait} s")
    told: dict[str, list[tuple[str, float]]] = collections.defaultdict(list)
    for _, _, wire in alive.messages:
        message = email.message_from_bytes(undotted(wire), policy=email.policy.default)
        machine = list(message.iter_parts())[1].get_payload()  # type: ignore[attr-defined]
        at = message["Date"].datetime.timestamp() - START
        told[machine[1]["Final-Recipient"]].append((machine[1]["Action"], at))
    due = [("delayed", seconds) for seconds in retry.delay_notices if seconds < down]
    due += [("failed", retry.give_up)] if down >= retry.give_up else []
    for name, found in told.items():
        if [action for action, _ in found] != [action for action, _ in due]:
            wrong.append(f"{name}: told {found}")
        for (action, at), (_, wanted) in zip(found, due, strict=False):
            if not 0 <= at - wanted <= 90:
                wrong.append(f"{name}: {action} told at {at} s, not {wanted}")
    if due and len(told) != count:
        wrong.append(f"{len(told)} senders were told, not {count}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=10_000, help="messages for six hours; a tenth for five days")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found = []
    for count, down in ((arguments.queued, 6 * HOUR), (max(1, arguments.queued // 10), 5 * DAY + HOUR)):
        with tempfile.TemporaryDirectory() as folder:
            found.append(jumping(scenario(Path(folder), count, down, arguments.seed)))
        print(json.dumps({"measurement": "retry_clock", "seed": arguments.seed, **found[-1]}), flush=True)
    sys.exit(1 if any(one["wrong"] for one in found) else 0)


if __name__ == "__main__":
    main()
