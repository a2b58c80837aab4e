"""LoRA files in kohya naming, as web UIs load them, and back.

    lora_unet_down_blocks_0_…_to_q.lora_down.weight   A [rank, in]  (convolutions [rank, in, k, k])
    lora_unet_down_blocks_0_…_to_q.lora_up.weight     B [out, rank] (convolutions [out, rank, 1, 1])
    lora_unet_down_blocks_0_…_to_q.alpha              a scalar

transformers 5 has no `text_model.` in its module names; kohya's files have it, so it is put in and taken out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base, Part
from tenuto.files import write_tensors
from tenuto.words import TenutoError

_SUFFIX = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight"}
_PARTS: tuple[Part, ...] = ("attention", "feed_forward", "convolution", "text_encoder")


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds: tensors by kohya name, and the header's metadata."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def modules(self) -> set[str]:
        return {name.partition(".")[0] for name in self.tensors}

    def rank(self) -> int:
        return next(tensor.shape[0] for name, tensor in self.tensors.items() if name.endswith("lora_down.weight"))

    def alpha(self) -> float:
        return next((float(tensor) for name, tensor in self.tensors.items() if name.endswith(".alpha")), self.rank())


def kohya_name(layer: str) -> str:
    """ "lora_te.encoder.layers.0.mlp.fc1" -> "lora_te_text_model_encoder_layers_0_mlp_fc1"."""
    prefix, _, name = layer.partition(".")
    inner = name if prefix == "lora_unet" or name.startswith("text_model.") else f"text_model.{name}"
    return f"{prefix}_{inner}".replace(".", "_")


def to_kohya(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """An adapter's state to a file's tensors, contiguous."""
    tensors = {}
    for key, value in state.items():
        layer, _, factor = key.rpartition(".")
        tensors[f"{kohya_name(layer)}.{_SUFFIX[factor]}"] = value.contiguous()
        tensors[f"{kohya_name(layer)}.alpha"] = torch.tensor(alpha, dtype=value.dtype)
    return tensors


def save_lora(adapter: Adapter, path: Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float32) -> None:
    """Write the adapter as a kohya-format LoRA, whole or not at all."""
    settings = adapter.settings
    state = {name: value.to(dtype) for name, value in adapter.state().items()}
    tensors = to_kohya(state, float(settings.alpha or settings.rank))
    header = {"ss_network_module": "networks.lora", "ss_network_dim": str(settings.rank)}
    header |= {"ss_network_alpha": str(float(settings.alpha or settings.rank))}
    write_tensors(path, tensors, {**header, **metadata})


def read_lora(path: Path) -> LoraFile:
    """Raises TenutoError when the file is missing, damaged, a pickle, or not a kohya-format LoRA."""
    if path.suffix in {".pt", ".ckpt", ".bin", ".pth"}:
        raise TenutoError(f"{path}: pickle files are not read (they can run code); convert it to .safetensors first")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: no such LoRA file") from error
    except (SafetensorError, OSError) as error:
        raise TenutoError(f"{path}: not a readable safetensors file ({error}); copy or download it again") from error
    if not any(name.endswith("lora_down.weight") for name in tensors):
        raise TenutoError(f"{path}: no lora_down weights in kohya naming; only plain LoRA files can be read")
    return LoraFile(path, tensors, metadata)


def attach_file(base: Base, file: LoraFile) -> Adapter:
    """Put a LoRA file on a base: the parts are found from its names. Raises TenutoError naming what does not fit."""
    names = file.modules()
    parts = tuple(part for part in _PARTS if names & _kohya_names(base, [part]))
    adapter = Adapter.attach(base, AdapterSettings(rank=file.rank(), alpha=file.alpha(), parts=parts))
    try:
        adapter.load(from_kohya(file, adapter.layers()))
    except TenutoError as error:
        adapter.detach()
        raise TenutoError(f"{file.path}: {error}") from error
    return adapter


def from_kohya(file: LoraFile, layers: Iterable[str]) -> dict[str, Tensor]:
    """A file's tensors under an adapter's own names. Raises TenutoError for modules that only one side has."""
    layers = list(layers)
    odd = file.modules() ^ {kohya_name(layer) for layer in layers}
    if odd:
        raise TenutoError(
            f"{len(odd)} modules of the LoRA and the model do not match, first {min(odd)}; another family of models?"
        )
    return {f"{l}.{f}": file.tensors[f"{kohya_name(l)}.{s}"].float() for l in layers for f, s in _SUFFIX.items()}  # noqa: E741


def _kohya_names(base: Base, parts: Iterable[Part]) -> set[str]:
    return {
        kohya_name(f"{prefix}.{layer}")
        for part in parts
        for prefix, layers in base.adapter_targets(part).items()
        for layer in layers
    }
