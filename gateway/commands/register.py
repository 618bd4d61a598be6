"""`congvan register …`: registers of incoming and outgoing documents, their numbers, exports and imports."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import io
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from gateway import books, durable, edxml, handover, numbers, register, registrar, tables
from gateway import directory as directories
from gateway.archive import Archive
from gateway.commands.archive import EX_NO, Config, Json, dump, run
from gateway.commands.queue import user as account
from gateway.config import Gateway
from gateway.config import read as read_settings
from gateway.directory import Directory
from gateway.errors import ConfigError, Failure, Problem
from gateway.inspection.run import Inspector
from gateway.message import VIETNAM
from gateway.numbers import ARRIVALS, Series, Taken
from gateway.register import NoEntry, Query
from gateway.registrar import Wrong
from gateway.store import Damaged

T = TypeVar("T")

app = typer.Typer(help="Sổ đăng ký văn bản / registers of documents", no_args_is_help=True)

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="Mã dòng sổ / entry id (register list)")]
Agency = Annotated[str, typer.Option("--agency", help="Mã cơ quan / agency id")]
Direction = Annotated[str, typer.Option("--direction", help="in (đến), out (đi)")]
Year = Annotated[int, typer.Option("--year", help="Năm / year")]
Who = Annotated[str, typer.Option("--who", help="Người làm; mặc định tài khoản đang dùng / who does it")]
Reason = Annotated[str, typer.Option("--reason", help="Lý do, được ghi lại / the reason, which is recorded")]
Kind = Annotated[str, typer.Option("--kind", help="Loại văn bản: TB, QĐ, CV … / kind")]


def _user(who: str) -> str:
    return who or account()


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
        except (Taken, Wrong, edxml.Incomplete) as error:
            typer.echo(f"congvan: {error.args[0]}", err=True)
        return EX_NO

    run(config, whole)


async def _store(archive: Archive, fn: Callable[[Any], T]) -> T:
    """Write, and wait while another process holds the database; nothing was written then, so trying again is safe."""
    for _ in range(15):
        try:
            return await archive.database.write(fn)
        except Failure as failure:
            if "SQLITE_BUSY" not in failure.private:
                raise
    return await archive.database.write(fn)


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
            typer.echo(f"  → {link['vi']} {link['said']}  {' '.join(link['entries'])}".rstrip())
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
        done = await _store(
            archive,
            lambda c: registrar.correct(c, key, changes, who=_user(who), reason=reason, settings=settings.registers),
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
        given = await _store(archive, lambda c: registrar.confirm_number(c, key, wanted, who=_user(who), reason=reason))
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
        token = request or secrets.token_hex(16)
        given, code = await _store(
            archive,
            lambda c: registrar.allocate(
                c, series, notation=symbol, fields=fields, who=_user(who), wanted=wanted, request=token
            ),
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
        await _store(archive, lambda c: registrar.reserve(c, series, first, last, who=_user(who), reason=reason))
        typer.echo(f"dành số / reserved {first}–{last}, {series.name}/{series.year}")
        return 0

    act(config, work)


@app.command()
def cancel(
    agency: Agency,
    kind: Kind,
    given: Annotated[int, typer.Argument(metavar="NUMBER", help="Số cần hủy / the number")],
    reason: Reason,
    year: Year = 0,
    who: Who = "",
    config: Config = Path("config"),
) -> None:
    """Hủy một số; số vẫn ở trong sổ là số hủy / cancel a number, which stays in the register as cancelled."""
    _known_agency(config, agency)

    async def work(archive: Archive, settings: Gateway) -> int:
        series = _series(agency, kind, year, settings)
        await _store(archive, lambda c: registrar.cancel(c, series, given, who=_user(who), reason=reason))
        typer.echo(f"số hủy / cancelled: {given}, {series.name}/{series.year}")
        return 0

    act(config, work)


@app.command()
def rebuild(
    check: Annotated[bool, typer.Option("--check", help="Chỉ so, không ghi / compare only")] = False,
    give: Annotated[
        bool, typer.Option("--number", help="Cấp số đến theo thứ tự cho dòng chưa có / number those without one")
    ] = False,
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
            if give:
                await _store(archive, lambda c: registrar.give_numbers(c, settings.registers))
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


FORMATS = ("csv", "xlsx", "json", "pdf", "edxml")


@app.command()
def export(
    agency: Agency,
    direction: Direction,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Tệp, - là đầu ra; thư mục cho edxml / file or folder")
    ],
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}; mặc định theo đuôi tệp")] = "",
    year: Year = 0,
    since: Annotated[str, typer.Option(help="Từ ngày / from")] = "",
    until: Annotated[str, typer.Option(help="Đến hết ngày / to the end of")] = "",
    kind: Kind = "",
    config: Config = Path("config"),
) -> None:
    """Xuất sổ ra tệp; PDF để in, ký, đóng quyển / write a register to a file; the PDF is for signing and binding."""
    form = form or output.suffix.lstrip(".").lower()
    form = {"jsonl": "json", "ndjson": "json", "": "edxml" if output.is_dir() else ""}.get(form, form)
    if form not in FORMATS:
        raise typer.BadParameter(f"--format {form!r}: {', '.join(FORMATS)}")
    way = _way(direction, needed=True)
    year = year or (0 if since or until else _this_year())
    query = _query(agency, way, year, since, until, kind, "", "", 0, "")
    places = directories.load(config / "directory")
    _known_agency(config, agency)

    async def work(archive: Archive, settings: Gateway) -> int:
        found = await archive.database.read(lambda c: register.entries(c, query, settings.registers, places))
        own = places.agency(agency, dt.datetime.now(VIETNAM))
        above = places.agency(own.parent, dt.datetime.now(VIETNAM)) if own is not None and own.parent else None
        title = books.Title(
            own.name if own is not None else agency,
            above.name if above is not None else "",
            way,
            year or (found[0]["year"] if found else _this_year()),
            query.since,
            query.until,
        )
        if form == "edxml":
            return await _edxml_folder(archive, settings, places, found, output)
        data = io.BytesIO()
        if form == "pdf":
            pages = books.pdf_file(found, title, data)
            typer.echo(f"{pages} trang / pages", err=True)
        elif form == "xlsx":
            books.xlsx_file(found, way, title, data)
        else:
            data.write(books.csv_file(found, way) if form == "csv" else books.json_lines(found))
        _write(output, data.getvalue())
        typer.echo(f"{len(found)} dòng / entries", err=True)
        return 0

    act(config, work)


def _write(path: Path, data: bytes) -> None:
    """The whole file at once, or `-` for stdout. Raises ConfigError where it cannot be written."""
    if str(path) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        durable.replace(path, data)
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, error.strerror or "không ghi được / cannot be written")]) from None


async def _edxml_folder(
    archive: Archive, settings: Gateway, places: Directory, found: list[dict[str, Any]], output: Path
) -> int:
    """A file for each entry; what cannot be one is told, and the rest is written."""
    output.mkdir(parents=True, exist_ok=True)
    written, failed = 0, 0
    for one in found:
        if one["origin"] == "number":
            continue
        try:
            data = await archive.database.read(
                lambda c, key=one["id"]: handover.envelope(c, archive.store, settings.registers, places, key)
            )
        except (edxml.Incomplete, Damaged) as error:
            typer.echo(f"congvan: {one['id']}: {error}", err=True)
            failed += 1
            continue
        _write(output / handover.name_of(one, "edxml"), data)
        written += 1
    typer.echo(f"{written} tệp / files", err=True)
    return EX_NO if failed else 0


@app.command("edxml")
def edxml_(
    key: EntryId,
    output: Annotated[Path, typer.Option("-o", "--output", help="Tệp, - là đầu ra / file, - for stdout")],
    files: Annotated[bool, typer.Option("--files/--no-files", help="Kèm tệp của văn bản / with its files")] = True,
    config: Config = Path("config"),
) -> None:
    """Một dòng sổ theo QCVN 102:2016 / one entry as edXML."""
    places = directories.load(config / "directory")

    async def work(archive: Archive, settings: Gateway) -> int:
        data = await archive.database.read(
            lambda c: handover.envelope(c, archive.store, settings.registers, places, key, with_files=files)
        )
        _write(output, data)
        return 0

    act(config, work)


@app.command("check-edxml")
def check_edxml(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Tệp edXML / edXML files")],
) -> None:
    """So tệp edXML với lược đồ; 0 đúng, 1 sai / check edXML files against the schema."""
    wrong = False
    for path in files:
        try:
            found = edxml.problems(path.read_bytes())
        except OSError as error:
            raise ConfigError([Problem(str(path), 0, 0, error.strerror or "cannot be read")]) from None
        for one in found:
            typer.echo(f"{path}:{one}")
        wrong |= bool(found)
    raise typer.Exit(EX_NO if wrong else 0)


@app.command()
def drop(as_json: Json = False, config: Config = Path("config")) -> None:
    """Đặt văn bản đến mới vào thư mục của hệ thống văn bản / put new arrivals into the agencies' folders."""
    places = directories.load(config / "directory")

    async def work(archive: Archive, settings: Gateway) -> int:
        done, failed = await handover.drop(archive.database, archive.store, settings.registers, places)
        for one in failed:
            typer.echo(f"congvan: {one}", err=True)
        dump({"files": done, "failed": len(failed)}) if as_json else typer.echo(f"{done} tệp / files")
        return EX_NO if failed else 0

    act(config, work)


_CODES = ", ".join(f"{code} {words}" for code, words in register.STATUS.items())


@app.command()
def status(
    key: EntryId,
    code: Annotated[
        str, typer.Argument(metavar="CODE", help=", ".join(f"{k} {v}" for k, v in register.STATUS.items()))
    ],
    reason: Reason = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Thông điệp trạng thái edXML / message")] = None,
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Trạng thái xử lý theo Quyết định 28/2018 / status of an incoming document."""
    places = directories.load(config / "directory")

    async def work(archive: Archive, settings: Gateway) -> int:
        await _store(archive, lambda c: registrar.set_status(c, key, code, who=_user(who), reason=reason))
        if output is not None:
            data = await archive.database.read(
                lambda c: handover.status_message(c, settings.registers, places, key, code, _user(who), reason)
            )
            _write(output, data)
        said = register.STATUS[code]
        dump({"id": key, "status": code, "vi": said}) if as_json else typer.echo(f"{key}: {code} {said}")
        return 0

    act(config, work)


@app.command()
def link(
    key: EntryId,
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(register.LINKS))],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Mã dòng sổ hoặc số, ký hiệu / entry or number")],
    remove: Annotated[bool, typer.Option("--remove", help="Bỏ liên kết / take it away")] = False,
    reason: Reason = "",
    who: Who = "",
    config: Config = Path("config"),
) -> None:
    """Liên kết: trả lời, thay thế, đính chính, thu hồi … / link an entry to another."""

    async def work(archive: Archive, settings: Gateway) -> int:
        await _store(
            archive, lambda c: registrar.link(c, key, kind, target, who=_user(who), reason=reason, remove=remove)
        )
        typer.echo(f"{key}: {'bỏ / removed ' if remove else ''}{register.LINKS[kind]} {target}")
        return 0

    act(config, work)


@app.command()
def compare(
    key: Annotated[str, typer.Argument(metavar="ENTRY", help="Mã dòng sổ; - khi chưa biết / - if not known")],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Bản cần đối chiếu / the copy")] = None,
    result: Annotated[str, typer.Option(help="match, differ: người so bằng mắt / compared by eye")] = "",
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Đối chiếu một bản với bản trong kho, ghi vào sổ; 0 khớp, 1 khác / compare a copy with the archived document."""
    if (file is None) == (not result) or result not in ("", "match", "differ"):
        raise typer.BadParameter("một tệp, hoặc --result match|differ / a file, or --result")
    digest = ""
    if file is not None:
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError([Problem(str(file), 0, 0, error.strerror or "cannot be read")]) from None

    async def work(archive: Archive, settings: Gateway) -> int:
        if key == "-":
            found = await archive.database.read(lambda c: registrar.with_file(c, digest))
            dump({"sha256": digest, "entries": found}) if as_json else typer.echo(
                "\n".join(found) or "không có trong sổ nào / in no register"
            )
            return 0 if found else EX_NO
        said = result or await archive.database.read(lambda c: registrar.compare_file(c, key, digest))
        await _store(archive, lambda c: registrar.compared(c, key, said, who=_user(who), reason=reason, sha256=digest))
        words = "khớp / matches" if said == "match" else "KHÁC / differs"
        dump({"id": key, "result": said, "sha256": digest}) if as_json else typer.echo(f"{key}: {words}")
        return 0 if said == "match" else EX_NO

    act(config, work)


@app.command("series")
def series_(
    agency: Agency = "",
    year: Year = 0,
    kind: Kind = "",
    begin: Annotated[
        int, typer.Option("--start", help="Số đầu tiên của dãy bắt đầu ở nơi khác / first number here")
    ] = 0,
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Các dãy số: số tiếp theo, đã hủy, dành trước, khoảng trống / number series and their gaps."""
    if begin:
        if not agency or not kind:
            raise typer.BadParameter("--start cần / needs --agency, --kind")
        _known_agency(config, agency)

    async def work(archive: Archive, settings: Gateway) -> int:
        if begin:
            which = _series(agency, kind, year, settings)
            await _store(archive, lambda c: registrar.start(c, which, begin, who=_user(who), reason=reason))
        found = await archive.database.read(lambda c: registrar.state_of_series(c, agency, year))
        for one in found:
            if as_json:
                dump(one)
                continue
            gaps = ", ".join(f"{a}–{b}" if a != b else str(a) for a, b in one["gaps"])
            typer.echo(
                f"{one['agency']}  {one['series']}/{one['year']}  tiếp theo / next {one['next']}"
                f"  cấp / used {one['used']}  hủy / cancelled {one['cancelled']}  dành / reserved {one['reserved']}"
                + (f"  CÒN TRỐNG / not given yet: {gaps}" if gaps else "")
            )
        return 0

    act(config, work)


@app.command()
def add(
    agency: Agency,
    direction: Direction,
    values: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE…", help='document_code=12/X-Y abstract="…"')],
    paper: Annotated[bool, typer.Option("--paper", help="Văn bản giấy / a paper document")] = True,
    scan: Annotated[Path | None, typer.Option("--scan", help="Bản quét PDF hoặc ảnh / scan")] = None,
    wanted: Annotated[int | None, typer.Option("--number", help="Số đến, hoặc số dành trước / number")] = None,
    notation: Annotated[str, typer.Option(help="Văn bản đi chưa có số: ký hiệu, ví dụ TB-SNV / symbol")] = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Vào sổ một văn bản giấy, cùng dãy số với văn bản điện tử / register a paper document in the same series."""
    way = _way(direction, needed=True)
    _known_agency(config, agency)
    fields = _assignments(values)
    data = b""
    if scan is not None:
        try:
            data = scan.read_bytes()
        except OSError as error:
            raise ConfigError([Problem(str(scan), 0, 0, error.strerror or "cannot be read")]) from None

    async def work(archive: Archive, settings: Gateway) -> int:
        if notation and settings.registers.of(agency).outgoing != "allocate":
            raise Wrong(f"{agency}: số văn bản đi do hệ thống khác cấp (propose) / another system gives its numbers")
        digest = await _scanned(archive, settings, config, scan, data) if scan is not None else ""
        key = await _store(
            archive,
            lambda c: registrar.add_paper(
                c,
                agency,
                way,
                fields,
                who=_user(who),
                settings=settings.registers,
                number=wanted,
                notation=notation,
                scan=digest,
            ),
        )
        one = await archive.database.read(lambda c: register.entry(c, key, settings.registers))
        dump(one) if as_json else _print(one)
        return 0

    act(config, work)


async def _scanned(archive: Archive, settings: Gateway, config: Path, scan: Path, data: bytes) -> str:
    """A scan, read by the inspection like any file that comes by mail, and then in the store. Raises Wrong for what is
    no document, and for a mark of secrecy: secrets are not kept here."""
    inspector = Inspector(
        {
            "budget": settings.budget.model_dump(mode="json"),
            "trust": str((config / "trust").resolve()),
            "clamd": None,
        },
        workers=1,
        seconds=max(settings.budget.seconds, 60),
        log=structlog.get_logger(),
    )
    serving = asyncio.create_task(inspector.run())
    try:
        facts = await inspector.file(data, scan.name)
    finally:
        await inspector.stop()
        serving.cancel()
    kind = facts.files[0].type if facts.files else "unknown"
    if kind not in ("pdf", "jpg", "png", "tiff"):
        raise Wrong(f"{scan}: {kind}; bản quét là PDF, JPG, PNG hoặc TIFF / a scan is one of these")
    if any(one.kind == "secrecy" and one.value != "declassified" for one in facts.findings):
        raise Wrong(f"{scan}: có dấu độ mật, không lưu và không vào sổ này / a secrecy mark: not kept, not registered")
    if any(one.check in ("text", "ocr", "secrecy") for one in facts.failed):
        raise Wrong(f"{scan}: chưa kiểm tra được dấu độ mật / could not be checked for secrecy: thử lại / try again")
    digest = hashlib.sha256(data).hexdigest()
    await asyncio.to_thread(archive.store.put, (data,), digest)
    return digest


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
            fresh, same = await _store(archive, lambda c: tables.store_paper(c, rows, _user(who)))
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
