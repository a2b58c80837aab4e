"""Encoders: fixed networks that turn pictures (and words) into features whose cosine says how alike they are.

DINOv2 (arXiv:2304.07193) sees what a subject is, CLIP (arXiv:2103.00020) also reads prompts. Folders as transformers
writes them: config.json, model.safetensors, preprocessor_config.json (and CLIP's tokenizer). Values of different
encoders cannot be compared with each other: comparison.json names which one read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor
from transformers import AutoModel, CLIPModel, CLIPTokenizer

from tenuto.files import first_line, hash_file, hash_text, parse_json
from tenuto.words import TenutoError

CONFIG, WEIGHTS, PREPARATION = "config.json", "model.safetensors", "preprocessor_config.json"
BLANK = torch.zeros(1, 3, 32, 32)


@runtime_checkable
class Encoder(Protocol):
    """Sees pictures. A tagger with features of its own is one too."""

    name: str
    hash: str

    def see(self, pixels: Tensor) -> Tensor:
        """Pixels [B 3 H W] in -1..1 to features [B D] of length 1."""


class Reads(Encoder, Protocol):
    """Also reads prompts."""

    def read(self, texts: Sequence[str]) -> Tensor:
        """Features [B D] of length 1."""


class ShortestEdge(BaseModel):
    """A size that keeps the picture's shape."""

    shortest_edge: PositiveInt


class Exact(BaseModel):
    """A size of both sides."""

    height: PositiveInt
    width: PositiveInt


class Preparation(BaseModel):
    """preprocessor_config.json, as far as it matters: resize the shorter side, cut out the middle, normalise."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    size: int | ShortestEdge | Exact = 224
    crop_size: int | Exact | None = None
    do_center_crop: bool = True
    do_resize: Literal[True] = True
    do_normalize: Literal[True] = True
    resample: Literal[2, 3] = 3
    """Pillow's numbers: bilinear, bicubic."""
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    def apply(self, pixels: Tensor) -> Tensor:
        """[B 3 H W] in -1..1 to what the network takes."""
        height, width = pixels.shape[2:]
        if isinstance(self.size, Exact):  # whatever the picture's shape
            shape = self.size.height, self.size.width
        else:
            side = self.size if isinstance(self.size, int) else self.size.shortest_edge
            shape = (
                max(side, round(height * side / min(height, width))),
                max(side, round(width * side / min(height, width))),
            )
        mode = "bilinear" if self.resample == 2 else "bicubic"
        resized = F.interpolate(pixels.float(), shape, mode=mode, antialias=True, align_corners=False)
        if self.do_center_crop and self.crop_size is not None:
            resized = _middle(resized, self.crop_size)
        mean, std = (torch.tensor(own).view(1, 3, 1, 1) for own in (self.image_mean, self.image_std))
        return ((resized.cpu().clamp(-1, 1) + 1) / 2 - mean) / std


def _middle(pixels: Tensor, crop: int | Exact) -> Tensor:
    height, width = (crop, crop) if isinstance(crop, int) else (crop.height, crop.width)
    top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
    return pixels[:, :, top : top + height, left : left + width]


class Dino:
    """DINOv2: the features of the class token."""

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        self.name, self.hash = folder.name, _hash(folder)
        self._prepared = _preparation(folder)
        self._network: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._network.to(device).eval()

    @torch.no_grad()
    def see(self, pixels: Tensor) -> Tensor:
        ready = self._prepared.apply(pixels).to(self._network.device)
        return _unit(self._network(pixel_values=ready).last_hidden_state[:, 0])

    def try_out(self) -> None:
        """Raises what damaged files make the library raise only when it is asked."""
        self.see(BLANK)


class Clip:
    """CLIP: both of its encoders, as they were trained to agree."""

    def __init__(self, folder: Path, device: torch.device | str) -> None:
        self.name, self.hash = folder.name, _hash(folder)
        self._prepared = _preparation(folder)
        self._network: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._network.to(device).eval()
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def see(self, pixels: Tensor) -> Tensor:
        ready = self._prepared.apply(pixels).to(self._network.device)
        return _unit(self._network.visual_projection(self._network.vision_model(pixel_values=ready).pooler_output))

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """Prompts longer than CLIP's 75 tokens are cut: it was not trained to read more."""
        limit = self._network.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
        ).to(self._network.device)
        return _unit(self._network.text_projection(self._network.text_model(**tokens).pooler_output))

    def try_out(self) -> None:
        """Raises what damaged files make the library raise only when it is asked."""
        self.see(BLANK)
        self.read(["a word"])


def load_dino(folder: Path, device: torch.device | str = "cpu") -> Encoder:
    """Raises TenutoError for what is no such encoder."""
    loaded: Encoder = _load(Dino, folder, device, ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit"), "DINO")
    return loaded


def load_clip(folder: Path, device: torch.device | str = "cpu") -> Reads:
    """Raises TenutoError for what is no such encoder."""
    loaded: Reads = _load(Clip, folder, device, ("clip",), "CLIP")
    return loaded


def _load(kind: Any, folder: Path, device: torch.device | str, known: Sequence[str], what: str) -> Any:
    own = _json(folder / CONFIG).get("model_type")
    if own not in known:
        raise TenutoError(f"{folder}: holds {own!r}, which is no {what}; it must be one of {', '.join(known)}")
    if not (folder / WEIGHTS).is_file():
        raise TenutoError(f"{folder}: {WEIGHTS} is missing (pickles are not read); download the encoder again")
    try:
        encoder = kind(folder, device)
        encoder.try_out()
        return encoder
    except TenutoError:
        raise
    except Exception as error:  # the library raises anything on damaged configs
        raise TenutoError(f"{folder}: cannot be loaded ({first_line(error)}); download the encoder again") from error


def _preparation(folder: Path) -> Preparation:
    try:
        return Preparation.model_validate(_json(folder / PREPARATION))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise TenutoError(f"{folder / PREPARATION}: {where}: {error.errors()[0]['msg']}; download it again") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = dict(parse_json(path.read_text(encoding="utf-8")))
        return table
    except (OSError, ValueError, TypeError) as error:
        raise TenutoError(f"{path}: cannot be read ({error}); give an encoder's folder") from error


def _hash(folder: Path) -> str:
    return hash_text(hash_file(folder / WEIGHTS), hash_file(folder / PREPARATION))


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1).cpu()
