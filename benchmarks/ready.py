"""What the benchmarks share: a ready set of the picture world as a sweep, with the demo's settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tenuto.cli.demo import SETTINGS, concept_groups, concept_table, write_set
from tenuto.events import Listener
from tenuto.project.file import make_project
from tenuto.project.settings import Project
from tenuto.regularizers.base import Regularizer
from tenuto.words import TenutoError
from tenuto.work.sweep_file import Sweep, SweepArm
from tenuto.work.train import TrainTask
from tenuto.work.trainings import Training

SEEDS = (0, 1, 2)
PICTURES = 12
"""Of each set: small sets are where a LoRA spoils most, and an x50 pool of them is used up within the training."""
ADAPTER = {"rank": 8, "parts": ["attention", "feed_forward", "convolution"]}
"""The demo's, and convolutions."""
RATES = Path(__file__).parent.parent / "docs" / "evidence" / "learning-rate.json"
"""The plain LoRA's learning rates on the validation concept: `benchmarks.evidence` measures them."""
PLAIN = "plain"


def best_rate() -> float:
    """The rate with the least drift at equal concept strength. Raises TenutoError where none was measured."""
    try:
        rates = json.loads(RATES.read_text(encoding="utf-8"))["rates"]
    except FileNotFoundError as error:
        raise TenutoError(f"{RATES}: not measured yet; run python -m benchmarks.evidence") from error
    return float(min(rates, key=lambda own: own["drift_at_level"])["lr"])


class Way(NamedTuple):
    """One way of training. What is None is decided as in anybody's project: pool, ratio and steps by the methods, the
    methods by the concept's kind."""

    per_image: int | None = 0
    """Prior images per picture."""
    ratio: float | None = 0.0
    """Prior rows per instance row."""
    methods: Mapping[str, Regularizer] | None = {}
    training: Mapping[str, Any] = {}
    """Training settings of its own."""
    steps: int | None = 16
    """Steps of each prior image."""


def project_on(
    name: str, way: Way, folder: Path, comparison: Mapping[str, Any], training: Mapping[str, Any] = {}
) -> Project:
    """The demo's settings on a ready set, whose pictures are in folder/NAME."""
    sampler = {**SETTINGS["prior"]["sampler"], "steps": way.steps}
    prior = {**SETTINGS["prior"], "per_image": way.per_image, "ratio": way.ratio, "sampler": _given(sampler)}
    table = {
        **SETTINGS,
        "concepts": [concept_table(name, folder.absolute() / name)],
        "prior": _given(prior),
        "training": {**SETTINGS["training"], "adapter": ADAPTER, **training, **way.training},
        "comparison": {**comparison, "concept_groups": concept_groups(name)},
        "regularizers": None if way.methods is None else dict(way.methods),
    }
    return make_project(_given(table), f"benchmark on {name}")


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}


def sweep_on(
    name: str,
    ways: Mapping[str, Way],
    folder: Path,
    comparison: Mapping[str, Any],
    *,
    seeds: Sequence[int] = SEEDS,
    training: Mapping[str, Any] = {},
    about: str = "",
) -> Sweep:
    """These ways of training on a ready set, whose pictures are written to folder/NAME; all are measured alike, and
    matched with the plain LoRA where there is one."""
    write_set(name, folder / name, PICTURES)
    arms = tuple(SweepArm(label, project_on(name, way, folder, comparison, training)) for label, way in ways.items())
    return Sweep(name, arms[0].project, arms, tuple(seeds), about, PLAIN if PLAIN in ways else "")


def plain_lora(name: str, project: Project, folder: Path, listener: Listener, stop: Callable[[], bool]) -> Path:
    """An ordinary LoRA of a ready set, for comparisons with a second one; what is there goes on."""
    return TrainTask(project, Training(name, {}, 0, folder))(listener, stop).lora
