"""Signed data in the Cryptographic Message Syntax (RFC 5652) and time-stamp tokens (RFC 3161), verified.

A small reader of BER, because what Vietnamese signing tools write has slips that complete ASN.1 libraries refuse:
parameters of a digest algorithm in a wrong encoding, a DigestInfo without its NULL. Only what a signature says is read
here, and what is read is compared exactly; whether the signer may be trusted is asked elsewhere (`trust.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

#: Certificates of one signature; real ones carry one to five.
MAX_CERTIFICATES = 64
MAX_DEPTH = 32


class BadCms(Exception):
    """It is no signed data, or not of a form that can be verified."""


SIGNED_DATA = "1.2.840.113549.1.7.2"
DATA = "1.2.840.113549.1.7.1"
TST_INFO = "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
TIME_STAMP_TOKEN = "1.2.840.113549.1.9.16.2.14"
REVOCATION_ARCHIVAL = "1.2.840.113583.1.1.8"  # Adobe, ISO 32000-1 table 258

HASHES: dict[str, str] = {
    "1.2.840.113549.2.5": "md5",
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.8": "sha3_256",
    "2.16.840.1.101.3.4.2.9": "sha3_384",
    "2.16.840.1.101.3.4.2.10": "sha3_512",
}
#: Circular 15/2025 wants SHA-2 or SHA-3; these are told as weak.
WEAK_HASHES = frozenset({"md5", "sha1"})
_OBJECTS: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3_256": hashes.SHA3_256(),
    "sha3_384": hashes.SHA3_384(),
    "sha3_512": hashes.SHA3_512(),
}
RSA = "1.2.840.113549.1.1.1"
PSS = "1.2.840.113549.1.1.10"
#: Signature algorithms that name their digest. Empty: the digest algorithm of the signer info counts.
SIGNATURES: dict[str, tuple[str, str]] = {
    RSA: ("rsa", ""),
    "1.2.840.113549.1.1.4": ("rsa", "md5"),
    "1.2.840.113549.1.1.5": ("rsa", "sha1"),
    "1.2.840.113549.1.1.11": ("rsa", "sha256"),
    "1.2.840.113549.1.1.12": ("rsa", "sha384"),
    "1.2.840.113549.1.1.13": ("rsa", "sha512"),
    "1.2.840.113549.1.1.14": ("rsa", "sha224"),
    PSS: ("pss", ""),
    "1.2.840.10045.2.1": ("ecdsa", ""),
    "1.2.840.10045.4.1": ("ecdsa", "sha1"),
    "1.2.840.10045.4.3.1": ("ecdsa", "sha224"),
    "1.2.840.10045.4.3.2": ("ecdsa", "sha256"),
    "1.2.840.10045.4.3.3": ("ecdsa", "sha384"),
    "1.2.840.10045.4.3.4": ("ecdsa", "sha512"),
    "2.16.840.1.101.3.4.3.14": ("rsa", "sha3_256"),
    "2.16.840.1.101.3.4.3.15": ("rsa", "sha3_384"),
    "2.16.840.1.101.3.4.3.16": ("rsa", "sha3_512"),
}


class Node(NamedTuple):
    """One element: tag octet, where its header begins, where its content begins and ends, where the next one begins."""

    data: bytes
    tag: int
    start: int
    body: int
    end: int
    after: int

    @property
    def content(self) -> bytes:
        return self.data[self.body : self.end]

    @property
    def raw(self) -> bytes:
        return self.data[self.start : self.after]

    def children(self) -> list[Node]:
        return list(elements(self.data, self.body, self.end))

    def child(self, number: int) -> Node:
        children = self.children()
        if number >= len(children):
            raise BadCms("an element is missing")
        return children[number]


def element(data: bytes, at: int, limit: int, depth: int = 0) -> Node:
    """The element at an offset. Raises BadCms."""
    if at + 2 > limit or depth > MAX_DEPTH:
        raise BadCms("cut off" if depth <= MAX_DEPTH else "nested too deeply")
    tag, length, body = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise BadCms("tag numbers above 30 do not occur here")
    if length == 0x80:  # indefinite length (BER): runs to the end-of-contents octets
        position = body
        while data[position : position + 2] != b"\0\0":
            position = element(data, position, limit, depth + 1).after
        return Node(data, tag, at, body, position, position + 2)
    if length > 0x80:
        count = length & 0x7F
        if count > 4 or body + count > limit:
            raise BadCms("bad length")
        length = int.from_bytes(data[body : body + count], "big")
        body += count
    if body + length > limit:
        raise BadCms("cut off")
    return Node(data, tag, at, body, body + length, body + length)


def elements(data: bytes, at: int, end: int) -> Iterator[Node]:
    while at < end:
        node = element(data, at, end)
        yield node
        at = node.after


def oid(node: Node) -> str:
    """Dotted form of an OBJECT IDENTIFIER."""
    body = node.content
    if node.tag != 0x06 or not body or body[-1] & 0x80:
        raise BadCms("no object identifier")
    numbers, value = [], 0
    for octet in body:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(str(one) for one in (first, numbers[0] - 40 * first, *numbers[1:]))


def octets(node: Node) -> bytes:
    """The value of an OCTET STRING, put together when it is constructed (BER)."""
    if node.tag == 0x04:
        return node.content
    if node.tag == 0x24:
        return b"".join(octets(part) for part in node.children())
    raise BadCms("no octet string")


def time(node: Node) -> dt.datetime:
    """UTCTime or GeneralizedTime; fractions of a second are dropped."""
    text = node.content.decode("ascii", "replace")
    if node.tag == 0x17:
        text = ("20" if text[:2] < "50" else "19") + text
    elif node.tag != 0x18:
        raise BadCms("no time")
    digits = text[:14]
    if not digits.isdigit() or not text.endswith("Z"):
        raise BadCms("no time in UTC")
    try:
        return dt.datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        raise BadCms("no such time") from None


@dataclass(slots=True)
class Signer:
    """A SignerInfo."""

    issuer: bytes = b""  # raw name, or empty when the key identifier is given
    serial: int = 0
    key_identifier: bytes = b""
    digest: str = ""
    kind: str = ""  # rsa, pss, ecdsa
    signature: bytes = b""
    signed: bytes | None = None  # the signed attributes as a SET OF, as they were signed
    attributes: dict[str, list[list[Node]]] = field(default_factory=dict)
    unsigned: dict[str, list[list[Node]]] = field(default_factory=dict)
    mask: str = ""  # PSS: digest of the mask generation
    salt: int = 20
    slips: tuple[str, ...] = ()  # tolerated slips of encoding

    def one(self, name: str) -> Node | None:
        """The value of a signed attribute that must occur once with one value. Raises BadCms when it occurs twice."""
        found = self.attributes.get(name)
        if not found:
            return None
        if len(found) != 1 or len(found[0]) != 1:
            raise BadCms("a signed attribute occurs twice")
        return found[0][0]

    @property
    def claimed_time(self) -> dt.datetime | None:
        node = self.one(SIGNING_TIME)
        try:
            return time(node) if node is not None else None
        except BadCms:
            return None

    @property
    def algorithm(self) -> str:
        """For a person: `RSA PKCS#1 v1.5, SHA-256`."""
        name = {"rsa": "RSA PKCS#1 v1.5", "pss": "RSA-PSS", "ecdsa": "ECDSA"}.get(self.kind, self.kind)
        return f"{name}, {self.digest.upper().replace('SHA3_', 'SHA3-').replace('SHA2', 'SHA-2')}"


@dataclass(slots=True)
class SignedData:
    content_type: str
    content: bytes | None  # None when detached
    certificates: list[x509.Certificate]
    crls: list[bytes]
    signer: Signer
    size: int  # bytes used of the input


def parse(data: bytes) -> SignedData:
    """Signed data with exactly one signer. Bytes after it (the padding of /Contents) are left to the caller."""
    top = element(data, 0, len(data))
    if top.tag != 0x30:
        raise BadCms("no ContentInfo")
    parts = top.children()
    if len(parts) != 2 or oid(parts[0]) != SIGNED_DATA or parts[1].tag != 0xA0:
        raise BadCms("no signed data")
    rest = parts[1].child(0).children()
    if len(rest) < 4:
        raise BadCms("signed data is cut off")
    encapsulated = rest[2].children()
    content = octets(encapsulated[1].child(0)) if len(encapsulated) > 1 else None
    certificates: list[x509.Certificate] = []
    crls: list[bytes] = []
    signers: list[Node] = []
    for node in rest[3:]:
        if node.tag == 0xA0:
            for one in node.children()[:MAX_CERTIFICATES]:
                if one.tag == 0x30:
                    try:
                        certificates.append(x509.load_der_x509_certificate(one.raw))
                    except ValueError:
                        continue  # one of no use to us; when it is the signer's, it will be missing
        elif node.tag == 0xA1:
            crls += [one.raw for one in node.children() if one.tag == 0x30]
        elif node.tag == 0x31:
            signers = node.children()
    if len(signers) != 1:
        raise BadCms(f"{len(signers)} signers in one signature")
    return SignedData(oid(encapsulated[0]), content, certificates, crls, _signer(signers[0]), top.after)


def _signer(node: Node) -> Signer:
    parts = node.children()
    if len(parts) < 5:
        raise BadCms("signer info is cut off")
    signer = Signer()
    identity = parts[1]
    if identity.tag == 0x30:
        signer.issuer = identity.child(0).raw
        signer.serial = int.from_bytes(identity.child(1).content, "big", signed=True)
    elif identity.tag in (0x80, 0xA0):
        signer.key_identifier = identity.content if identity.tag == 0x80 else octets(identity.child(0))
    else:
        raise BadCms("signer is not identified")
    name = oid(parts[2].child(0))
    signer.digest = HASHES.get(name, "")
    if not signer.digest and SIGNATURES.get(name, ("", ""))[1]:
        # A slip of some tools: the signature algorithm where its digest belongs. It names one digest only, and that
        # digest is then compared like any other.
        signer.digest, signer.slips = SIGNATURES[name][1], ("digest algorithm named by its signature algorithm",)
    if not signer.digest:
        raise BadCms(f"digest algorithm {name} is unknown")
    position = 3
    if parts[position].tag == 0xA0:
        signer.attributes = _attributes(parts[position])
        signer.signed = b"\x31" + parts[position].raw[1:]  # signed under its universal tag (RFC 5652 section 5.4)
        position += 1
    algorithm = parts[position].children()
    name = oid(algorithm[0])
    if name not in SIGNATURES:
        raise BadCms(f"signature algorithm {name} is unknown")
    signer.kind, digest = SIGNATURES[name]
    if digest and digest != signer.digest:
        raise BadCms("signature and digest algorithm do not agree")
    if signer.kind == "pss":
        _pss(signer, algorithm[1] if len(algorithm) > 1 else None)
    signer.signature = octets(parts[position + 1])
    if len(parts) > position + 2 and parts[position + 2].tag == 0xA1:
        signer.unsigned = _attributes(parts[position + 2])
    return signer


def _attributes(node: Node) -> dict[str, list[list[Node]]]:
    found: dict[str, list[list[Node]]] = {}
    for one in node.children():
        parts = one.children()
        if len(parts) != 2 or parts[1].tag != 0x31:
            raise BadCms("bad attribute")
        found.setdefault(oid(parts[0]), []).append(parts[1].children())
    return found


def _pss(signer: Signer, parameters: Node | None) -> None:
    """RSASSA-PSS-params (RFC 8017 A.2.3); absent fields mean SHA-1, MGF1 with SHA-1 and 20 octets of salt."""
    digest = signer.mask = "sha1"
    for node in parameters.children() if parameters is not None else ():
        inner = node.child(0)
        if node.tag == 0xA0:
            digest = HASHES.get(oid(inner.child(0)), "")
        elif node.tag == 0xA1:
            signer.mask = HASHES.get(oid(inner.child(1).child(0)), "")
        elif node.tag == 0xA2:
            signer.salt = int.from_bytes(inner.content, "big")
    if digest != signer.digest or not signer.mask:
        raise BadCms("PSS parameters do not agree with the digest algorithm")


def find_signer(data: SignedData, others: list[x509.Certificate] | None = None) -> x509.Certificate | None:
    """The signer's certificate among those that came along (or `others`).

    By serial number, the issuer's name first compared octet by octet. A name in another string type still matches:
    nothing hangs on it, because the signature is then verified with that certificate's key.
    """
    signer = data.signer
    pool = [*data.certificates, *(others or ())]
    if signer.key_identifier:
        for one in pool:
            try:
                found = one.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
            except (x509.ExtensionNotFound, ValueError):
                continue
            if found == signer.key_identifier:
                return one
        return None
    matching = [one for one in pool if one.serial_number == signer.serial]
    return next((one for one in matching if one.issuer.public_bytes() == signer.issuer), next(iter(matching), None))


def verify(
    data: SignedData, certificate: x509.Certificate, digest_of_content: Callable[[str], bytes], content_type: str = DATA
) -> tuple[str, str]:
    """Does the signature hold over the content? Empty strings when it does, else (`digest` or `signature`, reason).

    digest_of_content: gives the content's digest by algorithm name (as in hashlib). Raises BadCms on missing or doubled
    attributes.
    """
    signer = data.signer
    wanted = digest_of_content(signer.digest)
    if signer.signed is not None:
        told = signer.one(MESSAGE_DIGEST)
        if told is None:
            raise BadCms("no message digest among the signed attributes")
        kind = signer.one(CONTENT_TYPE)
        if kind is None or oid(kind) != content_type:
            raise BadCms("content type attribute is missing or wrong")
        if octets(told) != wanted:
            return "digest", "the content's digest is not the signed one"
        reason = _names_another(signer, certificate)
        if reason:
            return "signature", reason
        wanted = hashlib.new(signer.digest, signer.signed).digest()
    if not holds(certificate, signer, wanted):
        return "signature", "the signature does not verify with the certificate's key"
    return "", ""


def _names_another(signer: Signer, certificate: x509.Certificate) -> str:
    """The signing-certificate attribute (RFC 5035) binds the certificate to the signature: it must name ours."""
    for name, default in ((SIGNING_CERTIFICATE, "sha1"), (SIGNING_CERTIFICATE_V2, "sha256")):
        node = signer.one(name)
        if node is None:
            continue
        first = node.child(0).child(0).children()
        digest = default
        if name == SIGNING_CERTIFICATE_V2 and first[0].tag == 0x30:
            digest = HASHES.get(oid(first[0].child(0)), "")
            first = first[1:]
        if not digest or not first or octets(first[0]) != certificate.fingerprint(_OBJECTS[digest]):
            return "the signing-certificate attribute names another certificate"
    return ""


def holds(certificate: x509.Certificate, signer: Signer, digest: bytes) -> bool:
    """Is `signer.signature` a signature over that digest by the certificate's key?"""
    key, algorithm = certificate.public_key(), _OBJECTS[signer.digest]
    try:
        if signer.kind == "rsa" and isinstance(key, rsa.RSAPublicKey):
            return rsa_pkcs1(key, signer.signature, signer.digest, digest)
        if signer.kind == "pss" and isinstance(key, rsa.RSAPublicKey):
            scheme = padding.PSS(padding.MGF1(_OBJECTS[signer.mask]), signer.salt)
            key.verify(signer.signature, digest, scheme, Prehashed(algorithm))
            return True
        if signer.kind == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signer.signature, digest, ec.ECDSA(Prehashed(algorithm)))
            return True
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return False


def rsa_pkcs1(key: rsa.RSAPublicKey, signature: bytes, name: str, digest: bytes) -> bool:
    """RSASSA-PKCS1-v1_5. The recovered DigestInfo is compared as a whole with its two lawful forms, with NULL
    parameters and without (RFC 8017 section 8.2.2, note 2): no parsing, so nothing can be hidden in it."""
    try:
        recovered = key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
    except (InvalidSignature, ValueError):
        return False
    return recovered in digest_infos(name, digest)


def without_null(key: object, signer: Signer) -> bool:
    """Did the signer leave out the NULL parameters? For the note; the signature is known to hold."""
    if signer.kind != "rsa" or not isinstance(key, rsa.RSAPublicKey):
        return False
    size = len(digest_infos(signer.digest, b"")[1]) + _OBJECTS[signer.digest].digest_size
    return len(key.recover_data_from_signature(signer.signature, padding.PKCS1v15(), None)) == size


def digest_infos(name: str, digest: bytes) -> tuple[bytes, bytes]:
    """The DigestInfo structures for a digest, with NULL parameters and without."""
    dotted = next(one for one, known in HASHES.items() if known == name)
    first, second, *rest = (int(one) for one in dotted.split("."))
    body = bytearray([40 * first + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.insert(0, number & 0x7F | 0x80)
        body += bytes(groups)
    identifier = bytes([0x06, len(body)]) + body
    value = bytes([0x04, len(digest)]) + digest
    forms = []
    for parameters in (b"\x05\x00", b""):
        algorithm = bytes([0x30, len(identifier) + len(parameters)]) + identifier + parameters
        forms.append(bytes([0x30, len(algorithm) + len(value)]) + algorithm + value)
    return forms[0], forms[1]


@dataclass(frozen=True, slots=True)
class TimeStamp:
    """A time-stamp token whose own signature holds over its content."""

    at: dt.datetime
    digest: str
    imprint: bytes
    certificate: x509.Certificate
    certificates: tuple[x509.Certificate, ...]
    crls: tuple[bytes, ...]
    weak: bool


def timestamp(data: bytes, others: list[x509.Certificate] | None = None) -> TimeStamp:
    """Take apart and verify a time-stamp token (RFC 3161 section 2.4.2). Raises BadCms."""
    token = parse(data)
    if token.content_type != TST_INFO or token.content is None:
        raise BadCms("no time-stamp token")
    certificate = find_signer(token, others)
    if certificate is None:
        raise BadCms("the time-stamp's certificate is missing")
    content = token.content
    failed, reason = verify(token, certificate, lambda name: hashlib.new(name, content).digest(), TST_INFO)
    if failed:
        raise BadCms(f"time-stamp: {reason}")
    parts = element(content, 0, len(content)).children()
    imprint = parts[2].children()
    digest = HASHES.get(oid(imprint[0].child(0)), "")
    if not digest:
        raise BadCms("time-stamp over an unknown digest")
    return TimeStamp(
        time(parts[4]),
        digest,
        octets(imprint[1]),
        certificate,
        tuple(token.certificates),
        tuple(token.crls),
        token.signer.digest in WEAK_HASHES or digest in WEAK_HASHES,
    )
