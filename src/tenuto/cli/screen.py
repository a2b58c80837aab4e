"""What the terminal shows of events: stages, notes, and a progress bar with an ETA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tenuto.cli.terminal import console, styled
from tenuto.events import Event, EventFile, Listener, both

SHOWN = {"loss.instance": "instance", "drift": "drift"}


class Screen:
    """A listener for the terminal. Everything goes to standard error, so that --json output stays clean."""

    def __init__(self) -> None:
        self.console = console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[more]}", markup=False),
            console=self.console,
            transient=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._drift = ""
        self._told = ("", 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __call__(self, event: Event) -> None:
        data = event.data
        if event.kind == "stage":
            self._end()
            self._drift = ""
            self.console.print(data["name"], style="bold cyan")
        elif event.kind == "note":
            self.console.print(data["text"])
        elif event.kind == "warning":
            self.console.print(styled(("warning ", "yellow"), data["text"]))
        elif event.kind == "progress":
            self._progress(**data)

    def _progress(self, what: str, done: float, total: int, **more: object) -> None:
        if not self.console.is_terminal:
            self._line(what, done, total, more)
            return
        if what not in self._tasks:
            self._end()
            self._bar.start()
            self._tasks[what] = self._bar.add_task(what, total=total, more="")
        self._bar.update(self._tasks[what], completed=done, total=total, more=self._more(more))

    def _line(self, what: str, done: float, total: int, more: dict[str, object]) -> None:
        """Where no bar can move (a log file): a line at every quarter."""
        quarter = int(4 * done // max(total, 1))
        if (what, quarter) != self._told and quarter:
            self._told = (what, quarter)
            self.console.print(f"{what} {int(done)}/{total}  {self._more(more)}".rstrip())

    def _more(self, values: dict[str, object]) -> str:
        if isinstance(drift := values.get("drift"), float):
            self._drift = f"drift {drift:.3f}"
        losses = [
            f"{k.removeprefix('loss.')} {v:.4g}"
            for k, v in values.items()
            if k.startswith("loss.") and isinstance(v, float)
        ]
        rate = [f"{values['rate']:.1f}/s"] if isinstance(values.get("rate"), float) else []
        return "  ".join([*losses, *([self._drift] if losses and self._drift else []), *rate])

    def _end(self) -> None:
        for task in self._tasks.values():
            self._bar.remove_task(task)
        if self._tasks:
            self._bar.stop()
        self._tasks = {}


@contextmanager
def heard(listener: Listener, folder: Path, first: bool = True) -> Iterator[Listener]:
    """The terminal, and the run folder's event file; of several processes only the first one writes it."""
    if not first:
        yield listener
        return
    with EventFile(folder) as file:
        yield both(listener, file)
