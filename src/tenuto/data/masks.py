"""Masks: how much each place of a picture counts, as pictures of their own.

The mask of `a.png` is `a.png` (any format that is read) in the folder of masks, or `a-masklabel.png`, as OneTrainer
names those that lie beside their pictures. White counts, black does not, grey in part; the red channel is read, as
sd-scripts does.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tenuto.data.images import EXTENSIONS, image_size
from tenuto.data.problems import Problem
from tenuto.words import Size, TenutoError

BESIDE = "-masklabel"
"""What the name of a mask ends in that lies beside its picture."""
ROUNDING = 1.5
"""Pixels by which a mask's shape may miss its picture's after rounding."""


def is_mask(path: Path, stems: Collection[str]) -> bool:
    """Whether this file is a mask of one of the pictures beside it."""
    return path.stem.endswith(BESIDE) and path.stem.removesuffix(BESIDE) in stems


def find_masks(folder: Path) -> dict[str, Path]:
    """The masks of a folder by their pictures' stems. Raises TenutoError when the folder cannot be used."""
    if not folder.is_dir():
        raise TenutoError(f"{folder}: no such folder; check the concept's `masks`")
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file())
    except OSError as error:
        raise TenutoError(f"{folder}: cannot be read ({error.strerror}); mend its permissions") from error
    named = {path.stem.removesuffix(BESIDE): path for path in files if path.stem.endswith(BESIDE)}
    found = named or {path.stem: path for path in files}
    if not found:
        raise TenutoError(f"{folder}: no masks in this folder; it should hold one picture for each of `images`")
    return found


def wrong_with(mask: Path | None, picture: Path, size: Size, folder: Path) -> Problem | None:
    """What is wrong with the mask of a picture of this size, if anything."""
    if mask is None:
        what = f"has no mask in {folder}: all of it counts"
        return Problem("warning", str(picture), what, f"draw {picture.stem}.png there, white where it counts")
    if mask == picture:
        return Problem("error", str(mask), "is its own mask", f"give a folder of masks, or name them NAME{BESIDE}.png")
    try:
        own = image_size(mask)
    except TenutoError as error:
        what, _, remedy = str(error).removeprefix(f"{mask}: ").rpartition("; ")
        return Problem("error", str(mask), what or remedy, remedy)
    if abs(own.width * size.height - own.height * size.width) > ROUNDING * max(*size, *own):
        return Problem("error", str(mask), f"{own}, and its picture is {size}", "give it the picture's shape")
    return None
