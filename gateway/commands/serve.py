"""`congvan serve`: the daemon in the foreground, as systemd runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def serve(
    config: Annotated[Path, typer.Option("--config", help="Thư mục cấu hình / configuration folder")] = Path("config"),
    plain_log: Annotated[bool, typer.Option("--plain-log", help="Nhật ký dạng chữ / log for a terminal")] = False,
) -> None:
    """Chạy cổng thư / run the gateway."""
    from gateway import daemon

    daemon.serve(config, json_log=not plain_log)
