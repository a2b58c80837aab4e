"""Reading a checkpoint from a folder in diffusers layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import logging as transformers_logging

from tenuto.families.autoencoder import Content, load_autoencoder
from tenuto.families.hashing import content_hash
from tenuto.families.loaded import Loaded, Request
from tenuto.families.parts import load_part, read_json, weight_files
from tenuto.families.prediction import decided, noising_of_folder
from tenuto.families.resting import Component
from tenuto.families.text import load_words
from tenuto.words import TenutoError

TEXTS: dict[str, tuple[tuple[str, str, Any], ...]] = {
    "StableDiffusionPipeline": (("text_encoder", "tokenizer", CLIPTextModel),),
    "StableDiffusionXLPipeline": (
        ("text_encoder", "tokenizer", CLIPTextModel),
        ("text_encoder_2", "tokenizer_2", CLIPTextModelWithProjection),
    ),
}
"""Pipeline -> folders of its text encoders and their tokenizers, and the encoders' classes."""

TITLES = {"StableDiffusionPipeline": "Stable Diffusion", "StableDiffusionXLPipeline": "Stable Diffusion XL"}
"""How notes call them."""

ALIASES = {
    "StableDiffusionImg2ImgPipeline": "StableDiffusionPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLPipeline",
}
"""Pipelines that are made of the same parts."""


def read_folder(folder: Path, request: Request) -> Loaded:
    """Load what model_index.json names. Raises TenutoError, and what the libraries raise on damaged files."""
    index = read_json(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    pipeline = ALIASES.get(kind, kind)
    if pipeline not in TEXTS:
        raise TenutoError(f"{folder}: a {kind}; supported are Stable Diffusion 1.x, 2.x and XL ({', '.join(TEXTS)})")
    texts = TEXTS[pipeline]
    if index.get(texts[0][0]) == [None, None]:
        raise TenutoError(
            f"{folder}: has only one of two text encoders: the SDXL refiner; train on the base checkpoint"
        )
    for part in ("unet", "vae", *(name for encoder, tokenizer, _ in texts for name in (encoder, tokenizer))):
        if not (folder / part).is_dir():
            raise TenutoError(f"{folder}: the folder {part}/ is missing; download the checkpoint again")
    told = read_json(folder / "scheduler" / "scheduler_config.json")
    noising = decided(request.name, noising_of_folder(told), request.noising)
    scheduler = noising.onto(told)
    content: dict[str, Content] = {
        name: (read_json(folder / name / "config.json"), weight_files(folder / name))
        for name in ("unet", *(encoder for encoder, _, _ in texts))
    }
    quiet: Any = transformers_logging.disable_progress_bar
    quiet()
    vae, content["vae"] = load_autoencoder(request.vae or folder / "vae", folder / "vae" / "config.json")
    return Loaded(
        request=request,
        pipeline=pipeline,
        title=TITLES[pipeline],
        content=content_hash(scheduler, content),
        words=tuple(load_words(folder / tokenizer) for _, tokenizer, _ in texts),
        text_encoders=tuple(
            Component.read(partial(load_part, own, folder / name, dtype=request.dtype), content[name][1])
            for name, _, own in texts
        ),
        unet=load_part(UNet2DConditionModel, folder / "unet", torch_dtype=request.dtype),
        vae=vae,
        scheduler=scheduler,
        noising=noising,
    )
