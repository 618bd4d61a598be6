"""`congvan verify-proof`: one document against its proof, offline. Needs no archive and no configuration."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.hashtree import BadProof, Verifier, check_proof

app = typer.Typer()


@app.command("verify-proof")
def verify_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Thư .eml hoặc tệp đính kèm / message or attachment")],
    proof: Annotated[Path, typer.Option(help="Tệp từ `archive prove` / proof file")],
    key: Annotated[str, typer.Option(help="Khóa công khai của kho, hoặc tệp chứa nó / the log's public key")],
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Kiểm chứng một thư bằng tệp chứng minh: 0 đúng, 1 không đúng / check a proof: 0 holds, 1 does not."""
    try:
        verifier = Verifier.parse(Path(key).read_text() if Path(key).is_file() else key)
        text = proof.read_text()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except (BadProof, OSError, UnicodeDecodeError) as error:
        typer.echo(f"congvan: {error}", err=True)
        raise typer.Exit(2) from None
    try:
        proved = check_proof(text, verifier)
        index, entry, checkpoint = proved.index, json.loads(proved.entry), proved.checkpoint
        what = matches(entry, digest)
    except (BadProof, ValueError) as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "reason": str(error)}))
        else:
            typer.echo(f"KHÔNG ĐÚNG / does not hold: {error}")
        raise typer.Exit(1) from None
    answer = {
        "ok": True,
        "what": what,
        "sha256": digest,
        "case": entry["case"],
        "leaf": index,
        "archived_at": entry["t"],
        "received_at": entry["received"],
        "sender": entry["sender"],
        "recipients": entry["recipients"],
        "verdict": entry["verdict"],
        "log": checkpoint.origin,
        "signed_leaves": checkpoint.size,
        "signed": list(checkpoint.extra),
    }
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        typer.echo("ĐÚNG / holds")
        for name, value in answer.items():
            typer.echo(f"  {name}: {value}")


def matches(entry: object, digest: str) -> str:
    """What of the entry has this digest: `message` or the path of an attachment. Raises BadProof."""
    if not isinstance(entry, dict) or entry.get("type") != "message":
        raise BadProof("the entry is not of a message")
    if entry.get("sha256") == digest:
        return "message"
    files = entry.get("files")
    for one in files if isinstance(files, list) else ():
        if one.get("sha256") == digest:
            return str(one["path"])
    raise BadProof("the file is neither the message of this proof nor one of its attachments")
