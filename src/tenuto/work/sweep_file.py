"""A sweep file: which arms are made of one project, by which settings they differ, with which seeds.

    project = "project.toml"                          # relative to this file
    seeds = [0, 1, 2]
    [settings]                                        # for every arm
    "training.steps" = 200
    [axes]                                            # every combination is an arm
    "prior.per_image" = [1, 25, 50]
    [arms.none]                                       # arms with settings of their own, beside those
    regularizers = {}

A key is a dotted place in the project, as in --set, and its value stands instead of what is there; shorter places come
first. Paths are relative to the project file.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tenuto.project.file import apply_changes, project_in, read_toml, set_value
from tenuto.project.settings import Project
from tenuto.project.wording import explained
from tenuto.regularizers.base import Regularizer
from tenuto.words import Settings, TenutoError

NAME = re.compile(r"(?!base$)\w[\w .,=+-]*")
"""An arm's name becomes the name of its folder, beside the base's."""
ELSEWHERE = {
    "base": "all arms are compared on one checkpoint; name it in the project",
    "comparison": "all arms are measured alike; put it under [settings]",
    "arms": "seeds and arms are the sweep's own",
    "seed": "the sweep has `seeds`",
    "name": "the arm's name stands for it",
}
"""Sections in which arms must not differ, and why."""
REPLACED = ("regularizers", "concepts")
"""Sections that an arm may give as a whole."""


class SweepSettings(Settings):
    """A sweep file."""

    project: str
    """The project file, relative to this one."""
    about: str = ""
    """What is asked: it heads the result."""
    seeds: tuple[int, ...] = ()
    """Training seeds of every arm; empty: the project's."""
    reference: str = ""
    """The arm that the others are compared with at equal concept strength; empty: the first without regularization."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What differs from the project for every arm."""
    axes: dict[str, list[Any] | dict[str, Any]] = Field(default_factory=dict)
    """Place -> its values, or name -> value where values are long. Every combination is an arm."""
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Arms with settings of their own; they come first."""


@dataclass(frozen=True)
class SweepArm:
    """One arm: a project of its own, trained once per seed."""

    name: str
    project: Project
    changes: Mapping[str, Any] = field(default_factory=dict)
    """How it differs from the sweep's project."""

    @property
    def plain(self) -> bool:
        """Whether nothing holds it."""
        return not self.methods()

    def methods(self) -> dict[str, Regularizer]:
        """What holds it."""
        return {name: own for name, own in self.project.regularizers.items() if own.active()}


@dataclass(frozen=True)
class Sweep:
    """What is to be trained and compared. Raises TenutoError for arms that cannot be compared."""

    name: str
    project: Project
    """What all arms are measured by: pictures, prompts, comparison."""
    arms: tuple[SweepArm, ...]
    seeds: tuple[int, ...]
    about: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not names:
            raise TenutoError(f"{self.name}: no arm; give [axes] or [arms.<name>]")
        for arm in self.arms:
            self._check(arm)
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise TenutoError(f"{self.name}: two arms are called {twice!r}; names must differ")
        same: dict[str, str] = {}
        for arm in self.arms:
            other = same.setdefault(arm.project.model_dump_json(), arm.name)
            if other != arm.name:
                raise TenutoError(f"{self.name}: arms {other!r} and {arm.name!r} are the same training; leave one out")
        if self.reference and self.reference not in names:
            raise TenutoError(f"{self.name}: reference {self.reference!r} is no arm; there are: {', '.join(names)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise TenutoError(f"{self.name}: seeds {list(self.seeds)} hold one twice")

    def _check(self, arm: SweepArm) -> None:
        if not NAME.fullmatch(arm.name):
            raise TenutoError(
                f"{self.name}: {arm.name!r} cannot name an arm; use letters, digits, spaces and . , = + - only, "
                "a letter or digit first, and not 'base'"
            )
        known = {concept.name for concept in self.project.concepts}
        if strange := {concept.name for concept in arm.project.concepts} - known:
            raise TenutoError(
                f"{self.name}: arm {arm.name!r} teaches {min(strange)!r}, which the project does not know"
            )

    def projects(self) -> list[Project]:
        """The one that all arms are measured by, and every arm's."""
        return [self.project, *(arm.project for arm in self.arms)]

    def compared_with(self) -> str:
        """The arm that the others are compared with."""
        return self.reference or next((arm.name for arm in self.arms if arm.plain), self.arms[0].name)


def load_sweep(path: Path, changes: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and the project that it names; `changes` are "section.key=value", for every arm.

    Raises TenutoError that names the file, the arm and the setting.
    """
    try:
        settings = SweepSettings.model_validate(read_toml(path, "sweep file"))
    except ValidationError as error:
        raise TenutoError(f"{path}: {explained(error, SweepSettings)}") from error
    file = path.parent / settings.project
    table = read_toml(file, f"project file (it is named in {path})")
    _put(table, settings.settings, f"{path}: settings")
    apply_changes(table, changes)
    project = project_in(table, file, f"{path}: {file.name} with [settings]")
    seeds = settings.seeds or project.arms.seeds or (project.seed,)
    arms = []
    for name, own in [*settings.arms.items(), *_matrix(settings.axes, path)]:
        source = f"{path}: arm {name!r}"
        _refuse(own, source)
        changed = copy.deepcopy(table)
        _put(changed, own, source)
        arms.append(SweepArm(name, project_in(changed, file, source), own))
    return Sweep(path.stem, project, tuple(arms), tuple(seeds), settings.about, settings.reference)


def _put(table: dict[str, Any], changes: Mapping[str, Any], source: str) -> None:
    for place, value in sorted(changes.items(), key=lambda entry: entry[0].count(".")):
        if isinstance(value, Mapping) and "." not in place and place not in REPLACED:
            inner = next(iter(value), "...")
            raise TenutoError(f'{source}: {place} is a whole section; name one setting, in quotes: "{place}.{inner}"')
        set_value(table, place, copy.deepcopy(value), source)


def _refuse(own: Mapping[str, Any], source: str) -> None:
    for place in own:
        if why := ELSEWHERE.get(place.partition(".")[0]):
            raise TenutoError(f"{source}: {place} cannot differ between arms: {why}")


def _matrix(axes: Mapping[str, list[Any] | dict[str, Any]], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, settings) of every combination of the axes' values."""
    if not axes:
        return
    short = _short_names(list(axes))
    sides: list[list[tuple[str, Any]]] = []
    for place, values in axes.items():
        if not values:
            raise TenutoError(f"{path}: axes: {place} has no values")
        named = values.items() if isinstance(values, dict) else [(_told(v, place, path), v) for v in values]
        sides.append([(f"{short[place]}={name}", value) for name, value in named])
    for chosen in product(*sides):
        name = ", ".join(label for label, _ in chosen)
        yield name, {place: value for place, (_, value) in zip(axes, chosen, strict=True)}


def _told(value: Any, place: str, path: Path) -> str:
    """A value as a part of an arm's name."""
    if isinstance(value, list | dict):
        raise TenutoError(f"{path}: axes: {place}: give long values names: {{ name = value, ... }}")
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return re.sub(r"[^\w .+-]+", "-", text)


def _short_names(places: Sequence[str]) -> dict[str, str]:
    """The fewest last parts of each place that no other place ends with."""
    parts = {place: place.split(".") for place in places}

    def shortest(place: str) -> str:
        for count in range(1, len(parts[place])):
            end = parts[place][-count:]
            if sum(other[-count:] == end for other in parts.values()) == 1:
                return ".".join(end)
        return place

    return {place: shortest(place) for place in places}
