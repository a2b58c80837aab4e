"""Prior rows at strengths above 1."""

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
class OverdrivenPrior(Regularizer):
    """Answer prior rows with the adapter turned up, so that what holds at 1 holds at higher strengths too.

        prior rows: f at strength s = 1 + weight * U(0, highest - 1)        targets as ever; instance rows at 1

    Works through the methods that look at prior rows. Where the adapter acts linearly a gap grows with s^2: 3.25 times
    on the mean at the defaults. s is drawn once per update, and is the same when a forward is made again.

    When   the LoRA is to be used at weights above 1.
    Paper  our own; relatives are module dropout and slider training.
    Cost   none; instance and prior rows no longer share a forward.
    Avoid  weak concepts: it holds harder at strength 1 as well. The drift controller reads at 1 and makes up for it.
    """

    weight: float = Field(default=1.0, ge=0, le=1)
    """How far the strengths reach."""
    highest: float = Field(default=2.5, gt=1)
    """The highest strength, at weight 1."""

    def needs_company(self) -> bool:
        return True

    def apart(self) -> bool:
        return True

    @contextmanager
    def during(self, adapter: Adapter, place: Place) -> Iterator[None]:
        if place.roles != {"prior"}:
            yield
            return
        with adapter.strength(self.strength(place)):
            yield

    def strength(self, place: Place) -> float:
        """Of the prior rows of this update."""
        drawn = float(torch.rand((), generator=stream(place.seed, "overdriven prior", update=place.update)))
        return 1 + self.weight_at(place.epoch) * drawn * (self.highest - 1)
