"""What a project asks to be trained, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tenuto.project.settings import Project
from tenuto.regularizers.base import Regularizer


@dataclass(frozen=True)
class Training:
    """One training that is to be done: an arm of the comparison at one seed."""

    arm: str
    regularizers: Mapping[str, Regularizer]
    seed: int
    folder: Path


@dataclass(frozen=True)
class Done:
    """One finished training."""

    training: Training
    lora: Path
    setup_seconds: float
    setup_forwards: float


def at_once(project: Project, device: torch.device) -> int:
    """Trainings under way at once: as many as are asked for on the CPU; one on a GPU, which a single one fills."""
    return min(project.arms.at_once, len(trainings(project, Path()))) if device.type == "cpu" else 1


def trainings(project: Project, folder: Path) -> list[Training]:
    """Every training of the project: each arm at each seed."""
    methods = {"plain": {}, "held": project.regularizers} if project.arms.plain else {"held": project.regularizers}
    return [
        Training(arm, own, seed, folder / arm / f"seed-{seed}")
        for seed in project.arms.seeds or (project.seed,)
        for arm, own in methods.items()
    ]
