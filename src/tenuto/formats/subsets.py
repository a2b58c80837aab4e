"""Folders of pictures as sd-scripts knows them.

train/10_sks dog/a.png, a.txt        repeats 10, class tokens "sks dog"
reg/1_dog/x.png, x.txt
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenuto.data.captions import caption_path, read_caption
from tenuto.formats.imported import Draft, pictures_in
from tenuto.formats.source import is_there, may_read
from tenuto.words import TenutoError

PREFIXED = re.compile(r"(\d{1,9})(?:_(.*))?", re.DOTALL)
"""`N_text`, or `N` alone."""
READ = 200
"""Captions that are read to find the trigger."""
REG_NAMES = ("reg", "class", "regularization", "regularisation")


@dataclass(frozen=True)
class Subset:
    """One folder of pictures."""

    folder: Path
    """Where it lies on this machine, if it does."""
    written: str
    """How the project file calls it."""
    repeats: int = 1
    tokens: str | None = None
    """Class tokens: the caption of pictures that have no caption file. None: there was no such thing."""
    is_reg: bool = False
    dataset: int = 0
    """Reg pictures balance the instance pictures of their own dataset only."""
    extension: str = ".txt"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options of this folder alone."""
    masks: str = ""
    """How the project file calls the folder of its masks, where they were used there."""

    def pictures(self) -> list[Path]:
        """By name, as they were read there."""
        return pictures_in(self.folder)

    @property
    def label(self) -> str:
        """The folder's own name, also of a Windows path on another system."""
        return re.split(r"[/\\]", self.written.rstrip("/\\"))[-1]

    def name(self) -> str:
        """What a concept made of it is called."""
        told = self.tokens or without_repeats(self.label) or self.label or "concept"
        return re.sub(r"[/\\\s]+", " ", told).strip() or "concept"


def extension_of(*values: Any) -> str:
    """The first of the values that is an extension such as ".txt"; the old trainers' default is ".caption"."""
    found = (value for value in values if isinstance(value, str) and re.fullmatch(r"(\.[\w-]+)+", value))
    return next(found, ".caption")


def without_repeats(name: str) -> str:
    match = PREFIXED.fullmatch(name)
    return (match[2] or "") if match else name


def subfolders(parent: Path) -> list[tuple[Path, int, str]]:
    """(folder, repeats, class tokens) of every `N_text` folder, sorted by name (sd-scripts: as the disk has them)."""
    try:
        folders = sorted(path for path in parent.iterdir() if path.is_dir() and may_read(path))
    except (OSError, ValueError):
        return []
    named = ((path, PREFIXED.fullmatch(path.name)) for path in folders)
    return [(path, int(match[1]), match[2] or "") for path, match in named if match]


def layout(draft: Draft, option: str, parent: Path, written: str, is_reg: bool, extension: str) -> list[Subset]:
    """The subsets of a train_data_dir or reg_data_dir. Raises TenutoError for a wrong folder level."""
    found = subfolders(parent)
    if not found and is_there(parent) and parent.is_dir() and not is_reg:
        raise TenutoError(f"{parent}: no folder in it is called like '10_sks dog'; {other_level(parent)}")
    for path, repeats, _ in found:
        if repeats < 1:
            draft.leave(option, path.name, "0 repeats: left out there without a word, and here")
    if not found:
        draft.leave(
            option, written, "the folder is not on this machine, or no 'N_text' folder is in it: taken as it is"
        )
        return [Subset(parent, written, is_reg=is_reg, extension=extension)]
    return [
        Subset(path, f"{written.rstrip('/')}/{path.name}".removeprefix("./"), repeats, tokens, is_reg, 0, extension)
        for path, repeats, tokens in found
        if repeats > 0
    ]


def other_level(parent: Path) -> str:
    """The right folder, if it is one level up or down."""
    inner = next((path for path in sorted(parent.iterdir()) if path.is_dir() and subfolders(path)), None)
    if inner is not None:
        return f"did you mean {inner}?"
    if PREFIXED.fullmatch(parent.name):
        return f"did you mean the folder above, {parent.parent}?"
    return "give the folder above those that hold the pictures"


def rows_of(subsets: Iterable[Subset]) -> int | None:
    """Instance rows per epoch; None where a folder is empty or not here."""
    counts = [(len(subset.pictures()), subset.repeats) for subset in subsets if not subset.is_reg]
    return sum(count * repeats for count, repeats in counts) if counts and all(count for count, _ in counts) else None


def texts(subset: Subset) -> list[str]:
    """Captions beside the pictures, as many as are needed to judge."""
    found = []
    for path in subset.pictures()[:READ]:
        try:
            caption = read_caption(path, subset.extension) if may_read(caption_path(path, subset.extension)) else None
        except (TenutoError, ValueError):
            continue
        if caption is not None and caption.text:
            found.append(caption.text)
    return found


def has_caption(path: Path, extension: str) -> bool:
    try:
        return caption_path(path, extension).is_file()
    except (OSError, ValueError):
        return False


def uncaptioned(subset: Subset) -> int:
    return sum(not has_caption(path, subset.extension) for path in subset.pictures())
