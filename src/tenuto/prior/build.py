"""Making a prior set: the base samples what the plan asks for, batch by batch, and goes on where it was stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from tenuto.events import Listener, note, progress, silent, warn
from tenuto.families.base import Base
from tenuto.families.sampling import SamplerSettings, SamplingStopped, sample
from tenuto.files import hash_text
from tenuto.prior.plan import PlannedBatch, PlannedImage, PriorPlan
from tenuto.prior.states import Kept, Recorder
from tenuto.prior.store import DTYPE, DamagedShard, PriorImage, PriorStore
from tenuto.words import Size, Stopped, TenutoError

Stop = Callable[[], bool]

RECORD_BYTES = 1500
"""What an image's record takes in its shard, roughly."""
TENSORS_OF_A_STATE = 3
"""x_t and the answers with and without the prompt."""


def _never() -> bool:
    return False


class BuildStopped(Stopped):
    """The user asked to stop; every finished batch is kept."""


def build(
    plan: PriorPlan,
    base: Base,
    store: PriorStore,
    *,
    states: int = 0,
    listener: Listener = silent,
    stop: Stop = _never,
) -> list[PriorImage]:
    """Make what the store lacks of the plan; returns the records of the whole plan, in its order.

    states: how many states of every image's path are kept beside it; a set that lacks them is sampled again for them.

    A planned batch is there as a whole or is made as a whole, so an interrupted build ends in the same bits as an
    uninterrupted one, and a shared store gives the same bits as an empty one.
    """
    _refuse_adapter(base)
    if batches := lacking(plan, base, store, listener, states):
        _refuse_small_disk(store, base, batches, states)
        with store.lock(waiting=lambda: note(listener, _waiting(store)), stop=stop) as held:
            batches = [batch for batch in batches if not _take(store, batch, silent, states)]  # others may have worked
            _make_all(plan, batches, base, store, states, listener, stop if held else lambda: True)
    images = store.records(image.id for image in plan.images)
    _tell_made_elsewhere(images, base, plan.batch, listener)
    return images


def lacking(
    plan: PriorPlan, base: Base, store: PriorStore, listener: Listener = silent, states: int = 0
) -> list[PlannedBatch]:
    """The batches that a build would make: those that the store has not, or has damaged (which is said)."""
    return [batch for batch in plan.batches(base.chunks) if not _take(store, batch, listener, states)]


def _take(store: PriorStore, batch: PlannedBatch, listener: Listener, states: int) -> bool:
    """Whether the batch is there and sound. A damaged one counts as absent, which is said."""
    return _take_latents(store, batch, listener) and (not states or _take_states(store, batch, listener, states))


def _take_latents(store: PriorStore, batch: PlannedBatch, listener: Listener) -> bool:
    try:
        return store.take(batch.key, [image.id for image in batch.images])
    except DamagedShard as error:
        warn(listener, f"{error}; its {len(batch)} images are made again")
        return False


def _take_states(store: PriorStore, batch: PlannedBatch, listener: Listener, states: int) -> bool:
    try:
        return store.take_states(batch.key, states, [image.id for image in batch.images])
    except DamagedShard as error:
        warn(listener, f"{error}; the states of its {len(batch)} images are made again")
        return False


def _make_all(
    plan: PriorPlan,
    batches: Sequence[PlannedBatch],
    base: Base,
    store: PriorStore,
    states: int,
    listener: Listener,
    stop: Stop,
) -> None:
    total = len(plan.images)
    here = first = total - sum(len(batch) for batch in batches)
    if here and batches:
        note(listener, f"{here} of {total} prior images are there already")
    maker = _Maker(base, plan.sampler, plan.batch, states, listener, stop)
    begun = time.perf_counter()
    for batch in batches:
        started = time.perf_counter()
        try:
            latents, kept = maker.make(batch)
        except SamplingStopped as error:
            raise BuildStopped(
                f"stopped: {here} of {total} prior images are kept; the same command goes on from there"
            ) from error
        seconds = (time.perf_counter() - started) / len(batch)
        if not _take_latents(store, batch, silent):
            made = _made(base, maker.rows)
            records = [_record(image, plan.sampler, seconds, made) for image in batch.images]
            store.add(batch.key, records, {i.id: row for i, row in zip(batch.images, latents, strict=True)})
        if states:
            own = {image.id: path for image, path in zip(batch.images, kept, strict=True)}
            store.add_states(batch.key, states, batch.passes, own)
        here += len(batch)
        rate = (here - first) / (time.perf_counter() - begun)
        progress(listener, "prior images", here, total, rate=rate, eta=(total - here) / rate)


@dataclass
class _Maker:
    """Samples planned batches, in fewer rows at once after the device ran out of memory."""

    base: Base
    sampler: SamplerSettings
    rows: int
    states: int
    listener: Listener
    stop: Stop

    def make(self, batch: PlannedBatch) -> tuple[Tensor, list[Kept]]:
        """Latents [B C H W] of the whole batch, and the kept states of each image."""
        while True:
            try:
                images = batch.images
                parts = [images[at : at + self.rows] for at in range(0, len(images), self.rows)]
                made = [self._sample(part, batch.passes) for part in parts]
                return torch.cat([latents for latents, _ in made]), [path for _, kept in made for path in kept]
            except torch.OutOfMemoryError as error:
                if self.rows == 1:
                    raise TenutoError(
                        f"a prior image of {batch.images[0].bucket} does not fit into the device's memory; "
                        "choose a smaller data.buckets.area"
                    ) from error
                self.rows = min(self.rows, len(batch)) // 2
                warn(
                    self.listener, f"out of memory: prior images are sampled {self.rows} at once; last bits may differ"
                )

    def _sample(self, images: Sequence[PlannedImage], passes: int) -> tuple[Tensor, list[Kept]]:
        size, base, guided = images[0].bucket, self.base, self.sampler.guided
        sizes = [size] * len(images)
        with torch.no_grad():
            cond = base.encode_text([image.prompt for image in images], sizes, passes)
            uncond = base.encode_text([image.negative for image in images], sizes, passes) if guided else None
        seeds = [image.seed for image in images]
        heard = Recorder(base, seeds, self.sampler.steps, self.states) if self.states else None
        asked = heard.base if heard else base
        latents = sample(asked, cond, uncond, size, seeds, self.sampler, stop=self.stop)
        for image, row in zip(images, latents.to(DTYPE), strict=True):
            if not torch.isfinite(row).all():
                raise TenutoError(
                    f'prior image "{image.prompt[:60]}" (seed {image.seed}): the base answers with values that are not '
                    'finite; use precision = "fp32" or another prior.sampler'
                )
        return latents, heard.kept() if heard else []


def _record(image: PlannedImage, sampler: SamplerSettings, seconds: float, made: str) -> PriorImage:
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
        made=made,
    )


def _made(base: Base, rows: int) -> str:
    threads = f", {torch.get_num_threads()} threads" if base.device.type == "cpu" else ""
    return f"{base.device.type} {str(base.dtype).removeprefix('torch.')}{threads}, {rows} rows"


def _tell_made_elsewhere(images: Sequence[PriorImage], base: Base, rows: int, listener: Listener) -> None:
    """Law 5 holds on one machine with one precision and thread count; say when the store knows others."""
    here = _made(base, rows)
    other = [image.made for image in images if image.kind == "generated" and image.made != here]
    if other:
        note(listener, f"{len(other)} prior images were made as {other[0]}, now it is {here}: last bits may differ")


# -- the user's own pictures ----------------------------------------------------------------------------------------


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
    pictures: Sequence[ForeignPicture],
    base: Base,
    store: PriorStore,
    read: Callable[[ForeignPicture], Tensor],
    *,
    listener: Listener = silent,
    stop: Stop = _never,
) -> list[PriorImage]:
    """Let foreign pictures join the store, encoded by the base's autoencoder and marked as foreign (law 1).

    read: the picture's pixels [3 H W] in -1..1 at its bucket's size; asked only for pictures that are new.
    """
    named = {_foreign_id(picture): picture for picture in pictures}
    new = [name for name in named if not _take_foreign(store, name, listener)]
    if new:
        with store.lock(waiting=lambda: note(listener, _waiting(store)), stop=stop) as held:
            for done, name in enumerate(new, start=1):
                if not held or stop():
                    raise BuildStopped(
                        f"stopped: {done - 1} of {len(new)} new reg pictures are kept; "
                        "the same command goes on from there"
                    )
                pixels = read(named[name])
                store.add(name, [_foreign_record(name, named[name])], {name: base.encode_image(pixels[None])[0]})
                progress(listener, "reg pictures", done, len(new))
    return store.records(named)


def _foreign_id(picture: ForeignPicture) -> str:
    return hash_text("foreign", picture.content, picture.caption, picture.concept, str(picture.bucket))[:20]


def _take_foreign(store: PriorStore, name: str, listener: Listener) -> bool:
    try:
        return store.take(name, [name])
    except DamagedShard as error:
        warn(listener, f"{error}; the picture is encoded again")
        return False


def _foreign_record(name: str, picture: ForeignPicture) -> PriorImage:
    return PriorImage(
        id=name,
        concept=picture.concept,
        bucket=picture.bucket,
        prompt=picture.caption,
        negative="",
        seed=0,
        sampler="",
        steps=0,
        guidance=0.0,
        kind="foreign",
        source=str(picture.path),
    )


# -- what is refused before any long work -----------------------------------------------------------------------------


def _refuse_adapter(base: Base) -> None:
    if any(isinstance(layer, BaseTunerLayer) for module in base.modules().values() for layer in module.modules()):
        raise TenutoError("a prior set is made by the base alone, and an adapter is attached; detach it first")


def _refuse_small_disk(store: PriorStore, base: Base, batches: Sequence[PlannedBatch], states: int) -> None:
    def bytes_of(image: PlannedImage) -> int:
        channels, height, width = base.geometry.latent(image.bucket)
        return channels * height * width * DTYPE.itemsize * (1 + TENSORS_OF_A_STATE * states) + RECORD_BYTES

    needed = sum(bytes_of(image) for batch in batches for image in batch.images)
    free = shutil.disk_usage(store.folder).free
    if free < needed:
        raise TenutoError(
            f"{store.folder}: the prior set needs {needed / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free; "
            "free some space or name another folder in prior.store"
        )


def _waiting(store: PriorStore) -> str:
    return f"another process is making prior images in {store.folder}; waiting for it"
