"""The prior plan: every image that a prior set will hold, known before the first is made.

Images are named by what decides them, so a larger pool contains the smaller one: x50 starts with the x8 it extends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenuto.families.sampling import SamplerSettings
from tenuto.files import hash_text
from tenuto.randomness import seed_for
from tenuto.words import Size


class Prompt(Protocol):
    """What the plan needs of a prior prompt (prompts.py makes them)."""

    @property
    def text(self) -> str: ...
    @property
    def concept(self) -> str: ...
    @property
    def bucket(self) -> Size: ...
    @property
    def source(self) -> str: ...
    @property
    def copy(self) -> int: ...
    @property
    def caption(self) -> str: ...


@dataclass(frozen=True)
class PlannedImage:
    """One prior image to be made."""

    id: str
    concept: str
    bucket: Size
    prompt: str
    caption: str
    """What a row of it is trained with; the image does not depend on it."""
    negative: str
    seed: int
    source: str
    """Id of the instance item whose caption the prompt came from."""


@dataclass(frozen=True)
class PriorPlan:
    """All images of a set, in the order in which they are made, and how they are sampled."""

    images: tuple[PlannedImage, ...]
    sampler: SamplerSettings
    batch: int
    """Images that are sampled together; it belongs to the plan, for it moves the last bits."""

    @property
    def forwards(self) -> int:
        """Forwards of the denoiser for the whole set."""
        return len(self.images) * self.sampler.forwards()

    def batches(self, chunks: Callable[[str], int]) -> list[tuple[PlannedImage, ...]]:
        """Images that are sampled together: one bucket, one number of text passes, at most `batch`."""
        groups: dict[tuple[Size, int], list[PlannedImage]] = {}
        for image in self.images:
            passes = max(chunks(image.prompt), chunks(image.negative))
            groups.setdefault((image.bucket, passes), []).append(image)
        return [
            tuple(group[start : start + self.batch])
            for group in groups.values()
            for start in range(0, len(group), self.batch)
        ]

    def counts(self) -> dict[tuple[str, Size], int]:
        """Images per concept and bucket."""
        found: dict[tuple[str, Size], int] = {}
        for image in self.images:
            found[image.concept, image.bucket] = found.get((image.concept, image.bucket), 0) + 1
        return found


def plan_prior(prompts: Sequence[Prompt], sampler: SamplerSettings, *, seed: int, batch: int) -> PriorPlan:
    """One image per prompt; every item's first before any item's second: a larger pool starts with the smaller."""
    ordered = sorted(prompts, key=lambda prompt: prompt.copy)
    return PriorPlan(tuple(_image(prompt, sampler, seed) for prompt in ordered), sampler, batch)


def _image(prompt: Prompt, sampler: SamplerSettings, seed: int) -> PlannedImage:
    drawn = seed_for(seed, "prior image", source=prompt.source, copy=prompt.copy)
    decides = (prompt.concept, prompt.text, str(prompt.bucket), str(drawn), sampler.model_dump_json())
    return PlannedImage(
        id=hash_text(*decides)[:20],
        concept=prompt.concept,
        bucket=prompt.bucket,
        prompt=prompt.text,
        caption=prompt.caption,
        negative=sampler.negative,
        seed=drawn,
        source=prompt.source,
    )
