"""Whole checkpoints, tensor by tensor: where each weight that a LoRA can change lies, in a folder or in a single file.

Both kinds are spoken of in one naming, diffusers' ("unet.down_blocks…weight"), so that a folder and a file can be held
against each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tenuto.adapters.names import Layout, from_dotted, in_layout
from tenuto.families.header import Shape, read_header
from tenuto.families.keys import Origin
from tenuto.families.parts import read_json, weight_files
from tenuto.families.recognise import recognise
from tenuto.families.signs import noising_of_file
from tenuto.families.single_file import adaptable
from tenuto.families.weights import view_of
from tenuto.words import TenutoError

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
"""Folders of a checkpoint that LoRAs change."""
_USUAL = re.compile(r"lora_te|.*\.(attentions|resnets|downsamplers|upsamplers)\.")
"""Layers that every program can put a LoRA on."""


@dataclass(frozen=True)
class Place:
    """A weight on disk."""

    path: Path
    origin: Origin
    shape: Shape

    def inside(self, tensor: Tensor) -> Tensor:
        """The weight as a view of the file's tensor."""
        return view_of(tensor, self.origin, self.shape)

    def read(self) -> Tensor:
        try:
            with safe_open(self.path, framework="pt") as file:
                return self.inside(file.get_tensor(self.origin.key))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            key = self.origin.key
            raise TenutoError(f"{self.path}: {key} cannot be read ({error}); download it again") from error


@dataclass(frozen=True)
class Checkpoint:
    """A folder in diffusers layout, or a single file."""

    path: Path
    layout: Layout
    v_prediction: bool
    places: Mapping[str, Place]
    """ "unet.down_blocks…weight" -> where it lies."""

    @cached_property
    def layers(self) -> dict[str, Place]:
        """Our name of every layer -> its weight."""
        found = {key: from_dotted(key.removesuffix(".weight")) for key in self.places if key.endswith(".weight")}
        named = {in_layout(name, self.layout): self.places[key] for key, name in found.items() if name}
        return {name: place for name, place in named.items() if len(place.shape) in (2, 4)}

    def layer(self, key: str) -> str | None:
        """Our name of the layer whose weight this is; None for what is no usual place of a LoRA."""
        name = from_dotted(key.removesuffix(".weight")) if key.endswith(".weight") else None
        return in_layout(name, self.layout) if name is not None and _USUAL.match(name) else None

    def files(self) -> list[Path]:
        """That hold these weights."""
        return list(dict.fromkeys(place.path for place in self.places.values()))


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads headers alone. Raises TenutoError for what is no checkpoint."""
    return _file(path) if path.is_file() else _folder(path)


def _file(path: Path) -> Checkpoint:
    header = read_header(path)
    layout = recognise(header)
    places = {name: Place(path, origin, shape) for name, (origin, shape) in adaptable(header, layout).items()}
    kind: Layout = "sdxl" if "text_encoder_2" in {name.partition(".")[0] for name in places} else "sd"
    return Checkpoint(path, kind, noising_of_file(header, layout).prediction == "v", places)


def _folder(folder: Path) -> Checkpoint:
    places: dict[str, Place] = {}
    for part in components(folder):
        for path in weight_files(folder / part):
            shapes = read_header(path).shapes
            places |= {
                f"{part}.{name.removeprefix('text_model.')}": Place(path, Origin(name), shape)
                for name, shape in shapes.items()
                if not name.endswith("position_ids")
            }
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    kind: Layout = "sdxl" if (folder / "text_encoder_2").is_dir() else "sd"
    return Checkpoint(folder, kind, scheduler.get("prediction_type") == "v_prediction", places)


def components(folder: Path) -> list[str]:
    """Of a folder in diffusers layout."""
    found = [part for part in COMPONENTS if (folder / part).is_dir()]
    if "unet" not in found:
        raise TenutoError(f"{folder}: not a checkpoint: no single file, and no unet in it as in diffusers' folders")
    return found
