"""Names with escaped letters (ISO 32000-1, 7.3.5) hide no active content, wherever in a file they stand; and bytes that
look like such names by chance cost no walk over the whole file."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import pytest

from gateway.config import Budget
from gateway.inspection import text

_PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
_PAGE = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>"
_FILE = b"<< /Type /Filespec /F (a.txt) /E#46 << /F 6 0 R >> >>"

#: The catalogue's entry for each kind of content, and what is to be said of it.
_ATTACKS = {
    "javascript": (b"/OpenAction << /S /J#61vaScript /#4a#53 (app.alert) >>", "javascript"),
    "only /JS": (b"/OpenAction << /S /Other /#4a#53 (app.alert) >>", "javascript"),
    "launch": (b"/OpenAction << /S /#4c#61#75nch /F (x.exe) >>", "launch"),
    "all of it": (b"/OpenAction << /S /#4c#61#75#6e#63#68 /F (x.exe) >>", "launch"),
    "open action": (b"/Open#41ction << /S /URI /URI (http://x.example/) >>", "openaction"),
    "page action": (b"/#41A << /WC << /S /URI /URI (http://x.example/) >> >>", "openaction"),
    "embedded files": (b"/Names << /Embedded#46iles << /Names [(a.txt) 5 0 R] >> >>", "embedded_file"),
    "3d": (b"/Extra << /Subtype /#33D >>", "richmedia"),
}


def _catalogue(entry: bytes) -> bytes:
    return b"<< /Type /Catalog /Pages 2 0 R " + entry + b" >>"


def _stream(head: bytes, content: bytes) -> bytes:
    return b"<< " + head + b" /Length %d >>\nstream\n" % len(content) + content + b"\nendstream"


def _objects(entry: bytes) -> dict[int, bytes]:
    return {1: _catalogue(entry), 2: _PAGES, 3: _PAGE, 5: _FILE, 6: _stream(b"", b"inside")}


class _File:
    def __init__(self) -> None:
        self.data = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        self.places: dict[int, int] = {}

    def put(self, objects: dict[int, bytes], before: bytes = b"") -> None:
        for number, body in objects.items():
            self.data += before
            self.places[number] = len(self.data)
            self.data += b"%d 0 obj\n" % number + body + b"\nendobj\n"

    def table(self, more: bytes = b"", numbers: set[int] | None = None) -> int:
        """A classic table of what was put, with its trailer; where it begins."""
        at = len(self.data)
        self.data += b"xref\n0 1\n0000000000 65535 f \n"
        for number in sorted(self.places if numbers is None else numbers):
            self.data += b"%d 1\n%010d 00000 n \n" % (number, self.places[number])
        self.data += b"trailer\n<< /Size 20 /Root 1 0 R " + more + b" >>\nstartxref\n%d\n%%%%EOF\n" % at
        return at

    def xref_stream(self, number: int, packed: dict[int, tuple[int, int]], more: bytes = b"") -> int:
        """A cross-reference stream; packed: by object, its object stream and place in it."""
        at = len(self.data)
        self.places[number] = at
        rows = {one: (1, place, 0) for one, place in self.places.items()}
        rows |= {one: (2, *where) for one, where in packed.items()}
        table = b"".join(bytes([a]) + b.to_bytes(4, "big") + bytes([c]) for _, (a, b, c) in sorted(rows.items()))
        index = b" ".join(b"%d 1" % one for one in sorted(rows))
        head = b"/Type /XRef /Size 20 /W [1 4 1] /Index [%s] /Root 1 0 R %s" % (index, more)
        self.data += b"%d 0 obj\n" % number + _stream(head, table) + b"\nendobj\n"
        return at

    def end(self, at: int) -> None:
        self.data += b"startxref\n%d\n%%%%EOF\n" % at


def _object_stream(members: dict[int, bytes], kind: bytes = b"/ObjStm") -> bytes:
    index, bodies = b"", b""
    for number, body in members.items():
        index += b"%d %d " % (number, len(bodies))
        bodies += body + b" "
    head = b"/Type %s /N %d /First %d /Filter /FlateDecode" % (kind, len(members), len(index))
    return _stream(head, zlib.compress(index + bodies))


def _plain(entry: bytes) -> bytes:
    file = _File()
    file.put(_objects(entry))
    file.table()
    return bytes(file.data)


def _packed(entry: bytes, kind: bytes = b"/ObjStm", before: bytes = b"") -> bytes:
    """The catalogue in a compressed object stream."""
    file, objects = _File(), _objects(entry)
    file.put({6: objects.pop(6)})
    file.put({7: _object_stream(objects, kind)}, before)
    file.end(file.xref_stream(8, {number: (7, place) for place, number in enumerate(objects)}))
    return bytes(file.data)


def _packed_with_an_escaped_type(entry: bytes) -> bytes:
    return _packed(entry, b"/Obj#53tm")


def _packed_with_a_comment_in_its_type(entry: bytes) -> bytes:
    return _packed(entry).replace(b"/Type /ObjStm", b"/Type%x\n/ObjStm")


def _packed_with_a_long_dictionary(entry: bytes) -> bytes:
    return _packed(entry, b"/ObjStm /Padding (%s)" % (b"x" * 5000))


def _packed_behind_a_false_stream(entry: bytes) -> bytes:
    """A comment that looks like the beginning of a stream to whoever searches for the word alone."""
    return _packed(entry, before=b"%stream\n")


def _packed_and_escaped_behind_a_false_stream(entry: bytes) -> bytes:
    return _packed(entry, b"/#4fbjStm", b"%stream\n")


def _updated(entry: bytes) -> bytes:
    """Harmless first; the content comes with an incremental update."""
    file = _File()
    file.put(_objects(b""))
    first = file.table()
    file.put({1: _catalogue(entry)})
    file.table(b"/Prev %d" % first, {1})
    return bytes(file.data)


def _updated_packed(entry: bytes) -> bytes:
    file = _File()
    file.put(_objects(b""))
    first = file.table()
    file.places.clear()
    file.put({7: _object_stream({1: _catalogue(entry)})})
    file.end(file.xref_stream(8, {1: (7, 0)}, b"/Prev %d" % first))
    return bytes(file.data)


def _hybrid(entry: bytes) -> bytes:
    """A table for old readers, and a stream that only new ones follow, in which the catalogue stands (7.5.8.4)."""
    file, objects = _File(), _objects(entry)
    catalogue = objects.pop(1)
    file.put(objects)
    there = set(file.places)
    file.places.clear()
    file.put({7: _object_stream({1: catalogue})})
    at = file.xref_stream(8, {1: (7, 0)})
    file.places |= _again(file.data, there)
    file.table(b"/XRefStm %d" % at, there)
    return bytes(file.data)


def _again(data: bytearray, numbers: set[int]) -> dict[int, int]:
    return {number: data.index(b"\n%d 0 obj" % number) + 1 for number in numbers}


def _without_a_table(entry: bytes) -> bytes:
    """Damaged: readers look for objects by themselves."""
    file = _File()
    file.put(_objects(entry))
    return bytes(file.data) + b"trailer\n<< /Root 1 0 R >>\n"


def _wrong_table(entry: bytes) -> bytes:
    return _plain(entry).replace(b"startxref\n", b"startxref\n9")


def _spaced(entry: bytes) -> bytes:
    """Comments and every kind of white space between the tokens."""
    file, objects = _File(), _objects(entry.replace(b" ", b"%x\r\x0c\t "))
    file.put(objects)
    file.table()
    return bytes(file.data)


def _behind_a_false_stream(entry: bytes) -> bytes:
    file, objects = _File(), _objects(entry)
    file.put({1: objects.pop(1)}, b"%stream\n")
    file.put(objects)
    file.table()
    return bytes(file.data)


_FORMS: tuple[Callable[[bytes], bytes], ...] = (
    _plain, _packed, _packed_with_an_escaped_type, _packed_with_a_comment_in_its_type, _packed_with_a_long_dictionary,
    _packed_behind_a_false_stream,
    _packed_and_escaped_behind_a_false_stream, _updated, _updated_packed, _hybrid, _without_a_table, _wrong_table,
    _spaced, _behind_a_false_stream,
)  # fmt: skip


@pytest.mark.parametrize("form", _FORMS, ids=lambda one: one.__name__.strip("_"))
@pytest.mark.parametrize("attack", _ATTACKS)
def test_escaped_names_hide_nothing(form: Callable[[bytes], bytes], attack: str) -> None:
    entry, value = _ATTACKS[attack]
    data = form(entry)
    found = text.extract(data, "pdf", Budget())
    assert value in {one.value for one in found.findings if one.kind == "active"}


def test_escapes_that_compressed_bytes_spell_by_chance_cost_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[bool] = []
    structure = text._pdf_structure

    def watched(data: bytes, found: text.Text, *, walk: bool) -> None:
        walked.append(walk)
        structure(data, found, walk=walk)

    monkeypatch.setattr(text, "_pdf_structure", watched)
    draw = random.Random(5)
    noise = draw.randbytes(300_000) + b"/Ab#4Ac \xff/#53\x80" * 50
    file = _File()
    file.put(_objects(b"/Metadata 9 0 R") | {5: b"<< >>", 9: _stream(b"", b"<x/>"), 10: _stream(b"", noise)})
    file.table()
    assert not text.extract(bytes(file.data), "pdf", Budget()).findings
    assert walked == [False]
