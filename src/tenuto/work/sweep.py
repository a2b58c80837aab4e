"""Running a sweep: every arm's prior set, its trainings, its readings; then one comparison, one table, one grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tenuto.evaluation.arms import Arm
from tenuto.evaluation.elsewhere import FOLDER
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.sweep import ArmRecord, OnConcept, SweepResult, on_concept
from tenuto.evaluation.sweep_page import write_page
from tenuto.events import Listener, note, silent, stage, warn
from tenuto.memory import make_room
from tenuto.project.settings import Project
from tenuto.regularizers.explained import weights_of
from tenuto.words import TenutoError
from tenuto.work.compare import MeasureTask, arm_of, asked, measure, prepare_elsewhere, read_plan, readers_of
from tenuto.work.prepare import KeptOpen, Prepared, audited, prepare
from tenuto.work.prior import build_controller, build_prior, open_store
from tenuto.work.readers import Readers
from tenuto.work.sweep_file import Sweep, SweepArm
from tenuto.work.tasks import NEVER, Runner, Stop, in_sequence
from tenuto.work.train import TrainTask, refuse
from tenuto.work.trainings import Done, Training


@dataclass(frozen=True)
class PriorTask:
    """Make the prior set of an arm, where the store lacks it."""

    arm: str
    project: Project

    @property
    def name(self) -> str:
        return f"prior set of {self.arm}"

    @property
    def together(self) -> bool:
        return True

    @property
    def counted_by(self) -> str:
        return "prior images"

    def __call__(self, listener: Listener, stop: Stop) -> int:
        prepared = prepare(self.project, listener)
        store, images = build_prior(prepared, listener, stop)
        build_controller(prepared, store, listener, stop)
        return len(images)


@dataclass(frozen=True)
class ArmPlan:
    """What an arm will take, known before any work."""

    arm: str
    updates: int
    pool: int
    ratio: dict[str, float]
    generation: int
    """Forwards of the base for its prior set and controller, whether or not they are there already."""
    warnings: tuple[str, ...]
    asked: frozenset[str]
    """Prompts that are no test prompts."""


def plan_sweep(sweep: Sweep, listener: Listener = silent) -> list[ArmPlan]:
    """Read everything that every arm needs and audit it. Raises TenutoError before any work."""
    opened = KeptOpen()
    return [_plan(sweep.name, arm, listener, opened) for arm in sweep.arms]


def _plan(name: str, arm: SweepArm, listener: Listener, opened: KeptOpen) -> ArmPlan:
    try:
        prepared = prepare(arm.project, listener, opened)
        report = audited(prepared)
        if report.errors:
            raise TenutoError(str(report.errors[0]))
        refuse(prepared)
        open_store(prepared)
    except TenutoError as error:
        raise TenutoError(f"{name}: arm {arm.name!r}: {error}") from error
    return ArmPlan(
        arm.name,
        prepared.length.updates,
        len(prepared.plan.images) + len(prepared.foreign),
        dict(prepared.ratios),
        prepared.plan.forwards + prepared.controller.forwards,
        tuple(str(problem) for problem in report.warnings),
        asked(prepared),
    )


def run_sweep(
    sweep: Sweep, folder: Path, listener: Listener = silent, stop: Stop = NEVER, runner: Runner = in_sequence
) -> SweepResult:
    """Everything; call it again to go on. Writes sweep.json, sweep.html and, per concept, comparison.json."""
    folder = folder.absolute()
    stage(listener, f"planning {len(sweep.arms)} arms")
    plans = plan_sweep(sweep)
    for text, count in Counter(text for plan in plans for text in plan.warnings).items():
        warn(listener, f"{text} (in {count} of {len(plans)} arms)")
    trainings = trainings_of(sweep, folder)
    note(listener, f"{len(sweep.arms)} arms x {len(sweep.seeds)} seeds = {len(trainings)} trainings")
    made = [PriorTask(arm.name, arm.project) for arm, plan in zip(sweep.arms, plans, strict=True) if plan.generation]
    runner(made, listener, stop)
    done = runner(trainings, listener, stop)
    arms = [arm_of(arm.project, [own for own in done if own.training.arm == arm.name]) for arm in sweep.arms]
    avoid = frozenset[str]().union(*(plan.asked for plan in plans))
    result = SweepResult(
        name=sweep.name,
        about=sweep.about,
        seeds=list(sweep.seeds),
        reference=sweep.compared_with(),
        arms=[_record(arm, done) for arm in sweep.arms],
        concepts=_measured(sweep, arms, folder, avoid, listener, stop, runner),
    )
    result.save(folder / "sweep.json")
    write_page(result, folder, folder / "sweep.html")
    return result


def trainings_of(sweep: Sweep, folder: Path) -> list[TrainTask]:
    """Every arm at every seed, each in a folder of its own."""
    return [
        TrainTask(arm.project, Training(arm.name, arm.methods(), seed, folder / "arms" / arm.name / f"seed-{seed}"))
        for arm in sweep.arms
        for seed in sweep.seeds
    ]


def _measured(
    sweep: Sweep,
    arms: Sequence[Arm],
    folder: Path,
    avoid: frozenset[str],
    listener: Listener,
    stop: Stop,
    runner: Runner,
) -> dict[str, OnConcept]:
    """Every concept's comparison of the arms that teach it."""
    reference = sweep.compared_with()
    own = {arm.name: {concept.name for concept in arm.project.concepts} for arm in sweep.arms}
    places = {c.name: folder / "comparison" / c.name for c in sweep.project.concepts}
    tasks = [
        MeasureTask(sweep.project, arm, concept, place, avoid)
        for concept, place in places.items()
        for arm in sorted(arms, key=lambda arm: arm.name != reference)
        if concept in own[arm.name]
    ]
    first = [task for task in tasks if task.arm.name == reference]  # alone: it also reads the base, for all
    runner(first, listener, stop)
    runner([task for task in tasks if task not in first], listener, stop)
    asking = [
        Asking(concept, place, [arm for arm in arms if concept in own[arm.name]]) for concept, place in places.items()
    ]
    prepared = prepare(sweep.project)
    here = _read(prepared, readers_of(prepared), asking, avoid, silent, stop)
    there: list[Comparison | None] = [None] * len(here)
    if sweep.project.comparison.other_base is not None:
        bank, device = prepared.bank, prepared.base.device
        del prepared  # one base at a time
        make_room(device)
        prepared = prepare_elsewhere(sweep.project, bank, listener)
        away = [replace(each, place=each.place / FOLDER) for each in asking]
        there = [*_read(prepared, readers_of(prepared, sweep.project), away, avoid, listener, stop)]
    return {
        each.concept: on_concept(own, reference, each.place.relative_to(folder).as_posix(), other)
        for each, own, other in zip(asking, here, there, strict=True)
    }


@dataclass(frozen=True)
class Asking:
    """A concept, the arms that teach it, and where their readings lie."""

    concept: str
    place: Path
    arms: list[Arm]


def _read(
    prepared: Prepared,
    readers: Readers,
    asking: Sequence[Asking],
    avoid: frozenset[str],
    listener: Listener,
    stop: Stop,
) -> list[Comparison]:
    """One comparison per concept, from what was read before where it was; each is saved."""
    found = []
    for each in asking:
        found.append(measure(prepared, readers, each.arms, each.concept, each.place, avoid, listener, stop))
        found[-1].save(each.place / "comparison.json")
    return found


def _record(arm: SweepArm, done: Sequence[Done]) -> ArmRecord:
    plans = [read_plan(own) for own in done if own.training.arm == arm.name]
    return ArmRecord(
        name=arm.name,
        changes=dict(arm.changes),
        updates=plans[0]["updates"],
        pool=plans[0]["pool"],
        ratio=plans[0]["ratio"],
        weight=weights_of(arm.project.regularizers),
        prior_rows=plans[0]["prior_rows"],
        used=len(plans[0]["used"]),
        unused=len(plans[0]["unused"]),
        settings=arm.project.to_toml(),
    )
