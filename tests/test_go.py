"""Go's `golang.org/x/mod/sumdb` reads our log, and we read one that it wrote."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway import hashtree as ht
from gateway.treelog import TreeLog

SOURCE = Path(__file__).parent / "data" / "go" / "sumdb.go"
#: Where Debian's golang-golang-x-mod-dev puts it.
LIBRARY = Path("/usr/share/gocode")
#: Around one tile, two, and where a third level of tiles begins.
SIZES = (*range(601), 65_535, 65_536, 65_537)

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def sumdb(tmp_path_factory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("Go is not installed (Debian: golang-go)")
    if not (LIBRARY / "src/golang.org/x/mod/sumdb").is_dir():
        pytest.skip("golang.org/x/mod is not installed (Debian: golang-golang-x-mod-dev)")
    folder = tmp_path_factory.mktemp("go")
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": str(LIBRARY), "GOFLAGS": "", "GOCACHE": str(folder / "cache")}
    done = subprocess.run(
        ["go", "build", "-o", folder / "sumdb", SOURCE], env=env, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "sumdb"


def run(program: Path, *words: object) -> str:
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_go_reads_our_log_at_every_size(sumdb, tmp_path):
    """Tiles, entries and notes as the gateway writes them, at each size the log ever had: 604 signed trees."""
    log = TreeLog(tmp_path, "mail.tinh.gov.vn/archive")
    (tmp_path / "notes").mkdir()
    entries = [b'{"seq":%d,"v":1}' % n for n in range(SIZES[-1])]
    old = 0
    for size in SIZES:
        for start in range(old - old % 256, size, 4096):
            log.extend(start, entries[start : min(size, start + 4096)])
        note = log.sign(size, log.root(size), "2026-11-20T08:30:00.000+07:00")
        (tmp_path / "notes" / f"{size:012d}.note").write_text(note)
        log.prune(size)
        old = size
    said = run(sumdb, "read", log.verifier(), tmp_path / "log", tmp_path / "notes")
    assert said == f"{len(SIZES)} checkpoints hold\n"
    tile = tmp_path / "log" / "tile" / "0" / "001"
    broken = bytearray(tile.read_bytes())
    broken[77] ^= 1
    tile.write_bytes(broken)
    done = subprocess.run(
        [sumdb, "read", str(log.verifier()), tmp_path / "log", tmp_path / "notes"], capture_output=True
    )
    assert done.returncode == 1, "it does look at the tiles"


@pytest.mark.parametrize("size", [1, 255, 256, 257, 600, 65_537])
def test_we_read_a_log_that_go_wrote(sumdb, tmp_path, size):
    signer = ht.Signer("go.example/log", b"g" * 32)
    run(sumdb, "write", signer, tmp_path / "log", size)
    log = TreeLog(tmp_path, signer.name)
    checkpoint = log.open(log.newest_note(), signer.verifier)
    assert checkpoint.size == size and log.root(size) == checkpoint.root
    for index in {0, size // 3, size - 1}:
        ((_, entry),) = log.entries(index, index + 1, size)
        assert entry == b"record %d" % index
        proof = ht.proof_text(index, entry, ht.inclusion(index, size, log.nodes(size)), log.newest_note())
        assert ht.check_proof(proof, signer.verifier).index == index
        assert base64.b64encode(entry).decode() in proof
