"""A6: random sequences of requests, some at the same moment; does the witness ever sign two histories?

    ./run measure witness_sequences --sequences 10000 --seed 1

Each sequence is a log of its own with two histories that part at leaf 20: eight requests with right, stale, replayed,
forked or too large old sizes, proofs for other sizes, wrong keys; one in four goes out from three threads at once. A
cosignature is wrong when the trees that were signed do not all lie on one history, or when a smaller one was signed
after a larger.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from gateway import hashtree as ht
from tests.outside import cv, cw

FORK, MOST = 20, 40


def trees() -> dict[tuple[bool, int], bytes]:
    found = {}
    for fork in (False, True):
        tree = cv.Tree()
        for n in range(MOST + 1):
            found[fork, n] = tree.root()
            tree.add(leaf(n, fork))
    return found


def leaf(n: int, fork: bool) -> bytes:
    return ht.leaf_hash(b"%d%s" % (n, b"x" if fork and n >= FORK else b""))


def node(fork: bool) -> ht.Node:
    return lambda level, index: ht.fold_pairs([leaf(n, fork) for n in range(index << level, (index + 1) << level)])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance, roots = random.Random(given.seed), trees()
    paths = {
        (fork, old, size): ht.consistency(old, size, node(fork))
        for fork in (False, True)
        for size in range(MOST + 1)
        for old in range(size + 1)
    }
    statuses: collections.Counter[int] = collections.Counter()
    wrong = signed_all = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        cw.make_keys(Path(name), "w.example")
        one = cw.Witness(Path(name))
        one.signers = one.signers[:1]  # Ed25519 alone: what is asked here is what is signed, not how
        for number in range(given.sequences):
            key = ht.Signer(f"log.example/{number}", b"k" * 32)
            (Path(name) / "logs").write_text(f"log {key.verifier}\n")
            signed: list[tuple[bool, int]] = []  # in the order in which the memory changed
            lock = threading.Lock()

            def post(fork: bool, old: int, size: int, of: int, signer: ht.Signer, signed=signed, lock=lock) -> None:
                note = signer.sign(ht.Checkpoint(signer.name, size, roots[fork, size]).body())
                text = ht.consistency_text(old, paths[fork, min(of, size), size], note)
                try:
                    one.add(text)
                except cw.Refused as refused:
                    status = refused.status
                else:
                    status = 200
                    with lock:
                        signed.append((fork, size))
                with lock:
                    statuses[status] += 1

            def any_request(known: int, key=key) -> tuple:
                size = chance.randint(known if chance.random() < 0.7 else 0, MOST)
                old = known if chance.random() < 0.7 else chance.randint(0, MOST)
                of = old if chance.random() < 0.9 else chance.randint(0, MOST)
                signer = key if chance.random() < 0.95 else ht.Signer(key.name, b"s" * 32)
                return chance.random() < 0.4, old, size, of, signer

            for _ in range(8):
                known = max((size for _, size in signed), default=0)
                if chance.random() < 0.25:
                    before = len(signed)
                    threads = [threading.Thread(target=post, args=any_request(known)) for _ in range(3)]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                    signed[before:] = sorted(signed[before:], key=lambda tree: tree[1])  # nobody saw their order
                else:
                    post(*any_request(known))
            signed_all += len(signed)
            forks = {fork for fork, size in signed if size > FORK}
            sizes = [size for _, size in signed]
            memory = one.newest(hashlib.sha256(key.name.encode()).hexdigest())
            if len(forks) > 1 or sizes != sorted(sizes) or (sizes and int(memory.split("\n")[1]) != sizes[-1]):
                wrong += 1
                print(f"sequence {number}: {signed}", flush=True)
    took = time.monotonic() - start
    print(
        f"seed {given.seed}: {given.sequences} sequences, {sum(statuses.values())} requests {dict(statuses)}, "
        f"{signed_all} cosignatures in {took:.0f} s; wrong: {wrong}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
