"""The verifier, run as a stranger runs it: by itself, without the gateway's code, against an archive and its proofs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).parent.parent / "verifier"))
import congvan_verify as cv

from gateway import database as db
from gateway import hashtree as ht
from gateway.archive import Archive, canonical
from gateway.blobfile import ENCRYPTED, Keyring, read_wrapping_key
from gateway.inspection.findings import FileFacts
from gateway.store import Store
from tests.cases import SETTINGS, case, close, mail, open_archive

PROGRAM = Path(cv.__file__)
SEED = 20261122
MESSAGES = 300


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    pdf = FileFacts(name="a.pdf", path="hoso.zip/a.pdf", sha256=hashlib.sha256(b"%PDF").hexdigest(), size=4, type="pdf")

    async def fill():
        archive = open_archive(folder)
        await archive.start()
        for step in range(3):
            made = [case(number=n, files=(pdf,)) for n in range(step * 100, step * 100 + 100)]
            receipts = await asyncio.gather(*[archive.commit(one) for one in made])
            checkpoint = await archive.checkpoint()
            note = (folder / "log" / "checkpoint").read_text()
            archive.log.keep(checkpoint.size, note)
            (folder / f"known{step}.note").write_text(note)
        (folder / "mail.tlog-proof").write_text(await archive.prove(receipts[0].case))
        (folder / "mail.eml").write_bytes(await archive.data(receipts[0].case))
        (folder / "a.pdf").write_bytes(b"%PDF")
        await close(archive)

    asyncio.run(fill())
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy with its own log; the messages' bytes are links, to be replaced and not written to."""
    target = tmp_path / "copy"
    shutil.copytree(original, target, ignore=shutil.ignore_patterns("blobs", "*.db*"))
    shutil.copytree(original / "blobs", target / "blobs", copy_function=os.link)
    return target


def key(folder: Path) -> str:
    return str(folder / "keys" / "log.vkey")


def check(capsys, *arguments: object) -> tuple[int, list[dict]]:
    code = cv.main([str(one) for one in arguments])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def audit(capsys, folder: Path, *more: object) -> tuple[int, set[str]]:
    code, lines = check(capsys, "audit", "--json", "--key", key(folder), *more, folder)
    return code, {one["kind"] for one in lines if "kind" in one}


def test_it_runs_alone_without_network_and_gateway(original, tmp_path):
    for name in ("congvan_verify.py", "congvan_blob.py", "congvan_stamp.py"):
        shutil.copy(PROGRAM.with_name(name), tmp_path)
    env = {"PATH": os.environ["PATH"], "PYTHONNOUSERSITE": "1"}
    script = (
        "import sys; import congvan_verify as c; code = c.main(sys.argv[1:]);"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('gateway', 'ssl', 'sqlalchemy', 'pydantic')];"
        "sys.exit(code)"
    )
    for arguments in (
        ["audit", "--key", key(original), "--known", str(original / "known0.note"), str(original)],
        ["proof", "--key", key(original), str(original / "mail.eml"), str(original / "mail.tlog-proof")],
        ["diff", "--key", key(original), str(original / "known1.note"), str(original)],
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_needs_no_network_and_writes_nothing(original):
    """In a namespace without network, on a mount that cannot be written to."""
    inside = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" 2>/dev/null && shift && exec "$@"'
    )
    namespaces = ["unshare", "--net", "--mount"]
    try:
        subprocess.run([*namespaces, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("unshare(1) may not make namespaces here")
    words = [
        sys.executable,
        "-B",
        PROGRAM,
        "audit",
        "--key",
        key(original),
        "--known",
        original / "known0.note",
        original,
    ]
    done = subprocess.run([*namespaces, "sh", "-c", inside, "sh", original, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_whole_is_called_whole(capsys, folder):
    for known in ("known0.note", "known1.note", "known2.note"):
        code, lines = check(capsys, "audit", "--json", "--key", key(folder), "--known", folder / known, folder)
        assert code == 0 and lines == [
            {"ok": True, "leaves": MESSAGES, "cosigned": 0, "messages": MESSAGES, "unread": 0, "notes": []}
        ]
    code, lines = check(capsys, "audit", "--json", "--key", key(folder), folder)
    assert code == 0 and "outside" in lines[-1]["notes"][0]


@pytest.mark.parametrize("place", ["entries", "0", "1", "blob", "newest", "kept", "known"])
def test_no_flipped_bit_goes_unnoticed(capsys, folder, place):
    chance = random.Random(f"{SEED}{place}")
    paths = {
        "entries": [path for path in (folder / "log" / "tile" / "entries").rglob("*") if path.is_file()],
        "0": [path for path in (folder / "log" / "tile" / "0").rglob("*") if path.is_file()],
        "1": [path for path in (folder / "log" / "tile" / "1").rglob("*") if path.is_file()],
        "blob": sorted((folder / "blobs" / "sha256").glob("*/*.eml")),
        "newest": [folder / "log" / "checkpoint"],
        "kept": sorted((folder / "checkpoints").iterdir()),
        "known": [folder / "known0.note"],
    }[place]
    # Narrower partial tiles that nobody needs any more are not read.
    paths = sorted(path for path in paths if path.name not in ("100", "200"))
    for _ in range(6):
        path = chance.choice(paths)
        data = path.read_bytes()
        bit = chance.randrange(len(data) * 8)
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.unlink()
        path.write_bytes(flipped)
        code, found = audit(capsys, folder, "--known", folder / "known0.note")
        assert code in (1, 2) and found, (path, bit)
        path.write_bytes(data)


def rewrite(folder: Path, change) -> None:
    """Root with the log's key: change the entries, make all tiles and checkpoints anew."""
    archive_log = ht_log(folder)
    entries = [entry for _, entry in archive_log.entries(0, MESSAGES, MESSAGES)]
    entries = change(entries)
    entries = [canonical({**json.loads(one), "seq": n}) for n, one in enumerate(entries)]
    shutil.rmtree(folder / "log")
    shutil.rmtree(folder / "checkpoints")
    archive_log.extend(0, entries)
    note = archive_log.sign(len(entries), archive_log.root(len(entries)), "2026-11-22T10:00:00.000+07:00")
    archive_log.publish(note)


def ht_log(folder: Path):
    from gateway.treelog import TreeLog

    return TreeLog(folder, "mail.tinh.gov.vn/archive")


def edit(entries):
    entries[50] = entries[50].replace(b'"verdict":"deliver"', b'"verdict":"return"')
    return entries


def delete(entries):
    return entries[:50] + entries[51:] + entries[-1:]


def cut(entries):
    return entries[:200]


def swap(entries):
    entries[50], entries[51] = entries[51], entries[50]
    return entries


def back_date(entries):
    return [*entries[:50], entries[50].replace(b'"received":"2026', b'"received":"2020'), *entries[50:]]


@pytest.mark.parametrize("change", [edit, delete, cut, swap, back_date])
def test_root_with_the_key_is_found_by_one_old_checkpoint(capsys, folder, change):
    rewrite(folder, change)
    code, found = audit(capsys, folder, "--known", folder / "known2.note")
    assert code == 1 and found & {"rewritten", "rolled_back"}
    code, _ = check(capsys, "diff", "--json", "--key", key(folder), folder / "known2.note", folder)
    assert code == 1


def test_missing_and_planted_bytes(capsys, folder):
    paths = sorted((folder / "blobs" / "sha256").glob("*/*.eml"))
    paths[7].rename(folder / "blobs" / "sha256" / "ab" / ("ab" * 32 + ".eml"))
    code, lines = check(capsys, "audit", "--json", "--key", key(folder), folder)
    assert code == 1 and [one["kind"] for one in lines if "kind" in one] == ["blob_missing"]
    assert any("ab" * 32 in note for note in lines[-1]["notes"])


def test_an_encrypted_store_is_read_with_its_key_and_told_of_without(capsys, tmp_path):
    folder, outer, other = tmp_path / "data", tmp_path / "archive.key", tmp_path / "other.key"
    outer.write_text("6b" * 32 + "\n")
    other.write_bytes(b"o" * 32)
    big = mail(9, 200_000)

    async def fill():
        keyring = Keyring(folder / "keys" / "store", lambda: [read_wrapping_key(outer)])
        store = Store(folder / "blobs", kind=ENCRYPTED, keyring=keyring)
        archive = Archive(db.Database.open(db.sqlite_url(folder / "gateway.db")), store, SETTINGS)
        await archive.start()
        for data in (mail(1), mail(2), big):
            await archive.commit(case(data))
        await archive.checkpoint()
        await close(archive)

    asyncio.run(fill())
    without, opened = ("audit", "--json", "--key", key(folder)), ("--archive-key", outer)
    for more in ((), ("--archive-key", other)):
        code, (told,) = check(capsys, *without, *more, folder)
        assert (code, told["messages"], told["unread"]) == (0, 0, 3) and "NOT checked" in told["notes"][0]
    assert cv.main(["audit", "--key", key(folder), str(folder)]) == 0
    assert "bytes of 0 messages read, 3 NOT (encrypted)" in capsys.readouterr().out
    code, (told,) = check(capsys, *without, "--archive-key", other, *opened, folder)
    assert (code, told["messages"], told["unread"]) == (0, 3, 0)
    digest = hashlib.sha256(big).hexdigest()
    path = folder / "blobs" / "sha256" / digest[:2] / f"{digest}.eml.enc"
    data = path.read_bytes()
    for place in (0, 6, 15, 40, 80, len(data) - 1, None):
        path.unlink()
        changed = data[:-20] if place is None else data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        path.write_bytes(changed)
        code, lines = check(capsys, *without, *opened, folder)
        assert (code, [one["kind"] for one in lines[:-1]]) == (1, ["blob_changed"]), place
    path.write_bytes(data)
    (folder / "keys" / "store").rename(tmp_path / "lost")  # an auditor may have a copy without them
    code, lines = check(capsys, *without, *opened, folder)
    assert (code, lines[-1]["unread"]) == (0, 3)
    code = cv.main([*map(str, without), "--archive-key", str(tmp_path / "none"), str(folder)])
    assert code == cv.USAGE and "none" in capsys.readouterr().err


def test_a_lost_log_is_incomplete_not_fine(capsys, folder):
    (folder / "log" / "tile" / "entries" / "000").unlink()
    assert audit(capsys, folder) == (2, {"log_incomplete"})
    (folder / "log" / "checkpoint").unlink()
    assert audit(capsys, folder)[0] == 2


def test_proofs(capsys, original, tmp_path):
    proof, letter = original / "mail.tlog-proof", original / "mail.eml"
    code, (answer,) = check(capsys, "proof", "--json", "--key", key(original), letter, proof)
    assert (
        code == 0
        and (answer["what"], answer["signed_leaves"]) == ("message", 300)
        and answer["leaf"] in range(200, 300)
    )
    code, (answer,) = check(capsys, "proof", "--json", "--key", key(original), original / "a.pdf", proof)
    assert code == 0 and answer["what"] == "hoso.zip/a.pdf"
    other = tmp_path / "other.eml"
    other.write_bytes(mail(200) + b"x")
    assert check(capsys, "proof", "--json", "--key", key(original), other, proof)[0] == 1
    chance = random.Random(SEED)
    text = proof.read_bytes()
    for _ in range(60):
        bit = chance.randrange(len(text) * 8)
        bad = bytearray(text)
        bad[bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad").write_bytes(bad)
        assert check(capsys, "proof", "--json", "--key", key(original), letter, tmp_path / "bad")[0] in (1, 2), bit


def test_gateway_and_verifier_agree_on_every_proof(capsys, original):
    """Two programs written apart: what one proves the other must accept, at many sizes."""
    leaves = [b'{"seq":%d}' % n for n in range(70)]
    hashes = [ht.leaf_hash(one) for one in leaves]
    tree = cv.Tree()
    for size in range(1, 71):
        tree.add(cv.leaf_hash(leaves[size - 1]))

        def node(level, index):
            return ht.fold_pairs(hashes[index << level : (index + 1) << level])

        assert tree.root() == ht.root(size, node)
        for index in range(0, size, 7):
            path = ht.inclusion(index, size, node)
            assert cv.root_of_proof(hashes[index], index, size, path) == tree.root()


def cosign(note: str, name: str, seed: bytes, at: int) -> tuple[str, str]:
    """A witness: its public key, and the note with its signature under it (C2SP tlog-cosignature)."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = b"\x04" + private.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
    body = note.rpartition("\n\n")[0] + "\n"
    signature = private.sign(f"cosignature/v1\ntime {at}\n{body}".encode())
    line = base64.b64encode(key_id + at.to_bytes(8, "big") + signature).decode()
    return f"{name}+{key_id.hex()}+{base64.b64encode(public).decode()}", f"{note}\u2014 {name} {line}\n"


def test_witnesses(capsys, folder, tmp_path):
    checkpoint = folder / "log" / "checkpoint"
    note = checkpoint.read_text()
    one, note_one = cosign(note, "w1.example", b"1" * 32, int(time.time()))
    two, note_both = cosign(note_one, "w2.example", b"2" * 32, int(time.time()))
    policy = tmp_path / "policy.txt"
    policy.write_text(
        f"# của kho\nlog {Path(key(folder)).read_text().strip()}\n"
        f"witness A {one}\nwitness B {two}\ngroup both all A B\nquorum both\n"
    )
    results = {}
    for name, text in (("none", note), ("one", note_one), ("both", note_both)):
        checkpoint.write_text(text)
        results[name], _ = check(capsys, "audit", "--json", "--policy", policy, folder)
    assert results == {"none": 1, "one": 1, "both": 0}
    assert audit(capsys, folder)[0] == 0, "without a policy the witnesses are passed over"
    checkpoint.write_text(note_both.replace("w2.example ", "w2.example ", 1)[:-8] + "AAAA==\n")
    assert check(capsys, "audit", "--json", "--policy", policy, folder)[0] == 1
    policy.write_text("quorum unknown\n")
    assert check(capsys, "audit", "--policy", policy, folder)[0] == 3


@pytest.mark.parametrize(
    "arguments", [[], ["audit"], ["audit", "--key", "x", "."], ["proof", "--key", "a+b+c", "x", "y"]]
)
def test_usage(capsys, arguments):
    assert check(capsys, *arguments)[0] == 3
