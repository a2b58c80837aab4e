"""What several machines are given to do: quick readings, and prior sets that hold still at a known place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from tenuto.events import Event, Listener
from tenuto.work.sweep import PriorTask
from tenuto.work.tasks import Stop
from tests.jobs import until
from tests.still import still_once

QUICK: dict[str, Any] = {
    "comparison.steps": 1,
    "comparison.states": 1,
    "comparison.curve_weights": [],
    "comparison.curve_checkpoints": 0,
}
"""The least that can be compared."""


@dataclass(frozen=True)
class PriorSet:
    """The task of making one, as a runner sees it."""

    task: PriorTask

    @property
    def name(self) -> str:
        return self.task.name

    together = True
    counted_by = "prior images"


@dataclass(frozen=True)
class Noted(PriorSet):
    """A prior set; each machine notes what it has made, and goes on from its first batch once all have made one."""

    notes: Path
    machines: int

    def __call__(self, listener: Listener, stop: Stop) -> int:
        own = self.notes / ray.get_runtime_context().get_node_id()

        def hear(event: Event) -> None:
            listener(event)
            if made := event.data.get("made"):
                with own.open("a") as file:
                    file.writelines(f"{name}\n" for name in made)
                until(lambda: stop() or len(list(self.notes.iterdir())) == self.machines)

        return self.task(hear, stop)


@dataclass(frozen=True)
class Writing(PriorSet):
    """A prior set of which no further batch is put into its place once this many are there, until `go` is there or it
    is asked to stop."""

    store: Path
    batches: int
    go: Path

    def __call__(self, listener: Listener, stop: Stop) -> int:
        with still_once(lambda: self._enough() and not self.go.exists() and not stop()):
            return self.task(listener, stop)

    def killing(self, workers: Callable[[], Sequence[psutil.Process]], killed: Path) -> Stop:
        """Kills one of two workers once both are about to put a batch into its place, and leaves `killed`.

        Asks nobody to stop.
        """

        def kill_one() -> bool:
            if not killed.exists() and self._enough() and len(list(self.store.glob("shards/.*.part"))) == 2:
                workers()[0].kill()
                killed.touch()
            return False

        return kill_one

    def _enough(self) -> bool:
        return len(shards(self.store)) >= self.batches


def shards(store: Path) -> dict[Path, int]:
    """The batches that are there, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in store.glob("shards/*.safetensors")}
