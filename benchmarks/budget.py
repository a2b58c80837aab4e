"""How well a drift budget is kept, on prompts that neither the training nor its controller has seen.

    python -m benchmarks.budget [--only NAME] [--seeds N]

`cached_prior` under `drift_controller`, and `output_preservation` under it with half of the updates; the demo's
settings, each ready set at each budget and training seed, and the drift of the shipped LoRA at far more test prompts
than the demo reads. Four minutes a set and seed on two cores; it goes on where it was stopped. Raw numbers are copied
to docs/evidence/budget/, the table is printed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.ready import SEEDS, Way, sweep_on
from tenuto.cli.demo import SETTINGS
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.evaluation.record import ArmNumbers, Comparison
from tenuto.pocket.concepts import CONCEPTS
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.drift_controller import DriftController
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.work.processes import SideBySide
from tenuto.work.sweep import run_sweep

RUNS, RESULTS = Path("runs/budget"), Path("docs/evidence/budget")
BUDGETS = (0.1, 0.3)
ASKED = 0.15
"""How far off a drift may be, as a share of the budget."""
SETS = tuple(name for name, concept in CONCEPTS.items() if concept.kind != "style")  # kept states teach no style
COMPARISON: dict[str, Any] = {
    **SETTINGS["comparison"], "prompts": 2, "drift_prompts": 64, "weights": [], "curve_checkpoints": 0,
}  # fmt: skip
TRAINING = {"adapter": SETTINGS["training"]["adapter"]}
HALF = {"steps": SETTINGS["training"]["steps"] // 2}
"""Who asks the base at each of the user's own pictures learns twice as fast."""


def ways() -> dict[tuple[str, float], Way]:
    """(what holds, budget) -> the way."""
    return {
        (name, budget): Way(None, None, {name: method, "drift_controller": DriftController(budget=budget)}, more, None)
        for name, method, more in (
            ("cached_prior", CachedPrior(), {}),
            ("output_preservation", OutputPreservation(), HALF),
        )
        for budget in BUDGETS
    }


def label(name: str, budget: float) -> str:
    """Of an arm."""
    return f"{name}, budget {budget:g}"


def main(
    only: Annotated[list[str] | None, typer.Option(help="Just these ready sets.")] = None,
    seeds: Annotated[int, typer.Option(help="Training seeds.")] = len(SEEDS),
) -> None:
    """Ctrl-C and the same command go on. Delete a set's JSON to measure it anew."""
    with guarded() as stop, Screen() as screen:
        RESULTS.mkdir(parents=True, exist_ok=True)
        arms = {label(*named): way for named, way in ways().items()}
        for name in only or SETS:
            if not (numbers := RESULTS / f"{name}.json").is_file():
                sweep = sweep_on(
                    name, arms, RUNS / "data", COMPARISON, seeds=range(seeds), training=TRAINING, about="budgets"
                )
                done = run_sweep(sweep, RUNS / name, screen, stop, SideBySide(2))
                shutil.copy(RUNS / name / done.concepts[name].folder / "comparison.json", numbers)
    table()


def table() -> None:
    """What was asked and what came out, seed by seed."""
    print(
        "| set | held by | budget | off by | drift on test prompts | near | far | concept | forwards |\n|" + "---|" * 9
    )
    errors = []
    for file in sorted(RESULTS.glob("*.json")):
        found = Comparison.load(file)
        for name, budget in ways():
            own = found.arms[label(name, budget)]
            off = [value / budget - 1 for value in own["drift"].per_seed if value is not None]
            errors += off
            print(
                f"| {file.stem} | {name} | {budget:g} | {', '.join(f'{error:+.0%}' for error in off)} | {told(own)} |"
            )
    kept = sum(abs(error) < ASKED for error in errors)
    print(f"\n{kept} of {len(errors)} within {ASKED:.0%}")


def told(own: ArmNumbers) -> str:
    """The rest of an arm's line: means over seeds."""
    parts = own["drift"].detail
    near, far = (sum(part[kind] for part in parts) / len(parts) for kind in ("near", "far"))
    return " | ".join(
        (
            f"{own['drift'].mean or 0:.3f}", f"{near:.3f}", f"{far:.3f}", f"{own['concept_strength'].mean or 0:.3f}",
            f"{own['forwards'].mean or 0:,.0f}",
        )
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
