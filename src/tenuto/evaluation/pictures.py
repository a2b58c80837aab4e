"""Picture files of a comparison."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tenuto.files import written_whole


def save_picture(path: Path, pixels: Tensor) -> None:
    """Pixels [3 H W] in -1..1 as a PNG."""
    array = ((pixels.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    with written_whole(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")


def pictures_of(folder: Path, name: str, limit: int) -> dict[str, list[str]]:
    """Row -> its first pictures, in order, relative to the folder."""
    rows: dict[str, list[tuple[int, str]]] = {}
    for path in (folder / "pictures" / name).glob("*.png"):
        row, _, number = path.stem.rpartition("-")
        if int(number) < limit:
            rows.setdefault(row, []).append((int(number), path.relative_to(folder).as_posix()))
    return {row: [path for _, path in sorted(found)] for row, found in sorted(rows.items())}
