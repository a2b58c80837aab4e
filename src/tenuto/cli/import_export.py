"""`tenuto import` and `tenuto export`: ways in from other trainers, and ways out for a prior set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen


def import_config(
    source: Annotated[Path, typer.Argument(help="A config file, a script with a command line, or a folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The project file to write.")] = Path("project.toml"),
    system: Annotated[
        str | None, typer.Option("--from", help="kohya_ss, derrian, d8, diffusers or sd-scripts; default: found out.")
    ] = None,
    args: Annotated[
        str, typer.Option(help="More options, which win: text such as '--network_dim 8', or the file that holds them.")
    ] = "",
    captions: Annotated[
        bool, typer.Option("--write-captions", help="Write the old trainer's caption beside pictures that have none.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing project file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Take over a training from sd-scripts, kohya_ss, Derrian's scripts, D8 or diffusers. Nothing in it is run."""
    with guarded():
        from tenuto.files import write_text
        from tenuto.formats.catalogue import import_project
        from tenuto.formats.imported import write_captions
        from tenuto.words import TenutoError

        if out.exists() and not force:
            raise TenutoError(f"{out}: is there already; name another file with -o, or replace it with --force")
        imported = import_project(source, out.parent, system=system, extra=args)
        write_text(out, imported.to_toml())
        count = write_captions(imported) if captions else 0
        if as_json:
            facts: dict[str, Any] = {"project": str(out), "system": imported.system, "captions_written": count}
            facts["carried"] = [vars(each) for each in imported.carried]
            facts["left"] = [vars(each) for each in imported.left]
            typer.echo(json.dumps(facts, default=str))
        else:
            _show(imported, out, count)


def _show(imported: Any, out: Path, count: int) -> None:
    from tenuto.formats.imported import grouped, shown

    typer.echo(f"carried over from {imported.system}:")
    for each in imported.carried:
        typer.echo(f"  {each.theirs} -> {each.ours} = {shown(each.value)}")
    typer.echo("not carried over, or different:")
    for names, why in grouped(imported.left):
        typer.echo(f"  {names}: {why}")
    if count:
        typer.echo(f"{count} captions written")
    typer.echo(f"{out}: written; next: tenuto audit {out}")


def export(
    project: Annotated[Path, typer.Argument(help="The project file (TOML).")],
    to: Annotated[str, typer.Option(help="sd-scripts (reg folder and dataset config) or d8 (class folders).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write.")],
    changes: Annotated[list[str] | None, typer.Option("--set", help="section.key=value; may be given often.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Write the prior set as another trainer's reg folder: pictures, captions, infotext. What is missing is made."""
    with guarded() as stop, Screen() as screen:
        from tenuto.formats.catalogue import EXPORTS
        from tenuto.formats.exported import PriorSet
        from tenuto.project.file import load_project
        from tenuto.words import TenutoError
        from tenuto.work.prepare import prepare
        from tenuto.work.prior import build_prior

        if to not in EXPORTS:
            raise TenutoError(f"--to {to}: there are {', '.join(EXPORTS)}")
        prepared = prepare(load_project(project, changes or []), screen)
        store, images = build_prior(prepared, screen, stop)
        made = [image for image in images if image.kind == "generated"]
        captions = {image.id: image.caption for image in prepared.plan.images}
        done = EXPORTS[to](
            PriorSet(prepared.project, prepared.base, store, made, captions, prepared.items, screen, stop), out
        )
        facts = {"folder": str(done.folder), "pictures": done.pictures, "notes": list(done.notes)}
        typer.echo(
            json.dumps(facts) if as_json else "\n".join([*done.notes, f"{done.pictures} pictures in {done.folder}"])
        )
