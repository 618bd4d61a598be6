"""The options with which a person says which messages are meant: for searching, for a hold, for destruction."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from gateway import directory as directories
from gateway.commands.archive import moment
from gateway.errors import ConfigError
from gateway.inspection.document import KINDS
from gateway.search import Query
from gateway.vietnamese import fold

_DIRECTIONS = ("in", "out", "internal")
_VERDICTS = ("deliver", "deliver-warn", "hold", "return", "reject-malware")


def options(
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]…", help='Từ, "cụm từ", tiền tố* / words, "a phrase", prefix*'),
    ] = None,
    number: Annotated[str, typer.Option(help="Số, ký hiệu, ví dụ 14/CT-UBND / document number")] = "",
    sender: Annotated[str, typer.Option(help="Người gửi / sender")] = "",
    recipient: Annotated[str, typer.Option(help="Người nhận / recipient")] = "",
    agency: Annotated[str, typer.Option(help="Mã hoặc tên cơ quan / agency, id or name")] = "",
    direction: Annotated[str, typer.Option(help="in, out, internal")] = "",
    since: Annotated[str | None, typer.Option(help="Từ ngày / from (2026-11-20)")] = None,
    until: Annotated[str | None, typer.Option(help="Đến hết ngày / to the end of")] = None,
    kind: Annotated[str, typer.Option(help="Loại văn bản: CT, QĐ, CV, Chỉ thị … / kind")] = "",
    abstract: Annotated[str, typer.Option(help="Trích yếu / abstract")] = "",
    signer: Annotated[str, typer.Option(help="Người ký / signer")] = "",
    issuing: Annotated[str, typer.Option("--issuing-agency", help="Cơ quan ban hành / issuing agency")] = "",
    file: Annotated[str, typer.Option(help="Tên tệp / file name")] = "",
    digest: Annotated[
        str, typer.Option(help="SHA-256 của thư hoặc tệp, ít nhất 8 ký tự đầu / of message or file")
    ] = "",
    rule: Annotated[str, typer.Option(help="Quy tắc, ví dụ SG-01, SG-* / rule")] = "",
    verdict: Annotated[str, typer.Option(help="deliver, deliver-warn, hold, return …")] = "",
    message_class: Annotated[str, typer.Option("--class", help="OFFICIAL_DOC, DRAFT …")] = "",
    config: Annotated[Path, typer.Option("--config", help="Thư mục cấu hình / configuration folder")] = Path("config"),
) -> Query:
    """The question that these options ask."""

    def one_of(name: str, given: str, known: tuple[str, ...]) -> str:
        plain = given.strip().lower().replace("_", "-")
        if plain and plain not in known:
            raise typer.BadParameter(f"--{name} {given!r}: một trong / one of {', '.join(known)}")
        return plain

    plain_digest = digest.strip().lower().removeprefix("sha256:")
    if plain_digest and (not 8 <= len(plain_digest) <= 64 or plain_digest.strip("0123456789abcdef")):
        raise typer.BadParameter(f"--digest {digest!r}: 8 đến 64 chữ số thập lục phân / 8 to 64 hexadecimal digits")
    return Query(
        " ".join(text or ()), number, sender, recipient, _agencies(agency, config),
        one_of("direction", direction, _DIRECTIONS), moment(since), moment(until, end=True), _kind(kind), abstract,
        signer, issuing, file, plain_digest, rule, one_of("verdict", verdict, _VERDICTS), message_class,
    )  # fmt: skip


def _kind(given: str) -> str:
    """`Chỉ thị`, `chi thi` and `CT` are one kind."""
    wanted = fold(" ".join(given.split()))
    return next((short for name, short in KINDS.items() if wanted in (fold(name), fold(short))), given)


def _agencies(given: str, config: Path) -> str | tuple[str, ...]:
    """Ids of the agencies whose id or name was given; all words of a part of a name are enough."""
    wanted = given.strip()
    if not wanted:
        return ""
    try:
        known = tuple(directories.load(config / "directory").agencies())
    except (ConfigError, OSError):
        return wanted  # without a directory there are ids only
    if any(one.id == wanted for one in known):
        return wanted
    words = f" {fold(wanted)} "
    names = {one.id: [one.name, one.short_name, *one.aliases] for one in known}
    ids = {id_ for id_, mine in names.items() if any(words in f" {fold(name)} " for name in mine)}
    return tuple(sorted(ids)) or wanted


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all these options: it gets `query` and `config` besides its own."""
    own = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    shared = inspect.signature(options).parameters
    shared_hints = get_type_hints(options, include_extras=True)

    def run(**given: Any) -> None:
        asked = {name: given[name] for name in shared}
        mine = {name: given[name] for name in own if name in given}
        command(query=options(**asked), **{**mine, **({"config": given["config"]} if "config" in own else {})})

    parameters = [one for name, one in own.items() if name not in ("query", *shared)]
    together = [*(one for name, one in shared.items() if name != "config"), *parameters, shared["config"]]
    required_first = sorted(together, key=lambda one: one.default is not inspect.Parameter.empty)
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: {**hints, **shared_hints}[one.name] for one in required_first}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=run.__annotations__[one.name])
         for one in required_first]
    )  # fmt: skip
    return run
