"""The facts that checks bring home. Nothing here decides anything.

All of it crosses the border between the worker processes and the daemon as JSON and is kept in the archive, so that
another policy can be tried on old mail without reading it again. Workers read hostile files: what they send is
validated on arrival like any other input (pydantic, extra keys refused).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    OK = "ok"
    FAILED = "failed"  # the check broke or could not read its input
    TIMED_OUT = "timed_out"  # it was stopped by its budget
    SKIPPED = "skipped"  # it had no reason to run, or its helper program is not configured


class CheckRun(Fact):
    """That a check ran, and how it ended. A check that failed is not a check that agreed (design.md promise 4).

    about: path of the file (`hoso.zip/12-BC.pdf`), `subject`, `body`, or empty for the whole message.
    """

    check: str  # mime, containers, text, ocr, secrecy, signature, seal, document, sender, malware
    status: Status
    about: str = ""
    reason: str = ""  # English, one line, for the log and for `failed` of `inspect --json`; never content
    ms: int = 0


class Finding(Fact):
    """One thing a check saw.

    kind: `secrecy`, `urgency`, `circulation`, `charset`, `active`, `mime`, `filename`, `uninspectable`, `ambiguous`,
    `mode_line`, `auto_submitted` … ; value: level or sub-kind (`toi_mat`, `hoa_toc`, `tcvn3`, `macro`, `javascript`,
    `launch`, `executable`, `encrypted`, `polyglot`); grade: `strong` or `weak` where evidence is graded;
    where: place for a person (`trang 1`, `tiêu đề`, `word/header1.xml`); evidence: short quotation, EMPTY for secrecy.
    """

    kind: str
    value: str = ""
    grade: Literal["", "strong", "weak"] = ""
    about: str = ""
    where: str = ""
    evidence: str = ""


class SignatureState(StrEnum):
    """rules.md section 1.4."""

    VALID = "VALID"
    VALID_UNTIMESTAMPED = "VALID_UNTIMESTAMPED"
    UNKNOWN_REVOCATION = "UNKNOWN_REVOCATION"
    EXPIRED_AT_SIGNING = "EXPIRED_AT_SIGNING"
    REVOKED = "REVOKED"
    UNTRUSTED_CHAIN = "UNTRUSTED_CHAIN"
    TAMPERED = "TAMPERED"
    PARTIAL_COVERAGE = "PARTIAL_COVERAGE"
    WEAK_ALGORITHM = "WEAK_ALGORITHM"
    SUBJECT_MISMATCH = "SUBJECT_MISMATCH"
    NO_SIGNATURE = "NO_SIGNATURE"
    ERROR = "ERROR"


class Condition(Fact):
    """One of the four conditions of Article 9.2 (seed 002): number 1 to 4; met: None = cannot be checked by machine."""

    number: int
    met: bool | None
    reason: str = ""


class Signature(Fact):
    """One digital signature of a file. Times are RFC 3339 with offset."""

    state: SignatureState
    field: str = ""
    kind: Literal["", "person", "organisation", "timestamp"] = ""
    signer: str = ""  # common name of the certificate's subject
    organisation: str = ""
    subject: str = ""  # whole distinguished name
    # UID values (MST:…, MNS:…), e-mail addresses, organisation names and SHA-256 fingerprint, to match the directory
    subject_ids: tuple[str, ...] = ()
    issuer: str = ""
    trust: Literal["", "chuyen_dung", "quoc_gia"] = ""
    signed_at: str = ""
    timestamped: bool = False
    time_source: Literal["", "timestamp", "claimed", "first_sight"] = ""
    valid_from: str = ""
    valid_to: str = ""
    covers_whole_file: bool = False
    subfilter: str = ""
    algorithm: str = ""
    conditions: tuple[Condition, ...] = ()
    notes: tuple[str, ...] = ()  # tolerated slips, each told
    reason: str = ""  # why this state, English
    reason_vi: str = ""
    # the signed revision: the file's first `revision_length` bytes, up to the end of what is signed, and their SHA-256;
    # only where those bytes are what was signed
    revision: str = ""
    revision_length: int = 0


class Seal(Fact):
    """A round red seal on a page. box: left, top, right, bottom as fractions of the page."""

    page: int
    box: tuple[float, float, float, float]
    score: float
    pasted: bool = False  # an image laid on a born-digital page, or the picture of a signature box


class SealState(StrEnum):
    PRESENT = "PRESENT"
    UNDECIDABLE = "UNDECIDABLE"
    ABSENT = "ABSENT"
    NOT_CHECKED = "NOT_CHECKED"


class DocumentField(Fact):
    value: str
    source: str = ""  # text, ocr, subject, file name, form
    confidence: float = 1.0


class NamedRecipient(Fact):
    """A line of Nơi nhận: name, and purpose as written (`để b/c`)."""

    name: str
    purpose: str = ""


class Document(Fact):
    """The fields of a Vietnamese administrative document (rules.md 3.3 to 3.6). Dates are ISO 8601."""

    code: DocumentField | None = None  # số, ký hiệu: `14/CT-UBND`, normalised without spaces
    kind: DocumentField | None = None  # abbreviation: CT, QĐ, …; CV for công văn
    date: DocumentField | None = None
    place: DocumentField | None = None
    abstract: DocumentField | None = None
    issuing_agency: DocumentField | None = None
    signer: DocumentField | None = None
    signer_title: DocumentField | None = None
    recipients: tuple[NamedRecipient, ...] = ()
    mode_line: Literal["", "electronic_only", "electronic_and_paper", "paper"] = ""
    draft: bool = False  # draft mark, or blank number or date
    # how many parts of form (thể thức) were found: quốc hiệu, agency, place-date, kind or abstract, signer's title,
    # Nơi nhận
    components: int = 0
    annexes_named: tuple[str, ...] = ()
    cites: tuple[str, ...] = ()
    internal: bool = False  # LƯU HÀNH NỘI BỘ and the like
    recall: bool = False


class FileFacts(Fact):
    """One file of the message: an attachment, or a member of a container (`path` = `outer.zip/inner.pdf`)."""

    name: str
    path: str
    sha256: str
    size: int
    # by content: pdf, docx, xlsx, pptx, doc, xls, ppt, rtf, odt, ods, zip, rar, 7z, tar, gz, jpg, png, tiff, eml, txt,
    # html, xml, ics, exe, elf, msi, lnk, js, vbs, iso, p7s, p7m, tnef, unknown …
    type: str
    declared_type: str = ""  # MIME type the sender gave
    inline: bool = False  # an inline picture such as a logo
    depth: int = 0  # 0 = attached to the message itself
    encrypted: bool = False
    damaged: bool = False
    pages: int | None = None
    text_layer: Literal["", "full", "none", "garbage"] = (
        ""  # garbage: private encoding or legacy font without a mapping
    )
    ocr_pages: int = 0
    scan: bool = False
    fonts: tuple[str, ...] = ()  # legacy fonts only (.VnTime, VNI-Times)
    signatures: tuple[Signature, ...] = ()
    signature_removed: bool = False
    seals: tuple[Seal, ...] = ()
    seal_state: SealState = SealState.NOT_CHECKED
    handwritten_signature: bool | None = None
    document: Document | None = None
    files: tuple[str, ...] = ()  # paths of the members of a container


class Mailbox(Fact):
    """A mailbox of a header field; `address` lower-cased, empty when unreadable."""

    name: str = ""
    address: str = ""


class SenderFacts(Fact):
    """Sender authentication (RFC 7208, 6376, 7489): `pass`, `fail`, `softfail`, `neutral`, `none`, `temperror`,
    `permerror`, or empty when not run.

    aligned: From domain is proved by aligned DKIM or SPF, or by an authenticated submission.
    """

    spf: str = ""
    dkim: str = ""
    dkim_domains: tuple[str, ...] = ()
    dmarc: str = ""
    arc: str = ""
    aligned: bool = False


class MessageFacts(Fact):
    """The header and structure of the message, as read by `mime.py`."""

    subject: str = ""
    from_: tuple[Mailbox, ...] = ()
    sender: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    date: str = ""
    message_id: str = ""
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    auto_submitted: str = ""
    precedence: str = ""
    list_id: str = ""
    hops: int = 0  # number of Received fields
    first_received_at: str = ""
    charsets: tuple[str, ...] = ()
    body_text: str = ""  # readable body text, cut at 64 KiB, for search and classification
    meeting_start: str = ""  # RFC 3339, from text/calendar or the text
    header_bytes: int = 0


class Inspection(Fact):
    """All facts about one message or file."""

    message: MessageFacts = MessageFacts()
    files: tuple[FileFacts, ...] = ()
    findings: tuple[Finding, ...] = ()
    runs: tuple[CheckRun, ...] = ()
    sender: SenderFacts = SenderFacts()
    texts: dict[
        str, str
    ] = {}  # extracted text by file path, cut per file, for the search index; dropped before facts are archived

    @property
    def failed(self) -> tuple[CheckRun, ...]:
        return tuple(run for run in self.runs if run.status in (Status.FAILED, Status.TIMED_OUT))
