"""The prior plan: every image that a prior set will hold, known before the first is made.

Images are named by what decides them, so a larger pool contains the smaller one: x50 starts with the x8 it extends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True)
class PlannedImage:
    """One prior image to be made."""

    id: str
    concept: str
    bucket: Size
    prompt: str
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


def plan_prior(
    prompts: Sequence[Prompt], per_image: Mapping[str, int], sampler: SamplerSettings, *, seed: int, batch: int
) -> PriorPlan:
    """The k-th image of every prompt before the (k+1)-th of any, so that a larger pool starts with the smaller one.

    prompts: one or several per instance image and concept; the k-th image of a source uses its prompts in turn.
    per_image: images per source, by concept.
    """
    sources: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in prompts:
        sources.setdefault((prompt.concept, prompt.source), []).append(prompt)
    images = []
    for k in range(max(per_image.values(), default=0)):
        for (concept, source), own in sources.items():
            if k < per_image.get(concept, 0):
                images.append(_image(own[k % len(own)], k, source, sampler, seed))
    return PriorPlan(tuple(images), sampler, batch)


def _image(prompt: Prompt, k: int, source: str, sampler: SamplerSettings, seed: int) -> PlannedImage:
    drawn = seed_for(seed, "prior image", source=source, k=k)
    name = hash_text(
        prompt.concept, prompt.text, sampler.negative, str(prompt.bucket), str(drawn), sampler.model_dump_json()
    )
    return PlannedImage(name[:20], prompt.concept, prompt.bucket, prompt.text, sampler.negative, drawn, source)
