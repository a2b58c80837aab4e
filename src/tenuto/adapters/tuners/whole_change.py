"""Kinds whose change of a layer's weight is built whole for every forward: y = W x + dW x.

Their parameters are called as LyCORIS calls them, so a file holds them as they are. Building dW costs as much memory
as the layer's own weight, in float32, until the backward pass.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.lycoris_utils import LycorisLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from tenuto.adapters.kinds import ALPHA
from tenuto.adapters.layers import Layer
from tenuto.adapters.precision import alike
from tenuto.adapters.tuners.base import NAME, Rank, Tuner, Update, weight_of


class WholeChangeLayer(LycorisLayer):
    """Goes before one of peft's layers: dW is made in float32 and rounded to its input's precision."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base = self.get_base_layer()
        answer: Tensor = base(x, *args, **kwargs)
        if self.disable_adapters:
            return answer
        given, delta = alike(x, self.get_delta_weight(NAME))
        if isinstance(base, nn.Conv2d):
            moved: Tensor = base._conv_forward(given, delta, None)
            return answer + moved.to(answer.dtype)
        return answer + F.linear(given, delta).to(answer.dtype)


class WholeChange(Tuner):
    """A kind with such layers."""

    fields: tuple[str, ...]
    """All parameters that a layer may hold, in their order."""

    @abstractmethod
    def fresh(self, shape: torch.Size, rank: Rank, name: str, seed: int) -> dict[str, Tensor]:
        """Values to begin with, for a weight of this shape."""

    @abstractmethod
    def scale(self, tensors: Mapping[str, Tensor], rank: Rank) -> float:
        """What the change is multiplied by at strength 1."""

    def begin(self, layer: BaseTunerLayer, name: str, seed: int) -> None:
        own = cast(LycorisLayer, layer)
        rank = Rank(own.r[NAME], own.alpha[NAME])
        self._put(own, self.fresh(weight_of(layer).shape, rank, name, seed), rank)

    def adopt(self, layer: BaseTunerLayer, stored: Layer) -> None:
        self._put(cast(LycorisLayer, layer), stored.tensors, self.rank(stored))

    def _put(self, layer: LycorisLayer, tensors: Mapping[str, Tensor], rank: Rank) -> None:
        device = weight_of(layer).device
        for field in self.fields:
            held: nn.ParameterDict = getattr(layer, field)
            held.clear()
            if field in tensors:
                held[NAME] = nn.Parameter(tensors[field].float().to(device))
        layer.scaling[NAME] = self.scale(tensors, rank)

    def trained(self, layer: BaseTunerLayer) -> dict[str, nn.Parameter]:
        held = {field: getattr(layer, field) for field in self.fields}
        return {field: own[NAME] for field, own in held.items() if NAME in own}

    def product(self, layer: BaseTunerLayer) -> list[nn.Parameter]:
        return list(self.trained(layer).values()) if "product" in self.traits else []

    def update(self, layer: BaseTunerLayer) -> Update:
        return Update(cast(LycorisLayer, layer).get_delta_weight(NAME).flatten(1), None, 1.0)

    @torch.no_grad()
    def change(self, layer: BaseTunerLayer) -> Tensor:
        delta: Tensor = cast(LycorisLayer, layer).get_delta_weight(NAME)
        return delta.float()

    def rank(self, stored: Layer) -> Rank:
        return Rank(stored.rank or 1, stored.alpha)

    def fitted(self, stored: Layer, kernel: int, shape: torch.Size) -> Layer:
        stored.check_fits(shape)
        return stored

    def stored(self, state: Mapping[str, Tensor], rank: Rank, dtype: torch.dtype) -> Layer:
        tensors = {field: value.to(dtype) for field, value in state.items()}
        return Layer({**tensors, ALPHA: torch.tensor(rank.alpha, dtype=dtype)})
