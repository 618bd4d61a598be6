"""Finding what is archived: an index beside the rows, made of them and made again when it is lost or damaged.

The index holds words, no truth. It follows the leaves of the tree in order, so its lag is a number, and every search
catches up first: what is archived is findable at once. Words are cut here, the same way for every database, once
without accents (what is found) and once with them (what comes first): SQLite and PostgreSQL give the same answers.

    index.db, tables search_*, words, accents    beside an SQLite database (this file)
    tables search_*                              in a PostgreSQL database (search_postgres.py)
"""

from __future__ import annotations

import abc
import contextlib
import datetime as dt
import json
import random
import re
import sqlite3
import threading
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gateway.errors import LOCAL_ERROR, Failure
from gateway.vietnamese import fold, nfc

#: Raised with every change of what the index holds: an index of another version is made again.
VERSION = 4
FIELDS = ("subject", "number", "abstract", "signer", "issuing", "files", "body", "sender", "recipients")
#: Documents whose title has the words come before those that have them somewhere.
TITLE = ("subject", "number", "abstract")
SORTS = ("best", "newest", "oldest", "number", "sender", "size")
#: Leaves read at once, and seconds after which what was read is committed: another process waits no longer than this.
_PIECE, _PIECE_SECONDS = 500, 2.0
#: Stands between two files, so that no phrase is found across their border. No question holds it: it is no letter.
GAP = "§"

Progress = Callable[[int, int], None]
T = TypeVar("T")


# ---------------------------------------------------------------------- words

_TOKEN = re.compile(r"[^\W_]+")
_MARKS = re.compile("[\u0300-\u036f]")
#: hoà and hòa, uỷ and ủy are one word: the tone on either vowel (rules.md 3.2).
_TONE_PLACES = {
    old: new
    for first, second in (("o", "a"), ("o", "e"), ("u", "y"))
    for tone in "\u0300\u0301\u0309\u0303\u0323"
    for old, new in [(nfc(first + second + tone), nfc(first + tone + second))]
}
_TONE_PLACE = re.compile("|".join(_TONE_PLACES))
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"))


def accented(text: str) -> str:
    """Composed lower case with one way to place the tone. As long as the composed text, letter for letter."""
    composed = nfc(text)
    low = composed.lower()
    if len(low) != len(composed):  # İ and its like
        low = "".join(one if len(one.lower()) != 1 else one.lower() for one in composed)
    return _TONE_PLACE.sub(lambda match: _TONE_PLACES[match[0]], low)


def bare(accented_text: str) -> str:
    """Without accents, đ as d; of the same length where the text was composed."""
    folded = fold(accented_text)
    if folded.isascii():
        return folded
    return "".join(unicodedata.normalize("NFD", one)[0].lower() if one > "\x7f" else one for one in folded)


def tokens(text: str) -> list[str]:
    """The words of a text that went through `accented` or `bare`."""
    return _TOKEN.findall(text)


def document_key(code: str) -> str:
    """`14 / ct - ubnd` and `14/CT-UBND` are one number: no spaces, no accents, upper case, without leading zeros."""
    return "".join(fold(code).upper().split()).lstrip("0")


_NUMBER_WORD = re.compile(r"(?i)^\s*s[oố]\s*(?:hi[eệ]u\s*)?[:.]?\s*(?=\d)")


def number_key(code: str) -> str:
    """`document_key` of what a person types: any dash, any slash, `Số:` in front."""
    plain = nfc(code).translate(_DASHES).replace("\uff0f", "/").replace("\u2044", "/").replace("\u2215", "/")
    return document_key(_NUMBER_WORD.sub("", plain))


class Term(NamedTuple):
    """What one word or phrase of a question asks for: a phrase is more than one word; the last may be a beginning.
    fields: where to look; empty means everywhere."""

    accents: tuple[str, ...]
    plain: tuple[str, ...]
    prefix: bool
    fields: tuple[str, ...] = ()


def terms(text: str, where: tuple[str, ...] = ()) -> list[Term]:
    """Words, `"phrases"` and `beginnings*`. Typographic quotation marks count."""
    found = []
    for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', re.sub("[“”„‟«»]", '"', text)):
        given = accented((phrase or word).encode("utf-8", "replace").decode())
        if words := tuple(tokens(given)):
            prefix = given.rstrip().endswith("*")
            found.append(Term(words, tuple(bare(one) for one in words), prefix, where))
    return found


# ---------------------------------------------------------------------- questions and answers


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; empty means anything. Times in milliseconds since the epoch, `until` not included.

    text, abstract, signer, issuing, file, sender, recipient: words, `"a phrase"`, `prefix*`; accents do not matter,
    but texts that have them as given come first. number: a document's number in any spelling, its beginning up to a
    `/` or `-`, or its symbol alone (`CT-UBND`). digest: SHA-256 of a message, an attachment or a signed revision, or
    at least its first 8 digits. agency: ids, any of them. sort: one of `SORTS`; empty means `best` where words are
    asked for, else `newest`. sender_is, recipient_is: whole addresses, lower case.
    """

    text: str = ""
    number: str = ""
    sender: str = ""
    recipient: str = ""
    agency: str | tuple[str, ...] = ""
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
    sort: str = ""
    sender_is: str = ""
    recipient_is: str = ""

    def empty(self) -> bool:
        return not any(getattr(self, one.name) for one in fields(self) if one.name not in ("limit", "offset", "sort"))

    def terms(self) -> list[Term]:
        """All words that are asked for."""
        return [
            *terms(self.text),
            *terms(self.abstract, ("abstract",)),
            *terms(self.signer, ("signer",)),
            *terms(self.issuing, ("issuing",)),
            *terms(self.file, ("files",)),
            *terms(self.sender, ("sender",)),
            *terms(self.recipient, ("recipients",)),
        ]

    def given(self) -> dict[str, Any]:
        """The fields that are not empty, as JSON can hold them; `Query(**…)` makes the question again."""
        shown = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("limit", "offset")}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in shown.items()
            if value not in ("", None, ())
        }


@dataclass(slots=True)
class Page:
    """One page of what was found. total: of all pages; lag: leaves that are not in the index yet."""

    total: int
    lag: int
    rows: list[dict[str, Any]] = field(default_factory=list)


class Revision(NamedTuple):
    """A signed revision of a PDF: the digest of its first `length` bytes. path: the file in its message."""

    sha256: str
    path: str
    length: int


@dataclass(slots=True)
class Entry:
    """One message as the index holds it. texts: what stands in each of `FIELDS`, as it was written."""

    id: int
    case: str
    at: int
    direction: str
    kind: str
    verdict: str
    message_class: str
    sender: str
    size: int
    number: str
    agencies: set[str]
    addresses: set[str]
    numbers: set[str]
    digests: set[str]
    rules: set[str]
    revisions: list[Revision]
    texts: list[str]


def entry(
    leaf: int, row: Mapping[str, Any], recipients: Iterable[Mapping[str, Any]], files: Iterable[Mapping[str, Any]]
) -> Entry:
    """What the index holds of a message: its row (with `texts` of `fulltext`), recipients and attachments."""
    record = json.loads(row["record"])
    inspection, verdict = record.get("inspection", {}), record.get("verdict", {})
    facts = inspection.get("message", {})
    codes, signers, issuers, revisions = [row["document_code"]], [row["signer"]], [row["issuing_agency"]], []
    for file in inspection.get("files", ()):
        document = file.get("document") or {}
        for name, values in (("code", codes), ("signer", signers), ("issuing_agency", issuers)):
            values.append((document.get(name) or {}).get("value", ""))
        for signature in file.get("signatures", ()):
            signers.append(signature.get("signer", ""))
            issuers.append(signature.get("organisation", ""))
        for one in file.get("signatures", ()):
            if one.get("revision"):
                revisions.append(Revision(one["revision"], file["path"], one["revision_length"]))
    people = [row["sender"], row["header_from"], row["login"]]
    people += [one.get("name", "") for name in ("from_", "sender") for one in facts.get(name, ())]
    to = list(recipients)
    readers = [one["address"] for one in to]
    for name in ("to", "cc"):
        readers += [f"{one.get('name', '')} {one.get('address', '')}" for one in facts.get(name, ())]
    names = [one["path"] for one in files]
    body = unpack_texts(row["texts"])
    return Entry(
        id=leaf,
        case=row["id"],
        at=_when(row, facts),
        direction=row["direction"],
        kind=fold(row["document_kind"]),
        verdict=row["verdict"],
        message_class=row["message_class"],
        sender=row["sender"].lower(),
        size=row["size"],
        number=_sortable(row["document_code"]),
        agencies={row["agency"], *(one["agency"] for one in to)} - {""},
        addresses=_addresses("<", [row["sender"], row["header_from"], row["login"]]) | _addresses(">", readers),
        numbers={key for code in codes for key in _number_keys(code)},
        digests={row["sha256"], *(one["sha256"] for one in files)},
        rules={one["rule"] for one in verdict.get("findings", ())},
        revisions=revisions,
        texts=[
            row["subject"],
            _joined(codes),
            row["abstract"],
            _joined(signers),
            _joined(issuers),
            _joined(names),
            _joined(body.values()),
            _joined(people),
            _joined(readers),
        ],
    )


def _when(row: Mapping[str, Any], facts: Mapping[str, Any]) -> int:
    """When a message came. Of one taken in from files nobody here saw that: it is looked for by its own date."""
    at = int(row["received_at"])
    if row["kind"] == "imported":
        with contextlib.suppress(ValueError, OverflowError):
            own = dt.datetime.fromisoformat(facts.get("date") or facts.get("first_received_at") or "")
            if own.tzinfo is not None and own.year > 1980:  # before there was mail a clock was wrong
                return min(at, int(own.timestamp() * 1000))
    return at


def _joined(pieces: Iterable[str]) -> str:
    return f"\n{GAP}\n".join(dict.fromkeys(piece for piece in pieces if piece))


_ADDRESS = re.compile(r"[^\s<>,;]+@[^\s<>,;]+")


def _addresses(way: str, pieces: Iterable[str]) -> set[str]:
    """Whole addresses, lower case, behind `<` for who sent and `>` for who was to read."""
    return {way + found.lower() for piece in pieces for found in _ADDRESS.findall(piece)}


def _sortable(code: str) -> str:
    """Numbers sort as numbers: 9 before 14."""
    key = number_key(code)
    digits = re.match(r"\d*", key)[0]  # type: ignore[index]
    return f"{digits:0>12}{key[len(digits) :]}" if key else "\uffff"


def _number_keys(code: str) -> list[str]:
    """What a document's number is found by: itself, and its symbol alone behind a slash."""
    key = number_key(code)
    if not key:
        return []
    _, slash, symbol = key.partition("/")
    return [key, f"/{symbol}"] if slash and symbol else [key]


def indexed(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of each field between blanks: without accents, and with them."""
    with_accents = [_words(accented(text)) for text in texts]
    return [bare(words) for words in with_accents], with_accents


_WORD_OR_GAP = re.compile(rf"[^\W_]+|{GAP}")


def _words(text: str) -> str:
    return " ".join(_WORD_OR_GAP.findall(_MARKS.sub("", text)))


def unpack_texts(data: bytes | None) -> dict[str, str]:
    """The texts of a message by path of their file, as `fulltext` keeps them."""
    return json.loads(zlib.decompress(data)) if data else {}


# ---------------------------------------------------------------------- the index

#: Tables that both databases have. `id` is the place of the message's leaf.
TABLES = (
    "CREATE TABLE search_state (version INTEGER NOT NULL, next BIGINT NOT NULL, gone BIGINT NOT NULL)",
    "CREATE TABLE search_doc (id INTEGER PRIMARY KEY, at BIGINT NOT NULL, case_id TEXT NOT NULL, direction TEXT NOT "
    "NULL, kind TEXT NOT NULL, verdict TEXT NOT NULL, class TEXT NOT NULL, sender TEXT NOT NULL, number TEXT NOT NULL, "
    "size BIGINT NOT NULL)",
    "CREATE INDEX search_doc_at ON search_doc (at)",
    *(
        f"CREATE TABLE search_{name} (value TEXT NOT NULL, doc INTEGER NOT NULL, PRIMARY KEY (value, doc))"
        for name in ("agency", "address", "number", "digest", "rule")
    ),
    "CREATE TABLE search_revision (value TEXT NOT NULL, doc INTEGER NOT NULL, path TEXT NOT NULL, length BIGINT NOT "
    "NULL, PRIMARY KEY (value, doc, path))",
)
NAMES = ("search_state", "search_doc", "search_agency", "search_address", "search_number", "search_digest",
         "search_rule", "search_revision")  # fmt: skip


class Stale(Exception):
    """The index cannot be followed further and must be made again."""


class Index(abc.ABC):
    """The index of one archive. Calls block, and take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.problem = ""

    # -- what a database must do --

    @abc.abstractmethod
    def _run(self, sql: str, values: Sequence[object] = ()) -> Any:
        """Run SQL on the index, with `?` for values; gives an iterable of rows that are read by name."""

    @abc.abstractmethod
    def _ask_archive(self, sql: str, values: Sequence[object] = ()) -> Any:
        """The same on the archive's own tables, as they are now. Never locks them."""

    @abc.abstractmethod
    def _many(self, sql: str, rows: list[tuple[Any, ...]]) -> None: ...

    @abc.abstractmethod
    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        """Alone among all that write to the index."""

    @abc.abstractmethod
    def _reading(self) -> contextlib.AbstractContextManager[None]:
        """A connection for reading, opened and made when needed. Raises Failure, Stale."""

    @abc.abstractmethod
    def _again(self, error: Exception) -> None:
        """Throw the index away after this error; raises Failure when that would not help."""

    @abc.abstractmethod
    def _add_words(self, entries: list[Entry]) -> None: ...

    @abc.abstractmethod
    def _drop_words(self, old: Entry) -> None: ...

    @abc.abstractmethod
    def _matching(self, wanted: list[Term], accents: bool) -> tuple[str, str, list[object]]:
        """FROM and WHERE (with values) for the documents `d` that have all these words."""

    @abc.abstractmethod
    def size(self) -> int:
        """Bytes on disk."""

    @abc.abstractmethod
    def close(self) -> None: ...

    # -- following --

    def catch_up(self, most: int = 1 << 62, progress: Progress | None = None) -> int:
        """Index what is new, at most so many leaves; a damaged index is made again. Returns what is still missing.
        progress: called with leaves done and leaves there are. Raises Failure."""
        with self._lock:
            return self._catch_up(most, progress)

    def _catch_up(self, most: int, progress: Progress | None = None) -> int:
        error: Exception | None = None
        for _ in range(2):
            try:
                with self._reading():
                    lag = self._follow(most, progress)
                self.problem = ""
                return lag
            except (Stale, *self.errors) as caught:
                error, self.problem = caught, str(caught)
                self._again(caught)
        raise Failure(LOCAL_ERROR.text, f"search index: {error}") from error

    #: Errors of the database's driver.
    errors: tuple[type[Exception], ...] = ()

    def _state(self) -> tuple[int, int, int]:
        """Next leaf, leaves there are, messages that are destroyed. Raises Stale."""
        (state,) = self._run("SELECT version, next, gone FROM search_state")
        if state["version"] != VERSION:
            raise Stale(f"an index of version {state['version']}")
        (there,) = self._ask_archive(
            "SELECT (SELECT coalesce(max(idx) + 1, 0) FROM leaf) AS size, (SELECT count(*) FROM destroyed) AS gone"
        )
        if state["next"] > there["size"]:  # the database went back: an index of what is not there is worth nothing
            raise Stale(f"index of {state['next']} leaves, database of {there['size']}")
        if state["gone"] != there["gone"]:
            raise Stale(f"index knows of {state['gone']} destroyed messages, the database of {there['gone']}")
        return state["next"], there["size"], there["gone"]

    def _follow(self, most: int, progress: Progress | None) -> int:
        while True:
            next_leaf, size, _ = self._state()
            if progress is not None:
                progress(next_leaf, size)
            if next_leaf == size or most <= 0:
                return size - next_leaf
            begun = time.monotonic()
            with self._transaction():
                next_leaf, size, _ = self._state()
                start = next_leaf
                while next_leaf < size and most > 0 and time.monotonic() - begun < _PIECE_SECONDS:
                    end = min(size, next_leaf + min(_PIECE, most))
                    self._add(list(self._entries("l.idx >= ? AND l.idx < ?", (next_leaf, end))))
                    most -= end - next_leaf
                    next_leaf = end
                if next_leaf > start:
                    self._run("UPDATE search_state SET next = ?", (next_leaf,))

    def _entries(self, condition: str, values: Sequence[object]) -> Iterator[Entry]:
        """Messages of these leaves, read from the archive's own tables."""
        which = "FROM leaf l JOIN message m ON m.id = l.case_id"
        where = f"WHERE l.type = 'message' AND {condition}"
        people: dict[str, list[Any]] = {}
        files: dict[str, list[Any]] = {}
        question = f"SELECT r.* {which} JOIN recipient r ON r.message = m.id {where} ORDER BY r.id"
        for row in self._ask_archive(question, values):
            people.setdefault(row["message"], []).append(row)
        question = f"SELECT a.* {which} JOIN attachment a ON a.message = m.id {where} ORDER BY a.id"
        for row in self._ask_archive(question, values):
            files.setdefault(row["message"], []).append(row)
        question = f"SELECT l.idx, m.*, f.texts {which} LEFT JOIN fulltext f ON f.message = m.id {where}"
        for row in self._ask_archive(question, values):
            yield entry(row["idx"], row, people.get(row["id"], ()), files.get(row["id"], ()))

    def _add(self, entries: list[Entry]) -> None:
        columns = "id, at, case_id, direction, kind, verdict, class, sender, number, size"
        self._many(
            f"INSERT INTO search_doc ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (e.id, e.at, e.case, e.direction, e.kind, e.verdict, e.message_class, e.sender, e.number, e.size)
                for e in entries
            ],
        )
        for name, values in (
            ("agency", lambda e: e.agencies),
            ("address", lambda e: e.addresses),
            ("number", lambda e: e.numbers),
            ("digest", lambda e: e.digests),
            ("rule", lambda e: e.rules),
        ):
            self._many(
                f"INSERT INTO search_{name} (value, doc) VALUES (?, ?)",
                [(value, one.id) for one in entries for value in sorted(values(one))],
            )
        self._many(
            "INSERT INTO search_revision (value, doc, path, length) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(r.sha256, one.id, r.path, r.length) for one in entries for r in one.revisions],
        )
        self._add_words(entries)

    def forget(self, cases: Sequence[str], meanwhile: Callable[[], int]) -> None:
        """Take the words of these messages out. meanwhile: called between; it removes their texts from the
        archive's tables and returns how many messages are destroyed by now. When it raises, nothing has changed;
        when everything stops after it, the index is made again, because it knows of fewer. Raises Failure."""
        with self._lock:
            self._catch_up(1 << 62)
            try:
                with self._reading(), self._transaction():
                    marks = ", ".join("?" * len(cases))
                    old = list(self._entries(f"l.case_id IN ({marks})", list(cases)))
                    for one in old:
                        self._drop_words(one)
                        for name in ("agency", "address", "number", "digest", "rule", "revision"):
                            self._run(f"DELETE FROM search_{name} WHERE doc = ?", (one.id,))
                        self._run("DELETE FROM search_doc WHERE id = ?", (one.id,))
                    gone = meanwhile()
                    self._add(list(self._entries(f"l.case_id IN ({marks})", list(cases))))
                    self._run("UPDATE search_state SET gone = ?", (gone,))
            except (Stale, *self.errors) as error:
                raise Failure(LOCAL_ERROR.text, f"search index: {error}") from error

    def scrub(self) -> None:
        """Overwrite what `forget` took out: once, after all of it. Raises Failure."""
        with self._lock:
            try:
                with self._reading():
                    self._scrub()
            except self.errors as error:
                raise Failure(LOCAL_ERROR.text, f"search index: {error}") from error

    @abc.abstractmethod
    def _scrub(self) -> None: ...

    def rebuild(self, progress: Progress | None = None) -> None:
        """Throw the index away and make it again. Raises Failure."""
        with self._lock:
            self._again(Stale("asked for"))
            self._catch_up(1 << 62, progress)

    def state(self) -> dict[str, Any]:
        """How far the index is, without changing it. Raises Failure."""
        with self._lock:
            try:
                with self._reading():
                    next_leaf, size, _ = self._state()
                    (count,) = self._run("SELECT count(*) AS messages FROM search_doc")
                    return {"leaves": size, "indexed": next_leaf, "lag": size - next_leaf,
                            "messages": count["messages"], "bytes": self.size(), "problem": ""}  # fmt: skip
            except (Stale, *self.errors) as error:
                return {"leaves": None, "indexed": 0, "lag": None, "messages": 0, "bytes": 0, "problem": str(error)}

    # -- asking --

    def search(self, query: Query, progress: Progress | None = None) -> Page:
        """Raises Failure when neither index nor database can be read."""
        return self._answer(lambda lag: self._ask(query, lag), progress)

    def cases(self, query: Query) -> list[str]:
        """All cases that a query finds, oldest first. Raises Failure."""

        def ask(_: int) -> list[str]:
            asked = self._whole_addresses(query)
            source, where, values = self._where(asked, asked.terms(), False)
            question = f"SELECT d.case_id AS case_id FROM {source} WHERE {where} ORDER BY d.id"
            return [row["case_id"] for row in self._run(question, values)]

        return self._answer(ask)

    def holding(self, digests: Sequence[str]) -> list[tuple[str, str, Revision | None]]:
        """Cases that hold bytes or a signed revision with one of these digests: (digest, case, revision), oldest
        first. Raises Failure."""

        def ask(_: int) -> list[tuple[str, str, Revision | None]]:
            found: list[tuple[str, str, Revision | None]] = []
            for table, columns in (("digest", "'' AS path, 0 AS length"), ("revision", "t.path, t.length")):
                for start in range(0, len(digests), 200):
                    some = list(digests[start : start + 200])
                    marks = ", ".join("?" * len(some))
                    for row in self._run(
                        f"SELECT t.value, d.case_id, {columns} FROM search_{table} t JOIN search_doc d "
                        f"ON d.id = t.doc WHERE t.value IN ({marks}) ORDER BY d.id",
                        some,
                    ):
                        part = Revision(row["value"], row["path"], row["length"]) if row["length"] else None
                        found.append((row["value"], row["case_id"], part))
            return found

        return self._answer(ask)

    def _answer(self, ask: Callable[[int], T], progress: Progress | None = None) -> T:
        """Catch up and ask; an index that breaks under the question is made again, once. Raises Failure."""
        error: Exception | None = None
        with self._lock:
            for _ in range(2):
                lag = self._catch_up(1 << 62, progress)
                try:
                    with self._reading():
                        return ask(lag)
                except (Stale, *self.errors) as caught:
                    error, self.problem = caught, str(caught)
                    self._again(caught)
        raise Failure(LOCAL_ERROR.text, f"search: {error}") from error

    def check(self, sample: int, seed: int | None = None, progress: Progress | None = None) -> str:
        """Look whether the index tells the truth: whole in itself, and so many messages, chosen by chance, found by
        the words that stand in them. An index that does not is made again. Returns what was wrong. Raises Failure."""
        draw = random.Random(seed)
        wrong = ""
        with self._lock:
            self._catch_up(1 << 62, progress)
            try:
                with self._reading():
                    self._look_inside()
                    (there,) = self._ask_archive(
                        "SELECT count(*) AS messages FROM leaf l JOIN message m ON m.id = l.case_id "
                        "WHERE l.type = 'message'"
                    )
                    (mine,) = self._run("SELECT count(*) AS messages FROM search_doc")
                    if there["messages"] > mine["messages"]:
                        raise Stale(f"{mine['messages']} of {there['messages']} messages are in the index")
                    (last,) = self._run("SELECT coalesce(max(id), 0) AS id FROM search_doc")
                    for _ in range(min(sample, mine["messages"])):
                        place = draw.randrange(last["id"] + 1)
                        (near,) = self._run("SELECT min(id) AS id FROM search_doc WHERE id >= ?", (place,))
                        self._look_for(near["id"], draw)
            except (Stale, *self.errors) as error:
                wrong = str(error)
                self._again(Stale(wrong))
                self._catch_up(1 << 62, progress)
        return wrong

    def _look_for(self, leaf: int, draw: random.Random) -> None:
        """Is this message found by some of its own words, with accents and without? Raises Stale."""
        for one in self._entries("l.idx = ?", (leaf,)):
            for accents, texts in zip((False, True), indexed(one.texts), strict=True):
                for name, text in zip(FIELDS, texts, strict=True):
                    words = sorted(set(text.split()) - {GAP})
                    for word in draw.sample(words, min(len(words), 10)):
                        term = Term((word,), (word,), False, (name,))
                        source, where, values = self._matching([term], accents)
                        question = f"SELECT d.id FROM {source} WHERE {where} AND d.id = ?"
                        if not list(self._run(question, [*values, leaf])):
                            raise Stale(f"message {one.case} is not found by a word in its {name}")

    @abc.abstractmethod
    def _look_inside(self) -> None:
        """What the database itself can check. Raises one of `errors`, or Stale."""

    def _where(self, query: Query, wanted: list[Term], accents: bool) -> tuple[str, str, list[object]]:
        """FROM, WHERE and values. The documents are `d`."""
        where: list[str] = []
        values: list[object] = []
        source = "search_doc d"
        if wanted:
            source, condition, values = self._matching(wanted, accents)
            where.append(condition)

        def need(condition: str, *given: object) -> None:
            where.append(condition)
            values.extend(given)

        def listed(table: str, condition: str, *given: object) -> None:
            need(f"d.id IN (SELECT doc FROM search_{table} WHERE {condition})", *given)

        if query.number:
            condition, given = _number_condition(query.number)
            listed("number", condition, *given)
        if query.digest:
            digest = query.digest.strip().lower().removeprefix("sha256:")
            end = digest + "g"  # behind every hexadecimal digit
            need(
                "(d.id IN (SELECT doc FROM search_digest WHERE value >= ? AND value < ?) OR "
                "d.id IN (SELECT doc FROM search_revision WHERE value >= ? AND value < ?))",
                digest, end, digest, end,
            )  # fmt: skip
        if query.agency:
            ids = [query.agency] if isinstance(query.agency, str) else list(query.agency)
            listed("agency", f"value IN ({', '.join('?' * len(ids))})", *ids)
        for way, address in (("<", query.sender_is), (">", query.recipient_is)):
            if address:
                listed("address", "value = ?", way + address)
        if query.rule:
            rule = query.rule.strip().upper()
            if rule.endswith("*"):
                listed("rule", "value >= ? AND value < ?", rule[:-1], rule[:-1] + "\U0010ffff")
            else:
                listed("rule", "value = ?", rule)
        for column, given in (
            ("direction", query.direction.strip().lower()),
            ("kind", fold(query.kind.strip())),
            ("verdict", query.verdict.strip().lower().replace("_", "-")),
            ("class", query.message_class.strip().upper()),
        ):
            if given:
                need(f"d.{column} = ?", given)
        if query.since is not None:
            need("d.at >= ?", query.since)
        if query.until is not None:
            need("d.at < ?", query.until)
        return source, " AND ".join(where) or "1 = 1", values

    def _whole_addresses(self, query: Query) -> Query:
        """An address that is there as a whole is looked up; its words alone stand in half the archive."""
        for name, way in (("sender", "<"), ("recipient", ">")):
            given = getattr(query, name).strip().lower()
            if _ADDRESS.fullmatch(given) and list(
                self._run("SELECT doc FROM search_address WHERE value = ? LIMIT 1", (way + given,))
            ):
                query = replace(query, **{name: "", f"{name}_is": given})
        return query

    def _ask(self, query: Query, lag: int) -> Page:
        query = self._whole_addresses(query)
        wanted = query.terms()
        sort = query.sort or ("best" if wanted else "newest")
        source, where, values = self._where(query, wanted, False)
        # Where nothing but words is asked for, the words alone are counted.
        alone = bool(wanted) and where == self._matching(wanted, False)[1]
        counted = source.partition(" CROSS JOIN ")[0] if alone else source
        (count,) = self._run(f"SELECT count(*) AS total FROM {counted} WHERE {where}", values)
        if sort == "best" and wanted:
            ids = self._best(query, wanted)
        else:
            order = {
                "oldest": "d.at, d.id", "number": "d.number, d.at DESC, d.id DESC",
                "sender": "d.sender, d.at DESC, d.id DESC", "size": "d.size DESC, d.at DESC, d.id DESC",
            }.get(sort, "d.at DESC, d.id DESC")  # fmt: skip
            ids = self._ids(source, where, values, order, query.limit, query.offset)
        if ids and count["total"] < query.offset + len(ids):
            raise Stale("the index counts fewer than it finds")
        return Page(count["total"], lag, self._rows(ids, wanted))

    def _best(self, query: Query, wanted: list[Term]) -> list[int]:
        """Accents as given come first, and among those the words in the title; the newest of each first. Each of the
        four steps is asked only when those before did not fill the page."""
        title = [one if one.fields else one._replace(fields=TITLE) for one in wanted]
        need, found = query.offset + query.limit, dict[int, None]()
        steps = [(title, True), (wanted, True), (title, False), (wanted, False)]
        for some, accents in steps if title != wanted else steps[1::2]:
            source, where, values = self._where(query, some, accents)
            # What is already there comes again at most once each: so many more are asked for, and left out.
            for one in self._ids(source, where, values, "d.at DESC, d.id DESC", need + len(found), 0):
                found.setdefault(one)
            if len(found) >= need:
                break
        return list(found)[query.offset : need]

    def _ids(self, source: str, where: str, values: list[object], order: str, limit: int, offset: int) -> list[int]:
        question = f"SELECT d.id AS id FROM {source} WHERE {where} ORDER BY {order} LIMIT {limit} OFFSET {offset}"
        return [row["id"] for row in self._run(question, values)]

    def _rows(self, ids: list[int], wanted: list[Term]) -> list[dict[str, Any]]:
        """The messages themselves, from the archive's tables, with `recipients` and, where words were asked for,
        `snippet` and `snippet_from`."""
        free = [one for one in wanted if not one.fields or one.fields[0] in ("abstract", "signer", "issuing")]
        if not ids:
            return []
        marks = ", ".join("?" * len(ids))
        found = {one["id"]: one["case_id"]
                 for one in self._run(f"SELECT id, case_id FROM search_doc WHERE id IN ({marks})", ids)}  # fmt: skip
        cases = [found[one] for one in ids if one in found]
        question = (
            "SELECT m.*, f.texts FROM message m LEFT JOIN fulltext f ON f.message = m.id "
            f"WHERE m.id IN ({', '.join('?' * len(cases))})"
        )
        messages = {row["id"]: dict(row) for row in self._ask_archive(question, cases)}
        people: dict[str, list[str]] = {}
        question = (
            f"SELECT message, address FROM recipient WHERE message IN ({', '.join('?' * len(cases))}) ORDER BY id"
        )
        for to in self._ask_archive(question, cases):
            people.setdefault(to["message"], []).append(to["address"])
        rows = []
        for case in cases:
            if case not in messages:
                continue
            row = messages[case]
            texts = unpack_texts(row.pop("texts"))
            row["recipients"] = people.get(case, [])
            if free:
                pieces = [(path or "body", text) for path, text in texts.items()]
                pieces += [
                    (name, row[name])
                    for name in ("abstract", "subject", "signer", "issuing_agency", "document_code", "header_from")
                ]
                row["snippet_from"], row["snippet"] = snippet(pieces, free)
            rows.append(row)
        return rows


def _number_condition(given: str) -> tuple[str, list[object]]:
    prefix = given.rstrip().endswith("*")
    key = number_key(given.rstrip().rstrip("*"))
    if key and not key[0].isdigit() and not key.startswith("/"):
        key = f"/{key}"  # the symbol alone
    if not key.strip("/-."):
        return "1 = 0", []
    if prefix or key[-1] in "/-":
        return "value >= ? AND value < ?", [key, key + "\U0010ffff"]
    # the whole number, or all of it up to a border: 14/CT finds 14/CT-UBND and not 14/CTR-UBND
    return (
        "value = ? OR (value >= ? AND value < ?) OR (value >= ? AND value < ?)",
        [key, key + "-", key + ".", key + "/", key + "0"],
    )


def snippet(pieces: Iterable[tuple[str, str]], wanted: list[Term], around: int = 70) -> tuple[str, str]:
    """Where the words stand, and the text about them: of the first piece that has most of them, where they stand
    closest together; accents as given count more. Two empty strings when none has any."""
    best: tuple[int, int, int, str, str] | None = None
    for where, raw in pieces:
        text = nfc(raw)
        low = accented(text)
        if len(low) != len(text):
            continue
        plain = bare(low)
        places: list[tuple[int, int, int, int]] = []  # start, end, number of the term, worth
        for number, term in enumerate(wanted):
            found = [(*span, number, 2) for span in _find(term.accents, term.prefix, low)]
            if not found and len(plain) == len(text):
                found = [(*span, number, 1) for span in _find(term.plain, term.prefix, plain)]
            places += found
        places.sort()
        for first, (start, end, _, _) in enumerate(places):
            worth: dict[int, int] = {}
            for left, right, number, value in places[first:]:
                if right > start + 2 * around:
                    break
                worth.setdefault(number, value)
                end = max(end, right)
                if left > start and len(worth) == len(wanted):
                    break
            score = sum(worth.values())
            if score and (best is None or (score, start - end) > (best[0], best[1] - best[2])):
                best = (score, start, end, where, text)
        if best is not None and best[0] == 2 * len(wanted):
            break
    if best is None:
        return "", ""
    _, start, end, where, text = best
    spare = max(20, around - (end - start) // 2)
    left, right = max(0, start - spare), min(len(text), end + spare)
    while left and not text[left - 1].isspace() and start - left < spare + 20:
        left -= 1
    while right < len(text) and not text[right].isspace() and right - end < spare + 20:
        right += 1
    shown = " ".join(text[left:right].split())
    return where, ("…" if left else "") + shown + ("…" if right < len(text) else "")


#: Places of one term that are looked at, in one text.
_PLACES = 50


def _find(words: tuple[str, ...], prefix: bool, text: str) -> list[tuple[int, int]]:
    pattern = r"(?<![^\W_])" + r"[\W_]+".join(re.escape(one) for one in words) + ("" if prefix else r"(?![^\W_])")
    return [match.span() for match in islice(re.finditer(pattern, text), _PLACES)]


# ---------------------------------------------------------------------- SQLite


_MENDED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CANTOPEN,
           sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_FORMAT)  # fmt: skip


class SqliteIndex(Index):
    """`index.db` beside an SQLite database: FTS5 without content, once for words and once for words with accents."""

    errors = (sqlite3.DatabaseError,)

    def __init__(self, path: Path, main: Path) -> None:
        super().__init__()
        self._path = path
        self._main_path = main
        self._connection: sqlite3.Connection | None = None
        self._archive: sqlite3.Connection | None = None
        self._file = (0, 0)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._files() if path.exists())

    def _files(self) -> list[Path]:
        return [self._path, *self._path.parent.glob(self._path.name + "-*")]

    def _drop(self) -> None:
        for connection in (self._connection, self._archive):
            if connection is not None:
                connection.close()
        self._connection = self._archive = None

    def _again(self, error: Exception) -> None:
        self._drop()
        # Locked, full, out of memory: a new index mends none of it. It mends damage, and lost tables.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code not in _MENDED or str(error).startswith("fts5"):
            raise Failure(LOCAL_ERROR.text, f"search index: {error}") from error
        try:
            for path in self._files():
                path.unlink(missing_ok=True)
        except OSError as cause:
            raise Failure(LOCAL_ERROR.text, f"search index: {self._path.name}: {cause.strerror}") from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        # Somebody may have taken the file away, or made it again, while we had it open.
        if self._connection is not None and self._inode() != self._file:
            self._drop()
        if self._archive is None:
            self._archive = self._open_archive()
        if self._connection is None:
            self._connection = self._open()
            self._file = self._inode()
        yield

    def _open_archive(self) -> sqlite3.Connection:
        """A connection of its own, so that a transaction of the index never locks the archive's tables."""
        if not self._main_path.exists():
            raise Failure(LOCAL_ERROR.text, f"search: {self._main_path} is not there")
        archive = sqlite3.connect(self._main_path, timeout=5, isolation_level=None, check_same_thread=False)
        archive.row_factory = sqlite3.Row
        archive.text_factory = lambda data: data.decode("utf-8", "replace")
        archive.execute("PRAGMA query_only=ON")
        return archive

    def _inode(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes is indexed again
            connection.execute("PRAGMA cache_size=-65536")
            connection.execute("PRAGMA temp_store=MEMORY")
            # Several processes may come first at once; who waits finds the tables made.
            connection.execute("BEGIN IMMEDIATE")
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not names:
                for statement in TABLES:
                    suffix = " WITHOUT ROWID" if "PRIMARY KEY (" in statement else ""
                    connection.execute(statement + suffix)
                for name in ("words", "accents"):
                    # Words come cut and folded, with blanks between: `ascii` leaves the rest alone.
                    connection.execute(
                        f"CREATE VIRTUAL TABLE {name} USING fts5({', '.join(FIELDS)}, content='', columnsize=0, "
                        "tokenize='ascii')"
                    )
                    # Fewer, longer runs of words: merging them again is most of the work.
                    connection.execute(f"INSERT INTO {name}({name}, rank) VALUES ('hashsize', {32 << 20})")
                assert self._archive is not None
                (gone,) = self._archive.execute("SELECT count(*) FROM destroyed").fetchone()
                connection.execute("INSERT INTO search_state VALUES (?, 0, ?)", (VERSION, gone))
            elif "search_state" not in names:
                raise sqlite3.DatabaseError("an index of another version")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _run(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(sql, values)

    def _ask_archive(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        assert self._archive is not None
        try:
            return self._archive.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:  # not the index's fault: throwing that away would not help
            raise Failure(LOCAL_ERROR.text, f"search: {error}") from error

    def _many(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        assert self._connection is not None
        self._connection.executemany(sql, rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            if self._connection is not None and self._connection.in_transaction:
                self._run("ROLLBACK")
            raise

    def _add_words(self, entries: list[Entry]) -> None:
        split = [(one.id, indexed(one.texts)) for one in entries]
        for place, name in enumerate(("words", "accents")):
            self._many(
                f"INSERT INTO {name}(rowid, {', '.join(FIELDS)}) VALUES (?{', ?' * len(FIELDS)})",
                [(number, *texts[place]) for number, texts in split],
            )

    def _drop_words(self, old: Entry) -> None:
        for name, texts in zip(("words", "accents"), indexed(old.texts), strict=True):
            self._run(
                f"INSERT INTO {name}({name}, rowid, {', '.join(FIELDS)}) VALUES ('delete', ?{', ?' * len(FIELDS)})",
                (old.id, *texts),
            )

    def _scrub(self) -> None:
        # Words that were taken out stay in older runs until those are merged, and on free pages until overwritten.
        self._run("PRAGMA secure_delete=ON")
        for name in ("words", "accents"):
            self._run(f"INSERT INTO {name}({name}) VALUES ('optimize')")
        self._run("VACUUM")
        self._run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _look_inside(self) -> None:
        (told,) = self._run("PRAGMA quick_check(1)")
        if told[0] != "ok":
            raise Stale(told[0])
        for name in ("words", "accents"):
            self._run(f"INSERT INTO {name}({name}) VALUES ('integrity-check')")

    def _matching(self, wanted: list[Term], accents: bool) -> tuple[str, str, list[object]]:
        table = "accents" if accents else "words"
        parts = []
        for term in wanted:
            words = " ".join(term.accents if accents else term.plain)
            where = f"{{{' '.join(term.fields)}}} : " if term.fields else ""
            parts.append(f'{where}"{words}"' + (" *" if term.prefix else ""))
        return (
            f"{table} CROSS JOIN search_doc d ON d.id = {table}.rowid",
            f"{table} MATCH ?",
            [" AND ".join(parts)],
        )
