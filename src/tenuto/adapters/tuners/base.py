"""What the rest of tenuto asks of a kind of adapter. The layers are peft's, or built like peft's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, cast

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from tenuto.adapters.kinds import Kind
from tenuto.adapters.layers import Layer

NAME = "tenuto"
"""What peft calls our adapter on every layer."""

Trait = Literal["product", "two factors"]
TRAITS: Mapping[Trait, str] = {"product": "a product of what is trained", "two factors": "two factors, B A"}
"""What a kind of adapter may be, in words. A product is made smaller by making its factors smaller; two factors have
ranks between them."""


class Rank(NamedTuple):
    """Of one layer's update."""

    rank: int
    alpha: float


class Update(NamedTuple):
    """dW of one layer, as far as it needs building: s B A with A [r in] and B [out r]; without B, A is the whole of it
    [out in]. Gradients flow into what is trained."""

    a: Tensor
    b: Tensor | None
    s: float

    def double(self) -> Update:
        return Update(self.a.double(), None if self.b is None else self.b.double(), self.s)


class Tuner(ABC):
    """One kind of adapter: what is trained on a layer, how it changes the layer's weight, how it stands in files."""

    file_kind: Kind
    """What layers of files are called that hold this kind."""
    ships: str = ""
    """In a few words, who can read its files; "": it is an ordinary LoRA that everybody can read."""
    traits: frozenset[Trait] = frozenset()
    options: frozenset[str] = frozenset()
    """Of [training.adapter]'s, those that have a meaning for this kind only."""
    linear: bool = True
    """Whether peft's scaling of a layer scales its whole change."""

    @abstractmethod
    def wrap(self, module: nn.Module, ranks: Mapping[str, Rank]) -> BaseTuner:
        """Put layers on these ("<layer>" -> rank and alpha). What they hold is given by `begin` or by `adopt`; it lies
        in float32, whatever the base's precision is."""

    @abstractmethod
    def begin(self, layer: BaseTunerLayer, name: str, seed: int) -> None:
        """Fresh values, drawn by the layer's name, that change nothing yet."""

    @abstractmethod
    def adopt(self, layer: BaseTunerLayer, stored: Layer) -> None:
        """The values of a file's layer."""

    @abstractmethod
    def trained(self, layer: BaseTunerLayer) -> dict[str, nn.Parameter]:
        """What is trained, by name, in a fixed order."""

    @abstractmethod
    def product(self, layer: BaseTunerLayer) -> list[nn.Parameter]:
        """Those of them that the change is a product of; none where it is no product."""

    @abstractmethod
    def update(self, layer: BaseTunerLayer) -> Update:
        """dW of a layer at its scaling."""

    @abstractmethod
    def change(self, layer: BaseTunerLayer) -> Tensor:
        """W' - W in float32, of the weight's shape."""

    @abstractmethod
    def rank(self, stored: Layer) -> Rank:
        """Of a file's layer, as `wrap` wants it."""

    @abstractmethod
    def fitted(self, stored: Layer, kernel: int, shape: torch.Size) -> Layer:
        """A file's layer as this kind, for a weight of this shape; kernel: see `Layer.lora`. TenutoError for others."""

    @abstractmethod
    def stored(self, state: Mapping[str, Tensor], rank: Rank, dtype: torch.dtype) -> Layer:
        """What is trained on a layer, as a file's layer."""

    def with_factor(self, factor: int | None) -> Tuner:
        """The same with `training.adapter.factor`."""
        return self

    def rank_on(self, layer: BaseTunerLayer) -> Rank:
        """As `wrap` was told."""
        own: Any = layer
        return Rank(own.r[NAME], float(own.alpha[NAME]))


def weight_of(layer: BaseTunerLayer) -> Tensor:
    """The base's own weight, to be read."""
    return cast(Tensor, layer.get_base_layer().weight)


def most_common(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def patterns(ranks: Mapping[str, Rank]) -> dict[str, Any]:
    """Ranks as peft's configs want them: the usual one, and what differs by name."""
    rank, alpha = (most_common(values) for values in zip(*ranks.values(), strict=True))
    return {
        "r": rank,
        "rank_pattern": {name: own.rank for name, own in ranks.items() if own.rank != rank},
        "alpha_pattern": {name: own.alpha for name, own in ranks.items() if own.alpha != alpha},
        "target_modules": sorted(ranks),
        "alpha": alpha,
    }
