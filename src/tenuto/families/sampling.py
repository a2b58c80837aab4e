"""Sampling from a base with diffusers' schedulers: batched guidance, per-row noise, stoppable between steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from pydantic import Field, PositiveInt
from torch import Tensor

from tenuto.families.base import Base, Conditioning
from tenuto.randomness import noise
from tenuto.words import Settings, Size

Sampler = Literal["dpmpp_2m", "dpmpp_2m_karras", "euler", "euler_a", "ddim", "unipc"]

SAMPLERS: dict[Sampler, tuple[type[Any], dict[str, Any]]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "unipc": (UniPCMultistepScheduler, {}),
}


class SamplerSettings(Settings):
    """How pictures are sampled."""

    sampler: Sampler = "dpmpp_2m"
    """dpmpp_2m (DPM-Solver++ 2M), dpmpp_2m_karras, euler, euler_a, ddim or unipc."""
    steps: PositiveInt = 20
    """Denoising steps."""
    guidance: float = Field(5.0, ge=0.0)
    """Classifier-free guidance; 1: off."""
    negative: str = ""
    """Negative prompt."""

    def forwards(self) -> int:
        """Forwards of the denoiser for one picture."""
        return self.steps * (1 if self.guidance == 1 else 2)


class _RowNoise:
    """Stands in for a torch generator where a scheduler draws: the diffusers helper accepts one per row."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator("cpu").manual_seed(seed ^ 0x5DEECE66D) for seed in seeds]


@torch.no_grad()
def sample(
    base: Base,
    cond: Conditioning,
    uncond: Conditioning,
    size: Size,
    seeds: Sequence[int],
    settings: SamplerSettings,
    *,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Scaled latents [B C H W] on the base's device in float32, one row per seed.

    A row depends on its prompt and seed, not on its neighbours. With an adapter attached, the adapted model samples.
    Sources: DPM-Solver++ arXiv:2211.01095, DDIM arXiv:2010.02502, Karras sigmas arXiv:2206.00364, CFG arXiv:2207.12598.
    """
    kind, options = SAMPLERS[settings.sampler]
    scheduler = kind.from_config({**base.scheduler_config(), **options})
    scheduler.set_timesteps(settings.steps)
    shape = base.geometry.latent(size)
    x = torch.stack([noise(shape, seed, "sample") for seed in seeds]).to(base.device) * float(
        scheduler.init_noise_sigma
    )
    both = Conditioning.join([cond, uncond]) if settings.guidance != 1 else cond
    extra = {"generator": _RowNoise(seeds).generators} if settings.sampler == "euler_a" else {}
    for done, t in enumerate(scheduler.timesteps, start=1):
        rows = torch.cat([x, x]) if settings.guidance != 1 else x
        rows = scheduler.scale_model_input(rows, t)
        answer = base.predict(rows, t.expand(len(rows)).to(base.device), both).float()
        if settings.guidance != 1:
            with_prompt, without = answer.chunk(2)
            answer = without + settings.guidance * (with_prompt - without)
        x = scheduler.step(answer, t, x, **extra).prev_sample
        on_step(done, settings.steps)
    return x.float()
