"""Registers on paper and in files: PDF to be signed and bound, XLSX, CSV, JSON lines.

The PDF has the columns of Annex IV of Decree 30/2020 in their order, A4 across, the heading on each page, pages
numbered, a cover and a page to sign. Text of documents is text in every format: a subject that begins with `=` is not a
formula.
"""

from __future__ import annotations

import csv
import datetime as dt
import importlib.util
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from gateway.message import VIETNAM
from gateway.register import FLAGS, columns_of

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Title:
    """What stands on the cover. period: the days asked for, ISO 8601, empty for the whole year."""

    agency: str
    parent: str
    direction: str
    year: int
    since: str = ""
    until: str = ""

    @property
    def words(self) -> str:
        return f"SỔ ĐĂNG KÝ VĂN BẢN {'ĐẾN' if self.direction == 'in' else 'ĐI'}"


#: Columns of Annex IV: heading, share of the width, and what stands in them.
_IN = (
    ("Ngày đến", 7.0), ("Số đến", 5.5), ("Tác giả", 14.0), ("Số, ký hiệu văn bản", 11.0), ("Ngày, tháng văn bản", 7.5),
    ("Tên loại và trích yếu nội dung văn bản", 25.0), ("Đơn vị hoặc người nhận", 10.5), ("Ngày chuyển", 6.5),
    ("Ký nhận", 5.0), ("Ghi chú", 8.0),
)  # fmt: skip
_OUT = (
    ("Số, ký hiệu văn bản", 11.0), ("Ngày, tháng văn bản", 7.5), ("Tên loại và trích yếu nội dung văn bản", 25.0),
    ("Người ký", 9.5), ("Nơi nhận văn bản", 16.0), ("Đơn vị, người nhận bản lưu", 8.0), ("Số lượng bản", 5.0),
    ("Ngày chuyển", 6.5), ("Ký nhận", 4.5), ("Ghi chú", 7.0),
)  # fmt: skip


def annex(one: Entry) -> list[str]:
    """An entry as the ten columns of Annex IV have it."""
    about = ": ".join(part for part in (one["type_name"], one["abstract"]) if part)
    if one["direction"] == "in":
        return [
            vn_day(one["arrival_date"]),
            "" if one["number"] is None else str(one["number"]),
            one["issuing_agency"],
            one["document_code"],
            vn_day(one["issued_date"]),
            about,
            one["forwarded_to"] or one["mailboxes"],
            vn_day(one["forwarded_on"]),
            one["signed_for"],
            remarks(one),
        ]
    return [
        one["document_code"],
        vn_day(one["issued_date"]),
        about,
        one["signer_name"],
        one["recipients"] or one["sent_to"],
        one["copy_holder"],
        one["issued_amount"],
        vn_day(one["forwarded_on"]),
        one["signed_for"],
        remarks(one),
    ]


def remarks(one: Entry) -> str:
    """The last column: what a person noted, and what the register noticed."""
    parts = [one["description"]] if one["description"] else []
    if one["origin"] == "paper":
        parts.append("bản giấy")
    parts += [FLAGS[name] for name in one["flags"] if name != "check"]
    if one["compared"]:
        parts.append("đã đối chiếu" if one["compared"] == "match" else "đã đối chiếu: có sai khác")
    if one["corrected"]:
        parts.append("có sửa: " + ", ".join(one["corrected"]))
    return "; ".join(parts)


def vn_day(iso: str) -> str:
    """`2026-11-20` as `20/11/2026`."""
    return "/".join(reversed(iso.split("-"))) if re.fullmatch(r"\d{4}-\d\d-\d\d", iso) else iso


# ---------------------------------------------------------------------- files for programs


def json_lines(entries: Iterable[Entry]) -> bytes:
    """One object a line, as `congvan register list --json` prints them."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in entries)


#: Besides the fields themselves.
_MORE = (
    ("id", "Mã dòng sổ"), ("agency", "Cơ quan"), ("year", "Năm"), ("number", "Số"), ("origin", "Nguồn gốc"),
    ("status", "Trạng thái"), ("flags", "Lưu ý"), ("compared", "Đối chiếu"), ("cases", "Mã thư"), ("sha256", "SHA-256"),
)  # fmt: skip


def _heading(direction: str) -> list[tuple[str, str]]:
    return [*((one.name, one.vi) for one in columns_of(direction)), *_MORE]


def _cell(one: Entry, name: str) -> str:
    value = one.get(name, "")
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return "" if value is None else str(value)


def csv_file(entries: Sequence[Entry], direction: str) -> bytes:
    """Comma, CRLF, UTF-8 with byte order mark, which spreadsheet programs need; keys as headings."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    heading = _heading(direction)
    writer.writerow([name for name, _ in heading])
    for one in entries:
        writer.writerow([harmless(_cell(one, name)) for name, _ in heading])
    return b"\xef\xbb\xbf" + out.getvalue().encode("utf-8", "replace")


def harmless(text: str) -> str:
    """A spreadsheet program takes what begins with one of these for a formula, and what it does is not ours to trust:
    an apostrophe in front makes it text."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") or text.lstrip()[:1] in ("=", "@") else text


#: Widths of columns in letters, where 16 would not do.
_WIDTHS = {"abstract": 60, "issuing_agency": 32, "recipients": 40, "sent_to": 40, "mailboxes": 30, "sha256": 12}
_WHOLE = ("number", "year", "page_amount", "issued_amount", "arrival_number")


def xlsx_file(entries: Iterable[Entry], direction: str, title: Title, out: IO[bytes]) -> None:
    """A workbook, row by row, so that memory does not grow with the register. Dates are dates, the rest is text."""
    import xlsxwriter

    options = {
        "constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False,
    }  # fmt: skip
    book = xlsxwriter.Workbook(out, options)
    sheet = book.add_worksheet("Đến" if direction == "in" else "Đi")
    bold = book.add_format({"bold": True, "text_wrap": True, "valign": "top", "border": 1, "bg_color": "#E8E8E8"})
    plain = book.add_format({"text_wrap": True, "valign": "top"})
    day = book.add_format({"num_format": "dd/mm/yyyy", "valign": "top"})
    heading = _heading(direction)
    dates = {one.name for one in columns_of(direction) if one.date}
    for at, (name, _) in enumerate(heading):
        sheet.set_column(at, at, _WIDTHS.get(name, 16))
    sheet.set_landscape()
    sheet.set_paper(9)
    sheet.repeat_rows(0)
    sheet.freeze_panes(1, 0)
    sheet.set_header(f"&L{title.agency.replace('&', '&&')}&C{title.words} {title.year}&RTrang &P/&N")
    for at, (_, words) in enumerate(heading):
        sheet.write_string(0, at, words, bold)
    row = 0
    for row, one in enumerate(entries, 1):
        for at, (name, _) in enumerate(heading):
            text = _cell(one, name)
            if name in dates and (found := _date(text)) is not None:
                sheet.write_datetime(row, at, found, day)
            elif name in _WHOLE and text.isascii() and text.isdecimal() and len(text) < 10:
                sheet.write_number(row, at, int(text), plain)
            elif text:
                sheet.write_string(row, at, text, plain)
    sheet.autofilter(0, 0, row, len(heading) - 1)
    book.close()


def _date(text: str) -> dt.datetime | None:
    try:
        found = dt.date.fromisoformat(text)
    except ValueError:
        return None
    # Spreadsheets count days from 1900.
    return dt.datetime(found.year, found.month, found.day) if found.year >= 1900 else None


# ---------------------------------------------------------------------- paper


@cache
def _fonts() -> tuple[str, str]:
    """Names of the regular and bold face in ReportLab: a serif with every Vietnamese letter, embedded as a subset."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    spec = importlib.util.find_spec("font_source_serif_pro")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "files"
    for name, file in (("book", "SourceSerifPro-Regular.ttf"), ("book-bold", "SourceSerifPro-Bold.ttf")):
        pdfmetrics.registerFont(TTFont(name, str(folder / file)))
    return "book", "book-bold"


_SIZE, _LEADING = 9.0, 11.0
_PAD = 2.5
#: Left margin for the binding; the others 15 mm.
_LEFT, _OTHER = 71.0, 42.5


class _Pages:
    """Lays rows out on pages, then draws: the number of pages is known before the first is drawn."""

    def __init__(self, out: IO[bytes], title: Title, columns: Sequence[tuple[str, float]]) -> None:
        from reportlab.lib.pagesizes import A4, landscape
        from reportlab.pdfbase.pdfmetrics import getFont
        from reportlab.pdfgen.canvas import Canvas

        self.regular, self.bold = _fonts()
        self.width, self.height = landscape(A4)
        self.canvas = Canvas(out, landscape(A4), pageCompression=1, initialFontName=self.regular)
        self.canvas.setTitle(f"{title.words} {title.year} – {title.agency}")
        self.canvas.setAuthor(title.agency)
        self.canvas.setSubject("Nghị định 30/2020/NĐ-CP, Phụ lục IV")
        self.title = title
        room = self.width - _LEFT - _OTHER
        whole = sum(share for _, share in columns)
        self.widths = [room * share / whole for _, share in columns]
        self.names = [name for name, _ in columns]
        self._advance = {name: getFont(name).face.charWidths for name in (self.regular, self.bold)}
        self._default = {name: getFont(name).face.defaultWidth for name in (self.regular, self.bold)}
        pairs = zip(self.names, self.widths, strict=True)
        self.heading = [self.wrap(name, width - 2 * _PAD, self.bold) for name, width in pairs]
        self.top = self.height - _OTHER - 14
        self.bottom = _OTHER + 14

    def measure(self, text: str, font: str) -> float:
        widths, default = self._advance[font], self._default[font]
        return sum(widths.get(ord(letter), default) for letter in text) * 0.001 * _SIZE

    def wrap(self, text: str, room: float, font: str) -> list[str]:
        """Lines that fit; a word that is too long by itself is cut."""
        text = unicodedata.normalize("NFC", "".join(one if one.isprintable() else " " for one in text))
        lines: list[str] = []
        line, used = "", 0.0
        blank = self.measure(" ", font)
        for word in text.split():
            size = self.measure(word, font)
            if line and used + blank + size <= room:
                line, used = f"{line} {word}", used + blank + size
                continue
            if line:
                lines.append(line)
            while size > room and len(word) > 1:
                cut = self._fits(word, room, font)
                lines.append(word[:cut])
                word = word[cut:]
                size = self.measure(word, font)
            line, used = word, size
        return [*lines, line] if line else lines

    def _fits(self, word: str, room: float, font: str) -> int:
        widths, default = self._advance[font], self._default[font]
        used = 0.0
        for at, letter in enumerate(word):
            used += widths.get(ord(letter), default) * 0.001 * _SIZE
            if used > room:
                # An address or a symbol is better cut behind one of its own signs.
                signs = [sign + 1 for sign in (word.rfind(one, 0, at) for one in "@/-.,;_") if sign >= at // 2]
                return max(signs) if signs else max(at, 1)
        return len(word)

    def layout(self, rows: Iterable[list[str]]) -> list[list[tuple[list[list[str]], float]]]:
        """Pages of rows; a row is its wrapped cells and its height. A row of more than half a page may go on on the
        next."""
        room = self.top - self.bottom - self._heading_height()
        most = int((room - 2 * _PAD) / _LEADING)
        pages: list[list[tuple[list[list[str]], float]]] = [[]]
        used = 0.0
        for row in rows:
            cells = [
                self.wrap(text, width - 2 * _PAD, self.regular) for text, width in zip(row, self.widths, strict=True)
            ]
            while True:
                needed = max(1, *(len(lines) for lines in cells))
                left = int((room - used - 2 * _PAD) / _LEADING)
                if needed > left and (needed <= most // 2 or left < 6) and pages[-1]:
                    pages.append([])
                    used, left = 0.0, most
                taken = min(needed, left)
                height = taken * _LEADING + 2 * _PAD
                pages[-1].append(([lines[:taken] for lines in cells], height))
                used += height
                cells = [lines[taken:] for lines in cells]
                if not any(cells):
                    break
        return pages

    def _heading_height(self) -> float:
        numbers = _LEADING + 2 * _PAD
        return max(len(lines) for lines in self.heading) * _LEADING + 2 * _PAD + numbers

    def draw(self, pages: list[list[tuple[list[list[str]], float]]], entries: Sequence[Entry]) -> int:
        total = len(pages) + 2
        self._cover(entries, total)
        for number, rows in enumerate(pages, 2):
            numbers = [[str(at)] for at in range(1, len(self.names) + 1)]
            y = self._row(self.top, self.heading, self._heading_height() - _LEADING - 2 * _PAD, self.bold, True)
            y = self._row(y, numbers, _LEADING + 2 * _PAD, self.regular, True)
            for cells, height in rows:
                y = self._row(y, cells, height, self.regular)
            self._foot(number, total)
        self._last(entries, total)
        self.canvas.save()
        return total

    def _row(self, y: float, cells: Sequence[Sequence[str]], height: float, font: str, centred: bool = False) -> float:
        page, x = self.canvas, _LEFT
        page.setLineWidth(0.5)
        for width, lines in zip(self.widths, cells, strict=True):
            page.rect(x, y - height, width, height)
            text = page.beginText()
            text.setFont(font, _SIZE)
            for at, line in enumerate(lines):
                left = x + (width - self.measure(line, font)) / 2 if centred else x + _PAD
                text.setTextOrigin(left, y - _PAD - _SIZE + 0.5 - at * _LEADING)
                text.textOut(line)
            page.drawText(text)
            x += width
        return y - height

    def _foot(self, number: int, total: int) -> None:
        page = self.canvas
        page.setFont(self.regular, 8.5)
        page.drawString(_LEFT, self.height - _OTHER, self.title.agency)
        page.drawRightString(self.width - _OTHER, self.height - _OTHER, f"{self.title.words}, năm {self.title.year}")
        page.drawCentredString((self.width + _LEFT - _OTHER) / 2, _OTHER - 6, f"Trang {number}/{total}")
        page.showPage()

    def _centre(self, y: float, text: str, font: str, size: float) -> None:
        self.canvas.setFont(font, size)
        self.canvas.drawCentredString((self.width + _LEFT - _OTHER) / 2, y, text)

    def _cover(self, entries: Sequence[Entry], total: int) -> None:
        """Annex IV: agency, name of the register, year, days and numbers of this volume."""
        title, y = self.title, self.height - 110
        if title.parent:
            self._centre(y, title.parent.upper(), self.regular, 13)
        self._centre(y - 20, title.agency.upper(), self.bold, 14)
        self._centre(y - 150, title.words, self.bold, 28)
        self._centre(y - 190, f"Năm: {title.year}", self.regular, 16)
        days = sorted(one["day"] for one in entries)
        first, last = title.since or (days[0] if days else ""), title.until or (days[-1] if days else "")
        self._centre(y - 240, f"Từ ngày {vn_day(first) or '……'} đến ngày {vn_day(last) or '……'}", self.regular, 14)
        self._centre(y - 262, _range(entries), self.regular, 14)
        self._centre(y - 284, "Quyển số: ……", self.regular, 14)
        self._centre(_OTHER - 6, f"Trang 1/{total}", self.regular, 8.5)
        self.canvas.showPage()

    def _last(self, entries: Sequence[Entry], total: int) -> None:
        page, y = self.canvas, self.height - 90
        now = dt.datetime.now(VIETNAM)
        page.setFont(self.regular, 12)
        page.drawString(
            _LEFT, y, f"Sổ này có {total} trang (kể cả bìa), {len(entries)} dòng; {_range(entries).lower()}."
        )
        without = sum(one["number"] is None for one in entries)
        if without:
            page.drawString(_LEFT, y - 20, f"Chưa có số: {without} dòng.")
        cancelled = [str(one["number"]) for one in entries if one["state"] == "cancelled"]
        if cancelled:
            shown = ", ".join(cancelled[:40]) + (" …" if len(cancelled) > 40 else "")
            page.drawString(_LEFT, y - 40, f"Số hủy: {shown}.")
        page.drawRightString(self.width - _OTHER, y - 80, f"In ngày {now.day:02} tháng {now.month:02} năm {now.year}")
        for x, words in ((_LEFT + 130, "NGƯỜI LẬP SỔ"), (self.width - _OTHER - 150, "NGƯỜI ĐỨNG ĐẦU CƠ QUAN")):
            page.setFont(self.bold, 12)
            page.drawCentredString(x, y - 110, words)
            page.setFont(self.regular, 10)
            page.drawCentredString(x, y - 126, "(ký, ghi rõ họ tên)")
        self._foot(total, total)


def _range(entries: Sequence[Entry]) -> str:
    """`Từ số 1 đến số 120`, by series where there are several."""
    series: dict[str, list[int]] = {}
    for one in entries:
        if one["number"] is not None:
            series.setdefault(one["series"], []).append(one["number"])
    if not series:
        return "Từ số …… đến số ……"
    if len(series) == 1:
        (found,) = series.values()
        return f"Từ số {min(found)} đến số {max(found)}"
    parts = [f"{name} {min(found)}–{max(found)}" for name, found in sorted(series.items())]
    return "Các số: " + ", ".join(parts[:8]) + (" …" if len(parts) > 8 else "")


def pdf_file(entries: Sequence[Entry], title: Title, out: IO[bytes]) -> int:
    """The register for printing and binding. Returns the number of pages."""
    pages = _Pages(out, title, _IN if title.direction == "in" else _OUT)
    return pages.draw(pages.layout(annex(one) for one in entries), entries)
