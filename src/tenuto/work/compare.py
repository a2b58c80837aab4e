"""Comparing the arms and writing the report; the whole job from end to end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tenuto.adapters.files import add_to_header
from tenuto.data.bank import Bank
from tenuto.evaluation.arms import Arm, Trained
from tenuto.evaluation.comparison import compare
from tenuto.evaluation.elsewhere import FOLDER, lighter
from tenuto.evaluation.record import Comparison
from tenuto.evaluation.report import Extras, PriorUse, write_report
from tenuto.events import Listener, silent, stage, without_notes
from tenuto.files import parse_json
from tenuto.memory import make_room
from tenuto.project.settings import BaseSettings, Project
from tenuto.ranks import ALONE, Ranks
from tenuto.regularizers.explained import held_by, turned
from tenuto.training.journal import Journal
from tenuto.words import Stopped, TenutoError
from tenuto.work.header import results_header
from tenuto.work.prepare import Prepared, announce, beside_base, prepare, read_folder
from tenuto.work.prior import SHOWN, open_store, preview
from tenuto.work.processes import SideBySide
from tenuto.work.readers import Readers, find_readers, load_readers
from tenuto.work.tasks import NEVER, Stop
from tenuto.work.train import train_all
from tenuto.work.trainings import Done, at_once


@dataclass(frozen=True)
class Compared:
    """What was measured on one concept, and where it lies."""

    concept: str
    folder: Path
    result: Comparison
    extras: Extras

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def write(self) -> None:
        """The report, with what was measured on another checkpoint as far as that is there."""
        write_report(self.result, self.folder, self.report, extras=self.extras)


def compare_arms(
    prepared: Prepared,
    done: Sequence[Done],
    folder: Path,
    listener: Listener = silent,
    stop: Stop = NEVER,
) -> list[Compared]:
    """Measure every arm against the base, write a report per concept, and the numbers into the LoRAs' headers."""
    readers = readers_of(prepared)
    arms = arms_of(prepared.project, done)
    found = []
    workers = at_once(prepared.project, prepared.base.device)
    for concept in prepared.concepts:
        place = folder if len(prepared.concepts) == 1 else folder / concept.name
        if workers > 1 and not (place / "comparison.json").is_file():
            tasks = [MeasureTask(prepared.project, arm, concept.name, place, asked(prepared)) for arm in arms]
            SideBySide(workers)(tasks, listener, stop)
        stage(listener, f"comparing the arms on {concept.name}")
        result = measure(prepared, readers, arms, concept.name, place, asked(prepared), listener, stop)
        result.save(place / "comparison.json")
        found.append(Compared(concept.name, place, result, _extras(prepared, done, place)))
        found[-1].write()
    results = {own.concept: own.result for own in found}
    for each in done:
        add_to_header(each.lora, results_header(results, each.training))
    return found


def compare_elsewhere(
    project: Project,
    done: Sequence[Done],
    compared: Sequence[Compared],
    bank: Bank,
    avoid: Collection[str],
    listener: Listener = silent,
    stop: Stop = NEVER,
) -> None:
    """Ask the same prompts of the same LoRAs on comparison.other_base, and write each report anew with what came of it.

    bank, avoid: those of the first comparison, from which its prompts came. No other base should be open.
    """
    prepared = prepare_elsewhere(project, bank, listener)
    readers = readers_of(prepared, project)
    for each in compared:
        stage(listener, f"comparing the arms on {each.concept}, on {prepared.base.name}")
        place = each.folder / FOLDER
        result = measure(prepared, readers, arms_of(project, done), each.concept, place, avoid, listener, stop)
        result.save(place / "comparison.json")
        each.write()


def prepare_elsewhere(project: Project, bank: Bank, listener: Listener = silent) -> Prepared:
    """The project on comparison.other_base, with the words that it has at home."""
    own = project.base
    other = BaseSettings(model=str(project.comparison.other_base), device=own.device, clip_skip=own.clip_skip)
    there = project.model_copy(update={"base": other, "comparison": lighter(project.comparison)})
    return replace(prepare(there, listener), bank=bank)


def arms_of(project: Project, done: Sequence[Done]) -> list[Arm]:
    """Every arm with its trainings."""
    names = dict.fromkeys(own.training.arm for own in done)
    return [arm_of(project, [own for own in done if own.training.arm == name]) for name in names]


def readers_of(prepared: Prepared, project: Project | None = None) -> Readers:
    """Whoever reads this project's pictures, or those of another one whose words are the same."""
    named = project or prepared.project
    places = find_readers(named, beside_base(named, "tagger"))
    return load_readers(places, prepared.base.device, prepared.bank, prepared.concepts, prepared.items)


def measure(
    prepared: Prepared,
    readers: Readers,
    arms: Sequence[Arm],
    name: str,
    folder: Path,
    avoid: Collection[str],
    listener: Listener = silent,
    stop: Stop = NEVER,
) -> Comparison:
    """Read these arms on one concept, or take what was read before from the folder. avoid: no test prompts."""
    project = prepared.project
    concept = next(concept for concept in prepared.concepts if concept.name == name)
    images = next(own.test_images for own in project.concepts if own.name == name)
    return compare(
        prepared.base,
        arms,
        concept,
        [item for item in prepared.items if item.concept == name],
        prepared.bank,
        project.comparison,
        folder,
        tagger=readers.tagger,
        dino=readers.dino,
        clip=readers.clip,
        held_out=[item for item in prepared.validation if item.concept == name],
        test_items=read_folder(project, prepared.base.geometry, images, name)[0] if images else [],
        avoid=avoid,
        ground=project.data.ground,
        seed=project.seed,
        listener=listener,
        stop=lambda: _raise_if(stop()),
    )


@dataclass(frozen=True)
class MeasureTask:
    """Read one arm on one concept; the readings stay in the folder."""

    project: Project
    """What every arm is measured by."""
    arm: Arm
    concept: str
    folder: Path
    avoid: frozenset[str]

    @property
    def name(self) -> str:
        return f"reading {self.arm.name} on {self.concept}"

    @property
    def together(self) -> bool:
        return False

    @property
    def counted_by(self) -> str:
        return ""

    def __call__(self, listener: Listener, stop: Stop) -> None:
        prepared = prepare(self.project, without_notes(listener))
        readers = readers_of(prepared)
        measure(prepared, readers, [self.arm], self.concept, self.folder, self.avoid, listener, stop)


def asked(prepared: Prepared) -> frozenset[str]:
    """Every prompt that a prior row or the controller uses: none of them may be a test prompt."""
    return frozenset(own.text for own in prepared.prompts) | {own.prompt for own in prepared.controller.images}


def _raise_if(asked: bool) -> None:
    if asked:
        raise Stopped("stopped; what was measured is kept, the same command goes on from there")


def arm_of(project: Project, done: Sequence[Done]) -> Arm:
    """The trainings of one arm, as the comparison takes them."""
    name, methods = done[0].training.arm, done[0].training.regularizers
    settings = project.training.model_dump(mode="json") | {
        "regularizers": {n: m.model_dump(mode="json") for n, m in methods.items()}
    }
    return Arm(name, tuple(_trained(each) for each in done), held_by(methods), settings)


def _trained(done: Done) -> Trained:
    entries = Journal(done.training.folder / "log.jsonl").read()  # a power cut may have taken its last lines
    snapshots = {
        int(p.stem.rpartition("-")[2]): p for p in (done.training.folder / "snapshots").glob("lora-*.safetensors")
    }
    return Trained(
        seed=done.training.seed,
        lora=done.lora,
        checkpoints=dict(sorted(snapshots.items())),
        steps=int(read_plan(done)["updates"]),
        seconds=done.setup_seconds + sum(entry["seconds"] for entry in entries),
        forwards=done.setup_forwards + max((entry["forwards"] for entry in entries), default=0.0),
        setup_seconds=done.setup_seconds,
        setup_forwards=done.setup_forwards,
        log=done.training.folder / "log.jsonl",
    )


def read_plan(done: Done) -> dict[str, Any]:
    """What the training set out to do: updates, and law 2's three numbers."""
    path = done.training.folder / "plan.json"
    try:
        plan: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        return plan
    except (OSError, ValueError) as error:
        raise TenutoError(f"{path}: cannot be read ({error}); `tenuto train` writes it again") from error


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
    plan = read_plan(held)
    store = open_store(prepared)
    shown = [store.record(name) for name in list(plan["used"])[:SHOWN] if name in store]
    weights = ", ".join(
        f"{name}: {turned(method)}, {method.schedule.shape}" for name, method in held.training.regularizers.items()
    )
    return PriorUse(
        pool=plan["pool"],
        ratio=prepared.project.ratio_in(prepared.project.prior),
        weight=weights,
        used=len(plan["used"]),
        draws=plan["prior_rows"],
        unused=tuple(plan["unused"]),
        previews=tuple(preview(prepared.base, store, image, folder / "prior") for image in shown),
        prompts=tuple(image.prompt for image in shown),
    )


def run_project(
    project: Project,
    folder: Path,
    listener: Listener = silent,
    stop: Stop = NEVER,
    ranks: Ranks = ALONE,
) -> list[Path]:
    """The whole job: prior set, trainings, comparison, report. Call it again to go on. Returns the reports.

    The first of several ranks compares; the others have done their part, and return none.
    """
    prepared = prepare(project, listener)
    announce(prepared, listener)
    done = train_all(prepared, folder, listener, stop, ranks)
    if not ranks.first:
        return []
    compared = compare_arms(prepared, done, folder, listener, stop)
    if project.comparison.other_base is not None:
        bank, avoid, device = prepared.bank, asked(prepared), prepared.base.device
        del prepared  # one base at a time
        make_room(device)
        compare_elsewhere(project, done, compared, bank, avoid, listener, stop)
    return [own.report for own in compared]
