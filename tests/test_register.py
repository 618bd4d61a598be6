"""Registers: what comes into them, once; what people change; and that they can be made again."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import random

import pytest
from sqlalchemy import select

from gateway import database as db
from gateway import register, registrar
from gateway.archive import Archive, Count
from gateway.config import Registers
from gateway.numbers import Series, Taken
from gateway.queue import Queue
from gateway.registrar import Wrong
from gateway.store import Store
from tests.books import ALLOCATE, follow, message, opened, paper, row, rows
from tests.cases import AT, SETTINGS, close
from tests.test_postgresql import server  # noqa: F401


def run(folder, work, settings=ALLOCATE):
    async def whole():
        archive = opened(folder, settings)
        try:
            return await work(archive)
        finally:
            await close(archive)

    return asyncio.run(whole())


def ids(found):
    return [(one["agency"], one["direction"], one["number"], one["document_code"]) for one in found]


def test_out_of_one_agency_and_into_another(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper(), urgency="khan"))
        found = await rows(archive)
        assert ids(found) == [("snv", "out", 15, "15/TB-SNV"), ("ubnd", "in", 1, "15/TB-SNV")]
        coming = found[1]
        assert coming["arrival_date"] == "2026-11-20" and coming["arrival_number"] == "1"
        assert coming["incoming_document_no"] == "1" and coming["sent_from"] == "vanthu@snv.tinh.gov.vn"
        assert coming["code_number"] == "15" and coming["code_notation"] == "TB-SNV"
        assert coming["type_name"] == "Thông báo" and coming["priority"] == "1" and coming["page_amount"] == "2"
        assert coming["fields"]["abstract"] == {
            "value": "Về việc sử dụng văn bản điện tử",
            "source": "text",
            "confidence": 0.98,
        }
        assert coming["status"] == "03" and coming["flags"] == []
        assert found[0]["sent_to"] == "vanthu@ubnd.tinh.gov.vn" and found[0]["copy_holder"] == "VT"
        assert found[0]["flags"] == ["not_ours"]  # nobody asked the gateway for this number

    run(tmp_path, work)


def test_one_document_to_many_mailboxes_is_one_entry(tmp_path):
    many = {f"phong{n}@ubnd.tinh.gov.vn": "ubnd" for n in range(3)} | {"vanthu@stc.tinh.gov.vn": "stc"}

    async def work(archive):
        await archive.commit(message(1, paper(), to=many))
        await archive.commit(message(2, paper(), to={"chanhvp@ubnd.tinh.gov.vn": "ubnd"}))  # again, by another message
        found = await rows(archive, direction="in")
        assert ids(found) == [("stc", "in", 1, "15/TB-SNV"), ("ubnd", "in", 1, "15/TB-SNV")]
        assert len(found[1]["cases"]) == 2
        assert found[1]["mailboxes"].split("; ") == [*list(many)[:3], "chanhvp@ubnd.tinh.gov.vn"]
        assert len(await rows(archive, agency="snv")) == 1

    run(tmp_path, work)


@pytest.mark.peer
def test_the_same_on_postgresql(tmp_path, server):  # noqa: F811
    url, _ = server
    messages = [
        message(1, paper("14/TB-SNV"), to={"a@ubnd.tinh.gov.vn": "ubnd", "b@stc.tinh.gov.vn": "stc"}),
        message(2, paper("15/TB-SNV", cites=("14/TB-SNV",), abstract="Thu hồi Thông báo số 14/TB-SNV", recall=True)),
        message(3, paper("15/TB-SNV", content="khác")),
        message(4, paper("16/TB-SNV"), state="held"),
    ]

    async def work(archive):
        for one in messages:
            await archive.commit(one)
        (key,) = [one["id"] for one in await rows(archive, agency="ubnd", code="14/tb")]
        await archive.database.write(
            lambda c: registrar.correct(c, key, {"abstract": "Mới"}, who="Văn thư", reason="", settings=ALLOCATE)
        )
        found = await rows(archive)
        assert [one["id"] for one in await rows(archive, text="moi")] == [key]
        assert (await row(archive, key))["links"] != []
        before = await archive.database.read(registrar.digest)
        await registrar.rebuild(archive.database, ALLOCATE)
        assert await archive.database.read(registrar.digest) == before
        assert await archive.database.read(lambda c: registrar.check(c, ALLOCATE)) == []
        return [(one["id"], one["number"], one["flags"], one["abstract"]) for one in found]

    async def on_postgresql():
        archive = follow(Archive(db.Database.open(url), Store(tmp_path / "blobs"), SETTINGS))
        try:
            return await work(archive)
        finally:
            await close(archive)

    assert asyncio.run(on_postgresql()) == run(tmp_path / "sqlite", work)


def test_what_no_register_takes(tmp_path):
    async def work(archive):
        for number, other in enumerate(["DRAFT", "COMMENT", "CITIZEN_MAIL", "WORK_MAIL", "SYSTEM"]):
            await archive.commit(message(number, paper(), message_class=other))
        assert await rows(archive) == []

    run(tmp_path, work)


def test_comments_where_the_settings_say_so(tmp_path):
    settings = Registers.model_validate({"also": ["COMMENT"]})

    async def work(archive):
        await archive.commit(message(1, paper(), message_class="COMMENT"))
        assert len(await rows(archive, settings)) == 2

    run(tmp_path, work, settings)


def test_a_draft_and_a_picture_are_no_documents_of_other_classes(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper(draft=True), message_class="REPORT"))
        picture = paper().model_copy(update={"type": "jpg", "document": None})
        await archive.commit(message(2, picture, message_class="INVITATION"))
        assert await rows(archive) == []
        await archive.commit(message(3, paper(), message_class="REPORT"))
        assert len(await rows(archive)) == 2

    run(tmp_path, work)


def test_two_documents_in_one_message_and_what_a_dossier_is_about(tmp_path):
    two = (
        paper("15/TB-SNV"),
        paper("16/QĐ-SNV"),
        paper("9/QĐ-UBND", issuer="UBND tỉnh"),
        paper("3/KH-SNV", draft=True),
    )

    async def work(archive):
        await archive.commit(message(1, *two))
        assert [one["document_code"] for one in await rows(archive, direction="in")] == ["15/TB-SNV", "16/QĐ-SNV"]
        await archive.commit(message(2, paper("17/TTr-SNV"), paper("18/QĐ-SNV"), message_class="DOSSIER"))
        assert len(await rows(archive, direction="in")) == 3

    run(tmp_path, work)


def test_returned_never_and_held_when_it_is_released(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper(), state="refused"))
        await archive.commit(message(2, paper("16/TB-SNV"), state="returned"))
        receipt = await archive.commit(message(3, paper("17/TB-SNV"), state="held"))
        assert await rows(archive) == []
        settings = SETTINGS.model_copy(update={"registers": ALLOCATE})
        queue = Queue(archive.database, archive.store, settings)
        await queue.release(receipt.case, "Văn thư", "đúng mẫu")
        assert [one["document_code"] for one in await rows(archive)] == ["17/TB-SNV", "17/TB-SNV"]
        assert (await rows(archive, direction="in"))[0]["number"] == 1

    run(tmp_path, work)


def test_a_message_seen_in_the_mailbox_of_another_agency(tmp_path):
    async def work(archive):
        receipt = await archive.commit(message(1, paper()))
        seen = Count("k", "received", "stc", "in")
        await archive.see(receipt.case, [seen], AT, None)
        assert [one["agency"] for one in await rows(archive, direction="in")] == ["stc", "ubnd"]
        before = await archive.database.read(registrar.digest)
        await registrar.rebuild(archive.database, ALLOCATE)
        assert await archive.database.read(registrar.digest) == before

    run(tmp_path, work)


def test_a_document_of_december_sent_in_january_has_a_number_of_december(tmp_path):
    async def work(archive):
        at = dt.datetime(2027, 1, 2, 8, tzinfo=AT.tzinfo)
        await archive.commit(message(1, paper(date="2026-12-31"), at=at))
        assert [(one["direction"], one["year"]) for one in await rows(archive)] == [("out", 2026), ("in", 2027)]

    run(tmp_path, work)


def test_same_number_with_other_content_is_flagged_on_both(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper(content="một")))
        await archive.commit(message(2, paper(content="hai", abstract="Về việc khác")))
        await archive.commit(message(3, paper(content="ba", issuer="Sở Tài chính")))  # another agency's 15/TB-SNV
        await archive.commit(message(4, paper(content="bốn", date="2025-11-20")))  # the number of another year
        flags = {one["abstract"] + one["issuing_agency"] + one["issued_date"]: one["flags"]
                 for one in await rows(archive, agency="ubnd")}  # fmt: skip
        assert flags["Về việc khácSở Nội vụ2026-11-20"] == ["same_number"]
        assert sorted(flags.values()) == [[], [], ["same_number"], ["same_number"]]
        assert len(await rows(archive, agency="ubnd", flag="same_number")) == 2

    run(tmp_path, work)


SAYINGS = [
    ("Trả lời Công văn số 12/STC-NS ngày 01/11/2026 của Sở Tài chính, Sở Nội vụ có ý kiến", "reply"),
    ("Phúc đáp Công văn số 12 / STC-NS, đơn vị báo cáo như sau", "reply"),
    ("Thông báo này thay thế Thông báo số 12/STC-NS.", "replace"),
    ("V/v đính chính văn bản số 12/STC-NS ngày 01/11/2026", "correct"),
    ("Sửa đổi, bổ sung một số điều của Quyết định số 12/STC-NS", "amend"),
    ("Thu hồi Công văn số 12/STC-NS", "recall"),
    ("Thu hồi đất. Căn cứ Công văn số 12/STC-NS ngày 1/11/2026", "cite"),
    ("Căn cứ Công văn số 12/STC-NS; trả lời sau", "cite"),
    ("Căn cứ Nghị định số 92/2017/NĐ-CP sửa đổi, bổ sung một số điều của Quyết định số 12/STC-NS;", "cite"),
    ("Theo đề nghị của Giám đốc Sở Tài chính tại Tờ trình số 12/STC-NS ngày 01/11/2026", "reply"),
]


def test_what_a_document_says_of_another(tmp_path):
    async def work(archive):
        for n, (text, kind) in enumerate(SAYINGS, 1):
            old, new = f"{n}12/STC-NS", f"{n}15/TB-SNV"
            there = {"a@snv.tinh.gov.vn": "snv"}
            await archive.commit(message(n, paper(old, issuer="Sở Tài chính"), to=there, agency="stc"))
            one = message(100 + n, paper(new, cites=(old,)), to={"a@stc.tinh.gov.vn": "stc"})
            texts = {f"{n}15-TB-SNV.pdf": text.replace("12", f"{n}12", 1)}
            inspection = one.inspection.model_copy(update={"texts": texts})
            await archive.commit(dataclasses.replace(one, inspection=inspection))
            (went,) = await rows(archive, agency="snv", direction="out", code=new)
            (came,) = await rows(archive, agency="snv", direction="in", code=old)
            (link,) = (await row(archive, went["id"]))["links"]
            assert (link["kind"], link["way"], link["entries"]) == (kind, "to", [came["id"]]), text
            (back,) = (await row(archive, came["id"]))["links"]
            assert (back["kind"], back["way"], back["entries"]) == (kind, "from", [went["id"]]), text

    run(tmp_path, work)


def test_a_reply_by_its_header_also_when_it_is_there_first(tmp_path):
    async def work(archive):
        back = {"a@snv.tinh.gov.vn": "snv"}
        answer = message(2, paper("7/STC-NS", issuer="Sở Tài chính"), to=back, agency="stc",
                         in_reply_to="<1@tinh.gov.vn>")  # fmt: skip
        await archive.commit(answer)
        (came,) = await rows(archive, agency="snv", direction="in")
        assert (await row(archive, came["id"]))["links"] == []
        await archive.commit(message(1, paper(), to={"a@stc.tinh.gov.vn": "stc"}))
        (went,) = await rows(archive, agency="snv", direction="out")
        (link,) = (await row(archive, came["id"]))["links"]
        assert (link["kind"], link["entries"], link["source"]) == ("reply", [went["id"]], "header")

    run(tmp_path, work)


def test_recalled_by_its_own_agency_only(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper("12/TB-SNV")))
        await archive.commit(message(2, paper("13/TB-SNV")))
        await archive.commit(message(3, paper("20/TB-SNV", recall=True, cites=("12/TB-SNV",))))
        await archive.commit(message(4, paper("5/TB-STC", issuer="Sở Tài chính", recall=True, cites=("13/TB-SNV",))))
        flags = {one["document_code"]: one["flags"] for one in await rows(archive, agency="ubnd")}
        assert flags["12/TB-SNV"] == ["recalled"] and flags["13/TB-SNV"] == []
        (key,) = [one["id"] for one in await rows(archive, agency="ubnd", code="20/TB-SNV")]
        await archive.database.write(
            lambda c: registrar.link(c, key, "recall", "12/TB-SNV", who="Văn thư", remove=True)
        )
        assert await rows(archive, flag="recalled", agency="ubnd") == []

    run(tmp_path, work)


def test_correction_keeps_the_old_value_who_and_when(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper()))
        (one,) = await rows(archive, agency="ubnd")

        def correct(values, who="Văn thư"):
            def write(c):
                return registrar.correct(c, one["id"], values, who=who, reason="gõ lại", settings=ALLOCATE)

            return archive.database.write(write)

        assert await correct({"abstract": "Về  việc  mới", "issued_date": "21/11/2026"}) == ["abstract", "issued_date"]
        assert await correct({"abstract": "Về việc mới"}) == []
        await correct({"document_code": "16/QĐ-SNV"}, "Văn thư khác")
        now = await row(archive, one["id"])
        assert (now["abstract"], now["issued_date"], now["code_number"]) == ("Về việc mới", "2026-11-21", "16")
        assert now["fields"]["abstract"]["source"] == "clerk"
        assert [(c["field"], c["old"], c["new"], c["who"]) for c in now["history"]] == [
            ("abstract", "Về việc sử dụng văn bản điện tử", "Về việc mới", "Văn thư"),
            ("issued_date", "2026-11-20", "2026-11-21", "Văn thư"),
            ("document_code", "15/TB-SNV", "16/QĐ-SNV", "Văn thư khác"),
        ]
        assert now["history"][0]["at"].endswith("+07:00")
        assert [x["id"] for x in await rows(archive, code="16/qđ")] == [one["id"]]
        assert [x["id"] for x in await rows(archive, agency="ubnd", text="viec moi")] == [one["id"]]
        # A correction is a leaf of the tree, without its words.
        leaves = await archive.database.read(
            lambda c: c.execute(select(db.leaf.c.entry).where(db.leaf.c.type == "register")).scalars().all()
        )
        assert len([x for x in leaves if b'"field":"abstract"' in x]) == 1
        assert not any("Về việc mới".encode() in x for x in leaves)
        # The same after everything was made again.
        before = await row(archive, one["id"])
        await registrar.rebuild(archive.database, ALLOCATE)
        assert await row(archive, one["id"]) == before
        assert await archive.database.read(lambda c: registrar.check(c, ALLOCATE)) == []

        # A hand at the database shows.
        def harm(c, statement):
            c.exec_driver_sql(statement)

        for statement, told in (
            ("UPDATE register_change SET new = 'khác' WHERE field = 'abstract'", "change"),
            ("DELETE FROM register_change WHERE field = 'issued_date'", "change is missing"),
            ("UPDATE register_number SET entry = 'X'", "number 1 of in/2026 was changed"),
        ):
            await archive.database.write(lambda c, statement=statement: harm(c, statement))
            found = await archive.database.read(lambda c: registrar.check(c, ALLOCATE))
            assert any(told in what for _, what in found), found

    run(tmp_path, work)


REFUSED = [
    {"abstrct": "x"},
    {"issued_date": "31/02/2026"},
    {"abstract": "x" * 501},
    {"arrival_number": "5"},
    {"priority": "9"},
    {"page_amount": "hai"},
    {"sent_to": "x"},  # of the outgoing register
    {"abstract": "TỐI MẬT: Về việc bố trí"},
]


def test_corrections_that_are_refused(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper()))
        (one,) = await rows(archive, agency="ubnd")
        for values in REFUSED:
            with pytest.raises(Wrong):
                await archive.database.write(
                    lambda c, values=values: registrar.correct(
                        c, one["id"], values, who="x", reason="", settings=ALLOCATE
                    )
                )
        assert (await row(archive, one["id"]))["history"] == []

    run(tmp_path, work)


def test_links_by_hand(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper("12/TB-SNV")))
        await archive.commit(message(2, paper("13/TB-SNV")))
        first, second = await rows(archive, agency="ubnd")

        def link(*words, **more):
            return archive.database.write(lambda c: registrar.link(c, *words, who="Văn thư", **more))

        await link(second["id"], "reply", first["id"])
        assert [x["entries"] for x in (await row(archive, first["id"]))["links"]] == [[second["id"]]]
        await link(second["id"], "replace", "99/TB-SNV")
        assert {x["kind"] for x in (await row(archive, second["id"]))["links"]} == {"reply", "replace"}
        await link(second["id"], "reply", first["id"], remove=True)
        assert (await row(archive, first["id"]))["links"] == []
        for words in ((second["id"], "answers", first["id"]), (second["id"], "reply", second["id"])):
            with pytest.raises(Wrong):
                await link(*words)
        with pytest.raises(register.NoEntry):
            await link(second["id"], "reply", "KHONGCO000")

    run(tmp_path, work)


def test_compared_is_recorded(tmp_path):
    async def work(archive):
        await archive.commit(message(1, paper()))
        (one,) = await rows(archive, agency="ubnd")
        for sha256, said in (("0" * 64, "differ"), (paper().sha256, "match")):
            found = await archive.database.read(lambda c, s=sha256: registrar.compare_file(c, one["id"], s))
            assert found == said
            await archive.database.write(
                lambda c, s=said: registrar.compared(c, one["id"], s, who="Văn thư", reason="bản giấy")
            )
        now = await row(archive, one["id"])
        assert now["compared"] == "match" and [c["new"] for c in now["history"]] == ["differ", "match"]
        assert await archive.database.read(lambda c: registrar.with_file(c, paper().sha256)) == sorted(
            x["id"] for x in await rows(archive)
        )

    run(tmp_path, work)


def test_made_again_from_an_archive_without_registers(tmp_path):
    """Whatever order messages came in and however often they are looked at, the registers are the same."""
    chance = random.Random(5)

    def batch():
        made = []
        for n in range(25):
            to = {f"m{k}@{a}.vn": a for k, a in enumerate(chance.sample(["ubnd", "stc", "sct", "snv"], 2))}
            code = f"{chance.randint(1, 10)}/TB-SNV"
            cites = (f"{chance.randint(1, 10)}/TB-SNV",)
            file = paper(code, content=str(chance.randint(0, 1)), cites=cites, recall=chance.random() < 0.1)
            state = chance.choice(["queued", "queued", "queued", "held", "refused"])
            made.append(message(n, file, to=to, state=state, at=AT + dt.timedelta(hours=n)))
        return made

    messages = batch()
    propose = Registers()

    async def fill(archive):
        for one in messages:
            await archive.commit(one)
        return await archive.database.read(registrar.digest)

    before = run(tmp_path / "a", fill, propose)
    assert before[0] > 20

    async def old(archive):
        archive.follower = None
        for one in messages:
            await archive.commit(one)
        assert (await archive.database.read(registrar.digest))[0] == 0
        await registrar.rebuild(archive.database, propose, everything=False)
        made = await archive.database.read(registrar.digest)
        await registrar.rebuild(archive.database, propose)
        assert await archive.database.read(registrar.digest) == made
        assert await archive.database.read(lambda c: registrar.check(c, propose)) == []
        return made

    assert run(tmp_path / "b", old, propose) == before

    async def damaged(archive):
        def harm(c):
            c.exec_driver_sql("UPDATE register_entry SET fields = '{}' WHERE direction = 'in'")
            c.exec_driver_sql("DELETE FROM register_link")
            c.exec_driver_sql("INSERT INTO register_source SELECT e.id, m.id, '', '' FROM register_entry e, message m "
                              "WHERE e.direction = 'out' ON CONFLICT DO NOTHING")  # fmt: skip

        await archive.database.write(harm)
        assert await archive.database.read(lambda c: registrar.check(c, propose))
        await registrar.rebuild(archive.database, propose)
        return await archive.database.read(registrar.digest)

    assert run(tmp_path / "a", damaged, propose) == before


def test_a_register_outlives_its_documents(tmp_path):
    async def work(archive):
        gone = await archive.commit(message(1, paper()))
        await archive.commit(message(2, paper("16/TB-SNV")))
        before = await archive.database.read(registrar.digest)

        def destroy(c):
            db.insert(c, db.disposal, [{"id": "X", "at": 0, "who": "a", "reason": "hết hạn", "state": "done"}])
            db.insert(c, db.destroyed, [{"message": gone.case, "disposal": "X", "at": 0}])
            c.execute(db.message.update().where(db.message.c.id == gone.case).values(record="{}", header_from=""))
            c.execute(db.attachment.delete().where(db.attachment.c.message == gone.case))

        await archive.database.write(destroy)
        assert await archive.database.read(lambda c: registrar.check(c, ALLOCATE)) == []
        await registrar.rebuild(archive.database, ALLOCATE)
        assert await archive.database.read(registrar.digest) == before
        await archive.commit(message(3, paper()))  # the same document once more
        found = [one for one in await rows(archive, agency="ubnd") if one["document_code"] == "15/TB-SNV"]
        assert [(one["abstract"], len(one["cases"])) for one in found] == [("Về việc sử dụng văn bản điện tử", 2)]

    run(tmp_path, work)


def test_trouble_with_a_register_keeps_no_message_out(tmp_path, monkeypatch):
    class Quiet:
        told = 0

        def exception(self, *_, **__):
            Quiet.told += 1

    async def work(archive):
        archive.follower = register.Follower(ALLOCATE, Quiet())
        monkeypatch.setattr(register, "_links", lambda *_: 1 / 0)
        receipt = await archive.commit(message(1, paper()))
        assert await archive.row(receipt.case) is not None and Quiet.told == 1
        assert await rows(archive) == []
        monkeypatch.undo()
        await registrar.rebuild(archive.database, ALLOCATE, everything=False)
        assert len(await rows(archive)) == 2

    run(tmp_path, work)


def test_paper_and_mail_in_one_series(tmp_path):
    async def work(archive):
        def add(direction="in", number=None, notation="", **values):
            return archive.database.write(
                lambda c: registrar.add_paper(
                    c, "ubnd", direction, values, who="Văn thư", settings=ALLOCATE, number=number, notation=notation
                )
            )

        await archive.commit(message(1, paper()))
        key = await add(abstract="Đơn đề nghị", arrival_date="20/11/2026", issuing_agency="Công ty Mẫu")
        await archive.commit(message(2, paper("16/TB-SNV")))
        assert [(x["number"], x["origin"]) for x in await rows(archive, agency="ubnd")] == [
            (1, "mail"),
            (2, "paper"),
            (3, "mail"),
        ]
        out = await add("out", abstract="Về việc", issued_date="20/11/2026", document_kind="TB", notation="TB-UBND")
        assert (await row(archive, out))["document_code"] == "01/TB-UBND"
        with pytest.raises(Taken):
            await add("out", abstract="x", issued_date="20/11/2026", document_kind="TB", document_code="01/TB-UBND")
        for values in (
            {"abstract": "x"},
            {"arrival_date": "2026-11-20"},
            {"abstract": "MẬT", "arrival_date": "2026-11-20"},
        ):
            with pytest.raises(Wrong):
                await add(**values)
        assert len(await rows(archive, agency="ubnd", direction="in")) == 3
        before = await archive.database.read(registrar.digest)
        await registrar.rebuild(archive.database, ALLOCATE)
        assert await archive.database.read(registrar.digest) == before
        assert (await row(archive, key))["abstract"] == "Đơn đề nghị"

    run(tmp_path, work)


def test_a_number_that_was_given_beforehand_meets_its_document(tmp_path):
    async def work(archive):
        series = Series("snv", 2026, "TB")

        def give():
            fields = {"document_kind": "TB", "abstract": "Về việc thử", "file_code": "HS-01"}
            return archive.database.write(
                lambda c: registrar.allocate(c, series, notation="TB-SNV", fields=fields, who="Văn thư")
            )

        assert await give() == (1, "01/TB-SNV")
        assert await give() == (2, "02/TB-SNV")
        assert [(x["number"], x["state"]) for x in await rows(archive)] == [(1, "allocated"), (2, "allocated")]
        await archive.commit(message(1, paper("01/TB-SNV")))
        await archive.database.write(lambda c: registrar.cancel(c, series, 2, who="Văn thư", reason="gõ nhầm"))
        found = await rows(archive, direction="out")
        assert [(x["number"], x["state"], x["flags"]) for x in found] == [(1, "registered", []), (2, "cancelled", [])]
        assert found[0]["file_code"] == "HS-01" and found[0]["abstract"] == "Về việc sử dụng văn bản điện tử"
        assert found[1]["description"] == "SỐ HỦY: gõ nhầm"
        assert await give() == (3, "03/TB-SNV")
        # A comment has no entry, but this one took a number; the kind was misread, and the number is its own still.
        comment = paper("03/TB-SNV")
        misread = comment.document.model_copy(update={"kind": comment.document.kind.model_copy(update={"value": "CV"})})
        await archive.commit(message(7, comment.model_copy(update={"document": misread}), message_class="COMMENT"))
        found = {x["document_code"]: x for x in await rows(archive, direction="out")}
        one = found["03/TB-SNV"]
        assert (one["state"], one["number"], one["series"], one["flags"]) == ("registered", 3, "TB", [])
        await archive.database.write(lambda c: registrar.reserve(c, series, 20, 22, who="x", reason="giấy"))
        await archive.commit(message(8, paper("")))
        # A document without a number is nobody's reserved one; the comment came to nobody's register.
        assert [x["number"] for x in await rows(archive, direction="out")].count(None) == 1
        assert [x["document_code"] for x in await rows(archive, direction="in")] == ["01/TB-SNV", ""]
        await archive.commit(message(2, paper("04/TB-SNV")))  # without asking
        assert await give() == (5, "05/TB-SNV")

    run(tmp_path, work)


def test_proposed_until_a_person_confirms(tmp_path):
    settings = Registers()

    async def work(archive):
        for n in (1, 2, 3):
            await archive.commit(message(n, paper(f"{n}/TB-SNV")))
        found = await rows(archive, settings, agency="ubnd")
        assert [(x["number"], x["status"]) for x in found] == [(None, "")] * 3  # on their way

        def settle(state):
            states = db.recipient.update().values(state=state)
            return archive.database.write(lambda c: c.execute(states).rowcount)

        await settle("failed")
        assert {tuple(x["flags"]) for x in await rows(archive, settings, agency="ubnd")} == {("undelivered",)}
        await settle("delivered")
        found = await rows(archive, settings, agency="ubnd")
        assert [(x["number"], x["status"], x["flags"]) for x in found] == [(None, "01", [])] * 3
        key = {x["document_code"]: x["id"] for x in found}

        def confirm(code, wanted=None):
            return archive.database.write(lambda c: registrar.confirm_number(c, key[code], wanted, who="Văn thư"))

        assert await confirm("2/TB-SNV") == 1
        assert await confirm("2/TB-SNV") == 1  # again
        with pytest.raises(Taken):
            await confirm("1/TB-SNV", 1)
        assert await confirm("1/TB-SNV", 3) == 3
        assert await confirm("3/TB-SNV") == 2
        assert [x["number"] for x in await rows(archive, settings, agency="ubnd")] == [1, 2, 3]
        assert await rows(archive, settings, agency="ubnd", flag="unnumbered") == []
        series = Series("ubnd", 2026, "in")
        await archive.database.write(lambda c: registrar.cancel(c, series, 3, who="Văn thư", reason="nhầm"))
        assert await confirm("1/TB-SNV") == 4

    run(tmp_path, work, settings)
