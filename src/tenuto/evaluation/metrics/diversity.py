"""PRES and DIV: is the class still itself without the trigger? DreamBooth (arXiv:2208.12242).

PRES = mean cosine of features of pictures drawn without the trigger with the user's own, less the base's at the same
       seeds: more than 0 means that the class turns into the concept
DIV  = mean (1 - cosine) of features over the pairs of pictures of one prompt, over the base's: less than 1 means that
       all pictures of the class look more alike. The paper takes LPIPS; this is the same question to an encoder.

The features are DINO's; where none was named, those that a tagger reads its answers from, if it has any. Each value
says whose: those of different encoders are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

from tenuto.evaluation.metrics.fidelity import alike, among
from tenuto.evaluation.readings import TAGGER_FEATURES, Evidence, Seen, Value

ROWS = ("without", "trained")
"""Without the trigger, and with it."""
ENCODERS = {"dino": "DINO", TAGGER_FEATURES: "the tagger's features"}
"""Who may read, and how it is called; the first that is there does."""


def pres(evidence: Evidence) -> Value:
    encoder = _encoder(evidence)
    if why := _lacks(evidence):
        return Value.none(why)
    real = evidence.real[encoder]
    arm, base = (alike(own["without"], real, encoder) for own in (evidence.arm, evidence.base))
    return Value(arm - base, detail={"arm": arm, "base": base, "read_by": ENCODERS[encoder]})


def div(evidence: Evidence) -> Value:
    encoder = _encoder(evidence)
    if why := _lacks(evidence):
        return Value.none(why)
    asked = evidence.asked["without"]
    base = spread(evidence.base["without"], asked, encoder)
    if not base:
        return Value.none("no prompt was drawn twice: it needs two noise seeds in comparison.seeds for each training")
    found = {row: spread(evidence.arm[row], asked, encoder) for row in ROWS if row in evidence.arm}
    return Value((found["without"] or 0.0) / base, detail={**found, "base": base, "read_by": ENCODERS[encoder]})


def spread(seen: Seen, asked: Sequence[tuple[str, ...]], encoder: str) -> float | None:
    """Mean 1 - cosine over the pairs of pictures of one prompt; None where no prompt has two."""
    values = []
    for prompt in dict.fromkeys(asked):
        cosine = among(seen.features[encoder][[n for n, other in enumerate(asked) if other == prompt]])
        values += [] if cosine is None else [1 - cosine]
    return sum(values) / len(values) if values else None


def _encoder(evidence: Evidence) -> str:
    """Who reads: DINO also where nobody does, for it is the one to be named."""
    return next((name for name in ENCODERS if name in evidence.real), "dino")


def _lacks(evidence: Evidence) -> str | None:
    for name in (_encoder(evidence), "trigger"):
        if name in evidence.missing:
            return evidence.missing[name]
    if _encoder(evidence) not in evidence.real or not ("without" in evidence.arm and "without" in evidence.base):
        return "no pictures without the trigger"
    return None
