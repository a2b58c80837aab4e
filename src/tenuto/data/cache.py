"""A store of tensors by content: latents, text features. What was computed once for the same input is read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tenuto.files import hash_text, written_whole
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
        """The tensors kept under this key; None when there are none or the file is damaged."""
        try:
            tensors: dict[str, Tensor] = load(self.path(key).read_bytes())
            return tensors
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError):  # damaged: as good as absent, the next put() replaces it
            return None
        except OSError as error:
            raise TenutoError(
                f"{self.path(key)}: cannot be read ({error.strerror}); mend or delete the cache"
            ) from error

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep these tensors; a reader sees all of them or none."""
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        with written_whole(self.path(key)) as temporary:
            temporary.write_bytes(data)
