"""Blank prompt preservation."""

from __future__ import annotations

from typing import final

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from tenuto.regularizers.base import Memory
from tenuto.regularizers.draft import Draft
from tenuto.regularizers.normal import Distilled
from tenuto.regularizers.step import At, Step
from tenuto.words import Role

MARK = "blank preservation"


@final
class BlankPreservation(Distilled):
    """On the user's own pictures, answer as the base answers when nothing is asked for.

        L += weight * mean over instance rows | f(x_t, t, empty) - f_base(x_t, t, empty) |^2

    Guidance multiplies whatever moves here. The measure is the captions' effect: the empty prompt has none of its own.

    When   no prior pictures are wanted and other prompts drift at high guidance.
    Paper  none found; known from ai-toolkit.
    Cost   share x (one forward and backward, one forward of the base) per instance row; no pictures are made.
    Avoid  together with dropped instance captions: one teaches what the other un-teaches.
    """

    weight: NonNegativeFloat = 0.1
    """What a gap as large as the captions' effect counts beside the instance term. Not tuned yet: try 0.01 to 1."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of the instance rows that it looks at; those count so much the more."""

    def measure(self) -> tuple[Role, At]:
        return "instance", "own"

    def draw(self, draft: Draft, seed: int) -> Draft:
        return draft.marked(MARK, seed, self.share) if draft.role == "instance" else draft

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        return self.held_at(step, MARK, "blank", self.share, memory)
