"""Pictures while it trains, for a new project: how often they are drawn, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenuto.formats.imported import pictures_in
from tenuto.project.settings import Project
from tenuto.training.settings import TrainingSettings
from tenuto.work.prepare import DEFAULT_EPOCHS
from tenuto.work.trainings import trainings

PICTURES = 10
"""Of each training, at most."""


def sampling(folder: Path) -> dict[str, Any]:
    """[training] of a new project on the pictures of this folder: one is drawn after every tenth of the updates."""
    updates = -(-len(pictures_in(folder)) * DEFAULT_EPOCHS // TrainingSettings().batch)
    return {"training": {"sample_every": max(1, -(-updates // PICTURES))}}


def passes() -> int:
    """Passes through the model that they cost a new project at most, in all its trainings."""
    project = Project.model_validate({"concepts": [{"name": "new", "images": ""}]})
    return PICTURES * len(trainings(project, Path())) * project.sampler().forwards()
