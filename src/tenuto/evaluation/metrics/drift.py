"""Drift nD: how far predictions moved from the base, as a share of the prompt's own effect.

    nD = sum |f_th - f_0|^2 / sum |g|^2        g = f_0(c) - f_0(u)        both sums over the same (x_t, t, c)

An energy ratio: nD = .10 is 32 % in amplitude. Ratios are never averaged per state. The empty
prompt has g = 0 and is divided by the other prompts' mean |g|^2 in its bin of t. In four bins of t a denominator
counts as at
least BIN_FLOOR of the average bin's, because g is near 0 at low noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tenuto.evaluation.readings import Evidence, Gap, Value

BINS = 4
BIN_FLOOR = 0.01

Part = Callable[[Gap], float]


def bin_of(t: float) -> int:
    """Which of the equal bins of t, 0 (clean) .. BINS - 1 (noise)."""
    return min(int(t * BINS), BINS - 1)


def effect_by_bin(gaps: Sequence[Gap]) -> list[float]:
    """Mean |g|^2 of the prompts that are not empty, per bin of t; the mean of all where a bin has none."""
    asked = [gap for gap in gaps if gap.kind != "empty"]
    everywhere = sum(gap.g for gap in asked) / len(asked) if asked else 0.0
    means = []
    for number in range(BINS):
        inside = [gap.g for gap in asked if bin_of(gap.t) == number]
        means.append(sum(inside) / len(inside) if inside else everywhere)
    return means


def sums(gaps: Sequence[Gap], moved: Part, effects: Sequence[float]) -> tuple[float, float]:
    """(sum of what moved, sum of the prompts' effect) over these states."""
    effect = sum(effects[bin_of(gap.t)] if gap.kind == "empty" else gap.g for gap in gaps)
    return sum(moved(gap) for gap in gaps), effect


def ratio(gaps: Sequence[Gap], moved: Part = lambda gap: gap.d) -> float | None:
    """The pooled nD of these states; None when no prompt has an effect."""
    above, below = sums(gaps, moved, effect_by_bin(gaps))
    return above / below if below > 0 else None


def by_bin(gaps: Sequence[Gap]) -> list[float | None]:
    """nD inside each bin of t, with the floored denominator."""
    effects = effect_by_bin(gaps)
    parts = [
        sums([gap for gap in gaps if bin_of(gap.t) == number], lambda gap: gap.d, effects) for number in range(BINS)
    ]
    floor = BIN_FLOOR * sum(below for _, below in parts) / BINS
    return [above / max(below, floor) if below > 0 else None for above, below in parts]


def quantile(values: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics (type 7)."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def by_prompt(gaps: Sequence[Gap]) -> dict[str, float]:
    """Each prompt's own pooled nD."""
    effects = effect_by_bin(gaps)
    parts = {
        name: sums([g for g in gaps if g.prompt == name], lambda gap: gap.d, effects)
        for name in {g.prompt for g in gaps}
    }
    return {name: above / below for name, (above, below) in parts.items() if below > 0}


def drift(evidence: Evidence) -> Value:
    """nD pooled over all test states; beside it the worst bin, p95 over prompts, and near, far and empty prompts
    apart."""
    if not evidence.gaps:
        return Value.none(evidence.missing.get("drift", "no predictions were compared"))
    if evidence.style_concept and "trigger" in evidence.missing:
        return Value.none("a style without a trigger: the concept itself is a drift")
    pooled = ratio(evidence.gaps)
    if pooled is None:
        return Value.none("the base's prompts have no effect of their own")
    bins = by_bin(evidence.gaps)
    effects = effect_by_bin(evidence.gaps)
    kinds = {}
    for kind in ("near", "far", "empty"):
        above, below = sums([gap for gap in evidence.gaps if gap.kind == kind], lambda gap: gap.d, effects)
        kinds[kind] = above / below if below > 0 else None
    size = sum(gap.f_th for gap in evidence.gaps), sum(gap.f_0 for gap in evidence.gaps)
    return Value(
        max(pooled - evidence.floor, 0.0),
        detail={
            "p95": quantile(list(by_prompt(evidence.gaps).values()), 0.95),
            "bins": bins,
            "worst_bin": max((value for value in bins if value is not None), default=None),
            "floor": evidence.floor,
            **kinds,
            "norm_ratio": (size[0] / size[1]) ** 0.5 if size[1] > 0 else None,
            "states": len(evidence.gaps),
        },
    )


def guided_drift(evidence: Evidence) -> Value:
    """sum |w d_c - (w - 1) d_u|^2 / sum |w g|^2 at the user's guidance w: what the sampler sees."""
    asked = [gap for gap in evidence.gaps if gap.kind != "empty"]
    effect = sum(gap.g for gap in asked)
    if effect <= 0:
        return Value.none(evidence.missing.get("drift", "no predictions were compared"))
    w = evidence.guidance
    value = sum(gap.dg for gap in asked) / (w * w * effect)
    parts = {"d_c": sum(gap.d for gap in asked) / effect, "d_u": sum(gap.du for gap in asked) / effect}
    return Value(value, detail={"guidance": w, **parts})
