"""The picture world: the same scene gives the same picture, and what its tags say is true."""

from __future__ import annotations

from math import prod
from random import Random

import numpy as np
import pytest

from tenuto.pocket.concepts import CONCEPTS
from tenuto.pocket.world import (
    BUCKETS,
    FIELD_OF_GROUP,
    GROUPS,
    NAMED_FIELDS,
    Scene,
    characters,
    render,
    sample_named,
    sample_scene,
    shown,
    tags,
)

SCENES = [sample_scene(Random(seed)) for seed in range(200)] + [sample_named(Random(seed)) for seed in range(200)]


@pytest.mark.parametrize("size", BUCKETS)
def test_rendering_is_deterministic(size: tuple[int, int]) -> None:
    first, again = render(SCENES[3], size), render(SCENES[3], size)
    assert first.size == size
    assert first.mode == "RGB"
    assert np.array_equal(np.asarray(first), np.asarray(again))


@pytest.mark.parametrize("group", GROUPS)
def test_every_tag_of_a_group_changes_the_picture(group: str) -> None:
    plain = dict.fromkeys(("seed",), 7) | {
        "pose": "standing",
        "headwear": "",
        "view": "from front",
        "quality": "best quality",
    }
    plain |= {"framing": "upper body", "expression": "smile", "style": "anime coloring"}
    pictures = {
        render(sample_scene(Random(0), **{**plain, FIELD_OF_GROUP[group]: tag})).tobytes() for tag in GROUPS[group]
    }
    assert len(pictures) == len(GROUPS[group])


def test_at_most_one_tag_of_each_group_and_each_is_the_scenes_own() -> None:
    for scene in SCENES:
        for group, tag in shown(scene).items():
            assert tag in GROUPS[group]
            assert tag == getattr(scene, FIELD_OF_GROUP[group])
        assert len(set(tags(scene))) == len(tags(scene))


def test_what_cannot_be_seen_is_not_said() -> None:
    hidden = {"from behind": {"eyes", "expression"}}
    for scene in SCENES:
        said = set(shown(scene))
        assert not said & hidden.get(scene.view, set())
        assert scene.style not in ("lineart", "sketch", "monochrome") or not said & {"hair color", "eyes"}
        assert scene.expression != "closed eyes" or "eyes" not in said


def test_no_tag_belongs_to_two_groups_and_the_world_is_large() -> None:
    every = [tag for group in GROUPS.values() for tag in group]
    assert len(set(every)) == len(every)
    assert prod(len(group) for group in GROUPS.values()) >= 10**6


def test_concept_features_and_triggers_never_occur_in_base_scenes() -> None:
    known = {value for group in GROUPS.values() for value in group} | {""}
    drawn = {getattr(scene, field) for scene in SCENES for field in FIELD_OF_GROUP.values()}
    assert drawn <= known
    assert not any(scene.concept for scene in SCENES)
    words = {word for name in characters() for word in name.split()} | known
    assert not words & {concept.trigger for concept in CONCEPTS.values()}


def test_a_name_always_has_the_same_attributes() -> None:
    for scene in SCENES[200:]:
        assert {field: getattr(scene, field) for field in NAMED_FIELDS} == characters()[scene.name]


def test_scenes_are_values() -> None:
    assert isinstance(SCENES[0], Scene)
    assert SCENES[0] == sample_scene(Random(0))


def test_the_second_bases_pictures_show_the_same_in_another_light() -> None:
    for scene in SCENES[:20]:
        usual, lit = (np.asarray(render(scene, light=light), dtype=float) for light in (False, True))
        assert np.abs(usual - lit).mean() > 2
    flat = sample_scene(Random(3), style="flat color", quality="best quality", place="snow")
    usual, lit = (np.asarray(render(flat, light=light)).reshape(-1, 3) for light in (False, True))
    assert len(np.unique(lit, axis=0)) > 2 * len(np.unique(usual, axis=0)), "fills are no longer of one colour"
