"""LoRAs and whole checkpoints in diffusers layout: a LoRA into one, a LoRA out of the difference of two."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tenuto.adapters.files import LoraFile
from tenuto.adapters.header import base_version, version_header
from tenuto.adapters.layers import Layer, Lora, moved
from tenuto.adapters.names import Layout, from_dotted, in_layout
from tenuto.adapters.surgery import Change, Cut, of_difference, part_of
from tenuto.events import Listener, progress, silent
from tenuto.families.base import Part
from tenuto.families.parts import weight_files
from tenuto.files import PICKLES, read_tensors, write_tensors
from tenuto.words import TenutoError

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
"""Folders of a checkpoint that LoRAs change."""
_USUAL = re.compile(r"lora_te|.*\.(attentions|resnets|downsamplers|upsamplers)\.")
"""Layers that every program can put a LoRA on."""


# -- into a checkpoint ----------------------------------------------------------------------------------------------


def merge_into(
    files: Sequence[LoraFile], weights: Sequence[float], source: Path, target: Path, listener: Listener = silent
) -> int:
    """Copy a checkpoint folder with LoRAs added to its weights, whole or not at all. Returns the layers changed.

    W' = W + weight * (what the LoRA makes of W, less W), one LoRA after the other. Raises TenutoError where one does
    not fit.
    """
    names = _names(source)
    for file in files:
        if odd := sorted({in_layout(name, _layout(source)) for name in file.layers} - names.keys()):
            raise TenutoError(f"{file.path}: {len(odd)} of its layers are not in {source}, first {odd[0]}")
    changes = [
        ({in_layout(name, _layout(source)): file.lora(name) for name in file.layers}, file, weight)
        for file, weight in zip(files, weights, strict=True)
    ]
    with _copied(source, target) as copy:
        places = [(part, path) for part in _components(source) for path in weight_files(copy / part)]
        for done, (part, path) in enumerate(places, 1):
            tensors, metadata = read_tensors(path)
            for loras, file, weight in changes:
                tensors |= _changed(tensors, _keys(part, tensors, _layout(source)), loras, weight, file.path)
            write_tensors(path, tensors, metadata)
            progress(listener, "merging", done, len(places))
    return len({name for loras, _, _ in changes for name in loras})


def _changed(
    tensors: Mapping[str, Tensor], keys: Mapping[str, str], loras: Mapping[str, Lora], weight: float, path: Path
) -> dict[str, Tensor]:
    changed = {}
    for name in keys.keys() & loras.keys():
        before = tensors[keys[name]]
        try:
            lora = loras[name].fitted(before.shape)
        except TenutoError as error:
            raise TenutoError(f"{path}: {name}: {error}") from error
        after = moved(before, lora.delta(), lora.magnitude)
        changed[keys[name]] = (before.float() + weight * (after - before.float())).to(before.dtype)
    return changed


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[Path]:
    """A copy of the folder with only the weights that are read, renamed to its name once the block has ended well."""
    used = {path for part in _components(source) for path in weight_files(source / part)}

    def unused(folder: str, names: list[str]) -> list[str]:
        inside = Path(folder).name in COMPONENTS
        ours = [Path(folder) / name for name in names]
        doubles = [path for path in ours if inside and path.suffix == ".safetensors" and path not in used]
        return [path.name for path in (*doubles, *(path for path in ours if path.suffix.lower() in PICKLES))]

    temporary = target.with_name(f".{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        try:
            shutil.copytree(source, temporary, ignore=unused)
        except OSError as error:
            raise TenutoError(
                f"{target}: cannot be written ({error}); free some space or choose another place"
            ) from error
        yield temporary
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# -- out of two -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extraction:
    """What a LoRA holds of the difference of two checkpoints, and what it does not."""

    changes: Mapping[str, Change]
    left: Mapping[str, float] = field(default_factory=dict)
    """Tensors that differ and are not in it (norms, biases, embeddings, parts not asked for) -> their |difference|."""

    @property
    def left_share(self) -> float:
        """|what is left out| / |the whole difference|."""
        left = math.hypot(*self.left.values())
        return left / whole if (whole := math.hypot(left, *(c.norm for c in self.changes.values()))) else 0.0


def extract(
    base: Path,
    tuned: Path,
    cut: Cut,
    *,
    parts: Collection[Part] | None = None,
    dtype: torch.dtype = torch.float32,
    listener: Listener = silent,
) -> tuple[LoraFile, Extraction]:
    """The LoRA that turns `base` into `tuned`, as far as its rank allows; both are folders in diffusers layout.

    Raises TenutoError when they are not of one architecture, or do not differ.
    """
    ours, theirs = (_open(folder) for folder in (base, tuned))
    if odd := sorted(ours.keys() ^ theirs.keys()):
        raise TenutoError(f"{base} and {tuned} differ in {len(odd)} tensors, first {odd[0]}; not of one architecture")
    layers: dict[str, Layer] = {}
    changes: dict[str, Change] = {}
    left: dict[str, float] = {}
    for done, (key, where) in enumerate(ours.items(), 1):
        before, after = where.read(), theirs[key].read()
        if before.shape != after.shape:
            raise TenutoError(f"{tuned}: {key} is {list(after.shape)}, in {base} {list(before.shape)}")
        delta = after.float() - before.float()
        if not delta.isfinite().all():
            raise TenutoError(f"{key} of {base} or {tuned} holds values that are not finite")
        if delta.count_nonzero():
            name = _layer(key, _layout(base)) if delta.ndim in (2, 4) else None
            if name is not None and (parts is None or part_of(name) in parts):
                lora, changes[name] = of_difference(delta, cut)
                layers[name] = lora.layer(dtype)
            else:
                left[key] = float(delta.norm())
        progress(listener, "extracting", done, len(ours))
    if not layers:
        raise TenutoError(f"{base} and {tuned} do not differ in any layer that a LoRA can change")
    file = LoraFile(tuned, dict(sorted(layers.items())), {}, _layout(base), "kohya")
    sources = {"base": base.name, "tuned": tuned.name}
    v_prediction = _prediction(base) == "v_prediction"
    header = version_header(base_version(file, v_prediction), v_prediction)
    header |= {"tenuto_extracted_from": json.dumps(sources, ensure_ascii=False)}
    return LoraFile(tuned, file.layers, header, file.layout, "kohya"), Extraction(changes, left)


@dataclass(frozen=True)
class _Place:
    """A tensor on disk."""

    path: Path
    name: str

    def read(self) -> Tensor:
        try:
            with safe_open(self.path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(self.name)
                return tensor
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise TenutoError(f"{self.path}: {self.name} cannot be read ({error}); download it again") from error


def _open(folder: Path) -> dict[str, _Place]:
    """ "unet.down_blocks…weight" -> where it lies, for everything that LoRAs change. Raises TenutoError."""
    places: dict[str, _Place] = {}
    for part in _components(folder):
        for path in weight_files(folder / part):
            try:
                with safe_open(path, framework="pt") as file:
                    names = list(file.keys())
            except (SafetensorError, OSError) as error:
                raise TenutoError(f"{path}: not a readable safetensors file ({error}); download it again") from error
            places |= {f"{part}.{name.removeprefix('text_model.')}": _Place(path, name) for name in names}
    return {key: place for key, place in places.items() if not key.endswith("position_ids")}


# -- a folder's own words -------------------------------------------------------------------------------------------


def _components(folder: Path) -> list[str]:
    found = [part for part in COMPONENTS if (folder / part).is_dir()]
    if "unet" not in found:
        raise TenutoError(f"{folder}: not a checkpoint in diffusers layout (no unet/ in it)")
    return found


def _layout(folder: Path) -> Layout:
    return "sdxl" if (folder / "text_encoder_2").is_dir() else "sd"


def _layer(key: str, layout: Layout) -> str | None:
    """Our name of the layer whose weight this is; None for what is no usual place of a LoRA."""
    name = from_dotted(key.removesuffix(".weight")) if key.endswith(".weight") else None
    return in_layout(name, layout) if name is not None and _USUAL.match(name) else None


def _keys(part: str, tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, str]:
    """Our name -> key, for every weight that a LoRA can change."""
    found = {key: from_dotted(f"{part}.{key.removesuffix('.weight')}") for key in tensors if key.endswith(".weight")}
    return {in_layout(name, layout): key for key, name in found.items() if name and tensors[key].ndim in (2, 4)}


def _names(folder: Path) -> dict[str, str]:
    """Our name -> key, over all parts of the checkpoint."""
    layout = _layout(folder)
    found = {key: from_dotted(key.removesuffix(".weight")) for key in _open(folder) if key.endswith(".weight")}
    return {in_layout(name, layout): key for key, name in found.items() if name}


def _prediction(folder: Path) -> str:
    try:
        text = (folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")
        return str(json.loads(text).get("prediction_type", "epsilon"))
    except (OSError, ValueError, AttributeError) as error:
        raise TenutoError(f"{folder}: its scheduler/scheduler_config.json cannot be read ({error})") from error
