"""Marks and programs hidden in mail and files by every trick found: each must be found or its message held.

    ./run measure attacks [--only CLASS] [--verbose]

Every attack is a whole mail with a mark of secrecy, or something that runs, where one program of a recipient shows it
and a careless reader does not. The mail is examined and judged as the gateway would; what would go out is a hole.
Prints one JSON object a class, and exits with 1 when anything passes.
"""

# ruff: noqa: E501 - an attack is a row of a table
from __future__ import annotations

import argparse
import base64
import binascii
import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import quopri
import struct
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import text_corpus as corpus
from gateway import directory, policy
from gateway.commands.policy import situation
from gateway.config import Budget
from gateway.inspection import examine
from gateway.message import VIETNAM
from tests.data.inspection import ole

ROOT = Path(__file__).resolve().parent.parent
MARK = "TUYỆT MẬT"
PAPER = f"ỦY BAN NHÂN DÂN\nSố: 05/KH-UBND\n{MARK}\nKính gửi: các đơn vị"
SENDER, TO = "vanthu@sxd.hochiminhcity.gov.vn", "vanthu@hochiminhcity.gov.vn"
TOP = (
    f"From: Van thu <{SENDER}>\r\nTo: <{TO}>\r\nSubject: Trao doi\r\nDate: Fri, 20 Nov 2026 09:00:00 +0700\r\n"
    "Message-ID: <1@x>\r\nMIME-Version: 1.0\r\n"
)
#: The head of a Windows program.
PROGRAM = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(400)

ATTACKS: dict[str, dict[str, Callable[[], bytes]]] = {}


def attack(kind: str, name: str, make: Callable[[], bytes] | bytes) -> None:
    """Register a mail, or what makes it."""
    assert name not in ATTACKS.setdefault(kind, {}), name
    ATTACKS[kind][name] = make if callable(make) else lambda: make


def wire(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def single(head: str, body: str | bytes) -> bytes:
    """A mail of one part with these header lines."""
    return wire(TOP) + wire(head.rstrip("\n") + "\n\n") + wire(body)


def coded(data: bytes) -> str:
    return base64.encodebytes(data).decode()


def mixed(*parts: tuple[str, str | bytes], kind: str = "mixed", text: str = "Xin gửi.") -> bytes:
    """A multipart of a text and parts (header lines, body)."""
    out = wire(TOP) + wire(f'Content-Type: multipart/{kind}; boundary="b1"\n\n')
    for head, body in (("Content-Type: text/plain; charset=utf-8\n", text), *parts):
        out += b"--b1\r\n" + wire(head.rstrip("\n") + "\n\n") + wire(body) + b"\r\n"
    return out + b"--b1--\r\n"


def attached(name: str, data: bytes, kind: str = "application/octet-stream") -> bytes:
    """A mail with one file."""
    word = name if name.isascii() else f"=?utf-8?B?{base64.b64encode(name.encode()).decode()}?="
    head = (
        f'Content-Type: {kind}; name="{word}"\nContent-Disposition: attachment; filename="{word}"\n'
        "Content-Transfer-Encoding: base64\n"
    )
    return mixed((head, coded(data)))


def html(source: str, **more: str) -> bytes:
    kind = more.get("charset", "utf-8")
    return single(
        f"Content-Type: text/html; charset={kind}\nContent-Transfer-Encoding: base64\n", coded(source.encode(kind))
    )


# -- judging ---------------------------------------------------------------------------------------------------------


class Court:
    """Examines and judges a mail with the policy of the tests."""

    def __init__(self, ocr: bool = True) -> None:
        config = ROOT / "config"
        self.policy = policy.load(config)
        self.agencies = directory.load(ROOT / "tests" / "data" / "policy" / "directory")
        # Time enough on any machine: what is asked here is what is found, not how soon.
        self.settings = examine.Settings(budget=Budget(ocr=ocr, seconds=1200, file_seconds=1200, ocr_seconds=1200))

    def judge(self, raw: bytes) -> tuple[str, list[str]]:
        """The disposition and the findings that made it."""
        facts = examine.examine_message(raw, self.settings)
        found = situation(
            self.agencies, facts, dt.datetime(2026, 11, 20, 9, tzinfo=VIETNAM), SENDER, [TO], None, SENDER
        )
        verdict, _ = policy.explain(self.policy, self.agencies, found)
        told = [f"{one.rule}:{one.disposition.text}:{one.evidence}" for one in verdict.findings]
        told += [f"{one.kind}:{one.value}" for one in facts.findings]
        return verdict.disposition.text, told


def ordinary() -> dict[str, bytes]:
    """The same clothes on mail that means well."""
    text = "Kính gửi: các đơn vị\nĐề nghị các đơn vị báo cáo kết quả thực hiện trước ngày 30 tháng 11 năm 2026.\n"
    page = (
        "<html><head><style>.btn a, h1 { text-transform: uppercase } p::before { content: '\\2022' }</style></head><body>"
        "<!--[if gte mso 9]><xml><w:View>Normal</w:View></xml><![endif]--><h1>Thông báo</h1><p>" + text
        + "</p><img src='cid:a' alt='Quốc huy'><a href='https://x.gov.vn' title='Cổng thông tin'>x</a></body></html>"
    )  # fmt: skip
    event = _calendar("SUMMARY:Họp giao ban", "LOCATION:Phòng họp số 1", "DESCRIPTION:Kính mời\\nĐồng chí")
    return {
        "page": html(page),
        "page, attached": attached("a.html", page.encode(), "text/html"),
        "calendar": mixed(("Content-Type: text/calendar; charset=utf-8; method=REQUEST\nContent-Transfer-Encoding: 8bit\n", event)),
        "card": attached("a.vcf", b"BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Nguyen Van A\r\nTEL:0900\r\nEND:VCARD\r\n"),
        "text in utf-16": attached("a.txt", text.encode("utf-16")),
        "text in windows-1258": single("Content-Type: text/plain; charset=windows-1258\nContent-Transfer-Encoding: base64\n", coded(_cp1258(text))),
        "addition in a text": single("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n", "1+AB+CD2 = x\n" + text),
        "archive": attached("a.zip", corpus.zipped({"thu muc/a.txt": text, "b.docx": corpus.docx(text)})),
        "document": attached("a.docx", corpus.docx(text)), "sheet": attached("a.xlsx", corpus.xlsx([["Số", "Tên"], ["1", "A"]])),
        "slides": attached("a.pptx", corpus.pptx([text])), "OpenDocument": attached("a.odt", corpus.odt(text)),
        "RTF": attached("a.rtf", corpus.rtf(text)), "tar": attached("a.tar", _tar([("a.txt", text.encode(), tarfile.REGTYPE, "")])),
        "gz": attached("a.txt.gz", gzip.compress(text.encode())), "nested": mixed(("Content-Type: message/rfc822\n", html(page))),
    }  # fmt: skip


STOPPED = ("hold", "return", "reject-malware", "block-secret")


def run(kinds: list[str], verbose: bool) -> int:
    court = Court()
    holes = 0
    for kind in kinds:
        counted: dict[str, int] = {}
        passed = []
        for name, make in ATTACKS[kind].items():
            verdict, told = court.judge(make())
            counted[verdict] = counted.get(verdict, 0) + 1
            if verdict not in STOPPED:
                passed.append(name)
            if verbose or verdict not in STOPPED:
                print(f"    {kind} / {name}: {verdict} {told[:8]}", file=sys.stderr)
        holes += len(passed)
        print(json.dumps({"class": kind, "attacks": len(ATTACKS[kind]), **counted, "passed": passed}), flush=True)
    return 1 if holes else 0


# -- HTML: what a mail program shows -----------------------------------------------------------------------------------

_HTML = {
    "conditional comment of Outlook": f"<p>Xin chào</p><!--[if mso]><p>{MARK}</p><![endif]-->",
    "conditional comment, any version": f"<!--[if gte mso 9]><table><tr><td>{MARK}</td></tr></table><![endif]-->",
    "conditional comment, downlevel revealed": f"<![if !mso]><p>{MARK}</p><![endif]>",
    "comment closed by --!>": f"<!-- x --!><p>{MARK}</p><!-- y -->",
    "comment closed at once": f"<!--><p>{MARK}</p><!-- -->",
    "comment closed at once, dash": f"<!---><p>{MARK}</p><!-- -->",
    "bogus comment": f"<!x <p>{MARK}</p>",
    "processing instruction": f"<?xml <p>x</p> ?><p>{MARK}</p>",
    "letters by number": "<p>TUY&#7878;T M&#x1EAC;T</p>",
    "letters by number without semicolon": "<p>TUY&#7878T M&#x1EACT</p>".replace("&#x1EACT", "&#7852T"),
    "letters composed": "<p>TUYE\u0302\u0323T MA\u0302\u0323T</p>",
    "letters composed the other way": "<p>TUYE\u0323\u0302T MA\u0323\u0302T</p>",
    "soft hyphens": "<p>TUY&shy;ỆT M&shy;ẬT</p>",
    "zero width": "<p>TUY\u200bỆT M\u200cẬ\u2060T</p>",
    "word breaks": "<p>TUY<wbr>ỆT M<wbr>ẬT</p>",
    "tags inside": "<p>T<b>U</b>Y<i>Ệ</i>T <font>M</font><span>Ậ</span>T</p>",
    "comment inside": "<p>TUY<!-- x -->ỆT M<!-- y -->ẬT</p>",
    "no-break spaces": "<p>TUYỆT&nbsp;MẬT</p>",
    "wide spaces": "<p>TUYỆT\u3000MẬT</p>",
    "line break inside": "<p>TUYỆT<br>MẬT</p>",
    "a letter each block": "<p>T</p><p>U</p><p>Y</p><p>Ệ</p><p>T</p><p>M</p><p>Ậ</p><p>T</p>",
    "a letter each cell": "<table><tr>" + "".join(f"<td>{c}</td>" for c in "TUYỆT") + "<td></td>"
        + "".join(f"<td>{c}</td>" for c in "MẬT") + "</tr></table>",
    "letters apart by style": "<p style='letter-spacing:1em'>TUYỆT MẬT</p>",
    "inline blocks": "<span style='display:inline-block'>TUYỆT</span><span style='display:inline-block'>MẬT</span>",
    "title of the page": f"<html><head><title>{MARK}</title></head><body>x</body></html>",
    "alt of a picture": f"<p>x</p><img src='cid:x' alt='{MARK}'>",
    "alt without quotes": "<p>x</p><img src=cid:x alt=TUYỆT&nbsp;MẬT>",
    "title of a link": f"<p>x <a href='http://x.vn' title='{MARK}'>y</a></p>",
    "placeholder": f"<input placeholder='{MARK}'>",
    "value of a button": f"<input type=submit value='{MARK}'>",
    "label of an option": f"<select><option label='{MARK}'></select>",
    "label of a group": f"<select><optgroup label='{MARK}'><option>x</select>",
    "text area": f"<textarea>{MARK}</textarea>",
    "frame with its source": f"<iframe srcdoc='&lt;p&gt;{MARK}&lt;/p&gt;'></iframe>",
    "picture in SVG": f"<svg><text>{MARK}</text></svg>",
    "drawing of Outlook": f"<v:shape><v:textbox><div>{MARK}</div></v:textbox></v:shape>",
    "word art of Outlook": f"<v:shape><v:textpath string='{MARK}'/></v:shape>",
    "noscript": f"<noscript><p>{MARK}</p></noscript>",
    "template": f"<template><p>{MARK}</p></template>",
    "old plain text element": f"<plaintext>{MARK}",
    "xmp": f"<xmp>\n{MARK}\n</xmp>",
    "listing": f"<listing>{MARK}</listing>",
    "content of a style": f"<style>p::before{{content:'{MARK}'}}</style><p></p>",
    "content of a style, escaped": "<style>p::before{content:'TUY\\1EC6T M\\1EAC T'}</style><p></p>",
    "small letters, capitals by style": "<p style='text-transform:uppercase'>tuyệt mật</p>",
    "small letters, small capitals": "<p style='font-variant:small-caps'>tuyệt mật</p>",
    "small letters, capitals by rule": "<style>p{text-transform:uppercase}</style><p>tuyệt mật</p>",
    "small letters, capitals by id": "<style>#a{text-transform:uppercase}</style><p id=a>tuyệt mật</p>",
    "capitals by escaped style": "<p style='text-transform:&#117;ppercase'>tuyệt mật</p>",
    "backwards by override": "<p>\u202e" + MARK[::-1] + "\u202c</p>",
    "backwards by element": f"<bdo dir=rtl>{MARK[::-1]}</bdo>",
    "backwards by style": f"<p style='direction:rtl;unicode-bidi:bidi-override'>{MARK[::-1]}</p>",
    "table cell beside another": f"<table><tr><td>Số: 05/KH-UBND</td><td>{MARK}</td></tr></table>",
    "data address": "<iframe src='data:text/html;base64," + base64.b64encode(f"<p>{MARK}</p>".encode()).decode() + "'>",
    "object with data": "<object data='data:text/plain;charset=utf-8,TUY%E1%BB%86T%20M%E1%BA%ACT'></object>",
    "unclosed tag": f"<p class='x\n<p>{MARK}</p>",
    "unclosed comment": f"<p>x</p><!-- <p>{MARK}</p>",
    "unclosed script": f"<script><p>{MARK}</p>",
    "script closed oddly": f"<script>x</script/ ><p>{MARK}</p>",
    "style closed in a string": f"<style>a{{b:'</style><p>{MARK}</p>'}}",
    "cdata": f"<p><![CDATA[{MARK}]]></p>",
    "cdata in SVG": f"<svg><text><![CDATA[{MARK}]]></text></svg>",
    "greater sign in a value": f"<p title='a>b'>{MARK}</p>",
    "slash for a blank": f"<p/title='x'/>{MARK}</p/>",
    "NUL in the tag": f"<p\0>{MARK}</p>",
    "list item": f"<ol><li>{MARK}</li></ol>",
    "ruby": f"<ruby>x<rt>{MARK}</rt></ruby>",
    "marquee": f"<marquee>{MARK}</marquee>",
    "details": f"<details><summary>x</summary>{MARK}</details>",
    "fullwidth letters": "<p>ＴＵＹỆＴ ＭẬＴ</p>",
    "Cyrillic look-alikes": "<p>ТUYỆТ МẬТ</p>",
    "Greek look-alikes": "<p>ΤUΥỆΤ ΜẬΤ</p>",
    "bold mathematical letters": "<p>𝐓𝐔𝐘Ệ𝐓 𝐌Ậ𝐓</p>",
    "far behind": "<p>" + "x" * 2_200_000 + f"</p><p>{MARK}</p>",
    "many tags before": "<b>" * 100_000 + f"<p>{MARK}</p>",
    "base64 picture in it": "",
}  # fmt: skip
for _name, _source in _HTML.items():
    if _source:
        attack("html", _name, lambda source=_source: html(source))
        attack("html", f"attached: {_name}", lambda source=_source: attached(
            "a.html", f"<html><meta charset=utf-8>{source}</html>".encode(), "text/html"))  # fmt: skip


# -- text and its letters --------------------------------------------------------------------------------------------


def _text(charset: str, data: bytes, encoding: str = "base64") -> bytes:
    body = coded(data) if encoding == "base64" else quopri.encodestring(data).decode()
    declared = f"; charset={charset}" if charset else ""
    return single(f"Content-Type: text/plain{declared}\nContent-Transfer-Encoding: {encoding}\n", body)


def _cp1258(text: str) -> bytes:
    """With the tone behind its vowel, as windows-1258 writes it."""
    out = []
    for letter in unicodedata.normalize("NFC", text):
        pieces = unicodedata.normalize("NFD", letter)
        tone = "".join(c for c in pieces if c in "\u0300\u0301\u0303\u0309\u0323")
        out.append(unicodedata.normalize("NFC", "".join(c for c in pieces if c not in tone)) + tone)
    return "".join(out).encode("cp1258", "replace")


_PAGED = "<p>" + PAPER.replace("\n", "</p><p>") + "</p>"
_CHARSETS = {
    "utf-7": ("utf-7", lambda t: t.encode("utf-7")),
    "utf-7, every letter": ("utf-7", lambda t: b"+" + base64.b64encode(t.encode("utf-16-be")).rstrip(b"=") + b"-"),
    "unicode-1-1-utf-7": ("unicode-1-1-utf-7", lambda t: t.encode("utf-7")),
    "x-unicode-2-0-utf-7": ("x-unicode-2-0-utf-7", lambda t: t.encode("utf-7")),
    "csUnicode11UTF7": ("csUnicode11UTF7", lambda t: t.encode("utf-7")),
    "utf-16 little": ("utf-16le", lambda t: t.encode("utf-16-le")),
    "utf-16 big": ("utf-16be", lambda t: t.encode("utf-16-be")),
    "utf-16 without mark": ("utf-16", lambda t: t.encode("utf-16-be")),
    "utf-16 with mark": ("utf-16", lambda t: t.encode("utf-16")),
    "utf-16, told as utf-8": ("utf-8", lambda t: t.encode("utf-16")),
    "utf-16, not told": ("", lambda t: t.encode("utf-16")),
    "utf-16, no mark, told as utf-8": ("utf-8", lambda t: t.encode("utf-16-le")),
    "utf-32": ("utf-32", lambda t: t.encode("utf-32")),
    "utf-32 big": ("utf-32be", lambda t: t.encode("utf-32-be")),
    "utf-32, told as utf-8": ("utf-8", lambda t: t.encode("utf-32")),
    "ucs-2": ("iso-10646-ucs-2", lambda t: t.encode("utf-16-be")),
    "ucs-4": ("iso-10646-ucs-4", lambda t: t.encode("utf-32-be")),
    "gb18030": ("gb18030", lambda t: t.encode("gb18030")),
    "utf-8, told as us-ascii": ("us-ascii", lambda t: t.encode()),
    "utf-8, told as iso-8859-1": ("iso-8859-1", lambda t: t.encode()),
    "utf-8, told as windows-1252": ("windows-1252", lambda t: t.encode()),
    "utf-8, told as windows-1258": ("windows-1258", lambda t: t.encode()),
    "utf-8, told as x-unknown": ("x-unknown", lambda t: t.encode()),
    "utf-8, told as koi8-r": ("koi8-r", lambda t: t.encode()),
    "utf-8, told as utf-16": ("utf-16", lambda t: t.encode()),
    "utf-8, told as hz": ("hz-gb-2312", lambda t: t.encode()),
    "utf-8, told as iso-2022-jp": ("iso-2022-jp", lambda t: t.encode()),
    "utf-8, told as utf-7": ("utf-7", lambda t: t.encode()),
    "utf-8, told as gb2312": ("gb2312", lambda t: t.encode()),
    "utf-8, told as big5": ("big5", lambda t: t.encode()),
    "utf-8, told as shift_jis": ("shift_jis", lambda t: t.encode()),
    "utf-8 with a broken letter": ("utf-8", lambda t: t.encode() + b"\n\xff\xfe\xc3"),
    "cp1258": ("windows-1258", _cp1258),
    "tcvn": ("x-viet-tcvn5712", lambda t: corpus.to_tcvn3(t).encode("latin-1", "replace")),
    "viscii": ("viscii", lambda t: corpus.to_viscii(t).encode("latin-1", "replace")),
    "viqr": ("viqr", lambda t: t.replace("Ệ", "E^.").replace("Ậ", "A^.").encode("ascii", "replace")),
    "cesu-8": ("cesu-8", lambda t: t.encode()),
    "imap utf-7": ("x-imap4-modified-utf7", lambda t: t.encode("utf-7")),
    "iso-2022-jp-2 with a foreign set": ("iso-2022-jp-2", lambda t: b"\x1b%G" + t.encode() + b"\x1b%@"),
    "charset with a blank": ("utf-7 ", lambda t: t.encode("utf-7")),
    "charset in quotes": ('"utf-7"', lambda t: t.encode("utf-7")),
}  # fmt: skip
for _name, (_charset, _encode) in _CHARSETS.items():
    attack("charset", _name, lambda c=_charset, e=_encode: _text(c, e(PAPER)))
    attack(
        "charset",
        f"html: {_name}",
        lambda c=_charset, e=_encode: single(
            f"Content-Type: text/html; charset={c or 'x'}\nContent-Transfer-Encoding: base64\n", coded(e(_PAGED))
        ),
    )
    attack("charset", f"inline, named: {_name}", lambda c=_charset, e=_encode: mixed((
        f"Content-Type: text/plain; charset={c or 'x'}; name=a.txt\nContent-Disposition: inline; filename=a.txt\n"
        "Content-Transfer-Encoding: base64\n", coded(e(PAPER)))))  # fmt: skip
attack(
    "charset",
    "utf-7 in a meta element",
    lambda: single(
        "Content-Type: text/html\n",
        b"<meta http-equiv=content-type content='text/html; charset=utf-7'>" + _PAGED.encode("utf-7"),
    ),
)
attack("charset", "utf-16 in an XML declaration", lambda: attached("a.xml", ("\ufeff<?xml version='1.0' encoding='utf-16'?><a>\n"
    + MARK + "\n</a>").encode("utf-16-le")))  # fmt: skip
for _codec in ("utf-7", "utf-16-le", "utf-16-be", "utf-16", "utf-32", "utf-8-sig"):
    attack("charset", f"file in {_codec}", lambda c=_codec: attached("a.txt", PAPER.encode(c)))
    attack(
        "charset",
        f"page in {_codec}",
        lambda c=_codec: attached("a.html", f"<html><body><p>{MARK}</p></body></html>".encode(c)),
    )


# -- subjects and header fields ----------------------------------------------------------------------------------------


def _subject(value: str | bytes, more: str = "") -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return TOP.encode().replace(b"Trao doi", raw) + wire(more + "Content-Type: text/plain\n\nXin chao\n")


def _word(text: str, charset: str = "utf-8", kind: str = "B") -> str:
    data = text.encode(charset)
    if kind == "B":
        return f"=?{charset}?B?{base64.b64encode(data).decode()}?="
    return f"=?{charset}?Q?" + "".join(f"={b:02X}" for b in data) + "?="


_TAGGED = f"[{MARK}] Họp giao ban"
_bytes = _TAGGED.encode()
_SUBJECTS: dict[str, str | bytes] = {
    "B": _word(_TAGGED), "Q": _word(_TAGGED, kind="Q"), "utf-7 word": _word(_TAGGED, "utf-7"),
    "utf-16 word": _word(_TAGGED, "utf-16-be"), "gb18030 word": _word(_TAGGED, "gb18030"),
    "lower case kind": _word(_TAGGED).replace("?B?", "?b?"),
    "language tag": _word(_TAGGED).replace("utf-8", "utf-8*vi"),
    "cut in a letter": f"=?utf-8?B?{base64.b64encode(_bytes[:7]).decode()}?=\r\n =?utf-8?B?{base64.b64encode(_bytes[7:]).decode()}?=",
    "a word each byte": "\r\n ".join(f"=?utf-8?Q?={b:02X}?=" for b in _bytes),
    "no blank between words": _word(f"[{MARK}") + _word("] Họp"),
    "words glued to text": "[" + _word(MARK) + "] Hop",
    "in quotes": '"' + _word(_TAGGED) + '"',
    "blank in a Q word": "=?utf-8?Q?[TUY=E1=BB=86T M=E1=BA=ACT] Hop?=",
    "unknown charset": _word(_TAGGED).replace("utf-8", "x-unknown"),
    "charset latin-1": _word(_TAGGED).replace("utf-8", "iso-8859-1"),
    "raw utf-8": _TAGGED, "raw utf-16": b"=?utf-8?Q?" + b"x?=",
    "base64 without padding": _word(_TAGGED).replace("=?=", "?=").replace("=?=", "?="),
    "base64 with junk": _word(_TAGGED)[:20] + "!" + _word(_TAGGED)[20:],
    "folded inside": "=?utf-8?B?" + base64.b64encode(_bytes).decode()[:12] + "\r\n " + base64.b64encode(_bytes).decode()[12:] + "?=",
    "behind a long text": "x" * 100 + " " + _word(_TAGGED),
    "after re and fw": "Re: Fwd: RE: " + _word(_TAGGED),
    "after a number in brackets": _word("[HT#123] " + _TAGGED),
    "after ext": _word("[EXTERNAL] " + _TAGGED), "after a list name": _word("[Văn thư] " + _TAGGED),
    "zero width": _word(_TAGGED.replace("M", "M\u200b")), "composed": _word(unicodedata.normalize("NFD", _TAGGED)),
    "letters apart": _word("[T U Y Ệ T  M Ậ T] x"), "wide brackets": _word(f"［{MARK}］ x"),
    "Cyrillic": _word("[ТUYỆТ МẬТ] x"), "full width": _word("[ＴＵＹỆＴ ＭẬＴ] x"), "bare": _word(MARK),
    "with urgency": _word("[HỎA TỐC][TUYỆT MẬT] x"), "with a dash": _word(f"{MARK} - Kế hoạch"),
    "html entity": "x",
}  # fmt: skip
del _SUBJECTS["raw utf-16"], _SUBJECTS["html entity"]
for _name, _value in _SUBJECTS.items():
    attack("subject", _name, lambda v=_value: _subject(v))
for _field in ("Subject", "subject", "Thread-Topic", "Comments", "Keywords", "X-Classification", "Sensitivity", "Content-Description",
               "Organization", "X-Subject", "Resent-Subject", "Summary", "X-Label", "X-Message-Flag"):  # fmt: skip
    attack("subject", f"field {_field}", lambda f=_field: _subject("x", f"{f}: {_word(_TAGGED)}\n"))
attack(
    "subject",
    "display name of the sender",
    lambda: _subject("x").replace(b"Van thu", _word(f"[{MARK}] Văn thư").encode()),
)
attack(
    "subject", "display name of the recipient", lambda: _subject("x").replace(b"To: <", f"To: {_word(MARK)} <".encode())
)
attack("subject", "field with a blank before the colon", lambda: _subject("x", f"Subject : {_word(_TAGGED)}\n"))
attack("subject", "subject of the part", lambda: mixed((f"Subject: {_word(_TAGGED)}\nContent-Type: text/plain\n", "x")))
attack(
    "subject",
    "protected header",
    lambda: single('Content-Type: text/plain; protected-headers="v1"\n' + f"Subject: {_word(_TAGGED)}\n", "x"),
)


# -- calendars and cards -----------------------------------------------------------------------------------------------


def _calendar(*lines: str) -> str:
    return "\r\n".join(("BEGIN:VCALENDAR", "VERSION:2.0", "METHOD:REQUEST", "BEGIN:VEVENT", "UID:1", "DTSTART:20261121T010000Z",
        *lines, "END:VEVENT", "END:VCALENDAR", ""))  # fmt: skip


_folded = "".join(f"{c}\r\n " for c in f"SUMMARY:[{MARK}] Họp")
_EVENTS = {
    "summary": f"SUMMARY:[{MARK}] Họp giao ban", "summary alone": f"SUMMARY:{MARK}",
    "summary with a parameter": f"SUMMARY;LANGUAGE=vi:[{MARK}] Họp",
    "summary folded": "SUMMARY:[TUYỆT\r\n  MẬT] Họp", "folded at each letter": _folded,
    "location": f"LOCATION:{MARK}", "description": f"DESCRIPTION:Kính gửi\\n{MARK}\\nHọp",
    "description folded": "DESCRIPTION:Kính gửi\\nTUYỆT M\r\n ẬT\\nHọp",
    "categories": f"CATEGORIES:{MARK}", "comment": f"COMMENT:{MARK}", "html description": f"X-ALT-DESC;FMTTYPE=text/html:<p>{MARK}</p>",
    "html in utf-8 folded": f"X-ALT-DESC;FMTTYPE=text/html:<html><body><p>{MARK[:4]}\r\n {MARK[4:]}</p></body></html>",
    "quoted-printable": "SUMMARY;ENCODING=QUOTED-PRINTABLE;CHARSET=UTF-8:[TUY=E1=BB=86T M=E1=BA=ACT] H",
    "attached file": "ATTACH;FMTTYPE=application/vnd.openxmlformats;ENCODING=BASE64;VALUE=BINARY;FILENAME=a.docx:"
        + base64.b64encode(corpus.docx(PAPER)).decode(),
    "attached file folded": "ATTACH;ENCODING=BASE64;VALUE=BINARY:\r\n " + "\r\n ".join(
        base64.b64encode(corpus.docx(PAPER)).decode()[n : n + 74] for n in range(0, 2000, 74)),
    "attached program": "ATTACH;ENCODING=BASE64;VALUE=BINARY;X-FILENAME=a.exe:" + base64.b64encode(PROGRAM).decode(),
    "attached data address": "ATTACH:data:text/plain;base64," + base64.b64encode(PAPER.encode()).decode(),
    "class": f"CLASS:CONFIDENTIAL\r\nSUMMARY:({MARK}) Họp",
    "alarm": f"BEGIN:VALARM\r\nACTION:DISPLAY\r\nDESCRIPTION:{MARK}\r\nEND:VALARM",
}  # fmt: skip
for _name, _event in _EVENTS.items():
    _body = _calendar(_event)
    attack(
        "calendar",
        f"part: {_name}",
        lambda b=_body: mixed(
            ("Content-Type: text/calendar; charset=utf-8; method=REQUEST\nContent-Transfer-Encoding: 8bit\n", b),
            kind="alternative",
        ),
    )
    attack("calendar", f"file: {_name}", lambda b=_body: attached("hop.ics", b.encode(), "text/calendar"))
_CARDS = {
    "name": f"FN:{MARK}", "note": f"NOTE:Kính gửi\\n{MARK}", "title": f"TITLE:{MARK}",
    "note in quoted-printable": "NOTE;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:TUY=E1=BB=86T M=E1=BA=ACT",
    "file as a key": "KEY;ENCODING=b;TYPE=X:" + base64.b64encode(corpus.docx(PAPER)).decode(),
    "program as a sound": "SOUND;ENCODING=BASE64:" + base64.b64encode(PROGRAM).decode(),
}  # fmt: skip
for _name, _card in _CARDS.items():
    attack("calendar", f"card: {_name}", lambda c=_card: attached(
        "a.vcf", f"BEGIN:VCARD\r\nVERSION:2.1\r\nN:x\r\n{c}\r\nEND:VCARD\r\n".encode(), "text/vcard"))  # fmt: skip


# -- files: archives ---------------------------------------------------------------------------------------------------

SECRET_FILE = corpus.docx(PAPER)
_PLAIN = {"ghi chu.txt": b"Xin chao cac dong chi"}


def _raw_zip(
    members: list[tuple[str, bytes]], *, central: list[tuple[str, bytes]] | None = None, method: int = 8, flags: int = 0,
    before: bytes = b"", after: bytes = b"", comment: bytes = b"", listed: bool = True, count: int | None = None,
    sizes: tuple[int, int] | None = None, extra: bytes = b"",
) -> bytes:  # fmt: skip
    """A ZIP by hand. members: what the local headers say; central: what the directory says, name and place's bytes."""
    out, places = bytearray(before), []
    for name, data in members:
        packed = zlib.compress(data)[2:-4] if method == 8 else data
        places.append((len(out), name, data, packed))
        inside, outside = sizes or (len(packed), len(data))
        out += struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, flags, method, 0, 0, zlib.crc32(data), inside, outside,
            len(name.encode()), len(extra)) + name.encode() + extra + packed  # fmt: skip
    start = len(out)
    rows = central if central is not None else members
    for (name, _), (at, _, real, packed) in zip(rows, places, strict=False):
        out += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, flags, method, 0, 0, zlib.crc32(real), len(packed),
            len(real), len(name.encode()), 0, 0, 0, 0, 0, at - len(before) * 0) + name.encode()  # fmt: skip
    size = len(out) - start
    number = len(rows) if count is None else count
    if listed:
        out += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, number, number, size, start, len(comment)) + comment
    return bytes(out) + after


_ok, _bad = ("a.txt", b"Xin chao cac dong chi"), ("b.docx", SECRET_FILE)
_visible = _raw_zip([_ok])
_hidden = _raw_zip([_bad])
_directory = _visible.index(b"PK\x01\x02")
ARCHIVES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "member that no directory names": ("a.zip", lambda: _raw_zip([_ok, _bad], central=[_ok])),
    "first member that no directory names": ("a.zip", lambda: _raw_zip([_bad, _ok])[:0] + _skipping_first()),
    "no directory": ("a.zip", lambda: _raw_zip([_ok, _bad], listed=False)[: -100]),
    "directory without its end": ("a.zip", lambda: _raw_zip([_ok, _bad], listed=False)),
    "two archives one behind the other": ("a.zip", lambda: _hidden + _visible),
    "two archives, offsets right": ("a.zip", lambda: _hidden + _shifted(_visible, len(_hidden))),
    "an archive behind the end": ("a.zip", lambda: _visible + _hidden[:-22]),
    "an archive in the comment": ("a.zip", lambda: _raw_zip([_ok], comment=_hidden)),
    "end record says none": ("a.zip", lambda: _raw_zip([_bad], count=0)),
    "end record says one": ("a.zip", lambda: _raw_zip([_ok, _bad], count=1)),
    "names differ, local is a program": ("a.zip", lambda: _raw_zip([("a.exe", PROGRAM)], central=[("a.txt", PROGRAM)])),
    "names differ, secret in the local one": ("a.zip", lambda: _raw_zip([(f"{MARK}.txt", b"x" * 50)], central=[("a.txt", b"")])),
    "names twice": ("a.zip", lambda: _raw_zip([("a.docx", corpus.docx("Xin chao")), ("a.docx", SECRET_FILE)])),
    "names in two cases": ("a.zip", lambda: _raw_zip([("a.docx", corpus.docx("Xin chao")), ("A.DOCX", SECRET_FILE)])),
    "sizes told as nought": ("a.zip", lambda: _raw_zip([_bad], sizes=(0, 0))),
    "encrypted flag that is none": ("a.zip", lambda: _raw_zip([_bad], flags=1)),
    "unknown method": ("a.zip", lambda: _raw_zip([_bad], method=99)),
    "stored": ("a.zip", lambda: _raw_zip([_bad], method=0)),
    "words before": ("a.zip", lambda: b"Xin chao\n" * 20 + _hidden),
    "words before, offsets right": ("a.zip", lambda: _raw_zip([_bad], before=b"Xin chao\n" * 20)),
    "a picture before": ("a.zip", lambda: _picture("png") + _hidden),
    "music before": ("a.zip", lambda: b"ID3\x03\0\0\0\0\0\0" + bytes(400) + _hidden),
    "Ogg before": ("a.zip", lambda: b"OggS" + bytes(400) + _hidden),
    "Flash before": ("a.zip", lambda: b"CWS" + bytes(400) + _hidden),
    "film before": ("a.zip", lambda: b"\x1aE\xdf\xa3" + bytes(400) + _hidden),
    "sound before": ("a.zip", lambda: b"RIFF\x10\0\0\0WAVE" + bytes(400) + _hidden),
    "certificate before": ("a.zip", lambda: b"-----BEGIN CERTIFICATE-----\nx\n" + _hidden),
    "calendar before": ("a.zip", lambda: b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n" + _hidden),
    "JSON before": ("a.json", lambda: b'{"a": 1}\n' + _hidden),
    "page before": ("a.html", lambda: b"<html><body>x</body></html>\n" + _hidden),
    "words before, a text by name": ("a.txt", lambda: b"Xin chao\n" * 600 + _hidden),
    "table before": ("a.csv", lambda: b"a,b\n1,2\n" * 600 + _hidden),
    "XML before": ("a.xml", lambda: b"<a>x</a>\n" + _hidden),
    "gz with something behind": ("a.gz", lambda: gzip.compress(b"Xin chao") + _hidden),
    "gz in two streams": ("a.gz", lambda: gzip.compress(b"Xin chao\n") + gzip.compress(PAPER.encode())),
    "gz, blanks, gz": ("a.gz", lambda: gzip.compress(b"Xin chao\n") + bytes(512) + gzip.compress(PAPER.encode())),
    "bz2 with something behind": ("a.bz2", lambda: bz2.compress(b"Xin chao") + _hidden),
    "gz whose name is the secret": ("a.gz", lambda: _named_gz()),
    "gz with the wrong ending": ("a.pdf", lambda: gzip.compress(SECRET_FILE)),
    "gz cut": ("a.gz", lambda: gzip.compress(PAPER.encode() * 50)[:-12]),
    "zip in zip in zip in zip": ("a.zip", lambda: _boxed(SECRET_FILE, 4)),
    "zip in twelve zips": ("a.zip", lambda: _boxed(SECRET_FILE, 12)),
    "gz in twelve gz": ("a.gz", lambda: _gz(PAPER.encode(), 12)),
    "tar": ("a.tar", lambda: _tar([("a.docx", SECRET_FILE, tarfile.REGTYPE, "")])),
    "tar behind its end": ("a.tar", lambda: _tar([("a.txt", b"x", tarfile.REGTYPE, "")]) + _tar([("a.docx", SECRET_FILE, tarfile.REGTYPE, "")])),
    "tar, link outside": ("a.tar", lambda: _tar([("a", b"", tarfile.SYMTYPE, "/etc/shadow"), ("a.docx", SECRET_FILE, tarfile.REGTYPE, "")])),
    "tar, contiguous file": ("a.tar", lambda: _tar([("a.docx", SECRET_FILE, b"7", "")])),
    "tar, unknown kind": ("a.tar", lambda: _tar([("a.docx", SECRET_FILE, b"Z", "")])),
    "tar, directory with data": ("a.tar", lambda: _tar([("a.docx", SECRET_FILE, b"5", "")])),
    "tar, member that is a hard link": ("a.tar", lambda: _tar([("x", SECRET_FILE, tarfile.REGTYPE, ""), ("y.docx", b"", tarfile.LNKTYPE, "x")])),
    "tar of the old kind": ("a.tar", lambda: _old_tar()),
    "tar.gz": ("a.tgz", lambda: gzip.compress(_tar([("a.docx", SECRET_FILE, tarfile.REGTYPE, "")]))),
    "tar with a name of the secret": ("a.tar", lambda: _tar([(f"{MARK}/a.txt", b"x", tarfile.REGTYPE, "")])),
    "zip with a folder of the secret": ("a.zip", lambda: corpus.zipped({f"{MARK}/a.txt": b"Xin chao"})),
    "zip with an empty folder of the secret": ("a.zip", lambda: corpus.zipped({f"{MARK}/": b"", "a.txt": b"x"})),
    "comment of the archive": ("a.zip", lambda: _raw_zip([_ok], comment=f"\n{MARK}\n".encode())),
    "Office file with a stranger": ("a.zip", lambda: corpus.zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "<w/>", "ho so.docx": SECRET_FILE})),
    "Office file with a text": ("a.docx", lambda: corpus.zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "<w/>", "a.txt": PAPER})),
    "Office file with a program": ("a.docx", lambda: corpus.zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "<w/>", "a.exe": PROGRAM})),
    "OpenDocument with a stranger": ("a.zip", lambda: _with(corpus.odt("Xin chao cac dong chi"), "ho so.docx", SECRET_FILE)),
    "called jar": ("a.zip", lambda: corpus.zipped({"META-INF/MANIFEST.MF": "x", "a.docx": SECRET_FILE})),
    "called epub": ("a.zip", lambda: _epub()),
    "cpio": ("a.cpio", lambda: _cpio()),
    "ar": ("a.ar", lambda: b"!<arch>\n" + b"a.docx/         0           0     0     100644  " + f"{len(SECRET_FILE):<10}".encode() + b"`\n" + SECRET_FILE),
    "zlib": ("a.z", lambda: zlib.compress(PAPER.encode())), "lzma alone": ("a.lzma", lambda: lzma.compress(PAPER.encode(), format=2)),
    "Unix compress": ("a.Z", lambda: b"\x1f\x9d\x90" + bytes(200)), "lz4": ("a.lz4", lambda: b"\x04\x22\x4d\x18" + bytes(200)),
    "zstd": ("a.zst", lambda: b"\x28\xb5\x2f\xfd" + bytes(200)), "ace": ("a.ace", lambda: bytes(7) + b"**ACE**" + bytes(200)),
    "arj": ("a.arj", lambda: b"\x60\xea" + bytes(200)), "lzh": ("a.lzh", lambda: b"\x20\0-lh5-" + bytes(200)),
    "rar cut": ("a.rar", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(200)), "rar in a program": ("a.exe", lambda: PROGRAM + b"Rar!\x1a\x07\x00"),
    "disk": ("a.img", lambda: bytes(510) + b"\x55\xaa" + bytes(4000) + SECRET_FILE),
    "ISO": ("a.iso", lambda: bytes(0x8001) + b"CD001" + bytes(4000) + SECRET_FILE),
    "uuencode in a text": ("a.txt", lambda: b"begin 644 a.docx\n" + b"".join(binascii.b2a_uu(SECRET_FILE[n : n + 45]) for n in range(0, len(SECRET_FILE), 45)) + b"`\nend\n"),
    "saved page of Word, base64": ("a.mht", lambda: _mht("base64")), "saved page of Word, quoted": ("a.mht", lambda: _mht("quoted-printable")),
    "saved page called doc": ("a.doc", lambda: _mht("base64")), "saved page called mhtml": ("a.mhtml", lambda: _mht("base64")),
    "saved page without MIME-Version": ("a.mht", lambda: _mht("base64").replace(b"MIME-Version: 1.0\r\n", b"")),
    "mail without a known field": ("a.eml", lambda: b"X-A: b\r\n" + attached("a.docx", SECRET_FILE)[len(wire(TOP)):]),
    "mail behind a blank line": ("a.eml", lambda: b"\r\n" + attached("a.docx", SECRET_FILE)),
    "mail of a mailbox file": ("a.mbox", lambda: b"From x@y Mon Jan 1 00:00:00 2024\n" + attached("a.docx", SECRET_FILE)),
    "two mails of a mailbox file": ("a.mbox", lambda: (b"From x@y Mon Jan 1 00:00:00 2024\n" + single("Content-Type: text/plain\n", "Xin chao\n")) + b"\nFrom x@y Mon Jan 1 00:00:00 2024\n" + attached("a.docx", SECRET_FILE)),
    "mail called txt": ("a.txt", lambda: attached("a.docx", SECRET_FILE)),
}  # fmt: skip


def _skipping_first() -> bytes:
    whole = _raw_zip([_bad, _ok])
    at = whole.index(b"PK\x01\x02")
    second = whole.index(b"PK\x01\x02", at + 4)
    end = whole.rindex(b"PK\x05\x06")
    rows = whole[second:end]
    return whole[:at] + rows + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(rows), at, 0)


def _shifted(archive: bytes, by: int) -> bytes:
    """The same archive with its offsets for standing behind `by` bytes."""
    at, end = archive.index(b"PK\x01\x02"), archive.rindex(b"PK\x05\x06")
    out = bytearray(archive)
    struct.pack_into("<I", out, at + 42, struct.unpack_from("<I", archive, at + 42)[0] + by)
    struct.pack_into("<I", out, end + 16, at + by)
    return bytes(out)


def _picture(kind: str, size: tuple[int, int] = (40, 40)) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, "white").save(out, kind)
    return out.getvalue()


def _named_gz() -> bytes:
    return b"\x1f\x8b\x08\x08" + bytes(6) + f"{MARK}.txt".encode() + b"\0" + gzip.compress(b"Xin chao", mtime=0)[10:]


def _boxed(data: bytes, times: int) -> bytes:
    name = "a.docx"
    for n in range(times):
        data, name = corpus.zipped({name: data}), f"{n}.zip"
    return data


def _gz(data: bytes, times: int) -> bytes:
    for _ in range(times):
        data = gzip.compress(data)
    return data


def _tar(members: list[tuple[str, bytes, bytes, str]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            archive.addfile(info, io.BytesIO(data))
            if kind == b"5":  # tarfile writes no data for it
                archive.fileobj.write(data + bytes(-len(data) % 512))
                archive.offset += len(data) + -len(data) % 512
    return out.getvalue()


def _old_tar() -> bytes:
    whole = bytearray(_tar([("a.docx", SECRET_FILE, tarfile.REGTYPE, "")]))
    whole[257:265] = bytes(8)
    whole[148:156] = b" " * 8
    whole[148:156] = f"{sum(whole[:512]):06o}\0 ".encode()
    return bytes(whole)


def _with(package: bytes, name: str, data: bytes) -> bytes:
    out = io.BytesIO(package)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(name, data)
    return out.getvalue()


def _epub() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("ho so.docx", SECRET_FILE)
    return out.getvalue()


def _cpio() -> bytes:
    def row(name: str, data: bytes) -> bytes:
        fields = (0, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(f"{n:08x}".encode() for n in fields) + name.encode() + b"\0"
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

    return row("a.docx", SECRET_FILE) + row("TRAILER!!!", b"")


def _mht(encoding: str) -> bytes:
    page = f"<html><body><p>{MARK}</p></body></html>".encode()
    body = coded(page) if encoding == "base64" else quopri.encodestring(page).decode()
    return wire(
        'MIME-Version: 1.0\nContent-Type: multipart/related; boundary="m"; type="text/html"\n\n--m\n'
        f"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: {encoding}\nContent-Location: a.htm\n\n{body}\n--m--\n"
    )


def _packed_rtf(text: str) -> bytes:
    """Compressed RTF whose every piece is a letter of its own."""
    raw, out = corpus.rtf(text), b""
    for n in range(0, len(raw), 8):
        out += b"\0" + raw[n : n + 8]
    return struct.pack("<II4sI", len(out) + 12, len(raw), b"LZFu", zlib.crc32(out)) + out


def _outlook(**streams: bytes) -> bytes:
    given = {f"__substg1.0_{tag}": data for tag, data in streams.items()}
    return ole.compound({"__properties_version1.0": bytes(32), **given})


def _tnef(*attributes: tuple[int, int, bytes]) -> bytes:
    out = struct.pack("<IH", 0x223E9F78, 1)
    for level, kind, content in attributes:
        out += struct.pack("<BII", level, kind, len(content)) + content + struct.pack("<H", sum(content) & 0xFFFF)
    return out


def _mapi(*properties: tuple[int, int, bytes]) -> bytes:
    """A list of MAPI properties of variable length ([MS-OXTNEF] 2.1.3.3)."""
    out = struct.pack("<I", len(properties))
    for kind, tag, data in properties:
        out += struct.pack("<HHII", kind, tag, 1, len(data)) + data + bytes(-len(data) % 4)
    return out


_wide = "utf-16-le"
ARCHIVES |= {
    "Outlook message, subject": ("a.msg", lambda: _outlook(**{"0037001F": f"[{MARK}] Họp".encode(_wide), "1000001F": "Xin chào".encode(_wide)})),
    "Outlook message, topic": ("a.msg", lambda: _outlook(**{"0070001F": f"[{MARK}] Họp".encode(_wide), "1000001F": "Xin chào".encode(_wide)})),
    "Outlook message, body": ("a.msg", lambda: _outlook(**{"1000001F": PAPER.encode(_wide)})),
    "Outlook message, HTML": ("a.msg", lambda: _outlook(**{"10130102": f"<p>{MARK}</p>".encode(), "1000001F": "Xin chào".encode(_wide)})),
    "Outlook message, packed RTF": ("a.msg", lambda: _outlook(**{"10090102": _packed_rtf(PAPER), "1000001F": "Xin chào".encode(_wide)})),
    "Outlook message, broken RTF": ("a.msg", lambda: _outlook(**{"10090102": bytes(40), "1000001F": "Xin chào".encode(_wide)})),
    "winmail.dat, subject": ("winmail.dat", lambda: _tnef((1, 0x00018004, f"[{MARK}] Họp".encode() + b"\0"), (1, 0x0002800C, b"Xin chao\0"))),
    "winmail.dat, packed RTF": ("winmail.dat", lambda: _tnef((1, 0x00069003, _mapi((0x102, 0x1009, _packed_rtf(PAPER)))))),
    "winmail.dat, HTML": ("winmail.dat", lambda: _tnef((1, 0x00069003, _mapi((0x102, 0x1013, f"<html><p>{MARK}</p></html>".encode()))))),
    "winmail.dat, an object": ("winmail.dat", lambda: _tnef((2, 0x00069002, struct.pack("<HIIHH", 1, 0, 0, 0, 0)), (2, 0x00018010, b"a.docx\0"))),
    "winmail.dat cut": ("winmail.dat", lambda: _tnef((1, 0x0002800C, PAPER.encode()))[:60]),
    "winmail.dat in an archive": ("a.zip", lambda: corpus.zipped({"winmail.dat": _tnef((1, 0x00069003, _mapi((0x102, 0x1009, _packed_rtf(PAPER)))))})),
}  # fmt: skip
for _name, (_file, _make) in ARCHIVES.items():
    attack("archive", _name, lambda f=_file, m=_make: attached(f, m()))


# -- files: Office -----------------------------------------------------------------------------------------------------

_W = corpus._W
_TYPES = "<Types/>"
_EMPTY = f"<w:document {_W}><w:body><w:p><w:r><w:t>Xin chào các đồng chí</w:t></w:r></w:p></w:body></w:document>"


def _word_file(**parts: bytes | str) -> bytes:
    members: dict[str, bytes | str] = {"[Content_Types].xml": _TYPES, "word/document.xml": _EMPTY}
    members.update({name.replace("__", "/").replace("_DOT_", "."): data for name, data in parts.items()})
    return corpus.zipped(members)


def page_picture(
    text: str = PAPER, kind: str = "png", size: tuple[int, int] = (1240, 1754), colour: str = "black"
) -> bytes:
    """A page as a picture, 150 dpi."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", size, "white")
    drawing = ImageDraw.Draw(image)
    face = ImageFont.truetype(str(corpus.font()), 34)
    for number, line in enumerate(
        text.split("\n") + ["Căn cứ Luật Tổ chức chính quyền địa phương;", "Xét đề nghị của Giám đốc Sở Nội vụ,"] * 4
    ):
        drawing.text((150, 120 + 60 * number), line, colour, face)
    out = io.BytesIO()
    image.save(out, kind, dpi=(150, 150))
    return out.getvalue()


_PAGE = page_picture()
_para = corpus._paragraphs(PAPER)
_doc = f"<w:document {_W}><w:body>{_para}</w:body></w:document>"
OFFICE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "altChunk of HTML": ("a.docx", lambda: _word_file(**{"word/afchunk1.html": f"<html><p>{MARK}</p></html>"})),
    "altChunk of MHT": ("a.docx", lambda: _word_file(**{"word/afchunk1.mht": _mht("base64")})),
    "altChunk of RTF": ("a.docx", lambda: _word_file(**{"word/afchunk1.rtf": corpus.rtf(PAPER)})),
    "altChunk of text": ("a.docx", lambda: _word_file(**{"word/afchunk1.txt": PAPER})),
    "altChunk of Word": ("a.docx", lambda: _word_file(**{"word/afchunk1.docx": SECRET_FILE})),
    "altChunk called bin": ("a.docx", lambda: _word_file(**{"word/x.bin": f"<html><body><p>{MARK}</p></body></html>"})),
    "main part elsewhere": ("a.docx", lambda: _word_file(**{"word/main.xml": _doc})),
    "main part in another folder": ("a.docx", lambda: _word_file(**{"abc/d.xml": _doc})),
    "header of another name": ("a.docx", lambda: _word_file(**{"word/kopf.xml": f"<w:hdr {_W}>{corpus._paragraphs(MARK)}</w:hdr>"})),
    "part without an ending": ("a.docx", lambda: _word_file(**{"word/document2": _doc})),
    "scanned page as a picture": ("a.docx", lambda: _word_file(**{"word/media/image1.png": _PAGE})),
    "scanned page, JPEG": ("a.docx", lambda: _word_file(**{"word/media/image1.jpeg": page_picture(kind="jpeg")})),
    "scanned page, TIFF": ("a.docx", lambda: _word_file(**{"word/media/image1.tiff": page_picture(kind="tiff")})),
    "scanned page, BMP": ("a.docx", lambda: _word_file(**{"word/media/image1.bmp": page_picture(kind="bmp")})),
    "scanned page, GIF": ("a.docx", lambda: _word_file(**{"word/media/image1.gif": page_picture(kind="gif")})),
    "scanned page in a slide": ("a.pptx", lambda: _with(corpus.pptx(["Xin chào các đồng chí"]), "ppt/media/image1.png", _PAGE)),
    "scanned page in a sheet": ("a.xlsx", lambda: _with(corpus.xlsx([["Xin chào"]]), "xl/media/image1.png", _PAGE)),
    "scanned page in OpenDocument": ("a.odt", lambda: _with(corpus.odt("Xin chào các đồng chí"), "Pictures/1.png", _PAGE)),
    "PDF in a document": ("a.docx", lambda: _word_file(**{"word/embeddings/oleObject1.bin": corpus.pdf(PAPER)})),
    "UTF-16 part": ("a.docx", lambda: _word_file(**{"word/document.xml": ('<?xml version="1.0" encoding="UTF-16"?>' + _doc).encode("utf-16")})),
    "part with a document type": ("a.docx", lambda: _word_file(**{"word/document.xml": '<!DOCTYPE w [<!ENTITY a "MẬT">]>' + _doc.replace("MẬT", "&a;")})),
    "small letters, caps": ("a.docx", lambda: _word_file(**{"word/document.xml": f"<w:document {_W}><w:body><w:p><w:r><w:rPr><w:caps/></w:rPr><w:t>tuyệt mật</w:t></w:r></w:p></w:body></w:document>"})),
    "small letters, small caps": ("a.docx", lambda: _word_file(**{"word/document.xml": f"<w:document {_W}><w:body><w:p><w:r><w:rPr><w:smallCaps/></w:rPr><w:t>tuyệt mật</w:t></w:r></w:p></w:body></w:document>"})),
    "field result": ("a.docx", lambda: _word_file(**{"word/document.xml": f'<w:document {_W}><w:body><w:p><w:fldSimple w:instr=" QUOTE &quot;{MARK}&quot; "><w:r><w:t>{MARK}</w:t></w:r></w:fldSimple></w:p></w:body></w:document>'})),
    "content control": ("a.docx", lambda: _word_file(**{"word/document.xml": f"<w:document {_W}><w:body><w:sdt><w:sdtPr><w:alias w:val='{MARK}'/></w:sdtPr><w:sdtContent>{corpus._paragraphs('x')}</w:sdtContent></w:sdt></w:body></w:document>"})),
    "deleted text": ("a.docx", lambda: _word_file(**{"word/document.xml": f"<w:document {_W}><w:body><w:p><w:del><w:r><w:delText>{MARK}</w:delText></w:r></w:del></w:p></w:body></w:document>"})),
    "symbols": ("a.docx", lambda: _word_file(**{"word/document.xml": f"<w:document {_W}><w:body><w:p><w:r><w:t>TUYỆT M</w:t></w:r><w:r><w:t>Ậ</w:t></w:r><w:r><w:sym w:font='Arial' w:char='0054'/></w:r></w:p></w:body></w:document>"})),
    "equation": ("a.docx", lambda: _word_file(**{"word/document.xml": f"<w:document {_W} xmlns:m='m'><w:body><w:p><m:oMath><m:r><m:t>{MARK}</m:t></m:r></m:oMath></w:p></w:body></w:document>"})),
    "strict namespace": ("a.docx", lambda: _word_file(**{"word/document.xml": _doc.replace("http://schemas.openxmlformats.org/wordprocessingml/2006/main", "http://purl.oclc.org/ooxml/wordprocessingml/main")})),
    "other prefix": ("a.docx", lambda: _word_file(**{"word/document.xml": _doc.replace("w:", "q:").replace("xmlns:q", "xmlns:q")})),
    "no prefix": ("a.docx", lambda: _word_file(**{"word/document.xml": _doc.replace("<w:", "<").replace("</w:", "</").replace("xmlns:w", "xmlns")})),
    "flat Word": ("a.xml", lambda: f'<?xml version="1.0"?><?mso-application progid="Word.Document"?><pkg:package xmlns:pkg="p"><pkg:part><pkg:xmlData>{_doc}</pkg:xmlData></pkg:part></pkg:package>'.encode()),
    "flat Word with a file": ("a.xml", lambda: b'<?xml version="1.0"?><pkg:package xmlns:pkg="p"><pkg:part pkg:name="/word/embeddings/a.docx"><pkg:binaryData>' + base64.b64encode(SECRET_FILE) + b"</pkg:binaryData></pkg:part></pkg:package>"),
    "Word 2003 XML": ("a.doc", lambda: f'<?xml version="1.0"?><?mso-application progid="Word.Document"?><w:wordDocument {_W}><w:body>{_para}</w:body></w:wordDocument>'.encode()),
    "flat OpenDocument": ("a.fodt", lambda: f'<office:document xmlns:office="o" xmlns:text="t"><office:body><office:text><text:p>{MARK}</text:p></office:text></office:body></office:document>'.encode()),
    "flat OpenDocument with a picture": ("a.fodt", lambda: b'<office:document xmlns:office="o" xmlns:text="t"><office:body><office:binary-data>' + base64.b64encode(_PAGE) + b"</office:binary-data></office:body></office:document>"),
    "Excel 2003 XML": ("a.xls", lambda: f'<?xml version="1.0"?><Workbook xmlns:ss="s"><Worksheet ss:Name="x"><Table><Row><Cell><Data ss:Type="String">{MARK}</Data></Cell></Row></Table></Worksheet></Workbook>'.encode()),
    "sheet of another name": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/trang.xml", f"<worksheet><sheetData><row><c t='inlineStr'><is><t>{MARK}</t></is></c></row></sheetData></worksheet>".encode())),
    "number format": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/styles.xml", f'<styleSheet><numFmts><numFmt numFmtId="164" formatCode="&quot;{MARK}&quot;"/></numFmts></styleSheet>'.encode())),
    "formula of pieces": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/worksheets/sheet2.xml", f'<worksheet><sheetData><row><c t="str"><f>"TUYỆT "&amp;"MẬT"</f><v>{MARK}</v></c></row></sheetData></worksheet>'.encode())),
    "name of a sheet": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/workbook2.xml", b"<x/>") and corpus.zipped({"[Content_Types].xml": _TYPES, "xl/workbook.xml": f'<workbook><sheets><sheet name="{MARK}" state="veryHidden"/></sheets></workbook>'})),
    "defined name": ("a.xlsx", lambda: corpus.zipped({"[Content_Types].xml": _TYPES, "xl/workbook.xml": f'<workbook><definedNames><definedName name="x">"{MARK}"</definedName></definedNames></workbook>'})),
    "pivot cache": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/pivotCache/pivotCacheDefinition1.xml", f'<pivotCacheDefinition><s v="{MARK}"/></pivotCacheDefinition>'.encode())),
    "data validation": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/worksheets/sheet2.xml", f'<worksheet><dataValidations><dataValidation prompt="{MARK}"><formula1>"{MARK}"</formula1></dataValidation></dataValidations></worksheet>'.encode())),
    "table heading": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/tables/table1.xml", f'<table><tableColumns><tableColumn name="{MARK}"/></tableColumns></table>'.encode())),
    "external link cache": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/externalLinks/externalLink1.xml", f"<externalLink><cell><v>{MARK}</v></cell></externalLink>".encode())),
    "slide of another name": ("a.pptx", lambda: _with(corpus.pptx(["Xin chào"]), "ppt/slides/trang.xml", f'<p:sld xmlns:a="a" xmlns:p="p"><a:p><a:r><a:t>{MARK}</a:t></a:r></a:p></p:sld>'.encode())),
    "diagram data": ("a.pptx", lambda: _with(corpus.pptx(["Xin chào"]), "ppt/diagrams/data1.xml", f'<dgm:dataModel xmlns:a="a" xmlns:dgm="d"><a:p><a:r><a:t>{MARK}</a:t></a:r></a:p></dgm:dataModel>'.encode())),
    "section name": ("a.pptx", lambda: _with(corpus.pptx(["Xin chào"]), "ppt/presentation.xml", f'<p:presentation xmlns:p="p"><p14:section xmlns:p14="q" name="{MARK}"/></p:presentation>'.encode())),
    "macro": ("a.docx", lambda: _word_file(**{"word/vbaProject.bin": b"x" * 100})),
    "macro of another name": ("a.docm", lambda: _word_file(**{"word/abc.bin": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "VBA".encode("utf-16-le") + bytes(600), "word/_rels/document.xml.rels": '<Relationships><Relationship Type="http://schemas.microsoft.com/office/2006/relationships/vbaProject" Target="abc.bin"/></Relationships>'})),
    "Excel 4 macro": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/macrosheets/sheet1.xml", b"<xm:macrosheet xmlns:xm='m'><sheetData><row><c><f>EXEC(&quot;cmd&quot;)</f></c></row></sheetData></xm:macrosheet>")),
    "Excel 4 macro of another name": ("a.xlsx", lambda: _with(corpus.xlsx([["x"]]), "xl/blatt.xml", b"<xm:macrosheet xmlns:xm='m'><sheetData><row><c><f>EXEC(&quot;cmd&quot;)</f></c></row></sheetData></xm:macrosheet>")),
    "OpenDocument object": ("a.odt", lambda: _with(corpus.odt("Xin chào các đồng chí"), "Object 1/content.xml", f"<office:document-content xmlns:office='o' xmlns:text='t'><text:p>{MARK}</text:p></office:document-content>".encode())),
    "OpenDocument form label": ("a.odt", lambda: _odt(f"<form:button form:label='{MARK}'/>")),
    "OpenDocument title of a frame": ("a.odt", lambda: _odt(f"<draw:frame><svg:title>{MARK}</svg:title></draw:frame>")),
    "OpenDocument field": ("a.odt", lambda: _odt(f"<text:user-field-decl office:string-value='{MARK}'/>")),
    "OpenDocument page count field": ("a.odt", lambda: _odt(f"<text:p><text:span>{MARK[:5]}</text:span><text:s/><text:span>{MARK[6:]}</text:span></text:p>")),
    "OpenDocument tracked deletion": ("a.odt", lambda: _odt(f"<text:tracked-changes><text:deletion><text:p>{MARK}</text:p></text:deletion></text:tracked-changes>")),
    "RTF picture of a page": ("a.rtf", lambda: b"{\\rtf1\\ansi Xin chao cac dong chi\\par{\\pict\\pngblip " + _PAGE.hex().encode() + b"}}"),
    "RTF object": ("a.rtf", lambda: b"{\\rtf1\\ansi Xin chao\\par{\\object\\objemb{\\*\\objdata " + SECRET_FILE.hex().encode() + b"}}}"),
    "RTF binary picture": ("a.rtf", lambda: b"{\\rtf1\\ansi Xin chao\\par{\\pict\\pngblip\\bin" + str(len(_PAGE)).encode() + b" " + _PAGE + b"}}"),
    "RTF hidden": ("a.rtf", lambda: corpus.rtf("Xin chào").replace(b"\\f0 Xin", b"\\f0 {\\v " + corpus._rtf_coded(f"\n{MARK}\n").encode() + b"}Xin", 1)),
    "RTF field": ("a.rtf", lambda: corpus.rtf("Xin chào").replace(b"\\f0 Xin", b"\\f0 {\\field{\\*\\fldinst QUOTE}{\\fldrslt " + corpus._rtf_coded(f"\n{MARK}\n").encode() + b"}}Xin", 1)),
    "RTF in HTML clothes": ("a.rtf", lambda: b"{\\rtf1\\ansi\\fromhtml1{\\*\\htmltag64 <p>TUY&#7878;T M&#7852;T</p>}\\htmlrtf Xin chao\\htmlrtf0}"),
    "RTF with a short head": ("a.rtf", lambda: b"{\\rt " + corpus.rtf(PAPER)[6:]),
    "RTF behind blanks": ("a.rtf", lambda: b"\r\n  " + corpus.rtf(PAPER)),
    "RTF word case": ("a.rtf", lambda: corpus.rtf(PAPER).replace(b"\\u", b"\\u0").replace(b"\\u0c", b"\\uc")),
}  # fmt: skip


def _odt(inside: str) -> bytes:
    space = "xmlns:office='o' xmlns:text='t' xmlns:form='f' xmlns:draw='d' xmlns:svg='v'"
    content = f"<office:document-content {space}><office:body><office:text><text:p>Xin chào các đồng chí</text:p>{inside}</office:text></office:body></office:document-content>"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in (
            ("mimetype", "application/vnd.oasis.opendocument.text"),
            ("content.xml", content),
            ("META-INF/manifest.xml", "<m/>"),
        ):
            archive.writestr(name, data)
    return out.getvalue()


for _name, (_file, _make) in OFFICE.items():
    attack("office", _name, lambda f=_file, m=_make: attached(f, m()))


# -- files: PDF and pictures -------------------------------------------------------------------------------------------

_WORDS = "Kính gửi: các đơn vị trực thuộc\nĐề nghị các đơn vị báo cáo kết quả thực hiện nhiệm vụ năm 2026.\n" * 6


def _sheets(*pages: Callable[[Any], None]) -> bytes:
    """A PDF whose pages are drawn by functions of a reportlab canvas."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.pdfgen import canvas

    corpus.pdf("x")  # registers the font
    assert pdfmetrics and TTFont
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pagesize=(595, 842))
    for draw in pages:
        sheet.setFont("Serif", 12)
        draw(sheet)
        sheet.showPage()
    sheet.save()
    return out.getvalue()


def _typed(text: str = _WORDS, top: int = 780) -> Callable[[Any], None]:
    def draw(sheet: Any) -> None:
        for number, line in enumerate(text.split("\n")):
            sheet.drawString(60, top - 16 * number, line)

    return draw


def _pictured(data: bytes, box: tuple[float, float, float, float] = (0, 0, 595, 842)) -> Callable[[Any], None]:
    from reportlab.lib.utils import ImageReader

    return lambda sheet: sheet.drawImage(ImageReader(io.BytesIO(data)), *box)


def _both(*draws: Callable[[Any], None]) -> Callable[[Any], None]:
    def draw(sheet: Any) -> None:
        for one in draws:
            one(sheet)

    return draw


def _unseen(text: str = _WORDS) -> Callable[[Any], None]:
    """Text that is not shown, as it lies under a scan that was read."""

    def draw(sheet: Any) -> None:
        lines = sheet.beginText(60, 780)
        lines.setTextRenderMode(3)
        for line in text.split("\n"):
            lines.textLine(line)
        sheet.drawText(lines)

    return draw


def _outlines(text: str = PAPER) -> Callable[[Any], None]:
    """Text as filled shapes: to be seen, and no letter in the file."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("1", (900, 60 * (text.count("\n") + 1)), 1)
    for number, line in enumerate(text.split("\n")):
        ImageDraw.Draw(image).text((0, 60 * number), line, 0, ImageFont.truetype(str(corpus.font()), 40))

    def draw(sheet: Any) -> None:
        path = sheet.beginPath()
        for y in range(image.height):
            row = [image.getpixel((x, y)) for x in range(image.width)]
            x = 0
            while x < image.width:
                if not row[x]:
                    start = x
                    while x < image.width and not row[x]:
                        x += 1
                    path.rect(60 + start / 2, 760 - y / 2, (x - start) / 2, 0.5)
                x += 1
        sheet.drawPath(path, fill=1, stroke=0)

    return draw


def _stamp(colour: str = "red") -> bytes:
    """A stamp as a picture: the mark in a double frame."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (480, 110), "white")
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((4, 4, 475, 105), outline=colour, width=4)
    drawing.rectangle((14, 14, 465, 95), outline=colour, width=4)
    drawing.text((70, 25), MARK, colour, ImageFont.truetype(str(corpus.font()), 48))
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


def _lying() -> bytes:
    """The text layer says one thing, the letters another: the map to Unicode is exchanged."""
    import re as _re

    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import NameObject, StreamObject

    writer = PdfWriter()
    writer.append(PdfReader(io.BytesIO(corpus.pdf(PAPER + "\n" + _WORDS))))
    fonts = writer.pages[0]["/Resources"]["/Font"]
    for reference in fonts.values():
        face = reference.get_object()
        if "/ToUnicode" not in face:
            continue
        table = face["/ToUnicode"].get_object().get_data().decode("latin-1")
        table = _re.sub(
            r"<([0-9A-Fa-f]{2})> <([0-9A-Fa-f]{4})>", lambda m: f"<{m[1]}> <{97 + int(m[1], 16) % 25:04X}>", table
        )
        table = _re.sub(
            r"(?m)^<([0-9A-Fa-f]{2})> <[0-9A-Fa-f]{2}> \\[(.*?)\\]$",
            lambda m: m[0].replace("1EAC", "0041").replace("1EC6", "0045"),
            table,
        )
        table = table.replace("1EAC", "0041").replace("1EC6", "0045").replace("1eac", "0041").replace("1ec6", "0045")
        stream = StreamObject()
        stream._data = table.encode("latin-1")
        face[NameObject("/ToUnicode")] = writer._add_object(stream)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _changed(data: bytes, change: Callable[[Any], None]) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter()
    writer.append(PdfReader(io.BytesIO(data)))
    change(writer)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _box(name: str) -> Callable[[Any], None]:
    from pypdf.generic import ArrayObject, FloatObject, NameObject

    def change(writer: Any) -> None:
        writer.pages[0][NameObject(name)] = ArrayObject([FloatObject(n) for n in (0, 0, 595, 300)])

    return change


def _turned(degrees: int, kind: str = "png") -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(_PAGE)).rotate(degrees, expand=True, fillcolor="white").save(out, kind, dpi=(150, 150))
    return out.getvalue()


def _frames(kind: str, *pages: bytes, **more: Any) -> bytes:
    from PIL import Image

    images = [Image.open(io.BytesIO(page)).convert(more.get("mode", "RGB")) for page in pages]
    out = io.BytesIO()
    images[0].save(out, kind, save_all=True, append_images=images[1:])
    return out.getvalue()


_PLAIN_PAGE = page_picture(_WORDS)
PAPERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "text": ("a.pdf", lambda: corpus.pdf(PAPER)),
    "scan behind a typed page": ("a.pdf", lambda: _sheets(_typed(), _pictured(_PAGE))),
    "scan behind three typed pages": ("a.pdf", lambda: _sheets(_typed(), _typed(), _typed(), _pictured(_PAGE))),
    "scan between typed pages": ("a.pdf", lambda: _sheets(_typed(), _pictured(_PAGE), _typed(), _typed(), _typed())),
    "scan before typed pages": ("a.pdf", lambda: _sheets(_pictured(_PAGE), _typed(), _typed())),
    "stamp as a picture on a typed page": ("a.pdf", lambda: _sheets(_both(_typed(top=600), _pictured(_stamp(), (60, 700, 160, 36))))),
    "stamp in black on a typed page": ("a.pdf", lambda: _sheets(_both(_typed(top=600), _pictured(_stamp("black"), (60, 700, 160, 36))))),
    "false text under a scan": ("a.pdf", lambda: _sheets(_both(_unseen(), _pictured(_PAGE)))),
    "false text under a scan, second page": ("a.pdf", lambda: _sheets(_typed(), _both(_unseen(), _pictured(_PAGE)))),
    "white text under a scan": ("a.pdf", lambda: _sheets(_both(_typed(), _pictured(_PAGE)))),
    "letters as paths": ("a.pdf", lambda: _sheets(_outlines())),
    "letters as paths over unseen text": ("a.pdf", lambda: _sheets(_both(_unseen(), _outlines()))),
    "letters as paths behind a typed page": ("a.pdf", lambda: _sheets(_typed(), _outlines())),
    "a map to Unicode that lies": ("a.pdf", _lying),
    "outside the crop box": ("a.pdf", lambda: _changed(corpus.pdf(PAPER), _box("/CropBox"))),
    "outside the media box": ("a.pdf", lambda: _changed(corpus.pdf(PAPER), _box("/MediaBox"))),
    "turned page": ("a.pdf", lambda: _changed(corpus.pdf(PAPER), lambda w: w.pages[0].rotate(90))),
    "empty password": ("a.pdf", lambda: _changed(corpus.pdf(PAPER), lambda w: w.encrypt("", "chu"))),
    "password": ("a.pdf", lambda: _changed(corpus.pdf(PAPER), lambda w: w.encrypt("mat"))),
    "AES-256, empty password": ("a.pdf", lambda: _changed(corpus.pdf(PAPER), lambda w: w.encrypt("", "chu", algorithm="AES-256"))),
    "words before": ("a.pdf", lambda: b"Xin chao\n" * 50 + corpus.pdf(PAPER)),
    "many words before": ("a.pdf", lambda: b"Xin chao\n" * 500 + corpus.pdf(PAPER)),
    "many words before, a text by name": ("a.txt", lambda: b"Xin chao\n" * 500 + corpus.pdf(PAPER)),
    "noise before": ("a.pdf", lambda: bytes(range(256)) * 2 + corpus.pdf(PAPER)),
    "no header": ("a.pdf", lambda: corpus.pdf(PAPER)[9:]),
    "no end": ("a.pdf", lambda: corpus.pdf(PAPER)[:-20]),
    "no table": ("a.pdf", lambda: corpus.pdf(PAPER)[: corpus.pdf(PAPER).rindex(b"xref\n")]),
    "a PDF behind a PDF": ("a.pdf", lambda: corpus.pdf(PAPER) + corpus.pdf(_WORDS)),
    "a PDF before a PDF": ("a.pdf", lambda: corpus.pdf(_WORDS) + corpus.pdf(PAPER)),
    "a ZIP behind a PDF": ("a.pdf", lambda: corpus.pdf(_WORDS) + corpus.zipped({"a.docx": SECRET_FILE})),
    "a RAR behind a PDF": ("a.pdf", lambda: corpus.pdf(_WORDS) + b"Rar!\x1a\x07\x01\x00" + bytes(100)),
    "a page in a PDF": ("a.html", lambda: b"<html><body>x</body></html><!--" + corpus.pdf(PAPER) + b"-->"),
    "a PDF in a picture": ("a.jpg", lambda: _picture("jpeg") + corpus.pdf(PAPER)),
    "a RAR in a picture": ("a.jpg", lambda: _picture("jpeg") + b"Rar!\x1a\x07\x00" + bytes(90000)),
    "a 7z in a picture": ("a.png", lambda: _picture("png") + b"7z\xbc\xaf\x27\x1c" + bytes(90000)),
    "a GIF that is a ZIP": ("a.gif", lambda: _picture("gif") + corpus.zipped({"a.docx": SECRET_FILE})),
    "attached file": ("a.pdf", lambda: _changed(corpus.pdf(_WORDS), lambda w: w.add_attachment("a.docx", SECRET_FILE))),
    "annotation": ("a.pdf", lambda: corpus._pdf_with(MARK, "annotation")), "form": ("a.pdf", lambda: corpus._pdf_with(MARK, "form")),
    "bookmark": ("a.pdf", lambda: _changed(corpus.pdf(_WORDS), lambda w: w.add_outline_item(title=MARK, page_number=0))),
    "page label": ("a.pdf", lambda: _changed(corpus.pdf(_WORDS), lambda w: w.set_page_label(page_index_from=0, page_index_to=0, prefix=MARK))),
    "picture of a page": ("a.png", lambda: _PAGE), "picture, JPEG": ("a.jpg", lambda: page_picture(kind="jpeg")),
    "picture, GIF": ("a.gif", lambda: page_picture(kind="gif")), "picture, BMP": ("a.bmp", lambda: page_picture(kind="bmp")),
    "picture, WebP": ("a.webp", lambda: page_picture(kind="webp")), "picture, JPEG 2000": ("a.jp2", lambda: page_picture(kind="jpeg2000")),
    "picture upside down": ("a.png", lambda: _turned(180)), "picture on its side": ("a.png", lambda: _turned(90)),
    "TIFF, second page": ("a.tif", lambda: _frames("tiff", _PLAIN_PAGE, _PAGE)), "GIF, second frame": ("a.gif", lambda: _frames("gif", _PLAIN_PAGE, _PAGE)),
    "PNG, second frame": ("a.png", lambda: _frames("png", _PLAIN_PAGE, _PAGE)), "WebP, second frame": ("a.webp", lambda: _frames("webp", _PLAIN_PAGE, _PAGE)),
    "scans, tenth page": ("a.pdf", lambda: _sheets(*[_pictured(_PLAIN_PAGE)] * 9, _pictured(_PAGE))),
    "PNG of a huge size": ("a.png", lambda: _huge_png()), "BMP of a huge size": ("a.bmp", lambda: b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 60000, 60000, 1, 24) + bytes(9000)),
    "GIF of a huge size": ("a.gif", lambda: b"GIF89a" + struct.pack("<HH", 65000, 65000) + bytes(9000)),
}  # fmt: skip


def _huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 << 20)) * 10) + chunk(b"IEND", b"")


for _name, (_file, _make) in PAPERS.items():
    attack("paper", _name, lambda f=_file, m=_make: attached(f, m()))
attack(
    "paper",
    "picture in the text of a mail",
    lambda: mixed(
        ("Content-Type: text/html\n", "<img src=cid:a>"),
        (
            "Content-Type: image/png\nContent-ID: <a>\nContent-Disposition: inline\nContent-Transfer-Encoding: base64\n",
            coded(_PAGE),
        ),
        kind="related",
    ),
)
attack(
    "paper",
    "picture in an address of a page",
    lambda: html(f"<img src='data:image/png;base64,{base64.b64encode(_PAGE).decode()}'>"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(ATTACKS))
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    return run(options.only or list(ATTACKS), options.verbose)


if __name__ == "__main__":
    sys.exit(main())
