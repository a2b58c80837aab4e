"""L2 to the base."""

from __future__ import annotations

from typing import final

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.regularizers.base import Memory, Regularizer
from tenuto.regularizers.product import squared_norm


@final
class L2ToBase(Regularizer):
    """Keep the update of every layer small, as a product: the factors may be what they like.

        L += weight * sum over layers | dW |_F^2          dW = s B A for LoRA

    When   a step may cost no more than before.
    Paper  arXiv:2505.19519 (L2 to the base in personalization); L2-SP, arXiv:1802.01483.
    Cost   next to nothing for LoRA: r x r matrices, once per update; else every layer's dW once. The bar that every
           method with forwards must beat.
    Avoid  expecting it to know what matters: it is the same in all layers and directions.
    """

    weight: NonNegativeFloat = 1e-3
    """Try whole powers of ten. The paper's example is 50 for all weights of SDXL's cross-attention; LoRAs need less."""

    def penalty(self, adapter: Adapter, memory: Memory, epoch: float) -> Tensor | None:
        sizes = [squared_norm(update) for _, update in adapter.updates()]
        return self.weight_at(epoch) * torch.stack(sizes).sum()
