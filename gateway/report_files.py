"""A report as files: HTML pages with SVG charts, a workbook, a PDF, CSV. Pure: the values of the report in, bytes out.

The pages need no script and nothing from elsewhere, so that they can be copied into a portal as they are. Each chart
has its numbers in a table beside it, and each mark of a chart carries its number (`data-value`), so that they can be
held against each other.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from jinja2 import Environment, FileSystemLoader, StrictUndefined

LANGUAGES = ("vi", "en")
#: Folder of the agencies' pages, by language.
FOLDERS = {"vi": "co-quan", "en": "agency"}
LEVELS = {
    "central": ("Trung ương", "Central"),
    "ministry": ("Bộ, ngành", "Ministries"),
    "province": ("Cấp tỉnh", "Province"),
    "department": ("Sở, ban, ngành", "Departments"),
    "district": ("Cấp huyện", "Districts"),
    "commune": ("Cấp xã", "Communes"),
    "unit": ("Đơn vị trực thuộc", "Units"),
    "": ("Ngoài danh bạ", "Not in the directory"),
}
CLASSES = {
    "OFFICIAL_DOC": ("Văn bản chính thức", "Official documents"),
    "DRAFT": ("Dự thảo", "Drafts"),
    "COMMENT": ("Văn bản góp ý", "Comments"),
    "DOSSIER": ("Hồ sơ trình", "Dossiers"),
    "INVITATION": ("Giấy mời", "Invitations"),
    "MEETING_MATERIAL": ("Tài liệu họp", "Meeting papers"),
    "WORK_CALENDAR": ("Lịch công tác", "Work calendars"),
    "ROOM_BOOKING": ("Đăng ký phòng họp", "Room bookings"),
    "REPORT": ("Báo cáo", "Reports"),
    "DIRECTION": ("Chỉ đạo, điều hành", "Directions"),
    "CITIZEN_MAIL": ("Thư của công dân", "Mail from citizens"),
    "WORK_MAIL": ("Thư công việc", "Mail about work"),
    "SYSTEM": ("Thư tự động", "Automatic mail"),
    "": ("Không phân loại", "Not classified"),
}
DIRECTIONS = {"out": ("Văn bản đi", "Outgoing"), "in": ("Văn bản đến", "Incoming"), "": ("—", "—")}
GROUPS = {
    "traffic": ("Thư", "Messages"),
    "documents": ("Văn bản", "Documents"),
    "delivery": ("Hình thức gửi", "Way of sending"),
    "signature": ("Chữ ký số và dấu", "Signatures and seals"),
    "time": ("Thời hạn và độ khẩn", "Time limits and urgency"),
    "citizens": ("Công dân", "Citizens"),
    "mailboxes": ("Hộp thư", "Mailboxes"),
    "refused": ("Trả lại, tạm giữ, chặn", "Returned, held, blocked"),
}


# ---------------------------------------------------------------------- numbers as people write them


def number(value: float | None, language: str) -> str:
    """`1.234` or `1,234`; an em dash where there is none."""
    if value is None:
        return "—"
    text = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
    return text.translate(str.maketrans(",.", ".,")) if language == "vi" else text


def percent(share: dict[str, Any], language: str) -> str:
    """`87,3 %`; empty when there is none."""
    text = str(share["percent"])
    return (text.replace(".", ",") + " %" if language == "vi" else text + "%") if text else ""


def shown(text: str, unit: str, language: str) -> str:
    """A number that was restated, as people write it."""
    if unit and text != "—":
        return percent({"percent": text}, language)
    return (
        number(int(text), language)
        if text.lstrip("-").isdecimal()
        else text.replace(".", "," if language == "vi" else ".")
    )


def lacking(share: dict[str, Any], language: str) -> str:
    """Why there is no percentage, short."""
    if share.get("why") and share["why"][1] == "no documents":
        return str(share["why"][0 if language == "vi" else 1])
    return "không đủ số liệu" if language == "vi" else "not enough data"


def date(text: str, language: str) -> str:
    """`05/12/2026` of an RFC 3339 time or date; an em dash where there is none."""
    if not text:
        return "—"
    year, month, day = text[:10].split("-")
    return f"{day}/{month}/{year}" if language == "vi" else f"{year}-{month}-{day}"


# ---------------------------------------------------------------------- charts

_WIDTH = 360  # as wide as a phone, so that letters stay as large as they are written


def _svg(height: float, title: str, description: str, name: str, body: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" role="img"'
        f' aria-labelledby="{name}-t {name}-d" class="chart">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
        + "".join(body)
        + "</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    more = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def _ceiling(value: int) -> int:
    """A round number not below: 1, 2 or 5 times a power of ten, so that half and quarter are readable."""
    step = 1
    while True:
        for factor in (1, 2, 4, 5, 8):
            if step * factor >= value:
                return max(4, step * factor)
        step *= 10


def columns(
    points: Sequence[tuple[str, Sequence[int]]], *, title: str, description: str, name: str, language: str
) -> str:
    """Columns side by side: label, and one number for each series. `data-value` is the number, its height the scale."""
    top, bottom, left, right = 14.0, 28.0, 44.0, 6.0
    height = 200.0
    room = height - top - bottom
    high = _ceiling(max((value for _, values in points for value in values), default=0))
    parts = []
    for line in range(5):
        value = high * line // 4
        y = top + room - room * value / high
        parts.append(f'<line x1="{left:g}" x2="{_WIDTH - right:g}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(left - 6, y + 4, number(value, language), "end"))
    step = (_WIDTH - left - right) / max(1, len(points))
    for place, (label, values) in enumerate(points):
        wide = min(12.0, step * 0.72 / max(1, len(values)))
        x = left + step * place + (step - wide * len(values)) / 2
        for series, value in enumerate(values):
            tall = room * value / high
            told = f"{label}: {number(value, language)}"
            parts.append(
                f'<rect x="{x + wide * series:.1f}" y="{top + room - tall:.2f}" width="{wide - 0.8:.1f}"'
                f' height="{tall:.2f}" class="s{series}" data-value="{value}" data-label={quoteattr(label)}>'
                f"<title>{escape(told)}</title></rect>"
            )
        parts.append(_text(left + step * (place + 0.5), height - 10, label, "middle"))
    parts.append(
        f'<line x1="{left:g}" x2="{_WIDTH - right:g}" y1="{top + room:g}" y2="{top + room:g}" class="axis"'
        f' data-scale="{room / high:.6f}"/>'
    )
    return _svg(height, title, description, name, parts)


def bars(rows: Sequence[tuple[str, int]], *, title: str, description: str, name: str, language: str) -> str:
    """Lying bars, one a row, with the number at the end."""
    high = max((value for _, value in rows), default=0) or 1
    left, right, tall = 0.0, 64.0, 38.0
    room = _WIDTH - left - right
    parts = []
    for place, (label, value) in enumerate(rows):
        y = tall * place
        wide = room * value / high
        parts.append(_text(left, y + 14, label))
        parts.append(
            f'<rect x="{left:g}" y="{y + 19:g}" width="{wide:.2f}" height="12" class="s0" data-value="{value}"'
            f" data-label={quoteattr(label)}/>"
        )
        parts.append(_text(left + wide + 6, y + 29, number(value, language), kind="strong"))
    return _svg(tall * max(1, len(rows)) + 4, title, description, name, parts)


def shares(
    rows: Sequence[tuple[str, dict[str, Any], int | None]],
    *,
    title: str,
    description: str,
    name: str,
    language: str,
) -> str:
    """Percentages on a track from 0 to 100, with a line where the target is. A row without a number has no bar."""
    left, right, tall = 0.0, 2.0, 56.0
    room = _WIDTH - left - right
    parts = []
    for place, (label, share, target) in enumerate(rows):
        y = tall * place
        parts.append(_text(left, y + 14, label))
        parts.append(f'<rect x="{left:g}" y="{y + 21:g}" width="{room:g}" height="12" class="track"/>')
        if share["percent"]:
            value = float(share["percent"])
            parts.append(
                f'<rect x="{left:g}" y="{y + 21:g}" width="{room * value / 100:.2f}" height="12" class="s0"'
                f' data-value="{share["percent"]}" data-label={quoteattr(label)}/>'
            )
        told = percent(share, language) or lacking(share, language)
        parts.append(_text(left, y + 47, told, kind="strong" if share["percent"] else ""))
        if target is not None:
            x = left + room * target / 100
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 17:g}" y2="{y + 37:g}" class="goal" data-target="{target}"/>'
            )
            words = "chỉ tiêu" if language == "vi" else "target"
            parts.append(
                _text(
                    min(x + 4, _WIDTH - right),
                    y + 47,
                    f"{words} {target}{' %' if language == 'vi' else '%'}",
                    "end",
                    "goal",
                )
            )
    return _svg(tall * max(1, len(rows)) + 4, title, description, name, parts)


# ---------------------------------------------------------------------- pages


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates" / "report"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        percent=percent,
        shown=shown,
        lacking=lacking,
        number=number,
        date=date,
        levels=LEVELS,
        classes=CLASSES,
        directions=DIRECTIONS,
        groups=GROUPS,
        folders=FOLDERS,
        columns=columns,
        bars=bars,
        shares=shares,
    )
    return environment


def style() -> str:
    """The style sheet of all pages."""
    return (Path(__file__).parent / "templates" / "report" / "style.css").read_text(encoding="utf-8")


def _page(template: str, language: str, report: dict[str, Any], **more: Any) -> str:
    place = 0 if language == "vi" else 1

    def pick(vi: str, en: str) -> str:
        return en if place else vi

    return (
        _environment()
        .get_template(template)
        .render(_=pick, place=place, lang=language, other="en" if language == "vi" else "vi", report=report, **more)
    )


def month_labels(report: dict[str, Any]) -> list[str]:
    """Short names of the months of the series: `11`, with the year where it begins."""
    found: list[str] = []
    for one in report["series"]:
        year, month = one["month"].split("-")
        found.append(f"{int(month)}/{year[2:]}" if month == "01" or not found else str(int(month)))
    return found


def pages(report: dict[str, Any], seal: dict[str, str], *, internal: bool = False) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of every page. seal: `sha256` and `key` of the signed JSON, for the foot; empty for internal
    ones. internal: with what is for those concerned only."""
    yield "style.css", style().encode()
    named = [one for one in report["agencies"] if one["id"]]
    by_level = [(level, [one for one in report["agencies"] if one["level"] == level]) for level in LEVELS]
    parents = {one["id"]: one for one in named}
    for language in LANGUAGES:
        more = {"seal": seal, "internal": internal, "labels": month_labels(report)}
        name = "index.html" if language == "vi" else "en.html"
        text = _page("index.html", language, report, root="", by_level=[one for one in by_level if one[1]], **more)
        yield name, text.encode()
        for agency in named:
            text = _page(
                "agency.html", language, report, root="../", agency=agency, parent=parents.get(agency["parent"]), **more
            )
            yield f"{FOLDERS[language]}/{agency['id']}.html", text.encode()


def contents(periods: Sequence[dict[str, Any]], issuer: str) -> Iterator[tuple[str, bytes]]:
    """The page that leads to all periods, newest first: `path`, `vi`, `en`, `published_at`, `revision`."""
    yield "style.css", style().encode()
    for language in LANGUAGES:
        name = "index.html" if language == "vi" else "en.html"
        text = _page("contents.html", language, {"issuer": {"name": issuer}}, root="", periods=periods)
        yield name, text.encode()


# ---------------------------------------------------------------------- tables


def _figure_keys(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in report["definitions"] if one["type"] in ("count", "other")]


def _ratio_keys(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in report["definitions"] if one["type"] == "ratio"]


def _values(report: dict[str, Any], line: dict[str, Any]) -> list[Any]:
    """Figures, paper and percentages of a line, in the order of the definitions; None where there is none."""
    found: list[Any] = [line["figures"].get(one["key"]) for one in _figure_keys(report)]
    found += [line["paper"][way] for way in ("out", "in", "internal")]
    for one in _ratio_keys(report):
        text = line["shares"][one["key"]]["percent"]
        found.append(float(text) if text else None)
    return found


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def table_csv(report: dict[str, Any]) -> bytes:
    """All agencies and all figures: UTF-8 with byte order mark, for spreadsheets; keys in the first line. An empty
    cell is a number that there is not, never a zero."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    keys = [one["key"] for one in _figure_keys(report)] + ["paper_out", "paper_in", "paper_internal"]
    writer.writerow(
        ["period", "scope", "agency", "name", "level", "parent", *keys]
        + [f"{one['key']}_percent" for one in _ratio_keys(report)]
    )
    for agency in report["agencies"]:
        for scope in ("own", "whole"):
            if agency[scope] is not None:
                head = [
                    report["period"],
                    scope,
                    agency["id"],
                    _plain(agency["name"]),
                    agency["level"],
                    agency["parent"],
                ]
                cells = ["" if one is None else one for one in _values(report, agency[scope])]
                writer.writerow([*head, *cells])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def workbook(report: dict[str, Any]) -> bytes:
    """An XLSX workbook: summary with targets, agencies, levels, classes, months, restatements, definitions."""
    import xlsxwriter

    out = io.BytesIO()
    # A name that begins with `=` is a name, never a formula; an address never a link.
    book = xlsxwriter.Workbook(
        out,
        {
            "constant_memory": True,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        },
    )
    book.set_properties({"title": report["title"]["vi"], "company": report["issuer"]["name"]})
    head = book.add_format({"bold": True, "text_wrap": True, "valign": "top", "bg_color": "#E8EEF4", "bottom": 1})
    title = book.add_format({"bold": True, "font_size": 14})
    plain, share = book.add_format({"num_format": "#,##0"}), book.add_format({"num_format": '0.0" %"'})
    text = book.add_format({"text_wrap": True, "valign": "top"})

    def sheet(
        name: str, header: Sequence[str], rows: Iterable[Sequence[Any]], widths: Sequence[int], kinds: Any = None
    ) -> None:
        kinds = kinds or {}
        page = book.add_worksheet(name)
        page.set_landscape()
        page.set_paper(9)
        page.fit_to_pages(1, 0)
        page.repeat_rows(2)
        page.freeze_panes(3, 1)
        for column, width in enumerate(widths):
            page.set_column(column, column, width)
        page.write_string(0, 0, f"{report['title']['vi']} / {report['title']['en']}", title)
        for column, words in enumerate(header):
            page.write_string(2, column, words, head)
        for line, cells in enumerate(rows, 3):
            for column, cell in enumerate(cells):
                if isinstance(cell, str):
                    page.write_string(line, column, cell, text)
                elif cell is None:
                    page.write_string(line, column, "không đủ số liệu" if kinds.get(column) == "share" else "—")
                else:
                    page.write_number(line, column, cell, share if kinds.get(column) == "share" else plain)

    def named(one: dict[str, Any]) -> str:
        return f"{one['vi']}\n{one['en']}"

    states = {"met": "đạt / met", "not_met": "chưa đạt / not met", "no_data": "không đủ số liệu / not enough data"}
    sheet(
        "Chỉ tiêu",
        ["Chỉ tiêu / Target", "Nguồn / Source", "Mức / Level (%)", "Đạt được / Reached (%)", "Kết quả / Result"],
        (
            [
                f"{one['vi']}\n{one['en']}",
                one["source"],
                one["goal"],
                float(one["percent"]) if one["percent"] else None,
                states[one["state"]],
            ]
            for one in report["targets"]
        ),
        (60, 40, 12, 14, 30),
        {3: "share"},
    )
    figures, ratios = _figure_keys(report), _ratio_keys(report)
    header = [
        *(named(one) for one in figures),
        "Giấy, đi / Paper, out",
        "Giấy, đến / Paper, in",
        "Giấy, nội bộ / Paper, internal",
    ]
    header += [f"{named(one)} (%)" for one in ratios]
    kinds = {4 + len(figures) + 3 + place: "share" for place in range(len(ratios))}
    for name, scope in (("Cơ quan", "own"), ("Gồm cấp dưới", "whole")):
        sheet(
            name,
            ["Cơ quan / Agency", "Mã / Id", "Cấp / Level", "Trực thuộc / Parent", *header],
            (
                [one["name"], one["id"], LEVELS[one["level"]][0], one["parent"], *_values(report, one[scope])]
                for one in report["agencies"]
                if one[scope] is not None
            ),
            (44, 16, 16, 16, *(13 for _ in header)),
            kinds,
        )
    for name, key, names in (
        ("Cấp", "levels", LEVELS),
        ("Loại văn bản", "classes", CLASSES),
        ("Chiều", "directions", DIRECTIONS),
    ):
        sheet(
            name,
            [name, "", "", "", *header],
            (
                [
                    " / ".join(names.get(one["value"], (one["value"],) * 2)),
                    one["value"],
                    "",
                    "",
                    *_values(report, one["line"]),
                ]
                for one in report[key]
            ),
            (36, 18, 3, 3, *(13 for _ in header)),
            kinds,
        )
    sheet(
        "Theo tháng",
        ["Tháng / Month", "Văn bản gửi / Sent", "Văn bản nhận / Received"],
        ([one["month"], one["sent"], one["received"]] for one in report["series"]),
        (16, 20, 20),
    )
    if report["restated"]:
        sheet(
            "Điều chỉnh",
            ["Cơ quan / Agency", "Số liệu / Figure", "Công bố lần đầu / First published", "Nay / Now"],
            ([one["agency"], one["figure"], one["first"], one["now"]] for one in report["restated"]),
            (30, 30, 20, 20),
        )
    sheet(
        "Định nghĩa",
        ["Khóa / Key", "Tên", "Name", "Định nghĩa / Definition"],
        ([one["key"], one["vi"], one["en"], one["definition"]] for one in report["definitions"]),
        (28, 40, 40, 90),
    )
    book.close()
    return out.getvalue()


def pdf(report: dict[str, Any], seal: dict[str, str]) -> bytes:
    """The report on A4, to be printed and bound: key numbers, targets, months, levels, all agencies."""
    import font_source_serif_pro as fonts
    from reportlab.graphics.shapes import Drawing, Rect, String
    from reportlab.lib import colors
    from reportlab.lib.enums import TA_RIGHT
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.lib.units import mm
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, Spacer, TableStyle

    folder = Path(fonts.__file__).parent / "files"
    for name, file in (("Report", "SourceSerifPro-Regular"), ("ReportBold", "SourceSerifPro-Semibold")):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, str(folder / f"{file}.ttf")))
    ink, blue, pale, muted = (colors.HexColor(one) for one in ("#1b2733", "#1f4e79", "#5b8db8", "#4a5968"))
    body = ParagraphStyle("body", fontName="Report", fontSize=9.5, leading=13, textColor=ink)
    small = ParagraphStyle("small", parent=body, fontSize=8, leading=10.5, textColor=muted)
    cell = ParagraphStyle("cell", parent=body, fontSize=8.5, leading=10.5)
    right = ParagraphStyle("right", parent=cell, alignment=TA_RIGHT)
    first = ParagraphStyle("first", parent=body, fontName="ReportBold", fontSize=18, leading=23, spaceAfter=4)
    second = ParagraphStyle(
        "second", parent=body, fontName="ReportBold", fontSize=12, leading=16, spaceBefore=12, spaceAfter=5
    )

    def words(text: str, style: Any = body) -> Any:
        return Paragraph(escape(text), style)

    def share(line: dict[str, Any], key: str) -> str:
        one = line["shares"][key]
        return percent(one, "vi") or lacking(one, "vi")

    def table(rows: list[list[Any]], widths: list[float], numeric: int = 1) -> Any:
        made = LongTable(rows, colWidths=[one * mm for one in widths], repeatRows=1)
        made.setStyle(
            TableStyle(
                [
                    ("FONT", (0, 0), (-1, -1), "Report", 8.5),
                    ("FONT", (0, 0), (-1, 0), "ReportBold", 8.5),
                    ("TEXTCOLOR", (0, 0), (-1, -1), ink),
                    ("ALIGN", (numeric, 0), (-1, -1), "RIGHT"),
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("LINEBELOW", (0, 0), (-1, 0), 0.8, blue),
                    ("LINEBELOW", (0, 1), (-1, -1), 0.25, colors.HexColor("#d5dde5")),
                    ("TOPPADDING", (0, 0), (-1, -1), 2.5),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
                ]
            )
        )
        return made

    total = report["total"]
    story: list[Any] = [
        words(report["issuer"]["name"], small),
        words(report["title"]["vi"], first),
        words(report["title"]["en"], small),
        words(_published(report), small),
        Spacer(1, 4 * mm),
        table(
            [
                ["Văn bản gửi", "Văn bản nhận", "Qua môi trường mạng", "Hoàn toàn điện tử"],
                [
                    number(total["figures"]["documents_sent"], "vi"),
                    number(total["figures"]["documents_received"], "vi"),
                    share(total, "e_any_ratio"),
                    share(total, "e_full_ratio"),
                ],
            ],
            [42, 42, 48, 48],
            0,
        ),
        words("Chỉ tiêu / Targets", second),
        table(
            [["Chỉ tiêu", "Mức", "Đạt được", "Kết quả"]]
            + [
                [
                    words(f"{one['vi']} ({one['source']})", cell),
                    f"{one['goal']} %",
                    words(percent(one, "vi") or lacking(one, "vi"), right),
                    {"met": "đạt", "not_met": "chưa đạt", "no_data": "không đủ số liệu"}[one["state"]],
                ]
                for one in report["targets"]
            ],
            [104, 16, 30, 30],
        ),
        words("Văn bản theo tháng / Documents by month", second),
    ]
    high = max((one[key] for one in report["series"] for key in ("sent", "received")), default=0) or 1
    drawing = Drawing(180 * mm, 46 * mm)
    step = 180 * mm / max(1, len(report["series"]))
    wide = min(step * 0.33, 7 * mm)
    for place, (one, label) in enumerate(zip(report["series"], month_labels(report), strict=True)):
        for series, (key, color) in enumerate((("sent", blue), ("received", pale))):
            tall = 36 * mm * one[key] / high
            x = step * (place + 0.5) + (series - 1) * wide * 1.06
            drawing.add(Rect(x, 6 * mm, wide, tall, fillColor=color, strokeColor=None))
        drawing.add(
            String(
                step * (place + 0.5), 1 * mm, label, fontName="Report", fontSize=7, textAnchor="middle", fillColor=ink
            )
        )
    story += [
        drawing,
        table(
            [["", *month_labels(report)]]
            + [
                [words(name, cell), *(number(one[key], "vi") for one in report["series"])]
                for name, key in (("Gửi (đậm)", "sent"), ("Nhận (nhạt)", "received"))
            ],
            [24, *(156 / max(1, len(report["series"])) for _ in report["series"])],
        ),
        words("Theo cấp / By level", second),
        table(
            [["Cấp", "Gửi", "Nhận", "Qua mạng", "Hoàn toàn", "Đã báo số giấy"]]
            + [
                [
                    LEVELS[one["value"]][0],
                    number(one["line"]["figures"]["documents_sent"], "vi"),
                    number(one["line"]["figures"]["documents_received"], "vi"),
                    words(share(one["line"], "e_any_ratio"), right),
                    words(share(one["line"], "e_full_ratio"), right),
                    f"{one['line']['paper_reported']}/{one['line']['agencies']}",
                ]
                for one in report["levels"]
            ],
            [46, 24, 24, 32, 32, 22],
        ),
        words("Theo cơ quan / By agency", second),
        table(
            [["Cơ quan", "Gửi", "Nhận", "Chỉ điện tử", "Qua mạng", "Hoàn toàn"]]
            + [
                [
                    words(one["name"], cell),
                    number(one["own"]["figures"]["documents_sent"], "vi"),
                    number(one["own"]["figures"]["documents_received"], "vi"),
                    number(one["own"]["figures"]["e_only"], "vi"),
                    words(share(one["own"], "e_any_ratio"), right),
                    words(share(one["own"], "e_full_ratio"), right),
                ]
                for one in report["agencies"]
            ],
            [76, 18, 18, 20, 24, 24],
        ),
    ]
    if report["restated"]:
        story += [
            words("Số liệu điều chỉnh / Restated", second),
            table(
                [["Cơ quan", "Số liệu", "Công bố lần đầu", "Nay"]]
                + [
                    [
                        words(one["name"], cell),
                        words(one["vi"], cell),
                        *(shown(one[key], one["unit"], "vi") for key in ("first", "now")),
                    ]
                    for one in report["restated"]
                ],
                [70, 60, 25, 25],
                2,
            ),
        ]
    if report["observed"]:
        story += [words("Quy tắc đang theo dõi / Rules only observed", second)]
        story += [
            words(f"{one['rule']} {one['vi']}: đến {date(one['until'], 'vi')}, {one['messages']} thư", body)
            for one in report["observed"]
        ]
    story.append(Spacer(1, 6 * mm))
    if seal:
        story.append(words(f"figures.json SHA-256 {seal['sha256']}; khóa / key {seal['key']}", small))

    def foot(canvas: Any, document: Any) -> None:
        canvas.saveState()
        canvas.setFont("Report", 8)
        canvas.setFillColor(muted)
        canvas.drawString(15 * mm, 10 * mm, report["title"]["vi"])
        canvas.drawRightString(195 * mm, 10 * mm, str(document.page))
        canvas.restoreState()

    out = io.BytesIO()
    SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=15 * mm,
        rightMargin=15 * mm,
        topMargin=15 * mm,
        bottomMargin=18 * mm,
        title=report["title"]["vi"],
        author=report["issuer"]["name"],
        lang="vi",
        invariant=1,
    ).build(story, onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def _published(report: dict[str, Any]) -> str:
    at = date(report["published_at"], "vi")
    if report["provisional"]:
        return f"Số liệu tạm tính đến {at} / provisional"
    if report["revision"] > 1:
        first = date(report["first_published"]["at"], "vi")
        return f"Công bố lần đầu {first}; điều chỉnh lần {report['revision'] - 1} ngày {at} / restated"
    return f"Công bố {at} / published"
