"""Work cut into tasks that know nothing of each other and can be sent elsewhere: whoever runs them is a `Runner`.

A task that was done before takes what it finds in its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from tenuto.events import Event, Listener, progress, silent, stage
from tenuto.words import Stopped

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Stop = Callable[[], bool]
NEVER: Stop = lambda: False  # noqa: E731
GOES_ON = "stopped; what was made is kept, the same command goes on from there"


class Task(Protocol[T_co]):
    """One piece of a job, picklable; it stands on its own but for the folders that all tasks share."""

    @property
    def name(self) -> str:
        """What is told of it."""

    @property
    def together(self) -> bool:
        """Whether several workers may be at it at once, each doing what no other is doing."""

    @property
    def counted_by(self) -> str:
        """The progress that says how far it is; empty where none does."""

    def __call__(self, listener: Listener, stop: Stop) -> T_co:
        """Do it, or take what is there."""


class Runner(Protocol):
    """Runs tasks that do not need each other, anywhere and in any order; results come in the tasks' order."""

    def __call__(self, tasks: Sequence[Task[T]], listener: Listener, stop: Stop) -> list[T]: ...


def in_sequence(tasks: Sequence[Task[T]], listener: Listener = silent, stop: Stop = NEVER) -> list[T]:
    """The runner of one process: here, one after another."""
    results = []
    for number, task in enumerate(tasks, start=1):
        if stop():
            raise Stopped(GOES_ON)
        stage(listener, f"{task.name} ({number} of {len(tasks)})")
        results.append(task(listener, stop))
    return results


class Tally:
    """Tasks that are under way at once, told to one listener: how much of all is done, and each text once."""

    def __init__(self, tasks: Sequence[Task[Any]], listener: Listener) -> None:
        self._tasks, self._listener = tasks, listener
        self._parts = [0.0] * len(tasks)
        """How much of each task is done."""
        self._said: set[str] = set()
        stage(listener, f"{tasks[0].name}{' ...' if len(tasks) > 1 else ''} ({len(tasks)} in all)")

    def hear(self, place: int, event: Event) -> None:
        """What the task at this place says."""
        if event.kind == "progress":
            self._count(place, **event.data)
        elif event.kind in ("note", "warning") and (text := event.data["text"]) not in self._said:
            self._said.add(text)
            self._listener(event)

    def finish(self, place: int) -> None:
        """The task at this place is done."""
        self._parts[place] = 1.0

    def tell(self) -> None:
        """How much of all is done."""
        progress(self._listener, "done", sum(self._parts), len(self._tasks))

    def _count(self, place: int, what: str, done: float, total: int, **more: object) -> None:
        if what == self._tasks[place].counted_by and total:
            self._parts[place] = max(self._parts[place], done / total)
