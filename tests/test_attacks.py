"""Marks and programs hidden in mail and files: nothing of bench/attacks.py goes out."""

from __future__ import annotations

import pytest

from bench import attacks


@pytest.fixture(scope="module")
def court() -> attacks.Court:
    return attacks.Court()


@pytest.mark.parametrize("kind", attacks.ATTACKS)
def test_nothing_hidden_goes_out(court: attacks.Court, kind: str) -> None:
    passed = {}
    for name, make in attacks.ATTACKS[kind].items():
        verdict, told = court.judge(make())
        if verdict not in attacks.STOPPED:
            passed[name] = (verdict, told)
    assert not passed


def test_the_court_lets_ordinary_mail_through(court: attacks.Court) -> None:
    for name, raw in attacks.ordinary().items():
        verdict, told = court.judge(raw)
        assert verdict not in attacks.STOPPED, (name, told)
