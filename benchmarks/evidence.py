"""The full table: every ready set, plain against held, three training seeds.

    python -m benchmarks.evidence [--only NAME]

The plain LoRA is no straw man: its learning rate is the best of three on a validation concept (`clothing`), and the
held arms get the same one. It goes on where it was stopped; what is finished is never made again. Raw numbers are
copied to docs/evidence/.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tenuto.cli.demo import SETTINGS, concept_groups, write_set
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.events import Listener
from tenuto.pocket.concepts import CONCEPTS
from tenuto.project import Project, make_project
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.words import Stopped
from tenuto.work.compare import compare_arms
from tenuto.work.prepare import Prepared, prepare
from tenuto.work.prior import build_prior
from tenuto.work.train import Done, Training, finished, train_arm

RUNS, RESULTS = Path("runs/evidence"), Path("docs/evidence")
VALIDATION, RATES = "clothing", (5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
ARMS: dict[str, tuple[int, dict[str, Regularizer]]] = {
    "plain": (0, {}),
    "held": (8, {"cached_prior": CachedPrior(weight=1.0)}),
    "preservation x8": (8, {"prior_preservation": PriorPreservation(weight=0.25)}),
    "preservation x50": (50, {"prior_preservation": PriorPreservation(weight=0.25)}),
}
"""Arm -> (prior images per picture, regularizers)."""
COMPARISON: dict[str, Any] = {
    "seeds": [0],
    "prompts": 6,
    "drift_prompts": 16,
    "states": 6,
    "steps": 16,
    "guidance": 4.0,
    "curve_checkpoints": 3,
    "curve_prompts": 4,
    "curve_weights": [0.25, 0.5, 0.75],
    "weights": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
    "strip_prompts": 8,
    "strip_seeds": 1,
}


def project_of(name: str, per_image: int, rate: float, methods: Mapping[str, Regularizer]) -> Project:
    """The demo's settings on another ready set."""
    folder, concept = RUNS / "data" / name, CONCEPTS[name]
    write_set(name, folder)
    own = {
        "name": name,
        "kind": concept.kind,
        "images": str(folder / "images"),
        "test_images": str(folder / "tests"),
        "trigger": concept.trigger,
        "class_word": concept.class_word,
    }
    training = {**SETTINGS["training"], "optimizer": {"lr": rate}}
    prior = {**SETTINGS["prior"], "per_image": per_image}
    table = {**SETTINGS, "concepts": [own], "training": training, "prior": prior}
    table["comparison"] = {**COMPARISON, "concept_groups": concept_groups(name)}
    return make_project({**table, "regularizers": dict(methods)}, f"evidence on {name}")


def arm(
    name: str, label: str, rate: float, seeds: tuple[int, ...], screen: Listener, stop: Any
) -> tuple[Prepared, list[Done]]:
    """Train one arm on one set at every seed."""
    per_image, methods = ARMS[label]
    prepared = prepare(project_of(name, per_image, rate, methods), screen)
    store, prior = build_prior(prepared, screen, stop)
    done = []
    for seed in seeds:
        folder = RUNS / name / f"{rate:g}" / label.replace(" ", "-").replace(",", "") / f"seed-{seed}"
        training = Training(label, methods, seed, folder)
        lora = train_arm(prepared, training, store, prior, screen, stop)
        done.append(finished(prepared, training, lora, prior))
    return prepared, done


def best_rate(screen: Listener, stop: Any) -> float:
    """The plain LoRA's learning rate with the highest concept strength on the validation concept."""
    strength = {}
    for rate in RATES:
        prepared, done = arm(VALIDATION, "plain", rate, SEEDS[:1], screen, stop)
        folder = RUNS / "rates" / f"{rate:g}"
        compare_arms(prepared, done, folder, screen, stop)
        numbers = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["arms"]["plain"]
        strength[rate] = numbers["concept_strength"]["mean"] or 0.0
    (RESULTS).mkdir(parents=True, exist_ok=True)
    (RESULTS / "learning-rate.json").write_text(json.dumps(strength, indent=1) + "\n", encoding="utf-8")
    return max(strength, key=lambda rate: strength[rate])


def main(only: Annotated[list[str] | None, typer.Option(help="Just these ready sets.")] = None) -> None:
    """Hours on two CPU cores; Ctrl-C and the same command go on."""
    with guarded() as stop, Screen() as screen:
        rate = best_rate(screen, stop)
        for name in only or CONCEPTS:
            prepared: Prepared | None = None
            trainings: list[Done] = []
            for label in ARMS:
                if stop():
                    raise Stopped("stopped; the same command goes on from there")
                prepared, done = arm(name, label, rate, SEEDS, screen, stop)
                trainings += done
            assert prepared is not None
            compare_arms(prepared, trainings, RUNS / name / "comparison", screen, stop)
            shutil.copy(RUNS / name / "comparison" / "comparison.json", RESULTS / f"{name}.json")


if __name__ == "__main__":
    typer.run(main)
