"""What files are, what is in them, and the limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import text_corpus as corpus
from gateway.config import Budget
from gateway.inspection import containers, examine
from tests.data.inspection import ole

BUDGET = Budget()
SMALL = Budget(container_files=20, container_bytes=4 << 20, container_ratio=100)


def names(expansion: containers.Expansion) -> list[str]:
    return [member.name for member in expansion.members]


def values(expansion: containers.Expansion) -> set[str]:
    return {finding.value for finding in expansion.findings if finding.kind == "uninspectable"}


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (b"%PDF-1.4\n", "a.doc", "pdf"), (b"\r\njunk%PDF-1.7\n", "a.pdf", "pdf"), (b"{\\rtf1 x}", "a.doc", "rtf"),
        (b"MZ" + b"\0" * 58 + struct.pack("<I", 64) + b"PE\0\0", "a.pdf", "exe"), (b"\x7fELF" + b"\0" * 60, "a", "elf"),
        (b"L\0\0\0\x01\x14\x02\0" + b"\0" * 60, "a.pdf", "lnk"), (b"\xff\xd8\xff\xe0", "a.png", "jpg"),
        (b"Rar!\x1a\x07\x01\x00", "a.zip", "rar"), (b"7z\xbc\xaf\x27\x1c", "", "7z"), (b"\x1f\x8b\x08", "", "gz"),
        (b"\x78\x9f\x3e\x22", "winmail.dat", "tnef"), (b"BEGIN:VCALENDAR\r\n", "x", "ics"), (b"<html><body>",
        "a.txt", "html"),
        ("Kính gửi".encode(), "a.txt", "txt"), ("Kính gửi".encode("utf-16"), "a.txt", "txt"),
        (b"var x=new ActiveXObject('x')", "a", "js"),
        (b"x=1", "a.js", "js"), (b"On Error Resume Next\r\nDim x", "a.txt", "vbs"),
        (b"From: a@b\r\nSubject: x\r\n\r\nx", "a", "eml"),
        (b"\0\1\2\3" * 9, "a.txt", "unknown"), (b"", "a.pdf", "empty"), (b"-----BEGIN PGP MESSAGE-----\n", "a.asc",
        "pgp"),
    ],
)  # fmt: skip
def test_sniff(data: bytes, name: str, kind: str) -> None:
    assert containers.sniff(data, name) == kind


def test_sniff_packages() -> None:
    assert containers.sniff(corpus.docx("x"), "a.zip") == "docx"
    assert containers.sniff(corpus.xlsx([["x"]])) == "xlsx"
    assert containers.sniff(corpus.pptx(["x"])) == "pptx"
    assert containers.sniff(corpus.odt("x")) == "odt"
    assert containers.sniff(corpus.zipped({"META-INF/MANIFEST.MF": "x"})) == "jar"
    assert containers.sniff(corpus.zipped({"a.txt": "x"}), "a.docx") == "zip"


@given(st.binary(max_size=400))
def test_sniff_is_total(data: bytes) -> None:
    for start in (b"", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"MZ", b"<?xml"):
        assert containers.sniff(start + data, "a.b")


@pytest.mark.parametrize("kind", sorted(containers.CONTAINERS))
@settings(max_examples=30)
@given(data=st.binary(max_size=300))
def test_expand_is_total(kind: str, data: bytes) -> None:
    magic = {
        "zip": b"PK\x03\x04",
        "rar": b"Rar!\x1a\x07\x01\x00",
        "7z": b"7z\xbc\xaf\x27\x1c",
        "gz": b"\x1f\x8b\x08",
        "bz2": b"BZh9",
    }
    containers.expand(magic.get(kind, b"") + data, "x", kind, SMALL)


def test_zip_names_of_every_encoding() -> None:
    wanted = "thư mục/Báo cáo tháng.txt"
    assert containers.readable_name(wanted.encode()) == wanted
    assert (
        containers.readable_name(corpus.to_tcvn3("Quyết định số một.txt").encode("latin-1")) == "Quyết định số một.txt"
    )
    assert containers.readable_name("Quyêìt điònh môòt.txt".encode("cp1258", "ignore")).isprintable()
    data = corpus.zipped({wanted: "x"})
    assert containers.sniff(data) == "zip"
    assert names(containers.expand(data, "a.zip", "zip", BUDGET)) == [wanted]  # bit 11
    raw = bytearray(data)
    for at in _positions(raw, b"PK\x03\x04", 6) + _positions(raw, b"PK\x01\x02", 8):
        raw[at + 1] &= 0xF7  # the same UTF-8 bytes without bit 11, as old programs write
    assert names(containers.expand(bytes(raw), "a.zip", "zip", BUDGET)) == [wanted]


def _positions(data: bytes | bytearray, magic: bytes, offset: int) -> list[int]:
    found, at = [], data.find(magic)
    while at >= 0:
        found.append(at + offset)
        at = data.find(magic, at + 4)
    return found


def test_encrypted_zip_is_told_with_its_names() -> None:
    raw = bytearray(corpus.zipped({"a.txt": "x" * 50}))
    for at in _positions(raw, b"PK\x03\x04", 6) + _positions(raw, b"PK\x01\x02", 8):
        raw[at] |= 1
    expansion = containers.expand(bytes(raw), "a.zip", "zip", BUDGET)
    assert (
        expansion.encrypted
        and values(expansion) == {"encrypted"}
        and expansion.names == ["a.txt"]
        and not expansion.members
    )


def test_damaged_zip() -> None:
    data = corpus.zipped({"a.txt": "x" * 5000, "b.txt": "y" * 5000})
    cut = containers.expand(data[: len(data) // 2], "a.zip", "zip", BUDGET)
    assert cut.damaged
    broken = bytearray(data)
    broken[45] ^= 0xFF
    hurt = containers.expand(bytes(broken), "a.zip", "zip", BUDGET)
    assert hurt.damaged and "b.txt" in names(hurt)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_single_streams(compress) -> None:  # type: ignore[no-untyped-def]
    data = compress("Kính gửi".encode() * 100)
    kind = containers.sniff(data)
    expansion = containers.expand(data, f"thu.txt.{kind}", kind, BUDGET)
    assert [(m.name, m.data[:9]) for m in expansion.members] == [("thu.txt", "Kính gửi".encode()[:9])]
    cut = containers.expand(data[:-6], f"thu.txt.{kind}", kind, BUDGET)
    assert cut.damaged or cut.members


def test_tar() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("Báo cáo.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    expansion = containers.expand(out.getvalue(), "a.tar", "tar", BUDGET)
    assert [(m.name, m.data) for m in expansion.members] == [("Báo cáo.txt", b"abc")]


class TestBombs:
    """reliability.md M3: each ends as a fact, quickly."""

    def test_ratio(self) -> None:
        data = corpus.zipped({"a.txt": bytes(3 << 20)})
        assert values(containers.expand(data, "a.zip", "zip", SMALL)) == {"ratio"}

    def test_bytes(self) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for n in range(6):
                archive.writestr(f"{n}", bytes(1 << 20))
        assert values(containers.expand(out.getvalue(), "a.zip", "zip", SMALL)) == {"too_large"}

    def test_count(self) -> None:
        data = corpus.zipped({f"{n}.txt": "x" for n in range(30)})
        assert values(containers.expand(data, "a.zip", "zip", SMALL)) == {"too_many"}

    def test_a_hundred_thousand_entries(self) -> None:
        entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
        directory = entry * 100_000
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 0, 0)
        assert values(containers.expand(directory + end, "a.zip", "zip", BUDGET)) == {"too_many"}

    @pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
    def test_streams(self, compress) -> None:  # type: ignore[no-untyped-def]
        data = compress(bytes(6 << 20))
        assert values(containers.expand(data, "a", containers.sniff(data), SMALL)) & {"ratio", "too_large"}

    def test_gzip_of_gzips(self) -> None:
        data = gzip.compress(b"x") * 50_000
        assert values(containers.expand(data, "a.gz", "gz", BUDGET)) == {"too_many"}
        few = containers.expand(gzip.compress(b"x") * 50, "a.gz", "gz", BUDGET)
        assert few.members[0].data == b"x" * 50

    def test_overlapping_members(self) -> None:
        """Many directory entries that point to one compressed kernel (a "better zip bomb")."""
        kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = kernel.compress(bytes(1 << 20)) + kernel.flush()
        local = (
            struct.pack(
                "<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, zlib.crc32(bytes(1 << 20)), len(body), 1 << 20, 1, 0
            )
            + b"a"
            + body
        )
        entries = b"".join(
            struct.pack(
                "<4s6H3I5H2I",
                b"PK\x01\x02",
                20,
                20,
                0,
                8,
                0,
                0,
                zlib.crc32(bytes(1 << 20)),
                len(body),
                1 << 20,
                1,
                0,
                0,
                0,
                0,
                0,
                0,
            )
            + b"a"
            for _ in range(300)
        )
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 300, 300, len(entries), len(local), 0)
        expansion = containers.expand(local + entries + end, "a.zip", "zip", BUDGET)
        assert values(expansion) & {"ratio", "too_large", "unknown_container"}
        assert sum(len(m.data) for m in expansion.members) <= 200 << 20


class TestPolyglots:
    def test_pdf_and_zip(self) -> None:
        assert "zip" in list(containers.foreign_signatures(b"%PDF-1.4\n" + corpus.zipped({"a": "x"}), "pdf"))

    def test_picture_and_zip(self) -> None:
        assert "zip" in list(
            containers.foreign_signatures(b"\xff\xd8\xff\xe0" + bytes(99) + corpus.zipped({"a": "x"}), "jpg")
        )

    def test_picture_and_pdf(self) -> None:
        assert "pdf" in list(containers.foreign_signatures(b"GIF89a" + bytes(20) + b"%PDF-1.4", "gif"))

    def test_plain_files_are_none(self) -> None:
        for data in (
            corpus.pdf("Kính gửi"),
            corpus.docx("x"),
            corpus.zipped({"a": "x"}),
            b"\xff\xd8\xff\xe0" + bytes(5000),
        ):
            assert list(containers.foreign_signatures(data, containers.sniff(data))) == []


@pytest.mark.skipif(shutil.which("7z") is None, reason="no 7z to make archives with")
class TestSevenZip:
    def made(self, folder: Path, *options: str, kind: str = "7z") -> bytes:
        (folder / "Báo cáo.txt").write_text("MẬT\n" * 9, encoding="utf-8")
        subprocess.run(
            ["7z", "a", f"-t{kind}", *options, "x.out", "Báo cáo.txt"], cwd=folder, check=True, capture_output=True
        )
        return next(folder.glob("x.*")).read_bytes()

    def test_plain(self, tmp_path: Path) -> None:
        expansion = containers.expand(self.made(tmp_path), "a.7z", "7z", BUDGET)
        assert names(expansion) == ["Báo cáo.txt"] and not expansion.findings

    @pytest.mark.parametrize("options", [("-pbimat",), ("-pbimat", "-mhe=on")])
    def test_encrypted(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        expansion = containers.expand(self.made(tmp_path, *options), "a.7z", "7z", BUDGET)
        assert expansion.encrypted and "encrypted" in values(expansion) and not expansion.members

    def test_aes_zip(self, tmp_path: Path) -> None:
        expansion = containers.expand(self.made(tmp_path, "-pbimat", "-mem=AES256", kind="zip"), "a.zip", "zip", BUDGET)
        assert expansion.encrypted and "encrypted" in values(expansion) and not expansion.members


def _rar5(name: str, content: bytes, *, encrypted: bool = False) -> bytes:
    """A RAR 5 archive with one stored file, after the published format."""

    def vint(n: int) -> bytes:
        out = bytearray()
        while True:
            out.append((n & 0x7F) | (0x80 if n > 0x7F else 0))
            n >>= 7
            if not n:
                return bytes(out)

    def block(body: bytes) -> bytes:
        sized = vint(len(body)) + body
        return struct.pack("<I", zlib.crc32(sized)) + sized

    raw = name.encode()
    extra = b""
    if encrypted:
        record = vint(1) + vint(0) + vint(0) + bytes([15]) + bytes(16) + bytes(16)
        extra = vint(len(record)) + record
    flags = 2 | (1 if extra else 0)
    head = vint(2) + vint(flags) + (vint(len(extra)) if extra else b"") + vint(len(content))
    head += (
        vint(4)
        + vint(len(content))
        + vint(0o644)
        + struct.pack("<I", zlib.crc32(content))
        + vint(0)
        + vint(0)
        + vint(len(raw))
        + raw
        + extra
    )
    return (
        b"Rar!\x1a\x07\x01\x00"
        + block(vint(1) + vint(0) + vint(0))
        + block(head)
        + content
        + block(vint(5) + vint(0) + vint(0))
    )


def test_rar() -> None:
    data = _rar5("Báo cáo.txt", b"abc")
    assert containers.sniff(data) == "rar"
    expansion = containers.expand(data, "a.rar", "rar", BUDGET)
    assert [(m.name, m.data) for m in expansion.members] == [("Báo cáo.txt", b"abc")] and not expansion.findings


def test_encrypted_rar() -> None:
    expansion = containers.expand(_rar5("Báo cáo.txt", bytes(16), encrypted=True), "a.rar", "rar", BUDGET)
    assert expansion.encrypted and "encrypted" in values(expansion) and expansion.names == ["Báo cáo.txt"]


def test_rar_without_content_is_uninspectable() -> None:
    data = _rar5("a.txt", b"abc" * 100)
    expansion = containers.expand(data[:60], "a.rar", "rar", BUDGET)
    assert values(expansion)


def test_the_subject_of_a_message_is_told() -> None:
    message = ole.msg("[MẬT] Báo cáo", "x", {})
    assert containers.expand(message, "a.msg", "msg", BUDGET).subject == "[MẬT] Báo cáo"
    found = examine.examine_file(message, "a.msg", examine.Settings()).findings
    assert [(f.value, f.grade) for f in found if f.kind == "secrecy"] == [("mat", "strong")]


def test_the_body_of_a_winmail_ends_where_its_string_ends() -> None:
    found = examine.examine_file(
        ole.tnef("a.txt", b"abc", "Kính gửi\nMẬT\nx"), "winmail.dat", examine.Settings()
    ).findings
    assert [(f.kind, f.value, f.grade) for f in found] == [("secrecy", "mat", "strong")]
