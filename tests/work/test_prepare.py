"""What is refused before any long work, a slip of the finger included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenuto.families.survey import survey
from tenuto.project.file import load_project
from tenuto.words import TenutoError
from tenuto.work.prepare import audited, look_ahead
from tests.jobs import CONCEPT, plain_pictures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epochs=100000000", r"3.15e\+08 rows are trained"),
        (f"training.epochs={10**400}", "rows are trained"),
        ("training.steps=1000000000", "rows are trained"),
        ("concepts.0.repeats=1000000000", "rows are trained"),
        ("prior.ratio=1000000000", "rows are trained"),
        ("prior.per_image=1000000000", "prior images are made"),
    ],
)
def test_a_plan_that_nobody_could_follow(change: str, message: str, tiny_folder: Path, tmp_path: Path) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 3)
    (tmp_path / "p.toml").write_text(CONCEPT.format(model=tiny_folder) + 'trigger = "zxq"\n')
    with pytest.raises(TenutoError, match=message):
        look_ahead(load_project(tmp_path / "p.toml", [change]), survey(str(tiny_folder)))


def test_a_concept_without_a_usable_picture_is_told_by_the_audit(tiny_folder: Path, tmp_path: Path) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 3)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(b"no picture")
    second = '[[concepts]]\nname = "hat"\nimages = "damaged"\ntrigger = "qwv"\n'
    (tmp_path / "p.toml").write_text(CONCEPT.format(model=tiny_folder) + 'trigger = "zxq"\n' + second)
    seen = look_ahead(load_project(tmp_path / "p.toml"), survey(str(tiny_folder)))
    assert any("no usable picture" in problem.what for problem in audited(seen).errors)
    assert [concept.others for concept in seen.concepts] == [("qwv",), ("zxq",)]


def test_methods_that_get_no_prior_rows_say_so(tiny_folder: Path, tmp_path: Path) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 3)
    (tmp_path / "p.toml").write_text(CONCEPT.format(model=tiny_folder))
    none = 'prior.prompts="none"'
    silent = look_ahead(load_project(tmp_path / "p.toml", [none]), survey(str(tiny_folder)))
    assert silent.project.regularizers == {}
    assert not audited(silent).errors
    named = load_project(tmp_path / "p.toml", [none, "regularizers.cached_prior.weight=0.1"])
    assert [str(error) for error in audited(look_ahead(named, survey(str(tiny_folder)))).errors] == [
        'regularizers.cached_prior: needs prior rows, and prior.prompts is "none"; set another one, or take the method '
        "out"
    ]


def test_weights_that_nothing_can_measure_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 3)
    for caption in (tmp_path / "pictures").glob("*.txt"):
        caption.unlink()
    (tmp_path / "p.toml").write_text(CONCEPT.format(model=tiny_folder))
    seen = look_ahead(load_project(tmp_path / "p.toml"), survey(str(tiny_folder)))
    assert any("no caption has a word" in problem.what for problem in audited(seen).errors)
    raw = load_project(tmp_path / "p.toml", ["regularizers.cached_prior.normalised=false"])
    assert not any("has a word" in str(own) for own in audited(look_ahead(raw, survey(str(tiny_folder)))).errors)


@pytest.mark.parametrize("value", ["x" * 5000, "x/" * 3000, r"a\u0000b"])
@pytest.mark.parametrize("setting", ["base.model", "concepts.0.images", "prior.tag_csv", "comparison.tagger"])
def test_what_can_be_no_path(setting: str, value: str, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(CONCEPT.format(model=tiny_folder))
    with pytest.raises(TenutoError, match=f"^{setting.replace('.0.', '.eyes.')}: "):
        load_project(tmp_path / "p.toml", [f'{setting}="{value}"'])


def test_an_extension_that_is_none(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(CONCEPT.format(model=tiny_folder))
    with pytest.raises(TenutoError, match=r"data\.caption_extension: write an extension such as \.txt \(got 'txt'\)"):
        load_project(tmp_path / "p.toml", ['data.caption_extension="txt"'])


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        (["regularizers.cached_prior.weight=1", "prior.ratio=0.125"], True),
        (["regularizers.cached_prior.weight=1"], False),
        (["regularizers.cached_prior.weight=0.3", "prior.ratio=0.125"], False),
        (["regularizers.prior_preservation.weight=1", "prior.ratio=0.125"], False),
    ],
)
def test_few_rows_of_a_high_weight_are_warned_of(
    changes: list[str], warned: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    plain_pictures(tmp_path / "pictures", [(16, 16)] * 3)
    (tmp_path / "p.toml").write_text(CONCEPT.format(model=tiny_folder) + 'trigger = "zxq"\n')
    seen = look_ahead(load_project(tmp_path / "p.toml", changes), survey(str(tiny_folder)))
    assert any("few rows of a high weight" in problem.what for problem in audited(seen).warnings) == warned
