"""What we say to people: replies in the session, notices, delivery status notifications. Pure: values in, bytes out.

The words are in `templates/*.yaml`, one file each; an administrator overwrites one by a file of the same name in
`config/templates/`. Vietnamese comes first, English after it. Nothing here quotes a message, and of a message that is,
or may be, a secret not even the subject, a file name or a level is named.

Everything we write has the null reverse-path and `Auto-Submitted`, and `may_notify` says whom nothing is written to.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import html
import json
import quopri
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.header import Header
from email.headerregistry import Address as HeaderAddress
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway.config import Contacts, Settings, load
from gateway.errors import ConfigError, Problem, Reply
from gateway.inspection.findings import Document, Inspection, MessageFacts
from gateway.message import VIETNAM, NullSender, Received, Sender
from gateway.vietnamese import nfc

if TYPE_CHECKING:
    from gateway.policy import Finding, Verdict

#: The one sentence for a secret, in the session and nowhere longer (rules.md 4.2).
SECRET_REPLY = Reply(550, "VBDT POLICY Thong diep bi tu choi", "7.1")

#: Longest text of a reply line: RFC 5321 section 4.5.3.1.5 allows 512 octets for the whole line.
_REPLY_ROOM = 440

#: design.md section 3, weakest to strongest. Compared by number, so that verdicts read back from the archive serve too.
DELIVER, DELIVER_WARN, HOLD, RETURN, REJECT_MALWARE, BLOCK_SECRET = range(1, 7)


class Judged(Protocol):
    """What of a verdict is needed here: `policy.Verdict`, or one read back from the archive."""

    @property
    def disposition(self) -> int: ...
    @property
    def findings(self) -> Sequence[Finding]: ...


# ---------------------------------------------------------------------------------------------------- templates


class Template(Settings):
    """One file of `templates/`. `{name}` stands for a value; `[[ … ]]` is left out when a value in it is missing."""

    code: str = ""  # as in rules.md 4.2: MB-FREE
    reply: str = ""  # one line, ASCII, for the SMTP session
    subject_vi: str = ""
    subject_en: str = ""
    vi: str = ""
    en: str = ""


#: Values a template may ask for.
VALUES = {
    "abstract", "address", "agency_name", "case", "cert_since", "clerk_email", "clerk_phone", "detected_type",
    "document_code", "encoding_vi", "file_name", "font", "hours", "integrity_vi", "issued_date", "issuer",
    "issuing_agency", "limit", "list", "list_item_vi", "mail_admin", "meeting_start", "n_found", "n_listed",
    "official_address", "outcome", "reason", "reason_en", "received_at", "received_date", "recipients",
    "security_officer", "sender_address", "sender_display", "sha256", "signature_state_vi", "signing_time",
    "state_vi", "subject", "subject_of_certificate", "time_source_vi", "until", "valid_from", "valid_to",
}  # fmt: skip
NAMES = (
    *(f"N{number:02}" for number in range(19)),
    "head", "tail", "returned", "alert", "clerk", "urgent", "warning",
    "dsn-failed", "dsn-delayed", "dsn-delivered", "dsn-relayed",
)  # fmt: skip

_PACKAGED = Path(__file__).parent / "templates"
_PLACE = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[\[(.*?)\]\]")


class Templates:
    """The texts: those of the package, and in front of them those of a folder. Raises ConfigError for a bad file."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._read: dict[str, Template] = {}

    def get(self, name: str) -> Template:
        if name not in self._read:
            own = self._folder / f"{name}.yaml" if self._folder is not None else None
            path = own if own is not None and own.is_file() else _PACKAGED / f"{name}.yaml"
            template = load(Template, path, f"templates/{path.name}")
            _check(path, template)
            self._read[name] = template
        return self._read[name]

    def check(self) -> None:
        """Read them all; also a file whose name is none of ours is a mistake."""
        problems = []
        for path in sorted(self._folder.glob("*")) if self._folder is not None and self._folder.is_dir() else ():
            if path.stem not in NAMES or path.suffix != ".yaml":
                problems.append(Problem(f"templates/{path.name}", 0, 0, f"no such template; known: {', '.join(NAMES)}"))
        for name in NAMES:
            try:
                self.get(name)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)


_templates = Templates()


def use_templates(folder: Path | None) -> None:
    """Take the texts of `config/templates/` before ours, from now on. Raises ConfigError and then changes nothing."""
    global _templates
    fresh = Templates(folder)
    fresh.check()
    _templates = fresh


def _check(path: Path, template: Template) -> None:
    problems = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        for found in _PLACE.finditer(line):
            if found[1] not in VALUES:
                text = f"unknown value {found[0]}; known: {', '.join(sorted(VALUES))}"
                problems.append(Problem(f"templates/{path.name}", number, found.start() + 1, text))
    if not template.reply.isascii():
        number = next((n for n, line in enumerate(lines, 1) if line.startswith("reply:")), 0)
        problems.append(Problem(f"templates/{path.name}", number, 1, "reply: goes into the SMTP session, ASCII only"))
    if problems:
        raise ConfigError(problems)


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with its values; an optional part with a value missing is left out, elsewhere `…` stands for it.

    A line of which nothing is left goes too."""

    def optional(part: re.Match[str]) -> str:
        return part[1] if all(values.get(name) for name in _PLACE.findall(part[1])) else ""

    rows = []
    for row in text.split("\n"):
        filled = _OPTIONAL.sub(optional, row)
        if filled.strip() or not row.strip():
            rows.append(_PLACE.sub(lambda found: values.get(found[1]) or "…", filled))
    return "\n".join(rows)


# ------------------------------------------------------------------------------------------------- in the session


def reply(verdict: Judged, case: str) -> Reply:
    """The answer to the end of data, one ASCII line."""
    if verdict.disposition == BLOCK_SECRET:
        return SECRET_REPLY
    if verdict.disposition >= RETURN:
        return reply_to_findings(_weighty(verdict), case)
    if verdict.disposition == HOLD:
        return Reply(250, f"VBDT HOLD {_templates.get('N18').reply}, ma {case}", "0.0")
    warned = [_code(one) for one in told(verdict)]
    if warned:
        return Reply(250, f"Ok, accepted as {case}, luu y {_first_two(warned)}", "0.0")
    return Reply(250, f"Ok, accepted as {case}", "0.0")


def reply_to_findings(findings: Sequence[Finding], case: str) -> Reply:
    """The refusal for these findings: the first two codes with their texts, how many more, and the case to ask for."""
    if any(_secret(one) for one in findings):
        return SECRET_REPLY
    by_code: dict[str, str] = {}
    for one in sorted(findings, key=lambda one: -one.disposition):
        by_code.setdefault(_code(one), _reply_text(one))
    shown = [f"{code} {text}".strip() for code, text in list(by_code.items())[:2]]
    if not shown:  # a refusal always names a reason; this one does not know it
        shown = ["POLICY Thong diep khong phu hop quy dinh"]
    end = f"; va {len(by_code) - 2} loi khac" if len(by_code) > 2 else ""
    end += f" (ma {case})" if case else ""
    text = "; ".join(shown)
    return Reply(550, f"VBDT {_cut(text, _REPLY_ROOM - len(end))}{end}", "7.1")


def _first_two(codes: Iterable[str]) -> str:
    unique = list(dict.fromkeys(codes))
    return ", ".join(unique[:2]) + (f" (+{len(unique) - 2})" if len(unique) > 2 else "")


def _code(finding: Finding) -> str:
    """`MB-FREE`, or the rule's id when no notice speaks of it."""
    return _template_of(finding).code or ascii_only(finding.rule)


def _reply_text(finding: Finding) -> str:
    return _template_of(finding).reply or ascii_only(finding.vi)


def ascii_only(text: str) -> str:
    """Vietnamese without accents, in its own case; anything else that is not ASCII as `?`; one line."""
    plain = unicodedata.normalize("NFD", text).replace("đ", "d").replace("Đ", "D")
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return " ".join("".join(c if c.isprintable() else " " for c in plain.encode("ascii", "replace").decode()).split())


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 3].rstrip() + "..."


def _secret(finding: Finding) -> bool:
    return finding.rule.startswith("SC-")


def told(verdict: Judged) -> list[Finding]:
    """The findings that a sender learns of: those that count now, strongest first. Observed ones are ours alone."""
    findings = [one for one in verdict.findings if one.mode != "observe" and one.disposition > DELIVER]
    return sorted(findings, key=lambda one: -one.disposition)


def _weighty(verdict: Judged) -> list[Finding]:
    return [one for one in told(verdict) if one.disposition >= RETURN]


# --------------------------------------------------------------------------------------------------------- whom not


_MACHINES = re.compile(
    r"(mailer-daemon|postmaster|no-?reply|do-?not-?reply|listserv|majordomo|owner-.*|.*-(request|owner|bounces?))"
    r"([+=].*)?",
    re.IGNORECASE,
)


def may_notify(facts: MessageFacts, sender: Sender | str, authenticated: bool) -> bool:
    """May an automatic message be written to this envelope sender? (RFC 3834 sections 2 and 4, rules.md 0.1)

    Never to the null sender, to a sender that may be forged, to a list, a bounce, an automatic reply or a machine.
    """
    address = str(sender).strip()
    if not authenticated or isinstance(sender, NullSender) or "@" not in address:
        return False
    if _MACHINES.fullmatch(address.rpartition("@")[0]):
        return False
    submitted = facts.auto_submitted.split(";")[0].strip().lower()
    if submitted not in ("", "no"):
        return False
    return facts.precedence.strip().lower() not in ("bulk", "list", "junk") and not facts.list_id.strip()


# ---------------------------------------------------------------------------------------------------------- notices


def notice(
    verdict: Verdict | Judged,
    facts: MessageFacts,
    *,
    sender: str,
    recipients: Sequence[str],
    case: str,
    received_at: dt.datetime,
    sha256: str = "",
    contacts: Contacts,
    hostname: str,
    inspection: Inspection | None = None,
    reason: str = "",
    given_back: bool = False,
) -> bytes | None:
    """The full notice to the sender: every finding with file, page, article and cure. None: there is nothing to say.

    given_back: a person decided to return a held message; `reason` is theirs and is told. inspection: files and
    signatures, for the details; without it the notice says less.
    Returns a whole message, CRLF, ASCII bytes: multipart/mixed of alternative text and HTML, and JSON.
    """
    findings = told(verdict)
    secret = verdict.disposition == BLOCK_SECRET or any(_secret(one) for one in verdict.findings)
    document: Document | None = getattr(verdict, "document", None)
    acknowledges = bool(getattr(verdict, "acknowledge", False))
    if secret:
        names = ["N08" if verdict.disposition == BLOCK_SECRET else "N18"]
        if verdict.disposition < HOLD:
            return None  # a weak mark that was let through is not for the sender to learn from us
        findings, document = [], None
    elif given_back:
        names = ["returned"]
    elif verdict.disposition == HOLD:
        names = ["N18"]
    elif acknowledges and verdict.disposition <= DELIVER_WARN:
        names = ["N00"]  # reminders, if any, follow in the same message
    elif findings:
        names = []
    else:
        return None
    values = {
        "sender_address": sender,
        "sender_display": next((one.name for one in facts.from_ if one.name), "") or sender,
        "recipients": ", ".join(recipients),
        "case": case,
        "received_at": _time(received_at),
        "received_at_en": received_at.astimezone(VIETNAM).strftime("%d/%m/%Y %H:%M:%S (+07:00)"),
        "received_date": _date(received_at),
        "outcome": _DELIVERED[0] if verdict.disposition == DELIVER_WARN and findings else "",
        "outcome_en": _DELIVERED[1] if verdict.disposition == DELIVER_WARN and findings else "",
        "subject": "" if secret else _words(facts.subject),
        "sha256": "" if secret else sha256,
        "address": sender,
        "agency_name": contacts.agency_name or hostname,
        "clerk_phone": contacts.clerk_phone,
        "clerk_email": contacts.clerk_email,
        "mail_admin": contacts.mail_admin,
        "security_officer": contacts.security_officer,
        "reason": "" if secret else _words(reason),
        **_document_values(document),
        "signature_state_vi": _signature_state(document, inspection) if names == ["N00"] else "",
    }
    blocks = [_Block(_templates.get(name), values) for name in names]
    blocks += [_Block(_told_with(one), {**values, **_finding_values(one, inspection)}, one) for one in findings]
    lead = blocks[0]
    more_vi = f" (và {len(blocks) - 1} điểm khác)" if len(findings) > 1 and not names else ""
    vi, en = lead.subject("vi").rstrip("."), lead.subject("en").rstrip(".")
    if not vi.startswith("["):
        vi, en = (mark + said for mark, said in zip(_MARKS.get(verdict.disposition, ("", "")), (vi, en), strict=True))
    subject = f"{vi}{more_vi} / {en}"
    machine: dict[str, Any] = {
        "case": case,
        "received_at": received_at.astimezone(VIETNAM).isoformat(timespec="seconds"),
        "verdict": _verdict_text(verdict),
        "findings": [
            {
                name: getattr(one, name)
                for name in ("rule", "notice", "about", "where", "legal_basis", "vi", "en", "cure_vi", "cure_en")
            }
            for one in findings
        ],
    }
    text = _text(blocks, values)
    page = _html(blocks, values)
    return _mail(
        to=sender, subject=subject, at=received_at, contacts=contacts, hostname=hostname, key=f"notice|{case}|{text}",
        text=text, page=page, machine=machine,
    )  # fmt: skip


def letter(
    *,
    to: str,
    subject: str,
    vi: str,
    en: str,
    facts: Mapping[str, Any],
    at: dt.datetime,
    key: str,
    contacts: Contacts,
    hostname: str,
) -> bytes:
    """A letter of the gateway's own to its operator or an agency: two texts, and the facts as JSON beside them."""
    text = f"{vi}\n\n{_RULE}\n\n{en}\n"
    page = _page(_paragraphs(vi) + "<hr>" + _paragraphs(en))
    return _mail(
        to=to, subject=subject, at=at, contacts=contacts, hostname=hostname, key=key, text=text, page=page,
        machine=facts,
    )  # fmt: skip


def secrecy_alert(received: Received, verdict: Judged, contacts: Contacts, hostname: str) -> bytes:
    """For the security officer: when, from whom, to whom, how large, by which rule. Nothing of the message itself."""
    rules = ", ".join(sorted({one.rule for one in verdict.findings if _secret(one)}))
    values = {
        "sender_address": str(received.envelope.sender) or "<>",
        "recipients": ", ".join(str(one.address) for one in received.envelope.recipients),
        "case": received.case,
        "received_at": _time(received.at),
        "agency_name": contacts.agency_name or hostname,
        "list": f"{rules}; {received.body.size} byte; {received.origin.client or received.origin.peer}",
    }
    block = _Block(_templates.get("alert"), values)
    machine = {
        "case": received.case,
        "received_at": received.at.astimezone(VIETNAM).isoformat(timespec="seconds"),
        "sender": str(received.envelope.sender),
        "recipients": [str(one.address) for one in received.envelope.recipients],
        "size": received.body.size,
        "rules": rules.split(", ") if rules else [],
    }
    text = f"{block.body('vi')}\n\n{_RULE}\n\n{block.body('en')}\n"
    return _mail(
        to=contacts.security_officer, subject=f"{block.subject('vi')} / {block.subject('en')}", at=received.at,
        contacts=contacts, hostname=hostname, key=f"alert|{received.case}", text=text,
        page=_page(_paragraphs(block.body("vi")) + "<hr>" + _paragraphs(block.body("en"))), machine=machine,
    )  # fmt: skip


def clerk_notice(
    verdict: Verdict | Judged,
    received: Received,
    *,
    clerk: str,
    contacts: Contacts,
    hostname: str,
    inspection: Inspection,
) -> bytes:
    """To the văn thư of an agency: a message that others delivered breaks rules, and its sender cannot be written to
    because nobody knows who it is. Every finding, with article and cure; of a secret nothing."""
    secret = any(_secret(one) for one in verdict.findings)
    values = {
        "sender_display": "Văn thư",
        "sender_address": clerk,
        "address": str(received.envelope.sender),
        "recipients": ", ".join(str(one.address) for one in received.envelope.recipients),
        "case": received.case,
        "received_at": _time(received.at),
        "subject": "" if secret else _words(inspection.message.subject),
        "agency_name": contacts.agency_name or hostname,
        "clerk_phone": contacts.clerk_phone,
        "clerk_email": contacts.clerk_email,
        "mail_admin": contacts.mail_admin,
    }
    blocks = [_Block(_templates.get("clerk"), values)]
    found = [] if secret else told(verdict)
    blocks += [_Block(Template(), values, one) for one in found]
    machine = {
        "case": received.case,
        "received_at": received.at.astimezone(VIETNAM).isoformat(timespec="seconds"),
        "sender": str(received.envelope.sender),
        "recipients": [str(one.address) for one in received.envelope.recipients],
        "verdict": _verdict_text(verdict),
        "findings": [
            {
                name: getattr(one, name)
                for name in ("rule", "about", "where", "legal_basis", "vi", "en", "cure_vi", "cure_en")
            }
            for one in found
        ],
    }
    text = _text(blocks, values)
    return _mail(
        to=clerk, subject=f"{blocks[0].subject('vi')} / {blocks[0].subject('en')}", at=received.at, contacts=contacts,
        hostname=hostname, key=f"clerk|{received.case}|{clerk}", text=text, page=_html(blocks, values), machine=machine,
    )  # fmt: skip


def alert_mail(
    name: str,
    values: Mapping[str, str],
    *,
    to: str,
    at: dt.datetime,
    token: str,
    contacts: Contacts,
    hostname: str,
    machine: Mapping[str, Any],
) -> bytes:
    """An alert as a letter (alerts.py). name: its template, `urgent` or `warning`. A reply names `alert_id(…)`."""
    tidy = {key: value if key == "list" else _words(value) for key, value in values.items()}
    block = _Block(_templates.get(name), tidy)
    subject = f"{block.subject('vi')} / {block.subject('en')}"
    head = _head(to, subject, at, contacts, hostname, alert_id(token, hostname), "auto-generated")
    text = f"{block.body('vi')}\n\n{_RULE}\n\n{block.body('en')}\n"
    page = _page(_paragraphs(block.body("vi")) + "<hr>" + _paragraphs(block.body("en")))
    return _letter(head + b"Importance: high\r\n", token, text, page, machine, "canh-bao.json")


def alert_id(token: str, hostname: str) -> str:
    """The Message-ID of an alert."""
    return f"<alert.{token}@{hostname}>"


_RULE = "-" * 60
#: Places that are no files, as a clerk calls them.
_PLACES = {
    "From": ("địa chỉ gửi (From)", "sender (From)"),
    "Sender": ("địa chỉ gửi (Sender)", "sender (Sender)"),
    "MAIL FROM": ("địa chỉ gửi trên phong bì", "envelope sender"),
    "Reply-To": ("địa chỉ trả lời (Reply-To)", "reply address (Reply-To)"),
    "To": ("địa chỉ nhận", "recipient"),
    "body": ("nội dung thư", "body"),
    "subject": ("tiêu đề thư", "subject"),
    "headers": ("phần đầu thư", "header"),
    "meeting": ("", ""),
    "calendar": ("", ""),
}
_DELIVERED = (
    "đã chuyển tới người nhận; các điểm dưới đây là lời nhắc, không phải gửi lại thông điệp này",
    "delivered; what follows is a reminder, the message need not be sent again",
)
#: What begins a subject where the template of the first finding has no such word.
_MARKS = {
    DELIVER_WARN: ("[Nhắc] ", "[Reminder] "),
    HOLD: ("[Tạm giữ] ", "[Held] "),
    RETURN: ("[Trả lại] ", "[Returned] "),
    REJECT_MALWARE: ("[Từ chối] ", "[Refused] "),
}


@dataclass(frozen=True, slots=True)
class _Block:
    """One thing to say: a template with its values, and the finding it speaks of."""

    template: Template
    values: Mapping[str, str]
    finding: Finding | None = None

    def subject(self, language: str) -> str:
        text = self.template.subject_vi if language == "vi" else self.template.subject_en
        if not text and self.finding is not None:
            text = self.finding.vi if language == "vi" else self.finding.en
        return " ".join(fill(text, self.values).split())

    def body(self, language: str) -> str:
        if language == "vi":
            text = fill(self.template.vi, self.values)
        else:  # a value with an English form of its own, such as a time
            text = fill(self.template.en, {k: self.values.get(f"{k}_en", v) for k, v in self.values.items()})
        return "\n".join(row.rstrip() for row in text.strip().split("\n"))

    def details(self, language: str) -> list[tuple[str, str]]:
        one = self.finding
        if one is None:
            return []
        vi = language == "vi"
        parts = (_words(_PLACES.get(part, (part, part))[0 if vi else 1]) for part in (one.about, one.where))
        place = ", ".join(part for part in parts if part)
        details = one.vi if vi else one.en
        rows = [
            ("Chi tiết" if vi else "Details", details if details != self.subject(language) else ""),
            ("Vị trí" if vi else "Place", place),
            ("Căn cứ" if vi else "Legal basis", one.legal_basis),
            ("Cách khắc phục" if vi else "Cure", one.cure_vi if vi else one.cure_en),
        ]
        return [(name, _words(value)) for name, value in rows if value]


def _template_of(finding: Finding) -> Template:
    """The words for a finding; none for one that only holds (N18 speaks of the message, not of a finding)."""
    known = finding.notice in NAMES and finding.notice != "N18"
    return _templates.get(finding.notice) if known else Template()


def _told_with(finding: Finding) -> Template:
    """The words in a notice. A reminder has none where they are those of a return: the message was delivered, and the
    finding itself says what to do."""
    template = _template_of(finding)
    reminder = finding.disposition <= DELIVER_WARN and not template.subject_vi.startswith("[Nhắc]")
    return Template() if reminder else template


def _title(text: str) -> str:
    """A subject without its `[Trả lại]`."""
    return re.sub(r"^\[[^]]*\]\s*", "", text)


def _text(blocks: Sequence[_Block], values: Mapping[str, str]) -> str:
    parts = []
    for language in ("vi", "en"):
        parts.append(_Block(_templates.get("head"), values).body(language))
        numbered = sum(block.finding is not None for block in blocks) > 1
        number = 0
        for block in blocks:
            rows = []
            if block.finding is not None:
                number += 1
                lead = f"{number}. " if numbered else ""
                rows.append(f"{lead}[{block.finding.rule}] {_title(block.subject(language))}")
            rows += [body] if (body := block.body(language)) else []
            rows += [f"- {name}: {value}" for name, value in block.details(language)]
            parts.append("\n".join(rows))
        parts.append(_Block(_templates.get("tail"), values).body(language))
        if language == "vi":
            parts.append(_RULE)
    return "\n\n".join(parts) + "\n"


def _html(blocks: Sequence[_Block], values: Mapping[str, str]) -> str:
    parts = []
    for language in ("vi", "en"):
        parts.append(f'<div lang="{language}">' + _paragraphs(_Block(_templates.get("head"), values).body(language)))
        for block in blocks:
            if block.finding is not None:
                title = f"[{block.finding.rule}] {_title(block.subject(language))}"
                parts.append(f"<h3>{html.escape(title)}</h3>")
            parts.append(_paragraphs(block.body(language)))
            if details := block.details(language):
                rows = "".join(f"<li><b>{html.escape(name)}:</b> {html.escape(value)}</li>" for name, value in details)
                parts.append(f"<ul>{rows}</ul>")
        parts.append(_paragraphs(_Block(_templates.get("tail"), values).body(language)) + "</div>")
        if language == "vi":
            parts.append("<hr>")
    return _page("\n".join(parts))


def _page(content: str) -> str:
    return f'<!DOCTYPE html>\n<html lang="vi"><head><meta charset="utf-8"></head><body>\n{content}\n</body></html>\n'


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{html.escape(part).replace(chr(10), '<br>')}</p>" for part in text.split("\n\n") if part)


def _document_values(document: Document | None) -> dict[str, str]:
    if document is None:
        return {}
    return {
        "document_code": _words(document.code.value) if document.code else "",
        "issued_date": _iso_date(document.date.value) if document.date else "",
        "issuing_agency": _words(document.issuing_agency.value) if document.issuing_agency else "",
        "abstract": _words(document.abstract.value) if document.abstract else "",
    }


#: State words of rules.md 4.2.
STATES = {
    "VALID": "hợp lệ",
    "VALID_UNTIMESTAMPED": "hợp lệ (thời điểm ký chưa được xác nhận bằng dấu thời gian)",
    "UNKNOWN_REVOCATION": "chưa kiểm tra được tình trạng thu hồi",
    "EXPIRED_AT_SIGNING": "chứng thư hết hạn tại thời điểm ký",
    "REVOKED": "chứng thư bị thu hồi",
    "UNTRUSTED_CHAIN": "không xác định được đường dẫn tin cậy",
    "TAMPERED": "nội dung bị thay đổi sau khi ký",
    "PARTIAL_COVERAGE": "chữ ký không bao trùm toàn bộ tài liệu",
    "WEAK_ALGORITHM": "thuật toán không an toàn",
    "SUBJECT_MISMATCH": "chủ thể ký không thuộc cơ quan ban hành",
    "NO_SIGNATURE": "không có chữ ký số",
    "ERROR": "không đọc được chữ ký số",
}
_TIME_SOURCES = {
    "timestamp": "theo dấu thời gian",
    "claimed": "theo khai báo của người ký",
    "first_sight": "theo lần tiếp nhận đầu tiên",
}


def _finding_values(finding: Finding, inspection: Inspection | None) -> dict[str, str]:
    """What the details of one finding add: its file, and that file's signature."""
    values = {"file_name": _words(finding.about), "reason": _words(finding.vi), "reason_en": _words(finding.en)}
    if finding.recipients:
        values["address"] = ", ".join(finding.recipients)
    values |= {name: _words(value) for name, value in getattr(finding, "values", ())}
    file = next((one for one in inspection.files if one.path == finding.about), None) if inspection else None
    if file is None:
        return values
    values["detected_type"] = file.type
    values["font"] = values.get("font") or ", ".join(file.fonts)
    values |= {name: value for name, value in _document_values(file.document).items() if value}
    signature = next((one for one in file.signatures if not one.state.startswith("VALID")), None) or next(
        iter(file.signatures), None
    )
    if signature is not None:
        values |= {
            "state_vi": STATES.get(signature.state, signature.state),
            "subject_of_certificate": _words(signature.signer),
            "issuer": _words(signature.issuer),
            "signing_time": signature.signed_at,
            "time_source_vi": _TIME_SOURCES.get(signature.time_source, ""),
            "valid_from": signature.valid_from,
            "valid_to": signature.valid_to,
            "integrity_vi": "nội dung bị thay đổi sau khi ký" if signature.state == "TAMPERED" else "nguyên vẹn",
        }
    return values


def _signature_state(document: Document | None, inspection: Inspection | None) -> str:
    """State of the signatures on the file that is the document, the worst first; empty when it is not known."""
    file = next((one for one in inspection.files if one.document == document), None) if inspection else None
    if file is None or document is None:
        return ""
    states = [one.state for one in file.signatures if one.kind != "timestamp"]
    words = sorted({STATES.get(one, one) for one in states}, key=lambda one: one.startswith("hợp lệ"))
    return "; ".join(words) or STATES["NO_SIGNATURE"]


def _verdict_text(verdict: Judged) -> str:
    words = ("deliver", "deliver-warn", "hold", "return", "reject-malware", "block-secret")
    return words[int(verdict.disposition) - 1]


def _words(text: str) -> str:
    """One line without control characters or direction overrides: it stands in a letter of ours."""
    return " ".join("".join(c if c.isprintable() else " " for c in nfc(text)).split())[:500]


def _time(at: dt.datetime) -> str:
    return at.astimezone(VIETNAM).strftime("%H:%M:%S ngày %d/%m/%Y (+07:00)")


def _date(at: dt.datetime) -> str:
    return at.astimezone(VIETNAM).strftime("%d/%m/%Y")


def _iso_date(text: str) -> str:
    try:
        return dt.date.fromisoformat(text).strftime("%d/%m/%Y")
    except ValueError:
        return _words(text)


def _mail(
    *,
    to: str,
    subject: str,
    at: dt.datetime,
    contacts: Contacts,
    hostname: str,
    key: str,
    text: str,
    page: str,
    machine: Mapping[str, Any],
) -> bytes:
    head = _head(to, subject, at, contacts, hostname, _id_of(key, hostname), "auto-replied")
    return _letter(head, key, text, page, machine, "thong-bao.json")


def _head(
    to: str, subject: str, at: dt.datetime, contacts: Contacts, hostname: str, identifier: str, submitted: str
) -> bytes:
    """The header fields of every letter. Written by hand, like the bodies: the classes of `email` take 10 ms for what
    takes half of one here, and a letter goes with many a message."""
    name, address = parseaddr(contacts.notice_from)
    sender = _mailbox(name or "Cổng thư điện tử công vụ", address or f"postmaster@{hostname}")
    lines = [
        f"From: {sender}",
        f"To: {_mailbox('', to)}",
        f"Subject: {_encoded('Subject', ' '.join(subject.split()))}",
        f"Date: {format_datetime(at.astimezone(VIETNAM))}",
        f"Message-ID: {identifier}",
        f"Auto-Submitted: {submitted}",
        "X-Auto-Response-Suppress: All",  # what Exchange heeds instead of RFC 3834
        "MIME-Version: 1.0",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _id_of(key: str, hostname: str) -> str:
    """A Message-ID that is the same for the same key."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{hostname}>"


def _mailbox(name: str, address: str) -> str:
    """For From and To. An address beyond ASCII stands as it is (RFC 6532): it is reached through SMTPUTF8 only."""
    local, _, domain = address.rpartition("@")
    try:
        plain = HeaderAddress("" if not name.isascii() else name, local, domain)
    except ValueError:
        return "undisclosed-recipients:;"  # an address that no header can hold; the envelope has it
    return str(plain) if name.isascii() else f"{_encoded('From', name)}\r\n <{plain.addr_spec}>"


def _encoded(field: str, value: str) -> str:
    """The value of an unstructured field or a phrase, folded, in encoded words where it needs them (RFC 2047)."""
    plain = value.isascii() and "=?" not in value
    return Header(value, None if plain else "utf-8", header_name=field).encode(linesep="\r\n")


def _letter(head: bytes, key: str, text: str, page: str, machine: Mapping[str, Any], filename: str) -> bytes:
    """A message of text and page, with the facts as JSON. Its bytes are the same for the same input."""
    outer, inner = (f"=_{hashlib.sha256(key.encode()).hexdigest()[:24]}_{number}" for number in (0, 1))
    facts = json.dumps(machine, ensure_ascii=False, indent=1)
    attached = f'Content-Type: application/json\r\nContent-Disposition: attachment; filename="{filename}"'
    parts = (
        f'Content-Language: vi, en\r\nContent-Type: multipart/mixed; boundary="{outer}"\r\n',
        f'--{outer}\r\nContent-Type: multipart/alternative; boundary="{inner}"\r\n',
        f"--{inner}\r\n{_base64('Content-Type: text/plain; charset=utf-8', text)}"
        f"--{inner}\r\n{_base64('Content-Type: text/html; charset=utf-8', page)}--{inner}--\r\n",
        f"--{outer}\r\n{_base64(attached, facts)}--{outer}--\r\n",
    )
    return head + "\r\n".join(parts).encode()


def _base64(head: str, text: str) -> str:
    lines = base64.encodebytes(text.replace("\r\n", "\n").replace("\n", "\r\n").encode()).decode()
    return f"{head}\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines.replace("\n", "\r\n")


# ------------------------------------------------------------------------------- delivery status (RFC 3464, RFC 3461)


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient of a DSN. action: failed, delayed, delivered or relayed. reply: what the hop, or we, said."""

    address: str
    action: str
    status: str
    reply: str = ""
    from_hop: bool = False
    remote: str = ""
    orcpt: str = ""
    at: dt.datetime | None = None


def dsn(
    kind: str,
    reports: Sequence[Report],
    *,
    to: str,
    case: str,
    received_at: dt.datetime,
    now: dt.datetime,
    original: bytes,
    whole: bool = False,
    envid: str = "",
    until: dt.datetime | None = None,
    contacts: Contacts,
    hostname: str,
) -> bytes:
    """A delivery status notification. kind: `failed`, `delayed`, `delivered` or `relayed`.

    to: the envelope sender of the message it speaks of. original: the message, or its header; of it the header is
    given back, or all of it when `whole` (RET=FULL). until: when we give up. Returns a whole message, CRLF; ASCII but
    for a whole original with 8-bit bytes.
    """
    header = original.partition(b"\r\n\r\n")[0] + b"\r\n"
    values = {
        "sender_address": to,
        "recipients": ", ".join(one.address for one in reports),
        "case": case,
        "received_at": _time(received_at),
        "agency_name": contacts.agency_name or hostname,
        "clerk_phone": contacts.clerk_phone,
        "clerk_email": contacts.clerk_email,
        "mail_admin": contacts.mail_admin,
        "until": _time(until) if until else "",
        "list": "\n".join(f"- <{one.address}>: {_words(one.reply)}" for one in reports),
    }
    block = _Block(_templates.get(f"dsn-{kind}"), values)
    key = f"dsn|{kind}|{case}|{values['recipients']}|{now.timestamp()}"
    subject = f"{block.subject('vi')} / {block.subject('en')}"
    head = _head(to, subject, now, contacts, hostname, _id_of(key, hostname), "auto-replied")
    boundary = f"=_{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    while boundary.encode() in original:
        boundary += "x"
    text = f"{block.body('vi')}\n\n{_RULE}\n\n{block.body('en')}\n"
    parts = [
        _part("text/plain; charset=utf-8", text.replace("\n", "\r\n").encode(), "Notification"),
        b"Content-Type: message/delivery-status\r\nContent-Description: Delivery report\r\n\r\n"
        + _status_part(reports, case, received_at, envid, until, hostname),
    ]
    if whole:
        encoding = b"" if original.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
        parts.append(b"Content-Type: message/rfc822\r\n" + encoding + b"\r\n" + original)
    else:
        parts.append(_part("text/rfc822-headers", header, "Undelivered message headers", quoted=True))
    head += f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"\r\n\r\n'.encode()
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + part.removesuffix(b"\r\n") + b"\r\n" for part in parts)
    return head + body + line + b"--\r\n"


def _part(kind: str, data: bytes, description: str, quoted: bool = False) -> bytes:
    head = f"Content-Type: {kind}\r\nContent-Description: {description}\r\n".encode()
    if data.isascii() and all(len(line) < 990 for line in data.split(b"\r\n")):
        return head + b"\r\n" + data
    if quoted:  # RFC 6522 section 4 names it for headers that are not 7bit
        coded = quopri.encodestring(data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
        return head + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + coded
    coded = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + coded


def _status_part(
    reports: Sequence[Report],
    case: str,
    received_at: dt.datetime,
    envid: str,
    until: dt.datetime | None,
    hostname: str,
) -> bytes:
    groups = [[("Reporting-MTA", f"dns; {hostname}")]]
    if envid:
        groups[0].insert(0, ("Original-Envelope-Id", from_xtext(envid)))
    groups[0] += [("X-VBDT-Case", case), ("Arrival-Date", format_datetime(received_at.astimezone(VIETNAM)))]
    for one in reports:
        rows = []
        kind, _, original = one.orcpt.partition(";")
        if original:
            rows.append(("Original-Recipient", f"{kind}; {from_xtext(original)}"))
        rows += [
            ("Final-Recipient", f"{'rfc822' if one.address.isascii() else 'utf-8'}; {one.address}"),
            ("Action", one.action),
            ("Status", one.status),
        ]
        if one.from_hop and one.remote:
            rows.append(("Remote-MTA", f"dns; {one.remote}"))
        if one.reply:
            rows.append(("Diagnostic-Code", f"{'smtp' if one.from_hop else 'X-VBDT'}; {one.reply}"))
        if one.at is not None:
            rows.append(("Last-Attempt-Date", format_datetime(one.at.astimezone(VIETNAM))))
        if one.action == "delayed" and until is not None:
            rows.append(("Will-Retry-Until", format_datetime(until.astimezone(VIETNAM))))
        groups.append(rows)
    return b"\r\n".join(b"".join(_field(name, value) for name, value in rows) for rows in groups)


def _field(name: str, value: str) -> bytes:
    """One field, folded, ASCII: other letters as RFC 6533 `\\x{1EA3}`."""
    value = " ".join("".join(c if c.isprintable() else " " for c in value).split())[:2000]
    value = "".join(c if c.isascii() else f"\\x{{{ord(c):X}}}" for c in value)
    rows = textwrap.wrap(f"{name}: {value}", 76, break_long_words=False, break_on_hyphens=False)
    # A word longer than a line may be (RFC 5322 2.1.1) is cut: nothing that must be exact is that long.
    return b"\r\n ".join(row.encode()[:990] for row in rows) + b"\r\n"


def from_xtext(text: str) -> str:
    """RFC 3461 section 4: `+3D` is `=`. What is not xtext stays."""
    return re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), text)
