"""Differential output preservation (DOP)."""

from __future__ import annotations

from typing import final

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from tenuto.regularizers.base import Memory
from tenuto.regularizers.draft import Draft
from tenuto.regularizers.normal import Distilled
from tenuto.regularizers.step import At, Step
from tenuto.words import Role

MARK = "output preservation"


@final
class OutputPreservation(Distilled):
    """On the user's own pictures, answer as the base answers when the class is asked for in place of the trigger.

        L += weight * mean over instance rows | f(x_t, t, c_class) - f_base(x_t, t, c_class) |^2

    When   always where there is a trigger: on a twentieth of the rows beside `cached_prior` it is part of what holds a
           project that names no method; on all rows, alone, it is what holds a style, which it let be learned half as
           strong again as by a plain LoRA. Alone at weight 1.6 where the base must stay as it was wherever the trigger
           is not used: a fiftieth of a plain LoRA's drift at equal strength, no prior pictures, 2.5 times the work.
    Paper  none found; known as DOP (ai-toolkit); a relative is CAT, arXiv:2404.07554.
    Cost   per instance row one more forward and backward, and one forward of the base; no pictures are made.
    Avoid  styles without a trigger: it would undo the learning. Rows whose caption lacks the trigger are left out.
           Where the rest must stay when it is called: other things changed more than with none (docs/findings.md).
           A share below 1 at such a weight: those rows count so much the more, and nothing was learned of a style.
    """

    weight: NonNegativeFloat = 0.1
    """What a gap as large as the prompt's own effect counts beside the instance term. 0.1 to 1.6 is worth a try."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the instance rows that it looks at; those count so much the more."""

    def needs_trigger(self) -> bool:
        return True

    def measure(self) -> tuple[Role, At]:
        return "instance", "class"

    def draw(self, draft: Draft, seed: int) -> Draft:
        if draft.role != "instance" or draft.class_caption == draft.caption:
            return draft
        return draft.marked(MARK, seed, self.share)

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        return self.held_at(step, MARK, "class", self.share, memory)
