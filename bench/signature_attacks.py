"""Attacks on signatures, counted: our own corpus, random bit flips, and folders of other people's files.

    python bench/signature_attacks.py [--flips N] [--seed S] [--genuine DIR] [--hostile DIR] [--trust DIR]

Own corpus and flips need nothing. `--genuine` and `--hostile` take folders of PDFs that are measured and never kept:
the chain that a file carries is its trust unless `--trust` names a directory. In a genuine file nothing may be called
TAMPERED, and none of its tamperings (a flipped byte, an overlay appended) may be believed. Prints one JSON object a
line; exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import json
import random
import re
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gateway.inspection import cms
from gateway.inspection.signature import SignatureFacts, check
from gateway.inspection.trust import Trusted, TrustStore
from tests import signed_files as files


def believed(facts: SignatureFacts) -> bool:
    return any(one.state.value in ("VALID", "VALID_UNTIMESTAMPED", "UNKNOWN_REVOCATION") for one in facts.signatures)


def own_trust(data: bytes) -> TrustStore:
    """Trust in the topmost certificates that a file carries, so that only its integrity is judged."""
    found: dict[bytes, x509.Certificate] = {}
    for match in re.finditer(rb"/Contents\s*<([0-9A-Fa-f\s]{200,})>", data):
        try:
            signed = cms.parse(bytes.fromhex(match[1].decode()))
            certificates = list(signed.certificates)
            for values in signed.signer.unsigned.get(cms.TIME_STAMP_TOKEN, []):
                certificates += cms.timestamp(values[0].raw).certificates
        except (cms.BadCms, ValueError):
            continue
        found.update({one.fingerprint(hashes.SHA256()): one for one in certificates})
    subjects = {one.subject.public_bytes() for one in found.values()}
    roots, others = [], []
    for mark, one in found.items():
        top = one.issuer == one.subject or one.issuer.public_bytes() not in subjects
        (roots if top else others).append(Trusted("", "chuyen_dung" if top else "", one, mark.hex()))
    return TrustStore(roots, others)


def own_corpus(store: TrustStore) -> tuple[dict[str, object], bool]:
    missed = []
    for name, make in files.ATTACKS.items():
        facts = check(make(), store, files.NOW)
        first = replace(facts, signatures=facts.signatures[:1])  # the one attacked; a later one may be sound by itself
        if believed(first) or not (facts.signatures or facts.removed):
            missed.append(name)
    wrong = []
    for name, (make, count) in files.GENUINE.items():
        if [one.state.value for one in check(make(), store, files.NOW).signatures] != ["VALID"] * count:
            wrong.append(name)
    row = {
        "set": "own",
        "attacks": len(files.ATTACKS),
        "believed": missed,
        "genuine": len(files.GENUINE),
        "refused": wrong,
    }
    return row, not missed and not wrong


def flips(store: TrustStore, count: int, seed: int) -> tuple[dict[str, object], bool]:
    rng, counted = random.Random(seed), collections.Counter[str]()
    bases = [files.one(), files.two(), files.simple_pdf(files.simple())]
    bases[2] = files.documents.sign(bases[2], files.pki().department, files.pki())
    for number in range(count):
        data = bytearray(bases[number % len(bases)])
        _, first, second, _ = files.byte_range(bytes(data))
        place = rng.choice((rng.randrange(first), rng.randrange(second, len(data))))
        data[place] ^= 1 << rng.randrange(8)
        facts = check(bytes(data), store, files.NOW)
        if facts.signatures and facts.signatures[-1].state.value in (
            "VALID",
            "VALID_UNTIMESTAMPED",
            "UNKNOWN_REVOCATION",
        ):
            counted["believed"] += 1
        elif not facts.signatures and not facts.removed:
            counted["unsigned"] += 1
        else:
            counted["noticed"] += 1
    row = {"set": "flips", "seed": seed, **counted}
    return row, not counted["believed"] and not counted["unsigned"]


def folder(path: Path, genuine: bool, trust: Path | None, seed: int) -> tuple[dict[str, object], bool]:
    rng, counted, told = random.Random(seed), collections.Counter[str](), list[str]()
    now = dt.datetime.now(dt.UTC)
    for file in sorted(path.rglob("*.pdf")):
        data = file.read_bytes()
        store = TrustStore.load(trust) if trust else own_trust(data)
        facts = check(data, store, now)
        counted["files"] += 1
        counted.update(one.state.value for one in facts.signatures)
        if not genuine:
            if believed(facts):
                told.append(file.name)
            continue
        if facts.removed or any(one.state.value in ("TAMPERED", "ERROR") for one in facts.signatures):
            told.append(f"{file.name}: called broken")
        if not facts.signatures:
            continue
        for _ in range(5):
            damaged = bytearray(data)
            damaged[rng.randrange(64, len(data) // 2)] ^= 1 << rng.randrange(8)
            counted["flipped"] += 1
            if believed(check(bytes(damaged), store, now)):
                told.append(f"{file.name}: a flipped byte is believed")
        try:
            overlaid = overlay(data)
        except (StopIteration, IndexError):
            continue
        counted["overlaid"] += 1
        if believed(check(overlaid, store, now)):
            told.append(f"{file.name}: an overlay is believed")
    row = {"set": str(path.name), "genuine": genuine, **counted, "told": told}
    return row, not told or not genuine


def overlay(data: bytes) -> bytes:
    """The first page's content is replaced by an update."""
    from gateway.inspection.revisions import Document
    from gateway.inspection.updates import pages

    document = Document(data)
    reference, _ = next(pages(document.latest))
    fresh = files.size(data)
    page = b"<< /Type /Page /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << >> >>" % fresh
    root = document.latest.trailer["Root"]
    made = files.append(document.data, {reference.number: page, fresh: files.FALSE_TEXT}, root=b"%d 0 R" % root.number)
    return data[: document.shift] + made


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--flips", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--genuine", type=Path, action="append", default=[])
    arguments.add_argument("--hostile", type=Path, action="append", default=[])
    arguments.add_argument("--trust", type=Path)
    chosen = arguments.parse_args()
    store, good = files.store(), True
    work = [lambda: own_corpus(store), lambda: flips(store, chosen.flips, chosen.seed)]
    work += [lambda p=path: folder(p, True, chosen.trust, chosen.seed) for path in chosen.genuine]
    work += [lambda p=path: folder(p, False, chosen.trust, chosen.seed) for path in chosen.hostile]
    for one in work:
        row, fine = one()
        good = good and fine
        print(json.dumps(row, ensure_ascii=False), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
