"""How fast the programs of `benchmarks.peers` make prior pictures, watched from outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import GIB, PICTURES, Diffusers, Failed, Hold, Program, Tenuto, last_words, sets

TICK = 0.02
"""Seconds between two looks."""


@dataclass(frozen=True)
class Made:
    """Of one generation of pictures."""

    each: float
    """Seconds a picture, between the first and the last that were seen."""
    host: float
    """GiB of the process, at most."""


def watched(program: Program, command: list[str], done: Callable[[str], int], wanted: int) -> Made:
    """Run a command until `done`, told what it has printed so far, says that all is done."""
    bench = program.bench
    said = bench.folder / "said.txt"
    start = time.time()
    with said.open("w") as out:
        process = subprocess.Popen(
            [str(program.python), *command], cwd=bench.folder, env=program.environment(), stdout=out, stderr=out
        )
    at: dict[int, float] = {}
    peak = 0
    while process.poll() is None and wanted not in at and time.time() - start < bench.limit:
        time.sleep(TICK)
        if count := done(said.read_text(errors="replace")):
            at.setdefault(count, time.time() if bench.gpu else _seconds(process.pid))
        peak = max(peak, _peak(process.pid))
    process.kill()
    process.wait()
    if wanted not in at or len(at) < 2:
        raise Failed(f"ended at {max(at, default=0)} of {wanted}: {last_words(said)}")
    first, last = min(at), max(at)
    return Made((at[last] - at[first]) / (last - first), peak / GIB)


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def class_images(program: Diffusers, count: int) -> Made:
    """The peer's pipeline takes 50 steps, on 4 pictures at once; only whole fours are counted."""
    place = program.bench.folder / "class"
    shutil.rmtree(place, ignore_errors=True)
    command = program.command(1, *program.classes("class", count))
    return watched(program, command, lambda said: len(list(place.iterdir())) // 4 * 4 if place.exists() else 0, count)


def prior_images(program: Tenuto, count: int, steps: int) -> Made:
    shutil.rmtree(program.bench.folder / "fresh", ignore_errors=True)
    changes = {"prior.store": "fresh", "prior.per_image": count // PICTURES, "prior.sampler.steps": steps}
    command = ["-m", "tenuto", "prior", "build", program.write(Hold.OWN), *sets(changes)]

    def done(said: str) -> int:
        found = re.findall(r"prior images (\d+)/", said)
        return int(found[-1]) if found else 0

    return watched(program, command, done, count)
