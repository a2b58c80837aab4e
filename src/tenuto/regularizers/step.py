"""Step: everything a regularizer may look at, with all draws made.

Shapes: B rows, R asked-for rows, C latent channels, H W latent size, T timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from tenuto.families.base import Conditioning
from tenuto.families.process import Process
from tenuto.words import Role

Rows = tuple[int, ...]
At = Literal["own", "class", "bare", "blank"]
"""Which prompt is asked: a row's own caption, with the class word for the trigger, without the trigger, no words."""

TINY = 1e-6


class Denoiser(Protocol):
    """The network with or without the adapter. adapter=False is the teacher: base weights, no gradient."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning, *, adapter: bool) -> Tensor: ...


class Told(Protocol):
    """The conditioning of rows at one of their prompts, read by the text encoder with or without the adapter."""

    def __call__(self, at: At, rows: Rows, *, adapter: bool) -> Conditioning: ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """One micro-batch of an update. It lives for one forward and backward; what it remembers is freed with it."""

    x_t: Tensor
    """Noisy latents [B C H W]."""
    t: Tensor
    """Timesteps [B]."""
    target: Tensor
    """What the network should answer [B C H W]."""
    told: Told = field(repr=False)
    texts: Mapping[At, tuple[str, ...]]
    """The prompts themselves, per row: for telling whether two of them differ."""
    role: tuple[Role, ...]
    share: Tensor
    """1 / rows of that role in the whole update [B]: micro-batches simply add up."""
    ids: tuple[str, ...]
    """Names of the rows, for error messages."""
    marks: tuple[frozenset[str], ...]
    """What methods have drawn each row for."""
    epoch: float
    """Epochs done, a fraction: what weight schedules follow."""
    process: Process
    chances: Mapping[Role, Tensor]
    """How likely each timestep was [T], by role; sums to 1."""
    model: Denoiser = field(repr=False)
    mask: Tensor | None = None
    """How much each place counts [B 1 H W] in 0..1; None: all of it, in every row."""
    _memo: dict[tuple[At, Rows, bool], Tensor] = field(default_factory=dict, init=False, repr=False)

    def rows(self, role: Role, mark: str | None = None) -> Rows:
        """Indices of the rows with this role (and mark)."""
        return tuple(i for i, own in enumerate(self.role) if own == role and (mark is None or mark in self.marks[i]))

    def predict(self, rows: Rows | None = None, *, at: At = "own", adapter: bool = True) -> Tensor:
        """The network's answer [R C H W] in float32 at these rows (default: all), remembered.

        With the adapter all rows' own prompts are answered in one forward and then picked, so that every term shares
        it; everything else is asked for just the rows wanted.
        """
        everything = tuple(range(len(self.role)))
        rows = everything if rows is None else rows
        if adapter and at == "own" and rows != everything:
            return self.predict(adapter=True)[list(rows)]
        key = (at, rows, adapter)
        if key not in self._memo:
            self._memo[key] = self._ask(rows, at, adapter)
        return self._memo[key]

    def _ask(self, rows: Rows, at: At, adapter: bool) -> Tensor:
        index = list(rows)
        with torch.set_grad_enabled(adapter and torch.is_grad_enabled()):
            cond = self.told(at, rows, adapter=adapter)
            return self.model(self.x_t[index], self.t[index], cond, adapter=adapter).float()

    def gap(self, rows: Rows, *, at: At = "own") -> Tensor:
        """How far the adapted answer is from the base's: mean squared difference per row [R]."""
        return squared_error(self.predict(rows, at=at), self.predict(rows, at=at, adapter=False))

    def error(self, rows: Rows, *, adapter: bool = True) -> Tensor:
        """Mean squared error against the target per row [R], within the masks where there are any."""
        wrong = (self.predict(rows, adapter=adapter) - self.target[list(rows)].float()).square()
        return wrong.mean(dim=(1, 2, 3)) if self.mask is None else masked_mean(wrong, self.mask[list(rows)])

    def mean_over_t(self, curve: Tensor) -> Tensor:
        """The mean of a function of the timestep [T] over each row's own distribution of timesteps [B]."""
        means = {role: (chances * curve.to(chances)).sum() for role, chances in self.chances.items()}
        return torch.stack([means[role] for role in self.role]).to(self.t.device)

    def spread(self, rows: Sequence[int], values: Tensor) -> Tensor:
        """Per-row values [R] put at their places among all rows [B]; zero elsewhere."""
        index = torch.tensor(list(rows), dtype=torch.long, device=values.device)
        return torch.zeros(len(self.role), device=values.device, dtype=values.dtype).index_put((index,), values)


def squared_error(answer: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per row [B], in float32."""
    return (answer.float() - target.float()).square().mean(dim=(1, 2, 3))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of values [B C H W] weighted by mask [B 1 H W], per row [B]; 0 where a mask is 0 everywhere."""
    area = mask.sum(dim=(1, 2, 3)) * values.shape[1]
    return (values * mask).sum(dim=(1, 2, 3)) / area.clamp(min=TINY)
