"""What a project needs of the device's memory, before it starts, and the settings with which it would fit.

Nothing is guessed from sizes of checkpoints: weights and optimizer are counted, and what an update, a prior image and a
picture's way through the autoencoder hold is counted on the very networks, without their numbers (`families/meter.py`).
What cannot be counted so is the device's own: PROGRAM stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.tuners.base import weight_of
from tenuto.data.problems import Problem
from tenuto.families.base import Base
from tenuto.families.meter import META, Meter, bytes_of, fused_attention, tensors_of, weightless
from tenuto.training.rows import Row
from tenuto.training.settings import TrainingSettings
from tenuto.training.trial import held_by_update
from tenuto.words import Size
from tenuto.work.adapter import adapter_of
from tenuto.work.trainings import at_once

if TYPE_CHECKING:
    from tenuto.work.prepare import Prepared

GIB = 2**30
CARDS = (8, 10, 12, 24)
"""GiB of common graphics cards."""
PROGRAM = 0.7
"""GiB: the device's context, the libraries' work space and what lies idle between tensors. An assumption."""
SAVINGS: tuple[dict[str, Any], ...] = (
    {"training.precision": "bf16"},
    {"training.gradient_checkpointing": True},
    {"training.micro_batch": 1},
    {"base.fp8": True},
)
"""Settings that need less memory, in the order in which they are tried, each on top of those before it: the first costs
least."""


TWINS: WeakKeyDictionary[Base, dict[tuple[torch.dtype, bool], Base]] = WeakKeyDictionary()
"""What it is counted on: of every open base, copies without weights, by number type and whether they lie in 8 bits."""


class Way(NamedTuple):
    """To train."""

    settings: TrainingSettings
    fp8: bool

    def get(self, name: str) -> Any:
        """A setting by its whole name."""
        return self.fp8 if name == "base.fp8" else getattr(self.settings, name.removeprefix("training."))

    def put(self, changes: Mapping[str, Any]) -> Way:
        """The same with other settings."""
        own = {name.removeprefix("training."): value for name, value in changes.items() if name != "base.fp8"}
        return Way(self.settings.model_copy(update=own), changes.get("base.fp8", self.fp8))


@dataclass(frozen=True)
class Need:
    """Bytes under some training settings."""

    weights: int
    resting: int
    """Of those, what leaves the device while it trains: autoencoder, and text encoders that are not trained."""
    adapter: int
    """The LoRA and its optimizer."""
    update: int
    """Activations and gradients."""
    picture: int
    """Of one picture that is being sampled."""
    merged: int
    """Weights that are kept aside while a LoRA is merged into them for the comparison."""
    autoencoder: int
    """One picture into latents or out of them, whichever is more."""

    def training(self) -> int:
        return self.weights - self.resting + self.adapter + self.update

    def sampling(self, pictures: int) -> int:
        return self.weights + max(pictures * self.picture, self.autoencoder)

    def comparing(self, pictures: int) -> int:
        return self.sampling(pictures) + self.merged


@dataclass
class Memory:
    """The needs of a prepared project; each is counted when it is first asked for."""

    prepared: Prepared
    precisions: Mapping[str, torch.dtype]
    """training.precision -> number type of the base."""
    _needs: dict[Way, Need] = field(default_factory=dict)

    @property
    def way(self) -> Way:
        """The project's own."""
        return Way(self.prepared.project.training, self.prepared.project.base.fp8)

    @property
    def size(self) -> Size:
        """The largest bucket."""
        own = [item.bucket for item in (*self.prepared.items, *self.prepared.foreign)]
        return max(
            own + [image.bucket for image in self.prepared.plan.images], key=lambda size: size.width * size.height
        )

    def total(self, way: Way | None = None) -> int:
        """The most that is held at any time."""
        need = self.need(way or self.way)
        project = self.prepared.project
        pictures = self.prior_batch
        work = max(need.training(), need.comparing(project.comparison.batch))
        if self.processes:
            work = need.weights + self.processes * (work + int(PROGRAM * GIB))
        return max(work, need.sampling(pictures)) + int(PROGRAM * GIB)

    @property
    def processes(self) -> int:
        """Processes beside this one, each with a base of its own, where arms are trained and compared side by side."""
        workers = at_once(self.prepared.project, self.prepared.base.device)
        return workers if workers > 1 else 0

    @property
    def prior_batch(self) -> int:
        """Prior images that are sampled at once (on a GPU, where at_once is unset, more of them are tried first)."""
        prior = self.prepared.project.prior
        return min(prior.at_once or prior.batch, len(self.prepared.plan.images))

    def need(self, way: Way) -> Need:
        if way not in self._needs:
            self._needs[way] = self._counted(way)
        return self._needs[way]

    def _counted(self, way: Way) -> Need:
        settings, base, project = way.settings, self._twin(way), self.prepared.project
        weights, picture, autoencoder = bytes_of(tensors_of(base)), self._picture(base), self._autoencoder(base)
        adapter = adapter_of(project, base, project.seed)
        try:
            trained = bytes_of(adapter.parameters())
            changed = bytes_of(weight_of(own) for own in adapter.layers().values())
            return Need(
                weights=weights,
                resting=weights - bytes_of(_training(base, adapter)),
                adapter=int((1 + settings.optimizer.remembers) * trained),
                update=held_by_update(base, adapter, settings, project.regularizers, list(self._rows(base))),
                picture=picture,
                merged=trained + (0 if way.fp8 or base.dtype != torch.float32 else changed),
                autoencoder=autoencoder,
            )
        finally:
            adapter.detach()

    def _twin(self, way: Way) -> Base:
        base, kind = self.prepared.base, (self.precisions[way.settings.precision], way.fp8)
        twins = TWINS.setdefault(base, {})
        if kind not in twins:
            twins[kind] = weightless(base, kind[0], fp8=way.fp8)
        return twins[kind]

    def _rows(self, base: Base) -> Iterator[Row]:
        """The rows of one update, all in the largest bucket and as long as the longest caption."""
        prepared, shape = self.prepared, base.geometry.latent(self.size)
        item = max(prepared.items, key=lambda item: base.chunks(item.caption))
        own = next(concept for concept in prepared.concepts if concept.name == item.concept)
        chunks, latents = base.chunks(item.caption), torch.zeros(shape)
        bare = own.untriggered(item.caption, class_word=False)
        class_caption = f"{own.class_word}, {bare}"
        for number in range(prepared.project.training.batch):
            yield Row(
                f"instance {number}", 0, "instance", self.size, item.caption, chunks, latents, class_caption, bare
            )
        for number in range(ceil(prepared.project.training.batch * max(prepared.ratios.values(), default=0.0))):
            yield Row(f"prior {number}", 0, "prior", self.size, bare, chunks, latents)

    def _picture(self, base: Base) -> int:
        rows = 2 if self.prepared.project.prior_sampler().guided else 1
        with torch.no_grad(), fused_attention():
            cond = base.encode_text([self.prepared.items[0].caption] * rows, [self.size] * rows)
            x = torch.zeros(rows, *base.geometry.latent(self.size), device=META)
            with Meter(tensors_of(base)) as meter:
                base.predict(x, torch.zeros(rows, dtype=torch.long, device=META), cond)
        return int(meter.peak)

    def _autoencoder(self, base: Base) -> int:
        there = tensors_of(base)
        with fused_attention(), Meter(there) as encoding:
            base.encode_image(torch.zeros(1, 3, self.size.height, self.size.width, device=META))
        with fused_attention(), Meter(there) as decoding:
            base.decode(torch.zeros(1, *base.geometry.latent(self.size), device=META))
        return max(int(encoding.peak), int(decoding.peak))

    # -- what it comes to ---------------------------------------------------------------------------------------------

    def sentences(self) -> Iterator[str]:
        """For the audit: what is held when, and what it takes to fit common cards."""
        need, compared = self.need(self.way), self.prepared.project.comparison.batch
        several = f" ({self.processes} at once, each in a process of its own)" if self.processes else ""
        yield (
            f"memory: about {_gib(self.total())} at most. Training{several} {_gib(need.training())}: weights "
            f"{_gib(need.weights - need.resting)}, LoRA and optimizer {_gib(need.adapter)}, an update in bucket "
            f"{self.size} {_gib(need.update)}; prior images {_gib(need.sampling(self.prior_batch))} "
            f"({self.prior_batch} at once); comparison {_gib(need.comparing(compared))} ({compared} at once); "
            f"{PROGRAM} GiB for the program are in the first number"
        )
        yield "memory: " + "; ".join(f"{card} GB: {_words(self.fitting(card * GIB))}" for card in CARDS)

    def problems(self) -> Iterator[Problem]:
        """A warning where the device has less free than will be asked for."""
        base = self.prepared.base
        free = free_memory(base.device)
        if free is None:
            return
        whole = free + bytes_of(tensors_of(base))
        if self.total() > whole:
            what = f"about {_gib(self.total())} are needed at most, {_gib(whole)} are free for it on {base.device}"
            changes = self.fitting(whole)
            if changes is not None and self.processes:
                changes = ("arms.at_once = 1", *changes)
            yield Problem("warning", "memory", what, f"{'set ' if changes else ''}{_words(changes)}")

    def fitting(self, limit: int) -> tuple[str, ...] | None:
        """The settings to change so that all of it fits into so many bytes; none, or None where nothing helps."""
        way, changes = self.way, []
        for saving in ({}, *SAVINGS):
            better = {name: value for name, value in saving.items() if way.get(name) != value}
            if saving and (not better or (better.get("training.precision") and way.settings.precision != "fp32")):
                continue
            way = way.put(better)
            changes += [f"{name} = {_toml(value)}" for name, value in better.items()]
            batches = self._batches(way, limit - int(PROGRAM * GIB))
            if batches is not None:
                return (*changes, *batches)
        return None

    def _batches(self, way: Way, limit: int) -> list[str] | None:
        """How far the pictures at once must come down on this way; None: it does not fit."""
        need, project = self.need(way), self.prepared.project
        if need.training() > limit:
            return None
        changes = []
        wanted = (
            ("prior.at_once", self.prior_batch, need.sampling),
            ("comparison.batch", project.comparison.batch, need.comparing),
        )
        for name, batch, held in wanted:
            smaller = batch
            while smaller > 1 and held(smaller) > limit:
                smaller //= 2
            if held(smaller) > limit:
                return None
            changes += [f"{name} = {smaller}"] if smaller < batch else []
        return changes


def _training(base: Base, adapter: Adapter) -> list[Tensor]:
    """The base's weights that are on the device while it trains."""
    modules = [base.denoiser, *(base.text_encoders.values() if adapter.trains_text() else ())]
    own = {id(parameter) for parameter in adapter.parameters()}
    held = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    return [tensor for tensor in held if id(tensor) not in own]


def free_memory(device: torch.device) -> int | None:
    """Bytes that the device has free now; None where it does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) if device.type == "cpu" else None


def _words(changes: tuple[str, ...] | None) -> str:
    if changes is None:
        return "a smaller data.buckets.area, or fewer rows"
    return ", ".join(changes) or "fits as it is"


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
