"""Dropout inside the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, final

import torch
from pydantic import Field
from torch import nn

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.tuners.base import NAME, Trait
from tenuto.randomness import stream
from tenuto.regularizers.base import Place, Regularizer


@final
class AdapterDropout(Regularizer):
    """Leave out a random part of every layer's update, so that no part is relied upon.

        rank     s B diag(m) A x / (1 - weight)        a whole rank at a time
        neuron   s B A diag(m) x / (1 - weight)        an input of the layer at a time
        module   dW x, or nothing                      a whole layer at a time, not scaled up

    The mask m is drawn once per update and layer and is the same for all rows: so recomputing a forward (gradient
    checkpointing) and cutting an update into micro-batches change nothing.

    When   few pictures are overfitted and more of them cannot be had.
    Paper  dropout for LoRA, arXiv:2404.09610; `network_dropout`, `rank_dropout`, `module_dropout` of sd-scripts.
    Cost   none.
    Avoid  more than about 0.3: small ranks stop learning. Only LoRA and DoRA have ranks and inputs to leave out.
    """

    weight: float = Field(default=0.1, ge=0, lt=1)
    """Chance that a part is left out."""
    what: Literal["rank", "neuron", "module"] = "rank"
    """Which parts."""

    def needs_trait(self) -> Trait | None:
        return None if self.what == "module" else "two factors"

    @contextmanager
    def during(self, adapter: Adapter, place: Place) -> Iterator[None]:
        chance = self.weight_at(place.epoch)
        drawn = {
            name: stream(place.seed, "adapter dropout", layer=name, update=place.update) for name in adapter.layers()
        }
        if "two factors" not in adapter.tuner.traits:
            kept = {name: float(torch.rand(1, generator=own) >= chance) for name, own in drawn.items()}
            with adapter.scaled(kept):
                yield
            return
        handles = []
        try:
            for name, layer in adapter.layers().items():
                inner: nn.Linear | nn.Conv2d = cast(Any, layer).lora_A[NAME]
                handles.append(self._drop(inner, chance, drawn[name]))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _drop(self, inner: nn.Linear | nn.Conv2d, chance: float, drawn: torch.Generator) -> Any:
        rank, inputs = inner.weight.shape[:2]
        count = {"rank": rank, "neuron": inputs, "module": 1}[self.what]
        kept = (torch.rand(count, generator=drawn) >= chance).float().to(inner.weight.device)
        mask = kept if self.what == "module" else kept / (1 - chance)
        if isinstance(inner, nn.Conv2d):
            mask = mask.view(1, -1, 1, 1)
        if self.what == "neuron":
            return inner.register_forward_pre_hook(lambda _, given: (given[0] * mask.to(given[0].dtype), *given[1:]))
        return inner.register_forward_hook(lambda _, given, answer: answer * mask.to(answer.dtype))
