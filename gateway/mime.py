"""The bytes of a mail read as header fields, parts and facts. Total: any bytes give a `Message`, nothing raises.

One tokenizer of our own, because the question here is not only "what does this mail say" but "can two programs read it
differently". Wherever they can, the finding `ambiguous` says so and the policy answers for it; what is encrypted or
beyond the limits is `uninspectable`; harmless slips are noted under the kind `mime`.

The structure is found with `bytes.find` over offsets, bodies stay untouched until `Part.decode`. Whatever can only be
seen in a decoded body (stray bytes in base64, uuencode in a text) is noted when the part is decoded the first time;
`Message.findings` decodes what nobody has decoded yet, so that it is complete whenever it is asked.

RFC 5322 (fields, addresses), 2045 and 2046 (MIME), 2047 and 2231 (letters in fields), 2183 (file
names), 5545 (DTSTART).
"""

from __future__ import annotations

import binascii
import codecs
import datetime as dt
import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_tz
from functools import lru_cache
from zoneinfo import ZoneInfo

import email_validator

from gateway.inspection.findings import Finding, Mailbox, MessageFacts
from gateway.message import VIETNAM

# Limits of reliability.md 3.2. Real mail stays far below each of them.
MAX_DEPTH = 20
MAX_PARTS = 500
MAX_HEADER = 100 * 1024  # bytes of one header block; Postfix cuts at 102,400 too
_HEADER_BUDGET = 2 << 20  # bytes of header blocks read at all, in one message: bounds the time for a hostile one
BODY_TEXT = 64 * 1024  # characters of MessageFacts.body_text
HTML_LIMIT = 2 << 20  # characters of one HTML body that are rendered; about two seconds for the worst of them

_IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
_ENCODINGS = frozenset(("7bit", "8bit", "binary", "quoted-printable", "base64"))
#: Fields that may occur once (RFC 5322 section 3.6, RFC 2045): a second, different one is read by some programs and
#: not by others.
_SINGLE = frozenset(
    (
        "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version",
        "content-type", "content-transfer-encoding", "content-disposition", "content-id",
    )
)  # fmt: skip
_SPACE = " \t"


# --- letters -----------------------------------------------------------------------------------------------------


# Names that other systems use for the encodings Python knows, or that Vietnamese mailers write.
_ALIASES = {
    "unicode-1-1-utf-8": "utf-8", "utf8mb4": "utf-8", "x-utf-8": "utf-8", "x-cp1258": "cp1258", "x-sjis": "shift_jis",
    "ansi": "cp1252", "x-unknown": "", "unknown-8bit": "", "unknown": "", "default": "", "none": "",
    "x-user-defined": "",
}  # fmt: skip
# Single-byte Vietnamese encodings that Python does not know; their letters are read by the text room, which is given
# the bytes one to one as Latin-1 (rules.md 3.7).
_LEGACY = {
    "viscii": "viscii", "csviscii": "viscii", "viscii1.1-1": "viscii", "tcvn": "tcvn3", "tcvn3": "tcvn3",
    "tcvn-5712": "tcvn3", "tcvn5712-1": "tcvn3", "x-viet-tcvn5712": "tcvn3", "x-viet-tcvn": "tcvn3", "x-abc": "tcvn3",
    "vni": "vni", "x-viet-vni": "vni", "x-vni": "vni", "viqr": "viqr", "csviqr": "viqr",
}  # fmt: skip
# Text codecs of Python that are no charset of any mail and would run code-like escapes or be slow.
_NOT_MAIL = frozenset(
    ("unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined", "charmap", "mbcs", "oem", "palmos")
)


@lru_cache(maxsize=256)
def _codec(charset: str) -> str:
    """Python's name of a declared charset; empty when it is missing, unknown or no charset of mail."""
    name = charset.strip().strip("'\"").lower()
    name = _ALIASES.get(name, name)
    if not name or len(name) > 40 or not name.isascii():
        return ""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return ""
    return found.name if found._is_text_encoding and found.name.replace("_", "-") not in _NOT_MAIL else ""


# A letter beside a byte that is a sign in cp1258 and a letter of TCVN3: the text is not cp1258.
_TCVN3_SIGN = re.compile(rb"[A-Za-z][\xa8-\xae\xb5-\xb9\xbb-\xbe]")
_LOOSE_MARK = re.compile("[\u0300\u0301\u0303\u0309\u0323]")


def _guess(data: bytes) -> tuple[str, str]:
    """Text whose charset is missing or wrong: UTF-8, else cp1258 where that gives Vietnamese, else Latin-1, the legacy
    candidate. The second value is `undeclared` unless it was UTF-8."""
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        first = error
    # UTF-8 with a few broken places (a letter cut in two by a column limit) is still UTF-8.
    high = sum(map(data.count, _HIGH_LEADS)) if len(data) < 1 << 20 else 0
    if high > 20 or (high > 8 and first.start > 0):
        loose = data.decode("utf-8", "replace")
        if loose.count("\ufffd") * 20 <= high:
            return loose, "undeclared"
    if not _TCVN3_SIGN.search(data):
        try:
            text = unicodedata.normalize("NFC", data.decode("cp1258"))
        except UnicodeDecodeError:
            text = "\u0300"
        if not _LOOSE_MARK.search(text):
            return text, "undeclared"
    return data.decode("latin-1"), "undeclared"


_HIGH_LEADS = tuple(bytes((lead,)) for lead in range(0xC3, 0xF0))


# Codecs in which ASCII bytes can be other letters.
_ASCII_MEANS_MORE = frozenset(("utf-7", "hz", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037", "cp500"))


def decode_text(data: bytes, charset: str = "") -> tuple[str, str]:
    """Bytes to text. Returns (text, value of a `charset` finding or empty).

    The declared charset counts when the bytes fit it; `us-ascii` with 8-bit bytes, an unknown name or bytes that do
    not fit are guessed. Legacy Vietnamese encodings come back as Latin-1 with their name as the finding.
    """
    if data.isascii() and b"\x1b" not in data and _codec(charset) not in _ASCII_MEANS_MORE:
        return data.decode("ascii"), "viqr" if _LEGACY.get(charset.strip().lower()) == "viqr" else ""
    legacy = _LEGACY.get(charset.strip().lower(), "")
    if legacy:
        return data.decode("latin-1"), legacy
    codec = _codec(charset)
    if codec and codec != "ascii":
        try:
            text = data.decode(codec)
            return text.removeprefix("\ufeff"), ""
        except (UnicodeError, ValueError):
            pass
    text, value = _guess(data)
    return text.removeprefix("\ufeff"), value


def _raw(value: str) -> bytes:
    """The bytes of a field value, which the tokenizer keeps as Latin-1."""
    return value.encode("latin-1", "replace")


# RFC 2047, with what real mailers do: language tags, blanks inside, words in the middle of other text.
_WORD = re.compile(r"=\?([^?\s*]{1,60})(?:\*[^?\s]{0,60})?\?([BbQq])\?([^?\r\n]*)\?=")
_WORD_Q = re.compile(rb"=([0-9A-Fa-f]{2})")


def _word_bytes(kind: str, body: str) -> bytes:
    data = body.encode("latin-1", "replace")
    if kind in "bB":
        return _loose_base64(data)
    return _WORD_Q.sub(lambda m: bytes((int(m[1], 16),)), data.replace(b"_", b" "))


def decode_words(value: str) -> tuple[str, str]:
    """A field value (Latin-1 of its bytes) with encoded words, as a person reads it: (text, `charset` value or empty).

    Bytes of neighbouring words with one charset are joined before decoding: many mailers cut inside a letter.
    """
    if "=?" not in value:
        if value.isascii():
            return value, ""
        return decode_text(_raw(value))
    out: list[str] = []
    note = ""
    pending, charset, last = b"", "", 0

    def flush() -> None:
        nonlocal pending, note
        if pending:
            text, value_ = decode_text(pending, charset)
            out.append(text)
            note = note or value_
            pending = b""

    in_words = False
    for match in _WORD.finditer(value):
        between = value[last : match.start()]
        if not (in_words and not between.strip(" \t\r\n")):
            flush()
            if between:
                text, value_ = (between, "") if between.isascii() else decode_text(_raw(between))
                out.append(text)
                note = note or value_
        if match[1].lower() != charset.lower():
            flush()
        charset = match[1]
        pending += _word_bytes(match[2], match[3])
        last, in_words = match.end(), True
    flush()
    rest = value[last:]
    if rest:
        text, value_ = (rest, "") if rest.isascii() else decode_text(_raw(rest))
        out.append(text)
        note = note or value_
    return "".join(out), note


_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f]+")


def _readable(value: str) -> str:
    """A header text for a person: words decoded, NFC, no control characters, blanks as they were typed."""
    text = decode_words(value)[0]
    return unicodedata.normalize("NFC", _CONTROLS.sub(" ", text).replace("\t", " ")).strip()


# --- transfer encodings ------------------------------------------------------------------------------------------

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_ALPHABET = bytes(set(range(256)) - set(_ALPHABET))
_BLANK = b"\r\n\t "


def _loose_base64(data: bytes) -> bytes:
    """Whatever base64 can be read, padded groups one after the other; never raises."""
    out = []
    if data.count(b"=") > 10_000:
        data = data.replace(b"=", b"")
    for piece in re.split(rb"=+", data):
        letters = piece.translate(None, _NOT_ALPHABET)
        if len(letters) % 4 == 1:
            letters = letters[:-1]
        if letters:
            out.append(binascii.a2b_base64(letters + b"=" * (-len(letters) % 4)))
    return b"".join(out)


def _base64(raw: bytes, start: int, end: int) -> tuple[bytes, str, str]:
    """Decoded bytes, reason to call it ambiguous, harmless note.

    The common case is checked by counting alone: when every byte is a letter of the alphabet or part of a line end,
    the length of the result follows from their number.
    """
    breaks = raw.count(b"\r\n", start, end)
    letters = end - start - (2 * breaks if breaks else raw.count(b"\n", start, end))
    if letters % 4 == 0:
        try:
            data = binascii.a2b_base64(memoryview(raw)[start:end])
        except (binascii.Error, ValueError):
            data = b""
        tail = raw[max(start, end - 8) : end].translate(None, _BLANK)
        pads = len(tail) - len(tail.rstrip(b"="))
        if letters // 4 * 3 - pads == len(data) and pads < 3:
            return data, "", ""
    region = raw[start:end].translate(None, _BLANK)
    body = region.rstrip(b"=")
    pads = len(region) - len(body)
    data = _loose_base64(region)
    if body.translate(None, _ALPHABET + b"="):
        return data, "base64 with other characters", ""
    if breaks or raw[start - 2 : start] == b"\r\n":
        if not breaks == raw.count(b"\n", start, end) == raw.count(b"\r", start, end):
            return data, "bare CR or LF", ""
    elif raw.find(b"\r", start, end) >= 0:
        return data, "bare CR or LF", ""
    if b"=" in body:
        return data, "base64 with data after the padding", ""
    if len(body) % 4 == 1 or (pads and (len(body) + pads) % 4) or pads > 2:
        return data, "", "base64 with wrong padding" if body else ""
    return data, "", "base64 without padding" if len(body) % 4 and not pads else ""


_QP_TRAILING = re.compile(rb"[ \t]+(?=\r?\n|\Z)")


def _quoted(data: bytes) -> bytes:
    """RFC 2045 section 6.7; blanks before a line end are no part of the text, also after the `=` of a soft break."""
    if b" \r" in data or b" \n" in data or b"\t\r" in data or b"\t\n" in data or data[-1:] in (b" ", b"\t"):
        data = b"\n".join(
            line[:-1].rstrip(b" \t") + b"\r" if line.endswith(b"\r") else line.rstrip(b" \t")
            for line in data.split(b"\n")
        )
    return binascii.a2b_qp(data)


# --- parameters --------------------------------------------------------------------------------------------------

_TOKEN = r"[!#$%&'*+\-.^_`{|}~0-9A-Za-z]+"
_TYPE = re.compile(rf"[ \t]*({_TOKEN})/({_TOKEN})[ \t]*(?:;|\Z)")
_PARAMETER = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`{|}~0-9A-Za-z]+)[ \t]*=[ \t]*"
    r"(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"()<>@,\\\[\]]+))[ \t]*(?:;|\Z)",
    re.DOTALL,
)
_COMMENT = re.compile(r"\([^()]*\)")
_UNQUOTE = re.compile(r'\\(["\\])')


@dataclass(slots=True)
class _Parameters:
    """Parameters in their order, as Latin-1 of their bytes; `flaws` are reasons why another reader may differ."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    loose: set[str] = field(default_factory=set)  # names whose value stood unquoted with blanks or special signs

    def plain(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]


def _parameters(text: str) -> _Parameters:
    """What follows the first `;` of Content-Type or Content-Disposition (RFC 2045 section 5.1)."""
    found = _Parameters()
    pos, end = 0, len(text)
    while pos < end:
        match = _PARAMETER.match(text, pos)
        if match:
            quoted = match[2]
            value = match[3] if quoted is None else _UNQUOTE.sub(r"\1", quoted) if "\\" in quoted else quoted
            found.pairs.append((match[1].lower(), value))
            pos = match.end()
            if len(found.pairs) > 200:
                found.flaws.append("more than 200 parameters")
                break
            continue
        stop = text.find(";", pos)
        quote = text.find('"', pos)
        if quote >= 0 and (stop < 0 or quote < stop):
            # A quoted string that is not the whole value: let the quotes decide where it ends, and say so.
            close = text.find('"', quote + 1)
            if close < 0:
                found.flaws.append("quote that never ends in a parameter")
                close = end
            else:
                found.flaws.append("text beside a quoted parameter value")
            stop = text.find(";", close)
        stop = end if stop < 0 else stop
        piece = text[pos:stop].strip()
        pos = stop + 1
        bare = _COMMENT.sub(" ", piece).strip()
        match = _PARAMETER.fullmatch(bare) if bare != piece else None
        if match and ('"' in bare or match[1].lower() not in ("name", "filename")):
            found.flaws.append("comment in a parameter")
            found.pairs.append((match[1].lower(), match[3] if match[2] is None else match[2]))
            continue
        if not piece:
            continue  # `;;` and the `;` at the end: every reader skips them
        name, sign, value = piece.partition("=")
        name = name.strip().lower()
        if sign and re.fullmatch(_TOKEN, name) and ("(" not in piece or name in ("name", "filename")):
            found.loose.add(name)
        elif "(" in piece and '"' not in piece:
            found.flaws.append("comment in a parameter")
        else:
            found.flaws.append("text that is no parameter")
        if sign:
            found.pairs.append((name, value.replace('"', "").strip()))
    return found


_EXTENDED = re.compile(r"([^*']*)'[^']*'(.*)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


def _percent(value: str) -> bytes:
    return _PERCENT.sub(lambda m: bytes((int(m[1], 16),)), _raw(value))


def _values(found: _Parameters, name: str) -> tuple[list[str], list[str], str]:
    """Plain values of a parameter, RFC 2231 values, and a reason when the 2231 pieces can be read in two ways."""
    plain = [decode_words(value)[0] if name != "boundary" else value for value in found.plain(name)]
    extended: list[str] = []
    pieces: dict[int, tuple[str, bool]] = {}
    reason = ""
    prefix = name + "*"
    for key, value in found.pairs:
        if not key.startswith(prefix):
            continue
        rest = key[len(prefix) :]
        if not rest:
            match = _EXTENDED.fullmatch(value)
            text = decode_text(_percent(match[2]), match[1])[0] if match else decode_text(_percent(value))[0]
            if not match:
                reason = "RFC 2231 value without a charset"
            extended.append(text)
            continue
        number, star = rest.rstrip("*"), rest.endswith("*")
        if not number.isascii() or not number.isdigit() or len(number) > 3:
            reason = "RFC 2231 piece with a bad number"
            continue
        if int(number) in pieces and pieces[int(number)] != (value, star):
            reason = "RFC 2231 piece given twice"
            continue
        pieces[int(number)] = (value, star)
    if pieces:
        ordered = sorted(pieces)
        if ordered != list(range(len(ordered))):
            reason = "RFC 2231 pieces with a gap"
        charset, data = "", b""
        for n in ordered:
            value, star = pieces[n]
            if n == ordered[0] and star and (match := _EXTENDED.fullmatch(value)):
                charset, value = match[1], match[2]
            data += _percent(value) if star else _raw(value)
        text = decode_text(data, charset)[0]
        # Some mailers put encoded words into the pieces; readers show the decoded form.
        extended.append(decode_words(text)[0] if "=?" in text and text.isascii() else text)
    return plain, extended, reason


# --- file names --------------------------------------------------------------------------------------------------

_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200d\u2060-\u2064\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e0fff]"
)
_NAME_CONTROLS = re.compile("[\x01-\x1f\x7f-\x9f\u2028\u2029]+")
# Signs that look like the dot, slash, backslash or colon of a file name.
_LOOK = str.maketrans(
    {
        "\u2024": ".", "\uff0e": ".", "\ufe52": ".", "\u3002": ".", "\uff61": ".", "\u06d4": ".", "\ua4f8": ".",
        "\u0701": ".", "\u0702": ".", "\u0660": ".", "\u06f0": ".",
        "\u2044": "/", "\u2215": "/", "\u29f8": "/", "\uff0f": "/", "\u2571": "/",
        "\uff3c": "\\", "\u2216": "\\", "\u29f5": "\\",
        "\uff1a": ":", "\ua789": ":", "\u2236": ":", "\u0589": ":",
    }
)  # fmt: skip
_WIDE = re.compile("[\uff01-\uff5e\u2100-\u214f\u2460-\u24ff\U0001d400-\U0001d7ff]")
_OTHER_SCRIPTS = re.compile(  # Greek, Cyrillic, Armenian, Georgian, Cherokee, Coptic
    "[\u0370-\u03ff\u0400-\u052f\u0530-\u058f\u10a0-\u10ff\u13a0-\u13ff\u1c80-\u1c8f\u2c80-\u2cff\u2de0-\u2dff"
    "\ua640-\ua69f]"
)
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_CLSID = re.compile(r"\.\{[0-9A-Fa-f-]{8,}\}?\Z")
#: Endings that a system runs, or that open something that runs; the list asks for attention only where a document's
#: ending stands before it. The type of a file is judged by its content elsewhere.
_RUNS = re.compile(
    r"(?:ade|adp|appx?|application|bat|chm|cmd|com|cpl|dll|exe|gadget|hta|im[gi]|inf|ins|iso|isp|jar|jnlp|jse?|lnk|mde"
    r"|ms[ci]|msi?x|msp|mst|ocx|pif|ps1|psm1|pyw?|rdp|reg|sc[frt]|settingcontent-ms|sh[bs]?|sys|url|vb|vb[es]|vhdx?"
    r"|ws[cfh]|xll|s?html?|svg|mht|mhtml|one|do[ct]m|xl[sta]m|xlam|p[po][tsa]m)"
)
_DOCUMENT = re.compile(
    r"(?:pdf|docx?|xlsx?|pptx?|od[tsp]|rtf|txt|csv|jpe?g|png|gif|bmp|tiff?|zip|rar|7z|mp[34]|avi|xml|eml|msg|p7s)"
)


def _ending(name: str) -> str:
    _, dot, ending = name.rpartition(".")
    return ending.strip().lower() if dot else ""


def clean_filename(name: str) -> tuple[str, tuple[str, ...]]:
    """A file name as a person should see it (NFC, one line, no path, no hidden signs), and the values of its
    `filename` findings: `nul`, `rtl_override`, `path`, `homoglyph`, `invisible`, `trailing`, `double_extension`.

    Direction signs are taken out, so the letters stand in their true order: `annexe<RLO>fdp.exe` is `annexefdp.exe`.
    """
    if name.isascii() and _PLAIN_NAME.fullmatch(name):
        values: list[str] = []
        if name.count(".") > 1 and _doubled(name):
            values.append("double_extension")
        return name, tuple(values)
    values = []
    if "\0" in name:
        values.append("nul")
        name = name.replace("\0", "")
    if _BIDI.search(name):
        values.append("rtl_override")
        name = _BIDI.sub("", name)
    if _INVISIBLE.search(name):
        values.append("invisible")
        name = _INVISIBLE.sub("", name)
    if _NAME_CONTROLS.search(name):
        name = _NAME_CONTROLS.sub(" ", name)
    name = unicodedata.normalize("NFC", name)
    seen = name.translate(_LOOK)
    if _WIDE.search(seen):
        seen = "".join(unicodedata.normalize("NFKC", sign) if _WIDE.match(sign) else sign for sign in seen)
    if seen != name:
        values.append("homoglyph")
        name = seen
    elif _OTHER_SCRIPTS.search(name) and _mixed(name):
        values.append("homoglyph")
    if name.strip() in (".", ".."):
        return "", (*values, "path")
    if "/" in name or "\\" in name or re.match(r"[A-Za-z]:", name):
        values.append("path")
        name = re.split(r"[/\\]", re.sub(r"\A[A-Za-z]:", "", name).rstrip("/\\"))[-1]
    if ":" in name:  # an alternate data stream of NTFS: what stands after the colon is no part of the name
        if "path" not in values:
            values.append("path")
        name = name.partition(":")[0] or name.replace(":", "")
    stripped = name.rstrip(" .\u00a0\u3000")
    if stripped != name:
        if stripped != name.rstrip(" "):
            values.append("trailing")  # Windows drops trailing dots and blanks: `a.exe.` is `a.exe`
        name = stripped
    name = re.sub(r"\s+", " ", name).strip()
    if _doubled(name) or _CLSID.search(name):
        values.append("double_extension")
    if name in (".", ".."):
        name = ""
    return name, tuple(values)


_PLAIN_NAME = re.compile(r"[A-Za-z0-9_()\[\]+,&'@#=-](?:[ ]?[A-Za-z0-9_()\[\]+,&'@#=.-])*(?<!\.)")


def _doubled(name: str) -> bool:
    pieces = [piece.strip().lower() for piece in name.split(".")]
    return len(pieces) > 2 and bool(_RUNS.fullmatch(pieces[-1])) and any(map(_DOCUMENT.fullmatch, pieces[1:-1]))


def _mixed(name: str) -> bool:
    """Latin letters beside letters of a script that looks like Latin, in one word or between name and ending."""
    ending = _ending(name)
    if ending and _OTHER_SCRIPTS.search(ending):
        return True
    return any(_OTHER_SCRIPTS.search(word) and _LATIN.search(word) for word in re.split(r"[\s._\-()]+", name))


def _folded(name: str) -> str:
    """For comparing an ASCII stand-in with the full name: only ASCII letters and digits count."""
    return "".join(sign for sign in unicodedata.normalize("NFD", name.lower()) if sign.isascii() and sign.isalnum())


def _stands_in(plain: str, full: str) -> bool:
    """True when `plain` is the poor ASCII spelling of `full` that mailers add for old readers."""
    if _ending(plain) != _ending(full):
        return False
    poor, rich = _folded(plain), _folded(full)
    bare = "".join(sign for sign in full.lower() if sign.isascii() and sign.isalnum())
    return poor in (rich, bare) or (not full.isascii() and plain.isascii() and bool(re.search(r"[?_]", plain)))


# --- addresses ---------------------------------------------------------------------------------------------------

_LDH = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN_ADDRESS = re.compile(
    rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+)*@(?:{_LDH}\.)*{_LDH}"
)


@lru_cache(maxsize=4096)
def normal_address(text: str) -> str:
    """The address in lower case with its domain as U-labels, or empty when it is none (RFC 5321, 6531).

    Plain ASCII addresses need no library; all others (IDN, quoted or non-ASCII local parts) go through
    email-validator, without network. Reserved domains (`.test`, `localhost`) are addresses too: whether mail may go
    there is not asked here.
    """
    local, _, domain = text.rpartition("@")
    if len(text) <= 254 and len(local) <= 64 and _PLAIN_ADDRESS.fullmatch(text) and "xn--" not in domain.lower():
        return text.lower()
    if len(text) > 320:
        return ""
    try:
        found = email_validator.validate_email(
            text, check_deliverability=False, allow_quoted_local=True, globally_deliverable=False
        )
    except (email_validator.EmailNotValidError, UnicodeError, ValueError, IndexError):
        return ""
    return found.normalized.lower()


@dataclass(frozen=True, slots=True)
class _Box:
    name: str
    address: str
    flaw: str = ""  # why another reader may see another address; empty for a clean mailbox
    group: bool = False


_QUICK_ANGLE = re.compile(
    r"(?:\"([^\"\\]*)\"[ \t]*|([^\"\\<>@,;:()\[\]]*))<([^\s\"\\<>@,;:()\[\]]+@[^\s\"\\<>@,;:()\[\]]+)>[ \t]*(?:,|\Z)"
)
_QUICK_BARE = re.compile(r"([^\s\"\\<>@,;:()\[\]]+@[^\s\"\\<>@,;:()\[\]]+)[ \t]*(?:,|\Z)")
_ATOM = re.compile(r"[^\s\"\\<>@,;:().\[\]]+")
_MAX_BOXES = 2000
_MAX_ADDRESSES = 200_000  # characters of one address field that are read; longer headers are held anyway


def _boxes(value: str) -> list[_Box]:
    """The mailboxes of an address field (RFC 5322 section 3.4), unfolded, Latin-1 of its bytes or text."""
    value = value[:_MAX_ADDRESSES]
    if not value.isascii() and all(ord(sign) < 256 for sign in value):
        value = decode_text(_raw(value))[0]
    found: list[_Box] = []
    pos, end = 0, len(value)
    while len(found) < _MAX_BOXES:
        while pos < end and value[pos] in " \t,":
            pos += 1
        if pos >= end:
            break
        match = _QUICK_ANGLE.match(value, pos)
        if match:
            name = match[1] if match[1] is not None else match[2]
            address = normal_address(match[3])
            found.append(_Box(_readable(name), address, "" if address else "unreadable address"))
            pos = match.end()
            continue
        match = _QUICK_BARE.match(value, pos)
        if match:
            address = normal_address(match[1])
            found.append(_Box("", address, "" if address else "unreadable address"))
            pos = match.end()
            continue
        pos = _slow_box(value, pos, end, found)
    return found


def _tokens(value: str, pos: int, end: int) -> Iterator[tuple[str, str, int]]:
    """(kind, text, position after): `q` quoted string, `c` comment, `a` atom, `w` blank, `d` domain literal, or the
    special sign itself; `!` for a string or comment that never ends."""
    while pos < end:
        sign = value[pos]
        if sign in " \t\r\n\x0b\x0c":
            stop = pos + 1
            while stop < end and value[stop] in " \t\r\n\x0b\x0c":
                stop += 1
            kind, text = "w", " "
        elif sign == '"':
            stop, letters = pos + 1, []
            while stop < end and value[stop] != '"':
                if value[stop] == "\\" and stop + 1 < end:
                    stop += 1
                letters.append(value[stop])
                stop += 1
            kind, text = ("q" if stop < end else "!"), "".join(letters)
            stop += 1
        elif sign == "(":
            depth, stop, begin = 1, pos + 1, pos + 1
            while stop < end and depth:
                if value[stop] == "\\":
                    stop += 1
                elif value[stop] == "(":
                    depth += 1
                elif value[stop] == ")":
                    depth -= 1
                stop += 1
            kind, text = ("c" if not depth else "!"), value[begin : stop - 1]
        elif sign == "[":
            stop = value.find("]", pos, end)
            kind, text = ("d", value[pos : stop + 1]) if stop >= 0 else ("!", "")
            stop = stop + 1 if stop >= 0 else end
        elif match := _ATOM.match(value, pos):
            kind, text, stop = "a", match[0], match.end()
        else:
            kind, text, stop = sign, sign, pos + 1
        yield kind, text, min(stop, end)
        pos = stop


def _slow_box(value: str, pos: int, end: int, found: list[_Box]) -> int:
    """Reads one element of an address list by its grammar; returns the position after it."""
    tokens: list[tuple[str, str]] = []
    angle = group = False
    for kind, text, after in _tokens(value, pos, end):
        pos = after
        if kind == "<":
            angle = True
        elif kind == ">":
            angle = False
        elif kind == ":" and not angle and not group and all(k in "aqcw." for k, _ in tokens):
            group, tokens = True, []
            continue
        elif kind in ",;" and not angle:
            if any(k not in "wc" for k, _ in tokens):
                found.append(_one_box(tokens, group))
            tokens = []
            if kind == ";" or not group:
                return pos
            continue
        tokens.append((kind, text))
    if any(k not in "wc" for k, _ in tokens):
        found.append(_one_box(tokens, group))
    return end


def _one_box(tokens: list[tuple[str, str]], group: bool) -> _Box:
    flaw = ""
    comments = " ".join(text for kind, text in tokens if kind == "c")
    if any(kind == "!" for kind, _ in tokens):
        flaw = "quote or comment that never ends"
    kinds = [kind for kind, _ in tokens]
    if "<" in kinds:
        first = kinds.index("<")
        last = kinds.index(">") if ">" in kinds else len(kinds)
        phrase, inner, rest = tokens[:first], tokens[first + 1 : last], tokens[last + 1 :]
        if last == len(kinds):
            flaw = flaw or "angle bracket that never closes"
        if any(kind not in "wc" for kind, _ in rest):
            flaw = flaw or "text after the address"
        if any(kind not in "aqcw." for kind, _ in phrase):
            flaw = flaw or "special sign in the display name"
    else:
        phrase, inner = [], tokens
    while inner and inner[0][0] in "wc":
        inner = inner[1:]
    while inner and inner[-1][0] in "wc":
        inner = inner[:-1]
    if any(kind in "wc" for kind, _ in inner):
        flaw = flaw or "comment or blank inside the address"
    elif any(kind not in "aq.@" for kind, _ in inner):
        flaw = flaw or "no plain address"
    spelled = ""
    for kind, text in inner:
        if kind == "q":
            if len(inner) and inner[0] == (kind, text) and re.fullmatch(r"[^\x00-\x1f\x7f\"\\<>@,;:()\[\]]+", text):
                spelled += f'"{text}"'
            else:
                flaw = flaw or "quoted local part with special signs"
        elif kind in "a.@":
            spelled += text
    address = normal_address(spelled) if not flaw or flaw == "text after the address" else ""
    if not address:
        flaw = flaw or "unreadable address"
    name = _readable("".join(text for kind, text in phrase if kind != "c").strip() or comments)
    return _Box(name, address, flaw, group)


def mailboxes(value: str | bytes) -> tuple[Mailbox, ...]:
    """All mailboxes of an address field; what cannot be read has an empty address."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return tuple(Mailbox(name=box.name[:500], address=box.address) for box in _boxes(_unfold(text)))


def single_mailbox(value: str | bytes) -> Mailbox | None:
    """The one mailbox of a From field, or None: nothing, several, a group, or an address that two programs could read
    differently (comment inside, quoted local part with special signs, unquoted second address, control character)."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    text = _unfold(text)
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        return None
    found = _boxes(text)
    if len(found) != 1 or found[0].flaw or found[0].group or not found[0].address:
        return None
    if not _no_stray_comma(text):
        return None
    return Mailbox(name=found[0].name[:500], address=found[0].address)


def _no_stray_comma(text: str) -> bool:
    return not text.strip().startswith(",") and not text.strip().endswith(",")


def _unfold(text: str) -> str:
    return re.sub(r"\r?\n(?=[ \t])", "", text) if "\n" in text else text


# --- the message -------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Part:
    """One node of the MIME tree. `path` counts from 1 per level (`1.2`); the root of a multipart has the path ``.

    start, end: offsets of the encoded body in the message. filename: as a person sees it, NFC, without a path.
    """

    path: str
    content_type: str
    charset: str
    filename: str
    disposition: str
    content_id: str
    encoding: str
    header_start: int
    start: int
    end: int
    multipart: bool = False
    alternative: bool = False  # stands in a multipart/alternative
    method: str = ""  # of text/calendar
    checked: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def nested(self) -> bool:
        """A whole message stands in this part (RFC 2046 section 5.2.1, RFC 6532 section 3.7)."""
        return self.content_type in _NESTED

    def decode(self, raw: bytes) -> bytes:
        """The body without its transfer encoding. Never raises; what it sees on the way goes into `findings`."""
        reason = note = ""
        if self.encoding == "base64":
            data, reason, note = _base64(raw, self.start, self.end)
        elif self.encoding == "quoted-printable":
            data = _quoted(raw[self.start : self.end])
        else:
            data = raw[self.start : self.end]
        if not self.checked:
            self.checked = True
            if reason:
                self._note("ambiguous", reason)
            if note:
                self._note("mime", note)
            self._look(data)
        return data

    def text(self, raw: bytes) -> str:
        """The decoded body as text (HTML stays HTML). Notes a `charset` finding when the declared one does not fit."""
        data = self.decode(raw)
        charset = self.charset
        if not charset and self.content_type == "text/html" and (meta := _META.search(data, 0, 4096)):
            charset = meta[1].decode("ascii")
        text, value = decode_text(data, charset)
        if value:
            self._note("charset", value)
        if len(text) > HTML_LIMIT and self.content_type == "text/html":
            self._note("uninspectable", "too_large")
        return text

    def _note(self, kind: str, value: str) -> None:
        if self.path:
            where = f"phần {self.path}"
        else:
            where = ""
        found = Finding(kind=kind, value=value, about=self.filename, where=where)
        if found not in self.findings:
            self.findings.append(found)

    def _look(self, data: bytes) -> None:
        """What hides in a decoded leaf: attachments of the time before MIME, and encryption."""
        if self.multipart:
            return
        kind = self.content_type
        readable = kind.startswith("text/")
        if readable or self.encoding != "base64":
            if reason := _old_attachment(data):
                self._note("ambiguous", reason)
            # In a file only its beginning counts: there a reader may take the blank line before it for a mistake.
            if not kind.startswith("message/") and _part_in_text(data if readable else data[:2000]):
                self._note("ambiguous", "something like a part in a body")
        armored = b"-----BEGIN PGP MESSAGE-----"
        if data.startswith(armored) or kind == "application/pgp-encrypted" or (readable and armored in data):
            self._note("uninspectable", "pgp")
        elif _CMS_ENVELOPED.search(data, 0, 64) or (
            kind in ("application/pkcs7-mime", "application/x-pkcs7-mime") and _CMS_SIGNED not in data[:64]
        ):
            self._note("uninspectable", "smime")


_META = re.compile(rb"<meta[^>]{1,200}?charset[ \t]*=[ \t]*[\"']?([A-Za-z0-9_.:-]{2,30})", re.IGNORECASE)
_CMS_SIGNED = bytes.fromhex("06092a864886f70d010702")  # id-signedData, RFC 5652: opaque, but not encrypted
# id-envelopedData, id-encryptedData (RFC 5652) and id-ct-authEnvelopedData (RFC 5083)
_CMS_ENVELOPED = re.compile(
    rb"\x06(?:\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07[\x03\x06]|\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x17)"
)
_UU = re.compile(rb"^[ \t]{0,20}begin(?:-base64)?[ \t]+[0-7]{3,4}[ \t]+\S", re.IGNORECASE | re.MULTILINE)
_UU_ROWS = re.compile(rb"^(?:M[ -`]{60}\r?\n){2}", re.MULTILINE)
_LOOSE_UU = re.compile(
    rb"^[ \t]{0,20}begin[^0-9\n]{0,10}[0-9][^\n]{0,300}\n([!-`])([ -`]{4,84})\r?$", re.IGNORECASE | re.MULTILINE
)
_ENCODED_ROW = re.compile(rb"[A-Za-z0-9+/]{40}")


def _part_in_text(data: bytes) -> bool:
    """Whether a text holds what looks like an encoded part with its header (the copy in an old bounce, or a part
    whose delimiter line is not quite one): some programs look for parts by their header lines alone."""
    lower = data.lower()
    at = lower.find(b"content-transfer-encoding")
    seen = 0
    while at >= 0:
        rows = data[at : at + 4000].split(b"\n")
        named = rows[0].lower()
        alone = not data[data.rfind(b"\n", max(0, at - 80), at) + 1 : at].strip()
        identity = named.partition(b":")[2].strip() in (b"7bit", b"8bit", b"binary")
        if (alone and not identity) or b"base64" in named:
            seen += 1
            if seen > 200:
                return True  # no letter speaks so often of it
            if alone and len(rows) < 40 and b"base64" in named and all(row.strip() for row in rows[:-1]):
                return True  # the text ends inside that header
            run = 0
            for row in rows[1:40]:
                row = row.strip()
                letters = row.rstrip(b"=")
                pure = bool(letters) and not letters.translate(None, _ALPHABET)
                run = run + 1 if pure and len(row) % 4 == 0 else 0
                if (pure and len(row) >= 16) or run > 3 or _ENCODED_ROW.search(row):
                    return True
                if b"quoted-printable" in named and _WORD_Q.search(row):
                    return True
        at = lower.find(b"content-transfer-encoding", at + 25)
    return False


def _old_attachment(data: bytes) -> str:
    """uuencode, yEnc or BinHex: some programs show a file where others show text."""
    if b"begin" in data.lower():
        if _UU.search(data) or _UU_ROWS.search(data):
            return "uuencoded file in a text"
        # Some readers take any mode; then the line behind must be of the length that it gives itself.
        for loose in _LOOSE_UU.finditer(data):
            length = (loose[1][0] - 32 + 2) // 3 * 4
            if len(loose[2].rstrip()) <= length <= len(loose[2]) + 3 > 8:
                return "uuencoded file in a text"
    if b"=ybegin " in data:
        return "yEnc file in a text"
    if b"(This file must be converted with BinHex" in data:
        return "BinHex file in a text"
    return ""


@dataclass(slots=True, eq=False)
class Message:
    """A mail, read. `fields`: (lower-case name, value without line breaks as Latin-1 of its bytes), in order."""

    raw: bytes
    fields: list[tuple[str, str]]
    header_bytes: int
    parts: tuple[Part, ...]
    noted: list[Finding]
    outside: tuple[tuple[int, int], ...]  # preambles and epilogues with something to read

    def get(self, name: str) -> str:
        """First field of that lower-case name, stripped, Latin-1 of its bytes; empty when there is none."""
        for key, value in self.fields:
            if key == name:
                return value.strip()
        return ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    @property
    def leaves(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if not part.multipart)

    @property
    def body_parts(self) -> tuple[Part, ...]:
        """Texts that a reader shows as the message itself, in their order."""
        return tuple(part for part in self.parts if _is_body(part))

    @property
    def attachments(self) -> tuple[Part, ...]:
        """All other leaves, nested messages (`message/rfc822`) among them."""
        return tuple(part for part in self.parts if not part.multipart and not _is_body(part))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything noted. Decodes the parts that nobody has decoded yet: decode first, then ask."""
        for part in self.parts:
            if not part.multipart and not part.checked:
                part.decode(self.raw)
        seen = dict.fromkeys(self.noted)
        for part in self.parts:
            seen.update(dict.fromkeys(part.findings))
        return tuple(seen)

    @property
    def ambiguous(self) -> bool:
        return any(found.kind == "ambiguous" for found in self.findings)

    @property
    def hops(self) -> int:
        """Number of Received fields (RFC 5321 section 6.3)."""
        return sum(1 for key, _ in self.fields if key == "received")

    def facts(self) -> MessageFacts:
        return _facts(self)


def header_fields(raw: bytes | bytearray | memoryview) -> list[tuple[str, str]]:
    """The fields of the message's own header block as in `Message.fields`, without reading the rest."""
    return _Reader(raw if type(raw) is bytes else bytes(raw)).header_only()


def hops(raw: bytes | bytearray | memoryview) -> int:
    """Number of Received fields (RFC 5321 section 6.3), without reading the rest."""
    return sum(1 for name, _ in header_fields(raw) if name == "received")


_NESTED = frozenset(("message/rfc822", "message/global", "message/news"))
_BODY_MESSAGES = frozenset(
    ("message/delivery-status", "message/disposition-notification", "message/feedback-report",
     "message/global-delivery-status", "message/global-disposition-notification")
)  # fmt: skip


def _is_body(part: Part) -> bool:
    if part.multipart:
        return False
    if part.content_type in _BODY_MESSAGES:
        return True
    if not part.content_type.startswith("text/") or part.disposition == "attachment":
        return False
    return not part.filename or (part.path == "1" and part.content_type in ("text/plain", "text/html"))


def parse(raw: bytes | bytearray | memoryview) -> Message:
    """Reads a message. Never raises, whatever the bytes; time grows with their number alone."""
    return _Reader(raw if type(raw) is bytes else bytes(raw)).read()


_MIME_NAME = re.compile(r"content-(?:type|transfer-encoding|disposition)")
_MIME_VALUE = re.compile(r"base64|quoted-printable|uuencode|boundary", re.IGNORECASE)
_MBOX = re.compile(r">?From [^:\s]")
_FIELD_NAME = re.compile(r"[!-9;-~]+")
_HEADER_LIKE = re.compile(rb"(?:\A|\n)[ \t]*content-(?:type|transfer-encoding|disposition)[ \t]*:", re.IGNORECASE)
_TOP_ONLY = ("from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id")


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class _Reader:
    """One pass over one message."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.parts: list[Part] = []
        self.noted: list[Finding] = []
        self.seen: set[tuple[str, str, str]] = set()
        self.outside: list[tuple[int, int]] = []
        self.declared: set[bytes] = set()  # boundaries of all multiparts
        self.longer: dict[bytes, str] = {}  # lines that only begin with a boundary, and the part they were seen in
        self.budget = _HEADER_BUDGET
        first = raw.find(b"\n")
        # A file from disk may end its lines with LF alone; what is refused is a mixture, where programs see
        # different lines. On the wire only CRLF passes (wire.py).
        self.lf = first == 0 or (first > 0 and raw[first - 1] != 13)

    def note(self, kind: str, value: str, about: str = "", path: str = "") -> None:
        key = (kind, value, path)
        if key in self.seen or len(self.seen) > 2000:
            return
        self.seen.add(key)
        self.noted.append(Finding(kind=kind, value=value, about=about, where=f"phần {path}" if path else ""))

    def read(self) -> Message:
        raw = self.raw
        fields, body = self.header(0, len(raw), "")
        self.singles(fields, "")
        self.node("", fields, 0, body, len(raw), 0, "text/plain", (), False)
        for line, path in self.longer.items():
            if line not in self.declared and line.removesuffix(b"--") not in self.declared:
                self.note("ambiguous", "boundary is the beginning of another line", path=path)
        self.line_ends()
        self.addresses(fields)
        return Message(raw, fields, body, tuple(self.parts), self.noted, tuple(self.outside))

    def header_only(self) -> list[tuple[str, str]]:
        return self.header(0, len(self.raw), "")[0]

    # header blocks

    def header(self, start: int, end: int, path: str) -> tuple[list[tuple[str, str]], int]:
        """The fields of the header block at `start`, and where the body begins."""
        raw = self.raw
        if raw.startswith((b"\r\n", b"\n"), start, end):
            if not path and end - start > 2:
                self.note("ambiguous", "empty line before the header")  # some readers skip it
            return [], start + (2 if raw[start] == 13 else 1)
        one, two = (b"\n\n", b"\n\r\n") if self.lf else (b"\n\r\n", b"\n\n")
        stop = raw.find(one, start, end)
        other = raw.find(two, start, end if stop < 0 else stop + 1)
        if other >= 0:
            stop, body = other, other + len(two)
        elif stop >= 0:
            body = stop + len(one)
        else:
            stop = body = end
        size = stop - start
        if size > MAX_HEADER:
            self.note("ambiguous", "header over 100 KB", path=path)
            self.note("uninspectable", "too_large", path=path)
        size = min(size, self.budget)
        self.budget -= size
        block = raw[start : start + size].decode("latin-1")
        fields: list[tuple[str, str]] = []
        name = ""
        pieces: list[str] = []
        mime_after_odd = odd = False
        for count, line in enumerate(block.split("\n")):
            if line[-1:] == "\r":
                line = line[:-1]
            if line[:1] in (" ", "\t"):
                if not pieces:
                    self.note("ambiguous", "header begins with a continuation line", path=path)
                    continue
                if not line.strip(_SPACE):
                    odd = True
                pieces.append(line)
                continue
            key, colon, value = line.partition(":")
            if not colon or not _FIELD_NAME.fullmatch(key):
                trimmed = key.rstrip(_SPACE)
                if count == 0 and not path and _MBOX.match(line):
                    continue  # mbox separator left by a mail store
                if colon and trimmed != key and _FIELD_NAME.fullmatch(trimmed):
                    lower = trimmed.lower()
                    if lower in _SINGLE or lower.startswith("content-"):
                        self.note("ambiguous", f"space before the colon of {trimmed[:40]}", path=path)
                    key = trimmed
                else:
                    if line:
                        self.note("ambiguous", "line in the header that is no field", path=path)
                    continue
            if pieces:
                fields.append((name, "".join(pieces)))
            name, pieces = key.lower(), [value]
            if odd and (name.startswith("content-") or name == "mime-version"):
                mime_after_odd = True
        if pieces:
            fields.append((name, "".join(pieces)))
        if mime_after_odd:
            self.note("ambiguous", "blank line inside the header", path=path)
        if "\0" in block:
            self.note("ambiguous", "NUL in the header", path=path)
        return fields, body

    def singles(self, fields: list[tuple[str, str]], path: str) -> None:
        first: dict[str, str] = {}
        for name, value in fields:
            if ("content-" in name or "=?" in name) and name not in _SINGLE:
                self.almost(name, value, fields, path)
            if name not in _SINGLE:
                continue
            if name in first:
                if " ".join(first[name].split()) != " ".join(value.split()):
                    if not path or name.startswith("content-") or name == "mime-version":
                        self.note("ambiguous", f"{name} given twice", path=path)
                else:
                    self.note("mime", f"{name} given twice, alike", path=path)
            else:
                first[name] = value

    def almost(self, name: str, value: str, fields: list[tuple[str, str]], path: str) -> None:
        """A field whose name only holds that of a MIME field: ripmime takes `X-Content-Transfer-Encoding` for it."""
        like = _MIME_NAME.search(name)
        if not like and "=?" not in name:
            return
        if (
            like
            and re.fullmatch(r"(?:.*-)?" + like[0] + r"(?:-.*)?", name)
            and (not _MIME_VALUE.search(value) or any(key == like[0] and value == own for key, own in fields))
        ):
            return
        self.note("ambiguous", f"field name almost {like[0]}" if like else "encoded word in a field name", path=path)

    def line_ends(self) -> None:
        """Bare CR, bare LF and NUL outside base64 bodies, whose own check counts them."""
        raw = self.raw
        edges: list[int] = [0]
        for part in self.parts:
            if not part.multipart and part.encoding == "base64" and part.start >= edges[-1]:
                edges += (part.start, part.end)
        edges.append(len(raw))
        mixed = nul = False
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            returns = raw.count(b"\r", start, end)
            if self.lf:
                # A file with LF line ends holds no CR at all.
                mixed = mixed or returns > 0
            else:
                pairs = raw.count(b"\r\n", start, end)
                mixed = mixed or returns != pairs or raw.count(b"\n", start, end) != pairs
            nul = nul or raw.find(b"\0", start, end) >= 0
        if mixed:
            self.note("ambiguous", "bare CR or LF")
        if nul and not any(found.value == "NUL in the header" for found in self.noted):
            self.note("ambiguous", "NUL in the message")

    # the tree

    def node(
        self,
        path: str,
        fields: list[tuple[str, str]],
        header_start: int,
        start: int,
        end: int,
        depth: int,
        default: str,
        outer: tuple[bytes, ...],
        alternative: bool,
    ) -> None:
        if len(self.parts) >= MAX_PARTS:
            return
        values: dict[str, str] = {}
        for name, value in fields:
            if name.startswith("content-"):
                values.setdefault(name, value)
        label = path
        kind, found = self.content_type(values.get("content-type"), default, label)
        encoding = self.encoding(values.get("content-transfer-encoding"), label)
        disposition, naming = self.disposition(values.get("content-disposition"), label)
        filename = self.filename(found, naming, label)
        part = Part(
            path=path,
            content_type=kind,
            charset=(found.plain("charset") or [""])[0].strip(),
            filename=filename,
            disposition=disposition,
            content_id=values.get("content-id", "").strip().strip("<>"),
            encoding=encoding,
            header_start=header_start,
            start=start,
            end=end,
            alternative=alternative,
            method=(found.plain("method") or [""])[0].lower(),
        )
        self.parts.append(part)
        if fields and start == end and path and encoding not in _IDENTITY and not self.raw.endswith(b"\n", 0, start):
            self.note("ambiguous", "part header without an end", path=label)
        boundary = self.boundary(found, kind, label)
        if kind.startswith("multipart/"):
            if kind == "multipart/encrypted":
                self.note("uninspectable", "pgp", path=label)
            if encoding not in _IDENTITY:
                self.note("ambiguous", f"multipart with {encoding} encoding", path=label)
            if not boundary:
                self.note("ambiguous", "multipart without a boundary", path=label)
            elif depth >= MAX_DEPTH:
                self.note("ambiguous", "nested too deep", path=label)
                self.note("uninspectable", "too_deep", path=label)
            else:
                part.multipart = True
                self.split(part, boundary, depth, outer)
                return
        elif boundary and self.raw.find(b"\n--" + boundary, max(start - 1, 0), end) >= 0:
            self.note("ambiguous", "boundary lines in a part that is no multipart", path=label)
        if not path:
            part.path = "1"
        if kind.startswith("message/"):
            if kind in ("message/partial", "message/external-body"):
                self.note("ambiguous", kind, path=label)
            elif kind in _NESTED:
                # RFC 2046 forbids it for message/rfc822, and half of the readers do not decode
                if encoding not in _IDENTITY:
                    self.note("ambiguous", f"nested message in {encoding}", path=label)
            elif kind not in _BODY_MESSAGES:
                self.note("ambiguous", "unknown kind of message", path=label)  # some readers look inside

    def split(self, part: Part, boundary: bytes, depth: int, outer: tuple[bytes, ...]) -> None:
        """The parts between the delimiter lines of one multipart (RFC 2046 section 5.1.1)."""
        raw, end, path = self.raw, part.end, part.path
        if boundary in outer:
            self.note("ambiguous", "boundary of an outer part used again", path=path)
        self.declared.add(boundary)
        needle = b"\n--" + boundary
        regions: list[tuple[int, int]] = []
        begin = -1  # of the part being read
        closed = -1
        first = -1
        reasons: set[str] = set()
        at = raw.find(needle, max(part.start - 1, 0), end)
        for _ in range(40 * MAX_PARTS):
            if at < 0:
                break
            line = at + 1
            after = at + len(needle)
            stop = raw.find(b"\n", after, end)
            following = end if stop < 0 else stop + 1
            tail = raw[after : end if stop < 0 else stop].rstrip(b"\r \t") if following - after > 2 else b""
            if tail and not tail.startswith(b"--"):
                # RFC 2046 lets a reader compare only the beginning of the line. Harmless where the line is the
                # delimiter of an inner multipart (Eudora: `x_` and `x_.REL`), which is known when all are read.
                self.longer.setdefault(boundary + tail, path)
            else:
                if first < 0:
                    first = line
                if begin >= 0:
                    regions.append((begin, self.before(line, begin)))
                begin = -1
                if tail:
                    if tail != b"--":
                        reasons.add("text after the closing boundary in its line")
                    if closed >= 0:
                        reasons.add("closing boundary twice")
                    closed = following
                else:
                    if closed >= 0:
                        reasons.add("part after the closing boundary")
                    begin = following
                if len(regions) + len(self.parts) > MAX_PARTS:
                    break
            at = raw.find(needle, max(following - 1, after), end)
        else:
            reasons.add("more delimiter lines than any mail has")
        if begin >= 0:
            regions.append((begin, end))
            self.note("mime", "multipart without its closing boundary", path=path)
        if first < 0:
            # Nothing to split: one text, so that its bytes are looked at. Without any line like a delimiter all
            # readers agree on that.
            if raw.find(b"\n--", max(part.start - 1, 0), end) >= 0:
                reasons.add("boundary that never occurs")
            else:
                self.note("mime", "multipart without parts", path=path)
            part.multipart = False
            part.content_type = "text/plain"
            if not path:
                part.path = "1"
        else:
            self.margin(part.start, first, path, "before the first boundary")
            if closed >= 0 and "part after the closing boundary" not in reasons:
                self.margin(closed, end, path, "after the closing boundary")
        for reason in sorted(reasons):
            self.note("ambiguous", reason, path=path)
        default = "message/rfc822" if part.content_type == "multipart/digest" else "text/plain"
        alternative = part.content_type == "multipart/alternative"
        inner = (*outer, boundary)
        for number, (start, stop) in enumerate(regions, 1):
            if len(self.parts) >= MAX_PARTS:
                self.note("ambiguous", "more than 500 parts")
                self.note("uninspectable", "too_many")
                break
            name = f"{path}.{number}" if path else str(number)
            fields, body = self.header(start, stop, name)
            self.singles(fields, name)
            self.node(name, fields, start, body, stop, depth + 1, default, inner, alternative)

    def before(self, line: int, begin: int) -> int:
        """End of a part whose delimiter line begins at `line`: the line end before it belongs to the delimiter."""
        stop = line - 1
        if stop > begin and self.raw[stop - 1] == 13:
            stop -= 1
        return max(stop, begin)

    def margin(self, start: int, end: int, path: str, where: str) -> None:
        """Text before the first or after the last part: no reader shows it, some programs look for parts in it."""
        if end - start < 3:
            return
        text = self.raw[start:end].strip()
        if not text:
            return
        if _HEADER_LIKE.search(text):
            self.note("ambiguous", f"something like a part {where}", path=path)
        elif reason := _old_attachment(text):
            self.note("ambiguous", f"{reason} {where}", path=path)
        if not text.startswith((b"This is a ", b"This is an ", b"This message is in MIME", b"This is a cryptographic")):
            self.outside.append((start, end))

    # fields

    def content_type(self, value: str | None, default: str, path: str) -> tuple[str, _Parameters]:
        if value is None:
            return default, _Parameters()
        match = _TYPE.match(value)
        if match:
            found = _parameters(value[match.end() :]) if match.end() < len(value) else _Parameters()
            kind = f"{match[1]}/{match[2]}".lower()
        else:
            head, _, rest = value.partition(";")
            found = _parameters(rest)
            loose = re.search(rf"({_TOKEN})[ \t]*/[ \t]*({_TOKEN})", re.sub(r"\([^()]*\)", " ", head))
            if loose:
                self.note("ambiguous", "Content-Type with something beside the type", path=path)
                kind = f"{loose[1]}/{loose[2]}".lower()
                inline = re.search(r"boundary[ \t]*=[ \t]*\"?([^\";]+)", head, re.IGNORECASE)
                if inline:
                    found.pairs.append(("boundary", inline[1].strip()))
            else:
                kind = default
                if head.strip().lower() in ("", "text") and not {key for key, _ in found.pairs} - {"charset"}:
                    self.note("mime", "Content-Type without a subtype", path=path)
                else:
                    self.note("ambiguous", "unreadable Content-Type", path=path)
        self.flaws(found, "Content-Type", path)
        if _CONTROL.search(value) and (found.flaws or kind.startswith("multipart/") or "\0" in value):
            self.note("ambiguous", "control character in Content-Type", path=path)
        charsets = {name.lower() for name in found.plain("charset")}
        if len(charsets) > 1:
            self.note("ambiguous", "charset given twice", path=path)
        return kind, found

    def flaws(self, found: _Parameters, header: str, path: str) -> None:
        for flaw in dict.fromkeys(found.flaws):
            self.note("ambiguous", f"{header}: {flaw}", path=path)
        for name in sorted(found.loose):
            self.note("mime", f"{header}: {name[:40]} without quotes", path=path)

    def boundary(self, found: _Parameters, kind: str, path: str) -> bytes:
        names = [key for key, _ in found.pairs if key.startswith("boundary")]
        if not names:
            return b""
        plain, extended, reason = _values(found, "boundary")
        if extended or reason:
            self.note("ambiguous", "boundary in RFC 2231 form", path=path)
        choices = dict.fromkeys(plain + extended)
        if len(choices) > 1:
            self.note("ambiguous", "boundary given twice", path=path)
        if not choices:
            return b""
        value = next(iter(choices))
        if "boundary" in found.loose:
            self.note("ambiguous", "boundary with blanks or special signs and no quotes", path=path)
        if kind.startswith("multipart/"):
            if value != value.rstrip() or value != value.lstrip():
                self.note("ambiguous", "blank at the edge of the boundary", path=path)
            if len(value) > 70:
                self.note("ambiguous", "boundary longer than 70", path=path)
            if not value.isascii() or not value.isprintable():
                self.note("ambiguous", "boundary with odd characters", path=path)
            if "\\" in value or '"' in value or _WORD.search(value):
                self.note("ambiguous", "boundary that can be decoded in two ways", path=path)
        return value.rstrip().encode("latin-1", "replace")

    def encoding(self, value: str | None, path: str) -> str:
        if value is None:
            return ""
        token = value.strip(_SPACE).lower()
        if token in _ENCODINGS:
            return token
        if not token:
            self.note("mime", "empty Content-Transfer-Encoding", path=path)
            return ""
        self.note("ambiguous", "Content-Transfer-Encoding is not exactly one known word", path=path)
        # Held in any case; decode what most readers would, so that more of it is looked at.
        for word in ("base64", "quoted-printable"):
            if word in token:
                return word
        return ""

    def disposition(self, value: str | None, path: str) -> tuple[str, _Parameters]:
        if value is None:
            return "", _Parameters()
        head, _, rest = value.partition(";")
        word = head.strip().lower()
        if word and not re.fullmatch(_TOKEN, word):
            if "=" in word or '"' in word:
                # `attachment filename=x` or `filename=x`: the file is an attachment in every reading
                self.note("mime", "Content-Disposition without its semicolon", path=path)
                first, _, tail = head.strip().partition(" ")
                rest = (tail if "=" not in first else head) + ";" + rest
                word = first.lower() if "=" not in first else "attachment"
            else:
                self.note("mime", "Content-Disposition with something beside the word", path=path)
                word = (re.findall(_TOKEN, word) or ["attachment"])[0]
        found = _parameters(rest) if rest.strip() else _Parameters()
        self.flaws(found, "Content-Disposition", path)
        return ("inline" if word == "inline" else "attachment" if word else ""), found

    def filename(self, typed: _Parameters, disposed: _Parameters, path: str) -> str:
        """The name a person sees, and what is odd about it. Disposition before type, RFC 2231 before plain."""
        if not typed.pairs and not disposed.pairs:
            return ""
        choices: list[str] = []
        doubts: list[str] = []
        for found, name in ((disposed, "filename"), (typed, "name")):
            if not any(key.startswith(name) for key, _ in found.pairs):
                continue
            plain, extended, reason = _values(found, name)
            if reason:
                doubts.append(reason)
            if len(set(plain)) > 1:
                doubts.append(f"{name} given twice")
            if len(set(extended)) > 1:
                doubts.append(f"{name}* given twice")
            if plain and extended and not _alike(plain[0], extended[0]):
                doubts.append(f"{name} and {name}* differ")
            if name in found.loose and plain:
                words = _COMMENT.sub("", plain[0]).split() or [""]
                endings = {_ending(word) for word in (words[0], " ".join(words)) if "." in word}
                if endings - {_ending(plain[0])}:
                    doubts.append(f"{name} without quotes ends in two ways")
            choices += extended + plain
        choices = [choice for choice in choices if choice.strip("\0 ")]
        if not choices:
            return ""
        shown, values = clean_filename(choices[0])
        odd = list(values)
        for choice in choices[1:]:
            other, more = clean_filename(choice)
            odd += [value for value in more if value not in odd]
            if other != shown and not _alike(choice, choices[0]):
                if "conflict" not in odd:
                    odd.append("conflict")
                if _ending(other) != _ending(shown):
                    doubts.append("two file names that end differently")
        if doubts:
            if "conflict" not in odd:
                odd.append("conflict")
            for doubt in dict.fromkeys(doubts):
                self.note("ambiguous", doubt, about=shown, path=path)
        for value in odd:
            self.note("filename", value, about=shown, path=path)
        return shown

    # addresses

    def addresses(self, fields: list[tuple[str, str]]) -> None:
        from_values = [value for name, value in fields if name == "from"]
        if not from_values:
            self.note("mime", "no From")
            return
        value = from_values[0]
        box = single_mailbox(value)
        if box is None:
            found = _boxes(_unfold(value))
            flawed = next((one.flaw for one in found if one.flaw), "")
            if len(found) > 1:
                self.note("ambiguous", "From with more than one mailbox")
            elif found and found[0].flaw == "unreadable address" and "@" not in value:
                self.note("mime", "From without a full address")  # `<MAILER-DAEMON>` of a local system
            elif not found:
                self.note("mime", "From without a mailbox")
            else:
                self.note("ambiguous", f"From: {flawed or 'not one plain mailbox'}")
            return
        for other in _NAMED_ADDRESS.findall(box.name):
            if other.lower().rstrip(".") != box.address:
                # Not two readings, but the usual deceit: the reader sees the name, not the address.
                self.noted.append(Finding(kind="display_name", value="other_address", evidence=other[:254]))
                break


_NAMED_ADDRESS = re.compile(r"[^\s<>@\"',;:()\[\]]{1,64}@[^\s<>@\"',;:()\[\]]{1,255}")


def _alike(one: str, other: str) -> bool:
    one, other = unicodedata.normalize("NFC", one), unicodedata.normalize("NFC", other)
    return one == other or _stands_in(one, other) or _stands_in(other, one)


# --- HTML --------------------------------------------------------------------------------------------------------

_BLOCKS = re.compile(
    r"(?:address|article|aside|blockquote|body|br|caption|center|d[dlt]|details|dialog|dir|div|fieldset|figcaption|figure"
    r"|footer|form|h[1-6r]|header|html|legend|li|main|menu|nav|[ou]l|option|p|pre|r[pt]|section|select|summary|table|tbody"
    r"|tfoot|thead|title|tr)"
)
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:]*)")
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])")
# A browser ends a comment at either; Outlook shows what stands in a comment with a condition.
_COMMENT_END = re.compile(r"--!?>")
_CONDITION = re.compile(r"<!--\[if[^\]>]{0,200}\]>", re.IGNORECASE)
# Letters put down from right to left, whatever they are.
_BACKWARDS = re.compile(r"(?=.*bidi-override)(?=.*rtl)", re.IGNORECASE | re.DOTALL)
_RTL = re.compile(r"\bdir\s*=\s*[\"']?rtl", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"[\s/](?:alt|value)[ \t\r\n]*=[ \t\r\n]*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_LEGACY_FONT = re.compile(
    r"(?:font-family[ \t]*:|face[ \t]*=)[ \t\"']*(\.vn[A-Za-z0-9 ]{1,30}|vni-[A-Za-z0-9 -]{1,30})", re.IGNORECASE
)


def html_text(source: str, *, conditions: bool = False) -> str:
    """The text of an HTML body, one line per block, table cells parted by a tab; hidden text too, because hiding is no
    excuse; alt texts as well; conditions: also what Outlook alone shows. Linear in the length of the source, which is
    cut at 2 M characters (`Part.text` says so)."""
    source = source[:HTML_LIMIT]
    out: list[str] = []
    pos, end = 0, len(source)
    unclosed: set[str] = set()  # what has no end anywhere behind: never searched for again
    backwards = ""  # the element whose letters run from right to left
    while pos < end:
        found = _MARKUP.search(source, pos)
        if not found:
            out.append(_flow(source[pos:]))
            break
        at = found.start()
        if at > pos:
            out.append(_flow(source[pos:at]))
        if source.startswith("<!--", at):
            if conditions and (condition := _CONDITION.match(source, at)):
                pos = condition.end()
                continue
            closed = None if "-->" in unclosed else _COMMENT_END.search(source, at + 2)
            if closed is None:
                unclosed.add("-->")
                pos = at + 4  # never closed: readers differ, so let the text be seen
            else:
                pos = closed.end()
            continue
        if source.startswith("<![CDATA[", at):  # in a drawing its text is shown
            pos = at + 9
            continue
        match = _TAG.match(source, at)
        if not match:  # a declaration, or a closing tag without a name
            stop = source.find(">", at)
            pos = end if stop < 0 else stop + 1
            continue
        stop = _tag_end(source, match.end(), end)
        name = match[2].lower()
        if _BLOCKS.fullmatch(name):
            out.append("\n")
        elif name in ("td", "th"):
            out.append("\t")
        if match[1]:
            if name == backwards:
                out.append("\u202c")
                backwards = ""
        else:
            inside = source[match.end() : stop]
            if not backwards and ((name == "bdo" and _RTL.search(inside)) or _BACKWARDS.match(inside)):
                out.append("\u202e")
                backwards = name
            if name in ("img", "input", "area", "textarea"):
                for shown in _ATTRIBUTE.finditer(source[match.end() : stop]):
                    out.append(" " + _flow(shown[1] if shown[1] is not None else shown[2]) + " ")
            elif name in ("script", "style", "xml"):  # the last: settings of Word
                closing = None if name in unclosed else _CLOSING[name].search(source, stop)
                if closing:
                    stop = closing.start()
                else:
                    unclosed.add(name)  # let the text be seen
        pos = max(stop, at + 1)
    text = "".join(out)
    lines = (re.sub(r"[ \r\n\f]+", " ", line).strip(" ") for line in text.split("\n"))
    kept: list[str] = []
    for line in lines:
        if line.strip() or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).strip("\n")


_CLOSING = {name: re.compile(rf"</{name}\b", re.IGNORECASE) for name in ("script", "style", "xml")}


def _flow(text: str) -> str:
    """Text between tags: entities resolved, line breaks of the source are blanks."""
    if "&" in text:
        text = html.unescape(text)
    return text.replace("\r", " ").replace("\n", " ") if "\n" in text or "\r" in text else text


def _tag_end(source: str, pos: int, end: int) -> int:
    """Position after the `>` of a tag; quotes in attribute values may hold one. A quote that never ends is none."""
    close = source.find(">", pos)
    if close < 0:
        return end
    piece = source[pos:close]
    if '"' not in piece and "'" not in piece:
        return close + 1
    while pos < end:
        match = _TAG_STOP.search(source, pos)
        if not match:
            return close + 1
        sign = match[0]
        if sign == ">":
            return match.end()
        stop = source.find(sign[-1], match.end(), match.end() + 65536)
        if stop < 0:
            return close + 1
        pos = stop + 1
    return close + 1


_TAG_STOP = re.compile(r">|=\s{0,20}[\"']")


def html_fonts(source: str) -> tuple[str, ...]:
    """Legacy Vietnamese fonts that an HTML source names (`.VnTime`, `VNI-Times`): proof of the encoding."""
    return tuple(dict.fromkeys(match[1].strip() for match in _LEGACY_FONT.finditer(source[:HTML_LIMIT])))


# --- facts -------------------------------------------------------------------------------------------------------


def parse_date(value: str) -> str:
    """An RFC 5322 date-time as RFC 3339, or empty when it is none."""
    found = parsedate_tz(value[:200]) if value else None
    if not found:
        return ""
    try:
        offset = found[9] or 0
        if abs(offset) >= 86400:
            return ""
        zone = dt.timezone(dt.timedelta(seconds=offset))
        return dt.datetime(*found[:5], min(found[5], 59), tzinfo=zone).isoformat()
    except (ValueError, OverflowError, TypeError):
        return ""


def _body_text(message: Message) -> str:
    """The plain texts; HTML where no plain text stands beside it in the same alternative."""
    plain: list[str] = []
    rendered: list[str] = []
    size = 0
    raw = message.raw
    bodies = message.body_parts
    has_plain = any(part.alternative and part.content_type == "text/plain" and part.end > part.start for part in bodies)
    for part in bodies:
        if size > BODY_TEXT:
            break
        if part.content_type == "text/html":
            if part.alternative and has_plain:
                continue
            text = html_text(part.text(raw))
            rendered.append(text)
            plain.append(text)
        elif part.content_type == "text/calendar":
            continue
        else:
            text = part.text(raw)
            plain.append(text)
        size += len(text)
    text = "\n".join(piece.strip("\r\n") for piece in plain if piece.strip())
    if not text and has_plain:
        text = "\n".join(html_text(part.text(raw)) for part in bodies if part.content_type == "text/html")
    return text[:BODY_TEXT].replace("\r\n", "\n")


_DTSTART = re.compile(r"^DTSTART((?:;[^:\n]*)?):(\d{8})(?:T(\d{4})(\d{2})?(Z?))?", re.MULTILINE | re.IGNORECASE)


def meeting_start(calendar: str) -> str:
    """Start of the first event of a text/calendar body as RFC 3339 (RFC 5545), or empty. Local times are Vietnam's
    unless a known zone is named."""
    text = re.sub(r"\r?\n[ \t]", "", calendar[:1_000_000]).replace("\r\n", "\n")
    begin = text.upper().find("BEGIN:VEVENT")  # VTIMEZONE has a DTSTART of its own
    match = _DTSTART.search(text, begin) if begin >= 0 else None
    if not match:
        return ""
    zone: dt.tzinfo = VIETNAM
    named = re.search(r"TZID=\"?([^\";:]+)", match[1] or "", re.IGNORECASE)
    if match[5]:
        zone = dt.UTC
    elif named:
        try:
            zone = ZoneInfo(named[1].strip().lstrip("/"))
        except (OSError, ValueError, KeyError):  # Windows names: `SE Asia Standard Time` is Vietnam's
            zone = VIETNAM
    day, clock = match[2], match[3] or "0000"
    try:
        return dt.datetime(
            int(day[:4]), int(day[4:6]), int(day[6:]), int(clock[:2]), int(clock[2:]), int(match[4] or 0), tzinfo=zone
        ).isoformat()
    except ValueError:
        return ""


_ID = re.compile(r"<[^<>\s]{1,500}>")


def _facts(message: Message) -> MessageFacts:
    fields: dict[str, list[str]] = {}
    for name, value in message.fields:
        fields.setdefault(name, []).append(value)

    def first(name: str) -> str:
        return fields[name][0].strip() if name in fields else ""

    def boxes(name: str) -> tuple[Mailbox, ...]:
        if name not in fields:
            return ()
        return tuple(
            Mailbox(name=box.name[:500], address=box.address) for value in fields[name] for box in _boxes(value)
        )

    subject, odd = decode_words(first("subject"))
    if odd:
        message.noted.append(Finding(kind="charset", value=odd, about="subject"))
    received = fields.get("received", ())
    start = ""
    charsets: dict[str, None] = {}
    for part in message.parts:
        if part.charset:
            charsets[part.charset.lower()[:40]] = None
        calendar = part.content_type == "text/calendar" or part.filename.lower().endswith(".ics")
        if calendar and not start and not part.multipart:
            start = meeting_start(part.text(message.raw))
    return MessageFacts(
        subject=unicodedata.normalize("NFC", _CONTROLS.sub(" ", subject).strip())[:2000],
        from_=boxes("from"),
        sender=boxes("sender"),
        reply_to=boxes("reply-to"),
        to=boxes("to"),
        cc=boxes("cc"),
        date=parse_date(first("date")),
        message_id=first("message-id")[:998],
        in_reply_to=first("in-reply-to")[:998],
        references=tuple(_ID.findall(first("references")))[:100],
        auto_submitted=first("auto-submitted").partition(";")[0].strip().lower()[:100],
        precedence=first("precedence").lower()[:100],
        list_id=_readable(first("list-id"))[:500],
        hops=len(received),
        first_received_at=parse_date(received[-1].rpartition(";")[2].strip()) if received else "",
        charsets=tuple(charsets),
        body_text=_body_text(message),
        meeting_start=start,
        header_bytes=message.header_bytes,
    )
