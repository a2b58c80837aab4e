"""How work is spread over a cluster. It decides when a result is there, not what it is, so it stands in no project."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from tenuto.words import Settings

LOCAL = "local"


class ClusterSettings(Settings):
    """Where tasks run, and what each of them takes of a machine."""

    on: str
    """local: a Ray of this machine alone, for as long as the command; ray://HOST:PORT: the cluster with this head."""
    cpus: PositiveInt | None = None
    """CPUs of one task, and torch's threads in it, which decide last bits. Unset: as many threads as torch takes here,
    so that results are those of this machine; with GPUs, a fair share of each machine's."""
    gpus: NonNegativeFloat | None = None
    """GPUs of one task; at 0.5 two tasks share one. Unset: 1 where the cluster has any and base.device is not "cpu"."""
    retries: NonNegativeInt
    """How often a task begins again, from what it saved, after its worker died."""
