"""Power cuts (test R3): a file system is shut down under the archive at random moments, without writing its journal.

    python bench/powercut.py --fs ext4 --cuts 20 --seed 1 [--sparse] [--json]

Needs root and loop devices. Each cut: an archive on a loop-mounted file system takes messages and tells which are
acknowledged; the harness stops counting, then calls the shutdown ioctl (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN; both with
NOLOGFLUSH: what is not on the disk is gone), kills the writer, mounts again (journal replay) and looks: every message
acknowledged so far is there with its bytes, recipients and leaf, the archive opens unaided and verifies clean.
`--sparse`: one message in 0.4 s, as in quiet traffic. `--careless` runs SQLite with synchronous=NORMAL and must lose
messages: it shows that this harness can see a loss.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from sqlalchemy import event

from gateway.audit import audit
from gateway.errors import Failure
from tests.cases import case, close, mail, open_archive

#: _IOR('X', 125, __u32), linux/ext4.h and xfs_fs.h; 2 is NOLOGFLUSH in both.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, (2).to_bytes(4, "little")
SIZES = (300, 4096, 4096, 60_000, 400_000)


async def write(folder: Path, seed: int, sparse: bool, careless: bool) -> None:
    """The archive at work; prints the case of every message once it is committed."""
    chance = random.Random(seed)
    archive = open_archive(folder)
    if careless:
        engine = archive.database.engine
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        engine.dispose()
    await archive.start()

    async def sender() -> None:
        while True:
            number = chance.getrandbits(48)
            receipt = await archive.commit(case(mail(number, chance.choice(SIZES)), number=number))
            os.write(1, f"{receipt.case}\n".encode())
            if sparse:
                await asyncio.sleep(0.4)

    async def signer() -> None:
        while True:
            await archive.checkpoint()
            await asyncio.sleep(0.2)

    await asyncio.gather(signer(), *[sender() for _ in range(1 if sparse else 8)])


async def look(folder: Path, acknowledged: list[str], everything: bool) -> tuple[list[str], list[str]]:
    """What is lost of the acknowledged, and what is damaged."""
    archive = open_archive(folder)
    await archive.start()
    lost: list[str] = []
    damaged: list[str] = []
    try:
        for name in acknowledged:
            row = await archive.row(name)
            if row is None or not row["recipients"] or archive.store.problem(row["sha256"]):
                lost.append(name)
        try:
            await archive.checkpoint()
        except Failure as failure:  # rolled back: what was signed is gone
            damaged.append(failure.private)
        report = await asyncio.to_thread(audit, archive, blobs="all" if everything else 50)
        return lost, damaged + [f"{one.kind} {one.leaf} {one.detail}" for one in report.damage]
    finally:
        await close(archive)


def acknowledgements(process: subprocess.Popen[bytes], seconds: float) -> list[str]:
    """What the writer tells within this time, whole lines only."""
    assert process.stdout is not None
    data, end = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            if selector.select(left):
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    break
                data += piece
    return data.decode().split("\n")[:-1]


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fs", choices=("ext4", "xfs"), default="ext4")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--careless", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--writer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.writer:
        asyncio.run(write(given.writer, given.seed, given.sparse, given.careless))
        return 0
    chance = random.Random(given.seed)
    acknowledged: list[str] = []
    lost: list[str] = []
    damaged: list[str] = []
    empty = 0
    with tempfile.TemporaryDirectory() as name:
        image, mount = Path(name) / "image", Path(name) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(1 << 30)
        run(*(["mkfs.ext4", "-q", "-F"] if given.fs == "ext4" else ["mkfs.xfs", "-q"]), str(image))
        run("mount", "-o", "loop", str(image), str(mount))
        try:
            for cut in range(given.cuts):
                command = [
                    sys.executable,
                    __file__,
                    "--writer",
                    str(mount / "data"),
                    "--seed",
                    str(chance.getrandbits(32)),
                ]
                command += [f"--{option}" for option in ("sparse", "careless") if getattr(given, option)]
                # After the cut the writer meets I/O errors and says so; nobody needs to read it.
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                first = acknowledgements(process, 0)
                deadline = time.monotonic() + 60
                while not first and process.poll() is None and time.monotonic() < deadline:
                    first = acknowledgements(process, 0.05)
                mine = first + acknowledgements(
                    process, chance.uniform(0.8, 3) if given.sparse else chance.uniform(0, 1)
                )
                # Only what was told before the plug is pulled counts.
                handle = os.open(mount, os.O_RDONLY)
                fcntl.ioctl(handle, SHUTDOWN, NO_LOG_FLUSH)
                os.close(handle)
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
                run("umount", str(mount))
                run("mount", "-o", "loop", str(image), str(mount))
                empty += not mine
                acknowledged += mine
                last = cut == given.cuts - 1
                gone, bad = asyncio.run(look(mount / "data", acknowledged if last else mine, last or cut % 10 == 9))
                lost += gone
                damaged += bad
                if not given.json:
                    print(f"cut {cut + 1}: {len(mine)} acknowledged, {len(gone)} lost, {len(bad)} damaged", flush=True)
        finally:
            run("umount", str(mount))
    result = {
        "fs": given.fs,
        "sparse": given.sparse,
        "careless": given.careless,
        "cuts": given.cuts,
        "seed": given.seed,
        "acknowledged": len(acknowledged),
        "cuts_without_mail": empty,
        "lost": len(lost),
        "damaged": damaged,
    }
    print(json.dumps(result))
    return 1 if lost or damaged else 0


if __name__ == "__main__":
    sys.exit(main())
