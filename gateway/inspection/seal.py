"""Round red seals and handwritten signatures on pages.

A red seal on a page is never proof that a document is genuine: anybody can paste one. The question answered here is the
one a clerk asks of a scan (rules SG-02): is there a seal, is there a hand beside it, or can that not be told?

How a seal is found: the page is made white (`pages.flatten`); red edges vote along their gradient for the centres of
circles of 13 to 24 mm radius (50 dpi); each candidate is unwrapped around its centre (100 dpi), an ellipse of low order
is fitted to its ring, and features of ring, inside and surroundings go to a small network (`weights/seal.json`, trained
by bench/seal_train.py on synthetic scans only). The place on the page is no feature: stamps stand anywhere. On grey and
bilevel scans the same is done with darkness, but blue cannot be told from red: at best UNDECIDABLE, with the place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.inspection.findings import Finding, Seal, SealState
from gateway.inspection.pages import (
    MM_PER_INCH,
    Image,
    PageError,
    Pages,
    colourless,
    darkness,
    flatten,
    redness,
    two_valued,
)

Floats = NDArray[np.float32]
Box = tuple[float, float, float, float]

DPI = 100.0  # of the search; more shows nothing more of a ring of 30 mm
PX_MM = DPI / MM_PER_INCH
COARSE_DPI = 75.0  # under this a ring's line is thinner than a pixel: cannot be told
#: Seals are 28 to 46 mm across; a little more on both sides, because printers and scanners scale.
RADIUS_MM = (12.5, 24.5)
#: Pages looked at when nobody says which, and CPU seconds for all of them: 20 pages at 100 ms are 2 s.
MAX_PAGES = 20
CPU_SECONDS = 4.0
CANDIDATES = 6  # centres per page; with six, 99.75 % of the seals on 2400 training pages were among them

#: A ring of which less than a third is there is none, nor is one whose ink is at the noise of the rendering: the
#: network never saw pages with a few specks of colour only.
FAINTEST, LEAST_COVER = float(np.log(10.5)), 0.33

ANGLES = 256
STEP = 0.0125  # of the radius
COLUMNS = 104  # unwrapped to 1.3 radii


@dataclass(frozen=True, slots=True)
class SealFacts:
    """What was seen. scan: at least one page looked at is a scan. handwritten: None = cannot be told."""

    scan: bool
    seals: tuple[Seal, ...]
    state: SealState
    handwritten: bool | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ring on a page. Centre and radius in pixels of a 100 dpi rendering; features: see `_features`."""

    x: float
    y: float
    radius: float
    features: Floats

    def box(self, shape: tuple[int, ...]) -> Box:
        """In fractions of the page, cut at its edges."""
        height, width = shape[:2]
        left, right = (self.x - self.radius) / width, (self.x + self.radius) / width
        top, bottom = (self.y - self.radius) / height, (self.y + self.radius) / height
        left, top, right, bottom = (round(min(max(v, 0.0), 1.0), 4) for v in (left, top, right, bottom))
        return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class PageLook:
    """One page: its seals, whether colour could be told, and whether a hand wrote beside the seal."""

    seals: tuple[Seal, ...]
    decidable: bool
    doubtful: tuple[Seal, ...] = ()
    handwritten: bool | None = None


def look(
    pages: Pages,
    signature_boxes: Sequence[tuple[int, Box]] = (),
    wanted: Iterable[int] | None = None,
) -> SealFacts:
    """Look for seals on pages `wanted` (from 1), or on those most likely to bear one within a budget.

    signature_boxes: (page, box in page fractions) of digital signatures; a seal inside one is a picture, not ink.
    PageError when no page could be shown.
    """
    order = list(dict.fromkeys(wanted)) if wanted is not None else _likely(pages.count, signature_boxes)
    started = time.process_time()
    seals: list[Seal] = []
    doubtful: list[Seal] = []
    hands: list[bool | None] = []
    scan, undecided, seen = False, False, 0
    failure: PageError | None = None
    for n in order:
        if wanted is None and time.process_time() - started > CPU_SECONDS:
            break
        try:
            scan = pages.is_scan(n) or scan
            page = look_at(pages, n, tuple(box for on, box in signature_boxes if on == n))
        except PageError as error:
            failure = error
            continue
        seen += 1
        undecided = undecided or not page.decidable
        if page.decidable:
            seals += page.seals
        doubtful += page.doubtful if page.decidable else page.seals
        hands.append(page.handwritten)
    if failure and not seen:
        raise failure
    not_seen = failure is not None or (wanted is None and scan and seen < pages.count)
    if seals:
        state = SealState.PRESENT
    elif undecided or doubtful or not_seen:
        state = SealState.UNDECIDABLE
        seals = doubtful
    else:
        state = SealState.ABSENT if seen else SealState.NOT_CHECKED
    handwritten = True if True in hands else (False if False in hands else None)
    findings = tuple(Finding(kind="seal", value="pasted", where=f"trang {seal.page}") for seal in seals if seal.pasted)
    return SealFacts(scan, tuple(seals), state, handwritten, findings)


def _likely(count: int, signature_boxes: Sequence[tuple[int, Box]]) -> list[int]:
    """Pages in the order in which a seal is likely: signature boxes, the last page, the first ones (annexes follow the
    signed page), then from the end."""
    order = [n for n, _ in signature_boxes if 1 <= n <= count]
    order += [n for n in (count, 1, 2, 3, *range(count - 1, 3, -1)) if 1 <= n <= count]
    return list(dict.fromkeys(order))[:MAX_PAGES]


def look_at(pages: Pages, n: int, signature_boxes: Sequence[Box] = ()) -> PageLook:
    """Look at one page."""
    scan = pages.is_scan(n)
    dpi = pages.dpi(n) if scan else None
    image = pages.image(n, DPI)
    blind = scan and (pages.kind(n) != "colour" or colourless(image) or two_valued(image) or (dpi or 999) < COARSE_DPI)
    flat = flatten(image)
    found = find(flat, grey=blind)
    boxes = [*signature_boxes, *(p.box for p in pages.pictures(n) if p.widget)]
    seals, doubtful = [], []
    ring = None
    for score, candidate in found:
        box = candidate.box(image.shape)
        x, y = candidate.x / image.shape[1], candidate.y / image.shape[0]
        pasted = not scan or any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)
        seal = Seal(page=n, box=box, score=round(score, 3), pasted=pasted)
        if score >= threshold(blind):
            seals.append(seal)
            ring = ring or candidate
        else:
            doubtful.append(seal)
    hand = handwriting(flat, ring) if ring is not None and not blind else None
    return PageLook(tuple(seals), not blind, tuple(doubtful), hand)


def find(flat: Image, *, grey: bool = False) -> list[tuple[float, Candidate]]:
    """Rings of a flattened page at 100 dpi with their score, best first, none overlapping; those not worth a doubt are
    left out."""
    weights = _weights("grey" if grey else "colour")
    scored = sorted(
        ((weights.score(candidate.features), candidate) for candidate in candidates(flat, grey=grey)),
        key=lambda pair: -pair[0],
    )
    kept: list[tuple[float, Candidate]] = []
    for score, candidate in scored:
        if score < weights.doubt:
            break
        if all(np.hypot(candidate.x - o.x, candidate.y - o.y) > 0.8 * (candidate.radius + o.radius) for _, o in kept):
            kept.append((score, candidate))
    return kept


def candidates(flat: Image, *, grey: bool = False) -> list[Candidate]:
    """Every ring worth a look, in no order: up to two radii about each of the best centres."""
    ink = darkness(flat) if grey else redness(flat)
    capped = np.minimum(ink, 96)  # faint ink counts like fat ink
    found = []
    for x, y in _centres(capped, grey):
        found += _rings(flat, capped, x, y, grey)
    return found


def _centres(ink: Image, grey: bool) -> list[tuple[float, float]]:
    """Centres of circles, in pixels of the 100 dpi picture: edge pixels vote along their gradient, at half size."""
    small = cv2.GaussianBlur(cv2.resize(ink, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), (3, 3), 0)
    gx = cv2.Sobel(small, cv2.CV_32F, 1, 0, scale=0.25)
    gy = cv2.Sobel(small, cv2.CV_32F, 0, 1, scale=0.25)
    size = cv2.magnitude(gx, gy)
    # Noise differs between scanners: the median of what is not paper's zero is a robust measure of it.
    floor = max(3.0, 3.0 * float(np.median(size))) if not grey else 12.0
    ys, xs = np.nonzero(size > floor)
    if len(xs) < 40:
        return []
    most = 24_000 if not grey else 40_000
    if len(xs) > most:  # a photograph or a page full of red: an even sample votes as well
        pick = np.linspace(0, len(xs) - 1, most).astype(np.int64)
        ys, xs = ys[pick], xs[pick]
    at = size[ys, xs]
    dx, dy = gx[ys, xs] / at, gy[ys, xs] / at
    half = PX_MM / 2
    radii = np.arange(RADIUS_MM[0] * half, RADIUS_MM[1] * half, 1.0, dtype=np.float32)
    pad = int(radii[-1] / 2)  # a seal may be cut by the page's edge
    height, width = small.shape[0] + 2 * pad, small.shape[1] + 2 * pad
    votes = np.zeros(height * width, np.float32)
    for sign in (1.0, -1.0):
        cx = np.rint(xs[:, None] + sign * dx[:, None] * radii).astype(np.int32) + pad
        cy = np.rint(ys[:, None] + sign * dy[:, None] * radii).astype(np.int32) + pad
        inside = (cx >= 0) & (cx < width) & (cy >= 0) & (cy < height)
        votes += np.bincount((cy * width + cx)[inside], minlength=height * width).astype(np.float32)
    field = cv2.GaussianBlur(votes.reshape(height, width), (0, 0), 2.0)
    centres = []
    for _ in range(CANDIDATES):
        _, peak, _, (x, y) = cv2.minMaxLoc(field)
        if peak < 2.0:  # about a tenth of a ring
            break
        centres.append(((x - pad) * 2 + 0.5, (y - pad) * 2 + 0.5))
        cv2.circle(field, (x, y), 14, 0.0, -1)
    return centres


def _rings(flat: Image, ink: Image, x: float, y: float, grey: bool) -> list[Candidate]:
    """Fit up to two rings about a centre."""
    low, high = RADIUS_MM[0] * PX_MM, RADIUS_MM[1] * PX_MM
    reach = int(high * 1.15)
    left, top = int(x) - reach - 12, int(y) - reach - 12
    side = 2 * (reach + 12)
    patch = _crop(ink, left, top, side)
    coarse = cv2.warpPolar(patch, (reach, ANGLES), (x - left, y - top), reach, cv2.WARP_POLAR_LINEAR)
    profile = cv2.GaussianBlur(coarse.mean(axis=0, dtype=np.float32)[None, :], (5, 1), 0)[0]
    # The ring's outer edge: ink here, paper 1.5 to 3 mm further out.
    beyond = np.array([profile[min(r + 5, reach - 1) : r + 12].mean() if r + 6 < reach else 0 for r in range(reach)])
    response = profile - beyond
    response[: int(low)] = -1
    response[int(high) + 1 :] = -1
    found: list[Candidate] = []
    for _ in range(2):
        r = int(response.argmax())
        if response[r] <= 0.5:
            break
        response[max(r - 8, 0) : r + 9] = -1
        fitted = _fit(patch, x - left, y - top, float(r))
        if fitted is None:
            continue
        px, py, curve, residual = fitted
        radius = float(curve.mean())
        if not low - 1 <= radius <= high + 1:
            continue
        if any(abs(radius - other.radius) < 4 for other in found):
            continue
        colours = _crop(flat, left, top, side)
        features = _features(colours, patch, px, py, curve, residual, grey)
        if features[0] < FAINTEST or features[1] < LEAST_COVER:
            continue
        found.append(Candidate(px + left, py + top, radius, features))
    return found


def _crop(image: Image, left: int, top: int, side: int) -> Image:
    """A square piece; what lies outside the page is white paper (no ink)."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        return np.full((side, side, *image.shape[2:]), 255 if image.ndim == 3 else 0, np.uint8)
    if x1 - x0 == side and y1 - y0 == side:
        return np.ascontiguousarray(image[y0:y1, x0:x1])
    value = (255, 255, 255) if image.ndim == 3 else 0
    return cv2.copyMakeBorder(
        image[y0:y1, x0:x1],
        y0 - top,
        top + side - y1,
        x0 - left,
        left + side - x1,
        cv2.BORDER_CONSTANT,
        value=value,
    )


_THETA = np.arange(ANGLES, dtype=np.float32) * np.float32(2 * np.pi / ANGLES)
_COS, _SIN = np.cos(_THETA), np.sin(_THETA)
#: Radius as a function of the angle: mean, shift of the centre (order 1), ellipse (order 2).
_BASIS = np.stack([np.ones_like(_THETA), _COS, _SIN, np.cos(2 * _THETA), np.sin(2 * _THETA)], axis=1)


def _fit(patch: Image, x: float, y: float, radius: float) -> tuple[float, float, Floats, float] | None:
    """Fit centre and ellipse to a ring near `radius`. Returns centre, radius by angle, and the residual in pixels."""
    curve = np.full(ANGLES, radius, np.float32)
    spread = 7
    for turn in range(3):
        offsets = np.arange(-spread, spread + 1, dtype=np.float32)
        radii = curve[:, None] + offsets
        rows = cv2.remap(
            patch,
            (x + radii * _COS[:, None]).astype(np.float32),
            (y + radii * _SIN[:, None]).astype(np.float32),
            cv2.INTER_LINEAR,
        ).astype(np.float32)
        # Neighbouring angles share a ring; letters and gaps do not.
        rows = cv2.blur(cv2.copyMakeBorder(rows, 4, 4, 0, 0, cv2.BORDER_WRAP), (3, 5))[4:-4]
        peak = rows.argmax(axis=1)
        strength = rows[np.arange(ANGLES), peak]
        good = strength > max(0.3 * float(np.percentile(strength, 75)), 5.0)
        if good.sum() < ANGLES // 8:
            return None
        place = offsets[peak]
        weight = good.astype(np.float32)
        order = 3 if turn == 0 else 5
        solution = np.zeros(5, np.float32)
        for _ in range(3):
            basis = _BASIS[:, :order] * weight[:, None]
            normal = basis.T @ _BASIS[:, :order] + 0.5 * np.eye(order, dtype=np.float32)
            solution[:order] = np.linalg.solve(normal, basis.T @ place)
            error = np.abs(_BASIS @ solution - place)
            weight = good / (1.0 + (error / 1.5) ** 2)
        x += float(solution[1])
        y += float(solution[2])
        curve = curve + solution[0] + _BASIS[:, 3:] @ solution[3:]
        spread = 6 if turn == 0 else 4
    residual = float(np.sqrt((np.minimum(error, 4.0)[good] ** 2).mean()))
    if curve.min() < 0.7 * curve.mean() or curve.max() > 1.3 * curve.mean():
        return None
    return x, y, curve.astype(np.float32), residual


_U = (np.arange(COLUMNS, dtype=np.float32) + 0.5) * STEP


def _band(low: float, high: float) -> slice:
    return slice(int(low / STEP), int(high / STEP))


_RING, _OUT, _TEXT, _INNER, _INSIDE, _AROUND = (
    _band(0.94, 1.035),
    _band(1.09, 1.3),
    _band(0.68, 0.9),
    _band(0.0, 0.6),
    _band(0.0, 0.92),
    _band(1.09, 1.3),
)
_SPECTRUM = ((1, 3), (3, 6), (6, 11), (11, 21), (21, 41), (41, 81))


def _features(colours: Image, ink: Image, x: float, y: float, curve: Floats, residual: float, grey: bool) -> Floats:
    """What is known of a ring: its line, what is inside and around it, and its colour; float32."""
    radii = curve[:, None] * _U
    map_x = (x + radii * _COS[:, None]).astype(np.float32)
    map_y = (y + radii * _SIN[:, None]).astype(np.float32)
    polar = cv2.remap(ink, map_x, map_y, cv2.INTER_LINEAR)
    rgb = cv2.remap(colours, map_x, map_y, cv2.INTER_LINEAR)
    line = polar[:, _RING].max(axis=1).astype(np.float32)
    line = cv2.blur(np.concatenate([line[-2:], line, line[:2]])[:, None], (1, 3))[2:-2, 0]
    scale = max(float(np.percentile(line, 70)), 10.0)
    share = np.minimum(polar.astype(np.float32) / scale, 1.5)
    on = line > 0.35 * scale
    quadrants = np.sort(on.reshape(8, -1).mean(axis=1))
    out = share[:, _OUT]
    radius = float(curve.mean())
    values = [
        np.log(scale),
        on.mean(),
        (line > 0.6 * scale).mean(),
        _gap(on),
        line.std() / scale,
        *quadrants[[0, 1, 2, 4]],
        out.mean(),
        (out > 0.35).mean(),
        out.max(axis=1).mean(),
        residual / PX_MM,
        (curve.max() - curve.min()) / radius,
        radius / PX_MM / 18.0,
    ]
    values += share[:, : 13 * 8].reshape(ANGLES, 13, 8).mean(axis=(0, 2)).tolist()
    values += share[:, : 13 * 8].reshape(ANGLES, 13, 8).mean(axis=2).std(axis=0).tolist()
    wave = np.abs(np.fft.rfft(share[:, _TEXT].mean(axis=1))) ** 2
    total = float(wave[1:81].sum()) + 1e-3
    values += [np.log1p(total)]
    values += [float(wave[a:b].sum()) / total for a, b in _SPECTRUM]
    inner = np.abs(np.fft.rfft(share[:, _INNER].mean(axis=1))) ** 2
    values += [float(inner[a:b].sum()) / (float(inner[1:81].sum()) + 1e-3) for a, b in _SPECTRUM]
    values += [_concentric(share)]
    # Paper, dark ink and other colours inside and around: photographs, flags and charts have little paper.
    low, high = rgb.min(axis=2), rgb.max(axis=2)
    white, dark = low > 200, high < 120
    for band in (_INSIDE, _AROUND):
        values += [white[:, band].mean(), dark[:, band].mean()]
    if not grey:
        red, green, blue = (rgb[:, :, i].astype(np.float32) for i in range(3))
        for band in (_INSIDE, _AROUND):
            values += [
                (blue[:, band] - red[:, band] > 30).mean(),
                ((np.minimum(red, green) - blue)[:, band] > 45).mean(),
                ((green - red)[:, band] > 25).mean(),
            ]
        strong = (polar > 0.5 * scale) & (np.arange(COLUMNS) < _RING.stop)
        ring = strong.copy()
        ring[:, : _RING.start] = False
        for mask in (ring, strong):
            if mask.sum() < 20:
                values += [0.0] * 6
                continue
            r, g, b = red[mask], green[mask], blue[mask]
            tint = (g - b) / np.maximum(r - np.minimum(g, b), 8.0)  # −1 pink, 0 red, +1 orange
            values += [r.mean() / 255, g.mean() / 255, b.mean() / 255, tint.mean(), tint.std(), r.std() / 255]
    return np.nan_to_num(np.array(values, np.float32))


def _gap(on: NDArray[np.bool_]) -> float:
    """The longest missing piece of the ring, as a share of it."""
    if on.all():
        return 0.0
    if not on.any():
        return 1.0
    turned = np.roll(on, -int(on.argmax()))
    edges = np.flatnonzero(np.diff(np.concatenate([[1], turned.astype(np.int8), [1]])))
    return float((edges[1::2] - edges[::2]).max()) / len(on)


def _concentric(share: Floats) -> float:
    """How much a second ring inside the first stands out: the 30th percentile over angles is high only on a ring."""
    quantile = np.percentile(share[::2, _band(0.45, 0.93)], 30, axis=0)
    return float(quantile.max() - np.median(quantile))


class _Network:
    """Standardise, one hidden layer of tanh, a logistic output. Arrays come from JSON and are checked on loading."""

    def __init__(self, data: dict[str, list]) -> None:  # type: ignore[type-arg]
        self.mean, self.spread, self.w1, self.b1, self.w2, self.b2 = (
            np.asarray(data[name], np.float32) for name in ("mean", "spread", "w1", "b1", "w2", "b2")
        )
        hidden, inputs = self.w1.shape
        if self.mean.shape != (inputs,) or self.b1.shape != (hidden,) or self.w2.shape != (hidden,):
            raise ValueError("weights do not fit together")
        self.threshold = float(np.asarray(data["threshold"]))
        self.doubt = float(np.asarray(data["doubt"]))

    def score(self, features: Floats) -> float:
        scaled = np.clip((features - self.mean) / self.spread, -6, 6)
        value = float(self.w2 @ np.tanh(self.w1 @ scaled + self.b1) + self.b2)
        return float(1 / (1 + np.exp(-value)))


@cache
def _weights(which: str) -> _Network:
    path = Path(__file__).parent / "weights" / "seal.json"
    return _Network(json.loads(path.read_text(encoding="utf-8"))[which])


def threshold(grey: bool = False) -> float:
    """The score from which a ring is called a seal."""
    return _weights("grey" if grey else "colour").threshold


#: Where a hand signs, in radii of the seal from its centre: the seal covers a third of the signature on its left.
_REACH = (-1.3, -1.3, 3.3, 1.5)
#: Pen strokes in mm: a connected stroke of ink this wide or high. Printed letters are at most 6 mm high at 14 pt with
#: accents, and words may run together sideways only.
_BLUE_STROKE, _DARK_HIGH, _DARK_WIDE = 8.0, 8.0, 6.0


def handwriting(flat: Image, ring: Candidate) -> bool | None:
    """Whether a hand wrote across or beside a seal: blue strokes longer than letters, or dark ones higher than text.

    None when it cannot be told: a photograph or other large dark thing lies there. A printed picture of a signature is
    a hand here like any other; whether the page is a scan is told apart.
    """
    height, width = flat.shape[:2]
    r = ring.radius
    x0, y0 = max(int(ring.x + _REACH[0] * r), 0), max(int(ring.y + _REACH[1] * r), 0)
    x1, y1 = min(int(ring.x + _REACH[2] * r), width), min(int(ring.y + _REACH[3] * r), height)
    part = flat[y0:y1, x0:x1]
    if part.shape[0] < r or part.shape[1] < r:
        return None
    red, green, blue = cv2.split(part)
    lightest, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    dark = lightest < 130
    if dark.mean() > 0.3 or ((lightest.astype(np.int16) - least > 60) & (red < blue)).mean() > 0.25:
        return None
    # Blue ink on paper, and the violet where it crosses the red of the seal.
    pen = (cv2.subtract(blue, red) > 28) & (cv2.subtract(blue, green) > 8)
    return _strokes(pen, _BLUE_STROKE, _BLUE_STROKE) or _strokes(dark, _DARK_WIDE, _DARK_HIGH, both=True)


def _strokes(mask: NDArray[np.bool_], wide: float, high: float, both: bool = False) -> bool:
    """Whether a thin connected stroke is `wide` or (`both`: and) `high` mm; ruled lines of tables do not count."""
    ink = mask.astype(np.uint8)
    if both:
        long = int(14 * PX_MM)
        for kernel in (np.ones((1, long), np.uint8), np.ones((long, 1), np.uint8)):
            ink = cv2.subtract(ink, cv2.morphologyEx(ink, cv2.MORPH_OPEN, kernel))
    else:
        ink = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    for _, _, w, h, area in stats[1:].tolist():
        long_enough = w >= wide * PX_MM and h >= high * PX_MM if both else max(w, h) >= wide * PX_MM
        if long_enough and min(w, h) >= 2 * PX_MM and area < 0.5 * w * h:
            return True
    return False
