"""`congvan check`, `explain` and `replay` as a person runs them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from bench import policy_rate
from gateway import config, directory, policy, replay, trials
from gateway import database as db
from gateway.commands import policy as commands
from gateway.errors import ConfigError
from gateway.inspection.findings import Document, DocumentField, FileFacts, Inspection
from gateway.store import Store

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data" / "policy"
run = CliRunner()

KEYS = {
    "file", "verdict", "message_class", "profile", "delivery_mode", "findings", "recipients", "document", "policy_digest",  # noqa: E501
}  # fmt: skip
MAIL = (
    "From: {name} <{sender}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: Fri, 20 Nov 2026 09:00:00 +0700\r\n"
    "Message-ID: <1@x>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\n{body}\r\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("explain") / "config"
    shutil.copytree(ROOT / "config", base)
    shutil.rmtree(base / "directory")
    shutil.copytree(DATA / "directory", base / "directory")
    return base


def _mail(path: Path, **values: str) -> Path:
    given = {"name": "Van thu", "sender": "vanthu@sxd.hochiminhcity.gov.vn", "to": "vanthu@hochiminhcity.gov.vn",
             "subject": "Trao doi", "body": "Trao đổi công việc."} | values  # fmt: skip
    path.write_bytes(MAIL.format(**given).encode())
    return path


def _explain(folder: Path, *arguments: object) -> tuple[int, list[dict[str, object]]]:
    result = run.invoke(commands.app, ["explain", *map(str, arguments), "--config", str(folder), "--json"])
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_a_work_mail_is_delivered(folder: Path, tmp_path: Path) -> None:
    code, rows = _explain(folder, _mail(tmp_path / "a.eml"), "--authenticated", "vanthu@sxd.hochiminhcity.gov.vn")
    assert code == 0 and set(rows[0]) >= KEYS
    assert (rows[0]["verdict"], rows[0]["message_class"], rows[0]["findings"]) == ("deliver", "WORK_MAIL", [])
    assert rows[0]["recipients"] == [{"address": "vanthu@hochiminhcity.gov.vn", "verdict": "deliver"}]
    assert {one["rule"] for one in rows[0]["rules"]} == set(policy.CATALOGUE)  # type: ignore[attr-defined]


def test_a_refused_recipient_is_exit_code_1(folder: Path, tmp_path: Path) -> None:
    code, rows = _explain(folder, _mail(tmp_path / "a.eml"), "--rcpt", "chuyenvien.sxd@gmail.com", "--direction", "out")
    assert code == 1 and rows[0]["verdict"] == "return"
    finding = rows[0]["findings"][0]  # type: ignore[index]
    assert finding["rule"] == "MB-01" and finding["mode"] == "enforce" and finding["vi"] and finding["en"]
    assert "34/2008/CT-TTg" in finding["legal_basis"]


def test_a_secret_shows_nothing(folder: Path, tmp_path: Path) -> None:
    path = _mail(tmp_path / "a.eml", subject="=?utf-8?b?W1Thu5BJIE3huqxUXSBLaG8gYuG6oWM=?=")  # [TỐI MẬT] Kho bạc
    code, rows = _explain(folder, path)
    assert code == 1 and rows[0]["verdict"] == "block-secret" and rows[0]["document"] is None
    assert "bạc" not in json.dumps(rows, ensure_ascii=False)


def test_dates_decide(folder: Path, tmp_path: Path) -> None:
    path = _mail(tmp_path / "a.eml", sender="phong1@hocvien.edu.vn", to="vanthu@moha.gov.vn")
    for at, verdict in (("2012-09-10T23:59:59+07:00", "deliver-warn"), ("2012-09-11T00:00:00+07:00", "return")):
        _, rows = _explain(folder, path, "--at", at, "--direction", "out")
        assert rows[0]["verdict"] == verdict and rows[0]["profile"] == "bnv_2012"


def test_for_a_person(folder: Path, tmp_path: Path) -> None:
    path = _mail(tmp_path / "a.eml")
    result = run.invoke(
        commands.app,
        ["explain", str(path), "--rcpt", "chuyenvien.sxd@gmail.com", "--direction", "out", "--config", str(folder)],
    )
    assert result.exit_code == 1
    assert "trả lại (return)" in result.stdout and "Căn cứ:" in result.stdout and "không áp dụng" in result.stdout


def test_wrong_use_is_exit_code_2(folder: Path, tmp_path: Path) -> None:
    path = _mail(tmp_path / "a.eml")
    assert _explain(folder, path, "--direction", "up")[0] == 2
    assert _explain(folder, path, "--at", "hôm nay")[0] == 2
    assert _explain(folder, tmp_path / "none.eml")[0] == 2


def test_check_runs_the_trials(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "c"
    shutil.copytree(folder, base)
    (base / "trials").mkdir()
    shutil.copy(DATA / "golden" / "bnv_2012.yaml", base / "trials")
    assert run.invoke(commands.app, ["check", "--config", str(base)]).exit_code == 0
    text = (base / "trials" / "bnv_2012.yaml").read_text("utf-8").replace("verdict: return", "verdict: deliver", 1)
    (base / "trials" / "bnv_2012.yaml").write_text(text, "utf-8")
    result = run.invoke(commands.app, ["check", "--config", str(base)])
    assert result.exit_code == 1 and "expected deliver, got return" in result.output
    (base / "policy.yaml").write_text("profile: nationl_2026\n", "utf-8")
    result = run.invoke(commands.app, ["check", "--config", str(base)])
    assert result.exit_code == 2 and "policy.yaml:1:1: profile: không có bộ quy định" in result.output


def test_replay_tells_what_changes(folder: Path, tmp_path: Path) -> None:
    agencies = directory.load(folder / "directory")
    old = policy.load(folder)
    rows = []
    for number, (trial, _) in enumerate(trials.load(DATA / "golden" / "ha_tinh_2014.yaml")):
        facts = trials.situation(trial, agencies)
        verdict = policy.judge(old, agencies, facts)
        record = {
            "envelope": {
                "sender": str(facts.envelope.sender),
                "recipients": [str(r.address) for r in facts.envelope.recipients],
            },
            "origin": {name: getattr(facts.origin, name) for name in facts.origin.__slots__},
            "inspection": facts.inspection.model_dump(mode="json", exclude_defaults=True),
            "verdict": {"findings": [{"rule": one.rule, "mode": one.mode} for one in verdict.findings]},
        }
        at = int(facts.at.timestamp() * 1000)
        rows.append(
            replay.Stored(
                f"{number:04}", at, facts.direction, verdict.agency, verdict.disposition.text, json.dumps(record)
            )
        )
    same = replay.run(iter(rows), old, agencies)
    assert same.total == len(rows) and same.changes == [] and same.unreadable == []
    new = tmp_path / "new.yaml"
    new.write_text("profile: national_2026\nholidays: []\nrules:\n  FM-02: warn\n", "utf-8")
    changed = replay.run(
        iter([*rows, replay.Stored("bad", 0, "in", "", "deliver", "{}")]), policy.load(folder, new), agencies
    )
    assert {one.after for one in changed.changes} == {"deliver-warn"}
    assert changed.rules_after["FM-02/warn", "ht-stc"] > changed.rules_before["FM-02/warn", "ht-stc"]
    assert changed.unreadable == ["bad"] and 0 < changed.share < 1
    assert changed.changes[0].at.utcoffset() == dt.timedelta(hours=7)


@pytest.fixture
def archived(folder: Path, tmp_path: Path) -> Path:
    """A configuration with an archive of 400 messages."""
    base = tmp_path / "c"
    shutil.copytree(folder, base)
    agencies = directory.load(base / "directory")
    policy_rate.fill(base, policy.load(base), agencies, 400)
    return base


def test_check_against_a_policy_that_changes_too_much(archived: Path, tmp_path: Path) -> None:
    same = tmp_path / "same.yaml"
    same.write_text((archived / "policy.yaml").read_text("utf-8"), "utf-8")
    result = run.invoke(commands.app, ["check", "--config", str(archived), "--against", str(same), "--share", "0"])
    assert result.exit_code == 0 and "0 / 400" in result.output, result.output
    new = tmp_path / "new.yaml"
    new.write_text("profile: national_2026\nrules:\n  FM-01: {mode: observe, to: 2099-12-31}\n", "utf-8")
    words = ["check", "--config", str(archived), "--against", str(new), "--json"]
    row = json.loads(run.invoke(commands.app, words).stdout.splitlines()[-1])
    assert row["messages"] == 400 and 0 < row["changed"] < 100
    share = row["changed"] / 400
    assert run.invoke(commands.app, [*words, "--share", str(share)]).exit_code == 0
    assert run.invoke(commands.app, [*words, "--share", str(share - 0.001)]).exit_code == 1


def test_replay_reads_again_only_what_lacks_facts(archived: Path, tmp_path: Path) -> None:
    raw = _mail(tmp_path / "a.eml", subject="Trao doi").read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    settings = config.read(archived)
    Store(settings.data / "blobs").put([raw], digest)
    database = db.Database.open(settings.database_url)
    with database.engine.execution_options(writer=True).begin() as connection:
        m = db.message
        for case, sha256 in ((f"{7:016}", digest), (f"{8:016}", "0" * 64)):  # bytes that are there, and that are not
            record = json.loads(connection.execute(select(m.c.record).where(m.c.id == case)).scalar_one())
            del record["inspection"]
            values = {"record": json.dumps(record), "sha256": sha256}
            connection.execute(m.update().where(m.c.id == case).values(values))
    database.close()
    words = ["replay", "--config", str(archived), "--policy", str(archived / "policy.yaml"), "--json"]
    result = run.invoke(commands.app, words)
    assert result.exit_code == 0, (result.output, result.exception)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["case"] for row in rows if row.get("inspected")] == [f"{7:016}"]
    assert [row["case"] for row in rows if "error" in row] == [f"{8:016}"]


def test_explain_looks_numbers_up_in_the_archive(archived: Path) -> None:
    facts = Inspection(files=(FileFacts(name="a.pdf", path="a.pdf", sha256="0" * 64, size=1, type="pdf",
                                        document=Document(code=DocumentField(value="12 /BC-STTTT"))),))  # fmt: skip
    database = db.Database.open(config.read(archived).database_url)
    with database.engine.begin() as connection:
        db.insert(
            connection,
            db.recipient,
            [{"message": f"{0:016}", "address": "a@b.vn", "verdict": "deliver", "state": "delivered"}],
        )
        db.insert(
            connection,
            db.attachment,
            [{"message": f"{0:016}", "path": "a", "sha256": "1" * 64, "size": 1, "type": "pdf"}],
        )
    database.close()
    archive = commands._archive(archived)
    assert [one.case for one in commands._known(archive, facts)] == [f"{0:016}"]
    archive.close()
    assert commands._archive(archived.parent) is None


@pytest.mark.parametrize(("settings", "told"), [
    ("tls: {certificate: none.pem, key: none.pem}", ":7: tls.certificate: "),
    ("store: {encryption: {key: {file: none.key}}}", ":9: store.encryption: khóa lưu trữ "),
    ("store: {s3: {endpoint: 'https://s3.example', bucket: congvan, credentials: {file: none.txt}}}",
     ":63: store.s3.credentials: "),
    ("passwords: {host: x, port: 993, ca: none.pem}", ":33: passwords.ca: "),
])  # fmt: skip
def test_files_that_the_settings_name_are_looked_for(tmp_path: Path, settings: str, told: str) -> None:
    base = tmp_path / "config"
    shutil.copytree(ROOT / "config", base)
    key = settings.partition(":")[0]
    kept = [line for line in (base / "gateway.yaml").read_text().splitlines() if not line.startswith(f"{key}:")]
    (base / "gateway.yaml").write_text("\n".join([*kept, settings, ""]))
    result = run.invoke(commands.app, ["check", "--config", str(base)])
    assert result.exit_code == 2 and f"gateway.yaml:{len(kept) + 1}{told}" in result.stderr, result.output


def test_names_across_files_are_told_with_their_place(tmp_path: Path) -> None:
    base = tmp_path / "config"
    shutil.copytree(ROOT / "config", base)
    text = (base / "policy.yaml").read_text("utf-8")
    lines = text.count("\n")
    (base / "policy.yaml").write_text(f"{text}rules:\n  FM-01: {{mode: warn, agencies: [so-noi]}}\n", "utf-8")
    agencies = (base / "directory" / "agencies.yaml").read_text("utf-8")
    (base / "directory" / "agencies.yaml").write_text(
        agencies + "  - {id: them, name: Thêm, level: unit, profile: bnv}\n", "utf-8"
    )
    result = run.invoke(commands.app, ["check", "--config", str(base)])
    assert result.exit_code == 2
    assert f"policy.yaml:{lines + 2}:3: rules.FM-01: không có cơ quan 'so-noi'" in result.stderr
    where = f"directory/agencies.yaml:{agencies.count(chr(10)) + 1}:41"
    assert f"{where}: cơ quan them: profile: không có bộ quy định 'bnv', có phải" in result.stderr


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        (
            "trials/a.yaml",
            "trials:\n  - {name: a, at: 2026-01-01T08:00, from: a@b.vn, to: [b@c.vn], expect: {verdict: returned}}\n",
            ("trials/a.yaml:2:74: ", "'returned'"),
        ),
        (
            "trials/a.yaml",
            "trials:\n  - name: a\n    at: 2026-01-01T08:00\n    from: a@b.vn\n    to: [b@c.vn]\n"
            "    expect: {verdict: return, findings: [FM-99~]}\n",
            ("trials/a.yaml:6:42: ", "không có quy tắc 'FM-99', có phải 'FM-09'?"),
        ),
        (
            "trials/a.yaml",
            "trials:\n  - name: a\n    message: khong-co.eml\n    at: 2026-01-01T08:00\n    from: a@b.vn\n"
            "    to: [b@c.vn]\n    expect: {verdict: return}\n",
            ("trials/a.yaml:3:5: ", "khong-co.eml"),
        ),
        ("trust/manifest.yaml", "filez: 1\n", ("trust/manifest.yaml:1:1: ", "'filez'")),
    ],
)
def test_mistakes_beside_policy_and_directory(tmp_path: Path, file: str, text: str, told: tuple[str, str]) -> None:
    base = tmp_path / "config"
    shutil.copytree(ROOT / "config", base)
    (base / file).parent.mkdir(exist_ok=True)
    (base / file).write_text(text, "utf-8")
    result = run.invoke(commands.app, ["check", "--config", str(base)])
    assert result.exit_code == 2, result.output
    assert str(base / told[0]) in result.stderr and told[1] in result.stderr, result.stderr


def test_a_policy_is_not_tried_on_an_archive_that_is_not_there(tmp_path: Path) -> None:
    base = tmp_path / "config"
    shutil.copytree(ROOT / "config", base)
    for words in (["replay", "--policy"], ["check", "--against"]):
        result = run.invoke(commands.app, [*words, str(base / "policy.yaml"), "--config", str(base)])
        assert isinstance(result.exception, ConfigError)
        assert "chưa có kho lưu trữ" in str(result.exception) and ":" in result.exception.problems[0].place
    assert not (tmp_path / "var").exists() and not (base / "var").exists()
    result = run.invoke(commands.app, ["check", "--share", "2", "--config", str(base)])
    assert result.exit_code == 2 and "từ 0 đến 1" in result.stderr
