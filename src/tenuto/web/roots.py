"""Which files the page may touch: those below the folders that were named at the start, and no others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tenuto.project.paths import paths_of
from tenuto.project.settings import Project
from tenuto.words import TenutoError

FOLDERS = (".images", ".masks", ".test_images", ".folders.path")
"""Settings that name folders of pictures and captions."""


@dataclass(frozen=True)
class Roots:
    """Folders, resolved. The first is the workspace, where projects and runs lie."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Roots:
        """Raises TenutoError for what is no folder."""
        for folder in folders:
            if not folder.is_dir():
                raise TenutoError(f"{folder}: no such folder; name one that is there with --root")
        return cls(tuple(folder.resolve() for folder in folders))

    @property
    def workspace(self) -> Path:
        return self.folders[0]

    def holds(self, path: Path) -> bool:
        """Whether it lies below a root, wherever its links lead."""
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        return any(real == root or root in real.parents for root in self.folders)

    def allowed(self, text: str) -> Path:
        """The path that the text means (relative to the workspace), resolved. Raises TenutoError outside the roots."""
        try:
            path = (self.workspace / Path(text).expanduser()).resolve()
            path.exists()  # a name that is too long shows only when it is asked for
        except (OSError, ValueError, RuntimeError) as error:
            raise TenutoError(f"{text[:60]!r}: no path; choose a folder or file") from error
        if not self.holds(path):
            raise TenutoError(f"{text}: outside the folders of this page; start it with --root to add one")
        return path

    def check(self, project: Project) -> None:
        """Raises TenutoError when the project names a file or folder outside the roots, or by way of a link in it."""
        for setting, path in paths_of(project):
            named = path.expanduser()
            links = _links_in(named) if setting.endswith(FOLDERS) else []
            if (wrong := next((own for own in (named, *links) if not self.holds(own)), None)) is not None:
                raise TenutoError(
                    f"{setting}: {wrong} lies outside the folders of this page; start it with --root to add one"
                )

    def name(self, path: Path) -> str:
        """How it is shown, and what `allowed` takes: relative to the workspace where it lies below."""
        real = path.resolve()
        return real.relative_to(self.workspace).as_posix() if self.workspace in real.parents else str(real)


def _links_in(folder: Path) -> list[Path]:
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_symlink()]
    return []
