"""The Import page: a foreign config below the roots, or one that was dropped, becomes a project. Nothing is run."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex
from typing import Any

from starlette.responses import Response

from tenuto.files import write_text
from tenuto.formats.catalogue import SYSTEMS, import_project
from tenuto.formats.imported import Imported, grouped, shown
from tenuto.project.file import project_in
from tenuto.web.core import Answer, Call
from tenuto.web.places import Place, new_place, own_place
from tenuto.web.roots import Roots
from tenuto.web.views.files import CHOICES
from tenuto.words import Settings, TenutoError

LARGEST = 4 << 20
"""Characters of a dropped config."""


class Given(Settings):
    """A path below the roots, or a dropped file's name and text."""

    path: str = ""
    file: str = ""
    text: str = ""
    name: str = ""
    """Of the new project; empty: only look."""


def imports(call: Call) -> Response:
    return call.page("import.html.j2", systems=SYSTEMS)


def take(call: Call, body: Given) -> Answer:
    """Look at a config, or make a project of it."""
    roots = call.studio.roots
    place = new_place(roots, body.name) if body.name else own_place(roots, "x")
    imported = _read(body, place, roots)
    told: dict[str, Any] = {
        "system": imported.system,
        "carried": [{"theirs": c.theirs, "ours": c.ours, "value": shown(c.value)} for c in imported.carried],
        "left": [{"names": names, "why": why} for names, why in grouped(imported.left)],
        "toml": imported.to_toml(),
    }
    if not body.name:
        return told
    _write(imported, place, roots)
    return {"go": f"/p/{place.key}/pictures", "say": f"{place.key} is here"}


def _read(body: Given, place: Place, roots: Roots) -> Imported:
    if body.path:
        return import_project(roots.allowed(body.path), place.folder, may_read=roots.holds)
    suffix = Path(body.file).suffix.lower()
    if suffix not in CHOICES["config"]:
        raise TenutoError(f"{Path(body.file).name[:60]!r}: no config; give {', '.join(sorted(CHOICES['config']))}")
    if len(body.text) > LARGEST:
        raise TenutoError(f"{Path(body.file).name[:60]}: too large for a config")
    file = roots.workspace / f".dropped-{token_hex(8)}{suffix}"  # what it names is looked for from the workspace
    try:
        file.write_text(body.text, encoding="utf-8")
        return import_project(file, place.folder, may_read=roots.holds)
    finally:
        file.unlink(missing_ok=True)


def _write(imported: Imported, place: Place, roots: Roots) -> None:
    """The project file, unless it names files outside the roots."""
    roots.check(project_in(imported.project, place.file, place.file.name))
    write_text(place.file, imported.to_toml())
