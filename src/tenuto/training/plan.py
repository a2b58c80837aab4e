"""All that decides the result of a training, in a form that two plans can be compared by and people can read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenuto.files import hash_text

SHOWN = 5
"""Differences that are told, at most."""
LONG = 60
"""Characters of a value that are shown."""
MISSING = "(none)"


@dataclass(frozen=True)
class Plan:
    """A training goes on only under an equal plan."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """Tables of plain JSON values."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._flat() == other._flat()

    def __hash__(self) -> int:
        return hash(json.dumps(self._flat(), sort_keys=True))

    def against(self, before: Plan) -> str:
        """What differs, in one line: "training.optimizer.lr is 0.001 and was 0.0001; ..."."""
        new, old = self._flat(), before._flat()
        names = [name for name in sorted(new.keys() | old.keys()) if new.get(name, MISSING) != old.get(name, MISSING)]
        told = [f"{name} is {_shown(new.get(name))} and was {_shown(old.get(name))}" for name in names[:SHOWN]]
        return "; ".join(told) + (f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

    def _flat(self) -> dict[str, Any]:
        """What is unset is as good as absent: a setting that a later version adds refuses no earlier run."""
        leaves = _leaves(json.loads(json.dumps(self.facts)), "")
        return {name: value for name, value in leaves if value is not None}


def digest(values: Sequence[Any]) -> str:
    """A long list by its length and content, as a fact of a plan."""
    return f"{len(values)} ({hash_text(json.dumps(values))[:16]})"


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and (value or not name):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _shown(value: Any) -> str:
    text = MISSING if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"
