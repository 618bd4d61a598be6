"""`congvan …`: puts the commands together and turns failures into one clear line and an exit code.

Exit codes (design.md section 6): 0 done, 1 the thing asked about is not so, 2 configuration or usage, 75 try again.
Command modules are imported when asked for, so that `congvan --help` does not pay for pyHanko.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway import __version__
from gateway.errors import ConfigError, Failure

EX_CONFIG, EX_TEMPFAIL = 2, 75

ConfigOption = Annotated[Path, typer.Option("--config", help="Thư mục cấu hình / configuration folder")]

#: noun → module in `gateway.commands`; `*` mounts the module's commands at the top level
GROUPS = {
    "archive": "archive",
    "queue": "queue",
    "held": "held",
    "alerts": "alerts",
    "register": "register",
    "stats": "stats",
    "report": "report",
    "imap": "imap",
    "directory": "directory",
    "trust": "trust",
}
#: noun → more modules with commands of it
MORE = {"archive": ("find", "custody", "keeping")}
#: command at the top level → module
TOP = {
    "check": "policy",
    "explain": "policy",
    "replay": "policy",
    "inspect": "inspect",
    "verify-proof": "verify_proof",
    "serve": "serve",
    "demo": "demo",
}


def build(wanted: str | None) -> typer.Typer:
    """The command tree, with the module of `wanted` imported; all of them when it is unknown or None (help)."""
    app = typer.Typer(
        name="congvan",
        help="Cổng thư điện tử công vụ / gateway on official mailboxes. Mã thoát / exit codes: 0 xong / done, 1 không"
        " đúng như hỏi / not so, 2 cấu hình hoặc cách dùng / configuration or usage, 75 thử lại sau / try again later.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    known = wanted in GROUPS or wanted in TOP

    @app.callback(invoke_without_command=True)
    def _main(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="In phiên bản / version")] = False,
    ) -> None:
        if version:
            typer.echo(f"congvan-gateway {__version__}")
            raise typer.Exit(0)
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())
            raise typer.Exit(EX_CONFIG)

    for noun, module in GROUPS.items():
        if wanted == noun or not known:
            group = importlib.import_module(f"gateway.commands.{module}").app
            app.add_typer(group, name=noun)
            for module in MORE.get(noun, ()):
                group.add_typer(importlib.import_module(f"gateway.commands.{module}").app)
    mounted = set()
    for command, module in TOP.items():
        if (wanted == command or not known) and module not in mounted:
            mounted.add(module)
            app.registered_commands += importlib.import_module(f"gateway.commands.{module}").app.registered_commands
    return app


def main() -> None:
    """Entry point of the `congvan` command."""
    wanted = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        build(wanted)(prog_name="congvan")
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        sys.exit(EX_CONFIG)
    except Failure as failure:
        print(f"congvan: {failure.public}", file=sys.stderr)
        sys.exit(EX_TEMPFAIL if failure.retryable else 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # a bug of ours: one line for the person, the rest for whoever is to mend it
        if os.environ.get("CONGVAN_TRACE"):
            raise
        print(f"congvan: lỗi bất ngờ / unexpected: {type(error).__name__} (CONGVAN_TRACE=1: …)", file=sys.stderr)
        sys.exit(EX_TEMPFAIL)


if __name__ == "__main__":
    main()
