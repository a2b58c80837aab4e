"""Runs somebody's training program as it is until its optimizer has stepped so often; tells when, and what was held.

    python counted.py REPORT STEPS [--set MODULE:CLASS.NAME=JSON] (SCRIPT | -m MODULE) [the program's own arguments]

Needs torch alone: it runs in the environments of programs that know nothing of tenuto. `--set` gives a class of the
program another value before it starts. After the last step the process ends at once, so nothing is saved.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

WARM = 2
"""Steps before memory is counted afresh: in the first ones kernels are chosen and moments are made."""


class Count:
    """Of this process, by its optimizer's steps."""

    def __init__(self, report: Path, last: int) -> None:
        self.report, self.last = report, last
        self.wall: list[float] = []
        self.processor: list[float] = []
        self.peak = 0

    def __call__(self, *_: Any) -> None:
        cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        done = len(self.wall) + 1
        if cuda and done in (1, WARM, self.last):
            torch.cuda.synchronize()
        self.wall.append(time.time())
        self.processor.append(time.process_time())
        if cuda and done == WARM:
            self.peak = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        if done == self.last:
            self.report.write_text(json.dumps(self.told(cuda)))
            sys.stdout.flush()
            os._exit(0)

    def told(self, cuda: bool) -> dict[str, Any]:
        """Seconds since 1970 and processor seconds at every step; bytes."""
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found: dict[str, Any] = {"wall": self.wall, "processor": self.processor, "host": held}
        if cuda:
            stepping = torch.cuda.max_memory_allocated()
            found |= {"device": torch.cuda.get_device_name(), "stepping": stepping, "peak": max(self.peak, stepping)}
        return found


def replaced(order: str) -> None:
    """MODULE:CLASS.NAME=JSON"""
    place, _, value = order.partition("=")
    module, _, name = place.partition(":")
    owner, _, field = name.rpartition(".")
    setattr(getattr(importlib.import_module(module), owner), field, json.loads(value))


def main() -> None:
    report, steps, *rest = sys.argv[1:]
    sets = []
    while rest[0] == "--set":
        sets.append(rest[1])
        rest = rest[2:]
    module = rest[0] == "-m"
    sys.argv = rest[1:] if module else rest
    sys.path[0] = str(Path.cwd()) if module else str(Path(rest[0]).parent)
    register_optimizer_step_post_hook(Count(Path(report), int(steps)))
    for order in sets:
        replaced(order)
    if module:
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    main()
