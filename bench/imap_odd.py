"""What is odd in a mailbox: malformed messages through the whole way, and very large ones; on a real Dovecot.

    ./run measure imap_odd --messages 500 --big 50,100 --seed 1

The messages of `mime_corpus.py` (crafted, put together from odd pieces, mutated) lie in one mailbox between ordinary
ones, the large ones in another. The whole daemon reads them. Every message must be archived with exactly the bytes that
the server gives, none may keep another waiting, and no flag may change. Reports how many there were, what inspection
said of them, and the largest resident memory of the daemon and of a worker in each part.
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import hashlib
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from imapclient import IMAPClient

from bench import mime_corpus
from bench.imap_kills import PASSWORD, letter
from tests import harness, peers

ODD, LARGE = f"le@{harness.OURS}", f"lon@{harness.OURS}"


def odd(count: int, rng: random.Random) -> list[bytes]:
    mails = list(mime_corpus.crafted().values())
    while len(mails) < count:
        maker = rng.choice((mime_corpus.odd_mail, mime_corpus.odd_tree, None))
        mails.append(maker(rng) if maker else mime_corpus.mutate(rng, mails[:100]))
    return mails[:count]


def large(mebibytes: int, rng: random.Random) -> bytes:
    """A letter with one file, as base64: so many MiB as a whole."""
    head = (
        f"From: nguoidan@citizen.example\r\nTo: {LARGE}\r\nSubject: {mebibytes} MiB\r\n"
        f"Message-ID: <{mebibytes}@citizen.example>\r\nMIME-Version: 1.0\r\n"
        'Content-Type: application/octet-stream; name="tep.bin"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    ).encode()
    lines = (mebibytes << 20) // 78
    return head + base64.encodebytes(rng.randbytes(lines * 57)).replace(b"\n", b"\r\n")


def put(mails: list[bytes], folder: Path) -> None:
    """Into a Maildir, where a server must take them as they are."""
    for part in ("cur", "new", "tmp"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(mails):
        path = folder / "cur" / f"17730{number:05}.M{number}P1.may:2,{'S' if number % 2 else ''}"
        path.write_bytes(raw.replace(b"\r\n", b"\n"))
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")


def given(port: int, address: str) -> dict[str, tuple[Any, ...]]:
    """What the server gives: digest to flags of every message."""
    found = {}
    with IMAPClient("127.0.0.1", port, ssl=False, timeout=60) as box:
        box.login(address, PASSWORD)
        box.select_folder("INBOX", readonly=True)
        for uid in box.search("ALL"):
            one = box.fetch([uid], ["BODY.PEEK[]", "FLAGS"])[uid]
            found[hashlib.sha256(one[b"BODY[]"]).hexdigest()] = tuple(sorted(set(one[b"FLAGS"]) - {b"\\Recent"}))
    return found


class Memory:
    """The largest resident memory, in MiB, of a process and of its children, sampled twenty times a second."""

    def __init__(self, pid: int) -> None:
        self.pid, self.main, self.worker = pid, 0, 0
        self._end = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            children: list[str] = []
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            self.main = max(self.main, self._of(self.pid))
            self.worker = max([self.worker, *(self._of(int(one)) for one in children)])

    def _of(self, pid: int) -> int:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) >> 10
        return 0

    def take(self) -> tuple[int, int]:
        found = (self.main, self.worker)
        self.main = self.worker = 0
        return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=500)
    options.add_argument("--big", default="50,100", help="sizes in MiB")
    options.add_argument("--seed", type=int, default=1)
    arguments = options.parse_args()
    rng = random.Random(arguments.seed)
    sizes = [int(one) for one in arguments.big.split(",") if one]
    with tempfile.TemporaryDirectory(prefix="congvan-imap-odd-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        dovecot = peers.Dovecot(folder / "dovecot", PASSWORD)
        mixed = [
            mail
            for number, raw in enumerate(odd(arguments.messages, rng))
            for mail in (raw, *((letter(f"t{number}", "clean", 500),) if number % 10 == 0 else ()))
        ]
        put(mixed, dovecot.folder / "mail" / ODD)
        put([], dovecot.folder / "mail" / LARGE)
        dovecot.start()
        (folder / "pass").write_text(PASSWORD)
        accounts = ", ".join(f"{{address: {one}, password_file: {folder}/pass}}" for one in (ODD, LARGE))
        config = harness.write_config(
            folder, hop_port=1, auth_port=1,
            extra="limits: {free_disk: 0}\nimap: {poll: 2s, action: leave, secret: flag, servers: "
            f"[{{host: 127.0.0.1, port: {dovecot.port}, tls: none, accounts: [{accounts}]}}]}}\n",
        )  # fmt: skip
        expected = given(dovecot.port, ODD)
        gateway = harness.Gateway(config).start(180)
        assert gateway.process is not None
        memory = Memory(gateway.process.pid)

        def until(count: int, seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with sqlite3.connect(gateway.data / "gateway.db", timeout=20) as base:
                    done = base.execute("select count(*) from imap_message where taken_at is not null").fetchone()[0]
                if done >= count:
                    return
                time.sleep(0.2)

        began = time.monotonic()
        until(len(mixed), 1200)
        seconds = time.monotonic() - began
        of_odd, peaks = memory.take(), {}
        for number, size in enumerate(sizes, 1):
            path = dovecot.folder / "mail" / LARGE / "new" / f"18{number}.M1P1.may"
            path.write_bytes(large(size, rng).replace(b"\r\n", b"\n"))
            shutil.chown(path, "nobody", "nogroup")
            until(len(mixed) + number, 600)
            peaks[f"{size}_mib"] = dict(zip(("daemon_rss_mib", "worker_rss_mib"), memory.take(), strict=True))
        after, big = given(dovecot.port, ODD), given(dovecot.port, LARGE)
        with sqlite3.connect(gateway.data / "gateway.db", timeout=20) as base:
            archived = {row[0] for row in base.execute("select sha256 from message where kind = 'mail'")}
            states = dict(base.execute("select state, count(*) from imap_message group by 1"))
            verdicts = collections.Counter(row[0] for row in base.execute("select verdict from message"))
            gaps = base.execute("select count(*) from imap_message where tries > 0").fetchone()[0]
        code = gateway.stop()
        gateway.command("archive", "verify")
        dovecot.stop()
    wanted, changed = set(expected) | set(big), sum(1 for digest in expected if after.get(digest) != expected[digest])
    result = {
        "measurement": "imap_odd", "seed": arguments.seed, "messages": len(mixed), "different": len(expected),
        "large_mib": sizes, "states": states, "secrets": states.get("secret", 0),
        "not_archived": len(wanted - archived) - states.get("secret", 0), "retried": gaps, "verdicts": dict(verdicts),
        "flags_changed": max(0, changed - states.get("secret", 0)),
        "per_second": round(len(mixed) / seconds, 1), "odd_daemon_rss_mib": of_odd[0], "odd_worker_rss_mib": of_odd[1],
        "large": peaks, "exit": code,
    }  # fmt: skip
    print(json.dumps(result))
    sys.exit(1 if result["not_archived"] > 0 or result["flags_changed"] or code else 0)


if __name__ == "__main__":
    main()
