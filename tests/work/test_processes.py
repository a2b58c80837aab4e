"""Trainings side by side: the same tensors as one after another, and every way in which several processes can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tenuto.evaluation.record import Comparison
from tenuto.evaluation.sweep import SweepResult
from tenuto.events import Event
from tenuto.words import Stopped, TenutoError
from tenuto.work.processes import SideBySide
from tenuto.work.tasks import Task
from tests.children import running, said
from tests.cli.test_commands import call
from tests.jobs import COMPARISON, plain_pictures, until
from tests.still import tasks_still_at
from tests.test_killed import PROJECT
from tests.work.chores import Chore
from tests.work.test_sweep import write


def test_stopped_and_gone_on_with_side_by_side(tiny_folder: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal: one line, and the same command ends in the bits that one process
    makes alone, and in the same numbers."""
    text = PROJECT.replace("plain = false", "seeds = [3, 4]").replace("every = 1", "every = 4") + COMPARISON
    for name in ("alone", "both"):
        plain_pictures(tmp_path / name / "pictures", [(16, 16)] * 3)
        (tmp_path / name / "p.toml").write_text(text.format(model=tiny_folder))
    side_by_side, both = ("--set", "arms.at_once=2"), tmp_path / "both"
    with running(["run", "p.toml", "--out", "run", *side_by_side], both, tasks_still_at(6)) as cut:
        until(lambda: len(list(both.rglob("states/*.safetensors"))) > 1)
        os.killpg(cut.pid, signal.SIGINT)
        cut.join()
    errors = "\n".join(said(both))
    assert cut.exitcode == 130, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "stopped; what was made is kept, the same command goes on from there"
    assert not list(both.rglob("lora.safetensors"))
    for name, more in (("both", side_by_side), ("alone", ())):
        status, _, errors = call("run", str(tmp_path / name / "p.toml"), "--out", str(tmp_path / name / "run"), *more)
        assert status == 0, errors
    loras = sorted((tmp_path / "alone").rglob("lora.safetensors"))
    assert len(loras) == 4
    for lora in loras:
        one, other = load_file(lora), load_file(tmp_path / "both" / lora.relative_to(tmp_path / "alone"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    numbers = [Comparison.load(tmp_path / name / "run" / "comparison.json").arms for name in ("alone", "both")]
    for arm, values in numbers[0].items():
        for name in values.keys() - {"seconds"}:
            assert values[name].per_seed == numbers[1][arm][name].per_seed, (arm, name)


def test_a_sweep_at_once_is_the_sequential_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = {"seeds": [3], "arms": {"none": {"regularizers": {}}, "held": {}}}
    used: list[tuple[int, int]] = []
    send = SideBySide.__call__

    def sent(self: SideBySide, tasks: Sequence[Task[Any]], *more: Any) -> list[Any]:
        used.append((self._at_once, len(tasks)))
        return send(self, tasks, *more)

    monkeypatch.setattr(SideBySide, "__call__", sent)
    for name, more in (("alone", ()), ("both", ("--at-once", "2"))):
        monkeypatch.chdir(write(tmp_path / name, tiny_folder, ask).parent)
        status, _, errors = call("sweep", "ask.toml", "--out", "out", *more)
        assert status == 0, errors
    assert used == [(2, 1), (2, 2), (2, 1), (2, 1)], "the prior set, two trainings, the reference arm, the other arm"
    results = [
        SweepResult.load(tmp_path / name / "out" / "sweep.json").concepts["c"].arms for name in ("alone", "both")
    ]
    for arm, numbers in results[0].items():
        for name in numbers.keys() - {"seconds"}:
            assert numbers[name].per_seed == results[1][arm][name].per_seed, (arm, name)
    status, _, errors = call("sweep", "ask.toml", "--on", "local", "--at-once", "2")
    assert status == 1
    assert "error: --at-once is for this machine" in errors


def chores(folder: Path, **ends: str) -> list[Chore]:
    return [Chore(name, folder, end) for name, end in ends.items()]


def test_results_come_in_order_and_each_text_once(tmp_path: Path) -> None:
    heard: list[Event] = []
    tasks = chores(tmp_path, a="", b="", c="")
    assert SideBySide(2)(tasks, heard.append) == ["a done", "b done", "c done"]
    assert [event.data["text"] for event in heard if event.kind == "note"] == ["at work"]
    assert [event.data for event in heard if event.kind == "progress"][-1] == {"what": "done", "done": 3.0, "total": 3}
    workers = {int((tmp_path / task.name).read_text()) for task in tasks}
    assert os.getpid() not in workers
    assert not any(map(psutil.pid_exists, workers))
    assert SideBySide(2)([], heard.append) == []


def test_a_failure_stops_the_others(tmp_path: Path) -> None:
    """At the other's next safe place; what never began never does; what is raised is what went wrong."""
    with pytest.raises(TenutoError, match=r"bad\.png: cannot be read; mend it") as error:
        SideBySide(2)(chores(tmp_path, lasts="lasting", bad="failing", **dict.fromkeys("cdef", "lasting")))
    assert "\n" not in str(error.value)
    assert (tmp_path / "lasts.stopped").exists()
    assert not (tmp_path / "f").exists()


def test_a_killed_worker_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TenutoError, match=r"was killed .*; set a smaller arms\.at_once") as error:
        SideBySide(2)(chores(tmp_path, lasts="lasting", gone="fatal"))
    assert "\n" not in str(error.value)


def test_asked_to_stop(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="goes on from there"):
        SideBySide(2)(chores(tmp_path, a="lasting", b="lasting", c=""), stop=(tmp_path / "a").exists)
    assert (tmp_path / "a.stopped").exists()
    assert not (tmp_path / "c").exists()


def test_a_worker_that_is_killed_while_all_are_stopping(tmp_path: Path) -> None:
    """Stopped is what was asked for, whatever else happens meanwhile; nobody waits for what never began."""
    asked: list[int] = []

    def stop() -> bool:
        """From the moment on that both are at work; then, once all have been told, one is killed."""
        if asked:
            with suppress(ProcessLookupError):
                os.kill(asked[0], signal.SIGKILL)
        elif all((tmp_path / name).is_file() and (tmp_path / name).read_text() for name in "ab"):
            asked.append(int((tmp_path / "a").read_text()))
        return bool(asked)

    with pytest.raises(Stopped, match="goes on from there"):
        SideBySide(2)(chores(tmp_path, a="deaf", b="deaf", **dict.fromkeys("cdefgh", "")), stop=stop)
    assert not (tmp_path / "h").exists()


def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    program = """
        from pathlib import Path
        from tenuto.work.processes import SideBySide
        from tests.work.chores import Chore

        if __name__ == "__main__":
            SideBySide(2)([Chore(name, Path("."), "lasting") for name in "ab"])
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    parent = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=environment)
    until(lambda: all((tmp_path / name).is_file() and (tmp_path / name).read_text() for name in "ab"))
    parent.kill()
    parent.wait()
    until(lambda: not any(lives(int((tmp_path / name).read_text())) for name in "ab"))


def lives(number: int) -> bool:
    """Whether there is such a process, and it is more than a number that nobody has asked after yet."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
