"""The disk fails under the archive (tests R4, R5, R6): nothing is acknowledged that is not there afterwards.

    python bench/io_faults.py [--every 5] [--only syscalls|full|eio] [--json]

syscalls: the n-th fsync, fdatasync, write, pwrite64, rename or openat fails with ENOSPC, EIO, EDQUOT, EMFILE or EINTR
          (strace fault injection), for n = 1, 1+every, … until no fault is met any more
full:     a file system of 24 MB runs full, then has room again (root and loop devices)
eio:      one fsync answers EIO: everything after it is refused until a restart
After each run the archive is opened again: every acknowledged message is there, and it verifies clean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gateway.audit import audit
from gateway.errors import Failure
from tests.cases import case, close, mail, open_archive

FAULTS = (
    ("fsync,fdatasync", "EIO"),
    ("fsync,fdatasync", "ENOSPC"),
    ("write,pwrite64", "ENOSPC"),
    ("write,pwrite64", "EDQUOT"),
    ("write,pwrite64", "EIO"),
    ("rename,renameat,renameat2", "EIO"),
    ("openat", "EMFILE"),
    ("fsync,fdatasync", "EINTR"),
)
MESSAGES = 8


def tell(line: str) -> None:
    os.writev(1, [line.encode() + b"\n"])  # not write, which is made to fail


async def write(folder: Path) -> None:
    """Offer some messages; print what was said to each: the case for yes, `later` for a failure that may be retried."""
    archive = open_archive(folder)
    await archive.start()
    tell("ready")
    sys.stdin.readline()  # faults count from here
    for number in range(MESSAGES):
        try:
            receipt = await archive.commit(case(mail(number, 3000), number=number))
            tell(f"yes {receipt.case}")
        except Failure as failure:
            tell("later" if failure.retryable else "never")
        except Exception as error:
            tell(f"unforeseen {type(error).__name__}")
        if number % 3 == 2:
            try:
                await archive.checkpoint()
            except Failure:
                tell("unsigned")
    tell("end")
    os._exit(0)  # as a crash would: what was acknowledged must not need an orderly end


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
    for names, fault in FAULTS:
        n = 1
        while True:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name).resolve() / "data"
                prepared(folder)
                log = Path(name) / "strace.log"
                told = under_faults(folder, log, names, fault, n)
                runs += 1
                injected = "INJECTED" in log.read_text(errors="replace")
                met += injected
                refused += told.count("later")
                if "never" in told or any(line.startswith("unforeseen") for line in told):
                    wrong.append(f"{names} {n} {fault}: {told}")
                # A fault before the first message may end the program: a start that fails acknowledges nothing.
                wrong += [f"{names} {n} {fault}: {one}" for one in asyncio.run(look(folder, told))]
            if not injected:
                break
            print(f"{names} {fault} {n}: {len(wrong)} wrong so far", file=sys.stderr, flush=True)
            n += every
    return {"runs": runs, "faults_met": met, "answered_later": refused, "wrong": wrong}


def under_faults(folder: Path, log: Path, names: str, fault: str, when: int, paths: tuple[Path, ...] = ()) -> list[str]:
    """Run the writer with the n-th of these calls (on these paths, if given) failing. Returns what it told."""
    command = [sys.executable, __file__, "--writer", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as writer:
        assert writer.stdin and writer.stdout
        if writer.stdout.readline() != "ready\n":
            raise RuntimeError("the writer does not start")
        inject = ["-e", f"trace={names}", "-e", f"inject={names}:error={fault}:when={when}"]
        where = [value for path in paths for value in ("-P", str(path))]
        with subprocess.Popen(
            ["strace", "-f", "-o", str(log), *inject, *where, "-p", str(writer.pid)], stderr=subprocess.PIPE, text=True
        ) as tracer:
            assert tracer.stderr
            while "attached" not in (line := tracer.stderr.readline()):
                if not line:
                    raise RuntimeError("strace does not attach")
            writer.stdin.write("go\n")
            writer.stdin.flush()
            told = writer.stdout.read().split("\n")
            writer.wait()
    return told


def full() -> dict[str, object]:
    """A small disk runs full: failures, no loss; with room again, messages are taken within seconds, unaided."""
    with tempfile.TemporaryDirectory() as name:
        image, mount = Path(name) / "image", Path(name) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(24 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True, capture_output=True)
        try:
            return asyncio.run(_full(mount))
        finally:
            subprocess.run(["umount", str(mount)], check=True, capture_output=True)


async def _full(mount: Path) -> dict[str, object]:
    ballast = mount / "ballast"
    ballast.write_bytes(bytes(8 << 20))
    archive = open_archive(mount / "data")
    await archive.start()
    taken: list[str] = []
    refused = number = 0
    wrong: list[str] = []
    while refused < 30:
        number += 1
        try:
            taken.append((await archive.commit(case(mail(number, 20_000), number=number))).case)
        except Failure as failure:
            refused += 1
            if not failure.retryable:
                wrong.append(f"permanent: {failure.private}")
    ballast.unlink()
    start, recovered = time.monotonic(), None
    while recovered is None and time.monotonic() - start < 30:
        number += 1
        try:
            taken.append((await archive.commit(case(mail(number, 20_000), number=number))).case)
            recovered = round(time.monotonic() - start, 2)
        except Failure as failure:
            last = failure.private
            await asyncio.sleep(0.5)
    if recovered is None:
        wrong.append(f"did not recover: {last}")
    await close(archive)
    archive = open_archive(mount / "data")
    for one in taken:
        row = await archive.row(one)
        if row is None or archive.store.problem(row["sha256"]):
            wrong.append(f"lost {one}")
    await archive.checkpoint()
    wrong += [f"{one.kind}: {one.detail}" for one in (await asyncio.to_thread(audit, archive)).damage]
    await close(archive)
    return {"taken": len(taken), "answered_later": refused, "recovered_s": recovered, "wrong": wrong}


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
            when = 3 if victim == "store" else 5
            told = under_faults(folder, Path(name) / "log", "fsync,fdatasync", "EIO", when, paths)
            told = [line for line in told if line.startswith(("yes", "later", "never", "unforeseen"))]
            words = [line.split()[0] for line in told]
            first = words.index("later") if "later" in words else None
            if first is None or set(words[first:]) != {"later"} or set(words[:first]) - {"yes"}:
                wrong.append(f"{victim}: {words}")
            wrong += [f"{victim}: {one}" for one in asyncio.run(look(folder, told))]
    return {"wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=5, help="1 tries every single call")
    parser.add_argument("--only", choices=("syscalls", "full", "eio"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--writer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.writer:
        asyncio.run(write(given.writer))
        return 0
    results = {}
    for name, work in (("eio", eio), ("full", full), ("syscalls", lambda: syscalls(given.every))):
        if given.only in (None, name):
            results[name] = work()
            if not given.json:
                print(name, json.dumps(results[name]), flush=True)
    if given.json:
        print(json.dumps(results))
    return 1 if any(one["wrong"] for one in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
