"""Training the arms: plain and held, at every seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.files import attach_file, read_lora
from tenuto.data.cache import Cache
from tenuto.data.dataset import Item
from tenuto.data.schedule import Update, usage
from tenuto.data.tags import remove_trigger
from tenuto.evaluation.pictures import save_picture
from tenuto.events import Listener, silent, stage
from tenuto.families.base import Base
from tenuto.families.sampling import sample
from tenuto.files import cache_home, hash_file, hash_text, write_json, write_text
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.project import Project
from tenuto.randomness import seed_for
from tenuto.regularizers.base import Regularizer
from tenuto.training.journal import with_tensorboard
from tenuto.training.loop import Run, train
from tenuto.training.rows import Row, Source
from tenuto.training.sources import InstanceSource, Latents, MaskOf, PriorSource
from tenuto.training.watch import DriftWatch, ValidationWatch
from tenuto.words import TenutoError
from tenuto.work.header import training_header
from tenuto.work.needs import lacks, masks_of
from tenuto.work.prepare import Prepared
from tenuto.work.prior import build_controller, build_prior

WATCHED = 8
"""Pictures that each live reading looks at, at most."""
UNIMPORTANT = {"save_every", "keep", "sample_every", "sample_prompts", "watch_every", "tensorboard", "tags_in_file"}
"""Training settings that do not change the result: they may differ between an interrupted run and its resumption."""
NEVER: Callable[[], bool] = lambda: False  # noqa: E731


@dataclass(frozen=True)
class Training:
    """One training that is to be done: an arm of the comparison at one seed."""

    arm: str
    regularizers: Mapping[str, Regularizer]
    seed: int
    folder: Path


def train_arm(
    prepared: Prepared,
    training: Training,
    store: PriorStore,
    prior: Sequence[PriorImage],
    listener: Listener = silent,
    stop: Callable[[], bool] = NEVER,
) -> Path:
    """Train one LoRA, from wherever its folder stands; returns the file."""
    project, base = prepared.project, prepared.base
    wants_prior = any(method.active() and method.needs_prior() for method in training.regularizers.values())
    ratios = prepared.ratios if wants_prior else dict.fromkeys(prepared.ratios, 0.0)
    updates = prepared.updates(prior, ratios, training.seed)
    captions = {image.id: image.caption for image in prepared.plan.images}
    latents = Latents(base, Cache(cache_home() / "latents"), project.data.background)
    masks = masks_of(project, base)
    if project.training.tensorboard:
        listener = with_tensorboard(listener, training.folder / "tensorboard")
    sensed = any(method.active() and method.needs_sensor() for method in training.regularizers.values())
    sensor = build_controller(prepared, store, listener, stop) if sensed else []
    adapter = _adapter(project, base, training.seed)
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
            plan=fingerprint(prepared, training, prior),
            metadata=training_header(prepared, training, updates, prior),
            sensor=sensor,
            listener=listener,
            stop=stop,
            watch=_watches(prepared, adapter, latents) if project.training.watch_every else {},
            sample=lambda update: _draw_samples(prepared, training.folder, update),
        )
        write_text(training.folder / "project.toml", project.to_toml())
        _write_use(training.folder / "plan.json", prepared, updates, prior, ratios)
        return train(run)
    finally:
        base.checkpointing(False)
        adapter.detach()


def refuse(prepared: Prepared) -> None:
    """What a method cannot do without is asked for before any long work."""
    for problem in lacks(prepared.project, prepared.base, prepared.concepts, prepared.items):
        raise TenutoError(str(problem))


def _adapter(project: Project, base: Base, seed: int) -> Adapter:
    if project.training.start_from:
        return attach_file(base, read_lora(Path(project.training.start_from)), to_train=True)
    return Adapter.attach(base, project.training.adapter, seed)


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
    own = {concept.name: (concept.trigger, concept.class_word) for concept in prepared.concepts}
    sources: dict[str, Source] = {
        item.id: InstanceSource(item, *own[item.concept], variation, seed, latents, base.chunks, masks)
        for item in prepared.items
    }
    states = prepared.project.states()
    for image in prior:
        caption = captions.get(image.id, image.prompt)
        sources[image.id] = PriorSource(image, caption, store, base.chunks(caption), states)
    return sources


def fingerprint(prepared: Prepared, training: Training, prior: Sequence[PriorImage]) -> str:
    """Of everything that decides the LoRA's tensors; a run folder goes on only with the same."""
    project = prepared.project
    settings = project.training.model_dump(mode="json", exclude=UNIMPORTANT)
    methods = {
        name: method.model_dump(mode="json") for name, method in training.regularizers.items() if method.active()
    }
    parts = {
        "base": prepared.base.hash,
        "training": settings,
        "start": _content(project.training.start_from),
        "regularizers": methods,
        "variation": project.data.variation.model_dump(mode="json"),
        "background": project.data.background,
        "alpha": project.data.alpha,
        "classes": [(concept.trigger, concept.class_word) for concept in prepared.concepts] if methods else [],
        "items": [(item.id, item.bucket, item.repeats) for item in prepared.items],
        "ratios": dict(prepared.ratios) if methods else {},
        "prior": [image.id for image in prior] if methods else [],
        "controller": [image.id for image in prepared.controller.images] if methods else [],
        "seed": training.seed,
        "version": 1,
    }
    return hash_text(json.dumps(parts, sort_keys=True))


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


def _watches(prepared: Prepared, adapter: Adapter, latents: Latents) -> dict[str, Callable[[], float]]:
    """Drift without the trigger; with pictures set aside, the loss on them."""

    def row(item: Item, caption: str) -> Row:
        return Row(item.id, 0, "prior", item.bucket, caption, prepared.base.chunks(caption), latents(item))

    def bare(item: Item) -> str:
        own = next(concept for concept in prepared.concepts if concept.name == item.concept)
        return remove_trigger(item.caption, own.trigger, own.class_word)

    base, seed = prepared.base, prepared.project.seed
    drift = DriftWatch(base, adapter, [row(item, bare(item)) for item in prepared.items[:WATCHED]], seed)
    if not prepared.validation:
        return {"drift": drift}
    kept_out = [row(item, item.caption) for item in prepared.validation[:WATCHED]]
    return {"drift": drift, "validation": ValidationWatch(base, kept_out, seed)}


def _draw_samples(prepared: Prepared, folder: Path, update: int) -> None:
    project, base = prepared.project, prepared.base
    prompts = project.training.sample_prompts or (prepared.items[0].caption,)
    size, settings = base.geometry.native, project.prior.sampler
    for number, prompt in enumerate(prompts):
        passes = max(base.chunks(prompt), base.chunks(settings.negative))
        with torch.no_grad():
            cond = base.encode_text([prompt], [size], passes)
            uncond = base.encode_text([settings.negative], [size], passes)
        drawn = sample(base, cond, uncond, size, [seed_for(project.seed, "training sample", number=number)], settings)
        save_picture(folder / "samples" / f"{update:06d}-{number}.png", base.decode(drawn)[0].cpu())


@dataclass(frozen=True)
class Done:
    """One finished training."""

    training: Training
    lora: Path
    setup_seconds: float
    setup_forwards: float


def trainings(project: Project, folder: Path) -> list[Training]:
    """Every training of the project: each arm at each seed."""
    methods = {"plain": {}, "held": project.regularizers} if project.arms.plain else {"held": project.regularizers}
    return [
        Training(arm, own, seed, folder / arm / f"seed-{seed}")
        for seed in project.arms.seeds or (project.seed,)
        for arm, own in methods.items()
    ]


def train_all(
    prepared: Prepared, folder: Path, listener: Listener = silent, stop: Callable[[], bool] = NEVER
) -> list[Done]:
    """Build the prior set, train every arm at every seed; what is there already is not made again."""
    refuse(prepared)
    stage(listener, "prior set")
    store, prior = build_prior(prepared, listener, stop)
    done = []
    for training in trainings(prepared.project, folder):
        stage(listener, f"training {training.arm}, seed {training.seed}")
        lora = train_arm(prepared, training, store, prior, listener, stop)
        done.append(finished(prepared, training, lora, prior))
    return done


def finished(prepared: Prepared, training: Training, lora: Path, prior: Sequence[PriorImage]) -> Done:
    """A training with what its prior set cost, also when that was taken from the store."""
    used = [image for image in prior if image.kind == "generated"] if training.regularizers else []
    sensor = prepared.controller if training.regularizers else None
    forwards = float(len(used) * prepared.project.prior.sampler.forwards()) + (sensor.forwards if sensor else 0)
    return Done(training, lora, sum(image.seconds for image in used), forwards)
