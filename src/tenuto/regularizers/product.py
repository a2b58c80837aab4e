"""The size of a layer's update without building it: r x r matrices are enough.

|s B A|^2 = s^2 tr((B'B)(AA'))
"""

from __future__ import annotations

from torch import Tensor


def squared_norm(a: Tensor, b: Tensor, s: float) -> Tensor:
    """|s B A|_F^2, a scalar. A [r in], B [out r]."""
    return s * s * ((b.T @ b) * (a @ a.T)).sum()
