"""Beside the peers' public code, in one run, by turns: seconds per step, start, memory, prior images.

    python -m benchmarks.peers --diffusers FOLDER --sd-scripts FOLDER --python PEER/bin/python [--rounds 3]

FOLDER is diffusers' `examples/dreambooth` and a checkout of sd-scripts. Both and their environments are the user's;
nothing of them is part of tenuto. Every program trains the same LoRA, on the attention layers, with AdamW, on B
pictures and as many prior pictures an update. It is told to keep nothing on the way, and to compute beforehand what it
can (latents, text). Each is a process of its own that ends at its last step (`counted.py`); where one fails, that is
said and the others go on.

On the CPU each has one thread and processor seconds are counted, so that other work on the machine hardly moves them;
on a GPU clock seconds are. The model is pocket, or `sd1` or `sdxl`: that architecture at full size with random weights.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.images import Made, class_images, prior_images
from benchmarks.programs import (
    Bench,
    Diffusers,
    Failed,
    Hold,
    Program,
    SdScripts,
    Tenuto,
    Trained,
    Work,
)
from tenuto.families.layouts import LAYOUTS


@dataclass
class Results:
    """What was measured so far; what failed stands there by its last words."""

    out: Path | None
    began: float
    until: float
    """Seconds after which nothing new is begun."""
    taken: dict[str, list[dict[str, Any]]]

    def add(self, name: str, measure: Callable[[], Trained | Made]) -> None:
        if time.time() - self.began > self.until:
            found: dict[str, Any] = {"failed": "not begun for want of time"}
        else:
            try:
                found = asdict(measure())
            except (Failed, OSError) as error:
                found = {"failed": str(error)}
        self.taken.setdefault(name, []).append(found)
        print(f"{time.time() - self.began:.0f} s: {name}: {found}", file=sys.stderr, flush=True)
        if self.out:
            self.out.write_text(json.dumps(self.taken, indent=1))

    def of(self, name: str, field: str) -> float | None:
        found = [own[field] for own in self.taken.get(name, ()) if own.get(field) is not None]
        return statistics.median(found) if found else None

    def failed(self) -> dict[str, str]:
        """Whose work failed -> the last words."""
        return {name: own["failed"] for name, all_of in self.taken.items() for own in all_of if "failed" in own}


def main(
    diffusers: Annotated[Path | None, typer.Option(help="diffusers' examples/dreambooth")] = None,
    sd_scripts: Annotated[Path | None, typer.Option(help="a checkout of sd-scripts")] = None,
    python: Annotated[Path, typer.Option(help="the interpreter of the peers")] = Path(sys.executable),
    path: Annotated[str, typer.Option(help="PYTHONPATH of diffusers' script")] = "",
    sd_python: Annotated[Path | None, typer.Option(help="the interpreter of sd-scripts, if another")] = None,
    sd_path: Annotated[str, typer.Option(help="PYTHONPATH of sd-scripts")] = "",
    sd_folder: Annotated[bool, typer.Option(help="sd-scripts reads the diffusers folder, not the file")] = False,
    model: Annotated[str, typer.Option(help="pocket, sd1 or sdxl")] = "pocket",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32 or bf16")] = "fp32",
    side: Annotated[int, typer.Option(help="of a picture, in pixels")] = 64,
    rank: Annotated[int, typer.Option()] = 8,
    rounds: Annotated[int, typer.Option()] = 3,
    updates: Annotated[int, typer.Option(help="more than 2")] = 20,
    batch: Annotated[list[int] | None, typer.Option(help="instance pictures an update; as often as wanted")] = None,
    checkpointed: Annotated[list[int] | None, typer.Option(help="the same, with gradient checkpointing")] = None,
    compiled: Annotated[bool, typer.Option(help="tenuto also with torch.compile")] = False,
    holding: Annotated[bool, typer.Option(help="also without prior pictures and with tenuto's own default")] = False,
    job: Annotated[int, typer.Option(help="updates of the job whose cost of holding is told")] = 1000,
    pool: Annotated[int, typer.Option(help="its prior images")] = 100,
    images: Annotated[int, typer.Option(help="of tenuto's: a multiple of 12, more than 16; 0: none")] = 0,
    made: Annotated[int, typer.Option(help="of diffusers' script: a multiple of 4, more than 4")] = 12,
    steps: Annotated[int, typer.Option(help="of tenuto's sampler; the peer takes its pipeline's 50")] = 20,
    limit: Annotated[float, typer.Option(help="seconds that one program may take")] = 3600.0,
    until: Annotated[float, typer.Option(help="seconds after which nothing new is begun")] = float("inf"),
    out: Annotated[Path | None, typer.Option(help="all that was measured, as JSON")] = None,
) -> None:
    works = [Work(own) for own in batch or (() if checkpointed else (4,))]
    works += [Work(own, checkpointing=True) for own in checkpointed or ()]
    works += [replace(own, hold=hold) for own in works for hold in (Hold.NOTHING, Hold.OWN) if holding]
    results = Results(out, time.time(), until, {})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        bench = Bench(Path(place), model, device, precision, side, rank, updates, limit)
        bench.prepare()
        own = os.environ.get("PYTHONPATH", "")
        ours = Tenuto(bench, Path(sys.executable), own)
        programs: dict[str, Program] = {"tenuto": ours}
        if compiled:
            programs["tenuto, compiled"] = Tenuto(bench, Path(sys.executable), own, compiled=True)
        if diffusers:
            programs["diffusers"] = Diffusers(bench, python.absolute(), path, diffusers.resolve())
        if sd_scripts:
            read = bench.base if sd_folder or model not in LAYOUTS else bench.file
            theirs = (sd_python or python).absolute()
            programs["sd-scripts"] = SdScripts(bench, theirs, sd_path, sd_scripts.resolve(), read)
        for _ in range(rounds):
            for work in works:
                for name, program in programs.items():
                    if isinstance(program, Tenuto) or work.hold != Hold.OWN:
                        results.add(_title(work, name), partial(program.train, work))
            if images:
                results.add("tenuto", partial(prior_images, ours, images, steps))
                peer = programs.get("diffusers")
                if isinstance(peer, Diffusers):
                    results.add("diffusers", partial(class_images, peer, made))
    show(results, works, list(programs), steps)
    if holding and images:
        show_holding(results, [own for own in works if own.hold == Hold.NOTHING], list(programs), job, pool)
    for name, words in results.failed().items():
        print(f"\n{name} failed: {words}")
    raise SystemExit(1 if results.failed() else 0)


def _title(work: Work, program: str) -> str:
    return f"{work}, {program}"


def show(results: Results, works: list[Work], programs: list[str], steps: int) -> None:
    """Markdown; ratios are to tenuto, so that above 1 it is the better."""
    print("| rows, program | s / step | to tenuto | start, s | peak, GiB | while stepping | host, GiB |")
    print("|---|---|---|---|---|---|---|")
    for work in works:
        ours = results.of(_title(work, "tenuto"), "each")
        for name in programs:
            title = _title(work, name)
            each = results.of(title, "each")
            ratio = each / ours if each and ours else None
            cells = [each, ratio, *(results.of(title, field) for field in ("start", "peak", "stepping", "host"))]
            print(f"| {title} | " + " | ".join("–" if cell is None else f"{cell:.3g}" for cell in cells) + " |")
    made = {name: results.of(name, "each") for name in ("diffusers", "tenuto")}
    if any(made.values()):
        print(f"\nSeconds per prior image (diffusers 50 steps, tenuto {steps}): {made}")


def show_holding(results: Results, works: list[Work], programs: list[str], job: int, pool: int) -> None:
    """Markdown: (prior set + training with it) / training without, in seconds of a whole job."""
    print(f"\n| {job} updates, {pool} prior images | plain, s | prior set, s | held training, s | cost of holding |")
    print("|---|---|---|---|---|")
    for work in works:
        for name in programs:
            plain = results.of(_title(work, name), "each")
            image = results.of(name.partition(",")[0], "each")
            for hold in (Hold.PICTURES, Hold.OWN):
                held = results.of(_title(replace(work, hold=hold), name), "each")
                if plain and image and held:
                    cost = (held * job + image * pool) / (plain * job)
                    cells = f"{plain * job:.0f} | {image * pool:.0f} | {held * job:.0f} | {cost:.2f}"
                    print(f"| {_title(work, name)}, {hold} | {cells} |")


if __name__ == "__main__":
    typer.run(main)
