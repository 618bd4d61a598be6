"""Configurations: the shipped one loads, broken ones say what is wrong and where."""

from __future__ import annotations

import ast
import datetime as dt
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway import config, directory, policy, schemas, wording
from gateway.errors import ConfigError

ROOT = Path(__file__).parent.parent
BROKEN = YAML(typ="safe").load((Path(__file__).parent / "data" / "policy" / "broken.yaml").read_text("utf-8"))["broken"]
_parsed: dict[tuple[str, str], Any] = {}
_read_yaml = config.load_yaml


def _cached(path: Path, shown: str | None = None) -> Any:
    """Parsing YAML costs more than all else here, and only one file differs from case to case."""
    key = (shown or str(path), path.read_text("utf-8")) if path.exists() else (str(path), "")
    if key not in _parsed:
        try:
            _parsed[key] = _read_yaml(path, shown)
        except ConfigError as error:
            _parsed[key] = error
    if isinstance(_parsed[key], ConfigError):
        raise _parsed[key]
    return _parsed[key]


def messages(folder: Path) -> list[str]:
    problems, judged_by, agencies = [], None, None
    try:
        judged_by = policy.load(folder)
    except ConfigError as error:
        problems += error.problems
    try:
        agencies = directory.load(folder / "directory")
    except ConfigError as error:
        problems += error.problems
    if judged_by is not None and agencies is not None:
        problems += policy.cross_check(judged_by, agencies)
    for problem in problems:
        assert problem.vi, problem
        assert str(problem) == f"{problem.place}: {problem.vi}\n    {problem.text}"
    return [f"{problem.place}: {problem.text}" for problem in problems]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("broken") / "config"
    shutil.copytree(ROOT / "config", base, ignore=shutil.ignore_patterns("trust", "*.schema.json"))
    return base


@pytest.mark.parametrize("case", BROKEN, ids=[f"{n}-{case['file']}" for n, case in enumerate(BROKEN, 1)])
def test_broken(case: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "load_yaml", _cached)
    path = folder / case["file"]
    before = path.read_text("utf-8") if path.exists() else None
    boxes = folder / "directory" / "mailboxes.csv"
    kept = boxes.read_text("utf-8")
    try:
        if "change" in case:
            old, new = case["change"]
            assert before is not None and old in before
            path.write_text(before.replace(old, new, 1), "utf-8")
        else:
            path.write_text(case["text"], "utf-8")
        if case["file"].startswith("directory/agencies"):
            boxes.unlink()  # the sample mailboxes belong to the sample agencies
        assert messages(folder) == case["messages"]
    finally:
        boxes.write_text(kept, "utf-8")
        if before is None:
            path.unlink()
        elif case["file"] != "directory/mailboxes.csv" or "change" in case:
            path.write_text(before, "utf-8")


#: Where mistakes of a configuration are found.
FINDERS = (
    "alerts", "config", "custody", "daemon", "directory", "policy", "returns", "trials", "inspection/trust",
    "commands/alerts", "commands/archive", "commands/policy",
)  # fmt: skip


def _sentences() -> Iterator[Any]:
    for name in FINDERS:
        for node in ast.walk(ast.parse((ROOT / "gateway" / f"{name}.py").read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Problem", "ValueError") and node.args:
                said = node.args[-1]
                if isinstance(said, ast.JoinedStr):
                    parts = [one.value if isinstance(one, ast.Constant) else "needed" for one in said.values]
                elif isinstance(said, ast.Constant) and isinstance(said.value, str):
                    parts = [said.value]
                else:
                    continue  # a text made elsewhere: the broken files show it
                text = "".join(map(str, parts))
                if set(text.replace("needed", "")) - set(": ") and not text.startswith("agency: needed"):
                    yield pytest.param(text, id=f"{name}:{node.lineno}")


@pytest.mark.parametrize("text", list(_sentences()))
def test_every_message_is_told_in_vietnamese(text: str) -> None:
    assert wording.vietnamese(text), f"gateway/wording.py has no line for {text!r}"


def test_vietnamese_keeps_every_value() -> None:
    for english, vietnamese in wording.SENTENCES.items():
        wanted = set(re.findall(r"\{(\w+)\}", english)) - {"rest"}
        if "is not a date" in english:
            wanted.discard("reason")  # the calendar's reason is English; the date says enough
        assert set(re.findall(r"\{(\w+)\}", vietnamese)) == wanted, english


@pytest.mark.parametrize(
    ("english", "vietnamese"),
    [
        ("rules: unknown rule 'FM-1', did you mean 'FM-01'?", "rules: không có quy tắc 'FM-1', có phải 'FM-01'?"),
        (
            "listener on port 25: next_hop 'a' is none of b, c",
            "cổng nghe 25: next_hop 'a' không có trong b, c",
        ),
        (
            "x.0.pattern: not a pattern: missing ), unterminated subpattern at position 3 (got '(')",
            "x.0.pattern: biểu thức mẫu không đúng: thiếu dấu `)`, tính từ ký tự 3 (đang là '(')",
        ),
        ("nobody knows this one", ""),
        ("", ""),
    ],
)
def test_wording(english: str, vietnamese: str) -> None:
    assert wording.vietnamese(english) == vietnamese


def test_many_broken_files_are_known() -> None:
    assert len(BROKEN) >= 200
    assert all(case["messages"] for case in BROKEN)


def test_all_problems_of_all_files_come_at_once(folder: Path) -> None:
    other = folder.parent / "several"
    shutil.copytree(folder, other)
    (other / "policy.yaml").write_text("profile: nationl_2026\nrules:\n  FM-99: warn\n", "utf-8")
    (other / "profiles" / "bnv_2012.yaml").write_text("id: x1\n", "utf-8")
    found = messages(other)
    assert [one.split(":")[0] for one in found] == ["policy.yaml"] * 2 + ["profiles/bnv_2012.yaml"] * 3


def test_shipped_configuration_runs() -> None:
    judged_by, agencies = policy.load(ROOT / "config"), directory.load(ROOT / "config" / "directory")
    assert judged_by.default == "national_2026"
    assert set(judged_by.profiles) == {
        "binh_duong_2014", "bnv_2012", "ha_tinh_2014", "tien_giang_2009", "national_2026",
    }  # fmt: skip
    assert policy.cross_check(judged_by, agencies) == []
    assert config.read(ROOT / "config").listeners


def test_missing_files() -> None:
    with pytest.raises(ConfigError) as caught:
        policy.load(Path("/nonexistent"))
    assert [f"{one.place}: {one.text}" for one in caught.value.problems] == [
        "citations.yaml: file not found",
        "policy.yaml: file not found",
    ]
    with pytest.raises(ConfigError) as caught:
        directory.load(Path("/nonexistent/directory"))
    assert "agencies.yaml or agencies.csv is needed" in str(caught.value.problems[0])


def test_schemas_are_current() -> None:
    for name, text in schemas.texts().items():
        assert (ROOT / "config" / name).read_text("utf-8") == text, f"{name}: run `congvan check --write-schema`"


def test_every_citation_is_used_and_every_rule_cites(folder: Path) -> None:
    judged_by = policy.load(folder)
    used = {key for one in judged_by.profiles.values() for rule in one.rules.values() for key in rule.basis}
    assert used <= set(judged_by.citations)
    day = dt.date(2026, 11, 22)
    for profile in judged_by.profiles.values():
        for name, entry in profile.rules.items():
            if policy.CATALOGUE[name].disposition > policy.Disposition.DELIVER:
                assert judged_by.basis(entry.basis, day), f"{profile.id}: {name}"


def test_citations_follow_the_date(folder: Path) -> None:
    judged_by = policy.load(folder)
    keys = judged_by.profiles["national_2026"].rules["SC-01"].basis
    assert judged_by.basis(keys, dt.date(2019, 1, 1)) == "Pháp lệnh Bảo vệ bí mật nhà nước"
    assert judged_by.basis(keys, dt.date(2026, 2, 28)) == "Luật Bảo vệ bí mật nhà nước 29/2018/QH14"
    assert judged_by.basis(keys, dt.date(2026, 3, 1)) == "Luật Bảo vệ bí mật nhà nước 117/2025/QH15"


def test_digest_names_the_effective_policy(folder: Path, tmp_path: Path) -> None:
    first = policy.load(folder)
    assert policy.load(folder).digest == first.digest
    other = tmp_path / "policy.yaml"
    other.write_text("# ghi chú khác\nprofile:   national_2026\nholidays: " + str([str(d) for d in ()]) + "\n", "utf-8")
    changed = policy.load(folder, other)
    assert changed.digest != first.digest  # no holidays
    again = tmp_path / "again.yaml"
    again.write_text("profile: national_2026\n", "utf-8")
    assert policy.load(folder, again).digest == changed.digest  # comments and empty lists change nothing
    restored = policy.restore(first.canonical())
    assert restored.digest == first.digest and restored.profiles == first.profiles


def test_every_rule_has_its_place_in_the_documents() -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    for name, rule in policy.CATALOGUE.items():
        assert f'<a id="{name.lower()}"></a>' in page and f"### {name}\n" in page, name
        assert rule.title_vi in page
        for text in rule.texts.values():
            assert f"- {text.vi} / {text.en}\n" in page, name
