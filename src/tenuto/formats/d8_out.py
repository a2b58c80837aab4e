"""A prior set as D8's class folders: pictures named by their pixels, captions, infotext, and a concepts_list.json."""

from __future__ import annotations

from hashlib import sha1
from math import ceil
from pathlib import Path
from typing import Any

from tenuto.files import write_json
from tenuto.formats.exported import Exported, PriorSet, open_folder, safe, write_pictures, write_record
from tenuto.formats.infotext import infotext
from tenuto.project.settings import ConceptSettings

NAME = "d8"


def export(own: PriorSet, folder: Path) -> Exported:
    """FOLDER/class/<concept>/<sha1>.png, .txt and FOLDER/concepts_list.json."""
    open_folder(folder)
    records: list[dict[str, Any]] = []
    concepts, notes = [], []
    for concept in own.project.concepts:
        images = own.of(concept)
        place = folder / "class" / safe(concept.name)
        records += [
            {"root": "class", **record}
            for record in write_pictures(
                own,
                images,
                place,
                name=lambda _, picture: sha1(picture.tobytes(), usedforsecurity=False).hexdigest(),
                text=lambda image: infotext(image, own.base.name, own.base.hash, none="None"),
                done=len(records),
            )
        ]
        count = sum(item.concept == concept.name for item in own.items)
        concepts.append(_concept(own, concept, place, ceil(len(images) / count) if count else 0))
        notes.append(f"{concept.name}: {len(images)} class images for {count} pictures")
    notes += [
        "D8 draws 1 to 1, and its weight and schedule do not reach the loss: ratio and weight cannot be carried",
        "D8 uses a class image only in a bucket that an instance picture has: make the set at D8's resolution",
    ]
    write_json(folder / "concepts_list.json", concepts)
    write_record(own, folder, NAME, records)
    return Exported(folder, len(records), tuple(notes))


def _concept(own: PriorSet, concept: ConceptSettings, place: Path, per_image: int) -> dict[str, Any]:
    sampler = own.project.sampler()
    return {
        "instance_data_dir": str(Path(concept.images).resolve()),
        "class_data_dir": str(place.resolve()),
        "instance_prompt": "[filewords]",
        "class_prompt": "[filewords]",
        "instance_token": concept.trigger,
        "class_token": concept.class_word,
        "num_class_images_per": per_image,
        "class_negative_prompt": sampler.negative,
        "class_guidance_scale": sampler.guidance,
        "class_infer_steps": sampler.steps,
    }
