"""`congvan stats`: a month's figures by agency."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway import stats as figures
from gateway.archive import Archive
from gateway.commands.archive import Config, run
from gateway.message import VIETNAM

app = typer.Typer(help="Số liệu / figures", invoke_without_command=True)


@app.callback()
def stats(
    context: typer.Context,
    month: Annotated[str, typer.Option(help="Tháng, ví dụ 2026-11; mặc định tháng này / month")] = "",
    agency: Annotated[str | None, typer.Option(help="Một cơ quan / one agency")] = None,
    as_csv: Annotated[bool, typer.Option("--csv")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    config: Config = Path("config"),
) -> None:
    """Số liệu một tháng theo cơ quan / a month's figures by agency; the same message counts once."""
    if context.invoked_subcommand:
        return
    month = month or f"{dt.datetime.now(VIETNAM):%Y-%m}"
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
        raise typer.BadParameter(f"{month!r}: tháng dạng 2026-11 / a month such as 2026-11")

    async def work(archive: Archive) -> int:
        rows = await archive.database.read(lambda connection: figures.month_table(connection, month, agency))
        if as_json:
            for row in rows:
                typer.echo(json.dumps(row.values(), ensure_ascii=False))
        elif as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\r\n")
            keys = ["month", "agency", *(one.key for one in figures.FIGURES), "returned_by", "observed_by"]
            writer.writerow(keys)
            for row in rows:
                values = row.values()
                for name in ("returned_by", "observed_by"):
                    values[name] = " ".join(f"{rule}:{number}" for rule, number in values[name].items())
                writer.writerow([values[name] for name in keys])
        else:
            _table(month, rows)
        return 0

    run(config, work)


@app.command()
def explain(
    figure: Annotated[str, typer.Argument(help=", ".join(one.key for one in figures.FIGURES))],
    month: Annotated[str, typer.Option(help="2026-11")],
    agency: Annotated[str, typer.Option()],
    config: Config = Path("config"),
) -> None:
    """Các thư đứng sau một con số / the cases behind one number."""
    if figure not in {one.key for one in figures.FIGURES}:
        raise typer.BadParameter(f"không có số liệu {figure!r} / no such figure")

    async def work(archive: Archive) -> int:
        for case in await archive.database.read(lambda c: figures.messages_of(c, month, figure, agency)):
            typer.echo(case or "-")
        return 0

    run(config, work)


def _table(month: str, rows: list[figures.Row]) -> None:
    """For the eye: agencies side by side would not fit, so figures that are zero everywhere are left out."""
    typer.echo(f"Tháng {month} (giờ Việt Nam)")
    if not rows:
        typer.echo("không có số liệu / no figures")
        return
    shown = [*rows, figures.total(month, rows)] if len(rows) > 1 else rows
    columns = [one for one in figures.FIGURES if any(row.figures[one.key] for row in rows)]
    width = max(len("cơ quan"), *(len(row.agency or "(ngoài danh bạ)") for row in shown))
    typer.echo("cơ quan".ljust(width) + "".join(f"  {one.vi}" for one in columns))
    for row in shown:
        name = {"": "(ngoài danh bạ)", "*": "cộng"}.get(row.agency, row.agency)
        typer.echo(name.ljust(width) + "".join(f"  {row.figures[one.key]:>{len(one.vi)}}" for one in columns))
    for row in shown:
        if row.returned_by and row.agency != "*":
            told = ", ".join(f"{rule} {number}" for rule, number in sorted(row.returned_by.items()))
            typer.echo(f"  {row.agency or '(ngoài danh bạ)'} bị trả lại theo / returned by: {told}")
