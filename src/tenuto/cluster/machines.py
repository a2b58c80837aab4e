"""The machines of a cluster, and how many tasks fit on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import ray
import torch

from tenuto.cluster.settings import ClusterSettings
from tenuto.words import TenutoError


@dataclass(frozen=True)
class Machine:
    """One machine that takes part; several may be one computer."""

    id: str
    host: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Share:
    """What one task takes of a machine."""

    cpus: int
    gpus: float

    def on(self, machine: Machine) -> int:
        """How many tasks it can hold at once."""
        by_gpu = int(machine.gpus / self.gpus) if self.gpus else int(machine.cpus)
        return min(int(machine.cpus / self.cpus), by_gpu)

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        return f"{cpus} and {self.gpus:g} GPU" if self.gpus else cpus


def machines() -> list[Machine]:
    """Those that are there now."""
    return [
        Machine(node["NodeID"], node["NodeManagerHostname"], own.get("CPU", 0.0), own.get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
        for own in [node["Resources"]]
    ]


def share_of(settings: ClusterSettings, found: Sequence[Machine], devices: Collection[str]) -> Share:
    """What each task takes. devices: the projects' base.device. Raises TenutoError when it fits nowhere."""
    if one := next((device for device in devices if ":" in device), None):
        raise TenutoError(
            f'base.device = "{one}" is one device for all tasks; leave it out, and each takes what Ray gives it'
        )
    asked = set(devices) != {"cpu"} and any(own.gpus for own in found)
    share = _fair(found, settings.cpus, float(asked) if settings.gpus is None else settings.gpus)
    if not any(share.on(own) for own in found):
        most = (
            f"{max((own.cpus for own in found), default=0):g} CPUs and {max((own.gpus for own in found), default=0):g}"
        )
        raise TenutoError(
            f"no machine of the cluster has {share} for a task (most: {most} GPUs); give --cpus or --gpus"
        )
    return share


def _fair(found: Sequence[Machine], cpus: int | None, gpus: float) -> Share:
    if cpus is not None:
        return Share(cpus, gpus)
    if not gpus:
        return Share(torch.get_num_threads(), gpus)
    fair = [int(own.cpus / int(own.gpus / gpus)) for own in found if own.gpus >= gpus]
    return Share(max(1, min(fair, default=1)), gpus)
