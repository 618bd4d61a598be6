"""RFC 3161 time stamps, with `cryptography` alone: is this response a stamp over these bytes, by whom, and when?

DER is read strictly, so that hardly a bit of a response can change without being noticed. Revocation is not looked at:
a stamp of years ago is judged at the time it names, by the root that the reader trusts.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

SKEW = 120  # seconds that two clocks may be apart
HASHES = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256,
    "2.16.840.1.101.3.4.2.2": hashes.SHA384,
    "2.16.840.1.101.3.4.2.3": hashes.SHA512,
}
SIGNED_DATA, TST_INFO = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE, SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.12", "1.2.840.113549.1.9.16.2.47"
PSS = "1.2.840.113549.1.1.10"
SEQUENCE, SET, INTEGER, OCTETS, OID = 0x30, 0x31, 2, 4, 6
NULL = b"\x05\0"


class BadStamp(Exception):
    """It does not hold, and why."""


# ---------------------------------------------------------------------- DER


class Node:
    """One value: tag, content, and the bytes of it all."""

    def __init__(self, data: bytes, start: int = 0) -> None:
        if len(data) < start + 2:
            raise BadStamp("not DER: cut off")
        self.tag, length, at = data[start], data[start + 1], start + 2
        if length >= 128:
            count = length & 127
            length = int.from_bytes(data[at : at + count], "big")
            at += count
            if not 1 <= count <= 4 or length < 128 or length >> 8 * (count - 1) == 0:
                raise BadStamp("not DER: a length")
        self.end = at + length
        if self.tag & 31 == 31 or self.end > len(data):
            raise BadStamp("not DER: cut off")
        self.content, self.raw = data[at : self.end], data[start : self.end]

    def expect(self, tag: int) -> Node:
        if self.tag != tag:
            raise BadStamp(f"not an RFC 3161 response: tag {self.tag:#x} instead of {tag:#x}")
        return self

    def children(self) -> list[Node]:
        found, at = [], 0
        while at < len(self.content):
            found.append(Node(self.content, at))
            at = found[-1].end
        return found

    def oid(self) -> str:
        self.expect(OID)
        numbers, value = [], 0
        for byte in self.content:
            value = value << 7 | byte & 127
            if byte < 128:
                numbers, value = [*numbers, value], 0
        if not numbers or value:
            raise BadStamp("not DER: an object identifier")
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))

    def algorithm(self) -> str:
        """Of an AlgorithmIdentifier without parameters."""
        name, *parameters = self.expect(SEQUENCE).children()
        if any(one.raw != NULL for one in parameters):
            raise BadStamp("an algorithm with parameters")
        return name.oid()

    def integer(self) -> int:
        return int.from_bytes(self.expect(INTEGER).content, "big", signed=True)


def whole(data: bytes) -> Node:
    node = Node(data)
    if node.end != len(data):
        raise BadStamp("something follows the response")
    return node


# ---------------------------------------------------------------------- the stamp


def check(response: bytes, body: bytes, roots: list[x509.Certificate]) -> tuple[dt.datetime, str]:
    """Time and authority of the stamp over `body`, trusted through `roots`. Raises BadStamp."""
    try:
        with warnings.catch_warnings():  # of what is odd in a damaged certificate; it is refused anyway
            warnings.simplefilter("ignore")
            return _check(response, body, roots)
    except (ValueError, IndexError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.InvalidVersion) as error:
        raise BadStamp(f"not an RFC 3161 response: {error}") from None


def _check(response: bytes, body: bytes, roots: list[x509.Certificate]) -> tuple[dt.datetime, str]:
    status, *tokens = whole(response).expect(SEQUENCE).children()
    if status.expect(SEQUENCE).children()[0].integer() not in (0, 1):
        raise BadStamp("the authority refused to stamp")
    if len(tokens) != 1:
        raise BadStamp("the response has no stamp")
    kind, wrapped = tokens[0].expect(SEQUENCE).children()
    if kind.oid() != SIGNED_DATA:
        raise BadStamp("not signed data")
    version, digests, content, *rest = whole(wrapped.expect(0xA0).content).expect(SEQUENCE).children()
    content_kind, octets = content.expect(SEQUENCE).children()
    if version.integer() != 3 or content_kind.oid() != TST_INFO:
        raise BadStamp("the signed data hold no time stamp")
    information = whole(octets.expect(0xA0).content).expect(OCTETS).content
    signers = rest[-1].expect(SET).children()
    if len(signers) != 1:
        raise BadStamp("not one signer but several")
    certificates = [
        x509.load_der_x509_certificate(one.raw) for part in rest if part.tag == 0xA0 for one in part.children()
    ]

    at = _information(information, body)
    signer = _signature(signers[0], information, digests, certificates)
    _trust(signer, certificates, roots, at)
    return at, signer.subject.rfc4514_string()


def _information(data: bytes, body: bytes) -> dt.datetime:
    """The time, when the imprint is of `body`."""
    parts = whole(data).expect(SEQUENCE).children()
    algorithm, digest = parts[2].expect(SEQUENCE).children()
    name = algorithm.algorithm()
    if name not in HASHES or hashlib.new(HASHES[name].name, body).digest() != digest.expect(OCTETS).content:
        raise BadStamp("it is over something else (wrong imprint)")
    text = parts[4].expect(0x18).content.decode("ascii")
    found = re.fullmatch(r"(\d{14})(?:\.\d*[1-9])?Z", text)
    if not found:
        raise BadStamp("its time is malformed")
    return dt.datetime.strptime(found[1], "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)


def _signature(
    signer: Node, information: bytes, digests: Node, certificates: list[x509.Certificate]
) -> x509.Certificate:
    """The certificate whose key has signed."""
    version, identity, digest_algorithm, attributes, algorithm, signature, *_ = signer.expect(SEQUENCE).children()
    name = digest_algorithm.algorithm()
    if name not in HASHES or name not in [one.algorithm() for one in digests.expect(SET).children()]:
        raise BadStamp(f"an unknown digest: {name}")
    chosen = HASHES[name]()
    certificate = _identified(identity, certificates, version.integer())
    signed: dict[str, Node] = {}
    for attribute in attributes.expect(0xA0).children():
        kind, values = attribute.expect(SEQUENCE).children()
        signed[kind.oid()] = values.expect(SET).children()[0]
    if CONTENT_TYPE not in signed or signed[CONTENT_TYPE].oid() != TST_INFO:
        raise BadStamp("the signature is of something else than a time stamp")
    if MESSAGE_DIGEST not in signed or signed[MESSAGE_DIGEST].content != hashlib.new(chosen.name, information).digest():
        raise BadStamp("its content is not what was signed")
    _named(signed, certificate)
    message = bytes([SET]) + attributes.raw[1:]
    key, raw = certificate.public_key(), signature.expect(OCTETS).content
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if algorithm.children()[0].oid() == PSS:
                key.verify(raw, message, padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO), chosen)
            elif algorithm.algorithm().startswith("1.2.840.113549.1.1."):
                key.verify(raw, message, padding.PKCS1v15(), chosen)
            else:
                raise BadStamp("its signature algorithm does not fit the key")
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm.algorithm().startswith("1.2.840.10045.4.3."):
            key.verify(raw, message, ec.ECDSA(chosen))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(raw, message)
        else:
            raise BadStamp("a kind of key that is not known here")
    except InvalidSignature:
        raise BadStamp(f"the signature of {certificate.subject.rfc4514_string()} is wrong") from None
    return certificate


def _identified(identity: Node, certificates: list[x509.Certificate], version: int) -> x509.Certificate:
    for one in certificates:
        if identity.tag == SEQUENCE and version == 1:
            issuer, serial = identity.children()
            if issuer.raw == one.issuer.public_bytes() and serial.integer() == one.serial_number:
                return one
        elif identity.tag == 0x80 and version == 3 and _key_identifier(one) == identity.content:
            return one
    raise BadStamp("the certificate of its signer is not in it")


def _key_identifier(one: x509.Certificate) -> bytes:
    return one.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _named(signed: dict[str, Node], certificate: x509.Certificate) -> None:
    """The signed attribute that names the certificate (RFC 5816), or another could be put in its place."""
    raw = certificate.public_bytes(serialization.Encoding.DER)
    if SIGNING_CERTIFICATE_V2 in signed:
        first = signed[SIGNING_CERTIFICATE_V2].children()[0].children()[0].children()
        name = first[0].children()[0].oid() if first[0].tag == SEQUENCE else "2.16.840.1.101.3.4.2.1"
        digest = first[1].content if first[0].tag == SEQUENCE else first[0].content
        good = name in HASHES and hashlib.new(HASHES[name].name, raw).digest() == digest
    elif SIGNING_CERTIFICATE in signed:
        first = signed[SIGNING_CERTIFICATE].children()[0].children()[0].children()
        good = hashlib.sha1(raw, usedforsecurity=False).digest() == first[0].content
    else:
        good = False
    if not good:
        raise BadStamp("the signature names another certificate")


def _trust(
    signer: x509.Certificate, certificates: list[x509.Certificate], roots: list[x509.Certificate], at: dt.datetime
) -> None:
    """A path from the signer to a root, each part valid at that time; and no certificate that belongs to nobody."""
    name = signer.subject.rfc4514_string()
    try:
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        good = usage.critical and list(usage.value) == [x509.ExtendedKeyUsageOID.TIME_STAMPING]
    except x509.ExtensionNotFound:
        good = False
    if not good:
        raise BadStamp(f"the certificate of {name} is not for time stamps (wrong extended key usage)")
    known = [*roots, *certificates]
    for one in certificates:
        if one not in roots and not any(_issued(one, other) for other in known):
            raise BadStamp(f"the certificate of {one.subject.rfc4514_string()} does not hold")
    path = [signer]
    while not any(path[-1] == root or _issued(path[-1], root) for root in roots):
        above = next((one for one in certificates if one not in path and _issued(path[-1], one)), None)
        if above is None or not above.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise BadStamp(f"the certificate of {name} does not lead to a root that is trusted")
        path.append(above)
    for one in path:
        if not one.not_valid_before_utc <= at <= one.not_valid_after_utc:
            what = one.subject.rfc4514_string()
            raise BadStamp(f"the certificate of {what} was not valid at {at.isoformat()} (expired or not yet valid)")


def _issued(one: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(above)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def read_roots(path: Path) -> list[x509.Certificate]:
    """Raises BadStamp, OSError."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise BadStamp(f"{path}: {error}") from None
