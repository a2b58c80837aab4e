"""Key mappings as data: a foreign setting either goes to one of tenuto's, or is left with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tenuto.formats.imported import NEUTRAL, Draft
from tenuto.formats.values import UNSET
from tenuto.regularizers.catalogue import REGULARIZERS

NO_METHOD = "the method `{}` is not in tenuto's catalogue yet; the run does without it"
UNKNOWN = "unknown to this importer; look it up there if it matters"


@dataclass(frozen=True)
class Goes:
    """A setting that tenuto has."""

    ours: str
    """Dotted path in the project file. Of a method that is not in the catalogue, the setting is left."""
    read: Callable[[Any], Any]
    unset: tuple[Any, ...] = (None, "")
    """Values that mean "not set"."""
    note: str = ""
    """What is different about it, said beside."""


Rule = Goes | str


def reasons(table: Mapping[str, str]) -> dict[str, str]:
    """{"why": "name name"} turned round: name -> why."""
    return {name: why for why, names in table.items() for name in names.split()}


def apply(
    draft: Draft, options: Mapping[str, Any], rules: Mapping[str, Rule], neutral: Mapping[str, Any] | None = None
) -> None:
    """Every option by its rule. `neutral`: defaults of the old trainer, beside the usual 0, false and empty."""
    for name, value in options.items():
        rule = rules.get(name)
        if isinstance(rule, Goes):
            carry(draft, name, value, rule)
        elif is_neutral(name, value, neutral or {}):
            draft.leave(name, value, NEUTRAL)
        else:
            draft.leave(name, value, rule or UNKNOWN)


def is_neutral(name: str, value: Any, neutral: Mapping[str, Any]) -> bool:
    if any(value is unset or (value == unset and not isinstance(value, bool)) for unset in UNSET) or value is False:
        return True
    if isinstance(value, str) and value.strip().lower() in ("", "0", "0.0", "false", "none"):
        return True
    return name in neutral and str(value).lower() in (str(neutral[name]).lower(), f"{neutral[name]}.0")


def carry(draft: Draft, name: str, value: Any, rule: Goes) -> bool:
    """Whether the value could be carried; if not, it is said why."""
    if any(value is unset or (value == unset and type(value) is type(unset)) for unset in rule.unset):
        draft.leave(name, value, NEUTRAL)
        return False
    if (missing := _method_missing(rule.ours)) is not None:
        draft.leave(name, value, NO_METHOD.format(missing))
        return False
    try:
        draft.put(name, rule.ours, rule.read(value))
    except ValueError as error:
        draft.leave(name, value, f"{error}: not carried, {rule.ours} stays at tenuto's default")
        return False
    if rule.note:
        draft.leave(name, value, rule.note)
    return True


def _method_missing(ours: str) -> str | None:
    """The regularizer that a path names and the catalogue lacks (or has without that field)."""
    room, _, rest = ours.partition(".")
    if room != "regularizers":
        return None
    method, _, field = rest.partition(".")
    known = REGULARIZERS.get(method)
    return None if known is not None and field.split(".")[0] in known.model_fields else method
