"""The leaderboard's arithmetic: from the curves of every arm to one line per method. Pure functions of plain data.

Everything is read at matched concept strength: in each cell (a ready set at a training seed) at the plain LoRA's as
shipped, or a share of it, by straight lines on the arm's curve (checkpoints x weights), never beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

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
SAME = 0.02
"""How far apart two runs of one plain LoRA may be in drift."""
AS_SHIPPED = {
    "concept_strength": "concept",
    "drift": "nD",
    "drift_p95": "nD p95",
    "guided_drift": "guided nD",
    "selectivity": "selectivity",
    "bake": "bake",
    "trigger_necessity": "trigger necessity",
    "tag_compliance": "tag compliance",
    "pres": "PRES",
    "div": "DIV",
    "usable_weight": "usable weight",
    "additivity": "additivity error",
}
"""Numbers of the LoRAs as they are, at whatever concept strength: metric -> its column."""


class ArmOnBoard(Settings):
    """One arm in one cell: its curve and its numbers as shipped."""

    method: str
    strength: str
    points: list[Point]
    numbers: dict[str, float | None]
    reasons: dict[str, str] = Field(default_factory=dict)
    """Metric -> why it has no number."""


class Cell(Settings):
    """docs/leaderboard/CONCEPT-SEED.json: everyone on one ready set at one training seed."""

    concept: str
    kind: str
    tuned: bool
    """Whether defaults were tuned on the set."""
    seed: int
    quick: bool = False
    updates: int
    arms: dict[str, ArmOnBoard]
    spread: int = 0
    """Of so many far test prompts in a row each entry of the bank had its share; 0: they were drawn by chance."""
    settings: dict[str, object] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    """Of what it was measured with; the day, and the commit where it is known."""

    def save(self, path: Path) -> None:
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def same_plain(self, other: Cell) -> bool:
        """Whether the plain LoRAs drift alike, within what another processor's rounding makes of a training."""
        own, others = final(self.arms[PLAIN].points), final(other.arms[PLAIN].points)
        if own is None or others is None or own.drift is None or others.drift is None:
            return False
        return math.isclose(own.drift, others.drift, rel_tol=SAME)

    def joined(self, more: Cell, labels: Sequence[str]) -> Cell:
        """With the arms of another run of it, in the order of these labels; then the methods that are not among them.
        The plain LoRA and what it cost stay."""
        everyone = {**self.arms, **more.arms, PLAIN: self.arms[PLAIN]}
        asked = {label: everyone[label] for label in labels}
        methods = {arm.method for arm in asked.values()}
        others = {label: arm for label, arm in everyone.items() if arm.method not in methods}
        return self.model_copy(update={"arms": asked | others})


class Match(Settings):
    """One arm beside the plain LoRA of its cell."""

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

    def strong(self) -> float:
        """The arm's concept strength as shipped over the plain LoRA's; 0 where there is none."""
        own, end = final(self.points), self.end()
        return (own.concept or 0.0) / end.concept if own and end and end.concept else 0.0


def matches_of(board: Sequence[Cell], method: str) -> list[Match]:
    """A row of the board, in every cell that has it."""
    return [_match(cell, arm) for cell in board for arm in cell.arms.values() if arm.method == method]


def standings(board: Sequence[Cell]) -> list[Standing]:
    """One line per method, and the baselines; the least drift at equal concept first."""
    methods = dict.fromkeys(arm.method for cell in board for arm in cell.arms.values())
    found = [_standing(board, method) for method in methods]
    plain = next(own for own in found if own.method == PLAIN)
    found = [*found, *(_part_of_plain(plain, board, name) for name in (LOWER_WEIGHT, FEWER_STEPS))]
    return sorted(found, key=_order)


def _order(own: Standing) -> tuple[float, float]:
    whole = own.drift["1"]
    missed = 1 - whole.reached / whole.cells if whole.cells else 1.0
    return (float(missed > 0.5), whole.value if whole.value is not None else math.inf)


def _standing(board: Sequence[Cell], method: str) -> Standing:
    arms = [(arm, cell.arms[PLAIN]) for cell in board for arm in cell.arms.values() if arm.method == method]
    return Standing(
        method=method,
        strength=", ".join(dict.fromkeys(arm.strength for arm, _ in arms)),
        **_read(matches_of(board, method)),
        forwards=cost(arms, "forwards"),
        seconds=cost(arms, "seconds"),
        as_shipped={name: _mean(arm.numbers.get(name) for arm, _ in arms) for name in AS_SHIPPED},
    )


def _part_of_plain(plain: Standing, board: Sequence[Cell], name: str) -> Standing:
    """The plain LoRA turned down, or stopped early: what costs nothing."""

    def belongs(match: Match, point: Point) -> bool:
        end = match.end()
        return end is not None and (point.step == end.step if name == LOWER_WEIGHT else point.strength == 1.0)

    matches = [
        match.model_copy(update={"points": [p for p in match.points if belongs(match, p) and p.strength <= 1.0]})
        for match in matches_of(board, PLAIN)
    ]
    return plain.model_copy(update={"method": name, **_read(matches), "as_shipped": dict.fromkeys(AS_SHIPPED)})


def _read(matches: Sequence[Match]) -> dict[str, Any]:
    def ratios(quantity: Quantity, share: float = 1.0, chosen: Sequence[Match] = matches) -> Reading:
        return reading([match.ratio(quantity, share) for match in chosen], geometric_mean)

    return {
        "drift": {f"{share:g}": ratios("drift", share) for share in SHARES},
        "kept_out": ratios("drift", chosen=[match for match in matches if not match.tuned]),
        "bake": ratios("bake"),
        "tag_compliance": reading([match.read("tag_compliance") for match in matches], mean),
        "bleed": reading([match.read("bleed") for match in matches], mean),
        "volume": reading([hypervolume(match.points) for match in matches], mean),
    }


class Duel(NamedTuple):
    """A method beside another one. Methods get as strong as the plain LoRA in different cells, easy ones and hard ones:
    here only those count in which both do."""

    method: str
    strength: str
    drift: Reading
    """Over the other's, at the plain LoRA's strength."""
    less: int
    """Cells in which it drifts less."""
    bake: Reading
    """Over the other's, there."""
    sets: int
    """Ready sets among those cells."""
    alone: int
    """Cells in which it alone gets that strong."""
    missed: int
    """Cells in which the other alone does."""
    forwards: float | None
    """Over the other's, in the cells where both do."""


def duels(board: Sequence[Cell], other: str) -> list[Duel]:
    """Everyone but the plain LoRA beside this method, in the cells that have both; the least drift first."""
    whole = [cell for cell in board if other in _by_method(cell)]
    methods = dict.fromkeys(method for cell in whole for method in _by_method(cell))
    found = [_duel(whole, method, other) for method in methods if method not in (PLAIN, other)]
    return sorted(found, key=lambda own: own.drift.value if own.drift.value is not None else math.inf)


def _duel(board: Sequence[Cell], method: str, other: str) -> Duel:
    arms = [(cell, _by_method(cell)) for cell in board]
    pairs = [(cell, own[method], own[other]) for cell, own in arms if method in own]

    def over(quantity: Quantity) -> list[float | None]:
        values = [[_match(cell, arm).read(quantity) for arm in pair] for cell, *pair in pairs]
        return [own / others if own is not None and others else None for own, others in values]

    drift = over("drift")
    reached = [[_match(cell, arm).read("drift") is not None for arm in pair] for cell, *pair in pairs]
    both = [pair for pair, got in zip(pairs, reached, strict=True) if all(got)]
    return Duel(
        method=method,
        strength=", ".join(dict.fromkeys(own.strength for _, own, _ in pairs)),
        drift=reading(drift, geometric_mean),
        less=sum(ratio < 1 for ratio in drift if ratio is not None),
        bake=reading(over("bake"), geometric_mean),
        sets=len({cell.concept for cell, *_ in both}),
        alone=reached.count([True, False]),
        missed=reached.count([False, True]),
        forwards=cost([(own, others) for _, own, others in both], "forwards"),
    )


def _by_method(cell: Cell) -> dict[str, ArmOnBoard]:
    return {arm.method: arm for arm in cell.arms.values()}


def _match(cell: Cell, arm: ArmOnBoard) -> Match:
    return Match(tuned=cell.tuned, points=arm.points, plain=cell.arms[PLAIN].points)


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


def curve(board: Sequence[Cell], method: str, shares: Sequence[float]) -> Iterator[tuple[float, float]]:
    """(share of the plain LoRA's strength, drift over the plain LoRA's as shipped), where at least half of the cells
    get there."""
    matches = matches_of(board, method)
    for share in shares:
        found = [ratio for match in matches if (ratio := match.ratio("drift", share)) is not None]
        if found and 2 * len(found) >= len(matches):
            yield share, geometric_mean(found)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def geometric_mean(values: Sequence[float]) -> float:
    """For ratios: half and twice cancel."""
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return mean(found) if found else None


def cost(arms: Sequence[tuple[ArmOnBoard, ArmOnBoard]], metric: str) -> float | None:
    """The first over the second of each pair, cell by cell."""
    pairs = [(arm.numbers.get(metric), other.numbers.get(metric)) for arm, other in arms]
    return _mean(own / others for own, others in pairs if own is not None and others)


def numbers_of(numbers: ArmNumbers) -> dict[str, float | None]:
    """An arm's metrics in a cell, and of the parts of the drift that of the worst prompts."""
    drift = numbers["drift"].detail
    return {name: number.mean for name, number in numbers.items()} | {"drift_p95": drift[0]["p95"] if drift else None}


def reasons_of(numbers: ArmNumbers) -> dict[str, str]:
    """Why an arm has no number of a metric."""
    return {name: number.reason for name, number in numbers.items() if number.mean is None and number.reason}
