"""docs/evidence.md, from docs/evidence/*.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tenuto.evaluation.curve import Quantity, compare_curves
from tenuto.evaluation.record import Comparison, Number
from tenuto.evaluation.wording import WORDS, number_text
from tenuto.files import write_text

PLAIN = "plain"
TOLERANCE = 0.05
SHOWN = (
    "concept_strength", "drift", "bake", "style_bleed", "trigger_necessity", "tag_compliance", "usable_weight",
    "seconds", "forwards",
)  # fmt: skip


def write_page(sets: Mapping[str, Comparison], page: Path, about: str, validation: str) -> None:
    """One section per ready set; of the one that the learning rate was chosen on, that is said."""
    names = {name: f"{name}, on which the learning rate was chosen" if name == validation else name for name in sets}
    parts = [f"# Evidence\n\n{about}\n", *(_section(names[name], own) for name, own in sets.items())]
    write_text(page, "\n".join(parts))


def _section(name: str, own: Comparison) -> str:
    arms = list(own.arms)
    head = [f"## {name} ({own.concept['kind']})\n", "| | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
    rows = [
        f"| {WORDS[metric].name} | " + " | ".join(_cell(own.arms[arm].get(metric), metric) for arm in arms) + " |"
        for metric in SHOWN
    ]
    rows += [
        f"| {quantity} over plain's, equally strong | – | "
        + " | ".join(_matched(own, arm, quantity) for arm in arms if arm != PLAIN)
        + " |"
        for quantity in ("drift", "bake")
    ]
    return "\n".join([*head, *rows, ""])


def _cell(number: Number | None, metric: str) -> str:
    """Mean, and every seed's."""
    if number is None or number.mean is None:
        return "–"
    seeds = ", ".join(number_text(value, metric).split(" (")[0] for value in number.per_seed)
    return f"{number_text(number.mean, metric)} [{seeds}]"


def _matched(own: Comparison, arm: str, quantity: Quantity) -> str:
    ratio = compare_curves(own.curves[PLAIN], own.curves[arm], quantity, TOLERANCE)
    if ratio.mean is None:
        return "not reached"
    return f"{ratio.mean:.3g} [{', '.join('–' if value is None else f'{value:.3g}' for value in ratio.per_seed)}]"
