"""`tenuto sweep`: many arms of one project, one comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tenuto.cli.cluster import RETRIES, AtOnce, Cpus, Gpus, On, Retries, engaged
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.cli.terminal import console, styled

if TYPE_CHECKING:
    from tenuto.evaluation.sweep import SweepResult
    from tenuto.work.sweep import ArmPlan

SHOWN = (
    "Concept strength",
    "Drift (nD)",
    "Drift (nD) at equal concept",
    "Bake",
    "Style bleed",
    "Trigger necessity",
    "Usable weight",
)
"""Columns of the page for which a terminal has room."""


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep file (TOML): project, seeds, settings, axes, arms.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value for every arm; may be given several times.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder; default: runs/<sweep file>.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and do nothing.")] = False,
    on: On = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    retries: Retries = RETRIES,
    at_once: AtOnce = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """A matrix of settings over one project: every arm trained, one table and one grid of pictures at the end."""
    with guarded() as stop, Screen() as screen:
        from tenuto.work.sweep import plan_sweep, run_sweep
        from tenuto.work.sweep_file import load_sweep

        own = load_sweep(file, changes or [])
        folder = out or Path("runs") / own.name
        if plan:
            _show_plan(plan_sweep(own, screen), len(own.seeds), as_json)
            return
        with engaged(on, cpus, gpus, retries, screen, at_once) as engage:
            result = run_sweep(own, folder, screen, stop, engage(own.projects(), folder))
        page = folder / "sweep.html"
        if as_json:
            typer.echo(json.dumps({"page": str(page), "result": str(folder / "sweep.json"), "folder": str(folder)}))
            return
        _show(result)
        typer.echo(f"sweep: {page}")


def _show_plan(plans: Sequence[ArmPlan], seeds: int, as_json: bool) -> None:
    rows = [
        {"arm": own.arm, "updates": own.updates, "pool": own.pool, "ratio": own.ratio, "generation": own.generation}
        for own in plans
    ]
    if as_json:
        typer.echo(json.dumps({"arms": rows, "seeds": seeds, "trainings": seeds * len(rows)}))
        return
    table = Table("arm", "updates", "pool", "ratio", "forwards to make the pool", title="the plan")
    for own in plans:
        ratios = ", ".join(f"{value:g}" for value in dict.fromkeys(own.ratio.values()))
        table.add_row(own.arm, str(own.updates), str(own.pool), ratios, f"{own.generation:,}")
    screen = console()
    screen.print(table)
    for text in dict.fromkeys(text for own in plans for text in own.warnings):
        screen.print(styled(("warning ", "yellow"), text))
    screen.print(
        f"{len(rows)} arms x {seeds} seeds = {seeds * len(rows)} trainings; arms share what they can of the pool"
    )


def _show(result: SweepResult) -> None:
    """A table per concept: what there is room for; the page has it all."""
    from tenuto.evaluation.sweep_page import table_of

    screen = console()
    for concept in result.concepts:
        whole = table_of(result, concept)
        kept = [number for number, name in enumerate(whole.columns) if name in SHOWN]
        table = Table(title=concept)
        table.add_column("arm", no_wrap=True)
        for number in kept:
            table.add_column(whole.columns[number])
        for arm, cells in whole.rows.items():
            table.add_row(arm, *(cells[n].text for n in kept))
        screen.print(table)
