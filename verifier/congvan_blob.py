"""The bytes of one message as the archive keeps them: plain, compressed, or encrypted; beside `congvan_verify.py`.

    .eml        as they were received
    .eml.gz     gzip, then an empty member whose extra field holds the SHA-256 of the file before it: gzip by itself has
                bits that nobody checks
    .eml.enc    `CVE1`, id of a store key (8 bytes), nonce (12), data key wrapped by the store key (48); then the
                `.eml.gz` in pieces of 64 KiB, AES-256-GCM under the data key; nonce of a piece: its number (11 bytes),
                then 1 for the last and 0 for the others

A store key is a file `keys/store/ID.key`, wrapped by the archive key, which its owner keeps elsewhere.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import zlib
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PIECE = (1 << 16) + 16  # with its tag


class NoKey(Exception):
    """The archive keys that were given do not open this one."""


def read_key(path: Path) -> bytes:
    """32 bytes, as they are, in hexadecimal or base64. Raises OSError, ValueError."""
    data = path.read_bytes()
    if len(data) == 32:
        return data
    text = data.decode("ascii", "replace").strip()
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    if re.fullmatch("[A-Za-z0-9+/]{43}=", text):
        return base64.b64decode(text)
    raise ValueError(f"{path}: an archive key has 32 bytes, as they are, in hexadecimal or base64")


class Opener:
    """Reads messages of a data folder. `keys`: archive keys, none if nobody gave one."""

    def __init__(self, folder: Path, keys: list[bytes]) -> None:
        self.folder, self.outer = folder / "keys" / "store", keys
        self._keys: dict[bytes, bytes] = {}

    def digest(self, path: Path, sha256: str) -> str:
        """SHA-256 of the message as it was received; empty when its file was changed. Raises NoKey, OSError."""
        if path.suffix == ".eml":
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            return digest.hexdigest()
        data = path.read_bytes()
        if path.suffix == ".enc":
            data = self._decrypt(data, sha256)
        return unzipped(data)

    def _decrypt(self, data: bytes, sha256: str) -> bytes:
        """Empty when something was changed."""
        name, nonce, wrapped, rest = data[4:12], data[12:24], data[24:72], data[72:]
        if data[:4] != b"CVE1" or len(data) < 72:
            return b""
        if self.outer and any(self.folder.glob("*.key")) and not (self.folder / f"{name.hex()}.key").is_file():
            return b""
        cipher = AESGCM(self._store_key(name))
        try:
            cipher = AESGCM(cipher.decrypt(nonce, wrapped, data[:12] + bytes.fromhex(sha256)))
            pieces = [rest[at : at + PIECE] for at in range(0, len(rest), PIECE)]
            nonces = [n.to_bytes(11, "big") + bytes([n == len(pieces) - 1]) for n in range(len(pieces))]
            return b"".join(cipher.decrypt(nonce, one, None) for nonce, one in zip(nonces, pieces, strict=True))
        except InvalidTag:
            return b""

    def _store_key(self, name: bytes) -> bytes:
        if name not in self._keys:
            try:
                told = json.loads((self.folder / f"{name.hex()}.key").read_text())
                wrapped = base64.b64decode(told["wrapped"])
            except (OSError, ValueError, KeyError, TypeError):
                raise NoKey from None
            for outer in self.outer:
                try:
                    self._keys[name] = AESGCM(outer).decrypt(wrapped[:12], wrapped[12:], name)
                except InvalidTag:
                    continue
        if name not in self._keys:
            raise NoKey
        return self._keys[name]


def unzipped(data: bytes) -> str:
    """SHA-256 of what a `.eml.gz` holds; empty when one bit of it was changed."""
    seal = bytes.fromhex("1f8b0804000000000000 2400 4356 2000") + hashlib.sha256(data[:-58]).digest()
    if data[-58:] != seal + bytes.fromhex("03000000000000000000"):
        return ""
    digest = hashlib.sha256()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except (OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest()
