"""Sampling of prior images on one device: as many at once as fit into its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from tenuto.events import Listener, warn
from tenuto.families.base import Base, Conditioning
from tenuto.families.sampling import SamplerSettings, sample
from tenuto.memory import is_out_of_memory, make_room
from tenuto.prior.plan import PlannedBatch, PlannedImage, PriorPlan
from tenuto.prior.states import Kept, Recorder
from tenuto.prior.store import DTYPE
from tenuto.words import Size, TenutoError

MOST = 64
"""Images that are tried at once on a GPU; where they do not fit, half of them, and so on."""
TEXTS_KEPT = 1024


@dataclass(frozen=True)
class Together:
    """Planned batches of one bucket and text length that are sampled together."""

    batches: tuple[PlannedBatch, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(batch.key for batch in self.batches)

    @property
    def images(self) -> tuple[PlannedImage, ...]:
        return tuple(image for batch in self.batches for image in batch.images)

    @property
    def passes(self) -> int:
        return self.batches[0].passes


def first_rows(base: Base, plan: PriorPlan) -> int:
    """How many images are tried at once: the planned batch, on a GPU several of them."""
    return max(plan.batch, MOST) if base.device.type == "cuda" else plan.batch


def joined(batches: Sequence[PlannedBatch], rows: int, batch: int) -> list[Together]:
    """Whole planned batches (of `batch` images at most) together, so that at most `rows` are sampled at once.

    The whole plan's batches of one bucket and text length are cut in order, so that every builder and every resumed
    build has the same cuts.
    """
    alike: dict[tuple[Size, int], list[PlannedBatch]] = {}
    for own in batches:
        alike.setdefault((own.images[0].bucket, own.passes), []).append(own)
    several = max(1, rows // batch)
    return [
        Together(tuple(group[at : at + several])) for group in alike.values() for at in range(0, len(group), several)
    ]


@dataclass
class Maker:
    """Samples prior images, fewer at once after the device ran out of memory."""

    base: Base
    sampler: SamplerSettings
    rows: int
    """Images at once; what was found to fit is kept for the rest of the build."""
    states: int
    listener: Listener
    stop: Callable[[], bool]
    _words: Callable[[str, Size, int], Conditioning] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._words = lru_cache(TEXTS_KEPT)(self._encode)

    def make(self, images: Sequence[PlannedImage], passes: int) -> tuple[Tensor, list[Kept]]:
        """Latents [B C H W] of images of one bucket and text length, and the kept states of each."""
        while True:
            made = self._try(images, passes)
            if made is not None:
                return made
            make_room(self.base.device)
            self.rows = min(self.rows, len(images)) // 2
            warn(self.listener, f"out of memory: prior images are sampled {self.rows} at once; last bits may differ")

    def _try(self, images: Sequence[PlannedImage], passes: int) -> tuple[Tensor, list[Kept]] | None:
        try:
            parts = [images[at : at + self.rows] for at in range(0, len(images), self.rows)]
            made = [self._sample(part, passes) for part in parts]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if min(self.rows, len(images)) == 1:
                raise TenutoError(
                    f"a prior image of {images[0].bucket} does not fit into the device's memory; "
                    "choose a smaller data.buckets.area"
                ) from error
            return None
        return torch.cat([latents for latents, _ in made]), [path for _, kept in made for path in kept]

    def _sample(self, images: Sequence[PlannedImage], passes: int) -> tuple[Tensor, list[Kept]]:
        size, base = images[0].bucket, self.base
        cond = self._told((image.prompt for image in images), size, passes)
        uncond = self._told((image.negative for image in images), size, passes) if self.sampler.guided else None
        base.rest()  # what is not the denoiser leaves the device: more images fit
        seeds = [image.seed for image in images]
        heard = Recorder(base, seeds, self.sampler.steps, self.states) if self.states else None
        asked = heard.base if heard else base
        latents = sample(asked, cond, uncond, size, seeds, self.sampler, stop=self.stop).to(DTYPE).cpu()
        for image, row in zip(images, latents, strict=True):
            if not torch.isfinite(row).all():
                raise TenutoError(
                    f'prior image "{image.prompt[:60]}" (seed {image.seed}): the base answers with values that are not '
                    'finite; use precision = "fp32" or another prior.sampler'
                )
        return latents, heard.kept() if heard else []

    def _told(self, prompts: Iterator[str], size: Size, passes: int) -> Conditioning:
        return Conditioning.join([self._words(prompt, size, passes) for prompt in prompts])

    @torch.no_grad()
    def _encode(self, prompt: str, size: Size, passes: int) -> Conditioning:
        """Alone, so that it does not depend on its neighbours; a pool asks for one prompt many times."""
        return self.base.encode_text([prompt], [size], passes)
