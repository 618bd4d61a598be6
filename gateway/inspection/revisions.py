"""The revisions of a PDF, as far as judging its signatures needs them: which object is where in which revision.

ISO 32000-1 sections 7.2 to 7.5. A signature is about bytes, a reader is about objects: the attacks live in the gap
(reliability.md section 4). So this reader is strict where readers differ and tells what it had to tolerate in `notes`;
what it cannot read in one way only raises `Malformed`. It parses objects on demand: judging a signature touches a few
dozen objects of a file that has thousands, which is what makes it fast.
"""

from __future__ import annotations

import bisect
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Limits against made-up files: revisions, objects of one file, depth of nested arrays, bytes of an unpacked stream.
MAX_SECTIONS = 512
MAX_OBJECTS = 2_000_000
MAX_DEPTH = 64
MAX_STREAM = 64 << 20
#: How far into the file `%PDF-` may stand (Acrobat's implementation note 13 to PDF 1.7, annex H.3).
HEADER_WITHIN = 1024

WHITE = b"\0\t\n\f\r "


class Malformed(Exception):
    """The file cannot be read, or readers would not agree on what it says."""


class Ref(NamedTuple):
    """An indirect reference."""

    number: int
    generation: int


class Name(str):
    """A name object, without its slash."""

    __slots__ = ()


class Dict(dict[str, Any]):
    """A dictionary. spans: where the raw value of `Contents` stands in the file (start, end); doubled: keys given twice
    with different values."""

    __slots__ = ("doubled", "spans")

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[str, tuple[int, int]] = {}
        self.doubled: tuple[str, ...] = ()


class Keyword(bytes):
    """A bare word that is no value: `endobj`, `stream`."""

    __slots__ = ()


@dataclass(slots=True)
class Stream:
    """A stream: its dictionary and where its encoded data begins."""

    head: Dict
    start: int
    number: int = 0
    generation: int = 0


@dataclass(slots=True)
class Section:
    """One cross-reference section. entries: object number to (kind, a, b): 0 free; 1 offset and generation; 2 object
    stream and index. hybrid: the entries of a hybrid section's stream, seen by readers of PDF 1.5 and
    later."""

    offset: int
    entries: dict[int, tuple[int, int, int]]
    trailer: Dict
    hybrid: dict[int, tuple[int, int, int]] = field(default_factory=dict)


_TOKEN = re.compile(
    rb"(?:[\0\t\n\f\r ]+|%[^\r\n]*)*(?:"
    rb"(?P<name>/[^\0\t\n\f\r ()<>\[\]{}/%]*)"
    rb"|(?P<ref>[0-9]{1,10}[\0\t\n\f\r ]+[0-9]{1,5}[\0\t\n\f\r ]+R(?![^\0\t\n\f\r ()<>\[\]{}/%]))"
    rb"|(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?=[\0\t\n\f\r ()<>\[\]{}/%]|$))"
    rb"|(?P<open><<)|(?P<close>>>)|(?P<hex><[0-9A-Fa-f\0\t\n\f\r ]*>)"
    rb"|(?P<array>\[)|(?P<end>\])|(?P<string>\()"
    rb"|(?P<word>[^\0\t\n\f\r ()<>\[\]{}/%]+)"
    rb")"
)
_ESCAPED = re.compile(rb"#([0-9A-Fa-f]{2})")
_HEADER = re.compile(rb"[\0\t\n\f\r ]*([0-9]{1,10})[\0\t\n\f\r ]+([0-9]{1,5})[\0\t\n\f\r ]+obj")
_STRING = re.compile(rb"[()\\]")
_WORDS = {b"true": True, b"false": False, b"null": None}
_STARTXREF = re.compile(rb"startxref[\0\t\n\f\r ]+([0-9]{1,12})[\0\t\n\f\r ]*(?:%%EOF)?")
_SUBSECTION = re.compile(rb"[\0\t\n\f\r ]*([0-9]{1,10})[\0\t\n\f\r ]+([0-9]{1,10})[\0\t\n\f\r ]+")
_ENTRY = re.compile(rb"[\0\t\n\f\r ]*([0-9]{1,10})[\0\t\n\f\r ]+([0-9]{1,5})[\0\t\n\f\r ]+([nf])")

END = object()


class Parser:
    """Values of PDF syntax from bytes, one after the other. Raises Malformed."""

    __slots__ = ("at", "data", "depth", "doubled", "limit")

    def __init__(self, data: bytes, at: int = 0, limit: int | None = None) -> None:
        self.data = data
        self.at = at
        self.limit = len(data) if limit is None else limit
        self.depth = 0
        self.doubled = False

    def value(self) -> Any:
        """The next value, a Keyword, or END for a closing bracket or the end of the data."""
        match = _TOKEN.match(self.data, self.at, self.limit)
        if match is None:
            return END
        kind = match.lastgroup
        self.at = match.end()
        if kind == "name":
            raw = match["name"][1:]
            if b"#" in raw:
                raw = _ESCAPED.sub(lambda part: bytes([int(part[1], 16)]), raw)
            return Name(raw.decode("latin-1"))
        if kind == "ref":
            number, generation, _ = match["ref"].split()
            return Ref(int(number), int(generation))
        if kind == "number":
            raw = match["number"]
            return float(raw) if b"." in raw else int(raw[:20])
        if kind == "open":
            return self._dictionary()
        if kind == "hex":
            digits = match["hex"][1:-1].translate(None, WHITE)
            return bytes.fromhex((digits + b"0" if len(digits) % 2 else digits).decode())
        if kind == "array":
            self._deeper()
            items = []
            while (item := self.value()) is not END:
                if isinstance(item, Keyword):
                    raise Malformed(f"unexpected word {item[:20]!r} in an array")
                items.append(item)
            if self.data[self.at - 1 : self.at] != b"]":
                raise Malformed("array is not closed")
            self.depth -= 1
            return items
        if kind == "string":
            return self._string()
        if kind == "word":
            word = match["word"]
            return _WORDS[word] if word in _WORDS else Keyword(word)
        return END  # `>>` or `]`

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Malformed("nested too deeply")

    def _dictionary(self) -> Dict:
        self._deeper()
        result = Dict()
        while (key := self.value()) is not END:
            if not isinstance(key, Name):
                raise Malformed(f"dictionary key is no name near {self.at}")
            before = self.at
            item = self.value()
            if item is END or isinstance(item, Keyword):
                raise Malformed(f"dictionary value is missing near {self.at}")
            if key in result and result[key] != item:
                result.doubled += (str(key),)
            if key == "Contents":
                while self.data[before : before + 1] in (b"\0", b"\t", b"\n", b"\f", b"\r", b" "):
                    before += 1
                result.spans[key] = (before, self.at)
            result[str(key)] = item
        if self.data[self.at - 2 : self.at] != b">>":
            raise Malformed("dictionary is not closed")
        self.depth -= 1
        return result

    def _string(self) -> bytes:
        level, out, start = 1, bytearray(), self.at
        while True:
            match = _STRING.search(self.data, self.at, self.limit)
            if match is None:
                raise Malformed("string is not closed")
            self.at = match.end()
            sign = match[0]
            if sign == b"(":
                level += 1
            elif sign == b")":
                level -= 1
                if level == 0:
                    out += self.data[start : self.at - 1]
                    return bytes(out)
            else:
                out += self.data[start : self.at - 1]
                out += self._escape()
                start = self.at

    def _escape(self) -> bytes:
        sign = self.data[self.at : self.at + 1]
        octal = re.compile(rb"[0-7]{1,3}").match(self.data, self.at, self.limit)
        if octal:
            self.at = octal.end()
            return bytes([int(octal[0], 8) & 0xFF])
        self.at += 1
        if sign == b"\r":
            if self.data[self.at : self.at + 1] == b"\n":
                self.at += 1
            return b""
        if sign == b"\n":
            return b""
        return {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}.get(sign, sign)


class Document:
    """A PDF file with all its revisions. `data` begins at `%PDF-`; `shift` bytes of junk stood before it."""

    def __init__(self, data: bytes) -> None:
        self.notes: list[str] = []
        self.shift = data.find(b"%PDF-", 0, HEADER_WITHIN + 5)
        if self.shift < 0:
            raise Malformed("no %PDF- header")
        if self.shift:
            data = self._without_junk(data)
        self.data = data
        self._objects: dict[tuple[int, int], Any] = {}
        self._unpacked: dict[int, tuple[bytes, list[tuple[int, int]]]] = {}
        self._trailers: list[tuple[int, int]] = []  # where tables with their trailers and cross-reference streams stand
        self._listed: dict[int, set[int]] | None = None
        self._references: dict[int, list[int]] | None = None
        self._packed_references: dict[int, dict[int, list[int]]] = {}
        self._owners: list[tuple[int, int]] = []
        self.decoded: Callable[[Stream], bytes] | None = None  # how streams of an encrypted file are read
        self.sections = self._chain(self.last_startxref(len(data)), len(data))
        self.latest = View(self, 0)

    def _without_junk(self, data: bytes) -> bytes:
        """Bytes before the header. Harmless when only one reading exists: offsets count from `%PDF-` for every reader
        that can open the file at all, because counted from the first byte no cross-reference section is found."""
        junk, body = data[: self.shift], data[self.shift :]
        absolute = _last_number(data, len(data))
        if b"obj" in junk or b"xref" in junk or (absolute is not None and _section_at(data, absolute)):
            if absolute is not None and not _section_at(body, absolute):
                # offsets count from the first byte: the junk is a part of the file, and signed with it
                self.notes.append(f"{self.shift} bytes before %PDF-, counted in the offsets")
                self.shift = 0
                return data
            raise Malformed("two readings: bytes before %PDF- hold another file")
        self.notes.append(f"{len(junk)} bytes of junk before %PDF-, not signed and not read")
        return body

    def last_startxref(self, end: int) -> int:
        """The offset that the last `startxref` before `end` names."""
        found = _last_number(self.data, end)
        if found is None:
            raise Malformed("no startxref")
        return found

    def _chain(self, offset: int, limit: int) -> list[Section]:
        """All sections from `offset` back to the first one, newest first."""
        sections: list[Section] = []
        seen: set[int] = set()
        while True:
            if offset in seen or len(sections) >= MAX_SECTIONS:
                raise Malformed("cross-reference sections form a loop")
            seen.add(offset)
            section = self._section(offset, limit)
            sections.append(section)
            previous = section.trailer.get("Prev")
            if previous is None or previous == 0:  # some writers say 0 for none; no section can be there
                break
            if not isinstance(previous, int) or not 0 < previous < limit:
                raise Malformed("/Prev is no offset")
            offset = previous
        streams: set[Any] = set()
        for section in reversed(sections):
            stream = section.trailer.get("XRefStm")
            if stream is not None and stream in streams:
                # Signing tools copy the old trailer with its /XRefStm. What that stream says was said by the older
                # section already; taking it again could only hide the newer objects behind the signed ones.
                section.hybrid = {}
            streams.add(stream)
        return sections

    def _section(self, offset: int, limit: int) -> Section:
        data = self.data
        position = offset
        while data[position : position + 1] in (b"\0", b"\t", b"\n", b"\f", b"\r", b" ") and position < limit:
            position += 1
        if data.startswith(b"xref", position):
            section = self._table(offset, position + 4)
            stream = section.trailer.get("XRefStm")
            if stream is not None:
                if not isinstance(stream, int) or not 0 < stream < limit:
                    raise Malformed("/XRefStm is no offset")
                section.hybrid = self._stream_section(stream).entries
            return section
        return self._stream_section(offset)

    def _table(self, offset: int, position: int) -> Section:
        data = self.data
        entries: dict[int, tuple[int, int, int]] = {}
        while True:
            head = _SUBSECTION.match(data, position)
            if head is None:
                break
            first, count = int(head[1]), int(head[2])
            if count > MAX_OBJECTS or len(entries) > MAX_OBJECTS:
                raise Malformed("too many objects")
            position = head.end()
            rows = data[position : position + 20 * count]
            if len(rows) == 20 * count and all(rows[17 + 20 * n : 18 + 20 * n] in (b"n", b"f") for n in range(count)):
                for n in range(count):  # the fixed form: 20 bytes a row
                    row = rows[20 * n : 20 * n + 18]
                    try:
                        entries[first + n] = (1 if row[17] == 0x6E else 0, int(row[:10]), int(row[11:16]))
                    except ValueError:
                        raise Malformed("bad row in a cross-reference table") from None
                position += 20 * count
                continue
            for n in range(count):
                row_match = _ENTRY.match(data, position)
                if row_match is None:
                    raise Malformed("bad row in a cross-reference table")
                entries[first + n] = (1 if row_match[3] == b"n" else 0, int(row_match[1]), int(row_match[2]))
                position = row_match.end()
        parser = Parser(data, position)
        if parser.value() != b"trailer":
            raise Malformed("no trailer after a cross-reference table")
        trailer = parser.value()
        if not isinstance(trailer, Dict):
            raise Malformed("trailer is no dictionary")
        if 0 not in entries and 1 in entries and entries[1] == (0, 0, 65535):
            # a table that counts from 1 but begins with the head of the free list: rows belong to 0, 1, 2 …
            raise Malformed("cross-reference table begins at the wrong number")
        self._trailers.append((offset, parser.at))
        return Section(offset, entries, trailer)

    def _stream_section(self, offset: int) -> Section:
        number, generation, value = self.object_at(offset)
        if not isinstance(value, Stream) or value.head.get("Type") != "XRef":
            raise Malformed("no cross-reference section where one is named")
        head = value.head
        widths, size = head.get("W"), head.get("Size")
        if (
            not isinstance(widths, list)
            or len(widths) != 3
            or not all(isinstance(w, int) and 0 <= w <= 8 for w in widths)
        ):
            raise Malformed("cross-reference stream without /W")
        index = head.get("Index", [0, size])
        if not isinstance(index, list) or not all(isinstance(n, int) and n >= 0 for n in index) or len(index) % 2:
            raise Malformed("cross-reference stream with a bad /Index")
        body = self.unpack(value, plain=True)
        a, b, c = widths
        width = a + b + c
        if not width or sum(index[1::2]) > MAX_OBJECTS:
            raise Malformed("cross-reference stream of no use")
        entries: dict[int, tuple[int, int, int]] = {}
        position = 0
        for first, count in zip(index[::2], index[1::2], strict=True):
            for n in range(count):
                row = body[position : position + width]
                if len(row) < width:
                    raise Malformed("cross-reference stream is too short")
                kind = int.from_bytes(row[:a], "big") if a else 1
                entries[first + n] = (kind, int.from_bytes(row[a : a + b], "big"), int.from_bytes(row[a + b :], "big"))
                position += width
        entries[number] = (1, offset, generation)
        self._trailers.append((offset, value.start))
        return Section(offset, entries, head)

    # -- objects -----------------------------------------------------------------------------------------------------

    def object_at(self, offset: int) -> tuple[int, int, Any]:
        """Number, generation and value of the indirect object at an offset."""
        head = _HEADER.match(self.data, offset)
        if head is None:
            raise Malformed(f"no object at {offset}")
        number, generation = int(head[1]), int(head[2])
        parser = Parser(self.data, head.end())
        value = parser.value()
        if value is END or isinstance(value, Keyword):
            if value == b"endobj":
                return number, generation, None
            raise Malformed(f"object {number} has no value")
        after = parser.value()
        if after == b"stream" and isinstance(value, Dict):
            start = parser.at
            if self.data[start : start + 2] == b"\r\n":
                start += 2
            elif self.data[start : start + 1] in (b"\n", b"\r"):
                start += 1
            return number, generation, Stream(value, start, number, generation)
        if after != b"endobj":
            raise Malformed(f"object {number} is not closed")
        return number, generation, value

    def unpack(self, stream: Stream, plain: bool = False, view: View | None = None) -> bytes:
        """The decoded data of a stream. plain: its parameters are direct, and it is never encrypted."""
        length = stream.head.get("Length")
        if isinstance(length, Ref) and view is not None:
            length = view.get(length)
        if not isinstance(length, int) or length < 0:
            raise Malformed("stream without a length")
        body = self.data[stream.start : stream.start + length]
        if not re.compile(rb"[\0\t\n\f\r ]*endstream").match(self.data, stream.start + length):
            raise Malformed("stream is not as long as it says")
        if self.decoded is not None and not plain:
            return self.decoded(stream)
        filters = stream.head.get("Filter", [])
        filters = filters if isinstance(filters, list) else [filters]
        parameters = stream.head.get("DecodeParms", {})
        parameters = parameters if isinstance(parameters, list) else [parameters]
        for number, one in enumerate(filters):
            if one != "FlateDecode":
                raise Malformed(f"filter {one} of a structural stream")
            body = _inflate(body)
            options = parameters[number] if number < len(parameters) else {}
            if isinstance(options, dict) and options.get("Predictor", 1) != 1:
                body = _unpredict(body, options)
        return body

    def packed(self, number: int, view: View) -> tuple[bytes, list[tuple[int, int]]]:
        """An object stream's unpacked data and the (number, offset) of its members."""
        entry = view.entry(number)
        if entry is None or entry[0] != 1:
            raise Malformed(f"object stream {number} is missing")
        offset = entry[1]
        if offset not in self._unpacked:
            found, _, stream = self.object_at(offset)
            if found != number or not isinstance(stream, Stream) or stream.head.get("Type") != "ObjStm":
                raise Malformed(f"object {number} is no object stream")
            body = self.unpack(stream, view=view)
            count, first = view.get(stream.head.get("N")), view.get(stream.head.get("First"))
            if not isinstance(count, int) or not isinstance(first, int) or not 0 <= count <= MAX_OBJECTS:
                raise Malformed(f"object stream {number} has no index")
            numbers = body[:first].split()
            if len(numbers) < 2 * count or not all(one.isdigit() for one in numbers[: 2 * count]):
                raise Malformed(f"object stream {number} has a bad index")
            pairs = [(int(numbers[2 * n]), first + int(numbers[2 * n + 1])) for n in range(count)]
            self._unpacked[offset] = (body, pairs)
        return self._unpacked[offset]

    def load(self, number: int, entry: tuple[int, int, int], view: View) -> Any:
        kind, a, b = entry
        key = (a, number) if kind == 1 else (-1 - a, number)
        if kind == 2:
            container = view.entry(a)
            key = (-1 - (container[1] if container else 0), number)
        if key in self._objects:
            return self._objects[key]
        if kind == 1:
            found, generation, value = self.object_at(a)
            if found != number or generation != b:
                raise Malformed(f"object {number} {b} is said to be where {found} {generation} is")
        elif kind == 2:
            body, pairs = self.packed(a, view)
            if b >= len(pairs) or pairs[b][0] != number:
                matching = [pair for pair in pairs if pair[0] == number]
                if len(matching) != 1:
                    raise Malformed(f"object {number} is not in object stream {a}")
                start = matching[0][1]
            else:
                start = pairs[b][1]
            value = Parser(body, start).value()
            if value is END or isinstance(value, Keyword):
                value = None
            if isinstance(value, Dict):
                value.spans.clear()  # positions in the unpacked data are none in the file
        else:
            return None
        self._objects[key] = value
        return value

    # -- revisions ---------------------------------------------------------------------------------------------------

    def view_at(self, end: int) -> View:
        """The document as it was when the file ended at `end`. Raises Malformed when today's chain skips it."""
        offset = self.last_startxref(end)
        for number, section in enumerate(self.sections):
            if section.offset == offset:
                return View(self, number, end)
        raise Malformed("the signed revision is not part of the file's present chain of revisions")

    def ends_revision(self, end: int) -> bool:
        """Does a revision end at `end`: `startxref`, its number, `%%EOF` and nothing but white space?"""
        tail = self.data[max(0, end - 256) : end]
        return re.search(rb"startxref[\0\t\n\f\r ]+[0-9]+[\0\t\n\f\r ]+%%EOF[\0\t\n\f\r ]*$", tail) is not None

    def referrers(self, number: int, view: View) -> set[int]:
        """Numbers of the objects of a revision that refer to an object number; 0 stands for one that is not listed.

        Looks at raw bytes and object streams: parsing every object would say it exactly, and a chance hit inside a
        picture's data only makes the judgement stricter. What trailers refer to besides /Root and /Info is no part of
        the document (LibreOffice names streams there)."""
        if self._references is None:
            self._references = _references(self.data, self._trailers)
        found = {self._holder(at) for at in self._references.get(number, ()) if at < view.end}
        found = {one for one in found if not self._is_trailer(one, view)}
        for container in view.containers:
            body, pairs = self.packed(container, view)
            if container not in self._packed_references:
                self._packed_references[container] = _references(body)
            for at in self._packed_references[container].get(number, ()):
                found.add(max((pair for pair in pairs if pair[1] <= at), key=lambda pair: pair[1], default=(0, 0))[0])
        return found

    def _is_trailer(self, number: int, view: View) -> bool:
        """A cross-reference stream that a tool left behind: its dictionary is a trailer, and it can show nothing."""
        entry = view.entry(number)
        if entry is None or entry[0] != 1:
            return False
        value = view.get(Ref(number, entry[2]))
        return (
            isinstance(value, Stream)
            and value.head.get("Type") == "XRef"
            and "W" in value.head
            and not {"Resources", "Subtype"} & set(value.head)
        )

    def _holder(self, at: int) -> int:
        """The number of the listed object that a place in the file belongs to."""
        if not self._owners:
            self._owners = sorted((at, number) for number, offsets in self.listed().items() for at in offsets)
        place = bisect.bisect_right(self._owners, (at, 1 << 60)) - 1
        return self._owners[place][1] if place >= 0 else 0

    def definitions(self) -> Iterator[tuple[int, int, int]]:
        """Every `N G obj` in the raw bytes: number, generation, offset. Also finds some inside streams."""
        for match in re.finditer(rb"obj", self.data):
            at = match.start()
            if self.data[at - 3 : at] == b"end":
                continue
            head = re.compile(rb"([0-9]{1,10})[\0\t\n\f\r ]+([0-9]{1,5})[\0\t\n\f\r ]+$").search(
                self.data, max(0, at - 24), at
            )
            if head is not None:
                yield int(head[1]), int(head[2]), head.start()

    def listed(self) -> dict[int, set[int]]:
        """Object numbers with every offset that any section gives for them."""
        if self._listed is None:
            self._listed = {}
            for section in self.sections:
                for number, entry in (*section.entries.items(), *section.hybrid.items()):
                    if entry[0] == 1:
                        self._listed.setdefault(number, set()).add(entry[1])
        return self._listed

    def inside_stream(self, at: int) -> bool:
        """Does this place belong to the data of a listed stream (a picture, an attached file)?"""
        self._holder(at)
        place = bisect.bisect_right(self._owners, (at, 1 << 60)) - 1
        if place < 0:
            return False
        try:
            _, _, value = self.object_at(self._owners[place][0])
            if not isinstance(value, Stream) or at < value.start:
                return False
            length = self.latest.get(value.head.get("Length"))
        except Malformed:
            return False
        return isinstance(length, int) and at < value.start + length


class View:
    """The objects of the document as one revision shows them: sections `first` and older."""

    __slots__ = ("_containers", "_entries", "document", "end", "first")

    def __init__(self, document: Document, first: int, end: int | None = None) -> None:
        self.document = document
        self.first = first
        self.end = len(document.data) if end is None else end
        self._entries: dict[int, tuple[int, int, int]] | None = None
        self._containers: frozenset[int] | None = None

    @property
    def entries(self) -> dict[int, tuple[int, int, int]]:
        if self._entries is None:
            merged: dict[int, tuple[int, int, int]] = {}
            for section in reversed(self.document.sections[self.first :]):
                # a hybrid section: its table wins, its stream fills what the table hides as free (7.5.8.4)
                for number, entry in section.entries.items():
                    hidden = section.hybrid.get(number)
                    merged[number] = hidden if hidden is not None and entry[0] == 0 else entry
                for number, entry in section.hybrid.items():
                    if number not in section.entries:
                        merged[number] = entry
                    elif section.entries[number][0] != 0 and section.entries[number] != entry:
                        raise Malformed(f"object {number} differs between the two halves of a hybrid file")
            self._entries = merged
        return self._entries

    @property
    def containers(self) -> frozenset[int]:
        """Numbers of the object streams in use."""
        if self._containers is None:
            self._containers = frozenset(entry[1] for entry in self.entries.values() if entry[0] == 2)
        return self._containers

    @property
    def trailer(self) -> Dict:
        return self.document.sections[self.first].trailer

    def entry(self, number: int) -> tuple[int, int, int] | None:
        return self.entries.get(number)

    def get(self, value: Any) -> Any:
        """The value itself, with references followed."""
        for _ in range(32):
            if not isinstance(value, Ref):
                return value
            entry = self.entries.get(value.number)
            if entry is None or entry[0] == 0:
                return None
            if entry[0] == 1 and entry[2] != value.generation:
                return None
            if entry[0] == 1 and entry[1] >= self.end:
                raise Malformed(f"object {value.number} lies beyond the end of its revision")
            value = self.document.load(value.number, entry, self)
        raise Malformed("references form a loop")

    def key(self, holder: Any, *path: str) -> Any:
        """`holder[path[0]][path[1]]…` with references followed; None when a step is missing."""
        for step in path:
            holder = self.get(holder)
            if isinstance(holder, Stream):
                holder = holder.head
            if not isinstance(holder, Dict):
                return None
            holder = holder.get(step)
        return self.get(holder)


_REFERENCE = re.compile(rb"([0-9]{1,10})[\0\t\n\f\r ]+[0-9]{1,5}[\0\t\n\f\r ]+$")
_BLANK = frozenset(WHITE)


def _references(data: bytes, apart: Sequence[tuple[int, int]] = ()) -> dict[int, list[int]]:
    """Object numbers that occur as `N G R`, each with its offsets. apart: ranges left out."""
    found: dict[int, list[int]] = {}
    ranges = sorted(apart)
    at = data.find(b"R")
    while at >= 0:
        if data[at - 1] in _BLANK:
            match = _REFERENCE.search(data, max(0, at - 24), at)
            if match is not None:
                place = bisect.bisect_right(ranges, (at, 1 << 60)) - 1
                if place < 0 or at >= ranges[place][1]:
                    found.setdefault(int(match[1]), []).append(at)
        at = data.find(b"R", at + 1)
    return found


def _last_number(data: bytes, end: int) -> int | None:
    at = data.rfind(b"startxref", 0, end)
    if at < 0:
        return None
    match = _STARTXREF.match(data, at, end)
    return int(match[1]) if match else None


def _section_at(data: bytes, offset: int) -> bool:
    part = data[offset : offset + 64].lstrip(WHITE)
    return part.startswith(b"xref") or _HEADER.match(part) is not None


def _inflate(body: bytes) -> bytes:
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(body, MAX_STREAM)
    except zlib.error as error:
        raise Malformed(f"damaged stream: {error}") from None
    if engine.unconsumed_tail:
        raise Malformed("a structural stream unpacks to too much")
    return out


def _unpredict(body: bytes, options: Any) -> bytes:
    """PNG predictors (7.4.4.4); only these occur in structural streams."""
    predictor, columns = options.get("Predictor"), options.get("Columns", 1)
    colours, bits = options.get("Colors", 1), options.get("BitsPerComponent", 8)
    if not all(isinstance(one, int) for one in (predictor, columns, colours, bits)) or predictor < 10:
        raise Malformed("unknown predictor")
    width, size = (columns * colours * bits + 7) // 8, max(1, colours * bits // 8)
    if not 0 < width <= 1 << 16:
        raise Malformed("bad predictor width")
    out, above = bytearray(), bytearray(width)
    for position in range(0, len(body), width + 1):
        kind, row = body[position], bytearray(body[position + 1 : position + 1 + width])
        row += bytes(width - len(row))
        if kind == 2:
            row = bytearray(map(_add, row, above))
        elif kind == 1:
            for n in range(size, width):
                row[n] = (row[n] + row[n - size]) & 0xFF
        elif kind in (3, 4):
            for n in range(width):
                left, up = (row[n - size] if n >= size else 0), above[n]
                corner = above[n - size] if n >= size else 0
                guess = (left + up) // 2 if kind == 3 else _paeth(left, up, corner)
                row[n] = (row[n] + guess) & 0xFF
        elif kind != 0:
            raise Malformed("unknown predictor row")
        out += row
        above = row
    return bytes(out)


def _add(a: int, b: int) -> int:
    return (a + b) & 0xFF


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    distances = (abs(guess - left), abs(guess - up), abs(guess - corner))
    return (left, up, corner)[distances.index(min(distances))]
