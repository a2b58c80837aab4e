"""Arms: the ways of training that are compared, with the LoRAs that came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenuto.evaluation.settings import ComparisonSettings
from tenuto.words import TenutoError


@dataclass(frozen=True)
class Trained:
    """One training of an arm."""

    seed: int
    lora: Path
    checkpoints: Mapping[int, Path] = field(default_factory=dict)
    """Updates -> LoRA file, the last one left out or included."""
    steps: int = 0
    """Updates of the whole training."""
    seconds: float | None = None
    """Wall time of everything that this arm needed: prior generation, caching, training."""
    forwards: float | None = None
    """The same in forwards of the denoiser."""
    setup_seconds: float = 0.0
    """The part of `seconds` that was spent before the first update."""
    setup_forwards: float = 0.0
    log: Path | None = None
    """The training's JSONL log, for the learning curves."""


@dataclass(frozen=True)
class Arm:
    """One way of training, and what came of it, once per training seed."""

    name: str
    """plain, held, or another name."""
    runs: tuple[Trained, ...]
    about: str = ""
    """One line: what was done."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its exact settings, for the appendix."""


@dataclass(frozen=True)
class Cell:
    """One entry of per_seed: a training and the noise seeds it is read at."""

    run: Trained
    seeds: tuple[int, ...]


def check(arms: Sequence[Arm], settings: ComparisonSettings) -> None:
    if len({arm.name for arm in arms}) != len(arms):
        raise TenutoError("comparison: two arms have the same name; give each its own")
    for arm in arms:
        if not arm.runs:
            raise TenutoError(f"comparison: arm {arm.name} has no training; train it first")
        for run in arm.runs:
            if not run.lora.is_file():
                raise TenutoError(f"{run.lora}: no such LoRA file; train arm {arm.name} first")
    check_settings(settings)


def check_settings(settings: ComparisonSettings) -> None:
    """What cannot be measured. Raises TenutoError."""
    if not settings.seeds:
        raise TenutoError("comparison.seeds is empty; give at least one seed")
    if settings.weights and 0.0 not in settings.weights:
        raise TenutoError("comparison.weights must hold 0 (the base), by which the others are judged")
    if settings.second_lora is not None and not settings.second_lora.is_file():
        raise TenutoError(
            f"{settings.second_lora}: comparison.second_lora is no file; name a LoRA in .safetensors or leave it out"
        )


def cells_of(arm: Arm, seeds: tuple[int, ...]) -> list[Cell]:
    """With several trainings, one entry per training at all seeds; else one entry per noise seed."""
    if len(arm.runs) > 1:
        return [Cell(run, seeds) for run in arm.runs]
    return [Cell(arm.runs[0], (number,)) for number in seeds]
