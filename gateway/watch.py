"""Trouble of the gateway itself, told to the administrator once, and once that it is over.

Every few seconds `look` asks for each kind of trouble whether it is there. It must be there for a while before it is
told (`PATIENCE`), and gone for a while before it is over (`CALM`); what comes and goes is told again after `AGAIN` at
the earliest. What is told lies in `alert`, so a restart neither repeats nor forgets it. Trouble with the database
itself is told past it, and remembered in a file of the data folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from gateway import database as db
from gateway import durable
from gateway.alerts import Alerts
from gateway.archive import Archive
from gateway.config import Gateway
from gateway.errors import Failure
from gateway.inspection import malware
from gateway.inspection.trust import TrustStore

#: Seconds between looks.
EVERY = 10.0
#: Seconds for which trouble must be gone before it is over.
CALM = 60.0
#: Seconds between two beginnings of the same trouble.
AGAIN = 1800.0
#: Seconds for which trouble must be there before it is told; what is not named here at once.
PATIENCE = {"database": 20.0, "next-hop": 300.0, "clamd": 60.0, "mailbox": 900.0, "channel": 60.0}
#: The clock of the host is followed when it is moved gently; by more than this at once, in seconds, it has jumped.
JUMP = 5.0
#: A checkpoint is signed each second (reliability.md 2.4); leaves without one for this long, in seconds, are late.
LATE = 60.0
#: Seconds between looks at what changes slowly: revocation lists.
SLOW = 600.0
#: Attempts after which a channel of alerts counts as out of order.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Trouble:
    """text: for an SMS, words of ours and of the configuration; detail: more, for a letter."""

    text: str
    detail: str = ""


class Watch:
    """Looks, and keeps what was told. One per process."""

    def __init__(
        self,
        settings: Gateway,
        config_path: Path,
        archive: Archive,
        alerts: Alerts,
        *,
        hops_down: Callable[[], dict[str, str]] = dict,
        log: Any = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._settings = settings
        self._trust = config_path / "trust"
        self._archive = archive
        self._database = archive.database
        self._alerts = alerts
        self._hops_down = hops_down
        self._log = log
        self._clock = clock
        self._steady = steady or functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)  # also while asleep
        self._ahead = clock() - self._steady()
        self._first: dict[str, float] = {}  # name of trouble → steady time at which it was first seen
        self._gone: dict[str, float] = {}  # told, and since when it is not seen any more
        self._told: dict[str, str] = {}  # name → key of its alert
        self._direct: dict[str, float] = self._load_direct()  # told past the database: name → time of day
        self._notes: dict[str, Trouble] = {}
        self._lists: dict[str, Trouble] = {}
        self._lists_at = -SLOW
        self._known = False

    def note(self, name: str, trouble: Trouble | None) -> None:
        """Trouble that somebody else has found, or, with None, that it is over."""
        if trouble is None:
            self._notes.pop(name, None)
        else:
            self._notes[name] = trouble

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`."""
        while not stop.is_set():
            try:
                await self.turn()
            except Exception:  # a watch that dies takes the gateway with it: better blind for ten seconds
                if self._log is not None:
                    self._log.exception("the watch failed in an unforeseen way")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await stop.wait()

    async def turn(self) -> None:
        """One look, and what follows from it."""
        jump = self._clock() - self._steady() - self._ahead
        self._ahead += jump
        found = await self.look()
        if "database" not in found:
            try:
                await self._settle(found, jump)
                return
            except Failure as failure:
                found = {"database": Trouble("khong ghi duoc co so du lieu", failure.private)}
        await self._past_the_database(found["database"])

    async def _settle(self, found: dict[str, Trouble], jump: float) -> None:
        now = self._steady()
        if abs(jump) > JUMP:
            await self._alerts.moved(int(jump * 1000))
            text = f"dong ho may chu nhay {jump:+.0f} giay"
            await self._alerts.begin(self._key("clock"), "clock", text, over=True)
        if not self._known:
            self._told = await self._database.read(lambda connection: _open(connection, self._prefix))
            self._known = True
        for name, at in list(self._direct.items()):  # the database is there again
            key = f"{self._prefix}{name}|{int(at * 1000)}"
            await self._alerts.begin(key, name, "khong ghi duoc co so du lieu hoac kho luu tru", told=True)
            await self._alerts.end(key)
            del self._direct[name]
            self._save_direct()
        for name in [one for one in self._first if one not in found]:
            del self._first[name]
        for name, trouble in found.items():
            since = self._first.setdefault(name, now)
            self._gone.pop(name, None)
            if name not in self._told and now - since >= PATIENCE.get(name.partition("|")[0], 0):
                last = await self._database.read(functools.partial(_last, prefix=f"{self._prefix}{name}|"))
                if self._clock() - last >= AGAIN:
                    self._told[name] = self._key(name)
                    await self._alerts.begin(self._told[name], name, trouble.text, trouble.detail)
                    self._say("error", "trouble", name=name, detail=trouble.detail)
        for name in [one for one in self._told if one not in found]:
            if now - self._gone.setdefault(name, now) >= CALM:
                await self._alerts.end(self._told[name])
                del self._told[name], self._gone[name]
                self._say("info", "trouble is over", name=name)

    async def _past_the_database(self, trouble: Trouble) -> None:
        name, now = "database", self._steady()
        since = self._first.setdefault(name, now)
        if name in self._direct or now - since < PATIENCE[name]:
            return
        self._say("error", "trouble", name=name, detail=trouble.detail)
        key = self._key(name)
        if await self._alerts.directly(trouble.text, trouble.detail, key.replace("|", "-")):
            self._direct[name] = self._clock()
            self._save_direct()

    # ---------------------------------------------------------------------------------------------------------- looks

    async def look(self) -> dict[str, Trouble]:
        """All trouble there is now, by name. Never raises for trouble of its own kind."""
        found = dict(self._notes)
        data, limits = self._settings.data, self._settings.limits
        free = shutil.disk_usage(data).free
        # At once the free space mail needs it is refused with 452; the administrator hears of it before that.
        if free < 2 * max(limits.free_disk, 2 * limits.message_size):
            words = f"o dia sap day, con {free >> 20} MB"
            found["disk"] = Trouble(words, f"{data}: {free >> 20} MB free; below half of this mail is answered 452")
        if self._archive.broken:
            found["database"] = Trouble("khong ghi duoc kho luu tru, thu khong duoc nhan", self._archive.broken)
            return found
        try:
            # The lock of the writer, and nothing written: what a commit of a message would have to wait for, too.
            await self._database.write(lambda connection: connection.exec_driver_sql("SELECT 1") and None)
            rows = await self._database.read(lambda connection: _rows(connection, int(self._clock() * 1000)))
        except Failure as failure:
            found["database"] = Trouble("khong ghi duoc co so du lieu, thu khong duoc nhan", failure.private)
            return found
        unsigned, mailboxes, channels = rows
        if unsigned:
            words = f"kho luu tru chua duoc ky tu {unsigned // 60} phut"
            found["checkpoint"] = Trouble(words, f"leaves without a checkpoint for {unsigned} s; see the log")
        for account, error in mailboxes:
            found[f"mailbox|{account}"] = Trouble(f"khong doc duoc hop thu {account}", error)
        for channel, error in channels:
            found[f"channel|{channel}"] = Trouble(f"kenh canh bao {channel} khong gui duoc", error)
        for hop, reply in self._hops_down().items():
            found[f"next-hop|{hop}"] = Trouble(f"khong giao duoc thu toi {hop}", f"{hop}: {reply}")
        if self._settings.clamd is not None:
            reason = await asyncio.to_thread(malware.ping, self._settings.clamd)
            if reason:
                found["clamd"] = Trouble("clamd khong tra loi, ma doc khong duoc kiem tra", reason)
        if self._steady() - self._lists_at >= SLOW:
            self._lists_at = self._steady()
            self._lists = await asyncio.to_thread(_stale, self._trust)
        return found | self._lists

    # -------------------------------------------------------------------------------------------------------- small

    @property
    def _prefix(self) -> str:
        return f"trouble|{self._settings.hostname}|"

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}|{int(self._clock() * 1000)}"

    @property
    def _file(self) -> Path:
        return self._settings.data / "trouble.json"

    def _load_direct(self) -> dict[str, float]:
        try:
            return {str(name): float(at) for name, at in json.loads(self._file.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _save_direct(self) -> None:
        with contextlib.suppress(OSError):  # the disk may be the trouble
            durable.replace(self._file, json.dumps(self._direct).encode())

    def _say(self, level: str, event: str, **about: Any) -> None:
        if self._log is not None:
            getattr(self._log, level)(event, **about)


def _open(connection: Connection, prefix: str) -> dict[str, str]:
    """Trouble that was told and is not over: name → key."""
    a = db.alert.c
    rows = connection.execute(select(a.key).where(a.kind == "trouble", a.ended_at.is_(None))).scalars()
    return {key[len(prefix) :].rpartition("|")[0]: key for key in rows if key.startswith(prefix)}


def _last(connection: Connection, prefix: str) -> float:
    """When this trouble last began, seconds since the epoch; 0: never."""
    a = db.alert.c
    found = connection.execute(select(func.max(a.at)).where(a.key >= prefix, a.key < prefix[:-1] + "}")).scalar()
    return (found or 0) / 1000


def _rows(connection: Connection, now: int) -> tuple[int, list[tuple[str, str]], list[tuple[str, str]]]:
    """For how many seconds leaves wait for a checkpoint, 0 when they do not wait long; mailboxes that cannot be read;
    channels of alerts that do not work."""
    leaf, point, folder, send = db.leaf.c, db.checkpoint.c, db.imap_folder.c, db.alert_send.c
    signed = connection.execute(select(func.max(point.size))).scalar() or 0
    oldest = connection.execute(select(leaf.at).where(leaf.idx >= signed).order_by(leaf.idx).limit(1)).scalar()
    waits = (now - oldest) // 1000 if oldest is not None else 0
    accounts: dict[str, str] = {}
    failing = select(folder.account, folder.error).where(folder.closed_at.is_(None), folder.error != "")
    for account, error in connection.execute(failing.order_by(folder.id)):
        accounts.setdefault(account, error)
    tried = and_(send.state == "waiting", send.attempts >= _TRIES)
    gave_up = and_(send.state == "failed", send.settled_at > now - 3_600_000)
    trouble = select(send.channel, func.max(send.result)).where(or_(tried, gave_up))
    channels = [(row[0], row[1]) for row in connection.execute(trouble.group_by(send.channel))]
    return (waits if waits > LATE else 0), sorted(accounts.items()), channels


def _stale(trust: Path) -> dict[str, Trouble]:
    """Revocation lists that are past their time: signatures they should answer for cannot be confirmed."""
    if not trust.is_dir():
        return {}
    now, found = dt.datetime.now(dt.UTC), {}
    for name, one in TrustStore.load(trust).crls.items():
        until = one.next_update_utc
        if until is not None and until < now:
            words = f"danh sach thu hoi chung thu {name} qua han tu {until:%d/%m/%Y}"
            found[f"crl|{name}"] = Trouble(words, f"trust/crl/{name}: nextUpdate {until.isoformat()}")
    return found
