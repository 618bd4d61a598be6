"""Mails that programs read differently, ordinary mails beside them, file names that deceive, From fields that name two
people.

Written for the tests M1, M2, M5 and D1; `bench/mime_corpus.py` shows the same mails to other parsers. In the texts
below a line ends with CRLF on the wire; ␀, ␍ and ␊ stand for NUL, bare CR and bare LF.
"""

# ruff: noqa: E501

from __future__ import annotations

import base64
import binascii
import quopri
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MARKER = b"MARKER-7f3a-of-the-attachment"
FILE = b"%PDF-1.4\n" + MARKER + b"\n." + bytes(range(32, 127)) * 4 + b"\n%%EOF\n"  # its base64 ends with one `=`
B64 = base64.encodebytes(FILE).decode()
FLAT = B64.replace("\n", "")
UU = "begin 644 a.pdf\n" + "".join(
    binascii.b2a_uu(FILE[n : n + 45]).decode() for n in range(0, len(FILE), 45)
) + "`\nend\n"  # fmt: skip
YENC = "=ybegin line=128 size=12 name=a.pdf\n" + "abcdefghijkl\n=yend size=12\n"
BINHEX = '(This file must be converted with BinHex 4.0)\n:#h0[C"!!,Q0[G@4P,R-!N!3"!!!:\n'
PGP = "-----BEGIN PGP MESSAGE-----\n\nhQEMA0Zz\n=abcd\n-----END PGP MESSAGE-----\n"


@dataclass(frozen=True)
class Case:
    """held: we must say that it cannot be read in one way, or not at all. file: otherwise, whether the file is found."""

    name: str
    raw: bytes
    held: bool
    file: bool


CASES: list[Case] = []
TOP = "From: a@x.gov.vn\nTo: b@y.gov.vn\nSubject: s\nDate: Tue, 02 Jun 2026 08:00:00 +0700\nMessage-ID: <1@x>\n"
V = "MIME-Version: 1.0\n"
HEAD = TOP + V + "Content-Type: multipart/mixed; boundary=b1\n"
CT = 'Content-Type: application/pdf; name="a.pdf"\n'
CD = 'Content-Disposition: attachment; filename="a.pdf"\n'
CTE = "Content-Transfer-Encoding: base64\n"
PART = CT + CD + CTE


def wire(text: str) -> bytes:
    text = text.replace("\n", "\r\n").replace("␍", "\r").replace("␊", "\n").replace("␀", "\0")
    return text.encode("utf-8", "surrogateescape")


def mixed(
    part: str = PART, body: str = B64, *, head: str = HEAD, b: str = "b1", pre: str = "", tail: str | None = None
) -> str:
    """A multipart/mixed of a text, and one part with the header `part` and the body."""
    end = f"--{b}--\n" if tail is None else tail
    return f"{head}\n{pre}--{b}\nContent-Type: text/plain\n\nxin chao\n--{b}\n{part}\n{body}{end}"


def single(head: str, body: str = B64) -> str:
    return f"{TOP}{V}{head}\n{body}"


def held(name: str, text: str) -> None:
    CASES.append(Case(name, wire(text), True, False))


def clear(name: str, text: str, file: bool = True) -> None:
    CASES.append(Case(name, wire(text), False, file))


def typed(value: str, **rest: str) -> str:
    """The mail whose main Content-Type field has this value."""
    return mixed(head=TOP + V + f"Content-Type: {value}\n", **rest)


# --- fields given twice
held(
    "type twice, text first",
    mixed(head=TOP + V + "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b1\n"),
)
held("type twice, multipart first", mixed(head=HEAD + "Content-Type: text/plain\n"))
held("type twice, two boundaries", mixed(head=HEAD + "Content-Type: multipart/mixed; boundary=b2\n"))
held("type twice in the part", mixed("Content-Type: text/plain\n" + PART))
held("encoding twice, 7bit first", mixed("Content-Transfer-Encoding: 7bit\n" + PART))
held("encoding twice, base64 first", mixed(PART + "Content-Transfer-Encoding: 7bit\n"))
held("encoding twice, quoted-printable", mixed(PART + "Content-Transfer-Encoding: quoted-printable\n"))
held("disposition twice", mixed(PART + 'Content-Disposition: inline; filename="b.exe"\n'))
held("version twice", mixed(head=HEAD + "MIME-Version: 2.0\n"))
held("from twice", mixed(head="From: c@z.vn\n" + HEAD))
held("sender twice", mixed(head="Sender: c@z.vn\nSender: d@z.vn\n" + HEAD))
held("reply-to twice", mixed(head="Reply-To: c@z.vn\nReply-To: d@z.vn\n" + HEAD))
held("to twice", mixed(head="To: c@z.vn\n" + HEAD))
held("subject twice", mixed(head="Subject: MAT\n" + HEAD))
held("date twice", mixed(head="Date: Tue, 02 Jun 2020 08:00:00 +0700\n" + HEAD))
held("message-id twice", mixed(head="Message-ID: <2@x>\n" + HEAD))
clear("type twice, alike", mixed(head=HEAD + "Content-Type:  multipart/mixed;  boundary=b1\n"))
clear("version twice, alike", mixed(head=HEAD + V))

# --- Content-Transfer-Encoding
for label, value in (
    ("comment behind", "base64 (x)"), ("comment before", "(x) base64"), ("comment inside", "base(x)64"),
    ("quotes", '"base64"'), ("semicolon", "base64;"), ("parameter", "base64; x=y"), ("two words", "base64 7bit"),
    ("comma", "base64, 7bit"), ("unknown", "x-foo"), ("with a hyphen", "base-64"), ("uuencode", "x-uuencode"),
    ("uue", "x-uue"), ("full stop", "base64."), ("NUL", "base64␀"), ("NUL inside", "ba␀se64"), ("encoded word", "=?us-ascii?Q?base64?="),
    ("no-break space", "\u00a0base64"), ("form feed", "base64\x0c"), ("8 bit", "8 bit"), ("gzip64", "gzip64"),
    ("equals", "=base64"), ("7-bit", "7-bit"), ("colon", ": base64"), ("vertical tab", "\x0bbase64"),
):  # fmt: skip
    held(f"encoding: {label}", mixed(CT + CD + f"Content-Transfer-Encoding: {value}\n"))
for label, value in (
    ("upper case", " BASE64"),
    ("tab", "\tbase64\t "),
    ("folded", "\n base64"),
    ("no blank", "base64"),
):
    clear(f"encoding: {label}", mixed(CT + CD + f"Content-Transfer-Encoding:{value}\n"))
clear(
    "encoding: none, binary file",
    mixed(CT + CD + "Content-Transfer-Encoding: binary\n", FILE.decode().replace("\n", "\n")),
)
clear("encoding: empty", mixed(CT + CD + "Content-Transfer-Encoding:\n", FILE.decode()))
for value in ("base64", "quoted-printable"):
    held(f"multipart in {value}", mixed(head=HEAD + f"Content-Transfer-Encoding: {value}\n"))
held("multipart in base64, encoded whole", HEAD + CTE + "\n" + base64.encodebytes(wire(mixed(head="")[1:])).decode())
held(
    "inner multipart in base64",
    mixed("Content-Type: multipart/mixed; boundary=b2\n" + CTE, f"--b2\n{PART}\n{B64}--b2--\n"),
)

# --- Content-Type
for label, value in (
    ("comment before", "(x) multipart/mixed; boundary=b1"), ("comment behind", "multipart/mixed (x); boundary=b1"),
    ("comment inside", "multipart(x)/mixed; boundary=b1"), ("quotes", '"multipart/mixed"; boundary=b1'),
    ("blanks at the slash", "multipart / mixed; boundary=b1"), ("comma", "multipart/mixed, boundary=b1"),
    ("no semicolon", "multipart/mixed boundary=b1"), ("NUL", "multipart/mixed␀; boundary=b1"),
    ("NUL in the boundary", "multipart/mixed; boundary=b1␀"), ("NUL before", "␀multipart/mixed; boundary=b1"),
    ("encoded word", "=?us-ascii?Q?multipart/mixed?=; boundary=b1"), ("no subtype", "multipart; boundary=b1"),
    ("empty subtype", "multipart/; boundary=b1"), ("two types", "text/plain multipart/mixed; boundary=b1"),
    ("folded in the type", "multipart/mi\n xed; boundary=b1"), ("colon", ": multipart/mixed; boundary=b1"),
    ("form feed", "multipart/mixed;\x0c boundary=b1"), ("no type", "boundary=b1"), ("no type, semicolon", "; boundary=b1"),
    ("letter of 8 bits", "multipart/mixed\u00a0; boundary=b1"), ("three parts", "multipart/mixed/x; boundary=b1"),
):  # fmt: skip
    held(f"type: {label}", typed(value))
for label, value in (
    ("upper case", "MULTIPART/MIXED; BOUNDARY=b1"), ("folded", "multipart/mixed;\n\tboundary=b1"),
    ("blanks at the equals sign", "multipart/mixed; boundary = b1"), ("semicolon at the end", "multipart/mixed; boundary=b1;"),
    ("two semicolons", "multipart/mixed;; boundary=b1"), ("no blanks", "multipart/mixed;boundary=b1"),
    ("quotes at the boundary", 'multipart/mixed; boundary="b1"'), ("other parameters", 'multipart/mixed; a="x;y"; boundary=b1; c=d'),
    ("unknown subtype", "multipart/x-new; boundary=b1"), ("related", "multipart/related; boundary=b1; type=\"text/plain\""),
    ("blank before the semicolon", "multipart/mixed ; boundary=b1"), ("boundary twice, alike", "multipart/mixed; boundary=b1; boundary=b1"),
):  # fmt: skip
    clear(f"type: {label}", typed(value))
for label, value in (
    ("twice", "multipart/mixed; boundary=b2; boundary=b1"), ("twice, other order", "multipart/mixed; boundary=b1; boundary=b2"),
    ("RFC 2231", "multipart/mixed; boundary*=us-ascii''b1"), ("RFC 2231 pieces", "multipart/mixed; boundary*0=b; boundary*1=1"),
    ("RFC 2231 and plain", "multipart/mixed; boundary=b2; boundary*=us-ascii''b1"), ("empty", 'multipart/mixed; boundary=""'),
    ("missing", "multipart/mixed"), ("quote that never ends", 'multipart/mixed; boundary="b1'),
    ("comment", "multipart/mixed; boundary=(x)b1"), ("comment behind", "multipart/mixed; boundary=b1 (x)"),
    ("text behind the quotes", 'multipart/mixed; boundary="b1"x'), ("two quoted strings", 'multipart/mixed; boundary="b""1"'),
    ("encoded word", "multipart/mixed; boundary==?us-ascii?Q?b1?="), ("quoted pair", 'multipart/mixed; boundary="b\\1"'),
    ("blank at the end", 'multipart/mixed; boundary="b1 "'), ("blank at the beginning", 'multipart/mixed; boundary=" b1"'),
    ("in a comment", "multipart/mixed; (boundary=b2) boundary=b1"), ("in quotes of another", 'multipart/mixed; x="; boundary=b2"; "boundary=b1'),
    ("percent", "multipart/mixed; boundary*=%62%31"), ("colon", "multipart/mixed; boundary: b1"),
):  # fmt: skip
    held(f"boundary: {label}", typed(value))
held("boundary: blanks and no quotes", typed("multipart/mixed; boundary=b1 b2", b="b1 b2"))
held("boundary: single quotes", typed("multipart/mixed; boundary='b1'"))
clear("boundary: single quotes in both places", typed("multipart/mixed; boundary='b1'", b="'b1'"))
held("boundary: longer than 70", typed("multipart/mixed; boundary=" + "x" * 90, b="x" * 90))
clear("boundary: 70 long", typed("multipart/mixed; boundary=" + "x" * 70, b="x" * 70))
held("boundary: cut at 70", typed("multipart/mixed; boundary=" + "x" * 90, b="x" * 70))
held("boundary: letters of 8 bits", typed('multipart/mixed; boundary="b\u00e0"', b="b\u00e0"))
clear("boundary: all signs", typed('multipart/mixed; boundary="a\'()+_,-./:=?z"', b="a'()+_,-./:=?z"))
clear("boundary: equals signs without quotes", typed("multipart/mixed; boundary=----=_Part_1", b="----=_Part_1"))
held("boundary on a text", typed("text/plain; boundary=b1"))
held("boundary on an unknown type", typed("x/y; boundary=b1"))
held("boundary in other case", typed("multipart/mixed; boundary=B1", tail="--B1\n\nx\n--B1--\n"))

# --- delimiter lines
held("delimiter with text behind", mixed(pre="", tail="--b1 x\n" + PART + "\n" + B64 + "--b1--\n"))
held("delimiter as a prefix", mixed("Content-Type: text/plain\n", "x\n--b12\n" + PART + "\n" + B64))
clear("delimiter with blanks behind", mixed().replace("--b1\n", "--b1 \t \n"))
clear(
    "inner boundary longer than the outer",
    mixed("Content-Type: multipart/mixed; boundary=b1.in\n", f"--b1.in\n{PART}\n{B64}--b1.in--\n"),
)
held("part after the end", mixed("Content-Type: text/plain\n", "x\n") + f"--b1\n{PART}\n{B64}--b1--\n")
held("header and body after the end", mixed("Content-Type: text/plain\n", "x\n") + f"\n{PART}\n{B64}")
held("uuencode after the end", mixed("Content-Type: text/plain\n", "x\n") + "\n" + UU)
held(
    "multipart after the end",
    mixed("Content-Type: text/plain\n", "x\n")
    + "\n"
    + mixed(head="Content-Type: multipart/mixed; boundary=b2\n", b="b2"),
)
held("end with text behind", mixed("Content-Type: text/plain\n", "x\n", tail=f"--b1--x\n--b1\n{PART}\n{B64}--b1--\n"))
held("end with three hyphens", mixed("Content-Type: text/plain\n", "x\n", tail=f"--b1---\n{PART}\n{B64}--b1--\n"))
held("part before the first delimiter", mixed("Content-Type: text/plain\n", "x\n", pre=f"{PART}\n{B64}"))
held("other delimiter before the first", mixed("Content-Type: text/plain\n", "x\n", pre=f"--b0\n{PART}\n{B64}--b0--\n"))
held("uuencode before the first delimiter", mixed("Content-Type: text/plain\n", "x\n", pre=UU))
held("delimiter that never occurs", mixed(b="other"))
held("delimiter with one hyphen less", HEAD + f"\n-b1\n{PART}\n{B64}-b1--\n--x\n")
held("bare LF before the delimiter", mixed().replace("xin chao\n", "xin chao␊"))
held("bare CR before the delimiter", mixed().replace("xin chao\n", "xin chao␍"))
held("CR CR LF at the delimiter", mixed().replace("--b1\nContent-Type: app", "--b1␍\nContent-Type: app"))
held("NUL at the delimiter", mixed().replace("--b1\nContent-Type: app", "--b1␀\nContent-Type: app"))
held("vertical tab at the delimiter", mixed().replace("--b1\nContent-Type: app", "--b1\x0b\nContent-Type: app"))
held("the same boundary twice", mixed("Content-Type: multipart/mixed; boundary=b1\n", f"--b1\n{PART}\n{B64}--b1--\n"))
clear("inner multipart never closed", mixed("Content-Type: multipart/mixed; boundary=b2\n", f"--b2\n{PART}\n{B64}"))
clear("nothing closed", mixed(tail=""))
clear("no text before, delimiter at once", mixed(head=HEAD).replace("\n\n--b1", "\n\n--b1", 1))
clear("empty parts", mixed(tail="--b1\n--b1\n\n--b1--\n"))
clear(
    "text around the parts", mixed(pre="This is a multi-part message in MIME format.\n\n") + "\nmailing list footer\n"
)
held("part without a blank line", mixed(body="", part=PART + B64))
clear("part without a header", mixed(tail="--b1\n\ntext\n--b1--\n"))
held("part header that begins with a blank", mixed(" " + PART))
held("part header with an odd line", mixed("no field here\n" + PART))
held("part header with a blank line of blanks", mixed("X-A: 1\n \t\n" + PART))
held(
    "delimiter with a blank before, only",
    HEAD + f"\n --b1\n{PART}\n{B64}\n --b1--\n--b1--\n--x\n".replace("--b1--\n--x", "--x"),
)

# --- base64
half = len(B64) // 2 // 77 * 77
for label, body in (
    ("star inside", B64[:half] + "*" + B64[half:]), ("data after the padding", B64.rstrip("\n") + "\nQUJD\n"),
    ("padding inside", base64.encodebytes(FILE[:100]).decode() + base64.encodebytes(FILE[100:]).decode()),
    ("URL letters", B64.replace("A", "-", 1)), ("hyphens", "----\n" + B64), ("text before", "see below:\n" + B64),
    ("footer", B64 + "____________\nlist footer!\n"), ("NUL", B64[:half] + "␀" + B64[half:]), ("exclamation mark", "!" + B64),
    ("byte order mark", "\ufeff" + B64), ("letter of 8 bits", "\u00e0" + B64), ("comment", "(x)" + B64), ("bare LF", B64.replace("\n", "␊", 1)),
    ("bare CR", B64.replace("\n", "␍", 1)), ("padding first", "====" + B64), ("padding in every line", "".join(
        base64.b64encode(FILE[n : n + 40]).decode() + "\n" for n in range(0, len(FILE), 40))),
    ("uuencode in it", UU), ("quoted-printable in it", FILE.decode("latin-1").replace("=", "=3D")),
):  # fmt: skip
    held(f"base64: {label}", mixed(body=body))
for label, body in (
    ("one long line", FLAT + "\n"), ("blanks in the lines", B64.replace("\n", " \t\n")), ("empty lines", B64.replace("\n", "\n\n")),
    ("no padding", B64.rstrip("=\n") + "\n"), ("short lines", "\n".join(FLAT[n : n + 4] for n in range(0, len(FLAT), 4)) + "\n"),
    ("blanks before the lines", "  " + B64.rstrip().replace("\n", "\n  ") + "\n"), ("no line end", FLAT),
):  # fmt: skip
    clear(f"base64: {label}", mixed(body=body if body.endswith("\n") or label != "no line end" else body + "\n"))

# --- quoted-printable
QP = quopri.encodestring(FILE, quotetabs=False).decode()
clear("quoted-printable", mixed(CT + CD + "Content-Transfer-Encoding: quoted-printable\n", QP))
clear(
    "quoted-printable, blanks at the ends",
    mixed(CT + CD + "Content-Transfer-Encoding: quoted-printable\n", QP.replace("=\n", "= \t\n")),
)
clear(
    "quoted-printable, every byte",
    mixed(
        CT + CD + "Content-Transfer-Encoding: quoted-printable\n", "=\n".join(f"={byte:02x}" for byte in FILE) + "\n"
    ),
)

# --- files in texts
for label, body in (("uuencode", UU), ("uuencode after text", "hello\n\n" + UU), ("uuencode, mode of four digits", UU.replace("644", "0644", 1)),
                    ("begin-base64", "begin-base64 644 a.pdf\n" + B64 + "====\n"), ("yEnc", YENC), ("BinHex", BINHEX),
                    ("uuencode, two blanks", UU.replace("begin 644 ", "begin  644  ", 1)), ("uuencode, tab", UU.replace("begin 644", "begin\t644", 1)),
                    ("uuencode, name with blanks", UU.replace("a.pdf", "bao cao.pdf", 1)), ("uuencode, no end", UU.replace("`\nend\n", ""))):  # fmt: skip
    held(f"in a text: {label}", single("Content-Type: text/plain\n", body))
held("in a mail without MIME: uuencode", TOP + "\n" + UU)
held("in HTML: uuencode", single("Content-Type: text/html\n", "<pre>\n" + UU + "</pre>\n"))
held(
    "in quoted-printable: uuencode",
    single("Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n", UU.replace("=", "=3D")),
)
held("in base64: uuencode", single("Content-Type: text/plain\n" + CTE, base64.encodebytes(UU.encode()).decode()))
held("in a part: uuencode", mixed("Content-Type: text/plain\n", UU))
held("in a file of 7bit: uuencode", mixed(CT + CD, UU))
clear(
    "in a text: the word begin",
    single("Content-Type: text/plain\n", "We begin 644 days later.\nbegin with this\n"),
    file=False,
)

# --- messages in messages
INNER = mixed()
clear("nested message", mixed("Content-Type: message/rfc822\n", INNER.replace("b1", "b2")))
clear(
    "nested message, attached",
    mixed("Content-Type: message/rfc822\n" + CD.replace("pdf", "eml"), INNER.replace("b1", "b2")),
)
held(
    "nested message in base64", mixed("Content-Type: message/rfc822\n" + CTE, base64.encodebytes(wire(INNER)).decode())
)
held("nested message, called base64", mixed("Content-Type: message/rfc822\n" + CTE, INNER.replace("b1", "b2")))
held(
    "nested message in quoted-printable",
    mixed(
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n",
        INNER.replace("b1", "b2").replace("=", "=3D"),
    ),
)
held("nested message with the outer boundary", mixed("Content-Type: message/rfc822\n", INNER))
clear(
    "nested message of a nested message",
    mixed(
        "Content-Type: message/rfc822\n",
        mixed("Content-Type: message/rfc822\n", INNER.replace("b1", "b3")).replace("b1", "b2"),
    ),
)
clear(
    "message as octets",
    mixed("Content-Type: application/octet-stream; name=a.eml\n" + CTE, base64.encodebytes(wire(INNER)).decode()),
    file=True,
)
held("message/partial", single('Content-Type: message/partial; id="x@y"; number=1; total=2\n', INNER))
held(
    "message/external-body",
    single(
        'Content-Type: message/external-body; access-type=URL; URL="http://x.example/a.pdf"\n',
        "Content-Type: application/pdf\n\n",
    ),
)
held(
    "part: message/external-body",
    mixed("Content-Type: message/external-body; access-type=local-file; name=a\n", "Content-Type: application/pdf\n\n"),
)
clear("nested message, message/global", mixed("Content-Type: message/global\n", INNER.replace("b1", "b2")))
clear("nested message, message/news", mixed("Content-Type: message/news\n", INNER.replace("b1", "b2")))
held("nested message of an unknown kind", mixed("Content-Type: message/x\n", INNER.replace("b1", "b2")))
held(
    "old bounce with the mail as text",
    single(
        "Content-Type: text/plain\n",
        "Hi. This is the qmail-send program.\n\n--- Below this line is a copy of the message.\n\n" + INNER,
    ),
)
held("delimiter with one hyphen more", mixed().replace("--b1\nContent-Type: app", "---b1\nContent-Type: app"))
held("delimiter with a blank before", mixed().replace("--b1\nContent-Type: app", " --b1\nContent-Type: app"))
held("blank line before the encoding", mixed(CT + CD + "\n" + CTE))
held("blank line before the type", TOP + "\n" + mixed(head=V + "Content-Type: multipart/mixed; boundary=b1\n"))
held("field name with a sign before it", mixed(CT + CD + "=" + CTE))
held("field name with a sign behind it", mixed(CT + CD + CTE.replace("Encoding:", "Encoding>:")))
clear(
    "field name of an archive",
    mixed(head="X-Original-Content-Type: text/plain\nX-Content-Transfer-Encoding-Was: 7bit\n" + HEAD),
)
held("field name with X- before it", mixed(CT + CD + "X-" + CTE))
held("field name with an encoded word", mixed(CT + CD + CTE.replace("Content", "C=?utf-8?Q?ontent")))
held("part header cut by a delimiter", mixed(CT + CTE + "--b1\n" + CD))
clear(
    "digest",
    typed("multipart/digest; boundary=b1").replace(
        "--b1\n" + PART + "\n" + B64, "--b1\n\n" + INNER.replace("b1", "b2")
    ),
)

# --- header blocks
held("space before the colon", mixed(head=HEAD.replace("Content-Type:", "Content-Type :")))
held("tab before the colon", mixed(head=HEAD.replace("Content-Type:", "Content-Type\t:")))
held("space before the colon in the part", mixed(PART.replace("Encoding:", "Encoding :")))
held("space before the colon of From", mixed(head=HEAD.replace("From:", "From :")))
held("line without a colon", mixed(head=TOP + "no field here\n" + V + "Content-Type: multipart/mixed; boundary=b1\n"))
held("field name with a blank", mixed(head=HEAD.replace("Content-Type:", "Content Type:")))
held("field name with a Cyrillic letter", mixed(head=HEAD.replace("Content-Type:", "\u0421ontent-Type:")))
held("field name folded", mixed(head=HEAD.replace("Content-Type:", "Content-\n Type:")))
held("NUL in a field", mixed(head=HEAD.replace("Subject: s", "Subject: s␀")))
held("NUL in a field name", mixed(head=HEAD.replace("Content-Type:", "Content-Type␀:")))
held("bare CR in the header", mixed(head=TOP + "X-A: 1␍" + V + "Content-Type: multipart/mixed; boundary=b1\n"))
held("bare LF in the header", mixed(head=TOP + "X-A: 1␊" + V + "Content-Type: multipart/mixed; boundary=b1\n"))
held("header ended by two bare LF", TOP + "X-A: 1␊␊" + mixed(head=V + "Content-Type: multipart/mixed; boundary=b1\n"))
held("header of 200 KB", mixed(head="X-A: " + ("x" * 900 + "\n ") * 220 + "y\n" + HEAD))
held("line of blanks before the type", mixed(head=TOP + " \n" + V + "Content-Type: multipart/mixed; boundary=b1\n"))
held("header that begins folded", mixed(head=" folded\n" + HEAD))
held("empty line first", "\n" + mixed())
held("byte order mark first", mixed(head="\ufeff" + HEAD))
clear("no MIME-Version", mixed(head=HEAD.replace(V, "")))
clear("MIME-Version with a comment", mixed(head=HEAD.replace(V, "MIME-Version: 1.0 (made by hand)\n")))
clear("mbox line first", mixed(head="From x@y Tue Jun  2 08:00:00 2026\n" + HEAD))
clear("fields in other case", mixed(head=HEAD.replace("Content-Type", "cOnTeNt-tYpE")))
clear("very long line", mixed(head="X-A: " + "x" * 5000 + "\n" + HEAD))
clear("no blank after the colon", mixed(head=HEAD.replace(": ", ":")))
clear("8-bit letters in the subject", mixed(head=HEAD.replace("Subject: s", "Subject: T\u1edd tr\u00ecnh")))


def nested(depth: int) -> str:
    text = f"{PART}\n{B64}"
    for level in range(depth, 0, -1):
        text = f"Content-Type: multipart/mixed; boundary=n{level:03}\n\n--n{level:03}\n{text}--n{level:03}--\n"
    return TOP + V + text


clear("nested 15 deep", nested(15))
held("nested 25 deep", nested(25))
held("nested 150 deep", nested(150))
held("600 parts", HEAD + "\n" + "--b1\n\nx\n" * 600 + f"--b1\n{PART}\n{B64}--b1--\n")
held("100,000 delimiters", HEAD + "\n" + "--b1\n" * 100_000 + f"{PART}\n{B64}--b1--\n")

# --- encrypted
ENVELOPED = base64.encodebytes(bytes.fromhex("308204a006092a864886f70d010703a0820491") + b"x" * 300).decode()
SIGNED = base64.encodebytes(bytes.fromhex("308204a006092a864886f70d010702a0820491") + b"x" * 300).decode()
held(
    "S/MIME enveloped",
    single("Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\n" + CTE, ENVELOPED),
)
held("S/MIME without its kind", single("Content-Type: application/x-pkcs7-mime; name=smime.p7m\n" + CTE, ENVELOPED))
held(
    "S/MIME called signed, enveloped",
    single("Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\n" + CTE, ENVELOPED),
)
held("S/MIME as a file", mixed("Content-Type: application/octet-stream; name=smime.p7m\n" + CTE, ENVELOPED))
held(
    "PGP/MIME",
    mixed(
        "Content-Type: application/octet-stream\n",
        PGP,
        head=TOP + V + 'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b1\n',
    ),
)
held("PGP in the text", single("Content-Type: text/plain\n", "hello\n" + PGP))
held("PGP as a file", mixed("Content-Type: application/octet-stream; name=a.asc\n", PGP))
held(
    "PGP in the text, quoted-printable",
    single("Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n", PGP.replace("=", "=3D")),
)

# --- names that two readers read differently (the rest is in FILENAMES)
held("name and name* differ", mixed(PART.replace('filename="a.pdf"', "filename=a.txt; filename*=utf-8''a.exe")))
held("file name twice", mixed(PART.replace('filename="a.pdf"', 'filename="a.txt"; filename="a.exe"')))
held("name of the type ends differently", mixed(PART.replace('name="a.pdf"', 'name="a.exe"', 1)))


# --- ordinary mail, none of which may be held

ORDINARY: dict[str, str] = {
    "Outlook": TOP
    + V
    + 'Content-Type: multipart/mixed;\n\tboundary="----=_NextPart_000_0001_01DA1234.ABCDEF00"\nX-Mailer: Microsoft Outlook 16.0\nThread-Index: AQHa\nContent-Language: vi\n\n'
    'This is a multipart message in MIME format.\n\n------=_NextPart_000_0001_01DA1234.ABCDEF00\nContent-Type: multipart/alternative;\n\tboundary="----=_NextPart_001_0002_01DA1234.ABCDEF00"\n\n\n'
    '------=_NextPart_001_0002_01DA1234.ABCDEF00\nContent-Type: text/plain;\n\tcharset="utf-8"\nContent-Transfer-Encoding: base64\n\nS8OtbmggZ+G7rWk=\n\n------=_NextPart_001_0002_01DA1234.ABCDEF00\n'
    'Content-Type: text/html;\n\tcharset="utf-8"\nContent-Transfer-Encoding: quoted-printable\n\n<html><body>K=C3=ADnh =\ng=E1=BB=ADi</body></html>\n------=_NextPart_001_0002_01DA1234.ABCDEF00--\n\n'
    f'------=_NextPart_000_0001_01DA1234.ABCDEF00\nContent-Type: application/pdf;\n\tname="=?utf-8?B?VOG7nSB0csOsbmgucGRm?="\n{CTE}Content-Disposition: attachment;\n\tfilename="=?utf-8?B?VOG7nSB0csOsbmgucGRm?="\n\n{B64}\n------=_NextPart_000_0001_01DA1234.ABCDEF00--\n',
    "Gmail": "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\n        d=gmail.com; s=20230601; b=abc=\n"
    + TOP
    + V
    + 'Content-Type: multipart/mixed; boundary="0000000000004cbd1d061b6f3a2e"\n\n--0000000000004cbd1d061b6f3a2e\n'
    'Content-Type: multipart/alternative; boundary="0000000000004cbd1b061b6f3a2c"\n\n--0000000000004cbd1b061b6f3a2c\nContent-Type: text/plain; charset="UTF-8"\nContent-Transfer-Encoding: base64\n\nS8OtbmggZ+G7rWk\n'
    '\n--0000000000004cbd1b061b6f3a2c\nContent-Type: text/html; charset="UTF-8"\n\n<div>x</div>\n\n--0000000000004cbd1b061b6f3a2c--\n--0000000000004cbd1d061b6f3a2e\n'
    f'Content-Type: application/pdf; name="a.pdf"\nContent-Disposition: attachment; filename="a.pdf"\n{CTE}X-Attachment-Id: f_1\nContent-ID: <f_1>\n\n{B64}--0000000000004cbd1d061b6f3a2e--\n',
    "Apple Mail": TOP
    + 'Mime-Version: 1.0 (Mac OS X Mail 16.0 \\(3774.500.171\\))\nContent-Type: multipart/mixed;\n\tboundary="Apple-Mail=_0D5E6F9C-1111-2222-3333-444455556666"\n\n\n--Apple-Mail=_0D5E6F9C-1111-2222-3333-444455556666\n'
    "Content-Transfer-Encoding: 7bit\nContent-Type: text/plain;\n\tcharset=us-ascii\n\nhi\n\n--Apple-Mail=_0D5E6F9C-1111-2222-3333-444455556666\nContent-Disposition: attachment;\n\tfilename*=utf-8''T%C6%A1%CC%80%20tri%CC%80nh.pdf\n"
    f'Content-Type: application/pdf;\n\tx-unix-mode=0644;\n\tname="=?utf-8?Q?T=C6=A1=CC=80_tri=CC=80nh=2Epdf?="\n{CTE}\n{B64}\n--Apple-Mail=_0D5E6F9C-1111-2222-3333-444455556666--\n',
    "mailing list": mixed(head="List-Id: <l.x.vn>\n" + HEAD)
    + "\n_______________________________________________\nL mailing list\nL@x.vn\nhttp://x.vn/l\n",
    "Roundcube, two names": mixed(
        'Content-Type: application/pdf;\n name="=?UTF-8?Q?T=E1=BB=9D_tr=C3=ACnh=2Epdf?="\nContent-Disposition: attachment;\n filename="=?UTF-8?Q?T=E1=BB=9D_tr=C3=ACnh=2Epdf?="; size=400\n'
        + CTE
    ),
    "poor name beside the full one": mixed(
        'Content-Type: application/pdf; name="To trinh.pdf"\nContent-Disposition: attachment; filename="T_ tr_nh.pdf"; filename*=UTF-8\'\'T%E1%BB%9D%20tr%C3%ACnh.pdf\n'
        + CTE
    ),
    "name in pieces": mixed(
        "Content-Type: application/pdf\nContent-Disposition: attachment;\n filename*0*=utf-8''T%E1%BB%9D%20;\n filename*1*=tr%C3%ACnh;\n filename*2=\".pdf\"\n"
        + CTE
    ),
    "name without quotes": mixed(
        "Content-Type: application/pdf; name=bao cao thang 6.pdf\nContent-Disposition: attachment; filename=bao cao thang 6.pdf\n"
        + CTE
    ),
    "name of raw letters": mixed(
        'Content-Type: application/pdf; name="T\u1edd tr\u00ecnh.pdf"\nContent-Disposition: attachment; filename="T\u1edd tr\u00ecnh.pdf"\n'
        + CTE
    ),
    "bounce": "From: MAILER-DAEMON@x.vn (Mail Delivery System)\nTo: a@x.vn\nSubject: Undelivered Mail Returned to Sender\nAuto-Submitted: auto-replied\n"
    + V
    + 'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="4F1.1/mx.x.vn"\n\n'
    "This is a MIME-encapsulated message.\n\n--4F1.1/mx.x.vn\nContent-Description: Notification\nContent-Type: text/plain; charset=us-ascii\n\nSorry.\n\n--4F1.1/mx.x.vn\nContent-Description: Delivery report\nContent-Type: message/delivery-status\n\n"
    "Reporting-MTA: dns; mx.x.vn\n\nFinal-Recipient: rfc822; b@y.vn\nAction: failed\nStatus: 5.1.1\n\n--4F1.1/mx.x.vn\nContent-Description: Undelivered Message\nContent-Type: message/rfc822\n\nFrom: a@x.vn\nSubject: s\n\nhello\n\n--4F1.1/mx.x.vn--\n",
    "invitation": TOP
    + V
    + 'Content-Type: multipart/mixed; boundary="m"\n\n--m\nContent-Type: multipart/alternative; boundary="n"\n\n--n\nContent-Type: text/plain\n\nhop\n--n\nContent-Type: text/calendar; charset="UTF-8"; method=REQUEST\nContent-Transfer-Encoding: 7bit\n\n'
    'BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nDTSTART:20260602T010000Z\nEND:VEVENT\nEND:VCALENDAR\n--n--\n--m\nContent-Type: application/ics; name="invite.ics"\nContent-Disposition: attachment; filename="invite.ics"\nContent-Transfer-Encoding: base64\n\nQkVHSU46VkNBTEVOREFS\n--m--\n',
    "signed, S/MIME": TOP
    + V
    + 'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary="s"\n\nThis is a cryptographically signed message in MIME format.\n\n--s\nContent-Type: text/plain\n\nhi\n\n--s\n'
    f'Content-Type: application/pkcs7-signature; name="smime.p7s"\n{CTE}Content-Disposition: attachment; filename="smime.p7s"\nContent-Description: S/MIME Cryptographic Signature\n\n{SIGNED}\n--s--\n',
    "signed, PGP": TOP
    + V
    + 'Content-Type: multipart/signed; micalg=pgp-sha256; protocol="application/pgp-signature"; boundary="s"\n\nThis is an OpenPGP/MIME signed message (RFC 4880 and 3156)\n--s\nContent-Type: text/plain\n\nhi\n--s\n'
    'Content-Type: application/pgp-signature; name="OpenPGP_signature.asc"\nContent-Description: OpenPGP digital signature\n\n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n\n--s--\n',
    "clear-signed text": single(
        "Content-Type: text/plain\n",
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nhi\n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n",
    ),
    "winmail.dat": mixed(
        'Content-Type: application/ms-tnef; name="winmail.dat"\nContent-Disposition: attachment; filename="winmail.dat"\n'
        + CTE
    ),
    "plain, no MIME": TOP + "\nhello\n-- \nsignature\n",
    "pictures in HTML": typed('multipart/related; boundary=b1; type="text/html"').replace(
        "Content-Disposition: attachment", "Content-ID: <i@x>\nContent-Disposition: inline"
    ),
    "Eudora": typed(
        'multipart/mixed;\n\tboundary="=====================_715392540==_"', b="=====================_715392540==_"
    )
    .replace(PART, 'Content-Type: multipart/related; boundary="=====================_715392540==_.REL"\n')
    .replace(
        B64, f"--=====================_715392540==_.REL\n{PART}\n{B64}\n--=====================_715392540==_.REL--\n\n"
    ),
    "dashed signature in a text": single(
        "Content-Type: text/plain; charset=utf-8; format=flowed; delsp=yes\nContent-Transfer-Encoding: 8bit\n",
        "K\u00ednh g\u1eedi\n--\nV\u0103n th\u01b0\n----- Forwarded message -----\nContent-Type: text/plain\n",
    ),
    "legacy letters": single("Content-Type: text/plain\n", "KÝnh göi\n"),
    "trailing semicolon and comment in the date": single(
        "Date2: x\nContent-Type: text/plain; charset=UTF-8;\n", "x\n"
    ).replace("+0700", "+0700 (ICT)"),
    "empty body": TOP + V + "Content-Type: text/plain\n\n",
    "no body at all": TOP,
    "read receipt": TOP
    + V
    + "Content-Type: multipart/report; report-type=disposition-notification; boundary=r\n\n--r\nContent-Type: text/plain\n\nread\n--r\nContent-Type: message/disposition-notification\n\nDisposition: manual-action/MDN-sent-manually; displayed\n\n--r--\n",
    "format flowed, long subject": TOP.replace(
        "Subject: s",
        "Subject: =?UTF-8?Q?V=E1=BB=81_vi=E1=BB=87c_tri=E1=BB=83n_khai?=\n =?UTF-8?Q?_ch=E1=BB=89_th=E1=BB=8B?=",
    )
    + V
    + "Content-Type: text/plain\n\nx\n",
}


def judge(parse: Callable[[bytes], Any], raw: bytes, depth: int = 0) -> tuple[set[str], bool]:
    """What our parser says of a mail and of the messages inside it: why it is held, and whether it found the file."""
    message = parse(raw)
    why = {one.value for one in message.findings if one.kind in ("ambiguous", "uninspectable")}
    found = False
    for part in message.leaves:
        data = part.decode(message.raw)
        found = found or MARKER in data
        if depth < 5 and (part.nested or part.filename.endswith(".eml")):
            more, inner = judge(parse, data, depth + 1)
            why |= more
            found = found or inner
    return why, found


def ordinary() -> dict[str, bytes]:
    return {name: wire(text) for name, text in ORDINARY.items()}


# --- D1: From fields. None: refused, because two programs could name two addresses.

FROM_FORMS: list[tuple[str, str | None]] = [
    ("a@gov.vn", "a@gov.vn"),
    ("a@so-tttt.gov.vn", "a@so-tttt.gov.vn"),
    ("<a@so-tttt.gov.vn>", "a@so-tttt.gov.vn"),
    ("Văn thư <A@So-TTTT.gov.vn>", "a@so-tttt.gov.vn"),
    ('"Văn thư, Sở TTTT" <a@gov.vn>', "a@gov.vn"),
    ('"x@evil.com" <a@gov.vn>', "a@gov.vn"),
    ("=?utf-8?q?x=40evil=2Ecom?= <a@gov.vn>", "a@gov.vn"),
    ("=?utf-8?b?PHhAZXZpbC5jb20+?= <a@gov.vn>", "a@gov.vn"),
    ("a@gov.vn (Văn thư)", "a@gov.vn"),
    ("(Văn thư) a@gov.vn", "a@gov.vn"),
    ("U.B.N.D. tỉnh <a@gov.vn>", "a@gov.vn"),
    ("a+b=c@gov.vn", "a+b=c@gov.vn"),
    ("o'brien@gov.vn", "o'brien@gov.vn"),
    ('"john"@gov.vn', "john@gov.vn"),
    ('"john doe"@gov.vn', '"john doe"@gov.vn'),
    ("a@bình-dương.vn", "a@bình-dương.vn"),
    ("a@xn--.vn", None),  # not the A-label of anything
    ("a@gоv.vn", "a@gоv.vn"),  # Cyrillic о: its own domain, told by `lookalike`
    ("thư@gov.vn", "thư@gov.vn"),
    ("a@GOV.VN", "a@gov.vn"),
    ("a@localhost", "a@localhost"),
    ("a@123.vn", "a@123.vn"),
    ('"x@evil.com"@gov.vn', None),
    ("x@evil.com@gov.vn", None),
    ("x@evil.com <a@gov.vn>", None),
    ("a@gov.vn, b@gov.vn", None),
    ("a@gov.vn b@evil.com", None),
    ("<a@gov.vn><x@evil.com>", None),
    ("<a@gov.vn> x@evil.com", None),
    ("Nhóm: a@gov.vn;", None),
    ("undisclosed-recipients:;", None),
    ("", None),
    ("<>", None),
    ("Văn thư", None),
    ("a@[192.0.2.1]", None),
    ("a@gov.vn.", None),
    ("a@gov..vn", None),
    ("a@-gov.vn", None),
    ("a(x@evil.com)@gov.vn", None),
    ("a@(x)gov.vn", None),
    ("a@gov.vn(@evil.com", None),
    ("<@evil.com:a@gov.vn>", None),
    ("a @gov.vn", None),
    ("a@gov .vn", None),
    ('"a <x@evil.com>', None),
    ("a@gov.vn\0@evil.com", None),
    ("a@gov.vn\rb", None),
    ("a@gov.vn,", None),
    (",a@gov.vn", None),
    ("<a@gov.vn", None),
    ("a@gov.vn>", None),
    ("a;@gov.vn", None),
    ("a@gov.vn;x@evil.com", None),
    ("a@gov_vn.com", None),
    ('"a\\"@evil.com"@gov.vn', None),
    ("..@gov.vn", None),
]

# --- M5: file names. (what it tries, Content-Disposition|Content-Type, the name shown, findings)

FILENAMES: list[tuple[str, str, str, list[str]]] = [
    ("plain", 'attachment; filename="a.pdf"', "a.pdf", []),
    ("token", "attachment; filename=a.pdf", "a.pdf", []),
    ("upper case parameter", 'attachment; FILENAME="a.pdf"', "a.pdf", []),
    ("only in the type", 'attachment|application/pdf; name="a.pdf"', "a.pdf", []),
    ("encoded word", 'attachment; filename="=?utf-8?B?VOG7nSB0csOsbmgucGRm?="', "Tờ trình.pdf", []),
    ("encoded word without quotes", "attachment; filename==?utf-8?B?VOG7nSB0csOsbmgucGRm?=", "Tờ trình.pdf", []),
    ("two encoded words", 'attachment; filename="=?utf-8?B?VOG7nQ==?=\n =?utf-8?B?LnBkZg==?="', "Tờ.pdf", []),
    ("letter cut between two words", 'attachment; filename="=?utf-8?Q?T=E1=BB?= =?utf-8?Q?=9D.pdf?="', "Tờ.pdf", []),
    ("RFC 2231", "attachment; filename*=utf-8''T%E1%BB%9D.pdf", "Tờ.pdf", []),
    ("RFC 2231 with a language", "attachment; filename*=utf-8'vi'T%E1%BB%9D.pdf", "Tờ.pdf", []),
    ("RFC 2231, cp1258", "attachment; filename*=windows-1258''b%E1o.pdf", "báo.pdf", []),
    ("RFC 2231 in pieces", "attachment; filename*0*=utf-8''T%E1%BB; filename*1*=%9D; filename*2=.pdf", "Tờ.pdf", []),
    ("pieces in any order", "attachment; filename*1=b.pdf; filename*0=a", "ab.pdf", []),
    ("decomposed letters", "attachment; filename*=utf-8''To%CC%9B%CC%80.pdf", "Tờ.pdf", []),
    ("raw UTF-8", 'attachment; filename="Tờ trình.pdf"', "Tờ trình.pdf", []),
    ("blanks without quotes", "attachment; filename=bao cao.pdf", "bao cao.pdf", []),
    ("brackets without quotes", "attachment; filename=bao(1).pdf", "bao(1).pdf", []),
    ("escaped quote", 'attachment; filename="a\\"b.pdf"', 'a"b.pdf', []),
    ("same name twice", 'attachment; filename="a.pdf"; filename="a.pdf"', "a.pdf", []),
    (
        "poor name beside the full one",
        "attachment; filename=\"T? tr?nh.pdf\"; filename*=utf-8''T%E1%BB%9D%20tr%C3%ACnh.pdf",
        "Tờ trình.pdf",
        [],
    ),
    ("other base in the type", 'attachment; filename="a.pdf"|application/pdf; name="b.pdf"', "a.pdf", ["conflict"]),
    (
        "other ending in the type",
        'attachment; filename="a.pdf"|application/pdf; name="a.exe"',
        "a.pdf",
        ["conflict", "ambiguous"],
    ),
    ("name twice", 'attachment; filename="a.txt"; filename="b.txt"', "a.txt", ["conflict", "ambiguous"]),
    ("name twice, other endings", 'attachment; filename="a.txt"; filename="a.exe"', "a.txt", ["conflict", "ambiguous"]),
    (
        "plain against RFC 2231",
        "attachment; filename=a.txt; filename*=utf-8''evil.exe",
        "evil.exe",
        ["conflict", "ambiguous"],
    ),
    (
        "RFC 2231 against pieces",
        "attachment; filename*=utf-8''a.txt; filename*0=evil.exe",
        "a.txt",
        ["conflict", "ambiguous"],
    ),
    (
        "plain against pieces",
        'attachment; filename="a.txt"; filename*0="evil"; filename*1=".exe"',
        "evil.exe",
        ["conflict", "ambiguous"],
    ),
    (
        "pieces with a gap",
        "attachment; filename*0=a.txt; filename*2=.exe",
        "a.txt.exe",
        ["conflict", "ambiguous", "double_extension"],
    ),
    ("piece twice", "attachment; filename*0=a.txt; filename*0=a.exe", "a.txt", ["conflict", "ambiguous"]),
    ("RFC 2231 without a charset", "attachment; filename*=evil.exe", "evil.exe", ["conflict", "ambiguous"]),
    ("comment in the parameter", 'attachment; (filename="a.txt") filename="a.exe"', "a.exe", ["ambiguous"]),
    ("two endings without quotes", "attachment; filename=a.exe b.txt", "a.exe b.txt", ["conflict", "ambiguous"]),
    ("comment or name", "attachment; filename=a.exe(.txt)", "a.exe(.txt)", ["conflict", "ambiguous"]),
    ("quote that never ends", 'attachment; filename="a.pdf', "a.pdf", ["ambiguous"]),
    ("text beside the quotes", 'attachment; filename="a.txt".exe', "a.txt.exe", ["ambiguous", "double_extension"]),
    (
        "right-to-left override",
        "attachment; filename*=utf-8''annexe%E2%80%AEfdp.exe",
        "annexefdp.exe",
        ["rtl_override"],
    ),
    (
        "right-to-left in an encoded word",
        'attachment; filename="=?utf-8?Q?anh=E2=80=AEgpj=2Eexe?="',
        "anhgpj.exe",
        ["rtl_override"],
    ),
    ("right-to-left isolate", "attachment; filename*=utf-8''a%E2%81%A7fdp.exe", "afdp.exe", ["rtl_override"]),
    ("NUL", "attachment; filename*=utf-8''evil.exe%00.pdf", "evil.exe.pdf", ["nul"]),
    ("NUL in an encoded word", 'attachment; filename="=?utf-8?Q?evil=2Eexe=00=2Epdf?="', "evil.exe.pdf", ["nul"]),
    ("path of Unix", 'attachment; filename="../../etc/passwd"', "passwd", ["path"]),
    ("path of Windows", 'attachment; filename="..\\\\..\\\\win.ini"', "win.ini", ["path"]),
    ("path with single backslashes", 'attachment; filename="C:\\Temp\\a.pdf"', "a.pdf", ["path"]),
    ("absolute path", 'attachment; filename="/etc/cron.d/x"', "x", ["path"]),
    ("drive", 'attachment; filename="C:a.pdf"', "a.pdf", ["path"]),
    ("path in percent signs", "attachment; filename*=utf-8''..%2F..%2Fa.pdf", "a.pdf", ["path"]),
    ("path in an encoded word", 'attachment; filename="=?utf-8?Q?=2E=2E=2Fa=2Epdf?="', "a.pdf", ["path"]),
    ("only dots", 'attachment; filename=".."', "", ["path"]),
    ("alternate stream", 'attachment; filename="a.exe:.pdf"', "a.exe", ["path"]),
    ("trailing dot", 'attachment; filename="a.exe."', "a.exe", ["trailing"]),
    ("trailing dots and blanks", 'attachment; filename="a.exe . ."', "a.exe", ["trailing"]),
    ("trailing blank", 'attachment; filename="a.exe "', "a.exe", []),
    ("trailing no-break space", "attachment; filename*=utf-8''a.exe%C2%A0", "a.exe", ["trailing"]),
    ("double extension", 'attachment; filename="bao-cao.pdf.exe"', "bao-cao.pdf.exe", ["double_extension"]),
    ("double extension, upper case", 'attachment; filename="BAO CAO.PDF.SCR"', "BAO CAO.PDF.SCR", ["double_extension"]),
    (
        "double extension far away",
        'attachment; filename="bao.pdf' + " " * 80 + '.exe"',
        "bao.pdf .exe",
        ["double_extension"],
    ),
    ("double extension, script", 'attachment; filename="hoa-don.docx.js"', "hoa-don.docx.js", ["double_extension"]),
    (
        "class id as extension",
        'attachment; filename="a.txt.{3050F4D8-98B5-11CF-BB82-00AA00BDCE0B}"',
        "a.txt.{3050F4D8-98B5-11CF-BB82-00AA00BDCE0B}",
        ["double_extension"],
    ),
    ("two harmless extensions", 'attachment; filename="so.14.2026.pdf"', "so.14.2026.pdf", []),
    ("signed archive", 'attachment; filename="ho-so.tar.gz"', "ho-so.tar.gz", []),
    ("Cyrillic letter", "attachment; filename*=utf-8''b%D0%B0o.pdf", "b\u0430o.pdf", ["homoglyph"]),
    ("Cyrillic ending", "attachment; filename*=utf-8''a.%D0%B5xe", "a.\u0435xe", ["homoglyph"]),
    ("Russian name", "attachment; filename*=utf-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.pdf", "отчёт.pdf", []),
    (
        "full-width dot",
        "attachment; filename*=utf-8''a.pdf%EF%BC%8Eexe",
        "a.pdf.exe",
        ["homoglyph", "double_extension"],
    ),
    ("full-width letters", "attachment; filename*=utf-8''a.%EF%BD%85%EF%BD%98%EF%BD%85", "a.exe", ["homoglyph"]),
    ("division slash", "attachment; filename*=utf-8''a%E2%88%95b.exe", "b.exe", ["homoglyph", "path"]),
    ("one dot leader", "attachment; filename*=utf-8''a%E2%80%A4exe", "a.exe", ["homoglyph"]),
    ("zero-width letters", "attachment; filename*=utf-8''a.e%E2%80%8Bxe", "a.exe", ["invisible"]),
    ("soft hyphen", "attachment; filename*=utf-8''a.e%C2%ADxe", "a.exe", ["invisible"]),
    ("line break", "attachment; filename*=utf-8''a%0D%0Ab.pdf", "a b.pdf", []),
    ("line separator", "attachment; filename*=utf-8''a%E2%80%A8b.pdf", "a b.pdf", []),
    ("no name", "attachment", "", []),
    ("empty name", 'attachment; filename=""', "", []),
    ("no semicolon", 'attachment filename="a.pdf"', "a.pdf", []),
    ("very long", 'attachment; filename="' + "x" * 400 + '.pdf"', "x" * 400 + ".pdf", []),
]
