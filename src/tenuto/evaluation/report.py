"""report.html: one file that shows and says what regularization did. The numbers are comparison.json's; nothing is
measured here."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from tenuto.evaluation.elsewhere import FOLDER as ELSEWHERE
from tenuto.evaluation.elsewhere import carried, elsewhere_of
from tenuto.evaluation.figures import curve_figure, learning_figure, strip_figure
from tenuto.evaluation.prompts import near
from tenuto.evaluation.record import Comparison, Number
from tenuto.evaluation.tables import bake_by_group, facts, matched_lines, table, unmeasured
from tenuto.evaluation.verdict import verdict
from tenuto.evaluation.wording import WORDS, number_text
from tenuto.files import write_text
from tenuto.training.journal import Journal

LARGEST = 256
"""Pictures are inlined with at most this many pixels along a side."""
CRISP = 160
"""Pictures up to this size are shown at twice their size, pixel by pixel."""


@dataclass(frozen=True)
class PriorUse:
    """Law 2's three numbers, and what became of the prior set."""

    pool: int
    """Prior images that exist."""
    ratio: float
    """Prior rows per instance row."""
    weight: str
    """What they count in the loss, in words: "0.25, constant"."""
    used: int = 0
    """Different prior images that training used."""
    draws: int = 0
    """Prior rows in all."""
    unused: tuple[str, ...] = ()
    """Names of those never used."""
    previews: tuple[Path, ...] = ()
    """A few of the used ones as picture files."""
    prompts: tuple[str, ...] = ()
    """Their prompts."""


@dataclass(frozen=True)
class Extras:
    """What the report shows besides the comparison."""

    title: str = ""
    """The project's name; default: the concept's."""
    prior: PriorUse | None = None
    instance: tuple[Path, ...] = ()
    """Some of the user's pictures."""
    commands: tuple[str, ...] = ()
    """What to type to make all this again."""
    project: str = ""
    """The project file."""
    notes: tuple[str, ...] = ()
    """Things the reader must know, shown near the top."""
    next: tuple[str, ...] = ()
    """What to do next; default: general advice."""


def write_report(comparison: Comparison, folder: Path, path: Path, extras: Extras | None = None) -> None:
    """Write one self-contained HTML file. `folder` is the comparison's, where its pictures are."""
    write_text(path, render(comparison, folder, extras or Extras()))


def render(comparison: Comparison, folder: Path, extras: Extras) -> str:
    """The page's text."""
    pictures = _pictures(comparison, folder)
    arms = list(comparison.arms)
    strips = {arm: _strip_readings(comparison.arms[arm].get("usable_weight")) for arm in arms}
    return template("report.html.j2").render(
        c=comparison,
        extras=extras,
        title=extras.title or comparison.concept.get("name", "comparison"),
        verdict=verdict(comparison),
        arms=arms,
        columns=[arm for arm in ("base", *arms) if arm in pictures],
        hero=_hero(comparison, pictures),
        rows=_rows(comparison, pictures),
        strip=_strip(comparison, pictures),
        elsewhere=_elsewhere(comparison, folder),
        facts=facts(comparison),
        table=table(comparison),
        unmeasured=unmeasured(comparison),
        curves=_curves(comparison),
        strips=[
            Markup(svg)
            for svg in (
                strip_figure(strips, "concept", "Concept on the pictures", None),
                strip_figure(strips, "compliance", "Prompt followed (base = 1)", 0.9),
                strip_figure(strips, "quality", "Clear pictures (base = 1)", 0.95),
            )
            if svg
        ],
        bake=bake_by_group(comparison),
        learning=_learning(comparison, folder),
        instance=[picture(p) for p in extras.instance if p.is_file()],
        prior_pictures=[picture(p) for p in extras.prior.previews if p.is_file()] if extras.prior else [],
        matched=matched_lines(comparison),
        words=WORDS,
    )


def template(name: str) -> Template:
    """A page of this folder, with the filters that pages use."""
    folder = resources.files("tenuto.evaluation")
    loader = FunctionLoader(lambda part: folder.joinpath(part).read_text(encoding="utf-8"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"num": number_text, "json": lambda value: json.dumps(value, indent=1, ensure_ascii=False)}
    return environment.get_template(name)


# -- pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A picture as it stands in the page."""

    data: str
    width: int
    height: int
    crisp: bool


def picture(path: Path) -> Picture:
    """Small pictures lossless at their own size, larger ones scaled down and compressed."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    crisp = max(image.size) <= CRISP
    if not crisp:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=88, method=6)
    data = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    scale = 2 if crisp else 1
    return Picture(data, image.width * scale, image.height * scale, crisp)


Pictures = Mapping[str, Mapping[str, list[Picture]]]


def _pictures(comparison: Comparison, folder: Path) -> Pictures:
    """Arm -> row -> its pictures."""
    return {
        arm: {
            row: [picture(folder / name) for name in names if (folder / name).is_file()] for row, names in rows.items()
        }
        for arm, rows in comparison.pictures.items()
    }


def _panel(pictures: Pictures, arm: str, row: str) -> list[Picture]:
    return pictures.get(arm, {}).get(row, [])


def _hero(comparison: Comparison, pictures: Pictures) -> list[dict[str, Any]]:
    """With the trigger and, right under it at the same seeds, without. Row names are those of the pictures."""
    trigger = comparison.concept.get("trigger", "")
    if not trigger:
        return [_row(comparison, pictures, "trained", "trained", "As trained", "")]
    called = "The concept should be there, and nothing else should change."
    uncalled = "Same prompts, same seeds, trigger left out: this should look like the base."
    return [
        _row(comparison, pictures, "trained", "trigger", f"with “{trigger}”", called),
        _row(comparison, pictures, "without", "trained", f"without “{trigger}”", uncalled),
    ]


def _row(
    comparison: Comparison, pictures: Pictures, row: str, base_row: str, name: str, say: str, why: str | None = None
) -> dict[str, Any]:
    """One row of the page: every arm's pictures side by side; the base's may be kept under another name."""
    panels = {arm: _panel(pictures, arm, base_row if arm == "base" else row) for arm in pictures}
    return {"name": name, "say": say, "panels": panels, "why": why, "prompts": prompts_of(comparison, row)}


ROW_NAMES = {
    "style": "In another style",
    "place": "In another place",
    "view": "From another view",
    "subject": "On another subject",
    "far": "Prompts that have nothing to do with it, no trigger",
    "second": "Together with a second LoRA, no trigger",
}


def _rows(comparison: Comparison, pictures: Pictures) -> list[dict[str, Any]]:
    rows = []
    for row, name in ROW_NAMES.items():
        why = comparison.missing.get(row)
        if not any(_panel(pictures, arm, row) for arm in pictures) and not why:
            continue
        own = next((tag for group, tag in comparison.own.items() if group == row), None)
        asked = list(dict.fromkeys(tag for p in comparison.prompts if p.row == row for tag in p.added[:1]))
        say = f"The set is mostly “{own}”. " if own else ""
        say += f"Asked for: {', '.join(asked[:4])}." if asked and row in ("style", "place", "view", "subject") else ""
        rows.append(_row(comparison, pictures, row, row, name, say, why))
    return rows


def prompts_of(comparison: Comparison, row: str) -> list[str]:
    """What was asked for in a row, as it was asked."""
    source = {"without": "trained", "second": "far"}.get(row, row)
    found = [p.bare if row == "without" else p.text for p in comparison.prompts if p.row == source]
    before = comparison.settings.get("second_prompt") if row == "second" else ""
    return [f"{before}, {text}" if before else text for text in found]


def strip_prompts(comparison: Comparison) -> list[str]:
    """What the weight strip asks, in the order of its pictures."""
    rows: dict[str, list[str]] = {}
    for prompt in comparison.prompts:
        rows.setdefault(prompt.row, []).append(prompt.text)
    return list(near(rows))


def _strip(comparison: Comparison, pictures: Pictures) -> dict[str, Any] | None:
    """Per arm: strengths with their pictures, and how far it is usable."""
    weights = sorted({float(w) for w in comparison.settings.get("weights", [])})
    arms = {}
    for arm in comparison.arms:
        cells = [(w, _panel(pictures, arm, f"strip-{w:g}")) for w in weights]
        if any(found for _, found in cells):
            number = comparison.arms[arm].get("usable_weight")
            detail = next((d for d in (number.detail if number else []) if d), {})
            arms[arm] = {
                "cells": cells,
                "usable": number.mean if number else None,
                "ends_by": detail.get("ends_by", ""),
            }
    return {"weights": weights, "arms": arms} if arms else None


def _elsewhere(comparison: Comparison, folder: Path) -> dict[str, Any] | None:
    """The other checkpoint's rows and numbers."""
    there = elsewhere_of(comparison, folder)
    if there is None:
        return None
    rows = _hero(there, _pictures(there, folder / ELSEWHERE))
    return {"name": there.base["name"], "rows": rows, "table": carried(comparison, there)}


def _strip_readings(number: Number | None) -> dict[str, list[float]]:
    detail = next((d for d in (number.detail if number else []) if d.get("strengths")), {})
    return {name: detail.get(name) or [] for name in ("strengths", "concept", "compliance", "quality")}


def _curves(comparison: Comparison) -> list[Markup]:
    x = "concept strength" if comparison.curve_axis == "concept_strength" else "gain on unbiased pictures"
    found = [
        curve_figure(comparison.curves, "drift", x, "drift (nD)"),
        curve_figure(comparison.curves, "bake", x, "bake: share of other things changed"),
    ]
    return [Markup(svg) for svg in found if svg]


LEARNING = {"loss.instance": "instance loss", "validation": "loss on pictures kept out of training", "drift": "drift"}
"""Key in the training log -> title of its curve. Every other loss is a regularizer's, named after it."""


def _learning(comparison: Comparison, folder: Path) -> list[Markup]:
    logs = {arm: Journal(folder / paths[0]).read() for arm, paths in comparison.logs.items() if paths}
    terms = sorted({key for log in logs.values() for entry in log for key in entry if key.startswith("loss.")})
    titles = LEARNING | {key: key.removeprefix("loss.") for key in terms if key not in LEARNING}
    found = (learning_figure({arm: _series(log, key) for arm, log in logs.items()}, titles[key]) for key in titles)
    return [Markup(svg) for svg in found if svg]


def _series(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(update, value) of the entries that have it."""
    return [(float(entry["update"]), float(entry[key])) for entry in log if key in entry]
