"""The audit: everything that would spoil a run or surprise its owner, and the plan of law 2, before any long work.

A pure function over what was read: it opens no file and draws nothing. How the report looks is the terminal's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from tenuto.data.dataset import Concept, Item
from tenuto.data.problems import Problem
from tenuto.data.schedule import Arithmetic, Usage, arithmetic
from tenuto.prior.findings import duplicates, empty_prompts, enlarged, foreign_pictures, merged, words
from tenuto.prior.prompts import Mode, PartialFilter, PriorPrompt, RowCaption, lint
from tenuto.words import Size


@dataclass(frozen=True)
class ConceptPlan:
    """What is planned for one concept."""

    concept: Concept
    mode: Mode = "match"
    ratio: float = 1.0
    """Prior rows per instance row, as the run will draw them."""
    captions: RowCaption = "full"
    visits: int = 1
    """Uses that a prior image is good for: 1, or the states that are kept of its path."""
    fewest: float = 0.0
    """The ratio below which the weight of the prior rows is known to drown what is learned."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long and at what weight. Give `updates` or `epochs`."""

    batch: int
    updates: int | None = None
    epochs: int | None = None
    weight: float | None = None
    """Of the prior rows in the loss; None when no regularizer uses them."""


@dataclass(frozen=True)
class BucketLine:
    """One bucket of one concept."""

    concept: str
    bucket: Size
    images: int
    prior: int


@dataclass(frozen=True)
class ConceptLine:
    """The three numbers of one concept, and what they come to."""

    concept: str
    mode: Mode
    images: int
    rows_per_epoch: int
    distinct_prompts: int
    pool: int
    ratio: float
    weight: float | None
    instance_rows: float
    """In the whole run; a fraction where the run ends within an epoch."""
    prior_rows: float

    @property
    def unused(self) -> int:
        """Prior images that no row uses."""
        return max(0, self.pool - ceil(self.prior_rows))

    @property
    def uses(self) -> float:
        """Rows per prior image."""
        return self.prior_rows / self.pool if self.pool else 0.0


@dataclass(frozen=True)
class AuditReport:
    """Findings, errors first, and the plan."""

    problems: tuple[Problem, ...]
    concepts: tuple[ConceptLine, ...]
    buckets: tuple[BucketLine, ...]
    length: Arithmetic | None
    sentences: tuple[str, ...]
    """The arithmetic, spelled out."""
    memory: tuple[str, ...] = ()
    """What the device must hold, and which settings need less."""
    used: tuple[str, ...] = ()
    """Ids of prior images, where the run's usage was given."""
    unused: tuple[str, ...] = ()
    prompts: tuple[PriorPrompt, ...] = ()
    partial: tuple[PartialFilter, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What would spoil the result."""
        return tuple(problem for problem in self.problems if problem.level == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.level == "warning")

    @property
    def ok(self) -> bool:
        return not self.errors


def audit(
    items: Sequence[Item],
    problems: Sequence[Problem],
    plans: Sequence[ConceptPlan],
    prompts: Sequence[PriorPrompt],
    pool: Mapping[tuple[str, Size], int],
    training: TrainingPlan,
    *,
    foreign: Sequence[Item] = (),
    usage: Usage | None = None,
    partial: Sequence[PartialFilter] = (),
) -> AuditReport:
    """Judge a whole project.

    `problems`: found while scanning. `pool`: prior images per (concept, bucket), planned or present; concept "" is
    everybody's. `foreign`: the user's own reg pictures. `usage`: what the run's plan does with the pool, where known.
    """
    instance = [item for item in items if item.role == "instance"]
    concepts = [plan.concept for plan in plans]
    length = _length(instance, plans, training)
    lines = tuple(_line(plan, plans, instance, prompts, pool, training, length) for plan in plans)
    found = [
        *problems,
        *(finding for concept in concepts for finding in words(concept, instance)),
        *duplicates(instance),
        *enlarged(instance),
        *lint(prompts, concepts),
        *empty_prompts(prompts),
        *foreign_pictures(foreign, concepts),
        *(finding for plan, line in zip(plans, lines, strict=True) for finding in _prior(plan, line, instance, pool)),
        *_together(plans, instance, pool, training, length),
        *(Problem("warning", "prior.filters", str(filter), filter.remedy) for filter in partial),
    ]
    return AuditReport(
        problems=tuple(sorted(merged(found), key=lambda problem: problem.level != "error")),
        concepts=lines,
        buckets=tuple(_buckets(plans, instance, pool)),
        length=length,
        sentences=tuple(_sentences(lines, length, training, instance)),
        used=tuple(usage.used) if usage else (),
        unused=usage.unused if usage else (),
        prompts=tuple(prompts),
        partial=tuple(partial),
    )


# -- What only the plan shows ----------------------------------------------------------------------------------------


def _prior(
    plan: ConceptPlan, line: ConceptLine, items: Sequence[Item], pool: Mapping[tuple[str, Size], int]
) -> Iterable[Problem]:
    """Mode, pool and ratio of one concept."""
    concept = plan.concept
    where = f"prior of {concept.name}"
    if concept.kind == "style" and plan.mode == "match" and plan.ratio:
        what = "a style with matched prompts: training is nearly halted and the style becomes weak"
        yield Problem("warning", where, what, 'set prior.prompts = "random" (or "half")')
    if plan.captions == "class" and not concept.class_word and plan.ratio:
        yield Problem("error", where, "prior rows are captioned by the class word, which is empty", "give class_word")
    if 0 < plan.ratio < plan.fewest:
        what = f"few rows of a high weight (ratio {plan.ratio:g}): the concept may hardly be learned"
        yield Problem("warning", where, what, "lower the weight, or leave prior.ratio unset")
    if line.prior_rows and not line.pool:
        yield Problem("error", where, f"ratio {plan.ratio:g} but no prior images", "build them or set ratio = 0")
    elif line.prior_rows:
        for bucket in sorted({item.bucket for item in items if item.concept == concept.name}):
            if not _pool_of(concept.name, pool).get(bucket):
                what = f"bucket {bucket} has no prior image; other buckets stand in"
                yield Problem("warning", where, what, "plan prior images for every bucket")
        if line.unused:
            what = f"{line.unused} of {line.pool} prior images are never used ({line.prior_rows:g} prior rows)"
            yield Problem("warning", where, what, "train longer, raise the ratio, or make a smaller pool")
        if line.uses - plan.visits > 1e-9:
            what = f"{line.pool} prior images for {line.prior_rows:g} prior rows: each is used {line.uses:.1f} times"
            yield Problem("warning", where, what, "raise prior.per_image if each shall be seen once")
    elif line.pool and not plan.ratio:
        what = f"{line.pool} prior images, none used: ratio is 0"
        yield Problem("warning", where, what, "set a ratio, or per_image = 0")


def _together(
    plans: Sequence[ConceptPlan],
    items: Sequence[Item],
    pool: Mapping[tuple[str, Size], int],
    training: TrainingPlan,
    length: Arithmetic | None,
) -> Iterable[Problem]:
    """What concerns the run as a whole."""
    asked = [plan.concept.name for plan in plans if plan.ratio and plan.mode != "none"]
    if asked and training.weight == 0:
        yield Problem("warning", "prior", "prior rows weigh 0: they change nothing", "set a weight, or ratio = 0")
    names = {plan.concept.name for plan in plans} | {""}
    for name in sorted({name for name, _ in pool} - names):
        count = sum(number for (owner, _), number in pool.items() if owner == name)
        yield Problem(
            "warning", "prior", f"{count} prior images are of {name!r}, which is no concept here", "rename it"
        )
    if training.batch < 1:
        yield Problem("error", "training.batch", f"{training.batch} rows per update", "give at least 1")
    elif (training.updates is None) == (training.epochs is None):
        yield Problem("error", "training", "both or neither of steps and epochs given", "give one of them")
    elif min(training.updates or 0, training.epochs or 0) < 0:
        yield Problem("error", "training", "a negative length", "give 0 or more")
    elif length is not None and length.updates == 0:
        yield Problem("error", "training", "the run has no step", "raise steps or epochs")
    elif length is not None and length.epochs < 1:
        missed = length.rows_per_epoch - length.instance_rows
        what = f"ends within the first epoch: {missed} of {length.rows_per_epoch} rows are never seen"
        yield Problem("warning", "training", what, "raise steps")


# -- The plan ---------------------------------------------------------------------------------------------------------


def _length(items: Sequence[Item], plans: Sequence[ConceptPlan], training: TrainingPlan) -> Arithmetic | None:
    """None where the numbers given make no run."""
    one = (training.updates is None) != (training.epochs is None)
    number = training.updates if training.epochs is None else training.epochs
    if not items or training.batch < 1 or not one or number is None or number < 0:
        return None
    ratios = {plan.concept.name: plan.ratio for plan in plans}
    return arithmetic(items, batch=training.batch, updates=training.updates, epochs=training.epochs, ratio=ratios)


def _pool_of(concept: str, pool: Mapping[tuple[str, Size], int]) -> dict[Size, int]:
    """The concept's own prior images by bucket, else the shared ones: the scheduler's rule."""
    own = {bucket: count for (owner, bucket), count in pool.items() if owner == concept and count}
    return own or {bucket: count for (owner, bucket), count in pool.items() if owner == "" and count}


def _line(
    plan: ConceptPlan,
    plans: Sequence[ConceptPlan],
    items: Sequence[Item],
    prompts: Sequence[PriorPrompt],
    pool: Mapping[tuple[str, Size], int],
    training: TrainingPlan,
    length: Arithmetic | None,
) -> ConceptLine:
    name = plan.concept.name
    mine = [item for item in items if item.concept == name]
    per_epoch = sum(item.repeats for item in mine)
    rows = length.instance_rows * per_epoch / length.rows_per_epoch if length and length.rows_per_epoch else 0.0
    prior_rows = float(length.prior_rows) if length and len(plans) == 1 else rows * plan.ratio
    return ConceptLine(
        concept=name,
        mode=plan.mode,
        images=len(mine),
        rows_per_epoch=per_epoch,
        distinct_prompts=len({prompt.text for prompt in prompts if prompt.concept == name}),
        pool=sum(_pool_of(name, pool).values()),
        ratio=plan.ratio,
        weight=training.weight,
        instance_rows=rows,
        prior_rows=prior_rows,
    )


def _buckets(
    plans: Sequence[ConceptPlan], items: Sequence[Item], pool: Mapping[tuple[str, Size], int]
) -> Iterable[BucketLine]:
    for plan in plans:
        name = plan.concept.name
        images = Counter(item.bucket for item in items if item.concept == name)
        prior = _pool_of(name, pool)
        for bucket in sorted({*images, *prior}):
            yield BucketLine(name, bucket, images[bucket], prior.get(bucket, 0))


def _sentences(
    lines: Sequence[ConceptLine], length: Arithmetic | None, training: TrainingPlan, items: Sequence[Item]
) -> Iterable[str]:
    if length is None or not length.rows_per_epoch:
        return
    for line in lines:
        repeats = sorted({item.repeats for item in items if item.concept == line.concept})
        times = f" x {repeats[0]} repeats" if len(repeats) == 1 else " x their repeats"
        yield f"{line.concept}: {line.images} pictures{times} = {line.rows_per_epoch} rows per epoch"
    if training.epochs is not None:
        yield (
            f"run: {training.epochs} epochs x {length.rows_per_epoch} rows = {length.instance_rows} instance rows; "
            f"/ batch {length.batch} = {length.updates} updates"
        )
    else:
        yield (
            f"run: {length.updates} updates x batch {length.batch} = {length.instance_rows} instance rows; "
            f"/ {length.rows_per_epoch} rows per epoch = {length.epochs:.2f} epochs"
        )
    for line in lines:
        if not line.ratio:
            yield f"{line.concept}: ratio 0, no prior rows"
            continue
        weight = "no regularizer uses them" if line.weight is None else f"weight {line.weight:g}"
        if not line.pool:
            use = "no prior images to draw from"
        elif line.unused:
            use = f"{line.pool - line.unused} of {line.pool} prior images used once, {line.unused} unused"
        elif line.uses > 1:
            least, most = int(line.uses), ceil(line.uses)
            use = f"each of {line.pool} prior images used {f'{least} to ' if least < most else ''}{most} times"
        else:
            use = f"each of {line.pool} prior images used once"
        yield (
            f"{line.concept}: {line.instance_rows:g} instance rows x ratio {line.ratio:g} "
            f"= {line.prior_rows:g} prior rows ({weight}); {use}"
        )
