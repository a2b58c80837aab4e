"""Changing LoRAs: another rank, several in one, into a checkpoint, out of the difference of two checkpoints.

Everything rests on dW = B A. Its singular values come from the small factors: with B = Q R and A' = P S (both QR),
those of B A are those of R S' [r, r]; cutting off the small ones is the best that any smaller rank can do (Eckart and
Young 1936). A whole difference gets its own from the eigenvalues of dW dW'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tenuto.adapters.files import LoraFile
from tenuto.adapters.kinds import ALPHA, BLOCKS, FACTORS, UP
from tenuto.adapters.layers import Layer, Lora
from tenuto.adapters.names import UNET
from tenuto.events import Listener, progress, silent
from tenuto.families.base import Part
from tenuto.words import TenutoError

STRENGTH = "tenuto_strength"
"""Header key: the strength that was worked in."""


@dataclass(frozen=True)
class Cut:
    """How many singular values to keep of each layer."""

    rank: int | None = None
    """At most so many; unset: no limit."""
    error: float = 0.0
    """As few as bring |dW - dW'| / |dW| down to this; 0.1 keeps 99 % of the squares' sum. 0: as many as there are."""

    def keep(self, values: Tensor) -> int:
        """How many of these singular values (falling) stay; at least one."""
        squares = values.double().square()
        lost = squares.flip(0).cumsum(0).flip(0)  # by dropping this value and all after it
        needed = int((lost > max(self.error, 1e-9) ** 2 * lost[0]).sum())
        return max(1, min(needed, self.rank or needed))


@dataclass(frozen=True)
class Change:
    """What a cut did to one layer."""

    rank: int
    norm: float
    """|dW| before."""
    lost: float
    """|dW - dW'|."""


def relative_error(changes: Iterable[Change]) -> float:
    """|dW - dW'| / |dW| of several layers together."""
    own = list(changes)
    norm = math.hypot(*(change.norm for change in own))
    return math.hypot(*(change.lost for change in own)) / norm if norm else 0.0


def errors_by_part(changes: Mapping[str, Change]) -> dict[Part, float]:
    """The relative error of each group of layers."""
    parts: dict[Part, list[Change]] = {}
    for name, change in changes.items():
        parts.setdefault(part_of(name), []).append(change)
    return {part: relative_error(own) for part, own in sorted(parts.items())}


def part_of(layer: str) -> Part:
    """Which group of layers one belongs to, from its name."""
    if not layer.startswith(f"{UNET}."):
        return "text_encoder"
    if ".attn" in layer:
        return "attention"
    return "feed_forward" if ".attentions." in layer else "convolution"


# -- another rank ---------------------------------------------------------------------------------------------------


def resize(file: LoraFile, cut: Cut, listener: Listener = silent) -> tuple[LoraFile, dict[str, Change]]:
    """The best LoRA of smaller ranks, and what it lost; LoHa, LoKr and cores become plain LoRA.

    A DoRA keeps its magnitudes; its error is that of B A.
    """
    layers, changes = {}, {}
    for done, (name, layer) in enumerate(file.layers.items(), 1):
        smaller, changes[name] = shrink(file.lora(name), cut)
        layers[name] = smaller.layer(layer.dtype)
        progress(listener, "resizing", done, len(file.layers))
    return replace(file, layers=layers, metadata=without_network(file.metadata)), changes


def shrink(lora: Lora, cut: Cut) -> tuple[Lora, Change]:
    """One layer's best smaller LoRA. Each factor takes the root of the singular values; alpha is the rank."""
    up, down = (factor.double() for factor in lora.factors())
    (q, r), (p, s) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(r @ s.T, full_matrices=False)
    rank = cut.keep(values)
    root = values[:rank].sqrt()
    small = _lora((q @ u[:, :rank]) * root, root[:, None] * (v[:rank] @ p.T), lora.down.shape[1:], lora.magnitude)
    return small, Change(rank, float(values.norm()), float(values[rank:].norm()))


def of_difference(delta: Tensor, cut: Cut) -> tuple[Lora, Change]:
    """The best LoRA of a whole difference [out, in] or [out, in, k, k]."""
    flat = delta.flatten(1).double()
    wide = flat.shape[0] <= flat.shape[1]
    side = flat if wide else flat.T
    squares, vectors = torch.linalg.eigh(side @ side.T)
    values = squares.flip(0).clamp_min(0).sqrt()
    rank = cut.keep(values)
    root = values[:rank].clamp_min(torch.finfo(torch.float32).tiny).sqrt()
    left = vectors.flip(1)[:, :rank]
    right = left.T @ side  # the singular values are in it
    up, down = (left * root, right / root[:, None]) if wide else ((right / root[:, None]).T, (left * root).T)
    return _lora(up, down, delta.shape[1:], None), Change(rank, float(values.norm()), float(values[rank:].norm()))


def _lora(up: Tensor, down: Tensor, inner: Sequence[int], magnitude: Tensor | None) -> Lora:
    """Of B [out, rank] and A [rank, in k k]."""
    rank = down.shape[0]
    ones = (1,) * (len(inner) - 1)
    return Lora(down.float().reshape(rank, *inner), up.float().reshape(-1, rank, *ones), float(rank), magnitude)


def without_network(metadata: Mapping[str, str]) -> dict[str, str]:
    """A header without what was true of the old ranks only."""
    return {key: value for key, value in metadata.items() if not key.startswith("ss_network_")}


# -- alpha and precision --------------------------------------------------------------------------------------------


def in_precision(file: LoraFile, dtype: torch.dtype) -> LoraFile:
    """The same LoRA rounded to another float type. Raises TenutoError where a value is too large for it."""
    layers = {}
    for name, layer in file.layers.items():
        tensors = {field: value.to(dtype) for field, value in layer.tensors.items()}
        if not all(value.isfinite().all() for value in tensors.values()):
            raise TenutoError(f"{file.path}: {name} holds values that {str(dtype)[6:]} cannot; take fp32 or bf16")
        layers[name] = Layer(tensors)
    return replace(file, layers=layers)


def fold_alpha(file: LoraFile) -> LoraFile:
    """The same LoRA with alpha / rank multiplied into B, for programs that do not read alpha from diffusers' header."""
    layers = {}
    for name, layer in file.layers.items():
        tensors = dict(layer.tensors)
        if layer.kind == "LoRA" and ALPHA in tensors:
            tensors[UP] = (tensors[UP].float() * (layer.alpha / layer.rank)).to(layer.dtype)
            del tensors[ALPHA]
        layers[name] = Layer(tensors)
    return replace(file, layers=layers, metadata=without_network(file.metadata))


# -- a strength -----------------------------------------------------------------------------------------------------


def at_strength(file: LoraFile, strength: float) -> LoraFile:
    """The same LoRA with a strength worked in: at 1 it is what `file` is at `strength`.

    The last factor of each layer (LoRA's B) takes it; alpha and all other tensors stay as they are. Raises TenutoError
    for what no factor can carry (DoRA, OFT, BOFT), and where a value is too large for its type.
    """
    layers = {}
    for name, layer in file.layers.items():
        if layer.is_dora or BLOCKS in layer.tensors:
            kind = "DoRA" if layer.is_dora else layer.kind
            raise TenutoError(
                f"{file.path}: {name} is of kind {kind}, into which no strength can be worked; set {strength:g} in the "
                "program that draws"
            )
        last = next(field for field in reversed(FACTORS) if field in layer.tensors)
        scaled = (layer.tensors[last].double() * strength).to(layer.tensors[last].dtype)
        if not scaled.isfinite().all():
            raise TenutoError(
                f"{file.path}: {name} times {strength:g} is too large for {str(scaled.dtype)[6:]}; take a smaller one"
            )
        layers[name] = Layer({**layer.tensors, last: scaled})
    return replace(file, layers=layers, metadata={**file.metadata, STRENGTH: f"{strength:g}"})


# -- several in one -------------------------------------------------------------------------------------------------


def merge(files: Sequence[LoraFile], weights: Sequence[float]) -> LoraFile:
    """The weighted sum as one LoRA in float32: factors side by side, exact but for rounding; ranks add up.

    Raises TenutoError for another family, other shapes, or a DoRA, whose sum with anything is none.
    """
    first, pairs = files[0], list(zip(files, weights, strict=True))
    for file in files:
        if file.layout != first.layout:
            raise TenutoError(f"{file.path} is for {file.layout}, {first.path} for {first.layout}; merge one kind only")
        if dora := next((name for name, layer in file.layers.items() if layer.is_dora), None):
            raise TenutoError(
                f"{file.path}: {dora} is a DoRA, which cannot be added to others; merge it into a checkpoint (--into)"
            )
    layers = {
        name: _sum(name, [(file, weight) for file, weight in pairs if name in file.layers]).layer(torch.float32)
        for name in sorted({name for file in files for name in file.layers})
    }
    sources = [{"name": file.path.name, "weight": weight} for file, weight in pairs]
    return replace(
        first,
        layers=layers,
        metadata=_of_the_base(first.metadata) | {"tenuto_merged_from": json.dumps(sources, ensure_ascii=False)},
        unknown=tuple(key for file in files for key in file.unknown),
    )


def _sum(name: str, pairs: Sequence[tuple[LoraFile, float]]) -> Lora:
    """sum_i w_i s_i B_i A_i = [w_1 s_1 B_1, w_2 s_2 B_2, …] [A_1; A_2; …]."""
    loras = [(file.lora(name), weight) for file, weight in pairs]
    shape = loras[0][0].shape
    for (file, _), (lora, _) in zip(pairs, loras, strict=True):
        if lora.shape != shape and (lora.shape[:2] != shape[:2] or math.prod(lora.shape) != math.prod(shape)):
            raise TenutoError(f"{file.path}: {name} is {list(lora.shape)}, in {pairs[0][0].path} {list(shape)}")
    fitted = [(lora.fitted(shape), weight) for lora, weight in loras]
    down = torch.cat([lora.down.float() for lora, _ in fitted])
    up = torch.cat([lora.up.float() * lora.scale * weight for lora, weight in fitted], dim=1)
    return Lora(down, up, float(down.shape[0]))


def _of_the_base(metadata: Mapping[str, str]) -> dict[str, str]:
    """What stays true of a LoRA that is made from others: which kind of base it is for."""
    kept = ("ss_v2", "ss_base_model_version", "ss_sd_model", "modelspec.architecture", "modelspec.prediction_type")
    return {key: value for key, value in metadata.items() if key.startswith(kept)}
