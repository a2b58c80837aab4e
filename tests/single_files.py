"""Single-file checkpoints for tests, written from a tiny diffusers folder by the inverse of the key tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tenuto.families.keys import Origin, clip_origins, open_clip_origins, unet_origins, vae_origins
from tenuto.families.layouts import LAYOUTS, Layout
from tenuto.families.recognise import UNET

VAE = "first_stage_model."
FORMS = {
    "sd1": [("clip", "cond_stage_model.transformer.text_model.")],
    "sd2": [("open_clip", "cond_stage_model.model.")],
    "sdxl": [
        ("clip", "conditioner.embedders.0.transformer.text_model."),
        ("open_clip", "conditioner.embedders.1.model."),
    ],
}
"""Kind of file -> naming and prefix of its text encoders."""


def config_of(folder: Path) -> dict[str, Any]:
    passing = ("architectures", "dtype", "model_type", "transformers_version")
    table = json.loads((folder / "config.json").read_text())
    return {key: value for key, value in table.items() if key[0] != "_" and key not in passing}


def text_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("text_encoder*") if path.is_dir())


def tiny_layout(folder: Path, form: str) -> Layout:
    """What would ship for an architecture as tiny as this folder's."""
    texts = [
        {"form": naming, "prefixes": list(LAYOUTS[form].text_encoders[at].prefixes), "pad": _pad(folder),
         "projected": (form, at) == ("sdxl", 1), "config": config_of(own)}
        for at, ((naming, _), own) in enumerate(zip(FORMS[form], text_folders(folder), strict=True))
    ]  # fmt: skip
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    table = {
        "title": f"tiny {form}",
        "pipeline": LAYOUTS[form].pipeline,
        "unet": config_of(folder / "unet"),
        "vae": config_of(folder / "vae"),
        "text_encoders": texts,
        "scheduler": {key: value for key, value in scheduler.items() if key[0] != "_"},
        "leftovers": list(LAYOUTS[form].leftovers),
    }
    return Layout.of(table, folder / "tokenizer")


def _pad(folder: Path) -> int:
    return int(config_of(folder / "text_encoder")["pad_token_id"])


def ldm_tensors(folder: Path, form: str) -> dict[str, Tensor]:
    """The folder's weights under the names and in the shapes of a downloaded file."""
    unet, vae = (
        load_file(folder / "unet/diffusion_pytorch_model.safetensors"),
        load_file(folder / "vae/diffusion_pytorch_model.safetensors"),
    )
    tensors = inverse(unet, unet_origins(config_of(folder / "unet"), unet, UNET))
    for name, value in inverse(vae, vae_origins(config_of(folder / "vae"), vae, VAE)).items():
        convolved = ".attn_1." in name and value.ndim == 2
        tensors[name] = value[:, :, None, None] if convolved else value
    for (naming, prefix), own in zip(FORMS[form], text_folders(folder), strict=True):
        weights = load_file(own / "model.safetensors")
        tensors |= inverse(weights, text_origins(naming, weights, prefix))
    return tensors


def text_origins(naming: str, names: Iterable[str], prefix: str) -> dict[str, Origin]:
    return clip_origins(names, prefix) if naming == "clip" else open_clip_origins(names, prefix)


def inverse(weights: Mapping[str, Tensor], origins: Mapping[str, Origin]) -> dict[str, Tensor]:
    """Every weight put where its origin says it stands."""
    found: dict[str, Tensor] = {}
    joint: dict[str, dict[int, Tensor]] = {}
    for name, origin in origins.items():
        if origin.third is None:
            found[origin.key] = weights[name].T if origin.transposed else weights[name]
        else:
            joint.setdefault(origin.key, {})[origin.third] = weights[name]
    return found | {key: torch.cat([parts[i] for i in range(3)]) for key, parts in joint.items()}


def write_single_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, path, metadata=dict(metadata or {}) or None
    )
    return path
