"""Marks and programs hidden in mail and files: nothing of bench/attacks.py goes out."""

from __future__ import annotations

import pytest

from bench import attacks


@pytest.fixture(scope="module")
def court() -> attacks.Court:
    return attacks.Court()


#: Of the pages only these, because each is read by OCR; `./run measure attacks` takes all.
PAGES = frozenset(
    (
        "scan behind three typed pages", "stamp as a picture on a typed page", "false text under a scan",
        "white text under a scan", "letters as paths", "letters as paths over unseen text", "a PDF behind a PDF",
        "many words before, a text by name", "a RAR in a picture", "bookmark", "page label", "GIF, second frame",
        "PNG, second frame", "WebP, second frame", "picture, BMP", "PNG of a huge size",
        "picture in the text of a mail",
    )
)  # fmt: skip


@pytest.mark.parametrize("kind", attacks.ATTACKS)
def test_nothing_hidden_goes_out(court: attacks.Court, kind: str) -> None:
    passed = {}
    for name, make in attacks.ATTACKS[kind].items():
        if kind == "paper" and name not in PAGES:
            continue
        verdict, told = court.judge(make())
        if verdict not in attacks.STOPPED:
            passed[name] = (verdict, told)
    assert not passed


def test_the_court_lets_ordinary_mail_through(court: attacks.Court) -> None:
    for name, raw in attacks.ordinary().items():
        verdict, told = court.judge(raw)
        assert verdict not in attacks.STOPPED, (name, told)
