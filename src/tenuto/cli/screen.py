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

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

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
        if what not in self._tasks:
            self._end()
            self._tasks[what] = self._bar.add_task(what, total=total, more="")
        self._bar.update(self._tasks[what], completed=done, total=total, more=self._more(more))

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
        self._tasks = {}
