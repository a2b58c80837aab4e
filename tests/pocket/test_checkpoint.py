"""The checkpoint that ships: complete, small, loadable, and its tagger reads the world."""

from __future__ import annotations

import tomllib
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import tenuto.pocket
from tenuto.pocket.world import GROUPS, QUALITY, render, sample_scene, shown

FOLDER = Path(tenuto.pocket.__file__).parent / "checkpoint"
SCENES = [sample_scene(Random(f"held out {seed}"), quality="best quality") for seed in range(64)]
READING_FLOOR = 0.8
RECALL_FLOOR = 0.65
DRAWN = 32


def test_every_part_is_there_and_all_together_are_small() -> None:
    parts = (
        "model_index.json",
        "tokenizer/vocab.json",
        "text_encoder/config.json",
        "unet/config.json",
        "vae/config.json",
    )
    assert all((FOLDER / part).is_file() for part in parts)
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 50e6


def test_the_bank_is_the_worlds_table() -> None:
    bank = tomllib.loads((FOLDER / "bank.toml").read_text(encoding="utf-8"))
    assert {group: tuple(tags) for group, tags in bank["groups"].items()} == GROUPS
    assert set(QUALITY) >= {word for words in bank.get("quality", {}).values() for word in words}


def test_it_loads_as_a_stable_diffusion_pipeline_and_draws() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    picture = pipeline("1girl, beach", num_inference_steps=2, width=64, height=64, generator=generator).images[0]
    assert picture.size == (64, 64)
    assert 0.1 < pipeline.vae.config.scaling_factor < 3


def test_the_autoencoder_keeps_pictures() -> None:
    from diffusers import AutoencoderKL

    coder = AutoencoderKL.from_pretrained(FOLDER / "vae", torch_dtype=torch.float32).eval()
    pixels = _pixels(16)
    with torch.no_grad():
        latents = coder.encode(pixels).latent_dist.mean
        error = (coder.decode(latents).sample - pixels).square().mean().item() / 4
    assert -10 * np.log10(error) > 22
    assert (latents.std() * coder.config.scaling_factor).item() == pytest.approx(1.0, abs=0.15)


def test_the_tagger_reads_the_world() -> None:
    from tenuto.evaluation.taggers import load_tagger

    assert dict(load_tagger(FOLDER / "tagger").groups) == GROUPS
    assert _seen(_pixels(64))["overall"] > READING_FLOOR


def test_pictures_follow_their_tags() -> None:
    """Measured on 160 pictures in docs/pocket.md; here a few, so the floors leave room for chance."""
    drawn = _draw([", ".join(["best quality", *shown(scene).values()]) for scene in SCENES[:DRAWN]])
    found, real = _seen(drawn), _seen(_pixels(DRAWN))
    assert found["overall"] / real["overall"] > RECALL_FLOOR
    assert found["place"] / real["place"] > 0.8
    assert found["style"] / real["style"] > 0.8


def _draw(prompts: list[str]) -> torch.Tensor:
    """[N, 3, 64, 64] in -1..1; each picture has its own seed."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    how = {"num_inference_steps": 15, "guidance_scale": 4.0, "width": 64, "height": 64, "output_type": "pt"}
    pictures: torch.Tensor = pipeline(prompts, generator=seeds, **how).images
    return pictures * 2 - 1


def _seen(pixels: torch.Tensor) -> dict[str, float]:
    """Share of the tags of SCENES that the tagger sees, by group and overall."""
    from tenuto.evaluation.taggers import load_tagger

    read = load_tagger(FOLDER / "tagger").read(pixels)
    right = {
        group: [
            tags[int(read[group][row].argmax())] == shown(scene)[group]
            for row, scene in enumerate(SCENES[: len(pixels)])
            if group in shown(scene)
        ]
        for group, tags in GROUPS.items()
    }
    right["overall"] = [one for rights in right.values() for one in rights]
    return {group: sum(rights) / len(rights) for group, rights in right.items()}


def _pixels(count: int) -> torch.Tensor:
    """[count, 3, 64, 64] in -1..1"""
    pictures = np.stack([np.asarray(render(scene), dtype=np.float32) for scene in SCENES[:count]])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
