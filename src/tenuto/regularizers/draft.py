"""Draft: one row of a step in the making. Hooks may change it before the step is fixed; then nothing is random.

Shapes: C latent channels, H W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tenuto.families.process import Process
from tenuto.words import Role, Size


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One row, with its noise and timestep drawn. `id` and `visit` name every further draw for it."""

    id: str
    visit: int
    role: Role
    size: Size
    caption: str
    class_caption: str
    """The caption with the trigger replaced by the class word; the caption itself where there is no trigger."""
    chunks: int
    """Text passes; who changes the caption changes them too. The other prompts are padded or cut to as many."""
    latents: Tensor
    """Clean latents [C H W]."""
    t: float
    """Timestep."""
    noise: Tensor
    """What the target tells of [C H W]."""
    unseen: Tensor | None = None
    """Further noise that is in x_t and not in the target [C H W]."""
    mask: Tensor | None = None
    """How much each place counts [1 H W] in 0..1; None: all of it."""
    epoch: float = 0.0
    """Epochs done: what weight schedules follow."""

    def noisy(self, process: Process) -> tuple[Tensor, Tensor]:
        """(x_t, target), each [C H W]."""
        t = timesteps([self.t])
        x0, noise = self.latents[None], self.noise[None]
        added = noise if self.unseen is None else noise + self.unseen[None]
        return process.noisy(x0, added, t)[0], process.target(x0, noise, t)[0]


def timesteps(values: list[float]) -> Tensor:
    """Whole numbers as such, so that the schedule is read where it is defined."""
    whole = all(float(value).is_integer() for value in values)
    return torch.tensor([int(value) for value in values] if whole else values)
