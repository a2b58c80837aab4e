"""Taggers: fixed models that say what a picture shows. Drop another kind into KINDS; the rest never asks which it
is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tenuto.evaluation.convnet import CONCEPTS, ConvTagger, TaggerConfig
from tenuto.evaluation.readings import Seen
from tenuto.files import hash_file, write_tensors, write_text
from tenuto.words import TenutoError

CONFIG, WEIGHTS = "tagger.json", "model.safetensors"


class Tagger(Protocol):
    """Reads pictures. `groups` that are in `single` have exactly one right answer."""

    groups: Mapping[str, tuple[str, ...]]
    single: tuple[str, ...]
    concepts: tuple[str, ...]
    hash: str

    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pixels [B 3 H W] in -1..1 to probabilities [B n] per group; "concepts" holds the detectors."""


class ConvnetTagger:
    """A trained ConvTagger."""

    def __init__(self, network: ConvTagger, hash: str = "") -> None:
        config = network.config
        self.groups: Mapping[str, tuple[str, ...]] = config.groups
        self.single = tuple(name for name in config.groups if name not in config.several)
        self.concepts = config.concepts
        self.hash = hash
        self._network = network.eval()

    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        device = next(self._network.parameters()).device
        with torch.inference_mode():
            answers = self._network.probabilities(pixels.to(device, torch.float32))
        return {name: answer.cpu().clone() for name, answer in answers.items()}


def load_tagger(folder: Path, device: torch.device | str = "cpu") -> Tagger:
    """The tagger in a folder (tagger.json + model.safetensors). Raises TenutoError naming what is wrong with it."""
    try:
        kind = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["kind"]
    except FileNotFoundError as error:
        raise TenutoError(f"{folder}: no tagger here ({CONFIG} is missing); name a tagger's folder") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TenutoError(f"{folder / CONFIG}: not a tagger's description ({error}); copy the folder again") from error
    if kind not in KINDS:
        raise TenutoError(f"{folder / CONFIG}: kind {kind!r} is not known; known are {', '.join(KINDS)}")
    return KINDS[kind](folder, device)


def load_convnet(folder: Path, device: torch.device | str = "cpu") -> Tagger:
    try:
        config = TaggerConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"))
        network = ConvTagger(config)
        network.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise TenutoError(f"{folder / CONFIG}: {where}: {error.errors()[0]['msg']}; copy the folder again") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TenutoError(
            f"{folder / WEIGHTS}: does not fit {CONFIG} ({_first_line(error)}); copy the folder again"
        ) from error
    return ConvnetTagger(network.to(device), hash_file(folder / WEIGHTS))


def save_convnet(network: ConvTagger, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a tagger's folder."""
    write_tensors(folder / WEIGHTS, {name: value.to(dtype) for name, value in network.state_dict().items()})
    write_text(folder / CONFIG, network.config.model_dump_json(indent=2) + "\n")


KINDS: dict[str, Callable[[Path, torch.device | str], Tagger]] = {"convnet": load_convnet}


def read_pictures(tagger: Tagger, pixels: Tensor, batch: int = 64) -> Seen:
    """Everything that the tagger sees in these pictures."""
    parts = [tagger.read(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]
    tags = dict(tagger.groups) | ({CONCEPTS: tuple(tagger.concepts)} if tagger.concepts else {})
    return Seen(tags, {name: torch.cat([part[name] for part in parts]) for name in tags}, tuple(tagger.single))


def detector(tagger: Tagger, concept: str) -> str | None:
    """The detector for a concept of this name: "crazy-eyes" finds "crazy eyes" and "crazy_eyes"."""

    def loose(name: str) -> str:
        return name.casefold().replace("-", " ").replace("_", " ")

    return next((name for name in tagger.concepts if loose(name) == loose(concept)), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
