"""What mkdocs calls while it builds the site (hooks in mkdocs.yml): pages that are made of the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from tools.docs import methods_page, metrics_page, settings_page
from tools.docs.blocks import ROOT


def _of_the_repository(file: str, docs: str) -> Callable[[], str]:
    """A page that lies elsewhere in the repository; `docs` is how it writes the way to docs/."""
    return lambda: (ROOT / file).read_text(encoding="utf-8").replace(f"]({docs}", "](")


MADE: dict[str, Callable[[], str]] = {
    "settings.md": settings_page.page,
    "methods.md": methods_page.page,
    "metrics.md": metrics_page.page,
    "contributing.md": _of_the_repository("CONTRIBUTING.md", "docs/"),
    "article.md": _of_the_repository("presets/article/README.md", "../../docs/"),
}
"""Pages of which no copy lies in docs/."""
WRITTEN_LATER = ("leaderboard.md",)
"""Pages that are in the site as soon as a measurement has written them."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    there = {path.name for path in Path(config.docs_dir).glob("*.md")}
    config.nav = _without([name for name in WRITTEN_LATER if name not in there], config.nav)
    return config


def _without(missing: list[str], nav: Any) -> Any:
    """The navigation without these pages."""
    if isinstance(nav, list):
        return [kept for each in nav if (kept := _without(missing, each)) is not None]
    if isinstance(nav, dict):
        kept = {title: own for title, inner in nav.items() if (own := _without(missing, inner)) is not None}
        return kept or None
    return None if nav in missing else nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in MADE.items():
        files.append(File.generated(config, name, content=page()))
    return files
