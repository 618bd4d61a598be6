"""Whom we trust to certify signers, and what we know about revoked certificates. Read from `config/trust/`; no network.

Two worlds are kept apart (rules.md section 0, decision 8): `chuyen_dung/` the government's special-use roots, for
agencies and officials, and `quoc_gia/` the national root, for businesses and citizens. A certificate file counts only
when `manifest.yaml` names its SHA-256, so that a file slipped into the folder is refused and named. Revocation lists in
`crl/` are signed by their issuer and need no manifest line; a job refreshes them, and what is too old proves nothing.

Paths are built and validated by pyhanko-certvalidator (RFC 5280 section 6). Revocation is looked up here, because we
have to tell apart what that library reports as one failure: revoked before signing, revoked later, not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import Field

from gateway import config
from gateway.errors import ConfigError, Problem

#: Folder names are the values of Signature.trust.
WORLDS = ("chuyen_dung", "quoc_gia")
SUFFIXES = frozenset({".pem", ".crt", ".cer", ".der", ".p7b", ".p7c"})
MANIFEST = "manifest.yaml"

#: How far the clocks of a signer, a time-stamping service and a CA may differ.
SKEW = dt.timedelta(minutes=5)
#: Validated paths kept by one store. Signers repeat: a province has some thousand certificates.
PATHS_KEPT = 4096


class ManifestEntry(config.Settings):
    """Where a certificate file came from."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    source: str = Field(min_length=1)
    date: dt.date


class Manifest(config.Settings):
    files: dict[str, ManifestEntry] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trusted:
    """A certificate of the store. world: `chuyen_dung`, `quoc_gia`, or empty for an intermediate."""

    file: str
    world: str
    certificate: x509.Certificate
    fingerprint: str

    @property
    def name(self) -> str:
        return self.certificate.subject.rfc4514_string()


@dataclass(frozen=True, slots=True)
class TrustPath:
    """A validated way from a certificate to a pinned root, nearest first, root last; valid whenever all of it is.

    weak: it only holds when SHA-1 (or a key that is too short) is let pass.
    """

    certificates: tuple[x509.Certificate, ...]
    world: str
    weak: bool

    def valid_at(self, at: dt.datetime) -> bool:
        return all(one.not_valid_before_utc <= at <= one.not_valid_after_utc for one in self.certificates)


class Revocation(Enum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """What is known. since: when it was revoked, also when that was later than the time asked about."""

    state: Revocation
    since: dt.datetime | None = None
    reason: str = ""


@dataclass(slots=True)
class Evidence:
    """Revocation data that a file carries itself (DSS dictionary, CMS attributes): DER, untrusted until checked."""

    crls: list[bytes] = field(default_factory=list)
    ocsps: list[bytes] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.crls and not self.ocsps


class TrustStore:
    """Immutable after loading; a reload makes a new one. `digest` changes whenever a verdict could."""

    def __init__(
        self,
        roots: Iterable[Trusted] = (),
        intermediates: Iterable[Trusted] = (),
        crls: dict[str, x509.CertificateRevocationList] | None = None,
        problems: Iterable[Problem] = (),
    ) -> None:
        self.roots = tuple(roots)
        self.intermediates = tuple(intermediates)
        self.crls = dict(crls or {})
        self.problems = tuple(problems)
        marks = [f"{one.world}:{one.fingerprint}" for one in (*self.roots, *self.intermediates)]
        self._crl_digests = {name: _sha256(one.public_bytes(Encoding.DER)) for name, one in self.crls.items()}
        self.revocation_digest = _sha256("\n".join(sorted(self._crl_digests.values())).encode())
        self.digest = _sha256("\n".join([*sorted(marks), self.revocation_digest]).encode())
        self._world = {one.fingerprint: one.world for one in self.roots}
        self._by_issuer: dict[bytes, list[x509.CertificateRevocationList]] = {}
        for one in self.crls.values():
            self._by_issuer.setdefault(one.issuer.public_bytes(), []).append(one)
        self._paths: dict[tuple[str, bool, str], TrustPath | None] = {}
        self._genuine: dict[tuple[str, str], bool] = {}
        self._anchors: Any = None

    @classmethod
    def load(cls, directory: Path) -> TrustStore:
        """Read a trust directory. A directory that is missing or holds nothing gives an empty store that says so."""
        problems: list[Problem] = []
        manifest = _manifest(directory, problems)
        roots: list[Trusted] = []
        for world in WORLDS:
            roots += _certificates(directory, world, world, manifest, problems)
        intermediates = _certificates(directory, "intermediates", "", manifest, problems)
        for name in manifest:
            if not (directory / name).is_file():
                problems.append(Problem(f"{MANIFEST}", 0, 0, f"{name} is named here but the file does not exist"))
        if not roots:
            problems.append(
                Problem(str(directory), 0, 0, "no trusted root: every signature will be reported as UNTRUSTED_CHAIN")
            )
        return cls(roots, intermediates, _lists(directory / "crl", problems), problems)

    # -- paths -------------------------------------------------------------------------------------------------------

    def path(
        self, certificate: x509.Certificate, others: Iterable[x509.Certificate] = (), *, timestamping: bool = False
    ) -> TrustPath | None:
        """The way from `certificate` to a pinned root, or None. `others`: certificates that came with the signature.

        Time is left to the caller (`TrustPath.valid_at`): apart from the periods of validity nothing in a path depends
        on it, so that a path is validated once, inside those periods, and kept.
        """
        others = tuple(others)
        extra = _sha256(b"".join(sorted(one.fingerprint(hashes.SHA256()) for one in others))) if others else ""
        key = (_fingerprint(certificate), timestamping, extra)
        if key not in self._paths:
            if len(self._paths) >= PATHS_KEPT:
                self._paths.clear()
            self._paths[key] = self._find_path(certificate, others, timestamping) if self.roots else None
        return self._paths[key]

    def path_of_authority(self, certificate: x509.Certificate) -> TrustPath | None:
        """The way from an intermediate to a pinned root, for checking the store itself."""
        return self._find_path(certificate, (), False, authority=True) if self.roots else None

    def _find_path(
        self,
        certificate: x509.Certificate,
        others: tuple[x509.Certificate, ...],
        timestamping: bool,
        authority: bool = False,
    ) -> TrustPath | None:
        from pyhanko_certvalidator import CertificateValidator, ValidationContext
        from pyhanko_certvalidator.errors import InvalidCertificateError, PathBuildingError, PathValidationError
        from pyhanko_certvalidator.policy_decl import AcceptAllAlgorithms, DisallowWeakAlgorithmsPolicy

        if not timestamping and not authority and not _may_sign(certificate):
            return None
        leaf = _asn1(certificate)
        known = [_asn1(one.certificate) for one in self.intermediates] + [_asn1(one) for one in others]
        second = dt.timedelta(seconds=1)
        moments = (certificate.not_valid_before_utc + second, certificate.not_valid_after_utc - second)
        for weak, policy in ((False, DisallowWeakAlgorithmsPolicy()), (True, AcceptAllAlgorithms())):
            for moment in moments:
                context = ValidationContext(
                    trust_roots=[_asn1(one.certificate) for one in self.roots],
                    other_certs=known,
                    allow_fetching=False,
                    revocation_mode="soft-fail",  # looked up apart, see `revocation`
                    moment=moment,
                    best_signature_time=moment,
                    algorithm_usage_policy=policy,
                )
                validator = CertificateValidator(leaf, validation_context=context)
                wanted = {"time_stamping"} if timestamping else set()
                try:
                    found = asyncio.run(validator.async_validate_usage(set(), wanted, extended_optional=False))
                except PathBuildingError:
                    return None
                except (InvalidCertificateError, PathValidationError, ValueError, TypeError):
                    continue
                chain = tuple(x509.load_der_x509_certificate(one.dump()) for one in reversed(list(found)))
                root = chain[-1] if chain else certificate
                world = self._world.get(_fingerprint(root), "")
                if world:
                    return TrustPath(chain, world, weak)
        return None

    # -- revocation --------------------------------------------------------------------------------------------------

    def revocation(self, path: TrustPath, at: dt.datetime, evidence: Evidence | None = None) -> RevocationStatus:
        """Was any certificate of the path, the root apart, revoked at `at`? The worst answer along the path.

        A list or answer speaks about `at` when it was issued then or later, or when it was the current one then
        (Circular 15/2025: the latest list at signing time). One that only speaks about earlier times, a stale list,
        gives UNKNOWN. Bad news counts whatever its age.
        """
        worst = RevocationStatus(Revocation.GOOD)
        for certificate, issuer in zip(path.certificates, path.certificates[1:], strict=False):
            status = self._status(certificate, issuer, at, evidence or Evidence())
            if status.state is Revocation.REVOKED:
                return status
            if status.state is Revocation.UNKNOWN:
                worst = RevocationStatus(Revocation.UNKNOWN, worst.since or status.since, status.reason)
            elif status.since is not None and worst.since is None:
                worst = RevocationStatus(worst.state, status.since, worst.reason)
        return worst

    def _status(
        self, certificate: x509.Certificate, issuer: x509.Certificate, at: dt.datetime, evidence: Evidence
    ) -> RevocationStatus:
        known = False
        later: dt.datetime | None = None
        stale = ""
        for answer in self._answers(certificate, issuer, evidence):
            since = answer.revoked
            if since is not None:
                if since <= at:
                    return RevocationStatus(Revocation.REVOKED, since, answer.why)
                later = since if later is None else min(later, since)
                known = True  # revoked, but later: good until then
            elif answer.speaks_about(at, certificate):
                known = True
            else:
                stale = f"newest revocation data of {_common_name(issuer.subject)} is of {answer.issued.isoformat()}"
        if known:
            return RevocationStatus(Revocation.GOOD, later)
        return RevocationStatus(
            Revocation.UNKNOWN, later, stale or f"no revocation data of {_common_name(issuer.subject)}"
        )

    def _answers(
        self, certificate: x509.Certificate, issuer: x509.Certificate, evidence: Evidence
    ) -> Iterator[_Answer]:
        name = issuer.subject.public_bytes()
        lists = list(self._by_issuer.get(name, ()))
        for der in evidence.crls:
            with contextlib.suppress(ValueError):
                one = x509.load_der_x509_crl(der)
                if one.issuer.public_bytes() == name:
                    lists.append(one)
        for one in lists:
            if not self._usable(one, issuer):
                continue
            entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
            revoked, why = (None, "") if entry is None else _entry(entry)
            yield _Answer(one.last_update_utc, one.next_update_utc, revoked, why, _keeps_expired(one))
        for der in evidence.ocsps:
            with contextlib.suppress(ValueError, TypeError, x509.ExtensionNotFound):
                answer = _ocsp(der, certificate, issuer)
                if answer is not None:
                    yield answer

    def _usable(self, one: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
        """Signed by that issuer, and about all of its certificates: a partial, indirect or delta list is left aside."""
        key = (_fingerprint(issuer), one.fingerprint(hashes.SHA256()).hex())
        if key not in self._genuine:
            if len(self._genuine) >= PATHS_KEPT:
                self._genuine.clear()
            self._genuine[key] = _whole(one) and _signed_by(one, issuer)
        return self._genuine[key]


@dataclass(frozen=True, slots=True)
class _Answer:
    issued: dt.datetime
    expires: dt.datetime | None
    revoked: dt.datetime | None
    why: str
    keeps_expired: bool = False

    def speaks_about(self, at: dt.datetime, certificate: x509.Certificate) -> bool:
        """Does silence here mean that the certificate was good at `at`? A CA may drop expired certificates from its
        list (RFC 5280 section 5), so a list made after the expiry says nothing unless it tells that it keeps them."""
        if self.issued > certificate.not_valid_after_utc + SKEW and not self.keeps_expired:
            return False
        if self.issued >= at - SKEW:
            return True
        return self.expires is not None and at <= self.expires + SKEW


def _manifest(directory: Path, problems: list[Problem]) -> dict[str, ManifestEntry]:
    if not (directory / MANIFEST).exists():
        return {}
    try:
        return config.load(Manifest, directory / MANIFEST, MANIFEST).files
    except ConfigError as error:
        problems.extend(error.problems)
        return {}


def _certificates(
    directory: Path, folder: str, world: str, manifest: dict[str, ManifestEntry], problems: list[Problem]
) -> list[Trusted]:
    found: list[Trusted] = []
    base = directory / folder
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            if not path.name.startswith((".", "README")):
                problems.append(Problem(f"{folder}/{path.name}", 0, 0, "is no certificate file and is left aside"))
            continue
        shown = f"{folder}/{path.name}"
        data = path.read_bytes()
        entry = manifest.get(shown)
        if entry is None:
            problems.append(Problem(shown, 0, 0, f"refused: not in {MANIFEST}; its sha256 is {_sha256(data)}"))
            continue
        if entry.sha256 != _sha256(data):
            problems.append(Problem(shown, 0, 0, f"refused: its sha256 is {_sha256(data)}, {MANIFEST} says otherwise"))
            continue
        try:
            loaded = load_certificates(data)
        except ValueError as error:
            problems.append(Problem(shown, 0, 0, f"refused: cannot be read as a certificate ({error})"))
            continue
        for one in loaded:
            if world and one.subject != one.issuer:
                problems.append(Problem(shown, 0, 0, "refused: not a root (its issuer is another); try intermediates/"))
            else:
                found.append(Trusted(shown, world, one, _fingerprint(one)))
    return found


def _lists(folder: Path, problems: list[Problem]) -> dict[str, x509.CertificateRevocationList]:
    found: dict[str, x509.CertificateRevocationList] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith((".", "README")) or not path.is_file():
            continue
        data = path.read_bytes()
        try:
            pem = data.lstrip().startswith(b"-----BEGIN")
            found[path.name] = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
        except ValueError:
            problems.append(Problem(f"crl/{path.name}", 0, 0, "cannot be read as a revocation list"))
    return found


def load_certificates(data: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM, DER or PKCS #7 file. Raises ValueError."""
    if b"-----BEGIN PKCS7" in data:
        return list(pkcs7.load_pem_pkcs7_certificates(data))
    if b"-----BEGIN" in data:
        return list(x509.load_pem_x509_certificates(data))
    try:
        return [x509.load_der_x509_certificate(data)]
    except ValueError:
        return list(pkcs7.load_der_pkcs7_certificates(data))


def _ocsp(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate) -> _Answer | None:
    """What a basic OCSP response (RFC 6960) says about the certificate, when issuer or its delegate signed it."""
    answer = ocsp.load_der_ocsp_response(der)
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return None
    for single in answer.responses:
        if single.serial_number != certificate.serial_number:
            continue
        digest = hashes.Hash(single.hash_algorithm)
        digest.update(issuer.subject.public_bytes())
        key = hashes.Hash(single.hash_algorithm)
        key.update(_key_bits(issuer))
        if single.issuer_name_hash != digest.finalize() or single.issuer_key_hash != key.finalize():
            continue
        if not any(_verifies(answer, one) for one in (issuer, *_delegates(answer, issuer))):
            return None
        if single.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
            return None
        why = single.revocation_reason.value if single.revocation_reason else ""
        return _Answer(single.this_update_utc, single.next_update_utc, single.revocation_time_utc, why)
    return None


def _delegates(answer: ocsp.OCSPResponse, issuer: x509.Certificate) -> Iterator[x509.Certificate]:
    """Responders that the issuer itself certified for this purpose (RFC 6960 section 4.2.2.2), valid when it signed."""
    for one in answer.certificates:
        if not one.not_valid_before_utc <= answer.produced_at_utc <= one.not_valid_after_utc:
            continue
        with contextlib.suppress(ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            purposes = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            if ExtendedKeyUsageOID.OCSP_SIGNING in purposes:
                one.verify_directly_issued_by(issuer)
                yield one


def _verifies(answer: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    key, algorithm = signer.public_key(), answer.signature_hash_algorithm
    if algorithm is None or algorithm.name in ("md5", "sha1"):
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(answer.signature, answer.tbs_response_bytes, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(algorithm))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _key_bits(certificate: x509.Certificate) -> bytes:
    """The bits of the subject's public key without tag, length and unused-bits octet: what OCSP hashes."""
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    from asn1crypto.keys import PublicKeyInfo

    return bytes(PublicKeyInfo.load(info)["public_key"].contents[1:])


def _whole(one: x509.CertificateRevocationList) -> bool:
    try:
        for extension in one.extensions:
            value = extension.value
            if isinstance(value, x509.IssuingDistributionPoint):
                if value.indirect_crl or value.only_some_reasons or value.only_contains_attribute_certs:
                    return False
                if value.only_contains_ca_certs:  # user certificates would look good by their absence
                    return False
            elif isinstance(value, x509.DeltaCRLIndicator) or (
                extension.critical and isinstance(value, x509.UnrecognizedExtension)
            ):
                return False
    except (ValueError, TypeError):
        return False
    return True


def _signed_by(one: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    with contextlib.suppress(x509.ExtensionNotFound):
        if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            return False
    try:
        return one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _entry(entry: x509.RevokedCertificate) -> tuple[dt.datetime | None, str]:
    """Since when, and why; an invalidity date (the key was known to be lost earlier) counts from then."""
    since, why = entry.revocation_date_utc, ""
    with contextlib.suppress(x509.ExtensionNotFound):
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        if reason is x509.ReasonFlags.remove_from_crl:
            return None, ""
        why = reason.value
    with contextlib.suppress(x509.ExtensionNotFound):
        since = min(since, entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc)
    return since, why


#: expiredCertsOnCRL (X.509, 9.5.2.8): the list keeps certificates that expired after a date.
_EXPIRED_CERTS_ON_CRL = x509.ObjectIdentifier("2.5.29.60")


def _keeps_expired(one: x509.CertificateRevocationList) -> bool:
    return any(extension.oid == _EXPIRED_CERTS_ON_CRL for extension in one.extensions)


def _common_name(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(values[0].value) if values else name.rfc4514_string()


_OTHER_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CODE_SIGNING,
    ExtendedKeyUsageOID.OCSP_SIGNING,
    ExtendedKeyUsageOID.TIME_STAMPING,
}


def _may_sign(certificate: x509.Certificate) -> bool:
    """Key usage for signing documents; a certificate that does not limit its use may. One that is only for servers,
    code or the CA's own services may not."""
    try:
        purposes = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        purposes = set()
    except ValueError:
        return False
    if purposes and purposes <= _OTHER_PURPOSES:
        return False
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return usage.digital_signature or usage.content_commitment


def _asn1(certificate: x509.Certificate) -> Any:
    return asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
