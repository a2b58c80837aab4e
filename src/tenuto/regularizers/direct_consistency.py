"""Direct consistency optimization (DCO)."""

from __future__ import annotations

from typing import final

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import softplus

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.step import Step


@final
class DirectConsistency(Regularizer):
    """Learn a row only as far as it is better than the base at it, then let go.

        instance term = -log sigmoid(-beta D)      D = | f - target |^2 - | f_base - target |^2, per row

    It takes the place of the instance term, which other methods then weigh. The gate, sigmoid(beta D) =
    1 - exp(-instance term), is read off the log: it is 1/2 at the start and near 0 when a row is learned.

    When   single pictures are learned by heart long before the others.
    Paper  Direct Consistency Optimization, arXiv:2402.12004, equation 9.
    Cost   one forward of the base per instance row.
    Avoid  relying on it alone: it is an early stop per row and says nothing off the instance pictures.
    """

    weight: float = Field(default=1.0, ge=0, le=1)
    """How far it takes the place of the plain instance term; 1: wholly."""
    beta: PositiveFloat = 1000.0
    """How soon a row is let go: at a gain of a few times 1 / beta. The paper's range is 1000 to 2000."""

    def learn(self, step: Step, instance: Tensor) -> Tensor:
        rows = step.rows("instance")
        gain = step.error(rows) - step.error(rows, adapter=False)
        part = self.weight_at(step.epoch)
        return (1 - part) * instance + part * step.spread(rows, softplus(self.beta * gain))
