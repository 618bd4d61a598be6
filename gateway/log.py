"""Two logs: one for engineers (structured, the case id in every line), one for the postmaster (a sentence per act).

Neither ever holds message text, subjects, file names, passwords or anything of a message that was refused for secrecy.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars, merge_contextvars

from gateway.message import VIETNAM

__all__ = ["MailLog", "bind_contextvars", "clear_contextvars", "configure", "get"]


def configure(stream: TextIO | None = None, *, json: bool = True, level: str = "INFO") -> None:
    """Set up the engineers' log once per process. JSON for the journal, plain columns for a terminal."""
    out = stream or sys.stderr
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if not json:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty())
    structlog.configure(
        processors=[
            merge_contextvars,
            structlog.processors.add_log_level,
            _stamp,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard module; only their warnings are news, and pyHanko reports every
    # untrusted chain with a traceback although the answer carries the same (dependencies: pyHanko 0.38).
    logging.basicConfig(stream=out, level=logging.WARNING, format="%(name)s: %(message)s", force=True)
    for noisy in ("pyhanko", "pyhanko_certvalidator", "mail.log", "apscheduler", "pypdf"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _stamp(_logger: Any, _name: str, event: Any) -> Any:
    """RFC 3339 in the time of Vietnam, as everywhere else."""
    event["timestamp"] = dt.datetime.now(VIETNAM).isoformat(timespec="milliseconds")
    return event


def get() -> Any:
    """The engineers' log."""
    return structlog.get_logger()


class MailLog:
    """The postmaster's log: time, case, act, and the addresses it concerns; one line each, append only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, case: str, act: str, **about: object) -> None:
        """`act` is a word of the trade: received, refused, held, delivered, deferred, failed, returned, released."""
        now = dt.datetime.now(VIETNAM).isoformat(timespec="seconds")
        words = " ".join(f"{key}={_quoted(value)}" for key, value in about.items() if value not in ("", None, [], ()))
        self._stream.write(f"{now} {case} {act} {words}\n")
        self._stream.flush()


def _quoted(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f'"{text}"' if " " in text else text
