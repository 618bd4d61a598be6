"""Checks an archive of congvan-gateway, or one proof, by itself: Python's own library and `cryptography`, no network.

What is trusted: this file, the log's public key (or a policy file), and what somebody remembers from outside, an old
checkpoint or the signatures of witnesses. Nothing that lies in the archive is trusted: every hash is computed again
from the bytes, up to the signed root.

The leaf of a message is canonical JSON: `sha256` is of the bytes as received, `files` lists attachments, `record`
is of the record that holds facts and verdict. RFC 6962: leaf hash SHA-256(00 ‖ entry), node SHA-256(01 ‖ left ‖ right).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime as dt
import functools
import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import congvan_blob
import congvan_stamp
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

try:
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:  # before cryptography 48
    mldsa = None

INTACT, TAMPERED, INCOMPLETE, USAGE = 0, 1, 2, 3
WIDTH = 256  # hashes in a tile


class Wrong(Exception):
    """It does not hold, and why."""


class Usage(Exception):
    """A key or policy that is none."""


# ---------------------------------------------------------------------- keys and notes


def unbase64(text: str) -> bytes:
    """Only the one spelling an encoder makes, so that no bit of a note can be changed unnoticed."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Wrong("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise Wrong("not base64 as it is written")
    return data


class Key:
    """A public key `name+hash+base64`: of a log (type 1, Ed25519) or of a witness (4 Ed25519, 6 ML-DSA-44)."""

    SIZES: ClassVar = {1: 32, 4: 32, 6: 1312}

    def __init__(self, text: str) -> None:
        parts = text.strip().split("+", 2)
        try:
            self.name, given, key = parts[0], bytes.fromhex(parts[1]), unbase64(parts[2])
            self.type, self.public = key[0], key[1:]
        except (IndexError, ValueError, Wrong):
            raise Usage(f"not a public key: {text.strip()[:120]!r}") from None
        self._good: dict[tuple[str, bytes], int] = {}
        self.id = hashlib.sha256(self.name.encode() + b"\n" + key).digest()[:4]
        if self.SIZES.get(self.type) != len(self.public):
            raise Usage(f"{self.name}: neither an Ed25519 key nor a witness's ML-DSA-44 key")
        if self.id != given:
            raise Usage(f"{self.name}: the key does not match its own hash; a typing error?")
        if self.type == 6 and mldsa is None:
            raise Usage(f"{self.name}: ML-DSA-44 needs cryptography 48 or later")

    def __str__(self) -> str:
        key = bytes([self.type]) + self.public
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(key).decode()}"

    def signed(self, body: str, signatures: list[tuple[str, bytes]]) -> int | None:
        """The time at which this key has signed the note, in seconds (0 of a log); None when it has not. Raises Wrong
        for a signature under its name that does not hold."""
        for name, signature in signatures:
            if name == self.name and signature[:4] == self.id:
                return self.check(body, signature[4:])
        return None

    def check(self, body: str, raw: bytes) -> int:
        if (body, raw) not in self._good:
            self._good[body, raw] = self._check(body, raw)
        return self._good[body, raw]

    def _check(self, body: str, raw: bytes) -> int:
        at, message = 0, body.encode()
        if self.type != 1:
            at, raw = int.from_bytes(raw[:8], "big"), raw[8:]
            message = cosigned(self.type, self.name, at, body)
        try:
            if self.type == 6:
                mldsa.MLDSA44PublicKey.from_public_bytes(self.public).verify(raw, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public).verify(raw, message)
        except (InvalidSignature, ValueError):
            raise Wrong(f"the signature of {self.name} is wrong") from None
        return at


def cosigned(kind: int, name: str, at: int, body: str) -> bytes:
    """What a witness signs (C2SP tlog-cosignature): with Ed25519 the whole note, with ML-DSA-44 size and root."""
    if kind == 4:
        return b"cosignature/v1\ntime %d\n" % at + body.encode()
    origin, size, root = checkpoint(body)
    mine, log = name.encode(), origin.encode()
    head = b"subtree/v1\n\0" + bytes([len(mine)]) + mine + at.to_bytes(8, "big") + bytes([len(log)]) + log
    return head + bytes(8) + size.to_bytes(8, "big") + root


@functools.lru_cache(64)  # each is asked for more than once
def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures (name, bytes). Raises Wrong."""
    body, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise Wrong("not a signed checkpoint")
    signatures = []
    for line in tail[:-1].split("\n"):  # not splitlines, which takes other letters for line ends too
        found = re.fullmatch("\u2014 ([^ +]+) ([A-Za-z0-9+/=]+)", line)
        if not found:
            raise Wrong("a signature line is malformed")
        signatures.append((found[1], unbase64(found[2])))
    return body + "\n", signatures


def checkpoint(body: str) -> tuple[str, int, bytes]:
    """Origin, size and root. Raises Wrong."""
    lines = body.split("\n")
    if len(lines) < 4 or not lines[0] or not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]):
        raise Wrong("not a checkpoint: origin, size, root")
    root = unbase64(lines[2])
    if len(root) != 32:
        raise Wrong("the root of the checkpoint is malformed")
    return lines[0], int(lines[1]), root


class Policy:
    """Which logs are believed, and which witnesses must have signed too (C2SP tlog-policy)."""

    def __init__(self, logs: list[Key], text: str = "") -> None:
        self.logs = logs
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self.quorum = "none"
        for line in text.splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                self._line(*words)
            except (TypeError, ValueError, IndexError):
                raise Usage(f"policy: cannot read {line!r}") from None

    def _line(self, word: str, first: str, *rest: str) -> None:
        if word == "log":
            self.logs.append(Key(first))
        elif word == "witness":
            self.witnesses[first] = Key(rest[0])
        elif word == "group":
            members = list(rest[1:])
            if not members or not all(one in self.witnesses or one in self.groups for one in members):
                raise ValueError
            self.groups[first] = ({"all": len(members), "any": 1}.get(rest[0]) or int(rest[0]), members)
        elif word == "quorum" and (first == "none" or first in self.witnesses or first in self.groups):
            self.quorum = first
        else:
            raise ValueError

    def _met(self, name: str, body: str, signatures: list[tuple[str, bytes]]) -> bool:
        if name in self.witnesses:
            return self.witnesses[name].signed(body, signatures) is not None
        needed, members = self.groups[name]
        return sum(self._met(one, body, signatures) for one in members) >= needed

    def open(self, note: str, quorum: bool = True) -> tuple[str, int, bytes]:
        """Origin, size and root of a signed checkpoint. Raises Wrong."""
        body, signatures = split_note(note)
        origin, size, root = checkpoint(body)
        logs = [log for log in self.logs if log.name == origin and log.type == 1]
        if not any([log.signed(body, signatures) is not None for log in logs]):  # each of them must hold
            raise Wrong(f"not signed by a log we believe: {origin}")
        if quorum and not self.witnessed(note):
            raise Wrong("too few witnesses have signed")
        return origin, size, root

    def witnessed(self, note: str) -> bool:
        """Do the cosignatures fulfil the quorum? Raises Wrong for one that does not hold."""
        body, signatures = split_note(note)
        return self.quorum == "none" or self._met(self.quorum, body, signatures)

    def cosigners(self, note: str) -> list[tuple[str, int]]:
        """Name and time of each witness of the policy that has signed. Raises Wrong."""
        body, signatures = split_note(note)
        found = [(key.name, key.signed(body, signatures)) for key in self.witnesses.values()]
        return [(name, at) for name, at in found if at is not None]


# ---------------------------------------------------------------------- the tree


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """Grows leaf by leaf and knows its root at any moment: the roots of its perfect subtrees, left to right."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, digest: bytes) -> None:
        bits = self.size
        while bits & 1:
            digest = node_hash(self._peaks.pop(), digest)
            bits >>= 1
        self._peaks.append(digest)
        self.size += 1

    def root(self) -> bytes:
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        result = self._peaks[-1]
        for left in reversed(self._peaks[:-1]):
            result = node_hash(left, result)
        return result


def root_of_proof(digest: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2. Raises Wrong when the proof has another length than it must."""
    if not 0 <= index < size:
        raise Wrong("the leaf is outside the tree")
    last = size - 1
    for sibling in path:
        if last == 0:
            raise Wrong("the proof is too long")
        if index & 1 or index == last:
            digest = node_hash(sibling, digest)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        index, last = index >> 1, last >> 1
    if last:
        raise Wrong("the proof is too short")
    return digest


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: list[bytes]) -> None:
    """RFC 9162 section 2.1.4.2: does the tree of `new` leaves begin with the one of `old`? Raises Wrong."""
    if old > new:
        raise Wrong(f"a tree of {new} leaves cannot follow one of {old}")
    if old in (0, new):
        if path or (old == new and old_root != new_root):
            raise Wrong("two roots for one size" if not path else "the proof is too long")
        return
    path = path if old & (old - 1) else [old_root, *path]
    index, last = old - 1, new - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    if not path:
        raise Wrong("the proof is too short")
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Wrong("the proof is too long")
        if index & 1 or index == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        index, last = index >> 1, last >> 1
    if last or first != old_root or second != new_root:
        raise Wrong("the proof is too short" if last else "the newer tree does not begin with the older one")


def read_consistency(text: str) -> tuple[int, list[bytes], str]:
    """Old size, path and checkpoint of `old N`, hashes, empty line, note (C2SP tlog-witness). Raises Wrong."""
    head, gap, note = text.partition("\n\n")
    first, *lines = head.split("\n")
    if not gap or not re.fullmatch("old (0|[1-9][0-9]{0,18})", first) or len(lines) > 63:
        raise Wrong("not a proof of consistency: old size, hashes, empty line, checkpoint")
    path = [unbase64(line) for line in lines]
    if any(len(one) != 32 for one in path):
        raise Wrong("a hash of the proof is no SHA-256")
    return int(first[4:]), path, note


# ---------------------------------------------------------------------- one proof


def check_proof(policy: Policy, data: bytes, proof: str, roots: list | None = None) -> dict[str, object]:
    """What is proved about these bytes. roots: certificates under which a time stamp is believed. Raises Wrong."""
    head, gap, note = proof.partition("\n\n")
    lines = head.split("\n")
    if not gap or len(lines) < 3 or lines[0] != "c2sp.org/tlog-proof@v1" or not lines[1].startswith("extra "):
        raise Wrong("not a proof of this archive")
    found = re.fullmatch("index (0|[1-9][0-9]{0,18})", lines[2])
    if not found:
        raise Wrong("the proof has no index")
    # In `extra`: the entry, and after a line break the RFC 3161 response over the text of the checkpoint.
    entry, _, stamp = unbase64(lines[1][6:]).partition(b"\n")
    index, path = int(found[1]), [unbase64(line) for line in lines[3:]]
    origin, size, root = policy.open(note)
    if any(len(one) != 32 for one in path) or root_of_proof(leaf_hash(entry), index, size, path) != root:
        raise Wrong("the proof does not lead to the signed root")
    told = read_entry(entry)
    digest = hashlib.sha256(data).hexdigest()
    files = told.get("files")
    names = [one["path"] for one in files if one["sha256"] == digest] if isinstance(files, list) else []
    if told.get("sha256") != digest and not names:
        raise Wrong("these bytes are neither the message of this proof nor one of its attachments")
    stamped: dict[str, object] = {"time_stamp": "none"}
    if stamp:
        stamped = {"time_stamp": "not looked at: no --tsa-ca"}
        if roots is not None:
            try:
                at, authority = congvan_stamp.check(stamp, split_note(note)[0].encode(), roots)
            except congvan_stamp.BadStamp as error:
                raise Wrong(f"the time stamp: {error}") from None
            stamped = {"time_stamp": at.isoformat(), "time_stamp_by": authority}
    if told.get("kind") == "imported":
        stamped["note"] = (
            "imported from a file: nobody here saw it being sent or received, the log shows since when it lies here"
        )
    return {
        "ok": True,
        "what": names[0] if names else "message",
        "kind": told.get("kind"),
        "log": origin,
        "leaf": index,
        "signed_leaves": size,
        "cosigned": [{"witness": name, "at": moment(at)} for name, at in policy.cosigners(note)],
        **stamped,
        "archived_at": told["t"],
        "times": told.get("times", {}),
        **{name: told.get(name) for name in ("case", "received", "sender", "recipients", "verdict")},
    }


def seconds(text: str) -> float:
    """Of the time of a leaf. Raises Wrong."""
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Wrong(f"not a time: {text[:40]}") from None


def moment(seconds: int) -> str:
    return dt.datetime.fromtimestamp(min(seconds, 1 << 37), dt.UTC).isoformat()


def read_entry(entry: bytes) -> dict:
    """Raises Wrong for an entry that is not canonical JSON of ours."""
    try:
        told = json.loads(entry)
        canonical = json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        if canonical != entry or told["v"] != 1 or not isinstance(told["seq"], int) or not seconds(told["t"]):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Wrong("an entry is not what this archive writes") from None
    return told


# ---------------------------------------------------------------------- the whole archive


def by_two(told: dict) -> bool:
    """Was a destruction proposed by one person and confirmed by another?"""
    try:
        one, other = told["proposed"], told["confirmed"]
        return bool(one["login"] != other["login"] and one["who"].casefold() != other["who"].casefold())
    except (KeyError, TypeError, AttributeError):
        return False


class Audit:
    """Goes through the log once, from the entries up. `damage`: kind, leaf, text. `notes`: worth a look."""

    def __init__(
        self, folder: Path, policy: Policy, roots: list | None = None, archive_keys: list[bytes] | None = None
    ) -> None:
        self.folder = folder
        self.opener = congvan_blob.Opener(folder, archive_keys or [])
        self.policy = policy
        self.stamp_roots = roots
        self.damage: list[tuple[str, int | None, str]] = []
        self.notes: list[str] = []
        self.roots: dict[int, bytes] = {}
        self.blobs: dict[str, list[int]] = {}
        self.disposed: set[str] = set()
        self.anchors: list[tuple[int, dict]] = []
        self.times: dict[int, str] = {}  # of the leaves beside an attested size
        self.attested: list[tuple[int, float, str]] = []  # size, seconds, by whom: this tree was there at this time
        self.signed = 0
        self.cosigned = 0
        self.unread = 0  # encrypted messages that could not be opened

    def wrong(self, kind: str, leaf: int | None, text: str) -> None:
        self.damage.append((kind, leaf, text))

    def tree(self, known: list[str]) -> None:
        """Newest, kept and remembered checkpoints against the tree of the entries. Raises OSError without a log."""
        trees, outside = [], []
        newest_note = (self.folder / "log" / "checkpoint").read_text(errors="replace")
        notes = [("log/checkpoint", newest_note)]
        notes += [
            (f"checkpoints/{path.name}", path.read_text(errors="replace"))
            for path in sorted((self.folder / "checkpoints").glob("*.note"))
        ]
        notes += [("known", note) for note in known]
        self._successors()
        for source, note in notes:
            try:
                _, size, root = self.policy.open(note, quorum=False)
                witnessed = self.policy.quorum != "none" and self.policy.witnessed(note)
                if witnessed or source == "known":
                    outside.append((size, root))
                if witnessed and source != "known":
                    self.cosigned = max(self.cosigned, size)
                self.attested += [(size, float(at), name) for name, at in self.policy.cosigners(note)]
            except Wrong as error:
                self.wrong("checkpoint_bad", None, f"{source}: {error}")
                continue
            if source == "log/checkpoint":
                self.signed = size
            if source.startswith("checkpoints/") and source != f"checkpoints/{size:012d}.note":
                self.wrong("checkpoint_bad", None, f"{source}: it is of {size} leaves")
            trees.append((source, size, root))
            known_names = {key.name for key in (*self.policy.logs, *self.policy.witnesses.values())}
            strangers = {name for name, _ in split_note(note)[1]} - known_names
            if strangers and self.policy.witnesses:
                self.notes.append(f"{source}: signatures that nobody here can judge: {', '.join(sorted(strangers))}")
        if not self.signed:
            self.signed = max((size for source, size, _ in trees if source != "known"), default=0)
        self._stamps()
        self._entries({size for _, size, _ in trees})
        # What the log's key alone has signed may be signed anew by whoever holds it: where there is more, only that
        # tells up to which leaf the tree is the old one.
        firm = [size for size, root in outside if self.roots.get(size) == root]
        firm = firm if outside else [size for _, size, root in trees if self.roots.get(size) == root]
        for source, size, root in sorted(trees, key=lambda one: one[1]):
            if size > self.signed:
                self.wrong("rolled_back", None, f"{source} is of {size} leaves, {self.signed} are signed here")
            elif size in self.roots and self.roots[size] != root:
                good = max((one for one in firm if one < size), default=0)
                text = f"{source}: the tree of {size} leaves was another; the change is in leaves {good} to {size - 1}"
                self.wrong("rewritten", good, text)
        self._quorum()
        self._evidence()
        self._clock()

    def _successors(self) -> None:
        """Keys that follow from those we know by `key` leaves: a new key that the old one has signed; and older ones,
        of which a tree that is signed with a key we know tells."""
        changes = []
        folder = self.folder / "log" / "tile" / "entries"
        for path in sorted(folder.rglob("*")):
            if path.is_file() and b'"type":"key"' in (data := path.read_bytes()):
                with contextlib.suppress(Wrong):
                    changes += [json.loads(one) for one in unbundle(data) if b'"type":"key"' in one]
        for one in (*changes, *reversed(changes)):
            try:
                old, new, texts = Key(one["old"]), Key(one["new"]), {str(key) for key in self.policy.logs}
                if str(old) in texts and str(new) not in texts:
                    statement = f"congvan rotate-key v1\n{one['old']}\n{one['new']}\n".encode()
                    Ed25519PublicKey.from_public_bytes(old.public).verify(unbase64(one["signature"]), statement)
                    self.policy.logs.append(new)
                    self.notes.append(f"the log's key was replaced: {one['t']}, {one.get('reason')}; now {new}")
                elif str(new) in texts and str(old) not in texts:
                    self.policy.logs.append(old)
            except (Wrong, Usage, InvalidSignature, KeyError, TypeError):
                continue

    def _quorum(self) -> None:
        if self.policy.quorum == "none":
            return
        if not self.cosigned:
            self.wrong("unwitnessed", None, "no checkpoint here has the signatures of the policy's witnesses")
        elif self.cosigned < self.signed:
            since = self.times.get(self.cosigned, "")
            self.notes.append(f"leaves {self.cosigned} to {self.signed - 1} are not cosigned yet: open since {since}")

    def _evidence(self) -> None:
        """Each anchor names what was attested of a checkpoint before it: it must still be there."""
        for place, told in self.anchors:
            try:
                name = f"checkpoints/{int(told['size']):012d}"
                text = self._attached(f"{name}.note", place).decode(errors="replace")
                if not text:
                    continue
                body, gap, lines = text.rpartition("\n\n")
                if not gap or hashlib.sha256(f"{body}\n".encode()).hexdigest() != told["note"]:
                    self.wrong("evidence_changed", place, f"{name}.note is not the one that was anchored")
                    continue
                there = {hashlib.sha256(line.encode()).hexdigest() for line in lines[:-1].split("\n")}
                for one in told["cosignatures"]:
                    if one["sha256"] not in there:
                        self.wrong("evidence_missing", place, f"{name}.note: the signature of {one['witness']} is gone")
                stamp = told.get("stamp")
                data = self._attached(f"{name}.tsr", place) if stamp else b""
                if stamp and data and hashlib.sha256(data).hexdigest() != stamp["sha256"]:
                    self.wrong("evidence_changed", place, f"{name}.tsr is not the one that was anchored")
            except (KeyError, TypeError, ValueError):
                self.wrong("leaf_changed", place, "an anchor that names nothing")

    def _stamps(self) -> None:
        """Every time stamp there is, against the checkpoint beside it."""
        if self.stamp_roots is None:
            return
        for path in sorted((self.folder / "checkpoints").glob("*.tsr")):
            try:
                body, _ = split_note(path.with_suffix(".note").read_text())
                at, by = congvan_stamp.check(path.read_bytes(), body.encode(), self.stamp_roots)
                self.attested.append((checkpoint(body)[1], at.timestamp(), by))
            except (Wrong, OSError, UnicodeDecodeError, congvan_stamp.BadStamp) as error:
                self.wrong("stamp_bad", None, f"checkpoints/{path.name}: {error}")

    def _attached(self, name: str, place: int) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            self.wrong("evidence_missing", place, f"{name} is gone")
            return b""

    def _clock(self) -> None:
        """What was in a tree at an attested time was not archived later; what came after it, not before."""
        for size, at, by in sorted(self.attested):
            last, following = self.times.get(size - 1), self.times.get(size)
            if last and seconds(last) > at + congvan_stamp.SKEW:
                self.wrong("clock_ahead", size - 1, f"{last}, but {by} saw it at {moment(int(at))}")
            if following and seconds(following) < at - congvan_stamp.SKEW:
                self.wrong("back_dated", size, f"{following}, but {by} did not see it yet at {moment(int(at))}")

    def _entries(self, wanted: set[int]) -> None:
        tree, before = Tree(), ""
        self.roots[0] = tree.root()
        near = {size - last for size in [self.cosigned, *(one[0] for one in self.attested)] for last in (0, 1)}
        hashes: list[bytes] = []
        for number in range(-(-self.signed // WIDTH)):
            width = min(WIDTH, self.signed - number * WIDTH)
            try:
                entries = list(unbundle(self._file("entries", number, width)))[:width]
                if len(entries) < width:
                    raise Wrong(f"entry bundle {number} is too short")
            except (OSError, Wrong) as error:
                self.wrong("log_incomplete", number * WIDTH, str(error))
                return
            for place, entry in enumerate(entries, number * WIDTH):
                digest = leaf_hash(entry)
                tree.add(digest)
                hashes.append(digest)
                before = self._look(place, entry, before)
                if place in near:
                    self.times[place] = before
                if tree.size in wanted:
                    self.roots[tree.size] = tree.root()
        self._tiles(hashes)
        self._narrow()

    def _tiles(self, hashes: list[bytes]) -> None:
        """Every tile on disk against the hashes it must hold, level by level."""
        level = 0
        while hashes:
            above = []
            for number in range(-(-len(hashes) // WIDTH)):
                part = hashes[number * WIDTH : (number + 1) * WIDTH]
                try:
                    there = self._file(level, number, len(part))
                    differ = [n for n, one in enumerate(part) if there[32 * n : 32 * n + 32] != one]
                    if differ:
                        leaf = number * WIDTH + differ[0] if level == 0 else None
                        self.wrong("tile_changed", leaf, f"tile level {level} number {number}")
                except OSError as error:
                    self.wrong("log_incomplete", None, str(error))
                if len(part) == WIDTH:
                    while len(part) > 1:
                        part = [node_hash(part[n], part[n + 1]) for n in range(0, len(part), 2)]
                    above += part
            hashes, level = above, level + 1

    def _narrow(self) -> None:
        """Tiles and bundles that were overtaken by wider ones, which are checked: what they hold is the same."""
        for folder in sorted((self.folder / "log" / "tile").rglob("*.p")):
            full = folder.with_name(folder.name[:-2])
            files = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
            widest = full if full.is_file() else files.pop() if files else full
            whole = widest.read_bytes() if widest.is_file() else b""
            for path in files:
                data = path.read_bytes()
                if not whole.startswith(data) or (len(data) != 32 * int(path.name) and "entries" not in path.parts):
                    self.wrong("tile_changed", None, str(path.relative_to(self.folder)))

    def _look(self, place: int, entry: bytes, before: str) -> str:
        try:
            told = read_entry(entry)
        except Wrong as error:
            self.wrong("leaf_changed", place, str(error))
            return before
        if told["seq"] != place:
            self.wrong("leaf_reordered", place, f"its entry says place {told['seq']}")
        if told["t"] < before:
            self.wrong("back_dated", place, f"{told['t']} after {before}")
        if told.get("type") == "message":
            self.blobs.setdefault(str(told.get("sha256")), []).append(place)
        elif told.get("type") == "dispose":
            if by_two(told):
                self.disposed.add(str(told.get("sha256")))
            else:
                self.wrong("dispose_bad", place, "destroyed, and not by two people")
        elif told.get("type") == "anchor":
            self.anchors.append((place, told))
        return max(before, told["t"])

    def _file(self, level: int | str, number: int, width: int) -> bytes:
        """A tile, or a wider one: narrower files are removed as the log grows."""
        digits = f"{number:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[n : n + 3] for n in range(0, len(digits), 3)]
        full = self.folder.joinpath("log", "tile", str(level), *(f"x{one}" for one in parts[:-1]), parts[-1])
        partial = full.with_name(full.name + ".p")
        widths = sorted(int(path.name) for path in partial.iterdir() if path.name.isdigit()) if partial.is_dir() else []
        for path in [partial / str(one) for one in widths if one >= width]:
            return path.read_bytes()
        return full.read_bytes()

    def bytes(self, sample: int | None, seed: int | None) -> int:
        """Every message's bytes, or those of some chosen by chance. Returns how many were read."""
        digests = sorted(self.blobs)
        if sample is not None:
            digests = random.Random(seed).sample(digests, min(sample, len(digests)))
        for digest in digests:
            path = self.folder / "blobs" / "sha256" / digest[:2] / f"{digest}.eml"
            leaf = self.blobs[digest][0]
            if not re.fullmatch("[0-9a-f]{64}", digest):
                self.wrong("leaf_changed", leaf, "its digest is none")
                continue
            there = [one for end in ("", ".gz", ".enc") if (one := path.with_name(path.name + end)).is_file()]
            try:
                if there and self.opener.digest(there[0], digest) != digest:
                    self.wrong("blob_changed", leaf, digest)
            except congvan_blob.NoKey:
                self.unread += 1
            if not there and digest not in self.disposed:
                self.wrong("blob_missing", leaf, digest)
        if self.unread:
            why = "none of the archive keys opens them" if self.opener.outer else "no --archive-key was given"
            self.notes.append(f"{self.unread} messages are encrypted and their bytes were NOT checked: {why}")
        if sample is None:
            for path in sorted((self.folder / "blobs" / "sha256").glob("*/*")):
                if path.name.partition(".eml")[0] not in self.blobs:
                    self.notes.append(f"bytes that no signed leaf names: {path.name}")
        return len(digests) - self.unread


def unbundle(data: bytes) -> Iterator[bytes]:
    """The entries of a bundle: 16 bits of length, then the entry. Raises Wrong when it is torn."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        if at + 2 + size > len(data):
            raise Wrong("an entry bundle is torn")
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


# ---------------------------------------------------------------------- command line


def read_policy(given: argparse.Namespace) -> Policy:
    if given.policy:
        return Policy([], Path(given.policy).read_text())
    text = Path(given.key).read_text() if Path(given.key).is_file() else given.key
    return Policy([Key(text)])


def fetched(places: list[str], policy: Policy) -> list[str]:
    """The newest checkpoint that each witness knows of our logs (GET <SHA-256 of the origin>/checkpoint), or all that
    lie in a folder. Raises OSError."""
    notes = []
    for place in places:
        found = []
        for origin in sorted({log.name for log in policy.logs}):
            if place.startswith(("http://", "https://")):
                from urllib.request import urlopen  # nothing else here knows of networks

                url = f"{place.rstrip('/')}/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"
                with urlopen(url, timeout=30) as answer:
                    found.append(answer.read(1 << 20).decode())
            else:
                texts = [path.read_text(errors="replace") for path in sorted(Path(place).rglob("*.note"))]
                found += [text for text in texts if text.startswith(f"{origin}\n")]
        if not found:
            raise OSError(f"{place}: no checkpoint of {', '.join(log.name for log in policy.logs)}")
        notes += found
    return notes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="congvan-verify", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("proof", "audit", "diff", "consistency"):
        command = commands.add_parser(name)
        trusted = command.add_mutually_exclusive_group(required=True)
        trusted.add_argument("--key", help="public key of the log, or a file that holds it")
        trusted.add_argument("--policy", help="C2SP tlog-policy file")
        command.add_argument("--json", action="store_true")
        if name in ("proof", "audit"):
            command.add_argument("--tsa-ca", help="PEM file with the roots of the time stamp authority")
        if name == "proof":
            command.add_argument("file")
            command.add_argument("proof")
        elif name == "audit":
            command.add_argument("--known", action="append", default=[], help="a checkpoint kept outside")
            command.add_argument(
                "--witness", action="append", default=[], help="URL of a witness, or a folder of notes"
            )
            command.add_argument("--archive-key", action="append", default=[], help="key file of an encrypted store")
            command.add_argument("--sample", type=int, help="read the bytes of N messages only")
            command.add_argument("--seed", type=int)
            command.add_argument("folder")
        elif name == "diff":
            command.add_argument("known", nargs=1)
            command.add_argument("folder")
        else:
            command.add_argument("old", help="the older checkpoint")
            command.add_argument("proof", help="file from `congvan archive consistency`")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as stop:
        return USAGE if stop.code else INTACT
    try:
        policy = read_policy(given)
        ca = getattr(given, "tsa_ca", None)
        roots = congvan_stamp.read_roots(Path(ca)) if ca else None
        archive_keys = [congvan_blob.read_key(Path(one)) for one in getattr(given, "archive_key", [])]
    except (Usage, OSError, ValueError, congvan_stamp.BadStamp) as error:
        print(f"congvan-verify: {error}", file=sys.stderr)
        return USAGE
    try:
        if given.command == "proof":
            return _proof(given, policy, roots)
        if given.command == "consistency":
            return _consistency(given, policy)
        return _archive(given, Audit(Path(given.folder), policy, roots, archive_keys))
    except (OSError, UnicodeDecodeError) as error:
        print(f"congvan-verify: {error}", file=sys.stderr)
        return INCOMPLETE


def _proof(given: argparse.Namespace, policy: Policy, roots: list | None) -> int:
    try:
        return _say(given, check_proof(policy, Path(given.file).read_bytes(), Path(given.proof).read_text(), roots))
    except Wrong as error:
        return _say(given, {"ok": False, "reason": str(error)})


def _consistency(given: argparse.Namespace, policy: Policy) -> int:
    """Does the log of the newer checkpoint begin with that of the older?"""
    try:
        _, size, root = policy.open(Path(given.old).read_text(), quorum=False)
        old, path, note = read_consistency(Path(given.proof).read_text())
        origin, new, new_root = policy.open(note)
        if old != size:
            raise Wrong(f"the proof is for {old} leaves, the older checkpoint has {size}")
        check_consistency(old, root, new, new_root, path)
    except Wrong as error:
        return _say(given, {"ok": False, "reason": str(error)})
    return _say(given, {"ok": True, "log": origin, "old_leaves": old, "new_leaves": new})


def shown(value: object) -> str:
    """For the eye: no brackets of a program."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items() if one != "")
    if isinstance(value, list):
        return "; ".join(" ".join(map(str, one)) if isinstance(one, list) else shown(one) for one in value) or "none"
    return str(value)


def _say(given: argparse.Namespace, answer: dict[str, object]) -> int:
    if given.json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print("ĐÚNG / holds" if answer["ok"] else "KHÔNG ĐÚNG / does not hold")
        for name, value in answer.items():
            print(f"  {name}: {shown(value)}")
    return INTACT if answer["ok"] else TAMPERED


def _archive(given: argparse.Namespace, audit: Audit) -> int:
    known = [Path(one).read_text() for one in given.known]
    if given.command == "audit":
        known += fetched(given.witness, audit.policy)
    audit.tree(known)
    read = audit.bytes(given.sample, given.seed) if given.command == "audit" else 0
    if given.command == "audit" and not known and audit.policy.quorum == "none":
        audit.notes.append(
            "no checkpoint from outside was given: a history rewritten with the log's own key would not show"
        )
    for kind, leaf, text in audit.damage:
        print(
            json.dumps({"kind": kind, "leaf": leaf, "detail": text}) if given.json else f"{kind}: leaf {leaf}: {text}"
        )
    summary = {
        "ok": not audit.damage,
        "leaves": audit.signed,
        "cosigned": audit.cosigned,
        "messages": read,
        "unread": audit.unread,
        "notes": audit.notes,
    }
    if given.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        for note in audit.notes:
            print(f"note: {note}")
        unread = f", {audit.unread} NOT (encrypted)" if audit.unread else ""
        state = "DAMAGED" if audit.damage else "intact"
        print(f"{state}: {audit.signed} leaves, bytes of {read} messages read{unread}")
    if not audit.damage:
        return INTACT
    return INCOMPLETE if all(kind == "log_incomplete" for kind, _, _ in audit.damage) else TAMPERED


if __name__ == "__main__":
    sys.exit(main())
