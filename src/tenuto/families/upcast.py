"""Half precision on a CPU that has none: weights lie in it, each layer is computed in float32, and its answer rounded.

That is what hardware for it does too (it adds up in float32). The library's own way on such CPUs is right as well,
but 6 times (linear) to 90 times (convolution) slower than float32; this costs a few percent over float32 and keeps
half of its memory. Weights are converted anew in the backward pass, so that no float32 copy of the model builds up.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

CHECKS = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
"""Half precision -> how the library is asked for it; not in every build."""


def lacks(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this would be emulated, slowly."""
    if device.type != "cpu" or dtype not in CHECKS:
        return False
    supported: Any = getattr(torch.ops.mkldnn, CHECKS[dtype], None)
    return supported is None or not supported()


def compute_in_float32(module: nn.Module) -> None:
    """Change how the frozen linear and convolution layers compute; their weights, names and kinds stay."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = UpcastLinear
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            layer.__class__ = UpcastConv2d


class UpcastLinear(nn.Linear):
    """A frozen linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad:
            return super().forward(x)
        answer: Tensor = _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return answer


class UpcastConv2d(nn.Conv2d):
    """A frozen convolution."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad:
            return super().forward(x)
        shape = (self.stride, self.padding, self.dilation, self.groups)
        answer: Tensor = _Convolution.apply(x, self.weight, self.bias, shape)  # type: ignore[no-untyped-call]
        return answer


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return (gradient.float() @ weight.float()).to(gradient.dtype), None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.shape = x.shape, shape
        return F.conv2d(x.float(), weight.float(), None if bias is None else bias.float(), *shape).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        back: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
            ctx.size, weight.float(), gradient.float(), *ctx.shape
        )
        return back.to(gradient.dtype), None, None, None
