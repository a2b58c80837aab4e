"""Pickles become safetensors without running anything; what wants to run is refused in one line."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tenuto.adapters.files import read_lora
from tenuto.pickles import convert, read_pickle
from tenuto.words import TenutoError
from tests.adapters.made_up import random_lora
from tests.cli.test_commands import call

LORA = {f"lora_unet_conv_in.{f}": t for f, t in random_lora((8, 4, 3, 3)).layer(torch.float16).tensors.items()}


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/tenuto-was-here",)


def test_a_lora_and_a_checkpoint_become_safetensors(tmp_path: Path) -> None:
    torch.save(LORA, tmp_path / "a.pt")
    (made,) = convert(tmp_path / "a.pt")
    assert (made.target, made.left) == (tmp_path / "a.safetensors", ())
    assert read_lora(made.target).kinds == {"LoRA": 1}
    both = torch.ones(3, 3)
    whole = {"state_dict": {"a": both, "b": both.T, "c": {"d": both[0], "n": 1}}, "epoch": 3, "optimizer": [both]}
    torch.save(whole, tmp_path / "b.ckpt")
    (made,) = convert(tmp_path / "b.ckpt", tmp_path / "new.safetensors")
    assert set(load_file(made.target)) == {"a", "b", "c.d"}
    assert made.left == ("epoch", "optimizer", "c.n")


def test_what_wants_to_run_is_refused_and_does_not(tmp_path: Path) -> None:
    mark = Path("/tmp/tenuto-was-here")
    mark.unlink(missing_ok=True)
    torch.save({"state_dict": LORA, "more": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    status, _, errors = call("convert", str(tmp_path / "evil.ckpt"))
    assert status == 1
    assert len(errors.strip().splitlines()) == 1
    with pytest.raises(TenutoError) as error:
        read_pickle(tmp_path / "bare.bin")
    for told in (errors, str(error.value)):
        assert "wants to run code (posix.system)" in told
    assert not mark.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.bin", "evil.ckpt"]


def test_lightnings_old_callback_is_read_and_nothing_of_it_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for parent in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    torch.save({"state_dict": LORA, "callbacks": {module.ModelCheckpoint: {"best": 1.0}}}, tmp_path / "sd.ckpt")
    tensors, left = read_pickle(tmp_path / "sd.ckpt")
    assert (set(tensors), left) == (set(LORA), ["callbacks"])


def test_a_folder_is_converted_in_place_under_the_libraries_names(tmp_path: Path) -> None:
    for part, name in (("unet", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.fp16.bin")):
        (tmp_path / part).mkdir()
        torch.save({"weight": torch.ones(2)}, tmp_path / part / name)
    made = convert(tmp_path)
    assert [own.target.name for own in made] == ["model.fp16.safetensors", "diffusion_pytorch_model.safetensors"]
    with pytest.raises(TenutoError, match="nothing to do"):
        convert(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04", b"<html>", b"\x80\x02."])
def test_what_is_no_pickle_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(TenutoError, match=r"x\.pt: ") as error:
        read_pickle(tmp_path / "x.pt")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    torch.save(LORA, tmp_path / "a.pt")
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(TenutoError, match="nothing is overwritten"):
        convert(tmp_path / "a.pt")
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"
    with pytest.raises(TenutoError, match="no such file"):
        convert(tmp_path / "b.pt")
    with pytest.raises(TenutoError, match="already"):
        convert(tmp_path / "a.safetensors")
