"""A real clamd, with a signature database of its own: one signature, the EICAR test file."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import text_corpus as corpus
from gateway.config import Clamd
from gateway.inspection import malware
from gateway.inspection.findings import Status
from tests import peers

pytestmark = [pytest.mark.peer, pytest.mark.skipif(shutil.which("clamd") is None, reason="not installed: clamd")]

#: The test file of eicar.org, in two pieces so that no scanner finds it here.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTI" + rb"VIRUS-TEST-FILE!$H+H*"
LIMIT = 2 << 20


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    # A Unix socket's path may have 107 characters at most, which pytest's own folders can exceed.
    with tempfile.TemporaryDirectory(prefix="clamd-") as name:
        folder = Path(name)
        (folder / "db").mkdir()
        # extended signature: name, target type 0 (any), offset *, hex; and the hash of a whole file
        (folder / "db" / "test.ndb").write_text(f"Congvan.Test.Eicar:0:*:{EICAR.hex()}\n")
        known = b"a file known by its hash"
        (folder / "db" / "test.hdb").write_text(f"{hashlib.md5(known).hexdigest()}:{len(known)}:Congvan.Test.Hash\n")
        settings = {
            "LocalSocket": folder / "socket", "DatabaseDirectory": folder / "db", "Foreground": "yes",
            "TemporaryDirectory": folder, "StreamMaxLength": LIMIT, "MaxThreads": 2, "LogFile": folder / "log",
        }  # fmt: skip
        (folder / "clamd.conf").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        process = subprocess.Popen(["clamd", "-c", str(folder / "clamd.conf")], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 240
            while not (folder / "socket").exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "clamd did not open its socket"
                time.sleep(0.05)
            yield Clamd(socket=folder / "socket", timeout=240)
        finally:
            peers.end(process)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (EICAR, ["Congvan.Test.Eicar.UNOFFICIAL"]),
        (b"a file known by its hash", ["Congvan.Test.Hash.UNOFFICIAL"]),
        (corpus.eml(files={"hoa don.zip": corpus.zipped({"a.txt": EICAR})}), ["Congvan.Test.Eicar.UNOFFICIAL"]),
        (corpus.eml("Báo cáo", "Kính gửi", files={"a.pdf": corpus.pdf("Kính gửi")}), []),
        (b"", []),
    ],
    ids=["file", "hash", "in a ZIP in a mail", "clean mail", "empty"],
)
def test_what_clamd_finds(clamd: Clamd, data: bytes, names: list[str]) -> None:
    findings, run = malware.scan([data[:100], data[100:]], clamd, "thư")
    assert [finding.evidence for finding in findings] == names
    assert (run.status, run.about, run.reason) == (Status.OK, "thư", "")
    assert all((finding.kind, finding.about) == ("malware", "thư") for finding in findings)


def test_too_large_for_clamd_is_not_clean(clamd: Clamd) -> None:
    findings, run = malware.scan((bytes(1 << 17) for _ in range(64)), clamd)
    assert not findings and run.status is Status.FAILED and "limit" in run.reason


def test_clamd_again_after_a_refusal(clamd: Clamd) -> None:
    assert malware.scan([b"abc"], clamd)[1].status is Status.OK
