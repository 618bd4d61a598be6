"""`congvan archive …`: copies elsewhere, a new host from a copy, old mail, and the key outside."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.archive import Archive
from gateway.commands.archive import EX_NO, EX_TEMPFAIL, EX_USAGE, Config, Json, dump, run
from gateway.config import read as read_settings
from gateway.errors import Failure

app = typer.Typer()


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}: {done}/{total}")
        if done >= total:
            sys.stderr.write("\r\x1b[K")


def _tell(failure: Failure) -> int:
    typer.echo(f"congvan: {failure.private or failure.public}", err=True)
    return EX_TEMPFAIL if failure.retryable else EX_USAGE


@app.command()
def backup(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Thư mục sao lưu / folder for the copy")],
    keys: Annotated[
        bool, typer.Option("--keys", help="Cả khóa ký và muối / with the signing key and the salt")
    ] = False,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Sao lưu khi đang chạy; lần sau chỉ chép phần mới / copy the archive while mail runs; again: what is new."""
    from gateway import backup as backups

    async def work(archive: Archive) -> int:
        try:
            done = await asyncio.to_thread(
                backups.backup, archive, destination.absolute(), keys=keys, progress=_progress
            )
        except Failure as failure:
            return _tell(failure)
        for line in done.damage:
            typer.echo(f"congvan: không chép được / not copied: {line}", err=True)
        if as_json:
            dump(
                {
                    "ok": not done.damage,
                    "leaves": done.size,
                    "root": done.root,
                    "at": done.at,
                    "messages": done.blobs,
                    "copied": done.copied,
                    "bytes": done.bytes,
                    "removed": done.removed,
                    "keys": done.keys,
                    "damage": done.damage,
                }
            )
        elif done.damage:
            typer.echo(
                f"{len(done.damage)} thư hỏng; bản sao lưu cũ giữ nguyên / damaged, the older copy stays as it was: "
                "congvan archive verify"
            )
        else:
            typer.echo(
                f"{destination}: {done.size} lá/leaves, {done.blobs} thư/messages, chép/copied {done.copied} "
                f"({done.bytes} byte)" + (f", xóa/removed {done.removed}" if done.removed else "")
            )
            if not done.keys:
                typer.echo("không có khóa ký; giữ keys/ ở nơi khác / without the signing key: keep keys/ elsewhere")
        return EX_NO if done.damage else 0

    run(config, work)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Thư mục sao lưu / folder of the backup")],
    known: Annotated[
        list[Path] | None, typer.Option(help="Điểm kiểm tra giữ ở nơi khác / checkpoint kept elsewhere")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Thư mục khóa, nếu không có trong bản sao lưu / folder with the keys")
    ] = None,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Khôi phục vào máy trống, kiểm tra xong mới dùng được / an empty host from a backup, checked before it is used."""
    from gateway import backup as backups

    try:
        notes = [path.read_text() for path in known or ()]
        done = backups.restore(
            source.absolute(), read_settings(config), known=notes, keys=keys and keys.absolute(), progress=_progress
        )
    except Failure as failure:
        raise typer.Exit(_tell(failure)) from None
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"congvan: --known: {error}", err=True)
        raise typer.Exit(EX_USAGE) from None
    if as_json:
        dump(
            {
                "ok": not done.damage,
                "leaves": done.size,
                "root": done.root,
                "at": done.at,
                "messages": done.blobs,
                "copied": done.copied,
                "bytes": done.bytes,
                "owed": done.owed,
                "keys": done.keys,
                "damage": done.damage,
            }
        )
    else:
        for line in done.damage:
            typer.echo(line)
        if done.damage:
            typer.echo(f"{len(done.damage)} hư hại; chưa khôi phục / damaged, nothing is restored")
        else:
            typer.echo(
                f"đã khôi phục và kiểm tra / restored and checked: {done.size} lá/leaves, {done.blobs} thư/messages"
            )
            typer.echo(f"bản sao lưu lúc / backup of {done.at}; gốc / root {done.root}")
            if done.owed:
                typer.echo(
                    f"{done.owed} người nhận còn chờ giao lúc sao lưu sẽ được giao khi chạy, có thể lần thứ hai / "
                    "recipients still queued then are served at the start, perhaps for a second time"
                )
    if not done.damage and not done.keys:
        typer.echo(
            "congvan: thiếu keys/log.key: đặt lại trước khi chạy / the signing key is missing: put keys/log.key back "
            "before the start, or `congvan archive rotate-key --lost`",
            err=True,
        )
    raise typer.Exit(EX_NO if done.damage else 0)


@app.command("import")
def import_(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="EML, mbox, Maildir, thư mục / files and folders")
    ],
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Nhập thư cũ; làm lại nhiều lần được / import old mail; what is there already is left alone."""
    from gateway import log as logs
    from gateway import mailfiles
    from gateway.daemon import inspecting, read_rules
    from gateway.pipeline import Pipeline

    settings, rules = read_settings(config), read_rules(config)
    settings.data.joinpath("blobs").mkdir(mode=0o750, parents=True, exist_ok=True)
    logs.configure(json=False)
    counts = dict.fromkeys(("imported", "known", "secret", "undecided", "skipped", "failed"), 0)

    def told(found: mailfiles.Found, result: str, case: str, reason: str = "") -> None:
        counts[result] += 1
        if as_json:
            dump({"source": found.source, "form": found.form, "result": result, "case": case, "reason": reason})
        elif result in ("secret", "undecided", "failed"):
            words = {
                "secret": "có dấu mật, không lưu; báo người phụ trách / carries a secrecy mark, not archived",
                "undecided": "chưa kiểm tra xong, nhập lại sau / not inspected in time, import it again",
            }
            typer.echo(f"{found.source}: {words.get(result) or reason}")

    async def work(archive: Archive) -> int:
        log = logs.get()
        inspector = inspecting(settings, config, log, late=True)
        pipeline = Pipeline(
            settings, rules, inspector=inspector, archive=archive, clamd=settings.clamd, wake=lambda: None, log=log,
            mail_log=logs.MailLog(io.StringIO()), data=settings.data,
        )  # fmt: skip
        workers = asyncio.create_task(inspector.run())
        total = sum(await asyncio.to_thread(lambda: [mailfiles.size(path) for path in paths]))
        source = (found for path in paths for found in mailfiles.find(path))
        taking, done = asyncio.Lock(), 0

        async def take() -> None:
            nonlocal done
            while True:
                async with taking:
                    found = await asyncio.to_thread(next, source, None)
                if found is None:
                    return
                if found.problem:
                    told(found, "skipped" if found.skipped else "failed", "", found.problem)
                    continue
                result, case = await pipeline.imported(found.data, found.form)
                told(found, result, case)
                done += len(found.data)
                _progress("byte", min(done, total), total)

        tasks = [asyncio.create_task(take()) for _ in range(settings.budget.workers + 1)]
        try:
            await asyncio.gather(*tasks)
            with contextlib.suppress(Failure):  # the running gateway may sign at the same moment
                await archive.checkpoint()
        finally:
            for task in (*tasks, workers):
                task.cancel()
            await asyncio.gather(*tasks, workers, return_exceptions=True)
            await inspector.stop()
        if as_json:
            dump({"ok": not counts["failed"] and not counts["undecided"], **counts})
        else:
            words = {
                "imported": "đã nhập/imported", "known": "đã có/known", "secret": "mật/secret",
                "undecided": "chưa rõ/undecided", "skipped": "không phải thư/no mail", "failed": "lỗi/failed",
            }  # fmt: skip
            typer.echo(
                ", ".join(f"{counts[key]} {text}" for key, text in words.items() if counts[key] or key == "imported")
            )
        return EX_NO if counts["failed"] or counts["undecided"] else 0

    run(config, work)


@app.command()
def rewrap(config: Config = Path("config")) -> None:
    """Bọc lại khóa kho bằng khóa ngoài mới; không ghi lại thư nào / change the key outside, no message is rewritten."""

    async def work(archive: Archive) -> int:
        keyring = archive.store.keyring
        if keyring is None:
            typer.echo("congvan: gateway.yaml không có store.encryption / has no store.encryption", err=True)
            return EX_USAGE
        count = await asyncio.to_thread(keyring.rewrap)
        typer.echo(f"{count} khóa kho / store keys")
        return 0

    run(config, work)
