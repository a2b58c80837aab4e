"""What the budgets are measured under."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from benchmarks import budget
from benchmarks.ready import project_on

from tenuto.work.sweep_file import Sweep


@pytest.mark.parametrize("group", budget.GROUPS)
def test_every_way_is_a_project_under_its_budget(group: str, tmp_path: Path) -> None:
    own = budget.GROUPS[group]
    for (held, allowed), arm in own.arms().items():
        for name in own.sets:
            project = project_on(name, own.held[held].way(allowed), tmp_path, budget.COMPARISON)
            controller = project.regularizers["drift_controller"]
            assert getattr(controller, controller.dial) == allowed
            assert len(project.regularizers) > 1, "something holds"
            assert f"{allowed:g}" in arm


def test_an_unknown_set_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(budget, "RESULTS", tmp_path)
    for groups, only in ((["alone"], ["style"]), (["nothing"], None), (None, ["nobody"])):
        with pytest.raises(typer.Exit):
            budget.main(groups, only)
    assert not list(tmp_path.iterdir())


def test_what_was_measured_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed that is asked for besides costs itself alone."""
    measured = budget.RESULTS.absolute() / "default" / "crazy-eyes-0.json"
    monkeypatch.setattr(budget, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(budget, "RUNS", tmp_path / "runs")
    swept: list[Sweep] = []

    def run_sweep(sweep: Sweep, folder: Path, *_: Any) -> SimpleNamespace:
        swept.append(sweep)
        (folder / "compared").mkdir(parents=True)
        shutil.copy(measured, folder / "compared" / "comparison.json")
        return SimpleNamespace(concepts={"crazy-eyes": SimpleNamespace(folder="compared")})

    monkeypatch.setattr(budget, "run_sweep", run_sweep)
    budget.main(["default"], ["crazy-eyes"], 1)
    budget.main(["default"], ["crazy-eyes"], 2)
    assert [sweep.seeds for sweep in swept] == [(0,), (1,)]
    told = capsys.readouterr().out
    assert told.count("| crazy-eyes, 0 | default | 0.1 | +32% |") == 2
    assert told.count("| crazy-eyes, 1 | default | 0.3 | +10% |") == 1
    assert told.endswith("2 of 4 within 15%\n")
