"""The hash tree on disk, in files that other programs read: tiles, entry bundles, signed checkpoints.

    keys/log.key                 Ed25519 signing key of this log, 0600
    keys/log.vkey                its public half, to be given to auditors
    keys/log-<id>.vkey           public halves of keys that were replaced
    keys/log.next                the key to come, while one is being replaced
    log/checkpoint               the newest signed checkpoint (C2SP tlog-checkpoint)
    log/tile/<L>/<N>[.p/<W>]     hashes (C2SP tlog-tiles)
    log/tile/entries/<N>[.p/<W>] entries
    checkpoints/<size>.note      older checkpoints: one for each ten minutes with mail, and all that others attested
    checkpoints/<size>.tsr       the time stamp of one (RFC 3161 response over the text of the note)

The leaves are true in the database; these files are made of them and can be made again. All calls block.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway import durable
from gateway.hashtree import (
    TILE_HEIGHT,
    TILE_WIDTH,
    BadProof,
    Checkpoint,
    Node,
    Signer,
    TileNodes,
    Verifier,
    bundle,
    fold_pairs,
    leaf_hash,
    open_note,
    root,
    split_note,
    tile_path,
    unbundle,
)


class TreeLog:
    """The files of one log below `folder`. `origin` is the name that stands on its checkpoints."""

    def __init__(self, folder: Path, origin: str) -> None:
        self.folder = folder
        self.origin = origin

    # ------------------------------------------------------------------ keys

    def signer(self) -> Signer:
        """The signing key, read anew each time because another process may replace it; made at the first use.
        Raises BadProof for a key of another log, OSError."""
        path = self.folder / "keys" / "log.key"
        if not path.exists():
            if path.with_name("log.vkey").exists():
                raise BadProof("keys/log.key is lost; put it back, or `congvan archive rotate-key --lost`")
            durable.make_folder(path.parent, 0o700)
            fresh = Signer(self.origin, os.urandom(32))
            durable.replace(path, f"{fresh}\n".encode(), 0o600)
            durable.replace(path.with_name("log.vkey"), f"{fresh.verifier}\n".encode(), 0o644)
        signer = Signer.parse(path.read_text())
        if not path.with_name("log.vkey").exists():  # stopped between the two
            durable.replace(path.with_name("log.vkey"), f"{signer.verifier}\n".encode(), 0o644)
        return signer

    def verifier(self) -> Verifier:
        """The public key, as it lies on disk. Raises BadProof, OSError."""
        return Verifier.parse((self.folder / "keys" / "log.vkey").read_text())

    def verifiers(self) -> tuple[Verifier, ...]:
        """The public key and those it replaced. Raises BadProof, OSError."""
        older = [Verifier.parse(path.read_text()) for path in sorted((self.folder / "keys").glob("log-*.vkey"))]
        coming = [self.next_signer().verifier] if (self.folder / "keys" / "log.next").exists() else []
        return (self.verifier(), *older, *coming)

    def next_signer(self) -> Signer:
        """The key that will replace the present one; made at the first call and kept until `replace_key`."""
        path = self.folder / "keys" / "log.next"
        if not path.exists():
            durable.make_folder(path.parent, 0o700)
            durable.replace(path, f"{Signer(self.origin, os.urandom(32))}\n".encode(), 0o600)
        return Signer.parse(path.read_text())

    def replace_key(self) -> None:
        """Put the next key in place of the present one, whose private half is gone then; may be called again after a
        crash. Raises BadProof, OSError."""
        folder, fresh = self.folder / "keys", self.next_signer()
        if (folder / "log.vkey").exists() and (old := self.verifier()) != fresh.verifier:
            durable.replace(folder / f"log-{old.key_id.hex()}.vkey", f"{old}\n".encode(), 0o644)
            durable.replace(folder / "log.vkey", f"{fresh.verifier}\n".encode(), 0o644)
        durable.replace(folder / "log.key", f"{fresh}\n".encode(), 0o600)
        (folder / "log.next").unlink()
        durable.sync_folder(folder)

    # ------------------------------------------------------------------ checkpoints

    def newest(self) -> Checkpoint | None:
        """The newest published checkpoint, its signature checked; None before the first. Raises BadProof."""
        note = self.newest_note()
        return self.open(note) if note else None

    def newest_note(self) -> str:
        """Its text as it lies there, or empty."""
        try:
            return (self.folder / "log" / "checkpoint").read_text()
        except FileNotFoundError:
            return ""

    def open(self, note: str, *verifiers: Verifier) -> Checkpoint:
        """A checkpoint of this log out of a note; `verifiers` are its public keys, if not those on disk.
        Raises BadProof."""
        keys = verifiers or self.verifiers()
        checkpoint = Checkpoint.parse(open_note(note, *keys))
        if checkpoint.origin != keys[0].name:
            raise BadProof(f"a checkpoint of {checkpoint.origin}, not of {keys[0].name}")
        return checkpoint

    def sign(self, size: int, tree_root: bytes, at: str) -> str:
        """The signed note for this tree; `at` (RFC 3339) is signed with it. While the key is being replaced both sign,
        so that whoever knows only the old one can still read the checkpoint that holds the change."""
        body = Checkpoint(self.origin, size, tree_root, (f"time {at}",)).body()
        changing = (self.folder / "keys" / "log.next").exists()
        if changing and not (self.folder / "keys" / "log.key").exists():
            return self.next_signer().sign(body)
        note = self.signer().sign(body)
        if changing:
            note += self.next_signer().sign(body).removeprefix(body + "\n")
        return note

    def publish(self, note: str) -> None:
        durable.make_folder(self.folder / "log")
        durable.replace(self.folder / "log" / "checkpoint", note.encode(), 0o644)

    def keep(self, size: int, note: str) -> None:
        """Put a checkpoint beside the log for good; signature lines that were not there yet are added."""
        path = self.folder / "checkpoints" / f"{size:012d}.note"
        if path.exists():
            body, lines = split_note(path.read_text(errors="replace"))
            other, more = split_note(note)
            if other != body or not (more := [line for line in more if line not in lines]):
                return
            note = f"{body}\n" + "".join(f"{line}\n" for line in (*lines, *more))
        durable.make_folder(path.parent)
        durable.replace(path, note.encode(), 0o644)

    def keep_stamp(self, size: int, response: bytes) -> None:
        """Put the time stamp of a checkpoint beside it."""
        path = self.folder / "checkpoints" / f"{size:012d}.tsr"
        if not path.exists():
            durable.make_folder(path.parent)
            durable.replace(path, response, 0o644)

    def stamp_of(self, size: int) -> bytes:
        """The time stamp of a checkpoint, or nothing."""
        try:
            return (self.folder / "checkpoints" / f"{size:012d}.tsr").read_bytes()
        except FileNotFoundError:
            return b""

    def kept_note(self, size: int) -> str:
        """A checkpoint that was kept, or empty."""
        try:
            return (self.folder / "checkpoints" / f"{size:012d}.note").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def kept(self) -> Iterator[tuple[str, str]]:
        """File name and text of every checkpoint that was kept, by size."""
        folder = self.folder / "checkpoints"
        for path in sorted(folder.glob("*.note")) if folder.is_dir() else ():
            yield path.name, path.read_text(errors="replace")

    # ------------------------------------------------------------------ tiles

    def nodes(self, size: int) -> Node:
        """The tree of `size` leaves as it lies on disk. It raises BadProof where a tile is missing or short."""

        def read(level: int, index: int) -> bytes:
            return self.tile(level, index, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH))

        return TileNodes(read)

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves, from the tiles on disk. Raises BadProof."""
        return root(size, self.nodes(size))

    def entries(self, start: int, end: int, size: int) -> Iterator[tuple[int, bytes]]:
        """Index and entry of the leaves on disk. Raises BadProof where a bundle is missing or torn."""
        for number in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            width = min(TILE_WIDTH, size - number * TILE_WIDTH)
            for name, data in self._wide("entries", number, width):
                try:
                    found = unbundle(data)
                except ValueError as error:
                    raise BadProof(f"{name}: {error}") from None
                if len(found) < width:
                    raise BadProof(f"{name} holds {len(found)} entries")
                break
            else:
                raise BadProof(f"{tile_path('entries', number, width)} is missing")
            for place, entry in enumerate(found[:width]):
                if start <= number * TILE_WIDTH + place < end:
                    yield number * TILE_WIDTH + place, entry

    def extend(self, start: int, entries: Sequence[bytes]) -> int:
        """Write the tiles that these entries touch, durably. `start`, the index of the first, is the beginning of a
        tile, so that no old tile has to be trusted; all before it is on disk. Returns the new size."""
        size = start + len(entries)
        if start % TILE_WIDTH:
            raise ValueError(f"{start} is not the beginning of a tile")
        hashes = [leaf_hash(entry) for entry in entries]
        folders: set[Path] = set()
        for offset in range(0, len(entries), TILE_WIDTH):
            part = entries[offset : offset + TILE_WIDTH]
            self._write("entries", (start + offset) // TILE_WIDTH, len(part), bundle(part), folders)
        level, first = 0, start  # `first`: place of hashes[0] among all hashes of this level
        while hashes:
            full = []
            begin = first - first % TILE_WIDTH
            if begin < first:
                # A higher tile that was begun before: what it holds so far is read back, and checked when the root is.
                width = first - begin
                old = self.tile(level, begin // TILE_WIDTH, width)
                hashes = [old[n : n + 32] for n in range(0, len(old), 32)] + hashes
            for offset in range(0, len(hashes), TILE_WIDTH):
                part = hashes[offset : offset + TILE_WIDTH]
                self._write(level, (begin + offset) // TILE_WIDTH, len(part), b"".join(part), folders)
                if len(part) == TILE_WIDTH:
                    full.append(fold_pairs(part))
            hashes, first, level = full, begin // TILE_WIDTH, level + 1
        for folder in folders:
            durable.sync_folder(folder)
        return size

    def _write(self, level: int | str, index: int, width: int, data: bytes, folders: set[Path]) -> None:
        path = self.folder / "log" / tile_path(level, index, width)
        if path.exists() and path.read_bytes() == data:
            return
        durable.make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        durable.write_new(temporary, (data,), 0o644)
        durable.step()
        temporary.replace(path)
        folders.add(path.parent)

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The first `width` hashes of a tile."""
        for name, data in self._wide(level, index, width):
            if len(data) % 32 or len(data) < 32 * width:
                raise BadProof(f"{name} has {len(data)} bytes")
            return data[: 32 * width]
        raise BadProof(f"{tile_path(level, index, width)} is missing")

    def _wide(self, level: int | str, index: int, width: int) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of the narrowest file with at least `width` hashes or entries, if there is one: narrower ones
        are removed as the log grows, also while somebody reads."""
        full = self.folder / "log" / tile_path(level, index)
        folder = full.with_name(full.name + ".p")
        widths = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []
        for path in [*(folder / str(one) for one in widths if one >= width), full]:
            with contextlib.suppress(FileNotFoundError):
                yield str(path.relative_to(self.folder / "log")), path.read_bytes()

    def prune(self, size: int) -> None:
        """Remove partial tiles that a full one has replaced, and all but the newest two of the tile that grows
        (tlog-tiles allows it; a reader with an older checkpoint finds its hashes in the wider tile)."""
        for level in ("entries", *range(4)):
            count = size if level == "entries" else size >> TILE_HEIGHT * int(level)
            for index in {count // TILE_WIDTH, max(0, count // TILE_WIDTH - 1)}:
                folder = self.folder / "log" / tile_path(level, index, 1)
                folder = folder.parent
                if not folder.is_dir():
                    continue
                widths = sorted((int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True)
                whole = folder.with_name(folder.name.removesuffix(".p")).exists()
                for width in widths if whole else widths[2:]:
                    (folder / str(width)).unlink(missing_ok=True)
