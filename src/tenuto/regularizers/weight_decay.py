"""Weight decay of the factors."""

from __future__ import annotations

from typing import final

import torch
from pydantic import NonNegativeFloat

from tenuto.adapters.adapter import Adapter
from tenuto.regularizers.base import Done, Memory, Regularizer


@final
class WeightDecay(Regularizer):
    """After each update, A and B shrink a little: for a LoRA that is towards the base.

        A, B <- A, B * (1 - lr * weight)

    Comes on top of training.optimizer.weight_decay, which does the same (0.01 by default) without a schedule, and to
    DoRA's magnitudes too, which are left alone here: they begin at the base's own.

    When   a training is long: a light brake beside other methods.
    Paper  Decoupled weight decay, arXiv:1711.05101; on LoRAs "learns less, forgets less", arXiv:2405.09673.
    Cost   none.
    Avoid  comparing its weight over ranks, alphas or learning rates: it depends on all three. `l2_to_base` does not.
    """

    weight: NonNegativeFloat = 0.1
    """Share that is taken away per update, as a multiple of the learning rate."""

    @torch.no_grad()
    def after_update(self, adapter: Adapter, memory: Memory, done: Done) -> Memory:
        for parameter in adapter.factors():
            parameter.mul_(1 - done.lr * self.weight_at(done.epoch))
        return memory
