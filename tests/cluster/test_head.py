"""The head goes away in the middle of a command: one line says so, and the same command goes on with a new one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tenuto.work import sweep as sweeps
from tenuto.work.sweep import run_sweep, trainings_of
from tenuto.work.sweep_file import load_sweep
from tests.cli.test_commands import call
from tests.cluster.machines import Machines, assert_same, assert_same_numbers, kill
from tests.cluster.sets import QUICK, shards
from tests.jobs import until
from tests.still import Still
from tests.work.test_sweep import write

ONE = {"seeds": [3], "settings": QUICK, "arms": {"held": {}}}


@pytest.mark.slow
def test_the_head_is_lost(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its only training is held in the middle, so it cannot end before."""
    files = {name: write(tmp_path / name, tiny_folder, ONE) for name in ("here", "there")}
    run_sweep(load_sweep(files["here"]), tmp_path / "here" / "out")
    out, store = tmp_path / "there" / "out", tmp_path / "there" / "store"
    words = ["sweep", str(files["there"]), "--out", str(out), "--cpus", "1", "--json", "--on"]
    monkeypatch.setenv("RAY_CLIENT_RECONNECT_GRACE_PERIOD", "3")
    with Machines() as machines, monkeypatch.context() as held:
        held.setattr(sweeps, "trainings_of", lambda *of: [Still(task, 2) for task in trainings_of(*of)])
        head = machines.lead()

        def lose_it() -> None:
            until(lambda: any(out.rglob("states/000001*")))
            kill(machines.processes[-1])

        losing = threading.Thread(target=lose_it)
        losing.start()
        status, _, errors = call(*words, head)
        losing.join()
    assert status == 1, errors
    own = [line for line in errors.splitlines() if line.startswith("error")]
    assert len(own) == 1
    assert own[0].startswith(f"error: --on {head}: the head is gone, or cannot be reached any more; see that it runs")
    assert own[0].endswith("the same command goes on from what was made")
    assert "Traceback" not in errors
    kept = shards(store)
    assert kept
    assert any(out.rglob("states/000001*"))

    with Machines() as machines:
        status, _, errors = call(*words, machines.lead())
    assert status == 0, errors
    assert shards(store) == kept, "nothing is made a second time"
    assert_same(tmp_path / "here", tmp_path / "there")
    assert_same_numbers(tmp_path / "here" / "out" / "sweep.json", out / "sweep.json")
