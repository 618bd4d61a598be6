"""Words of a signed PDF on which something lies: prepared shadow attacks of the kind "hide".

Before the swap such a file shows what its signer saw, and nothing is wrong with its signature: a picture, a filled
shape or a form field lies over other words, and a later update only has to take the cover away. So what is drawn is
compared with what is written under it. Programs that read scans may lay the page's picture over visible words as well;
those show the same words, and are told from a cover by reading the picture in that place.
"""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher

import cv2
import numpy as np

from gateway.inspection import ocr
from gateway.inspection.findings import Finding
from gateway.inspection.pages import MM_PER_INCH, PageError, PdfPages, Words

#: Pages looked at, and words read on each: a reading takes 20 to 40 ms.
MAX_PAGES, MAX_READ = 20, 10
#: Under this share of dark pixels there are no letters in a place.
_INK = 0.01
#: Readings of the same words agree by 0.9 and more (measured on signed scans with their words under the picture), other
#: words by up to 0.45. Eight letters that agree by
#: less than the second number are others without doubt.
_ALIKE, _OTHER = 0.6, 0.5


def covered(pages: PdfPages) -> list[Finding]:
    """A finding `active/shadow` for each page on which words are hidden under something. PageError when none can be
    shown."""
    found = []
    for n in range(1, min(pages.count, MAX_PAGES) + 1):
        under = [words for words in pages.covered_words(n) if len(_letters(words.text)) >= 3]
        if under and _hidden(pages, n, under):
            found.append(Finding(kind="active", value="shadow", where=f"trang {n}", evidence="words under a cover"))
    return found


def _hidden(pages: PdfPages, n: int, under: list[Words]) -> bool:
    """Whether the longest of the covered words are not what the page shows in their place: one that is quite another,
    or most of them, because one may be misread."""
    try:
        image = pages.image(n, ocr.DPI)
    except PageError:
        return False
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    margin = int(1.0 * ocr.DPI / MM_PER_INCH)
    compared = hidden = 0
    for words in sorted(under, key=lambda one: -len(one.text))[:MAX_READ]:
        left, top, right, bottom = words.box
        x0, x1 = max(int(left * width) - margin, 0), min(int(right * width) + margin, width)
        y0, y1 = max(int(top * height) - margin, 0), min(int(bottom * height) + margin, height)
        piece = grey[y0:y1, x0:x1]
        if piece.size < 400:
            continue
        compared += 1
        paper = int(np.median(piece))
        if (np.abs(piece.astype(np.int16) - paper) > 60).mean() < _INK:
            hidden += 1
            continue
        try:
            shown = ocr.recognise(np.ascontiguousarray(piece), 2.0, block=True)
        except ocr.Unavailable:
            continue
        letters = _letters(words.text)
        alike = SequenceMatcher(None, letters, _letters(shown), autojunk=False).ratio()
        if alike < _OTHER and len(letters) >= 8:
            return True
        hidden += alike < _ALIKE
    return hidden > compared / 2


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFD", text.replace("Đ", "D").replace("đ", "d")).lower()
    return re.sub("[^a-z0-9]", "", plain)
