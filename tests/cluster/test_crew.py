"""Two machines do what one does, to the bit; a killed worker, a lost machine, a stop and a strange machine change
nothing of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tenuto.cli.cluster import Engage, engaged
from tenuto.events import Event, Listener, silent
from tenuto.words import Stopped, TenutoError
from tenuto.work.sweep import PriorTask, run_sweep, trainings_of
from tenuto.work.sweep_file import load_sweep
from tenuto.work.tasks import NEVER, Stop, Task, in_sequence
from tenuto.work.train import TrainTask
from tests.cli.test_commands import call
from tests.cluster.machines import SOURCE, Machines, assert_same, assert_same_numbers, end, kill
from tests.cluster.sets import QUICK, Noted, Writing, shards
from tests.jobs import until
from tests.still import Still
from tests.work.test_sweep import write

T = TypeVar("T")
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
        own = [process for machine in self.machines.there() for process in machine.children(recursive=True)]
        return [process for process in own if "ray::carry_out" in " ".join(words(process))]


def words(process: psutil.Process) -> list[str]:
    """What it was called with, if it is still there."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@dataclass(frozen=True)
class Two:
    """A head and a second machine, which nobody has joined yet."""

    machines: Machines
    head: str


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    with Machines() as machines:
        head = machines.lead()
        machines.join()
        yield Two(machines, head)


@pytest.fixture(scope="module")
def joined(two: Two) -> Iterator[Joined]:
    heard = Heard()
    with engaged(two.head, 1, None, 3, heard) as engage:
        until(lambda: alive() == 2)
        yield Joined(two.machines, engage, heard)


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sweep was run by one process, one task after another; its results lie in `out`."""
    folder = tmp_path_factory.mktemp("alone")
    run_sweep(load_sweep(write(folder, tiny_folder, ASK)), folder / "out")
    return folder


def alive() -> int:
    """Machines that are there."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def test_the_command_is_the_sequential_one(two: Two, alone: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """As it is typed, before anything here has joined the two machines."""
    file, out = write(tmp_path, tiny_folder, ASK), tmp_path / "out"
    status, told, errors = call("sweep", str(file), "--out", str(out), "--on", two.head, "--cpus", "1", "--json")
    assert status == 0, errors
    assert "machines: 2; tasks at once: 2, each on 1 CPU" in errors
    assert Path(json.loads(told)["page"]).is_file()
    assert_same(alone, tmp_path)
    assert_same_numbers(alone / "out" / "sweep.json", out / "sweep.json")


def test_a_sweep_is_the_sequential_one(joined: Joined, alone: Path, tiny_folder: Path, tmp_path: Path) -> None:
    sweep, out, heard = load_sweep(write(tmp_path, tiny_folder, ASK)), tmp_path / "out", Heard()
    run_sweep(sweep, out, heard, runner=joined.engage(sweep.projects(), out))
    assert_same(alone, tmp_path)
    assert joined.heard.texts() == ["machines: 2; tasks at once: 2, each on 1 CPU"]
    assert sum("training " in text and "done on" in text for text in heard.texts()) == 6
    assert [event.data["done"] for event in heard if event.kind == "progress"][-1] == 2, "the last: two arms' readings"
    assert_same_numbers(alone / "out" / "sweep.json", out / "sweep.json")


SET = {"seeds": [3], "settings": {"prior.per_image": 4, "prior.batch": 1}, "arms": {"held": {}}}
"""A prior set of twelve batches."""
IMAGES = 12


def test_one_prior_set_is_made_by_both(joined: Joined, tiny_folder: Path, tmp_path: Path) -> None:
    sweeps = {name: load_sweep(write(tmp_path / name, tiny_folder, SET)) for name in ("here", "there")}
    tasks = {name: PriorTask("held", sweep.arms[0].project) for name, sweep in sweeps.items()}
    notes = tmp_path / "notes"
    notes.mkdir()
    crew = joined.engage(sweeps["there"].projects(), tmp_path / "there" / "out")
    assert crew([Noted(tasks["there"], notes, 2)], silent, NEVER) == in_sequence([tasks["here"]]) == [IMAGES]
    assert_same(tmp_path / "here" / "store", tmp_path / "there" / "store")
    made = [own.read_text().split() for own in notes.iterdir()]
    assert len(made) == 2
    assert all(made), "both have made some"
    assert len(made[0] + made[1]) == len({*made[0], *made[1]}) == IMAGES, "nobody has made what the other one has"


@pytest.mark.slow
def test_makers_of_a_prior_set_are_killed(joined: Joined, tiny_folder: Path, tmp_path: Path) -> None:
    """Without a retry it is one line, and what was made stays; the same command, with one, makes the same set."""
    sweeps = {name: load_sweep(write(tmp_path / name, tiny_folder, SET)) for name in ("here", "there")}
    tasks = {name: PriorTask("held", sweep.arms[0].project) for name, sweep in sweeps.items()}
    from tenuto.cluster.crew import Crew

    in_sequence([tasks["here"]])
    store, heard = tmp_path / "there" / "store", Heard()
    crew = joined.engage(sweeps["there"].projects(), tmp_path / "there" / "out")
    once = Writing(tasks["there"], store, 1, tmp_path / "never")
    lost = r"prior set of held: its worker died \(killed.*none of 0 retries is left; .*--retries"
    with pytest.raises(TenutoError, match=lost) as error:
        Crew(crew.on, crew.share, crew.terms, 0)([once], heard, once.killing(joined.workers, tmp_path / "once"))
    assert str(error.value).endswith("the same command goes on from what was saved")
    assert "\n" not in str(error.value)
    kept = shards(store)
    assert 0 < len(kept) < IMAGES
    again = Writing(tasks["there"], store, len(kept) + 1, tmp_path / "again")
    assert crew([again], heard, again.killing(joined.workers, again.go)) == [IMAGES]
    assert any("it begins again" in text for text in heard.texts())
    assert kept.items() <= shards(store).items(), "nothing is made a second time"
    assert not list(store.glob("shards/.*.part")), "nothing is left of what was cut off"
    assert_same(tmp_path / "here" / "store", store)


@pytest.mark.slow
def test_a_machine_is_lost_in_the_middle(joined: Joined, alone: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Both are in the middle of a training when one of them is gone; the other one ends the sweep."""
    sweep, out, heard = load_sweep(write(tmp_path, tiny_folder, ASK)), tmp_path / "out", Heard()
    crew, gone = joined.engage(sweep.projects(), out), tmp_path / "gone"

    def lose_one() -> bool:
        if not gone.exists() and len(list(out.rglob("states/000001*"))) == 2:
            kill(joined.machines.processes[-1])
            gone.touch()
        return False

    def runner(tasks: Sequence[Task[T]], listener: Listener, stop: Stop) -> list[T]:
        return crew([Still(task, 2, gone) if isinstance(task, TrainTask) else task for task in tasks], listener, stop)

    run_sweep(sweep, out, heard, lose_one, runner)
    assert any("its machine is gone); it begins again" in text for text in heard.texts())
    assert_same(alone, tmp_path)
    assert_same_numbers(alone / "out" / "sweep.json", out / "sweep.json")
    until(lambda: alive() == 1)
    joined.machines.join()
    until(lambda: alive() == 2)


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
