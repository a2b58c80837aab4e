"""What the terminal shows of events: stages, notes, and a progress bar with an ETA."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tenuto.events import Event

SHOWN = {"loss.instance": "instance", "drift": "drift"}


class Screen:
    """A listener for the terminal. Everything goes to standard error, so that --json output stays clean."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[more]}"),
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
            self.console.print(f"[bold cyan]{data['name']}[/]")
        elif event.kind == "note":
            self.console.print(data["text"], markup=False)
        elif event.kind == "warning":
            self.console.print(f"[yellow]warning[/] {data['text']}")
        elif event.kind == "progress":
            self._progress(**data)

    def _progress(self, what: str, done: int, total: int, **more: object) -> None:
        if not self.console.is_terminal:
            self._line(what, done, total, more)
            return
        if what not in self._tasks:
            self._end()
            self._bar.start()
            self._tasks[what] = self._bar.add_task(what, total=total, more="")
        self._bar.update(self._tasks[what], completed=done, total=total, more=self._more(more))

    def _line(self, what: str, done: int, total: int, more: dict[str, object]) -> None:
        """Where no bar can move (a log file): a line at every quarter."""
        quarter = 4 * done // max(total, 1)
        if (what, quarter) != self._told and quarter:
            self._told = (what, quarter)
            self.console.print(f"{what} {done}/{total}  {self._more(more)}".rstrip(), markup=False)

    def _more(self, values: dict[str, object]) -> str:
        if isinstance(drift := values.get("drift"), float):
            self._drift = f"drift {drift:.3f}"
        losses = [
            f"{k.removeprefix('loss.')} {v:.4f}"
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
