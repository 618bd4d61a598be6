"""Measure frames.marks on synthetic scans of the evaluation family.

    python bench/frames_eval.py --pages 600

Half of the pages bear a mark, half none but the other hard negatives. A mark counts as found when kind and value are
right; `review` when the frame was seen but not read (red_box), `misread` when another mark was read in it. All
three stop the message or bring it before a person.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "scans"), str(HERE.parent)]

import generate  # noqa: E402

from gateway.inspection import frames  # noqa: E402
from gateway.inspection.pages import open_pages  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after that time; what was seen counts")
    parser.add_argument("--seed", type=int, default=90_000_000)
    parser.add_argument("--inks", default="evaluation")
    parser.add_argument("--mode", default="colour")
    parser.add_argument("--show", action="store_true", help="name the pages that went wrong")
    given = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    spent = 0.0
    until = time.monotonic() + given.seconds
    for i in range(given.pages):
        if time.monotonic() > until:
            given.pages = i
            break
        wanted = "frame" if i % 2 else "frameless"
        scan = generate.page(given.seed + i, given.inks, given.mode, wanted=wanted)
        with open_pages(scan.pdf(), "pdf") as pages:
            started = time.process_time()
            found = frames.marks(pages)
            spent += time.process_time() - started
        got = {(f.kind, f.value) for f in found}
        truth = {(kind, value) for kind, value, *_ in scan.truth.frames}
        if truth:
            counts["marked"] += 1
            if truth <= got:
                counts["found"] += 1
            elif ("frame", "red_box") in got:
                counts["review"] += 1
            elif {k for k, _ in got} & {k for k, _ in truth}:
                counts["misread"] += 1  # another degree
            else:
                counts["missed"] += 1
            if got - truth - {("frame", "red_box")}:
                counts["wrong beside"] += 1
        else:
            counts["unmarked"] += 1
            counts["false mark"] += bool(got - {("frame", "red_box")})
            counts["false review"] += got == {("frame", "red_box")}
        if given.show and ((truth and not truth <= got) or (not truth and got)):
            print(given.seed + i, scan.dpi, sorted(truth), sorted(got), scan.truth.negatives, flush=True)
    marked, unmarked = max(counts["marked"], 1), max(counts["unmarked"], 1)
    print(dict(counts))
    print(
        f"{given.mode}: found {counts['found'] / marked:.2%}, "
        f"with review and misread {(marked - counts['missed']) / marked:.2%}; "
        f"false marks {counts['false mark'] / unmarked:.2%}, false reviews {counts['false review'] / unmarked:.2%}; "
        f"{spent / given.pages * 1000:.0f} ms CPU a page with rendering"
    )


if __name__ == "__main__":
    main()
