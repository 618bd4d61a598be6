"""The demonstration's own certificates, made anew at every start and trusted by nobody else.

Shaped like the real thing (rules.md 2.6): a special-use root (chuyên dùng) with an intermediate that certifies agencies
and officials, a national root for businesses, a time-stamping authority, and a revocation list per authority. Subjects
carry what real ones carry: O, OU, CN, UID (`MNS:…`, `CCCD:…`), e-mail. Every name says DEMO.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Domain of the fictitious province.
DOMAIN = "tinhdemo.gov.vn"

YEAR = dt.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate with its key: an issuer, a signer or a time-stamping service."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    issuer: Authority | None = None

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, lower-case hexadecimal."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def chain(self) -> tuple[Authority, ...]:
        """The issuers above, nearest first, root last."""
        return () if self.issuer is None else (self.issuer, *self.issuer.chain)


def name(common: str, organisation: str = "", unit: str = "", uid: tuple[str, ...] = (), email: str = "") -> x509.Name:
    """A subject in the order that the government's certificates use: C, L, O, OU, CN, UID, e-mail."""
    parts = [x509.NameAttribute(NameOID.COUNTRY_NAME, "VN")]
    if organisation:
        parts.append(x509.NameAttribute(NameOID.LOCALITY_NAME, "Tỉnh Demo"))
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    if unit:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common))
    parts.extend(x509.NameAttribute(NameOID.USER_ID, value) for value in uid)
    if email:
        parts.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, email))
    return x509.Name(parts)


def issue(
    subject: x509.Name,
    issuer: Authority | None,
    start: dt.datetime,
    end: dt.datetime,
    *,
    ca: bool = False,
    timestamping: bool = False,
    bits: int = 2048,
) -> Authority:
    """A fresh key with its certificate. `issuer` None makes a self-signed root."""
    key = rsa.generate_private_key(65537, bits)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                content_commitment=not ca,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if timestamping:  # RFC 3161 section 2.3: this purpose alone, and critical
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
    elif not ca:
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return Authority(builder.sign(signer, hashes.SHA256()), key, issuer)


def crl(
    issuer: Authority, at: dt.datetime, revoked: dict[int, dt.datetime], days: int = 7
) -> x509.CertificateRevocationList:
    """The issuer's revocation list: serial numbers with the time of their revocation."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(at)
        .next_update(at + dt.timedelta(days=days))
        .add_extension(x509.CRLNumber(int(at.timestamp())), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for serial, when in revoked.items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256())


@dataclass(slots=True)
class Pki:
    """All authorities and signers of the demonstration. `revoked` may be filled before `write_trust` or `crls`."""

    made_at: dt.datetime
    root: Authority  # special use
    intermediate: Authority
    national_root: Authority
    tsa: Authority
    province: Authority  # organisation certificates
    department: Authority
    leader: Authority  # a person of the department
    business: Authority  # under the national root
    revoked: dict[int, dt.datetime] = field(default_factory=dict)

    @classmethod
    def create(cls, now: dt.datetime) -> Pki:
        """New keys and certificates, valid from three years before `now` until three years after it."""
        start, end = now - 3 * YEAR, now + 3 * YEAR
        committee, office = "ỦY BAN NHÂN DÂN TỈNH DEMO", "SỞ NỘI VỤ TỈNH DEMO"
        root = issue(
            name("DEMO RootCA chuyên dùng Chính phủ", "DEMO Cơ quan chứng thực chuyên dùng"),
            None,
            start,
            end + YEAR,
            ca=True,
        )
        intermediate = issue(
            name("DEMO CA phục vụ các cơ quan Nhà nước", "DEMO Cơ quan chứng thực chuyên dùng"),
            root,
            start,
            end,
            ca=True,
        )
        national = issue(name("DEMO Vietnam National Root CA", "DEMO Trung tâm chứng thực"), None, start, end, ca=True)
        return cls(
            made_at=now,
            root=root,
            intermediate=intermediate,
            national_root=national,
            tsa=issue(name("DEMO TSA", "DEMO Cơ quan chứng thực chuyên dùng"), root, start, end, timestamping=True),
            province=issue(
                name(committee, committee, "", ("MNS:9900001", "MST:9900000001"), f"ubnd@{DOMAIN}"),
                intermediate,
                start,
                end,
            ),
            department=issue(
                name(office, committee, "SỞ NỘI VỤ", ("MNS:9900002",), f"sonoivu@{DOMAIN}"), intermediate, start, end
            ),
            leader=issue(
                name("Người Ký Mẫu", office, "", ("CCCD:000000000000",), f"giamdoc.snv@{DOMAIN}"),
                intermediate,
                start,
                end,
            ),
            business=issue(
                name("CÔNG TY DEMO", "CÔNG TY DEMO", "", ("MST:9900000009",), "vanthu@congtydemo.example"),
                national,
                start,
                end,
            ),
        )

    def crls(self, at: dt.datetime | None = None, days: int = 7) -> dict[str, bytes]:
        """DER revocation lists by file name."""
        at = at or self.made_at
        issuers = {"root": self.root, "intermediate": self.intermediate, "national": self.national_root}
        return {
            f"{key}.crl": crl(
                issuer,
                at,
                {serial: when for serial, when in self.revoked.items() if self._issuer(serial) is issuer},
                days,
            ).public_bytes(serialization.Encoding.DER)
            for key, issuer in issuers.items()
        }

    def _issuer(self, serial: int) -> Authority | None:
        for one in (self.intermediate, self.tsa, self.province, self.department, self.leader, self.business):
            if one.certificate.serial_number == serial:
                return one.issuer
        return self.intermediate

    def write_trust(self, directory: Path, at: dt.datetime | None = None, days: int = 7) -> None:
        """A trust directory as `inspection/trust.py` reads it, with its manifest."""
        files = {
            "chuyen_dung/demo-root.pem": self.root.pem,
            "quoc_gia/demo-national-root.pem": self.national_root.pem,
            "intermediates/demo-ca.pem": self.intermediate.pem,
        }
        rows = ["files:"]
        for path, data in files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            rows += [
                f"  {path}:",
                f"    sha256: {hashlib.sha256(data).hexdigest()}",
                "    source: made by the demonstration",
            ]
            rows += [f"    date: {self.made_at.date().isoformat()}"]
        (directory / "manifest.yaml").write_text("\n".join(rows) + "\n", encoding="utf-8")
        lists = directory / "crl"
        lists.mkdir(parents=True, exist_ok=True)
        for file, data in self.crls(at, days).items():
            waiting = lists / f".{file}.new"
            waiting.write_bytes(data)
            waiting.replace(lists / file)
