"""R12: memory of the SMTP door under 1,000 slow sessions, 20 mails of 50 MB, an endless line and 50 MB of empty lines.

    ./run measure edge_memory [--slow 1000] [--large 20] [--megabytes 50] [--tls] [--seed 1]

Meanwhile a new client connects again and again; the worst time to its greeting is told. Targets: peak of 200 MB,
greeting within a second. `--tls`: the slow sessions are TLS sessions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import ssl
import sys
import time
from typing import Any

from bench._edge import EdgeProcess
from tests.door import OURS

ENVELOPE = f"MAIL FROM:<a@example.vn>\r\nRCPT TO:<b@{OURS}>\r\nDATA\r\n".encode()


async def until_code(reader: asyncio.StreamReader, code: bytes) -> None:
    while True:
        line = await reader.readline()
        if not line.startswith(code):
            raise ConnectionError(repr(line))
        if line[3:4] != b"-":
            return


async def into_data(port: int, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await until_code(reader, b"220")
    writer.write(b"EHLO client.example\r\n")
    await until_code(reader, b"250")
    if tls is not None:
        writer.write(b"STARTTLS\r\n")
        await until_code(reader, b"220")
        await writer.start_tls(tls)
        writer.write(b"EHLO client.example\r\n")
        await until_code(reader, b"250")
    writer.write(ENVELOPE)
    for code in (b"250", b"250", b"354"):
        await until_code(reader, code)
    return reader, writer


async def slow(port: int, source: random.Random, tls: ssl.SSLContext | None, stop: asyncio.Event) -> None:
    reader, writer = await into_data(port, tls)
    while not stop.is_set():
        writer.write(bytes([source.randrange(97, 123)]))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), source.uniform(0.5, 1.5))
    writer.write(b"\r\n.\r\n")
    await until_code(reader, b"250")
    writer.close()


async def large(port: int, block: bytes, size: int, code: bytes) -> None:
    reader, writer = await into_data(port)
    sent = 0
    while sent < size:
        writer.write(block)
        await writer.drain()
        sent += len(block)
    writer.write(b".\r\n")
    await until_code(reader, code)
    writer.close()


async def endless(port: int, result: dict[str, Any]) -> None:
    _, writer = await into_data(port)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 2 << 30:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
    result["endless_line_cut_after_mb"] = sent >> 20
    with contextlib.suppress(ConnectionError):
        writer.close()


async def greeting(port: int, stop: asyncio.Event, worst: list[float]) -> None:
    while not stop.is_set():
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until_code(reader, b"220")
        worst.append(time.monotonic() - started)
        writer.write(b"QUIT\r\n")
        await reader.read()
        writer.close()
        await asyncio.sleep(0.1)


async def attack(edge: EdgeProcess, given: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    source = random.Random(given.seed)
    stop = asyncio.Event()
    context = None
    if given.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loafers = []
    for _ in range(given.slow):
        loafers.append(asyncio.create_task(slow(edge.port, source, context, stop)))
        if len(loafers) % 50 == 0:
            await asyncio.sleep(0.1)
    while edge.ask()["sessions"] < given.slow:
        await asyncio.sleep(0.1)
    result["peak_mb_slow_sessions"] = round(edge.ask()["peak"] / 1e6, 1)
    times: list[float] = []
    watcher = asyncio.create_task(greeting(edge.port, stop, times))
    size = given.megabytes * 1_000_000
    line = source.randbytes(38).hex().encode() + b"\r\n"
    started = time.monotonic()
    await asyncio.gather(
        *(large(edge.port, line * 800, size, b"250") for _ in range(given.large)),
        large(edge.port, b"\r\n" * 32768, size, b"250"),
        endless(edge.port, result),
    )
    result["seconds"] = round(time.monotonic() - started, 1)
    stop.set()
    await watcher
    await asyncio.gather(*loafers)
    result["greeting_ms_worst"] = round(max(times) * 1000)
    result["greetings"] = len(times)
    return result


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--slow", type=int, default=1000)
    arguments.add_argument("--large", type=int, default=20)
    arguments.add_argument("--megabytes", type=int, default=50)
    arguments.add_argument("--tls", action="store_true")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    limits = {
        "connections": given.slow + 200,
        "connections_per_host": 10**6,
        "new_connections_per_minute": 10**9,
        "message_size": 60 << 20,
        "data_timeout": 600,
    }
    with EdgeProcess(tls=given.tls, limits=limits) as edge:
        rest = edge.ask()["peak"]
        edge.ask("reset")
        figures = asyncio.run(attack(edge, given))
        after = edge.ask()
    figures = {
        "bench": "edge_memory", "seed": given.seed, "slow": given.slow, "large": given.large, "tls": given.tls,
        "rss_mb_at_rest": round(rest / 1e6, 1), "peak_mb": round(after["peak"] / 1e6, 1), "accepted": after["count"],
    } | figures  # fmt: skip
    figures["ok"] = figures["peak_mb"] <= 200 and figures["greeting_ms_worst"] <= 1000
    print(json.dumps(figures))
    sys.exit(not figures["ok"])


if __name__ == "__main__":
    main()
