"""Usable weight: how far the LoRA's strength can be turned up.

Usable = the largest [0, s] in which
    tag compliance >= 90 % of the base's (strength 0),
    quality >= 95 % of the base's        quality = mean top probability of the groups that must have exactly one answer
    concept does not fall                (beyond noise: two standard errors of the mean)
with linear interpolation between the strengths that were tried, over at least 16 prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tenuto.evaluation.convnet import CONCEPTS
from tenuto.evaluation.metrics.compliance import recall
from tenuto.evaluation.readings import Evidence, Seen, Value

COMPLIANCE = 0.90
QUALITY = 0.95
PROMPTS = 16


def usable_weight(evidence: Evidence) -> Value:
    if "tagger" in evidence.missing:
        return Value.none(evidence.missing["tagger"])
    if len(evidence.strip) < 2 or 0.0 not in evidence.strip:
        return Value.none(evidence.missing.get("strip", "no weight strip was drawn (it needs strength 0 and others)"))
    strengths = sorted(evidence.strip)
    asked = evidence.asked["strip"]
    base = evidence.strip[0.0]
    base_recall, base_quality = recall(base, asked), quality(base)
    if not base_recall or not base_quality:
        return Value.none("the base shows none of the prompted tags that the tagger can read")
    compliance = [(recall(evidence.strip[s], asked) or 0.0) / base_recall for s in strengths]
    worth = [(quality(evidence.strip[s]) or 0.0) / base_quality for s in strengths]
    concept: list[float] | None = None
    limits = {"compliance": until(strengths, compliance, COMPLIANCE), "quality": until(strengths, worth, QUALITY)}
    if evidence.concept:
        concept = [float(evidence.strip[s].p(CONCEPTS, evidence.concept).mean()) for s in strengths]
        noise = [standard_error(evidence.strip[s], evidence.concept) for s in strengths]
        limits["concept"] = while_rising(strengths, concept, noise)
    ends = min(limits.values())
    return Value(
        ends,
        detail={
            "ends_by": min(limits, key=lambda name: limits[name]) if ends < strengths[-1] else "the strip",
            "limits": limits,
            "strengths": strengths,
            "compliance": compliance,
            "quality": worth,
            "concept": concept,
            "spearman": None if concept is None else spearman(strengths, concept),
            "prompts": len(asked),
            "few_prompts": len(asked) < PROMPTS,
        },
    )


def quality(seen: Seen) -> float | None:
    """Mean top probability of the groups that must have exactly one answer; None when there is no such group."""
    tops = [float(seen.probabilities[group].amax(dim=1).mean()) for group in seen.single]
    return sum(tops) / len(tops) if tops else None


def until(strengths: Sequence[float], values: Sequence[float], limit: float) -> float:
    """The strength at which the values first fall below the limit, on straight lines between those tried."""
    for number, value in enumerate(values):
        if value < limit:
            if number == 0:
                return strengths[0]
            before = values[number - 1]
            share = (before - limit) / (before - value)
            return strengths[number - 1] + share * (strengths[number] - strengths[number - 1])
    return strengths[-1]


def while_rising(strengths: Sequence[float], values: Sequence[float], noise: Sequence[float]) -> float:
    """The strength of the best value before the first fall below it by more than two standard errors."""
    best = 0
    for number in range(1, len(values)):
        if values[number] >= values[best]:
            best = number
        elif values[best] - values[number] > 2 * math.hypot(noise[best], noise[number]):
            return strengths[best]
    return strengths[-1]


def standard_error(seen: Seen, concept: str) -> float:
    values = seen.p(CONCEPTS, concept)
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their places."""
    return [sum(o < v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation; None when one side does not vary."""
    a, b = ranks(x), ranks(y)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    above = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    below = math.sqrt(sum((p - mean_a) ** 2 for p in a) * sum((q - mean_b) ** 2 for q in b))
    return above / below if below > 0 else None


def power(drifts: Mapping[float, float]) -> float | None:
    """p in nD ~ s^p, by least squares in logarithms over s > 0 (2: linear regime; more: breakdown)."""
    points = [(math.log(s), math.log(d)) for s, d in drifts.items() if s > 0 and d > 0]
    if len(points) < 2:
        return None
    x, y = sum(p for p, _ in points) / len(points), sum(q for _, q in points) / len(points)
    below = sum((p - x) ** 2 for p, _ in points)
    return sum((p - x) * (q - y) for p, q in points) / below if below > 0 else None
