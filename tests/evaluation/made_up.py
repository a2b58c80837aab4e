"""A comparison with invented numbers, clearly marked as such: for tests of the report and for looking at it."""

from __future__ import annotations

# ruff: noqa: E501  (a table of invented numbers)
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tenuto.evaluation.curve import Point, compare_curves
from tenuto.evaluation.record import Comparison, Number, PromptRecord
from tenuto.evaluation.report import Extras, PriorUse
from tenuto.evaluation.settings import ComparisonSettings

Draw = Callable[[str, str, int], Image.Image]
ROWS = ("trained", "without", "style", "place", "view", "subject", "far", "second")


def plain_square(arm: str, row: str, number: int) -> Image.Image:
    shade = {"base": (90, 110, 140), "plain": (200, 110, 60), "held": (40, 150, 130)}[arm]
    return Image.new("RGB", (64, 64), tuple(max(0, value - 12 * number - len(row)) for value in shade))


def number(values: list[float | None], reason: str | None = None, **detail: object) -> Number:
    found = [v for v in values if v is not None]
    mean = sum(found) / len(found) if found else None
    interval = (min(found), max(found)) if len(found) > 1 else None
    return Number(mean=mean, per_seed=values, interval=interval, reason=reason, detail=[detail] * len(values))


def arm_numbers(better: bool) -> dict[str, Number]:
    s = 0.28 if better else 1.0
    groups = {
        "style": 0.62,
        "place": 0.51,
        "view": 0.2,
        "pose": 0.28,
        "outfit": 0.33,
        "hair color": 0.4,
        "expression": 0.35,
    }
    own = {"style": 0.44, "place": 0.38, "view": 0.21}
    weights = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0]
    steep = 0.05 if better else 0.24
    return {
        "concept_strength": number([0.81, 0.78, 0.83] if better else [0.82, 0.8, 0.84], as_trained=0.9, base=0.01),
        "drift": number([1.9 * s * s, 2.1 * s * s, 2.0 * s * s], p95=4 * s * s, worst_bin=3 * s * s, near=2.2 * s * s, far=1.8 * s * s, empty=1.1 * s * s),
        "bake": number([0.4 * s, 0.38 * s, 0.41 * s], groups={g: v * s for g, v in groups.items()}, towards_set={g: v * s for g, v in own.items()}, own={}),
        "style_bleed": number([0.35 * s, 0.31 * s, 0.38 * s], style="lineart", a=0.41 * s, b=0.29 * s, c=0.36 * s),
        "tag_compliance": number([0.97, 0.95, 0.98] if better else [0.71, 0.69, 0.75], recall=0.8, base_recall=0.84),
        "trigger_necessity": number([0.93, 0.9, 0.95] if better else [0.12, 0.2, 0.08], trigger=0.9, no_trigger=0.06 if better else 0.79),
        "usable_weight": number(
            [2.6 if better else 1.15, None, None],
            strengths=weights, concept=[1 - math.exp(-2 * w) for w in weights], compliance=[max(0, 1 - steep * w * w / 2) for w in weights],
            quality=[max(0, 1 - steep * w * w / 5) for w in weights], ends_by="compliance",
        ),
        "guided_drift": number([2.4 * s * s] * 3),
        "selectivity": number([9.1, 8.7, 9.5] if better else [0.4, 0.3, 0.7]),
        "gain": number([0.0123] * 3 if better else [0.0131] * 3),
        "fit": number([0.021] * 3, memorisation=0.004 if better else 0.02),
        "seconds": number([231.0 if better else 74.0]),
        "forwards": number([15_840.0 if better else 3_600.0]),
    }  # fmt: skip


def points(arm: str) -> list[Point]:
    a = 1.0 if arm == "plain" else 0.12
    full = [
        Point(step=step, strength=1.0, seed=seed, concept=0.86 * (1 - math.exp(-step / 140)) + 0.01 * seed, drift=a * 2.0 * (step / 600) ** 0.8, bake=math.sqrt(a) * 0.4 * (step / 600) ** 0.5)
        for seed in (0, 1, 2)
        for step in (100, 200, 300, 400, 500, 600)
    ]  # fmt: skip
    last = [p for p in full if p.step == 600]
    turned = [
        Point(
            step=600,
            strength=w,
            seed=p.seed,
            concept=(p.concept or 0) * min(1.08, w**1.4 * 1.02),
            drift=(p.drift or 0) * w * w,
            bake=(p.bake or 0) * w,
        )
        for p in last
        for w in (0.25, 0.5, 0.75, 1.25, 1.5)
    ]
    return full + turned


def made_up(folder: Path, draw: Draw = plain_square) -> tuple[Comparison, Extras]:
    """The comparison and its pictures and logs in `folder`."""
    settings = ComparisonSettings()
    pictures: dict[str, dict[str, list[str]]] = {}

    def keep(arm: str, row: str, count: int) -> None:
        for n in range(count):
            path = folder / "pictures" / arm / f"{row}-{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(arm, row, n).save(path)
            pictures.setdefault(arm, {}).setdefault(row, []).append(path.relative_to(folder).as_posix())

    for arm in ("base", "plain", "held"):
        for row in (*ROWS, *(("trigger",) if arm == "base" else ())):
            keep(arm, row, 3)
        if arm != "base":
            for weight in settings.weights:
                keep(arm, f"strip-{weight:g}", 2)
    rng = random.Random(0)
    logs = {}
    for arm in ("plain", "held"):
        path = folder / f"{arm}.jsonl"
        lines = []
        for u in range(1, 601):
            entry = {"update": u, "instance": 0.06 + 0.1 * math.exp(-u / 150) + rng.gauss(0, 0.03)}
            if arm == "held":
                entry["prior_preservation"] = 0.1 + rng.gauss(0, 0.02)
            if u % 25 == 0:
                entry["drift"] = (2.0 if arm == "plain" else 0.24) * u / 600
            lines.append(json.dumps(entry))
        path.write_text("\n".join(lines) + "\n")
        logs[arm] = [path.name]
    curves = {"plain": points("plain"), "held": points("held")}
    added = {"style": "watercolor", "place": "beach", "view": "from side", "subject": "1boy"}
    comparison = Comparison(
        arms={"plain": arm_numbers(False), "held": arm_numbers(True)},
        matched=[compare_curves(curves["plain"], curves["held"], q, t) for q in ("drift", "bake") for t in (0.02, 0.05)],
        curves=curves,
        concept={"name": "crazy-eyes", "kind": "concept", "trigger": "zxq eyes", "class_word": ""},
        about={"plain": "no regularization", "held": "prior images, weight 0.25"},
        own={"style": "lineart", "place": "city", "view": "from front"},
        prompts=[
            PromptRecord(row=row, text=f"zxq eyes, 1girl, red hair, {added.get(row, 'city')}", bare=f"1girl, red hair, {added.get(row, 'city')}", width=64, height=64, added=(added[row],) if row in added else ())
            for row in ("trained", *added, "far")
            for _ in range(3)
        ],
        seeds=[0, 1, 2],
        settings=settings.model_dump(mode="json"),
        arm_settings={"plain": {"rank": 8, "lr": 1e-3}, "held": {"rank": 8, "lr": 1e-3, "prior_preservation": {"weight": 0.25}}},
        training_seeds={"plain": [0], "held": [0]},
        logs=logs,
        base={"name": "pocket", "family": "sd1", "hash": "0" * 64, "prediction": "eps"},
        hashes={"plain seed 0": "1" * 64, "held seed 0": "2" * 64},
        versions={"tenuto": "0.1.0", "torch": "2.13.0"},
        pictures=pictures,
    )  # fmt: skip
    previews = tuple(folder / pictures["base"]["far"][n % 3] for n in range(12))
    extras = Extras(
        title="crazy eyes",
        prior=PriorUse(96, 1.0, "0.25", 96, 600, (), previews, ("1girl, red hair, city",)),
        instance=tuple(folder / pictures["plain"]["trained"][n % 3] for n in range(8)),
        commands=("tenuto demo",),
        notes=("Made-up numbers: this page is a test of the report, not a result.",),
    )
    return comparison, extras
