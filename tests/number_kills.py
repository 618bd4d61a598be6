"""Processes that take numbers and are killed at any moment: what must hold afterwards. For a test and a measurement."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gateway import numbers, registrar
from gateway.database import Database
from tests.harness import ROOT


@dataclass
class Outcome:
    """taken: (series, number or entry, request) as told by the processes; wrong: what must not be."""

    kills: int = 0
    taken: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)


class _Worker:
    def __init__(self, url: str, name: str, seed: int, heard: list[str], news: threading.Condition) -> None:
        command = [sys.executable, "-m", "tests.number_worker", url, name, str(seed)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._heard, self._news = heard, news
        self.lines = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._heard.append(line)
                self.lines += 1
                self._news.notify_all()

    def kill(self) -> str:
        """Its complaint, if it ended by itself."""
        if self.process.stderr is None or self.process.stderr.closed:
            return ""
        early = self.process.poll() is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._thread.join()
        told = self.process.stderr.read()
        self.process.stderr.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return told if early else ""


def ordeal(url: str, processes: int, kills: int, seed: int) -> Outcome:
    """Let `processes` take numbers; kill one after another, each when it has taken a few since its start, and start
    another in its place."""
    chance = random.Random(seed)
    outcome = Outcome()
    heard: list[str] = []
    news = threading.Condition()
    number = 0

    def start() -> _Worker:
        nonlocal number
        number += 1
        return _Worker(url, f"p{number}", chance.randrange(1 << 30), heard, news)

    workers = [start() for _ in range(processes)]
    try:
        while outcome.kills < kills:
            at = chance.randrange(processes)
            wanted = chance.randint(0, 6)
            with news:
                alive = news.wait_for(lambda: workers[at].lines >= wanted or not _runs(workers[at]), timeout=600)  # noqa: B023
            if not alive:
                outcome.wrong.append("a process took no number for two minutes")
                break
            if told := workers[at].kill():
                outcome.wrong.append(f"ended by itself: {told.strip().splitlines()[-1]}")
                break
            outcome.kills += 1
            workers[at] = start()
    finally:
        for worker in workers:
            if told := worker.kill():
                outcome.wrong.append(f"ended by itself: {told.strip().splitlines()[-1]}")
    outcome.taken = [tuple(line.split()[1:]) for line in heard if line.endswith("\n")]  # type: ignore[misc]
    asyncio.run(_judge(url, outcome))
    return outcome


def _runs(worker: _Worker) -> bool:
    return worker.process.poll() is None


async def _judge(url: str, outcome: Outcome) -> None:
    """No gap, nothing twice, and everything that was told is there."""
    database = Database.open(url)
    try:
        rows: list[Any] = await database.read(lambda c: numbers.numbers(c))
        state = {(row.series, row.number): row for row in rows}
        outcome.states = Counter(row.state for row in rows)
        for series in {row.series for row in rows}:
            given = [row.number for row in rows if row.series == series]
            highest = max((row.number for row in rows if row.series == series and row.state != "reserved"), default=0)
            for gap in numbers.gaps(given):
                if gap.first <= highest:
                    outcome.wrong.append(f"{series}: {gap.first}-{gap.last} missing")
        by_request: dict[str, str] = {}
        for series, number, request in outcome.taken:
            if series == "in":
                if not any(row.entry == number for row in rows):
                    outcome.wrong.append(f"paper entry {number} without a number")
                continue
            row = state.get((series, int(number)))
            if row is None or row.state == "reserved":
                outcome.wrong.append(f"{series} {number} was given and is not there")
            if by_request.setdefault(request, number) != number:
                outcome.wrong.append(f"{request} got {by_request[request]} and {number}")
        owners = Counter(number for series, number, _ in set(outcome.taken) if series != "in")
        outcome.wrong += [f"{number} was given to {times}" for number, times in owners.items() if times > 1]
        states = await database.read(registrar.state_of_series)
        outcome.wrong += [f"{one['series']}: gaps {one['gaps']}" for one in states if _inner(one, rows)]
    finally:
        database.close()


def _inner(one: dict[str, Any], rows: list[Any]) -> bool:
    """Gaps below a number that was given; below a reserved range they are numbers still to come."""
    highest = max((r.number for r in rows if r.series == one["series"] and r.state != "reserved"), default=0)
    return any(first <= highest for first, _ in one["gaps"])
