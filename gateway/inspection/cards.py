"""Calendars and cards (RFC 5545, RFC 6350, vCard 2.1): what a person sees of them, and the files they carry. Pure."""

from __future__ import annotations

import binascii
import re
from quopri import decodestring
from urllib.parse import unquote_to_bytes

from gateway import mime
from gateway.inspection import markup
from gateway.inspection.segments import Segment

#: Content lines that are read; a calendar of a year has some ten thousand.
MOST = 50_000
_FOLD = re.compile(r"\r?\n[ \t]|\r[ \t]")
_SOFT = re.compile(r"(?im)^([^:\n]*quoted-printable[^:\n]*:[^\n]*)=\r?\n")
_LINE = re.compile(r"(?:[\w-]+\.)?([\w-]+)((?:;(?:[^\":;]|\"[^\"]*\")*)*):(.*)", re.DOTALL)
#: Properties whose value is one line of its own on the screen.
_TITLES = frozenset(
    ("SUMMARY", "LOCATION", "CATEGORIES", "FN", "N", "TITLE", "ORG", "ROLE", "NICKNAME", "X-WR-CALNAME", "NAME")
)
_TEXTS = frozenset(("DESCRIPTION", "COMMENT", "NOTE", "CONTACT", "RESOURCES", "STATUS", "REQUEST-STATUS"))
_ESCAPE = re.compile(r"\\([nN,;\\:])")
_DATA = re.compile(r"data:[^,]*?(;base64)?,(.*)", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r"(?:X-)?(?:FILENAME|APPLE-FILENAME|ORACLE-FILENAME|NAME)=\"?([^\";]+)", re.IGNORECASE)


def read(source: str) -> tuple[list[Segment], list[tuple[str, bytes]]]:
    """Texts and files of a calendar or card."""
    texts: list[Segment] = []
    files: list[tuple[str, bytes]] = []
    for _ in range(200):  # lines of vCard 2.1 go on behind a soft break
        joined = _SOFT.sub(r"\1", source)
        if joined == source:
            break
        source = joined
    lines = _FOLD.sub("", source).replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines[:MOST], 1):
        found = _LINE.fullmatch(line)
        if found is None:
            if line.strip():
                texts.append(Segment("lịch", line))
            continue
        name, parameters, value = found[1].upper(), found[2], found[3]
        upper = parameters.upper()
        if re.search(r"(?:ENCODING=)?(?:BASE64|\bB)(?:;|$)", upper) or "VALUE=BINARY" in upper:
            _file(files, parameters, value, number)
            continue
        if data := _DATA.match(value):
            if data[1]:
                _file(files, parameters, data[2], number)
            else:
                files.append((f"tep-{number}", unquote_to_bytes(data[2])))
            continue
        if "QUOTED-PRINTABLE" in upper:
            value = mime.decode_text(decodestring(value.encode("utf-8", "replace")), "utf-8")[0]
        value = _ESCAPE.sub(lambda one: "\n" if one[1] in "nN" else one[1], value)
        if "TEXT/HTML" in upper or value[:6].lower() == "<html>":
            texts += markup.segments(value, "lịch")
        elif name in _TITLES:
            texts += [Segment("lịch", one, None, "subject") for one in value.split("\n") if one.strip()]
        elif name in _TEXTS or name.startswith("X-") or not value.isascii():
            texts.append(Segment("lịch", value))
    return texts, files


def _file(files: list[tuple[str, bytes]], parameters: str, value: str, number: int) -> None:
    letters = re.sub(r"[^A-Za-z0-9+/]", "", value)
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    data = binascii.a2b_base64(letters + "=" * (-len(letters) % 4))
    if data and len(files) < 200:
        named = _NAME.search(parameters)
        files.append((named[1].strip() if named else f"tep-{number}", data))
