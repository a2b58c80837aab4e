"""LoKr, through peft: dW = s * (alpha / rank) * kron(C, A B), or s * kron(C, D) where A B would be as large as D.

Yeh et al. 2023, arXiv:2309.14859. C is small: with a layer of 320 x 320 and factor 16 it is 16 x 16, D 20 x 20.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from peft import LoKrConfig
from peft.tuners import lokr
from peft.tuners.lokr.layer import factorization
from torch import Tensor, nn

from tenuto.adapters.kinds import LOKR
from tenuto.adapters.tuners.base import NAME, Rank, Trait, Tuner, patterns
from tenuto.adapters.tuners.whole_change import WholeChange, WholeChangeLayer
from tenuto.randomness import stream


class LoKrLinear(WholeChangeLayer, lokr.Linear):
    """On a linear layer."""


class LoKrConv2d(WholeChangeLayer, lokr.Conv2d):
    """On a convolution."""


class Model(lokr.LoKrModel):
    layers_mapping: ClassVar[dict[Any, Any]] = {nn.Conv2d: LoKrConv2d, nn.Linear: LoKrLinear}


@final
class LoKrTuner(WholeChange):
    """Kronecker products."""

    file_kind = "LoKr"
    ships = "LyCORIS' LoKr: web UIs and LyCORIS read it, diffusers does not; `tenuto lora resize` makes a LoRA of it"
    traits: frozenset[Trait] = frozenset({"product"})
    options = frozenset({"alpha", "factor"})
    fields = LOKR

    def __init__(self, factor: int | None = None) -> None:
        self._factor = factor or -1

    def with_factor(self, factor: int | None) -> Tuner:
        return LoKrTuner(factor)

    def wrap(self, module: nn.Module, ranks: Mapping[str, Rank]) -> Model:
        return Model(module, LoKrConfig(**patterns(ranks), init_weights=False), NAME)

    def fresh(self, shape: torch.Size, rank: Rank, name: str, seed: int) -> dict[str, Tensor]:
        """As LyCORIS begins: C and A by Kaiming's uniform draw, B or D is 0."""
        (rows, high), (columns, wide) = (sorted(factorization(size, self._factor)) for size in shape[:2])
        drawn = stream(seed, "adapter", layer=name)
        tensors = {"lokr_w1": _uniform(drawn, rows, columns)}
        if rank.rank >= max(high, wide) / 2:
            return tensors | {"lokr_w2": torch.zeros(high, wide, *shape[2:])}
        inner = wide * shape[2:].numel()
        return tensors | {"lokr_w2_a": _uniform(drawn, high, rank.rank), "lokr_w2_b": torch.zeros(rank.rank, inner)}

    def scale(self, tensors: Mapping[str, Tensor], rank: Rank) -> float:
        """Readers take no notice of alpha where both are whole."""
        whole = "lokr_w1" in tensors and "lokr_w2" in tensors
        return 1.0 if whole else rank.alpha / rank.rank


def _uniform(generator: torch.Generator, rows: int, columns: int) -> Tensor:
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) / math.sqrt(columns)
