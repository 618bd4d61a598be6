"""How the bytes of one message are written down, and the keys under which that is done.

    .eml        as they are
    .eml.gz     gzip, which any tool reads, then an empty member whose extra field holds the SHA-256 of the file before
                it: gzip alone has bits that nobody checks, and no flipped bit may go unseen
    .eml.enc    compressed, then AES-256-GCM in pieces of 64 KiB under a data key of its own; the data key is wrapped by
                a store key (`Keyring`), which is wrapped by the key outside this host

Layout of `.enc`: `CVE1`, 8 bytes id of the store key, 12 bytes nonce and 48 bytes of wrapped data key, then the pieces.
Nonce of a piece: its number (11 bytes), then 1 for the last and 0 for the others, so that none can be lost or moved.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway import durable
from gateway.errors import Failure

PLAIN, GZIP, ENCRYPTED = ".eml", ".eml.gz", ".eml.enc"
KINDS = (PLAIN, GZIP, ENCRYPTED)

#: Level 1: mail is mostly base64, where higher levels win a few per cent for several times the CPU.
_LEVEL = 1
#: Bytes at each of three places of a message that are tried: where looking for repetitions gives less than 3 % beside
#: counting letters alone (base64 of what was compressed), it is left out, which takes a third of the time.
_TRIED, _WORTH = 1 << 12, 0.97
#: zlib's word for a gzip header and trailer around the stream.
_GZIP_BITS = 31
_TRAILER = bytes.fromhex("1f8b0804000000000000240043562000"), bytes.fromhex("03000000000000000000")
_TRAILER_SIZE = len(_TRAILER[0]) + 32 + len(_TRAILER[1])

_MAGIC = b"CVE1"
_PIECE, _TAG = 1 << 16, 16
_HEAD = len(_MAGIC) + 8 + 12 + 32 + _TAG
#: What one step of decompression may give, so that a damaged file cannot fill the memory.
_MOST = 1 << 20


class Unreadable(ValueError):
    """These are not bytes that were written here."""


# ---------------------------------------------------------------------- compression


def compress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes as `.eml.gz`."""
    digest, source = hashlib.sha256(), iter(chunks)
    first = next(source, b"")
    packer = _packer(_strategy(first))

    def packed() -> Iterator[bytes]:
        yield packer.compress(first)
        for chunk in source:
            yield packer.compress(chunk)
        yield packer.flush()

    for piece in packed():
        if piece:
            digest.update(piece)
            yield piece
    yield _TRAILER[0] + digest.digest() + _TRAILER[1]


def _packer(strategy: int) -> zlib._Compress:
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_BITS, zlib.DEF_MEM_LEVEL, strategy)


def _strategy(data: bytes) -> int:
    """How a message that begins with these bytes is best compressed."""
    if len(data) < 8 * _TRIED:
        return zlib.Z_DEFAULT_STRATEGY
    tried = b"".join(data[at : at + _TRIED] for at in (len(data) * n // 4 for n in (1, 2, 3)))
    whole, letters = (
        len(packer.compress(tried)) + len(packer.flush())
        for packer in map(_packer, (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY))
    )
    return zlib.Z_HUFFMAN_ONLY if whole > _WORTH * letters else zlib.Z_DEFAULT_STRATEGY


def decompress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of an `.eml.gz`. Raises Unreadable, perhaps after some of them."""
    digest, unpacker, held = hashlib.sha256(), zlib.decompressobj(_GZIP_BITS), b""
    try:
        for piece in pieces:
            held += piece
            ready, held = held[:-_TRAILER_SIZE], held[-_TRAILER_SIZE:]
            digest.update(ready)
            while ready:
                yield unpacker.decompress(ready, _MOST)
                ready = unpacker.unconsumed_tail
                if unpacker.unused_data:
                    raise Unreadable("something stands between the members")
        yield unpacker.flush()
    except zlib.error as error:
        raise Unreadable(str(error)) from None
    if not unpacker.eof or held != _TRAILER[0] + digest.digest() + _TRAILER[1]:
        raise Unreadable("the end is missing or another")


# ---------------------------------------------------------------------- encryption


def encrypt(chunks: Iterable[bytes], sha256: str, keyring: Keyring) -> Iterator[bytes]:
    """The bytes as `.eml.enc`. Raises Failure without the key."""
    name, store_key = keyring.current()
    data_key, nonce = os.urandom(32), os.urandom(12)
    yield _MAGIC + name + nonce + AESGCM(store_key).encrypt(nonce, data_key, _MAGIC + name + bytes.fromhex(sha256))
    yield from seal(compress(chunks), data_key)


def decrypt(pieces: Iterable[bytes], sha256: str, keyring: Keyring) -> Iterator[bytes]:
    """The bytes of an `.eml.enc`. Raises Unreadable, Failure without the key."""
    source, held = iter(pieces), b""
    for piece in source:
        held += piece
        if len(held) >= _HEAD:
            break
    if len(held) < _HEAD or not held.startswith(_MAGIC):
        raise Unreadable("no head")
    name, nonce, wrapped = held[4:12], held[12:24], held[24:_HEAD]
    store_key = keyring.key(name)
    if store_key is None:
        raise Unreadable(f"store key {name.hex()} is not known here")
    try:
        data_key = AESGCM(store_key).decrypt(nonce, wrapped, _MAGIC + name + bytes.fromhex(sha256))
    except InvalidTag:
        raise Unreadable("the head was changed") from None

    def rest() -> Iterator[bytes]:
        yield held[_HEAD:]
        yield from source

    yield from decompress(unseal(rest(), data_key))


def seal(chunks: Iterable[bytes], key: bytes) -> Iterator[bytes]:
    """AES-256-GCM in pieces, under a key that is used for nothing else."""
    cipher, number, held = AESGCM(key), 0, b""
    for chunk in chunks:
        held, at = held + chunk, 0
        while len(held) - at > _PIECE:
            yield cipher.encrypt(_nonce(number, False), held[at : at + _PIECE], None)
            at, number = at + _PIECE, number + 1
        held = held[at:]
    yield cipher.encrypt(_nonce(number, True), held, None)


def unseal(pieces: Iterable[bytes], key: bytes) -> Iterator[bytes]:
    """What was given to `seal`. Raises Unreadable, perhaps after some of it."""
    cipher, number, held, size = AESGCM(key), 0, b"", _PIECE + _TAG
    try:
        for piece in pieces:
            held, at = held + piece, 0
            while len(held) - at > size:
                yield cipher.decrypt(_nonce(number, False), held[at : at + size], None)
                at, number = at + size, number + 1
            held = held[at:]
        yield cipher.decrypt(_nonce(number, True), held, None)
    except InvalidTag:
        raise Unreadable(f"piece {number} was changed") from None


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


# ---------------------------------------------------------------------- keys


def read_wrapping_key(path: Path) -> bytes:
    """The key outside this host: 32 bytes, as they are, in hexadecimal or in base64. Raises Failure."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"archive key {path}: {error.strerror}; without it no message can be written or read"
        raise Failure(reason, reason) from None
    if len(data) == 32:
        return data
    text = data.decode("ascii", "replace").strip()
    for pattern, read in ((r"[0-9a-fA-F]{64}", bytes.fromhex), (r"[A-Za-z0-9+/]{43}=", base64.b64decode)):
        if re.fullmatch(pattern, text):
            return read(text)
    reason = f"archive key {path}: 32 bytes are needed, as they are, in hexadecimal or base64 (openssl rand -hex 32)"
    raise Failure(reason, reason, retryable=False)


class Keyring:
    """The store keys: few, each in a small file, wrapped by the key outside. Changing that one writes these files anew
    and no message.

    wrapping: gives the keys from outside when they are needed, the one to wrap with first, those before it after it.
    """

    def __init__(self, folder: Path, wrapping: Callable[[], list[bytes]]) -> None:
        self.folder = folder
        self._wrapping = wrapping
        self._keys: dict[bytes, bytes] = {}
        self._current: bytes | None = None

    def current(self) -> tuple[bytes, bytes]:
        """Name and key to write with; made at the first use. Raises Failure."""
        if self._current is None:
            paths = sorted(self.folder.glob("*.key")) if self.folder.is_dir() else []
            if not paths:
                name, key = os.urandom(8), os.urandom(32)
                self._write(name, key, self._outside()[0])
                paths = [self._path(name)]
            name = bytes.fromhex(paths[-1].stem)
            if self.key(name) is None:
                raise Failure("archive key", f"{paths[-1]}: cannot be read")
            self._current = name
        return self._current, self._keys[self._current]

    def key(self, name: bytes) -> bytes | None:
        """A store key by its name; None when there is none of this name. Raises Failure without the key outside."""
        if name not in self._keys:
            try:
                told = json.loads(self._path(name).read_text())
                wrapped = base64.b64decode(told["wrapped"])
                outer = str(told["by"])
            except FileNotFoundError:
                return None
            except (OSError, ValueError, KeyError, TypeError):
                raise Failure("archive key", f"{self._path(name)}: damaged; take it from a backup") from None
            by = {_fingerprint(key): key for key in self._outside()}
            if outer not in by:
                reason = f"{self._path(name)} needs the archive key {outer}; given: {', '.join(by)}"
                raise Failure(reason, reason)
            try:
                self._keys[name] = AESGCM(by[outer]).decrypt(wrapped[:12], wrapped[12:], name)
            except InvalidTag:
                raise Failure("archive key", f"{self._path(name)}: damaged; take it from a backup") from None
        return self._keys[name]

    def rewrap(self) -> int:
        """Wrap every store key with the first of the keys outside. Safe to repeat. Returns how many were written."""
        first, count = self._outside()[0], 0
        for path in sorted(self.folder.glob("*.key")):
            name = bytes.fromhex(path.stem)
            key = self.key(name)
            if key is not None and json.loads(path.read_text())["by"] != _fingerprint(first):
                self._write(name, key, first)
                count += 1
        return count

    def _outside(self) -> list[bytes]:
        return self._wrapping()

    def _path(self, name: bytes) -> Path:
        return self.folder / f"{name.hex()}.key"

    def _write(self, name: bytes, key: bytes, outer: bytes) -> None:
        nonce = os.urandom(12)
        wrapped = nonce + AESGCM(outer).encrypt(nonce, key, name)
        told = {"by": _fingerprint(outer), "wrapped": base64.b64encode(wrapped).decode()}
        durable.make_folder(self.folder, 0o700)
        durable.replace(self._path(name), (json.dumps(told) + "\n").encode(), 0o600)


def _fingerprint(key: bytes) -> str:
    """What a key outside is called in files and messages; says nothing about it."""
    return hashlib.sha256(b"congvan archive key\0" + key).hexdigest()[:16]
