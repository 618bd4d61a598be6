"""A process that takes numbers until it is told to stop or killed; what it prints was committed before.

    python -m tests.number_worker URL NAME SEED

Lines: `took SERIES NUMBER REQUEST`. Now and then it cancels a number it took, reserves a few, registers a paper
document, or asks again with a request of before, as a client does that did not hear the answer.
"""

from __future__ import annotations

import asyncio
import random
import sys

from gateway import numbers, registrar
from gateway.database import Database
from gateway.errors import Failure
from gateway.numbers import Series, Taken
from tests.books import ALLOCATE

AGENCY = "snv"
TB = Series(AGENCY, 2026, "TB")


async def work(url: str, name: str, seed: int) -> None:
    chance = random.Random(seed)
    database = Database.open(url, busy_seconds=60)
    asked: list[tuple[str, int]] = []
    for turn in range(1_000_000):
        request = f"{name}-{turn}"
        if asked and chance.random() < 0.1:
            request, known = chance.choice(asked)
        else:
            known = 0

        def take(connection, request=request):
            fields = {"abstract": "Về việc thử"}
            return registrar.allocate(connection, TB, notation="TB-SNV", fields=fields, who=name, request=request)

        try:
            number, _ = await database.write(take)
            assert known in (0, number), f"{request}: {known}, then {number}"
            print("took", "TB", number, request, flush=True)
            asked = [*asked, (request, number)][-20:]
            if chance.random() < 0.05:
                await database.write(lambda c, n=number: registrar.cancel(c, TB, n, who=name, reason="thử"))
            if chance.random() < 0.05:
                values = {"abstract": "Đơn", "arrival_date": "2026-11-20"}
                key = await database.write(
                    lambda c, values=values: registrar.add_paper(c, AGENCY, "in", values, who=name, settings=ALLOCATE)
                )
                print("took", "in", key, "-", flush=True)
            if chance.random() < 0.02:
                first = await database.read(lambda c: numbers.preview(c, TB)) + chance.randint(0, 5)
                await database.write(
                    lambda c, first=first: registrar.reserve(c, TB, first, first + 2, who=name, reason="thử")
                )
        except Taken:
            continue  # somebody else was quicker with the range, or cancelled it
        except Failure as failure:
            if not failure.retryable:
                raise
            await asyncio.sleep(0)  # the database was busy for a minute: look again


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
