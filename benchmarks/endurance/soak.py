"""A long training of tiny pictures: what it holds, every thousand updates. The same run as the slow test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.training.test_soak import Held, soak

from benchmarks.endurance import examples
from tenuto.families.checkpoints import open_base

EVERY = 1_000
WARM_UP = 2_000
"""Updates after which nothing may grow any more: caches of captions are full."""


def long_run(folder: Path, updates: int) -> Held:
    """Goes on from the folder's newest state; what it holds is read in one process from there."""
    base = open_base(str(examples.checkpoint()), device="cpu")
    return soak(base, folder, updates, set(range(EVERY, updates + 1, EVERY)))


def summary(held: Held) -> dict[str, Any]:
    at = sorted(held.bytes)
    settled = [update for update in at if update >= at[0] + WARM_UP - EVERY]
    first, last = settled[0], settled[-1]
    return {
        "updates": last,
        "warm_up": first,
        "kib_per_1000": (held.bytes[last] - held.bytes[first]) / 1024 / max(1, (last - first) // EVERY),
        "tensors": held.tensors[last] - held.tensors[first],
        "mib": {update: round(held.bytes[update] / 2**20, 2) for update in at},
    }
