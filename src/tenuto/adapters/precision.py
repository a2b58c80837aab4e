"""A LoRA's weights lie in float32 whatever the base's precision is: steps are smaller than half precision can add.

They are rounded to the precision of their inputs for each forward, so that activations stay small.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


def keep_in_float32(layer: LoraLayer) -> None:
    """Change how the factors of this layer are kept and computed; their names stay."""
    own: Any = layer
    own.cast_input_dtype_enabled = False
    for factors in (own.lora_A, own.lora_B, own.lora_magnitude_vector):
        for factor in factors.values():
            factor.float()
            if isinstance(factor, nn.Linear):
                factor.__class__ = RoundedLinear
            elif isinstance(factor, nn.Conv2d):
                factor.__class__ = RoundedConv2d


class RoundedLinear(nn.Linear):
    """A factor of a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        given, weight = alike(x, self.weight)
        return F.linear(given, weight).to(x.dtype)


class RoundedConv2d(nn.Conv2d):
    """A factor of a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        given, weight = alike(x, self.weight)
        answer: Tensor = self._conv_forward(given, weight, None)
        return answer.to(x.dtype)


def alike(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the inputs' precision; in float32 on a CPU, which may have no other (families/narrow.py)."""
    return (x.float(), weight) if x.device.type == "cpu" else (x, weight.to(x.dtype))
