"""Secrecy and urgency marks stamped in frames, seen on the picture of a page.

MẬT and KHẨN are both 20 × 8 mm, TỐI MẬT and HỎA TỐC 30 × 8, TUYỆT MẬT and THƯỢNG KHẨN 40 × 8: a double border (1 mm
apart) is secrecy, a single one urgency. OCR of whole pages garbles framed marks and drops red ones, so frames are
looked for by themselves: in the map of red ink, then in that of dark ink; each is straightened, its borders counted,
and only its inside is read as one line. A red frame that cannot be read is a case for a person (`red_box`).

The evidence of a secrecy finding stays empty, as everywhere.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gateway.inspection.findings import Finding
from gateway.inspection.pages import MM_PER_INCH, Image, PageError, Pages, colourless, darkness, flatten

DPI = 100.0  # of the search
READ_DPI = 200.0  # of the straightened piece: a border gap of 1 mm is 8 pixels
PAGES = 3  # marks stand on page one; the next two are looked at because covers and letters are put before it
TOP = 0.65  # share of the page searched: half of it by rule, more because scans are shifted
#: Inside of a frame, mm. Stamps are 20 to 44 × 8, GIẢI MẬT 30 × 13, circulation marks up to 60 long.
WIDTH_MM = (14.0, 62.0)
HEIGHT_MM = (4.5, 15.5)
TILT = 15.0  # degrees
READINGS = 8  # texts read per page and map: a reading takes 10 to 30 ms

Box = tuple[float, float, float, float]

#: Letters without accents and spaces -> (kind, value, text with accents).
MARKS = {
    "MAT": ("secrecy", "mat", ("MẬT",)),
    "TOIMAT": ("secrecy", "toi_mat", ("TỐIMẬT",)),
    "TUYETMAT": ("secrecy", "tuyet_mat", ("TUYỆTMẬT",)),
    "GIAIMAT": ("secrecy", "declassified", ("GIẢIMẬT",)),
    "TAILIEUTHUHOI": ("secrecy", "recall_mark", ("TÀILIỆUTHUHỒI",)),
    "CHINGUOICOTENMOIDUOCBOCBI": ("secrecy", "recall_mark", ("CHỈNGƯỜICÓTÊNMỚIĐƯỢCBÓCBÌ",)),
    "KHAN": ("urgency", "khan", ("KHẨN",)),
    "THUONGKHAN": ("urgency", "thuong_khan", ("THƯỢNGKHẨN",)),
    "HOATOC": ("urgency", "hoa_toc", ("HỎATỐC", "HOẢTỐC")),
    "HOATOCHENGIO": ("urgency", "hoa_toc_hen_gio", ("HỎATỐCHẸNGIỜ", "HOẢTỐCHẸNGIỜ")),
    "LUUHANHNOIBO": ("circulation", "internal", ("LƯUHÀNHNỘIBỘ",)),
    "XEMXONGTRALAI": ("circulation", "return_after_reading", ("XEMXONGTRẢLẠI",)),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A framed box on a page. box: fractions of the page, upright; borders: lines seen on its sides, at most 4; double:
    two lines on at least half of them; solid: the lines are whole and as far apart as those of a stamp; text: as read,
    with confidence 0 to 100."""

    page: int
    box: Box
    red: bool
    borders: int
    double: bool
    solid: bool
    text: str
    confidence: int
    readable: bool
    width_mm: float = 0.0


def marks(pages: Pages) -> list[Finding]:
    """Framed marks on the first pages. A page that cannot be shown is passed over unless none can: PageError."""
    found: list[Finding] = []
    failure, seen = None, 0
    for n in range(1, min(pages.count, PAGES) + 1):
        try:
            frames = frames_of(pages, n)
        except PageError as error:
            failure = error
            continue
        seen += 1
        found += [finding for frame in frames if (finding := judge(frame))]
    if failure and not seen:
        raise failure
    return list(dict.fromkeys(found))


def judge(frame: Frame) -> Finding | None:
    """What a framed box says; None when it says something else."""
    letters = _letters(frame.text)
    where = f"trang {frame.page}"
    exact = _match(_folded(letters), frame.width_mm)
    mark = exact or (_nearest(_folded(letters), frame) if frame.red else None)
    if mark:
        kind, value, spellings = MARKS[mark]
        # Red and framed is evidence enough beside letters without accents; dark needs the accents too, and so does a
        # frame of which a side is missing (what is left of HỎA TỐC may read MAT).
        framed = frame.red and (frame.borders == 4 or frame.double)
        strong = exact and frame.borders >= 3 and (framed or letters in spellings) and value != "declassified"
        evidence = "" if kind == "secrecy" else frame.text
        return Finding(kind=kind, value=value, grade="strong" if strong else "weak", where=where, evidence=evidence)
    if frame.red and frame.solid and not frame.readable and (frame.borders == 4 or frame.double):
        return Finding(kind="frame", value="red_box", grade="weak", where=where)
    return None


def frames_of(pages: Pages, n: int) -> list[Frame]:
    """The framed boxes of a page, red ones first; dark ones only on scans without a red mark."""
    image = pages.image(n, DPI)
    height = round(image.shape[0] * TOP)
    top = image[:height]
    flat = flatten(top)
    frames: list[Frame] = []
    if not colourless(top):
        colour, strokes = _strokes(flat, DPI)
        frames = _frames(pages, n, (colour, _where_red(colour, strokes)), red=True)
    if pages.is_scan(n) and not any(judge(frame) for frame in frames):
        frames += _frames(pages, n, (darkness(flat),), red=False)
    return frames


def _frames(pages: Pages, n: int, inks: Sequence[Image], *, red: bool) -> list[Frame]:
    # Faint ink needs a low level, at which other things run together: so the low one only after the high one.
    best: list[Frame] = []
    done: list[tuple[Rectangle, bool]] = []
    ways = [(ink, level) for ink in inks for level in ((18, 10) if red else (40, 80))]
    for ink, level in ways:
        frames = _frames_at(pages, n, ink, level, red, done)
        if not best or _rank(frames) > _rank(best):
            best = frames
        if _rank(best) == 3 or (best and not red and _rank(best)):
            break
    return best


def _rank(frames: list[Frame]) -> int:
    """How much the best of them says: 0 nothing, 1 a case for a person, 2 perhaps a mark, 3 a mark."""
    findings = [finding for frame in frames if (finding := judge(frame))]
    return max((1 if f.kind == "frame" else 3 if f.grade == "strong" else 2 for f in findings), default=0)


def _frames_at(
    pages: Pages, n: int, ink: Image, level: int, red: bool, done: list[tuple[Rectangle, bool]]
) -> list[Frame]:
    """done: rectangles looked at already, to which those of this way are added."""
    rectangles = _rectangles(ink, level, red)
    if red:
        rectangles += [(r, True) for r in _pairs(ink, level) if not _near(r, rectangles)]
    rectangles = [(r, whole) for r, whole in rectangles if not _near(r, done) and _sided(ink, level, r)]
    done += rectangles
    if not rectangles:
        return []
    found: list[tuple[Frame, list[Image]]] = []
    full = pages.image(n, READ_DPI)
    height, width = full.shape[0] * DPI / READ_DPI, full.shape[1] * DPI / READ_DPI
    for rectangle, whole in rectangles:
        looks = [_borders(piece) for piece in _straightened(full, rectangle, red)]
        looks.sort(key=lambda look: (look[0], look[2]), reverse=True)
        borders, double, solid, inside = looks[0]
        if borders < (3 if whole else 4) or inside is None:
            continue
        double = double or any(look[1] for look in looks)
        (x, y), (w, h), _ = rectangle
        edges = ((x - w / 2) / width, (y - h / 2) / height, (x + w / 2) / width, (y + h / 2) / height)
        left, top, right, bottom = (round(min(max(v, 0.0), 1.0), 4) for v in edges)
        # A hole in a larger thing (a cell of a table or of a stamp) counts only when a mark is read in it.
        box, wide = (left, top, right, bottom), inside.shape[1] / _PX + 1
        frame = Frame(n, box, red, borders, double, solid, "", 0, not whole, wide)
        found.append((frame, [look[3] for look in looks if look[3] is not None]))
    found.sort(key=lambda pair: (not pair[0].solid, -pair[0].borders, -pair[0].width_mm))
    frames: list[Frame] = []
    for number, (frame, insides) in enumerate(found[:READINGS]):
        if any(_overlap(old.box, frame.box) > 0.4 and _rank([old]) == 3 for old in frames):
            continue
        for inside in insides:
            text, confidence = _read(inside, frame.width_mm, 5 if number < 3 else 2)
            letters = _folded(_letters(text))
            readable = frame.readable or inside.max() < 40 or (len(letters) >= 4 and confidence >= 75)
            frame = replace(frame, text=text, confidence=confidence, readable=readable)
            rivals = [old for old in frames if _overlap(old.box, frame.box) > 0.4]
            if not rivals or _rank([frame]) > _rank(rivals):
                frames = [old for old in frames if old not in rivals] + [frame]
            if _rank([frame]) == 3:
                break
    return frames


def _strokes(flat: Image, dpi: float) -> tuple[Image, Image]:
    """Thin strokes in two ways, uint8. First those of red ink: how much more of the green light than of the red they
    take away from what is around them. On a coloured fill, where red ink looks dark, it still shows; and fills, flags
    and photographs vanish, because only what is thinner than 2.8 mm stands out from its surroundings. Second all
    strokes: what they take of the green. JPEG keeps colour at half the resolution, and at 100 dpi letters and double
    lines melt in the first; in the second black letters across the red ones show as well."""
    side = int(2.8 * dpi / MM_PER_INCH) | 1
    hat = cv2.morphologyEx(flat, cv2.MORPH_BLACKHAT, np.ones((side, side), np.uint8))
    red, green, _ = cv2.split(hat)
    return cv2.subtract(green, red), green


def _where_red(colour: Image, all_of_it: Image) -> Image:
    """All strokes where ink is red, at 100 dpi."""
    near = int(1.0 * DPI / MM_PER_INCH) | 1
    share = cv2.divide(cv2.blur(colour, (near, near)), cv2.add(cv2.blur(all_of_it, (near, near)), 3), scale=255)
    # From 0.15 (black ink, noise) to 0.4 (red ink on white has 0.6 to 1).
    return cv2.multiply(all_of_it, cv2.subtract(share, 38), scale=1 / 64)


def _overlap(a: Box, b: Box) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    least = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w * h / least if w > 0 and h > 0 and least > 0 else 0.0


Rectangle = tuple[tuple[float, float], tuple[float, float], float]  # centre, size, angle; pixels at DPI


def _rectangles(ink: Image, level: int, red: bool) -> list[tuple[Rectangle, bool]]:
    """Lying rectangles of a mark's size, each with whether it stands alone (is no hole in something larger)."""
    mask = (ink > level).astype(np.uint8)
    found: list[tuple[Rectangle, bool]] = []
    # Closing by 1.3 mm joins a double border, by 2.8 mm a border with gaps; dark ink has text at every side.
    for reach in (5, 11) if red else (3, 5):
        closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
        contours, tree = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        if tree is None:
            continue
        for contour, (_, _, _, parent) in zip(contours, tree[0], strict=True):
            if len(contour) < 4:
                continue
            _, _, w, h = cv2.boundingRect(contour)
            if w < 45 or h < 15 or w > 270 or h > 140:  # quick; pixels of 0.25 mm
                continue
            rectangle = _lying(contour)
            if rectangle is None:
                continue
            whole = parent < 0
            if not whole:
                outer = _lying(contours[parent])
                whole = outer is not None and max(np.subtract(outer[1], rectangle[1])) < 7 * DPI / MM_PER_INCH
            if not _near(rectangle, found):
                found.append((rectangle, whole))
    return found[:60]


def _near(rectangle: Rectangle, found: list[tuple[Rectangle, bool]]) -> bool:
    """Whether it was found before."""
    return any(
        np.hypot(old[0][0] - rectangle[0][0], old[0][1] - rectangle[0][1]) < 2.5
        and max(abs(np.subtract(old[1], rectangle[1]))) < 5
        for old, _ in found
    )


#: A line of a frame, turned by the common angle: left, right, height on the page; pixels at DPI.
Line = tuple[float, float, float]


def _pairs(ink: Image, level: int) -> list[Rectangle]:
    """Rectangles between two parallel lines, for frames that run together with other red things (a stamp, an emblem, a
    circle drawn by hand), whose contour says nothing."""
    capped = cv2.convertScaleAbs(np.minimum(ink, 4 * level), alpha=255 / (4 * level))
    strong = cv2.threshold(capped, 60, 255, cv2.THRESH_BINARY)[1]
    if cv2.countNonZero(strong) > 0.15 * capped.size:
        return []  # a page full of red: a photograph
    px = DPI / MM_PER_INCH
    # Only where red things stand: the detector takes 60 ms for the whole of a page that is nearly all white.
    near = int(3 * px) | 1
    regions = np.ascontiguousarray(cv2.dilate(strong, np.ones((near, near), np.uint8))[::4, ::4])
    _, _, stats, _ = cv2.connectedComponentsWithStats(regions)
    detector = cv2.createLineSegmentDetector(cv2.LSD_REFINE_NONE, 1.0)
    pieces = []
    for left, top, w, h, _ in (4 * stats[1:]).tolist():
        if w < WIDTH_MM[0] * px or h < 6 * px:
            continue
        detected = detector.detect(np.ascontiguousarray(capped[top : top + h, left : left + w]))[0]
        if detected is not None:
            pieces.append(detected.reshape(-1, 4) + np.array([left, top, left, top], np.float32))
    if not pieces:
        return []
    x0, y0, x1, y1 = np.concatenate(pieces).T
    turned = x0 > x1
    x0, y0, x1, y1 = (np.where(turned, a, b) for a, b in ((x1, x0), (y1, y0), (x0, x1), (y0, y1)))
    length = np.hypot(x1 - x0, y1 - y0)
    angle = np.degrees(np.arctan2(y1 - y0, x1 - x0))
    pick = np.flatnonzero((np.abs(angle) <= TILT) & (length > 2.5 * px))
    pick = pick[np.argsort(-length[pick])][:400]
    found: list[Rectangle] = []
    # Long pieces say the angle; all that lie along it are joined to lines.
    for tilt in np.unique(np.round(angle[pick][length[pick] > 7 * px])):
        near = pick[np.abs(angle[pick] - tilt) < 2.0]
        c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        lines = _lines(
            np.stack([x0 * c + y0 * s, x1 * c + y1 * s, (-(x0 + x1) * s + (y0 + y1) * c) / 2], axis=1)[near], px
        )
        for i, (left, right, top) in enumerate(lines):
            for other_left, other_right, bottom in lines[i + 1 :]:
                high = bottom - top
                if high > 12.5 * px:
                    break
                if high < 6.0 * px or min(right, other_right) - max(left, other_left) < 10 * px:
                    continue
                for a, b in {
                    (min(left, other_left), max(right, other_right)),
                    (max(left, other_left), min(right, other_right)),
                }:
                    if not WIDTH_MM[0] * px <= b - a <= WIDTH_MM[1] * px or b - a < 1.5 * high:
                        continue
                    u, v = (a + b) / 2, (top + bottom) / 2
                    rectangle = (float(u * c - v * s), float(u * s + v * c)), (float(b - a), float(high)), float(tilt)
                    if not _near(rectangle, [(old, True) for old in found]):
                        found.append(rectangle)
    return found[:60]


def _lines(pieces: np.ndarray, px: float) -> list[Line]:
    """Join pieces (left, right, height) at one height with gaps of at most 4 mm; the lines at least 12 mm long of which
    more than half is there, from top to bottom."""
    lines: list[Line] = []
    rest = pieces[np.argsort(pieces[:, 2])]
    while len(rest):
        longest = int((rest[:, 1] - rest[:, 0]).argmax())
        level = np.abs(rest[:, 2] - rest[longest, 2]) < 0.45 * px
        group, rest = rest[level], rest[~level]
        group = group[np.argsort(group[:, 0])]
        left, right, height, seen = group[0, 0], group[0, 1], group[0, 2], group[0, 1] - group[0, 0]
        for a, b, y in [*group[1:].tolist(), (1e9, 1e9, 0.0)]:
            if a - right > 4 * px:
                if right - left >= 12 * px and seen > 0.5 * (right - left):
                    lines.append((float(left), float(right), float(height)))
                left, right, height, seen = a, b, y, b - a
            else:
                seen += max(b - max(a, right), 0)
                right = max(right, b)
    return sorted(lines, key=lambda line: line[2])[:80]


def _lying(contour: np.ndarray) -> Rectangle | None:
    (x, y), (w, h), angle = cv2.minAreaRect(contour)
    if w < h:
        w, h, angle = h, w, angle + 90
    angle = (angle + 90) % 180 - 90
    px = DPI / MM_PER_INCH
    if not (WIDTH_MM[0] * px <= w <= WIDTH_MM[1] * px and HEIGHT_MM[0] * px <= h <= HEIGHT_MM[1] * px):
        return None
    if abs(angle) > TILT or w < 1.5 * h:
        return None
    return (x, y), (w, h), angle


def _sided(ink: Image, level: int, rectangle: Rectangle) -> bool:
    """Whether at least three sides of a rectangle have ink along more than half of them, at a glance."""
    (x, y), (w, h), angle = rectangle
    deep = 1.6 * DPI / MM_PER_INCH
    matrix = cv2.getRotationMatrix2D((x, y), angle, 1.0)
    out_w, out_h = int(w + 2 * deep), int(h + 2 * deep)
    matrix[0, 2] += out_w / 2 - x
    matrix[1, 2] += out_h / 2 - y
    there = cv2.warpAffine(ink, matrix, (out_w, out_h), flags=cv2.INTER_LINEAR) > 0.6 * level
    edge, inner = int(deep), int(2 * deep)
    middle, along = there[edge:-edge], there[:, edge:-edge]
    sides = (
        along[:inner].any(axis=0),
        along[-inner:].any(axis=0),
        middle[:, :inner].any(axis=1),
        middle[:, -inner:].any(axis=1),
    )
    return sum(side.mean() > 0.5 for side in sides) >= 3


_PX = 8.0  # pixels per mm of a straightened piece
_MARGIN = 2.5  # mm around it


def _straightened(full: Image, rectangle: Rectangle, red: bool) -> list[Image]:
    """The ink of a box, upright, 8 pixels per mm, with 2.5 mm around it; stretched so that its ink is 255. Red ink in
    the two ways of `_strokes`."""
    factor = READ_DPI / DPI
    (x, y), (w, h), angle = rectangle
    x, y, w, h = x * factor, y * factor, w * factor, h * factor
    px = READ_DPI / MM_PER_INCH
    reach = int(np.hypot(w, h) / 2 + 12 * px)
    x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
    flat = flatten(np.ascontiguousarray(full[y0 : int(y) + reach, x0 : int(x) + reach]))
    inks = _strokes(flat, READ_DPI) if red else (darkness(flat),)
    zoom = _PX / px
    out_w, out_h = int(w * zoom + 2 * _MARGIN * _PX), int(h * zoom + 2 * _MARGIN * _PX)
    matrix = cv2.getRotationMatrix2D((x - x0, y - y0), angle, zoom)
    matrix[0, 2] += out_w / 2 - (x - x0)
    matrix[1, 2] += out_h / 2 - (y - y0)
    pieces = []
    for ink in inks:
        piece = cv2.warpAffine(ink, matrix, (out_w, out_h), flags=cv2.INTER_LINEAR)
        strong = max(float(np.percentile(piece, 93)), 24.0)
        pieces.append(np.asarray(cv2.convertScaleAbs(piece, alpha=255 / strong), np.uint8))
    return pieces


def _side(zone: Image, pieces: int) -> tuple[float | None, bool, float]:
    """One side of a frame. zone: rows from the outside in, its columns along the side. Returns how far in its innermost
    line ends (None: there is no straight line), whether the line is double, and how much of it is there (tops of
    letters make a line with gaps). The side is looked at in short pieces, so that neither a tilt that is left nor text
    across the line matters."""
    at, first, second, ends = [], [], [], []
    edges = np.linspace(0, zone.shape[1], pieces + 1).astype(np.int64)
    total = np.zeros((zone.shape[0], zone.shape[1] + 1), np.float32)
    np.cumsum(zone, axis=1, out=total[:, 1:])
    means = (total[:, edges[1:]] - total[:, edges[:-1]]) / np.maximum(np.diff(edges), 1)
    profiles = np.zeros_like(means)
    profiles[1:-1] = 0.25 * means[:-2] + 0.5 * means[1:-1] + 0.25 * means[2:]
    profiles[0], profiles[-1] = 0.5 * means[0] + 0.25 * means[1], 0.5 * means[-1] + 0.25 * means[-2]
    tops = (profiles[1:-1] > 70) & (profiles[1:-1] >= profiles[:-2]) & (profiles[1:-1] > profiles[2:])
    for number in np.flatnonzero(tops.any(axis=0)).tolist():
        profile = profiles[:, number]
        peaks = np.flatnonzero(tops[:, number]) + 1
        at.append(number)
        first.append(int(peaks[0]))
        inner = first[-1]
        for peak in peaks[1:]:
            gap = (peak - first[-1]) / _PX
            if 0.6 <= gap <= 1.9 and profile[first[-1] : peak].min() < 0.82 * min(profile[first[-1]], profile[peak]):
                inner = int(peak)
                second.append(inner)
                break
        last = inner
        below = np.flatnonzero(profile[last:] < 50)
        ends.append(last + int(below[0]) if len(below) and below[0] < 1.4 * _PX else last + int(0.5 * _PX))
    if len(at) < 0.7 * pieces:
        return None, False, 0.0
    # Straight: an arc (oval stamps, circled words) bends by millimetres. A gap in the outer line of a double border
    # shows the inner one, hence the median.
    places = np.array(first, np.float64)
    slope, offset = np.polyfit(at, places, 1)
    if abs(slope) * pieces > 1.3 * _PX or np.median(np.abs(places - slope * np.array(at) - offset)) > 0.3 * _PX:
        return None, False, 0.0
    if np.mean(np.abs(places - np.median(places)) > 1.3 * _PX) > 0.25:
        return None, False, 0.0
    double = len(second) >= 0.65 * len(first)
    columns = np.arange(zone.shape[1])
    middle = np.rint(offset + slope * (columns * pieces / zone.shape[1] - 0.5)).astype(np.int64)
    rows = np.clip(middle + np.arange(-4, 5)[:, None], 0, len(zone) - 1)
    there = float((zone[rows, columns].max(axis=0) > 60).mean())
    return float(np.percentile(ends, 70)), double, there


#: A frame nobody can read is shown to a person when its lines are there, not just tops of letters, and when it is as
#: high inside as a stamp (8 mm between the middles of its lines, less when scanned smaller).
_SOLID, _LEAST_INSIDE_MM = 0.8, 5.0


def _borders(piece: Image) -> tuple[int, bool, bool, Image | None]:
    """How many sides have a line, whether lines are double, whether they are a frame beyond doubt, and what is inside
    them."""
    height, width = piece.shape
    pad = int(_MARGIN * _PX)
    deep, start = int(pad + 2.3 * _PX), int(pad + 1.0 * _PX)
    along, down = slice(start, width - start), slice(start, height - start)
    sides = (
        _side(piece[down, :deep].T, 6),
        _side(piece[:deep, along], 10),
        _side(piece[down, ::-1][:, :deep].T, 6),
        _side(piece[::-1, along][:deep], 10),
    )
    borders = sum(1 for place, _, _ in sides if place is not None)
    double = sum(1 for _, twice, _ in sides if twice) >= 2
    if borders < 3:
        return borders, double, False, None
    left, top, right, bottom = (int((pad if place is None else place) + 0.1 * _PX) for place, _, _ in sides)
    inside = piece[top : height - bottom, left : width - right]
    if inside.shape[0] < 2.5 * _PX or inside.shape[1] < 8 * _PX:
        return borders, double, False, None
    solid = all(there >= _SOLID for place, _, there in sides if place is not None)
    return borders, double, solid and inside.shape[0] >= _LEAST_INSIDE_MM * _PX, inside


@cache
def _reader() -> Any | None:
    """Tesseract with Vietnamese data, or None when either is missing."""
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")
    try:
        import tesserocr
    except ImportError:
        return None
    places = [os.environ.get("TESSDATA_PREFIX", ""), "/usr/share/tesseract-ocr/5/tessdata", "/usr/share/tessdata"]
    for place in places:
        if place and (Path(place) / "vie.traineddata").is_file():
            return tesserocr.PyTessBaseAPI(path=place, lang="vie", psm=tesserocr.PSM.SINGLE_LINE)
    return None


def _read(inside: Image, width_mm: float, ways: int = 5) -> tuple[str, int]:
    """The line inside a frame, and the confidence of the reading; empty without OCR. Read in up to five ways: sizes,
    raw line, word (a reading takes 7 ms); the first that is a mark counts, else the most confident."""
    reader = _reader()
    if reader is None:
        return "", 0
    readings = []
    for height, mode in ((60.0, 7), (44.0, 7), (84.0, 7), (60.0, 13), (44.0, 8))[:ways]:
        factor = height / inside.shape[0]
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        grey = cv2.bitwise_not(cv2.resize(inside, None, fx=factor, fy=factor, interpolation=how))
        grey = np.ascontiguousarray(cv2.copyMakeBorder(grey, 20, 20, 20, 20, cv2.BORDER_CONSTANT, value=255))
        reader.SetPageSegMode(mode)
        reader.SetImageBytes(grey.tobytes(), grey.shape[1], grey.shape[0], 1, grey.shape[1])
        reader.SetSourceResolution(300)
        text = " ".join(reader.GetUTF8Text().split())
        if _match(_folded(_letters(text)), width_mm):
            return text, 100
        readings.append((int(reader.MeanTextConf()), text))
    confidence, text = max(readings)
    return text, confidence


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFC", text).upper() if c.isalpha())


def _folded(letters: str) -> str:
    plain = unicodedata.normalize("NFD", letters.replace("Đ", "D"))
    return "".join(c for c in plain if "A" <= c <= "Z")


def _match(folded: str, width_mm: float) -> str | None:
    """The mark that was read: exact, or with one wrong letter in seven; a short word does not fill a long frame."""
    if folded.startswith("GIAIMAT"):
        return "GIAIMAT"
    if folded in MARKS:
        return folded if len(folded) > 4 or width_mm < 27 else None
    near = [mark for mark in MARKS if len(mark) >= 7 and _distance(folded, mark) <= len(mark) // 7]
    return near[0] if len(near) == 1 else None


#: Width of the inside of a stamp in mm (rules 2.1, 2.2), outer border not counted.
_WIDTHS = {"MAT": 20, "TOIMAT": 30, "TUYETMAT": 40, "KHAN": 20, "HOATOC": 30, "THUONGKHAN": 40, "HOATOCHENGIO": 44}


def _nearest(folded: str, frame: Frame) -> str | None:
    """The mark most like what was read, among those that such a frame holds (a double border: secrecy); None when none
    is like it. Enough for a person to look (grade weak). A frame of which one side is not there has to be read better,
    and may be shorter than it was."""
    if len(folded) < 3 or (frame.borders < 4 and not frame.solid):
        return None
    fitting = [
        mark
        for mark, width in _WIDTHS.items()
        if (frame.borders < 4 or 0.8 * width <= frame.width_mm)
        and frame.width_mm <= 1.2 * width + 2
        and (MARKS[mark][0] == "secrecy" if frame.double else True)
    ]
    ranked = sorted((_distance(folded, mark) / max(len(mark), len(folded)), mark) for mark in fitting)
    return ranked[0][1] if ranked and ranked[0][0] <= (0.45 if frame.borders == 4 else 0.28) else None


def _distance(a: str, b: str) -> int:
    """Edit distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
