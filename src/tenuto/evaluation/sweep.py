"""sweep.json: many arms of one project, compared on each of its concepts, as plain data."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tenuto.evaluation.curve import Ratio, compare_curves, measured
from tenuto.evaluation.record import ArmNumbers, Comparison, Sealed
from tenuto.words import Settings

FORMAT = 1
TOLERANCE = 0.05


class ArmRecord(Settings):
    """What was done in one arm: law 2's three numbers and all settings."""

    name: str
    changes: dict[str, Any] = Field(default_factory=dict)
    """How it differs from the sweep's project."""
    updates: int
    pool: int
    """Prior images that exist."""
    ratio: dict[str, float]
    """Prior rows per instance row, by concept."""
    weight: dict[str, float]
    """Of each active method, or what else turns it."""
    prior_rows: int
    used: int
    """Different prior images that were trained on."""
    unused: int
    settings: str = ""
    """The arm's whole project."""


class OnConcept(Settings):
    """All arms on one concept."""

    folder: str
    """Where its comparison.json and pictures are, under the sweep's folder."""
    arms: dict[str, ArmNumbers]
    matched: dict[str, list[Ratio]]
    """Arm -> its number over the reference's at equal concept strength: the reference's as shipped ("plain"), or,
    where the arm never gets there, the arm's own ("held")."""
    trigger: str = ""
    elsewhere: dict[str, ArmNumbers] = Field(default_factory=dict)
    """The same on comparison.other_base, where one was asked for."""


class SweepResult(Sealed):
    """sweep.json"""

    what = "a sweep's result"
    remedy = "run tenuto sweep again"

    format: int = FORMAT
    name: str
    about: str = ""
    seeds: list[int]
    reference: str
    """The arm that the others are compared with."""
    arms: list[ArmRecord] = Field(default_factory=list)
    concepts: dict[str, OnConcept]


def on_concept(comparison: Comparison, reference: str, folder: str, elsewhere: Comparison | None = None) -> OnConcept:
    """The numbers of a comparison, and every arm against the reference at equal concept strength."""
    curves = comparison.curves
    return OnConcept(
        folder=folder,
        arms=comparison.arms,
        matched={
            arm: [
                compare_curves(curves[reference], curves[arm], quantity, TOLERANCE)
                for quantity in measured(curves[reference])
            ]
            for arm in comparison.arms
            if reference in curves and arm != reference
        },
        trigger=comparison.concept.get("trigger", ""),
        elsewhere=elsewhere.arms if elsewhere else {},
    )
