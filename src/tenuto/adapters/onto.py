"""A file onto a base, and an adapter on a base into a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.files import LoraFile, write_lora
from tenuto.adapters.header import base_header
from tenuto.adapters.kinds import MID
from tenuto.adapters.layers import Layer, kernel_of
from tenuto.adapters.names import Layout, in_layout, plain_name
from tenuto.adapters.tuners.base import Tuner
from tenuto.adapters.tuners.catalogue import BY_FILE, DORA, LORA
from tenuto.families.base import Base
from tenuto.words import TenutoError


def attach_file(base: Base, file: LoraFile, *, to_train: bool = False) -> Adapter:
    """Put a file on a base: exactly the layers that it has, each with its own rank and alpha, as the kind of adapter
    that it is; several kinds as the LoRAs that they are equal to.

    to_train: refuse what could not be trained on as the same kind of adapter.
    Raises TenutoError naming the first thing that does not fit.
    """
    tuner, layers = check_file(base, file, to_train=to_train)
    return Adapter.attach_stored(base, layers, tuner)


def check_file(base: Base, file: LoraFile, *, to_train: bool = False) -> tuple[Tuner, dict[str, Layer]]:
    """Its kind, and its layers as they would be attached. Raises TenutoError as `attach_file` does."""
    tuner = tuner_of(file)
    if to_train:
        _trainable(file, tuner)
    layers = fit(file, base.modules(), tuner)
    if len({layer.is_dora for layer in layers.values()}) > 1:
        raise TenutoError(f"{file.path}: some of its layers are DoRA and some are not; only one kind at a time works")
    return tuner, layers


def tuner_of(file: LoraFile) -> Tuner:
    """The kind of adapter that all its layers are; LoRA where they are of several, or have magnitudes."""
    dora = any(layer.is_dora for layer in file.layers.values())
    kinds = {layer.kind for layer in file.layers.values()}
    if dora or len(kinds) > 1:
        return DORA if dora else LORA
    return BY_FILE[kinds.pop()]


def fit(file: LoraFile, modules: Mapping[str, nn.Module], tuner: Tuner = LORA) -> dict[str, Layer]:
    """ "<prefix>.<layer>" of these modules -> its layer as this kind. TenutoError for what does not fit."""
    if file.unknown:
        raise TenutoError(
            f"{file.path}: {len(file.unknown)} of its tensors cannot be used, first {file.unknown[0]}; "
            f"`tenuto lora info {file.path}` lists them"
        )
    weights = {
        plain_name(f"{prefix}.{name}"): (f"{prefix}.{name}", layer.weight.shape)
        for prefix, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    layout: Layout = "sd" if "lora_te" in modules else "sdxl"
    names = {name: in_layout(name, layout) for name in file.layers}
    if odd := sorted(set(names.values()) - weights.keys()):
        raise TenutoError(
            f"{file.path}: {len(odd)} of its {len(names)} layers are not in the model, first {odd[0]}; "
            "it was made for another family of models: give one of this family"
        )
    fitted = {}
    for name, inner in names.items():
        own, shape = weights[inner]
        try:
            fitted[own] = tuner.fitted(file.layer(name), kernel_of(name), shape)
        except TenutoError as error:
            raise TenutoError(f"{file.path}: {name}: {error}") from error
    return fitted


def _trainable(file: LoraFile, tuner: Tuner) -> None:
    for name, layer in file.layers.items():
        if layer.kind != tuner.file_kind or MID in layer.tensors:
            kind = layer.kind if layer.kind != "LoRA" else "LoRA with a core (LoCon, Tucker)"
            raise TenutoError(
                f"{file.path}: {name} is a {kind}, which cannot be trained on in this file; "
                f"`tenuto lora resize {file.path} --rank 32` makes a plain LoRA of it"
            )


def save_lora(adapter: Adapter, path: Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float32) -> None:
    """Write the adapter in kohya's (LyCORIS') naming with the header that web UIs show, whole or not at all."""
    file = adapter_file(adapter, path, dtype)
    write_lora(replace(file, metadata={**base_header(adapter.base, file), **metadata}), path)


def adapter_file(adapter: Adapter, path: Path, dtype: torch.dtype = torch.float32) -> LoraFile:
    """An adapter as what a file of it would hold."""
    layers = {
        plain_name(name): adapter.tuner.stored(adapter.state_of(name), rank, dtype)
        for name, rank in adapter.ranks().items()
    }
    layout: Layout = "sd" if "lora_te" in adapter.base.text_encoders else "sdxl"
    return LoraFile(path, layers, {}, layout, "kohya")
