"""Metrics in plain words, and numbers as people read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Words:
    """A metric in plain words."""

    name: str
    says: str
    better: Literal["lower", "higher", ""]
    percent: bool = False


WORDS: dict[str, Words] = {
    "concept_strength": Words(
        "Concept strength",
        "how surely the concept shows in styles, places and views the set never had; 1 = always",
        "higher",
    ),
    "drift": Words(
        "Drift (nD)",
        "how far the rest of the model moved; 0 = untouched, 1 = as much as a prompt's own effect; "
        "energy ratio, amplitude in brackets",
        "lower",
    ),
    "bake": Words(
        "Bake", "share of other things (style, place, pose, hair …) that change when the trigger is used", "lower", True
    ),
    "style_bleed": Words(
        "Style bleed", "how much more often the set's own style shows where nobody asked for it", "lower", True
    ),
    "tag_compliance": Words(
        "Tag compliance", "prompted tags that are still drawn, against the base; 1 = as good as the base", "higher"
    ),
    "trigger_necessity": Words(
        "Trigger necessity", "1 = only the trigger calls the concept; 0 = it comes uncalled just as often", "higher"
    ),
    "usable_weight": Words(
        "Usable weight", "how far the weight can be turned up before prompts or pictures break", "higher"
    ),
    "guided_drift": Words("Guided drift", "drift as the sampler sees it at this guidance", "lower"),
    "selectivity": Words("Selectivity (dB)", "effect with the trigger over leak without it", "higher"),
    "gain": Words(
        "Gain (unbiased)", "how much better it predicts pictures of the concept outside the set's bias", "higher"
    ),
    "fit": Words(
        "Fit",
        "how much better it predicts instance pictures kept out of training; rewards bake, so never compare by it",
        "",
    ),
    "dino_i": Words("DINO-I", "how like the set's pictures those with the trigger are, as DINO sees them", "higher"),
    "clip_i": Words("CLIP-I", "the same as CLIP sees them", "higher"),
    "clip_t": Words("CLIP-T", "how well pictures with the trigger fit their prompts, as CLIP reads them", "higher"),
    "pres": Words(
        "PRES",
        "how much more like the set's pictures those without the trigger are than the base's, as DINO sees them, "
        "or the tagger where no DINO was named; 0 = not at all",
        "",
    ),
    "div": Words(
        "DIV",
        "how much pictures of one prompt without the trigger still differ, to the same eye; 1 = as much as the base's",
        "",
    ),
    "additivity": Words(
        "Additivity error",
        "how far this LoRA and the second one together are from the sum of what each does alone, over both effects; "
        "0 = they add up, 0.5 = one of two equal ones has no effect beside the other",
        "lower",
    ),
    "seconds": Words("Seconds", "everything this arm needed: prior set, caches, training", "lower"),
    "forwards": Words("Forwards", "the same in passes through the network", "lower"),
}
"""In the order of the table. A metric that is not here is shown under its own name."""


def number_text(value: float | None, name: str = "") -> str:
    """A number as people read it: 0.043 (21 %) for drift, 31 % for shares, 12 min for seconds."""
    if value is None or not math.isfinite(value):
        return "–"
    if name in ("drift", "guided_drift"):
        return f"{significant(value)} ({math.sqrt(max(value, 0)):.0%})".replace("%", " %")
    if name in WORDS and WORDS[name].percent:
        return f"{100 * value:z.0f} %"
    if name == "seconds":
        return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
    if name == "forwards":
        return f"{value:,.0f}".replace(",", " ")
    if name == "selectivity":
        return f"{value:+z.1f} dB"
    if name in ("pres", "additivity"):
        return f"{value:z.3f}"
    return f"{value:z.4f}" if name in ("gain", "fit") else f"{value:z.2f}"


def significant(value: float) -> str:
    """Two significant digits without exponents."""
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def times(ratio: float) -> str:
    """ "2.4 times" for ratio 1/2.4."""
    factor = 1 / ratio if ratio < 1 else ratio
    return f"{factor:.0f} times" if factor >= 10 else f"{factor:.1f} times"
