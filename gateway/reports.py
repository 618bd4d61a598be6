"""Reports: what is published, what operator and agencies are told, and when.

A publication is a folder of files that a portal takes as it is (`report_files.py`), around one JSON file that is signed
with the report key and whose digest is a leaf of the archive's tree. What went out is kept for good: a later
publication of the same period is a new revision, which names every number that changed.

Work by the clock is claimed in the table `job`: it is done once, however many daemons there are, and made up for after
an outage, because what is due follows from what was done and not from when somebody was awake.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import socket
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from sqlalchemy import Connection, func, select, update

from gateway import archive as archives
from gateway import database as db
from gateway import durable, report_files, returns, stats
from gateway.archive import Archive, Notice, canonical, from_ms, stamp, to_ms
from gateway.config import Gateway
from gateway.directory import Agency, Directory
from gateway.errors import LOCAL_ERROR, Failure
from gateway.message import VIETNAM
from gateway.policy import Policy
from gateway.rules import CATALOGUE
from gateway.stats import Book, Difference, Period, Proof, Row, Share

FORMAT = "congvan-report/1"
#: Months on the charts.
_SERIES = 12
#: Figures that are for those concerned and not for the public: who broke which rule (rules.md ST-08).
_INTERNAL = ("refused",)
_OTHER_GROUPS = {
    "issued_mailboxes": "mailboxes",
    "urgent_ack_median_s": "time",
    "hoa_toc_ack_median_s": "time",
    "citizen_reply_median_h": "citizens",
    "spam": "refused",
}
_SHORT = {
    "any_80": ("Trao đổi điện tử", "Exchanged electronically"),
    "internal_90": ("Nội bộ hoàn toàn điện tử", "Internal, fully electronic"),
    "inter_agency_70": ("Giữa các cơ quan, hoàn toàn điện tử", "Between agencies, fully electronic"),
    "communes_100": ("Cấp xã tham gia", "Communes taking part"),
}


# ---------------------------------------------------------------------- what a report says


def _public(internal: bool) -> list[stats.Figure]:
    return [one for one in stats.FIGURES if internal or one.group not in _INTERNAL]


def _share(share: Share) -> dict[str, Any]:
    return {
        "part": share.part,
        "whole": share.whole,
        "percent": share.percent,
        "why": list(share.reason) if share.reason is not None else None,
    }


def _line(row: Row, internal: bool) -> dict[str, Any]:
    figures = {one.key: row.figures[one.key] for one in _public(internal)}
    figures |= {key: row.figures.get(key) for key in stats.OTHERS if internal or _OTHER_GROUPS[key] not in _INTERNAL}
    return {
        "figures": figures,
        "paper": {way: row.paper.get(way) for way in ("out", "in", "internal")},
        "shares": {key: _share(one) for key, one in row.shares.items()},
        # where an agency has not told its paper counts: the shares of those that have, and how many these are
        "told": {key: _share(one) for key, one in row.told.items()},
        "agencies": len(row.members - {""}),
        "paper_reported": row.reported,
        **({"returned_by": dict(sorted(row.returned_by.items()))} if internal else {}),
    }


def _definitions(internal: bool) -> list[dict[str, str]]:
    found = [
        {
            "key": one.key,
            "type": "count",
            "group": one.group,
            "vi": one.vi,
            "en": one.en,
            "definition": one.definition(),
        }
        for one in _public(internal)
    ]
    for key, (vi, en, words) in stats.OTHERS.items():
        if internal or _OTHER_GROUPS[key] not in _INTERNAL:
            group = _OTHER_GROUPS[key]
            found.append({"key": key, "type": "other", "group": group, "vi": vi, "en": en, "definition": words})
    for one in stats.RATIOS:
        definition = stats.definition(one.key)
        found.append(
            {"key": one.key, "type": "ratio", "group": "", "vi": one.vi, "en": one.en, "definition": definition}
        )
    return found


def _months_until(connection: Connection, period: Period) -> list[str]:
    """The months of the charts: the last twelve up to the end of the period, from the first with mail on."""
    begin, months = stats.first_month(connection), [Period.of(period.last)]
    while len(months) < _SERIES and months[-1].text > begin:
        months.append(months[-1].before)
    return [one.text for one in reversed(months)]


def _observed(policy: Policy | None, book: Book) -> list[dict[str, Any]]:
    """Rules that were only observed in the period, with the last day of observing and how many messages broke them."""
    counted: Counter[str] = Counter()
    for cell in book.cells:
        if cell.kind == "finding" and cell.mode == "observe":
            counted[cell.rule] += cell.number
    until: dict[str, str] = {rule: "" for rule in counted}
    for rule, last in policy.observed() if policy is not None else ():
        if last >= book.period.first:
            until[rule] = max(until.get(rule, ""), last.isoformat())
    names = _rule_names()
    return [
        {
            "rule": rule,
            "vi": names.get(rule, ("", ""))[0],
            "en": names.get(rule, ("", ""))[1],
            "until": last,
            "messages": counted[rule],
        }
        for rule, last in sorted(until.items())
    ]


def _rule_names() -> dict[str, tuple[str, str]]:
    return {name: (one.title_vi, one.title_en) for name, one in CATALOGUE.items()}


def body(
    connection: Connection,
    period: Period,
    directory: Directory | None,
    policy: Policy | None,
    settings: Gateway,
    *,
    internal: bool = False,
    book: Book | None = None,
    numbers: dict[tuple[str, str], tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """The numbers of a report: what `publish` signs, apart from when and which revision. book, numbers: the figures of
    the period and the series of its charts, where they are known already."""
    book = book or Book(connection, period, directory)
    months = _months_until(connection, period)
    numbers = stats.series(connection, months) if numbers is None else numbers
    own = {row.agency: row for row in book.rows()}
    whole = {row.agency: row for row in book.rows(rollup=True)}
    agencies = []
    for name in sorted(own, key=lambda one: _place(book, one)):
        known = book.agencies.get(name)
        wide = whole.get(name)
        agencies.append(
            {
                "id": name,
                "name": known.name if known is not None else name or "Ngoài danh bạ",
                "short_name": known.short_name if known is not None else "",
                "level": known.level if known is not None else "",
                "parent": known.parent if known is not None else "",
                "own": _line(own[name], internal),
                "whole": _line(wide, internal) if wide is not None and len(wide.members) > 1 else None,
                "series": [_point(month, numbers.get((month, name), (0, 0))) for month in months],
            }
        )
    by_month = {month: [0, 0] for month in months}
    for (month, _), (sent, received) in numbers.items():
        by_month[month][0] += sent
        by_month[month][1] += received

    def lines(dimension: str, order: Sequence[str] = ()) -> list[dict[str, Any]]:
        rows = book.rows((dimension,))
        rows.sort(key=lambda row: order.index(row.group[dimension]) if row.group[dimension] in order else len(order))
        return [{"value": row.group[dimension], "line": _line(row, internal)} for row in rows]

    return {
        "format": FORMAT,
        "period": period.text,
        "kind": period.kind,
        "first_day": period.first.isoformat(),
        "last_day": period.last.isoformat(),
        "timezone": str(VIETNAM),
        "title": {
            "vi": f"Gửi, nhận văn bản điện tử – {period.vi}",
            "en": f"Electronic documents – {period.en}",
        },
        "issuer": {"name": settings.contacts.agency_name or settings.hostname, "host": settings.hostname},
        "policies": book.policies,
        "observed": _observed(policy, book),
        "definitions": _definitions(internal),
        "targets": [_target(*one) for one in book.targets()],
        "total": _line(book.total(), internal),
        "agencies": agencies,
        "levels": lines("level", tuple(report_files.LEVELS)),
        "directions": lines("direction", ("out", "in")),
        "classes": lines("message_class", tuple(report_files.CLASSES)),
        "profiles": lines("profile"),
        "series": [_point(month, (by_month[month][0], by_month[month][1])) for month in months],
        "events": book.events,
    }


def _place(book: Book, agency: str) -> tuple[Any, ...]:
    known = book.agencies.get(agency)
    if known is None:
        return (99, [], agency)
    # numbers in names by their size: xã số 9 before xã số 10
    words = [(0, int(one), "") if one.isdecimal() else (1, 0, one) for one in re.split(r"(\d+)", known.name)]
    return (list(report_files.LEVELS).index(known.level), words, agency)


def _point(month: str, numbers: tuple[int, int]) -> dict[str, Any]:
    return {"month": month, "sent": numbers[0], "received": numbers[1]}


def _target(target: stats.Target, share: Share, asked: bool) -> dict[str, Any]:
    state = "no_data"
    if share.value is not None and share.whole:
        state = "met" if share.part * 100 >= target.percent * share.whole else "not_met"
    return {
        "key": target.key,
        "vi": target.vi,
        "en": target.en,
        "short_vi": _SHORT[target.key][0],
        "short_en": _SHORT[target.key][1],
        "source": target.source,
        "profiles": list(target.profiles),
        "asked": asked,  # by a profile in use; else it stands there for comparison
        "goal": target.percent,
        "state": state,
        **_share(share),
    }


def _numbers(report: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Every published number of an agency by (agency, key): counts, paper, and shares as `part/whole`."""
    found: dict[tuple[str, str], Any] = {}
    for agency in report["agencies"]:
        line = agency["own"]
        for key, value in line["figures"].items():
            found[agency["id"], key] = value
        for way, value in line["paper"].items():
            found[agency["id"], f"paper_{way}"] = value
        for key, share in line["shares"].items():
            found[agency["id"], key] = share["percent"] or None
    return found


_PAPER_NAMES = {
    "paper_out": ("Văn bản giấy đi", "Outgoing, on paper only"),
    "paper_in": ("Văn bản giấy đến", "Incoming, on paper only"),
    "paper_internal": ("Văn bản giấy nội bộ", "Internal, on paper only"),
}


def _restated(first: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changed between two revisions, number by number."""
    before, after = _numbers(first), _numbers(now)
    names = {one["id"]: one["name"] for report in (first, now) for one in report["agencies"]}
    words = {one["key"]: (one["vi"], one["en"]) for report in (first, now) for one in report["definitions"]}
    words |= _PAPER_NAMES
    order = {key: place for place, key in enumerate([*(one["key"] for one in now["definitions"]), *_PAPER_NAMES])}
    rank = {one["id"]: place for place, one in enumerate(now["agencies"])}
    found = []
    for agency, key in sorted(
        before.keys() | after.keys(), key=lambda one: (rank.get(one[0], 0), order.get(one[1], 0))
    ):
        old, new = before.get((agency, key)), after.get((agency, key))
        if old != new and not (not old and not new):
            found.append(
                {
                    "agency": agency,
                    "name": names[agency],
                    "figure": key,
                    "vi": words.get(key, (key, key))[0],
                    "en": words.get(key, (key, key))[1],
                    "unit": "%" if key in stats.RATIO else "",
                    "first": "—" if old is None else str(old),
                    "now": "—" if new is None else str(new),
                }
            )
    return found


# ---------------------------------------------------------------------- key and signature


class ReportKey:
    """The Ed25519 key of publications, `keys/report.key` of the data folder; made at the first use. Its public half
    lies in every publication and beside it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "keys" / "report.key"
        if not path.exists():
            durable.make_folder(path.parent, 0o700)
            fresh = Ed25519PrivateKey.generate()
            private = fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            public = fresh.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            durable.replace(path.with_name("report.pem"), public, 0o644)
            durable.replace(path, private, 0o600)
        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise Failure(LOCAL_ERROR.text, f"{path} is no Ed25519 key", retryable=False)
        self._key = key
        self.pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.id = hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:32]

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def verify(data: bytes, signature: bytes, pem: bytes) -> bool:
    """Is this the signature of the key in `pem` over `data`?"""
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        return False
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


# ---------------------------------------------------------------------- publishing


@dataclass(frozen=True, slots=True)
class Published:
    """One publication as it is kept. revision 0: provisional, of a period that has not ended."""

    period: str
    revision: int
    at: dt.datetime
    sha256: str
    leaf: int
    events: int
    folder: Path | None = None
    new: bool = False


def kept(connection: Connection, period: str | None = None) -> list[Published]:
    """What was published, by period and revision."""
    p = db.publication.c
    question = select(p.period, p.revision, p.at, p.sha256, p.leaf, p.events).order_by(p.period, p.revision)
    if period is not None:
        question = question.where(p.period == period)
    return [
        Published(row.period, row.revision, from_ms(row.at), row.sha256, row.leaf, row.events)
        for row in connection.execute(question)
    ]


def _stored(connection: Connection, period: str, revision: int | None = None) -> Any:
    """The row of a revision; the newest when None. A provisional one counts only where there is no other."""
    p = db.publication.c
    question = select(db.publication).where(p.period == period)
    if revision is not None:
        question = question.where(p.revision == revision)
    return connection.execute(question.order_by(p.revision.desc()).limit(1)).first()


def _read(row: Any) -> dict[str, Any]:
    return json.loads(zlib.decompress(row.data))  # type: ignore[no-any-return]


#: Parts of a report that may differ although no number of the period did.
_NOT_NUMBERS = ("revision", "published_at", "first_published", "restated", "series", "definitions", "provisional")


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def numbers(report: Mapping[str, Any]) -> bytes:
        kept = {key: value for key, value in report.items() if key not in _NOT_NUMBERS}
        kept["agencies"] = [{k: v for k, v in agency.items() if k != "series"} for agency in report["agencies"]]
        return canonical(kept)

    return numbers(one) == numbers(other)


def _append(connection: Connection, fresh: dict[str, Any], key: ReportKey, at: int) -> tuple[Any, bool]:
    """Inside a transaction: a revision with its leaf, unless the newest one says the same. Its row, and is it new."""
    archives.take_turns(connection)  # whoever publishes the same period at the same time sees ours first
    period = fresh["period"]
    newest = _stored(connection, period)
    provisional = fresh["provisional"]
    if newest is not None and (newest.revision > 0 or provisional) and _same(_read(newest), fresh):
        return newest, False
    if provisional and newest is not None and newest.revision > 0:
        raise Failure(LOCAL_ERROR.text, f"{period} was published and has not ended", retryable=False)
    revision = 0 if provisional else (newest.revision + 1 if newest is not None else 1)
    first = _stored(connection, period, 1) if revision > 1 else None
    report = {
        **fresh,
        "revision": revision,
        "published_at": stamp(from_ms(at)),
        "first_published": {"at": stamp(from_ms(first.at)), "sha256": first.sha256} if first is not None else None,
        "restated": _restated(_read(first), fresh) if first is not None else [],
    }
    data = canonical(report) + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    leaf = archives.leaf(
        connection,
        "publication",
        {"period": period, "revision": revision, "sha256": digest, "size": len(data), "key": key.id},
    )
    p = db.publication.c
    connection.execute(db.publication.delete().where(p.period == period, p.revision == 0))
    row = {
        "period": period,
        "revision": revision,
        "at": at,
        "sha256": digest,
        "data": zlib.compress(data, 6),
        "signature": key.sign(data),
        "leaf": leaf,
        "events": fresh["events"],
    }
    db.insert(connection, db.publication, [row])
    return _stored(connection, period, revision), True


async def publish(
    archive: Archive,
    period: Period,
    directory: Directory | None,
    policy: Policy | None,
    settings: Gateway,
    folder: Path,
    now: dt.datetime | None = None,
) -> Published:
    """Publish a period into `folder/cong-khai/<period>`, and the scorecards for those concerned into `folder/noi-bo`.

    Numbers that have not changed make no new revision; the files are written anew from what is kept. A period that has
    not ended is published as provisional. Raises Failure.
    """
    now = now or dt.datetime.now(VIETNAM)

    def ask(connection: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
        book = Book(connection, period, directory)
        numbers = stats.series(connection, _months_until(connection, period))
        fresh, inner = (
            body(connection, period, directory, policy, settings, internal=internal, book=book, numbers=numbers)
            for internal in (False, True)
        )
        return fresh, inner

    fresh, inner = await archive.database.read(ask)
    fresh["provisional"] = inner["provisional"] = now < period.end
    key = ReportKey(archive.folder)
    row, new = await archive.database.write(lambda connection: _append(connection, fresh, key, to_ms(now)))
    report = _read(row)
    target = folder / "cong-khai" / period.text
    _replace(target, _files(row, report, key))
    told = {name: report[name] for name in ("revision", "published_at", "first_published", "restated", "provisional")}
    inner |= {**told, "rules": _rule_names()}
    _replace(folder / "noi-bo" / period.text, _internal_files(inner))
    published = await archive.database.read(kept)
    _contents(folder / "cong-khai", published, settings.contacts.agency_name or settings.hostname)
    # A checkpoint goes out with the page: whoever copied it holds the archive to all that was in it on that day.
    with contextlib.suppress(Failure):  # the running gateway may sign at this moment
        await archive.checkpoint()
    if note := await asyncio.to_thread(archive.log.newest_note):
        await asyncio.to_thread(durable.replace, target / "checkpoint.note", note.encode(), 0o644)
    return Published(period.text, row.revision, from_ms(row.at), row.sha256, row.leaf, row.events, target, new)


def _files(row: Any, report: dict[str, Any], key: ReportKey) -> Iterator[tuple[str, bytes]]:
    data = zlib.decompress(row.data)
    seal = {"sha256": row.sha256, "key": key.id}
    yield "figures.json", data
    yield "figures.json.sig", row.signature
    yield "report-key.pem", key.pem
    yield "figures.csv", report_files.table_csv(report)
    yield "figures.xlsx", report_files.workbook(report)
    yield "report.pdf", report_files.pdf(report, seal)
    yield from report_files.pages(report, seal)


def _internal_files(report: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    yield "figures.csv", report_files.table_csv(report)
    yield "figures.xlsx", report_files.workbook(report)
    yield from report_files.pages(report, {}, internal=True)


def _replace(target: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """All files of a folder at once: whoever copies it sees the old ones or the new ones, never a mixture."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{os.getpid()}-{os.urandom(4).hex()}"
    fresh, old = target.with_name(f".{target.name}-{mark}"), target.with_name(f".{target.name}-{mark}-old")
    try:
        for name, data in files:
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except OSError as error:
        raise Failure(LOCAL_ERROR.text, f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        for path in (fresh, old):
            shutil.rmtree(path, ignore_errors=True)


def _contents(folder: Path, published: list[Published], issuer: str) -> None:
    """The page over all periods of which the files are there."""
    newest = {one.period: one for one in published if (folder / one.period / "index.html").exists()}
    order = sorted(newest.values(), key=lambda one: Period.parse(one.period).last, reverse=True)
    periods = [
        {
            "path": one.period,
            "vi": Period.parse(one.period).vi,
            "en": Period.parse(one.period).en,
            "published_at": stamp(one.at),
            "revision": one.revision,
        }
        for one in order
    ]
    for name, data in report_files.contents(periods, issuer):
        durable.replace(folder / name, data, 0o644)


# ---------------------------------------------------------------------- proof


def recompute(connection: Connection, period: Period, directory: Directory | None, data: Path) -> Proof:
    """Prove the figures of a period from the archive: the events from the records, the publications from the events,
    their signatures and their places in the tree."""
    proof = stats.prove(connection, period)
    rows = connection.execute(
        select(db.publication).where(db.publication.c.period == period.text).order_by(db.publication.c.revision)
    ).all()
    pem = data / "keys" / "report.pem"
    for row in rows:
        told = f"{period.text} revision {row.revision}"
        try:
            text = zlib.decompress(row.data)
        except zlib.error:
            proof.differences.append(Difference("published", "", f"{told}: what is kept cannot be read"))
            continue
        if hashlib.sha256(text).hexdigest() != row.sha256:
            proof.differences.append(Difference("published", "", f"{told}: what is kept does not have its digest"))
        if not pem.exists() or not verify(text, row.signature, pem.read_bytes()):
            proof.differences.append(Difference("published", "", f"{told}: the signature does not fit"))
        leaf = connection.execute(select(db.leaf.c.type, db.leaf.c.entry).where(db.leaf.c.idx == row.leaf)).first()
        entry = json.loads(leaf.entry) if leaf is not None else {}
        if (entry.get("type"), entry.get("period"), entry.get("sha256")) != ("publication", period.text, row.sha256):
            proof.differences.append(Difference("published", "", f"{told}: leaf {row.leaf} of the tree names another"))
    if rows:
        proof.differences += _against_published(connection, period, directory, rows[-1], proof.events)
    return proof


def _against_published(
    connection: Connection, period: Period, directory: Directory | None, row: Any, events: int
) -> list[Difference]:
    report = _read(row)
    if row.revision == 0 and row.events != events:
        return []  # provisional, and the period has gone on since
    book = Book(connection, period, directory)
    now = {"agencies": [{"id": one.agency, "own": _line(one, False)} for one in book.rows()]}
    before, after = _numbers(report), _numbers(now)
    found = []
    for agency, key in sorted(before.keys() | after.keys()):
        old, new = before.get((agency, key)), after.get((agency, key))
        if old != new and not (not old and not new):
            what = f"{agency or '(ngoài danh bạ)'} {key}: published {old}, computed {new}"
            found.append(Difference("published", "", what))
    return found


# ---------------------------------------------------------------------- mail


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of ours to operator or agency, before it has a recipient."""

    subject_vi: str
    subject_en: str
    vi: str
    en: str
    facts: Mapping[str, Any]


#: Cases named one by one in the operator's mail; the rest by their number.
_NAMED = 20


def daily(
    connection: Connection,
    directory: Directory,
    policy: Policy | None,
    since: dt.datetime,
    now: dt.datetime,
) -> Letter:
    """What the operator learns each morning: what waits, what was returned, came late or failed, and what expires.

    Case ids, agencies and rules; no subject and nothing of what a message says."""
    r, e = db.recipient.c, db.event.c
    begin, end = to_ms(since), to_ms(now)
    held = connection.execute(
        select(r.message, func.min(db.message.c.received_at).label("at"), func.min(db.message.c.agency).label("agency"))
        .join(db.message, db.message.c.id == r.message)
        .where(r.state == "held")
        .group_by(r.message)
        .order_by(func.min(db.message.c.received_at))
    ).all()
    between = (e.at >= begin, e.at < end)
    returned = connection.execute(
        select(e.message, e.agency, func.min(e.at).label("at"))
        .where(e.kind == "returned", *between)
        .group_by(e.message, e.agency)
        .order_by(func.min(e.at))
    ).all()
    late = connection.execute(
        select(e.message, e.agency, e.rule)
        .where(e.kind == "finding", e.rule.in_(("TM-01", "TM-02", "TM-03")), *between)
        .order_by(e.at)
    ).all()
    failed = connection.execute(
        select(r.message, r.agency, r.destination, r.settled_at)
        .where(r.state == "failed", r.settled_at >= begin, r.settled_at < end)
        .order_by(r.settled_at)
    ).all()
    blocked = connection.execute(
        select(e.kind, func.count()).where(e.kind.in_(("blocked_secret", "malware")), *between).group_by(e.kind)
    ).all()
    waiting = connection.execute(
        select(func.count(), func.min(r.first_attempt_at)).where(r.state == "queued", r.attempts > 0)
    ).one()
    folders = connection.execute(
        select(db.imap_folder.c.account, db.imap_folder.c.name, db.imap_folder.c.error).where(
            db.imap_folder.c.error != "", db.imap_folder.c.closed_at.is_(None)
        )
    ).all()
    expiring = _expiring(directory, policy, now.astimezone(VIETNAM).date())

    def hours(at: int) -> int:
        return max(0, (end - at) // 3_600_000)

    sections: list[tuple[str, str, list[str]]] = [
        (
            "Thư đang tạm giữ",
            "Held",
            [f"{one.message}  {one.agency or '(ngoài danh bạ)'}  {hours(one.at)} giờ / h" for one in held],
        ),
        ("Bị trả lại", "Returned", [f"{one.message or '-'}  {one.agency or '(ngoài danh bạ)'}" for one in returned]),
        ("Gửi muộn", "Late", [f"{one.message}  {one.agency or '(ngoài danh bạ)'}  {one.rule}" for one in late]),
        (
            "Không giao được",
            "Failed",
            [f"{one.message}  {one.agency or '(ngoài danh bạ)'}  {one.destination}" for one in failed],
        ),
        (
            "Chặn",
            "Blocked",
            [
                f"{ {'blocked_secret': 'dấu mật / secrecy mark', 'malware': 'mã độc / malware'}[kind] }: {number}"
                for kind, number in blocked
            ],
        ),
        (
            "Đang chờ giao lại",
            "Waiting for another attempt",
            [f"{waiting[0]} người nhận / recipients, {hours(waiting[1])} giờ / h"] if waiting[0] else [],
        ),
        (
            "Hộp thư không đọc được",
            "Mailboxes that cannot be read",
            [f"{one.account} {one.name}: {one.error}" for one in folders],
        ),
        ("Sắp hết hạn", "Expiring", expiring),
    ]

    numbers = {names[1].lower(): len(names[2]) for names in sections}
    numbers["blocked"] = sum(number for _, number in blocked)

    def text(place: int) -> str:
        parts = []
        for names in sections:
            lines = names[2]
            parts.append(f"{names[place]}: {numbers[names[1].lower()]}")
            parts += [f"  {one}" for one in lines[:_NAMED]]
            if len(lines) > _NAMED:
                parts.append(f"  … {'và thêm' if place == 0 else 'and'} {len(lines) - _NAMED}")
        return "\n".join(parts)

    day = now.astimezone(VIETNAM)
    return Letter(
        f"Cổng thư, ngày {day:%d/%m/%Y}: {len(held)} thư tạm giữ, {len(failed)} không giao được",
        f"Gateway, {day:%Y-%m-%d}: {len(held)} held, {len(failed)} failed",
        f"Từ {since.astimezone(VIETNAM):%H:%M %d/%m/%Y} đến {day:%H:%M %d/%m/%Y}.\n\n{text(0)}",
        f"From {since.astimezone(VIETNAM):%Y-%m-%d %H:%M} to {day:%Y-%m-%d %H:%M}.\n\n{text(1)}",
        {"since": stamp(since), "until": stamp(now), **numbers, "held_cases": [one.message for one in held[:_NAMED]]},
    )


def _expiring(directory: Directory, policy: Policy | None, today: dt.date) -> list[str]:
    """What ends within thirty days, or ended and is still there."""
    soon = today + dt.timedelta(days=30)
    found: list[tuple[dt.date, str]] = []
    for one in directory.exceptions():
        if one.expires_on <= soon:
            state = "đã hết hạn / expired" if one.expires_on < today else "hết hạn / expires"
            found.append((one.expires_on, f"{one.agency}: ngoại lệ hộp thư / mailbox exception MB-04, {state}"))
    for agency in directory.agencies():
        if agency.valid_to is not None and today <= agency.valid_to <= soon:
            after = f", tiếp theo / then {agency.successor}" if agency.successor else ""
            found.append((agency.valid_to, f"{agency.id}: cơ quan kết thúc / the agency ends{after}"))
        for signer in agency.signers:
            if signer.valid_to is not None and today <= signer.valid_to <= soon and agency.valid(today):
                found.append((signer.valid_to, f"{agency.id}: quyền ký / right to sign, {signer.title}"))
    for rule, last in policy.observed() if policy is not None else ():
        if today <= last <= soon:
            found.append((last, f"{rule}: hết thời gian theo dõi / observing ends"))
    return [f"{day:%d/%m/%Y}  {words}" for day, words in sorted(found)]


def reminders(
    connection: Connection, directory: Directory, period: Period, now: dt.datetime
) -> list[tuple[Agency, str, Letter]]:
    """Agency, address and letter of those who have to be reminded: paper counts of the month are missing, mail was
    sent late, or mail lies unread."""
    book = Book(connection, period, directory)
    day = now.astimezone(VIETNAM).date()
    found = []
    for row in book.rows():
        agency = directory.agency(row.agency, day) if row.agency else None
        if agency is None or agency.id != row.agency:
            continue
        missing = [way for way in ("out", "in") if row.paper.get(way) is None]
        late, unread = row.figures["late"], row.figures["unread_over"]
        if not (missing or late or unread):
            continue
        address = _clerk(directory, agency, day)
        if not address:
            continue
        vi, en = [], []
        if missing:
            ways = {"out": ("văn bản giấy đi", "outgoing"), "in": ("văn bản giấy đến", "incoming")}
            vi.append(
                f"Chưa có số lượng {' và '.join(ways[one][0] for one in missing)} của {period.vi.lower()}; "
                "thiếu số này thì tỷ lệ văn bản điện tử của cơ quan ghi “không đủ số liệu”."
            )
            en.append(
                f"The numbers of {' and '.join(ways[one][1] for one in missing)} documents on paper in {period.en} "
                "are missing; without them the agency's share reads “not enough data”."
            )
        if late:
            vi.append(f"{late} văn bản gửi muộn so với ngày ký.")
            en.append(f"{late} documents were sent late after signing.")
        if unread:
            vi.append(f"{unread} hộp thư có thư chưa đọc quá hạn.")
            en.append(f"{unread} mailboxes had mail unread for too long.")
        letter = Letter(
            f"Nhắc số liệu {period.vi.lower()}: {agency.name}",
            f"Figures of {period.en}: a reminder",
            f"Kính gửi Văn thư {agency.name},\n\n" + "\n".join(f"- {one}" for one in vi),
            f"To the registry of {agency.name},\n\n" + "\n".join(f"- {one}" for one in en),
            {"period": period.text, "agency": agency.id, "paper_missing": missing, "late": late, "unread": unread},
        )
        found.append((agency, address, letter))
    return found


def _clerk(directory: Directory, agency: Agency, day: dt.date) -> str:
    """Where the agency's registry reads: its clerk's address, else its agency mailbox."""
    if agency.clerk is not None and agency.clerk.email:
        return agency.clerk.email
    boxes = (one for one in directory.mailboxes(agency.id) if one.kind == "AGENCY" and one.issued(day))
    return next((one.address for one in boxes), "")


def notice(letter: Letter, to: str, key: str, now: dt.datetime, settings: Gateway) -> Notice | None:
    """The letter as a message of ours, owed to `to`; None when there is no way to it."""
    hop = settings.hop_for(to.rpartition("@")[2].lower()) if "@" in to else None
    if hop is None:
        return None
    data = returns.letter(
        to=to,
        subject=f"{letter.subject_vi} / {letter.subject_en}",
        vi=letter.vi,
        en=letter.en,
        facts=letter.facts,
        at=now,
        key=key,
        contacts=settings.contacts,
        hostname=settings.hostname,
    )
    return Notice("notice", data, ((to, hop.name),), "", key)


# ---------------------------------------------------------------------- by the clock

#: A job that was claimed this long ago and is not finished: whoever claimed it is gone.
LEASE = dt.timedelta(minutes=30)
#: After a failure, until the next try.
AGAIN = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One piece of work by the clock: what, and the day or period that it is for."""

    name: str  # daily, publish, restate, remind
    slot: str


def due(connection: Connection, settings: Gateway, now: dt.datetime) -> list[Slot]:
    """What should have been done by now and was not, and nobody is at it. Publications of all ended periods with mail
    are made up for; of the daily mail and the reminders only the newest, because an old one helps nobody."""
    now = now.astimezone(VIETNAM)
    plan = settings.reports
    wanted: list[Slot] = []
    first = stats.first_month(connection)
    if first:
        wanted += [Slot("publish", one.text) for one in _ended(Period.parse(first), now, plan.publish_day, plan.hour)]
    if now.hour >= plan.hour:
        wanted.append(Slot("daily", f"{now:%Y-%m-%d}"))
        wanted.append(Slot("restate", f"{now:%Y-%m-%d}"))
        if plan.remind and now.day >= 2 and first:
            wanted.append(Slot("remind", Period.of(now.date()).before.text))
    if not wanted:
        return []
    j = db.job.c
    names = {one.name for one in wanted}
    rows = connection.execute(select(db.job).where(j.name.in_(names), j.slot.in_({one.slot for one in wanted}))).all()
    taken = {(row.name, row.slot) for row in rows if row.finished_at is not None or row.claimed_at > to_ms(now - LEASE)}
    return [one for one in wanted if (one.name, one.slot) not in taken]


def _ended(first: Period, now: dt.datetime, day: int, hour: int) -> list[Period]:
    """Months, half-years and years since `first` whose day of publication has come, in the order of their ends. Old
    mailboxes have mail of many years; nobody waits for the figures of before last year."""
    found: list[Period] = []
    month = max(first, Period.parse(f"{now.year - 2:04}-{now.month:02}"), key=lambda one: one.first)
    while month.end + dt.timedelta(days=day - 1, hours=hour) <= now:
        found.append(month)
        if month.first.month in (6, 12):
            found.append(Period.parse(f"{month.first.year:04}-H{1 if month.first.month == 6 else 2}"))
        if month.first.month == 12:
            found.append(Period.parse(f"{month.first.year:04}"))
        month = Period.of(month.last + dt.timedelta(days=1))
    return found


def job_rows(connection: Connection) -> list[Any]:
    """Work by the clock that was ever claimed, in the order of its claims."""
    return list(connection.execute(select(db.job).order_by(db.job.c.claimed_at, db.job.c.name, db.job.c.slot)))


def claim(connection: Connection, one: Slot, now: dt.datetime, who: str) -> bool:
    """Take a piece of work, inside a transaction; False when it is done, or somebody is at it."""
    row = {"name": one.name, "slot": one.slot, "claimed_at": to_ms(now), "claimed_by": who}
    if db.insert(connection, db.job, [row], ignore=True) == 1:
        return True
    j = db.job.c
    taken = connection.execute(
        update(db.job)
        .where(j.name == one.name, j.slot == one.slot, j.finished_at.is_(None), j.claimed_at <= to_ms(now - LEASE))
        .values(claimed_at=to_ms(now), claimed_by=who)
    )
    return taken.rowcount == 1


def finish(connection: Connection, one: Slot, now: dt.datetime, who: str, result: str, *, done: bool = True) -> None:
    """Done, or (not `done`) to be tried again after a while."""
    j = db.job.c
    values: dict[str, Any] = {"result": result[:500]}
    if done:
        values["finished_at"] = to_ms(now)
    else:
        values["claimed_at"] = to_ms(now - LEASE + AGAIN)
    connection.execute(
        update(db.job).where(j.name == one.name, j.slot == one.slot, j.claimed_by == who).values(**values)
    )


class Jobs:
    """Does what is due, one piece after the other."""

    def __init__(
        self,
        archive: Archive,
        settings: Gateway,
        directory: Directory,
        policy: Policy,
        log: Any,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(VIETNAM),
    ) -> None:
        self.archive, self.settings, self.directory, self.policy = archive, settings, directory, policy
        self.log, self.clock = log, clock
        self.who = f"{socket.gethostname()}/{os.getpid()}/{os.urandom(3).hex()}"

    @property
    def folder(self) -> Path:
        return self.settings.reports.folder or self.settings.data / "reports"

    async def run(self) -> int:
        """Claim and do everything that is due. Returns how many pieces were done; what fails is logged and tried
        again later."""
        done = 0
        for one in await self.archive.database.read(lambda connection: due(connection, self.settings, self.clock())):
            now = self.clock()
            if not await self.archive.database.write(
                lambda connection, one=one, now=now: claim(connection, one, now, self.who)
            ):
                continue
            work: Callable[[str], Awaitable[str]] = getattr(self, f"_{one.name}")
            try:
                result = await work(one.slot)
            except Exception as error:
                reason = getattr(error, "private", "") or f"{type(error).__name__}: {error}"
                self.log.error("job failed", job=one.name, slot=one.slot, reason=reason)
                await self._finish(one, reason, done=False)
                continue
            await self._finish(one, result)
            self.log.info("job done", job=one.name, slot=one.slot, result=result)
            done += 1
        return done

    async def _finish(self, one: Slot, result: str, *, done: bool = True) -> None:
        now = self.clock()
        await self.archive.database.write(lambda connection: finish(connection, one, now, self.who, result, done=done))

    async def _publish(self, slot: str) -> str:
        made = await publish(
            self.archive, Period.parse(slot), self.directory, self.policy, self.settings, self.folder, self.clock()
        )
        return f"revision {made.revision} {made.sha256[:16]}"

    async def _restate(self, _slot: str) -> str:
        """Publish anew what has other numbers than when it was published."""
        periods = await self.archive.database.read(stale)
        again = 0
        for period in periods:
            made = await publish(
                self.archive, period, self.directory, self.policy, self.settings, self.folder, self.clock()
            )
            again += made.new
        return f"{again} of {len(periods)} restated"

    async def _daily(self, slot: str) -> str:
        now = self.clock()
        unread = await self.archive.database.read(_oldest_unread)
        counts = stats.counts_of_unread(self.directory, unread, now, self.settings.reports.unread_hours)
        await self.archive.count(counts, now)
        to = self.settings.reports.operator or self.settings.contacts.mail_admin
        if not to:
            return "nobody to write to"
        since = await self.archive.database.read(lambda connection: _last_daily(connection, slot, now))
        letter = await self.archive.database.read(
            lambda connection: daily(connection, self.directory, self.policy, since, now)
        )
        made = notice(letter, to, f"daily|{slot}", now, self.settings)
        if made is None:
            return "no way to the operator's address"
        await self.archive.notify([made])
        return "sent"

    async def _remind(self, slot: str) -> str:
        now, period = self.clock(), Period.parse(slot)
        letters = await self.archive.database.read(
            lambda connection: reminders(connection, self.directory, period, now)
        )
        made = [
            one
            for agency, address, letter in letters
            if (one := notice(letter, address, f"remind|{slot}|{agency.id}", now, self.settings)) is not None
        ]
        await self.archive.notify(made)
        return f"{len(made)} sent"


def _last_daily(connection: Connection, slot: str, now: dt.datetime) -> dt.datetime:
    """When the operator was told last: after an outage the mail speaks of all of it, a week at most."""
    j = db.job.c
    last = connection.execute(
        select(func.max(j.finished_at)).where(j.name == "daily", j.slot != slot, j.finished_at.is_not(None))
    ).scalar()
    week = now - dt.timedelta(days=7)
    return max(from_ms(last), week) if last is not None else now - dt.timedelta(days=1)


def _oldest_unread(connection: Connection) -> dict[str, dt.datetime]:
    f = db.imap_folder.c
    question = (
        select(f.account, func.min(f.oldest_unseen_at).label("at"))
        .where(f.role == "inbox", f.closed_at.is_(None), f.oldest_unseen_at.is_not(None))
        .group_by(f.account)
    )
    return {row.account: from_ms(row.at) for row in connection.execute(question)}


def stale(connection: Connection) -> list[Period]:
    """Published periods that have other events, or newer paper counts, than when they were published."""
    newest = {one.period: one for one in kept(connection) if one.revision > 0}
    if not newest:
        return []
    events = stats.numbers_by_month(connection)
    p = db.paper_count.c
    papers = {row.month: row[1] for row in connection.execute(select(p.month, func.max(p.at)).group_by(p.month))}
    found = []
    for text, one in newest.items():
        period = Period.parse(text)
        changed = sum(events.get(month, 0) for month in period.months) != one.events
        told = max((papers.get(month, 0) for month in period.months), default=0)
        if changed or told >= to_ms(one.at):
            found.append(period)
    return sorted(found, key=lambda one: (one.last, one.first))
