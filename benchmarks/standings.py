"""The leaderboard's arithmetic: from the curves of every arm to one line per method. Pure functions of plain data.

Everything is read at matched concept strength: in each cell (a concept and a training seed) at the plain LoRA's as
shipped, or a share of it, by straight lines on the arm's curve (checkpoints x weights), never beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks.ready import PLAIN
from tenuto.evaluation.board import Reading, Standing
from tenuto.evaluation.curve import Point, Quantity, at_concept, bootstrap, final
from tenuto.evaluation.record import ArmNumbers
from tenuto.files import write_text
from tenuto.words import Settings

TOLERANCE = 0.05
LOWER_WEIGHT, FEWER_STEPS = f"{PLAIN} at lower weight", f"{PLAIN} with fewer steps"
"""Baselines that are parts of the plain LoRA's own curve."""
SHARES = (0.75, 1.0)
"""Of the plain LoRA's concept strength: where all are compared."""
AS_SHIPPED = {
    "usable_weight": "usable weight",
    "trigger_necessity": "trigger necessity",
    "pres": "PRES",
    "div": "DIV",
    "additivity": "additivity error",
}
"""Numbers of the LoRAs as they are, at whatever concept strength: metric -> its column."""


class ArmOnBoard(Settings):
    """One arm on one concept: its curve and its numbers as shipped."""

    method: str
    strength: str
    points: list[Point]
    numbers: dict[str, list[float | None]]
    """Metric -> per training seed."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """Metric -> why it has no number at any seed."""


class ConceptOnBoard(Settings):
    """docs/leaderboard/CONCEPT.json: everything that the page is made of."""

    concept: str
    kind: str
    tuned: bool
    """Whether defaults were tuned on it."""
    quick: bool = False
    updates: int
    seeds: list[int]
    arms: dict[str, ArmOnBoard]
    settings: dict[str, object] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    def save(self, path: Path) -> None:
        write_text(path, self.model_dump_json(indent=1) + "\n")


class Cell(Settings):
    """One concept at one training seed."""

    concept: str
    seed: int
    tuned: bool
    points: list[Point]
    plain: list[Point]

    def end(self) -> Point | None:
        """The plain LoRA as shipped."""
        return final(self.plain)

    def read(self, quantity: Quantity, share: float = 1.0) -> float | None:
        """The arm at a share of the plain LoRA's concept strength; None: not reached."""
        end = self.end()
        if end is None or not end.concept:
            return None
        return at_concept(self.points, share * end.concept, quantity, TOLERANCE).value

    def ratio(self, quantity: Quantity, share: float = 1.0) -> float | None:
        """The same over the plain LoRA's number as shipped."""
        end, value = self.end(), self.read(quantity, share)
        whole = getattr(end, quantity) if end else None
        return value / whole if value is not None and whole else None


def cells_of(board: Sequence[ConceptOnBoard], label: str) -> list[Cell]:
    """Where an arm was measured."""
    return [
        Cell(
            concept=own.concept,
            seed=seed,
            tuned=own.tuned,
            points=[point for point in own.arms[label].points if point.seed == seed],
            plain=[point for point in own.arms[PLAIN].points if point.seed == seed],
        )
        for own in board
        if label in own.arms
        for seed in sorted({point.seed for point in own.arms[label].points})
    ]


def standings(board: Sequence[ConceptOnBoard]) -> list[Standing]:
    """One line per method at its best strength, and the baselines; the least drift at equal concept first."""
    found = [_standing(board, method, labels) for method, labels in _methods(board).items()]
    plain = next(own for own in found if own.method == PLAIN)
    found = [*found, *(_part_of_plain(plain, board, name) for name in (LOWER_WEIGHT, FEWER_STEPS))]
    return sorted(found, key=_order)


def _order(own: Standing) -> tuple[float, float]:
    whole = own.drift["1"]
    missed = 1 - whole.reached / whole.cells if whole.cells else 1.0
    return (float(missed > 0.5), whole.value if whole.value is not None else math.inf)


def _methods(board: Sequence[ConceptOnBoard]) -> dict[str, list[str]]:
    """Method -> labels of its arms."""
    found: dict[str, list[str]] = {}
    for own in board:
        for label, arm in own.arms.items():
            labels = found.setdefault(arm.method, [])
            if label not in labels:
                labels.append(label)
    return found


def best_strength(board: Sequence[ConceptOnBoard], labels: Sequence[str]) -> str:
    """The arm with the least drift at the plain LoRA's strength, on the concepts that may be tuned on (on all, where
    none of those was measured). One that gets there less often comes after one that gets there more often."""

    def judged(label: str) -> tuple[float, float]:
        cells = cells_of(board, label)
        tuned = [cell for cell in cells if cell.tuned] or cells
        ratios = [ratio for cell in tuned if (ratio := cell.ratio("drift")) is not None]
        return (-len(ratios) / max(len(tuned), 1), geometric_mean(ratios) if ratios else math.inf)

    return min(labels, key=judged)


def _standing(board: Sequence[ConceptOnBoard], method: str, labels: Sequence[str]) -> Standing:
    label = best_strength(board, labels)
    cells = cells_of(board, label)
    arms = [(own.arms[label], own.arms[PLAIN]) for own in board if label in own.arms]
    return Standing(
        method=method,
        strength=arms[0][0].strength,
        **_read(cells),
        forwards=_cost(arms, "forwards"),
        seconds=_cost(arms, "seconds"),
        **{name: _mean(value for arm, _ in arms for value in arm.numbers.get(name, [])) for name in AS_SHIPPED},
    )


def _part_of_plain(plain: Standing, board: Sequence[ConceptOnBoard], name: str) -> Standing:
    """The plain LoRA turned down, or stopped early: what costs nothing."""

    def belongs(cell: Cell, point: Point) -> bool:
        end = cell.end()
        return end is not None and (point.step == end.step if name == LOWER_WEIGHT else point.strength == 1.0)

    cells = [
        cell.model_copy(update={"points": [p for p in cell.points if belongs(cell, p) and p.strength <= 1.0]})
        for cell in cells_of(board, PLAIN)
    ]
    return plain.model_copy(update={"method": name, **_read(cells), **dict.fromkeys(AS_SHIPPED)})


def _read(cells: Sequence[Cell]) -> dict[str, Any]:
    def ratios(quantity: Quantity, share: float = 1.0, chosen: Sequence[Cell] = cells) -> Reading:
        return reading([cell.ratio(quantity, share) for cell in chosen], geometric_mean)

    return {
        "drift": {f"{share:g}": ratios("drift", share) for share in SHARES},
        "kept_out": ratios("drift", chosen=[cell for cell in cells if not cell.tuned]),
        "bake": ratios("bake"),
        "bleed": reading([cell.read("bleed") for cell in cells], mean),
        "volume": reading([hypervolume(cell.points) for cell in cells], mean),
    }


def reading(values: Sequence[float | None], statistic: Callable[[Sequence[float]], float]) -> Reading:
    """Of the cells that have a number."""
    found = [value for value in values if value is not None]
    return Reading(
        value=statistic(found) if found else None,
        interval=bootstrap(found, statistic),
        reached=len(found),
        cells=len(values),
    )


def hypervolume(points: Iterable[Point]) -> float | None:
    """Area of the plane (concept strength, 1 / (1 + nD)) that the points dominate: 1 would be a certain concept and an
    untouched base. None without points."""
    known = [(p.concept, 1 / (1 + p.drift)) for p in points if p.concept is not None and p.drift is not None]
    if not known:
        return None
    area = right = 0.0
    best: list[tuple[float, float]] = []
    for concept, kept in sorted(
        known, reverse=True
    ):  # from the strongest concept down: only what is kept better counts
        if not best or kept > best[-1][1]:
            best.append((concept, kept))
    for concept, kept in reversed(best):
        area += (concept - right) * kept
        right = concept
    return area


def curve(board: Sequence[ConceptOnBoard], label: str, shares: Sequence[float]) -> Iterator[tuple[float, float]]:
    """(share of the plain LoRA's strength, drift over the plain LoRA's as shipped), where at least half of the cells
    get there."""
    cells = cells_of(board, label)
    for share in shares:
        found = [ratio for cell in cells if (ratio := cell.ratio("drift", share)) is not None]
        if found and 2 * len(found) >= len(cells):
            yield share, geometric_mean(found)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def geometric_mean(values: Sequence[float]) -> float:
    """For ratios: half and twice cancel."""
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return mean(found) if found else None


def _cost(arms: Sequence[tuple[ArmOnBoard, ArmOnBoard]], metric: str) -> float | None:
    """Over the plain LoRA's, concept by concept."""
    return _mean(
        own / plain
        for arm, other in arms
        if (own := _mean(arm.numbers.get(metric, []))) is not None and (plain := _mean(other.numbers.get(metric, [])))
    )


def numbers_of(numbers: ArmNumbers) -> dict[str, list[float | None]]:
    """An arm's metrics per training seed, without their parts."""
    return {name: number.per_seed for name, number in numbers.items()}


def reasons_of(numbers: ArmNumbers) -> dict[str, str]:
    """Why an arm has no number of a metric."""
    return {name: number.reason for name, number in numbers.items() if number.mean is None and number.reason}
