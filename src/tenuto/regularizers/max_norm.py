"""A limit on the size of every layer's update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from pydantic import Field, PositiveFloat

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.tuners.base import Trait, Update
from tenuto.regularizers.base import Done, Memory, Probe, Regularizer
from tenuto.regularizers.product import squared_norm


@final
class MaxNorm(Regularizer):
    """After each update, a layer whose update is larger than the limit is scaled back to it; its direction stays.

        if | s B A |_F > limit:    A, B <- A, B * sqrt(limit / | s B A |_F)          n-th roots for products of n

    When   the LoRA is to be merged or stacked with others, and single layers have grown too large.
    Paper  none found; `--scale_weight_norms` of sd-scripts.
    Cost   next to nothing for LoRA: r x r matrices, once per update; else every layer's dW once. Helps merging and high
           strengths.
    Avoid  a limit that most layers hit: the concept stops there silently. The log has their share, max_norm.limited.
           Adapters that turn weights (oft, boft) are no products: refused.
    """

    dial: ClassVar[str] = "limit"
    weight: float = Field(default=1.0, ge=0, le=1)
    """How much of what is over the limit is taken away at each update; 1: all of it."""
    limit: PositiveFloat = 1.0
    """The largest Frobenius norm of a layer's update."""

    def init(self, adapter: Adapter, probe: Probe) -> Memory:
        return {"limited": torch.tensor(0.0)}

    def needs_trait(self) -> Trait:
        return "product"

    @torch.no_grad()
    def after_update(self, adapter: Adapter, memory: Memory, done: Done) -> Memory:
        over = [self._limit(adapter, name, update, self.weight_at(done.epoch)) for name, update in adapter.updates()]
        return {"limited": torch.tensor(sum(over) / max(1, len(over)))}

    def _limit(self, adapter: Adapter, name: str, update: Update, part: float) -> bool:
        size = float(squared_norm(update.double())) ** 0.5
        if size <= self.limit:
            return False
        adapter.shrink(name, (size + part * (self.limit - size)) / size)
        return True

    def notes(self, memory: Memory) -> Mapping[str, float]:
        return {"limited": float(memory["limited"])}
