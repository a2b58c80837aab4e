"""TOML as a person would write it: a section for every table. Some readers of the field know no inline tables."""

from __future__ import annotations

from typing import Any

import tomli_w


def dumps(table: dict[str, Any], path: str = "") -> str:
    """TOML with a section for every table, also in lists, so that a person can edit it."""
    inner = {name: value for name, value in table.items() if isinstance(value, dict) or _is_tables(value)}
    text = tomli_w.dumps({name: value for name, value in table.items() if name not in inner})
    for name, value in inner.items():
        for each in value if isinstance(value, list) else [value]:
            own = dumps(each, f"{path}{name}.")
            if isinstance(value, list):
                own = f"[[{path}{name}]]\n{own}"
            elif not own.startswith("["):
                own = f"[{path}{name}]\n{own}"
            text += own
    return text


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
