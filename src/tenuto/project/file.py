"""The project file: read, resolved, changed by --set; and where its run lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tenuto.files import parse_toml
from tenuto.project.paths import resolved
from tenuto.project.settings import Project
from tenuto.project.wording import explained
from tenuto.words import TenutoError

RUNS = "runs"
"""The folder of all runs, below where the command is given."""


def run_folder(file: Path, name: str | None) -> Path:
    """Where the run of the project in this file lies, if nobody says otherwise."""
    return Path(RUNS) / (name or file.stem)


def load_project(path: Path, changes: Sequence[str] = ()) -> Project:
    """Read a project file; `changes` are "section.key=value" as in --set. Paths in it are relative to the file.

    Raises TenutoError that names the file, the key and the nearest valid name.
    """
    table = read_toml(path, "project file")
    apply_changes(table, changes)
    return project_in(table, path)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """A TOML file as plain data. Raises TenutoError."""
    try:
        return parse_toml(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: no such {what}; the README shows one") from error
    except IsADirectoryError as error:
        raise TenutoError(f"{path}: a folder; give the {what} in it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TenutoError(f"{path}: not a readable TOML file ({error}); save it as UTF-8 text") from error
    except ValueError as error:
        hint = "write Windows paths with / or in 'single quotes'" if "\\" in str(error) else "mend that line"
        raise TenutoError(f"{path}: not a TOML file ({error}); {hint}") from error


def project_in(table: Mapping[str, Any], path: Path, source: str = "") -> Project:
    """The project that stands in this data; its paths are relative to the file at `path`."""
    return resolved(make_project(table, source or str(path)), path.resolve().parent)


def make_project(table: Mapping[str, Any], source: str) -> Project:
    """A project from plain data; `source` is named in errors."""
    try:
        return Project.model_validate(table)
    except ValidationError as error:
        raise TenutoError(f"{source}: {explained(error, Project)}") from error


def apply_changes(table: dict[str, Any], changes: Sequence[str]) -> None:
    """Put "section.key=value" into a project's data."""
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise TenutoError(f"--set {change}: write section.key=value")
        try:
            value = parse_toml(f"value = {text}")["value"]
        except ValueError:
            value = text
        set_value(table, name.strip(), value, f"--set {change}")


def set_value(table: dict[str, Any], name: str, value: Any, source: str) -> None:
    """Put a value at a dotted place of a project's data; `source` is named in errors."""
    *path, last = name.split(".")
    place: Any = table
    for part in path:
        place = _entry(place, part, source) if isinstance(place, list) else place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise TenutoError(f"{source}: {part} is a value, not a section")
    if isinstance(place, list):
        raise TenutoError(f"{source}: name the entry by its number, e.g. concepts.0.trigger=...")
    place[last] = value


def _entry(entries: list[Any], part: str, source: str) -> Any:
    if not part.isdigit() or int(part) >= len(entries):
        raise TenutoError(f"{source}: name one of the {len(entries)} entries by its number, from 0")
    return entries[int(part)]
