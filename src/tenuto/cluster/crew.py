"""The machines of a cluster as a `Runner` of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError

from tenuto.cluster.away import Finished, Halted, Refused, Terms, carry_out
from tenuto.cluster.head import is_there, last_line, reached
from tenuto.cluster.line import BEGUN, Post
from tenuto.cluster.machines import Share, machines
from tenuto.events import Event, Listener, note, warn
from tenuto.words import Stopped, TenutoError
from tenuto.work.tasks import GOES_ON, Tally, Task

T = TypeVar("T")
POLL = 0.5
"""Seconds between two looks at what has come."""
AT_HEAD: dict[str, Any] = {
    "num_cpus": 0,
    "resources": {"node:__internal_head__": 0.001},
    "max_restarts": -1,
    "max_task_retries": -1,
}
"""The post stands where no worker's death takes it along."""


class Crew:
    """Runs tasks on a cluster: each where there is room for it, and again where its worker died."""

    def __init__(self, on: str, share: Share, terms: Terms, retries: int) -> None:
        self.on, self.share, self.terms, self.retries = on, share, terms, retries
        self.post = ray.remote(Post).options(**AT_HEAD).remote()
        self.numbers = count()

    def __call__(self, tasks: Sequence[Task[T]], listener: Listener, stop: Callable[[], bool]) -> list[T]:
        if not tasks:
            return []
        with reached(self.on):
            room = sum(self.share.on(machine) for machine in machines())
            copies = [max(1, room // len(tasks)) if task.together else 1 for task in tasks]
            return _Work(self, tasks, copies, listener).run(stop)


class Errand(NamedTuple):
    """A task, or one worker's part in a task that several do together."""

    number: int
    task: int


class _Work(Generic[T]):
    """Tasks under way."""

    def __init__(self, crew: Crew, tasks: Sequence[Task[T]], copies: Sequence[int], listener: Listener) -> None:
        self.crew, self.tasks, self.listener = crew, tasks, listener
        places = [place for place, parts in enumerate(copies) for _ in range(parts)]
        self.errands = {number: Errand(number, place) for place, number in zip(places, crew.numbers, strict=False)}
        self.carry_out = ray.remote(carry_out).options(
            num_cpus=crew.share.cpus, num_gpus=crew.share.gpus, max_retries=0
        )
        self.under_way: dict[Any, Errand] = {}
        self.begun: set[Errand] = set()
        """Those that have a worker."""
        self.deaths: Counter[Errand] = Counter()
        self.results: dict[int, T] = {}
        self.tally = Tally(tasks, listener)
        self.halted, self.refusal = False, ""

    def run(self, stop: Callable[[], bool]) -> list[T]:
        """All results. Raises Stopped, and TenutoError where a task cannot be done; the others have stopped by then."""
        self._hear(self._taken())  # the post forgets the run before
        for errand in self.errands.values():
            self._send(errand)
        try:
            while self.under_way:
                if not self.halted and (self.refusal or stop()):
                    self._halt()
                come, _ = ray.wait(list(self.under_way), timeout=POLL)
                self._hear(self._taken())
                for reference in come:
                    self._collect(self.under_way.pop(reference), reference)
                self.tally.tell()
        finally:
            for reference in self.under_way if is_there() else ():
                ray.cancel(reference, force=True)
        if self.refusal:
            raise TenutoError(self.refusal)
        if len(self.results) < len(self.tasks):
            raise Stopped(GOES_ON)
        return [self.results[place] for place in range(len(self.tasks))]

    def _send(self, errand: Errand) -> None:
        task = self.tasks[errand.task]
        self.under_way[self.carry_out.remote(task, errand.number, self.crew.post, self.crew.terms)] = errand

    def _halt(self) -> None:
        """Those that have a worker learn it from the post; the others never begin."""
        self.halted = True
        for reference, errand in self.under_way.items():
            if errand not in self.begun:
                ray.cancel(reference)

    def _taken(self) -> list[tuple[int, Event]]:
        """What tasks have said since; from now on they hear whether to stop."""
        taken: list[tuple[int, Event]] = ray.get(self.crew.post.take.remote(self.halted))
        return taken

    def _hear(self, events: Sequence[tuple[int, Event]]) -> None:
        for number, event in events:
            if (errand := self.errands.get(number)) is None:
                continue  # of an earlier run, whose worker was given up
            if event.kind == BEGUN:
                self.begun.add(errand)
            else:
                self.tally.hear(errand.task, event)

    def _collect(self, errand: Errand, reference: Any) -> None:
        name = self.tasks[errand.task].name
        try:
            outcome: Finished[T] | Refused | Halted = ray.get(reference)
        except TaskCancelledError:
            return
        except RayTaskError as error:
            raise RuntimeError(f"{name}: {last_line(error)}") from error
        except RayError as error:
            self._lost(
                errand, "out of memory" if isinstance(error, OutOfMemoryError) else "killed, or its machine is gone"
            )
            return
        if isinstance(outcome, Refused):
            self.refusal = self.refusal or f"{name} on {outcome.text}"
        elif isinstance(outcome, Finished) and errand.task not in self.results:
            self.results[errand.task] = outcome.value
            self.tally.finish(errand.task)
            note(self.listener, f"{name}: done on {outcome.host} in {outcome.seconds:.0f} s")

    def _lost(self, errand: Errand, why: str) -> None:
        name, retries = self.tasks[errand.task].name, self.crew.retries
        self.deaths[errand] += 1
        times = self.deaths[errand]
        self.begun.discard(errand)
        if self.halted:
            return
        if times > retries:
            self.refusal = (
                f"{name}: its worker died ({why}), and none of {retries} retries is left; see what else uses its "
                "machine's memory, or give --retries, or each task more of a machine (--cpus, --gpus); the same "
                "command goes on from what was saved"
            )
            return
        again = f"it begins again from what was saved ({times} of {retries})"
        warn(self.listener, f"{name}: its worker died ({why}); {again}")
        self._send(errand)
