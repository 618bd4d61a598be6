"""Documents that drift fail the suite: commands, links, and what a public repository must not hold."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from gateway import cli, config

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_every_command_is_documented() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in [*cli.GROUPS, *cli.TOP]:
        assert re.search(rf"(congvan|\./run) {re.escape(name)}\b", text), f"`congvan {name}` is in no document"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_help_of_every_command_can_be_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    for name in [*cli.GROUPS, *cli.TOP]:
        assert f" {name} " in done.stdout, f"{name} is missing in --help"


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        yield from _commands(one, f"{path} {name}")


def test_every_command_and_option_says_what_it_is() -> None:
    """Vietnamese first, then English, with a stroke between; lists of fixed words speak for themselves."""
    for path, command in _commands(typer.main.get_command(cli.build(None)), "congvan"):
        assert " / " in command.help, f"{path}: help in two languages"
        for option in command.params:
            words = getattr(option, "help", None) or ""
            if option.name not in ("help", "install_completion", "show_completion"):
                assert words, f"{path} {option.name}: no help"


def test_the_settings_of_the_first_steps_are_settings() -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    block = next(one for one in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE) if "hostname:" in one)
    settings = config.Gateway.model_validate(YAML(typ="safe").load(textwrap.dedent(block)))
    assert settings.hop_for("so.tinh.gov.vn").name == "hop-thu" and settings.hop_for("x.vn").name == "ra-ngoai"


def test_imports_point_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:]
