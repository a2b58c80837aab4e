"""The noise process, held against diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from tenuto.families.base import Base
from tenuto.families.process import Prediction, Process, from_alphas, linear_flow

T = torch.tensor([0, 1, 250, 500, 998, 999])


def latents(name: int) -> torch.Tensor:
    return torch.randn(len(T), 4, 3, 5, generator=torch.Generator().manual_seed(name))


def processes() -> dict[str, Process]:
    alphas = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    return {kind: from_alphas(alphas, kind) for kind in ("eps", "v")} | {"flow": linear_flow()}  # type: ignore[arg-type]


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_is_what_diffusers_does(prediction: Prediction) -> None:
    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    ours = from_alphas(theirs.alphas_cumprod, prediction)
    x0, noise = latents(0), latents(1)
    torch.testing.assert_close(ours.noisy(x0, noise, T), theirs.add_noise(x0, noise, T))
    target = noise if prediction == "eps" else theirs.get_velocity(x0, noise, T)
    torch.testing.assert_close(ours.target(x0, noise, T), target)


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
def test_a_perfect_answer_gives_the_picture_back(kind: str) -> None:
    process = processes()[kind]
    t = T / 1000 if kind == "flow" else T
    x0, noise = latents(0).double(), latents(1).double()
    x_t, answer = process.noisy(x0, noise, t), process.target(x0, noise, t)
    torch.testing.assert_close(process.x0(x_t, answer, t), x0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("base", ["tiny_base", "tiny_v_base"])
def test_a_checkpoint_brings_its_own(base: str, request: pytest.FixtureRequest) -> None:
    opened: Base = request.getfixturevalue(base)
    theirs = DDPMScheduler.from_config(opened.scheduler_config())
    x0, noise = latents(0), latents(1)
    torch.testing.assert_close(opened.process.noisy(x0, noise, T), theirs.add_noise(x0, noise, T))
    assert opened.process.prediction == ("v" if base == "tiny_v_base" else "eps")
