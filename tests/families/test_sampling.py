"""Sampling: every sampler, alone or in a batch, stopped or not, with an adapter or without."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base, Conditioning
from tenuto.families.sampling import SAMPLERS, Sampler, SamplerSettings, SamplingStopped, sample
from tenuto.randomness import noise
from tenuto.words import Size

SIZE = Size(16, 24)
SEEDS = (7, 8, 2**55 + 1)


class Counted:
    """A base that counts the rows and calls it is asked for."""

    def __init__(self, base: Base) -> None:
        self.base, self.calls, self.rows = base, 0, 0
        self.times: list[float] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.base, name)

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + len(x_t)
        self.times.append(float(t[0]))
        return self.base.predict(x_t, t, cond)


def draw(base: Base, settings: SamplerSettings, prompts: tuple[str, ...], seeds: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        cond = base.encode_text(prompts, [SIZE] * len(prompts))
        uncond = base.encode_text([""] * len(prompts), [SIZE] * len(prompts))
    return sample(base, cond, uncond, SIZE, seeds, settings)


@pytest.mark.parametrize("base", ["tiny_base", "tiny_v_base", "tiny_xl_snr_base"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_row_alone_is_the_row_in_a_batch(sampler: Sampler, base: str, request: pytest.FixtureRequest) -> None:
    opened = request.getfixturevalue(base)
    settings = SamplerSettings(sampler=sampler, steps=4, guidance=3)
    prompts = ("a", "b b", "")
    together = draw(opened, settings, prompts, SEEDS)
    assert together.shape == (3, *opened.geometry.latent(SIZE))
    assert together.dtype == torch.float32
    assert torch.isfinite(together).all()
    alone = draw(opened, settings, prompts[1:2], SEEDS[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-3, rtol=1e-3)
    assert torch.equal(together, draw(opened, settings, prompts, SEEDS))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps(tiny_base: Base, sampler: Sampler, steps: int) -> None:
    assert torch.isfinite(draw(tiny_base, SamplerSettings(sampler=sampler, steps=steps), ("a",), (1,))).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_starts_where_there_is_noise_only(tiny_base: Base, sampler: Sampler) -> None:
    counted = Counted(tiny_base)
    draw(counted, SamplerSettings(sampler=sampler, steps=5), ("a",), (1,))  # type: ignore[arg-type]
    assert counted.times[0] == 999
    assert counted.times == sorted(counted.times, reverse=True)


@pytest.mark.parametrize(("guidance", "rows", "forwards"), [(5.0, 6, 10), (1.0, 3, 5), (0.0, 6, 10)])
def test_guidance_is_one_forward_of_both(tiny_base: Base, guidance: float, rows: int, forwards: int) -> None:
    counted, settings = Counted(tiny_base), SamplerSettings(steps=5, guidance=guidance)
    draw(counted, settings, ("a", "b", "c"), SEEDS)  # type: ignore[arg-type]
    assert (counted.calls, counted.rows) == (5, 5 * rows)
    assert settings.forwards() == forwards == counted.rows // 3


def test_is_what_the_pipeline_does(tiny_base: Base, tiny_folder: object) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None, feature_extractor=None)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    pipeline.set_progress_bar_config(disable=True)
    start = noise(tiny_base.geometry.latent(SIZE), 7, "sample")[None]
    theirs = pipeline(
        "a dog", height=SIZE.height, width=SIZE.width, num_inference_steps=6, guidance_scale=4.0, latents=start,
        output_type="latent",
    ).images  # fmt: skip
    ours = draw(tiny_base, SamplerSettings(steps=6, guidance=4.0), ("a dog",), (7,))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_stops_between_steps(tiny_base: Base) -> None:
    done: list[int] = []
    cond = tiny_base.encode_text(["a"], [SIZE])
    with pytest.raises(SamplingStopped):
        sample(
            tiny_base, cond, None, SIZE, [1], SamplerSettings(steps=9, guidance=1),
            on_step=lambda step, total: done.append(step), stop=lambda: len(done) == 3,
        )  # fmt: skip
    assert done == [1, 2, 3]


def test_guidance_needs_the_other_prompt(tiny_base: Base) -> None:
    with pytest.raises(ValueError, match="negative"):
        sample(tiny_base, tiny_base.encode_text(["a"], [SIZE]), None, SIZE, [1], SamplerSettings(steps=1))


def test_an_adapter_is_heard_and_can_be_switched_off(tiny_base: Base) -> None:
    settings = SamplerSettings(steps=3)
    plain = draw(tiny_base, settings, ("a",), (1,))
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=2))
    assert torch.equal(draw(tiny_base, settings, ("a",), (1,)), plain)  # B = 0
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.fill_(0.3)
    assert not torch.allclose(draw(tiny_base, settings, ("a",), (1,)), plain)
    with adapter.disabled():
        assert torch.equal(draw(tiny_base, settings, ("a",), (1,)), plain)
    adapter.detach()
    assert torch.equal(draw(tiny_base, settings, ("a",), (1,)), plain)
