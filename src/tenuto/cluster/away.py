"""What runs on a cluster's machines: one task at a time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from tenuto.cluster.line import EVERY, Line
from tenuto.events import note
from tenuto.files import hash_text
from tenuto.memory import is_out_of_memory
from tenuto.prior.claims import Claims
from tenuto.words import Stopped, TenutoError
from tenuto.work.tasks import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Terms:
    """What holds for every task."""

    claims: Path
    """A folder in which a task is claimed by who is at it."""
    threads: int
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Finished(Generic[T]):
    """A task was done."""

    value: T
    host: str
    seconds: float


@dataclass(frozen=True)
class Refused:
    """A task cannot be done until the user mends something."""

    text: str


@dataclass(frozen=True)
class Halted:
    """A task has stopped because it was asked to."""


def carry_out(task: Task[T], number: int, post: Any, terms: Terms) -> Finished[T] | Refused | Halted:
    """Do a task here, as the terms say."""
    os.environ.update(terms.environment)
    torch.set_num_threads(terms.threads)
    started, host = time.monotonic(), socket.gethostname()
    with Line(post, number) as line:
        try:
            with _alone(task, Claims(terms.claims), line):
                return Finished(task(line, line.stop), host, time.monotonic() - started)
        except Stopped:
            return Halted()
        except TenutoError as error:
            return Refused(f"{host}: {error}")
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return Refused(f"{host}: out of memory ({error}); give each task more of a machine (--cpus, --gpus)")


@contextmanager
def _alone(task: Task[T], claims: Claims, line: Line) -> Iterator[None]:
    """Nobody else is at this task: not another command, nor a machine that was given up too soon."""
    while True:
        with claims.on([] if task.together else [hash_text(task.name)[:16]]) as ours:
            if ours:
                yield
                return
        note(line, f"{task.name}: another process is at it; waiting for that one")
        if line.stop():
            raise Stopped
        time.sleep(EVERY)
