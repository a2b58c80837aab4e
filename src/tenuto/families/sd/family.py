"""Stable Diffusion 1.x / 2.x: one CLIP text encoder, a U-Net with cross-attention, a KL autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor

from tenuto.families.base import Conditioning
from tenuto.families.latent import LatentDiffusion
from tenuto.families.text import hidden
from tenuto.words import Size


@final
class StableDiffusion(LatentDiffusion):
    """SD 1.x (eps) and 2.x (eps or v)."""

    family = "sd"
    PREFIXES = ("lora_te",)
    LAYER = 1

    def encode_text(self, prompts: Sequence[str], sizes: Sequence[Size], chunks: int | None = None) -> Conditioning:
        """Each pass of CHUNK tokens gets its own begin and end mark; passes stand one after the other along L."""
        (encoder,), (tokens,) = self.called(), self.tokens(prompts, chunks)
        return Conditioning(self._read(encoder, tokens.flatten(0, 1)).reshape(len(prompts), tokens[0].numel(), -1))

    def _read(self, encoder: Any, tokens: Tensor) -> Tensor:
        """The last layer, or an earlier one under the same final norm: [N 77 D]."""
        if self.layer == 1:
            features: Tensor = encoder(tokens).last_hidden_state
            return features
        skipped: Tensor = encoder.final_layer_norm(hidden(encoder, tokens, self.layer)[0])
        return skipped

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        told = cond.to(self.device, self.dtype)
        answer: Tensor = self.denoiser(x_t.to(self.device, self.dtype), t.to(self.device), told.text).sample
        return answer
