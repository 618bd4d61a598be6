"""The demonstration of the README, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.harness import ROOT


def _congvan(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_every_sample_ends_as_expected_and_can_be_looked_at(tmp_path: Path) -> None:
    shown = _congvan("demo", "--once", "--folder", str(tmp_path / "demo"))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "mong đợi" not in shown.stdout and "Traceback" not in shown.stderr
    assert shown.stdout.count("block-secret") == 3
    config = str(tmp_path / "demo" / "config")
    found = _congvan("archive", "search", "--config", config, "--json", "15/TB-SNV")
    assert found.returncode == 0 and json.loads(found.stdout.splitlines()[0])["case"], found.stdout
    assert _congvan("archive", "verify", "--config", config).returncode == 0
    entries = _congvan("register", "list", "--config", config, "--json")
    assert {json.loads(line)["document_code"] for line in entries.stdout.splitlines()} >= {"15/TB-SNV", "18/TB-SNV"}
