"""Weights whose outputs are turned: OFT and BOFT, as LyCORIS and the web UIs compute them.

    Q = B - B'      R = (I + Q) (I - Q)^-1          B: one square block per group of outputs; R is a rotation

    OFT    W'[k] = R[k]' W[k]         the k-th group of outputs of W. Qiu et al. 2023, arXiv:2306.07280
    BOFT   W' = P_m R_m P_m' … P_1 R_1 P_1' W         P_i regroups the outputs, as a butterfly does, so that after
                                      log2(groups) + 1 stages each reaches each. Liu et al. 2024, arXiv:2311.06243

peft's layers of these names turn the inputs, and its files cannot be written as these: W R is no R W.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotations(blocks: Tensor) -> Tensor:
    """R of each block [… b b]."""
    skew = blocks - blocks.transpose(-1, -2)
    eye = torch.eye(blocks.shape[-1], device=blocks.device)
    turned: Tensor = torch.linalg.solve(eye - skew, eye + skew, left=False)
    return turned


def turned(weight: Tensor, blocks: Tensor) -> Tensor:
    """W' of W [out …], in float32; blocks [groups b b] (OFT) or [stages groups b b] (BOFT)."""
    rows, turns = weight.float().flatten(1), rotations(blocks.float())
    return (_groups(rows, turns) if blocks.ndim == 3 else _butterfly(rows, turns)).reshape(weight.shape)


def limited(blocks: Tensor, constraint: float) -> Tensor:
    """Blocks whose Q has at most this norm: a file's alpha times the outputs. 0: no limit."""
    norm = float((blocks - blocks.transpose(-1, -2)).float().norm()) + 1e-8
    return blocks * (constraint / norm) if 0 < constraint < norm else blocks


def _groups(rows: Tensor, turns: Tensor) -> Tensor:
    grouped = rows.reshape(*turns.shape[:2], -1)
    return torch.einsum("knm,kni->kmi", turns, grouped).reshape(rows.shape)


def _butterfly(rows: Tensor, turns: Tensor) -> Tensor:
    half = turns.shape[-1] // 2
    for stage, turn in enumerate(turns):
        apart = half << stage
        mixed = rows.reshape(-1, 2, apart, rows.shape[1]).transpose(1, 2)
        mixed = torch.einsum("kmn,kni->kmi", turn, mixed.reshape(*turn.shape[:2], -1))
        rows = mixed.reshape(-1, apart, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
    return rows


def oft_size(outputs: int, most: int) -> int | None:
    """Outputs in a group: the largest divisor up to `most`, and no more than there are groups (LyCORIS takes no other);
    None: there is none that turns anything."""
    fitting = [size for size in range(2, most + 1) if outputs % size == 0 and size * size <= outputs]
    return max(fitting, default=None)


def boft_size(outputs: int, most: int) -> int | None:
    """The same for butterflies: even, and a power of two of groups."""
    fitting = [n for n in range(2, most + 1, 2) if outputs % n == 0 and (outputs // n).bit_count() == 1]
    return max(fitting, default=None)
