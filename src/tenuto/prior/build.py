"""Making a prior set: the base samples what the plan asks for, batch by batch, and goes on where it was stopped.

Several processes may build into one store, ranks of one job or commands of their own: each makes what no other is
making (`claims.py`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence

from torch import Tensor

from tenuto.adapters.adapter import is_adapted
from tenuto.events import Listener, note, progress, silent, warn
from tenuto.families.base import Base
from tenuto.families.sampling import SamplerSettings, SamplingStopped
from tenuto.prior.claims import make_together
from tenuto.prior.maker import Maker, Together, first_rows, joined
from tenuto.prior.plan import PlannedBatch, PlannedImage, PriorPlan
from tenuto.prior.states import Kept
from tenuto.prior.store import DTYPE, DamagedShard, PriorImage, PriorStore
from tenuto.words import Stopped, TenutoError

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
    at_once: int | None = None,
    listener: Listener = silent,
    stop: Stop = _never,
) -> list[PriorImage]:
    """Make what the store lacks of the plan; returns the records of the whole plan, in its order.

    states: how many states of every image's path are kept beside it; a set that lacks them is sampled again for them.
    at_once: images on the device at once; None: a planned batch on a CPU, as many as fit on a GPU.

    A planned batch is there as a whole or is made as a whole. Where it is also what the device samples at once, an
    interrupted build ends in the same bits as an uninterrupted one, and a shared store gives the same bits as an empty
    one; elsewhere images differ by rounding.
    """
    _refuse_adapter(base)
    rows = at_once or first_rows(base, plan)
    store.tidy()
    if lacks := lacking(plan, base, store, listener, states):
        _refuse_small_disk(store, base, lacks, states)
        _Build(plan, base, store, states, rows, lacks, listener, stop).run()
    images = store.records(image.id for image in plan.images)
    _tell_made_elsewhere(images, base, rows, listener)
    return images


def lacking(
    plan: PriorPlan, base: Base, store: PriorStore, listener: Listener = silent, states: int = 0
) -> list[PlannedBatch]:
    """The batches that a build would make: those that the store has not, or has damaged (which is said)."""
    return [batch for batch in plan.batches(base.chunks) if not _take(store, batch, listener, states)]


def others_at_work(store: PriorStore) -> str:
    return f"other processes are at work on the rest in {store.folder}; waiting for them"


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


class _Build:
    """One build under way."""

    def __init__(
        self,
        plan: PriorPlan,
        base: Base,
        store: PriorStore,
        states: int,
        rows: int,
        lacks: Sequence[PlannedBatch],
        listener: Listener,
        stop: Stop,
    ) -> None:
        self.plan, self.base, self.store, self.states = plan, base, store, states
        self.left = {batch.key: len(batch) for batch in lacks}
        """Images of each batch that nobody has made yet, as far as is known here."""
        self.listener, self.stop = listener, stop
        self.maker = Maker(base, plan.sampler, rows, states, listener, stop)
        self.total = len(plan.images)
        self.first = self._here()
        """Images that were there at the start."""
        self.begun = time.perf_counter()

    def run(self) -> None:
        if self.first:
            note(self.listener, f"{self.first} of {self.total} prior images are there already")
        whole = joined(self.plan.batches(self.base.chunks), self.maker.rows, self.plan.batch)
        pieces = [piece for piece in whole if not self.left.keys().isdisjoint(piece.keys)]
        waiting = lambda: note(self.listener, others_at_work(self.store))  # noqa: E731
        try:
            make_together(pieces, self._there, self._make, self.store.claims, waiting=waiting, stop=self.stop)
        except (SamplingStopped, Stopped) as error:
            raise BuildStopped(
                f"stopped: {self._here()} of {self.total} prior images are kept; the same command goes on from there"
            ) from error

    def _there(self, piece: Together) -> bool:
        found = [batch for batch in piece.batches if _take(self.store, batch, silent, self.states)]
        for batch in found:
            self.left.pop(batch.key, None)
        return len(found) == len(piece.batches)

    def _here(self) -> int:
        """Images that are there now, whoever made them."""
        return self.total - sum(self.left.values())

    def _make(self, piece: Together) -> None:
        started = time.perf_counter()
        images = piece.images
        latents, kept = self.maker.make(images, piece.passes)
        seconds = (time.perf_counter() - started) / len(images)
        named = {image.id: row for image, row in zip(images, latents, strict=True)}
        paths = {image.id: path for image, path in zip(images, kept, strict=True)} if self.states else {}
        for batch in piece.batches:
            self._keep(batch, named, paths, seconds)
        here = self._here()
        rate = max(1, here - self.first) / (time.perf_counter() - self.begun)
        names, eta = [image.id for image in images], (self.total - here) / rate
        progress(self.listener, "prior images", here, self.total, rate=rate, eta=eta, made=names)

    def _keep(self, batch: PlannedBatch, latents: dict[str, Tensor], paths: dict[str, Kept], seconds: float) -> None:
        names = [image.id for image in batch.images]
        if not _take_latents(self.store, batch, silent):
            made = _made(self.base, self.maker.rows)
            records = [_record(image, self.plan.sampler, seconds, made) for image in batch.images]
            self.store.add(batch.key, records, {name: latents[name] for name in names})
        if self.states and not _take_states(self.store, batch, silent, self.states):
            self.store.add_states(batch.key, self.states, batch.passes, {name: paths[name] for name in names})
        self.left.pop(batch.key, None)


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
    return f"{base.rounding}, {rows} rows"


def _tell_made_elsewhere(images: Sequence[PriorImage], base: Base, rows: int, listener: Listener) -> None:
    """Law 5 holds on one machine with one precision and thread count; say when the store knows others.

    How many rows fit on a GPU changes with what else lies there, and is said when it changes.
    """
    here = _made(base, rows) if base.device.type == "cpu" else base.rounding
    other = [image.made for image in images if image.kind == "generated" and not image.made.startswith(here)]
    if other:
        note(listener, f"{len(other)} prior images were made as {other[0]}, now it is {here}: last bits may differ")


# -- what is refused before any long work -----------------------------------------------------------------------------


def _refuse_adapter(base: Base) -> None:
    if is_adapted(base):
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
