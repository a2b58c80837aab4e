"""Frozen weights that lie in fewer bits than their layer computes in: each layer converts them when it is asked, and
anew in the backward pass, so that no wide copy of the model builds up (the library's own ways leave one behind).

Two uses. Half precision on a CPU that has none: each layer is computed in float32 and its answer rounded, which is what
hardware for it does too; the library's emulation is right as well, but 6 times (linear) to 90 times (convolution)
slower than float32, and this costs a few percent. And 8 bits (`lie_in_float8`), half of the memory of half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

CHECKS = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
"""Half precision -> how the library is asked for it; not in every build."""
FLOAT8 = torch.float8_e4m3fn
"""4 bits of exponent, 3 of mantissa: what sd-scripts calls fp8."""
BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")


def lacks(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this would be emulated, slowly."""
    if device.type != "cpu" or dtype not in CHECKS:
        return False
    supported: Any = getattr(torch.ops.mkldnn, CHECKS[dtype], None)
    return supported is None or not supported()


def compute_in_float32(module: nn.Module) -> None:
    """Change how the frozen linear and convolution layers compute; their weights, names and kinds stay."""
    for layer in module.modules():
        if isinstance(layer, Narrow):
            layer.computed = torch.float32
        elif kind := _kind(layer):
            _become(layer, KINDS[kind][0], torch.float32)


def lie_in_float8(unet: nn.Module) -> None:
    """Keep the weights of its blocks' linear and convolution layers in 8 bits, each output's with a scale of its own.

    Without the scale weights below 2**-6 would have fewer bits still. `weight` shows them in the precision that they
    had. What lies outside the blocks is small, and saves nothing.
    """
    for name, layer in unet.named_modules():
        if name.startswith(BLOCKS) and (kind := _kind(layer)):
            weight: Tensor = layer.weight.detach()
            scale = weight.float().flatten(1).abs().amax(1).clamp_min(1e-12) / torch.finfo(FLOAT8).max
            _become(layer, KINDS[kind][1], weight.dtype)
            del layer._parameters["weight"]
            layer.shown = weight.dtype
            layer.register_buffer("scale", scale.reshape(-1, *[1] * (weight.ndim - 1)))
            layer.register_buffer("bits", (weight.float() / layer.scale).to(FLOAT8))


def has_float8(device: torch.device) -> bool:
    """Whether torch can keep such numbers there."""
    try:
        torch.zeros(1, device=device).to(FLOAT8)
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False
    return True


def show_as(module: nn.Module, dtype: torch.dtype) -> None:
    """As if the weights that lie in 8 bits had come in this precision."""
    for layer in module.modules():
        if isinstance(layer, Float8):
            layer.shown = layer.computed = dtype


@contextmanager
def to_write(layer: nn.Module) -> Iterator[Tensor]:
    """The layer's weight, for changes; one in 8 bits lies there whole inside the block, and afterwards as before."""
    if not isinstance(layer, Float8):
        yield layer.weight  # type: ignore[misc]
        return
    layer.whole = layer.weight
    try:
        yield layer.whole
    finally:
        layer.whole = None


class Narrow(nn.Module):
    """What both kinds of layers have."""

    computed: torch.dtype
    """What it is computed in."""

    def held(self) -> tuple[Tensor, Tensor | None]:
        """The weight as it lies there, and what it is to be multiplied by."""
        return self.weight, None  # type: ignore[return-value]


class NarrowLinear(Narrow, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        weight, scale = self.held()
        if weight.requires_grad:
            return super().forward(x)
        answer: Tensor = _Linear.apply(x, weight, scale, self.bias, self.computed)  # type: ignore[no-untyped-call]
        return answer


class NarrowConv2d(Narrow, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight, scale = self.held()
        if weight.requires_grad:
            return super().forward(x)
        shape = (self.stride, self.padding, self.dilation, self.groups)
        answer: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
            x, weight, scale, self.bias, shape, self.computed
        )
        return answer


class Float8(Narrow):
    """The weight lies in 8 bits."""

    bits: Tensor
    scale: Tensor
    """One number for each output."""
    shown: torch.dtype
    """The precision of `weight`."""
    whole: Tensor | None = None
    """The weight while it is being changed."""

    def held(self) -> tuple[Tensor, Tensor | None]:
        return (self.bits, self.scale) if self.whole is None else (self.whole, None)

    @property
    def weight(self) -> Tensor:
        return _wide(*self.held(), self.shown)

    @weight.setter
    def weight(self, same: Tensor) -> None:
        """peft puts back what it has read when it takes an adapter off."""
        if not same.is_meta and not torch.equal(same, self.weight):
            raise TypeError("weights in 8 bits are changed by `to_write`")


class Float8Linear(Float8, NarrowLinear):
    pass


class Float8Conv2d(Float8, NarrowConv2d):
    pass


KINDS = {"linear": (NarrowLinear, Float8Linear), "convolution": (NarrowConv2d, Float8Conv2d)}


def _kind(layer: nn.Module) -> str | None:
    """Of a layer that is not narrow yet and can be."""
    if type(layer) is nn.Linear:
        return "linear"
    plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return "convolution" if plain else None


def _become(layer: nn.Module, kind: type[Narrow], computed: torch.dtype) -> None:
    layer.__class__ = kind
    layer.computed = computed  # type: ignore[assignment]


def _wide(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype) if scale is None else (weight.float() * scale).to(dtype)


def _bias(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, computed: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.computed = computed
        return F.linear(x.to(computed), _wide(weight, scale, computed), _bias(bias, computed)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        weight, scale = ctx.saved_tensors
        back = gradient.to(ctx.computed) @ _wide(weight, scale, ctx.computed)
        return back.to(gradient.dtype), None, None, None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        shape: tuple[Any, ...],
        computed: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.size, ctx.shape, ctx.computed = x.shape, shape, computed
        return F.conv2d(x.to(computed), _wide(weight, scale, computed), _bias(bias, computed), *shape).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        weight, scale = ctx.saved_tensors
        back: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
            ctx.size, _wide(weight, scale, ctx.computed), gradient.to(ctx.computed), *ctx.shape
        )
        return back.to(gradient.dtype), None, None, None, None, None
