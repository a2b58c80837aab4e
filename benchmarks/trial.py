"""How the strengths are chosen at which the methods stand on the leaderboard: pure functions of the trial's cells.

Every strength is tried on one ready set. Those that hold there are tried on another one, a method's best first, and the
next one only where that does not hold: what one set allows, another may not learn under. Nothing is chosen on a set and
seed that the board is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.ready import PLAIN
from benchmarks.standings import Cell, Match, cost

STRONG_ENOUGH = 0.75
"""Share of the plain LoRA's concept strength that a LoRA should have as shipped: nobody wants to turn each one up."""
HOLDS = 0.8
"""Of the drift that is left without a method, at equal concept strength, at most this is left with it."""


class Outcome(NamedTuple):
    """What became of a LoRA of the trial, beside the plain one."""

    strong: float
    """Its concept strength as shipped over the plain LoRA's."""
    drift: float | None
    """At the plain LoRA's concept strength, over the plain LoRA's; None: not reached."""
    bake: float | None
    forwards: float | None
    most: float = HOLDS
    """The drift with which it holds: of the plain LoRA's, or of what stands beside it."""

    @property
    def held(self) -> bool:
        """Whether there is less drift where both are equally strong, and the concept was learned."""
        return self.drift is not None and self.drift <= self.most and self.strong >= STRONG_ENOUGH


class Trial(NamedTuple):
    """Every method at every strength on the first set, and some on the second. Methods and strengths go by the labels
    of their arms."""

    first: Cell
    second: Cell | None = None
    beside: Mapping[str, str] = {}
    """Method -> what stands beside it, alone: it has to add to that."""

    def cells(self) -> list[Cell]:
        return [cell for cell in self if isinstance(cell, Cell)]

    def methods(self) -> dict[str, list[str]]:
        """Each method's labels, as they come in the catalogue."""
        found: dict[str, list[str]] = {}
        for label, arm in self.first.arms.items():
            if arm.method != PLAIN:
                found.setdefault(arm.method, []).append(label)
        return found

    def outcome(self, label: str, cell: Cell | None) -> Outcome | None:
        """On one of the sets; None: not tried there."""
        if cell is None or label not in cell.arms:
            return None
        arm, plain = cell.arms[label], cell.arms[PLAIN]
        match = Match(tuned=cell.tuned, points=arm.points, plain=plain.points)
        alone = self.outcome(self.beside.get(arm.method, ""), cell)
        most = HOLDS * min(1.0, alone.drift) if alone and alone.drift is not None else HOLDS
        return Outcome(
            match.strong(), match.ratio("drift"), match.ratio("bake"), cost([(arm, plain)], "forwards"), most
        )

    def chosen(self) -> dict[str, str]:
        """Method -> its strength that did best."""
        return {method: self._rung(own) or self._strongest(own) for method, own in self.methods().items()}

    def holding(self) -> list[str]:
        """The labels of those that hold on the first set, and on the second as far as they were tried there."""
        return [rung for own in self.methods().values() if (rung := self._rung(own))]

    def wanted(self) -> list[str]:
        """The labels that the second set has yet to try."""
        return [label for label in self.holding() if self.outcome(label, self.second) is None]

    def _rung(self, labels: Sequence[str]) -> str | None:
        """The first strength down a method's ladder that did not fail on the second set."""
        return next((label for label in self._ladder(labels) if self._stands(label)), None)

    def _ladder(self, labels: Sequence[str]) -> Iterator[str]:
        """Those that held on the first set, the least drift first."""
        drifts = {
            label: own.drift
            for label in labels
            if (own := self.outcome(label, self.first)) and own.held and own.drift is not None
        }
        yield from sorted(drifts, key=lambda label: drifts[label])

    def _stands(self, label: str) -> bool:
        there = self.outcome(label, self.second)
        return there is None or there.held

    def _strongest(self, labels: Sequence[str]) -> str:
        """Where none holds on both sets: of those that learned the concept on the first one the least drift, else
        whoever learned most."""

        def judged(label: str) -> tuple[bool, float, float]:
            own = self.outcome(label, self.first)
            assert own is not None
            good = own.drift is not None and own.strong >= STRONG_ENOUGH
            return (not good, own.drift if good and own.drift is not None else 0.0, -own.strong)

        return min(labels, key=judged)
