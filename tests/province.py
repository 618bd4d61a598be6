"""A simulated province: agencies that come, go and change their parent, their mail as events, and its figures worked
out a second time, by plain SQL and arithmetic over the raw events, without anything of `gateway.stats`.

Districts end on 30 June 2025, when their communes come under the province; a department is merged in the middle of a
month. All is made from a seed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ZONE = dt.timezone(dt.timedelta(hours=7))  # Vietnam has had no other since 1975
DISTRICTS_END = dt.date(2025, 6, 30)
MERGED = dt.date(2026, 3, 13)  # last day of a department, in the middle of a month
DOCUMENTS = [
    "OFFICIAL_DOC",
    "DRAFT",
    "COMMENT",
    "DOSSIER",
    "INVITATION",
    "MEETING_MATERIAL",
    "WORK_CALENDAR",
    "ROOM_BOOKING",
    "REPORT",
    "DIRECTION",
]
CLASSES = [*DOCUMENTS, "CITIZEN_MAIL", "WORK_MAIL", "SYSTEM"]
WEIGHTS = [34, 6, 4, 3, 8, 3, 2, 1, 7, 2, 4, 25, 1]
POLICIES = tuple(hashlib.sha256(name.encode()).hexdigest() for name in ("first", "second"))


@dataclass(frozen=True)
class Span:
    """An agency during one period: last day and what came after, or None."""

    id: str
    level: str
    parent: str
    begins: dt.date | None = None
    ends: dt.date | None = None
    successor: str = ""
    profile: str = ""

    def valid(self, day: dt.date) -> bool:
        return (self.begins is None or self.begins <= day) and (self.ends is None or day <= self.ends)


@dataclass
class Province:
    spans: list[Span] = field(default_factory=list)

    @classmethod
    def make(cls, agencies: int) -> Province:
        """`agencies` of them: a province, departments, districts, communes and units."""
        one = cls([Span("ubnd-tinh", "province", "", profile="national_2026")])
        departments = max(2, agencies // 15)
        districts = max(2, agencies // 30)
        units = max(1, agencies // 10)
        for n in range(departments):
            end, after = (MERGED, "so-001") if n == 2 else (None, "")
            profile = "bnv_2012" if n % 4 == 1 else ""
            one.spans.append(Span(f"so-{n:03}", "department", "ubnd-tinh", None, end, after, profile))
        for n in range(districts):
            one.spans.append(Span(f"huyen-{n:03}", "district", "ubnd-tinh", None, DISTRICTS_END, "ubnd-tinh"))
        for n in range(units):
            one.spans.append(Span(f"dv-{n:03}", "unit", f"so-{n % departments if n % departments != 2 else 0:03}"))
        for n in range(agencies - 1 - departments - districts - units):
            parent, after = f"huyen-{n % districts:03}", DISTRICTS_END + dt.timedelta(days=1)
            if n % 5 == 4:  # merged into the commune before it
                one.spans.append(Span(f"xa-{n:03}", "commune", parent, None, DISTRICTS_END, f"xa-{n - 1:03}"))
            else:
                one.spans.append(Span(f"xa-{n:03}", "commune", parent, None, DISTRICTS_END))
                one.spans.append(Span(f"xa-{n:03}", "commune", "ubnd-tinh", after))
        return one

    @property
    def ids(self) -> list[str]:
        return sorted({one.id for one in self.spans})

    def valid(self, day: dt.date) -> list[Span]:
        return [one for one in self.spans if one.valid(day)]

    def write(self, folder: Path) -> None:
        """`directory/` of a configuration: agencies and mailboxes as CSV."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["id,name,level,parent,domains,valid_from,valid_to,successor,profile"]
        names = {"ubnd-tinh": "Ủy ban nhân dân tỉnh", "so": "Sở số", "huyen": "Ủy ban nhân dân huyện số"}
        names |= {"xa": "Ủy ban nhân dân xã số", "dv": "Đơn vị sự nghiệp số"}
        for one in self.spans:
            kind, _, number = one.id.partition("-")
            name = names.get(one.id) or f"{names[kind]} {int(number)}"
            domain = "tinh.gov.vn" if one.id == "ubnd-tinh" else f"{one.id}.tinh.gov.vn"
            begins, ends = one.begins or "", one.ends or ""
            lines.append(
                f"{one.id},{name},{one.level},{one.parent},{domain},{begins},{ends},{one.successor},{one.profile}"
            )
        (folder / "agencies.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        lines = ["address,kind,holder,agency"]
        for one in self.ids:
            lines.append(f"van.thu@{one}.tinh.gov.vn,AGENCY,Văn thư,{one}")
            lines += [f"cv{n}@{one}.tinh.gov.vn,PERSONAL,Chuyên viên {n},{one}" for n in range(2)]
        (folder / "mailboxes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


COLUMNS = [
    *["key", "at", "month", "kind", "agency", "direction", "message_class", "profile"],
    *["rule", "mode", "value", "message", "scope"],
]


def events(
    province: Province, months: list[str], per_month: int, seed: int, number: int = 0
) -> Iterator[tuple[dict, list[dict]]]:
    """Messages (rows of `message`) with their events, about `per_month` events each month. number: of the messages made
    before, where a province is made in several goes."""
    chance = random.Random(seed + number)
    for month in months:
        year, place = map(int, month.split("-"))
        start = dt.datetime(year, place, 1, tzinfo=ZONE)
        end = dt.datetime(year + place // 12, place % 12 + 1, 1, tzinfo=ZONE)
        first, last = int(start.timestamp() * 1000), int(end.timestamp() * 1000)
        pieces = [dt.date(year, place, 1)]
        if (year, place) == (MERGED.year, MERGED.month):
            pieces.append(MERGED + dt.timedelta(days=1))
        valid = {day: province.valid(day) for day in pieces}
        made = 0
        while made < per_month:
            number += 1
            # the borders of the month are where a wrong zone would show
            at = chance.choice([first, last - 1]) if chance.random() < 0.002 else chance.randrange(first, last)
            local = dt.datetime.fromtimestamp(at / 1000, ZONE)
            agencies = valid[max(day for day in pieces if day <= local.date())]
            own = chance.choice(agencies)
            way = chance.choice(["out", "in"])
            kind = chance.choices(CLASSES, WEIGHTS)[0]
            profile = own.profile or "national_2026"
            case = f"C{number:015d}"
            scope = (
                "outside"
                if kind == "CITIZEN_MAIL"
                else chance.choices(["inter_agency", "internal", "outside"], [8, 2, 1])[0]
            )
            value = chance.choices(["electronic_only", "electronic_and_paper", "unlisted"], [70, 20, 10])[0]
            rows: list[dict] = []

            def add(
                agency,
                way,
                name,
                rule="",
                mode="",
                value="",
                scope="",
                kind=kind,
                profile=profile,
                at=at,
                case=case,
                rows=rows,
                month=month,
            ):
                rows.append(
                    dict(
                        zip(
                            COLUMNS,
                            (
                                f"{case}|{way}|{agency}|{name}|{rule}",
                                at,
                                month,
                                name,
                                agency,
                                way,
                                kind,
                                profile,
                                rule,
                                mode,
                                value,
                                case,
                                scope,
                            ),
                            strict=True,
                        )
                    )
                )

            fate = chance.random()
            if fate < 0.9:
                sides = [(own.id, way)]
                if way == "out" and scope == "inter_agency":
                    sides.append((chance.choice(agencies).id, "in"))
                for agency, side in dict.fromkeys(sides):
                    add(agency, side, "sent" if side == "out" else "received", value=value, scope=scope)
                    if kind in DOCUMENTS and chance.random() < 0.5:
                        add(agency, side, chance.choice(["signed", "signed", "signed_other", "unsigned"]))
                    if chance.random() < 0.06:
                        add(agency, side, "urgent", value=chance.choice(["khan", "thuong_khan", "hoa_toc"]))
                    if chance.random() < 0.1:
                        add(agency, side, "seal_scanned")
                if fate < 0.03:
                    add(own.id, way, "held")
            elif fate < 0.98:
                add(own.id, way, "returned")
                add(own.id, way, "finding", chance.choice(["FM-01", "SG-01", "MB-01"]), "enforce", "return")
            else:
                add(own.id, way, chance.choice(["blocked_secret", "malware"]))
            if way == "out" and chance.random() < 0.08:
                late = chance.choice(["late", "late_soft"])
                add(own.id, way, "finding", "TM-03", "warn", "deliver-warn")
                add(own.id, way, late, "TM-03", "warn")
            if chance.random() < 0.03:
                add(own.id, way, "finding", "DL-01", "observe", "deliver")
            if chance.random() < 0.05:
                name, value = chance.choice(
                    [("meeting", "on_time"), ("meeting", "late"), ("calendar", "lead_ok"), ("calendar", "late")]
                )
                add(own.id, way, name, value=value)
            if chance.random() < 0.02:
                add(own.id, way, *chance.choice([("refused_envelope", "MB-01", "enforce"), ("exception",)]))
            if way == "out" and fate < 0.9 and chance.random() < 0.3:
                box = chance.choice(["van.thu", "cv0", "cv1"])
                digest = hashlib.sha256(f"{box}@{own.id}.tinh.gov.vn".encode()).hexdigest()[:16]
                active = {"key": f"active|{month}|{box}@{own.id}", "value": digest, "message_class": "", "profile": ""}
                add(own.id, "out", "active")
                rows[-1] |= active
            message = {
                "id": case,
                "kind": "mail",
                "direction": way,
                "channel": "relay",
                "received_at": at,
                "sha256": case,
                "size": 1000,
                "sender": "x@y",
                "verdict": "deliver",
                "message_class": kind,
                "policy_digest": POLICIES[at % 2],
                "message_id": f"<{case}@tinh>",
            }
            made += len(rows)
            yield message, rows


# ---------------------------------------------------------------------- figures, a second time

_DOCS = "message_class IN (" + ", ".join(f"'{one}'" for one in DOCUMENTS) + ")"
_FIRST = "kind IN ('sent', 'received')"
#: Written by hand from rules.md 1.9, not taken from the program.
BY_HAND = {
    "sent": "kind = 'sent'",
    "received": "kind = 'received'",
    "documents_sent": f"kind = 'sent' AND {_DOCS}",
    "documents_received": f"kind = 'received' AND {_DOCS}",
    "official": f"{_FIRST} AND message_class = 'OFFICIAL_DOC'",
    "official_sent": "kind = 'sent' AND message_class = 'OFFICIAL_DOC'",
    "official_received": "kind = 'received' AND message_class = 'OFFICIAL_DOC'",
    "drafts": f"{_FIRST} AND message_class = 'DRAFT'",
    "e_only": f"{_FIRST} AND {_DOCS} AND value = 'electronic_only'",
    "e_and_paper": f"{_FIRST} AND {_DOCS} AND value = 'electronic_and_paper'",
    "unlisted": f"{_FIRST} AND {_DOCS} AND value = 'unlisted'",
    "signed_valid": f"kind = 'signed' AND {_DOCS}",
    "signed_other": f"kind = 'signed_other' AND {_DOCS}",
    "unsigned": "kind = 'unsigned'",
    "seal_scanned": f"kind = 'seal_scanned' AND {_DOCS}",
    "urgent": "kind = 'urgent'",
    "urgent_khan": "kind = 'urgent' AND value = 'khan'",
    "urgent_thuong_khan": "kind = 'urgent' AND value = 'thuong_khan'",
    "urgent_hoa_toc": "kind = 'urgent' AND value LIKE 'hoa_toc%'",
    "late": "kind = 'late'",
    "late_soft": "kind = 'late_soft'",
    "meeting_on_time": "kind = 'meeting' AND value = 'on_time'",
    "meeting_late": "kind = 'meeting' AND value = 'late'",
    "calendar_lead_ok": "kind = 'calendar' AND value = 'lead_ok'",
    "calendar_late": "kind = 'calendar' AND value = 'late'",
    "citizen_in": "kind = 'received' AND message_class = 'CITIZEN_MAIL'",
    "citizen_out": "kind = 'sent' AND scope = 'outside'",
    "returned": "kind = 'returned'",
    "returned_out": "kind = 'returned' AND direction = 'out'",
    "returned_in": "kind = 'returned' AND direction = 'in'",
    "held": "kind = 'held'",
    "blocked_secret": "kind = 'blocked_secret'",
    "malware": "kind = 'malware'",
    "refused_envelope": "kind = 'refused_envelope'",
    "free_mailbox_findings": "kind IN ('finding', 'refused_envelope') AND rule IN ('MB-01', 'MB-02', 'MB-03')",
    "exception_uses": "kind = 'exception'",
}
PARTS_BY_HAND = {
    "any_out": f"kind = 'sent' AND {_DOCS} AND scope <> 'internal'",
    "any_in": f"kind = 'received' AND {_DOCS} AND scope <> 'internal'",
    "full_out": f"kind = 'sent' AND {_DOCS} AND scope <> 'internal' AND value = 'electronic_only'",
    "full_in": f"kind = 'received' AND {_DOCS} AND scope <> 'internal' AND value = 'electronic_only'",
    "internal": f"kind = 'sent' AND {_DOCS} AND scope = 'internal'",
    "full_internal": f"kind = 'sent' AND {_DOCS} AND scope = 'internal' AND value = 'electronic_only'",
    "between": f"kind = 'sent' AND {_DOCS} AND scope = 'inter_agency'",
    "full_between": f"kind = 'sent' AND {_DOCS} AND scope = 'inter_agency' AND value = 'electronic_only'",
}


def moments(months: list[str]) -> tuple[int, int]:
    """First and last millisecond (exclusive) of consecutive months, in the time of Vietnam."""
    year, place = map(int, months[0].split("-"))
    start = dt.datetime(year, place, 1, tzinfo=ZONE)
    year, place = map(int, months[-1].split("-"))
    end = dt.datetime(year + place // 12, place % 12 + 1, 1, tzinfo=ZONE)
    return int(start.timestamp() * 1000), int(end.timestamp() * 1000)


def by_hand(path: Path, months: list[str], group: str = "agency") -> dict[str, dict[str, int]]:
    """Every count by agency (or another column) over consecutive months, by one plain question over the raw events.
    The months are cut by the time of each event, not by what its row says of its month."""
    wanted = {**BY_HAND, **PARTS_BY_HAND}
    start, end = moments(months)
    sums = ", ".join(f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)" for condition in wanted.values())
    boxes = "COUNT(DISTINCT CASE WHEN kind = 'active' THEN value END)"
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            f"SELECT {group}, {sums}, {boxes} FROM event WHERE at >= ? AND at < ? GROUP BY {group}", (start, end)
        ).fetchall()
    return {row[0]: dict(zip([*wanted, "active_mailboxes"], row[1:], strict=True)) for row in rows}


def rolled_up_by_hand(path: Path, province: Province, months: list[str]) -> dict[str, dict[str, int]]:
    """The counts of each agency with those below it and before it, event by event."""
    start, end = moments(months)
    last = dt.datetime.fromtimestamp((end - 1) / 1000, ZONE).date()
    spans: dict[str, list[Span]] = defaultdict(list)
    for one in province.spans:
        spans[one.id].append(one)

    def holders(name: str, day: dt.date, found: set[str]) -> set[str]:
        if name in found:
            return found
        found.add(name)
        now = next((one for one in spans[name] if one.valid(day)), None)
        if now is not None and now.parent:
            holders(now.parent, day, found)
        final = spans[name][-1]
        if final.ends is not None and final.ends < last and final.successor:
            holders(final.successor, last, found)
        return found

    conditions = {key: condition for key, condition in BY_HAND.items()}
    flags = ", ".join(f"({condition})" for condition in conditions.values())
    result: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(conditions, 0))
    known: dict[tuple[str, dt.date], set[str]] = {}
    with sqlite3.connect(path) as connection:
        for at, agency, *hits in connection.execute(
            f"SELECT at, agency, {flags} FROM event WHERE at >= ? AND at < ?", (start, end)
        ):
            day = dt.datetime.fromtimestamp(at / 1000, ZONE).date()
            if (agency, day) not in known:
                known[agency, day] = holders(agency, day, set())
            for holder in known[agency, day]:
                line = result[holder]
                for key, hit in zip(conditions, hits, strict=True):
                    line[key] += hit
    return result


def paper(province: Province, months: list[str], seed: int, missing: float = 0.1) -> list[dict]:
    """Rows of `paper_count`: some agencies have not told for some month, some corrected what they told."""
    chance = random.Random(seed)
    rows = []
    for month in months:
        for agency in province.ids:
            if chance.random() < missing:
                continue
            for way in ("out", "in"):
                for _ in range(2 if chance.random() < 0.05 else 1):
                    rows.append(
                        {
                            "agency": agency,
                            "month": month,
                            "direction": way,
                            "message_class": "",
                            "number": chance.randrange(0, 60),
                            "at": 0,
                        }
                    )
    return rows


def months(first: str, number: int) -> list[str]:
    """`number` months from `first` on."""
    year, place = map(int, first.split("-"))
    return [f"{year + (place - 1 + n) // 12:04}-{(place - 1 + n) % 12 + 1:02}" for n in range(number)]
