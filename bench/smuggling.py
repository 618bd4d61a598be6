"""S1, S3, S6: smuggling, splits of the stream, and the 12 attack classes that DINUM's mail server is tested with.

    ./run measure smuggling [--rounds 20] [--mails 50] [--seed 1]

S1: 24 forms of a false end of data, each at random places and splits; no second envelope may arise, and nothing with a
bare CR, LF or NUL may be accepted. The same forms then go through the whole gateway, raw, defused and encoded, while
the next hop writes down every octet: what leaves has no bare CR or LF, is as many messages as were accepted, and names
no smuggled address. S3: each mail cut at every position (reader) and sent octet by octet (socket); the bytes must be
the same and none refused. S6: one attack of each class must be refused, with its class named if not.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench._edge import EdgeProcess, digest
from gateway.wire import BodyWriter, DataReader, Pool
from tests import harness
from tests.door import OURS, Client
from tests.test_wire import FALSE_ENDS, stuffed

LIMITS = {
    "connections_per_host": 10_000, "new_connections_per_minute": 10**9, "messages_per_session": 10**9,
    "message_size": 1 << 20,
}  # fmt: skip


_TLS = ssl.create_default_context()


def client(edge: EdgeProcess) -> Client:
    return Client(edge.port, _TLS, 30)


def smuggle(edge: EdgeProcess, source: random.Random, rounds: int) -> dict[str, Any]:
    """Each form, in random company: before, within and behind ordinary lines, in pieces of random length."""
    tries = refused = accepted = answered_more = 0
    second = 0
    for end in FALSE_ENDS:
        for _ in range(rounds):
            tries += 1
            lines = [source.choice([b"x", b"", b"Subject: x", b"a.b", b"..x"]) for _ in range(source.randrange(6))]
            before = b"".join(line + b"\r\n" for line in lines) + source.choice([b"one", b"", b"two."])
            smuggled = f"MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@{OURS}>\r\nDATA\r\n".encode()
            data = before + end + smuggled + b"two\r\n.\r\nQUIT\r\n"
            with client(edge) as peer:
                peer.greet()
                peer.envelope("outer@example.vn", f"b@{OURS}")
                assert peer.say("DATA").startswith("354")
                while data:
                    length = source.choice([1, 2, 3, 5, 1000])
                    try:
                        peer.send(data[:length])
                    except OSError:
                        break
                    data = data[length:]
                answer = peer.reply()
                accepted += answer.startswith("250")
                refused += answer[:9] in ("550 5.5.2", "550 5.6.0")
                answered_more += not peer.gone()
    for _, sender, recipients in edge.ask("seen")["seen"]:
        if sender == "evil@evil.example" or f"victim@{OURS}" in recipients:
            second += 1
    return {
        "forms": len(FALSE_ENDS), "tries": tries, "refused": refused, "accepted": accepted,
        "second_envelopes": second, "answers_after_refusal": answered_more,
    }  # fmt: skip


def egress(source: random.Random, rounds: int) -> dict[str, Any]:
    """Every form through the whole gateway, raw, defused and encoded; the next hop writes down what comes."""
    accepted = 0
    with tempfile.TemporaryDirectory(prefix="congvan-egress-") as folder:
        sink, passwords = harness.Sink(), harness.PasswordServer()
        config = harness.write_config(
            Path(folder), hop_port=sink.port, auth_port=passwords.port,
            extra="limits: {free_disk: 0, new_connections_per_minute: 1000000, errors_per_session: 1000}\n",
        )  # fmt: skip
        gateway = harness.Gateway(config).start()
        try:
            for end in FALSE_ENDS:
                for number in range(rounds):
                    smuggled = f"MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@{harness.OURS}>\r\nDATA\r\n".encode()
                    hostile = end + smuggled + b"two\r\n."
                    clean = hostile.replace(b"\r", b" ").replace(b"\n", b" ").replace(b"\0", b" ")
                    stuffed_out = b"..\r\n.\r\nQUIT\r\n." if number % 2 else b"."
                    rows = [
                        (b"one" + hostile, b"trao doi"),  # refused at the door
                        (b"one" + clean + b"\r\n" + stuffed_out, b"trao doi " + clean[:200]),  # passes as text
                        (b"=0D=0A.=0D=0A" + clean, b"=?utf-8?q?x=0D=0A=2E=0D=0AMAIL?="),  # passes encoded
                    ]
                    for text, subject in rows:
                        head = f"From: a@example.vn\r\nTo: ubnd@{harness.OURS}\r\nSubject: ".encode() + subject
                        head += b"\r\nMessage-ID: <%d@example.vn>\r\n\r\n" % source.getrandbits(60)
                        data = head + text + b"\r\n"
                        with Client(gateway.ports["relay"], _TLS, 60) as peer:
                            peer.greet()
                            peer.envelope("a@example.vn", f"ubnd@{harness.OURS}")
                            peer.say("DATA")
                            wire = data if hostile in data else stuffed(data)[:-3]
                            peer.send(wire + b".\r\n")
                            accepted += peer.reply().startswith("250")
            sink.wait(accepted)
        finally:
            gateway.stop()
    out = b"".join(bytes(wire) for wire in sink.wire)
    envelopes = [(sender, recipients) for sender, recipients, _ in sink.messages]
    return {
        "tries": 3 * rounds * len(FALSE_ENDS), "accepted": accepted, "left": len(envelopes), "octets": len(out),
        "bare_cr_lf": len(re.findall(rb"(?<!\r)\n|\r(?!\n)", out)),
        "second_envelopes": sum(
            "evil@" in sender or any("victim@" in one for one in to) for sender, to in envelopes
        ),
    }  # fmt: skip


def mail(source: random.Random, number: int) -> bytes:
    """A small mail with everything that can go wrong at a block border."""
    parts = [b"From: a@example.vn\r\nSubject: %d\r\n\r\n" % number]
    for _ in range(source.randrange(4, 25)):
        line = source.choice([b"", b".", b"..", b". .", b"QUIT", b"MAIL FROM:<x@y>", None])
        if line is None:
            line = bytes(octet for octet in source.randbytes(source.randrange(80)) if octet not in b"\r\n\0")
        parts.append(line + b"\r\n")
    return b"".join(parts)


def splits(edge: EdgeProcess, source: random.Random, mails: int) -> dict[str, Any]:
    cuts = wrong = refused = 0
    sent: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, client(edge) as peer:
        peer.greet()
        for number in range(mails):
            message = mail(source, number)
            wire = stuffed(message)
            for cut in range(len(wire) + 1):
                cuts += 1
                writer = BodyWriter(Path(folder), 1 << 20, Pool())
                reader = DataReader(writer, 1 << 20, 65536)
                reader.feed(wire[:cut]) or reader.feed(wire[cut:])
                refused += reader.fault is not None
                wrong += writer.finish().read() != message
            peer.envelope("split@example.vn", f"b@{OURS}")
            assert peer.say("DATA").startswith("354")
            for position in range(len(wire)):
                peer.send(wire[position : position + 1])
            refused += not peer.reply().startswith("250")
            sent[digest(message)] += 1
    got = collections.Counter(seen for seen, sender, _ in edge.ask("seen")["seen"] if sender == "split@example.vn")
    wrong += sum(((got - sent) + (sent - got)).values())
    return {"mails": mails, "cuts": cuts, "octet_by_octet": mails, "wrong": wrong, "false_rejects": refused}


def classes(edge: EdgeProcess) -> dict[str, Any]:
    """The classes of `tests/test_security.py` of suitenumerique/messages (src/mta-in), each tried our way."""

    def session(act: Callable[[Client], bool], greet: bool = True) -> bool:
        with client(edge) as peer:
            if greet:
                peer.greet()
            else:
                peer.reply()
            return act(peer)

    def no(answer: str) -> bool:
        return answer[:1] in ("4", "5")

    def flooded(peer: Client) -> bool:
        try:
            return any(not peer.say(f"GARBAGE{number}") for number in range(200))
        except OSError:
            return True

    def dialogue(*commands: str, last: Callable[[str], bool] = no) -> Callable[[Client], bool]:
        def act(peer: Client) -> bool:
            answers = [peer.say(command) for command in commands]
            return last(answers[-1]) and all(answer.startswith("250") for answer in answers[:-1])

        return act

    def mailed(data: bytes) -> Callable[[Client], bool]:
        return lambda peer: no(peer.mail(data))

    mail_from = "MAIL FROM:<a@example.vn>"
    tries: dict[str, list[bool]] = {
        "1 AUTH on the relay port": [
            session(lambda peer: "AUTH" not in peer.say("EHLO x")),
            session(dialogue("AUTH LOGIN")),
            session(dialogue("AUTH PLAIN AGEAYg==")),
        ],
        "2 VRFY and EXPN": [
            session(lambda peer: peer.say(f"VRFY b@{OURS}") == peer.say(f"VRFY x@{OURS}")),
            session(dialogue("EXPN postmaster")),
        ],
        "3 smuggling": [
            session(mailed(b"one" + end + f"{mail_from}\r\nRCPT TO:<v@{OURS}>\r\nDATA\r\nx\r\n".encode()))
            for end in (b"\n.\r\n", b"\r.\r\n", b"\n.\n", b"\r\n.\n", b"\r\n.\r", b"\r\r\n.\r\r\n")
        ],
        "4 NUL in data": [session(mailed(b"hello\0world\r\n"))],
        "5 control characters in addresses": [
            session(dialogue(f"MAIL FROM:<bad{mark}addr@example.vn>"))
            for mark in ("\t", "\x0b", "\0", "\x7f", "\r", "\n")
        ],
        "6 overlong local parts and domains": [
            session(dialogue(mail_from, f"RCPT TO:<{'a' * 200}@{OURS}>")),
            session(dialogue(mail_from, f"RCPT TO:<a@{'a' * 64}.{OURS}>")),
            session(dialogue(f"MAIL FROM:<a@{'a.' * 130}vn>")),
        ],
        "7 announced size": [session(dialogue(f"{mail_from} SIZE=1000000000"))],
        "8 RSET forgets": [session(dialogue(mail_from, f"RCPT TO:<b@{OURS}>", "RSET", "DATA"))],
        "9 flood of unknown commands": [session(flooded)],
        "10 overlong command lines": [session(dialogue("A" * 5000)), session(dialogue("A" * 100_000))],
        "11 null paths": [
            session(dialogue("MAIL FROM:<>", last=lambda answer: answer.startswith("250"))),
            session(dialogue(mail_from, "RCPT TO:<>")),
        ],
        "12 MAIL without EHLO": [session(dialogue(mail_from), greet=False)],
    }
    return {"classes": len(tries), "held": sum(map(all, tries.values())), "tries": sum(map(len, tries.values())),
            "broken": [name for name, results in tries.items() if not all(results)]}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--mails", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    source = random.Random(given.seed)
    with EdgeProcess(limits=LIMITS) as edge:
        figures: dict[str, Any] = {
            "bench": "smuggling",
            "seed": given.seed,
            "S1": smuggle(edge, source, given.rounds),
            "S3": splits(edge, source, given.mails),
            "S6": classes(edge),
        }
    figures["S1 egress"] = egress(source, given.rounds)
    s1, out, s3, s6 = figures["S1"], figures["S1 egress"], figures["S3"], figures["S6"]
    figures["ok"] = (
        s1["second_envelopes"] == s1["accepted"] == s1["answers_after_refusal"] == 0
        and s1["refused"] == s1["tries"]
        and out["bare_cr_lf"] == out["second_envelopes"] == 0 < out["left"] == out["accepted"]
        and s3["wrong"] == s3["false_rejects"] == 0
        and s6["held"] == s6["classes"]
    )
    print(json.dumps(figures))
    sys.exit(not figures["ok"])


if __name__ == "__main__":
    main()
