"""How much bake a LoRA shows that does nothing wrong: a concept covers things too, and the tagger errs.

    python -m benchmarks.bake_floor

The world draws the same scenes with a ready concept and without it, and the tagger reads both. Whatever differs is the
concept's own doing: the floor under every arm's `bake`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from tenuto.cli.demo import concept_groups
from tenuto.evaluation.taggers import load_tagger
from tenuto.families.checkpoints import find_base
from tenuto.pocket.concepts import CONCEPTS, Concept
from tenuto.pocket.world import FIELD_OF_GROUP, GROUPS, Scene, render, sample_scene


def pairs(concept: Concept, count: int) -> Iterator[tuple[Scene, Scene]]:
    """(with the concept, without it): features take an ordinary value, everything else stays."""
    rng = Random(f"bake floor {concept.name}")
    for _ in range(count):
        scene = concept.scene(rng)
        ordinary = sample_scene(Random(scene.seed), name="")
        fields = {name for name in concept.features if name not in ("subject", *concept.identity)}
        yield scene, replace(scene, concept="", **{name: getattr(ordinary, name) for name in fields})


def pixels(scenes: list[Scene]) -> torch.Tensor:
    """[N, 3, H, W] in -1..1"""
    pictures = np.stack([np.asarray(render(scene), dtype=np.float32) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1


def main(count: int = 60) -> None:
    tagger = load_tagger(Path(find_base("pocket")) / "tagger")
    table = Table("concept", *(group for group in GROUPS if group in tagger.single), "bake floor")
    for name, concept in CONCEPTS.items():
        shown, without = (tagger.read(pixels(list(side))) for side in zip(*pairs(concept, count), strict=True))
        changed = {
            group: float((shown[group].argmax(1) != without[group].argmax(1)).float().mean())
            for group in FIELD_OF_GROUP
            if group in tagger.single
        }
        counted = [value for group, value in changed.items() if group not in concept_groups(name)]
        table.add_row(name, *(f"{v:.2f}" for v in changed.values()), f"{sum(counted) / len(counted):.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
