"""A live reading of drift for the log: rough and quick, on states of the training pictures.

The report measures drift properly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.families.base import Base, Conditioning
from tenuto.randomness import noise
from tenuto.training.rows import Row

LEVELS = (0.15, 0.4, 0.65, 0.9)
"""Shares of the noise schedule that are looked at."""


class DriftWatch:
    """nD = sum |f - f_base|^2 / sum |f_base(c) - f_base(empty)|^2 over fixed states (METHODS: normalised drift)."""

    def __init__(self, base: Base, adapter: Adapter, rows: Sequence[Row], seed: int) -> None:
        """rows: prompts without the trigger and latents to put noise on; the base is asked once, here."""
        self.base = base
        self.states: list[tuple[Tensor, Tensor, Conditioning, Tensor]] = []
        effect = 0.0
        with torch.no_grad(), adapter.disabled():
            for row in rows:
                cond = base.encode_text([row.caption], [row.size], row.chunks)
                empty = base.encode_text([""], [row.size], row.chunks)
                for level in LEVELS:
                    t = torch.tensor([int(level * base.process.steps)], device=base.device)
                    eps = noise((1, *row.latents.shape), seed, "watch", row=row.id, level=str(level)).to(base.device)
                    x_t = base.process.noisy(row.latents[None].to(base.device), eps, t)
                    answer = base.predict(x_t, t, cond).float()
                    effect += float((answer - base.predict(x_t, t, empty).float()).square().sum())
                    self.states.append((x_t, t, cond, answer))
        self.effect = effect

    @torch.no_grad()
    def __call__(self) -> float:
        moved = sum(float((self.base.predict(x, t, c).float() - own).square().sum()) for x, t, c, own in self.states)
        return moved / self.effect if self.effect else float("nan")
