"""Stable Diffusion folders: what the contract promises, and the libraries' own pipeline as the judge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from tenuto.families.base import CHUNK, Base
from tenuto.families.checkpoints import open_base
from tenuto.words import Size, TenutoError
from tests.tiny import tiny_sd_folder

SQUARE = Size(16, 16)
LONG = "abcdefghi " * 20  # every letter is a token: 180 tokens


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pipeline(tiny_folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None, feature_extractor=None)


def test_prediction_is_the_unets(tiny_base: Base, pipeline: StableDiffusionPipeline) -> None:
    tokens = pipeline.tokenizer("a dog", padding="max_length", max_length=77, return_tensors="pt").input_ids
    x_t, t = noise(1, 4, 8, 8), torch.tensor([321])
    with torch.no_grad():
        theirs = pipeline.unet(x_t, t, pipeline.text_encoder(tokens).last_hidden_state).sample
        ours = tiny_base.predict(x_t, t, tiny_base.encode_text(["a dog"], [SQUARE]))
    assert torch.equal(ours, theirs)


@torch.no_grad()
def test_long_prompts_take_several_passes(tiny_base: Base) -> None:
    assert [tiny_base.chunks(text) for text in ("", "a" * CHUNK, "a" * (CHUNK + 1), LONG)] == [1, 1, 2, 3]
    long = tiny_base.encode_text([LONG], [SQUARE])
    assert long.text.shape == (1, 3 * 77, 16)
    letters = LONG.replace(" ", "")
    first = tiny_base.encode_text(["abcdefghi " * 8 + "abc"], [SQUARE]).text  # 75 tokens: the same first pass
    torch.testing.assert_close(long.text[:, :75], first[:, :75], atol=1e-5, rtol=1e-5)
    assert len(letters) == 180
    padded = tiny_base.encode_text(["a dog", LONG], [SQUARE] * 2)
    torch.testing.assert_close(padded.text[:1], tiny_base.encode_text(["a dog"], [SQUARE], 3).text)
    with pytest.raises(ValueError, match="3 passes"):
        tiny_base.encode_text([LONG], [SQUARE], 1)


@torch.no_grad()
def test_pictures_there_and_back(tiny_base: Base, pipeline: StableDiffusionPipeline) -> None:
    pixels = noise(2, 3, 16, 24).clamp(-1, 1)
    latents = tiny_base.encode_image(pixels)
    assert latents.shape == (2, *tiny_base.geometry.latent(Size(24, 16)))
    mode = pipeline.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(latents, mode * pipeline.vae.config.scaling_factor)
    assert torch.equal(latents, tiny_base.encode_image(pixels))
    decoded = tiny_base.decode(latents)
    torch.testing.assert_close(decoded, pipeline.vae.decode(mode).sample.clamp(-1, 1), atol=1e-5, rtol=1e-5)
    assert decoded.shape == pixels.shape


def test_parts_are_whole(tiny_base: Base) -> None:
    # 3 transformer blocks (one down, two up) with two attentions of four layers each, and the middle's
    assert len(tiny_base.adapter_targets("attention")["lora_unet"]) == 8 * 4
    assert len(tiny_base.adapter_targets("feed_forward")["lora_unet"]) == 4 * 4
    assert len(tiny_base.adapter_targets("text_encoder")["lora_te"]) == 2 * 6


def test_geometry_comes_from_the_configs(tmp_path: Path, tiny_base: Base) -> None:
    geometry = tiny_base.geometry
    assert (geometry.channels, geometry.factor, geometry.multiple, geometry.native) == (4, 2, 4, Size(16, 16))
    wide = open_base(str(tiny_sd_folder(tmp_path / "wide", channels=8, vae_levels=4)), device="cpu").geometry
    assert (wide.channels, wide.factor, wide.multiple, wide.native) == (8, 8, 16, Size(64, 64))


def test_clip_skip(tiny_folder: Path, tiny_base: Base) -> None:
    skipped = open_base(str(tiny_folder), device="cpu", clip_skip=2)
    assert skipped.hash != tiny_base.hash
    assert not torch.equal(skipped.encode_text(["a"], [SQUARE]).text, tiny_base.encode_text(["a"], [SQUARE]).text)
    ids = skipped.words[0].tokenizer("a", padding="max_length", max_length=77, return_tensors="pt").input_ids  # type: ignore[attr-defined]
    states = skipped.text_encoders["lora_te"](ids, output_hidden_states=True).hidden_states
    normed = skipped.text_encoders["lora_te"].final_layer_norm(states[-2])  # type: ignore[operator]
    torch.testing.assert_close(skipped.encode_text(["a"], [SQUARE]).text, normed)
    with pytest.raises(TenutoError, match="clip_skip 9"):
        open_base(str(tiny_folder), device="cpu", clip_skip=9)
