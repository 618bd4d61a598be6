"""`congvan queue …`: what is owed to whom, and since when. Works while the gateway runs, and while it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import returns
from gateway.archive import Archive
from gateway.commands.archive import EX_NO, CaseId, Config, Json, run
from gateway.config import read as read_settings
from gateway.queue import Queue

app = typer.Typer(help="Hàng đợi / the queue", no_args_is_help=True)


def with_queue(config: Path, work: Callable[[Queue], Coroutine[Any, Any, int]]) -> None:
    """Run `work` on the queue of this configuration and leave with its exit code."""
    settings = read_settings(config)
    returns.use_templates(config / "templates")

    async def on_archive(archive: Archive) -> int:
        return await work(Queue(archive.database, archive.store, settings))

    run(config, on_archive)


def print_messages(messages: list[dict[str, Any]], as_json: bool) -> None:
    """One JSON object a line, or a few lines of text for each message."""
    for one in messages:
        if as_json:
            typer.echo(json.dumps(one, ensure_ascii=False))
        else:
            _print(one)


def _print(one: dict[str, Any]) -> None:
    typer.echo(f"{one['case']}  {one['received_at'][:19]}  {one['size']:>9}  <{one['sender']}>  {one['subject']}")
    for to in one["recipients"]:
        next_at = f"  tiếp/next {to['next_attempt_at'][:19]}" if to["next_attempt_at"] else ""
        typer.echo(f"    {to['state']:<9} <{to['address']}>  {to['attempts']}x{next_at}  {to['last_reply']}".rstrip())


def print_case(one: dict[str, Any], as_json: bool) -> None:
    """A message with its attempts and decisions."""
    if as_json:
        typer.echo(json.dumps(one, ensure_ascii=False))
        return
    _print(one)
    for attempt in one["attempts"]:
        typer.echo(
            f"  {attempt['at']}  {attempt['result']:<11} <{attempt['address']}> {attempt['hop']}: {attempt['reply']}"
        )
    for act in one["decisions"]:
        typer.echo(f"  {act['at']}  {act['act']:<11} {act['who']}: {act['reason']}")


def no_such_case(case: str) -> int:
    typer.echo(f"congvan: không có thư mang mã {case} / no such case", err=True)
    return EX_NO


@app.command("list")
def list_(as_json: Json = False, config: Config = Path("config")) -> None:
    """Thư còn phải gửi / mail still owed, oldest first."""

    async def work(queue: Queue) -> int:
        messages = await queue.queued()
        print_messages(messages, as_json)
        if not messages and not as_json:
            typer.echo("Hàng đợi trống / the queue is empty")
        return 0

    with_queue(config, work)


@app.command()
def show(case: CaseId, as_json: Json = False, config: Config = Path("config")) -> None:
    """Một thư: người nhận, các lần gửi, quyết định / one message: recipients, attempts, decisions."""

    async def work(queue: Queue) -> int:
        found = await queue.show(case)
        if found is None:
            return no_such_case(case)
        print_case(found, as_json)
        return 0

    with_queue(config, work)


@app.command()
def retry(
    case: Annotated[str | None, typer.Argument(metavar="[CASE]", help="Mã thư; không có: tất cả / all")] = None,
    reason: Annotated[str, typer.Option(help="Lý do / reason")] = "",
    who: Annotated[str, typer.Option(help="Người quyết định / who decides")] = "",
    config: Config = Path("config"),
) -> None:
    """Gửi lại ngay / try again now."""

    async def work(queue: Queue) -> int:
        count = await queue.retry(case, who or user(), reason)
        if case and not count:
            return no_such_case(case)
        typer.echo(f"{count} người nhận / recipients")
        return 0

    with_queue(config, work)


def user() -> str:
    """The account at the keyboard, for the record: who called sudo, when somebody did."""
    import getpass
    import os

    return os.environ.get("SUDO_USER") or getpass.getuser()
