"""Text of pages that are pictures, through Tesseract on this machine (tesserocr with Vietnamese data).

Nothing leaves the machine. The head of page 1 comes first: it carries marks, number, date and abstract; then the page
with the signature block, then others while time is left. Pages are rendered at 200 dpi: 300 gains nothing and costs
half as much again. They are read in grey: the red channel alone would make red marks vanish.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import vietnamese
from gateway.inspection.segments import Segment

if TYPE_CHECKING:
    from gateway.inspection.pages import Pages

DPI = 200
LANGUAGE = "vie"
#: The part of page 1 that holds agency, number, place, date, kind and abstract. It is read first and by itself: half
#: the work of the page.
HEAD = 0.36
#: Where distributions keep the language data; TESSDATA_PREFIX wins.
_FOLDERS = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)


class Unavailable(Exception):
    """No OCR on this machine. The text says what is missing."""


def data_folder() -> Path:
    """The folder with `vie.traineddata`. Raises Unavailable."""
    named = os.environ.get("TESSDATA_PREFIX", "")
    for folder in ([named, f"{named}/tessdata"] if named else []) + list(_FOLDERS):
        if (Path(folder) / f"{LANGUAGE}.traineddata").is_file():
            return Path(folder)
    raise Unavailable(f"no {LANGUAGE}.traineddata for Tesseract")


_api: Any = None


def engine() -> Any:
    """The recogniser, kept for the life of the process: loading the model takes 0.1 s. Raises Unavailable."""
    global _api
    if _api is None:
        # One thread: the pool of workers is the parallelism, and OpenMP only fights over the cores.
        os.environ.setdefault("OMP_THREAD_LIMIT", "1")
        folder = data_folder()
        try:
            import tesserocr
        except ImportError as error:
            raise Unavailable(f"tesserocr is not installed: {error}") from None
        try:
            _api = tesserocr.PyTessBaseAPI(path=str(folder), lang=LANGUAGE, psm=tesserocr.PSM.AUTO)
        except RuntimeError as error:
            raise Unavailable(f"Tesseract does not start: {error}") from None
        if hasattr(tesserocr, "set_leptonica_log_level"):
            tesserocr.set_leptonica_log_level(
                tesserocr.LeptLogLevel.NONE
            )  # it writes to stderr about every odd picture
        _api.SetVariable("preserve_interword_spaces", "1")  # columns stay apart
        _api.SetVariable("invert_threshold", "0")  # no second try at light letters on dark ground: stamps are not
    return _api


def order(count: int, most: int, signed: int | None = None) -> list[int]:
    """Which pages are read, in this order: the first, the signed one, the last, the second, …; from 1.

    signed: the page with a seal or a signature box, when one was seen.
    """
    back_and_forth = [n for pair in zip(range(1, count + 1), range(count, 0, -1), strict=True) for n in pair]
    pages = [1, signed, *back_and_forth] if signed else back_and_forth
    return list(dict.fromkeys(n for n in pages if 1 <= n <= count))[:most]


def head(pages: Pages, seconds: float) -> list[Segment]:
    """The upper part of page 1: agency, number, place and date, kind, abstract, and where marks stand.

    Raises Unavailable, and PageError when the page cannot be shown.
    """
    engine()
    end = time.monotonic() + seconds
    grey = _grey(pages, 1)
    # Tesseract reads lines that go up the page without a word of it, and the head is cut elsewhere then.
    if grey.shape[1] > grey.shape[0] and _turned(pages, 1, seconds):
        grey = _grey(pages, 1)
    grey = grey[: _cut(grey)]
    text, sure = _recognised(grey, max(end - time.monotonic(), 0.1))
    if sure < DOUBTFUL and (left := end - time.monotonic()) > 1.0 and _turned(pages, 1, left):
        grey = _grey(pages, 1)
        grey = grey[: _cut(grey)]
        text, _ = _recognised(grey, end - time.monotonic())
    if not _NUMBER.search(text):
        text = _with_number(text, grey, end)
    return [Segment("trang 1 (bản quét)", text, 1, "ocr")] if text.strip() else []


def read(pages: Pages, wanted: Iterable[int], seconds: float) -> list[Segment]:
    """The text of the wanted pages, as many as the time allows; of page 1 what `head` leaves.

    Raises Unavailable.
    """
    engine()
    end = time.monotonic() + seconds
    segments: list[Segment] = []
    for number in wanted:
        left = end - time.monotonic()
        if left < 0.5:
            break
        try:
            grey = _grey(pages, number)
        except Exception as error:  # PageError; one page that cannot be shown hides no other
            if not type(error).__module__.startswith("gateway."):
                raise
            continue
        text, sure = _recognised(grey[_cut(grey) :] if number == 1 else grey, left)
        if number > 1 and sure < DOUBTFUL and (left := end - time.monotonic()) > 1.0 and _turned(pages, number, left):
            text, _ = _recognised(_grey(pages, number), end - time.monotonic())
        if text.strip():
            segments.append(Segment(f"trang {number} (bản quét)", text, number, "ocr"))
    return segments


#: Mean confidence, of 100, under which a page may lie on its side: upright text of printers and faxes has 85 to 96,
#: the same turned 30 to 50. What is taken for upright in its place has to be read by that much better.
DOUBTFUL, _BETTER = 70, 15


def _turned(pages: Pages, number: int, seconds: float) -> bool:
    """Turn a page that was scanned upside down or sideways; False when no way reads clearly better. A strip of a
    quarter of the page is read in each."""
    import numpy as np

    end = time.monotonic() + seconds
    grey = _grey(pages, number)
    read = {}
    for quarters in (0, 2, 1, 3):
        if (left := end - time.monotonic()) < 0.3:
            return False
        way = np.rot90(grey, quarters)
        height = way.shape[0]
        strip = np.ascontiguousarray(way[height * 3 // 10 : height * 11 // 20])
        # As one block: with its own layout analysis Tesseract reads lines that go up or down the page as well.
        text, sure = _recognised(strip, left, block=True)
        read[quarters] = sure if len(text.split()) >= 5 else 0
        if read[quarters] >= 85:
            break
    best = max(read, key=read.__getitem__)
    if not best or read[best] < max(DOUBTFUL, read[0] + _BETTER):
        return False
    pages.turn(number, best)
    return True


def _grey(pages: Pages, number: int) -> Any:
    import cv2  # the pages come through it

    return cv2.cvtColor(pages.image(number, DPI), cv2.COLOR_RGB2GRAY)


def _cut(grey: Any) -> int:
    """The row that parts the head of a page from the rest: the one with least ink about there, so that no line of text
    is cut."""
    height = grey.shape[0]
    first = int(height * (HEAD - 0.03))
    ink = (grey[first : int(height * (HEAD + 0.03)), ::4] < 140).sum(axis=1)
    if not len(ink):
        return height
    quiet = (ink <= ink.min() + 1).nonzero()[0]
    return first + int(quiet[len(quiet) // 2])


_NUMBER = re.compile(r"(?m)^[^\w\n]*+S[ốôó]\s*[:.]?\s*\d{1,6}[a-z]?\s{0,20}/\s?[A-ZĐ][^\n]*$")
_NUMBER_LINE = re.compile(r"(?m)^[^\w\n]*+S[ỐốÔôÓó]\s*[:.][^\n]*$")


def _with_number(text: str, grey: Any, end: float) -> str:
    """Layout analysis takes a number put into a gap of its line for a picture: where the line `Số:` of page 1 makes no
    number, the head is read again as one block, then larger, and that line is taken from there when it does."""
    if (left := end - time.monotonic()) < 0.5:
        return text
    better = _NUMBER.search(recognise(grey, left, block=True))
    if not better and (left := end - time.monotonic()) > 0.5:
        import cv2

        larger = cv2.resize(cv2.medianBlur(grey, 3), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
        better = _NUMBER.search(recognise(larger, left, block=True))
    if not better:
        return text
    if worse := _NUMBER_LINE.search(text):
        return text[: worse.start()] + better[0] + text[worse.end() :]
    return better[0] + "\n" + text


def recognise(grey: Any, seconds: float, *, block: bool = False) -> str:
    """The text of one grey picture (height × width, uint8); what was read when the time is over.

    block: take it for one block of text, without looking for columns and pictures.
    """
    return _recognised(grey, seconds, block=block)[0]


def _recognised(grey: Any, seconds: float, *, block: bool = False) -> tuple[str, int]:
    """The text, and how sure of it Tesseract is on the whole (0 to 100; 0 where it found none)."""
    import tesserocr

    api = engine()
    height, width = grey.shape
    api.SetPageSegMode(tesserocr.PSM.SINGLE_BLOCK if block else tesserocr.PSM.AUTO)
    api.SetImageBytes(grey.tobytes(), width, height, 1, width)
    api.SetSourceResolution(DPI)
    try:
        api.Recognize(max(int(seconds * 1000), 1))
        text, sure = api.GetUTF8Text(), int(api.MeanTextConf())
    finally:
        api.Clear()
    return vietnamese.nfc(text), sure if text.strip() else 0
