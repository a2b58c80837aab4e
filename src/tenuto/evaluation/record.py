"""comparison.json: everything that was measured, as plain data."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field

from tenuto.checks import json_check
from tenuto.evaluation.curve import Point, Ratio, bootstrap
from tenuto.evaluation.readings import Value
from tenuto.files import first_line, parse_json, write_json
from tenuto.words import Settings, TenutoError

FORMAT = 1
CHECK = "check"
"""Key of the checksum in a result's file."""


class Number(Settings):
    """A metric of an arm over seeds."""

    mean: float | None
    per_seed: list[float | None] = Field(default_factory=list)
    interval: tuple[float, float] | None = None
    """Bootstrap 95 % over seeds."""
    reason: str | None = None
    """Why there is no number."""
    detail: list[dict[str, Any]] = Field(default_factory=list)
    """The parts, per seed."""


ArmNumbers = dict[str, Number]


def mean_of(arm: ArmNumbers, name: str) -> float | None:
    """None where the arm has no such number."""
    number = arm.get(name)
    return number.mean if number else None


class PromptRecord(Settings):
    """One prompt of the comparison."""

    row: str
    text: str
    bare: str
    width: int
    height: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Sealed(Settings):
    """A result that is kept as a file, with a checksum: what was changed afterwards is not shown as measured."""

    what: ClassVar[str]
    remedy: ClassVar[str]

    def save(self, path: Path) -> None:
        table = json.loads(self.model_dump_json())
        write_json(path, table | {CHECK: json_check(table)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises TenutoError when the file is missing, something else, or was changed. Older ones have no checksum."""
        try:
            table = dict(parse_json(path.read_text(encoding="utf-8")))
            check = table.pop(CHECK, None)
            found = cls.model_validate_json(json.dumps(table))
        except (OSError, ValueError, TypeError) as error:
            raise TenutoError(f"{path}: not {cls.what} ({first_line(error)}); {cls.remedy}") from error
        if check not in (None, json_check(table)):
            raise TenutoError(f"{path}: was damaged or changed since it was measured; {cls.remedy}")
        return found


class Comparison(Sealed):
    """comparison.json"""

    what = "a comparison"
    remedy = "run tenuto compare again"

    format: int = FORMAT
    arms: dict[str, ArmNumbers]
    matched: list[Ratio] = Field(default_factory=list)
    """held / plain at the concept strength of either as shipped, for drift and bake, within 2 % and 5 %."""
    curves: dict[str, list[Point]] = Field(default_factory=dict)
    curve_axis: Literal["concept_strength", "gain"] = "concept_strength"
    concept: dict[str, str] = Field(default_factory=dict)
    about: dict[str, str] = Field(default_factory=dict)
    """Arm -> one line."""
    own: dict[str, str] = Field(default_factory=dict)
    """Tag group -> the set's own tag."""
    prompts: list[PromptRecord] = Field(default_factory=list)
    missing: dict[str, str] = Field(default_factory=dict)
    seeds: list[int] = Field(default_factory=list)
    per_seed_means: Literal["trainings", "noise seeds"] = "noise seeds"
    """What the entries of per_seed are."""
    settings: dict[str, Any] = Field(default_factory=dict)
    arm_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training_seeds: dict[str, list[int]] = Field(default_factory=dict)
    logs: dict[str, list[str]] = Field(default_factory=dict)
    """Every training's log, by arm; from the comparison's folder."""
    base: dict[str, str] = Field(default_factory=dict)
    hashes: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    pictures: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """Arm (and "base") -> row -> files under the comparison's folder."""


def summary(values: Sequence[Value]) -> Number:
    """Mean and bootstrap interval over the seeds that have a number; null only when none has."""
    found = [value.value for value in values if value.value is not None]
    reasons = list(dict.fromkeys(value.reason for value in values if value.reason))
    return Number(
        mean=sum(found) / len(found) if found else None,
        per_seed=[value.value for value in values],
        interval=bootstrap(found),
        reason="; ".join(reasons) or None,
        detail=[dict(value.detail) for value in values],
    )


def cost(values: Sequence[float | None], reason: str) -> Number:
    return summary([Value(value, None if value is not None else reason) for value in values])


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
    for name in ("tenuto", "torch", "diffusers", "transformers", "peft", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
