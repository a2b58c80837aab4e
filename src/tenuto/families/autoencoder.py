"""The autoencoder: the checkpoint's own or another one, from a folder or a file. It stays in float32 at any precision:
it is small, half precision shows, and SDXL's gives NaN in float16."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from tenuto.families.header import Header, read_header
from tenuto.families.keys import vae_origins
from tenuto.families.parts import load_part, read_json, weight_files
from tenuto.families.resting import Component
from tenuto.families.weights import empty, filled
from tenuto.words import TenutoError

PREFIX = "first_stage_model."

Content = tuple[Mapping[str, Any], list[Path]]
"""What counts for the content hash: config and weight files."""


def load_autoencoder(place: Path, config: Path | Mapping[str, Any]) -> tuple[Component, Content]:
    """From a diffusers folder, or a single .safetensors (in either naming) which has the given config."""
    if place.is_file():
        own = config if isinstance(config, Mapping) else read_json(config)
        header = read_header(place)
        prefix = PREFIX if any(key.startswith(PREFIX) for key in header.shapes) else ""
        if f"{prefix}encoder.conv_in.weight" not in header.shapes:
            raise TenutoError(f"{place}: holds no autoencoder; give a VAE as .safetensors or diffusers folder")
        return autoencoder_of(header, own, prefix)[0], (own, [place])
    files = weight_files(place)
    read = partial(load_part, AutoencoderKL, place, torch_dtype=torch.float32)
    return Component.read(read, files), (read_json(place / "config.json"), files)


def autoencoder_of(header: Header, config: Mapping[str, Any], prefix: str = PREFIX) -> tuple[Component, set[str]]:
    """The autoencoder that stands in a file under this prefix, and the keys it was read from."""
    vae = empty(AutoencoderKL, config)
    plain = any(key.startswith(f"{prefix}encoder.down_blocks.") for key in header.shapes)
    origins = vae_origins(config, vae.state_dict(), prefix, plain=plain)
    keys = {origin.key for origin in origins.values()}
    return filled(lambda: empty(AutoencoderKL, config), header, origins, torch.float32, "autoencoder"), keys
