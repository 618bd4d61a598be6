"""A queue with its database, store and archive in a folder, and fake next hops in front of it: for tests and bench."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.archive import Archive
from gateway.config import Gateway
from gateway.database import Database, sqlite_url
from gateway.delivery import Timeouts
from gateway.queue import Queue
from gateway.store import Store
from tests import cases
from tests.hop import PATIENT, Hop


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **about: self.lines.append((level, event, about))

    def events(self, level: str = "") -> list[str]:
        return [event for found, event, _ in self.lines if found == level or not level]


class House:
    """Database, store, archive and a queue in a folder; can be torn down and built again over the same files."""

    def __init__(self, folder: Path, hops: dict[str, Hop], **more: Any) -> None:
        self.folder = folder
        self.hops = hops
        self.timeouts: Timeouts | None = more.pop("timeouts", PATIENT)
        self.url: str = more.pop("url", "")
        self.more = more
        self.log = Log()
        self.now = 1_790_000_000.0
        self.task: asyncio.Task[None] | None = None
        self._open()

    def _open(self) -> None:
        hops = [
            {"name": name, "host": "127.0.0.1", "port": hop.port, "tls": "none", "domains": self.domains(name)}
            for name, hop in self.hops.items()
        ]
        values = {
            "hostname": "cong.tinh.gov.vn",
            "data": str(self.folder),
            "listeners": [{"kind": "relay", "port": 0}],
            "next_hops": hops,
            **self.more,
        }
        self.settings = Gateway.model_validate(values)
        self.database = Database.open(self.url or sqlite_url(self.folder / "gateway.db"))
        self.store = Store(self.folder / "blobs")
        self.archive = Archive(self.database, self.store, self.settings)
        self.queue = Queue(
            self.database,
            self.store,
            self.settings,
            lambda: self.now,
            self.log,
            timeouts=self.timeouts,
            chance=lambda: 0.5,
        )

    @staticmethod
    def domains(name: str) -> list[str]:
        return ["*"] if name == "hop" else [f"{name}.vn"]

    def start(self) -> None:
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.queue.run(self.stop, drain=240.0))

    async def end(self) -> None:
        if self.task is not None:
            self.stop.set()
            await self.task
            self.task = None

    async def restart(self) -> None:
        await self.close()
        self._open()
        self.start()

    async def close(self) -> None:
        await self.end()
        await self.archive.close()
        self.database.close()

    async def commit(self, *, hop: str = "hop", answerable: bool = True, **more: Any) -> str:
        notify, orcpt = more.pop("notify", ""), more.pop("orcpt", "")
        case = cases.case(**more)
        owed = tuple(dataclasses.replace(one, destination=hop, notify=notify, orcpt=orcpt) for one in case.owed)
        case = dataclasses.replace(case, owed=owed, answerable=answerable)
        receipt = await self.archive.commit(case)
        await self.sql(
            "update recipient set next_attempt_at = ? where message = ? and next_attempt_at is not null",
            (int(self.now * 1000), receipt.case),
        )
        self.queue.wake()
        return receipt.case

    async def sql(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        def ask(connection: Any) -> list[tuple[Any, ...]]:
            native = statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")
            result = connection.exec_driver_sql(native, values)
            return [tuple(row) for row in result.all()] if result.returns_rows else []

        write = statement.startswith("update") or statement.startswith("insert")
        return await (self.database.write if write else self.database.read)(ask)

    async def until(self, statement: str, expected: Any, seconds: float = 240) -> None:
        """Ask again until the first column of the answer is as expected."""
        found: Any = None
        try:
            async with asyncio.timeout(seconds):
                while (found := [row[0] for row in await self.sql(statement)]) != expected:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{statement}: {found}, not {expected}\n{self.log.lines}") from None

    async def states(self, expected: list[str], seconds: float = 240) -> None:
        await self.until("select r.state from recipient r join message m on m.id = r.message"
                         " where m.kind = 'mail' order by r.id", expected, seconds)  # fmt: skip


@asynccontextmanager
async def house(tmp_path: Path, *scripts: str, **more: Any) -> AsyncIterator[House]:
    hops = {name: Hop(script) for name, script in zip(("hop", "xa", "ben"), scripts or ("",), strict=False)}
    for hop in hops.values():
        await hop.__aenter__()
    built = House(tmp_path, hops, **more)
    try:
        yield built
    finally:
        await built.close()
        for hop in hops.values():
            await hop.close()
