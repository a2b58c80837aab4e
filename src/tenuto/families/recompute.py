"""Gradient checkpointing of one block: its activations are made again in the backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, *given: Any) -> Any:
    """The block's answer. Nothing in it is drawn at random, so no generator's state is kept, and what is made again is
    what was made."""
    return checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False, determinism_check="none")
