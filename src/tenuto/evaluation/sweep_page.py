"""sweep.html: every arm of a sweep in one table and one grid of pictures. The numbers are sweep.json's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tenuto.evaluation.curve import Quantity
from tenuto.evaluation.elsewhere import carried, elsewhere_of
from tenuto.evaluation.figures import curve_figure
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.report import ROW_NAMES, Picture, picture, template
from tenuto.evaluation.sweep import ArmRecord, OnConcept, SweepResult
from tenuto.evaluation.wording import WORDS, number_text, significant
from tenuto.files import write_text

MEASURED = (
    "concept_strength",
    "drift",
    "bake",
    "style_bleed",
    "tag_compliance",
    "trigger_necessity",
    "usable_weight",
    "gain",
    "forwards",
    "seconds",
)
"""Metrics in the table, in this order; sweep.json holds them all."""
SHOWN = 2
"""Pictures in a cell of the grid."""


@dataclass(frozen=True)
class Cell:
    """One entry of the table."""

    text: str
    more: str = ""
    """Its seeds, or why there is none."""


@dataclass(frozen=True)
class Table:
    """One concept's table: a row per arm."""

    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[Cell]]


def table_of(result: SweepResult, concept: str) -> Table:
    """Law 2's three numbers, the metrics, and beside those that arms are compared by the same against the reference at
    equal concept strength."""
    on = result.concepts[concept]
    measured = [name for name in MEASURED if name not in absent(on)]
    columns = ["pool", "ratio", "weight", "updates"]
    for name in measured:
        columns.append(WORDS[name].name)
        columns += [f"{WORDS[name].name} at equal concept"] if name in _compared(on) else []
    records = {record.name: record for record in result.arms}
    rows = {arm: _row(records[arm], on, concept, measured, result.reference) for arm in on.arms}
    return Table(tuple(columns), rows)


def _compared(on: OnConcept) -> set[str]:
    """The metrics by which arms are compared at equal concept strength."""
    return {ratio.quantity for ratios in on.matched.values() for ratio in ratios}


def absent(on: OnConcept) -> dict[str, str]:
    """Metrics of the table that no arm has a number for, and why."""
    found = {}
    for name in MEASURED:
        numbers = [own[name] for own in on.arms.values() if name in own]
        if all(number.mean is None for number in numbers):
            reasons = (number.reason for number in numbers if number.reason)
            found[name] = next(reasons, "not measured")
    return found


def _row(record: ArmRecord, on: OnConcept, concept: str, measured: Sequence[str], reference: str) -> list[Cell]:
    weights = ", ".join(f"{name} {weight:g}" for name, weight in record.weight.items())
    use = f"{record.used} used, {record.unused} unused" if record.pool else ""
    cells = [
        Cell(str(record.pool), use),
        Cell(f"{record.ratio.get(concept, 0):g}"),
        Cell(weights or "none"),
        Cell(str(record.updates)),
    ]
    for name in measured:
        number = on.arms[record.name].get(name)
        if number is None or number.mean is None:
            cells.append(Cell("–", (number.reason or "") if number else "not measured"))
        else:
            seeds = [number_text(value, name).split(" (")[0] for value in number.per_seed if value is not None]
            cells.append(Cell(number_text(number.mean, name), " · ".join(seeds) if len(seeds) > 1 else ""))
        if name in _compared(on):
            cells.append(_against(on, record.name, reference, name))
    return cells


def _against(on: OnConcept, arm: str, reference: str, name: str) -> Cell:
    if arm == reference:
        return Cell("1", "by this one the others are judged")
    ratio = next((own for own in on.matched.get(arm, []) if own.quantity == name), None)
    if ratio is None or ratio.mean is None:
        return Cell("–", "not reached")
    return Cell(f"× {significant(ratio.mean)}", f"{ratio.reached} of {len(ratio.per_seed)} seeds")


def write_page(result: SweepResult, folder: Path, path: Path) -> None:
    """Write one self-contained HTML file. `folder` is the sweep's, where comparisons and pictures are."""
    concepts = {name: _concept(result, name, folder) for name in result.concepts}
    text = template("sweep.html.j2").render(result=result, concepts=concepts, words=WORDS)
    write_text(path, text)


def _concept(result: SweepResult, name: str, folder: Path) -> dict[str, Any]:
    on = result.concepts[name]
    comparison = Comparison.load(folder / on.folder / "comparison.json")
    arms = ["base", *on.arms]
    rows = _rows(comparison)
    cells = {arm: [_pictures(comparison, folder / on.folder, arm, row) for row in rows] for arm in arms}
    weights = sorted({float(w) for w in comparison.settings.get("weights", [])})
    strip = {
        arm: [_pictures(comparison, folder / on.folder, arm, f"strip-{w:g}")[:1] for w in weights] for arm in on.arms
    }
    there = elsewhere_of(comparison, folder / on.folder)
    return {
        "on": on,
        "elsewhere": {"name": there.base["name"], "table": carried(comparison, there)} if there else None,
        "table": table_of(result, name),
        "rows": list(rows.values()),
        "cells": {arm: found for arm, found in cells.items() if any(found)},
        "weights": [f"{weight:g}" for weight in weights],
        "strip": {arm: found for arm, found in strip.items() if any(found)},
        "curves": _curves(comparison),
        "prompts": [prompt for prompt in comparison.prompts if prompt.row in (*rows, "trained")],
        "absent": {WORDS[metric].name: why for metric, why in absent(on).items()},
    }


def _rows(comparison: Comparison) -> dict[str, str]:
    """Rows of pictures -> their names, those that some arm has."""
    trigger = comparison.concept.get("trigger", "")
    names = {"trained": f"with “{trigger}”" if trigger else "as trained"}
    names |= {"without": f"without “{trigger}”"} if trigger else {}
    names |= ROW_NAMES
    return {row: name for row, name in names.items() if any(rows.get(row) for rows in comparison.pictures.values())}


def _pictures(comparison: Comparison, folder: Path, arm: str, row: str) -> list[Picture]:
    if arm == "base" and comparison.concept.get("trigger"):  # the base draws its rows without the trigger
        row = {"trained": "trigger", "without": "trained"}.get(row, row)
    files = [folder / name for name in comparison.pictures.get(arm, {}).get(row, [])]
    return [picture(file) for file in files[:SHOWN] if file.is_file()]


def _curves(comparison: Comparison) -> list[Markup]:
    x = "concept strength" if comparison.curve_axis == "concept_strength" else "gain on unbiased pictures"
    wanted: dict[Quantity, str] = {
        "drift": "drift (nD)",
        "bake": "bake: share of other things changed",
        "bleed": "style bleed",
    }
    found = (curve_figure(comparison.curves, quantity, x, label) for quantity, label in wanted.items())
    return [Markup(svg) for svg in found if svg]
