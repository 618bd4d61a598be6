"""A piece of text with its place: what `text`, `ocr` and `mime` hand to `secrecy` and `document`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """where: the place in words for a person (`trang 1`, `tiêu đề`, `đầu trang`); page counts from 1.

    zone: subject, header_field, body, html, header, footer, textbox, watermark, property, comment, annotation, form,
    filename, cell, ocr. Lines end in a line feed; columns that stood apart are parted by a tab.
    """

    where: str
    text: str
    page: int | None = None
    zone: str = "body"
