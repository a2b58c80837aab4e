"""What is dropped on the Import page: over HTTP, and in a real browser as a person's hand does it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenuto.formats.d8 import CONCEPTS, CONFIG
from tenuto.web.views import imports
from tests.jobs import plain_pictures
from tests.web.browser import Browser, chromium, needs_chromium
from tests.web.server import Client, serving

STAGED = Path(__file__).parents[2] / "tools" / "docs" / "staged"
CONCEPT = {"instance_data_dir": "mine", "instance_prompt": "[filewords]", "instance_token": "zxq", "class_token": "dog"}
D8 = {CONFIG: {"use_lora": True, "lora_unet_rank": 12}, CONCEPTS: [CONCEPT]}
"""The files in the folder of a model."""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    plain_pictures(tmp_path / "work" / "mine", [(64, 64)] * 2)
    return tmp_path / "work"


@pytest.fixture
def page(workspace: Path) -> Iterator[Client]:
    with serving(workspace) as client:
        yield client


def texts(files: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(data) for name, data in files.items()}


def test_a_dropped_folder_of_d8_becomes_a_project(page: Client, workspace: Path) -> None:
    told = page.post("/import", {"file": "my-model", "folder": texts(D8)}).json
    assert told["system"] == "d8"
    carried = {own["ours"]: own["value"] for own in told["carried"]}
    assert (carried["concepts.0.trigger"], carried["training.adapter.rank"]) == ("zxq", "12"), "of both files"
    assert "Imported from my-model (d8)" in told["toml"]
    assert page.post("/import", {"file": "my-model", "folder": texts(D8), "name": "theirs"}).json["go"]
    kept = tomllib.loads((workspace / "runs" / "theirs" / "project.toml").read_text())
    assert kept["concepts"][0]["images"] == "../../mine", "looked for from the workspace"
    alone = page.post("/import", {"file": "my-model", "folder": texts({CONCEPTS: D8[CONCEPTS]})}).json
    assert alone["system"] == "d8"
    assert sorted(own.name for own in workspace.iterdir()) == ["mine", "runs"], "nothing stays"


@pytest.mark.parametrize(
    "name", ["../s.json", "/etc/x.json", "config.toml", "", "a\0.json", "x" * 5000, CONFIG.upper()]
)
def test_of_a_dropped_folder_only_known_files_are_taken(page: Client, workspace: Path, name: str) -> None:
    reply = page.post("/import", {"file": "my-model", "folder": {name: "{}", **texts(D8)}})
    assert reply.status == 400
    assert "not read out of a dropped folder" in reply.json["error"]
    assert "\n" not in reply.json["error"]
    assert len(reply.json["error"]) < 200
    assert [own.name for own in workspace.iterdir()] == ["mine"]
    assert [own.name for own in workspace.parent.iterdir()] == ["work"]


def test_a_dropped_folder_is_small_and_reads_nothing_outside(page: Client, workspace: Path) -> None:
    large = {CONFIG: " " * (imports.LARGEST // 2), CONCEPTS: " " * (imports.LARGEST // 2 + 1)}
    assert "too large" in page.post("/import", {"file": "m", "folder": large}).json["error"], "together"
    for wrong in ({CONFIG: "{"}, {CONFIG: 3}, {CONFIG: "\0"}, {CONCEPTS: "\ud800"}, [], "x"):
        reply = page.post("/import", {"file": "m", "folder": wrong})
        assert (wrong, reply.status) == (wrong, 400)
    plain_pictures(workspace.parent / "secret", [(64, 64)])
    for place in ("../secret", str(workspace.parent / "secret")):
        theirs = texts({CONCEPTS: [{**CONCEPT, "instance_data_dir": place, "instance_token": ""}]})
        looked = page.post("/import", {"file": "m", "folder": theirs})
        assert "zxq" not in looked.text, "no caption is read there"
        assert "outside" in page.post("/import", {"file": "m", "folder": theirs, "name": "mine2"}).json["error"]
    assert [own.name for own in workspace.iterdir()] == ["mine"]


# -- in the browser ---------------------------------------------------------------------------------------------------

DROP = """
const [name, text] = arguments, given = new DataTransfer(), place = document.querySelector("[data-drop]");
if (name) given.items.add(new File([text], name));
for (const kind of ["dragenter", "dragover", "drop"])
  place.dispatchEvent(new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true }));
"""


def drop_from_disk(browser: Browser, path: Path) -> None:
    """As the system's file manager does it, with a file or a whole folder."""
    place = browser.find("[data-drop]").rect
    middle = {"x": int(place["x"] + place["width"] / 2), "y": int(place["y"] + place["height"] / 2)}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **middle, "data": data})


@needs_chromium
def test_files_and_folders_are_dropped(page: Client, workspace: Path, tmp_path: Path) -> None:
    dropped = {
        "my-lora_20240101-120000.json": "kohya_ss",
        "dataset.toml": "sd-scripts",
        "my-lora.toml": "derrian",
    }
    with chromium() as browser:
        for name, system in dropped.items():
            browser.open(f"{page.url}/import")
            browser.run(DROP, name, (STAGED / name).read_text())
            browser.see(f"A training of {system}")
            assert browser.find("[data-drop] b").text == name
            assert browser.driver.find_elements("css selector", "[data-carried] li")
        wrong = {"x.safetensors": "no config", "x.json": "x.json: not recognised", "": "No file was dropped"}
        for name, said in wrong.items():
            browser.open(f"{page.url}/import")
            browser.run(DROP, name, "{}")
            browser.see(said)

        model = tmp_path / "my-model"
        model.mkdir()
        browser.open(f"{page.url}/import")
        drop_from_disk(browser, model)
        browser.see(f"my-model: holds no {CONFIG} and no {CONCEPTS}")
        for name, text in texts(D8).items():
            (model / name).write_text(text)
        drop_from_disk(browser, model)
        browser.see("training.adapter.rank = 12")
        assert "concepts.0.trigger = zxq" in browser.find("[data-carried]").text
        browser.write("[data-import-make] input[name=name]", "theirs")
        browser.press("Make the project")
        browser.see("theirs is here")
        assert browser.complaints() == []
    kept = tomllib.loads((workspace / "runs" / "theirs" / "project.toml").read_text())
    assert kept["concepts"][0]["images"] == "../../mine"
