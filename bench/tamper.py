"""Root with the log's key, with one witness too, or with the files alone: is every change found, and named rightly?

Builds an archive in simulated time, ten times cosigned by two witnesses and stamped by an authority; then does each
kind of tampering at many places and asks the separate verifier: with nothing from outside, with the checkpoints that
one witness kept, with the witnesses' quorum, and with all of it. Whoever rewrites the past makes the
anchors fit too. `--flips N` flips single bits instead, `--rows N` tampers with rows and files without the key and asks
the gateway's own audit, `--clean N` audits archives that nobody touched, at every stage of their growth.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import datetime as dt
import functools
import hashlib
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asn1crypto import tsp

from gateway import archive as archive_module
from gateway import database as db
from gateway import hashtree as ht
from gateway import timestamps, treelog
from gateway.archive import Archive, Notice, Tombstone, canonical
from gateway.store import Store
from tests import outside
from tests.cases import AT, case, close
from tests.outside import cv, cw
from tests.test_timestamps import authority as make_stamper

SEED = 20261122
STEP = 2880.0  # seconds of simulated time between two leaves


# ---------------------------------------------------------------------- the archive


@dataclass
class World:
    """What was built, and what people outside hold."""

    folder: Path
    witnesses: list[cw.Witness]
    stamper: Any
    policy: str
    key: str
    known: list[str]  # checkpoints as the second witness has kept them
    seed: bytes = b""  # of the log's key: root has it
    snapshots: list[Path] = field(default_factory=list)


class Clock:
    """`time` for archive.py: a leaf each STEP seconds."""

    def __init__(self, start: float) -> None:
        self.now = start

    def time(self) -> float:
        self.now += STEP
        return self.now


async def build(folder: Path, messages: int) -> World:
    base = folder / "archive"
    base.mkdir(parents=True)
    stamper, root = make_stamper(days=(-800, 50))
    (folder / "ca.pem").write_bytes(root)
    clock = Clock(time.time() - messages * STEP * 1.2)
    real = archive_module.time
    archive_module.time = SimpleNamespace(time=clock.time)
    try:
        archive = Archive(
            db.Database.open(db.sqlite_url(base / "gateway.db")), Store(base / "blobs"), outside.settings()
        )
        await archive.start()
        vkey = archive.log.verifier()
        witnesses = [outside.make_witness(folder / f"w{n}", f"w{n}.example", vkey) for n in (1, 2)]
        snapshots, known_notes = [], []
        each = max(1, messages // 10)
        for start in range(0, messages, each):
            for n in range(start, min(messages, start + each)):
                await archive.commit(case(number=n))
            await archive.checkpoint()
            note = archive.log.newest_note()
            size = archive.log.newest().size
            for one in witnesses:
                known = int(one.newest(digest(vkey.name)).split("\n")[1]) if start else 0
                path = ht.consistency(known, size, archive.log.nodes(size))
                lines = one.add(ht.consistency_text(known, path, note), now=int(clock.now))
                await archive.attest(note, one.name.partition(".")[0], int(clock.now * 1000), lines.encode())
            known_notes.append(witnesses[1].newest(digest(vkey.name)))
            body = ht.split_note(note)[0].encode()
            await archive.attest(note, "timestamps", int(clock.now * 1000), stamped(stamper, body, clock.now))
            if start // each in (1, 3, 6):
                snapshots.append(folder / f"snapshot{start}")
                shutil.copytree(base, snapshots[-1], ignore=shutil.ignore_patterns("*.db*"))
        await archive.commit(case(number=messages))  # so that the last evidence is anchored
        await archive.checkpoint()
        note = archive.log.newest_note()
        for one in witnesses:
            known = int(one.newest(digest(vkey.name)).split("\n")[1])
            size = archive.log.newest().size
            lines = one.add(
                ht.consistency_text(known, ht.consistency(known, size, archive.log.nodes(size)), note),
                now=int(clock.now),
            )
            await archive.attest(note, one.name.partition(".")[0], int(clock.now * 1000), lines.encode())
        signer = archive.log.signer()
        await close(archive)
    finally:
        archive_module.time = real
    known = sorted({*known_notes, witnesses[1].newest(digest(vkey.name))}, key=lambda one: int(one.split("\n")[1]))
    lines = [f"log {vkey}"]
    names = []
    for one in witnesses:
        keys = one.public_keys()
        lines += [f"witness {one.name}-{n} {key}" for n, key in enumerate(keys)]
        lines.append(f"group {one.name} all {' '.join(f'{one.name}-{n}' for n in range(len(keys)))}")
        names.append(one.name)
    policy = "\n".join([*lines, f"group both all {' '.join(names)}", "quorum both"]) + "\n"
    return World(base, witnesses, stamper, policy, str(vkey), known, signer.seed, snapshots)


def stamped(stamper: Any, body: bytes, at: float) -> bytes:
    """What a time stamp authority would have answered at that time."""
    stamper.fixed_dt = dt.datetime.fromtimestamp(int(at), dt.UTC)
    query = tsp.TimeStampReq.load(timestamps.request(body)[0])
    found: bytes = (
        asyncio.run_coroutine_threadsafe(stamper.async_request_tsa_response(query), _loop).result().dump(force=True)
    )
    return found


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


# ---------------------------------------------------------------------- what root does


class Root:
    """A copy to tamper with, and the tools of whoever holds the log's key."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.log = treelog.TreeLog(folder, ht.Verifier.parse(world.key).name)
        self.size = self.log.newest().size
        self.entries = [entry for _, entry in self.log.entries(0, self.size, self.size)]

    def told(self, place: int) -> dict[str, Any]:
        return json.loads(self.entries[place])

    def rebuild(
        self, *, renumber: bool = True, witness: cw.Witness | None = None, key: ht.Signer | None = None
    ) -> None:
        """Everything anew over `entries`: tiles, bundles, the newest checkpoint and all that are kept, signed."""
        if renumber:
            self.entries = [canonical({**json.loads(one), "seq": n}) for n, one in enumerate(self.entries)]
        shutil.rmtree(self.folder / "log")
        shutil.rmtree(self.folder / "checkpoints")
        signer = key or ht.Signer(self.log.origin, self.world.seed)
        tree, notes, heads = cv.Tree(), dict[int, str](), [(b"", "")]

        def signed(size: int) -> str:
            if size not in notes:
                root, at = heads[size]
                notes[size] = signer.sign(ht.Checkpoint(self.log.origin, size, root, (f"time {at}",)).body())
                if witness is not None:
                    notes[size] += witness._sign(notes[size], int(dt.datetime.fromisoformat(at).timestamp()))
                self.log.keep(size, notes[size])
            return notes[size]

        for place, entry in enumerate(self.entries):
            told = json.loads(entry)
            if told["type"] == "anchor":
                # Whoever rewrites the past makes the anchors fit, as far as the keys go.
                told["size"] = min(told["size"], place)
                body, lines = ht.split_note(signed(told["size"]))
                told["note"] = hashlib.sha256(body.encode()).hexdigest()
                told["cosignatures"] = [
                    {"witness": "w1", "time": 0, "sha256": hashlib.sha256(line.encode()).hexdigest()}
                    for line in lines[1:]
                ]
                told.pop("stamp", None)
                entry = self.entries[place] = canonical(told)
            tree.add(ht.leaf_hash(entry))
            heads.append((tree.root(), told["t"]))
        note = signed(len(self.entries))
        self.log.extend(0, self.entries)
        (self.folder / "log" / "checkpoint").write_text(note)
        named = {json.loads(entry).get("sha256") for entry in self.entries}
        for path in (self.folder / "blobs" / "sha256").glob("*/*"):
            if path.name.partition(".")[0] not in named:
                path.unlink()  # no bytes without a leaf stay behind

    def bundle(self, place: int) -> Path:
        return self._wide("entries", place // 256)

    def tile(self, place: int) -> Path:
        return self._wide(0, place // 256)

    def _wide(self, level: int | str, number: int) -> Path:
        width = min(256, self.size - number * 256)
        return self.folder / "log" / next(name for name, _ in self.log._wide(level, number, width))

    def blob(self, place: int) -> Path:
        sha = self.told(place)["sha256"]
        (path,) = (self.folder / "blobs" / "sha256" / sha[:2]).glob(f"{sha}*")
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        return path

    def notes(self) -> list[Path]:
        """Kept checkpoints that witnesses have signed."""
        return sorted(
            path for path in (self.folder / "checkpoints").glob("*.note") if path.read_text().count("\u2014") > 1
        )


_loop = asyncio.new_event_loop()
threading.Thread(target=_loop.run_forever, daemon=True).start()

Tamper = Callable[[Root, int, random.Random], "set[int] | None"]
KINDS: dict[str, tuple[Tamper, set[str], str]] = {}


def kind(*kinds: str, by: str = "A3") -> Callable[[Tamper], Tamper]:
    """Registers one: the kinds by which it may be named, and who does it."""

    def note(function: Tamper) -> Tamper:
        KINDS[function.__name__.replace("_", " ")] = (function, set(kinds), by)
        return function

    return note


@kind("blob_changed")
def flip_a_bit_of_a_message(root: Root, place: int, chance: random.Random) -> set[int]:
    path = root.blob(place)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return {place}


@kind("blob_changed")
def put_another_message_in_its_place(root: Root, place: int, chance: random.Random) -> set[int]:
    root.blob(place).write_bytes(root.blob((place + 2) % (root.size - 20)).read_bytes())
    return {place}


@kind("blob_changed")
def cut_a_message(root: Root, place: int, chance: random.Random) -> set[int]:
    path = root.blob(place)
    path.write_bytes(path.read_bytes()[: -chance.randrange(1, 20)])
    return {place}


@kind("blob_missing")
def delete_a_message(root: Root, place: int, chance: random.Random) -> set[int]:
    root.blob(place).unlink()
    return {place}


@kind("note: bytes that no signed leaf names")
def plant_a_message(root: Root, place: int, chance: random.Random) -> None:
    data = b"%d" % place
    name = hashlib.sha256(data).hexdigest()
    (root.folder / "blobs" / "sha256" / name[:2]).mkdir(exist_ok=True)
    (root.folder / "blobs" / "sha256" / name[:2] / f"{name}.eml").write_bytes(data)


@kind("tile_changed", "leaf_changed", "rewritten")
def edit_an_entry_on_disk(root: Root, place: int, chance: random.Random) -> set[int]:
    path = root.bundle(place)
    found = ht.unbundle(path.read_bytes())
    found[place % 256] = canonical({**json.loads(found[place % 256]), "verdict": "return"})
    path.write_bytes(ht.bundle(found))
    return {place}


@kind("tile_changed")
def flip_a_bit_of_a_tile(root: Root, place: int, chance: random.Random) -> set[int]:
    path = root.tile(place)
    data = bytearray(path.read_bytes())
    data[place % 256 * 32 + chance.randrange(32)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return {place}


@kind("log_incomplete")
def delete_a_tile(root: Root, place: int, chance: random.Random) -> None:
    root.tile(place).unlink()


@kind("log_incomplete")
def delete_a_bundle(root: Root, place: int, chance: random.Random) -> None:
    root.bundle(place).unlink()


def edited(field_name: str, value: Callable[[Any], Any]) -> Tamper:
    def edit(root: Root, place: int, chance: random.Random) -> set[int]:
        told = root.told(place)
        told[field_name] = value(told.get(field_name))
        root.entries[place] = canonical(told)
        root.rebuild()
        return {place}

    return edit


for name, column, change in (
    ("edit the sender, rebuild all", "sender", lambda old: "other@tinh.gov.vn"),
    ("edit the recipients, rebuild all", "recipients", lambda old: [["spy@example.net", "deliver"]]),
    ("edit the verdict, rebuild all", "verdict", lambda old: "return"),
    ("edit the time of receipt, rebuild all", "received", lambda old: "2026-01-01T08:00:00.000+07:00"),
    ("edit the digest of the record, rebuild all", "record", lambda old: "0" * 64),
):
    KINDS[name] = (edited(column, change), {"rewritten"}, "A3")


@kind("rewritten")
def edit_message_and_entry_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    told, data = root.told(place), b"Subject: gia mao %d\r\n\r\n" % place
    root.blob(place).unlink()
    told["sha256"], told["size"] = hashlib.sha256(data).hexdigest(), len(data)
    target = root.folder / "blobs" / "sha256" / told["sha256"][:2]
    target.mkdir(exist_ok=True)
    (target / f"{told['sha256']}.eml").write_bytes(data)
    root.entries[place] = canonical(told)
    root.rebuild()
    return {place}


@kind("rewritten", "leaf_reordered")
def delete_a_leaf_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    del root.entries[place]
    root.rebuild(renumber=False)
    return {place}


@kind("rewritten", "rolled_back")
def delete_a_leaf_renumber_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    del root.entries[place]
    root.rebuild()
    return {place}


@kind("rewritten", "rolled_back")
def delete_ten_leaves_renumber_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    del root.entries[place : place + 10]
    root.rebuild()
    return {place}


@kind("rewritten", "leaf_reordered")
def swap_two_leaves_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    root.entries[place], root.entries[place + 1] = root.entries[place + 1], root.entries[place]
    root.rebuild(renumber=False)
    return {place}


@kind("rewritten")
def swap_two_leaves_renumber_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    one, other = root.told(place), root.told(place + 1)
    one["t"], other["t"] = other["t"], one["t"]
    root.entries[place : place + 2] = [canonical(other), canonical(one)]
    root.rebuild()
    return {place}


@kind("rewritten")
def swap_the_content_of_two_leaves_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    one, other = root.told(place), root.told(place + 1)
    for name in ("sender", "recipients", "sha256", "size", "record", "case", "received"):
        one[name], other[name] = other.get(name), one.get(name)
    root.entries[place : place + 2] = [canonical(one), canonical(other)]
    root.rebuild()
    return {place}


@kind("rewritten")
def insert_a_leaf_with_a_fitting_date_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    root.entries.insert(place, canonical({**root.told(place), "case": "FORGED"}))
    root.rebuild()
    return {place}


@kind("rewritten", "back_dated")
def insert_a_leaf_with_an_old_date_rebuild_all(root: Root, place: int, chance: random.Random) -> set[int]:
    told = {**root.told(place), "case": "FORGED", "t": "2001-01-01T00:00:00.000+07:00"}
    root.entries.insert(place, canonical(told))
    root.rebuild()
    return {place}


@kind("rolled_back", "rewritten")
def cut_the_tail_off_rebuild_all(root: Root, place: int, chance: random.Random) -> None:
    del root.entries[-(place % (root.size // 12) + 1) :]
    root.rebuild()


@kind("rolled_back")
def put_an_older_snapshot_back(root: Root, place: int, chance: random.Random) -> None:
    older = chance.choice(root.world.snapshots)
    for name in ("log", "checkpoints", "blobs"):
        shutil.rmtree(root.folder / name)
        shutil.copytree(older / name, root.folder / name, copy_function=os.link)


@kind("back_dated")
def append_a_message_with_an_old_date(root: Root, place: int, chance: random.Random) -> set[int]:
    told = {**root.told(place), "case": "FORGED", "seq": root.size}
    root.log.extend(root.size - root.size % 256, [*root.entries[root.size - root.size % 256 :], canonical(told)])
    _sign(root, root.size + 1)
    return {root.size}


@kind("back_dated")
def append_a_message_with_the_date_of_the_last(root: Root, place: int, chance: random.Random) -> set[int]:
    """In order, but older than the time at which the witnesses did not see it yet."""
    last = root.told(root.size - 1)
    before = dt.datetime.fromisoformat(last["t"])
    told = {**root.told(place), "case": "FORGED", "seq": root.size, "t": archive_module.stamp(before)}
    note = root.log.newest_note()
    later = ht.split_note(note)[0]
    # The witnesses sign some hours after the last leaf, as they do where little mail comes.
    lines = "".join(one._sign(note, int(before.timestamp()) + 6 * 3600) for one in root.world.witnesses)
    log_line = ht.split_note(note)[1][0]
    root.log.keep(root.size, f"{later}\n{log_line}\n{lines}")
    (root.folder / "checkpoints" / f"{root.size:012d}.note").write_text(f"{later}\n{log_line}\n{lines}")
    root.log.extend(root.size - root.size % 256, [*root.entries[root.size - root.size % 256 :], canonical(told)])
    _sign(root, root.size + 1)
    return {root.size}


@kind("dispose_bad", "blob_missing")
def delete_a_message_and_append_a_destruction_by_one(root: Root, place: int, chance: random.Random) -> None:
    person = {"login": "root", "who": "Quản trị"}
    told = {
        "v": 1,
        "seq": root.size,
        "t": root.told(root.size - 1)["t"],
        "type": "dispose",
        "case": root.told(place)["case"],
    }
    told |= {"sha256": root.told(place)["sha256"], "proposed": person, "confirmed": person, "reason": "x", "class": "x"}
    root.blob(place).unlink()
    root.log.extend(root.size - root.size % 256, [*root.entries[root.size - root.size % 256 :], canonical(told)])
    _sign(root, root.size + 1)


def _sign(root: Root, size: int) -> None:
    body = ht.Checkpoint(root.log.origin, size, root.log.root(size), ()).body()
    (root.folder / "log" / "checkpoint").write_text(ht.Signer(root.log.origin, root.world.seed).sign(body))


def _own_line_alone(text: str) -> str:
    body, lines = ht.split_note(text)
    return body + "\n" + "".join(f"{line}\n" for line in lines if "w1.example" not in line and "w2.example" not in line)


@kind("evidence_missing", "unwitnessed")
def strip_all_cosignatures(root: Root, place: int, chance: random.Random) -> None:
    for path in [*root.notes(), root.folder / "log" / "checkpoint"]:
        path.write_text(_own_line_alone(path.read_text()))


@kind("evidence_missing")
def strip_the_cosignatures_of_one(root: Root, place: int, chance: random.Random) -> None:
    path = chance.choice(root.notes()[:-1])
    path.write_text(_own_line_alone(path.read_text()))


@kind("evidence_missing")
def delete_an_old_checkpoint(root: Root, place: int, chance: random.Random) -> None:
    chance.choice(root.notes()[:-1]).unlink()


@kind("evidence_missing")
def hide_an_old_checkpoint_with_its_stamp(root: Root, place: int, chance: random.Random) -> None:
    path = chance.choice(root.notes()[:-1])
    path.unlink()
    path.with_suffix(".tsr").unlink(missing_ok=True)


@kind("evidence_missing")
def delete_a_time_stamp(root: Root, place: int, chance: random.Random) -> None:
    chance.choice(sorted((root.folder / "checkpoints").glob("*.tsr"))).unlink()


@kind("evidence_changed")
def put_a_newer_time_stamp_in_its_place(root: Root, place: int, chance: random.Random) -> None:
    path = chance.choice(sorted((root.folder / "checkpoints").glob("*.tsr")))
    body = ht.split_note(path.with_suffix(".note").read_text())[0].encode()
    path.write_bytes(stamped(root.world.stamper, body, time.time()))


@kind("checkpoint_bad")
def forge_a_cosignature(root: Root, place: int, chance: random.Random) -> None:
    path = chance.choice(root.notes())
    body, lines = ht.split_note(path.read_text())
    name, encoded = lines[1].split(" ")[1:]
    raw = bytearray(ht._unb64(encoded))
    raw[chance.randrange(4, len(raw))] ^= 1
    lines[1] = f"\u2014 {name} {ht._b64(bytes(raw))}"
    path.write_text(body + "\n" + "".join(f"{line}\n" for line in lines))


@kind("checkpoint_bad")
def sign_all_with_another_key(root: Root, place: int, chance: random.Random) -> None:
    fresh = ht.Signer(root.log.origin, chance.randbytes(32))
    root.rebuild(key=fresh)
    (root.folder / "keys" / "log.vkey").write_text(f"{fresh.verifier}\n")


@kind("checkpoint_bad")
def claim_a_key_rotation(root: Root, place: int, chance: random.Random) -> None:
    fresh = ht.Signer(root.log.origin, chance.randbytes(32))
    body = {"v": 1, "seq": root.size, "t": root.told(root.size - 1)["t"], "type": "key", "old": root.world.key}
    body |= {"new": str(fresh.verifier), "signature": ht._b64(chance.randbytes(64))}
    root.entries.append(canonical(body))
    root.rebuild(key=fresh)


@kind("rewritten", by="A4")
def edit_rebuild_all_and_have_one_witness_sign(root: Root, place: int, chance: random.Random) -> set[int]:
    root.entries[place] = canonical({**root.told(place), "sender": "other@tinh.gov.vn"})
    root.rebuild(witness=root.world.witnesses[0])
    return {place}


@kind("rolled_back", "rewritten", by="A4")
def cut_the_tail_and_have_one_witness_sign(root: Root, place: int, chance: random.Random) -> None:
    del root.entries[-(place % (root.size // 12) + 1) :]
    root.rebuild(witness=root.world.witnesses[0])


# ---------------------------------------------------------------------- asking the verifier


def ask(
    folder: Path, world: World, known: bool, quorum: bool, stamps: bool
) -> tuple[list[tuple[str, int | None, str]], list[str]]:
    policy = _policy(world.policy if quorum else f"log {world.key}")
    logs = list(policy.logs)
    roots = cv.congvan_stamp.read_roots(world.folder.parent / "ca.pem") if stamps else None
    look = cv.Audit(folder, policy, roots)
    try:
        look.tree(world.known if known else [])
        look.bytes(None, None)
    except OSError as error:
        look.wrong("log_incomplete", None, str(error))
    policy.logs = logs
    return look.damage, look.notes


#: Signatures and stamps that were judged once are not judged again, so that ten thousand audits take minutes.
_policy = functools.cache(lambda text: cv.Policy([], text))
_stamp_check = cv.congvan_stamp.check


def _judge(response: bytes, body: bytes, roots: list) -> Any:
    if (response, body) not in _judged:
        _judged[response, body] = _stamp_check(response, body, roots)
    return _judged[response, body]


_judged: dict[tuple[bytes, bytes], Any] = {}
cv.congvan_stamp.check = _judge


COLUMNS = {
    "alone": (False, False, False),
    "+ old checkpoint": (True, False, False),
    "+ witnesses": (False, True, False),
    "+ both, stamps": (True, True, True),
}


def copy(world: World, target: Path) -> Path:
    shutil.copytree(world.folder, target, ignore=shutil.ignore_patterns("blobs", "*.db*"))
    shutil.copytree(world.folder / "blobs", target / "blobs", copy_function=os.link)
    return target


def named(found: list[tuple[str, int | None, str]], notes: list[str], kinds: set[str], places: set[int] | None) -> bool:
    """Is one of the allowed kinds there, and its place the right one (or a range that has it)?"""
    for word in kinds:
        if word.startswith("note: ") and any(word[6:] in note for note in notes):
            return True
    for what, leaf, text in found:
        if what not in kinds:
            continue
        if places is None:
            return True
        if what == "rewritten":
            first, last = int(text.split("in leaves ")[1].split(" ")[0]), int(text.rsplit(" ", 1)[1])
            if any(first <= place <= last for place in places):
                return True
        elif what == "rolled_back" or (leaf is not None and any(abs(leaf - place) <= 1 for place in places)):
            return True
    return False


def tamper(world: World, work: Path, places: int, others: int, only: str) -> int:
    table: dict[str, dict[str, list[int]]] = {}
    missed = 0
    start, end = (int(one) for one in only.split("-")) if only else (0, len(KINDS))
    for name, (function, kinds, by) in list(KINDS.items())[start:end]:
        counts = table[name] = {column: [0, 0] for column in COLUMNS}
        right, chance = 0, random.Random(f"{SEED} {name}")
        for turn in range(places):
            target = copy(world, work / "copy")
            root = Root(world, target)
            mails = [
                n
                for n in range(root.size - root.size // 8)
                if root.told(n)["type"] == "message" and root.told(n + 1)["type"] == "message"
            ]
            place = chance.choice(mails)
            with contextlib.redirect_stderr(sys.stderr):
                expected = function(root, place, chance)
            for column, given in COLUMNS.items():
                if column != "+ both, stamps" and turn >= others:
                    continue
                found, notes = ask(target, world, *given)
                seen = bool(found) or any("no signed leaf names" in note for note in notes)
                counts[column][0] += seen
                counts[column][1] += 1
                if column == "+ both, stamps":
                    if named(found, notes, kinds, expected):
                        right += 1
                    else:
                        missed += 1
                        print(f"  MISSED {name} at {place}: {found[:4]}", flush=True)
            shutil.rmtree(target)
        shown = "  ".join(f"{one[0]}/{one[1]}" for one in counts.values())
        print(f"{by} {name:52} {shown}   named {right}/{places}", flush=True)
    print(f"{len(table)} kinds, {places} places each, columns: {', '.join(COLUMNS)}; not found or not named: {missed}")
    return 1 if missed else 0


def flips(world: World, work: Path, count: int, seed: int) -> int:
    """Single bits anywhere in the log, the checkpoints, the stamps and the messages."""
    chance = random.Random(seed)
    target = copy(world, work / "copy")
    paths = [
        path
        for part in ("log", "checkpoints", "blobs")
        for path in sorted((target / part).rglob("*"))
        if path.is_file()
    ]
    weights = [max(1, path.stat().st_size) for path in paths]
    by_part: collections.Counter[str] = collections.Counter()
    unseen: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        # Half by size, half by file, so that small files are not left out.
        path = chance.choices(paths, weights)[0] if chance.random() < 0.5 else chance.choice(paths)
        data = path.read_bytes()
        place, bit = chance.randrange(len(data)), chance.randrange(8)
        broken = bytearray(data)
        broken[place] ^= 1 << bit
        path.unlink()
        path.write_bytes(broken)
        part = path.relative_to(target).parts[0] + path.suffix * (path.suffix in (".tsr", ".note"))
        by_part[part] += 1
        found, notes = ask(target, world, True, True, True)
        if not found and not notes:
            unseen[part] += 1
            print(f"  UNSEEN {path.relative_to(target)} byte {place} bit {bit}", flush=True)
        path.write_bytes(data)
    print(f"{count} flips: {dict(by_part)}; unseen: {sum(unseen.values())} {dict(unseen)}")
    return 1 if unseen else 0


def rows(folder: Path, places: int, seed: int) -> int:
    """Whoever has the database and the files, and no key: the gateway's own audit, at many places."""
    from tests import test_audit as own

    chance, missed = random.Random(seed), 0
    original = own.build(folder / "original")
    mails = own.mail_leaves(original)
    for kind, function in own.TAMPERING:
        for _ in range(places):
            target, index = folder / "copy", chance.choice(mails)
            shutil.copytree(original, target, ignore=shutil.ignore_patterns("blobs"))
            shutil.copytree(original / "blobs", target / "blobs", copy_function=os.link)
            function(target, index)
            report = own.look(target)
            if not own.named(kind, function, index, report):
                missed += 1
                print(f"  MISSED {kind} {function.__name__} at {index}: {report.damage[:3]}", flush=True)
            shutil.rmtree(target)
    print(f"seed {seed}: {len(own.TAMPERING)} kinds, {places} places each; not found or not named: {missed}")
    return 1 if missed else 0


def clean(folder: Path, count: int, seed: int) -> int:
    """Archives that grow as archives do, audited at each stage by both programs."""
    from gateway.audit import audit
    from gateway.witness import Witnesses

    chance, alarms, done = random.Random(seed), 0, 0
    for turn in itertools.count():
        if done >= count:
            break
        base = folder / f"clean{turn}"
        base.mkdir()

        async def grow(base: Path = base, turn: int = turn) -> tuple[int, int]:
            alarms = audits = 0
            archive = Archive(
                db.Database.open(db.sqlite_url(base / "gateway.db")), Store(base / "blobs"), outside.settings()
            )
            await archive.start()
            made = outside.make_witness(base / "w", "w.example", archive.log.verifier())
            with outside.witness(made) as url:
                given = outside.settings(witnesses=[{"name": "w", "url": url, "keys": made.public_keys()}])
                numbers = itertools.count(1)
                for step in range(25):
                    for _ in range(chance.randrange(1, 12)):
                        what = chance.random()
                        if what < 0.7:
                            number = next(numbers)
                            notice = (Notice("notice", b"n%d" % number, (("a@b.vn", "hop"),), "X", f"{number}"),)
                            await archive.commit(case(number=number, notices=notice if what < 0.2 else ()))
                        elif what < 0.8:
                            stone = Tombstone(
                                f"S{step}{next(numbers)}",
                                AT,
                                "a@b",
                                ("c@d",),
                                "::1",
                                5,
                                "mat",
                                "SC-01",
                                os.urandom(32).hex(),
                            )
                            await archive.bury(stone)
                        else:
                            await archive.note("access", {"who": "van.thu", "what": "search", "n": step})
                    await archive.checkpoint()
                    if chance.random() < 0.5:
                        await Witnesses(archive, given).round(now=True)
                    if chance.random() < 0.05:
                        await archive.rotate_key("quan.tri", "thu")
                        (made.folder / "logs").write_text("".join(f"log {key}\n" for key in archive.log.verifiers()))
                    report = await asyncio.to_thread(audit, archive)
                    look = cv.Audit(base, cv.Policy([cv.Key(str(archive.log.verifier()))]))
                    look.tree([])
                    look.bytes(None, None)
                    audits += 2
                    alarms += bool(report.damage) + bool(look.damage)
                    if report.damage or look.damage:
                        print(f"  ALARM archive {turn} step {step}: {report.damage[:3]} {look.damage[:3]}", flush=True)
            await close(archive)
            return alarms, audits

        wrong, audits = asyncio.run(grow())
        alarms, done = alarms + wrong, done + audits
        shutil.rmtree(base)
    print(f"{done} clean audits, false alarms: {alarms}")
    return 1 if alarms else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--places", type=int, default=50, help="of each kind, with everything from outside")
    parser.add_argument("--others", type=int, default=10, help="of each kind, with less")
    parser.add_argument("--only", default="", help="kinds, such as 0-10")
    parser.add_argument("--flips", type=int, default=0)
    parser.add_argument("--rows", type=int, default=0, help="places of each kind for whoever has no key")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--clean", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        if given.rows:
            return rows(Path(name), given.rows, given.seed)
        if given.clean:
            return clean(Path(name), given.clean, given.seed)
        start = time.monotonic()
        world = asyncio.run(build(Path(name) / "world", given.messages))
        damage, notes = ask(world.folder, world, True, True, True)
        took = time.monotonic() - start
        print(f"seed {given.seed}; built {given.messages} messages in {took:.0f} s; untouched: {damage} {notes}")
        if damage:
            return 1
        if given.flips:
            return flips(world, Path(name), given.flips, given.seed)
        return tamper(world, Path(name), given.places, given.others, given.only)


if __name__ == "__main__":
    sys.exit(main())
