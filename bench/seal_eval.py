"""Measure seal.look on synthetic scans of the evaluation family, and on real labelled pages if some are at hand.

    python bench/seal_eval.py --pages 2000                      # colour, 100 to 300 dpi
    python bench/seal_eval.py --pages 400 --mode grey           # must be UNDECIDABLE with the place shown
    python bench/seal_eval.py --pages 400 --mode bilevel        # must never be PRESENT
    python bench/seal_eval.py --real FOLDER --labels pages.tsv  # columns file, page, label

A page with a seal counts as found when its state is PRESENT and a found box agrees with the label; a page without one
is a false alarm when its state is PRESENT. UNDECIDABLE is counted apart: it goes to a person.
"""

from __future__ import annotations

import argparse
import collections
import csv
import math
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "scans"), str(HERE.parent)]

import generate  # noqa: E402
import numpy as np  # noqa: E402

from gateway.inspection import seal  # noqa: E402
from gateway.inspection.findings import SealState  # noqa: E402
from gateway.inspection.pages import open_pages  # noqa: E402


def bound(hits: int, of: int) -> str:
    """Share with its 95 % interval (Wilson)."""
    if not of:
        return "none"
    p, z = hits / of, 1.96
    middle = (p + z * z / 2 / of) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / 4 / of / of) / (1 + z * z / of)
    return f"{hits}/{of} = {p:.2%} ({max(middle - half, 0):.2%} to {min(middle + half, 1):.2%})"


def agrees(
    box: tuple[float, float, float, float], circle: tuple[float, float, float], size: tuple[float, float]
) -> bool:
    x, y = (box[0] + box[2]) / 2 * size[0], (box[1] + box[3]) / 2 * size[1]
    return float(np.hypot(x - circle[0], y - circle[1])) < 0.4 * circle[2]


def synthetic(given: argparse.Namespace) -> None:
    counts: collections.Counter[str] = collections.Counter()
    blamed: collections.Counter[str] = collections.Counter()
    hands: collections.Counter[str] = collections.Counter()
    rendering, looking = [], []
    kept: dict[str, list] = {"page": [], "ring": [], "views": [], "residuals": [], "seals": []}
    until = time.monotonic() + given.seconds
    for i in range(given.pages):
        if time.monotonic() > until:
            given.pages = i
            break
        wanted = "seal" if i % 2 else "none"
        scan = generate.page(given.seed + i, given.inks, given.mode, wanted=wanted)
        with open_pages(scan.pdf(), "pdf") as pages:
            started = time.process_time()
            pages.image(1, seal.DPI)
            middle = time.process_time()
            facts = seal.look(pages, wanted=(1,))
            looking.append(time.process_time() - middle)
            rendering.append(middle - started)
            size = pages.size_mm(1)
            if given.keep:
                flat = seal.flatten(pages.image(1, seal.DPI))
                for one in seal.candidates(flat, grey=given.mode != "colour"):
                    kept["page"].append(i)
                    kept["ring"].append((one.x / seal.PX_MM, one.y / seal.PX_MM, one.radius / seal.PX_MM))
                    kept["views"].append(one.view)
                    kept["residuals"].append(one.residual)
                kept["seals"].append(scan.truth.seals[0] if scan.truth.seals else (0.0, 0.0, 0.0))
                if i % 100 == 99:
                    np.savez(given.keep, **{name: np.array(value) for name, value in kept.items()})
        circles = scan.truth.seals if given.mode == "colour" else scan.truth.seals + scan.truth.rings
        boxed = any(agrees(one.box, circle, size) for one in facts.seals for circle in circles)
        state = facts.state
        if scan.truth.seals:
            counts["with"] += 1
            counts["found"] += state is SealState.PRESENT and boxed
            counts["with undecidable"] += state is SealState.UNDECIDABLE
            counts["with present"] += state is SealState.PRESENT
            counts["boxed"] += boxed
            if not (state is SealState.PRESENT and boxed):
                blamed[f"missed, ink {scan.truth.texture}"] += 1
            elif given.mode == "colour":
                hands[f"{scan.truth.hand} told {facts.handwritten}"] += 1
        else:
            counts["without"] += 1
            counts["false"] += state is SealState.PRESENT
            counts["without undecidable"] += state is SealState.UNDECIDABLE
            if state is SealState.PRESENT:
                blamed["false, with " + "+".join(sorted(scan.truth.negatives))] += 1
        wrong = (state is SealState.PRESENT) != bool(scan.truth.seals) or (scan.truth.seals and not boxed)
        if given.show and wrong and given.mode == "colour":
            print(
                given.seed + i, scan.dpi, scan.truth.texture, scan.truth.negatives, state.value, facts.seals, flush=True
            )
    n, m = counts["with"], counts["without"]
    print(f"{given.mode}, inks {given.inks}, seeds {given.seed} to {given.seed + given.pages - 1}")
    print(f"  found (PRESENT, right place): {bound(counts['found'], n)}")
    print(f"  pages with a seal told PRESENT: {bound(counts['with present'], n)}")
    print(f"  told UNDECIDABLE: with a seal {counts['with undecidable']}, without {counts['without undecidable']}")
    print(f"  place of a seal shown, whatever the state: {bound(counts['boxed'], n)}")
    print(f"  false alarms (PRESENT without a seal): {bound(counts['false'], m)}")
    if hands:
        right, told = (
            hands["True told True"],
            hands["True told True"] + hands["True told False"] + hands["True told None"],
        )
        print(f"  handwriting there and told: {bound(right, told)}")
        wrong, none = (
            hands["False told True"],
            hands["False told True"] + hands["False told False"] + hands["False told None"],
        )
        print(f"  no handwriting, but told: {bound(wrong, none)}; {dict(hands)}")
    print(
        f"  CPU a page: rendering {np.mean(rendering) * 1000:.0f} ms, looking {np.mean(looking) * 1000:.0f} ms, "
        f"together median {np.median(np.add(rendering, looking)) * 1000:.0f} ms, "
        f"95 % below {np.percentile(np.add(rendering, looking), 95) * 1000:.0f} ms"
    )
    for what, times in blamed.most_common(20):
        print(f"    {times} {what}")


def real(folder: Path, labels: Path) -> None:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    spent = []
    with labels.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            with open_pages((folder / row["file"]).read_bytes(), "pdf") as pages:
                started = time.process_time()
                facts = seal.look(pages, wanted=(int(row["page"]),))
                spent.append(time.process_time() - started)
            kind = "scan" if facts.scan else "born digital"
            counts[f"{row['label']} ({kind})", facts.state.value] += 1
            if row["label"] == "seal":
                counts["handwriting on pages with a seal", str(facts.handwritten)] += 1
    for (label, state), times in sorted(counts.items()):
        print(f"  {label}: {state} {times}")
    print(f"  CPU a page with rendering: mean {np.mean(spent) * 1000:.0f} ms, median {np.median(spent) * 1000:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after that time; what was seen counts")
    parser.add_argument("--seed", type=int, default=80_000_000)
    parser.add_argument("--mode", default="colour", choices=("colour", "grey", "bilevel"))
    parser.add_argument("--inks", default="evaluation", choices=("evaluation", "tuning", "development", "mixed"))
    parser.add_argument("--show", action="store_true", help="name the pages that went wrong")
    parser.add_argument("--keep", type=Path, help="keep views of all rings in this .npz, to score other weights")
    parser.add_argument("--real", type=Path, help="folder of PDF files")
    parser.add_argument("--labels", type=Path)
    given = parser.parse_args()
    if given.real:
        real(given.real, given.labels)
    else:
        synthetic(given)


if __name__ == "__main__":
    main()
