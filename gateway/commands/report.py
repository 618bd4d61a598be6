"""`congvan report`: publish figures, list what was published, see the letters, do what is due by the clock."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import directory as directories
from gateway import policy as policies
from gateway import reports
from gateway.archive import Archive, from_ms, stamp
from gateway.commands.archive import Config, Json, run
from gateway.commands.stats import Half, Year, period_of
from gateway.config import Gateway
from gateway.config import read as read_settings
from gateway.directory import Directory
from gateway.log import get as logger
from gateway.message import VIETNAM
from gateway.policy import Policy
from gateway.stats import Period

app = typer.Typer(help="Báo cáo, công bố số liệu / reports and publication", no_args_is_help=True)

Month = Annotated[str, typer.Option(help="Tháng, ví dụ 2026-11; mặc định tháng trước / month; the one before this")]
Out = Annotated[Path | None, typer.Option(help="Thư mục đích; mặc định `reports.folder` / where to")]


def _known(config: Path) -> tuple[Gateway, Directory, Policy]:
    """Raises ConfigError."""
    return read_settings(config), directories.load(config / "directory"), policies.load(config)


def _folder(settings: Gateway) -> Path:
    return settings.reports.folder or settings.data / "reports"


@app.command()
def publish(
    month: Month = "",
    half: Half = "",
    year: Year = "",
    out: Out = None,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Công bố một kỳ; mặc định tháng trước / publish a period; the month before this one by default."""
    if not (month or half or year):
        month = Period.of(dt.datetime.now(VIETNAM).date()).before.text
    period = period_of(month, half, year)
    settings, directory, policy = _known(config)

    async def work(archive: Archive) -> int:
        folder = out or _folder(settings)
        made = await reports.publish(archive, period, directory, policy, settings, folder)
        told = {
            "period": made.period,
            "revision": made.revision,
            "new": made.new,
            "published_at": stamp(made.at),
            "sha256": made.sha256,
            "leaf": made.leaf,
            "folder": str(made.folder),
        }
        if as_json:
            typer.echo(json.dumps(told, ensure_ascii=False))
            return 0
        typer.echo(f"{period.vi} / {period.en}: {_state(made, told['new'] is True)}")
        typer.echo(f"  {made.folder}/index.html")
        typer.echo(f"  figures.json SHA-256 {made.sha256}, lá / leaf {made.leaf}")
        return 0

    run(config, work)


def _state(one: reports.Published, new: bool) -> str:
    if one.revision == 0:
        return "tạm tính / provisional"
    if not new:
        return f"không đổi, lần {one.revision} / unchanged, revision {one.revision}"
    return (
        "công bố lần đầu / first published" if one.revision == 1 else f"điều chỉnh / restated, revision {one.revision}"
    )


@app.command("list")
def list_(as_json: Json = False, config: Config = Path("config")) -> None:
    """Những gì đã công bố / what was published, every revision."""

    async def work(archive: Archive) -> int:
        published = await archive.database.read(reports.kept)
        if not published and not as_json:
            typer.echo("chưa công bố kỳ nào / nothing was published yet")
        for one in published:
            if as_json:
                told: dict[str, Any] = {
                    "period": one.period,
                    "revision": one.revision,
                    "published_at": stamp(one.at),
                    "sha256": one.sha256,
                    "leaf": one.leaf,
                }
                typer.echo(json.dumps(told, ensure_ascii=False))
            else:
                typer.echo(f"{one.period}  {one.revision}  {stamp(one.at)}  {one.sha256}  lá / leaf {one.leaf}")
        return 0

    run(config, work)


@app.command()
def daily(
    as_json: Json = False,
    hours: Annotated[int, typer.Option(help="Nhìn lại bao nhiêu giờ / hours to look back", min=1)] = 24,
    config: Config = Path("config"),
) -> None:
    """Thư hằng ngày cho người vận hành, in ra, không gửi / the operator's daily mail, printed and not sent."""
    _, directory, policy = _known(config)
    now = dt.datetime.now(VIETNAM)

    async def work(archive: Archive) -> int:
        letter = await archive.database.read(
            lambda connection: reports.daily(connection, directory, policy, now - dt.timedelta(hours=hours), now)
        )
        if as_json:
            typer.echo(json.dumps(letter.facts, ensure_ascii=False))
        else:
            typer.echo(f"{letter.subject_vi}\n\n{letter.vi}")
        return 0

    run(config, work)


@app.command()
def reminders(month: Month = "", as_json: Json = False, config: Config = Path("config")) -> None:
    """Thư nhắc các cơ quan, in ra, không gửi / the reminders to agencies, printed and not sent."""
    now = dt.datetime.now(VIETNAM)
    period = period_of(month or Period.of(now.date()).before.text, "", "")
    _, directory, _policy = _known(config)

    async def work(archive: Archive) -> int:
        found = await archive.database.read(lambda connection: reports.reminders(connection, directory, period, now))
        for agency, address, letter in found:
            if as_json:
                typer.echo(json.dumps({"to": address, **letter.facts}, ensure_ascii=False))
            else:
                typer.echo(f"{agency.id} <{address}>\n{letter.subject_vi}\n{letter.vi}\n")
        return 0

    run(config, work)


@app.command()
def jobs(as_json: Json = False, config: Config = Path("config")) -> None:
    """Việc theo lịch: đã làm, đang làm, đến hạn / work by the clock: done, under way, due."""
    settings = read_settings(config)
    now = dt.datetime.now(VIETNAM)

    async def work(archive: Archive) -> int:
        known = await archive.database.read(reports.job_rows)
        waiting = await archive.database.read(lambda connection: reports.due(connection, settings, now))
        rows = [
            {
                "job": row.name,
                "slot": row.slot,
                "state": "done" if row.finished_at is not None else "claimed",
                "at": stamp(from_ms(row.finished_at or row.claimed_at)),
                "result": row.result,
            }
            for row in known
            if reports.Slot(row.name, row.slot) not in waiting
        ]
        rows += [{"job": one.name, "slot": one.slot, "state": "due", "at": "", "result": ""} for one in waiting]
        for row in rows:
            if as_json:
                typer.echo(json.dumps(row, ensure_ascii=False))
            else:
                typer.echo("  ".join(str(value) for value in row.values()).rstrip())
        return 0

    run(config, work)


@app.command("run")
def run_due(config: Config = Path("config")) -> None:
    """Làm những việc theo lịch đã đến hạn; cổng tự gọi lệnh này / do what is due; the daemon calls this."""
    settings, directory, policy = _known(config)

    async def work(archive: Archive) -> int:
        await reports.Jobs(archive, settings, directory, policy, logger()).run()
        return 0

    run(config, work)
