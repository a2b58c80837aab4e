"""Comparison at matched concept strength: arms are curves, never single points.

An arm's curve is its points (checkpoint x strength), each with concept strength, drift, bake and tag compliance. The
question is what the held arm's drift is where its concept is exactly as strong as the plain LoRA's; the answer is read
off by straight lines between neighbouring points, and is "not reached" outside them: nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from tenuto.randomness import shuffler
from tenuto.words import Settings

Quantity = Literal["drift", "bake", "bleed", "tag_compliance"]
COMPARED: tuple[Quantity, ...] = ("drift", "bake", "tag_compliance")
"""What arms are compared by where their concepts are equally strong: named as their metrics."""
Level = Literal["weaker", "plain", "held"]
"""The arm whose concept strength, as shipped, both are compared at; weaker: in each seed the weaker one's, so that
nothing is chosen by the outcome and hardly a seed is left out."""
RESAMPLES = 2000


class Point(Settings):
    """One measured state of an arm."""

    step: int
    """Updates of training."""
    strength: float
    """1 = as trained."""
    seed: int
    concept: float | None
    """Concept strength."""
    drift: float | None = None
    """nD."""
    bake: float | None = None
    """Share of other tag groups that change."""
    bleed: float | None = None
    """How much more often the set's own style shows unasked."""
    tag_compliance: float | None = None
    """Prompted tags that are still drawn, over the base's."""
    seconds: float | None = None
    """Training time up to this checkpoint."""
    forwards: float | None = None
    """Network passes up to this checkpoint."""


class Matched(Settings):
    """What an arm's curve says at a given concept strength."""

    at: float
    """The concept strength asked for."""
    tolerance: float
    """How far off the nearest measured point may be when no line crosses it, as a share of `at`."""
    value: float | None
    """Read off the curve; null: not reached."""
    how: Literal["interpolated", "within tolerance", "not reached"]


class Ratio(Settings):
    """The held arm's number over the plain LoRA's at the same concept strength, over seeds."""

    quantity: Quantity
    level: Level = "plain"
    tolerance: float
    mean: float | None
    """Mean over the seeds that reached it."""
    per_seed: list[float | None]
    interval: tuple[float, float] | None
    """Bootstrap 95 % over seeds; null with fewer than two."""
    reached: int
    """Seeds in which the other arm's curve reached that concept strength."""


def lines(points: Sequence[Point]) -> list[list[Point]]:
    """The curves of one seed: checkpoints at full strength, and each checkpoint's strengths, each in order."""
    by_step = [
        sorted((p for p in points if p.step == step), key=lambda p: p.strength) for step in {p.step for p in points}
    ]
    full = sorted((p for p in points if p.strength == 1.0), key=lambda p: p.step)
    return [full, *(line for line in by_step if len(line) > 1)]


def measured(points: Sequence[Point]) -> list[Quantity]:
    """What arms are compared by, as far as these points have it."""
    return [name for name in COMPARED if any(getattr(point, name) is not None for point in points)]


def at_concept(
    points: Sequence[Point], concept: float, quantity: Quantity = "drift", tolerance: float = 0.02
) -> Matched:
    """The best value that the arm's curves have at this concept strength: the lowest, of tag compliance the highest."""
    usable = [p for p in points if p.concept is not None and getattr(p, quantity) is not None]
    best = max if quantity == "tag_compliance" else min
    found: list[float] = []
    for line in lines(usable):
        for left, right in pairwise(line):
            a, b = _concept(left), _concept(right)
            if min(a, b) <= concept <= max(a, b):
                share = (concept - a) / (b - a) if b != a else 1.0
                y0, y1 = getattr(left, quantity), getattr(right, quantity)
                found.append(y0 + share * (y1 - y0) if b != a else best(y0, y1))
    if found:
        return Matched(at=concept, tolerance=tolerance, value=best(found), how="interpolated")
    close = [p for p in usable if abs(_concept(p) - concept) <= tolerance * abs(concept)]
    if close:
        return Matched(
            at=concept, tolerance=tolerance, value=best(getattr(p, quantity) for p in close), how="within tolerance"
        )
    return Matched(at=concept, tolerance=tolerance, value=None, how="not reached")


def _concept(point: Point) -> float:
    assert point.concept is not None
    return point.concept


def final(points: Sequence[Point]) -> Point | None:
    """The arm as it would be shipped: the last checkpoint at full strength."""
    full = [p for p in points if p.strength == 1.0]
    return max(full, key=lambda p: p.step) if full else None


def compare_curves(
    plain: Sequence[Point],
    held: Sequence[Point],
    quantity: Quantity = "drift",
    tolerance: float = 0.02,
    seed: int = 0,
    level: Level = "weaker",
) -> Ratio:
    """held / plain at the concept strength of one of them as shipped (of the weaker one, by default), seed by seed.

    Both numbers are read off the arms' curves at that strength, lower weights and earlier checkpoints included: the
    trivial remedy of turning the LoRA down is part of the comparison.
    """
    seeds = sorted({p.seed for p in plain} & {p.seed for p in held})
    ratios: list[float | None] = []
    for number in seeds:
        arms = {name: [p for p in points if p.seed == number] for name, points in (("plain", plain), ("held", held))}
        ends = {name: end for name, points in arms.items() if (end := final(points)) and end.concept is not None}
        chosen = [_concept(end) for name, end in ends.items() if level in ("weaker", name)]
        if not chosen or len(ends) < len(arms):
            ratios.append(None)
            continue
        found = {name: at_concept(points, min(chosen), quantity, tolerance).value for name, points in arms.items()}
        for name, end in ends.items():  # a lone point has no line through it
            if found[name] is None and end.concept == min(chosen):
                found[name] = getattr(end, quantity)
        ratios.append(found["held"] / found["plain"] if found["held"] is not None and found["plain"] else None)
    reached = [value for value in ratios if value is not None]
    mean = sum(reached) / len(reached) if reached else None
    return Ratio(
        quantity=quantity,
        level=level,
        tolerance=tolerance,
        mean=mean,
        per_seed=ratios,
        interval=bootstrap(reached, seed=seed),
        reached=len(reached),
    )


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = lambda chosen: sum(chosen) / len(chosen),
    seed: int = 0,
) -> tuple[float, float] | None:
    """95 % percentile interval of a statistic over resampled seeds (Efron 1979). None with fewer than two values."""
    if len(values) < 2:
        return None
    rng = shuffler(seed, "bootstrap")
    drawn = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]
