"""One model from one folder in diffusers layout (unet/, vae/, text_encoder/). Safetensors only (law 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tenuto.files import parse_json
from tenuto.words import TenutoError

PICKLES = {".ckpt", ".pt", ".pth", ".bin"}
STEMS = ("diffusion_pytorch_model", "model")
"""What weight files are called, without ending."""
COUNTS = ("num_hidden_layers", "layers_per_block", "transformer_layers_per_block")
"""Of layers, in a config."""


def load_part(kind: Any, folder: Path, **precision: torch.dtype) -> Any:
    """Refuses a file that lacks weights: the libraries would go on with random ones."""
    _refuse_quantised(folder)
    _refuse_endless(folder)
    variant = "fp16" if any(".fp16" in path.name for path in weight_files(folder)) else None
    model, info = kind.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, variant=variant, output_loading_info=True, **precision
    )
    if missing := sorted(info["missing_keys"]):
        raise TenutoError(
            f"{folder}: {len(missing)} weights are missing, first {missing[0]}; download the checkpoint again"
        )
    return model


def _refuse_quantised(folder: Path) -> None:
    """The libraries would ask for one of their own (`lightly.py`), or for a GPU."""
    if "quantization_config" in read_json(folder / "config.json"):
        raise TenutoError(
            f"{folder}: quantised, and tenuto trains on whole weights; give the checkpoint that it was made from"
        )


def _refuse_endless(folder: Path) -> None:
    """The libraries would build layers for ever before they look at a weight."""
    config, weights = read_json(folder / "config.json"), 0
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            weights += len(file.keys())
    for name in COUNTS:
        counts = config.get(name)
        for count in counts if isinstance(counts, list) else [counts]:
            if isinstance(count, int | float) and count > weights:
                raise TenutoError(
                    f"{folder / 'config.json'}: {name} {count:g} is more layers than there are weights ({weights}); "
                    "download the checkpoint again"
                )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that hold this part: the whole file, its pieces, or its fp16 variant, in this order of choice."""
    if not folder.is_dir():
        raise TenutoError(f"{folder}: no such folder; give a folder in diffusers layout")
    for ending in (".safetensors", "-0*-of-*.safetensors", ".fp16.safetensors", ".fp16-0*-of-*.safetensors"):
        for stem in STEMS:
            if found := sorted(folder.glob(stem + ending)):
                return found
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    if pickles:
        raise TenutoError(
            f"{folder}: only pickle weights ({pickles[0]}), which can run code; "
            f"`tenuto convert {folder.parent}` makes .safetensors of them"
        )
    raise TenutoError(f"{folder}: no .safetensors weights in it; download the checkpoint again")


def read_json(path: Path) -> dict[str, Any]:
    """A config. Raises TenutoError when it is missing, damaged or no table."""
    try:
        table = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: missing; give the folder of a whole diffusers checkpoint") from error
    except (OSError, ValueError) as error:
        raise TenutoError(f"{path}: not readable as JSON ({error}); download the checkpoint again") from error
    if not isinstance(table, dict):
        raise TenutoError(f"{path}: not a config; download the checkpoint again")
    return table
