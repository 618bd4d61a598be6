"""Train the ring classifier of gateway/inspection/seal.py on synthetic scans ("tuning" and "development" inks).

    python bench/seal_train.py --pages 2400 --more 800 --grey 160 --seed 2 --write

Every candidate ring that `seal.candidates` proposes is an example: a seal when its circle agrees with a label, else
not. Network and optimiser (Adam) are plain numpy; everything follows from --seed. The evaluation set (seal_eval.py)
has other seeds and other ink textures and is never read here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "scans"), str(HERE.parent)]

import generate  # noqa: E402

from gateway.inspection import seal  # noqa: E402
from gateway.inspection.pages import flatten, open_pages  # noqa: E402

#: From THRESHOLD a ring is a seal; from DOUBT on a person should look. Chosen on held-out training pages.
THRESHOLD, DOUBT = 0.6, 0.35
BLOCK = 100  # pages kept in one file of --keep
WEIGHTS = HERE.parent / "gateway" / "inspection" / "weights" / "seal.json"


def agrees(x: float, y: float, r: float, circle: tuple[float, float, float]) -> bool:
    """Whether a found circle (mm) is the labelled one: centres within a quarter of the radius, radii within 18 %."""
    return float(np.hypot(x - circle[0], y - circle[1])) < 0.25 * circle[2] and abs(r - circle[2]) < 0.18 * circle[2]


def examples(seeds: range, mode: str, inks: str = "tuning") -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Features, labels, page numbers, and the share of seals for which a candidate was proposed at all."""
    features, labels, pages = [], [], []
    labelled = proposed = 0
    for seed in seeds:
        dpi = None if seed % 4 == 0 else (100, 120, 150)[seed % 3]  # coarse pages are quicker to draw, and harder
        wanted = ("seal", "seal", "none", "none" if inks == "tuning" else "crowded", "any")[seed % 5]
        scan = generate.page(seed, inks, mode, dpi, wanted)
        data, kind = (
            (cv2.imencode(".png", scan.image)[1].tobytes(), "png") if mode == "bilevel" else (scan.jpeg(), "jpg")
        )
        with open_pages(data, kind) as opened:
            # The PNG of a bilevel page carries no resolution; A4 is assumed, and right.
            flat = flatten(opened.image(1, seal.DPI))
        found = seal.candidates(flat, grey=mode != "colour")
        circles = scan.truth.seals + (scan.truth.rings if mode != "colour" else [])
        labelled += len(circles)
        hit = set()
        for one in found:
            place = one.x / seal.PX_MM, one.y / seal.PX_MM, one.radius / seal.PX_MM
            good = [i for i, circle in enumerate(circles) if agrees(*place, circle)]
            # Neither one nor the other: the second ring of a seal, or a seal met askew.
            near = any(np.hypot(place[0] - c[0], place[1] - c[1]) < 0.5 * c[2] for c in circles)
            if not good and near and abs(place[2] - circles[0][2]) < 0.3 * circles[0][2]:
                continue
            hit.update(good)
            features.append(one.features)
            labels.append(1.0 if good else 0.0)
            pages.append(seed)
        proposed += len(hit)
    return np.array(features), np.array(labels), np.array(pages), proposed / max(labelled, 1)


def train(x: np.ndarray, y: np.ndarray, hidden: int, seed: int, epochs: int = 60) -> dict[str, list]:
    """One hidden layer of tanh, logistic loss, weight decay, dropped and noisy inputs, Adam."""
    random = np.random.default_rng(seed)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-3
    z = np.clip((x - mean) / spread, -6, 6).astype(np.float32)
    inputs = z.shape[1]
    shapes = [(hidden, inputs), (hidden,), (hidden,), (1,)]
    parameters = [
        (random.standard_normal(s) / np.sqrt(s[-1]) * (len(s) == 2 or i == 2)).astype(np.float32)
        for i, s in enumerate(shapes)
    ]
    first, second = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters]
    step = 0
    for epoch in range(epochs):
        rate = 4e-3 * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        order = random.permutation(len(y))
        for start in range(0, len(y), 256):
            pick = order[start : start + 256]
            w1, b1, w2, b2 = parameters
            batch = z[pick] + random.normal(0, 0.08, (len(pick), inputs)).astype(np.float32)
            batch *= (random.random(batch.shape) > 0.1) / np.float32(0.9)  # no feature may carry a verdict alone
            inner = np.tanh(batch @ w1.T + b1)
            p = 1 / (1 + np.exp(-(inner @ w2 + b2[0])))
            d = ((p - (0.98 * y[pick] + 0.01)) / len(pick)).astype(np.float32)
            back = np.outer(d, w2) * (1 - inner**2)
            gradients = [back.T @ batch + 3e-4 * w1, back.sum(axis=0), inner.T @ d + 1.5e-4 * w2, np.array([d.sum()])]
            step += 1
            for i, g in enumerate(gradients):
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g * g
                move = (first[i] / (1 - 0.9**step)) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
                parameters[i] = (parameters[i] - rate * move).astype(np.float32)
    w1, b1, w2, b2 = parameters
    return {
        "mean": np.round(mean.astype(float), 5).tolist(),
        "spread": np.round(spread.astype(float), 5).tolist(),
        "w1": np.round(w1.astype(float), 4).tolist(),
        "b1": np.round(b1.astype(float), 4).tolist(),
        "w2": np.round(w2.astype(float), 4).tolist(),
        "b2": round(float(b2[0]), 4),
        "threshold": THRESHOLD,
        "doubt": DOUBT,
    }


def report(name: str, network: seal._Network, x: np.ndarray, y: np.ndarray, pages: np.ndarray) -> None:
    scores = np.array([network.score(row) for row in x])
    for at in (0.3, 0.5, 0.7, 0.9):
        found = len(set(pages[(scores >= at) & (y > 0.5)])) / max(len(set(pages[y > 0.5])), 1)
        false = len(set(pages[(scores >= at) & (y < 0.5)])) / max(len(set(pages)), 1)
        print(f"{name}: threshold {at}: pages with seal found {found:.2%}, pages with a false ring {false:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=2400, help="colour pages with tuning inks")
    parser.add_argument("--more", type=int, default=800, help="colour pages with development inks, crowded negatives")
    parser.add_argument("--grey", type=int, default=160, help="grey and one-bit pages, half of each")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--keep", type=Path, help="folder for features, so that a second training need not draw again")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    out: dict[str, object] = {
        "made": f"bench/seal_train.py --pages {given.pages} --more {given.more} --grey {given.grey} "
        f"--seed {given.seed} --hidden {given.hidden}; synthetic scans, tuning and development inks"
    }
    first = given.seed * 1_000_000
    half = given.grey // 2
    plan = {
        "colour": (("colour", "tuning", first, given.pages), ("colour", "development", first + 500_000, given.more)),
        "grey": (("grey", "tuning", first, half), ("bilevel", "tuning", first, half)),
    }
    for name, sets in plan.items():
        parts = []
        for mode, inks, start, count in sets:
            for block in range(start, start + count, BLOCK):
                pages = range(block, min(block + BLOCK, start + count))
                cache = given.keep / f"{mode}-{inks}-{pages.start}-{len(pages)}.npz" if given.keep else None
                if cache and cache.exists():
                    data = np.load(cache)
                    part = (data["x"], data["y"], data["p"], float(data["s"]))
                else:
                    part = examples(pages, mode, inks)
                    if cache:
                        np.savez(cache, x=part[0], y=part[1], p=part[2], s=part[3])
                rings = f"{len(part[1])} rings, {int(part[1].sum())} seals, proposed {part[3]:.2%}"
                print(f"{mode}, {inks}, from {block}: {rings}", flush=True)
                parts.append(part)
        x, y, p = (np.concatenate([part[i] for part in parts]) for i in range(3))
        held = p % 10 >= 8
        trial = train(x[~held], y[~held], given.hidden, given.seed)
        report(f"{name}, held out", seal._Network(trial), x[held], y[held], p[held])
        out[name] = train(x, y, given.hidden, given.seed)
    if given.write:
        WEIGHTS.write_text(json.dumps(out, separators=(",", ":")) + "\n", encoding="utf-8")
        print("written", WEIGHTS, WEIGHTS.stat().st_size)


if __name__ == "__main__":
    main()
