"""Draft: one row of a step in the making. Hooks may change it before the step is fixed; then nothing is random.

Shapes: C latent channels, H W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tenuto.families.process import Process
from tenuto.prior.states import BasePath
from tenuto.randomness import stream
from tenuto.words import Role, Size

KEPT = "kept state"
"""Mark of the rows whose target is the base's own kept answer."""
UNASKED = "kept without the prompt"
"""Mark of those whose kept answer is to the negative prompt."""


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
    bare_caption: str
    """The caption without the trigger, nothing in its place."""
    chunks: int
    """Text passes; who changes the caption changes them too. The other prompts are padded or cut to as many."""
    varied: bool = False
    """Whether the captions are this visit's own."""
    latents: Tensor
    """Clean latents [C H W]."""
    t: float
    """Timestep."""
    noise: Tensor
    """What the target tells of [C H W]."""
    unseen: Tensor | None = None
    """Further noise that is in x_t and not in the target [C H W]."""
    path: BasePath | None = None
    """States that the base met on its way to this prior image, where they are kept."""
    fixed: tuple[Tensor, Tensor] | None = None
    """x_t and target of a kept state, in the place of noise on the latents, each [C H W]."""
    mask: Tensor | None = None
    """How much each place counts [1 H W] in 0..1; None: all of it."""
    marks: frozenset[str] = frozenset()
    """What methods have drawn this row for."""
    epoch: float = 0.0
    """Epochs done: what weight schedules follow."""

    def marked(self, mark: str, seed: int, share: float) -> Draft:
        """This row, drawn for something with this chance; the draw is named by the mark."""
        if share < 1 and float(torch.rand((), generator=self.stream(mark, seed))) >= share:
            return self
        return replace(self, marks=self.marks | {mark})

    def stream(self, purpose: str, seed: int) -> torch.Generator:
        """A generator for one draw of this row."""
        return stream(seed, purpose, row=self.id, visit=self.visit)

    def noisy(self, process: Process) -> tuple[Tensor, Tensor]:
        """(x_t, target), each [C H W]."""
        if self.fixed is not None:
            return self.fixed
        t = timesteps([self.t])
        x0, noise = self.latents[None], self.noise[None]
        added = noise if self.unseen is None else noise + self.unseen[None]
        return process.noisy(x0, added, t)[0], process.target(x0, noise, t)[0]


def timesteps(values: list[float]) -> Tensor:
    """Whole numbers as such, so that the schedule is read where it is defined."""
    whole = all(float(value).is_integer() for value in values)
    return torch.tensor([int(value) for value in values] if whole else values)
