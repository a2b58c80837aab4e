"""Where a project's files and folders lie: found, and made absolute."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenuto.project.settings import ConceptSettings, PriorSettings, Project
from tenuto.words import TenutoError


def resolved(project: Project, folder: Path) -> Project:
    """Every path made absolute; in the file they are relative to it. Raises TenutoError for what can be no path."""
    return _with_paths(project, lambda setting, path: _possible(setting, folder / path.expanduser()))


def _possible(setting: str, path: Path) -> Path:
    try:
        path.lstat()
    except ValueError as error:
        raise TenutoError(f"{setting}: {str(path)!r} can be no path; mend it") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise TenutoError(f"{setting}: {str(path)[:60]}… is too long for a path; mend it") from error
    return path


COMPARED_BY = ("other_base", "tagger", "dino", "clip")
MAYBE_HUB = {"base.model", *(f"comparison.{name}" for name in COMPARED_BY)}
"""Settings that name a file, a folder, or something that is fetched."""


def paths_of(project: Project) -> list[tuple[str, Path]]:
    """(setting, path) of every file and folder that the project names; names of the hub's are left out."""
    found: list[tuple[str, Path]] = []

    def note(setting: str, path: Path) -> Path:
        if setting not in MAYBE_HUB or _is_here(path):
            found.append((setting, path))
        return path

    _with_paths(project, note)
    return found


def _is_here(path: Path) -> bool:
    """What cannot be a path, such as a name that is too long, is not here."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _with_paths(project: Project, change: Callable[[str, Path], Path]) -> Project:
    """The project with every path setting changed."""

    def paths(settings: Any, section: str, *names: str) -> Any:
        values = {name: getattr(settings, name) for name in names}
        changed = {name: type(v)(change(f"{section}.{name}", Path(v))) for name, v in values.items() if v is not None}
        return settings.model_copy(update=changed)

    def prior(settings: PriorSettings, section: str) -> PriorSettings:
        own: PriorSettings = paths(settings, section, "own", "tag_csv", "bank", "store")
        folders = tuple(paths(each, f"{section}.folders", "path") for each in own.folders)
        return own.model_copy(update={"folders": folders})

    def concept(settings: ConceptSettings) -> ConceptSettings:
        section = f"concepts.{settings.name}"
        own: ConceptSettings = paths(settings, section, "images", "masks", "test_images")
        return own.model_copy(update={"prior": prior(own.prior, f"{section}.prior") if own.prior else None})

    def local(settings: Any, section: str, *names: str) -> Any:
        """Those of them that are here; the others are names of the hub's."""
        values = {name: value for name in names if (value := getattr(settings, name))}
        changed = {name: change(f"{section}.{name}", Path(value)) for name, value in values.items()}
        here = {name: type(values[name])(path) for name, path in changed.items() if _is_here(path)}
        return settings.model_copy(update=here)

    return project.model_copy(
        update={
            "base": local(paths(project.base, "base", "vae"), "base", "model"),
            "concepts": tuple(concept(each) for each in project.concepts),
            "prior": prior(project.prior, "prior"),
            "training": paths(project.training, "training", "start_from"),
            "comparison": local(paths(project.comparison, "comparison", "second_lora"), "comparison", *COMPARED_BY),
        }
    )
