"""Everything that can be known before long work: base, pictures, prompts, plan, audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import check_file
from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item, scan, split_validation
from tenuto.data.problems import Problem
from tenuto.data.schedule import Arithmetic, PriorItem, Update, arithmetic, plan_updates, usage
from tenuto.evaluation.arms import check_settings
from tenuto.events import Listener, note, silent, stage, warn
from tenuto.families.base import Base, Geometry
from tenuto.families.checkpoints import fetch_base, find_base, open_base
from tenuto.families.survey import same_layers
from tenuto.prior.audit import AuditReport, ConceptPlan, TrainingPlan, audit
from tenuto.prior.plan import PriorPlan, plan_prior
from tenuto.prior.prompts import PriorPrompt, derive_prompts, partial_filters, thinned
from tenuto.project.settings import BaseSettings, ConceptSettings, Project
from tenuto.regularizers.explained import held_by
from tenuto.words import TenutoError
from tenuto.work.controller import ControllerPlan, plan_controller
from tenuto.work.memory import Memory
from tenuto.work.needs import lacks, shipping
from tenuto.work.readers import find_readers

DEFAULT_EPOCHS = 10
MOST = 10_000_000
"""Rows or images that a plan may hold: a hundred times what anybody has trained on."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Outlook:
    """A project with everything that can be known without the base's weights."""

    project: Project
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
    controller: ControllerPlan
    ratios: Mapping[str, float] = field(default_factory=dict)

    def updates(self, prior: Sequence[PriorItem], ratios: Mapping[str, float], seed: int) -> list[Update]:
        """Every update of a training, as data."""
        return plan_updates(
            self.items, prior, batch=self.project.training.batch, ratio=ratios, seed=seed, **length_of(self.project)
        )


@dataclass(frozen=True, kw_only=True)
class Prepared(Outlook):
    """The same with the base opened."""

    base: Base


def length_of(project: Project) -> dict[str, int]:
    """How long the project trains, as the schedule takes it."""
    training = project.training
    if training.steps is not None:
        return {"updates": training.steps}
    return {"epochs": training.epochs or DEFAULT_EPOCHS}


def open_as(asked: BaseSettings, precision: str) -> Base:
    """The checkpoint as a project wants it. Raises TenutoError."""
    return open_base(
        asked.model,
        device=asked.device,
        dtype=PRECISIONS[precision],
        vae=asked.vae,
        clip_skip=asked.clip_skip,
        fp8=asked.fp8,
        prediction=asked.prediction,
        zero_terminal_snr=asked.zero_terminal_snr,
    )


class KeptOpen:
    """For one project after another: the checkpoint that was asked for last stays open, and never two do."""

    def __init__(self) -> None:
        self._asked: tuple[BaseSettings, str] | None = None
        self._base: Base | None = None

    def __call__(self, asked: BaseSettings, precision: str) -> Base:
        if self._base is None or self._asked != (asked, precision):
            self._base = None
            self._base, self._asked = open_as(asked, precision), (asked, precision)
        return self._base


def prepare(
    project: Project, listener: Listener = silent, opened: Callable[[BaseSettings, str], Base] = open_as
) -> Prepared:
    """Open the base, read pictures and captions, derive prompts, plan the prior set. Raises TenutoError."""
    project.training.optimizer.check()
    stage(listener, f"opening {project.base.model}")
    base = opened(project.base, project.training.precision)
    for text in base.notes:
        note(listener, text)
    check_settings(project.comparison)
    _check_loras(project, base)
    if (other := project.comparison.other_base) is not None:
        check_other_base(project.base.model, other)
    find_readers(project, None)
    return Prepared(**vars(look_ahead(project, base.geometry)), base=base)


def look_ahead(project: Project, geometry: Geometry, pictures: Pictures | None = None) -> Outlook:
    """Derive prompts and plan the prior set for a base of this geometry. Raises TenutoError.

    pictures: those that were read before, where only numbers have changed since.
    """
    concepts = concepts_of(project)
    read = pictures or read_pictures(project, geometry)
    items, validation = split_validation(read.items, project.data.validation, project.seed)
    bank = bank_of(project)
    ratios = _ratios(project, read.foreign)
    if not items:
        raise TenutoError(f"{project.concepts[0].images}: no usable picture; " + "; ".join(map(str, read.problems[:3])))
    length = arithmetic(items, batch=project.training.batch, ratio=ratios, **length_of(project))
    _refuse_endless("rows are trained", length.instance_rows + length.prior_rows)
    _refuse_endless("rows make an epoch", length.rows_per_epoch)
    prompts = _prompts(project, concepts, items, bank, ratios, length)
    plan = plan_prior(prompts, project.prior_sampler(), seed=project.prior.seed, batch=project.prior.batch)
    return Outlook(
        project, concepts, tuple(items), tuple(validation), read.foreign, read.problems, bank, length,
        tuple(prompts), plan, plan_controller(project, concepts, items, bank, prompts), ratios,
    )  # fmt: skip


def concepts_of(project: Project) -> tuple[Concept, ...]:
    """What is to be learned, each knowing the others' triggers."""

    def others(own: ConceptSettings) -> tuple[str, ...]:
        return tuple(other.trigger for other in project.concepts if other is not own and other.trigger)

    return tuple(
        Concept(own.name, own.kind, own.trigger, own.class_word, Path(own.images), others(own))
        for own in project.concepts
    )


@dataclass(frozen=True)
class Pictures:
    """What the project's folders hold."""

    items: tuple[Item, ...]
    foreign: tuple[Item, ...]
    problems: tuple[Problem, ...]


def read_pictures(project: Project, geometry: Geometry) -> Pictures:
    """Every picture is decoded once."""
    items, problems = _read_instances(project, geometry)
    foreign, more = _read_foreign(project, geometry)
    return Pictures(tuple(items), tuple(foreign), (*problems, *more))


def _check_loras(project: Project, base: Base) -> None:
    """Files that are needed only after long work must fit the base now. Raises TenutoError."""
    if project.training.start_from:
        check_file(base, read_lora(Path(project.training.start_from)), to_train=True)
    if project.comparison.second_lora:
        check_file(base, read_lora(Path(project.comparison.second_lora)))


def _refuse_endless(what: str, count: int) -> None:
    """A slip of the finger would have to be planned for hours before anybody could see it."""
    if count > MOST:
        raise TenutoError(
            f"by these settings {float(min(count, 10**300)):.3g} {what}, more than {MOST:,}; lower training.epochs or "
            "steps, concepts.repeats, prior.ratio or prior.per_image"
        )


def check_other_base(model: str, other: str) -> None:
    """The LoRAs, which are not there yet, will fit the checkpoint that is opened last. Raises TenutoError."""
    if isinstance(place := find_base(other), str):
        fetch_base(place)
    if not same_layers(model, other):
        raise TenutoError(
            f"{other}: comparison.other_base has other layers than {model}, so that no LoRA of it fits; "
            "name a checkpoint of the same family"
        )


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
    own = beside_base(project, "bank.toml")
    return Bank.load(own) if own else Bank.bundled()


def beside_base(project: Project, name: str) -> Path | None:
    """A file or folder that the checkpoint carries (bank.toml, tagger)."""
    source = find_base(project.base.model)
    found = source / name if isinstance(source, Path) else None
    return found if found is not None and found.exists() else None


def read_folder(
    project: Project, geometry: Geometry, folder: str, concept: str, **more: Any
) -> tuple[list[Item], list[Problem]]:
    data = project.data
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


def _read_instances(project: Project, geometry: Geometry) -> tuple[list[Item], list[Problem]]:
    items: list[Item] = []
    problems: list[Problem] = []
    sources = [
        (own.images, own.name, own.repeats, own.caption, Path(own.masks) if own.masks else None)
        for own in project.concepts
    ]
    first = project.concepts[0].name
    sources += [
        (own.path, own.concept or first, own.repeats, own.caption, None)
        for own in project.prior.folders
        if own.use == "instance"
    ]
    for folder, concept, repeats, caption, masks in sources:
        found, wrong = read_folder(
            project, geometry, folder, concept, repeats=repeats, default_caption=caption, masks=masks
        )
        items += found
        problems += wrong
    return items, problems


def _read_foreign(project: Project, geometry: Geometry) -> tuple[list[Item], list[Problem]]:
    items: list[Item] = []
    problems: list[Problem] = []
    for own in project.prior.folders:
        if own.use == "prior":
            found, wrong = read_folder(
                project, geometry, own.path, own.concept, role="prior", default_caption=own.caption
            )
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
        count = sum(item.concept == concept.name for item in items)
        if not (ratios[concept.name] and count):
            continue
        repeats = sum(item.repeats for item in items if item.concept == concept.name)
        drawn = length.instance_rows * repeats / length.rows_per_epoch * ratios[concept.name]
        enough = ceil(drawn / project.visits())
        per_image = ceil(enough / count) if settings.per_image is None else settings.per_image
        _refuse_endless("prior images are made", per_image * count)
        own_prompts = derive_prompts(items, concept, bank, settings, seed=project.prior.seed, per_image=per_image)
        few = settings.per_image is None and 0 < enough < count
        prompts += thinned(own_prompts, enough) if few else own_prompts
    return prompts


def lacking(prepared: Outlook) -> list[Problem]:
    """What the methods cannot do without, and do not get."""
    own = prepared
    return lacks(own.project, own.concepts, own.items, own.validation, ratios=own.ratios, prompts=own.prompts)


def audited(prepared: Outlook) -> AuditReport:
    """The plan of law 2, and everything that was found; what memory it takes, where the base is open."""
    project = prepared.project
    weights = [m.weight for m in project.regularizers.values() if m.active() and m.needs_prior()]
    visits = project.visits()
    fewest = max((m.fewest_ratio() for m in project.regularizers.values() if m.active()), default=0.0)
    plans = [
        ConceptPlan(
            concept,
            settings.mode_for(concept.kind),
            prepared.ratios[concept.name],
            settings.captions,
            visits,
            fewest,
        )
        for concept, own in zip(prepared.concepts, project.concepts, strict=True)
        for settings in [project.prior_of(own)]
    ]
    images: list[PriorItem] = [*prepared.plan.images, *prepared.foreign]
    pool = Counter((image.concept, image.bucket) for image in images)
    owners = {concept for concept, _ in pool}
    drawable = all(owners & {name, ""} for name, ratio in prepared.ratios.items() if ratio)
    memory = Memory(prepared, PRECISIONS) if isinstance(prepared, Prepared) else None
    report = audit(
        prepared.items,
        (
            *prepared.problems,
            *lacking(prepared),
            *shipping(project),
            *(memory.problems() if memory else ()),
        ),
        plans,
        prepared.prompts,
        pool,
        TrainingPlan(project.training.batch, **length_of(project), weight=max(weights, default=None)),
        foreign=prepared.foreign,
        usage=usage(prepared.updates(images, prepared.ratios, project.seed), images) if drawable else None,
        partial=partial_filters(prepared.prompts, project.prior),
    )
    active = {name: method for name, method in project.regularizers.items() if method.active()}
    report = replace(report, sentences=(*report.sentences, held_by(active)))
    return replace(report, memory=tuple(memory.sentences())) if memory else report


def announce(prepared: Outlook, listener: Listener) -> None:
    """Say the plan and its cost before any long work. Raises TenutoError when something would spoil the result."""
    report = audited(prepared)
    if report.errors:
        more = f" (and {len(report.errors) - 1} more: `tenuto audit` lists them)" if len(report.errors) > 1 else ""
        raise TenutoError(f"{report.errors[0]}{more}")
    if start := prepared.project.training.start_from:
        note(listener, f"training goes on from {start}: its layers, ranks and alphas stand for training.adapter")
    for sentence in (*report.sentences, *report.memory):
        note(listener, sentence)
    for problem in report.warnings:
        warn(listener, str(problem))
    note(listener, f"prior set: {len(prepared.plan.images)} images = {prepared.plan.forwards:,} forwards of the base")
    if paths := len(prepared.controller.images):
        note(listener, f"controller: {paths} paths at prompts of its own = {prepared.controller.forwards:,} forwards")
