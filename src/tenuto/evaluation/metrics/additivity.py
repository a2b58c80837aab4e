"""Additivity: do two LoRAs add up, or does one disturb the other?

    error = sum |d_ij - d_i - d_j|^2 / sum (|d_i|^2 + |d_j|^2)        d = f - f_0, alone (i, j) and together (ij)

Both sums over the same states (x_t, t, c), those of every few-th prompt that drift is measured at. 0: together they do
what each does alone; .5: one of two equal ones has no effect beside the other; 1: two that have nothing in common
cancel each other. A low error says nothing about what the two do together: effects that add up can still be opposed.
It is a share of both effects, so that a strong LoRA beside a weak one has a low error however much it disturbs that
one: the same over the second one's own effect tells it.
"""

from __future__ import annotations

from tenuto.evaluation.readings import Evidence, Value


def additivity(evidence: Evidence) -> Value:
    """Both LoRAs at full weight, prompts without their triggers; beside it this LoRA's share of the two effects, and
    how much of the second one's it disturbs."""
    if not evidence.pairs:
        return Value.none(evidence.missing.get("second", "no predictions were compared"))
    own, other = sum(pair.own for pair in evidence.pairs), sum(pair.other for pair in evidence.pairs)
    if own + other <= 0:
        return Value.none("neither of the two LoRAs changes any prediction")
    apart = sum(pair.apart for pair in evidence.pairs)
    detail = {"share": own / (own + other), "states": len(evidence.pairs)}
    return Value(apart / (own + other), detail=detail | ({"disturbed": apart / other} if other > 0 else {}))
