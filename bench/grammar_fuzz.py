"""S5: random conversations against the SMTP door, with a model of what each answer may be.

    ./run measure grammar_fuzz [--steps 100000] [--seed 1]

Commands in any order, right, mutilated and random, alone and in groups, with bodies of any octets. Counted as faults:
a line without an answer, a positive answer in the wrong state, an answer that tells of our inside, a message that did
not arrive as sent, anything in the log that broke.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from gateway.message import AuthResult
from tests.door import OURS, Client, Door
from tests.test_wire import stuffed

COMMANDS = [
    b"HELO client.example", b"EHLO client.example", b"EHLO [192.0.2.1]", b"MAIL FROM:<a@example.vn>", b"MAIL FROM:<>",
    b"MAIL FROM:<a@example.vn> SIZE=1000 BODY=8BITMIME", b"MAIL FROM:<a@example.vn> SMTPUTF8 RET=FULL ENVID=x",
    b'MAIL FROM:<"a b"@example.vn>', b"RCPT TO:<b@%s>" % OURS.encode(), b"RCPT TO:<c@%s> NOTIFY=NEVER" % OURS.encode(),
    b"RCPT TO:<Postmaster>", b"RCPT TO:<x@elsewhere.example>", b"RCPT TO:<@a,@b:d@%s>" % OURS.encode(), b"DATA",
    b"RSET", b"NOOP", b"NOOP x", b"VRFY b", b"EXPN b", b"HELP", b"QUIT", b"AUTH PLAIN AGEAYg==", b"AUTH LOGIN",
    b"STARTTLS",
    b"XFORWARD ADDR=192.0.2.1", b"XCLIENT NAME=x", b"ETRN x", b"TURN", b"BDAT 3 LAST", b"GET / HTTP/1.1", b"", b" ",
]  # fmt: skip
WORDS = [
    *(
        b" ",
        b"<",
        b">",
        b"@",
        b":",
        b'"',
        b"\\",
        b"=",
        b"+0D+0A",
        b"\t",
        b"\r",
        b"\n",
        b"\0",
        b"\x7f",
        b"\xc3\xa0",
        b"\xff",
    ),
    *(b"SIZE=", b"ORCPT=rfc822;", b"{}", b"%n", b"A" * 600, b"a." * 200, b"..", b"MAIL FROM:", b"\xe2\x80\xae"),
]
TRANSACTION = [COMMANDS[3], COMMANDS[8], b"DATA"]
INSIDE = re.compile(r"Traceback|Exception|Error:|[A-Z][a-z]+Error|0x[0-9a-f]|/home|/tmp|\.py|[Pp]ython|aiosmtpd")
POSITIVE = {b"MAIL": "250", b"RCPT": "250", b"DATA": "354"}


class Model:
    """What we know of the session from its answers."""

    def __init__(self) -> None:
        self.greeted = self.mail = False
        self.recipients = 0

    def may(self, verb: bytes) -> bool:
        """Whether a positive answer to MAIL, RCPT or DATA is right now."""
        if verb == b"MAIL":
            return self.greeted and not self.mail
        return self.mail and (verb == b"RCPT" or self.recipients > 0)

    def learn(self, verb: bytes, answer: str) -> None:
        if verb in (b"HELO", b"EHLO") and answer.startswith("250"):
            self.greeted, self.mail, self.recipients = True, False, 0
        elif verb == b"RSET" and answer.startswith("250"):
            self.mail, self.recipients = False, 0
        elif verb == b"MAIL" and answer.startswith("250"):
            self.mail = True
        elif verb == b"RCPT" and answer.startswith("250"):
            self.recipients += 1


class Fuzz:
    def __init__(self, door: Door, seed: int) -> None:
        self.door = door
        self.source = random.Random(seed)
        self.faults: list[str] = []
        self.answers: collections.Counter[str] = collections.Counter()
        self.steps = self.sessions = 0
        self.sent: list[bytes] = []

    def fault(self, what: str, line: bytes, answer: str) -> None:
        self.faults.append(f"step {self.steps}: {what}: {line[:80]!r} -> {answer[:120]!r}")

    def mutilated(self, line: bytes) -> bytes:
        source = self.source
        for _ in range(source.randrange(1, 4)):
            at = source.randrange(len(line) + 1)
            match source.randrange(5):
                case 0:
                    line = line[:at] + source.choice(WORDS) + line[at:]
                case 1:
                    line = line[:at] + line[at + source.randrange(1, 4) :]
                case 2:
                    line = line[:at] + source.randbytes(source.randrange(1, 6)) + line[at:]
                case 3:
                    line = line[:at] + line[at : at + 8].swapcase() + line[at + 8 :]
                case _:
                    line = line[:at]
        return line

    def line(self) -> bytes:
        kind = self.source.random()
        if kind < 0.03:
            return self.source.randbytes(self.source.randrange(60))
        line = self.source.choice(COMMANDS[:14] if kind < 0.7 else COMMANDS)
        return self.mutilated(line) if self.source.random() < 0.25 else line

    def body(self) -> bytes:
        source = self.source
        pieces = [b"x", b".", b"\r\n", b"\r\n.", b"..", b"a" * 50, b"\xc3\xa0", b"QUIT"]
        if source.random() < 0.2:
            pieces += [b"\r", b"\n", b"\0"]
        return b"".join(source.choice(pieces) for _ in range(source.randrange(30)))

    def session(self, steps: int) -> None:
        self.sessions += 1
        with self.door.client() as peer:
            model = Model()
            if not peer.reply().startswith("220"):
                self.fault("no greeting", b"", "")
                return
            if self.source.random() < 0.8:
                model.learn(b"EHLO", peer.say("EHLO client.example"))
            try:
                while self.steps < steps and self.group(peer, model):
                    pass
            except OSError as error:
                self.fault("connection", b"", str(error))

    def group(self, peer: Client, model: Model) -> bool:
        """Send one to five lines at once and judge each answer. False when the session is over."""
        if self.source.random() < 0.2:
            lines = list(TRANSACTION)
            if self.source.random() < 0.3:
                lines.insert(self.source.randrange(3), self.line())
        else:
            lines = [self.line() for _ in range(self.source.choice([1, 1, 1, 2, 5]))]
        # A line end within a line makes two of it.
        sent = [part for line in lines for part in (line + b"\r\n").split(b"\n")[:-1]]
        try:
            peer.send(b"".join(part + b"\n" for part in sent))
        except OSError:
            return False
        for number, part in enumerate(sent):
            self.steps += 1
            bad_end = not part.endswith(b"\r")
            verb = part.rstrip(b"\r").split(b" ")[0].upper()
            answer = peer.reply()
            code = answer[:3]
            self.answers[code] += 1
            if not answer:
                self.fault("no answer", part, answer)
                return False
            if INSIDE.search(answer) or not re.fullmatch(r"(?:[2345]\d\d[ -][ -~]*\n?)+", answer):
                self.fault("tells of the inside, or is no reply", part, answer)
            if verb in POSITIVE and code == POSITIVE[verb] and (bad_end or not model.may(verb)):
                self.fault("positive answer in the wrong state", part, answer)
            if bad_end and code[0] not in "45":
                self.fault("a bare line end was obeyed", part, answer)
            model.learn(verb, answer)
            if code == "354":
                return number == len(sent) - 1 and self.data(peer, model)
            if code in ("221", "421") or (
                answer.startswith(("554 5.5.0", "502 5.5.1", "500 5.5.1")) and self.over(peer, sent, number)
            ):
                return False
        return True

    def over(self, peer: Client, sent: list[bytes], number: int) -> bool:
        """Whether the server hangs up after this answer: for lines that are no SMTP, and for data before 354."""
        verb = sent[number].split(b" ")[0].upper().strip(b"\r")
        if verb == b"DATA" and number < len(sent) - 1:
            return True
        return bool(
            re.match(
                rb"(?:GET|POST|PUT|HEAD|OPTIONS|CONNECT|BDAT)\b|[A-Z][A-Z-]*:(?!\S*$)",
                sent[number].upper().rstrip(b"\r"),
            )
        )

    def data(self, peer: Client, model: Model) -> bool:
        body = self.body()
        if body and not body.endswith(b"\r\n"):
            body += b"\r\n"
        alone = body.replace(b"\r\n", b"")
        bad = any(mark in alone for mark in (b"\r", b"\n", b"\0"))
        before = len(self.door.keeper.messages)
        if bad:
            body = b"x" + body
            while b"\r\n.\r\n" in body:  # a true end
                body = body.replace(b"\r\n.\r\n", b"\r\n")
            peer.send(body + (b".\r\n" if body.endswith(b"\r\n") else b"\r\n.\r\n"))
        else:
            peer.send(stuffed(body))
        answer = peer.reply()
        self.answers[answer[:3]] += 1
        model.mail, model.recipients = False, 0
        arrived = self.door.keeper.messages[before:]
        self.door.keeper.messages.clear()
        if bad:
            if answer[:9] not in ("550 5.5.2", "550 5.6.0") or arrived:
                self.fault("bad octets were taken", body, answer)
            return False
        if not answer.startswith("250") or [data for _, data in arrived] != [body]:
            self.fault("a good message did not arrive as sent", body, answer)
        return True


def run(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    limits = {"errors_per_session": 60, "new_connections_per_minute": 10**9, "connections_per_host": 1000}
    with Door(folder, limits=limits) as door:
        door.passwords.answer = AuthResult.BAD
        fuzz = Fuzz(door, seed)
        while fuzz.steps < steps and len(fuzz.faults) < 20:
            fuzz.session(steps)
        broken = [entry["event"] for entry in door.log if entry["level"] in ("error", "exception", "critical")]
        door.log.clear()
    return {
        "bench": "grammar_fuzz", "seed": seed, "steps": fuzz.steps, "sessions": fuzz.sessions,
        "answers": dict(sorted(fuzz.answers.items())), "broken": len(broken), "faults": fuzz.faults,
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--steps", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), given.steps, given.seed)
    print(json.dumps(figures))
    sys.exit(bool(figures["faults"] or figures["broken"]))


if __name__ == "__main__":
    main()
