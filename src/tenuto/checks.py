"""Checksums of what is kept: a bit that a disk has turned is noticed, not trained on and not shown as measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

from tenuto.files import hash_text

if TYPE_CHECKING:
    from torch import Tensor

CHECK = "tenuto_check"
"""Key of the checksum in a safetensors header."""


def json_check(value: Any) -> str:
    """Of plain data, whatever the order of its tables."""
    return hash_text(json.dumps(value, sort_keys=True))[:16]


def tensors_check(tensors: Mapping[str, Tensor], told: str = "") -> str:
    """Of tensors with their names and shapes, and of the text beside them."""
    import torch

    found = crc32(told.encode())
    for name in sorted(tensors):
        own = tensors[name].detach().cpu().contiguous()
        found = crc32(f"{name} {own.shape}".encode(), found)
        found = crc32(own.reshape(-1).view(torch.uint8).numpy().tobytes(), found)
    return f"{found:08x}"
