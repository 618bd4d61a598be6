"""R13: peers that hold a session for ever: each is ended within its stated limit, and others are served meanwhile.

    ./run measure edge_slow [--each 20] [--factor 0.01] [--seed 1]

Time limits are those of the default settings times `--factor` (120 s become 1.2 s), the minimum rate is divided by it.
Kinds: silence, one octet now and then as a command, NOOP for ever, RSET for ever, one octet now and then as data, data
below the minimum rate, a TLS handshake that stops, a client that reads no replies, one that stays after QUIT's reply.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable

from bench._edge import EdgeProcess
from bench.edge_memory import into_data, until_code
from gateway import config
from tests.door import OURS

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def greeted(port: int) -> Peer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await until_code(reader, b"220")
    writer.write(b"EHLO client.example\r\n")
    await until_code(reader, b"250")
    return reader, writer


async def until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def drip(peer: Peer, octets: Callable[[], bytes], pause: Callable[[], float]) -> None:
    """Send a little again and again until the server closes."""
    reader, writer = peer
    closed = asyncio.create_task(until_closed(reader))
    while not closed.done():
        writer.write(octets())
        await asyncio.wait([closed], timeout=pause())
    with contextlib.suppress(ConnectionError):
        await closed
    writer.close()


class Kinds:
    """What hostile peers do, and within how many seconds the door must be rid of them."""

    def __init__(self, port: int, factor: float, source: random.Random, grace: float) -> None:
        limits = config.Limits()
        self.port, self.factor, self.source = port, factor, source
        self.context = ssl.create_default_context()  # it reads all roots of the machine: once
        command, data, session = (
            value * factor for value in (limits.command_timeout, limits.data_timeout, limits.session_timeout)
        )
        self.limits = {
            "silence": command + grace,
            "octets_of_a_command": command + grace,
            "noop": session + grace,
            "rset": session + grace,
            "octets_of_data": data + grace,
            "below_minimum_rate": data * 2 + grace,
            "stalled_tls": command + grace,
            "reads_no_replies": command + 5 + grace,
            "stays_after_quit": 5 + grace,
        }

    def pause(self) -> float:
        return self.source.uniform(0.3, 0.7) * self.factor * 100

    async def silence(self) -> None:
        reader, writer = await greeted(self.port)
        await until_closed(reader)
        writer.close()

    async def octets_of_a_command(self) -> None:
        await drip(await greeted(self.port), lambda: b"x", self.pause)

    async def noop(self) -> None:
        await drip(await greeted(self.port), lambda: b"NOOP\r\n", self.pause)

    async def rset(self) -> None:
        await drip(await greeted(self.port), lambda: b"RSET\r\nEHLO x\r\n", self.pause)

    async def octets_of_data(self) -> None:
        await drip(await into_data(self.port), lambda: b"x", self.pause)

    async def below_minimum_rate(self) -> None:
        # half of the minimum rate: 500 octets a second, in scaled time
        await drip(await into_data(self.port), lambda: b"x" * 23 + b"\r\n", lambda: 0.1 * self.factor)

    async def stalled_tls(self) -> None:
        reader, writer = await greeted(self.port)
        writer.write(b"STARTTLS\r\n")
        await until_code(reader, b"220")
        hello = ssl.MemoryBIO()
        client = self.context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="x.example")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        first = hello.read()
        writer.write(first[: self.source.randrange(1, len(first))])
        await until_closed(reader)
        writer.close()

    async def reads_no_replies(self) -> None:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(plain, ("127.0.0.1", self.port))
        await loop.sock_sendall(plain, b"")
        await loop.sock_recv(plain, 512)
        noise = (
            f"MAIL FROM:<a@example.vn>\r\nRCPT TO:<b@{OURS}>\r\n".encode() + f"RCPT TO:<b@{OURS}>\r\n".encode() * 3000
        )
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(plain, b"EHLO x\r\n")
            await asyncio.sleep(0.05)
            while True:
                await loop.sock_sendall(plain, noise)
        plain.close()

    async def stays_after_quit(self) -> None:
        reader, writer = await greeted(self.port)
        writer.write(b"QUIT\r\n")
        await until_closed(reader)
        with contextlib.suppress(ConnectionError):
            while True:  # until our octets come back as a reset
                writer.write(b"NOOP\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()


async def timed(work: Awaitable[None], patience: float) -> float:
    started = time.monotonic()
    with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
        await asyncio.wait_for(work, patience)
    return time.monotonic() - started


async def honest(port: int, stop: asyncio.Event, taken: list[float]) -> None:
    """A mail, again and again, as long as the others are at it."""
    while not stop.is_set():
        started = time.monotonic()
        reader, writer = await into_data(port)
        writer.write(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
        await until_code(reader, b"250")
        taken.append(time.monotonic() - started)
        await until_closed(reader)
        writer.close()
        await asyncio.sleep(0.05)


async def attack(port: int, given: argparse.Namespace) -> dict[str, object]:
    kinds = Kinds(port, given.factor, random.Random(given.seed), given.grace)
    stop, taken = asyncio.Event(), []
    watcher = asyncio.create_task(honest(port, stop, taken))
    worst: dict[str, float] = {}

    async def one(kind: str) -> None:
        limit = kinds.limits[kind]
        seconds = await timed(getattr(kinds, kind)(), limit + 20)
        worst[kind] = max(worst.get(kind, 0), seconds)

    await asyncio.gather(*(one(kind) for kind in kinds.limits for _ in range(given.each)))
    stop.set()
    await watcher
    late = sorted(kind for kind, seconds in worst.items() if seconds > kinds.limits[kind])
    return {
        "worst_s": {kind: [round(seconds, 2), round(kinds.limits[kind], 2)] for kind, seconds in worst.items()},
        "late": late,
        "honest_mails": len(taken),
        "honest_worst_ms": round(max(taken) * 1000),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--each", type=int, default=20)
    arguments.add_argument("--factor", type=float, default=0.01)
    arguments.add_argument("--grace", type=float, default=1.5, help="seconds for the sweeper and a busy machine")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    usual = config.Limits()
    limits = {
        "command_timeout": usual.command_timeout * given.factor,
        "data_timeout": usual.data_timeout * given.factor,
        "session_timeout": usual.session_timeout * given.factor,
        "minimum_rate": int(usual.minimum_rate / given.factor),
        "connections": 10_000,
        "connections_per_host": 10_000,
        "new_connections_per_minute": 10**9,
        "messages_per_session": 10**9,
    }
    with EdgeProcess(tls=True, limits=limits) as edge:
        figures = asyncio.run(attack(edge.port, given))
        left = edge.ask()["sessions"]
    figures = {"bench": "edge_slow", "seed": given.seed, "each": given.each, "sessions_left": left} | figures
    print(json.dumps(figures))
    sys.exit(bool(figures["late"]))


if __name__ == "__main__":
    main()
