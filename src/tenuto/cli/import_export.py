"""`tenuto import`: another trainer's config becomes a project file; what was carried and what was not is listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tenuto.cli.guard import guarded


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
