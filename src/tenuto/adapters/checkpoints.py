"""LoRAs and whole checkpoints: a LoRA into one, a LoRA out of the difference of two."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tenuto.adapters.files import LoraFile
from tenuto.adapters.header import base_version, version_header
from tenuto.adapters.layers import Layer, kernel_of
from tenuto.adapters.names import in_layout
from tenuto.adapters.surgery import Change, Cut, of_difference, part_of
from tenuto.adapters.whole import COMPONENTS, Place, components, open_checkpoint
from tenuto.events import Listener, progress, silent
from tenuto.families.base import Part
from tenuto.families.parts import weight_files
from tenuto.files import PICKLES, read_tensors, write_tensors
from tenuto.words import TenutoError

# -- into a checkpoint ----------------------------------------------------------------------------------------------


def merge_into(
    files: Sequence[LoraFile], weights: Sequence[float], source: Path, target: Path, listener: Listener = silent
) -> int:
    """A copy of a checkpoint (folder or single file) with LoRAs added to its weights, whole or not at all. Names,
    number types and all that no LoRA changes stay. Returns the layers changed.

    W' = W + weight * (what the LoRA makes of W, less W), one LoRA after the other. Raises TenutoError where one does
    not fit.
    """
    whole = open_checkpoint(source)
    changes = []
    for file, weight in zip(files, weights, strict=True):
        layers = {in_layout(name, whole.layout): file.layer(name) for name in file.layers}
        if odd := sorted(layers.keys() - whole.layers.keys()):
            raise TenutoError(f"{file.path}: {len(odd)} of its layers are not in {source}, first {odd[0]}")
        changes.append(Addition(file.path, layers, weight))
    with _copied(source, target) as copy:
        paths = whole.files()
        for done, path in enumerate(paths, 1):
            tensors, metadata = read_tensors(path)
            inside = {name: place for name, place in whole.layers.items() if place.path == path}
            for change in changes:
                change.apply(tensors, inside)
            if source.is_file():
                metadata = _merged_header(metadata, changes)
            write_tensors(copy / path.relative_to(source) if source.is_dir() else copy, tensors, metadata)
            progress(listener, "merging", done, len(paths))
    return len({name for change in changes for name in change.layers})


@dataclass(frozen=True)
class Addition:
    """One LoRA that is added at a weight."""

    path: Path
    layers: Mapping[str, Layer]
    weight: float

    def apply(self, tensors: Mapping[str, Tensor], places: Mapping[str, Place]) -> None:
        """Change these tensors of a file, in place."""
        for name in places.keys() & self.layers.keys():
            before = places[name].inside(tensors[places[name].origin.key])
            try:
                after = self.layers[name].moved(before, kernel_of(name))
            except TenutoError as error:
                raise TenutoError(f"{self.path}: {name}: {error}") from error
            before.copy_(before.float() + self.weight * (after - before.float()))


STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata of single files that is wrong once a weight has changed."""


def _merged_header(metadata: Mapping[str, str], changes: Sequence[Addition]) -> dict[str, str]:
    added = [{"file": change.path.name, "weight": change.weight} for change in changes]
    kept = {key: value for key, value in metadata.items() if key not in STALE}
    return kept | {"tenuto_merged_from": json.dumps(added, ensure_ascii=False)}


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[Path]:
    """Of a folder a copy with only the weights that are read, renamed to its name once the block has ended well; of a
    file the new one's name."""
    if source.is_file():
        if target.suffix.lower() != ".safetensors":
            raise TenutoError(
                f"{target}: {source.name} is a single file, and so is what comes of it; end --out in .safetensors"
            )
        yield target
        return
    used = {path for part in components(source) for path in weight_files(source / part)}

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
    """The LoRA that turns `base` into `tuned`, as far as its rank allows; each is a folder or a single file.

    Raises TenutoError when they are not of one architecture, or do not differ.
    """
    whole, other = open_checkpoint(base), open_checkpoint(tuned)
    ours, theirs = whole.places, other.places
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
            name = whole.layer(key) if delta.ndim in (2, 4) else None
            if name is not None and (parts is None or part_of(name) in parts):
                lora, changes[name] = of_difference(delta, cut)
                layers[name] = lora.layer(dtype)
            else:
                left[key] = float(delta.norm())
        progress(listener, "extracting", done, len(ours))
    if not layers:
        raise TenutoError(f"{base} and {tuned} do not differ in any layer that a LoRA can change")
    file = LoraFile(tuned, dict(sorted(layers.items())), {}, whole.layout, "kohya")
    sources = {"base": base.name, "tuned": tuned.name}
    header = version_header(base_version(file, whole.v_prediction), whole.v_prediction)
    header |= {"tenuto_extracted_from": json.dumps(sources, ensure_ascii=False)}
    return LoraFile(tuned, file.layers, header, file.layout, "kohya"), Extraction(changes, left)
