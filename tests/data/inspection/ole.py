"""A compound file ([MS-CFB]) of given streams, and Office files of the 1990s made with it."""

from __future__ import annotations

import struct

_FREE, _END, _FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def compound(streams: dict[str, bytes]) -> bytes:
    """`storage/stream` → content. Streams under 4096 bytes go to the mini stream, as the format demands."""
    nodes: list[dict] = [{"name": "Root Entry", "type": 5, "children": []}]
    places: dict[str, int] = {"": 0}

    def node(path: str, kind: int, content: bytes = b"") -> int:
        parent, _, name = path.rpartition("/")
        if parent not in places:
            places[parent] = node(parent, 1)
        nodes.append({"name": name, "type": kind, "children": [], "data": content})
        nodes[places[parent]]["children"].append(len(nodes) - 1)
        return len(nodes) - 1

    for path, content in streams.items():
        places[path] = node(path, 2, content)
    mini, mini_fat = bytearray(), []
    for entry in nodes:
        if entry["type"] == 2 and len(entry["data"]) < 4096:
            entry["start"] = len(mini) // 64 if entry["data"] else _END
            count = -(-len(entry["data"]) // 64)
            mini_fat += [*range(len(mini_fat) + 1, len(mini_fat) + count), _END] if count else []
            mini += entry["data"].ljust(count * 64, b"\0")
    nodes[0]["data"] = bytes(mini)
    sectors: list[bytes] = []
    fat: list[int] = []

    def store(content: bytes) -> int:
        if not content:
            return _END
        start, count = len(sectors), -(-len(content) // 512)
        sectors.extend(content[n * 512 : n * 512 + 512].ljust(512, b"\0") for n in range(count))
        fat.extend([*range(start + 1, start + count), _END])
        return start

    for entry in nodes:
        if entry["type"] == 5 or (entry["type"] == 2 and len(entry["data"]) >= 4096):
            entry["start"] = store(entry["data"])
    mini_fat_at = store(struct.pack(f"<{len(mini_fat)}I", *mini_fat).ljust(-(-len(mini_fat) * 4 // 512) * 512, b"\xff"))
    right: dict[int, int] = {}
    for entry in nodes:
        for one, following in zip(entry["children"], entry["children"][1:], strict=False):
            right[one] = following
    directory = bytearray()
    for number, entry in enumerate(nodes):
        name = entry["name"].encode("utf-16-le") + b"\0\0"
        child = entry["children"][0] if entry["children"] else _FREE
        directory += name.ljust(64, b"\0") + struct.pack(
            "<HBBIII", len(name), entry["type"], 1, _FREE, right.get(number, _FREE), child
        )
        directory += bytes(16 + 4 + 16) + struct.pack("<IQ", entry.get("start", 0), len(entry.get("data", b"")))
    directory += bytes(-len(directory) % 512)
    directory_at = store(bytes(directory))
    count = 1
    while (len(fat) + count) > count * 128:
        count += 1
    fat_at = len(fat)
    fat += [_FAT] * count
    table = struct.pack(f"<{len(fat)}I", *fat).ljust(count * 512, b"\xff")
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<IIIIIIIII", 0, count, directory_at, 0, 4096, mini_fat_at, -(-len(mini_fat) // 128), _END, 0)
    head += struct.pack("<109I", *[*range(fat_at, fat_at + count), *[_FREE] * (109 - count)])
    return head + b"".join(sectors) + table


def doc(body: str, header: str = "", box: str = "", *, encrypted: bool = False, compressed: bool = False) -> bytes:
    """Word 97 to 2003 with a piece table of one piece: body, header, text box one after the other."""
    parts = [part.replace("\n", "\r") + "\r" if part else "" for part in (body, "", header, "", "", "", box, "")]
    content = "".join(parts)
    raw = content.encode("cp1252") if compressed else content.encode("utf-16-le")
    fib = bytearray(0x400)
    fib[0:2] = b"\xec\xa5"
    fib[0x0A:0x0C] = (0x0200 | (0x0100 if encrypted else 0)).to_bytes(2, "little")
    struct.pack_into("<8i", fib, 0x4C, *map(len, parts))
    offset = 0x400 * 2 | 0x40000000 if compressed else 0x400
    pieces = struct.pack("<II", 0, len(content)) + struct.pack("<HIH", 0, offset, 0)
    clx = b"\x02" + struct.pack("<I", len(pieces)) + pieces
    struct.pack_into("<II", fib, 0x1A2, 0, len(clx))
    return compound({"WordDocument": bytes(fib) + raw, "1Table": clx})


def ppt(lines: list[str], *, encrypted: bool = False) -> bytes:
    atoms = b""
    for line in lines:
        wide = line.encode("utf-16-le")
        atoms += struct.pack("<HHI", 0, 0x0FA0, len(wide)) + wide
    token = b"\xdf\xc4\xd1\xf3" if encrypted else b"\x5f\xc0\x91\xe3"
    user = struct.pack("<HHII", 0, 0x0FF6, 0x1C, 0x14) + token + bytes(16)
    return compound({"PowerPoint Document": struct.pack("<HHI", 0xF, 0x03E8, len(atoms)) + atoms, "Current User": user})


def xls(rows: list[list[str]], header: str = "", *, encrypted: bool = False) -> bytes:
    """BIFF 8: one sheet of LABELSST cells."""

    def record(kind: int, body: bytes) -> bytes:
        return struct.pack("<HH", kind, len(body)) + body

    def text(value: str, width: str = "H") -> bytes:
        return struct.pack(f"<{width}B", len(value), 1) + value.encode("utf-16-le")

    strings = [cell for row in rows for cell in row]
    start = record(0x809, struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 0))
    if encrypted:
        start += record(0x2F, bytes(54))
    shared = record(0xFC, struct.pack("<II", len(strings), len(strings)) + b"".join(text(s) for s in strings))
    bound_size = 4 + len(struct.pack("<IBB", 0, 0, 0) + text("Trang", "B"))
    at = len(start) + bound_size + len(shared) + 4
    bound = record(0x85, struct.pack("<IBB", at, 0, 0) + text("Trang", "B"))
    sheet = record(0x809, struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 0))
    if header:
        sheet += record(0x14, text("&C" + header))
    number = 0
    sheet += record(0x200, struct.pack("<IIHHH", 0, len(rows), 0, max(map(len, rows)), 0))
    for r, row in enumerate(rows):
        for c, _ in enumerate(row):
            sheet += record(0xFD, struct.pack("<HHHI", r, c, 0, number))
            number += 1
    return compound({"Workbook": start + bound + shared + record(0x0A, b"") + sheet + record(0x0A, b"")})


def msg(subject: str, body: str, files: dict[str, bytes]) -> bytes:
    """Outlook .msg with attachments."""
    streams = {
        "__properties_version1.0": bytes(32),
        "__substg1.0_0037001F": subject.encode("utf-16-le"),
        "__substg1.0_1000001F": body.encode("utf-16-le"),
    }
    for n, (name, data) in enumerate(files.items()):
        streams[f"__attach_version1.0_#{n:08X}/__substg1.0_3707001F"] = name.encode("utf-16-le")
        streams[f"__attach_version1.0_#{n:08X}/__substg1.0_37010102"] = data
    return compound(streams)


def tnef(name: str, data: bytes, body: str) -> bytes:
    """winmail.dat: one attachment and a body ([MS-OXTNEF] attributes with their checksums)."""

    def attribute(level: int, identifier: int, content: bytes) -> bytes:
        return struct.pack("<BII", level, identifier, len(content)) + content + struct.pack("<H", sum(content) & 0xFFFF)

    out = struct.pack("<IH", 0x223E9F78, 1) + attribute(1, 0x00089006, struct.pack("<I", 0x10000))
    out += attribute(1, 0x0002800C, body.encode() + b"\0")
    out += attribute(2, 0x00069002, struct.pack("<HIIHH", 1, 0, 0, 0, 0)) + attribute(
        2, 0x00018010, name.encode() + b"\0"
    )
    return out + attribute(2, 0x0006800F, data)
