"""The report's tables, as plain data for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenuto.evaluation.record import Comparison, Number, mean_of
from tenuto.evaluation.wording import WORDS, Words, number_text


def facts(comparison: Comparison) -> list[dict[str, Any]]:
    """The few numbers of the first screen, arm beside arm."""
    chosen = ("concept_strength", "drift", "bake", "trigger_necessity", "usable_weight")
    return [
        {
            "name": WORDS[name].name,
            "better": WORDS[name].better,
            "values": [(arm, number_text(mean_of(numbers, name), name)) for arm, numbers in comparison.arms.items()],
            "seeds": _of_few_seeds([numbers[name] for numbers in comparison.arms.values() if name in numbers]),
        }
        for name in chosen
        if any(mean_of(numbers, name) is not None for numbers in comparison.arms.values())
    ]


def _of_few_seeds(numbers: Sequence[Number]) -> str:
    """ "1 of 3 seeds" where a number has fewer of them than were trained or drawn; the fewest of any arm."""
    counts = [(sum(value is not None for value in own.per_seed), len(own.per_seed)) for own in numbers]
    known, all_of_them = min(counts, default=(0, 0))
    return f"{known} of {all_of_them} seeds" if known < all_of_them else ""


def _measured(comparison: Comparison) -> tuple[list[str], list[str]]:
    """Names of the metrics that some arm has a number for, and of the others, in the table's order."""
    arms = comparison.arms.values()
    told = list(dict.fromkeys([*WORDS, *(name for numbers in arms for name in numbers)]))
    there = [name for name in told if any(name in numbers for numbers in arms)]
    found = [name for name in there if any(mean_of(numbers, name) is not None for numbers in arms)]
    return found, [name for name in there if name not in found]


def unmeasured(comparison: Comparison) -> dict[str, list[str]]:
    """Why there is no number -> the metrics that lack one for that reason."""
    reasons: dict[str, list[str]] = {}
    for name in _measured(comparison)[1]:
        why = next((own[name].reason for own in comparison.arms.values() if name in own), None) or "not measured"
        reasons.setdefault(why, []).append(WORDS[name].name if name in WORDS else name)
    return reasons


def table(comparison: Comparison) -> list[dict[str, Any]]:
    """A row per metric that some arm has a number for."""
    rows = []
    for name in _measured(comparison)[0]:
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
    "additivity": {"share": "its share of both effects", "disturbed": "of the second's effect, disturbed"},
    "pres": {"read_by": "read by"},
    "div": {"read_by": "read by"},
}
"""Details that the table shows under a metric: key -> words."""


def _parts(comparison: Comparison, name: str) -> list[tuple[str, dict[str, str]]]:
    lines = []
    for key, words in PARTS.get(name, {}).items():
        found = {}
        for arm, numbers in comparison.arms.items():
            told = [d[key] for d in (numbers[name].detail if name in numbers else []) if key in d]
            values = [value for value in told if isinstance(value, int | float)]
            if values:
                found[arm] = number_text(sum(values) / len(values), name)
            elif texts := [value for value in told if isinstance(value, str)]:
                found[arm] = ", ".join(dict.fromkeys(texts))
        if found:
            lines.append((words, found))
    return lines


def bake_by_group(comparison: Comparison) -> list[dict[str, Any]]:
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


def matched_lines(comparison: Comparison) -> list[str]:
    lines = []
    for ratio in comparison.matched:
        within = f"{ratio.tolerance:.0%}".replace("%", " %")
        where = f"at the {ratio.level} LoRA's concept strength (within {within})"
        start = f"{WORDS[ratio.quantity].name}, held over plain, {where}: "
        if ratio.mean is None:
            lines.append(start + "not reached. No number is made up beyond the curve.")
            continue
        seeds = ", ".join("not reached" if value is None else f"{value:.2f}" for value in ratio.per_seed)
        interval = f"; 95 % interval {ratio.interval[0]:.2f} to {ratio.interval[1]:.2f}" if ratio.interval else ""
        lines.append(f"{start}{ratio.mean:.2f} (seeds: {seeds}{interval}).")
    return lines
