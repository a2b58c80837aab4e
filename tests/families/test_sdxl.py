"""SDXL: the libraries' own pipeline as the judge of text, sizes and sampling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline

from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.sampling import SamplerSettings, sample
from tenuto.randomness import noise
from tenuto.words import Size, TenutoError

SIZE = Size(24, 16)


@pytest.fixture
def pipeline(tiny_xl_folder: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_xl_folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def test_text_is_the_pipelines(tiny_xl_base: Base, pipeline: StableDiffusionXLPipeline) -> None:
    text, _, pooled, _ = pipeline.encode_prompt("a dog", device="cpu", do_classifier_free_guidance=False)
    ours = tiny_xl_base.encode_text(["a dog"], [SIZE])
    assert torch.equal(ours.text, text)
    extra = dict(ours.extra)
    assert torch.equal(extra["pooled"], pooled)
    ids = pipeline._get_add_time_ids((16, 24), (0, 0), (16, 24), torch.float32, 12)
    assert torch.equal(extra["sizes"], ids)


@torch.no_grad()
def test_pooled_text_is_of_the_first_pass(tiny_xl_base: Base) -> None:
    one, two = (tiny_xl_base.encode_text([text], [SIZE]) for text in ("a " * 75, "a " * 75 + "b " * 60))
    torch.testing.assert_close(dict(one.extra)["pooled"], dict(two.extra)["pooled"])
    assert two.text.shape[1] == 154


def test_each_row_has_its_own_size(tiny_xl_base: Base) -> None:
    sizes = dict(tiny_xl_base.encode_text(["a", "a"], [SIZE, Size(8, 32)]).extra)["sizes"]
    assert sizes.tolist() == [[16, 24, 0, 0, 16, 24], [32, 8, 0, 0, 32, 8]]
    x_t, t = noise((1, 4, 8, 8), 0, "x"), torch.tensor([500])
    a, b = (tiny_xl_base.predict(x_t, t, tiny_xl_base.encode_text(["a"], [size])) for size in (SIZE, Size(8, 32)))
    assert not torch.equal(a, b)


def test_sampling_is_what_the_pipeline_does(tiny_xl_base: Base, pipeline: StableDiffusionXLPipeline) -> None:
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    start = noise(tiny_xl_base.geometry.latent(SIZE), 7, "sample")[None]
    theirs = pipeline(
        "a dog", negative_prompt="bad", height=16, width=24, num_inference_steps=6, guidance_scale=4.0, latents=start,
        output_type="latent",
    ).images  # fmt: skip
    cond, uncond = (tiny_xl_base.encode_text([text], [SIZE]) for text in ("a dog", "bad"))
    ours = sample(tiny_xl_base, cond, uncond, SIZE, [7], SamplerSettings(steps=6, guidance=4.0))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_clip_skip_counts_from_the_usual_layer(tiny_xl_folder: Path, tiny_xl_base: Base, tmp_path: Path) -> None:
    two = open_base(str(tiny_xl_folder), device="cpu", clip_skip=2)
    assert two.hash == tiny_xl_base.hash  # SDXL reads the layer before the last anyway
    assert torch.equal(two.encode_text(["a"], [SIZE]).text, tiny_xl_base.encode_text(["a"], [SIZE]).text)
    with pytest.raises(TenutoError, match="clip_skip 3 is out of range"):
        open_base(str(tiny_xl_folder), device="cpu", clip_skip=3)  # its first encoder has two layers


def test_half_precision_leaves_sizes_and_autoencoder_alone(tiny_xl_folder: Path) -> None:
    base = open_base(str(tiny_xl_folder), device="cpu", dtype=torch.bfloat16)
    seen: list[torch.Tensor] = []
    base.denoiser.add_time_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[union-attr,operator]
    cond = base.encode_text(["a"], [Size(1216, 832)])
    base.predict(noise((1, 4, 8, 8), 0, "x"), torch.tensor([5]), cond)
    assert seen[0].dtype == torch.float32
    assert seen[0].tolist() == [832, 1216, 0, 0, 832, 1216]
    assert base.vae.dtype == torch.float32  # type: ignore[attr-defined]
    assert base.encode_image(torch.zeros(1, 3, 16, 16)).dtype == torch.float32
