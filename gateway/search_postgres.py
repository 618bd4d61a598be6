"""The search index in a PostgreSQL database, beside the archive's own tables: the same answers as `SqliteIndex`.

Words are cut and folded by `search.py`, so neither a dictionary nor an extension is needed: each field is a `tsvector`
written out with its places, once without accents and once with them. A `tsvector` counts 16,383 places and 256 for one
word, so long texts lie in several rows that overlap.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Engine, exc

from gateway.errors import LOCAL_ERROR, Failure
from gateway.search import FIELDS, NAMES, TABLES, VERSION, Entry, Index, Stale, Term, indexed

#: A lock number of our own, for whoever writes to the index.
_LOCK = 0x7662_6473
#: Words in one row, and how many of them stand in the next row too: a phrase is found up to that length.
_WORDS, _OVERLAP = 1000, 24
#: Longer words are no words; PostgreSQL takes 2,046 bytes.
_LONGEST = 400

_TEXT = (
    "CREATE TABLE search_text (doc BIGINT NOT NULL, field SMALLINT NOT NULL, words tsvector NOT NULL, "
    "accents tsvector NOT NULL)"
)


class PostgresIndex(Index):
    """`engine`: that of the archive's database."""

    errors = (psycopg.Error, exc.DBAPIError)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._connection: Any = None
        self._pooled: Any = None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def size(self) -> int:
        names = ", ".join(f"'{name}'" for name in (*NAMES, "search_text"))
        (row,) = self._run(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint AS size FROM pg_class "
            f"WHERE relname IN ({names}) AND pg_table_is_visible(oid)"
        )
        return int(row["size"])

    def _drop(self) -> None:
        if self._pooled is not None:
            with contextlib.suppress(Exception):
                self._pooled.close()
            self._pooled = self._connection = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            self._pooled = self._engine.raw_connection()
        except exc.DBAPIError as error:
            raise Failure(LOCAL_ERROR.text, f"search: {error.orig}") from error
        try:
            self._connection = self._pooled.driver_connection
            self._connection.autocommit = True
            self._make()
            yield
        finally:
            with contextlib.suppress(Exception):
                self._connection.autocommit = False
            self._drop()

    def _make(self) -> None:
        (there,) = self._run("SELECT to_regclass('search_state') IS NOT NULL AS made")
        if there["made"]:
            return
        with self._transaction():
            (there,) = self._run("SELECT to_regclass('search_state') IS NOT NULL AS made")
            if there["made"]:
                return
            for statement in (*TABLES, _TEXT):
                self._run(statement.replace("INTEGER", "BIGINT"))
            for name in ("words", "accents"):
                self._run(f"CREATE INDEX search_text_{name} ON search_text USING gin ({name})")
            self._run("CREATE INDEX search_text_doc ON search_text (doc)")
            self._run("INSERT INTO search_state SELECT ?::int, 0, count(*) FROM destroyed", (VERSION,))

    def _again(self, error: Exception) -> None:
        if not isinstance(error, Stale) and not isinstance(error, psycopg.ProgrammingError):
            # A server that is away or out of room is no reason to throw anything away.
            raise Failure(LOCAL_ERROR.text, f"search index: {error}") from error
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                for name in (*NAMES, "search_text"):
                    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        except exc.DBAPIError as cause:
            raise Failure(LOCAL_ERROR.text, f"search index: {cause.orig}") from error

    def _run(self, sql: str, values: Sequence[object] = ()) -> Any:
        cursor = self._connection.cursor(row_factory=dict_row)
        cursor.execute(sql.replace("?", "%s"), [_sane(value) for value in values])
        return cursor.fetchall() if cursor.description is not None else []

    _ask_archive = _run

    def _many(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            with self._connection.cursor() as cursor:
                cursor.executemany(sql.replace("?", "%s"), rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            self._run(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield

    def _add_words(self, entries: list[Entry]) -> None:
        rows = []
        for one in entries:
            plain, accents = indexed(one.texts)
            for number, (left, right) in enumerate(zip(plain, accents, strict=True)):
                # Both have the same number of words unless letters of other scripts fall apart; then each has its own.
                some, others = list(_vectors(left)), list(_vectors(right))
                for place in range(max(len(some), len(others))):
                    rows.append(
                        (
                            one.id,
                            number,
                            some[place] if place < len(some) else "",
                            others[place] if place < len(others) else "",
                        )
                    )
        self._many("INSERT INTO search_text VALUES (?, ?, ?::tsvector, ?::tsvector)", rows)

    def _drop_words(self, old: Entry) -> None:
        self._run("DELETE FROM search_text WHERE doc = ?", (old.id,))

    def _scrub(self) -> None:
        for name in ("search_text", "search_doc", "fulltext", "message", "alert", "sighting"):
            self._run(f"VACUUM {name}")

    def _look_inside(self) -> None:
        """PostgreSQL has checksums of its own pages (initdb -k)."""

    def _matching(self, wanted: list[Term], accents: bool) -> tuple[str, str, list[object]]:
        column = "accents" if accents else "words"
        conditions: list[str] = []
        values: list[object] = []
        for term in wanted:
            words = [one[:_LONGEST] for one in (term.accents if accents else term.plain)]
            # A phrase longer than the overlap is asked for in pieces.
            for start in range(0, max(1, len(words) - _OVERLAP + 1), _OVERLAP // 2):
                part = words[start : start + _OVERLAP]
                last = start + _OVERLAP >= len(words)
                question = " <-> ".join(f"'{one}'" for one in part) + (":*" if term.prefix and last else "")
                condition = f"{column} @@ ?::tsquery"
                values.append(question)
                if term.fields:
                    condition += f" AND field IN ({', '.join(str(FIELDS.index(one)) for one in term.fields)})"
                conditions.append(f"d.id IN (SELECT doc FROM search_text WHERE {condition})")
        return "search_doc d", " AND ".join(conditions), values


def _sane(value: object) -> object:
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _vectors(text: str) -> Iterator[str]:
    """Words between blanks as literals of `tsvector`."""
    words = text.split()
    for start in range(0, len(words), _WORDS - _OVERLAP):
        places: dict[str, list[str]] = {}
        for place, word in enumerate(words[start : start + _WORDS], 1):
            places.setdefault(word[:_LONGEST], []).append(str(place))
        yield " ".join(f"'{word}':{','.join(found)}" for word, found in places.items())
        if start + _WORDS >= len(words):
            break
