"""Writing that is never half done, and hashes of what lies on disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from tenuto.words import TenutoError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` once the block has ended well.

    A reader sees the old file or the new one, never a part, also after a power cut.
    Raises TenutoError when the folder cannot be written to or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> TenutoError:
    """The one line a user sees when writing fails."""
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another folder or mend its permissions"
    return TenutoError(
        f"{path}: cannot be written ({error.strerror or error}); {remedy}, then run the same command again"
    )


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; a full disk is a TenutoError like any other."""
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = save(ready, metadata=dict(metadata) if metadata else None)
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def hash_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def hash_text(*parts: str) -> str:
    """SHA-256 of strings, each ended, so that ("ab", "c") and ("a", "bc") differ."""
    return sha256(b"".join(part.encode() + b"\0" for part in parts)).hexdigest()


def cache_home() -> Path:
    """Where caches and prior sets live that projects share: $TENUTO_HOME, else the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ["TENUTO_HOME"]) if "TENUTO_HOME" in os.environ else user_cache_path("tenuto")
