"""Every kind of adapter: trains, scales, merges, and comes back from its file as what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.checkpoints import merge_into
from tenuto.adapters.files import parse_lora, read_lora, write_lora
from tenuto.adapters.kinds import BLOCKS, KINDS
from tenuto.adapters.layers import Layer
from tenuto.adapters.names import kohya_name
from tenuto.adapters.onto import adapter_file, attach_file, save_lora
from tenuto.adapters.rotation import boft_size, oft_size, rotations, turned
from tenuto.adapters.tuners.catalogue import BY_FILE, TUNERS
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.words import TenutoError
from tests.adapters.test_adapter import ALL, ask

SOME = ("lora_unet.mid_block.*", "lora_unet.up_blocks.0.*", "lora_te.*.0.*")
"""Layers of every part, and not too many."""
OTHERS = [kind for kind in TUNERS if kind != "lora"]


def shaken(base: Base, kind: str, **settings: Any) -> Adapter:
    """Of this kind, with something in every parameter."""
    adapter = Adapter.attach(base, AdapterSettings(**{"kind": kind, "rank": 4, "parts": ALL, "only": SOME, **settings}))
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return adapter


def test_every_kind_of_file_but_foreign_ones_has_a_tuner() -> None:
    assert BY_FILE.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", TUNERS)
def test_a_new_one_changes_nothing_and_every_parameter_learns(kind: str, tiny_base: Base) -> None:
    answer = ask(tiny_base)
    adapter = Adapter.attach(tiny_base, AdapterSettings(kind=kind, rank=4, parts=ALL, only=SOME), seed=3)
    torch.testing.assert_close(ask(tiny_base), answer, rtol=0, atol=0)
    other = {name: value.clone() for name, value in adapter.state().items()}
    adapter.detach()
    assert torch.equal(ask(tiny_base), answer)
    adapter = shaken(tiny_base, kind)
    for layer in adapter.layers().values():
        base = layer.get_base_layer()
        wide = isinstance(base, nn.Conv2d)
        x = torch.randn(2, *((base.in_channels, 5, 5) if wide else (3, base.in_features)))
        layer(x).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in adapter.parameters())
    assert not any(parameter.requires_grad for parameter in _base_parameters(tiny_base, adapter))
    adapter.detach()
    again = Adapter.attach(tiny_base, AdapterSettings(kind=kind, rank=4, parts=ALL, only=SOME), seed=3).state()
    assert all(torch.equal(again[name], value) for name, value in other.items())


def _base_parameters(base: Base, adapter: Adapter) -> list[nn.Parameter]:
    own = {id(parameter) for parameter in adapter.parameters()}
    return [p for module in base.modules().values() for p in module.parameters() if id(p) not in own]


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize(
    ("strength", "which"), [(0.0, "tiny_base"), (0.6, "tiny_base"), (2.0, "tiny_base"), (2.0, "tiny_fp8_base")]
)
def test_strength_scales_the_change_merged_or_not(
    kind: str, strength: float, which: str, request: pytest.FixtureRequest
) -> None:
    base: Base = request.getfixturevalue(which)
    answer = ask(base)
    adapter = shaken(base, kind)
    changes = {name: adapter.change(name) for name in adapter.layers()}
    with adapter.strength(strength):
        wanted = ask(base)
        assert all(torch.allclose(adapter.change(n), strength * c, atol=1e-6) for n, c in changes.items())
    with adapter.merged(strength):
        torch.testing.assert_close(ask(base), wanted, rtol=1e-3, atol=1e-4)
    with adapter.disabled():
        assert torch.equal(ask(base), answer)
    adapter.detach()
    assert torch.equal(ask(base), answer)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_comes_back_bit_for_bit_and_is_trained_on(kind: str, tiny_base: Base, tmp_path: Path) -> None:
    adapter = shaken(tiny_base, kind)
    answer, state = ask(tiny_base), adapter.state()
    save_lora(adapter, tmp_path / "a.safetensors", {"tenuto_seed": "3"})
    adapter.detach()
    file = read_lora(tmp_path / "a.safetensors")
    assert set(file.kinds) == {adapter.tuner.file_kind}
    again = attach_file(tiny_base, file, to_train=True)
    assert torch.equal(ask(tiny_base), answer)
    assert all(torch.equal(again.state()[name], value) for name, value in state.items())
    assert again.state().keys() == state.keys()
    with again.strength(0.5):
        half = ask(tiny_base)
    save_lora(again, tmp_path / "b.safetensors", {"tenuto_seed": "3"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again.detach()
    third = attach_file(tiny_base, read_lora(tmp_path / "b.safetensors"))
    with third.strength(0.5):
        assert torch.equal(ask(tiny_base), half)


@pytest.mark.parametrize("kind", OTHERS)
def test_it_is_merged_into_a_checkpoint(kind: str, tiny_base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    adapter = shaken(tiny_base, kind)
    file = adapter_file(adapter, tmp_path / "a.safetensors")
    with adapter.strength(0.7):
        wanted = ask(tiny_base)
    merge_into([file], [0.7], tiny_folder, tmp_path / "merged")
    torch.testing.assert_close(ask(open_base(str(tmp_path / "merged"), device="cpu")), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_products_are_the_loras_that_they_are_equal_to(kind: str, tiny_base: Base, tmp_path: Path) -> None:
    adapter = shaken(tiny_base, kind)
    file = adapter_file(adapter, tmp_path / "a.safetensors")
    for name in adapter.layers():
        own = file.lora(name)
        torch.testing.assert_close(own.delta().reshape(adapter.change(name).shape), adapter.change(name))


@pytest.mark.parametrize("kind", ["oft", "boft"])
def test_rotations_are_no_lora_and_say_so(kind: str, tiny_base: Base, tmp_path: Path) -> None:
    file = adapter_file(shaken(tiny_base, kind), tmp_path / "a.safetensors")
    name = next(iter(file.layers))
    with pytest.raises(TenutoError, match=r"a\.safetensors.*no LoRA without one.*--into"):
        file.lora(name)
    with pytest.raises(TenutoError, match="none of its layers can be written for diffusers"):
        write_lora(file, tmp_path / "b.safetensors", "diffusers")


@pytest.mark.parametrize("kind", ["oft", "boft"])
def test_outputs_are_turned_and_keep_their_lengths(kind: str, tiny_base: Base) -> None:
    adapter = shaken(tiny_base, kind)
    for name, layer in adapter.layers().items():
        before = layer.get_base_layer().weight.detach().flatten(1)
        after = before + adapter.change(name).flatten(1)
        torch.testing.assert_close(after.T @ after, before.T @ before, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(after, before)


def test_a_rotation_is_cayleys() -> None:
    blocks = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    skew, eye = blocks - blocks.transpose(1, 2), torch.eye(4)
    torch.testing.assert_close(rotations(blocks), (eye + skew) @ torch.linalg.inv(eye - skew), rtol=1e-4, atol=1e-5)


def test_a_butterfly_lets_every_output_reach_every_other() -> None:
    blocks = torch.randn(4, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert bool((turned(torch.eye(32), blocks).abs() > 1e-9).all())
    straight = turned(torch.eye(32), blocks[0])
    assert int((straight.abs() > 1e-9).sum()) == 8 * 4 * 4


def test_a_files_limit_of_the_rotation_is_kept() -> None:
    """LyCORIS' constraint: |Q| is at most alpha times the outputs."""
    blocks, weight = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.eye(8)
    free, held = (Layer({BLOCKS: blocks, "alpha": torch.tensor(alpha)}) for alpha in (0.0, 0.05))
    torch.testing.assert_close(free.moved(weight), turned(weight, blocks))
    norm = (blocks - blocks.transpose(1, 2)).norm()
    torch.testing.assert_close(held.moved(weight), turned(weight, blocks * 0.4 / norm))


@pytest.mark.parametrize(
    ("outputs", "most", "oft", "boft"),
    [(320, 16, 16, 10), (320, 8, 8, None), (1280, 16, 16, 10), (768, 16, 16, 12), (64, 16, 8, 16), (7, 4, None, None)],
)
def test_how_many_outputs_are_turned_together(outputs: int, most: int, oft: int | None, boft: int | None) -> None:
    assert (oft_size(outputs, most), boft_size(outputs, most)) == (oft, boft)


def test_files_of_other_programs_may_group_otherwise(tiny_base: Base, tmp_path: Path) -> None:
    """sd-scripts chooses the number of groups, not their size."""
    adapter = Adapter.attach(tiny_base, AdapterSettings(kind="oft", rank=4, only=("*.mid_block.*.attn1.to_q",)))
    name, layer = next(iter(adapter.layers().items()))
    outputs = layer.get_base_layer().weight.shape[0]
    adapter.detach()
    blocks = torch.randn(1, outputs, outputs, generator=torch.Generator().manual_seed(0))
    file = parse_lora(tmp_path, {f"{kohya_name(name)}.oft_blocks": blocks}, {})
    adapter = attach_file(tiny_base, file)
    before = layer.get_base_layer().weight.detach()
    torch.testing.assert_close(before + adapter.change(name), turned(before, blocks), rtol=1e-4, atol=1e-5)


def test_too_small_groups_are_refused_by_layer(tiny_base: Base) -> None:
    answer = ask(tiny_base)
    with pytest.raises(TenutoError, match=r"training\.adapter\.rank = 1 .*outputs; raise it"):
        Adapter.attach(tiny_base, AdapterSettings(kind="oft", rank=1))
    assert torch.equal(ask(tiny_base), answer)


@pytest.mark.parametrize(
    "settings",
    [{"dora": True, "kind": "loha"}, {"alpha": 2, "kind": "oft"}, {"factor": 4}, {"factor": 4, "kind": "loha"}],
)
def test_settings_of_another_kind_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="is not for kind"):
        AdapterSettings(**settings)


def test_the_factor_decides_how_large_a_lokr_is(tiny_base: Base) -> None:
    sizes = {}
    for factor in (1, 2):
        adapter = Adapter.attach(tiny_base, AdapterSettings(kind="lokr", rank=4, factor=factor))
        shapes = {tuple(value.shape) for name, value in adapter.state().items() if name.endswith("lokr_w1")}
        assert shapes == {(factor, factor)}
        sizes[factor] = sum(parameter.numel() for parameter in adapter.parameters())
        adapter.detach()
    assert sizes[1] > sizes[2]


@pytest.mark.parametrize("kind", OTHERS)
def test_the_names_are_lycoris(kind: str, tiny_base: Base, tmp_path: Path) -> None:
    save_lora(shaken(tiny_base, kind), tmp_path / "a.safetensors", {}, torch.float16)
    fields = {key.partition(".")[2] for key in load_file(tmp_path / "a.safetensors")}
    wanted = {
        "loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
        "lokr": {"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b"},
        "oft": {"oft_blocks"},
        "boft": {"oft_blocks"},
    }
    assert fields <= {"alpha", *wanted[kind]}
    header = read_lora(tmp_path / "a.safetensors").metadata
    algorithm = {"oft": "diag-oft"}.get(kind, kind)
    assert header["ss_network_module"] == "lycoris.kohya"
    assert f'"algo": "{algorithm}"' in header["ss_network_args"]


@pytest.mark.parametrize("kind", TUNERS)
def test_the_update_is_the_change(kind: str, tiny_base: Base) -> None:
    """What penalties look at is what is done."""
    adapter = shaken(tiny_base, kind)
    for name, (a, b, s) in adapter.updates():
        whole: Tensor = s * (a if b is None else b @ a)
        torch.testing.assert_close(whole, adapter.change(name).flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind, tuner in TUNERS.items() if "product" in tuner.traits])
def test_a_product_shrinks_in_its_direction(kind: str, tiny_base: Base) -> None:
    adapter = shaken(tiny_base, kind)
    for name in adapter.layers():
        before = adapter.change(name)
        adapter.shrink(name, 0.3)
        torch.testing.assert_close(adapter.change(name), 0.3 * before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_trained_is_float32_whatever_the_base_is(kind: str, dtype: torch.dtype, tiny_folder: Path) -> None:
    base = open_base(str(tiny_folder), device="cpu", dtype=dtype)
    whole = open_base(str(tiny_folder), device="cpu")
    half, full = shaken(base, kind), shaken(whole, kind)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    name = next(name for name in half.layers() if name.endswith("attn1.to_q"))
    x = torch.randn(2, 3, half.layers()[name].get_base_layer().in_features)
    answer: Tensor = half.layers()[name](x.to(dtype))
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.float(), full.layers()[name](x), rtol=0.05, atol=0.05)
