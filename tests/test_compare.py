"""A file held against the archive: the same bytes, a revision of the same signed file, the number alone, nothing."""

from __future__ import annotations

import asyncio
import hashlib
import itertools

import pytest

from gateway import compare as comparing
from gateway.config import Budget
from gateway.inspection import examine
from gateway.inspection.findings import Document, DocumentField, FileFacts, Inspection
from tests import signed_files
from tests.cases import case, close, mail, open_archive
from tests.harness import PATIENCE


def facts(data: bytes, **changes) -> Inspection:
    found = examine.examine_file(data, "van-ban.pdf", examine.Settings(budget=Budget(**PATIENCE)))
    first = found.files[0].model_copy(update=changes)
    return found.model_copy(update={"files": (first, *found.files[1:])})


def document(code: str = "", issuer: str = "", date: str = "") -> Document:
    def value(text: str) -> DocumentField | None:
        return DocumentField(value=text) if text else None

    return Document(code=value(code), issuing_agency=value(issuer), date=value(date))


@pytest.fixture
def held(tmp_path):
    """`held(archived, given, facts of given)`: the answer for `given` when `archived` are files of messages."""

    count = itertools.count()

    def run(archived: list[tuple[bytes, dict]], given: bytes, given_facts: Inspection):
        async def work():
            archive = open_archive(tmp_path / str(next(count)))
            for n, (data, more) in enumerate(archived):
                file = facts(data).files[0].model_copy(update={"path": f"thu/{n}.pdf"})
                await archive.commit(case(number=n, files=(file,), **more))
            answer = await comparing.compare(archive, given, given_facts)
            await close(archive)
            return answer

        return asyncio.run(work())

    return run


def test_the_same_file_and_the_same_message(held):
    one = signed_files.one()
    answer = held([(one, {}), (one, {"to": ("khac@xa.gov.vn",)})], one, facts(one))
    assert answer.result == "same" and len(answer.matches) == 2
    first = answer.matches[0]
    assert first["file"] == "thu/0.pdf" and "revision" not in first
    assert (first["sender"], first["recipients"]) == ("van.thu@so-tttt.tinh.gov.vn", ["ubnd@tinh.gov.vn"])
    assert first["since"] == "2026-11-20T08:30:00.000+07:00"


def test_revisions_of_one_signed_file(held):
    """`many(n)` is signed n times, each signature behind the last one."""
    early, middle, late = (signed_files.many(n) for n in (1, 2, 3))
    for archived, given, common in (
        (middle, late, len(middle)),  # the archived file was signed once more
        (late, middle, len(middle)),  # the archived file is the later one
        (early, late, len(early)),
        (middle + b"\n% note\n", late, len(middle)),  # both went on after the second signature, apart
    ):
        answer = held([(archived, {})], given, facts(given))
        assert answer.result == "same-signed-revision", (len(archived), len(given))
        assert answer.matches[0]["revision"]["range"] == [0, common]
        assert answer.matches[0]["revision"]["sha256"] == hashlib.sha256(given[:common]).hexdigest()


def test_what_was_changed_inside_is_no_revision(held):
    late = signed_files.many(2)
    place = late.index(b"/ByteRange") - 200
    other = bytearray(late)
    other[place] ^= 1
    assert held([(late, {})], bytes(other), facts(bytes(other), document=None)).result == "not-found"


def test_the_number_with_other_content(held):
    archived, given = signed_files.one(), signed_files.plain()
    numbered = [(archived, {"code": "14/CT-UBND"})]

    def answer(*fields: str) -> comparing.Answer:
        return held(numbered, given, facts(given, document=document(*fields)))

    found = answer("14/CT-UBND", "UBND tỉnh", "2026-11-20")
    assert found.result == "other-content" and found.document_code == "14/CT-UBND"
    assert found.matches[0]["document_date"] == "2026-11-20"
    assert answer("14/CT-UBND").result == "other-content"
    assert answer("14/CT-UBND", "SỞ Y TẾ").result == "not-found"  # another agency's number
    assert answer("14/CT-UBND", "UBND TỈNH", "2025-11-20").result == "not-found"  # numbers begin anew each year
    assert answer("14/CT").result == "not-found"
    assert answer("").result == "not-found"


def test_a_copy_out_of_a_mailbox(held):
    """Servers put lines on top, file systems other line ends; a change inside is another message."""
    archived = mail(0)
    top = b"Return-Path: <a@b.vn>\r\nReceived: from x by y;\r\n\tnow\r\n"
    name = FileFacts(name="x.eml", path="x.eml", sha256="00" * 32, size=8, type="eml")

    def answer(given: bytes) -> comparing.Answer:
        return held([(signed_files.plain(), {"data": archived})], given, Inspection(files=(name,)))

    assert answer(archived).result == "same" and "below_header_bytes" not in answer(archived).matches[0]
    found = answer(top + archived)
    assert found.result == "same" and found.matches[0]["below_header_bytes"] == len(top)
    assert answer((top + archived).replace(b"\r\n", b"\n")).result == "same"
    assert answer(top + archived + b"x").result == "not-found"
    assert answer(archived.replace(b"Subject: ", b"Subject: x")).result == "not-found"


def test_nothing_is_known_of_the_file(held):
    data = b"not much"
    name = FileFacts(name="x", path="x", sha256="00" * 32, size=8, type="unknown")
    assert held([], data, Inspection(files=(name,))).result == "not-found"
    assert held([], data, Inspection()).result == "not-found"
