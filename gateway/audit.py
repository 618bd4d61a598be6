"""Is the archive what it was? Everything is computed anew from the bytes, and each kind of damage has a name.

Two witnesses are heard against each other: the rows in the database and the files of the log, and over both of them the
signed checkpoints, the newest, those kept, and the one that somebody outside remembers (`known`).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from gateway import database as db
from gateway import durable, stats, timestamps
from gateway.archive import Archive, canonical, clean, document_columns, from_ms, stamp, to_ms
from gateway.errors import Failure
from gateway.hashtree import (
    TILE_HEIGHT,
    TILE_WIDTH,
    BadProof,
    Checkpoint,
    Verifier,
    fold_pairs,
    leaf_hash,
    node_hash,
    split_note,
    successors,
)
from gateway.inspection.findings import Document

#: Leaves looked at together: their bytes are read at the same time, and a resumed audit begins with such a piece.
PIECE = 512

#: What can be wrong. The key is what `--json` says.
KINDS = {
    "blob_changed": "nội dung thư đã bị sửa / bytes changed",
    "blob_missing": "mất nội dung thư / bytes missing",
    "row_missing": "mất bản ghi / row missing",
    "row_changed": "bản ghi không khớp với lá / row disagrees with its leaf",
    "row_inserted": "bản ghi không có lá / row without a leaf",
    "count_missing": "mất sự kiện đếm / a counted event is gone",
    "count_extra": "sự kiện đếm không có thư làm chứng / a counted event that no message bears out",
    "count_changed": "sự kiện đếm đã bị sửa / a counted event changed",
    "leaf_missing": "mất lá / leaf missing",
    "leaf_changed": "lá đã bị sửa / leaf changed",
    "leaf_inserted": "lá bị chèn / leaf inserted",
    "leaf_reordered": "lá bị đổi chỗ / leaf moved",
    "back_dated": "thời gian đi lùi / time goes back",
    "truncated": "mất phần cuối / tail cut off",
    "rolled_back": "quay về trạng thái cũ / rolled back",
    "rewritten": "lịch sử bị viết lại / history rewritten",
    "checkpoint_bad": "điểm kiểm tra sai / bad checkpoint",
    "checkpoint_missing": "mất điểm kiểm tra / checkpoint missing",
    "file_changed": "tệp nhật ký cây băm sai / log file damaged",
    "evidence_missing": "mất chữ ký chứng kiến hoặc dấu thời gian / a cosignature or time stamp is gone",
    "evidence_changed": "chữ ký chứng kiến hoặc dấu thời gian bị đổi / a cosignature or time stamp changed",
    "stamp_bad": "dấu thời gian sai / bad time stamp",
    "clock_ahead": "đồng hồ chạy trước / the clock was ahead of an outside one",
}


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was. leaf: index, or None; case: the message, if known; detail: English, one line."""

    kind: str
    leaf: int | None
    case: str
    detail: str


@dataclass(slots=True)
class Report:
    """What was looked at and what was found. notes: no damage, but worth a look (bytes that no row names)."""

    leaves: int = 0
    messages: int = 0
    imported: int = 0  # of these, old mail from files: nobody here saw it arrive
    destroyed: int = 0  # on purpose, by two people
    bytes: int = 0
    signed: int = 0
    events: int | None = None  # counted, and held against the records; None: not looked at
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which messages are opened; the tree is always checked whole. blobs: `all`, or how many to choose by chance;
    since, until: received from this millisecond on, and before that one; first, last: leaves, both included."""

    blobs: str | int = "all"
    since: int | None = None
    until: int | None = None
    first: int = 0
    last: int | None = None
    seed: int | None = None

    @property
    def whole_leaves(self) -> bool:
        """Are messages chosen by their time alone, if at all?"""
        return self.first == 0 and self.last is None

    def has(self, leaf: int, received: int) -> bool:
        return (
            leaf >= self.first
            and (self.last is None or leaf <= self.last)
            and (self.since is None or received >= self.since)
            and (self.until is None or received < self.until)
        )


def audit(
    archive: Archive,
    *,
    blobs: str | int = "all",
    since: int | None = None,
    known: Iterable[str] = (),
    key: Verifier | None = None,
    progress: Callable[[int, int], None] = lambda done, size: None,
    seed: int | None = None,
    scope: Scope | None = None,
    stamp_roots: Path | None = None,
    jobs: int = 2,
    resume: Path | None = None,
) -> Report:
    """Check the archive. Blocks for as long as reading everything takes; not inside an event loop.

    scope: which messages are opened (or `blobs`, `since`, `seed` by themselves); known: signed notes remembered
    outside; key: the log's public key as it is known outside (else the one on this machine); stamp_roots: PEM file
    with the roots of the time stamp authority; jobs: files read at the same time; resume: a file that remembers how far
    we were, and is gone once the end is reached. Raises Failure when the database cannot be read, ValueError for a
    `resume` that is none.
    """
    return _Audit(archive, Report(), key, progress, stamp_roots, max(1, jobs), resume).run(
        scope or Scope(blobs, since, seed=seed), tuple(known)
    )


class _Audit:
    def __init__(
        self,
        archive: Archive,
        report: Report,
        key: Verifier | None,
        progress: Callable[[int, int], None],
        stamp_roots: Path | None,
        jobs: int,
        resume: Path | None,
    ) -> None:
        self.archive, self.log, self.report = archive, archive.log, report
        self.keys: tuple[Verifier, ...] = (key,) if key else ()
        self.progress = progress
        self.disposed: dict[str, bool] | None = None
        self.stamp_roots, self.jobs, self.resume = stamp_roots, jobs, resume
        self.anchors: list[tuple[int, dict[str, Any]]] = []
        self.deliveries: dict[str, list[int]] = {}  # case → leaves

    def damage(self, kind: str, leaf: int | None, case: str, detail: str) -> None:
        self.report.damage.append(Damage(kind, leaf, case, detail))

    def run(self, scope: Scope, known: tuple[str, ...]) -> Report:
        with self.archive.database.engine.connect() as connection:
            self._successors(connection)
        signed = self._checkpoints(known)  # before the rows are read: a daemon at work only ever adds
        with self.archive.database.engine.connect() as connection:
            size, newest_row = _log_end(connection)
            signed += self._rows_of_checkpoints(connection)
            roots, hashes_fit = self._tree(connection, size, {one.size for _, one in signed})
            self._compare(connection, size, newest_row, signed, roots, hashes_fit)
            self._evidence(connection)
            self._decisions(connection)
            self._messages(connection, scope)
            self._strangers(connection)
            self._publications(connection)
            if scope.blobs == "all" and scope.whole_leaves:
                self._counts(connection, scope)
        self.report.damage = list(dict.fromkeys(self.report.damage))
        return self.report

    # ------------------------------------------------------------------ what others attested

    def _successors(self, connection: Connection) -> None:
        """Keys that follow from those we are given, as the tree tells."""
        if not self.keys:
            try:
                self.keys = self.log.verifiers()
            except (BadProof, OSError):
                return
        changes = []
        question = select(db.leaf.c.entry).where(db.leaf.c.type == "key").order_by(db.leaf.c.idx)
        for entry in connection.execute(question).scalars():
            with contextlib.suppress(ValueError):
                changes.append(json.loads(entry))
        self.keys = successors(changes, self.keys)

    def _evidence(self, connection: Connection) -> None:
        """Cosignatures and time stamps: those that an anchor names, those that no anchor names yet, and what they say
        of our clock."""
        seen: list[tuple[int, int, str]] = []
        for place, told in self.anchors:
            try:
                size, wanted = int(told["size"]), {one["sha256"]: one["witness"] for one in told["cosignatures"]}
                stamp_digest = told["stamp"]["sha256"] if "stamp" in told else ""
                seen += [(size, one["time"], one["witness"]) for one in told["cosignatures"]]
                self._attested(place, size, told["note"], wanted, stamp_digest)
            except (KeyError, TypeError, ValueError):
                self.damage("leaf_changed", place, "", "an anchor that names nothing")
        for row in connection.execute(select(db.attest).where(db.attest.c.leaf.is_(None))):
            digests = {hashlib.sha256(one).hexdigest(): row.name for one in row.data[:-1].split(b"\n")}
            stamp_digest = hashlib.sha256(row.data).hexdigest() if row.name == "timestamps" else ""
            self._attested(None, row.size, "", {} if stamp_digest else digests, stamp_digest)
        try:
            roots = timestamps.read_roots(self.stamp_roots) if self.stamp_roots else None
        except (timestamps.BadStamp, OSError) as error:
            raise Failure(f"timestamps.ca: {error}", retryable=False) from None
        for path in sorted((self.log.folder / "checkpoints").glob("*.tsr")) if roots is not None else ():
            size = int(path.stem) if path.stem.isdigit() else 0
            try:
                body = split_note(self.log.kept_note(size))[0].encode()
                found = timestamps.check(path.read_bytes(), body, roots or [])
                seen.append((size, int(found.at.timestamp()), found.authority))
            except (BadProof, timestamps.BadStamp, OSError) as error:
                self.damage("stamp_bad", None, "", f"checkpoints/{path.name}: {error}")
        self._clock(connection, seen)

    def _attested(self, place: int | None, size: int, note: str, wanted: dict[str, str], stamp_digest: str) -> None:
        name = f"checkpoints/{size:012d}"
        text = self.log.kept_note(size)
        if not text:
            self.damage("evidence_missing", place, "", f"{name}.note is gone")
        else:
            body, _, lines = text.rpartition("\n\n")
            if note and hashlib.sha256(f"{body}\n".encode()).hexdigest() != note:
                self.damage("evidence_changed", place, "", f"{name}.note is not the one that was anchored")
            else:
                there = {hashlib.sha256(line.encode()).hexdigest() for line in lines[:-1].split("\n")}
                for digest, witness in wanted.items():
                    if digest not in there:
                        self.damage("evidence_missing", place, "", f"{name}.note: the signature of {witness} is gone")
        if stamp_digest:
            stamped = self.log.stamp_of(size)
            if not stamped:
                self.damage("evidence_missing", place, "", f"{name}.tsr is gone")
            elif hashlib.sha256(stamped).hexdigest() != stamp_digest:
                self.damage("evidence_changed", place, "", f"{name}.tsr is not the one that was taken")

    def _clock(self, connection: Connection, seen: list[tuple[int, int, str]]) -> None:
        """What was in a tree at an attested time was not archived later; what came after it, not before."""
        skew = int(timestamps.SKEW.total_seconds())
        for size, at, by in sorted(seen):
            rows = connection.execute(
                select(db.leaf.c.idx, db.leaf.c.at).where(db.leaf.c.idx.in_((size - 1, size)))
            ).all()
            for index, ours in rows:
                told = f"{stamp(from_ms(ours))}, and {by} says {stamp(from_ms(at * 1000))}"
                if index == size - 1 and ours > (at + skew) * 1000:
                    self.damage("clock_ahead", index, "", told)
                elif index == size and ours < (at - skew) * 1000:
                    self.damage("back_dated", index, "", told)

    def _decisions(self, connection: Connection) -> None:
        """Each decision of a person has its leaf."""
        leaf = db.leaf.c
        told: set[tuple[str, str, str, str]] = set()
        for entry in connection.execute(select(leaf.entry).where(leaf.type == "admin")).scalars():
            with contextlib.suppress(ValueError, AttributeError):
                one = json.loads(entry)
                told.add((one.get("case", ""), one.get("who", ""), one.get("act", ""), one.get("reason", "")))
        for row in connection.execute(select(db.decision)):
            if (row.message, clean(row.who), row.act, clean(row.reason)) not in told:
                self.damage("row_changed", None, row.message, f"decision {row.id} ({row.act}) has no leaf that says so")

    # ------------------------------------------------------------------ checkpoints

    def _checkpoints(self, known: tuple[str, ...]) -> list[tuple[str, Checkpoint]]:
        """All signed trees there are, with their source."""
        found: list[tuple[str, Checkpoint]] = []
        try:
            self.keys = self.keys or self.log.verifiers()
        except (BadProof, OSError) as error:
            if self.archive.log.folder.joinpath("log").exists() or known:
                self.damage("checkpoint_bad", None, "", f"keys/log.vkey: {error}")
            return found
        notes = [(f"checkpoints/{name}", note) for name, note in self.log.kept()]
        try:
            notes.append(("log/checkpoint", (self.log.folder / "log" / "checkpoint").read_text(errors="replace")))
        except FileNotFoundError:
            if notes or known:
                self.damage("checkpoint_missing", None, "", "log/checkpoint")
        notes += [("known", note) for note in known]
        for source, note in notes:
            try:
                checkpoint = self.log.open(note, *self.keys)
            except BadProof as error:
                self.damage("checkpoint_bad", None, "", f"{source}: {error}")
                continue
            if source.startswith("checkpoints/") and source != f"checkpoints/{checkpoint.size:012d}.note":
                self.damage("checkpoint_bad", None, "", f"{source}: is of {checkpoint.size} leaves")
            found.append((source, checkpoint))
        return found

    def _rows_of_checkpoints(self, connection: Connection) -> list[tuple[str, Checkpoint]]:
        found: list[tuple[str, Checkpoint]] = []
        kept = {name for name, _ in self.log.kept()}
        rows = connection.execute(select(db.checkpoint).order_by(db.checkpoint.c.size)).all()
        for place, row in enumerate(rows):
            source = f"row of checkpoint {row.size}"
            try:
                checkpoint = self.log.open(row.note, *self.keys)
            except (BadProof, OSError) as error:
                self.damage("checkpoint_bad", None, "", f"{source}: {error}")
                continue
            if (checkpoint.size, checkpoint.root) != (row.size, row.root):
                self.damage("checkpoint_bad", None, "", f"{source}: its note says something else")
            # All but the newest rows were put beside the log before the next was signed; the last but one may wait
            # for its file when the machine stopped in between.
            if place < len(rows) - 2 and f"{row.size:012d}.note" not in kept:
                self.damage("checkpoint_missing", None, "", f"checkpoints/{row.size:012d}.note")
            found.append((source, checkpoint))
        return found

    # ------------------------------------------------------------------ the tree

    def _tree(self, connection: Connection, size: int, wanted: set[int]) -> tuple[dict[int, bytes], bool]:
        """Roots at the wanted sizes, from the entries up; each leaf looked at by itself. The second value is False
        when indexes are not dense, so that roots say nothing about places."""
        roots = {0: hashlib.sha256(b"").digest()}
        stack: list[tuple[int, bytes]] = []
        expected, before, dense = 0, "", True
        for row in _all_leaves(connection):
            if row.idx != expected:
                self.damage("leaf_missing", expected, "", f"rows {expected} to {row.idx - 1} are not there")
                dense = False
            digest = leaf_hash(row.entry)
            if digest != row.hash:
                self.damage("leaf_changed", row.idx, row.case_id, "the entry does not have the hash beside it")
            before = self._entry(row, before)
            stack.append((0, digest))
            while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
                (level, right), (_, left) = stack.pop(), stack.pop()
                stack.append((level + 1, node_hash(left, right)))
            expected = row.idx + 1
            if expected in wanted:
                top = stack[-1][1]
                for _, left in reversed(stack[:-1]):
                    top = node_hash(left, top)
                roots[expected] = top
            if expected % 4096 == 0:
                self.progress(expected, size)
        self.report.leaves = expected
        return roots, dense

    def _entry(self, row: Any, before: str) -> str:
        """One entry by itself; returns its time."""
        try:
            entry = json.loads(row.entry)
            if row.type == "anchor":
                self.anchors.append((row.idx, entry))
            elif row.type == "delivery":
                self.deliveries.setdefault(row.case_id, []).append(row.idx)
            if entry["seq"] != row.idx:
                self.damage("leaf_reordered", row.idx, row.case_id, f"its entry says place {entry['seq']}")
            if (entry["type"], entry.get("case", "")) != (row.type, row.case_id) or entry["t"] != stamp(
                from_ms(row.at)
            ):
                self.damage("row_changed", row.idx, row.case_id, "type, case or time beside the entry is another")
            if entry["t"] < before:
                self.damage("back_dated", row.idx, row.case_id, f"{entry['t']} after {before}")
            return str(max(before, entry["t"]))
        except (ValueError, KeyError, TypeError):
            self.damage("leaf_changed", row.idx, row.case_id, "the entry is not readable")
            return before

    def _compare(
        self,
        connection: Connection,
        size: int,
        newest_row: int,
        signed: list[tuple[str, Checkpoint]],
        roots: dict[int, bytes],
        dense: bool,
    ) -> None:
        """Do the leaves lead to every tree that was ever signed?"""
        newest = max((one.size for source, one in signed if source != "known"), default=0)
        self.report.signed = newest
        good, bad = 0, 0
        for source, one in sorted(signed, key=lambda pair: pair[1].size):
            if one.size > size:
                if source == "known" and one.size > newest:
                    self.damage(
                        "rolled_back", None, "", f"{one.size} leaves are known outside, {newest} are signed here"
                    )
            elif roots.get(one.size) == one.root:
                good = max(good, one.size)
            else:
                bad = bad or one.size
                if source == "known" and dense:
                    self.damage("rewritten", None, "", f"the tree of {one.size} leaves known outside was another")
        if newest > size:
            kind = "truncated" if newest_row >= newest else "rolled_back"
            self.damage(kind, size, "", f"{newest} leaves are signed, {size} are there")
        on_disk = self._files(newest)
        if not (bad or not dense or newest > size):
            return
        place = min(newest, size) if dense else newest
        if not self._differences(connection, on_disk, place) and bad:
            # Without the old entries the place is not known.
            self.damage("rewritten", None, "", f"between leaf {good} and leaf {bad - 1}")

    def _files(self, size: int) -> bool:
        """Do entries and tiles on disk lead to the newest signed root? Names every file that does not fit."""
        if not size:
            return True
        fine = True
        level, count = 0, size
        below: dict[int, bytes] = {}
        while count:
            roots: dict[int, bytes] = {}
            for number in range(-(-count // TILE_WIDTH)):
                width = min(TILE_WIDTH, count - number * TILE_WIDTH)
                try:
                    if level == 0:
                        start = number * TILE_WIDTH
                        entries = self.log.entries(start, start + width, size)
                        hashes = [leaf_hash(entry) for _, entry in entries]
                    else:
                        hashes = [below[number * TILE_WIDTH + n] for n in range(width)]
                except (BadProof, KeyError) as error:
                    if level == 0:
                        self.damage("file_changed", None, "", str(error))
                    fine = False
                    continue
                try:
                    tile = self.log.tile(level, number, width)
                except BadProof as error:
                    self.damage("file_changed", None, "", str(error))
                    fine = False
                    tile = b"".join(hashes)
                for place in range(width):
                    if tile[place * 32 : place * 32 + 32] != hashes[place]:
                        fine = False
                        where = (number * TILE_WIDTH + place) << TILE_HEIGHT * level
                        self.damage(
                            "file_changed", where if level == 0 else None, "", f"tile level {level} number {number}"
                        )
                        break
                if width == TILE_WIDTH:
                    roots[number] = fold_pairs(hashes)
            below, count, level = roots, count // TILE_WIDTH, level + 1
        return fine

    def _differences(self, connection: Connection, files_fit: bool, size: int) -> bool:
        """Name the leaves in which the rows differ from the entries on disk, if those can be read."""
        try:
            before = [leaf_hash(entry) for _, entry in self.log.entries(0, self.report.signed, self.report.signed)]
        except BadProof:
            return False
        now = {row.idx: leaf_hash(row.entry) for row in _all_leaves(connection) if row.idx < len(before)}
        if not files_fit and all(now.get(place) == one for place, one in enumerate(before)):
            return False
        places = {one: place for place, one in enumerate(before)}
        there = set(now.values())
        named = False
        shift_started = False
        for place, one in enumerate(before):
            mine = now.get(place)
            if mine == one:
                continue
            if one not in there:
                if mine is None:
                    if place < size or any(index > place for index in now):
                        self.damage("leaf_missing", place, "", "the leaf on disk has no row")
                        named = True
                elif mine not in places:
                    self.damage("leaf_changed", place, "", "another entry stands in its place")
                    named = True
                else:
                    self.damage("leaf_missing", place, "", "the leaf on disk has no row, later ones moved up")
                    named = shift_started = True
            elif mine is not None and mine not in places:
                self.damage("leaf_inserted", place, "", "an entry that was never signed stands here")
                named = shift_started = True
            elif not shift_started and mine is not None:
                self.damage("leaf_reordered", place, "", f"the leaf of place {places[mine]} stands here")
                named = True
        return named

    # ------------------------------------------------------------------ messages

    def _messages(self, connection: Connection, scope: Scope) -> None:
        opened: set[str] | None = None
        if scope.blobs != "all":
            m = db.message.c
            question = select(m.id, m.received_at, db.leaf.c.idx).join(db.leaf, db.leaf.c.case_id == m.id)
            mails = connection.execute(question.where(db.leaf.c.type == "message").order_by(db.leaf.c.idx))
            ids = [row.id for row in mails if scope.has(row.idx, row.received_at)]
            opened = set(random.Random(scope.seed).sample(ids, min(int(scope.blobs), len(ids))))
        start, checked = self._remembered(scope), dict[str, str]()
        with ThreadPoolExecutor(self.jobs, "archive-verify") as readers:
            for rows in _pieces(_all_leaves(connection, start, scope.last), PIECE):
                wanted: dict[str, Future[str]] = {}
                named: list[tuple[Any, str, int]] = []
                for leaf in rows:
                    found = self._message(connection, leaf, scope, opened)
                    if found is not None:
                        named.append((leaf, *found))
                        if found[0] not in checked and found[0] not in wanted:
                            wanted[found[0]] = readers.submit(self._blob, found[0])
                for leaf, digest, size in named:
                    self.report.messages += 1
                    self.report.imported += b'"kind":"imported"' in leaf.entry
                    if digest not in checked:
                        checked[digest] = wanted[digest].result()
                        self.report.bytes += size if not checked[digest] else 0
                    if checked[digest]:
                        kind = "blob_missing" if checked[digest] == "missing" else "blob_changed"
                        self.damage(kind, leaf.idx, leaf.case_id, f"{digest}: {checked[digest]}")
                self.progress(rows[-1].idx + 1, self.report.leaves)
                self._remember(scope, rows[-1].idx + 1)
        if self.resume is not None:
            self.resume.unlink(missing_ok=True)

    def _remembered(self, scope: Scope) -> int:
        """The first leaf to look at. Raises ValueError for a file that is not of this scope."""
        if self.resume is None or not self.resume.exists():
            return scope.first
        try:
            told = json.loads(self.resume.read_text())
            if told["scope"] != repr(scope) or told["log"] != self.log.origin:
                raise ValueError("it is of another archive, or of another range")
            self.report.damage += [Damage(*one) for one in told["damage"]]
            self.report.messages, self.report.bytes = told["messages"], told["bytes"]
            self.report.imported = told["imported"]
            return int(told["next"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.resume}: {error}; delete it to begin anew") from None

    def _remember(self, scope: Scope, after: int) -> None:
        if self.resume is None:
            return
        ours = [one for one in self.report.damage if one.kind in ("row_missing", "row_changed") or "blob" in one.kind]
        told = {
            "scope": repr(scope),
            "log": self.log.origin,
            "next": after,
            "messages": self.report.messages,
            "imported": self.report.imported,
            "bytes": self.report.bytes,
            "damage": [[one.kind, one.leaf, one.case, one.detail] for one in ours if one.leaf is not None],
        }
        durable.replace(self.resume, json.dumps(told).encode())

    def _message(
        self, connection: Connection, leaf: Any, scope: Scope, opened: set[str] | None
    ) -> tuple[str, int] | None:
        """One leaf against its rows. Digest and size of the bytes that are to be read too."""
        try:
            entry = json.loads(leaf.entry)
        except ValueError:
            return None
        if leaf.type == "tombstone":
            self._tombstone(connection, leaf, entry)
        if leaf.type != "message" or not isinstance(entry, dict):
            return None
        row = connection.execute(_MESSAGE, {"case": leaf.case_id}).mappings().first()
        gone = leaf.case_id in self._disposed(connection)
        if row is None:
            self.damage("row_missing", leaf.idx, leaf.case_id, "the message has a leaf and no row")
        else:
            self._row(connection, leaf, entry, dict(row), gone)
            if not scope.has(leaf.idx, row["received_at"]):
                return None
        if gone:
            self.report.destroyed += 1
            if self.disposed[leaf.case_id] and not self._blob(entry.get("sha256", "")):
                self.report.notes.append(f"the bytes of {leaf.case_id} are still there; it was destroyed")
            return None
        if opened is not None and leaf.case_id not in opened:
            return None
        return entry.get("sha256", ""), entry.get("size", 0)

    def _blob(self, digest: str) -> str:
        try:
            return self.archive.store.problem(digest)
        except ValueError as error:
            return str(error)

    def _disposed(self, connection: Connection) -> dict[str, bool]:
        """Messages that were destroyed in good order, and whether their bytes went too. One person alone cannot:
        a leaf with one name is no excuse for what is missing."""
        if self.disposed is None:
            self.disposed = {}
            table = db.leaf.c
            for case, data in connection.execute(select(table.case_id, table.entry).where(table.type == "dispose")):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(data)
                    one, other = entry["proposed"], entry["confirmed"]
                    if one["login"] != other["login"] and one["who"].casefold() != other["who"].casefold():
                        self.disposed[case] = "sha256" in entry
        return self.disposed

    def _row(
        self, connection: Connection, leaf: Any, entry: dict[str, Any], row: dict[str, Any], gone: bool = False
    ) -> None:
        """Row, recipients and attachments against the entry, and the columns against the record. gone: the message is
        destroyed, and its content with it."""
        wrong = [
            name
            for name, given, told in (
                ("kind", row["kind"], entry["kind"]),
                ("about", row["about"] or "", entry["about"]),
                ("direction", row["direction"], entry["direction"]),
                ("channel", row["channel"], entry["channel"]),
                ("received_at", stamp(from_ms(row["received_at"])), entry["received"]),
                ("sha256", row["sha256"], entry["sha256"]),
                ("size", row["size"], entry["size"]),
                ("sender", row["sender"], entry["sender"]),
                ("login", row["login"], entry["login"]),
                ("peer", row["peer"], entry["peer"]),
                ("verdict", row["verdict"], entry["verdict"]),
                ("message_class", row["message_class"], entry["class"]),
                ("policy_digest", row["policy_digest"], entry["policy"]),
                ("record", hashlib.sha256(row["record"].encode()).hexdigest(), entry["record"]),
                ("trace", hashlib.sha256(row["trace"]).hexdigest(), entry["trace"]),
            )
            if given != told and not (gone and name in ("record", "trace"))
        ]
        if row["kind"] in ("mail", "imported") and "record" not in wrong and not gone:
            wrong += [name for name, value in columns_of(json.loads(row["record"])).items() if row[name] != value]
        recipients = [
            [one.address, one.verdict] for one in connection.execute(_RECIPIENTS, {"case": leaf.case_id}).all()
        ]
        files = [
            {"path": one.path, "sha256": one.sha256, "size": one.size, "type": one.type}
            for one in connection.execute(_ATTACHMENTS, {"case": leaf.case_id}).all()
        ]
        told = files if gone else entry["files"]
        if isinstance(told, list):
            told = [{name: one[name] for name in ("path", "sha256", "size", "type")} for one in told]
        elif len(files) == told["count"]:
            told = files  # the list went into the entry by its digest, which covers the signatures too
        if files != told:
            wrong.append("attachments")
        listed = entry["recipients"]
        if isinstance(listed, dict):
            listed = recipients if _digest(recipients) == listed["sha256"] else []
        if recipients != listed:
            wrong.append("recipients")
        if not self._settled(connection, leaf.case_id):
            wrong.append("delivery")
        if wrong:
            self.damage("row_changed", leaf.idx, leaf.case_id, ", ".join(wrong))

    def _settled(self, connection: Connection, case: str) -> bool:
        """Do the rows say of each recipient's delivery what the leaves say?"""
        told: dict[str, set[str]] = {}
        for entry in (self._entry_at(connection, place) for place in self.deliveries.get(case, ())):
            listed = entry.get("recipients", [])
            if not isinstance(listed, list):
                return True  # a very long list went in by its digest
            for address, state, *_ in listed:
                told.setdefault(address, set()).add(state)
        rows = connection.execute(_STATES, {"case": case}).all()
        for address, state in rows:
            said = told.get(address, set())
            if state in ("delivered", "failed") and state not in said:
                return False
            if state == "queued" and "delivered" in said:
                return False
        return True

    @staticmethod
    def _entry_at(connection: Connection, place: int) -> dict[str, Any]:
        try:
            found = json.loads(connection.execute(_ENTRY, {"place": place}).scalar_one())
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _tombstone(self, connection: Connection, leaf: Any, entry: dict[str, Any]) -> None:
        row = connection.execute(select(db.tombstone).where(db.tombstone.c.id == leaf.case_id)).mappings().first()
        if row is None:
            self.damage("row_missing", leaf.idx, leaf.case_id, "the tombstone has a leaf and no row")
            return
        given = {
            "sender": row["sender"],
            "recipients": json.loads(row["recipients"]),
            "peer": row["peer"],
            "size": row["size"],
            "level": row["level"],
            "rule": row["rule"],
            "hmac": row["digest"],
            "at": stamp(from_ms(row["at"])),
        }
        wrong = [name for name, value in given.items() if entry.get(name) != value]
        if wrong:
            self.damage("row_changed", leaf.idx, leaf.case_id, "tombstone: " + ", ".join(wrong))

    def _counts(self, connection: Connection, scope: Scope) -> None:
        """The events that the figures count, against the records of the messages: of each month that the scope touches.
        What is wrong with a message itself has its name already."""
        named = {one.case for one in self.report.damage if one.case}
        self.report.events = 0
        for month in stats.months(connection):
            if scope.since is not None and to_ms(month.end) <= scope.since:
                continue
            if scope.until is not None and to_ms(month.start) >= scope.until:
                continue
            proof = stats.prove(connection, month)
            self.report.events += proof.events
            for one in proof.differences:
                if one.kind in ("missing", "extra", "changed") and (not one.case or one.case not in named):
                    self.damage(f"count_{one.kind}", None, one.case, f"{month.text}: {one.detail}")

    def _publications(self, connection: Connection) -> None:
        """What was published, against the leaf that holds its digest."""
        told: dict[int, dict[str, Any]] = {}
        for place, entry in connection.execute(
            select(db.leaf.c.idx, db.leaf.c.entry).where(db.leaf.c.type == "publication").order_by(db.leaf.c.idx)
        ):
            with contextlib.suppress(ValueError):
                told[place] = json.loads(entry)
        rows = connection.execute(select(db.publication).order_by(db.publication.c.leaf)).all()
        for row in rows:
            name = f"publication {row.period} revision {row.revision}"
            entry = told.pop(row.leaf, {})
            try:
                digest = hashlib.sha256(zlib.decompress(row.data)).hexdigest()
            except zlib.error:
                digest = ""
            if not entry:
                self.damage("row_inserted", None, "", f"{name} without a leaf")
            elif (entry.get("period"), entry.get("sha256"), digest) != (row.period, row.sha256, row.sha256):
                self.damage("row_changed", row.leaf, "", f"{name} is not what its leaf says")
        kept = {(row.period, row.revision) for row in rows}
        for place, entry in told.items():
            if entry.get("revision") and (entry.get("period"), entry["revision"]) not in kept:
                self.damage("row_missing", place, "", f"publication {entry.get('period')} has a leaf and no row")

    def _strangers(self, connection: Connection) -> None:
        """Rows that no leaf stands for, and bytes that no row names."""
        for table in (db.message, db.tombstone):
            question = (
                select(table.c.id).outerjoin(db.leaf, db.leaf.c.case_id == table.c.id).where(db.leaf.c.idx.is_(None))
            )
            for case in connection.execute(question).scalars():
                self.damage("row_inserted", None, case, f"{table.name} without a leaf")
        named = set(connection.execute(select(db.message.c.sha256)).scalars())
        scans = select(db.register_entry.c.sha256).where(db.register_entry.c.origin == "paper")
        named |= set(connection.execute(scans).scalars())
        for digest in self.archive.store.digests():
            if digest not in named:
                # A crash between the bytes and their row leaves such bytes: they were never acknowledged.
                self.report.notes.append(f"bytes that no message names: {digest}")


def columns_of(record: dict[str, Any]) -> dict[str, Any]:
    """The columns of `message` that are copies of what the record holds."""
    facts, verdict = record["inspection"].get("message", {}), record["verdict"]
    document = Document.model_validate(verdict["document"]) if verdict["document"] else None
    return {
        "subject": clean(facts.get("subject", "")),
        "header_from": clean(", ".join(one.get("address") or one.get("name", "") for one in facts.get("from_", ()))),
        "message_id": clean(facts.get("message_id", "")),
        "profile": verdict["profile"],
        "delivery_mode": verdict["delivery_mode"],
        "agency": verdict["agency"],
        **document_columns(document),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def _log_end(connection: Connection) -> tuple[int, int]:
    """How many leaves there are, and the size of the newest checkpoint of which the database knows."""
    size = connection.execute(select(func.coalesce(func.max(db.leaf.c.idx) + 1, 0))).scalar_one()
    return size, connection.execute(select(func.coalesce(func.max(db.checkpoint.c.size), 0))).scalar_one()


def _all_leaves(connection: Connection, first: int = 0, last: int | None = None) -> Iterator[Any]:
    """In order, in pieces: a million of them do not fit into memory at once."""
    leaf, after = db.leaf.c, first - 1
    question = select(db.leaf).where(leaf.idx > bindparam("after")).order_by(leaf.idx).limit(2048)
    if last is not None:
        question = question.where(leaf.idx <= last)
    while rows := connection.execute(question, {"after": after}).all():
        yield from rows
        after = rows[-1].idx


def _pieces(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while piece := list(itertools.islice(rows, size)):
        yield piece


_ENTRY = select(db.leaf.c.entry).where(db.leaf.c.idx == bindparam("place"))
_STATES = select(db.recipient.c.address, db.recipient.c.state).where(db.recipient.c.message == bindparam("case"))
_MESSAGE = select(db.message).where(db.message.c.id == bindparam("case"))
_RECIPIENTS = (
    select(db.recipient.c.address, db.recipient.c.verdict)
    .where(db.recipient.c.message == bindparam("case"))
    .order_by(db.recipient.c.id)
)
_ATTACHMENTS = (
    select(db.attachment.c.path, db.attachment.c.sha256, db.attachment.c.size, db.attachment.c.type)
    .where(db.attachment.c.message == bindparam("case"))
    .order_by(db.attachment.c.id)
)
