"""The units are what systemd accepts, and as closed as they say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parent.parent / "systemd" / "congvan-gateway.service"
NEEDS = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not installed: systemd-analyze")


@NEEDS
def test_unit_is_accepted(tmp_path: Path) -> None:
    # systemd looks for the programs too; here a stand-in lies at a path of the test's own
    program = tmp_path / "congvan"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/congvan-gateway/bin/congvan", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr, done.stderr


@NEEDS
def test_exposure_is_low() -> None:
    """H1 of the test plan: at most 1.5; postfix has 9.6, the best mail daemon of Debian 12 has 6.2."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(UNIT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


def test_a_wrong_configuration_is_not_restarted() -> None:
    assert "RestartPreventExitStatus=2" in UNIT.read_text()
