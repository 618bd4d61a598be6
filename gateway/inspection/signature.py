"""The digital signatures of a file: who signed what, when, and whether it can be believed (rules.md 1.4 and 2.6).

For every signature of a PDF four questions, in this order:

1. Is it what it seems? Byte range, one field, nothing between the bytes signed and the value (`_place`).
2. Does it hold? Digest, signature, certificate attribute (`cms.py`).
3. What came after it? Later revisions may add signatures and validation data, nothing else (`updates.py`).
4. Whose is it? Path to a pinned root, period of validity and revocation at signing time (`trust.py`).

The time is that of an RFC 3161 token when its own chain holds; else the time that the signer claims, which proves
nothing and is reported so; else when the gateway first saw the file. Without a token a revoked certificate counts as
revoked whenever that was, because a thief would claim an earlier time.

Nothing here raises: a file that cannot be judged is a signature with the state ERROR.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import field as new
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from gateway.inspection import cms, updates
from gateway.inspection.cms import BadCms, SignedData, TimeStamp
from gateway.inspection.findings import Condition, Finding, Signature, SignatureState
from gateway.inspection.revisions import Dict, Document, Malformed, Parser, Ref, Stream, View
from gateway.inspection.trust import Evidence, Revocation, TrustPath, TrustStore
from gateway.message import VIETNAM

S = SignatureState

#: More signatures than any document needs; the rest is not looked at, and said so.
MAX_SIGNATURES = 256
#: Signature formats (ISO 32000-1 12.8.3.3, ISO 32000-2 12.8.3.4).
DETACHED = frozenset({"adbe.pkcs7.detached", "ETSI.CAdES.detached"})

#: State words of notice N06 (rules.md 4.2).
STATE_VI: dict[SignatureState, str] = {
    S.VALID: "hợp lệ",
    S.VALID_UNTIMESTAMPED: "hợp lệ (thời điểm ký chưa được xác nhận bằng dấu thời gian)",
    S.UNKNOWN_REVOCATION: "chưa kiểm tra được tình trạng thu hồi",
    S.EXPIRED_AT_SIGNING: "chứng thư hết hạn tại thời điểm ký",
    S.REVOKED: "chứng thư bị thu hồi",
    S.UNTRUSTED_CHAIN: "không xác định được đường dẫn tin cậy",
    S.TAMPERED: "nội dung bị thay đổi sau khi ký",
    S.PARTIAL_COVERAGE: "chữ ký không bao trùm toàn bộ tài liệu",
    S.WEAK_ALGORITHM: "thuật toán không an toàn",
    S.SUBJECT_MISMATCH: "chủ thể ký không thuộc cơ quan ban hành",
    S.NO_SIGNATURE: "không có chữ ký số",
    S.ERROR: "không đọc được chữ ký số",
}
TIME_SOURCE_VI = {
    "timestamp": "theo dấu thời gian",
    "claimed": "do người ký khai, chưa được xác nhận",
    "first_sight": "thời điểm cổng nhận được tệp",
    "": "không rõ",
}
#: The four conditions of Article 9.2 in few words.
CONDITION_VI = {
    1: "Đ9.2(1) hiệu lực", 2: "Đ9.2(2) nơi cấp", 3: "Đ9.2(3) kiểm soát", 4: "Đ9.2(4) gắn kết",
}  # fmt: skip
KIND_VI = {"person": "cá nhân", "organisation": "cơ quan, tổ chức", "timestamp": "dấu thời gian", "": "không rõ"}
TRUST_VI = {"chuyen_dung": "chữ ký số chuyên dùng công vụ", "quoc_gia": "chữ ký số công cộng", "": ""}


@dataclass(frozen=True, slots=True)
class SignatureFacts:
    """What `check` found. removed: the file was signed and its present view hides or lacks a signature. boxes: page
    number from 1 and (left, top, right, bottom) in page fractions of every visible signature."""

    signatures: tuple[Signature, ...] = ()
    removed: bool = False
    findings: tuple[Finding, ...] = ()
    boxes: tuple[tuple[int, tuple[float, float, float, float]], ...] = ()


def check(data: bytes, trust: TrustStore, first_seen: dt.datetime) -> SignatureFacts:
    """Judge every signature of a PDF. first_seen: when the gateway received it, with offset. Never raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography's remarks about odd certificates go to nobody
            return _Check(data, trust, first_seen).facts()
    except Exception as error:
        # Total by construction: whatever a hostile file provokes means "cannot be judged", never "unsigned".
        if not _looks_signed(data):
            return SignatureFacts()
        return SignatureFacts((_broken(f"the file cannot be judged: {error}"),))


#: A SET OF attributes of PKCS #9 in DER: what is signed in place of a content (RFC 5652 5.3).
_ATTRIBUTES = re.compile(
    rb"\x31(?:[\x00-\x7f]|[\x81-\x84].{1,4}?)\x30.{1,5}?\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09", re.DOTALL
)


def check_detached(data: bytes, content: bytes | None, trust: TrustStore, first_seen: dt.datetime) -> Signature:
    """Judge a CMS signature that is no part of a PDF: `.p7s` beside its content, or `.p7m` that holds it.

    content None for a detached signature whose content is not at hand: reported as not checked (ERROR), with the name
    that it gives."""
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            import base64

            data = base64.b64decode(b"".join(data.split(b"-----")[2].split()))
        signed = cms.parse(data)
        if data[signed.size :].strip(b"\0\r\n"):
            raise BadCms("something behind the signature")
        body = signed.content if signed.content is not None else content
        if body is not None and signed.signer.signed is None and _ATTRIBUTES.match(body):
            # The signature of somebody's signed attributes, shown as one over them (RFC 5652 5.4 signs both alike).
            raise BadCms("what is signed are signed attributes")
        case = _Case("", "CMS", signed=signed)
        if body is None:
            case.certificate = cms.find_signer(signed)
            case.algorithm = signed.signer.algorithm
            case.problem(
                S.ERROR,
                "detached signature, its content is not at hand: not checked",
                "chữ ký tách rời, không có nội dung đi kèm nên chưa được kiểm tra",
            )
            return _report(case)
        case.covers = True
        judge = _Judge(trust, first_seen, Evidence(crls=list(signed.crls)), [])
        judge.integrity(case, _digest_of(body), signed.content_type)
        judge.identity(case)
        return _report(case)
    except Exception as error:
        return _broken(f"no readable CMS signature: {error}", "CMS")


def report_vi(signature: Signature) -> str:
    """One signature in Vietnamese, with the items that Circular 15/2025/TT-BKHCN asks of checking software."""
    by = {one.number: one for one in signature.conditions}
    integrity = by.get(4)
    whole = (
        "không xác định"
        if integrity is None or integrity.met is None
        else "toàn vẹn"
        if integrity.met
        else "không toàn vẹn"
    )
    good = signature.state in (S.VALID, S.VALID_UNTIMESTAMPED)
    # Where the status cannot be checked the circular wants a warning, and so it is without a root.
    open_states = (S.UNKNOWN_REVOCATION, S.UNTRUSTED_CHAIN, S.ERROR)
    result = "HỢP LỆ" if good else "CẢNH BÁO, CHƯA KẾT LUẬN" if signature.state in open_states else "KHÔNG HỢP LỆ"
    rows = [
        f"Kết quả: {result} - {STATE_VI[signature.state]} ({signature.state.value})",
        *([f"Lý do: {signature.reason_vi}"] if signature.reason_vi and not good else []),
        f"Người ký: {signature.signer or 'không rõ'} ({KIND_VI[signature.kind]})",
        f"Đơn vị quản lý: {signature.organisation or 'không rõ'}",
        f"Tổ chức cấp: {signature.issuer or 'không rõ'}"
        + (f" ({TRUST_VI[signature.trust]})" if signature.trust else ""),
        f"Thời điểm ký: {signature.signed_at or 'không rõ'} ({TIME_SOURCE_VI[signature.time_source]})",
        f"Thời hạn chứng thư: {signature.valid_from or 'không rõ'} - {signature.valid_to or 'không rõ'}",
        f"Toàn vẹn: {whole}",
        f"Thuật toán: {signature.algorithm or 'không rõ'}",
    ]
    for one in signature.conditions:
        met = "không kiểm tra được" if one.met is None else "đạt" if one.met else "không đạt"
        rows.append(f"{CONDITION_VI[one.number]}: {met}{' - ' + one.reason if one.reason else ''}")
    return "\n".join([*rows, *(f"Ghi chú: {note}" for note in signature.notes)])


# -- one signature on its way ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Case:
    """What is known about one signature while it is judged. Problems are collected; the gravest gives the state."""

    field: str
    subfilter: str
    value: Dict | None = None
    holder: Dict | None = None
    start: int = 0  # of the value's bytes in the file
    end: int = 0  # of the bytes signed
    signed: SignedData | None = None
    certificate: x509.Certificate | None = None
    others: list[x509.Certificate] = new(default_factory=list)
    path: TrustPath | None = None
    stamp: TimeStamp | None = None
    kind: str = ""
    signed_at: dt.datetime | None = None
    time_source: str = ""
    covers: bool = False
    intact: bool | None = None
    algorithm: str = ""
    revocation_known: bool | None = None
    problems: list[tuple[SignatureState, str, str]] = new(default_factory=list)
    notes: list[str] = new(default_factory=list)

    def problem(self, state: SignatureState, reason: str, vi: str) -> None:
        self.problems.append((state, reason, vi))

    def has(self, *states: SignatureState) -> bool:
        return any(state in states for state, _, _ in self.problems)


#: Gravest first. What is not there (VALID) is the absence of problems.
_ORDER = (
    S.ERROR,
    S.TAMPERED,
    S.PARTIAL_COVERAGE,
    S.UNTRUSTED_CHAIN,
    S.REVOKED,
    S.EXPIRED_AT_SIGNING,
    S.WEAK_ALGORITHM,
    S.UNKNOWN_REVOCATION,
    S.VALID_UNTIMESTAMPED,
)


class _Digests:
    """Digests of the file's first n bytes, n growing: sixteen signatures cost one reading, not sixteen."""

    def __init__(self, data: bytes) -> None:
        self.view = memoryview(data)
        self.running: dict[str, tuple[int, Any]] = {}

    def of(self, name: str, ranges: tuple[int, int, int, int]) -> bytes:
        _, first, second, length = ranges
        done, engine = self.running.get(name, (0, None))
        if engine is None or done > first:
            done, engine = 0, hashlib.new(name)
        engine.update(self.view[done:first])
        self.running[name] = (first, engine)
        copy = engine.copy()
        copy.update(self.view[second : second + length])
        return bytes(copy.digest())


class _Judge:
    """Steps two and four: does it hold, and whose is it."""

    def __init__(
        self, trust: TrustStore, first_seen: dt.datetime, evidence: Evidence, certificates: list[x509.Certificate]
    ) -> None:
        self.trust, self.first_seen, self.evidence, self.certificates = trust, first_seen, evidence, certificates

    def integrity(self, case: _Case, digest: Callable[[str], bytes], content_type: str = cms.DATA) -> None:
        signed = case.signed
        assert signed is not None
        case.algorithm = signed.signer.algorithm
        case.others = [*signed.certificates, *self.certificates]
        certificate = cms.find_signer(signed, self.certificates)
        if certificate is None:
            case.problem(S.ERROR, "the signer's certificate is missing", "thiếu chứng thư số của người ký")
            return
        case.certificate = certificate
        failed, reason = cms.verify(signed, certificate, digest, content_type)
        case.intact = not failed
        if failed:
            case.problem(S.TAMPERED, reason, "nội dung hoặc chữ ký đã bị thay đổi sau khi ký")
        if signed.signer.digest in cms.WEAK_HASHES:
            name = signed.signer.digest.upper().replace("SHA", "SHA-")
            case.problem(S.WEAK_ALGORITHM, f"digest {name}", f"dùng hàm băm {name} không còn an toàn")
        self._key(case, certificate)
        if signed.signer.slips:
            case.notes.append("thuật toán băm được ghi bằng tên của thuật toán ký (sai sót mã hóa, không ảnh hưởng)")
        if case.intact and cms.without_null(certificate.public_key(), signed.signer):
            case.notes.append("DigestInfo không có tham số NULL (RFC 8017 mục 8.2.2 cho phép)")
        if signed.signer.kind == "rsa" and signed.signer.digest not in cms.WEAK_HASHES:
            case.notes.append("chữ ký theo PKCS#1 v1.5, được chấp nhận (TT 15/2025/TT-BKHCN khuyến nghị PSS)")

    def _key(self, case: _Case, certificate: x509.Certificate) -> None:
        key = certificate.public_key()
        size = getattr(key, "key_size", 0)
        least = 2048 if isinstance(key, rsa.RSAPublicKey) else 256
        if isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)) and size < least:
            case.problem(S.WEAK_ALGORITHM, f"key of {size} bits", f"khóa {size} bit ngắn hơn mức {least} bit")

    def identity(self, case: _Case) -> None:
        if case.certificate is None or case.signed is None:
            return
        signed, certificate = case.signed, case.certificate
        timestamping = signed.content_type == cms.TST_INFO
        case.kind = "timestamp" if timestamping else kind_of(certificate)
        evidence = Evidence([*self.evidence.crls, *signed.crls], list(self.evidence.ocsps))
        _archived(signed, evidence)
        if timestamping:
            self._own_time(case, signed)
        else:
            self._time(case, signed, evidence)
        case.path = path = self.trust.path(certificate, case.others, timestamping=timestamping)
        if path is None:
            if not self.trust.roots:
                case.problem(S.UNTRUSTED_CHAIN, "the trust store is empty", "kho chứng thư gốc tin cậy đang trống")
            else:
                case.problem(
                    S.UNTRUSTED_CHAIN,
                    "no path to a pinned root",
                    "không tìm thấy đường dẫn đến chứng thư gốc tin cậy",
                )
            return
        if path.weak:
            case.problem(S.WEAK_ALGORITHM, "weak algorithm in the chain", "chuỗi chứng thư dùng thuật toán yếu")
        at = case.signed_at or self.first_seen
        if not path.valid_at(at):
            case.problem(
                S.EXPIRED_AT_SIGNING,
                "a certificate of the path was not valid at signing time",
                "chứng thư số chưa có hoặc đã hết hiệu lực tại thời điểm ký",
            )
        proven = case.time_source == "timestamp"
        status = self.trust.revocation(path, at if proven else self.first_seen, evidence)
        case.revocation_known = status.state is not Revocation.UNKNOWN
        if status.state is Revocation.REVOKED:
            since = _show(status.since)
            case.problem(S.REVOKED, f"revoked {since} {status.reason}".strip(), f"chứng thư bị thu hồi từ {since}")
        elif status.state is Revocation.UNKNOWN:
            case.problem(
                S.UNKNOWN_REVOCATION, status.reason, "không có dữ liệu thu hồi (CRL, OCSP) còn hiệu lực để kiểm tra"
            )
        elif status.since is not None:
            case.notes.append(f"chứng thư bị thu hồi sau thời điểm ký, từ {_show(status.since)}")
        if not proven:
            case.problem(
                S.VALID_UNTIMESTAMPED, "signing time is not proven by a time-stamp", "thời điểm ký chưa được xác nhận"
            )

    def _own_time(self, case: _Case, signed: SignedData) -> None:
        """A document time-stamp: its time is its content."""
        assert signed.content is not None and case.certificate is not None
        parts = cms.element(signed.content, 0, len(signed.content)).children()
        case.signed_at, case.time_source = cms.time(parts[4]), "timestamp"

    def _time(self, case: _Case, signed: SignedData, evidence: Evidence) -> None:
        tokens = signed.signer.unsigned.get(cms.TIME_STAMP_TOKEN, [])
        for values in tokens:
            for node in values:
                if case.time_source == "timestamp":
                    break
                try:
                    stamp = cms.timestamp(node.raw, case.others)
                except (BadCms, ValueError) as error:
                    case.notes.append(f"dấu thời gian không dùng được: {error}")
                    continue
                if stamp.imprint != hashlib.new(stamp.digest, signed.signer.signature).digest():
                    case.notes.append("dấu thời gian thuộc về một chữ ký khác")
                    continue
                self._stamped(case, stamp, evidence)
        if case.time_source:
            return
        claimed = signed.signer.claimed_time or _claimed(case.value)
        if claimed is not None and claimed <= self.first_seen + dt.timedelta(days=1):
            case.signed_at, case.time_source = claimed, "claimed"
        else:
            if claimed is not None:
                case.notes.append("thời điểm ký do người ký khai nằm trong tương lai")
            case.signed_at, case.time_source = self.first_seen, "first_sight"

    def _stamped(self, case: _Case, stamp: TimeStamp, evidence: Evidence) -> None:
        """A token counts when its service leads to a pinned root, was valid then, and is not known to be revoked."""
        case.stamp = stamp
        path = self.trust.path(stamp.certificate, (*stamp.certificates, *case.others), timestamping=True)
        if path is None or not path.valid_at(stamp.at):
            case.notes.append("dấu thời gian không thuộc tổ chức cấp dấu thời gian tin cậy")
            return
        if stamp.at > self.first_seen + dt.timedelta(days=1):
            case.notes.append("dấu thời gian nằm trong tương lai")
            return
        own = Evidence([*evidence.crls, *stamp.crls], list(evidence.ocsps))
        status = self.trust.revocation(path, stamp.at, own)
        if status.state is Revocation.REVOKED:
            case.notes.append("chứng thư của tổ chức cấp dấu thời gian đã bị thu hồi")
            return
        if status.state is Revocation.UNKNOWN:
            case.problem(
                S.UNKNOWN_REVOCATION,
                f"time-stamping service: {status.reason}",
                "chưa kiểm tra được tình trạng thu hồi của tổ chức cấp dấu thời gian",
            )
        if stamp.weak or path.weak:
            case.problem(S.WEAK_ALGORITHM, "weak algorithm in the time-stamp", "dấu thời gian dùng thuật toán yếu")
        case.signed_at, case.time_source = stamp.at, "timestamp"


class _Check:
    """All signatures of one PDF."""

    def __init__(self, data: bytes, trust: TrustStore, first_seen: dt.datetime) -> None:
        self.document = Document(data)
        self.view = self.document.latest
        self.trust = trust
        self.first_seen = first_seen
        self.findings: list[Finding] = []
        self.removed = False

    def facts(self) -> SignatureFacts:
        document = self.document
        if self.view.trailer.get("Encrypt") is not None:
            _decryption(document)
        cases = list(self._cases())
        self._forgotten(cases)
        if not cases:
            return SignatureFacts((), self.removed, tuple(self.findings), ())
        if len(cases) > MAX_SIGNATURES:
            self.findings.append(Finding(kind="ambiguous", value="too many signatures"))
            cases = cases[:MAX_SIGNATURES]
        self._shared(cases)
        evidence, certificates = self._security_store()
        judge = _Judge(self.trust, self.first_seen, evidence, certificates)
        digests = _Digests(document.data)
        for case in sorted(cases, key=lambda one: one.start):
            try:
                self._hold(case, judge, digests)
            except Exception as error:  # one signature's fault is not the others'
                case.problem(S.ERROR, f"cannot be judged: {error}", "không đọc được chữ ký")
        self._afterwards(cases)
        self._prepared(cases)
        for case in cases:
            case.notes += self._tolerated()
        signatures = self._with_revisions(cases, [_report(case) for case in cases])
        return SignatureFacts(tuple(signatures), self.removed, tuple(self.findings), tuple(self._boxes()))

    def _with_revisions(self, cases: list[_Case], reports: list[Signature]) -> list[Signature]:
        """The digest of each signed revision, so that it is recognised in other files; the file is read once."""
        view, engine, done = memoryview(self.document.data), hashlib.sha256(), 0
        digests: dict[int, str] = {}
        for end in sorted({case.end for case in cases if case.intact and case.end}):
            engine.update(view[done:end])
            digests[end], done = engine.copy().hexdigest(), end
        return [
            report.model_copy(update={"revision": digests[case.end], "revision_length": case.end})
            if case.intact and case.end
            else report
            for case, report in zip(cases, reports, strict=True)
        ]

    def _tolerated(self) -> Iterator[str]:
        for note in self.document.notes:
            if "not signed" in note:
                yield "có dữ liệu thừa trước %PDF, không thuộc tài liệu được ký và không được đọc"
            else:
                yield "có dữ liệu trước %PDF, được tính trong phạm vi ký"

    # -- step one: which signatures, and where -----------------------------------------------------------------------

    def _cases(self) -> Iterator[_Case]:
        for name, holder in self._signature_fields(self.view):
            reference = holder.get("V")
            value = self.view.get(reference)
            if value is None:
                continue  # an empty field, waiting for a signature
            if not isinstance(value, Dict):
                case = _Case(name, "")
                case.problem(S.ERROR, "the field's value is no signature", "trường chữ ký không chứa chữ ký")
                yield case
                continue
            case = _Case(name, str(self.view.get(value.get("SubFilter")) or ""), value)
            case.holder = holder
            self._place(case, value)
            yield case

    def _signature_fields(self, view: View) -> Iterator[tuple[str, Dict]]:
        form = view.key(view.trailer.get("Root"), "AcroForm")
        if form is None:
            return
        if not isinstance(form, Dict):
            raise Malformed("the form is no dictionary")
        waiting: list[tuple[Any, str, Any]] = [(one, "", None) for one in view.get(form.get("Fields")) or ()]
        seen: set[int] = set()
        while waiting:
            reference, prefix, inherited = waiting.pop(0)
            if isinstance(reference, Ref):
                if reference.number in seen:
                    continue
                seen.add(reference.number)
            value = view.get(reference)
            if not isinstance(value, Dict) or len(seen) > 100_000:
                continue
            name = view.get(value.get("T"))
            name = ".".join(part for part in (prefix, _pdf_text(name)) if part)
            kind = view.get(value.get("FT")) or inherited
            kids = view.get(value.get("Kids"))
            if isinstance(kids, list) and "V" not in value:
                waiting += [(kid, name, kind) for kid in kids]
            elif kind == "Sig":
                yield name, value

    def _place(self, case: _Case, value: Dict) -> None:
        """Gate on form: an exact byte range, around exactly the value's own digits, up to the end of a revision."""
        data = self.document.data
        ranges, contents, span = (
            self.view.get(value.get("ByteRange")),
            value.get("Contents"),
            value.spans.get("Contents"),
        )
        problem = ""
        if value.doubled:
            problem = f"keys given twice: {', '.join(value.doubled)}"
        elif not isinstance(ranges, list) or len(ranges) != 4 or not all(type(one) is int for one in ranges):
            problem = "no byte range of four numbers"
        elif not isinstance(contents, bytes) or span is None or data[span[0] : span[0] + 1] != b"<":
            problem = "the value is no hexadecimal string of its own"
        else:
            first, length, second, rest = ranges
            case.start, case.end = span[0], second + rest
            if first != 0 or length < 0 or rest < 0 or case.end > len(data):
                problem = "the byte range does not begin with the file or ends after it"
            elif (length, second) != span:
                problem = "the byte range leaves out more or less than the value"
        if problem:
            case.problem(S.TAMPERED, problem, "phạm vi ký (ByteRange) bị làm sai lệch")

    def _shared(self, cases: list[_Case]) -> None:
        """One value belongs to one field."""
        counted: dict[int, int] = {}
        for case in cases:
            if case.value is not None:
                counted[id(case.value)] = counted.get(id(case.value), 0) + 1
        for case in cases:
            if case.value is not None and counted[id(case.value)] > 1:
                case.problem(
                    S.TAMPERED,
                    "one signature value is used by several fields",
                    "một chữ ký bị dùng cho nhiều trường ký",
                )

    def _forgotten(self, cases: list[_Case]) -> None:
        """Signatures in the bytes that the present view does not show: removed, not unsigned (gate e)."""
        data = self.document.data
        rights = [self.view.key(self.view.trailer.get("Root"), "Perms", name, "ByteRange") for name in ("UR3", "UR")]
        known = {case.start for case in cases if case.start}
        waiting = [case for case in cases if not case.start]
        for match in re.finditer(rb"/ByteRange[\0\t\n\f\r ]*\[", data):
            at = match.start()
            if self.document.inside_stream(at):
                continue  # a signed file that is attached to this one
            ranges = Parser(data, match.end() - 1).value()
            if ranges in rights:
                continue  # usage rights for Adobe's reader (ISO 32000-1 12.8.2.3): no signature of a person
            begin, end = data.rfind(b"obj", 0, at), data.find(b"endobj", at)
            end = len(data) if end < 0 else end
            if any(begin < start < end for start in known) or waiting:
                continue
            if b"/Contents" not in data[max(begin, 0) : end] and b"/Filter" not in data[max(begin, 0) : end]:
                continue
            self.removed = True
        if self.removed:
            self.findings.append(Finding(kind="signature", value="removed", where="PDF"))

    # -- step two ----------------------------------------------------------------------------------------------------

    def _hold(self, case: _Case, judge: _Judge, digests: _Digests) -> None:
        value = case.value
        if value is None or case.has(S.ERROR, S.TAMPERED):
            if value is not None and isinstance(value.get("Contents"), bytes):
                self._who(case, value["Contents"])
            return
        contents, ranges = value["Contents"], tuple(self.view.get(value["ByteRange"]))
        filter_name = self.view.get(value.get("Filter"))
        if not isinstance(filter_name, str):
            case.problem(S.ERROR, "signature without /Filter", "chữ ký thiếu thông tin định dạng")
            return

        def digest(name: str) -> bytes:
            return digests.of(name, ranges)  # type: ignore[arg-type]

        if case.subfilter == "adbe.x509.rsa_sha1":
            self._plain_rsa(case, judge, contents, digest)
            return
        signed = case.signed = cms.parse(contents)
        if contents[signed.size :].strip(b"\0"):
            case.notes.append("có dữ liệu thừa sau giá trị chữ ký, không thuộc tài liệu")
        content = signed.content
        if case.subfilter == "ETSI.RFC3161":
            if signed.content_type != cms.TST_INFO or content is None:
                raise BadCms("no time-stamp token")
            judge.integrity(case, _digest_of(content), cms.TST_INFO)
            imprint = cms.element(content, 0, len(content)).child(2).children()
            name = cms.HASHES.get(cms.oid(imprint[0].child(0)), "")
            if not name or cms.octets(imprint[1]) != digest(name):
                case.intact = False
                case.problem(
                    S.TAMPERED, "the time-stamp is over other bytes", "nội dung bị thay đổi sau khi đóng dấu thời gian"
                )
            elif name in cms.WEAK_HASHES:
                case.problem(S.WEAK_ALGORITHM, f"digest {name}", "dấu thời gian dùng hàm băm không còn an toàn")
        elif case.subfilter == "adbe.pkcs7.sha1":
            if content is None:
                raise BadCms("adbe.pkcs7.sha1 without its digest")
            judge.integrity(case, _digest_of(content), signed.content_type)
            if content != digest("sha1"):
                case.intact = False
                case.problem(
                    S.TAMPERED, "the content's digest is not the signed one", "nội dung bị thay đổi sau khi ký"
                )
            case.problem(S.WEAK_ALGORITHM, "adbe.pkcs7.sha1", "định dạng adbe.pkcs7.sha1 dùng hàm băm SHA-1")
        elif case.subfilter in DETACHED:
            if signed.content is not None:
                raise BadCms("a detached signature that holds content")
            judge.integrity(case, digest, signed.content_type)
        else:
            raise BadCms(f"signature format {case.subfilter or 'unnamed'} is unknown")
        judge.identity(case)

    def _who(self, case: _Case, contents: bytes) -> None:
        """Whose a signature claims to be that is broken already: for the report."""
        try:
            case.signed = cms.parse(contents)
            case.certificate = cms.find_signer(case.signed)
            case.algorithm = case.signed.signer.algorithm
            if case.certificate is not None:
                case.kind = kind_of(case.certificate)
        except (BadCms, ValueError):
            return

    def _plain_rsa(self, case: _Case, judge: _Judge, contents: bytes, digest: Callable[[str], bytes]) -> None:
        """adbe.x509.rsa_sha1: a bare PKCS #1 signature, the certificates beside it. Weak by its name."""
        assert case.value is not None
        chain = self.view.get(case.value.get("Cert"))
        chain = chain if isinstance(chain, list) else [chain]
        certificates = [
            x509.load_der_x509_certificate(one) for one in map(self.view.get, chain) if isinstance(one, bytes)
        ]
        if not certificates:
            raise BadCms("the signer's certificate is missing")
        case.certificate, case.others = certificates[0], certificates[1:]
        case.algorithm = "RSA PKCS#1 v1.5, SHA1"
        case.kind = kind_of(certificates[0])
        key = certificates[0].public_key()
        signature = cms.octets(cms.element(contents, 0, len(contents)))
        case.intact = isinstance(key, rsa.RSAPublicKey) and cms.rsa_pkcs1(key, signature, "sha1", digest("sha1"))
        if not case.intact:
            case.problem(S.TAMPERED, "the signature does not verify", "nội dung hoặc chữ ký đã bị thay đổi sau khi ký")
        case.problem(S.WEAK_ALGORITHM, "adbe.x509.rsa_sha1", "định dạng adbe.x509.rsa_sha1 dùng hàm băm SHA-1")
        case.path = self.trust.path(certificates[0], case.others)
        if case.path is None:
            case.problem(
                S.UNTRUSTED_CHAIN, "no path to a pinned root", "không tìm thấy đường dẫn đến chứng thư gốc tin cậy"
            )
        claimed = _claimed(case.value)
        case.signed_at, case.time_source = (claimed, "claimed") if claimed else (self.first_seen, "first_sight")

    def _security_store(self) -> tuple[Evidence, list[x509.Certificate]]:
        """The DSS dictionary (ISO 32000-2 12.8.4.3): anyone can add to it, so all of it is checked before use."""
        evidence, certificates = Evidence(), list[x509.Certificate]()
        store = self.view.key(self.view.trailer.get("Root"), "DSS")
        if not isinstance(store, Dict):
            return evidence, certificates
        for key in ("CRLs", "OCSPs", "Certs"):
            for one in (self.view.get(store.get(key)) or [])[:256]:
                stream = self.view.get(one)
                if not isinstance(stream, Stream):
                    continue
                try:
                    body = self.document.unpack(stream, view=self.view)
                    if key == "CRLs":
                        evidence.crls.append(body)
                    elif key == "OCSPs":
                        evidence.ocsps.append(body)
                    else:
                        certificates.append(x509.load_der_x509_certificate(body))
                except (Malformed, ValueError):
                    continue
        return evidence, certificates

    # -- step three --------------------------------------------------------------------------------------------------

    def _afterwards(self, cases: list[_Case]) -> None:
        """What came after each signature, newest signature first: a later one vouches for the update it came with only
        when it stands itself. above: None without a later signature, else whether all of them stand."""
        above: bool | None = None
        for case in sorted(cases, key=lambda one: one.end, reverse=True):
            if case.value is None or case.has(S.ERROR, S.TAMPERED) or not case.end:
                above = False
                continue
            try:
                self._later(case, above)
                self._certified(case, cases)
            except Malformed as error:
                case.problem(S.PARTIAL_COVERAGE, f"later revisions: {error}", "phần bổ sung sau khi ký không đọc được")
            stands = not case.has(S.UNTRUSTED_CHAIN, S.REVOKED, S.EXPIRED_AT_SIGNING, S.PARTIAL_COVERAGE, S.TAMPERED)
            above = stands and above is not False

    def _later(self, case: _Case, above: bool | None) -> None:
        document = self.document
        tail = document.data[case.end :]
        case.covers = not tail.strip(b"\0\t\n\f\r ")
        if not document.ends_revision(case.end):
            reason = "phần được ký không phải là một bản hoàn chỉnh của tài liệu"
            case.problem(S.PARTIAL_COVERAGE, "the bytes signed do not end with a revision", reason)
            return
        if case.covers:
            if tail:
                case.notes.append("có khoảng trắng sau phần được ký")
            if document.view_at(case.end).first != self.view.first:
                raise Malformed("the present view is not the signed one")
            return
        if not document.ends_revision(len(document.data)):
            case.problem(
                S.PARTIAL_COVERAGE, "bytes after the last revision", "có dữ liệu được nối thêm vào cuối tệp sau khi ký"
            )
        change = updates.judge(document, document.view_at(case.end), self.view)
        reasons = "; ".join(change.reasons)
        if change.level is updates.Level.CHANGED:
            case.problem(
                S.TAMPERED, f"changed after signing: {reasons}", "nội dung đã ký bị thay đổi ở bản cập nhật sau"
            )
        elif change.level is updates.Level.ADDITIONS:
            case.problem(S.PARTIAL_COVERAGE, f"added after signing: {reasons}", "có nội dung được thêm vào sau khi ký")
        elif change.level is updates.Level.SIGNATURES and not above and not case.has(S.UNTRUSTED_CHAIN):
            case.problem(
                S.PARTIAL_COVERAGE,
                "a later update is not covered by a signature that stands",
                "phần bổ sung sau khi ký không được bảo đảm bằng một chữ ký hợp lệ",
            )
        elif change.level is updates.Level.SIGNATURES:
            case.notes.append("sau chữ ký này chỉ bổ sung chữ ký khác")
        elif change.level is updates.Level.NONE:
            raise Malformed("bytes after the signed revision that no revision uses")
        else:
            case.notes.append("sau chữ ký này chỉ bổ sung dữ liệu kiểm tra chữ ký hoặc thông tin tệp")

    def _certified(self, case: _Case, cases: list[_Case]) -> None:
        """A certification (DocMDP, ISO 32000-1 12.8.2.2) or lock that allows no change but validation data and document
        time-stamps. Signatures and form fields are allowed at P=2, annotations at P=3; what we let pass is less."""
        value, field = case.value, case.holder
        permission = None
        for one in (self.view.get(value.get("Reference")) if value is not None else None) or ():
            if self.view.key(one, "TransformMethod") == "DocMDP":
                permission = self.view.key(one, "TransformParams", "P") or 2
        if permission is not None:
            case.notes.append(f"chữ ký chứng nhận tài liệu (DocMDP, mức {permission})")
        if permission != 1 and self.view.key(field, "Lock", "P") != 1:
            return
        later = [one for one in cases if one.end > case.end and one.subfilter != "ETSI.RFC3161"]
        if later:
            case.problem(
                S.PARTIAL_COVERAGE,
                "signed again although certified against any change",
                "tài liệu được chứng nhận không cho thay đổi nhưng vẫn được ký thêm",
            )

    # -- shadow attacks that were prepared but not carried out yet ---------------------------------------------------

    def _prepared(self, cases: list[_Case]) -> None:
        """Before the swap nothing is wrong with the signature; the file gives itself away by a second document that its
        signed revision carries and does not show."""
        hidden = shadow(self.document)
        if hidden:
            self.findings.append(Finding(kind="active", value="shadow", where="PDF", evidence=hidden))
            for case in cases:
                case.problem(
                    S.ERROR, f"prepared for a swap: {hidden}", "tệp chứa sẵn nội dung ẩn có thể bị tráo sau khi ký"
                )

    # -- where on the pages ------------------------------------------------------------------------------------------

    def _boxes(self) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
        wanted: list[Dict] = []
        for _, holder in self._signature_fields(self.view):
            if self.view.get(holder.get("V")) is None:
                continue
            kids = self.view.get(holder.get("Kids"))
            widgets = [self.view.get(one) for one in kids] if isinstance(kids, list) else [holder]
            wanted += [one for one in widgets if isinstance(one, Dict) and _area(self.view.get(one.get("Rect")))]
        if not wanted:
            return
        listed = list(updates.pages(self.view))
        numbers = {reference.number: number for number, (reference, _) in enumerate(listed)}
        for widget in wanted:
            place = widget.get("P")
            number = numbers.get(place.number) if isinstance(place, Ref) else None
            if number is None:
                number = next((n for n, (_, page) in enumerate(listed) if self._carries(page, widget)), None)
            if number is not None:
                box = _box(self.view, listed[number][1], self.view.get(widget["Rect"]))
                if box is not None:
                    yield number + 1, box

    def _carries(self, page: Dict, widget: Dict) -> bool:
        return any(self.view.get(one) is widget for one in self.view.get(page.get("Annots")) or ())


def shadow(document: Document) -> str:
    """What a file holds ready for a later swap (shadow attacks, NDSS 2021), or an empty string.

    The swap itself is refused as a change after signing (`updates.py`); this finds files made for it before it happens:
    objects that stand in the signed bytes and that no cross-reference section lists, so that an update could bring them
    up; a number defined twice in one revision; and form fields that show something else than their value or lie on top
    of each other, so that redrawing them would show other words.
    """
    listed = document.listed()
    for number, generation, offset in document.definitions():
        if offset in listed.get(number, ()):
            continue
        try:
            found, _, value = document.object_at(offset)
        except Malformed:
            continue
        head = value.head if isinstance(value, Stream) else value
        if found != number or not isinstance(head, Dict) or document.inside_stream(offset):
            continue
        if isinstance(value, Stream) and head.get("Subtype") != "Form":
            continue  # tools leave pictures and validation data behind; a swap needs a page, a field or its looks
        if any(_equal(document, value, other) for other in listed.get(number, ())):
            continue  # written twice alike: nothing to swap
        if number in listed or document.referrers(number, document.latest) or head.get("Type") in _PAGE_TYPES:
            return f"object {number} {generation} stands in the file and is not listed"
    return _widgets(document.latest)


def _equal(document: Document, value: Any, offset: int) -> bool:
    try:
        other = document.object_at(offset)[2]
    except Malformed:
        return False
    return type(value) is type(other) and not isinstance(value, Stream) and bool(value == other)


_PAGE_TYPES = ("Page", "Pages", "Catalog")


def _widgets(view: View) -> str:
    """Text fields that show other words than they hold, or that cover one another."""
    if b"/Tx" not in view.document.data and not view.containers:
        return ""
    boxes: list[tuple[Any, list[float]]] = []
    for _, page in updates.pages(view):
        annotations = view.get(page.get("Annots"))
        for one in annotations if isinstance(annotations, list) else ():
            widget = view.get(one)
            if not isinstance(widget, Dict) or widget.get("Subtype") != "Widget" or widget.get("FT") != "Tx":
                continue
            value, look = view.get(widget.get("V")), view.key(widget, "AP", "N")
            if isinstance(value, bytes) and value and isinstance(look, Stream) and not _shows(view, look, value):
                return f"a form field holds {len(value)} characters that it does not show"
            box = view.get(widget.get("Rect"))
            if not _area(box):
                continue
            for other_page, other in boxes:
                if other_page is page and _covers(box, other):
                    return "form fields lie on top of each other"
            boxes.append((page, box))
    return ""


def _shows(view: View, look: Stream, value: bytes) -> bool:
    """Do the words of a field's value occur in its appearance? Only plain Latin text can be compared."""
    words = re.findall(rb"[A-Za-z0-9]{3,}", value)
    if not words or value.startswith(b"\xfe\xff"):
        return True
    try:
        drawn = view.document.unpack(look, view=view)
    except Malformed:
        return True
    shown = b"".join(re.findall(rb"\(((?:[^()\\\\]|\\\\.)*)\)", drawn))
    return not shown or all(word in shown for word in words[:16])


def _covers(box: list[float], other: list[float]) -> bool:
    """Is more than half of the smaller rectangle inside the other?"""
    across = min(max(box[0], box[2]), max(other[0], other[2])) - max(min(box[0], box[2]), min(other[0], other[2]))
    down = min(max(box[1], box[3]), max(other[1], other[3])) - max(min(box[1], box[3]), min(other[1], other[3]))
    if across <= 0 or down <= 0:
        return False
    sizes = [abs(one[2] - one[0]) * abs(one[3] - one[1]) for one in (box, other)]
    return across * down > 0.5 * min(sizes)


# -- names, times, reports ---------------------------------------------------------------------------------------------

#: Words that begin the names of agencies, units and companies.
_BODIES = (
    "ủy ban", "uỷ ban", "ubnd", "hội đồng", "sở", "bộ", "ban", "cục", "chi cục", "tổng cục", "vụ", "văn phòng", "phòng",
    "trung tâm", "thanh tra", "kho bạc", "trường", "bệnh viện", "viện", "công ty", "tổng công ty", "chi nhánh",
    "đảng ủy",
    "huyện ủy", "tỉnh ủy", "thành ủy", "công an", "tòa án", "toà án", "hội", "đoàn", "liên đoàn", "ngân hàng", "quỹ",
    "chính phủ", "quốc hội", "bảo hiểm", "cơ quan", "ủy", "tập đoàn", "hạt kiểm lâm", "trạm", "đài", "báo", "tổ chức",
)  # fmt: skip


def kind_of(certificate: x509.Certificate) -> str:
    """Whose a certificate is: `person` or `organisation`, by its identifiers, else by its name."""
    ids = [str(one.value).upper() for one in certificate.subject.get_attributes_for_oid(NameOID.USER_ID)]
    if any(one.startswith(("CCCD:", "CMND:", "HC:", "PID:")) for one in ids):
        return "person"
    if any(certificate.subject.get_attributes_for_oid(one) for one in (NameOID.SURNAME, NameOID.GIVEN_NAME)):
        return "person"
    common = _attribute(certificate.subject, NameOID.COMMON_NAME).casefold()
    if common in (
        _attribute(certificate.subject, one).casefold()
        for one in (NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
    ):
        return "organisation"
    if any(common == word or common.startswith(word + " ") for word in _BODIES):
        return "organisation"
    if ids and all(one.startswith(("MST:", "MNS:", "MDD:")) for one in ids):
        return "organisation"
    return "person" if common else ""


def _digest_of(content: bytes) -> Callable[[str], bytes]:
    return lambda name: hashlib.new(name, content).digest()


def _attribute(name: x509.Name, kind: x509.ObjectIdentifier) -> str:
    import unicodedata

    values = name.get_attributes_for_oid(kind)
    return unicodedata.normalize("NFC", str(values[0].value)) if values else ""


def _identifiers(certificate: x509.Certificate) -> tuple[str, ...]:
    """What a directory can match: UID values, e-mail addresses, organisation and unit names, SHA-256 fingerprint."""
    found: list[str] = []
    for kind in (NameOID.USER_ID, NameOID.EMAIL_ADDRESS, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME):
        found += [str(one.value) for one in certificate.subject.get_attributes_for_oid(kind)]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += names.get_values_for_type(x509.RFC822Name)
    except (x509.ExtensionNotFound, ValueError):
        pass
    found.append(certificate.fingerprint(hashes.SHA256()).hex())
    return tuple(dict.fromkeys(found))


def _archived(signed: SignedData, evidence: Evidence) -> None:
    """Adobe's revocation archive among the signed attributes (ISO 32000-1 12.8.3.3.2): CRLs [0], OCSP answers [1]."""
    try:
        node = signed.signer.one(cms.REVOCATION_ARCHIVAL)
        for part in node.children() if node is not None else ():
            items = [one.raw for inner in part.children() for one in inner.children()]
            (evidence.crls if part.tag == 0xA0 else evidence.ocsps if part.tag == 0xA1 else []).extend(items)
    except BadCms:
        return


def _claimed(value: Dict | None) -> dt.datetime | None:
    """The signature dictionary's /M (ISO 32000-1 7.9.4): `D:20260102030405+07'00'`."""
    raw = value.get("M") if value is not None else None
    match = re.match(rb"(?:D:)?(\d{14})(?:([+-])(\d\d)'?(\d\d)?|Z)?", raw) if isinstance(raw, bytes) else None
    if match is None:
        return None
    offset = dt.timedelta(hours=int(match[3] or 0), minutes=int(match[4] or 0))
    try:
        zone = dt.timezone(-offset if match[2] == b"-" else offset)
        return dt.datetime.strptime(match[1].decode(), "%Y%m%d%H%M%S").replace(tzinfo=zone)
    except ValueError:
        return None


def _report(case: _Case) -> Signature:
    state, reason, vi = S.VALID, "", ""
    for one in _ORDER:
        found = [(why, told) for found_state, why, told in case.problems if found_state is one]
        if found:
            state = one
            reason, vi = (
                "; ".join(dict.fromkeys(why for why, _ in found)),
                "; ".join(dict.fromkeys(t for _, t in found)),
            )
            break
    notes = list(case.notes)
    for other, _, told in case.problems:
        if other is not state and other is not S.VALID_UNTIMESTAMPED and told not in notes and told != vi:
            notes.append(told)
    certificate = case.certificate
    subject = certificate.subject if certificate is not None else None
    text = STATE_VI[state] + (f": {vi}" if vi and vi != STATE_VI[state] else "")
    return Signature(
        state=state,
        field=case.field,
        kind=case.kind,  # type: ignore[arg-type]
        signer=_attribute(subject, NameOID.COMMON_NAME) if subject else "",
        organisation=_attribute(subject, NameOID.ORGANIZATION_NAME) if subject else "",
        subject=subject.rfc4514_string() if subject else "",
        subject_ids=_identifiers(certificate) if certificate is not None else (),
        issuer=_attribute(certificate.issuer, NameOID.COMMON_NAME) if certificate is not None else "",
        trust=case.path.world if case.path is not None else "",  # type: ignore[arg-type]
        signed_at=_show(case.signed_at),
        timestamped=case.time_source == "timestamp",
        time_source=case.time_source,  # type: ignore[arg-type]
        valid_from=_show(certificate.not_valid_before_utc) if certificate is not None else "",
        valid_to=_show(certificate.not_valid_after_utc) if certificate is not None else "",
        covers_whole_file=case.covers,
        subfilter=case.subfilter,
        algorithm=case.algorithm,
        conditions=_conditions(case),
        notes=tuple(dict.fromkeys(notes)),
        reason=reason,
        reason_vi=text,
    )


def _conditions(case: _Case) -> tuple[Condition, ...]:
    """The four conditions of Article 9.2, each by itself; None where no machine can tell."""
    if case.intact is None and not case.has(S.TAMPERED):
        unknown = "không đọc được chữ ký"
        return tuple(Condition(number=number, met=None, reason=unknown) for number in (1, 2, 3, 4))
    first: bool | None = True
    why = ""
    if not case.intact or case.has(S.EXPIRED_AT_SIGNING, S.REVOKED):
        first, why = (
            False,
            "; ".join(t for s, _, t in case.problems if s in (S.TAMPERED, S.EXPIRED_AT_SIGNING, S.REVOKED)),
        )
    elif case.path is None:
        first, why = None, "chưa xác định được chứng thư tin cậy"
    elif case.has(S.UNKNOWN_REVOCATION):
        first, why = None, "chưa kiểm tra được tình trạng thu hồi"
    elif case.time_source != "timestamp":
        first, why = None, "thời điểm ký chưa được xác nhận bằng dấu thời gian"
    second = case.path is not None
    whole = bool(case.intact) and not case.has(S.TAMPERED, S.PARTIAL_COVERAGE, S.ERROR)
    return (
        Condition(number=1, met=first, reason=why),
        Condition(number=2, met=second, reason="" if second else "không có đường dẫn đến chứng thư gốc tin cậy"),
        Condition(number=3, met=None, reason="giả định theo chính sách của tổ chức cấp chứng thư"),
        Condition(
            number=4,
            met=whole,
            reason=""
            if whole
            else "; ".join(t for s, _, t in case.problems if s in (S.TAMPERED, S.PARTIAL_COVERAGE, S.ERROR)),
        ),
    )


def _broken(reason: str, subfilter: str = "") -> Signature:
    case = _Case("", subfilter)
    case.problem(S.ERROR, reason, "không đọc được chữ ký số trong tệp")
    return _report(case)


def _show(at: dt.datetime | None) -> str:
    return at.astimezone(VIETNAM).isoformat(timespec="seconds") if at is not None else ""


def _pdf_text(value: Any) -> str:
    """A text string (ISO 32000-1 7.9.2.2) as far as a field's name needs it."""
    if not isinstance(value, bytes):
        return ""
    text = value[2:].decode("utf-16-be", "replace") if value.startswith(b"\xfe\xff") else value.decode("latin-1")
    return text if text.isprintable() else ""


def _looks_signed(data: bytes) -> bool:
    return b"/ByteRange" in data or b"/FT/Sig" in data or b"/FT /Sig" in data or b"/Type/Sig" in data


def _area(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(one, (int, float)) for one in box)
        and abs(box[2] - box[0]) > 1
        and abs(box[3] - box[1]) > 1
    )


def _box(view: View, page: Dict, rectangle: list[float]) -> tuple[float, float, float, float] | None:
    """A rectangle of a page in fractions of the page as it is shown: left, top, right, bottom."""
    frames = [one for key in ("CropBox", "MediaBox") if _area(one := _inherited(view, page, key))]
    if not frames:
        return None
    # What a viewer shows is the part of the crop box that lies on the sheet.
    left, right = max(min(one[0], one[2]) for one in frames), min(max(one[0], one[2]) for one in frames)
    low, high = max(min(one[1], one[3]) for one in frames), min(max(one[1], one[3]) for one in frames)
    if left >= right or low >= high:
        return None
    x0, x1 = sorted(((rectangle[0] - left) / (right - left), (rectangle[2] - left) / (right - left)))
    y0, y1 = sorted(((high - rectangle[1]) / (high - low), (high - rectangle[3]) / (high - low)))
    turn = _inherited(view, page, "Rotate")
    turn = turn % 360 if isinstance(turn, int) else 0
    if turn == 90:
        x0, y0, x1, y1 = 1 - y1, x0, 1 - y0, x1
    elif turn == 180:
        x0, y0, x1, y1 = 1 - x1, 1 - y1, 1 - x0, 1 - y0
    elif turn == 270:
        x0, y0, x1, y1 = y0, 1 - x1, y1, 1 - x0
    clean = [min(1.0, max(0.0, one)) for one in (x0, y0, x1, y1)]
    return (clean[0], clean[1], clean[2], clean[3])


def _inherited(view: View, page: Any, key: str) -> Any:
    for _ in range(64):
        if not isinstance(page, Dict):
            return None
        found = view.get(page.get(key))
        if found is not None:
            return [view.get(one) for one in found] if isinstance(found, list) else found
        page = view.get(page.get("Parent"))
    return None


def _decryption(document: Document) -> None:
    """Open a file that needs no password to read. Only structural streams need it: a signature's value is never
    encrypted, and its byte range is about the encrypted bytes. Raises Malformed."""
    import io
    import logging

    from pyhanko.pdf_utils.crypt import AuthStatus
    from pyhanko.pdf_utils.generic import Reference
    from pyhanko.pdf_utils.misc import PdfReadError
    from pyhanko.pdf_utils.reader import PdfFileReader

    logging.getLogger("pyhanko").setLevel(logging.CRITICAL)
    try:
        reader = PdfFileReader(io.BytesIO(document.data), strict=False)
        opened = reader.decrypt(b"").status is not AuthStatus.FAILED
    except (PdfReadError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Malformed(f"encrypted in a way that cannot be read: {error}") from None
    if not opened:
        raise Malformed("encrypted, a password is needed")

    def decoded(stream: Stream) -> bytes:
        try:
            return bytes(reader.get_object(Reference(stream.number, stream.generation, reader)).data)
        except (PdfReadError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Malformed(f"encrypted stream cannot be read: {error}") from None

    document.decoded = decoded
