"""Checkpoints that ship inside the package, some of them as what differs from another one."""

from __future__ import annotations

import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tenuto.files import cache_home, hash_file
from tenuto.words import TenutoError


class Shipped(NamedTuple):
    """A checkpoint of this installation."""

    folder: Path
    """In diffusers layout."""
    difference: Path | None = None
    """What is added to its weights: a file with tensors named PART.WEIGHT, in fp16."""


_HERE = Path(str(resources.files("tenuto"))) / "pocket"
BASES = {
    "pocket": Shipped(_HERE / "checkpoint"),
    "pocket-shaded": Shipped(_HERE / "checkpoint", _HERE / "shaded.safetensors"),
}


def shipped_folder(name: str) -> Path:
    """The folder of a checkpoint that ships; where it is a difference, it is made once, in the cache folder.

    Raises TenutoError where the installation lacks it, or the cache folder cannot hold it.
    """
    folder, difference = BASES[name]
    for place in (folder, difference):
        if place is not None and not place.exists():
            raise TenutoError(f"{name}: its weights are not in this installation ({place}); install tenuto again")
    if difference is None:
        return folder
    try:
        return _together(name, folder, difference)
    except OSError as error:
        remedy = "free some space, or let TENUTO_HOME name a folder that can be written"
        raise TenutoError(f"{name}: {cache_home()} cannot hold it ({error.strerror}); {remedy}") from error


def _together(name: str, folder: Path, difference: Path) -> Path:
    final = cache_home() / "bases" / f"{name}-{hash_file(difference)[:16]}"
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f"{name}-") as made:
        half = Path(made) / name
        shutil.copytree(folder, half)
        _add(half, difference)
        try:
            half.replace(final)
        except OSError:  # another process was faster
            if not final.is_dir():
                raise
    return final


def _add(folder: Path, difference: Path) -> None:
    """The difference onto the weights in this folder, in float32, rounded once."""
    change = load_file(difference)
    for part in sorted({name.partition(".")[0] for name in change}):
        (file,) = (folder / part).glob("*.safetensors")
        weights = load_file(file)
        for name in weights:
            if (own := change.get(f"{part}.{name}")) is not None:
                weights[name] = (weights[name].float() + own.float()).to(weights[name].dtype)
        with safe_open(file, "pt") as old:
            metadata = old.metadata()
        save_file(weights, file, metadata)
