"""CPU of the queue and the delivery client for one message, next hop smtp-sink: from the rows to the settled rows.

    ./run measure delivery_cpu --count 2000 --size 4096

`backlog`: the messages are there and the queue starts; `stream`: they are committed one after another while it runs,
and what committing alone takes is taken off. User and system time of this process (database and store threads with
it), not of smtp-sink. Needs smtp-sink (Debian package postfix).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests import cases
from tests.house import House


async def measure(folder: Path, port: int, count: int, size: int, way: str) -> dict[str, Any]:
    hop: Any = SimpleNamespace(port=port)
    built = House(folder, {"hop": hop}, timeouts=None)
    data = [cases.mail(number, size) for number in range(count)]
    if way != "backlog":
        built.now = time.time()
        if way == "stream":
            built.start()
    else:
        for number in range(count):
            await built.commit(data=data[number])
    cpu, wall = time.process_time(), time.monotonic()
    if way == "backlog":
        built.start()
    else:
        lanes = 8

        async def lane(mine: int) -> None:
            for number in range(mine, count, lanes):
                await built.archive.commit(cases.case(data[number]))
                built.queue.wake()

        await asyncio.gather(*map(lane, range(lanes)))
    if way != "commit":
        while True:
            await asyncio.sleep(0.2)
            ((left,),) = await built.sql("select count(*) from recipient where state = 'queued'")
            if not left:
                break
    used, seconds = time.process_time() - cpu, time.monotonic() - wall
    await built.close()
    return {"ms": 1000 * used / count, "rate": count / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sink = subprocess.Popen(["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "100"])
    try:
        found = {}
        for way in ("backlog",) if arguments.profile else ("backlog", "commit", "stream"):
            with tempfile.TemporaryDirectory() as folder:
                found[way] = asyncio.run(measure(Path(folder), port, arguments.count, arguments.size, way))
    finally:
        sink.kill()
        sink.wait()
    result = {"measurement": "delivery_cpu", "count": arguments.count, "size": arguments.size}
    for way, one in found.items():
        result |= {f"{way}_ms": round(one["ms"], 3), f"{way}_rate": round(one["rate"])}
    if "stream" in found:
        result["delivery_in_stream_ms"] = round(found["stream"]["ms"] - found["commit"]["ms"], 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
