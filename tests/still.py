"""Work that holds still at a known place: what a test does to it there meets it there, on a machine of any speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tenuto.events import Listener
from tenuto.training.loop import Run
from tenuto.work import train
from tenuto.work.processes import SideBySide
from tenuto.work.tasks import Stop, Task
from tenuto.work.train import TrainTask
from tenuto.work.trainings import Done
from tests.jobs import until

T = TypeVar("T")


@contextmanager
def still_at(update: int, go: Path | None = None) -> Iterator[None]:
    """Trainings of this process end this update only when they are asked to stop, or when the file `go` is there.

    Of the processes that share a training the last one waits, and all others with it for its word.
    """
    end = Run.handle_due

    def wait(run: Run, entry: dict[str, float]) -> None:
        if run.done == update and run.ranks.rank == run.ranks.count - 1:
            until(lambda: run.stop() or (go is not None and go.exists()))
        end(run, entry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "handle_due", wait)
        yield


@contextmanager
def still_once(there: Callable[[], bool]) -> Iterator[None]:
    """This process puts no further file into its place once this is so: it waits until it is killed."""
    put = Path.replace

    def wait(path: Path, target: Path) -> Path:
        until(lambda: not there())
        return put(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", wait)
        yield


@dataclass(frozen=True)
class Still:
    """A training as `still_at` holds it, whichever process it is sent to."""

    training: TrainTask
    update: int
    go: Path | None = None

    @property
    def name(self) -> str:
        return self.training.name

    together = False
    counted_by = "training"

    def __call__(self, listener: Listener, stop: Stop) -> Done:
        with still_at(self.update, self.go):
            return self.training(listener, stop)


@contextmanager
def tasks_still_at(update: int) -> Iterator[None]:
    """Trainings that this process sends to others are held there."""

    class Held(SideBySide):
        def __call__(self, tasks: Sequence[Task[T]], *more: Any) -> list[T]:
            return super().__call__([Still(task, update) for task in tasks], *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SideBySide", Held)
        yield
