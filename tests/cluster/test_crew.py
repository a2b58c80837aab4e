"""Two machines do what one does, to the bit; a killed worker, a stop and a strange machine change nothing of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tenuto.cli.cluster import Engage, engaged
from tenuto.events import Event, silent
from tenuto.words import Stopped, TenutoError
from tenuto.work.sweep import PriorTask, run_sweep, trainings_of
from tenuto.work.sweep_file import load_sweep
from tenuto.work.tasks import in_sequence
from tests.cluster.machines import SOURCE, Machines, assert_same, end
from tests.jobs import until
from tests.still import Still
from tests.work.test_sweep import write

QUICK = {
    "comparison.steps": 1,
    "comparison.states": 1,
    "comparison.curve_weights": [],
    "comparison.curve_checkpoints": 0,
}
ASK: dict[str, Any] = {
    "seeds": [3, 4],
    "settings": QUICK,
    "axes": {"regularizers.prior_prediction.weight": [4.0]},
    "arms": {"none": {"regularizers": {}}, "many": {"prior.per_image": 3, "prior.ratio": 1.0}},
}


class Heard(list[Event]):
    """A listener."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def texts(self) -> list[str]:
        return [event.data["text"] for event in self if "text" in event.data]


@dataclass(frozen=True)
class Joined:
    """A terminal that has joined two machines; once for all tests here, for each connection starts its workers anew."""

    machines: Machines
    engage: Engage
    heard: Heard

    def workers(self) -> list[psutil.Process]:
        """Those that are at a task."""
        own = [process for machine in self.machines.processes for process in machine.children(recursive=True)]
        return [process for process in own if "ray::carry_out" in " ".join(words(process))]


def words(process: psutil.Process) -> list[str]:
    """What it was called with, if it is still there."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture(scope="module")
def joined() -> Iterator[Joined]:
    heard = Heard()
    with Machines() as machines:
        head = machines.lead()
        machines.join()
        with engaged(head, 1, None, 3, heard) as engage:
            until(lambda: alive() == 2)
            yield Joined(machines, engage, heard)


def alive() -> int:
    """Machines that are there."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def test_a_sweep_is_the_sequential_one(joined: Joined, tiny_folder: Path, tmp_path: Path) -> None:
    sweeps = {name: load_sweep(write(tmp_path / name, tiny_folder, ASK)) for name in ("here", "there")}
    here = run_sweep(sweeps["here"], tmp_path / "here" / "out")
    sweep, out, heard = sweeps["there"], tmp_path / "there" / "out", Heard()
    there = run_sweep(sweep, out, heard, runner=joined.engage(sweep.projects(), out))
    assert_same(tmp_path / "here", tmp_path / "there")
    assert joined.heard.texts() == ["machines: 2; tasks at once: 2, each on 1 CPU"]
    assert sum("training " in text and "done on" in text for text in heard.texts()) == 6
    assert [event.data["done"] for event in heard if event.kind == "progress"][-1] == 2, "the last: two arms' readings"
    for arm, numbers in here.concepts["c"].arms.items():
        for name in numbers.keys() - {"seconds"}:
            assert numbers[name].per_seed == there.concepts["c"].arms[arm][name].per_seed, (arm, name)


def test_stopped_killed_and_done(joined: Joined, tiny_folder: Path, tmp_path: Path) -> None:
    """A training goes beyond update 2 only when asked to stop, and beyond update 4 only when a worker was killed."""
    three = {"seeds": [3, 4, 5], "settings": {"training.steps": 6}, "arms": {"held": {}}}
    sweeps = {name: load_sweep(write(tmp_path / name, tiny_folder, three)) for name in ("here", "there")}
    in_sequence(trainings_of(sweeps["here"], tmp_path / "here" / "out"))
    out, heard = tmp_path / "there" / "out", Heard()
    tasks, crew = trainings_of(sweeps["there"], out), joined.engage(sweeps["there"].projects(), out)
    with pytest.raises(Stopped, match="goes on from there"):
        crew([Still(task, 2) for task in tasks], heard, lambda: any(out.rglob("states/000001*")))
    assert any(out.rglob("states/*"))
    assert not any(out.rglob("lora.safetensors"))

    killed = tmp_path / "killed"

    def kill_one() -> bool:
        """Once both machines are in the middle of a training. Asks nobody to stop."""
        if not killed.exists() and len(list(out.rglob("states/000003*"))) == 2:
            joined.workers()[0].kill()
            killed.touch()
        return False

    done = crew([Still(task, 4, killed) for task in tasks], heard, kill_one)
    assert [own.lora for own in done] == [task.training.folder / "lora.safetensors" for task in tasks]
    assert any("its worker died (killed, or its machine is gone); it begins again" in text for text in heard.texts())
    assert_same(tmp_path / "here", tmp_path / "there")


def test_what_cannot_be_done_is_one_line(joined: Joined, tiny_folder: Path, tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, tiny_folder, {"seeds": [3], "arms": {"held": {}}}))
    crew = joined.engage(sweep.projects(), tmp_path / "out")
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(TenutoError, match=r"prior set of held on .*pictures") as error:
        crew([PriorTask("held", sweep.project)], silent, lambda: False)
    assert "\n" not in str(error.value)


def test_another_program_is_refused(joined: Joined, tiny_folder: Path, tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, tiny_folder, {"seeds": [3], "arms": {"held": {}}}))
    shutil.copytree(SOURCE, tmp_path / "source")
    with (tmp_path / "source" / "tenuto" / "words.py").open("a") as file:
        file.write("# mine\n")
    strange = joined.machines.join(tmp_path / "source")
    until(lambda: alive() == 3)
    with pytest.raises(TenutoError, match="another state of tenuto") as error:
        joined.engage(sweep.projects(), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    end(strange)
    until(lambda: alive() == 2)
    joined.engage(sweep.projects(), tmp_path / "out")
