"""Registers of a year: how long making, listing, printing and checking them takes, and what the memory is.

    ./run measure register_scale --documents 20000

Official documents of one department to twelve agencies, in an SQLite archive without registers; then `rebuild`,
`list`, the exports and `rebuild --check`. Also what an entry adds to the CPU of a commit.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime as dt
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway import archive as archiving
from gateway import books, register, registrar
from gateway import database as db
from gateway.books import Title
from gateway.config import Registers
from tests.books import ALLOCATE, follow, message, paper
from tests.cases import AT, close, open_archive

PROPOSE = Registers()


def fill(connection: Any, first: int, number: int) -> None:
    """Rows as a commit writes them, without the bytes, so that a year does not take an hour."""
    messages, recipients, attachments = [], [], []
    for n in range(first, first + number):
        file = paper(f"{n % 4000 + 1}/TB-SNV", content=str(n), cites=(f"{n % 4000}/TB-SNV",))
        at = AT - dt.timedelta(minutes=5 * n)
        case = message(n, file, at=at, to={f"vanthu@a{n % 12}.tinh.gov.vn": f"a{n % 12}"})
        received = dataclasses.replace(case.received, case=archiving.new_case(at.timestamp()))
        case = dataclasses.replace(case, received=received)
        row = archiving._row(case, archiving._record(case))
        messages.append(row)
        recipients.append(
            {"message": row["id"], "address": case.owed[0].address, "agency": case.owed[0].agency, "verdict": "deliver"}
            | {"state": "delivered"}
        )
        attachments.append({"message": row["id"], "path": file.path, "sha256": file.sha256, "size": 1, "type": "pdf"})
    db.insert(connection, db.message, messages)
    db.insert(connection, db.recipient, recipients)
    db.insert(connection, db.attachment, attachments)


async def measure(folder: Path, documents: int) -> None:
    archive = open_archive(folder)
    read, write = archive.database.read, archive.database.write
    try:
        for first in range(0, documents, 1000):
            number = min(1000, documents - first)
            await write(lambda c, first=first, number=number: fill(c, first, number))
        begin = time.monotonic()
        await registrar.rebuild(archive.database, PROPOSE)
        took = time.monotonic() - begin
        print(f"rebuild: {documents} documents, {2 * documents} entries, {took:.1f} s, {documents / took:.0f}/s")

        async def timed(name: str, work: Callable[[], Any]) -> Any:
            cpu = time.process_time()
            found = await work()
            print(f"{name}: {time.process_time() - cpu:.2f} CPU s")
            return found

        def query(**more: Any) -> Any:
            return lambda: read(lambda c: register.entries(c, register.Query(**more), PROPOSE))

        rows = await timed("list of the outgoing register", query(agency="snv", direction="out"))
        print(f"    {len(rows)} entries")
        await timed("list of an incoming register", query(agency="a1", direction="in"))
        await timed("list by words", query(agency="snv", text="van ban 17/tb"))
        await timed("one entry", lambda: read(lambda c: register.entry(c, rows[0]["id"], PROPOSE)))

        async def export(make: Callable[[Any], Any]) -> int:
            out = io.BytesIO()
            make(out)
            return len(out.getvalue())

        title = Title("Sở Nội vụ", "", "out", 2026)
        await timed("pdf", lambda: export(lambda out: books.pdf_file(rows, title, out)))
        await timed("xlsx", lambda: export(lambda out: books.xlsx_file(rows, "out", title, out)))
        await timed("csv", lambda: export(lambda out: out.write(books.csv_file(rows, "out"))))
        await timed("rebuild --check", lambda: read(lambda c: registrar.check(c, PROPOSE)))
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
        await commits(archive)
    finally:
        await close(archive)


async def commits(archive: Any) -> None:
    """CPU of a commit with and without entries, in turns, so that the machine's mood is the same for both."""
    spent = {True: 0.0, False: 0.0}
    for turn in range(200):
        with_entries = turn % 2 == 0
        follow(archive, ALLOCATE)
        if not with_entries:
            archive.follower = None
        case = message(10_000_000 + turn, paper(f"{turn + 1}/QĐ-SNV"))
        cpu = time.process_time()
        await archive.commit(case)
        spent[with_entries] += time.process_time() - cpu
    print(f"commit: {spent[False] * 10:.2f} CPU ms without entries, {spent[True] * 10:.2f} ms with two")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=20_000)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), words.documents))


if __name__ == "__main__":
    main()
