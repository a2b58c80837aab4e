"""`tenuto methods`: every regularizer, told by its own docstring and settings."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from tenuto.cli.guard import guarded
from tenuto.cli.terminal import console, styled


def methods(
    name: Annotated[str | None, typer.Argument(help="A method to explain; without it, all are listed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """List the regularizers, or explain one: formula, when, paper, cost, when not, settings."""
    with guarded():
        from tenuto.regularizers.catalogue import REGULARIZERS
        from tenuto.regularizers.explained import explain
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


def _list(found: dict[str, dict[str, Any]]) -> None:
    table = Table("method", "set by", "what it does", title="[regularizers.<method>]")
    for name, own in found.items():
        table.add_row(name, f"{own['dial']} {own['settings'][own['dial']]['default']:g}", own["summary"])
    screen = console()
    screen.print(table)
    screen.print("tenuto methods NAME explains one.")


def _show(name: str, own: dict[str, Any]) -> None:
    from tenuto.regularizers.explained import SECTIONS

    screen = console()
    screen.print(styled((f"[regularizers.{name}]  ", "bold"), own["summary"]))
    screen.print("\n" + own["about"] + "\n")
    for word in SECTIONS:
        screen.print(styled((f"{word}  ", "bold"), own[word.lower()]))
    table = Table("setting", "default", "")
    for field, info in own["settings"].items():
        default = info["default"]
        table.add_row(
            field,
            ", ".join(f"{k} {v}" for k, v in default.items()) if isinstance(default, dict) else str(default),
            info["about"],
        )
    screen.print(table)
