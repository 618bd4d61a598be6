"""`congvan verify-proof`: one document against its proof, offline. Needs no archive and no configuration."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import timestamps
from gateway.archive import from_ms, stamp
from gateway.hashtree import BadProof, Proof, Verifier, check_proof, signatures_by, split_note

app = typer.Typer()


@app.command("verify-proof")
def verify_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Thư .eml hoặc tệp đính kèm / message or attachment")],
    proof: Annotated[Path, typer.Option(help="Tệp từ `archive prove` / proof file")],
    key: Annotated[str, typer.Option(help="Khóa công khai của kho, hoặc tệp chứa nó / the log's public key")],
    witness: Annotated[
        list[str] | None,
        typer.Option(help="Khóa bên chứng kiến phải có chữ ký / key of a witness that must have signed"),
    ] = None,
    tsa_ca: Annotated[
        Path | None, typer.Option(help="Chứng thư gốc của bên cấp dấu thời gian (PEM) / roots of the time stamps")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Một đối tượng JSON / one JSON object")] = False,
) -> None:
    """Kiểm chứng một thư bằng tệp chứng minh: 0 đúng, 1 không đúng / check a proof: 0 holds, 1 does not."""
    try:
        verifier = read_key(key)
        witnesses = [read_key(one) for one in witness or ()]
        roots = timestamps.read_roots(tsa_ca) if tsa_ca is not None else None
        text = proof.read_text()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except (BadProof, timestamps.BadStamp, OSError, UnicodeDecodeError) as error:
        typer.echo(f"congvan: {error}", err=True)
        raise typer.Exit(2) from None
    try:
        proved = check_proof(text, verifier)
        entry = json.loads(proved.entry)
        what = matches(entry, digest)
        attested = others(proved, witnesses, roots)
    except (BadProof, ValueError) as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "reason": str(error)}))
        else:
            typer.echo(f"KHÔNG ĐÚNG / does not hold: {error}")
        raise typer.Exit(1) from None
    times = entry.get("times", {})
    answer = {
        "ok": True,
        "what": what,
        "kind": entry["kind"],
        "sha256": digest,
        "case": entry["case"],
        "leaf": proved.index,
        "archived_at": entry["t"],
        "received_at": entry["received"],
        "clock_synchronised": times.get("clock_synchronised"),
        "first_received_field": times.get("first_received", ""),
        "date_field": times.get("date_field", ""),
        "sender": entry["sender"],
        "recipients": entry["recipients"],
        "verdict": entry["verdict"],
        "log": proved.checkpoint.origin,
        "signed_leaves": proved.checkpoint.size,
        "signed": list(proved.checkpoint.extra),
        **attested,
    }
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        typer.echo("ĐÚNG / holds")
        for name, value in answer.items():
            if name == "recipients" and isinstance(value, list):
                value = "; ".join(" ".join(one) for one in value)
            elif isinstance(value, list):
                value = "; ".join(map(str, value)) or "–"
            typer.echo(f"  {name}: {value}")
        if entry["kind"] == "imported":
            typer.echo(
                "ghi chú: thư nhập từ tệp, không ai ở đây thấy nó được gửi hay nhận; chỉ chứng minh nó có trong"
                " kho từ lúc nào"
                " /\n  note: imported from a file; nobody here saw it sent or received, only since when it lies here"
            )


def read_key(text: str) -> Verifier:
    """A key given as itself or as a file that holds it. Raises BadProof, OSError."""
    try:
        named = Path(text).is_file()
    except OSError:  # a key of ML-DSA-44 is too long for a name
        named = False
    return Verifier.parse(Path(text).read_text() if named else text)


def others(proved: Proof, witnesses: list[Verifier], roots: list[Any] | None) -> dict[str, Any]:
    """What witnesses and the time stamp say of the checkpoint. Raises BadProof when one that must have signed did not,
    or the stamp does not hold."""
    body, lines = split_note(proved.note)
    found = {one: at for one, at, _ in signatures_by(body, lines, witnesses)}
    for one in witnesses:
        if one not in found:
            raise BadProof(f"the witness {one.name} has not signed this checkpoint with the key {one.key_id.hex()}")
    names = {line.split(" ")[1] for line in lines} - {proved.checkpoint.origin, *(one.name for one in found)}
    told: dict[str, Any] = {
        "cosigned": [{"witness": one.name, "at": stamp(from_ms(at * 1000))} for one, at in found.items()],
        "cosigned_not_looked_at": sorted(names),
        "time_stamp": "none" if not proved.stamp else "not looked at: no --tsa-ca",
    }
    if proved.stamp and roots is not None:
        try:
            found_stamp = timestamps.check(proved.stamp, body.encode(), roots)
        except timestamps.BadStamp as error:
            raise BadProof(f"the time stamp: {error}") from None
        told["time_stamp"] = found_stamp.at.isoformat()
        told["time_stamp_by"] = found_stamp.authority
    return told


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
