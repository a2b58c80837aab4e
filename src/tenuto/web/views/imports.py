"""The Import page: a foreign config below the roots, or one that was dropped, becomes a project. Nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import Any

from pydantic import Field
from starlette.responses import Response

from tenuto.files import write_text
from tenuto.formats.catalogue import SYSTEMS, import_project
from tenuto.formats.d8 import FILES
from tenuto.formats.imported import Imported, grouped, shown
from tenuto.project.file import project_in
from tenuto.web.core import Answer, Call
from tenuto.web.places import Place, new_place, own_place
from tenuto.web.roots import Roots
from tenuto.web.views.files import CHOICES
from tenuto.words import Settings, TenutoError

LARGEST = 4 << 20
"""Characters of what was dropped."""


class Given(Settings):
    """A path below the roots, a dropped file's name and text, or what was in a dropped folder."""

    path: str = ""
    file: str = ""
    text: str = ""
    folder: dict[str, str] = Field(default_factory=dict)
    """Name -> text of the files that are known: a folder of other trainers is given by its path."""
    name: str = ""
    """Of the new project; empty: only look."""


def imports(call: Call) -> Response:
    return call.page("import.html.j2", systems=SYSTEMS, known=FILES)


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
    texts = _in_folder(body.folder) if body.folder else {f"dropped{_ending(body.file)}": body.text}
    name = Path(body.file).name
    if sum(map(len, texts.values())) > LARGEST:
        raise TenutoError(f"{name[:60]}: too large for a config")
    with _laid_down(texts, roots.workspace) as folder:
        given = folder if body.folder else folder / next(iter(texts))
        try:  # what it names is looked for from the workspace
            read = import_project(given, place.folder, may_read=roots.holds, home=roots.workspace)
        except TenutoError as error:
            raise TenutoError(str(error).replace(str(given), name)) from error
    return replace(read, source=Path(name))


@contextmanager
def _laid_down(texts: Mapping[str, str], workspace: Path) -> Iterator[Path]:
    """A folder that holds them, for as long as they are read."""
    folder = workspace / f".dropped-{token_hex(8)}"
    folder.mkdir()
    try:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def _in_folder(texts: Mapping[str, str]) -> Mapping[str, str]:
    if other := sorted(texts.keys() - set(FILES)):
        raise TenutoError(f"{other[0][:60]!r}: not read out of a dropped folder; give {' and '.join(FILES)}")
    return texts


def _ending(file: str) -> str:
    ending = Path(file).suffix.lower()
    if ending not in CHOICES["config"]:
        raise TenutoError(f"{Path(file).name[:60]!r}: no config; give {', '.join(sorted(CHOICES['config']))}")
    return ending


def _write(imported: Imported, place: Place, roots: Roots) -> None:
    """The project file, unless it names files outside the roots."""
    roots.check(project_in(imported.project, place.file, place.file.name))
    write_text(place.file, imported.to_toml())
