"""Agencies and mailboxes as of a date.

Read from `directory/` of the configuration, YAML or CSV, strictly: every problem with its file and line. An agency may
have several rows with the same id and different dates, because names, levels and parents change (rules.md 2.0); an
agency that ended leads to its successor. All look-ups are dictionary look-ups.
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import difflib
import gc
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, create_model, model_validator

from gateway import config
from gateway.errors import ConfigError, Problem
from gateway.lookalike import Lookalikes
from gateway.message import VIETNAM

#: rules.md 4.1, highest first. A unit is a đơn vị sự nghiệp or a phòng ban.
Level = Literal["central", "ministry", "province", "department", "district", "commune", "unit"]
Kind = Literal["AGENCY", "PERSONAL", "ROLE"]

#: Agency identifiers, rules.md 2.4: the 13-character form of QCVN 102 and the form of QĐ 20/2020/QĐ-TTg.
ORGAN_ID = re.compile(r"[0-9A-Z]{3}\.[0-9A-Z]{2}\.[0-9A-Z]{2}\.[A-Z]\d{2}|(?=.{3,35}$)[A-Z]\d{2}(?:\.[0-9A-Z]+)*")
_DOMAIN = re.compile(r"(?=.{1,253}$)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_](?:[\w-]{0,61}[^\W_])", re.UNICODE)
_ADDRESS = re.compile(r"[^\s@<>\"(),:;\\\[\]]{1,64}@([^\s@]+)")


_SEPARATORS = str.maketrans(",;|", "   ")


def _words(value: object) -> object:
    """A cell or scalar with several values: separated by blanks, commas, semicolons or bars."""
    if isinstance(value, str):
        return value.translate(_SEPARATORS).split()
    return value


def _phrases(value: object) -> object:
    """Like `_words` for values that hold blanks (names): separated by semicolons or bars."""
    if isinstance(value, str):
        return [word.strip() for word in re.split(r"[;|]", value) if word.strip()]
    return value


def _domain(value: object) -> object:
    if not isinstance(value, str) or not _DOMAIN.fullmatch(value):
        raise ValueError("a domain looks like sonoivu.tinh.gov.vn")
    return value.lower()


@lru_cache(maxsize=1 << 14)  # the same domain comes with every mailbox of an agency
def _is_domain(text: str) -> bool:
    return _DOMAIN.fullmatch(text) is not None


def _address(value: object) -> object:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if not match or not _is_domain(match[1]):
        raise ValueError("an address looks like vanthu@sonoivu.tinh.gov.vn")
    return str(value).lower()


def _organ(value: object) -> object:
    if not isinstance(value, str) or (value and not ORGAN_ID.fullmatch(value)):
        raise ValueError("an organ id looks like 000.00.01.H09 or H09.02.03")
    return value


DomainName = Annotated[str, BeforeValidator(_domain)]
MailAddress = Annotated[str, BeforeValidator(_address)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Certificate(config.Settings):
    """The agency's right to sign: since when, and what its certificates say (UID values, e-mail, fingerprints)."""

    issued_on: dt.date
    subjects: Annotated[tuple[str, ...], BeforeValidator(_phrases)] = ()


class Signer(config.Settings):
    """A person who may sign for the agency; named by title."""

    title: str
    name: str = ""
    subjects: Annotated[tuple[str, ...], BeforeValidator(_phrases)] = ()
    valid_from: dt.date | None = None
    valid_to: dt.date | None = None


def _contact_address(value: object) -> object:
    return value if value == "" else _address(value)


class Contact(config.Settings):
    """Somebody of the agency, by title. Leaders and delegate get alerts of urgent documents (docs/alerts.md)."""

    title: str = ""
    phone: config.Phone = ""
    email: Annotated[str, BeforeValidator(_contact_address)] = ""


class Agency(config.Settings):
    """One agency during one period. `domains` and all below belong to it unless another agency names a longer one."""

    id: Identifier
    name: str
    short_name: str = ""
    aliases: Annotated[tuple[str, ...], BeforeValidator(_phrases)] = ()
    level: Level
    parent: str = ""
    organ_id: Annotated[str, BeforeValidator(_organ)] = ""
    domains: Annotated[tuple[DomainName, ...], BeforeValidator(_words)] = ()
    valid_from: dt.date | None = None
    valid_to: dt.date | None = None  # the last day
    successor: str = ""
    profile: str = ""  # empty: the parent's, at last the default of policy.yaml
    certificate: Certificate | None = None
    signers: tuple[Signer, ...] = ()
    effective_from: dt.date | None = None  # TM-08: overrides the date of the profile for this agency
    leaders: tuple[Contact, ...] = ()
    delegate: Contact | None = None
    clerk: Contact | None = None
    require_electronic: bool = False  # AR-06

    @model_validator(mode="after")
    def _dates(self) -> Agency:
        if self.valid_from and self.valid_to and self.valid_to < self.valid_from:
            raise ValueError(f"agency {self.id}: valid_to {self.valid_to} is before valid_from {self.valid_from}")
        if self.successor and not self.valid_to:
            raise ValueError(f"agency {self.id}: a successor needs valid_to, the last day of this agency")
        return self

    def valid(self, day: dt.date) -> bool:
        return (not self.valid_from or self.valid_from <= day) and (not self.valid_to or day <= self.valid_to)

    def name_keys(self) -> set[str]:
        """All its names, as `name_key` spells them."""
        return {name_key(one) for one in (self.name, self.short_name, *self.aliases) if one}

    def certified(self, day: dt.date) -> bool:
        """Was a certificate issued on or before that day (rules.md SG-01)?"""
        return self.certificate is not None and self.certificate.issued_on <= day


class MailboxRow(config.Settings):
    address: MailAddress
    kind: Kind = "PERSONAL"
    holder: str = ""
    agency: str
    issued_on: dt.date | None = None
    revoked_on: dt.date | None = None
    published: bool | None = None
    logins: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    private: Annotated[tuple[MailAddress, ...], BeforeValidator(_words)] = ()


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An official mailbox. `logins`: accounts besides its own address that may send from it. `private`: other addresses
    of the holder that are known, so that official business over them is recognised (rules.md MB-01, N02)."""

    address: str
    kind: Kind
    holder: str
    agency: str
    issued_on: dt.date | None
    revoked_on: dt.date | None
    published: bool
    logins: tuple[str, ...]
    private: tuple[str, ...]

    def issued(self, day: dt.date) -> bool:
        """`đã được cấp`: issued and not revoked on that day; a mailbox without a date counts as issued."""
        return (not self.issued_on or self.issued_on <= day) and (not self.revoked_on or day < self.revoked_on)


class FreeMailboxException(config.Settings):
    """MB-04: an agency without mailboxes may use a free one for a time (seed 003, 1a)."""

    agency: str
    address: MailAddress
    reason: str = Field(min_length=1)
    approved_by: str = Field(min_length=1)
    expires_on: dt.date  # the last day


Moment = Annotated[dt.datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=VIETNAM))]


class Meeting(config.Settings):
    """A meeting known beforehand (TM-01), by the number of its invitation (`35/GM-UBND`) or by its title."""

    title: str
    code: str = ""
    start: Moment
    chaired_by_committee: bool = True  # only meetings that the committee's leaders chair are bound by the 24 hours


class Publication(config.Settings):
    """When an agency puts its work calendar on the web site (TM-02)."""

    agency: str
    published_at: Moment


class Holiday(config.Settings):
    """A day on which nobody works, besides those in `policy.yaml`."""

    day: dt.date
    name: str = ""


def name_key(name: str) -> str:
    """A spelling of a name for comparison: NFC, lower case, one blank, tone marks at the end of the syllable.

    `Ủy ban` and `Uỷ ban`, `hòa` and `hoà` are the same name with the tone on another vowel (rules.md 3.2)."""
    keys = [_piece_key(piece) if len(piece) <= 24 else _piece_key.__wrapped__(piece) for piece in name.split()]
    return " ".join(filter(None, keys))


@lru_cache(1 << 14)
def _piece_key(piece: str) -> str:
    """`name_key` of what stands between blanks. Cached: the same few thousand syllables come back in every message."""
    text = unicodedata.normalize("NFD", piece.replace("\u00d0", "Đ").replace("\u00f0", "đ")).casefold()
    while (moved := unicodedata.normalize("NFD", _TONE.sub(r"\2\1", text))) != text:  # again for several tones
        text = moved
    return " ".join(_WORD.findall(text))


_WORD = re.compile(r"[^\W_][\w\u0300-\u036f]*")
#: A tone mark (huyền, sắc, ngã, hỏi, nặng) and what follows it in the word; other marks belong to their letter.
_TONE = re.compile("([\u0300\u0301\u0303\u0309\u0323])([\\w\u0302\u0306\u031b]+)")


@dataclass(slots=True)
class Directory:
    """Immutable after loading; a reload makes a new one."""

    _agencies: dict[str, tuple[Agency, ...]] = field(default_factory=dict)
    _mailboxes: dict[str, Mailbox] = field(default_factory=dict)
    _domains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _private: dict[str, Mailbox] = field(default_factory=dict)
    _holders: dict[str, tuple[Mailbox, ...]] = field(default_factory=dict)
    _names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _issued: dict[str, tuple[Mailbox, ...]] = field(default_factory=dict)
    _exceptions: dict[str, tuple[FreeMailboxException, ...]] = field(default_factory=dict)
    _meetings: tuple[Meeting, ...] = ()
    _publications: dict[str, tuple[dt.datetime, ...]] = field(default_factory=dict)
    holidays: frozenset[dt.date] = frozenset()
    _free: frozenset[str] = frozenset()
    _free_stems: frozenset[str] = frozenset()
    _official: frozenset[str] = frozenset()
    _lookalikes: Lookalikes = field(default_factory=lambda: Lookalikes(()))

    # -- agencies ----------------------------------------------------------------------------------------------------

    def agency(self, identifier: str, at: dt.date | dt.datetime) -> Agency | None:
        """The agency, or its successor, as of that day."""
        day = _day(at)
        seen: set[str] = set()
        while identifier and identifier not in seen:
            seen.add(identifier)
            versions = self._agencies.get(identifier, ())
            for version in versions:
                if version.valid(day):
                    return version
            past = [version for version in versions if version.valid_to and version.valid_to < day]
            identifier = past[-1].successor if past else ""
        return None

    def agency_of(self, address: str, at: dt.date | dt.datetime) -> Agency | None:
        """The agency that owns a mailbox, by the mailbox itself or by the longest domain that an agency names."""
        box = self._mailboxes.get(address.lower())
        if box is not None:
            return self.agency(box.agency, at)
        domain = address.rpartition("@")[2].lower()
        while domain:
            for identifier in self._domains.get(domain, ()):
                found = self.agency(identifier, at)
                if found is not None:
                    return found
            domain = domain.partition(".")[2]
        return None

    def agency_named(self, name: str, at: dt.date | dt.datetime) -> Agency | None:
        """The agency with that name, short name or alias on that day; None too when two agencies share it."""
        day, key = _day(at), name_key(name)
        found = {
            agency.id: agency
            for identifier in self._names.get(key, ())
            for agency in self._agencies[identifier]
            if agency.valid(day) and key in agency.name_keys()
        }
        return next(iter(found.values())) if len(found) == 1 else None

    def ancestors(self, agency: Agency, at: dt.date | dt.datetime) -> Iterator[Agency]:
        """Parent, parent's parent and so on."""
        seen = {agency.id}
        current: Agency | None = agency
        while current is not None and current.parent and current.parent not in seen:
            seen.add(current.parent)
            current = self.agency(current.parent, at)
            if current is not None:
                yield current

    def profile_of(self, agency: Agency | None, at: dt.date | dt.datetime) -> str:
        """The profile an agency names, or the nearest ancestor's; empty when nobody names one."""
        if agency is None:
            return ""
        return agency.profile or next((one.profile for one in self.ancestors(agency, at) if one.profile), "")

    def agencies(self, at: dt.date | dt.datetime | None = None) -> Iterator[Agency]:
        """All agencies, or those of a day, in the order of the files."""
        for versions in self._agencies.values():
            yield from (one for one in versions if at is None or one.valid(_day(at)))

    # -- mailboxes ---------------------------------------------------------------------------------------------------

    def mailbox(self, address: str) -> Mailbox | None:
        return self._mailboxes.get(address.lower())

    def mailboxes(self, agency: str = "") -> Iterator[Mailbox]:
        return iter(self._issued.get(agency, ()) if agency else self._mailboxes.values())

    def owner_of_private(self, address: str) -> Mailbox | None:
        """The official mailbox of the member of staff to whom a private address belongs."""
        return self._private.get(address.lower())

    def holders(self, name: str) -> tuple[Mailbox, ...]:
        """Mailboxes whose holder has this name, however it is spelled."""
        return self._holders.get(name_key(name), ()) if name else ()

    def has_mailbox(self, agency: str, day: dt.date, kind: str = "") -> bool:
        """Has the agency an issued mailbox on that day (of that kind)?"""
        return any(box.issued(day) and (not kind or box.kind == kind) for box in self._issued.get(agency, ()))

    def owns(self, login: str, address: str) -> bool:
        """May this login use this sender address? Its own address, or a mailbox that lists it."""
        login, address = login.lower(), address.lower()
        if login == address:
            return True
        box = self._mailboxes.get(address)
        return box is not None and login in box.logins

    def exceptions(self, address: str = "") -> tuple[FreeMailboxException, ...]:
        if address:
            return self._exceptions.get(address.lower(), ())
        return tuple(one for many in self._exceptions.values() for one in many)

    # -- meetings and calendars --------------------------------------------------------------------------------------

    def meeting(self, codes: Collection[str], text: str, at: dt.datetime) -> Meeting | None:
        """The nearest meeting within a month whose invitation is among `codes`, or whose title is in `text`, a padded
        `name_key`."""
        near = [one for one in self._meetings if abs(one.start - at) <= dt.timedelta(days=31)]
        for fits in (
            [one for one in near if one.code and one.code.replace(" ", "").upper() in codes],
            [one for one in near if f" {name_key(one.title)} " in text],
        ):
            if fits:
                return min(fits, key=lambda one: abs(one.start - at))
        return None

    def publications(self, agency: str, at: dt.datetime) -> tuple[dt.datetime, ...]:
        """Planned times of an agency's work calendar on the web site, a week around `at`."""
        return tuple(one for one in self._publications.get(agency, ()) if abs(one - at) <= dt.timedelta(days=7))

    # -- domains -----------------------------------------------------------------------------------------------------

    def is_official(self, domain: str) -> bool:
        """Does a domain lie under an official one (`gov.vn`) or under an agency's? Only whole labels count, so
        `gov.vn.example.com`, `tinh-gov.vn`, a trailing dot and look-alike letters do not (rules.md 1.1)."""
        domain = domain.lower()
        if not domain.isascii() or not domain or domain.endswith("."):
            return False
        while domain:
            if domain in self._official or domain in self._domains:
                return True
            domain = domain.partition(".")[2]
        return False

    def is_listed_official(self, domain: str) -> bool:
        """Like `is_official`, but by the list of official domains alone (MB-02)."""
        domain = domain.lower()
        while domain and domain.isascii() and not domain.endswith("."):
            if domain in self._official:
                return True
            domain = domain.partition(".")[2]
        return False

    def is_free(self, domain: str) -> bool:
        """Is it a free-mail provider (list `free.txt`, entries such as `gmx.*` included)?"""
        domain = domain.lower().rstrip(".")
        return domain in self._free or domain.partition(".")[0] in self._free_stems

    def imitated(self, domain: str) -> tuple[str, str]:
        """The official domain that this one imitates without being under it, and the way (`lookalike.py`)."""
        return ("", "") if self.is_official(domain) else self._lookalikes.imitated(domain)


def _day(at: dt.date | dt.datetime) -> dt.date:
    return at.date() if isinstance(at, dt.datetime) else at


# -- loading ---------------------------------------------------------------------------------------------------------

Row = TypeVar("Row", bound=config.Settings)


class _Source:
    """A file of the folder. Where a value stands in it is found out only when there is something to say about it."""

    def __init__(self, path: Path, stem: str) -> None:
        self.path, self.stem, self.shown = path, stem, f"directory/{path.name}"
        self._lines: list[str] | None = None
        self._data: Any = None

    def problem(self, line: int, key: str, text: str) -> Problem:
        """A mistake in the row that begins at `line`, in the cell or key named."""
        with contextlib.suppress(ConfigError, OSError, UnicodeError):
            if self.path.suffix == ".csv":
                return Problem(self.shown, line, self._column(line, key), text)
            return Problem(self.shown, *self._place(line, key), text)
        return Problem(self.shown, line, 0, text)

    def _column(self, line: int, key: str) -> int:
        if self._lines is None:
            self._lines = self.path.read_text(encoding="utf-8-sig").split("\n")
        mark = _mark(self._lines[0])
        heads = [name.strip().strip('"') for name in self._lines[0].split(mark)]
        starts = cells_of(self._lines[line - 1], mark)
        return starts[heads.index(key)] if key in heads and heads.index(key) < len(starts) else 1

    def _place(self, line: int, key: str) -> tuple[int, int]:
        if self._data is None:
            self._data = config.load_yaml(self.path)[self.stem]
        for number, row in enumerate(self._data):
            at = self._data.lc.item(number)
            if at[0] + 1 == line:
                at = row.lc.key(key) if key in row else at
                return at[0] + 1, at[1] + 1
        return line, 0


_Placed = tuple[Any, _Source, int]  # value, its file, line of its row


def cells_of(line: str, mark: str) -> list[int]:
    """Where the cells of a line of CSV begin, from 1."""
    places, quoted = [1], False
    for at, letter in enumerate(line):
        if letter == '"':
            quoted = not quoted
        elif letter == mark and not quoted:
            places.append(at + 2)
    return places


def _mark(head: str) -> str:
    return ";" if head.count(";") > head.count(",") else ","


class _Names:
    """Names that exist, for messages about one that does not."""

    def __init__(self, what: str, known: Collection[str]) -> None:
        self.what, self._known = what, known
        self._said: dict[str, str] = {}

    def unknown(self, name: str) -> str:
        if name not in self._said:  # looking through 10,000 names takes long, and a wrong column repeats itself
            near = difflib.get_close_matches(name, list(self._known), 1) if len(self._said) < 50 else []
            self._said[name] = f"unknown {self.what} {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
        return self._said[name]


#: Mistakes of one file that are told; a file with more has one cause, not a thousand.
_TOLD = 200


def load(folder: Path) -> Directory:
    """Read the folder `directory/` of a configuration, and `lists/` beside it. Raises ConfigError with every problem.

    `agencies*.yaml|csv` (at least one), `mailboxes*`, `exceptions*`, `meetings*`, `publications*`, `holidays*`; lists
    `free.txt` and `official.txt`.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing of this becomes garbage; walking half a million values again and again takes long
    try:
        return _load(folder)
    finally:
        if collecting:
            gc.enable()


def _load(folder: Path) -> Directory:
    problems: list[Problem] = []
    agencies = list(_read(folder, "agencies", Agency, problems, required=True))
    exceptions = list(_read(folder, "exceptions", FreeMailboxException, problems))
    result = Directory()
    _lists(folder.parent / "lists", result, problems)
    broken = any(one.file.startswith("directory/agencies") for one in problems)  # then unknown ids tell nothing new
    _index_agencies(result, agencies, problems)
    known = None if broken else _Names("agency", result._agencies)
    _index_mailboxes(result, _read(folder, "mailboxes", MailboxRow, problems), problems, known)
    _index_exceptions(result, exceptions, problems, known)
    result._meetings = tuple(one for one, _, _ in _read(folder, "meetings", Meeting, problems))
    times: dict[str, list[dt.datetime]] = {}
    for one, source, line in _read(folder, "publications", Publication, problems):
        _known_agency(one.agency, source, line, known, result, problems)
        times.setdefault(one.agency, []).append(one.published_at)
    result._publications = {key: tuple(sorted(many)) for key, many in times.items()}
    result.holidays = frozenset(one.day for one, _, _ in _read(folder, "holidays", Holiday, problems))
    if problems:
        raise ConfigError(_shortened(sorted(problems)))
    hosts = {address.rpartition("@")[2] for address in result._mailboxes}
    result._lookalikes = Lookalikes({*result._official, *result._domains, *filter(result.is_official, hosts)})
    return result


def _shortened(problems: list[Problem]) -> list[Problem]:
    counts: dict[str, int] = {}
    told = []
    for one in problems:
        counts[one.file] = counts.get(one.file, 0) + 1
        if counts[one.file] <= _TOLD:
            told.append(one)
    more = [(file, count - _TOLD) for file, count in counts.items() if count > _TOLD]
    return told + [Problem(file, 0, 0, f"{count} more mistakes in this file") for file, count in more]


def _known_agency(
    name: str, source: _Source, line: int, known: _Names | None, result: Directory, problems: list[Problem]
) -> None:
    if name not in result._agencies and known is not None:
        problems.append(source.problem(line, "agency", f"agency: {known.unknown(name)}"))


def _read(
    folder: Path, stem: str, model: type[Row], problems: list[Problem], required: bool = False
) -> Iterator[_Placed]:
    paths = sorted(p for p in folder.glob(f"{stem}*") if p.suffix in (".yaml", ".csv")) if folder.is_dir() else []
    if not paths and required:
        problems.append(Problem(f"directory/{stem}.yaml", 0, 0, f"file not found; {stem}.yaml or {stem}.csv is needed"))
    for path in paths:
        source = _Source(path, stem)
        try:
            if path.suffix == ".csv":
                yield from _csv(source, model, problems)
            else:
                yield from _yaml(source, model)
        except ConfigError as error:
            problems.extend(error.problems)


def _yaml(source: _Source, model: type[Row]) -> Iterator[_Placed]:
    data = config.load_yaml(source.path, source.shown)
    stem = source.stem
    whole = create_model("File", __base__=config.Settings, **{stem: (tuple[model, ...], ...)})  # type: ignore[call-overload, valid-type]
    for number, value in enumerate(getattr(config.build(whole, data, source.shown), stem)):
        yield value, source, data[stem].lc.item(number)[0] + 1


def placed(folder: Path, agency: str, key: str, problem: Problem) -> Problem:
    """The problem of an agency with its file, line and column."""
    for one, source, line in _read(folder, "agencies", Agency, []):
        if one.id == agency and getattr(one, key):
            return source.problem(line, key, problem.text)
    return problem


#: CSV columns that stand for keys of a nested value.
_NESTED = {
    "certificate_issued_on": ("certificate", "issued_on"),
    "certificate_subjects": ("certificate", "subjects"),
    "clerk_phone": ("clerk", "phone"),
    "clerk_email": ("clerk", "email"),
    "delegate_phone": ("delegate", "phone"),
    "delegate_email": ("delegate", "email"),
    "leader_phones": ("leaders", "phone"),
    "leader_emails": ("leaders", "email"),
}
_YES_NO = ("published", "require_electronic", "chaired_by_committee")
_BOOLEANS = {"yes": True, "có": True, "true": True, "1": True, "x": True}
_BOOLEANS |= {"no": False, "không": False, "false": False, "0": False}


def _csv(source: _Source, model: type[Row], problems: list[Problem]) -> Iterator[_Placed]:
    """Rows of a CSV file, comma or semicolon, UTF-8 with or without byte order mark. Empty cells are absent keys."""
    path, shown = source.path, source.shown
    config.check_file(path, shown)
    begin = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            head = handle.readline()
            handle.seek(0)
            rows = csv.reader(handle, delimiter=_mark(head), strict=True)
            columns = [name.strip() for name in next(rows, [])]
            known = [*model.model_fields, *(name for name, (key, _) in _NESTED.items() if key in model.model_fields)]
            if not columns:
                raise ConfigError([Problem(shown, 0, 0, "the file is empty")])
            wrong = [name for name in columns if name not in known]
            twice = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
            if wrong or twice:
                names = _Names("column", known)
                hints = [(name, names.unknown(name)) for name in wrong]
                hints += [(name, f"column {name!r} is there twice") for name in twice if name not in wrong]
                raise ConfigError([source.problem(1, name, hint) for name, hint in hints])
            begin = rows.line_num
            for row in rows:
                line, begin = begin + 1, rows.line_num  # a quoted cell may hold line breaks
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(columns):
                    text = f"{len(row)} cells, but the header has {len(columns)} columns"
                    problems.append(source.problem(line, "", text))
                    continue
                try:
                    yield model.model_validate(_row(columns, row, model)), source, line
                except ValueError:
                    problems += _wrong_cells(source, line, columns, row, model)
    except UnicodeDecodeError:
        config.read_text(path, shown, table=True)  # says where
        raise
    except csv.Error as error:
        raise ConfigError([Problem(shown, begin + 1, 1, f"not CSV: {error}")]) from None
    except OSError as error:
        raise ConfigError([Problem(shown, 0, 0, error.strerror or "cannot be read")]) from None


def _wrong_cells(source: _Source, line: int, columns: list[str], row: list[str], model: type[Row]) -> Iterator[Problem]:
    try:
        config.build(model, _row(columns, row, model), source.shown)
    except ConfigError as error:
        for one in error.problems:
            where, colon, rest = one.text.partition(": ")
            steps = tuple(step for step in where.split(".") if not step.isdigit())
            absent = re.fullmatch(r"missing key '(\w+)'", one.text)
            column = next(
                (name for name, nested in _NESTED.items() if nested == steps), absent[1] if absent else steps[0]
            )
            known = column in columns
            yield source.problem(line, column, f"{column}: {rest}" if colon and known else one.text)


def _row(columns: list[str], cells: list[str], model: type[Row]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, cell in zip(columns, cells, strict=True):
        value = cell.strip()
        if not value:
            continue
        nested = _NESTED.get(name)
        if nested is None:
            row[name] = _BOOLEANS.get(value.lower(), value) if name in _YES_NO else value
        elif nested[0] == "leaders":
            known = row.setdefault("leaders", [])  # the first telephone and the first address are the first leader's
            for number, part in enumerate(_people(value)):
                known += [{}] * (number == len(known))
                known[number] = {**known[number], nested[1]: part}
        else:
            row.setdefault(nested[0], {})[nested[1]] = value
    return row


def _people(cell: str) -> Iterator[str]:
    """Telephone numbers or addresses in one cell. A blank separates them too, unless it stands inside a number."""
    for part in (one.strip() for one in re.split(r"[,;|]", cell) if one.strip()):
        words = part.split()
        yield from words if all("@" in one or config.international(one) for one in words) else (part,)


def _lists(folder: Path, result: Directory, problems: list[Problem]) -> None:
    """`free.txt` and `official.txt`: one domain a line, `#` starts a comment. A missing list is empty."""
    free = _list(folder / "free.txt", problems)
    official = _list(folder / "official.txt", problems)
    result._free = frozenset(one for one in free if not one.endswith(".*"))
    result._free_stems = frozenset(one[:-2] for one in free if one.endswith(".*"))
    result._official = frozenset(official)
    for domain, line in official.items():
        if result.is_free(domain):
            text = f"{domain!r} is in free.txt too; an official domain is not a free one"
            problems.append(Problem("lists/official.txt", line, 1, text))


def _list(path: Path, problems: list[Problem]) -> dict[str, int]:
    """The domains of a list with their lines."""
    shown = f"lists/{path.name}"
    try:
        lines = config.read_text(path, shown).split("\n") if path.exists() or path.is_symlink() else []
    except ConfigError as error:
        problems += error.problems
        return {}
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        entry = line.partition("#")[0].strip().lower()
        if entry and not _DOMAIN.fullmatch(entry.replace(".*", ".vn")):
            column = len(line) - len(line.lstrip()) + 1
            text = f"{entry!r} is not a domain; write example.com or example.*"
            problems.append(Problem(shown, number, column, text))
        elif entry:
            found.setdefault(entry, number)
    return found


def _index_agencies(result: Directory, rows: list[_Placed], problems: list[Problem]) -> None:
    versions: dict[str, list[Agency]] = {}
    domains: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for agency, source, line in rows:
        for other in versions.get(agency.id, ()):
            if _overlap(agency, other):
                text = f"agency {agency.id!r} is there twice for the same days"
                problems.append(source.problem(line, "id", text))
        versions.setdefault(agency.id, []).append(agency)
    known = _Names("agency", versions)
    for agency, source, line in rows:
        for key in ("parent", "successor"):
            other = getattr(agency, key)
            if other and other not in versions:
                problems.append(source.problem(line, key, f"{key}: {known.unknown(other)}"))
        for domain in agency.domains:
            if result.is_free(domain):
                text = f"domains: {domain!r} is in free.txt too; an official domain is not a free one"
                problems.append(source.problem(line, "domains", text))
            owners = domains.setdefault(domain, [])
            for owner in owners:
                if owner != agency.id and any(
                    _overlap(agency, one) for one in versions[owner] if domain in one.domains
                ):
                    text = f"domain {domain!r} belongs to agency {owner!r} already"
                    problems.append(source.problem(line, "domains", text))
            if agency.id not in owners:
                owners.append(agency.id)
        for name in agency.name_keys():
            if agency.id not in names.setdefault(name, []):
                names[name].append(agency.id)
    for key, kin in (("parent", "ancestor"), ("successor", "successor")):
        for agency, source, line in rows:
            seen, current = [agency.id], getattr(agency, key)
            while current in versions and current not in seen:
                seen.append(current)
                current = getattr(versions[current][-1], key)
            if current == agency.id:
                text = f"agency {agency.id!r} is its own {kin}: {' > '.join(seen)}"
                problems.append(source.problem(line, key, text))
    result._agencies = {
        key: tuple(sorted(many, key=lambda one: one.valid_from or dt.date.min)) for key, many in versions.items()
    }
    result._domains = {key: tuple(many) for key, many in domains.items()}
    result._names = {key: tuple(many) for key, many in names.items()}


def _overlap(one: Agency, other: Agency) -> bool:
    return (one.valid_from or dt.date.min) <= (other.valid_to or dt.date.max) and (other.valid_from or dt.date.min) <= (
        one.valid_to or dt.date.max
    )


def _index_mailboxes(result: Directory, rows: Iterable[_Placed], problems: list[Problem], known: _Names | None) -> None:
    boxes: dict[str, Mailbox] = {}
    private: dict[str, Mailbox] = {}
    holders: dict[str, list[Mailbox]] = {}
    by_agency: dict[str, list[Mailbox]] = {}
    for row, source, line in rows:
        if row.address in boxes:
            problems.append(source.problem(line, "address", f"mailbox {row.address!r} is there twice"))
        if result.is_free(row.address.rpartition("@")[2]):
            text = f"address: {row.address!r} is a free mailbox, not an official one; put it into `private`"
            problems.append(source.problem(line, "address", text))
        _known_agency(row.agency, source, line, known, result, problems)
        if row.issued_on and row.revoked_on and row.revoked_on < row.issued_on:
            text = f"revoked_on {row.revoked_on} is before issued_on {row.issued_on}"
            problems.append(source.problem(line, "revoked_on", text))
        published = row.published if row.published is not None else row.kind != "PERSONAL"  # rules.md MB-08, 2.10
        box = Mailbox(
            row.address,
            row.kind,
            row.holder,
            sys.intern(row.agency),
            row.issued_on,
            row.revoked_on,
            published,
            tuple(login.lower() for login in row.logins),
            row.private,
        )
        boxes[row.address] = box
        by_agency.setdefault(row.agency, []).append(box)
        for address in row.private:
            private[address] = box
        if row.holder and row.kind == "PERSONAL":
            holders.setdefault(name_key(row.holder), []).append(box)
    result._mailboxes, result._private = boxes, private
    result._holders = {key: tuple(many) for key, many in holders.items()}
    result._issued = {key: tuple(many) for key, many in by_agency.items()}


def _index_exceptions(result: Directory, rows: list[_Placed], problems: list[Problem], known: _Names | None) -> None:
    found: dict[str, list[FreeMailboxException]] = {}
    for row, source, line in rows:
        _known_agency(row.agency, source, line, known, result, problems)
        found.setdefault(row.address, []).append(row)
    result._exceptions = {key: tuple(many) for key, many in found.items()}
