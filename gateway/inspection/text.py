"""The text of a file, with places: PDF, Office Open XML, OpenDocument, RTF, HTML, plain text, legacy Office.

Everything a person may see or a reader may show is text here: headers, footers, text boxes, watermarks, comments,
annotations, form fields, document properties. Heavy libraries are imported when a file needs them. Active content seen
on the way (macros, scripts, actions, embedded files) is reported as findings of kind `active`.
"""

from __future__ import annotations

import binascii
import contextlib
import html
import io
import itertools
import logging
import math
import re
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from xml.parsers import expat

from gateway import mime, vietnamese
from gateway.config import Budget
from gateway.inspection import cards, markup
from gateway.inspection.findings import Finding
from gateway.inspection.segments import Segment

#: Characters taken from one file: a law of 300 pages has under a million.
MAX_TEXT = 4_000_000
#: Bytes of one XML part after decompression; the largest sheets of provincial budgets stay below.
MAX_XML = 48 << 20
#: Pages of a PDF that are read; files of more are annexes of tables. Marks stand on the first pages and the last.
MAX_PAGES = 500

_LEGACY_FONT = re.compile(
    r"(?:[A-Z]{6}\+)?(\.Vn[A-Z][A-Za-z ]{1,30}|VNI[-_ ][A-Za-z0-9 -]{1,30}|VN[IU]?Times[A-Za-z]*)"
)


@dataclass(slots=True)
class Text:
    """What was read of one file.

    layer: `full`, `none` or `garbage` for paged files, empty for others; fonts: legacy Vietnamese fonts only;
    embedded: files carried inside (name, bytes); pictures: those that stand in the text; unsure: other readings of it,
    looked at for marks alone; reason: English, one line, when it could not be read.
    """

    segments: list[Segment] = field(default_factory=list)
    layer: str = ""
    fonts: tuple[str, ...] = ()
    pages: int | None = None
    encrypted: bool = False
    damaged: bool = False
    findings: list[Finding] = field(default_factory=list)
    embedded: list[tuple[str, bytes]] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    unsure: list[Segment] = field(default_factory=list)
    reason: str = ""

    def add(self, where: str, text: str, page: int | None = None, zone: str = "body") -> None:
        if text and not text.isspace():
            self.segments.append(Segment(where, text[:MAX_TEXT], page, zone))

    def active(self, value: str, where: str = "") -> None:
        if not any(f.kind == "active" and f.value == value for f in self.findings):
            self.findings.append(Finding(kind="active", value=value, where=where))

    def cannot(self, value: str) -> None:
        if not any(f.kind == "uninspectable" and f.value == value for f in self.findings):
            self.findings.append(Finding(kind="uninspectable", value=value))

    @property
    def plain(self) -> str:
        """All text in one piece, for the search index."""
        return "\n".join(segment.text for segment in self.segments)


rendered = markup.rendered


def extract(data: bytes, type: str, limits: Budget | None = None, charset: str = "") -> Text:
    """The text of a file of a sniffed type. Never raises for what is in the data; types without text give none."""
    text = Text()
    reader = READERS.get(type)
    if reader is None:
        return text
    try:
        if reader in (_plain, _html, _card):
            reader(data, text, charset)
        else:
            reader(data, text)
    except ImportError as error:
        text.reason = f"no_extractor: {error.name or error}"
        text.cannot("no_extractor")
    except _Refused as refused:
        text.damaged = True
        text.reason = str(refused)
        text.cannot(refused.value)
    except MemoryError:
        text.reason = "out of memory"
        text.cannot("too_large")
    except Exception as error:  # readers of hostile data raise anything
        text.damaged = True
        text.reason = f"cannot be read: {error.__class__.__name__}"
        text.cannot("unknown_container")
    return text


class _Refused(Exception):
    """Refused on purpose: a DTD, an expansion beyond the limits."""

    def __init__(self, reason: str, value: str = "unknown_container") -> None:
        super().__init__(reason)
        self.value = value


def legacy_fonts(names: Iterator[str] | list[str]) -> tuple[str, ...]:
    found = {match[1].strip() for name in names if (match := _LEGACY_FONT.match(name))}
    return tuple(sorted(found))[:20]


_ODD = re.compile("[\ue000-\uf8ff\ufffd\x00-\x1f\x7f-\x9f]")
_LATIN, _VOWEL = re.compile(r"[^\W\d_]{2,}"), re.compile("[aeiouy]")
_CLUSTER = re.compile("[bcdghklmnpqrstvxfjwz]{4}")


def is_garbage(text: str) -> bool:
    """A text layer that is neither Vietnamese nor any other readable text: private encodings and missing mappings.

    More than a tenth private-use, replacement or control characters, or almost no word with a vowel in a text that
    has no reading in a legacy encoding.
    """
    sample = "".join(text[:6000].split())
    if len(sample) < 40:
        return False
    if len(_ODD.findall(sample)) * 10 > len(sample):
        return vietnamese.charset_of(text[:6000]) == ""
    words = _LATIN.findall(vietnamese.fold(text[:6000]))[:300]
    if len(words) < 15:
        good_signs = sum(1 for c in sample if c.isalnum() or c in ".,;:/()-–\"'%")
        return len(sample) > 150 and good_signs * 2 < len(sample)
    readable = sum(1 for word in words if _VOWEL.search(word) and not _CLUSTER.search(word))
    return readable * 10 < len(words) * 5 and vietnamese.charset_of(text[:6000]) == ""


# -- plain text and HTML -------------------------------------------------------------------------------------------


def _plain(data: bytes, text: Text, charset: str = "") -> None:
    raw = bytes(data[: MAX_TEXT * 2])
    content = vietnamese.decode(raw, charset)
    if len(content) > MAX_TEXT or len(data) > len(raw):
        text.cannot("too_large")
    text.add("nội dung", content)
    text.unsure += [Segment("nội dung", other) for other in vietnamese.readings(raw, charset) if other != content]
    if content[:200].lstrip("\ufeff \t\r\n").startswith("<"):  # some programs look at the beginning, not at the name
        text.unsure += markup.segments(content, "nội dung")
    if re.search(r"-----BEGIN PGP MESSAGE-----", content):
        text.encrypted = True
        text.findings.append(Finding(kind="uninspectable", value="pgp"))


_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,30})", re.IGNORECASE)
_FONT_FACE = re.compile(r"(?:font-family\s*:|face\s*=)\s*[\"']?\s*([^;\"'>]{2,60})", re.IGNORECASE)


def _card(data: bytes, text: Text, charset: str = "") -> None:
    raw = bytes(data[: MAX_TEXT * 2])
    source = vietnamese.decode(raw, charset)
    if len(data) > len(raw):
        text.cannot("too_large")
    text.add("nội dung", source[:MAX_TEXT])
    texts, text.embedded = cards.read(source)
    text.unsure += texts


def _html(data: bytes, text: Text, charset: str = "") -> None:
    raw = bytes(data[: MAX_TEXT * 2])
    if not charset and (declared := _META_CHARSET.search(raw[:4096])):
        charset = declared[1].decode("ascii", "replace")
    source = vietnamese.decode(raw, charset)
    if len(source) > mime.HTML_LIMIT or len(data) > len(raw):
        text.cannot("too_large")
    page, *beside = markup.segments(source, "nội dung")
    text.add(page.where, page.text, zone=page.zone)
    text.unsure += beside
    text.embedded += markup.files(source)
    for other in vietnamese.readings(raw, charset):
        text.unsure += markup.segments(other, "nội dung")
    text.fonts = legacy_fonts([face.strip() for found in _FONT_FACE.finditer(source) for face in found[1].split(",")])
    if re.search(r"<script\b|\bon(?:load|error|click)\s*=|javascript:", source, re.IGNORECASE):
        text.active("script", "HTML")


# -- XML in ZIP ----------------------------------------------------------------------------------------------------


class _Xml:
    """Streams one XML part through expat. A document type is refused: no entities, no bombs (rules.md 2.3)."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=None)
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype

    @staticmethod
    def _doctype(*_: object) -> None:
        raise _Refused("XML with a document type declaration")

    def feed(self, data: bytes) -> None:
        try:
            self.parser.Parse(data, True)
        except expat.ExpatError as error:
            raise _Refused(f"XML not well-formed: {expat.errors.messages.get(error.code, error.code)}") from None


class _Paragraphs(_Xml):
    """Text of WordprocessingML, DrawingML, VML and PresentationML by local names; text boxes are kept apart."""

    _BOXES = frozenset({"txbxContent", "txbx", "textbox"})

    def __init__(self, upper: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.body: list[str] = []
        self.boxes: list[str] = []
        self.watermarks: list[str] = []
        self.alternative: list[str] = []
        self.fonts: set[str] = set()
        self.links: list[str] = []
        self._box = 0
        self._take = False
        self._caps = self._style_caps = False
        self._upper = upper

    def _out(self) -> list[str]:
        return self.boxes if self._box else self.body

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rsplit(":", 1)[-1]
        if name in ("t", "delText", "instrText"):
            self._take = True
        elif name == "p":
            self._style_caps = False
        elif name == "r":
            self._caps = self._style_caps
        elif name in ("caps", "smallCaps"):  # both show capitals
            on = not any(value in ("0", "false", "off") for value in attributes.values())
            self._caps = on or (self._caps and name == "smallCaps")
        elif name == "rPr":
            if attributes.get("cap") in ("all", "small"):
                self._caps = True
        elif name in ("rStyle", "pStyle"):
            if any(value in self._upper for value in attributes.values()):
                self._caps = True
                self._style_caps = self._style_caps or name == "pStyle"
        elif name in ("tab", "ptab"):
            self._out().append("\t")
        elif name in ("br", "cr"):
            self._out().append("\n")
        elif name == "noBreakHyphen":
            self._out().append("-")
        elif name == "sym":  # by its number in a font; those of pictures lie in the private area
            code = next((value for key, value in attributes.items() if key.endswith("char")), "")
            point = int(code, 16) if re.fullmatch("[0-9A-Fa-f]{1,5}", code) else 32
            self._out().append(chr(point) if 32 <= point < 0xE000 else " ")
        elif name in self._BOXES:
            self._box += 1
            self.boxes.append("\n")
        elif name == "textpath":
            if text := attributes.get("string"):
                self.watermarks.append(text)
        elif name in ("docPr", "cNvPr", "shape", "rect", "roundrect"):
            for key in ("descr", "title", "alt", "name"):
                if value := attributes.get(key):
                    self.alternative.append(value)
        elif name in ("rFonts", "latin", "font"):
            self.fonts.update(attributes.values())

    def _end(self, tag: str) -> None:
        name = tag.rsplit(":", 1)[-1]
        if name in ("t", "delText", "instrText"):
            self._take = False
        elif name == "p":
            self._out().append("\n")
        elif name == "tc":
            self._out().append("\t")
        elif name in self._BOXES:
            self._box -= 1
            self.boxes.append("\n")

    def _characters(self, text: str) -> None:
        if self._take:
            self._out().append(text.upper() if self._caps else text)


class _Flat(_Xml):
    """Text of every element of a small part, one a line: document properties, comments of sheets, custom XML."""

    def __init__(self) -> None:
        super().__init__()
        self.parser.StartElementHandler = lambda tag, attributes: self.tags.append((tag, attributes))
        self.parser.EndElementHandler = lambda tag: self.lines.append("\n")
        self.parser.CharacterDataHandler = self.lines_append
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.lines: list[str] = []

    def lines_append(self, text: str) -> None:
        self.lines.append(text)

    def text(self) -> str:
        return re.sub(r"\n{2,}", "\n", "".join(self.lines)).strip("\n")


class _Named(_Flat):
    """Custom document properties, each behind its name as a label: `Độ mật: Mật`."""

    def __init__(self) -> None:
        super().__init__()
        self.parser.StartElementHandler = self._start

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag.rsplit(":", 1)[-1] == "property":
            self.lines.append(f"{attributes.get('name', '')}: ")


class _Package:
    """The parts of an OOXML or OpenDocument file, read within limits."""

    def __init__(self, data: bytes, text: Text) -> None:
        try:
            self.archive = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError, OSError):
            raise _Refused("not a readable ZIP package") from None
        self.infos: dict[str, zipfile.ZipInfo] = {}
        for info in self.archive.infolist()[:20_000]:
            self.infos[info.filename.replace("\\", "/").lstrip("/")] = info
        self.text = text
        self.taken: set[str] = set()
        self._left = 160 << 20

    def names(self, pattern: str) -> list[str]:
        found = [name for name in self.infos if re.fullmatch(pattern, name, re.IGNORECASE)]
        return sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])

    def read(self, name: str) -> bytes:
        info = self.infos[name]
        self.taken.add(name)
        if info.flag_bits & 0x1:
            self.text.encrypted = True
            self.text.cannot("encrypted")
            return b""
        limit = min(MAX_XML, self._left)
        try:
            with self.archive.open(info) as stream:
                data = stream.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError):
            self.text.damaged = True
            self.text.cannot("unknown_container")
            return b""
        if len(data) > limit:
            raise _Refused(f"part beyond {limit} bytes", "ratio")
        self._left -= len(data)
        return data

    def parse(self, name: str, handler: Any) -> bool:
        """Feeds a part to a handler; a broken part is noted and the rest goes on."""
        data = self.read(name)
        if not data:
            return False
        self.text.unsure += _attributes(data)
        try:
            handler.feed(data)
        except _Refused as refused:
            self.text.damaged = True
            self.text.reason = self.text.reason or f"{name}: {refused}"
            self.text.cannot(refused.value)
        return True


_PLACES = (
    (r"word/document\d*\.xml", "nội dung", "body"),
    (r"word/header\d*\.xml", "đầu trang", "header"),
    (r"word/footer\d*\.xml", "cuối trang", "footer"),
    (r"word/(?:footnotes|endnotes)\.xml", "chú thích", "footer"),
    (r"word/comments\w*\.xml", "nhận xét", "comment"),
    (r"word/glossary/document\.xml", "khối dựng sẵn", "textbox"),
    (r"(?:word|xl|ppt)/(?:charts|diagrams|drawings)/[^/]+\.(?:xml|vml)", "hình vẽ", "textbox"),
    (r"ppt/slides/slide\d+\.xml", "trang chiếu", "body"),
    (r"ppt/notesSlides/notesSlide\d+\.xml", "ghi chú trang chiếu", "comment"),
    (r"ppt/(?:slideMasters|slideLayouts|notesMasters|handoutMasters)/[^/]+\.xml", "nền trang chiếu", "header"),
    (r"ppt/comments/[^/]+\.xml", "nhận xét", "comment"),
)


_MARKED = re.compile("=\\s*(?:\"([^\"<]*(?:[ẬậỐố\u0323]|&#)[^\"<]*)\"|'([^'<]*(?:[ẬậỐố\u0323]|&#)[^'<]*)')")
#: Parts that hold no words of the writer: looked into only for attributes with a letter of a mark.
_NOISE = re.compile(
    r"(?:.*/)?(?:theme|_rels|fonts|printerSettings|revisions)/.*|\[Content_Types\]\.xml|.*\.rels|layout-cache|mimetype"
    r"|word/(?:settings|webSettings|styles|stylesWithEffects|numbering|people|comments(?:Ids|Extended|Extensible))\.xml"
    r"|ppt/(?:viewProps|tableStyles|commentAuthors)\.xml|xl/(?:calcChain|metadata)\.xml|META-INF/manifest\.xml"
    r"|settings\.xml|Configurations2/.*|manifest\.rdf",
    re.IGNORECASE,
)
#: Bytes of Office itself that nothing opens by themselves; they are passed over only where they are of no known type.
_OPAQUE = re.compile(
    r"printerSettings\d*\.bin|.*\.(?:odttf|fntdata|sigs|dat|wdp)|layout-cache|vba(?:Project|Data).*", re.IGNORECASE
)


def _attributes(data: bytes) -> list[Segment]:
    """Values of attributes that hold a letter of a mark: names, prompts, number formats, titles."""
    source = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    values = {html.unescape(one[1] or one[2]): None for one in _MARKED.finditer(source)}
    pieces = dict.fromkeys(piece for value in list(values)[:2000] for piece in (value, *value.split('"')) if piece)
    return [Segment("thuộc tính trong tệp", piece, None, "property") for piece in pieces if len(piece) < 300]


def _rest(package: _Package, text: Text) -> None:
    """What no reader of a package took: parts of other names than usual (programs follow relations, not names), chunks
    of other formats, pictures, and files that merely lie in it."""
    from gateway.inspection import containers

    binary = bool(package.names(r"xl/workbook\.bin"))
    for name, info in package.infos.items():
        if name in package.taken or name == "mimetype" or info.is_dir() or not info.file_size:
            continue
        if binary and re.fullmatch(r"xl/.*\.bin", name):
            continue  # records of a binary workbook, read above
        if len(text.embedded) + len(text.pictures) > 500:
            text.cannot("too_many")
            return
        content = package.read(name)
        base = name.rsplit("/", 1)[-1]
        start = content[:200].removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith(b"<") and (name.endswith((".xml", ".vml", ".rdf")) or b"xmlns" in content[:4000]):
            text.unsure += _attributes(content)
            if re.search(rb"<(?:\w+:)?macrosheet\b", content[:4000]):
                text.active("macro", name)
            if not _NOISE.fullmatch(name):
                _part(content, name, text)
            continue
        kind = containers.sniff(content, base)
        if kind in _RASTER:
            if len(content) >= SMALL_PICTURE:
                text.pictures.append((base, content))
        elif not (kind == "unknown" and _OPAQUE.fullmatch(base)) and kind not in ("emf", "wmf", "wdp", "svm"):
            text.embedded.append((base, content))


#: Bytes below which a picture is no page, however it is packed.
SMALL_PICTURE = 8_000
_RASTER = frozenset(("jpg", "png", "tiff", "gif", "bmp", "webp"))


def _part(content: bytes, name: str, text: Text) -> None:
    """An XML part of no known name, read as each kind of part."""
    for reader in (_Paragraphs(), _OpenDocument(), _Sheet([]), _Flat()):
        try:
            reader.feed(content)
        except _Refused as refused:
            text.damaged = True
            text.cannot(refused.value)
            return
        if isinstance(reader, _Paragraphs):
            pieces = ["".join(reader.body), "".join(reader.boxes), "\n".join(reader.watermarks)]
        elif isinstance(reader, _OpenDocument):
            pieces = ["".join(lines) for lines in reader.out.values()]
        elif isinstance(reader, _Sheet):
            pieces = ["\n".join(reader.rows), "\n".join(reader.margins)]
        else:
            pieces = [reader.text()]
        text.unsure += [Segment(f"phần {name}", piece) for piece in pieces if piece.strip()]


def _ooxml(data: bytes, text: Text) -> None:
    if data.startswith(b"\xd0\xcf\x11\xe0"):  # [MS-OFFCRYPTO]: the package lies encrypted in a compound file
        text.encrypted = True
        text.cannot("encrypted")
        return
    package = _Package(data, text)
    upper = _capital_styles(package)
    fonts: set[str] = set()
    for pattern, where, zone in _PLACES:
        for number, name in enumerate(package.names(pattern), 1):
            part = _Paragraphs(upper)
            if not package.parse(name, part):
                continue
            slide = name.startswith("ppt/slides/")
            shown = f"{where} {number}" if slide else f"{where} ({name})" if zone != "body" else where
            text.add(shown, "".join(part.body), number if slide else None, zone)
            if "comments" in name and not part.body:
                flat = _Flat()
                package.parse(name, flat)
                text.add(shown, flat.text(), zone="comment")
            text.add(f"hộp văn bản ({name})", "".join(part.boxes), 1 if zone != "body" else None, "textbox")
            text.add(f"hình mờ ({name})", "\n".join(part.watermarks), 1, "watermark")
            text.add(f"mô tả hình ({name})", "\n".join(part.alternative), zone="property")
            fonts |= part.fonts
    _workbook(package, text, fonts)
    for name in package.names(r"docProps/(?:core|app|custom)\.xml|customXml/item\d+\.xml"):
        flat = _Flat()
        package.parse(name, flat)
        for line in flat.text().split("\n")[:500]:
            text.add(f"thuộc tính tệp ({name})", line, zone="property")
        for _, attributes in flat.tags:
            if "propertyTagName" in attributes:
                text.add(f"thuộc tính tệp ({name})", attributes["propertyTagName"], zone="property")
    for name in package.names(r"docProps/custom\.xml"):
        named = _Named()
        package.parse(name, named)
        for line in named.text().split("\n")[:500]:
            text.add(f"thuộc tính tệp ({name})", line, zone="property")
    for name in package.names(r"(?:word|ppt)/(?:fontTable|presProps)\.xml"):
        flat = _Flat()
        package.parse(name, flat)
        fonts |= {value for _, attributes in flat.tags for value in attributes.values() if len(value) < 60}
    text.fonts = legacy_fonts(sorted(fonts))
    _ooxml_active(package, text)
    _rest(package, text)


def _capital_styles(package: _Package) -> frozenset[str]:
    """Styles that show small letters as capitals: a mark typed in small letters may be seen in capitals."""
    result = set()
    for name in package.names(r"word/styles\.xml"):
        source = package.read(name).decode("utf-8", "replace")
        for found in re.finditer(r"<w:style\b[^>]*w:styleId=\"([^\"]+)\"[^>]*>(.*?)</w:style>", source, re.DOTALL):
            if re.search(r"<w:(?:caps|smallCaps)(?:\s*/>|\s+w:val=\"(?:1|true|on)\")", found[2]):
                result.add(found[1])
    return frozenset(result)


class _Sheet(_Xml):
    """Rows of a sheet as lines, cells parted by tabs; header and footer of the printed page."""

    def __init__(self, strings: list[str]) -> None:
        super().__init__()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.rows: list[str] = []
        self.margins: list[str] = []
        self._strings = strings
        self._cells: list[str] = []
        self._piece: list[str] = []
        self._kind, self._take, self._size = "", "", 0

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rsplit(":", 1)[-1]
        if name == "c":
            self._kind, self._piece = attributes.get("t", ""), []
        elif name in ("v", "t"):
            self._take = "cell"
        elif name in ("oddHeader", "evenHeader", "firstHeader", "oddFooter", "evenFooter", "firstFooter"):
            self._take, self._piece = "margin", []

    def _end(self, tag: str) -> None:
        name = tag.rsplit(":", 1)[-1]
        if name in ("v", "t"):
            self._take = ""
        elif name == "c":
            value = "".join(self._piece)
            if self._kind == "s":
                value = self._strings[int(value)] if value.isdigit() and int(value) < len(self._strings) else ""
            if value and self._size < MAX_TEXT:
                self._cells.append(value.replace("\n", " "))
                self._size += len(value)
        elif name == "row":
            if self._cells:
                self.rows.append("\t".join(self._cells))
                self._cells = []
        elif self._take == "margin":
            # `&L`, `&C`, `&R` begin the three parts; `&"font,style"`, `&12`, `&B` … are formatting
            value = re.sub(r"&\"[^\"]*\"|&\d+|&K[0-9A-F]{6}|&[BIUESXYPNDTFAZG&]", "", "".join(self._piece))
            self.margins.append(re.sub(r"&[LCR]", "\n", value))
            self._take = ""

    def _characters(self, text: str) -> None:
        if self._take:
            self._piece.append(text)


class _Strings(_Xml):
    def __init__(self) -> None:
        super().__init__()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.strings: list[str] = []
        self._piece: list[str] = []
        self._take = self._phonetic = False

    def _start(self, tag: str, _: dict[str, str]) -> None:
        name = tag.rsplit(":", 1)[-1]
        if name == "si":
            self._piece = []
        elif name == "t":
            self._take = not self._phonetic
        elif name == "rPh":
            self._phonetic = True

    def _end(self, tag: str) -> None:
        name = tag.rsplit(":", 1)[-1]
        if name == "si":
            self.strings.append("".join(self._piece))
        elif name == "t":
            self._take = False
        elif name == "rPh":
            self._phonetic = False

    def _characters(self, text: str) -> None:
        if self._take:
            self._piece.append(text)


def _workbook(package: _Package, text: Text, fonts: set[str]) -> None:
    sheets = package.names(r"xl/(?:worksheets|chartsheets|dialogsheets|macrosheets)/[^/]+\.xml")
    if not sheets and not package.names(r"xl/workbook\.(?:xml|bin)"):
        return
    strings = _Strings()
    for name in package.names(r"xl/sharedStrings\.xml"):
        package.parse(name, strings)
    for number, name in enumerate(sheets, 1):
        sheet = _Sheet(strings.strings)
        package.parse(name, sheet)
        text.add(f"trang tính {number}", "\n".join(sheet.rows), None, "body")
        text.add(f"đầu, cuối trang tính {number}", "\n".join(sheet.margins), None, "header")
    for name in package.names(r"xl/(?:comments\d*|threadedComments/[^/]+)\.xml"):
        flat = _Flat()
        package.parse(name, flat)
        text.add(f"nhận xét ({name})", flat.text(), zone="comment")
    for name in package.names(r"xl/workbook\.xml"):
        flat = _Flat()
        package.parse(name, flat)
        titles = [attributes.get("name", "") for tag, attributes in flat.tags if tag.rsplit(":", 1)[-1] == "sheet"]
        for title in titles:
            text.add("tên trang tính", title, zone="property")
        named = flat.text().split("\n")[:2000]
        text.unsure += [Segment("tên đã đặt", line.strip('"'), None, "property") for line in named]
    for name in package.names(r"xl/styles\.xml"):
        flat = _Flat()
        package.parse(name, flat)
        fonts |= {a["val"] for tag, a in flat.tags if tag.rsplit(":", 1)[-1] in ("name", "rFont") and "val" in a}
    if package.names(r"xl/workbook\.bin"):  # xlsb: cells are binary records
        _calamine(package.archive.fp.getvalue(), text)  # type: ignore[union-attr]
    if package.names(r"xl/macrosheets/.*"):
        text.active("macro", "xl/macrosheets")


def _ooxml_active(package: _Package, text: Text) -> None:
    for name, info in package.infos.items():
        lower = name.lower()
        if lower.endswith(("vbaproject.bin", "vbadata.xml")):
            text.active("macro", name)
        elif "/activex/" in lower:
            text.active("ole_object", name)
        elif "/embeddings/" in lower and not info.is_dir():
            content = package.read(name) if info.file_size <= 32 << 20 else b""
            text.active("ole_object", name) if not content.startswith(b"PK") else None
            if content:
                text.embedded.append((name.rsplit("/", 1)[-1], content))
        elif lower.endswith(".rels") and info.file_size < 1 << 20:
            source = package.read(name).decode("utf-8", "replace")
            for found in re.finditer(r"<Relationship\b[^>]*>", source):
                if re.search(r"TargetMode\s*=\s*\"External\"", found[0]) and re.search(
                    r"/(?:attachedTemplate|oleObject|frame|subDocument|externalLink(?:Path)?|mailMergeSource)\"",
                    found[0],
                ):
                    text.active("external_link", name)
                if re.search(r"/(?:vbaProject|wordVbaData|xl(?:Intl)?Macrosheet)\"", found[0]):
                    text.active("macro", name)
        elif lower == "word/document.xml" and info.file_size < 8 << 20:
            body = package.read(name)
            if re.search(rb"\bDDE(?:AUTO)?\b", body) and b"instrText" in body:
                text.active("external_link", name)


_ODF_LINES = frozenset(("text:p", "text:h", "svg:title", "svg:desc"))


class _OpenDocument(_Xml):
    """content.xml and styles.xml of OpenDocument: paragraphs, cells, frames, headers and footers of master pages."""

    def __init__(self) -> None:
        super().__init__()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.out: dict[str, list[str]] = {"body": [], "header": [], "footer": [], "textbox": [], "comment": []}
        self.fonts: set[str] = set()
        self._zones = ["body"]
        self._depth = self._in_cell = 0

    _ZONES: ClassVar[dict[str, str]] = {
        "style:header": "header", "style:header-left": "header", "style:header-first": "header",
        "style:footer": "footer",
        "style:footer-left": "footer", "style:footer-first": "footer", "draw:text-box": "textbox",
        "draw:custom-shape": "textbox", "office:annotation": "comment", "text:note": "footer",
    }  # fmt: skip

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in self._ZONES:
            self._zones.append(self._ZONES[tag])
        elif tag in _ODF_LINES:
            self._depth += 1
        elif tag in ("table:table-cell", "table:covered-table-cell"):
            self._in_cell += 1
        elif tag == "text:tab":
            self.out[self._zones[-1]].append("\t")
        elif tag == "text:line-break":
            self.out[self._zones[-1]].append("\n")
        elif tag == "text:s":
            count = attributes.get("text:c", "1")
            self.out[self._zones[-1]].append(" " * min(int(count) if count.isdigit() else 1, 200))
        elif tag == "style:font-face" or tag.endswith("text-properties"):
            for key in ("svg:font-family", "style:font-name", "fo:font-family", "style:name"):
                if key in attributes:
                    self.fonts.add(attributes[key].strip("'"))

    def _end(self, tag: str) -> None:
        if tag in self._ZONES:
            self.out[self._zones[-1]].append("\n")
            if len(self._zones) > 1:
                self._zones.pop()
        elif tag in _ODF_LINES:
            self._depth -= 1
            self.out[self._zones[-1]].append(" " if self._in_cell and self._zones[-1] == "body" else "\n")
        elif tag in ("table:table-cell", "table:covered-table-cell"):
            self._in_cell -= 1
            self.out[self._zones[-1]].append("\t")
        elif tag == "table:table-row":
            self.out[self._zones[-1]].append("\n")

    def _characters(self, text: str) -> None:
        if self._depth > 0:
            self.out[self._zones[-1]].append(text)


def _opendocument(data: bytes, text: Text) -> None:
    package = _Package(data, text)
    manifest = package.read("META-INF/manifest.xml") if "META-INF/manifest.xml" in package.infos else b""
    if b"encryption-data" in manifest:
        text.encrypted = True
        text.cannot("encrypted")
        return
    fonts: set[str] = set()
    labels = {
        "body": "nội dung",
        "header": "đầu trang",
        "footer": "cuối trang",
        "textbox": "hộp văn bản",
        "comment": "nhận xét",
    }
    for name in ("content.xml", "styles.xml"):
        if name not in package.infos:
            continue
        part = _OpenDocument()
        package.parse(name, part)
        for zone, pieces in part.out.items():
            text.add(labels[zone] if name == "content.xml" else f"{labels[zone]} ({name})", "".join(pieces), zone=zone)
        fonts |= part.fonts
    if "meta.xml" in package.infos:
        flat = _Flat()
        package.parse("meta.xml", flat)
        for line in flat.text().split("\n")[:200]:
            text.add("thuộc tính tệp (meta.xml)", line, zone="property")
    text.fonts = legacy_fonts(sorted(fonts))
    _rest(package, text)
    if any(re.match(r"(?:Basic|Scripts)/", name) and not name.endswith(".xlb") for name in package.infos):
        text.active("macro", "Basic")
    for name, info in package.infos.items():
        if re.match(r"Object[^/]*$", name) and not info.is_dir():
            text.active("ole_object", name)


_CODED = re.compile(rb">\s*+([A-Za-z0-9+/][A-Za-z0-9+/\s]{100,}+={0,2})\s*+<")


def _loose_base64(coded: bytes) -> bytes:
    letters = coded.translate(None, b" \t\r\n=")
    letters = letters[:-1] if len(letters) % 4 == 1 else letters
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


def _xml(data: bytes, text: Text) -> None:
    from gateway.inspection import containers

    flat = _Flat()
    raw = bytes(data[:MAX_XML])
    flat.feed(raw)
    text.add("nội dung", flat.text())
    text.unsure += _attributes(raw)
    _part(raw, "", text)
    for number, found in enumerate(_CODED.finditer(raw), 1):  # files in the text: edXML, flat Office
        content = _loose_base64(found[1])
        if containers.sniff(content) not in ("unknown", "txt") and len(text.embedded) < 200:
            text.embedded.append((f"tep-{number}", content))
    if any(tag.lower().rsplit(":", 1)[-1] == "script" for tag, _ in flat.tags):
        text.active("script", "XML")


# -- RTF -----------------------------------------------------------------------------------------------------------

_RTF = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z'])|([{}])|[\r\n]+|([^\\{}\r\n]+)|\\'|\\",
    re.DOTALL,
)
_RTF_BREAKS = {b"par": "\n", b"line": "\n", b"sect": "\n", b"page": "\n", b"row": "\n", b"cell": "\t", b"tab": "\t",
               b"nestcell": "\t", b"nestrow": "\n", b"emdash": "—", b"endash": "–", b"bullet": "•", b"lquote": "‘",
               b"rquote": "’", b"ldblquote": "“", b"rdblquote": "”", b"emspace": " ", b"enspace": " "}  # fmt: skip
_RTF_SKIP = frozenset(
    b"colortbl stylesheet pict themedata datastore latentstyles listtable listoverridetable rsidtbl xmlnstbl generator "
    b"filetbl revtbl colorschememapping mmathPr objdata blipuid pgptbl wgrffmtfilter fchars lchars sp sn".split()
)
_RTF_ZONES = {
    b"header": "header", b"headerl": "header", b"headerr": "header", b"headerf": "header", b"footer": "footer",
    b"footerl": "footer", b"footerr": "footer", b"footerf": "footer", b"footnote": "footer", b"annotation": "comment",
    b"shptxt": "textbox", b"sv": "watermark", b"info": "property", b"fonttbl": "fonts", b"htmltag": "page",
}  # fmt: skip
_FONT_CHARSETS = {163: "cp1258", 0: "", 1: "", 238: "cp1250", 204: "cp1251", 161: "cp1253", 128: "cp932", 134: "cp936"}


_HEX = re.compile(rb"[0-9A-Fa-f][0-9A-Fa-f\r\n]{8000,}+")


def _rtf(data: bytes, text: Text) -> None:
    """Own reader: control words, groups, `\\uN` with `\\ucN`, `\\'xx` in the charset of the font, destinations."""
    from gateway.inspection import containers

    codec, font = "cp1252", 0
    font_codecs: dict[int, str] = {}
    zone, skip, unicode_skip, pending = "body", False, 1, 0
    stack: list[tuple[str, bool, int, int, bool]] = []
    out: dict[str, list[str]] = {}
    page: list[str] = []  # what RTF in the clothes of HTML ([MS-OXRTFEX]) shows in a mail program
    raw = bytearray()
    starred = caps = False

    def flush() -> None:
        nonlocal raw
        if raw:
            chosen = font_codecs.get(font) or codec
            piece = bytes(raw).decode(chosen, "replace") if chosen != "cp1252" else vietnamese._western(bytes(raw))
            out.setdefault(zone, []).append(piece)
            if zone in ("body", "page"):
                page.append(piece)
            raw = bytearray()

    def put(piece: str) -> None:
        flush()
        if not skip:
            out.setdefault(zone, []).append(piece.upper() if caps else piece)
            if zone in ("body", "page"):
                page.append(piece)

    for found in _RTF.finditer(data):
        word, argument, code, symbol, brace, plain = found.groups()
        if word is not None:
            number = int(argument) if argument else None
            if word == b"u" and number is not None:
                point = number + 65536 if number < 0 else number
                put(chr(point) if 0 < point < 0x110000 else "")
                pending = unicode_skip
            elif word == b"uc":
                unicode_skip = min(number or 0, 20)
            elif word in _RTF_BREAKS:
                put(_RTF_BREAKS[word])
            elif word in _RTF_SKIP:
                if word == b"objdata":
                    text.active("ole_object", "RTF")
                flush()
                skip = True
            elif word in _RTF_ZONES:
                flush()
                zone, skip = _RTF_ZONES[word], False
                out.setdefault(zone, []).append("\n")
            elif word == b"ansicpg" and number:
                codec = f"cp{number}" if number in (874, 932, 936, 949, 950, *range(1250, 1259)) else "cp1252"
            elif word == b"f" and number is not None:
                flush()
                font = number
            elif word == b"fcharset" and number is not None and zone == "fonts":
                font_codecs[font] = _FONT_CHARSETS.get(number, "")
            elif word in (b"caps", b"scaps"):
                flush()
                caps = number != 0
            elif word in (b"plain", b"pard"):
                flush()
                caps = caps and word == b"pard"
            elif (word == b"bin" and number) or word in (b"objocx", b"objemb", b"objlink", b"objupdate"):
                text.active("ole_object", "RTF")
            elif starred and word not in (b"shpinst", b"background", b"fldinst", b"objclass", b"nesttableprops"):
                flush()
                skip = True
            starred = False
        elif code is not None:
            if pending:
                pending -= 1
            elif not skip:
                raw.append(int(code, 16))
        elif symbol is not None:
            if symbol == b"*":
                starred = True
            elif pending:
                pending -= 1
            elif symbol in (b"~", b"_", b"-", b"\n", b"\r"):
                put({b"~": "\u00a0", b"_": "-", b"-": ""}.get(symbol, "\n"))
            elif symbol in (b"\\", b"{", b"}"):
                put(symbol.decode())
        elif brace == b"{":
            flush()
            if len(stack) > 5000:
                raise _Refused("RTF groups nested too deep", "too_deep")
            stack.append((zone, skip, unicode_skip, font, caps))
            pending = 0
        elif brace == b"}":
            flush()
            if stack:
                left = zone
                zone, skip, unicode_skip, font, caps = stack.pop()
                if left != zone or zone == "property":
                    out.setdefault(left, []).append("\n")
            pending = 0
        elif plain is not None and not skip:
            if pending:
                plain, pending = plain[pending:], max(0, pending - len(plain))
            if caps:
                put(vietnamese._western(plain))
            else:
                raw += plain
        starred = starred and brace is None and plain is None
    flush()
    text.fonts = legacy_fonts([name.strip(" ;\n") for name in re.split(r"[;\n]", "".join(out.pop("fonts", [])))])
    labels = {"body": "nội dung", "header": "đầu trang", "footer": "cuối trang", "comment": "nhận xét",
        "textbox": "hộp văn bản",
              "watermark": "hình mờ", "property": "thuộc tính tệp"}  # fmt: skip
    if out.pop("page", None):
        text.unsure += markup.segments("".join(page), "nội dung")
    if b"\\pict" in data:
        for number, found in enumerate(itertools.islice(_HEX.finditer(data), 200), 1):
            picture = bytes.fromhex(found[0].decode() if len(found[0].translate(None, b"\r\n")) % 2 == 0 else "")
            if containers.sniff(picture) in _RASTER:
                text.pictures.append((f"hình-{number}", picture))
    for name, pieces in out.items():
        content = "".join(pieces)
        if name == "property":
            for line in content.split("\n"):
                text.add(labels[name], line, zone=name)
        else:
            text.add(labels[name], content, zone=name)


# -- legacy Office -------------------------------------------------------------------------------------------------


#: PNG and JPEG as they lie in the streams of legacy Office; what follows one does not disturb its reader.
_RASTER_START = re.compile(rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR|\xff\xd8\xff[\xe0\xe1\xdb]", re.DOTALL)


def _ole_common(ole: Any, text: Text) -> None:
    names = {"/".join(path) for path in ole.listdir(streams=True, storages=True)}
    lower = {name.lower() for name in names}
    if any(
        name.split("/")[0] in ("macros", "_vba_project_cur") or name.endswith("/vba") or name == "vba" for name in lower
    ):
        text.active("macro", "VBA")
    if any(part.startswith("_") and part[1:].isdigit() for name in names for part in name.split("/")) or any(
        name.endswith("\x01ole10native") for name in lower
    ):
        text.active("ole_object", "OLE")
    for stream in ("Data", "Pictures"):
        if stream in names:
            content = ole.openstream(stream).read()
            for number, found in enumerate(itertools.islice(_RASTER_START.finditer(content), 100), 1):
                text.pictures.append((f"hình-{number}", content[found.start() :]))
    for stream in ("\x05SummaryInformation", "\x05DocumentSummaryInformation"):
        if stream not in names:
            continue
        try:
            properties = ole.getproperties(stream, convert_time=False)
        except Exception:  # a broken property stream takes nothing else with it
            continue
        codepage = properties.get(1, 1252)
        codec = (
            "utf-8"
            if codepage in (65001, -535)
            else f"cp{codepage & 0xFFFF}"
            if isinstance(codepage, int)
            else "cp1252"
        )
        for value in properties.values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, bytes):
                    try:
                        one = one.decode(codec)
                    except (LookupError, UnicodeDecodeError):
                        one = vietnamese.decode(one)
                if isinstance(one, str):
                    text.add("thuộc tính tệp", one.strip("\0"), zone="property")


def _ole_open(data: bytes, text: Text) -> Any:
    import olefile

    ole = olefile.OleFileIO(io.BytesIO(data))
    if ole.exists("EncryptedPackage") or ole.exists("EncryptionInfo") or ole.exists("EncryptedSummary"):
        text.encrypted = True
        text.cannot("encrypted")
    return ole


_DOC_PARTS = (
    ("nội dung", "body"), ("chú thích", "footer"), ("đầu trang, cuối trang", "header"), ("macro", "comment"),
    ("nhận xét", "comment"), ("chú thích cuối", "footer"), ("hộp văn bản", "textbox"), ("hộp văn bản đầu trang",
    "textbox"),
)  # fmt: skip
_DOC_CONTROLS = str.maketrans(
    {"\r": "\n", "\x07": "\t", "\x0b": "\n", "\x0c": "\n", "\x0e": "\n", "\x1e": "-", "\x1f": "", "\xa0": " "}
    | {chr(n): "" for n in (0, 1, 2, 3, 4, 5, 6, 8, 19, 20, 21)}
)


def _doc(data: bytes, text: Text) -> None:
    """Word 97 to 2003 ([MS-DOC]): the piece table names the text of the body, notes, headers, comments and text boxes.

    Offsets in the FIB: flags 0A (0100 encrypted, 0200 which table stream), character counts 4C to 68, fcClx 1A2.
    """
    with _ole_open(data, text) as ole:
        if text.encrypted:
            return
        _ole_common(ole, text)
        word = ole.openstream("WordDocument").read()
        if len(word) < 0x1AA or word[:2] != b"\xec\xa5":
            if word[:2] in (b"\xdc\xa5", b"\x9b\xa5"):  # Word 6 and 95: the text lies in one run
                start, end = struct.unpack_from("<II", word, 0x18)
                text.add("nội dung", vietnamese._western(word[start:end]).translate(_DOC_CONTROLS))
                return
            raise _Refused("not a Word stream")
        flags = int.from_bytes(word[0x0A:0x0C], "little")
        if flags & 0x0100:
            text.encrypted = True
            text.cannot("encrypted")
            return
        table = ole.openstream("1Table" if flags & 0x0200 else "0Table").read()
        text.fonts = legacy_fonts(
            [
                found.decode("utf-16-le", "ignore")
                for found in re.findall(rb"(?:\.\0V\0n\0|V\0N\0I\0-\0)(?:[ -~]\0){1,30}", table)
            ]
        )
        counts = struct.unpack_from("<8i", word, 0x4C)
        at, size = struct.unpack_from("<II", word, 0x1A2)
        clx = table[at : at + size]
        position = 0
        while position < len(clx) and clx[position] == 1:  # Prc: formatting, of its own length
            position += 3 + int.from_bytes(clx[position + 1 : position + 3], "little")
        if position >= len(clx) or clx[position] != 2:
            raise _Refused("no piece table")
        length = int.from_bytes(clx[position + 1 : position + 5], "little")
        pieces = clx[position + 5 : position + 5 + length]
        number = (len(pieces) - 4) // 12
        starts = struct.unpack_from(f"<{number + 1}I", pieces, 0)
        everything = []
        for n in range(number):
            offset = int.from_bytes(pieces[4 * (number + 1) + 8 * n + 2 :][:4], "little")
            characters = max(0, min(starts[n + 1] - starts[n], MAX_TEXT))
            if offset & 0x40000000:
                begin = (offset & 0x3FFFFFFF) // 2
                everything.append(vietnamese._western(word[begin : begin + characters]))
            else:
                everything.append(word[offset : offset + 2 * characters].decode("utf-16-le", "replace"))
        content = "".join(everything)[:MAX_TEXT]
        begin = 0
        for (label, zone), count in zip(_DOC_PARTS, counts, strict=True):
            if count > 0:
                # Field codes stand between 13 and 14; what is shown between 14 and 15.
                shown = re.sub("\x13[^\x13\x14\x15]{0,500}\x14", "", content[begin : begin + count])
                text.add(label, shown.translate(_DOC_CONTROLS), zone=zone)
                begin += count
        if not text.segments and content:
            text.add("nội dung", content.translate(_DOC_CONTROLS))


def _calamine(data: bytes, text: Text) -> None:
    from python_calamine import CalamineWorkbook

    workbook = CalamineWorkbook.from_filelike(io.BytesIO(data))
    total = 0
    for number, name in enumerate(workbook.sheet_names, 1):
        text.add("tên trang tính", name, zone="property")
        rows = []
        for row in workbook.get_sheet_by_name(name).to_python(skip_empty_area=True):
            line = "\t".join(str(cell).replace("\n", " ") for cell in row if cell != "")
            if line:
                rows.append(line)
                total += len(line)
            if total > MAX_TEXT:
                break
        text.add(f"trang tính {number}", "\n".join(rows))


def _xls(data: bytes, text: Text) -> None:
    """Cells through calamine; FILEPASS (2F), headers and footers (14, 15), text boxes (1B6) from the BIFF records."""
    with _ole_open(data, text) as ole:
        if text.encrypted:
            return
        _ole_common(ole, text)
        name = "Workbook" if ole.exists("Workbook") else "Book"
        book = ole.openstream(name).read()
    position, margins, boxes, after_box = 0, [], [], False
    fonts = []
    while position + 4 <= len(book):
        kind, size = struct.unpack_from("<HH", book, position)
        body = book[position + 4 : position + 4 + size]
        position += 4 + size
        if kind == 0x2F:
            text.encrypted = True
            text.cannot("encrypted")
            return
        if kind in (0x14, 0x15) and len(body) > 3:
            count = int.from_bytes(body[:2], "little")
            value = (
                body[3 : 3 + 2 * count].decode("utf-16-le", "replace")
                if body[2] & 1
                else vietnamese._western(body[3 : 3 + count])
            )
            margins.append(re.sub(r"&[LCR]", "\n", re.sub(r"&\"[^\"]*\"|&\d+|&[BIUESXYPNDTFA]", "", value)))
        elif kind == 0x1B6:
            after_box = True
        elif kind == 0x3C and after_box and len(body) > 1:
            boxes.append(body[1:].decode("utf-16-le", "replace") if body[0] & 1 else vietnamese._western(body[1:]))
            after_box = False
        elif kind == 0x31 and len(body) > 16:
            count = body[14]
            fonts.append(
                body[16 : 16 + 2 * count].decode("utf-16-le", "replace")
                if body[15] & 1
                else body[16 : 16 + count].decode("latin-1")
            )
        elif kind in (0x18, 0x85) and kind == 0x85 and len(body) > 8 and body[5] in (1, 6):
            text.active("macro", "XLM")
    text.add("đầu, cuối trang tính", "\n".join(margins), zone="header")
    text.add("hộp văn bản", "\n".join(boxes), zone="textbox")
    text.fonts = legacy_fonts(fonts)
    _calamine(data, text)


def _ppt(data: bytes, text: Text) -> None:
    """PowerPoint 97 to 2003 ([MS-PPT]): text atoms 0FA0 (UTF-16), 0FA8 (Latin-1), 0FBA in the records of the stream."""
    with _ole_open(data, text) as ole:
        if ole.exists("Current User"):
            user = ole.openstream("Current User").read(16)
            if len(user) >= 16 and user[12:16] == b"\xdf\xc4\xd1\xf3":  # headerToken of an encrypted file
                text.encrypted = True
                text.cannot("encrypted")
        if text.encrypted:
            return
        _ole_common(ole, text)
        stream = ole.openstream("PowerPoint Document").read()
    lines: list[str] = []
    position = 0
    while position + 8 <= len(stream):
        version, kind, size = struct.unpack_from("<HHI", stream, position)
        position += 8
        if version & 0xF == 0xF:
            continue  # a container: its records follow
        body = stream[position : position + size]
        if kind == 0x0FA0 or (kind == 0x0FBA and size < 2000):
            lines.append(body.decode("utf-16-le", "replace"))
        elif kind == 0x0FA8:
            lines.append(vietnamese._western(body))
        position += size
    text.add("trang chiếu", "\n".join(lines).replace("\r", "\n").replace("\x0b", "\n"))


def _ole_unknown(data: bytes, text: Text) -> None:
    with _ole_open(data, text) as ole:
        _ole_common(ole, text)


# -- PDF -----------------------------------------------------------------------------------------------------------

#: Names of active content, and what they are called here. An action counts wherever it hangs.
_ACTIONS = {
    "/JavaScript": "javascript", "/JS": "javascript", "/Launch": "launch", "/RichMedia": "richmedia",
    "/RichMediaContent": "richmedia", "/Movie": "richmedia", "/3D": "richmedia", "/Rendition": "richmedia",
    "/XFA": "xfa", "/GoToE": "external_link", "/ImportData": "external_link", "/SubmitForm": "external_link",
    "/EmbeddedFile": "embedded_file", "/EmbeddedFiles": "embedded_file",
}  # fmt: skip
_NAMES = re.compile(rb"/(?:" + b"|".join(name[1:].encode() for name in _ACTIONS) + rb")(?=[\s/(<>\[\]{}%]|$)")
#: Letters, with the slash, up to which a name is met by chance in compressed bytes: `/JS`, `/3D`, `/XFA`.
_CHANCE = 4
#: What makes a whole walk worth its time though no such name was seen: additional actions, encrypted strings and object
#: streams.
_WALK = re.compile(rb"/(?:AA|Encrypt|FileAttachment|EF)(?=[\s/(<\[])")
#: A name with escaped letters in a dictionary: nobody who means well writes `/J#53`, so the file is walked.
_ESCAPED = re.compile(rb"/[A-Za-z]{0,15}#[4-7][0-9A-Fa-f]")
#: A name with any escape, whole: compressed bytes hold many by chance, so there it counts only for what it spells.
_ESCAPED_NAME = re.compile(rb"/[^\s\0/()<>\[\]{}%#]{0,64}#[0-9A-Fa-f][^\s\0/()<>\[\]{}%]{1,64}")
_ESCAPE = re.compile(rb"#([0-9a-fA-F]{2})")
_STRUCTURE = re.compile(rb"/(?:Info|Metadata|AcroForm|OpenAction)(?=[\s/(<\[\d])")
#: Actions that a document may not start by itself; going to one of its own pages is harmless.
_STARTED = frozenset(
    {"/JavaScript", "/Launch", "/SubmitForm", "/ImportData", "/GoToR", "/GoToE", "/URI", "/Rendition", "/Movie"}
)
#: Objects walked in one PDF, and bytes of embedded files taken from it.
MAX_OBJECTS, MAX_EMBEDDED = 30_000, 64 << 20
_STREAM = re.compile(rb"stream\r?\n")
_OBJECT_STREAM = b"/ObjStm"


def _unescaped(names: bytes) -> bytes:
    """Names as they are meant (ISO 32000-1, 7.3.5)."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), names)


def _pdf_names(data: bytes) -> tuple[bytes, bool]:
    """The dictionaries of a PDF as plain bytes: outside streams, and inside object streams, inflated within limits; and
    whether all object streams could be read."""
    pieces, position, inflated, whole = [], 0, 0, True
    while found := _STREAM.search(data, position):
        header = data[position : found.start()]
        pieces.append(header)
        end = data.find(b"endstream", found.end())
        if end < 0:
            end = len(data)
        if _OBJECT_STREAM in header:
            content = b""
            if inflated < 32 << 20:
                with contextlib.suppress(zlib.error):
                    content = zlib.decompressobj().decompress(data[found.end() : end], 4 << 20)
            whole = whole and bool(content)
            inflated += len(content)
            pieces.append(content)
        elif data.find(_OBJECT_STREAM, found.end(), end) >= 0:  # that was no stream: a comment, a string
            whole = False
        position = end + len(b"endstream")
    pieces.append(data[position:])
    return b"\n".join(pieces), whole


def _pdf(data: bytes, text: Text) -> None:
    import pypdfium2 as pdfium
    import pypdfium2.raw as raw

    start = data[:1024].find(b"%PDF-")
    written, whole = _pdf_names(data)
    names = _unescaped(written)
    # What looks like a stream may be read as objects by another program, so all bytes are searched. Compressed bytes
    # spell `/JS` or `/3D` by chance once in 150 MB, which is a hundred scans: there, short names count only if the walk
    # meets them.
    hidden = _unescaped(b" ".join([*_ESCAPED_NAME.findall(data), b""]))
    anywhere = set(_NAMES.findall(data)) | set(_NAMES.findall(hidden))
    told = set(_NAMES.findall(names)) | {name for name in anywhere if len(name) > _CHANCE}
    seen = {_ACTIONS["/" + name.decode()[1:]] for name in told}
    walk = bool(anywhere or seen or not whole or _ESCAPED.search(written) or _OBJECT_STREAM in hidden)
    walk = walk or any(_WALK.search(one) for one in (names, data, hidden)) or bool(_STRUCTURE.search(hidden))
    if walk or _STRUCTURE.search(names):
        try:
            _pdf_structure(data if start <= 0 else data[start:], text, walk=walk)
        except Exception as error:  # pypdf on broken files raises anything; what the bytes said stands
            text.reason = f"structure: {type(error).__name__}"
            if walk and not whole:
                text.cannot("unknown_container")
    for value in sorted(seen):  # in an older revision or an object that nothing refers to: told all the same
        text.active(value, "PDF")
    text.fonts = legacy_fonts(
        [f.decode("latin-1") for f in re.findall(rb"/(?:BaseFont|FontName)\s*/([^\s/<>\[\]()]{3,60})", names)]
    )
    try:
        document = pdfium.PdfDocument(data if start <= 0 else data[start:])
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            text.encrypted = True
            text.cannot("encrypted")
            text.reason = "password required"
        else:
            text.damaged = True
            text.cannot("unknown_container")
            text.reason = "PDFium cannot open it"
        return
    try:
        _pdf_document(document, raw, text)
    finally:
        document.close()


def _pdf_document(document: Any, raw: Any, text: Text) -> None:
    count = len(document)
    text.pages = count
    with contextlib.suppress(Exception):  # bookmarks and labels of broken files say nothing
        told = [item.get_title() for item in itertools.islice(document.get_toc(max_depth=6), 1000)]
        told += [document.get_page_label(n) for n in range(min(count, 50))]
        told = [one[:500] for one in dict.fromkeys(told) if len(one) > 2]
        text.unsure += [Segment("dấu trang", one, None, "property") for one in told]
    if count == 0:
        text.damaged = True
        text.cannot("unknown_container")
        return
    letters = characters = 0
    for number in range(min(count, MAX_PAGES)):
        try:
            page = document[number]
        except Exception:
            text.damaged = True
            continue
        try:
            content = _pdf_page(document, page, raw, number, count, text)
        finally:
            page.close()
        characters += len(content)
        letters += sum(map(str.isalpha, content[:2000]))
        text.add(f"trang {number + 1}", content, number + 1)
        if characters > MAX_TEXT:
            text.cannot("too_large")
            break
    if count > MAX_PAGES:
        text.cannot("too_large")
    body = "\n".join(segment.text for segment in text.segments if segment.page is not None and segment.zone == "body")
    # Fewer than 20 letters a page (a stamp, a page number) is a scan without recognised text.
    text.layer = "none" if letters < 20 * min(count, 10) else "garbage" if is_garbage(body) else "full"


def _pdf_structure(data: bytes, text: Text, *, walk: bool) -> None:
    """What is no page content, through pypdf: document information, XMP, form fields, what opening the file starts; and
    with `walk` every object that can be reached, for actions and embedded files with their places."""
    from pypdf import PdfReader
    from pypdf.errors import PdfReadError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its remarks about odd files go to nobody
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
    except PdfReadError:  # no end: with one that leads nowhere it looks for the objects by itself, as PDFium does
        reader = PdfReader(io.BytesIO(data + b"\nstartxref\n0\n%%EOF\n"), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        return  # PDFium says so too
    for key, value in (reader.metadata or {}).items():
        if isinstance(value, str) and not key.endswith("Date"):
            text.add("thuộc tính tệp", value[:20_000].strip("\0"), zone="property")
    root = reader.root_object
    described = _resolved(root.get("/Metadata"))
    if described is not None and hasattr(described, "get_data"):
        flat = _Flat()
        with contextlib.suppress(_Refused):
            flat.feed(described.get_data()[: 1 << 20])
        attributes = (value for _, one in flat.tags for value in one.values())
        values = itertools.chain(flat.text().split("\n"), attributes)
        for value in dict.fromkeys(value.strip() for value in values):
            if not value.startswith(("http://", "adobe:ns")):
                text.add("thuộc tính tệp (XMP)", value, zone="property")
    form = _resolved(root.get("/AcroForm"))
    if isinstance(form, dict):
        _pdf_fields(form.get("/Fields"), text)
    opened = _resolved(root.get("/OpenAction"))
    if isinstance(opened, dict) and opened.get("/S") in _STARTED:
        text.active("openaction", "PDF")
    if walk:
        _pdf_walk(reader, text)


def _resolved(thing: Any) -> Any:
    return thing.get_object() if hasattr(thing, "get_object") else thing


def _pdf_fields(fields: Any, text: Text) -> None:
    """Values of form fields, shown on a page or not. Signature fields hold no text and are large: not opened."""
    stack, count = list(_resolved(fields) or [])[:2000], 0
    while stack and count < 5000:
        count += 1
        field = _resolved(stack.pop())
        if not isinstance(field, dict) or field.get("/FT") == "/Sig":
            continue
        for key in ("/V", "/DV", "/TU"):
            value = _resolved(field.get(key))
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str) and not one.startswith("/"):
                    text.add("ô nhập", one[:20_000], None, "form")
        stack += list(_resolved(field.get("/Kids")) or [])[:2000]


def _pdf_walk(reader: Any, text: Text) -> None:
    """Breadth first over all that the catalogue leads to; pages are numbered for the reader."""
    from pypdf.generic import DictionaryObject, IndirectObject

    pages = {}
    for number, page in enumerate(itertools.islice(reader.pages, MAX_PAGES), 1):
        if page.indirect_reference is not None:
            pages[page.indirect_reference.idnum] = f"trang {number}"
    waiting: deque[tuple[Any, str]] = deque([(reader.root_object, "PDF")])
    known: set[tuple[int, int]] = set()
    taken: set[int] = set()
    while waiting:
        thing, where = waiting.popleft()
        if isinstance(thing, IndirectObject):
            if (thing.idnum, thing.generation) in known:
                continue
            known.add((thing.idnum, thing.generation))
            if len(known) > MAX_OBJECTS:
                text.cannot("too_many")
                return
            where = pages.get(thing.idnum, where)
            try:
                thing = thing.get_object()
            except Exception:  # one broken object hides no other
                continue
        if isinstance(thing, DictionaryObject):
            for name in {thing.get("/S"), thing.get("/Subtype"), *thing} & _ACTIONS.keys():
                if name != "/EmbeddedFile" and name != "/EmbeddedFiles":
                    text.active(_ACTIONS[name], where)
            actions = _resolved(thing.get("/AA"))
            for action in actions.values() if isinstance(actions, dict) else ():
                if isinstance(action := _resolved(action), dict) and action.get("/S") in _STARTED:
                    text.active("openaction", where)
            if "/EF" in thing:
                _pdf_embedded(thing, where, text, taken)
            waiting.extend((value, where) for key, value in thing.items() if key not in ("/Parent", "/P"))
        elif isinstance(thing, list):
            waiting.extend((value, where) for value in thing)


def _pdf_embedded(specification: Any, where: str, text: Text, taken: set[int]) -> None:
    """The file of a file specification (ISO 32000-1, 7.11.4), from the name tree or an annotation."""
    name = next((str(v) for k in ("/UF", "/F") if isinstance(v := _resolved(specification.get(k)), str)), "")
    files = _resolved(specification["/EF"])
    for stream in {id(one): one for value in files.values() if (one := _resolved(value)) is not None}.values():
        if id(stream) in taken or not hasattr(stream, "get_data"):
            continue
        taken.add(id(stream))
        text.active("embedded_file", name or where)
        content = stream.get_data()
        if len(text.embedded) >= 200 or sum(len(data) for _, data in text.embedded) + len(content) > MAX_EMBEDDED:
            text.cannot("too_large")
            return
        text.embedded.append((vietnamese.nfc(name or f"tep-kem-{len(text.embedded) + 1}"), content))


def _pdf_page(document: Any, page: Any, raw: Any, number: int, count: int, text: Text) -> str:
    """One page. Signature boxes and stamps are annotations: in real signed documents the number and the date are put on
    as such, into gaps of the printed text. The page is flattened in memory, so that they are read in their place."""
    annotated = _pdf_annotations(page, raw, number, text)
    if annotated and raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY) == raw.FLATTEN_SUCCESS:
        page.close()
        page = document[number]
    textpage = page.get_textpage()
    try:
        content = textpage.get_text_range()
        if annotated or number < 2 or number == count - 1 or "Nơi nhận" in content:
            content = _laid_out(textpage, content, raw)
        return content.replace("\r\n", "\n").replace("\ufffe", "-")
    finally:
        textpage.close()


def _pdf_annotations(page: Any, raw: Any, number: int, text: Text) -> bool:
    """Notes the texts of annotations; says whether the page has any that show something (not a link)."""
    import ctypes

    count = raw.FPDFPage_GetAnnotCount(page)
    shown = False
    for n in range(min(count, 500)):
        annotation = raw.FPDFPage_GetAnnot(page, n)
        if not annotation:
            continue
        subtype = raw.FPDFAnnot_GetSubtype(annotation)
        if subtype not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP):
            shown = True
            if subtype == raw.FPDF_ANNOT_RICHMEDIA:
                text.active("richmedia", f"trang {number + 1}")
            elif subtype == raw.FPDF_ANNOT_FILEATTACHMENT:
                text.active("embedded_file", f"trang {number + 1}")
            for key in (b"Contents", b"T", b"Subj", b"V", b"Name", b"DV"):
                if key == b"T" and subtype == raw.FPDF_ANNOT_WIDGET:
                    continue  # name of a form field
                size = raw.FPDFAnnot_GetStringValue(annotation, key, None, 0)
                if 2 < size < 200_000:
                    buffer = (ctypes.c_ushort * (size // 2 + 1))()
                    raw.FPDFAnnot_GetStringValue(annotation, key, buffer, size)
                    value = bytes(buffer)[: size - 2].decode("utf-16-le", "replace")
                    zone = "form" if subtype == raw.FPDF_ANNOT_WIDGET else "annotation"
                    text.add(
                        f"ghi chú trang {number + 1}" if zone == "annotation" else f"ô nhập trang {number + 1}",
                        value,
                        number + 1,
                        zone,
                    )
        raw.FPDFPage_CloseAnnot(annotation)
    return shown


_WORDS = re.compile(r"[^\s\ufffe]+")
#: A gap wider than this many times the height of a word parts columns; justified Vietnamese text stays below.
COLUMN_GAP = 1.3
#: Sine of twice the angle from which a letter counts as slanted, neither along nor across the page: about 8 degrees.
SLANT = 0.27
#: Lines further apart than this many times the usual step of the page have a gap between them.
GAP = 1.22


def _laid_out(textpage: Any, content: str, raw: Any) -> str:
    """The words of a page in lines by their place, with a tab where columns part.

    PDFium gives text in the order it was drawn: a number stamped in last would stand last. Falls back to that order
    where characters and places cannot be matched.
    """
    if len(content) != textpage.count_chars() or len(content) > 20_000:
        return content
    rectangle, matrix = raw.FS_RECTF(), raw.FS_MATRIX()
    handle, box = textpage.raw, raw.FPDFText_GetLooseCharBox  # the same height for all letters of a font
    words: list[tuple[float, float, float, float, str]] = []  # middle, height, left, right, word
    slanted: list[str] = []  # a watermark: its letters stand on as many lines, so it keeps the order it was drawn in
    for found in _WORDS.finditer(content):
        first, last = found.start(), found.end() - 1
        # The direction of the line, not PDFium's angle of the letter: an italic made from upright letters leans, too.
        placed = raw.FPDFText_GetMatrix(handle, first, matrix)
        if placed and abs(math.sin(2 * math.atan2(matrix.b, matrix.a))) > SLANT:
            slanted.append(found[0])
            continue
        if not box(handle, first, rectangle):
            return content
        x0, x1, y0, y1 = rectangle.left, rectangle.right, rectangle.bottom, rectangle.top
        if first != last:
            if not box(handle, last, rectangle):
                return content
            x1 = rectangle.right
        words.append(((y0 + y1) / 2, y1 - y0, x0, x1, found[0]))
    if not words:
        return content
    if slanted:
        slanted = ["", " ".join(slanted)]
    heights = sorted(word[1] for word in words)
    usual = max(heights[len(heights) // 2], 4.0)
    lines: list[list[tuple[float, float, float, float, str]]] = []
    for word in sorted(words, key=lambda one: -one[0]):
        for line in lines[-3:][::-1]:
            # Numbers stamped into a gap stand a little higher or lower, in another size.
            if abs(line[0][0] - word[0]) < 0.4 * max(min(line[0][1], word[1]), 0.7 * usual):
                line.append(word)
                break
        else:
            lines.append([word])
    result: list[str] = []
    steps = sorted(one[0][0] - two[0][0] for one, two in itertools.pairwise(lines))
    gap = GAP * steps[len(steps) // 2] if len(steps) > 4 else float("inf")
    for number, line in enumerate(lines):
        if number and lines[number - 1][0][0] - line[0][0] > gap:
            result.append("")
        line.sort(key=lambda one: one[2])
        pieces = [line[0][4]]
        for before, word in itertools.pairwise(line):
            pieces.append("\t" if word[2] - before[3] > COLUMN_GAP * usual else " ")
            pieces.append(word[4])
        result.append("".join(pieces))
    return "\n".join([*result, *slanted])


READERS: dict[str, Any] = {
    "pdf": _pdf, "docx": _ooxml, "xlsx": _ooxml, "pptx": _ooxml, "vsdx": _ooxml, "odt": _opendocument,
    "ods": _opendocument,
    "odp": _opendocument, "odg": _opendocument, "rtf": _rtf, "html": _html, "txt": _plain, "csv": _plain,
    "json": _plain,
    "ics": _card, "vcf": _card, "xml": _xml, "svg": _xml, "doc": _doc, "xls": _xls, "ppt": _ppt, "ole": _ole_unknown,
    "sh": _plain, "py": _plain, "pgp": _plain, "bat": _plain,
}  # fmt: skip
