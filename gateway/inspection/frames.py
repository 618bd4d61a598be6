"""Secrecy and urgency marks stamped in frames, seen on the picture of a page.

MẬT and KHẨN are both 20 × 8 mm, TỐI MẬT and HỎA TỐC 30 × 8, TUYỆT MẬT and THƯỢNG KHẨN 40 × 8: a double border (1 mm
apart) is secrecy, a single one urgency. OCR of whole pages garbles framed marks and drops red ones, so frames are looked
for by themselves: in the map of red ink, then in that of dark ink; each is straightened, its borders are counted, and
only its inside is read as one line. A red frame that cannot be read is a case for a person (`red_box`).

The evidence of a secrecy finding stays empty, as everywhere.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from gateway.inspection.findings import Finding
from gateway.inspection.pages import MM_PER_INCH, Image, PageError, Pages, colourless, darkness, flatten, redness

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
    two lines on at least half of them; text: as read, with confidence 0 to 100."""

    page: int
    box: Box
    red: bool
    borders: int
    double: bool
    text: str
    confidence: int
    readable: bool


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
    if match := _match(_folded(letters)):
        kind, value, spellings = MARKS[match]
        # Red and framed is evidence enough beside letters without accents; dark needs the accents too.
        strong = frame.borders >= 3 and (frame.red or letters in spellings) and value not in ("declassified",)
        if kind != "secrecy":
            return Finding(
                kind=kind, value=value, grade="strong" if strong else "weak", where=where, evidence=frame.text
            )
        return Finding(kind=kind, value=value, grade="strong" if strong else "weak", where=where)
    if frame.red and frame.borders == 4 and not frame.readable:
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
        frames = _frames(pages, n, redness(flat), red=True)
    if pages.is_scan(n) and not any(judge(frame) for frame in frames):
        frames += _frames(pages, n, darkness(flat), red=False)
    return frames


def _frames(pages: Pages, n: int, ink: Image, *, red: bool) -> list[Frame]:
    rectangles = _rectangles(ink, red)
    if not rectangles:
        return []
    found: list[tuple[Frame, Image]] = []
    full = pages.image(n, READ_DPI)
    for rectangle, whole in rectangles:
        piece = _straightened(full, rectangle, red)
        borders, double, inside = _borders(piece)
        if borders < (3 if whole else 4) or inside is None:
            continue
        (x, y), (w, h), _ = rectangle
        height, width = full.shape[0] * DPI / READ_DPI, full.shape[1] * DPI / READ_DPI
        box = tuple(
            round(min(max(v, 0.0), 1.0), 4)
            for v in ((x - w / 2) / width, (y - h / 2) / height, (x + w / 2) / width, (y + h / 2) / height)
        )
        # A hole in a larger thing (a cell of a table or of a stamp) counts only when a mark is read in it.
        found.append((Frame(n, box, red, borders, double, "", 0, not whole), inside))  # type: ignore[arg-type]
    found.sort(key=lambda pair: (-pair[0].borders - 4 * pair[0].double, pair[0].box[1]))
    frames: list[Frame] = []
    for frame, inside in found[:READINGS]:
        text, confidence = _read(inside)
        letters = _folded(_letters(text))
        readable = frame.readable or inside.max() < 40 or (len(letters) >= 4 and confidence >= 75)
        frame = Frame(frame.page, frame.box, frame.red, frame.borders, frame.double, text, confidence, readable)
        same = [old for old in frames if _overlap(old.box, frame.box) > 0.4]
        if not same:
            frames.append(frame)
        elif _match(letters) and not any(_match(_folded(_letters(old.text))) for old in same):
            frames = [old for old in frames if old not in same] + [frame]
    return frames


def _overlap(a: Box, b: Box) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    least = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w * h / least if w > 0 and h > 0 and least > 0 else 0.0


Rectangle = tuple[tuple[float, float], tuple[float, float], float]  # centre, size, angle; pixels at DPI


def _rectangles(ink: Image, red: bool) -> list[tuple[Rectangle, bool]]:
    """Lying rectangles of a mark's size, each with whether it is a thing of its own (not a hole in something larger)."""
    level = max(18, 4 * int(np.percentile(ink[::4, ::4], 80))) if red else 70
    mask = (ink > min(level, 60 if red else 70)).astype(np.uint8)
    found: list[tuple[Rectangle, bool]] = []
    # Closing by 1.3 mm joins a double border, by 2.8 mm a border with gaps; dark ink has text at every side.
    for reach in (5, 11) if red else (3,):
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
            if not red and not whole:
                continue
            near = [
                i
                for i, (old, _) in enumerate(found)
                if np.hypot(old[0][0] - rectangle[0][0], old[0][1] - rectangle[0][1]) < 6
                and max(abs(np.subtract(old[1], rectangle[1]))) < 10
            ]
            if not near:
                found.append((rectangle, whole))
    return found[:60]


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


_PX = 8.0  # pixels per mm of a straightened piece
_MARGIN = 2.5  # mm around it


def _straightened(full: Image, rectangle: Rectangle, red: bool) -> Image:
    """The ink of a box, upright, 8 pixels per mm, with 2.5 mm around it; stretched so that its ink is 255."""
    factor = READ_DPI / DPI
    (x, y), (w, h), angle = rectangle
    x, y, w, h = x * factor, y * factor, w * factor, h * factor
    px = READ_DPI / MM_PER_INCH
    reach = int(np.hypot(w, h) / 2 + 12 * px)
    x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
    flat = flatten(np.ascontiguousarray(full[y0 : int(y) + reach, x0 : int(x) + reach]))
    ink = redness(flat) if red else darkness(flat)
    zoom = _PX / px
    out_w, out_h = int(w * zoom + 2 * _MARGIN * _PX), int(h * zoom + 2 * _MARGIN * _PX)
    matrix = cv2.getRotationMatrix2D((x - x0, y - y0), angle, zoom)
    matrix[0, 2] += out_w / 2 - (x - x0)
    matrix[1, 2] += out_h / 2 - (y - y0)
    piece = cv2.warpAffine(ink, matrix, (out_w, out_h), flags=cv2.INTER_LINEAR)
    strong = max(float(np.percentile(piece, 93)), 24.0)
    return cv2.convertScaleAbs(piece, alpha=255 / strong)


def _lines(cover: np.ndarray, least: float, end: int) -> list[float]:
    """Middles of the lines within `end` pixels of the start of a profile."""
    on = np.concatenate([[False], cover[:end] >= least, [False]])
    edges = np.flatnonzero(np.diff(on.astype(np.int8)))
    return [float(a + b - 1) / 2 for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a < 1.6 * _PX]


def _borders(piece: Image) -> tuple[int, bool, Image | None]:
    """How many sides have a line, whether lines are double, and what is inside them."""
    height, width = piece.shape
    mask = piece > 100
    pad = int(_MARGIN * _PX)
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((3, 1), np.uint8))[:, int(pad * 1.8) : width - int(pad * 1.8)]
    tall = cv2.dilate(mask.astype(np.uint8), np.ones((1, 3), np.uint8))[int(pad * 1.8) : height - int(pad * 1.8)]
    rows, columns = wide.mean(axis=1), tall.mean(axis=0)
    reach_y, reach_x = int(pad + 2.6 * _PX), int(pad + 2.6 * _PX)
    top, bottom = _lines(rows, 0.5, reach_y), _lines(rows[::-1], 0.5, reach_y)
    left, right = _lines(columns, 0.6, reach_x), _lines(columns[::-1], 0.6, reach_x)
    sides = (left, top, right, bottom)
    borders = sum(1 for side in sides if side)
    twice = sum(
        1 for side in sides if any(0.55 * _PX <= b - a <= 1.9 * _PX for a, b in zip(side[:-1], side[1:], strict=True))
    )
    if borders < 3:
        return borders, False, None
    inset = [int(max(side) + 0.45 * _PX) if side else pad + 2 for side in sides]
    inside = piece[inset[1] : height - inset[3], inset[0] : width - inset[2]]
    if inside.shape[0] < 2.5 * _PX or inside.shape[1] < 8 * _PX:
        return borders, twice >= 2, None
    return borders, twice >= 2, inside


@cache
def _reader() -> object | None:
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


def _read(inside: Image) -> tuple[str, int]:
    """The line inside a frame, and the confidence of the reading; empty without OCR."""
    reader = _reader()
    if reader is None:
        return "", 0
    factor = 60.0 / inside.shape[0]
    grey = cv2.bitwise_not(cv2.resize(inside, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    grey = cv2.copyMakeBorder(grey, 12, 12, 12, 12, cv2.BORDER_CONSTANT, value=255)
    grey = np.ascontiguousarray(grey)
    reader.SetImageBytes(grey.tobytes(), grey.shape[1], grey.shape[0], 1, grey.shape[1])  # type: ignore[attr-defined]
    reader.SetSourceResolution(300)  # type: ignore[attr-defined]
    text = " ".join(reader.GetUTF8Text().split())  # type: ignore[attr-defined]
    return text, int(reader.MeanTextConf())  # type: ignore[attr-defined]


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFC", text).upper() if c.isalpha())


def _folded(letters: str) -> str:
    plain = unicodedata.normalize("NFD", letters.replace("Đ", "D"))
    return "".join(c for c in plain if "A" <= c <= "Z")


def _match(folded: str) -> str | None:
    """The mark that was read: exact, or with one wrong letter in seven or more."""
    if folded in MARKS:
        return folded
    if folded.startswith("GIAIMAT"):
        return "GIAIMAT"
    near = [mark for mark in MARKS if len(mark) >= 7 and _distance(folded, mark) <= len(mark) // 7]
    return near[0] if len(near) == 1 else None


def _distance(a: str, b: str) -> int:
    """Edit distance, cut off at 4."""
    if abs(len(a) - len(b)) > 3:
        return 4
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
