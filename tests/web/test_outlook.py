"""The page's plan: what `prepare` would find, without weights; read anew when a file changes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenuto.project.file import load_project, make_project
from tenuto.project.paths import paths_of
from tenuto.project.settings import Project
from tenuto.web.forms import fields_of, project_form, table_of
from tenuto.web.outlook import Watcher
from tenuto.web.roots import Roots
from tenuto.words import TenutoError
from tenuto.work.prepare import audited, prepare
from tests.jobs import CONCEPT, plain_pictures

PROJECT = f"""{CONCEPT}trigger = "zxq"
[concepts.prior]
own = "mine.txt"
prompts = "own"
[prior]
per_image = 2
[regularizers.prior_preservation]
[regularizers.drift_controller]
[training]
steps = 4
"""


@pytest.fixture
def project(tiny_folder: Path, tmp_path: Path) -> Project:
    plain_pictures(tmp_path / "pictures", [(16, 16), (24, 16)])
    (tmp_path / "mine.txt").write_text("1girl\n1boy, hat\n")
    (tmp_path / "p.toml").write_text(PROJECT.format(model=tiny_folder))
    return load_project(tmp_path / "p.toml")


def test_the_plan_is_the_runs_own(project: Project) -> None:
    seen = Watcher().look(project)
    run = prepare(project)
    assert (seen.outlook.items, seen.outlook.prompts, seen.outlook.plan) == (run.items, run.prompts, run.plan)
    assert seen.outlook.controller == run.controller
    assert seen.report == replace(audited(run), memory=()), "memory is counted on the opened base"


def test_read_once_and_again_after_a_change(project: Project, tmp_path: Path) -> None:
    watcher = Watcher()
    first = watcher.look(project)
    assert watcher.look(project) is first
    more = project.model_copy(update={"prior": project.prior.model_copy(update={"per_image": 3})})
    other = watcher.look(more)
    assert len(other.outlook.plan.images) > len(first.outlook.plan.images)
    assert other.outlook.items[0] is first.outlook.items[0], "numbers alone do not open the pictures again"
    (tmp_path / "pictures" / "0.txt").write_text("zxq, another tag")
    assert watcher.look(project).outlook.items[0].caption == "zxq, another tag"


def test_masks_are_looked_for_again_where_one_changed(project: Project, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "pictures", tmp_path / "masks")
    concept = project.concepts[0].model_copy(update={"masks": str(tmp_path / "masks")})
    masked, watcher = project.model_copy(update={"concepts": (concept,)}), Watcher()
    assert watcher.look(project).outlook.items[0].mask is None
    assert [own.mask and own.mask.name for own in watcher.look(masked).outlook.items] == ["0.png", "1.png"]
    (tmp_path / "masks" / "1.png").unlink()
    seen = watcher.look(masked)
    assert [own.mask is None for own in seen.outlook.items] == [False, True]
    assert [own for own in seen.report.warnings if "has no mask" in own.what]


def test_a_file_of_prompts_is_read_again(project: Project, tmp_path: Path) -> None:
    watcher = Watcher()
    assert "1boy, hat" in {own.text for own in watcher.look(project).outlook.prompts}
    (tmp_path / "mine.txt").write_text("1girl\n1cat, hat\n")
    assert "1cat, hat" in {own.text for own in watcher.look(project).outlook.prompts}


def test_every_path_of_the_schema_is_known(tmp_path: Path) -> None:
    """A setting that the form knows for a path is one that the roots are asked about."""
    (tmp_path / "x").mkdir()
    table: dict[str, Any] = {"concepts": [{"name": "c", "images": "x", "prior": {}}], "regularizers": {}}
    form = [own for section in project_form(table) for own in fields_of(section)]
    paths = {own.name: str(tmp_path / "x") for own in form if own.path and not own.name.startswith("regularizers")}
    known = {setting for setting, _ in paths_of(make_project(table_of(paths, table), "p.toml"))}
    assert known == {name.replace("concepts.0", "concepts.c") for name in paths}
    assert {"base.model", "base.vae", "concepts.c.images", "concepts.c.prior.own", "prior.store"} <= known
    assert not [own.name for own in form if own.path and own.name.startswith("regularizers")]


def test_paths_are_relative_to_the_file_and_below_the_roots(
    project: Project, tmp_path: Path, tiny_folder: Path
) -> None:
    paths = dict(paths_of(project))
    assert paths["concepts.eyes.images"] == tmp_path / "pictures"
    assert paths["concepts.eyes.prior.own"] == tmp_path / "mine.txt"
    assert paths["base.model"] == tiny_folder
    with pytest.raises(TenutoError, match="outside the folders of this page"):
        Roots.of([tmp_path]).check(project)
    Roots.of([tmp_path, tiny_folder]).check(project)
