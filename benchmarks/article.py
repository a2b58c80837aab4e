"""The article's experiments (presets/article/), one sweep after another.

    python -m benchmarks.article [NAME ...] [--prepare] [--on ray://HOST:10001]

Hours on two CPU cores; stopped anywhere, the same command goes on. A training that two experiments have in common is
done once. `--prepare` only makes what the sweep files name: ready sets, a character LoRA, reg folders. Then
`tenuto sweep presets/article/NAME.toml` runs one of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.ready import PICTURES, plain_lora
from tenuto.cli.cluster import RETRIES, AtOnce, Cpus, Gpus, On, Retries, engaged
from tenuto.cli.demo import write_set
from tenuto.cli.guard import guarded
from tenuto.cli.screen import Screen
from tenuto.events import Listener, stage
from tenuto.files import write_text
from tenuto.pocket.concepts import CONCEPTS
from tenuto.project.file import apply_changes, load_project, project_in, read_toml, set_value
from tenuto.project.settings import Project
from tenuto.training.folder import RunFolder
from tenuto.work.prepare import prepare
from tenuto.work.prior import build_prior, preview
from tenuto.work.sweep import run_sweep, trainings_of
from tenuto.work.sweep_file import Sweep, load_sweep

PRESETS = Path(__file__).parent.parent / "presets" / "article"
RUNS = Path("runs/article")
FILES = tuple(sorted(path.stem for path in PRESETS.glob("*.toml") if path.stem != "pocket"))
REG_FOLDERS = 5


def project_of(folder: Path, name: str, *changes: str) -> Project:
    """The experiments' project on another ready set."""
    concept, file = CONCEPTS[name], folder / "pocket.toml"
    own: dict[str, Any] = {
        "name": name,
        "kind": concept.kind,
        "images": f"sets/{name}/images",
        "trigger": concept.trigger,
        "class_word": concept.class_word,
    }
    table = read_toml(file, "project file")
    set_value(table, "concepts", [own], name)
    apply_changes(table, changes)
    return project_in(table, file)


def make_sets(folder: Path) -> None:
    """The ready sets, small."""
    for name in CONCEPTS:
        write_set(name, folder / "sets" / name, PICTURES)


def make_character_lora(folder: Path, listener: Listener, stop: Callable[[], bool]) -> Path:
    """An ordinary LoRA of the character, for the experiments with a second LoRA."""
    project = project_of(folder, "character", "regularizers={}")
    return plain_lora("character", project, folder / "sets" / "character-lora", listener, stop)


def make_reg_folder(folder: Path, number: int, listener: Listener, stop: Callable[[], bool]) -> None:
    """A reg folder as people have them: one picture of the base per instance picture, with its caption."""
    prepared = prepare(project_of(folder, "head-in-a-jar", "prior.per_image=1", f"prior.seed={number}"), listener)
    store, images = build_prior(prepared, listener, stop)
    captions = {image.id: image.caption for image in prepared.plan.images}
    for image in images:
        picture = preview(prepared.base, store, image, folder / "sets" / f"reg-{number}")
        write_text(picture.with_suffix(".txt"), captions[image.id])


def make_everything(folder: Path, listener: Listener, stop: Callable[[], bool]) -> None:
    """All that the sweep files name."""
    make_sets(folder)
    stage(listener, "the character LoRA")
    make_character_lora(folder, listener, stop)
    for number in range(REG_FOLDERS):
        stage(listener, f"reg folder {number + 1} of {REG_FOLDERS}")
        make_reg_folder(folder, number, listener, stop)


def take_over(sweep: Sweep, runs: Path, folder: Path) -> list[Path]:
    """Copy what other experiments under `runs` have trained by the same settings and seed to where this one, in
    `folder`, would train it; each goes on from there, and so holds it against its own plan. Returns the copies."""
    known = {
        _learned(load_project(lora.with_name("project.toml")), lora.parent.name): lora.parent
        for lora in runs.glob("*/arms/*/seed-*/lora.safetensors")
    }
    copies = []
    for task in trainings_of(sweep, folder):
        place = task.training.folder
        same = known.get(_learned(task.project, place.name))
        if same is not None and not RunFolder(place).states.exists():
            shutil.copytree(same, place, dirs_exist_ok=True)
            copies.append(place)
    return copies


def _learned(project: Project, seed: str) -> str:
    """What decides a training, of a project and the name of its seed's folder."""
    table = project.model_dump(mode="json", exclude={"arms", "comparison"})
    if project.regularizers:
        table["prompts"] = [project.prior_of(own).mode_for(own.kind) for own in project.concepts]
        table["prior"]["prompts"] = None
    else:  # only pictures that are trained on like the user's own count
        table["prior"] = table["prior"]["folders"]
    return json.dumps(table | {"seed": seed}, sort_keys=True)


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(FILES)}; none: all.")] = None,
    prepare_only: Annotated[bool, typer.Option("--prepare", help="Only make what they need.")] = False,
    on: On = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    retries: Retries = RETRIES,
    at_once: AtOnce = 1,
) -> None:
    """Run the article's experiments."""
    with guarded() as stop, Screen() as screen, engaged(on, cpus, gpus, retries, screen, at_once) as engage:
        make_everything(PRESETS, screen, stop)
        for name in [] if prepare_only else names or FILES:
            sweep = load_sweep(PRESETS / f"{name}.toml")
            take_over(sweep, RUNS.absolute(), (RUNS / name).absolute())
            run_sweep(sweep, RUNS / name, screen, stop, engage(sweep.projects(), RUNS / name))
            typer.echo(str(RUNS / name / "sweep.html"))


if __name__ == "__main__":
    typer.run(main)
