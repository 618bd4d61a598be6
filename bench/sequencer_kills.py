"""A5: the process dies at each step of commit, checkpoint, cosigning and key rotation; no two signed trees disagree.

    ./run measure sequencer_kills --kills 500 --seed 1

Each life commits, signs, has a witness cosign and now and then replaces the log's key, and dies at its n-th durable
step (n goes through all of them) or at a random moment. Every root that was ever signed, published or not, is written
down before it can be used. After each death: every acknowledged leaf is in the tree with its bytes, the tree has not
become smaller, and it continues every root that was signed and every checkpoint the witness knows.

`--power ext4` (or xfs) pulls the plug instead: the archive lies on a loop-mounted file system, which is shut down at a
random moment with its journal unwritten (as in `powercut`), and mounted again. What the life has told by then counts.
The witness is another machine: its files are elsewhere. Needs root and loop devices.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.powercut import pull_the_plug, run, unmount
from gateway import durable
from gateway import hashtree as ht
from gateway.audit import audit
from gateway.treelog import TreeLog
from tests.cases import case, close, open_archive
from tests.outside import cv, cw


def life(folder: Path, witness: Path, pipe: int, first: int, rotate: bool, turns: int = 3) -> None:
    """One life, told through the pipe: what is acknowledged, and what is signed."""
    real = TreeLog.sign

    def sign(self: TreeLog, size: int, root: bytes, at: str) -> str:
        note = real(self, size, root, at)
        os.write(pipe, json.dumps({"signed": [size, root.hex()]}).encode() + b"\n")
        return note

    TreeLog.sign = sign  # type: ignore[method-assign]

    async def work() -> None:
        numbers = itertools.count(first)
        archive = open_archive(folder)
        await archive.start()
        key = archive.log.verifier()
        (witness / "logs").write_text("".join(f"log {one}\n" for one in archive.log.verifiers()))
        one = cw.Witness(witness)
        for turn in range(turns):
            for _ in range(2):
                receipt = await archive.commit(case(number=next(numbers)))
                os.write(pipe, json.dumps({"acked": [receipt.leaf, receipt.case]}).encode() + b"\n")
            checkpoint = await archive.checkpoint()
            assert checkpoint is not None
            note = archive.log.newest_note()
            known = one.newest(outside_digest(key.name))
            size = int(known.split("\n")[1]) if known else 0
            path = ht.consistency(size, checkpoint.size, archive.log.nodes(checkpoint.size))
            lines = one.add(ht.consistency_text(size, path, note))
            await archive.attest(note, "w", int(time.time() * 1000), lines.encode())
            if rotate and turn == 1:
                await archive.rotate_key("bench", "kills")
                (witness / "logs").write_text("".join(f"log {one}\n" for one in archive.log.verifiers()))
        os.write(pipe, json.dumps({"steps": durable._steps}).encode() + b"\n")
        await close(archive)

    asyncio.run(work())


def outside_digest(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def in_child(work, *arguments: object, cut: Callable[[], None] | None = None) -> tuple[int, list[dict]]:
    """Run `work(pipe, …)` in a process of its own; gives how it ended and what it told. cut: waits, and then takes its
    disk away; what was told until it stood still counts."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            work(writer, *arguments)
            code = 0
        except BaseException as error:
            os.write(writer, json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}).encode() + b"\n")
        finally:
            os._exit(code)
    os.close(writer)
    told = []
    if cut is not None:
        cut()
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        os.set_blocking(reader, False)
    data = b""
    with contextlib.suppress(BlockingIOError):  # all that it has told
        while piece := os.read(reader, 1 << 16):
            data += piece
    os.close(reader)
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            told.append(json.loads(line))
    if cut is not None:
        pull_the_plug(MOUNT)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status, told


def look(pipe: int, folder: Path, whole: bool) -> None:
    """After a death: recover, sign, and tell leaves, roots at all sizes and the damage found."""

    async def work() -> None:
        archive = open_archive(folder)
        await archive.start()
        checkpoint = await archive.checkpoint()
        size = checkpoint.size if checkpoint else 0
        tree, roots, cases = cv.Tree(), [], []
        for _, entry in archive.log.entries(0, size, size):
            roots.append(tree.root().hex())
            tree.add(ht.leaf_hash(entry))
            cases.append(json.loads(entry).get("case", ""))
        roots.append(tree.root().hex())
        damage = []
        if whole:
            report = await asyncio.to_thread(audit, archive)
            damage = [str(one) for one in report.damage]
        answer = {"size": size, "roots": roots, "cases": cases, "damage": damage}
        os.write(pipe, json.dumps(answer).encode() + b"\n") if size < 100 else _write_all(pipe, json.dumps(answer))
        await close(archive)

    asyncio.run(work())


def _write_all(pipe: int, text: str) -> None:
    data = memoryview(text.encode() + b"\n")
    while data:
        data = data[os.write(pipe, data) :]


#: Where the file system that loses its power is mounted.
MOUNT = Path()


def mounted(folder: Path, kind: str, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Make it. Gives what mounts it again after a cut."""
    global MOUNT
    image, MOUNT = folder / "image", folder / "mount"
    MOUNT.mkdir()
    with image.open("wb") as file:
        file.truncate(2 << 30)
    run(*(["mkfs.ext4", "-q", "-F"] if kind == "ext4" else ["mkfs.xfs", "-q"]), str(image))
    run("mount", "-o", "loop", str(image), str(MOUNT))
    stack.callback(unmount, MOUNT)

    def again() -> None:
        unmount(MOUNT)
        run("mount", "-o", "loop", str(image), str(MOUNT))

    return again


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--power", choices=("ext4", "xfs"), default="", help="cut the power of this file system")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    problems, deaths, done, steps, acked_all = 0, 0, 0, 150, 0
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        again = mounted(Path(name), given.power, stack) if given.power else lambda: None
        turn = 0
        while deaths < given.kills:
            # A new archive now and then: the first steps of an empty one are steps too, and roots stay few.
            base, turn = Path(name) / f"{turn}", turn + 1
            folder, witness = (MOUNT if given.power else base) / f"archive{turn}", base / "w"
            folder.mkdir(parents=True)
            cw.make_keys(witness, "w.example")
            acked: dict[int, str] = {}
            signed: dict[int, set[str]] = {}
            size = first = 0
            for n in range(40):
                if deaths >= given.kills:
                    break
                at = chance.randrange(1, steps + 1) if n % 2 else 1 + (deaths // 2) % steps
                rotate, random_moment = chance.random() < 0.2, chance.random() < 0.25

                def begin(
                    pipe: int, at=at, rotate=rotate, moment=random_moment, first=first, folder=folder, w=witness
                ) -> None:
                    if given.power:
                        return life(folder, w, pipe, first, rotate, turns=1000)
                    if moment:
                        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.005, 0.6))
                    else:
                        durable._crash_at = at
                    return life(folder, w, pipe, first, rotate)

                # The moment of the cut is the measurement, not a wait.
                pause = functools.partial(time.sleep, chance.uniform(0.02, 2.0))
                status, told = in_child(begin, cut=pause if given.power else None)
                again()
                first += 10_000
                if os.WIFSIGNALED(status):
                    deaths += 1
                else:
                    done += 1
                for line in told:
                    if "acked" in line:
                        acked[line["acked"][0]] = line["acked"][1]
                        acked_all += 1
                    elif "signed" in line:
                        signed.setdefault(line["signed"][0], set()).add(line["signed"][1])
                    elif "steps" in line:
                        steps = max(steps, line["steps"])
                    else:
                        problems += 1
                        print(f"archive {turn} life {n}: {line}", flush=True)
                status, told = in_child(look, folder, n % 10 == 9)
                found = told[-1] if told else {}
                if "size" not in found:
                    problems += 1
                    print(f"archive {turn} life {n}: does not recover: {told}", flush=True)
                    break
                wrong = [leaf for leaf, one in acked.items() if leaf >= found["size"] or found["cases"][leaf] != one]
                roots_now = dict(enumerate(found["roots"]))
                split = [one for one, roots in signed.items() if roots != {roots_now.get(one)}]
                note = cw.Witness(witness).newest(outside_digest("mail.tinh.gov.vn/archive"))
                if note:
                    _, known, root = cv.checkpoint(note.rpartition("\n\n")[0] + "\n")
                    if known > found["size"] or found["roots"][known] != root.hex():
                        split.append(known)
                if wrong or split or found["size"] < size or found["damage"]:
                    problems += 1
                    print(
                        f"archive {turn} life {n} at step {at}: lost {wrong}, two trees at {split}, "
                        f"size {size} to {found['size']}, {found['damage']}",
                        flush=True,
                    )
                size = found["size"]
    what = f"power cuts, {given.power}" if given.power else f"deaths (1 to {steps} steps)"
    print(
        f"seed {given.seed}: {deaths} {what}, {done} lives to the end, {acked_all} leaves acknowledged; "
        f"problems: {problems}"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
