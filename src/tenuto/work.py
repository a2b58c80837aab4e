"""The main job, as functions that every face (command line, page, sweep) calls:

prepare -> audit -> build_prior -> train_arm (plain, held) -> compare_arms -> report
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil
from pathlib import Path
from typing import Any

import torch

from tenuto import __version__
from tenuto.adapters.adapter import Adapter
from tenuto.adapters.files import attach_file, read_lora
from tenuto.data.bank import Bank
from tenuto.data.cache import Cache
from tenuto.data.dataset import Concept, Item, scan, split_validation
from tenuto.data.images import fit, read_image
from tenuto.data.problems import Problem
from tenuto.data.schedule import Arithmetic, PriorItem, Update, arithmetic, plan_updates, usage
from tenuto.data.tags import remove_trigger
from tenuto.evaluation.comparison import Arm, Trained, compare, save_picture
from tenuto.evaluation.report import Extras, PriorUse, write_report
from tenuto.evaluation.taggers import load_tagger
from tenuto.events import Listener, progress, silent, stage
from tenuto.families.base import Base
from tenuto.families.checkpoints import find_base, open_base
from tenuto.families.sampling import sample
from tenuto.files import cache_home, hash_file, hash_text, write_json, write_text
from tenuto.prior.audit import AuditReport, ConceptPlan, TrainingPlan, audit
from tenuto.prior.audit import AuditReport, ConceptPlan, TrainingPlan, audit
from tenuto.prior.build import ForeignPicture, build, take_in
from tenuto.prior.plan import PriorPlan, plan_prior
from tenuto.prior.prompts import PriorPrompt, derive_prompts, partial_filters, partial_filters
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.project import ConceptSettings, Project
from tenuto.randomness import seed_for
from tenuto.regularizers.base import Regularizer
from tenuto.training.journal import Journal
from tenuto.training.loop import Run, Stopped, train
from tenuto.training.rows import Row, Source
from tenuto.training.sources import InstanceSource, Latents, PriorSource
from tenuto.training.watch import DriftWatch
from tenuto.words import TenutoError

NEVER: Callable[[], bool] = lambda: False  # noqa: E731
WATCHED = 8
"""Prompts that the live drift reading looks at."""
DEFAULT_EPOCHS = 10
SHOWN = 24
"""Prior images in the report."""
UNIMPORTANT = {"save_every", "keep", "sample_every", "sample_prompts", "watch_every"}
"""Training settings that do not change the result: they may differ between an interrupted run and its resumption."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Prepared:
    """A project with everything read that can be known before any long work."""

    project: Project
    base: Base
    concepts: tuple[Concept, ...]
    items: tuple[Item, ...]
    """Instance items to train on."""
    validation: tuple[Item, ...]
    foreign: tuple[Item, ...]
    """The user's own reg pictures."""
    problems: tuple[Problem, ...]
    bank: Bank
    length: Arithmetic
    prompts: tuple[PriorPrompt, ...]
    plan: PriorPlan
    ratios: Mapping[str, float] = field(default_factory=dict)

    def updates(self, prior: Sequence[PriorItem], ratios: Mapping[str, float], seed: int) -> list[Update]:
        """Every update of a training, as data."""
        return plan_updates(
            self.items, prior, batch=self.project.training.batch, ratio=ratios, seed=seed, **length_of(self.project)
        )


def length_of(project: Project) -> dict[str, int]:
    """How long the project trains, as the schedule takes it."""
    training = project.training
    if training.steps is not None:
        return {"updates": training.steps}
    return {"epochs": training.epochs or DEFAULT_EPOCHS}


def prepare(project: Project, listener: Listener = silent) -> Prepared:
    """Open the base, read pictures and captions, derive prompts, plan the prior set. Raises TenutoError."""
    stage(listener, f"opening {project.base.model}")
    base = open_base(project.base.model, device=project.base.device, dtype=PRECISIONS[project.training.precision])
    concepts = tuple(
        Concept(own.name, own.kind, own.trigger, own.class_word, Path(own.images)) for own in project.concepts
    )
    found, problems = _read_instances(project, base)
    items, validation = split_validation(found, project.data.validation, project.seed)
    foreign, more = _read_foreign(project, base)
    bank = bank_of(project)
    ratios = _ratios(project, foreign)
    if not items:
        raise TenutoError(f"{project.concepts[0].images}: no usable picture; " + "; ".join(map(str, problems[:3])))
    length = arithmetic(items, batch=project.training.batch, ratio=ratios, **length_of(project))
    prompts = _prompts(project, concepts, items, bank, ratios, length)
    plan = plan_prior(prompts, project.prior.sampler, seed=project.prior.seed, batch=project.prior.batch)
    return Prepared(
        project, base, concepts, tuple(items), tuple(validation), tuple(foreign), (*problems, *more), bank, length,
        tuple(prompts), plan, ratios,
    )  # fmt: skip


def _ratios(project: Project, foreign: Sequence[Item]) -> dict[str, float]:
    """Prior rows per instance row: none where no prior is made and no picture of the user's stands in for it."""
    wanted, owners = project.ratios(), {item.concept for item in foreign}

    def has_pool(own: ConceptSettings) -> bool:
        return project.prior_of(own).mode_for(own.kind) != "none" or bool(owners & {own.name, ""})

    return {own.name: wanted[own.name] if has_pool(own) else 0.0 for own in project.concepts}


def _ratios(project: Project, foreign: Sequence[Item]) -> dict[str, float]:
    """Prior rows per instance row: none where no prior is made and no picture of the user's stands in for it."""
    wanted, owners = project.ratios(), {item.concept for item in foreign}

    def has_pool(own: ConceptSettings) -> bool:
        return project.prior_of(own).mode_for(own.kind) != "none" or bool(owners & {own.name, ""})

    return {own.name: wanted[own.name] if has_pool(own) else 0.0 for own in project.concepts}


def bank_of(project: Project) -> Bank:
    """The user's prompt bank, the checkpoint's own, or the one that ships."""
    if project.prior.bank:
        return Bank.load(project.prior.bank)
    own = _beside_base(project, "bank.toml")
    return Bank.load(own) if own else Bank.bundled()


def _beside_base(project: Project, name: str) -> Path | None:
    """A file or folder that the checkpoint carries (bank.toml, tagger)."""
    source = find_base(project.base.model)
    found = source / name if isinstance(source, Path) else None
    return found if found is not None and found.exists() else None


def _scan(project: Project, base: Base, folder: str, concept: str, **more: Any) -> tuple[list[Item], list[Problem]]:
    data, geometry = project.data, base.geometry
    return scan(
        Path(folder),
        concept=concept,
        buckets=data.buckets.sizes(geometry.native, geometry.multiple),
        upscale=data.buckets.upscale,
        multiple=geometry.multiple,
        caption_extension=data.caption_extension,
        background=data.background,
        **more,
    )


def _read_instances(project: Project, base: Base) -> tuple[list[Item], list[Problem]]:
    items: list[Item] = []
    problems: list[Problem] = []
    sources = [(own.images, own.name, own.repeats, "") for own in project.concepts]
    first = project.concepts[0].name
    sources += [
        (own.path, own.concept or first, own.repeats, own.caption)
        for own in project.prior.folders
        if own.use == "instance"
    ]
    for folder, concept, repeats, caption in sources:
        found, wrong = _scan(project, base, folder, concept, repeats=repeats, default_caption=caption)
        items += found
        problems += wrong
    return items, problems


def _read_foreign(project: Project, base: Base) -> tuple[list[Item], list[Problem]]:
    items: list[Item] = []
    problems: list[Problem] = []
    for own in project.prior.folders:
        if own.use == "prior":
            found, wrong = _scan(project, base, own.path, own.concept, role="prior", default_caption=own.caption)
            items += found
            problems += wrong
    return items, problems


def _prompts(
    project: Project,
    concepts: Sequence[Concept],
    items: Sequence[Item],
    bank: Bank,
    ratios: Mapping[str, float],
    length: Arithmetic,
) -> list[PriorPrompt]:
    prompts: list[PriorPrompt] = []
    for concept, own in zip(concepts, project.concepts, strict=True):
        settings = project.prior_of(own)
        if not ratios[concept.name]:
            continue
        repeats = sum(item.repeats for item in items if item.concept == concept.name)
        count = sum(item.concept == concept.name for item in items)
        drawn = length.instance_rows * repeats / length.rows_per_epoch * ratios[concept.name]
        per_image = ceil(drawn / count) if settings.per_image is None else settings.per_image
        prompts += derive_prompts(
            items, concept, bank, settings, seed=project.prior.seed, per_image=per_image, others=concepts
        )
    return prompts


# -- prior ------------------------------------------------------------------------------------------------------


def open_store(prepared: Prepared) -> PriorStore:
    """Where this base's prior images are. Raises WrongBase."""
    place = prepared.project.prior.store
    return PriorStore.open(prepared.base.hash, Path(place) if place else None)


def build_prior(
    prepared: Prepared, listener: Listener = silent, stop: Callable[[], bool] = NEVER
) -> tuple[PriorStore, list[PriorImage]]:
    """The whole prior set: what is lacking is made; the user's own pictures join."""
    store = open_store(prepared)
    images = build(prepared.plan, prepared.base, store, listener=listener, stop=stop)
    background = prepared.project.data.background
    pictures = [
        ForeignPicture(item.path, item.content, item.caption, item.concept, item.bucket) for item in prepared.foreign
    ]
    foreign = take_in(pictures, prepared.base, store, lambda own: fit(read_image(own.path, background), own.bucket))
    return store, [*images, *foreign]


def preview(base: Base, store: PriorStore, image: PriorImage, folder: Path) -> Path:
    """A prior image as a PNG to look at; decoded only once."""
    path = folder / f"{image.id}.png"
    if not path.exists():
        save_picture(path, base.decode(store.latents(image.id)[None])[0].cpu())
    return path


def write_gallery(
    prepared: Prepared, store: PriorStore, images: Sequence[PriorImage], target: Path, listener: Listener = silent
) -> None:
    """A page of all prior images with their prompts; the pictures go into a folder beside it."""
    folder = target.with_suffix("")
    rows = []
    for number, image in enumerate(images, start=1):
        picture = preview(prepared.base, store, image, folder).relative_to(target.parent)
        rows.append(f'<figure><img src="{picture.as_posix()}"><figcaption>{escape(image.prompt)}</figcaption></figure>')
        progress(listener, "decoding previews", number, len(images))
    style = "figure{display:inline-block;width:14em;margin:.5em;font:12px sans-serif}img{width:100%}"
    write_text(
        target, f"<!doctype html><meta charset=utf-8><title>prior set</title><style>{style}</style>" + "".join(rows)
    )


# -- training ---------------------------------------------------------------------------------------------------


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
    adapter = _adapter(project, base, training.seed)
    try:
        run = Run(
            base=base,
            adapter=adapter,
            settings=project.training,
            regularizers=training.regularizers,
            updates=updates,
            sources=_sources(prepared, training.seed, latents, store, prior, captions),
            rows_per_epoch=prepared.length.rows_per_epoch,
            seed=training.seed,
            folder=training.folder,
            plan=fingerprint(prepared, training, prior),
            metadata=_metadata(prepared, training, updates, prior),
            listener=listener,
            stop=stop,
            watch={"drift": _watch(prepared, adapter, latents)} if project.training.watch_every else {},
            sample=lambda update: _draw_samples(prepared, training.folder, update),
        )
        write_text(training.folder / "project.toml", project.to_toml())
        _write_use(training.folder / "plan.json", prepared, updates, prior, ratios)
        return train(run)
    finally:
        base.checkpointing(False)
        adapter.detach()


def _adapter(project: Project, base: Base, seed: int) -> Adapter:
    if project.training.start_from:
        return attach_file(base, read_lora(Path(project.training.start_from)))
    return Adapter.attach(base, project.training.adapter, seed)


def _sources(
    prepared: Prepared,
    seed: int,
    latents: Latents,
    store: PriorStore,
    prior: Sequence[PriorImage],
    captions: Mapping[str, str],
) -> dict[str, Source]:
    base, variation = prepared.base, prepared.project.data.variation
    triggers = {concept.name: concept.trigger for concept in prepared.concepts}
    sources: dict[str, Source] = {
        item.id: InstanceSource(item, triggers[item.concept], variation, seed, latents, base.chunks)
        for item in prepared.items
    }
    for image in prior:
        caption = captions.get(image.id, image.prompt)
        sources[image.id] = PriorSource(image, caption, store, base.chunks(caption))
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
        "items": [(item.id, item.bucket, item.repeats) for item in prepared.items],
        "ratios": dict(prepared.ratios) if methods else {},
        "prior": [image.id for image in prior] if methods else [],
        "seed": training.seed,
        "version": 1,
    }
    return hash_text(json.dumps(parts, sort_keys=True))


def _content(path: str | None) -> str:
    return hash_file(Path(path)) if path and Path(path).is_file() else ""


def _metadata(
    prepared: Prepared, training: Training, updates: Sequence[Update], prior: Sequence[PriorImage]
) -> dict[str, str]:
    """The LoRA's header: what a person or a tool needs to know where it came from."""
    use = usage(updates, prior)
    project = prepared.project
    methods = {name: method.model_dump(mode="json") for name, method in training.regularizers.items()}
    return {
        "tenuto_version": __version__,
        "tenuto_base_hash": prepared.base.hash,
        "tenuto_base_model": project.base.model if "/" not in project.base.model else Path(project.base.model).name,
        "tenuto_arm": training.arm,
        "tenuto_seed": str(training.seed),
        "tenuto_regularizers": json.dumps(methods, sort_keys=True),
        "tenuto_instance_images": str(len(prepared.items)),
        "tenuto_prior_images_used": str(len(use.used)),
        "tenuto_prior_images_unused": str(len(use.unused)),
        "tenuto_prior_rows": str(use.draws),
        "tenuto_triggers": ", ".join(concept.trigger for concept in prepared.concepts),
        "ss_steps": str(len(updates)),
        "ss_seed": str(training.seed),
        "ss_learning_rate": str(project.training.optimizer.lr),
        "ss_base_model_version": "sd_v1",
    }


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


def _watch(prepared: Prepared, adapter: Adapter, latents: Latents) -> DriftWatch:
    concepts = {concept.name: concept for concept in prepared.concepts}
    rows = []
    for item in prepared.items[:WATCHED]:
        own = concepts[item.concept]
        bare = remove_trigger(item.caption, own.trigger, own.class_word)
        rows.append(Row(item.id, 0, "prior", item.bucket, bare, prepared.base.chunks(bare), latents(item)))
    return DriftWatch(prepared.base, adapter, rows, prepared.project.seed)


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


# -- comparison -------------------------------------------------------------------------------------------------


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
    forwards = float(len(used) * prepared.project.prior.sampler.forwards())
    return Done(training, lora, sum(image.seconds for image in used), forwards)


def compare_arms(
    prepared: Prepared,
    done: Sequence[Done],
    folder: Path,
    listener: Listener = silent,
    stop: Callable[[], bool] = NEVER,
) -> list[Path]:
    """Measure every arm against the base and write a report per concept. Returns the report files."""
    project = prepared.project
    tagger_folder = project.comparison.tagger or _beside_base(project, "tagger")
    tagger = load_tagger(tagger_folder, prepared.base.device) if tagger_folder else None
    arms = [_arm(prepared, name, done) for name in dict.fromkeys(own.training.arm for own in done)]
    reports = []
    for concept, own in zip(prepared.concepts, project.concepts, strict=True):
        place = folder if len(prepared.concepts) == 1 else folder / concept.name
        stage(listener, f"comparing the arms on {concept.name}")
        test = _scan(project, prepared.base, own.test_images, concept.name)[0] if own.test_images else []
        result = compare(
            prepared.base,
            arms,
            concept,
            [item for item in prepared.items if item.concept == concept.name],
            prepared.bank,
            project.comparison,
            place,
            tagger=tagger,
            held_out=[item for item in prepared.validation if item.concept == concept.name],
            test_items=test,
            avoid={prompt.text for prompt in prepared.prompts},
            background=project.data.background,
            seed=project.seed,
            listener=listener,
            stop=lambda: _raise_if(stop()),
        )
        write_report(result, place, place / "report.html", extras=_extras(prepared, done, place))
        reports.append(place / "report.html")
    return reports


def _raise_if(asked: bool) -> None:
    if asked:
        raise Stopped("stopped; what was measured is kept, the same command goes on from there")


def _arm(prepared: Prepared, name: str, done: Sequence[Done]) -> Arm:
    own = [each for each in done if each.training.arm == name]
    methods = own[0].training.regularizers
    about = (
        "held by " + ", ".join(f"{n} (weight {m.weight:g})" for n, m in methods.items())
        if methods
        else "no regularization"
    )
    settings = prepared.project.training.model_dump(mode="json") | {
        "regularizers": {n: m.model_dump(mode="json") for n, m in methods.items()}
    }
    return Arm(name, tuple(_trained(each) for each in own), about, settings)


def _trained(done: Done) -> Trained:
    entries = Journal(done.training.folder / "log.jsonl").read()
    snapshots = {
        int(p.stem.rpartition("-")[2]): p for p in (done.training.folder / "snapshots").glob("lora-*.safetensors")
    }
    return Trained(
        seed=done.training.seed,
        lora=done.lora,
        checkpoints=dict(sorted(snapshots.items())),
        steps=int(entries[-1]["update"]),
        seconds=done.setup_seconds + sum(entry["seconds"] for entry in entries),
        forwards=done.setup_forwards + entries[-1]["forwards"],
        setup_seconds=done.setup_seconds,
        setup_forwards=done.setup_forwards,
        log=done.training.folder / "log.jsonl",
    )


def _extras(prepared: Prepared, done: Sequence[Done], folder: Path) -> Extras:
    """What the report shows of the plan: the three numbers of law 2, the pictures, how to make it again."""
    project = prepared.project
    held = next((each for each in done if each.training.regularizers), None)
    return Extras(
        title=project.name or project.concepts[0].name,
        prior=_prior_use(prepared, held, folder) if held else None,
        instance=tuple(item.path for item in prepared.items[:12]),
        commands=("tenuto run project.toml",),
        project=project.to_toml(),
    )


def _prior_use(prepared: Prepared, held: Done, folder: Path) -> PriorUse:
    plan = json.loads((held.training.folder / "plan.json").read_text(encoding="utf-8"))
    store = open_store(prepared)
    shown = [store.record(name) for name in list(plan["used"])[:SHOWN] if name in store]
    weights = ", ".join(
        f"{name} {method.weight:g}, {method.schedule.shape}" for name, method in held.training.regularizers.items()
    )
    return PriorUse(
        pool=plan["pool"],
        ratio=prepared.project.prior.ratio,
        weight=weights,
        used=len(plan["used"]),
        draws=plan["prior_rows"],
        unused=tuple(plan["unused"]),
        previews=tuple(preview(prepared.base, store, image, folder / "prior") for image in shown),
        prompts=tuple(image.prompt for image in shown),
    )


def run_project(
    project: Project, folder: Path, listener: Listener = silent, stop: Callable[[], bool] = NEVER
) -> list[Path]:
    """The whole job: prior set, trainings, comparison, report. Call it again to go on. Returns the reports."""
    prepared = prepare(project, listener)
    refuse_errors(prepared)
    done = train_all(prepared, folder, listener, stop)
    return compare_arms(prepared, done, folder, listener, stop)


def audited(prepared: Prepared) -> AuditReport:
    """The plan of law 2, and everything that was found."""
    project = prepared.project
    weights = [m.weight for m in project.regularizers.values() if m.active() and m.needs_prior()]
    plans = [
        ConceptPlan(concept, settings.mode_for(concept.kind), prepared.ratios[concept.name], settings.captions)
        for concept, own in zip(prepared.concepts, project.concepts, strict=True)
        for settings in [project.prior_of(own)]
    ]
    images: list[PriorItem] = [*prepared.plan.images, *prepared.foreign]
    pool = Counter((image.concept, image.bucket) for image in images)
    owners = {concept for concept, _ in pool}
    drawable = all(owners & {name, ""} for name, ratio in prepared.ratios.items() if ratio)
    return audit(
        prepared.items,
        prepared.problems,
        plans,
        prepared.prompts,
        pool,
        TrainingPlan(project.training.batch, **length_of(project), weight=max(weights, default=None)),
        foreign=prepared.foreign,
        usage=usage(prepared.updates(images, prepared.ratios, project.seed), images) if drawable else None,
        partial=partial_filters(prepared.prompts, project.prior),
    )


def audited(prepared: Prepared) -> AuditReport:
    """The plan of law 2, and everything that was found."""
    project = prepared.project
    weights = [m.weight for m in project.regularizers.values() if m.active() and m.needs_prior()]
    plans = [
        ConceptPlan(concept, settings.mode_for(concept.kind), prepared.ratios[concept.name], settings.captions)
        for concept, own in zip(prepared.concepts, project.concepts, strict=True)
        for settings in [project.prior_of(own)]
    ]
    images: list[PriorItem] = [*prepared.plan.images, *prepared.foreign]
    pool = Counter((image.concept, image.bucket) for image in images)
    owners = {concept for concept, _ in pool}
    drawable = all(owners & {name, ""} for name, ratio in prepared.ratios.items() if ratio)
    return audit(
        prepared.items,
        prepared.problems,
        plans,
        prepared.prompts,
        pool,
        TrainingPlan(project.training.batch, **length_of(project), weight=max(weights, default=None)),
        foreign=prepared.foreign,
        usage=usage(prepared.updates(images, prepared.ratios, project.seed), images) if drawable else None,
        partial=partial_filters(prepared.prompts, project.prior),
    )


def refuse_errors(prepared: Prepared) -> None:
    """Raises TenutoError when something was found that would spoil the result."""
    errors = audited(prepared).errors
    if errors:
        more = f" (and {len(errors) - 1} more: `tenuto audit` lists them)" if len(errors) > 1 else ""
        raise TenutoError(f"{errors[0]}{more}")
