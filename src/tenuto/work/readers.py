"""Who reads the pictures of a comparison: tagger and encoders, found before any long work, loaded when it is time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tenuto.data.bank import Bank
from tenuto.data.captions import split_tags
from tenuto.data.dataset import Concept, Item
from tenuto.evaluation.encoders import Encoder, Reads, load_clip, load_dino
from tenuto.evaluation.taggers import Tagger, load_tagger
from tenuto.evaluation.wd_tagger import GRAPH, LIST, Vocabulary
from tenuto.families.checkpoints import hub_folder
from tenuto.project.settings import Project
from tenuto.words import TenutoError

ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "*token*.json",
    "vocab.json",
    "merges.txt",
)
TAGGER_FILES = (GRAPH, LIST, "tagger.json", "model.safetensors")


@dataclass(frozen=True)
class Places:
    """Folders; None where there is no such reader."""

    tagger: Path | None
    dino: Path | None
    clip: Path | None


@dataclass(frozen=True)
class Readers:
    """Loaded."""

    tagger: Tagger | None
    dino: Encoder | None
    clip: Reads | None


def find_readers(project: Project, beside: Path | None) -> Places:
    """The folders of what [comparison] names, fetched from the hub where needed. `beside`: the tagger that the
    checkpoint carries. Raises TenutoError for what is not there."""
    own = project.comparison
    tagger = _folder("tagger", own.tagger, TAGGER_FILES)
    return Places(tagger or beside, _folder("dino", own.dino, ENCODER_FILES), _folder("clip", own.clip, ENCODER_FILES))


def load_readers(
    places: Places, device: torch.device, bank: Bank, concepts: Sequence[Concept], items: Sequence[Item]
) -> Readers:
    tags = {tag: None for item in items for tag in split_tags(item.caption)}
    vocabulary = Vocabulary(bank.groups, tuple(tags), {concept.name: concept.trigger for concept in concepts})
    return Readers(
        load_tagger(places.tagger, device, vocabulary) if places.tagger else None,
        load_dino(places.dino, device) if places.dino else None,
        load_clip(places.clip, device) if places.clip else None,
    )


def _folder(setting: str, name: str | None, files: Sequence[str]) -> Path | None:
    if name is None:
        return None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise TenutoError(f"comparison.{setting}: {name} is no folder here and no hub id (owner/name); mend the path")
    return hub_folder(name, files)
