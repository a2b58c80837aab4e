"""L2 to the base, weighed by what the base's layers really see."""

from __future__ import annotations

from typing import final

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.tuners.base import Update
from tenuto.regularizers.base import Memory, Probe, Regularizer
from tenuto.words import TenutoError

STATES = 64


@final
class GramPenalty(Regularizer):
    """Keep the change of every layer's output small on the base's own states: `l2_to_base` with the right measure.

        L += weight * mean over layers  tr(dW C dW') / E|y|^2        tr(dW C dW') = s^2 tr((B'B)(A C A'))
        C = (1 - rho) X'X / N + rho diag(E x^2)                      X: N inputs of the layer, y: its outputs

    C is the Gram matrix of the layer's inputs (patches, for convolutions) on controller states: base paths at prompts
    of their own. It is estimated once, before the first update. With C = 1 this is `l2_to_base`. Layers of the text
    encoder are left out.

    When   steps must stay cheap and `l2_to_base` holds the concept back as much as the rest.
    Paper  our own; relatives are K-FAC's Laplace, arXiv:1805.07810, and RegMean, arXiv:2212.09849.
    Cost   64 forwards once (256 beside `drift_controller`, which has so many states); then r x N matrices, once per
           update. N inputs per layer are kept in the training state.
    Avoid  trusting it alone: it is linear and sees one layer at a time, and where both were tried it left no less drift
           than `l2_to_base` (docs/findings.md). With DoRA it does not see the magnitudes.
    """

    weight: NonNegativeFloat = 1.0
    """What a change as large as a layer's own output, in the mean over the layers, counts."""
    inputs: PositiveInt = 64
    """N, about as many inputs are kept of each layer: the same number of every controller state, at least one."""
    rho: float = Field(default=0.2, ge=0, le=1)
    """Share of the diagonal: it covers the directions that N inputs do not span."""

    def needs_sensor(self) -> int:
        return STATES

    def init(self, adapter: Adapter, probe: Probe) -> Memory:
        memory: dict[str, Tensor] = {}
        heard = probe.activations(self.inputs)
        if not heard:
            raise TenutoError(
                "regularizers.gram_penalty looks at layers of the denoiser, and none is adapted; take it out, or give "
                "training.adapter.parts others than text_encoder"
            )
        for name, seen in heard.items():
            scale = max(seen.energy, 1e-12) ** -0.5
            memory[f"{name}/inputs"] = (seen.inputs * scale).half().cpu()
            memory[f"{name}/square"] = (seen.square * scale**2).float().cpu()
        return memory

    def penalty(self, adapter: Adapter, memory: Memory, epoch: float) -> Tensor | None:
        known = [(name, update) for name, update in adapter.updates() if f"{name}/inputs" in memory]
        sizes = [self.moved(update, *_of(memory, name)) for name, update in known]
        return self.weight_at(epoch) * torch.stack(sizes).mean()

    def moved(self, update: Update, inputs: Tensor, square: Tensor) -> Tensor:
        """tr(dW C dW'), a scalar. inputs [N in], square [in]."""
        a, b, s = update
        seen = a @ inputs.to(a).T
        if b is None:
            traces = (1 - self.rho) * seen.square().sum() / len(inputs) + self.rho * (a.square() @ square.to(a)).sum()
            return s * s * traces
        inner = (1 - self.rho) * seen @ seen.T / len(inputs) + self.rho * (a * square.to(a)) @ a.T
        return s * s * ((b.T @ b) * inner).sum()


def _of(memory: Memory, name: str) -> tuple[Tensor, Tensor]:
    return memory[f"{name}/inputs"], memory[f"{name}/square"]
