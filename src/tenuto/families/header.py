"""What a safetensors file says of itself, read without its weights. Everything else that ends in .safetensors is
named for what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tenuto.words import TenutoError

Shape = tuple[int, ...]

FLOATS = {"F64", "F32", "F16", "BF16"}
LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""

DISGUISES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a pickle (PyTorch zip) with another name, which can run code; `tenuto convert` makes a real one"),
    (b"\x80", "a pickle with another name, which can run code; `tenuto convert` makes a real one"),
    (b"<", "a web page, not a model (a login or an error page?); download the model again, logged in where needed"),
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself; run `git lfs pull` or download the file"),
    (b"{", "JSON text, not a model; download the model again"),
    (b"GGUF", "a GGUF file; give the .safetensors release of the checkpoint"),
)
"""How files begin that are something else."""


@dataclass(frozen=True)
class Header:
    """Names, shapes, number types and metadata of a safetensors file."""

    path: Path
    shapes: Mapping[str, Shape]
    types: Mapping[str, str]
    metadata: Mapping[str, str]

    def under(self, prefix: str) -> set[str]:
        """The keys that begin like this."""
        return {key for key in self.shapes if key.startswith(prefix)}


def read_header(path: Path) -> Header:
    """Raises TenutoError that says what the file is instead, or how much of it is missing."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            length = int.from_bytes(start[:8], "little")
            _refuse_disguise(path, start, size)
            if length > min(size - 8, LARGEST_HEADER):
                raise _damaged(path, f"its header would be {length:,} bytes, the file has {size:,}")
            file.seek(8)
            table = json.loads(file.read(length))
        end = (
            8
            + length
            + max((int(own["data_offsets"][1]) for name, own in table.items() if name[:2] != "__"), default=0)
        )
        if end > size:
            raise _damaged(path, f"{size:,} of {end:,} bytes are there, the download was cut off")
        with safe_open(path, framework="pt"):
            pass  # the library checks what is left: overlaps, shapes against bytes
        metadata = {str(name): str(value) for name, value in table.pop("__metadata__", {}).items()}
        shapes = {name: tuple(int(side) for side in own["shape"]) for name, own in table.items()}
        return Header(path, shapes, {name: str(own["dtype"]) for name, own in table.items()}, metadata)
    except TenutoError:
        raise
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: no such file") from error
    except OSError as error:
        raise TenutoError(f"{path}: cannot be read ({error.strerror or error}); copy or download it again") from error
    except (SafetensorError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(path, " ".join(str(error).split())[:120] or type(error).__name__) from error


def _refuse_disguise(path: Path, start: bytes, size: int) -> None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    for begin, what in DISGUISES:
        if text.startswith(begin) and start[8:9] != b"{":
            raise TenutoError(f"{path}: {what}")
    if size < 8:
        raise _damaged(path, f"only {size} bytes")


def _damaged(path: Path, why: str) -> TenutoError:
    return TenutoError(f"{path}: not a whole safetensors file ({why}); download it again")
