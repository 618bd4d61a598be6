"""Mailboxes that are read: against a real Dovecot, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient

from tests import harness, peers
from tests.test_gateway import SECRETS, letter, query

PASSWORD = "mat-khau-dung"
BOX = f"ubnd@{harness.OURS}"
OTHER = f"vanthu@{harness.OURS}"

NEEDS_DOVECOT = pytest.mark.skipif(bool(peers.missing("dovecot")), reason=peers.missing("dovecot") or "-")


def until(ask: Callable[[], Any], seconds: float = 20) -> Any:
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
    made = IMAPClient("127.0.0.1", port, ssl=False, timeout=20)
    made.normalise_times = False
    made.login(address, PASSWORD)
    return made


@pytest.fixture
def dovecot(open_folder: Path) -> Iterator[peers.Dovecot]:
    made = peers.Dovecot(open_folder / "dovecot", PASSWORD).start()
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
        assert one.stop() == 0, one.log.read_text()[-4000:]


def rows(gateway: harness.Gateway, statement: str) -> list[tuple]:
    with contextlib.suppress(Exception):
        return query(gateway, statement)
    return []


def taken(gateway: harness.Gateway) -> list[str]:
    return [one[0] for one in rows(gateway, "select state from imap_message order by folder, uid")]


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
    found = []
    for number, (case,) in enumerate(query(gateway, "select id from message where kind = 'mail' order by id")):
        path = gateway.data / f"out{number}.eml"
        gateway.command("archive", "export", case, "-o", str(path))
        found.append(path.read_bytes())
    return found


@pytest.mark.peer
@NEEDS_DOVECOT
def test_history_is_taken_and_nothing_in_the_mailbox_changes(dovecot: peers.Dovecot, start: Start) -> None:
    when = dt.datetime(2026, 3, 2, 9, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
    mail = [letter(subject=f"Thư số {n}") for n in range(5)]
    sent = letter(subject="Trả lời", sender=BOX)
    with client(dovecot.port, BOX) as box:
        for number, raw in enumerate(mail):
            box.append("INBOX", raw, [b"\\Seen"] if number % 2 else [b"\\Flagged"], when)
        box.create_folder("Đã gửi")
        box.append("Đã gửi", sent, [b"\\Seen"], when)
    before = view(dovecot.port, BOX)
    gateway = start(imap_settings(dovecot.port, BOX))
    until(lambda: taken(gateway) == ["taken"] * 6)
    assert view(dovecot.port, BOX) == before
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
        ("Đã gửi", 1, 0, 0),
    ]


@pytest.mark.peer
@NEEDS_DOVECOT
def test_new_mail_is_archived_at_once_and_what_offends_is_moved(dovecot: peers.Dovecot, start: Start) -> None:
    with client(dovecot.port, BOX) as box:
        gateway = start(imap_settings(dovecot.port, BOX, more="poll: 60s\n  action: move").replace("poll: 1s\n", "\n"))
        until(lambda: rows(gateway, "select success_at from imap_folder where success_at is not null"))
        clean = letter(subject="Thư mới")
        box.append("INBOX", clean)
        until(lambda: taken(gateway) == ["taken"])  # well within the poll of a minute: IDLE told

        box.append("INBOX", SECRETS["body"], [b"\\Flagged"])
        until(lambda: rows(gateway, "select result from imap_action") == [("done",)])
        assert taken(gateway) == ["taken", "secret"]
        seen = view(dovecot.port, BOX)
        assert [one[0] for one in seen["INBOX"]] == [clean]
        assert [one[:2] for one in seen["Thư hạn chế"]] == [(SECRETS["body"], (b"\\Flagged",))]
        assert query(gateway, "select count(*) from tombstone") == [(1,)]
        assert archived(gateway) == [clean]

        case = query(gateway, "select id from tombstone")[0][0]
        gateway.command("imap", "release", case, "--reason", "không phải tài liệu mật")
        until(lambda: rows(gateway, "select result from imap_action where kind = 'release'") == [("done",)])
        until(lambda: taken(gateway) == ["taken", "secret", "secret"])
        seen = view(dovecot.port, BOX)
        assert [one[0] for one in seen["INBOX"]] == [clean, SECRETS["body"]]
        assert seen["Thư hạn chế"] == []
        assert query(gateway, "select count(*) from tombstone") == [(1,)]
        assert query(gateway, "select kind, result from imap_action") == [("move", "done"), ("release", "done")]
    gateway.stop()
    for path in gateway.data.rglob("*"):
        if path.is_file():
            assert b"Kim Quy" not in path.read_bytes(), path
