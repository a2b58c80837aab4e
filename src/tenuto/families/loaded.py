"""A checkpoint that was read: what every reader hands over, whatever kind of file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tenuto.families.prediction import Noising, Wish
from tenuto.families.resting import Component
from tenuto.families.text import Words


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    name: str
    """What the user called the checkpoint."""
    device: torch.device
    dtype: torch.dtype
    vae: Path | None = None
    """Another autoencoder: a diffusers folder or a .safetensors file."""
    clip_skip: int = 1
    fp8: bool = False
    """Whether the U-Net's blocks shall lie in 8 bits."""
    noising: Wish


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint's parts, read and checked; not yet frozen, not yet on the device."""

    request: Request
    pipeline: str
    """diffusers' name of the pipeline that these parts make: it decides the family."""
    title: str
    """What it is, in words: "Stable Diffusion 1.x"."""
    content: str
    """Hash of all that decides predictions."""
    words: tuple[Words, ...]
    text_encoders: tuple[Component, ...]
    unet: Any
    vae: Component
    scheduler: dict[str, Any]
    noising: Noising
    remarks: tuple[str, ...] = ()
    """What else the user should know: keys that were not read."""
