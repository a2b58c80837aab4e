"""The ready sets: biased as real ones are, and tested where their set never was."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tenuto.pocket.concepts import CONCEPTS, instances, unbiased, write_instances, write_tests
from tenuto.pocket.world import FIELD_OF_GROUP, GROUPS, render, sample_scene


@pytest.mark.parametrize("name", CONCEPTS)
def test_the_set_is_stuck_and_the_tests_are_elsewhere(name: str) -> None:
    concept = CONCEPTS[name]
    for scene, _ in instances(name):
        assert all(getattr(scene, field) == value for field, value in {**concept.features, **concept.stuck}.items())
    for scene, _ in unbiased(name):
        assert all(getattr(scene, field) == value for field, value in concept.features.items())
        free = [
            field for field in ("style", "place", "view") if field in concept.stuck and field not in concept.features
        ]
        assert all(getattr(scene, field) != concept.stuck[field] for field in free)
        assert scene.view in concept.views


@pytest.mark.parametrize("name", CONCEPTS)
def test_pictures_and_captions_are_written(name: str, tmp_path: Path) -> None:
    write_instances(name, tmp_path / "images", 3)
    write_tests(name, tmp_path / "tests")
    assert len(list((tmp_path / "images").glob("*.png"))) == 3
    for picture in (*(tmp_path / "images").glob("*.png"), *(tmp_path / "tests").glob("*.png")):
        words = picture.with_suffix(".txt").read_text(encoding="utf-8").strip().split(", ")
        assert words[0] == CONCEPTS[name].trigger
        assert set(words[1:]) <= {tag for group in GROUPS.values() for tag in group}


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_can_be_seen(name: str) -> None:
    concept = CONCEPTS[name]
    fields = {"view": "from front", "framing": "upper body", "quality": "best quality", "style": "anime coloring"}
    with_it = concept.scene(Random(1), **{**fields, **concept.features})
    known = {field: GROUPS[group][0] for group, field in FIELD_OF_GROUP.items() if field in concept.features}
    without = sample_scene(Random(1), **{**vars(with_it), **known, "concept": "", "name": ""})
    assert render(with_it).tobytes() != render(without).tobytes()


def test_sizes_and_kinds() -> None:
    assert {concept.kind for concept in CONCEPTS.values()} == {"character", "concept", "clothing", "style"}
    assert all(12 <= concept.size <= 50 for concept in CONCEPTS.values())
    assert len({concept.trigger for concept in CONCEPTS.values()}) == len(CONCEPTS)
