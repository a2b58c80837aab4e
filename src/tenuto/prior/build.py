"""Making a prior set: the base samples what the plan asks for, batch by batch, and goes on where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from tenuto.events import Listener, note, progress, silent, warn
from tenuto.families.base import Base
from tenuto.families.sampling import SamplerSettings, sample
from tenuto.files import hash_text
from tenuto.prior.plan import PlannedImage, PriorPlan
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.words import Size, TenutoError


class BuildStopped(TenutoError):
    """The user asked to stop; every finished batch is kept."""


def build(
    plan: PriorPlan,
    base: Base,
    store: PriorStore,
    *,
    listener: Listener = silent,
    stop: Callable[[], bool] = lambda: False,
) -> list[PriorImage]:
    """Make what the store lacks of the plan; returns the records of the whole plan, in its order.

    A planned batch is always made whole, so an interrupted build ends in the same bits as an uninterrupted one.
    """
    _refuse_adapter(base)
    with store.lock():
        for shard in store.damaged:
            warn(listener, f"{shard.name} of the prior set is damaged; its images are made again")
        wrong = store.verify([image.id for image in plan.images])
        if wrong:
            warn(listener, f"{len(wrong)} prior images do not match their hash; they are made again")
        batches = [b for b in plan.batches(base.chunks) if any(image.id not in store for image in b)]
        total, here = len(plan.images), sum(image.id in store for image in plan.images)
        if here and batches:
            note(listener, f"{here} of {total} prior images are there already")
        start, made = time.perf_counter(), 0
        for batch in batches:
            if stop():
                raise BuildStopped(
                    f"stopped: {here} of {total} prior images are kept; the same command goes on from there"
                )
            begun = time.perf_counter()
            latents = _sample(base, batch, plan.sampler)
            each = (time.perf_counter() - begun) / len(batch)
            fresh = [image for image in batch if image.id not in store]
            keep = {image.id: row for image, row in zip(batch, latents, strict=True) if image in fresh}
            store.add({image.id: _record(image, plan.sampler, each) for image in fresh}, keep)
            here, made = here + len(fresh), made + len(batch)
            progress(listener, "prior images", here, total, rate=made / (time.perf_counter() - start))
    return store.records(image.id for image in plan.images)


def _sample(base: Base, batch: Sequence[PlannedImage], sampler: SamplerSettings) -> Tensor:
    size = batch[0].bucket
    passes = max(max(base.chunks(i.prompt), base.chunks(i.negative)) for i in batch)
    sizes = [size] * len(batch)
    with torch.no_grad():
        cond = base.encode_text([image.prompt for image in batch], sizes, passes)
        uncond = base.encode_text([image.negative for image in batch], sizes, passes)
    latents = sample(base, cond, uncond, size, [image.seed for image in batch], sampler)
    if not torch.isfinite(latents).all():
        raise TenutoError(
            f'prior image "{batch[0].prompt[:60]}": the base answers with values that are not finite; '
            'use precision = "fp32"'
        )
    return latents


def _record(image: PlannedImage, sampler: SamplerSettings, seconds: float) -> PriorImage:
    return PriorImage(
        id=image.id,
        concept=image.concept,
        bucket=image.bucket,
        prompt=image.prompt,
        negative=image.negative,
        seed=image.seed,
        sampler=sampler.sampler,
        steps=sampler.steps,
        guidance=sampler.guidance,
        kind="generated",
        source=image.source,
        seconds=seconds,
    )


@dataclass(frozen=True)
class ForeignPicture:
    """A picture of the user's own reg folder."""

    path: Path
    content: str
    """SHA-256 of the file."""
    caption: str
    concept: str
    bucket: Size


def take_in(
    pictures: Sequence[ForeignPicture], base: Base, store: PriorStore, read: Callable[[ForeignPicture], Tensor]
) -> list[PriorImage]:
    """Let foreign pictures join the store, encoded by the base's autoencoder and marked as foreign (law 1).

    read: the picture's pixels [3 H W] in -1..1 at its bucket's size.
    """
    names = []
    with store.lock():
        for picture in pictures:
            name = hash_text("foreign", picture.content, picture.caption, picture.concept, str(picture.bucket))[:20]
            names.append(name)
            if name not in store:
                record = PriorImage(
                    name,
                    picture.concept,
                    picture.bucket,
                    picture.caption,
                    "",
                    0,
                    "",
                    0,
                    0.0,
                    "foreign",
                    str(picture.path),
                )
                store.add({name: record}, {name: base.encode_image(read(picture)[None])[0]})
    return store.records(dict.fromkeys(names))


def _refuse_adapter(base: Base) -> None:
    if any(isinstance(layer, LoraLayer) for module in base.modules().values() for layer in module.modules()):
        raise TenutoError("a prior set is made by the base alone, and an adapter is attached; detach it first")
