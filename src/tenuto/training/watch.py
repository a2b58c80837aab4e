"""Live readings for the log: drift on states of the training pictures, loss on the pictures kept out of training.

Both are rough and quick; the report measures properly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.families.base import Base, Conditioning
from tenuto.randomness import noise
from tenuto.training.rows import Row

Watch = Callable[[], Mapping[str, float]]
"""Takes one reading: its numbers by their names in the log."""
DRIFT, VALIDATION, GAIN = "drift", "validation", "validation_gain"
LEVELS = (0.15, 0.4, 0.65, 0.9)
"""Shares of the noise schedule that are looked at."""


@dataclass(frozen=True)
class Look:
    """A row at every one of LEVELS [L], always with the same noise."""

    x_t: Tensor
    t: Tensor
    target: Tensor
    """What the process would have answered."""
    cond: Conditioning
    empty: Conditioning
    at_once: int
    """Levels in one forward."""

    def ask(self, base: Base) -> Tensor:
        """The network's answer now [L C H W]."""
        return self._told(base, self.cond)

    def effect(self, base: Base, answer: Tensor) -> Tensor:
        """What the prompt changes in the network's answer, squared [L C H W]."""
        return (answer - self._told(base, self.empty)).square()

    def _told(self, base: Base, words: Conditioning) -> Tensor:
        parts = [slice(start, start + self.at_once) for start in range(0, len(self.t), self.at_once)]
        return torch.cat([base.predict(self.x_t[part], self.t[part], words.rows(part)).float() for part in parts])


def looks(base: Base, rows: Sequence[Row], seed: int, purpose: str, at_once: int) -> list[Look]:
    """One per row, `at_once` of its levels in a forward. The noise is named by row and level."""
    count = len(LEVELS)
    found = []
    for row in rows:
        shape = (1, *row.latents.shape)
        x0 = row.latents[None].expand(count, *row.latents.shape).to(base.device)
        drawn = [noise(shape, seed, purpose, row=row.id, level=str(level)) for level in LEVELS]
        eps = torch.cat(drawn).to(base.device)
        t = torch.tensor([int(level * base.process.steps) for level in LEVELS], device=base.device)
        cond, empty = (base.encode_text([text] * count, [row.size] * count, row.chunks) for text in (row.caption, ""))
        found.append(Look(base.process.noisy(x0, eps, t), t, base.process.target(x0, eps, t), cond, empty, at_once))
    return found


class ValidationWatch:
    """Mean loss E over the pictures kept out of training, each at the same noise levels every time.

    It falls while the concept is learned and rises when the set is learned by heart. It rewards bake.
    The gain is (E_base - E) / e with e = mean |f_base(c) - f_base(empty)|^2 over the same states: what was gained on
    them as a share of their prompts' own effect, so that it can be set against the drift.
    """

    @torch.no_grad()
    def __init__(self, base: Base, adapter: Adapter, rows: Sequence[Row], seed: int, at_once: int = 1) -> None:
        """rows: held-out pictures with their own captions."""
        self.base = base
        with adapter.disabled():
            self.looks = looks(base, rows, seed, "validation", at_once)
            self.effect = _mean([look.effect(base, look.ask(base)) for look in self.looks])
            self.before = self._loss()

    def _loss(self) -> float:
        return _mean([(look.ask(self.base) - look.target).square() for look in self.looks])

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        now = self._loss()
        return {VALIDATION: now, GAIN: (self.before - now) / self.effect if self.effect else float("nan")}


def _mean(squares: Sequence[Tensor]) -> float:
    """Over rows, each of which counts the same, whatever its size."""
    return sum(float(own.mean()) for own in squares) / len(squares)


class DriftWatch:
    """nD = sum |f - f_base|^2 / sum |f_base(c) - f_base(empty)|^2 over fixed states."""

    @torch.no_grad()
    def __init__(self, base: Base, adapter: Adapter, rows: Sequence[Row], seed: int, at_once: int = 1) -> None:
        """rows: prompts without the trigger and latents to put noise on; the base is asked once, here."""
        self.base = base
        with adapter.disabled():
            self.looks = looks(base, rows, seed, "watch", at_once)
            self.answers = [look.ask(base) for look in self.looks]
            pairs = zip(self.looks, self.answers, strict=True)
            self.effect = sum(float(look.effect(base, answer).sum()) for look, answer in pairs)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        pairs = zip(self.looks, self.answers, strict=True)
        moved = sum(float((look.ask(self.base) - answer).square().sum()) for look, answer in pairs)
        return {DRIFT: moved / self.effect if self.effect else float("nan")}
