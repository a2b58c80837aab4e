"""Taggers of WD14's kind: a folder with `model.onnx` and `selected_tags.csv`, as SmilingWolf's are downloaded.

What goes in, by the models' public pages and demo: a picture on white, padded with white to a square, resized to the
graph's side (448) with a bicubic filter, [B side side 3], blue-green-red, 0..255 and not normalised. What comes out is
one probability per row of the list, whose categories are danbooru's: 0 general, 4 character, 9 rating.

An ONNX graph is data: it names operations and holds no program of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tenuto.data.captions import split_tags
from tenuto.data.tags import phrases, plain
from tenuto.evaluation.convnet import CONCEPTS
from tenuto.files import first_line, hash_file, hash_text
from tenuto.words import TenutoError

GRAPH, LIST = "model.onnx", "selected_tags.csv"
GENERAL, CHARACTER, RATING = "0", "4", "9"
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True)
class Vocabulary:
    """What a comparison speaks of. A tagger that knows ten thousand tags is asked for these."""

    groups: Mapping[str, tuple[str, ...]]
    """The prompt bank's groups of entries."""
    tags: Collection[str] = ()
    """The captions' tags."""
    concepts: Mapping[str, str] = field(default_factory=dict)
    """Name of each concept -> its trigger."""


class WdTagger:
    """A WD14-like graph, read through the groups of a vocabulary."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        entries = _entries(folder / LIST)
        self._session = _session(folder / GRAPH)
        own = self._session.get_inputs()[0]
        self._input, self._side, self._one = own.name, _side(own.shape, folder / GRAPH), own.shape[0] == 1
        width = self._session.get_outputs()[0].shape[-1]
        if isinstance(width, int) and width != len(entries):
            raise TenutoError(
                f"{folder}: {GRAPH} answers {width} tags and {LIST} names {len(entries)}; download both again"
            )
        self._columns = _columns(entries, vocabulary)
        named = {name: tuple(own) for name, own in self._columns.items()}
        self.concepts: tuple[str, ...] = named.pop(CONCEPTS, ())
        self.groups: Mapping[str, tuple[str, ...]] = named
        self.single: tuple[str, ...] = ("rating",) if "rating" in named else ()
        self.hash = hash_text(hash_file(folder / GRAPH), hash_file(folder / LIST), repr(self._columns))

    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pixels [B 3 H W] in -1..1 to probabilities [B n] per group."""
        pictures = np.stack([_picture(own, self._side) for own in pixels])
        step = 1 if self._one else len(pictures)
        answers = np.concatenate([self._run(pictures[at : at + step]) for at in range(0, len(pictures), step)])
        found = torch.from_numpy(answers).float().clamp(0, 1)
        return {name: found[:, list(columns.values())] for name, columns in self._columns.items()}

    def _run(self, pictures: Any) -> Any:
        return self._session.run(None, {self._input: pictures})[0]


def is_wd(folder: Path) -> bool:
    """Whether the folder holds such a tagger."""
    return (folder / LIST).is_file()


def _picture(pixels: Tensor, side: int) -> Any:
    """One picture [3 H W] as the graph takes it [side side 3]."""
    values = ((pixels.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    height, width = values.shape[:2]
    longest = max(height, width)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(Image.fromarray(values), ((longest - width) // 2, (longest - height) // 2))
    resized = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)[:, :, ::-1]


def _entries(path: Path) -> list[tuple[str, str]]:
    """(tag, category) of every output, in the graph's order."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            entries = [(plain(row["name"]), row["category"].strip()) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise TenutoError(f"{path}: not a tagger's list of tags ({error}); download it again") from error
    if not entries:
        raise TenutoError(f"{path}: names no tags; download it again")
    return entries


def _columns(entries: list[tuple[str, str]], vocabulary: Vocabulary) -> dict[str, dict[str, int]]:
    """Group -> its tags and their places in the answer. A tag stands in the first group that has it."""
    general = {tag: at for at, (tag, category) in enumerate(entries) if category == GENERAL}
    characters = {tag: at for at, (tag, category) in enumerate(entries) if category == CHARACTER}
    taken: set[str] = set()

    def of(tags: Collection[str], known: Mapping[str, int]) -> dict[str, int]:
        chosen = {tag: known[tag] for tag in dict.fromkeys(map(plain, tags)) if tag in known and tag not in taken}
        taken.update(chosen)
        return chosen

    groups = {
        name: of([tag for entry in own for tag in split_tags(entry)], general)
        for name, own in vocabulary.groups.items()
    }
    groups |= {"other": of(vocabulary.tags, general), "character": of(vocabulary.tags, characters)}
    groups["rating"] = {tag: at for at, (tag, category) in enumerate(entries) if category == RATING}
    groups[CONCEPTS] = _detectors(characters | general, vocabulary.concepts)
    return {name: own for name, own in groups.items() if own}


def _detectors(known: Mapping[str, int], concepts: Mapping[str, str]) -> dict[str, int]:
    """Concept -> the output that is called as it is, by its name or its trigger."""
    found: dict[str, int] = {}
    for name, trigger in concepts.items():
        for word in (plain(name.replace("-", " ")), *phrases(trigger)):
            if word in known:
                found.setdefault(name, known[word])
    return found


def _side(shape: list[Any], path: Path) -> int:
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or not isinstance(shape[1], int):
        raise TenutoError(
            f"{path}: takes {shape}, not square pictures [rows, side, side, 3]; give a tagger of WD14's kind"
        )
    return shape[1]


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise TenutoError(f'{path}: needs onnxruntime; pip install "tenuto[tagger]"') from error
    if not path.is_file():
        raise TenutoError(f"{path}: no such file; a tagger's folder holds {GRAPH} and {LIST}")
    providers = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the library's own exceptions have no common class
        raise TenutoError(f"{path}: cannot be loaded ({first_line(error)}); download it again") from error
