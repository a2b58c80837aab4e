"""Pickle checkpoints and LoRAs (.ckpt, .pt, .bin) to safetensors, without running what is in them.

A pickle is a small program. It is read by torch's weights-only reader, which refuses everything that is not a plain
container or a tensor, and in a process of its own: this file is what that process runs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenuto.files import PICKLES, write_tensors
from tenuto.words import TenutoError

REFUSED = 3
"""Exit status of the child for what a user can mend: its last line says it."""
STEMS = {"pytorch_model": "model", "diffusion_pytorch_model": "diffusion_pytorch_model"}
"""What libraries call weights: as pickles -> as safetensors."""
STAND_INS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
"""Names found in honest old checkpoints (SD 1.4's own). They are given an empty class; nothing of theirs is run."""


class _StandIn:
    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class Converted:
    """One file that was made."""

    source: Path
    target: Path
    tensors: int
    left: tuple[str, ...]
    """What was in the pickle and is no weight."""


def convert(source: Path, target: Path | None = None) -> list[Converted]:
    """A pickle file, or every one in a checkpoint folder, to safetensors beside it. Overwrites nothing.

    Raises TenutoError when there is nothing to convert, the target exists, or a pickle wants to run code.
    """
    if not source.exists():
        raise TenutoError(f"{source}: no such file or folder")
    if source.is_dir():
        if target is not None:
            raise TenutoError(f"{source}: the files of a folder are converted in place; leave --out away")
        pairs = [(path, _beside(path)) for path in _pickles(source)]
        pairs = [(path, new) for path, new in pairs if not new.exists()]
        if not pairs:
            raise TenutoError(f"{source}: no pickle in it that has no .safetensors beside it; nothing to do")
        return [_convert(path, new) for path, new in pairs]
    if source.suffix == ".safetensors":
        raise TenutoError(f"{source}: is safetensors already; nothing to do")
    return [_convert(source, target or _beside(source))]


def _pickles(folder: Path) -> list[Path]:
    """In the folder and one level below."""
    return sorted(path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.suffix.lower() in PICKLES)


def _beside(path: Path) -> Path:
    stem, rest = next(((old, path.stem[len(old) :]) for old in STEMS if path.stem.startswith(old)), (path.stem, ""))
    return path.with_name(f"{STEMS.get(stem, stem)}{rest}.safetensors")


def _convert(source: Path, target: Path) -> Converted:
    if target.exists():
        raise TenutoError(f"{target}: there already, and nothing is overwritten; move it away or give another --out")
    command = [sys.executable, "-m", "tenuto.pickles", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        told = last if done.returncode == REFUSED else f"{source}: reading it failed ({last or 'not enough memory?'})"
        raise TenutoError(told)
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return Converted(source, target, facts["tensors"], tuple(facts["left"]))


# -- in the child ---------------------------------------------------------------------------------------------------


def main(source: str, target: str) -> int:
    """Read one pickle, write one safetensors, say what was in it."""
    try:
        tensors, left = read_pickle(Path(source))
        write_tensors(Path(target), tensors, {"format": "pt"})
    except TenutoError as error:
        print(error, file=sys.stderr)
        return REFUSED
    print(json.dumps({"tensors": len(tensors), "left": left}))
    return 0


def read_pickle(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors by dotted name, what else there is). Raises TenutoError for a pickle that wants to run code."""
    stand_ins: list[Any] = [(_StandIn, name) for name in STAND_INS]
    try:
        with torch.serialization.safe_globals(stand_ins):
            whole = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes of it
        raise TenutoError(f"{path}: {_why(error)}") from error
    left: list[str] = []
    if isinstance(whole, Mapping) and isinstance(whole.get("state_dict"), Mapping):
        left = sorted(str(key) for key in whole if key != "state_dict")
        whole = whole["state_dict"]
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in _leaves("", whole):
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
            left.append(name or type(value).__name__)
            continue
        shared = value.untyped_storage().data_ptr() in storages
        storages.add(value.untyped_storage().data_ptr())
        tensors[name] = value.detach().clone() if shared else value.detach()
    if not tensors:
        raise TenutoError(f"{path}: holds no weights ({', '.join(left[:3]) or type(whole).__name__})")
    return tensors, left


def _why(error: Exception) -> str:
    """One line for what torch says in many."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)|(?:global|class|function|type)\W+([\w.]+\.[\w.]+)", text):
        name = found[1] or found[2]
        return f"it wants to run code ({name}), which a file of weights has no need of; refused, do not trust it"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    return f"not a readable pickle ({' '.join(text.split())[:100] or type(error).__name__}); download it again"


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, value


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
