"""The contract of a family: what the rest of tenuto may ask of a loaded checkpoint.

Outside `families/` nobody asks which family it is. Shapes: B rows, C latent channels, H W latent size, L tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from tenuto.families.process import Process
from tenuto.words import Size

Part = Literal["attention", "feed_forward", "convolution", "text_encoder"]
"""A group of layers that an adapter can be put on."""

CHUNK = 75
"""Tokens of text between the begin and end marks of one CLIP pass; longer prompts take several passes."""


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told, per row."""

    text: Tensor
    """Token features [B L D]."""
    extra: tuple[tuple[str, Tensor], ...] = ()
    """Further named inputs of the family (SDXL: pooled text, sizes), each [B ...]."""

    def __len__(self) -> int:
        return self.text.shape[0]

    def rows(self, index: Tensor | Sequence[int] | slice) -> Conditioning:
        return Conditioning(self.text[index], tuple((name, value[index]) for name, value in self.extra))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditioning:
        return Conditioning(
            self.text.to(device, dtype), tuple((name, value.to(device, dtype)) for name, value in self.extra)
        )

    @classmethod
    def join(cls, parts: Sequence[Conditioning]) -> Self:
        """Rows of several, one after the other. All must have the same number of tokens."""
        names = [name for name, _ in parts[0].extra]
        extra = tuple((name, torch.cat([dict(part.extra)[name] for part in parts])) for name in names)
        return cls(torch.cat([part.text for part in parts]), extra)


@dataclass(frozen=True)
class Geometry:
    """Sizes that belong to the checkpoint's own config."""

    channels: int
    """Latent channels C."""
    factor: int
    """Pixels per latent cell along a side."""
    multiple: int
    """A bucket's sides are multiples of this many pixels (factor x the denoiser's own downsampling)."""
    native: Size
    """The picture size that the checkpoint was trained for."""

    def latent(self, size: Size) -> tuple[int, int, int]:
        """(C, H, W) of a picture's latents."""
        return self.channels, size.height // self.factor, size.width // self.factor


class Base(ABC):
    """A loaded checkpoint, frozen: the base being adapted. Adapters are put on its modules from outside."""

    family: str
    hash: str
    """Content hash of every weight that matters (denoiser, text encoders, autoencoder, prediction type)."""
    name: str
    """What the user called it."""
    notes: tuple[str, ...] = ()
    """What was found out about the checkpoint, and from what: the first line says what it is and what it answers."""
    geometry: Geometry
    process: Process
    device: torch.device
    dtype: torch.dtype
    coarse: bool
    """Whether its weights have few bits: a change that was added to them would be rounded."""
    denoiser: nn.Module
    text_encoders: dict[str, nn.Module]
    """kohya prefix ("lora_te"; "lora_te1" and "lora_te2" where there are two) -> module."""

    @property
    def rounding(self) -> str:
        """What the last bits of its answers depend on, beside the checkpoint."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')}{threads}"

    @abstractmethod
    def chunks(self, prompt: str) -> int:
        """How many passes of CHUNK tokens this prompt takes (at least 1)."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str], sizes: Sequence[Size], chunks: int | None = None) -> Conditioning:
        """Prompts to Conditioning; all are padded to `chunks` passes (default: the longest prompt's)."""

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels [B 3 H W] in -1..1 to scaled latents [B C H/f W/f] (the mode of the posterior, no draw)."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pixels [B 3 H W] in -1..1."""

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """The denoiser's native answer [B C H W]; a row's answer does not depend on its neighbours."""

    @abstractmethod
    def adapter_targets(self, part: Part) -> dict[str, list[str]]:
        """kohya prefix of a module ("lora_unet", "lora_te") -> names of its layers that belong to this part."""

    @abstractmethod
    def scheduler_config(self) -> dict[str, object]:
        """The diffusers scheduler config of the checkpoint (betas, prediction type), to build samplers from."""

    @abstractmethod
    def checkpointing(self, on: bool) -> None:
        """Gradient checkpointing of everything that may be trained through."""

    @abstractmethod
    def rest(self, *, text: bool = True) -> None:
        """Let the autoencoder (and the text encoders) leave the device until they are asked for again."""

    @abstractmethod
    def compiled(self, on: bool) -> None:
        """Whether torch.compile makes the denoiser's forwards; what fails shows at the first forward or backward."""

    def modules(self) -> dict[str, nn.Module]:
        """kohya prefix -> module, for everything that adapters can be put on."""
        return {"lora_unet": self.denoiser} | self.text_encoders
