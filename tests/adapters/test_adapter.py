"""An adapter leaves no trace, and its files are what other programs load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import attach_file, save_lora
from tenuto.families.base import Base
from tenuto.words import Size, TenutoError

ALL = ("attention", "feed_forward", "convolution", "text_encoder")


def ask(base: Base) -> torch.Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    cond = base.encode_text(["a cat", "b"], [Size(16, 16)] * 2)
    return base.predict(x, torch.tensor([20, 700]), cond).detach()


def fail(why: str) -> None:
    raise RuntimeError(why)


def shaken(base: Base, **settings: object) -> Adapter:
    adapter = Adapter.attach(base, AdapterSettings(**{"rank": 4, "parts": ALL, **settings}))
    torch.manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data.normal_(std=0.1)
    return adapter


def test_attach_then_detach_leaves_every_weight_as_it_was(tiny_base: Base) -> None:
    before = {n: v.clone() for n, v in tiny_base.denoiser.state_dict().items()}
    answer = ask(tiny_base)
    shaken(tiny_base).detach()
    after = tiny_base.denoiser.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert torch.equal(ask(tiny_base), answer)


def test_a_new_adapter_gives_the_bases_answer(tiny_base: Base) -> None:
    answer = ask(tiny_base)
    Adapter.attach(tiny_base, AdapterSettings(rank=4, parts=ALL))
    assert torch.equal(ask(tiny_base), answer)


def test_disabled_is_the_base_and_restores_also_after_an_error(tiny_base: Base) -> None:
    answer = ask(tiny_base)
    adapter = shaken(tiny_base)
    moved = ask(tiny_base)
    with adapter.strength(0.5), adapter.disabled():
        assert torch.equal(ask(tiny_base), answer)
    with pytest.raises(RuntimeError, match="not a strength"), adapter.strength(0.5), adapter.disabled():
        fail("not a strength")
    assert torch.equal(ask(tiny_base), moved)
    assert not torch.equal(moved, answer)


def test_strength_scales_the_update(tiny_base: Base) -> None:
    adapter = shaken(tiny_base, parts=("attention",), alpha=2.0)
    layer = next(iter(adapter.layers().values()))
    x = torch.randn(3, layer.get_base_layer().in_features)
    full = layer(x) - layer.get_base_layer()(x)
    with adapter.strength(0.5):
        torch.testing.assert_close(layer(x) - layer.get_base_layer()(x), full / 2)
    a, b = layer.lora_A["tenuto"].weight, layer.lora_B["tenuto"].weight
    torch.testing.assert_close(full, x @ (b @ a).T * 2 / 4)


@pytest.mark.parametrize("which", ["tiny_base", "tiny_fp8_base"])
@pytest.mark.parametrize("dora", [False, True])
def test_merged_answers_like_strength_and_restores_every_weight(
    dora: bool, which: str, request: pytest.FixtureRequest
) -> None:
    base: Base = request.getfixturevalue(which)
    answer = ask(base)
    adapter = shaken(base, dora=dora)
    with adapter.strength(0.7):
        wanted = ask(base)
    with adapter.merged(0.7):
        torch.testing.assert_close(ask(base), wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(RuntimeError, match="inside"), adapter.merged(0.7):
        fail("inside")
    adapter.detach()
    assert torch.equal(ask(base), answer)


@pytest.mark.parametrize("alpha", [None, 1.0])
def test_a_file_comes_back_bit_for_bit(alpha: float | None, tiny_base: Base, tmp_path: Path) -> None:
    adapter = shaken(tiny_base, alpha=alpha)
    answer, state = ask(tiny_base), adapter.state()
    save_lora(adapter, tmp_path / "a.safetensors", {"tenuto_seed": "3"})
    adapter.detach()
    file = read_lora(tmp_path / "a.safetensors")
    again = attach_file(tiny_base, file)
    assert torch.equal(ask(tiny_base), answer)
    assert all(torch.equal(again.state()[name], value) for name, value in state.items())
    assert file.metadata["tenuto_seed"] == "3"
    assert file.metadata["ss_network_dim"] == "4"


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_diffusers_loads_the_file(alpha: float | None, tiny_base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    adapter = shaken(tiny_base, parts=("attention", "text_encoder"), alpha=alpha)
    answer = ask(tiny_base)
    save_lora(adapter, tmp_path / "a.safetensors", {})
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None, local_files_only=True)
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    adapter.detach()
    tiny_base.denoiser, tiny_base.text_encoders["lora_te"] = pipe.unet, pipe.text_encoder
    torch.testing.assert_close(ask(tiny_base), answer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x10\0\0\0\0\0\0\0{}"])
def test_damaged_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(TenutoError, match=r"bad\.safetensors"):
        read_lora(path)


def test_a_pickle_is_refused_and_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TenutoError, match="pickle"):
        read_lora(tmp_path / "x.pt")
    with pytest.raises(TenutoError, match="no such file"):
        read_lora(tmp_path / "x.safetensors")


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_dora_starts_as_the_base_and_its_whole_change_is_scaled(strength: float, tiny_base: Base) -> None:
    answer = ask(tiny_base)
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=2, parts=ALL, dora=True))
    torch.testing.assert_close(ask(tiny_base), answer, rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data += torch.randn(parameter.shape) * 0.1
    name, layer = next((n, l) for n, l in adapter.layers().items() if n.endswith("conv1"))  # noqa: E741
    x = torch.randn(1, layer.get_base_layer().in_channels, 5, 5)
    change = torch.nn.functional.conv2d(x, adapter.change(name), padding=1)
    with adapter.strength(strength):
        torch.testing.assert_close(layer(x) - layer.get_base_layer()(x), strength * change, rtol=1e-4, atol=1e-5)
    with adapter.disabled():
        assert torch.equal(ask(tiny_base), answer)
    adapter.detach()
    assert torch.equal(ask(tiny_base), answer)
