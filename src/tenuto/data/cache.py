"""A store of tensors by content: latents, text features. What was computed once for the same input is read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tenuto.checks import CHECK, tensors_check
from tenuto.files import hash_text, read_tensors, write_tensors
from tenuto.words import TenutoError


def key_of(*parts: object) -> str:
    """A key from everything that the tensors depend on (file hash, model hash, bucket, ...)."""
    return hash_text(*(str(part) for part in parts))


@dataclass(frozen=True)
class Cache:
    """A folder of safetensors files. Deleting it costs time and nothing else."""

    root: Path

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors kept under this key, mapped from the file; None when there are none or they are not as they were
        kept: the next put() replaces them."""
        try:
            tensors, told = read_tensors(self.path(key))
        except TenutoError:
            return None
        return tensors if told.get(CHECK) == tensors_check(tensors) else None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep these tensors; a reader sees all of them or none."""
        write_tensors(self.path(key), tensors, {CHECK: tensors_check(tensors)})
