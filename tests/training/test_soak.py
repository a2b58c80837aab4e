"""A long run holds no more memory than a short one."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from torch import Tensor

from tenuto.families.base import Base
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.loop import Run, train
from tenuto.training.rows import Row
from tests.steps import Thing, make_run

MEGABYTE = 2**20


@dataclass(frozen=True)
class EndlessCaptions(Thing):
    """Another caption at every visit, as shuffled tags give."""

    def row(self, visit: int) -> Row:
        return Thing(self.id, caption=f"{self.id} {visit}", class_caption=f"dog {visit}").row(visit)


class Held:
    """Live tensors and resident bytes after so many updates."""

    def __init__(self, run: Run, at: set[int]) -> None:
        self._run, self._at = run, at
        self.tensors: dict[int, int] = {}
        self.bytes: dict[int, int] = {}

    def __call__(self, entry: dict[str, float]) -> None:
        Run.handle_due(self._run, entry)
        if self._run.done in self._at:
            gc.collect()
            self.tensors[self._run.done] = sum(issubclass(type(own), Tensor) for own in gc.get_objects())
            self.bytes[self._run.done] = psutil.Process().memory_info().rss


def soak(base: Base, folder: Path, updates: int, at: set[int]) -> Held:
    items = [EndlessCaptions(f"item-{number}") for number in range(6)]
    run = make_run(
        base, folder, {"p": PriorPreservation()}, items=items, steps=updates, save_every=updates // 4, keep=2
    )
    held = Held(run, at)
    run.handle_due = held  # type: ignore[method-assign]
    train(run)
    return held


def test_a_long_run_holds_what_100_updates_hold(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenuto.training.texts.KEPT", 32)  # so that it is full after 100 updates
    held = soak(tiny_base, tmp_path, 400, {100, 200, 300, 400})
    assert all(held.tensors[done] <= held.tensors[100] for done in (200, 300, 400))
    grown = [held.bytes[done] - held.bytes[done - 100] for done in (200, 300, 400)]
    assert min(grown) < MEGABYTE, grown  # what leaks grows in every stretch, an allocator's arena in one
    assert len(list((tmp_path / "states").glob("*"))) == 2
    assert len(list((tmp_path / "snapshots").glob("*"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_20000_updates_grow_by_less_than_a_megabyte_in_1000(tiny_base: Base, tmp_path: Path) -> None:
    held = soak(tiny_base, tmp_path, 20_000, {2_000, 20_000})
    assert held.tensors[20_000] <= held.tensors[2_000]
    assert (held.bytes[20_000] - held.bytes[2_000]) / 18 < MEGABYTE
