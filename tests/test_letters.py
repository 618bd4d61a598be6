"""Whole messages in the manner of the directives, made from readable YAML and judged by `congvan explain --json`."""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import re
import shutil
import zipfile
from collections import defaultdict
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from bench import text_corpus as corpus
from gateway.commands import policy as commands
from gateway.demo import documents
from gateway.demo.pki import Pki
from gateway.message import VIETNAM

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data" / "policy"
NOW = dt.datetime(2026, 11, 20, 8, tzinfo=VIETNAM)


@cache
def pki() -> Pki:
    return Pki.create(dt.datetime.now(VIETNAM))


def paper(given: dict[str, Any]) -> documents.Paper:
    lists = {name: tuple(given[name]) for name in ("recipients", "body", "to", "title") if name in given}
    return documents.Paper(**{"date": None, **given, **lists})


def made(file: dict[str, Any]) -> bytes:
    """The bytes of one file of a letter."""
    kind = file["make"]
    if kind in ("pdf", "docx", "scan", "jpg", "signed", "tampered"):
        written = paper(file["paper"])
        if kind == "pdf":
            return documents.pdf(written)
        if kind == "docx":
            return in_font(documents.docx(written), file["font"]) if "font" in file else documents.docx(written)
        if kind == "scan":
            return documents.scan(written, seal=file.get("seal", ""))
        if kind == "jpg":
            return documents.image_file(documents.pdf(written))
        signed = documents.signed_pdf(written, pki())
        if kind == "signed":
            return signed
        return signed.replace(b"/Title", b"/Titlf", 1)
    members = {one["name"]: made(one) for one in file.get("files", ())}
    if kind == "zip":
        return documents.plain_zip(members)
    if kind == "locked-zip":
        return documents.encrypted_zip(members, b"123456")
    if kind == "ics":
        return (
            "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:1@x\r\n"
            f"DTSTART:{file['start']}\r\nSUMMARY:Hop\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
        ).encode()
    return {
        "xlsx": lambda: corpus.xlsx([["Nội dung", "Số lượng"], ["Văn bản đến", "120"], [file["name"], "7"]]),
        "pptx": lambda: corpus.pptx(["Kết quả công tác"]),
        "odt": lambda: corpus.odt("Số liệu công tác tháng chín"),
        "text-docx": lambda: corpus.docx("Nội dung tài liệu phục vụ công tác của cơ quan."),
        "dwg": lambda: b"AC1027" + bytes(4000),
        "exe": lambda: b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0" + bytes(500),
        "txt": lambda: "Nội dung".encode(),
    }[kind]()


def in_font(data: bytes, font: str) -> bytes:
    """A Word document with another font in place of Times New Roman."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        members = {name: package.read(name).replace(b"Times New Roman", font.encode()) for name in package.namelist()}
    return documents.plain_zip(members)


def sizes(files: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for file in files:
        found[file["name"]] = len(made(file))
        found |= sizes(file.get("files", []))
    return found


def letter(given: dict[str, Any]) -> bytes:
    message = EmailMessage(policy=SMTP)
    shown = given.get("display", "")
    lines = [
        f"From: {encoded(shown)} <{given['from']}>".replace(":  <", ": <"),
        f"To: {', '.join(f'<{one}>' for one in given['to'])}",
        f"Subject: {encoded(given.get('subject', 'Gửi văn bản'))}",
        "Date: Fri, 20 Nov 2026 09:00:00 +0700",
        "Message-ID: <1@example>",
    ]
    if "reply_to" in given:
        lines.append(f"Reply-To: <{given['reply_to']}>")
    if "auto" in given:
        lines.append(f"Auto-Submitted: {given['auto']}")
    text = given.get("body", "Kính gửi văn bản.")
    if "{size " in text:
        known = sizes(given.get("files", []))
        text = re.sub(r"\{size ([^}]+)\}", lambda found: f"{known[found[1]] / 1024:.1f} KB".replace(".", ","), text)
    if given.get("encoding") == "tcvn3":
        message.set_content(corpus.to_tcvn3(text), charset="latin-1", cte="quoted-printable")
    else:
        message.set_content(text, charset="utf-8", cte="base64")
    for file in given.get("files", ()):
        main, sub = ("text", "calendar") if file["make"] == "ics" else ("application", "octet-stream")
        if main == "text":
            message.add_attachment(made(file).decode(), subtype=sub, filename=file["name"])
        else:
            message.add_attachment(made(file), maintype=main, subtype=sub, filename=file["name"])
    return ("\r\n".join(lines) + "\r\n").encode() + message.as_bytes()


def encoded(text: str) -> str:
    return "" if not text else f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="


def _all() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted((DATA / "letters").glob("*.yaml")):
        data = YAML(typ="safe").load(path.read_text("utf-8"))
        for number, one in enumerate(data["letters"]):
            found.append((f"{path.stem}-{number:02}", {"at": data["at"], **one}))
    return found


LETTERS = _all()


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All letters through `congvan explain --json`, many files in one call."""
    base = tmp_path_factory.mktemp("letters")
    folder = base / "config"
    shutil.copytree(ROOT / "config", folder)
    shutil.rmtree(folder / "directory")
    shutil.copytree(DATA / "directory", folder / "directory")
    shutil.rmtree(folder / "trust")
    pki().write_trust(folder / "trust")
    calls: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, given in LETTERS:
        path = base / f"{name}.eml"
        path.write_bytes(letter(given))
        options = ["--at", str(given["at"]).replace(" ", "T")]
        if given.get("incoming"):
            options += ["--direction", "in"]
            if given.get("authenticated"):
                options += ["--authenticated", given["from"]]
        else:
            options += ["--authenticated", given["from"]]
        calls[tuple(options)].append(str(path))
    rows = {}
    for options, paths in calls.items():
        result = CliRunner().invoke(commands.app, ["explain", *paths, *options, "--config", str(folder), "--json"])
        assert result.exit_code in (0, 1), result.output
        for line in result.stdout.splitlines():
            row = json.loads(line)
            rows[Path(row["file"]).stem] = row
    return rows


SHORT = {"observe": "?", "warn": "~", "enforce": ""}


@pytest.mark.parametrize(("name", "given"), [pytest.param(n, g, id=f"{n} {g['name']}") for n, g in LETTERS])
def test_letter(explained: dict[str, dict[str, Any]], name: str, given: dict[str, Any]) -> None:
    row, expect = explained[name], given["expect"]
    rules = {one["rule"] + SHORT[one["mode"]] for one in row["findings"]}
    plain = {one.rstrip("~?") for one in rules}
    told = "; ".join(f"{one['rule']} {one['disposition']}: {one['vi']}" for one in row["findings"])
    wrong = []
    for key, actual in (
        ("verdict", row["verdict"]),
        ("class", row["message_class"]),
        ("delivery", row["delivery_mode"]),
        ("profile", row["profile"]),
        ("urgency", row["urgency"]),
    ):
        if key in expect and expect[key] != actual:
            wrong.append(f"{key}: {actual} instead of {expect[key]}")
    if "findings" in expect and rules != set(expect["findings"]):
        wrong.append(f"findings: {sorted(rules)}")
    wrong += [f"{one} is missing" for one in expect.get("has", ()) if one not in rules and one not in plain]
    wrong += [f"{one} was found" for one in expect.get("has_not", ()) if one in plain]
    hit = {one["rule"] for one in row["rules"] if one["status"] == "hit"}
    wrong += [f"{one} is no hit" for one in expect.get("hit", ()) if one not in hit]
    headers = dict(row["headers"])
    wrong += [f"{k}: {headers.get(k)}" for k, v in expect.get("headers", {}).items() if headers.get(k) != v]
    judged = {one["address"]: one["verdict"] for one in row["recipients"]}
    wrong += [f"{k}: {judged.get(k)}" for k, v in expect.get("recipients", {}).items() if judged.get(k) != v]
    assert not wrong, f"{wrong}\n{told}\n{row['document']}"
    for one in row["findings"]:
        for text in (one["vi"], one["en"], one["cure_vi"], one["cure_en"]):
            assert not re.search(r"  | [.,;:](?:\s|$)", text), text
        assert one["legal_basis"], one["rule"]
