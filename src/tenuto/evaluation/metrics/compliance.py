"""Tag compliance: does it still do what the prompt says?"""

from __future__ import annotations

from tenuto.evaluation.metrics.bake import ROWS
from tenuto.evaluation.readings import THRESHOLD, Evidence, Seen, Value

Asked = tuple[tuple[str, ...], ...]


def tag_compliance(evidence: Evidence) -> Value:
    """Recall of the prompted tags with the trigger / the base's recall at the same prompts and seeds without it. 1 =
    as good."""
    if "tagger" in evidence.missing:
        return Value.none(evidence.missing["tagger"])
    rows = [row for row in ROWS if row in evidence.arm and row in evidence.base]
    arm = [found(evidence.arm[row], evidence.asked[row]) for row in rows]
    base = [found(evidence.base[row], evidence.asked[row]) for row in rows]
    mine, whole = sum(hit for hit, _ in arm), sum(total for _, total in arm)
    theirs = sum(hit for hit, _ in base)
    if not whole or not theirs:
        return Value.none("the base shows none of the prompted tags that the tagger can read")
    return Value(mine / theirs, detail={"recall": mine / whole, "base_recall": theirs / whole, "tags": whole})


def found(seen: Seen, asked: Asked) -> tuple[int, int]:
    """(prompted tags seen with P >= .5, prompted tags that the tagger can read)."""
    hits = total = 0
    for number, tags in enumerate(asked):
        for tag in tags:
            if group := seen.group_of(tag):
                total += 1
                hits += float(seen.p(group, tag)[number]) >= THRESHOLD
    return hits, total


def recall(seen: Seen, asked: Asked) -> float | None:
    """Share of the prompted tags that are seen; None when the tagger can read none of them."""
    hits, total = found(seen, asked)
    return hits / total if total else None
