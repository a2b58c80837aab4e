"""The best LoRA so far: what held-out pictures gain, less what the drift costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from tenuto.training.watch import DRIFT, GAIN
from tenuto.words import Settings

SCORE = "score"
"""Its name in the log."""


class BestSettings(Settings):
    """[training.best]: keep the LoRA of the best reading (every `watch_every` updates) as lora-best.safetensors.

        score = (E_base - E) / e - drift_weight * nD

    E is the mean squared error on the pictures kept out of training (data.validation) at fixed noise, E_base the
    base's own, e the effect of those pictures' prompts in the base, mean |f_base(c) - f_base(empty)|^2. nD is the drift
    at the training captions without the trigger, in the same unit. At weight 1 a LoRA has to gain more on unseen
    pictures than it moves what it should not. The held-out error alone rewards bake.
    """

    keep: bool = False
    """Whether it is kept."""
    drift_weight: NonNegativeFloat = 1.0
    """What drift costs. 0: the held-out error alone."""
    patience: PositiveInt | None = None
    """Readings without a better score after which the training ends; unset: it goes on to its last update."""

    @model_validator(mode="after")
    def _something_to_wait_for(self) -> Self:
        if self.patience is not None and not self.keep:
            raise ValueError("patience needs keep = true")
        return self

    def score(self, readings: Mapping[str, float]) -> float | None:
        """Of one reading; None where it is no number."""
        score = readings[GAIN] - self.drift_weight * readings[DRIFT]
        return score if math.isfinite(score) else None


@dataclass(frozen=True)
class Best:
    """Where the search stands."""

    score: float | None = None
    update: int = 0
    """Where that score was read."""
    since: int = 0
    """Readings since then."""

    def after(self, score: float | None, update: int) -> Best:
        """With one more reading."""
        if score is not None and (self.score is None or score > self.score):
            return Best(score, update)
        return Best(self.score, self.update, self.since + 1)

    def standing(self) -> dict[str, Any]:
        """What a saved state holds of it."""
        return {"score": self.score, "update": self.update, "since": self.since}
