"""R11: stopped and started again under load, as for an upgrade: nothing acknowledged is lost, and it ends in time.

    ./run measure restarts --restarts 20 --seed 1

Clients send without a pause; the next hop takes a moment for each message, so that mail is in the queue and on the
way at every SIGTERM. The gateway must end by itself within 25 seconds with exit code 0, and go on with its queue. At
the end every message that got `250` is in the archive once and has arrived once: a drain makes no duplicates.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import kills
from tests import harness


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--restarts", type=int, default=20)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--clients", type=int, default=4)
    given = options.parse_args()
    chance, state, took, codes = random.Random(given.seed), kills.State(), [], []
    waiting = 0
    with tempfile.TemporaryDirectory(prefix="congvan-restarts-") as temporary:
        sink, passwords = harness.Sink(), harness.PasswordServer()
        sink.answers["dot"] = lambda _line: time.sleep(0.05)  # a slow next hop, not a wait
        config = harness.write_config(
            Path(temporary),
            hop_port=sink.port,
            auth_port=passwords.port,
            extra="limits: {free_disk: 0, new_connections_per_minute: 100000}\nretry: {schedule: [1s], jitter: 0}\n",
        )
        gateway = harness.Gateway(config)
        for life in range(given.restarts):
            state.life = life
            gateway.start(120)
            stop = threading.Event()
            lanes = [
                threading.Thread(target=kills.stream, args=(gateway.ports["relay"], lane, given.seed, state, stop))
                for lane in range(given.clients)
            ]
            before = len(state.acked)
            for lane in lanes:
                lane.start()
            while len(state.acked) == before:
                time.sleep(0.05)
            time.sleep(chance.uniform(0.2, 1.5))  # the moment of the signal is the measurement, not a wait
            began = time.monotonic()
            codes.append(gateway.stop(60))
            took.append(time.monotonic() - began)
            stop.set()
            for lane in lanes:
                lane.join()
            left = kills._queued(gateway.data)
            waiting += bool(left)
            print(
                f"restart {life + 1}: {took[-1]:.1f} s, {len(state.acked)} acknowledged, {left} queued",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        gateway.start(120)
        deadline = time.monotonic() + 120
        while kills._queued(gateway.data) and time.monotonic() < deadline:
            time.sleep(0.2)
        result = kills.check(gateway, sink, state)
        gateway.command("archive", "verify")
        codes.append(gateway.stop(60))
    result |= {
        "measurement": "restarts",
        "seed": given.seed,
        "restarts": given.restarts,
        "with_mail_in_the_queue": waiting,
        "longest_s": round(max(took), 1),
        "bad_exits": sum(code != 0 for code in codes),
    }
    print(json.dumps(result))
    bad = ("lost", "unexplained", "miscounted", "queued", "bad_exits", "delivered_twice")
    return 1 if any(result[name] for name in bad) or max(took) > 25 else 0


if __name__ == "__main__":
    sys.exit(main())
