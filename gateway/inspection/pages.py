"""Pages as pictures: PDF through PDFium, JPEG, PNG and TIFF through OpenCV.

Everything that looks at pictures of pages (ocr, seal, frames) asks here, so that limits on pixels stand in one place.
A compressed picture can be a thousand times larger than its file (a "decompression bomb"): sizes are read from headers
and judged before a pixel is decoded. PDFium is not thread-safe: one `Pages` belongs to one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import cv2
import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Kind = Literal["colour", "grey", "bilevel"]
#: Left, bottom, right, top in PDF points.
_Box = tuple[float, float, float, float]

#: Pixels of one decoded picture: A3 at 500 dpi is 48 million, A4 at 600 dpi 35 million. 64 million are 192 MB in
#: colour, and worker memory (config.Budget.memory, 1 GB) must hold the decoded and the turned picture.
MAX_PIXELS = 64_000_000
#: Longest page side in mm; A0 is 1189. Larger pages are rendered coarser, not refused (maps, banners).
MAX_SIDE_MM = 1300.0
#: Pages of a TIFF; a chain of a million directories is an attack.
MAX_TIFF_PAGES = 2000
#: Rendered pages kept for the next question about the same page (seal after frames after OCR): 3 A4 pages at 100 dpi
#: are 9 MB.
KEPT = 3

MM_PER_INCH = 25.4
POINT_MM = MM_PER_INCH / 72

# Inspection runs in several single-threaded worker processes; threads of OpenCV would only fight over the cores.
cv2.setNumThreads(1)


class PageError(Exception):
    """A file or page that cannot be shown. value: as in Finding(kind="uninspectable"): `unreadable_scan`, `too_large`,
    `too_many`, `encrypted`."""

    def __init__(self, value: str, reason: str) -> None:
        super().__init__(reason)
        self.value = value


@dataclass(frozen=True, slots=True)
class Picture:
    """A raster image laid on a page. box: left, top, right, bottom as fractions of the page; widget: the appearance of
    an annotation (a signature box), not page content."""

    box: tuple[float, float, float, float]
    width: int
    height: int
    kind: Kind
    widget: bool = False

    @property
    def area(self) -> float:
        """Share of the page it covers, cut at the page's edges."""
        left, top, right, bottom = (min(max(v, 0.0), 1.0) for v in self.box)
        return max(right - left, 0.0) * max(bottom - top, 0.0)


@dataclass(frozen=True, slots=True)
class Words:
    """Written words of a PDF page. box: left, top, right, bottom as fractions of the page."""

    text: str
    box: tuple[float, float, float, float]


class Pages(Protocol):
    """Pages are numbered from 1."""

    count: int

    def size_mm(self, n: int) -> tuple[float, float]:
        """Width and height in millimetres."""

    def image(self, n: int, dpi: float) -> Image:
        """The page as RGB, shape (height, width, 3), uint8, read-only. PageError when it cannot be shown."""

    def is_scan(self, n: int) -> bool:
        """A raster image covers more than 70 % of the page, and there is little visible text beside it."""

    def is_pictured(self, n: int) -> bool:
        """A raster image covers more than 70 % of the page, whatever text lies over or under it; or most of its text is
        not drawn."""

    def has_text(self, n: int) -> bool:
        """The page carries characters, visible or from an earlier OCR."""

    def dpi(self, n: int) -> float | None:
        """Resolution of the scanned image under the page; None when there is none or its scale is unknown."""

    def kind(self, n: int) -> Kind:
        """How the scan was stored. A colour format may still hold a grey picture: `colourless` tells."""

    def pictures(self, n: int) -> tuple[Picture, ...]:
        """Raster images laid on the page, the scan itself among them."""

    def turn(self, n: int, quarters: int) -> None:
        """From now on the page is shown turned counter-clockwise by that many quarters: it was put into the scanner
        sideways or upside down."""

    def quarters(self, n: int) -> int:
        """By how many quarters the page was turned so far, 0 to 3."""

    def close(self) -> None: ...

    def __enter__(self) -> Pages: ...

    def __exit__(self, *exc: object) -> None: ...


def open_pages(data: bytes, type: str) -> Pages:
    """Open a file for looking at. type: short type as in FileFacts.type: pdf, jpg, png, tiff, gif, bmp, webp.

    PageError when it is broken, encrypted, over the limits, or of another type.
    """
    if type == "pdf":
        return PdfPages(data)
    if type == "tiff":
        return ImagePages(data, _tiff_headers(data), multi=True)
    if type in ("jpg", "jpeg"):
        return ImagePages(data, [_jpeg_header(data)])
    if type == "png":
        return ImagePages(data, [_png_header(data)])
    if type in ("gif", "bmp", "webp"):
        return ImagePages(data, [_small_header(data, type)])
    raise PageError("no_extractor", f"no pages can be made of {type}")


def colourless(image: Image) -> bool:
    """Whether a picture holds no colour although it is stored in three channels: a grey scan saved as RGB.

    A colour scanner leaves chroma noise of several levels on every page; of a grey scan stored as colour JPEG at most
    rounding remains. The 99.98th percentile leaves room for a few specks (200 pixels of an A4 page at 100 dpi): a seal
    has thousands.
    """
    small = image[::2, ::2]
    spread = cv2.subtract(small.max(axis=2), small.min(axis=2))
    histogram = np.bincount(spread.ravel(), minlength=256)
    return int(histogram[9:].sum()) < 0.0002 * spread.size


def two_valued(image: Image) -> bool:
    """Whether a picture is black and white only, apart from the greys that scaling makes: a bilevel scan in disguise.

    Scaling can turn most ink into grey; paper, however, stays pure white and nothing else is as light as nearly white.
    """
    grey = image if image.ndim == 2 else image[:, :, 1]
    histogram = np.bincount(grey.ravel(), minlength=256) / grey.size
    return bool(histogram[255] > 0.6 and histogram[252:255].sum() < 0.003)


class _Kept:
    """The last few renderings, by (page, dpi)."""

    def __init__(self) -> None:
        self._images: OrderedDict[tuple[int, int], Image] = OrderedDict()

    def get(self, key: tuple[int, int]) -> Image | None:
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
        return image

    def put(self, key: tuple[int, int], image: Image) -> Image:
        image.flags.writeable = False
        if image.size <= 12_000_000:  # an A4 page at 200 dpi has 11.6 million values
            self._images[key] = image
            while len(self._images) > KEPT:
                self._images.popitem(last=False)
        return image


def turned(box: tuple[float, float, float, float], quarters: int) -> tuple[float, float, float, float]:
    """Where a box (fractions of the page) lies when the page is turned counter-clockwise by that many quarters."""
    for _ in range(quarters % 4):
        box = (box[1], 1 - box[2], box[3], 1 - box[0])
    return box


class _Turning:
    """What pages look like after they were turned; how they lie in the file is said by the `_flat_` methods."""

    _turns: dict[int, int]

    def turn(self, n: int, quarters: int) -> None:
        self._turns[n] = (self._turns.get(n, 0) + quarters) % 4

    def quarters(self, n: int) -> int:
        return self._turns.get(n, 0)

    def image(self, n: int, dpi: float) -> Image:
        flat = self._flat_image(n, dpi)
        if not (quarters := self._turns.get(n, 0)):
            return flat
        turned = np.ascontiguousarray(np.rot90(flat, quarters))
        turned.flags.writeable = False
        return turned

    def size_mm(self, n: int) -> tuple[float, float]:
        width, height = self._flat_size_mm(n)
        return (height, width) if self._turns.get(n, 0) % 2 else (width, height)

    def pictures(self, n: int) -> tuple[Picture, ...]:
        found = self._flat_pictures(n)
        if quarters := self._turns.get(n, 0):
            found = tuple(replace(p, box=turned(p.box, quarters)) for p in found)
        return found

    def _flat_image(self, n: int, dpi: float) -> Image:
        raise NotImplementedError

    def _flat_size_mm(self, n: int) -> tuple[float, float]:
        raise NotImplementedError

    def _flat_pictures(self, n: int) -> tuple[Picture, ...]:
        raise NotImplementedError


class PdfPages(_Turning):
    """Pages of a PDF, with annotations and form fields drawn as a reader shows them: signature boxes are widgets."""

    def __init__(self, data: bytes) -> None:
        # Junk before the header is common in published files; PDFium searches the first kilobyte for it as readers do.
        try:
            self._pdf = pdfium.PdfDocument(data)
        except pdfium.PdfiumError as error:
            encrypted = "assword" in str(error)
            raise PageError("encrypted" if encrypted else "unreadable_scan", f"PDFium: {error}") from error
        with contextlib.suppress(pdfium.PdfiumError):  # an unreadable form must not hide the pages
            self._pdf.init_forms()
        self.count = len(self._pdf)
        self._units = _user_units(data) if b"/UserUnit" in data else {}
        self._kept = _Kept()
        self._turns = {}
        self._open: tuple[int, pdfium.PdfPage] | None = None
        self._pictures: dict[int, tuple[Picture, ...]] = {}
        self._text: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> PdfPages:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._leave()
        self._pdf.close()

    def _leave(self) -> None:
        if self._open:
            self._open[1].close()
            self._open = None

    def _page(self, n: int) -> pdfium.PdfPage:
        if not 1 <= n <= self.count:
            raise IndexError(f"page {n} of {self.count}")
        if self._open is None or self._open[0] != n:
            self._leave()
            try:
                self._open = (n, self._pdf[n - 1])
            except pdfium.PdfiumError as error:
                raise PageError("unreadable_scan", f"PDFium: page {n}: {error}") from error
        return self._open[1]

    def _flat_size_mm(self, n: int) -> tuple[float, float]:
        width, height = self._page(n).get_size()
        point = POINT_MM * self._units.get(n, 1.0)
        return max(width, 1.0) * point, max(height, 1.0) * point

    def _flat_image(self, n: int, dpi: float) -> Image:
        key = (n, round(dpi * 10))
        if (known := self._kept.get(key)) is not None:
            return known
        page = self._page(n)
        width, height = self._flat_size_mm(n)
        scale = dpi * min(1.0, MAX_SIDE_MM / max(width, height))
        if width * height * (scale / MM_PER_INCH) ** 2 > MAX_PIXELS:
            raise PageError("too_large", f"page {n} has too many pixels at {dpi:.0f} dpi")
        for picture in self._flat_pictures(n):
            if picture.width * picture.height > MAX_PIXELS:
                raise PageError("too_large", f"page {n} holds an image of {picture.width} x {picture.height} pixels")
        try:
            scale *= self._units.get(n, 1.0)
            bitmap = page.render(scale=scale / 72, rev_byteorder=True, prefer_bgrx=False, bitmap_maker=_bitmap)
        except pdfium.PdfiumError as error:
            raise PageError("unreadable_scan", f"PDFium: page {n}: {error}") from error
        image = bitmap.to_numpy()
        if image.ndim == 2 or image.shape[2] == 1:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        else:
            image = np.array(image[:, :, :3], order="C")  # the bitmap's memory ends with the bitmap
        bitmap.close()
        return self._kept.put(key, image)

    def _flat_pictures(self, n: int) -> tuple[Picture, ...]:
        if n in self._pictures:
            return self._pictures[n]
        page = self._page(n)
        found = []
        for count, image in enumerate(_images(page, page.raw, 4)):
            if count >= 500:  # strips of a scan come to a few dozen; thousands of tiles say nothing more
                break
            with contextlib.suppress(pdfium.PdfiumError):
                found.append(_picture(page, pdfium.PdfObject(image, page=page)))
        found.extend(_widget_pictures(page))
        self._pictures[n] = tuple(found)
        return self._pictures[n]

    def _scan(self, n: int) -> tuple[Picture, ...]:
        """The pictures that make up a scan: one large one, or strips and tiles that together cover the page."""
        inside = [p for p in self._flat_pictures(n) if not p.widget]
        large = [p for p in inside if p.area > 0.7]
        if large:
            return (max(large, key=lambda p: p.width * p.height),)
        strips = [p for p in inside if p.area > 0.01]
        return tuple(strips) if len(strips) > 1 and sum(p.area for p in strips) > 0.7 else ()

    def _characters(self, n: int) -> tuple[int, int]:
        """Characters on the page, and how many of them can be seen (text rendering mode 3, PDF 32000-1 section
        9.3.6, is what OCR programs lay under a scan)."""
        if n not in self._text:
            page = self._page(n)
            text = page.get_textpage()
            try:
                total = text.count_chars()
                seen = total
                if total and self._scan(n):
                    seen = 0
                    for thing in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_TEXT], max_depth=4, textpage=text):
                        mode = pdfium_c.FPDFTextObj_GetTextRenderMode(thing.raw)
                        if mode != pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE:
                            seen += len(thing.extract().strip())
                        if seen > 1000:
                            break
            finally:
                text.close()
            self._text[n] = (total, seen)
        return self._text[n]

    def has_text(self, n: int) -> bool:
        return self._characters(n)[0] >= 20  # a stamp or page number added to a scan is not a text layer

    def is_pictured(self, n: int) -> bool:
        return bool(self._scan(n)) or (n <= 3 and self._unseen(n))

    def _unseen(self, n: int) -> bool:
        """Whether most of what the page has as text is not drawn."""
        page = self._page(n)
        texts = unseen = 0
        for number in range(min(pdfium_c.FPDFPage_CountObjects(page.raw), 3000)):
            thing = pdfium_c.FPDFPage_GetObject(page.raw, number)
            if pdfium_c.FPDFPageObj_GetType(thing) == pdfium_c.FPDF_PAGEOBJ_TEXT:
                texts += 1
                unseen += pdfium_c.FPDFTextObj_GetTextRenderMode(thing) == pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE
        return unseen * 2 > texts

    def is_scan(self, n: int) -> bool:
        # 150 visible characters: number, date and copy stamps that software prints onto a scan; a text page has more.
        return bool(self._scan(n)) and self._characters(n)[1] < 150

    def dpi(self, n: int) -> float | None:
        scan = self._scan(n)
        if not scan:
            return None
        width, _ = self._flat_size_mm(n)
        largest = max(scan, key=lambda p: p.area)
        shown = max(largest.box[2] - largest.box[0], 1e-3) * width / MM_PER_INCH
        return largest.width / shown

    def covered_words(self, n: int) -> list[Words]:
        """Words drawn to be seen on which something drawn later lies wholly: an opaque picture, a filled shape, the
        field of a form. Whether they can be seen all the same is another question."""
        page = self._page(n)
        words: list[pdfium.PdfTextObj] = []
        boxes: list[_Box] = []  # of the words, as far as something was drawn after them
        under: list[tuple[pdfium.PdfTextObj, _Box]] = []

        def cover(box: _Box) -> None:
            boxes.extend(_bounds(thing) for thing in words[len(boxes) :])
            under.extend(one for one in zip(words, boxes, strict=True) if _inside(one[1], box))

        for count, thing in enumerate(page.get_objects(max_depth=3)):
            if count >= 5000:
                break
            if thing.type == pdfium_c.FPDF_PAGEOBJ_TEXT:
                if pdfium_c.FPDFTextObj_GetTextRenderMode(thing.raw) < pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE:
                    words.append(thing)
            elif words and _covers(thing):
                cover(_bounds(thing))
        for box in _field_boxes(self._pdf, page) if words else ():
            cover(box)
        return [Words(said, _shown_at(page, *box)) for said, box in _said(page, under)] if under else []

    def kind(self, n: int) -> Kind:
        kinds = {picture.kind for picture in self._scan(n)}
        for kind in ("colour", "grey", "bilevel"):
            if kind in kinds:
                return kind  # type: ignore[return-value]
        return "colour"


def _user_units(data: bytes) -> dict[int, float]:
    """Pages whose points are larger or smaller than 1/72 inch (ISO 32000-1 table 30): PDFium does not say so."""
    from pypdf import PdfReader

    units = {}
    with contextlib.suppress(Exception):  # no library reads every file; without it a point is a point
        for n, page in enumerate(PdfReader(io.BytesIO(data)).pages, 1):
            unit = float(page.get("/UserUnit", 1.0))
            if 0.01 <= unit <= 1000 and unit != 1.0:
                units[n] = unit
            if n >= 2000:
                break
    return units


def _bitmap(width: int, height: int, format: int, rev_byteorder: bool, **_: object) -> pdfium.PdfBitmap:
    return pdfium.PdfBitmap.new_native(width, height, format, rev_byteorder=rev_byteorder)


def _images(page: pdfium.PdfPage, parent: Any, depth: int) -> Iterator[Any]:
    """The handles of the pictures on a page and in its forms. Not through `page.get_objects`, which makes an object of
    Python's for each letter that it passes."""
    if parent is page.raw:
        count, get = pdfium_c.FPDFPage_CountObjects, pdfium_c.FPDFPage_GetObject
    else:
        count, get = pdfium_c.FPDFFormObj_CountObjects, pdfium_c.FPDFFormObj_GetObject
    for index in range(count(parent)):
        thing = get(parent, index)
        kind = pdfium_c.FPDFPageObj_GetType(thing) if thing else pdfium_c.FPDF_PAGEOBJ_UNKNOWN
        if kind == pdfium_c.FPDF_PAGEOBJ_IMAGE:
            yield thing
        elif kind == pdfium_c.FPDF_PAGEOBJ_FORM and depth > 1:
            yield from _images(page, thing, depth - 1)


def _picture(page: pdfium.PdfPage, image: pdfium.PdfImage) -> Picture:
    columns, rows = image.get_px_size()
    data = image.get_metadata()
    kind: Kind = "colour"
    if data.bits_per_pixel == 1:
        kind = "bilevel"
    elif data.colorspace in (pdfium_c.FPDF_COLORSPACE_DEVICEGRAY, pdfium_c.FPDF_COLORSPACE_CALGRAY):
        kind = "grey"
    elif data.bits_per_pixel == 8 and data.colorspace == pdfium_c.FPDF_COLORSPACE_ICCBASED:
        kind = "grey"  # one component of eight bits
    return Picture(_shown_at(page, *image.get_bounds()), columns, rows, kind)


def _covers(thing: pdfium.PdfObject) -> bool:
    """Whether a page object hides what lies under it: a picture without a mask, or a shape that is filled."""
    if pdfium_c.FPDFPageObj_HasTransparency(thing.raw):
        return False
    if thing.type == pdfium_c.FPDF_PAGEOBJ_PATH:
        fill, stroke = ctypes.c_int(), ctypes.c_int()
        return bool(pdfium_c.FPDFPath_GetDrawMode(thing.raw, fill, stroke)) and fill.value != 0
    return bool(thing.type == pdfium_c.FPDF_PAGEOBJ_IMAGE)


def _bounds(thing: pdfium.PdfObject) -> _Box:
    """Where a page object lies; nowhere, when PDFium does not know."""
    try:
        return cast("_Box", thing.get_bounds())
    except pdfium.PdfiumError:
        return (0.0, 0.0, 0.0, 0.0)


def _said(page: pdfium.PdfPage, things: Iterable[tuple[pdfium.PdfTextObj, _Box]]) -> Iterable[tuple[str, _Box]]:
    """The words of text objects, each once. Only for those that are asked for: it costs more than all the rest."""
    found: dict[tuple[str, _Box], None] = {}
    text = page.get_textpage()
    try:
        for thing, box in things:
            thing.textpage = text
            with contextlib.suppress(pdfium.PdfiumError):
                if said := thing.extract().strip():
                    found[said, box] = None
    finally:
        text.close()
    return found


def _inside(box: _Box, other: _Box) -> bool:
    """Whether nearly all of a box (left, bottom, right, top) is in another."""
    across = min(box[2], other[2]) - max(box[0], other[0])
    up = min(box[3], other[3]) - max(box[1], other[1])
    return across > 0 and up > 0 and across * up > 0.8 * (box[2] - box[0]) * (box[3] - box[1])


def _field_boxes(document: pdfium.PdfDocument, page: pdfium.PdfPage) -> list[tuple[float, float, float, float]]:
    """The fields of a form that are filled in by hand; those of signatures may lie on the line that they fill."""
    if document.formenv is None:
        return []
    kinds = (pdfium_c.FPDF_FORMFIELD_TEXTFIELD, pdfium_c.FPDF_FORMFIELD_COMBOBOX, pdfium_c.FPDF_FORMFIELD_LISTBOX)
    boxes = []
    for index in range(min(pdfium_c.FPDFPage_GetAnnotCount(page.raw), 500)):
        note = pdfium_c.FPDFPage_GetAnnot(page.raw, index)
        if not note:
            continue
        rect = pdfium_c.FS_RECTF()
        if (
            pdfium_c.FPDFAnnot_GetSubtype(note) == pdfium_c.FPDF_ANNOT_WIDGET
            and pdfium_c.FPDFAnnot_GetFormFieldType(document.formenv.raw, note) in kinds
            and pdfium_c.FPDFAnnot_GetRect(note, ctypes.byref(rect))
        ):
            left, right = sorted((rect.left, rect.right))
            bottom, top = sorted((rect.bottom, rect.top))
            boxes.append((left, bottom, right, top))
        pdfium_c.FPDFPage_CloseAnnot(note)
    return boxes


def _shown_at(
    page: pdfium.PdfPage, left: float, bottom: float, right: float, top: float
) -> tuple[float, float, float, float]:
    """A rectangle in PDF points as left, top, right, bottom in fractions of the page as it is seen."""
    width, height = page.get_size()  # after /Rotate, while points are before it
    x, y, _, _ = page.get_bbox()
    turn = page.get_rotation() // 90
    if turn % 2:
        width, height = height, width
    box = ((left - x) / width, 1 - (top - y) / height, (right - x) / width, 1 - (bottom - y) / height)
    for _ in range(turn):  # clockwise
        box = (1 - box[3], box[0], 1 - box[1], box[2])
    return box


def _widget_pictures(page: pdfium.PdfPage) -> Iterator[Picture]:
    """The boxes of form fields and stamps, which may hold the picture of a seal or a hand. PDFium does not hand out
    what their appearance draws, so the box stands for it; width and height in pixels are unknown (0)."""
    for index in range(min(pdfium_c.FPDFPage_GetAnnotCount(page.raw), 500)):
        note = pdfium_c.FPDFPage_GetAnnot(page.raw, index)
        if not note:
            continue
        rect = pdfium_c.FS_RECTF()
        shown = pdfium_c.FPDFAnnot_GetRect(note, ctypes.byref(rect))
        subtype = pdfium_c.FPDFAnnot_GetSubtype(note)
        pdfium_c.FPDFPage_CloseAnnot(note)
        if shown and subtype in (pdfium_c.FPDF_ANNOT_WIDGET, pdfium_c.FPDF_ANNOT_STAMP):
            left, right = sorted((rect.left, rect.right))
            bottom, top = sorted((rect.bottom, rect.top))
            if right - left > 1 and top - bottom > 1:
                yield Picture(_shown_at(page, left, bottom, right, top), 0, 0, "colour", widget=True)


@dataclass(frozen=True, slots=True)
class _Header:
    """What a raster file says of itself before decoding. dpi 0: not said. channels: 1 or 3; bits: per sample."""

    width: int
    height: int
    channels: int
    bits: int
    dpi: float = 0.0


class ImagePages(_Turning):
    """A raster file as pages. Scale comes from its header when that is credible, else from the shape of the page."""

    def __init__(self, data: bytes, headers: list[_Header], multi: bool = False) -> None:
        for n, header in enumerate(headers, 1):
            if header.width <= 0 or header.height <= 0:
                raise PageError("unreadable_scan", f"page {n} has no size")
            if header.width * header.height > MAX_PIXELS:
                raise PageError("too_large", f"page {n} has {header.width} x {header.height} pixels")
        self._data = np.frombuffer(data, np.uint8)
        self._headers = headers
        self._multi = multi
        self.count = len(headers)
        self._kept = _Kept()
        self._turns = {}

    def __enter__(self) -> ImagePages:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._data = np.empty(0, np.uint8)

    def _header(self, n: int) -> _Header:
        if not 1 <= n <= self.count:
            raise IndexError(f"page {n} of {self.count}")
        return self._headers[n - 1]

    def _scale(self, n: int) -> tuple[float, bool]:
        """Pixels per inch, and whether that is known rather than assumed."""
        header = self._header(n)
        long_side, short_side = max(header.width, header.height), min(header.width, header.height)
        if header.dpi:
            millimetres = long_side / header.dpi * MM_PER_INCH
            # Cameras and converters write 72 or 96 into everything; a page of 600 mm and more is such a case.
            if 80 <= millimetres <= 600 or header.dpi > 100:
                return header.dpi, True
        if long_side >= 600 and long_side / short_side <= 1.8:
            return long_side / (297.0 / MM_PER_INCH), False  # taken for A4
        return 96.0, False

    def _flat_size_mm(self, n: int) -> tuple[float, float]:
        header, (dpi, _) = self._header(n), self._scale(n)
        return header.width / dpi * MM_PER_INCH, header.height / dpi * MM_PER_INCH

    def _flat_image(self, n: int, dpi: float) -> Image:
        key = (n, round(dpi * 10))
        if (known := self._kept.get(key)) is not None:
            return known
        header, (own, _) = self._header(n), self._scale(n)
        factor = dpi / own
        width, height = max(1, round(header.width * factor)), max(1, round(header.height * factor))
        if width * height > MAX_PIXELS:
            raise PageError("too_large", f"page {n} has too many pixels at {dpi:.0f} dpi")
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        if not self._multi:
            # JPEG can be decoded at a fraction of its size for a fraction of the time.
            for shrink, reduced in (
                (8, cv2.IMREAD_REDUCED_COLOR_8),
                (4, cv2.IMREAD_REDUCED_COLOR_4),
                (2, cv2.IMREAD_REDUCED_COLOR_2),
            ):
                if factor * shrink <= 1.0:
                    flags = reduced | cv2.IMREAD_IGNORE_ORIENTATION
                    break
        try:
            if self._multi:
                good, decoded = cv2.imdecodemulti(self._data, flags, range=(n - 1, n))
                image = decoded[0] if good and decoded else None
            else:
                image = cv2.imdecode(self._data, flags)
        except cv2.error as error:
            raise PageError("unreadable_scan", f"page {n}: {error.err}") from error
        if image is None or not image.size:
            raise PageError("unreadable_scan", f"page {n} cannot be decoded")
        if image.shape[:2] != (height, width):
            shrinking = image.shape[0] > height
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        return self._kept.put(key, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def is_pictured(self, n: int) -> bool:
        return True

    def is_scan(self, n: int) -> bool:
        # A raster file is a scan when it is of a page's size: smaller ones are logos and pictures.
        width, height = self._flat_size_mm(n)
        return min(width, height) >= 90  # half of A5

    def has_text(self, n: int) -> bool:
        return False

    def dpi(self, n: int) -> float | None:
        dpi, known = self._scale(n)
        return dpi if known or self._header(n).width >= 600 else None

    def kind(self, n: int) -> Kind:
        header = self._header(n)
        if header.channels == 1:
            return "bilevel" if header.bits == 1 else "grey"
        return "colour"

    def _flat_pictures(self, n: int) -> tuple[Picture, ...]:
        header = self._header(n)
        return (Picture((0.0, 0.0, 1.0, 1.0), header.width, header.height, self.kind(n)),)


def _png_header(data: bytes) -> _Header:
    """PNG (RFC 2083): IHDR comes first; pHYs gives pixels per metre."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        raise PageError("unreadable_scan", "not a PNG file")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    at, dpi = 33, 0.0
    for _ in range(50):  # ancillary chunks before the picture data
        if at + 12 > len(data):
            break
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"pHYs" and length == 9 and at + 17 <= len(data):
            across, _down, unit = struct.unpack_from(">IIB", data, at + 8)
            dpi = across * 0.0254 if unit == 1 else 0.0
        if name == b"IDAT":
            break
        at += 12 + length
    # Colour type 0 and 4 are grey; 3 is a palette, which may hold colours at any depth.
    return _Header(width, height, 1 if colour in (0, 4) else 3, bits, _credible(dpi))


def _small_header(data: bytes, type: str) -> _Header:
    """GIF, BMP and WebP: the size alone; they are pictures of a screen more often than of a page."""
    width = height = 0
    if type == "gif" and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
    elif type == "bmp" and len(data) >= 26:
        core = struct.unpack_from("<I", data, 14)[0] == 12
        width, height = struct.unpack_from("<HH" if core else "<ii", data, 18)
    elif type == "webp" and len(data) >= 30:
        if data[12:16] == b"VP8 ":
            width, height = (n & 0x3FFF for n in struct.unpack_from("<HH", data, 26))
        elif data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif data[12:16] == b"VP8X":
            width, height = (int.from_bytes(data[n : n + 3], "little") + 1 for n in (24, 27))
    return _Header(abs(width), abs(height), 3, 8)


def _jpeg_header(data: bytes) -> _Header:
    """JPEG (ITU-T T.81 annex B): markers up to the frame header SOFn; JFIF gives the density."""
    if data[:2] != b"\xff\xd8":
        raise PageError("unreadable_scan", "not a JPEG file")
    at, dpi = 2, 0.0
    while at + 9 < len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                break
            continue
        marker = data[at + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xE0 and data[at + 4 : at + 9] == b"JFIF\0" and at + 16 <= len(data):
            unit, across = struct.unpack_from(">BH", data, at + 11)
            dpi = {1: float(across), 2: across * 2.54}.get(unit, 0.0)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return _Header(width, height, 1 if channels == 1 else 3, bits, _credible(dpi))
        at += 2 + max(length, 2)
    raise PageError("unreadable_scan", "a JPEG file without a frame header")


def _tiff_headers(data: bytes) -> list[_Header]:
    """TIFF 6.0 sections 2 and 8: the chain of image file directories."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8 or struct.unpack_from(order + "H", data, 2)[0] != 42:
        raise PageError("unreadable_scan", "not a TIFF file")
    (at,) = struct.unpack_from(order + "I", data, 4)
    headers: list[_Header] = []
    seen: set[int] = set()
    while at and at not in seen and at + 2 <= len(data):
        if len(headers) >= MAX_TIFF_PAGES:
            raise PageError("too_many", f"a TIFF file of more than {MAX_TIFF_PAGES} pages")
        seen.add(at)
        (entries,) = struct.unpack_from(order + "H", data, at)
        tags: dict[int, float] = {}
        for index in range(min(entries, 200)):
            place = at + 2 + 12 * index
            if place + 12 > len(data):
                break
            tag, kind, count = struct.unpack_from(order + "HHI", data, place)
            size = {1: 1, 3: 2, 4: 4, 5: 8}.get(kind)
            if size is None:
                continue
            start = place + 8
            if size * count > 4:
                (start,) = struct.unpack_from(order + "I", data, place + 8)
            if start + size > len(data):
                continue
            if kind == 5:
                over, under = struct.unpack_from(order + "II", data, start)
                tags[tag] = over / under if under else 0.0
            else:
                tags[tag] = struct.unpack_from(order + {1: "B", 2: "H", 4: "I"}[size], data, start)[0]
        # 256, 257 size; 258 bits; 262 photometric (0, 1 grey); 282 resolution; 296 its unit (2 inch, 3 cm)
        resolution = tags.get(282, 0.0) * {2: 1.0, 3: 2.54}.get(int(tags.get(296, 2)), 0.0)
        grey = int(tags.get(262, 0)) in (0, 1)
        headers.append(
            _Header(
                int(tags.get(256, 0)),
                int(tags.get(257, 0)),
                1 if grey else 3,
                int(tags.get(258, 1)),
                _credible(resolution),
            )
        )
        tail = at + 2 + 12 * entries
        at = struct.unpack_from(order + "I", data, tail)[0] if tail + 4 <= len(data) else 0
    if not headers:
        raise PageError("unreadable_scan", "a TIFF file without a page")
    return headers


def _credible(dpi: float) -> float:
    return dpi if 30 <= dpi <= 2400 else 0.0


def flatten(image: Image) -> Image:
    """A picture with its paper made white: each channel divided by its local background (shape unchanged).

    The background is a morphological closing at 1/8 size, so shadows, yellowed paper and coloured lighting vanish, and
    ink keeps its colour relative to the paper. Things broader than about 90 pixels (photographs) count as paper.
    """
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(width // 8, 1), max(height // 8, 1)), interpolation=cv2.INTER_AREA)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    paper = cv2.GaussianBlur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel), (5, 5), 0)
    paper = cv2.resize(np.maximum(paper, 48), (width, height), interpolation=cv2.INTER_LINEAR)  # 48: night stays night
    return cv2.divide(image, paper, scale=255)


def redness(flat: Image) -> Image:
    """R − max(G, B) of a flattened picture, uint8."""
    red, green, blue = cv2.split(flat)
    return cv2.subtract(red, cv2.max(green, blue))


def darkness(flat: Image) -> Image:
    """How much darker than paper, uint8: for grey and bilevel scans."""
    return cv2.bitwise_not(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY))
