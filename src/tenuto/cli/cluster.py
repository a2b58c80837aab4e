"""Options by which a command runs several tasks at once: here (`--at-once`), or on other machines (`--on local`,
`--on ray://HOST:10001`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from tenuto.cli.rooms import need
from tenuto.words import TenutoError

if TYPE_CHECKING:
    from tenuto.events import Listener
    from tenuto.project.settings import Project
    from tenuto.work.tasks import Runner

On = Annotated[
    str | None,
    typer.Option(help="Where tasks run: local (a Ray of this machine), or a cluster's head as ray://HOST:10001."),
]
Cpus = Annotated[int | None, typer.Option(min=1, help="With --on: CPUs of each task, and torch's threads in it.")]
Gpus = Annotated[float | None, typer.Option(min=0, help="With --on: GPUs of each task; at 0.5 two share one.")]
Retries = Annotated[int, typer.Option(min=0, help="With --on: how often a task begins again after its worker died.")]
AtOnce = Annotated[
    int,
    typer.Option(min=1, help="Without --on: tasks at once here, each in a process with its share of the threads."),
]
RETRIES = 3
NEEDED = ("ray", "grpc")
"""What the extra brings."""


class Engage(Protocol):
    """Finds whoever runs the tasks of some projects, whose results go into a folder."""

    def __call__(self, projects: Sequence[Project], folder: Path) -> Runner: ...


@contextmanager
def engaged(
    on: str | None, cpus: int | None, gpus: float | None, retries: int, listener: Listener, at_once: int = 1
) -> Iterator[Engage]:
    """As the options say; without --on and --at-once, tasks run here one after another."""
    if on is None:
        if cpus is not None or gpus is not None:
            raise TenutoError("--cpus and --gpus say what each task takes of a cluster's machines; give --on too")
        yield lambda projects, folder: _here(at_once)
        return
    if at_once > 1:
        raise TenutoError("--at-once is for this machine; with --on, as many tasks run as the machines have room for")
    need("cluster", NEEDED, f"--on {on}")
    from tenuto.cluster.connection import joined
    from tenuto.cluster.settings import ClusterSettings

    settings = ClusterSettings(on=on, cpus=cpus, gpus=gpus, retries=retries)
    with joined(on):
        from tenuto.cluster.engage import engage

        yield lambda projects, folder: engage(settings, projects, folder, listener)


def _here(at_once: int) -> Runner:
    from tenuto.work.processes import SideBySide
    from tenuto.work.tasks import in_sequence

    return SideBySide(at_once) if at_once > 1 else in_sequence
