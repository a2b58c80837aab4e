"""Nothing of a night is lost: second processes that are stopped, run out of disk, find damage or other settings."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file

from tenuto.cli.guard import guarded
from tenuto.files import write_text
from tenuto.project.settings import Project
from tenuto.training.folder import RunFolder
from tenuto.training.plan import Plan, digest
from tenuto.words import Stopped, TenutoError
from tenuto.work.prepare import Prepared, prepare
from tenuto.work.train import train_all
from tests.jobs import until
from tests.steps import equal
from tests.still import still_at
from tests.training.test_job import project

resource = pytest.importorskip("resource")
METHODS = {"prior_preservation": {"weight": 0.5}}
LENGTH = {"steps": 8, "batch": 2, "watch_every": 0, "save_every": 3, "adapter": {"rank": 2}}
RUN = Path("held") / "seed-0"


def own(folder: Path, base: Path, **training: object) -> Project:
    return project(folder, base, METHODS, training={**LENGTH, **training})


@pytest.fixture
def prepared(tiny_folder: Path, tmp_path: Path) -> Prepared:
    return prepare(own(tmp_path, tiny_folder))


def lora(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / RUN / "lora.safetensors")


@dataclass(frozen=True)
class Child:
    """A process of its own that does a piece of work as the command line would."""

    id: int
    errors: int
    """The end of the pipe from which its standard error is read."""

    @classmethod
    def doing(cls, work: Callable[[Callable[[], bool]], object]) -> Self:
        out, into = os.pipe()
        child = os.fork()
        if child:
            os.close(into)
            return cls(child, out)
        status = 99
        try:
            sys.stderr = os.fdopen(into, "w")
            with guarded() as stop:
                work(stop)
            status = 0
        except typer.Exit as leave:
            status = leave.exit_code
        finally:
            try:
                sys.stderr.flush()
            finally:
                os._exit(status)

    def end(self) -> tuple[int, list[str]]:
        """Its exit status and the lines of its standard error."""
        with os.fdopen(self.errors) as errors:
            lines = errors.read().splitlines()
        return os.waitstatus_to_exitcode(os.waitpid(self.id, 0)[1]), lines


def test_sigterm_stops_after_the_update_with_a_state(prepared: Prepared, tmp_path: Path) -> None:
    """As a batch system or a shutting-down machine sends it."""
    train_all(prepared, tmp_path / "whole")

    def work(stop: Callable[[], bool]) -> None:
        with still_at(5):
            train_all(prepared, tmp_path / "cut", stop=stop)

    child = Child.doing(work)
    log = tmp_path / "cut" / RUN / "log.jsonl"
    until(lambda: log.exists() and log.read_text().count("\n") >= 4)
    os.kill(child.id, signal.SIGTERM)
    status, (*_, last) = child.end()
    assert status == 130
    assert last.startswith("stopped after update")
    done = int(last.split()[3])
    assert done in (4, 5)
    assert (tmp_path / "cut" / RUN / "states" / f"{done:06d}.safetensors").exists()
    train_all(prepared, tmp_path / "cut")
    assert equal(lora(tmp_path / "cut"), lora(tmp_path / "whole"))


@pytest.mark.parametrize("room", [1, 10_000, 30_000])
def test_a_full_disk_is_one_line_and_what_was_made_is_kept(room: int, prepared: Prepared, tmp_path: Path) -> None:
    """`room`: bytes that a file may have: none; enough for a log; enough for a LoRA and for no state."""
    train_all(prepared, tmp_path / "whole")
    with pytest.raises(Stopped):
        train_all(prepared, tmp_path / "cut", stop=stopping_after(tmp_path / "cut", 3))
    before = load_file(tmp_path / "cut" / RUN / "states" / "000003.safetensors")

    def short(stop: Callable[[], bool]) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        train_all(prepared, tmp_path / "cut", stop=stop)

    status, (line,) = Child.doing(short).end()
    assert status == 1
    assert line.startswith("error: ")
    assert "cannot be written" in line
    assert "free some space" in line
    assert equal(load_file(tmp_path / "cut" / RUN / "states" / "000003.safetensors"), before)
    assert not list((tmp_path / "cut").rglob("*.part")), "no half files"
    train_all(prepared, tmp_path / "cut")
    assert equal(lora(tmp_path / "cut"), lora(tmp_path / "whole"))


def stopping_after(folder: Path, update: int) -> Callable[[], bool]:
    """Asks to stop once so many updates are in the log."""
    log = folder / RUN / "log.jsonl"
    return lambda: log.exists() and log.read_text().count("\n") >= update


def test_a_folder_that_cannot_be_written_is_found_before_the_prior_set_is_made(
    prepared: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "run" / RUN).mkdir(parents=True)
    (tmp_path / "run" / RUN / "states").write_text("a file in the way")
    with pytest.raises(TenutoError, match=r"states.*cannot be written.*choose another folder") as caught:
        train_all(prepared, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_other_settings_are_explained(prepared: Prepared, tiny_folder: Path, tmp_path: Path) -> None:
    train_all(prepared, tmp_path / "run")
    changed = prepare(own(tmp_path, tiny_folder, optimizer={"lr": 1e-3}, clip_norm=2.0, save_every=1, keep=3))
    with pytest.raises(TenutoError) as caught:
        train_all(changed, tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path / 'run' / RUN}: holds a training by another plan: training.clip_norm is 2.0 and was 1.0; "
        "training.optimizer.lr is 0.001 and was 0.0001; put that back, give this training another folder (--out), or "
        "delete that one"
    )
    other = own(tmp_path, tiny_folder)
    (tmp_path / "pictures" / "2.txt").write_text("zxq, other words")
    with pytest.raises(TenutoError, match=r"pictures is \"3 \(\w+\)\" and was \"3 \(\w+\)\""):
        train_all(prepare(other), tmp_path / "run")


def test_a_damaged_state_is_passed_over_and_said(prepared: Prepared, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    train_all(prepared, whole)
    with pytest.raises(Stopped):
        train_all(prepared, tmp_path / "cut", stop=stopping_after(tmp_path / "cut", 7))
    states = sorted((tmp_path / "cut" / RUN / "states").glob("*"))
    assert [path.stem for path in states] == ["000006", "000007"]
    states[-1].write_bytes(states[-1].read_bytes()[:-100])
    told: list[str] = []
    train_all(prepared, tmp_path / "cut", lambda event: told.append(event.data.get("text", "")))
    assert any("000007.safetensors: not a readable training state" in text for text in told)
    assert equal(lora(tmp_path / "cut"), lora(whole))
    for path in (tmp_path / "cut" / RUN / "states").glob("*"):
        path.write_bytes(b"no state")
    with pytest.raises(TenutoError, match=r"no older one; delete .*seed-0 to begin anew"):
        train_all(prepared, tmp_path / "cut")


def test_the_header_of_a_snapshot_is_its_own(prepared: Prepared, tmp_path: Path) -> None:
    train_all(prepared, tmp_path / "run")
    files = RunFolder(tmp_path / "run" / RUN)
    found = {}
    for path in (files.snapshot(3), files.snapshot(6), files.lora):
        with safe_open(path, framework="pt") as file:
            found[path.stem] = file.metadata()
    early, later, last = found.values()
    assert [each["ss_steps"] for each in found.values()] == ["3", "6", "8"]
    assert {each["ss_max_train_steps"] for each in found.values()} == {"8"}
    assert [each["ss_epoch"] for each in found.values()] == ["2", "4", "5"], "3 pictures, 2 a batch"
    assert [int(each["tenuto_prior_rows"]) for each in found.values()] == [6, 12, 16]
    times = [float(each["ss_training_finished_at"]) for each in found.values()]
    assert times == sorted(times)
    assert times[0] < times[-1]
    assert early["ss_training_started_at"] == later["ss_training_started_at"] == last["ss_training_started_at"]


def test_a_setting_that_is_unset_is_as_good_as_absent() -> None:
    assert Plan({"training": {"lr": 1.0, "later": None}}) == Plan({"training": {"lr": 1.0}})
    assert len({Plan({"training": {"lr": 1.0, "later": None}}), Plan({"training": {"lr": 1.0}})}) == 1


def test_plans_are_compared_by_their_leaves() -> None:
    old = Plan({"a": {"b": 1, "c": [1, 2]}, "gone": True, "same": {}})
    new = Plan({"a": {"b": 2, "c": [1, 2]}, "new": "x" * 99, "same": {}})
    assert new != old
    assert new == Plan({"same": {}, "a": {"c": (1, 2), "b": 2}, "new": "x" * 99})
    assert new.against(old) == f'a.b is 2 and was 1; gone is (none) and was true; new is "{"x" * 58}… and was (none)'
    many = Plan({str(number): number for number in range(9)})
    assert many.against(Plan()).endswith("; and 4 more")
    assert digest([1, 2]) != digest([1, 3])


def test_a_power_cut_finds_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the file is on the disk before its name is, and the name before anybody goes on."""
    log: list[str] = []
    sync, replace = os.fsync, Path.replace

    def heard(number: int) -> None:
        log.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "content")
        sync(number)

    def renamed(own: Path, to: Path) -> Path:
        log.append("name")
        return replace(own, to)

    monkeypatch.setattr(os, "fsync", heard)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "a.txt", "whole")
    assert log == ["content", "name", "folder"]


def test_what_a_killed_process_left_of_a_file_goes_when_it_is_written(tmp_path: Path) -> None:
    """A real process, killed while it wrote; what a living one is at stays."""
    write = (
        "import os, sys, time; from pathlib import Path; from tenuto.files import written_whole\n"
        "with written_whole(Path('a.txt')) as temporary: temporary.write_text('half'); print('.', flush=True); "
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", write], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    write_text(tmp_path / "a.txt", "mine")
    assert len(list(tmp_path.glob(".a.txt.*.part"))) == 1
    process.kill()
    process.communicate()
    write_text(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"
