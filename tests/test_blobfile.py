"""Compressed and encrypted: every bit counts, keys can be changed, and without the key nothing is said."""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import blobfile
from gateway.blobfile import ENCRYPTED, GZIP, KINDS, PLAIN, Keyring
from gateway.errors import Failure
from gateway.store import Damaged, Store

sys.path.insert(0, str(Path(__file__).parent.parent / "verifier"))
import congvan_blob  # part of a program of its own, beside the gateway


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def apart(path: Path, sha256: str) -> str:
    """The digest of a message as the separate verifier reads it."""
    return congvan_blob.Opener(path.parent, []).digest(path, sha256)


def keyring(folder: Path, *outside: bytes) -> Keyring:
    return Keyring(folder / "keys", lambda: list(outside or (b"k" * 32,)))


def store(folder: Path, kind: str, *outside: bytes) -> Store:
    return Store(folder / "blobs", kind=kind, keyring=keyring(folder, *outside))


sizes = st.sampled_from([0, 1, 100, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 16])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), sizes, st.sampled_from(KINDS), st.integers(1, 1 << 17))
def test_what_is_put_comes_back(tmp_path_factory, chunks, size, kind, piece):
    kept = store(tmp_path_factory.mktemp("store"), kind)
    chunks = [*chunks, random.Random(size).randbytes(size)]
    data = b"".join(chunks)
    kept.put(chunks, digest(data))
    assert kept.read(digest(data)) == data
    assert b"".join(kept.chunks(digest(data), piece)) == data
    assert list(kept.digests()) == [digest(data)]
    assert kept.path(digest(data)).name == digest(data) + kind


@pytest.mark.parametrize("kind", [GZIP, ENCRYPTED])
@pytest.mark.parametrize("words", [b"", b"Kinh gui cac so, ban, nganh\r\n" * 8000])
def test_base64_and_words_are_both_made_smaller(tmp_path: Path, kind: str, words: bytes) -> None:
    """Where nothing repeats, repetitions are not looked for; any tool reads the result all the same."""
    data = base64.encodebytes(random.Random(1).randbytes(200_000)) + words
    kept = store(tmp_path, kind)
    kept.put([data], digest(data))
    assert kept.read(digest(data)) == data
    path = kept.path(digest(data))
    assert path.stat().st_size < 0.78 * (len(data) - len(words)) + 0.02 * len(words)
    if kind == GZIP:
        assert gzip.decompress(path.read_bytes()) == data
        assert apart(path, digest(data)) == digest(data)


#: Runs of one letter: there deflate has several spellings of the same bytes.
LETTER = b"Subject: Cong van\r\n\r\n" + b"x" * 900 + bytes(range(64)) * 2 + b"\r\n"


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_goes_unseen(tmp_path, kind):
    kept, sha = store(tmp_path, kind), digest(LETTER)
    kept.put([LETTER], sha)
    path = kept.path(sha)
    whole = path.read_bytes()
    path.chmod(0o640)
    for bit in range(0, len(whole) * 8, 1 if kind == GZIP else 11):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert kept.problem(sha) == "changed", bit
        if kind != ENCRYPTED:
            assert apart(path, sha) != sha, bit
    for cut in (*range(0, 80), len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert kept.problem(sha) == "changed", cut
    path.write_bytes(whole + b"x")
    assert kept.problem(sha) == "changed"
    kept.put([LETTER], sha)  # the same bytes mend it
    assert kept.read(sha) == LETTER


def test_any_tool_reads_the_compressed_form(tmp_path):
    kept, sha = store(tmp_path, GZIP), digest(LETTER)
    kept.put([LETTER], sha)
    assert gzip.decompress(kept.path(sha).read_bytes()) == LETTER
    assert apart(kept.path(sha), sha) == sha
    assert kept.path(sha).stat().st_size < len(LETTER) / 2


def test_all_forms_are_read_whatever_is_written_now(tmp_path):
    letters = {kind: LETTER + kind.encode() for kind in KINDS}
    for kind, data in letters.items():
        store(tmp_path, kind).put([data], digest(data))
    for kind in KINDS:
        now = store(tmp_path, kind)
        for data in letters.values():
            assert now.read(digest(data)) == data
            now.put([data], digest(data))  # known, in whatever form
    assert sorted(now.digests()) == sorted(map(digest, letters.values()))
    data = letters[PLAIN]
    path = now.path(digest(data))
    path.chmod(0o640)
    path.write_bytes(b"damaged")
    now.put([data], digest(data))
    assert now.read(digest(data)) == data
    assert list(now.digests()).count(digest(data)) == 1


def test_nothing_readable_is_on_disk_and_equal_letters_do_not_look_equal(tmp_path):
    kept, sha = store(tmp_path, ENCRYPTED), digest(LETTER)
    kept.put([LETTER], sha)
    first = kept.path(sha).read_bytes()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or (b"Cong van" not in path.read_bytes() and b"xxxxx" not in path.read_bytes())
    kept.remove(sha)
    assert not kept.exists(sha)
    kept.put([LETTER], sha)
    assert kept.path(sha).read_bytes()[40:] != first[40:]


def test_bytes_under_another_name_are_noticed(tmp_path):
    kept, other = store(tmp_path, ENCRYPTED), digest(b"other")
    for data in (LETTER, b"other"):
        kept.put([data], digest(data))
    kept.path(other).unlink()
    kept.path(digest(LETTER)).rename(kept.path(other))
    assert kept.problem(other) == "changed"


def test_the_key_outside_changes_without_a_message_being_written(tmp_path):
    old, new = b"1" * 32, bytes(range(32))
    store(tmp_path, ENCRYPTED, old).put([LETTER], digest(LETTER))
    path = store(tmp_path, ENCRYPTED, old).path(digest(LETTER))
    before = path.stat()
    with pytest.raises(Failure, match="needs the archive key"):
        store(tmp_path, ENCRYPTED, new).read(digest(LETTER))
    assert keyring(tmp_path, new, old).rewrap() == 1
    assert keyring(tmp_path, new, old).rewrap() == 0
    assert store(tmp_path, ENCRYPTED, new).read(digest(LETTER)) == LETTER
    with pytest.raises(Failure):
        store(tmp_path, ENCRYPTED, old).read(digest(LETTER))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_without_the_key_it_is_said_clearly_and_nothing_is_called_damaged(tmp_path):
    store(tmp_path, ENCRYPTED).put([LETTER], digest(LETTER))
    absent = Store(
        tmp_path / "blobs",
        kind=ENCRYPTED,
        keyring=Keyring(tmp_path / "keys", lambda: [blobfile.read_wrapping_key(tmp_path / "none")]),
    )
    with pytest.raises(Failure, match="No such file") as caught:
        absent.read(digest(LETTER))
    assert caught.value.retryable  # the key comes, and all goes on
    with pytest.raises(Failure):
        absent.put([b"new"], digest(b"new"))
    with pytest.raises(Failure, match="encrypted"):
        Store(tmp_path / "blobs").problem(digest(LETTER))
    (tmp_path / "keys").rename(tmp_path / "gone")
    with pytest.raises(Damaged):
        store(tmp_path, ENCRYPTED).read(digest(LETTER))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (b"k" * 32, True),
        (b"6b" * 32 + b"\n", True),
        (b"a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=\n", True),
        (b"x", False),
    ],
)
def test_spellings_of_a_key(tmp_path, text, good):
    path = tmp_path / "archive.key"
    path.write_bytes(text)
    if good:
        assert blobfile.read_wrapping_key(path) == b"k" * 32
    else:
        with pytest.raises(Failure, match="32 bytes are needed"):
            blobfile.read_wrapping_key(path)
