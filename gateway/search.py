"""Finding what is archived: an index beside the database, made of it and made again when it is lost or damaged.

`index.db` (SQLite FTS5) holds folded words only, no truth: lower case, without accents, đ as d. It follows the leaves
of the tree in order, so its lag is a number. Every search catches up first: what is archived is findable at once.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gateway.errors import LOCAL_ERROR, Failure
from gateway.vietnamese import fold, nfc

_VERSION = 1
_COLUMNS = ("subject", "abstract", "signer", "issuing", "files", "body", "sender", "recipients", "rules")
#: What a search for words looks at.
_TEXT = "{subject abstract signer issuing files body}"
#: Messages indexed in one transaction: a search by another process waits no longer than this takes.
_BATCH = 200
#: With words, the best of this many are looked at again for their accents.
_WINDOW = 200


def document_key(code: str) -> str:
    """`14 / ct - ubnd` and `14/CT-UBND` are one number: no spaces, no accents, upper case, without leading zeros."""
    return "".join(fold(code).upper().split()).lstrip("0")


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; empty means anything. Times in milliseconds since the epoch, `until` not included.

    text, abstract, signer, issuing, file, sender, recipient, rule: words, `"a phrase"`, `prefix*`; accents do not
    matter, but texts that have them as given come first. number: a document's number in any spacing, or its beginning.
    digest: SHA-256 of a message or of an attachment.
    """

    text: str = ""
    number: str = ""
    sender: str = ""
    recipient: str = ""
    agency: str = ""
    direction: str = ""
    since: int | None = None
    until: int | None = None
    kind: str = ""
    abstract: str = ""
    signer: str = ""
    issuing: str = ""
    file: str = ""
    digest: str = ""
    rule: str = ""
    verdict: str = ""
    message_class: str = ""
    limit: int = 50
    offset: int = 0

    def empty(self) -> bool:
        return not any(getattr(self, one.name) for one in fields(self) if one.name not in ("limit", "offset"))


@dataclass(slots=True)
class Page:
    """One page of what was found. total: of all pages; lag: messages that are not in the index yet."""

    total: int
    lag: int
    rows: list[dict[str, Any]] = field(default_factory=list)


class Index:
    """The index of one archive. Calls block, and take turns."""

    def __init__(self, path: Path, main: Path) -> None:
        self._path = path
        self._main = main
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self.problem = ""

    def close(self) -> None:
        with self._lock:
            self._drop()

    def catch_up(self, most: int = 1 << 30) -> int:
        """Index what is new, at most so many messages; a damaged index is made again. Returns what is still missing.
        Raises Failure."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    lag = self._follow(most)
                    self.problem = ""
                    return lag
                except sqlite3.DatabaseError as error:
                    self.problem = str(error)
                    self._drop()
                    if attempt == 2 or (isinstance(error, sqlite3.OperationalError) and "locked" in str(error)):
                        raise Failure(LOCAL_ERROR.text, f"search index: {error}") from error
                    for path in (self._path, *self._path.parent.glob(self._path.name + "-*")):
                        path.unlink(missing_ok=True)
            raise AssertionError

    def search(self, query: Query) -> Page:
        """Raises Failure when neither index nor database can be read."""
        lag = self.catch_up()
        with self._lock:
            try:
                return self._ask(query, lag)
            except sqlite3.DatabaseError as error:
                self._drop()
                raise Failure(LOCAL_ERROR.text, f"search: {error}") from error

    # ------------------------------------------------------------------ inside

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        connection = sqlite3.connect(self._path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes is indexed again
            # Several processes may come first at once; who waits finds the tables made.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS state (version INTEGER, next INTEGER)")
            state = connection.execute("SELECT version FROM state").fetchone()
            if state is None:
                connection.execute(
                    f"CREATE VIRTUAL TABLE fts USING fts5({', '.join(_COLUMNS)}, content='', columnsize=1, "
                    "tokenize='unicode61 remove_diacritics 2')"
                )
                connection.execute("INSERT INTO state VALUES (?, 0)", (_VERSION,))
            elif state[0] != _VERSION:
                raise sqlite3.DatabaseError(f"index of version {state[0]}")
            connection.execute("COMMIT")
            connection.execute("ATTACH ? AS main_db", (str(self._main),))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _follow(self, most: int) -> int:
        connection = self._open()
        while True:
            (next_leaf,) = connection.execute("SELECT next FROM state").fetchone()
            (size,) = connection.execute("SELECT coalesce(max(idx) + 1, 0) FROM main_db.leaf").fetchone()
            if next_leaf > size:  # the database went back: an index of what is not there is worth nothing
                raise sqlite3.DatabaseError(f"index of {next_leaf} leaves, database of {size}")
            if next_leaf == size or most <= 0:
                return int(size - next_leaf)
            connection.execute("BEGIN IMMEDIATE")
            try:
                (next_leaf,) = connection.execute("SELECT next FROM state").fetchone()
                end = min(size, next_leaf + min(_BATCH, most))
                for row in connection.execute(
                    "SELECT l.idx, m.*, f.texts FROM main_db.leaf l JOIN main_db.message m ON m.id = l.case_id "
                    "LEFT JOIN main_db.fulltext f ON f.message = m.id "
                    "WHERE l.type = 'message' AND l.idx >= ? AND l.idx < ?",
                    (next_leaf, end),
                ).fetchall():
                    connection.execute(
                        f"INSERT INTO fts(rowid, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)})",
                        (row["idx"], *self._words(connection, row)),
                    )
                connection.execute("UPDATE state SET next = max(next, ?)", (end,))
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            most -= end - next_leaf

    def _words(self, connection: sqlite3.Connection, row: sqlite3.Row) -> list[str]:
        case = row["id"]
        files = [one[0] for one in connection.execute("SELECT path FROM main_db.attachment WHERE message = ?", (case,))]
        to = [one[0] for one in connection.execute("SELECT address FROM main_db.recipient WHERE message = ?", (case,))]
        found = json.loads(row["record"]).get("verdict", {}).get("findings", [])
        body = "\n".join(unpack_texts(row["texts"]).values())
        number = f"{row['document_code']} {row['subject']}"
        return [
            fold(words)
            for words in (
                number,
                row["abstract"],
                row["signer"],
                row["issuing_agency"],
                "\n".join(files),
                body,
                f"{row['sender']} {row['header_from']} {row['login']}",
                "\n".join(to),
                "\n".join(sorted({one["rule"] for one in found})),
            )
        ]

    def _ask(self, query: Query, lag: int) -> Page:
        connection = self._open()
        match = _match(query)
        where: list[str] = []
        values: list[object] = []

        def need(condition: str, *given: object) -> None:
            where.append(condition)
            values.extend(given)

        if match:
            need("fts MATCH ?", match)
        if query.number:
            key = document_key(query.number)
            need("m.document_key >= ? AND m.document_key < ?", key, key + "\U0010ffff")
        if query.digest:
            digest = query.digest.lower()
            need("(m.sha256 = ? OR m.id IN (SELECT message FROM main_db.attachment WHERE sha256 = ?))", digest, digest)
        for column, wanted in (
            ("agency", query.agency),
            ("direction", query.direction),
            ("document_kind", query.kind),
            ("verdict", query.verdict),
            ("message_class", query.message_class),
        ):
            if wanted:
                need(f"m.{column} = ?", wanted)
        if query.since is not None:
            need("m.received_at >= ?", query.since)
        if query.until is not None:
            need("m.received_at < ?", query.until)
        if match:
            source = "fts JOIN main_db.leaf l ON l.idx = fts.rowid JOIN main_db.message m ON m.id = l.case_id"
        else:
            source = "main_db.message m"
        condition = " AND ".join(where) or "1"
        (total,) = connection.execute(f"SELECT count(*) FROM {source} WHERE {condition}", values).fetchone()
        ranked = bool(_terms(query.text))
        order = "rank" if ranked else "m.received_at DESC, m.id DESC"
        window = max(_WINDOW, query.offset + query.limit) if ranked else query.limit
        rows = [
            dict(row)
            for row in connection.execute(
                f"SELECT m.* FROM {source} WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?",
                (*values, window, 0 if ranked else query.offset),
            )
        ]
        if ranked:
            rows = self._accents_first(connection, query, rows)[query.offset : query.offset + query.limit]
        for row in rows:
            row["recipients"] = [
                one[0]
                for one in connection.execute(
                    "SELECT address FROM main_db.recipient WHERE message = ? ORDER BY id", (row["id"],)
                )
            ]
        return Page(total, lag, rows)

    def _accents_first(
        self, connection: sqlite3.Connection, query: Query, rows: Iterable[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Texts that hold the words just as they were given come first; each row gets a `snippet`."""
        given = [nfc(words).lower() for words, _ in _terms(query.text)]
        exact, others = [], []
        for row in rows:
            found = connection.execute("SELECT texts FROM main_db.fulltext WHERE message = ?", (row["id"],)).fetchone()
            texts = list(unpack_texts(found[0] if found else b"").values())
            columns = [row[name] for name in ("abstract", "subject", "signer", "issuing_agency", "document_code")]
            pieces = [nfc(one) for one in (*texts, *columns)]
            low = "\n".join(pieces).lower()
            row["snippet"] = snippet(pieces, given)
            (exact if all(one in low for one in given) else others).append(row)
        return exact + others


def unpack_texts(data: bytes | None) -> dict[str, str]:
    """The texts of a message by path of their file, as `fulltext` keeps them."""
    return json.loads(zlib.decompress(data)) if data else {}


def _terms(text: str) -> list[tuple[str, bool]]:
    """Words and quoted phrases, and whether each is a prefix."""
    found = []
    for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', text):
        given = (phrase or word).replace("\0", " ").encode("utf-8", "replace").decode()
        words = given.rstrip("*")
        if re.search(r"\w", words):
            found.append((words, not phrase and given != words))
    return found


def _match(query: Query) -> str:
    """The FTS5 expression, empty when no words are asked for. Everything from outside is in quotes."""
    parts = []
    for columns, text in (
        (_TEXT, query.text),
        ("abstract", query.abstract),
        ("signer", query.signer),
        ("issuing", query.issuing),
        ("files", query.file),
        ("sender", query.sender),
        ("recipients", query.recipient),
        ("rules", query.rule),
    ):
        for words, prefix in _terms(text):
            parts.append(f'{columns} : "{fold(words)}"' + ("*" if prefix else ""))
    return " AND ".join(parts)


def snippet(pieces: list[str], words: list[str], around: int = 60) -> str:
    """A part of one line about the first word that is found, with its accents or without; body before header fields."""
    for word in words:
        for text in pieces:
            at = text.lower().find(word)
            if at < 0 and len(plain := fold(text)) == len(text):
                at = plain.find(fold(word))
            if at >= 0:
                start, end = max(0, at - around), at + len(word) + around
                shown = " ".join(text[start:end].split())
                return ("…" if start else "") + shown + ("…" if end < len(text) else "")
    return ""
