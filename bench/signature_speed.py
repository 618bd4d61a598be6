"""Time per signed PDF in a warm process, against poppler's `pdfsig` in the same run; and bounds for large files.

    python bench/signature_speed.py [--rounds N]

Files are made at run time: about 200 KB with one and with two signatures, and a hundred pages with sixteen. `cold` is
a new trust store for every file (paths validated anew), `warm` is a worker that has seen the signers before. pdfsig is
a new process for every file, as it is used; the time it takes to start and do nothing is given too. Each time is a
pair: median of wall time, mean of processor time.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gateway.demo import documents
from gateway.demo.documents import Paper
from gateway.demo.pki import Pki
from gateway.inspection.signature import check
from gateway.inspection.trust import TrustStore


def median_ms(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median of wall time, and mean of processor time of this process and its children, in milliseconds."""
    times, before = [], sum(os.times()[:4])
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(times), 2), round((sum(os.times()[:4]) - before) / rounds * 1000, 2)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=40)
    rounds = arguments.parse_args().rounds
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    pki = Pki.create(now)
    paper = Paper("SỞ NỘI VỤ", "15/TB-SNV", now.date(), "Về việc đo thời gian", "THÔNG BÁO", "UBND TỈNH DEMO")
    plain = documents.pdf(paper, noise=140_000)
    files = {"200 KB, 1 signature": documents.sign(plain, pki.department, pki)}
    files["200 KB, 2 signatures"] = documents.sign(
        documents.sign(documents.pdf(paper, noise=115_000), pki.leader, pki), pki.department, pki, field="B"
    )
    many = documents.pdf(paper, pages=100, noise=1_000_000)
    for number in range(16):
        box = (100 + 20 * (number % 8), 60, 118 + 20 * (number % 8), 85)
        many = documents.sign(many, pki.department, pki, field=f"ChuKy{number}", box=box, page=number)
    files["100 pages, 16 signatures"] = many
    with tempfile.TemporaryDirectory() as folder:
        pki.write_trust(Path(folder) / "trust")
        store = TrustStore.load(Path(folder) / "trust")
        tool = shutil.which("pdfsig")
        for name, data in files.items():
            found = check(data, store, now)
            assert found.signatures and all(one.state.value == "VALID" for one in found.signatures), found
            path = Path(folder) / "file.pdf"
            path.write_bytes(data)
            count = max(5, rounds // 4) if len(found.signatures) > 2 else rounds

            def cold(data: bytes = data) -> None:
                check(data, TrustStore(store.roots, store.intermediates, store.crls), now)

            row = {
                "file": name,
                "bytes": len(data),
                "signatures": len(found.signatures),
                "warm_ms": median_ms(lambda data=data: check(data, store, now), count),
                "cold_ms": median_ms(cold, max(5, count // 4)),
            }
            if tool:
                command = [tool, str(path)]
                row["pdfsig_ms"] = median_ms(lambda c=command: subprocess.run(c, capture_output=True), count)
                idle = [tool, "-v"]
                row["pdfsig_start_ms"] = median_ms(lambda c=idle: subprocess.run(c, capture_output=True), count)
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
