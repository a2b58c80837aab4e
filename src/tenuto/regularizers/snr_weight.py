"""Weights of the instance rows by signal-to-noise ratio."""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tenuto.families.process import ANSWERS, Process
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.step import Step

SNR_LIMIT = 1000.0
TINY = 1e-12


@final
class SnrWeight(Regularizer):
    """Weigh instance rows by how much signal is left in them. Prior rows keep their weight.

        min_snr    w = min(SNR, gamma) |dx0 / dy|^2        eps: min(SNR, gamma) / SNR;  v: min(SNR, gamma) / (SNR + 1)
        debiased   w = sqrt(SNR) |dx0 / dy|^2              eps: 1 / sqrt(SNR), with SNR cut at 1000

    (y is what the network answers; x0 follows from it.)

    When   steps with little noise outweigh the others: min_snr lets the rest be learned sooner.
    Paper  min-SNR, arXiv:2303.09556; debiased, arXiv:2310.08442.
    Cost   none.
    Avoid  debiased for few pictures: it lifts the high-noise steps, where layouts are overfitted.
    """

    weight: float = Field(default=1.0, ge=0, le=1)
    """How far the weights are followed: 0 all rows alike, 1 as the formula says."""
    shape: Literal["min_snr", "debiased"] = "min_snr"
    """Which formula."""
    gamma: PositiveFloat = 5.0
    """min_snr: the ratio above which rows are weighed down."""

    def weigh(self, step: Step, instance: Tensor) -> Tensor:
        factor = self.factor(step.process, step.t).to(instance)
        return instance * (1 + self.weight_at(step.epoch) * (factor - 1))

    def factor(self, process: Process, t: Tensor) -> Tensor:
        """The weight of rows at these timesteps [B]."""
        a, s = process.schedule(t)
        u, w = ANSWERS[process.prediction](a, s)
        change = (s / (a * w - s * u).abs().clamp(min=TINY)).square()
        snr = (a / s.clamp(min=TINY)).square()
        wanted = snr.clamp(max=self.gamma) if self.shape == "min_snr" else snr / snr.clamp(max=SNR_LIMIT).sqrt()
        return torch.flatten(wanted * change)
