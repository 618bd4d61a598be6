"""R8: a next hop that fails in every way at every stage; is each answer read as what it is?

    ./run measure next_hop_table

Each case is a script for the fake hop of `tests/hop.py` and what must become of each recipient: `delivered`,
`deferred`, `failed`; `!` the hop itself counts as down; `?` it may have arrived, journalled as a possible duplicate.
All cases run with PIPELINING and without. Prints one line for each that is wrong, then the totals as JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import trustme

from gateway.config import NextHop
from gateway.delivery import Content, Letter, Outcome, Target, attempt
from tests.hop import PATIENT, Hop

#: The waits of RFC 5321 4.5.3.2, some hundred times faster, by the stage that is to time out: only there, because a
#: busy machine must not make an earlier one do so. EHLO, MAIL and RCPT share theirs, so it is longer.
QUICK = {
    "greeting": {"greeting": 1.0},
    "ehlo": {"command": 5.0},
    "starttls": {"tls": 1.0},
    "mail": {"command": 5.0},
    "rcpt": {"command": 5.0},
    "data": {"command": 5.0, "data": 1.0},  # with PIPELINING, the first wait is for all replies of the group
    "content": {"block": 1.0},
    "end": {"end": 1.0},
}

PLAIN = "250-hop | 250-SIZE 0 | 250-8BITMIME | 250-STARTTLS | 250 AUTH PLAIN"
PIPELINED = "250-hop | 250-PIPELINING | 250-SIZE 0 | 250-8BITMIME | 250-STARTTLS | 250 AUTH PLAIN"


@dataclass(frozen=True)
class Case:
    name: str
    script: str
    expected: str  # for each recipient
    tls: str = "none"
    login: bool = False
    lmtp: bool = False
    good_certificate: bool = True
    size: int = 300


TABLE = (
    # ------------------------------------------------------------------ before a word
    Case("nobody listens", "nobody", "deferred!"),
    Case("greeting never comes", "greeting: stall", "deferred!"),
    Case("hangs up before the greeting", "greeting: drop", "deferred!"),
    Case("resets the connection", "greeting: reset", "deferred!"),
    Case("greeting 421", "greeting: 421 4.3.2 busy", "deferred!"),
    Case("greeting 554", "greeting: 554 5.7.1 no service for you", "deferred!"),
    Case("greeting is no SMTP", "greeting: SSH-2.0-OpenSSH_9.2", "deferred!"),
    Case("greeting drips, a byte at a time", "greeting: drip 2", "deferred!"),
    Case("greeting line without end", f"greeting: raw 220-{'x' * 5000}", "deferred!"),
    Case("greeting of ten thousand lines", "greeting: " + " | ".join(["220-x"] * 300), "deferred!"),
    # ------------------------------------------------------------------ EHLO
    Case("EHLO 421", "ehlo: 421 4.3.2 busy", "deferred!"),
    Case("EHLO unknown, HELO good", "ehlo: 502 5.5.1 what", "delivered"),
    Case("EHLO and HELO refused", "ehlo: 502 5.5.1 what\nhelo: 550 5.7.1 no", "deferred!"),
    Case("EHLO never answered", "ehlo: stall", "deferred!"),
    Case("EHLO and gone", "ehlo: drop", "deferred!"),
    Case("EHLO with two codes", "ehlo: 250-hop | 350 what", "deferred!"),
    # ------------------------------------------------------------------ STARTTLS
    Case("handshake never ends, TLS required", "starttls: silent", "deferred!", tls="encrypt"),
    Case("handshake never ends, TLS optional", "starttls: silent", "delivered", tls="may"),
    Case("handshake is no TLS, required", "starttls: plain", "deferred!", tls="encrypt"),
    Case("handshake is no TLS, optional", "starttls: plain", "delivered", tls="may"),
    Case("STARTTLS 454, required", "starttls: 454 4.7.0 not now", "deferred!", tls="encrypt"),
    Case("STARTTLS 454, optional", "starttls: 454 4.7.0 not now", "delivered", tls="may"),
    Case("STARTTLS not offered, required", "ehlo: 250 hop", "deferred!", tls="verify"),
    Case("certificate of somebody else, verified", "", "deferred!", tls="verify", good_certificate=False),
    Case("certificate of somebody else, not verified", "", "delivered", tls="encrypt", good_certificate=False),
    Case("words slipped in before the handshake", "starttls: 220 go | 250 slipped in", "deferred!", tls="encrypt"),
    # ------------------------------------------------------------------ AUTH
    Case("password wrong", "auth: 535 5.7.8 wrong", "deferred!", login=True),
    Case("password cannot be checked", "auth: 454 4.7.0 later", "deferred!", login=True),
    Case("AUTH not offered", "ehlo: 250 hop", "deferred!", login=True),
    # ------------------------------------------------------------------ MAIL
    Case("MAIL 451", "mail: 451 4.3.0 later", "deferred deferred"),
    Case("MAIL 550", "mail: 550 5.7.1 sender unwanted", "failed failed"),
    Case("MAIL 421", "mail: 421 4.3.2 closing", "deferred deferred"),
    Case("MAIL 530, log in first", "mail: 530 5.7.0 authenticate", "deferred! deferred!"),
    Case("MAIL and gone", "mail: drop", "deferred deferred"),
    Case("MAIL never answered", "mail: stall", "deferred deferred"),
    Case("MAIL answered with rubbish", "mail: what?", "deferred deferred"),
    Case("MAIL answered 354", "mail: 354 go", "deferred deferred"),
    # ------------------------------------------------------------------ RCPT
    Case("RCPT 450", "rcpt: 450 4.2.1 later", "deferred deferred"),
    Case("RCPT 550", "rcpt: 550 5.1.1 nobody", "failed failed"),
    Case("one RCPT 550", "rcpt b@x.vn: 550 5.1.1 nobody", "delivered failed"),
    Case("one RCPT 450", "rcpt b@x.vn: 450 4.2.1 later", "delivered deferred"),
    Case("gone after the first RCPT", "rcpt b@x.vn: drop", "deferred deferred"),
    Case("gone after one RCPT was refused", "rcpt a@x.vn: 550 no\nrcpt b@x.vn: drop", "failed deferred"),
    Case("second RCPT never answered", "rcpt b@x.vn: stall", "deferred deferred"),
    Case("RCPT 421", "rcpt b@x.vn: 421 4.3.2 closing", "deferred deferred"),
    Case("RCPT 452 for the second, taken later", "rcpt b@x.vn: 452 4.5.3 too many ; 250 ok", "delivered delivered"),
    Case("RCPT 452 for ever", "rcpt b@x.vn: 452 4.5.3 too many", "delivered deferred"),
    Case("RCPT drips", "rcpt a@x.vn: drip 2", "deferred deferred"),
    # ------------------------------------------------------------------ DATA
    Case("DATA 451", "data: 451 4.3.0 later", "deferred deferred"),
    Case("DATA 554", "data: 554 5.6.0 no", "failed failed"),
    Case("DATA and gone", "data: drop", "deferred deferred"),
    Case("DATA never answered", "data: stall", "deferred deferred"),
    Case("DATA answered 250", "data: 250 ok", "deferred deferred"),
    Case("DATA 421", "data: 421 4.3.2 closing", "deferred deferred"),
    # ------------------------------------------------------------------ content
    Case("gone in the middle of the message", "content: drop", "deferred deferred", size=20_000_000),
    Case("552 in the middle, then gone", "content: 552 5.3.4 too big", "failed failed", size=20_000_000),
    Case("stops reading in the middle", "content: stall", "deferred deferred", size=20_000_000),
    # ------------------------------------------------------------------ end of data
    Case("end 451", "end: 451 4.3.0 later", "deferred deferred"),
    Case("end 554", "end: 554 5.7.1 content refused", "failed failed"),
    Case("end and gone", "end: drop", "deferred? deferred?"),
    Case("end and reset", "end: reset", "deferred? deferred?"),
    Case("end never answered", "end: stall", "deferred? deferred?"),
    Case("end answered with rubbish", "end: what?", "deferred? deferred?"),
    Case("end answered 354", "end: 354 go on", "deferred? deferred?"),
    Case("end drips", "end: drip 2", "deferred? deferred?"),
    Case("end 421", "end: 421 4.3.2 closing", "deferred deferred"),
    Case("end 250 and good-bye", "end: 250 ok | 421 4.3.2 closing", "delivered delivered"),
    # ------------------------------------------------------------------ LMTP
    Case("LMTP, one mailbox full", "end b@x.vn: 452 4.2.2 full", "delivered deferred", lmtp=True),
    Case("LMTP, one refused", "end b@x.vn: 552 5.2.2 full", "delivered failed", lmtp=True),
    Case("LMTP, gone after the first", "end b@x.vn: drop", "delivered deferred?", lmtp=True),
    Case("LMTP, second never answered", "end b@x.vn: stall", "delivered deferred?", lmtp=True),
)


@dataclass
class Lab:
    """Certificates and a password, made once."""

    folder: Path
    good: ssl.SSLContext
    other: ssl.SSLContext

    @classmethod
    def make(cls, folder: Path) -> Lab:
        authority, stranger = trustme.CA(), trustme.CA()
        contexts = []
        for ca in (authority, stranger):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.issue_cert("127.0.0.1").configure_cert(context)
            contexts.append(context)
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        (folder / "password").write_text("mat-khau")
        return cls(folder, *contexts)

    async def play(self, case: Case, pipelined: bool) -> list[Outcome]:
        script = f"ehlo: {PIPELINED if pipelined else PLAIN}\n" + case.script.replace("nobody", "", 1)
        body = b"Subject: thu\r\n\r\n" + b"x" * 76 + b"\r\n"
        body += (b"x" * 98 + b"\r\n") * ((case.size - len(body)) // 100)
        tls = self.good if case.good_certificate else self.other
        count = len(case.expected.split())
        letter = Letter("a@y.vn", tuple(Target(one) for one in ("a@x.vn", "b@x.vn")[:count]), Content(b"", (body,)))
        async with Hop(script, tls=tls, lmtp=case.lmtp) as hop:
            if case.script == "nobody":
                await hop.close()
            where = NextHop(
                name="hop", host="127.0.0.1", port=hop.port, tls=case.tls, ca=self.folder / "ca.pem",
                protocol="lmtp" if case.lmtp else "smtp", login="cong" if case.login else "",
                password_file=self.folder / "password",
            )  # fmt: skip
            timeouts = PATIENT
            for line in case.script.splitlines():
                if any(word in line for word in ("stall", "drip", "silent")):
                    timeouts = replace(timeouts, **QUICK[line.replace(":", " ").split()[0]])
            return await attempt(where, "cong.y.vn", letter, timeouts=timeouts)


def read(outcomes: list[Outcome]) -> str:
    return " ".join(one.result + "!" * one.hop_down + "?" * one.interrupted for one in outcomes)


async def whole(folder: Path) -> dict[str, object]:
    lab = await asyncio.to_thread(Lab.make, folder)
    wrong = []
    for pipelined in (True, False):
        turns = asyncio.Semaphore(12)

        async def play(case: Case, pipelined: bool = pipelined, turns: asyncio.Semaphore = turns) -> list[Outcome]:
            async with turns:
                return await lab.play(case, pipelined)

        found = await asyncio.gather(*map(play, TABLE))
        for case, outcomes in zip(TABLE, found, strict=True):
            if read(outcomes) != case.expected:
                wrong.append(case.name)
                print(f"{case.name} ({'pipelined' if pipelined else 'plain'}): expected {case.expected},"
                      f" found {read(outcomes)}: {outcomes[0].reply}")  # fmt: skip
    return {"measurement": "next_hop_table", "cases": len(TABLE), "runs": 2 * len(TABLE), "wrong": len(wrong)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(whole(Path(folder)))
    print(json.dumps(result))
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
