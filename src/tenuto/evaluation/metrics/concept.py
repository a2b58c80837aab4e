"""Concept strength (unbiased), gain (unbiased) and fit (biased)."""

from __future__ import annotations

from tenuto.evaluation.convnet import CONCEPTS
from tenuto.evaluation.readings import Evidence, Seen, Value

UNBIASED = ("style", "place", "view", "subject")
"""Rows that ask for the concept where the set never showed it."""


def concept_strength(evidence: Evidence) -> Value:
    """Mean probability of the concept's detector on pictures that ask for it in styles, places, views and on subjects
    that the set does not have. Each picture counts once. The number to match arms on: it does not reward bake."""
    if why := no_detector(evidence):
        return Value.none(why)
    rows = {row: detection(evidence.arm[row], evidence.concept) for row in UNBIASED if row in evidence.arm}
    if not rows:
        return Value.none(
            "no prompt could take the concept out of its set: no bank group for style, place, view or subject"
        )
    return Value(
        detection(Seen.join([evidence.arm[row] for row in rows]), evidence.concept),
        detail={
            "rows": rows,
            "as_trained": detection(evidence.arm["trained"], evidence.concept) if "trained" in evidence.arm else None,
            "base": detection(evidence.base["trigger"], evidence.concept) if "trigger" in evidence.base else None,
        },
    )


def detection(seen: Seen, concept: str | None) -> float:
    """Mean probability that the concept is there."""
    return float(seen.p(CONCEPTS, str(concept)).mean())


def no_detector(evidence: Evidence) -> str | None:
    """Why there is no reading of the concept, or None."""
    if "tagger" in evidence.missing:
        return evidence.missing["tagger"]
    return None if evidence.concept else evidence.missing.get("detector", "the tagger has no detector for this concept")


def gain(evidence: Evidence) -> Value:
    """mean(loss_base - loss_arm) on pictures of the concept in styles, places and views that the set does not have."""
    value = evidence.unbiased.gain()
    if value is None:
        return Value.none(evidence.missing.get("test_images", "no unbiased test pictures of this concept"))
    return Value(value, detail={"pictures": len(evidence.unbiased.base)})


def fit(evidence: Evidence) -> Value:
    """mean(loss_base - loss_arm) on instance pictures kept out of training. It rewards bake: never match arms on it.

    memorisation = the same on training pictures - this.
    """
    value, train = evidence.held_out.gain(), evidence.train.gain()
    if value is None:
        return Value.none(evidence.missing.get("held_out", "no instance picture was kept out of training"), train=train)
    return Value(value, detail={"train": train, "memorisation": None if train is None else train - value})
