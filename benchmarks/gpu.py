"""Full-size architectures with random weights on a GPU: updates per second, MFU, peak memory, prior images per second.

    python -m benchmarks.gpu [--only sd1] [--compile] [--fp8] [--out FOLDER]

Each architecture is written as a single file, opened in bf16 and trained at its own picture size with a LoRA of rank 16
on attention, at batch 1 and 4, without and with gradient checkpointing; latents and texts are cached, as in a training.
It runs in a process of its own, and writes what it measured after every row.

    MFU     operations of one update without recomputing (torch's FlopCounterMode: the forward, and the gradients that
            a LoRA needs), over its seconds, over the card's peak: `--peak`, TFLOP/s, dense bf16.
    busy    the share of an update's wall time in which a kernel ran (torch.profiler, with its own overhead).
    memory  the most that torch had allocated during the updates, GiB.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.big import random_file
from benchmarks.speed import images_per_second, run_of, seconds_per_update
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.sampling import SamplerSettings
from tenuto.files import write_json
from tenuto.memory import is_out_of_memory, make_room
from tenuto.training.loop import Run

GIB = 2**30
RANK, UPDATES, WARM = 16, 10, 3
BATCHES = (1, 4)
PRIOR_BATCHES = (1, 8, 32)
H100_PEAK = 989.4
"""TFLOP/s of dense bf16 of an H100 SXM, as its maker says."""


@dataclass(frozen=True)
class Trained:
    """Updates of one batch."""

    batch: int
    checkpointing: bool
    compiled: bool
    seconds: float
    memory: float
    mfu: float
    busy: float


@dataclass
class Measured:
    """One architecture."""

    form: str
    what: str
    """What was found in the file."""
    card: str
    torch: str
    opened: float
    """Seconds."""
    weights: float
    """GiB on the card before anything else."""
    trained: list[Trained] = field(default_factory=list)
    images: dict[int, float] = field(default_factory=dict)
    """Batch -> prior latents per second: 20 steps, guidance."""
    failed: list[str] = field(default_factory=list)


def measure(form: str, path: str, peak: float, compiled: bool, fp8: bool, images: bool, answer: Path) -> None:
    """Everything about one architecture; runs in a process of its own."""
    start = time.perf_counter()
    base = open_base(path, device="cuda", dtype=torch.bfloat16, fp8=fp8)
    base.rest()
    torch.cuda.synchronize()
    card, weights = torch.cuda.get_device_name(), torch.cuda.memory_allocated() / GIB
    found = Measured(form, base.notes[0], card, torch.__version__, time.perf_counter() - start, weights)
    write_json(answer, asdict(found))
    operations: dict[int, int] = {}
    for batch in BATCHES:
        for checkpointing in (False, True):
            try:
                found.trained.append(_updates(base, batch, checkpointing, False, peak, operations))
            except Exception as error:
                _note(found, error, f"batch {batch}, checkpointing {checkpointing}")
            write_json(answer, asdict(found))
    for batch in PRIOR_BATCHES if images else ():
        try:
            images_per_second(base, batch, SamplerSettings(steps=2, guidance=5.0))
            found.images[batch] = images_per_second(base, batch, SamplerSettings(steps=20, guidance=5.0))
        except Exception as error:
            _note(found, error, f"{batch} prior images at once")
        write_json(answer, asdict(found))
    for batch in BATCHES if compiled else ():
        try:
            found.trained.append(_updates(base, batch, False, True, peak, operations))
        except Exception as error:
            _note(found, error, f"batch {batch}, compiled")
        write_json(answer, asdict(found))


def _note(found: Measured, error: Exception, what: str) -> None:
    """Only a card that is too small is a result."""
    if not is_out_of_memory(error):
        raise error
    found.failed.append(f"{what}: out of memory")
    make_room(torch.device("cuda"))


def _updates(
    base: Base, batch: int, checkpointing: bool, compiled: bool, peak: float, operations: dict[int, int]
) -> Trained:
    """The mean of UPDATES after WARM; `operations`: of an update at each batch, counted at the first."""
    run = run_of(base, {}, batch, 0, 2 * UPDATES + 2 * WARM, rank=RANK, compiled=compiled)
    base.checkpointing(checkpointing)
    run.means.begin()
    torch.cuda.reset_peak_memory_stats()
    seconds = seconds_per_update(run, UPDATES, WARM)
    memory = torch.cuda.max_memory_allocated() / GIB
    if batch not in operations:
        with FlopCounterMode(display=False) as counter:
            _one(run)
        operations[batch] = counter.get_total_flops()
    busy = _busy(run)
    run.adapter.detach()
    base.checkpointing(False)
    base.compiled(False)
    make_room(torch.device("cuda"))
    return Trained(batch, checkpointing, compiled, seconds, memory, operations[batch] / seconds / (peak * 1e12), busy)


def _one(run: Run) -> None:
    run.learn(next(run.remaining()))
    run.apply()
    torch.cuda.synchronize()


def _busy(run: Run) -> float:
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        _one(run)
        wall = time.perf_counter() - start
    return float(sum(own.self_device_time_total for own in profiler.key_averages())) / 1e6 / wall


def show(found: dict[str, Any]) -> None:
    """Tables for people."""
    title = f"{found['what']}: {found['card']}, torch {found['torch']}, opened in {found['opened']:.1f} s"
    table = Table("batch", "checkpointing", "compiled", "updates / s", "ms", "MFU", "busy", "memory", title=title)
    for own in found["trained"]:
        table.add_row(
            f"{own['batch']}", "yes" if own["checkpointing"] else "no", "yes" if own["compiled"] else "no",
            f"{1 / own['seconds']:.2f}", f"{1000 * own['seconds']:.0f}", f"{own['mfu']:.1%}", f"{own['busy']:.0%}",
            f"{own['memory']:.1f} GiB",
        )  # fmt: skip
    Console(width=110).print(table)
    rates = ", ".join(f"{rate:.2f}/s at {batch} at once" for batch, rate in found["images"].items())
    print(f"weights on the card {found['weights']:.2f} GiB; prior latents, 20 steps with guidance: {rates}")
    print(*found["failed"], sep="\n", flush=True)


def main(
    only: Annotated[list[str] | None, typer.Option(help="sd1, sd2 or sdxl; unset: sd1 and sdxl")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Also under torch.compile: minutes more.")] = False,
    fp8: Annotated[bool, typer.Option("--fp8", help="With the U-Net in 8 bits.")] = False,
    images: Annotated[bool, typer.Option(help="Prior images too.")] = True,
    peak: Annotated[float, typer.Option(help="TFLOP/s of the card, dense bf16")] = H100_PEAK,
    scratch: Annotated[Path | None, typer.Option(help="where the files (7 GiB) lie while they are used")] = None,
    out: Annotated[Path, typer.Option(help="a folder for what was measured")] = Path("runs/gpu"),
) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here that this torch can use; python -m benchmarks.big measures on the CPU")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for form in only or ("sd1", "sdxl"):
            path, answer = f"{folder}/{form}.safetensors", out / f"{form}{'-fp8' * fp8}.json"
            random_file(form, path)
            worker = context.Process(target=measure, args=(form, path, peak, compiled, fp8, images, answer))
            worker.start()
            worker.join()
            Path(path).unlink()
            if answer.is_file():
                show(json.loads(answer.read_text(encoding="utf-8")))
            if worker.exitcode:
                raise SystemExit(f"{form}: ended with {worker.exitcode}")


if __name__ == "__main__":
    typer.run(main)
