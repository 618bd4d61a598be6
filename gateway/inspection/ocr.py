"""Text of pages that are pictures, through Tesseract on this machine (tesserocr with Vietnamese data).

Nothing leaves the machine (rules.md 2.2). Page 1 comes first: it carries marks, number, date and abstract; then the
last page with the signature block, then others while time is left. Each page is rendered at 200 dpi: 300 gains nothing
(inspection.md). The blue channel's opposite would make red marks vanish, so pages are read in grey.
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
#: The part of page 1 that holds agency, number, place, date, kind and abstract.
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
    return _api


def order(count: int, most: int) -> list[int]:
    """Which pages are read, in this order: the first, the last, the second, the one before the last, …; from 1."""
    pages: list[int] = []
    front, back = 1, count
    while front <= back and len(pages) < most:
        pages.append(front)
        if back != front and len(pages) < most:
            pages.append(back)
        front, back = front + 1, back - 1
    return pages


def read(pages: Pages, wanted: Iterable[int], seconds: float) -> list[Segment]:
    """The text of the wanted pages, as many as the time allows; page 1 is never skipped for lack of it.

    Raises Unavailable, and PageError when the first wanted page cannot be shown.
    """
    engine()
    end = time.monotonic() + seconds
    segments: list[Segment] = []
    for number in wanted:
        left = end - time.monotonic()
        if segments and left < 0.5:
            break
        image = pages.image(number, DPI)
        # ITU-R 601 luma by integer weights; numpy, so that nothing else is imported
        grey = ((image[:, :, 0] * 77.0 + image[:, :, 1] * 150.0 + image[:, :, 2] * 29.0) / 256).astype("uint8")
        text = _page(grey, max(left, 1.0), first=number == 1)
        if text.strip():
            segments.append(Segment(f"trang {number} (bản quét)", text, number, "ocr"))
    return segments


_NUMBER = re.compile(r"(?m)^\W*S[ốôó]\s*[:.]?\s*\d{1,6}[a-z]?\s{0,20}/\s?[A-ZĐ][^\n]*$")
_NUMBER_LINE = re.compile(r"(?m)^\W*S[ỐốÔôÓó]\s*[:.][^\n]*$")


def _page(grey: Any, seconds: float, *, first: bool) -> str:
    """One page. Layout analysis takes a number put into a gap of its line for a picture: where the line `Số:` of page 1
    makes no number, the head is read a second time as one block, and that line is taken from there when it does."""
    end = time.monotonic() + seconds
    text = recognise(grey, seconds)
    left = end - time.monotonic()
    if not first or left < 0.5 or _NUMBER.search(text):
        return text
    head = grey[: int(grey.shape[0] * HEAD)]
    better = _NUMBER.search(recognise(head, left, block=True))
    if not better and (left := end - time.monotonic()) > 0.5:
        import cv2  # the pages came through it

        larger = cv2.resize(cv2.medianBlur(head, 3), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
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
    import tesserocr

    api = engine()
    height, width = grey.shape
    api.SetPageSegMode(tesserocr.PSM.SINGLE_BLOCK if block else tesserocr.PSM.AUTO)
    api.SetImageBytes(grey.tobytes(), width, height, 1, width)
    api.SetSourceResolution(DPI)
    try:
        api.Recognize(int(seconds * 1000))
        text = api.GetUTF8Text()
    finally:
        api.Clear()
    return vietnamese.nfc(text)
