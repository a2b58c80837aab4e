"""Gradient checkpointing of one block: its activations are made again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, *given: Any) -> Any:
    """The block's answer. Nothing is drawn at random in it, so no generator's state is kept.

    torch's older way keeps the block's inputs alone, its newer one has a hook on every tensor that the backward pass
    wants: as long as the forward itself, at the small batches that checkpointing is for. The older one gives no
    gradients to what is trained in a block that no gradient enters by its inputs, hence `begin`.
    """
    if torch.compiler.is_compiling():
        return checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
    begin = None
    if not any(isinstance(own, Tensor) and own.requires_grad for own in given):
        if not any(parameter.requires_grad for parameter in block.parameters()):
            return block(*given)
        begin = torch.empty(0, requires_grad=True)
    return checkpoint(_answer, block, begin, *given, use_reentrant=True, preserve_rng_state=False)


def _answer(block: nn.Module, begin: Tensor | None, *given: Any) -> Any:
    return block(*given)
