"""LoRA and DoRA, through peft.

W' = W + s * (alpha / rank) * B A          B = 0 at the start, so that W' = W; s is the strength

DoRA (Liu et al. 2024, arXiv:2402.09353) also learns how large each output's weights m are:

W' = W + s * (m * V / |V| - W)             V = W + (alpha / rank) * B A, the norm taken per output; m = |W| at the start
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast, final

import torch
from peft import LoraConfig
from peft.tuners.lora import Conv2d, Linear, LoraLayer, LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from tenuto.adapters.layers import Layer, Lora, moved
from tenuto.adapters.precision import keep_in_float32
from tenuto.adapters.tuners.base import NAME, Rank, Trait, Tuner, Update, patterns, weight_of
from tenuto.families.narrow import Narrow
from tenuto.randomness import stream

FACTORS = ("lora_A", "lora_B")
MAGNITUDE = "lora_magnitude_vector"


def plain_forward(self: Any, x: Tensor) -> Tensor:
    """What peft's forward does for one LoRA that is not merged, without all that it asks about others: at small batches
    a GPU waits for such questions."""
    answer: Tensor = self.base_layer(x)
    if self._disable_adapters:
        return answer
    change: Tensor = self.lora_B[NAME](self.lora_A[NAME](x))
    return torch.add(answer, change, alpha=self.scaling[NAME])


class PlainLinear(Linear):
    """peft's, on a linear layer."""

    forward = plain_forward


class PlainConv2d(Conv2d):
    """peft's, on a convolution."""

    forward = plain_forward


PLAIN: Mapping[type, type] = {Linear: PlainLinear, Conv2d: PlainConv2d}


@final
class LoraTuner(Tuner):
    """B A on every layer; with `dora`, the magnitudes too."""

    file_kind = "LoRA"
    traits: frozenset[Trait] = frozenset({"product", "two factors"})
    options = frozenset({"alpha", "dora"})

    def __init__(self, *, dora: bool) -> None:
        self._dora = dora
        self._names = (*FACTORS, MAGNITUDE) if dora else FACTORS
        self.linear = not dora

    def wrap(self, module: nn.Module, ranks: Mapping[str, Rank]) -> LoraModel:
        settings = patterns(ranks)
        alpha = settings.pop("alpha")
        config = LoraConfig(**settings, lora_alpha=alpha, init_lora_weights=False, use_dora=self._dora)
        model = LoraModel(module, config, NAME)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                if not self._dora:
                    layer.__class__ = PLAIN.get(type(layer), type(layer))
                if weight_of(layer).dtype != torch.float32 or isinstance(layer.get_base_layer(), Narrow):
                    keep_in_float32(layer)  # peft makes a convolution's factors of the same kind as the convolution
        return model

    @torch.no_grad()
    def begin(self, layer: BaseTunerLayer, name: str, seed: int) -> None:
        """A by Kaiming's uniform draw, B = 0."""
        a, b, *magnitude = self.trained(layer).values()
        bound = 1 / math.sqrt(a[0].numel())  # kaiming_uniform with a = sqrt(5), as in LoRA's own code
        drawn = torch.rand(a.shape, generator=stream(seed, "adapter", layer=name)) * 2 * bound - bound
        a.copy_(drawn)
        b.zero_()
        for m in magnitude:
            m.copy_(weight_of(layer).float().flatten(1).norm(dim=1).reshape(m.shape))

    @torch.no_grad()
    def adopt(self, layer: BaseTunerLayer, stored: Layer) -> None:
        lora = stored.lora()
        held = [lora.down, lora.up] if lora.magnitude is None else [lora.down, lora.up, lora.magnitude]
        for parameter, value in zip(self.trained(layer).values(), held, strict=True):
            parameter.copy_(value.reshape(parameter.shape))

    def trained(self, layer: BaseTunerLayer) -> dict[str, nn.Parameter]:
        return {name: getattr(layer, name)[NAME].weight for name in self._names}

    def product(self, layer: BaseTunerLayer) -> list[nn.Parameter]:
        return list(self.trained(layer).values())[:2]

    def update(self, layer: BaseTunerLayer) -> Update:
        a, b = self.product(layer)
        return Update(a.flatten(1), b.flatten(1), cast(LoraLayer, layer).scaling[NAME])

    @torch.no_grad()
    def change(self, layer: BaseTunerLayer) -> Tensor:
        delta: Tensor = cast(Any, layer).get_delta_weight(NAME).float()
        if not self._dora:
            return delta
        weight = weight_of(layer).float()
        return moved(weight, delta, self.trained(layer)[MAGNITUDE].flatten()) - weight

    def rank(self, stored: Layer) -> Rank:
        return Rank(stored.rank, stored.alpha)

    def fitted(self, stored: Layer, kernel: int, shape: torch.Size) -> Layer:
        return stored.lora(kernel).fitted(shape).layer(torch.float32)

    def stored(self, state: Mapping[str, Tensor], rank: Rank, dtype: torch.dtype) -> Layer:
        down, up = (state[factor] for factor in FACTORS)
        return Lora(down, up, rank.alpha, state.get(MAGNITUDE)).layer(dtype)

    def rank_on(self, layer: BaseTunerLayer) -> Rank:
        own = cast(LoraLayer, layer)
        return Rank(own.r[NAME], float(own.lora_alpha[NAME]))
