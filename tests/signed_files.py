"""Signed PDFs for tests: genuine ones as agencies make them, and the published attacks on them.

Made at run time with the demonstration's own certificates; nothing of anybody else's files is kept here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from gateway.demo import documents
from gateway.demo.documents import Paper
from gateway.demo.pki import Pki
from gateway.inspection.trust import TrustStore

NOW = dt.datetime(2026, 3, 2, 3, 4, 5, tzinfo=dt.UTC)

PAPER = Paper(
    agency="SỞ NỘI VỤ",
    parent="ỦY BAN NHÂN DÂN TỈNH DEMO",
    code="15/TB-SNV",
    date=NOW.date(),
    kind="THÔNG BÁO",
    abstract="Về việc kiểm tra chữ ký số",
)


@cache
def pki() -> Pki:
    """One PKI for the whole run; its keys are what takes time."""
    return Pki.create(NOW)


def store(at: dt.datetime = NOW, days: int = 7, only: tuple[str, ...] = (), revoked: dict | None = None) -> TrustStore:
    """The store that trusts the demonstration. at, days: issue and life of its revocation lists; only: their names."""
    own = pki()
    own.revoked.clear()
    own.revoked.update(revoked or {})
    with tempfile.TemporaryDirectory() as folder:
        own.write_trust(Path(folder), at, days)
        own.revoked.clear()
        if only:
            for path in (Path(folder) / "crl").iterdir():
                if path.name not in only:
                    path.unlink()
        return TrustStore.load(Path(folder))


@cache
def plain() -> bytes:
    return documents.pdf(PAPER)


@cache
def one() -> bytes:
    """Signed once, by the organisation, visibly."""
    box = documents.signature_box(PAPER)
    return documents.sign(plain(), pki().department, pki(), box=box, picture=documents.seal_picture(PAPER.agency, 120))


@cache
def two() -> bytes:
    """Signed by the leader and then by the organisation."""
    return documents.signed_pdf(PAPER, pki())


@cache
def many(count: int) -> bytes:
    """Number, date, signer and seal each as their own signature, as several tools do it."""
    if count == 0:
        return plain()
    number, own = count - 1, pki()
    box = (100 + 20 * (number % 8), 300 + 30 * (number // 8), 118 + 20 * (number % 8), 325 + 30 * (number // 8))
    return documents.sign(many(number), own.department if number else own.leader, own, field=f"ChuKy{number}", box=box)


# -- taking a PDF apart and putting updates on it ----------------------------------------------------------------------


def startxref(data: bytes) -> int:
    return int(re.findall(rb"startxref\s+(\d+)", data)[-1])


def last_root(data: bytes) -> bytes:
    return re.findall(rb"/Root\s+(\d+ \d+ R)", data)[-1]


def size(data: bytes) -> int:
    return max(int(one) for one in re.findall(rb"/Size\s+(\d+)", data))


def current(data: bytes, number: int) -> bytes:
    """The body of the newest definition of an object in the raw bytes."""
    return re.findall(rb"(?<!\d)%d 0 obj(.*?)endobj" % number, data, re.S)[-1].strip()


def append(
    data: bytes, objects: dict[int, bytes], root: bytes = b"", extra: bytes = b"", free: tuple[int, ...] = ()
) -> bytes:
    """One more incremental update: a classic table with these objects."""
    out = bytearray(data if data.endswith(b"\n") else data + b"\n")
    rows = []
    for number, body in objects.items():
        rows.append((number, b"%010d 00000 n \n" % len(out)))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    rows += [(number, b"0000000000 00001 f \n") for number in free]
    at = len(out)
    out += b"xref\n"
    for number, row in sorted(rows):
        out += b"%d 1\n" % number + row
    total = max([size(data), *(number + 1 for number in objects)])
    out += b"trailer\n<< /Size %d /Root %s /Prev %d %s>>\n" % (total, root or last_root(data), startxref(data), extra)
    out += b"startxref\n%d\n%%%%EOF\n" % at
    return bytes(out)


def root_number(data: bytes) -> int:
    return int(last_root(data).split()[0])


@cache
def page_number(data: bytes) -> int:
    """The number of the first page object."""
    return next(
        int(found) for found in re.findall(rb"(\d+) 0 obj\s*<<(?:(?!endobj).)*?/Type\s*/Page\b(?!s)", data, re.S)
    )


def with_key(body: bytes, key: bytes, value: bytes) -> bytes:
    """A dictionary body with one key set anew."""
    body = re.sub(rb"/%s\s*(?:\[[^\]]*\]|\d+ \d+ R|/[^\s/<>\[\]]+|<<.*?>>)" % key, b"", body, count=1, flags=re.S)
    at = body.rindex(b">>")
    return body[:at] + b" /" + key + b" " + value + b" " + body[at:]


def number_of(data: bytes, mark: bytes) -> int:
    """The number of the last object whose body holds a mark."""
    at = data.rindex(mark)
    return int(re.findall(rb"(\d+) 0 obj", data[:at])[-1])


def byte_range(data: bytes) -> tuple[int, int, int, int]:
    found = re.findall(rb"/ByteRange\s*\[\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*\]", data)[-1]
    return int(found[0]), int(found[1]), int(found[2]), int(found[3])


def signature_body(data: bytes) -> bytes:
    return current(data, number_of(data, b"/ByteRange"))


def stream(body: bytes, head: bytes = b"") -> bytes:
    return b"<< " + head + b" /Length %d >>\nstream\n" % len(body) + body + b"\nendstream"


FALSE_TEXT = stream(b"1 1 1 rg 0 0 600 850 re f 0 0 0 rg BT /F1 40 Tf 100 500 Td (Changed after signing) Tj ET")
#: A form with the same words, as the looks of an annotation.
FALSE_LOOKS = stream(
    b"1 1 1 rg 0 0 400 100 re f 0 0 0 rg BT /Helv 20 Tf 5 5 Td (10 000 000 000) Tj ET",
    b"/Type /XObject /Subtype /Form /BBox [0 0 400 100] /Resources << /Font << /Helv << /Type /Font /Subtype /Type1 "
    b"/BaseFont /Helvetica >> >> >>",
)


def next_number(data: bytes) -> int:
    return size(data)


# -- attacks: each gives a file that must not be believed --------------------------------------------------------------


def changed_signature(change: Callable[[bytes], bytes], content: bool = True) -> bytes:
    """Universal signature forgery: the signature dictionary is redefined so that a verifier trips, and the page too."""
    data = one()
    objects = {number_of(data, b"/ByteRange"): change(signature_body(data))}
    if content:
        objects |= new_content(data)
    return append(data, objects)


def new_content(data: bytes) -> dict[int, bytes]:
    page, fresh = page_number(data), next_number(data)
    return {page: with_key(current(data, page), b"Contents", b"%d 0 R" % fresh), fresh: FALSE_TEXT}


def usf(pattern: bytes, put: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        def change(body: bytes) -> bytes:
            changed = re.sub(pattern, lambda _: put, body, count=1, flags=re.S)
            assert changed != body, pattern
            return changed

        return changed_signature(change)

    return make


_RANGE, _VALUE = rb"/ByteRange\s*\[[^\]]*\]", rb"/Contents\s*<[^>]*>"


def in_place(pattern: bytes, put: bytes) -> Callable[[], bytes]:
    """The same forgeries in the signed file itself, keeping its length."""

    def make() -> bytes:
        data = one()
        found = list(re.finditer(pattern, data, re.S))[-1]
        return data[: found.start()] + put.ljust(len(found[0]))[: len(found[0])] + data[found.end() :]

    return make


def page_update(change: Callable[[bytes, int], bytes], extra: dict[int, bytes] | None = None) -> Callable[[], bytes]:
    def make() -> bytes:
        data = one()
        page = page_number(data)
        return append(data, {page: change(current(data, page), next_number(data)), **{
            next_number(data) + offset: body for offset, body in (extra or {}).items()
        }})  # fmt: skip

    return make


def root_update(key: bytes, value: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        data = one()
        root = root_number(data)
        return append(data, {root: with_key(current(data, root), key, value)})

    return make


def annotation(subtype: bytes, more: bytes = b"") -> Callable[[], bytes]:
    def make(data: bytes | None = None) -> bytes:
        data = data or one()
        page, fresh = page_number(data), next_number(data)
        body = current(data, page)
        old = re.search(rb"/Annots\s*\[([^\]]*)\]", body)
        listed = b"[%s %d 0 R]" % (old[1] if old else b"", fresh)
        note = b"<< /Type /Annot /Subtype /%s /Rect [80 400 480 500] /F 4 /AP << /N %d 0 R >> %s >>" % (
            subtype,
            fresh + 1,
            more,
        )
        return append(data, {page: with_key(body, b"Annots", listed), fresh: note, fresh + 1: FALSE_LOOKS})

    return make


def evil_annotation() -> bytes:
    """Evil annotation attack: a document certified with P=3 gets an annotation over its text."""
    data = documents.sign(plain(), pki().department, pki(), certify=3)
    return annotation(b"FreeText", b"/Contents (10 000 000 000)")(data)  # type: ignore[call-arg]


def stranger() -> Pki:
    return _stranger()


@cache
def _stranger() -> Pki:
    return Pki.create(NOW)


def sneaky_signature() -> bytes:
    """Sneaky signature attack: a stranger signs a certified document, with a picture of other words."""
    data = documents.sign(plain(), pki().department, pki(), certify=2)
    return documents.sign(data, stranger().department, stranger(), field="Sneaky", box=(80, 400, 480, 500))


def signed_against_certification() -> bytes:
    """Certified against any change, then signed again by somebody whom we trust (the tool refuses, so by hand)."""
    data = documents.sign(plain(), pki().department, pki(), certify=2, timestamp=False)
    assert data.count(b"/P 2") == 1
    data = resign(data.replace(b"/P 2", b"/P 1"))
    loose = data.replace(b"/P 1", b"/P 2")  # same length, so that the tool signs; put back before the second value
    again = documents.sign(loose, pki().leader, pki(), field="B", timestamp=False)
    return resign(again[: len(data)].replace(b"/P 2", b"/P 1") + again[len(data) :])


def resign(data: bytes) -> bytes:
    """The last signature made anew over the bytes as they are now."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    _, first, second, _ = byte_range(data)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(data[:first] + data[second:])
    builder = builder.add_signer(pki().department.certificate, pki().department.key, hashes.SHA256())
    made = builder.sign(Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary])
    return data[: first + 1] + made.hex().encode().ljust(second - first - 2, b"0") + data[second - 1 :]


def sneaky_field() -> bytes:
    """The same with a field that is not signed at all."""
    data = documents.sign(plain(), pki().department, pki(), certify=2)
    page, fresh, root = page_number(data), next_number(data), root_number(data)
    body = current(data, page)
    old = re.search(rb"/Annots\s*\[([^\]]*)\]", body)
    field = b"<< /FT /Sig /Type /Annot /Subtype /Widget /T (Sneaky) /F 4 /Rect [80 400 480 500] /P %d 0 R " % page
    fields = re.search(rb"/Fields\s*\[([^\]]*)\]", data[data.rindex(b"/AcroForm") - 400 :])
    assert fields is not None
    form = b"<< /Fields [%s %d 0 R] /SigFlags 3 >>" % (fields[1], fresh)
    return append(
        data,
        {
            page: with_key(body, b"Annots", b"[%s %d 0 R]" % (old[1] if old else b"", fresh)),
            fresh: field + b"/AP << /N %d 0 R >> >>" % (fresh + 1),
            fresh + 1: FALSE_LOOKS,
            root: with_key(re.sub(rb"/AcroForm\s*<<.*?>>", b"", current(data, root), flags=re.S), b"AcroForm", form),
        },
    )


def two_fields_one_value() -> bytes:
    data = one()
    field, fresh, root = number_of(data, b"/FT /Sig"), next_number(data), root_number(data)
    form = b"<< /Fields [%d 0 R %d 0 R] /SigFlags 3 >>" % (field, fresh)
    second = re.sub(rb"/T\s*\([^)]*\)", b"/T (Second)", current(data, field))
    return append(data, {fresh: second, root: with_key(current(data, root), b"AcroForm", form)})


def removed_form() -> bytes:
    data = one()
    root = root_number(data)
    return append(data, {root: re.sub(rb"/AcroForm\s*(?:\d+ 0 R|<<.*?>>)", b"", current(data, root), flags=re.S)})


def removed_value() -> bytes:
    data = one()
    field = number_of(data, b"/FT /Sig")
    return append(data, {field: re.sub(rb"/V\s*\d+ 0 R", b"", current(data, field))})


def cut_chain() -> bytes:
    """The last section forgets the signed revision: its /Prev leads past it."""
    data = one()
    offsets = [int(found) for found in re.findall(rb"startxref\s+(\d+)", data)]
    made = append(data, new_content(data))
    return made.replace(b"/Prev %d >>\nstartxref" % offsets[-1], b"/Prev %d >>\nstartxref" % offsets[0])


def own_root() -> bytes:
    data = one()
    root, fresh = root_number(data), next_number(data)
    return append(data, {fresh: current(data, root), **{k + 1: v for k, v in new_content(data).items() if k == -1}},
                  root=b"%d 0 R" % fresh)  # fmt: skip


def loose_bytes() -> bytes:
    return one() + b"\n%d 0 obj\n<< /Type /Page >>\nendobj\n%%%%EOF\n" % next_number(one())


def loose_table() -> bytes:
    """Incremental saving without a trailer: readers that repair a file find the new object."""
    data = one()
    made = append(data, new_content(data))
    return made[: made.rindex(b"trailer")] + b"%%EOF\n"


def wrapped(body: bytes) -> Callable[[], bytes]:
    """Signature wrapping: the zeros that pad the value make room for something else; no offset moves."""

    def make() -> bytes:
        data = one()
        _, _, second, _ = byte_range(data)
        room = len(body) + 400
        assert data[second - 1 - room : second - 1] == b"0" * room
        put = b">" + body
        put += b"<" + b"0" * (room - len(put) - 1)
        return data[: second - 1 - room] + put + data[second - 1 :]

    return make


def shifted_range() -> bytes:
    data = one()
    _, first, second, rest = byte_range(data)
    old = re.search(_RANGE, data)
    assert old is not None
    put = (b"/ByteRange [0 %d %d %d]" % (first - 100, second, rest)).ljust(len(old[0]))
    return data[: old.start()] + put + data[old.end() :]


def not_from_start() -> bytes:
    data = one()
    _, first, second, rest = byte_range(data)
    old = list(re.finditer(_RANGE, data))[-1]
    put = (b"/ByteRange [9 %d %d %d]" % (first - 9, second, rest)).ljust(len(old[0]))
    return data[: old.start()] + put[: len(old[0])] + data[old.end() :]


def doubled_key() -> bytes:
    return changed_signature(
        lambda body: body.replace(b"/ByteRange", b"/ByteRange [0 1 2 3] /ByteRange", 1), content=False
    )


def another_before() -> bytes:
    """A whole other file before the header: readers that count from the first byte show that one."""
    other = documents.pdf(PAPER)
    return other + one()


def object_stream_replaced() -> bytes:
    """The signed revision keeps its objects in an object stream; the update replaces the stream, not the objects."""
    return _with_object_stream(swap=True)


def hidden_then_shown() -> bytes:
    """Shadow, hide and replace: a second page tree stands unlisted in the signed bytes, an update lists it."""
    data = _shadowed()
    signed = documents.sign(data, pki().department, pki())
    spot = signed.index(b"7777")  # mark inside the hidden node
    offset = signed.rindex(b" 0 obj", 0, spot) - 1
    number = int(signed[offset : offset + 1])
    at = len(signed) + 1
    update = b"\nxref\n%d 1\n%010d 00000 n \ntrailer\n<< /Size %d /Root %s /Prev %d >>\nstartxref\n%d\n%%%%EOF\n" % (
        number,
        offset,
        size(signed),
        last_root(signed),
        startxref(signed),
        at,
    )
    return signed + update


def hidden_not_shown() -> bytes:
    """The same before the swap."""
    return documents.sign(_shadowed(), pki().department, pki())


def simple_pdf(objects: dict[int, bytes], unlisted: bytes = b"", root: int = 1, at: int = 0) -> bytes:
    """A small PDF 1.4 with a classic table. unlisted: bytes put before object `at` without an entry."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = {}
    for number, body in objects.items():
        if number == at:
            out += unlisted
        offsets[number] = len(out)
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    begin = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (max(objects) + 1)
    for number in range(1, max(objects) + 1):
        out += b"%010d 00000 n \n" % offsets[number] if number in offsets else b"0000000000 65535 f \n"
    out += b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (max(objects) + 1, root, begin)
    return bytes(out)


HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def _text(words: bytes) -> bytes:
    return stream(b"BT /F1 20 Tf 72 700 Td (" + words + b") Tj ET")


def _page(contents: int, more: bytes = b"", parent: int = 2) -> bytes:
    return (
        b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> %s >>" % (parent, contents, more)
    )


def simple(words: bytes = b"Total: 100 dong", page: bytes = b"", root: bytes = b"", **more: bytes) -> dict[int, bytes]:
    return {
        1: b"<< /Type /Catalog /Pages 2 0 R %s >>" % root,
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: _page(4, page),
        4: _text(words),
        5: HELVETICA,
    }


def _shadowed() -> bytes:
    objects = simple() | {6: _page(7), 7: _text(b"Total: 900 dong")}
    hidden = b"2 0 obj\n<< /Type /Pages /Kids [6 0 R] /Count 1 /Note 7777 >>\nendobj\n"
    return simple_pdf(objects, hidden, at=2)


def dangling() -> bytes:
    """Shadow, replace: the signed page refers to an object that does not exist yet."""
    objects = simple(page=b"/Annots [90 0 R]")
    signed = documents.sign(simple_pdf(objects), pki().department, pki())
    note = b"<< /Type /Annot /Subtype /Square /Rect [60 690 400 730] /F 4 /AP << /N 91 0 R >> >>"
    return append(signed, {90: note, 91: FALSE_LOOKS})


def overlay_removed() -> bytes:
    """Shadow, hide: a picture that covers the text is freed after signing."""
    objects = simple()
    cover = stream(b"1 1 1 rg 0 0 595 842 re f", b"/Type /XObject /Subtype /Form /BBox [0 0 595 842]")
    objects[3] = objects[3].replace(b"/Font", b"/XObject << /X 6 0 R >> /Font")
    objects[4] = stream(b"BT /F1 20 Tf 72 700 Td (Total: 900 dong) Tj ET /X Do")
    objects[6] = cover
    signed = documents.sign(simple_pdf(objects), pki().department, pki())
    return append(signed, {}, free=(6,))


def overlay_renamed() -> bytes:
    """Shadow, hide: the cover is turned into metadata."""
    objects = simple()
    objects[3] = objects[3].replace(b"/Font", b"/XObject << /X 6 0 R >> /Font")
    objects[4] = stream(b"BT /F1 20 Tf 72 700 Td (Total: 900 dong) Tj ET /X Do")
    objects[6] = stream(b"1 1 1 rg 0 0 595 842 re f", b"/Type /XObject /Subtype /Form /BBox [0 0 595 842]")
    signed = documents.sign(simple_pdf(objects), pki().department, pki())
    return append(signed, {6: stream(b"<x/>", b"/Type /Metadata /Subtype /XML")})


def font_replaced() -> bytes:
    """Shadow, replace: another font makes other digits of the same text."""
    signed = documents.sign(simple_pdf(simple()), pki().department, pki())
    return append(signed, {5: b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 1 1] /FontMatrix [1 0 0 1 0 0] >>"})


def _form(value: bytes = b"100") -> dict[int, bytes]:
    objects = simple(page=b"/Annots [6 0 R]", root=b"/AcroForm << /Fields [6 0 R] /DR << /Font << /Helv 5 0 R >> >> >>")
    objects[6] = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (sum) /V (%s) /Rect [72 600 300 620] /P 3 0 R /F 4 "
        b"/DA (/Helv 12 Tf 0 g) /AP << /N 7 0 R >> >>" % value
    )
    objects[7] = stream(
        b"/Tx BMC BT /Helv 12 Tf (%s) Tj ET EMC" % value,
        b"/Type /XObject /Subtype /Form /BBox [0 0 228 20] /Resources << /Font << /Helv 5 0 R >> >>",
    )
    return objects


def form_refilled() -> bytes:
    """Shadow, replace: a text field is filled anew."""
    signed = documents.sign(simple_pdf(_form()), pki().department, pki())
    new = _form(b"900")
    return append(signed, {6: new[6], 7: new[7]})


def form_looks_only() -> bytes:
    """The looks of a field change, its value stays."""
    signed = documents.sign(simple_pdf(_form()), pki().department, pki())
    return append(signed, {7: _form(b"900")[7]})


def form_lies() -> bytes:
    """Shadow, replace, before the swap: a field shows other words than it holds."""
    objects = _form(b"Nine hundred")
    objects[7] = objects[7].replace(b"(Nine hundred)", b"(One hundreds)")
    return documents.sign(simple_pdf(objects), pki().department, pki())


def seal_repainted() -> bytes:
    """The looks of a signature that is already there are changed."""
    data = one()
    field = number_of(data, b"/FT /Sig")
    looks = re.search(rb"/AP\s*<<\s*/N\s*(\d+) 0 R", current(data, field))
    assert looks is not None
    return append(data, {int(looks[1]): FALSE_LOOKS})


def _with_object_stream(swap: bool) -> bytes:
    """A PDF 1.5 whose page objects stand in an object stream, signed; swap: the stream is replaced afterwards."""

    def packed(words: bytes) -> bytes:
        members = {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            3: _page(4 if words == b"old" else 6),
            5: HELVETICA,
        }
        index, bodies = b"", b""
        for number, body in members.items():
            index += b"%d %d " % (number, len(bodies))
            bodies += body + b" "
        return stream(index + bodies, b"/Type /ObjStm /N %d /First %d" % (len(members), len(index)))

    out = bytearray(b"%PDF-1.5\n")
    offsets = {}
    for number, body in ((4, _text(b"Total: 100 dong")), (6, _text(b"Total: 900 dong")), (7, packed(b"old"))):
        offsets[number] = len(out)
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    at = len(out)
    rows = [(0, 0, 255), (2, 7, 0), (2, 7, 1), (2, 7, 2), (1, offsets[4], 0), (2, 7, 3), (1, offsets[6], 0)]
    rows += [(1, offsets[7], 0), (1, at, 0)]
    table = b"".join(bytes([kind]) + a.to_bytes(4, "big") + bytes([b]) for kind, a, b in rows)
    out += b"8 0 obj\n" + stream(table, b"/Type /XRef /Size 9 /W [1 4 1] /Root 1 0 R") + b"\nendobj\n"
    out += b"startxref\n%d\n%%%%EOF\n" % at
    signed = documents.sign(bytes(out), pki().department, pki())
    if not swap:
        return signed
    body = bytearray(signed if signed.endswith(b"\n") else signed + b"\n")
    place = len(body)
    body += b"7 0 obj\n" + packed(b"new") + b"\nendobj\n"
    at = len(body)
    rows = [(1, place, 0), (1, at, 0)]
    fresh = size(signed)
    table = b"".join(bytes([kind]) + a.to_bytes(4, "big") + bytes([b]) for kind, a, b in rows)
    head = b"/Type /XRef /Size %d /W [1 4 1] /Index [7 1 %d 1] /Root 1 0 R /Prev %d" % (
        fresh + 1,
        fresh,
        startxref(signed),
    )
    body += b"%d 0 obj\n" % fresh + stream(table, head) + b"\nendobj\nstartxref\n%d\n%%%%EOF\n" % at
    return bytes(body)


def hybrid_conflict() -> bytes:
    """An update in hybrid form: readers of tables see the signed page, readers of streams see another."""
    data = one()
    page, fresh = page_number(data), next_number(data)
    out = bytearray(data if data.endswith(b"\n") else data + b"\n")
    places = {}
    for number, body in new_content(data).items():
        places[number] = len(out)
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    at = len(out)
    table = b"".join(b"\x01" + places[number].to_bytes(4, "big") + b"\0" for number in (page, fresh))
    head = b"/Type /XRef /Size %d /W [1 4 1] /Index [%d 1 %d 1]" % (fresh + 2, page, fresh)
    out += b"%d 0 obj\n" % (fresh + 1) + stream(table, head) + b"\nendobj\n"
    begin = len(out)
    old = re.search(rb"(?<!\d)%d 0 obj" % page, data)
    assert old is not None
    trailer = b"trailer\n<< /Size %d /Root %s /Prev %d /XRefStm %d >>\nstartxref\n%d\n%%%%EOF\n"
    out += (b"xref\n%d 1\n%010d 00000 n \n" + trailer) % (
        page, old.start(), fresh + 2, last_root(data), startxref(data), at, begin,
    )  # fmt: skip
    return bytes(out)


def page_added() -> bytes:
    data = one()
    found = re.search(rb"(\d+) 0 obj\s*<<(?:(?!endobj).)*?/Type\s*/Pages\b", data, re.S)
    assert found is not None
    tree, fresh = int(found[1]), next_number(data)
    body = re.sub(rb"/Kids\s*\[([^\]]*)\]", rb"/Kids [\1 %d 0 R]" % fresh, current(data, tree))
    body = re.sub(rb"/Count\s+1\b", b"/Count 2", body)
    return append(data, {tree: body, fresh: _page(fresh + 1, parent=tree), fresh + 1: FALSE_TEXT})


# -- objects with two names: a part that may change is a part that may not ---------------------------------------------


def signed_simple(objects: dict[int, bytes]) -> bytes:
    return documents.sign(simple_pdf(objects), pki().department, pki())


def content_called_information() -> bytes:
    data = signed_simple(simple())
    return append(data, {4: _text(b"Total: 900 dong")}, extra=b"/Info 4 0 R ")


def font_called_information() -> bytes:
    """The signed file itself calls its font file information."""
    plain_file = simple_pdf(simple()).replace(b"/Root 1 0 R >>", b"/Root 1 0 R /Info 5 0 R >>")
    data = documents.sign(plain_file, pki().department, pki())
    return append(data, {5: b"<< /Type /Font /Subtype /Type3 >>"}, extra=b"/Info 5 0 R ")


def content_called_validation_data() -> bytes:
    data = signed_simple(simple(root=b"/DSS << /Certs [4 0 R] >>"))
    return append(data, {4: _text(b"Total: 900 dong")})


def content_called_extensions() -> bytes:
    data = signed_simple(simple(root=b"/Extensions << /X 5 0 R >>"))
    return append(data, {5: b"<< /Type /Font /Subtype /Type3 >>"})


def annotations_called_content() -> bytes:
    objects = simple(page=b"/Annots 6 0 R")
    objects[3] = objects[3].replace(b"/Contents 4 0 R", b"/Contents 6 0 R")
    objects[6] = b"[4 0 R]"
    data = signed_simple(objects)
    fresh = next_number(data)
    return append(data, {6: current(data, 6).replace(b"]", b" %d 0 R]" % fresh), fresh: FALSE_TEXT})


def fields_called_pages() -> bytes:
    objects = simple(root=b"/AcroForm << /Fields 6 0 R >>")
    objects[2] = b"<< /Type /Pages /Kids 6 0 R /Count 1 >>"
    objects[6] = b"[3 0 R]"
    data = signed_simple(objects)
    fresh = next_number(data)
    evil = _page(fresh + 1, b"/FT /Sig /T (x)")
    return append(data, {6: current(data, 6).replace(b"]", b" %d 0 R]" % fresh), fresh: evil, fresh + 1: FALSE_TEXT})


def resources_shared() -> bytes:
    """The page's text names a font that does not exist; the form's resources, which are the page's, get it later."""
    objects = simple(root=b"/AcroForm << /Fields [] /DR 6 0 R >>")
    objects[3] = objects[3].replace(b"/Resources << /Font << /F1 5 0 R >> >>", b"/Resources 6 0 R")
    objects[4] = stream(b"BT /F1 20 Tf 72 700 Td (Total: 100 dong) Tj /F9 20 Tf ( and 900 million) Tj ET")
    objects[6] = b"<< /Font 7 0 R >>"
    objects[7] = b"<< /F1 5 0 R >>"
    data = signed_simple(objects)
    return append(data, {7: b"<< /F1 5 0 R /F9 5 0 R >>"})


def font_called_structure() -> bytes:
    objects = simple(root=b"/StructTreeRoot << /Type /StructTreeRoot /K 5 0 R >>")
    objects[5] = b"<< /Type /StructElem /Subtype /Type1 /BaseFont /Helvetica >>"
    data = signed_simple(objects)
    return append(data, {5: b"<< /Type /StructElem /Subtype /Type3 /BaseFont /Symbol >>"})


#: A font whose shape for `1` is that of `9`.
OTHER_LETTERS = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding << /Differences [49 /nine] >> >>"


def _field_without_looks(form: bytes, look: bytes, eighth: bytes = HELVETICA) -> bytes:
    """Signed, with a text field that has no appearance: viewers draw its value with the form's fonts."""
    objects = simple(root=b"/AcroForm 7 0 R", page=b"/Annots [6 0 R]")
    field = b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (sum) /V (100) /F 4 /Rect [72 600 300 630] /P 3 0 R %s >>"
    objects |= {6: field % look, 7: b"<< /Fields [6 0 R] %s >>" % form, 8: eighth}
    return signed_simple(objects)


def _form_again(data: bytes, key: bytes, value: bytes, more: dict[int, bytes] | None = None) -> bytes:
    return append(data, {7: with_key(current(data, 7), key, value), **(more or {})})


def field_font_added() -> bytes:
    data = _field_without_looks(
        b"/DR 8 0 R /DA (/Helv 0 Tf 0 g)", b"/DA (/F9 12 Tf 0 g)", b"<< /Font << /Helv 5 0 R >> >>"
    )
    fresh = next_number(data)
    return append(data, {8: b"<< /Font << /Helv 5 0 R /F9 %d 0 R >> >>" % fresh, fresh: OTHER_LETTERS})


def field_fonts_added() -> bytes:
    data = _field_without_looks(b"/DA (/Helv 0 Tf 0 g)", b"/DA (/Helv 12 Tf 0 g)")
    fresh = next_number(data)
    return _form_again(data, b"DR", b"<< /Font << /Helv %d 0 R >> >>" % fresh, {fresh: OTHER_LETTERS})


def field_font_named() -> bytes:
    data = _field_without_looks(b"/DR << /Font << /Helv 5 0 R /F9 8 0 R >> >> /DA (/Helv 0 Tf 0 g)", b"", OTHER_LETTERS)
    return _form_again(data, b"DA", b"(/F9 12 Tf 0 g)")


def field_font_changed() -> bytes:
    """Without a /Type, as no viewer minds: it looks like one more list of names, which may grow."""
    form = b"/DR << /Font << /Helv 8 0 R >> >> /DA (/Helv 0 Tf 0 g)"
    data = _field_without_looks(form, b"", b"<< /Subtype /Type1 /BaseFont /Helvetica >>")
    return append(data, {8: OTHER_LETTERS.replace(b"/Type /Font ", b"")})


def field_encoding_grown() -> bytes:
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding 9 0 R >>"
    form = b"/DR << /Font << /Helv 8 0 R >> /Encoding << /E 9 0 R >> >> /DA (/Helv 0 Tf 0 g)"
    objects = simple(root=b"/AcroForm 7 0 R", page=b"/Annots [6 0 R]")
    objects[6] = b"<< /Subtype /Widget /FT /Tx /T (sum) /V (100) /F 4 /Rect [72 600 300 630] /P 3 0 R >>"
    objects |= {7: b"<< /Fields [6 0 R] %s >>" % form, 8: font, 9: b"<< /BaseEncoding /WinAnsiEncoding >>"}
    data = signed_simple(objects)
    return append(data, {9: b"<< /BaseEncoding /WinAnsiEncoding /Differences [49 /nine] >>"})


#: Name, maker. Every file must end in a state that is no kind of valid.
ATTACKS: dict[str, Callable[[], bytes]] = {
    "usf: no byte range": usf(_RANGE, b""),
    "usf: byte range null": usf(_RANGE, b"/ByteRange null"),
    "usf: byte range empty": usf(_RANGE, b"/ByteRange []"),
    "usf: byte range of two": usf(_RANGE, b"/ByteRange [0 100]"),
    "usf: byte range of six": usf(_RANGE, b"/ByteRange [0 10 20 10 30 10]"),
    "usf: byte range negative": usf(_RANGE, b"/ByteRange [0 -1 20 -1]"),
    "usf: byte range of names": usf(_RANGE, b"/ByteRange [/a /b /c /d]"),
    "usf: byte range all zero": usf(_RANGE, b"/ByteRange [0 0 0 0]"),
    "usf: no value": usf(_VALUE, b""),
    "usf: value null": usf(_VALUE, b"/Contents null"),
    "usf: value empty": usf(_VALUE, b"/Contents <>"),
    "usf: value zero": usf(_VALUE, b"/Contents <00000000>"),
    "usf: value is text": usf(_VALUE, b"/Contents (none)"),
    "usf: no sub-filter": usf(rb"/SubFilter\s*/[\w.]+", b""),
    "usf: no filter": usf(rb"/Filter\s*/[\w.]+", b""),
    "usf: in place, no byte range": in_place(rb"/ByteRange", b"/XyteRange"),
    "usf: in place, no value": in_place(rb"/Contents <30", b"/Xontents <30"),
    "usf: in place, byte range all zero": in_place(_RANGE, b"/ByteRange [0 0 0 0]"),
    "usf: in place, filter": in_place(rb"/Filter /Adobe.PPKLite", b"/Filter /None"),
    "isa: page content": page_update(lambda body, n: with_key(body, b"Contents", b"%d 0 R" % n), {0: FALSE_TEXT}),
    "isa: page resources": page_update(lambda body, n: with_key(body, b"Resources", b"<< >>")),
    "isa: page box": page_update(lambda body, n: with_key(body, b"MediaBox", b"[0 0 595 400]")),
    "isa: page rotation": page_update(lambda body, n: with_key(body, b"Rotate", b"180")),
    "isa: page action": page_update(lambda body, n: with_key(body, b"AA", b"<< /O << /S /JavaScript /JS (x) >> >>")),
    "isa: page unit": page_update(lambda body, n: with_key(body, b"UserUnit", b"9")),
    "isa: page added": page_added,
    "isa: open action": root_update(b"OpenAction", b"<< /S /JavaScript /JS (app.alert(1)) >>"),
    "isa: names": root_update(b"Names", b"<< /JavaScript << /Names [(x) << /S /JavaScript /JS (x) >>] >> >>"),
    "isa: layers": root_update(b"OCProperties", b"<< /OCGs [] /D << >> >>"),
    "isa: another catalogue": own_root,
    "isa: loose bytes": loose_bytes,
    "isa: loose table": loose_table,
    "isa: chain cut": cut_chain,
    "isa: object stream replaced": object_stream_replaced,
    "isa: hybrid conflict": hybrid_conflict,
    "swa: objects in the value": wrapped(b"\n1 0 obj\n<< >>\nendobj\n"),
    "swa: byte range in the value": wrapped(b" /ByteRange [0 10 20 30] "),
    "swa: range shifted": shifted_range,
    "swa: not from the start": not_from_start,
    "swa: doubled key": doubled_key,
    "file before the file": another_before,
    "annotation: text": annotation(b"FreeText", b"/Contents (10 000 000 000)"),
    "annotation: stamp": annotation(b"Stamp"),
    "annotation: widget that is no signature": annotation(b"Widget", b"/FT /Tx /T (x)"),
    "annotation: with action": annotation(b"Link", b"/A << /S /URI /URI (http://x.example) >>"),
    "certification: evil annotation": evil_annotation,
    "certification: sneaky signature": sneaky_signature,
    "certification: sneaky field": sneaky_field,
    "certification: signed against it": signed_against_certification,
    "shadow: hide and replace, done": hidden_then_shown,
    "shadow: hide and replace, prepared": hidden_not_shown,
    "shadow: hide, cover freed": overlay_removed,
    "shadow: hide, cover renamed": overlay_renamed,
    "shadow: replace, font": font_replaced,
    "shadow: replace, undefined object": dangling,
    "shadow: replace, form value": form_refilled,
    "shadow: replace, form looks": form_looks_only,
    "shadow: replace, form prepared": form_lies,
    "two names: content, information": content_called_information,
    "two names: font, information": font_called_information,
    "two names: content, validation data": content_called_validation_data,
    "two names: font, extensions": content_called_extensions,
    "two names: annotations, content": annotations_called_content,
    "two names: fields, pages": fields_called_pages,
    "two names: resources": resources_shared,
    "two names: font, structure": font_called_structure,
    "font of a field: added": field_font_added,
    "font of a field: added with all resources": field_fonts_added,
    "font of a field: another named": field_font_named,
    "font of a field: changed": field_font_changed,
    "font of a field: encoding grown": field_encoding_grown,
    "seal repainted": seal_repainted,
    "two fields, one value": two_fields_one_value,
    "removed: form": removed_form,
    "removed: value": removed_value,
}


def by_hand(subfilter: str, value: Callable[[bytes], bytes], more: bytes = b"") -> bytes:
    """A signature dictionary written by hand; `value` makes the value from the bytes signed."""
    data = simple_pdf(simple())
    field, room = next_number(data), 8192
    dictionary = b"<< /Type /Sig /Filter /Adobe.PPKLite /SubFilter /%s /ByteRange [0 %s] /Contents <%s> %s >>"
    made = append(
        data,
        {
            1: b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [%d 0 R] /SigFlags 3 >> >>" % field,
            field: b"<< /Type /Annot /Subtype /Widget /FT /Sig /T (Old) /Rect [0 0 0 0] /P 3 0 R /V %d 0 R >>"
            % (field + 1),
            field + 1: dictionary % (subfilter.encode(), b"*" * 32, b"0" * room, more),
        },
    )
    begin = made.rindex(b"<" + b"0" * room)
    end = begin + room + 2
    made = made.replace(b"*" * 32, (b"%d %d %d" % (begin, end, len(made) - end)).ljust(32))
    digits = value(made[:begin] + made[end:]).hex().encode()
    return made[: begin + 1] + digits + made[begin + 1 + len(digits) :]


def pkcs7_sha1() -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    def value(signed: bytes) -> bytes:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(hashlib.sha1(signed).digest())
        builder = builder.add_signer(pki().department.certificate, pki().department.key, hashes.SHA256())
        return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])

    return by_hand("adbe.pkcs7.sha1", value)


def x509_rsa_sha1() -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    def value(signed: bytes) -> bytes:
        signature = pki().department.key.sign(signed, padding.PKCS1v15(), hashes.SHA1())
        return b"\x04\x82" + len(signature).to_bytes(2, "big") + signature

    return by_hand("adbe.x509.rsa_sha1", value, b"/Cert <%s>" % pki().department.der.hex().encode())


def encrypted() -> bytes:
    """Opens without a password, and is signed."""
    import io

    from pypdf import PdfReader, PdfWriter

    writer, out = PdfWriter(PdfReader(io.BytesIO(plain()))), io.BytesIO()
    writer.encrypt("", "owner", algorithm="AES-128")
    writer.write(out)
    return documents.sign(out.getvalue(), pki().department, pki())


def with_validation_data() -> bytes:
    """A document security store with revocation lists, put on without a further signature (PAdES-LT)."""
    data, root = one(), root_number(one())
    fresh, lists = next_number(data), list(pki().crls(NOW).values())
    listed = b" ".join(b"%d 0 R" % (fresh + place) for place in range(len(lists)))
    objects = {fresh + place: stream(body) for place, body in enumerate(lists)}
    return append(data, {root: with_key(current(data, root), b"DSS", b"<< /CRLs [%s] >>" % listed), **objects})


def _lta() -> bytes:
    """One signature, then a document time-stamp over it."""
    return documents.timestamp_document(one(), pki())


#: Name, maker, number of signatures that must all be VALID.
GENUINE: dict[str, tuple[Callable[[], bytes], int]] = {
    "one": (one, 1),
    "two": (two, 2),
    "invisible": (lambda: documents.sign(plain(), pki().department, pki()), 1),
    "person only": (lambda: documents.sign(plain(), pki().leader, pki()), 1),
    "pades": (lambda: documents.sign(plain(), pki().department, pki(), subfilter="ETSI.CAdES.detached"), 1),
    "mixed formats": (
        lambda: documents.sign(one(), pki().leader, pki(), field="B", subfilter="ETSI.CAdES.detached"),
        2,
    ),
    "sha384": (lambda: documents.sign(plain(), pki().department, pki(), digest="sha384"), 1),
    "sha512": (lambda: documents.sign(plain(), pki().department, pki(), digest="sha512"), 1),
    "pss": (lambda: documents.sign(plain(), pki().department, pki(), pss=True), 1),
    "validation data after": (with_validation_data, 1),
    "certified": (lambda: documents.sign(plain(), pki().department, pki(), certify=2), 1),
    "certified, then signed": (
        lambda: documents.sign(
            documents.sign(plain(), pki().leader, pki(), certify=2), pki().department, pki(), field="B"
        ),
        2,
    ),
    "certified against change, time-stamped": (
        lambda: documents.timestamp_document(documents.sign(plain(), pki().leader, pki(), certify=1), pki()),
        2,
    ),
    "business": (lambda: documents.sign(plain(), pki().business, pki()), 1),
    **{f"{count} signatures": (lambda count=count: many(count), count) for count in (3, 4, 5, 7)},
    "white space after": (lambda: one() + b"\r\n", 1),
    "junk before": (lambda: b"\x01\x02junk of a portal\n" + one(), 1),
    "object streams": (lambda: _with_object_stream(swap=False), 1),
    "document time-stamp": (_lta, 2),
    "three pages": (lambda: documents.sign(documents.pdf(PAPER, pages=3), pki().department, pki()), 1),
    "info updated": (lambda: append(one(), {next_number(one()): b"<< /Title (x) >>"},
                                    extra=b"/Info %d 0 R " % next_number(one())), 1),
    "scan": (lambda: documents.sign(documents.scan(PAPER, seal="DEMO"), pki().department, pki()), 1),
    "encrypted, no password": (encrypted, 1),
    "simple": (lambda: documents.sign(simple_pdf(simple()), pki().department, pki()), 1),
    "form": (lambda: documents.sign(simple_pdf(_form()), pki().department, pki()), 1),
}  # fmt: skip
