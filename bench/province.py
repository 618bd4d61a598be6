"""Figures of a simulated province against plain SQL over the raw events; time, memory and growth of a publication.

300 agencies, 24 months, 2 million events by default. Each month, half-year and year is computed by the program and a
second time by hand (tests/province.py), by agency and with roll-up; every number must be the same. Then a month is
published whole, in a process of its own with two cores and 1 GB of address space for data, at growing sizes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway import database as db
from gateway import directory as directories
from gateway.stats import FIGURES, Book, Period
from tests import province as simulated

GIGABYTE = 1 << 30


def prepare(folder: Path, agencies: int, months: list[str], events: int, seed: int) -> int:
    """A configuration and its database. Returns how many events are in it."""
    province = simulated.Province.make(agencies)
    config = folder / "config"
    province.write(config / "directory")
    for name in ("profiles", "lists"):
        shutil.copytree(Path("config") / name, config / name)
    shutil.copy(Path("config") / "citations.yaml", config)
    (config / "policy.yaml").write_text("profile: national_2026\n")
    (config / "gateway.yaml").write_text(
        "hostname: cong.tinh.gov.vn\ndata: ../data\nlisteners: [{kind: relay, port: 0}]\n"
        "next_hops: [{name: hop, host: 127.0.0.1}]\ncontacts: {agency_name: Ủy ban nhân dân tỉnh}\n"
    )
    (folder / "data" / "blobs").mkdir(parents=True)

    async def fill() -> None:
        database = db.Database.open(db.sqlite_url(folder / "data" / "gateway.db"))
        messages: list[dict] = []
        rows: list[dict] = []

        async def flush() -> None:
            some, more = messages[:], rows[:]
            messages.clear()
            rows.clear()
            await database.write(lambda c: (db.insert(c, db.message, some), db.insert(c, db.event, more, ignore=True)))

        for message, made in simulated.events(province, months, events // len(months), seed):
            messages.append(message)
            rows += made
            if len(rows) > 20_000:
                await flush()
        await flush()
        paper = simulated.paper(province, months, seed, missing=0.02)
        await database.write(lambda c: db.insert(c, db.paper_count, paper))
        database.close()

    asyncio.run(fill())
    with sqlite3.connect(folder / "data" / "gateway.db") as connection:
        return connection.execute("SELECT count(*) FROM event").fetchone()[0]


def compare(folder: Path, months: list[str], agencies: int) -> tuple[int, int]:
    """Numbers compared, and those that differ, over every month, half-year and year, own and rolled up."""
    directory = directories.load(folder / "config" / "directory")
    path = folder / "data" / "gateway.db"
    province = simulated.Province.make(agencies)
    database = db.Database.open(db.sqlite_url(path))
    periods = [*months]
    for year in sorted({month[:4] for month in months}):
        for text in (f"{year}-H1", f"{year}-H2", year):
            if set(Period.parse(text).months) <= set(months):
                periods.append(text)
    compared = wrong = 0
    with database.engine.connect() as connection:
        for text in periods:
            period = Period.parse(text)
            book = Book(connection, period, directory)
            own = simulated.by_hand(path, list(period.months))
            tables = [(own, {row.agency: row for row in book.rows()})]
            if period.kind == "month" and int(text[-2:]) % 3 == 0:  # event by event in Python: a third of them
                wide = simulated.rolled_up_by_hand(path, province, list(period.months))
                tables.append((wide, {row.agency: row for row in book.rows(rollup=True)}))
            for expected, rows in tables:
                for agency in expected.keys() | rows.keys():
                    for figure in FIGURES:
                        if agency in expected and figure.key not in expected[agency]:
                            continue
                        told = expected.get(agency, {}).get(figure.key, 0)
                        compared += 1
                        if (rows[agency].figures[figure.key] if agency in rows else 0) != told:
                            wrong += 1
                            print(f"  {text} {agency} {figure.key}: {rows[agency].figures[figure.key]}, by hand {told}")
    database.close()
    return compared, wrong


def publish(folder: Path, *period: str) -> tuple[float, float, float, dict]:
    """Wall seconds, CPU seconds and peak memory (MB) of `congvan report publish` as a user starts it."""

    def confine() -> None:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
        resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTE, GIGABYTE))

    words = [sys.executable, "-m", "gateway.cli", "report", "publish", *period, "--json"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*words, "--config", str(folder / "config")], stdout=subprocess.PIPE, text=True, preexec_fn=confine
    )
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"publish ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, json.loads(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agencies", type=int, default=300)
    parser.add_argument("--events", type=int, default=2_110_000, help="a twentieth are duplicates")
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--growth", action="store_true", help="also at an eighth and a half of the size")
    asked = parser.parse_args()
    months = simulated.months("2024-12", asked.months)
    print(f"seed {asked.seed}; load {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    sizes = [8, 2, 1] if asked.growth else [1]
    for part in sizes:
        agencies, events = max(40, asked.agencies // part), asked.events // part
        with tempfile.TemporaryDirectory(prefix="congvan-province-") as made:
            folder = Path(made)
            began = time.monotonic()
            number = prepare(folder, agencies, months, events, asked.seed)
            size = (folder / "data" / "gateway.db").stat().st_size >> 20
            seconds = time.monotonic() - began
            print(f"{agencies} agencies, {len(months)} months, {number:,} events, {size} MB (made in {seconds:.0f} s)")
            if part == 1:
                began = time.process_time()
                compared, wrong = compare(folder, months, agencies)
                seconds = time.process_time() - began
                print(f"  {compared:,} numbers against plain SQL: {wrong} differ ({seconds:.0f} CPU s)")
            for words in (("--month", months[-1]), ("--half", f"{months[-1][:4]}-H1"), ("--year", months[12][:4])):
                wall, cpu, memory, told = publish(folder, *words)
                files = sum(path.is_file() for path in Path(told["folder"]).rglob("*"))
                print(
                    f"  publish {words[1]}: {wall:.1f} s, {cpu:.1f} CPU s, {memory:.0f} MB, {files} files"
                    f" (load {os.getloadavg()[0]:.1f})"
                )
            if part == 1 and wrong:
                sys.exit(1)


if __name__ == "__main__":
    main()
