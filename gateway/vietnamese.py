"""Vietnamese text as it arrives: composed, decomposed, spaced out, disguised, or in an encoding of the 1990s. Pure.

The order of operations matters (rules.md 3.7). In TCVN3 the byte AD, a soft hyphen elsewhere, is the letter ư, and
the bytes that NFKC rewrites (ª µ ¸ ¹ ¼ ½ ¾) are vowels: a legacy reading must be made from the text as it came, before
anything is dropped or normalised. So: `legacy_views` of the raw line first, `clean` of every view afterwards.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

_TONES = {"\u0300": "`", "\u0301": "'", "\u0309": "?", "\u0303": "~", "\u0323": "."}

#: The twelve vowels and đ, with all tones: the alphabet that only Vietnamese text uses.
_BASES = "aăâeêioôơuưy"
_LETTERS = [unicodedata.normalize("NFC", base + tone) for base in _BASES for tone in ("", *_TONES)] + ["đ"]
_ACCENTED = "".join(letter for letter in _LETTERS if not letter.isascii())

#: A letter (or combining mark) that no encoding older than Unicode has: ă đ ĩ ũ ơ ư and U+1EA0 to U+1EF9.
_MODERN = re.compile(
    "[\u0102\u0103\u0110\u0111\u0128\u0129\u0168\u0169\u01a0\u01a1\u01af\u01b0\u0300-\u0323\u1ea0-\u1ef9]"
)
_HIGH = re.compile("[^\x00-\x7f]")


def nfc(text: str) -> str:
    """Composed form. Joins Windows' combining sequences too, in either order of the marks."""
    return unicodedata.normalize("NFC", text)


_FOLD = {ord(letter): unicodedata.normalize("NFD", letter)[0] for letter in _ACCENTED if letter != "đ"}
_FOLD |= {ord(chr(code).upper()): base for code, base in list(_FOLD.items())}
_FOLD |= {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_FOLD |= {ord("đ"): "d", ord("Đ"): "d", ord("ð"): "d", ord("Ð"): "d", ord("Ɖ"): "d"}
_MARKS = re.compile("[\u0300-\u036f]")


def fold(text: str) -> str:
    """Lower case without accents, đ as d: for comparison and search. NFC text keeps its length, letter for letter."""
    if text.isascii():
        return text.lower()
    folded = text.translate(_FOLD)
    if folded.isascii():
        return folded
    if _MARKS.search(folded):
        folded = _MARKS.sub("", nfc(text).translate(_FOLD))
    return folded.lower() if len(folded.lower()) == len(folded) else folded


def has_modern_letters(text: str) -> bool:
    """Whether the text holds a letter that only Unicode has: then it is not TCVN3, VNI or VISCII read as Latin-1."""
    return _MODERN.search(text) is not None


# -- disguises -----------------------------------------------------------------------------------------------------

#: Characters that show nothing: soft hyphen, joiners, direction marks, fillers, variation selectors, tags.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\U000e0000-\U000e0fff"
)
_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_LOOK_ALIKES = str.maketrans(
    "АВЕКМНОРСТУХІЅЈаеорсухіѕјԁԛԝ" + "ΑΒΕΗΙΚΜΝΟΡΤΥΧΖοανικρτυ",
    "ABEKMHOPCTYXISJaeopcyxisjdqw" + "ABEHIKMNOPTYXZoavikptu",
)
_REWRITTEN = re.compile("[\uff01-\uff5e\u2100-\u214f\u2460-\u24ff\U0001d400-\U0001d7ff\U0001f130-\U0001f16f]+")
_NEEDS_CLEANING = re.compile(
    f"[{_INVISIBLE}{_SPACES}\x0b\x0c\x1c-\x1e\x85\u2028\u2029\u0300-\u036f\u0370-\u052f\u00d0\u00f0\u0189"
    "\uff01-\uff5e\u2100-\u214f\u2460-\u24ff\U0001d400-\U0001d7ff\U0001f130-\U0001f16f]"
)
_DROP = re.compile(f"[{_INVISIBLE}]+")
#: Letters behind RIGHT-TO-LEFT OVERRIDE, up to where it ends: they are shown in the other order.
_BACKWARDS = re.compile("\u202e([^\u202a-\u202e\n]*)\u202c?")
_SPACE = re.compile(f"[{_SPACES}]")
_BREAK = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_FOREIGN = re.compile("[\u0370-\u052f]")
_ETH = str.maketrans("ÐðƉ", "ĐđĐ")  # U+00D0, U+00F0, U+0189 stand for Đ and đ in many Vietnamese PDFs


def clean(text: str) -> str:
    """The text as a reader sees it: invisible characters gone, every space a space, full-width and letter-like forms
    and Cyrillic or Greek look-alikes as Latin letters, Eth as Đ, composed. Line breaks stay. For matching, not show.
    """
    if text.isascii():
        return _BREAK.sub("\n", text) if _BREAK.search(text) else text
    if _NEEDS_CLEANING.search(text):
        if "\u202e" in text:
            text = _BACKWARDS.sub(lambda found: nfc(found[1])[::-1], text)
        text = _BREAK.sub("\n", _SPACE.sub(" ", _DROP.sub("", text)))
        text = _REWRITTEN.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
        if _FOREIGN.search(text):
            text = unicodedata.normalize("NFD", text).translate(_LOOK_ALIKES)
        text = text.translate(_ETH)
    return nfc(text)


_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:[ \t._\-·•*/|]{1,3}[^\W_](?![^\W_])){2,}")
_GAP = re.compile(r"[ \t._\-·•*/|]+")


def join_spaced_letters(line: str) -> str:
    """`M Ậ T` and `T.U.Y.Ệ.T M.Ậ.T` without the gaps. No Vietnamese sentence has three words of one letter in a row."""
    return _SPACED.sub(lambda found: _GAP.sub("", found[0]), line)


# -- legacy encodings ----------------------------------------------------------------------------------------------

# TCVN 5712:1993 (VN3, "ABC", fonts .VnTime): one byte a letter. It has seven capitals only: the accented capitals come
# from fonts whose name ends in H, which show the small letters as capitals. Agrees with iconv's TCVN (tests).
_TCVN3 = {
    **{0xA1 + n: c for n, c in enumerate("ĂÂÊÔƠƯĐăâêôơưđ")},
    **{0xB5 + n: c for n, c in enumerate("àảãáạ")},
    **{0xBB + n: c for n, c in enumerate("ằẳẵắ")},
    **{0xC6 + n: c for n, c in enumerate("ặầẩẫấậè")},
    **{0xCE + n: c for n, c in enumerate("ẻẽéẹềểễếệìỉ")},
    **{0xDC + n: c for n, c in enumerate("ĩíịò")},
    **{0xE1 + n: c for n, c in enumerate("ỏõóọồổỗốộ")},
    **{0xEA + n: c for n, c in enumerate("ờởỡớợù")},
    **{0xF1 + n: c for n, c in enumerate("ủũúụừửữứựỳỷỹýỵ")},
}

# VISCII (RFC 1456): 80 to FF, and six capitals among the control characters.
_VISCII = {0x02: "Ẳ", 0x05: "Ẵ", 0x06: "Ẫ", 0x14: "Ỷ", 0x19: "Ỹ", 0x1E: "Ỵ"} | {
    0x80 + n: c
    for n, c in enumerate(
        "ẠẮẰẶẤẦẨẬẼẸẾỀỂỄỆỐỒỔỖỘỢỚỜỞỊỎỌỈỦŨỤỲÕắằặấầẩậẽẹếềểễệốồổỗỠƠộờởịỰỨỪỬơớƯÀÁÂÃẢĂẳẵÈÉÊẺÌÍĨỳĐứÒÓÔạỷừửÙÚỹỵÝỡư"
        "àáâãảăữẫèéêẻìíĩỉđựòóôõỏọụùúũủýợỮ"
    )
}

# VNI-Windows: a vowel followed by a letter that carries its marks; ñ for đ; five i and one y have letters of their own.
_VNI_MARKS = {
    "a": "áàảãạ", "ă": "ắằẳẵặ", "â": "ấầẩẫậ", "e": "éèẻẽẹ", "ê": "ếềểễệ", "o": "óòỏõọ", "ô": "ốồổỗộ",
    "ơ": "ớờởỡợ", "u": "úùủũụ", "ư": "ứừửữự", "y": "ýỳỷỹ",
}  # fmt: skip
_VNI: dict[str, str] = {}
for _vowel, _row in _VNI_MARKS.items():
    _first = {"ă": "a", "â": "a", "ê": "e", "ô": "o", "ơ": "ô", "ư": "ö"}.get(_vowel, _vowel)
    _second = {"ă": "éèúüë", "â": "áàåãä", "ê": "áàåãä", "ô": "áàåãä"}.get(_vowel, "ùøûõï")
    _VNI |= {_first + mark: letter for mark, letter in zip(_second, _row, strict=False)}
_VNI |= {"aê": "ă", "aâ": "â", "eâ": "ê", "oâ": "ô", "ô": "ơ", "ö": "ư", "ñ": "đ", "î": "ỵ"}
_VNI |= {"í": "í", "ì": "ì", "æ": "ỉ", "ó": "ĩ", "ò": "ị"}
_VNI |= {
    variant: letter.upper()
    for pair, letter in list(_VNI.items())
    for variant in {pair.upper(), pair[0].upper() + pair[1:]}
}
_VNI_PATTERN = re.compile("|".join(sorted(map(re.escape, _VNI), key=len, reverse=True)))

# VIQR (RFC 1456): `^` `(` `+` for the shape, then one of ` ' ? ~ . for the tone; dd for đ.
_VIQR_SHAPES = {"a^": "â", "a(": "ă", "e^": "ê", "o^": "ô", "o+": "ơ", "u+": "ư", "o*": "ơ", "u*": "ư"}
_VIQR_TONES = {mark: tone for tone, mark in _TONES.items()}
_VIQR_PATTERN = re.compile(r"([aeo]\^|a\(|[ou][+*]|[aeiouy])([`'?~.](?!\s*$))?|dd", re.IGNORECASE)
_VIQR_SIGN = re.compile(r"[aeo]\^|a\([`'?~.]|[ou]\+[`'?~.]?", re.IGNORECASE)

# UTF-8 read as windows-1252, where the bytes 81 8D 8F 90 9D pass through as control characters.
_BYTE_OF = {chr(n): n for n in range(0x80, 0x100)} | {
    bytes([n]).decode("cp1252"): n for n in range(0x80, 0xA0) if n not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_CONTINUATION = "[" + "".join(re.escape(c) for c, n in _BYTE_OF.items() if 0x80 <= n <= 0xBF) + "]"
_MOJIBAKE = re.compile(f"[\xc2-\xdf]{_CONTINUATION}|[\xe0-\xef]{_CONTINUATION}{{2}}|[\xf0-\xf4]{_CONTINUATION}{{3}}")
_UNDO_CP1252 = {ord(c): chr(n) for c, n in _BYTE_OF.items()}


def from_tcvn3(text: str) -> str:
    """TCVN3 text that was read as Latin-1 or windows-1252. Case is not to be relied on (see the table)."""
    return text.translate(_TCVN3)


def from_vni(text: str) -> str:
    """VNI-Windows text that was read as Latin-1 or windows-1252."""
    return _VNI_PATTERN.sub(lambda found: _VNI[found[0]], text)


def from_viscii(text: str) -> str:
    """VISCII text that was read as Latin-1 or windows-1252."""
    return text.translate(_UNDO_CP1252).translate(_VISCII)


def from_mojibake(text: str) -> str:
    """UTF-8 that was read as Latin-1 or windows-1252; what does not decode stays."""

    def decode(found: re.Match[str]) -> str:
        try:
            return bytes(_BYTE_OF[c] for c in found[0]).decode("utf-8")
        except UnicodeDecodeError:
            return found[0]

    return nfc(_MOJIBAKE.sub(decode, text))


def from_viqr(text: str) -> str:
    """VIQR (RFC 1456): `TUYE^.T MA^.T`."""

    def compose(found: re.Match[str]) -> str:
        if found[1] is None:
            return "Đ" if found[0][0] == "D" else "đ"
        base = _VIQR_SHAPES.get(found[1].lower(), found[1])
        base = base.upper() if found[1][0].isupper() else base
        return unicodedata.normalize("NFC", base + _VIQR_TONES.get(found[2] or "", ""))

    return _VIQR_PATTERN.sub(compose, text)


class View(NamedTuple):
    """One reading of a line. charset: empty for the line as it is; caseless: capitals mean nothing in it."""

    charset: str
    text: str
    caseless: bool = False


def legacy_views(line: str) -> list[View]:
    """Readings of a raw line in encodings older than Unicode; empty for lines that are Unicode or plain ASCII.

    Only lines with high characters and without a letter that Unicode alone has: a real `Báo cáo` among them becomes
    nonsense (`Bỏo cỏo`), which matches nothing.
    """
    if line.isascii():
        return [View("viqr", from_viqr(line))] if "^" in line and _VIQR_SIGN.search(line) else []
    if _MODERN.search(line):
        return []
    views = []
    if _MOJIBAKE.search(line):
        views.append(View("mojibake", from_mojibake(line)))
    views.append(View("tcvn3", from_tcvn3(line), caseless=True))
    views.append(View("vni", from_vni(line)))
    views.append(View("viscii", from_viscii(line)))
    return views


# -- which encoding ------------------------------------------------------------------------------------------------

_ONSETS = "ngh|ng|nh|ch|gh|gi|kh|ph|qu|th|tr|[bcdđghklmnpqrstvx]"
_NUCLEI = (
    "uyê|uya|iêu|yêu|ươi|ươu|uôi|oai|oay|oao|oeo|uây|uyu|iê|yê|uô|ươ|uâ|oă|uă|oa|oe|uê|uy|uơ|ia|ya|ua|ưa|"
    "ai|ay|ao|au|âu|ây|eo|êu|iu|oi|ôi|ơi|ui|ưi|ưu|[aăâeêioôơuưy]"
)
_SYLLABLE = re.compile(f"(?:{_ONSETS})?(?:{_NUCLEI})(?:ng|nh|ch|[cmnpt])?")
_STOPPED = re.compile("(?:ch|[cpt])$")
_WORD = re.compile(r"[^\W\d_]+")
_WRITTEN = re.compile(r"[^\s\x00-\x40\[-`{-\x7f]+")


@lru_cache(maxsize=8192)
def is_syllable(word: str) -> bool:
    """Whether the word is spelt like a Vietnamese syllable: onset, rhyme, one tone at most, and one its end allows."""
    decomposed = unicodedata.normalize("NFD", word.lower())
    tones = [c for c in decomposed if c in _TONES]
    if len(tones) > 1:
        return False
    shape = unicodedata.normalize("NFC", "".join(c for c in decomposed if c not in _TONES))
    if not _SYLLABLE.fullmatch(shape):
        return False
    return not (_STOPPED.search(shape) and tones and tones[0] not in ("\u0301", "\u0323"))


def plausibility(text: str, most: int = 400) -> tuple[int, int]:
    """(words that are Vietnamese syllables, all words) over the first `most` words with high characters."""
    good = total = 0
    for found in _WRITTEN.finditer(text):  # whole words first: looking for the high character inside would be quadratic
        if found[0].isascii():
            continue
        word = found[0].strip("–—…“”‘’«»•·")
        if not word or word.isascii():
            continue
        total += 1
        good += is_syllable(word) and bool(_WORD.fullmatch(word))
        if total >= most:
            break
    return good, total


def charset_of(text: str) -> str:
    """`tcvn3`, `vni`, `viscii`, `viqr` or `mojibake` when the text is Vietnamese in that encoding, else empty.

    Judged on the lines without modern letters: at least three words with high characters, of which more than 70 %
    become Vietnamese syllables in one reading, and clearly more than are syllables as they stand.
    """
    if text.isascii():
        if text.count("^") < 2 or len(_VIQR_SIGN.findall(text)) < 3:
            return ""
        good, total = plausibility(from_viqr(text))
        return "viqr" if total >= 3 and good > 0.7 * total else ""
    if _MODERN.search(text):
        text = "\n".join(line for line in text.splitlines() if not _MODERN.search(line))
    text = text[:20000]
    plain, words = plausibility(clean(text))
    if words < 3:
        return ""
    best, name = plain / words + 0.15, ""
    for view in legacy_views(text):
        good, total = plausibility(nfc(view.text))
        # A wrong reading can dissolve its words into ASCII; count against the words that were there.
        share = good / max(total, words)
        if share > 0.7 and share > best:
            best, name = share, view.charset
    return name


_CODECS = {
    "viscii": from_viscii, "csviscii": from_viscii, "viscii1.1-1": from_viscii, "tcvn": from_tcvn3,
    "tcvn3": from_tcvn3, "tcvn5712": from_tcvn3, "tcvn5712-1": from_tcvn3, "tcvn-5712": from_tcvn3,
    "x-viet-tcvn": from_tcvn3, "x-viet-tcvn5712": from_tcvn3, "x-viet-vni": from_vni, "vni": from_vni,
    "viqr": from_viqr, "x-viet-vps": None,
}  # fmt: skip


def decode(data: bytes, charset: str = "") -> str:
    """Bytes to text. Total.

    Declared charset first; a missing or wrong one: byte order mark, UTF-8, UTF-16 by its zero bytes, windows-1258 when
    its reading is Vietnamese, at last Latin-1, which keeps every byte for the legacy views.
    """
    name = charset.strip().lower().strip("\"'")
    if name in ("us-ascii", "ascii", "utf-8", "utf8", ""):
        try:
            return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
        except UnicodeDecodeError:
            pass
    elif name in _CODECS:
        convert = _CODECS[name]
        text = data.decode("latin-1")
        return convert(text) if convert else text
    elif name not in ("iso-8859-1", "latin1", "latin-1", "windows-1252", "cp1252"):
        try:
            return data.decode(name)
        except (UnicodeError, LookupError, ValueError):
            pass
    else:
        # Western charsets are declared by old clients for anything; keep the bytes one to one unless UTF-8 fits.
        try:
            return data.decode("ascii")
        except UnicodeDecodeError:
            return data.decode("latin-1") if name.startswith(("iso", "latin")) else _western(data)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    sample = data[:2000]
    if len(sample) >= 8 and sample.count(0) * 5 > len(sample):
        return data.decode("utf-16-le" if sample[1::2].count(0) >= sample[::2].count(0) else "utf-16-be", "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        text = nfc(data.decode("cp1258"))
        good, total = plausibility(text)
        if total and good > 0.7 * total:
            return text
    except UnicodeDecodeError:
        pass
    if (len(data) > 64 and b"\xe1\xba" in data) or b"\xe1\xbb" in data:
        text = data.decode("utf-8", errors="replace")  # UTF-8 with a few broken bytes
        if text.count("\ufffd") * 20 < len(text):
            return text
    return _western(data)


_UTF7 = re.compile(rb"\+[A-Za-z0-9+/]{2,}")


def readings(data: bytes, charset: str = "") -> tuple[str, ...]:
    """Other texts that a program may show for the same bytes: as UTF-8, UTF-7, UTF-16, UTF-32, windows-1258, or without
    the declared charset. Only those with letters that Unicode alone has, which no chance gives; mostly none. Total."""
    sample = data[:4000]
    ascii_only = data.isascii()
    tried: list[str] = []
    if b"+" in data and _UTF7.search(data):
        tried.append("utf-7")
    if zeros := sample.count(0):
        wide = zeros * 2 > len(sample)
        tried += ["utf-32-le", "utf-32-be"] if wide else ["utf-16-le", "utf-16-be"]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        tried.append("utf-16")
    if not ascii_only:
        tried += ["utf-8", "utf-16-be", "cp1258"] if charset else []
    found: dict[str, None] = {}
    for codec in tried:
        try:
            text = data.decode(codec, "strict" if codec in ("utf-8", "cp1258") else "replace")
        except (UnicodeError, ValueError):
            continue
        text = nfc(text.removeprefix("\ufeff"))
        if _MODERN.search(text) and text.count("\ufffd") * 4 <= len(text):
            found[text] = None
    if charset and not ascii_only:
        found[nfc(decode(data))] = None
    return tuple(found)


def _western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")
