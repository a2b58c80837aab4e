"""Around the commands that several processes may do together: `accelerate launch -m tenuto train project.toml`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tenuto.cli.guard import Stopper, guarded
from tenuto.cli.screen import Screen
from tenuto.events import Listener, silent
from tenuto.ranks import Ranks, joined


@dataclass(frozen=True)
class Job:
    """What a command hands to `tenuto.work`."""

    listener: Listener
    stop: Callable[[], bool]
    ranks: Ranks


@contextmanager
def job() -> Iterator[Job]:
    """As `guarded`, for every process of a job: the first one speaks, and where one fails, one line tells why."""
    with guarded(), joined() as ranks, guarded(ranks.tells, quiet=not ranks.first) as stopper, Screen() as screen:
        yield Job(screen if ranks.first else silent, _stop(stopper, ranks), ranks)


def _stop(stopper: Stopper, ranks: Ranks) -> Callable[[], bool]:
    def stop() -> bool:
        ranks.check()
        return stopper()

    return stop
