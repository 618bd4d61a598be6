"""R1: SIGKILL at random moments during a stream of mail; nothing acknowledged is lost, nothing is there twice.

    ./run measure kills --kills 300 --seed 1

Four clients send distinct messages over SMTP; the gateway is killed 0.1 to 1.5 seconds after it began to accept, and
started again. After each restart the archive is verified. At the end the queue is drained, and every message that got
`250` must be in the archive exactly once, delivered at least once, and counted once, and the figures must be those that
the archived records prove. A message that arrived twice is explained when the relay journal holds an attempt without a
result; else it is unexplained.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import json
import random
import re
import smtplib
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

from gateway.message import VIETNAM
from tests import harness


def stream(port: int, lane: int, seed: int, state: State, stop: threading.Event) -> None:
    """One client: sends messages until told to stop or cut off. What got 250 is written down after the answer."""
    rng = random.Random(f"{seed}/{lane}/{state.life}")
    while not stop.is_set():
        try:
            with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=10) as client:
                for _ in range(20):
                    if stop.is_set():
                        return
                    name = f"k{seed}-{state.life}-{lane}-{rng.randrange(10**9)}"
                    filling = "x" * rng.choice((200, 4000, 60_000))
                    raw = (
                        f"From: nguoidan@citizen.example\r\nTo: ubnd@{harness.OURS}\r\nSubject: {name}\r\n"
                        f"Message-ID: <{name}@citizen.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
                        + "".join(f"{filling[i : i + 70]}\r\n" for i in range(0, len(filling), 70))
                    )
                    state.sent.append(name)
                    client.sendmail("nguoidan@citizen.example", [f"ubnd@{harness.OURS}"], raw.encode())
                    state.acked.append(name)
        except (OSError, smtplib.SMTPException):
            if stop.is_set():
                return
            time.sleep(0.02)


class State:
    """What the clients saw. `list.append` is atomic; nothing is ever removed."""

    def __init__(self) -> None:
        self.life = 0
        self.sent: list[str] = []
        self.acked: list[str] = []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=300)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--clients", type=int, default=4)
    options.add_argument("--verify-each", type=int, default=1, help="verify the archive after every n-th restart")
    options.add_argument("--keep", type=Path, help="folder to leave the data in")
    arguments = options.parse_args()
    rng = random.Random(arguments.seed)
    state, started = State(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="congvan-kills-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sink, passwords = harness.Sink(), harness.PasswordServer()
        config = harness.write_config(
            folder,
            hop_port=sink.port,
            auth_port=passwords.port,
            extra="limits: {free_disk: 0, new_connections_per_minute: 100000}\nbudget: {workers: 1}\n"
            "retry: {schedule: [1s], jitter: 0}\n",
        )
        gateway = harness.Gateway(config)
        verified = 0
        for kill in range(arguments.kills):
            state.life = kill
            gateway.start()
            if kill % arguments.verify_each == 0:
                gateway.command("archive", "verify")
                verified += 1
            stop = threading.Event()
            lanes = [
                threading.Thread(target=stream, args=(gateway.ports["relay"], lane, arguments.seed, state, stop))
                for lane in range(arguments.clients)
            ]
            for lane in lanes:
                lane.start()
            time.sleep(rng.uniform(0.1, 1.5))  # the moment of the kill is the measurement, not a wait
            gateway.kill()
            stop.set()
            for lane in lanes:
                lane.join()
            if kill % 20 == 19:
                print(f"{kill + 1} kills, {len(state.acked)} acknowledged", file=sys.stderr, flush=True)
        gateway.start()
        deadline = time.monotonic() + 300
        while _queued(gateway.data) and time.monotonic() < deadline:
            time.sleep(0.2)
        result = check(gateway, sink, state)
        gateway.command("archive", "verify")
        gateway.command(
            "stats", "recompute", "--year", f"{dt.datetime.now(VIETNAM):%Y}"
        )  # the figures too are as they were
        gateway.stop()
        result |= {
            "measurement": "kills",
            "seed": arguments.seed,
            "kills": arguments.kills,
            "verified_clean": verified + 1,
            "seconds": round(time.monotonic() - started),
        }
        print(json.dumps(result))
        sys.exit(0 if not (result["lost"] or result["unexplained"] or result["miscounted"] or result["queued"]) else 1)


def _queued(data: Path) -> int:
    with sqlite3.connect(data / "gateway.db") as base:
        return base.execute("select count(*) from recipient where state = 'queued'").fetchone()[0]


def check(gateway: harness.Gateway, sink: harness.Sink, state: State) -> dict[str, int]:
    """Hold what the clients and the next hop saw against what the archive says."""
    arrived = collections.Counter(
        found[1].decode() for _, _, raw in sink.messages if (found := re.search(rb"Message-ID: <([^@]+)@", raw))
    )
    with sqlite3.connect(gateway.data / "gateway.db") as base:
        archived = collections.Counter(
            row[0].strip("<>").split("@")[0]
            for row in base.execute("select message_id from message where kind = 'mail'")
        )
        interrupted = {
            row[0].strip("<>").split("@")[0]
            for row in base.execute(
                "select m.message_id from attempt a join recipient r on r.id = a.recipient"
                " join message m on m.id = r.message where a.result in ('interrupted', '')"
            )
        }
        counted = base.execute("select count(*) from event where kind = 'received'").fetchone()[0]
    acked = set(state.acked)
    twice = {name for name, times in arrived.items() if times > 1}
    return {
        "sent": len(state.sent),
        "acked": len(acked),
        "lost": sum(1 for name in acked if not archived[name] or not arrived[name]),
        "archived_twice": sum(1 for times in archived.values() if times > 1),
        "archived_unacked": sum(1 for name in archived if name not in acked),
        "delivered_twice": len(twice),
        "unexplained": len(twice - interrupted) + sum(1 for times in archived.values() if times > 1),
        "miscounted": abs(counted - len(archived)),
        "queued": _queued(gateway.data),
    }


if __name__ == "__main__":
    main()
