"""The leaderboard: every method of the catalogue and the trivial baselines, on the same work.

    python -m benchmarks.leaderboard [--finalists] [--only NAME] [--seeds N] [--method NAME] [--quick] [--page] [--on ray://HOST:10001]

First each method's strengths are tried on one ready set, and what holds there on another; then everyone is measured at
one strength on every ready set and training seed, a cell at a time. A finished cell goes to docs/leaderboard/ and the
page is written anew, with the board that the package ships (src/tenuto/evaluation/leaderboard.json); what stands there
is not measured again. Most of a day on two CPU cores; stopped anywhere, the same command goes on. `--finalists` leaves
those out of the cells that did not hold in the trial, and what is dear or of little use among the others (entries.py):
a third of the work, and the same command without it goes on with the rest. `--quick` (minutes) shows that everything
works, in runs/leaderboard-quick/. `--page` only writes the page.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.board_page import write_board
from benchmarks.entries import ADAPTER, ADAPTERS, Entry, company, entries, tried, untried
from benchmarks.ready import PLAIN, SEEDS, Way, plain_lora, project_on, sweep_on
from benchmarks.standings import ArmOnBoard, Cell, numbers_of, reasons_of
from benchmarks.trial import Trial
from tenuto.cli.cluster import RETRIES, AtOnce, Cpus, Engage, Gpus, On, Retries, engaged
from tenuto.cli.demo import SETTINGS, called
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.evaluation.board import SHIPPED
from tenuto.evaluation.prompts import SPREAD
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.events import Listener, silent, stage, warn
from tenuto.pocket.concepts import CONCEPTS
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.words import TenutoError
from tenuto.work.sweep import run_sweep

KEPT_OUT = ("second-character", "small")
"""Ready sets that no default was chosen on. `style` was one until that of a style was."""
SECOND, INSTEAD = "second-character", "crazy-eyes"
"""The ready set whose plain LoRA every arm is measured beside, and the one that stands in on that set itself."""
ORDER = (*KEPT_OUT, "style", "head-in-a-jar", "crazy-eyes", "character", "clothing")
COMPARISON: dict[str, Any] = {**SETTINGS["comparison"], "curve_weights": [0.5, 1.5]}
TRIAL_COMPARISON: dict[str, Any] = {**COMPARISON, "weights": [], "curve_checkpoints": 0}
"""Enough to read drift at the plain LoRA's concept strength."""


class Place(NamedTuple):
    """A ready set at a training seed."""

    concept: str
    seed: int

    @property
    def file(self) -> str:
        return f"{self.concept}-{self.seed}.json"

    @property
    def trial_file(self) -> str:
        return f"trial-{self.file}"


class Size(NamedTuple):
    """How much work a leaderboard is."""

    runs: Path
    results: Path
    page: Path
    shipped: Path
    """The board as data, for whoever shows it."""
    places: tuple[Place, ...]
    """The cells."""
    trials: tuple[Place, ...] = (Place("clothing", 3), Place("head-in-a-jar", 3))
    """Where strengths are tried: on the validation set and on one other, at a seed of their own. Empty: they are
    not."""
    trial_comparison: Mapping[str, Any] = TRIAL_COMPARISON
    updates: int = SETTINGS["training"]["steps"]
    comparison: Mapping[str, Any] = COMPARISON

    @property
    def training(self) -> dict[str, Any]:
        return {"steps": self.updates, "save_every": self.updates // 4, "adapter": ADAPTER}

    @property
    def quick(self) -> bool:
        return not self.trials

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
    places=tuple(Place(concept, seed) for seed in SEEDS for concept in ORDER),  # every set before any is seen again
)
QUICK = Size(
    runs=Path("runs/leaderboard-quick"),
    results=Path("runs/leaderboard-quick/results"),
    page=Path("runs/leaderboard-quick/leaderboard.md"),
    shipped=Path("runs/leaderboard-quick") / SHIPPED,
    places=(Place("head-in-a-jar", 0),),
    trials=(),
    updates=40,
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


def run_cell(
    place: Place, chosen: Sequence[Entry], size: Size, engage: Engage, listener: Listener, stop: Callable[[], bool]
) -> Cell:
    """Train and compare everyone on one ready set at one seed."""
    name = place.concept
    trained = trained_as(chosen, name, size)
    sweep = sweep_on(
        name,
        {entry.label: entry.way for entry in chosen if trained[entry.label] == entry.label},
        size.runs / "data",
        with_second(name, size, listener, stop),
        seeds=(place.seed,),
        training=size.training,
        about=f"leaderboard: {name}, seed {place.seed}",
    )
    folder = size.runs / Path(place.file).stem
    result = run_sweep(sweep, folder, listener, stop, engage(sweep.projects(), folder))
    whole = Comparison.load(folder / result.concepts[name].folder / "comparison.json")
    return Cell(
        concept=name,
        kind=CONCEPTS[name].kind,
        tuned=name not in KEPT_OUT,
        seed=place.seed,
        quick=size.quick,
        updates=size.updates,
        arms={
            entry.label: ArmOnBoard(
                method=entry.method,
                strength=entry.strength,
                points=whole.curves[trained[entry.label]],
                numbers=numbers_of(whole.arms[trained[entry.label]]),
                reasons=reasons_of(whole.arms[trained[entry.label]]),
            )
            for entry in chosen
        },
        spread=SPREAD,
        settings={**whole.settings, "second_lora": beside(name)},
        versions={**whole.versions, **today()},
    )


def today() -> dict[str, str]:
    """When something is measured, and of which source where git knows."""
    asked = ("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    try:
        commit = {"commit": subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()}
    except (OSError, subprocess.CalledProcessError):
        commit = {}
    return {"date": date.today().isoformat(), **commit}


def trained_as(chosen: Sequence[Entry], name: str, size: Size) -> dict[str, str]:
    """Label -> that of the first entry that is the same training on this set: the default is some method at its own."""
    first: dict[str, str] = {}
    projects = {
        entry.label: project_on(name, entry.way, size.runs, size.comparison, size.training).model_dump_json()
        for entry in chosen
    }
    return {label: first.setdefault(project, label) for label, project in projects.items()}


def kept_cell(
    file: Path, chosen: Sequence[Entry], size: Size, run: Callable[[Sequence[Entry]], Cell], listener: Listener = silent
) -> Cell:
    """The cell in this file, if it is of this size of work; whoever it lacks is run beside the plain LoRA and joins it,
    unless that came out as another one than the file's. Else everyone is run."""
    if file.is_file():
        found = Cell.load(file)
        asked = ComparisonSettings.model_validate(size.comparison).model_dump(mode="json", include=set(size.comparison))
        if found.updates == size.updates and all(found.settings.get(name) == value for name, value in asked.items()):
            missing = [entry for entry in chosen if entry.label not in found.arms]
            if not missing:
                return found
            more = run([entry for entry in chosen if entry.label == PLAIN or entry in missing])
            if not more.same_plain(found):
                warn(
                    listener,
                    f"{file}: its plain LoRA is not the one of this machine, so {len(missing)} stay out of it; "
                    "delete it to run everyone",
                )
                return found
            whole = found.joined(more, [entry.label for entry in chosen])
            whole.save(file)
            return whole
    found = run(chosen)
    found.save(file)
    return found


def trial_in(size: Size) -> Trial | None:
    """The trial as far as it went; None: it was not begun."""
    files = [size.results / place.trial_file for place in size.trials]
    cells = [Cell.load(file) for file in files if file.is_file()]
    return Trial(cells[0], cells[1] if len(cells) > 1 else None, company()) if cells else None


def strengths_of(
    candidates: Sequence[Entry], first: Cell, again: Callable[[Sequence[Entry]], Cell]
) -> tuple[dict[str, float], list[str]]:
    """Every method's strength, and the methods that hold: on the first set, and on the second, which is asked again
    while a method has a strength left that was not tried there."""
    trial, asked = Trial(first, beside=company()), {PLAIN}
    while wanted := {*trial.wanted()} - asked:
        asked |= wanted
        trial = trial._replace(second=again([entry for entry in candidates if entry.label in asked]))
    chosen, held = {*trial.chosen().values()}, {*trial.holding()}
    return (
        {entry.name: entry.value for entry in candidates if entry.value is not None and entry.label in chosen},
        [entry.name for entry in candidates if entry.label in held],
    )


def write_page(size: Size) -> Path:
    """From whatever cells there are."""
    trial = trial_in(size)
    board = [Cell.load(size.results / place.file) for place in size.places if (size.results / place.file).is_file()]
    if not board and trial is None:
        raise TenutoError(f"{size.results}: no results yet; run python -m benchmarks.leaderboard")
    write_board(board, trial, size.page, size.results / "curves.svg", size.shipped)
    return size.page


def main(
    only: Annotated[list[str] | None, typer.Option(help="Just these ready sets.")] = None,
    seeds: Annotated[int, typer.Option(help="Only the cells of the first so many training seeds.")] = len(SEEDS),
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Just these methods or kinds of adapter, beside the baselines; results go to the run's folder."
        ),
    ] = None,
    finalists: Annotated[bool, typer.Option(help="Only baselines, and the methods that held in the trial.")] = False,
    quick: Annotated[bool, typer.Option(help="Minutes: one set, one seed, untried strengths, few updates.")] = False,
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
        if strange := set(method or ()) - REGULARIZERS.keys() - ADAPTERS.keys():
            raise TenutoError(
                f"--method {min(strange)}: no such method; tenuto methods lists them; adapters: {', '.join(ADAPTERS)}"
            )
        if strange := set(only or ()) - set(ORDER):
            raise TenutoError(f"--only {min(strange)}: no such ready set; there are: {', '.join(ORDER)}")
        if method:
            size = size.aside("-".join(method))

        def cell(place: Place, chosen: Sequence[Entry], file: str, size: Size = size) -> Cell:
            def run(some: Sequence[Entry]) -> Cell:
                stage(screen, f"{Path(file).stem}: {len(some)} arms on {place.concept} at seed {place.seed}")
                return run_cell(place, some, size, engage, screen, stop)

            return kept_cell(size.results / file, chosen, size, run, screen)

        if not page:
            chosen, taking_part = untried(), method
            if size.trials:
                candidates, (one, other) = tried(taking_part), size.trials
                small = size._replace(comparison=size.trial_comparison)
                first = cell(one, candidates, one.trial_file, small)
                chosen, held = strengths_of(candidates, first, lambda some: cell(other, some, other.trial_file, small))
                taking_part = held if finalists else taking_part
            for place in size.places:
                if place.seed in SEEDS[:seeds] and (not only or place.concept in only):
                    cell(place, entries(chosen, taking_part), place.file)
                    write_page(size)
        typer.echo(str(write_page(size)))


if __name__ == "__main__":
    typer.run(main)
