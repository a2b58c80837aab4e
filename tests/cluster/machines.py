"""A cluster on this machine: each process of `ray start` is a machine of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import torch
from safetensors.torch import load_file

from tenuto.evaluation.sweep import SweepResult
from tests.jobs import until

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
TOKEN = "0123456789abcdef" * 4
ALIKE = ("--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
TRIES = 4


class Machines:
    """A head, and machines that join it; all end with the block."""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets' paths must be short
        self.processes: list[psutil.Process] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            end(process)
        shutil.rmtree(self._folder)

    def lead(self) -> str:
        """The head; returns where terminals join it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        listen = ("--port=0", f"--ray-client-server-port={port}", "--include-dashboard=false")
        self._start("--head", *listen, f"--temp-dir={self._folder}")
        until(lambda: self._address.is_file() and self._address.read_text())  # written after Ray says that it runs
        return f"ray://127.0.0.1:{port}"

    def join(self, source: Path = SOURCE) -> psutil.Process:
        """One more machine, with the program that lies there."""
        return self._start(f"--address={self._address.read_text()}", source=source)

    def there(self) -> list[psutil.Process]:
        """Those that have not been ended or lost."""
        return [process for process in self.processes if process.is_running()]

    @property
    def _address(self) -> Path:
        return self._folder / "ray_current_cluster"

    def _start(self, *words: str, source: Path = SOURCE) -> psutil.Process:
        """Ray gives a machine up whose processes need more than half a minute to begin; then it is begun again."""
        for _ in range(TRIES):
            process = psutil.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *ALIKE],
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
            self.processes.append(process)
            if any("Ray runtime started" in line for line in process.stdout):
                return process
        raise AssertionError(f"Ray does not start: {words}")


def end(process: psutil.Process) -> None:
    """A machine leaves; nothing that it started stays behind."""
    own = []
    if process.is_running():
        own = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([process, *own], timeout=100)
    assert not alive, [each.cmdline() for each in alive]


def kill(process: psutil.Process) -> None:
    """A machine is gone from one moment to the next, with everything that runs on it."""
    own = [process, *process.children(recursive=True)]
    for each in own:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    _, alive = psutil.wait_procs(own, timeout=100)
    assert not alive, [each.cmdline() for each in alive]


def tensors(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.relative_to(folder).as_posix(): load_file(path) for path in sorted(folder.rglob("*.safetensors"))}


def assert_same(one: Path, other: Path) -> None:
    """The same files with the same tensors, bit for bit."""
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].keys() == b[name].keys(), name
        assert all(bits(a[name][key]) == bits(b[name][key]) for key in a[name]), name


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    """All that a tensor is: 0.0 and -0.0 are two."""
    return tensor.dtype, tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same_numbers(one: Path, other: Path) -> None:
    """Two sweeps' files say the same of every arm, but for the time that it took."""
    a, b = (SweepResult.load(path).concepts for path in (one, other))
    assert a.keys() == b.keys()
    for concept in a:
        for arm, numbers in a[concept].arms.items():
            for name in numbers.keys() - {"seconds"}:
                assert numbers[name].per_seed == b[concept].arms[arm][name].per_seed, (concept, arm, name)
