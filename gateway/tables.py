"""Tables that people bring as CSV: paper counts, meetings, publications of work calendars, holidays.

As spreadsheets save them: UTF-8 with or without byte order mark, comma, semicolon or tab, headings in Vietnamese or
English, dates day first. A file is taken as a whole or not at all; every mistake is told with its place, value and
cure.
"""

from __future__ import annotations

import csv
import datetime as dt
import difflib
import io
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from gateway import database as db
from gateway import durable
from gateway.classify import MessageClass
from gateway.directory import Directory, cells_of, name_key
from gateway.errors import ConfigError, Problem
from gateway.message import VIETNAM

#: A table of a province's agencies for years is some hundred kilobytes; more is not one of these tables.
LARGEST = 20 << 20


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell and where it is: line and column of the file, from 1; column in letters of the line."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A column: its name, other names for it (Vietnamese ones first), and whether it may be absent or empty."""

    name: str
    others: tuple[str, ...]
    optional: bool = False


class Mistake(ValueError):
    """What is wrong with a cell, and what would do."""


PAPER_COUNTS = (
    Heading("agency", ("cơ quan", "mã cơ quan", "đơn vị")),
    Heading("month", ("tháng", "kỳ")),
    Heading("direction", ("hướng", "đến/đi", "loại sổ", "chiều")),
    Heading("class", ("loại", "message_class", "phân loại"), optional=True),
    Heading("number", ("số lượng", "số văn bản giấy", "count", "văn bản giấy")),
)
MEETINGS = (
    Heading("title", ("tên cuộc họp", "cuộc họp", "nội dung")),
    Heading("code", ("số giấy mời", "giấy mời", "số, ký hiệu"), optional=True),
    Heading("start", ("bắt đầu", "thời gian", "thời điểm")),
    Heading("chaired_by_committee", ("lãnh đạo ubnd chủ trì", "ubnd chủ trì"), optional=True),
)
PUBLICATIONS = (
    Heading("agency", ("cơ quan", "mã cơ quan", "đơn vị")),
    Heading("published_at", ("đăng lúc", "thời điểm đăng", "thời gian")),
)
HOLIDAYS = (
    Heading("day", ("ngày", "ngày nghỉ", "date")),
    Heading("name", ("tên", "ngày lễ", "ghi chú"), optional=True),
)


def _rows(path: Path, headings: tuple[Heading, ...]) -> tuple[list[dict[str, Cell]], list[Problem]]:
    """The rows of a table, each with all its headings, and rows that are none. Raises ConfigError for a file that is no
    such table."""
    shown = str(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError([Problem(shown, 0, 0, f"lớn hơn {LARGEST >> 20} MB / is larger; chia nhỏ / split it")])
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(shown, 0, 0, error.strerror or "không đọc được / cannot be read")]) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        cure = "không phải UTF-8; lưu lại dạng “CSV UTF-8” / is not UTF-8, save it as “CSV UTF-8”"
        raise ConfigError([Problem(shown, line, 0, f"byte {data[error.start]:#04x}: {cure}")]) from None
    if "\0" in text:
        raise ConfigError(
            [Problem(shown, text.count("\n", 0, text.index("\0")) + 1, 0, "byte 0: không phải CSV / no CSV")]
        )
    first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    problems: list[Problem] = []
    found: list[dict[str, Cell]] = []
    lines = text.splitlines() or [""]
    try:
        names = _heads(next(rows, []), headings, shown, lines[0], mark)
        begin = rows.line_num
        for cells in rows:
            line, begin = begin + 1, rows.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                said = f"{len(cells)} ô, dòng đầu có {len(names)} / cells, the heading has {len(names)}"
                problems.append(Problem(shown, line, 0, said))
                continue
            places = cells_of(lines[line - 1] if line <= len(lines) else "", mark)
            row = {
                name: Cell(cell.strip(), line, places[at] if at < len(places) else 1)
                for at, (name, cell) in enumerate(zip(names, cells, strict=True))
                if name
            }
            for heading in headings:
                row.setdefault(heading.name, Cell("", line, 1))
            found.append(row)
    except csv.Error as error:
        raise ConfigError([Problem(shown, rows.line_num, 0, f"không phải CSV / not CSV: {error}")]) from None
    return found, problems


def _heads(cells: list[str], headings: tuple[Heading, ...], shown: str, line: str, mark: str) -> list[str]:
    """The name of each column; empty for one that is none of ours and is left alone. Raises ConfigError."""
    known = {name_key(other): one.name for one in headings for other in (one.name, *one.others)}
    names = [known.get(name_key(cell), "") for cell in cells]
    problems = []
    places = cells_of(line, mark)
    for at, name in enumerate(names):
        if name and names.index(name) != at:
            problems.append(Problem(shown, 1, places[at], f"{cells[at]!r}: cột có hai lần / the column is there twice"))
    for one in headings:
        if one.name not in names and not one.optional:
            near = difflib.get_close_matches(one.name, [cell.strip().lower() for cell in cells], 1)
            meant = f"; có phải / did you mean {near[0]!r}?" if near else ""
            said = f"thiếu cột / column missing: {one.name} ({one.others[0]}){meant}"
            problems.append(Problem(shown, 1, 0, said))
    if problems:
        raise ConfigError(problems)
    return names


def _problem(shown: str, cell: Cell, name: str, said: str) -> Problem:
    value = f"{name}: {cell.text!r}: " if cell.text else f"{name}: "
    return Problem(shown, cell.line, cell.column, value + said)


def convert(
    path: Path, headings: tuple[Heading, ...], kinds: Mapping[str, Callable[[str], Any]]
) -> list[tuple[dict[str, Any], dict[str, Cell]]]:
    """Values of a table's cells, by what each column is. Raises ConfigError with every mistake."""
    problems: list[Problem] = []
    found = []
    rows, wrong = _rows(path, headings)
    for row in rows:
        values: dict[str, Any] = {}
        for heading in headings:
            cell = row[heading.name]
            try:
                if not cell.text and not heading.optional:
                    raise Mistake("trống / is empty; cần có giá trị / needs a value")
                values[heading.name] = kinds[heading.name](cell.text)
            except Mistake as error:
                problems.append(_problem(str(path), cell, heading.name, error.args[0]))
        found.append((values, row))
    if problems or wrong:
        raise ConfigError(sorted(problems + wrong))
    return found


# ---------------------------------------------------------------------- what cells hold


def day(text: str) -> dt.date:
    """`25/11/2026`, `25-11-2026`, `25.11.2026` or `2026-11-25`."""
    match = re.fullmatch(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", text)
    try:
        found = dt.date(int(match[3]), int(match[2]), int(match[1])) if match else dt.date.fromisoformat(text)
    except ValueError:
        raise Mistake("không phải ngày / no date; viết / write 25/11/2026") from None
    if not 1990 <= found.year <= 2100:
        raise Mistake("năm ngoài khoảng 1990–2100 / the year is out of range")
    return found


def moment(text: str) -> dt.datetime:
    """A day and a time, in either order: `25/11/2026 08:00`, `8h30 25/11/2026`, `2026-11-25T08:00`; Vietnam's."""
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?[+-]\d\d:\d\d", text):  # as `bring` writes it
        return dt.datetime.fromisoformat(text)
    parts = text.replace("T", " ").replace(",", " ").split()
    times = [one for one in parts if re.fullmatch(r"\d{1,2}(?:[:hg]\d{0,2}|:\d{2}:\d{2})", one.lower())]
    days = [one for one in parts if one not in times]
    if len(times) != 1 or len(days) != 1:
        raise Mistake("cần ngày và giờ / needs a day and a time; viết / write 25/11/2026 08:00")
    hour, _, minute = re.sub(r"[hg]", ":", times[0].lower()).partition(":")
    try:
        return dt.datetime.combine(day(days[0]), dt.time(int(hour), int(minute[:2] or 0)), VIETNAM)
    except ValueError as error:
        if isinstance(error, Mistake):
            raise
        raise Mistake("không phải giờ / no time of day; viết / write 08:00") from None


def month(text: str) -> str:
    """`11/2026`, `Tháng 11/2026` or `2026-11`, not in the future, to `2026-11`."""
    bare = re.sub(r"(?i)^tháng\s*", "", text)
    match = re.fullmatch(r"(?P<m>\d{1,2})[/.-](?P<y>\d{4})|(?P<Y>\d{4})-(?P<M>\d{2})", bare)
    number, year = (int(match["m"] or match["M"]), int(match["y"] or match["Y"])) if match else (0, 0)
    if not 1 <= number <= 12 or not 1990 <= year <= 2100:
        raise Mistake("không phải tháng / no month; viết / write 11/2026")
    found = f"{year}-{number:02}"
    if found > f"{dt.datetime.now(VIETNAM):%Y-%m}":
        raise Mistake("tháng chưa tới / is in the future")
    return found


def count(text: str) -> int:
    """A whole number, `1234` or `1.234`."""
    bare = text.replace(".", "") if re.fullmatch(r"\d{1,3}(?:\.\d{3})+", text) else text
    if not re.fullmatch(r"\d{1,9}", bare) or not bare.isascii():
        raise Mistake("không phải số nguyên từ 0 / no whole number from 0")
    return int(bare)


def way(text: str) -> str:
    found = {"in": "in", "đến": "in", "den": "in", "out": "out", "đi": "out", "di": "out"}.get(text.lower())
    if found is None:
        raise Mistake("đến (in) hoặc / or đi (out)")
    return found


def message_class(text: str) -> str:
    if text and text.upper() not in MessageClass.__members__:
        raise Mistake(
            f"không có loại này / no such class; để trống hoặc / empty, or {', '.join(MessageClass.__members__)}"
        )
    return text.upper()


def yes(text: str) -> bool:
    known = {"": True, "yes": True, "có": True, "true": True, "1": True, "x": True}
    known |= {"no": False, "không": False, "false": False, "0": False}
    if text.lower() not in known:
        raise Mistake("có hoặc không / yes or no")
    return known[text.lower()]


def agency_of(directory: Directory) -> Callable[[str], str]:
    """An agency by id or by its name today."""
    known = {one.id for one in directory.agencies()}

    def kind(text: str) -> str:
        if text in known:
            return text
        named = directory.agency_named(text, dt.datetime.now(VIETNAM))
        if named is not None:
            return named.id
        near = difflib.get_close_matches(text, sorted(known), 1)
        raise Mistake("không có trong danh bạ / not in the directory" + (f"; có phải {near[0]!r}?" if near else ""))

    return kind


# ---------------------------------------------------------------------- paper counts


def paper_rows(path: Path, directory: Directory) -> list[dict[str, Any]]:
    """Rows for `paper_count` of a CSV file. Raises ConfigError."""
    kinds = {
        "agency": agency_of(directory), "month": month, "direction": way, "class": message_class, "number": count,
    }  # fmt: skip
    seen: dict[tuple[str, ...], int] = {}
    problems, found = [], []
    for values, row in convert(path, PAPER_COUNTS, kinds):
        key = (values["agency"], values["month"], values["direction"], values["class"])
        cell = row["agency"]
        if key in seen:
            said = f"đã có ở dòng {seen[key]} / is there already in line {seen[key]}: {' '.join(filter(None, key))}"
            problems.append(_problem(str(path), cell, "agency", said))
        seen[key] = cell.line
        values["message_class"] = values.pop("class")
        found.append({**values, "source": f"{path.name}:{cell.line}"})
    if problems:
        raise ConfigError(problems)
    return found


def store_paper(connection: Connection, rows: Iterable[Mapping[str, Any]], who: str) -> tuple[int, int]:
    """Keep counts: (new or other than before, the same as before). What was there stays as history."""
    now, fresh, same = int(time.time() * 1000), [], 0
    for row in rows:
        known = _current(connection, row["month"]).get((row["agency"], row["direction"], row["message_class"]))
        if known == row["number"]:
            same += 1
        else:
            fresh.append({**row, "at": now, "who": who})
    db.insert(connection, db.paper_count, fresh)
    return len(fresh), same


def paper_counts(connection: Connection, month: str) -> dict[tuple[str, str, str], int]:
    """Documents exchanged on paper alone in a month, as reported last: (agency, direction, class or '') to number.
    What is not in it was not reported."""
    return _current(connection, month)


def paper_count_history(connection: Connection, agency: str, month: str) -> list[dict[str, Any]]:
    """Everything an agency reported for a month, oldest first."""
    p = db.paper_count.c
    question = select(db.paper_count).where(p.agency == agency, p.month == month).order_by(p.id)
    return [dict(row) for row in connection.execute(question).mappings()]


def _current(connection: Connection, month: str) -> dict[tuple[str, str, str], int]:
    p = db.paper_count.c
    newest = select(func.max(p.id)).where(p.month == month).group_by(p.agency, p.direction, p.message_class)
    rows = connection.execute(select(p.agency, p.direction, p.message_class, p.number).where(p.id.in_(newest)))
    return {(row.agency, row.direction, row.message_class): row.number for row in rows}


# ---------------------------------------------------------------------- tables of the directory


@dataclass(frozen=True, slots=True)
class Table:
    """A table that becomes a file of the directory. key: columns that make a row one; a newer one replaces it."""

    stem: str
    headings: tuple[Heading, ...]
    kinds: Callable[[Directory], dict[str, Callable[[str], Any]]]
    key: tuple[str, ...]


def _text(text: str) -> str:
    return text


TABLES = {
    "meetings": Table(
        "meetings",
        MEETINGS,
        lambda _: {"title": _text, "code": _text, "start": moment, "chaired_by_committee": yes},
        ("code", "title"),
    ),
    "publications": Table(
        "publications",
        PUBLICATIONS,
        lambda directory: {"agency": agency_of(directory), "published_at": moment},
        ("agency", "published_at"),
    ),
    "holidays": Table("holidays", HOLIDAYS, lambda _: {"day": day, "name": _text}, ("day",)),
}


def bring(path: Path, table: Table, folder: Path, directory: Directory, *, replace: bool = False) -> tuple[int, Path]:
    """Check a table and put it into `directory/` of the configuration as `…-imported.csv`, together with what was
    imported before unless `replace`. The whole file appears at once. Returns rows and file. Raises ConfigError."""
    kinds = table.kinds(directory)
    names = [one.name for one in table.headings]
    target = folder / f"{table.stem}-imported.csv"
    rows: dict[tuple[str, ...], dict[str, str]] = {}

    def add(source: Path) -> int:
        converted = convert(source, table.headings, kinds)
        for values, _ in converted:
            written = {name: _written(values[name]) for name in names}
            parts = tuple(written[name] for name in table.key)
            rows[parts[:1] if table.stem == "meetings" and parts[0] else parts] = written
        return len(converted)

    if target.exists() and not replace:
        add(target)
    number = add(path)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows))
    durable.replace(target, text.getvalue().encode())
    return number, target


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="minutes")
    return str(value)
