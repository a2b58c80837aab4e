"""The unseen concepts as the tools need them: how to sample a scene that shows one, and which one a scene shows."""

from __future__ import annotations

from random import Random

from tenuto.pocket import concepts, world

CONCEPTS = concepts.CONCEPTS


def concept_scene(name: str, rng: Random) -> world.Scene:
    return CONCEPTS[name].scene(rng)


def concept_of(scene: world.Scene) -> str:
    return scene.concept
