"""`congvan archive …`, `verify-proof` and `stats`, as a person or a script uses them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import build
from tests.cases import case, close, mail, open_archive


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    (folder / "gateway.yaml").write_text(
        "hostname: mail.tinh.gov.vn\ndata: data\nlisteners: [{kind: relay, port: 0}]\n"
        "next_hops: [{name: hop, host: 127.0.0.1}]\n"
    )

    async def fill():
        archive = open_archive(folder / "data")
        for n in range(5):
            await archive.commit(case(number=n, subject=f"Thư {n}", texts={"": f"nội dung số {n}"}))
        await close(archive)

    asyncio.run(fill())
    return folder


def congvan(*words: object):
    arguments = [str(one) for one in words]
    return CliRunner().invoke(build(arguments[0]), arguments)


def lines(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def name(config) -> str:
    (found,) = lines(congvan("archive", "search", "so 3", "--json", "--config", config))
    return found["case"]


def test_search(config):
    found = lines(congvan("archive", "search", "--number", "14 / ct-ubnd", "--json", "--config", config))
    assert len(found) == 5
    assert found[0]["received_at"] == "2026-11-20T08:30:00.000+07:00"
    assert {"case", "sender", "recipients", "document_code", "verdict", "sha256"} <= found[0].keys()
    told = congvan("archive", "search", "--since", "2026-11-20", "--until", "2026-11-20", "--config", config)
    assert told.exit_code == 0 and "14/CT-UBND" in told.stdout and "5 thư" in told.stdout
    assert congvan("archive", "search", "--since", "2026-11-21", "--config", config).exit_code == 1
    told = congvan("archive", "search", "--since", "20/11/2026", "--until", "20/11/2026", "--count", "--config", config)
    assert told.stdout == "5\n"
    for wrong in (["--direction", "up"], ["--verdict", "maybe"], ["--digest", "xyz"], ["--sort", "size!"]):
        assert congvan("archive", "search", *wrong, "--config", config).exit_code == 2, wrong
    assert congvan("archive", "search", "--since", "hôm qua", "--config", config).exit_code == 2


def test_show_and_export_byte_for_byte(config, name, tmp_path):
    (shown,) = lines(congvan("archive", "show", name, "--json", "--config", config))
    assert (shown["subject"], shown["bytes"], shown["recipients"][0]["state"]) == ("Thư 3", "intact", "queued")
    assert "ubnd@tinh.gov.vn" in congvan("archive", "show", name, "--config", config).stdout
    target = tmp_path / "x.eml"
    assert congvan("archive", "export", name, "-o", target, "--config", config).exit_code == 0
    assert target.read_bytes() == mail(3)
    assert congvan("archive", "export", name, "-o", target, "--as-delivered", "--config", config).exit_code == 0
    assert target.read_bytes() == b"Received: x\r\n" + mail(3)
    assert congvan("archive", "export", name, "-o", "-", "--config", config).stdout_bytes == mail(3)
    for command in (["show", "NONE"], ["export", "NONE", "-o", "-"], ["prove", "NONE", "-o", tmp_path / "p"]):
        assert congvan("archive", *command, "--config", config).exit_code == 1


def test_a_proof_from_hand_to_hand(config, name, tmp_path):
    proof, letter = tmp_path / "p.tlog-proof", tmp_path / "x.eml"
    assert congvan("archive", "prove", name, "-o", proof, "--config", config).exit_code == 0
    congvan("archive", "export", name, "-o", letter, "--config", config)
    key = config / "data" / "keys" / "log.vkey"
    (answer,) = lines(congvan("verify-proof", letter, "--proof", proof, "--key", key, "--json"))
    assert (answer["ok"], answer["what"], answer["case"]) == (True, "message", name)
    told = congvan("verify-proof", letter, "--proof", proof, "--key", key.read_text().strip())
    assert told.exit_code == 0 and "ĐÚNG" in told.stdout
    letter.write_bytes(mail(3) + b" ")
    assert congvan("verify-proof", letter, "--proof", proof, "--key", key).exit_code == 1
    assert congvan("verify-proof", letter, "--proof", proof, "--key", "nonsense").exit_code == 2


def test_verify(config, tmp_path):
    (checkpoint,) = lines(congvan("archive", "checkpoint", "--json", "--config", config))
    known = tmp_path / "known.note"
    known.write_text(checkpoint["note"])
    (summary,) = lines(
        congvan(
            "archive", "verify", "--all", "--known", known, "--key", checkpoint["key"], "--json", "--config", config
        )
    )
    assert summary["ok"] and summary["leaves"] == summary["signed"] and summary["messages"] == 5
    assert lines(congvan("archive", "verify", "--sample", 2, "--json", "--config", config))[0]["messages"] == 2
    with sqlite3.connect(config / "data" / "gateway.db") as other:
        other.execute("UPDATE message SET subject = 'x' WHERE subject = 'Thư 1'")
    try:
        told = congvan("archive", "verify", "--json", "--config", config)
        damage, summary = lines(told)
        assert told.exit_code == 1 and not summary["ok"]
        assert (damage["kind"], damage["detail"]) == ("row_changed", "subject")
        assert "không khớp" in congvan("archive", "verify", "--config", config).stdout
    finally:
        with sqlite3.connect(config / "data" / "gateway.db") as other:
            other.execute("UPDATE message SET subject = 'Thư 1' WHERE subject = 'x'")


def test_a_locked_database_means_try_again(config, monkeypatch):
    monkeypatch.setattr("gateway.database.BUSY_SECONDS", 0.1)
    monkeypatch.setattr("gateway.database.Database.open.__func__.__kwdefaults__", {"busy_seconds": 0.1})
    other = sqlite3.connect(config / "data" / "gateway.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert congvan("archive", "verify", "--config", config).exit_code == 75
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_no_archive_yet(tmp_path, config):
    (tmp_path / "gateway.yaml").write_text((config / "gateway.yaml").read_text())
    assert congvan("archive", "verify", "--config", tmp_path).exit_code != 0
    assert not (tmp_path / "data").exists()


def test_stats(config):
    (row,) = lines(congvan("stats", "--month", "2026-11", "--json", "--config", config))
    assert (row["agency"], row["sent"], row["returned_by"]) == ("so-tttt", 5, {})
    table = list(
        csv.DictReader(io.StringIO(congvan("stats", "--month", "2026-11", "--csv", "--config", config).stdout))
    )
    assert [(one["agency"], one["sent"]) for one in table] == [("so-tttt", "5")]
    assert "so-tttt" in congvan("stats", "--month", "2026-11", "--config", config).stdout
    assert congvan("stats", "--month", "2026-10", "--json", "--config", config).stdout == ""
    assert congvan("stats", "--month", "11/2026", "--config", config).exit_code == 2
    told = congvan("stats", "explain", "sent", "--month", "2026-11", "--agency", "so-tttt", "--config", config)
    assert len(re.findall(r"(?m)^[0-9A-Z]{16}  2026-11-", told.stdout)) == 5
    assert "kind in (sent)" in told.stdout
