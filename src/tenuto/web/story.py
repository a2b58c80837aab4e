"""What a run's folder tells: where the work stands, the curves, the sample pictures. Nothing is computed here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tenuto.events import EVENT_FILE
from tenuto.files import parse_json
from tenuto.project.settings import Project
from tenuto.regularizers.drift_controller import DriftController
from tenuto.training.journal import Journal
from tenuto.work.trainings import Training, trainings

PACED = 4000
"""Last lines of progress by which the pace is judged."""
POINTS = 160
"""Most points of a curve; neighbours are averaged."""
NOTES = 40
REPORT = "report.html"


@dataclass
class Story:
    """Where a run stands, as its last process told."""

    stage: str = ""
    what: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None
    """Seconds to the end of this piece of work, at its pace so far."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(kind, text): what it said and warned of."""
    how: str = ""
    """done, stopped or failed; empty while it runs or when it was killed."""
    text: str = ""
    pid: int = 0
    """Of the process that tells it."""
    begun: float = 0.0
    ended: float = 0.0
    _first: tuple[str, float, int] | None = field(default=None, init=False)
    """(what, when, how many) at the first progress of this piece of work."""

    def lives(self) -> bool:
        """Whether the process that tells it is still at work, whoever started it."""
        if self.how or not self.pid:
            return False
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() < self.begun + 1.0 and process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.Error, ValueError, OverflowError):
            return False

    def hear(self, event: Mapping[str, Any]) -> None:
        """One more event. Raises what a damaged one makes of it."""
        kind, at = event.get("kind"), float(event.get("at", 0))
        if kind == "begin":
            self.pid, self.begun = int(event["pid"]), at
        elif kind == "stage":
            self.stage = str(event.get("name", ""))
        elif kind == "progress":
            what, done, total = str(event["what"]), int(event["done"]), int(event["total"])
            self.what, self.done, self.total = what, done, total
            if self._first is None or self._first[0] != what or done < self._first[2]:
                self._first = (what, at, done)
            self.left = _left(self._first, at, self)
        elif kind in ("note", "warning"):
            self.notes = [*self.notes, (str(kind), str(event.get("text", "")))][-NOTES:]
        elif kind == "end":
            self.how, self.text, self.ended = str(event.get("how", "")), str(event.get("text", "")), at


def story_of(folder: Path) -> Story:
    """What cannot be understood is left out."""
    story = Story()
    for event in _last_events(folder / EVENT_FILE):
        with suppress(ValueError, TypeError, KeyError, OverflowError):
            story.hear(event)
    return story


def _left(first: tuple[str, float, int], now: float, story: Story) -> float | None:
    made, seconds = story.done - first[2], now - first[1]
    return seconds / made * (story.total - story.done) if made > 0 and seconds > 0 else None


def _last_events(file: Path) -> Iterator[dict[str, Any]]:
    """What was told since the last `begin`, and then the progress of its last stage.

    The whole file is looked through, for `begin` may lie hours back; of progress, which fills it, only the last lines
    are parsed. A half-written last line is left out.
    """
    told: list[dict[str, Any]] = []
    paced: deque[bytes] = deque(maxlen=PACED)
    with suppress(OSError), file.open("rb") as lines:
        for line in lines:
            if b'"kind": "progress"' in line:
                paced.append(line)
            elif (event := _parsed(line)) is not None:
                if event.get("kind") == "begin":
                    told.clear()
                if event.get("kind") in ("begin", "stage"):
                    paced.clear()
                told.append(event)
    yield from told
    yield from (event for line in paced if (event := _parsed(line)) is not None)


def _parsed(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        event = parse_json(line)
        if line.endswith(b"\n") and isinstance(event, dict):
            return event
    return None


# -- curves -----------------------------------------------------------------------------------------------------------

WATCHED = ("drift", "validation")


@dataclass(frozen=True)
class Curve:
    """One quantity of one training."""

    arm: str
    seed: int
    points: list[tuple[float, float]]


class Logs:
    """The logs of trainings; one is read again when it has grown."""

    KEPT = 64

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int], list[dict[str, float]]]] = {}

    def of(self, training: Training) -> list[dict[str, float]]:
        file = training.folder / "log.jsonl"
        try:
            stat = file.stat()
        except OSError:
            return []
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._read.get(file)
        if known is None or known[0] != stamp:
            if len(self._read) >= self.KEPT:
                self._read.clear()
            known = self._read[file] = (stamp, Journal(file).read())
        return known[1]


def curves_of(project: Project, folder: Path, logs: Logs) -> dict[str, list[Curve]]:
    """Quantity -> its curves: the instance term, every method's own, drift, loss on pictures set aside."""
    found: dict[str, list[Curve]] = {}
    for training in trainings(project, folder):
        log = logs.of(training)
        for name in _quantities(log):
            points = _thinned([(entry["update"], entry[name]) for entry in log if name in entry])
            found.setdefault(name, []).append(Curve(training.arm, training.seed, points))
    return found


def _quantities(log: Iterable[Mapping[str, float]]) -> list[str]:
    names = dict.fromkeys(name for entry in log for name in entry)
    return [name for name in names if name.startswith("loss.") or name in WATCHED]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS) if points else 1
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def budget_of(project: Project) -> float | None:
    """The drift that the user allows, where a controller keeps it."""
    own = project.regularizers.get("drift_controller")
    return own.budget if isinstance(own, DriftController) and own.active() else None


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """One training as far as it went."""

    arm: str
    seed: int
    updates: int
    total: int
    lora: Path | None
    samples: tuple[Path, ...]


def made_of(project: Project, folder: Path, logs: Logs) -> list[Made]:
    found = []
    for training in trainings(project, folder):
        log = logs.of(training)
        lora = training.folder / "lora.safetensors"
        samples = tuple(sorted((training.folder / "samples").glob("*.png")))
        total = 0
        with suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
            total = int(parse_json((training.folder / "plan.json").read_text(encoding="utf-8"))["updates"])
        updates = int(log[-1]["update"]) if log else 0
        found.append(Made(training.arm, training.seed, updates, total, lora if lora.is_file() else None, samples))
    return found


def reports_of(folder: Path) -> list[Path]:
    """The reports of a run: one, or one in the folder of each concept."""
    return _of_each_concept(folder, REPORT)


def comparisons_of(folder: Path) -> list[Path]:
    """The same of what was measured."""
    return _of_each_concept(folder, "comparison.json")


def _of_each_concept(folder: Path, name: str) -> list[Path]:
    one = folder / name
    return [one] if one.is_file() else sorted(folder.glob(f"*/{name}"))


def previews_of(folder: Path) -> dict[str, Path]:
    """Prior images that were decoded to look at: id -> file."""
    return {file.stem: file for file in (folder / "prior").glob("*.png")}


def clock(seconds: float | None) -> str:
    """A length of time as people say it."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ago(at: float) -> str:
    return f"{clock(max(0.0, time.time() - at))} ago" if at else ""
