"""Held for little work, on ready sets: the demo's settings, three training seeds.

    python -m benchmarks.light [GROUP ...] [--only NAME]

Groups of ways to hold: `steady` (kept states, without and with random strengths; weight strips of three seeds), `holds`
(kept states, contrast, output preservation; two noise seeds), `styles` (prior images, or the base's own answer at some
weights). Some ten minutes a set and group on two cores; it goes on where it was stopped. Raw numbers are copied to
docs/evidence/light/GROUP/, the table is printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.ready import PLAIN, Way, sweep_on
from tenuto.cli.demo import SETTINGS
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.evaluation.curve import compare_curves
from tenuto.evaluation.record import Comparison
from tenuto.pocket.concepts import CONCEPTS
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import FEWEST, CachedPrior
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.regularizers.random_strength import RandomStrength
from tenuto.regularizers.trigger_contrast import TriggerContrast
from tenuto.words import TenutoError
from tenuto.work.processes import SideBySide
from tenuto.work.sweep import run_sweep

RUNS, RESULTS = Path("runs/light"), Path("docs/evidence/light")


class Group(NamedTuple):
    """Ways to hold that are measured beside the plain LoRA, on which sets and how."""

    ways: Mapping[str, Way]
    sets: tuple[str, ...]
    comparison: Mapping[str, Any]


def kept(ratio: float, *more: tuple[str, Regularizer]) -> Way:
    """Few kept states, and other methods beside them."""
    return Way(None, ratio, {"cached_prior": CachedPrior(), **dict(more)}, steps=None)


def preserved(weight: float, **training: Any) -> Way:
    """The base's own answer to every caption without the trigger."""
    return Way(methods={"output_preservation": OutputPreservation(weight=weight)}, training=training)


LIGHT = kept(FEWEST)
STEADY = kept(FEWEST, ("random_strength", RandomStrength()))
PRESERVED = preserved(1.6, steps=SETTINGS["training"]["steps"] // 2)
"""In half of the updates: it learns twice as fast."""
OBJECTS = tuple(name for name, concept in CONCEPTS.items() if concept.kind != "style")
STYLES = tuple(name for name in CONCEPTS if name not in OBJECTS)
PAIRS = {**SETTINGS["comparison"], "seeds": [0, 1]}
"""Two pictures of every prompt, so that `div` has pairs."""
STRIPS = {**PAIRS, "weights": [0.0, 0.5, 1.0, 1.5, 2.0, 3.0], "strip_prompts": 16, "strip_seeds": 3}
GROUPS = {
    "steady": Group({"light": LIGHT, "steady": STEADY}, OBJECTS, STRIPS),
    "holds": Group(
        {
            "light": LIGHT,
            "contrast": Way(methods={"trigger_contrast": TriggerContrast()}),
            "both": kept(FEWEST / 2, ("trigger_contrast", TriggerContrast())),
            "preserved": PRESERVED,
        },
        OBJECTS,
        PAIRS,
    ),
    "styles": Group(
        {
            "reg": Way(None, None, {"prior_preservation": PriorPreservation()}, steps=None),
            **{f"preserved {weight:g}": preserved(weight) for weight in (0.1, 0.4, 1.6)},
            "preserved 1.6, half": PRESERVED,
        },
        STYLES,
        PAIRS,
    ),
}
TRAINING = {"adapter": SETTINGS["training"]["adapter"]}
TOLERANCE = 0.05
SHOWN = {
    "concept_strength": ".3g", "drift": ".3g", "bake": ".3g", "div": ".3f", "tag_compliance": ".3f",
    "usable_weight": ".2f", "forwards": ",.0f",
}  # fmt: skip
HEAD = (
    "| set | concept, plain / held | drift | bake | DIV | compliance | usable weight | forwards | drift over plain | "
    "bake over plain |\n|" + "---|" * 10
)


def main(
    groups: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(GROUPS)}; none: all.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Just these ready sets.")] = None,
) -> None:
    """Ctrl-C and the same command go on. Delete a set's JSON to measure it anew."""
    with guarded() as stop, Screen() as screen:
        if strange := set(groups or ()) - set(GROUPS):
            raise TenutoError(f"{min(strange)}: no such group; there are: {', '.join(GROUPS)}")
        for group in groups or GROUPS:
            ways, sets, comparison = GROUPS[group]
            (RESULTS / group).mkdir(parents=True, exist_ok=True)
            for name in sets:
                if (only and name not in only) or (numbers := RESULTS / group / f"{name}.json").is_file():
                    continue
                ways = {PLAIN: Way(), **ways}
                sweep = sweep_on(name, ways, RUNS / "data", comparison, training=TRAINING, about=f"held: {group}")
                done = run_sweep(sweep, RUNS / name, screen, stop, SideBySide(2))
                shutil.copy(RUNS / name / done.concepts[name].folder / "comparison.json", numbers)
    print(HEAD)
    for file in sorted(RESULTS.glob("*/*.json")):
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
