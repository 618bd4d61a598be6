"""The same promises wherever the bytes are kept: in a folder or in a bucket with object lock, plain, compressed or
encrypted."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway import database as db
from gateway.archive import Archive
from gateway.audit import audit
from gateway.blobfile import ENCRYPTED, GZIP, PLAIN, Keyring
from gateway.config import S3
from gateway.errors import Failure
from gateway.objectstore import ObjectStore
from gateway.store import Damaged, GroupWriter, Store
from tests.cases import SETTINGS, case, close, mail

pytestmark = pytest.mark.peer


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["folder gzip", "folder encrypted", "bucket gzip"])
def again(request, tmp_path) -> Callable[[], Store]:
    """Opens the same store once more."""
    place, _, form = request.param.partition(" ")
    kind = {"plain": PLAIN, "gzip": GZIP, "encrypted": ENCRYPTED}[form]
    root = tmp_path / "blobs"
    keyring = Keyring(tmp_path / "keys" / "store", lambda: [b"k" * 32])
    if place == "folder":
        return lambda: Store(root, kind=kind, keyring=keyring)
    server = request.getfixturevalue("bucket")
    name = server.make(f"thu-{os.urandom(4).hex()}")
    settings = S3.model_validate(server.settings(name, prefix="kho/"))
    return lambda: ObjectStore(root, settings, kind=kind, keyring=keyring)


def spoil(store: Store, sha: str, server, data: bytes = b"damaged") -> None:
    """Other bytes in place of those that were put."""
    if isinstance(store, ObjectStore):
        server.client().put_object(Bucket=store._settings.bucket, Key=store._key(sha, store._kind), Body=data)
    else:
        store.path(sha).chmod(0o640)
        store.path(sha).write_bytes(data)


def test_what_is_put_comes_back_and_once(again):
    store, data = again(), os.urandom(300_000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put([data[:7], data[7:]], digest(data)), range(12)))
    store.put([], digest(b""))
    assert sorted(again().digests()) == sorted([digest(data), digest(b"")])
    assert again().read(digest(data)) == data and again().read(digest(b"")) == b""
    assert b"".join(again().chunks(digest(data), 777)) == data
    assert again().exists(digest(data)) and not again().exists(digest(b"no"))
    assert list((store.root / "tmp").iterdir()) == []


def test_wrong_bytes_are_not_kept(again):
    store = again()
    with pytest.raises(Failure) as caught:
        store.put([b"abc"], digest(b"other"))
    assert caught.value.retryable
    assert list(store.digests()) == []
    with pytest.raises(ValueError):
        store.put([b"abc"], "../../etc/passwd")
    with pytest.raises(Damaged, match="missing"):
        store.read(digest(b"abc"))


def test_damage_is_noticed_set_aside_and_mended(again, request):
    store, sha = again(), digest(b"abc")
    server = request.getfixturevalue("bucket") if isinstance(store, ObjectStore) else None
    store.put([b"abc"], sha)
    spoil(store, sha, server)
    assert store.problem(sha) == "changed"
    with pytest.raises(Damaged, match="changed"):
        store.read(sha)
    store.set_aside(sha)
    (aside,) = (store.root.parent / "corrupt").iterdir()
    assert aside.read_bytes() == b"damaged"
    store.put([b"abc"], sha)
    assert again().read(sha) == b"abc"


def test_what_is_removed_is_gone(again):
    store = again()
    for data in (b"abc", b"abd"):
        store.put([data], digest(data))
    store.remove(digest(b"abc"))
    store.remove(digest(b"abc"))
    assert list(again().digests()) == [digest(b"abd")]
    store.put([b"abc"], digest(b"abc"))
    assert store.read(digest(b"abc")) == b"abc"


def test_callers_share_rounds_and_each_gets_its_own_answer(again):
    store = again()
    datas = [b"%d" % n for n in range(40)] + [bytes(1 << 19)]

    async def work():
        writer = GroupWriter(store)
        try:
            jobs = [
                writer.put([([data], digest(b"other") if n % 10 == 5 else digest(data))], len(data))
                for n, data in enumerate(datas)
            ]
            return await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            await asyncio.to_thread(writer.close)

    answers = asyncio.run(work())
    assert [n for n, answer in enumerate(answers) if answer is not None] == [5, 15, 25, 35]
    assert all(isinstance(answers[n], Failure) for n in (5, 15))
    assert len(list(store.digests())) == len(datas) - 4


def test_an_archive_over_it(again, tmp_path, request):
    """Committed, read, verified; damage is named."""
    store = again()
    server = request.getfixturevalue("bucket") if isinstance(store, ObjectStore) else None

    async def work():
        archive = Archive(db.Database.open(db.sqlite_url(tmp_path / "gateway.db")), store, SETTINGS)
        await archive.start()
        receipts = await asyncio.gather(*[archive.commit(case(number=n)) for n in range(12)])
        assert (await archive.commit(case(number=3))).duplicate
        assert await archive.data(receipts[5].case) == mail(5)
        await archive.checkpoint()
        report = await asyncio.to_thread(audit, archive)
        assert report.damage == [] and report.messages == 12 and report.notes == []
        spoil(store, digest(mail(5)), server)
        store.remove(digest(mail(7)))
        report = await asyncio.to_thread(audit, archive)
        assert sorted(one.kind for one in report.damage) == ["blob_changed", "blob_missing"]
        await close(archive)

    asyncio.run(work())


# ---------------------------------------------------------------------- what only a bucket has


def locked(server, tmp_path: Path, **more) -> ObjectStore:
    settings = S3.model_validate(server.settings(**{"lock": {"days": 1}, **more}))
    return ObjectStore(tmp_path / "blobs", settings, kind=GZIP)


def test_the_lock_holds_whoever_asks(bucket, tmp_path):
    name = bucket.make(f"khoa-{os.urandom(4).hex()}", lock=True)
    store, sha, client = locked(bucket, tmp_path, bucket=name), digest(b"abc"), bucket.client()
    store.check()
    store.put([b"abc"], sha)
    with pytest.raises(Failure, match="does not let go") as caught:
        store.remove(sha)
    assert not caught.value.retryable
    key = store._key(sha, GZIP)
    (version,) = client.list_object_versions(Bucket=name, Prefix=key)["Versions"]
    for words in ({}, {"BypassGovernanceRetention": True}):
        with pytest.raises(client.exceptions.ClientError):
            client.delete_object(Bucket=name, Key=key, VersionId=version["VersionId"], **words)
    assert client.get_object_retention(Bucket=name, Key=key)["Retention"]["Mode"] == "COMPLIANCE"
    # What somebody puts on top is noticed, and the version below is still there.
    client.put_object(Bucket=name, Key=key, Body=b"instead")
    assert store.problem(sha) == "changed"
    old = client.get_object(Bucket=name, Key=key, VersionId=version["VersionId"])["Body"].read()
    assert len(old) > 58
    store.put([b"abc"], sha)
    assert store.read(sha) == b"abc"


def test_a_bucket_that_cannot_lock_is_refused_at_the_start(bucket, tmp_path):
    name = bucket.make(f"ho-{os.urandom(4).hex()}")
    with pytest.raises(Failure, match="object lock") as caught:
        locked(bucket, tmp_path, bucket=name).clear()
    assert not caught.value.retryable
    with pytest.raises(Failure, match="no-such"):
        locked(bucket, tmp_path, bucket="no-such").clear()


def test_wrong_credentials_are_named(bucket, tmp_path):
    path = tmp_path / "credentials"
    name = bucket.make(f"sai-{os.urandom(4).hex()}")
    path.write_text("only-one-line\n")
    with pytest.raises(Failure, match="two lines"):
        locked(bucket, tmp_path, bucket=name, credentials={"file": str(path)}).check()
    path.write_text("congvan\nwrong\n")
    with pytest.raises(Failure) as caught:
        locked(bucket, tmp_path, bucket=name, credentials={"file": str(path)}).put([b"x"], digest(b"x"))
    assert caught.value.retryable  # unknown means try again: the sender keeps the message


def test_a_store_that_is_away_is_no_broken_store(tmp_path, bucket):
    settings = {**bucket.settings("thu"), "endpoint": "http://127.0.0.1:1"}
    store = ObjectStore(tmp_path / "blobs", S3.model_validate(settings), kind=GZIP)
    store.clear()  # the gateway starts without it
    for call in (lambda: store.put([b"x"], digest(b"x")), lambda: store.problem(digest(b"x"))):
        with pytest.raises(Failure) as caught:
            call()
        assert caught.value.retryable and store.broken == ""
