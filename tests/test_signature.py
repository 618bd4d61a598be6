"""Signatures: genuine files are believed, attacked ones never."""

from __future__ import annotations

import pytest

from gateway.inspection.findings import SignatureState as S
from gateway.inspection.signature import SignatureFacts, check, report_vi
from tests import signed_files as files


def states(facts: SignatureFacts) -> list[str]:
    return [one.state.value for one in facts.signatures]


def test_a_document_signed_by_leader_and_agency_is_valid():
    facts = check(files.two(), files.store(), files.NOW)
    assert states(facts) == ["VALID", "VALID"]
    person, agency = facts.signatures
    assert (person.kind, agency.kind) == ("person", "organisation")
    assert person.trust == agency.trust == "chuyen_dung"
    assert not person.covers_whole_file and agency.covers_whole_file
    assert "MNS:9900002" in agency.subject_ids and "CCCD:000000000000" in person.subject_ids
    assert agency.timestamped and agency.signed_at == "2026-03-02T10:04:05+07:00"
    assert [one.met for one in agency.conditions] == [True, True, None, True]
    assert len(facts.boxes) == 2 and facts.boxes[0][0] == 1
    assert not facts.removed and not facts.findings
    assert "HỢP LỆ" in report_vi(agency)


def test_an_unsigned_file_has_no_signatures():
    assert check(files.plain(), files.store(), files.NOW) == SignatureFacts()


def test_an_empty_store_trusts_nobody():
    from pathlib import Path

    from gateway.inspection.trust import TrustStore

    facts = check(files.two(), TrustStore.load(Path("nowhere")), files.NOW)
    assert states(facts) == ["UNTRUSTED_CHAIN", "UNTRUSTED_CHAIN"]
    assert "trống" in facts.signatures[0].reason_vi


@pytest.mark.parametrize("place", [0.05, 0.2, 0.5, 0.95])
def test_a_changed_byte_is_tampered(place):
    data = bytearray(files.one())
    data[int(len(files.plain()) * place)] ^= 1
    facts = check(bytes(data), files.store(), files.NOW)
    assert facts.removed or all(one.state in (S.TAMPERED, S.ERROR) for one in facts.signatures)
    assert facts.removed or facts.signatures
