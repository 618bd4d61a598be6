"""`congvan archive …` for the archivist: search, show, hand out, hold a file against the archive, and who did so.

Whatever shows content is an `access` leaf of the tree before the first byte of it goes out; when that cannot be
written, nothing is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from gateway import custody, exports
from gateway.archive import Archive, from_ms, stamp
from gateway.commands.archive import EX_NO, EX_USAGE, CaseId, Config, Json, dump, moment, run, shown
from gateway.commands.asking import asking
from gateway.compare import NOTHING, OTHER, REVISION, SAME, Answer, compare
from gateway.config import read as read_settings
from gateway.custody import at_the_keyboard
from gateway.errors import Failure
from gateway.inspection.findings import Inspection
from gateway.inspection.run import Inspector
from gateway.search import SORTS, Query

app = typer.Typer()

Reason = Annotated[str, typer.Option("--reason", help="Lý do, được ghi lại / the reason, which is recorded")]
Who = Annotated[str, typer.Option("--who", help="Tên người làm; mặc định tài khoản đang dùng / who does it")]

_STATES = {"recalled": "ĐÃ THU HỒI / recalled", "destroyed": "ĐÃ HỦY / destroyed"}


def state_of(told: dict[str, Any]) -> str:
    """One word for `--json`: destroyed, recalled, or empty."""
    return "destroyed" if "destroyed" in told else "recalled" if "recalled" in told else ""


def progress(done: int, size: int) -> None:
    """Shown while an index is made again; a few new messages are not worth a word."""
    if size - done > 2000 or progress.shown:  # type: ignore[attr-defined]
        progress.shown = done < size  # type: ignore[attr-defined]
        sys.stderr.write(f"\rlập chỉ mục / indexing {done}/{size}" + ("" if done < size else "\n"))
        sys.stderr.flush()


progress.shown = False  # type: ignore[attr-defined]


@app.command()
@asking
def search(
    query: Query,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Số thư mỗi trang / messages on a page")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Bỏ qua / leave out so many")] = 0,
    sort: Annotated[str, typer.Option(help=" | ".join(SORTS))] = "",
    count: Annotated[bool, typer.Option("--count", help="Chỉ đếm / only count")] = False,
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Tìm thư; có dấu hay không dấu đều được, đúng dấu đứng trước / find messages; exact accents come first."""
    if sort and sort not in SORTS:
        raise typer.BadParameter(f"--sort {sort!r}: một trong / one of {', '.join(SORTS)}")
    asked = replace(query, limit=limit, offset=offset, sort=sort)

    async def work(archive: Archive) -> int:
        page = await archive.search(replace(asked, limit=1, offset=0) if count else asked, progress)
        rows = [] if count else page.rows
        states = await custody.states(archive, [row["id"] for row in rows])
        more = {"question": asked.given(), "found": page.total}
        await custody.access(
            archive, at_the_keyboard(who), "search", [row["id"] for row in rows], reason=reason, **more
        )
        if count:
            dump({"total": page.total, "lag": page.lag}) if as_json else typer.echo(page.total)
            return 0 if page.total else EX_NO
        for row in rows:
            told = states.get(row["id"], {})
            one = {**shown(row), "about": row["about"] or "", "state": state_of(told)}
            if row["kind"] == "imported":
                one["date"] = json.loads(row["record"]).get("inspection", {}).get("message", {}).get("date", "")
            if "snippet" in row:
                one |= {"snippet": row["snippet"], "snippet_from": row["snippet_from"]}
            dump(one) if as_json else _print_found(one)
        if not as_json:
            first, last = offset + 1, offset + len(rows)
            part = f" ({first}–{last})" if rows and page.total > len(rows) else ""
            typer.echo(f"{page.total} thư / messages{part}")
        if page.lag:
            typer.echo(f"congvan: còn {page.lag} lá chưa lập chỉ mục / leaves not indexed yet", err=True)
        return 0 if page.total else EX_NO

    run(config, work)


def _print_found(one: dict[str, Any]) -> None:
    title = " ".join(part for part in (one["document_code"], one["abstract"] or one["subject"]) if part)
    if one["about"]:
        title = f"({one['kind']} về / about {one['about']}) {title}".rstrip()
    elif one["kind"] != "mail":
        title = f"({one['kind']}) {title}".rstrip()
    state = f"  [{_STATES[one['state']]}]" if one["state"] else ""
    at = one.get("date") or one["received_at"]
    typer.echo(f"{one['case']}  {at[:16]}  {one['verdict']:<12}  {title}{state}")
    typer.echo(f"    {one['sender'] or '<>'} → {', '.join(one['recipients'])}")
    if one.get("snippet"):
        place = "" if one["snippet_from"] in ("body", "subject", "abstract") else f"{one['snippet_from']}: "
        typer.echo(f"    {place}{one['snippet']}")


@app.command()
def show(
    case: CaseId, reason: Reason = "", who: Who = "", as_json: Json = False, config: Config = Path("config")
) -> None:
    """Một thư: phong bì, kết luận, người nhận, tệp / one message: envelope, verdict, recipients, files."""

    async def work(archive: Archive) -> int:
        row = await archive.row(case)
        if row is None:
            raise KeyError(case)
        told = (await custody.states(archive, [case])).get(case, {})
        compared = await custody.accesses(archive, case, types=("compare",))
        gone = "destroyed" in told
        bytes_ = await asyncio.to_thread(archive.store.problem, row["sha256"])
        intact = "destroyed" if gone and bytes_ == "missing" else bytes_ or "intact"
        record = json.loads(row["record"])
        recipients = [
            {
                "address": one["address"],
                "agency": one["agency"],
                "verdict": one["verdict"],
                "state": one["state"],
                "attempts": one["attempts"],
                "last_reply": one["last_reply"],
                "settled_at": stamp(from_ms(one["settled_at"])) if one["settled_at"] else None,
            }
            for one in row["recipients"]
        ]
        files = [{name: one[name] for name in ("path", "sha256", "size", "type")} for one in row["attachments"]]
        said = record.get("inspection", {}).get("message", {})
        whole = {
            **shown({**row, "recipients": recipients}),
            "state": state_of(told),
            "bytes": intact,
            "recipients": recipients,
            "files": files,
            "channel": row["channel"],
            "login": row["login"],
            "peer": row["peer"],
            "profile": row["profile"],
            "policy_digest": row["policy_digest"],
            # The word of the first server that took it, and of its sender; `received_at` is our clock.
            "first_received_field": said.get("first_received_at", ""),
            "date_field": said.get("date", ""),
            "findings": record.get("verdict", {}).get("findings", []),
            "recalled": told.get("recalled"),
            "destroyed": told.get("destroyed"),
            "holds": told.get("holds", []),
            "compared": [{name: one.get(name) for name in ("t", "who", "result", "reason")} for one in compared],
        }
        await custody.access(archive, at_the_keyboard(who), "show", [case], reason=reason)
        code = 0 if intact in ("intact", "destroyed") else EX_NO
        if as_json:
            dump({**whole, "record": record})
            return code
        if whole["state"]:
            typer.echo(f"*** {_STATES[whole['state']]} ***")
        for name, value in whole.items():
            if isinstance(value, list):
                if value:
                    typer.echo(f"{name}:")
                for item in value:
                    shown_item = item if isinstance(item, str) else ", ".join(
                        f"{key}={text}" for key, text in item.items() if text not in ("", None)
                    )  # fmt: skip
                    typer.echo(f"  {shown_item}")
            elif isinstance(value, dict):
                typer.echo(f"{name}: " + ", ".join(f"{key}={text}" for key, text in value.items() if text))
            elif value not in ("", None):
                typer.echo(f"{name}: {value}")
        return code

    run(config, work)


@app.command()
def export(
    cases: Annotated[
        list[str], typer.Argument(metavar="CASE…", help="Mã thư; - đọc từ đầu vào / case ids, - reads them from stdin")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Tệp hoặc thư mục mới, - là đầu ra / file or folder")],
    format_: Annotated[str, typer.Option("--format", help=" | ".join(exports.FORMATS))] = "eml",
    as_delivered: Annotated[
        bool, typer.Option("--as-delivered", help="Kèm các dòng đầu thư đã thêm / with the trace headers (eml)")
    ] = False,
    file_code: Annotated[str, typer.Option("--file-code", help="Mã hồ sơ, cho gói nộp lưu / file code (sip)")] = "",
    title: Annotated[str, typer.Option("--title", help="Tiêu đề hồ sơ, cho gói nộp lưu / title (sip)")] = "",
    reason: Reason = "",
    who: Who = "",
    config: Config = Path("config"),
) -> None:
    """Đúng từng byte như đã nhận: EML, mbox, Maildir, BagIt, gói nộp lưu / the bytes exactly as received."""
    if format_ not in exports.FORMATS:
        raise typer.BadParameter(f"--format {format_!r}: một trong / one of {', '.join(exports.FORMATS)}")
    if as_delivered and format_ != "eml":
        raise typer.BadParameter("--as-delivered chỉ đi với eml / goes with eml only")
    wanted = [line.strip() for line in sys.stdin if line.strip()] if cases == ["-"] else list(dict.fromkeys(cases))
    if not wanted:
        raise typer.BadParameter("không có mã thư nào / no case id")
    to_stdout = str(output) == "-"
    if to_stdout and (format_ not in ("eml", "mbox") or (format_ == "eml" and len(wanted) > 1)):
        raise typer.BadParameter("-o - : một thư eml, hoặc mbox / one message as eml, or mbox")
    folder = format_ in exports.FOLDERS or (format_ == "eml" and len(wanted) > 1)
    if folder and output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        typer.echo(f"congvan: {output} đã có / is there already and not empty", err=True)
        raise typer.Exit(EX_USAGE)
    person = at_the_keyboard(who)

    async def work(archive: Archive) -> int:
        try:
            return await hand_out(archive)
        except OSError as error:
            typer.echo(f"congvan: {error.filename or output}: {error.strerror}", err=True)
            return EX_USAGE

    async def hand_out(archive: Archive) -> int:
        states = await custody.states(archive, wanted)
        for case in wanted:  # nothing goes out when one is not there, and no leaf tells of what was not shown
            if await archive.row(case) is None:
                raise KeyError(case)
            if "destroyed" in states.get(case, {}):
                raise Failure("", f"{case}: đã hủy / destroyed", retryable=False)
            if told := states.get(case, {}).get("recalled"):
                typer.echo(f"congvan: {case}: đã thu hồi / recalled ({told['at'][:10]})", err=True)
        await custody.access(archive, person, "export", wanted, reason=reason, format=format_)
        if format_ == "eml" and len(wanted) == 1:
            row = await archive.row(wanted[0])
            assert row is not None
            data = (row["trace"] if as_delivered else b"") + await archive.data(wanted[0])
            if to_stdout:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            else:
                await asyncio.to_thread(output.write_bytes, data)
            return 0
        told_about = exports.Package(file_code=file_code, title=title, person=person.name)
        notes = await exports.write(archive, wanted, None if to_stdout else output, format_, told_about)
        for note in notes:
            typer.echo(f"congvan: {note}", err=True)
        return 0

    run(config, work)


@app.command("compare")
def compare_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="PDF, DOCX, EML …", exists=True, dir_okay=False)],
    record: Annotated[
        bool, typer.Option("--record", help='Ghi lại "đã đối chiếu" / put on record that it was compared')
    ] = False,
    reason: Reason = "",
    who: Who = "",
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Đối chiếu tệp với kho: giống hệt, cùng bản đã ký, khác nội dung, không có / hold files against the archive.

    Exit code 0: every file is in the archive, as it is or as a revision of the same signed file; 1: not so.
    """
    settings = read_settings(config)
    person = at_the_keyboard(who)

    async def work(archive: Archive) -> int:
        trust = config / "trust"
        budget = settings.budget.model_dump(mode="json")
        inspector = Inspector(
            {"budget": budget, "trust": str(trust.resolve()) if trust.is_dir() else ""},
            workers=1, seconds=settings.budget.seconds, log=structlog.get_logger(),
        )  # fmt: skip
        running = asyncio.create_task(inspector.run())
        try:
            answers: list[tuple[Path, Answer]] = []
            for path in files:
                data = await asyncio.to_thread(path.read_bytes)
                reading = asyncio.create_task(inspector.file(data, path.name))
                await asyncio.wait({reading, running}, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
                facts: Inspection = await reading
                answers.append((path, await compare(archive, data, facts)))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await inspector.stop()
        found = list(dict.fromkeys(match["case"] for _, one in answers for match in one.matches))
        results = [
            {"sha256": one.sha256, "result": one.result, "cases": [match["case"] for match in one.matches][:100]}
            for _, one in answers
        ]
        if record:
            body: dict[str, Any] = {**person.told(), "files": results, "result": _worst(answers)}
            body |= {"reason": reason} if reason else {}
            body |= {"cases": found[:1000]} if len(found) > 1 else {}
            await archive.note("compare", body, case=found[0] if len(found) == 1 else "")
        else:
            await custody.access(archive, person, "compare", found, reason=reason, files=results)
        for path, one in answers:
            if as_json:
                dump(
                    {
                        "file": str(path), "result": one.result, "sha256": one.sha256, "size": one.size,
                        "document_code": one.document_code, "since": one.matches[0]["since"] if one.matches else None,
                        "matches": one.matches, "recorded": record,
                    }
                )  # fmt: skip
            else:
                _print_compared(path, one)
        return 0 if all(one.result in (SAME, REVISION) for _, one in answers) else EX_NO

    run(config, work)


_RESULTS = {
    SAME: "GIỐNG HỆT bản lưu / the archived bytes",
    REVISION: "CÙNG BẢN ĐÃ KÝ với bản lưu / the same signed revision",
    OTHER: "CÙNG SỐ, KHÁC NỘI DUNG / the same number, other content",
    NOTHING: "KHÔNG CÓ trong kho / not in the archive",
}


def _worst(answers: list[tuple[Path, Answer]]) -> str:
    return max((one.result for _, one in answers), key=list(_RESULTS).index)


def _print_compared(path: Path, one: Answer) -> None:
    number = f"  số/number {one.document_code}" if one.document_code else ""
    typer.echo(f"{path}: {_RESULTS[one.result]}{number}")
    for match in one.matches:
        to = ", ".join(match["recipients"])
        state = "".join(f"  [{told}]" for name, told in _STATES.items() if name in match)
        state += "  [nhập từ tệp/imported]" if match["kind"] == "imported" else ""
        typer.echo(f"    {match['case']}  từ/since {match['since'][:16]}  {match['sender'] or '<>'} → {to}{state}")
        if match["file"]:
            typer.echo(f"        tệp/file {match['file']}")
        if "below_header_bytes" in match:
            typer.echo(
                f"        dưới {match['below_header_bytes']} byte đầu thư của máy chủ / below servers' header fields"
            )
        if "revision" in match:
            start, end = match["revision"]["range"]
            typer.echo(f"        byte {start}–{end} giống nhau và được ký / equal and signed")


@app.command("access")
def access_(
    case: Annotated[str, typer.Argument(metavar="[CASE]", help="Mã thư; bỏ trống: mọi thư / case id")] = "",
    who: Annotated[str, typer.Option("--who", help="Chỉ của người hoặc tài khoản này / of this person only")] = "",
    since: Annotated[str | None, typer.Option(help="Từ ngày / from (2026-11-20)")] = None,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Ai đã xem, tìm, xuất, đối chiếu gì / who was shown what; read from the leaves of the tree."""

    async def work(archive: Archive) -> int:
        for one in await custody.accesses(archive, case, who, moment(since) or 0):
            if as_json:
                dump(one)
                continue
            act = one.get("act") or one["type"]
            about = one.get("case") or f"{_count(one.get('cases'))} thư"
            asked = f"  {json.dumps(one['question'], ensure_ascii=False)}" if one.get("question") else ""
            why = f"  ({one['reason']})" if one.get("reason") else ""
            name = one["who"] if one["who"] == one["login"] else f"{one['who']} ({one['login']})"
            typer.echo(f"{one['t'][:19]}  {name}  {act}  {about}{asked}{why}")
        return 0

    run(config, work)


def _count(cases: Any) -> int:
    return int(cases["count"]) if isinstance(cases, dict) else len(cases or ())


@app.command()
def index(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Bỏ và lập lại / throw it away and make it again")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Thử lại với 200 thư ngẫu nhiên; sai thì lập lại / try 200 messages by chance"),
    ] = False,
    as_json: Json = False,
    config: Config = Path("config"),
) -> None:
    """Chỉ mục tìm kiếm: đã tới đâu, có lỗi gì / the search index: how far it is, what is wrong with it."""

    async def work(archive: Archive) -> int:
        def look() -> tuple[dict[str, Any], str]:
            problem = archive.index.state()["problem"]
            if rebuild:
                archive.index.rebuild(progress)
            elif check:
                problem = archive.index.check(200, progress=progress) or problem
            with contextlib.suppress(Failure):
                archive.index.catch_up(progress=progress)
            return archive.index.state(), problem

        state, before = await asyncio.to_thread(look)
        healed = bool(before) and not state["problem"]
        if as_json:
            dump({**state, "healed": healed})
        else:
            typer.echo(f"{state['messages']} thư / messages, {state['indexed']} lá / leaves, {state['bytes']} byte")
            if state["lag"]:
                typer.echo(f"còn {state['lag']} lá chưa lập chỉ mục / leaves not indexed yet")
            if healed:
                typer.echo(f"đã lập lại: {before} / made again")
            if state["problem"]:
                typer.echo(f"lỗi / problem: {state['problem']}")
        return EX_NO if state["lag"] or state["problem"] else 0

    run(config, work)
