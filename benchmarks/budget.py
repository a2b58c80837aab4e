"""How well a drift budget is kept, on prompts that neither the training nor its controller has seen.

    python -m benchmarks.budget [GROUP ...] [--only NAME] [--seeds N]

Groups of what stands under `drift_controller`: `default` (what holds where nothing but a budget is named), `alone`
(`cached_prior`, and `output_preservation` with half of the updates). The demo's settings, each ready set at each budget
and training seed, and the drift of the shipped LoRA at far more test prompts than the demo reads. Five minutes a set
and seed on two cores; it goes on where it was stopped. Raw numbers are copied to docs/evidence/budget/GROUP/, a file a
set and seed, the tables are printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.ready import SEEDS, Way, sweep_on
from tenuto.cli.demo import SETTINGS
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.evaluation.record import ArmNumbers, Comparison
from tenuto.pocket.concepts import CONCEPTS
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.drift_controller import DriftController
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.words import TenutoError
from tenuto.work.processes import SideBySide
from tenuto.work.sweep import run_sweep

RUNS, RESULTS = Path("runs/budget"), Path("docs/evidence/budget")
BUDGETS = (0.1, 0.3)
ASKED = 0.15
"""How far off a drift may be, as a share of the budget."""
DRIFT_PROMPTS = 256
"""Near the set and far from it each, as far as there are so many: the drift of a few is a matter of luck."""
COMPARISON: dict[str, Any] = {
    **SETTINGS["comparison"], "prompts": 2, "drift_prompts": DRIFT_PROMPTS, "weights": [], "curve_weights": [],
    "curve_checkpoints": 0,
}  # fmt: skip
TRAINING = {"adapter": SETTINGS["training"]["adapter"]}
HALF = {"steps": SETTINGS["training"]["steps"] // 2}
"""Who asks the base at each of the user's own pictures learns twice as fast."""


class Held(NamedTuple):
    """What stands under the budget."""

    methods: Mapping[str, Regularizer] = {}
    training: Mapping[str, Any] = {}

    def way(self, budget: float) -> Way:
        methods = {**self.methods, "drift_controller": DriftController(budget=budget)}
        return Way(None, None, methods, self.training, steps=None)


class Group(NamedTuple):
    """Ways that are measured together, and where."""

    held: Mapping[str, Held]
    sets: tuple[str, ...]

    def arms(self) -> dict[tuple[str, float], str]:
        """(what holds, budget) -> the arm's name."""
        return {(name, budget): f"{name}, budget {budget:g}" for name in self.held for budget in BUDGETS}


OBJECTS = tuple(name for name, concept in CONCEPTS.items() if concept.kind != "style")
"""Kept states alone teach no style."""
GROUPS = {
    "default": Group({"default": Held()}, tuple(CONCEPTS)),
    "alone": Group(
        {
            "cached_prior": Held({"cached_prior": CachedPrior()}),
            "output_preservation": Held({"output_preservation": OutputPreservation()}, HALF),
        },
        OBJECTS,
    ),
}


def main(
    groups: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(GROUPS)}; none: all.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Just these ready sets.")] = None,
    seeds: Annotated[int, typer.Option(help="The first so many training seeds.")] = len(SEEDS),
) -> None:
    """Ctrl-C and the same command go on. Delete a JSON to measure that set and seed anew."""
    with guarded() as stop, Screen() as screen:
        if strange := set(groups or ()) - set(GROUPS):
            raise TenutoError(f"{min(strange)}: no such group; there are: {', '.join(GROUPS)}")
        for group in groups or GROUPS:
            own, results, runs = GROUPS[group], RESULTS / group, RUNS / group
            if strange := set(only or ()) - set(own.sets):
                raise TenutoError(f"{min(strange)}: not among the sets of {group}: {', '.join(own.sets)}")
            ways = {arm: own.held[held].way(budget) for (held, budget), arm in own.arms().items()}
            results.mkdir(parents=True, exist_ok=True)
            for seed, name in product(SEEDS[:seeds], own.sets):  # every set before any is seen again
                numbers = results / f"{name}-{seed}.json"
                if (only and name not in only) or numbers.is_file():
                    continue
                sweep = sweep_on(
                    name, ways, RUNS / "data", COMPARISON, seeds=(seed,), training=TRAINING, about="budgets"
                )
                folder = runs / numbers.stem
                done = run_sweep(sweep, folder, screen, stop, SideBySide(2))
                shutil.copy(folder / done.concepts[name].folder / "comparison.json", numbers)
    for group in groups or GROUPS:
        table(group)


def table(group: str) -> None:
    """What was asked and what came out."""
    print(
        "| set, seed | held by | budget | off by | drift on test prompts | near | far | concept | forwards |\n|"
        + "---|" * 9
    )
    errors = []
    for file in sorted((RESULTS / group).glob("*.json")):
        found = Comparison.load(file)
        name, _, seed = file.stem.rpartition("-")
        for (held, budget), arm in GROUPS[group].arms().items():
            own = found.arms[arm]
            errors.append((own["drift"].mean or 0.0) / budget - 1)
            print(f"| {name}, {seed} | {held} | {budget:g} | {errors[-1]:+.0%} | {told(own)} |")
    kept = sum(abs(error) < ASKED for error in errors)
    print(f"\n{kept} of {len(errors)} within {ASKED:.0%}")


def told(own: ArmNumbers) -> str:
    """The rest of an arm's line."""
    (part,) = own["drift"].detail
    near, far = (part[kind] for kind in ("near", "far"))
    return " | ".join(
        (
            f"{own['drift'].mean or 0:.3f}", f"{near:.3f}", f"{far:.3f}", f"{own['concept_strength'].mean or 0:.3f}",
            f"{own['forwards'].mean or 0:,.0f}",
        )
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
