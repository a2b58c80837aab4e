"""What the budgets are measured under."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from benchmarks import budget
from benchmarks.ready import project_on


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
