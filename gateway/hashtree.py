"""The hash tree: RFC 6962 hashes and proofs, C2SP signed notes, checkpoints and tiles. Pure: bytes in, bytes out.

A tree is known by `node(level, index)`, the hash of the perfect subtree over the leaves `index << level` up to, not
including, `(index + 1) << level`. Where nodes come from (a list, tiles on disk) is the caller's business.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Node = Callable[[int, int], bytes]

#: The longest entry: tlog-tiles gives its length 16 bits.
MAX_ENTRY = 65535
#: Hashes in a full tile, and levels of the tree in one level of tiles.
TILE_WIDTH, TILE_HEIGHT = 256, 8

#: C2SP signed-note signature types: a log's Ed25519, and what witnesses sign with. Bytes of a public key of each.
_LOG, COSIGNATURE, ML_DSA = 1, 4, 6
_KEY_BYTES = {_LOG: 32, COSIGNATURE: 32, ML_DSA: 1312}


class BadProof(Exception):
    """A proof or note that does not hold; the text says why."""


# ---------------------------------------------------------------------- hashes


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 section 2.1."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def fold_pairs(hashes: list[bytes]) -> bytes:
    """Root of a perfect tree over these hashes; their number is a power of two."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[n], hashes[n + 1]) for n in range(0, len(hashes), 2)]
    return hashes[0]


def peaks(start: int, end: int) -> list[tuple[int, int]]:
    """The perfect subtrees (level, index) that cover leaves `start` to `end`, left to right, for a range of the tree
    that the recursion of RFC 6962 can reach (`start` divisible by the power of two not below `end - start`)."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def range_hash(start: int, end: int, node: Node) -> bytes:
    """MTH(D[start:end])."""
    hashes = [node(level, index) for level, index in peaks(start, end)]
    result = hashes.pop()
    while hashes:
        result = node_hash(hashes.pop(), result)
    return result


def root(size: int, node: Node) -> bytes:
    """The root over the first `size` leaves."""
    return range_hash(0, size, node) if size else hashlib.sha256(b"").digest()


def _split(length: int) -> int:
    """The largest power of two smaller than `length`."""
    return 1 << ((length - 1).bit_length() - 1)


def inclusion(index: int, size: int, node: Node) -> list[bytes]:
    """RFC 6962 section 2.1.1: PATH(index, D[size]). Raises ValueError when there is no such leaf."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    proof, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(range_hash(middle, end, node))
            end = middle
        else:
            proof.append(range_hash(start, middle, node))
            start = middle
    return proof[::-1]


def consistency(old: int, new: int, node: Node) -> list[bytes]:
    """RFC 6962 section 2.1.2: PROOF(old, D[new]). Empty when old is 0 or new. Raises ValueError when old > new."""
    if not 0 <= old <= new:
        raise ValueError(f"no tree of {old} within one of {new}")
    if old in (0, new):
        return []
    proof, start, end, whole = [], 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(range_hash(middle, end, node))
            end = middle
        else:
            proof.append(range_hash(start, middle, node))
            start, whole = middle, False
    if not whole:
        proof.append(range_hash(start, end, node))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Iterable[bytes], tree_root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises BadProof."""
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is outside a tree of {size}")
    position, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise BadProof("the proof is too long")
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise BadProof("the proof is too short")
    if result != tree_root:
        raise BadProof("the proof leads to another root")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Iterable[bytes]) -> None:
    """RFC 9162 section 2.1.4.2. Raises BadProof."""
    path = list(proof)
    if not 0 <= old <= new:
        raise BadProof(f"a tree of {new} cannot follow one of {old}")
    if old in (0, new):
        if path:
            raise BadProof("the proof is too long")
        if old == new and old_root != new_root:
            raise BadProof("two roots for one size")
        if old == 0 and old_root != hashlib.sha256(b"").digest():
            raise BadProof("the empty tree has another root")
        return
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise BadProof("the proof is too short")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadProof("the proof is too long")
        if position & 1 or position == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise BadProof("the proof is too short")
    if first != old_root:
        raise BadProof("the old root is not a prefix of the new tree")
    if second != new_root:
        raise BadProof("the proof leads to another root")


# ---------------------------------------------------------------------- tiles (c2sp.org/tlog-tiles)


def tile_path(level: int | str, index: int, width: int = TILE_WIDTH) -> str:
    """`tile/0/x001/234`, `tile/entries/000.p/17`; `level` is a number or `entries`."""
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[n : n + 3] for n in range(0, len(digits), 3)]
    name = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return f"tile/{level}/{name}" + (f".p/{width}" if width < TILE_WIDTH else "")


def bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle: each entry after its length, 16 bits big endian."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def unbundle(data: bytes) -> list[bytes]:
    """The entries of a bundle. Raises ValueError when it is torn."""
    entries, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        if at + 2 + size > len(data):
            raise ValueError("the entry bundle is torn")
        entries.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return entries


class TileNodes:
    """`node` over tiles. `read(level, index)` gives the hashes of the widest tile there is, at least as wide as the
    tree needs; tiles are kept while this object lives."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._tiles: dict[tuple[int, int], bytes] = {}

    def __call__(self, level: int, index: int) -> bytes:
        height, below = divmod(level, TILE_HEIGHT)
        first = index << below
        key = (height, first // TILE_WIDTH)
        if key not in self._tiles:
            self._tiles[key] = self._read(*key)
        start = first % TILE_WIDTH * 32
        hashes = self._tiles[key][start : start + (32 << below)]
        if len(hashes) != 32 << below:
            raise BadProof(f"tile {tile_path(*key)} is too short")
        return fold_pairs([hashes[n : n + 32] for n in range(0, len(hashes), 32)])


# ---------------------------------------------------------------------- notes (c2sp.org/signed-note, tlog-checkpoint)


def _key_id(name: str, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    """Only the one spelling that an encoder makes: otherwise two different notes would say the same."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise BadProof("not base64") from None
    if _b64(data) != text:
        raise BadProof("not base64 as it is written")
    return data


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key as `name+hash+base64`. algorithm: 1 a log's Ed25519, 4 a witness's Ed25519, 6 a witness's ML-DSA-44
    (C2SP tlog-cosignature)."""

    name: str
    public: bytes
    algorithm: int = _LOG

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Raises BadProof."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not parts[0]:
            raise BadProof("not a verifier key: name+hash+key")
        key = _unb64(parts[2])
        if not key or _KEY_BYTES.get(key[0]) != len(key) - 1:
            raise BadProof("not an Ed25519 verifier key of a log, nor an Ed25519 or ML-DSA-44 key of a witness")
        if _key_id(parts[0], key).hex() != parts[1].lower():
            raise BadProof("the verifier key does not match its hash: a typing error?")
        return cls(parts[0], key[1:], key[0])

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_b64(bytes([self.algorithm]) + self.public)}"

    @property
    def key_id(self) -> bytes:
        return _key_id(self.name, bytes([self.algorithm]) + self.public)

    def check(self, signature: bytes, body: str) -> int:
        """The time a cosignature names, in seconds; 0 of a log's own. `signature` without its key id.
        Raises BadProof."""
        at, message = 0, body.encode()
        if self.algorithm != _LOG:
            at, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            message = cosigned(self.algorithm, self.name, at, body)
        try:
            if self.algorithm == ML_DSA:
                mldsa.MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise BadProof(f"the signature of {self.name} is wrong") from None
        return at


def cosigned(algorithm: int, name: str, at: int, body: str) -> bytes:
    """The bytes a witness signs: with Ed25519 the whole note, with ML-DSA-44 its name and what the first three lines
    say (C2SP tlog-cosignature). Raises BadProof for a note that is no checkpoint."""
    if algorithm == COSIGNATURE:
        return f"cosignature/v1\ntime {at}\n{body}".encode()
    checkpoint = Checkpoint.parse(body)
    mine, origin = name.encode(), checkpoint.origin.encode()
    head = b"subtree/v1\n\0" + bytes([len(mine)]) + mine + at.to_bytes(8, "big") + bytes([len(origin)]) + origin
    return head + bytes(8) + checkpoint.size.to_bytes(8, "big") + checkpoint.root


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, as `PRIVATE+KEY+name+hash+base64`, the spelling of Go's note package."""

    name: str
    seed: bytes

    @classmethod
    def parse(cls, text: str) -> Signer:
        """Raises BadProof."""
        parts = text.strip().split("+", 4)
        if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
            raise BadProof("not a signer key")
        key = _unb64(parts[4])
        if key[:1] != bytes([_LOG]) or len(key) != 33:
            raise BadProof("not an Ed25519 signer key")
        signer = cls(parts[2], key[1:])
        if signer.verifier.key_id.hex() != parts[3].lower():
            raise BadProof("the signer key does not match its hash")
        return signer

    def __str__(self) -> str:
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{_b64(bytes([_LOG]) + self.seed)}"

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def sign(self, body: str) -> str:
        """The signed note over `body`, which ends in a line break."""
        return f"{body}\n\u2014 {self.name} {_b64(self.verifier.key_id + self.sign_bytes(body.encode()))}\n"

    def sign_bytes(self, data: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(data)


def rotation(old: str, new: str) -> bytes:
    """What the old key of a log signs when a new one takes its place (`signature` of a `key` leaf)."""
    return f"congvan rotate-key v1\n{old}\n{new}\n".encode()


def successors(changes: Iterable[dict[str, Any]], known: Iterable[Verifier]) -> tuple[Verifier, ...]:
    """All keys of a log that follow from `known`: a new one when the old one has signed the change, and old ones of
    which a tree that `known` signed tells. changes: `key` leaves as they lie in the tree, oldest first."""
    found = list(known)
    changes = list(changes)
    for one in changes:
        try:
            old, new = Verifier.parse(one["old"]), Verifier.parse(one["new"])
            if old in found and new not in found:
                signature = _unb64(one["signature"])
                Ed25519PublicKey.from_public_bytes(old.public).verify(signature, rotation(one["old"], one["new"]))
                found.append(new)
        except (BadProof, InvalidSignature, KeyError, TypeError, ValueError):
            continue
    for one in reversed(changes):
        try:
            old, new = Verifier.parse(one["old"]), Verifier.parse(one["new"])
        except (BadProof, KeyError, TypeError):
            continue
        if new in found and old not in found:
            found.append(old)
    return tuple(found)


def split_note(note: str) -> tuple[str, list[str]]:
    """Text and signature lines of a note, nothing verified. Raises BadProof."""
    body, gap, signatures = note.rpartition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise BadProof("not a signed note")
    return body + "\n", signatures[:-1].split("\n")  # not splitlines, which takes other letters for line ends too


def signatures_by(
    body: str, lines: Iterable[str], verifiers: Iterable[Verifier]
) -> Iterator[tuple[Verifier, int, str]]:
    """Key, time and line of each signature by one of these keys; others are passed over. Raises BadProof for a line
    that is none and for a signature of a known key that does not hold."""
    known = {(one.name, one.key_id): one for one in verifiers}
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\u2014" or not encoded:
            raise BadProof("a signature line is malformed")
        signature = _unb64(encoded)
        if verifier := known.get((name, signature[:4])):
            yield verifier, verifier.check(signature[4:], body), line


def open_note(note: str, *verifiers: Verifier) -> str:
    """The text of a note that one of `verifiers` has signed. Other signatures are passed over. Raises BadProof."""
    body, lines = split_note(note)
    if not list(signatures_by(body, lines, verifiers)):
        raise BadProof(f"no signature of {' or '.join(sorted({one.name for one in verifiers}))} with this key")
    return body


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of a log at one moment; `extra` lines are signed with it."""

    origin: str
    size: int
    root: bytes
    extra: tuple[str, ...] = ()

    def body(self) -> str:
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), _b64(self.root), *self.extra))

    @classmethod
    def parse(cls, body: str) -> Checkpoint:
        """Raises BadProof."""
        lines = body.split("\n")
        if len(lines) < 4 or lines[-1] or not lines[0]:
            raise BadProof("not a checkpoint")
        if not (lines[1].isascii() and lines[1].isdigit()) or lines[1] != str(int(lines[1])):
            raise BadProof("the checkpoint's size is no number")
        digest = _unb64(lines[2])
        if len(digest) != 32:
            raise BadProof("the checkpoint's root is no SHA-256")
        return cls(lines[0], int(lines[1]), digest, tuple(lines[3:-1]))


# ---------------------------------------------------------------------- proofs as files (c2sp.org/tlog-proof)

_PROOF = "c2sp.org/tlog-proof@v1"


def proof_text(index: int, entry: bytes, path: Iterable[bytes], note: str, stamp: bytes = b"") -> str:
    """A tlog-proof. Its `extra` line holds the entry and, after a line break, the RFC 3161 response over the text of
    the checkpoint, if there is one; nothing else is needed but the keys."""
    extra = entry + b"\n" + stamp if stamp else entry
    lines = [_PROOF, f"extra {_b64(extra)}", f"index {index}", *map(_b64, path)]
    return "\n".join(lines) + "\n\n" + note


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof holds that was checked against the log's key. stamp: RFC 3161 response, not looked at, or empty."""

    index: int
    entry: bytes
    checkpoint: Checkpoint
    note: str
    stamp: bytes


def check_proof(text: str, *verifiers: Verifier) -> Proof:
    """A proof that holds under one of these keys of the log. Raises BadProof."""
    head, gap, note = text.partition("\n\n")
    lines = head.split("\n")
    if not gap or len(lines) < 3 or lines[0] != _PROOF:
        raise BadProof("not a tlog-proof")
    if not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        raise BadProof("the proof has no entry or no index")
    index = _number(lines[2].removeprefix("index "), "the index")
    entry, _, stamp = _unb64(lines[1].removeprefix("extra ")).partition(b"\n")
    checkpoint = _signed(note, verifiers)
    verify_inclusion(leaf_hash(entry), index, checkpoint.size, _hashes(lines[3:]), checkpoint.root)
    return Proof(index, entry, checkpoint, note, stamp)


def consistency_text(old: int, path: Iterable[bytes], note: str) -> str:
    """That the log of checkpoint `note` continues its first `old` leaves: the body of add-checkpoint (C2SP
    tlog-witness), which is as good a file as any."""
    return "".join(f"{line}\n" for line in (f"old {old}", *map(_b64, path))) + "\n" + note


def check_consistency(text: str, old: str, *verifiers: Verifier) -> tuple[Checkpoint, Checkpoint]:
    """The older checkpoint (its note) and the one in the proof, when the second continues the first.
    Raises BadProof."""
    head, gap, note = text.partition("\n\n")
    lines = head.split("\n")
    if not gap or not lines[0].startswith("old "):
        raise BadProof("not a proof of consistency: it begins with `old`")
    before, after = _signed(old, verifiers), _signed(note, verifiers)
    size = _number(lines[0].removeprefix("old "), "the old size")
    if size != before.size:
        raise BadProof(f"the proof is for {size} leaves, the older checkpoint has {before.size}")
    verify_consistency(before.size, before.root, after.size, after.root, _hashes(lines[1:]))
    return before, after


def _signed(note: str, verifiers: Iterable[Verifier]) -> Checkpoint:
    keys = tuple(verifiers)
    checkpoint = Checkpoint.parse(open_note(note, *keys))
    if checkpoint.origin not in {one.name for one in keys}:
        raise BadProof(f"a checkpoint of {checkpoint.origin}, not of {keys[0].name}")
    return checkpoint


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or text != str(int(text)):
        raise BadProof(f"{what} is no number")
    return int(text)


def _hashes(lines: Iterable[str]) -> list[bytes]:
    path = [_unb64(line) for line in lines]
    if any(len(one) != 32 for one in path):
        raise BadProof("a hash of the proof is no SHA-256")
    return path
