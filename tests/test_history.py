"""What archive and directory know of the past: numbers used twice, recalled documents, meetings and calendars."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import hashlib
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway import directory, policy, rules
from gateway.archive import Archive, known_documents
from gateway.classify import KnownDocument
from gateway.errors import ConfigError
from gateway.inspection.findings import (
    Document,
    DocumentField,
    FileFacts,
    Inspection,
    Mailbox,
    MessageFacts,
    SenderFacts,
    Signature,
    SignatureState,
)
from gateway.message import VIETNAM, Origin
from tests import cases

ISSUER = "UBND TỈNH"


def paper(content: str, code: str = "14/CT-UBND", kind: str = "pdf", cites: tuple[str, ...] = ()) -> FileFacts:
    document = Document(code=DocumentField(value=code), issuing_agency=DocumentField(value=ISSUER), cites=cites)
    return FileFacts(
        name=f"a.{kind}",
        path=f"a.{kind}",
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        size=9,
        type=kind,
        document=document,
    )


def put(
    archive: Archive, number: int, *files: FileFacts, recall: bool = False, state: str = "queued", **about: str
) -> str:
    case = cases.case(number=number, files=files, code=files[0].document.code.value, state=state, **about)
    document = case.verdict.document.model_copy(
        update={"recall": recall, "cites": files[0].document.cites if recall else ()}
    )
    case = dataclasses.replace(case, verdict=dataclasses.replace(case.verdict, document=document))
    return asyncio.run(archive.commit(case)).case


def known(archive: Archive, *files: FileFacts) -> tuple[KnownDocument, ...]:
    with archive.database.engine.connect() as connection:
        return known_documents(connection, Inspection(files=files))


@pytest.fixture
def archive(tmp_path: Path):
    made = cases.open_archive(tmp_path)
    yield made
    asyncio.run(cases.close(made))


def test_a_number_used_before_is_found_in_any_spelling(archive: Archive) -> None:
    first = put(archive, 1, paper("một"))
    (found,) = known(archive, paper("hai", "14 /ct-ubnd"))
    assert (found.case, found.recalled) == (first, False)
    assert found.content == paper("một").sha256
    assert known(archive, paper("hai", "15/CT-UBND")) == ()
    assert known(archive, FileFacts(name="x", path="x", sha256="0" * 64, size=1, type="pdf")) == ()


def test_the_same_file_and_its_editable_copy_are_no_other_content(archive: Archive) -> None:
    put(archive, 1, paper("một"), paper("phụ lục", "2/PL"))
    assert [one.content for one in known(archive, paper("một"))] == [paper("một").sha256]
    assert known(archive, paper("bản sửa được", kind="docx")) == ()


def test_one_more_signature_makes_no_other_document(archive: Archive) -> None:
    def signed(content: str, *revisions: str) -> FileFacts:
        state = SignatureState.VALID
        return paper(content).model_copy(
            update={"signatures": tuple(Signature(state=state, revision=one) for one in revisions)}
        )

    put(archive, 1, signed("hai chữ ký", "a" * 64, "b" * 64))
    for again, same in (
        (signed("ba chữ ký", "a" * 64, "b" * 64, "c" * 64), True),
        (signed("một chữ ký", "a" * 64), True),
        (signed("khác", "d" * 64), False),
        (paper("không ký"), False),
    ):
        (found,) = known(archive, again)
        assert rules._one_document(found, again) is same, again.signatures
    (found,) = known(archive, signed("hai chữ ký", "a" * 64, "b" * 64))
    assert rules._one_document(found, paper("hai chữ ký"))


def test_what_was_returned_may_be_sent_again_mended(archive: Archive) -> None:
    put(archive, 1, paper("chưa ký"), state="refused")
    put(archive, 2, paper("chưa ký"), state="returned")
    assert known(archive, paper("đã ký")) == ()


def test_a_recall_counts_from_then_on(archive: Archive) -> None:
    put(archive, 1, paper("một"))
    put(archive, 2, paper("thu hồi", "20/TB-UBND", cites=("14/CT-UBND", "9/KH-UBND")), recall=True)
    assert [one.recalled for one in known(archive, paper("một"))] == [True]
    (unseen,) = known(archive, paper("kế hoạch", "9/KH-UBND"))  # the recall came before the document itself
    assert (unseen.recalled, unseen.content) == (True, "")
    put(archive, 3, paper("bản mới"))  # issued again after the recall
    assert [one.recalled for one in known(archive, paper("một"))] == [True, False]


@pytest.mark.parametrize(("sender", "aligned", "counts"), [
    ("van.thu@so-tttt.tinh.gov.vn", True, True),
    ("khac@so-tttt.tinh.gov.vn", True, True),
    ("van.thu@so-noi-vu.tinh.gov.vn", True, False),
    ("van.thu@so-tttt.tinh.gov.vn", False, False),
])  # fmt: skip
def test_only_its_issuer_recalls_a_document(archive: Archive, sender: str, aligned: bool, counts: bool) -> None:
    put(archive, 1, paper("một"), direction="in")
    letter = paper("thu hồi", "20/TB-UBND", cites=("14/CT-UBND",))
    case = cases.case(number=2, files=(letter,), code="20/TB-UBND", sender=sender, direction="in")
    document = case.verdict.document.model_copy(update={"recall": True, "cites": letter.document.cites})
    case = dataclasses.replace(
        case,
        verdict=dataclasses.replace(case.verdict, document=document),
        received=dataclasses.replace(case.received, origin=Origin("relay", "192.0.2.1")),
        inspection=case.inspection.model_copy(update={"sender": SenderFacts(aligned=aligned)}),
    )
    asyncio.run(archive.commit(case))
    assert [one.recalled for one in known(archive, paper("một"))] == [counts]


def test_both_reads_use_an_index(archive: Archive) -> None:
    put(archive, 1, paper("một"))
    with archive.database.engine.connect() as connection:
        plan = "\n".join(
            str(row)
            for query in (
                "SELECT message FROM event WHERE key >= 'recall|14/CT-UBND|' AND key < 'recall|14/CT-UBND}'",
                "SELECT m.id FROM message m JOIN attachment a ON a.message = m.id WHERE m.document_key = '14/CT-UBND'",
            )
            for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))
        )
    assert "SCAN" not in plan, plan


def test_a_message_without_a_number_asks_nothing(archive: Archive) -> None:
    archive.database.close()  # a read would fail
    assert asyncio.run(archive.history(Inspection())) == ()


def test_the_record_keeps_the_past(archive: Archive) -> None:
    past = policy.History(
        (KnownDocument("C", ISSUER, "2026-01-01", "x", True),),
        (dt.datetime(2026, 11, 20, 17, tzinfo=VIETNAM),),
        dt.datetime(2026, 11, 21, 8, tzinfo=VIETNAM),
        False,
    )
    case = dataclasses.replace(cases.case(), history=past)
    receipt = asyncio.run(archive.commit(case))
    row = asyncio.run(archive.row(receipt.case))
    from gateway import replay

    stored = replay.Stored(row["id"], row["received_at"], "out", "", "deliver", row["record"])
    assert replay.situation(stored).history == past


# -- meetings and calendars ------------------------------------------------------------------------------------------


@pytest.fixture
def agencies(tmp_path: Path) -> directory.Directory:
    folder = tmp_path / "directory"
    folder.mkdir()
    (folder / "agencies.yaml").write_text(
        "agencies:\n  - {id: vp, name: Văn phòng UBND tỉnh, level: department, domains: [vp.tinh.gov.vn]}\n", "utf-8"
    )
    (folder / "meetings.csv").write_text(
        "title,code,start,chaired_by_committee\n"
        "Giao ban công nghệ thông tin,35/GM-UBND,2026-11-23T08:00,có\n"
        "Giao ban công nghệ thông tin,20/GM-UBND,2026-10-23T08:00,có\n"
        "Họp phòng,,2026-11-24 14:00,không\n",
        "utf-8",
    )
    (folder / "publications.csv").write_text(
        "agency,published_at\nvp,2026-11-20T17:00:00+07:00\nvp,2026-12-04T17:00\n", "utf-8"
    )
    return directory.load(folder)


AT = dt.datetime(2026, 11, 20, 9, tzinfo=VIETNAM)


@pytest.mark.parametrize(
    ("subject", "body", "start", "chaired"),
    [
        ("Tài liệu họp giao ban Công nghệ thông tin", "", "2026-11-23T08:00:00+07:00", True),
        ("Tài liệu họp", "Theo Giấy mời số 35 /GM-UBND", "2026-11-23T08:00:00+07:00", True),
        ("Tài liệu họp phòng", "", "2026-11-24T14:00:00+07:00", False),
        ("Tài liệu khác", "", "", None),
    ],
)
def test_meetings(agencies: directory.Directory, subject: str, body: str, start: str, chaired: bool | None) -> None:
    facts = Inspection(message=MessageFacts(subject=subject, body_text=body))
    past = policy.history(agencies, "vanthu@vp.tinh.gov.vn", AT, facts)
    assert (past.meeting_start.isoformat() if past.meeting_start else "") == start
    assert past.meeting_chaired_by_committee is chaired


def test_publications_of_the_sender_around_the_day(agencies: directory.Directory) -> None:
    facts = Inspection(message=MessageFacts(from_=(Mailbox(address="vanthu@vp.tinh.gov.vn"),)))
    times = policy.history(agencies, "", AT, facts).calendar_publications
    assert [one.isoformat() for one in times] == ["2026-11-20T17:00:00+07:00"]
    assert policy.history(agencies, "ai@example.com", AT, Inspection()).calendar_publications == ()


def test_an_unknown_agency_of_a_publication_is_told(tmp_path: Path) -> None:
    (tmp_path / "agencies.yaml").write_text("agencies:\n  - {id: vp, name: VP, level: unit}\n", "utf-8")
    (tmp_path / "publications.csv").write_text("agency,published_at\nvpp,2026-11-20T17:00\n", "utf-8")
    with pytest.raises(ConfigError, match=r"(?s)publications\.csv:2.*unknown agency 'vpp', did you mean 'vp'"):
        directory.load(tmp_path)
