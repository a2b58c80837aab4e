"""Muon for matrices and convolutions, Adam for the rest: some twice as much learned per step as Adam alone.

    update = 0.2 sqrt(max(rows, columns)) * orthogonalized(momentum)

Jordan et al. 2024; the scale by Liu et al., arXiv:2502.16982.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tools.pocket.common import emulates_bf16
from torch import Tensor, nn


def orthogonalized(m: Tensor, rounds: int = 3) -> Tensor:
    """Nearly U V^T of m = U S V^T [R, C], by a quintic Newton-Schulz iteration; in bf16 where the machine has it."""
    x = m if emulates_bf16(m.device) else m.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    near: Tensor = (x.T if tall else x).to(m.dtype)
    return near


class Muon(torch.optim.Optimizer):
    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                memory = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                memory.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(memory, group["momentum"]).reshape(len(weight), -1)
                size = 0.2 * max(ahead.shape) ** 0.5
                weight.add_(orthogonalized(ahead).reshape(weight.shape), alpha=-group["lr"] * size)


class Both:
    """One face for the two optimizers."""

    def __init__(self, model: nn.Module, lr: float) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if p.dim() > 1 and "embedding" not in n]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self.parts = (
            Muon(matrices, lr),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        )
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        return {str(n): part.state_dict() for n, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        for n, part in enumerate(self.parts):
            part.load_state_dict(state[str(n)])
        self.param_groups = [group for part in self.parts for group in part.param_groups]
