"""Train the ring classifier of gateway/inspection/seal.py on synthetic scans, one core, everything from --seed.

    python bench/seal_train.py --write

Every candidate ring that `seal.candidates` proposes is an example: a seal when its circle agrees with a label, else
not. Inks are "tuning", "development", and mixtures of both; the evaluation set (seal_eval.py) has other seeds and other
ink textures and is never read here. Network and optimiser (Adam) are plain numpy. So that another processor adds the
same numbers in the same order, the libraries are held to the instructions of AVX2: the weights' digest is printed, and
equals the one in docs/inspection-images.md as long as fonts and libraries are the same.
"""

from __future__ import annotations

import os
import sys

HELD = {
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
}
if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in HELD.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **HELD})

import argparse  # noqa: E402
import hashlib  # noqa: E402
import math  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "scans"), str(HERE.parent)]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # numpy names features that this processor does not have anyway
    import cv2
    import numpy as np

import generate  # noqa: E402

from gateway.inspection import seal  # noqa: E402
from gateway.inspection.pages import flatten, open_pages  # noqa: E402

#: From THRESHOLD a ring is a seal; from DOUBT on a person should look. Chosen on held-out training pages.
THRESHOLD, DOUBT = 0.6, 0.3
BLOCK = 100  # pages kept in one file of --keep
WEIGHTS = HERE.parent / "gateway" / "inspection" / "weights" / "seal.npz"
SIZES = (16, 32, 48, 48)  # planes after each convolution, hidden units
EPOCHS = {"colour": 12, "grey": 5}
#: (mode, inks, share of the pages)
PLAN = {
    "colour": (("colour", "tuning", 0.375), ("colour", "development", 0.375), ("colour", "mixed", 0.25)),
    "grey": (("grey", "tuning", 2 / 7), ("grey", "mixed", 3 / 7), ("bilevel", "tuning", 2 / 7)),
}


@dataclass
class Rings:
    """Examples. page: seed of the page; proposed: seals for which there was a ring; labelled: seals."""

    views: np.ndarray
    radii: np.ndarray
    residuals: np.ndarray
    labels: np.ndarray
    pages: np.ndarray
    proposed: int
    labelled: int

    def pick(self, which: np.ndarray) -> Rings:
        return Rings(*(a[which] for a in (self.views, self.radii, self.residuals, self.labels, self.pages)), 0, 0)


def agrees(x: float, y: float, r: float, circle: tuple[float, float, float]) -> bool:
    """Whether a found circle (mm) is the labelled one: centres within a quarter of the radius, radii within 18 %."""
    return float(np.hypot(x - circle[0], y - circle[1])) < 0.25 * circle[2] and abs(r - circle[2]) < 0.18 * circle[2]


def examples(seeds: range, mode: str, inks: str) -> Rings:
    """The rings of some pages."""
    rings, labels, pages = [], [], []
    labelled = proposed = 0
    for seed in seeds:
        dpi = None if seed % 4 == 0 else (100, 120, 150)[seed % 3]  # coarse pages are quicker to draw, and harder
        wanted = ("seal", "seal", "none", "crowded", "any", "seal crowded", "crowded")[seed % 7]
        scan = generate.page(seed, inks, mode, dpi, wanted)
        data, kind = (
            (cv2.imencode(".png", scan.image)[1].tobytes(), "png") if mode == "bilevel" else (scan.jpeg(), "jpg")
        )
        with open_pages(data, kind) as opened:
            # The PNG of a bilevel page carries no resolution; A4 is assumed, and right.
            flat = flatten(opened.image(1, seal.DPI))
        circles = scan.truth.seals + (scan.truth.rings if mode != "colour" else [])
        labelled += len(circles)
        hit = set()
        for one in seal.candidates(flat, grey=mode != "colour"):
            place = one.x / seal.PX_MM, one.y / seal.PX_MM, one.radius / seal.PX_MM
            good = [i for i, circle in enumerate(circles) if agrees(*place, circle)]
            # Neither one nor the other: the second ring of a seal, or a seal met askew.
            near = any(np.hypot(place[0] - c[0], place[1] - c[1]) < 0.5 * c[2] for c in circles)
            if not good and near and abs(place[2] - circles[0][2]) < 0.3 * circles[0][2]:
                continue
            hit.update(good)
            rings.append(one)
            labels.append(1.0 if good else 0.0)
            pages.append(seed)
        proposed += len(hit)
    views, radii, residuals = seal.stacked(rings)
    return Rings(views, radii, residuals, np.array(labels, np.float32), np.array(pages), proposed, labelled)


def joined(parts: list[Rings]) -> Rings:
    names = ("views", "radii", "residuals", "labels", "pages")
    arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return Rings(*arrays, sum(p.proposed for p in parts), sum(p.labelled for p in parts))


def varied(random: np.random.Generator, views: np.ndarray, grey: bool) -> np.ndarray:
    """Views as they might have been: turned, mirrored, with more or less ink, with ink missing in places, noisier."""
    n, rows, columns, _ = views.shape
    out = 255.0 - views.astype(np.float32)
    for i in range(n):
        out[i] = np.roll(out[i], int(random.integers(rows)), axis=0)
        if random.random() < 0.5:
            out[i] = out[i, ::-1]
        if random.random() < 0.3:  # patches without ink
            lumps = random.standard_normal((int(random.integers(4, 24)), int(random.integers(3, 12)))).astype(
                np.float32
            )
            lumps = cv2.resize(lumps, (columns, rows), interpolation=cv2.INTER_CUBIC)
            keep = np.where(lumps > random.uniform(-1.2, 0.3), 1.0, random.uniform(0.0, 0.5)).astype(np.float32)
            out[i] *= keep[:, :, None]
    tint = random.uniform(0.92, 1.08, (n, 1, 1, 1 if grey else 3))
    out *= (random.uniform(0.6, 1.3, (n, 1, 1, 1)) * tint).astype(np.float32)
    noise = random.standard_normal((n, rows, columns, 1 if grey else 3), dtype=np.float32)
    out += noise * random.uniform(0, 6, (n, 1, 1, 1)).astype(np.float32)
    return 255.0 - np.clip(out, 0, 255)


def gathered(d: np.ndarray, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """The reverse of seal.windows: gradients of pieces (n, r, c, size · size · k) added up on their planes."""
    half = size // 2
    n, rows, columns, k = shape
    wide = np.zeros((n, rows + 2 * half, columns + 2 * half, k), np.float32)
    d = d.reshape(n, rows // 2, columns // 2, size, size, k)
    for i in range(size):
        for j in range(size):
            wide[:, i : i + rows : 2, j : j + columns : 2] += d[:, :, :, i, j]
    wide[:, rows : rows + half] += wide[:, :half]
    wide[:, half : 2 * half] += wide[:, rows + half :]
    return wide[:, half : half + rows, half : half + columns]


def gradients(
    w: dict[str, np.ndarray], planes: np.ndarray, numbers: np.ndarray, labels: np.ndarray, drop: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    """Logistic loss of a batch and its gradient; drop: (n, hidden) factors of the hidden units."""
    x, kept = planes, []
    for i, size in enumerate(seal.KERNELS, 1):
        pieces = seal.windows(x, size)
        y = np.maximum(pieces @ w[f"c{i}"] + w[f"d{i}"], 0)
        kept.append((x.shape, pieces, y))
        x = y
    n = len(x)
    flat = np.concatenate([x.mean(axis=1).reshape(n, -1), x.max(axis=1).reshape(n, -1), numbers], axis=1)
    hidden = np.maximum(flat @ w["f1"] + w["g1"], 0) * drop
    p = 1 / (1 + np.exp(-(hidden @ w["f2"] + w["g2"])[:, 0]))
    soft = 0.98 * labels + 0.01
    loss = float(-(soft * np.log(p + 1e-7) + (1 - soft) * np.log(1 - p + 1e-7)).mean())
    d = ((p - soft) / n).astype(np.float32)[:, None]
    g = {"f2": hidden.T @ d, "g2": d.sum(axis=0)}
    d = (d @ w["f2"].T) * drop * (hidden > 0)
    g |= {"f1": flat.T @ d, "g1": d.sum(axis=0)}
    d = d @ w["f1"].T
    half = x.shape[2] * x.shape[3]
    spread = np.broadcast_to(d[:, :half].reshape(n, 1, *x.shape[2:]) / x.shape[1], x.shape).copy()
    where = x.argmax(axis=1)
    at = np.ogrid[:n, : x.shape[2], : x.shape[3]]
    spread[at[0], where, at[1], at[2]] += d[:, half : 2 * half].reshape(n, *x.shape[2:])
    for i, size in reversed(list(enumerate(seal.KERNELS, 1))):
        shape, pieces, y = kept[i - 1]
        d = (spread * (y > 0)).reshape(-1, y.shape[-1])
        g |= {f"c{i}": pieces.reshape(-1, pieces.shape[-1]).T @ d, f"d{i}": d.sum(axis=0)}
        if i > 1:
            spread = gathered(d @ w[f"c{i}"].T, size, shape)
    return loss, g


def train(rings: Rings, grey: bool, seed: int, epochs: int) -> dict[str, np.ndarray]:
    """Adam with a cosine rate, weight decay, varied examples, dropped hidden units."""
    random = np.random.default_rng(seed)
    w: dict[str, np.ndarray] = {}
    k = 4
    for i, size in enumerate(seal.KERNELS, 1):
        w[f"c{i}"] = random.standard_normal((size * size * k, SIZES[i - 1])) * np.sqrt(2 / (size * size * k))
        w[f"d{i}"] = np.zeros(SIZES[i - 1])
        k = SIZES[i - 1]
    pooled = 2 * k * (seal.COLUMNS >> len(seal.KERNELS)) + 4
    w |= {"f1": random.standard_normal((pooled, SIZES[3])) * np.sqrt(2 / pooled), "g1": np.zeros(SIZES[3])}
    w |= {"f2": random.standard_normal((SIZES[3], 1)) * np.sqrt(1 / SIZES[3]), "g2": np.zeros(1)}
    w = {name: value.astype(np.float32) for name, value in w.items()}
    first, second = ({name: np.zeros_like(value) for name, value in w.items()} for _ in range(2))
    step, batch = 0, 64
    steps = epochs * math.ceil(len(rings.labels) / batch)
    for epoch in range(epochs):
        order = random.permutation(len(rings.labels))
        total, began = 0.0, time.process_time()
        for start in range(0, len(order), batch):
            pick = order[start : start + batch]
            views = varied(random, rings.views[pick], grey)
            radii = rings.radii[pick] * random.uniform(0.97, 1.03, len(pick)).astype(np.float32)
            planes, numbers = seal.inputs(views, radii, rings.residuals[pick], grey)
            drop = ((random.random((len(pick), SIZES[3])) > 0.2) / 0.8).astype(np.float32)
            loss, g = gradients(w, planes, numbers, rings.labels[pick], drop)
            total += loss * len(pick)
            step += 1
            rate = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
            for name, value in w.items():
                first[name] = 0.9 * first[name] + 0.1 * g[name]
                second[name] = 0.999 * second[name] + 0.001 * g[name] ** 2
                move = (first[name] / (1 - 0.9**step)) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
                decay = 1e-2 if value.ndim == 2 else 0.0
                w[name] = (value - np.float32(rate) * (move + np.float32(decay) * value)).astype(np.float32)
        spent = time.process_time() - began
        print(f"  epoch {epoch + 1} of {epochs}: loss {total / len(order):.4f}, {spent:.0f} s", flush=True)
    # Half precision: what a weight means is not in its fourth digit.
    return {name: value.astype(np.float16) for name, value in w.items()} | {
        "threshold": np.array(THRESHOLD),
        "doubt": np.array(DOUBT),
    }


def scored(network: seal.Network, rings: Rings, grey: bool) -> np.ndarray:
    parts = []
    for start in range(0, len(rings.labels), 200):
        here = slice(start, start + 200)
        planes = seal.inputs(rings.views[here], rings.radii[here], rings.residuals[here], grey)
        parts.append(network.scores(*planes))
    return np.concatenate(parts)


def report(name: str, scores: np.ndarray, rings: Rings) -> None:
    good, pages = rings.labels > 0.5, rings.pages
    for at in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        found = len(set(pages[(scores >= at) & good])) / max(len(set(pages[good])), 1)
        clean = set(pages) - set(pages[good])
        false = len(set(pages[(scores >= at) & ~good]) & clean) / max(len(clean), 1)
        print(f"{name}: threshold {at}: pages with a seal found {found:.2%}, others with a false one {false:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=1600, help="colour pages")
    parser.add_argument("--grey", type=int, default=280, help="grey and one-bit pages")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for rings, so that a second training need not draw again")
    parser.add_argument(
        "--only", choices=tuple(PLAN), help="train one of the two networks, kept in --keep, not written"
    )
    parser.add_argument("--trial", action="store_true", help="train on four fifths of the pages, report on the fifth")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    out: dict[str, np.ndarray] = {}
    for number, (name, sets) in enumerate(PLAN.items()):
        if given.only and name != given.only:
            continue
        parts = []
        for place, (mode, inks, share) in enumerate(sets):
            start = given.seed * 1_000_000 + number * 400_000 + place * 100_000
            count = round((given.pages if name == "colour" else given.grey) * share)
            for block in range(start, start + count, BLOCK):
                pages = range(block, min(block + BLOCK, start + count))
                kept = given.keep / f"{mode}-{inks}-{pages.start}-{len(pages)}.npz" if given.keep else None
                if kept and kept.exists():
                    with np.load(kept) as data:
                        part = Rings(*(data[f"arr_{i}"] for i in range(7)))
                else:
                    part = examples(pages, mode, inks)
                    if kept:
                        np.savez(kept, *vars(part).values())
                proposed = f"{int(part.proposed)} of {int(part.labelled)}"
                print(f"{mode}, {inks}, from {block}: {len(part.labels)} rings, seals proposed {proposed}", flush=True)
                parts.append(part)
        rings, grey = joined(parts), name == "grey"
        print(f"{name}: {len(rings.labels)} rings, seals proposed {rings.proposed} of {rings.labelled}")
        if given.trial:
            held = rings.pages % 10 >= 8
            trial = train(rings.pick(~held), grey, given.seed, EPOCHS[name])
            rest = rings.pick(held)
            report(f"{name}, held out", scored(seal.Network(trial), rest, grey), rest)
        else:
            found = train(rings, grey, given.seed, EPOCHS[name])
            if given.keep:
                np.savez(given.keep / f"weights-{name}.npz", **found)
            out |= {f"{name}_{key}": value for key, value in found.items()}
    if given.write and len({key.split("_")[0] for key in out}) == len(PLAN):
        np.savez(WEIGHTS, **out)
        print(f"written {WEIGHTS.name}, SHA-256 {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
