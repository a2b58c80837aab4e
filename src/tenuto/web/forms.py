"""Forms made of the settings schema, and settings made of what a form sends back. The schema is the only truth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tenuto.project.file import make_project
from tenuto.project.settings import ConceptSettings, Project, as_tables
from tenuto.project.wording import causes, settings_in
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.web.labels import LABELS
from tenuto.words import TenutoError

Kind = Literal["text", "number", "flag", "choice", "choices", "list"]
Table = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One setting as an input."""

    name: str
    """Its dotted place in the project, such as training.optimizer.lr."""
    label: str
    about: str
    kind: Kind
    value: Any
    """As it stands in the file; None where it is unset."""
    default: str
    """What holds when it is unset, in words."""
    options: tuple[str, ...] = ()
    path: bool = False
    """Whether it names a file or folder, so that one can be looked for."""
    whole: bool = False
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Section:
    """A group of settings."""

    name: str
    title: str
    about: str
    fields: tuple[Field, ...]
    sections: tuple[Section, ...] = ()
    optional: bool = False
    """A method, which may be left out."""
    there: bool = True


def project_form(table: Mapping[str, Any]) -> list[Section]:
    """The whole project as sections."""
    top = [name for name, info in Project.model_fields.items() if settings_in(info.annotation) is None]
    plain = tuple(_field(name, Project.model_fields[name], table.get(name)) for name in top if name != "regularizers")
    own = table.get("concepts") or [{}]
    concepts = tuple(
        _section(f"concepts.{number}", ConceptSettings, each, str(each.get("name") or f"concept {number + 1}"))
        for number, each in enumerate(own)
    )
    sections = [
        Section("concepts", LABELS.get("concepts", "What is learned"), "", (), concepts),
        _section("base", _annotated("base"), table.get("base", {})),
        _section("training", _annotated("training"), table.get("training", {})),
        _methods(table),
        _section("prior", _annotated("prior"), table.get("prior", {})),
        _section("data", _annotated("data"), table.get("data", {})),
        _section("arms", _annotated("arms"), table.get("arms", {})),
        _section("comparison", _annotated("comparison"), table.get("comparison", {})),
        Section("", "Name and seed", "", plain),
    ]
    return sections


def _annotated(name: str) -> type[BaseModel]:
    model = settings_in(Project.model_fields[name].annotation)
    assert model is not None
    return model


def methods_in(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A project's methods as its file would name them, what it is held by unnamed among them; while something in it is
    wrong, those that it names."""
    try:
        return as_tables(make_project(table, "the project").regularizers)
    except TenutoError:
        return dict(table.get("regularizers", {}))


def _methods(table: Mapping[str, Any]) -> Section:
    there = methods_in(table)
    inner = tuple(
        _section(f"regularizers.{name}", method, there.get(name, {}), name, optional=True, there=name in there)
        for name, method in REGULARIZERS.items()
    )
    about = "What keeps the rest of the model in place. Several combine; the catalogue explains each."
    return Section("regularizers", LABELS["regularizers"], about, (), inner)


def _section(
    name: str,
    model: type[BaseModel],
    values: Mapping[str, Any],
    title: str = "",
    *,
    optional: bool = False,
    there: bool = True,
) -> Section:
    fields, sections = [], []
    for own, info in model.model_fields.items():
        inner = settings_in(info.annotation)
        if inner is None:
            fields.append(_field(f"{name}.{own}", info, values.get(own)))
        elif not _is_list(info.annotation) and inner is not ConceptSettings:
            sections.append(_section(f"{name}.{own}", inner, values.get(own) or {}))
    about = _about(model.__doc__ or "")
    title = title or LABELS.get(name, _human(name.rpartition(".")[2]))
    return Section(name, title, about, tuple(fields), tuple(sections), optional, there)


def _field(name: str, info: FieldInfo, value: Any) -> Field:
    kind, options, whole = _kind_of(info.annotation)
    least, most = _bounds([*info.metadata, *_marks(info.annotation)])
    last = name.rpartition(".")[2]
    return Field(
        name=name,
        label=LABELS.get(name, LABELS.get(last, _human(last))),
        about=_about(info.description or ""),
        kind=kind,
        value=value,
        default=_default_text(info),
        options=options,
        path=_is_path(name, info.annotation),
        whole=whole,
        least=least,
        most=most,
    )


def _about(text: str) -> str:
    """A docstring's first paragraph without the marks of the file format, in which it is written."""
    first = " ".join(text.strip().partition("\n\n")[0].split())
    return re.sub(r"^\[+[a-z_.]+\]+: ", "", first).replace("`", "")


def _bounds(marks: Sequence[Any]) -> tuple[float | None, float | None]:
    """(least, most) that the schema allows; a bound that is itself left out is taken as it stands."""
    least = next((m.ge if isinstance(m, Ge) else m.gt for m in marks if isinstance(m, Ge | Gt)), None)
    most = next((m.le if isinstance(m, Le) else m.lt for m in marks if isinstance(m, Le | Lt)), None)
    return (None if least is None else float(least)), (None if most is None else float(most))  # type: ignore[arg-type]


PATHS = {"images", "masks", "test_images", "store", "path", "start_from", "vae", "model", "other_base"}
"""Settings of type text that name files or folders all the same."""


def _is_path(name: str, annotation: Any) -> bool:
    return Path in _types(annotation) or name.rpartition(".")[2] in PATHS


def _kind_of(annotation: Any) -> tuple[Kind, tuple[str, ...], bool]:
    types = [own for own in _types(annotation) if own is not NoneType]
    options = tuple(str(value) for own in types if get_origin(own) is Literal for value in get_args(own))
    if any(get_origin(own) in (tuple, list, dict) for own in types):
        inner = [each for own in types for each in get_args(own)]
        chosen = tuple(str(v) for own in inner if get_origin(own) is Literal for v in get_args(own))
        return ("choices", chosen, False) if chosen else ("list", (), False)
    if options:
        return "choice", options, False
    if bool in types:
        return "flag", (), False
    if int in types or float in types:
        return "number", (), float not in types
    return "text", (), False


def _types(annotation: Any) -> list[Any]:
    """The members of a union, each without its marks."""
    if get_origin(annotation) in (Union, UnionType):
        return [inner for own in get_args(annotation) for inner in _types(own)]
    if hasattr(annotation, "__metadata__"):
        return _types(get_args(annotation)[0])
    return [annotation]


def _marks(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [mark for own in get_args(annotation) for mark in _marks(own)]
    return list(getattr(annotation, "__metadata__", ()))


def _is_list(annotation: Any) -> bool:
    return any(get_origin(own) in (tuple, list) for own in _types(annotation))


def _human(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _default_text(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if value is None:
        return "unset"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "empty"


# -- from the form back to a table ------------------------------------------------------------------------------------


def table_of(values: Mapping[str, str | list[str]], before: Mapping[str, Any]) -> Table:
    """The project's table from what a form sent, over what stood there before: an empty value unsets a setting.

    Only settings that the form knows are touched. Raises nothing: the project's own validation judges the result.
    """
    table: Table = _copy(before)
    known = {own.name: own for section in project_form(before) for own in fields_of(section)}
    methods = values.get("regularizers")
    if isinstance(methods, list):
        own = table.get("regularizers", {})
        table["regularizers"] = {name: own.get(name, {}) for name in REGULARIZERS if name in methods}
    for name, value in values.items():
        if name in known and _wanted(name, table):
            _put(table, name.split("."), _read(known[name], value))
    if "regularizers" in table:
        name_methods(table, table["regularizers"], before)
    return table


def name_methods(table: Table, methods: Table, before: Mapping[str, Any]) -> None:
    """Put these methods into a project's table. What held it unnamed before, and is there as it was, stays unnamed and
    goes on following from the concepts, unless one that holds by itself joins it."""
    named = before.get("regularizers", {})
    unnamed = {name: own for name, own in methods_in(before).items() if name not in named}
    others = {name: own for name, own in methods.items() if name not in unnamed}
    alone = all(REGULARIZERS[name]().idle_alone() for name in others)
    untouched = unnamed and all(_same(name, methods.get(name), own) for name, own in unnamed.items())
    if untouched and not others:
        table.pop("regularizers", None)  # an empty table would mean that nothing holds
    else:
        table["regularizers"] = others if untouched and alone else methods


def _same(name: str, own: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    method = REGULARIZERS[name]
    try:
        return own is not None and method.model_validate(own) == method.model_validate(other)
    except ValidationError:
        return False


def _wanted(name: str, table: Table) -> bool:
    """A method's settings count only where the method is there."""
    first, _, rest = name.partition(".")
    return first != "regularizers" or rest.partition(".")[0] in table.get("regularizers", {})


def fields_of(section: Section) -> list[Field]:
    """Those of the sections in it included."""
    return [*section.fields, *(own for inner in section.sections for own in fields_of(inner))]


def _read(known: Field, value: str | list[str]) -> Any:
    """Text as the schema takes it (pydantic reads numbers and flags from text); None for empty."""
    if known.kind in ("list", "choices"):
        parts = value if isinstance(value, list) else _split(known.name, value)
        return [part.strip() for part in parts if part.strip()] or None
    text = value if isinstance(value, str) else ", ".join(value)
    return text.strip() or None


def _split(name: str, text: str) -> list[str]:
    """Prompts stand one on a line, for they hold commas; other lists are separated by commas."""
    return text.splitlines() if name.endswith("prompts") else text.replace("\n", ",").split(",")


def _put(table: Table, path: Sequence[str], value: Any) -> None:
    *way, last = path
    place: Any = table
    for part in way:
        if isinstance(place, list):
            while len(place) <= int(part):
                place.append({})
            place = place[int(part)]
        else:
            if part not in place and value is None:
                return
            place = place.setdefault(part, [] if part == "concepts" else {})
    if value is None:
        place.pop(last, None)
    else:
        place[last] = value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def judged(table: Mapping[str, Any]) -> dict[str, str]:
    """What the schema finds wrong with a table, by setting; "" is the whole. Nothing: it is a project."""
    try:
        Project.model_validate(table)
    except ValidationError as error:
        return {".".join(map(str, own["loc"])): own["msg"].removeprefix("Value error, ") for own in causes(error)}
    return {}
