"""From what the user calls the base to a loaded checkpoint. Safetensors only (law 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tenuto.families.base import Base
from tenuto.families.folder import read_folder
from tenuto.families.loaded import Loaded, Request
from tenuto.families.narrow import has_float8
from tenuto.families.parts import PICKLES, STEMS
from tenuto.families.prediction import Told, Wish
from tenuto.families.proof import prove
from tenuto.families.sd.family import StableDiffusion
from tenuto.families.sdxl.family import StableDiffusionXL
from tenuto.families.shipped import BASES, shipped_folder
from tenuto.families.single_file import read_single_file
from tenuto.files import first_line
from tenuto.words import TenutoError

FAMILIES: dict[str, Callable[[Loaded], Base]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
}
"""diffusers' name of the pipeline that a checkpoint's parts make -> the family."""

PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")
TOKENIZERS = ("tokenizer", "tokenizer_2")


def find_base(model: str) -> Path | str:
    """A folder or file for names and paths, the id itself for hub ids. Raises TenutoError for what cannot be a base."""
    if model in BASES:
        return shipped_folder(model)
    path = Path(model).expanduser()
    if path.suffix.lower() in PICKLES:
        raise TenutoError(
            f"{model}: pickle files are not read (they can run code); "
            f"`tenuto convert {model}` makes a .safetensors of it"
        )
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix.lower() != ".safetensors":
            raise TenutoError(f"{model}: not a checkpoint; give a .safetensors file or a folder in diffusers layout")
        return path
    looks_like_hub = model.count("/") == 1 and not model.startswith((".", "/", "~")) and "\\" not in model
    if not looks_like_hub or model.endswith("/") or path.suffix.lower() == ".safetensors":
        raise TenutoError(
            f"{model}: no such checkpoint; give a .safetensors file, a diffusers folder, a hub id (owner/name) or "
            f"{' or '.join(BASES)} (looked for {path.absolute()})"
        )
    return model


def open_base(
    model: str,
    *,
    device: str = "auto",
    dtype: torch.dtype = torch.float32,
    vae: str | None = None,
    clip_skip: int = 1,
    fp8: bool = False,
    prediction: Told = "auto",
    zero_terminal_snr: bool | None = None,
) -> Base:
    """Load a base, frozen, from safetensors only. Raises TenutoError when it is missing, damaged or of no known family.

    vae: another autoencoder, a folder or a .safetensors file; clip_skip: 2 reads the text encoder one layer before its
    last (NAI and kin; SDXL does so anyway); fp8: the U-Net's blocks lie in 8 bits. prediction, zero_terminal_snr: what
    the network answers, where the file does not say so or says it wrongly; what was found stands in the base's `notes`.
    """
    source = find_base(model)
    place = source if isinstance(source, Path) else fetch_base(source)
    request = Request(
        name=model,
        device=torch.device(pick_device(device)),
        dtype=dtype,
        vae=Path(vae).expanduser() if vae else None,
        clip_skip=clip_skip,
        fp8=fp8,
        noising=Wish(prediction, zero_terminal_snr),
    )
    if fp8 and not has_float8(request.device):
        raise TenutoError(f"base.fp8: torch has no such numbers on {request.device}; leave it out")
    try:
        loaded = read_single_file(place, request) if place.is_file() else read_folder(place, request)
        base = FAMILIES[loaded.pipeline](loaded)
        prove(base, place)
    except (TenutoError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries raise anything on damaged configs, tokenizers and weights
        raise TenutoError(f"{place}: cannot be loaded ({first_line(error)}); download the checkpoint again") from error
    return base


def pick_device(device: str) -> str:
    """A torch device's name; "auto" is the best that this machine has. Raises TenutoError for one that it lacks."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TenutoError(f"base.device: this machine has no {device!r} for torch; use auto or cpu") from error
    return device


def fetch_base(model: str) -> Path:
    """The folder of a hub id's checkpoint, fetched unless it is here already. Raises TenutoError."""
    wanted = ["model_index.json", *(f"{part}/*.txt" for part in TOKENIZERS)]
    wanted += [f"{part}/*.json" for part in (*PARTS, *TOKENIZERS, "scheduler")]
    wanted += [f"{part}/{stem}{end}" for part in PARTS for stem in STEMS for end in (".safetensors", "-0*.safetensors")]
    return hub_folder(model, wanted)


def hub_folder(name: str, wanted: Sequence[str]) -> Path:
    """The files of a hub id that match these patterns, fetched unless they are here already. Raises TenutoError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=list(wanted)))
    except (HfHubHTTPError, OSError, ValueError) as error:  # LocalEntryNotFoundError is an OSError
        raise TenutoError(
            f"{name}: no such folder here, and the hub does not give it out (offline, or no such model there); "
            "check the name or give a local folder"
        ) from error
