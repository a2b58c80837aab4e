"""Bake: with the trigger, what changes besides the concept.

per group: share of pictures whose reading differs between the arm with the trigger and the base without it (same
seed, same prompt) and        P(the set's own tag) minus the base's, over prompts that do not ask for that tag
"""

from __future__ import annotations

import torch

from tenuto.evaluation.readings import Evidence, Seen, Value

ROWS = ("trained", "style", "place", "view", "subject")


def bake(evidence: Evidence) -> Value:
    """Mean over the groups that the concept may not change, of the share of readings that changed."""
    if "tagger" in evidence.missing:
        return Value.none(evidence.missing["tagger"])
    rows = [row for row in ROWS if row in evidence.arm and row in evidence.base]
    if not rows:
        return Value.none("no pictures with the trigger")
    arm, base = Seen.join([evidence.arm[r] for r in rows]), Seen.join([evidence.base[r] for r in rows])
    asked = [tags for row in rows for tags in evidence.asked[row]]
    groups = [name for name in arm.tags if name != "concepts" and name not in evidence.concept_groups]
    if not groups:
        return Value.none("the tagger reads no group that the concept should leave alone")
    changes = {group: changed(arm, base, group) for group in groups}
    floor = None
    if "trigger" in evidence.base and "trained" in evidence.base:
        floor = sum(changed(evidence.base["trigger"], evidence.base["trained"], g) for g in groups) / len(groups)
    towards = {group: pull(arm, base, asked, group, tag) for group, tag in evidence.own.items() if group in groups}
    return Value(
        sum(changes.values()) / len(changes),
        detail={"groups": changes, "towards_set": towards, "own": dict(evidence.own), "base_with_trigger": floor},
    )


def changed(arm: Seen, base: Seen, group: str) -> float:
    """Share of pictures whose reading of this group differs; where several tags may hold, the share of all tags."""
    return float((arm.reading(group) != base.reading(group)).float().mean())


def pull(arm: Seen, base: Seen, asked: list[tuple[str, ...]], group: str, tag: str) -> float | None:
    """Mean P(the set's own tag) minus the base's, where the prompt does not ask for it. None: all prompts ask for
    it."""
    free = torch.tensor([tag not in tags for tags in asked])
    if tag not in arm.tags.get(group, ()) or not free.any():
        return None
    return float((arm.p(group, tag) - base.p(group, tag))[free].mean())
