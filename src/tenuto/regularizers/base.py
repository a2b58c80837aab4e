"""The interface of a regularizer: a settings section that is also the behaviour, behind a few hooks.

To add one: one file with one `@final` class, one line in `catalogue.py`, and its contract tests run by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.regularizers.step import Step
from tenuto.words import Settings

Memory = Mapping[str, Tensor]
"""What a method remembers from update to update; the loop saves and restores it."""


class WeightSchedule(Settings):
    """How a weight moves over the training. D8's three numbers: weight, target epoch, minimum."""

    shape: Literal["constant", "linear", "cosine"] = "constant"
    """constant: always the weight; linear, cosine: from the weight to `minimum` at `until_epoch`, then constant."""
    minimum: NonNegativeFloat = 0.0
    """Where the weight ends. 0 is a value."""
    until_epoch: PositiveFloat = 100.0
    """The epoch at which `minimum` is reached."""

    def at(self, weight: float, epoch: float) -> float:
        """The weight at this (fractional) epoch."""
        done = min(epoch / self.until_epoch, 1.0)
        gone = {"constant": 0.0, "linear": done, "cosine": (1 - math.cos(math.pi * done)) / 2}[self.shape]
        return weight + (self.minimum - weight) * gone


class Regularizer(Settings):
    """Hooks, each with a do-nothing default. L = mean of weighed instance errors + sum of every `loss`."""

    weight: NonNegativeFloat = 1.0
    """How much the term counts. 0 is a value: the method is then absent, bit for bit."""
    schedule: WeightSchedule = WeightSchedule()
    """How the weight moves over the training."""

    def weight_at(self, epoch: float) -> float:
        """The weight that is in the loss, and in the log, at this epoch."""
        return self.schedule.at(self.weight, epoch)

    def active(self) -> bool:
        """Whether the method does anything at all; if not, it is left out and draws nothing."""
        return self.weight > 0 or (self.schedule.shape != "constant" and self.schedule.minimum > 0)

    def needs_prior(self) -> bool:
        """Whether prior rows should join the updates."""
        return False

    def weigh(self, step: Step, instance: Tensor) -> Tensor:
        """Change the per-row weights of the instance term [B]."""
        return instance

    def loss(self, step: Step) -> Tensor | None:
        """One more term, per row [B], already weighted; None when this micro-batch has no row for it."""
        return None

    def init(self, adapter: Adapter) -> Memory:
        """Memory at the start of training."""
        return {}

    def after_update(self, adapter: Adapter, memory: Memory) -> Memory:
        """After the optimizer's step: may change the adapter's weights; returns the new memory."""
        return memory
