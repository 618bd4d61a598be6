"""One commit, everything or nothing; the same message once."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from sqlalchemy import func, select

from gateway import database as db
from gateway.archive import Count, Notice, Tombstone, canonical, document_key
from gateway.errors import Failure
from gateway.inspection.findings import FileFacts
from tests.cases import AT, case, close, mail, open_archive


@pytest.fixture
def archived(tmp_path):
    """Run a coroutine function with an archive in a fresh folder."""

    def run(work):
        async def whole():
            archive = open_archive(tmp_path)
            await archive.start()
            try:
                return await work(archive)
            finally:
                await close(archive)

        return asyncio.run(whole())

    return run


async def rows(archive, table):
    return await archive.database.read(lambda c: c.execute(select(table)).mappings().all())


async def size(archive, table):
    return await archive.database.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar())


def test_a_commit_holds_everything(archived):
    file = FileFacts(name="14-CT.pdf", path="14-CT.pdf", sha256="ab" * 32, size=9, type="pdf")
    notice = Notice("notice", b"Subject: tra lai\r\n\r\n", (("van.thu@so-tttt.tinh.gov.vn", "hop"),), "X", "k1")
    one = case(to=("a@tinh.gov.vn", "B@tinh.gov.vn"), files=(file,), texts={"14-CT.pdf": "Nội dung"}, notices=(notice,))

    async def work(archive):
        receipt = await archive.commit(one)
        assert (receipt.case, receipt.leaf, receipt.duplicate) == (one.received.case, 0, False)
        assert await archive.data(receipt.case) == mail()
        row = await archive.row(receipt.case)
        assert (row["subject"], row["document_key"], row["agency"]) == (
            "Chỉ thị về văn bản điện tử",
            "14/CT-UBND",
            "so-tttt",
        )
        assert row["received_at"] == int(AT.timestamp() * 1000)
        assert [(r["address"], r["state"], r["next_attempt_at"]) for r in row["recipients"]] == [
            ("a@tinh.gov.vn", "queued", row["received_at"]),
            ("B@tinh.gov.vn", "queued", row["received_at"]),
        ]
        assert [a["sha256"] for a in row["attachments"]] == ["ab" * 32]
        record = json.loads(row["record"])
        assert record["answerable"] is False and "texts" not in record["inspection"]
        assert record["verdict"]["document"]["code"]["value"] == "14/CT-UBND"

        leaves = await rows(archive, db.leaf)
        entry = json.loads(leaves[0]["entry"])
        assert leaves[0]["entry"] == canonical(entry)
        assert leaves[0]["hash"] == hashlib.sha256(b"\0" + leaves[0]["entry"]).digest()
        assert entry["sha256"] == hashlib.sha256(mail()).hexdigest()
        assert entry["record"] == hashlib.sha256(row["record"].encode()).hexdigest()
        assert entry["received"] == "2026-11-20T08:30:00.000+07:00"
        assert entry["files"][0]["sha256"] == "ab" * 32

        messages = {m["kind"]: m for m in await rows(archive, db.message)}
        assert messages["notice"]["about"] == "X" and messages["notice"]["sender"] == ""
        assert archive.store.read(messages["notice"]["sha256"]) == notice.data
        assert [leaf["idx"] for leaf in leaves] == [0, 1]
        assert await size(archive, db.event) == 1
        assert [p["text"] for p in await rows(archive, db.policy)] == ['{"rules":[]}']

    archived(work)


def test_the_same_message_again_is_known_and_nothing_happens_twice(archived):
    first, again = case(), case()
    more = case(to=("UBND@tinh.gov.vn", "khac@tinh.gov.vn"))

    async def work(archive):
        sha = first.received.body.sha256
        assert await archive.known(sha, str(first.received.envelope.sender), "out") is None
        receipt = await archive.commit(first)
        known = await archive.known(sha, str(first.received.envelope.sender), "out")
        assert (known.case, known.accepted) == (first.received.case, frozenset({"ubnd@tinh.gov.vn"}))
        assert await archive.known(sha, "other@tinh.gov.vn", "out") is None
        assert await archive.known(sha, str(first.received.envelope.sender), "in") is None

        second = await archive.commit(again)
        assert (second.case, second.leaf, second.duplicate) == (receipt.case, 0, True)
        assert await size(archive, db.message) == 1

        third = await archive.commit(more)  # one new recipient: a case of its own for that one alone
        assert third.case == more.received.case and not third.duplicate
        row = await archive.row(third.case)
        assert [r["address"] for r in row["recipients"]] == ["khac@tinh.gov.vn"]
        assert len(list(archive.store.digests())) == 1
        assert await size(archive, db.event) == 1
        assert (await archive.known(sha, str(first.received.envelope.sender), "out")).accepted == {
            "ubnd@tinh.gov.vn",
            "khac@tinh.gov.vn",
        }

    archived(work)


def test_a_refused_message_may_be_offered_again(archived):
    async def work(archive):
        await archive.commit(case(state="refused"))
        one = case()
        known = await archive.known(one.received.body.sha256, str(one.received.envelope.sender), "out")
        assert known.accepted == frozenset()
        assert not (await archive.commit(one)).duplicate

    archived(work)


def test_many_at_once_are_dense_and_counted_once(archived):
    async def work(archive):
        offers = [case(number=n % 40) for n in range(80)]
        receipts = await asyncio.gather(*[archive.commit(one) for one in offers])
        assert sum(not receipt.duplicate for receipt in receipts) == 40
        leaves = await rows(archive, db.leaf)
        assert [leaf["idx"] for leaf in leaves] == list(range(40))
        assert await size(archive, db.event) == 40
        assert {r.leaf for r in receipts} == set(range(40))

    archived(work)


def test_a_notice_goes_out_once(archived):
    notice = Notice("notice", b"n", (("a@tinh.gov.vn", "hop"),), "X", "same")

    async def work(archive):
        await archive.commit(case(number=1, notices=(notice,)))
        await archive.commit(case(number=2, notices=(notice,)))
        await archive.notify([notice, Notice("dsn", b"d", (("a@tinh.gov.vn", "hop"),), "X", "other")])
        assert sorted(m["kind"] for m in await rows(archive, db.message)) == ["dsn", "mail", "mail", "notice"]

    archived(work)


@pytest.mark.parametrize("fails", ["store", "database"])
def test_what_cannot_be_made_durable_is_a_failure_and_leaves_no_row(archived, monkeypatch, fails):
    async def work(archive):
        await archive.commit(case(number=1))
        if fails == "store":
            monkeypatch.setattr("os.fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        else:
            monkeypatch.setattr(
                "sqlalchemy.engine.Connection.commit", lambda _self: (_ for _ in ()).throw(OSError(5, "I/O error"))
            )
        with pytest.raises(Failure) as caught:
            await archive.commit(case(number=2))
        assert caught.value.retryable
        monkeypatch.undo()
        assert await size(archive, db.message) == 1
        assert (await archive.commit(case(number=2))).leaf == 1

    archived(work)


def test_of_a_secret_only_a_tombstone_stays(archived, tmp_path):
    sha = hashlib.sha256(b"secret bytes").hexdigest()
    stone = Tombstone(
        case="CASE1",
        at=AT,
        sender="a@tinh.gov.vn",
        recipients=("b@tinh.gov.vn",),
        peer="127.0.0.1",
        size=12,
        level="toi_mat",
        rule="SC-01",
        sha256=sha,
        counts=(Count("k", "blocked_secret", "so-tttt", "out"),),
    )

    async def work(archive):
        await archive.bury(stone)
        entry = json.loads((await rows(archive, db.leaf))[0]["entry"])
        assert entry["type"] == "tombstone" and len(entry["hmac"]) == 64 and entry["hmac"] != sha
        assert await size(archive, db.event) == 1

    archived(work)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert sha.encode() not in kept and bytes.fromhex(sha) not in kept
    assert (tmp_path / "keys" / "tombstone.salt").stat().st_mode & 0o777 == 0o600


def test_very_long_lists_still_fit_a_leaf_and_odd_text_is_taken(archived):
    files = tuple(
        FileFacts(name="f", path=f"{'d' * 100}/{n}.pdf", sha256="ab" * 32, size=1, type="pdf") for n in range(500)
    )

    async def work(archive):
        await archive.commit(case(files=files, subject="lone \udcff surrogate and \0"))
        entry = (await rows(archive, db.leaf))[0]["entry"]
        assert len(entry) < 65536 and json.loads(entry)["files"]["count"] == 500

    archived(work)


def test_numbers_in_any_spelling():
    assert {document_key(x) for x in ("14/CT-UBND", " 14 / ct - ubnd", "014/CT-UBND")} == {"14/CT-UBND"}
    assert document_key("05/QĐ-UBND") == "5/QD-UBND"
