"""Policy test files: what an administrator expects of a policy, kept beside it in `trials/*.yaml`.

A trial gives a message, in short facts or as an .eml file, and the verdict and findings that are expected. `congvan
check` runs them all; the golden tables of the project's own tests have the same form.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway import config, policy
from gateway.directory import Directory
from gateway.errors import ConfigError, Problem
from gateway.inspection import findings as shape
from gateway.message import VIETNAM, Address, Envelope, NullSender, Origin, Recipient
from gateway.rules import CATALOGUE, DISPOSITIONS


def _aware(value: dt.datetime) -> dt.datetime:
    return value if value.tzinfo else value.replace(tzinfo=VIETNAM)


Moment = Annotated[dt.datetime, AfterValidator(_aware)]


class TrialSignature(config.Settings):
    state: shape.SignatureState = shape.SignatureState.VALID
    kind: Literal["person", "organisation", "timestamp"] = "organisation"
    signer: str = ""
    subject_ids: tuple[str, ...] = ()
    trust: Literal["", "chuyen_dung", "quoc_gia"] = "chuyen_dung"


class TrialFile(config.Settings):
    """One file. With `code`, or `draft: true`, it is a document; its type is taken from the name when not given."""

    name: str
    type: str = ""
    size: int = 20000
    inside: str = ""  # path of the archive it lies in
    inline: bool = False
    encrypted: bool = False
    damaged: bool = False
    pages: int | None = 1
    text_layer: Literal["", "full", "none", "garbage"] = "full"
    fonts: tuple[str, ...] = ()
    seal: shape.SealState = shape.SealState.NOT_CHECKED
    signatures: tuple[TrialSignature, ...] = ()
    signature_removed: bool = False
    code: str = ""
    kind: str = ""
    date: dt.date | None = None
    abstract: str = ""
    issuer: str = ""
    signer: str = ""
    recipients: tuple[shape.NamedRecipient, ...] = ()
    mode_line: Literal["", "electronic_only", "electronic_and_paper", "paper"] = ""
    draft: bool = False
    components: int = 6
    annexes: tuple[str, ...] = ()
    cites: tuple[str, ...] = ()
    internal: bool = False
    recall: bool = False


class TrialDocument(config.Settings):
    """A document of the archive with the same number."""

    case: str
    issuer: str = ""
    date: dt.date | None = None
    content: str = ""
    recalled: bool = False


def _verdict(value: str) -> str:
    if value not in DISPOSITIONS:
        raise ValueError(f"one of {', '.join(DISPOSITIONS)}")
    return value


def _rule(value: str) -> str:
    """A rule's id, or an item of the delivery lists (DL-…, TM-09); `?` after it: observed, `~`: a reminder."""
    name = value.rstrip("?~")
    if name not in CATALOGUE and not name.startswith(("X-", "DL-")) and name != "TM-09":
        raise ValueError(policy.near("rule", name, CATALOGUE))
    return value


class Expected(config.Settings):
    verdict: Annotated[str, AfterValidator(_verdict)]
    findings: tuple[Annotated[str, AfterValidator(_rule)], ...] | None = (
        None  # rule ids, all of them; observed ones as `FM-01?`, reminders as `FM-01~`
    )
    message_class: str = Field("", alias="class")
    delivery: str = ""
    profile: str = ""
    recipients: dict[str, str] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    acknowledge: bool | None = None


class Trial(config.Settings):
    name: str
    message: str = ""  # an .eml file beside the trial, instead of the facts below
    at: Moment
    direction: Literal["in", "out", "internal", ""] = ""
    from_: str = Field(alias="from")
    sender: str | None = None  # envelope sender, when it differs from From
    display_name: str = ""
    reply_to: str = ""
    to: tuple[str, ...]
    authenticated: bool = False  # aligned DKIM or SPF, or a login
    dmarc: str = ""
    spf: str = ""
    subject: str = ""
    body: str = ""
    reply: bool = False
    auto_submitted: str = ""
    meeting_start: str = ""
    files: tuple[TrialFile, ...] = ()
    facts: tuple[shape.Finding, ...] = ()
    failed: tuple[str, ...] = ()
    timed_out: tuple[str, ...] = ()
    known_documents: tuple[TrialDocument, ...] = ()
    calendar_publications: tuple[Moment, ...] = ()
    expect: Expected


class TrialFiles(config.Settings):
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One trial: what differs from the expectation; empty when it holds."""

    file: str
    line: int
    name: str
    differences: tuple[str, ...]


Reader = Callable[[Path], shape.Inspection]


def load(path: Path, shown: str = "") -> list[tuple[Trial, int]]:
    """The trials of one file with their lines. Raises ConfigError."""
    data = config.load_yaml(path, shown or str(path))
    trials = config.build(TrialFiles, data, shown or str(path)).trials
    problems = []
    for number, trial in enumerate(trials):
        if trial.message and not (path.parent / trial.message).is_file():
            line, column = config.place(data, ["trials", number, "message"])
            text = f"trials.{number}.message: {path.parent / trial.message} is not there"
            problems.append(Problem(shown or str(path), line, column, text))
    if problems:
        raise ConfigError(problems)
    return [(trial, data["trials"].lc.item(number)[0] + 1) for number, trial in enumerate(trials)]


def run(
    files: list[Path], judged_by: policy.Policy, directory: Directory, inspect: Reader | None = None
) -> list[Outcome]:
    """Run trial files. `inspect` reads .eml files into facts; without it trials of messages are told as not run."""
    outcomes = []
    for path in files:
        shown = f"{path.parent.name}/{path.name}"
        for trial, line in load(path, shown):
            inspection = None
            if trial.message:
                if inspect is None:
                    outcomes.append(Outcome(shown, line, trial.name, ("not run: messages cannot be read here",)))
                    continue
                inspection = inspect(path.parent / trial.message)
            verdict = policy.judge(judged_by, directory, situation(trial, directory, inspection))
            outcomes.append(Outcome(shown, line, trial.name, differences(trial.expect, verdict)))
    return outcomes


def situation(trial: Trial, directory: Directory, inspection: shape.Inspection | None = None) -> policy.Situation:
    """The facts of a trial as the judge takes them."""
    sender = trial.from_ if trial.sender is None else trial.sender
    recipients = tuple(Recipient(_address(one)) for one in trial.to)
    outgoing = trial.direction in ("out", "internal")
    origin = Origin(
        "submission" if outgoing else "relay",
        "127.0.0.1",
        login=trial.from_ if outgoing and trial.authenticated else "",
    )
    reverse = _address(sender) if sender else NullSender()
    return policy.Situation(
        at=trial.at,
        direction=trial.direction or policy.direction(directory, origin, reverse, recipients, trial.at),
        origin=origin,
        envelope=Envelope(reverse, recipients),
        inspection=inspection or _inspection(trial),
        history=policy.History(
            documents=tuple(
                policy.KnownDocument(one.case, one.issuer, str(one.date or ""), one.content, one.recalled)
                for one in trial.known_documents
            ),
            calendar_publications=trial.calendar_publications,
        ),
    )


def _address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(local, domain.lower())


def _inspection(trial: Trial) -> shape.Inspection:
    failed = [shape.CheckRun(check=one, status=shape.Status.FAILED) for one in trial.failed]
    late = [shape.CheckRun(check=one, status=shape.Status.TIMED_OUT) for one in trial.timed_out]
    return shape.Inspection(
        message=shape.MessageFacts(
            subject=trial.subject,
            from_=(shape.Mailbox(name=trial.display_name, address=trial.from_),) if trial.from_ else (),
            reply_to=(shape.Mailbox(address=trial.reply_to),) if trial.reply_to else (),
            to=tuple(shape.Mailbox(address=one) for one in trial.to),
            in_reply_to="<earlier@example>" if trial.reply else "",
            auto_submitted=trial.auto_submitted,
            body_text=trial.body,
            meeting_start=trial.meeting_start,
        ),
        files=tuple(_file(one, trial) for one in trial.files),
        findings=trial.facts,
        runs=(*failed, *late),
        sender=shape.SenderFacts(aligned=trial.authenticated, dmarc=trial.dmarc, spf=trial.spf),
    )


def _file(file: TrialFile, trial: Trial) -> shape.FileFacts:
    path = f"{file.inside}/{file.name}" if file.inside else file.name
    kind = file.type or file.name.rpartition(".")[2].lower()
    members = tuple(f"{path}/{one.name}" for one in trial.files if one.inside == path)

    def value(text: str) -> shape.DocumentField | None:
        return shape.DocumentField(value=text) if text else None

    document = None
    if file.code or file.draft or file.kind or file.abstract or file.internal or file.recall:
        document = shape.Document(
            code=value(file.code),
            kind=value(file.kind),
            date=value(str(file.date or "")),
            abstract=value(file.abstract),
            issuing_agency=value(file.issuer),
            signer=value(file.signer),
            recipients=file.recipients,
            mode_line=file.mode_line,
            draft=file.draft,
            components=file.components,
            annexes_named=file.annexes,
            cites=file.cites,
            internal=file.internal,
            recall=file.recall,
        )
    return shape.FileFacts(
        name=file.name,
        path=path,
        sha256=hashlib.sha256(path.encode()).hexdigest(),
        size=file.size,
        type=kind,
        inline=file.inline,
        depth=path.count("/"),
        encrypted=file.encrypted,
        damaged=file.damaged,
        pages=file.pages,
        text_layer=file.text_layer,
        fonts=file.fonts,
        signatures=tuple(
            shape.Signature(
                state=one.state, kind=one.kind, signer=one.signer, subject_ids=one.subject_ids, trust=one.trust
            )
            for one in file.signatures
        ),
        signature_removed=file.signature_removed,
        seal_state=file.seal,
        document=document,
        files=members,
    )


def short(finding: policy.Finding) -> str:
    """`FM-01` enforced, `FM-01~` a reminder by mode, `FM-01?` observed."""
    return finding.rule + {"observe": "?", "warn": "~"}.get(finding.mode, "")


def differences(expected: Expected, verdict: policy.Verdict) -> tuple[str, ...]:
    """What of a verdict is not as expected."""
    found = []
    if verdict.disposition.text != expected.verdict:
        reasons = ", ".join(f"{short(one)} {one.disposition.text}" for one in verdict.findings)
        found.append(
            f"verdict: expected {expected.verdict}, got {verdict.disposition.text} ({reasons or 'no findings'})"
        )
    if expected.findings is not None:
        rules = {short(one) for one in verdict.findings}
        missing, surplus = sorted(set(expected.findings) - rules), sorted(rules - set(expected.findings))
        found += [f"findings: {one} is missing" for one in missing] + [
            f"findings: {one} was not expected" for one in surplus
        ]
    for name, wanted, actual in (
        ("class", expected.message_class, verdict.message_class),
        ("delivery", expected.delivery, verdict.delivery_mode),
        ("profile", expected.profile, verdict.profile),
    ):
        if wanted and wanted != actual:
            found.append(f"{name}: expected {wanted}, got {actual}")
    actual_recipients = {one.address: one.disposition.text for one in verdict.recipients}
    for address, wanted in expected.recipients.items():
        if actual_recipients.get(address) != wanted:
            found.append(f"recipients: {address}: expected {wanted}, got {actual_recipients.get(address, 'nobody')}")
    headers = dict(verdict.headers)
    for name, wanted in expected.headers.items():
        if headers.get(name, "") != wanted:
            found.append(f"headers: {name}: expected {wanted!r}, got {headers.get(name, '')!r}")
    if expected.acknowledge is not None and verdict.acknowledge != expected.acknowledge:
        found.append(f"acknowledge: expected {expected.acknowledge}, got {verdict.acknowledge}")
    return tuple(found)
