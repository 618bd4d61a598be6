"""Round red seals and handwritten signatures on pages.

A red seal on a page is never proof that a document is genuine: anybody can paste one. The question answered here is the
one a clerk asks of a scan (rules SG-02): is there a seal, is there a hand beside it, or can that not be told?

How a seal is found: the page is made white (`pages.flatten`); red edges vote along their gradient for the centres of
circles of 13 to 24 mm radius (50 dpi); each candidate is unwrapped around its centre (100 dpi), an ellipse of low order
is fitted to its ring, and a small convolutional network looks at the straightened ring and its text band
(`weights/seal.npz`, trained by bench/seal_train.py on synthetic scans only). The place on the page is not looked at:
stamps stand anywhere; and the emblem inside counts for little. On grey and bilevel scans the same is done with
darkness, but blue cannot be told from red: at best UNDECIDABLE, with the place.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    Picture,
    colourless,
    darkness,
    flatten,
    redness,
    turned,
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
CANDIDATES = 8  # centres per page; with six, 159 of 160 seals on crowded training pages were among them

#: A ring of which less than a third is there is none, nor is one whose ink is at the noise of the rendering: the
#: network never saw pages with a few specks of colour only.
FAINTEST, LEAST_COVER = 9.0, 0.22

ANGLES = 256
ROWS, COLUMNS = 128, 48  # of an unwrapped ring
OUTER = 1.3  # radii: as far as it is unwrapped


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
    """A ring on a page. Centre, radius and residual of the fit in pixels of a 100 dpi rendering; view: the ring
    unwrapped, (ROWS, COLUMNS, 3); oval: by what share of the radius it is longer one way and shorter the other."""

    x: float
    y: float
    radius: float
    residual: float
    view: Image
    oval: float

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
            quarters = pages.quarters(n)  # boxes are told of the page as the file shows it, upright or not
            page = look_at(pages, n, tuple(turned(box, quarters) for on, box in signature_boxes if on == n))
            page = replace(page, seals=_as_shown(page.seals, quarters), doubtful=_as_shown(page.doubtful, quarters))
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


def _as_shown(seals: tuple[Seal, ...], quarters: int) -> tuple[Seal, ...]:
    """Seals of a page that was turned, with their boxes on the page as the file shows it."""
    if not quarters:
        return seals
    boxes = [turned(seal.box, 4 - quarters) for seal in seals]
    shown = [(round(a, 4), round(b, 4), round(c, 4), round(d, 4)) for a, b, c, d in boxes]
    return tuple(seal.model_copy(update={"box": box}) for seal, box in zip(seals, shown, strict=True))


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
        pasted = any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)
        pasted = pasted or not (scan or _in_a_larger_picture(box, pages.pictures(n)))
        seal = Seal(page=n, box=box, score=round(score, 3), pasted=pasted)
        if score >= threshold(blind):
            seals.append(seal)
            ring = ring or candidate
        else:
            doubtful.append(seal)
    hand = handwriting(flat, ring) if ring is not None and not blind else None
    return PageLook(tuple(seals), not blind, tuple(doubtful), hand)


def _in_a_larger_picture(box: Box, pictures: Iterable[Picture]) -> bool:
    """Whether the smallest picture around it is three times its size: the photograph or scan of a paper, with margins
    or on a larger sheet, and no picture of a seal."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    around = [p.box for p in pictures if p.box[0] <= x <= p.box[2] and p.box[1] <= y <= p.box[3]]
    if not around:
        return False
    left, top, right, bottom = min(around, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))
    return right - left >= 3 * (box[2] - box[0]) and bottom - top >= 3 * (box[3] - box[1])


def find(flat: Image, *, grey: bool = False) -> list[tuple[float, Candidate]]:
    """Rings of a flattened page at 100 dpi with their score, best first, none overlapping; those not worth a doubt are
    left out."""
    weights = _weights("grey" if grey else "colour")
    rings = candidates(flat, grey=grey)
    if not rings:
        return []
    views, radii, residuals = stacked(rings)
    # The rim decides; the whole may not speak clearly against it (a disc without a rim of its own is no seal).
    whole = weights.scores(*inputs(views, radii, residuals, grey))
    scores = np.minimum(weights.scores(*inputs(rims(views), radii, residuals, grey)), WHOLE * whole)
    scored = sorted(zip(scores.tolist(), rings, strict=True), key=lambda pair: -pair[0])
    kept: list[tuple[float, Candidate]] = []
    for score, candidate in scored:
        if score < weights.doubt:
            break
        if all(np.hypot(candidate.x - o.x, candidate.y - o.y) > 0.8 * (candidate.radius + o.radius) for _, o in kept):
            kept.append((_judged(score, candidate, weights, grey), candidate))
    return kept


def _judged(score: float, ring: Candidate, weights: Network, grey: bool) -> float:
    """The score, but less than enough for a machine where a person must look: at ovals, and at rings in photographs
    that are not beyond doubt."""
    if score >= weights.threshold and not grey:
        in_a_picture = score < SURE and _motley(ring.view) > MOTLEY
        if ring.oval > OVAL or in_a_picture:
            return 0.99 * weights.threshold
    return score


def stacked(rings: Sequence[Candidate]) -> tuple[Image, Floats, Floats]:
    """Views, radii and residuals of several rings."""
    return (
        np.stack([one.view for one in rings]),
        np.array([one.radius for one in rings], np.float32),
        np.array([one.residual for one in rings], np.float32),
    )


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
    total = np.concatenate([[0.0], np.cumsum(profile)])
    at = np.arange(reach)
    start, stop = np.minimum(at + 5, reach - 1), np.minimum(at + 12, reach)
    response = profile - (total[stop] - total[start]) / (stop - start)
    response[: int(low)] = -1
    response[int(high) + 1 :] = -1
    found: list[Candidate] = []
    colours: Image | None = None
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
        if colours is None:
            colours = _crop(flat, left, top, side)
        view = _unwrapped(colours, px, py, curve)
        line, scale = _line(_ink(view, grey))
        if scale < FAINTEST or (line > 0.35 * scale).mean() < LEAST_COVER:
            continue
        found.append(Candidate(px + left, py + top, radius, residual, view, _oval(curve)))
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
_U = ((np.arange(2 * COLUMNS) + 0.5) * OUTER / (2 * COLUMNS)).astype(np.float32)
#: Seals of state bodies are round. A ring whose axes differ by more than a quarter is an oval stamp, or photographed
#: from far aside: for a person. Rings fitted to whole seals come to 0.02, to pieces of seals on published documents to
#: 0.11; oval stamps have 0.13 and more.
OVAL = 0.12
#: A seal stands on paper. Where this share of what lies around a ring is neither paper nor red nor dark, it stands in a
#: photograph or a chart, and less than SURE is for a person: two rings in pictures that were called seals had 0.75 and
#: 0.49 of it with scores of 0.74 and 0.91, three seals over photographs 0.42 to 0.47 with 0.95 and more.
MOTLEY, SURE = 0.4, 0.93
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


def _oval(curve: Floats) -> float:
    """By how much of the mean radius a ring is longer one way and shorter the other."""
    return float(np.hypot(curve @ _BASIS[:, 3], curve @ _BASIS[:, 4]) * 2 / ANGLES / curve.mean())


def _motley(view: Image) -> float:
    """What share of the surroundings of an unwrapped ring has a colour that is not red."""
    outside = view[:, int(1.08 / OUTER * COLUMNS) :].astype(np.int16)
    red, green, blue = outside[..., 0], outside[..., 1], outside[..., 2]
    span = outside.max(-1) - outside.min(-1)
    reddish = (red >= green) & (red >= blue) & (np.abs(green - blue) < 0.6 * span)
    return float(((span > 45) & ~reddish).mean())


def _unwrapped(colours: Image, x: float, y: float, curve: Floats) -> Image:
    """A ring and its surroundings, straightened: angle down, radius across to `OUTER`, RGB. Drawn at twice the size and
    averaged, because lines are thinner than a step."""
    radii = curve[:, None] * _U
    polar = cv2.remap(
        colours,
        (x + radii * _COS[:, None]).astype(np.float32),
        (y + radii * _SIN[:, None]).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    return cv2.resize(polar, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)


def _ink(view: NDArray, grey: bool) -> NDArray:  # type: ignore[type-arg]
    """Redness, or darkness, of views (…, 3) of whatever number type."""
    if grey:
        return 255 - view[..., 1]
    ink = np.maximum(view[..., 1], view[..., 2])
    return np.maximum(view[..., 0], ink) - ink


_RING = slice(int(0.94 / OUTER * COLUMNS), int(1.05 / OUTER * COLUMNS) + 1)


def _line(ink: NDArray) -> tuple[Floats, float]:  # type: ignore[type-arg]
    """The strength of the ring's line by angle, and how strong its ink is where it is there."""
    line = ink[:, _RING].max(axis=1).astype(np.float32)
    return line, max(float(np.partition(line, int(0.7 * ROWS))[int(0.7 * ROWS)]), 8.0)


# -- the network -----------------------------------------------------------------------------------------------------
#: Kernel sizes of its three convolutions, each with a step of two in both directions.
KERNELS = (5, 3, 3)


def inputs(views: NDArray, radii: Floats, residuals: Floats, grey: bool) -> tuple[Floats, Floats]:  # type: ignore[type-arg]
    """What the network sees of unwrapped rings (n, ROWS, COLUMNS, 3): four planes of ink (relative to the line's own,
    and what each colour of light misses), and four numbers. radii and residuals in pixels at 100 dpi."""
    absorbed = 1.0 - views.astype(np.float32) / np.float32(255.0)
    ink = absorbed[..., 1] if grey else np.minimum(absorbed[..., 1], absorbed[..., 2]) - absorbed[..., 0]
    ink = np.maximum(ink, 0)
    line = np.sort(ink[:, :, _RING].max(axis=2), axis=1)
    scale = np.maximum(line[:, int(0.7 * ROWS)], np.float32(8 / 255))
    planes = np.empty((*absorbed.shape[:3], 4), np.float32)
    planes[..., 0] = np.minimum(ink / scale[:, None, None], 1.5)
    planes[..., 1:] = absorbed
    cover = (line > 0.35 * scale[:, None]).mean(axis=1)
    numbers = np.stack([radii / PX_MM / 18 - 1, residuals / PX_MM, np.log(scale) + 1, cover], axis=1)
    return planes, numbers.astype(np.float32)


#: Radii within which nothing is looked at when the rim of a ring is scored. Emblems, stars and names inside differ from
#: seal to seal, and real ones from those drawn for training: three of 17 real seals had 0.26 to 0.44 with their emblem
#: and have 0.96 and more without. Under 0.6 / WHOLE with it a ring is none whatever its rim says: emblems, whose red
#: disc the rim does not show, have 0.05.
CORE, WHOLE = 0.55, 4.0


def rims(views: Image) -> Image:
    """Views with paper in place of what is inside the text band."""
    out = views.copy()
    out[:, :, : int(CORE / OUTER * COLUMNS)] = 255
    return out


def windows(x: Floats, size: int) -> Floats:
    """Every second `size` × `size` piece of planes (n, rows, columns, k) as one row each: (n, rows/2, columns/2,
    size · size · k). Angles go round; beyond the radii there is nothing."""
    half = size // 2
    n, rows, columns, k = x.shape
    wide = np.zeros((n, rows + 2 * half, columns + 2 * half, k), np.float32)
    wide[:, half:-half, half:-half] = x
    wide[:, :half, half:-half] = x[:, -half:]
    wide[:, -half:, half:-half] = x[:, :half]
    pieces = np.lib.stride_tricks.sliding_window_view(wide, (size, size), axis=(1, 2))[:, ::2, ::2]
    return np.ascontiguousarray(pieces.transpose(0, 1, 2, 4, 5, 3)).reshape(n, rows // 2, columns // 2, -1)


class Network:
    """Three convolutions over an unwrapped ring, mean and greatest over the angles, a hidden layer, a logistic output.

    Arrays come from an .npz file without objects and are checked on loading.
    """

    def __init__(self, arrays: Mapping[str, NDArray]) -> None:  # type: ignore[type-arg]
        self.w = {name: np.asarray(arrays[name], np.float32) for name in NAMES}
        k = 4
        for i, size in enumerate(KERNELS, 1):
            if self.w[f"c{i}"].shape[0] != size * size * k:
                raise ValueError("weights do not fit together")
            k = self.w[f"c{i}"].shape[1]
        pooled = 2 * k * (COLUMNS >> len(KERNELS)) + 4
        if self.w["f1"].shape[0] != pooled or self.w["f2"].shape != (self.w["f1"].shape[1], 1):
            raise ValueError("weights do not fit together")
        self.threshold, self.doubt = (float(np.asarray(arrays[name])) for name in ("threshold", "doubt"))

    def scores(self, planes: Floats, numbers: Floats) -> Floats:
        """Shape (n,), 0 to 1."""
        w, x = self.w, planes
        for i, size in enumerate(KERNELS, 1):
            x = np.maximum(windows(x, size) @ w[f"c{i}"] + w[f"d{i}"], 0)
        n = len(x)
        flat = np.concatenate([x.mean(axis=1).reshape(n, -1), x.max(axis=1).reshape(n, -1), numbers], axis=1)
        value = np.maximum(flat @ w["f1"] + w["g1"], 0) @ w["f2"] + w["g2"]
        return np.asarray(1 / (1 + np.exp(-value[:, 0])), np.float32)


NAMES = ("c1", "d1", "c2", "d2", "c3", "d3", "f1", "g1", "f2", "g2")


@cache
def _weights(which: str) -> Network:
    with np.load(Path(__file__).parent / "weights" / "seal.npz", allow_pickle=False) as data:
        return Network({key.split("_", 1)[1]: data[key] for key in data.files if key.startswith(which + "_")})


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
