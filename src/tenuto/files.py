"""Writing that is never half done, and hashes of what lies on disk."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
from safetensors import SafetensorError, safe_open

from tenuto.words import TenutoError

if TYPE_CHECKING:  # torch takes seconds to import, and many commands ask it nothing
    from torch import Tensor

PICKLES = {".ckpt", ".pt", ".pth", ".bin"}
"""Endings of pickle files, which can run code when they are read."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` once the block has ended well.

    A reader sees the old file or the new one, never a part, also after a power cut. What killed processes left of the
    same file goes. Raises TenutoError when the folder cannot be written to or the disk is full.
    """
    begin = f".{path.name}.{_place_of_numbers()}-"
    temporary = path.with_name(f"{begin}{os.getpid()}-{uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(begin)}*.part"):
            writer = left.name[len(begin) :].partition("-")[0]
            if writer.isdecimal() and not psutil.pid_exists(int(writer)):
                left.unlink(missing_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _keep_names(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _keep_names(folder: Path) -> None:
    """What was renamed in a folder is so after a power cut too, where the system lets folders be synced."""
    if os.name != "posix":
        return
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)


@cache
def _place_of_numbers() -> str:
    """Where process numbers mean the same: machines and containers may share a folder."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return hash_text(platform.node(), space)[:8]


def cannot_write(path: Path, error: OSError) -> TenutoError:
    """The one line a user sees when writing fails."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space" if full else "choose another folder or mend its permissions"
    return TenutoError(
        f"{path}: cannot be written ({error.strerror or error}); {remedy}, then run the same command again"
    )


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; a full disk is a TenutoError like any other."""
    header, body = serialized(tensors, metadata)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        file.write(body)


def serialized(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> tuple[bytes, memoryview]:
    """(length and header, data) of a safetensors file: the same content always gives the same bytes.

    The library writes the metadata in an order of its own at every call; here it is sorted.
    """
    from safetensors.torch import save

    whole = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    length = int.from_bytes(whole[:8], "little")
    index = json.loads(whole[8 : 8 + length])
    own = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    header = json.dumps(own | index, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, memoryview(whole)[8 + length :]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file. Raises TenutoError when it is missing, damaged, or something else."""
    if path.suffix.lower() in PICKLES:
        raise TenutoError(
            f"{path}: pickle files are not read (they can run code); `tenuto convert {path}` makes a .safetensors of it"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise TenutoError(f"{path}: no such file") from error
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise TenutoError(f"{path}: {_not_safetensors(path, error)}") from error


def _not_safetensors(path: Path, error: Exception) -> str:
    """What such a file most likely is, from its first bytes."""
    if path.is_dir():
        return "a folder, not a .safetensors file"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            header = file.read(min(length, 1 << 27)) if start[:1] != b"<" else b""
    except OSError as unreadable:
        return f"cannot be read ({unreadable.strerror})"
    if start[:2] in (b"PK", b"\x80\x02"):
        return "a pickle under another name; rename it to .ckpt and let `tenuto convert` make a .safetensors of it"
    if start.lstrip()[:1] == b"<":
        return "a web page, not a model; the download went wrong (a login page?), download it again"
    if start == b"version ":
        return "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if size < 8 + length and header[:1] == b"{":
        return f"cut off ({size} bytes, its header alone has {length}); download it again"
    if (wanted := _end_of_data(header)) and 8 + length + wanted > size:
        return f"cut off ({size} of {8 + length + wanted} bytes); download it again"
    return (
        f"not a readable safetensors file ({' '.join(str(error).split()) or type(error).__name__}); download it again"
    )


def _end_of_data(header: bytes) -> int:
    try:
        index = json.loads(header)
        return max(int(entry["data_offsets"][1]) for name, entry in index.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        return 0


def parse_json(text: str | bytes) -> Any:
    """Raises ValueError for all that is not JSON, also for what is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Raises ValueError for all that is not TOML, also for what is nested too deeply."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def first_line(error: Exception) -> str:
    """What a library says in one line, or what kind of error it is."""
    told = str(error).strip().splitlines()
    return told[0][:160] if told else type(error).__name__


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
