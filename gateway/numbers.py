"""Number series of registers: every number once, and none left out.

A series belongs to an agency, a year and a kind of document; arrival numbers are the series `in` (Decree 30/2020,
Article 15.1: numbers begin with 01 on 1 January and are unique in the year; Article 22.2: one series for paper and
electronic arrivals). Taking a number locks the row of its series first and writes the number in the same transaction,
so whatever dies before the COMMIT has taken nothing, and whatever comes after it sees the number. A cancelled number
stays, as cancelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text

from gateway import database as db

ARRIVALS = "in"


class Taken(ValueError):
    """A number that somebody has, or that cannot be used; `args[0]` says it in Vietnamese and English."""


@dataclass(frozen=True, slots=True)
class Series:
    """Which series. year: of the number, in Vietnam."""

    agency: str
    year: int
    name: str

    def about(self, number: int) -> str:
        """How `register_change` names a number."""
        return f"{self.agency}/{self.year}/{self.name}/{number}"


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers below the next one that nobody has: they are what a register must not have."""

    first: int
    last: int


def lock(connection: Connection, series: Series) -> int:
    """The next number that was never given, with the series locked to the end of the transaction.

    One statement, because PostgreSQL locks the row by it; SQLite has one writer anyway.
    """
    sql = (
        "INSERT INTO register_series (agency, year, series, next) VALUES (:agency, :year, :series, 1) "
        "ON CONFLICT (agency, year, series) DO UPDATE SET next = register_series.next RETURNING next"
    )
    values = {"agency": series.agency, "year": series.year, "series": series.name}
    return int(connection.execute(text(sql), values).scalar_one())


def preview(connection: Connection, series: Series) -> int:
    """The number that `take` would give now; nothing is written."""
    t = db.register_series.c
    question = select(t.next).where(t.agency == series.agency, t.year == series.year, t.series == series.name)
    return _free(connection, series, connection.execute(question).scalar() or 1)


def take(
    connection: Connection,
    series: Series,
    *,
    who: str,
    at: int,
    wanted: int | None = None,
    entry: str = "",
    code: str = "",
    fields: Mapping[str, Any] | None = None,
    reason: str = "",
    state: str = "used",
    request: str = "",
) -> int:
    """Give a number: the next one, or `wanted`. Only inside `Database.write`. Raises Taken.

    wanted: may be reserved or not given yet; numbers between stay to be given. request: a token of the caller; asking
    again with it gets the number it got the first time.
    """
    upcoming = lock(connection, series)
    if request and (row := asked(connection, request)) is not None:
        if (row.agency, row.year, row.series) != (series.agency, series.year, series.name):
            raise Taken(f"--request {request}: đã dùng cho dãy khác / used for another series")
        return int(row.number)
    row = None
    taken = _taken(connection, series, upcoming)
    if wanted is None:
        number = _free(connection, series, upcoming, taken)
    else:
        number = wanted
        if number < 1:
            raise Taken(f"{number}: số bắt đầu từ 1 / numbers begin with 1")
        row = _row(connection, series, number)
        if row is not None and row.state != "reserved":
            said = "đã hủy / is cancelled" if row.state == "cancelled" else "đã cấp / is taken"
            raise Taken(f"số {number} của dãy {series.name}/{series.year}: {said}")
    values = {
        "agency": series.agency,
        "year": series.year,
        "series": series.name,
        "number": number,
        "state": state,
        "entry": entry,
        "code": code.format(number=f"{number:02d}") if code else "",
        "fields": json.dumps(dict(fields or {}), ensure_ascii=False, sort_keys=True),
        "who": who,
        "at": at,
        "reason": reason,
        "request": request or None,
    }
    if row is not None:
        connection.execute(db.register_number.update().where(*_is(series, number)).values(**values))
    else:
        db.insert(connection, db.register_number, [values])
    # `next` only moves over numbers that are written down, so that nothing below it can be missing.
    _move(connection, series, upcoming, taken | {number})
    return number


def reserve(connection: Connection, series: Series, first: int, last: int, *, who: str, at: int, reason: str) -> None:
    """Keep a range for somebody: `take` goes around it, and gives from it only what is `wanted`. Raises Taken."""
    upcoming = lock(connection, series)
    if first < 1 or last < first or last - first >= 10_000:
        raise Taken(f"{first}–{last}: không phải một khoảng số / not a range of numbers (at most 10,000)")
    n = db.register_number.c
    busy = connection.execute(
        select(n.number).where(*_in(series), n.number.between(first, last)).order_by(n.number)
    ).scalars()
    if taken := list(busy):
        raise Taken(f"số {taken[0]} trong khoảng đã được cấp hoặc dành / a number of the range is taken or reserved")
    if first < upcoming:
        raise Taken(f"số {first}: trước khi dùng hệ thống / before the first number of this series ({upcoming})")
    rows = [
        {"agency": series.agency, "year": series.year, "series": series.name, "number": number, "state": "reserved"}
        | {"who": who, "at": at, "reason": reason}
        for number in range(first, last + 1)
    ]
    db.insert(connection, db.register_number, rows)
    _move(connection, series, upcoming, _taken(connection, series, upcoming))


def cancel(connection: Connection, series: Series, number: int, *, who: str, at: int, reason: str) -> str:
    """A number that is not used any more stays in the register as cancelled. Returns its state before. Raises Taken."""
    lock(connection, series)
    row = _row(connection, series, number)
    if row is None:
        raise Taken(f"số {number} của dãy {series.name}/{series.year} chưa được cấp / was never given")
    if row.state == "cancelled":
        raise Taken(f"số {number} đã hủy rồi / is cancelled already")
    values = {"state": "cancelled", "reason": reason, "who": who, "at": at, "entry": ""}
    connection.execute(db.register_number.update().where(*_is(series, number)).values(**values))
    return str(row.state)


def start(connection: Connection, series: Series, first: int) -> None:
    """The first number of a series that was begun elsewhere: smaller ones are not ours. Raises Taken."""
    lock(connection, series)
    n = db.register_number.c
    smaller = connection.execute(select(n.number).where(*_in(series), n.number < first).limit(1)).scalar()
    here = connection.execute(select(n.number).where(*_in(series)).limit(1)).scalar()
    if first < 1 or smaller is not None or here is not None:
        raise Taken(f"dãy {series.name}/{series.year} đã có số / the series has numbers already; it cannot begin anew")
    t = db.register_series
    here_ = (t.c.agency == series.agency, t.c.year == series.year, t.c.series == series.name)
    connection.execute(t.update().where(*here_).values(next=first))


def numbers(connection: Connection, agency: str = "", year: int = 0, series: str = "") -> list[Any]:
    """The rows of `register_number`, in order."""
    n = db.register_number.c
    question = select(db.register_number)
    for column, value in ((n.agency, agency), (n.year, year), (n.series, series)):
        if value:
            question = question.where(column == value)
    return list(connection.execute(question.order_by(n.agency, n.year, n.series, n.number)))


def all_series(connection: Connection) -> list[tuple[Series, int]]:
    """Every series with its next number, as `take` would give it."""
    t = db.register_series.c
    rows = connection.execute(select(db.register_series).order_by(t.agency, t.year, t.series))
    known = [Series(row.agency, row.year, row.series) for row in rows]
    return [(one, preview(connection, one)) for one in known]


def gaps(given: Iterable[int], first: int = 1) -> list[Gap]:
    """Numbers missing between `first` and the highest of `given`."""
    found: list[Gap] = []
    expected = first
    for number in sorted(given):
        if number > expected:
            found.append(Gap(expected, number - 1))
        expected = max(expected, number + 1)
    return found


def asked(connection: Connection, request: str) -> Any:
    """The row that a request got before, or None."""
    return connection.execute(select(db.register_number).where(db.register_number.c.request == request)).first()


def of_entries(connection: Connection, entries: Iterable[str]) -> dict[str, Any]:
    """Entry id to its row of `register_number`: arrival numbers, and numbers of paper entries."""
    found: dict[str, Any] = {}
    wanted = list(entries)
    n = db.register_number.c
    for begin in range(0, len(wanted), 500):
        question = select(db.register_number).where(n.entry.in_(wanted[begin : begin + 500]))
        found |= {row.entry: row for row in connection.execute(question)}
    return found


def _in(series: Series) -> tuple[Any, ...]:
    n = db.register_number.c
    return n.agency == series.agency, n.year == series.year, n.series == series.name


def _is(series: Series, number: int) -> tuple[Any, ...]:
    return (*_in(series), db.register_number.c.number == number)


def _row(connection: Connection, series: Series, number: int) -> Any:
    return connection.execute(select(db.register_number).where(*_is(series, number))).first()


#: Numbers looked at in one piece; reserved ranges are smaller.
_PIECE = 1000


def _taken(connection: Connection, series: Series, number: int) -> set[int]:
    """Numbers that are given, reserved or cancelled, in the piece that begins with `number`."""
    n = db.register_number.c
    question = select(n.number).where(*_in(series), n.number >= number, n.number < number + _PIECE)
    return set(connection.execute(question).scalars())


def _sent(connection: Connection, series: Series, number: int) -> set[int]:
    """Numbers on documents that were sent without asking us, in the same piece."""
    if series.name == ARRIVALS:
        return set()
    e = db.register_entry.c
    question = select(e.number).where(
        e.agency == series.agency, e.year == series.year, e.series == series.name, e.direction == "out"
    )
    return set(connection.execute(question.where(e.number >= number, e.number < number + _PIECE)).scalars())


def _free(connection: Connection, series: Series, number: int, taken: set[int] | None = None) -> int:
    """The first number from `number` on that nobody has."""
    while True:
        busy = (_taken(connection, series, number) if taken is None else taken) | _sent(connection, series, number)
        for one in range(number, number + _PIECE):
            if one not in busy:
                return one
        number, taken = number + _PIECE, None


def _move(connection: Connection, series: Series, upcoming: int, taken: set[int]) -> None:
    """Move `next` over the numbers that are there; what lies beyond the piece is left for the next time."""
    following = upcoming
    while following in taken:
        following += 1
    if following != upcoming:
        t = db.register_series
        here = (t.c.agency == series.agency, t.c.year == series.year, t.c.series == series.name)
        connection.execute(t.update().where(*here).values(next=following))
