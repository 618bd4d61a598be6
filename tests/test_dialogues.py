"""Plays every conversation in tests/dialogues/*.txt to a real listener; dialogues/README.md explains the language."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Reply
from tests.door import OURS, Door

FOLDER = Path(__file__).parent / "dialogues"

_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def octets(text: str) -> bytes:
    """`\\r`, `\\n`, `\\t`, `\\0`, `\\x7f` and `{a*500}` to octets."""
    text = re.sub(r"\{(.+?)\*(\d+)\}", lambda match: match[1] * int(match[2]), text)
    pieces = re.split(r"(\\x[0-9a-fA-F]{2}|\\[rnt0\\])", text)
    return b"".join(
        (bytes([int(piece[2:], 16)]) if piece.startswith("\\x") else _ESCAPES[piece[1:]])
        if number % 2
        else piece.encode()
        for number, piece in enumerate(pieces)
    )


def options(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        found[key] = {"yes": True, "no": False}.get(
            value, tuple(value.split(",")) if key.endswith(("_from", "networks")) else value
        )
    return found


class Play:
    """One conversation: the line that is played, for messages about failures."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.lines = path.read_text(encoding="utf-8").splitlines()
        self.kind, self.setup, self.limits = "relay", {}, {}
        self.refused: dict[str, Reply] = {}

    def run(self) -> None:
        steps = [
            (number, *re.split(r"[:\s]\s?", line, maxsplit=1))
            for number, line in enumerate(self.lines, 1)
            if line.strip() and not line.startswith("#")
        ]
        while steps and steps[0][1] in ("listener", "limits", "refuse"):
            _, word, rest = steps.pop(0)
            words = shlex.split(rest)
            if word == "listener":
                self.kind, self.setup = words[0], options(words[1:])
            elif word == "limits":
                self.limits = options(words)
            else:
                code, detail = words[1].split()
                self.refused[words[0].lower()] = Reply(int(code), words[2], detail.partition(".")[2])
        with Door(self.folder, self.kind, limits=self.limits, **self.setup) as door:
            door.keeper.answers["recipient"] = lambda _o, _s, recipient: self.refused.get(recipient.address.key)
            with door.client() as client:
                for number, word, *rest in steps:
                    try:
                        self.step(door, client, word, rest[0] if rest else "")
                    except (AssertionError, OSError) as error:
                        raise AssertionError(f"{self.path.name}:{number}: {self.lines[number - 1]}\n{error}") from None

    def step(self, door: Door, client: Any, word: str, rest: str) -> None:
        if word == "C":
            client.send(
                octets(rest[:-1]) if rest.endswith("\\") and not rest.endswith("\\\\") else octets(rest) + b"\r\n"
            )
        elif word == "S":
            answer = client.reply()
            last = answer.split("\n")[-1]
            if rest[3:4] == "~":  # 250~ word: somewhere in the reply
                assert answer.startswith(rest[:3]) and rest[4:].strip() in answer, f"the server said: {answer}"
            elif rest[3:4] == "!":  # 250! word: nowhere in the reply
                assert answer.startswith(rest[:3]) and rest[4:].strip() not in answer, f"the server said: {answer}"
            else:
                assert last.startswith(rest), f"the server said: {answer}"
        elif word == "TLS":
            client.start_tls()
        elif word == "CLOSED":
            assert client.gone(), "the server did not close"
        elif word == "HALF":
            client.socket.shutdown(socket.SHUT_WR)
        elif word == "MESSAGES":
            assert len(door.keeper.messages) == int(rest), f"{len(door.keeper.messages)} messages arrived"
        else:
            assert door.keeper.messages, "no message arrived"
            received, data = door.keeper.messages[-1]
            if word == "BODY":
                assert data == octets(rest), f"the body is {data!r}"
            elif word == "FROM":
                assert str(received.envelope.sender) == rest, f"the sender is {received.envelope.sender}"
            elif word == "TO":
                assert [str(r.address) for r in received.envelope.recipients] == rest.split(), received.envelope
            elif word == "ORIGIN":
                for key, value in options(shlex.split(rest)).items():
                    assert getattr(received.origin, key) == value, f"{key} is {getattr(received.origin, key)!r}"
            else:
                raise AssertionError(f"unknown word {word!r}")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_dialogue(path: Path, tmp_path: Path) -> None:
    Play(path, tmp_path).run()


@pytest.mark.parametrize(
    ("script", "about"),
    [
        ("S: 220\nC: NOOP\nS: 550", "bad.txt:3: S: 550\nthe server said: 250 2.0.0 Ok"),
        ("S: 220\nMESSAGES 1", "bad.txt:2: MESSAGES 1\n0 messages arrived"),
        ("S: 220\nDANCE now", "bad.txt:2: DANCE now\nno message arrived"),
        ("S: 220! ESMTP", "bad.txt:1: S: 220! ESMTP\nthe server said: 220 "),
    ],
)
def test_a_dialogue_that_goes_otherwise_is_told_with_its_line(tmp_path: Path, script: str, about: str) -> None:
    (tmp_path / "bad.txt").write_text(script)
    with pytest.raises(AssertionError) as told:
        Play(tmp_path / "bad.txt", tmp_path).run()
    assert str(told.value).startswith(about)


def test_the_dialogues_are_there() -> None:
    assert len(list(FOLDER.glob("*.txt"))) >= 15 and OURS in "".join(p.read_text() for p in FOLDER.glob("*.txt"))
