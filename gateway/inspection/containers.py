"""What a file is, by its content, and what is inside it when it is a container.

Names and declared types are claims of the sender and decide nothing here. Nothing is ever written to disk; sizes told
by an archive are not believed, what comes out is counted.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import locale
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway import mailfiles, vietnamese
from gateway.config import Budget
from gateway.inspection.findings import Finding

#: Streams one behind the other in a .gz, .bz2 or .xz; the rest is copied for each, so the time grows with the square.
MAX_STREAMS = 1000
CONTAINERS = frozenset({"zip", "rar", "7z", "tar", "gz", "bz2", "xz", "cab", "tnef", "eml", "mht", "mbox", "msg"})
#: Types that run when opened, or mount as a disk that holds what runs (rules.md ML-02).
EXECUTABLE = frozenset({"exe", "elf", "macho", "msi", "class", "jar", "apk", "deb", "rpm", "wasm"})
SCRIPT = frozenset(
    {"js", "vbs", "ps1", "bat", "sh", "hta", "wsf", "lnk", "iso", "vhd", "chm", "url", "scf", "reg", "py"}
)


# -- what it is ----------------------------------------------------------------------------------------------------

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "pdf"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"\x1f\x8b", "gz"),
    (0, b"BZh", "bz2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"MSCF", "cab"),
    (257, b"ustar", "tar"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"II*\x00", "tiff"),
    (0, b"MM\x00*", "tiff"),
    (0, b"II+\x00", "tiff"),
    (0, b"\x00\x00\x00\x0cjP  ", "jp2"),
    (0, b"8BPS", "psd"),
    (0, b"AT&TFORM", "djvu"),
    (0, b"\x78\x9f\x3e\x22", "tnef"),
    (0, b"\x7fELF", "elf"),
    (0, b"\xcf\xfa\xed\xfe", "macho"),
    (0, b"\xce\xfa\xed\xfe", "macho"),
    (0, b"\xfe\xed\xfa\xce", "macho"),
    (0, b"\xfe\xed\xfa\xcf", "macho"),
    (0, b"\x00asm", "wasm"),
    (0, b"L\x00\x00\x00\x01\x14\x02\x00", "lnk"),
    (0, b"ITSF", "chm"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhd"),
    (0x8001, b"CD001", "iso"),
    (0, b"!<arch>\ndebian", "deb"),
    (0, b"\xed\xab\xee\xdb", "rpm"),
    (0, b"{\\rtf", "rtf"),
    (0, b"{\\rt", "rtf"),
    (0, b"AC10", "dwg"),
    (0, b"\x00\x00\x27\x0a", "shp"),
    (128, b"DICM", "dicom"),
    (4, b"Standard Jet DB", "mdb"),
    (4, b"Standard ACE DB", "mdb"),
    (0, b"SQLite format 3", "sqlite"),
    (0, b"\xd7\xcd\xc6\x9a", "wmf"),
    (0, b"II\xbc\x01", "wdp"),
    (0, b"VCLMTF", "svm"),
    (0, b"ID3", "mp3"),
    (0, b"OggS", "ogg"),
    (0, b"\x1aE\xdf\xa3", "mkv"),
    (0, b"FWS", "swf"),
    (0, b"CWS", "swf"),
    (0, b"ZWS", "swf"),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "one"),
    (0, b"!BDN", "pst"),
    (0, b"-----BEGIN PGP", "pgp"),
    (0, b"-----BEGIN PKCS7", "p7s"),
    (0, b"-----BEGIN CMS", "p7s"),
    (0, b"-----BEGIN CERT", "crt"),
    (0, b"\x85\x01\x0c\x03", "pgp"),
    (0, b"\x85\x02\x0c\x03", "pgp"),
    (0, b"\x84\x8c\x03", "pgp"),
    (0, b"\x8c\x0d\x04", "pgp"),
    (0, b"age-encryption.org/v1", "age"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_TEXT_NAMES = {
    "js": "js", "jse": "js", "mjs": "js", "vbs": "vbs", "vbe": "vbs", "ps1": "ps1", "psm1": "ps1", "bat": "bat",
    "cmd": "bat",
    "hta": "hta", "wsf": "wsf", "wsh": "wsf", "url": "url", "scf": "scf", "reg": "reg", "sh": "sh", "py": "py",
    "csv": "csv",
    "xml": "xml", "edxml": "xml", "json": "json", "ics": "ics", "vcf": "vcf", "html": "html", "htm": "html",
    "eml": "eml", "mht": "mht", "mhtml": "mht",
}  # fmt: skip
_HTML = re.compile(rb"\s*+(?:<!--.{0,400}?-->\s*+)*+<(?:!doctype\s+html|html|head|body|script|table|div|p|meta|title|"
    rb"font|span|h\d|br|a)\b", re.IGNORECASE | re.DOTALL)  # fmt: skip
_HEADER = re.compile(
    rb"(?:(?:received|return-path|delivered-to|from|to|subject|date|message-id|mime-version|content-type|x-[\w-]+|"
    rb"dkim-signature|authentication-results|reply-to|sender|cc)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}",
    re.IGNORECASE,
)
_VBS = re.compile(rb"(?im)^[ \t]*+(?:on error resume next|dim \w+|set \w+\s*=\s*createobject\()")
_JS = re.compile(
    rb"(?:new\s+ActiveXObject\s*\(|WScript\.(?:Shell|CreateObject)|eval\s*\(\s*(?:unescape|atob)|"
    rb"String\.fromCharCode\()"
)
_PS = re.compile(
    rb"(?i)(?:new-object\s+(?:system\.)?net\.webclient|invoke-expression|\biex\s*\(|-encodedcommand|"
    rb"powershell(?:\.exe)?\s+-)"
)
_MAILBOX = re.compile(rb"From [^\n]{1,300}\n[!-9;-~]{1,80}:")
#: uuencode, yEnc, BinHex: programs open such a text as the file it holds.
_UU = re.compile(rb"(?m)^begin(?:-base64)? [0-7]{3,4} \S|^=ybegin |^\(This file must be converted with BinHex")
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def sniff(data: bytes, name: str = "") -> str:
    """The short type of a file by its content (the words of FileFacts.type); `unknown` when nothing fits.

    The name only tells kinds of plain text apart (`js` from `txt`, `csv`, `ics`).
    """
    head = data[:4096]
    if not head:
        return "empty"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK00PK\x03\x04", b"PK\x07\x08")):
        return _zip_type(data)
    if head.startswith(_OLE):
        return _ole_type(data, name)
    for offset, magic, kind in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return kind
    if head.startswith(b"MZ") and len(data) > 64:
        at = int.from_bytes(data[60:64], "little")
        if (
            data[at : at + 4] == b"PE\0\0"
            or data[at : at + 2] in (b"NE", b"LE")
            or b"DOS mode" in head
            or b"\0" in head[:64]
        ):
            return "exe"
    if head.startswith(b"\xca\xfe\xba\xbe"):
        return "macho" if 0 < int.from_bytes(head[4:8], "big") < 20 else "class"
    if head[4:8] == b"ftyp":
        return "heic" if head[8:11] in (b"hei", b"mif", b"avi") else "mp4"
    if head.startswith(b"RIFF"):
        return {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12], "unknown")
    if (
        head.startswith(b"BM")
        and len(data) >= 26
        and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    ):
        return "bmp"
    if head[40:44] == b" EMF" and head.startswith(b"\x01\x00\x00\x00"):
        return "emf"
    if head[:1] == b"\x30" and (oid := head[:64].find(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07")) >= 0:
        return {2: "p7s", 3: "p7m", 5: "p7m", 6: "p7m"}.get(head[oid + 10] if len(head) > oid + 10 else 0, "p7s")
    at = head[:1024].find(b"%PDF-")
    if at >= 0:  # some makers put a few bytes before it, and readers accept that within the first 1024
        return "pdf"
    return _text_type(data, head, name)


def _text_type(data: bytes, head: bytes, name: str) -> str:
    extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _TEXT_NAMES.get(extension, "txt")
    if _CONTROLS.search(head):
        return _TEXT_NAMES.get(extension, "txt") if _wide(head[:512]) else "tar" if _old_tar(head) else "unknown"
    stripped = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = stripped[:256].lower()
    if lower.startswith(b"begin:vcalendar"):
        return "ics"
    if lower.startswith(b"begin:vcard"):
        return "vcf"
    if lower.startswith(b"{\\rt"):
        return "rtf"
    if lower.startswith((b"<?xml", b"<svg")):
        if b"<svg" in head[:2048].lower():
            return "svg"
        return "html" if b"<html" in head[:1024].lower() else "xml"
    if _MAILBOX.match(stripped):
        return "mbox"
    if _UU.search(head):
        return "uu"
    if lower.startswith(b"mime-version:") or _HEADER.match(stripped):
        return "mht" if extension in ("mht", "mhtml") else "eml"
    named = lower.startswith(b"<") and b"xmlns" in head[:2048] and extension not in ("html", "htm", "hta", "wsf")
    if named and not _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "xml"
    if extension in _TEXT_NAMES:
        return _TEXT_NAMES[extension]
    if b"<hta:application" in head.lower():
        return "hta"
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "html"
    if head.startswith(b"#!"):
        return "sh"
    if _VBS.search(head):
        return "vbs"
    if _JS.search(head):
        return "js"
    if _PS.search(head):
        return "ps1"
    if lower.startswith((b"@echo off", b"@rem ")):
        return "bat"
    if lower.startswith(b"[internetshortcut]"):
        return "url"
    return "txt"


def _wide(sample: bytes) -> bool:
    """UTF-16 or UTF-32 without a mark: noughts stand in every second byte, or in three of four, and nowhere else."""
    zeros = [sample[n::4].count(0) for n in range(4)]
    most = len(sample) // 4
    full = [n for n in range(4) if zeros[n] * 3 > most]
    if len(sample) < 16 or not full or any(zeros[n] * 20 > most for n in range(4) if n not in full):
        return False
    odd = {n % 2 for n in full}
    fits = len(odd) == 1 if len(full) < 3 else len(full) == 3
    codec = ("utf-16-be", "utf-16-le")[max(odd)] if len(full) < 3 else "utf-32-be" if 0 in full else "utf-32-le"
    try:
        text = sample[: len(sample) // 4 * 4].decode(codec, "replace" if len(full) < 3 else "strict")
    except UnicodeDecodeError:
        return False
    return fits and not re.search("[\x00-\x08\x0e-\x1a\x1c-\x1f]", text)


def _old_tar(head: bytes) -> bool:
    """A TAR of the time before POSIX has no signature; its checksum tells it."""
    if len(head) < 512 or not (told := re.match(rb" *([0-7]{1,7})[\0 ]", head[148:156])):
        return False
    return int(told[1], 8) == sum(head[:148]) + 8 * 32 + sum(head[156:512])


def _zip_names(data: bytes) -> list[str]:
    """Names in the central directory (local headers where there is none), cheaply and without trust."""
    names: list[str] = []
    end = data.rfind(b"PK\x05\x06")
    at = data.find(b"PK\x01\x02") if end >= 0 else -1
    if end >= 0 and len(data) >= end + 20:
        size, offset = struct.unpack_from("<II", data, end + 12)
        for start in (offset, end - size):
            if data[start : start + 4] == b"PK\x01\x02":
                at = start
                break
    while 0 <= at <= len(data) - 46 and data[at : at + 4] == b"PK\x01\x02" and len(names) < 5000:
        length, extra, comment = struct.unpack_from("<HHH", data, at + 28)
        names.append(data[at + 46 : at + 46 + length].decode("latin-1"))
        at += 46 + length + extra + comment
    if not names:
        for found in re.finditer(b"PK\x03\x04", data):
            if found.start() + 30 > len(data) or len(names) >= 5000:
                break
            length = int.from_bytes(data[found.start() + 26 : found.start() + 28], "little")
            names.append(data[found.start() + 30 : found.start() + 30 + length].decode("latin-1"))
    return names


def _zip_type(data: bytes) -> str:
    mimetype = re.match(rb"PK\x03\x04.{22}\x08\x00(.{2})mimetype", data[:64], re.DOTALL)
    if mimetype:
        start = 38 + int.from_bytes(mimetype[1], "little")
        kind = data[start : start + 80]
        for ending, short in (
            (b"opendocument.text", "odt"),
            (b"opendocument.spreadsheet", "ods"),
            (b"opendocument.presentation", "odp"),
            (b"opendocument.graphics", "odg"),
            (b"epub+zip", "epub"),
        ):
            if ending in kind:
                return short
    names = _zip_names(data)
    known = set(names)
    if (
        "[Content_Types].xml" in known
        or "_rels/.rels" in known
        or any(n.lower() == "[content_types].xml" for n in known)
    ):
        for folder, short in (
            ("word/", "docx"),
            ("xl/", "xlsx"),
            ("ppt/", "pptx"),
            ("visio/", "vsdx"),
            ("FixedDocSeq", "xps"),
        ):
            if any(name.lower().replace("\\", "/").startswith(folder.lower()) for name in names):
                return short
    if "content.xml" in known and "META-INF/manifest.xml" in known:
        return "odt"
    if "AndroidManifest.xml" in known:
        return "apk"
    if "META-INF/MANIFEST.MF" in known:
        return "jar"
    return "zip"


def _ole_type(data: bytes, name: str) -> str:
    # Stream names of the directory are UTF-16; looking for them anywhere is enough to tell the kinds apart.
    def has(text: str) -> bool:
        return text.encode("utf-16-le") in data

    if has("EncryptedPackage"):
        extension = name.rsplit(".", 1)[-1].lower()
        return extension if extension in ("docx", "xlsx", "pptx") else "docx"
    if has("WordDocument"):
        return "doc"
    if has("PowerPoint Document"):
        return "ppt"
    if has("Workbook") or has("Book\0"):
        return "xls"
    if has("__properties_version1.0"):
        return "msg"
    if has("VisioDocument"):
        return "vsd"
    # MSI tables have names packed into the CJK range; U+4840 leads each of them.
    if b"\x40\x48" in data[512:] and (b"Installation Database" in data or data[512:].count(b"\x40\x48") >= 4):
        return "msi"
    return "ole"


# -- what is in it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a container. name: with folders, as a person would see it, NFC."""

    name: str
    data: bytes
    declared_type: str = ""
    inline: bool = False


@dataclass(slots=True)
class Expansion:
    """members: what could be read; names: all names the container lists, read or not; subject: of a message (`msg`,
    `tnef`).

    words: folders, comments, names that stand in it besides;
    encrypted, damaged: facts; findings: kind `uninspectable`, `ambiguous`, `filename`, with `about` left to the caller;
    reason: English, one line, when it could not be opened at all.
    """

    members: list[Member] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    encrypted: bool = False
    damaged: bool = False
    reason: str = ""
    subject: str = ""

    def ambiguous(self, value: str) -> None:
        if not any(f.kind == "ambiguous" and f.value == value for f in self.findings):
            self.findings.append(Finding(kind="ambiguous", value=value))

    def cannot(self, value: str, where: str = "") -> None:
        if not any(f.value == value and f.where == where for f in self.findings):
            self.findings.append(Finding(kind="uninspectable", value=value, where=where))


@dataclass(slots=True)
class Spent:
    """What one message has used of its budget so far, over all its containers."""

    files: int = 0
    bytes: int = 0


class _Full(Exception):
    """The budget is used up. value: too_many, too_large or ratio."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.value = value


class _Meter:
    """Counts what comes out of one container against what went in.

    The ratio counts only from a mebibyte of output on: a small file of blanks is no bomb.
    """

    def __init__(self, size: int, limits: Budget, spent: Spent) -> None:
        self._size, self._limits, self._spent, self._out = max(size, 1), limits, spent, 0

    def file(self) -> None:
        self._spent.files += 1
        if self._spent.files > self._limits.container_files:
            raise _Full("too_many")

    def declared(self, size: int) -> None:
        if self._spent.bytes + size > self._limits.container_bytes:
            raise _Full("too_large")

    def add(self, size: int) -> None:
        self._out += size
        self._spent.bytes += size
        if self._out > 1 << 20 and self._out > self._size * self._limits.container_ratio:
            raise _Full("ratio")
        if self._spent.bytes > self._limits.container_bytes:
            raise _Full("too_large")


def expand(data: bytes, name: str, type: str, limits: Budget, spent: Spent | None = None) -> Expansion:
    """The members of a container, within the limits. Never raises for what is in the data.

    spent carries the count over several containers of one message; depth is the caller's to watch. `eml` is read by
    `mime`, with its attachments as members.
    """
    result = Expansion()
    meter = _Meter(len(data), limits, spent if spent is not None else Spent())
    reader = _READERS.get(type)
    if reader is None:
        result.reason = "not a container"
        return result
    try:
        reader(data, name, meter, result)
    except _Full as full:
        result.cannot(full.value)
        result.reason = f"limit reached: {full.value}"
    except ImportError as error:
        result.cannot("no_extractor")
        result.reason = f"no extractor: {error.name or error}"
    except MemoryError:
        result.members.clear()
        result.cannot("too_large")
        result.reason = "out of memory"
    except Exception as error:  # third-party readers on hostile data raise anything
        result.damaged = True
        result.cannot("unknown_container")
        result.reason = f"cannot be read: {error.__class__.__name__}"
    if not (result.names or result.members or result.findings or result.damaged) and len(data) > 1024:
        result.cannot("unknown_container")  # so many bytes, and nothing in it
    for entry in result.names:
        if entry.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", entry) or ".." in re.split(r"[\\/]", entry):
            result.findings.append(Finding(kind="filename", value="path"))
            break
    return result


def readable_name(raw: bytes) -> str:
    """A member name without a declared encoding: UTF-8, windows-1258, cp437, TCVN3, whichever reads as Vietnamese."""
    if raw.isascii():
        return raw.decode("ascii")
    try:
        return vietnamese.nfc(raw.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    best, result = 0.5, raw.decode("cp437")
    for reading in (
        vietnamese.nfc(raw.decode("cp1258", errors="replace")),
        vietnamese.from_tcvn3(raw.decode("latin-1")),
        vietnamese.from_vni(raw.decode("latin-1")),
    ):
        good, total = vietnamese.plausibility(re.sub(r"[._\-]", " ", reading))
        if total and good / total > best and "\ufffd" not in reading:
            best, result = good / total, reading
    return result


def _zip(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    # Counted before zipfile builds an object for each of what may be a million entries.
    entries = data.count(b"PK\x01\x02")
    if entries > 50_000:
        raise _Full("too_many")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError, EOFError):
        result.damaged = True
        _libarchive(data, name, meter, result)  # reads local headers, so finds what a broken directory hides
        if not result.members and not result.encrypted:
            result.cannot("unknown_container")
        return
    if told := unlisted(data, archive):
        result.ambiguous(told)
    if archive.comment:
        result.words.append(vietnamese.decode(archive.comment))
    shown = []
    for info in infos:
        flagged = info.flag_bits & 0x800
        raw = info.orig_filename.encode("utf-8" if flagged else "cp437", errors="replace")
        entry = vietnamese.nfc(
            _unicode_path(info.extra, raw) or (info.orig_filename if flagged else readable_name(raw))
        )
        if "\0" in entry:
            result.findings.append(Finding(kind="filename", value="nul"))
            entry = entry.replace("\0", "")
        shown.append(entry)
    result.names = [entry for entry in shown if not entry.endswith("/")]
    result.words += [entry for entry in shown if entry.endswith("/")]
    result.words += [vietnamese.decode(info.comment) for info in infos if info.comment]
    if len(set(shown)) != len(shown):
        result.ambiguous("two members of one name")
    unsupported = False
    for info, entry in zip(infos, shown, strict=True):
        if info.is_dir() and not info.file_size:
            continue
        meter.file()
        if info.flag_bits & 0x41:
            result.encrypted = True
            continue
        meter.declared(info.file_size)
        try:
            with archive.open(info) as stream:
                result.members.append(Member(entry, _drain(stream.read, meter)))
        except NotImplementedError:
            unsupported = True
        except RuntimeError:  # "password required"
            result.encrypted = True
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, struct.error):
            result.damaged = True
    if result.encrypted:
        result.cannot("encrypted")
    if unsupported:
        if result.members:
            result.cannot("unknown_container")
        else:
            result.names = []
            _libarchive(data, name, meter, result)
    if result.damaged:
        result.cannot("unknown_container")


def unlisted(data: bytes, archive: zipfile.ZipFile) -> str:
    """Why two programs may find different files in a ZIP, empty when none will: what its directory does not name, names
    otherwise, or names twice; something before, between, or behind (programs read from either end)."""
    end = data.rfind(b"PK\x05\x06") + 22 + len(archive.comment)
    if data[end:].strip(b"\0\r\n \t\x1a"):
        return "something behind the archive"
    if b"PK\x05\x06" in archive.comment or b"PK\x01\x02" in archive.comment:
        return "an archive in the comment"
    spans = []
    for info in archive.infolist():
        at = info.header_offset
        if at + 30 > len(data) or data[at : at + 4] != b"PK\x03\x04":
            continue  # reading it fails, and says so
        flags, method = struct.unpack_from("<HH", data, at + 6)
        name, extra = struct.unpack_from("<HH", data, at + 26)
        if data[at + 30 : at + 30 + name] != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
            return "a member has two names"
        if method != info.compress_type or (flags ^ info.flag_bits) & 1:
            return "a member is packed in two ways"
        spans.append((at, at + 30 + name + extra + info.compress_size))
    position = 0
    for start, stop in [*sorted(spans), (archive.start_dir, end)]:
        if start < position:
            return "members that overlap"
        if b"PK\x03\x04" in data[position:start]:
            return "a member that no directory names"
        position = stop
    return ""


def _unicode_path(extra: bytes, raw: bytes) -> str:
    """Info-ZIP Unicode Path Extra Field (0x7075): version, CRC of the stored name, UTF-8 name."""
    at = 0
    while at + 4 <= len(extra):
        tag, size = struct.unpack_from("<HH", extra, at)
        body = extra[at + 4 : at + 4 + size]
        if tag == 0x7075 and len(body) > 5 and body[0] == 1 and int.from_bytes(body[1:5], "little") == zlib.crc32(raw):
            return body[5:].decode("utf-8", errors="replace")
        at += 4 + size
    return ""


def _drain(read: Callable[[int], bytes], meter: _Meter) -> bytes:
    pieces = []
    while piece := read(1 << 18):
        meter.add(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _libarchive(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    import libarchive
    from libarchive.exception import ArchiveError

    # libarchive gives names in the locale of the process; in the C locale it would lose every Vietnamese one.
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    try:
        with libarchive.memory_reader(data) as archive:
            for entry in archive:
                shown = _entry_name(entry) or f"member {len(result.names) + 1}"
                if not entry.isfile:
                    if entry.issym or entry.islnk:
                        result.names.append(shown)
                    else:
                        result.words.append(shown)
                        if entry.size:  # a folder with bytes of its own: other programs see a file
                            result.ambiguous("a folder that is a file")
                    continue
                result.names.append(shown)
                meter.file()
                pieces = []
                for block in entry.get_blocks():
                    meter.add(len(block))
                    pieces.append(bytes(block))
                result.members.append(Member(shown, b"".join(pieces)))
    except ArchiveError as error:
        text = str(error).lower()
        if "encrypt" in text or "passphrase" in text or "password" in text:
            result.encrypted = True
            result.cannot("encrypted")
            result.reason = "encrypted"
        else:
            result.damaged = True
            result.cannot("unknown_container")
            result.reason = "libarchive cannot read it"


def _tar(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    _libarchive(data, name, meter, result)
    at = 0
    while at + 512 <= len(data) and any(data[at : at + 512]):
        size = data[at + 124 : at + 136]
        if size[0] & 0x80:
            octets = int.from_bytes(size[1:], "big")
        else:
            digits = re.match(rb"[ \0]*([0-7]*)", size)
            octets = int(digits[1] or b"0", 8) if digits else 0
        if data[at + 156 : at + 157] in (b"1", b"2", b"5") and not octets:
            octets = 0
        at += 512 + (octets + 511) // 512 * 512
    if data[at:].strip(b"\0"):
        result.ambiguous("something behind the archive")  # `tar -i` goes on reading


def _mbox(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    for number, raw in enumerate(mailfiles.split(io.BytesIO(data)), 1):
        meter.file()
        if raw is None:
            raise _Full("too_large")
        meter.add(len(raw))
        result.members.append(Member(f"thu-{number}.eml", raw))


def _entry_name(entry: object) -> str:
    try:
        shown = entry.pathname  # type: ignore[attr-defined]
    except (UnicodeError, ValueError):
        shown = None
    if isinstance(shown, bytes):
        return readable_name(shown)
    try:
        raw = (shown or "").encode("utf-8", errors="surrogateescape")
    except UnicodeError:
        raw = (shown or "").encode("utf-8", errors="replace")
    return readable_name(raw)


def _rar(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    import rarfile

    try:
        with rarfile.RarFile(io.BytesIO(data)) as archive:
            if archive.needs_password() and not archive.infolist():
                result.encrypted = True  # even the names are encrypted
                result.cannot("encrypted")
                return
            infos = [info for info in archive.infolist() if info.is_file()]
            result.names = [vietnamese.nfc(info.filename or "") for info in infos]
            for _ in infos:
                meter.file()
            if any(info.needs_password() for info in infos):
                result.encrypted = True
                result.cannot("encrypted")
            for info in infos:
                meter.declared(info.file_size or 0)
            if infos and all(info.compress_type == rarfile.RAR_M0 and not info.needs_password() for info in infos):
                for info, shown in zip(infos, result.names, strict=True):  # stored: no decompressor needed
                    with archive.open(info) as stream:
                        result.members.append(Member(shown, _drain(stream.read, meter)))
                return
    except rarfile.PasswordRequired:
        result.encrypted = True
        result.cannot("encrypted")
        return
    except rarfile.NeedFirstVolume:
        result.cannot("unknown_container")
        result.reason = "a later volume of a RAR set"
        return
    except _Full:
        raise
    except Exception:  # rarfile on broken headers; libarchive may read further
        result.damaged = True
    names, encrypted = result.names, result.encrypted
    if encrypted and not names:
        return
    result.names, result.members = [], []
    damaged = result.damaged
    inner = _Uncounted(meter)
    _libarchive(data, name, inner, result)
    result.damaged |= damaged
    result.names = names or result.names
    if result.encrypted or len(result.members) >= len(names):
        return
    result.cannot("unknown_container")  # compression that libarchive does not know: RAR 2, RAR 3 solid, volumes
    result.reason = result.reason or "compression not supported"


class _Uncounted(_Meter):
    """A meter for a second reading of the same files: bytes count, files were counted already."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter

    def file(self) -> None:
        pass

    def add(self, size: int) -> None:
        self._meter.add(size)


def _single(
    open_stream: Callable[[], object], suffixes: tuple[str, ...]
) -> Callable[[bytes, str, _Meter, Expansion], None]:
    def read(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
        meter.file()
        stem = name.rsplit("/", 1)[-1]
        lower = stem.lower()
        for suffix, replacement in (
            (".tgz", ".tar"),
            (".tbz2", ".tar"),
            (".txz", ".tar"),
            *((s, "") for s in suffixes),
        ):
            if lower.endswith(suffix):
                stem = stem[: -len(suffix)] + replacement
                break
        out = bytearray()
        rest = data
        streams = 0
        if data[:2] == b"\x1f\x8b" and len(data) > 12 and data[3] & 8:  # RFC 1952: the name it had
            start = 12 + int.from_bytes(data[10:12], "little") if data[3] & 4 else 10
            result.words.append(readable_name(data[start : start + 500].partition(b"\0")[0]))
        while rest:
            streams += 1
            if streams > MAX_STREAMS:
                raise _Full("too_many")
            machine = open_stream()
            feed = memoryview(rest)
            produced = False
            while True:
                piece = _pump(machine, feed)
                feed = memoryview(b"")
                meter.add(len(piece))
                out += piece
                produced = produced or bool(piece)
                if machine.eof or not piece:  # type: ignore[attr-defined]
                    break
            if not machine.eof:  # type: ignore[attr-defined]
                result.damaged = True
                break
            rest = machine.unused_data.lstrip(b"\0")  # type: ignore[attr-defined]
            if rest and not rest.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
                result.ambiguous("something behind the archive")
                break
        result.names.append(stem or "data")
        result.members.append(Member(stem or "data", bytes(out)))
        if result.damaged:
            result.cannot("unknown_container")

    return read


def _pump(machine: object, data: memoryview) -> bytes:
    """At most a mebibyte of output from a zlib, bz2 or lzma decompressor."""
    if hasattr(machine, "unconsumed_tail"):
        return machine.decompress(bytes(data) if len(data) else machine.unconsumed_tail, 1 << 20)
    return machine.decompress(bytes(data), 1 << 20)  # type: ignore[attr-defined]


def _tnef(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    from tnefparse import TNEF

    tnef = TNEF(data, do_checksum=False)
    at = 6
    while at + 9 <= len(data):
        at += 11 + int.from_bytes(data[at + 5 : at + 9], "little")
    if at > len(data):
        result.damaged = True
        result.cannot("unknown_container")
    for number, attachment in enumerate(tnef.attachments):
        meter.file()
        content = bytes(attachment.data or b"")
        meter.add(len(content))
        try:
            shown = attachment.long_filename() or attachment.name
        except Exception:
            shown = attachment.name
        shown = shown.decode("latin-1") if isinstance(shown, bytes) else str(shown or "")
        shown = vietnamese.nfc(shown.strip("\0")) or f"attachment {number + 1}"
        result.names.append(shown)
        result.members.append(Member(shown, content))
        if not content:  # an object or a message that is kept otherwise
            result.cannot("unknown_container", shown)
    properties = [*tnef.msgprops, *tnef.mapiprops]
    result.subject = next((_text(one.data) for one in properties if one.name in (TNEF.ATTSUBJECT, 0x0037)), "")
    for label, content in (("body.txt", tnef.body), ("body.html", tnef.htmlbody)):
        if content:
            raw = content if isinstance(content, bytes) else str(content).encode("utf-8", errors="replace")
            raw = raw.rstrip(b"\0")  # strings of the format end with one
            meter.add(len(raw))
            result.members.append(Member(label, raw, inline=True))
    if tnef._rtfbody:
        _rtf_body(bytes(tnef._rtfbody), meter, result)


#: What the dictionary of compressed RTF begins with ([MS-OXRTFCP] 2.1.2.1).
_RTF_WORDS = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor "
    rb"MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)  # fmt: skip


def _rtf_body(packed: bytes, meter: _Meter, result: Expansion) -> None:
    """The body of an Outlook message as compressed RTF ([MS-OXRTFCP])."""
    try:
        raw = decompressed_rtf(packed)
    except ValueError:
        result.cannot("unknown_container", "body.rtf")
        return
    meter.add(len(raw))
    result.members.append(Member("body.rtf", raw, inline=True))


def decompressed_rtf(packed: bytes) -> bytes:
    """Compressed RTF unpacked. Raises ValueError for what is none."""
    if len(packed) < 16:
        raise ValueError("no compressed RTF")
    size, kind = struct.unpack_from("<I4s", packed, 4)
    if kind == b"MELA":
        return packed[16 : 16 + size]
    if kind != b"LZFu":
        raise ValueError("no compressed RTF")
    window = bytearray(_RTF_WORDS.ljust(4096, b"\0"))
    put, at, out = len(_RTF_WORDS), 16, bytearray()
    while at < len(packed):
        control = packed[at]
        at += 1
        for bit in range(8):
            if at >= len(packed):
                break
            if control >> bit & 1:
                reference = int.from_bytes(packed[at : at + 2], "big")
                at += 2
                start, length = reference >> 4, (reference & 15) + 2
                if start == put:
                    return bytes(out)
                letters = [0] * length
                for n in range(length):
                    letters[n] = window[put] = window[(start + n) % 4096]
                    put = (put + 1) % 4096
                out += bytes(letters)
            else:
                out.append(packed[at])
                window[put] = packed[at]
                put, at = (put + 1) % 4096, at + 1
    return bytes(out)


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return (vietnamese.decode(value) if isinstance(value, bytes) else str(value)).strip("\0")


def _eml(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    from gateway import mime

    message = mime.parse(data)
    result.findings.extend(message.findings)
    for part in message.attachments:
        meter.file()
        content = part.decode(data)
        meter.add(len(content))
        shown = part.filename or f"part {part.path}"
        result.names.append(shown)
        result.members.append(Member(shown, bytes(content), part.content_type))


def _msg(data: bytes, name: str, meter: _Meter, result: Expansion) -> None:
    """Outlook .msg (MS-OXMSG): attachments are storages `__attach…` with property streams `__substg1.0_<tag><type>`."""
    import olefile

    with olefile.OleFileIO(io.BytesIO(data)) as ole:
        streams = {tuple(path): path for path in ole.listdir(streams=True, storages=False)}

        def read(prefix: tuple[str, ...], tag: str) -> bytes | str:
            for suffix, codec in (("001F", "utf-16-le"), ("001E", ""), ("0102", "")):
                path = streams.get((*prefix, f"__substg1.0_{tag}{suffix}"))
                if path:
                    with ole.openstream(path) as stream:
                        raw = stream.read()
                    meter.add(len(raw))
                    return raw.decode(codec, "replace") if codec else raw
            return b""

        subject, body, html = read((), "0037"), read((), "1000"), read((), "1013")
        for tag in ("0070", "0E1D"):  # other places of the subject
            told = read((), tag)
            result.words.append(told if isinstance(told, str) else vietnamese.decode(told))
        if packed := read((), "1009"):
            _rtf_body(packed if isinstance(packed, bytes) else packed.encode("latin-1", "replace"), meter, result)
        result.subject = _text(subject)
        for label, content in (("body.txt", body), ("body.html", html)):
            if content:
                raw = content.encode("utf-8") if isinstance(content, str) else content
                result.members.append(Member(label, raw, inline=True))
        storages = sorted({path[0] for path in streams if path[0].startswith("__attach_version1.0_")})
        for number, storage in enumerate(storages):
            meter.file()
            shown = read((storage,), "3707") or read((storage,), "3704") or f"attachment {number + 1}"
            shown = shown if isinstance(shown, str) else readable_name(shown)
            content = read((storage,), "3701")
            raw = content.encode("utf-8") if isinstance(content, str) else content
            result.names.append(vietnamese.nfc(shown.strip("\0")))
            if not raw and any(path[:2] == (storage, "__substg1.0_3701000D") for path in streams):
                result.cannot("unknown_container", shown)  # a message inside as a storage of its own
                continue
            result.members.append(Member(result.names[-1], raw))


_READERS: dict[str, Callable[[bytes, str, _Meter, Expansion], None]] = {
    "zip": _zip,
    "rar": _rar,
    "7z": _libarchive,
    "tar": _tar,
    "mbox": _mbox,
    "cab": _libarchive,
    "gz": _single(lambda: zlib.decompressobj(31), (".gz",)),
    "bz2": _single(bz2.BZ2Decompressor, (".bz2",)),
    "xz": _single(lzma.LZMADecompressor, (".xz",)),
    "tnef": _tnef,
    "eml": _eml,
    "msg": _msg,
}


def foreign_signatures(data: bytes, type: str) -> Iterable[str]:
    """Types whose signature stands in the file where another reader would find it: a polyglot (reliability.md 3.2).

    PDF: a ZIP, PE or HTML start in the first KiB, or a ZIP directory at the end. Anything else: a PDF header in the
    first KiB, a ZIP directory at the end of what is not a ZIP, or an archive that is found wherever it begins.
    """
    head, tail = data[:1024], data[-66_000:]
    ends_as_zip = _ends_as_zip(data, tail)
    if type == "pdf":
        at = head.find(b"%PDF-")
        before = head[: max(at, 0)]
        if before[:2] == b"MZ":
            yield "exe"
        if b"PK\x03\x04" in head:
            yield "zip"
        if re.search(rb"<(?:html|script|!doctype)", head, re.IGNORECASE):
            yield "html"
        if ends_as_zip:
            yield "zip"
        if re.search(rb"%%EOF\s*+%PDF-", data):
            yield "pdf"  # two files: which of them is shown depends on the end a program begins at
    elif type not in _HOLDS_OTHERS:
        if b"%PDF-" in head and type not in _LINES:
            yield "pdf"
        elif b"%PDF-" in data and b"startxref" in data:
            yield "pdf"  # behind more than readers must pass over; some look further
        if ends_as_zip:
            yield "zip"
    elif (type in ("zip", "docx", "xlsx", "pptx", "odt", "ods") and not data.startswith(b"PK")) or (
        type in ("zip",) and b"%PDF-" in head
    ):
        yield "pdf" if b"%PDF-" in head else "unknown"

    if type not in _HOLDS_OTHERS or type == "pdf":
        # Programs for these look through the whole file; so many bytes do not come by chance.
        if b"Rar!\x1a\x07" in data:
            yield "rar"
        if b"7z\xbc\xaf\x27\x1c" in data:
            yield "7z"


#: Types in which whole other files may lie as they are.
_HOLDS_OTHERS = CONTAINERS | EXECUTABLE | {"docx", "xlsx", "pptx", "odt", "ods", "odp", "odg", "epub", "xps", "vsdx",
    "ole", "doc", "xls", "ppt", "vsd", "pst", "one", "iso", "vhd", "pdf", "p7s", "p7m", "unknown", "empty"}  # fmt: skip
_LINES = frozenset({"txt", "html", "csv", "json", "ics", "vcf", "xml", "svg", "sh", "py", "bat", "ps1", "js", "vbs"})


def _ends_as_zip(data: bytes, tail: bytes) -> bool:
    """Whether a ZIP end record stands in the tail whose directory is where it says."""
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return False
    size, offset = struct.unpack_from("<II", tail, at + 12)
    end = len(data) - len(tail) + at
    return data[offset : offset + 4] == b"PK\x01\x02" or data[end - size : end - size + 4] == b"PK\x01\x02"
