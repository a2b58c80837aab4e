"""Parts that are not asked for leave the device; on a CPU their weights are let go and read again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.meter import bytes_of, tensors_of, weightless
from tenuto.families.resting import Component, Resting
from tenuto.words import TenutoError


def parts_of(base: Any) -> dict[str, nn.Module]:
    return {"vae": base.vae, "text": base.text_encoders["lora_te"]}


def held(module: nn.Module) -> int:
    """Bytes behind its weights."""
    return sum(weight.untyped_storage().nbytes() for weight in module.parameters())


def ask(base: Base) -> torch.Tensor:
    return base.encode_text(["a dog"], [base.geometry.native]).text


def test_on_a_cpu_the_weights_are_let_go_until_they_are_asked_for(tiny_base: Base) -> None:
    parts, answer = parts_of(tiny_base), ask(tiny_base)
    whole = {name: held(part) for name, part in parts.items()}
    tiny_base.rest(text=False)
    assert held(parts["vae"]) < whole["vae"] / 100
    assert held(parts["text"]) == whole["text"]
    tiny_base.rest()
    assert held(parts["text"]) < whole["text"] / 100
    assert all(bool(weight.isnan().all()) for weight in parts["text"].parameters()), "nobody can work with it unawares"
    assert torch.equal(ask(tiny_base), answer)
    assert held(parts["text"]) == whole["text"]
    tiny_base.decode(torch.zeros(1, 4, 8, 8))
    assert held(parts["vae"]) == whole["vae"]


def test_who_looks_at_the_weights_finds_them(tiny_base: Base) -> None:
    whole = bytes_of(tensors_of(tiny_base))
    tiny_base.rest()
    assert bytes_of(tensors_of(weightless(tiny_base))) == whole
    tiny_base.rest()
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=2, parts=("text_encoder",), dora=True))
    assert all(bool(value.isfinite().all()) for value in adapter.parameters()), "magnitudes are read off the weights"
    tiny_base.rest()
    assert bool(ask(tiny_base).isfinite().all()), "with an adapter on it a part stays"
    adapter.detach()


def test_what_was_changed_stays(tiny_base: Base) -> None:
    """A LoRA that was merged into the weights would be lost."""
    with torch.no_grad():
        next(tiny_base.text_encoders["lora_te"].parameters()).add_(0.1)
    changed = ask(tiny_base)
    tiny_base.rest()
    assert torch.equal(ask(tiny_base), changed)


def test_files_that_were_changed_meanwhile_are_not_read(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "base")
    base = open_base(str(folder), device="cpu")
    base.rest()
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(TenutoError, match="has changed since it was opened"):
        ask(base)


def test_a_disk_that_fails_meanwhile_is_told_in_one_line(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("Input/output error")

    tiny_base.rest()
    for own in tiny_base._encoders:  # type: ignore[attr-defined]
        monkeypatch.setattr(own, "_again", fail)
    with pytest.raises(TenutoError, match=r"model\.safetensors: cannot be read again \(Input/output error\)"):
        ask(tiny_base)


def test_from_another_device_it_goes_to_memory_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, moves = torch.device("meta"), list[str]()
    for place, expected in ((elsewhere, ["cpu"]), (torch.device("cpu"), ["meta"])):
        module = nn.Linear(2, 2, device=place)
        own = Resting(Component(module, lambda module=module: module, ()))
        monkeypatch.setattr(module, "to", lambda device: moves.append(str(device)))
        own.leave(elsewhere)
        own.fill()
        own.come(elsewhere)
        assert moves == expected, "only where it does not lie already"
        moves.clear()
