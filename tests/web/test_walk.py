"""A person's whole way on pocket, in a real browser: folder, captions, prior, training, comparison, download.

In the middle the page is loaded again and its server is killed; afterwards every page is looked at, large and small,
light and dark.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
import tomli_w
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file
from selenium.webdriver.common.keys import Keys

from tenuto.cli.demo import write_set
from tenuto.web.core import TABS
from tests.web.browser import Browser, chromium, needs_chromium
from tests.web.looks import DARK, HARD_TO_READ, HEADS, NAMELESS, OUTSIDE, READ
from tests.web.server import started

pytestmark = [needs_chromium, pytest.mark.timeout(1800)]

QUICK = {
    "seed": "0",
    "training.steps": "24",
    "training.batch": "1",
    "training.save_every": "2",
    "training.watch_every": "4",
    "training.sample_every": "12",
    "training.adapter.rank": "2",
    "prior.sampler.steps": "2",
    "prior.batch": "1",
    "comparison.seeds": "0",
    "comparison.prompts": "1",
    "comparison.drift_prompts": "2",
    "comparison.states": "2",
    "comparison.steps": "2",
    "comparison.weights": "0, 1, 2",
    "comparison.strip_prompts": "1",
    "comparison.curve_checkpoints": "0",
    "comparison.curve_weights": "0.5",
    "comparison.curve_prompts": "1",
    "comparison.loss_times": "0.5",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as own:
        yield own


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    write_set("head-in-a-jar", folder / "jar", 4)
    return folder


@dataclass
class Page:
    """Where the page is, and the process that serves it."""

    url: str
    server: subprocess.Popen[str]


@pytest.fixture(scope="module")
def page(workspace: Path) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENUTO_HOME", str(workspace / "home"))
        process, url = started(workspace)
        own = Page(url, process)
        try:
            yield own
        finally:
            own.server.kill()
            own.server.wait()


def test_the_whole_way(browser: Browser, page: Page, workspace: Path) -> None:
    url = page.url
    browser.size(1280, 800)
    browser.open(url)

    # a wrong folder is said, a right one is chosen
    browser.press("New project")
    browser.click(browser.find("input[value=concept]"))
    browser.write("input[name=images]", "/etc")
    browser.press("Look first")
    browser.see("outside the folders")
    (workspace / "empty").mkdir()
    for folder, said in (("empty", "no pictures in this folder"), ("nowhere", "no such folder")):
        browser.write("input[name=images]", folder)
        browser.press("Look first")
        browser.see(f"{folder}: {said}")
    assert not list((workspace / "runs").glob("[!.]*")), "nothing is left behind"
    browser.find("input[name=images]").clear()
    browser.click(browser.find("[data-browse=images]"))
    for step in ("▸ jar", "▸ images", "Take this folder"):
        browser.press(step)
    assert browser.find("input[name=images]").get_attribute("value") == "jar/images"
    browser.write("input[name=trigger]", "jorbik")
    browser.write("input[name=class_word]", "1girl")
    browser.write("input[name=name]", "my jar")
    browser.press("Look first")

    # the audit's finding leads to the picture; another concept comes and goes
    browser.see("4 pictures")
    copy = workspace / "jar" / "images" / "copy.png"
    copy.write_bytes((workspace / "jar" / "images" / "000.png").read_bytes())
    copy.with_suffix(".txt").write_text("jorbik, 1girl")
    browser.driver.refresh()
    browser.see("the same file as 000.png")
    browser.write("[data-filter]", "nothing has this")
    browser.until(lambda: not browser.run("return document.querySelectorAll('.picture:not([hidden])').length"))
    browser.press("copy.png")
    assert browser.run("return document.activeElement.closest('.picture').dataset.name") == "copy.png"
    assert browser.find(".picture:target").is_displayed(), "whatever the filter says"
    copy.unlink()
    copy.with_suffix(".txt").unlink()
    browser.driver.refresh()
    browser.click(browser.find("[aria-label='What is learned'] summary"))
    browser.click(browser.find("[aria-label='What is learned'] details details summary"))
    browser.write("[data-json$='/concept'] input[name=images]", "jar/tests")
    browser.write("[data-json$='/concept'] input[name=trigger]", "another")
    browser.press("Add it")
    browser.see("tests is learned as well")
    two_windows_on_the_settings(browser, url, workspace / "runs" / "my-jar" / "project.toml")
    browser.run("document.querySelector('[aria-label=\"Take tests out of the project\"]').click()")
    browser.see("tests is left out")

    # captions: changed in bulk after a look, undone; one changed alone
    browser.see("4 pictures")
    assert len(browser.driver.find_elements("css selector", ".tag.trigger")) == 4
    caption = workspace / "jar" / "images" / "000.txt"
    before = caption.read_text()
    browser.click(browser.find("[aria-label='Change many captions'] summary"))
    browser.write("input[name=tags]", "glass jar")
    browser.press("Show what changes")
    browser.see("Change 4 captions")
    assert caption.read_text() == before
    browser.press("Change 4 captions")
    browser.see("4 captions changed")
    assert caption.read_text().strip().endswith("glass jar")
    browser.press("Undo the last change")
    browser.see("captions are as they were")
    assert caption.read_text() == before
    browser.click(browser.find(".thumb"))
    browser.find("[data-viewer-text]").send_keys(", indoors2")
    caption.write_text("of another window")
    browser.press("Save")
    browser.until(lambda: "000.png: its caption was changed elsewhere" in browser.find("dialog .toast").text)
    assert caption.read_text() == "of another window"
    caption.write_text(before)
    browser.press("Save")
    browser.see("caption saved")
    assert "indoors2" in caption.read_text()

    project = tomllib.loads((workspace / "runs" / "my-jar" / "project.toml").read_text())
    assert project["training"]["sample_every"] == 1, "pictures while it trains, unless told not to"

    # settings: what is wrong is said at its place; then small numbers
    browser.press("Settings")
    browser.write("[name='training.batch']", "many")
    browser.press("Save")
    browser.see("valid integer")
    for name, value in QUICK.items():
        browser.run("document.getElementsByName(arguments[0])[0].value = arguments[1]", name, value)
    browser.press("Save")
    browser.until(lambda: browser.find(".toast").text == "saved", what="that it is saved")

    # the three numbers with their cost
    browser.press("2\nPrior")
    images = browser.find("[data-cost-images]").text
    assert browser.driver.find_elements("css selector", ".prompts .tag.gone")[0].text == "jorbik"
    browser.slide("input[name=weight]", 1)
    shown = "return document.querySelector('input[name=ratio]').closest('label').querySelector('output').textContent"
    browser.until(lambda: browser.run(shown) == "0.25", what="the ratio, which follows the weight where none is set")
    browser.press("2\nPrior")
    browser.until(lambda: browser.run(shown) != "0.25", what="the project's own numbers again")
    browser.slide("input[name=ratio]", 0.5)
    browser.until(lambda: browser.find("[data-cost-images]").text not in ("", images), what="another cost")
    browser.press("Keep these numbers")
    browser.see("kept in the project")
    kept = tomllib.loads((workspace / "runs" / "my-jar" / "project.toml").read_text())
    assert kept["prior"]["ratio"] == 0.5
    assert "per_image" not in kept["prior"]
    assert "regularizers" not in kept, "only what was touched: what holds it unnamed stays so"

    # the prior set: its pictures come one by one; stopped, and gone on with
    made = workspace / "runs" / "my-jar" / "prior"
    figures = "return document.querySelectorAll('[data-gallery] figure').length"
    browser.press("Build the prior set")
    browser.until(lambda: list(made.glob("*.png")), 300, "a prior image")
    run = process_of(workspace)
    run.suspend()
    first = browser.until(lambda: browser.run(figures), 60, "a prior image on the page")
    browser.press("Stop")
    browser.run_is("Stopping", 60)
    run.resume()
    browser.run_is("Stopped", 120)
    assert len(list(made.glob("*.png"))) < int(browser.find("[data-cost-images]").text), "it was stopped on the way"
    browser.press("Go on building")
    browser.until(lambda: browser.run(figures) > first, 300, "more pictures than before")
    browser.run_is("Done", 300)
    browser.until(lambda: browser.run(figures) == int(browser.find("[data-cost-images]").text), what="all of them")

    # training: stopped, gone on with; the page loaded again; its server killed
    browser.press("3\nTraining")
    browser.press("Start")
    browser.until(lambda: list((workspace / "runs" / "my-jar").rglob("states/*.safetensors")), 300, "a state")
    run = process_of(workspace)
    run.suspend()  # or it could be over before the page has been looked at
    browser.until(lambda: "training" in browser.find("[data-run-what]").text, 60, "the training")
    browser.press("Stop")
    browser.run_is("Stopping", 60)
    run.resume()
    browser.run_is("Stopped", 120)
    browser.see("goes on")
    browser.press("Go on")
    browser.run_is("Running", 60)
    run = process_of(workspace)
    run.suspend()
    second = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.open(f"{url}/p/my-jar/training")
    browser.see("Running")
    answer = browser.driver.execute_async_script(
        "const done = arguments[0]; fetch('/p/my-jar/start', {method: 'POST', body: '{}', "
        "headers: {'content-type': 'application/json', 'x-tenuto': 'page'}}).then((a) => a.json()).then(done)"
    )
    assert "already" in answer["error"], "two tabs start one run"
    # another project waits its turn, and is taken out again
    other = workspace / "runs" / "other"
    other.mkdir()
    shutil.copy(workspace / "runs" / "my-jar" / "project.toml", other)
    browser.open(f"{url}/p/other/training")
    browser.press("Start")
    browser.run_is("Waiting in the queue", 60)
    browser.press("Take out")
    browser.run_is("Stopped", 60)
    browser.driver.close()
    browser.driver.switch_to.window(second)
    browser.driver.refresh()
    browser.run_is("Running", 60)
    page.server.kill()
    page.server.wait()
    browser.see("a run goes on without it")
    page.server, _ = started(workspace, port=int(url.rpartition(":")[2]))
    run.resume()
    browser.run_is("Done", 600)
    browser.until(lambda: browser.driver.find_elements("css selector", ".chart path"), what="curves")
    assert "Drift" in browser.text()
    browser.find("[data-samples] figure img")
    assert not browser.driver.find_element("css selector", "[data-samples-empty]").is_displayed()

    # the LoRA, the comparison, the report, and back into the project
    (workspace / "got").mkdir()
    got = browser.download("[data-made] li:has(.is-held) a[download]", workspace / "got")
    assert got.name == "my-jar.safetensors"
    with safe_open(got, framework="pt") as opened:
        assert opened.metadata()["tenuto_triggers"] == "jorbik"
        assert all(opened.get_tensor(name).isfinite().all() for name in opened.keys())  # noqa: SIM118
    browser.press("4\nCompare")
    frame = browser.find(".ba-frame")
    browser.slide(".ba input", 20)
    assert "20%" in str(frame.get_attribute("style"))
    browser.find(".ba input").send_keys(Keys.ARROW_RIGHT)
    assert "21%" in str(frame.get_attribute("style")), "by the keyboard too"
    browser.until(lambda: abs(frame.rect["width"] - browser.find(".ba input").rect["width"]) < 2, what="one width")
    first = browser.find("[data-strip-arm]").get_attribute("src")
    browser.slide("[data-strip]", 2)
    assert browser.find("[data-strip-value]").text == "2"
    assert browser.find("[data-strip-arm]").get_attribute("src") != first
    with urlopen(browser.button("Take this strength").get_attribute("href")) as file:
        twice = load(file.read())
    for name, tensor in load_file(got).items():
        assert torch.equal(twice[name], tensor * 2 if "lora_up" in name else tensor), name
    browser.slide("[data-strip]", 0)
    assert not browser.driver.find_element("css selector", "[data-take]").is_displayed(), "at 0 nothing is left of it"
    browser.press("With a second LoRA")
    browser.find("input[name=second_lora]")
    browser.press("On another checkpoint")
    browser.write("input[name=other_base]", "jar")
    browser.press("Compare on it")
    browser.see("unet/config.json: missing")
    browser.press("Side by side")
    project = workspace / "runs" / "my-jar" / "project.toml"
    assert "regularizers" not in tomllib.loads(project.read_text())
    browser.press("Use Plain LoRA’s settings")
    browser.see("holds by no method")
    assert tomllib.loads(project.read_text())["regularizers"] == {}
    browser.open(f"{url}/p/my-jar/report")
    assert "tenuto report" in browser.driver.title
    assert browser.complaints() == []


def two_windows_on_the_settings(browser: Browser, url: str, project: Path) -> None:
    """One takes the first of two concepts out; the other, loaded before, would write its fields over the one left."""
    first = browser.driver.current_window_handle
    browser.open(f"{url}/p/my-jar/settings")
    browser.write("[name='concepts.0.trigger']", "of the old window")
    browser.driver.switch_to.new_window("window")
    browser.open(f"{url}/p/my-jar/pictures")
    before = tomllib.loads(project.read_text())["concepts"]
    browser.run("document.querySelector('[aria-label=\"Take my-jar out of the project\"]').click()")
    browser.see("my-jar is left out")
    left = project.read_bytes()
    browser.driver.close()
    browser.driver.switch_to.window(first)
    browser.press("Save")
    browser.see("this project was changed elsewhere since this page was loaded; load it again")
    assert project.read_bytes() == left
    assert tomllib.loads(project.read_text())["concepts"] == before[1:]
    browser.run("document.querySelector('[data-settings]').reset()")
    browser.driver.refresh()
    assert browser.find("[name='concepts.0.name']").get_attribute("value") == "tests"
    browser.write("[name='training.steps']", "3")
    browser.press("Save")
    browser.until(lambda: browser.find(".toast").text == "saved", what="that it is saved")
    assert tomllib.loads(project.read_text())["training"]["steps"] == 3
    project.write_text(tomli_w.dumps({**tomllib.loads(project.read_text()), "concepts": before}))
    browser.open(f"{url}/p/my-jar/pictures")


def process_of(workspace: Path) -> psutil.Process:
    """The run that the page has started last."""
    newest = max((workspace / "runs" / ".jobs").glob("*.json"))
    return psutil.Process(json.loads(newest.read_text())["pid"])


PAGES = {
    "": "Teach a model one new thing.",
    "new": "New project",
    "runs": "Runs",
    "methods": "Methods",
    "import": "Import",
    "p/my-jar/pictures": "Change many captions at once",
    "p/my-jar/prior": "Three numbers",
    "p/my-jar/training": "Pictures while it trains",
    "p/my-jar/compare": "Before and after",
    "p/my-jar/settings": "Find a setting",
    "p/my-jar/compare?view=second": "Beside another LoRA",
    "p/my-jar/compare?view=elsewhere": "On another checkpoint",
}
"""Every page, and a heading of it."""
SHOTS = os.environ.get("TENUTO_SHOTS", "")
"""A folder, where pictures of every page are wanted."""
FOCUSED = "const own = document.activeElement; return [own.innerText.trim(), own.matches(':focus-visible')]"
MAIN = {
    "": "New project",
    "new": "Go",
    "p/my-jar/pictures": "Run again",
    "p/my-jar/prior": "Build the prior set",
    "p/my-jar/compare": "Open the report",
}
"""Page -> its main button."""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_every_page_fits(browser: Browser, page: Page, width: int, height: int, dark: bool) -> None:
    browser.size(width, height, dark)
    browser.complaints()
    read: set[str] = set()
    assert {f"p/my-jar/{name}" for name, _ in TABS} <= PAGES.keys()
    for name, heading in PAGES.items():
        browser.open(f"{page.url}/{name}")
        assert heading in browser.run(HEADS)
        assert "This did not work" not in browser.text()
        wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], f"/{name} scrolls sideways"
        assert browser.run(DARK) is dark
        assert browser.run(HARD_TO_READ) == [], f"/{name}"
        read.update(browser.run(READ))
        assert browser.run("return [...document.images].every((own) => own.hasAttribute('alt'))")
        assert browser.run(OUTSIDE) == [], "nothing is fetched from anywhere else"
        assert browser.run(NAMELESS) == []
        if SHOTS:
            browser.shoot(shot_of(name, width, dark))
    assert len(read) == 4, "small text, badges, main buttons and soft text were all among it"
    assert browser.complaints() == []


def shot_of(name: str, width: int, dark: bool) -> Path:
    """Where the picture of a page goes."""
    folder = Path(SHOTS)
    folder.mkdir(parents=True, exist_ok=True)
    words = re.sub(r"[^a-z]+", "-", name.removeprefix("p/my-jar/")) or "home"
    return folder / f"{words}-{width}-{'dark' if dark else 'light'}.png"


def test_a_dropped_config_becomes_a_project(browser: Browser, page: Page, workspace: Path) -> None:
    browser.size(390, 844)
    browser.open(f"{page.url}/import")
    config = workspace / "their.json"
    shutil.copytree(workspace / "jar" / "images", workspace / "sets" / "5_jorbik")
    theirs = {"LoRA_type": "Standard", "train_data_dir": "sets", "network_dim": 12, "xformers": "xformers"}
    config.write_text(json.dumps({**theirs, "pretrained_model_name_or_path": "pocket"}))
    browser.driver.find_element("css selector", "input[type=file]").send_keys(str(config))
    browser.see("training.adapter.rank = 12")
    assert "xformers" in browser.find("[data-left]").text, "what is not carried over is said"
    browser.write("[data-import-make] input[name=name]", "theirs")
    browser.press("Make the project")
    browser.see("theirs is here")
    kept = tomllib.loads((workspace / "runs" / "theirs" / "project.toml").read_text())
    assert kept["training"]["adapter"]["rank"] == 12
    assert kept["concepts"][0]["images"] == "../../sets/5_jorbik", "looked for from the workspace"


def test_the_keyboard_reaches_what_matters(browser: Browser, page: Page) -> None:
    browser.size(1280, 800)
    for name, label in MAIN.items():
        browser.open(f"{page.url}/{name}")
        browser.button(label)
        for _ in range(40):
            browser.driver.switch_to.active_element.send_keys(Keys.TAB)
            focused = browser.run(FOCUSED)
            if focused == [label, True]:
                break
        else:
            raise AssertionError(f"/{name}: Tab does not reach {label!r}")
    browser.open(f"{page.url}/new")
    browser.find("input[name=kind]").send_keys(Keys.ARROW_RIGHT)
    assert browser.find("input[name=kind]:checked").get_attribute("value") == "clothing"
