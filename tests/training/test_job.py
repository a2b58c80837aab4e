"""Methods that need something from the prior set or from the pictures, through the whole training job."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from tenuto.data.captions import split_tags
from tenuto.data.tags import remove_trigger
from tenuto.project.file import make_project
from tenuto.project.settings import Project
from tenuto.regularizers.drift_controller import DriftController
from tenuto.training.journal import Journal
from tenuto.training.probe import STATES_READ
from tenuto.words import Stopped, TenutoError
from tenuto.work.prepare import audited, prepare
from tenuto.work.prior import build_controller, open_store
from tenuto.work.train import train_all
from tests.steps import SQUARE, equal


def project(folder: Path, base: Path, methods: dict[str, Any], **more: Any) -> Project:
    """Three pictures on the tiny base, a handful of steps."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        Image.new("RGB", SQUARE, (40 * number, 90, 200)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"zxq, 1girl, smile, {'abc'[number]}")
    table = {
        "base": {"model": str(base), "device": "cpu"},
        "concepts": [{"name": "c", "images": str(pictures), "trigger": "zxq", "class_word": "hat"}],
        "prior": {"per_image": 2, "sampler": {"steps": 3, "guidance": 3.0}, "store": str(folder / "store")},
        "training": {"steps": 4, "batch": 2, "watch_every": 0, "save_every": 2, "adapter": {"rank": 2}},
        "arms": {"plain": False},
        "regularizers": methods,
    }
    return make_project(table | more, "test")


BUDGET = {"cached_prior": {"weight": 1.0, "states": 2}, "drift_controller": {"every": 1, "warmup": 0}}


def test_a_drift_budget_from_the_prior_set_to_the_log(tiny_folder: Path, tmp_path: Path) -> None:
    prepared = prepare(project(tmp_path, tiny_folder, BUDGET))
    asked = {image.prompt for image in prepared.controller.images}
    paths = DriftController().states // STATES_READ
    assert len(prepared.controller.images) == paths == 128
    own = {tag for image in prepared.plan.images for tag in split_tags(image.prompt)}
    close = [len(own.intersection(split_tags(image.prompt))) for image in prepared.controller.images]
    far = [tags for number, tags in enumerate(close) if number % 4]
    assert min(close[::4]) >= max(far), "every fourth is near the set"
    assert fmean(close[::4]) > 3 * fmean(far)
    assert sum(prepared.controller.weights) == pytest.approx(paths)
    assert sum(prepared.controller.weights[::4]) == pytest.approx(paths / 2), "near and far count alike, as in a test"
    assert asked.isdisjoint(prompt.text for prompt in prepared.prompts)
    (concept,) = prepared.concepts
    bare = {remove_trigger(item.caption, concept.trigger, concept.class_word) for item in prepared.items}
    assert len(bare) == len(prepared.items)
    assert asked.isdisjoint(bare), "test prompts avoid what is taken, and shall lie no further off"
    done = train_all(prepared, tmp_path / "run")
    paths_read = build_controller(prepared, open_store(prepared))
    assert [path.weight for path in paths_read] == list(prepared.controller.weights)
    *_, last, closing = Journal(tmp_path / "run" / "held" / "seed-0" / "log.jsonl").read()
    assert closing["forwards"] >= last["forwards"] + DriftController().states, "the trim reads them all"
    assert last["drift_controller.drift"] > 0
    assert last["weight.cached_prior"] == pytest.approx(last["drift_controller.multiplier"], rel=0.5)
    assert done[0].setup_forwards == 6 * 3 * 2 + paths * 3 * 2


def test_the_controller_watches_all_concepts_by_turns(tiny_folder: Path, tmp_path: Path) -> None:
    """It steers by the first states: with one concept after the other they would all be of the first one."""
    one = project(tmp_path, tiny_folder, BUDGET)
    images = one.concepts[0].images
    concepts = [{"name": name, "images": str(images), "trigger": word} for name, word in (("c", "zxq"), ("d", "qvx"))]
    prepared = prepare(project(tmp_path, tiny_folder, BUDGET, concepts=concepts))
    assert [image.concept for image in prepared.controller.images] == ["c", "d"] * 64
    assert len({image.prompt for image in prepared.controller.images}) == 128
    assert {image.concept for image in prepared.plan.images} == {"c", "d"}


def test_an_image_with_kept_states_is_good_for_as_many_uses(tiny_folder: Path, tmp_path: Path) -> None:
    prior = {"ratio": 1.0, "sampler": {"steps": 3, "guidance": 3.0}, "store": str(tmp_path / "store")}
    sizes = []
    for methods in ({"prior_prediction": {}}, {"cached_prior": {"states": 2}}, {"prior_prediction": {}, **BUDGET}):
        prepared = prepare(project(tmp_path, tiny_folder, methods, prior=prior))
        sizes.append(len(prepared.plan.images))
        assert not [problem for problem in audited(prepared).problems if "times" in str(problem)]
    assert sizes == [2, 6, 2]  # 8 prior rows over 3 pictures: each image used five times, or each of its 2 states once


def test_it_goes_on_bit_for_bit(tiny_folder: Path, tmp_path: Path) -> None:
    prepared = prepare(project(tmp_path, tiny_folder, BUDGET))
    whole = load_file(train_all(prepared, tmp_path / "whole")[0].lora)
    asked = iter([False, True])
    with pytest.raises(Stopped):
        train_all(prepared, tmp_path / "cut", stop=lambda: next(asked, True) if (tmp_path / "cut").exists() else False)
    assert equal(load_file(train_all(prepared, tmp_path / "cut")[0].lora), whole)


def test_what_is_finished_is_left_as_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    """Also its time stamp: what was read off the file counts for it alone."""
    prepared = prepare(project(tmp_path, tiny_folder, {"l2_to_base": {}}))
    (first,) = train_all(prepared, tmp_path / "run")
    written = first.lora.read_bytes()
    time.sleep(0.01)
    (again,) = train_all(prepared, tmp_path / "run")
    assert again.lora.read_bytes() == written
    again.lora.unlink()
    assert train_all(prepared, tmp_path / "run")[0].lora.is_file()


@pytest.mark.parametrize(
    ("methods", "more", "message"),
    [
        ({"masked_prior": {}}, {}, r"masked_prior: needs masks.*data\.alpha"),
        ({"drift_controller": {}}, {"ratio": 0}, "no other method has one"),
        ({"caption_dropout": {}, "l2_to_base": {}}, {}, "no method has any"),
        ({"cached_prior": {}}, {"captions": "class"}, r"cached_prior: kept states.*prior\.captions"),
    ],
)
def test_what_a_method_cannot_do_without_is_asked_for(
    methods: dict[str, Any], more: dict[str, Any], message: str, tiny_folder: Path, tmp_path: Path
) -> None:
    prior = {"per_image": 1, "sampler": {"steps": 2, "guidance": 3.0}, "store": str(tmp_path / "store"), **more}
    own = project(tmp_path, tiny_folder, methods, prior=prior)
    with pytest.raises(TenutoError, match=message):
        train_all(prepare(own), tmp_path / "run")


def test_output_preservation_needs_a_trigger(tiny_folder: Path, tmp_path: Path) -> None:
    own = project(tmp_path, tiny_folder, {"output_preservation": {}})
    bare = own.model_copy(update={"concepts": (own.concepts[0].model_copy(update={"trigger": ""}),)})
    prepared = prepare(bare)
    assert any("needs a trigger" in str(problem) for problem in audited(prepared).errors)
    with pytest.raises(TenutoError, match="needs a trigger"):
        train_all(prepared, tmp_path / "run")


def test_masks_of_their_own_are_trained_by_and_others_are_another_plan(tiny_folder: Path, tmp_path: Path) -> None:
    own = project(tmp_path, tiny_folder, {"masked_prior": {}})
    (tmp_path / "masks").mkdir()
    masked = own.model_copy(
        update={"concepts": (own.concepts[0].model_copy(update={"masks": str(tmp_path / "masks")}),)}
    )
    tensors = {}
    for share in (0.25, 0.75):
        for number in range(3):
            mask = Image.new("L", SQUARE)
            mask.paste(255, (0, 0, int(SQUARE.width * share), SQUARE.height))
            mask.save(tmp_path / "masks" / f"{number}.png")
        prepared = prepare(masked)
        assert audited(prepared).errors == ()
        tensors[share] = load_file(train_all(prepared, tmp_path / f"{share}")[0].lora)
    assert not equal(tensors[0.25], tensors[0.75])
    with pytest.raises(TenutoError, match=r"concepts\.masks"):
        train_all(prepared, tmp_path / "0.25")
