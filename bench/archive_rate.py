"""How fast messages are archived, against what the same disk and the same SQLite can do at all, in the same run.

    python bench/archive_rate.py [--messages 1000] [--size 4096] [--folder DIR] [--json]

Prints messages a second and own CPU milliseconds a message for 1 and for 50 tasks that commit at the same time, with
messages plain, compressed (the default) and encrypted; the raw limits: file + fsync + rename + directory fsync, and
SQLite rows with one fsync each and fifty together; and how many rounds of the store and commits there were: each is one
group of fsyncs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from gateway import database as db
from gateway.archive import Archive
from gateway.blobfile import ENCRYPTED, GZIP, PLAIN, Keyring
from gateway.store import Store
from tests.cases import SETTINGS, case, close, mail


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(count: int, work) -> dict[str, float]:
    start, before = time.perf_counter(), cpu()
    work()
    seconds, spent = time.perf_counter() - start, cpu() - before
    return {"per_second": round(count / seconds, 1), "cpu_ms": round(spent / count * 1000, 3)}


def files(folder: Path, count: int, size: int, threads: int) -> dict[str, float]:
    store = Store(folder)
    data = [mail(n, size) for n in range(count)]
    digests = [hashlib.sha256(one).hexdigest() for one in data]

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda n: store.put([data[n]], digests[n]), range(count)))

    return measured(count, work)


def rows(path: Path, count: int, together: int) -> dict[str, float]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB)")

    def work() -> None:
        for start in range(0, count, together):
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(start, min(count, start + together)):
                connection.execute("INSERT INTO t (a, b) VALUES (?, ?)", ("x" * 60, bytes(1500)))
            connection.execute("COMMIT")

    result = measured(count, work)
    connection.close()
    return result


def archive(folder: Path, count: int, size: int, tasks: int, kind: str = PLAIN) -> dict[str, float]:
    cases = [case(mail(n, size), number=n) for n in range(count)]
    groups = {"store": 0, "commit": 0}

    def counted(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any) -> Any:
            groups[name] += 1
            return fn(*words)

        return call

    async def whole() -> dict[str, float]:
        keyring = Keyring(folder / "keys" / "store", lambda: [bytes(32)])
        store = Store(folder / "blobs", kind=kind, keyring=keyring)
        opened = Archive(db.Database.open(db.sqlite_url(folder / "gateway.db")), store, SETTINGS)
        store.put_groups = counted("store", store.put_groups)  # type: ignore[method-assign]
        opened.database._commit = counted("commit", opened.database._commit)  # type: ignore[method-assign]
        left = iter(cases)

        async def sender() -> None:
            for one in left:
                await opened.commit(one)

        async def work() -> None:
            await asyncio.gather(*[sender() for _ in range(tasks)])

        start, before = time.perf_counter(), cpu()
        await work()
        seconds, spent = time.perf_counter() - start, cpu() - before
        await close(opened)
        return {"per_second": round(count / seconds, 1), "cpu_ms": round(spent / count * 1000, 3), **groups}

    return asyncio.run(whole())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    count, size = given.messages, given.size
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        results = {
            "file+fsync+rename+dir, 1 thread": files(folder / "f1", count, size, 1),
            "file+fsync+rename+dir, 8 threads": files(folder / "f8", count, size, 8),
            "SQLite row, each its fsync": rows(folder / "r1.db", count, 1),
            "SQLite rows, 50 an fsync": rows(folder / "r50.db", count, 50),
            "archive, 1 task": archive(folder / "a1", count, size, 1),
            "archive, 50 tasks": archive(folder / "a50", count, size, 50),
            "archive, 50 tasks, compressed": archive(folder / "z50", count, size, 50, GZIP),
            "archive, 50 tasks, encrypted": archive(folder / "e50", count, size, 50, ENCRYPTED),
        }
    if given.json:
        print(json.dumps({"messages": count, "size": size, "load": os.getloadavg()[0], "results": results}))
        return
    print(f"{count} messages of {size} bytes; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for title, one in results.items():
        print(f"{title:34} {one['per_second']:9.1f}/s {one['cpu_ms']:7.3f} ms CPU")
    for title, one in results.items():
        if "commit" in one:
            alone = "1 task" in title
            raw = results["file+fsync+rename+dir, 1 thread" if alone else "file+fsync+rename+dir, 8 threads"]
            sqlite = results["SQLite row, each its fsync" if alone else "SQLite rows, 50 an fsync"]
            print(
                f"{title}: {one['per_second'] / raw['per_second']:.2f} of the raw file rate, "
                f"{one['per_second'] / sqlite['per_second']:.2f} of SQLite's; {one['store']:.0f} rounds of the store "
                f"and {one['commit']:.0f} commits"
            )


if __name__ == "__main__":
    main()
