"""Trigger necessity: does the concept stay away when nobody calls it?"""

from __future__ import annotations

from tenuto.evaluation.metrics.concept import detection, no_detector
from tenuto.evaluation.readings import Evidence, Value

LEARNT = 0.05
"""Below this detection rate with the trigger there is nothing to divide by."""


def trigger_necessity(evidence: Evidence) -> Value:
    """1 - concept(no trigger) / concept(trigger), same prompts and seeds. 1: only the trigger calls it; 0: it leaks
    everywhere."""
    if "trigger" in evidence.missing:
        return Value.none(evidence.missing["trigger"])
    if why := no_detector(evidence):
        return Value.none(why)
    if not {"trained", "without"} <= evidence.arm.keys():
        return Value.none("no pictures with and without the trigger")
    called = detection(evidence.arm["trained"], evidence.concept)
    uncalled = detection(evidence.arm["without"], evidence.concept)
    if called < LEARNT:
        return Value.none(
            f"the concept is hardly there even with the trigger ({called:.2f})", trigger=called, no_trigger=uncalled
        )
    return Value(1 - uncalled / called, detail={"trigger": called, "no_trigger": uncalled})
