"""Whether LoRAs carry over: the same prompts and seeds on another checkpoint, beside what was measured on their own.

Drift there is against that checkpoint, so every number means what it means at home.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenuto.evaluation.metrics.necessity import LEARNT
from tenuto.evaluation.record import Comparison, mean_of
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.wording import WORDS, number_text

FOLDER = "elsewhere"
"""Under the comparison's own folder."""
NUMBERS = ("concept_strength", "drift", "bake", "style_bleed", "tag_compliance", "trigger_necessity", "gain")
"""Metrics that are told of both checkpoints, in this order."""


def lighter(settings: ComparisonSettings) -> ComparisonSettings:
    """What is asked on the other checkpoint: the same pictures and states, without strip, curves and a second LoRA."""
    less: dict[str, Any] = {"weights": (), "strip_seeds": 0, "curve_seeds": 0, "second_lora": None, "other_base": None}
    return settings.model_copy(update=less)


def elsewhere_of(comparison: Comparison, folder: Path) -> Comparison | None:
    """What was measured on the other checkpoint; None where that was not asked for, or is of other LoRAs or prompts by
    now. `folder` is the comparison's."""
    file = folder / FOLDER / "comparison.json"
    if not comparison.settings.get("other_base") or not file.is_file():
        return None
    found = Comparison.load(file)
    same = found.base.get("name") == comparison.settings["other_base"] and _asked(found) == _asked(comparison)
    return found if same else None


def _asked(comparison: Comparison) -> tuple[Any, ...]:
    """The LoRAs by content, the prompts and the seeds."""
    loras = [
        (arm, seed, comparison.hashes.get(f"{arm} seed {seed}"))
        for arm, seeds in comparison.training_seeds.items()
        for seed in seeds
    ]
    return loras, [(own.row, own.text) for own in comparison.prompts], comparison.seeds


def carried(here: Comparison, there: Comparison) -> list[dict[str, Any]]:
    """A row per metric that both have: arm -> (here, there) as people read them. The first row says what share of the
    concept's strength is left."""
    rows = []
    if kept := retention(here, there):
        about = "concept strength there over that on its own checkpoint; 1 = nothing is lost"
        cells = {arm: ("", f"{share:.2f}") for arm, share in kept.items()}
        rows.append({"name": "Concept retained", "says": about, "cells": cells})
    for name in NUMBERS:
        cells = {}
        for arm in there.arms:
            both = [mean_of(own.arms.get(arm, {}), name) for own in (here, there)]
            if None not in both:
                cells[arm] = (number_text(both[0], name), number_text(both[1], name))
        if cells:
            rows.append({"name": WORDS[name].name, "says": WORDS[name].says, "cells": cells})
    return rows


def retention(here: Comparison, there: Comparison) -> dict[str, float]:
    """Arm -> concept strength on the other checkpoint over that on its own; arms that show the concept here."""
    found = {}
    for arm in there.arms:
        own, other = (mean_of(each.arms.get(arm, {}), "concept_strength") for each in (here, there))
        if own is not None and own >= LEARNT and other is not None:
            found[arm] = other / own
    return found
