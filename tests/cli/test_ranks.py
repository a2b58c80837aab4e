"""One command, two processes: as torchrun and accelerate start them, and what happens when one of them ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from tenuto.cli.main import app
from tests.jobs import CONCEPT, plain_pictures, until
from tests.ranks import said, start_command
from tests.still import still_at

PROJECT = f"""{CONCEPT}trigger = "zxq"
[prior]
per_image = 4
ratio = 1.0
batch = 2
store = "store"
[prior.sampler]
steps = 3
[regularizers.cached_prior]
weight = 0.5
[regularizers.drift_controller]
budget = 0.1
[training]
steps = 10
batch = 3
save_every = 5
watch_every = 5
[training.adapter]
rank = 2
[arms]
plain = false
"""
TRAIN = ("train", "p.toml", "--out", "run")
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--nproc_per_node", "2"),
    "accelerate": (
        "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    ),
}  # fmt: skip


def project(folder: Path, model: Path) -> Path:
    plain_pictures(folder / "pictures", [(16, 16)] * 4)
    (folder / "p.toml").write_text(PROJECT.format(model=model))
    return folder


def lora(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "run" / "held" / "seed-0" / "lora.safetensors")


def assert_alike(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """But for rounding."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-3, atol=5e-5)


def ended(processes: Sequence[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run").rglob("states/*.safetensors"))


@pytest.fixture
def alone(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Tensor]]:
    """What one process makes of the project."""

    def make() -> dict[str, Tensor]:
        folder = project(tmp_path / "alone", tiny_folder)
        monkeypatch.chdir(folder)
        result = CliRunner().invoke(app, list(TRAIN))
        assert result.exit_code == 0, result.stderr
        return lora(folder)

    return make


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_make_what_one_process_makes(
    launcher: str, alone: Callable[[], dict[str, Tensor]], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = project(tmp_path / "two", tiny_folder)
    command = [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "tenuto", *TRAIN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 processes share") == 1
    assert_alike(alone(), lora(folder))
    *updates, closing = (folder / "run" / "held" / "seed-0" / "log.jsonl").read_text().splitlines()
    assert len(updates) == 10
    assert "loss" not in closing, "what the trim cost, told once"


def test_a_stop_of_one_stops_all_and_one_process_goes_on(
    alone: Callable[[], dict[str, Tensor]], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = project(tmp_path / "cut", tiny_folder)
    processes = start_command(TRAIN, [folder, folder], still_at(7))
    until(lambda: bool(states(folder)))
    assert processes[1].pid
    os.kill(processes[1].pid, signal.SIGTERM)
    assert ended(processes) == [130, 130]
    lines = said([folder, folder])
    assert sum("stopped after update" in line for line in lines) == 1
    done = CliRunner().invoke(app, ["train", str(folder / "p.toml"), "--out", str(folder / "run")])
    assert done.exit_code == 0, done.stderr
    assert_alike(alone(), lora(folder))


def test_a_killed_process_ends_all_with_one_line_and_nothing_is_lost(tiny_folder: Path, tmp_path: Path) -> None:
    folder, whole = (project(tmp_path / name, tiny_folder) for name in ("cut", "whole"))
    assert ended(start_command(TRAIN, [whole, whole])) == [0, 0]
    processes = start_command(TRAIN, [folder, folder], still_at(7))
    until(lambda: bool(states(folder)))
    assert processes[1].pid
    os.kill(processes[1].pid, signal.SIGKILL)
    assert ended(processes) == [1, -signal.SIGKILL]
    assert [line for line in said([folder, folder]) if "another process of this job has ended" in line]
    assert states(folder)
    assert ended(start_command(TRAIN, [folder, folder])) == [0, 0]
    first, second = lora(folder), lora(whole)
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_an_error_of_one_ends_all_with_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    folders = [project(tmp_path / name, tiny_folder) for name in ("first", "second")]
    (folders[1] / "pictures" / "0.txt").write_text("zxq, another tag")
    assert ended(start_command(TRAIN, folders)) == [1, 1]
    assert [line for line in said(folders) if line.startswith("error")] == [
        "error: the processes of this job see different projects, pictures, prior images or checkpoints; give every "
        "machine the same files"
    ]
    shutil.rmtree(folders[1] / "pictures")
    assert ended(start_command(TRAIN, folders)) == [1, 1]
    (line,) = [line for line in said(folders) if line.startswith("error")]
    assert str(folders[1] / "pictures") in line
