"""Sources of rows: instance items (varied from visit to visit) and prior images (never varied)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tenuto.data.cache import Cache, key_of
from tenuto.data.dataset import Concept, Item, VariationSettings, flipped, vary
from tenuto.data.images import fit, read_alpha, read_image, read_mask
from tenuto.events import Listener, progress
from tenuto.families.base import Base
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.randomness import shuffler
from tenuto.training.rows import Row
from tenuto.words import Stopped

MaskOf = Callable[[Item, bool], Tensor | None]
"""(item, mirrored) -> how much each place counts [1 H W], at the latents' size; None: all of it."""


def no_mask(item: Item, mirrored: bool) -> Tensor | None:
    """Every place of every picture counts."""
    return None


@dataclass(frozen=True)
class InstanceSource:
    """One of the user's pictures."""

    item: Item
    concept: Concept
    variation: VariationSettings
    seed: int
    latents: Callable[[Item, bool], Tensor]
    """(item, mirrored) -> latents [C H W]."""
    chunks: Callable[[str], int]
    mask: MaskOf = no_mask

    def row(self, visit: int) -> Row:
        rng = shuffler(self.seed, "variation", row=self.item.id, visit=visit)
        mirrored = flipped(self.variation, rng)
        caption = vary(self.item.caption, self.variation, rng, self.concept.trigger)
        return Row(
            self.item.id,
            visit,
            "instance",
            self.item.bucket,
            caption,
            self.chunks(caption),
            self.latents(self.item, mirrored),
            self.concept.untriggered(caption),
            self.concept.untriggered(caption, class_word=False),
            self.mask(self.item, mirrored),
            varied=caption not in (self.item.caption, ""),
        )

    def prompt(self) -> str:
        return self.item.caption


@dataclass(frozen=True)
class PriorSource:
    """One image of the prior set."""

    image: PriorImage
    caption: str
    store: PriorStore
    chunks: int
    states: int = 0
    """How many states of its path are read; a foreign picture has none."""

    def row(self, visit: int) -> Row:
        own, latents = self.image, self.store.latents(self.image.id)
        path = self.store.path(own.id, self.states) if self.states and own.kind == "generated" else None
        return Row(own.id, visit, "prior", own.bucket, self.caption, self.chunks, latents, path=path)

    def prompt(self) -> str:
        return self.caption


class Latents:
    """Latents of the user's pictures, encoded once per content, bucket and base, kept on disk and in memory."""

    def __init__(self, base: Base, cache: Cache, ground: str | None) -> None:
        self.base, self.cache, self.ground = base, cache, ground
        self._recent = lru_cache(maxsize=4096)(self._load)

    def __call__(self, item: Item, mirrored: bool = False) -> Tensor:
        return self._recent(item, mirrored)

    def pixels(self, item: Item, mirrored: bool = False) -> Tensor:
        """[3 H W] in -1..1 at the bucket's size."""
        pixels = fit(read_image(item.path, self.ground), item.bucket)
        return pixels.flip(-1) if mirrored else pixels

    def fill(self, items: Sequence[Item], *, mirrored: bool, listener: Listener, stop: Callable[[], bool]) -> None:
        """Encode what will be asked for, so that the autoencoder is not needed in between."""
        wanted = [(item, way) for item in items for way in ((False, True) if mirrored else (False,))]
        for done, (item, way) in enumerate(wanted, 1):
            if stop():
                raise Stopped("stopped while pictures were encoded; the same command goes on from there")
            self(item, way)
            progress(listener, "encoding pictures", done, len(wanted))

    def _load(self, item: Item, mirrored: bool) -> Tensor:
        key = key_of("latents", item.content, item.bucket, self.ground, mirrored, self.base.hash)
        kept = self.cache.get(key)
        if kept is not None:
            return kept["latents"]
        latents = self.base.encode_image(self.pixels(item, mirrored)[None])[0].cpu()
        self.cache.put(key, {"latents": latents})
        return latents


class Masks:
    """Masks of the user's pictures as loss weights at the latents' size, kept in memory."""

    def __init__(self, base: Base, *, alpha: bool) -> None:
        """`alpha`: a picture that has no mask of its own is masked by its transparency."""
        self._geometry, self._alpha = base.geometry, alpha
        self._recent = lru_cache(maxsize=4096)(self._load)

    def __call__(self, item: Item, mirrored: bool = False) -> Tensor | None:
        mask = self._recent(item)
        return mask.flip(-1) if mask is not None and mirrored else mask

    def _load(self, item: Item) -> Tensor | None:
        pixels = mask_of(item, alpha=self._alpha)
        _, height, width = self._geometry.latent(item.bucket)
        return None if pixels is None else adaptive_avg_pool2d(pixels, (height, width))


def mask_of(item: Item, *, alpha: bool) -> Tensor | None:
    """How much each place of a picture counts [1 H W], at its bucket's size; None: all of it."""
    if item.mask is not None:
        return read_mask(item.mask, item.bucket)
    return read_alpha(item.path, item.bucket) if alpha else None
