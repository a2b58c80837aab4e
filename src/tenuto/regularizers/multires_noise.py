"""Multi-resolution (pyramid) noise: not a regularizer."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import interpolate

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.draft import Draft


@final
class MultiresNoise(Regularizer):
    """NOT A REGULARIZER: adds coarser and coarser noise, so that contrasts and large shapes change faster.

        noise <- (noise + sum_i weight^i * enlarged xi_i) / its deviation        xi_i half as large as xi_i-1

    It changes what is learned and raises drift at low frequencies. It is here for those who expect it.

    When   the same as `noise_offset`, in large areas as well as in the whole.
    Paper  none; J. Whitaker, "Multi-Resolution Noise for Diffusion Model Training", 2023.
    Cost   none.
    Avoid  as a means against drift. It never touches prior rows.
    """

    weight: float = Field(default=0.3, ge=0, le=1)
    """What each coarser level counts, as a share of the one before (the discount)."""
    levels: PositiveInt = 6
    """How many coarser levels; fewer when the picture is smaller."""

    def draw(self, draft: Draft, seed: int) -> Draft:
        if draft.role != "instance":
            return draft
        return replace(draft, noise=self._pyramid(draft.noise, self.weight_at(draft.epoch), draft, seed))

    def _pyramid(self, noise: Tensor, part: float, draft: Draft, seed: int) -> Tensor:
        channels, height, width = noise.shape
        generator, total = draft.stream("multires noise", seed), noise
        for level in range(1, self.levels + 1):
            size = height >> level, width >> level
            if min(size) < 1:
                break
            coarse = torch.randn(1, channels, *size, generator=generator)
            total = total + part**level * interpolate(coarse, (height, width), mode="bilinear")[0]
        return total / total.std()
