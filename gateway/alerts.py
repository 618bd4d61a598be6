"""Alerts: who must be told at once, and how it gets to them.

What is owed is decided by `of_message`, `of_secret` (pure) and `watch.py`, and lies in rows from the same commit as the
message on. `Alerts` is the worker that settles these rows: it writes down that it is about to tell somebody, tells them
over one channel, and writes down what came of it. A process that dies in between leaves the first note without the
second; the next one tells again and calls that a possible duplicate. Nothing is forgotten, and nothing is told a third
time for the same reason.

A text for a telephone is made of words of ours and of the directory, never of a message: one SMS, 160 characters of the
GSM 7-bit alphabet (3GPP TS 23.038), without accents. The number of the document is let through letter by letter. Of a
secret and of malware nothing is said but the case.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import importlib
import json
import os
import random
import re
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sqlalchemy import Connection, and_, func, or_, select, update

from gateway import archive as keeping
from gateway import config, delivery, durable, returns
from gateway import database as db
from gateway.archive import Alert, Archive, Count, Notice, Reach, clean, from_ms, stamp
from gateway.config import AlertChannel, Gateway, international
from gateway.errors import Failure
from gateway.log import MailLog
from gateway.message import VIETNAM, Received
from gateway.policy import Disposition
from gateway.search import document_key

if TYPE_CHECKING:
    from gateway.directory import Agency, Contact, Directory
    from gateway.inspection.findings import MessageFacts

#: Characters of one SMS in the GSM 7-bit alphabet (3GPP TS 23.040, 9.2.3.16).
SMS = 160
#: Between the names of the agencies that sent and received, in the detail of an urgent document.
_TO = " → "
#: Levels that no hour and no number delays.
PRESSING = ("hoa_toc", "hoa_toc_hen_gio")
LEVELS = {
    "hoa_toc_hen_gio": ("HỎA TỐC HẸN GIỜ", "URGENT, AT A SET TIME"),
    "hoa_toc": ("HỎA TỐC", "MOST URGENT"),
    "thuong_khan": ("THƯỢNG KHẨN", "VERY URGENT"),
    "khan": ("KHẨN", "URGENT"),
}
#: Attempts under way on one channel: a province at once, without drowning a small gateway of text messages.
_ABREAST = 8
#: More alerts than this that wait for one person on one channel, none of them pressing, are told in one message.
_TOGETHER = 3
#: Seconds between looks for what a command or another gateway has written, and that wait for a clock.
_LOOK = 2.0
#: Seconds that a claim outlives its channel's timeout, for the commit that follows.
_MARGIN = 30.0
#: Bytes of a service's answer that are looked at.
_ANSWER = 4096


# ------------------------------------------------------------------------------------------------------- what is owed


def of_message(settings: config.Alerts | None, directory: Directory, case: keeping.Case) -> tuple[Alert, ...]:
    """The alerts of a message that is committed: to the leaders of each agency that it reaches, when it is urgent and
    its sender a proved official one (rule TM-04); to the security officer, when it is malware. Pure."""
    if settings is None:
        return ()
    verdict = case.verdict
    if verdict.disposition == Disposition.REJECT_MALWARE:
        return _of_malware(settings, case)
    level = verdict.urgency
    if settings.urgent is None or level not in settings.urgent.levels:
        return ()
    if not any(one.rule == "TM-04" for one in verdict.annotations):
        return ()  # not a proved official sender, or the rule is off
    if level not in PRESSING and not _marked(case, level):
        return ()
    author = _author(directory, case)
    reached: dict[str, set[str]] = {}
    for one in case.owed:
        if one.agency:
            reached.setdefault(one.agency, set()).add(one.state)
    found = []
    for identifier, states in reached.items():
        agency = directory.agency(identifier, case.received.at)
        arrived = bool(states & {"queued", "seen"})
        own = author is not None and agency is not None and author.id == agency.id
        if agency is not None and not own and (arrived or "held" in states):
            found.append(_urgent(settings, settings.urgent, case, agency, author, level, arrived))
    return tuple(found)


def of_secret(settings: config.Alerts | None, received: Received) -> tuple[Alert, ...]:
    """To the security officer, beside the letter that `pipeline` owes: that there was one, and its case."""
    if settings is None or settings.security is None:
        return ()
    text = f"CANH BAO: mot thong diep bi chan vi dau hieu bi mat nha nuoc luc {_clock(received.at)}. Ma {received.case}"
    reaches = tuple(one for one in _person(settings, settings.security, "security") if not _is_mail(settings, one))
    return (Alert(f"secret|{received.case}", "secret", "", text, reaches, settings.give_up, case=received.case),)


def problems(settings: config.Alerts) -> list[str]:
    """What a look at the files of the channels shows: programs and keys that cannot be used."""
    found = []
    for one in settings.channels:
        where = f"alerts: channel {one.name}"
        if one.argv and not os.access(one.argv[0], os.X_OK):
            what = "is not a program that may be run" if Path(one.argv[0]).exists() else "is not there"
            found.append(f"{where}: argv: {one.argv[0]} {what}")
        if one.ca is not None and not one.ca.is_file():
            found.append(f"{where}: ca: {one.ca} is not there")
        if one.secret_file is not None:
            try:
                read_secret(one)
            except Failure as failure:
                found.append(f"alerts: {failure.private}: {one.secret_file}")
    return found


def unreachable(settings: config.Alerts, directory: Directory, at: dt.date) -> list[str]:
    """Agencies with mailboxes whose leaders, delegate and clerk have neither a number nor an address that a channel
    could use: an urgent document for them is told to the administrator, or to nobody."""
    if settings.urgent is None:
        return []
    found = []
    for agency in directory.agencies(at):
        roles = {one.role for one in _leaders(settings, settings.urgent, agency, True)}
        if not roles - {"admin"} and (agency.domains or any(directory.mailboxes(agency.id))):
            found.append(agency.id)
    return found


def officer_mail(settings: config.Alerts | None) -> str:
    """Where the letter about a secret goes, besides the officer of `contacts`; empty: nowhere."""
    if settings is None or settings.security is None:
        return ""
    return next((one.email for one in _person(settings, settings.security, "security") if _is_mail(settings, one)), "")


def _of_malware(settings: config.Alerts, case: keeping.Case) -> tuple[Alert, ...]:
    """Once a day for one sender: who sends one usually sends many."""
    if settings.security is None:
        return ()
    received = case.received
    text = f"CANH BAO: thu co ma doc bi tu choi luc {_clock(received.at)}. Ma {received.case}"
    day = received.at.astimezone(VIETNAM).date()
    key = f"malware|{received.envelope.sender.key or received.origin.peer}|{day}"
    reaches = _person(settings, settings.security, "security")
    return (Alert(key, "malware", "", text, reaches, settings.give_up, case=received.case),)


def _urgent(
    settings: config.Alerts,
    urgent: config.UrgentAlerts,
    case: keeping.Case,
    agency: Agency,
    author: Agency | None,
    level: str,
    arrived: bool,
) -> Alert:
    received, document = case.received, case.verdict.document
    number = document.code.value if document is not None and document.code is not None else ""
    sender = _writer(case)
    who = author.name if author is not None else sender.rpartition("@")[2]
    if arrived:
        text = urgent_text(level, number, who, received.at, received.case)
    else:
        number = ""  # why it is held is not for a telephone, and it may be a secret
        text = held_text(level, agency.name, received.at, received.case)
    return Alert(
        key="|".join(
            ("urgent", agency.id, *_same(case, author, sender), str(level in PRESSING), "" if arrived else "held")
        ),
        kind="urgent",
        subject=level,
        text=text,
        reaches=_leaders(settings, urgent, agency, level in PRESSING),
        give_up=settings.give_up,
        agency=agency.id,
        case=received.case,
        document=_plain(number, 60),
        detail=f"{who}{_TO}{agency.name}" if arrived else "",
    )


def _same(case: keeping.Case, author: Agency | None, sender: str) -> tuple[str, ...]:
    """What makes two messages the same document: its number within the year and agency that gave it (Decree 30/2020,
    15.1), else its files, else the message."""
    document = case.verdict.document
    issuer = author.id if author is not None else sender.rpartition("@")[2]
    if document is not None and document.code is not None and (key := document_key(document.code.value)):
        year = document.date.value[:4] if document.date is not None else ""
        return issuer, key, year or str(case.received.at.astimezone(VIETNAM).year)
    files = sorted(one.sha256 for one in case.inspection.files if one.depth == 0)
    return issuer, ",".join(files) or case.inspection.message.message_id or case.received.body.sha256


def _writer(case: keeping.Case) -> str:
    """The address that the message speaks for: From when there is one alone, else the envelope's sender."""
    names = case.inspection.message.from_
    return (names[0].address if len(names) == 1 and names[0].address else case.received.envelope.sender.key).lower()


def _author(directory: Directory, case: keeping.Case) -> Agency | None:
    return directory.agency_of(_writer(case), case.received.at)


def _marked(case: keeping.Case, level: str) -> bool:
    """Is the level there as a mark, and not only in a title (`CÔNG ĐIỆN KHẨN`, rules.md 3.2)?"""
    found = case.inspection.findings
    return any(one.kind == "urgency" and one.value == level and one.grade == "strong" for one in found)


def _leaders(settings: config.Alerts, urgent: config.UrgentAlerts, agency: Agency, pressing: bool) -> tuple[Reach, ...]:
    """Leaders at once, the delegate when nobody has acknowledged; where there is no leader the delegate, the clerk, the
    administrator, in this order, at once."""
    found = [
        one for leader in agency.leaders for one in _reaches(settings, urgent.channels, "leader", leader, pressing)
    ]
    wait = urgent.escalate if found else 0
    if agency.delegate is not None:
        found += _reaches(settings, urgent.channels, "delegate", agency.delegate, pressing, wait)
    if not found and agency.clerk is not None:
        found += _reaches(settings, urgent.channels, "clerk", agency.clerk, pressing)
    if not found and settings.admin is not None:
        found += _person(settings, settings.admin, "admin", pressing)
    return tuple(dict.fromkeys(found))


def _reaches(
    settings: config.Alerts,
    channels: Iterable[str],
    role: str,
    person: Contact | config.PersonAlerts,
    pressing: bool = False,
    delay: float = 0,
) -> list[Reach]:
    return [one for name in channels if (one := _reach(settings, name, role, person, pressing, delay)) is not None]


def _reach(
    settings: config.Alerts,
    name: str,
    role: str,
    person: Contact | config.PersonAlerts,
    pressing: bool,
    delay: float,
) -> Reach | None:
    """One channel to one person; None when it needs a number or an address that they do not have."""
    channel = settings.channel(name)
    kind = channel.kind if channel is not None else ""
    phone, email = "" if kind == "mail" else international(person.phone), "" if kind == "sms" else person.email
    # A service or program may know by itself whom to call as administrator or officer.
    known = role in ("admin", "security") and kind in ("http", "command")
    return Reach(name, role, phone, email, delay, pressing) if phone or email or known else None


def _person(
    settings: config.Alerts, person: config.PersonAlerts, role: str, pressing: bool = False
) -> tuple[Reach, ...]:
    return tuple(_reaches(settings, person.channels, role, person, pressing))


def _is_mail(settings: config.Alerts, reach: Reach) -> bool:
    channel = settings.channel(reach.channel)
    return channel is not None and channel.kind == "mail"


# ---------------------------------------------------------------------------------------------------------- the text

_UNFIT = re.compile(r"[^A-Za-z0-9 .:/,()&-]+")
_NO_NUMBER = re.compile(r"[^A-Za-z0-9/-]+")


def _plain(text: str, room: int) -> str:
    """Letters, digits and a few signs, without accents, one line, at most `room` characters, cut at a word. Every one
    of them is one unit of the GSM 7-bit alphabet."""
    words = " ".join(_UNFIT.sub(" ", returns.ascii_only(text)).split())
    words = re.sub(r"/{2,}", "/", words)
    if len(words) <= room:
        return words
    cut = words[: max(0, room)]
    return (cut.rpartition(" ")[0] or cut).rstrip(" .,/&(-")


_HELD, _RELEASED = "dang tam giu, de nghi Van thu xem xet", "da chuyen den hop thu cong vu"


def _clock(at: dt.datetime) -> str:
    return f"{at.astimezone(VIETNAM):%H:%M %d/%m}"


def urgent_text(level: str, number: str, issuer: str, at: dt.datetime, case: str) -> str:
    """The SMS of rules.md 4.2. What does not fit is taken from the name of the agency, then from the number."""
    lead = f"VB {returns.ascii_only(LEVELS[level][0])}"
    tail = f"den luc {_clock(at)}. De nghi xem hop thu cong vu. Ma {case}"
    room = SMS - len(lead) - len(tail) - len(" so  cua  ")
    code = _NO_NUMBER.sub("", returns.ascii_only(number))[: min(40, room)]  # no dot: a telephone would see an address
    name = _plain(issuer, room - len(code))
    return " ".join(part for part in (lead, code and f"so {code}", name and f"cua {name}", tail) if part)


def held_text(level: str, receiver: str, at: dt.datetime, case: str) -> str:
    lead = f"VB {returns.ascii_only(LEVELS[level][0])} gui"
    tail = f"luc {_clock(at)} {_HELD}. Ma {case}"
    return f"{lead} {_plain(receiver, SMS - len(lead) - len(tail) - 2)} {tail}"


def released(connection: Connection, case: str, now: int, give_up: float = 86400) -> None:
    """A held document goes to its recipients: whoever was told that it is held is told that too. Inside the caller's
    transaction. now: milliseconds; give_up: seconds."""
    a, send = db.alert.c, db.alert_send.c
    held = select(db.alert).where(a.case_id == case, a.kind == "urgent", a.key.like("%|held"))
    for row in connection.execute(held).all():
        told = connection.execute(select(db.alert_send).where(send.alert == row.id).order_by(send.id)).all()
        reaches = tuple(
            Reach(
                one.channel, one.role, one.phone, one.email, max(0, (one.next_at - row.at) / 1000), bool(one.pressing)
            )
            if one.state == "waiting" and one.attempts == 0  # the delegate, whose turn has not come
            else Reach(one.channel, one.role, one.phone, one.email, 0, bool(one.pressing))
            for one in told
            if one.state != "cancelled"
        )
        text = row.text.replace(_HELD, _RELEASED)
        fresh = Alert(row.key.removesuffix("|held"), row.kind, row.subject, text, reaches, give_up, row.agency, case)
        keeping.append_alert(connection, fresh, now)
        waiting = (send.alert == row.id, send.state == "waiting", send.owner == "")
        connection.execute(update(db.alert_send).where(*waiting).values(state="cancelled", settled_at=now))


def trouble_text(hostname: str, words: str) -> str:
    """An SMS for the administrator."""
    return _plain(f"CANH BAO {hostname}: {words}", SMS)


# --------------------------------------------------------------------------------------------------------- the worker


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one attempt. text: for the log, without the key of the service and without its answer; letter: the
    case id of the message of ours that the queue now delivers."""

    ok: bool
    text: str
    letter: str = ""


@dataclass(frozen=True, slots=True)
class _Job:
    """Rows of `alert_send`, joined with their alerts, that go to one person over one channel in one message."""

    rows: tuple[Any, ...]
    channel: AlertChannel | None

    @property
    def first(self) -> Any:
        return self.rows[0]


_COLUMNS: tuple[Any, ...] = (
    db.alert_send,
    *(db.alert.c[name].label(f"alert_{name}") for name in ("kind", "subject", "agency", "case_id", "document", "text")),
    *(db.alert.c[name].label(f"alert_{name}") for name in ("detail", "at", "ended_at", "acked_at")),
)


class Alerts:
    """Settles what is owed. One per process; without `run` it answers the command line."""

    def __init__(
        self,
        settings: Gateway,
        archive: Archive | None,
        *,
        log: Any = None,
        mail_log: MailLog | None = None,
        wake_queue: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._alerts = settings.alerts
        if archive is not None:  # without one only `over` and `post` work: a test of the channels
            self._archive = archive
            self._database = archive.database
        self._log = log
        self._mail_log = mail_log
        self._wake_queue = wake_queue
        self._clock = clock
        self._wake = asyncio.Event()
        self._busy: Counter[str] = Counter()  # channel → attempts under way
        self._flying: set[int] = set()  # rows that they settle
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls: dict[str, ssl.SSLContext | bool] = {}
        self._owner = ""  # who we are in the rows, from the start of the loop on

    def wake(self) -> None:
        """There may be something new: look now."""
        self._wake.set()

    async def run(self, stop: asyncio.Event, drain: float = 12.0) -> None:
        """Tell what is owed until `stop`; then let attempts under way finish, for `drain` seconds at most."""
        if self._alerts is None:
            await stop.wait()
            return
        if any(one.kind in ("http", "sms") for one in self._alerts.channels):
            await asyncio.to_thread(importlib.import_module, "aiohttp")  # a third of a second: not in the loop
        stopping = asyncio.create_task(stop.wait())
        recovered = False
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    if not recovered:
                        await self._recover()
                        recovered = True
                    await self._turn()
                except Failure as failure:
                    self._say("error", "alerts cannot reach the database", reason=failure.private)
                waking = asyncio.create_task(self._wake.wait())
                await asyncio.wait({stopping, waking}, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
        finally:
            stopping.cancel()
            if self._tasks:
                _, late = await asyncio.wait(self._tasks, timeout=drain)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    async def _recover(self) -> None:
        """Attempts that a process of this gateway began and did not end: made again, and told as what they may be."""
        send = db.alert_send.c
        try:
            name = await asyncio.to_thread(durable.identity, self.settings.data)
        except OSError as error:
            raise Failure("Local error", f"{error.filename}: {error.strerror}") from error
        self._owner = f"{self.settings.hostname} {name}"

        def write(connection: Connection) -> list[Any]:
            mine = (send.state == "waiting", send.owner == self._owner)
            rows = connection.execute(select(send.id, send.alert, send.channel, send.role).where(*mine)).all()
            values = {"owner": "", "lease_at": 0, "next_at": self._now(), "maybe_twice": send.maybe_twice + 1}
            connection.execute(update(db.alert_send).where(*mine).values(**values))
            return list(rows)

        for row in await self._database.write(write):
            self._say("warning", "possible duplicate of an alert", alert=row.alert, channel=row.channel, role=row.role)

    async def _turn(self) -> None:
        """Claim what is due and may go out now, and set to work on it. Raises Failure."""
        now = self._now()
        if letters := await self._database.read(_letters):
            await self._database.write(lambda connection: _settle_letters(connection, letters, now))
        rows = await self._database.read(lambda connection: _due(connection, now))
        rows = [row for row in rows if row.id not in self._flying]  # a lease is no hold on a clock that jumps
        if not rows:
            return
        jobs = self._jobs(rows, now, await self._database.read(lambda connection: _last_hour(connection, now)))
        taken: Counter[str] = Counter(self._busy)
        chosen = []
        for job in jobs:
            if taken[job.first.channel] < _ABREAST:
                taken[job.first.channel] += 1
                chosen.append(job)
        if not chosen:
            return
        claimed = await self._database.write(lambda connection: self._claim(connection, chosen, now))
        for job in claimed:
            self._busy[job.first.channel] += 1
            self._flying |= {row.id for row in job.rows}
            task = asyncio.create_task(self._work(job), name="alert")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _jobs(self, rows: Sequence[Any], now: int, last_hour: dict[tuple[str, str, str], int]) -> list[_Job]:
        """In the order in which they go out: pressing ones first and one by one; of the others none in quiet hours, no
        more than the limit, and many of them together."""
        assert self._alerts is not None
        jobs: list[_Job] = []
        others: dict[tuple[str, str, str], list[Any]] = {}
        quiet = self._quiet(now)
        for row in rows:
            if row.pressing:
                jobs.append(_Job((row,), self._alerts.channel(row.channel)))
            elif not quiet or row.alert_kind in ("secret", "malware"):
                others.setdefault((row.channel, row.phone, row.email), []).append(row)
        for person, mine in others.items():
            room = self._alerts.per_hour - last_hour.get(person, 0)
            channel = self._alerts.channel(person[0])
            if room <= 0:
                continue
            if len(mine) > min(_TOGETHER, room):
                jobs.append(_Job(tuple(mine), channel))
            else:
                jobs += [_Job((one,), channel) for one in mine]
        return jobs

    def _quiet(self, at: int) -> bool:
        assert self._alerts is not None
        if not self._alerts.quiet:
            return False
        start, end = self._alerts.quiet.split("-")
        now = f"{from_ms(at):%H:%M}"
        return start <= now < end if start <= end else now >= start or now < end

    def _claim(self, connection: Connection, jobs: list[_Job], now: int) -> list[_Job]:
        """Write down who is at it and until when. Rows that another gateway or an acknowledgement took are left out."""
        send = db.alert_send.c
        claimed = []
        for job in jobs:
            seconds = (job.channel.timeout if job.channel else 0) + _MARGIN
            values = {"owner": self._owner, "lease_at": now + int(seconds * 1000)}
            rows = tuple(
                row
                for row in job.rows
                if connection.execute(
                    update(db.alert_send)
                    .where(send.id == row.id, send.state == "waiting", send.lease_at <= now)
                    .values(**values)
                ).rowcount
            )
            if rows:
                claimed.append(_Job(rows, job.channel))
        return claimed

    async def _work(self, job: _Job) -> None:
        first, begun = job.first, time.monotonic()
        try:
            told = await self._tell(job)
            while True:
                try:
                    await self._database.write(lambda connection: self._settle(connection, job, told))
                    break
                except Failure as failure:
                    self._say("error", "result of an alert not written yet", reason=failure.private)
                    await asyncio.sleep(_LOOK)
        except Exception:
            if self._log is not None:
                self._log.exception("an alert failed in an unforeseen way", alert=first.alert)
            return  # its claim ends by itself, and it is tried again
        finally:
            self._busy[first.channel] -= 1
            self._flying -= {row.id for row in job.rows}
            self._wake.set()
        level, event = ("info", "alert sent") if told.ok else ("warning", "alert not sent")
        ms = int((time.monotonic() - begun) * 1000)
        about = {"channel": first.channel, "role": first.role, "kind": first.alert_kind, "ms": ms, "reason": told.text}
        self._say(level, event, alert=first.alert, together=len(job.rows), **about)
        if self._mail_log is not None:
            act = "alerted" if told.ok else "not-alerted"
            about = {"kind": first.alert_kind, "channel": first.channel, "role": first.role, "reason": told.text}
            self._mail_log.write(first.alert_case_id or "-", act, **about)

    async def _tell(self, job: _Job) -> Told:
        if job.channel is None:
            return Told(False, "no such channel in gateway.yaml")
        values = self._values(job)
        if job.channel.kind == "mail":
            return await self._mail(job, values)
        return await self.over(job.channel, values)

    async def over(self, channel: AlertChannel, values: dict[str, str]) -> Told:
        """One attempt over a channel that is not mail. values: as ALERT_VALUES, without the secret, and `token`."""
        try:
            async with asyncio.timeout(channel.timeout):
                if channel.kind == "command":
                    return await _command(channel, values)
                return await self._http(channel, values)
        except TimeoutError:
            return Told(False, f"no answer in {channel.timeout:g} s")
        except Failure as failure:
            return Told(False, failure.private or failure.public)
        except OSError as error:
            return Told(False, error.strerror or type(error).__name__)

    async def _http(self, channel: AlertChannel, values: dict[str, str]) -> Told:
        import aiohttp

        known = {**values, "secret": await asyncio.to_thread(read_secret, channel)}
        url = _fill(channel.url, known, lambda text: quote(text, safe=""))
        headers = {name: _fill(text, known) for name, text in channel.headers.items()}
        headers = {"Idempotency-Key": values["token"], "User-Agent": "congvan-gateway", **headers}
        data = None
        if channel.method == "POST":
            body = {name: _fill(text, known) for name, text in channel.body.items()}
            if not body and channel.kind == "sms":
                body = {"to": values["phone"], "text": values["text"]}
            form = channel.encoding == "form"
            headers["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
            data = urlencode(body or values) if form else json.dumps(body or values, ensure_ascii=False)
        try:
            # No cookies, no proxy of the environment, and no redirect: the host is the one that gateway.yaml names.
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
                request = session.request(
                    channel.method,
                    _encoded(url),
                    data=data.encode() if data is not None else None,
                    headers=headers,
                    allow_redirects=False,
                    ssl=self._context(channel),
                )
                async with request as answer:
                    text = (await answer.content.read(_ANSWER)).decode("utf-8", "replace") if channel.success else ""
                    status = answer.status
        except aiohttp.ClientConnectorCertificateError:
            return Told(False, "the certificate of the service is not accepted")
        except aiohttp.ClientConnectorError as error:
            return Told(False, f"no connection: {error.os_error.strerror or type(error.os_error).__name__}")
        except (aiohttp.ClientError, ValueError) as error:
            return Told(False, type(error).__name__)  # its words may hold the address with a key in it
        if not 200 <= status < 300:
            return Told(False, f"answer {status}")
        if channel.success and not re.search(channel.success, text):
            return Told(False, f"answer {status}, but not with what `success` asks for")
        return Told(True, f"answer {status}")

    def _context(self, channel: AlertChannel) -> ssl.SSLContext | bool:
        if channel.name not in self._tls:
            self._tls[channel.name] = ssl.create_default_context(cafile=str(channel.ca)) if channel.ca else True
        return self._tls[channel.name]

    async def _mail(self, job: _Job, values: dict[str, str]) -> Told:
        """Into the queue as a message of ours; the key of the notice makes a second try harmless. Raises Failure."""
        first = job.first
        hop = self.settings.hop_for(first.email.rpartition("@")[2].lower())
        if hop is None:
            return Told(False, "no next hop for this address")
        data = self.letter(values, [row.alert_text for row in job.rows], first.email, from_ms(first.alert_at))
        notice = Notice("alert", data, ((first.email, hop.name),), first.alert_case_id, f"alert|{first.token}")
        try:
            await self._archive.notify([notice])
            self._wake_queue()
            digest, m = hashlib.sha256(data).hexdigest(), db.message.c
            known = select(func.max(m.id)).where(m.sha256 == digest, m.kind == "alert")
            letter = await self._database.read(lambda connection: connection.execute(known).scalar())
        except Failure as failure:
            return Told(False, failure.private or failure.public)
        return Told(True, "queued", letter or "")

    def letter(self, values: dict[str, str], texts: Sequence[str], to: str, at: dt.datetime) -> bytes:
        """The alert as a message. texts: several when they are told together."""
        level = LEVELS.get(values["level"]) if values["kind"] == "urgent" and len(texts) == 1 else None
        common = {"case": values["case"], "received_at": f"{at.astimezone(VIETNAM):%H:%M %d/%m/%Y}"}
        if level is not None and values["detail"]:
            issuer, _, receiver = values["detail"].partition(_TO)
            more = {"reason": level[0], "reason_en": level[1], "issuing_agency": issuer}
            more |= {"agency_name": receiver, "document_code": values["document"]}
            name = "urgent"
        else:
            lines = [f"- {text}" for text in texts] + [f"- {values['detail']}"] * bool(values["detail"])
            more = {"reason": texts[0] if len(texts) == 1 else f"{len(texts)} việc", "list": "\n".join(lines)}
            more["agency_name"] = self.settings.contacts.agency_name or self.settings.hostname
            name = "warning"
        machine = {key: value for key, value in values.items() if key not in ("phone", "email")}
        return returns.alert_mail(
            name, {**common, **more}, to=to, at=at, token=values["token"], contacts=self.settings.contacts,
            hostname=self.settings.hostname, machine=machine,
        )  # fmt: skip

    def _values(self, job: _Job) -> dict[str, str]:
        row = job.first
        text = row.alert_text if row.what == "start" else trouble_text(self.settings.hostname, f"HET: {row.alert_text}")
        if len(job.rows) > 1:
            newest = max(job.rows, key=lambda one: (one.alert_at, one.alert))
            text = trouble_text(
                self.settings.hostname, f"{len(job.rows)} viec, xem congvan alerts list. Moi nhat: {newest.alert_text}"
            )
        return {
            "phone": row.phone,
            "email": row.email,
            "text": text,
            "id": ",".join(str(one.alert) for one in job.rows),
            "case": row.alert_case_id,
            "kind": row.alert_kind,
            "level": row.alert_subject,
            "role": row.role,
            "agency": row.alert_agency,
            "document": row.alert_document,
            "at": stamp(from_ms(row.alert_at)),
            "what": row.what,
            "detail": row.alert_detail,
            "token": row.token,
        }

    def _settle(self, connection: Connection, job: _Job, told: Told) -> None:
        assert self._alerts is not None
        send, now = db.alert_send.c, self._now()
        for row in job.rows:
            values: dict[str, Any] = {
                "owner": "",
                "lease_at": 0,
                "attempts": row.attempts + 1,
                "result": told.text[:300],
            }
            if told.ok:
                # What was told together is acknowledged together: by a reply to the one letter there is.
                values |= {"state": "sent" if row is job.first else "merged", "settled_at": now}
                values |= {"token": job.first.token, "letter": told.letter}
            else:
                pause = self._alerts.retry[min(row.attempts, len(self._alerts.retry) - 1)]
                values["next_at"] = now + int(pause * 1000 * random.uniform(0.9, 1.1))
                if values["next_at"] > row.give_up_at:
                    values |= {"state": "failed", "settled_at": now}
            acked = select(db.alert.c.acked_at).where(db.alert.c.id == row.alert)
            if not told.ok and row.what == "start" and connection.execute(acked).scalar() is not None:
                values |= {"state": "cancelled", "settled_at": now}
            mine = (send.id == row.id, send.owner == self._owner, send.state == "waiting")
            connection.execute(update(db.alert_send).where(*mine).values(**values))
            if values.get("state") == "failed" and row.role == "leader":
                _next_in_line(connection, row.alert, now)

    def _say(self, level: str, event: str, **about: Any) -> None:
        if self._log is not None:
            getattr(self._log, level)(event, **about)

    # ------------------------------------------------------------------------------------------------ acknowledgement

    async def answered(self, facts: MessageFacts, writer: str, who: str = "") -> list[int]:
        """A reply to letters of ours by the person they went to: acknowledged. The caller has made sure that the writer
        is who they say, and that no machine wrote. Returns the numbers of the alerts. Raises Failure."""
        tokens = set(_REFERENCE.findall(" ".join((facts.in_reply_to, *facts.references))))
        if not tokens:
            return []
        send, now = db.alert_send.c, self._now()

        def write(connection: Connection) -> list[int]:
            question = select(send.alert).where(send.token.in_(sorted(tokens)[:20]), func.lower(send.email) == writer)
            return _acknowledge(connection, list(connection.execute(question).scalars()), who or writer, "mail", now)

        found = await self._database.write(write)
        for number in found:
            self._say("info", "alert acknowledged", alert=number, how="mail")
        return found

    async def acknowledge(self, which: str, who: str) -> list[int] | None:
        """By number, or by case all alerts of that message. Returns the numbers that were not acknowledged before;
        None: there is no such alert. Raises Failure."""
        a = db.alert.c

        def write(connection: Connection) -> list[int] | None:
            where = a.id == int(which) if which.isdecimal() and len(which) < 16 else a.case_id == which.upper()
            numbers = list(connection.execute(select(a.id).where(where)).scalars())
            return _acknowledge(connection, numbers, who, "command", self._now()) if numbers else None

        return await self._database.write(write)

    async def retry(self, which: int | None = None) -> int:
        """Try again now what waits or was given up. Returns how many. Raises Failure."""
        send, now = db.alert_send.c, self._now()
        give_up = now + int((self._alerts.give_up if self._alerts else 86400) * 1000)

        def write(connection: Connection) -> int:
            where = [send.state.in_(("waiting", "failed")), send.lease_at <= now]
            if which is not None:
                where.append(send.alert == which)
            open_ = select(db.alert.c.id).where(db.alert.c.acked_at.is_(None))
            where.append(send.alert.in_(open_))
            values = {"state": "waiting", "next_at": now, "give_up_at": give_up, "settled_at": None}
            return connection.execute(update(db.alert_send).where(*where).values(**values)).rowcount

        return await self._database.write(write)

    async def listing(self, *, open_only: bool = False, which: str = "", limit: int = 1000) -> list[dict[str, Any]]:
        """Alerts, newest first, with whom they were told to. Raises Failure."""
        return await self._database.read(lambda connection: _listing(connection, open_only, which, limit))

    # -------------------------------------------------------------------------------------------------------- trouble

    async def begin(
        self, key: str, subject: str, text: str, detail: str = "", *, over: bool = False, told: bool = False
    ) -> None:
        """Trouble for the administrator. over: it is a single event, such as a clock that was set; told: its beginning
        was told past the database (`directly`). Raises Failure."""
        alert = self._trouble(key, subject, text, detail)
        if alert is None:
            return
        now = self._now()

        def write(connection: Connection) -> None:
            if not keeping.append_alert(connection, alert, now):
                return
            number = select(db.alert.c.id).where(db.alert.c.key == alert.key).scalar_subquery()
            if over:
                connection.execute(update(db.alert).where(db.alert.c.key == alert.key).values(ended_at=now))
            if told:
                values = {"state": "sent", "settled_at": now, "result": "told past the database"}
                connection.execute(update(db.alert_send).where(db.alert_send.c.alert == number).values(**values))

        await self._database.write(write)
        self.wake()

    async def end(self, key: str) -> None:
        """That trouble is over: told to whom its beginning was told or is still owed. Raises Failure."""
        a, send, now = db.alert.c, db.alert_send.c, self._now()
        assert self._alerts is not None
        give_up = self._alerts.give_up

        def write(connection: Connection) -> None:
            row = connection.execute(select(db.alert).where(a.key == key, a.ended_at.is_(None))).first()
            if row is None:
                return
            connection.execute(update(db.alert).where(a.id == row.id).values(ended_at=now))
            told = connection.execute(select(db.alert_send).where(send.alert == row.id, send.what == "start")).all()
            # What nobody has heard of and is over, nobody needs to hear of.
            never = (send.alert == row.id, send.state == "waiting", send.owner == "", send.attempts == 0)
            connection.execute(update(db.alert_send).where(*never).values(state="cancelled", settled_at=now))
            rows = [
                keeping.reach_row(Reach(one.channel, one.role, one.phone, one.email), row.id, now, give_up, "end")
                for one in told
                if not (one.state == "waiting" and one.owner == "" and one.attempts == 0)
            ]
            db.insert(connection, db.alert_send, rows)

        await self._database.write(write)
        self.wake()

    def _trouble(self, key: str, subject: str, text: str, detail: str) -> Alert | None:
        if self._alerts is None or self._alerts.admin is None:
            return None
        words = trouble_text(self.settings.hostname, text)
        reaches = _person(self._alerts, self._alerts.admin, "admin")
        return Alert(key, "trouble", subject, words, reaches, self._alerts.give_up, detail=detail[:500])

    async def directly(self, text: str, detail: str, token: str) -> bool:
        """Tell the administrator without the database, because it is the trouble. True: somebody was told."""
        alert = self._trouble(token, "", text, detail)
        if alert is None or self._alerts is None:
            return True
        told: list[bool] = []
        at = dt.datetime.fromtimestamp(self._clock(), VIETNAM)
        for reach in alert.reaches:
            channel = self._alerts.channel(reach.channel)
            assert channel is not None
            values = dict.fromkeys(("id", "case", "level", "agency", "document"), "")
            values |= {"phone": reach.phone, "email": reach.email, "text": alert.text, "kind": "trouble"}
            values |= {"role": reach.role, "at": stamp(at), "what": "start", "detail": detail, "token": token}
            if channel.kind == "mail":
                result = await self.post(reach.email, self.letter(values, [alert.text], reach.email, at))
            else:
                result = await self.over(channel, values)
            told.append(result.ok)
            self._say(
                "info" if result.ok else "warning", "alert sent directly", channel=channel.name, reason=result.text
            )
        return any(told) or not told

    async def post(self, to: str, data: bytes) -> Told:
        """One attempt at the next hop, past the queue."""
        hop = self.settings.hop_for(to.rpartition("@")[2].lower())
        if hop is None:
            return Told(False, "no next hop for this address")
        letter = delivery.Letter("", (delivery.Target(to, "NEVER"),), delivery.Content(b"", (data,)))
        outcome = (await delivery.attempt(hop, self.settings.hostname, letter))[0]
        return Told(outcome.result == "delivered", outcome.reply)

    async def moved(self, milliseconds: int) -> None:
        """The clock was set: what waits is moved with it. Raises Failure."""
        send = db.alert_send.c
        values = {"next_at": send.next_at + milliseconds, "give_up_at": send.give_up_at + milliseconds, "lease_at": 0}
        waiting = update(db.alert_send).where(send.state == "waiting", send.owner == "")
        await self._database.write(lambda connection: connection.execute(waiting.values(**values)) and None)


_REFERENCE = re.compile(r"<alert\.([0-9a-f]{32})@[^<>\s]{1,255}>")


def _due(connection: Connection, now: int) -> list[Any]:
    send = db.alert_send.c
    question = (
        select(*_COLUMNS)
        .join(db.alert, db.alert.c.id == send.alert)
        .where(send.state == "waiting", send.next_at <= now, send.lease_at <= now)
        .order_by(send.pressing.desc(), send.next_at, send.id)
        .limit(1000)
    )
    return list(connection.execute(question))


def _letters(connection: Connection) -> list[Any]:
    """Letters that were queued and have come to an end."""
    send, to = db.alert_send.c, db.recipient.c
    question = (
        select(send.id, send.alert, send.role, to.state, to.last_reply)
        .join(db.recipient, to.message == send.letter)
        .where(send.letter != "", send.state.in_(("sent", "merged")), send.result == "queued", to.state != "queued")
    )
    return list(connection.execute(question.limit(1000)))


def _settle_letters(connection: Connection, letters: Sequence[Any], now: int) -> None:
    """A letter that nobody takes told nobody."""
    for row in letters:
        values: dict[str, Any] = {"result": row.last_reply[:300] or row.state}
        if row.state != "delivered":
            values["state"] = "failed"
        connection.execute(update(db.alert_send).where(db.alert_send.c.id == row.id).values(**values))
        if row.state != "delivered" and row.role == "leader":
            _next_in_line(connection, row.alert, now)


def _last_hour(connection: Connection, now: int) -> dict[tuple[str, str, str], int]:
    """How many messages that were not pressing went to each person over each channel."""
    send = db.alert_send.c
    person = (send.channel, send.phone, send.email)
    recent = and_(send.state == "sent", send.settled_at > now - 3_600_000)
    begun = and_(send.state == "waiting", send.lease_at > now)
    question = select(*person, func.count()).where(send.pressing == 0, or_(recent, begun)).group_by(*person)
    rows = connection.execute(question)
    return {(row[0], row[1], row[2]): row[3] for row in rows}


def _next_in_line(connection: Connection, alert: int, now: int) -> None:
    """No leader can be reached: the delegate does not wait."""
    send = db.alert_send.c
    leaders = (send.alert == alert, send.role == "leader", send.state.in_(("waiting", "sent")))
    if connection.execute(select(send.id).where(*leaders).limit(1)).first() is None:
        waiting = (send.alert == alert, send.role == "delegate", send.state == "waiting", send.next_at > now)
        connection.execute(update(db.alert_send).where(*waiting).values(next_at=now))


def _acknowledge(connection: Connection, numbers: Sequence[int], who: str, how: str, now: int) -> list[int]:
    """Returns those that were not acknowledged before."""
    a, send = db.alert.c, db.alert_send.c
    found = []
    for number in dict.fromkeys(numbers):
        row = connection.execute(select(db.alert).where(a.id == number, a.acked_at.is_(None))).first()
        if row is None:
            continue
        found.append(number)
        said = {"acked_at": now, "acked_by": clean(who)[:200], "acked_how": how}
        connection.execute(update(db.alert).where(a.id == number).values(**said))
        waiting = (send.alert == number, send.state == "waiting", send.owner == "", send.what == "start")
        connection.execute(update(db.alert_send).where(*waiting).values(state="cancelled", settled_at=now))
        entry = {"act": "alert-ack", "alert": number, "who": said["acked_by"], "how": how}
        keeping.leaf(connection, "admin", entry, case=row.case_id)
        if row.kind == "urgent":  # rules.md 1.9: the median of the seconds by level
            seconds = str((now - row.at) // 1000)
            count = Count(f"ack|{number}|{row.at}", "urgent_acked", row.agency, "in", rule=row.subject, value=seconds)
            keeping.count_events(connection, (count,), from_ms(now), row.case_id)
    return found


def _listing(connection: Connection, open_only: bool, which: str, limit: int) -> list[dict[str, Any]]:
    a, send = db.alert.c, db.alert_send.c
    question = select(db.alert).order_by(a.id.desc()).limit(limit)
    if which:
        by_number = which.isdecimal() and len(which) < 16
        question = question.where(a.id == int(which) if by_number else a.case_id == which.upper())
    if open_only:
        question = question.where(a.acked_at.is_(None), a.ended_at.is_(None))
    rows = connection.execute(question).all()
    sends: dict[int, list[dict[str, Any]]] = {row.id: [] for row in rows}
    asked = select(db.alert_send).where(send.alert.in_(list(sends))).order_by(send.id)
    for one in connection.execute(asked) if rows else ():
        sends[one.alert].append(
            {
                "what": one.what,
                "channel": one.channel,
                "role": one.role,
                "to": one.email if not one.phone else one.phone,
                "state": "sending" if one.owner and one.state == "waiting" else one.state,
                "attempts": one.attempts,
                "next_at": stamp(from_ms(one.next_at)) if one.state == "waiting" else None,
                "settled_at": stamp(from_ms(one.settled_at)) if one.settled_at else None,
                "possible_duplicates": one.maybe_twice,
                "result": one.result,
            }
        )
    return [
        {
            "alert": row.id,
            "kind": row.kind,
            "subject": row.subject,
            "agency": row.agency,
            "case": row.case_id,
            "document": row.document,
            "text": row.text,
            "detail": row.detail,
            "at": stamp(from_ms(row.at)),
            "ended_at": stamp(from_ms(row.ended_at)) if row.ended_at else None,
            "acked_at": stamp(from_ms(row.acked_at)) if row.acked_at else None,
            "acked_by": row.acked_by,
            "acked_how": row.acked_how,
            "ack_seconds": (row.acked_at - row.at) // 1000 if row.acked_at else None,
            "sends": sends[row.id],
        }
        for row in rows
    ]


# -------------------------------------------------------------------------------------------------------- one attempt


def _fill(template: str, values: dict[str, str], dress: Callable[[str], str] = str) -> str:
    """`{name}` replaced, once: what a value holds is not looked at again."""
    return re.sub(r"\{(\w+)\}", lambda found: dress(values[found[1]]), template)


def _encoded(url: str) -> Any:
    from yarl import URL

    return URL(url, encoded=True)


def read_secret(channel: AlertChannel) -> str:
    """The key of the service, or empty where there is none. Raises Failure, without the key."""
    if channel.credential:
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
        path = Path(folder) / channel.credential
        if not folder:
            raise Failure("No key", f"channel {channel.name}: CREDENTIALS_DIRECTORY is not set")
    elif channel.secret_file is not None:
        path = channel.secret_file
    else:
        return ""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise Failure("No key", f"channel {channel.name}: the key cannot be read: {reason}") from None
    if not lines or not lines[0].strip() or not lines[0].isprintable():
        raise Failure("No key", f"channel {channel.name}: the first line of the key's file is empty or not text")
    return lines[0].strip()


async def _command(channel: AlertChannel, values: dict[str, str]) -> Told:
    """A program without a shell: values in its arguments where `argv` says so, all of them as JSON on its input. Exit
    code 0 is success. An argument that would begin with a hyphen because of a value is not passed on."""
    argv = []
    for template in channel.argv:
        filled = _fill(template, values)
        if filled.startswith("-") and not template.startswith("-"):
            return Told(False, "a value begins with a hyphen, it is not made an option")
        argv.append(filled)
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )
    try:
        await process.communicate(json.dumps(values, ensure_ascii=False).encode() + b"\n")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Told(process.returncode == 0, f"exit code {process.returncode}")
