"""The trust store: what is refused is named; what is pinned is found; revocation data is used with care."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from typer.testing import CliRunner

from gateway.commands import trust as command
from gateway.demo import pki as demo
from gateway.inspection.trust import Evidence, Revocation, TrustStore
from tests import signed_files as files

DAY = dt.timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files.pki().write_trust(tmp_path / "trust", files.NOW)
    return tmp_path / "trust"


def test_a_store_in_order(folder: Path):
    store = TrustStore.load(folder)
    assert not store.problems
    assert [one.world for one in store.roots] == ["chuyen_dung", "quoc_gia"] and len(store.intermediates) == 1
    path = store.path(files.pki().leader.certificate)
    assert path is not None and path.world == "chuyen_dung" and len(path.certificates) == 3 and not path.weak
    assert store.path(files.pki().business.certificate).world == "quoc_gia"
    assert store.path(files.stranger().leader.certificate) is None


def test_an_empty_store_says_so(tmp_path: Path):
    store = TrustStore.load(tmp_path)
    assert not store.roots and "UNTRUSTED_CHAIN" in store.problems[0].text
    assert store.path(files.pki().leader.certificate) is None


def test_the_shipped_store_is_empty_and_readable():
    store = TrustStore.load(Path(__file__).parent.parent / "config" / "trust")
    assert not store.roots and len(store.problems) == 1


def test_files_outside_the_manifest_are_refused_and_named(folder: Path):
    (folder / "chuyen_dung" / "evil.pem").write_bytes(files.stranger().root.pem)
    store = TrustStore.load(folder)
    assert [one.file for one in store.problems] == ["chuyen_dung/evil.pem"]
    assert "not in manifest.yaml" in store.problems[0].text
    assert store.path(files.stranger().leader.certificate) is None


def test_a_changed_file_is_refused(folder: Path):
    (folder / "chuyen_dung" / "demo-root.pem").write_bytes(files.stranger().root.pem)
    store = TrustStore.load(folder)
    assert "says otherwise" in store.problems[0].text
    assert store.path(files.pki().leader.certificate) is None


def test_what_is_missing_broken_or_no_root_is_named(folder: Path):
    import hashlib

    broken, leaf = b"no certificate", files.pki().leader.pem
    (folder / "chuyen_dung" / "broken.der").write_bytes(broken)
    (folder / "quoc_gia" / "leaf.pem").write_bytes(leaf)
    (folder / "quoc_gia" / "notes.txt").write_text("x")
    (folder / "crl" / "bad.crl").write_bytes(b"x")
    rows = folder.joinpath("manifest.yaml").read_text()
    for name, data in (("chuyen_dung/broken.der", broken), ("quoc_gia/leaf.pem", leaf), ("quoc_gia/gone.pem", b"")):
        rows += f"  {name}:\n    sha256: {hashlib.sha256(data).hexdigest()}\n    source: test\n    date: 2026-01-01\n"
    folder.joinpath("manifest.yaml").write_text(rows)
    told = {one.file: one.text for one in TrustStore.load(folder).problems}
    assert "cannot be read" in told["chuyen_dung/broken.der"]
    assert "not a root" in told["quoc_gia/leaf.pem"]
    assert "does not exist" in told["manifest.yaml"]
    assert "no certificate file" in told["quoc_gia/notes.txt"]
    assert "revocation list" in told["crl/bad.crl"]


def test_a_manifest_with_a_mistake_names_its_line(folder: Path):
    text = folder.joinpath("manifest.yaml").read_text().replace("sha256:", "sha265:", 1)
    folder.joinpath("manifest.yaml").write_text(text)
    assert any(one.line and "sha265" in one.text for one in TrustStore.load(folder).problems)


def test_the_digest_follows_certificates_and_lists(folder: Path):
    before = TrustStore.load(folder)
    assert TrustStore.load(folder).digest == before.digest
    files.pki().write_trust(folder, files.NOW + DAY)
    after = TrustStore.load(folder)
    assert after.digest != before.digest and after.revocation_digest != before.revocation_digest


def test_a_certificate_that_may_not_time_stamp_is_no_service(folder: Path):
    store = TrustStore.load(folder)
    assert store.path(files.pki().leader.certificate, timestamping=True) is None
    assert store.path(files.pki().tsa.certificate, timestamping=True) is not None


def test_an_authority_signs_no_documents(folder: Path):
    assert TrustStore.load(folder).path(files.pki().intermediate.certificate) is None


def test_lists_of_a_stranger_are_not_believed(folder: Path):
    own, store = files.pki(), TrustStore.load(folder)
    path = store.path(own.department.certificate)
    forged = demo.crl(
        files.stranger().intermediate, files.NOW, {own.department.certificate.serial_number: files.NOW - DAY}
    )
    evidence = Evidence(crls=[forged.public_bytes(Encoding.DER), b"nonsense"])
    assert store.revocation(path, files.NOW, evidence).state is Revocation.GOOD


def test_embedded_lists_count_and_bad_news_wins(folder: Path):
    own = files.pki()
    store = files.store(only=("none",))
    path = store.path(own.department.certificate)
    lists = [one for one in own.crls(files.NOW).values()]
    assert store.revocation(path, files.NOW).state is Revocation.UNKNOWN
    assert store.revocation(path, files.NOW, Evidence(crls=lists)).state is Revocation.GOOD
    bad = demo.crl(own.intermediate, files.NOW, {own.department.certificate.serial_number: files.NOW - DAY})
    mixed = Evidence(crls=[*lists, bad.public_bytes(Encoding.DER)])
    assert store.revocation(path, files.NOW, mixed).state is Revocation.REVOKED


def answer(signer: demo.Authority, status: ocsp.OCSPCertStatus, issuer: demo.Authority | None = None) -> bytes:
    own = files.pki()
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=own.department.certificate,
        issuer=(issuer or own.intermediate).certificate,
        algorithm=hashes.SHA1(),
        cert_status=status,
        this_update=files.NOW,
        next_update=files.NOW + DAY,
        revocation_time=files.NOW - DAY if revoked else None,
        revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_ocsp_answers_of_the_issuer_count_and_others_do_not():
    own = files.pki()
    store = files.store(only=("root.crl",))
    path = store.path(own.department.certificate)

    def state(*answers: bytes) -> Revocation:
        return store.revocation(path, files.NOW, Evidence(ocsps=list(answers))).state

    assert state(answer(own.intermediate, ocsp.OCSPCertStatus.GOOD)) is Revocation.GOOD
    assert state(answer(own.intermediate, ocsp.OCSPCertStatus.REVOKED)) is Revocation.REVOKED
    assert state(answer(own.intermediate, ocsp.OCSPCertStatus.UNKNOWN)) is Revocation.UNKNOWN
    assert state(answer(own.leader, ocsp.OCSPCertStatus.GOOD)) is Revocation.UNKNOWN
    assert state(answer(files.stranger().intermediate, ocsp.OCSPCertStatus.GOOD)) is Revocation.UNKNOWN
    assert state(b"nonsense") is Revocation.UNKNOWN


def test_silence_after_expiry_proves_nothing():
    own = files.pki()
    end = own.department.certificate.not_valid_after_utc
    store = files.store(end + 30 * DAY)
    path = store.path(own.department.certificate)
    assert store.revocation(path, files.NOW).state is Revocation.UNKNOWN


def test_the_commands(folder: Path):
    runner = CliRunner()
    listed = runner.invoke(command.app, ["list", "--config", str(folder.parent), "--json"])
    assert listed.exit_code == 0 and listed.output.count("\n") == 6
    files.pki().write_trust(folder, dt.datetime.now(dt.UTC).replace(microsecond=0))
    assert runner.invoke(command.app, ["check", "--config", str(folder.parent)]).exit_code == 0
    files.pki().write_trust(folder, files.NOW - 30 * DAY)
    stale = runner.invoke(command.app, ["check", "--config", str(folder.parent)])
    assert stale.exit_code == 1 and "stale" in stale.output
