"""`congvan imap …`: mailboxes that are read, whether anything in them was missed, and what people decide about them."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, func, select
from sqlalchemy import case as when

from gateway import database as db
from gateway import directory
from gateway import imap_state as state
from gateway import sightings as seen
from gateway.archive import Archive, append_leaf, clean, from_ms, stamp
from gateway.commands.archive import EX_NO, CaseId, Config, Json, run
from gateway.commands.queue import no_such_case, user
from gateway.config import read as read_settings
from gateway.message import VIETNAM

app = typer.Typer(help="Hộp thư được đọc qua IMAP / mailboxes that are read", no_args_is_help=True)

#: Office hours on working days, in the time of Vietnam: 7.30 to 11.30 and 13.00 to 17.00, the hours most provinces set.
HOURS = ((dt.time(7, 30), dt.time(11, 30)), (dt.time(13, 0), dt.time(17, 0)))


def working_seconds(since: dt.datetime, until: dt.datetime, holidays: frozenset[dt.date] = frozenset()) -> int:
    """Seconds within office hours between two moments; Saturdays, Sundays and holidays do not count."""
    total = 0.0
    day = since.date()
    while day <= until.date():
        if day.weekday() < 5 and day not in holidays:
            for opens, closes in HOURS:
                start = max(since, dt.datetime.combine(day, opens, since.tzinfo))
                end = min(until, dt.datetime.combine(day, closes, since.tzinfo))
                total += max(0.0, (end - start).total_seconds())
        day += dt.timedelta(days=1)
    return int(total)


def figures(
    connection: Connection, now: int, holidays: frozenset[dt.date] = frozenset(), kinds: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """One row for each folder that is read, by mailbox. Times are RFC 3339; ages are seconds. kinds: AGENCY or PERSONAL
    by address, as the directory says."""
    rows: list[dict[str, Any]] = []
    m, f, a = db.imap_message.c, db.imap_folder.c, db.imap_action.c
    for row in connection.execute(
        select(db.imap_folder).where(f.closed_at.is_(None)).order_by(f.account, f.id)
    ).mappings():
        states = dict(
            connection.execute(select(m.state, func.count()).where(m.folder == row["id"]).group_by(m.state)).all()
        )
        missing = select(func.count(), func.min(func.coalesce(m.internal_at, m.found_at))).where(
            m.folder == row["id"], m.state == "missing"
        )
        backlog, oldest = connection.execute(missing).one()
        gaps = connection.execute(
            select(m.uid, m.tries, m.reason).where(m.folder == row["id"], m.state == "missing", m.tries > 0)
        ).all()
        last = connection.execute(
            select(m.internal_at, m.taken_at)
            .where(m.folder == row["id"], m.state.in_(("taken", "secret")), m.internal_at >= row["first_at"])
            .order_by(m.taken_at.desc()).limit(1)
        ).first()  # fmt: skip
        acts = connection.execute(
            select(a.kind, a.case_id, a.tries, a.reason).where(a.folder == row["id"], a.done_at.is_(None))
        ).all()
        unseen_at = row["oldest_unseen_at"]
        rows.append(
            {
                "mailbox": row["account"],
                "kind": (kinds or {}).get(row["account"].lower(), ""),
                "folder": row["name"],
                "role": row["role"],
                "last_success": _time(row["success_at"]),
                "error": row["error"],
                "error_at": _time(row["error_at"]),
                "present": max(row["present"], 0),
                "taken": states.get("taken", 0),
                "secret": states.get("secret", 0),
                "before_since": states.get("old", 0),
                "lost": states.get("lost", 0),
                "backlog": backlog,
                "oldest_backlog": _time(oldest),
                "gaps": [{"uid": one.uid, "tries": one.tries, "reason": one.reason} for one in gaps],
                "lag_seconds": None if last is None or last.internal_at is None
                else max(0, last.taken_at - last.internal_at) // 1000,
                "acts_open": [
                    {"act": one.kind, "case": one.case_id, "tries": one.tries, "reason": one.reason} for one in acts
                ],
                "unseen": row["unseen"],
                "oldest_unseen": _time(unseen_at),
                "unseen_working_seconds": working_seconds(from_ms(unseen_at), from_ms(now), holidays)
                if unseen_at else 0,
            }
        )  # fmt: skip
    return rows


def by_day(connection: Connection, since: dt.date, until: dt.date, mailbox: str = "") -> list[dict[str, Any]]:
    """What came on each day (INTERNALDATE, in Vietnam) in each folder that is read, and what became of it."""
    m, f = db.imap_message.c, db.imap_folder.c
    start, end = (
        int(dt.datetime.combine(day, dt.time(), VIETNAM).timestamp() * 1000)
        for day in (since, until + dt.timedelta(days=1))
    )
    at = func.coalesce(m.internal_at, m.found_at)
    day = ((at - start) // 86_400_000).label("day")  # Vietnam has no summer time
    gone = when((m.gone_at.is_(None), 0), else_=1).label("gone")
    question = (
        select(f.account, f.name, day, m.state, gone, func.count().label("number"))
        .join(db.imap_folder, f.id == m.folder)
        .where(f.closed_at.is_(None), at >= start, at < end)
        .group_by(f.account, f.name, day, m.state, gone)
        .order_by(f.account, f.name, day)
    )
    if mailbox:
        question = question.where(f.account == mailbox)
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for one in connection.execute(question):
        row = rows.setdefault(
            (one.account, one.name, one.day),
            {"mailbox": one.account, "folder": one.name, "day": (since + dt.timedelta(days=one.day)).isoformat(),
             "seen": 0, "taken": 0, "secret": 0, "before_since": 0, "missing": 0, "lost": 0, "gone": 0},
        )  # fmt: skip
        row["seen"] += one.number
        row["before_since" if one.state == "old" else one.state] += one.number
        row["gone"] += one.number if one.gone else 0
    return list(rows.values())


def _time(at: int | None) -> str | None:
    return stamp(from_ms(at)) if at else None


@app.command()
def status(as_json: Json = False, config: Config = Path("config")) -> None:
    """Từng hộp thư: lần đọc cuối, còn sót, chưa mở / every mailbox: last look, what is owed, what is unread.

    Mã thoát 1 khi có thư sót hoặc lỗi / exit code 1 when something is missing or a mailbox cannot be read."""
    settings = read_settings(config)
    named = {one.address for server in (settings.imap.servers if settings.imap else ()) for one in server.accounts}

    known = directory.load(config / "directory")
    kinds = {one.address.lower(): one.kind for one in known.mailboxes()}

    async def work(archive: Archive) -> int:
        now = int(time.time() * 1000)
        rows = await archive.database.read(lambda connection: figures(connection, now, known.holidays, kinds))
        never = sorted(named - {row["mailbox"] for row in rows})
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False) if as_json else _line(row))
        for address in never:
            empty = {"mailbox": address, "folder": "", "error": "not read yet"}
            typer.echo(json.dumps(empty) if as_json else f"{address}: chưa đọc lần nào / not read yet")
        if not named and not rows and not as_json:
            typer.echo("Không có hộp thư nào được đọc qua IMAP, xem docs/imap.md / no mailboxes are read")
        wrong = never or any(row["error"] or row["gaps"] or row["lost"] for row in rows)
        return EX_NO if wrong else 0

    run(config, work)


@app.command()
def days(
    mailbox: Annotated[str, typer.Option("--mailbox", help="Chỉ hộp thư này / this mailbox alone")] = "",
    since: Annotated[str, typer.Option("--since", help="Từ ngày / first day, YYYY-MM-DD (default: 7 days ago)")] = "",
    until: Annotated[str, typer.Option("--until", help="Đến hết ngày / last day, YYYY-MM-DD (default: today)")] = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Từng thư mục, từng ngày: thấy bao nhiêu thư, đã lưu bao nhiêu / every folder and day: mail seen and taken.

    Mã thoát 1 khi còn thiếu / exit code 1 when something is missing."""
    today = dt.datetime.now(VIETNAM).date()
    first, last = _day("--since", since, today - dt.timedelta(days=7)), _day("--until", until, today)

    async def work(archive: Archive) -> int:
        rows = await archive.database.read(lambda connection: by_day(connection, first, last, mailbox))
        for row in rows:
            if as_json:
                typer.echo(json.dumps(row, ensure_ascii=False))
                continue
            words = [
                f"{row['mailbox']}  {row['folder']}  {row['day']}  {row['seen']} thư/seen  {row['taken']} đã lưu/taken"
            ]
            labels = (("secret", "mật/secret"), ("before_since", "trước mốc/before"), ("missing", "còn thiếu/missing"),
                      ("lost", "mất/lost"), ("gone", "không còn ở đó/gone"))  # fmt: skip
            words += [f"{row[key]} {label}" for key, label in labels if row[key]]
            typer.echo("  ".join(words))
        return EX_NO if any(row["missing"] or row["lost"] for row in rows) else 0

    run(config, work)


def _day(option: str, text: str, default: dt.date) -> dt.date:
    try:
        return dt.date.fromisoformat(text) if text else default
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: không phải ngày / is no date, such as 2026-11-30") from None


def _line(row: dict[str, Any]) -> str:
    hours, rest = divmod(row["unseen_working_seconds"], 3600)
    words = [
        f"{row['mailbox']}  {row['folder']}",
        f"đọc lúc/read {(row['last_success'] or '-')[:19]}",
        f"{row['present']} thư/present",
        f"{row['taken']} đã lưu/taken",
    ]
    for key, label in (("secret", "mật/secret"), ("backlog", "còn lại/backlog"), ("lost", "mất/lost")):
        if row[key]:
            words.append(f"{row[key]} {label}")
    if row["gaps"]:
        words.append(f"{len(row['gaps'])} sót/gaps: {row['gaps'][0]['reason']}")
    if row["acts_open"]:
        words.append(f"{len(row['acts_open'])} việc chờ/acts open: {row['acts_open'][0]['reason']}")
    if row["unseen"]:
        words.append(f"{row['unseen']} chưa mở/unread, {hours}h{rest // 60:02} giờ hành chính/office hours")
    if row["error"]:
        words.append(f"LỖI/ERROR {row['error']}")
    return "  ".join(words)


@app.command("import")
def import_(config: Config = Path("config")) -> None:
    """Theo dõi việc đọc thư cũ cho tới khi xong / watch the import of old mail until all of it is taken.

    Cổng thư đang chạy làm việc này; ngắt lệnh không ngắt nó / the running gateway does it, whoever watches."""

    async def work(archive: Archive) -> int:
        while True:
            rows = await archive.database.read(lambda connection: figures(connection, int(time.time() * 1000)))
            backlog, present = sum(row["backlog"] for row in rows), sum(row["present"] for row in rows)
            known = sum(row["taken"] + row["secret"] + row["before_since"] for row in rows)
            typer.echo(f"\r{known} đã xong/done, {backlog} còn lại/left   ", nl=False, err=True)
            if rows and not backlog and all(row["last_success"] for row in rows):
                typer.echo(f"\n{present} thư trong {len(rows)} thư mục / messages in folders")
                return EX_NO if any(row["error"] or row["lost"] for row in rows) else 0
            if rows and backlog and backlog == sum(len(row["gaps"]) for row in rows):
                typer.echo("\ncòn thư sót, xem `congvan imap status` / gaps remain", err=True)
                return EX_NO
            await asyncio.sleep(1)

    run(config, work)


@app.command()
def sightings(case: CaseId, as_json: Json = False, config: Config = Path("config")) -> None:
    """Thư này nằm ở những hộp thư nào / in which mailboxes a message was seen."""

    async def work(archive: Archive) -> int:
        m, f = db.imap_message.c, db.imap_folder.c
        question = (
            select(f.account, f.name, f.uidvalidity, m.uid, m.internal_at, m.taken_at, m.gone_at)
            .join(db.imap_folder, f.id == m.folder)
            .where(m.case_id == case)
            .order_by(m.taken_at)
        )
        rows = await archive.database.read(lambda connection: connection.execute(question).mappings().all())
        told = await archive.database.read(lambda connection: seen.of(connection, case))
        for one in told:
            if one.via in ("journal", "bcc"):
                envelope = json.loads(one.envelope) if one.envelope else None
                line = {"via": one.via, "mailbox": one.place, "taken": _time(one.at), "envelope": envelope}
                typer.echo(
                    json.dumps(line, ensure_ascii=False) if as_json else "  ".join(f"{v}" for v in line.values())
                )
        for row in rows:
            shown = {
                "via": "imap",
                "mailbox": row["account"],
                "folder": row["name"],
                "uidvalidity": row["uidvalidity"],
                "uid": row["uid"],
                "internaldate": _time(row["internal_at"]),
                "taken": _time(row["taken_at"]),
                "gone": _time(row["gone_at"]),
            }
            typer.echo(json.dumps(shown, ensure_ascii=False) if as_json else "  ".join(f"{v}" for v in shown.values()))
        return 0 if rows or told else no_such_case(case)

    run(config, work)


@app.command()
def release(
    case: CaseId,
    reason: Annotated[str, typer.Option("--reason", help="Lý do, được ghi lại / the reason, which is recorded")],
    who: Annotated[str, typer.Option("--who", help="Người quyết định / who decides")] = "",
    config: Config = Path("config"),
) -> None:
    """Đưa thư về chỗ cũ trong hộp thư / move a message back to where it came in. The running gateway does it."""

    async def work(archive: Archive) -> int:
        now = int(time.time() * 1000)

        def write(connection: Connection) -> int:
            count = state.release(connection, case, now)
            if count:
                said = {"who": clean(who or user()), "act": "release", "reason": clean(reason)}
                db.insert(connection, db.decision, [{"message": case, "at": now, **said}])
                append_leaf(connection, now / 1000, {"type": "admin", "case": case, **said})
            return count

        count = await archive.database.write(write)
        if not count:
            return no_such_case(case)
        typer.echo(f"{count} thư sẽ được đưa về chỗ cũ / will be moved back")
        return 0

    run(config, work)
