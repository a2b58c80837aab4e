"""The comparison on another checkpoint: the same prompts, one base open at a time, refused before any long work."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from tenuto.evaluation.elsewhere import FOLDER, carried, elsewhere_of, retention
from tenuto.evaluation.record import Comparison
from tenuto.families.base import Base
from tenuto.project.file import load_project
from tenuto.words import TenutoError
from tenuto.work import prepare as work
from tenuto.work.compare import run_project
from tests.evaluation.made_up import made_up
from tests.jobs import COMPARISON, CONCEPT, plain_pictures

JOB = """trigger = "zxq"
[prior]
per_image = 1
[prior.sampler]
steps = 2
[training]
steps = 1
batch = 1
[training.adapter]
rank = 2
[arms]
plain = false
"""


def project(folder: Path, base: Path, other: Path) -> Path:
    file = folder / "p.toml"
    file.write_text(CONCEPT.format(model=base) + JOB + COMPARISON + f'other_base = "{other}"\n')
    return file


def test_the_same_is_asked_on_the_other_checkpoint(
    tiny_folder: Path, tiny_v_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 2)
    opened: list[weakref.ref[Base]] = []

    def watched(model: str, **more: object) -> Base:
        gc.collect()
        assert not [own for own in opened if own() is not None], "one base at a time"
        base = open_base(model, **more)  # type: ignore[arg-type]
        opened.append(weakref.ref(base))
        return base

    open_base = work.open_base
    monkeypatch.setattr(work, "open_base", watched)
    file = project(tmp_path, tiny_folder, tiny_v_folder)
    (report,) = run_project(load_project(file), tmp_path / "run")
    assert len(opened) == 2
    here = Comparison.load(tmp_path / "run" / "comparison.json")
    assert here.logs == {"held": ["held/seed-0/log.jsonl"]}, "the run can be moved"
    assert (tmp_path / "run" / here.logs["held"][0]).is_file()
    there = elsewhere_of(here, tmp_path / "run")
    assert there is not None
    assert there.base["name"] == str(tiny_v_folder)
    assert there.base["prediction"] == "v"
    assert here.base["hash"] != there.base["hash"]
    assert [own.text for own in there.prompts] == [own.text for own in here.prompts]
    assert there.arms["held"]["drift"].mean is not None
    assert there.arms["held"]["drift"].mean != here.arms["held"]["drift"].mean
    assert not there.curves["held"], "no curves there"
    assert (tmp_path / "run" / FOLDER / there.pictures["held"]["trained"][0]).is_file()
    page = report.read_text(encoding="utf-8")
    assert "On another checkpoint" in page
    assert str(tiny_v_folder) in page


def test_other_layers_are_refused_before_any_long_work(tiny_folder: Path, tiny_xl_folder: Path, tmp_path: Path) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 2)
    file = project(tmp_path, tiny_folder, tiny_xl_folder)
    with pytest.raises(TenutoError, match=r"comparison\.other_base has other layers"):
        run_project(load_project(file), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    file = project(tmp_path, tiny_folder, tmp_path / "none")
    with pytest.raises(TenutoError, match="none: no such checkpoint"):
        run_project(load_project(file), tmp_path / "run")


def pair(folder: Path) -> tuple[Comparison, Comparison]:
    comparison, _ = made_up(folder)
    here = comparison.model_copy(update={"settings": {**comparison.settings, "other_base": "another"}})
    numbers = {
        arm: {**own, "concept_strength": own["concept_strength"].model_copy(update={"mean": 0.5})}
        for arm, own in here.arms.items()
    }
    return here, here.model_copy(update={"base": {**here.base, "name": "another"}, "arms": numbers})


def test_what_is_left_of_the_concept(tmp_path: Path) -> None:
    here, there = pair(tmp_path)
    own = here.arms["held"]["concept_strength"].mean
    assert own is not None
    assert retention(here, there)["held"] == pytest.approx(0.5 / own)
    rows = {row["name"]: row["cells"] for row in carried(here, there)}
    assert rows["Concept strength"]["held"] == (f"{own:.2f}", "0.50")
    assert rows["Concept retained"]["held"] == ("", f"{0.5 / own:.2f}")
    faint = {
        **here.arms["held"],
        "concept_strength": here.arms["held"]["concept_strength"].model_copy(update={"mean": 0.004}),
    }
    assert "held" not in retention(here.model_copy(update={"arms": {**here.arms, "held": faint}}), there), "noise"
    nothing = {
        arm: {**own, "concept_strength": own["drift"].model_copy(update={"mean": None})}
        for arm, own in there.arms.items()
    }
    assert retention(here, there.model_copy(update={"arms": nothing})) == {}


def test_numbers_of_other_loras_are_not_shown(tmp_path: Path) -> None:
    here, there = pair(tmp_path)
    there.save(tmp_path / FOLDER / "comparison.json")
    assert elsewhere_of(here, tmp_path) == there
    trained_anew = here.model_copy(update={"hashes": {**here.hashes, "held seed 0": "3" * 64}})
    assert elsewhere_of(trained_anew, tmp_path) is None
    other = here.model_copy(update={"settings": {**here.settings, "other_base": "a third"}})
    assert elsewhere_of(other, tmp_path) is None
    assert elsewhere_of(here.model_copy(update={"settings": {}}), tmp_path) is None
