"""Mailboxes that are read: against a real Dovecot and a real Cyrus, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from imapclient import IMAPClient

from gateway import config, imap_poll, imap_session
from gateway.commands.imap import by_day, figures, working_seconds
from gateway.database import Database, sqlite_url
from gateway.errors import Failure, Reply
from gateway.imap_poll import Poller
from gateway.message import VIETNAM, Polled, Taken
from gateway.store import Store
from tests import harness, peers
from tests.house import Log
from tests.imap_server import Box, Drop, ImapServer
from tests.test_gateway import CITIZEN, SECRETS, letter, query, relay

PASSWORD = "mat-khau-dung"
BOX = f"ubnd@{harness.OURS}"
OTHER = f"vanthu@{harness.OURS}"

NEEDS_DOVECOT = pytest.mark.skipif(bool(peers.missing("dovecot")), reason=peers.missing("dovecot") or "-")
NEEDS_CYRUS = pytest.mark.skipif(bool(peers.no_cyrus()), reason=peers.no_cyrus() or "-")


def until(ask: Callable[[], Any], seconds: float = 240) -> Any:
    """What `ask` says, as soon as it says yes."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer


def imap_settings(port: int, *accounts: str, more: str = "", server: str = "", account: str = "") -> str:
    listed = "".join(f"\n        - {{address: {one}, password_file: imap.pass{account}}}" for one in accounts)
    return f"""
imap:
  poll: 1s
  {more}
  servers:
    - host: 127.0.0.1
      port: {port}
      tls: none
      {server}
      accounts:{listed}
"""


def client(port: int, address: str) -> IMAPClient:
    made = IMAPClient("127.0.0.1", port, ssl=False, timeout=240)
    made.normalise_times = False
    made.login(address, PASSWORD)
    return made


Server = peers.Dovecot | peers.Cyrus


@pytest.fixture(params=[pytest.param("dovecot", marks=NEEDS_DOVECOT), pytest.param("cyrus", marks=NEEDS_CYRUS)])
def server(request: pytest.FixtureRequest, open_folder: Path) -> Iterator[Server]:
    """Two real servers of different make."""
    made: Server
    if request.param == "dovecot":
        made = peers.Dovecot(open_folder / "dovecot", PASSWORD).start()
    else:
        made = peers.Cyrus(open_folder / "cyrus", PASSWORD, BOX, OTHER).start()
    yield made
    made.stop()


Start = Callable[..., harness.Gateway]


@pytest.fixture
def start(tmp_path: Path, sink: harness.Sink, passwords: harness.PasswordServer) -> Iterator[Start]:
    """Starts a gateway that reads mailboxes; ended in good order."""
    made: list[harness.Gateway] = []

    def begin(extra: str) -> harness.Gateway:
        config = harness.write_config(tmp_path, hop_port=sink.port, auth_port=passwords.port, extra=extra)
        (config / "imap.pass").write_text(PASSWORD + "\n")
        made.append(harness.Gateway(config).start())
        return made[-1]

    yield begin
    for one in made:
        assert one.stop() == 0, one.told()


def rows(gateway: harness.Gateway, statement: str) -> list[tuple]:
    """As `query`, for who asks again and again; the gateway must run meanwhile."""
    assert gateway.process is not None and gateway.process.poll() is None, "the gateway has ended"
    return query(gateway, statement)


def taken(gateway: harness.Gateway) -> list[str]:
    return [one[0] for one in rows(gateway, "select state from imap_message order by folder, uid")]


def sent_folder(box: IMAPClient) -> str:
    """The folder of sent mail: the one the server marks, else one with the name that clients give it."""
    marked = [name for flags, _, name in box.list_folders() if b"\\sent" in map(bytes.lower, flags)]
    if not marked:
        box.create_folder("Đã gửi")
    return marked[0] if marked else "Đã gửi"


def view(port: int, address: str) -> dict[str, list[tuple[bytes, tuple[bytes, ...], bytes]]]:
    """What a mail client sees: for every folder the bytes, flags and dates of its messages."""
    seen: dict[str, list[Any]] = {}
    with client(port, address) as mail:
        for _, _, name in mail.list_folders():
            mail.select_folder(name, readonly=True)
            uids = mail.search("ALL")
            told = mail.fetch(uids, ["BODY.PEEK[]", "FLAGS", "INTERNALDATE"]) if uids else {}
            seen[name] = [
                (one[b"BODY[]"], tuple(set(one[b"FLAGS"]) - {b"\\Recent"}), str(one[b"INTERNALDATE"]))
                for _, one in sorted(told.items())
            ]
    return seen


def counted(gateway: harness.Gateway) -> list[tuple]:
    """How many messages count as sent and received: kind, direction, agency, number."""
    return query(
        gateway,
        "select kind, direction, agency, count(*) from event where kind in ('sent', 'received')"
        " group by 1, 2, 3 order by 1, 2, 3",
    )


def archived(gateway: harness.Gateway) -> list[bytes]:
    store = Store(gateway.data / "blobs")
    return [store.read(row[0]) for row in query(gateway, "select sha256 from message where kind = 'mail' order by id")]


# ---------------------------------------------------------------------- a server that misbehaves


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off in hundredths of seconds."""
    monkeypatch.setattr(imap_poll, "BACKOFF", 0.01)
    monkeypatch.setattr(imap_poll, "BACKOFF_LAST", 0.02)
    monkeypatch.setattr(imap_poll, "BACKOFF_LOGIN", 0.02)


class Keeper:
    """A receiver that keeps the bytes by digest, as the archive does. `bad` and `secret` are found by a word."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.calls: list[Polled] = []
        self.broken = 0

    def may_accept(self) -> Reply | None:
        return None

    async def disguise(self, sha256: str) -> str:
        return hashlib.sha256(b"salt" + sha256.encode()).hexdigest()

    async def polled(self, polled: Polled) -> Taken:
        data = polled.body.read()
        assert hashlib.sha256(data).hexdigest() == polled.body.sha256
        if self.broken:
            self.broken -= 1
            raise Failure("not now", "the archive is broken")
        self.calls.append(polled)
        if b"SECRET" in data:
            return Taken("tombstone", await self.disguise(polled.body.sha256), secret=True, offends=True)
        self.kept[polled.body.sha256] = data
        return Taken(polled.body.sha256[:16], polled.body.sha256, offends=b"BAD" in data)


class Reading:
    """A poller in this process before a scripted server; `time` runs ahead when told, so that nothing waits."""

    def __init__(self, folder: Path, server: Any, **more: Any) -> None:
        accounts = [{"address": one, "password_file": str(folder / "pass")} for one in more.pop("accounts", [BOX])]
        (folder / "pass").write_text(more.pop("secret", PASSWORD) + "\n")
        settings = {"host": "127.0.0.1", "port": server.port, "tls": "none", "timeout": 240, "accounts": accounts}
        settings |= more.pop("host", {})
        self.settings = config.Imap.model_validate({"servers": [settings], "poll": 0.05, **more})
        self.url = sqlite_url(folder / "gateway.db")
        self.folder, self.keeper, self.log, self.ahead = folder, Keeper(), Log(), 0.0
        self.limits = config.Limits(memory_size=1 << 16, message_size=1 << 20)
        self.database: Database | None = None

    async def start(self) -> None:
        self.database = Database.open(self.url)
        self.stop = asyncio.Event()
        poller = Poller(
            self.settings, self.keeper, self.database, self.log, spill=self.folder, limits=self.limits,
            clock=lambda: time.time() + self.ahead, chance=lambda: 0.5,
        )  # fmt: skip
        self.task = asyncio.create_task(poller.run(self.stop))

    async def end(self) -> None:
        if self.database is not None:
            self.stop.set()
            async with asyncio.timeout(240):
                await self.task
            self.database.close()
            self.database = None

    async def sql(self, statement: str) -> list[tuple[Any, ...]]:
        assert self.database is not None
        return await self.database.read(lambda c: [tuple(row) for row in c.exec_driver_sql(statement).all()])

    async def until(self, statement: str, expected: Any, seconds: float = 240) -> None:
        found: Any = None
        try:
            async with asyncio.timeout(seconds):
                while (found := [row[0] if len(row) == 1 else row for row in await self.sql(statement)]) != expected:
                    if self.task.done():
                        self.task.result()
                    self.ahead += 30  # back-off and retries are over at once
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{statement}: {found}, not {expected}\n{self.log.lines[-8:]}") from None

    async def figures(self) -> list[dict[str, Any]]:
        assert self.database is not None
        return await self.database.read(lambda c: figures(c, int(time.time() * 1000)))


@contextlib.asynccontextmanager
async def reading(tmp_path: Path, server: Any, **more: Any) -> AsyncIterator[Reading]:
    made = Reading(tmp_path, server, **more)
    try:
        await made.start()
        yield made
    finally:
        await made.end()
        if isinstance(server, ImapServer):
            server.close()


def numbered(count: int, word: str = "", size: int = 0) -> list[bytes]:
    return [f"Subject: {n} {word}\r\n\r\n".encode() + b"x" * size + b"\r\n" for n in range(count)]


STATES = "select state from imap_message m join imap_folder f on f.id = m.folder where closed_at is null order by uid"
RESULTS = "select result from imap_action order by id"


def test_connection_dropped_at_every_command(tmp_path: Path) -> None:
    """Each command in turn is cut off before and after the server has carried it out; every message is taken once, and
    what was to be moved is in one place."""

    async def work() -> None:
        mail = [*numbered(3), *numbered(2, "BAD"), b"Subject: x\r\n\r\nSECRET\r\n"]
        server = ImapServer({"INBOX": Box(*mail), "Sent": Box(*numbered(2, "sent"), flags="\\Sent")}, "UIDPLUS")
        met: set[tuple[str, str]] = set()

        def drop(stage: str) -> Callable[[str], bytes | None]:
            def trouble(line: str) -> bytes | None:
                words = line.upper().split()
                kind = next((word for word in ("BODY", "FLAGS", "SIZE") if word in line), "")
                folder = line if words[0] in ("SELECT", "EXAMINE") else ""
                step = (stage, " ".join((*words[: 1 + (words[0] == "UID")], kind, folder)))
                if step not in met and words[0] not in ("LOGOUT", "LOGIN", "AUTHENTICATE", "CAPABILITY"):
                    met.add(step)
                    raise Drop
                return None

            return trouble

        server.trouble, server.after = drop("before"), drop("after")
        async with reading(tmp_path, server, action="move", act_on_history=True) as one:
            await one.until(
                STATES + ", f.id", ["taken", "taken", "taken", "taken", "taken", "taken", "taken", "secret"]
            )
            await one.until(RESULTS, ["done"] * 3)
            assert len(met) > 20, met
            assert sorted(one.keeper.kept.values()) == sorted([*mail[:5], *numbered(2, "sent")])
        boxes = {name: sorted(found.data for found in box.mail) for name, box in server.boxes.items()}
        assert boxes == {"INBOX": mail[:3], "Sent": numbered(2, "sent"), "Thư cần xử lý": mail[3:5],
                         "Thư hạn chế": mail[5:]}  # fmt: skip
        assert not any(found.flags for box in server.boxes.values() for found in box.mail)

    asyncio.run(work())


@pytest.mark.parametrize(
    "garbage",
    [
        b"* 1 FETCH (UID 1 BODY[]<0> {99999999999}\r\nabc",
        b"* 2 FETCH (UID 2 BODY[]<0> {5000}\r\nSubject: cut off in the midd",
        b'* 1 FETCH (UID 1 BODY[]<0> "unterminated\r\n{tag} OK done\r\n',
        b"* 1 FETCH ((((((\r\n{tag} OK done\r\n",
        b"\xff\xfe\x00 nonsense\r\n",
        b"* BYE going down\r\n",
        b"{tag} NO [SERVERBUG] internal error\r\n",
        b"{tag} BAD what\r\n",
        b"{tag} OK done\r\n",
        b"* OK " + b"z" * 20_000_000 + b"\r\n{tag} OK done\r\n",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_one_message_that_the_server_stumbles_over_does_not_keep_the_others(tmp_path: Path, garbage: bytes) -> None:
    async def work() -> None:
        mail = numbered(4)
        server = ImapServer({"INBOX": Box(*mail)})
        sick = True

        def trouble(line: str) -> bytes | None:
            asked = line.split()[2] if "BODY.PEEK" in line else ""
            return garbage if sick and ("2" in asked.split(",") or asked in ("1:4", "1:3", "2:3", "2:4")) else None

        server.trouble = trouble
        async with reading(tmp_path, server, host={"timeout": 2}) as one:
            await one.until("select uid from imap_message where state = 'taken' order by uid", [1, 3, 4])
            await one.until("select count(*) from imap_message where tries > 1 and reason != ''", [1])
            assert [len(row["gaps"]) for row in await one.figures()] == [1]
            sick = False
            await one.until(STATES, ["taken"] * 4)
            assert list(one.keeper.kept.values()).count(mail[1]) == 1

    asyncio.run(work())


def test_a_server_that_stalls_is_left_and_the_end_does_not_wait_for_it(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(3))})
        stalled = False

        def trouble(line: str) -> None:
            nonlocal stalled
            if "BODY.PEEK" in line and not stalled:
                stalled = True
                server.stall.wait(600)
                raise Drop

        server.trouble = trouble
        async with reading(tmp_path, server, host={"timeout": 2}) as one:
            await one.until(STATES, ["taken"] * 3)
            stalled = False
            server.deliver("INBOX", b"Subject: last\r\n\r\n")
            async with asyncio.timeout(240):
                while not stalled:
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(240):  # the server stalls for ever
                await one.end()

    asyncio.run(work())


@pytest.mark.parametrize("lie", [-1, +1, 10**9], ids=["smaller", "larger", "huge"])
@pytest.mark.parametrize("size", [0, 256 << 10, (256 << 10) + 1, 700_000])
def test_sizes_are_not_believed(tmp_path: Path, lie: int, size: int) -> None:
    async def work() -> None:
        mail = numbered(2, size=size)
        server = ImapServer({"INBOX": Box(*mail)})
        server.size = lambda found: max(0, len(found.data) + lie)
        async with reading(tmp_path, server) as one:
            await one.until(STATES, ["taken"] * 2)
            assert sorted(one.keeper.kept.values()) == sorted(mail)

    asyncio.run(work())


def test_a_message_that_comes_out_differently_each_time_is_owed_and_not_taken(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(1, size=500))})
        sick, count = True, 0

        def cut(piece: bytes) -> bytes:
            nonlocal count
            count += 1
            return piece[: 100 + count] if sick and len(piece) > 200 else b"" if sick else piece

        server.cut = cut
        async with reading(tmp_path, server) as one:
            await one.until("select count(*) from imap_message where tries > 0", [1])
            assert not one.keeper.kept
            sick = False
            await one.until(STATES, ["taken"])
            assert list(one.keeper.kept.values()) == numbered(1, size=500)

    asyncio.run(work())


def test_other_uidvalidity_takes_nothing_twice_and_misses_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        mail = [*numbered(3), *numbered(1, "BAD")]
        server = ImapServer({"INBOX": Box(*mail)})
        async with reading(tmp_path, server, act_on_history=True) as one:
            await one.until(STATES, ["taken"] * 4)
            await one.until(RESULTS, ["done"])
            box = server.boxes["INBOX"]
            assert [found.flags for found in box.mail] == [set(), set(), set(), {"$VBDT-Finding"}]
            with server.lock:
                del box.mail[0]
                box.add(b"Subject: new\r\n\r\n", date="01-Jan-2099 00:00:00 +0700")
                box.renumber(8)
            await one.until("select count(*) from imap_folder", [2])
            await one.until(STATES, ["taken"] * 4)
            assert len(one.keeper.calls) == 5
            assert await one.sql("select uidvalidity, closed_at is null from imap_folder order by id") == [
                (7, 0),
                (8, 1),
            ]
            # a server put back from a backup: the same UIDVALIDITY, and UIDs that were given before to other messages
            with server.lock:
                box.mail = box.mail[:1]
                box.uidnext = 2
                box.add(b"Subject: other\r\n\r\n")
            await one.until("select count(*) from imap_folder", [3])
            await one.until(STATES, ["taken"] * 2)
            assert len(one.keeper.calls) == 6
            assert await one.sql("select count(*) from imap_action") == [(1,)]

    asyncio.run(work())


def test_two_messages_under_one_uid_are_both_taken(tmp_path: Path) -> None:
    """No server should (RFC 9051 2.3.1.1); some did after a repair. Places in the folder tell them apart."""

    async def work() -> None:
        mail = [*numbered(3), *numbered(2, "BAD")]
        server = ImapServer({"INBOX": Box(*mail)})
        for found, uid in zip(server.boxes["INBOX"].mail, (1, 2, 2, 4, 4), strict=True):
            found.uid = uid
        async with reading(tmp_path, server, act_on_history=True, action="move") as one:
            await one.until("select count(*) from imap_message where state = 'taken'", [7])
            await one.until(RESULTS, ["done"])
            assert sorted(one.keeper.kept.values()) == sorted(mail)
            assert [row["gaps"] for row in await one.figures()] == [[]]

    asyncio.run(work())


def test_a_folder_that_is_renamed_is_read_on_under_its_new_name(tmp_path: Path) -> None:
    async def work() -> None:
        mail = numbered(4)
        server = ImapServer({"INBOX": Box(), "Sent": Box(*mail, flags="\\Sent")})
        async with reading(tmp_path, server) as one:
            await one.until(STATES, ["taken"] * 4)
            with server.lock:
                server.boxes["Thư đã gửi"] = server.boxes.pop("Sent")
                server.boxes["Thư đã gửi"].add(b"Subject: new\r\n\r\n")
            await one.until("select name from imap_folder where closed_at is null order by id", ["INBOX", "Thư đã gửi"])
            await one.until(STATES, ["taken"] * 5)
            assert len(one.keeper.calls) == 5
            assert [row["error"] for row in await one.figures()] == ["", ""]

    asyncio.run(work())


def test_expunged_before_it_was_fetched_is_reported_as_lost(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(3))})

        def trouble(line: str) -> None:
            if "BODY.PEEK" in line:
                with server.lock:
                    server.boxes["INBOX"].mail = [one for one in server.boxes["INBOX"].mail if one.uid != 2]

        server.trouble = trouble
        async with reading(tmp_path, server) as one:
            await one.until(STATES, ["taken", "lost", "taken"])
            assert [row["lost"] for row in await one.figures()] == [1]
            assert one.database is not None
            day = dt.date(2026, 3, 2)  # of all messages of the server
            (told,) = await one.database.read(lambda c: by_day(c, day, day, BOX))
            assert (told["day"], told["seen"], told["taken"], told["lost"]) == ("2026-03-02", 3, 2, 1)
            assert await one.database.read(lambda c: by_day(c, dt.date(2026, 3, 3), dt.date(2026, 4, 1))) == []

    asyncio.run(work())


def test_expunged_in_the_middle_of_a_large_message(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(1, size=900_000))})

        def trouble(line: str) -> None:
            if "BODY.PEEK[]<524288" in line:
                with server.lock:
                    server.boxes["INBOX"].mail.clear()

        server.trouble = trouble
        async with reading(tmp_path, server) as one:
            await one.until(STATES, ["lost"])
            assert not one.keeper.calls

    asyncio.run(work())


def test_without_idle_new_mail_is_found_by_polling(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box()}, "")
        async with reading(tmp_path, server) as one:
            await one.until("select present from imap_folder", [0])
            server.deliver("INBOX", b"Subject: a\r\n\r\n")
            await one.until(STATES, ["taken"])
        assert "IDLE" not in server.lines

    asyncio.run(work())


def test_quota_full_on_move_leaves_the_message_and_tries_again(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(1, "BAD"))})
        full = True
        server.trouble = lambda line: b"{tag} NO [OVERQUOTA] full\r\n" if full and "MOVE" in line else None
        async with reading(tmp_path, server, action="move", act_on_history=True) as one:
            await one.until("select count(*) from imap_action where reason like '%OVERQUOTA%' and tries > 1", [1])
            assert [len(box.mail) for box in server.boxes.values()] == [1, 0]
            assert "OVERQUOTA" in (await one.figures())[0]["acts_open"][0]["reason"]
            full = False
            await one.until(RESULTS, ["done"])
            assert [len(box.mail) for box in server.boxes.values()] == [0, 1]

    asyncio.run(work())


def test_without_uidplus_nothing_is_expunged(tmp_path: Path) -> None:
    """EXPUNGE would take with it what a person has marked as deleted: the message is flagged instead."""

    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(2, "BAD"))}, "")
        server.boxes["INBOX"].mail[0].flags.add("\\Deleted")
        async with reading(tmp_path, server, action="move", act_on_history=True) as one:
            await one.until(RESULTS, ["flagged"] * 2)
        assert [found.flags for found in server.boxes["INBOX"].mail] == [
            {"\\Deleted", "$VBDT-Finding"},
            {"$VBDT-Finding"},
        ]
        assert not any("EXPUNGE" in line for line in server.lines)

    asyncio.run(work())


def test_an_archive_that_fails_leaves_the_message_owed(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(3))})
        made = Reading(tmp_path, server)
        made.keeper.broken = 2
        await made.start()
        try:
            await made.until(STATES, ["taken"] * 3)
            assert len(made.keeper.calls) == 3
        finally:
            await made.end()
            server.close()

    asyncio.run(work())


def test_history_is_not_acted_on_and_new_mail_is(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(2, "BAD"))})
        async with reading(tmp_path, server, action="flag") as one:
            await one.until(STATES, ["taken"] * 2)
            assert [call.history for call in one.keeper.calls] == [True, True]
            with server.lock:
                server.boxes["INBOX"].add(b"Subject: BAD new\r\n\r\n", date="01-Jan-2099 00:00:00 +0700")
            await one.until(RESULTS, ["done"])
            assert [bool(found.flags) for found in server.boxes["INBOX"].mail] == [False, False, True]

    asyncio.run(work())


@pytest.mark.parametrize("earlier, acts", [(0, ["done"]), (120, ["done"]), (7200, [])])
def test_the_second_of_the_first_look_is_not_history(tmp_path: Path, earlier: int, acts: list[str]) -> None:
    """INTERNALDATE has whole seconds, and the server's clock may be behind; what is dated hours back was put there."""

    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(1, "old"))})
        async with reading(tmp_path, server, action="flag") as one:
            await one.until(STATES, ["taken"])
            first = (await one.sql("select first_at from imap_folder"))[0][0]
            date = dt.datetime.fromtimestamp(first // 1000 - earlier, dt.UTC)
            with server.lock:
                server.boxes["INBOX"].add(b"Subject: BAD new\r\n\r\n", date=f"{date:%d-%b-%Y %H:%M:%S} +0000")
            await one.until(STATES, ["taken"] * 2)
            await one.until(RESULTS, acts)

    asyncio.run(work())


def test_mail_before_the_day_is_left_alone(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box()})
        box = server.boxes["INBOX"]
        box.add(b"Subject: old\r\n\r\n", date="31-Dec-2025 23:59:59 +0700")
        box.add(b"Subject: new\r\n\r\n", date="01-Jan-2026 00:00:00 +0700")
        account = {"address": BOX, "password_file": str(tmp_path / "pass"), "since": "2026-01-01"}
        async with reading(tmp_path, server, host={"accounts": [account]}) as one:
            await one.until(STATES, ["old", "taken"])
            assert list(one.keeper.kept.values()) == [b"Subject: new\r\n\r\n"]

    asyncio.run(work())


def test_more_mailboxes_than_connections_take_turns(tmp_path: Path) -> None:
    async def work() -> None:
        server = ImapServer({"INBOX": Box(*numbered(2))})
        names = [f"hop-thu-{n}@{harness.OURS}" for n in range(12)]
        async with reading(tmp_path, server, accounts=names, host={"connections": 3}) as one:
            await one.until("select count(*) from imap_message where state = 'taken'", [24])
            assert server.most <= 3
            assert len(await one.figures()) == 12

    asyncio.run(work())


def test_office_hours() -> None:
    def at(text: str) -> dt.datetime:
        return dt.datetime.fromisoformat(text).replace(tzinfo=VIETNAM)

    friday, monday = at("2026-11-20T16:00:00"), at("2026-11-23T08:30:00")
    assert working_seconds(friday, monday) == 2 * 3600
    assert working_seconds(friday, monday, frozenset({dt.date(2026, 11, 23)})) == 3600
    assert working_seconds(at("2026-11-20T11:00:00"), at("2026-11-20T13:30:00")) == 3600


# ---------------------------------------------------------------------- the whole way


@pytest.mark.peer
def test_history_is_taken_and_nothing_in_the_mailbox_changes(server: Server, start: Start) -> None:
    when = dt.datetime(2026, 3, 2, 9, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
    mail = [letter(subject=f"Thư số {n}") for n in range(5)]
    sent = letter(subject="Trả lời", sender=BOX)
    with client(server.port, BOX) as box:
        for number, raw in enumerate(mail):
            box.append("INBOX", raw, [b"\\Seen"] if number % 2 else [b"\\Flagged"], when)
        folder = sent_folder(box)
        box.append(folder, sent, [b"\\Seen"], when)
    before = view(server.port, BOX)
    gateway = start(imap_settings(server.port, BOX))
    until(lambda: taken(gateway) == ["taken"] * 6)
    assert view(server.port, BOX) == before
    assert sorted(archived(gateway)) == sorted([*mail, sent])
    assert query(gateway, "select distinct channel, received_at from message") == [
        ("imap", int(when.timestamp() * 1000))
    ]
    assert counted(gateway) == [("received", "in", "ubnd", 5), ("sent", "out", "ubnd", 1)]
    assert query(gateway, "select distinct state from recipient") == [("seen",)]
    gateway.command("archive", "verify")
    told = [json.loads(line) for line in gateway.command("imap", "status", "--json").splitlines()]
    assert [(one["folder"], one["taken"], one["backlog"], one["unseen"]) for one in told] == [
        ("INBOX", 5, 0, 3),
        (folder, 1, 0, 0),
    ]
    days = gateway.command("imap", "days", "--since", "2026-03-01", "--until", "2026-03-31", "--json").splitlines()
    assert [(one["folder"], one["day"], one["seen"], one["taken"]) for one in map(json.loads, days)] == [
        ("INBOX", "2026-03-02", 5, 5),
        (folder, "2026-03-02", 1, 1),
    ]


@pytest.mark.peer
def test_new_mail_is_archived_at_once_and_what_offends_is_moved(server: Server, start: Start) -> None:
    with client(server.port, BOX) as box:
        gateway = start(imap_settings(server.port, BOX, more="poll: 60s\n  action: move").replace("poll: 1s\n", "\n"))
        until(lambda: rows(gateway, "select success_at from imap_folder where success_at is not null"))
        clean = letter(subject="Thư mới")
        box.append("INBOX", clean)
        until(lambda: taken(gateway) == ["taken"])  # well within the poll of a minute: IDLE told

        box.append("INBOX", SECRETS["body"], [b"\\Flagged"])
        until(lambda: rows(gateway, "select result from imap_action") == [("done",)])
        assert taken(gateway) == ["taken", "secret"]
        seen = view(server.port, BOX)
        assert [one[0] for one in seen["INBOX"]] == [clean]
        assert [one[:2] for one in seen["Thư hạn chế"]] == [(SECRETS["body"], (b"\\Flagged",))]
        assert query(gateway, "select count(*) from tombstone") == [(1,)]
        assert archived(gateway) == [clean]

        case = query(gateway, "select id from tombstone")[0][0]
        gateway.command("imap", "release", case, "--reason", "không phải tài liệu mật")
        until(lambda: rows(gateway, "select result from imap_action where kind = 'release'") == [("done",)])
        until(lambda: taken(gateway) == ["taken", "secret", "secret"])
        seen = view(server.port, BOX)
        assert [one[0] for one in seen["INBOX"]] == [clean, SECRETS["body"]]
        assert seen["Thư hạn chế"] == []
        assert query(gateway, "select count(*) from tombstone") == [(1,)]
        assert query(gateway, "select kind, result from imap_action") == [("move", "done"), ("release", "done")]
    gateway.stop()
    for path in gateway.data.rglob("*"):
        if path.is_file():
            assert b"Kim Quy" not in path.read_bytes(), path


@pytest.mark.peer
def test_one_message_in_two_mailboxes_and_by_smtp_is_archived_once(
    server: Server, start: Start, sink: harness.Sink
) -> None:
    gateway = start(imap_settings(server.port, BOX, OTHER))
    assert relay(gateway, letter(subject="Qua SMTP")).startswith("250")
    delivered = f"Return-Path: <{CITIZEN}>\r\nReceived: from cong by may\r\n".encode() + sink.wait(1)[0][2]
    both = letter(subject="Hai hộp thư")
    for address in (BOX, OTHER):
        with client(server.port, address) as box:
            box.append("INBOX", both)
            if address == BOX:
                box.append("INBOX", delivered)
    until(lambda: taken(gateway) == ["taken"] * 3)
    assert query(gateway, "select channel from message where kind = 'mail' order by id") == [("relay",), ("imap",)]
    assert query(gateway, "select count(*) from imap_message group by case_id order by 1") == [(1,), (2,)]
    assert counted(gateway) == [("received", "in", "ubnd", 2)]


Seen = dict[str, dict[str, Any]]


def mailbox_as_shown(port: int, address: str) -> Seen:
    """A mail client's window: folders as subscribed, the numbers beside them, and the list of messages of each."""
    shown: Seen = {}
    with client(port, address) as mail:
        subscribed = {name for _, _, name in mail.list_sub_folders()} | {"INBOX"}
        for _, _, name in mail.list_folders():
            counts = mail.folder_status(name, ["MESSAGES", "UNSEEN"])
            mail.select_folder(name, readonly=True)
            uids = mail.search("ALL")
            told = mail.fetch(uids, ["FLAGS", "INTERNALDATE", "BODY.PEEK[HEADER]"]) if uids else {}
            shown[name] = {
                "subscribed": name in subscribed,
                "messages": counts[b"MESSAGES"],
                "unseen": counts[b"UNSEEN"],
                "list": [
                    (
                        re.findall(rb"Subject: *([^\r]*)", one[b"BODY[HEADER]"])[0].decode(),
                        frozenset(one[b"FLAGS"]) - {b"\\Recent"},
                        one[b"INTERNALDATE"],
                    )
                    for _, one in sorted(told.items())
                ],
            }
    return shown


@pytest.mark.peer
@pytest.mark.parametrize("action", ["leave", "flag", "move"])
def test_what_staff_see_is_what_the_documents_say(tmp_path: Path, server: Server, action: str) -> None:
    """docs/imap.md, "What staff see": nothing but the keyword, or the other folder, with flags and date kept."""
    when = dt.datetime(2026, 3, 2, 9, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
    flags = ([], [b"\\Seen"], [b"\\Flagged", b"\\Answered"], [b"\\Seen", b"viec-can-lam"])

    async def work() -> None:
        with client(server.port, BOX) as box:
            folder = sent_folder(box)
            for number in range(8):
                word = "BAD" if number % 4 == 1 else ""
                box.append("INBOX", f"Subject: {number}\r\n\r\n{word}\r\n".encode(), flags[number % 4], when)
            box.append("INBOX", b"Subject: mat\r\n\r\nSECRET\r\n", [b"\\Flagged"], when)
            box.append(folder, b"Subject: gui\r\n\r\nBAD\r\n", [b"\\Seen"], when)
        before = mailbox_as_shown(server.port, BOX)
        async with reading(tmp_path, server, action=action, act_on_history=True) as one:
            await one.until("select count(*) from imap_message where taken_at is not null", [10])
            acts = {"leave": 1, "flag": 4, "move": 4}[action]
            await one.until("select count(*) from imap_action where result = 'done'", [acts])
        after = mailbox_as_shown(server.port, BOX)

        inbox = before["INBOX"]["list"]
        label = frozenset({b"$VBDT-Finding"})
        secret = [one for one in inbox if one[0] == "mat"]
        bad = [one for one in inbox if one[0] in ("1", "5")]
        expected = {name: dict(rows) for name, rows in before.items()}
        rest = [one for one in inbox if one not in secret]
        expected["Thư hạn chế"] = {"subscribed": True, "messages": 1, "unseen": 1, "list": secret}
        if action == "flag":
            rest = [(one[0], one[1] | label, one[2]) if one in bad else one for one in rest]
        if action == "move":
            rest = [one for one in rest if one not in bad]
            expected["Thư cần xử lý"] = {"subscribed": True, "messages": 2, "unseen": 0, "list": bad}
        if action != "leave":  # sent mail is never moved
            expected[folder]["list"] = [(one[0], one[1] | label, one[2]) for one in before[folder]["list"]]
        unseen = sum(1 for one in rest if b"\\Seen" not in one[1])
        expected["INBOX"] |= {"list": rest, "messages": len(rest), "unseen": unseen}
        assert after == expected

    asyncio.run(work())


@pytest.mark.peer
def test_what_is_gone_is_told_by_the_server(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """QRESYNC (RFC 7162): the folder need not be listed again to know what was removed, while connected and after."""
    searched: list[str] = []
    search = imap_session.Session.search

    def noting(session: imap_session.Session, *criteria: str) -> list[int]:
        searched.append(criteria[0])
        return search(session, *criteria)

    monkeypatch.setattr(imap_session.Session, "search", noting)

    async def work() -> None:
        with client(server.port, BOX) as box:
            for raw in numbered(6):
                box.append("INBOX", raw)
            box.select_folder("INBOX")
            async with reading(tmp_path, server) as one:
                await one.until(STATES, ["taken"] * 6)
                folders = len([name for name in view(server.port, BOX)])
                await one.until("select count(*) from imap_folder where success_at is not null", [folders])
                listed = searched.count("ALL")  # the first look at each folder
                box.delete_messages([2, 3])
                box.expunge()
                await one.until("select uid from imap_message where gone_at is not null order by uid", [2, 3])
                await one.end()
                box.delete_messages([5])
                box.expunge()
                box.append("INBOX", b"Subject: new\r\n\r\n\r\n")
                await one.start()
                await one.until("select uid from imap_message where gone_at is not null order by uid", [2, 3, 5])
                await one.until("select count(*) from imap_message where state = 'taken'", [7])
                assert searched.count("ALL") == listed

    asyncio.run(work())


@pytest.mark.peer
@NEEDS_DOVECOT
@pytest.mark.parametrize(("tls", "auth"), [("implicit", "plain"), ("implicit", "xoauth2"), ("starttls", "login")])
def test_encrypted_and_by_every_login(tmp_path: Path, open_folder: Path, tls: str, auth: str) -> None:
    async def work() -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        dovecot = peers.Dovecot(open_folder / "dovecot", PASSWORD, authority.issue_cert("localhost"), {"tok": BOX})
        dovecot.start()
        try:
            port = dovecot.tls_port if tls == "implicit" else dovecot.port
            host = {"host": "localhost", "port": port, "tls": tls, "auth": auth, "ca": str(tmp_path / "ca.pem")}
            secret = "tok" if auth == "xoauth2" else PASSWORD
            async with reading(tmp_path, dovecot, host=host, secret=secret) as one:
                await one.until("select success_at is not null, error from imap_folder", [(1, "")])
                # a wrong secret, and a certificate of somebody else, are told and not worked around
                (tmp_path / "pass").write_text("wrong\n")
                await one.end()
                await one.start()
                await one.until("select error like '%login refused%' from imap_folder", [1])
                (tmp_path / "pass").write_text(secret + "\n")
                await one.until("select error from imap_folder", [""])
                await one.end()
                trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
                await one.start()
                await one.until("select error like '%certificate verify failed%' from imap_folder", [1])
        finally:
            dovecot.stop()

    asyncio.run(work())


@pytest.mark.peer
@NEEDS_DOVECOT
def test_the_password_comes_from_the_service_manager(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        dovecot = peers.Dovecot(open_folder / "dovecot", PASSWORD).start()
        try:
            monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
            (tmp_path / "ubnd").write_text(PASSWORD + "\n")
            account = {"address": BOX, "credential": "ubnd"}
            async with reading(tmp_path, dovecot, host={"accounts": [account]}) as one:
                await one.until("select success_at is not null, error from imap_folder", [(1, "")])
        finally:
            dovecot.stop()

    asyncio.run(work())
