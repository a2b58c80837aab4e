"""The prior plan: every image that a prior set will hold, known before the first is made.

Images are named by what decides them, so a larger pool contains the smaller one: x50 starts with the x8 it extends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
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
class PlannedBatch:
    """Images that are kept together, and made or made again together."""

    images: tuple[PlannedImage, ...]
    passes: int
    """Text passes that prompt and negative prompt are padded to."""

    @property
    def key(self) -> str:
        """Names the batch by all that decides its bits, given the base."""
        return hash_text(str(self.passes), *(image.id for image in self.images))[:24]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class PriorPlan:
    """All images of a set, in the order in which they are made, and how they are sampled."""

    images: tuple[PlannedImage, ...]
    sampler: SamplerSettings
    batch: int
    """Images that are kept, made and made again together at most; other cuts would move the last bits."""

    @property
    def forwards(self) -> int:
        """Forwards of the denoiser for the whole set."""
        return len(self.images) * self.sampler.forwards()

    def minutes(self, pace: float, images: Iterable[PlannedImage] | None = None) -> float:
        """What making them (default: all) takes at a measured pace, in seconds per forward and pixel."""
        pixels = sum(image.bucket.width * image.bucket.height for image in (self.images if images is None else images))
        return pixels * self.sampler.forwards() * pace / 60

    def batches(self, chunks: Callable[[str], int]) -> list[PlannedBatch]:
        """Batches of one concept, bucket and number of text passes.

        The images of one source fill batches of their own, and only what is left over shares batches with other
        sources': so a larger pool, or one more picture, leaves most batches as they were, and they are not made again.
        """
        needed = {text: chunks(text) for text in dict.fromkeys(t for i in self.images for t in (i.prompt, i.negative))}
        guided = self.sampler.guided
        passes = {i.id: max(needed[i.prompt], needed[i.negative] if guided else 1) for i in self.images}
        own = _grouped(self.images, lambda i: (i.concept, i.source, i.bucket, passes[i.id]))
        full = [part for group in own for part in _cut(group, self.batch) if len(part) == self.batch]
        taken = {image.id for part in full for image in part}
        rest = _grouped(
            (image for image in self.images if image.id not in taken), lambda i: (i.concept, i.bucket, passes[i.id])
        )
        parts = [*full, *(part for group in rest for part in _cut(group, self.batch))]
        return [PlannedBatch(tuple(part), passes[part[0].id]) for part in parts]

    def counts(self) -> Counter[tuple[str, Size]]:
        """Images per concept and bucket."""
        return Counter((image.concept, image.bucket) for image in self.images)


def plan_prior(prompts: Sequence[Prompt], sampler: SamplerSettings, *, seed: int, batch: int) -> PriorPlan:
    """One image per prompt; every item's first before any item's second: a larger pool starts with the smaller.

    Seeds are named by item and copy. Two prompts that would give the same image (pictures that are doubles) give one.
    """
    ordered = sorted(prompts, key=lambda prompt: prompt.copy)
    images = {image.id: image for image in (_image(prompt, sampler, seed) for prompt in ordered)}
    return PriorPlan(tuple(images.values()), sampler, batch)


def _image(prompt: Prompt, sampler: SamplerSettings, seed: int) -> PlannedImage:
    drawn = seed_for(seed, "prior image", source=prompt.source, copy=prompt.copy)
    decides = (prompt.concept, prompt.text, str(prompt.bucket), str(drawn), _written(sampler))
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


def _written(sampler: SamplerSettings) -> str:
    """The sampler as it stands in names: written otherwise, no image of an older store would be found again."""
    values = {name: getattr(sampler, name) for name in ("sampler", "steps", "guidance", "negative")}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _grouped(images: Iterable[PlannedImage], key: Callable[[PlannedImage], Hashable]) -> Iterable[list[PlannedImage]]:
    """Images of one key together, keys in order of appearance."""
    groups: dict[Hashable, list[PlannedImage]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    return groups.values()


def _cut(images: Sequence[PlannedImage], size: int) -> list[Sequence[PlannedImage]]:
    return [images[start : start + size] for start in range(0, len(images), size)]
