"""Every setting as a page: made of the schema, whenever the site is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_origin

from pydantic import BaseModel
from tools.docs.words import sentence

from tenuto.project.settings import Project
from tenuto.project.wording import settings_in
from tenuto.regularizers.base import Regularizer
from tenuto.training.optimizers import OPTIMIZERS, OptimizerSettings
from tenuto.work.sweep_file import SweepSettings

Schema = Mapping[str, Any]

HEAD = """# Every setting

A project file is TOML. This page is made of the same schema that reads it, so nothing is missing here and nothing
here is out of date. A key that is not in the schema is refused, with the nearest one that is. On the command line:
`--set section.key=value`. Paths are relative to the project file. `tenuto methods NAME` tells a method's settings in
the terminal; the [page](web.md) has them all as forms.
"""
METHODS = """Each method has a section of its own, `[regularizers.<name>]`, with these settings and those that stand
under [Methods](methods.md); `regularizers = {}`: none."""
OF_A_CONCEPT = "What differs from `[prior]` for this concept: the same settings."
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "in steps of {}",
    "minLength": "at least {} letter",
}
TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text", "null": ""}


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## The project", "", *entries(Project), *_sections(Project, "")]
    parts += ["## A sweep file", "", about(SweepSettings), "", *entries(SweepSettings)]
    return "\n".join(parts)


def _sections(model: type[BaseModel], place: str) -> Iterator[str]:
    """A heading for each section of settings inside this one, and its own below it."""
    for name, info in model.model_fields.items():
        own = f"{place}.{name}" if place else name
        inner = settings_in(info.annotation)
        title = f"[[{own}]]" if get_origin(info.annotation) is tuple else f"[{own}]"
        if own == "regularizers":
            told = f"{sentence(info.description or '')} {METHODS}"
            yield from _headed("[regularizers.<name>]", told, Regularizer, own)
            yield from _sections(Regularizer, f"{own}.<name>")
        elif own == "concepts.prior":
            yield from (f"## `{title}`", "", OF_A_CONCEPT, "")
        elif inner is not None and issubclass(inner, OptimizerSettings):
            for kind, each in OPTIMIZERS.items():
                yield from _headed(f'{title} name = "{kind}"', about(each), each, f"{own}.{kind}")
        elif inner is not None:
            yield from _headed(title, about(inner), inner, own)
            yield from _sections(inner, own)


def _headed(title: str, told: str, model: type[BaseModel], place: str) -> Iterator[str]:
    yield from (f"## `{title}`", "", told, "", *entries(model, place))


def about(model: type[BaseModel]) -> str:
    """A section's docstring without its own name, which stands in the heading."""
    text = "\n".join(line.strip() for line in (model.__doc__ or "").strip().splitlines())
    _, mark, rest = text.partition("]: ") if text.startswith("[") else ("", "", text)
    told = rest if mark else text
    return sentence(told)


def entries(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """A definition for each setting that is no section."""
    schema = model.model_json_schema()
    for name, info in model.model_fields.items():
        if settings_in(info.annotation) is not None or name == "regularizers":
            continue
        own = schema["properties"][name]
        facts = [takes(own, schema.get("$defs", {}))]
        if info.is_required():
            facts.append("**must be given**")
        else:
            facts.append(f"default {default(info.get_default(call_default_factory=True))}")
        anchor = f"{place}.{name}" if place else name
        yield f'<span id="{anchor}"></span>`{name}` {"; ".join(fact for fact in facts if fact)}'
        yield f":   {' '.join(_described(model, name).split())}\n"


def _described(model: type[BaseModel], name: str) -> str:
    """A setting's description; one that gives an inherited setting another default keeps the words of its parent."""
    fields = (kind.model_fields.get(name) for kind in model.__mro__ if issubclass(kind, BaseModel))
    return next((info.description for info in fields if info and info.description), "")


def takes(own: Schema, defs: Mapping[str, Schema]) -> str:
    """What a setting may hold, in words."""
    if "$ref" in own:
        return takes(defs[own["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in own:
        return " or ".join(text for each in own["anyOf"] if (text := takes(each, defs)))
    if "const" in own:
        return f'`"{own["const"]}"`'
    if "enum" in own:
        return ", ".join(f'`"{value}"`' for value in own["enum"])
    if own.get("type") == "array":
        return _many(own, defs)
    if own.get("type") == "object":
        return "a table"
    bounds = [text.format(f"{own[key]:g}") for key, text in BOUNDS.items() if key in own]
    return " ".join([TYPES[str(own.get("type", "string"))], *bounds])


def _many(own: Schema, defs: Mapping[str, Schema]) -> str:
    if fixed := own.get("prefixItems"):
        return f"{len(fixed)} numbers"
    inner = takes(own["items"], defs) if own.get("items") else ""
    return f"list of {inner}" if inner else "a list"


def default(value: Any) -> str:
    """A default as it would be written in TOML."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple | list):
        return f"`[{', '.join(default(each).strip('`') for each in value)}]`"
    return f"`{value:g}`" if isinstance(value, int | float) else "none"
