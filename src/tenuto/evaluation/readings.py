"""What was read off the models, before any metric: values that fit in small files, and the store that keeps them.

Metrics are pure functions of these values, so that each can be checked by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from tenuto.checks import json_check
from tenuto.files import parse_json, write_text


@dataclass(frozen=True)
class Seen:
    """What fixed models say of B pictures: a tagger's probabilities, and encoders' features."""

    tags: Mapping[str, tuple[str, ...]]
    """Group -> its tags, in the order of the columns."""
    probabilities: Mapping[str, Tensor]
    """Group -> [B n]."""
    single: tuple[str, ...] = ()
    """Groups in which exactly one tag holds."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Encoder ("dino", "clip", TAGGER_FEATURES) -> [B D], each of length 1."""

    def __len__(self) -> int:
        return next((len(value) for value in (*self.probabilities.values(), *self.features.values())), 0)

    def group_of(self, tag: str) -> str | None:
        return next((group for group, tags in self.tags.items() if group != "concepts" and tag in tags), None)

    def p(self, group: str, tag: str) -> Tensor:
        """Probability of one tag in each picture [B]."""
        return self.probabilities[group][:, self.tags[group].index(tag)]

    def reading(self, group: str) -> Tensor:
        """What the tagger says outright: the best tag's number [B] where one holds, else 0/1 per tag [B n]."""
        values = self.probabilities[group]
        return values.argmax(dim=1) if group in self.single else (values >= THRESHOLD)

    def rows(self, index: Sequence[int] | slice) -> Seen:
        chosen = index if isinstance(index, slice) else list(index)
        return Seen(
            self.tags,
            {name: value[chosen] for name, value in self.probabilities.items()},
            self.single,
            {name: value[chosen] for name, value in self.features.items()},
        )

    @classmethod
    def join(cls, parts: Sequence[Seen]) -> Seen:
        first = parts[0]
        values = {name: torch.cat([part.probabilities[name] for part in parts]) for name in first.probabilities}
        features = {name: torch.cat([part.features[name] for part in parts]) for name in first.features}
        return cls(first.tags, values, first.single, features)

    def to_json(self) -> dict[str, Any]:
        values = {
            name: [[round(p, 5) for p in row] for row in value.tolist()] for name, value in self.probabilities.items()
        }
        return {
            "tags": {name: list(tags) for name, tags in self.tags.items()},
            "p": values,
            "single": list(self.single),
            "features": {
                name: [[round(x, 5) for x in row] for row in own.tolist()] for name, own in self.features.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Seen:
        tags = {name: tuple(values) for name, values in data["tags"].items()}
        values = {name: torch.tensor(rows).reshape(-1, len(tags[name])) for name, rows in data["p"].items()}
        features = {name: torch.tensor(rows) for name, rows in data.get("features", {}).items()}
        return cls(tags, values, tuple(data["single"]), features)


TAGGER_FEATURES = "tagger_features"
"""A tagger that is an encoder too, as such: it reads where no DINO was named."""
THRESHOLD = 0.5
"""A tag counts as found from this probability on."""


@dataclass(frozen=True)
class Gap:
    """Squared norms at one state (x_t, t) under one prompt c; f_th the arm, f_0 the base, u the empty prompt."""

    prompt: str
    kind: str
    """near, far or empty."""
    t: float
    """Timestep as a share of the process, 0 (clean) .. 1 (noise)."""
    d: float
    """|f_th(c) - f_0(c)|^2"""
    du: float
    """|f_th(u) - f_0(u)|^2"""
    g: float
    """|f_0(c) - f_0(u)|^2, the prompt's own effect; 0 for the empty prompt."""
    dg: float
    """|w d_c - (w - 1) d_u|^2, the drift that a guided sampler sees."""
    d_trigger: float | None = None
    """d with the trigger put into the prompt."""
    g_trigger: float | None = None
    f_th: float = 0.0
    """|f_th(c)|^2"""
    f_0: float = 0.0


@dataclass(frozen=True)
class Pair:
    """Squared norms at one state of what two LoRAs change, d = f - f_0: alone, and together (d_ij)."""

    own: float
    """|d_i|^2"""
    other: float
    """|d_j|^2"""
    apart: float
    """|d_ij - (d_i + d_j)|^2"""

    @classmethod
    def of(cls, base: Tensor, own: Tensor, other: Tensor, both: Tensor) -> Self:
        """From the four models' answers."""
        d_i, d_j, d_ij = (answer.double() - base.double() for answer in (own, other, both))
        return cls(energy(d_i), energy(d_j), energy(d_ij - (d_i + d_j)))


@dataclass(frozen=True)
class Losses:
    """Mean squared errors per picture on a fixed grid of t and noise: base and arm, same pictures."""

    base: tuple[float, ...] = ()
    arm: tuple[float, ...] = ()

    def gain(self) -> float | None:
        """mean(loss_base - loss_arm); None without pictures."""
        if not self.base:
            return None
        return sum(b - a for b, a in zip(self.base, self.arm, strict=True)) / len(self.base)


@dataclass(frozen=True)
class Evidence:
    """All that was read for one arm at one seed. Rows of pictures: see prompts.ROWS."""

    arm: Mapping[str, Seen] = field(default_factory=dict)
    """Row -> what the arm drew there."""
    base: Mapping[str, Seen] = field(default_factory=dict)
    """Row -> what the base drew at the same seeds, without the trigger; "trigger": the trained row with it."""
    asked: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Row -> the tags that each prompt asked for, trigger left out."""
    strip: Mapping[float, Seen] = field(default_factory=dict)
    """Strength -> pictures of the strip's prompts."""
    gaps: tuple[Gap, ...] = ()
    floor: float = 0.0
    """nD of the adapter at strength 0: what the arithmetic itself moves."""
    pairs: tuple[Pair, ...] = ()
    """With the second LoRA."""
    guidance: float = 1.0
    train: Losses = Losses()
    held_out: Losses = Losses()
    unbiased: Losses = Losses()
    own: Mapping[str, str] = field(default_factory=dict)
    """Tag group -> the set's own tag: what most of its pictures share."""
    concept: str | None = None
    """Name of the concept's detector."""
    concept_groups: frozenset[str] = frozenset()
    """Tag groups that the concept itself may change."""
    style_concept: bool = False
    real: Mapping[str, Tensor] = field(default_factory=dict)
    """Encoder -> features [N D] of the user's own pictures."""
    prompts: Mapping[str, Tensor] = field(default_factory=dict)
    """Row -> CLIP's features [B D] of what each picture was asked for, trigger left out."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why something is not there: "tagger", "style", "second", ... -> reason."""


@dataclass(frozen=True)
class Value:
    """One metric's answer at one seed: a number, or null and the reason."""

    value: float | None = None
    reason: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def none(cls, reason: str, **detail: Any) -> Self:
        return cls(None, reason, detail)


class Store:
    """Readings as small JSON files, one per part; a kill loses at most the part that was being read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, part: str, key: Mapping[str, Any], read: Callable[[], Any]) -> Any:
        """The stored reading of this part if it was made from the same `key` and is as it was stored; else read now
        and store it."""
        plain = json.loads(json.dumps(key, default=str))
        path = self.folder / f"{part}-{json_check(plain)}.json"
        try:
            kept = parse_json(path.read_text(encoding="utf-8"))
            if kept["key"] == plain and kept["check"] == json_check(kept["reading"]):
                return kept["reading"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # damaged
            pass
        reading = json.loads(json.dumps(read(), default=str))
        write_text(path, json.dumps({"key": plain, "reading": reading, "check": json_check(reading)}) + "\n")
        return reading


def energy(gap: Tensor) -> float:
    return float(gap.double().square().sum())


def gaps_to_json(gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    return [asdict(gap) for gap in gaps]


def gaps_from_json(data: Sequence[Mapping[str, Any]]) -> tuple[Gap, ...]:
    return tuple(Gap(**entry) for entry in data)
