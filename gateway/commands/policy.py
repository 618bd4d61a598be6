"""`congvan check`, `explain`, `replay`: a policy tried before it counts."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import alerts, blobfile, config, custody, directory, policy, returns, schemas, trials, wording
from gateway.errors import ConfigError, Failure, Problem
from gateway.inspection import ocr
from gateway.inspection.findings import Document, Inspection
from gateway.message import VIETNAM, Address, Envelope, NullSender, Origin, Recipient

app = typer.Typer()

Config = Annotated[Path, typer.Option("--config", help="Thư mục cấu hình / configuration folder")]
Json = Annotated[bool, typer.Option("--json", help="Mỗi dòng một đối tượng JSON / one JSON object a line")]

_VERDICTS = {
    "deliver": "chuyển",
    "deliver-warn": "chuyển, có nhắc",
    "hold": "tạm giữ",
    "return": "trả lại",
    "reject-malware": "từ chối vì mã độc",
    "block-secret": "từ chối vì dấu hiệu mật",
}


def _moment(text: str | None, option: str) -> dt.datetime | None:
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option}: {text!r}: ví dụ / such as 2014-07-01T08:00:00+07:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=VIETNAM)


# -- check -----------------------------------------------------------------------------------------------------------


@app.command()
def check(
    folder: Config = Path("config"),
    against: Annotated[
        Path | None, typer.Option(help="Một policy.yaml khác: đổi gì / what another policy changes")
    ] = None,
    share: Annotated[float, typer.Option(help="Phần thư được phép đổi kết quả, 0–1 / allowed share of changes")] = 0.05,
    write_schema: Annotated[bool, typer.Option("--write-schema", help="Ghi lại các tệp / write *.schema.json")] = False,
    as_json: Json = False,
) -> None:
    """Kiểm tra toàn bộ cấu hình / validate everything.

    Mã thoát / exit code 0: tốt / good; 1: thử nghiệm chính sách không đạt, hoặc --against đổi quá nhiều / a policy test
    fails or --against changes too much; 2: lỗi / errors, tệp:dòng:cột / file:line:column.
    """
    if write_schema:
        for path in schemas.write(folder):
            typer.echo(path)
        raise typer.Exit(0)
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"--share {share}: từ 0 đến 1 / from 0 to 1")
    if not folder.is_dir():
        raise ConfigError([Problem(str(folder), 0, 0, "no such folder; --config names it")])
    problems, judged_by, agencies = _load_all(folder)
    if problems or judged_by is None or agencies is None:
        for problem in sorted({_whole(folder, one) for one in problems}):
            if as_json:
                row = {name: getattr(problem, name) for name in (*problem.__slots__, "vi")}
                typer.echo(json.dumps(row, ensure_ascii=False))
            else:
                typer.echo(str(problem), err=True)
        raise typer.Exit(2)
    code = 0
    outcomes = trials.run(sorted((folder / "trials").glob("*.yaml")), judged_by, agencies, _reader(folder))
    for outcome in outcomes:
        if as_json:
            row = {
                "file": outcome.file,
                "line": outcome.line,
                "trial": outcome.name,
                "differences": outcome.differences,
            }
            typer.echo(json.dumps(row, ensure_ascii=False))
        for difference in outcome.differences:
            code = 1
            if not as_json:
                place = folder / outcome.file
                told = f"{outcome.name}: {wording.vietnamese(difference) or difference}"
                typer.echo(f"{place}:{outcome.line}: {told}\n    {difference}", err=True)
    today = dt.datetime.now(VIETNAM).date()
    for name, end in judged_by.observed():
        if not as_json:
            late = " (đã hết hạn / is over)" if end < today else ""
            typer.echo(f"{name}: chỉ theo dõi đến {end:%d/%m/%Y} / observed only until {end}{late}")
    if against is not None:
        changed = _against(folder, agencies, against)
        if changed.share > share:
            code = 1
        line = f"{len(changed.changes)} / {changed.total} ({changed.share:.1%})"
        limit = f"{share:.1%}"
        if as_json:
            row = {
                "against": str(against),
                "messages": changed.total,
                "changed": len(changed.changes),
                "allowed": share,
            }
            typer.echo(json.dumps(row))
        elif changed.share > share:
            typer.echo(f"{against}: đổi kết quả {line} thư, quá mức {limit} / changes too many messages", err=True)
        else:
            typer.echo(f"{against}: đổi kết quả {line} thư / messages change")
    if not as_json:
        count = sum(1 for _ in agencies.agencies())
        boxes = sum(1 for _ in agencies.mailboxes())
        state = "có thử nghiệm không đạt" if code else "tốt"
        typer.echo(
            f"{folder}: {state}; {judged_by.default}, {judged_by.digest[:16]}, "
            f"{count} cơ quan, {boxes} hộp thư, {len(outcomes)} thử nghiệm"
        )
    raise typer.Exit(code)


def _whole(folder: Path, problem: Problem) -> Problem:
    """The problem with the path of its file as somebody at the keyboard can open it."""
    inside = problem.file.startswith(str(folder))
    return problem if inside else replace(problem, file=str(folder / problem.file))


def _load_all(folder: Path) -> tuple[list[Any], policy.Policy | None, directory.Directory | None]:
    """Everything that is wrong anywhere in a configuration, and what could be loaded."""
    from gateway.inspection.trust import TrustStore

    problems: list[Any] = []
    settings = judged_by = agencies = None
    try:
        settings = config.read(folder)
        problems += _files(folder, settings)
    except ConfigError as error:
        problems += error.problems
    try:
        judged_by = policy.load(folder)
    except ConfigError as error:
        problems += error.problems
    try:
        agencies = directory.load(folder / "directory")
    except ConfigError as error:
        problems += error.problems
    try:
        custody.read_retention(folder)
    except ConfigError as error:
        problems += error.problems
    if judged_by is not None and agencies is not None:
        problems += [_located(folder, one) for one in policy.cross_check(judged_by, agencies)]
    try:
        returns.Templates(folder / "templates").check()
    except ConfigError as error:
        problems += error.problems
    if settings is not None and settings.alerts is not None and agencies is not None:
        missing = alerts.unreachable(settings.alerts, agencies, dt.datetime.now(VIETNAM).date())
        if missing:  # a state, not a mistake: the administrator is told instead
            named = ", ".join(missing[:5]) + (f" … ({len(missing)})" if len(missing) > 5 else "")
            typer.echo(
                f"directory/agencies: chưa có lãnh đạo, người thay hay văn thư để báo văn bản khẩn / nobody to tell of"
                f" urgent documents: {named}",
                err=True,
            )
    for path in sorted((folder / "trials").glob("*.yaml")):
        try:
            trials.load(path, f"trials/{path.name}")
        except ConfigError as error:
            problems += error.problems
    if (folder / "trust").is_dir():
        store = TrustStore.load(folder / "trust")
        empty = [one for one in store.problems if one.text.startswith("no trusted root")]
        problems += [replace(one, file=f"trust/{one.file}") for one in store.problems if one not in empty]
        if empty:  # a state, not a mistake: every signature is UNTRUSTED_CHAIN and its message held
            typer.echo(f"{folder}/trust: chưa có gốc tin cậy / no trusted root: chữ ký số sẽ bị tạm giữ", err=True)
    return problems, judged_by, agencies


def _files(folder: Path, settings: config.Gateway) -> list[Problem]:
    """Files that `gateway.yaml` names and that cannot be used, and domains without a way to their mailboxes."""
    named = {"tls.certificate": settings.tls.certificate, "tls.key": settings.tls.key}
    if settings.passwords is not None:
        named["passwords.ca"] = settings.passwords.ca
    if settings.timestamps is not None:
        named["timestamps.ca"] = settings.timestamps.ca
    for hop in settings.next_hops:
        named |= {f"next_hops.{hop.name}.ca": hop.ca, f"next_hops.{hop.name}.password_file": hop.password_file}
    found = []
    # A credential is there only when the service manager starts the daemon, so only files are looked at.
    if (keys := settings.store.encryption) is not None:
        for path in filter(None, (keys.key.file, *keys.former)):
            try:
                blobfile.read_wrapping_key(path)
            except Failure as failure:
                found.append(f"store.encryption: {failure.private}")
    if (bucket := settings.store.s3) is not None:
        named |= {"store.s3.credentials": bucket.credentials.file, "store.s3.ca": bucket.ca}
    for key, path in named.items():
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            found.append(f"{key}: {path}: {error.strerror}")
    if not found and settings.tls.certificate is not None and settings.tls.key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                settings.tls.certificate, settings.tls.key
            )
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            found.append(f"tls: certificate and key cannot be used together: {reason}")
    for domain in settings.domains:
        if settings.hop_for(domain.removeprefix(".")) is None:
            found.append(f"domains: {domain!r} has no next hop; add it to the `domains` of one, or use '*'")
    if settings.alerts is not None:
        found += alerts.problems(settings.alerts)
    if settings.budget.ocr:
        try:
            ocr.data_folder()
        except ocr.Unavailable as error:  # a state, not a mistake: unread scans are told or held
            words = "bản quét không đọc được chữ / scans are not read: apt install tesseract-ocr-vie"
            typer.echo(f"{folder}: {error}: {words}", err=True)
    return [_located(folder, Problem("gateway.yaml", 0, 0, text)) for text in found]


def _located(folder: Path, problem: Problem) -> Problem:
    """A problem that was found in values, with the place in its file of the key that its text begins with."""
    head = problem.text.partition(": ")[0]
    if problem.file == "directory/agencies":
        return directory.placed(folder / "directory", head.removeprefix("agency "), "profile", problem)
    steps: list[Any] = []
    node = data = config.load_yaml(folder / problem.file)
    for step in head.split("."):
        named = range(len(node)) if isinstance(node, list) else ()
        at = next((n for n in named if step in (node[n].get("name"), node[n].get("id"))), step)
        if not isinstance(at, int) and not (isinstance(node, dict) and at in node):
            break
        steps.append(at)
        node = node[at]
    line, column = config.place(data, steps)
    return replace(problem, line=line, column=column)


def _reader(folder: Path) -> trials.Reader:
    settings = _settings(folder)

    def read(path: Path) -> Inspection:
        from gateway.inspection import examine

        return examine.examine_message(path.read_bytes(), settings)

    return read


def _settings(folder: Path) -> Any:
    """What examining needs; a missing gateway.yaml means the default budgets."""
    from gateway.inspection import examine

    budget = config.read(folder).budget if (folder / "gateway.yaml").exists() else config.Budget.model_validate({})
    trust = folder / "trust"
    return examine.Settings(budget, trust if trust.is_dir() else None, None)


def _against(folder: Path, agencies: directory.Directory, new: Path) -> Any:
    return _replayed(folder, policy.load(folder, new), agencies)


def _replayed(
    folder: Path,
    judged_by: policy.Policy,
    agencies: directory.Directory,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    processes: int = 2,
) -> Any:
    from gateway import replay
    from gateway.database import Database
    from gateway.objectstore import open_store

    settings = config.read(folder)
    if settings.database_url.startswith("sqlite") and not (settings.data / "gateway.db").exists():
        told = f"data: no archive in {settings.data} yet; start `congvan serve` once, or mend `data`"
        raise ConfigError([_located(folder, Problem("gateway.yaml", 0, 0, told))])
    database = Database.open(settings.database_url)
    inspect = replay.inspector(open_store(settings), _settings(folder))
    try:
        with database.engine.connect() as connection:
            rows = replay.stored(connection, since, until)
            return replay.run(rows, judged_by, agencies, processes, inspect)
    finally:
        database.close()


# -- explain ---------------------------------------------------------------------------------------------------------


@app.command()
def explain(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.eml…", help="Thư cần xét / messages")],
    folder: Config = Path("config"),
    mail_from: Annotated[str | None, typer.Option(help="Người gửi trên phong bì; mặc định From / sender")] = None,
    rcpt: Annotated[list[str] | None, typer.Option(help="Người nhận; mặc định To, Cc / recipient")] = None,
    at: Annotated[str | None, typer.Option(help="Thời điểm nhận; mặc định bây giờ / time, RFC 3339")] = None,
    direction: Annotated[str | None, typer.Option(help="in, out, internal; mặc định theo danh bạ / direction")] = None,
    authenticated: Annotated[
        str | None, typer.Option(help="Địa chỉ đã đăng nhập hoặc đúng DKIM/SPF / login, or proved by DKIM, SPF")
    ] = None,
    as_json: Json = False,
) -> None:
    """Thư này sẽ ra sao và vì sao; không đụng vào gì / what would happen and why.

    Mã thoát / exit code 0: mọi thư được chuyển hoặc tạm giữ / all would be delivered or held; 1: có thư bị trả lại, từ
    chối hoặc chặn / one would be returned, rejected or blocked; 2: sai cách dùng / usage.
    """
    if direction not in (None, "in", "out", "internal"):
        raise typer.BadParameter("--direction: in, out, internal")
    moment = _moment(at, "--at") or dt.datetime.now(VIETNAM)
    judged_by, agencies = policy.load(folder), directory.load(folder / "directory")
    inspect = _reader(folder)
    code = 0
    archive = _archive(folder)
    for path in files:
        try:
            facts = inspect(path)
        except OSError as error:
            typer.echo(f"congvan: {path}: {error.strerror}", err=True)
            code = 2
            continue
        found = situation(agencies, facts, moment, mail_from, rcpt or [], direction, authenticated)
        found = replace(
            found, history=policy.history(agencies, found.envelope.sender.key, moment, facts, _known(archive, facts))
        )
        verdict, traces = policy.explain(judged_by, agencies, found)
        if as_json:
            typer.echo(json.dumps(as_dict(str(path), verdict, traces), ensure_ascii=False))
        else:
            typer.echo(as_text(str(path), found, verdict, traces))
        if verdict.disposition >= policy.Disposition.RETURN:
            code = code or 1
    if archive is not None:
        archive.close()
    raise typer.Exit(code)


def _archive(folder: Path) -> Any:
    """The archive's database, or None where there is none yet."""
    from gateway.database import Database

    try:
        settings = config.read(folder)
    except ConfigError:
        return None
    if settings.database_url.startswith("sqlite") and not (settings.data / "gateway.db").exists():
        return None
    return Database.open(settings.database_url)


def _known(archive: Any, facts: Inspection) -> tuple[policy.KnownDocument, ...]:
    """Documents of the archive with the message's numbers."""
    from gateway.archive import known_documents

    if archive is None:
        return ()
    with archive.engine.connect() as connection:
        return known_documents(connection, facts)


def situation(
    agencies: directory.Directory,
    facts: Inspection,
    at: dt.datetime,
    mail_from: str | None,
    rcpt: list[str],
    direction: str | None,
    authenticated: str | None,
) -> policy.Situation:
    """A message as it would arrive. Outgoing mail comes from a login (its sender's own unless another is named);
    incoming mail with `authenticated` counts as proved by aligned DKIM or SPF."""
    message = facts.message
    sender = mail_from if mail_from is not None else (message.from_[0].address if message.from_ else "")
    named = rcpt or [one.address for one in (*message.to, *message.cc) if one.address]
    recipients = tuple(Recipient(_address(one)) for one in dict.fromkeys(named))
    reverse = _address(sender) if sender.strip("<>") else NullSender()
    login = authenticated or ""
    if direction is None:
        known = bool(login) and agencies.agency_of(login, at) is not None
        origin = Origin("submission" if known else "relay", "127.0.0.1", login=login if known else "")
        direction = policy.direction(agencies, origin, reverse, recipients, at)
        if direction == "out" and not login:
            origin = Origin("submission", "127.0.0.1", login=sender)
    elif direction == "in":
        origin = Origin("relay", "127.0.0.1")
    else:
        origin = Origin("submission", "127.0.0.1", login=login or sender)
    aligned = bool(authenticated) or bool(origin.login)
    facts = facts.model_copy(update={"sender": facts.sender.model_copy(update={"aligned": aligned})})
    return policy.Situation(at, direction, origin, Envelope(reverse, recipients), facts)


def _address(text: str) -> Address:
    local, at, domain = text.strip("<> ").rpartition("@")
    return Address(local, domain.lower()) if at else Address(domain, "")


def _document(document: Document | None) -> dict[str, str] | None:
    if document is None:
        return None
    fields = ("code", "date", "abstract", "signer", "kind", "issuing_agency")
    return {name: one.value if (one := getattr(document, name)) is not None else "" for name in fields}


def as_dict(file: str, verdict: policy.Verdict, traces: tuple[policy.Trace, ...] = ()) -> dict[str, Any]:
    """The stable keys of `explain --json`."""
    return {
        "file": file,
        "verdict": verdict.disposition.text,
        "message_class": verdict.message_class,
        "profile": verdict.profile,
        "delivery_mode": verdict.delivery_mode,
        "findings": [
            {
                "rule": one.rule,
                "mode": one.mode,
                "disposition": one.disposition.text,
                "about": one.about,
                "where": one.where,
                "evidence": one.evidence,
                "legal_basis": one.legal_basis,
                "vi": one.vi,
                "en": one.en,
                "cure_vi": one.cure_vi,
                "cure_en": one.cure_en,
                "recipients": list(one.recipients),
            }
            for one in verdict.findings
        ],
        "recipients": [{"address": one.address, "verdict": one.disposition.text} for one in verdict.recipients],
        "document": _document(verdict.document),
        "urgency": verdict.urgency,
        "headers": [list(one) for one in verdict.headers],
        "rules": [
            {"rule": one.rule, "status": one.status, "why": one.why, "mode": one.mode, "profile": one.profile}
            for one in traces
        ],
        "policy_digest": verdict.policy_digest,
    }


_STATUS = {"hit": "có", "miss": "không", "not_applicable": "không áp dụng", "off": "không bật"}


def as_text(file: str, found: policy.Situation, verdict: policy.Verdict, traces: tuple[policy.Trace, ...]) -> str:
    """The same for a person, Vietnamese first."""
    to = ", ".join(one.address for one in verdict.recipients) or "(không có người nhận)"
    rows = [
        f"{file}: {_VERDICTS[verdict.disposition.text]} ({verdict.disposition.text})",
        f"  {found.envelope.sender if found.envelope.sender.key else '<>'} → {to}",
        f"  {found.at.isoformat()} · {found.direction} · {verdict.message_class} · {verdict.profile} · "
        f"{verdict.delivery_mode}",
    ]
    document = {key: value for key, value in (_document(verdict.document) or {}).items() if value}
    if document:
        rows.append("  " + "; ".join(f"{key}: {value}" for key, value in document.items()))
    for one in verdict.findings:
        place = " ".join(filter(None, (one.about, one.where)))
        rows.append(f"\n  {one.rule} [{one.mode} → {one.disposition.text}] {place}")
        rows.append(f"    {one.vi}")
        rows += [f"    → {one.cure_vi}"] if one.cure_vi else []
        rows.append(f"    {one.en}")
        rows += [f"    Căn cứ: {one.legal_basis}"] if one.legal_basis else []
        rows += [f"    Người nhận: {', '.join(one.recipients)}"] if one.recipients else []
    different = {one.disposition for one in verdict.recipients}
    if len(different) > 1:
        rows += ["", *(f"  {one.address}: {one.disposition.text}" for one in verdict.recipients)]
    rows.append("\n  Mọi quy tắc / every rule:")
    rows += [f"    {one.rule:<8} {_STATUS[one.status]:<14} {one.why}" for one in traces if one.status != "off"]
    off = [one.rule for one in traces if one.status == "off"]
    rows += [f"    {'không bật:':<23} {', '.join(off)}"] if off else []
    rows.append(f"  {verdict.policy_digest[:16]}")
    return "\n".join(rows)


# -- replay ----------------------------------------------------------------------------------------------------------


@app.command("replay")
def replay_(
    new: Annotated[Path, typer.Option("--policy", help="policy.yaml muốn thử / the policy to try")],
    folder: Config = Path("config"),
    since: Annotated[str | None, typer.Option(help="Từ thời điểm / from")] = None,
    until: Annotated[str | None, typer.Option(help="Đến trước thời điểm / until")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Số tiến trình / processes")] = 2,
    as_json: Json = False,
) -> None:
    """Xét lại thư đã lưu theo chính sách khác, từ dữ kiện đã ghi / the archive under another policy."""
    start, end = _moment(since, "--since"), _moment(until, "--until")
    judged_by, agencies = policy.load(folder, new), directory.load(folder / "directory")
    result = _replayed(folder, judged_by, agencies, start, end, processes)
    rules = sorted(set(result.rules_before) | set(result.rules_after))
    if as_json:
        for rule, agency in rules:
            row = {
                "rule": rule,
                "agency": agency,
                "before": result.rules_before[rule, agency],
                "after": result.rules_after[rule, agency],
            }
            typer.echo(json.dumps(row, ensure_ascii=False))
        for one in result.changes:
            row = {
                "case": one.case,
                "at": one.at.isoformat(timespec="seconds"),
                "agency": one.agency,
                "before": one.before,
                "after": one.after,
                "rules_before": one.rules_before,
                "rules_after": one.rules_after,
            }
            typer.echo(json.dumps(row, ensure_ascii=False))
        for case in result.inspected:
            typer.echo(json.dumps({"case": case, "inspected": True}))
        for case in result.unreadable:
            typer.echo(json.dumps({"case": case, "error": "facts cannot be read"}))
    else:
        typer.echo(f"{result.total} thư, {len(result.changes)} đổi kết quả; chính sách {judged_by.digest[:16]}")
        for name in sorted(set(result.verdicts_before) | set(result.verdicts_after)):
            typer.echo(f"  {name:<15} {result.verdicts_before[name]:>8} → {result.verdicts_after[name]:>8}")
        for rule, agency in rules:
            before, after = result.rules_before[rule, agency], result.rules_after[rule, agency]
            if before != after:
                typer.echo(f"  {rule:<18} {agency:<20} {before:>8} → {after:>8}")
        for one in result.changes[:200]:
            typer.echo(f"  {one.case} {one.agency} {one.before} → {one.after}: {', '.join(one.rules_after) or '—'}")
        if len(result.changes) > 200:
            typer.echo(f"  … và {len(result.changes) - 200} thư khác (--json: tất cả)")
        if result.inspected:
            typer.echo(f"  {len(result.inspected)} thư phải kiểm tra lại từ bản gốc / inspected again")
        if result.unreadable:
            print(f"congvan: {len(result.unreadable)} thư không đọc được dữ kiện", file=sys.stderr)
    raise typer.Exit(0)
