"""Matched comparison: interpolation, tolerance, "not reached", bootstrap."""

from __future__ import annotations

import pytest

from tenuto.evaluation.curve import Point, at_concept, bootstrap, compare_curves, final, measured


def point(step: int, concept: float | None, drift: float | None, strength: float = 1.0, seed: int = 0) -> Point:
    return Point(step=step, strength=strength, seed=seed, concept=concept, drift=drift)


def test_reads_between_neighbouring_checkpoints() -> None:
    found = at_concept([point(1, 0.2, 0.1), point(2, 0.6, 0.5)], 0.5)
    assert found.value == pytest.approx(0.4)
    assert found.how == "interpolated"


def test_takes_the_lowest_of_checkpoints_and_weights() -> None:
    points = [
        point(1, 0.2, 0.1),
        point(2, 0.6, 0.5),
        point(2, 0.4, 0.15, strength=0.5),
        point(2, 0.7, 0.9, strength=1.5),
    ]
    assert at_concept(points, 0.4).value == pytest.approx(0.15)


def test_of_tag_compliance_it_takes_the_highest() -> None:
    points = [
        point(step, concept, None, strength).model_copy(update={"tag_compliance": compliance})
        for step, concept, strength, compliance in ((1, 0.2, 1.0, 1.0), (2, 0.6, 1.0, 0.6), (2, 0.4, 0.5, 0.9))
    ]
    assert at_concept(points, 0.4, "tag_compliance").value == pytest.approx(0.9)
    assert at_concept(points, 0.5, "tag_compliance").value == pytest.approx(0.75)
    assert at_concept(points, 0.3, "tag_compliance").value == pytest.approx(0.9)
    assert measured(points) == ["tag_compliance"]


def test_does_not_join_points_of_different_kinds() -> None:
    """An early checkpoint and a weight of the last one are not neighbours."""
    points = [point(1, 0.2, 0.1), point(9, 0.9, 1.0, strength=1.5)]
    assert at_concept(points, 0.5).how == "not reached"


@pytest.mark.parametrize(("tolerance", "how"), [(0.02, "not reached"), (0.05, "within tolerance")])
def test_never_extrapolates(tolerance: float, how: str) -> None:
    found = at_concept([point(1, 0.3, 0.1), point(2, 0.48, 0.2)], 0.5, tolerance=tolerance)
    assert found.how == how
    assert found.value == (0.2 if how == "within tolerance" else None)


def test_equal_neighbours_do_not_divide_by_zero() -> None:
    assert at_concept([point(1, 0.5, 0.3), point(2, 0.5, 0.2)], 0.5).value == pytest.approx(0.2)


def test_points_without_numbers_are_left_out() -> None:
    assert at_concept([point(1, None, 0.1), point(2, 0.5, None)], 0.5).how == "not reached"


def test_ratio_over_seeds_against_plain_as_shipped() -> None:
    plain = [point(n, c, d, seed=s) for s in (0, 1) for n, c, d in ((1, 0.4, 1.0), (2, 0.8, 2.0))]
    held = [point(n, c, d, seed=s) for s in (0, 1) for n, c, d in ((1, 0.4, 0.2), (2, 0.9, 0.45 + 0.5 * s))]
    found = compare_curves(plain, held)
    assert found.per_seed == pytest.approx([0.4 / 2, 0.8 / 2])
    assert found.mean == pytest.approx(0.3)
    assert found.reached == 2
    assert found.interval is not None
    assert found.interval[0] >= 0.2 - 1e-9
    assert found.interval[1] <= 0.4 + 1e-9


def test_plain_turned_down_competes() -> None:
    """Where the plain LoRA has the same concept at less drift elsewhere on its curve, that is what counts."""
    plain = [point(1, 0.8, 0.5), point(2, 0.7, 1.0), point(3, 0.8, 2.0)]
    held = [point(1, 0.7, 0.2), point(2, 0.9, 0.4)]
    assert compare_curves(plain, held).per_seed == pytest.approx([0.3 / 0.5])


def test_not_reached_is_said() -> None:
    found = compare_curves([point(1, 0.8, 1.0)], [point(1, 0.2, 0.1)], level="plain")
    assert (found.mean, found.per_seed, found.reached, found.interval) == (None, [None], 0, None)


def test_at_the_held_strength_the_plain_lora_is_turned_down() -> None:
    plain = [point(2, 0.8, 1.0), point(2, 0.4, 0.25, strength=0.5)]
    held = [point(1, 0.3, 0.02), point(2, 0.6, 0.125)]
    found = compare_curves(plain, held, level="held")
    assert found.per_seed == pytest.approx([0.125 / 0.625])
    assert compare_curves(plain, held).per_seed == found.per_seed, "the held one is the weaker"
    assert compare_curves(plain, held, level="plain").per_seed == [None]


def test_each_seed_is_read_at_its_own_weaker_arm() -> None:
    def line(seed: int, strongest: float, drift: float) -> list[Point]:
        return [point(n, strongest * n / 2, drift * n, seed=seed) for n in (1, 2)]

    found = compare_curves(line(0, 0.8, 1.0) + line(1, 0.4, 1.0), line(0, 0.4, 0.1) + line(1, 0.8, 0.1))
    assert found.per_seed == pytest.approx([0.2 / 1.0, 0.1 / 2.0])
    assert found.reached == 2


def test_final_is_the_last_checkpoint_at_full_strength() -> None:
    end = final([point(1, 0.1, 0.1), point(2, 0.2, 0.2), point(2, 0.3, 0.3, strength=1.5)])
    assert end is not None
    assert (end.step, end.strength) == (2, 1.0)
    assert final([]) is None


def test_bootstrap_is_seeded_and_inside_the_data() -> None:
    first = bootstrap([1.0, 2.0, 4.0])
    assert first == bootstrap([1.0, 2.0, 4.0])
    assert first is not None
    assert 1.0 <= first[0] <= 7 / 3 <= first[1] <= 4.0
    assert bootstrap([1.0]) is None
    assert bootstrap([2.0, 2.0]) == (2.0, 2.0)
