"""What long work says while it runs. The terminal, the JSONL log and a web page are listeners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    kind: str
    """stage, progress, log, note, warning, sample ..."""
    data: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that nobody hears."""


def progress(listener: Listener, what: str, done: int, total: int, **more: Any) -> None:
    """`done` of `total` pieces of `what` are finished."""
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
