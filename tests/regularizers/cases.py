"""What a method needs in its contract tests, where a plain tiny run is not enough for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.catalogue import REGULARIZERS


@dataclass(frozen=True)
class Case:
    """A method as it is tested."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Apart from its weight."""
    beside: dict[str, Regularizer] = field(default_factory=dict)
    """Methods that are there with and without it."""
    loud: float = 1.0
    """The weight at which it does something."""


CASES: dict[str, Case] = {}


def methods(name: str, weight: float | None = None) -> dict[str, Regularizer]:
    """The method (at its loud weight) and what it is tested beside."""
    case = CASES.get(name, Case())
    return {**case.beside, name: REGULARIZERS[name](weight=case.loud if weight is None else weight, **case.settings)}


def beside(name: str) -> dict[str, Regularizer]:
    """The same run without the method."""
    return CASES.get(name, Case()).beside
