"""What long work says while it runs. The terminal and the event file, which the web page reads, are listeners."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tenuto.files import cannot_write
from tenuto.words import Stopped

EVENT_FILE = "events.jsonl"
"""Its name in a run's folder."""
PAUSE = 0.5
"""Seconds between two lines of the same progress."""


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    kind: str
    """stage, progress, log, note, warning, sample ..."""
    data: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that nobody hears."""


def progress(listener: Listener, what: str, done: float, total: int, **more: Any) -> None:
    """`done` of `total` pieces of `what` are finished; of those under way, their parts."""
    listener(Event("progress", {"what": what, "done": done, "total": total, **more}))


def stage(listener: Listener, name: str) -> None:
    """A new piece of work begins."""
    listener(Event("stage", {"name": name}))


def note(listener: Listener, text: str) -> None:
    """Something the user may want to know."""
    listener(Event("note", {"text": text}))


def warn(listener: Listener, text: str) -> None:
    """Something the user should look at."""
    listener(Event("warning", {"text": text}))


def without_notes(listener: Listener) -> Listener:
    """A listener that is not told again what it knows."""

    def listen(event: Event) -> None:
        if event.kind != "note":
            listener(event)

    return listen


def both(first: Listener, second: Listener) -> Listener:
    """One listener that tells two."""

    def listen(event: Event) -> None:
        first(event)
        second(event)

    return listen


class EventFile:
    """A listener that appends events to a JSONL file in a run's folder, between a `begin` and an `end`.

    A reader in another process learns from it where the work stands and how it ended; a `begin` without an `end` whose
    process is gone was killed. What every update logs is left out: the training's own log.jsonl holds it.
    A folder that is not there yet is made with the first progress, so that a refusal leaves nothing behind.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENT_FILE
        self._told: tuple[str, float] = ("", 0.0)
        self._held = "\n" if self._broken_off() else ""

    def __enter__(self) -> Self:
        self._write("begin", {"pid": os.getpid()})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = isinstance(error, Stopped | KeyboardInterrupt)
        how = "done" if error is None else "stopped" if stopped else "failed"
        self._write("end", {"how": how, "text": " ".join(str(error or "").split())})

    def __call__(self, event: Event) -> None:
        if event.kind == "log" or (event.kind == "progress" and self._too_soon(event)):
            return
        self._write(event.kind, event.data)

    def _broken_off(self) -> bool:
        """Whether a killed process left half a line at the end."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"
        return False

    def _too_soon(self, event: Event) -> bool:
        what, now = str(event.data["what"]), time.monotonic()
        last, at = self._told
        if last == what and now - at < PAUSE and event.data["done"] != event.data["total"]:
            return True
        self._told = (what, now)
        return False

    def _write(self, kind: str, data: dict[str, Any]) -> None:
        self._held += json.dumps({"at": time.time(), "kind": kind, **data}, default=str) + "\n"
        if kind != "progress" and not self.path.parent.is_dir():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._held)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._held = ""
