"""CPU and rate of the whole way to a sink, against plain Postfix and Postfix with amavis, in the same run.

    ./run measure throughput --rounds 3 --seed 1        (root; Debian's postfix and amavisd-new)

Distinct messages of three kinds: a = 3 KB text, b = mail with a signed PDF of 200 KB, c = a scanned page at 300 dpi.
Rounds of the systems are interleaved; the figures are the medians. CPU is user and system time of all processes of the
system under test, without sender and sink, which are the same for all.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime as dt
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.message import VIETNAM
from tests import harness, peers

HERTZ = os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------------------ corpus


class Corpus:
    """Messages that differ in every copy, in bytes and in what is attached: nothing can be answered from a cache."""

    def __init__(self, seed: int) -> None:

        from gateway.demo import pki
        from gateway.demo.documents import Paper

        self._rng = random.Random(seed)
        now = dt.datetime.now(VIETNAM)
        keys = pki.Pki.create(now)
        self.keys = keys
        paper = Paper(
            agency="SỞ NỘI VỤ",
            parent="ỦY BAN NHÂN DÂN TỈNH DEMO",
            code="15/TB-SNV",
            date=now.date(),
            kind="THÔNG BÁO",
            abstract="Về việc tăng cường sử dụng văn bản điện tử trong cơ quan nhà nước",
            to=("Ủy ban nhân dân tỉnh Demo",),
            recipients=("Như trên", "Lưu: VT, VP"),
        )
        self._paper, self._now = paper, now

    def _file(self, kind: str, number: int) -> bytes:
        from dataclasses import replace

        from gateway.demo import documents

        paper = replace(self._paper, code=f"{number}/TB-SNV")
        if kind == "c":
            return documents.scan(paper, dpi=300, seal="SỞ NỘI VỤ", seed=number)
        data = documents.pdf(paper, pages=3, noise=120_000, seed=number)
        return documents.sign(data, self.keys.department, self.keys, at=self._now)

    def message(self, kind: str, number: int) -> bytes:
        words = [
            "văn",
            "bản",
            "điện",
            "tử",
            "hộp",
            "thư",
            "công",
            "vụ",
            "cơ",
            "quan",
            "báo",
            "cáo",
            "kế",
            "hoạch",
            "thông",
            "báo",
            "đề",
            "nghị",
            "phối",
            "hợp",
            "thực",
            "hiện",
        ]
        head = (
            f"From: sonoivu@{harness.OURS}\r\nTo: ubnd@{harness.OURS}\r\nSubject: Trao doi cong viec {number}\r\n"
            f"Date: Mon, 02 Nov 2026 08:00:00 +0700\r\nMessage-ID: <b{kind}{number}@{harness.OURS}>\r\n"
            "MIME-Version: 1.0\r\n"
        )
        body = "\r\n".join(" ".join(self._rng.choices(words, k=12)) for _ in range(40 if kind == "a" else 5))
        text = f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}\r\n"
        if kind == "a":
            return (head + text).encode()
        data = self._file(kind, number)
        encoded = base64.encodebytes(data).replace(b"\n", b"\r\n")
        return (
            head.encode()
            + b'Content-Type: multipart/mixed; boundary="=-b"\r\n\r\n--=-b\r\n'
            + text.encode()
            + b"--=-b\r\nContent-Type: application/pdf; name=van-ban.pdf\r\nContent-Transfer-Encoding: base64\r\n"
            b"Content-Disposition: attachment; filename=van-ban.pdf\r\n\r\n" + encoded + b"--=-b--\r\n"
        )


# ------------------------------------------------------------------------------------------------ tools


async def send(port: int, messages: list[bytes], sessions: int) -> None:
    """Over `sessions` connections that stay open; raises on any answer but 250."""
    queue = list(enumerate(messages))

    async def lane() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)

        async def say(line: bytes, code: bytes) -> None:
            writer.write(line)
            while True:
                answer = await reader.readline()
                if answer[:3] != code:
                    raise RuntimeError(f"{line[:40]!r}: {answer!r}")
                if answer[3:4] != b"-":
                    return

        await say(b"", b"220")
        await say(b"EHLO bench.example\r\n", b"250")
        while queue:
            _, raw = queue.pop()
            await say(f"MAIL FROM:<sonoivu@{harness.OURS}> BODY=8BITMIME\r\n".encode(), b"250")
            await say(f"RCPT TO:<ubnd@{harness.OURS}>\r\n".encode(), b"250")
            await say(b"DATA\r\n", b"354")
            await say(raw.replace(b"\r\n.", b"\r\n..") + b".\r\n", b"250")
        await say(b"QUIT\r\n", b"221")
        writer.close()

    await asyncio.gather(*(lane() for _ in range(sessions)))


class Counter:
    """smtp-sink as the end of every way: counts what arrives."""

    def __init__(self) -> None:
        self.port = peers.free_port()
        self.process = subprocess.Popen(
            ["smtp-sink", "-u", "nobody", "-c", "-m", "512", f"127.0.0.1:{self.port}", "1024"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = b""
        peers.wait_port(self.port)

    def count(self) -> int:
        assert self.process.stdout is not None
        while piece := self.process.stdout.read(1 << 16):
            self.text = (self.text + piece)[-4096:]
        found = self.text.rfind(b"mesg=")
        return int(self.text[found + 5 :].split()[0]) if found >= 0 else 0

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def cpu_of(roots: set[int]) -> float:
    """CPU seconds of these processes and all below them, reaped children included."""
    rows = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            rows[int(folder.name)] = (int(fields[1]), sum(map(int, fields[11:15])))

    def ours(process: int) -> bool:
        for _ in range(40):
            if process in roots:
                return True
            if process not in rows or process <= 1:
                return False
            process = rows[process][0]
        return False

    return sum(used for process, (_, used) in rows.items() if ours(process)) / HERTZ


# ------------------------------------------------------------------------------------------------ systems


class PostfixSystem:
    """A private Postfix on loopback, with or without amavis as its after-queue filter. Needs root."""

    def __init__(self, folder: Path, sink: int, amavis: bool) -> None:
        self.name = "postfix+amavis" if amavis else "postfix"
        self.folder, self.amavis = folder / self.name, amavis
        self.back, self.filter = peers.free_port(), peers.free_port()
        services = (
            f"127.0.0.1:{self.back} inet n - n - - smtpd\n  -o content_filter=\n"
            "  -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n"
            "  -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks\n"
            "smtp-amavis unix - - n - 4 smtp\n  -o smtp_data_done_timeout=1200\n  -o max_use=20\n"
        )
        self._postfix = peers.Postfix(
            self.folder,
            relay_port=sink,
            smtpd=f"content_filter=smtp-amavis:[127.0.0.1]:{self.filter}" if amavis else "",
            services=services if amavis else "",
        )
        self.port = self._postfix.port
        self.helper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._postfix.start()
        if self.amavis:
            home = self.folder / "amavis"
            for part in ("tmp", "var", "db", "quarantine/archive"):
                (home / part).mkdir(parents=True)
            subprocess.run(["chown", "-R", "amavis:amavis", str(home)], check=True)
            config = self.folder / "amavis.conf"
            config.write_text(_AMAVIS.format(home=home, port=self.filter, back=self.back))
            self.helper = subprocess.Popen(["amavisd", "-c", str(config), "foreground"], stderr=subprocess.DEVNULL)
            peers.wait_port(self.filter, 60)

    def roots(self) -> set[int]:
        return {self._postfix.pid} | ({self.helper.pid} if self.helper else set())

    def stop(self) -> None:
        self._postfix.stop()
        if self.helper:
            self.helper.terminate()
            self.helper.wait()


_AMAVIS = r"""
use strict;
$max_servers = 4; $daemon_user = 'amavis'; $daemon_group = 'amavis';
$MYHOME = '{home}'; $TEMPBASE = "$MYHOME/tmp"; $ENV{{TMPDIR}} = $TEMPBASE; $db_home = "$MYHOME/db";
$QUARANTINEDIR = "$MYHOME/quarantine"; $lock_file = "$MYHOME/var/lock"; $pid_file = "$MYHOME/var/pid";
$mydomain = 'example.net'; $myhostname = 'bench.localdomain'; @mynetworks = qw( 127.0.0.0/8 );
$inet_socket_port = {port}; $inet_socket_bind = '127.0.0.1';
$forward_method = 'smtp:[127.0.0.1]:{back}'; $notify_method = $forward_method;
$enable_db = 0; $enable_zmq = 0; $enable_dkim_verification = 0; $enable_dkim_signing = 0;
@bypass_virus_checks_maps = (1); @bypass_spam_checks_maps = (1); $bypass_decode_parts = 0;
$final_banned_destiny = D_REJECT;
$banned_filename_re = new_RE(
  qr'.\.(exe|vbs|pif|scr|cpl|bat|cmd|com|js|lnk|hta)$'i, qr'^\.(exe-ms|exe|lha|cab|dll)$'i );
$archive_quarantine_method = 'local:archive-%m'; $archive_quarantine_to = 'archive-quarantine';
$DO_SYSLOG = 0; $LOGFILE = '{home}/log'; $log_level = 0; $file = 'file';
$MAXLEVELS = 14; $MAXFILES = 3000;
@decoders = ( ['mail', \&do_mime_decode], ['zip', \&do_unzip], ['gz', \&do_gunzip] );
1;
"""


class GatewaySystem:
    """Ours, doing everything: inspection, policy, archive, journal, delivery."""

    name = "congvan-gateway"

    def __init__(self, folder: Path, sink: int, keys: object) -> None:
        from gateway.demo import samples

        self.folder = folder / "gateway"
        self.folder.mkdir()
        self._passwords = harness.PasswordServer()
        config = harness.write_config(
            self.folder,
            hop_port=sink,
            auth_port=self._passwords.port,
            extra="limits: {new_connections_per_minute: 100000, messages_per_session: 100000}",
        )
        relay = config / "gateway.yaml"
        relay.write_text(
            relay.read_text().replace("{kind: relay, port: 0}", "{kind: relay, port: 0, networks: [127.0.0.0/8]}")
        )
        for name, text in samples.demo_directory().items():
            (config / "directory" / name).write_text(text)
        keys.write_trust(config / "trust")  # type: ignore[attr-defined]
        self.gateway = harness.Gateway(config)

    def start(self) -> None:
        self.gateway.start()
        self.port = self.gateway.ports["relay"]

    def roots(self) -> set[int]:
        assert self.gateway.process is not None
        return {self.gateway.process.pid}

    def stop(self) -> None:
        self.gateway.stop()
        self._passwords.close()


# ------------------------------------------------------------------------------------------------ the run


def one_round(system: object, sink: Counter, messages: list[bytes], sessions: int) -> dict[str, float]:
    before, used, began = sink.count(), cpu_of(system.roots()), time.perf_counter()  # type: ignore[attr-defined]
    asyncio.run(send(system.port, messages, sessions))  # type: ignore[attr-defined]
    accepted = time.perf_counter()
    while sink.count() < before + len(messages):
        if time.perf_counter() - accepted > 120:
            raise SystemExit(f"{system.name}: {sink.count() - before} of {len(messages)} arrived")  # type: ignore[attr-defined]
        time.sleep(0.01)
    ended = time.perf_counter()
    used = cpu_of(system.roots()) - used  # type: ignore[attr-defined]
    return {
        "cpu_ms": 1000 * used / len(messages),
        "accepted_per_s": len(messages) / (accepted - began),
        "arrived_per_s": len(messages) / (ended - began),
    }


def numbers() -> Iterator[int]:
    number = 0
    while True:
        yield (number := number + 1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sessions", type=int, default=10)
    options.add_argument("--counts", default="a=400,b=100,c=20", help="messages of each kind in a round")
    options.add_argument("--systems", default="congvan-gateway,postfix,postfix+amavis")
    arguments = options.parse_args()
    counts = {kind: int(count) for kind, count in (row.split("=") for row in arguments.counts.split(","))}
    wanted = arguments.systems.split(",")
    corpus, number = Corpus(arguments.seed), numbers()
    figures: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="congvan-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        sink = Counter()
        systems: list[object] = []
        if "congvan-gateway" in wanted:
            systems.append(GatewaySystem(folder, sink.port, corpus.keys))
        if os.geteuid() == 0 and shutil.which("postfix"):
            systems += [PostfixSystem(folder, sink.port, amavis=False)] if "postfix" in wanted else []
            if shutil.which("amavisd") and "postfix+amavis" in wanted:
                systems.append(PostfixSystem(folder, sink.port, amavis=True))
        else:
            print("postfix and amavis are left out: not root, or not installed", file=sys.stderr)
        try:
            for system in systems:
                system.start()  # type: ignore[attr-defined]
                # What a process loads when it meets a kind for the first time is not a cost of each message.
                first = [corpus.message("a", next(number)) for _ in range(50)]
                first += [corpus.message(kind, next(number)) for kind in counts if kind != "a" for _ in range(4)]
                one_round(system, sink, first, 5)
            for _ in range(arguments.rounds):
                for kind, count in counts.items():
                    for system in systems:
                        messages = [corpus.message(kind, next(number)) for _ in range(count)]
                        row = one_round(system, sink, messages, arguments.sessions)
                        figures.setdefault((kind, system.name), []).append(row)  # type: ignore[attr-defined]
        finally:
            for system in systems:
                system.stop()  # type: ignore[attr-defined]
            sink.close()
    medians = {
        kind: {
            name: {key: round(statistics.median(row[key] for row in rows), 2) for key in rows[0]}
            for (one, name), rows in figures.items()
            if one == kind
        }
        for kind in counts
    }
    for kind, rows in medians.items():
        ours = rows.get("congvan-gateway")
        for name, row in rows.items():
            row["cpu_ratio_of_ours"] = round(ours["cpu_ms"] / row["cpu_ms"], 2) if ours else 0
            print(f"{kind} {name:16} {row}", file=sys.stderr)
    print(
        json.dumps(
            {"measurement": "throughput", "seed": arguments.seed, "rounds": arguments.rounds, "figures": medians}
        )
    )


if __name__ == "__main__":
    main()
