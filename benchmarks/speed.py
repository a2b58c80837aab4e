"""Speed on this machine: prior images per second and training updates per second.

    python -m benchmarks.speed [--model M]

Several rounds in turn, so that a machine whose speed drifts is fair to all; medians are printed, and ratios taken
round by round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.data.schedule import plan_updates
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


class _Made:
    """A row with random latents."""

    repeats, concept = 1, "c"

    def __init__(self, base: Base, number: int, role: Role) -> None:
        self.id, self.role, self.bucket = f"{role}{number}", role, base.geometry.native
        self.latents = noise(base.geometry.latent(self.bucket), 0, "bench", row=self.id)

    def row(self, visit: int) -> Row:
        return Row(self.id, visit, self.role, self.bucket, "1girl, smile, beach", 1, self.latents)


def seconds_per_update(base: Base, methods: dict[str, Regularizer], batch: int, ratio: float, updates: int) -> float:
    """Mean wall seconds of an update, the first one left out."""
    items, prior = ([_Made(base, n, role) for n in range(16)] for role in ("instance", "prior"))
    settings = TrainingSettings(steps=updates + 1, batch=batch, watch_every=0, adapter=AdapterSettings(rank=8))
    adapter = Adapter.attach(base, settings.adapter)
    run = Run(
        base=base, adapter=adapter, settings=settings, regularizers=methods,
        updates=plan_updates(items, prior, batch=batch, updates=updates + 1, ratio=ratio if methods else 0, seed=0),
        sources={own.id: own for own in (*items, *prior)}, rows_per_epoch=len(items), seed=0,
        folder=Path(tempfile.gettempdir()), plan="",
    )  # fmt: skip
    start = 0.0
    for number, rows in enumerate(run.remaining()):
        if number == 1:
            start = time.perf_counter()
        run.learn(rows)
        run.apply()
    adapter.detach()
    return (time.perf_counter() - start) / updates


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
) -> None:
    base = open_base(model)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    rates: list[float] = []
    for _ in range(rounds):
        for name, methods in METHODS.items():
            times[name].append(seconds_per_update(base, methods, batch, ratio, updates))
        rates.append(images_per_second(base, 16, SamplerSettings(steps=20, guidance=4.0)))
    table = Table("what", "median", "against plain", title=f"{model}, batch {batch}, ratio {ratio:g}, {rounds} rounds")
    for name, own in times.items():
        against = statistics.median(a / b for a, b in zip(own, times["plain"], strict=True))
        table.add_row(f"update, {name}", f"{statistics.median(own) * 1000:.0f} ms", f"x{against:.2f}")
    table.add_row("prior images, 20 steps, guidance, batch 16", f"{statistics.median(rates):.1f} / s", "")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
