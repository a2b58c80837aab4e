"""A prior set as sd-scripts takes it: a reg folder and a dataset config, with repeats under which ALL of it is used.

sd-scripts draws as many reg as instance rows per epoch and takes the first reg pictures only. So an instance picture is
repeated until instance rows reach the pool, and the epochs become fewer by as much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil, isqrt
from pathlib import Path
from typing import Any

from tenuto.data.dataset import Item
from tenuto.families.base import Base
from tenuto.files import write_text
from tenuto.formats.exported import Exported, PriorSet, open_folder, safe, write_pictures, write_record
from tenuto.formats.infotext import infotext
from tenuto.formats.sections import dumps
from tenuto.prior.store import PriorImage
from tenuto.project.settings import ConceptSettings, Project
from tenuto.words import Size

NAME = "sd-scripts"


def export(own: PriorSet, folder: Path) -> Exported:
    """FOLDER/reg/1_<concept>/*.png, *.txt and FOLDER/dataset.toml."""
    open_folder(folder)
    records: list[dict[str, Any]] = []
    datasets: list[dict[str, Any]] = []
    notes: list[str] = []
    for concept in own.project.concepts:
        images = own.of(concept)
        place = folder / "reg" / f"1_{safe(concept.class_word or concept.name)}"
        if any(place.name == other["file"].split("/")[0] for other in records):
            place = place.with_name(f"{place.name} {safe(concept.name)}")
        records += [
            {"root": "reg", **record}
            for record in write_pictures(
                own,
                images,
                place,
                name=lambda image, _: image.id,
                text=lambda image: infotext(image, own.base.name, own.base.hash),
                done=len(records),
            )
        ]
        times = scale(own.items, concept, len(images))
        datasets.append(_dataset(own, concept, images, place, times))
        notes += _notes(own, concept, len(images), times)
    notes += _command(own, folder, [scale(own.items, c, len(own.of(c))) for c in own.project.concepts])
    config = {"general": {"caption_extension": ".txt", "enable_bucket": True}, "datasets": datasets}
    comments = "".join(f"# {note}\n" for note in ["Written by `tenuto export`.", *notes])
    write_text(folder / "dataset.toml", f"{comments}\n{dumps(config)}")
    write_record(own, folder, NAME, records)
    return Exported(folder, len(records), tuple(notes))


def scale(items: Sequence[Item], concept: ConceptSettings, pool: int) -> int:
    """What the concept's repeats are multiplied by, so that its instance rows of an epoch reach the pool."""
    rows = sum(item.repeats for item in items if item.concept == concept.name)
    return max(ceil(pool / rows), 1) if rows else 1


def _dataset(
    own: PriorSet, concept: ConceptSettings, images: Sequence[PriorImage], place: Path, times: int
) -> dict[str, Any]:
    """One dataset per concept: reg rows balance the instance rows of their own dataset."""
    project = own.project
    mine = [item for item in own.items if item.concept == concept.name]
    folders = Counter({(item.path.parent, item.repeats): 1 for item in mine})
    tokens = {"class_tokens": concept.caption} if concept.caption else {}
    subsets: list[dict[str, Any]] = [
        {"image_dir": path.resolve().as_posix(), "num_repeats": repeats * times, **tokens, **_variation(project)}
        for path, repeats in folders
    ]
    if images:
        subsets.append({"image_dir": place.resolve().as_posix(), "is_reg": True, "num_repeats": 1})
    for folder in project.prior.folders:
        if folder.use == "prior" and folder.concept in (concept.name, ""):
            classes = {"class_tokens": folder.caption} if folder.caption else {}
            subsets.append({"image_dir": Path(folder.path).as_posix(), "is_reg": True, "num_repeats": 1, **classes})
    return {**_sizes(own.base, project, images), "batch_size": project.training.batch, "subsets": subsets}


def _variation(project: Project) -> dict[str, Any]:
    """On the instance subset alone: there, what stands above it would vary the reg captions too."""
    variation, extension = project.data.variation, project.data.caption_extension
    settings = {
        "shuffle_caption": variation.shuffle, "keep_tokens": variation.keep_tokens, "flip_aug": variation.flip,
        "caption_dropout_rate": variation.caption_dropout, "caption_tag_dropout_rate": variation.tag_dropout,
        "caption_extension": extension if extension != ".txt" else "",
    }  # fmt: skip
    return {name: value for name, value in settings.items() if value}


def _sizes(base: Base, project: Project, images: Sequence[PriorImage]) -> dict[str, Any]:
    """Bucket settings under which every reg picture lands in a bucket of its own size, unscaled."""
    geometry = base.geometry
    buckets = [*project.data.buckets.sizes(geometry.native, geometry.multiple), *(image.bucket for image in images)]
    largest = max(buckets, key=lambda size: size.width * size.height)
    sides = [side for size in buckets for side in size]
    return {
        "resolution": _resolution(project, geometry.native, largest),
        "enable_bucket": True,
        "min_bucket_reso": min(sides),
        "max_bucket_reso": max([*sides, *geometry.native, isqrt(largest.width * largest.height) + 1]),
        "bucket_reso_steps": geometry.multiple,
        "bucket_no_upscale": True,
    }


def _resolution(project: Project, native: Size, largest: Size) -> int | list[int]:
    area = max(project.data.buckets.area or native.width * native.height, largest.width * largest.height)
    side = isqrt(area)
    return side if side * side == area else list(largest)


def _notes(own: PriorSet, concept: ConceptSettings, pool: int, times: int) -> list[str]:
    rows = sum(item.repeats for item in own.items if item.concept == concept.name)
    if not pool:
        return [f"{concept.name}: no prior image of the base's own"]
    told = (
        f"{concept.name}: {rows} instance rows x {times} = {rows * times} per epoch: all {pool} reg pictures are used"
    )
    draws = rows * times
    extra = f", {draws - pool} of them twice" if pool < draws < 2 * pool else f", each {draws // pool} times or more"
    ratio = own.project.ratios().get(concept.name, 0.0)
    other = f" tenuto's ratio {ratio:g} cannot be said there: sd-scripts draws 1 to 1." if ratio != 1 else ""
    return [f"{told}{extra if draws > pool else ''}.{other}"]


def _command(own: PriorSet, folder: Path, times: Sequence[int]) -> list[str]:
    """What the dataset config cannot hold and the command line must."""
    project, weight = own.project, own.weight()
    training = project.training
    options = [f"--dataset_config={(folder / 'dataset.toml').as_posix()}"]
    options.append(f"--prior_loss_weight={1.0 if weight is None else weight:g}")
    if training.epochs:
        options.append(f"--max_train_epochs={max(ceil(training.epochs / max(times)), 1)}")
    elif training.steps:
        options.append(f"--max_train_steps={training.steps * 2}")
    notes = [f"command line: train_network.py {' '.join(options)}"]
    if training.steps and not training.epochs:
        notes.append("steps are doubled: half of each batch there is reg")
    if training.epochs and max(times) > 1:
        notes.append(f"epochs are {training.epochs} / {max(times)}, for an epoch there holds as many of ours")
    methods = [
        name for name, method in project.regularizers.items() if method.active() and name != "prior_preservation"
    ]
    if methods:
        notes.append(f"sd-scripts has no {', '.join(methods)}: only the pictures are carried")
    if weight is not None and project.regularizers["prior_preservation"].schedule.shape != "constant":
        notes.append("the weight's schedule cannot be said there: the weight stays")
    return notes
