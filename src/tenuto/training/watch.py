"""Live readings for the log: drift on states of the training pictures, loss on the pictures kept out of training.

Both are rough and quick; the report measures properly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.families.base import Base, Conditioning
from tenuto.randomness import noise
from tenuto.training.rows import Row

LEVELS = (0.15, 0.4, 0.65, 0.9)
"""Shares of the noise schedule that are looked at."""


@dataclass(frozen=True)
class State:
    """A fixed place at which the network is asked again and again."""

    x_t: Tensor
    t: Tensor
    cond: Conditioning
    answer: Tensor
    """What it is compared with."""

    def gap(self, base: Base) -> Tensor:
        """Squared error of every element [1 C H W]."""
        return (base.predict(self.x_t, self.t, self.cond).float() - self.answer).square()


def noisy(base: Base, row: Row, level: float, seed: int, purpose: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, t, and what they are made of: x0 and the noise. The noise is named by row and level."""
    x0 = row.latents[None].to(base.device)
    t = torch.tensor([int(level * base.process.steps)], device=base.device)
    eps = noise(tuple(x0.shape), seed, purpose, row=row.id, level=str(level)).to(base.device)
    return base.process.noisy(x0, eps, t), t, x0, eps


class ValidationWatch:
    """Mean loss over the pictures kept out of training, each at the same noise levels every time.

    It falls while the concept is learned and rises when the set is learned by heart. It rewards bake (METHODS 3.4).
    """

    def __init__(self, base: Base, rows: Sequence[Row], seed: int) -> None:
        """rows: held-out pictures with their own captions."""
        self.base = base
        self.states: list[State] = []
        with torch.no_grad():
            for row in rows:
                cond = base.encode_text([row.caption], [row.size], row.chunks)
                for level in LEVELS:
                    x_t, t, x0, eps = noisy(base, row, level, seed, "validation")
                    self.states.append(State(x_t, t, cond, base.process.target(x0, eps, t)))

    @torch.no_grad()
    def __call__(self) -> float:
        return sum(float(state.gap(self.base).mean()) for state in self.states) / len(self.states)


class DriftWatch:
    """nD = sum |f - f_base|^2 / sum |f_base(c) - f_base(empty)|^2 over fixed states (METHODS: normalised drift)."""

    def __init__(self, base: Base, adapter: Adapter, rows: Sequence[Row], seed: int) -> None:
        """rows: prompts without the trigger and latents to put noise on; the base is asked once, here."""
        self.base = base
        self.states: list[State] = []
        effect = 0.0
        with torch.no_grad(), adapter.disabled():
            for row in rows:
                cond = base.encode_text([row.caption], [row.size], row.chunks)
                empty = base.encode_text([""], [row.size], row.chunks)
                for level in LEVELS:
                    x_t, t, _, _ = noisy(base, row, level, seed, "watch")
                    answer = base.predict(x_t, t, cond).float()
                    effect += float((answer - base.predict(x_t, t, empty).float()).square().sum())
                    self.states.append(State(x_t, t, cond, answer))
        self.effect = effect

    @torch.no_grad()
    def __call__(self) -> float:
        moved = sum(float(state.gap(self.base).sum()) for state in self.states)
        return moved / self.effect if self.effect else float("nan")
