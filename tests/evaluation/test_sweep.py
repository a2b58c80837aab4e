"""A sweep's numbers and drawings, from invented curves."""

from __future__ import annotations

import pytest

from tenuto.evaluation.curve import Point
from tenuto.evaluation.figures import curve_figure
from tenuto.evaluation.record import Comparison, Number
from tenuto.evaluation.sweep import ArmRecord, SweepResult, on_concept
from tenuto.evaluation.sweep_page import absent, table_of

ARMS = ("none", "x1", "x25", "x50", "weak")


def curve(scale: float, strongest: float) -> list[Point]:
    """Two seeds, three strengths of one checkpoint."""
    return [
        Point(step=10, strength=s, seed=seed, concept=s * strongest, drift=scale * s * s, bake=scale * s / 10)
        for seed in (0, 1)
        for s in (0.5, 1.0, 1.5)
    ]


def comparison() -> Comparison:
    curves = {arm: curve(8.0 / (n + 1), 0.35 if arm == "weak" else 0.6) for n, arm in enumerate(ARMS)}
    numbers = {
        arm: {"drift": Number(mean=1.0, per_seed=[1.0, 1.0]), "bake": Number(mean=None, reason="nobody looked")}
        for arm in ARMS
    }
    return Comparison(arms=numbers, curves=curves, concept={"name": "c", "trigger": "zxq"})


def test_every_arm_is_matched_with_the_reference() -> None:
    on = on_concept(comparison(), "none", "comparison/c")
    drift = {arm: next(ratio for ratio in on.matched[arm] if ratio.quantity == "drift") for arm in ARMS[1:]}
    assert drift["x1"].mean == pytest.approx(1 / 2)
    assert drift["x50"].mean == pytest.approx(1 / 4)
    assert all(own.level == "weaker" for own in drift.values())
    assert drift["weak"].reached == 2, "it never gets as strong: both are read at its own strength"
    assert "none" not in on.matched


def test_the_table_leaves_out_what_nobody_measured_and_says_why() -> None:
    on = on_concept(comparison(), "none", "comparison/c")
    record = ArmRecord(name="", updates=10, pool=5, ratio={"c": 0.5}, weight={}, prior_rows=3, used=3, unused=2)
    records = [record.model_copy(update={"name": arm}) for arm in ARMS]
    result = SweepResult(name="ask", seeds=[0, 1], reference="none", arms=records, concepts={"c": on})
    table = table_of(result, "c")
    assert table.columns == ("pool", "ratio", "weight", "updates", "Drift (nD)", "Drift (nD) at equal concept")
    assert [cell.text for cell in table.rows["x1"]] == ["5", "0.5", "none", "10", "1.0 (100 %)", "× 0.50"]
    assert table.rows["x1"][0].more == "3 used, 2 unused"
    assert table.rows["none"][-1].text == "1"
    assert table.rows["weak"][-1].more == "2 of 2 seeds"
    assert absent(on)["bake"] == "nobody looked"


def test_many_arms_have_a_legend_and_colours_of_their_own() -> None:
    svg = curve_figure(comparison().curves, "drift", "concept", "drift")
    assert svg is not None
    assert all(f">{arm}<" in svg for arm in ARMS)
    assert "weight 1<" not in svg
    assert all(f"var(--{name})" in svg for name in ("third", "fourth", "fifth", "sixth", "seventh"))
    few = curve_figure({arm: comparison().curves[arm] for arm in ARMS[:2]}, "drift", "concept", "drift")
    assert few is not None
    assert ">none, weight 1<" in few
