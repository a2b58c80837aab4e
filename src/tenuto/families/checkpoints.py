"""From what the user calls the base to a loaded checkpoint. Safetensors only (law 7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from tenuto.families.base import Base
from tenuto.families.sd.family import open_stable_diffusion
from tenuto.files import cache_home, hash_file, hash_text, write_json
from tenuto.words import TenutoError

NAMES = {"pocket": ("tenuto", "pocket", "checkpoint")}
"""Checkpoints that ship inside a package: name -> (package, folders...)."""

FAMILIES: dict[str, Callable[..., Base]] = {
    "StableDiffusionPipeline": open_stable_diffusion,
    "StableDiffusionImg2ImgPipeline": open_stable_diffusion,
}
"""`_class_name` in model_index.json -> what opens such a folder."""

PICKLES = {".ckpt", ".pt", ".pth", ".bin"}
PARTS = ("unet", "text_encoder", "vae")
STEMS = ("diffusion_pytorch_model", "model")
"""What weight files are called in a diffusers folder, without ending."""
PASSING = {"transformers_version", "torch_dtype", "dtype", "architectures"}
"""Keys of a config that no prediction depends on; those that begin with "_" are the others."""
PROCESS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type",
)  # fmt: skip
"""Keys of the scheduler's config that belong to the checkpoint; the rest is the sampler's business."""


def find_base(model: str) -> Path | str:
    """A folder for names and paths, the id itself for hub ids. Raises TenutoError for what cannot be a base."""
    if model in NAMES:
        package, *folders = NAMES[model]
        place = Path(str(resources.files(package).joinpath(*folders)))
        if not place.is_dir():
            raise TenutoError(f"{model}: its weights are not in this installation ({place}); install tenuto again")
        return place
    path = Path(model).expanduser()
    if path.suffix.lower() in PICKLES:
        raise TenutoError(
            f"{model}: pickle files are not read (they can run code); "
            f"`tenuto convert {model}` makes a .safetensors of it"
        )
    if path.is_file():
        raise TenutoError(f"{model}: single-file checkpoints are not read yet; give a diffusers folder")
    if path.is_dir():
        return path
    looks_like_hub = model.count("/") == 1 and not model.startswith((".", "/", "~")) and "\\" not in model
    if not looks_like_hub or model.endswith("/"):
        raise TenutoError(
            f"{model}: no such checkpoint; give a diffusers folder, a hub id (owner/name) or one of {', '.join(NAMES)}"
        )
    return model


def open_base(
    model: str,
    *,
    device: str = "auto",
    dtype: torch.dtype = torch.float32,
    vae: str | None = None,
    clip_skip: int = 1,
) -> Base:
    """Load a base, frozen, from safetensors only. Raises TenutoError when it is missing, damaged or of no known family.

    vae: a folder with another autoencoder; clip_skip: 2 reads the text encoder one layer before its last (NAI and kin).
    """
    source = find_base(model)
    folder = source if isinstance(source, Path) else _download(source)
    index = _json(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in FAMILIES:
        raise TenutoError(f"{folder}: a {kind}; supported are Stable Diffusion 1.x and 2.x ({', '.join(FAMILIES)})")
    for part in (*PARTS, "tokenizer"):
        if not (folder / part).is_dir():
            raise TenutoError(f"{folder}: the folder {part}/ is missing; download the checkpoint again")
    places = {part: folder / part for part in PARTS} | ({"vae": Path(vae).expanduser()} if vae else {})
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    weights = {part: weight_files(place) for part, place in places.items()}
    quiet: Any = transformers_logging.disable_progress_bar
    quiet()
    try:
        return FAMILIES[kind](
            folder / "tokenizer",
            places,
            scheduler,
            name=model,
            content=_content_hash(places, weights, scheduler, clip_skip),
            variants={part: _variant(files) for part, files in weights.items()},
            device=torch.device(pick_device(device)),
            dtype=dtype,
            clip_skip=clip_skip,
        )
    except TenutoError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TenutoError(f"{folder}: cannot be loaded ({why}); download the checkpoint again") from error


def pick_device(device: str) -> str:
    """A torch device's name; "auto" is the best that this machine has."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


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


def _variant(files: Iterable[Path]) -> str | None:
    return "fp16" if any(".fp16" in path.name for path in files) else None


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = ["model_index.json", "tokenizer/*.txt"]
    wanted += [f"{part}/*.json" for part in (*PARTS, "tokenizer", "scheduler")]
    wanted += [f"{part}/{stem}{end}" for part in PARTS for stem in STEMS for end in (".safetensors", "-0*.safetensors")]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted))
    except (HfHubHTTPError, OSError, ValueError) as error:  # LocalEntryNotFoundError is an OSError
        raise TenutoError(
            f"{model}: no such folder here, and it cannot be fetched from the hub ({type(error).__name__}); "
            "check the name or give a local folder"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: missing; give the folder of a whole diffusers checkpoint") from error
    except (OSError, ValueError) as error:
        raise TenutoError(f"{path}: not readable as JSON ({error}); download the checkpoint again") from error
    if not isinstance(table, dict):
        raise TenutoError(f"{path}: not a config; download the checkpoint again")
    return table


def _content_hash(
    places: dict[str, Path], weights: dict[str, list[Path]], scheduler: dict[str, Any], clip_skip: int
) -> str:
    """Of all that decides predictions: weights, architecture, noise process. A copy in another place has the same."""
    parts = [json.dumps({key: scheduler.get(key) for key in PROCESS}, sort_keys=True)]
    for part, place in sorted(places.items()):
        config = _json(place / "config.json")
        lasting = {key: value for key, value in config.items() if key not in PASSING and not key.startswith("_")}
        parts += [part, json.dumps(lasting, sort_keys=True), *(_hash_once(path) for path in weights[part])]
    if clip_skip != 1:
        parts.append(f"clip_skip {clip_skip}")
    return hash_text(*parts)


def _hash_once(path: Path) -> str:
    """A file's hash, remembered by path, size and time of change: a large checkpoint is read through only once."""
    stat = path.stat()
    memo = cache_home() / "hashes" / f"{hash_text(str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns))}.json"
    try:
        return str(json.loads(memo.read_text(encoding="utf-8"))["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        content = hash_file(path)
    with suppress(TenutoError):  # nowhere to remember it: it is read through again next time
        write_json(memo, {"hash": content, "file": str(path)})
    return content
