"""DreamBooth's prior preservation."""

from __future__ import annotations

from typing import final

from pydantic import NonNegativeFloat
from torch import Tensor

from tenuto.regularizers.base import Memory, Regularizer
from tenuto.regularizers.draft import KEPT
from tenuto.regularizers.step import Step


@final
class PriorPreservation(Regularizer):
    """Keep drawing the base's own pictures: they are trained on beside the concept's.

        L += weight * mean over prior rows | f(x_t, t, c) - target |^2        x0 = a picture that the base made

    Beside `cached_prior` it has the fresh rows alone, a fifth of all, and 0 at the others.

    When   you want what the article did: a large prior set of pictures, which other trainers can use as well.
    Paper  DreamBooth, Ruiz et al. 2022, arXiv:2208.12242, equation 2.
    Cost   per prior row one forward and backward; each prior picture once steps x 2 forwards.
    Avoid  a weight near 1 for LoRAs: the target is noisy, so it pulls on the concept too. The article advises 0.25,
           towards 0.1 for long trainings.
    """

    weight: NonNegativeFloat = 0.25
    """What a prior row counts beside an instance row."""

    def needs_prior(self) -> bool:
        return True

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        rows = tuple(row for row in step.rows("prior") if KEPT not in step.marks[row])  # those are not pictures
        if not rows:
            return None
        return self.weight_at(step.epoch) * step.spread(rows, step.error(rows))
