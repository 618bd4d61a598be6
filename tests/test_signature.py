"""Signatures: genuine files are believed, attacked ones never (reliability.md F1 to F3, F5)."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.inspection import cms
from gateway.inspection.findings import SignatureState as S
from gateway.inspection.revisions import Document, Malformed, Parser
from gateway.inspection.signature import SignatureFacts, check, check_detached, report_vi
from gateway.inspection.trust import TrustStore
from tests import signed_files as files

DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def store() -> TrustStore:
    return files.store()


def states(facts: SignatureFacts) -> list[str]:
    return [one.state.value for one in facts.signatures]


def believed(facts: SignatureFacts) -> bool:
    return any(one.state in (S.VALID, S.VALID_UNTIMESTAMPED, S.UNKNOWN_REVOCATION) for one in facts.signatures)


# -- genuine files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", files.GENUINE)
def test_genuine_files_are_valid(name: str, store: TrustStore):
    make, count = files.GENUINE[name]
    facts = check(make(), store, files.NOW)
    assert states(facts) == ["VALID"] * count, [one.reason for one in facts.signatures]
    assert not facts.removed and not facts.findings
    assert all(one.timestamped and one.time_source == "timestamp" for one in facts.signatures)
    assert facts.signatures[-1].covers_whole_file or name in ("info updated", "validation data after")


def test_what_is_told_about_leader_and_agency(store: TrustStore):
    facts = check(files.two(), store, files.NOW)
    person, agency = facts.signatures
    assert (person.kind, agency.kind) == ("person", "organisation")
    assert person.trust == agency.trust == "chuyen_dung"
    assert not person.covers_whole_file and agency.covers_whole_file
    assert "MNS:9900002" in agency.subject_ids and "CCCD:000000000000" in person.subject_ids
    assert files.pki().department.fingerprint in agency.subject_ids
    assert agency.signed_at == "2026-03-02T10:04:05+07:00"
    assert [one.met for one in agency.conditions] == [True, True, None, True]
    assert [page for page, _ in facts.boxes] == [1, 1]
    assert all(0 <= one <= 1 for _, box in facts.boxes for one in box)
    report = report_vi(agency)
    for item in ("Kết quả: HỢP LỆ", "Người ký: SỞ NỘI VỤ", "Đơn vị quản lý", "Tổ chức cấp", "Thời điểm ký",
                 "Thời hạn chứng thư", "Toàn vẹn: toàn vẹn", "hiệu lực: đạt"):  # fmt: skip
        assert item in report


def test_a_business_leads_to_the_national_root(store: TrustStore):
    make, _ = files.GENUINE["business"]
    assert check(make(), store, files.NOW).signatures[0].trust == "quoc_gia"


def test_an_unsigned_file_has_no_signatures(store: TrustStore):
    assert check(files.plain(), store, files.NOW) == SignatureFacts()


def test_an_empty_store_trusts_nobody_and_says_so():
    facts = check(files.two(), TrustStore.load(Path("nowhere")), files.NOW)
    assert states(facts) == ["UNTRUSTED_CHAIN", "UNTRUSTED_CHAIN"]
    assert "trống" in facts.signatures[0].reason_vi


# -- attacks -----------------------------------------------------------------------------------------------------------

#: What a group of attacks may be called; `removed` for those that hide the signature.
EXPECTED = {
    "usf": {"TAMPERED"},
    "isa": {"TAMPERED", "PARTIAL_COVERAGE", "ERROR", "removed"},
    "swa": {"TAMPERED", "ERROR"},
    "file before the file": {"ERROR"},
    "annotation": {"PARTIAL_COVERAGE"},
    "certification": {"PARTIAL_COVERAGE", "UNTRUSTED_CHAIN"},
    "shadow": {"TAMPERED", "PARTIAL_COVERAGE", "ERROR"},
    "two names": {"TAMPERED"},
    "seal repainted": {"TAMPERED"},
    "two fields, one value": {"TAMPERED"},
    "font of a field": {"TAMPERED"},
    "removed": {"removed"},
}
LETTERS = "the letters of form fields that viewers draw themselves were changed"
REASONS = {
    "font of a field: added": LETTERS,
    "font of a field: added with all resources": LETTERS,
    "font of a field: another named": LETTERS,
    "font of a field: changed": "object 8 (Type1) was changed",
    "font of a field: encoding grown": "object 9 (dictionary) was changed",
    "usf: byte range of two": "no byte range of four numbers",
    "isa: page content": "/Contents of a page was changed",
    "isa: page added": "(Pages) was changed",
    "isa: hybrid conflict": "hybrid",
    "isa: object stream replaced": "object stream 7 was replaced",
    "swa: range shifted": "leaves out more or less",
    "annotation: text": "an annotation (FreeText) was added",
    "shadow: hide and replace, prepared": "prepared for a swap",
    "shadow: replace, undefined object": "referred to before signing and defined afterwards",
    "two fields, one value": "used by several fields",
}


@pytest.mark.parametrize("name", files.ATTACKS)
def test_attacks_are_never_believed(name: str, store: TrustStore):
    facts = check(files.ATTACKS[name](), store, files.NOW)
    if name == "certification: signed against it":  # the later signature is sound, the certification is broken
        assert states(facts) == ["PARTIAL_COVERAGE", "VALID_UNTIMESTAMPED"]
        assert "certified against any change" in facts.signatures[0].reason
        return
    assert not believed(facts), (states(facts), [one.reason for one in facts.signatures])
    told = set(states(facts)) | ({"removed"} if facts.removed else set())
    group = name.partition(":")[0]
    assert told & EXPECTED[group], told
    assert not told - EXPECTED[group] - {"removed"}
    if name in REASONS:
        assert REASONS[name] in facts.signatures[0].reason


def test_flipped_bits_are_never_believed_and_never_unsigned(store: TrustStore):
    data, rng = files.one(), random.Random(7)
    first, second = files.byte_range(data)[1:3]
    for _ in range(150):
        place = rng.choice((rng.randrange(first), rng.randrange(second, len(data))))
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        facts = check(bytes(changed), store, files.NOW)
        assert not believed(facts), place
        assert facts.signatures or facts.removed, place


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.binary(max_size=40), st.integers(0, 60))
def test_any_damage_is_survived(place: int, put: bytes, cut: int):
    data = files.two()
    place %= len(data)
    facts = check(data[:place] + put + data[place + cut :], _EMPTY, files.NOW)
    assert all(one.state in (S.TAMPERED, S.ERROR, S.PARTIAL_COVERAGE, S.UNTRUSTED_CHAIN) for one in facts.signatures)


_EMPTY = TrustStore()


@given(st.binary(max_size=200))
def test_the_parser_ends_on_any_bytes(data: bytes):
    parser = Parser(data)
    try:
        for _ in range(len(data) + 1):
            before = parser.at
            parser.value()
            if parser.at == before:
                break
    except Malformed:
        return
    assert parser.at <= len(data)


@given(st.binary(max_size=300))
def test_no_bytes_are_a_document_by_chance(data: bytes):
    with pytest.raises(Malformed):
        Document(b"%PDF-1.4\n" + data.replace(b"startxref", b""))


def test_deep_nesting_is_refused():
    with pytest.raises(Malformed):
        Parser(b"[" * 5000).value()


# -- time and revocation (F5) ------------------------------------------------------------------------------------------


def signed_at(at: dt.datetime, timestamp: bool = True) -> bytes:
    return files.documents.sign(files.plain(), files.pki().department, files.pki(), at=at, timestamp=timestamp)


SERIAL = "department"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("fresh list", "VALID"),
        ("no list", "UNKNOWN_REVOCATION"),
        ("only the root's list", "UNKNOWN_REVOCATION"),
        ("stale list", "UNKNOWN_REVOCATION"),
        ("list issued later", "VALID"),
        ("revoked before signing", "REVOKED"),
        ("revoked after signing", "VALID"),
        ("revoked on a stale list", "REVOKED"),
        ("intermediate revoked", "REVOKED"),
        ("revoked after signing, no time-stamp", "REVOKED"),
        ("no time-stamp", "VALID_UNTIMESTAMPED"),
        ("no time-stamp, stale list", "UNKNOWN_REVOCATION"),
    ],
)
def test_revocation(case: str, expected: str):
    own, now = files.pki(), files.NOW
    serial = own.department.certificate.serial_number
    data = signed_at(now, "no time-stamp" not in case)
    seen = now + DAY
    stores = {
        "fresh list": lambda: files.store(),
        "no list": lambda: files.store(only=("none",)),
        "only the root's list": lambda: files.store(only=("root.crl",)),
        "stale list": lambda: files.store(now - 30 * DAY),
        "list issued later": lambda: files.store(now + 20 * DAY),
        "revoked before signing": lambda: files.store(revoked={serial: now - DAY}),
        "revoked after signing": lambda: files.store(now + 2 * DAY, revoked={serial: now + DAY}),
        "revoked on a stale list": lambda: files.store(now - 30 * DAY, revoked={serial: now - 40 * DAY}),
        "intermediate revoked": lambda: files.store(
            revoked={own.intermediate.certificate.serial_number: now - DAY},
        ),
        "revoked after signing, no time-stamp": lambda: files.store(now + DAY, revoked={serial: now + DAY / 2}),
        "no time-stamp": lambda: files.store(),
        "no time-stamp, stale list": lambda: files.store(now - 30 * DAY),
    }
    facts = check(data, stores[case](), seen)
    assert states(facts) == [expected], facts.signatures[0].reason
    if case == "revoked after signing":
        assert any("thu hồi sau thời điểm ký" in note for note in facts.signatures[0].notes)


def test_revocation_data_in_the_file_is_enough():
    assert states(check(files.with_validation_data(), files.store(only=("none",)), files.NOW)) == ["VALID"]
    assert states(check(files.one(), files.store(only=("none",)), files.NOW)) == ["UNKNOWN_REVOCATION"]


def test_a_certificate_that_had_expired(store: TrustStore):
    late = files.pki().made_at + dt.timedelta(days=4 * 365)
    assert states(check(signed_at(late), store, late)) == ["EXPIRED_AT_SIGNING"]


def test_a_claimed_time_is_told_as_unproven(store: TrustStore):
    found = check(signed_at(files.NOW, timestamp=False), store, files.NOW).signatures[0]
    assert found.time_source == "claimed" and not found.timestamped
    assert found.conditions[0].met is None


def test_a_time_in_the_future_is_not_taken(store: TrustStore):
    found = check(signed_at(files.NOW + 30 * DAY, timestamp=False), store, files.NOW).signatures[0]
    assert found.time_source == "first_sight"


def test_a_strangers_time_stamp_proves_nothing(store: TrustStore):
    own = files.pki()
    mixed = type(own)(
        **{slot: getattr(own, slot) for slot in own.__slots__ if slot != "tsa"},
        tsa=files.stranger().tsa,
    )
    data = files.documents.sign(files.plain(), own.department, mixed)
    assert states(check(data, store, files.NOW)) == ["VALID_UNTIMESTAMPED"]


# -- formats, algorithms, slips ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"), [(files.pkcs7_sha1, "adbe.pkcs7.sha1"), (files.x509_rsa_sha1, "adbe.x509.rsa_sha1")]
)
def test_old_formats_are_weak_and_checked(make, name: str, store: TrustStore):
    data = make()
    found = check(data, store, files.NOW).signatures[0]
    assert found.state is S.WEAK_ALGORITHM and name in found.reason and found.subfilter == name
    broken = data.replace(b"Total: 100", b"Total: 900")
    assert check(broken, store, files.NOW).signatures[0].state is S.TAMPERED


def test_sha1_is_told_as_weak_not_as_forged(store: TrustStore):
    data = files.documents.sign(files.plain(), files.pki().department, files.pki(), digest="sha1")
    found = check(data, store, files.NOW).signatures[0]
    assert found.state is S.WEAK_ALGORITHM and found.conditions[3].met


def test_digest_info_without_null_is_accepted_and_nothing_else():
    import hashlib

    key = files.pki().department.key
    numbers = key.private_numbers()
    digest = hashlib.sha256(b"x").digest()

    def signed(info: bytes, end: bytes = b"") -> bytes:
        size = (numbers.public_numbers.n.bit_length() + 7) // 8
        block = b"\0\1" + b"\xff" * (size - 3 - len(info) - len(end)) + b"\0" + info + end
        return pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n).to_bytes(size, "big")

    with_null, without = cms.digest_infos("sha256", digest)
    public = key.public_key()
    assert cms.rsa_pkcs1(public, signed(with_null), "sha256", digest)
    assert cms.rsa_pkcs1(public, signed(without), "sha256", digest)
    assert not cms.rsa_pkcs1(public, signed(without, b"garbage"), "sha256", digest)
    assert not cms.rsa_pkcs1(public, signed(digest), "sha256", digest)
    assert not cms.rsa_pkcs1(public, signed(cms.digest_infos("sha1", digest[:20])[0]), "sha256", digest)


def test_detached_signatures_are_checked_against_their_content(store: TrustStore):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    own = files.pki().department
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"content").add_signer(own.certificate, own.key, hashes.SHA256())
    apart = builder.sign(Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary])
    whole = builder.sign(Encoding.PEM, [pkcs7.PKCS7Options.Binary])
    assert check_detached(apart, b"content", store, files.NOW).state is S.VALID_UNTIMESTAMPED
    assert check_detached(apart, b"other", store, files.NOW).state is S.TAMPERED
    missing = check_detached(apart, None, store, files.NOW)
    assert missing.state is S.ERROR and "not checked" in missing.reason
    assert check_detached(whole, None, store, files.NOW).state is S.VALID_UNTIMESTAMPED
    assert check_detached(b"nonsense", None, store, files.NOW).state is S.ERROR
    assert check_detached(apart + b"\0\0", b"content", store, files.NOW).state is S.VALID_UNTIMESTAMPED
    assert check_detached(apart + b"more", b"content", store, files.NOW).state is S.ERROR


def test_signed_attributes_are_no_content(store: TrustStore):
    """The signature over signed attributes verifies over their bytes too when the attributes are left out."""
    from asn1crypto import cms as asn1
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    own = files.pki().department
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"content").add_signer(own.certificate, own.key, hashes.SHA256())
    apart = builder.sign(Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary])
    whole = asn1.ContentInfo.load(apart)
    signer = whole["content"]["signer_infos"][0]
    attributes = b"\x31" + signer["signed_attrs"].dump()[1:]
    kept = ("version", "sid", "digest_algorithm", "signature_algorithm", "signature")
    whole["content"]["signer_infos"] = [asn1.SignerInfo({name: signer[name] for name in kept})]
    assert check_detached(whole.dump(force=True), attributes, store, files.NOW).state is S.ERROR
