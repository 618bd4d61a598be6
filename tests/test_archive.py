"""One commit, everything or nothing; the same message once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway import database as db
from gateway import hashtree as ht
from gateway.archive import Count, Notice, Tombstone, append_leaf, canonical, leaf
from gateway.audit import audit
from gateway.errors import Failure
from gateway.inspection.findings import FileFacts
from gateway.search import Query, SqliteIndex, document_key
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


# ---------------------------------------------------------------------- the tree


def test_checkpoints_grow_and_prove_every_message(archived, tmp_path):
    async def work(archive):
        assert await archive.checkpoint() is None
        seen = []
        for batch in (1, 2, 253, 1, 300):  # over the edge of a tile and well into the next
            receipts = await asyncio.gather(*[archive.commit(case(number=len(seen) * 1000 + n)) for n in range(batch)])
            checkpoint = await archive.checkpoint()
            assert await archive.checkpoint() == checkpoint
            seen.append((checkpoint, receipts))
        sizes = [one.size for one, _ in seen]
        assert sizes == [1, 3, 256, 257, 557]
        leaves = await rows(archive, db.leaf)
        hashes = [leaf["hash"] for leaf in leaves]
        for checkpoint, receipts in seen:
            node = lambda level, index: ht.fold_pairs(hashes[index << level : (index + 1) << level])  # noqa: E731
            assert checkpoint.root == ht.root(checkpoint.size, node)
            proof = await archive.prove(receipts[-1].case)
            found = ht.check_proof(proof, archive.log.verifier())
            index, entry, used = found.index, found.entry, found.checkpoint
            assert (index, used.size) == (receipts[-1].leaf, 557)
            assert json.loads(entry)["case"] == receipts[-1].case
        fresh = await archive.commit(case(number=99))
        assert ht.check_proof(await archive.prove(fresh.case), archive.log.verifier()).checkpoint.size == 558
        with pytest.raises(KeyError):
            await archive.prove("NOSUCHCASE")

    archived(work)
    assert (tmp_path / "keys" / "log.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000558.note"]
    assert len(list((tmp_path / "log" / "tile" / "0").rglob("*.p/*"))) <= 2


def test_lost_tiles_are_made_again_lost_history_is_not_signed(archived, tmp_path):
    async def work(archive):
        await asyncio.gather(*[archive.commit(case(number=n)) for n in range(300)])
        first = await archive.checkpoint()
        shutil.rmtree(tmp_path / "log" / "tile")
        await archive.commit(case(number=1000))
        assert (await archive.checkpoint()).size == 301
        assert archive.log.root(301) == (await archive.checkpoint()).root
        assert [index for index, _ in archive.log.entries(0, 301, 301)] == list(range(301))

        def forge(connection):
            entry = connection.execute(select(db.leaf.c.entry).where(db.leaf.c.idx == 5)).scalar()
            entry = entry.replace(b'"size":', b'"size":1')
            new = {"entry": entry, "hash": ht.leaf_hash(entry)}
            connection.execute(db.leaf.update().where(db.leaf.c.idx == 5).values(new))

        await archive.database.write(forge)
        shutil.rmtree(tmp_path / "log" / "tile")
        await archive.commit(case(number=1001))
        with pytest.raises(Failure) as caught:
            await archive.checkpoint()
        assert "rewritten" in caught.value.private
        assert archive.log.newest().size == 301 > first.size

    archived(work)


def test_a_database_that_went_back_is_not_signed_over(archived):
    async def work(archive):
        for n in range(3):
            await archive.commit(case(number=n))
        await archive.checkpoint()

        def roll_back(connection):
            connection.execute(db.leaf.delete().where(db.leaf.c.idx == 2))
            connection.execute(db.checkpoint.delete())

        await archive.database.write(roll_back)
        with pytest.raises(Failure) as caught:
            await archive.checkpoint()
        assert "rolled back" in caught.value.private

    archived(work)


def test_a_stop_between_signing_and_publishing_is_made_good(archived, monkeypatch):
    async def work(archive):
        await archive.commit(case(number=1))
        await archive.checkpoint()
        await archive.commit(case(number=2))
        with monkeypatch.context() as patch:
            patch.setattr(archive.log, "publish", lambda _note: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(Failure):
                await archive.checkpoint()
        assert archive.log.newest().size == 1
        await archive.commit(case(number=3))
        assert (await archive.checkpoint()).size == 3

    archived(work)


# ---------------------------------------------------------------------- search


def test_search(archived):
    file = FileFacts(name="14-CT.pdf", path="hoso.zip/14-CT.pdf", sha256="ab" * 32, size=9, type="pdf")
    cases = [
        case(number=1, files=(file,), texts={"14-CT.pdf": "Thực hiện chỉ thị về đường bộ"}, rules=("SG-01",)),
        case(number=2, subject="Duong bo", code="05/QĐ-UBND", texts={"": "duong bo khong dau"}, to=("y@xa.gov.vn",)),
        case(number=3, subject="Lịch họp", direction="in", texts={"": "đường bộ, giấy mời họp lúc 8 giờ"}),
    ]

    async def work(archive):
        for one in cases:
            await archive.commit(one)
        names = {one.received.case: n for n, one in enumerate(cases, 1)}

        async def find(**query):
            page = await archive.search(Query(**query))
            assert page.lag == 0 and page.total == len(page.rows)
            return [names[row["id"]] for row in page.rows]

        assert sorted(await find(text="đường bộ")) == [1, 2, 3]
        assert (await find(text="đường bộ"))[-1] == 2, "exact accents first"
        assert (await find(text="duong bo"))[0] == 2
        assert await find(text='"giấy mời họp"') == [3]
        assert await find(text='"mời giấy"') == []
        assert await find(text="khong da*") == [2]
        assert sorted(await find(number="14 / ct-ubnd")) == [1, 3]
        assert sorted(await find(number="14/CT")) == [1, 3]
        assert await find(number="05/qđ-ubnd") == await find(number="5/QD-UBND") == [2]
        assert await find(recipient="y@xa.gov.vn") == [2]
        assert await find(direction="in") == [3]
        assert await find(file="14-CT.pdf") == [1]
        assert await find(digest="AB" * 32) == [1]
        assert await find(digest=cases[1].received.body.sha256) == [2]
        assert await find(rule="SG-01") == [1]
        assert sorted(await find(signer="le van d", abstract='"văn bản điện tử"')) == [1, 2, 3]
        assert await find(sender="nobody@x") == []
        assert await find(text='" OR NEAR( * :') == []
        assert sorted(await find(agency="so-tttt", kind="CT", verdict="deliver", message_class="OFFICIAL_DOC")) == [
            1,
            2,
            3,
        ]
        at = int(AT.timestamp() * 1000)
        assert len(await find(since=at, until=at + 1)) == 3 and await find(until=at) == []
        page = await archive.search(Query(limit=2, offset=2))
        assert (page.total, len(page.rows)) == (3, 1)
        assert "đường bộ" in (await archive.search(Query(text="duong bo", direction="in"))).rows[0]["snippet"]

    archived(work)


@pytest.mark.parametrize("damage", ["lost", "garbage", "ahead"])
def test_a_lost_index_is_made_again_with_the_same_answers(archived, tmp_path, damage):
    async def work(archive):
        for n in range(30):
            await archive.commit(case(number=n, subject=f"thư số {n} {'lẻ' if n % 2 else 'chẵn'}"))
        before = [row["id"] for row in (await archive.search(Query(text="chẵn"))).rows]
        archive.index.close()
        path = tmp_path / "index.db"
        if damage == "lost":
            path.unlink()
        elif damage == "garbage":
            path.write_bytes(b"garbage" * 4096)
        else:
            with sqlite3.connect(path) as other:
                other.execute("UPDATE search_state SET next = 1000")
        after = await archive.search(Query(text="chẵn"))
        assert len(before) == 15 and [row["id"] for row in after.rows] == before
        assert archive.index.problem == ""

    archived(work)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")

    async def fill():
        archive = open_archive(folder)
        await archive.commit(case())
        await close(archive)

    asyncio.run(fill())
    opened = SqliteIndex(folder / "index.db", folder / "gateway.db")
    yield opened
    opened.close()


@settings(max_examples=100, deadline=None)
@given(words=st.text(max_size=30))
def test_no_question_breaks_the_search(index, words):
    page = index.search(Query(text=words, signer=words, number=words, file=words))
    assert page.total >= 0 and page.lag == 0


def test_a_clock_that_was_set_back_shows_in_the_leaf(tmp_path):
    async def main() -> None:
        archive = open_archive(tmp_path)
        for now in (1e9, 1e9 - 1, 1e9 - 86_400, 1e9 + 1):
            await archive.database.write(lambda c, now=now: append_leaf(c, now, {"type": "admin"}))
        rows = await archive.database.read(lambda c: list(c.execute(db.leaf.select().order_by(db.leaf.c.idx))))
        assert [row.at for row in rows] == [10**12, 10**12, 10**12, 10**12 + 1000]
        clocks = [json.loads(row.entry).get("clock", "")[:19] for row in rows]
        assert clocks == ["", "", "2001-09-08T08:46:40", ""]
        await archive.checkpoint()
        assert (await asyncio.to_thread(audit, archive)).damage == []
        await close(archive)

    asyncio.run(main())


def test_a_leaf_of_any_type(tmp_path):
    async def main() -> None:
        archive = open_archive(tmp_path)
        assert await archive.note("access", {"who": "van.thu@\udcff", "what": ["CASE1", 3, None, {"x": True}]}) == 0
        assert await archive.database.write(lambda c: leaf(c, "retention", {"class": "5y"}, case="CASE1")) == 1
        for kind, body in (("Access", {}), ("a b", {}), ("a", {"seq": 1}), ("a", {"x": 1.5}), ("a", {"á": 1})):
            with pytest.raises(ValueError):
                await archive.note(kind, body)
        first, second = await archive.database.read(lambda c: list(c.execute(db.leaf.select().order_by(db.leaf.c.idx))))
        told = json.loads(first.entry)
        assert (told["type"], told["who"], told["what"]) == (
            "access",
            "van.thu@?",
            ["CASE1", 3, None, {"x": True}],
        )
        assert (second.type, second.case_id, json.loads(second.entry)["class"]) == ("retention", "CASE1", "5y")
        await archive.checkpoint()
        assert (await asyncio.to_thread(audit, archive)).damage == []
        await close(archive)

    asyncio.run(main())
