"""The comparison: base, plain LoRA and held LoRA at the same prompts and seeds, in numbers and pictures.

prompts -> base readings -> each arm's readings, seed by seed -> metrics -> curves
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tenuto.adapters.info import content_hash
from tenuto.data.bank import Bank
from tenuto.data.dataset import Concept, Item
from tenuto.evaluation.arms import Arm, cells_of, check
from tenuto.evaluation.bench import Bench, Sampler, sampler_of
from tenuto.evaluation.curve import Level, Point, Ratio, compare_curves, measured
from tenuto.evaluation.encoders import Encoder, Reads
from tenuto.evaluation.evidence import curve_of, evidence_of
from tenuto.evaluation.metrics import METRICS
from tenuto.evaluation.prompts import derive
from tenuto.evaluation.reader import Reader
from tenuto.evaluation.readings import Value
from tenuto.evaluation.record import ArmNumbers, Comparison, PromptRecord, cost, summary, versions
from tenuto.evaluation.settings import ComparisonSettings
from tenuto.evaluation.taggers import Tagger
from tenuto.events import Listener, silent
from tenuto.families.base import Base

ARMS = ("plain", "held")


def compare(
    base: Base,
    arms: Sequence[Arm],
    concept: Concept,
    items: Sequence[Item],
    bank: Bank,
    settings: ComparisonSettings,
    folder: Path,
    *,
    tagger: Tagger | None = None,
    dino: Encoder | None = None,
    clip: Reads | None = None,
    held_out: Sequence[Item] = (),
    test_items: Sequence[Item] = (),
    avoid: Collection[str] = (),
    ground: str | None = "white",
    seed: int = 0,
    listener: Listener = silent,
    stop: Callable[[], None] = lambda: None,
    sampler: Sampler | None = None,
) -> Comparison:
    """Read and measure every arm; keep readings and pictures in the folder. Call it again to continue.

    items: the instance pictures trained on; held_out: those kept out; test_items: the concept outside its set's bias.
    avoid: every prompt that a prior row or the controller used. stop: called between batches; raises to stop.
    The base must wear no adapter. Raises TenutoError for unusable input.
    """
    check(arms, settings)
    bench = Bench(
        base, sampler or sampler_of(base, settings.sampler_settings()), settings.negative, settings.batch, stop
    )
    each, near, far = settings.prompts, settings.drift_prompts, max(settings.prompts, settings.drift_prompts)
    prompts = derive(items, concept, bank, each=each, near=near, far=far, seed=seed, avoid=avoid)
    reader = Reader(bench, settings, concept, prompts, folder, tagger, bank, ground, seed, listener, dino, clip)
    numbers: dict[str, ArmNumbers] = {}
    curves: dict[str, list[Point]] = {}
    try:
        reader.look(items, held_out, test_items)
        for arm in arms:
            cells = cells_of(arm, settings.seeds)
            values: dict[str, list[Value]] = {name: [] for name in METRICS}
            for number, cell in enumerate(cells):
                evidence = evidence_of(reader, arm, cell, strip=number < settings.strip_seeds, pictures=number == 0)
                for name, metric in METRICS.items():
                    values[name].append(metric(evidence))
            numbers[arm.name] = {name: summary(found) for name, found in values.items()}
            numbers[arm.name] |= {
                "seconds": cost([run.seconds for run in arm.runs], "the training did not say how long it took"),
                "forwards": cost([run.forwards for run in arm.runs], "the training did not count its forwards"),
            }
            limit = len(cells) if settings.curve_seeds is None else settings.curve_seeds
            curves[arm.name] = [point for cell in cells[:limit] for point in curve_of(reader, arm, cell)]
    finally:
        reader.wardrobe.bare()
    return Comparison(
        arms=numbers,
        matched=_matched(curves, seed),
        curves=curves,
        curve_axis=reader.axis,
        concept={
            "name": concept.name,
            "kind": concept.kind,
            "trigger": concept.trigger,
            "class_word": concept.class_word,
        },
        about={arm.name: arm.about for arm in arms},
        own=reader.own,
        prompts=[
            PromptRecord(
                row=a.row,
                text=a.text,
                bare=a.bare,
                width=a.size.width,
                height=a.size.height,
                added=a.added,
                removed=a.removed,
            )
            for asks in prompts.rows.values()
            for a in asks
        ],
        missing={**reader.missing, **prompts.missing},
        seeds=list(settings.seeds),
        per_seed_means="trainings" if all(len(arm.runs) > 1 for arm in arms) else "noise seeds",
        settings=settings.model_dump(mode="json"),
        arm_settings={arm.name: dict(arm.settings) for arm in arms},
        training_seeds={arm.name: [run.seed for run in arm.runs] for arm in arms},
        logs={arm.name: [_seen_from(folder, run.log) for run in arm.runs if run.log] for arm in arms},
        base={"name": base.name, "family": base.family, "hash": base.hash, "prediction": base.process.prediction},
        hashes={
            **{f"{arm.name} seed {run.seed}": content_hash(run.lora) for arm in arms for run in arm.runs},
            **({"tagger": tagger.hash} if tagger else {}),
            **{f"{name} ({own.name})": own.hash for name, own in reader.encoders.items()},
        },
        versions=versions(),
        pictures=reader.pictures(),
    )


def _matched(curves: Mapping[str, list[Point]], seed: int) -> list[Ratio]:
    if not all(curves.get(name) for name in ARMS):
        return []
    levels: tuple[Level, ...] = ("weaker", "plain", "held")
    return [
        compare_curves(curves["plain"], curves["held"], quantity, tolerance, seed, level)
        for level in levels
        for quantity in measured(curves["plain"])
        for tolerance in (0.02, 0.05)
    ]


def _seen_from(folder: Path, file: Path) -> str:
    """The file's path from the folder, so that both can be moved together."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # another drive
        return str(file)
