"""Every optimizer trains for real, goes on bit for bit, and ships what it should."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tenuto.families.base import Base
from tenuto.project.file import make_project
from tenuto.training.loop import Run, train
from tenuto.training.optimizers import OPTIMIZERS, optimizer_of
from tenuto.training.settings import TrainingSettings
from tenuto.training.state import OptimizerMemory, load_state
from tenuto.words import Stopped, TenutoError
from tests.steps import equal, make_run


def run_of(name: str, base: Base, folder: Path, **more: Any) -> Run:
    return make_run(base, folder, steps=8, save_every=3, optimizer={"name": name}, **more)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains_and_goes_on_bit_for_bit(name: str, tiny_base: Base, tmp_path: Path) -> None:
    run = run_of(name, tiny_base, tmp_path / "whole")
    before = run.adapter.state()
    whole = load_file(train(run))
    after = run.adapter.state()
    assert all(value.isfinite().all() for value in after.values())
    assert not any(torch.equal(after[key], before[key]) for key in before), "everything moved"
    run.adapter.detach()
    cut = run_of(name, tiny_base, tmp_path / "cut")
    cut.stop = lambda: cut.done == 5
    with pytest.raises(Stopped):
        train(cut)
    cut.adapter.detach()
    assert equal(load_file(train(run_of(name, tiny_base, tmp_path / "cut"))), whole)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_large_layers_go_on_bit_for_bit(name: str) -> None:
    """8-bit moments are kept of layers of 4096 numbers and more only."""

    def gradients(update: int) -> Tensor:
        return torch.randn(96, 96, generator=torch.Generator().manual_seed(update))

    def step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, updates: range) -> None:
        for update in updates:
            parameter.grad = gradients(update)
            optimizer.step()

    settings = optimizer_of({"name": name})
    whole, cut = (nn.Parameter(torch.ones(96, 96)) for _ in range(2))
    step(settings.build([whole]), whole, range(6))
    first = settings.build([cut])
    step(first, cut, range(3))
    memory = OptimizerMemory.of(first)
    again = nn.Parameter(cut.detach().clone())
    second = settings.build([again])
    memory.give(second)
    step(second, again, range(3, 6))
    assert torch.equal(again, whole)
    if name == "adamw_8bit":
        assert {value.dtype for value in memory.tensors.values()} == {torch.uint8, torch.float32}


def test_a_quadratic_gets_smaller_under_each() -> None:
    for name in OPTIMIZERS:
        settings = optimizer_of({"name": name, "weight_decay": 0.0, **({} if name == "prodigy" else {"lr": 1e-2})})
        parameter = nn.Parameter(torch.linspace(-1, 1, 64).reshape(8, 8).clone())
        optimizer = settings.build([parameter])
        first = float(parameter.detach().square().sum())
        for _ in range(100):
            parameter.grad = 2 * parameter.detach()
            optimizer.step()
        assert float(parameter.detach().square().sum()) < 0.7 * first, name


def test_schedule_free_ships_the_average_and_trains_on_as_if_nothing_was(tiny_base: Base, tmp_path: Path) -> None:
    """x is the mean of all z, weighted by the squared rate: with a constant rate the plain mean."""
    looked: list[dict[str, Tensor]] = []
    watched = run_of("adamw_schedulefree", tiny_base, tmp_path / "watched", watch_every=1)
    watched.watch = [lambda: looked.append(watched.adapter.state()) or {"drift": 0.0}]  # type: ignore[func-returns-value]
    sums = [torch.zeros_like(parameter) for parameter in watched.adapter.parameters()]
    inner = watched.apply

    def apply(rows: Any = ()) -> dict[str, float]:
        entry = inner(rows)
        for total, parameter in zip(sums, watched.adapter.parameters(), strict=True):
            total += watched.optimizer.state[parameter]["z"]
        return entry

    watched.apply = apply  # type: ignore[method-assign]
    file = load_file(train(watched))
    trained = watched.adapter.state()
    assert len(looked) == 8
    for (name, shipped), total in zip(looked[-1].items(), sums, strict=True):
        torch.testing.assert_close(shipped, total / 8, rtol=1e-4, atol=1e-7)
        assert not torch.equal(shipped, trained[name])
    names = [name for name in file if not name.endswith("alpha")]
    assert sorted(float(file[n].sum()) for n in names) == sorted(float(v.sum()) for v in looked[-1].values())
    watched.adapter.detach()
    alone = run_of("adamw_schedulefree", tiny_base, tmp_path / "alone")
    train(alone)
    assert equal(alone.adapter.state(), trained)
    saved = load_state(sorted((tmp_path / "alone" / "states").glob("*"))[-1])
    assert equal(saved.adapter, trained), "what is trained on is y, in a saved state too"


def test_prodigys_rate_stands_in_the_log(tiny_base: Base, tmp_path: Path) -> None:
    run = run_of("prodigy", tiny_base, tmp_path)
    train(run)
    rates = [entry["lr"] for entry in run.journal.read()]
    assert rates[-1] == run.optimizer.param_groups[0]["d"]
    assert rates == sorted(rates)
    settings = optimizer_of({"name": "prodigy"})
    parameter = nn.Parameter(torch.linspace(-1, 1, 64))
    optimizer = settings.build([parameter])
    for _ in range(50):
        parameter.grad = 2 * parameter.detach()
        optimizer.step()
    assert settings.rate(optimizer, 0.5) == 0.5 * optimizer.param_groups[0]["d"] > 1e-4, "it has grown from 1e-6"


@pytest.mark.parametrize(
    ("name", "package"),
    [("adamw_8bit", "bitsandbytes"), ("prodigy", "prodigyopt"), ("adamw_schedulefree", "schedulefree")],
)
def test_what_is_not_installed_is_said_with_the_command(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def absent(wanted: str) -> Any:
        if wanted == package:
            raise ImportError(wanted)
        return real(wanted)

    monkeypatch.setattr("tenuto.training.optimizers.import_module", absent)
    with pytest.raises(TenutoError, match=rf'"{name}": {package} is not installed; pip install "tenuto\[optimizers\]"'):
        optimizer_of({"name": name}).check()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"optimizer": {"name": "lion"}}, "no optimizer is called 'lion'; there are: adamw, adamw_8bit"),
        ({"optimizer": {"name": "adafactor", "betas": [0.9, 0.99]}}, "training.optimizer.betas"),
        ({"optimizer": {"name": "adamw_schedulefree"}, "learning_rate": {"shape": "cosine"}}, "takes no falling rate"),
        ({"optimizer": {"d_coef": 2.0}}, "training.optimizer.d_coef"),
    ],
)
def test_settings_that_make_no_sense(table: dict[str, Any], message: str) -> None:
    with pytest.raises(TenutoError, match=message):
        make_project({"concepts": [{"name": "c", "images": "x"}], "training": table}, "p.toml")


def test_settings_are_written_and_read_again() -> None:
    for name in OPTIMIZERS:
        settings = TrainingSettings(optimizer={"name": name})
        table = settings.model_dump(mode="json", exclude_none=True)
        assert table["optimizer"]["name"] == name
        assert TrainingSettings.model_validate(table) == settings
        assert math.isfinite(table["optimizer"]["lr"])
