"""The leaderboard: every method of the catalogue and the trivial baselines, on the same work.

    python -m benchmarks.leaderboard [--only NAME] [--method NAME] [--quick] [--page] [--on ray://HOST:10001]

Days on two CPU cores; stopped anywhere, the same command goes on. Each ready set is a sweep; when one is finished, its
raw numbers go to docs/leaderboard/ and the page is written anew, with the board that the package ships
(src/tenuto/evaluation/leaderboard.json); what stands there is not measured again. `--quick` (minutes) shows that
everything works, in runs/leaderboard-quick/. `--page` only writes the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.board_page import write_board
from benchmarks.entries import Entry, entries
from benchmarks.ready import PLAIN, SEEDS, Way, best_rate, plain_lora, sweep_on
from benchmarks.standings import ArmOnBoard, ConceptOnBoard, numbers_of, reasons_of
from tenuto.cli.cluster import RETRIES, AtOnce, Cpus, Engage, Gpus, On, Retries, engaged
from tenuto.cli.demo import called
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.evaluation.board import SHIPPED
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.events import Listener, stage
from tenuto.pocket.concepts import CONCEPTS
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.words import TenutoError
from tenuto.work.sweep import run_sweep

KEPT_OUT = ("style", "second-character")
"""Ready sets that no default was ever tuned on."""
SECOND, INSTEAD = "second-character", "crazy-eyes"
"""The ready set whose plain LoRA every arm is measured beside, and the one that stands in on that set itself."""
ORDER = ("head-in-a-jar", *KEPT_OUT, "crazy-eyes", "character", "clothing", "small")
COMPARISON: dict[str, Any] = {
    "seeds": [0],
    "prompts": 4,
    "drift_prompts": 10,
    "states": 4,
    "steps": 10,
    "guidance": 4.0,
    "curve_checkpoints": 2,
    "curve_prompts": 3,
    "curve_weights": [0.5, 0.75, 1.25, 1.5],
    "weights": [0.0, 1.0, 1.5, 2.0, 2.5, 3.0],
    "strip_prompts": 6,
    "strip_seeds": 1,
}


class Size(NamedTuple):
    """How much work a leaderboard is."""

    runs: Path
    results: Path
    page: Path
    shipped: Path
    """The board as data, for whoever shows it."""
    concepts: tuple[str, ...] = ORDER
    seeds: tuple[int, ...] = SEEDS
    updates: int = 240
    usual_only: bool = False
    """Each method at one strength alone."""
    comparison: Mapping[str, Any] = COMPARISON

    @property
    def training(self) -> dict[str, Any]:
        return {"steps": self.updates, "save_every": self.updates // 4, "optimizer": {"lr": best_rate()}}

    @property
    def quick(self) -> bool:
        return self.usual_only

    def aside(self, name: str) -> Size:
        """The same work with results of its own: of some methods only, they are no board."""
        runs = self.runs.with_name(f"{self.runs.name}-{name}")
        page, shipped = runs / "leaderboard.md", runs / SHIPPED
        return self._replace(runs=runs, results=runs / "results", page=page, shipped=shipped)


FULL = Size(
    runs=Path("runs/leaderboard"),
    results=Path("docs/leaderboard"),
    page=Path("docs/leaderboard.md"),
    shipped=Path("src/tenuto/evaluation") / SHIPPED,
)
QUICK = Size(
    runs=Path("runs/leaderboard-quick"),
    results=Path("runs/leaderboard-quick/results"),
    page=Path("runs/leaderboard-quick/leaderboard.md"),
    shipped=Path("runs/leaderboard-quick") / SHIPPED,
    concepts=ORDER[:1],
    seeds=SEEDS[:1],
    updates=40,
    usual_only=True,
    comparison={
        **COMPARISON, "prompts": 2, "drift_prompts": 4, "states": 2, "steps": 6, "curve_checkpoints": 1,
        "curve_prompts": 1, "curve_weights": [0.5], "weights": [], "shown": 1,
    },
)  # fmt: skip


def beside(name: str) -> str:
    """The ready set whose LoRA is the second one on this set."""
    return SECOND if name != SECOND else INSTEAD


def with_second(name: str, size: Size, listener: Listener, stop: Callable[[], bool]) -> dict[str, Any]:
    """How a ready set is measured: beside the plain LoRA of another one, which is trained where it is not there."""
    other = beside(name)
    stage(listener, f"a second LoRA: {other}")
    project = sweep_on(other, {PLAIN: Way()}, size.runs / "data", size.comparison, training=size.training).project
    lora = plain_lora(other, project, size.runs.absolute() / "second" / other, listener, stop)
    return {**size.comparison, "second_lora": str(lora), "second_prompt": called(other)}


def run_concept(
    name: str, chosen: Sequence[Entry], size: Size, engage: Engage, listener: Listener, stop: Callable[[], bool]
) -> ConceptOnBoard:
    """Train and compare everyone on one ready set."""
    ways = {entry.label: entry.way for entry in chosen}
    sweep = sweep_on(
        name,
        ways,
        size.runs / "data",
        with_second(name, size, listener, stop),
        seeds=size.seeds,
        training=size.training,
        about=f"leaderboard: {name}",
    )
    place = size.runs / name
    result = run_sweep(sweep, place, listener, stop, engage(sweep.projects(), place))
    whole = Comparison.load(place / result.concepts[name].folder / "comparison.json")
    return ConceptOnBoard(
        concept=name,
        kind=CONCEPTS[name].kind,
        tuned=name not in KEPT_OUT,
        quick=size.quick,
        updates=size.updates,
        seeds=list(size.seeds),
        arms={
            entry.label: ArmOnBoard(
                method=entry.method,
                strength=entry.strength,
                points=whole.curves[entry.label],
                numbers=numbers_of(whole.arms[entry.label]),
                reasons=reasons_of(whole.arms[entry.label]),
            )
            for entry in chosen
        },
        settings={**whole.settings, "second_lora": beside(name)},
        versions=whole.versions,
    )


def is_there(name: str, chosen: Sequence[Entry], size: Size) -> bool:
    """Whether a ready set's results hold everyone at this size of work. Delete the file to measure it anew."""
    path = size.results / f"{name}.json"
    if not path.is_file():
        return False
    found = ConceptOnBoard.model_validate_json(path.read_text(encoding="utf-8"))
    asked = ComparisonSettings.model_validate(size.comparison).model_dump(mode="json", include=set(size.comparison))
    same = (found.updates, tuple(found.seeds)) == (size.updates, size.seeds)
    same = same and all(found.settings.get(name) == value for name, value in asked.items())
    return same and {entry.label for entry in chosen} <= found.arms.keys()


def write_page(size: Size) -> Path:
    """From whatever results there are."""
    files = [size.results / f"{name}.json" for name in ORDER]
    board = [ConceptOnBoard.model_validate_json(path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    if not board:
        raise TenutoError(f"{size.results}: no results yet; run python -m benchmarks.leaderboard")
    write_board(board, size.page, size.results / "curves.svg", size.shipped)
    return size.page


def main(
    only: Annotated[list[str] | None, typer.Option(help="Just these ready sets.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Just these methods, beside the baselines; results go to the run's folder.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Minutes: one set, one seed, one strength, few updates.")] = False,
    page: Annotated[bool, typer.Option(help="Only write the page from the results that are there.")] = False,
    on: On = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    retries: Retries = RETRIES,
    at_once: AtOnce = 1,
) -> None:
    """Every method on the same work; Ctrl-C and the same command go on."""
    size = QUICK if quick else FULL
    with guarded() as stop, Screen() as screen, engaged(on, cpus, gpus, retries, screen, at_once) as engage:
        if strange := set(method or ()) - REGULARIZERS.keys():
            raise TenutoError(f"--method {min(strange)}: no such method; tenuto methods lists them")
        if method:
            size = size.aside("-".join(method))
        chosen = entries(usual_only=size.usual_only, only=tuple(method or ()))
        for name in () if page else only or size.concepts:
            if not is_there(name, chosen, size):
                run_concept(name, chosen, size, engage, screen, stop).save(size.results / f"{name}.json")
            write_page(size)
        typer.echo(str(write_page(size)))


if __name__ == "__main__":
    typer.run(main)
