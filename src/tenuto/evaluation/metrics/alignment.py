"""CLIP-T: does it still draw what the words say?

Mean cosine of CLIP's features of each picture and of its prompt without the trigger, over the rows near the set; beside
it the base's at the same prompts and seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tenuto.evaluation.metrics.bake import ROWS
from tenuto.evaluation.readings import Evidence, Seen, Value


def clip_t(evidence: Evidence) -> Value:
    if "clip" in evidence.missing:
        return Value.none(evidence.missing["clip"])
    rows = [row for row in ROWS if row in evidence.arm and row in evidence.base and row in evidence.prompts]
    if not rows:
        return Value.none("no pictures with the trigger")
    return Value(
        _mean(evidence, evidence.arm, rows), detail={"base": _mean(evidence, evidence.base, rows), "rows": rows}
    )


def _mean(evidence: Evidence, seen: Mapping[str, Seen], rows: Sequence[str]) -> float:
    cosines = [(seen[row].features["clip"] * evidence.prompts[row]).sum(dim=1) for row in rows]
    return float(torch.cat(cosines).mean())
