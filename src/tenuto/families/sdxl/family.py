"""Stable Diffusion XL: two text encoders, pooled text and the picture's size told beside them.

Shapes: B prompts, P passes of 77 tokens, D features (CLIP-L's, then OpenCLIP bigG's).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from tenuto.families.base import Conditioning
from tenuto.families.latent import LatentDiffusion
from tenuto.families.text import hidden
from tenuto.words import Size


@final
class StableDiffusionXL(LatentDiffusion):
    """SDXL (Podell et al. 2023, arXiv:2307.01952), eps or v. Both encoders' layer before the last is read, bare."""

    family = "sdxl"
    PREFIXES = ("lora_te1", "lora_te2")
    LAYER = 2

    def encode_text(self, prompts: Sequence[str], sizes: Sequence[Size], chunks: int | None = None) -> Conditioning:
        """Features of both encoders side by side; `pooled` [B D2] is the second's view of the first pass.

        `sizes` [B 6] holds what SDXL was trained to hear: original height and width, crop top and left, target height
        and width. A row says its own bucket, uncropped: nobody wants pictures that look enlarged or cut.
        """
        first, second = self.tokens(prompts, chunks)
        rows = len(prompts), first[0].numel(), -1
        one, two = self.called()
        features, _ = hidden(one, first.flatten(0, 1), self.layer)
        more, answer = hidden(two, second.flatten(0, 1), self.layer)
        text = torch.cat([features.reshape(rows), more.reshape(rows)], dim=-1)
        pooled = answer.text_embeds.reshape(*second.shape[:2], -1)[:, 0]
        told = [[size.height, size.width, 0, 0, size.height, size.width] for size in sizes]
        return Conditioning(text, (("pooled", pooled), ("sizes", torch.tensor(told, device=self.device).float())))

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        told = dict(cond.extra)
        added = {
            "text_embeds": told["pooled"].to(self.device, self.dtype),
            "time_ids": told["sizes"].to(self.device),  # in float32 at any precision: bfloat16 cannot count pixels
        }
        text = cond.text.to(self.device, self.dtype)
        answer: Tensor = self.denoiser(
            x_t.to(self.device, self.dtype), t.to(self.device), text, added_cond_kwargs=added
        ).sample
        return answer
