"""`congvan register …`: registers of incoming and outgoing documents, their numbers, exports and imports."""

from __future__ import annotations

import datetime as dt
import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import directory as directories
from gateway import numbers, register, registrar, tables
from gateway.archive import Archive
from gateway.commands.archive import EX_NO, Config, Json, dump, run
from gateway.config import Gateway
from gateway.config import read as read_settings
from gateway.directory import Directory
from gateway.errors import ConfigError, Problem
from gateway.message import VIETNAM
from gateway.numbers import ARRIVALS, Series, Taken
from gateway.register import NoEntry, Query
from gateway.registrar import Wrong

app = typer.Typer(help="Sổ đăng ký văn bản / registers of documents", no_args_is_help=True)

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="Mã dòng sổ / entry id (register list)")]
Agency = Annotated[str, typer.Option("--agency", help="Mã cơ quan / agency id")]
Direction = Annotated[str, typer.Option("--direction", help="in (đến), out (đi)")]
Year = Annotated[int, typer.Option("--year", help="Năm / year")]
Who = Annotated[str, typer.Option("--who", help="Người làm; mặc định tài khoản đang dùng / who does it")]
Reason = Annotated[str, typer.Option("--reason", help="Lý do, được ghi lại / the reason, which is recorded")]
Kind = Annotated[str, typer.Option("--kind", help="Loại văn bản: TB, QĐ, CV … / kind")]


def _user(who: str) -> str:
    return who or getpass.getuser()


def _this_year() -> int:
    return dt.datetime.now(VIETNAM).year


def _directory(config: Path) -> Directory | None:
    """The directory, for names and levels; a register can be read without one."""
    try:
        return directories.load(config / "directory")
    except ConfigError:
        return None


def _known_agency(config: Path, agency: str) -> None:
    """Raises ConfigError for an agency that is not in the directory: numbers must not be given to a slip of the pen."""
    known = [one.id for one in directories.load(config / "directory").agencies()]
    if agency not in known:
        import difflib

        near = difflib.get_close_matches(agency, known, 1)
        hint = f"; có phải / did you mean {near[0]!r}?" if near else f"; có / there are: {', '.join(known[:20])}"
        raise ConfigError([Problem("--agency", 0, 0, f"không có cơ quan / no agency {agency!r}{hint}")])


def _way(direction: str, needed: bool = False) -> str:
    found = {"": "", "in": "in", "đến": "in", "den": "in", "out": "out", "đi": "out", "di": "out"}.get(direction)
    if found is None or (needed and not found):
        raise typer.BadParameter(f"--direction {direction!r}: in (đến) hoặc / or out (đi)")
    return found


def act(config: Path, work: Callable[[Archive, Gateway], Any]) -> None:
    """Run `work`; what the register refuses is one line and exit code 1."""
    settings = read_settings(config)

    async def whole(archive: Archive) -> int:
        try:
            return int(await work(archive, settings) or 0)
        except NoEntry as error:
            typer.echo(f"congvan: không có dòng sổ {error.args[0]} / no such entry", err=True)
        except (Taken, Wrong) as error:
            typer.echo(f"congvan: {error.args[0]}", err=True)
        return EX_NO

    run(config, whole)


def _query(
    agency: str,
    direction: str,
    year: int,
    since: str,
    until: str,
    kind: str,
    code: str,
    text: str,
    number: int,
    flag: str,
) -> Query:
    try:
        days = [registrar.iso_date(one, name) if one else "" for one, name in ((since, "--since"), (until, "--until"))]
    except Wrong as error:
        raise typer.BadParameter(error.args[0]) from None
    known = {**register.FLAGS, "unnumbered": "", "compared": ""}
    if flag and flag not in known:
        raise typer.BadParameter(f"--flag {flag!r}: {', '.join(known)}")
    return Query(agency, _way(direction), year, days[0], days[1], kind, code, text, number, flag)


@app.command("list")
def list_(
    text: Annotated[list[str] | None, typer.Argument(help="Từ trong sổ, có dấu hay không / words")] = None,
    agency: Agency = "",
    direction: Direction = "",
    year: Year = 0,
    since: Annotated[str, typer.Option(help="Từ ngày / from (2026-11-20, 20/11/2026)")] = "",
    until: Annotated[str, typer.Option(help="Đến hết ngày / to the end of")] = "",
    kind: Kind = "",
    code: Annotated[str, typer.Option(help="Số, ký hiệu hoặc phần đầu / number or its beginning")] = "",
    number: Annotated[int, typer.Option(help="Số đến hoặc số đi / number")] = 0,
    flag: Annotated[str, typer.Option(help=f"{', '.join(register.FLAGS)}, unnumbered, compared")] = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Các dòng của sổ / entries of registers."""
    query = _query(agency, direction, year, since, until, kind, code, " ".join(text or ()), number, flag)
    places = _directory(config)

    async def work(archive: Archive, settings: Gateway) -> int:
        found = await archive.database.read(lambda c: register.entries(c, query, settings.registers, places))
        for one in found:
            dump(one) if as_json else _print(one)
        if not found and not as_json:
            typer.echo("không có dòng nào / no entries")
        return 0 if found else EX_NO

    act(config, work)


def _print(one: dict[str, Any]) -> None:
    way = "đến" if one["direction"] == "in" else "đi "
    number = f"{one['number']:>5}" if one["number"] is not None else "    –"
    flags = "".join(f"  [{register.FLAGS[name]}]" for name in one["flags"])
    compared = (
        "  ✓ đã đối chiếu" if one["compared"] == "match" else "  ✗ đối chiếu thấy khác" if one["compared"] else ""
    )
    typer.echo(f"{one['id']:<10}  {one['agency']}  {way} {one['year']} {number}  {one['day']}  {one['document_code']}")
    if one["origin"] == "number":
        flags = f"  [{one['description']}]"
    author = f" ({one['issuing_agency']})" if one["direction"] == "in" and one["issuing_agency"] else ""
    typer.echo(f"    {one['type_name']}: {one['abstract']}{author}{flags}{compared}".replace("    : ", "    "))


@app.command()
def show(key: EntryId, as_json: Json = False, config: Config = Path("config")) -> None:
    """Một dòng sổ: trường, nguồn, liên kết, lịch sử / one entry: fields, sources, links, history."""
    places = _directory(config)

    async def work(archive: Archive, settings: Gateway) -> int:
        one = await archive.database.read(lambda c: register.entry(c, key, settings.registers, places))
        if as_json:
            dump(one)
            return 0
        way = "văn bản đến" if one["direction"] == "in" else "văn bản đi"
        typer.echo(f"{one['id']}  Sổ {way} {one['year']} của {one['agency']}")
        for column in register.columns_of(one["direction"]):
            if (found := one["fields"].get(column.name)) and found["value"]:
                sure = f"{found['source']}, {found['confidence']:.0%}"
                typer.echo(f"  {column.vi:<28} {found['value']}  ({column.name}: {sure})")
        if one["status"]:
            typer.echo(f"  {'Trạng thái':<28} {one['status']} {register.STATUS.get(one['status'], '')}")
        for flag in one["flags"]:
            typer.echo(f"  ! {register.FLAGS[flag]}")
        for link in one["links"]:
            typer.echo(f"  → {link['vi']} {link['target']}  {' '.join(link['entries'])}")
        for file in one["files"]:
            typer.echo(f"  {'*' if file['main'] else ' '} {file['path']}  {file['sha256'][:16]}…")
        for case in one["cases"]:
            typer.echo(f"  thư / case {case}")
        for change in one["history"]:
            words = f"{change['field']}: {change['old'] or '–'} → {change['new'] or '–'}"
            typer.echo(f"  {change['at'][:19]} {change['who']}: {words}  {change['reason']}".rstrip())
        return 0

    act(config, work)


@app.command()
def correct(
    key: EntryId,
    values: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE…", help='abstract="Về việc …"')],
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Sửa trường; giá trị cũ, người sửa và thời gian được giữ / correct fields, the old values are kept."""
    changes = _assignments(values)

    async def work(archive: Archive, settings: Gateway) -> int:
        done = await archive.database.write(
            lambda c: registrar.correct(c, key, changes, who=_user(who), reason=reason, settings=settings.registers)
        )
        if as_json:
            dump({"id": key, "corrected": done})
        else:
            typer.echo(f"{key}: đã sửa / corrected: {', '.join(done) or 'không có gì khác / nothing differs'}")
        return 0

    act(config, work)


def _assignments(values: list[str]) -> dict[str, str]:
    found = {}
    for one in values:
        name, equals, value = one.partition("=")
        if not equals:
            raise typer.BadParameter(f'{one!r}: viết TRƯỜNG=GIÁ TRỊ / write FIELD=VALUE, abstract="…"')
        found[name.strip()] = value
    return found


@app.command()
def number(
    key: EntryId,
    wanted: Annotated[
        int | None, typer.Argument(metavar="[NUMBER]", help="mặc định số tiếp theo / the next one")
    ] = None,
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Vào sổ: xác nhận số đến / confirm the arrival number of an entry."""

    async def work(archive: Archive, settings: Gateway) -> int:
        given = await archive.database.write(
            lambda c: registrar.confirm_number(c, key, wanted, who=_user(who), reason=reason)
        )
        dump({"id": key, "number": given}) if as_json else typer.echo(f"{key}: số đến / arrival number {given}")
        return 0

    act(config, work)


def _series(agency: str, kind: str, year: int, settings: Gateway) -> Series:
    name = ARRIVALS if kind in ("in", "đến") else register.series_of(kind, agency, settings.registers)
    return Series(agency, year or _this_year(), name)


def _notation(agency: str, kind: str, notation: str, settings: Gateway, config: Path) -> str:
    """`TB-SNV`: what stands behind the number. Raises Wrong."""
    if notation:
        if "/" in notation and not notation[:4].isdecimal():
            raise Wrong(f"--notation {notation!r}: phần sau số, ví dụ TB-SNV / what follows the number, such as TB-SNV")
        return notation.replace("{", "").replace("}", "")
    symbol = settings.registers.of(agency).symbol
    if not symbol:
        found = directories.load(config / "directory").agency(agency, dt.datetime.now(VIETNAM))
        short = found.short_name if found is not None else ""
        symbol = short if short and " " not in short else ""
    if not symbol or kind in ("CV", ""):
        cure = "--notation SNV-VP" if kind in ("CV", "") else "--notation hoặc / or registers.agencies.….symbol"
        raise Wrong(f"chưa biết ký hiệu / the symbol is not known: {cure}")
    return f"{kind}-{symbol}"


@app.command()
def propose(
    agency: Agency,
    kind: Kind = "in",
    year: Year = 0,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Số tiếp theo của một dãy, không cấp / the next number of a series, without giving it."""
    _known_agency(config, agency)

    async def work(archive: Archive, settings: Gateway) -> int:
        series = _series(agency, kind, year, settings)
        given = await archive.database.read(lambda c: numbers.preview(c, series))
        value = {"agency": agency, "year": series.year, "series": series.name, "number": given}
        dump(value) if as_json else typer.echo(str(given))
        return 0

    act(config, work)


@app.command()
def allocate(
    agency: Agency,
    kind: Kind,
    year: Year = 0,
    notation: Annotated[str, typer.Option(help="Ký hiệu sau số, ví dụ TB-SNV / symbol")] = "",
    abstract: Annotated[str, typer.Option(help="Trích yếu / abstract")] = "",
    signer: Annotated[str, typer.Option(help="Người ký / signer")] = "",
    recipients: Annotated[str, typer.Option(help="Nơi nhận / recipients")] = "",
    wanted: Annotated[
        int | None, typer.Option("--number", help="Số trong khoảng dành trước / a reserved number")
    ] = None,
    request: Annotated[
        str, typer.Option(help="Mã yêu cầu: hỏi lại nhận đúng số cũ / asked again, the same number")
    ] = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Cấp số cho văn bản đi / give a number to a document that is to be issued."""
    _known_agency(config, agency)

    async def work(archive: Archive, settings: Gateway) -> int:
        series = _series(agency, kind, year, settings)
        if settings.registers.of(agency).outgoing != "allocate":
            raise Wrong(
                f"{agency}: số văn bản đi do hệ thống khác cấp (propose) / another system gives its numbers; "
                f"để cổng cấp / to let the gateway: gateway.yaml, registers.agencies.{agency}.outgoing: allocate"
            )
        symbol = _notation(agency, kind, notation, settings, config)
        fields = {"document_kind": kind, "abstract": abstract, "signer_name": signer, "recipients": recipients}
        given, code = await archive.database.write(
            lambda c: registrar.allocate(
                c, series, notation=symbol, fields=fields, who=_user(who), wanted=wanted, request=request
            )
        )
        value = {"agency": agency, "year": series.year, "series": series.name, "number": given, "code": code}
        dump(value) if as_json else typer.echo(code)
        return 0

    act(config, work)


@app.command()
def reserve(
    agency: Agency,
    kind: Kind,
    first: Annotated[int, typer.Option("--from", help="Số đầu / first")],
    last: Annotated[int, typer.Option("--to", help="Số cuối / last")],
    reason: Reason = "",
    year: Year = 0,
    who: Who = "",
    config: Config = Path("config"),
) -> None:
    """Dành một khoảng số, ví dụ cho văn bản giấy / keep a range of numbers."""
    _known_agency(config, agency)

    async def work(archive: Archive, settings: Gateway) -> int:
        series = _series(agency, kind, year, settings)
        await archive.database.write(lambda c: registrar.reserve(c, series, first, last, who=_user(who), reason=reason))
        typer.echo(f"dành số / reserved {first}–{last}, {series.name}/{series.year}")
        return 0

    act(config, work)


@app.command()
def cancel(
    agency: Agency,
    kind: Kind,
    given: Annotated[int, typer.Argument(metavar="NUMBER")],
    reason: Reason,
    year: Year = 0,
    who: Who = "",
    config: Config = Path("config"),
) -> None:
    """Hủy một số; số vẫn ở trong sổ là số hủy / cancel a number, which stays in the register as cancelled."""
    _known_agency(config, agency)

    async def work(archive: Archive, settings: Gateway) -> int:
        series = _series(agency, kind, year, settings)
        await archive.database.write(lambda c: registrar.cancel(c, series, given, who=_user(who), reason=reason))
        typer.echo(f"số hủy / cancelled: {given}, {series.name}/{series.year}")
        return 0

    act(config, work)


@app.command()
def rebuild(
    check: Annotated[bool, typer.Option("--check", help="Chỉ so, không ghi / compare only")] = False,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Lập lại sổ từ kho lưu trữ; lập lại lần nữa cho đúng nội dung ấy / make registers again from the archive."""

    async def work(archive: Archive, settings: Gateway) -> int:
        before = await archive.database.read(registrar.digest)
        wrong: list[tuple[str, str]] = []
        if check:
            wrong = await archive.database.read(lambda c: registrar.check(c, settings.registers))
        else:
            await registrar.rebuild(archive.database, settings.registers)
        after = await archive.database.read(registrar.digest)
        same = not wrong and before == after
        if as_json:
            dump({"entries": after[0], "digest": after[1], "same": same, "wrong": [list(one) for one in wrong]})
        else:
            for key, what in wrong:
                typer.echo(f"{key}: {what}")
            typer.echo(
                f"{after[0]} dòng / entries, {after[1][:16]}…, {'không đổi / same' if same else 'khác / differs'}"
            )
        return EX_NO if wrong else 0

    act(config, work)


KINDS_OF_TABLES = ("paper-counts", *tables.TABLES)


@app.command("import")
def import_(
    what: Annotated[str, typer.Argument(metavar="TABLE", help=", ".join(KINDS_OF_TABLES))],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Bỏ các dòng đã nhập trước / drop what was imported before")
    ] = False,
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Nhập số văn bản giấy, cuộc họp, lịch đăng, ngày nghỉ; sai một dòng thì không nhập gì / import tables from CSV."""
    if what not in KINDS_OF_TABLES:
        raise typer.BadParameter(f"{what!r}: {', '.join(KINDS_OF_TABLES)}")
    places = directories.load(config / "directory")
    if what == "paper-counts":
        rows = tables.paper_rows(file, places)

        async def work(archive: Archive, settings: Gateway) -> int:
            fresh, same = await archive.database.write(lambda c: tables.store_paper(c, rows, _user(who)))
            if as_json:
                dump({"rows": len(rows), "stored": fresh, "unchanged": same})
            else:
                typer.echo(f"{len(rows)} dòng / rows: {fresh} ghi / stored, {same} không đổi / unchanged")
            return 0

        act(config, work)
        return
    number, target = tables.bring(file, tables.TABLES[what], config / "directory", places, replace=replace)
    if as_json:
        dump({"rows": number, "file": str(target)})
    else:
        typer.echo(f"{number} dòng / rows → {target}; nạp lại cổng để dùng / reload the gateway to use it (SIGHUP)")
