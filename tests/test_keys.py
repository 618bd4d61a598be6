"""The log's key replaced, lost, and the times a message carries."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from sqlalchemy import select

from gateway import clock
from gateway import database as db
from gateway import hashtree as ht
from gateway.audit import audit
from gateway.errors import Failure
from tests.cases import case, close, open_archive
from tests.outside import cv


async def grow(archive, numbers: itertools.count, count: int = 3) -> None:
    for _ in range(count):
        await archive.commit(case(number=next(numbers)))
    await archive.checkpoint()


def strangers(folder, key, capsys, *more: str) -> set[str]:
    capsys.readouterr()
    cv.main(["audit", "--json", "--key", str(key), *more, str(folder)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["kind"] for line in lines if "kind" in line}


def test_a_key_is_replaced_and_whoever_knows_the_old_one_follows(tmp_path, capsys):
    numbers = itertools.count(1)

    async def main() -> tuple[ht.Verifier, ht.Verifier]:
        archive = open_archive(tmp_path)
        await archive.start()
        await grow(archive, numbers)
        first = archive.log.newest_note()
        (tmp_path / "first.note").write_text(first)
        before = archive.log.verifier()
        old, new = await archive.rotate_key("Quản trị", "hằng năm")
        assert before == ht.Verifier.parse(old) and archive.log.verifier() == ht.Verifier.parse(new) != before
        assert not (tmp_path / "keys" / "log.next").exists()
        between = archive.log.newest_note()
        for key in (old, new):
            ht.open_note(between, ht.Verifier.parse(key))
        await grow(archive, numbers)
        note = archive.log.newest_note()
        with pytest.raises(ht.BadProof):
            ht.open_note(note, before)
        for key in (before, archive.log.verifier(), None):
            report = await asyncio.to_thread(audit, archive, key=key, known=[first, between, note])
            assert report.damage == [], key
        third = await archive.rotate_key("Quản trị", "lộ khóa")
        await grow(archive, numbers)
        assert (await asyncio.to_thread(audit, archive, key=before, known=[first])).damage == []
        await close(archive)
        return before, ht.Verifier.parse(third[1])

    before, last = asyncio.run(main())
    for key in (before, last):
        assert strangers(tmp_path, key, capsys, "--known", str(tmp_path / "first.note")) == set()
    stranger = ht.Signer(before.name, b"s" * 32).verifier
    assert "checkpoint_bad" in strangers(tmp_path, stranger, capsys)


def test_a_lost_key_is_said_and_a_new_one_begins_by_hand(tmp_path, capsys):
    numbers = itertools.count(1)

    async def main() -> tuple[str, str]:
        archive = open_archive(tmp_path)
        await archive.start()
        await grow(archive, numbers)
        (tmp_path / "keys" / "log.key").unlink()
        await archive.start()
        await archive.commit(case(number=next(numbers)))
        with pytest.raises(Failure) as caught:
            await archive.checkpoint()
        assert "log.key is lost" in caught.value.private
        with pytest.raises(Failure):
            await archive.rotate_key("Quản trị", "mất máy")
        old, new = await archive.rotate_key("Quản trị", "mất máy", lost=True)
        await grow(archive, numbers)
        assert (await asyncio.to_thread(audit, archive, key=ht.Verifier.parse(new))).damage == []
        report = await asyncio.to_thread(audit, archive, key=ht.Verifier.parse(old))
        assert {one.kind for one in report.damage} == {"checkpoint_bad"}, "nobody follows a key that did not sign"
        await close(archive)
        return old, new

    old, new = asyncio.run(main())
    assert strangers(tmp_path, new, capsys) == set()
    assert "checkpoint_bad" in strangers(tmp_path, old, capsys)


@pytest.mark.parametrize("stop", range(5))
def test_a_replacement_that_was_interrupted_goes_on(tmp_path, stop, monkeypatch):
    """Wherever it stops, the log can still be signed, and the second call ends it."""
    numbers = itertools.count(1)

    async def main() -> None:
        archive = open_archive(tmp_path)
        await archive.start()
        await grow(archive, numbers)
        old = archive.log.verifier()
        steps = itertools.count()
        from gateway import durable

        real = durable.replace

        def broken(path, data, mode=0o640):
            if path.parent.name == "keys" and next(steps) == stop:
                raise OSError("the disk went away")
            real(path, data, mode)

        monkeypatch.setattr(durable, "replace", broken)
        try:
            await archive.rotate_key("Quản trị", "thử")
        except (Failure, OSError):
            monkeypatch.setattr(durable, "replace", real)
            await grow(archive, numbers)
            await archive.rotate_key("Quản trị", "thử")
        monkeypatch.setattr(durable, "replace", real)
        await grow(archive, numbers)
        assert archive.log.verifier() != old and not (tmp_path / "keys" / "log.next").exists()
        assert (await asyncio.to_thread(audit, archive, key=old)).damage == []
        await close(archive)

    asyncio.run(main())


def test_three_times_each_named_for_what_it_is(tmp_path):
    assert clock.state()["synchronised"] in (True, False, None)

    async def main() -> None:
        archive = open_archive(tmp_path)
        one = case(number=1)
        said = one.inspection.message.model_copy(
            update={"date": "Fri, 20 Nov 2026 08:00:00 +0700", "first_received_at": "2026-11-20T08:00:05+07:00"}
        )
        import dataclasses

        await archive.commit(dataclasses.replace(one, inspection=one.inspection.model_copy(update={"message": said})))
        entry = await archive.database.read(lambda c: c.execute(select(db.leaf.c.entry)).scalar_one())
        told = json.loads(entry)
        assert told["times"] == {
            "clock_synchronised": clock.state()["synchronised"],
            "first_received": "2026-11-20T08:00:05+07:00",
            "date_field": "Fri, 20 Nov 2026 08:00:00 +0700",
        }
        await close(archive)

    asyncio.run(main())
