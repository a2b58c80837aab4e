"""LoRAs into and out of checkpoints that are single files, in the file's own names and number types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.checkpoints import extract, merge_into
from tenuto.adapters.onto import adapter_file, attach_file
from tenuto.adapters.surgery import Cut, relative_error
from tenuto.families.checkpoints import open_base
from tenuto.families.layouts import LAYOUTS
from tenuto.words import TenutoError
from tests.adapters.test_files import ask, uneven
from tests.single_files import ldm_tensors, tiny_layout, write_single_file
from tests.tiny import tiny_sd_folder, tiny_sdxl_folder


@pytest.fixture(params=["sd1", "sd2", "sdxl"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make = tiny_sdxl_folder if request.param == "sdxl" else tiny_sd_folder
    place = make(tmp_path / "folder", seed=3)
    monkeypatch.setitem(LAYOUTS, "tiny", tiny_layout(place, request.param))
    tensors = ldm_tensors(place, request.param)
    tensors |= {"model_ema.decay": torch.ones(1), "alphas_cumprod": torch.linspace(1, 0.1, 5, dtype=torch.float64)}
    header = {"modelspec.title": "tiny", "modelspec.hash_sha256": "of the old weights"}
    write_single_file(place.parent / "file.safetensors", tensors, header)
    half = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    write_single_file(place.parent / "half.safetensors", half)
    return place


def test_into_a_file_and_out_of_it_again(folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "file.safetensors", tmp_path / "merged.safetensors"
    base = open_base(str(source), device="cpu")
    adapter = uneven(base)
    file, answer = adapter_file(adapter, tmp_path), ask(base)
    adapter.detach()

    assert merge_into([file], [1.0], source, target) == len(file.layers)
    torch.testing.assert_close(ask(open_base(str(target), device="cpu")), answer, rtol=1e-4, atol=1e-5)
    before, after = load_file(source), load_file(target)
    assert {name: value.dtype for name, value in before.items()} == {name: v.dtype for name, v in after.items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("model.diffusion_model.", "cond_stage", "conditioner")) for name in changed)
    with safe_open(target, framework="pt") as opened:
        header = opened.metadata()
    assert header["modelspec.title"] == "tiny"
    assert "modelspec.hash_sha256" not in header
    assert json.loads(header["tenuto_merged_from"])[0]["weight"] == 1.0

    for begin in (source, folder):  # a file and a folder can be held against each other
        out, result = extract(begin, target, Cut(4))
        assert set(out.layers) == set(file.layers)
        assert relative_error(result.changes.values()) < 1e-4
        assert result.left == {}
    attached = attach_file(base, out)
    assert isinstance(attached, Adapter)
    torch.testing.assert_close(ask(base), answer, rtol=1e-3, atol=1e-4)


def test_half_precision_stays(folder: Path, tmp_path: Path) -> None:
    base = open_base(str(tmp_path / "half.safetensors"), device="cpu")
    file = adapter_file(adapter := uneven(base), tmp_path)
    adapter.detach()
    merge_into([file], [0.5], tmp_path / "half.safetensors", tmp_path / "out.safetensors")
    before, after = load_file(tmp_path / "half.safetensors"), load_file(tmp_path / "out.safetensors")
    assert {name: value.dtype for name, value in before.items()} == {name: v.dtype for name, v in after.items()}


def test_mistakes_are_told_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    file = adapter_file(adapter := uneven(open_base(str(folder), device="cpu")), tmp_path)
    adapter.detach()
    source = tmp_path / "file.safetensors"
    with pytest.raises(TenutoError, match=r"end --out in \.safetensors"):
        merge_into([file], [1.0], source, tmp_path / "new")
    with pytest.raises(TenutoError, match="do not differ"):
        extract(folder, source, Cut(4))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(TenutoError, match="cut off"):
        extract(source, cut, Cut(4))
    tensors = load_file(source)
    tensors.pop(next(name for name in tensors if name.endswith("in_layers.2.weight")))
    lacking = write_single_file(tmp_path / "lacking.safetensors", tensors)
    with pytest.raises(TenutoError, match=r"1 of .* weights of its unet are missing"):
        merge_into([file], [1.0], lacking, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()
