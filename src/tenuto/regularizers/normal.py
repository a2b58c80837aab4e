"""Normalised weights: one number that means the same on every checkpoint, kind of answer and level of noise.

    weight * m * |d|^2 / G(t)        d  the adapted answer minus the base's
                                     G  the mean of |g|^2 in t's bin, g the prompt's own effect in the base
                                     m  a slow mean of the instance term

At weight 1 a gap as large as the prompt's own effect counts as much as the instance term. That is strong: on pocket it
is some 60 times a raw mean square, and a drift of a tenth wants a tenth of it or less. Sums are pooled within a bin and
never averaged as ratios; where g is next to nothing (low noise), G is not let below FLOOR of its mean over the bins.
G is estimated once, before the first update, on a few of the first rows, and kept in memory. Prompts without words have
no effect; where all that is to be measured has none (captions that are the trigger alone), it is the captions' own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.regularizers.base import Done, Memory, Probe, Regularizer
from tenuto.regularizers.step import At, Rows, Step
from tenuto.words import Role, TenutoError

BINS = 4
FLOOR = 0.1
SLOW = 0.98
"""Decay of the mean of the instance term."""


def bins_of(t: Tensor, steps: int) -> Tensor:
    """The bin of each timestep [B]."""
    return (t.float() * BINS / steps).long().clamp(0, BINS - 1)


def measured(probe: Probe, role: Role, at: At) -> Tensor:
    """The effect of prompts in each bin [BINS], not let below FLOOR of its mean. Raises TenutoError where no caption
    has a word."""
    effect = probe.effect(role, at)
    if not effect.any():
        effect = probe.effect("instance", "own")
    if not effect.any():
        raise TenutoError(
            "no caption has a word, so that nothing says how much a prompt moves, by which weights are measured; write "
            "captions, or set normalised = false with a weight of its own"
        )
    return effect.clamp(min=FLOOR * float(effect.mean()))


class Distilled(Regularizer):
    """A method whose term is a gap between the adapted answer and the base's; abstract."""

    normalised: bool = True
    """Whether the gap is measured by the prompt's own effect. False: a raw mean square, 1 to 3 orders smaller."""

    def needs_words(self) -> bool:
        return self.normalised

    def measure(self) -> tuple[Role, At]:
        """Whose prompt's effect is the measure."""
        return "prior", "own"

    def init(self, adapter: Adapter, probe: Probe) -> Memory:
        if not self.normalised:
            return {}
        return {"effect": measured(probe, *self.measure()), "error": torch.tensor(probe.error())}

    def after_update(self, adapter: Adapter, memory: Memory, done: Done) -> Memory:
        if not self.normalised or "instance" not in done.terms:
            return memory
        return {**memory, "error": SLOW * memory["error"] + (1 - SLOW) * done.terms["instance"]}

    def held(self, step: Step, rows: Rows, gap: Tensor, memory: Memory) -> Tensor:
        """The weighted term [B] of gaps [R] at these rows."""
        if self.normalised:
            effect = memory["effect"].to(gap.device)[bins_of(step.t[list(rows)], step.process.steps)]
            gap = gap * float(memory["error"]) / effect
        return self.weight_at(step.epoch) * step.spread(rows, gap)

    def held_at(self, step: Step, mark: str, at: At, share: float, memory: Memory) -> Tensor | None:
        """The term of the marked instance rows, a `share` of all, each counting so much the more."""
        rows = step.rows("instance", mark)
        return self.held(step, rows, step.gap(rows, at=at) / share, memory) if rows else None
