"""What a project file means where it is silent."""

from __future__ import annotations

from typing import Any

import pytest

from tenuto.data.dataset import Concept
from tenuto.files import parse_toml
from tenuto.project.file import make_project
from tenuto.project.settings import USES, Project
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.words import TenutoError
from tenuto.work.needs import lacks


def project(kinds: str = "concept", **more: Any) -> Project:
    concepts = [
        {"name": f"c{n}", "kind": kind, "images": "p", "trigger": f"word{n}"} for n, kind in enumerate(kinds.split())
    ]
    return make_project({"concepts": concepts, **more}, "test")


@pytest.mark.parametrize(
    ("kinds", "held"),
    [
        ("concept", [CachedPrior(), OutputPreservation(share=0.05)]),
        ("character clothing", [CachedPrior(), OutputPreservation(share=0.05)]),
        ("style", [OutputPreservation()]),
        ("character style", [OutputPreservation()]),
    ],
)
def test_silent_it_is_held_by_what_its_kind_was_measured_to_need(kinds: str, held: list[Regularizer]) -> None:
    assert list(project(kinds).regularizers.values()) == held


def test_without_a_concept_the_error_is_that_there_is_none() -> None:
    with pytest.raises(TenutoError, match="concepts"):
        make_project({"concepts": []}, "test")


def test_what_has_no_trigger_is_held_where_the_bases_pictures_are() -> None:
    concepts = [{"name": f"c{n}", "images": "p", "trigger": word} for n, word in enumerate(("x", ""))]
    own = make_project({"concepts": concepts}, "test")
    assert list(own.regularizers) == ["cached_prior"]
    assert own.ratios() == {"c0": 0.1, "c1": 0.1}


def test_a_style_is_held_by_pictures_where_something_has_no_trigger_or_pictures_are_asked_for() -> None:
    concepts = [{"name": f"c{n}", "kind": "style", "images": "p", "trigger": word} for n, word in enumerate(("x", ""))]
    assert list(make_project({"concepts": concepts}, "test").regularizers) == ["prior_preservation"]
    for prior in ({"per_image": 8}, {"ratio": 0.5}, {"folders": [{"path": "reg"}]}):
        assert list(project("style", prior=prior).regularizers) == ["prior_preservation"]


def test_several_concepts_are_held_one_by_one() -> None:
    def modes(own: Project) -> list[str]:
        return [own.prior_of(concept).mode_for(concept.kind) for concept in own.concepts]

    assert modes(project("character style")) == ["match", "random"]
    assert project("character clothing").ratios() == {"c0": 0.05, "c1": 0.05}
    assert modes(project("character clothing", prior={"prompts": "none"})) == ["none", "none"]


def test_a_silent_project_with_an_error_says_just_that() -> None:
    with pytest.raises(TenutoError) as error:
        project(data={"validation": 2})
    assert str(error.value) == "test: data.validation: Input should be less than 1 (got 2)"


def test_a_method_that_is_named_stands_alone_and_an_empty_section_means_none() -> None:
    assert list(project(regularizers={"l2_to_base": {}}).regularizers) == ["l2_to_base"]
    assert project(regularizers={}).regularizers == {}
    assert project(prior={"ratio": 0}).regularizers == {}
    assert list(project(prior={"prompts": "none"}).regularizers) == ["output_preservation"], "what needs no prior image"
    assert list(project(prior={"folders": [{"path": "reg"}]}).regularizers) == ["prior_preservation"]
    assert list(project(prior={"folders": [{"path": "more", "use": "instance"}]}).regularizers) == [
        "cached_prior", "output_preservation",
    ]  # fmt: skip
    assert project(prior={"ratio": 0.0}).ratios() == {"c0": 0.0}


@pytest.mark.parametrize("kinds", ["character", "style", "character style"])
@pytest.mark.parametrize("name", ["drift_controller", "caption_dropout", "overdriven_prior"])
def test_a_method_that_does_nothing_alone_stands_beside_what_holds_anyhow(kinds: str, name: str) -> None:
    """So that a budget is one number."""
    usual = project(kinds).regularizers
    if (kinds, name) == ("character", "drift_controller"):
        usual["output_preservation"] = OutputPreservation(share=0.25)
    if "style" in kinds and name != "drift_controller":
        usual = project(kinds, prior={"ratio": 1}).regularizers
        assert [*usual] == ["prior_preservation"], "prior rows are what it changes"
    own = project(kinds, regularizers={name: {}})
    assert own.regularizers == usual | {name: REGULARIZERS[name]()}
    assert Project.model_validate(own.model_dump(mode="json")) == own
    lacking = lacks(own, [Concept("c0", trigger="word0")], [], [], ratios=own.ratios(), prompts=[])
    assert not lacking, "nothing is missing then"
    with_other = project(kinds, regularizers={name: {}, "l2_to_base": {}}).regularizers
    assert [*with_other] == [name, "l2_to_base"], "whoever names one that holds says what holds"
    assert [*project(kinds, regularizers={name: {}}, prior={"ratio": 0}).regularizers] == [name]
    none = project(kinds, regularizers={name: {"weight": 0}}).regularizers
    assert {own: none[own] for own in none if own != name} == project(kinds).regularizers, "as if it were not there"


@pytest.mark.parametrize(
    ("methods", "ratio"),
    [
        ({"cached_prior": {}}, 0.1),
        ({"cached_prior": {"weight": 0.03}}, 0.1),
        ({"cached_prior": {"weight": 0.5}}, 0.25),
        ({"cached_prior": {"weight": 1}}, 0.5),
        ({"cached_prior": {"weight": 9}}, 1.0),
        ({"prior_preservation": {}}, 0.5),
        ({"cached_prior": {}, "prior_preservation": {}}, 0.5),
        ({"cached_prior": {}, "prior_preservation": {"weight": 0}}, 0.1),
        ({"cached_prior": {}, "drift_controller": {}}, 0.5),
        ({"cached_prior": {}, "drift_controller": {"weight": 0}}, 0.1),
        ({"cached_prior": {}, "output_preservation": {}, "drift_controller": {}}, 0.25),
        ({"drift_controller": {}}, 0.25),
        ({"l2_to_base": {}}, 0.0),
        ({"gram_penalty": {}, "drift_controller": {}}, 0.0),
    ],
)
def test_an_unset_ratio_follows_from_who_uses_it(methods: dict[str, Any], ratio: float) -> None:
    assert project(regularizers=methods).ratios() == {"c0": ratio}


@pytest.mark.parametrize("prior", [{"per_image": 50}, {"folders": [{"path": "reg"}]}])
def test_a_pool_that_is_asked_for_is_drawn_from_as_often_as_the_pictures(prior: dict[str, Any]) -> None:
    """So that x50 is used up in 50 epochs; kept states follow the weight whatever the pool is."""
    assert project(prior=prior, regularizers={"prior_preservation": {}}).ratios() == {"c0": 1.0}
    assert project(prior=prior, regularizers={"cached_prior": {}}).ratios() == {"c0": 0.1}
    assert project(prior={**prior, "ratio": 0.3}, regularizers={"prior_preservation": {}}).ratios() == {"c0": 0.3}


def test_a_ratio_that_is_set_stays_and_a_concept_may_have_its_own() -> None:
    own = [{"name": "a", "images": "p"}, {"name": "b", "images": "p", "prior": {"ratio": 2}}]
    table = {"concepts": own, "prior": {"ratio": 0.3}, "regularizers": {"cached_prior": {"weight": 1}}}
    assert make_project(table, "test").ratios() == {"a": 0.3, "b": 2}
    assert project(prior={"ratio": 0.3}, regularizers={"l2_to_base": {}}).ratios() == {"c0": 0}


@pytest.mark.parametrize(
    ("methods", "sampler", "steps"),
    [
        ({"cached_prior": {}}, {}, 8),
        ({"cached_prior": {"states": 12}}, {"guidance": 3}, 12),
        ({"cached_prior": {}}, {"steps": 30}, 30),
        ({"cached_prior": {}}, {"steps": 4}, 4),
        ({"cached_prior": {}, "prior_preservation": {}}, {}, 20),
        ({"prior_preservation": {}}, {}, 20),
    ],
)
def test_unset_steps_are_as_many_as_the_states_that_are_kept(
    methods: dict[str, Any], sampler: dict[str, Any], steps: int
) -> None:
    own = project(regularizers=methods, prior={"sampler": sampler})
    assert own.prior_sampler().steps == steps
    assert own.sampler().steps == sampler.get("steps", 20), "pictures to look at take the usual number"
    assert own.visits() == (
        min(steps, methods["cached_prior"].get("states", 8)) if list(methods) == ["cached_prior"] else USES
    )
    assert own.prior_sampler().guidance == sampler.get("guidance", 5)


def test_written_out_it_says_the_same() -> None:
    own = project("style", prior={"sampler": {"guidance": 3}})
    assert make_project(parse_toml(own.to_toml()), "test") == own
