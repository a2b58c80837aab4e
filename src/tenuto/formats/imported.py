"""What came of an import: the project, what was carried over, and what was not, in plain words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenuto.data.captions import caption_path
from tenuto.data.images import EXTENSIONS
from tenuto.files import write_text
from tenuto.formats.sections import dumps
from tenuto.project.file import make_project
from tenuto.project.settings import as_tables, usual_hold

Table = dict[str, Any]
WIDTH = 116
SHOWN = 60
ORDER = ("name", "seed", "base", "concepts", "data", "prior", "regularizers", "training")
"""Sections as a person would write them."""
NEUTRAL = "off, or at its default there: nothing to carry"
SECRETS = frozenset({"wandb_api_key", "huggingface_token", "hub_token", "log_wandb_api_key"})


@dataclass(frozen=True)
class Carried:
    """A setting that tenuto has too."""

    theirs: str
    ours: str
    value: Any
    """As it stands in the project file."""


@dataclass(frozen=True)
class Left:
    """A setting that was not carried, or that did there something else than it said."""

    theirs: str
    value: Any
    why: str
    """Why, and what tenuto does instead."""


@dataclass(frozen=True)
class Uncaptioned:
    """Pictures without caption files; the old trainer gave them this text."""

    folder: Path
    caption: str


@dataclass(frozen=True)
class Imported:
    """A foreign config as a project."""

    source: Path
    system: str
    project: Table
    carried: tuple[Carried, ...]
    left: tuple[Left, ...]
    uncaptioned: tuple[Uncaptioned, ...] = ()

    def to_toml(self) -> str:
        """The project file: where it came from and what was left behind as comments, then the settings."""
        head = [
            f"Imported from {self.source} ({self.system}) by `tenuto import`; paths are relative to this file.",
            *(["Not carried over:"] if self.worth_saying() else []),
            *(f"- {names}: {why}" for names, why in grouped(self.worth_saying())),
        ]
        lines = [line for text in head for line in _wrapped(text)]
        return "\n".join(lines) + "\n\n" + dumps(self.project)

    def worth_saying(self) -> list[Left]:
        """What was left, without the settings that stood at their defaults."""
        return [each for each in self.left if each.why != NEUTRAL]


def pictures_in(folder: Path) -> list[Path]:
    """Pictures directly in a folder, by name; none where there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file())
    except (OSError, ValueError):
        return []


def grouped(left: Sequence[Left]) -> list[tuple[str, str]]:
    """(settings with values, why), settings of one reason together."""
    reasons: dict[str, list[str]] = {}
    for each in left:
        reasons.setdefault(each.why, []).append(f"{shown(each.theirs)} = {shown(each.value)}")
    return [(", ".join(names), why) for why, names in reasons.items()]


def shown(value: Any) -> str:
    """A value in one short line."""
    text = " ".join((value if isinstance(value, str) else repr(value)).split()) or '""'
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _wrapped(text: str) -> list[str]:
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return textwrap.wrap(printable, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False)


def write_captions(imported: Imported) -> int:
    """Write the old trainer's caption beside every picture that has none; says how many. Nothing is overwritten."""
    extension = imported.project.get("data", {}).get("caption_extension", ".txt")
    count = 0
    for folder, caption in ((own.folder, own.caption) for own in imported.uncaptioned):
        for picture in pictures_in(folder):
            if not (path := caption_path(picture, extension)).exists():
                write_text(path, caption + "\n")
                count += 1
    return count


class Draft:
    """An import in the making."""

    def __init__(self, source: Path, system: str) -> None:
        self.source, self.system = source, system
        self.table: Table = {}
        self.carried: list[Carried] = []
        self.left: list[Left] = []
        self.uncaptioned: list[Uncaptioned] = []
        self.defaults: frozenset[str] = frozenset()
        """Their settings that were not given, and stand at the old trainer's defaults."""
        self.names: dict[str, str] = {}
        """sd-scripts' name of a setting -> what this system calls it."""

    def put(self, theirs: str, ours: str, value: Any) -> None:
        """Carry a setting: `ours` is a dotted path, a number in it an entry of a list that is there already."""
        *path, last = ours.split(".")
        place: Any = self.table
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[last] = value
        default = " (its default)" if theirs in self.defaults else ""
        self.carried.append(Carried(self.names.get(theirs, theirs) + default, ours, value))

    def leave(self, theirs: str, value: Any, why: str) -> None:
        """Say that a setting is not carried, or what was odd about it."""
        entry = Left(self.names.get(theirs, theirs), "(a secret)" if theirs in SECRETS and value else value, why)
        if entry not in self.left:
            self.left.append(entry)

    def read_or(self, theirs: str, value: Any, read: Callable[[Any], Any], default: Any) -> Any:
        """The value as `read` takes it; where it cannot, the default, and it is said."""
        try:
            return read(value)
        except ValueError as error:
            self.leave(theirs, value, f"{error}: taken as {default}")
            return default

    def given(self, theirs: str, value: Any, read: Callable[[Any], Any], default: Any) -> Any:
        """The same, with the default also where nothing was given."""
        return default if value is None or value == "" else self.read_or(theirs, value, read, default)

    def leave_all(self, options: Table, why: str) -> None:
        for name, value in options.items():
            self.leave(name, value, why)

    def done(self) -> Imported:
        """The finished import. Raises TenutoError, naming the source, when no project can be made of it."""
        self._hold()
        table = {name: self.table[name] for name in ORDER if name in self.table}
        make_project(table, str(self.source))
        return Imported(self.source, self.system, table, tuple(self.carried), tuple(self.left), tuple(self.uncaptioned))

    def _hold(self) -> None:
        """Reg pictures that were carried are held by as there. Else what a project of ours is held by; it is named
        where another method is, for one that holds by itself stands alone where it is named."""
        reg, methods = "ratio" in self.table.get("prior", {}), self.table.get("regularizers", {})
        if "prior_preservation" not in methods and (reg or methods):
            concepts = [(own.get("kind", "concept"), own.get("trigger", "")) for own in self.table.get("concepts", ())]
            self.table["regularizers"] = methods | as_tables(usual_hold(concepts, reg=reg))
