"""Stage 1: pictures of the world and what is on them, drawn by worker processes into files that are read as needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from random import Random

import numpy as np
from tools.pocket.common import BUCKETS, Bench, Size, name_of

from tenuto.pocket import world

CHUNK = 250
NAMED = 1 / 6
"""Share of pictures that show a named character."""


def sample(rng: Random) -> world.Scene:
    return world.sample_named(rng) if rng.random() < NAMED else world.sample_scene(rng)


def describe(scene: world.Scene, head: tuple[float, float, float]) -> dict[str, object]:
    """What training is told: the visible tags, which of them the name stands for, and where the head is."""
    known = world.shown(scene)
    own = [
        tag for group, tag in known.items() if world.FIELD_OF_GROUP[group] in world.NAMED_FIELDS and group != "subject"
    ]
    return {
        "tags": list(known.values()),
        "name": scene.name,
        "implied": own if scene.name else [],
        "quality": scene.quality,
        "head": [round(value, 1) for value in head],
    }


def chunk(size: Size, light: bool, first: int, count: int) -> tuple[np.ndarray, list[str]]:
    """`count` pictures and caption lines. Every picture has its own seed, so any chunk can be drawn again alone."""
    pictures, lines = [], []
    for index in range(first, first + count):
        rng = Random(f"pocket {name_of(size)} {index}")
        scene = sample(rng)
        picture, head = world.drawn(scene, size, light)
        pictures.append(np.asarray(picture, dtype=np.uint8))
        lines.append(json.dumps(describe(scene, head)))
    return np.stack(pictures), lines


def chunks(
    size: Size, light: bool, count: int, pool: ProcessPoolExecutor
) -> Iterator[tuple[int, np.ndarray, list[str]]]:
    starts = range(0, count, CHUNK)
    counts = [min(CHUNK, count - start) for start in starts]
    for start, (pictures, lines) in zip(starts, pool.map(partial(chunk, size, light), starts, counts), strict=True):
        yield start, pictures, lines


def render(bench: Bench, count: int, workers: int, light: bool = False) -> None:
    """All buckets, with light and shade if asked. What is there is left alone; half a bucket is drawn again."""
    with ProcessPoolExecutor(workers) as pool:
        for size, share in BUCKETS.items():
            wanted = round(count * share)
            final, half = (
                bench.file(f"pictures-{name_of(size)}.npy"),
                bench.file(f"pictures-{name_of(size)}.partial"),
            )
            if final.exists():
                continue
            memory = np.lib.format.open_memmap(half, "w+", np.uint8, (wanted, size[1], size[0], 3))
            lines: list[str] = []
            for start, pictures, more in chunks(size, light, wanted, pool):
                memory[start : start + len(pictures)] = pictures
                lines += more
            memory.flush()
            bench.file(f"captions-{name_of(size)}.jsonl").write_text("\n".join(lines) + "\n")
            half.replace(final)
            bench.log("render", f"{wanted} pictures of {name_of(size)}")


def fresh(size: Size, count: int, seed: str) -> tuple[np.ndarray, list[world.Scene]]:
    """Pictures that no training has seen."""
    rng = Random(seed)
    scenes = [world.sample_scene(rng) for _ in range(count)]
    return np.stack([np.asarray(world.render(scene, size), dtype=np.uint8) for scene in scenes]), scenes
