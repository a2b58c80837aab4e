"""Step: everything a regularizer may look at, with all draws made.

Shapes: B rows, R asked-for rows, C latent channels, H W latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tenuto.families.base import Conditioning
from tenuto.words import Role

Rows = tuple[int, ...]


class Denoiser(Protocol):
    """The network with or without the adapter. adapter=False is the teacher: base weights, no gradient."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning, *, adapter: bool) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """One micro-batch of an update. It lives for one forward and backward; what it remembers is freed with it."""

    x_t: Tensor
    """Noisy latents [B C H W]."""
    t: Tensor
    """Timesteps [B]."""
    target: Tensor
    """What the network should answer [B C H W]."""
    cond: Conditioning
    """Each row's own prompt, encoded with the adapter on (it matters when the text encoder is trained)."""
    base_cond: Conditioning
    """The same prompts, encoded by the base alone: what the teacher is told."""
    role: tuple[Role, ...]
    share: Tensor
    """1 / rows of that role in the whole update [B]: micro-batches simply add up."""
    ids: tuple[str, ...]
    """Names of the rows, for error messages."""
    epoch: float
    """Epochs done, a fraction: what weight schedules follow."""
    model: Denoiser = field(repr=False)
    _memo: dict[tuple[Rows, bool], Tensor] = field(default_factory=dict, init=False, repr=False)

    def rows(self, role: Role) -> Rows:
        """Indices of the rows with this role."""
        return tuple(i for i, own in enumerate(self.role) if own == role)

    def predict(self, rows: Rows | None = None, *, adapter: bool = True) -> Tensor:
        """The network's answer [R C H W] in float32 at these rows (default: all), remembered.

        With the adapter all rows are answered in one forward and then picked, so that every term shares it;
        the teacher is asked for just the rows wanted.
        """
        everything = tuple(range(len(self.role)))
        rows = everything if rows is None else rows
        if adapter and rows != everything:
            return self.predict(adapter=True)[list(rows)]
        key = (rows, adapter)
        if key not in self._memo:
            self._memo[key] = self._ask(list(rows), adapter)
        return self._memo[key]

    def _ask(self, rows: list[int], adapter: bool) -> Tensor:
        cond = self.cond if adapter else self.base_cond
        with torch.set_grad_enabled(adapter and torch.is_grad_enabled()):
            return self.model(self.x_t[rows], self.t[rows], cond.rows(rows), adapter=adapter).float()

    def spread(self, rows: Sequence[int], values: Tensor) -> Tensor:
        """Per-row values [R] put at their places among all rows [B]; zero elsewhere."""
        index = torch.tensor(list(rows), dtype=torch.long, device=values.device)
        return torch.zeros(len(self.role), device=values.device, dtype=values.dtype).index_put((index,), values)


def squared_error(answer: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per row [B], in float32."""
    return (answer.float() - target.float()).square().mean(dim=(1, 2, 3))
