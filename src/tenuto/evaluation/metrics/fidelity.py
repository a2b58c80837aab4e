"""Fidelity: how like the user's pictures the LoRA draws.

DINO-I, CLIP-I = mean cosine of features, pictures drawn with the trigger against the user's own (DreamBooth,
arXiv:2208.12242). Beside it what the base comes to at the same prompts, and what real pictures come to among
themselves: the most that can be asked for. Values of different encoders are not comparable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tenuto.evaluation.readings import Evidence, Seen, Value

UNBIASED = ("style", "place", "view", "subject")


def dino_i(evidence: Evidence) -> Value:
    return _likeness(evidence, "dino")


def clip_i(evidence: Evidence) -> Value:
    return _likeness(evidence, "clip")


def _likeness(evidence: Evidence, encoder: str) -> Value:
    if encoder in evidence.missing:
        return Value.none(evidence.missing[encoder])
    real = evidence.real.get(encoder)
    if real is None or "trained" not in evidence.arm:
        return Value.none("no pictures of the user's to compare with")
    elsewhere = [evidence.arm[row] for row in UNBIASED if row in evidence.arm]
    return Value(
        alike(evidence.arm["trained"], real, encoder),
        detail={
            "base": alike(evidence.base["trained"], real, encoder) if "trained" in evidence.base else None,
            "elsewhere": alike(Seen.join(elsewhere), real, encoder) if elsewhere else None,
            "real": among(real),
        },
    )


def alike(seen: Seen, real: Tensor, encoder: str) -> float:
    """Mean cosine of every drawn picture with every real one."""
    return float((seen.features[encoder] @ real.T).mean())


def among(features: Tensor) -> float | None:
    """Mean cosine over the pairs of different pictures; None where there are no two."""
    count = len(features)
    if count < 2:
        return None
    cosines = features @ features.T
    return float(cosines[~torch.eye(count, dtype=torch.bool)].mean())
