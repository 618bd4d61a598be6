"""Figures of a simulated province against the same figures worked out by plain SQL and arithmetic (`province.py`)."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from gateway import database as db
from gateway import directory as directories
from gateway import stats
from gateway.directory import Directory
from gateway.message import VIETNAM
from gateway.stats import Book, Period
from tests import province as simulated
from tests.province import Province

SEED = 20261122
MONTHS = [*simulated.months("2025-01", 12), "2026-03"]


def fill(path: Path, rows: list[tuple[dict, list[dict]]], paper: list[dict]) -> None:
    """Put them into a database the way the archive does: what is there already stays."""

    def write(connection: Connection) -> None:
        db.insert(connection, db.message, [message for message, _ in rows])
        db.insert(connection, db.event, [event for _, events in rows for event in events], ignore=True)
        db.insert(connection, db.paper_count, paper)

    async def work() -> None:
        database = db.Database.open(db.sqlite_url(path))
        await database.write(write)
        database.close()

    asyncio.run(work())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Province, Directory, list[dict]]:
    """Path of the database, the province, its directory and its paper counts."""
    folder = tmp_path_factory.mktemp("province")
    province = Province.make(40)
    province.write(folder / "directory")
    paper = simulated.paper(province, MONTHS, SEED)
    fill(folder / "figures.db", list(simulated.events(province, MONTHS, 900, SEED)), paper)
    return folder / "figures.db", province, directories.load(folder / "directory"), paper


@pytest.fixture
def connection(world: tuple[Path, Province, Directory, list[dict]]) -> Iterator[Connection]:
    database = db.Database.open(db.sqlite_url(world[0]))
    with database.engine.connect() as opened:
        yield opened
    database.close()


PERIODS = ["2025-06", "2025-07", "2026-03", "2025-H1", "2025-H2", "2025"]


@pytest.mark.parametrize("text", PERIODS)
def test_every_figure_of_every_agency(world, connection, text):
    path, _, directory, _ = world
    period = Period.parse(text)
    expected = simulated.by_hand(path, list(period.months))
    book = Book(connection, period, directory)
    rows = {row.agency: row for row in book.rows()}
    keys = [one.key for one in stats.FIGURES if one.key != "unread_over"]
    zero = dict.fromkeys(keys, 0)
    assert {one.key for one in stats.FIGURES} - set(expected["ubnd-tinh"]) == {"unread_over"}
    for agency, row in rows.items():
        told = expected.get(agency, zero)
        assert {key: row.figures[key] for key in keys} == {key: told[key] for key in keys}, (SEED, text, agency)
    assert set(expected) <= set(rows)
    total = book.total()
    for key in keys:
        assert total.figures[key] == sum(one[key] for one in expected.values()), key


@pytest.mark.parametrize(("by", "column"), [("direction",) * 2, ("message_class",) * 2, ("profile",) * 2])
def test_by_direction_class_and_profile(world, connection, by, column):
    path, _, directory, _ = world
    expected = simulated.by_hand(path, ["2025-06"], column)
    rows = {row.group[by]: row for row in Book(connection, Period.parse("2025-06"), directory).rows((by,))}
    assert set(rows) == set(expected)
    for value, row in rows.items():
        for key in simulated.BY_HAND:
            assert row.figures[key] == expected[value][key], (by, value, key)


def test_by_level(world, connection):
    path, province, directory, _ = world
    expected = simulated.by_hand(path, ["2025-06"])
    levels = {one.id: one.level for one in province.valid(dt.date(2025, 6, 15))}
    rows = {row.group["level"]: row for row in Book(connection, Period.parse("2025-06"), directory).rows(("level",))}
    assert set(rows) == set(levels.values())
    for level, row in rows.items():
        for key in simulated.BY_HAND:
            assert row.figures[key] == sum(one[key] for name, one in expected.items() if levels[name] == level)


@pytest.mark.parametrize("text", ["2025-06", "2026-03", "2025"])
def test_with_the_agencies_below_and_before(world, connection, text):
    path, province, directory, _ = world
    period = Period.parse(text)
    expected = simulated.rolled_up_by_hand(path, province, list(period.months))
    rows = {row.agency: row for row in Book(connection, period, directory).rows(rollup=True)}
    for agency, told in expected.items():
        assert {key: rows[agency].figures[key] for key in told} == told, (text, agency)
    (only,) = Book(connection, period, directory).rows(rollup=True, agency="ubnd-tinh")
    assert only.values() == rows["ubnd-tinh"].values()
    assert rows["ubnd-tinh"].figures["sent"] == sum(
        one["sent"] for one in simulated.by_hand(path, list(period.months)).values()
    )


@pytest.mark.parametrize("text", ["2025-06", "2025-H1"])
def test_shares_need_paper_counts(world, connection, text):
    """Never 100 % where they are missing; the newest row counts; an agency owes them for the months it existed."""
    path, province, directory, paper = world
    period = Period.parse(text)
    newest = {(one["agency"], one["month"], one["direction"]): one["number"] for one in paper}
    counts = simulated.by_hand(path, list(period.months))
    rows = {row.agency: row for row in Book(connection, period, directory).rows()}
    lacking = 0
    for agency, row in rows.items():
        spans = [one for one in province.spans if one.id == agency]
        owed = [
            month
            for month in period.months
            if any(span.valid(day) for span in spans for day in (Period.parse(month).first, Period.parse(month).last))
        ]
        told = [[newest.get((agency, month, way)) for month in owed] for way in ("out", "in")]
        parts = counts.get(agency, dict.fromkeys([*simulated.BY_HAND, *simulated.PARTS_BY_HAND], 0))
        share = row.shares["e_any_ratio"]
        if any(number is None for way in told for number in way):
            lacking += 1
            assert (share.value, share.percent, row.paper["out"] is None or row.paper["in"] is None) == (None, "", True)
            assert row.values()["e_any_ratio"] is None and row.values()["missing"]["e_any_ratio"]
            continue
        on_paper = sum(map(sum, told))
        whole = parts["any_out"] + parts["any_in"] + on_paper
        assert (share.part, share.whole) == (parts["any_out"] + parts["any_in"], whole)
        full = row.shares["e_full_ratio"]
        assert (full.part, full.whole) == (parts["full_out"] + parts["full_in"], whole)
        between = row.shares["e_full_ratio_inter_agency"]
        assert (between.part, between.whole) == (parts["full_between"], parts["between"] + sum(told[0]))
    assert 0 < lacking < len(rows)
    total = Book(connection, period, directory).total()
    assert total.shares["e_any_ratio"].value is None
    assert total.reported == len(rows) - lacking
    reporting = [row.shares["e_any_ratio"] for row in rows.values() if row.shares["e_any_ratio"].value is not None]
    told_share = total.told["e_any_ratio"]
    assert (told_share.part, told_share.whole) == (
        sum(one.part for one in reporting),
        sum(one.whole for one in reporting),
    )


def test_percentages_are_cut_and_targets_exact():
    assert stats.Share(8999, 10000).percent == "89.9"
    assert stats.Share(99_999, 100_000).percent == "99.9"
    assert stats.Share(1, 1).percent == "100.0"
    assert stats.Share(5, None, stats.NO_PAPER).percent == ""
    assert stats.Share(0, 0, stats.NO_DOCUMENTS).value is None


def test_communes_that_exchange(world, connection):
    path, province, directory, _ = world
    communes = {one.id for one in province.valid(dt.date(2025, 6, 30)) if one.level == "commune"}
    start, end = simulated.moments(["2025-06"])
    with sqlite3.connect(path) as raw:
        seen = raw.execute(
            "SELECT DISTINCT agency FROM event WHERE kind IN ('sent', 'received') AND scope = 'inter_agency'"
            " AND at >= ? AND at < ?",
            (start, end),
        ).fetchall()
    share = Book(connection, Period.parse("2025-06"), directory).communes()
    assert (share.part, share.whole) == (len(communes & {row[0] for row in seen}), len(communes))


def test_each_number_names_its_messages(world, connection):
    _, _, directory, _ = world
    period = Period.parse("2025-06")
    book = Book(connection, period, directory)
    assert book.policies == sorted(simulated.POLICIES)
    for row in book.rows()[:5]:
        for figure in stats.FIGURES:
            cases = list(stats.behind(connection, period, figure.key, (row.agency,)))
            if not figure.distinct:
                assert len(cases) == row.figures[figure.key]
            assert {one.agency for one in cases} <= {row.agency}
        share = row.shares["e_any_ratio"]
        cases = list(stats.behind(connection, period, "e_any_ratio", (row.agency,)))
        assert sum(one.part == "numerator" for one in cases) == share.part
    wide = next(row for row in book.rows(rollup=True) if row.agency == "huyen-000")
    cases = list(stats.behind(connection, period, "sent", book.members("huyen-000", True)))
    assert len(cases) == wide.figures["sent"]
    with pytest.raises(KeyError):
        stats.definition("nonsense")
    for key in (*stats.RATIO, *stats.OTHERS, *(one.key for one in stats.FIGURES)):
        assert stats.definition(key)


def test_duplicates_and_replays_change_nothing(tmp_path):
    """Events offered again, out of order and in pieces cut off anywhere, as after crashes."""
    province = Province.make(12)
    province.write(tmp_path / "directory")
    directory = directories.load(tmp_path / "directory")
    made = list(simulated.events(province, ["2026-03"], 400, SEED))
    fill(tmp_path / "once.db", made, [])
    chance = random.Random(SEED)
    rows = [event for _, events in made for event in events]

    async def again() -> None:
        database = db.Database.open(db.sqlite_url(tmp_path / "often.db"))
        await database.write(lambda c: db.insert(c, db.message, [message for message, _ in made]))
        missing = [*rows, *chance.sample(rows, len(rows) // 2)]
        chance.shuffle(missing)
        while missing:
            piece = missing[: chance.randrange(1, 60)]

            def write(connection: Connection, piece: list[dict] = piece, dies: bool = chance.random() < 0.4) -> None:
                for row in piece:
                    db.insert(connection, db.event, [row], ignore=True)
                if dies:
                    raise ConnectionAbortedError

            try:
                await database.write(write)
                missing = missing[len(piece) :]
            except ConnectionAbortedError:  # nothing of it is there; it is offered again
                chance.shuffle(missing)
        database.close()

    asyncio.run(again())
    tables = []
    for name in ("once.db", "often.db"):
        database = db.Database.open(db.sqlite_url(tmp_path / name))
        with database.engine.connect() as connection:
            book = Book(connection, Period.parse("2026-03"), directory)
            tables.append([row.values() for row in (*book.rows(), *book.rows(rollup=True), book.total())])
        database.close()
    assert tables[0] == tables[1], SEED


def test_periods():
    assert Period.parse("2026-H2").months == tuple(f"2026-{month:02}" for month in range(7, 13))
    assert Period.parse("2025-12").end == dt.datetime(2026, 1, 1, tzinfo=VIETNAM)
    assert Period.parse("2024-02").last == dt.date(2024, 2, 29)
    assert [Period.parse(one).before.text for one in ("2026-01", "2026-H1", "2026-H2", "2026")] == [
        "2025-12",
        "2025-H2",
        "2026-H1",
        "2025",
    ]
    for wrong in ("2026-13", "2026-H3", "26", "2026-1", "", "11/2026", "2026-11-01"):
        with pytest.raises(ValueError, match="2026-H1"):
            Period.parse(wrong)
