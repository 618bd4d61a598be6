"""The judge: facts in, verdict out. Pure: no clock, no disk, no network.

`load` reads `policy.yaml`, the profiles and the citations beside it; `judge` weighs one message. What a rule finds is
decided in rules.py; what it leads to (mode, dates, whom it binds, exceptions) is decided here:

- Secrecy comes first and wins; rules that protect secrets or against malware have no mode.
- Before the mandatory date of an agency or outside a rule's dates a finding is a reminder (rules.md 0.1, TM-07, TM-08).
- An unauthenticated sender's message is held where another's would be returned: no answer to forged senders.
- All findings are kept, not only the one that won.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway import __version__, config
from gateway.classify import History, KnownDocument, Reading, Situation, delivery, history, read
from gateway.directory import Agency, Directory, Level
from gateway.errors import ConfigError, Problem
from gateway.inspection.findings import Document, Inspection
from gateway.message import VIETNAM, Envelope, NullSender, Origin, Recipient, Sender
from gateway.rules import CATALOGUE, DISPOSITIONS, Answer, Case, Disposition, Hit, Rule, Target, Text, fill

__all__ = [
    "Annotation",
    "Disposition",
    "Finding",
    "History",
    "KnownDocument",
    "Policy",
    "RecipientVerdict",
    "Situation",
    "Trace",
    "Verdict",
    "cross_check",
    "direction",
    "explain",
    "history",
    "judge",
    "load",
    "restore",
    "screen",
]

Mode = Literal["off", "observe", "warn", "enforce"]
#: A unit below a district or commune may have another date than one of the province (seed 000, 1d).
EffectiveLevel = Literal[
    "central", "ministry", "province", "department", "district", "commune", "unit", "unit_of_district"
]


# -- values a judgement returns --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation as people see it. `recipients` empty: it concerns the whole message."""

    rule: str
    mode: str
    disposition: Disposition
    about: str
    where: str
    evidence: str
    legal_basis: str
    vi: str
    en: str
    cure_vi: str
    cure_en: str
    notice: str
    recipients: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()  # further values for the templates of notices: `cert_since`, `hours` …


@dataclass(frozen=True, slots=True)
class Annotation:
    """Something worth recording that is no violation (rules.md: A and C)."""

    rule: str
    about: str
    note: str


@dataclass(frozen=True, slots=True)
class RecipientVerdict:
    address: str
    disposition: Disposition
    agency: str


@dataclass(frozen=True, slots=True)
class Verdict:
    disposition: Disposition
    findings: tuple[Finding, ...]
    recipients: tuple[RecipientVerdict, ...]
    message_class: str
    profile: str
    delivery_mode: str
    policy_digest: str
    agency: str
    document: Document | None
    urgency: str
    headers: tuple[tuple[str, str], ...]
    acknowledge: bool
    annotations: tuple[Annotation, ...] = ()
    secrecy_level: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """What became of one rule: `hit`, `miss`, `not_applicable` or `off`, and why."""

    rule: str
    status: str
    why: str
    mode: str
    profile: str


# -- the files -------------------------------------------------------------------------------------------------------


def _switches(value: object) -> object:
    """`warn`, one mapping or a list of mappings; always a list inside."""
    if isinstance(value, str):
        return [{"mode": value}]
    if not isinstance(value, (dict, list, tuple)):
        raise ValueError("a mode is needed: off, observe, warn or enforce; or keys such as {mode: warn}")
    return [value] if isinstance(value, dict) else value


def _disposition(value: object) -> object:
    if value not in DISPOSITIONS:
        raise ValueError(f"one of {', '.join(DISPOSITIONS)}")
    return value


class Texts(config.Settings):
    """Texts of an installation in place of the built-in ones; placeholders in braces, as in docs/rules.md."""

    vi: str = ""
    en: str = ""
    cure_vi: str = ""
    cure_en: str = ""


class Bound(config.Settings):
    """Whom something binds; empty lists bind everybody."""

    profiles: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    agencies: tuple[str, ...] = ()
    except_agencies: tuple[str, ...] = ()

    def binds(self, profile: str, agency: Agency | None) -> bool:
        identifier, level = (agency.id, agency.level) if agency is not None else ("", "")
        return (
            (not self.profiles or profile in self.profiles)
            and (not self.levels or level in self.levels)
            and (not self.agencies or identifier in self.agencies)
            and identifier not in self.except_agencies
        )


class Switch(Bound):
    """A change to one rule. Empty lists bind everybody; of several switches the last that is in force wins.

    `observe` needs `to`, its last day: then the rule goes back to what the profile says. An `enforce` outside its dates
    is a reminder. `action` replaces a return or hold by another verdict.
    """

    mode: Mode | None = None
    from_: dt.date | None = Field(None, alias="from")
    to: dt.date | None = None
    action: Literal["deliver-warn", "hold", "return"] | None = None
    reason: str = ""
    basis: tuple[str, ...] = ()
    texts: Texts = Texts()

    @model_validator(mode="after")
    def _dates(self) -> Switch:
        if self.mode == "observe" and self.to is None:
            raise ValueError("observe needs `to`, the last day of observing")
        if self.from_ and self.to and self.to < self.from_:
            raise ValueError(f"`to` {self.to} is before `from` {self.from_}")
        return self

    def in_force(self, day: dt.date) -> bool:
        return (not self.from_ or self.from_ <= day) and (not self.to or day <= self.to)


Switches = Annotated[tuple[Switch, ...], BeforeValidator(_switches)]


def _condition(when: str) -> str:
    try:
        result = _compile(when).execute(_cel_facts(_EMPTY))
    except KeyError as error:
        raise ValueError(f"there is no {error.args[0]!r} here") from None
    except IndexError:
        return when  # the example has no files and no recipients
    except Exception as error:
        raise ValueError(f"not a condition: {' '.join(str(error).splitlines()[0].split())}") from None
    if not isinstance(result, bool):
        raise ValueError("not a condition: it gives a value that is neither true nor false")
    return when


class OwnRule(Bound):
    """A rule of the installation: `when` is a CEL expression over the facts listed in docs/rules.md."""

    id: Annotated[str, Field(pattern=r"^X-[A-Za-z0-9-]{1,24}$")]
    when: Annotated[str, AfterValidator(_condition)]
    action: Annotated[str, BeforeValidator(_disposition)] = "deliver-warn"
    mode: Mode = "enforce"
    from_: dt.date | None = Field(None, alias="from")
    to: dt.date | None = None
    vi: str
    en: str
    cure_vi: str = ""
    cure_en: str = ""
    basis: tuple[str, ...] = ()
    notice: str = ""

    @model_validator(mode="after")
    def _check(self) -> OwnRule:
        if self.action in ("block-secret", "reject-malware"):
            raise ValueError("an own rule may deliver-warn, hold or return")
        if self.mode == "observe" and self.to is None:
            raise ValueError("observe needs `to`, the last day of observing")
        return self


class ProfileRule(config.Settings):
    """How a profile holds one rule: mode, dates of its own, and the citations it rests on."""

    mode: Mode = "enforce"
    from_: dt.date | None = Field(None, alias="from")
    to: dt.date | None = None
    action: Literal["deliver-warn", "hold", "return"] | None = None
    basis: tuple[str, ...] = ()


class FormatReceivers(config.Settings):
    """To whom the list of accepted formats applies (FM-02)."""

    levels: tuple[Level, ...] = ()
    agencies: tuple[str, ...] = ()

    @property
    def listed(self) -> bool:
        return bool(self.levels or self.agencies)


class ForbiddenKind(config.Settings):
    """SC-03: documents that must not be sent electronically, by kind or by a pattern on subject and abstract."""

    name: str
    kind: str = ""
    pattern: str = ""

    @model_validator(mode="after")
    def _check(self) -> ForbiddenKind:
        if not self.kind and not self.pattern:
            raise ValueError(f"{self.name}: needs `kind` or `pattern`")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"{self.name}: pattern: not a pattern: {error}") from None
        return self


class Profile(config.Settings):
    """One directive as settings. A rule that is not listed does not apply."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")]
    name_vi: str
    name_en: str
    from_: dt.date | None = Field(None, alias="from")
    to: dt.date | None = None
    #: TM-07, TM-08: from when the directive is mandatory for a level; null: the agency's own `effective_from` says.
    effective_from: dict[EffectiveLevel, dt.date | None] = Field(default_factory=dict)
    mailbox_ban: Literal["none", "free", "non_official", "if_issued"] = "free"
    free_mailbox_exceptions: bool = False
    free_recipients: Literal["citizens", "anyone"] = "citizens"
    signature: Literal["certified", "two", "optional"] = "certified"
    dossier_editable: bool = False
    format_receivers: FormatReceivers = FormatReceivers()
    exchange_system: str = ""
    loose_files: int = Field(3, ge=1)
    encrypted_archive: Literal["hold", "return"] = "hold"
    delivery_lists: Literal["", "binh_duong", "ha_tinh", "bnv"] = ""
    dispatch: Literal["none", "same_day", "next_working_day"] = "none"
    portal_from: dt.date | None = None
    forbidden_kinds: tuple[ForbiddenKind, ...] = ()
    acknowledge: bool = False
    holidays: tuple[dt.date, ...] = ()  # filled from policy.yaml
    rules: dict[str, ProfileRule]

    def mandatory(self, agency: Agency | None, directory: Directory, day: dt.date) -> tuple[str, dt.date | None]:
        """Rule id (TM-07, TM-08) and date when the directive does not bind this agency yet, else an empty id."""
        if agency is None or not self.effective_from:
            return "", None
        if agency.effective_from is not None:
            return ("", None) if day >= agency.effective_from else ("TM-08", agency.effective_from)
        level: str = agency.level
        if level == "unit" and "unit_of_district" in self.effective_from:
            above = next((one for one in directory.ancestors(agency, day)), None)
            if above is not None and above.level in ("district", "commune"):
                level = "unit_of_district"
        if level not in self.effective_from:
            return "", None
        date = self.effective_from[level]  # type: ignore[index]
        if date is None:
            return "TM-08", None
        return ("", None) if day >= date else ("TM-07", date)


class Citation(config.Settings):
    """One legal citation. `mark` is its evidence (SEED, READ-T, READ-S, MEM); dates bound the time it may be cited."""

    vi: str
    mark: Literal["SEED", "READ-T", "READ-S", "MEM"]
    from_: dt.date | None = Field(None, alias="from")
    to: dt.date | None = None


class Citations(config.Settings):
    citations: dict[str, Citation]


class PolicyFile(config.Settings):
    """`policy.yaml`."""

    profile: str
    holidays: tuple[dt.date, ...] = ()
    rules: dict[str, Switches] = Field(default_factory=dict)
    own_rules: tuple[OwnRule, ...] = ()


#: One rule that is on for an agency on a day: the rule, its mode, and the action that replaces its own.
_Step = tuple[Rule, str, Disposition | None]


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy, ready to judge. `digest` names it in every verdict."""

    default: str
    profiles: dict[str, Profile]
    switches: dict[str, tuple[Switch, ...]]
    own_rules: tuple[OwnRule, ...]
    citations: dict[str, Citation]
    digest: str
    _text: str
    _programs: dict[str, Any] = field(default_factory=dict, compare=False)
    _plans: dict[tuple[str, str, str, dt.date], tuple[_Step, ...]] = field(default_factory=dict, compare=False)

    def canonical(self) -> str:
        """The effective policy as canonical JSON: what `digest` is the SHA-256 of."""
        return self._text

    def profile(self, name: str) -> Profile:
        return self.profiles.get(name) or self.profiles[self.default]

    def basis(self, keys: Iterable[str], day: dt.date) -> str:
        """The citations in force on that day; when none is, those that were, and at last those to come."""
        known = [self.citations[key] for key in keys if key in self.citations]
        begun = [c for c in known if not c.from_ or c.from_ <= day]
        current = [c for c in begun if not c.to or day <= c.to]
        return "; ".join(c.vi for c in current or begun or known)

    def observed(self) -> Iterator[tuple[str, dt.date]]:
        """Rules that are only observed, with their last day: every report shows them."""
        for name, switches in self.switches.items():
            yield from ((name, one.to) for one in switches if one.mode == "observe" and one.to)
        yield from ((one.id, one.to) for one in self.own_rules if one.mode == "observe" and one.to)


def load(directory: Path, file: Path | None = None) -> Policy:
    """Read `policy.yaml`, `profiles/*.yaml` and `citations.yaml` of a configuration directory.

    `file`: another policy.yaml to use with this directory's profiles and citations. Raises ConfigError with every
    problem of all files; nothing is half loaded.
    """
    problems: list[Problem] = []
    path = file or directory / "policy.yaml"
    name = path.name if file is None else str(file)
    main, main_data = _part(PolicyFile, path, name, problems)
    cited, _ = _part(Citations, directory / "citations.yaml", "citations.yaml", problems)
    profiles: dict[str, Profile] = {}
    placed: list[tuple[Profile, Any, str]] = []
    for one in sorted((directory / "profiles").glob("*.yaml")):
        shown = f"profiles/{one.name}"
        profile, data = _part(Profile, one, shown, problems)
        if profile is None:
            continue
        if profile.id in profiles:
            _problem(problems, data, shown, ["id"], f"profile {profile.id!r} is there twice")
        profiles[profile.id] = profile
        placed.append((profile, data, shown))
    if not profiles and not problems:
        problems.append(Problem("profiles/", 0, 0, "no profile found; at least one is needed"))
    broken = {Path(one.file).stem for one in problems}  # a profile whose file has mistakes is there all the same
    if main is not None and profiles and main.profile not in profiles and main.profile not in broken:
        _problem(problems, main_data, name, ["profile"], f"profile: {near('profile', main.profile, profiles)}")
    citations = cited.citations if cited is not None else {}
    for profile, data, shown in placed:
        _check_profile(profile, data, shown, citations if cited is not None else None, problems)
    if main is not None:
        _check_switches(main, main_data, name, profiles, citations if cited is not None else None, problems)
    if problems:
        raise ConfigError(sorted(problems))
    assert main is not None
    ready = {key: one.model_copy(update={"holidays": main.holidays}) for key, one in profiles.items()}
    return _assemble(main, ready, citations)


def cross_check(policy: Policy, directory: Directory) -> list[Problem]:
    """Names that policy and directory use of each other and that do not exist."""
    problems = []
    agencies = {one.id for one in directory.agencies()}
    for agency in directory.agencies():
        if agency.profile and agency.profile not in policy.profiles:
            text = f"agency {agency.id}: profile: {near('profile', agency.profile, policy.profiles)}"
            problems.append(Problem("directory/agencies", 0, 0, text))
    named = [(f"rules.{name}", one) for name, switches in policy.switches.items() for one in switches]
    named += [(f"own_rules.{one.id}", one) for one in policy.own_rules]  # type: ignore[misc]
    for where, switch in named:
        for identifier in (*switch.agencies, *switch.except_agencies):
            if identifier not in agencies:
                problems.append(Problem("policy.yaml", 0, 0, f"{where}: {near('agency', identifier, agencies)}"))
    return problems


def restore(text: str) -> Policy:
    """The policy of a canonical text, as kept in the archive by digest."""
    data = json.loads(text)
    main = PolicyFile.model_validate(data["policy"])
    profiles = {key: Profile.model_validate(value) for key, value in data["profiles"].items()}
    citations = {key: Citation.model_validate(value) for key, value in data["citations"].items()}
    return _assemble(main, profiles, citations)


def _assemble(main: PolicyFile, profiles: dict[str, Profile], citations: dict[str, Citation]) -> Policy:
    dump: dict[str, Any] = {"mode": "json", "by_alias": True, "exclude_defaults": True}
    text = json.dumps(
        {
            "program": __version__,
            "policy": main.model_dump(**dump),
            "profiles": {key: one.model_dump(**dump) for key, one in profiles.items()},
            "citations": {key: one.model_dump(**dump) for key, one in citations.items()},
        },
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
    )
    return Policy(
        main.profile,
        profiles,
        main.rules,
        main.own_rules,
        citations,
        hashlib.sha256(text.encode()).hexdigest(),
        text,
        {one.id: _compile(one.when) for one in main.own_rules},
    )


def _part(model: type[Any], path: Path, shown: str, problems: list[Problem]) -> tuple[Any, Any]:
    try:
        data = config.load_yaml(path, shown)
        return config.build(model, data, shown), data
    except ConfigError as error:
        problems.extend(error.problems)
        return None, None


def near(what: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of those known."""
    by_case = {one.casefold(): one for one in known}
    meant = difflib.get_close_matches(name.casefold(), list(by_case), 1, 0.5)
    return f"unknown {what} {name!r}" + (f", did you mean {by_case[meant[0]]!r}?" if meant else "")


def _problem(problems: list[Problem], data: Any, file: str, steps: list[Any], text: str) -> None:
    line, column = config.place(data, steps)
    problems.append(Problem(file, line, column, text))


def _check_profile(
    profile: Profile, data: Any, shown: str, citations: dict[str, Citation] | None, problems: list[Problem]
) -> None:
    for name, rule in profile.rules.items():
        if name not in CATALOGUE:
            _problem(problems, data, shown, ["rules", name], f"rules: {near('rule', name, CATALOGUE)}")
        elif CATALOGUE[name].fixed and rule.mode != "enforce":
            _problem(problems, data, shown, ["rules", name], f"rules.{name}: {_FIXED}")
        for number, key in enumerate(rule.basis):
            if citations is not None and key not in citations:
                _problem(
                    problems,
                    data,
                    shown,
                    ["rules", name, "basis", number],
                    f"rules.{name}.basis: {near('citation', key, citations)}",
                )


_FIXED = "this rule protects secrets or against malware and cannot be switched"


def _check_switches(
    main: PolicyFile,
    data: Any,
    shown: str,
    profiles: dict[str, Profile],
    citations: dict[str, Citation] | None,
    problems: list[Problem],
) -> None:
    for name, switches in main.rules.items():
        if name not in CATALOGUE:
            _problem(problems, data, shown, ["rules", name], f"rules: {near('rule', name, CATALOGUE)}")
            continue
        rule = CATALOGUE[name]
        for number, switch in enumerate(switches):
            steps = ["rules", name, number]
            if rule.fixed and (switch.mode or switch.action):
                _problem(problems, data, shown, steps, f"rules.{name}: {_FIXED}")
            for text in (switch.texts.vi, switch.texts.en, switch.texts.cure_vi, switch.texts.cure_en):
                _check_text(text, rule, f"rules.{name}.texts", steps, data, shown, problems)
            _check_names(
                f"rules.{name}", steps, switch.profiles, switch.basis, data, shown, profiles, citations, problems
            )
    seen: set[str] = set()
    for number, own in enumerate(main.own_rules):
        if own.id in seen:
            _problem(problems, data, shown, ["own_rules", number], f"own rule {own.id!r} is there twice")
        seen.add(own.id)
        _check_names(
            f"own_rules.{own.id}",
            ["own_rules", number],
            own.profiles,
            own.basis,
            data,
            shown,
            profiles,
            citations,
            problems,
        )


def _check_names(
    where: str,
    steps: list[Any],
    named: Iterable[str],
    basis: Iterable[str],
    data: Any,
    shown: str,
    profiles: dict[str, Profile],
    citations: dict[str, Citation] | None,
    problems: list[Problem],
) -> None:
    for one in named:
        if profiles and one not in profiles:
            _problem(problems, data, shown, [*steps, "profiles"], f"{where}.profiles: {near('profile', one, profiles)}")
    for key in basis:
        if citations is not None and key not in citations:
            _problem(problems, data, shown, [*steps, "basis"], f"{where}.basis: {near('citation', key, citations)}")


def _check_text(
    text: str, rule: Rule, where: str, steps: list[Any], data: Any, shown: str, problems: list[Problem]
) -> None:
    known = {
        name
        for one in rule.texts.values()
        for part in (one.vi, one.en, one.cure_vi, one.cure_en)
        for _, name, _, _ in string.Formatter().parse(part)
        if name
    }
    try:
        for _, name, _, _ in string.Formatter().parse(text):
            if name and name not in known:
                names = ", ".join(sorted(known)) or "none"
                _problem(problems, data, shown, steps, f"{where}: unknown placeholder {{{name}}}; known here: {names}")
    except ValueError as error:
        _problem(problems, data, shown, steps, f"{where}: not a text with placeholders: {error}")


# -- judging ---------------------------------------------------------------------------------------------------------


def direction(
    directory: Directory, origin: Origin, sender: Sender, recipients: Iterable[Recipient], at: dt.datetime
) -> str:
    """`internal`: within one agency; `out`: from ours to others; `in`: to ours."""
    own = directory.agency_of(sender.key, at) if sender.key else None
    owners = [directory.agency_of(one.address.key, at) for one in recipients]
    if own is not None and owners and all(one is not None and one.id == own.id for one in owners):
        return "internal"
    if origin.channel == "submission" or (origin.login and own is not None):
        return "out"
    if origin.channel == "imap" or any(one is not None for one in owners):
        return "in"
    return "out" if own is not None else "in"


def screen(
    policy: Policy, directory: Directory, origin: Origin, sender: Sender, recipient: Recipient, at: dt.datetime
) -> tuple[Finding, ...]:
    """Findings that the envelope alone proves: staff's private mailboxes as recipients of our own senders' mail.

    What depends on the content (is it official business, is it a reply to a citizen) waits for the message.
    """
    if isinstance(sender, NullSender) or not origin.login:
        return ()
    if directory.owner_of_private(recipient.address.key) is None:
        return ()
    situation = Situation(at, "out", origin, Envelope(sender, (recipient,)), Inspection())
    verdict = _judge(policy, directory, situation, only=("MB-01", "MB-02"))[0]
    return tuple(
        replace(one, recipients=(recipient.address.key,))
        for one in verdict.findings
        if one.disposition >= Disposition.RETURN and one.about == "To"
    )


def judge(policy: Policy, directory: Directory, situation: Situation) -> Verdict:
    """The verdict on one message. Total for any facts that validate."""
    return _judge(policy, directory, situation)[0]


def explain(policy: Policy, directory: Directory, situation: Situation) -> tuple[Verdict, tuple[Trace, ...]]:
    """The verdict, and what became of every rule and why."""
    return _judge(policy, directory, situation, tracing=True)


@dataclass(slots=True)
class _Ruling:
    """One group's way through the catalogue."""

    policy: Policy
    case: Case
    profile: Profile
    everybody: bool
    findings: list[Finding] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    weakened: dict[tuple[str, dt.date | None], list[str]] = field(default_factory=dict)


def _judge(
    policy: Policy,
    directory: Directory,
    situation: Situation,
    only: tuple[str, ...] = (),
    tracing: bool = False,
) -> tuple[Verdict, tuple[Trace, ...]]:
    reading = read(directory, situation)
    targets = [_target(directory, one, reading.day) for one in situation.envelope.recipients]
    own = reading.author_agency
    if situation.direction == "in":
        groups: dict[str, tuple[Agency | None, list[Target]]] = {}
        for target in targets:
            groups.setdefault(target.agency.id if target.agency else "", (target.agency, []))[1].append(target)
    else:
        if own is None and situation.envelope.sender.key:
            own = directory.agency_of(situation.envelope.sender.key, reading.day)
        groups = {"": (own, targets)}
    if not groups:
        groups = {"": (None, [])}
    rulings: list[_Ruling] = []
    traces: list[Trace] = []
    for agency, members in groups.values():
        profile = policy.profile(directory.profile_of(agency, reading.day))
        case = Case(
            situation, directory, reading, delivery(reading, profile.delivery_lists), profile, agency, tuple(members)
        )
        ruling = _Ruling(policy, case, profile, len(groups) == 1)
        plan = _plan(policy, profile, agency, reading.day)
        if tracing:
            on = {rule.id for rule, _, _ in plan}
            why = "not part of this profile or switched off"
            traces += [Trace(name, "off", why, "off", profile.id) for name in CATALOGUE if name not in on]
        for rule, mode, action in plan:
            if only and rule.id not in only:
                continue
            answer = rule.judge(case)
            if tracing:
                traces.append(_trace(rule, answer, mode, profile))
            if isinstance(answer, list):
                for hit in answer:
                    _rule_on(ruling, rule, hit, mode, action)
        if not only:
            for own_rule in policy.own_rules:
                told = _own(policy, ruling, own_rule)
                if tracing:
                    status = "hit" if told is True else "miss" if told is False else "not_applicable"
                    why = told if isinstance(told, str) else own_rule.when
                    traces.append(Trace(own_rule.id, status, why, own_rule.mode, profile.id))
        _reminders(ruling)
        rulings.append(ruling)
    return _verdict(policy, situation, reading, targets, rulings), tuple(traces)


def _target(directory: Directory, recipient: Recipient, day: dt.date) -> Target:
    address = recipient.address.key
    domain = address.rpartition("@")[2]
    box = directory.mailbox(address)
    return Target(
        address,
        directory.agency_of(address, day),
        box,
        box is not None or directory.is_official(domain),
        directory.is_free(domain),
    )


def _plan(policy: Policy, profile: Profile, agency: Agency | None, day: dt.date) -> tuple[_Step, ...]:
    """The rules that are on for an agency on a day, in the order of the catalogue. Kept, for mail comes in days."""
    key = (profile.id, agency.id if agency else "", agency.level if agency else "", day)
    plan = policy._plans.get(key)
    if plan is None:
        steps = ((rule, *_mode(policy, profile, rule, agency, day)) for rule in CATALOGUE.values())
        plan = tuple(step for step in steps if step[1] != "off")
        if len(policy._plans) > 20_000:
            policy._plans.clear()
        policy._plans[key] = plan
    return plan


def _mode(
    policy: Policy, profile: Profile, rule: Rule, agency: Agency | None, day: dt.date
) -> tuple[str, Disposition | None]:
    """Mode and replaced action of a rule for one agency on one day."""
    if rule.fixed:
        return "enforce", None
    entry = profile.rules.get(rule.id)
    if entry is None:
        base, action = "off", None
    else:
        base, action = entry.mode, entry.action
        within = (
            (not profile.from_ or profile.from_ <= day)
            and (not profile.to or day <= profile.to)
            and (not entry.from_ or entry.from_ <= day)
            and (not entry.to or day <= entry.to)
        )
        if not within and base == "enforce":
            base = "warn"
    switches = policy.switches.get(rule.id)
    if switches:
        bound = [one for one in switches if one.binds(profile.id, agency)]
        current = [one for one in bound if one.in_force(day)]
        if current:
            base = current[-1].mode or base
            action = current[-1].action or action
        elif bound and bound[-1].mode == "enforce":
            base = "warn"
    return base, DISPOSITIONS[action] if action else None


def _rule_on(ruling: _Ruling, rule: Rule, hit: Hit, mode: str, action: Disposition | None) -> None:
    """What one hit leads to."""
    case = ruling.case
    disposition = hit.disposition or rule.disposition
    if hit.note:
        ruling.annotations.append(Annotation(hit.rule or rule.id, _clean(hit.about), _clean(hit.note)))
    if disposition == Disposition.DELIVER:
        return
    if action is not None and disposition in (Disposition.HOLD, Disposition.RETURN):
        disposition = action
    disposition, mode = _weigh(ruling, rule.id, disposition, mode, rule.fixed)
    text = rule.texts[hit.text]
    for switch in ruling.policy.switches.get(rule.id, ()):
        if switch.texts != Texts() and switch.binds(ruling.profile.id, case.agency) and not hit.text:
            text = Text(
                *(getattr(switch.texts, part) or getattr(text, part) for part in ("vi", "en", "cure_vi", "cure_en"))
            )
    entry = ruling.profile.rules.get(rule.id)
    keys = [key for switch in ruling.policy.switches.get(rule.id, ()) for key in switch.basis] or (
        entry.basis if entry else ()
    )
    facts = {key: _clean(value) for key, value in hit.facts.items()}
    ruling.findings.append(
        Finding(
            rule=hit.rule or rule.id,
            mode=mode,
            disposition=disposition,
            about=_clean(hit.about),
            where=_clean(hit.where),
            evidence=_clean(hit.evidence),
            legal_basis=ruling.policy.basis(keys, case.day),
            vi=fill(text.vi, facts),
            en=fill(text.en, facts),
            cure_vi=fill(text.cure_vi, facts),
            cure_en=fill(text.cure_en, facts),
            notice=hit.notice or rule.notice,
            recipients=hit.recipients or (() if ruling.everybody else tuple(t.address for t in case.targets)),
            values=tuple((key, value) for key, text in hit.values.items() if (value := _clean(text))),
        )
    )


def _weigh(ruling: _Ruling, name: str, disposition: Disposition, mode: str, fixed: bool) -> tuple[Disposition, str]:
    """Mode, mandatory dates and the sender's authentication applied to a disposition."""
    case = ruling.case
    if not fixed and mode == "enforce" and disposition > Disposition.DELIVER_WARN:
        reminder, date = ruling.profile.mandatory(case.agency, case.directory, case.day)
        if reminder:
            names = ruling.weakened.setdefault((reminder, date), [])
            if name not in names:
                names.append(name)
            mode = "warn"
    if mode == "observe":
        disposition = Disposition.DELIVER
    elif mode == "warn":
        disposition = min(disposition, Disposition.DELIVER_WARN)
    if disposition == Disposition.RETURN and case.situation.direction == "in" and not case.reading.authenticated:
        disposition = Disposition.HOLD
    return disposition, mode


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def _clean(text: str) -> str:
    """A value from a hostile message for one line: no control or direction characters, at most 200 characters."""
    return _CONTROL.sub(" ", text)[:200].strip() if text else ""


def _reminders(ruling: _Ruling) -> None:
    """TM-07 and TM-08: one finding tells from when the weakened rules are mandatory."""
    for (name, date), rules in ruling.weakened.items():
        if name not in ruling.profile.rules:
            continue
        agency = ruling.case.agency.name if ruling.case.agency else ""
        facts = {"rules": ", ".join(rules), "agency": agency, "date": f"{date:%d/%m/%Y}" if date else ""}
        _rule_on(
            ruling,
            CATALOGUE[name],
            Hit(evidence=facts["rules"], text="" if date else "open", facts=facts),
            "warn",
            None,
        )


def _trace(rule: Rule, answer: Answer, mode: str, profile: Profile) -> Trace:
    if isinstance(answer, str):
        return Trace(rule.id, "not_applicable", answer, mode, profile.id)
    why = "; ".join(filter(None, (" ".join(filter(None, (h.about, h.evidence or h.note))) for h in answer)))
    return Trace(rule.id, "hit" if answer else "miss", _clean(why), mode, profile.id)


def _verdict(
    policy: Policy, situation: Situation, reading: Reading, targets: list[Target], rulings: list[_Ruling]
) -> Verdict:
    findings = _merge([one for ruling in rulings for one in ruling.findings], targets)
    first = rulings[0]
    worst = max((one.disposition for one in findings), default=Disposition.DELIVER)
    secret = worst == Disposition.BLOCK_SECRET
    if secret:  # nothing of a secret: no other finding, place, name or document field
        findings = [replace(one, about="", where="", evidence="") for one in findings if one.disposition == worst]
    general = max((one.disposition for one in findings if not one.recipients), default=Disposition.DELIVER)
    recipients = tuple(
        RecipientVerdict(
            target.address,
            max((one.disposition for one in findings if target.address in one.recipients), default=general)
            if any(target.address in one.recipients for one in findings)
            else general,
            target.agency.id if target.agency else "",
        )
        for target in targets
    )
    recipients = tuple(replace(one, disposition=max(one.disposition, general)) for one in recipients)
    seen: list[Annotation] = []
    for ruling in rulings:
        seen += [one for one in ruling.annotations if one not in seen]
    level = next((one.note for one in seen if one.rule == "SC-02"), "unknown" if secret else "")
    mode = first.case.delivery.mode
    return Verdict(
        disposition=worst,
        findings=tuple(findings),
        recipients=recipients,
        message_class=reading.message_class.value,
        profile=first.profile.id,
        delivery_mode=mode,
        policy_digest=policy.digest,
        agency=first.case.agency.id if first.case.agency else "",
        document=None if secret else reading.document,
        urgency="" if secret else reading.urgency,
        headers=() if secret else _headers(policy, reading, first, findings, seen),
        acknowledge=(
            first.profile.acknowledge
            and situation.direction == "in"
            and reading.formal
            and reading.authenticated
            and worst <= Disposition.DELIVER_WARN
        ),
        annotations=() if secret else tuple(seen),
        secrecy_level=level,
    )


def _merge(findings: list[Finding], targets: list[Target]) -> list[Finding]:
    """The same finding under several agencies' profiles becomes one with all their recipients; strongest first.
    What a rule says twice in the same words is said once, in its strongest form."""
    merged: dict[tuple[Any, ...], Finding] = {}
    everybody = {target.address for target in targets}
    for one in findings:
        key = (one.rule, one.mode, one.disposition, one.vi, not one.recipients)
        known = merged.get(key)
        if known is None:
            merged[key] = one
        elif known.recipients:
            merged[key] = replace(known, recipients=tuple(dict.fromkeys(known.recipients + one.recipients)))
    whole = [replace(one, recipients=()) if set(one.recipients) == everybody else one for one in merged.values()]
    whole.sort(key=lambda one: -one.disposition)
    said: set[tuple[str, str, str]] = set()
    told = []
    for one in whole:
        words = (one.rule, one.mode, one.vi)
        if words not in said:
            told.append(one)
        if not one.recipients:
            said.add(words)
    return told


def _headers(
    policy: Policy, reading: Reading, ruling: _Ruling, findings: list[Finding], annotations: list[Annotation]
) -> tuple[tuple[str, str], ...]:
    """Trace headers, ASCII only: ids and fixed words, never text of the message."""
    rows = [
        ("X-VBDT-Class", reading.message_class.value),
        ("X-VBDT-Profile", ruling.profile.id),
        ("X-VBDT-Delivery", ruling.case.delivery.mode),
        ("X-VBDT-Policy", policy.digest[:16]),
    ]
    if reading.urgency:
        rows.append(("X-VBDT-Urgency", reading.urgency))
    if any(one.rule == "MB-04" for one in annotations):
        rows.append(("X-VBDT-Exception", "MB-04"))
    if any(one.rule == "SG-03" for one in annotations):
        rows.append(("X-VBDT-Paper-Copy", "not_required"))
    if reading.main is not None and reading.formal:
        states = [one.state.value for one in reading.main.signatures if one.kind != "timestamp"]
        rows.append(("X-VBDT-Signature", ", ".join(sorted(set(states))) or "NO_SIGNATURE"))
        if reading.main.seal_state == "PRESENT" and not states:
            rows.append(("X-VBDT-Seal", "scanned"))
    shown = sorted({f"{one.rule}; {one.mode}" for one in findings if one.disposition > Disposition.DELIVER})
    rows += [("X-VBDT-Finding", one) for one in shown]
    return tuple(rows)


# -- own rules -------------------------------------------------------------------------------------------------------

_EMPTY: dict[str, Any] = {}


def _own(policy: Policy, ruling: _Ruling, own: OwnRule) -> bool | str:
    """Judge an own rule. A condition that fails is not a condition that is false: it gives a reminder."""
    case = ruling.case
    if own.mode == "off" or not own.binds(ruling.profile.id, case.agency):
        return "does not bind this agency"
    day, mode = case.day, str(own.mode)
    if (own.from_ and day < own.from_) or (own.to and day > own.to):
        if mode != "enforce":
            return "outside its dates"
        mode = "warn"
    disposition = DISPOSITIONS[own.action]
    text = (own.vi, own.en, own.cure_vi, own.cure_en)
    try:
        if not policy._programs[own.id].execute(_cel_facts(_facts(case))):
            return False
    except Exception as error:  # whatever the expression library raises for a value it cannot use
        disposition = Disposition.DELIVER_WARN
        text = (f"Không đánh giá được quy tắc {own.id}.", f"Rule {own.id} could not be judged.", "", "")
        ruling.annotations.append(Annotation(own.id, "", _clean(str(error))))
    disposition, mode = _weigh(ruling, own.id, disposition, mode, False)
    ruling.findings.append(
        Finding(
            own.id,
            mode,
            disposition,
            "",
            "",
            "",
            policy.basis(own.basis, day),
            *text,
            own.notice,
            () if ruling.everybody else tuple(t.address for t in case.targets),
        )
    )
    return True


def _compile(condition: str) -> Any:
    """A CEL program. Imported when a policy has conditions: the package brings its own shell, a second of imports."""
    import cel

    return cel.compile(condition)


def _cel_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The names a condition may use, with empty values for what a message lacks (docs/rules.md lists them)."""
    return {
        "direction": "in",
        "at": "",
        "hour": 0,
        "weekday": 1,
        "message_class": "",
        "delivery_mode": "",
        "urgency": "",
        "official": False,
        "formal": False,
        "signed": False,
        "subject": "",
        "size": 0,
        "sender": dict.fromkeys(("address", "domain", "agency", "level", "kind"), "")
        | dict.fromkeys(("official", "free", "authenticated"), False),
        "recipients": [],
        "document": dict.fromkeys(("code", "kind", "date", "abstract", "issuer", "signer"), ""),
        "files": [],
    } | facts


def _facts(case: Case) -> dict[str, Any]:
    r, at = case.reading, case.situation.at.astimezone(VIETNAM)
    document = r.document
    value = lambda name: getattr(getattr(document, name, None), "value", "")  # noqa: E731
    return {
        "direction": case.situation.direction,
        "at": at.isoformat(),
        "hour": at.hour,
        "weekday": at.isoweekday(),
        "message_class": r.message_class.value,
        "delivery_mode": case.delivery.mode,
        "urgency": r.urgency,
        "official": r.official,
        "formal": r.formal,
        "signed": r.signed,
        "subject": case.situation.inspection.message.subject,
        "size": sum(f.size for f in case.situation.inspection.files if f.depth == 0),
        "sender": {
            "address": r.author,
            "domain": r.author.rpartition("@")[2],
            "agency": r.author_agency.id if r.author_agency else "",
            "level": r.author_agency.level if r.author_agency else "",
            "kind": r.author_box.kind if r.author_box else "",
            "official": r.official_author,
            "free": r.free_author,
            "authenticated": r.authenticated,
        },
        "recipients": [
            {
                "address": t.address,
                "domain": t.address.rpartition("@")[2],
                "agency": t.agency.id if t.agency else "",
                "level": t.agency.level if t.agency else "",
                "kind": t.box.kind if t.box else "",
                "official": t.official,
                "free": t.free,
            }
            for t in case.targets
        ],
        "document": {
            "code": value("code"),
            "kind": value("kind"),
            "date": value("date"),
            "abstract": value("abstract"),
            "issuer": r.issuer_name,
            "signer": value("signer"),
        },
        "files": [
            {"name": f.name, "path": f.path, "type": f.type, "size": f.size, "depth": f.depth, "encrypted": f.encrypted}
            for f in case.situation.inspection.files
        ],
    }
