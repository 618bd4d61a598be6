"""What a page of HTML shows beside its running text: values of attributes, words that a style puts there, pages inside
it, files in its addresses. Pure; linear in the length of the source."""

from __future__ import annotations

import base64
import binascii
import html
import re
from urllib.parse import unquote_to_bytes

from gateway import mime
from gateway.inspection.segments import Segment

#: Attribute values and words of styles that are looked at, of one page.
MOST = 2000
_CAPITALS = re.compile(r"text-transform\s*:\s*uppercase|small-caps", re.IGNORECASE)
#: Classes in the selector of a rule of a style sheet, and selectors that are nothing but one.
_CLASS = re.compile(r"\.([\w-]{1,60})")
_ONE_CLASS = re.compile(r"\s*(?:[a-z][\w]{0,20})?\.[\w-]{1,60}\s*", re.IGNORECASE)
_WORD = re.compile(r"[\w-]+")
_TAG = re.compile(r"<(/?)([a-zA-Z]\w{0,20}+)([^<>]*+)>")
_ATTRIBUTE = re.compile(
    r"(?<![\w-])(alt|title|value|placeholder|content|label|string|summary|aria-label|srcdoc|name)\s*=\s*"
    r"(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'<>]++))",
    re.IGNORECASE,
)
_PUT = re.compile(r"content\s*:\s*(?:\"((?:[^\"\\\n]|\\.)*+)\"|'((?:[^'\\\n]|\\.)*+)')", re.IGNORECASE)
_CSS_ESCAPE = re.compile(r"\\(?:([0-9A-Fa-f]{1,6})\s?|(.))", re.DOTALL)
_DATA = re.compile(
    r"(?:src|href|data|background|action|poster)\s*=\s*[\"']?\s*data:([\w.+-]*/?[\w.+-]*)((?:;[^,;\"'<>]*)*),"
    r"([^\"'<>\s]*+)",
    re.IGNORECASE,
)
_DEEPEST = 3


def rendered(source: str) -> str:
    """The text of a page as a browser lays it out, small letters that a style shows as capitals among them."""
    return mime.html_text(_with_capitals(source)[0] if _styled(source) else source, conditions=True)


def segments(source: str, where: str, depth: int = 0) -> list[Segment]:
    """Everything of a page that somebody may read. The first is its text."""
    source_, unsure = _with_capitals(source) if _styled(source) else (source, False)
    shown = mime.html_text(source_, conditions=True)
    found = [Segment(where, shown, None, "html")]
    if unsure:
        found.append(Segment(where, shown.upper(), None, "html"))
    values: dict[str, None] = {}
    for one in _ATTRIBUTE.finditer(source):
        value = html.unescape(next(filter(None, one.groups()[1:]), ""))
        if one[1].lower() == "srcdoc":
            if depth < _DEEPEST:
                found += segments(value, where, depth + 1)
        elif 2 <= len(value) <= 300:
            values[value] = None
    if "content" in source:
        values.update(dict.fromkeys(_css(one[1] or one[2] or "") for one in _PUT.finditer(source)))
    found += [Segment("thuộc tính trong trang", value, None, "property") for value in list(values)[:MOST] if value]
    return found


def files(source: str) -> list[tuple[str, bytes]]:
    """Files that stand in the addresses of a page itself (`data:`, RFC 2397), without small pictures."""
    found: list[tuple[str, bytes]] = []
    for number, one in enumerate(_DATA.finditer(source), 1):
        raw = unquote_to_bytes(html.unescape(one[3]))
        if "base64" in one[2].lower():
            try:
                raw = binascii.a2b_base64(raw + b"==")
            except binascii.Error:
                raw = base64.b64decode(raw[: len(raw) // 4 * 4])
        if not one[1].lower().startswith("image/") or len(raw) > 20_000:
            kind = one[1].lower().rpartition("/")[2]
            ending = {"html": "html", "plain": "txt", "": "txt", "octet-stream": ""}.get(kind, kind)
            found.append((f"data-{number}" + (f".{ending}" if ending.isalnum() else ""), raw))
        if len(found) >= 100:
            break
    return found


def _css(text: str) -> str:
    def letter(found: re.Match[str]) -> str:
        code = int(found[1], 16) if found[1] else 0
        return (chr(code) if 0 < code < 0x110000 else " ") if found[1] else found[2]

    return _CSS_ESCAPE.sub(letter, text)


def _plain_css(text: str) -> str:
    """A style with its escapes undone: `\\75 ppercase`, and `&#117;ppercase` in an attribute."""
    text = html.unescape(text) if "&" in text else text
    return _css(text) if "\\" in text else text


def _styled(source: str) -> bool:
    lower = source.lower()
    return "ppercase" in lower or "small-caps" in lower  # the first letter of the one may be escaped


def _with_capitals(source: str) -> tuple[str, bool]:
    """The source with capitals where a style attribute or a class asks for them, and whether a rule asks for them in a
    way that is not followed here (by element, by id, by place)."""
    rules = (rule.rpartition("{") for rule in _plain_css(source).split("}"))
    classes: set[str] = set()
    unsure = False
    for selector, _, body in rules:
        if not _CAPITALS.search(body) or "<" in body:
            continue
        last = selector[-300:].rpartition(">")[2] if "<style" in selector[-300:].lower() else selector[-300:]
        classes.update(_CLASS.findall(last))
        unsure = unsure or not all(_ONE_CLASS.fullmatch(one) for one in last.split(","))
    out, position, inside, depth = [], 0, "", 0
    for tag in _TAG.finditer(source):
        between = source[position : tag.start()]
        if inside and between:
            between = html.escape(html.unescape(between).upper(), quote=False)
        out += [between, tag[0]]
        position, name = tag.end(), tag[2].lower()
        if inside:
            if name == inside and not tag[3].endswith("/"):
                depth += -1 if tag[1] else 1
                inside = inside if depth else ""
        elif not tag[1] and name not in ("style", "script") and tag[3]:
            wanted = _CAPITALS.search(_plain_css(tag[3])) or (
                classes and "class" in tag[3] and classes & set(_WORD.findall(tag[3]))
            )
            inside, depth = (name, 1) if wanted else ("", 0)
    rest = source[position:]
    return "".join(out) + (rest.upper() if inside else rest), unsure
