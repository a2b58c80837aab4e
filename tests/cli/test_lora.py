"""`tenuto lora …` as a person types it: what is printed, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tenuto.adapters.files import write_lora
from tenuto.adapters.onto import adapter_file
from tenuto.families.base import Base
from tests.adapters.test_files import uneven
from tests.cli.test_commands import call


@pytest.fixture
def lora(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    adapter = uneven(tiny_base)
    write_lora(adapter_file(adapter, tmp_path), tmp_path / "a.safetensors")
    adapter.detach()
    monkeypatch.chdir(tmp_path)
    return "a.safetensors"


def told(*words: str) -> dict[str, object]:
    status, out, errors = call("lora", *words, "--json")
    assert status == 0, errors
    facts: dict[str, object] = json.loads(out)
    return facts


def test_a_file_goes_through_every_command(lora: str, tiny_folder: Path) -> None:
    assert told("info", lora)["naming"] == "kohya"
    assert told("convert", lora, "-o", "b.safetensors", "--to", "diffusers")["not_carried"] == []
    assert told("convert", "b.safetensors", "-o", "c.safetensors", "--to", "kohya")["not_carried"] == []
    one, two = load_file(lora), load_file("c.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert told("resize", "b.safetensors", "-o", "d.safetensors", "--rank", "2")["ranks"] == [2, 2]
    told("merge", lora, "d.safetensors", "-w", "1", "-w", "-1", "-o", "e.safetensors")
    told("merge", lora, lora, "--rank", "4", "-o", "f.safetensors")
    told("merge", lora, "--into", str(tiny_folder), "-o", "tuned")
    facts = told("extract", str(tiny_folder), "tuned", "-o", "g.safetensors", "--error", "0.2")
    assert isinstance(facts["error"], float)
    assert 0 < facts["error"] <= 0.2


def test_info_for_people(lora: str) -> None:
    status, out, _ = call("lora", "info", lora)
    assert status == 0
    for part in ("rank 4 alpha 3", "rank 2 alpha 1", "kohya names", "text_encoder", "AutoV3", "ss_network_dim = 4"):
        assert part in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("info", "nowhere.safetensors"), "no such file"),
        (("info", "page.safetensors"), "web page"),
        (("info", "."), "a folder"),
        (("info", "x.ckpt"), "tenuto convert x.ckpt"),
        (("resize", "a.safetensors", "-o", "a.safetensors", "--rank", "2"), "nothing is overwritten"),
        (("resize", "a.safetensors", "-o", "b.safetensors"), "--rank 32"),
        (("merge", "a.safetensors", "-w", "1", "-w", "2", "-o", "b.safetensors"), "2 weights for 1"),
        (("merge", "a.safetensors", "--into", ".", "-o", "b"), "no unet"),
        (("extract", ".", ".", "-o", "b.safetensors", "--rank", "2"), "no unet"),
        (("extract", ".", ".", "-o", "b.safetensors", "--rank", "2", "--part", "legs"), "feed_forward"),
        (("convert", "a.safetensors", "-o", "a.safetensors/b", "--to", "kohya"), "cannot be written"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], says: str, lora: str) -> None:
    Path("page.safetensors").write_text("<html>Log in</html>")
    before = sorted(Path().iterdir())
    status, _, errors = call("lora", *words)
    assert status == 1
    assert says in errors
    assert len(errors.strip().splitlines()) == 1
    assert sorted(Path().iterdir()) == before
