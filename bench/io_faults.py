"""The disk fails under the archive (R4, R5, R6): nothing is acknowledged that is not there afterwards.

    ./run measure io_faults [--every 1] [--only syscalls|full|eio]

syscalls: the n-th fsync, fdatasync, write, pwrite64, rename or openat fails with EIO, ENOSPC, EDQUOT, EMFILE or EINTR,
          or writes nothing of what it was given, for n = 1, 1+every, … until no fault is met any more. Strace injects
          the faults into the commits alone: it is attached when the archive is open, and the messages come after. (Its
          option -P knows files, not folders: temporary files could not be met with it.)
full:     the whole gateway over SMTP on a file system of 64 MB that is filled to the brim between RCPT and DATA, then
          has room again (root and loop devices)
eio:      one fsync answers EIO: everything after it is refused until a restart
After each run the archive is opened again: every acknowledged message is there, the others are offered again and taken,
and it verifies clean.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import smtplib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import powercut
from gateway.audit import audit
from gateway.errors import Failure
from tests import harness
from tests.cases import case, close, mail, open_archive

#: What each call is made to answer. EMFILE is not an answer of write or fsync, but costs nothing to try.
CALLS = ("fsync", "fdatasync", "write", "pwrite64", "rename,renameat,renameat2", "openat")
FAULTS = ("error=EIO", "error=ENOSPC", "error=EDQUOT", "error=EMFILE", "error=EINTR")
NOTHING_WRITTEN = "retval=0"
MESSAGES = 3


async def write(folder: Path, tell: int, go: int) -> None:
    """Offer some messages; tell what was said to each: the case for yes, `later` for a failure that may be retried."""

    def say(line: str) -> None:
        os.writev(tell, [line.encode() + b"\n"])  # not write, which is made to fail

    archive = open_archive(folder)
    await archive.start()
    say("ready")
    os.read(go, 1)  # faults count from here
    for number in range(MESSAGES):
        try:
            receipt = await archive.commit(case(mail(number, 3000), number=number))
            say(f"yes {receipt.case}")
        except Failure as failure:
            say("later" if failure.retryable else "never")
        except Exception as error:
            say(f"unforeseen {type(error).__name__}")
        if number == 1:
            try:
                await archive.checkpoint()
            except Failure:
                say("unsigned")
    say("end")


def under_faults(folder: Path, log: Path, names: str, fault: str, when: int, paths: tuple[Path, ...] = ()) -> list[str]:
    """Run the writer, in a process of its own, with the n-th of these calls (on these paths, if given) failing.
    Returns what it told. It ends as a crash would: what was acknowledged must not need an orderly end."""
    telling, tell = os.pipe()
    go, going = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            asyncio.run(write(folder, tell, go))
        finally:
            os._exit(0)
    os.close(tell)
    os.close(go)
    with os.fdopen(telling) as told, os.fdopen(going, "wb", buffering=0) as started:
        if told.readline() != "ready\n":
            raise SystemExit("the writer does not start")
        inject = ["-e", f"trace={names}", "-e", f"inject={names}:{fault}:when={when}"]
        where = [value for path in paths for value in ("-P", str(path))]
        command = ["strace", "-f", "-o", str(log), *inject, *where, "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr
            while "attached" not in (line := tracer.stderr.readline()):
                if not line:
                    raise SystemExit("strace does not attach")
            started.write(b"1")
            lines = told.read().split("\n")
            os.waitpid(pid, 0)
    return lines


async def look(folder: Path, told: list[str]) -> list[str]:
    """What is wrong afterwards."""
    archive = open_archive(folder)
    await archive.start()
    wrong = []
    try:
        for line in told:
            if line.startswith("yes "):
                row = await archive.row(line[4:])
                if row is None or archive.store.problem(row["sha256"]):
                    wrong.append(f"lost {line[4:]}")
        for number in range(MESSAGES):  # the sender offers again what was not taken; all of it fits now
            await archive.commit(case(mail(number, 3000), number=number))
        await archive.checkpoint()
        report = await asyncio.to_thread(audit, archive)
        wrong += [f"{one.kind}: {one.detail}" for one in report.damage]
        if report.leaves != MESSAGES:
            wrong.append(f"{report.leaves} leaves of {MESSAGES} messages")
        return wrong
    finally:
        await close(archive)


def prepared(folder: Path) -> None:
    """Folders and tables are there, as in a running gateway."""

    async def work() -> None:
        archive = open_archive(folder)
        await archive.start()
        await close(archive)

    asyncio.run(work())


def syscalls(every: int) -> dict[str, object]:
    runs = met = refused = 0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name) / "empty"
        prepared(empty)
        for names in CALLS:
            for fault in (*FAULTS, *([NOTHING_WRITTEN] if "write" in names else [])):
                n, injected = 1, True
                while injected:
                    folder, log = Path(name) / "data", Path(name) / "strace.log"
                    shutil.copytree(empty, folder)
                    told = under_faults(folder, log, names, fault, n)
                    injected = "INJECTED" in log.read_text(errors="replace")
                    runs += 1
                    met += injected
                    refused += told.count("later")
                    if "never" in told or any(line.startswith("unforeseen") for line in told) or "end" not in told:
                        wrong.append(f"{names} {n} {fault}: {told}")
                    wrong += [f"{names} {n} {fault}: {one}" for one in asyncio.run(look(folder, told))]
                    shutil.rmtree(folder)
                    n += every
                print(f"{names} {fault}: {n} and {len(wrong)} wrong so far", file=sys.stderr, flush=True)
    return {"runs": runs, "faults_met": met, "answered_later": refused, "wrong": wrong}


def full() -> dict[str, object]:
    """A small disk runs full under the gateway: it says so, loses nothing, and takes mail when there is room."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, mount = folder / "image", folder / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(64 << 20)
        powercut.run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        powercut.run("mount", "-o", "loop", str(image), str(mount))
        server = powercut.Ours(folder, mount, "")
        try:
            return _full(server, mount)
        finally:
            server.kill()
            powercut.unmount(mount)


def _full(server: powercut.Ours, mount: Path) -> dict[str, object]:
    port, clients = server.start(), None
    wrong: list[str] = []
    answers: dict[str, str] = {}
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as smtp:
        smtp.ehlo()
        smtp.mail(powercut.SENDER)
        smtp.rcpt(f"ubnd@{harness.OURS}")
        with (mount / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            for piece in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(bytes(piece))
        for number in range(3):  # taken at MAIL, full at the dot; and so again for whoever got past MAIL
            if number:
                answers["mail"] = str(smtp.mail(powercut.SENDER)[0])
                continue
            answers["dot"] = str(smtp.data(f"Subject: {number}\r\n\r\n{powercut.LINE * 900}".encode())[0])
        (mount / "ballast").unlink()
        start = time.monotonic()
        while (code := smtp.mail(powercut.SENDER)[0]) != 250 and time.monotonic() - start < 30:
            time.sleep(0.1)
        answers["mail_again"] = str(code)
    clients = powercut.Clients(port, 1, 4, 0.0)
    taken = clients.first.wait(max(0.0, 30 - (time.monotonic() - start)))
    recovered = round(time.monotonic() - start, 2)
    time.sleep(1)  # some mail, to be looked for afterwards
    told = clients.freeze()
    clients.end()
    if not taken:
        wrong.append("no mail within 30 s of there being room")
    if answers["dot"][0] != "4" or answers["mail"][0] != "4":
        wrong.append(f"answers {answers}")
    server.kill()
    wrong += [f"lost {one}" for one in server.lost(told)] + server.damage()
    server.start()
    return {"answers": answers, "recovered_s": recovered, "acknowledged": len(told), "wrong": wrong}


def eio() -> dict[str, object]:
    """R6: after one failed fsync no second one is trusted."""
    wrong: list[str] = []
    for victim in ("store", "database"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve() / "data"
            prepared(folder)
            paths = tuple(folder / "blobs" / "sha256" / f"{n:02x}" for n in range(256))
            if victim == "database":
                paths = (Path(f"{folder / 'gateway.db'}-wal"),)
            when = 2
            told = under_faults(folder, Path(name) / "log", "fsync,fdatasync", "error=EIO", when, paths)
            told = [line for line in told if line.startswith(("yes", "later", "never", "unforeseen"))]
            words = [line.split()[0] for line in told]
            first = words.index("later") if "later" in words else None
            if first is None or set(words[first:]) != {"later"} or set(words[:first]) - {"yes"}:
                wrong.append(f"{victim}: {words}")
            wrong += [f"{victim}: {one}" for one in asyncio.run(look(folder, told))]
    return {"wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="1 tries every single call")
    parser.add_argument("--only", choices=("syscalls", "full", "eio"))
    given = parser.parse_args()
    results = {}
    for name, work in (("eio", eio), ("full", full), ("syscalls", lambda: syscalls(given.every))):
        if given.only in (None, name):
            began = time.monotonic()
            results[name] = work() | {"seconds": round(time.monotonic() - began)}
            print(json.dumps({"measurement": f"io_faults {name}", **results[name]}), flush=True)
    return 1 if any(one["wrong"] for one in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
