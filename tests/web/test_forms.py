"""The settings form: every setting of the schema, and back again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tenuto.project.settings import Project
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.web.forms import Field, fields_of, judged, project_form, table_of

PRESETS = sorted((Path(__file__).parents[2] / "presets").glob("*.toml"))
SMALL: dict[str, Any] = {"concepts": [{"name": "c", "images": "pictures"}]}


def fields(table: dict[str, Any]) -> dict[str, Field]:
    return {own.name: own for section in project_form(table) for own in fields_of(section)}


def sent(table: dict[str, Any]) -> dict[str, str | list[str]]:
    """What the page would send of a form that nobody touched."""

    def text(own: Field) -> str | list[str]:
        if own.kind == "choices":
            return list(own.value or ())
        if own.kind == "list":
            return ("\n" if own.name.endswith("prompts") else ", ").join(map(str, own.value or ()))
        return "" if own.value is None else str(own.value)

    methods = [s.title for top in project_form(table) if top.name == "regularizers" for s in top.sections if s.there]
    return {name: text(own) for name, own in fields(table).items()} | {"regularizers": methods}


def test_every_setting_is_there_with_its_words() -> None:
    form = fields(SMALL)
    for name in ("seed", "base.model", "training.optimizer.lr", "training.adapter.rank", "concepts.0.trigger"):
        assert name in form
    for method, settings in REGULARIZERS.items():
        assert {f"regularizers.{method}.weight"} <= form.keys()
        assert settings.model_fields.keys() - {"schedule"} <= {n.rpartition(".")[2] for n in form if method in n}
    undocumented = [name for name, own in form.items() if not own.about]
    assert not undocumented
    kinds = {name: form[name].kind for name in ("training.precision", "data.variation.flip", "training.batch")}
    assert kinds == {"training.precision": "choice", "data.variation.flip": "flag", "training.batch": "number"}
    assert form["training.adapter.parts"].options == ("attention", "feed_forward", "convolution", "text_encoder")
    assert form["data.validation"].most == 1.0
    assert form["training.batch"].default == "4"


@pytest.mark.parametrize("preset", PRESETS, ids=lambda own: own.stem)
def test_an_untouched_form_changes_nothing(preset: Path) -> None:
    table = tomllib.loads(preset.read_text(encoding="utf-8"))
    assert Project.model_validate(table_of(sent(table), table)) == Project.model_validate(table)


@pytest.mark.parametrize("named", [(), ("drift_controller",)], ids=["silent", "a budget"])
def test_what_holds_it_unnamed_is_ticked(named: tuple[str, ...]) -> None:
    table = {"concepts": [{"name": "a", "images": "p", "trigger": "word"}]}
    if named:
        table["regularizers"] = {name: {"budget": 0.2} for name in named}
    usual = ["cached_prior", "output_preservation"]
    assert {*sent(table)["regularizers"]} == {*usual, *named}
    assert table_of(sent(table), table).get("regularizers", {}).keys() == {*named}, "and stays unnamed"
    more = {**sent(table), "regularizers": [*sent(table)["regularizers"], "drift_controller"]}
    assert table_of(more, table)["regularizers"].keys() == {"drift_controller"}
    assert "regularizers" not in table_of({**sent(table), "regularizers": usual}, table), "the budget alone is unticked"
    nothing = table_of({**sent(table), "regularizers": []}, table)
    assert nothing["regularizers"] == {}, "nothing ticked is nothing held, and said so"
    assert Project.model_validate(nothing).regularizers == {}
    assert table_of(sent(nothing), nothing)["regularizers"] == {}
    less = {**sent(table), "regularizers": ["cached_prior"]}
    assert table_of(less, table)["regularizers"] == {"cached_prior": {}}
    other = {**sent(table), "regularizers.output_preservation.weight": "0.4"}
    assert table_of(other, table)["regularizers"].keys() == {*usual, *named}
    wrong = {**sent(table), "regularizers.output_preservation.weight": "much"}
    assert judged(table_of(wrong, table)).keys() == {"regularizers.output_preservation.weight"}
    assert Project.model_validate(table_of(sent(table), table)) == Project.model_validate(table)


def test_a_project_with_an_error_in_it_can_be_put_right() -> None:
    wrong = {**SMALL, "seed": "many", "regularizers": {"max_norm": {}}}
    assert sent(wrong)["regularizers"] == ["max_norm"]
    assert judged(table_of({**sent(wrong), "seed": "3"}, wrong)) == {}
    assert sent({**SMALL, "seed": "many"})["regularizers"] == []


def test_values_go_in_and_out() -> None:
    values: dict[str, str | list[str]] = {
        "training.optimizer.lr": "5e-4",
        "training.sample_prompts": "1girl, hat\n1boy, dog",
        "training.adapter.parts": ["attention"],
        "comparison.weights": "0, 1, 2.5",
        "data.variation.flip": "true",
        "regularizers": ["output_preservation"],
        "regularizers.output_preservation.weight": "2",
        "regularizers.max_norm.weight": "3",
        "no.such.setting": "x",
    }
    table = table_of({**sent(SMALL), **values}, SMALL)
    project = Project.model_validate(table)
    assert project.training.optimizer.lr == 5e-4
    assert project.training.sample_prompts == ("1girl, hat", "1boy, dog")
    assert project.training.adapter.parts == ("attention",)
    assert project.comparison.weights == (0.0, 1.0, 2.5)
    assert project.data.variation.flip is True
    assert list(project.regularizers) == ["output_preservation"], "what is not ticked leaves no trace"
    assert project.regularizers["output_preservation"].weight == 2
    emptied = table_of({**sent(table), "training.optimizer.lr": ""}, table)
    assert "lr" not in emptied["training"].get("optimizer", {}), "empty means the default"


def test_what_is_wrong_is_said_at_its_place() -> None:
    table = table_of({**sent(SMALL), "training.batch": "none", "data.validation": "2"}, SMALL)
    assert judged(table).keys() == {"training.batch", "data.validation"}
    assert judged(SMALL) == {}
