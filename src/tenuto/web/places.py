"""Projects on disk: a project file in the workspace, and the folder of its run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from tenuto.files import write_text
from tenuto.project.file import RUNS, load_project, make_project, project_in, read_toml, run_folder
from tenuto.project.settings import Project
from tenuto.web.marks import WRITING, unchanged
from tenuto.web.roots import Roots
from tenuto.words import TenutoError

FILE = "project.toml"
DEMO = "demo"
"""The name of the demo, whose command writes its project file itself."""
KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Place:
    """Where one project lies."""

    key: str
    """Its name in addresses."""
    file: Path
    folder: Path
    """Of its run."""

    def load(self, roots: Roots) -> Project:
        """Paths are absolute. Raises TenutoError, also where it names what lies outside the roots."""
        project = load_project(self.file)
        roots.check(project)
        return project

    def table(self) -> dict[str, Any]:
        """What stands in the file, without the defaults; paths as they stand there. Raises TenutoError."""
        return read_toml(self.file, "project file")

    @contextmanager
    def changing(self, seen: str | None = None) -> Iterator[dict[str, Any]]:
        """The table, to be changed and saved inside the block, where no other request writes it.

        seen: the mark of the file that the page showed, for what writes more than the one value it was asked for.
        Raises TenutoError where the file is another by now.
        """
        with WRITING if seen is None else unchanged(self.file, seen, "this project"):
            yield self.table()

    def save(self, table: Mapping[str, Any], roots: Roots) -> Project:
        """Write the project, checked, without the defaults; remarks at the file's head stay. Raises TenutoError."""
        project = make_project(table, self.file.name)
        plain = project.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        if named := table.get("regularizers"):  # what stands beside them unnamed stays unnamed
            plain["regularizers"] = {name: plain["regularizers"][name] for name in named}
        loaded = project_in(plain, self.file, self.file.name)
        roots.check(loaded)
        write_text(self.file, _remarks(self.file) + tomli_w.dumps(plain))
        return loaded


def _remarks(file: Path) -> str:
    """The lines at the head of a file that begin with "#", as an import writes them."""
    if not file.exists():
        return ""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8-sig").splitlines(keepends=True):
        if line.strip() and not line.startswith("#"):
            break
        lines.append(line)
    return "".join(lines)


def place_of(roots: Roots, key: str) -> Place:
    """Raises TenutoError when there is no such project."""
    found = next((place for place in places(roots) if place.key == key), None)
    if found is None:
        raise TenutoError(f"{key[:80]}: no such project in {roots.workspace}")
    return found


def places(roots: Roots) -> list[Place]:
    """Every project: runs/<key>/project.toml, and <key>.toml in the workspace itself."""
    runs = roots.workspace / RUNS
    found: dict[str, Place] = {}
    for file in sorted(runs.glob(f"*/{FILE}")):
        found[file.parent.name] = Place(file.parent.name, file, file.parent)
    for file in sorted(roots.workspace.glob("*.toml")):
        if (table := _project_in(file)) is not None:
            folder = roots.workspace / run_folder(file, _name_in(table))
            found.setdefault(file.stem, Place(file.stem, file, folder))
    kept = [
        own for own in found.values() if KEY.fullmatch(own.key) and roots.holds(own.file) and roots.holds(own.folder)
    ]
    return sorted(kept, key=lambda own: -own.file.stat().st_mtime)


def _project_in(file: Path) -> dict[str, Any] | None:
    """What stands in a project file; None for another TOML file. One that is broken is empty: its page says why."""
    try:
        table = read_toml(file, "project file")
    except TenutoError:
        return {} if _mentions_concepts(file) else None
    return table if "concepts" in table else None


def _mentions_concepts(file: Path) -> bool:
    try:
        return "concepts" in file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False


def _name_in(table: Mapping[str, Any]) -> str | None:
    name = table.get("name")
    return name if isinstance(name, str) else None


def new_place(roots: Roots, name: str) -> Place:
    """A free place for a project of this name. Raises TenutoError when it cannot be one or is taken."""
    key = re.sub(r"[^A-Za-z0-9_-]+", "-", name.strip()).strip("-")
    if not KEY.fullmatch(key):
        raise TenutoError(f"{name[:40]!r}: no name for a project; use letters, digits and dashes")
    if key == DEMO:
        raise TenutoError(f"{key}: the name of the demo; choose another")
    if any(place.key == key for place in places(roots)) or (roots.workspace / RUNS / key).exists():
        raise TenutoError(f"{key}: there is a project of that name; choose another")
    return own_place(roots, key)


def own_place(roots: Roots, key: str) -> Place:
    """Where the page keeps a project of this name. Raises TenutoError when that is a link to elsewhere."""
    folder = roots.workspace / RUNS / key
    if not roots.holds(folder / FILE):
        raise TenutoError(f"{folder}: leads outside the folders of this page; choose another name")
    return Place(key, folder / FILE, folder)
