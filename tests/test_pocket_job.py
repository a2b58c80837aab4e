"""The whole job on the checkpoint that ships, small: every number of the comparison is a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from tenuto.cli.demo import SETTINGS, concept_groups, write_demo, write_set
from tenuto.evaluation.record import Comparison
from tenuto.pocket.concepts import CONCEPTS
from tenuto.project.file import load_project
from tenuto.work.compare import run_project
from tenuto.work.prepare import audited, prepare

NAME = "head-in-a-jar"
SMALL: dict[str, Any] = {
    **SETTINGS,
    "arms": {"seeds": [0]},
    "prior": {"per_image": 2, "ratio": 0.5, "store": "store", "sampler": {"steps": 4}},
    "training": {**SETTINGS["training"], "steps": 4, "batch": 2, "save_every": 2, "watch_every": 4},
    "comparison": {
        **SETTINGS["comparison"],
        "prompts": 1,
        "drift_prompts": 2,
        "states": 2,
        "steps": 3,
        "weights": [0.0, 1.0, 2.0],
        "strip_prompts": 2,
        "curve_checkpoints": 1,
        "curve_prompts": 5,  # more than rows have
        "concept_groups": concept_groups(NAME),
    },
}


def test_the_demo_warns_of_nothing_and_costs_little(tmp_path: Path) -> None:
    prepared = prepare(load_project(write_demo(tmp_path)))
    report = audited(prepared)
    assert (report.errors, report.warnings) == ((), ())
    rows = prepared.project.training.steps * prepared.project.training.batch
    prior_rows = rows * prepared.ratios[NAME]
    assert prepared.plan.forwards + 2 * prior_rows < 0.25 * 2 * rows


def test_every_number_of_the_comparison(tmp_path: Path) -> None:
    write_set(NAME, tmp_path / "data", 4)
    concept = CONCEPTS[NAME]
    own = {
        "name": NAME, "kind": concept.kind, "images": "data/images", "test_images": "data/tests",
        "trigger": concept.trigger, "class_word": concept.class_word,
    }  # fmt: skip
    (tmp_path / "project.toml").write_text(tomli_w.dumps({**SMALL, "concepts": [own]}))
    (report,) = run_project(load_project(tmp_path / "project.toml"), tmp_path / "run")
    comparison = Comparison.load(report.parent / "comparison.json")
    for arm in ("plain", "held"):
        numbers = comparison.arms[arm]
        for name in ("concept_strength", "drift", "bake", "style_bleed", "tag_compliance", "usable_weight", "gain"):
            assert numbers[name].mean is not None, (arm, name, numbers[name].reason)
        assert numbers["seconds"].mean > 0
        assert numbers["forwards"].mean > 0
    page = report.read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert concept.trigger in page
