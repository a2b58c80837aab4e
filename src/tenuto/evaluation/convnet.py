"""The network of a tagger of kind "convnet": a small residual net that says what a picture shows.

    stem 3x3 -> stages of residual blocks, halving the side between stages -> mean over the picture -> one linear head
    per group

A folder holds `tagger.json` (this file's TaggerConfig) and `model.safetensors`. Any picture size works.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tenuto.words import Settings

CONCEPTS = "concepts"


class TaggerConfig(Settings):
    """tagger.json"""

    kind: Literal["convnet"] = "convnet"
    """Which network reads the weights."""
    widths: tuple[int, ...] = (32, 64, 128, 192)
    """Channels of each stage; the default has about 1.1 M parameters."""
    depth: int = 1
    """Residual blocks per stage."""
    groups: dict[str, tuple[str, ...]]
    """Tag group -> its tags, in the order of the head's outputs."""
    several: tuple[str, ...] = ()
    """Groups in which a picture may have several tags or none (sigmoid); all others have exactly one (softmax)."""
    concepts: tuple[str, ...] = ()
    """Names of the concept detectors (sigmoid), in the order of the head's outputs."""
    accuracy: dict[str, float] = Field(default_factory=dict)
    """Measured recall per group on pictures it never saw; for people to read."""
    about: str = ""
    """Where it comes from."""


class Block(nn.Module):
    """y = silu(x + conv(silu(norm(conv(silu(norm(x)))))))"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))  # type: ignore[no-any-return]


class ConvTagger(nn.Module):
    """Pixels [B 3 H W] in -1..1 to raw answers (logits) per group, and under "concepts" where there are detectors."""

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(3, config.widths[0], 3, padding=1)
        stages: list[nn.Module] = []
        before = config.widths[0]
        for width in config.widths:
            stages += [nn.Conv2d(before, width, 3, stride=2, padding=1)]
            stages += [Block(width) for _ in range(config.depth)]
            before = width
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(8, before)
        sizes = {name: len(tags) for name, tags in config.groups.items()}
        if config.concepts:
            sizes[CONCEPTS] = len(config.concepts)
        self.heads = nn.ModuleDict({f"head_{name}": nn.Linear(2 * before, n) for name, n in sizes.items()})

    def features(self, pixels: Tensor) -> Tensor:
        """[B 2D]: mean and maximum over the picture (a small thing is seen by the maximum)."""
        x = F.silu(self.norm(self.stages(self.stem(pixels))))
        return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = self.features(pixels)
        return {name.removeprefix("head_"): head(x) for name, head in self.heads.items()}

    def loss(self, answers: dict[str, Tensor], truth: dict[str, Tensor]) -> Tensor:
        """Sum over groups of cross entropy: class numbers [B] (-1: unknown) where exactly one holds, else 0/1 [B n]."""
        terms = []
        for name, answer in answers.items():
            if name == CONCEPTS or name in self.config.several:
                terms.append(F.binary_cross_entropy_with_logits(answer, truth[name].float()))
            elif bool((truth[name] >= 0).any()):
                terms.append(F.cross_entropy(answer, truth[name], ignore_index=-1))
        return torch.stack(terms).sum()

    def probabilities(self, pixels: Tensor) -> dict[str, Tensor]:
        """[B n] per group."""
        loose = {CONCEPTS, *self.config.several}
        return {
            name: answer.sigmoid() if name in loose else answer.softmax(dim=1) for name, answer in self(pixels).items()
        }
