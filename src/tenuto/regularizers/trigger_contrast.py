"""Rows of the user's pictures without the trigger."""

from __future__ import annotations

from typing import final

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from tenuto.regularizers.base import Memory
from tenuto.regularizers.draft import Draft
from tenuto.regularizers.normal import Distilled
from tenuto.regularizers.step import At, Step
from tenuto.words import Role

MARK = "trigger contrast"


@final
class TriggerContrast(Distilled):
    """Some instance rows are asked twice at one state: with the trigger they learn, without it the base answers.

        L += weight * mean over instance rows | f(x_t, t, c_bare) - f_base(x_t, t, c_bare) |^2

    c_bare is the caption without the trigger and with nothing in its place, so that tags which merely occur together
    with the concept do not call it. `output_preservation` is the same with the class word, on all rows.

    When   the base must stay as it is wherever the trigger is not used, and no prior pictures are wanted: alone it left
           half of `cached_prior`'s drift for half of its extra work on two sets (three trainings each). It holds where
           the user's pictures are, `cached_prior` where the base's own are; both together were tried at 0.4.
    Paper  our own; relatives are DOP (ai-toolkit) and Drift Correction, arXiv:2410.14159.
    Cost   share x (one forward and backward, one forward of the base) per instance row; no pictures are made.
    Avoid  where the trigger's own pictures must stay editable: what the other words may not take goes into the
           trigger, and more changes with it (docs/findings.md). Styles without a trigger: it would undo the learning.
           Rows whose caption lacks the trigger are left out. Few rows that count much: beside `cached_prior` at a
           weight of 0.4 with this share a character and a dress were learned, of a jar and a style next to nothing;
           alone the jar was learned at 0.1, and at 0.4 with a quarter of the rows (one training each; a style at 0.1
           was not tried). `output_preservation`, all rows, learned all four. Alone on clothing: a dress came uncalled
           at every weight at which it was learned.
    """

    weight: NonNegativeFloat = 0.1
    """What a gap as large as the prompt's own effect counts beside the instance term. Up to twice the share."""
    share: float = Field(default=0.05, gt=0, le=1)
    """Share of the instance rows that are asked twice; those count so much the more."""

    def needs_trigger(self) -> bool:
        return True

    def measure(self) -> tuple[Role, At]:
        return "instance", "bare"

    def draw(self, draft: Draft, seed: int) -> Draft:
        if draft.role != "instance" or draft.bare_caption == draft.caption:
            return draft
        return draft.marked(MARK, seed, self.share)

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        return self.held_at(step, MARK, "bare", self.share, memory)
