"""What is wrong with a project's data, in one line that names the nearest valid setting."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tenuto.regularizers.catalogue import REGULARIZERS


def explained(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the data of these settings, in one line with the nearest valid names."""
    return "; ".join(_explain(detail, model) for detail in causes(error))


def _explain(detail: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        *path, wrong = detail["loc"]
        return f"{where} is not a setting{nearest(str(wrong), _fields_at(model, path))}"
    value = detail.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float) else ""
    if detail["type"] == "string_pattern_mismatch":
        return f"{where}: it may hold neither / nor \\{shown}"
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: a section of settings, not one value{shown}"
    return f"{where}: {detail['msg'].removeprefix('Value error, ')}{shown}"


def nearest(wrong: str, valid: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(valid)}"


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the settings that exist at a place in the file."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = settings_in(model.model_fields[part].annotation) or model
        elif isinstance(part, str) and part in REGULARIZERS:
            model = REGULARIZERS[part]
    return list(model.model_fields)


def settings_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as tuple[X, ...] or X | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, list, Union, UnionType, dict):
        return next((found for inner in get_args(annotation) if (found := settings_in(inner))), None)
    return None


def causes(error: ValidationError) -> list[ErrorDetails]:
    """What is wrong, without what only follows: a list whose entries are wrong counts as too short, and a default that
    is made of other settings cannot be made while one of them is wrong."""
    details = error.errors(include_url=False)
    places = [detail["loc"] for detail in details]

    def follows(detail: ErrorDetails) -> bool:
        at = detail["loc"]
        short = detail["type"] == "too_short" and any(len(p) > len(at) and p[: len(at)] == at for p in places)
        return short or detail["type"] == "default_factory_not_called"

    return [detail for detail in details if not follows(detail)]
