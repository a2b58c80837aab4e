"""Prior rows without words."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from pydantic import Field

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.draft import Draft


@final
class CaptionDropout(Regularizer):
    """Leave out the whole caption of some prior rows, so that the empty prompt is held as well.

        caption = "" with chance `weight`, prior rows only

    Works through the methods that look at prior rows; kept states keep their words (cached_prior.blank is theirs).
    Dropping captions of instance rows is data.variation's business.

    When   pictures are drawn with much guidance, which asks the empty prompt as well.
    Paper  classifier-free guidance, arXiv:2207.12598 (where training drops captions).
    Cost   none.
    Avoid  the same on instance rows: it teaches the empty prompt the concept, which then shows everywhere.
    """

    weight: float = Field(default=0.1, ge=0, le=1)
    """Chance that a prior row loses its caption."""

    def needs_company(self) -> bool:
        return True

    def draw(self, draft: Draft, seed: int) -> Draft:
        chance = self.weight_at(draft.epoch)
        if (
            draft.role != "prior"
            or draft.fixed is not None
            or float(torch.rand((), generator=draft.stream("caption dropout", seed))) >= chance
        ):
            return draft
        return replace(draft, caption="", class_caption="", bare_caption="", chunks=1)
