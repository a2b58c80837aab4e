"""Prior prediction: the base itself is the teacher."""

from __future__ import annotations

from typing import final

from pydantic import NonNegativeFloat
from torch import Tensor

from tenuto.regularizers.base import Memory
from tenuto.regularizers.normal import Distilled
from tenuto.regularizers.step import Step


@final
class PriorPrediction(Distilled):
    """Answer as the base answers, wherever the concept is not asked for.

        L += weight * mean over prior rows | f(x_t, t, c) - f_base(x_t, t, c) |^2

    When   prior pictures are there already, your own included, and a forward of the base per row is affordable.
    Paper  Drift Correction, arXiv:2410.14159 (regularizes towards the base model's own predictions).
    Cost   per prior row one forward and backward, and one forward of the base.
    Avoid  prior prompts that contain the trigger: they would un-teach it.
    """

    weight: NonNegativeFloat = 4.0
    """The gap is far smaller than a noise error: exactly 0 at the start. Raw values of 1 to 20 are normal."""
    normalised: bool = False
    """Whether the gap is measured by the prompt's own effect in the base (see `normal.py`); then try 0.01 to 1."""

    def needs_prior(self) -> bool:
        return True

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        rows = step.rows("prior")
        if not rows:
            return None
        return self.held(step, rows, step.gap(rows), memory)
