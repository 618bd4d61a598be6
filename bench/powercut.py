"""R3: power cuts. A file system is shut down under the gateway at random moments, its journal not written.

    ./run measure powercut --fs ext4 --cuts 100 --seed 1 [--sparse] [--peer postfix] [--careless normal]

Needs root and loop devices. The data folder lies on a loop-mounted file system. Clients send over SMTP and note each
`250`. Each cut: the harness stops counting, calls the shutdown ioctl (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN; both with
NOLOGFLUSH: what is not on the disk is gone), kills the server, mounts again (journal replay) and looks: every message
acknowledged so far is there with its bytes, its recipient and its leaf. The server then starts by itself for the next
cut; `archive verify` runs after each tenth and at the end, with a last look at all that was ever acknowledged.

--sparse         one message in 0.4 s, as in quiet traffic; else four clients without a pause
--peer postfix   the same cuts under a private Postfix with its queue on the file system and its next hop down
--careless       must lose mail, and shows that this harness can see a loss: `normal` is SQLite with
                 synchronous=NORMAL, `folder` leaves out the fsync of directories, `file` that of files too

The gateway runs without its inspection workers: they take seconds to start, and touch no disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import random
import signal
import smtplib
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from gateway import daemon, database, durable
from gateway import log as logs
from gateway.archive import Archive
from gateway.audit import audit
from gateway.inspection.findings import Inspection, Mailbox, MessageFacts
from gateway.message import Body
from gateway.store import Store
from tests import harness, peers

#: _IOR('X', 125, __u32), linux/ext4.h and xfs_fs.h; 2 is NOLOGFLUSH in both.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, (2).to_bytes(4, "little")
SIZES = (300, 4096, 4096, 60_000)
LINE = "x" * 76 + "\r\n"
SENDER = "nguoidan@citizen.example"

#: A message that was acknowledged: the server's name for it, and the SHA-256 of its bytes.
Told = tuple[str, str]


class Clients:
    """Threads that send until they are stopped. `told` grows only while somebody counts."""

    def __init__(self, port: int, seed: int, count: int, pause: float) -> None:
        self.told: list[Told] = []
        self.first = threading.Event()
        self._port, self._pause = port, pause
        self._lock, self._counting, self._stop = threading.Lock(), True, threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(random.Random(seed + n),), daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def freeze(self) -> list[Told]:
        """What was acknowledged up to now; nothing counts any more."""
        with self._lock:
            self._counting = False
            return list(self.told)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client = smtplib.SMTP("127.0.0.1", self._port, local_hostname="client.example", timeout=5)
                try:
                    while not self._stop.is_set():
                        self._one(client, chance)
                        if self._pause:
                            self._stop.wait(self._pause)
                finally:
                    client.close()
            self._stop.wait(0.02)

    def _one(self, client: smtplib.SMTP, chance: random.Random) -> None:
        name, size = f"{chance.getrandbits(64):016x}", chance.choice(SIZES)
        raw = (
            f"Date: Fri, 20 Nov 2026 08:30:00 +0700\r\nFrom: {SENDER}\r\nTo: ubnd@{harness.OURS}\r\n"
            f"Subject: {name}\r\nMessage-ID: <{name}@citizen.example>\r\n\r\n{name}\r\n"
            + f"{'x' * 76}\r\n"
            * (size // 78)
        ).encode()
        client.ehlo_or_helo_if_needed()
        client.mail(SENDER)
        client.rcpt(f"ubnd@{harness.OURS}")
        code, answer = client.data(raw)
        if code == 250:
            with self._lock:
                if self._counting:
                    self.told.append((answer.decode().split()[-1], hashlib.sha256(raw).hexdigest()))
            self.first.set()
        else:
            client.rset()


# ---------------------------------------------------------------------- the servers


class Facts:
    """Instead of the inspection: nothing is found."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        pass

    async def message(self, _body: Body) -> Inspection:
        return Inspection(message=MessageFacts(from_=(Mailbox(address=SENDER),), subject="x", body_text="x"))


def serve(prepared: daemon.Daemon, careless: str, ready: int, log: Path) -> None:
    """Run the daemon, in a process of its own; tell its port once it listens."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logs.configure()
    prepare = database._prepare_sqlite
    if careless:

        def hurried(connection: sqlite3.Connection, record: object) -> None:
            prepare(connection, record)
            connection.execute("PRAGMA synchronous=NORMAL")

        if careless in ("normal", "file"):
            database._prepare_sqlite = hurried
        if careless in ("folder", "file"):
            durable.sync_folder = lambda path: None
        if careless == "file":
            durable.sync = lambda handle: None
    daemon.Inspector = Facts  # type: ignore[misc, assignment]

    async def tell(running: daemon.Daemon) -> None:
        os.write(ready, f"{running.ports['relay']}\n".encode())
        await asyncio.Event().wait()

    asyncio.run(prepared.run(tell))


class Ours:
    """The gateway, forked off when it has read its configuration, which takes longest."""

    def __init__(self, folder: Path, mount: Path, careless: str) -> None:
        self._careless, self._mount, self._log = careless, mount, folder / "gateway.log"
        (mount / "data").mkdir()
        (folder / "data").symlink_to(mount / "data")
        extra = "limits: {free_disk: 0, message_size: 1MB, new_connections_per_minute: 100000}\n"
        config = harness.write_config(folder, hop_port=peers.free_port(), auth_port=9, extra=extra)
        self._daemon = daemon.Daemon(config)

    def start(self) -> int:
        told, ready = os.pipe()
        self._pid = os.fork()  # the clients' threads have ended
        if self._pid == 0:
            try:
                serve(self._daemon, self._careless, ready, self._log)
            finally:
                os._exit(1)
        os.close(ready)
        with os.fdopen(told) as port:
            if line := port.readline():
                return int(line)
        raise SystemExit(f"it does not start:\n{self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def lost(self, told: list[Told]) -> list[str]:
        """Opened as any reader would: SQLite recovers from its log by itself."""
        found, store = [], Store(self._mount / "data" / "blobs")
        with contextlib.closing(sqlite3.connect(self._mount / "data" / "gateway.db")) as base:
            if not base.execute("SELECT 1 FROM sqlite_master WHERE name = 'leaf'").fetchone():
                return [case for case, _ in told]
            for case, sha256 in told:
                row = base.execute(
                    "SELECT (SELECT count(*) FROM recipient WHERE message = m.id AND state = 'queued'),"
                    " (SELECT count(*) FROM leaf WHERE case_id = m.id AND type = 'message')"
                    " FROM message m WHERE id = ? AND sha256 = ?",
                    (case, sha256),
                ).fetchone()
                if row != (1, 1) or store.problem(sha256):
                    found.append(case)
        return found

    def damage(self) -> list[str]:
        async def look() -> list[str]:
            settings = self._daemon.settings
            archive = Archive(database.Database.open(settings.database_url), Store(settings.data / "blobs"), settings)
            try:
                report = await asyncio.to_thread(audit, archive)
                return [f"{one.kind} {one.leaf} {one.detail}" for one in report.damage]
            finally:
                await archive.close()
                archive.database.close()

        return asyncio.run(look())


class Postfix:
    """The peer: its queue on the file system, everything else beside it."""

    def __init__(self, folder: Path, mount: Path) -> None:
        spool = mount / "spool"
        spool.mkdir()
        for path in (folder, mount):
            path.chmod(0o755)
        self._postfix = peers.Postfix(
            folder / "postfix", relay_port=peers.free_port(), settings=f"queue_directory = {spool}\n"
        )
        self._postfix.spool = self._spool = spool

    def start(self) -> int:
        self._postfix.start()
        self._master = self._postfix.pid
        return self._postfix.port

    def kill(self) -> None:
        family = [self._master]
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if path.read_text().rpartition(")")[2].split()[1] == str(self._master):
                    family.append(int(path.parent.name))
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def lost(self, told: list[Told]) -> list[str]:
        parts = ("incoming", "active", "deferred", "maildrop", "hold")
        there = {path.name for part in parts for path in (self._spool / part).rglob("*") if path.is_file()}
        return [
            name
            for name, sha256 in told
            if name not in there or hashlib.sha256(self._bytes(name)).hexdigest() != sha256
        ]

    def _bytes(self, name: str) -> bytes:
        """The message as the queue file holds it, without the Received field that Postfix put on top."""
        words = ["postcat", "-c", str(self._postfix.etc), "-hbq", name]
        shown = subprocess.run(words, capture_output=True, check=False).stdout
        return shown[max(0, shown.find(b"Date: Fri, 20 Nov 2026")) :].replace(b"\n", b"\r\n")

    def damage(self) -> list[str]:
        return [f"set aside: {path.name}" for path in (self._spool / "corrupt").iterdir()]


# ---------------------------------------------------------------------- the cuts


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def unmount(mount: Path) -> None:
    for _ in range(100):
        if subprocess.run(["umount", str(mount)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise SystemExit(f"{mount} stays busy")


def pull_the_plug(mount: Path) -> None:
    handle = os.open(mount, os.O_RDONLY)
    fcntl.ioctl(handle, SHUTDOWN, NO_LOG_FLUSH)
    os.close(handle)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fs", choices=("ext4", "xfs"), default="ext4")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--peer", choices=("gateway", "postfix"), default="gateway")
    parser.add_argument("--careless", choices=("normal", "folder", "file"), default="")
    given = parser.parse_args()
    chance, began = random.Random(given.seed), time.monotonic()
    acknowledged: list[Told] = []
    lost: list[str] = []
    damaged: list[str] = []
    empty = unlucky = 0
    with tempfile.TemporaryDirectory(prefix="congvan-cut-") as name:
        folder = Path(name)
        image, mount = folder / "image", folder / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(2 << 30)
        run(*(["mkfs.ext4", "-q", "-F"] if given.fs == "ext4" else ["mkfs.xfs", "-q"]), str(image))
        run("mount", "-o", "loop", str(image), str(mount))
        try:
            server = Postfix(folder, mount) if given.peer == "postfix" else Ours(folder, mount, given.careless)
            os.sync()
            for cut in range(given.cuts):
                try:
                    port = server.start()
                except SystemExit:
                    if not given.careless:
                        raise
                    damaged.append(f"does not start after cut {cut}")
                    break
                pause = 0.4 if given.sparse else 0.0
                clients = Clients(port, chance.getrandbits(32), 1 if given.sparse else 4, pause)
                clients.first.wait(20)
                time.sleep(chance.uniform(0.1, 1.6) if given.sparse else chance.uniform(0, 1))  # the moment is random
                mine = clients.freeze()  # only what was told before the plug is pulled counts
                pull_the_plug(mount)
                server.kill()
                clients.end()
                unmount(mount)
                run("mount", "-o", "loop", str(image), str(mount))
                empty += not mine
                acknowledged += mine
                last = cut == given.cuts - 1
                gone = server.lost(acknowledged if last else mine)
                unlucky += bool(gone)
                lost += [one for one in gone if one not in lost]
                if last or cut % 10 == 9:
                    damaged += server.damage()
                print(f"cut {cut + 1}: {len(mine)} acknowledged, {len(gone)} lost", file=sys.stderr, flush=True)
        finally:
            unmount(mount)
    result = {
        "measurement": "powercut",
        "peer": given.peer,
        "fs": given.fs,
        "traffic": "sparse" if given.sparse else "dense",
        "careless": given.careless,
        "seed": given.seed,
        "cuts": given.cuts,
        "acknowledged": len(acknowledged),
        "lost": len(lost),
        "cuts_with_loss": unlucky,
        "cuts_without_mail": empty,
        "damaged": damaged,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(result))
    return 1 if bool(lost or damaged) != bool(given.careless) else 0


if __name__ == "__main__":
    sys.exit(main())
