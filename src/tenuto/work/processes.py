"""Several tasks at once on the processor of this machine, each in a process with its share of the threads.

A small model keeps two cores busier with two trainings than with one on both: 1.39 times as fast in the demo
(docs/findings.md).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import BaseContext
from queue import Empty
from typing import Any, NamedTuple, TypeVar

import torch

from tenuto.events import Event, Listener, silent
from tenuto.words import Stopped, TenutoError
from tenuto.work.tasks import GOES_ON, NEVER, Stop, Tally, Task

T = TypeVar("T")
POLL = 0.3
"""Seconds between two looks at what was said."""


class Line(NamedTuple):
    """What the workers and the process that began them share."""

    said: Any
    """Queue of (the task's place, event)."""
    flag: Any
    """Not 0 when all tasks should stop. Without a lock, which a killed worker would keep for good."""

    def halt(self) -> None:
        """All tasks shall stop."""
        self.flag.value = 1

    def halted(self) -> bool:
        """Whether all tasks should stop."""
        return bool(self.flag.value)


class SideBySide:
    """A `Runner`: so many processes of this machine, which share the threads of this one."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once

    def __call__(self, tasks: Sequence[Task[T]], listener: Listener = silent, stop: Stop = NEVER) -> list[T]:
        """Raises Stopped, and what a task raises; the others have stopped by then."""
        if not tasks:
            return []
        tally, context = Tally(tasks, listener), _context(tasks)
        line = Line(context.Queue(), context.RawValue("b", 0))
        workers = min(self._at_once, len(tasks))
        threads = max(1, torch.get_num_threads() // workers)
        with ProcessPoolExecutor(workers, context, _begin, (line, threads, dict(os.environ))) as pool:
            try:
                with _deaf_to_the_terminal():
                    futures = [pool.submit(_carry_out, place, task) for place, task in enumerate(tasks)]
                    pool.submit(int)  # a pool begins to watch over its newest process when it is next given something
                _watch(futures, line, tally, stop)
            finally:
                line.halt()
        _hear(line, tally)
        return _results(futures, stop)


def _context(tasks: Sequence[Task[T]]) -> BaseContext:
    """How a worker begins: where that is safe, as the copy of a process that has only imported what the tasks need.

    The imports take longer than a small model's training; so they are paid for once.
    """
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload(sorted({type(task).__module__ for task in tasks}))
    return context


def _watch(futures: Sequence[Future[T]], line: Line, tally: Tally, stop: Stop) -> None:
    """Until all have ended. A failure stops the others, as being asked to does."""
    waiting, places = set(futures), {future: place for place, future in enumerate(futures)}
    while waiting:
        ended, waiting = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
        _hear(line, tally)
        done = {future for future in ended if future.exception() is None}
        for future in done:
            tally.finish(places[future])
        tally.tell()
        if stop() or ended - done:
            line.halt()  # what was not begun ends at its first look; a pool that breaks cannot bear cancelled futures


def _hear(line: Line, tally: Tally) -> None:
    """Everything that was said since."""
    while True:
        try:
            tally.hear(*line.said.get_nowait())
        except Empty:
            return


def _results(futures: Sequence[Future[T]], stop: Stop) -> list[T]:
    """Of tasks that have ended. Raises what one of them did not end well with, rather than what that stopped."""
    ends = [future.exception() for future in futures]
    failures = [end for end in ends if end is not None]
    failure = next((end for end in failures if not isinstance(end, Stopped)), None)
    if isinstance(failure, BrokenProcessPool) and not stop():
        raise TenutoError(
            "a process at its task was killed (out of memory?); set a smaller arms.at_once or --at-once, and the same "
            "command goes on from what was saved"
        ) from failure
    if failure is not None and not isinstance(failure, BrokenProcessPool):
        raise failure
    if failures:
        raise Stopped(GOES_ON)
    return [future.result() for future in futures]


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Processes that begin in here do not hear Ctrl-C, which reaches all of a terminal: they are told to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- a worker ---------------------------------------------------------------------------------------------------------


class _Worker:
    """This process, where it is a worker."""

    line: Line


def _begin(line: Line, threads: int, environment: Mapping[str, str]) -> None:
    """What a worker does first. What it is a copy of may have begun under another environment."""
    _Worker.line = line
    os.environ.update(environment)
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed ends as that did: what is on disk is whole at any instant."""
    parent = parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _carry_out(place: int, task: Task[T]) -> T:
    def tell(event: Event) -> None:
        if event.kind in ("progress", "note", "warning"):
            _Worker.line.said.put((place, event))

    if _Worker.line.halted():
        raise Stopped(GOES_ON)
    return task(tell, _Worker.line.halted)
