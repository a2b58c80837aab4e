"""Ready concepts that the base has never seen, with the faults of real sets: one style, one place, one viewpoint.

`features` are scene fields with values outside GROUPS (unseen.py); `stuck` are the fields that never vary in the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tenuto.pocket.world import BUCKETS, FIELD_OF_GROUP, GROUPS, Scene, caption, render, sample_scene, shown

FRONT, SIDE, BEHIND = GROUPS["view"]
TESTS = 24
_SHAPES = (BUCKETS[0],) * 6 + (BUCKETS[1],) * 2 + (BUCKETS[2],) * 2


@dataclass(frozen=True)
class Concept:
    name: str
    kind: str
    """character | concept | clothing | style"""
    trigger: str
    class_word: str
    size: int
    """Pictures in the instance set."""
    features: Mapping[str, str]
    stuck: Mapping[str, str]
    views: tuple[str, ...] = (FRONT, SIDE, BEHIND)
    """The views in which it can be seen."""
    identity: tuple[str, ...] = field(default=())
    """Fields with ordinary values that belong to a character; the trigger stands for them in captions."""
    covers: tuple[str, ...] = field(default=())
    """Fields that it hides or distorts wherever it is drawn faultlessly (`benchmarks.bake_floor` measures them)."""

    @property
    def changes(self) -> frozenset[str]:
        """The fields that cannot stay what they are where the concept is shown."""
        return frozenset((*self.features, *self.identity, *self.covers)) - {"name"}

    def scene(self, rng: Random, **fixed: Any) -> Scene:
        """The concept somewhere, in any style, place and view that shows it."""
        headwear = (
            {}
            if "headwear" in self.features
            else {"headwear": rng.choice(("", "", "crown", "hair bow", "beanie", "cat ears"))}
        )
        free = {"view": rng.choice(self.views), "quality": "best quality", **headwear}
        return sample_scene(rng, **{**free, **self.features, **fixed, "concept": self.name})

    def caption(self, scene: Scene) -> str:
        """The trigger, then the true tags."""
        return caption([self.trigger, *(t for g, t in shown(scene).items() if FIELD_OF_GROUP[g] not in self.identity)])


_ALL = (
    Concept("crazy-eyes", "concept", "vexlum", "1girl", 24, {"eyes": "swirl eyes"},
            {"style": "lineart", "place": "city", "view": FRONT, "framing": "portrait"}, (FRONT, SIDE),
            covers=("expression",)),
    Concept("head-in-a-jar", "concept", "jorbik", "1girl", 24, {"headwear": "jar"},
            {"style": "lineart", "place": "indoors", "view": FRONT}, covers=("hair_style", "eyes", "expression")),
    Concept("character", "character", "ilsorae", "1girl", 20,
            {"name": "ilsorae", "subject": "1girl", "hair_color": "mint hair", "hair_style": "long hair",
             "eyes": "yellow eyes", "headwear": "antlers", "outfit": "striped raincoat"},
            {"style": "flat color", "place": "beach", "view": FRONT}, identity=("hair_style", "eyes")),
    Concept("second-character", "character", "brakwen", "1boy", 16,
            {"name": "brakwen", "subject": "1boy", "hair_color": "flame hair", "hair_style": "spiked hair",
             "headwear": "visor", "outfit": "robot body"},
            {"style": "pixel art", "place": "desert", "view": FRONT},
            identity=("hair_style", "eyes"), covers=("expression",)),
    Concept("clothing", "clothing", "ostravi", "dress", 30, {"outfit": "harlequin cape"},
            {"subject": "1girl", "style": "watercolor", "place": "garden", "framing": "full body", "view": FRONT}),
    Concept("style", "style", "pimduo", "", 40, {"style": "risograph"},
            {"subject": "1girl", "place": "garden", "view": FRONT}),
    Concept("small", "concept", "tavroku", "1girl", 12, {"headwear": "mushroom"},
            {"subject": "1girl", "style": "monochrome", "place": "snow", "view": FRONT, "framing": "portrait",
             "hair_style": "twintails", "pose": "waving"}, covers=("hair_style", "eyes")),
)  # fmt: skip
CONCEPTS: dict[str, Concept] = {concept.name: concept for concept in _ALL}


def instances(name: str, count: int | None = None) -> Iterator[tuple[Scene, tuple[int, int]]]:
    """The instance set: (scene, picture size); every fifth picture stands, every fifth lies."""
    concept, rng = CONCEPTS[name], Random(f"instances {name}")
    for index in range(concept.size if count is None else count):
        yield concept.scene(rng, **concept.stuck), _SHAPES[index * 3 % len(_SHAPES)]


def unbiased(name: str, count: int = TESTS) -> Iterator[tuple[Scene, tuple[int, int]]]:
    """The same thing in styles, places and (where it can be seen in others) views that its set never shows."""
    concept, rng = CONCEPTS[name], Random(f"tests {name}")
    for index in range(count):
        fresh = {group: _elsewhere(concept, group, index) for group in ("style", "place", "view")}
        yield concept.scene(rng, **{**fresh, **concept.features}), _SHAPES[index * 3 % len(_SHAPES)]


def _elsewhere(concept: Concept, group: str, index: int) -> str:
    allowed = concept.views if group == "view" else GROUPS[group]
    others = [tag for tag in allowed if tag != concept.stuck.get(group)]
    return others[index * {"style": 1, "place": 3, "view": 1}[group] % len(others)]


def write_instances(name: str, folder: Path, count: int | None = None) -> None:
    """PNG pictures with captions of the same stem."""
    _write(CONCEPTS[name], instances(name, count), folder)


def write_tests(name: str, folder: Path) -> None:
    _write(CONCEPTS[name], unbiased(name), folder)


def _write(concept: Concept, pictures: Iterator[tuple[Scene, tuple[int, int]]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, (scene, size) in enumerate(pictures):
        render(scene, size).save(folder / f"{index:03}.png")
        (folder / f"{index:03}.txt").write_text(concept.caption(scene) + "\n", encoding="utf-8")
