"""`congvan directory`: the published list of official mailboxes, and what is wrong with it."""

from __future__ import annotations

import csv
import datetime as dt
import html
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import config, directory
from gateway.errors import ConfigError
from gateway.message import VIETNAM

app = typer.Typer(help="Danh bạ cơ quan, hộp thư / agencies and mailboxes", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="Thư mục cấu hình / configuration folder")]
Json = Annotated[bool, typer.Option("--json", help="Mỗi dòng một đối tượng JSON / one JSON object a line")]
OneAgency = Annotated[str, typer.Option("--agency", help="Mã cơ quan / agency id")]
At = Annotated[str | None, typer.Option(help="Ngày, ví dụ 2026-11-22; mặc định hôm nay / as of a day")]


def _day(text: str | None) -> dt.date:
    try:
        return dt.date.fromisoformat(text) if text else dt.datetime.now(VIETNAM).date()
    except ValueError:
        raise typer.BadParameter(f"{text!r}: ngày dạng 2026-11-22 / a date such as 2026-11-22") from None


@app.command("list")
def list_(folder: Config = Path("config"), at: At = None, agency: OneAgency = "", as_json: Json = False) -> None:
    """Cơ quan và hộp thư của một ngày / agencies and mailboxes as of a day."""
    day, known = _day(at), directory.load(folder / "directory")
    for one in known.agencies(day):
        if agency and one.id != agency:
            continue
        boxes = [box for box in known.mailboxes(one.id) if box.issued(day)]
        if as_json:
            row = {
                "agency": one.id,
                "name": one.name,
                "level": one.level,
                "parent": one.parent,
                "organ_id": one.organ_id,
                "profile": known.profile_of(one, day),
                "certificate_issued_on": str(one.certificate.issued_on) if one.certificate else "",
                "domains": one.domains,
                "mailboxes": [{"address": b.address, "kind": b.kind, "published": b.published} for b in boxes],
            }
            typer.echo(json.dumps(row, ensure_ascii=False))
        else:
            typer.echo(f"{one.id}  {one.name}  [{one.level}]  {known.profile_of(one, day) or '(mặc định)'}")
            for box in boxes:
                typer.echo(f"  {box.address}  {box.kind}{'' if box.published else '  (không công khai)'}")


def published(known: directory.Directory, day: dt.date) -> Iterator[dict[str, str]]:
    """The rows of the public list (MB-08): agency mailboxes, and personal ones only where their rows say so."""
    for one in known.agencies(day):
        for box in known.mailboxes(one.id):
            if box.published and box.issued(day):
                yield {
                    "agency": one.name,
                    "organ_id": one.organ_id,
                    "level": one.level,
                    "address": box.address,
                    "kind": box.kind,
                    "holder": box.holder,
                    "phone": one.clerk.phone if one.clerk and box.kind != "PERSONAL" else "",
                }


_HEADINGS = {
    "agency": "Cơ quan, đơn vị",
    "organ_id": "Mã định danh",
    "level": "Cấp",
    "address": "Địa chỉ thư điện tử",
    "kind": "Loại",
    "holder": "Người quản lý",
    "phone": "Điện thoại",
}


@app.command("export")
def export(
    folder: Config = Path("config"),
    at: At = None,
    form: Annotated[str, typer.Option("--format", help="csv | json | html")] = "csv",
) -> None:
    """Danh mục địa chỉ công khai cho cổng thông tin / the published list for the portal."""
    day, known = _day(at), directory.load(folder / "directory")
    rows = list(published(known, day))
    if form == "json":
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    elif form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(_HEADINGS), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
        typer.echo(text.getvalue(), nl=False)
    elif form == "html":
        typer.echo(_page(rows, day))
    else:
        raise typer.BadParameter("--format: csv, json, html")


def _inert(value: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value


def _page(rows: list[dict[str, str]], day: dt.date) -> str:
    cells = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    heads = "".join(f"<th scope='col'>{name}</th>" for name in _HEADINGS.values())
    title = f"Danh mục địa chỉ thư điện tử công vụ, ngày {day:%d/%m/%Y}"
    return (
        f"<!doctype html>\n<html lang='vi'>\n<meta charset='utf-8'>\n<title>{title}</title>\n<h1>{title}</h1>\n"
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{cells}\n</tbody>\n</table>\n</html>"
    )


@app.command()
def report(folder: Config = Path("config"), at: At = None, as_json: Json = False) -> None:
    """Thiếu sót của danh bạ / what the directory lacks. Exit code 1 when there is something."""
    day, known = _day(at), directory.load(folder / "directory")
    rows = [*shortcomings(known, day), *_from_archive(folder, known, day)]
    for kind, name, text in rows:
        line = {"kind": kind, "about": name, "text": text}
        typer.echo(json.dumps(line, ensure_ascii=False) if as_json else f"{name}: {text}")
    if not rows and not as_json:
        typer.echo("Danh bạ không có thiếu sót / nothing is missing")
    raise typer.Exit(1 if rows else 0)


def shortcomings(known: directory.Directory, day: dt.date) -> Iterator[tuple[str, str, str]]:
    """What the files themselves show: agencies without a published address, expired exceptions, ended agencies."""
    for one in known.agencies(day):
        if not any(box.published and box.issued(day) for box in known.mailboxes(one.id)):
            yield "unpublished", one.id, "chưa có hộp thư nào được công khai / no published mailbox"
    for box in known.mailboxes():
        if box.issued(day) and known.agency(box.agency, day) is None:
            yield "orphan", box.address, f"cơ quan {box.agency} không còn và không có cơ quan kế tục / agency is gone"
    for exception in known.exceptions():
        if exception.expires_on < day:
            yield (
                "expired",
                exception.address,
                f"hết hạn tạm dùng ngày {exception.expires_on:%d/%m/%Y} / exception is over",
            )
        elif known.has_mailbox(exception.agency, day):
            yield "superseded", exception.address, f"{exception.agency} đã có hộp thư công vụ / has a mailbox now"


def _from_archive(folder: Path, known: directory.Directory, day: dt.date) -> Iterator[tuple[str, str, str]]:
    """What the mail of the archive shows; nothing when there is no archive yet."""
    try:
        settings = config.read(folder)
    except ConfigError:
        return
    if settings.database_url.startswith("sqlite") and not (settings.data / "gateway.db").exists():
        return
    yield from seen(known, day, settings.database_url)


def seen(known: directory.Directory, day: dt.date, url: str) -> Iterator[tuple[str, str, str]]:
    """Mailboxes seen but unknown, and agencies that sign though the directory says they have no certificate."""
    from sqlalchemy import select

    from gateway import database as db

    database = db.Database.open(url)
    unknown: dict[str, int] = {}
    signing: dict[str, str] = {}
    try:
        with database.engine.connect() as connection:
            m = db.message.c
            query = select(m.header_from, m.issuing_agency, m.id, m.record).where(m.kind == "mail")
            for address, issuer, case, record in connection.execution_options(yield_per=500).execute(query):
                domain = address.rpartition("@")[2]
                if "," not in address and known.is_official(domain) and known.mailbox(address) is None:
                    unknown[address] = unknown.get(address, 0) + 1
                agency = known.agency_named(issuer, day) if issuer else known.agency_of(address, day)
                if agency is not None and agency.certificate is None and agency.id not in signing and _signed(record):
                    signing[agency.id] = case
    finally:
        database.close()
    for address, count in sorted(unknown.items()):
        yield "unknown", address, f"gửi {count} thư nhưng không có trong danh bạ / sends mail, not in the directory"
    for identifier, case in signing.items():
        text = f"đã ký số (mã {case}) nhưng danh bạ ghi chưa có chứng thư / signs though listed without certificate"
        yield "certificate", identifier, text


def _signed(record: str) -> bool:
    files: list[dict[str, Any]] = json.loads(record).get("inspection", {}).get("files", [])
    good = ("VALID", "VALID_UNTIMESTAMPED")
    return any(
        s.get("kind") == "organisation" and s.get("state") in good for f in files for s in f.get("signatures", ())
    )
