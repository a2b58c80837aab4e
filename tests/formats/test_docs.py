"""Every command that docs/moving.md shows exists, with the options that it shows."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer.main

from tenuto.cli.main import app
from tenuto.formats.catalogue import EXPORTS, SYSTEMS

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = sorted(
    line.split("#")[0].strip()
    for line in (DOCS / "moving.md").read_text().splitlines()
    if line.startswith("    tenuto ")
)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_real(line: str) -> None:
    _, name, *words = shlex.split(line)
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, words, resilient_parsing=False)


def test_every_system_has_its_page() -> None:
    formats = (DOCS / "formats.md").read_text()
    assert all(f"`{name}`" in formats for name in SYSTEMS)
    assert all(f"--to {name}" in formats for name in EXPORTS)
