"""More weight on the prompts that have drifted most."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import final

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.regularizers.base import Done, Memory, Probe, Regularizer
from tenuto.regularizers.draft import KEPT, UNASKED
from tenuto.regularizers.normal import bins_of, measured
from tenuto.regularizers.step import Step, squared_error

FOLLOWS = 0.3
"""Share of the newest reading in a prompt's drift."""


@final
class HardPrompts(Regularizer):
    """Hold most where most has moved: every prior row counts by how far its prompt has drifted so far.

        other methods' prior rows * min(1 - weight + weight * d_k^power / mean over prompts of d^power, most)

        d_k  a slow mean, over the rows of prompt k, of | f - f_base |^2 / (the prompts' effect in the base at that t)

    On the mean that is to draw prompt k with the chance (1 - weight) / K + weight d_k^power / sum of d^power. But prior
    images are drawn as planned, none twice before all were used, so rows are weighed instead. Unread prompts count 1.

    When   some prompts drift far more than others and the weight of all cannot go up.
    Paper  our own; relatives are prioritized replay, arXiv:1511.05952, and ConceptGuard, arXiv:2503.10358.
    Cost   none beside methods that ask the base for these rows (cached_prior, prior_prediction); else one forward of
           the base per prior row. 64 forwards once.
    Avoid  a high weight with prompts close to the concept: those drift most, and holding them hardest works against it.
           Expecting much: where it was tried the worst prompts drifted as before (docs/findings.md).
    """

    weight: float = Field(default=0.7, ge=0, le=1)
    """How much of a row's weight goes by its prompt's drift."""
    power: float = Field(default=0.6, gt=0, le=1)
    """Less than 1: four times the drift counts less than four times."""
    most: PositiveFloat = 4.0
    """The most that a row may count."""

    def needs_company(self) -> bool:
        return True

    def needs_words(self) -> bool:
        return True

    def init(self, adapter: Adapter, probe: Probe) -> Memory:
        prompts = probe.prior_prompts()
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts.values()))}
        return {
            "rows": torch.tensor([_number(name) for name in prompts], dtype=torch.int64),
            "prompts": torch.tensor([numbers[prompt] for prompt in prompts.values()], dtype=torch.int64),
            "drift": torch.full((len(numbers),), torch.nan, dtype=torch.float64),
            "effect": measured(probe, "prior", "own"),
        }

    def weigh_held(self, step: Step, held: Tensor, memory: Memory) -> Tensor:
        factors = torch.ones_like(held)
        for row, prompt in self._prompts(step, memory).items():
            factors[row] = self.factor(memory["drift"], prompt, step.epoch)
        return held * factors

    def factor(self, drift: Tensor, prompt: int, epoch: float) -> float:
        """What a row of this prompt counts."""
        known = drift[~drift.isnan()]
        if drift[prompt].isnan() or not known.any():  # nothing was read, or nothing has moved
            return 1.0
        hard = float(drift[prompt] ** self.power / (known**self.power).mean())
        return min(1 + self.weight_at(epoch) * (hard - 1), self.most)

    def silence(self, memory: Memory) -> Tensor:
        """Sums and counts of every prompt [2 K]."""
        return torch.zeros(2, len(memory["drift"]), dtype=torch.float64)

    @torch.no_grad()
    def hear(self, step: Step, memory: Memory) -> Tensor:
        heard = self.silence(memory)
        prompts = self._prompts(step, memory)
        kept = tuple(row for row in step.rows("prior") if KEPT in step.marks[row])
        fresh = tuple(row for row in step.rows("prior") if KEPT not in step.marks[row])
        gaps = {
            row: gap for rows in (kept, fresh) if rows for row, gap in zip(rows, self._gaps(step, rows), strict=True)
        }
        effect = memory["effect"].to(step.t.device)[bins_of(step.t, step.process.steps)].double().cpu()
        for row, prompt in prompts.items():
            heard[:, prompt] += torch.tensor([float(gaps[row] / effect[row]), 1.0], dtype=torch.float64)
        return heard

    @staticmethod
    def _gaps(step: Step, rows: tuple[int, ...]) -> Tensor:
        """| f - f_base |^2 [R]; kept states know the base's answer."""
        kept = KEPT in step.marks[rows[0]]
        return (squared_error(step.predict(rows), step.target[list(rows)]) if kept else step.gap(rows)).double().cpu()

    @staticmethod
    def _prompts(step: Step, memory: Memory) -> dict[int, int]:
        """The prompt of each prior row; rows that are held without words, or at the negative prompt, have none."""
        known = dict(zip(memory["rows"].tolist(), memory["prompts"].tolist(), strict=True))
        asked = [row for row in step.rows("prior") if step.texts["own"][row] and UNASKED not in step.marks[row]]
        return {row: known[_number(step.ids[row])] for row in asked if _number(step.ids[row]) in known}

    def after_update(self, adapter: Adapter, memory: Memory, done: Done) -> Memory:
        sums, counts = done.heard
        new = sums / counts.clamp(min=1)
        before = memory["drift"]
        drift = torch.where(before.isnan(), new, before.lerp(new, FOLLOWS))
        return {**memory, "drift": torch.where(counts > 0, drift, before)}

    def notes(self, memory: Memory) -> Mapping[str, float]:
        known = memory["drift"][~memory["drift"].isnan()]
        return {"spread": float(known.max() / known.mean())} if known.any() else {}


def _number(name: str) -> int:
    """A row's name as memory holds it."""
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest())
