"""Taggers: fixed models that say what a picture shows. Drop another kind into KINDS; the rest never asks which it
is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tenuto.evaluation.convnet import CONCEPTS, ConvTagger, TaggerConfig
from tenuto.evaluation.readings import Seen
from tenuto.evaluation.wd_tagger import Vocabulary, WdTagger, is_wd
from tenuto.files import first_line, hash_file, parse_json, write_tensors, write_text
from tenuto.words import TenutoError

CONFIG, WEIGHTS = "tagger.json", "model.safetensors"
NOTHING = Vocabulary({})


class Tagger(Protocol):
    """Reads pictures. `groups` that are in `single` have exactly one right answer."""

    groups: Mapping[str, tuple[str, ...]]
    single: tuple[str, ...]
    concepts: tuple[str, ...]
    hash: str

    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pixels [B 3 H W] in -1..1 to probabilities [B n] per group; "concepts" holds the detectors."""


class ConvnetTagger:
    """A trained ConvTagger; also an `Encoder`, by what its answers are read from."""

    def __init__(self, network: ConvTagger, name: str, hash: str) -> None:
        config = network.config
        self.name = name
        self.groups: Mapping[str, tuple[str, ...]] = config.groups
        self.single = tuple(name for name in config.groups if name not in config.several)
        self.concepts = config.concepts
        self.hash = hash
        self._network = network.eval()

    def read(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            answers = self._network.probabilities(self._placed(pixels))
        return {name: answer.cpu().clone() for name, answer in answers.items()}

    def features(self, pixels: Tensor) -> Tensor:
        """What its answers are read from [B D]: for distances between sets of pictures."""
        with torch.inference_mode():
            return self._network.features(self._placed(pixels)).cpu().clone()

    def see(self, pixels: Tensor) -> Tensor:
        """The same, of length 1."""
        return F.normalize(self.features(pixels), dim=-1)

    def _placed(self, pixels: Tensor) -> Tensor:
        return pixels.to(next(self._network.parameters()).device, torch.float32)


def load_tagger(folder: Path, device: torch.device | str = "cpu", vocabulary: Vocabulary = NOTHING) -> Tagger:
    """The tagger in a folder: tagger.json and weights, or model.onnx and selected_tags.csv, which is asked for the tags
    of `vocabulary`. It has to read a blank picture. Raises TenutoError naming what is wrong with it."""
    try:
        tagger = WdTagger(folder, vocabulary) if is_wd(folder) else _kind_in(folder)(folder, device)
        read_pictures(tagger, torch.zeros(1, 3, 32, 32))
        return tagger
    except TenutoError:
        raise
    except Exception as error:  # whatever a library makes of a damaged graph
        raise TenutoError(f"{folder}: reads no picture ({first_line(error)}); copy the folder again") from error


def _kind_in(folder: Path) -> Callable[[Path, torch.device | str], Tagger]:
    try:
        kind = parse_json((folder / CONFIG).read_text(encoding="utf-8"))["kind"]
    except FileNotFoundError as error:
        raise TenutoError(f"{folder}: no tagger here ({CONFIG} is missing); name a tagger's folder") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TenutoError(f"{folder / CONFIG}: not a tagger's description ({error}); copy the folder again") from error
    if not isinstance(kind, str) or kind not in KINDS:
        raise TenutoError(f"{folder / CONFIG}: kind {str(kind)[:40]!r} is not known; known are {', '.join(KINDS)}")
    return KINDS[kind]


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
            f"{folder / WEIGHTS}: does not fit {CONFIG} ({first_line(error)}); copy the folder again"
        ) from error
    return ConvnetTagger(network.to(device), folder.name, hash_file(folder / WEIGHTS))


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
