"""Each kind of layer is the LoRA that it says it is: against peft's own layers, and against the formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, get_peft_model
from torch import nn

from tenuto.adapters.kinds import ALPHA, DOWN, MAGNITUDE, MID, UP, of_delta
from tenuto.adapters.layers import Layer, Lora
from tenuto.words import TenutoError
from tests.adapters.made_up import rand, random_lora

CONV = {"hada_w1_a": (8, 3), "hada_w1_b": (3, 4 * 9), "hada_w2_a": (8, 3), "hada_w2_b": (3, 4 * 9)}


def layer(shapes: dict[str, tuple[int, ...]], alpha: float = 2.0) -> Layer:
    tensors = {name: rand(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return Layer.checked({**tensors, ALPHA: torch.tensor(alpha)})


class One(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


@pytest.mark.parametrize("inner", [nn.Linear(12, 20), nn.Conv2d(12, 20, 3), nn.Linear(40, 6)])
@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("method", ["loha", "lokr", "lokr-both"])
def test_loha_and_lokr_are_what_peft_makes_of_them(inner: nn.Module, tucker: bool, method: str) -> None:
    torch.manual_seed(0)
    own: dict[str, Any] = {"r": 2, "alpha": 5, "target_modules": ["inner"], "init_weights": False}
    own |= {"use_effective_conv2d": tucker}
    config = LoHaConfig(**own) if method == "loha" else LoKrConfig(**own, decompose_both=method == "lokr-both")
    adapted: Any = get_peft_model(One(inner), config).base_model.model.inner
    names = adapted.adapter_layer_names
    tensors = {n: getattr(adapted, n)["default"].detach() for n in names if "default" in getattr(adapted, n)}
    read = Layer.checked({**tensors, ALPHA: torch.tensor(5.0)})
    lora = read.lora(3 if isinstance(inner, nn.Conv2d) else 1)
    wanted = adapted.get_delta_weight("default").detach()
    torch.testing.assert_close(lora.fitted(wanted.shape).delta(), wanted, rtol=1e-4, atol=1e-5)


def test_a_small_loha_becomes_a_lora_of_the_square_of_its_rank() -> None:
    read = layer({"hada_w1_a": (40, 3), "hada_w1_b": (3, 50), "hada_w2_a": (40, 3), "hada_w2_b": (3, 50)})
    a1, b1, a2, b2 = (read.tensors[name] for name in list(read.tensors)[:4])
    assert read.lora().rank == 9
    torch.testing.assert_close(read.lora().delta(), (a1 @ b1) * (a2 @ b2) * 2 / 3)


def test_flattened_convolutions_get_their_kernel_back() -> None:
    assert layer(CONV).lora(kernel=3).shape == (8, 4, 3, 3)


def test_a_core_is_folded_into_the_down_projection() -> None:
    read = layer({DOWN: (3, 4, 1, 1), UP: (8, 3, 1, 1), MID: (3, 3, 3, 3)})
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    conv = torch.nn.functional.conv2d
    wanted = conv(conv(conv(x, read.tensors[DOWN]), read.tensors[MID], padding=1), read.tensors[UP]) * 2 / 3
    torch.testing.assert_close(conv(x, read.lora().delta(), padding=1), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (5, 3, 3, 3), (40, 3, 3, 3)])
def test_a_whole_difference_is_a_lora(shape: tuple[int, ...]) -> None:
    delta = rand(*shape)
    assert torch.equal(Lora(*of_delta(delta)).delta(), delta)


def test_the_norm_is_that_of_the_difference() -> None:
    lora = random_lora((20, 12, 3, 3))
    assert lora.norm() == pytest.approx(float(lora.delta().norm()), rel=1e-5)


def test_a_matrix_fits_a_1x1_convolution_and_nothing_else() -> None:
    lora = random_lora((20, 12))
    assert torch.equal(lora.fitted((20, 12, 1, 1)).delta().flatten(1), lora.delta())
    assert torch.equal(lora.fitted((20, 12, 1, 1)).fitted((20, 12)).delta(), lora.delta())
    for other in ((20, 13), (10, 24), (20, 4, 3, 1)):
        with pytest.raises(TenutoError, match="another base"):
            lora.fitted(other)


def test_a_magnitude_per_input_is_refused() -> None:
    with pytest.raises(TenutoError, match="magnitude per input"):
        layer({DOWN: (3, 4), UP: (8, 3), MAGNITUDE: (1, 4)}).lora()
    assert layer({DOWN: (3, 4), UP: (8, 3), MAGNITUDE: (8, 1)}).lora().magnitude is not None


@pytest.mark.parametrize(
    "shapes",
    [
        {DOWN: (3, 4)},
        {DOWN: (3, 4), UP: (8, 2)},
        {DOWN: (3,), UP: (8, 3)},
        {DOWN: (0, 4), UP: (8, 0)},
        {DOWN: (3, 4, 3, 3), UP: (8, 3)},
        {DOWN: (3, 4, 3, 3), UP: (8, 3, 3, 3)},
        {DOWN: (3, 4, 3, 3), UP: (8, 3, 1, 1), MID: (3, 3, 3, 3)},
        {**CONV, "hada_w2_a": (9, 3)},
        {**CONV, "hada_t1": (3, 3, 3, 3)},
        {"lokr_w1": (2, 2)},
        {"lokr_w1": (2, 2), "lokr_w2": (4,)},
        {"lokr_w1": (2, 2), "lokr_w2_a": (4, 2), "lokr_w2_b": (3, 4)},
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(TenutoError):
        layer(shapes)
