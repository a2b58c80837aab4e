"""SIGKILL to the whole process group of a job, again and again at random instants, until it is let finish.

The job is a small one with everything in it: a prior set, two trainings, their comparison, the report. Each start is
`tenuto run` in a copy (fork) of a process that has imported the program already, in a session of its own: an import
takes longer than the job. Several kills fall into one job; the next start is the same command. An instant is drawn by
the part of the work, then over the events that an undisturbed run tells of in it, then within the time from one to the
next.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file
from tests.jobs import COMPARISON, plain_pictures
from tests.tiny import tiny_sd_folder

from benchmarks.endurance.lines import append_line, read_lines
from tenuto.cli.main import app
from tenuto.events import EVENT_FILE
from tenuto.prior.store import PriorStore

PROJECT = """
[base]
model = "../base"
device = "cpu"
[[concepts]]
name = "c"
images = "pictures"
trigger = "zxq"
[prior]
per_image = 6
batch = 2
store = "store"
[prior.sampler]
steps = 4
[regularizers.prior_preservation]
weight = 0.5
[training]
steps = 8
batch = 2
save_every = 1
watch_every = 0
[training.adapter]
rank = 2
"""
POLL = 0.01
PATIENCE = 900.0
"""Seconds after which a job counts as hanging."""
CLOCKED = ("seconds",)
"""What no two runs have alike in comparison.json."""

STAGES = {
    "opening": "preparation", "prior set": "build", "training": "training", "comparing": "comparison",
}  # fmt: skip
"""How the name of a stage begins -> the part of the work that begins with it."""
PARTS = tuple(STAGES.values())
Mark = tuple[str, str, int]
"""An event by what it says: kind, name, how many."""


@dataclass(frozen=True)
class Told:
    """An event of a job."""

    mark: Mark
    part: str
    at: float
    """When, in seconds."""


@dataclass
class Outcome:
    """One job that was killed several times."""

    job: int
    kills: list[str] = field(default_factory=list)
    """The part of the work that each fell into."""
    wrong: list[str] = field(default_factory=list)


def kill_jobs(folder: Path, jobs: int, kills: int) -> list[Outcome]:
    """So many jobs of so many kills each; those that the folder knows already are not done again."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "kills.jsonl"
    done = [Outcome(**line) for line in read_lines(log)]
    whole = _undisturbed(folder)
    for number in range(jobs):
        if all(own.job != number for own in done):
            outcome = _one(folder / f"job-{number}", whole, number, kills)
            append_line(log, asdict(outcome))
            done.append(outcome)
            print(f"job {number}: killed in {', '.join(outcome.kills)}; {outcome.wrong or 'all as undisturbed'}")
    return done


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "jobs": len(outcomes),
        "kills": sum(len(own.kills) for own in outcomes),
        "fell_into": dict(Counter(part for own in outcomes for part in own.kills).most_common()),
        "wrong": [f"job {own.job}: {what}" for own in outcomes for what in own.wrong],
    }


def _undisturbed(folder: Path) -> Path:
    """What every job must end in."""
    if not (folder / "base" / "model_index.json").is_file():
        tiny_sd_folder(folder / "base")
    whole = folder / "whole"
    if not whole.is_dir():
        _write_project(whole)
    if _wait(_start(whole)) != 0:
        raise SystemExit(f"the undisturbed job failed: {(whole / 'told.txt').read_text()[-500:]}")
    return whole


def _one(place: Path, whole: Path, number: int, kills: int) -> Outcome:
    outcome, rng = Outcome(number), Random(f"kills {number}")
    if not place.is_dir():
        _write_project(place)
    story = list(_told(whole, None))
    places = {part: [at for at, own in enumerate(story) if own.part == part] for part in PARTS}
    marks = {own.mark: at for at, own in reversed(list(enumerate(story)))}
    for target in sorted(rng.choice(places[rng.choice(PARTS)]) for _ in range(kills)):
        until = story[target + 1].at if target + 1 < len(story) else story[target].at
        pause = rng.random() * max(0.05, until - story[target].at)
        process = _start(place)
        part = _reached(place, process, marks, target)
        time.sleep(pause)
        if os.waitpid(process, os.WNOHANG)[0]:
            break  # it was done before its time had come
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        outcome.kills.append(part)
    if (status := _wait(_start(place))) != 0:
        outcome.wrong.append(f"it did not go on ({status}): {(place / 'told.txt').read_text()[-300:]}")
    else:
        outcome.wrong += _differences(whole, place)
    return outcome


def _write_project(folder: Path) -> None:
    plain_pictures(folder / "pictures", [(16, 16)] * 3)
    (folder / "p.toml").write_text(PROJECT + COMPARISON, encoding="utf-8")


# -- processes --------------------------------------------------------------------------------------------------------


def _start(folder: Path) -> int:
    """The job in a process group of its own; its number."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["TENUTO_HOME"] = str(folder / "home")
        told = os.open("told.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told, 1)
        os.dup2(told, 2)
        torch.set_num_threads(1)
        app(["run", "p.toml", "--out", "run"])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    finally:
        os._exit(status)


def _wait(process: int) -> int:
    """Its exit status; -9 where it had to be ended."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        gone, status = os.waitpid(process, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -signal.SIGKILL


def _reached(folder: Path, process: int, marks: dict[Mark, int], target: int) -> str:
    """Wait until this process tells of the target or of what comes later; the part of the work it is in."""
    part, end = PARTS[0], time.monotonic() + PATIENCE
    while time.monotonic() < end and not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        for told in _told(folder, process):
            part = told.part
            if marks.get(told.mark, -1) >= target:
                return part
        time.sleep(POLL)
    return part


def _told(folder: Path, process: int | None) -> Iterator[Told]:
    """One process' part of the event file; None: of the first one's."""
    ours, part = False, PARTS[0]
    for event in read_lines(folder / "run" / EVENT_FILE):
        if event["kind"] == "begin":
            if ours:
                return
            ours = process in (None, event["pid"])
        if ours:
            name = str(event.get("what", event.get("name", "")))
            if event["kind"] == "stage":
                part = next((own for begin, own in STAGES.items() if name.startswith(begin)), part)
            yield Told((event["kind"], name, int(event.get("done", 0))), part, float(event["at"]))


# -- what must be alike -----------------------------------------------------------------------------------------------


def _differences(whole: Path, cut: Path) -> list[str]:
    """How a job that was killed and went on differs from the undisturbed one."""
    wrong = []
    for lora in sorted(whole.glob("run/*/seed-*/lora.safetensors")):
        name = lora.relative_to(whole)
        a, b = load_file(lora), load_file(cut / name)
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            wrong.append(f"{name} is not the same, bit for bit")
    one, other = (_numbers(folder / "run" / "comparison.json") for folder in (whole, cut))
    wrong += [f"comparison.json: {place} is {other.get(place)}, was {own}" for place, own in one.items()
              if other.get(place) != own]  # fmt: skip
    base = json.loads((cut / "store" / "base.json").read_text())["base"]
    wrong += PriorStore.open(base, cut / "store").verify()
    there, wanted = ({str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
                     for folder in (cut, whole))  # fmt: skip
    wrong += [f"{name} is left over" for name in sorted(there - wanted)]
    wrong += [f"{name} is missing" for name in sorted(wanted - there)]
    return wrong


def _numbers(path: Path) -> dict[str, float]:
    """Dotted place -> number, for all that does not tell the time."""
    found: dict[str, float] = {}

    def walk(place: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in CLOCKED:
                    walk(f"{place}.{key}" if place else key, inner)
        elif isinstance(value, list):
            for at, inner in enumerate(value):
                walk(f"{place}.{at}", inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[place] = value

    walk("", json.loads(path.read_text(encoding="utf-8")))
    return found
