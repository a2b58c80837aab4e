"""Input perturbation."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from pydantic import NonNegativeFloat

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.draft import Draft


@final
class InputPerturbation(Regularizer):
    """Show the network instance states that are a little off, as it meets them when it samples.

        x_t = a x0 + s (noise + weight * xi)        xi ~ N(0, 1); the target still tells of `noise` alone

    Prior rows stay as they are: their states are to be the base's own.

    When   samples look worse than the loss promises.
    Paper  Input Perturbation Reduces Exposure Bias in Diffusion Models, arXiv:2301.11706 (shown in pretraining).
    Cost   none.
    Avoid  expecting less drift from it; it is against exposure bias.
    """

    weight: NonNegativeFloat = 0.1
    """gamma of the paper: how large the further noise is."""

    def draw(self, draft: Draft, seed: int) -> Draft:
        if draft.role != "instance":
            return draft
        xi = torch.randn(draft.noise.shape, generator=draft.stream("input perturbation", seed))
        return replace(draft, unseen=self.weight_at(draft.epoch) * xi)
