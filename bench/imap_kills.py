"""R14: SIGKILL at random moments while mailboxes are imported and offending mail is moved, on a real Dovecot.

    ./run measure imap_kills --kills 500 --seed 1

A child process holds poller, pipeline, policy and archive as the daemon does; only the inspection workers are left out
(their two seconds to start would be most of each life): facts come from `mime.py` and the marks of secrecy from
`secrecy.py`, in the child. It is killed 0.05 to 1.2 seconds after it began to read, while the parent delivers more
mail. At the end it may finish, and then: every message that was ever delivered is archived once (a secret: has one
tombstone and no copy), counted once, lies in exactly one folder, the right one, with its bytes, flags and date.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import datetime as dt
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from imapclient import IMAPClient

from tests import harness, peers
from tests.facts import Facts

PASSWORD = "mat-khau-dung"
FLAGS = ([], [b"\\Seen"], [b"\\Flagged"], [b"\\Seen", b"\\Answered"], [b"viec-can-lam"])


async def child(config_path: Path) -> None:
    """What the daemon does, with `Facts` for its inspector."""
    from gateway import config
    from gateway import log as logs
    from gateway.archive import Archive
    from gateway.daemon import read_rules
    from gateway.database import Database
    from gateway.imap_poll import Poller
    from gateway.pipeline import Pipeline
    from gateway.store import Store

    settings = config.read(config_path)
    assert settings.imap is not None
    settings.data.mkdir(exist_ok=True)
    database = Database.open(settings.database_url)
    archive = Archive(database, Store(settings.data / "blobs"), settings)
    await archive.start()
    pipeline = Pipeline(
        settings, read_rules(config_path), inspector=Facts(), archive=archive, wake=lambda: None, log=logs.get(),
        mail_log=logs.MailLog((settings.data / "mail.log").open("a")), data=settings.data,
    )  # fmt: skip
    poller = Poller(settings.imap, pipeline, database, logs.get(), spill=settings.data, limits=settings.limits)
    print("reading", flush=True)
    await poller.run(asyncio.Event())


def letter(name: str, kind: str, size: int) -> bytes:
    text = {"clean": "Kính gửi quý cơ quan.", "secret": "TỐI MẬT", "bad": "Kính gửi quý cơ quan."}[kind]
    filler = "".join(f"{'x' * 70}\r\n" for _ in range(size // 72))
    return (
        f"Return-Path: <nguoidan@citizen.example>\r\nFrom: nguoidan@citizen.example\r\nTo: ubnd@{harness.OURS}\r\n"
        f"Subject: {name}\r\nMessage-ID: <{name}@citizen.example>\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n{filler}"
    ).encode()


class Mailboxes:
    """The server side: what was put where, and what lies there now."""

    def __init__(self, port: int, addresses: list[str], rng: random.Random) -> None:
        self.port, self.addresses, self.rng = port, addresses, rng
        self.put: dict[str, tuple[str, str, bytes, frozenset[bytes], int]] = {}

    def client(self, address: str) -> IMAPClient:
        made = IMAPClient("127.0.0.1", self.port, ssl=False, timeout=30)
        made.normalise_times = False
        made.login(address, PASSWORD)
        return made

    def deliver(self, count: int) -> None:
        address = self.rng.choice(self.addresses)
        with self.client(address) as box:
            for _ in range(count):
                name = f"r{len(self.put)}"
                kind = self.rng.choices(("clean", "secret"), (4, 1))[0]
                raw = letter(name, kind, self.rng.choice((0, 2000, 2000, 80_000, 600_000)))
                flags = self.rng.choice(FLAGS)
                when = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(seconds=self.rng.randrange(3600))
                box.append("INBOX", raw, flags, when)
                self.put[name] = (address, kind, raw, frozenset(flags), int(when.timestamp()))

    def now(self) -> dict[str, list[tuple[str, str, bytes, frozenset[bytes], int]]]:
        found = collections.defaultdict(list)
        for address in self.addresses:
            with self.client(address) as box:
                for _, _, folder in box.list_folders():
                    box.select_folder(folder, readonly=True)
                    for uid in box.search("ALL"):
                        one = box.fetch([uid], ["BODY.PEEK[]", "FLAGS", "INTERNALDATE"])[uid]
                        raw = one[b"BODY[]"]
                        name = re.search(rb"Subject: (r\d+)", raw)
                        flags = frozenset(one[b"FLAGS"]) - {b"\\Recent"}
                        at = int(one[b"INTERNALDATE"].timestamp())
                        found[name[1].decode() if name else "?"].append((address, folder, raw, flags, at))
        return found


class Nursery:
    """A process that has imported everything and forks one child for each life: a start takes milliseconds."""

    def __init__(self, config: Path, log: Path) -> None:
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.imap_kills", "--nursery", str(config)],
                cwd=harness.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True, bufsize=1,
            )  # fmt: skip
        self.log = log

    def start(self) -> int:
        """The process id of a child that has begun to read."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("start\n")
        pid = int(self.process.stdout.readline())
        if self.process.stdout.readline() != "reading\n":
            raise AssertionError(self.log.read_text()[-3000:])
        return pid

    def kill(self, pid: int) -> None:
        """Returns when the child is gone."""
        assert self.process.stdin is not None and self.process.stdout is not None
        os.kill(pid, signal.SIGKILL)
        self.process.stdin.write("wait\n")
        self.process.stdout.readline()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def nurse(config: Path) -> None:
    import gateway.daemon  # noqa: F401  (all that a child needs, before the first fork)
    from gateway import log as logs
    from gateway import mime  # noqa: F401
    from gateway.inspection import secrecy  # noqa: F401

    logs.configure(level="ERROR")  # to stderr: stdout speaks to the parent
    pid = 0
    while order := sys.stdin.readline():
        if order == "start\n":
            pid = os.fork()
            if not pid:
                asyncio.run(child(config))
                os._exit(1)
            print(pid, flush=True)
        else:
            os.waitpid(pid, 0)
            print("gone", flush=True)


def ask(data: Path, statement: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(data / "gateway.db", timeout=20) as base:
        return base.execute(statement).fetchall()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=500)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--copy", action="store_true", help="read without MOVE: COPY and UID EXPUNGE")
    options.add_argument("--nursery", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.nursery:
        if os.environ.get("CONGVAN_NO_MOVE"):
            from gateway import imap_session

            connect = imap_session.Session.connect

            def without_move(session: Any) -> None:
                connect(session)
                session.capabilities.discard("MOVE")

            imap_session.Session.connect = without_move  # type: ignore[method-assign]
        nurse(arguments.nursery)
        return
    if arguments.copy:
        os.environ["CONGVAN_NO_MOVE"] = "1"
    rng = random.Random(arguments.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="congvan-imap-kills-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        dovecot = peers.Dovecot(folder / "dovecot", PASSWORD).start()
        addresses = [f"hop-thu-{number}@{harness.OURS}" for number in range(4)]
        boxes = Mailboxes(dovecot.port, addresses, rng)
        boxes.deliver(30)
        (folder / "pass").write_text(PASSWORD)
        accounts = ", ".join(f"{{address: {one}, password_file: {folder}/pass}}" for one in addresses)
        config = harness.write_config(
            folder,
            hop_port=1,
            auth_port=1,
            extra="limits: {free_disk: 0}\nimap: {poll: 0.3s, action: move, act_on_history: true, servers: "
            f"[{{host: 127.0.0.1, port: {dovecot.port}, tls: none, accounts: [{accounts}]}}]}}\n",
        )
        data, log = folder / "data", folder / "child.log"
        nursery = Nursery(config, log)
        for kill in range(arguments.kills):
            process = nursery.start()
            end = time.monotonic() + rng.uniform(0.05, 1.2)
            boxes.deliver(rng.choice((1, 2, 3)))
            time.sleep(max(0.0, end - time.monotonic()))  # the moment of the kill is the measurement, not a wait
            nursery.kill(process)
            if kill % 50 == 49:
                print(f"{kill + 1} kills, {len(boxes.put)} delivered", file=sys.stderr, flush=True)
        # What was interrupted often waits up to an hour for its next try; the end of the measurement does not.
        process = nursery.start()
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            with sqlite3.connect(data / "gateway.db", timeout=20) as base:
                base.execute("update imap_action set next_at = 0 where done_at is null")
                base.execute("update imap_message set next_at = 0 where state = 'missing'")
            ready = ask(data, "select count(*) from imap_message where state in ('taken', 'secret')")[0][0]
            if ready >= len(boxes.put) and ask(data, "select count(*) from imap_action where done_at is null") == [
                (0,)
            ]:
                break
            time.sleep(0.5)
        nursery.kill(process)
        nursery.close()
        result = check(boxes, data)
        verify = subprocess.run(
            [sys.executable, "-m", "gateway.cli", "archive", "verify", "--config", str(config)],
            cwd=harness.ROOT, check=False, capture_output=True,
        )  # fmt: skip
        dovecot.stop()
    result |= {
        "measurement": "imap_kills", "seed": arguments.seed, "kills": arguments.kills, "copy": arguments.copy,
        "archive_verify": verify.returncode, "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(result))
    bad = ("missing", "archived_twice", "secret_copied", "tombstones_wrong", "miscounted", "misplaced", "changed")
    sys.exit(1 if any(result[one] for one in bad) or verify.returncode else 0)


def check(boxes: Mailboxes, data: Path) -> dict[str, Any]:
    """Hold what was delivered against archive, tombstones, counts and mailboxes."""
    archived = collections.Counter(row[0] for row in ask(data, "select sha256 from message where kind = 'mail'"))
    counted = ask(data, "select count(*) from event where kind = 'received'")[0][0]
    tombstones = ask(data, "select count(*) from tombstone")[0][0]
    clean = {name: one for name, one in boxes.put.items() if one[1] == "clean"}
    digests = {name: hashlib.sha256(one[2]).hexdigest() for name, one in boxes.put.items()}
    secrets = {name for name in boxes.put if name not in clean}
    found = boxes.now()
    misplaced = changed = 0
    for name, (address, kind, raw, flags, at) in boxes.put.items():
        places = found.get(name, [])
        wanted = {"INBOX"} if kind == "clean" else {"Thư hạn chế"}
        if len(places) != 1 or places[0][0] != address or places[0][1] not in wanted:
            # What was archived but breaks a rule lies in the other folder.
            moved = kind == "clean" and len(places) == 1 and places[0][1] == "Thư cần xử lý"
            misplaced += not moved
        if any((one[2], one[3], one[4]) != (raw, flags, at) for one in places):
            changed += 1
    return {
        "delivered": len(boxes.put),
        "secrets": len(secrets),
        "missing": sum(1 for name in clean if not archived[digests[name]]),
        "archived_twice": sum(1 for times in archived.values() if times > 1),
        "secret_copied": sum(1 for name in secrets if archived[digests[name]]),
        "tombstones_wrong": abs(tombstones - len(secrets)),
        "miscounted": abs(counted - len(clean)),
        "misplaced": misplaced,
        "changed": changed,
        "moves": dict(ask(data, "select result, count(*) from imap_action group by 1")),
        "moves_interrupted": ask(data, "select count(*) from imap_action where tries > 1")[0][0],
    }


if __name__ == "__main__":
    main()
