"""How the leaderboard's strengths are chosen, on cells made by hand."""

from __future__ import annotations

import pytest
from benchmarks.entries import company
from benchmarks.standings import Cell
from benchmarks.trial import Trial

from tests.boards import arm, cell, points

STRONG = (1.5, 0.7, 9.0)


def first() -> Cell:
    """The plain LoRA has a drift of 8 at .6."""
    return cell(
        "one", 3, True,
        arm("hold", "weak", points((1.0, 0.59, 7.0), STRONG)),
        arm("hold", "right", points((1.0, 0.5, 0.5), (1.5, 0.7, 1.5))),
        arm("hold", "edge", points((1.0, 0.5, 0.2), (1.5, 0.7, 0.6))),
        arm("hold", "hard", points((1.0, 0.3, 0.1), (1.5, 0.7, 0.3))),
        arm("lost", "weak", points((1.0, 0.1, 0.5))),
        arm("lost", "hard", points((1.0, 0.05, 0.1))),
        arm("idle", "some", points((1.0, 0.6, 7.9))),
        arm("idle", "more", points((1.0, 0.6, 7.8))),
    )  # fmt: skip


def test_the_best_strength_is_one_at_which_the_concept_is_learned() -> None:
    trial = Trial(first())
    assert trial.chosen() == {
        "hold": "hold, edge",
        "lost": "lost, weak",  # the strongest, where none will do
        "idle": "idle, more",  # the least drift, where none holds
    }
    assert trial.holding() == trial.wanted() == ["hold, edge"]


def test_what_fails_on_the_second_set_gives_way_to_the_next_that_held_on_the_first() -> None:
    """`edge` learns a third there; `right` holds."""
    edge, right = arm("hold", "edge", points((1.0, 0.2, 0.1))), arm("hold", "right", points((1.0, 0.6, 1.0)))
    one = Trial(first(), cell("other", 3, True, edge))
    assert one.wanted() == ["hold, right"]
    two = one._replace(second=cell("other", 3, True, edge, right))
    assert (two.wanted(), two.holding()) == ([], ["hold, right"])
    assert two.chosen()["hold"] == "hold, right"
    none = one._replace(second=cell("other", 3, True, edge, arm("hold", "right", points((1.0, 0.6, 7.9)))))
    assert (none.wanted(), none.holding()) == ([], []), "`weak` and `hard` did not hold on the first set"
    assert none.chosen()["hold"] == "hold, edge"
    assert [own.concept for own in none.cells()] == ["one", "other"]


def test_a_method_that_needs_company_has_to_add_to_it() -> None:
    alone = arm("hold", "alone", points((1.0, 0.6, 1.0)))
    little, much = arm("helper", "a", points((1.0, 0.6, 0.9))), arm("helper", "b", points((1.0, 0.6, 0.7)))
    beside = {"helper": "hold, alone"}
    together = Trial(cell("one", 3, True, alone, little, much), beside=beside)
    own = together.outcome("helper, a", together.first)
    assert own is not None
    assert (own.drift, own.most) == (pytest.approx(0.9 / 8), pytest.approx(0.8 / 8))
    assert together.holding() == ["hold, alone", "helper, b"]
    apart = Trial(cell("one", 3, True, little), beside=beside)
    assert apart.holding() == ["helper, a"], "nobody knows what its company does alone"
    assert company()["hard_prompts"] == company()["drift_controller"] == "cached_prior, weight 0.1"
    assert "cached_prior" not in company()
