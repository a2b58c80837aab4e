"""A method told by its own docstring and settings: for `tenuto methods`, the page and the docs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tenuto.regularizers.base import Regularizer

SECTIONS = ("When", "Paper", "Cost", "Avoid")


def explain(method: type[Any]) -> dict[str, Any]:
    """A method as plain data: its sentence, formula and notes, and its settings with their defaults."""
    text = inspect.getdoc(method) or ""
    first, _, rest = text.partition("\n")
    about, notes = _split(rest)
    settings = {
        field: {"default": _plain(info), "about": info.description or ""} for field, info in method.model_fields.items()
    }
    return {"summary": first, "about": about, **notes, "dial": method.dial, "settings": settings}


def held_by(methods: Mapping[str, Regularizer]) -> str:
    """What holds an arm, in a line."""
    told = ", ".join(f"{name} ({turned(own)})" for name, own in methods.items())
    return f"held by {told}" if told else "no regularization"


def turned(method: Regularizer) -> str:
    """What it is set to: the setting that turns it, and its value."""
    return f"{method.dial} {_value(method):g}"


def weights_of(methods: Mapping[str, Regularizer]) -> dict[str, float]:
    """The weight of each active method; what another setting turns stands there by that one."""
    active = {name: own for name, own in methods.items() if own.active()}
    return {name if own.dial == "weight" else f"{name} {own.dial}": _value(own) for name, own in active.items()}


def _value(method: Regularizer) -> float:
    return float(getattr(method, method.dial))


def _split(text: str) -> tuple[str, dict[str, str]]:
    """What stands before "When", and the notes by their word; a note's further lines are indented."""
    about: list[str] = []
    notes: dict[str, list[str]] = {}
    current = about
    for line in text.splitlines():
        word = line.split(" ", 1)[0]
        if word in SECTIONS:
            current = notes.setdefault(word.lower(), [])
            line = line.removeprefix(word)
        current.append(line if current is about else line.strip())
    return "\n".join(about).strip("\n"), {word: " ".join(lines).strip() for word, lines in notes.items()}


def _plain(info: Any) -> Any:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return None
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
