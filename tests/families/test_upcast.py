"""bfloat16 where there is none: the same answers and gradients up to rounding, the same weights and names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.checkpoints import open_base
from tenuto.families.upcast import UpcastConv2d, UpcastLinear, compute_in_float32, lacks
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
    assert type(own) in (UpcastLinear, UpcastConv2d)
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
        assert (UpcastLinear in kinds) == (UpcastConv2d in kinds) == slow
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
