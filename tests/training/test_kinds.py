"""Every kind of adapter through trainings, with the methods that touch adapters, and through whole jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tenuto.adapters.adapter import AdapterSettings
from tenuto.adapters.files import read_lora
from tenuto.adapters.tuners.catalogue import TUNERS
from tenuto.events import Event
from tenuto.families.base import Base
from tenuto.regularizers.adapter_dropout import AdapterDropout
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.ema_average import EmaAverage
from tenuto.regularizers.gram_penalty import GramPenalty
from tenuto.regularizers.l2_to_base import L2ToBase
from tenuto.regularizers.max_norm import MaxNorm
from tenuto.regularizers.overdriven_prior import OverdrivenPrior
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.random_strength import RandomStrength
from tenuto.regularizers.weight_decay import WeightDecay
from tenuto.training.loop import train
from tenuto.words import TenutoError
from tenuto.work.prepare import audited, prepare
from tenuto.work.train import train_all
from tests.steps import equal, make_run
from tests.training.test_job import project

OTHERS = [kind for kind in TUNERS if kind != "lora"]
TOUCHING: dict[str, Regularizer] = {
    "l2_to_base": L2ToBase(weight=1.0),
    "gram_penalty": GramPenalty(weight=1.0),
    "weight_decay": WeightDecay(weight=10.0),
    "ema_average": EmaAverage(),
    "adapter_dropout": AdapterDropout(weight=0.5, what="module"),
    "overdriven_prior": OverdrivenPrior(),
    "random_strength": RandomStrength(),
    "max_norm": MaxNorm(limit=1e-4),
}
"""Methods that look at the adapter or change it."""
PRIOR = {"prior_prediction": PriorPrediction(weight=10.0)}


def fitting(kind: str) -> dict[str, Regularizer]:
    """Those that take this kind."""
    traits = TUNERS[kind].traits
    return {name: own for name, own in TOUCHING.items() if own.needs_trait() is None or own.needs_trait() in traits}


def settings(kind: str) -> dict[str, Any]:
    return {
        "adapter": AdapterSettings(
            kind=kind, rank=4, parts=("attention", "convolution"), only=("lora_unet.mid_block.*",)
        )
    }


def trained(base: Base, folder: Path, own: dict[str, Regularizer], **more: Any) -> dict[str, torch.Tensor]:
    run = make_run(base, folder, own, **more)
    try:
        return load_file(train(run))
    finally:
        run.adapter.detach()


@pytest.mark.parametrize("kind", OTHERS)
def test_it_goes_on_bit_for_bit_with_all_methods_at_once(kind: str, tiny_base: Base, tmp_path: Path) -> None:
    more = {"steps": 4, "save_every": 2, **settings(kind)}
    own = fitting(kind) | PRIOR
    whole = trained(tiny_base, tmp_path / "whole", own, **more)
    run = make_run(tiny_base, tmp_path / "cut", own, **more)
    run.stop = lambda: run.done == 2
    with pytest.raises(Exception, match="stopped after update 2 of "):
        train(run)
    run.adapter.detach()
    assert equal(trained(tiny_base, tmp_path / "cut", own, **more), whole)
    assert all(value.isfinite().all() for value in whole.values())


@pytest.mark.parametrize("kind", OTHERS)
def test_each_method_alone_does_something(kind: str, tiny_base: Base, tmp_path: Path) -> None:
    without = trained(tiny_base, tmp_path / "without", PRIOR, steps=2, **settings(kind))
    for name, method in fitting(kind).items():
        own = trained(tiny_base, tmp_path / name, {**PRIOR, name: method}, steps=2, **settings(kind))
        assert not equal(own, without), name


@pytest.mark.parametrize("kind", OTHERS)
def test_checkpointing_and_micro_batches_change_nothing(kind: str, tiny_base: Base, tmp_path: Path) -> None:
    def gradients(**more: Any) -> list[torch.Tensor]:
        own = {"adapter_dropout": TOUCHING["adapter_dropout"], "overdriven_prior": OverdrivenPrior(), **PRIOR}
        run = make_run(tiny_base, tmp_path, own, **settings(kind), **more)
        for parameter in run.adapter.parameters():
            parameter.data.add_(torch.linspace(-0.1, 0.1, parameter.numel()).reshape(parameter.shape))
        tiny_base.checkpointing(bool(more))
        run.learn(next(run.remaining()))
        tiny_base.checkpointing(False)
        found = [parameter.grad.clone() for parameter in run.adapter.parameters()]
        run.adapter.detach()
        return found

    whole = gradients()
    assert any(g.abs().max() > 0 for g in whole)
    for plain, cut in zip(whole, gradients(micro_batch=1), strict=True):
        torch.testing.assert_close(cut, plain, rtol=1e-3, atol=1e-6)


def test_a_product_is_kept_below_the_limit(tiny_base: Base, tmp_path: Path) -> None:
    for kind in ("loha", "lokr"):
        run = make_run(tiny_base, tmp_path / kind, {"m": MaxNorm(limit=1e-3)}, steps=3, **settings(kind))
        for parameter in run.adapter.parameters():
            parameter.data.add_(0.1)
        train(run)
        sizes = [float(run.adapter.change(name).norm()) for name in run.adapter.layers()]
        run.adapter.detach()
        assert max(sizes) <= 1e-3 * (1 + 1e-4)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_job_says_that_it_is_no_ordinary_lora_and_goes_on_from_one(
    kind: str, tiny_folder: Path, tmp_path: Path
) -> None:
    own = {"steps": 2, "batch": 2, "watch_every": 1, "adapter": {"rank": 4, "kind": kind}}
    prepared = prepare(project(tmp_path, tiny_folder, {"l2_to_base": {}}, training=own))
    assert any("does not ship as an ordinary LoRA" in str(found) for found in audited(prepared).warnings)
    said: list[Event] = []
    (done,) = train_all(prepared, tmp_path / "run", said.append)
    assert any("no ordinary LoRA" in str(event) and "lora.safetensors" in str(event) for event in said)
    assert set(read_lora(done.lora).kinds) == {TUNERS[kind].file_kind}
    plain = {**own, "start_from": str(done.lora), "adapter": {"rank": 2}}
    further = prepare(project(tmp_path, tiny_folder, {"l2_to_base": {}}, training=plain))
    (again,) = train_all(further, tmp_path / "further")
    assert read_lora(again.lora).kinds == read_lora(done.lora).kinds
    assert not equal(load_file(again.lora), load_file(done.lora))


@pytest.mark.parametrize(
    ("kind", "methods"),
    [("oft", {"max_norm": {}}), ("loha", {"adapter_dropout": {}}), ("boft", {"adapter_dropout": {"what": "neuron"}})],
)
def test_methods_that_cannot_work_on_it_are_refused_first(
    kind: str, methods: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    own = {"steps": 2, "adapter": {"rank": 4, "kind": kind}}
    with pytest.raises(TenutoError, match=rf"regularizers\.{next(iter(methods))}: needs an adapter that is .*is none"):
        train_all(prepare(project(tmp_path, tiny_folder, methods, training=own)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_without_a_kind_is_lora() -> None:
    """Runs of earlier versions go on."""
    assert "kind" not in AdapterSettings(kind="lora").model_dump()
    assert AdapterSettings(kind="oft").model_dump()["kind"] == "oft"
