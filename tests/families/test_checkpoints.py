"""Opening a base: every way it can go wrong ends in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tenuto.families import hashing
from tenuto.families.base import Base
from tenuto.families.checkpoints import find_base, open_base
from tenuto.families.sd.family import StableDiffusion
from tenuto.families.shipped import BASES
from tenuto.families.survey import survey
from tenuto.words import Size, TenutoError
from tests.tiny import tiny_sd_folder, tiny_tokenizer

SQUARE = Size(16, 16)
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def opened(folder: Path) -> Base:
    return open_base(str(folder), device="cpu")


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tokenizer(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(folder)


def drop_weight(folder: Path, file: str) -> None:
    tensors = load_file(folder / file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, folder / file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f / "vae"), r"vae/ is missing"),
        (lambda f: (f / "model_index.json").unlink(), r"model_index.json: missing"),
        (lambda f: (f / "model_index.json").write_text("{"), r"not readable as JSON"),
        (lambda f: change_json(f / "model_index.json", _class_name="FluxPipeline"), r"a FluxPipeline; supported"),
        (lambda f: change_json(f / "model_index.json", text_encoder=[None, None]), r"the SDXL refiner"),
        (lambda f: (f / "scheduler/scheduler_config.json").unlink(), r"scheduler_config.json: missing"),
        (lambda f: change_json(f / "scheduler/scheduler_config.json", prediction_type="sample"), r"prediction_type"),
        (lambda f: (f / UNET).unlink(), r"no .safetensors weights"),
        (lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model.bin"), r"pickle weights.*tenuto convert"),
        (lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:-100]), r"cannot be loaded"),
        (lambda f: (f / TEXT).write_bytes(b"rubbish" * 99), r"cannot be loaded"),
        (lambda f: drop_weight(f, UNET), r"unet: 1 weights are missing"),
        (lambda f: drop_weight(f, TEXT), r"text_encoder: 1 weights are missing"),
        (lambda f: shutil.rmtree(f / "tokenizer"), r"tokenizer/ is missing"),
        (lambda f: [p.unlink() for p in (f / "tokenizer").iterdir()], r"vocab.json is missing"),
        (lambda f: change_tokenizer(f / "tokenizer"), r"tokenizer has \d+ words"),
    ],
)
def test_damaged_folders(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(TenutoError, match=message) as caught:
        opened(copy)
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value) or "scheduler_config" in str(caught.value)


@pytest.mark.parametrize("name", ["model.ckpt", "folder/model.pt", "x.bin"])
def test_pickles_are_refused(name: str) -> None:
    with pytest.raises(TenutoError, match=f"tenuto convert {name}"):
        find_base(name)


@pytest.mark.parametrize("name", ["nowhere", "./not/there", "/not/there", "a/b/c", "../x", "owner/"])
def test_missing_folders(name: str) -> None:
    with pytest.raises(TenutoError, match="no such checkpoint"):
        find_base(name)


def test_hub_ids_and_names() -> None:
    assert find_base("owner/name") == "owner/name"
    assert "pocket" in BASES


def test_inpainting_is_refused(tmp_path: Path) -> None:
    folder = tiny_sd_folder(tmp_path / "a")
    shutil.rmtree(folder / "vae")
    shutil.copytree(tiny_sd_folder(tmp_path / "b", channels=8) / "vae", folder / "vae")
    with pytest.raises(TenutoError, match="inpainting"):
        opened(folder)


def test_hash_is_of_the_content(copy: Path, tiny_base: Base) -> None:
    assert opened(copy).hash == tiny_base.hash
    change_json(copy / "unet/config.json", _diffusers_version="9.9", _name_or_path="elsewhere")
    assert opened(copy).hash == tiny_base.hash
    change_json(copy / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    assert opened(copy).hash != tiny_base.hash


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_hash_sees_every_part(copy: Path, tiny_base: Base, part: str) -> None:
    file = next((copy / part).glob("*.safetensors"))
    tensors = load_file(file)
    tensors[sorted(tensors)[0]].view(-1)[0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    assert opened(copy).hash != tiny_base.hash


def test_weights_are_hashed_once(copy: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Base) -> None:
    opened(copy)

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} is read through again")

    monkeypatch.setattr(hashing, "hash_file", refuse)
    assert opened(copy).hash == tiny_base.hash
    os.utime(copy / UNET, ns=(1, 1))
    with pytest.raises(TenutoError, match=r"unet/\S+ is read through again"):
        opened(copy)


def test_a_read_only_home_is_no_hindrance(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    monkeypatch.setenv("TENUTO_HOME", str(tmp_path / "home"))
    assert opened(copy).hash == opened(copy).hash


def test_names_with_and_without_text_model_are_read(copy: Path, tiny_base: Base) -> None:
    tensors = {f"text_model.{name}": value for name, value in load_file(copy / TEXT).items()}
    save_file(tensors, copy / TEXT, metadata={"format": "pt"})
    with torch.no_grad():
        assert torch.equal(opened(copy).encode_text(["a"], [SQUARE]).text, tiny_base.encode_text(["a"], [SQUARE]).text)


def test_a_tokenizer_in_the_old_layout(copy: Path, tiny_base: Base) -> None:
    table = json.loads((copy / "tokenizer/tokenizer.json").read_text())["model"]
    (copy / "tokenizer/tokenizer.json").unlink()
    (copy / "tokenizer/vocab.json").write_text(json.dumps(table["vocab"]))
    (copy / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    with torch.no_grad():
        for text in ("a Dog, (b:1.2)", "", "\u00e9"):
            ours = opened(copy).encode_text([text], [SQUARE]).text
            assert torch.equal(ours, tiny_base.encode_text([text], [SQUARE]).text)


def test_half_precision_variants_are_found(copy: Path, tiny_base: Base) -> None:
    for file in (
        *copy.glob("unet/*.safetensors"),
        *copy.glob("vae/*.safetensors"),
        *copy.glob("text_encoder/*.safetensors"),
    ):
        half = {name: value.half() for name, value in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"), metadata={"format": "pt"})
    assert opened(copy).hash == tiny_base.hash  # the full weights come first
    for file in copy.glob("*/*.safetensors"):
        if ".fp16" not in file.name:
            file.unlink()
    assert opened(copy).dtype == torch.float32


def test_another_autoencoder(tmp_path: Path, tiny_folder: Path, tiny_base: Base) -> None:
    other = tiny_sd_folder(tmp_path / "other", seed=5)
    base = open_base(str(tiny_folder), device="cpu", vae=str(other / "vae"))
    assert base.hash != tiny_base.hash
    pixels = torch.zeros(1, 3, 16, 16)
    assert torch.equal(base.encode_image(pixels), opened(other).encode_image(pixels))
    with pytest.raises(TenutoError, match="no such folder"):
        open_base(str(tiny_folder), device="cpu", vae=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("text_encoder/config.json", {"eos_token_id": 1e308}),
        ("vae/config.json", {"block_out_channels": 8}),
        ("unet/config.json", {"in_channels": None}),
        ("unet/config.json", {"sample_size": [8, 8, 8]}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**30}),
    ],
)
def test_damaged_configs(copy: Path, file: str, changes: dict[str, Any]) -> None:
    """Whatever the libraries raise of them, when it is opened and when only its sizes are read."""
    change_json(copy / file, **changes)
    with pytest.raises(TenutoError) as error:
        opened(copy)
    assert "\n" not in str(error.value)
    if not file.startswith("text"):
        with pytest.raises(TenutoError):
            survey(str(copy))


@pytest.mark.parametrize(
    ("file", "changes", "part"),
    [
        ("unet/config.json", {"freq_shift": 10**30}, "U-Net"),
        ("unet/config.json", {"mid_block_scale_factor": None}, "U-Net"),
        ("vae/config.json", {"act_fn": "relu", "norm_num_groups": 8, "scaling_factor": 0}, "autoencoder"),
        ("scheduler/scheduler_config.json", {"solver_type": "x"}, "scheduler"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": []}, "scheduler"),
    ],
)
def test_what_no_weights_shape_reveals(copy: Path, file: str, changes: dict[str, Any], part: str) -> None:
    """It is tried when it is opened: the first forward of hours of work does not find it."""
    change_json(copy / file, **changes)
    with pytest.raises(TenutoError, match=part) as error:
        opened(copy)
    assert "\n" not in str(error.value)
    assert str(copy) in str(error.value)


@pytest.mark.parametrize(("file", "part"), [(UNET, "U-Net"), (TEXT, "text encoder"), (VAE, "autoencoder")])
def test_weights_that_are_no_numbers(copy: Path, file: str, part: str) -> None:
    tensors = load_file(copy / file)
    name = next(key for key in sorted(tensors) if key.endswith("norm.weight") or key.endswith("norm_out.weight"))
    tensors[name][0] = float("nan")
    save_file(tensors, copy / file, metadata={"format": "pt"})
    with pytest.raises(TenutoError, match=f"its {part} answers NaN"):
        opened(copy)


def test_a_device_that_is_too_small_is_no_damage(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StableDiffusion, "predict", full)
    with pytest.raises(torch.OutOfMemoryError):
        opened(tiny_folder)
