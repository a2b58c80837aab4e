"""LoHa, through peft: dW = s * (alpha / rank) * (A1 B1) * (A2 B2), element by element.

Hyeon-Woo et al. 2021, arXiv:2108.06098. Two updates of rank r give one of rank up to r^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from peft import LoHaConfig
from peft.tuners import loha
from torch import Tensor, nn

from tenuto.adapters.kinds import LOHA
from tenuto.adapters.tuners.base import NAME, Rank, Trait, patterns
from tenuto.adapters.tuners.whole_change import WholeChange, WholeChangeLayer
from tenuto.randomness import stream


class LoHaLinear(WholeChangeLayer, loha.Linear):
    """On a linear layer."""


class LoHaConv2d(WholeChangeLayer, loha.Conv2d):
    """On a convolution."""


class Model(loha.LoHaModel):
    layers_mapping: ClassVar[dict[Any, Any]] = {nn.Conv2d: LoHaConv2d, nn.Linear: LoHaLinear}


@final
class LoHaTuner(WholeChange):
    """Products of two low ranks."""

    file_kind = "LoHa"
    ships = "LyCORIS' LoHa: web UIs and LyCORIS read it, diffusers does not; `tenuto lora resize` makes a LoRA of it"
    traits: frozenset[Trait] = frozenset({"product"})
    options = frozenset({"alpha"})
    fields = LOHA

    def wrap(self, module: nn.Module, ranks: Mapping[str, Rank]) -> Model:
        return Model(module, LoHaConfig(**patterns(ranks), init_weights=False), NAME)

    def fresh(self, shape: torch.Size, rank: Rank, name: str, seed: int) -> dict[str, Tensor]:
        """As LyCORIS begins: one of the four is 0, so that the change is."""
        out, inner, r = shape[0], shape[1:].numel(), rank.rank
        drawn = stream(seed, "adapter", layer=name)
        return {
            "hada_w1_a": torch.randn(out, r, generator=drawn) * 0.1,
            "hada_w1_b": torch.randn(r, inner, generator=drawn),
            "hada_w2_a": torch.zeros(out, r),
            "hada_w2_b": torch.randn(r, inner, generator=drawn),
        }

    def scale(self, tensors: Mapping[str, Tensor], rank: Rank) -> float:
        return rank.alpha / rank.rank
