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
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from tenuto.families.base import Base, Conditioning
from tenuto.randomness import noise, stream
from tenuto.words import Settings, Size

Sampler = Literal["dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde", "euler", "euler_a", "ddim", "unipc"]

SAMPLERS: dict[Sampler, tuple[type[Any], dict[str, Any]]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),  # Lu et al. 2022, arXiv:2211.01095
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "euler": (EulerDiscreteScheduler, {}),  # Karras et al. 2022, arXiv:2206.00364, Algorithm 2
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),  # Song et al. 2020, arXiv:2010.02502
    "unipc": (UniPCMultistepScheduler, {}),  # Zhao et al. 2023, arXiv:2302.04867
}
"""Name -> diffusers scheduler and what is set on top of the checkpoint's own scheduler config."""

SPACING = {"timestep_spacing": "linspace"}
"""Every sampler starts at the last timestep, where there is noise only; checkpoints' configs often say otherwise."""

DRAWING: frozenset[Sampler] = frozenset({"euler_a", "dpmpp_2m_sde"})
"""Samplers that draw new noise at every step."""


class SamplingStopped(Exception):
    """The caller's `stop` said so between two steps."""


class SamplerChoice(Settings):
    """How pictures are sampled, but for the number of steps."""

    sampler: Sampler = "dpmpp_2m"
    """dpmpp_2m (DPM-Solver++ 2M), dpmpp_2m_karras, dpmpp_2m_sde, euler, euler_a, ddim or unipc."""
    guidance: NonNegativeFloat = 5.0
    """Classifier-free guidance (arXiv:2207.12598); 1: off, and half the cost."""
    negative: str = ""
    """Negative prompt."""


class SamplerSettings(SamplerChoice):
    """How pictures are sampled."""

    steps: PositiveInt = 20
    """Denoising steps."""

    @property
    def guided(self) -> bool:
        """Whether the answer without the prompt is needed too."""
        return self.guidance != 1

    def forwards(self) -> int:
        """Forwards of the denoiser for one picture."""
        return self.steps * (2 if self.guided else 1)


@torch.no_grad()
def sample(
    base: Base,
    cond: Conditioning,
    uncond: Conditioning | None,
    size: Size,
    seeds: Sequence[int],
    settings: SamplerSettings,
    *,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Scaled latents [B C H W] on the base's device in float32, one row per seed.

    answer = uncond + guidance * (cond - uncond)

    A row depends on its prompt and seed, not on its neighbours: its start and every later draw are named by its seed.
    With an adapter attached, the adapted model samples. `uncond` may be None where nothing is guided.
    Cost   `settings.forwards()` per row; guidance asks for both answers in one forward of 2 B rows.
    """
    scheduler = _scheduler(base, settings.sampler, settings.steps)
    start = torch.stack([noise(base.geometry.latent(size), seed, "sample") for seed in seeds]).to(base.device)
    x = start * float(scheduler.init_noise_sigma)
    draws = [stream(seed, "sampler noise") for seed in seeds]
    extra = {"generator": draws} if settings.sampler in DRAWING else {}
    if settings.guided:
        if uncond is None:
            raise ValueError("guidance needs the negative prompt's conditioning")
        cond = Conditioning.join([cond, uncond])
    for done, t in enumerate(scheduler.timesteps, start=1):
        if stop():
            raise SamplingStopped
        rows = scheduler.scale_model_input(torch.cat([x, x]) if settings.guided else x, t)
        answer = base.predict(rows, t.expand(len(rows)).to(base.device), cond).float()
        if settings.guided:
            with_prompt, without = answer.chunk(2)
            answer = without + settings.guidance * (with_prompt - without)
        x = scheduler.step(answer, t, x, **extra).prev_sample
        on_step(done, len(scheduler.timesteps))
    return x.float()


def check_samplers(base: Base) -> None:
    """Raises what the library raises of a scheduler config that one of the samplers cannot use."""
    for name in SAMPLERS:
        _scheduler(base, name, steps=2)


def _scheduler(base: Base, sampler: Sampler, steps: int) -> Any:
    kind, options = SAMPLERS[sampler]
    scheduler = kind.from_config({**base.scheduler_config(), **SPACING, **options})
    scheduler.set_timesteps(steps)
    return scheduler
