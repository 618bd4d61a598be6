"""A8: how fast the separate verifier reads log and messages, beside SHA-256 alone over the same bytes in the same run.

./run measure audit_speed --leaves 100000 --megabytes 200
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from gateway import hashtree as ht
from gateway.archive import canonical
from gateway.treelog import TreeLog
from tests.outside import cv

PIECE = 100 << 10  # bytes of a message


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--leaves", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        messages = given.megabytes * (1 << 20) // PIECE
        digests = []
        for _ in range(messages):
            data = os.urandom(1000) * (PIECE // 1000)
            digests.append(hashlib.sha256(data).hexdigest())
            path = folder / "blobs" / "sha256" / digests[-1][:2] / f"{digests[-1]}.eml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        log = TreeLog(folder, "mail.tinh.gov.vn/archive")
        log.signer()
        for start in range(0, given.leaves, 4096):
            entries = []
            for n in range(start, min(given.leaves, start + 4096)):
                told = {
                    "v": 1,
                    "seq": n,
                    "t": "2026-11-20T08:30:00.000+07:00",
                    "type": "message" if n < messages else "delivery",
                    "case": f"06H06SEP1JZ{n:06}",
                    "recipients": [["ubnd@tinh.gov.vn", "deliver"]],
                    "sender": "van.thu@so-tttt.tinh.gov.vn",
                    "record": hashlib.sha256(b"%d" % n).hexdigest(),
                    "trace": hashlib.sha256(b"t%d" % n).hexdigest(),
                }
                if n < messages:
                    told["sha256"] = digests[n]
                entries.append(canonical(told))
            log.extend(start, entries)
        note = log.sign(given.leaves, log.root(given.leaves), "2026-11-20T08:30:00.000+07:00")
        log.publish(note)
        look = cv.Audit(folder, cv.Policy([cv.Key(str(log.verifier()))]))
        cpu, clock = time.process_time(), time.monotonic()
        look.tree([])
        tree_cpu, tree_clock = time.process_time() - cpu, time.monotonic() - clock
        cpu = time.process_time()
        read = look.bytes(None, None)
        bytes_cpu = time.process_time() - cpu
        assert not look.damage and read == messages, look.damage[:3]
        cpu = time.process_time()
        for path in sorted((folder / "blobs").rglob("*.eml")):
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
        raw_cpu = time.process_time() - cpu
        hashes = [ht.leaf_hash(b"%d" % n) for n in range(2)]
        cpu = time.process_time()
        for _ in range(given.leaves * 2):
            ht.node_hash(hashes[0], hashes[1])
        hash_cpu = time.process_time() - cpu
        size = sum(path.stat().st_size for path in (folder / "log").rglob("*") if path.is_file())
        print(
            json.dumps(
                {
                    "leaves": given.leaves,
                    "leaves_a_cpu_second": round(given.leaves / tree_cpu),
                    "tree_clock_s": round(tree_clock, 1),
                    "tree_cpu_to_its_hashes": round(tree_cpu / hash_cpu, 1),
                    "messages_mb_a_cpu_second": round(read * PIECE / 1e6 / bytes_cpu),
                    "messages_cpu_to_sha256_alone": round(bytes_cpu / raw_cpu, 2),
                    "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
                    "log_bytes_a_leaf": round(size / given.leaves),
                }
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
