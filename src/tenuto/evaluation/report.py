"""report.html: one file that shows and says what regularization did. The numbers are comparison.json's; nothing is
measured here."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from tenuto.evaluation.curve import Level, Quantity, Ratio, final
from tenuto.evaluation.figures import curve_figure, learning_figure, strip_figure
from tenuto.evaluation.record import Comparison, Number
from tenuto.files import write_text

LARGEST = 256
"""Pictures are inlined with at most this many pixels along a side."""
CRISP = 160
"""Pictures up to this size are shown at twice their size, pixel by pixel."""
EVEN = 0.1
"""Ratios within 10 % of 1 are called no difference."""

Tone = Literal["good", "even", "bad", "unknown"]


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


@dataclass(frozen=True)
class Verdict:
    """The report's first sentence, with what qualifies it."""

    sentence: str
    tone: Tone
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """A metric in plain words."""

    name: str
    says: str
    better: Literal["lower", "higher", ""]
    percent: bool = False


WORDS: dict[str, Words] = {
    "concept_strength": Words(
        "Concept strength",
        "how surely the concept shows in styles, places and views the set never had; 1 = always",
        "higher",
    ),
    "drift": Words(
        "Drift (nD)",
        "how far the rest of the model moved; 0 = untouched, 1 = as much as a prompt's own effect; "
        "energy ratio, amplitude in brackets",
        "lower",
    ),
    "bake": Words(
        "Bake", "share of other things (style, place, pose, hair …) that change when the trigger is used", "lower", True
    ),
    "style_bleed": Words(
        "Style bleed", "how much more often the set's own style shows where nobody asked for it", "lower", True
    ),
    "tag_compliance": Words(
        "Tag compliance", "prompted tags that are still drawn, against the base; 1 = as good as the base", "higher"
    ),
    "trigger_necessity": Words(
        "Trigger necessity", "1 = only the trigger calls the concept; 0 = it comes uncalled just as often", "higher"
    ),
    "usable_weight": Words(
        "Usable weight", "how far the weight can be turned up before prompts or pictures break", "higher"
    ),
    "guided_drift": Words("Guided drift", "drift as the sampler sees it at this guidance", "lower"),
    "selectivity": Words("Selectivity (dB)", "effect with the trigger over leak without it", "higher"),
    "gain": Words(
        "Gain (unbiased)", "how much better it predicts pictures of the concept outside the set's bias", "higher"
    ),
    "fit": Words(
        "Fit",
        "how much better it predicts instance pictures kept out of training; rewards bake, so never compare by it",
        "",
    ),
    "seconds": Words("Seconds", "everything this arm needed: prior set, caches, training", "lower"),
    "forwards": Words("Forwards", "the same in passes through the network", "lower"),
}
"""In the order of the table. A metric that is not here is shown under its own name."""


def write_report(comparison: Comparison, folder: Path, path: Path, extras: Extras | None = None) -> None:
    """Write one self-contained HTML file. `folder` is the comparison's, where its pictures are."""
    write_text(path, render(comparison, folder, extras or Extras()))


def render(comparison: Comparison, folder: Path, extras: Extras) -> str:
    """The page's text."""
    source = resources.files("tenuto.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"num": number_text, "json": lambda value: json.dumps(value, indent=1, ensure_ascii=False)}
    pictures = {
        arm: {
            row: [picture(folder / name) for name in names if (folder / name).is_file()] for row, names in rows.items()
        }
        for arm, rows in comparison.pictures.items()
    }
    arms = list(comparison.arms)
    strips = {arm: _strip_readings(comparison.arms[arm].get("usable_weight")) for arm in arms}
    return environment.from_string(source).render(
        c=comparison,
        extras=extras,
        title=extras.title or comparison.concept.get("name", "comparison"),
        verdict=verdict(comparison),
        arms=arms,
        columns=[arm for arm in ("base", *arms) if arm in pictures],
        hero=_hero(comparison, pictures),
        rows=_rows(comparison, pictures),
        strip=_strip(comparison, pictures),
        facts=facts(comparison),
        table=_table(comparison),
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
        bake=_bake(comparison),
        learning=_learning(comparison, folder),
        instance=[picture(p) for p in extras.instance if p.is_file()],
        prior_pictures=[picture(p) for p in extras.prior.previews if p.is_file()] if extras.prior else [],
        matched=_matched_lines(comparison),
        words=WORDS,
    )


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
    return {"name": name, "say": say, "panels": panels, "why": why, "prompts": _prompts(comparison, row)}


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


def _prompts(comparison: Comparison, row: str) -> list[str]:
    source = {"without": "trained", "second": "far"}.get(row, row)
    found = [p.bare if row == "without" else p.text for p in comparison.prompts if p.row == source]
    before = comparison.settings.get("second_prompt") if row == "second" else ""
    return [f"{before}, {text}" if before else text for text in found]


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


def _strip_readings(number: Number | None) -> dict[str, list[float]]:
    detail = next((d for d in (number.detail if number else []) if d.get("strengths")), {})
    return {name: detail.get(name) or [] for name in ("strengths", "concept", "compliance", "quality")}


# -- numbers ----------------------------------------------------------------------------------------------------------


def number_text(value: float | None, name: str = "") -> str:
    """A number as people read it: 0.043 (21 %) for drift, 31 % for shares, 12 min for seconds."""
    if value is None or not math.isfinite(value):
        return "–"
    if name in ("drift", "guided_drift"):
        return f"{significant(value)} ({math.sqrt(max(value, 0)):.0%})".replace("%", " %")
    if name in WORDS and WORDS[name].percent:
        return f"{100 * value:.0f} %"
    if name == "seconds":
        return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
    if name == "forwards":
        return f"{value:,.0f}".replace(",", " ")
    if name == "selectivity":
        return f"{value:+.1f} dB"
    return f"{value:.4f}" if name in ("gain", "fit") else f"{value:.2f}"


def significant(value: float) -> str:
    """Two significant digits without exponents."""
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def times(ratio: float) -> str:
    """ "2.4 times" for ratio 1/2.4."""
    factor = 1 / ratio if ratio < 1 else ratio
    return f"{factor:.0f} times" if factor >= 10 else f"{factor:.1f} times"


def verdict(comparison: Comparison) -> Verdict:
    """One honest sentence from the numbers: at matched concept strength where it was reached, and said so where not."""
    plain, held = comparison.arms.get("plain"), comparison.arms.get("held")
    if plain is None or held is None:
        return Verdict("There is only one arm here, so nothing can be compared.", "unknown")
    caveats = []
    best = _reached(comparison, "drift")
    if best is not None and best.mean is not None:
        wanted, bakes = len(best.per_seed), _reached(comparison, "bake", best.level)
        if best.level == "held":
            caveats.append(
                "The held LoRA's concept is weaker as trained; it is compared with the plain LoRA where that one is as "
                "weak, turned down or stopped early."
            )
        if best.reached < wanted:
            caveats.append(f"They met there in {best.reached} of {wanted} seeds; only those count here.")
        if best.interval and best.interval[0] < 1 < best.interval[1]:
            caveats.append("The seeds disagree: no difference is within the 95 % interval.")
        return _sentence(
            best.mean, bakes.mean if bakes else None, "At the same concept strength, the held LoRA", caveats
        )
    drifts = _mean(plain, "drift"), _mean(held, "drift")
    strengths = _mean(plain, "concept_strength"), _mean(held, "concept_strength")
    if drifts[0] is None or drifts[1] is None:
        reason = (plain.get("drift") or Number(mean=None)).reason or "no predictions were compared"
        return Verdict(f"Drift could not be measured: {reason}.", "unknown")
    if not drifts[0]:
        return Verdict("The plain LoRA did not move the model at all; train it longer before comparing.", "unknown")
    ratio = drifts[1] / drifts[0]
    if strengths[0] is not None and strengths[1] is not None:
        said = f"{strengths[1]:.2f} against {strengths[0]:.2f}"
        points = comparison.curves.get("held", [])
        end = final(comparison.curves.get("plain", []))
        if points and end is not None:
            caveats.append(
                "Part of the lower drift is simply a weaker concept: look at the curves before believing it."
            )
            return Verdict(
                f"The held LoRA never gets as strong as the plain one (concept {said}); it moves the rest of the model "
                f"{times(ratio)} {'less' if ratio < 1 else 'more'}.",
                "even" if ratio < 1 else "bad",
                tuple(caveats),
            )
        caveats.append(f"Not matched: concept strength is {said}.")
    else:
        reason = (held.get("concept_strength") or Number(mean=None)).reason or "nobody could read the pictures"
        caveats.append(f"Concept strength could not be measured ({reason}), so this is not at matched strength.")
    return _sentence(ratio, None, "As trained, the held LoRA", caveats)


def _reached(comparison: Comparison, quantity: Quantity, level: Level | None = None) -> Ratio | None:
    """The first matched reading that has a number: at the plain LoRA's strength if the held one gets there."""
    found = (r for r in comparison.matched if r.quantity == quantity and level in (None, r.level))
    return next((ratio for ratio in found if ratio.mean is not None), None)


def _sentence(drift_ratio: float, bake_ratio: float | None, start: str, caveats: Sequence[str]) -> Verdict:
    if abs(drift_ratio - 1) <= EVEN:
        sentence, tone = f"{start} moves the rest of the model about as much as the plain one", "even"
    elif drift_ratio < 1:
        sentence, tone = f"{start} moves the rest of the model {times(drift_ratio)} less than the plain one", "good"
    else:
        sentence, tone = f"{start} moves the rest of the model {times(drift_ratio)} more than the plain one", "bad"
    if bake_ratio is not None:
        if abs(bake_ratio - 1) <= EVEN:
            sentence += ", and changes about as many other things in the picture."
        elif bake_ratio < 1:
            link = "and" if tone == "good" else "but"
            sentence += (
                f", {link} changes {times(bake_ratio)} fewer other things in the picture."
                if bake_ratio > 0
                else f", {link} changes nothing else in the picture."
            )
        else:
            link = "but" if tone == "good" else "and"
            sentence += f", {link} changes {times(bake_ratio)} as many other things in the picture."
    else:
        sentence += "."
    if tone == "bad":
        caveats = [
            *caveats,
            "Regularization did not help here: try a lower weight, more prior images or fewer updates.",
        ]
    shown: Tone = "good" if tone == "good" else "bad" if tone == "bad" else "even"
    return Verdict(sentence, shown, tuple(caveats))


def _mean(arm: Mapping[str, Number], name: str) -> float | None:
    number = arm.get(name)
    return number.mean if number else None


def facts(comparison: Comparison) -> list[dict[str, Any]]:
    """The few numbers of the first screen, arm beside arm."""
    chosen = ("concept_strength", "drift", "bake", "trigger_necessity", "usable_weight")
    return [
        {
            "name": WORDS[name].name,
            "better": WORDS[name].better,
            "values": [(arm, number_text(_mean(numbers, name), name)) for arm, numbers in comparison.arms.items()],
        }
        for name in chosen
        if any(_mean(numbers, name) is not None for numbers in comparison.arms.values())
    ]


def _table(comparison: Comparison) -> list[dict[str, Any]]:
    names = [name for name in WORDS if any(name in numbers for numbers in comparison.arms.values())]
    names += [
        name for numbers in comparison.arms.values() for name in numbers if name not in WORDS and name not in names
    ]
    rows = []
    for name in names:
        words = WORDS.get(name, Words(name, "", ""))
        cells, found = {}, []
        for arm, numbers in comparison.arms.items():
            number = numbers.get(name, Number(mean=None, reason="not measured"))
            cells[arm] = {
                "text": number_text(number.mean, name),
                "seeds": [number_text(value, name).split(" (")[0] for value in number.per_seed if value is not None],
                "interval": [number_text(end, name).split(" (")[0] for end in number.interval]
                if number.interval
                else None,
                "reason": number.reason if number.mean is None else None,
            }
            found.append((number.mean, arm))
        best = None
        usable = [(value, arm) for value, arm in found if value is not None]
        if words.better and len(usable) > 1 and len({value for value, _ in usable}) > 1:
            best = (min if words.better == "lower" else max)(usable)[1]
        rows.append({"key": name, "words": words, "cells": cells, "best": best, "parts": _parts(comparison, name)})
    return rows


PARTS = {
    "drift": {
        "p95": "worst 5 % of prompts",
        "worst_bin": "worst quarter of t",
        "near": "near prompts",
        "far": "far prompts",
        "empty": "empty prompt",
    },
    "style_bleed": {"a": "(a) without trigger", "b": "(b) other style asked", "c": "(c) second LoRA"},
    "tag_compliance": {"recall": "tags found", "base_recall": "base finds"},
    "trigger_necessity": {"trigger": "concept with trigger", "no_trigger": "without"},
    "concept_strength": {"as_trained": "in its own surroundings", "base": "base with the trigger"},
    "fit": {"memorisation": "memorisation gap"},
    "usable_weight": {"spearman": "rank order of concept"},
}
"""Details that the table shows under a metric: key -> words."""


def _parts(comparison: Comparison, name: str) -> list[tuple[str, dict[str, str]]]:
    lines = []
    for key, words in PARTS.get(name, {}).items():
        found = {}
        for arm, numbers in comparison.arms.items():
            values = [
                d[key] for d in (numbers[name].detail if name in numbers else []) if isinstance(d.get(key), int | float)
            ]
            if values:
                found[arm] = number_text(sum(values) / len(values), name)
        if found:
            lines.append((words, found))
    return lines


def _bake(comparison: Comparison) -> list[dict[str, Any]]:
    """Per tag group: share changed per arm, what the base alone changes through the trigger word, and the pull to the
    set's own tag."""
    parts: dict[str, dict[str, Any]] = {}
    for arm, numbers in comparison.arms.items():
        details = [d for d in (numbers["bake"].detail if "bake" in numbers else []) if d.get("groups")]
        for group in details[0]["groups"] if details else ():
            entry = parts.setdefault(group, {"group": group, "own": comparison.own.get(group), "arms": {}, "pull": {}})
            entry["arms"][arm] = sum(d["groups"][group] for d in details) / len(details)
            pulls = [d["towards_set"][group] for d in details if d["towards_set"].get(group) is not None]
            if pulls:
                entry["pull"][arm] = sum(pulls) / len(pulls)
    return sorted(parts.values(), key=lambda entry: -max(entry["arms"].values()))


def _curves(comparison: Comparison) -> list[Markup]:
    x = "concept strength" if comparison.curve_axis == "concept_strength" else "gain on unbiased pictures"
    found = [
        curve_figure(comparison.curves, "drift", x, "drift (nD)"),
        curve_figure(comparison.curves, "bake", x, "bake: share of other things changed"),
    ]
    return [Markup(svg) for svg in found if svg]


def _matched_lines(comparison: Comparison) -> list[str]:
    lines = []
    for ratio in comparison.matched:
        what = "Drift" if ratio.quantity == "drift" else "Bake"
        within = f"{ratio.tolerance:.0%}".replace("%", " %")
        start = f"{what}, held over plain, at the {ratio.level} LoRA's concept strength (within {within}): "
        if ratio.mean is None:
            lines.append(start + "not reached. No number is made up beyond the curve.")
            continue
        seeds = ", ".join("not reached" if value is None else f"{value:.2f}" for value in ratio.per_seed)
        interval = f"; 95 % interval {ratio.interval[0]:.2f} to {ratio.interval[1]:.2f}" if ratio.interval else ""
        lines.append(f"{start}{ratio.mean:.2f} (seeds: {seeds}{interval}).")
    return lines


LEARNING = {"loss.instance": "instance loss", "validation": "loss on pictures kept out of training", "drift": "drift"}
"""Key in the training log -> title of its curve. Every other loss is a regularizer's, named after it."""


def _learning(comparison: Comparison, folder: Path) -> list[Markup]:
    logs = {arm: read_log(folder / paths[0]) for arm, paths in comparison.logs.items() if paths}
    terms = sorted({key for log in logs.values() for entry in log for key in entry if key.startswith("loss.")})
    titles = LEARNING | {key: key.removeprefix("loss.") for key in terms if key not in LEARNING}
    found = (learning_figure({arm: _series(log, key) for arm, log in logs.items()}, titles[key]) for key in titles)
    return [Markup(svg) for svg in found if svg]


def _series(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(update, value) of the entries that have it."""
    return [(float(entry["update"]), float(entry[key])) for entry in log if key in entry]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL log; nothing where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


__all__ = ["Extras", "PriorUse", "Verdict", "render", "verdict", "write_report"]
