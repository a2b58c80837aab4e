"""`tenuto methods`: every regularizer, told by its own docstring and settings."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.table import Table

from tenuto.cli.guard import guarded

SECTIONS = ("Paper", "Cost", "Avoid")


def methods(
    name: Annotated[str | None, typer.Argument(help="A method to explain; without it, all are listed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """List the regularizers, or explain one: formula, paper, cost, when not, settings."""
    with guarded():
        from tenuto.regularizers.catalogue import REGULARIZERS
        from tenuto.words import TenutoError

        if name is not None and name not in REGULARIZERS:
            raise TenutoError(f"no method is called {name!r}; there are {', '.join(REGULARIZERS)}")
        wanted = REGULARIZERS if name is None else {name: REGULARIZERS[name]}
        found = {own: explain(method) for own, method in wanted.items()}
        if as_json:
            typer.echo(json.dumps(found))
        elif name is None:
            _list(found)
        else:
            _show(name, found[name])


def explain(method: type[Any]) -> dict[str, Any]:
    """A method as plain data: its sentence, formula and notes, and its settings with their defaults."""
    text = inspect.getdoc(method) or ""
    first, _, rest = text.partition("\n")
    about, notes = _split(rest)
    settings = {
        field: {"default": _plain(info), "about": info.description or ""} for field, info in method.model_fields.items()
    }
    return {"summary": first, "about": about, **notes, "settings": settings}


def _split(text: str) -> tuple[str, dict[str, str]]:
    """What stands before "Paper", and the notes by their word; a note's further lines are indented."""
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


def _list(found: dict[str, dict[str, Any]]) -> None:
    table = Table("method", "weight", "what it does", title="[regularizers.<method>]")
    for name, own in found.items():
        table.add_row(name, f"{own['settings']['weight']['default']:g}", own["summary"])
    console = Console()
    console.print(table)
    console.print("tenuto methods NAME explains one.", markup=False)


def _show(name: str, own: dict[str, Any]) -> None:
    console = Console()
    console.print(f"[bold]\\[regularizers.{name}][/]  ", end="")
    console.print(own["summary"], markup=False)
    console.print("\n" + own["about"] + "\n", markup=False, highlight=False)
    for word in SECTIONS:
        console.print(f"[bold]{word}[/]  ", end="")
        console.print(own[word.lower()], markup=False)
    table = Table("setting", "default", "")
    for field, info in own["settings"].items():
        default = info["default"]
        table.add_row(
            field,
            ", ".join(f"{k} {v}" for k, v in default.items()) if isinstance(default, dict) else str(default),
            info["about"],
        )
    console.print(table)
