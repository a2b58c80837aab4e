"""Small projects for tests of whole jobs: pictures, parts of project files, and waiting for what others do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

CONCEPT = """
[base]
model = "{model}"
[[concepts]]
name = "eyes"
images = "pictures"
"""
"""The head of a project file; what follows still belongs to the concept."""

COMPARISON = """
[comparison]
seeds = [0]
prompts = 1
drift_prompts = 2
states = 2
steps = 2
weights = [0.0, 1.0]
strip_prompts = 1
curve_weights = [0.5]
curve_checkpoints = 1
curve_prompts = 1
"""
"""The least that can be compared."""


def noise_pictures(folder: Path, sizes: Sequence[tuple[int, int]], captions: Sequence[str] = ()) -> Path:
    """Pictures that all differ, by number, with captions where there are any."""
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.effect_noise(size, 20 + 40 * number).convert("RGB").save(folder / f"{number}.png")
    for number, caption in enumerate(captions):
        (folder / f"{number}.txt").write_text(caption, encoding="utf-8")
    return folder


def plain_pictures(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """Pictures of one colour each, captioned "zxq, tag 0" and so on."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (60 * number, 90, 20)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zxq, tag {number}", encoding="utf-8")
    return folder


def until(true: Callable[[], object], seconds: float = 800) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
