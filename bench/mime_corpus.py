"""M1 and M2: our MIME reader beside other parsers, over crafted mails, mutations and real mail.

    python bench/mime_corpus.py crafted                      # M1: every crafted mail through every parser there is
    python bench/mime_corpus.py differ --count 5000          # M1: mails put together at random from odd pieces
    python bench/mime_corpus.py mutate --count 100000 DIR…   # M2: mutations of the crafted mails and those in DIR
    python bench/mime_corpus.py real DIR…                    # M2: how many real mails are held, and why

A miss is a mail that we would let pass although another parser takes a file out of it that we do not find. Other
parsers are used when they are installed (Debian: ripmime, mpack, libmime-tools-perl, gir1.2-gmime-3.0
with python3-gi); what is absent is named in the result. Each command prints one JSON line with its
seed. Mails in DIR are only read.
"""

# ruff: noqa: E501

from __future__ import annotations

import argparse
import email
import email.policy
import json
import os
import random
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway import mime  # noqa: E402

CRAFTED = runpy.run_path(str(ROOT / "tests" / "data" / "mime" / "crafted.py"))
MARKER: bytes = CRAFTED["MARKER"]

# One process for all mails of a batch: prints the name of every mail in which the marker came out of a part.
PERL = r"""
use strict; use MIME::Parser;
my ($dir, $marker) = @ARGV;
opendir(my $d, $dir); my @files = sort grep { !/^\./ } readdir($d);
sub walk { my ($e) = @_;
  if (my $b = $e->bodyhandle) { my $s = eval { $b->as_string }; return 1 if defined $s && index($s, $marker) >= 0; }
  for my $p ($e->parts) { return 1 if walk($p); }
  return 0; }
for my $f (@files) {
  my $parser = MIME::Parser->new; $parser->output_to_core(1); $parser->tmp_to_core(1);
  $parser->extract_uuencode(1); $parser->extract_nested_messages(1); $parser->ignore_errors(1);
  local $SIG{ALRM} = sub { die "slow" };
  my $found = eval { alarm 20; my $e = $parser->parse_open("$dir/$f"); my $w = walk($e); alarm 0; $w };
  print "$f\n" if $found; }
"""
GMIME = r"""
import sys, os, gi
gi.require_version("GMime", "3.0")
from gi.repository import GMime
GMime.init()
folder, marker = sys.argv[1], sys.argv[2].encode()
def walk(part, depth=0):
    if part is None or depth > 40:
        return False
    if isinstance(part, GMime.MessagePart):
        inner = part.get_message()
        return inner is not None and walk(inner.get_mime_part(), depth + 1)
    if isinstance(part, GMime.Multipart):
        return any(walk(part.get_part(n), depth + 1) for n in range(part.get_count()))
    content = part.get_content() if isinstance(part, GMime.Part) else None
    if content is None:
        return False
    out = GMime.StreamMem.new()
    content.write_to_stream(out)
    return marker in bytes(out.get_byte_array())
for name in sorted(os.listdir(folder)):
    try:
        stream = GMime.StreamFile.open(os.path.join(folder, name), "r")
        message = GMime.Parser.new_with_stream(stream).construct_message(None)
        if message is not None and walk(message.get_mime_part()):
            print(name)
    except Exception as error:
        print(name, error, file=sys.stderr)
"""


def python_finds(raw: bytes, policy: email.policy.Policy) -> bool:
    try:
        message = email.message_from_bytes(raw, policy=policy)
        for part in message.walk():
            if part.is_multipart():
                continue
            if MARKER in (part.get_payload(decode=True) or b""):
                return True
    except Exception:  # the parser of the standard library raises on some of these; then it finds nothing
        return False
    return False


def tool_finds(command: Callable[[Path, Path], list[str]], folder: Path) -> set[str]:
    """Names of the mails of which one file-writing tool puts the marker into a file."""
    found = set()
    for mail in sorted(folder.iterdir()):
        with tempfile.TemporaryDirectory() as out:
            try:
                subprocess.run(
                    command(mail, Path(out)), stdin=subprocess.DEVNULL, cwd=out, timeout=30,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                continue
            for path in Path(out).rglob("*"):
                if path.is_file() and MARKER in path.read_bytes():
                    found.add(mail.name)
                    break
    return found


def script_finds(command: list[str], folder: Path) -> set[str]:
    run = subprocess.run([*command, str(folder), MARKER.decode()], capture_output=True, text=True, check=False)
    return set(run.stdout.split())


def parsers() -> tuple[dict[str, Callable[[Path], set[str]]], list[str]]:
    """What is installed, and what is not."""
    found: dict[str, Callable[[Path], set[str]]] = {}
    absent = []
    for label, policy in (("python default", email.policy.default), ("python compat32", email.policy.compat32)):
        found[label] = lambda folder, policy=policy: {
            mail.name for mail in folder.iterdir() if python_finds(mail.read_bytes(), policy)
        }
    tools: dict[str, tuple[str, Callable[[Path, Path], list[str]]]] = {
        "ripmime": ("ripmime", lambda mail, out: ["ripmime", "-i", str(mail), "-d", str(out)]),
        "munpack": ("munpack", lambda mail, out: ["munpack", "-q", "-f", "-t", "-C", str(out), str(mail)]),
    }
    for label, (program, command) in tools.items():
        if shutil.which(program):
            found[label] = lambda folder, command=command: tool_finds(command, folder)
        else:
            absent.append(label)
    if subprocess.run(["perl", "-MMIME::Parser", "-e", "1"], capture_output=True, check=False).returncode == 0:
        found["MIME::Parser"] = lambda folder: script_finds(["perl", "-e", PERL], folder)
    else:
        absent.append("MIME::Parser")
    probe = "import gi; gi.require_version('GMime', '3.0')"
    system = "/usr/bin/python3"
    if (
        Path(system).exists()
        and subprocess.run([system, "-c", probe], capture_output=True, check=False).returncode == 0
    ):
        found["GMime"] = lambda folder: script_finds([system, "-c", GMIME], folder)
    else:
        absent.append("GMime")
    return found, absent


def compare(mails: dict[str, bytes], test: str, seed: int | None) -> dict:
    """All parsers over all mails; each mail also with LF line ends, as it lies on the disk of a Unix."""
    others, absent = parsers()
    ours = {name: CRAFTED["judge"](mime.parse, raw) for name, raw in mails.items()}
    names = list(mails)
    seen: dict[str, set[str]] = {label: set() for label in others}
    with tempfile.TemporaryDirectory() as work:
        for variant in ("crlf", "lf"):
            folder = Path(work) / variant
            folder.mkdir()
            for number, name in enumerate(names):
                raw = mails[name] if variant == "crlf" else mails[name].replace(b"\r\n", b"\n")
                (folder / f"{number:06}").write_bytes(raw)
            for label, finds in others.items():
                seen[label] |= {names[int(file)] for file in finds(folder)}
    missed = [
        {"mail": name, "by": [label for label in others if name in seen[label]]}
        for name in names
        if not ours[name][0] and not ours[name][1] and any(name in seen[label] for label in others)
    ]
    for miss in missed[:5]:
        print(json.dumps({"missed": miss, "raw": mails[miss["mail"]].decode("latin-1")[:3000]}), file=sys.stderr)
    return {
        "test": test,
        "seed": seed,
        "mails": len(mails),
        "held": sum(bool(why) for why, _ in ours.values()),
        "passed_with_file": sum(not why and found for why, found in ours.values()),
        "found_by": {label: len(found) for label, found in seen.items()},
        # the file is there for one of the others, this one sees nothing and we hold the mail or find it
        "silent_misses_of_others": {
            label: sum(name not in seen[label] for name in names if any(name in one for one in seen.values()))
            for label in others
        },
        "absent": absent,
        "missed": len(missed),
        "missed_mails": missed[:20],
    }


def crafted() -> dict[str, bytes]:
    mails = {case.name: case.raw for case in CRAFTED["CASES"]}
    mails.update({f"ordinary: {name}": raw for name, raw in CRAFTED["ordinary"]().items()})
    return mails


# --- mails from random pieces


def odd_mail(rng: random.Random) -> bytes:
    """A mail whose structure is nearly right: each piece is the usual one or, now and then, an odd one."""

    def pick(usual: str, *odd: str) -> str:
        return usual if rng.random() < 0.85 else rng.choice(odd or (usual,))

    b = rng.choice(("b1", "----=_Part_7", "b'1", "x" * 69))
    eol = pick("\r\n", "\n", "\r", "\r\r\n")
    sep = pick(":", " :", "\t:", "")
    kind = pick(
        "multipart/mixed", "multipart/alternative", "multipart/related", "multipart/x", "text/plain", "Multipart/Mixed ",
        "multipart", "multipart/signed", "message/rfc822", "application/octet-stream", "multipart/digest", "(a)multipart/mixed",
    )  # fmt: skip
    param = pick(
        f'boundary="{b}"', f"boundary={b}", f"BOUNDARY={b}", f"boundary = {b}", f"boundary*=us-ascii''{b}", f"boundary='{b}'",
        f'boundary="{b} "', f'boundary="{b}', f"boundary={b}\0", f"boundary={b};boundary=c", f"x;boundary={b}", f"boundary={b}(c)",
        f'x="\\"";boundary={b}', f'boundary*0={b[0]};boundary*1="{b[1:]}"', "charset=utf-8", f"boundary\t=\t{b}",
        f'name="boundary=q";boundary={b}', f"boundary=\\{b}", f"boundary={b},",
    )  # fmt: skip
    fold = pick(" ", "\r\n ", "\r\n\t", "", "\n ", "\r\n \r\n ")
    head = ["From: a@x.vn", "Subject: s"]
    if rng.random() < 0.9:
        head.append(
            pick(
                "MIME-Version: 1.0", "MIME-Version: 2.0", "Mime-version: 1.0 (x)", "MIME-Version : 1.0", "MIME-Version:"
            )
        )
    head.insert(rng.randint(0, len(head)), f"Content-Type{sep} {kind};{fold}{param}")
    if rng.random() < 0.06:
        head.insert(
            rng.randint(0, len(head)),
            rng.choice(("no field", " folded", "\t", "Content-Type: text/plain", "From x@y", "")),
        )
    delimiter = pick(
        f"--{b}",
        f"--{b} ",
        f"--{b}x",
        f" --{b}",
        f"-{b}",
        f"--{b}\t",
        f"--{b.upper()}",
        f"--{b}\0",
        f"---{b}",
        f"--{b[:-1]}",
    )
    plain = f"--{b}"
    cte = pick(
        "base64", "BASE64", " base64 ", '"base64"', "base64;", "(x) base64", "base64 (x)", "x-base64", "base 64", "7bit", "",
        "8bit", "binary", "quoted-printable", "base64\0", "base64,", "base64\x0b", "uuencode", "x-uuencode", "mac-binhex40",
    )  # fmt: skip
    encoded = CRAFTED["B64"]
    body = pick(
        encoded, encoded.replace("\n", " \n"), "\n" + encoded, "=\n" + encoded, "*" + encoded, encoded[:60] + "=" + encoded[60:],
        encoded.rstrip("=\n") + "\n", encoded + "more text\n", "\0" + encoded, CRAFTED["UU"], encoded.replace("\n", ""),
        "x\n\n" + encoded, CRAFTED["FILE"].decode(), "begin-base64 644 a.pdf\n" + encoded + "====\n", encoded.replace("A", "-"),
    )  # fmt: skip
    part = [
        pick("Content-Type: application/pdf; name=a.pdf", "Content-Type: text/plain", "Content-Type: application/pdf;", "X: y",
             "Content-Type: multipart/mixed; boundary=zz", "Content-Type: message/rfc822", "Content-Type:", "no field"),
        pick("Content-Disposition: attachment; filename=a.pdf", "Content-Disposition: inline", "Content-Disposition: x; filename=a"),
        f"Content-Transfer-Encoding{pick(':', ' :', '')} {cte}",
    ]  # fmt: skip
    rng.shuffle(part)
    if rng.random() < 0.08:
        part.insert(
            rng.randint(0, len(part)), rng.choice((" ", "", "Content-Transfer-Encoding: 7bit", " x", "--", plain, "\0"))
        )
    lines = ["\r\n".join(head), pick("", " ", "\t", "\0")]
    if rng.random() < 0.2:
        lines.append(rng.choice(("preamble", "", "Content-Type: text/plain", "--", "begin 644 x")))
    lines += [plain, pick("Content-Type: text/plain", "", "X: y"), "", "hello"]
    lines += [
        delimiter if rng.random() < 0.5 else plain,
        "\r\n".join(part),
        pick("", " ", "x"),
        body.rstrip("\n").replace("\n", "\r\n"),
    ]
    lines.append(pick(plain + "--", plain, "", plain + "-- ", plain + "--x", plain + "-", delimiter + "--"))
    if rng.random() < 0.1:
        lines += [rng.choice(("", plain)), "\r\n".join(part), "", encoded.replace("\n", "\r\n"), plain + "--"]
    text = "\r\n".join(lines) + "\r\n"
    if eol != "\r\n":  # one line end of another kind
        places = [n for n in range(len(text)) if text.startswith("\r\n", n)]
        at = rng.choice(places)
        text = text[:at] + eol + text[at + 2 :]
    return text.encode("utf-8")


def odd_tree(rng: random.Random) -> bytes:
    """A random tree of multiparts and nested messages with the file in one of its leaves, some of its lines odd."""

    def odd(usual: str, *others: str) -> str:
        return usual if rng.random() < 0.95 else rng.choice(others)

    boundaries = ["b", "bb", "b1", "b1.x", "in", "----=_A", "----=_A_B"]
    encoded, qp = CRAFTED["B64"].replace("\n", "\r\n"), CRAFTED["QP"].replace("\n", "\r\n")

    def leaf(hides: bool) -> str:
        if not hides:
            return rng.choice(
                ("\r\ntext\r\n", "Content-Type: text/plain\r\n\r\nx\r\n", "Content-Type: text/html\r\n\r\n<p>--b</p>\r\n", "\r\n",
                 "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0K\r\n", "X: y\r\n\r\n-- \r\nx\r\n", "")
            )  # fmt: skip
        way = rng.randrange(8)
        kind = odd("Content-Type: application/pdf; name=a.pdf", "Content-Type: text/plain", "Content-Type: message/rfc822", "Content-Type:",
                   "Content-Type: multipart/mixed", "Content-Type: application/pdf\r\nContent-Type: text/plain")  # fmt: skip
        if way == 0:
            return f"{kind}\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{qp}"
        if way == 1:
            uu = CRAFTED["UU"].replace("\n", "\r\n")
            head = odd(
                "begin 644 ",
                "begin 0644 ",
                "begin  644 ",
                " begin 644 ",
                "begin\t644 ",
                "BEGIN 644 ",
                "begin 64 ",
                "begin 6444 ",
                "begin 644\t",
            )
            return f"{odd('Content-Type: text/plain', kind, '')}\r\n\r\n" + uu.replace("begin 644 ", head, 1)
        cte = odd("base64", "BASE64", "base64 ", "x-base64", "base64;", "8bit", "base64\r\n ", "\tbase64", "")
        gap = odd("\r\n", "\r\n\r\n", " \r\n", "", "X\r\n")
        return f"{kind}\r\nContent-Transfer-Encoding: {cte}\r\n{gap}{encoded}"

    def node(level: int, hides: bool) -> str:
        if level > 4 or rng.random() < 0.25:
            return leaf(hides)
        if rng.random() < 0.2:
            inner = node(level + 1, hides)
            encoding = odd(
                "",
                "Content-Transfer-Encoding: base64\r\n",
                "Content-Transfer-Encoding: 7bit\r\n",
                "Content-Transfer-Encoding: binary\r\n",
            )
            return f"Content-Type: {odd('message/rfc822', 'message/news', 'message/global', 'message/x', 'text/rfc822')}\r\n{encoding}\r\nSubject: in\r\n{inner}"
        boundary = rng.choice(boundaries)
        count = rng.randint(1, 3)
        place = rng.randrange(count) if hides else -1
        kind = rng.choice(
            ("mixed", "alternative", "related", "digest", "signed", "report", "x", "parallel", "appledouble")
        )
        quoted = rng.choice((f'"{boundary}"', boundary)) if boundary.isalnum() else f'"{boundary}"'
        lines = [
            f"Content-Type: multipart/{kind}; boundary={quoted}\r\n\r\n{odd('', 'pre', '--', 'Content-Type: x/y')}"
        ]
        for number in range(count):
            lines.append(
                f"\r\n{odd('--', ' --', '---', '-', '-- ')}{boundary}{odd('', ' ', '-', '--', 'x', '.x', chr(9))}\r\n"
            )
            lines.append(node(level + 1, number == place))
        lines.append(
            odd(
                f"\r\n--{boundary}--\r\n",
                "",
                f"\r\n--{boundary}\r\n",
                f"\r\n--{boundary}-- x\r\n",
                f"\r\n--{boundary}--\r\n" * 2,
                f"--{boundary}--\r\n",
            )
        )
        lines.append(odd("", "footer\r\n", "\r\n" + leaf(True)))
        return "".join(lines)

    head = f"From: a@x.vn\r\n{odd('MIME-Version: 1.0' + chr(13) + chr(10), '')}Subject: s\r\n"
    return (head + node(0, True)).encode()


def run_differ(count: int, seed: int) -> dict:
    """Only mails that we pass without having found the file can be missed: the others need no second parser."""
    rng = random.Random(seed)
    small = [raw for raw in crafted().values() if len(raw) < 10_000]
    doubtful: dict[str, bytes] = {}
    held = with_file = 0
    for number in range(count):
        raw = odd_mail(rng) if number % 3 == 0 else odd_tree(rng) if number % 3 == 1 else mutate(rng, small)
        why, found = CRAFTED["judge"](mime.parse, raw)
        held += bool(why)
        with_file += found and not why
        if not why and not found:
            doubtful[str(number)] = raw
    result = compare(doubtful, "M1 random pieces", seed)
    return {**result, "mails": count, "held": held, "passed_with_file": with_file, "doubtful": len(doubtful)}


# --- mutations

TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b"--", b"--b1", b"--b1--", b"\r\n\r\n", b"=", b'"', b"(", b")", b"<", b">", b"@", b",", b";", b":",
    b" ", b"\t", b"=?utf-8?Q?", b"?=", b"boundary=", b"Content-Type: multipart/mixed; boundary=b1\r\n", b"*0*=utf-8''", b"%00",
    b"Content-Transfer-Encoding: base64\r\n", b"\xff", b"\xc3", b"\xe1\xbb", b"\xef\xbb\xbf", b"begin 644 a\r\n", b"filename=",
    b"message/rfc822", b"<!--", b"<script>", b"&#", b"DTSTART:", b"charset=utf-16", b"charset=utf-7", b"charset=iso-2022-jp", b"\x1b$B",
]  # fmt: skip


def mutate(rng: random.Random, mails: list[bytes]) -> bytes:
    raw = bytearray(rng.choice(mails))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(raw) + 1)
        way = rng.randrange(7)
        if way == 0 and raw:
            raw[at % len(raw)] = rng.randrange(256)
        elif way == 1:
            raw[at:at] = rng.choice(TOKENS)
        elif way == 2:
            del raw[at : at + rng.randint(1, 40)]
        elif way == 3:
            piece = raw[at : at + rng.randint(1, 200)]
            raw[at:at] = piece * rng.randint(1, 20)
        elif way == 4:
            other = rng.choice(mails)
            cut = rng.randrange(len(other) + 1)
            raw[at:] = other[cut : cut + 20_000]
        elif way == 5:
            del raw[at:]
        else:
            raw[at : at + 1] = rng.choice(TOKENS)
        if len(raw) > 400_000:
            del raw[400_000:]
    return bytes(raw)


def real_mails(folders: list[Path]) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in (".eml", ".txt", ".raw", ".msg") and path.stat().st_size < 50 << 20:
                yield path, path.read_bytes()


def run_mutate(count: int, seed: int, folders: list[Path]) -> dict:
    rng = random.Random(seed)
    mails = [raw for raw in crafted().values() if len(raw) < 100_000]
    mails += [raw for _, raw in real_mails(folders) if len(raw) < 100_000]
    crashes, slowest, held, reasons = [], 0.0, 0, Counter()
    start = time.process_time()
    for number in range(count):
        raw = mutate(rng, mails)
        begun = time.process_time()
        try:
            message = mime.parse(raw)
            message.facts()
            why = {one.value for one in message.findings if one.kind in ("ambiguous", "uninspectable")}
        except Exception as error:
            crashes.append({"number": number, "error": f"{type(error).__name__}: {error}"[:200]})
            continue
        slowest = max(slowest, time.process_time() - begun)
        held += bool(why)
        reasons.update(why)
    return {
        "test": "M2 mutations",
        "seed": seed,
        "mutations": count,
        "from_mails": len(mails),
        "crashes": len(crashes),
        "first_crashes": crashes[:5],
        "slowest_s": round(slowest, 3),
        "cpu_s": round(time.process_time() - start, 1),
        "held": held,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def run_real(folders: list[Path], show: bool) -> dict:
    total, held, reasons, slowest = 0, 0, Counter(), 0.0
    for path, raw in real_mails(folders):
        begun = time.process_time()
        message = mime.parse(raw)
        message.facts()
        why = {one.value for one in message.findings if one.kind in ("ambiguous", "uninspectable")}
        slowest = max(slowest, time.process_time() - begun)
        total += 1
        held += bool(why)
        reasons.update(why)
        if why and show:
            print(path, sorted(why), file=sys.stderr)
    return {
        "test": "M2 real mail",
        "mails": total,
        "held": held,
        "held_percent": round(100 * held / total, 2) if total else None,
        "reasons": dict(reasons.most_common(20)),
        "slowest_s": round(slowest, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("crafted", "differ", "mutate", "real"))
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--seed", type=int, default=20260602)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--show", action="store_true", help="name every real mail that is held")
    chosen = parser.parse_args()
    os.nice(5)
    if chosen.what == "crafted":
        result = compare(crafted(), "M1 crafted", None)
    elif chosen.what == "differ":
        result = run_differ(chosen.count, chosen.seed)
    elif chosen.what == "mutate":
        result = run_mutate(chosen.count, chosen.seed, chosen.folders)
    else:
        result = run_real(chosen.folders, chosen.show)
    print(json.dumps(result, ensure_ascii=False))
    return 1 if result.get("missed") or result.get("crashes") or result.get("slowest_s", 0) > 2 else 0


if __name__ == "__main__":
    raise SystemExit(main())
