"""The command line: each command reads a project, calls one function of `tenuto.work`, and prints what came of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tenuto.cli import import_export, tags
from tenuto.cli.cluster import RETRIES, Cpus, Gpus, On, Retries, engaged
from tenuto.cli.guard import guarded
from tenuto.cli.lora import lora
from tenuto.cli.methods import methods
from tenuto.cli.screen import Screen, heard
from tenuto.cli.sweep import sweep
from tenuto.cli.web import web

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Teach a diffusion model one new thing with a LoRA, and hold everything else.",
)
prior = typer.Typer(
    no_args_is_help=True, help="The prior set: what the base makes of your captions without the trigger."
)
app.add_typer(prior, name="prior")
app.add_typer(lora, name="lora")
app.command("import")(import_export.import_config)
app.command("export")(import_export.export)
app.command("tags")(tags.tags)
app.command()(methods)
app.command()(sweep)
app.command()(web)

ProjectFile = Annotated[Path, typer.Argument(help="The project file (TOML).")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; may be given several times.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder; default: runs/<project>.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def _folder(file: Path, name: str | None, out: Path | None) -> Path:
    """The run's folder. Raises TenutoError where none can be."""
    from tenuto.project.file import run_folder
    from tenuto.words import TenutoError

    folder = out or run_folder(file, name)
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written" if there.is_dir() else "is no folder"
        raise TenutoError(f"{folder}: {there} {why}; give another folder (--out)")
    return folder


@app.command()
def run(project: ProjectFile, changes: Changes = None, out: Out = None, as_json: Json = False) -> None:
    """Everything: audit, prior set, training with and without regularization, comparison, report."""
    from tenuto.cli.job import job

    with job() as part:
        from tenuto.project.file import load_project
        from tenuto.work.compare import run_project

        own = load_project(project, changes or [])
        folder = _folder(project, own.name, out)
        with heard(part.listener, folder, part.ranks.first) as listener:
            reports = run_project(own, folder, listener, part.stop, part.ranks)
        if part.ranks.first:
            _tell(as_json, {"reports": [str(path) for path in reports], "folder": str(folder)}, f"report: {reports[0]}")


@app.command()
def audit(project: ProjectFile, changes: Changes = None, as_json: Json = False) -> None:
    """Print the plan and every problem found. Leaves with 1 if any would spoil the result."""
    with guarded(), Screen() as screen:
        from tenuto.cli.plan import show_audit
        from tenuto.project.file import load_project
        from tenuto.work.prepare import audited, prepare

        report = audited(prepare(load_project(project, changes or []), screen))
        show_audit(report, as_json)
        if report.errors:
            raise typer.Exit(1)


@app.command()
def train(project: ProjectFile, changes: Changes = None, out: Out = None, as_json: Json = False) -> None:
    """Build the prior set and train with and without regularization (--set arms.plain=false: only with); no report."""
    from tenuto.cli.job import job

    with job() as part:
        from tenuto.project.file import load_project
        from tenuto.work.prepare import announce, prepare
        from tenuto.work.train import train_all

        own = load_project(project, changes or [])
        folder = _folder(project, own.name, out)
        with heard(part.listener, folder, part.ranks.first) as listener:
            prepared = prepare(own, listener)
            announce(prepared, listener)
            done = train_all(prepared, folder, listener, part.stop, part.ranks)
        files = [str(each.lora) for each in done]
        if part.ranks.first:
            _tell(as_json, {"loras": files}, "\n".join(files))


@app.command()
def compare(project: ProjectFile, changes: Changes = None, out: Out = None, as_json: Json = False) -> None:
    """Compare what `train` made with the base and write the report; what is missing is trained first."""
    run(project, changes, out, as_json)


@prior.command("plan")
def prior_plan(project: ProjectFile, changes: Changes = None, as_json: Json = False) -> None:
    """What would be made: prompts, sizes, counts, cost."""
    with guarded(), Screen() as screen:
        from tenuto.cli.plan import show_prior
        from tenuto.project.file import load_project
        from tenuto.work.prepare import prepare
        from tenuto.work.prior import open_store

        prepared = prepare(load_project(project, changes or []), screen)
        show_prior(prepared, open_store(prepared), as_json)


@prior.command("build")
def prior_build(
    project: ProjectFile,
    changes: Changes = None,
    out: Out = None,
    on: On = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    retries: Retries = RETRIES,
    as_json: Json = False,
) -> None:
    """Make the prior set; goes on where it was stopped. A few of its pictures go into the run's folder."""
    from tenuto.cli.job import job

    with job() as part:
        from tenuto.project.file import load_project
        from tenuto.work.prepare import prepare
        from tenuto.work.prior import build_prior
        from tenuto.work.sweep import PriorTask

        own = load_project(project, changes or [])
        folder = _folder(project, own.name, out)
        with engaged(on, cpus, gpus, retries, part.listener) as engage:
            if on is not None:
                engage([own], folder)([PriorTask(folder.name, own)], part.listener, part.stop)
        gallery = folder / "prior" if part.ranks.first else None
        with heard(part.listener, folder, part.ranks.first) as listener:
            store, images = build_prior(prepare(own, listener), listener, part.stop, gallery)
        if not part.ranks.first:
            return
        facts = {"images": len(images), "folder": str(store.folder), "base": store.base_hash}
        _tell(as_json, facts, f"{len(images)} prior images in {store.folder}")


@prior.command("show")
def prior_show(
    project: ProjectFile,
    changes: Changes = None,
    out: Annotated[Path, typer.Option(help="Where the gallery goes.")] = Path("prior.html"),
) -> None:
    """Decode the prior set into a gallery to look at."""
    with guarded() as stop, Screen() as screen:
        from tenuto.project.file import load_project
        from tenuto.work.prepare import prepare
        from tenuto.work.prior import build_prior, write_gallery

        prepared = prepare(load_project(project, changes or []), screen)
        store, images = build_prior(prepared, screen, stop)
        write_gallery(prepared, store, images, out, screen)
        typer.echo(str(out))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A .ckpt, .pt, .pth or .bin, or a folder that holds such weights.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The new file; default: beside it.")] = None,
    as_json: Json = False,
) -> None:
    """Turn pickle weights into .safetensors, without running what is in them. Overwrites nothing."""
    with guarded():
        from tenuto.pickles import convert as converted

        made = converted(source, out)
        facts = [{"file": str(own.target), "tensors": own.tensors, "left_out": list(own.left)} for own in made]
        lines = [
            f"{own.target}: {own.tensors} tensors" + (f"; left out: {', '.join(own.left[:5])}" if own.left else "")
            for own in made
        ]
        _tell(as_json, {"files": facts}, "\n".join(lines))


@app.command()
def demo(out: Annotated[Path, typer.Option(help="The demo's folder.")] = Path("runs/demo")) -> None:
    """The main job on the checkpoint that ships with tenuto: minutes on two CPU cores, nothing downloaded."""
    with guarded() as stop, Screen() as screen:
        from tenuto.cli.demo import run_demo

        with heard(screen, out) as listener:
            typer.echo(f"report: {run_demo(out, listener, stop)}")


@app.command()
def pocket(
    folder: Annotated[Path, typer.Argument(help="Where the pictures go.")] = Path("pocket"),
    concept: Annotated[str, typer.Option(help="Which ready set; see --list.")] = "head-in-a-jar",
    names: Annotated[bool, typer.Option("--list", help="List the ready sets.")] = False,
) -> None:
    """Write one of the picture world's ready instance sets (and its unbiased test set) to try things on."""
    with guarded():
        from tenuto.cli.demo import list_sets, write_set

        if names:
            typer.echo(list_sets())
        else:
            write_set(concept, folder)
            typer.echo(f"{folder}/images and {folder}/tests")


def _tell(as_json: bool, facts: dict[str, Any], text: str) -> None:
    typer.echo(json.dumps(facts) if as_json else text)


def entry() -> None:
    """The `tenuto` command."""
    app()


if __name__ == "__main__":
    entry()
