"""Leaderboards made by hand."""

from __future__ import annotations

from benchmarks.standings import ArmOnBoard, Cell

from tenuto.evaluation.curve import Point


def points(*triples: tuple[float, float, float], steps: int = 100) -> list[Point]:
    """(strength, concept, drift) of the last checkpoint."""
    return [
        Point(step=steps, strength=s, seed=0, concept=c, drift=d, bake=d / 10, bleed=0.0, tag_compliance=1 - d / 20)
        for s, c, d in triples
    ]


def arm(method: str, strength: str, own: list[Point], forwards: float = 100.0, **numbers: float | None) -> ArmOnBoard:
    found: dict[str, float | None] = {
        "forwards": forwards, "seconds": 1.0, "usable_weight": 1.5, "concept_strength": 0.5, "pres": 0.04, "div": None,
        **numbers,
    }  # fmt: skip
    return ArmOnBoard(
        method=method, strength=strength, points=own, numbers=found, reasons={"div": "it needs two noise seeds"}
    )


def plain_arm() -> ArmOnBoard:
    return arm("plain", "", points((0.5, 0.3, 2.0), (1.0, 0.6, 8.0)), additivity=0.5)


def cell(name: str, seed: int, tuned: bool, *arms: ArmOnBoard) -> Cell:
    own = {f"{own.method}, {own.strength}": own for own in arms}
    return Cell(concept=name, kind="concept", tuned=tuned, seed=seed, updates=100, arms={"plain": plain_arm(), **own})


def board() -> list[Cell]:
    """`hold` has an eighth of the plain LoRA's drift on one set, a quarter on the other; `tight` never gets there."""
    low = points((1.0, 0.5, 0.5), (1.5, 0.7, 1.5))  # 1 at the plain LoRA's .6
    flat = points((1.0, 0.5, 1.0), (1.5, 0.7, 3.0))  # 2 there
    weak = points((1.0, 0.2, 0.1), (1.5, 0.3, 0.2))
    return [
        cell(
            name, seed, tuned,
            arm("hold", "weight 2", own, forwards=120, usable_weight=None if seed else 1.5),
            arm("tight", "weight 1", weak, forwards=300),
        )
        for seed in (0, 1)
        for name, tuned, own in (("tuned", True, low), ("kept", False, flat))
    ]  # fmt: skip
