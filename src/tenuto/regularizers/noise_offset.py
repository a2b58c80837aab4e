"""Noise offset: not a regularizer."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from pydantic import NonNegativeFloat

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.draft import Draft


@final
class NoiseOffset(Regularizer):
    """NOT A REGULARIZER: moves the mean of the noise, so that very dark and very bright pictures can be learned.

        noise <- noise + weight * xi        xi one normal number per channel; instance rows only

    It changes what is learned and raises drift at low frequencies. It is here for those who expect it.

    When   the set is very dark or very bright and comes out grey.
    Paper  none; N. Guttenberg, "Diffusion with Offset Noise", 2023. What it works around: arXiv:2305.08891.
    Cost   none.
    Avoid  as a means against drift. It never touches prior rows.
    """

    weight: NonNegativeFloat = 0.05
    """How far the mean moves."""

    def draw(self, draft: Draft, seed: int) -> Draft:
        if draft.role != "instance":
            return draft
        xi = torch.randn(len(draft.noise), 1, 1, generator=draft.stream("noise offset", seed))
        return replace(draft, noise=draft.noise + self.weight_at(draft.epoch) * xi)
