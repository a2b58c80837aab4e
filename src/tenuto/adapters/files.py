"""LoRA files in and out: whatever their tensors are called, they become a `LoraFile` of our own layer names.

Reads kohya (SD and SDXL names, LoCon, LoHa, LoKr, DoRA, OFT, BOFT), diffusers old and new, and peft. Writes kohya and
diffusers.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tenuto.adapters.header import KOHYA_HASHES, hashes, network_header
from tenuto.adapters.kinds import ALPHA, DOWN, FIELDS, FOREIGN, MAGNITUDE, MID, UP
from tenuto.adapters.layers import Layer, Lora, kernel_of
from tenuto.adapters.names import (
    COMPONENTS,
    UNET,
    Layout,
    Naming,
    diffusers_name,
    from_dotted,
    from_kohya,
    in_layout,
    kohya_name,
    layout_of,
)
from tenuto.adapters.tuners.base import Rank, patterns
from tenuto.adapters.tuners.lora import MAGNITUDE as PEFT_MAGNITUDE
from tenuto.files import read_tensors, write_tensors
from tenuto.words import TenutoError

PEFT_METADATA = "lora_adapter_metadata"
"""Header key under which diffusers keeps peft's config (JSON): the only place of alpha in such a file."""

_DOTTED = (
    (re.compile(r"\.lora_A(\.\w+)?\.weight$"), DOWN),
    (re.compile(r"\.lora_B(\.\w+)?\.weight$"), UP),
    (re.compile(r"(\.lora_linear_layer|[._]lora)\.down\.weight$"), DOWN),
    (re.compile(r"(\.lora_linear_layer|[._]lora)\.up\.weight$"), UP),
    (re.compile(r"\.lora_magnitude_vector(\.\w+)?(\.weight)?$"), MAGNITUDE),
    *((re.compile(rf"\.{re.escape(name)}$"), name) for name in sorted(FIELDS)),
)
"""Endings of dotted keys -> our field. One underscore spelling: the old `.processor.to_q_lora.down.weight`."""
_SPELLINGS = {"lora_A.weight": DOWN, "lora_B.weight": UP, "lora_magnitude_vector": MAGNITUDE}
"""Fields in kohya-named files that are spelt as peft does."""

_NOT_A_LORA = {
    "emb_params": "a textual inversion embedding", "clip_l": "a textual inversion embedding",
    "model.diffusion_model.": "a whole checkpoint", "diffusion_model.input_blocks": "a whole checkpoint",
    "first_stage_model.": "a VAE", "encoder.down": "a VAE", "decoder.": "a VAE", "down_blocks.": "a U-Net",
    "text_model.": "a text encoder", "control_model.": "a ControlNet", "input_hint_block": "a ControlNet",
}  # fmt: skip
_OTHER_FAMILIES = (
    "double_blocks", "single_blocks", "joint_blocks", "transformer.", "lora_transformer", "single_transformer_blocks",
    "lora_te3", "_prior_",
)  # fmt: skip
"""In keys of LoRAs for Flux, SD3, Cascade and their kin."""


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds, under our own layer names."""

    path: Path
    layers: Mapping[str, Layer]
    """ "lora_unet.down_blocks.0…to_q" -> its tensors, as they were read."""
    metadata: Mapping[str, str]
    layout: Layout
    naming: Naming
    unknown: tuple[str, ...] = ()
    """Keys of tensors that we cannot place."""

    @property
    def kinds(self) -> dict[str, int]:
        """ "LoRA", "DoRA", "LoHa", … -> how many layers are of this kind."""
        return dict(Counter(f"{l.kind} with DoRA" if l.is_dora else l.kind for l in self.layers.values()))  # noqa: E741

    def layer(self, name: str) -> Layer:
        """One layer as it stands. Raises TenutoError when it holds values that are not finite."""
        layer = self.layers[name]
        if not all(tensor.isfinite().all() for tensor in layer.tensors.values()):
            raise TenutoError("it holds values that are not finite; its training broke down")
        return layer

    def lora(self, name: str) -> Lora:
        """One layer as a plain LoRA. Raises TenutoError when it cannot be one, or holds values that are not finite."""
        try:
            return self.layer(name).lora(kernel_of(name))
        except TenutoError as error:
            raise TenutoError(f"{self.path}: {name}: {error}") from error


# -- in -------------------------------------------------------------------------------------------------------------


def read_lora(path: Path) -> LoraFile:
    """Raises TenutoError when the file is missing, damaged, a pickle, no LoRA, or for another kind of model."""
    tensors, metadata = read_tensors(path)
    return parse_lora(path, tensors, metadata)


def parse_lora(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraFile:
    """Sort a file's tensors by layer. Raises TenutoError as `read_lora` does."""
    found: dict[str, dict[str, Tensor]] = {}
    unknown, kohya = [], 0
    for key, tensor in sorted(tensors.items()):
        layer, field = _place(key)
        if layer is None or field in found.get(layer, {}):
            unknown.append(key)
            continue
        if "lora_magnitude_vector" in key:  # peft's [out] or [1, out, 1, 1]
            tensor = tensor.reshape(-1, *(1,) * (3 if tensor.ndim == 4 else 1))
        found.setdefault(layer, {})[field] = tensor
        kohya += _is_kohya(key)
    if not found:
        raise TenutoError(f"{path}: {_what_else(tensors)}")
    ldm = any(word in key for key in tensors for word in ("input_blocks", "output_blocks"))
    told = str(metadata.get("modelspec.architecture", "")).startswith("stable-diffusion-v")
    layout: Layout = "sd" if told and not ldm else layout_of(found, ldm)
    if any(_context(name, own) == 2048 for name, own in found.items()):
        layout = "sdxl"
    if not kohya:
        _take_alpha(path, found, metadata)
    layers = {in_layout(name, layout): _checked(path, name, own) for name, own in found.items()}
    naming: Naming = "kohya" if kohya else "diffusers"
    return LoraFile(path, dict(sorted(layers.items())), metadata, layout, naming, tuple(unknown))


def _is_kohya(key: str) -> bool:
    return key.startswith(("lora_", "lycoris_"))


def _place(key: str) -> tuple[str | None, str]:
    """(our layer name or None, field) of a key."""
    if _is_kohya(key):
        name, _, field = key.partition(".")
        field = _SPELLINGS.get(field, field)
        return (from_kohya(name), field) if field in FIELDS else (None, field)
    for pattern, field in _DOTTED:
        if end := pattern.search(key):
            return from_dotted(key[: end.start()]), field
    return None, ""


def _checked(path: Path, name: str, tensors: Mapping[str, Tensor]) -> Layer:
    try:
        return Layer.checked(tensors)
    except TenutoError as error:
        raise TenutoError(f"{path}: {name}: {error}; the file is damaged or of a kind that is not known") from error


def _context(name: str, tensors: Mapping[str, Tensor]) -> int:
    """Width of the text features that a layer reads; 0 for layers that read none."""
    inner = tensors.get(DOWN) if name.endswith(("attn2.to_k", "attn2.to_v")) else None
    return inner.shape[1] if inner is not None and inner.ndim == 2 else 0


def _take_alpha(path: Path, found: Mapping[str, dict[str, Tensor]], metadata: Mapping[str, str]) -> None:
    """Diffusers and peft keep alpha beside the tensors. Where nothing is said, it is the rank."""
    config = _peft_config(path, metadata)
    for name, tensors in found.items():
        down = tensors.get(DOWN)
        if ALPHA in tensors or down is None or down.ndim == 0:
            continue
        component, _, inner = diffusers_name(name).partition(".")
        own = {key.removeprefix(f"{component}."): value for key, value in config.items()}
        alpha = _pattern(own.get("alpha_pattern"), inner, own.get("lora_alpha"))
        if isinstance(alpha, int | float) and down.is_floating_point():
            rooted = math.sqrt(down.shape[0]) if own.get("use_rslora") is True else 1.0
            tensors[ALPHA] = torch.tensor(float(alpha) * rooted, dtype=down.dtype)


def _peft_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """From the header, or (raw peft) from adapter_config.json beside the file. Raises TenutoError for damaged ones."""
    text, beside = metadata.get(PEFT_METADATA), path.with_name("adapter_config.json")
    try:
        if text is None and path.name == "adapter_model.safetensors" and beside.is_file():
            text = beside.read_text(encoding="utf-8")
        config = json.loads(text) if text is not None else {}
    except (ValueError, OSError, RecursionError) as error:
        raise TenutoError(f"{path}: its {PEFT_METADATA} is damaged ({type(error).__name__})") from error
    return config if isinstance(config, dict) else {}


def _pattern(patterns: object, name: str, default: object) -> object:
    """What peft's rank_pattern or alpha_pattern says of a layer: names match as a whole or as an ending."""
    for ending, value in (patterns if isinstance(patterns, dict) else {}).items():
        if f".{name}".endswith(f".{ending}") or f".{name.removeprefix('text_model.')}".endswith(f".{ending}"):
            return cast(object, value)
    return default


def _what_else(tensors: Iterable[str]) -> str:
    """The message for a safetensors file without a single layer that we know."""
    keys = list(tensors)
    if not keys:
        return "holds no tensors; not a LoRA"
    for mark in _OTHER_FAMILIES:
        if any(mark in key for key in keys):
            return "a LoRA for another family of models (Flux, SD3 or the like); only SD 1.x, 2.x and SDXL are known"
    for mark, kind in FOREIGN.items():
        if any(key.endswith(f".{mark}") for key in keys):
            return f"an adapter of a kind that cannot be read ({kind}); train or convert it as LoRA, LoHa or LoKr"
    for mark, kind in _NOT_A_LORA.items():
        if any(key.startswith(mark) for key in keys):
            return f"{kind}, not a LoRA"
    return f"not a LoRA: none of its {len(keys)} tensors is one ({min(keys)[:60]} …)"


# -- out ------------------------------------------------------------------------------------------------------------


def add_to_header(path: Path, more: Mapping[str, str]) -> None:
    """Say more in the header of a LoRA file; its tensors stay, and so does the hash of its content."""
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {**metadata, **more})


def write_lora(file: LoraFile, path: Path, naming: Naming = "kohya") -> list[str]:
    """Write a LoRA file, whole or not at all. Returns, one line each, what this naming could not carry as it was.

    Raises TenutoError when nothing of it could be carried.
    """
    metadata = {key: value for key, value in file.metadata.items() if key not in {*KOHYA_HASHES, PEFT_METADATA}}
    lost = [f"{len(file.unknown)} tensors of no known kind, first {file.unknown[0]}"] if file.unknown else []
    if naming == "kohya":
        tensors = {
            f"{kohya_name(name, file.layout)}.{field}": value
            for name, layer in file.layers.items()
            for field, value in layer.tensors.items()
        }
        metadata = network_header(file.layers) | metadata
        write_tensors(path, tensors, metadata | hashes(tensors, metadata))
        return lost
    carried, notes = _for_diffusers(file)
    if not carried:
        raise TenutoError(f"{file.path}: none of its layers can be written for diffusers ({'; '.join(notes)})")
    tensors, config = _diffusers_tensors(carried)
    write_tensors(path, tensors, metadata | {"format": "pt"} | config)
    return lost + notes


def _for_diffusers(file: LoraFile) -> tuple[dict[str, Layer], list[str]]:
    """(the layers that diffusers can load, what it cannot)."""
    other = {name: layer.kind for name, layer in file.layers.items() if layer.kind != "LoRA"}
    cores = [name for name, layer in file.layers.items() if MID in layer.tensors]
    layers = {
        name: replace(file.lora(name), magnitude=None).layer(layer.dtype) if name in cores else layer
        for name, layer in file.layers.items()
        if name not in other
    }
    notes = [f"{n} {kind} layers left out: diffusers knows LoRA only" for kind, n in Counter(other.values()).items()]
    if cores:
        notes.append(f"{len(cores)} layers with a core (Tucker) written as plain convolutions, equal but for rounding")
    without = sum(ALPHA not in layer.tensors for layer in layers.values())
    if 0 < without < len(layers):
        notes.append(f"{without} layers without alpha: alpha = rank is written, which means the same")
    if odd := sum(ALPHA in l.tensors and l.tensors[ALPHA].dtype != l.dtype for l in layers.values()):  # noqa: E741
        notes.append(f"{odd} layers keep alpha in another precision than the weights: kept as a number only")
    return layers, notes


def _diffusers_tensors(layers: Mapping[str, Layer]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) in diffusers' naming; alpha stands in the metadata."""
    tensors = {}
    for name, layer in layers.items():
        path = diffusers_name(name)
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = layer.tensors[DOWN], layer.tensors[UP]
        if layer.is_dora:
            flat = layer.tensors[MAGNITUDE].flatten()
            linear = layer.tensors[DOWN].ndim == 2
            end = (
                "" if name.startswith(f"{UNET}.") else ".weight"
            )  # transformers reads no other spelling, peft the other
            tensors[f"{path}.{PEFT_MAGNITUDE}{end}"] = flat if linear else flat.reshape(1, -1, 1, 1)
    if not any(ALPHA in layer.tensors for layer in layers.values()):
        return tensors, {}
    config: dict[str, Any] = {}
    for component in dict.fromkeys(COMPONENTS.values()):
        own = {n: layer for n, layer in layers.items() if COMPONENTS[n.partition(".")[0]] == component}
        if own:
            config |= {f"{component}.{key}": value for key, value in _peft_settings(own).items()}
    return tensors, {PEFT_METADATA: json.dumps(config, sort_keys=True)}


def _peft_settings(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """peft's LoraConfig of one component. Names without `text_model.`: peft matches them as endings."""
    ranks = {name.partition(".")[2]: Rank(layer.rank, layer.alpha) for name, layer in layers.items()}
    settings = patterns(ranks)
    return {
        "peft_type": "LORA",
        "lora_alpha": settings.pop("alpha"),
        "use_dora": any(layer.is_dora for layer in layers.values()),
        **settings,
    }
