"""3x3 convolutions on few pixels. oneDNN's bf16 backward is twenty times too slow there (torch 2.13)."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 100
"""Up to so many pixels the product is faster."""


class SmallConv(torch.autograd.Function):
    """conv2d(x, w, b, padding=1), but backward is a matrix product: dw = dy^T columns(x), dx = dy * turned w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return F.conv2d(x, w, b, padding=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (g,), (x, w) = grads, ctx.saved_tensors
        turned = w.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)
        dx = F.conv2d(g, turned, padding=1)
        batch, width, h, wide = x.shape
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        columns = padded.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3).reshape(batch * h * wide, 9 * width)
        rows = g.permute(0, 2, 3, 1).reshape(batch * h * wide, -1)
        dw = (rows.t() @ columns).view(len(w), 3, 3, width).permute(0, 3, 1, 2)
        return dx, dw, rows.sum(0)


def _forward(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if not torch.is_grad_enabled() or x.shape[-1] * x.shape[-2] > FEW:
        return F.conv2d(x, weight, bias, conv.stride, conv.padding)
    half = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
    answer: Tensor = SmallConv.apply(x.to(half), weight.to(half), bias.to(half))  # type: ignore[no-untyped-call]
    return answer


def quicken(model: nn.Module) -> None:
    """For training on a CPU only; the weights and their names stay."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and (module.kernel_size, module.stride, module.padding) == (
            (3, 3),
            (1, 1),
            (1, 1),
        ):
            module._conv_forward = MethodType(_forward, module)  # type: ignore[method-assign]
