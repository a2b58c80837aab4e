"""Every row at a strength that is drawn anew for each update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from pydantic import Field

from tenuto.adapters.adapter import Adapter
from tenuto.randomness import stream
from tenuto.regularizers.base import Place, Regularizer


@final
class RandomStrength(Regularizer):
    """Train at random strengths of the adapter, so that the LoRA can be turned up and down.

        all rows of an update: f at strength s = U(1 - weight, 1 + weight)        targets as ever

    The same picture is the answer at every strength, so what is learned settles where it is right and does not grow
    with s; what holds the base holds it at higher strengths too. s is drawn once per update, and is the same when a
    forward is made again.

    When   the LoRA shall not collapse when it is turned up to 2 or 3; beside `cached_prior`.
    Paper  our own; relatives are module dropout and slider training.
    Cost   none; kinds of adapter that are no product of factors ask the base's layers once more.
    Avoid  short trainings: at strength 1 the concept comes later, a third to nine tenths of it in as many updates. As
           strong as without it, it could be turned up further on one set of four (docs/findings.md).
    """

    weight: float = Field(default=0.67, ge=0, le=1)
    """How far the strengths reach to either side of 1."""

    @contextmanager
    def during(self, adapter: Adapter, place: Place) -> Iterator[None]:
        with adapter.strength(self.strength(place)):
            yield

    def strength(self, place: Place) -> float:
        """Of all rows of this update."""
        drawn = float(torch.rand((), generator=stream(place.seed, "random strength", update=place.update)))
        return 1 + self.weight_at(place.epoch) * (2 * drawn - 1)
