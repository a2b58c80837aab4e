"""Held for little work, on ready sets: the demo's settings, three training seeds, two noise seeds.

    python -m benchmarks.light [--only NAME]

Some fifteen minutes a set on two cores; it goes on where it was stopped. Raw numbers are copied to
docs/evidence/light/, the table is printed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.ready import PLAIN, Way, sweep_on
from tenuto.cli.demo import SETTINGS
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.evaluation.curve import compare_curves
from tenuto.evaluation.record import Comparison
from tenuto.pocket.concepts import CONCEPTS
from tenuto.regularizers.cached_prior import FEWEST, CachedPrior
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.regularizers.trigger_contrast import TriggerContrast
from tenuto.work.processes import SideBySide
from tenuto.work.sweep import run_sweep

RUNS, RESULTS = Path("runs/light"), Path("docs/evidence/light")
WAYS = {
    PLAIN: Way(),
    "light": Way(None, FEWEST, {"cached_prior": CachedPrior()}, steps=None),
    "contrast": Way(methods={"trigger_contrast": TriggerContrast()}),
    "both": Way(None, FEWEST / 2, {"cached_prior": CachedPrior(), "trigger_contrast": TriggerContrast()}, steps=None),
    "preserved": Way(
        methods={"output_preservation": OutputPreservation(weight=1.6)},
        training={"steps": SETTINGS["training"]["steps"] // 2},
    ),
}
"""The default; a hold without prior images; half of the rows of each; another hold without prior images in half of the
updates, for it learns twice as fast."""
OF_STYLES = {
    PLAIN: Way(),
    "preserved": WAYS["preserved"],
    "reg x8": Way(8, 0.5, {"prior_preservation": PriorPreservation()}, steps=8),
    "reg x2": Way(2, 0.25, {"prior_preservation": PriorPreservation()}, steps=8),
}
"""Kept states and few rows let no style be learned: learning the base's pictures instead, from small pools."""
COMPARISON = {**SETTINGS["comparison"], "seeds": [0, 1]}
"""Two pictures of every prompt, so that `div` has pairs."""
TRAINING = {"adapter": SETTINGS["training"]["adapter"]}
TOLERANCE = 0.05
SHOWN = {"concept_strength": ".3g", "drift": ".3g", "bake": ".3g", "div": ".3f", "forwards": ",.0f"}
HEAD = (
    "| set | concept, plain / held | drift | bake | DIV | forwards | drift over plain | bake over plain |\n|"
    + "---|" * 8
)


def main(only: Annotated[list[str] | None, typer.Option(help="Just these ready sets.")] = None) -> None:
    """Ctrl-C and the same command go on. Delete a set's JSON to measure it anew."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with guarded() as stop, Screen() as screen:
        for name in only or CONCEPTS:
            if (numbers := RESULTS / f"{name}.json").is_file():
                continue
            ways = OF_STYLES if CONCEPTS[name].kind == "style" else WAYS
            sweep = sweep_on(name, ways, RUNS / "data", COMPARISON, training=TRAINING, about="held lightly")
            done = run_sweep(sweep, RUNS / name, screen, stop, SideBySide(2))
            shutil.copy(RUNS / name / done.concepts[name].folder / "comparison.json", numbers)
    print(HEAD)
    for file in sorted(RESULTS.glob("*.json")):
        found = Comparison.load(file)
        for arm in (name for name in found.arms if name != PLAIN):
            print(line(file.stem, found, arm))


def line(name: str, found: Comparison, arm: str) -> str:
    """A row of the table: what each arm reached, and what the held one has of plain's where both are equally strong."""
    plain, held = found.arms[PLAIN], found.arms[arm]
    both = (" / ".join(_said(own[key].mean, how) for own in (plain, held)) for key, how in SHOWN.items())
    curves = found.curves[PLAIN], found.curves[arm]
    ratios = (compare_curves(*curves, quantity, TOLERANCE) for quantity in ("drift", "bake"))
    over = (f"{_said(own.mean)} ({', '.join(map(_said, own.per_seed))})" for own in ratios)
    return f"| {name}, {arm} | {' | '.join([*both, *over])} |"


def _said(value: float | None, how: str = ".2g") -> str:
    return "–" if value is None else f"{value:{how}}"


if __name__ == "__main__":
    typer.run(main)
