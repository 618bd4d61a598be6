"""`congvan held …`: mail that waits for a person. Each decision is recorded with who and why, also in the hash tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.archive import stamp
from gateway.commands.archive import CaseId, Config, Json
from gateway.commands.queue import no_such_case, print_case, print_messages, user, with_queue
from gateway.config import read as read_settings
from gateway.late import Held, Waiting
from gateway.queue import Queue

app = typer.Typer(help="Thư tạm giữ / held mail", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", help="Lý do, được ghi lại / the reason, which is recorded")]
Who = Annotated[str, typer.Option("--who", help="Người quyết định; mặc định tài khoản đang dùng / who decides")]


@app.command("list")
def list_(as_json: Json = False, config: Config = Path("config")) -> None:
    """Thư đang tạm giữ / held mail, oldest first."""

    waiting = Waiting(read_settings(config).data)

    async def work(queue: Queue) -> int:
        messages = [_inspected_still(one) for one in waiting.all()] + await queue.held()
        print_messages(messages, as_json)
        if not messages and not as_json:
            typer.echo("Không có thư tạm giữ / nothing is held")
        return 0

    with_queue(config, work)


def _inspected_still(held: Held) -> dict[str, Any]:
    """A message whose verdict is still to come, under the keys of the others; nothing of its content is known yet."""
    return {
        "case": held.case,
        "kind": "mail",
        "received_at": stamp(held.at),
        "sender": str(held.envelope.sender),
        "size": held.size,
        "subject": "",
        "verdict": "",
        "recipients": [
            {
                "address": str(one.address),
                "state": "inspecting",
                "attempts": 0,
                "next_attempt_at": None,
                "last_reply": "",
                "destination": "",
            }
            for one in held.envelope.recipients
        ],
    }


@app.command()
def show(case: CaseId, as_json: Json = False, config: Config = Path("config")) -> None:
    """Một thư đang tạm giữ và vì sao / one held message and why."""

    async def work(queue: Queue) -> int:
        found = await queue.show(case)
        if found is None:
            return no_such_case(case)
        print_case(found, as_json)
        return 0

    with_queue(config, work)


@app.command()
def release(case: CaseId, reason: Reason = "", who: Who = "", config: Config = Path("config")) -> None:
    """Cho đi tới người nhận / let it go to its recipients."""

    async def work(queue: Queue) -> int:
        count = await queue.release(case, who or user(), reason)
        if not count:
            return no_such_case(case)
        typer.echo(f"{count} người nhận / recipients")
        return 0

    with_queue(config, work)


@app.command("return")
def return_(
    case: CaseId,
    reason: Annotated[str, typer.Option("--reason", help="Lý do, gửi cho người gửi / told to the sender")],
    who: Who = "",
    config: Config = Path("config"),
) -> None:
    """Trả lại người gửi kèm lý do / return it to its sender with the reason."""

    async def work(queue: Queue) -> int:
        count = await queue.give_back(case, who or user(), reason)
        if not count:
            return no_such_case(case)
        typer.echo(f"{count} người nhận / recipients")
        return 0

    with_queue(config, work)
