"""The average of the adapter over the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from pydantic import Field
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.regularizers.base import Done, Memory, Probe, Regularizer

WARM_UP = 10


@final
class EmaAverage(Regularizer):
    """The LoRA files hold a running average of A and B; the training itself goes on undisturbed.

        mean <- d mean + (1 - d) (A, B)        d = min(decay, (1 + n) / (10 + n)) after n updates

    Averaging the factors is not averaging the product; near the end of a training the two are close.

    When   the last updates are restless: samples change from snapshot to snapshot.
    Paper  Polyak averaging; for weights WiSE-FT, arXiv:2109.01903, and DreamBlend, arXiv:2411.19390.
    Cost   one copy of the adapter.
    Avoid  short trainings with a large decay: the average lags behind.
    """

    dial: ClassVar[str] = "decay"
    weight: float = Field(default=1.0, ge=0, le=1)
    """How much of the average is in the file; the rest is the adapter as trained."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """How slowly the average follows."""

    def init(self, adapter: Adapter, probe: Probe) -> Memory:
        return adapter.state()

    def after_update(self, adapter: Adapter, memory: Memory, done: Done) -> Memory:
        decay = min(self.decay, (1 + done.update) / (WARM_UP + done.update))
        return {name: memory[name].lerp(value, 1 - decay) for name, value in adapter.state().items()}

    def shipped(self, adapter: Adapter, memory: Memory, epoch: float) -> Mapping[str, Tensor] | None:
        part = self.weight_at(epoch)
        return {name: value.lerp(memory[name], part) for name, value in adapter.state().items()}
