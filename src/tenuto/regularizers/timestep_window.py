"""Only some timesteps."""

from __future__ import annotations

from typing import ClassVar, Self, final

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tenuto.regularizers.base import Regularizer
from tenuto.words import Role


@final
class TimestepWindow(Regularizer):
    """Draw timesteps from a part of the noise schedule only.

        t uniform in [low T, high T)

    When   what is to be learned lives at some noise only: details at low, layout and style at high noise.
    Paper  none; evidence in T-LoRA, arXiv:2507.05964.
    Cost   none.
    Avoid  high noise alone (overfits at once) or low noise alone (poor likeness). Styles need high noise.
    """

    dial: ClassVar[str] = "high"
    weight: float = Field(default=1.0, ge=0, le=1)
    """Share of the rows that the window holds for. It stays what it is: a schedule is refused."""
    low: float = Field(default=0.0, ge=0, lt=1)
    """Where the window begins, as a share of the timesteps."""
    high: float = Field(default=0.8, gt=0, le=1)
    """Where it ends."""
    prior: bool = False
    """Whether it holds for prior rows too."""

    @model_validator(mode="after")
    def _is_a_window(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
        if self.schedule.shape != "constant":
            raise ValueError("the weight of timestep_window cannot have a schedule")
        return self

    def timesteps(self, chances: Tensor, role: Role) -> Tensor:
        if role == "prior" and not self.prior:
            return chances
        place = torch.arange(len(chances)) / len(chances)
        inside = chances * ((place >= self.low) & (place < self.high))
        if not inside.any():  # narrower than a timestep
            inside[int(self.low * len(chances))] = 1.0
        return (1 - self.weight) * chances + self.weight * inside / inside.sum()
