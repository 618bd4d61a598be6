"""Numbers: none twice, none left out, whatever happens to those who take them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import numbers
from gateway.database import Database, sqlite_url
from gateway.numbers import Gap, Series, Taken
from tests.number_kills import ordeal
from tests.test_postgresql import server  # noqa: F401

TB = Series("snv", 2026, "TB")


def test_processes_with_kills(tmp_path):
    outcome = ordeal(sqlite_url(tmp_path / "numbers.db"), processes=4, kills=2, seed=1)
    assert outcome.wrong == [] and outcome.kills == 2
    assert len(outcome.taken) > 1


@pytest.mark.peer
def test_processes_with_kills_on_postgresql(server):  # noqa: F811
    url, _ = server
    outcome = ordeal(url, processes=3, kills=2, seed=2)
    assert outcome.wrong == [] and outcome.kills == 2
    assert len(outcome.taken) > 1


#: An act and its numbers: take, take a wanted one, reserve a range, cancel.
ACTS = st.one_of(
    st.tuples(st.just("take"), st.just(0), st.just(0)),
    st.tuples(st.just("wanted"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("reserve"), st.integers(0, 30), st.integers(0, 6)),
    st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
)


class Model:
    """What a series must be like, the slow and plain way."""

    def __init__(self) -> None:
        self.state: dict[int, str] = {}

    def act(self, name: str, number: int, more: int) -> int | None:
        """What `numbers` must answer; None for Taken."""
        if name == "take":
            number = next(n for n in range(1, 1000) if n not in self.state)
            self.state[number] = "used"
            return number
        if name == "wanted":
            if number < 1 or self.state.get(number, "reserved") != "reserved":
                return None
            self.state[number] = "used"
            return number
        if name == "reserve":
            wanted = range(number, number + more + 1)
            if number < 1 or any(n in self.state for n in wanted):
                return None
            self.state |= dict.fromkeys(wanted, "reserved")
            return number
        if self.state.get(number, "cancelled") == "cancelled":
            return None
        self.state[number] = "cancelled"
        return number


def perform(connection, name: str, number: int, more: int) -> int | None:
    try:
        if name == "take":
            return numbers.take(connection, TB, who="x", at=0)
        if name == "wanted":
            return numbers.take(connection, TB, who="x", at=0, wanted=number)
        if name == "reserve":
            numbers.reserve(connection, TB, number, number + more, who="x", at=0, reason="")
            return number
        numbers.cancel(connection, TB, number, who="x", at=0, reason="nhầm")
        return number
    except Taken:
        return None


class Back(Exception):
    """Ends a transaction without a trace."""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    found = Database.open(sqlite_url(tmp_path_factory.mktemp("numbers") / "n.db"))
    yield found
    found.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTS, max_size=30))
def test_like_a_plain_model(database, acts):
    model = Model()

    def work(connection):
        for act in acts:
            assert perform(connection, *act) == model.act(*act), act
            rows = {row.number: row.state for row in numbers.numbers(connection)}
            assert rows == model.state
            following = next(n for n in range(1, 1000) if n not in model.state)
            assert numbers.preview(connection, TB) == following
        raise Back

    with pytest.raises(Back):
        asyncio.run(database.write(work))


def test_a_request_is_answered_once(database):
    def work(connection):
        first = numbers.take(connection, TB, who="x", at=0, request="a")
        assert numbers.take(connection, TB, who="x", at=0, request="a") == first
        assert numbers.take(connection, TB, who="x", at=0, request="b") == first + 1
        with pytest.raises(Taken):
            numbers.take(connection, Series("snv", 2026, "QĐ"), who="x", at=0, request="a")
        raise Back

    with pytest.raises(Back):
        asyncio.run(database.write(work))


def test_series_are_apart_and_one_may_begin_later(database):
    def work(connection):
        assert numbers.take(connection, TB, who="x", at=0) == 1
        for other in (Series("stc", 2026, "TB"), Series("snv", 2027, "TB"), Series("snv", 2026, "QĐ")):
            assert numbers.take(connection, other, who="x", at=0) == 1
        later = Series("snv", 2026, "in")
        numbers.start(connection, later, 1205)
        assert numbers.take(connection, later, who="x", at=0) == 1205
        for first in (0, 5, 2000):
            with pytest.raises(Taken):
                numbers.start(connection, later, first)
        with pytest.raises(Taken):
            numbers.reserve(connection, later, 1000, 1001, who="x", at=0, reason="")
        raise Back

    with pytest.raises(Back):
        asyncio.run(database.write(work))


def test_gaps():
    assert numbers.gaps([]) == []
    assert numbers.gaps([1, 2, 5, 9]) == [Gap(3, 4), Gap(6, 8)]
    assert numbers.gaps([7, 5], 5) == [Gap(6, 6)]
