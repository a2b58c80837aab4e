"""Sources of rows: instance items (varied from visit to visit) and prior images (never varied)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from tenuto.data.cache import Cache, key_of
from tenuto.data.dataset import Item, VariationSettings, flipped, vary
from tenuto.data.images import fit, read_image
from tenuto.families.base import Base
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.randomness import shuffler
from tenuto.training.rows import Row


@dataclass(frozen=True)
class InstanceSource:
    """One of the user's pictures."""

    item: Item
    trigger: str
    variation: VariationSettings
    seed: int
    latents: Callable[[Item, bool], Tensor]
    """(item, mirrored) -> latents [C H W]."""
    chunks: Callable[[str], int]

    def row(self, visit: int) -> Row:
        rng = shuffler(self.seed, "variation", row=self.item.id, visit=visit)
        mirrored = flipped(self.variation, rng)
        caption = vary(self.item.caption, self.variation, rng, self.trigger)
        latents = self.latents(self.item, mirrored)
        return Row(self.item.id, visit, "instance", self.item.bucket, caption, self.chunks(caption), latents)


@dataclass(frozen=True)
class PriorSource:
    """One image of the prior set."""

    image: PriorImage
    caption: str
    store: PriorStore
    chunks: int

    def row(self, visit: int) -> Row:
        latents = self.store.latents(self.image.id)
        return Row(self.image.id, visit, "prior", self.image.bucket, self.caption, self.chunks, latents)


class Latents:
    """Latents of the user's pictures, encoded once per content, bucket and base, kept on disk and in memory."""

    def __init__(self, base: Base, cache: Cache, background: str) -> None:
        self.base, self.cache, self.background = base, cache, background
        self._recent = lru_cache(maxsize=4096)(self._load)

    def __call__(self, item: Item, mirrored: bool = False) -> Tensor:
        return self._recent(item, mirrored)

    def pixels(self, item: Item, mirrored: bool = False) -> Tensor:
        """[3 H W] in -1..1 at the bucket's size."""
        pixels = fit(read_image(item.path, self.background), item.bucket)
        return pixels.flip(-1) if mirrored else pixels

    def _load(self, item: Item, mirrored: bool) -> Tensor:
        key = key_of("latents", item.content, item.bucket, self.background, mirrored, self.base.hash)
        kept = self.cache.get(key)
        if kept is not None:
            return kept["latents"]
        latents = self.base.encode_image(self.pixels(item, mirrored)[None])[0].cpu()
        self.cache.put(key, {"latents": latents})
        return latents
