"""Contract tests: every method of the catalogue gets them by being listed there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tenuto.families.base import Base
from tenuto.regularizers.base import Regularizer, WeightSchedule
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.training.loop import train
from tests.steps import equal, make_run

pytestmark = pytest.mark.parametrize("name", REGULARIZERS)


def trained(base: Base, folder: Path, methods: dict[str, Regularizer], **more: object) -> dict[str, torch.Tensor]:
    run = make_run(base, folder, methods, **more)  # type: ignore[arg-type]
    try:
        train(run)
        return run.adapter.state()
    finally:
        run.adapter.detach()


def test_weight_zero_is_absence(name: str, tiny_base: Base, tmp_path: Path) -> None:
    silent = REGULARIZERS[name](weight=0.0)
    assert equal(trained(tiny_base, tmp_path / "a", {name: silent}), trained(tiny_base, tmp_path / "b", {}))


def test_it_does_something(name: str, tiny_base: Base, tmp_path: Path) -> None:
    loud = REGULARIZERS[name](weight=1.0)
    assert not equal(trained(tiny_base, tmp_path / "a", {name: loud}), trained(tiny_base, tmp_path / "b", {}))


def test_gradients_reach_only_the_adapter(name: str, tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {name: REGULARIZERS[name](weight=1.0)})
    for rows in run.remaining():
        run.learn(rows)
        break
    own = {id(parameter) for parameter in run.adapter.parameters()}
    for module in tiny_base.modules().values():
        for parameter in module.parameters():
            assert (parameter.grad is not None) == (id(parameter) in own) or parameter.grad is None


def test_interrupted_equals_uninterrupted(name: str, tiny_base: Base, tmp_path: Path) -> None:
    methods = {name: REGULARIZERS[name](weight=1.0)}
    whole = trained(tiny_base, tmp_path / "whole", methods, steps=6, save_every=3)
    run = make_run(tiny_base, tmp_path / "cut", methods, steps=6, save_every=3)
    run.stop = lambda: run.done == 3
    with pytest.raises(Exception, match="stopped after update 3 of 6"):
        train(run)
    run.adapter.detach()
    assert equal(trained(tiny_base, tmp_path / "cut", methods, steps=6, save_every=3), whole)


def test_micro_batches_add_up(name: str, tiny_base: Base, tmp_path: Path) -> None:
    methods = {name: REGULARIZERS[name](weight=1.0)}
    whole = trained(tiny_base, tmp_path / "a", methods)
    cut = trained(tiny_base, tmp_path / "b", methods, micro_batch=1)
    for key, value in whole.items():
        torch.testing.assert_close(cut[key], value, rtol=1e-3, atol=2e-5)


def test_schedule_decides_what_is_logged_and_what_is_in_the_loss(name: str) -> None:
    method = REGULARIZERS[name](weight=1.0, schedule=WeightSchedule(shape="linear", minimum=0.2, until_epoch=10))
    assert [method.weight_at(epoch) for epoch in (0, 5, 10, 50)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_documented(name: str) -> None:
    text = REGULARIZERS[name].__doc__ or ""
    assert all(word in text for word in ("Paper", "Cost", "Avoid")), (
        "a docstring with formula, paper, cost and when not"
    )
