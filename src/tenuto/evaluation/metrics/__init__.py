"""The metrics: one small file each. A new one is a file with one function of Evidence, and a line in METRICS."""

from __future__ import annotations

from collections.abc import Callable

from tenuto.evaluation.metrics.additivity import additivity
from tenuto.evaluation.metrics.alignment import clip_t
from tenuto.evaluation.metrics.bake import bake
from tenuto.evaluation.metrics.bleed import style_bleed
from tenuto.evaluation.metrics.compliance import tag_compliance
from tenuto.evaluation.metrics.concept import concept_strength, fit, gain
from tenuto.evaluation.metrics.diversity import div, pres
from tenuto.evaluation.metrics.drift import drift, guided_drift
from tenuto.evaluation.metrics.fidelity import clip_i, dino_i
from tenuto.evaluation.metrics.necessity import trigger_necessity
from tenuto.evaluation.metrics.selectivity import selectivity
from tenuto.evaluation.metrics.slider import usable_weight
from tenuto.evaluation.readings import Evidence, Value

Metric = Callable[[Evidence], Value]

METRICS: dict[str, Metric] = {
    "concept_strength": concept_strength,
    "drift": drift,
    "bake": bake,
    "style_bleed": style_bleed,
    "tag_compliance": tag_compliance,
    "trigger_necessity": trigger_necessity,
    "usable_weight": usable_weight,
    "guided_drift": guided_drift,
    "selectivity": selectivity,
    "gain": gain,
    "fit": fit,
    "dino_i": dino_i,
    "clip_i": clip_i,
    "clip_t": clip_t,
    "pres": pres,
    "div": div,
    "additivity": additivity,
}
