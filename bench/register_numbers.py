"""Numbers under kills: processes take, cancel and reserve numbers and are killed at any moment; no gap, none twice.

./run measure register_numbers --kills 200 --processes 8 --seed 1
./run measure register_numbers --kills 200 --postgresql
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from gateway.database import sqlite_url
from tests.number_kills import Outcome, ordeal


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgresql", action="store_true")
    words = parser.parse_args()
    begin = time.monotonic()
    if words.postgresql:
        from tests.test_postgresql import server

        running = server.__wrapped__() if hasattr(server, "__wrapped__") else server._get_wrapped_function()()
        url, _ = next(running)
        outcome = ordeal(url, words.processes, words.kills, words.seed)
        running.close()
    else:
        with tempfile.TemporaryDirectory() as folder:
            url = sqlite_url(Path(folder) / "numbers.db")
            outcome = ordeal(url, words.processes, words.kills, words.seed)
    tell(outcome, time.monotonic() - begin)
    return 1 if outcome.wrong else 0


def tell(outcome: Outcome, seconds: float) -> None:
    states = ", ".join(f"{number} {state}" for state, number in sorted(outcome.states.items()))
    print(f"{outcome.kills} kills, {len(outcome.taken)} numbers told, {states}; {seconds:.0f} s")
    for one in outcome.wrong:
        print("WRONG", one)


if __name__ == "__main__":
    sys.exit(main())
