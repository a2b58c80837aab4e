"""What was run of the docs: docs/commands.json says of each page which commands, when, how long, with which versions.

A page stands there once every command of it that can be run here has run well; `python -m tools.docs.check` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TypedDict

from tools.docs.blocks import ROOT

from tenuto.evaluation.record import versions
from tenuto.files import write_json

RECORD = ROOT / "docs" / "commands.json"


class Ran(TypedDict):
    """A page whose commands were run."""

    date: str
    seconds: dict[str, float]
    """Command -> what it took, in the order of the page."""
    versions: dict[str, str]


def named(page: Path) -> str:
    """How a page is called in the record."""
    return page.relative_to(ROOT).as_posix()


def recorded(file: Path = RECORD) -> dict[str, Ran]:
    """Page -> what was run of it; empty before the first run."""
    if not file.is_file():
        return {}
    found: dict[str, Ran] = json.loads(file.read_text(encoding="utf-8"))
    return found


def keep(page: Path, seconds: Mapping[str, float], *, sound: bool, file: Path = RECORD) -> None:
    """Write down a page that was run just now; of one that failed nothing stays."""
    found = recorded(file)
    found.pop(named(page), None)
    if sound:
        rounded = {command: round(own, 1) for command, own in seconds.items()}
        found[named(page)] = Ran(date=date.today().isoformat(), seconds=rounded, versions=versions())
    write_json(file, dict(sorted(found.items())))
