"""The line between a task at work on some machine and the terminal."""

from __future__ import annotations

import os
import socket
import threading
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError

from tenuto.events import Event

BEGUN = "begun"
"""The event by which a task says that it has a worker."""
EVERY = 0.5
"""Seconds between two calls home."""


class Post:
    """Where tasks leave what they say until the terminal takes it, and learn that they should stop. A Ray actor."""

    def __init__(self) -> None:
        self._events: list[tuple[int, Event]] = []
        self._halted = False

    def tell(self, number: int, events: list[Event]) -> bool:
        """A task says something; whether it should stop."""
        self._events += [(number, event) for event in events]
        return self._halted

    def take(self, halted: bool) -> list[tuple[int, Event]]:
        """The terminal takes everything, and says whether tasks should stop."""
        events, self._events, self._halted = self._events, [], halted
        return events


class Line:
    """A task's listener and its way to ask whether to stop. What was said goes out in one call now and then."""

    def __init__(self, post: Any, number: int) -> None:
        self._post, self._number = post, number
        self._said: list[Event] = []
        self._progress: dict[str, Event] = {}
        self._halted = False
        self._lock, self._over = threading.Lock(), threading.Event()
        self._caller = threading.Thread(target=self._call_home, daemon=True)

    def __enter__(self) -> Self:
        self(Event(BEGUN, {"host": socket.gethostname(), "pid": os.getpid()}))
        self._send()
        self._caller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._caller.join()
        self._send()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event.kind == "progress":
                self._progress[event.data["what"]] = event
            elif event.kind in (BEGUN, "note", "warning"):
                self._said.append(event)

    def stop(self) -> bool:
        return self._halted

    def _call_home(self) -> None:
        while not self._over.wait(EVERY):
            self._send()

    def _send(self) -> None:
        with self._lock:
            events, self._said, self._progress = [*self._said, *self._progress.values()], [], {}
        try:
            self._halted = ray.get(self._post.tell.remote(self._number, events))
        except RayError:
            self._halted = True  # nobody is there any more to hear of a result
