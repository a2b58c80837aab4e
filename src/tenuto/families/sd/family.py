"""Stable Diffusion 1.x / 2.x: one CLIP text encoder, a U-Net with cross-attention, a KL autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tenuto.families.base import CHUNK, Base, Conditioning, Geometry, Part
from tenuto.families.process import Prediction, from_alphas
from tenuto.words import Size

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
CONVOLUTION = ("conv1", "conv2", "conv_shortcut")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@final
class StableDiffusion(Base):
    """SD 1.x (eps) and 2.x (eps or v). Everything is read from the checkpoint's own configs."""

    family = "sd"

    def __init__(
        self,
        *,
        name: str,
        content: str,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: dict[str, Any],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name, self.hash = name, content
        self.device, self.dtype = device, dtype
        self.tokenizer = tokenizer
        self.text_encoder = _frozen(text_encoder, device)
        self.denoiser = _frozen(unet, device)
        self.vae = _frozen(vae, device)
        self.text_encoders = {"lora_te": self.text_encoder}
        self._scheduler = scheduler
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        multiple = factor * 2 ** (len(unet.config.block_out_channels) - 1)
        side = int(unet.config.sample_size) * factor
        self.geometry = Geometry(int(unet.config.in_channels), factor, multiple, Size(side, side))
        self.process = from_alphas(alphas(scheduler), prediction_type(scheduler))

    def chunks(self, prompt: str) -> int:
        return max(1, -(-len(self._tokens(prompt)) // CHUNK))

    def _tokens(self, prompt: str) -> list[int]:
        return list(self.tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def encode_text(self, prompts: Sequence[str], sizes: Sequence[Size], chunks: int | None = None) -> Conditioning:
        tokens = [self._tokens(prompt) for prompt in prompts]
        passes = chunks or max(max(1, -(-len(ids) // CHUNK)) for ids in tokens)
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        table = [
            [start, *part, end, *[pad] * (CHUNK - len(part))]
            for ids in tokens
            for part in (ids[at * CHUNK : (at + 1) * CHUNK] for at in range(passes))
        ]
        read = self.text_encoder(torch.tensor(table, device=self.device)).last_hidden_state
        return Conditioning(read.reshape(len(prompts), passes * (CHUNK + 2), -1))

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        mode = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist.mode()
        return ((mode - self._shift) * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor + self._shift
        return self.vae.decode(scaled).sample.float().clamp(-1, 1)

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        told = cond.to(self.device, self.dtype)
        answer: Tensor = self.denoiser(x_t.to(self.device, self.dtype), t.to(self.device), told.text).sample
        return answer

    def adapter_targets(self, part: Part) -> dict[str, list[str]]:
        if part == "text_encoder":
            return {"lora_te": _named(self.text_encoder, TEXT)}
        endings = {"attention": ATTENTION, "feed_forward": FEED_FORWARD, "convolution": CONVOLUTION}[part]
        return {"lora_unet": _named(self.denoiser, endings)}

    def scheduler_config(self) -> dict[str, object]:
        return dict(self._scheduler)

    def checkpointing(self, on: bool) -> None:
        if on:
            self.denoiser.enable_gradient_checkpointing()
            self.text_encoder.activation_checkpointing_enable()
        elif self.denoiser.is_gradient_checkpointing:
            self.denoiser.disable_gradient_checkpointing()
            self.text_encoder.activation_checkpointing_disable()
        self.denoiser.train(on)  # diffusers recomputes only in train mode; there is no dropout or batch norm in it


def alphas(scheduler: dict[str, Any]) -> Tensor:
    """alpha_bar_t [T] from a diffusers scheduler config (float64 inside, so that no library version matters)."""
    count, first, last = scheduler["num_train_timesteps"], scheduler["beta_start"], scheduler["beta_end"]
    if scheduler["beta_schedule"] == "scaled_linear":
        betas = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
    else:
        betas = torch.linspace(first, last, count, dtype=torch.float64)
    return (1 - betas).cumprod(0).float()


def prediction_type(scheduler: dict[str, Any]) -> Prediction:
    return "v" if scheduler.get("prediction_type") == "v_prediction" else "eps"


def _named(module: nn.Module, endings: tuple[str, ...]) -> list[str]:
    """Names of the linear and convolution layers that end like this, as they are without an adapter."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(name.endswith(f".{ending}") for ending in endings)
    ]


def _frozen(module: Any, device: torch.device) -> Any:
    return module.to(device).requires_grad_(False).eval()
