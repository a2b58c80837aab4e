"""`tenuto tags`: what the tag filters would take out of captions, and filtered copies of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tenuto.cli.guard import guarded

PATTERNS = "by patterns alone, so some may be missed; --csv with a tag list makes it complete"


def tags(
    folder: Annotated[Path, typer.Argument(help="A folder of captions.")],
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="artist, meta, character_name, character_appearance, copyright; default: each."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Tag list: autocomplete CSV, or a tagger's selected_tags.csv.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A tag that stays whatever a filter says.")] = None,
    extension: Annotated[str, typer.Option(help="Of the caption files.")] = ".txt",
    write: Annotated[Path | None, typer.Option(help="Write filtered copies of the captions into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Show what the filters would remove, per caption and in sum. Captions are never changed in place."""
    with guarded():
        from tenuto.data.filtering import filter_folder, in_sum, write_filtered
        from tenuto.data.tag_lists import load_tag_csv
        from tenuto.data.tags import FILTERS
        from tenuto.words import TenutoError

        if write is not None and not filters:
            raise TenutoError(f"--write needs --filter: say what shall go, of {', '.join(FILTERS)}")
        known = load_tag_csv(csv) if csv is not None else None
        chosen = filters or list(FILTERS)
        found = filter_folder(folder, chosen, known, keep=keep or (), extension=extension)
        total = in_sum(found)
        partial = [name for name in chosen if not FILTERS[name].complete(known)]
        count = write_filtered(found, write) if write is not None else 0
        if as_json:
            files = [{"file": str(each.file), "removed": each.removed, "left": each.after} for each in found]
            facts = {"files": files, "sum": total, "partial": partial, "written": count}
            typer.echo(json.dumps(facts, ensure_ascii=False))
            return
        for each in found:
            gone = "; ".join(f"{name}: {', '.join(own)}" for name, own in each.removed.items())
            typer.echo(f"{each.file.name}  {gone or '-'}")
        for name in chosen:
            listed = ", ".join(f"{tag} x{number}" for tag, number in total.get(name, {}).items()) or "nothing"
            typer.echo(f"in sum, {name}{f' ({PATTERNS})' if name in partial else ''}: {listed}")
        if write is not None:
            typer.echo(f"{count} captions written to {write}")
