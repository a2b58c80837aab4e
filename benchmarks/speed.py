"""Speed on this machine: prior images per second and training updates per second.

    python -m benchmarks.speed [--model M]

Several rounds in turn, so that a machine whose speed drifts is fair to all; medians are printed, and ratios taken
round by round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.data.schedule import plan_updates
from tenuto.events import Listener, silent
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.sampling import SamplerSettings, sample
from tenuto.randomness import noise
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.loop import Run
from tenuto.training.rows import Row
from tenuto.training.settings import TrainingSettings
from tenuto.words import Role

METHODS: dict[str, dict[str, Regularizer]] = {
    "plain": {},
    "prior_preservation": {"p": PriorPreservation()},
    "prior_prediction": {"p": PriorPrediction()},
}


COMPILED = "plain, compiled"
PROMPT = "1girl, smile, beach"
WARM = 3
"""Updates in which things are compiled."""


class _Made:
    """A row with random latents."""

    repeats, concept = 1, "c"

    def __init__(self, base: Base, number: int, role: Role) -> None:
        self.id, self.role, self.bucket = f"{role}{number}", role, base.geometry.native
        self.latents = noise(base.geometry.latent(self.bucket), 0, "bench", row=self.id)

    def row(self, visit: int) -> Row:
        return Row(self.id, visit, self.role, self.bucket, PROMPT, 1, self.latents)

    def prompt(self) -> str:
        return PROMPT


def run_of(
    base: Base,
    methods: dict[str, Regularizer],
    batch: int,
    ratio: float,
    updates: int,
    *,
    rank: int = 8,
    compiled: bool = False,
    listener: Listener = silent,
) -> Run:
    """A training of so many updates on a fresh adapter."""
    items, prior = ([_Made(base, n, role) for n in range(16)] for role in ("instance", "prior"))
    settings = TrainingSettings(
        steps=updates, batch=batch, watch_every=0, adapter=AdapterSettings(rank=rank), compile=compiled
    )
    return Run(
        base=base, adapter=Adapter.attach(base, settings.adapter), settings=settings, regularizers=methods,
        updates=plan_updates(items, prior, batch=batch, updates=updates, ratio=ratio if methods else 0, seed=0),
        sources={own.id: own for own in (*items, *prior)}, rows_per_epoch=len(items), seed=0,
        folder=Path(tempfile.gettempdir()), listener=listener,
    )  # fmt: skip


def seconds_per_update(run: Run, updates: int, unmeasured: int = 1) -> float:
    """Mean wall seconds of the next updates, the first ones left out."""
    start = 0.0
    for number, rows in enumerate(islice(run.remaining(), updates + unmeasured)):
        if number == unmeasured:
            start = time.perf_counter()
        run.learn(rows)
        run.apply()
    return (time.perf_counter() - start) / updates


def compiled_run(model: str, batch: int, updates: int) -> Run:
    """On a base of its own, compiled once: that is what a training does. Tells how long compiling took."""
    told: list[str] = []
    listener: Listener = lambda event: told.append(str(event.data))  # noqa: E731
    run = run_of(open_base(model), {}, batch, 0, updates + WARM, compiled=True, listener=listener)
    run.means.begin()
    start = time.perf_counter()
    seconds_per_update(run, 1, WARM - 1)
    print(f"compiling: {time.perf_counter() - start:.0f} s for the first {WARM} updates", *told)
    return run


def images_per_second(base: Base, batch: int, settings: SamplerSettings) -> float:
    size = base.geometry.native
    with torch.no_grad():
        cond, uncond = (base.encode_text([text] * batch, [size] * batch, 1) for text in ("1girl, smile, beach", ""))
    start = time.perf_counter()
    sample(base, cond, uncond, size, list(range(batch)), settings)
    return batch / (time.perf_counter() - start)


def main(
    model: Annotated[str, typer.Option()] = "pocket",
    rounds: Annotated[int, typer.Option()] = 5,
    updates: Annotated[int, typer.Option()] = 10,
    batch: Annotated[int, typer.Option()] = 4,
    ratio: Annotated[float, typer.Option()] = 1.0,
    compiled: Annotated[bool, typer.Option("--compile", help="Also a plain training under torch.compile.")] = False,
) -> None:
    base = open_base(model)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    rates: list[float] = []
    fast = compiled_run(model, batch, rounds * (updates + 1)) if compiled else None
    if fast is not None:
        times[COMPILED] = []
    for _ in range(rounds):
        for name, methods in METHODS.items():
            run = run_of(base, methods, batch, ratio, updates + 1)
            times[name].append(seconds_per_update(run, updates))
            run.adapter.detach()
        if fast is not None:
            times[COMPILED].append(seconds_per_update(fast, updates))
        rates.append(images_per_second(base, 16, SamplerSettings(steps=20, guidance=4.0)))
    table = Table("what", "median", "against plain", title=f"{model}, batch {batch}, ratio {ratio:g}, {rounds} rounds")
    for name, own in times.items():
        against = statistics.median(a / b for a, b in zip(own, times["plain"], strict=True))
        table.add_row(f"update, {name}", f"{statistics.median(own) * 1000:.0f} ms", f"x{against:.2f}")
    table.add_row("prior images, 20 steps, guidance, batch 16", f"{statistics.median(rates):.1f} / s", "")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
