"""The adapter that a project trains."""

from __future__ import annotations

from pathlib import Path

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import attach_file, tuner_of
from tenuto.adapters.tuners.base import Tuner
from tenuto.families.base import Base
from tenuto.project.settings import Project


def tuner_for(project: Project) -> Tuner:
    """The kind of adapter that is trained: that of the file that training goes on from, if there is one."""
    start = project.training.start_from
    return tuner_of(read_lora(Path(start))) if start else project.training.adapter.tuner()


def adapter_of(project: Project, base: Base, seed: int) -> Adapter:
    """Fresh layers, or those of the LoRA that training goes on from. Raises TenutoError where that does not fit."""
    if project.training.start_from:
        return attach_file(base, read_lora(Path(project.training.start_from)), to_train=True)
    return Adapter.attach(base, project.training.adapter, seed)
