"""`congvan archive …` for keeping: retention, legal holds, destruction by two people, recalls."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import custody
from gateway.archive import Archive, from_ms, stamp
from gateway.commands.archive import EX_NO, CaseId, Config, Json, dump, run
from gateway.commands.asking import asking
from gateway.commands.find import Who, progress
from gateway.custody import at_the_keyboard
from gateway.message import VIETNAM
from gateway.search import Query

app = typer.Typer()
hold = typer.Typer(help="Lệnh giữ, cấm hủy / legal holds", no_args_is_help=True)
destroy = typer.Typer(help="Hủy thư hết hạn, hai người / destruction by two people", no_args_is_help=True)
app.add_typer(hold, name="hold")
app.add_typer(destroy, name="destroy")

Reason = Annotated[str, typer.Option("--reason", help="Lý do, được ghi lại / the reason, which is recorded")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Tên lệnh giữ / name of the hold")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Mã đề nghị / id of the proposal")]


def _needed(reason: str) -> str:
    if not reason.strip():
        raise typer.BadParameter("--reason: cần lý do / a reason is needed")
    return reason.strip()


@app.command()
def retention(as_json: Json = False, config: Config = Path("config")) -> None:
    """Thời hạn bảo quản theo lớp, và bao nhiêu thư đã hết hạn / retention classes, and what is over its time."""
    classes = custody.read_retention(config)

    async def work(archive: Archive) -> int:
        for one in await custody.overview(archive, classes, dt.datetime.now(VIETNAM).date()):
            if as_json:
                dump(one)
            else:
                years = f"{one['years']} năm/years" if one["years"] else "vĩnh viễn/for good"
                typer.echo(f"{one['class']:<20} {years:<18} {one['messages']:>8} thư, {one['due']} hết hạn/due")
                typer.echo(f"    {one['name']} ({one['basis']})")
        return 0

    run(config, work)


# ---------------------------------------------------------------------- holds


@hold.command("add")
@asking
def add(
    query: Query,
    name: Annotated[str, typer.Option("--name", help="Tên lệnh giữ / name of the hold")],
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Giữ mọi thư mà câu tìm thấy, kể cả thư đến sau / hold whatever the search finds, now and later."""
    why = _needed(reason)

    async def work(archive: Archive) -> int:
        archive.index.catch_up(progress=progress)
        count = await custody.lay_hold(archive, name, query, at_the_keyboard(who), why)
        dump({"hold": name, "count": count}) if as_json else typer.echo(f"{name}: {count} thư / messages")
        return 0

    run(config, work)


@hold.command("list")
def list_holds(as_json: Json = False, config: Config = Path("config")) -> None:
    """Các lệnh giữ / all holds, those released too."""

    async def work(archive: Archive) -> int:
        for one in await custody.holds(archive):
            told = _readable(one, ("at", "released_at"))
            if as_json:
                dump(told)
                continue
            end = f"  bỏ/released {told['released_at'][:10]} {one['released_by']}" if one["released_at"] else ""
            typer.echo(f"{one['name']}  {told['at'][:10]}  {one['who']}  {one['count']} thư  {one['reason']}{end}")
        return 0

    run(config, work)


@hold.command()
def release(name: Name, reason: Reason = "", who: Who = "", config: Config = Path("config")) -> None:
    """Bỏ lệnh giữ / release a hold."""
    why = _needed(reason)

    async def work(archive: Archive) -> int:
        await custody.release_hold(archive, name, at_the_keyboard(who), why)
        typer.echo(f"{name}: đã bỏ / released")
        return 0

    run(config, work)


# ---------------------------------------------------------------------- destruction


@destroy.command()
@asking
def propose(
    query: Query,
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Mã thư, nhiều lần được / case id, may be repeated")
    ] = None,
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Đề nghị hủy thư đã hết thời hạn bảo quản / propose to destroy mail whose time is over.

    Messages named by --case must all be free to go; of what a search finds, those that are free are taken.
    """
    why = _needed(reason)
    if bool(case) != query.empty():
        raise typer.BadParameter("--case hoặc một câu tìm / either --case or a search")
    classes = custody.read_retention(config)

    async def work(archive: Archive) -> int:
        archive.index.catch_up(progress=progress)
        person = at_the_keyboard(who)
        result = await custody.propose(archive, classes, person, why, case or (), None if case else query)
        if as_json:
            dump({"proposal": result.id, "cases": result.cases if result.id else [], "refused": result.refused})
        else:
            for one, why_not in result.refused.items():
                typer.echo(f"không / not: {one}: {why_not}", err=True)
            if result.id:
                typer.echo(f"{result.id}: {len(result.cases)} thư / messages. Người khác xác nhận / another confirms:")
                typer.echo(f"    congvan archive destroy confirm {result.id} --reason …")
            else:
                typer.echo("congvan: không có đề nghị nào / nothing is proposed", err=True)
        return 0 if result.id else EX_NO

    run(config, work)


@destroy.command()
def confirm(
    id_: Id, reason: Reason = "", who: Who = "", as_json: Json = False, config: Config = Path("config")
) -> None:
    """Xác nhận và hủy; phải là người khác, tài khoản khác / confirm and destroy; by another person and account."""
    why = _needed(reason)
    classes = custody.read_retention(config)

    async def work(archive: Archive) -> int:
        count = await custody.confirm(archive, classes, id_, at_the_keyboard(who), why)
        dump({"proposal": id_, "destroyed": count}) if as_json else typer.echo(f"{count} thư đã hủy / destroyed")
        return 0

    run(config, work)


@destroy.command()
def withdraw(id_: Id, reason: Reason = "", who: Who = "", config: Config = Path("config")) -> None:
    """Rút đề nghị / take a proposal back."""
    why = _needed(reason)

    async def work(archive: Archive) -> int:
        await custody.withdraw(archive, id_, at_the_keyboard(who), why)
        typer.echo(f"{id_}: đã rút / withdrawn")
        return 0

    run(config, work)


@destroy.command("list")
def list_proposals(
    id_: Annotated[
        str, typer.Argument(metavar="[ID]", help="Chỉ đề nghị này, kèm mã thư / this one, with its cases")
    ] = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Các đề nghị hủy và kết quả / proposals and what became of them."""

    async def work(archive: Archive) -> int:
        found = await custody.disposals(archive, id_)
        for one in found:
            told = _readable(one, ("at", "decided_at"))
            if as_json:
                dump(told)
                continue
            end = f"  {one['decided_by']}: {one['decision_reason']}" if one["decided_by"] else ""
            typer.echo(f"{one['id']}  {told['at'][:10]}  {one['state']}  {len(one['cases'])} thư  "
                       f"{one['who']}: {one['reason']}{end}")  # fmt: skip
            for case in one["cases"] if id_ else ():
                typer.echo(f"    {case}")
        return EX_NO if id_ and not found else 0

    run(config, work)


def _readable(row: dict[str, Any], times: tuple[str, ...]) -> dict[str, Any]:
    return {**row, **{name: stamp(from_ms(row[name])) if row[name] else None for name in times}}


# ---------------------------------------------------------------------- recall


@app.command()
def recall(
    case: CaseId,
    reason: Reason = "",
    undo: Annotated[bool, typer.Option("--undo", help="Bỏ ghi nhận thu hồi / take it back")] = False,
    who: Who = "",
    config: Config = Path("config"),
) -> None:
    """Ghi nhận văn bản bị thu hồi (thông báo giấy) / enter a recall that came on paper; those by mail count anyway."""
    why = _needed(reason)

    async def work(archive: Archive) -> int:
        await custody.recall(archive, case, at_the_keyboard(who), why, undo)
        typer.echo(f"{case}: {'bỏ thu hồi / not recalled' if undo else 'đã thu hồi / recalled'}")
        return 0

    run(config, work)
