"""Draw what was seen onto the pages: `congvan inspect --annotate OUT.png|OUT.pdf`.

The output holds pictures of pages, never parts of the inspected file: a hostile PDF stays outside. Drawing opens that
file again, so it is done where it was read, in a confined worker (`worker.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import cv2

from gateway.inspection.findings import Seal
from gateway.inspection.frames import PAGES, frames_of, judge
from gateway.inspection.pages import Image, PageError, Pages

DPI = 100.0
#: Pages drawn at most: 20 pages of 100 dpi are 4 MB of JPEG or 20 MB of PNG.
MOST = 20
_SEAL, _PASTED, _FRAME, _SIGNATURE = (0, 150, 0), (230, 120, 0), (170, 0, 170), (0, 80, 220)  # RGB
_MARK = (200, 0, 0)

Box = tuple[float, float, float, float]


class HasSeals(Protocol):
    """FileFacts or SealFacts."""

    @property
    def seals(self) -> tuple[Seal, ...]: ...


def drawn(
    pages: Pages,
    facts: HasSeals,
    kind: str,
    signature_boxes: Iterable[tuple[int, Box]] = (),
    marks: Iterable[tuple[int, str]] = (),
) -> list[tuple[int, bytes]]:
    """The pages on which something was seen, with boxes: seals green (pasted pictures orange), frames violet,
    signature fields blue; marks (page, what) read in the text, of which only the page is known, stand at its top. Where
    nothing was seen, page 1 as it is. kind `pdf`: one file with all of them (page 0); `png`: one file for each page.
    Empty when no page can be shown."""
    boxes: dict[int, list[tuple[Box, tuple[int, int, int], str]]] = {}
    for page, box in signature_boxes:
        boxes.setdefault(page, []).append((box, _SIGNATURE, "chu ky so"))
    for seal in facts.seals:
        label = f"con dau {seal.score:.2f}" + (" (anh dan)" if seal.pasted else "")
        boxes.setdefault(seal.page, []).append((seal.box, _PASTED if seal.pasted else _SEAL, label))
    for page, what in dict.fromkeys(marks):
        line = sum(1 for box, _, _ in boxes.get(page, ()) if box[2] == 0.0)
        boxes.setdefault(page, []).append(((0.02, 0.015 * (line + 1), 0.0, 0.0), _MARK, f"{what} (chu)"))
    for n in range(1, min(pages.count, PAGES) + 1):
        try:
            for frame in frames_of(pages, n):
                if finding := judge(frame):
                    boxes.setdefault(n, []).append((frame.box, _FRAME, f"{finding.kind} {finding.value}"))
        except PageError:
            continue
    images: list[tuple[int, Image]] = []
    for n in sorted(page for page in boxes if 1 <= page <= pages.count)[:MOST] or [1]:
        try:
            images.append((n, _drawn(pages.image(n, DPI), boxes.get(n, []))))
        except PageError:
            continue
    if kind == "pdf":
        return [(0, pdf_of([image for _, image in images]))] if images else []
    return [(n, cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()) for n, image in images]


def _drawn(page: Image, boxes: list[tuple[Box, tuple[int, int, int], str]]) -> Image:
    """A copy of the page with boxes. OpenCV's letters have no accents, hence the labels without them."""
    image = page.copy()
    height, width = image.shape[:2]
    for (left, top, right, bottom), colour, label in boxes:
        corner = round(left * width), round(top * height)
        if right > left:
            cv2.rectangle(image, corner, (round(right * width), round(bottom * height)), colour, 2)
        place = (corner[0], max(corner[1] - 5, 10))
        cv2.putText(image, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return image


def pdf_of(images: list[Image], dpi: float = DPI) -> bytes:
    """A PDF of JPEG pages (ISO 32000-1, sections 7.5 and 7.8): catalogue, page tree, and three objects a page."""
    kids = b" ".join(b"%d 0 R" % (3 + 3 * i) for i in range(len(images)))
    parts = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(images))]
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
        body = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
        w, h = width * 72 / dpi, height * 72 / dpi
        content = b"q %.2f 0 0 %.2f 0 0 cm /I Do Q" % (w, h)
        parts += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %.2f %.2f] /Contents %d 0 R "
            b"/Resources << /XObject << /I %d 0 R >> >> >>" % (w, h, 4 + 3 * i, 5 + 3 * i),
            b"<< /Length %d >> stream\n%s\nendstream" % (len(content), content),
            b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB /BitsPerComponent 8 "
            b"/Filter /DCTDecode /Length %d >> stream\n%s\nendstream" % (width, height, len(body), body),
        ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, part in enumerate(parts, 1):
        places.append(len(out))
        out += b"%d 0 obj %s endobj\n" % (number, part)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(parts) + 1, start)
    return bytes(out)
