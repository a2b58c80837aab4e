"""From what the user calls the base to a loaded checkpoint."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from tenuto.families.base import Base
from tenuto.families.sd.family import StableDiffusion, prediction_type
from tenuto.files import cache_home, hash_file, hash_text, write_json
from tenuto.words import TenutoError

NAMES = {"pocket": ("tenuto", "pocket", "checkpoint")}
"""Checkpoints that ship inside a package: name -> (package, folders...)."""
PICKLES = {".ckpt", ".pt", ".pth", ".bin"}
WEIGHED = ("unet", "text_encoder", "vae")


def find_base(model: str) -> Path | str:
    """A folder for names and paths, the id itself for hub ids. Raises TenutoError for what cannot be a base."""
    if model in NAMES:
        package, *folders = NAMES[model]
        return Path(str(resources.files(package).joinpath(*folders)))
    path = Path(model).expanduser()
    if path.suffix.lower() in PICKLES:
        raise TenutoError(
            f"{model}: pickle files are not read (they can run code); use the checkpoint's .safetensors version"
        )
    if path.is_file():
        raise TenutoError(f"{model}: single-file checkpoints are not read yet; give a diffusers folder")
    if path.is_dir():
        return path
    looks_like_hub = model.count("/") == 1 and not model.startswith((".", "/", "~")) and "\\" not in model
    if not looks_like_hub:
        raise TenutoError(
            f"{model}: no such checkpoint; give a diffusers folder, a hub id (owner/name) or one of {', '.join(NAMES)}"
        )
    return model


def open_base(model: str, *, device: str = "auto", dtype: torch.dtype = torch.float32) -> Base:
    """Load a base, frozen, from safetensors only. Raises TenutoError when it is missing, damaged or of another family."""
    source = find_base(model)
    folder = source if isinstance(source, Path) else _download(source)
    index = _json(folder / "model_index.json")
    kind = str(index.get("_class_name", ""))
    if "StableDiffusion" not in kind or "XL" in kind or "text_encoder_2" in index:
        raise TenutoError(
            f"{folder}: a {kind or 'checkpoint of unknown kind'}; supported are Stable Diffusion 1.x and 2.x folders"
        )
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    for part in (*WEIGHED, "tokenizer"):
        if not (folder / part).is_dir():
            raise TenutoError(f"{folder}: the folder {part}/ is missing; download the checkpoint again")
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "torch_dtype": dtype}
    try:
        disable_progress_bar()
        return StableDiffusion(
            name=model,
            content=_content_hash(folder, prediction_type(scheduler)),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            text_encoder=CLIPTextModel.from_pretrained(
                folder / "text_encoder", use_safetensors=True, local_files_only=True, dtype=dtype
            ),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False, **options),
            vae=AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False, **options),
            scheduler=scheduler,
            device=torch.device(pick_device(device)),
            dtype=dtype,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TenutoError(f"{folder}: cannot be loaded ({why}); download the checkpoint again") from error


def pick_device(device: str) -> str:
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["model_index.json", *(f"{part}/*.json" for part in (*WEIGHED, "tokenizer", "scheduler"))]
    wanted += [f"{part}/*model.safetensors" for part in WEIGHED] + ["tokenizer/*.txt"]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise TenutoError(
            f"{model}: cannot be fetched from the hub ({type(error).__name__}); give a local folder"
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


def _content_hash(folder: Path, prediction: str) -> str:
    """Of every weight file and config that decides predictions. Remembered by path, size and time of change."""
    files = sorted(p for part in WEIGHED for p in (folder / part).iterdir() if p.suffix in {".safetensors", ".json"})
    stamps = [f"{p.resolve()}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files]
    memo = cache_home() / "hashes" / f"{hash_text(prediction, *stamps)}.json"
    try:
        return str(json.loads(memo.read_text(encoding="utf-8"))["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    names = [f"{p.parent.name}/{p.name}" for p in files]
    content = hash_text(prediction, *(part for pair in zip(names, map(hash_file, files), strict=True) for part in pair))
    write_json(memo, {"hash": content, "folder": str(folder)})
    return content
