"""Kills, damaged inputs and a long run: what a night may bring, in hours; goes on where it was stopped.

    python -m benchmarks.endurance [--only kills] [--jobs 20 --kills 5] [--inputs 10000] [--updates 20000]
    python -m benchmarks.endurance --case "kohya_ss:17"        # one damaged input again, with its traceback

Writes docs/endurance.json and the section of docs/training.md between the two marks.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import torch
import typer

from benchmarks.endurance import inputs, kills, soak
from tenuto.files import write_json, write_text

WORK = Path("runs/endurance").absolute()
RECORD = Path("docs/endurance.json")
PAGE = Path("docs/training.md")
BEGIN, END = "<!-- endurance -->\n", "<!-- /endurance -->\n"
Part = Literal["kills", "inputs", "soak"]


def main(
    only: Annotated[list[str] | None, typer.Option(help="kills, inputs or soak; unset: all, in this order")] = None,
    jobs: Annotated[int, typer.Option(help="jobs that are killed")] = 20,
    kills_each: Annotated[int, typer.Option("--kills", help="kills of each")] = 5,
    count: Annotated[int, typer.Option("--inputs", help="damaged inputs, over all readers")] = 10_000,
    updates: Annotated[int, typer.Option(help="of the long run")] = 20_000,
    case: Annotated[str | None, typer.Option(help="show one damaged input, and do nothing else")] = None,
) -> None:
    torch.set_num_threads(1)
    if case:
        inputs.show_case(WORK / "inputs", case)
        return
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "kills": lambda: kills.summary(kills.kill_jobs(WORK / "kills", jobs, kills_each)),
        "inputs": lambda: inputs.summary(inputs.damage_inputs(WORK / "inputs", count)),
        "soak": lambda: soak.summary(soak.long_run(WORK / "soak", updates)),
    }
    for name in only or parts:
        found = parts[name]()
        record(name, found)
        print(json.dumps({name: found}, indent=1))


def record(name: str, found: dict[str, Any]) -> None:
    """Put one part's result beside what is known of the others, and write the section again."""
    known: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    memory = psutil.virtual_memory().total / 2**30
    known[name] = {
        **found,
        "command": " ".join(["python -m benchmarks.endurance", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{psutil.cpu_count()} CPU cores, {memory:.0f} GiB, {platform.system()}; one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_json(RECORD, known)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    write_text(PAGE, before + BEGIN + section(known) + END + rest.partition(END)[2])


def section(known: dict[str, Any]) -> str:
    """The parts in words."""
    told = {"kills": _kills, "inputs": _inputs, "soak": _soak}
    lines = [
        f"- {told[name](known[name])} ({known[name]['date']}, {known[name]['machine']})"
        for name in told
        if name in known
    ]
    return "\n".join(lines) + "\n"


def _kills(found: dict[str, Any]) -> str:
    where = ", ".join(f"{count} in {place}" for place, count in found["fell_into"].items())
    wrong = f"**{len(found['wrong'])} differed**: {'; '.join(found['wrong'][:3])}" if found["wrong"] else (
        "every one went on by the same command, with the same LoRA tensors bit for bit, the same numbers in "
        "comparison.json, a whole prior store and no file left over"
    )  # fmt: skip
    return (
        f"**{found['kills']} SIGKILLs** of a job's process group at random instants, in {found['jobs']} jobs "
        f"({where}): {wrong}"
    )


def _inputs(found: dict[str, Any]) -> str:
    bad = len(found["findings"])
    end = f"**{bad} did neither** (docs/endurance.json)" if bad else "none did anything else"
    return (
        f"**{found['inputs']:,} damaged inputs** over {len(found['readers'])} readers: {found.get('read', 0):,} were "
        f"read, {found.get('refused', 0):,} refused in one line, {end}"
    )


def _soak(found: dict[str, Any]) -> str:
    return (
        f"**{found['updates']:,} updates** of one training: memory grew by {found['kib_per_1000']:.0f} KiB in 1,000 "
        f"updates (after the first {found['warm_up']:,}), live tensors by {found['tensors']}"
    )


if __name__ == "__main__":
    typer.run(main)
