"""Weights of few bits: the same answers and gradients up to rounding, the same names, and never a wide copy kept.

What else a base in 8 bits promises: test_contract.py.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base
from tenuto.families.checkpoints import open_base
from tenuto.families.meter import bytes_of, tensors_of
from tenuto.families.narrow import (
    FLOAT8,
    Float8,
    NarrowConv2d,
    NarrowLinear,
    compute_in_float32,
    lacks,
    lie_in_float8,
    to_write,
)
from tenuto.words import TenutoError
from tests.families.test_contract import PARTS, ask, attached, gradients

LAYERS = [
    nn.Linear(12, 7),
    nn.Linear(12, 7, bias=False),
    nn.Conv2d(12, 8, 3, padding=1),
    nn.Conv2d(12, 8, 3, stride=2, padding=1, bias=False),
    nn.Conv2d(12, 8, 1, groups=4),
    nn.Conv2d(12, 8, 3, padding=2, dilation=2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_answers_as_before(layer: nn.Module, dtype: torch.dtype) -> None:
    shape = (2, 5, 12) if isinstance(layer, nn.Linear) else (2, 12, 9, 7)
    plain, x = layer.to(torch.float32), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    own = type(layer)(**{name: getattr(layer, name) for name in arguments(layer)}, bias=layer.bias is not None)
    own.load_state_dict(plain.state_dict())
    own.to(dtype).requires_grad_(False)
    compute_in_float32(own)
    assert type(own) in (NarrowLinear, NarrowConv2d)
    a, b = x.clone().requires_grad_(), x.to(dtype).requires_grad_()
    expected, answer = plain(a), own(b)
    assert answer.dtype == dtype
    expected.square().sum().backward()
    answer.float().square().sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(answer.float(), expected, **near)
    torch.testing.assert_close(b.grad.float(), a.grad, **near)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_in_8_bits(layer: nn.Module) -> None:
    """It answers, forwards and back, as a layer of its rounded weights does; none is off by more than a sixteenth."""
    shape = (2, 5, 12) if isinstance(layer, nn.Linear) else (2, 12, 9, 7)
    own = in_8_bits(layer)
    assert isinstance(own, Float8)
    assert own.bits.dtype == FLOAT8
    assert not [name for name, _ in own.named_parameters() if name == "weight"]
    off = (own.weight - layer.weight).abs()
    largest = layer.weight.abs().flatten(1).amax(1).reshape(-1, *[1] * (layer.weight.ndim - 1))
    assert bool((off <= layer.weight.abs() / 16 + largest / 2**15).all())
    rounded = copy.deepcopy(layer)
    rounded.weight.data = own.weight.clone()
    a, b = (torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
    expected, answer = rounded(a), own(b)
    expected.square().sum().backward()
    answer.square().sum().backward()
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(b.grad, a.grad)


def in_8_bits(layer: nn.Module) -> nn.Module:
    """A copy, as if it stood in a U-Net."""
    unet = nn.ModuleDict({"mid_block": nn.Sequential(copy.deepcopy(layer)).requires_grad_(False)})
    lie_in_float8(unet)
    return unet.get_submodule("mid_block.0")


def test_8_bits_lie_whole_while_they_are_changed() -> None:
    own, x = in_8_bits(nn.Linear(12, 7)), torch.ones(1, 12)
    assert isinstance(own, Float8)
    before, bits = own(x), own.bits.clone()
    with to_write(own) as weight:
        weight.add_(1e-4)  # far less than a step of 8 bits
        torch.testing.assert_close(own(x), before + 12e-4)
    assert torch.equal(own(x), before)
    assert torch.equal(own.bits, bits)


def test_no_wide_copy_waits_for_the_backward_pass() -> None:
    own, held = in_8_bits(nn.Linear(12, 7)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: held.append(kept.dtype) or kept, lambda kept: kept):
        own(torch.ones(1, 12, requires_grad=True))
    assert sorted(map(str, held)) == sorted(map(str, (FLOAT8, torch.float32)))  # the bits and the scales


def test_a_base_in_8_bits_is_another_base(tiny_base: Base, tiny_fp8_base: Base) -> None:
    """Near the whole one, and with prior images of its own."""
    plain, coarse = ask(tiny_base), ask(tiny_fp8_base)
    apart = float((coarse - plain).square().mean() / plain.square().mean())
    assert 0 < apart < 0.01
    assert tiny_fp8_base.hash != tiny_base.hash
    assert tiny_fp8_base.coarse
    assert not tiny_base.coarse
    whole, narrow = (bytes_of(tensors_of(base)) for base in (tiny_base, tiny_fp8_base))
    assert narrow < whole


def test_a_device_without_such_numbers_is_told_of(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenuto.families.narrow.FLOAT8", torch.qint8)  # which no plain tensor becomes
    with pytest.raises(TenutoError, match=r"base\.fp8: torch has no such numbers on cpu; leave it out"):
        open_base(str(tiny_folder), device="cpu", fp8=True)


def arguments(layer: nn.Module) -> tuple[str, ...]:
    if isinstance(layer, nn.Linear):
        return ("in_features", "out_features")
    return ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")


def test_trained_layers_are_left_to_the_library() -> None:
    layer = nn.Linear(3, 3)
    compute_in_float32(layer)
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is not None


def test_it_is_used_where_bfloat16_is_slow_only() -> None:
    assert not lacks(torch.device("cpu"), torch.float32)
    assert not lacks(torch.device("cuda"), torch.bfloat16)


def test_a_whole_base(tiny_xl_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for slow in (True, False):
        monkeypatch.setattr("tenuto.families.latent.lacks", lambda device, dtype, slow=slow: slow)
        base = open_base(str(tiny_xl_folder), device="cpu", dtype=torch.bfloat16)
        kinds = {type(layer) for module in base.modules().values() for layer in module.modules()}
        assert (NarrowLinear in kinds) == (NarrowConv2d in kinds) == slow
        plain = ask(base)
        adapter = attached(base)
        moved = ask(base)
        adapter.detach()
        assert torch.equal(ask(base), plain)
        fresh = Adapter.attach(base, AdapterSettings(rank=2, parts=PARTS))
        assert torch.equal(ask(base), plain)
        fresh.detach()
        assert {parameter.dtype for module in base.modules().values() for parameter in module.parameters()} == {
            torch.bfloat16
        }
        first = gradients(base, False)
        for name, value in gradients(base, True).items():
            torch.testing.assert_close(value, first[name])
        found[slow] = (plain, moved)
    for ours, theirs in zip(found[True], found[False], strict=True):
        assert float((ours.float() - theirs.float()).abs().max()) < 0.05
