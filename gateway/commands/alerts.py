"""`congvan alerts …`: who was told at once, whether they know, and whether the ways to them work."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.alerts import Alerts, trouble_text
from gateway.archive import Archive, stamp
from gateway.commands.archive import EX_NO, Config, Json, run
from gateway.commands.queue import user
from gateway.config import international
from gateway.config import read as read_settings
from gateway.errors import ConfigError, Problem
from gateway.message import VIETNAM

app = typer.Typer(help="Cảnh báo: văn bản khẩn, bí mật, mã độc, sự cố / alerts", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="NUMBER|CASE", help="Số cảnh báo hoặc mã thư / number or case id")]

_KINDS = {
    "urgent": "văn bản khẩn/urgent",
    "secret": "bí mật/secret",
    "malware": "mã độc/malware",
    "trouble": "sự cố/trouble",
}
_STATES = {
    "waiting": "đang chờ/waiting",
    "sending": "đang báo/telling",
    "sent": "đã báo/told",
    "merged": "đã báo gộp/told with others",
    "failed": "không báo được/gave up",
    "cancelled": "thôi báo/not needed",
}


def _on_alerts(config: Path, work: Any) -> None:
    settings = read_settings(config)

    async def on_archive(archive: Archive) -> int:
        return int(await work(Alerts(settings, archive)))

    run(config, on_archive)


@app.command("list")
def list_(
    open_only: Annotated[
        bool, typer.Option("--open", help="Chưa xác nhận, chưa hết / not acknowledged, not over")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Nhiều nhất / at most")] = 100,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Các cảnh báo, mới nhất trước / alerts, newest first."""

    async def work(alerts: Alerts) -> int:
        found = await alerts.listing(open_only=open_only, limit=limit)
        for one in found:
            typer.echo(json.dumps(one, ensure_ascii=False) if as_json else _text(one))
        if not found and not as_json:
            typer.echo("Không có cảnh báo / no alerts")
        return 0

    _on_alerts(config, work)


@app.command()
def show(which: Which, as_json: Json = False, config: Config = Path("config")) -> None:
    """Một cảnh báo, hoặc các cảnh báo của một thư / one alert, or those of one message."""

    async def work(alerts: Alerts) -> int:
        found = await alerts.listing(which=which)
        for one in found:
            typer.echo(json.dumps(one, ensure_ascii=False) if as_json else _text(one))
        return 0 if found else _none(which)

    _on_alerts(config, work)


@app.command()
def ack(
    which: Which,
    who: Annotated[str, typer.Option("--who", help="Ai xác nhận; mặc định tài khoản đang dùng / who")] = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Xác nhận đã biết; thôi báo tiếp, không báo người thay / acknowledge: nobody else is told."""

    async def work(alerts: Alerts) -> int:
        numbers = await alerts.acknowledge(which, who or user())
        if numbers is None:
            return _none(which)
        for one in await alerts.listing(which=which):
            shown = {key: one[key] for key in ("alert", "case", "acked_at", "acked_by", "ack_seconds")}
            shown["before"] = one["alert"] not in numbers
            words = f"{one['alert']}: {one['acked_by']}, {(one['acked_at'] or '')[:19]}"
            note = " (đã xác nhận từ trước / before)" if shown["before"] else ""
            typer.echo(json.dumps(shown, ensure_ascii=False) if as_json else f"{words}{note}")
        return 0

    _on_alerts(config, work)


@app.command()
def retry(
    which: Annotated[int | None, typer.Argument(metavar="[NUMBER]", help="Không có: tất cả / all")] = None,
    config: Config = Path("config"),
) -> None:
    """Báo lại ngay những gì chưa tới / try again now what did not arrive."""

    async def work(alerts: Alerts) -> int:
        if which is not None and not await alerts.listing(which=str(which)):
            return _none(str(which))
        typer.echo(f"{await alerts.retry(which)} lần báo / to be told again")
        return 0

    _on_alerts(config, work)


@app.command()
def test(
    channel: Annotated[str | None, typer.Option("--channel", help="Một kênh; không có: tất cả / all channels")] = None,
    phone: Annotated[str, typer.Option("--phone", help="Số nhận thử / telephone for the test")] = "",
    email: Annotated[str, typer.Option("--email", help="Địa chỉ nhận thử / address for the test")] = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Gửi thử qua từng kênh, ngay bây giờ / send a test over each channel now. Mã thoát 1: có kênh hỏng / one failed.

    Không nêu số hay địa chỉ thì gửi cho quản trị viên / without a number or address it goes to the administrator."""
    settings = read_settings(config)
    where = str(config / "gateway.yaml")
    if settings.alerts is None:
        raise ConfigError([Problem(where, 0, 0, "no `alerts:` yet; see docs/alerts.md")])
    if phone and not international(phone):
        raise typer.BadParameter(f"--phone: {phone!r}: ví dụ / such as 0912345678")
    chosen = [one for one in settings.alerts.channels if channel in (None, one.name)]
    if not chosen:
        names = ", ".join(one.name for one in settings.alerts.channels)
        raise typer.BadParameter(f"--channel: {channel!r}: chỉ có / there are: {names}")
    admin = settings.alerts.admin
    number = international(phone or (admin.phone if admin else ""))
    address = email or (admin.email if admin else "")
    alerts = Alerts(settings, None)

    async def work() -> int:
        code = 0
        for one in chosen:
            now = dt.datetime.now(VIETNAM)
            text = trouble_text(settings.hostname, f"tin thu kenh {one.name} luc {now:%H:%M %d/%m}")
            values = dict.fromkeys(("case", "level", "agency", "document", "detail"), "")
            values |= {"phone": number, "email": address, "text": text, "id": "0", "kind": "test", "role": "admin"}
            values |= {"at": stamp(now), "what": "start", "token": os.urandom(16).hex()}
            if one.kind == "sms" and not number:
                ok, words = False, "cần --phone / needs a telephone number"
            elif one.kind == "mail" and not address:
                ok, words = False, "cần --email / needs an address"
            elif one.kind == "mail":
                told = await alerts.post(address, alerts.letter(values, [text], address, now))
                ok, words = told.ok, told.text
            else:
                told = await alerts.over(one, values)
                ok, words = told.ok, told.text
            code = code if ok else EX_NO
            row = {"channel": one.name, "kind": one.kind, "ok": ok, "result": words, "text": text}
            mark = "được/ok" if ok else "HỎNG/FAILED"
            typer.echo(json.dumps(row, ensure_ascii=False) if as_json else f"{one.name} ({one.kind}): {mark}: {words}")
        return code

    raise typer.Exit(asyncio.run(work()))


def _none(which: str) -> int:
    typer.echo(f"congvan: không có cảnh báo {which} / no such alert", err=True)
    return EX_NO


def _text(one: dict[str, Any]) -> str:
    rows = [f"{one['alert']:>6}  {one['at'][:19]}  {_KINDS.get(one['kind'], one['kind'])}  {one['text']}"]
    if one["detail"]:
        rows.append(f"        {one['detail']}")
    if one["acked_at"]:
        seconds = dt.timedelta(seconds=one["ack_seconds"])
        rows.append(f"        xác nhận/acknowledged {one['acked_at'][:19]} ({seconds}) {one['acked_by']}")
    if one["ended_at"]:
        rows.append(f"        hết/over {one['ended_at'][:19]}")
    if not one["sends"]:
        rows.append("        không có ai để báo / there is nobody to tell")
    for send in one["sends"]:
        at = (send["settled_at"] or send["next_at"] or "")[:19]
        more = (
            f"  {send['possible_duplicates']} có thể trùng/possible duplicates" if send["possible_duplicates"] else ""
        )
        end = "hết/end " if send["what"] == "end" else ""
        who = f"{send['role']:<9} {send['channel']} {send['to']}"
        rows.append(f"        {end}{who}  {_STATES[send['state']]} {at} {send['attempts']}x  {send['result']}{more}")
    return "\n".join(rows)
