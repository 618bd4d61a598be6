"""`congvan archive …`: find, show, hand out, check and prove what is archived. Works while the gateway runs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import getpass
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import custody
from gateway.archive import Archive, from_ms, stamp, to_ms
from gateway.commands import verify_proof
from gateway.config import Gateway
from gateway.config import read as read_settings
from gateway.database import Database
from gateway.errors import ConfigError, Failure, Problem
from gateway.hashtree import (
    BadProof,
    Verifier,
    check_consistency,
    check_proof,
    consistency_text,
    split_note,
)
from gateway.hashtree import consistency as make_consistency
from gateway.message import VIETNAM
from gateway.objectstore import open_store
from gateway.store import Damaged
from gateway.witness import Unwilling, Witnesses, ask, origin_digest

app = typer.Typer(help="Kho lưu trữ / the archive", no_args_is_help=True)

EX_NO, EX_USAGE, EX_TEMPFAIL = 1, 2, 75

Config = Annotated[Path, typer.Option("--config", help="Thư mục cấu hình / configuration folder")]
Json = Annotated[bool, typer.Option("--json", help="Mỗi dòng một đối tượng JSON / one JSON object a line")]
CaseId = Annotated[str, typer.Argument(metavar="CASE", help="Mã thư / case id")]


@contextlib.asynccontextmanager
async def opened(config: Path) -> AsyncIterator[Archive]:
    """The archive of this configuration. Raises ConfigError, Failure when there is none yet."""
    settings = read_settings(config)
    if not settings.database and not (settings.data / "blobs").is_dir():
        raise ConfigError(
            [
                Problem(
                    str(config / "gateway.yaml"),
                    0,
                    0,
                    f"no archive in {settings.data} yet; start `congvan serve` once, or mend `data`",
                )
            ]
        )
    database = Database.open(settings.database_url)
    archive = Archive(database, open_store(settings), settings)
    try:
        yield archive
    finally:
        await archive.close()
        database.close()


def run(config: Path, work: Callable[[Archive], Coroutine[Any, Any, int]]) -> None:
    """Run `work` on the archive and leave with its exit code. Trouble is told on stderr: 1 not so, 75 try again."""

    async def whole() -> int:
        async with opened(config) as archive:
            return await work(archive)

    try:
        code = asyncio.run(whole())
    except Failure as failure:
        typer.echo(f"congvan: {failure.private or failure.public}", err=True)
        code = EX_TEMPFAIL if failure.retryable else EX_NO
    except KeyError as error:
        typer.echo(f"congvan: không có thư mang mã {error.args[0]} / no such case", err=True)
        code = EX_NO
    except (Damaged, BadProof) as error:
        typer.echo(f"congvan: {error}", err=True)
        code = EX_NO
    raise typer.Exit(code)


def run_with_settings(config: Path, work: Callable[[Archive, Gateway], Coroutine[Any, Any, int]]) -> None:
    """`run`, for work that needs the settings too."""
    run(config, lambda archive: work(archive, read_settings(config)))


def moment(text: str | None, end: bool = False) -> int | None:
    """`2026-11-20`, `20/11/2026` or RFC 3339 to milliseconds; a bare date is Vietnam's, and as an end the whole day
    counts."""
    if not text:
        return None
    if local := re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})", text.strip()):
        text = f"{local[3]}-{local[2]:0>2}-{local[1]:0>2}"
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: ngày dạng 2026-11-20 / a date such as 2026-11-20") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=VIETNAM)
    return to_ms(at + dt.timedelta(days=1) if end and len(text) == 10 else at)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `message` with stable keys and readable times, without the long ones."""
    return {
        "case": row["id"],
        "kind": row["kind"],
        "received_at": stamp(from_ms(row["received_at"])),
        "direction": row["direction"],
        "agency": row["agency"],
        "sender": row["sender"],
        "recipients": row["recipients"],
        "subject": row["subject"],
        "message_class": row["message_class"],
        "verdict": row["verdict"],
        "document_code": row["document_code"],
        "document_kind": row["document_kind"],
        "document_date": row["document_date"],
        "abstract": row["abstract"],
        "signer": row["signer"],
        "issuing_agency": row["issuing_agency"],
        "sha256": row["sha256"],
        "size": row["size"],
    }


def dump(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


@app.command()
def verify(
    everything: Annotated[bool, typer.Option("--all", help="Đọc lại mọi thư (mặc định) / every message")] = False,
    since: Annotated[str | None, typer.Option(help="Chỉ đọc lại thư từ ngày / messages since")] = None,
    until: Annotated[str | None, typer.Option(help="Đến hết ngày / to the end of")] = None,
    first: Annotated[int, typer.Option("--from", min=0, help="Từ lá số / from this leaf")] = 0,
    last: Annotated[int | None, typer.Option("--to", min=0, help="Đến lá số / to this leaf")] = None,
    sample: Annotated[int | None, typer.Option(min=0, help="Đọc lại ngẫu nhiên N thư / N messages by chance")] = None,
    seed: Annotated[int | None, typer.Option(help="Chọn lại đúng các thư ấy / the same choice again")] = None,
    known: Annotated[
        list[Path] | None, typer.Option(help="Điểm kiểm tra giữ ở nơi khác / checkpoint kept elsewhere")
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="URL bên chứng kiến hoặc thư mục .note / witness, or folder of notes")
    ] = None,
    key: Annotated[str, typer.Option(help="Khóa công khai giữ ở nơi khác / public key kept elsewhere")] = "",
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Số tệp đọc cùng lúc / files read at a time")] = 2,
    resume: Annotated[
        Path | None, typer.Option(help="Tệp nhớ chỗ đang dở, chạy lại thì làm tiếp / remembers where it was")
    ] = None,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Kiểm tra toàn vẹn từ chính các byte: 0 nguyên vẹn, 1 có hư hại / rebuild and check everything."""
    from gateway import audit

    if everything and sample is not None:
        raise typer.BadParameter("--all và --sample không đi với nhau / exclude each other")
    notes = [read_note(path) for path in known or ()]
    verifier = read_key(key) if key else None
    blobs: int | str = "all" if sample is None else sample
    scope = audit.Scope(blobs, moment(since), moment(until, end=True), first, last, seed)

    async def work(archive: Archive, settings: Gateway) -> int:
        def progress(done: int, size: int) -> None:
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{done}/{size}")

        for place in witness or ():
            origin = (verifier or archive.log.verifier()).name
            notes.extend(await asyncio.to_thread(remembered, place, origin))
        try:
            report = await asyncio.to_thread(
                audit.audit,
                archive,
                scope=scope,
                known=notes,
                key=verifier,
                progress=progress,
                stamp_roots=settings.timestamps.ca if settings.timestamps else None,
                jobs=jobs,
                resume=resume,
            )
        except ValueError as error:
            typer.echo(f"congvan: {error}", err=True)
            return EX_USAGE
        for one in report.damage:
            if as_json:
                dump({"kind": one.kind, "leaf": one.leaf, "case": one.case, "detail": one.detail})
            else:
                place = f" lá/leaf {one.leaf}" if one.leaf is not None else ""
                typer.echo(f"{audit.KINDS[one.kind]}:{place} {one.case} {one.detail}")
        if as_json:
            dump(
                {
                    "ok": not report.damage,
                    "leaves": report.leaves,
                    "signed": report.signed,
                    "messages": report.messages,
                    "events": report.events,
                    "imported": report.imported,
                    "destroyed": report.destroyed,
                    "bytes": report.bytes,
                    "notes": report.notes,
                }
            )
        else:
            for note in report.notes:
                typer.echo(f"ghi chú / note: {note}")
            state = "nguyên vẹn / intact" if not report.damage else f"{len(report.damage)} hư hại / damaged"
            typer.echo(
                f"{state}: {report.leaves} lá/leaves, {report.signed} đã ký/signed, {report.messages} thư/messages"
                f"{f' ({report.imported} nhập/imported)' if report.imported else ''}"
                f"{f', {report.destroyed} đã hủy/destroyed' if report.destroyed else ''}, {report.bytes} byte"
                f"{f', {report.events} sự kiện/events' if report.events is not None else ''}"
            )
            if report.events is None:
                how = "congvan stats recompute --month YYYY-MM"
                typer.echo(f"ghi chú / note: số đếm chưa được kiểm tra / the counts were not checked: {how}")
        return EX_NO if report.damage else 0

    run_with_settings(config, work)


@app.command()
def prove(
    case: CaseId,
    output: Annotated[Path, typer.Option("-o", "--output", help="Tệp chứng minh .tlog-proof / proof file")],
    attachment: Annotated[str, typer.Option(help="Chỉ cần cho tệp này trong thư / for this file of the message")] = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Một tệp chứng minh thư hoặc tệp đính kèm có trong kho / one file that proves a message or an attachment."""

    async def work(archive: Archive) -> int:
        if attachment:
            row = await archive.row(case)
            if row is None:
                raise KeyError(case)
            names = [one["path"] for one in row["attachments"]]
            if attachment not in names:
                known = ", ".join(names) or "–"
                typer.echo(f"congvan: {case}: không có tệp {attachment}; có / there are: {known}", err=True)
                return EX_NO
        proof = await archive.prove(case)
        await custody.access(archive, custody.at_the_keyboard(), "prove", [case])
        await asyncio.to_thread(output.write_text, proof)
        found = check_proof(proof, *archive.log.verifiers())
        names = [line.split(" ")[1] for line in split_note(found.note)[1]]
        told = {
            "file": str(output),
            "key": str(archive.log.verifier()),
            "leaf": found.index,
            "signed_leaves": found.checkpoint.size,
            "cosigned_by": sorted(set(names) - {found.checkpoint.origin}),
            "time_stamp": bool(found.stamp),
        }
        if as_json:
            dump(told)
        else:
            typer.echo("; ".join(f"{name}: {value}" for name, value in told.items()), err=True)
        return 0

    run(config, work)


@app.command()
def consistency(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Điểm kiểm tra cũ / the older checkpoint")],
    new: Annotated[Path | None, typer.Argument(metavar="[NEW]", help="Mới hơn / newer one; default the newest")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Tệp, - là đầu ra / file, - for stdout")] = Path("-"),
    config: Config = Path("config"),
) -> None:
    """Chứng minh kho chỉ thêm, không sửa, giữa hai điểm kiểm tra / proof that only leaves were added in between."""
    first, second = read_note(old), read_note(new) if new is not None else ""

    async def work(archive: Archive) -> int:
        note = second or await asyncio.to_thread(archive.log.newest_note)
        try:
            before, after = archive.log.open(first), archive.log.open(note)
            nodes = archive.log.nodes(after.size)
            path = await asyncio.to_thread(make_consistency, before.size, after.size, nodes)
            text = consistency_text(before.size, path, note)
            check_consistency(text, first, *archive.log.verifiers())
        except (BadProof, ValueError) as error:
            typer.echo(f"congvan: {error}", err=True)
            return EX_NO
        if str(output) == "-":
            typer.echo(text, nl=False)
        else:
            await asyncio.to_thread(output.write_text, text)
        return 0

    run(config, work)


@app.command()
def checkpoint(
    send: Annotated[bool, typer.Option(help="Gửi cho các bên chứng kiến / send it to the witnesses")] = True,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Ký, gửi bên chứng kiến và in điểm kiểm tra để giữ ở nơi khác / sign, have witnessed and print a checkpoint."""

    async def work(archive: Archive, settings: Gateway) -> int:
        with contextlib.suppress(Failure):  # the running gateway may sign at the same moment: then its note is as good
            await archive.checkpoint()
        newest = await asyncio.to_thread(archive.log.newest)
        if newest is None:
            typer.echo("congvan: chưa có điểm kiểm tra / no checkpoint yet", err=True)
            return EX_TEMPFAIL
        if send:

            def tell(name: str, error: str) -> None:
                if error:
                    typer.echo(f"congvan: {name}: {error}", err=True)

            await Witnesses(archive, settings).round(now=True, tell=tell)
        note = await asyncio.to_thread(archive.log.newest_note)
        newest = archive.log.open(note)
        if as_json:
            dump(
                {
                    "origin": newest.origin,
                    "size": newest.size,
                    "root": newest.root.hex(),
                    "note": note,
                    "key": str(archive.log.verifier()),
                    **await Witnesses(archive, settings).status(),
                }
            )
        else:
            typer.echo(note, nl=False)
        return 0

    run_with_settings(config, work)


@app.command()
def status(as_json: Json = False, config: Config = Path("config")) -> None:
    """Kho đã ký, được chứng kiến và đóng dấu thời gian đến đâu: 0 tốt, 1 có bên không nhận / who holds what of it."""

    async def work(archive: Archive, settings: Gateway) -> int:
        found = await Witnesses(archive, settings).status()
        failing = any(one["error"] for one in found["witnesses"])
        if as_json:
            dump(found)
            return EX_NO if failing else 0
        typer.echo(f"lá / leaves: {found['leaves']}")
        titles = {"signed": "đã ký / signed", "cosigned": "được ký chứng kiến / cosigned"}
        for name, title in {**titles, "stamped": "dấu thời gian / time stamp"}.items():
            one = found[name]
            typer.echo(f"{title}: {one['size']} {one['at']} {one.get('by', '')}" if one else f"{title}: –")
        for one in found["witnesses"]:
            typer.echo(
                f"  {one['name']} ({one['kind']}): {one['size']} {one['at'] or '–'}, chậm/lag {one['lag_leaves']} lá, "
                f"{one['lag_seconds']:.0f} s" + (f"; {one['error']}" if one["error"] else "")
            )
        return EX_NO if failing else 0

    run_with_settings(config, work)


@app.command("rotate-key")
def rotate_key(
    reason: Annotated[str, typer.Option(help="Vì sao / why")],
    lost: Annotated[bool, typer.Option("--lost", help="Khóa cũ đã mất / the old key is lost")] = False,
    who: Annotated[str, typer.Option("--who", help="Người thực hiện / who does it")] = "",
    config: Config = Path("config"),
) -> None:
    """Thay khóa ký của kho, in khóa công khai mới / replace the signing key and print the new public key."""

    async def work(archive: Archive) -> int:
        old, new = await archive.rotate_key(who or getpass.getuser(), reason, lost=lost)
        typer.echo(f"khóa cũ / old: {old}", err=True)
        typer.echo(new)
        return 0

    run(config, work)


def read_note(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from None


def remembered(place: str, origin: str) -> list[str]:
    """The newest checkpoint that a witness knows of this log, or all that lie in a folder. Raises Failure."""
    if not place.startswith(("http://", "https://")):
        texts = [path.read_text(errors="replace") for path in sorted(Path(place).rglob("*.note"))]
        found = [text for text in texts if text.startswith(f"{origin}\n")]
        if not found:
            raise Failure(f"{place}: no checkpoint of {origin}")
        return found
    try:
        status, _, data = ask(f"{place.rstrip('/')}/{origin_digest(origin)}/checkpoint", None, 30)
    except Unwilling as error:
        raise Failure(str(error)) from None
    if status != 200:
        raise Failure(f"{place}: HTTP {status} for {origin}")
    return [data.decode("utf-8", "replace")]


def read_key(text: str) -> Verifier:
    """A verifier key given as itself or as a file that holds it."""
    try:
        return verify_proof.read_key(text)
    except (BadProof, OSError) as error:
        raise typer.BadParameter(f"khóa / key: {error}") from None
