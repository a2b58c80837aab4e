"""Contract tests: every method of the catalogue gets them by being listed there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tenuto.families.base import Base
from tenuto.ranks import Ranks
from tenuto.regularizers.base import Regularizer, WeightSchedule
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.explained import SECTIONS, explain, held_by
from tenuto.training.loop import train
from tests.ranks import on_ranks
from tests.regularizers.cases import beside, methods, run_of
from tests.steps import equal, make_run

pytestmark = pytest.mark.parametrize("name", REGULARIZERS)


def trained(base: Base, folder: Path, own: Mapping[str, Regularizer], **more: Any) -> dict[str, torch.Tensor]:
    """The tensors of the LoRA file."""
    run = make_run(base, folder, own, **more)
    try:
        return load_file(train(run))
    finally:
        run.adapter.detach()


KNOWN: dict[str, dict[str, torch.Tensor]] = {}
"""Trainings that several tests compare with: the same draws on the same weights give the same tensors."""


def without(name: str, base: Base, folder: Path) -> dict[str, torch.Tensor]:
    key = f"without {name}" if run_of(name) else repr(beside(name))
    if key not in KNOWN:
        KNOWN[key] = trained(base, folder / "without", beside(name), **run_of(name))
    return KNOWN[key]


def loud(name: str, base: Base, folder: Path) -> dict[str, torch.Tensor]:
    if name not in KNOWN:
        KNOWN[name] = trained(base, folder / "loud", methods(name), **run_of(name))
    return KNOWN[name]


def test_weight_zero_is_absence(name: str, tiny_base: Base, tmp_path: Path) -> None:
    silent = trained(tiny_base, tmp_path / "silent", methods(name, weight=0.0), **run_of(name))
    assert equal(silent, without(name, tiny_base, tmp_path))


def test_it_does_something(name: str, tiny_base: Base, tmp_path: Path) -> None:
    assert not equal(loud(name, tiny_base, tmp_path), without(name, tiny_base, tmp_path))


def test_gradients_reach_the_adapter_and_nothing_else(name: str, tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, methods(name), **run_of(name))
    with torch.no_grad():
        for parameter in run.adapter.parameters():
            parameter.add_(0.01)
    run.learn(next(run.remaining()))
    own = run.adapter.parameters()
    assert all(parameter.grad is not None for parameter in own)
    assert sum(bool(parameter.grad.any()) for parameter in own if parameter.grad is not None) > len(own) / 2
    mine = {id(parameter) for parameter in own}
    others = [p for module in tiny_base.modules().values() for p in module.parameters() if id(p) not in mine]
    assert others
    assert all(parameter.grad is None for parameter in others)


def test_interrupted_equals_uninterrupted(name: str, tiny_base: Base, tmp_path: Path) -> None:
    more = {"steps": 6, **run_of(name), "save_every": 3}
    whole = trained(tiny_base, tmp_path / "whole", methods(name), **more)
    run = make_run(tiny_base, tmp_path / "cut", methods(name), **more)
    run.stop = lambda: run.done == 3
    with pytest.raises(Exception, match="stopped after update 3 of "):
        train(run)
    run.adapter.detach()
    assert equal(trained(tiny_base, tmp_path / "cut", methods(name), **more), whole)


def test_micro_batches_add_up(name: str, tiny_base: Base, tmp_path: Path) -> None:
    whole = loud(name, tiny_base, tmp_path)
    cut = trained(tiny_base, tmp_path / "cut", methods(name), micro_batch=1, **run_of(name))
    for key, value in whole.items():
        torch.testing.assert_close(cut[key], value, rtol=1e-3, atol=2e-5)


def test_two_processes_equal_one(name: str, tiny_base: Base, tmp_path: Path) -> None:
    """Each has half of every update's rows; both end with the same bits, which are one process's but for rounding."""

    def work(ranks: Ranks) -> None:
        run = make_run(tiny_base, tmp_path / "two", methods(name), ranks=ranks, **run_of(name))
        train(run)
        save_file(run.adapter.state(), tmp_path / f"rank-{ranks.rank}.safetensors")

    on_ranks(work)
    first, second = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(2))
    assert equal(first, second)
    together = load_file(tmp_path / "two" / "lora.safetensors")
    for key, value in loud(name, tiny_base, tmp_path).items():
        torch.testing.assert_close(together[key], value, rtol=1e-3, atol=2e-5)


def test_schedule_decides_the_weight(name: str) -> None:
    schedule = WeightSchedule(shape="linear", minimum=0.2, until_epoch=10)
    method = methods(name)[name].model_copy(update={"schedule": schedule})
    start = method.weight
    assert [method.weight_at(epoch) for epoch in (0, 5, 10, 50)] == pytest.approx([start, (start + 0.2) / 2, 0.2, 0.2])


def test_what_the_schedule_took_to_nothing_is_out_of_the_loss(name: str, tiny_base: Base, tmp_path: Path) -> None:
    gone = WeightSchedule(shape="linear", minimum=0.0, until_epoch=1e-6)
    own = methods(name)
    run = make_run(tiny_base, tmp_path, own | {name: own[name].model_copy(update={"schedule": gone})}, **run_of(name))
    with torch.no_grad():
        for parameter in run.adapter.parameters():
            parameter.add_(0.01)
    updates = run.remaining()
    before = run.learn(next(updates))
    run.apply()
    after = run.learn(next(updates))
    run.adapter.detach()
    assert before.get(name) != 0.0
    assert after.get(name, 0.0) == 0.0


def test_told_by_the_setting_that_turns_it(name: str) -> None:
    method = REGULARIZERS[name]()
    value = getattr(method, method.dial)
    assert held_by({name: method}) == f"held by {name} ({method.dial} {value:g})"
    assert method.dial in explain(type(method))["settings"]


def test_documented(name: str) -> None:
    own = explain(REGULARIZERS[name])
    assert all(own.get(word.lower()) for word in SECTIONS), "a docstring with formula, when, paper, cost and when not"
