"""RFC 3161 time stamps over the text of a checkpoint: ask for one, and say what is wrong with one.

pyHanko verifies signature and certificate path; what it does not look at is looked at here: status, imprint, nonce,
time. The response is kept as it came, so that `openssl ts -verify` and every other tool can judge it too.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asn1crypto import core, pem, tsp, x509  # type: ignore[import-untyped]

#: How far the authority's clock and ours may be apart (reliability.md 2.4).
SKEW = dt.timedelta(seconds=120)


class BadStamp(Exception):
    """A time stamp that does not hold; the text says why."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time stamp that holds. authority: the name on its certificate."""

    at: dt.datetime
    authority: str


def request(body: bytes) -> tuple[bytes, int]:
    """A query for a stamp over SHA-256 of `body` (DER), and its nonce."""
    nonce = int.from_bytes(os.urandom(8), "big")
    query = tsp.TimeStampReq(
        {
            "version": 1,
            "message_imprint": {
                "hash_algorithm": {"algorithm": "sha256"},
                "hashed_message": hashlib.sha256(body).digest(),
            },
            "nonce": nonce,
            "cert_req": True,
        }
    )
    return query.dump(), nonce


def read_roots(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises BadStamp, OSError."""
    try:
        found = [x509.Certificate.load(data) for _, _, data in pem.unarmor(path.read_bytes(), multiple=True)]
    except ValueError as error:
        raise BadStamp(f"{path}: {error}") from None
    if not found:
        raise BadStamp(f"{path}: no certificate")
    return found


def check(
    response: bytes,
    body: bytes,
    roots: list[x509.Certificate],
    *,
    nonce: int | None = None,
    now: dt.datetime | None = None,
) -> Stamp:
    """The stamp in an RFC 3161 response over `body`, trusted by `roots` at the time it names. now: later than this
    (with the skew) it cannot be. Blocks; not inside an event loop. Raises BadStamp."""
    try:
        data, info = _token(response)
        imprint, at = info["message_imprint"], info["gen_time"].native
        algorithm = imprint["hash_algorithm"]["algorithm"].native
        if algorithm != "sha256" or imprint["hashed_message"].native != hashlib.sha256(body).digest():
            raise BadStamp("it is over something else (wrong imprint)")
        if nonce is not None and info["nonce"].native != nonce:
            raise BadStamp("it answers another query (wrong nonce)")
        status = _verify(data, body, roots, at)
        subject = status.signing_cert.subject.human_friendly
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadStamp(f"not an RFC 3161 response: {' '.join(str(error).split())[:120]}") from None
    usage = status.signing_cert.extended_key_usage_value
    if usage is None or "time_stamping" not in usage.native:
        raise BadStamp(f"the certificate of {subject} is not for time stamps (wrong extended key usage)")
    if not status.intact:
        raise BadStamp("its content is not what was signed")
    if not status.valid:
        raise BadStamp(f"the signature of {subject} is wrong")
    certificate = status.signing_cert
    if not certificate.not_valid_before <= at <= certificate.not_valid_after:
        raise BadStamp(f"the certificate of {subject} was not valid at {at.isoformat()} (expired or not yet valid)")
    if not status.trusted:
        reason = getattr(status.trust_problem_indic, "name", "") or "no path"
        raise BadStamp(f"the certificate of {subject} is not trusted: {reason.lower().replace('_', ' ')}")
    if at > (now or dt.datetime.now(dt.UTC)) + SKEW:
        raise BadStamp(f"its time {at.isoformat()} is in the future")
    return Stamp(at, subject)


def _token(response: bytes) -> tuple[Any, Any]:
    """SignedData and TSTInfo. Raises BadStamp, ValueError."""
    told = tsp.PKIStatusInfo.load(core.SequenceOf.load(response, strict=True, spec=core.Any)[0].dump())
    status = told["status"].native
    if status not in ("granted", "granted_with_mods"):
        words, why = told["status_string"].native or [], told["fail_info"].native or []
        raise BadStamp(f"the authority refused: {', '.join([status, *words, *sorted(why)])}")
    token = tsp.TimeStampResp.load(response, strict=True)["time_stamp_token"]
    if token["content_type"].native != "signed_data":
        raise BadStamp("not signed data")
    data = token["content"]
    content = data["encap_content_info"]["content"]
    info = content.parsed if isinstance(content, core.ParsableOctetString) else None
    if not isinstance(info, tsp.TSTInfo):
        raise BadStamp("the signed data hold no time stamp")
    if len(data["signer_infos"]) != 1:
        raise BadStamp("not one signer but several")
    return data, info


def _verify(data: Any, body: bytes, roots: list[x509.Certificate], at: dt.datetime) -> Any:
    # pyHanko takes half a second to import and is needed once an hour.
    from pyhanko.sign.general import SigningError
    from pyhanko.sign.validation.errors import SignatureValidationError
    from pyhanko.sign.validation.generic_cms import validate_tst_signed_data
    from pyhanko.sign.validation.status import TimestampSignatureStatus
    from pyhanko_certvalidator import ValidationContext

    logging.getLogger("pyhanko").setLevel(logging.CRITICAL)  # what it finds wrong we say ourselves, in one line
    context = ValidationContext(
        trust_roots=roots, moment=at, best_signature_time=at, allow_fetching=False, revocation_mode="soft-fail"
    )

    def imprint(algorithm: str) -> bytes:
        return hashlib.new(algorithm, body).digest()

    try:
        found = asyncio.run(validate_tst_signed_data(data, context, imprint))
    except (SignatureValidationError, SigningError) as error:
        raise BadStamp(f"its signature cannot be judged: {' '.join(str(error).split())[:160]}") from None
    return TimestampSignatureStatus(**found)
