"""The probe: a few fixed states of the first rows, asked of the base alone before the first update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tenuto.regularizers.draft import Draft
from tenuto.regularizers.normal import BINS, bins_of
from tenuto.regularizers.step import At, Step, squared_error
from tenuto.training.rows import Row, micro_batches
from tenuto.words import Role

ROWS = 8
"""Rows of each role that are looked at, once in every bin of t: 8 x BINS x 2 forwards for a prompt's effect."""


class BaseProbe:
    """Answers `regularizers.base.Probe`."""

    def __init__(
        self,
        rows: Mapping[Role, Sequence[Row]],
        draft: Callable[[Row, int], Draft],
        step: Callable[[Sequence[Draft]], Step],
    ) -> None:
        """draft: a row at a bin of t; step: drafts as a step (one size and text length)."""
        self._rows, self._draft, self._step = rows, draft, step
        self._steps: dict[Role, list[Step]] = {}
        self._effects: dict[tuple[Role, At], Tensor] = {}

    @torch.no_grad()
    def effect(self, role: Role, at: At) -> Tensor:
        if (role, at) not in self._effects:
            sums, counts = torch.zeros(BINS), torch.zeros(BINS)
            for step in self._of(role):
                with_words = step.predict(at=at, adapter=False)
                moved = squared_error(with_words, step.predict(at="blank", adapter=False)).cpu()
                bins = bins_of(step.t, step.process.steps).cpu()
                sums.index_add_(0, bins, moved)
                counts.index_add_(0, bins, torch.ones_like(moved))
            self._effects[role, at] = sums / counts.clamp(min=1)
        return self._effects[role, at]

    @torch.no_grad()
    def error(self) -> float:
        errors = [step.error(step.rows("instance"), adapter=False).cpu() for step in self._of("instance")]
        return float(torch.cat(errors).mean()) if errors else 0.0

    def _of(self, role: Role) -> list[Step]:
        if role not in self._steps:
            drafts = [self._draft(row, number) for row in self._rows[role] for number in range(BINS)]
            self._steps[role] = [self._step(batch) for batch in micro_batches(drafts, BINS)]
        return self._steps[role]
