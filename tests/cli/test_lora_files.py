"""LoRA files in a project: training goes on from any naming, and what is written says how it was made."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tenuto.adapters.files import read_lora, write_lora
from tenuto.adapters.names import Naming
from tenuto.adapters.onto import adapter_file
from tenuto.evaluation.bench import Bench, sampler_of
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.sampling import SamplerSettings
from tests.adapters.test_adapter import ask, shaken
from tests.adapters.test_files import uneven
from tests.cli.test_commands import call, project

__all__ = ["project"]


def made(folder: Path, path: Path, naming: Naming) -> None:
    adapter = shaken(open_base(str(folder), device="cpu"), parts=("attention", "convolution"), rank=3, alpha=1.0)
    write_lora(adapter_file(adapter, path), path, naming)


def test_training_goes_on_from_either_naming_and_says_how(project: Path, tiny_folder: Path) -> None:
    ends = []
    for naming in ("kohya", "diffusers"):
        made(tiny_folder, project.with_name(f"{naming}.safetensors"), naming)
        status, out, errors = call(
            "train", str(project), "--json", "--out", naming, "--set", "arms.plain=false",
            "--set", f"training.start_from={naming}.safetensors", "--set", "training.sample_every=0",
        )  # fmt: skip
        assert status == 0, errors
        ends.append(Path(json.loads(out.strip().splitlines()[-1])["loras"][0]))
    one, two = (load_file(path) for path in ends)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    header = read_lora(ends[0]).metadata
    assert header["ss_network_dim"] == "3"
    assert json.loads(header["ss_tag_frequency"])["pictures"]["1girl"] == 3
    assert json.loads(header["ss_dataset_dirs"]) == {"pictures": {"n_repeats": 1, "img_count": 3}}
    assert int(header["ss_num_reg_images"]) > 0
    assert tomllib.loads(header["tenuto_project"])["concepts"][0]["images"] == "pictures"
    assert header["modelspec.trigger_phrase"] == "zxq eyes"
    assert str(project.parent) not in " ".join(header.values())


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("naming", ["kohya", "diffusers"])
def test_a_second_lora_of_any_naming_is_worn_as_attached(
    naming: Naming, dora: bool, tiny_base: Base, tmp_path: Path
) -> None:
    adapter = uneven(tiny_base, dora)
    answer, path = ask(tiny_base), tmp_path / "second.safetensors"
    write_lora(adapter_file(adapter, path), path, naming)
    adapter.detach()
    plain = ask(tiny_base)
    with Bench(tiny_base, sampler_of(tiny_base, SamplerSettings(steps=1))).wearing(None, path):
        torch.testing.assert_close(ask(tiny_base), answer, rtol=1e-4, atol=1e-5)
    assert torch.equal(ask(tiny_base), plain)


@pytest.mark.parametrize("setting", ["training.start_from", "comparison.second_lora"])
def test_a_lora_of_another_base_is_refused_before_long_work(setting: str, project: Path) -> None:
    from safetensors.torch import save_file

    name = "lora_unet_mid_block_attentions_0_proj_in"
    wide = {f"{name}.lora_down.weight": torch.ones(2, 640, 1, 1), f"{name}.lora_up.weight": torch.ones(640, 2, 1, 1)}
    save_file(wide, project.with_name("other.safetensors"))
    status, _, errors = call("audit", str(project), "--set", f"{setting}=other.safetensors")
    assert status == 1
    assert "another base" in errors.strip().splitlines()[-1]
