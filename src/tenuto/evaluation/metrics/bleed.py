"""Style bleed: the set's own style where nobody asked for it.

P(the set's style) minus the base's over (a) prompts without the trigger, (b) the trigger with another style asked for,
(c) prompts of a second LoRA that is loaded as well
"""

from __future__ import annotations

import torch

from tenuto.evaluation.convnet import CONCEPTS
from tenuto.evaluation.metrics.concept import no_detector
from tenuto.evaluation.readings import Evidence, Seen, Value

PLACES = {"without": "a", "style": "b", "second": "c"}


def style_bleed(evidence: Evidence) -> Value:
    """The mean of those of (a), (b), (c) that were measured; each is listed. For a style concept: its own detector,
    without (b)."""
    if "tagger" in evidence.missing:
        return Value.none(evidence.missing["tagger"])
    rows = [row for row in PLACES if row in evidence.arm and row in evidence.base]
    if evidence.style_concept:
        if why := no_detector(evidence):
            return Value.none(why)
        group, tag, rows = CONCEPTS, str(evidence.concept), [row for row in rows if row != "style"]
    elif "style" not in evidence.own:
        return Value.none(
            evidence.missing.get("style", "the set has no one style: no style tag that most of its pictures share")
        )
    else:
        group, tag = "style", evidence.own["style"]
    parts = {PLACES[row]: extra(evidence.arm[row], evidence.base[row], evidence.asked[row], group, tag) for row in rows}
    found = [value for value in parts.values() if value is not None]
    if not found:
        return Value.none(f"every prompt asks for the set's own style, {tag}, so that none can show it unasked")
    return Value(sum(found) / len(found), detail={"style": tag, **parts})


def extra(arm: Seen, base: Seen, asked: tuple[tuple[str, ...], ...], group: str, tag: str) -> float | None:
    """Mean P(tag) minus the base's over prompts that do not ask for it; None when there is none or nobody can read
    it."""
    free = torch.tensor([tag not in tags for tags in asked])
    if tag not in arm.tags.get(group, ()) or not free.any():
        return None
    return float((arm.p(group, tag) - base.p(group, tag))[free].mean())
