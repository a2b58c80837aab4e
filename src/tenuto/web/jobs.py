"""Runs as processes of their own, and a queue of them on disk. The page starts them, stops them and looks at files.

A job is one JSON file. The process that it became is known by number and time of birth; how it ended stands in the
run's event file. So a page that is closed, or a server that is killed, takes nothing with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock, Timeout

from tenuto.files import write_text
from tenuto.project.file import RUNS
from tenuto.web.login import PASSWORD
from tenuto.web.places import Place
from tenuto.web.roots import Roots
from tenuto.web.story import story_of
from tenuto.words import Settings, TenutoError

What = Literal["run", "prior", "train", "demo"]
State = Literal["waiting", "running", "done", "stopped", "failed", "killed"]

COMMANDS: dict[What, tuple[str, ...]] = {
    "run": ("run",),
    "prior": ("prior", "build"),
    "train": ("train",),
    "demo": ("demo",),
}
PACE = 1.0
"""Seconds between two looks at the queue."""


class Job(Settings):
    """One wish to run something, and what became of it."""

    id: str
    key: str
    """The project's."""
    what: What
    file: str
    folder: str
    state: State = "waiting"
    text: str = ""
    """The last word of one that ended badly."""
    pid: int = 0
    born: float = 0.0
    """When its process was started, as the system tells it."""
    asked: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    stop_asked: bool = False


class Jobs:
    """The queue of a workspace. One runs at a time; the others wait."""

    def __init__(self, roots: Roots) -> None:
        self.workspace = roots.workspace
        self.folder = roots.workspace / RUNS / ".jobs"
        self._lock = FileLock(self.folder / "lock")
        self._ours: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()

    # -- the queue ------------------------------------------------------------------------------------------------

    def all(self) -> list[Job]:
        """Oldest first."""
        jobs = []
        for file in sorted(self.folder.glob("*.json")):
            with suppress(OSError, ValueError):
                jobs.append(Job.model_validate_json(file.read_text(encoding="utf-8")))
        return jobs

    def get(self, number: str) -> Job:
        found = next((job for job in self.all() if job.id == number), None)
        if found is None:
            raise TenutoError(f"{number[:40]}: no such run in the queue")
        return found

    def current(self) -> Job | None:
        return next((job for job in self.all() if job.state == "running"), None)

    def of(self, key: str) -> Job | None:
        """The last job of a project."""
        return next((job for job in reversed(self.all()) if job.key == key), None)

    def add(self, place: Place, what: What) -> Job:
        """Put a run at the end of the queue. Raises TenutoError when the project is in it already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            there = self.all()
            if any(job.key == place.key and job.state in ("waiting", "running") for job in there):
                raise TenutoError(f"{place.key}: is running or waiting already; stop it first")
            if (story := story_of(place.folder)).lives():
                raise TenutoError(
                    f"{place.key}: is running already, started elsewhere (process {story.pid}); stop it there"
                )
            now = time.time()
            job = Job(
                id=number_after(there, now),
                key=place.key,
                what=what,
                file=str(place.file),
                folder=str(place.folder),
                asked=now,
            )
            self._write(job)
        self.look()
        return job

    def stop(self, number: str) -> Job:
        """A running one is asked as Ctrl-C would (again: at once); a waiting one leaves the queue."""
        with self._lock:
            job = self.get(number)
            if job.state == "waiting":
                return self._write(job.model_copy(update={"state": "stopped", "ended": time.time()}))
            process = self._process(job)
            if job.state != "running" or process is None:
                raise TenutoError(f"{job.key}: is not running")
            process.send_signal(signal.SIGINT)
            return self._write(job.model_copy(update={"stop_asked": True}))

    def forget(self, number: str) -> None:
        """Take an ended one off the list; its run folder stays."""
        with self._lock:
            if self.get(number).state in ("waiting", "running"):
                raise TenutoError("still waiting or running; stop it first")
            (self.folder / f"{number}.json").unlink(missing_ok=True)

    # -- processes ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Note which runs have ended, and start the next. Harmless when two servers do it at once."""
        if not self.folder.is_dir():
            return
        with suppress(Timeout), self._lock.acquire(timeout=0.2):
            for job in self.all():
                if job.state == "running" and self._process(job) is None:
                    self._write(_ended(job))
            if self.current() is None and (free := self._free()) is not None:
                self._start(free)

    def _free(self) -> Job | None:
        """The first one that waits and whose folder nobody works in, the terminal included."""
        waiting = (job for job in self.all() if job.state == "waiting")
        return next((job for job in waiting if not story_of(Path(job.folder)).lives()), None)

    def keep_looking(self) -> None:
        """In a thread of its own until `close`."""

        def watch() -> None:
            while not self._over.wait(PACE):
                with suppress(OSError, TenutoError):
                    self.look()

        threading.Thread(target=watch, name="queue", daemon=True).start()

    def close(self) -> None:
        """Stop looking; runs go on."""
        self._over.set()

    def _start(self, job: Job) -> None:
        folder = Path(job.folder)
        folder.mkdir(parents=True, exist_ok=True)
        given = [] if job.what == "demo" else [job.file]
        command = [sys.executable, "-m", "tenuto", *COMMANDS[job.what], *given, "--out", job.folder]
        environment = {name: value for name, value in os.environ.items() if name != PASSWORD}
        self._write(job)  # a full disk is told before a process is there
        with (folder / "terminal.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.workspace,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._ours[process.pid] = process
        born = 0.0
        with suppress(psutil.Error):
            born = psutil.Process(process.pid).create_time()
        update = {"state": "running", "pid": process.pid, "born": born, "started": time.time()}
        try:
            self._write(job.model_copy(update=update))
        except TenutoError:  # nobody would know of it, and it would be started again
            process.kill()
            process.wait()
            raise

    def _process(self, job: Job) -> psutil.Process | None:
        """The job's process while it lives."""
        if (ours := self._ours.get(job.pid)) is not None and ours.poll() is not None:
            return None
        try:
            process = psutil.Process(job.pid)
            same = abs(process.create_time() - job.born) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def _write(self, job: Job) -> Job:
        write_text(self.folder / f"{job.id}.json", job.model_dump_json(indent=1) + "\n")
        return job


def _ended(job: Job) -> Job:
    """How a run whose process is gone ended: as its event file says, else it was killed."""
    story = story_of(Path(job.folder))
    if story.how and story.pid == job.pid:
        return job.model_copy(update={"state": story.how, "text": story.text, "ended": story.ended})
    last = _last_line(Path(job.folder) / "terminal.log")
    if last.startswith("error:"):
        update = {"state": "failed", "text": last.removeprefix("error:").strip()}
    elif job.stop_asked:
        update = {"state": "stopped", "text": ""}
    else:
        update = {"state": "killed", "text": "it ended without a word; what was saved is kept"}
    return job.model_copy(update={**update, "ended": time.time()})


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def number_after(jobs: Sequence[Job], now: float) -> str:
    """A number for the next job: its time in milliseconds, and above all that are there. Sorts as text."""
    return f"{max([int(now * 1000), *(int(job.id) + 1 for job in jobs if job.id.isdecimal())]):014d}"
