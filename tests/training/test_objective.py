"""The loss equation against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from tenuto.regularizers.base import WeightSchedule
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.objective import objective
from tests.steps import hand_step


def constant(*values: float) -> torch.Tensor:
    """[B 1 2 2], each row one number."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def test_by_hand() -> None:
    # instance rows answer 1 and 3 for targets 0 and 1: errors 1 and 4, mean 2.5
    # prior rows answer 2 and 5; targets 0 and 1: errors 4 and 16, mean 10
    # the base says 1 and 5: gaps 1 and 0, mean 0.5
    step = hand_step(
        constant(1, 3, 2, 5), constant(9, 9, 1, 5), constant(0, 1, 0, 1), ("instance", "instance", "prior", "prior")
    )
    terms = objective(step, {"a": PriorPreservation(weight=0.25), "b": PriorPrediction(weight=8)})
    assert {name: float(value) for name, value in terms.items()} == {"instance": 2.5, "a": 2.5, "b": 4.0}


def test_roles_are_averaged_apart() -> None:
    """One prior row or five: the same weight of the prior."""
    few = hand_step(constant(1, 2), constant(0, 0), constant(0, 0), ("instance", "prior"))
    many = hand_step(constant(1, *[2] * 5), constant(*[0] * 6), constant(*[0] * 6), ("instance", *["prior"] * 5))
    method = {"p": PriorPreservation(weight=1.0)}
    assert float(objective(few, method)["p"]) == pytest.approx(float(objective(many, method)["p"]))


def test_rows_may_come_in_any_order() -> None:
    method = {"p": PriorPreservation(weight=1.0)}
    one = hand_step(constant(1, 2, 3), constant(0, 0, 0), constant(0, 0, 0), ("instance", "prior", "instance"))
    two = hand_step(constant(2, 3, 1), constant(0, 0, 0), constant(0, 0, 0), ("prior", "instance", "instance"))
    assert objective(one, method) == objective(two, method)


def test_a_batch_of_one_role_works() -> None:
    method = {"p": PriorPreservation(weight=1.0)}
    assert set(objective(hand_step(constant(1), constant(0), constant(0), ("instance",)), method)) == {"instance"}
    assert set(objective(hand_step(constant(1), constant(0), constant(0), ("prior",)), method)) == {"p"}


def test_the_weight_in_the_loss_follows_its_schedule() -> None:
    method = PriorPreservation(weight=1.0, schedule=WeightSchedule(shape="cosine", minimum=0.5, until_epoch=4))
    for epoch in (0.0, 1.0, 2.0, 4.0, 9.0):
        step = hand_step(constant(1), constant(0), constant(0), ("prior",), epoch)
        assert float(objective(step, {"p": method})["p"]) == pytest.approx(method.weight_at(epoch))
    assert method.weight_at(2.0) == pytest.approx(0.75)


def test_the_teacher_is_asked_once_and_only_for_prior_rows() -> None:
    asked: list[tuple[int, bool]] = []
    step = hand_step(constant(1, 2), constant(0, 1), constant(0, 0), ("instance", "prior"))
    inner = step.model

    def counted(x_t, t, cond, *, adapter):  # type: ignore[no-untyped-def]
        asked.append((len(t), adapter))
        return inner(x_t, t, cond, adapter=adapter)

    object.__setattr__(step, "model", counted)
    objective(step, {"a": PriorPrediction(weight=1), "b": PriorPrediction(weight=2)})
    assert asked == [(2, True), (1, False)]
