"""An adapter on a base: attach, switch off, scale, detach. The layers are peft's.

W' = W + s * (alpha / rank) * B A          B = 0 at the start, so that W' = W; s is the strength
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from tenuto.families.base import Base, Part
from tenuto.randomness import stream
from tenuto.words import Settings, TenutoError

NAME = "tenuto"
FACTORS = ("lora_A", "lora_B")


class AdapterSettings(Settings):
    """[training.adapter]: which layers get how large a LoRA."""

    rank: PositiveInt = 16
    """Rank of B A. Larger learns more and drifts more."""
    alpha: PositiveFloat | None = None
    """The update is scaled by alpha / rank; unset: alpha = rank."""
    parts: tuple[Part, ...] = ("attention",)
    """Groups of layers that are adapted: attention, feed_forward, convolution, text_encoder."""

    @property
    def scale(self) -> float:
        return (self.alpha or self.rank) / self.rank


class Adapter:
    """LoRA layers on one base. Make with `attach`, end with `detach`."""

    def __init__(self, base: Base, settings: AdapterSettings, models: dict[str, LoraModel]) -> None:
        self.base = base
        self.settings = settings
        self._models = models
        self._layers: dict[str, LoraLayer] = {
            f"{prefix}.{name}": layer
            for prefix, model in models.items()
            for name, layer in model.model.named_modules()
            if isinstance(layer, LoraLayer)
        }

    @classmethod
    def attach(cls, base: Base, settings: AdapterSettings, seed: int = 0) -> Self:
        """Put fresh layers on the base: A drawn by name from `seed` (Kaiming uniform), B = 0."""
        wanted: dict[str, list[str]] = {}
        for part in settings.parts:
            for prefix, names in base.adapter_targets(part).items():
                wanted.setdefault(prefix, []).extend(names)
        modules = base.modules()
        adapter = cls(base, settings, {p: _wrap(modules[p], names, settings) for p, names in wanted.items() if names})
        adapter._draw(seed)
        return adapter

    def _draw(self, seed: int) -> None:
        for name, layer in self._layers.items():
            a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            bound = 1 / math.sqrt(a[0].numel())  # kaiming_uniform with a = sqrt(5), as in LoRA's own code
            drawn = torch.rand(a.shape, generator=stream(seed, "adapter", layer=name)) * 2 * bound - bound
            with torch.no_grad():
                a.copy_(drawn)
                b.zero_()

    def detach(self) -> None:
        """Take the layers off; every module of the base is what it was."""
        for model in self._models.values():
            model.unload()
        self._models, self._layers = {}, {}

    def layers(self) -> Mapping[str, LoraLayer]:
        """Full name ("lora_unet.down_blocks.0…to_q") -> peft layer."""
        return self._layers

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, in a fixed order: A and B of each layer."""
        return [getattr(layer, f)[NAME].weight for layer in self._layers.values() for f in FACTORS]

    def factors(self) -> Iterator[tuple[str, Tensor, Tensor, float]]:
        """Name, A [r in], B [out r] (views of what is trained) and s of each layer: its update is s B A."""
        for name, layer in self._layers.items():
            a, b = (getattr(layer, factor)[NAME].weight for factor in FACTORS)
            yield name, a.flatten(1), b.flatten(1), layer.scaling[NAME]

    def trains_text(self) -> bool:
        return any(prefix != "lora_unet" for prefix in self._models)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base itself: bit for bit what it answers without an adapter. Restores on every way out."""
        before = [layer._disable_adapters for layer in self._layers.values()]
        try:
            for layer in self._layers.values():
                layer._disable_adapters = True
            yield
        finally:
            for layer, was in zip(self._layers.values(), before, strict=True):
                layer._disable_adapters = was

    @contextmanager
    def strength(self, s: float) -> Iterator[None]:
        """Scale every layer by s (1 = as trained) inside the block."""
        before = [layer.scaling[NAME] for layer in self._layers.values()]
        try:
            for layer, scaling in zip(self._layers.values(), before, strict=True):
                layer.scaling[NAME] = scaling * s
            yield
        finally:
            for layer, scaling in zip(self._layers.values(), before, strict=True):
                layer.scaling[NAME] = scaling

    def state(self) -> dict[str, Tensor]:
        """ "<prefix>.<layer>.lora_A" / ".lora_B" -> detached float32 copy on the CPU."""
        return {
            f"{name}.{factor}": getattr(layer, factor)[NAME].weight.detach().float().cpu().clone()
            for name, layer in self._layers.items()
            for factor in FACTORS
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over A and B. Raises TenutoError when names or shapes do not fit this adapter."""
        own = {f"{n}.{f}": getattr(layer, f)[NAME].weight for n, layer in self._layers.items() for f in FACTORS}
        if own.keys() != state.keys():
            odd = sorted(own.keys() ^ state.keys())
            raise TenutoError(
                f"the LoRA does not fit: {len(odd)} layers differ, first {odd[0]}; use the same training.adapter.parts"
            )
        for name, weight in own.items():
            if weight.shape != state[name].shape:
                raise TenutoError(
                    f"the LoRA does not fit: {name} is {tuple(state[name].shape)}, wanted {tuple(weight.shape)}"
                )
            with torch.no_grad():
                weight.copy_(state[name])


def _wrap(module: nn.Module, targets: list[str], settings: AdapterSettings) -> LoraModel:
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or settings.rank,
        target_modules=sorted(set(targets)),
        init_lora_weights=False,
    )
    return LoraModel(module, config, NAME)
