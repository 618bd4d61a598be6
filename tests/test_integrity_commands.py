"""`congvan archive status|checkpoint|consistency|rotate-key|prove` and what a stranger does with it, as commands."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import build
from tests import outside
from tests.cases import case, close, open_archive
from tests.outside import cv


def congvan(*words: object):
    arguments = [str(one) for one in words]
    return CliRunner().invoke(build(arguments[0]), arguments)


@pytest.fixture
def site(tmp_path):
    """An archive of five messages, a witness that knows its log, and a folder that takes checkpoints."""
    config = tmp_path / "config"
    config.mkdir()

    async def fill() -> str:
        archive = open_archive(tmp_path / "data")
        await archive.start()
        for n in range(5):
            await archive.commit(case(number=n))
        await close(archive)
        return str(archive.log.verifier())

    key = asyncio.run(fill())
    made = outside.make_witness(tmp_path / "w", "w.example", key)
    (tmp_path / "drop").mkdir()
    with outside.witness(made) as url:
        keys = "".join(f"\n      - {one}" for one in made.public_keys())
        (config / "gateway.yaml").write_text(
            "hostname: mail.tinh.gov.vn\ndata: ../data\nlisteners: [{kind: relay, port: 0}]\n"
            "next_hops: [{name: hop, host: 127.0.0.1}]\n"
            f"witnesses:\n  - name: so-noi-vu\n    url: {url}\n    keys:{keys}\n  - {{name: drop, folder: ../drop}}\n"
        )
        yield tmp_path, made, url


def grow(folder: Path, numbers: range) -> None:
    async def work() -> None:
        archive = open_archive(folder / "data")
        for n in numbers:
            await archive.commit(case(number=n))
        await close(archive)

    asyncio.run(work())


def test_from_the_first_checkpoint_to_a_stranger(site, tmp_path, capsys):
    folder, _made, url = site
    where = ("--config", folder / "config")
    before = json.loads(congvan("archive", "status", "--json", *where).stdout)
    assert (before["leaves"], before["signed"], before["cosigned"]) == (5, None, None)
    first = congvan("archive", "checkpoint", *where)
    assert first.exit_code == 0 and first.stdout.count("w.example") == 2
    (tmp_path / "first.note").write_text(first.stdout)
    status = congvan("archive", "status", "--json", *where)
    told = json.loads(status.stdout)
    assert status.exit_code == 0 and told["cosigned"]["size"] == told["signed"]["size"] == 5
    assert {one["name"]: one["lag_leaves"] for one in told["witnesses"]} == {"so-noi-vu": 0, "drop": 0}
    assert "so-noi-vu" in congvan("archive", "status", *where).stdout

    grow(folder, range(5, 12))
    assert json.loads(congvan("archive", "checkpoint", "--json", *where).stdout)["size"] == 13, "with an anchor"
    proof = tmp_path / "grown"
    assert congvan("archive", "consistency", tmp_path / "first.note", "-o", proof, *where).exit_code == 0
    key = folder / "data" / "keys" / "log.vkey"
    assert cv.main(["consistency", "--key", str(key), str(tmp_path / "first.note"), str(proof)]) == 0
    forged = proof.read_text().replace("old 5", "old 4")
    (tmp_path / "forged").write_text(forged)
    assert cv.main(["consistency", "--key", str(key), str(tmp_path / "first.note"), str(tmp_path / "forged")]) == 1
    assert congvan("archive", "consistency", tmp_path / "nothing.note", *where).exit_code == 2

    for more in (("--witness", url), ("--witness", tmp_path / "drop"), ("--known", tmp_path / "first.note")):
        assert congvan("archive", "verify", *more, *where).exit_code == 0
    assert congvan("archive", "verify", "--witness", tmp_path / "w", *where).exit_code == 75
    assert congvan("archive", "verify", "--from", 3, "--to", 5, "--jobs", 4, *where).stdout.count("3 thư") == 1


def test_a_proof_for_a_file_of_a_message(site, tmp_path):
    folder, made, _url = site
    where = ("--config", folder / "config")
    found = congvan("archive", "search", "--json", *where).stdout.splitlines()
    name = json.loads(found[0])["case"]
    congvan("archive", "checkpoint", *where)
    proof, eml = tmp_path / "p.tlog-proof", tmp_path / "p.eml"
    made_one = congvan("archive", "prove", name, "-o", proof, "--json", *where)
    told = json.loads(made_one.stdout)
    assert told["cosigned_by"] == ["w.example"] and told["time_stamp"] is False
    assert congvan("archive", "prove", name, "--attachment", "x.pdf", "-o", proof, *where).exit_code == 1
    assert congvan("archive", "export", name, "-o", eml, *where).exit_code == 0
    keys = [word for key in made.public_keys() for word in ("--witness", key)]
    words = ("verify-proof", eml, "--proof", proof, "--key", told["key"])
    checked = congvan(*words, *keys, "--json")
    assert checked.exit_code == 0
    answer = json.loads(checked.stdout)
    assert [one["witness"] for one in answer["cosigned"]] == ["w.example"] * 2
    assert {"archived_at", "received_at", "clock_synchronised", "first_received_field", "date_field"} <= answer.keys()
    stranger = outside.make_witness(tmp_path / "other", "other.example").public_keys()[0]
    assert congvan(*words, "--witness", stranger).exit_code == 1
    assert congvan(*words, "--witness", "nonsense").exit_code == 2
    long = f"{'x' * 300}+00000000+{'A' * 300}"  # no file can have such a name
    refused = congvan(*words, "--witness", long)
    assert refused.exit_code == 2 and "verifier key" in refused.output


def test_the_key_is_replaced_by_command(site):
    folder, _made, url = site
    where = ("--config", folder / "config")
    congvan("archive", "checkpoint", *where)
    old = (folder / "data" / "keys" / "log.vkey").read_text().strip()
    done = congvan("archive", "rotate-key", "--reason", "hằng năm", *where)
    new = (folder / "data" / "keys" / "log.vkey").read_text().strip()
    assert done.exit_code == 0 and done.stdout.strip().endswith(new) and new != old
    assert congvan("archive", "verify", "--key", old, "--witness", url, *where).exit_code == 0
    grow(folder, range(20, 22))
    refused = congvan("archive", "checkpoint", *where)
    assert (
        refused.exit_code == 0 and "HTTP 403" in refused.output and "w.example" not in refused.stdout.split("\n\n")[1]
    )
    assert congvan("archive", "status", *where).exit_code == 1
    with (folder / "w" / "logs").open("a") as logs:
        logs.write(f"log {new}\n")
    assert congvan("archive", "checkpoint", *where).stdout.count("w.example") == 2
    assert congvan("archive", "status", *where).exit_code == 0
    assert congvan("archive", "rotate-key", *where).exit_code == 2, "a reason is needed"


def test_a_wrong_witness_is_told_with_its_place(site):
    folder, _made, url = site
    path = folder / "config" / "gateway.yaml"
    good = path.read_text()
    for bad, word in (
        ("keys: [mail.tinh.gov.vn+00000000+AAAA]", "not an Ed25519"),
        ("keys: []", "needs them"),
        ("folder: ../drop, mail: a@b.vn", "one of"),
    ):
        head = good.partition("witnesses:")[0]
        way = f"url: {url}, {bad}" if bad.startswith("keys") else bad
        path.write_text(f"{head}witnesses:\n  - {{name: w1, {way}}}\n")
        said = congvan("archive", "status", "--config", folder / "config")
        assert word in str(said.exception.problems[0]), said.exception
