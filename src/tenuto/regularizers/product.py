"""The size of a layer's update without building it: r x r matrices are enough where it is s B A.

|s B A|^2 = s^2 tr((B'B)(AA'))
"""

from __future__ import annotations

from torch import Tensor

from tenuto.adapters.tuners.base import Update


def squared_norm(update: Update) -> Tensor:
    """|dW|_F^2, a scalar."""
    a, b, s = update
    return s * s * (a.square().sum() if b is None else ((b.T @ b) * (a @ a.T)).sum())
