"""A prior set on its way to another trainer: decoded pictures with captions and infotext, and a record of it all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tenuto.data.dataset import Item
from tenuto.events import Listener, progress, silent
from tenuto.families.base import Base
from tenuto.files import write_json, write_text, written_whole
from tenuto.prior.store import PriorImage, PriorStore
from tenuto.project.settings import ConceptSettings, Project
from tenuto.words import Stopped, TenutoError

RECORD = "tenuto.json"
"""The export's own record, in its folder: what other trainers' formats cannot hold stands here."""


@dataclass(frozen=True)
class PriorSet:
    """Everything that an export needs."""

    project: Project
    base: Base
    store: PriorStore
    images: Sequence[PriorImage]
    """What the base made; the user's own reg pictures stay where they are."""
    captions: Mapping[str, str]
    """Image id -> what its row is trained with."""
    items: Sequence[Item]
    """The instance pictures."""
    listener: Listener = silent
    stop: Callable[[], bool] = field(default=lambda: False)

    def of(self, concept: ConceptSettings) -> list[PriorImage]:
        """The concept's own prior images; the shared ones go to the first concept."""
        first = concept is self.project.concepts[0]
        return [image for image in self.images if image.concept == concept.name or (first and not image.concept)]

    def decoded(self, image: PriorImage) -> Image.Image:
        """The picture, through the base's own autoencoder."""
        pixels = self.base.decode(self.store.latents(image.id)[None])[0].float().cpu()
        array = ((pixels.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        return Image.fromarray(array)

    def weight(self) -> float | None:
        """What a prior row counts in the loss, where a method says it."""
        method = self.project.regularizers.get("prior_preservation")
        return method.weight if method is not None and method.active() else None


@dataclass(frozen=True)
class Exported:
    """What was written, and what the other trainer will do otherwise."""

    folder: Path
    pictures: int
    notes: tuple[str, ...]


def write_pictures(
    own: PriorSet,
    images: Sequence[PriorImage],
    folder: Path,
    *,
    name: Callable[[PriorImage, Image.Image], str],
    text: Callable[[PriorImage], str],
    done: int,
) -> list[dict[str, Any]]:
    """Pictures as PNG with infotext, and their captions beside them; returns the record of each.

    done: how many were written before, for the progress.
    """
    records = []
    for number, image in enumerate(images, start=1):
        if own.stop():
            raise Stopped(f"stopped: {done + number - 1} of {len(own.images)} pictures are written; run it again")
        picture = own.decoded(image)
        path = folder / f"{name(image, picture)}.png"
        _write_png(path, picture, text(image))
        caption = own.captions.get(image.id, image.prompt)
        write_text(path.with_suffix(".txt"), caption)
        about = {"prompt": image.prompt, "caption": caption, "negative": image.negative, "seed": image.seed,
                 "sampler": image.sampler, "steps": image.steps, "guidance": image.guidance,
                 "size": str(image.bucket), "id": image.id}  # fmt: skip
        records.append({"file": f"{folder.name}/{path.name}", **about})
        progress(own.listener, "decoding prior images", done + number, len(own.images))
    return records


def _write_png(path: Path, picture: Image.Image, text: str) -> None:
    info = PngInfo()
    try:
        text.encode("latin-1")
        info.add_text("parameters", text)
    except UnicodeEncodeError:
        info.add_itxt("parameters", text)
    with written_whole(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=info)


def open_folder(folder: Path) -> None:
    """An empty folder, or one of an earlier export, whose pictures are taken out. Raises TenutoError for any other."""
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return
        known = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        named = [(folder / entry["root"] / entry["file"]).resolve() for entry in known["pictures"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TenutoError(
            f"{folder}: holds other things than an export of tenuto; name a new folder with -o"
        ) from error
    for path in named:
        if path.is_relative_to(folder.resolve()) and path.suffix == ".png":
            path.unlink(missing_ok=True)
            path.with_suffix(".txt").unlink(missing_ok=True)


def write_record(own: PriorSet, folder: Path, system: str, pictures: Sequence[dict[str, Any]]) -> None:
    """What was exported, from what, and the numbers that the other format has no place for."""
    project = own.project
    methods = {name: method.model_dump(mode="json") for name, method in project.regularizers.items()}
    facts = {"system": system, "base": own.base.hash, "model": own.base.name, "ratios": project.ratios(),
             "regularizers": methods, "pictures": list(pictures)}  # fmt: skip
    write_json(folder / RECORD, facts)


def safe(name: str) -> str:
    """A name as a folder."""
    return "".join(char if char.isalnum() or char in " -_.()" else "-" for char in name).strip(" .") or "concept"
