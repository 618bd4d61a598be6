"""`congvan trust …`: whom this installation trusts to certify signers, and whether that is in order."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.message import VIETNAM

app = typer.Typer(help="Kho chứng thư tin cậy / trusted certificates", no_args_is_help=True)

ConfigOption = Annotated[Path, typer.Option("--config", help="Thư mục cấu hình / configuration folder")]
JsonOption = Annotated[bool, typer.Option("--json", help="Một đối tượng JSON mỗi dòng / one JSON object a line")]

WORLD_VI = {"chuyen_dung": "gốc chuyên dùng công vụ", "quoc_gia": "gốc quốc gia", "": "trung gian"}


@app.command("list")
def list_(config: ConfigOption = Path("config"), as_json: JsonOption = False) -> None:
    """Liệt kê chứng thư và danh sách thu hồi / certificates and revocation lists in use."""
    from gateway.inspection.trust import TrustStore

    store = TrustStore.load(config / "trust")
    for one in (*store.roots, *store.intermediates):
        row = {
            "file": one.file,
            "kind": one.world or "intermediate",
            "name": one.name,
            "sha256": one.fingerprint,
            "valid_from": _show(one.certificate.not_valid_before_utc),
            "valid_to": _show(one.certificate.not_valid_after_utc),
        }
        text = f"{WORLD_VI[one.world]}: {row['name']}\n  {row['file']}  đến {row['valid_to']}\n  sha256 {row['sha256']}"
        typer.echo(json.dumps(row, ensure_ascii=False) if as_json else text)
    if not store.roots and not as_json:
        typer.echo("Chưa có gốc tin cậy, xem trust/README.md / no trusted root yet, see trust/README.md", err=True)
    now = dt.datetime.now(dt.UTC)
    for name, revoked in store.crls.items():
        until = revoked.next_update_utc
        state: dict[str, object] = {
            "file": f"crl/{name}",
            "kind": "crl",
            "name": revoked.issuer.rfc4514_string(),
            "valid_from": _show(revoked.last_update_utc),
            "valid_to": _show(until) if until else "",
            "stale": until is None or until < now,
        }
        late = "  QUÁ HẠN" if state["stale"] else ""
        text = f"danh sách thu hồi: {state['name']}\n  {state['file']}  đến {state['valid_to']}{late}"
        typer.echo(json.dumps(state, ensure_ascii=False) if as_json else text)


@app.command()
def check(config: ConfigOption = Path("config"), as_json: JsonOption = False) -> None:
    """Kiểm tra kho chứng thư; mã thoát 1 khi có vấn đề / exit code 1 when something is wrong."""
    from gateway.inspection.trust import TrustStore

    store = TrustStore.load(config / "trust")
    problems = [(one.file, one.text) for one in store.problems]
    now = dt.datetime.now(dt.UTC)
    for name, revoked in store.crls.items():
        if revoked.next_update_utc is None or revoked.next_update_utc < now:
            problems.append((f"crl/{name}", "stale: signatures it should answer for become UNKNOWN_REVOCATION"))
    for one in (*store.roots, *store.intermediates):
        if one.certificate.not_valid_after_utc < now:
            problems.append((one.file, f"expired {_show(one.certificate.not_valid_after_utc)}"))
    for one in store.intermediates:
        if store.path_of_authority(one.certificate) is None:
            problems.append((one.file, "leads to no root of this store"))
    for file, text in problems:
        typer.echo(json.dumps({"file": file, "problem": text}, ensure_ascii=False) if as_json else f"{file}: {text}")
    if problems:
        raise typer.Exit(1)
    if not as_json:
        typer.echo(f"{len(store.roots)} gốc, {len(store.intermediates)} trung gian, {len(store.crls)} CRL: tốt / good")


def _show(at: dt.datetime) -> str:
    return at.astimezone(VIETNAM).isoformat(timespec="seconds")
