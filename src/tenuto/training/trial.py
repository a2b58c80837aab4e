"""A trial update: all that an update does, on a base without weights, to count what it would hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tenuto.adapters.adapter import Adapter
from tenuto.events import silent
from tenuto.families.base import Base
from tenuto.families.meter import Meter, fused_attention, tensors_of
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.normal import Distilled
from tenuto.training.making import StepMaker
from tenuto.training.means import Means
from tenuto.training.objective import objective
from tenuto.training.rows import Row, micro_batches, roles, shares
from tenuto.training.settings import TrainingSettings


def held_by_update(
    base: Base, adapter: Adapter, settings: TrainingSettings, methods: Mapping[str, Regularizer], rows: Sequence[Row]
) -> int:
    """The most bytes that an update of these rows holds beside the base's weights, the adapter's and the optimizer's:
    activations of its largest micro-batch, and the gradients. The base is `weightless`."""
    active = {name: own for name, own in methods.items() if own.active()}
    terms = {name: _unmeasured(own) for name, own in active.items() if type(own).loss is not Regularizer.loss}
    maker = StepMaker(base, adapter, terms, 0, Means(base, settings.micro_batch, False, silent))
    drafts = [maker.draft(row, 0.0) for row in rows]
    apart = any(method.apart() for method in active.values())
    largest = max(micro_batches(drafts, settings.micro_batch, apart=apart), key=len)
    base.checkpointing(settings.gradient_checkpointing)
    with fused_attention(), Meter(tensors_of(base)) as meter:
        losses = objective(maker.step(largest, shares(largest, roles(drafts))), terms)
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
    base.checkpointing(False)
    return int(meter.peak)


def _unmeasured(method: Regularizer) -> Regularizer:
    """Without its measure, which is made of numbers and takes no memory."""
    return method.model_copy(update={"normalised": False}) if isinstance(method, Distilled) else method
