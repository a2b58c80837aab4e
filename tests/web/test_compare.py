"""What the Compare tab gives back: an arm's methods, and the held LoRA at a strength that somebody likes."""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file

from tenuto.adapters.files import write_lora
from tests.adapters.made_up import random_lora
from tests.adapters.test_surgery import one
from tests.web.project import ARMS, HELD, HTML, compared, table
from tests.web.server import Client


@pytest.mark.parametrize(
    ("given", "methods"),
    [
        ({"arm": "plain"}, {}),
        ({"arm": "held"}, HELD),
        ({"arm": "held", "harder": 0.5}, {own: {"weight": of["weight"] / 2} for own, of in HELD.items()}),
        ({"arm": "held", "harder": 2}, {own: {"weight": of["weight"] * 2} for own, of in HELD.items()}),
    ],
    ids=["plain", "held", "half", "twice"],
)
def test_what_is_carried_back_stands_in_the_file(
    page: Client, workspace: Path, given: dict[str, Any], methods: dict[str, Any]
) -> None:
    compared(workspace, ARMS)
    before = table(workspace)
    assert page.post("/p/p/use", {**given, "seen": page.seen()}).json["go"] == "/p/p/settings#regularizers"
    assert table(workspace) == before | {"regularizers": methods}


@pytest.mark.parametrize(("harder", "left"), [(2, 0.1), (0.5, 0.4), (1, 0.2)])
def test_under_a_budget_harder_is_less_of_it(page: Client, workspace: Path, harder: float, left: float) -> None:
    """The controller would take other weights back; its own weight is how fast it follows."""
    budget = {"drift_controller": {"weight": 0.0125, "budget": 0.2}}
    compared(workspace, {"held": {"regularizers": HELD | budget}})
    page.post("/p/p/use", {"arm": "held", "harder": harder, "seen": page.seen()})
    assert table(workspace)["regularizers"] == HELD | {"drift_controller": {"weight": 0.0125, "budget": left}}


@pytest.mark.parametrize("harder", [0, -1, 1e9, "much"])
def test_how_much_harder_is_checked(page: Client, workspace: Path, harder: object) -> None:
    compared(workspace, ARMS)
    assert page.post("/p/p/use", {"arm": "held", "harder": harder, "seen": page.seen()}).status == 400


def test_the_strip_shows_every_prompt_that_was_drawn(page: Client, workspace: Path) -> None:
    compared(workspace)
    shown = page.get("/p/p/compare", accept=HTML).text
    (chooser,) = re.findall(r"<select data-strip-prompt>(.*?)</select>", shown)
    assert [text.rpartition(", ")[2] for text in re.findall(">([^<]+)</option>", chooser)] == ["city", "watercolor"]
    cells = re.findall(r'data-weight="([^"]+)" data-url0="([^"]+)" data-url1="([^"]+)"', shown)
    assert len(cells) == 2 * 13, "both arms at every weight"
    for weight, *urls in cells:
        assert [re.search(r"strip-([^&]+)\.png", url)[1] for url in urls] == [f"{weight}-0", f"{weight}-1"]  # type: ignore[index]
    (workspace / "runs" / "p" / "pictures" / "held" / "strip-1-0.png").unlink()
    shown = page.get("/p/p/compare", accept=HTML).text
    assert re.search(r'data-weight="1" data-url0="" data-url1="[^"]+strip-1-1', shown), "each stays with its prompt"


def test_a_strength_is_taken_as_a_lora(page: Client, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(workspace)
    assert "data-take" not in page.get("/p/p/compare", accept=HTML).text, "there is no LoRA to take"
    file = workspace / "runs" / "p" / "held" / "seed-0" / "lora.safetensors"
    write_lora(replace(one(random_lora((8, 4, 3, 3), rank=4, alpha=3.0)), metadata={"tenuto_triggers": "zxq"}), file)
    (address,) = re.findall('href="([^"]+)" data-take', page.get("/p/p/compare", accept=HTML).text)
    (workspace / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(workspace / "scratch"))
    reply = page.get(f"{address}?strength=0.7")
    assert 'filename="p-at-0.7.safetensors"' in reply.headers["content-disposition"]
    before, after = load_file(file), load(reply.body)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], (tensor.double() * 0.7).float() if "lora_up" in name else tensor), name
    assert b'"tenuto_triggers":"zxq"' in reply.body
    end = time.monotonic() + 30
    while list((workspace / "scratch").iterdir()):
        assert time.monotonic() < end, "the scaled file stays behind"
    assert page.get(f"{address}?strength=1").body == file.read_bytes() == page.get(address).body
    for wrong in ("0", "-1", "11", "nan", "inf", "x", ""):
        reply = page.get(f"{address}?strength={wrong}")
        assert (reply.status, reply.json["error"].startswith("strength ")) == (400, True)
