"""The inspection workers: what they cannot do any more, and what becomes of a message that kills them."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from bench import text_corpus as corpus
from gateway.config import Budget
from gateway.inspection.findings import Inspection, Status
from gateway.inspection.run import Inspector
from gateway.message import MemoryBody
from tests.data.inspection import ole
from tests.harness import PATIENCE

ROOT = Path(__file__).resolve().parent.parent

#: Each line is tried in a confined process (X1 of the test plan); it must fail.
ESCAPES = {
    "network": "socket.create_connection(('127.0.0.1', 25))",
    "network6": "socket.socket(socket.AF_INET6)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "read secrets": "open('/etc/shadow').read()",
    "read other files": "open('/etc/hostname').read()",
    "write": "open('/tmp/congvan-escape', 'w')",
    "write home": "open(os.path.expanduser('~/congvan-escape'), 'w')",
    "memory": "bytearray(4 << 30)",
    "big file": "os.write(os.memfd_create('x'), bytes(1 << 20))",
    "trace": "(_ for _ in ()).throw(OSError()) if ctypes.CDLL(None).ptrace(0, 0, 0, 0) == -1 else None",
    "descriptors": "[os.dup(2) for _ in range(100)]",
    "a process": "os._exit(0) if os.fork() == 0 else os.wait()",
    "another program": "os.execv('/bin/true', ['true'])",
    "another program by posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "a signal to its daemon": "os.kill(os.getppid(), 0)",
    "a signal to a group": "os.killpg(os.getpgid(os.getppid()), 0)",
    "a signal by a descriptor": "os.pidfd_open(os.getppid())",
    "memory that is shared": "_tried(ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600))",
    "rights of a file": "os.chmod('gateway/__init__.py', 0o644)",
    "owner of a file": "os.chown('gateway/__init__.py', -1, -1)",
    "time of a file": "os.utime('gateway/__init__.py')",
    "limits of another": "__import__('resource').prlimit(os.getppid(), 0)",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_no_way_out(name: str) -> None:
    program = f"""
import ctypes, os, socket, sys
from gateway.inspection import confine
confine.confine(memory=1 << 30)
def _tried(result):
    if result < 0:
        raise OSError
try:
    {ESCAPES[name]}
except (OSError, MemoryError) as error:
    sys.stdout.write("stopped")
else:
    sys.stdout.write("escaped")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "stopped", (done.stdout, done.stderr[-500:])


def test_threads_and_its_own_end_stay() -> None:
    program = """
import os, signal, sys, threading
from gateway.inspection import confine
confine.confine(memory=1 << 30)
confine.allow_cpu(5)
thread = threading.Thread(target=lambda: sys.stdout.write("ran"))
thread.start()
thread.join()
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.returncode) == ("ran", -15), done.stderr[-500:]


def test_endless_computing_ends() -> None:
    program = """
from gateway.inspection import confine
confine.confine(memory=1 << 30)
confine.allow_cpu(0.5)
while True: pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, check=False, timeout=600)
    assert done.returncode == -24  # SIGXCPU


SETTINGS = {"budget": Budget(ocr=False, **PATIENCE).model_dump(mode="json"), "trust": "", "clamd": None}
MAIL = b"From: a@b.example\r\nTo: c@d.example\r\nSubject: Hello\r\n\r\nBody\r\n"


class Deadly(MemoryBody):
    """A body that kills the workers that are to read it, a given number of times."""

    def __init__(self, inspector: Inspector, times: int) -> None:
        super().__init__(MAIL, hashlib.sha256(MAIL).hexdigest())
        self._inspector, self.times = inspector, times

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        if self.times:
            self.times -= 1
            for worker in self._inspector._all:
                if worker._process is not None:
                    worker._process.kill()
        yield self.data


def inspect(times: int) -> tuple[Inspection, int]:
    async def main() -> tuple[Inspection, int]:
        inspector = Inspector(SETTINGS, workers=1, seconds=600, log=structlog.get_logger())
        running = asyncio.create_task(inspector.run())
        try:
            facts = await inspector.message(Deadly(inspector, times))
            again = await inspector.message(MemoryBody(MAIL, hashlib.sha256(b"other").hexdigest()))
            assert again.message.subject == "Hello", "a dead worker must not cost the next message anything"
            return facts, inspector.deaths
        finally:
            running.cancel()
            await inspector.stop()

    return asyncio.run(main())


def test_a_dead_worker_is_replaced_and_the_message_tried_again() -> None:
    facts, deaths = inspect(times=1)
    assert facts.message.subject == "Hello"
    assert deaths == 1


def test_what_kills_two_workers_is_a_fact() -> None:
    facts, deaths = inspect(times=2)
    assert {(run.check, run.status) for run in facts.failed} == {
        ("secrecy", Status.FAILED),
        ("malware", Status.FAILED),
    }
    assert "signal 9" in facts.failed[0].reason
    assert deaths == 2


def test_facts_cross_the_border_as_json() -> None:
    facts, _ = inspect(times=0)
    assert Inspection.model_validate_json(facts.model_dump_json()) == facts
    assert json.loads(facts.model_dump_json())["message"]["from_"][0]["address"] == "a@b.example"


# -- what hostile files do to a real pool (bombs, encrypted files) -----------------------------------------------


def _bombs() -> dict[str, tuple[bytes, set[str]]]:
    """Name -> (bytes, values of `uninspectable` of which one must come out)."""
    zeros = gzip.compress(bytes(40 << 20), 9)
    flat = corpus.zipped({"a.bin": bytes(40 << 20)})
    many = corpus.zipped({f"{n}.txt": b"x" for n in range(700)})
    deep = corpus.zipped({"x.txt": b"x"})
    for n in range(5):
        deep = corpus.zipped({f"{n}.zip": deep})
    entities = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><d>&b;</d>'
    return {
        "bom.zip": (flat, {"ratio"}),
        "bom.gz": (zeros, {"ratio"}),
        "hai lan.gz": (gzip.compress(zeros), {"ratio"}),
        "nhieu.zip": (many, {"too_many"}),
        "sau.zip": (deep, {"too_deep"}),
        "a.docx": (corpus.docx("x", word__document=entities), {"unknown_container"}),
        "b.docx": (corpus.docx("x", word__document="<d>" + " " * (60 << 20) + "</d>"), {"ratio"}),
        "a.rtf": (b"{\\rtf1 " + b"{" * 500_000, {"too_deep"}),
    }


def _locked() -> dict[str, bytes]:
    from io import BytesIO

    from pypdf import PdfReader, PdfWriter

    writer, out = PdfWriter(), BytesIO()
    writer.append(PdfReader(BytesIO(corpus.pdf("Kính gửi"))))
    writer.encrypt(user_password="mo", algorithm="AES-256")
    writer.write(out)
    package = ole.compound({"EncryptionInfo": bytes(5000), "EncryptedPackage": bytes(5000)})
    return {
        "a.pdf": out.getvalue(), "a.docx": package, "a.doc": ole.doc("x", encrypted=True),
        "a.xls": ole.xls([["x"]], encrypted=True), "a.pgp": b"-----BEGIN PGP MESSAGE-----\n\nx\n",
        "a.p7m": bytes.fromhex("3080 0609 2a864886f70d010703 a080"),
    }  # fmt: skip


def test_bombs_and_locked_files_in_the_pool() -> None:
    """All of them at once through two workers: each ends as a fact, no worker dies, and ordinary mail goes on."""

    async def main() -> tuple[dict[str, Inspection], dict[str, Inspection], Inspection, int]:
        inspector = Inspector(SETTINGS, workers=2, seconds=600, log=structlog.get_logger())
        running = asyncio.create_task(inspector.run())
        try:
            bombs, locked = _bombs(), _locked()
            jobs = [inspector.file(data, name) for name, (data, _) in bombs.items()]
            jobs += [inspector.file(data, name) for name, data in locked.items()]
            mail = inspector.message(MemoryBody(MAIL, hashlib.sha256(MAIL).hexdigest()))
            *found, ordinary = await asyncio.gather(*jobs, mail)
            names = [*bombs, *locked]
            facts = dict(zip(names, found[: len(bombs)], strict=False))
            return facts, dict(zip(locked, found[len(bombs) :], strict=True)), ordinary, inspector.deaths
        finally:
            running.cancel()
            await inspector.stop()

    bombs, locked, ordinary, deaths = asyncio.run(main())
    for name, (_, wanted) in _bombs().items():
        assert wanted & uninspectable(bombs[name]), (name, bombs[name].findings, bombs[name].failed)
    for name, facts in locked.items():
        assert {"encrypted", "pgp", "smime"} & uninspectable(facts), (name, facts.findings)
        assert facts.files[0].encrypted
    assert ordinary.message.subject == "Hello" and not ordinary.failed
    assert deaths == 0


def uninspectable(facts: Inspection) -> set[str]:
    return {finding.value for finding in facts.findings if finding.kind == "uninspectable"}
