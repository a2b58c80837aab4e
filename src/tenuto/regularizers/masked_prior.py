"""The base as teacher outside the masks."""

from __future__ import annotations

from typing import final

from pydantic import NonNegativeFloat
from torch import Tensor

from tenuto.regularizers.base import Memory
from tenuto.regularizers.draft import Draft
from tenuto.regularizers.normal import Distilled
from tenuto.regularizers.step import At, Step, masked_mean
from tenuto.words import Role

MARK = "masked prior"


@final
class MaskedPrior(Distilled):
    """Where a mask says that the picture is not the concept, answer as the base answers.

        L += weight * mean over instance rows  sum (1 - m) (f - f_base)^2 / sum (1 - m)        0 without a mask

    Masks are pictures of their own (concepts.masks) or the pictures' transparency (data.alpha = "mask"); the instance
    term counts inside them only.

    When   the concept is a part of the picture that can be cut out: a face, a dress, a hat.
    Paper  none found; `masked_prior_preservation_weight` of OneTrainer.
    Cost   one forward of the base per masked instance row.
    Avoid  masks that cut the concept: the network still sees what is around it. As a cure for bake: it was none
           (docs/findings.md).
    """

    weight: NonNegativeFloat = 0.1
    """What a gap as large as the captions' effect counts beside the instance term. Not tuned yet: try 0.01 to 1."""

    def needs_masks(self) -> bool:
        return True

    def measure(self) -> tuple[Role, At]:
        return "instance", "own"

    def draw(self, draft: Draft, seed: int) -> Draft:
        return draft if draft.mask is None else draft.marked(MARK, seed, 1.0)

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        rows = step.rows("instance", MARK)
        if not rows or step.mask is None:
            return None
        moved = (step.predict(rows) - step.predict(rows, adapter=False)).square()
        return self.held(step, rows, masked_mean(moved, 1 - step.mask[list(rows)]), memory)
