"""What people do to registers: number, correct, link, compare, add paper documents, cancel; and making registers anew.

Every act is a row of `register_change` with the old value, who and when, and a leaf of the tree in the same
transaction; nothing is overwritten. All functions run inside `Database.write`. With PostgreSQL, who takes numbers takes
the turn of the leaves first, as the commit of a message does, so that nobody waits for each other for ever.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, exists, select

from gateway import archive, numbers, register
from gateway import database as db
from gateway.archive import canonical, clean
from gateway.config import Registers
from gateway.database import Database
from gateway.inspection import secrecy
from gateway.inspection.segments import Segment
from gateway.message import VIETNAM, new_case
from gateway.numbers import ARRIVALS, Series, Taken
from gateway.register import BY_NAME, LINKS, STATUS, NoEntry, entry_id


class Wrong(ValueError):
    """A value that a register does not take; `args[0]` says which and what would do."""


def correct(
    connection: Connection, key: str, changes: Mapping[str, str], *, who: str, reason: str, settings: Registers
) -> list[str]:
    """Put other values into fields of an entry. Returns the names of those that changed. Raises NoEntry, Wrong."""
    row = _entry(connection, key)
    fields = register.effective(json.loads(row.fields), register.changes_of(connection, [key]).get(key, ()))
    done = []
    for name, given in changes.items():
        value = checked(name, given, row.direction)
        old = fields[name][0] if name in fields else ""
        if value != old:
            _change(connection, key, name, old, value, who, reason, row.agency)
            done.append(name)
    if done:
        _refresh(connection, row, settings)
    return done


def checked(name: str, given: str, direction: str) -> str:
    """A value as the register keeps it. Raises Wrong."""
    column = BY_NAME.get(name)
    if column is None or column.only not in ("", direction):
        known = ", ".join(one.name for one in register.columns_of(direction) if one.edit)
        raise Wrong(f"{name}: không có trường này / no such field; có / there are: {known}")
    if not column.edit:
        cure = "congvan register number" if name == "arrival_number" else "document_code"
        raise Wrong(f"{name}: không sửa trực tiếp / is not corrected by itself; dùng / use {cure}")
    value = clean(" ".join(given.split()))
    if len(value) > column.most:
        raise Wrong(f"{name}: {len(value)} ký tự, nhiều nhất {column.most} / letters, at most {column.most}")
    if column.date and value:
        value = iso_date(value, name)
    if name == "priority" and value not in register.PRIORITY_VI:
        raise Wrong(f"priority: {value!r}; 0 thường, 1 khẩn, 2 thượng khẩn, 3 hỏa tốc, 4 hỏa tốc hẹn giờ")
    if name in ("page_amount", "issued_amount", "ordinal") and value and not value.isdecimal():
        raise Wrong(f"{name}: {value!r} không phải số / is not a number")
    refuse_secret({name: value})
    return value


def iso_date(text: str, name: str) -> str:
    """`20/11/2026`, `20-11-2026` or `2026-11-20` to ISO 8601. Raises Wrong."""
    match = re.fullmatch(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", text)
    try:
        found = dt.date(int(match[3]), int(match[2]), int(match[1])) if match else dt.date.fromisoformat(text)
    except ValueError:
        raise Wrong(f"{name}: {text!r} không phải ngày / is no date; 20/11/2026 hoặc / or 2026-11-20") from None
    return found.isoformat()


def refuse_secret(values: Mapping[str, str]) -> None:
    """Secret documents are registered elsewhere (Decree 30/2020, Articles 16.3 and 22.4). Raises Wrong."""
    segments = [Segment(where=name, text=value, zone="subject") for name, value in values.items() if value]
    for found in secrecy.marks(segments):
        if found.kind == "secrecy" and found.grade == "strong":
            raise Wrong("có dấu độ mật: văn bản mật không vào sổ này / secret documents do not go into this register")


def confirm_number(connection: Connection, key: str, wanted: int | None, *, who: str, reason: str = "") -> int:
    """Give an incoming entry its arrival number: the next one, or `wanted`. Raises NoEntry, Taken."""
    archive.take_turns(connection)
    row = _entry(connection, key)
    if row.direction != "in":
        raise Taken(f"{key}: số đi ở trong văn bản / an outgoing document carries its number itself")
    given = numbers.of_entries(connection, [key]).get(key)
    if given is not None:
        if wanted in (None, given.number):
            return int(given.number)
        raise Taken(f"{key} đã có số đến {given.number} / has a number already; hủy trước / cancel it first")
    series = Series(row.agency, row.year, ARRIVALS)
    number = numbers.take(connection, series, who=who, at=_now(), wanted=wanted, entry=key, reason=reason)
    _change(connection, key, "arrival_number", "", str(number), who, reason, row.agency)
    return number


def allocate(
    connection: Connection,
    series: Series,
    *,
    notation: str,
    fields: Mapping[str, str],
    who: str,
    wanted: int | None = None,
    request: str = "",
) -> tuple[int, str]:
    """A number for a document that is to be issued: (number, `19/TB-SNV`). Raises Taken, Wrong."""
    archive.take_turns(connection)
    if request and (row := numbers.asked(connection, request)) is not None:
        return int(row.number), str(row.code)
    kept = {name: [checked(name, value, "out"), "clerk", 1.0] for name, value in fields.items() if value}
    number = numbers.take(
        connection, series, who=who, at=_now(), wanted=wanted, code="{number}/" + notation, fields=kept, request=request
    )
    code = f"{number:02d}/{notation}"
    about = series.about(number)
    _change(connection, about, "number", "", code, who, "", series.agency)
    return number, code


def cancel(connection: Connection, series: Series, number: int, *, who: str, reason: str) -> None:
    """Cancel a number; an entry that had it has none any more. Raises Taken."""
    archive.take_turns(connection)
    row = next((one for one in numbers.numbers(connection, *_args(series)) if one.number == number), None)
    state = numbers.cancel(connection, series, number, who=who, at=_now(), reason=reason)
    _change(connection, series.about(number), "state", state, "cancelled", who, reason, series.agency)
    if row is not None and row.entry:
        name = "arrival_number" if series.name == ARRIVALS else "number"
        _change(connection, row.entry, name, str(number), "", who, reason, series.agency)


def reserve(connection: Connection, series: Series, first: int, last: int, *, who: str, reason: str) -> None:
    """Keep a range of numbers. Raises Taken."""
    archive.take_turns(connection)
    numbers.reserve(connection, series, first, last, who=who, at=_now(), reason=reason)
    _change(connection, series.about(first), "reserved", "", f"{first}-{last}", who, reason, series.agency)


def start(connection: Connection, series: Series, first: int, *, who: str, reason: str) -> None:
    """Where a series goes on that was begun in another system. Raises Taken."""
    archive.take_turns(connection)
    numbers.start(connection, series, first)
    _change(connection, series.about(first), "start", "", str(first), who, reason, series.agency)


def add_paper(
    connection: Connection,
    agency: str,
    direction: str,
    values: Mapping[str, str],
    *,
    who: str,
    settings: Registers,
    number: int | None = None,
    notation: str = "",
    scan: str = "",
) -> str:
    """A document that came or went on paper, in the same series as the electronic ones. scan: digest of a file that is
    in the store. notation: for an outgoing document without a number yet, which gets one. Returns the entry. Raises
    Wrong, Taken."""
    fields = {name: [checked(name, value, direction), "clerk", 1.0] for name, value in values.items() if value}
    archive.take_turns(connection)
    for name in ("abstract", "arrival_date" if direction == "in" else "issued_date"):
        if not fields.get(name, [""])[0]:
            raise Wrong(f"{name}: cần có / is needed ({BY_NAME[name].vi})")
    day = fields["arrival_date" if direction == "in" else "issued_date"][0]
    key = entry_id(agency, direction, f"paper|{new_case()}")
    at = int(dt.datetime.combine(dt.date.fromisoformat(day), dt.time(12), VIETNAM).timestamp() * 1000)
    row = {
        "id": key, "agency": agency, "direction": direction, "year": int(day[:4]), "origin": "paper", "day": day,
        "at": at, "message_class": "OFFICIAL_DOC", "sha256": scan,
        "fields": json.dumps(fields, ensure_ascii=False, sort_keys=True),
    }  # fmt: skip
    db.insert(connection, db.register_entry, [row])
    found = _entry(connection, key)
    _refresh(connection, found, settings)
    found = _entry(connection, key)
    if direction == "in":
        if number is not None or settings.of(agency).incoming == "allocate":
            confirm_number(connection, key, number, who=who)
    elif found.number is not None:
        code = fields["document_code"][0].replace("{", "").replace("}", "")
        series = Series(agency, found.year, found.series)
        numbers.take(connection, series, who=who, at=_now(), wanted=found.number, entry=key, code=code)
    elif notation:
        series = Series(agency, found.year, found.series)
        code = "{number}/" + notation
        taken = numbers.take(connection, series, who=who, at=_now(), wanted=number, entry=key, code=code)
        fields["document_code"] = [f"{taken:02d}/{notation}", "gateway", 1.0]
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True)
        connection.execute(db.register_entry.update().where(db.register_entry.c.id == key).values(fields=text))
        _refresh(connection, _entry(connection, key), settings)
    _change(connection, key, "added", "", "paper", who, "", agency)
    return key


def link(
    connection: Connection, key: str, kind: str, target: str, *, who: str, reason: str = "", remove: bool = False
) -> None:
    """Say that an entry answers, replaces, corrects, amends, recalls or cites another (an entry, or a number that is in
    no register). Raises NoEntry, Wrong."""
    row = _entry(connection, key)
    if kind not in LINKS:
        raise Wrong(f"{kind}: không có loại liên kết này / no such link; {', '.join(LINKS)}")
    other = connection.execute(select(db.register_entry).where(db.register_entry.c.id == target)).first()
    if other is not None and other.agency != row.agency:
        raise Wrong(f"{target}: thuộc sổ của cơ quan khác ({other.agency}) / belongs to another agency")
    if other is None and "/" not in target:
        raise NoEntry(target)
    if target == key:
        raise Wrong(f"{target}: chính nó / is the same entry")
    act = "unlink" if remove else "link"
    _change(connection, key, act, "", f"{kind}:{clean(target)}", who, reason, row.agency)


def compared(connection: Connection, key: str, result: str, *, who: str, reason: str, sha256: str = "") -> None:
    """Record that a person compared the document with another copy. result: match, differ. Raises NoEntry."""
    row = _entry(connection, key)
    old = next(
        (c.new for c in reversed(register.changes_of(connection, [key]).get(key, [])) if c.field == "compared"), ""
    )
    said = f"{reason} ({sha256})" if sha256 and reason else reason or sha256
    _change(connection, key, "compared", old, result, who, said, row.agency)


def compare_file(connection: Connection, key: str, sha256: str) -> str:
    """Is a file the document of an entry, or another file of its messages? match or differ. Raises NoEntry."""
    row = _entry(connection, key)
    s, a = db.register_source.c, db.attachment.c
    question = select(a.sha256).join(db.register_source, s.message == a.message).where(s.entry == key)
    known = set(connection.execute(question).scalars()) | {row.sha256}
    return "match" if sha256 in known - {""} else "differ"


def with_file(connection: Connection, sha256: str) -> list[str]:
    """Entries whose messages brought exactly this file."""
    s, a, e = db.register_source.c, db.attachment.c, db.register_entry.c
    question = select(s.entry).join(db.attachment, s.message == a.message).where(a.sha256 == sha256)
    found = set(connection.execute(question).scalars())
    found |= set(connection.execute(select(e.id).where(e.sha256 == sha256)).scalars())
    return sorted(found)


def state_of_series(connection: Connection, agency: str = "", year: int = 0) -> list[dict[str, Any]]:
    """Each series: next number, how many are used, cancelled and reserved, and ranges nobody has below the highest."""
    result = []
    for series, upcoming in numbers.all_series(connection):
        if agency not in ("", series.agency) or year not in (0, series.year):
            continue
        rows = numbers.numbers(connection, series.agency, series.year, series.name)
        states = [row.state for row in rows]
        given = [row.number for row in rows if row.state != "reserved"]
        gaps = numbers.gaps([row.number for row in rows], min(upcoming, *given) if given else upcoming)
        result.append(
            {
                "agency": series.agency,
                "year": series.year,
                "series": series.name,
                "next": upcoming,
                "used": states.count("used"),
                "cancelled": states.count("cancelled"),
                "reserved": states.count("reserved"),
                "gaps": [[one.first, one.last] for one in gaps],
            }
        )
    return result


def set_status(connection: Connection, key: str, code: str, *, who: str, reason: str) -> None:
    """How far the agency is with a document, in the terms of Decision 28/2018. Raises NoEntry, Wrong."""
    row = _entry(connection, key)
    if code not in STATUS:
        raise Wrong(
            f"{code}: không có trạng thái này / no such status; " + ", ".join(f"{k} {v}" for k, v in STATUS.items())
        )
    if row.direction != "in":
        raise Wrong(f"{key}: trạng thái là của văn bản đến / a status belongs to an incoming document")
    old = next(
        (c.new for c in reversed(register.changes_of(connection, [key]).get(key, [])) if c.field == "status"), ""
    )
    _change(connection, key, "status", old, code, who, reason, row.agency)


# ---------------------------------------------------------------------- made anew

#: Messages in one transaction of `rebuild`: short enough that mail does not wait for it.
BATCH = 25


def due(connection: Connection, after: str, everything: bool, settings: Registers) -> list[str]:
    """The next messages that registers may be made of, in the order of time. everything: also those that have entries
    already."""
    m, s = db.message.c, db.register_source.c
    question = select(m.id).where(*_counts(settings), m.id > after)
    if not everything:
        question = question.where(~exists().where(s.message == m.id))
    return list(connection.execute(question.order_by(m.id).limit(BATCH)).scalars())


def seen_elsewhere(connection: Connection, since: int = 0) -> dict[str, set[str]]:
    """Messages that were seen in mailboxes of agencies besides those of their recipients, by the events since then."""
    e, r = db.event.c, db.recipient.c
    addressed = exists().where(r.message == e.message, r.agency == e.agency)
    question = select(e.message, e.agency).where(e.kind == "received", e.direction == "in", e.agency != "", ~addressed)
    question = question.where(e.at >= since)
    found: dict[str, set[str]] = {}
    for row in connection.execute(question):
        found.setdefault(row.message, set()).add(row.agency)
    return found


def again(connection: Connection, cases: list[str], settings: Registers, elsewhere: Mapping[str, set[str]]) -> int:
    """Derive the entries of messages again, and take them out of entries that they are not in. Returns how many they
    are in."""
    count = 0
    s, e = db.register_source.c, db.register_entry.c
    for case in cases:
        keys = register.enter(connection, case, settings, elsewhere.get(case, ()), give=False)
        count += len(keys)
        question = select(s.entry, e.agency, e.direction).join(db.register_entry, e.id == s.entry)
        for row in connection.execute(question.where(s.message == case, s.entry.not_in(keys))).all():
            connection.execute(delete(db.register_source).where(s.message == case, s.entry == row.entry))
            register.derive(connection, row.entry, row.agency, row.direction, settings)
    return count


def part(connection: Connection, settings: Registers) -> None:
    """Take messages that do not count out of all entries."""
    counted, source = select(db.message.c.id).where(*_counts(settings)), db.register_source.c
    gone = source.message.not_in(counted) & source.message.not_in(register.DESTROYED)
    connection.execute(delete(db.register_source).where(gone))


def give_numbers(connection: Connection, settings: Registers, agency: str = "", year: int = 0) -> int:
    """Arrival numbers, in the order of arrival, for entries without one, where the gateway may give them."""
    archive.take_turns(connection)
    e, n = db.register_entry.c, db.register_number.c
    question = select(e.id).where(e.direction == "in", e.year != 0, ~exists().where(n.entry == e.id))
    if agency:
        question = question.where(e.agency == agency)
    if year:
        question = question.where(e.year == year)
    keys = connection.execute(question.order_by(e.at, e.id)).scalars().all()
    return sum(register.give_number(connection, key, settings) is not None for key in keys)


def sweep(connection: Connection) -> int:
    """Take out entries that no message is in any more. Their numbers stay as they were given. Returns how many."""
    s, e = db.register_source.c, db.register_entry.c
    alone = select(e.id).where(e.origin == "mail", ~exists().where(s.entry == e.id))
    keys = list(connection.execute(alone).scalars())
    for key in keys:
        connection.execute(delete(db.register_link).where(db.register_link.c.entry == key))
        connection.execute(delete(db.register_entry).where(e.id == key))
    return len(keys)


def _counts(settings: Registers) -> tuple[Any, ...]:
    """Conditions on `message`: what registers may be made of."""
    m, r = db.message.c, db.recipient.c
    reached = exists().where(r.message == m.id, r.state.not_in(register.OUTSIDE))
    kept = m.id.not_in(register.DESTROYED)
    return m.kind.in_(register.RECEIVED), m.message_class.not_in(register.never(settings)), reached, kept


#: Days that `heal` looks back for messages without an entry.
_BACK = 7


async def heal(database: Database, settings: Registers) -> int:
    """Entries for messages that have none: of the last days, or of the whole archive when there are no registers yet.
    Returns how many messages were looked at."""
    some = await database.read(lambda c: c.execute(select(db.register_entry.c.id).limit(1)).first())
    since = time.time() - _BACK * 86400 if some is not None else 0
    return await rebuild(database, settings, everything=False, since=since)


async def rebuild(database: Database, settings: Registers, *, everything: bool = True, since: float = 0) -> int:
    """Make registers of the archive, in pieces that mail does not wait for, also beside a running gateway. Returns how
    many messages were looked at. everything: also messages that have entries already. since: of messages received
    from then on, seconds since the epoch."""
    elsewhere = await database.read(lambda c: seen_elsewhere(c, int(since * 1000)))
    if everything:
        await database.write(lambda c: part(c, settings))
    after, looked_at = new_case(since)[:9] if since else "", 0
    while cases := await database.read(lambda c, after=after: due(c, after, everything, settings)):
        await database.write(lambda c, cases=cases: again(c, cases, settings, elsewhere))
        after = cases[-1]
        looked_at += len(cases)
    if everything:
        await database.write(sweep)
    return looked_at


def check(connection: Connection, settings: Registers) -> list[tuple[str, str]]:
    """Where registers are not what the archive says: (entry, what). Reads only."""
    elsewhere, after, wrong = seen_elsewhere(connection), "", []
    sources: set[tuple[str, str]] = set()
    while cases := due(connection, after, True, settings):
        for case in cases:
            places = register.placements(connection, case, settings, elsewhere.get(case, ()))
            sources |= {(one.entry, case) for one in places}
        after = cases[-1]
    s, e = db.register_source.c, db.register_entry.c
    stay = select(s.entry, s.message).where(s.message.not_in(register.DESTROYED))
    there = {(row.entry, row.message) for row in connection.execute(stay)}
    wrong += [(key, f"missing: {case}") for key, case in sorted(sources - there)]
    wrong += [(key, f"not in the archive: {case}") for key, case in sorted(there - sources)]
    for row in connection.execute(select(db.register_entry).where(e.origin == "mail").order_by(e.id)).all():
        values = register.derived(connection, row.id, row.agency, row.direction)
        if values is None:
            continue
        fields, changes = json.loads(values["fields"]), register.changes_of(connection, [row.id]).get(row.id, ())
        columns = register.search_columns(row.agency, row.direction, values["day"], fields, changes, settings)
        links = {(one["kind"], one["target"]) for one in values.pop("links")}
        del values["first"], values["counted"]
        wrong += [
            (row.id, f"{name}: {getattr(row, name)!r} instead of {value!r}"[:300])
            for name, value in (values | columns).items()
            if getattr(row, name) != value
        ]
        k = db.register_link.c
        known = {tuple(one) for one in connection.execute(select(k.kind, k.target).where(k.entry == row.id))}
        wrong += [(row.id, f"link: {kind} {target}") for kind, target in sorted(links ^ known)]
    return wrong + _unlike_leaves(connection)


def _unlike_leaves(connection: Connection) -> list[tuple[str, str]]:
    """Acts of people and numbers given by the gateway that are not what the tree says of them."""
    acts: Counter[tuple[str, ...]] = Counter()
    wrong = []
    n = db.register_number.c
    leaves = select(db.leaf.c.entry).where(db.leaf.c.type == "register").order_by(db.leaf.c.idx)
    for entry in connection.execute(leaves).scalars():
        body = json.loads(entry)
        if "field" in body:
            acts[tuple(body[name] for name in ("about", "field", "who", "old", "new", "reason"))] += 1
        elif body.get("act") == "allocate":
            given = (n.agency == body["agency"], n.year == body["year"], n.series == body["series"])
            row = connection.execute(select(n.entry).where(*given, n.number == body["number"])).first()
            if row is None or row.entry not in ("", body["entry"]):
                wrong.append((body["entry"], f"number {body['number']} of {body['series']}/{body['year']} was changed"))
    for row in connection.execute(select(db.register_change).order_by(db.register_change.c.id)):
        key = (row.about, row.field, row.who, _sha(row.old), _sha(row.new), _sha(row.reason))
        if acts[key] < 1:
            wrong.append((row.about, f"change without a leaf: {row.field}, {row.who}"))
        acts[key] -= 1
    wrong += [(key[0], f"change is missing: {key[1]}, {key[2]}") for key, left in acts.items() if left > 0]
    return wrong


def digest(connection: Connection) -> tuple[int, str]:
    """How many entries there are, and a SHA-256 of everything derived: the same before and after a rebuild."""
    running, count = hashlib.sha256(), 0
    e, s, k = db.register_entry.c, db.register_source.c, db.register_link.c
    for row in connection.execute(select(db.register_entry).order_by(e.id)).mappings():
        running.update(canonical(dict(row)) + b"\n")
        count += 1
    for row in connection.execute(select(db.register_source).order_by(s.entry, s.message)).mappings():
        running.update(canonical(dict(row)) + b"\n")
    question = select(db.register_link).order_by(k.entry, k.kind, k.target)
    for row in connection.execute(question).mappings():
        running.update(canonical(dict(row)) + b"\n")
    return count, running.hexdigest()


# ---------------------------------------------------------------------- inside


def _now() -> int:
    return int(time.time() * 1000)


def _args(series: Series) -> tuple[str, int, str]:
    return series.agency, series.year, series.name


def _entry(connection: Connection, key: str) -> Any:
    row = connection.execute(select(db.register_entry).where(db.register_entry.c.id == key)).first()
    if row is None:
        raise NoEntry(key)
    return row


def _refresh(connection: Connection, row: Any, settings: Registers) -> None:
    """Columns for searching after a change."""
    changes = register.changes_of(connection, [row.id]).get(row.id, ())
    columns = register.search_columns(row.agency, row.direction, row.day, json.loads(row.fields), changes, settings)
    connection.execute(db.register_entry.update().where(db.register_entry.c.id == row.id).values(**columns))


def _change(
    connection: Connection, about: str, name: str, old: str, new: str, who: str, reason: str, agency: str
) -> None:
    row = {"about": about, "field": name, "old": old, "new": new, "who": clean(who), "at": _now()}
    db.insert(connection, db.register_change, [{**row, "reason": clean(reason)}])
    # Values are somebody's words and may name people: the tree holds their digest, which is enough to prove the row.
    body = {"about": about, "field": name, "agency": agency, "who": clean(who)}
    body |= {"old": _sha(old), "new": _sha(new), "reason": _sha(reason)}
    archive.leaf(connection, "register", body)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
