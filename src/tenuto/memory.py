"""Memory of the device: whether it was too small, and making room."""

from __future__ import annotations

import gc

import torch
from accelerate.utils.memory import should_reduce_batch_size


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device (or the machine) ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))


def make_room(device: torch.device) -> None:
    """Free what a failed forward left. Call it where the error is not at hand any more: it holds the tensors."""
    gc.collect()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
