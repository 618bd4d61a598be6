"""Marks of secrecy, urgency and circulation in text, graded (rules.md 3.1, 3.2).

Two rules keep the precision. A mark stands alone, in capitals, on its line or in its cell; words in a sentence never
count. And accents are kept: without them MẬT, MẶT, MẮT and MẤT are one word, and half of all letterheads would fire.

`strong` is evidence enough to refuse a message; `weak` asks for a person. Findings of secrecy carry no text at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gateway import vietnamese
from gateway.inspection.findings import Finding
from gateway.inspection.segments import Segment

Grade = Literal["strong", "weak"]
STRONG: Grade = "strong"
WEAK: Grade = "weak"
LEVELS = ("mat", "toi_mat", "tuyet_mat")

_HEADER_LINES = 45  # how far the header zone reaches in text without pages; rules.md 3.7
_SHORT = 160  # a mark line is short; a line longer than this is looked at cell by cell or not at all

# Everything is matched on lower-cased, cleaned, composed text; capitals are judged on the text itself.
_SECRET = r"(?:tuyệt[\s_.–-]*mật|tối[\s_.–-]*mật|mật)"
_URGENT = r"(?:h(?:ỏa|oả)\s*tốc\s*hẹn\s*giờ|h(?:ỏa|oả)\s*tốc|thượng\s*khẩn|khẩn)"
_EDGE = r"[^\w]*+"  # possessive: what follows is a letter, and going back would cost exponential time
_COPY = (
    r"(?:\(?\s*[abc]\s*\)|(?:bản\s+số|số\s+bản|bản\s+thứ)\s*+[:.]?+\s*+[\d.…_/]*+|hẹn\s*giờ"
    r"|(?:lúc\s*)?\d{1,2}\s*(?:h|giờ)\s*\d{0,2})"
)
_MARK_LINE = re.compile(
    rf"{_EDGE}(?:{_COPY}{_EDGE})?(?P<first>{_SECRET}|{_URGENT})(?:{_EDGE}(?:{_SECRET}|{_URGENT}|{_COPY}))*{_EDGE}"
)
_FINDS_SECRET = re.compile(_SECRET)
_FINDS_URGENT = re.compile(_URGENT)
#: A mark whose letters are parted by anything at all: `MẬ T`, `M/Ậ/T`, `TUYỆT-MẬT`.
_TIGHT = {"mật": "mật", "tốimật": "tối mật", "tuyệtmật": "tuyệt mật"}
_NO_LETTER = re.compile(r"[\W_]+")
_CELLS = re.compile(r"\t+|\s{2,}|[|¦│┃║▏▕]+")

_LABEL = re.compile(
    r"(?<!các )(?<!những )(?:mức\s*)?độ\s*(?:bảo\s*)?mật\s*"
    rf"(?:[:：=|\t]|\s[-–—]\s|\s{{2,}}|\s*\n)[\s:|]*[\[(\"“'*_☑☒✓✔]*\s*"
    rf"(?P<level>{_SECRET})(?P<after>\s*[\])\"”'*_]*\s*(?:\([abc]\))?)(?=$|\n|\t|\s{{2,}}|[.;,|/\])]|\s*[-–—]\s)"
)
_URGENCY_LABEL = re.compile(
    rf"(?:mức\s*)?độ\s*khẩn\s*(?:[:：=|\t]|\s[-–—]\s|\s{{2,}}|\s*\n)[\s:|]*[\[(\"“'*_☑☒✓✔]*\s*(?P<level>{_URGENT})"
    r"(?=\s*[\])\"”'*_]*\s*(?:$|\n|\t|[.;,|/\])]|\s{2,}|[-–—]))"
)
_OTHER_LEVEL = re.compile(rf"\s*(?:[,/;|•·–—-]|và|hoặc)\s*{_SECRET}\b")

_REPLY = re.compile(
    r"(?:\s*(?:re|fw|fwd|tr|aw|sv|tl|ct|trả lời|chuyển tiếp|chuyển|v/v)\s*(?:\[\d+\]|\(\d+\))?\s*[:：]\s*)+",
    re.IGNORECASE,
)
_TAG = re.compile(
    rf"\s*[\[({{<【《«]\s*(?P<level>{_SECRET}|{_URGENT})(?:\s*[-–—,+/&]\s*(?:{_SECRET}|{_URGENT}))*\s*[\])}}>】》»]"
)
_LEAD = re.compile(
    rf"[^\w\[(]*+(?P<level>{_SECRET}|{_URGENT})[^\w:：|–—()-]*+(?:{_COPY}[^\w:：|–—()-]*+)?"
    r"(?:[:：|_]|[-–—]{1,2}(?=\s|\w)|\s[-–—])"
)
_TAIL = re.compile(rf"(?:[-–—|_/]|\s{{2,}})\s*(?P<level>{_SECRET}|{_URGENT})\s*[.!*]*\s*$")

_COMPANION = re.compile(
    r"(?P<envelope>chỉ\s+người\s+có\s+tên\s+mới\s+được\s+bóc\s+bì)"
    r"|(?P<term>thời\s+hạn\s+bảo\s+vệ\s+bí\s+mật\s+nhà\s+nước\s*[:：]\s*(?=[^\n]{0,40}(?:\d|\.\.|…|__)))"
)
_RECALL = re.compile(rf"{_EDGE}tài\s*liệu\s*thu\s*hồi{_EDGE}")
_KIND_OF_PAPER = re.compile(
    rf"{_EDGE}(?:tài\s*liệu|văn\s*bản|hồ\s*sơ|công\s*văn|thông\s*tin|công\s*điện|báo\s*cáo|"
    rf"tin)\s+(?P<level>{_SECRET}){_EDGE}"
)
_CLASSED = re.compile(
    rf"{_EDGE}(?:dấu|phân\s*loại|cấp(?:\s*độ)?|mức(?:\s*độ)?|loại(?:\s*văn\s*bản|\s*tài\s*liệu)?|classification|"
    rf"security(?:\s*level)?)\s*[:：]\s*(?P<level>{_SECRET}){_EDGE}"
)
_DECLASSIFIED = re.compile(rf"{_EDGE}giải\s*mật{_EDGE}(?:từ\s*[:：]?.*|\d.*)?")
_BARE_MARK = re.compile(r"\W*(?:\[\s*mat\s*\]|tuyet\s*mat|toi\s*mat)\W*", re.IGNORECASE)
_BARE_TAG = re.compile(r"[\[(]\s*(?:tuyet\s*mat|toi\s*mat|mat)\s*[\])]", re.IGNORECASE)
_URGENT_TELEGRAM = re.compile(rf"{_EDGE}công\s*điện\s*(?P<level>{_URGENT}){_EDGE}")

# A wrapped heading leaves MẬT alone on a line: the words it may belong to.
_BEFORE = re.compile(
    r"(?:bí|bảo|cơ|giải|độ|dấu|chỉ|văn\s+bản|tài\s+liệu|hồ\s+sơ|thông\s+tin|tin|nhà\s+nước|và|hoặc|trừ|không|các|"
    r"những|gồm|là|,|/)\s*$"
)
_AFTER = re.compile(
    r"\W*(?:nhà\s+nước|khẩu|độ|mã|thiết|vụ|danh|ngữ|thư|ong|kinh\s+doanh|đời\s+tư|công\s+tác|và|hoặc|của|trong|về|"
    r"theo)\b"
)
_SENTENCE_END = re.compile(r"[.:;!?…\"”)\]]\s*$|\d\s*$")

_CIRCULATION = (
    ("internal", re.compile(rf"{_EDGE}(?:tài\s*liệu\s*|văn\s*bản\s*)?(?:chỉ\s*)?lưu\s*hành\s*nội\s*bộ{_EDGE}|"
    rf"{_EDGE}(?:tài\s*liệu|văn\s*bản)\s*nội\s*bộ{_EDGE}")),
    ("return_after_reading", re.compile(rf"{_EDGE}(?:xem\s*xong|xong\s*hội\s*nghị|họp\s*xong|"
    rf"đọc\s*xong)\s*(?:xin\s*)?trả\s*lại{_EDGE}")),
    ("recall", re.compile(rf"{_EDGE}(?:tài\s*liệu|văn\s*bản)\s*thu\s*hồi{_EDGE}")),
    ("no_spread", re.compile(rf"{_EDGE}không\s*(?:được\s*)?phổ\s*biến.{{0,60}}")),
)  # fmt: skip
_CIRCULATION_HINT = re.compile("nội\\s*bộ|trả\\s*lại|thu\\s*hồi|phổ\\s*biến", re.IGNORECASE)

# A line without one of these holds no mark: the cheap test that nearly every line of a mail ends with.
_TRIGGER = re.compile(
    "[ậẬẩẨ]|T *[OỐ] *[CI]|t *[oố] *[ci]|[Tt][OoỐố][IiCc]|MAT|[Mm]at\\b|BÓC|bóc|[^\x00-\x7f][Aa] t|THU H|NỘI|TRẢ|PHỔ"
)


@dataclass(frozen=True, slots=True)
class _Hit:
    kind: str
    value: str
    grade: Grade
    segment: Segment
    line: bool = False  # a mark standing alone, which a figure of a form may show as well
    companion: bool = False


def marks(segments: Iterable[Segment], about: str = "") -> list[Finding]:
    """Findings of kind `secrecy`, `urgency` and `circulation` over the segments of one file or one message text.

    One finding per kind, value and place, the strongest. Never raises on any text.
    """
    hits: list[_Hit] = []
    for segment in segments:
        if segment.zone in ("subject", "filename", "header_field", "property"):
            hits.extend(_in_title(segment))
        else:
            hits.extend(_in_text(segment))
    if not hits:
        return []
    hits = _weigh(hits)
    best: dict[tuple[str, str, str], _Hit] = {}
    for hit in hits:
        key = (hit.kind, hit.value, hit.segment.where)
        if key not in best or (hit.grade == STRONG and best[key].grade == WEAK):
            best[key] = hit
    order = {"secrecy": 0, "urgency": 1, "circulation": 2}
    found = sorted(best.values(), key=lambda hit: (order[hit.kind], hit.grade != STRONG, -_rank(hit.value)))
    return [
        Finding(kind=hit.kind, value=hit.value, grade=hit.grade, about=about, where=hit.segment.where) for hit in found
    ]


def _rank(value: str) -> int:
    order = (*LEVELS, "khan", "thuong_khan", "hoa_toc", "hoa_toc_hen_gio")
    return order.index(value) if value in order else -1


def _weigh(hits: list[_Hit]) -> list[_Hit]:
    """What one finding says about another (rules.md 3.1): the rules that need the whole file."""
    secret = [hit for hit in hits if hit.kind == "secrecy"]
    marked = [hit for hit in secret if hit.value in LEVELS]
    weaker: set[int] = set()
    if any(hit.value == "declassified" for hit in secret):
        weaker |= {id(hit) for hit in secret}  # a person compares the old mark with the decision that lifted it
    if not any((hit.segment.page or 1) <= 2 for hit in marked if hit.grade == STRONG):
        # A form set or a regulation about secrecy shows the stamps as figures on inner pages.
        weaker |= {id(hit) for hit in marked if hit.line and (hit.segment.page or 1) >= 3}
    with_company = any(hit.grade == STRONG and hit.value in LEVELS for hit in secret)
    result = []
    for hit in hits:
        grade = hit.grade
        if id(hit) in weaker:
            grade = WEAK
        elif hit.value == "recall_mark" and with_company:
            grade = STRONG
        result.append(_Hit(hit.kind, hit.value, grade, hit.segment, hit.line, hit.companion))
    return result


def _level(text: str) -> str:
    if "tuyệt" in text:
        return "tuyet_mat"
    return "toi_mat" if "tối" in text else "mat"


def _urgency(text: str) -> str:
    compact = re.sub(r"\s+", "", text)
    if "tốc" in compact:
        return "hoa_toc_hen_gio" if "hẹngiờ" in compact else "hoa_toc"
    return "thuong_khan" if "thượng" in compact else "khan"


def _capitals(text: str, caseless: bool) -> bool:
    """All letters are capitals; in a TCVN3 reading that cannot be told and counts as yes."""
    return caseless or (text.upper() == text and text.lower() != text)


def _titled(text: str) -> bool:
    letter = next((c for c in text if c.isalpha()), "")
    return letter.isupper()


# -- running text --------------------------------------------------------------------------------------------------


_COLUMN = re.compile(r"(?m)^[ \t]*+[^\W\d_][ \t]*+(?:\n[ \t]*+[^\W\d_]?[ \t]*+){2,}$")
_GAPS = re.compile(r"\s+")


def _views(text: str) -> Iterator[tuple[list[str], bool, list[bool]]]:
    """The readings of a text as lists of lines: as it is, then with legacy lines re-read. Third: lines re-read."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    yield vietnamese.clean("\n".join(lines)).split("\n") if not text.isascii() else lines, False, []
    if _COLUMN.search(text):  # one letter below the other
        found = (one[0] for one in _COLUMN.finditer(vietnamese.clean("\n".join(lines))))
        yield [_GAPS.sub("", one) for one in found if len(one) < 400], False, []  # a mark has ten letters
    legacy: dict[str, dict[int, tuple[str, bool]]] = {}
    for number, line in enumerate(lines):
        for charset, view, caseless in vietnamese.legacy_views(line) if line else ():
            legacy.setdefault(charset, {})[number] = (view, caseless)
    for changed in legacy.values():
        new = lines.copy()
        for n, (view, caseless) in changed.items():
            new[n] = vietnamese.clean(view.upper() if caseless else view)
        yield new, any(caseless for _, caseless in changed.values()), [n in changed for n in range(len(lines))]


def _in_text(segment: Segment) -> Iterator[_Hit]:
    for lines, caseless, changed in _views(segment.text):
        for number, line in enumerate(lines):
            if changed and not changed[number]:
                continue
            if _TRIGGER.search(line) or (len(line) < _SHORT and _looks_spaced(line)):
                yield from _in_line(segment, lines, number, caseless)


def _looks_spaced(line: str) -> bool:
    return len(line) >= 5 and vietnamese._SPACED.search(line) is not None


def _in_line(segment: Segment, lines: list[str], number: int, caseless: bool) -> Iterator[_Hit]:
    line = lines[number].strip(" ")
    if len(line) > 2000:
        line = line[:2000]
    lower = line.lower()
    yield from _labels(segment, lines, number, lower)
    if len(line) <= _SHORT:
        whole = _whole(line)
        found = list(_whole_line(segment, lines, number, whole, caseless))
        if found:
            yield from found
            return
    cells = [cell for cell in _CELLS.split(line) if cell.strip()]
    if len(cells) > 1:
        yield from _in_cells(segment, number, cells, caseless)


def _whole(line: str) -> str:
    """The line with spaced letters joined; a line that has the letters of one mark and no others is that mark."""
    tight = _NO_LETTER.sub("", line) if len(line) < 60 else ""
    if (mark := _TIGHT.get(tight.lower())) and not _MARK_LINE.fullmatch(line.lower()):
        return mark.upper() if tight.upper() == tight else mark.capitalize() if _titled(tight) else mark
    return vietnamese.join_spaced_letters(line).strip()


def _labels(segment: Segment, lines: list[str], number: int, lower: str) -> Iterator[_Hit]:
    if "độ" not in lower:
        return
    text = lower
    if lower.rstrip().endswith(("mật", "khẩn", ":")):  # the value may stand in the next cell or line
        following = next((line for line in lines[number + 1 : number + 3] if line.strip()), "")
        text = f"{lower}\n{following.lower()}"
    for found in _LABEL.finditer(text):
        listed = _OTHER_LEVEL.match(text, found.end())  # `Độ mật: Mật/Tối mật/Tuyệt mật` is a form to fill in
        yield _Hit("secrecy", _level(found["level"]), WEAK if listed else STRONG, segment)
    for found in _URGENCY_LABEL.finditer(text):
        yield _Hit("urgency", _urgency(found["level"]), STRONG, segment)


def _whole_line(segment: Segment, lines: list[str], number: int, line: str, caseless: bool) -> Iterator[_Hit]:
    lower = line.lower()
    capitals = _capitals(line, caseless)
    if _MARK_LINE.fullmatch(lower):
        spans = [one.span() for pattern in (_FINDS_SECRET, _FINDS_URGENT) for one in pattern.finditer(lower)]
        capitals = _capitals("".join(line[a:b] for a, b in spans), caseless)  # `Bản số 2` beside it may be small
        yield from _mark_alone(segment, lines, number, line, lower, capitals, caseless)
        return
    if found := _KIND_OF_PAPER.fullmatch(lower):
        if capitals and not (caseless and not _stands_apart(lines, number)):
            yield _Hit("secrecy", _level(found["level"]), WEAK, segment, line=True)
        return
    if (found := _CLASSED.fullmatch(lower)) and _capitals(line[found.start("level") : found.end("level")], False):
        yield _Hit("secrecy", _level(found["level"]), WEAK, segment, line=True)
        return
    if (
        "giải" in lower
        and (found := _DECLASSIFIED.fullmatch(lower))
        and capitals | _capitals(line[:12].rstrip("Từ: "), caseless)
    ):
        following = next((one.strip().lower() for one in lines[number + 1 : number + 3] if one.strip()), "")
        if "từ" in lower or following.startswith("từ"):
            yield _Hit("secrecy", "declassified", WEAK, segment, line=True)
        return
    if found := _COMPANION.search(lower):
        before = lower[: found.start()].strip(" \t-–—+*•.:([\"“'0123456789abcdđe)")
        if found["term"] and not before:
            yield _Hit("secrecy", "unknown", STRONG, segment, companion=True)
        elif found["envelope"] and not before:
            alone = not lower[found.end() :].strip(" .!)]\"”'*")
            yield _Hit("secrecy", "unknown", STRONG if capitals and alone else WEAK, segment, companion=True)
    if _BARE_MARK.fullmatch(line) and (line.upper() == line or "[" in line):
        yield _Hit(
            "secrecy",
            "tuyet_mat" if "tuyet" in lower else "toi_mat" if "toi" in lower else "mat",
            WEAK,
            segment,
            line=True,
        )
    if capitals and (found := _URGENT_TELEGRAM.fullmatch(lower)):
        yield _Hit("urgency", _urgency(found["level"]), WEAK, segment)
    if capitals and _CIRCULATION_HINT.search(lower):
        if _RECALL.fullmatch(lower):
            yield _Hit("secrecy", "recall_mark", WEAK, segment, line=True, companion=True)
        for value, pattern in _CIRCULATION:
            if pattern.fullmatch(lower):
                yield _Hit("circulation", value, STRONG, segment)


def _stands_apart(lines: list[str], number: int) -> bool:
    """Whether the line before is empty, or ends a sentence: else this line may be the end of a wrapped one."""
    before = lines[number - 1].strip() if number else ""
    return not before or bool(_SENTENCE_END.search(before))


def _mark_alone(
    segment: Segment, lines: list[str], number: int, line: str, lower: str, capitals: bool, caseless: bool
) -> Iterator[_Hit]:
    before = next((one.strip().lower() for one in reversed(lines[max(0, number - 2) : number]) if one.strip()), "")
    after = next((one.strip().lower() for one in lines[number + 1 : number + 3] if one.strip()), "")
    levels = {_level(found[0]) for found in _FINDS_SECRET.finditer(lower)}
    urgencies = {_urgency(found[0]) for found in _FINDS_URGENT.finditer(lower)}
    if levels:
        level = max(levels, key=LEVELS.index)
        if level == "mat" and before.strip(" *|_[(") in ("tuyệt", "tối"):
            level = "tuyet_mat" if "tuyệt" in before else "toi_mat"  # one mark on two lines
            capitals = capitals and _capitals(next(one for one in reversed(lines[:number]) if one.strip()), caseless)
        wrapped = bool(_BEFORE.search(before) or _AFTER.match(after)) or len(levels) > 1
        listed = _MARK_LINE.fullmatch(before) or _MARK_LINE.fullmatch(after)
        if listed:  # TUYỆT MẬT, TỐI MẬT, MẬT one under the other are the columns of a table, not a mark
            near = {_level(m[0]) for one in (before, after) for m in _FINDS_SECRET.finditer(one)}
            wrapped = wrapped or bool(near - levels)
        if caseless and not wrapped and not _stands_apart(lines, number):
            wrapped = number >= _HEADER_LINES or len(before) > 60
        if capitals:
            yield _Hit("secrecy", level, WEAK if wrapped else STRONG, segment, line=True)
        elif _titled(line) and not _BEFORE.search(before):  # else the end of a sentence that was wrapped
            yield _Hit("secrecy", level, WEAK, segment, line=True)
    if urgencies and (capitals or _titled(line)):
        if _AFTER_URGENT.match(after) and len(before) > 30:
            return
        yield _Hit("urgency", max(urgencies, key=_rank), STRONG if capitals else WEAK, segment, line=True)


_AFTER_URGENT = re.compile(r"\W*(?:cấp|trương|thiết|hoang)\b")


def _in_cells(segment: Segment, number: int, cells: list[str], caseless: bool) -> Iterator[_Hit]:
    header = (segment.page == 1 or (segment.page is None and number < _HEADER_LINES)) or segment.zone != "body"
    secret: list[tuple[str, str]] = []
    # Justified lines have wide gaps between their words: `BẢO  VỆ  BÍ  MẬT  NHÀ  NƯỚC`.
    around = [(cells[n - 1].lower() if n else "", cells[n + 1].lower()) for n in range(len(cells) - 1)]
    around.append((cells[-2].lower(), ""))
    for cell, (before, after) in zip(cells, around, strict=True):
        cell = _whole(cell)
        if _BEFORE.search(before) or _AFTER.match(after):
            continue
        lower = cell.lower()
        if len(cell) > 60 or not _MARK_LINE.fullmatch(lower) or not _capitals(cell, caseless):
            continue
        secret.extend((_level(one[0]), cell) for one in _FINDS_SECRET.finditer(lower))
        for one in _FINDS_URGENT.finditer(lower):
            yield _Hit("urgency", _urgency(one[0]), STRONG if header else WEAK, segment, line=True)
    levels = {level for level, _ in secret}
    if levels:  # the three levels side by side are the heading of a table
        level = max(levels, key=LEVELS.index)
        others = [cell for cell in cells if not any(cell.strip() == mark for _, mark in secret)]
        # A table that counts documents of each level.
        counted = len(others) > 1 and all(re.fullmatch(r"\s*[\d.,]{1,6}\s*", cell) for cell in others)
        grade = STRONG if header and len(levels) == 1 and not counted else WEAK
        yield _Hit("secrecy", level, grade, segment, line=True)


# -- subjects, names, header fields --------------------------------------------------------------------------------

_EXTENSIONS = re.compile(r"(?:\.[a-z0-9]{1,8}){1,3}$", re.IGNORECASE)
_NAME_TOKEN = re.compile(r"[\s_\-.()\[\]{}+,;=&#@!~]+")
_JOINED_BEFORE = {"bí", "bảo", "cơ", "giải", "thân", "độ", "không", "trừ", "tuần", "trinh", "nội"}
_JOINED_AFTER = {"khẩu", "mã", "độ", "thiết", "vụ", "danh", "ngữ", "thư", "ong", "đàm", "nghị", "báo", "hiệu", "gấu"}


def _in_title(segment: Segment) -> Iterator[_Hit]:
    """Subjects, values of fields and properties, file names: one line, the mark first in it, in brackets or alone."""
    if segment.zone == "property" and "\n" in segment.text.strip():
        for line in segment.text[:200_000].split("\n"):  # one value a line
            yield from _in_title(Segment(segment.where, line, segment.page, segment.zone))
        return
    raw = segment.text[:2000]
    views = [vietnamese.View("", vietnamese.clean(raw))]
    views += [vietnamese.View(v.charset, vietnamese.clean(v.text), v.caseless) for v in vietnamese.legacy_views(raw)]
    for _, text, caseless in views:
        text = " ".join(text.split())
        if segment.zone == "filename":
            text = text.replace("\\", "/").rsplit("/", 1)[-1]
            yield from _name_tokens(segment, text, caseless)
            text = _EXTENSIONS.sub("", text)
        yield from _title(segment, text, caseless)


def _title(segment: Segment, text: str, caseless: bool) -> Iterator[_Hit]:
    text = _REPLY.sub("", text, count=1) if _REPLY.match(text) else text
    joined = vietnamese.join_spaced_letters(text)
    for line in {text, joined}:
        lower = line.lower()
        if not _TRIGGER.search(line):
            continue
        capitals = _capitals(line, caseless)
        if len(lower) <= _SHORT and _MARK_LINE.fullmatch(lower):
            grade = STRONG if capitals else WEAK
            yield from _title_hits(segment, lower, grade)
        start = 0
        while found := _TAG.match(lower, start):  # `[MẬT][HỎA TỐC] …`: any case at the front
            yield from _title_hits(segment, found[0], STRONG)
            start = found.end()
        for found in re.finditer(_TAG, lower[start:]):
            text_of = line[start + found.start() : start + found.end()]
            yield from _title_hits(segment, found[0], STRONG if _capitals(text_of, caseless) else WEAK)
        if found := _LEAD.match(lower, start):
            lead = line[found.start("level") : found.end("level")]
            if _capitals(lead, caseless) and not (caseless and lead.islower() and not lower[found.end() :].strip()):
                yield from _title_hits(segment, found["level"], STRONG)
            elif _titled(lead):
                yield from _title_hits(segment, found["level"], WEAK)
        if (found := _TAIL.search(lower)) and found.start() > 0:
            tail = line[found.start("level") : found.end("level")]
            if _capitals(tail, False) and not _BEFORE.search(lower[: found.start()]):
                yield from _title_hits(segment, found["level"], WEAK)
        for found in _LABEL.finditer(lower):
            yield _Hit("secrecy", _level(found["level"]), STRONG, segment)
        for found in _URGENCY_LABEL.finditer(lower):
            yield _Hit("urgency", _urgency(found["level"]), STRONG, segment)
        if _COMPANION.match(lower.strip('[( *"')):
            yield _Hit(
                "secrecy", "unknown", STRONG if capitals or "thời" in lower[:8] else WEAK, segment, companion=True
            )
        if found := _KIND_OF_PAPER.fullmatch(lower):
            yield _Hit("secrecy", _level(found["level"]), WEAK, segment)
        if _RECALL.fullmatch(lower) or re.match(r"\W*\[\s*tài liệu thu hồi\s*\]", lower):
            yield _Hit("secrecy", "recall_mark", WEAK, segment, companion=True)
        if _BARE_TAG.match(line.strip()) or (_BARE_MARK.fullmatch(line) and line.upper() == line):
            value = "tuyet_mat" if "tuyet" in lower else "toi_mat" if "toi" in lower else "mat"
            yield _Hit("secrecy", value, WEAK, segment)
        if capitals and (found := _URGENT_TELEGRAM.fullmatch(lower)):
            yield _Hit("urgency", _urgency(found["level"]), WEAK, segment)
        if _CIRCULATION_HINT.search(lower):
            for value, pattern in _CIRCULATION:
                bracketed = re.match(r"\W*[\[(]([^\])]+)[\])]", line)
                if (capitals and pattern.fullmatch(lower)) or (bracketed and pattern.fullmatch(bracketed[1].lower())):
                    yield _Hit("circulation", value, STRONG, segment)


def _title_hits(segment: Segment, lower: str, grade: Grade) -> Iterator[_Hit]:
    levels = [_level(found[0]) for found in _FINDS_SECRET.finditer(lower)]
    if levels:
        yield _Hit("secrecy", max(levels, key=LEVELS.index), grade, segment)
    urgencies = [_urgency(found[0]) for found in _FINDS_URGENT.finditer(lower)]
    if urgencies:
        yield _Hit("urgency", max(urgencies, key=_rank), grade, segment)


def _name_tokens(segment: Segment, name: str, caseless: bool) -> Iterator[_Hit]:
    """A file name is written in haste and without a place for marks: its words ask for a person, no more."""
    tokens = [
        token for token in _NAME_TOKEN.split(vietnamese.join_spaced_letters(_EXTENSIONS.sub("", name)).lower()) if token
    ]
    for n, token in enumerate(tokens):
        before = tokens[n - 1] if n else ""
        after = tokens[n + 1] if n + 1 < len(tokens) else ""
        if token == "mật" and before not in _JOINED_BEFORE and after not in _JOINED_AFTER:
            level = {"tuyệt": "tuyet_mat", "tối": "toi_mat"}.get(before, "mat")
            yield _Hit("secrecy", level, WEAK, segment)
        elif token in ("tuyệtmật", "tốimật", "tuyetmat", "toimat"):
            yield _Hit("secrecy", "tuyet_mat" if token.startswith("tuy") else "toi_mat", WEAK, segment)
        elif token == "mat" and before in ("tuyet", "toi") and after not in ("dien", "khau", "ong", "do"):
            yield _Hit("secrecy", "tuyet_mat" if before == "tuyet" else "toi_mat", WEAK, segment)
        elif (token == "tốc" and before in ("hỏa", "hoả")) or (token == "toc" and before == "hoa"):
            yield _Hit("urgency", "hoa_toc", WEAK, segment)
        elif token == "khẩn" and after not in ("cấp", "trương", "thiết", "hoang") and before not in ("cầu",):
            yield _Hit("urgency", "thuong_khan" if before == "thượng" else "khan", WEAK, segment)
