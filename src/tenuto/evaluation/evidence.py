"""From readings to what metrics take: the Evidence of a training, and the points of its curve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tenuto.evaluation.arms import Arm, Cell
from tenuto.evaluation.curve import Point
from tenuto.evaluation.metrics.bake import bake
from tenuto.evaluation.metrics.bleed import style_bleed
from tenuto.evaluation.metrics.compliance import tag_compliance
from tenuto.evaluation.metrics.concept import concept_strength, gain
from tenuto.evaluation.metrics.drift import drift
from tenuto.evaluation.reader import Reader
from tenuto.evaluation.readings import Evidence, Gap, Losses, Pair, Seen
from tenuto.evaluation.wardrobe import BASE, Model
from tenuto.events import progress, stage

FEW = 4
"""At each point of the curve, and beside a second LoRA, every FEW-th prompt's states are compared."""


def evidence_of(reader: Reader, arm: Arm, cell: Cell, *, strip: bool, pictures: bool) -> Evidence:
    """Everything read for one entry of per_seed, its noise seeds taken together."""
    noises = ", ".join(map(str, cell.seeds))
    stage(reader.listener, f"measuring {arm.name}, training seed {cell.run.seed}, noise seeds {noises}")
    rows: dict[str, list[Seen]] = {}
    bare: dict[str, list[Seen]] = {}
    strips: dict[float, Seen] = {}
    gaps: list[Gap] = []
    pairs: list[Pair] = []
    floors = []
    s, model = reader.settings, _model(arm, cell)
    for number, noise in enumerate(cell.seeds):
        show = s.shown if pictures and number == 0 else 0
        for row, seen in reader.base_rows(noise).items():
            bare.setdefault(row, []).append(seen)
        found, floor = reader.answers.gaps(model, noise, None)
        gaps += found
        floors.append(floor)
        for row, seen in reader.picture_rows(model, noise, show).items():
            rows.setdefault(row, []).append(seen)
        if s.second_lora is not None:
            base_show = s.shown if noise == s.seeds[0] else 0
            pairs += reader.answers.pairs(model, s.second_lora, noise, FEW)
            base_second = reader.second(replace(BASE, second=s.second_lora), noise, base_show)
            second = reader.second(replace(model, second=s.second_lora), noise, show)
            if second is not None and base_second is not None:
                rows.setdefault("second", []).append(second)
                bare.setdefault("second", []).append(base_second)
        if strip and number == 0:
            strips = _strip(reader, model, noise, show)
    if pictures:
        reader.shown[arm.name] = model.name
    times = len(cell.seeds)
    told = {str(row): reader.told(asks) for row, asks in reader.rows(s.prompts).items()}
    missing = dict(reader.missing) | (
        {"strip": "the strip is drawn for the first seeds only (comparison.strip_seeds)"} if not strip else {}
    )
    return Evidence(
        arm={row: Seen.join(parts) for row, parts in rows.items()},
        base={row: Seen.join(parts) for row, parts in bare.items()},
        asked=_asked(reader, s.prompts, times),
        strip=strips,
        gaps=tuple(gaps),
        floor=sum(floors) / len(floors),
        pairs=tuple(pairs),
        guidance=s.guidance,
        train=reader.losses(model, "train", reader.train),
        held_out=reader.losses(model, "held_out", reader.held_out),
        unbiased=reader.losses(model, "unbiased", reader.unbiased),
        own=reader.own,
        concept=reader.detector,
        concept_groups=reader.concept_groups(),
        style_concept=reader.concept.kind == "style",
        real=reader.real,
        prompts={row: own.repeat(times, 1) for row, own in told.items() if own is not None},
        missing=missing,
    )


def _asked(reader: Reader, prompts: int, times: int) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The tags that every picture of a row was asked for."""
    rows = {str(row): tuple(ask.tags for ask in asks) * times for row, asks in reader.rows(prompts).items()}
    strip = tuple(ask.tags for ask in reader.strip_asks())
    return rows | {"without": rows.get("trained", ()), "second": rows.get("far", ()), "strip": strip}


def _strip(reader: Reader, model: Model, noise: int, show: int) -> dict[float, Seen]:
    """The same prompts at every weight; at 0 without the trigger: the base, by which the others are judged."""
    found: dict[float, Seen] = {}
    for strength in reader.settings.weights:
        seen = reader.strip(replace(model, strength=strength), noise, show)
        if seen is not None:
            found[strength] = seen
    return found


def curve_of(reader: Reader, arm: Arm, cell: Cell) -> list[Point]:
    """Earlier checkpoints at full strength, then the last one at other strengths; the same amounts for every
    arm."""
    run, s = cell.run, reader.settings
    last = run.steps or max(run.checkpoints, default=0)
    earlier = sorted(step for step in run.checkpoints if step < last)
    count = min(s.curve_checkpoints, len(earlier))
    chosen = sorted({earlier[round((n + 0.5) * len(earlier) / count - 0.5)] for n in range(count)}) if count else []
    wanted = [(step, run.checkpoints[step], 1.0) for step in chosen] + [(last, run.lora, 1.0)]
    wanted += [(last, run.lora, strength) for strength in sorted(s.curve_weights) if strength != 1.0]
    points = []
    for number, (step, lora, strength) in enumerate(wanted):
        progress(reader.listener, f"{arm.name}: curve", number, len(wanted))
        points.append(_point(reader, arm, cell, step, lora, strength, step / last if last else 1.0))
    return points


def _point(reader: Reader, arm: Arm, cell: Cell, step: int, lora: Path, strength: float, share: float) -> Point:
    s, run = reader.settings, cell.run
    rows: dict[str, list[Seen]] = {}
    bare: dict[str, list[Seen]] = {}
    gaps: list[Gap] = []
    model = Model(f"{arm.name}-{run.seed}-{step}-{strength:g}", lora, strength)
    shipped = _model(arm, cell)
    for noise in cell.seeds:
        gaps += reader.answers.gaps(model, noise, FEW)[0]
        if reader.tagger is None:
            continue
        for row, seen in reader.base_rows(noise).items():
            bare.setdefault(row, []).append(seen.rows(slice(0, s.on_curve)))
        drawn = replace(model, name=shipped.name) == shipped  # as shipped: every prompt is there already
        found = reader.picture_rows(shipped, noise, 0) if drawn else reader.few_rows(model, noise)
        for row, seen in found.items():
            if row != "far":
                rows.setdefault(row, []).append(seen.rows(slice(0, s.on_curve)))
    evidence = Evidence(
        arm={row: Seen.join(parts) for row, parts in rows.items()},
        base={row: Seen.join(parts) for row, parts in bare.items() if row in rows},
        asked=_asked(reader, s.on_curve, len(cell.seeds)),
        gaps=tuple(gaps),
        unbiased=reader.losses(model, "unbiased", reader.unbiased) if reader.axis == "gain" else Losses(),
        own=reader.own,
        concept=reader.detector,
        concept_groups=reader.concept_groups(),
        style_concept=reader.concept.kind == "style",
        missing=reader.missing,
    )
    level = concept_strength(evidence) if reader.axis == "concept_strength" else gain(evidence)
    return Point(
        step=step,
        strength=strength,
        seed=cell.run.seed if len(arm.runs) > 1 else cell.seeds[0],
        concept=level.value,
        drift=drift(evidence).value,
        bake=bake(evidence).value,
        bleed=style_bleed(evidence).value,
        tag_compliance=tag_compliance(evidence).value,
        seconds=None if run.seconds is None else run.setup_seconds + share * (run.seconds - run.setup_seconds),
        forwards=None if run.forwards is None else run.setup_forwards + share * (run.forwards - run.setup_forwards),
    )


def _model(arm: Arm, cell: Cell) -> Model:
    return Model(arm.name if len(arm.runs) == 1 else f"{arm.name}-{cell.run.seed}", cell.run.lora)
