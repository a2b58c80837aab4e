"""Every system that is read or written has its place in docs/formats.md."""

from __future__ import annotations

from pathlib import Path

from tenuto.formats.catalogue import EXPORTS, SYSTEMS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_system_has_its_page() -> None:
    formats = (DOCS / "formats.md").read_text()
    assert all(f"`{name}`" in formats for name in SYSTEMS)
    assert all(f"--to {name}" in formats for name in EXPORTS)
