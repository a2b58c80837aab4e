"""The prior as states that the base met, with the answers that it gave."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from tenuto.prior.states import BasePath
from tenuto.randomness import shuffler
from tenuto.regularizers.base import Memory
from tenuto.regularizers.draft import KEPT, UNASKED, Draft
from tenuto.regularizers.normal import Distilled
from tenuto.regularizers.step import Step, squared_error

FEWEST = 0.1
"""Prior rows per instance row that hold at a weight of 0.1 (docs/findings.md)."""


@final
class CachedPrior(Distilled):
    """Answer as the base answered on its way to the prior images: exact targets, no noise, no teacher.

        L += weight * mean over prior rows | f(x_t, t, c) - kept |^2        kept = f_base(x_t, t, c), from the prior set

    A share of the rows is fresh: noise on the finished prior image and the base asked anew, which fills the gaps
    between the sampler's steps. A share of the kept ones is held without the prompt: what guidance multiplies.

    When   always, but for styles: a project that names no method is held by this one and, where it has a trigger, by
           `output_preservation` on a twentieth of the rows. Alone at weight 0.1, with a tenth as many prior rows as
           rows of yours, for a quarter more work than a plain LoRA's; towards weight 1, with half as many, some four
           times as well, at three times the work.
    Paper  our own; relatives are Drift Correction, arXiv:2410.14159, and dark experience replay, arXiv:2004.07211.
    Cost   per prior row one forward and backward; fresh ones also one forward of the base. States cost nothing to make
           and, each, three latents in half precision on disk.
    Avoid  a style at weight 1: every prior image shows how the base draws, and the style was hardly learned
           (docs/findings.md); fresh = 0 with very few prior images: a fixed set can be learned by heart. Some dozens
           are enough otherwise: the targets have no noise. Few rows at a high weight: their gradient drowns the
           concept's, and nothing is learned.
    """

    weight: NonNegativeFloat = 0.1
    """What a gap as large as the prompt's own effect counts beside the instance term. 0.03 to 1 is worth a try."""
    states: PositiveInt = 8
    """States that are kept of every prior image's path."""
    fresh: float = Field(default=0.2, ge=0, le=1)
    """Share of prior rows that are noised anew."""
    blank: float = Field(default=0.1, ge=0, le=1)
    """Share of kept rows that are held without the prompt (with the negative one); none where nothing was guided."""

    def needs_prior(self) -> bool:
        return True

    def usual_ratio(self) -> float:
        """Rows follow the weight: few rows at a high one drown the concept's gradient (docs/findings.md)."""
        return min(max(FEWEST, self.weight / 2), 1.0)

    def fewest_ratio(self) -> float:
        return self.usual_ratio() / 2

    def helped_ratio(self) -> float:
        return self.fewest_ratio()

    def needs_states(self) -> int:
        return self.states

    def draw(self, draft: Draft, seed: int) -> Draft:
        if draft.path is None or draft.fixed is not None:
            return draft
        rng = shuffler(seed, "cached prior", row=draft.id, visit=draft.visit)
        if rng.random() < self.fresh:
            return draft
        return _kept(draft, draft.path, _turn(draft, draft.path.count, seed), rng.random() < self.blank)

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        rows = step.rows("prior")
        kept = tuple(row for row in rows if KEPT in step.marks[row])
        fresh = tuple(row for row in rows if KEPT not in step.marks[row])
        gaps = []
        if kept:
            gaps.append(squared_error(step.predict(kept), step.target[list(kept)]))
        if fresh:
            gaps.append(step.gap(fresh))
        return self.held(step, kept + fresh, torch.cat(gaps), memory) if gaps else None


def _turn(draft: Draft, count: int, seed: int) -> int:
    """Which state this visit takes: each once before any twice."""
    around, place = divmod(draft.visit, count)
    return shuffler(seed, "kept state", row=draft.id, round=around).sample(range(count), count)[place]


def _kept(draft: Draft, path: BasePath, index: int, without: bool) -> Draft:
    state = path.read(index)
    marks = {KEPT}
    if without and state.blank is not None:
        target, words = state.blank, path.negative
        marks.add(UNASKED)
    else:
        target, words = state.answer, path.prompt
    return replace(
        draft, caption=words, class_caption=words, bare_caption=words, chunks=path.chunks,
        t=state.t, fixed=(state.x_t, target), marks=draft.marks | marks,
    )  # fmt: skip
