"""One set of questions, the same answers from SQLite and PostgreSQL; an index that is lost, damaged or behind."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import random
import sqlite3
import unicodedata

import pytest

from gateway import database as db
from gateway.archive import Archive
from gateway.errors import Failure
from gateway.inspection.findings import Document, DocumentField, FileFacts, Mailbox, Signature, SignatureState
from gateway.message import VIETNAM
from gateway.search import Query, Term, accented, bare, entry, number_key, snippet, terms, tokens
from gateway.store import Store
from tests.cases import SETTINGS, case, close
from tests.test_postgresql import server

__all__ = ["server"]

DAY = dt.datetime(2026, 11, 20, 8, 30, tzinfo=VIETNAM)


def messages():
    """Name of each message, and the message."""
    signed = FileFacts(
        name="02_CT_BNV.signed.pdf", path="ho so.zip/02_CT_BNV.signed.pdf", sha256="cd" * 32, size=9, type="pdf",
        document=Document(code=DocumentField(value="02/CT-BNV")),
        signatures=(
            Signature(state=SignatureState.VALID, signer="Trần Thị Ánh", organisation="BỘ NỘI VỤ",
                      revision="ef" * 32, revision_length=5000),
        ),
    )  # fmt: skip
    found = {
        "road": case(number=1, subject="Chỉ thị", code="", files=(signed,), rules=("SG-01", "FM-03"),
                     texts={"": "kính gửi", "ho so.zip/02_CT_BNV.signed.pdf": "Thực hiện về đường bộ,\nhoà giải"}),
        "plain": case(number=2, subject="Duong bo", code="05/QĐ-UBND", to=("y@xa.gov.vn", "z@xa.gov.vn"),
                      texts={"": "duong bo khong dau; thua uy ban"}),
        "meeting": case(number=3, subject="Lịch họp", direction="in", code="114/CT-UBND",
                        texts={"": "đường bộ, giấy mời họp lúc 8 giờ, hòa giải, ủy ban"}),
        "title": case(number=4, subject="Về đường bộ cao tốc", code="14/CTr-UBND", state="delivered"),
        "split": case(number=5, subject="x", code="", texts={"a.txt": "bắt đầu một", "b.txt": "hai kết thúc"}),
        "long": case(number=6, subject="dài", code="Số: 7–KH/TU",
                     texts={"": " ".join(f"từ{n}" for n in range(30_000)) + " cuối cùng của văn bản"}),
    }  # fmt: skip
    out = {}
    for n, (name, one) in enumerate(found.items()):
        facts = one.inspection.message.model_copy(
            update={"from_": (Mailbox(name="Văn thư Sở Y tế", address="van.thu@so-yt.tinh.gov.vn"),)}
        ) if name == "plain" else one.inspection.message  # fmt: skip
        verdict = dataclasses.replace(one.verdict, agency="so-yt" if name == "plain" else "so-tttt")
        received = dataclasses.replace(one.received, at=DAY + dt.timedelta(days=n))
        inspection = one.inspection.model_copy(update={"message": facts})
        out[name] = dataclasses.replace(one, received=received, inspection=inspection, verdict=verdict)
    return out


#: Question, and the names of what it finds in its order.
QUESTIONS = [
    (dict(text="đường bộ"), ["title", "meeting", "road", "plain"]),  # accents first; among those the title
    (dict(text="duong bo"), ["plain", "title", "meeting", "road"]),
    (dict(text="ĐƯỜNG BỘ"), ["title", "meeting", "road", "plain"]),
    (dict(text=unicodedata.normalize("NFD", "đường bộ")), ["title", "meeting", "road", "plain"]),
    (dict(text="đường bộ", sort="newest"), ["title", "meeting", "plain", "road"]),
    (dict(text="đường bộ", sort="oldest"), ["road", "plain", "meeting", "title"]),
    (dict(text='"giấy mời họp"'), ["meeting"]),
    (dict(text="“giay moi hop”"), ["meeting"]),
    (dict(text='"mời giấy"'), []),
    (dict(text='"một hai"'), []),  # no phrase across two files
    (dict(text="một hai"), ["split"]),
    (dict(text="khong da*"), ["plain"]),
    (dict(text='"giấy mờ*"'), ["meeting"]),
    (dict(text="hòa giải"), ["meeting", "road"]),  # hoà and hòa are one word
    (dict(text="hoà giải"), ["meeting", "road"]),
    (dict(text="uỷ ban"), ["meeting", "plain"]),
    (dict(text='"cuối cùng của văn bản"'), ["long"]),
    (dict(text='"từ19999 từ20000"'), ["long"]),
    (dict(text='"' + " ".join(f"tu{n}" for n in range(950, 1020)) + '"'), ["long"]),
    (dict(text="từ29999"), ["long"]),
    (dict(text="Trần Ánh"), ["road"]),
    (dict(number="14 / ct-ubnd"), []),
    (dict(number="14/CTr-UBND"), ["title"]),
    (dict(number="14 / ctr - ubnd"), ["title"]),
    (dict(number="14"), ["title"]),  # the whole first part: not 114
    (dict(number="1*"), ["title", "meeting"]),
    (dict(number="14/CT"), []),
    (dict(number="114/ct"), ["meeting"]),
    (dict(number="05/qđ-ubnd"), ["plain"]),
    (dict(number="5/QD–UBND"), ["plain"]),  # any dash
    (dict(number="Số: 05／QĐ-UBND"), ["plain"]),
    (dict(number="CT-BNV"), ["road"]),  # the symbol alone, of a file inside
    (dict(number="02/CT-BNV"), ["road"]),
    (dict(number="7-KH/TU"), ["long"]),
    (dict(number="/"), []),
    (dict(sender="van.thu@so-yt.tinh.gov.vn"), ["plain"]),
    (dict(sender="văn thư sở y tế"), ["plain"]),
    (dict(sender="so-tttt.tinh.gov.vn"), ["long", "split", "title", "meeting", "plain", "road"]),
    (dict(sender="nobody@x"), []),
    (dict(recipient="Y@xa.gov.vn"), ["plain"]),
    (dict(agency="so-yt"), ["plain"]),
    (dict(agency=("so-yt", "nowhere")), ["plain"]),
    (dict(agency="ubnd"), ["long", "split", "title", "meeting", "plain", "road"]),  # that of a recipient
    (dict(direction="in"), ["meeting"]),
    (dict(file="02_CT_BNV.signed.pdf"), ["road"]),
    (dict(file="ct bnv pdf"), ["road"]),
    (dict(digest="CD" * 32), ["road"]),
    (dict(digest="cdcdcdcd"), ["road"]),
    (dict(digest="ef" * 32), ["road"]),  # of a signed revision
    (dict(rule="sg-01"), ["road"]),
    (dict(rule="SG-*"), ["road"]),
    (dict(rule="SG"), []),
    (dict(signer="trần thị ánh"), ["road"]),
    (dict(signer="lê văn đ", abstract='"văn bản điện tử"', text="hòa"), ["meeting", "road"]),
    (dict(issuing="bộ nội vụ"), ["road"]),
    (dict(kind="ct", verdict="deliver", message_class="official_doc", text="cao tốc"), ["title"]),
    (dict(since=int(DAY.timestamp() * 1000), until=int(DAY.timestamp() * 1000) + 1), ["road"]),
    (dict(sort="number", text="đường"), ["plain", "title", "meeting", "road"]),
    (dict(text='" OR NEAR( * : \' \\ %s'), []),
    (dict(text="' ); DROP TABLE x"), []),
]  # fmt: skip


def opened(url: str, folder) -> Archive:
    return Archive(db.Database.open(url), Store(folder / "blobs"), SETTINGS)


@pytest.fixture(params=["sqlite", "postgresql"])
def archive_url(request, tmp_path):
    if request.param == "sqlite":
        return db.sqlite_url(tmp_path / "gateway.db")
    url, _ = request.getfixturevalue("server")
    return url


def test_the_same_answers(archive_url, tmp_path):
    async def work():
        archive = opened(archive_url, tmp_path)
        made = messages()
        names = {one.received.case: name for name, one in made.items()}
        for one in made.values():
            await archive.commit(one)
        wrong = []
        for question, expected in QUESTIONS:
            page = await archive.search(Query(**question))
            found = [names[row["id"]] for row in page.rows]
            if found != expected or page.total != len(expected) or page.lag:
                wrong.append((question, found, page.total))
            if sorted(names[one] for one in archive.index.cases(Query(**question))) != sorted(expected):
                wrong.append((question, "cases"))
        assert not wrong, "\n".join(map(str, wrong))
        pages = [(await archive.search(Query(text="đường bộ", limit=1, offset=n))).rows[0]["id"] for n in range(4)]
        assert [names[one] for one in pages] == ["title", "meeting", "road", "plain"]
        (row,) = (await archive.search(Query(text="giay moi"))).rows
        assert row["snippet_from"] == "body" and "giấy mời họp" in row["snippet"]
        held = archive.index.holding(["cd" * 32, "ef" * 32, "00" * 32])
        assert [(value[:2], names[one], part and part.length) for value, one, part in held] == [
            ("cd", "road", None),
            ("ef", "road", 5000),
        ]
        archive.index.rebuild()
        assert names[(await archive.search(Query(text="đường bộ"))).rows[0]["id"]] == "title"
        assert archive.index.state()["messages"] == 6 and archive.index.state()["lag"] == 0
        await close(archive)

    asyncio.run(work())


def test_a_hundred_searches_after_the_index_was_lost(archive_url, tmp_path):
    draw = random.Random(3)
    words = tokens("công văn chỉ thị đường bộ hòa giải ủy ban báo cáo tháng giấy mời họp kế hoạch")

    async def work():
        archive = opened(archive_url, tmp_path)
        for n in range(60):
            text, title = " ".join(draw.choices(words, k=30)), " ".join(draw.sample(words, 2))
            at = DAY + dt.timedelta(minutes=draw.randrange(1000))
            await archive.commit(case(number=n, code=f"{n}/BC-UBND", subject=title, texts={"": text}, at=at))

        def some() -> Query:
            two = " ".join(draw.sample(words, draw.randrange(1, 3)))
            return Query(two, limit=draw.randrange(1, 60), offset=draw.randrange(5), sort=draw.choice(["", "newest"]))

        asked = [some() for _ in range(60)]
        asked += [Query(text='"' + " ".join(draw.sample(words, 2)) + '"') for _ in range(20)]
        asked += [Query(number=f"{n}*") for n in range(20)]

        async def answers():
            return [
                (page.total, [row["id"] for row in page.rows], [row.get("snippet") for row in page.rows])
                for page in [await archive.search(one) for one in asked]
            ]

        before = await answers()
        assert sum(total for total, _, _ in before) > 500
        if archive_url.startswith("sqlite"):
            for path in tmp_path.glob("index.db*"):  # while it is open
                path.unlink()
        else:
            await archive.database.write(
                lambda c: c.exec_driver_sql("DROP TABLE search_doc, search_state, search_text")
            )
        assert await answers() == before
        await close(archive)

    asyncio.run(work())


def test_the_index_never_locks_the_archive_and_trouble_with_it_is_told(tmp_path):
    async def work():
        archive = opened(db.sqlite_url(tmp_path / "gateway.db"), tmp_path)
        await archive.commit(case(number=1))
        await archive.search(Query(text="x"))
        index = archive.index
        with index._reading(), index._transaction():  # as while it is made again
            await archive.commit(case(number=2))
        assert index.state()["lag"] == 1
        assert (await archive.search(Query())).total == 2
        archive.index.close()
        for path in tmp_path.glob("index.db*"):
            path.unlink()
        (tmp_path / "index.db").mkdir()
        await archive.commit(case(number=3))  # archived all the same
        with pytest.raises(Failure) as caught:
            await archive.search(Query())
        assert caught.value.retryable and "index" in caught.value.private
        (tmp_path / "index.db").rmdir()
        assert (await archive.search(Query())).total == 3 and archive.index.problem == ""
        await close(archive)

    asyncio.run(work())


def test_an_index_damaged_inside_is_made_again_under_the_question(tmp_path):
    async def work():
        archive = opened(db.sqlite_url(tmp_path / "gateway.db"), tmp_path)
        for n in range(50):
            await archive.commit(case(number=n, texts={"": "nội dung " * 50}))
        before = [row["id"] for row in (await archive.search(Query(text="nội dung"))).rows]
        assert archive.index.check(10) == ""
        for damage, healed in (
            ("UPDATE words_data SET block = randomblob(40) WHERE id > 10", "question"),
            ("UPDATE words_data SET block = zeroblob(40) WHERE id > 10", "question"),  # words vanish without an error
            ("UPDATE accents_data SET block = zeroblob(40) WHERE id > 10", "check"),
            ("DELETE FROM search_doc WHERE id = 7", "check"),
            ("DELETE FROM words_data WHERE id > 10", "check"),
        ):
            archive.index.close()
            with sqlite3.connect(tmp_path / "index.db") as other:
                assert other.execute(damage).rowcount
            if healed == "check":
                assert archive.index.check(10, seed=1) != ""
            page = await archive.search(Query(text="nội dung"))
            assert (page.total, [row["id"] for row in page.rows]) == (50, before), damage
            assert archive.index.problem == ""
        await close(archive)

    asyncio.run(work())


def test_two_processes_index_together(tmp_path):
    """What one process indexed is not indexed again by another; a file made anew is noticed."""

    async def work():
        url = db.sqlite_url(tmp_path / "gateway.db")
        one, two = opened(url, tmp_path), opened(url, tmp_path)
        for n in range(5):
            await (one if n % 2 else two).commit(case(number=n))
            assert (await one.search(Query())).total == (await two.search(Query())).total == n + 1
        one.index.rebuild()
        assert (await two.search(Query(text="chi thi"))).total == 5
        with sqlite3.connect(tmp_path / "index.db") as other:
            assert other.execute("SELECT count(*) FROM search_doc").fetchone() == (5,)
        await close(one)
        await close(two)

    asyncio.run(work())


def test_words():
    assert accented("HOÀ Uỷ THUÝ") == "hòa ủy thúy" and bare("đường İ é ñ") == "duong i e n"
    assert terms('a-b "c d*" e* * ""') == [
        Term(("a", "b"), ("a", "b"), False),
        Term(("c", "d"), ("c", "d"), True),
        Term(("e",), ("e",), True),
    ]
    assert number_key("Số 014 / CT – UBND") == "14/CT-UBND" and number_key("So hieu: 7/x") == "7/X"
    where, text = snippet([("a", "x " * 200 + "Đường\nbộ " + "y " * 200)], terms('"duong bo"'))
    assert where == "a" and "Đường bộ" in text and text.startswith("…") and text.endswith("…") and len(text) < 220
    assert snippet([("a", "không")], terms("khong co")) == ("a", "không")
    assert snippet([("a", "xyz")], terms("gi")) == ("", "")


def test_old_mail_taken_in_is_dated_by_itself():
    row = dict.fromkeys(
        ("id", "document_code", "signer", "issuing_agency", "sender", "header_from", "login", "subject", "abstract",
         "direction", "document_kind", "verdict", "message_class", "sha256", "agency"), "",
    ) | {"received_at": 1_800_000_000_000, "size": 1, "texts": None}  # fmt: skip

    def at(kind: str, date: str) -> int:
        record = json.dumps({"inspection": {"message": {"date": date}}})
        return entry(0, {**row, "kind": kind, "record": record}, (), ()).at

    assert at("imported", "2015-03-03T08:00:00+07:00") == 1_425_344_400_000
    for date in ("", "nonsense", "2015-03-03", "1970-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"):
        assert at("imported", date) == row["received_at"]
    assert at("mail", "2015-03-03T08:00:00+07:00") == row["received_at"]
