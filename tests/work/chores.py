"""Small tasks for the runners' tests, as a worker can import them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tenuto.events import Listener, note, progress
from tenuto.words import Stopped, TenutoError
from tenuto.work.tasks import Stop


@dataclass(frozen=True)
class Chore:
    """Writes its process' number into a file of its name, says so, and ends as told."""

    name: str
    folder: Path
    end: str = ""
    """"": at once; "lasting": when asked to stop; "failing", "fatal", "deaf" (not even then): once the one called
    "lasts" is at work."""

    together = False
    counted_by = "steps"

    def __call__(self, listener: Listener, stop: Stop) -> str:
        note(listener, "at work")
        (self.folder / self.name).write_text(str(os.getpid()))
        progress(listener, "steps", 1, 2)
        while self.end == "lasting":
            if stop():
                (self.folder / f"{self.name}.stopped").touch()
                raise Stopped("asked to")
            time.sleep(0.01)
        while self.end and not (self.folder / "lasts").exists():
            time.sleep(0.01)
        if self.end == "failing":
            raise TenutoError(f"{self.name}.png: cannot be read; mend it")
        if self.end == "fatal":
            os._exit(9)
        return f"{self.name} done"
