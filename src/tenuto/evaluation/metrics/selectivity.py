"""Selectivity: signal without leak.

S = 10 log10(nR_trigger / nD)        nR: nD's formula with the trigger in the prompt, same states
"""

from __future__ import annotations

import math

from tenuto.evaluation.metrics.drift import ratio
from tenuto.evaluation.readings import Evidence, Value

SMALLEST = 1e-9
"""Numbers under this, or under the numeric floor, are arithmetic and no signal."""


def selectivity(evidence: Evidence) -> Value:
    """Decibels; higher is better. Beside it the trigger ablation: nR of the same prompts with the trigger removed."""
    near = [gap for gap in evidence.gaps if gap.kind == "near" and gap.d_trigger is not None]
    below = sum(gap.g_trigger or 0.0 for gap in near)
    plain = ratio(evidence.gaps)
    if below <= 0 or plain is None:
        return Value.none(evidence.missing.get("trigger", "no predictions with the trigger"))
    with_trigger = sum(gap.d_trigger or 0.0 for gap in near) / below
    without = sum(gap.d for gap in near) / max(sum(gap.g for gap in near), SMALLEST)
    detail = {"nR_trigger": with_trigger, "nR_trigger_removed": without}
    if min(with_trigger, plain) <= max(evidence.floor, SMALLEST):
        return Value.none("n/a: nothing moved beyond rounding", **detail)
    return Value(10 * math.log10(with_trigger / plain), detail=detail)
