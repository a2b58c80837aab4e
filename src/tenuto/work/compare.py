"""Comparing the arms and writing the report; the whole job from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tenuto.evaluation.arms import Arm, Trained
from tenuto.evaluation.comparison import compare
from tenuto.evaluation.report import Extras, PriorUse, write_report
from tenuto.evaluation.taggers import load_tagger
from tenuto.events import Listener, silent, stage
from tenuto.project import Project
from tenuto.training.journal import Journal
from tenuto.words import Stopped
from tenuto.work.prepare import Prepared, announce, beside_base, prepare, read_folder
from tenuto.work.prior import open_store, preview
from tenuto.work.train import Done, train_all

SHOWN = 24
"""Prior images in the report."""
NEVER: Callable[[], bool] = lambda: False  # noqa: E731


def compare_arms(
    prepared: Prepared,
    done: Sequence[Done],
    folder: Path,
    listener: Listener = silent,
    stop: Callable[[], bool] = NEVER,
) -> list[Path]:
    """Measure every arm against the base and write a report per concept. Returns the report files."""
    project = prepared.project
    tagger_folder = project.comparison.tagger or beside_base(project, "tagger")
    tagger = load_tagger(tagger_folder, prepared.base.device) if tagger_folder else None
    arms = [_arm(prepared, name, done) for name in dict.fromkeys(own.training.arm for own in done)]
    reports = []
    for concept, own in zip(prepared.concepts, project.concepts, strict=True):
        place = folder if len(prepared.concepts) == 1 else folder / concept.name
        stage(listener, f"comparing the arms on {concept.name}")
        test = read_folder(project, prepared.base, own.test_images, concept.name)[0] if own.test_images else []
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
            avoid={prompt.text for prompt in prepared.prompts} | {own.prompt for own in prepared.controller.images},
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
    entries = Journal(done.training.folder / "log.jsonl").read()  # a power cut may have taken its last lines
    snapshots = {
        int(p.stem.rpartition("-")[2]): p for p in (done.training.folder / "snapshots").glob("lora-*.safetensors")
    }
    return Trained(
        seed=done.training.seed,
        lora=done.lora,
        checkpoints=dict(sorted(snapshots.items())),
        steps=int(_plan(done)["updates"]),
        seconds=done.setup_seconds + sum(entry["seconds"] for entry in entries),
        forwards=done.setup_forwards + max((entry["forwards"] for entry in entries), default=0.0),
        setup_seconds=done.setup_seconds,
        setup_forwards=done.setup_forwards,
        log=done.training.folder / "log.jsonl",
    )


def _plan(done: Done) -> dict[str, Any]:
    """What the training set out to do."""
    plan: dict[str, Any] = json.loads((done.training.folder / "plan.json").read_text(encoding="utf-8"))
    return plan


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
    plan = _plan(held)
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
    announce(prepared, listener)
    done = train_all(prepared, folder, listener, stop)
    return compare_arms(prepared, done, folder, listener, stop)
