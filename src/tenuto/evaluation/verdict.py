"""The report's first sentence: what regularization did, and what qualifies that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tenuto.evaluation.curve import Level, Quantity, Ratio, final
from tenuto.evaluation.record import ArmNumbers, Comparison, Number, mean_of
from tenuto.evaluation.wording import times

EVEN = 0.1
"""Ratios within 10 % of 1 are called no difference."""

Tone = Literal["good", "even", "bad", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """The report's first sentence, with what qualifies it."""

    sentence: str
    tone: Tone
    caveats: tuple[str, ...] = ()


def verdict(comparison: Comparison) -> Verdict:
    """One honest sentence from the numbers: at matched concept strength where it was reached, and said so where not."""
    plain, held = comparison.arms.get("plain"), comparison.arms.get("held")
    if plain is None or held is None:
        return Verdict("There is only one arm here, so nothing can be compared.", "unknown")
    caveats = []
    best = _reached(comparison, "drift")
    if best is not None and best.mean is not None:
        wanted, bakes = len(best.per_seed), _reached(comparison, "bake", best.level)
        if best.level != "plain" and _weaker(held, plain, best.tolerance):
            caveats.append(
                "The held LoRA's concept is weaker as trained; it is compared with the plain LoRA where that one is as "
                "weak, turned down or stopped early."
            )
        if best.reached < wanted:
            caveats.append(f"They met there in {best.reached} of {wanted} seeds; only those count here.")
        if best.interval and best.interval[0] < 1 < best.interval[1]:
            caveats.append("The seeds disagree: no difference is within the 95 % interval.")
        return _sentence(
            best.mean, bakes.mean if bakes else None, "At the same concept strength, the held LoRA", caveats
        )
    drifts = mean_of(plain, "drift"), mean_of(held, "drift")
    strengths = mean_of(plain, "concept_strength"), mean_of(held, "concept_strength")
    if drifts[0] is None or drifts[1] is None:
        reason = (plain.get("drift") or Number(mean=None)).reason or "no predictions were compared"
        return Verdict(f"Drift could not be measured: {reason}.", "unknown")
    if not drifts[0]:
        return Verdict("The plain LoRA did not move the model at all; train it longer before comparing.", "unknown")
    ratio = drifts[1] / drifts[0]
    if strengths[0] is not None and strengths[1] is not None:
        said = f"{strengths[1]:.2f} against {strengths[0]:.2f}"
        points = comparison.curves.get("held", [])
        end = final(comparison.curves.get("plain", []))
        if points and end is not None:
            caveats.append(
                "Part of the lower drift is simply a weaker concept: look at the curves before believing it."
            )
            return Verdict(
                f"The held LoRA never gets as strong as the plain one (concept {said}); it moves the rest of the model "
                f"{times(ratio)} {'less' if ratio < 1 else 'more'}.",
                "even" if ratio < 1 else "bad",
                tuple(caveats),
            )
        caveats.append(f"Not matched: concept strength is {said}.")
    else:
        reason = (held.get("concept_strength") or Number(mean=None)).reason or "nobody could read the pictures"
        caveats.append(f"Concept strength could not be measured ({reason}), so this is not at matched strength.")
    return _sentence(ratio, None, "As trained, the held LoRA", caveats)


def _weaker(one: ArmNumbers, other: ArmNumbers, tolerance: float) -> bool:
    """Whether its concept is weaker by more than counts as the same."""
    own, its = mean_of(one, "concept_strength"), mean_of(other, "concept_strength")
    return own is not None and its is not None and own < (1 - tolerance) * its


def _reached(comparison: Comparison, quantity: Quantity, level: Level | None = None) -> Ratio | None:
    """The first matched reading that has a number: at the weaker one's strength, in recent comparisons."""
    found = (r for r in comparison.matched if r.quantity == quantity and level in (None, r.level))
    return next((ratio for ratio in found if ratio.mean is not None), None)


def _sentence(drift_ratio: float, bake_ratio: float | None, start: str, caveats: Sequence[str]) -> Verdict:
    if abs(drift_ratio - 1) <= EVEN:
        sentence, tone = f"{start} moves the rest of the model about as much as the plain one", "even"
    elif drift_ratio < 1:
        sentence, tone = f"{start} moves the rest of the model {times(drift_ratio)} less than the plain one", "good"
    else:
        sentence, tone = f"{start} moves the rest of the model {times(drift_ratio)} more than the plain one", "bad"
    if bake_ratio is not None:
        if abs(bake_ratio - 1) <= EVEN:
            sentence += ", and changes about as many other things in the picture."
        elif bake_ratio < 1:
            link = "and" if tone == "good" else "but"
            sentence += (
                f", {link} changes {times(bake_ratio)} fewer other things in the picture."
                if bake_ratio > 0
                else f", {link} changes nothing else in the picture."
            )
        else:
            link = "but" if tone == "good" else "and"
            sentence += f", {link} changes {times(bake_ratio)} as many other things in the picture."
    else:
        sentence += "."
    if tone == "bad":
        caveats = [
            *caveats,
            "Regularization did not help here: try a lower weight, more prior images or fewer updates.",
        ]
    shown: Tone = "good" if tone == "good" else "bad" if tone == "bad" else "even"
    return Verdict(sentence, shown, tuple(caveats))
