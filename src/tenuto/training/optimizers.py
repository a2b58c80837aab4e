"""Optimizers and learning-rate schedules: small settings that build the thing they describe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn
from torch.optim import AdamW, Optimizer

from tenuto.words import Settings


class OptimizerSettings(Settings):
    """[training.optimizer]: AdamW."""

    lr: PositiveFloat = 1e-4
    """Learning rate after the warm-up."""
    weight_decay: NonNegativeFloat = 0.01
    """Decay of A and B, which for a LoRA pulls towards the base."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments."""

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return AdamW(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


class LearningRateSettings(Settings):
    """[training.learning_rate]: how the rate moves over the run."""

    shape: Literal["constant", "cosine", "linear"] = "constant"
    """After the warm-up: constant, or down to 0 at the last update."""
    warmup: NonNegativeInt = 0
    """Updates over which the rate climbs from 0."""

    def factor(self, update: int, updates: int) -> float:
        """What the learning rate is multiplied by at this update (counted from 0)."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        done = (update - self.warmup) / max(1, updates - self.warmup)
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.shape]
