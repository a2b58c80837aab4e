"""An adapter on a base: attach, switch off, scale, detach. What is on the layers is the tuner's (`tuners/`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, Self, cast

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from tenuto.adapters.layers import Layer
from tenuto.adapters.tuners.base import NAME, Rank, Tuner, Update
from tenuto.adapters.tuners.catalogue import DORA, LORA, TUNERS, KindName
from tenuto.families.base import Base, Part
from tenuto.families.narrow import to_write
from tenuto.words import Settings, TenutoError

BLOCKS: dict[str, tuple[str, ...]] = {
    "content": ("lora_unet.up_blocks.0.attentions.0.*",),
    "style": ("lora_unet.up_blocks.0.attentions.1.*",),
    "self_attention": ("*.attn1.*",),
    "cross_attention": ("*.attn2.*",),
    "cross_keys": ("*.attn2.to_k",),
}
"""Names for groups of layers. `content` and `style` are B-LoRA's blocks of SDXL (arXiv:2403.14572); skipping
`cross_keys` is the cheap form of key locking (Perfusion, arXiv:2305.01644)."""


class AdapterSettings(Settings):
    """[training.adapter]: which layers get how large a LoRA, or another kind of adapter."""

    kind: KindName = Field(default="lora", exclude_if=lambda kind: kind == "lora")
    """lora; loha (products of two low ranks), lokr (Kronecker products), oft and boft (turn the layers' outputs). Only
    lora ships as an ordinary LoRA that every program reads; the others are written as LyCORIS writes them."""
    rank: PositiveInt = 16
    """Rank of B A. Larger learns more and drifts more. For oft and boft: the most outputs that are turned together."""
    alpha: PositiveFloat | None = None
    """The update is scaled by alpha / rank; unset: alpha = rank."""
    factor: PositiveInt | None = None
    """For lokr: the size of its small matrix; unset: near the root of each layer's size, the smallest files."""
    parts: tuple[Part, ...] = ("attention",)
    """Groups of layers that are adapted: attention, feed_forward, convolution, text_encoder."""
    dora: bool = False
    """Learn the size of each output's weights apart from their direction (DoRA): a little slower and stronger."""
    only: tuple[str, ...] = ()
    """Of those, only these layers: names of BLOCKS or patterns such as "*.up_blocks.0.*"; empty: all."""
    skip: tuple[str, ...] = ()
    """Of those, not these."""

    @model_validator(mode="after")
    def _fitting_kind(self) -> Self:
        given = {"alpha": self.alpha, "factor": self.factor, "dora": self.dora}
        if odd := [name for name, value in given.items() if value and name not in TUNERS[self.kind].options]:
            raise ValueError(f'{odd[0]} is not for kind = "{self.kind}"; leave it out')
        return self

    def tuner(self) -> Tuner:
        return DORA if self.dora else TUNERS[self.kind].with_factor(self.factor)

    def takes(self, layer: str) -> bool:
        """Whether `only` and `skip` leave this layer ("<prefix>.<layer>") in."""
        return (not self.only or _matches(layer, self.only)) and not _matches(layer, self.skip)


def is_adapted(base: Base) -> bool:
    """Whether any adapter lies on it."""
    return any(isinstance(layer, BaseTunerLayer) for module in base.modules().values() for layer in module.modules())


class Adapter:
    """Layers on one base. Make with `attach`, end with `detach`."""

    def __init__(self, base: Base, models: dict[str, BaseTuner], tuner: Tuner) -> None:
        self.base = base
        self.tuner = tuner
        self._models = models
        self._layers: dict[str, BaseTunerLayer] = {
            f"{prefix}.{name}": layer
            for prefix, model in models.items()
            for name, layer in model.model.named_modules()
            if isinstance(layer, BaseTunerLayer)
        }

    @classmethod
    def attach(cls, base: Base, settings: AdapterSettings, seed: int = 0) -> Self:
        """Put fresh layers on the base: drawn by name from `seed`, so that they change nothing yet."""
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
        return cls.attach_to(base, dict.fromkeys(taken, rank), settings.tuner(), seed)

    @classmethod
    def attach_to(cls, base: Base, ranks: Mapping[str, Rank], tuner: Tuner = LORA, seed: int = 0) -> Self:
        """Put fresh layers on exactly these ("<prefix>.<layer>"), each with a rank and alpha of its own."""
        return cls._attached(base, ranks, tuner, lambda name, layer: tuner.begin(layer, name, seed))

    @classmethod
    def attach_stored(cls, base: Base, stored: Mapping[str, Layer], tuner: Tuner) -> Self:
        """Put a file's layers on these; they must fit (`Tuner.fitted`)."""
        ranks = {name: tuner.rank(layer) for name, layer in stored.items()}
        return cls._attached(base, ranks, tuner, lambda name, layer: tuner.adopt(layer, stored[name]))

    @classmethod
    def _attached(
        cls, base: Base, ranks: Mapping[str, Rank], tuner: Tuner, fill: Callable[[str, BaseTunerLayer], None]
    ) -> Self:
        models = {}
        for prefix, module in base.modules().items():
            own = {name.removeprefix(f"{prefix}."): r for name, r in ranks.items() if name.startswith(f"{prefix}.")}
            if own:
                models[prefix] = tuner.wrap(module, own)
        adapter = cls(base, models, tuner)
        try:
            for name, layer in adapter.layers().items():
                fill(name, layer)
        except TenutoError:
            adapter.detach()
            raise
        return adapter

    def detach(self) -> None:
        """Take the layers off; every module of the base is what it was."""
        for model in self._models.values():
            model.unload()
        self._models, self._layers = {}, {}

    def layers(self) -> Mapping[str, BaseTunerLayer]:
        """Full name ("lora_unet.down_blocks.0…to_q") -> peft layer."""
        return self._layers

    def ranks(self) -> dict[str, Rank]:
        """Rank and alpha of each layer."""
        return {name: self.tuner.rank_on(layer) for name, layer in self._layers.items()}

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, in a fixed order."""
        return list(self._trained().values())

    def factors(self) -> list[nn.Parameter]:
        """Those of them that may shrink: what the change is a product of, or all of them where it is no product."""
        own = [self.tuner.product(layer) or [*self.tuner.trained(layer).values()] for layer in self._layers.values()]
        return [parameter for layer in own for parameter in layer]

    def _trained(self) -> dict[str, nn.Parameter]:
        """By "<prefix>.<layer>.<parameter>"."""
        return {
            f"{name}.{field}": parameter
            for name, layer in self._layers.items()
            for field, parameter in self.tuner.trained(layer).items()
        }

    def updates(self) -> Iterator[tuple[str, Update]]:
        """dW of each layer, as far as it needs building."""
        for name, layer in self._layers.items():
            yield name, self.tuner.update(layer)

    @torch.no_grad()
    def shrink(self, name: str, ratio: float) -> None:
        """Scale dW of one layer; only where it is a product of what is trained."""
        factors = self.tuner.product(self._layers[name])
        for factor in factors:
            factor.mul_(ratio ** (1 / len(factors)))

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
        with self._scaled(s) if self.tuner.linear else self._blended(s):
            yield

    @contextmanager
    def merged(self, s: float = 1.0) -> Iterator[None]:
        """As `strength`, with the change added to the weights: a forward costs what the base's does. Restores every
        weight bit for bit on every way out. Weights of few bits round the change: there, use `strength`."""
        with added(self.changes(), s), self.disabled():
            yield

    @contextmanager
    def rescaled(self, s: float) -> Iterator[None]:
        """The last factor (LoRA's B) times s inside the block, so that files written there hold it; only where the
        change is a product. Restores every weight on every way out."""
        trained = self.state()
        try:
            for layer in self._layers.values() if s != 1 else ():
                self.tuner.product(layer)[-1].data.mul_(s)
            yield
        finally:
            self.load(trained)

    @contextmanager
    def _scaled(self, s: float) -> Iterator[None]:
        with self.scaled(dict.fromkeys(self._layers, s)):
            yield

    @contextmanager
    def scaled(self, strengths: Mapping[str, float]) -> Iterator[None]:
        """Layers by name at strengths of their own, where a kind's scaling scales its whole change."""
        own: dict[str, Any] = {name: self._layers[name] for name in strengths}
        before = {name: layer.scaling[NAME] for name, layer in own.items()}
        try:
            for name, layer in own.items():
                layer.scaling[NAME] = before[name] * strengths[name]
            yield
        finally:
            for name, layer in own.items():
                layer.scaling[NAME] = before[name]

    @contextmanager
    def _blended(self, s: float) -> Iterator[None]:
        """What a DoRA does is not linear in B A: its whole change is scaled, as web UIs do."""

        def blend(layer: nn.Module, args: tuple[Tensor, ...], answer: Tensor) -> Tensor:
            plain: Tensor = cast(BaseTunerLayer, layer).get_base_layer()(*args)
            return plain + s * (answer - plain)

        hooks = [cast(nn.Module, layer).register_forward_hook(blend) for layer in self._layers.values()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def change(self, name: str) -> Tensor:
        """W' - W of one layer, in float32: [out, in] or [out, in, k, k]."""
        return self.tuner.change(self._layers[name])

    def changes(self) -> Iterator[tuple[nn.Module, Tensor]]:
        """Each adapted layer of the base with its `change`, one at a time."""
        for name, layer in self._layers.items():
            yield layer.get_base_layer(), self.change(name)

    def state(self) -> dict[str, Tensor]:
        """ "<prefix>.<layer>.<parameter>" -> detached float32 copy on the CPU."""
        return {f"{name}.{field}": value for name in self._layers for field, value in self.state_of(name).items()}

    def state_of(self, name: str) -> dict[str, Tensor]:
        """The same of one layer, by parameter."""
        trained = self.tuner.trained(self._layers[name])
        return {field: parameter.detach().float().cpu().clone() for field, parameter in trained.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what is trained. Raises TenutoError when names or shapes do not fit this adapter."""
        own = self._trained()
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
            weight.copy_(state[name])


@contextmanager
def added(changes: Iterable[tuple[nn.Module, Tensor]], s: float = 1.0) -> Iterator[None]:
    """Layers' weights plus s times their changes inside the block; bit for bit what they were afterwards."""
    with ExitStack() as layers:
        for layer, change in changes:
            layers.enter_context(_changed(layer, change, s))
        yield


@contextmanager
def _changed(layer: nn.Module, change: Tensor, s: float) -> Iterator[None]:
    with to_write(layer) as weight:
        before = weight.detach().clone()
        try:
            with torch.no_grad():
                weight.add_(change.to(weight), alpha=s)
            yield
        finally:
            with torch.no_grad():
                weight.copy_(before)


def _matches(layer: str, wanted: Iterable[str]) -> bool:
    return any(fnmatchcase(layer, pattern) for name in wanted for pattern in BLOCKS.get(name, (name,)))
