"""Bytes by digest: once, durable, checked."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import durable
from gateway.errors import Failure
from gateway.store import Damaged, GroupWriter, Store


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_what_is_put_comes_back(tmp_path_factory, chunks):
    store = Store(tmp_path_factory.mktemp("store"))
    data = b"".join(chunks)
    store.put(chunks, digest(data))
    assert store.read(digest(data)) == data
    assert b"".join(store.chunks(digest(data), 7)) == data
    assert list(store.digests()) == [digest(data)]


def test_the_same_bytes_are_kept_once_and_from_many_threads(tmp_path):
    store = Store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put([b"abc"], digest(b"abc")), range(40)))
    assert list(store.digests()) == [digest(b"abc")]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert store.exists(digest(b"abc")) and not store.exists(digest(b"abd"))


def test_every_write_is_synced_before_its_name_and_the_name_after(tmp_path, monkeypatch):
    store, calls = Store(tmp_path), []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd))[1]
    )
    items = [([b"%d" % n], digest(b"%d" % n)) for n in range(3)]
    store.put_all(items)
    files, folders = calls[:3], calls[3:]
    assert all(str(tmp_path / "tmp") in call for call in files)
    assert {*folders} == {str(store.path(sha).parent) for _, sha in items}
    calls.clear()
    store.put(*items[0])  # there already: its name is made durable all the same
    assert calls == [str(store.path(items[0][1]).parent)]


def test_wrong_digest_is_not_kept(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(Failure):
        store.put([b"abc"], digest(b"other"))
    assert list(store.digests()) == [] and list((tmp_path / "tmp").iterdir()) == []
    with pytest.raises(ValueError):
        store.path("../../etc/passwd")


def test_damage_is_noticed_and_mended_by_the_same_bytes(tmp_path):
    store, sha = Store(tmp_path), digest(b"abc")
    store.put([b"abc"], sha)
    path = store.path(sha)
    path.chmod(0o640)
    path.write_bytes(b"abd")
    assert store.problem(sha) == "changed"
    with pytest.raises(Damaged, match="changed"):
        store.read(sha)
    store.put([b"abc"], sha)
    assert store.read(sha) == b"abc"
    path.unlink()
    with pytest.raises(Damaged, match="missing"):
        store.read(sha)


@pytest.mark.parametrize(("code", "broken"), [(errno.EIO, True), (errno.ENOSPC, False), (errno.EMFILE, False)])
def test_a_failed_fsync_is_never_tried_again(tmp_path, monkeypatch, code, broken):
    store = Store(tmp_path)

    def fail(_fd):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Failure) as caught:
            store.put([b"abc"], digest(b"abc"))
        assert caught.value.retryable
    assert list(store.digests()) == [] and list((tmp_path / "tmp").iterdir()) == []
    if broken:
        assert store.broken
        with pytest.raises(Failure):
            store.put([b"abc"], digest(b"abc"))
    else:
        store.put([b"abc"], digest(b"abc"))


def test_leftovers_are_cleared_and_strangers_named(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "tmp" / "half").write_bytes(b"x")
    store.clear()
    assert list((tmp_path / "tmp").iterdir()) == []
    (tmp_path / "sha256" / "ab" / "stranger").write_bytes(b"x")
    assert list(store.digests()) == ["sha256/ab/stranger"]


def test_callers_share_rounds_and_each_gets_its_own_answer(tmp_path, monkeypatch):
    store, rounds = Store(tmp_path), []
    original = Store.put_groups
    monkeypatch.setattr(
        Store, "put_groups", lambda self, groups: (rounds.append(len(groups)), original(self, groups))[1]
    )
    datas = [b"%d" % n for n in range(100)] + [bytes(1 << 19)]

    async def work():
        writer = GroupWriter(store)
        try:
            return await asyncio.gather(
                *[
                    writer.put([([data], digest(b"other") if n % 10 == 5 else digest(data))], len(data))
                    for n, data in enumerate(datas)
                ],
                return_exceptions=True,
            )
        finally:
            await asyncio.to_thread(writer.close)

    answers = asyncio.run(work())
    assert [n for n, answer in enumerate(answers) if answer is not None] == list(range(5, 100, 10))
    assert sorted(store.digests()) == sorted(digest(data) for n, data in enumerate(datas) if n % 10 != 5 or n == 100)
    assert len(rounds) < 20 and list((tmp_path / "tmp").iterdir()) == []


def test_a_failing_directory_sync_fails_all_who_put_into_it(tmp_path, monkeypatch):
    store = Store(tmp_path)
    items = [[([b"%d" % n], digest(b"%d" % n))] for n in range(4)]
    bad = store.path(items[2][0][1]).parent
    sync = durable.sync_folder

    def fail(path):
        if path == bad:
            raise OSError(errno.ENOSPC, "full")
        sync(path)

    monkeypatch.setattr(durable, "sync_folder", fail)
    answers = store.put_groups(items)
    assert [isinstance(one, Failure) for one in answers] == [False, False, True, False]
    assert store.broken == ""
