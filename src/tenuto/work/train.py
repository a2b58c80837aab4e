"""Training the arms: plain and held, at every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tenuto.adapters.adapter import Adapter
from tenuto.data.cache import Cache
from tenuto.data.dataset import Item
from tenuto.data.schedule import Update, usage
from tenuto.evaluation.pictures import save_picture
from tenuto.events import Listener, note, silent, stage, warn, without_notes
from tenuto.families.sampling import sample
from tenuto.files import cache_home, hash_file, write_json, write_text
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.project.settings import Project
from tenuto.randomness import seed_for
from tenuto.ranks import ALONE, Ranks
from tenuto.training.folder import RunFolder
from tenuto.training.journal import with_tensorboard
from tenuto.training.loop import Run, train
from tenuto.training.plan import Plan, digest
from tenuto.training.rows import Row, Source
from tenuto.training.sources import InstanceSource, Latents, MaskOf, PriorSource
from tenuto.training.watch import DriftWatch, ValidationWatch, Watch
from tenuto.words import TenutoError
from tenuto.work.adapter import adapter_of
from tenuto.work.header import training_header
from tenuto.work.needs import masks_of
from tenuto.work.prepare import Prepared, lacking, prepare
from tenuto.work.prior import build_controller, build_prior
from tenuto.work.processes import SideBySide
from tenuto.work.tasks import NEVER, Stop
from tenuto.work.trainings import Done, Training, at_once, trainings

WATCHED = 8
"""Pictures that each live reading looks at, at most."""
UNIMPORTANT = {
    "save_every", "save_precision", "keep", "best", "sample_every", "sample_prompts", "watch_every", "tensorboard",
    "tags_in_file", "gradient_checkpointing", "micro_batch", "compile",
}  # fmt: skip
"""Training settings that do not change what is learned, or by rounding only: they may differ between an interrupted run
and its resumption."""
VERSION = 2
"""Of the way in which plans are followed: another one gives other tensors."""


def train_arm(
    prepared: Prepared,
    training: Training,
    store: PriorStore,
    prior: Sequence[PriorImage],
    listener: Listener = silent,
    stop: Stop = NEVER,
    ranks: Ranks = ALONE,
) -> Path:
    """Train one LoRA, from wherever its folder stands; returns the file, which the first of the ranks writes."""
    project, base = prepared.project, prepared.base
    wants_prior = any(method.active() and method.needs_prior() for method in training.regularizers.values())
    ratios = prepared.ratios if wants_prior else dict.fromkeys(prepared.ratios, 0.0)
    updates = prepared.updates(prior, ratios, training.seed)
    captions = {image.id: image.caption for image in prepared.plan.images}
    latents = Latents(base, Cache(cache_home() / "latents"), project.data.ground)
    masks = masks_of(project, base)
    if project.training.tensorboard and ranks.first:
        listener = with_tensorboard(listener, training.folder / "tensorboard")
    sensed = any(method.active() and method.needs_sensor() for method in training.regularizers.values())
    sensor = build_controller(prepared, store, listener, stop) if sensed else []
    latents.fill(ranks.part(prepared.items), mirrored=project.data.variation.flip, listener=listener, stop=stop)
    ranks.meet()  # what the others have encoded is read from the cache
    adapter = adapter_of(project, base, training.seed)
    try:
        run = Run(
            base=base,
            adapter=adapter,
            settings=project.training,
            regularizers=training.regularizers,
            updates=updates,
            sources=_sources(prepared, training.seed, latents, masks, store, prior, captions),
            rows_per_epoch=prepared.length.rows_per_epoch,
            seed=training.seed,
            folder=training.folder,
            plan=plan_of(prepared, training, prior),
            header=training_header(prepared, training, updates, prior),
            sensor=sensor,
            listener=listener,
            stop=stop,
            watch=_watches(prepared, adapter, latents) if project.training.watch_every and ranks.first else (),
            sample=lambda update: _draw_samples(prepared, training.folder, update),
            ranks=ranks,
            texts=Cache(cache_home() / "texts"),
        )
        if ranks.first:
            write_text(training.folder / "project.toml", project.to_toml())
            _write_use(training.folder / "plan.json", prepared, updates, prior, ratios)
        lora = train(run)
        if adapter.tuner.ships:
            note(listener, f"{lora} is no ordinary LoRA but {adapter.tuner.ships}")
        return lora
    finally:
        base.checkpointing(False)
        base.compiled(False)
        adapter.detach()


def refuse(prepared: Prepared, ranks: Ranks = ALONE) -> None:
    """What a method cannot do without is asked for before any long work."""
    device = prepared.project.base.device
    if ranks.count > 1 and ":" in device:
        raise TenutoError(
            f'base.device = "{device}" is one device for {ranks.count} processes; leave it out, and each takes its own'
        )
    for problem in lacking(prepared):
        raise TenutoError(str(problem))


def _sources(
    prepared: Prepared,
    seed: int,
    latents: Latents,
    masks: MaskOf,
    store: PriorStore,
    prior: Sequence[PriorImage],
    captions: Mapping[str, str],
) -> dict[str, Source]:
    base, variation = prepared.base, prepared.project.data.variation
    own = {concept.name: concept for concept in prepared.concepts}
    sources: dict[str, Source] = {
        item.id: InstanceSource(item, own[item.concept], variation, seed, latents, base.chunks, masks)
        for item in prepared.items
    }
    states = prepared.project.states()
    for image in prior:
        caption = captions.get(image.id, image.prompt)
        sources[image.id] = PriorSource(image, caption, store, base.chunks(caption), states)
    return sources


def plan_of(prepared: Prepared, training: Training, prior: Sequence[PriorImage]) -> Plan:
    """Everything that decides the LoRA's tensors; a run folder goes on only with the same."""
    project = prepared.project
    settings = project.training.model_dump(mode="json", exclude=UNIMPORTANT)
    methods = {
        name: method.model_dump(mode="json") for name, method in training.regularizers.items() if method.active()
    }
    facts = {
        "base": prepared.base.hash,
        "training": settings,
        "start_from": _content(project.training.start_from),
        "regularizers": methods,
        "data.variation": project.data.variation.model_dump(mode="json"),
        "data.background": project.data.background,
        "data.alpha": project.data.alpha,
        "pictures": digest([(item.id, item.bucket, item.repeats) for item in prepared.items]),
        "seed": training.seed,
        "version": VERSION,
    }
    if masks := [(item.id, hash_file(item.mask)) for item in prepared.items if item.mask]:
        facts["concepts.masks"] = digest(masks)
    if methods:
        facts |= {
            "concepts": [[concept.trigger, concept.class_word] for concept in prepared.concepts],
            "prior.ratio": dict(prepared.ratios),
            "prior images": digest([image.id for image in prior]),
            "controller images": digest([image.id for image in prepared.controller.images]),
        }
    return Plan(facts)


def _content(path: str | None) -> str:
    return hash_file(Path(path)) if path and Path(path).is_file() else ""


def _write_use(
    path: Path, prepared: Prepared, updates: Sequence[Update], prior: Sequence[PriorImage], ratios: Mapping[str, float]
) -> None:
    """Law 2: the three numbers, and which prior images are used and which are not."""
    use = usage(updates, prior)
    write_json(
        path,
        {
            "updates": len(updates),
            "epochs": prepared.length.epochs,
            "pool": len(prior),
            "ratio": dict(ratios),
            "weight": {name: m.weight for name, m in prepared.project.regularizers.items()},
            "prior_rows": use.draws,
            "used": dict(use.used),
            "unused": list(use.unused),
        },
    )


def _watches(prepared: Prepared, adapter: Adapter, latents: Latents) -> list[Watch]:
    """Drift without the trigger; with pictures set aside, the loss on them."""

    def row(item: Item, caption: str) -> Row:
        return Row(item.id, 0, "prior", item.bucket, caption, prepared.base.chunks(caption), latents(item))

    def bare(item: Item) -> str:
        own = next(concept for concept in prepared.concepts if concept.name == item.concept)
        return own.untriggered(item.caption)

    base, settings, seed = prepared.base, prepared.project.training, prepared.project.seed
    fitting = settings.micro_batch or settings.batch  # rows that fit into memory with their gradients
    drift = DriftWatch(base, adapter, [row(item, bare(item)) for item in prepared.items[:WATCHED]], seed, fitting)
    if not prepared.validation:
        return [drift]
    kept_out = [row(item, item.caption) for item in prepared.validation[:WATCHED]]
    return [drift, ValidationWatch(base, adapter, kept_out, seed, fitting)]


def _draw_samples(prepared: Prepared, folder: Path, update: int) -> None:
    project, base = prepared.project, prepared.base
    prompts = project.training.sample_prompts or (prepared.items[0].caption,)
    size, settings = base.geometry.native, project.sampler()
    for number, prompt in enumerate(prompts):
        passes = max(base.chunks(prompt), base.chunks(settings.negative))
        with torch.no_grad():
            cond = base.encode_text([prompt], [size], passes)
            uncond = base.encode_text([settings.negative], [size], passes)
        drawn = sample(base, cond, uncond, size, [seed_for(project.seed, "training sample", number=number)], settings)
        save_picture(folder / "samples" / f"{update:06d}-{number}.png", base.decode(drawn)[0].cpu())


@dataclass(frozen=True)
class TrainTask:
    """A training as a `Task`: it opens everything anew, and goes on from wherever its folder stands."""

    project: Project
    training: Training

    @property
    def name(self) -> str:
        return f"training {self.training.arm}, seed {self.training.seed}"

    @property
    def together(self) -> bool:
        return False

    @property
    def counted_by(self) -> str:
        return "training"

    def __call__(self, listener: Listener, stop: Stop) -> Done:
        known = without_notes(listener)  # whoever made the prior set has said it
        prepared = prepare(self.project, known)
        store, images = build_prior(prepared, known, stop)
        lora = train_arm(prepared, self.training, store, images, listener, stop)
        return finished(prepared, self.training, lora, images)


def train_all(
    prepared: Prepared,
    folder: Path,
    listener: Listener = silent,
    stop: Stop = NEVER,
    ranks: Ranks = ALONE,
) -> list[Done]:
    """Build the prior set, train every arm at every seed; what is there already is not made again.

    Several ranks build and train together: an update's rows are shared out, its result is the same but for rounding.
    """
    refuse(prepared, ranks)
    wanted = trainings(prepared.project, folder)
    for training in wanted if ranks.first else ():
        RunFolder(training.folder).check()
    _tell_shares(prepared, ranks, listener)
    stage(listener, "prior set")
    store, prior = build_prior(prepared, listener, stop, folder / "prior" if ranks.first else None)
    elsewhere = _trained_side_by_side(prepared, wanted, listener, stop) if ranks.count == 1 else {}
    done = []
    for training in wanted:
        if training.folder in elsewhere:
            done.append(elsewhere[training.folder])
            continue
        stage(listener, f"training {training.arm}, seed {training.seed}")
        lora = train_arm(prepared, training, store, prior, listener, stop, ranks)
        done.append(finished(prepared, training, lora, prior))
    return done


def _trained_side_by_side(
    prepared: Prepared, wanted: Sequence[Training], listener: Listener, stop: Stop
) -> dict[Path, Done]:
    """Folder -> what came of it, where several trainings are lacking and are to be under way at once."""
    workers = at_once(prepared.project, prepared.base.device)
    lacking = [own for own in wanted if not RunFolder(own.folder).lora.is_file()]
    if min(workers, len(lacking)) < 2:
        return {}
    longest_first = sorted(lacking, key=lambda own: len(own.regularizers), reverse=True)
    tasks = [TrainTask(prepared.project, own) for own in longest_first]
    return {done.training.folder: done for done in SideBySide(workers)(tasks, listener, stop)}


def _tell_shares(prepared: Prepared, ranks: Ranks, listener: Listener) -> None:
    rows, asked = prepared.project.training.batch, prepared.project.arms.at_once
    if asked > 1 and (prepared.base.device.type != "cpu" or ranks.count > 1):
        note(listener, f"arms.at_once = {asked} is for one process on a CPU: here trainings follow one another")
    if ranks.count > 1:
        note(listener, f"{ranks.count} processes share the {rows} instance rows of every update, and its prior rows")
    if ranks.count > rows:
        warn(
            listener,
            f"{ranks.count} processes for {rows} instance rows: some have next to nothing to do; training.batch is the "
            "whole update's, not each process's",
        )


def finished(prepared: Prepared, training: Training, lora: Path, prior: Sequence[PriorImage]) -> Done:
    """A training with what its prior set cost, also when that was taken from the store."""
    used = [image for image in prior if image.kind == "generated"] if training.regularizers else []
    sensor = prepared.controller if training.regularizers else None
    forwards = float(len(used) * prepared.project.prior_sampler().forwards()) + (sensor.forwards if sensor else 0)
    return Done(training, lora, sum(image.seconds for image in used), forwards)
