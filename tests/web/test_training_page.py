"""The Training tab on what a real run has left: its curves, the budget, pictures while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenuto.project.file import load_project
from tenuto.web.outlook import Watcher
from tenuto.web.places import place_of
from tenuto.web.roots import Roots
from tenuto.web.samples import PICTURES
from tenuto.work.prepare import prepare
from tenuto.work.train import train_all
from tests.jobs import CONCEPT, noise_pictures
from tests.web.browser import chromium, needs_chromium
from tests.web.server import Client, serving

RUN = f"""{CONCEPT}trigger = "zxq"
[prior]
per_image = 1
store = "store"
[prior.sampler]
steps = 2
[regularizers.prior_preservation]
[regularizers.drift_controller]
budget = 0.2
every = 1
warmup = 1
[training]
steps = 4
batch = 1
watch_every = 2
sample_every = 2
[training.adapter]
rank = 2
[arms]
plain = false
"""
BARE = f'{CONCEPT}trigger = "zxq"\n'


@pytest.fixture(scope="module")
def workspace(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been trained with a drift controller, and one that has not begun."""
    folder = tmp_path_factory.mktemp("workspace")
    noise_pictures(folder / "pictures", [(16, 16)] * 2, ["zxq, hat", "zxq, dog"])
    (folder / "ran.toml").write_text(RUN.format(model=tiny_folder))
    (folder / "bare.toml").write_text(BARE.format(model=tiny_folder))
    project = load_project(folder / "ran.toml")
    train_all(prepare(project), place_of(Roots.of([folder]), "ran").folder)
    return folder


@pytest.fixture(scope="module")
def page(workspace: Path, tiny_folder: Path) -> Iterator[Client]:
    with serving(workspace, tiny_folder) as client:
        yield client


def test_a_run_sends_its_curves_its_budget_and_its_pictures(page: Client) -> None:
    live = page.get("/p/ran/live?curves=1").json
    assert {"loss.instance", "loss.prior_preservation", "drift"} <= live["curves"].keys()
    for name, updates in (
        ("loss.instance", [1, 2, 3, 4]),
        ("loss.prior_preservation", [1, 2, 3, 4]),
        ("drift", [2, 4]),
    ):
        (curve,) = live["curves"][name]
        assert (curve["arm"], curve["seed"]) == ("held", 0)
        assert [update for update, _ in curve["points"]] == updates
    assert live["budget"] == 0.2
    (made,) = live["made"]
    assert (made["updates"], made["total"]) == (4, 4)
    assert [own["name"] for own in made["samples"]] == ["000002-0", "000004-0"]
    assert page.get(made["samples"][0]["url"]).headers["content-type"] == "image/webp"
    assert page.get("/p/bare/live?curves=1").json["budget"] is None


@needs_chromium
def test_the_budget_is_drawn_and_pictures_lead_to_their_setting(page: Client) -> None:
    with chromium() as browser:
        browser.open(f"{page.url}/p/ran/training")
        browser.find("[data-samples] figure img")
        assert "update 2" in browser.find("[data-samples] figcaption").text
        (drift,) = [own for own in browser.driver.find_elements("css selector", ".chart") if "Drift" in own.text]
        assert "budget 0.2" in drift.text
        (line,) = browser.driver.find_elements("css selector", ".chart line.budget")
        assert line.get_attribute("y1") == line.get_attribute("y2")
        assert line.find_element("xpath", "ancestor::div[@class='chart']") == drift, "and nowhere else"
        browser.open(f"{page.url}/p/bare/training")
        browser.press("say after how many updates one shall be")
        assert browser.find("[name='training.sample_every']").is_displayed()
        assert browser.complaints() == []


@pytest.mark.parametrize(("pictures", "every"), [(1, 1), (9, 3)])
def test_a_new_project_draws_pictures_while_it_trains(tmp_path: Path, pictures: int, every: int) -> None:
    noise_pictures(tmp_path / "some", [(64, 64)] * pictures, ["zxq, hat"] * pictures)
    new = {"kind": "concept", "images": "some", "trigger": "zxq", "model": "pocket"}
    with serving(tmp_path) as page:
        form = page.get("/new", accept="text/html").text
        assert '<input type="checkbox" name="samples" value="true" checked>' in form
        assert "800 passes" in form, "ten pictures of two trainings, in twenty guided steps"
        assert page.post("/new", {**new, "name": "with", "samples": "true"}).status == 200
        assert page.post("/new", {**new, "name": "without"}).status == 200, "a box that is not ticked sends nothing"
        assert f"drawn after {every} update" in page.get("/p/with/training", accept="text/html").text
    own, without = (place_of(Roots.of([tmp_path]), name) for name in ("with", "without"))
    assert own.table()["training"] == {"sample_every": every}
    assert "training" not in without.table()
    updates = Watcher().look(load_project(own.file)).outlook.length.updates
    assert PICTURES * (every - 1) < updates <= PICTURES * every, "by the plan's own number"
