"""R1 for several gateways on one PostgreSQL: SIGKILL at random moments; nothing lost, nothing sent twice but by a kill.

    ./run measure gateway_kills --kills 100 --gateways 3 --seed 1

The gateways share database, store folder and keys. Senders keep on with each message until one takes it; the next
hop takes its time, so that deliveries are always under way everywhere. A gateway is killed, stays away for a while, and
starts again; the last to be killed stays away, and the others take up its mail when its lease is over. At the
end every message that got 250 is in the archive exactly once and was delivered; each copy too many must belong to an
attempt that the relay journal calls interrupted, and each of those to a kill of the very gateway that made it, between
the intent and the note. `archive verify` at all that live.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from bench.outages import Load, archive_subjects, subject
from gateway import durable
from tests import harness
from tests.test_outage import Postgres


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--gateways", type=int, default=3)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, started = random.Random(given.seed), time.monotonic()
    sink, passwords = harness.Sink(), harness.PasswordServer()
    slow, lock = random.Random(f"{given.seed}/hop"), threading.Lock()

    def dot(_line: str) -> None:
        with lock:
            seconds = slow.uniform(0.0, 0.3)
        time.sleep(seconds)

    sink.answers["dot"] = dot
    with contextlib.ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"congvan-{n}-")))
            for n in range(given.gateways + 2)
        ]
        postgres = Postgres(folders[-2]).start()
        stack.callback(postgres.stop)
        extra = (
            f"database: {postgres.url}\nlimits: {{free_disk: 0, new_connections_per_minute: 100000}}\n"
            "budget: {workers: 1}\nretry: {schedule: [1s], jitter: 0}\n"
        )
        gateways: list[harness.Gateway] = []
        for folder in folders[: given.gateways]:
            config = harness.write_config(folder, hop_port=sink.port, auth_port=passwords.port, extra=extra)
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / "blobs").symlink_to(folders[-1])
            if gateways:
                shutil.copytree(gateways[0].data / "keys", folder / "data" / "keys")
            gateways.append(harness.Gateway(config).start())
        for one in gateways:
            stack.callback(one.stop)
        load = Load(gateways, given.senders)
        kills: list[tuple[str, float, float]] = []  # who, from when on, when it was surely dead; seconds
        for number in range(given.kills):
            time.sleep(rng.uniform(0.1, 1.5))  # the moment of the kill is the measurement, not a wait
            victim = rng.choice(gateways)
            begun = time.time()
            victim.kill()
            kills.append((durable.identity(victim.data), begun, time.time()))
            if number < given.kills - 1:
                time.sleep(rng.choice((0.0, 0.0, 1.0)))
                victim.start()
            if number % 20 == 19:
                print(f"{number + 1} kills, {len(load.taken)} acknowledged", file=sys.stderr, flush=True)
        load.end()
        deadline = time.monotonic() + 300
        while waiting(postgres) and time.monotonic() < deadline:  # among them the mail of the one that stays away
            time.sleep(0.2)
        alive = [one for one in gateways if one is not victim]
        for one in alive:
            one.command("archive", "verify")
        result = check(postgres, sink, load, kills)
        result |= {
            "measurement": "gateway_kills",
            "seed": given.seed,
            "gateways": given.gateways,
            "kills": given.kills,
            "verified_clean": len(alive),
            "seconds": round(time.monotonic() - started),
        }
        print(json.dumps(result))
    sys.exit(1 if any(result[name] for name in ("lost", "archived_twice", "unexplained", "queued")) else 0)


def rows(postgres: Postgres, question: str) -> list[Any]:
    engine = create_engine(postgres.url)
    with engine.connect() as connection:
        found = list(connection.execute(text(question)).all())
    engine.dispose()
    return found


def waiting(postgres: Postgres) -> int:
    return int(rows(postgres, "SELECT count(*) FROM recipient WHERE state = 'queued'")[0][0])


def check(postgres: Postgres, sink: harness.Sink, load: Load, kills: list[tuple[str, float, float]]) -> dict[str, int]:
    """Hold what senders and next hop saw against what the archive says."""
    archived = archive_subjects(postgres)
    copies = collections.Counter(subject(data) for *_, data in sink.messages)
    journal = rows(
        postgres,
        "SELECT m.subject, a.owner, a.intent_at, a.finished_at FROM attempt a JOIN recipient r ON r.id = a.recipient"
        " JOIN message m ON m.id = r.message WHERE a.result IN ('interrupted', '')",
    )
    by_kill: collections.Counter[str] = collections.Counter()
    unexplained = 0
    for name, owner, intent, finished in journal:
        if any(who == owner and intent / 1000 <= dead and begun <= finished / 1000 for who, begun, dead in kills):
            by_kill[name] += 1
        else:  # such as a gateway that was not heard of for the time of its lease, though it lived
            unexplained += 1
            print(f"no kill: {name} by {owner}, {intent} to {finished}", file=sys.stderr, flush=True)
    unexplained += sum(max(0, times - 1 - by_kill[name]) for name, times in copies.items())
    return {
        "acked": len(load.taken),
        "deferred": load.deferred,
        "lost": len(load.taken - set(archived)) + len(load.taken - set(copies)),
        "archived_twice": sum(times > 1 for times in archived.values()),
        "copies_too_many": sum(times - 1 for times in copies.values()),
        "interrupted": len(journal),
        "unexplained": unexplained,
        "queued": waiting(postgres),
    }


if __name__ == "__main__":
    main()
