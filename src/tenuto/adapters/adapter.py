"""An adapter on a base: attach, switch off, scale, detach. The layers are peft's.

W' = W + s * (alpha / rank) * B A          B = 0 at the start, so that W' = W; s is the strength

DoRA (Liu et al. 2024, arXiv:2402.09353) also learns how large each output's weights m are:

W' = W + s * (m * V / |V| - W)             V = W + (alpha / rank) * B A, the norm taken per output; m = |W| at the start
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self, cast

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from tenuto.adapters.layers import moved
from tenuto.families.base import Base, Part
from tenuto.randomness import stream
from tenuto.words import Settings, TenutoError

NAME = "tenuto"
FACTORS = ("lora_A", "lora_B")
MAGNITUDE = "lora_magnitude_vector"
BLOCKS: dict[str, tuple[str, ...]] = {
    "content": ("lora_unet.up_blocks.0.attentions.0.*",),
    "style": ("lora_unet.up_blocks.0.attentions.1.*",),
    "self_attention": ("*.attn1.*",),
    "cross_attention": ("*.attn2.*",),
    "cross_keys": ("*.attn2.to_k",),
}
"""Names for groups of layers. `content` and `style` are B-LoRA's blocks of SDXL (arXiv:2403.14572); skipping
`cross_keys` is the cheap form of key locking (Perfusion, arXiv:2305.01644)."""


class Rank(NamedTuple):
    """Of one layer's update."""

    rank: int
    alpha: float


class AdapterSettings(Settings):
    """[training.adapter]: which layers get how large a LoRA."""

    rank: PositiveInt = 16
    """Rank of B A. Larger learns more and drifts more."""
    alpha: PositiveFloat | None = None
    """The update is scaled by alpha / rank; unset: alpha = rank."""
    parts: tuple[Part, ...] = ("attention",)
    """Groups of layers that are adapted: attention, feed_forward, convolution, text_encoder."""
    dora: bool = False
    """Learn the size of each output's weights apart from their direction (DoRA): a little slower and stronger."""
    only: tuple[str, ...] = ()
    """Of those, only these layers: names of BLOCKS or patterns such as "*.up_blocks.0.*"; empty: all."""
    skip: tuple[str, ...] = ()
    """Of those, not these."""

    def takes(self, layer: str) -> bool:
        """Whether `only` and `skip` leave this layer ("<prefix>.<layer>") in."""
        return (not self.only or _matches(layer, self.only)) and not _matches(layer, self.skip)


class Adapter:
    """LoRA layers on one base. Make with `attach`, end with `detach`."""

    def __init__(self, base: Base, models: dict[str, LoraModel], factors: tuple[str, ...]) -> None:
        self.base = base
        self._factors = factors
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
        rank = Rank(settings.rank, settings.alpha or settings.rank)
        wanted = [
            f"{prefix}.{name}"
            for part in settings.parts
            for prefix, names in base.adapter_targets(part).items()
            for name in names
        ]
        taken = [name for name in wanted if settings.takes(name)]
        if not taken:
            raise TenutoError(
                f"training.adapter: none of {len(wanted)} layers is left by only = {list(settings.only)} and skip = "
                f"{list(settings.skip)}; layers are called e.g. {wanted[0]}"
            )
        return cls.attach_to(base, dict.fromkeys(taken, rank), dora=settings.dora, seed=seed)

    @classmethod
    def attach_to(cls, base: Base, ranks: Mapping[str, Rank], *, dora: bool = False, seed: int = 0) -> Self:
        """Put fresh layers on exactly these ("<prefix>.<layer>"), each with a rank and alpha of its own."""
        models = {}
        for prefix, module in base.modules().items():
            own = {name.removeprefix(f"{prefix}."): r for name, r in ranks.items() if name.startswith(f"{prefix}.")}
            if own:
                models[prefix] = _wrap(module, own, dora)
        adapter = cls(base, models, (*FACTORS, MAGNITUDE) if dora else FACTORS)
        adapter._draw(seed)
        return adapter

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        for name, layer in self._layers.items():
            a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            bound = 1 / math.sqrt(a[0].numel())  # kaiming_uniform with a = sqrt(5), as in LoRA's own code
            drawn = torch.rand(a.shape, generator=stream(seed, "adapter", layer=name)) * 2 * bound - bound
            a.copy_(drawn)
            b.zero_()
            if self.is_dora:
                magnitude = getattr(layer, MAGNITUDE)[NAME].weight
                magnitude.copy_(_norm_per_output(layer).reshape(magnitude.shape))

    def detach(self) -> None:
        """Take the layers off; every module of the base is what it was."""
        for model in self._models.values():
            model.unload()
        self._models, self._layers = {}, {}

    def layers(self) -> Mapping[str, LoraLayer]:
        """Full name ("lora_unet.down_blocks.0…to_q") -> peft layer."""
        return self._layers

    @property
    def is_dora(self) -> bool:
        return MAGNITUDE in self._factors

    def ranks(self) -> dict[str, Rank]:
        """Rank and alpha of each layer."""
        return {name: Rank(layer.r[NAME], float(layer.lora_alpha[NAME])) for name, layer in self._layers.items()}

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, in a fixed order: A and B of each layer (and the magnitude, for DoRA)."""
        return [getattr(layer, f)[NAME].weight for layer in self._layers.values() for f in self._factors]

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
        """Scale every layer's change by s (1 = as trained) inside the block. Restores on every way out."""
        with self._blended(s) if self.is_dora else self._scaled(s):
            yield

    @contextmanager
    def _scaled(self, s: float) -> Iterator[None]:
        before = [layer.scaling[NAME] for layer in self._layers.values()]
        try:
            for layer, scaling in zip(self._layers.values(), before, strict=True):
                layer.scaling[NAME] = scaling * s
            yield
        finally:
            for layer, scaling in zip(self._layers.values(), before, strict=True):
                layer.scaling[NAME] = scaling

    @contextmanager
    def _blended(self, s: float) -> Iterator[None]:
        """What a DoRA does is not linear in B A: its whole change is scaled, as web UIs do."""

        def blend(layer: nn.Module, args: tuple[Tensor, ...], answer: Tensor) -> Tensor:
            plain: Tensor = cast(LoraLayer, layer).get_base_layer()(*args)
            return plain + s * (answer - plain)

        hooks = [cast(nn.Module, layer).register_forward_hook(blend) for layer in self._layers.values()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def change(self, name: str) -> Tensor:
        """W' - W of one layer, in float32: [out, in] or [out, in, k, k]."""
        layer = self._layers[name]
        delta: Tensor = cast(Any, layer).get_delta_weight(NAME).float()
        if not self.is_dora:
            return delta
        weight = cast(nn.Parameter, layer.get_base_layer().weight).float()
        return moved(weight, delta, getattr(layer, MAGNITUDE)[NAME].weight.flatten()) - weight

    def state(self) -> dict[str, Tensor]:
        """ "<prefix>.<layer>.lora_A" / ".lora_B" (/ ".lora_magnitude_vector") -> detached float32 copy on the CPU."""
        return {
            f"{name}.{factor}": getattr(layer, factor)[NAME].weight.detach().float().cpu().clone()
            for name, layer in self._layers.items()
            for factor in self._factors
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over A and B (and magnitudes). Raises TenutoError when names or shapes do not fit this adapter."""
        own = {f"{n}.{f}": getattr(layer, f)[NAME].weight for n, layer in self._layers.items() for f in self._factors}
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


def _matches(layer: str, wanted: Iterable[str]) -> bool:
    return any(fnmatchcase(layer, pattern) for name in wanted for pattern in BLOCKS.get(name, (name,)))


def _wrap(module: nn.Module, ranks: Mapping[str, Rank], dora: bool) -> LoraModel:
    rank, alpha = (_most_common(values) for values in zip(*ranks.values(), strict=True))
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        rank_pattern={name: own.rank for name, own in ranks.items() if own.rank != rank},
        alpha_pattern={name: own.alpha for name, own in ranks.items() if own.alpha != alpha},
        target_modules=sorted(ranks),
        init_lora_weights=False,
        use_dora=dora,
    )
    return LoraModel(module, config, NAME)


def _most_common(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _norm_per_output(layer: LoraLayer) -> Tensor:
    """|W| of each output [out]."""
    norm: Tensor = cast(nn.Parameter, layer.get_base_layer().weight).float().flatten(1).norm(dim=1)
    return norm
