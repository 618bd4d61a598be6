"""A next hop that plays a script: one answer for each stage, written as text.

    greeting: 220 hop
    ehlo: 250-hop | 250-PIPELINING | 250 8BITMIME
    rcpt b@x.vn: 550 5.1.1 no such user
    end: drop ; 250 taken

Stages: greeting, ehlo, helo, starttls, auth, mail, rcpt, rcpt ADDRESS, data, content (when the first bytes arrive),
end, rset, quit. ` | ` parts lines, ` ; ` answers in turn (the last repeats). Answers that are no reply: `drop` closes,
`reset` resets the connection, `stall` says nothing more, `drip TEXT` sends a byte per tenth of a second for ever,
`raw TEXT` sends without line end, `tls` (for starttls) shakes hands, `plain` answers 220 and then speaks no TLS,
`silent` answers 220 and then nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Any

from gateway.delivery import Timeouts

#: A hop that answers in its own time, on a machine that has other things to do: no limit of ours is to end it.
PATIENT = Timeouts(connect=240, greeting=240, tls=240, command=240, data=240, block=240, end=240, quit=0.2)

USUAL = """
greeting: 220 hop
ehlo: 250-hop | 250-PIPELINING | 250-SIZE 1000000 | 250-DSN | 250-SMTPUTF8 | 250 8BITMIME
helo: 250 hop
starttls: tls
auth: 235 2.7.0 in
mail: 250 2.1.0 ok
rcpt: 250 2.1.5 ok
data: 354 go
end: 250 2.0.0 taken
rset: 250 ok
quit: 221 bye
"""


class Over(Exception):
    pass


class Hop:
    """`messages`: (MAIL line, accepted RCPT lines, bytes as on the wire without the final dot) of what was accepted."""

    def __init__(self, script: str = "", tls: ssl.SSLContext | None = None, lmtp: bool = False) -> None:
        self.answers: dict[str, list[str]] = {}
        for text in (USUAL, script):
            for line in text.strip().splitlines():
                stage, _, answer = line.strip().partition(": ")
                self.answers[stage] = answer.split(" ; ")
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.commands: list[str] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.offered: list[bytes] = []  # bodies up to the end of data, accepted or not
        self.arrived = asyncio.Event()
        self._tls = tls
        self._lmtp = lmtp
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Hop:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", getattr(self, "port", 0), limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def wait(self, count: int, seconds: float = 240) -> None:
        async with asyncio.timeout(seconds):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()

    def _next(self, *stages: str) -> str:
        for stage in stages:
            if stage in self.answers:
                answers = self.answers[stage]
                return answers.pop(0) if len(answers) > 1 else answers[0]
        raise AssertionError(stages)

    async def _say(self, writer: asyncio.StreamWriter, answer: str) -> str:
        """Returns the reply code that was sent, as text. Raises Over when the connection ends."""
        word, _, rest = answer.partition(" ")
        if word == "drop":
            writer.close()
            raise Over
        if word == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            raise Over
        if word == "stall":
            await asyncio.sleep(3600)
        if word == "drip":
            for byte in rest.encode() * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)
        if word == "raw":
            writer.write(rest.encode("latin-1"))
            await asyncio.sleep(3600)
        writer.write(b"".join(line.strip().encode("latin-1") + b"\r\n" for line in answer.split(" | ")))
        await writer.drain()
        return word[:3]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        self._writers.add(writer)
        try:
            await self._dialogue(reader, writer)
        except (Over, OSError, AttributeError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _dialogue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await self._say(writer, self._next("greeting"))) not in ("220",):
            await reader.read()
            return
        mail, recipients = "", []
        while line := await reader.readline():
            command = line.decode().rstrip("\r\n")
            self.commands.append(command)
            verb = command.split(" ")[0].lower()
            if verb in ("ehlo", "lhlo"):
                await self._say(writer, self._next("ehlo"))
            elif verb == "starttls":
                answer = self._next("starttls")
                if answer == "tls":
                    await self._say(writer, "220 go ahead")
                    plain = writer.transport
                    try:
                        await writer.start_tls(self._tls)
                    finally:  # CPython 3.11 may leave None (AttributeError), which its own destructor trips over
                        writer._transport = writer.transport or plain
                elif answer in ("plain", "silent"):
                    await self._say(writer, "220 go ahead")
                    if answer == "silent":
                        await asyncio.sleep(3600)
                    writer.write(b"I do not speak TLS\r\n" * 10)
                else:
                    await self._say(writer, answer)
            elif verb == "mail":
                mail, recipients = command, []
                await self._say(writer, self._next("mail"))
            elif verb == "rcpt":
                address = command.partition("<")[2].partition(">")[0]
                if (await self._say(writer, self._next(f"rcpt {address}", "rcpt"))) == "250":
                    recipients.append(command)
            elif verb == "data":
                if (await self._say(writer, self._next("data"))) != "354":
                    continue
                await self._content(reader, writer, mail, recipients)
                mail, recipients = "", []
            elif verb == "quit":
                await self._say(writer, self._next("quit"))
                return
            else:
                await self._say(writer, self._next(verb if verb in self.answers else "auth"))

    async def _content(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mail: str, recipients: list[str]
    ) -> None:
        if "content" in self.answers:
            await reader.read(1)
            await self._say(writer, self._next("content"))
        rows = []
        while (row := await reader.readuntil(b"\n")) != b".\r\n":
            rows.append(row)
        body = b"".join(rows)
        self.offered.append(body)
        for turn in [[one] for one in recipients] if self._lmtp else [recipients]:
            address = turn[0].partition("<")[2].partition(">")[0] if turn else ""
            answer = self._next(f"end {address}" if self._lmtp else "end", "end")
            word = answer[:3]
            if word == "250":
                self.messages.append((mail, turn, body))
                self.arrived.set()
            await self._say(writer, answer)


def undotted(wire: bytes) -> bytes:
    """The message in bytes from the wire (RFC 5321 section 4.5.2)."""
    rows = wire.split(b"\r\n")
    return b"\r\n".join(row[1:] if row.startswith(b".") else row for row in rows)


def run(main: Any) -> Any:
    """Run a coroutine on a fresh loop, with an end in sight."""

    async def bounded() -> Any:
        async with asyncio.timeout(600):
            return await main

    return asyncio.run(bounded())
