"""Foreign values made plain: interfaces save numbers as text, whole numbers as floats, switches as words.

Each function takes anything and answers with its type, or raises ValueError saying what was wanted.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from typing import Any

UNSET: tuple[Any, ...] = (None, "", False, 0, [], {})


def number(value: Any) -> float:
    """0.0001, "1e-4", 1."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("no number")
    return found


def at_least_zero(value: Any) -> float:
    if (found := number(value)) < 0:
        raise ValueError("below 0")
    return found


def above_zero(value: Any) -> float:
    if (found := number(value)) <= 0:
        raise ValueError("not above 0")
    return found


def share(value: Any) -> float:
    if not 0 <= (found := number(value)) <= 1:
        raise ValueError("not between 0 and 1")
    return found


def below_one(value: Any) -> float:
    if (found := share(value)) == 1:
        raise ValueError("all of it")
    return found


def whole(value: Any) -> int:
    """5, "5", 5.0."""
    found = number(value)
    if found != int(found) or abs(found) > 2**53:
        raise ValueError("no whole number")
    return int(found)


def natural(value: Any) -> int:
    if (found := whole(value)) < 0:
        raise ValueError("below 0")
    return found


def positive(value: Any) -> int:
    if (found := whole(value)) < 1:
        raise ValueError("below 1")
    return found


def flag(value: Any) -> bool:
    """True, "True", 1, "on"."""
    if isinstance(value, str):
        if value.strip().lower() in ("true", "1", "yes", "on"):
            return True
        if value.strip().lower() in ("false", "0", "no", "off", "", "none"):
            return False
        raise ValueError("neither true nor false")
    if isinstance(value, bool | int | float) or value is None:
        return bool(value)
    raise ValueError("neither true nor false")


def words(value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError("no text")
    return str(value)


def saved_precision(value: Any) -> str:
    """What a file's weights are kept in, in our words."""
    found = {"fp16": "fp16", "bf16": "bf16", "float": "fp32", "fp32": "fp32"}.get(str(value).strip().lower())
    if found is None:
        raise ValueError("no precision")
    return found


def half_precision(value: Any) -> str:
    """What the base is computed in, where that is not float32."""
    found = str(value).strip().lower()
    if found not in ("fp16", "bf16"):
        raise ValueError("no half precision")
    return found


def size(value: Any) -> tuple[int, int]:
    """512, "512", "512,768", [512, 768]."""
    parts = value if isinstance(value, list | tuple) else str(value).replace("x", ",").split(",")
    sides = [positive(part.strip() if isinstance(part, str) else part) for part in parts]
    if len(sides) not in (1, 2) or isinstance(value, bool) or max(sides) > 1 << 16:
        raise ValueError("no size")
    return sides[0], sides[-1]


def pairs(value: Any) -> dict[str, Any]:
    """["weight_decay=0.1", "betas=0.9,0.99"], the same as one text, or a table."""
    if isinstance(value, dict):
        return {str(name): literal(each) for name, each in value.items()}
    texts = re.split(r"""\s+(?=["']?\w+=)""", value.strip()) if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("no list of name=value")
    found = (text.strip().strip("\"'").partition("=") for text in texts if text.strip())
    return {name.strip(): literal(each) for name, _, each in found}


def literal(value: Any) -> Any:
    """A Python literal as such, everything else as it is. Nothing is evaluated."""
    if not isinstance(value, str) or len(value) > 200:
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return value


def read_or_none(value: Any, read: Callable[[Any], Any]) -> Any:
    """The value, or None where there is none that can be read."""
    try:
        return read(value) if value not in (None, "") else None
    except ValueError:
        return None
