"""`congvan stats`: figures of a month, half-year or year; what is behind each number; proof from the archive."""

from __future__ import annotations

import csv
import datetime as dt
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import directory as directories
from gateway import stats as figures
from gateway.archive import Archive, stamp
from gateway.commands.archive import EX_NO, Config, Json, run
from gateway.directory import Directory
from gateway.message import VIETNAM
from gateway.stats import Book, Period

app = typer.Typer(help="Số liệu / figures", invoke_without_command=True)

Month = Annotated[str, typer.Option(help="Tháng, ví dụ 2026-11; mặc định tháng này / month")]
Half = Annotated[str, typer.Option(help="Nửa năm, ví dụ 2026-H1 / half-year")]
Year = Annotated[str, typer.Option(help="Năm, ví dụ 2026 / year")]
Rollup = Annotated[
    bool, typer.Option("--rollup", help="Gồm cơ quan cấp dưới và cơ quan đã sáp nhập / with agencies below and before")
]


def period_of(month: str, half: str, year: str) -> Period:
    """The one period that was asked for; this month when none was."""
    asked = [(name, text) for name, text in (("month", month), ("half", half), ("year", year)) if text]
    if len(asked) > 1:
        raise typer.BadParameter("chỉ một trong --month, --half, --year / only one of --month, --half, --year")
    name, text = asked[0] if asked else ("month", f"{dt.datetime.now(VIETNAM):%Y-%m}")
    try:
        period = Period.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if period.kind != name:
        example = {"month": "2026-11", "half": "2026-H1", "year": "2026"}[name]
        raise typer.BadParameter(f"--{name} {text!r}: dạng {example} / such as {example}")
    return period


def directory_of(config: Path) -> Directory | None:
    """The agencies of this configuration; None when it has none. Raises ConfigError for bad ones."""
    return directories.load(config / "directory") if (config / "directory").is_dir() else None


def known_agency(directory: Directory | None, agency: str | None) -> None:
    if agency and directory is not None and agency not in {one.id for one in directory.agencies()}:
        raise typer.BadParameter(f"không có cơ quan {agency!r} trong danh bạ / no such agency in the directory")


@app.callback()
def stats(
    context: typer.Context,
    month: Month = "",
    half: Half = "",
    year: Year = "",
    agency: Annotated[str | None, typer.Option(help="Một cơ quan / one agency")] = None,
    level: Annotated[str | None, typer.Option(help="Một cấp / one level: province, department, district …")] = None,
    by: Annotated[str, typer.Option(help=f"Theo / by: {', '.join(figures.DIMENSIONS)}")] = "agency",
    rollup: Rollup = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Dạng CSV / as CSV")] = False,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Số liệu một kỳ theo cơ quan / figures of a period by agency; the same message counts once."""
    if context.invoked_subcommand:
        return
    period = period_of(month, half, year)
    wanted = tuple("message_class" if one == "class" else one for one in by.replace(",", " ").split())
    if not wanted or set(wanted) - set(figures.DIMENSIONS) or len(set(wanted)) < len(wanted):
        raise typer.BadParameter(f"--by {by!r}: {', '.join(figures.DIMENSIONS)}")
    if level and level not in LEVELS:
        raise typer.BadParameter(f"--level {level!r}: {', '.join(LEVELS)}")
    directory = directory_of(config)
    known_agency(directory, agency)

    async def work(archive: Archive) -> int:
        book = await archive.database.read(lambda connection: Book(connection, period, directory))
        rows = book.rows(wanted, rollup=rollup, agency=agency, level=level)
        if not (rollup or agency or level):  # agencies without mail and without paper are no news
            rows = [row for row in rows if not row.silent]
        if as_json:
            for row in rows:
                typer.echo(json.dumps(row.values(), ensure_ascii=False))
        elif as_csv:
            _csv(rows)
        else:
            _table(book, rows, wanted)
        return 0

    run(config, work)


LEVELS = ("central", "ministry", "province", "department", "district", "commune", "unit")


@app.command()
def explain(
    figure: Annotated[str, typer.Argument(metavar="FIGURE", help="documents_sent, e_any_ratio, returned …")],
    month: Month = "",
    half: Half = "",
    year: Year = "",
    agency: Annotated[str | None, typer.Option(help="Một cơ quan; mặc định tất cả / one agency; default all")] = None,
    rollup: Rollup = False,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Một con số là gì, theo chính sách nào, gồm những thư nào / what a number is, its policies and its cases."""
    known = [*(one.key for one in figures.FIGURES), *figures.RATIO, *figures.OTHERS]
    if figure not in known:
        raise typer.BadParameter(f"không có số liệu {figure!r} / no such figure; {', '.join(known)}")
    period = period_of(month, half, year)
    directory = directory_of(config)
    known_agency(directory, agency)

    async def work(archive: Archive) -> int:
        def ask(connection: Any) -> tuple[dict[str, Any], list[figures.Behind]]:
            book = Book(connection, period, directory)
            row = next(iter(book.rows(rollup=rollup, agency=agency)), None) if agency is not None else book.total()
            row = row or figures.Row(period.text, {"agency": agency or "*"})
            members = sorted(row.members) or [agency or ""]
            cases: list[figures.Behind] = []
            if figure not in figures.OTHERS:
                cases = list(figures.behind(connection, period, figure, None if agency is None else members))
            return {**figures.told(row, figure), "policies": book.policies, "agencies": members}, cases

        about, cases = await archive.database.read(ask)
        if as_json:
            typer.echo(json.dumps(about, ensure_ascii=False))
            for one in cases:
                told = {"case": one.case, "at": stamp(one.at), "agency": one.agency, "part": one.part}
                typer.echo(json.dumps(told, ensure_ascii=False))
            return 0
        typer.echo(f"{about['vi']} / {about['en']}  [{figure}]")
        typer.echo(f"kỳ / period: {period.text}, {period.vi} (giờ Việt Nam)")
        agencies = about["agencies"]
        shown = ", ".join(one or "(ngoài danh bạ)" for one in agencies[:8])
        more = f" … ({len(agencies)})" if len(agencies) > 8 else ""
        typer.echo(f"cơ quan / agencies: {'tất cả / all' if agency is None else shown + more}")
        typer.echo(f"con số / number: {about['shown']}")
        for way, number in about.get("paper", {}).items():
            told = "chưa có số liệu / not told" if number is None else number
            typer.echo(f"văn bản giấy / on paper ({way}): {told}")
        typer.echo(f"định nghĩa / definition: {about['definition']}")
        for digest in about["policies"]:
            typer.echo(f"chính sách / policy: {digest}")
        for one in cases:
            part = "" if one.part == "count" else f"  {one.part}"
            typer.echo(f"{one.case or '-'}  {stamp(one.at)}  {one.agency or '(ngoài danh bạ)'}{part}")
        return 0

    run(config, work)


@app.command()
def recompute(
    month: Month = "",
    half: Half = "",
    year: Year = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Tính lại từ kho lưu trữ và so với số đã ghi, đã công bố / compute anew from the archive and compare."""
    from gateway import reports

    period = period_of(month, half, year)
    directory = directory_of(config)

    async def work(archive: Archive) -> int:
        proof = await archive.database.read(
            lambda connection: reports.recompute(connection, period, directory, archive.folder)
        )
        for one in proof.differences:
            if as_json:
                told = {"kind": one.kind, "case": one.case, "detail": one.detail}
                typer.echo(json.dumps(told, ensure_ascii=False))
            else:
                typer.echo(f"{one.kind}: {one.case + ': ' if one.case else ''}{one.detail}")
        summary = {
            "period": period.text,
            "ok": not proof.differences,
            "messages": proof.messages,
            "events": proof.events,
            "unproved": proof.unproved,
            "differences": len(proof.differences),
        }
        if as_json:
            typer.echo(json.dumps(summary, ensure_ascii=False))
        else:
            verdict = (
                "khớp / as it was" if not proof.differences else f"{len(proof.differences)} khác biệt / differences"
            )
            typer.echo(
                f"{period.text}: {proof.messages} thư / messages, {proof.events} sự kiện / events "
                f"({proof.unproved} không có thư để đối chiếu / without a message): {verdict}"
            )
        return EX_NO if proof.differences else 0

    run(config, work)


def _csv(rows: list[figures.Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    if not rows:
        rows_values: list[dict[str, Any]] = []
        keys = list(figures.Row("", {"agency": ""}).values())
    else:
        rows_values = [row.values() for row in rows]
        keys = list(rows_values[0])
    writer.writerow(keys)
    for values in rows_values:
        for name in ("returned_by", "observed_by"):
            values[name] = " ".join(f"{rule}:{number}" for rule, number in values[name].items())
        values["missing"] = "; ".join(f"{name}: {why}" for name, why in values["missing"].items())
        writer.writerow(["" if values[name] is None else values[name] for name in keys])


def _table(book: Book, rows: list[figures.Row], by: tuple[str, ...]) -> None:
    """For the eye: each line of the table by itself, figures that are zero left out, so that it fits a terminal."""
    typer.echo(f"{book.period.vi} / {book.period.en} (giờ Việt Nam)")
    if not rows:
        typer.echo("không có số liệu / no figures")
        return
    total = [book.total()] if len(rows) > 1 and by == ("agency",) else []
    for row in [*rows, *total]:
        names = [{"": "(ngoài danh bạ)", "*": "CỘNG"}.get(one, one) for one in row.group.values()]
        known = book.agencies.get(row.agency)
        typer.echo(f"\n{' · '.join(names)}" + (f"  {known.name}" if known is not None else ""))
        told = [f"{one.vi} {row.figures[one.key]}" for one in figures.FIGURES if row.figures[one.key]]
        issued = row.figures.get("issued_mailboxes")
        told += [f"Hộp thư đã cấp {issued}"] if issued else []
        for start in range(0, len(told), 5):
            typer.echo("  " + " · ".join(told[start : start + 5]))
        for key in ("e_any_ratio", "e_full_ratio"):
            if key in row.shares:
                typer.echo(f"  {figures.RATIO[key].vi}: {figures.shown_share(row.shares[key])}")
        for rule_kind, words in (
            (row.returned_by, "bị trả lại theo / returned by"),
            (row.observed_by, "theo dõi / observed"),
        ):
            if rule_kind:
                typer.echo(f"  {words}: " + ", ".join(f"{rule} {number}" for rule, number in sorted(rule_kind.items())))
