"""The article's experiments: every sweep file loads and plans; one runs from end to end, on a tiny base."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from benchmarks.article import FILES, PRESETS, REG_FOLDERS, make_character_lora, make_reg_folder, project_of, take_over

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.onto import save_lora
from tenuto.cli.demo import concept_groups
from tenuto.evaluation.sweep import SweepResult
from tenuto.events import silent
from tenuto.families.checkpoints import open_base
from tenuto.pocket.concepts import CONCEPTS, write_instances
from tenuto.work.sweep import plan_sweep, run_sweep
from tenuto.work.sweep_file import load_sweep

EXPECTED = {
    "captions", "clothing-slider", "folders", "matched", "matched-style", "noise", "on-others", "pools",
    "second-lora", "small-set", "style-bake", "transfer", "two-concepts", "weights",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The sweep files with small sets beside them, reg folders and a second LoRA for the tiny base."""
    folder = tmp_path_factory.mktemp("article")
    for file in PRESETS.glob("*.toml"):
        shutil.copy(file, folder)
    for name in CONCEPTS:
        for part in ("images", "tests"):
            write_instances(name, folder / "sets" / name / part, 2)
    for number, name in enumerate([name for name in CONCEPTS if name != "head-in-a-jar"][:REG_FOLDERS]):
        write_instances(name, folder / "sets" / f"reg-{number}", 2)
    base = open_base(str(tiny_folder), device="cpu")
    adapter = Adapter.attach(base, AdapterSettings(rank=1))
    save_lora(adapter, folder / "sets" / "character-lora" / "lora.safetensors", {})
    return folder


def test_there_is_one_for_each() -> None:
    assert set(FILES) == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_experiment_plans(name: str, folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    text = (folder / f"{name}.toml").read_text()
    assert text.startswith("# ")
    assert "# Asked here" in text
    store = f"prior.store={tmp_path / 'store'}"
    other = [f"comparison.other_base={tiny_folder}"] * (name == "transfer")
    sweep = load_sweep(folder / f"{name}.toml", [f"base.model={tiny_folder}", store, *other])
    assert sweep.about
    assert sweep.seeds == (0, 1, 2)
    assert sweep.reference
    plans = plan_sweep(sweep)
    assert len(plans) >= 2
    assert all(plan.updates > 0 for plan in plans)
    plain = {arm.name for arm in sweep.arms if arm.plain}
    assert sweep.compared_with() in plain
    for arm, plan in zip(sweep.arms, plans, strict=True):
        uses = any(method.needs_prior() for method in arm.project.regularizers.values())
        assert bool(plan.pool) == uses, arm.name


@pytest.mark.parametrize("name", sorted(EXPECTED - {"two-concepts"}))
def test_the_concept_s_own_groups_are_no_bake(name: str, folder: Path) -> None:
    project = load_sweep(folder / f"{name}.toml").project
    (concept,) = project.concepts
    own = CONCEPTS[concept.name]
    assert set(project.comparison.concept_groups or ()) == set(concept_groups(concept.name))
    assert (concept.kind, concept.trigger, concept.class_word) == (own.kind, own.trigger, own.class_word)


def small_changes(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """Settings with which an experiment takes seconds."""
    return [
        f"base.model={tiny_folder}",
        "arms.seeds=[0]", "training.epochs=1", "training.adapter.rank=1", "prior.per_image=1", "prior.sampler.steps=2",
        f"prior.store={tmp_path / 'store'}", "comparison.prompts=1", "comparison.drift_prompts=1",
        "comparison.states=1", "comparison.steps=2", "comparison.weights=[]", "comparison.curve_weights=[]",
        "comparison.curve_checkpoints=0", "comparison.loss_times=[0.5]", 'training.adapter.parts=["attention"]',
    ]  # fmt: skip


def test_what_two_have_in_common_is_trained_once(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Captions' full prompts are the matched prior; only what is new is trained, and all stand by their plans."""
    small = small_changes(tiny_folder, tmp_path)
    run_sweep(load_sweep(folder / "captions.toml", small), tmp_path / "captions")
    matched = load_sweep(folder / "matched.toml", small)
    place = tmp_path / "matched"
    copies = {path.parent.name for path in take_over(matched, tmp_path, place)}
    assert copies == {"none", "prompts=match"}
    before = {path: path.stat().st_mtime_ns for path in place.glob("arms/*/*/states/*")}
    assert before
    result = run_sweep(matched, place)
    assert {path for path in place.glob("arms/*/*/states/*") if before.get(path) == path.stat().st_mtime_ns} == {
        *before
    }
    assert list(result.concepts["crazy-eyes"].arms) == ["none", "prompts=match", "prompts=half", "prompts=random"]
    assert not take_over(matched, tmp_path, place)
    longer = load_sweep(folder / "matched.toml", [*small, "training.epochs=2"])
    assert not take_over(longer, tmp_path, tmp_path / "longer")


def test_one_runs_from_end_to_end(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    sweep = load_sweep(folder / "captions.toml", small_changes(tiny_folder, tmp_path))
    result = run_sweep(sweep, tmp_path / "out")
    assert list(result.concepts["crazy-eyes"].arms) == ["none", "captions=full", "captions=class", "captions=none"]
    for numbers in result.concepts["crazy-eyes"].arms.values():
        assert numbers["drift"].mean is not None
        assert numbers["gain"].mean is not None
    assert SweepResult.load(tmp_path / "out" / "sweep.json") == result
    assert "Captioned against uncaptioned" in (tmp_path / "out" / "sweep.html").read_text(encoding="utf-8")


def test_what_the_experiments_need_is_made(folder: Path, tmp_path: Path) -> None:
    """Reg folders hold a captioned picture per instance picture; the character's LoRA is an ordinary file."""
    place = tmp_path / "article"
    for name in ("head-in-a-jar", "character"):
        shutil.copytree(folder / "sets" / name, place / "sets" / name)
    short = (folder / "pocket.toml").read_text().replace("epochs = 50", "steps = 1").replace("steps = 8", "steps = 2")
    (place / "pocket.toml").write_text(short.replace("[prior]", '[prior]\nstore = "store"'))
    make_reg_folder(place, 1, silent, lambda: False)
    made = list((place / "sets" / "reg-1").glob("*.png"))
    assert len(made) == 2
    assert all("jorbik" not in path.with_suffix(".txt").read_text() for path in made)
    assert make_character_lora(place, silent, lambda: False) == place / "sets" / "character-lora" / "lora.safetensors"
    assert project_of(folder, "small").concepts[0].trigger == "tavroku"
