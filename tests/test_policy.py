"""The judge against golden tables, and its properties over random facts."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest

from gateway import directory, policy, trials

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data" / "policy"
GOLDEN = sorted((DATA / "golden").glob("*.yaml"))


def _lay_out(base: Path) -> Path:
    """A configuration: the shipped policy with the tables' own directory."""
    shutil.copytree(ROOT / "config", base, dirs_exist_ok=True)
    shutil.rmtree(base / "directory")
    shutil.copytree(DATA / "directory", base / "directory")
    return base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _lay_out(tmp_path_factory.mktemp("policy") / "config")


@pytest.fixture(scope="session")
def agencies(base: Path) -> directory.Directory:
    return directory.load(base / "directory")


@pytest.fixture(scope="session")
def rules(base: Path) -> policy.Policy:
    return policy.load(base)


def _golden() -> list[object]:
    return [
        pytest.param(path, trial, id=f"{path.stem}:{line}:{trial.name}")
        for path in GOLDEN
        for trial, line in trials.load(path)
    ]


@pytest.mark.parametrize(("path", "trial"), _golden())
def test_golden(path: Path, trial: trials.Trial, rules: policy.Policy, agencies: directory.Directory) -> None:
    verdict = policy.judge(rules, agencies, trials.situation(trial, agencies))
    assert trials.differences(trial.expect, verdict) == ()
    for finding in verdict.findings:
        assert finding.vi and finding.en, finding
        assert "…" not in finding.vi.replace("“Kính gửi: Ông/Bà/Công ty …”", ""), finding.vi
        assert finding.legal_basis, f"{finding.rule} cites nothing under {verdict.profile}"


def test_every_golden_table_is_found() -> None:
    assert {path.stem for path in GOLDEN} >= {
        "binh_duong_2014", "bnv_2012", "ha_tinh_2014", "tien_giang_2009", "national_2026",
    }  # fmt: skip


def _now() -> dt.datetime:
    return dt.datetime(2026, 11, 20, 9, tzinfo=dt.timezone(dt.timedelta(hours=7)))
