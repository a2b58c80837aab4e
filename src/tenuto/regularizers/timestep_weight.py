"""Weights that depend on the level of noise."""

from __future__ import annotations

from typing import final

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tenuto.regularizers.base import Memory, Regularizer
from tenuto.regularizers.step import Step


@final
class TimestepWeight(Regularizer):
    """Learn less, and hold more, where there is much noise: layouts are overfitted there.

        instance rows * (1 - weight (t/T)^power)        other methods' rows * (1 + weight (t/T)^power)

    each divided by its mean over the timesteps that are drawn, so that the terms weigh on the whole what they did.

    When   places and poses of the set are copied with the concept.
    Paper  our own; what it follows is T-LoRA, arXiv:2507.05964 (which limits the rank at high noise).
    Cost   none.
    Avoid  styles: they live at high noise.
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    """How strongly; 1: nothing is learned at the last timestep."""
    power: PositiveFloat = 1.0
    """How late it sets in."""

    def weigh(self, step: Step, instance: Tensor) -> Tensor:
        return instance * self._factor(step, -self.weight_at(step.epoch))

    def weigh_held(self, step: Step, held: Tensor, memory: Memory) -> Tensor:
        return held * self._factor(step, self.weight_at(step.epoch))

    def _factor(self, step: Step, slope: float) -> Tensor:
        curve = 1 + slope * (torch.arange(step.process.steps) / step.process.steps) ** self.power
        return curve.to(step.t.device)[step.t.long()] / step.mean_over_t(curve)
