"""What Stable Diffusion 1.x, 2.x and XL have in common: CLIP text encoders, a U-Net with cross-attention, a KL
autoencoder. A family adds how text is read and what the U-Net is told."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tenuto.families.base import Base, Geometry, Part
from tenuto.families.loaded import Loaded
from tenuto.families.narrow import compute_in_float32, lacks, lie_in_float8
from tenuto.families.process import from_alphas
from tenuto.families.resting import Resting
from tenuto.files import hash_text
from tenuto.words import Size, TenutoError

UNET_PARTS: dict[Part, tuple[str, ...]] = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    "convolution": ("conv1", "conv2", "conv_shortcut"),
}
"""Endings of layer names. Attention and feed-forward together are what a plain kohya LoRA holds."""
COMPILER = {"layout_optimization": False}
"""Of torch's compiler. With it (torch 2.13, CPU) frozen convolutions behind one another lose the gradient of what comes
before them: SD's first block on the way up, for one."""
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class LatentDiffusion(Base):
    """Everything is read from the checkpoint's own configs. Derived: `encode_text` and `predict`."""

    PREFIXES: ClassVar[tuple[str, ...]]
    """kohya prefixes of the text encoders, in the order in which they are loaded."""
    LAYER: ClassVar[int]
    """Which layer of the text encoders is read, counted from the end, unless clip_skip goes further back."""

    def __init__(self, loaded: Loaded) -> None:
        request, unet = loaded.request, loaded.unet
        _refuse_misfits(loaded)
        self.name, self.device, self.dtype = request.name, request.device, request.dtype
        self.layer = max(request.clip_skip, self.LAYER)
        self.hash = loaded.content
        if self.layer != self.LAYER:
            self.hash = hash_text(self.hash, f"clip_skip {self.layer}")
        if request.fp8:
            lie_in_float8(unet)
            self.hash = hash_text(self.hash, "fp8")
        self.coarse = request.fp8 or request.dtype != torch.float32
        bits = ("the U-Net's blocks lie in 8 bits (base.fp8)",) if request.fp8 else ()
        self.notes = (f"{loaded.title}, {loaded.noising}", *bits, *loaded.remarks)
        self.words = loaded.words
        self.denoiser = _frozen(unet, self.device)
        self.vae = _frozen(loaded.vae.module, self.device)
        encoders = [_frozen(encoder.module, self.device) for encoder in loaded.text_encoders]
        self.text_encoders = dict(zip(self.PREFIXES, encoders, strict=True))
        self._vae, *self._encoders = [Resting(own) for own in (loaded.vae, *loaded.text_encoders)]
        self._scheduler = dict(loaded.scheduler)
        self._targets = {part: {"lora_unet": _named(unet, endings)} for part, endings in UNET_PARTS.items()}
        self._targets["text_encoder"] = {name: _named(own, TEXT) for name, own in self.text_encoders.items()}
        if lacks(self.device, self.dtype):
            for own in (unet, *encoders):
                compute_in_float32(own)
        self.geometry = geometry_of(unet.config, self.vae.config)
        told = self.vae.config
        self._scale, self._shift = float(told.scaling_factor), float(told.get("shift_factor") or 0.0)
        schedule: Any = DDPMScheduler
        self.process = from_alphas(schedule.from_config(self._scheduler).alphas_cumprod, loaded.noising.prediction)

    def chunks(self, prompt: str) -> int:
        return self.words[0].passes(prompt)

    def tokens(self, prompts: Sequence[str], chunks: int | None) -> list[Tensor]:
        """Per text encoder, [B P 77] on the device."""
        return [own.table(prompts, chunks).to(self.device) for own in self.words]

    # -- pictures -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        self._vae.come(self.device)
        mode = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist.mode()
        scaled: Tensor = (mode - self._shift) * self._scale
        return scaled.float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self._vae.come(self.device)
        plain = latents.to(self.device, self.vae.dtype) / self._scale + self._shift
        pixels: Tensor = self.vae.decode(plain).sample
        return pixels.float().clamp(-1, 1)

    def rest(self, *, text: bool = True) -> None:
        for own in (self._vae, *(self._encoders if text else ())):
            own.leave(self.device)

    def called(self) -> tuple[Any, ...]:
        """The text encoders, on the device."""
        for encoder in self._encoders:
            encoder.come(self.device)
        return tuple(self.text_encoders.values())

    def modules(self) -> dict[str, nn.Module]:
        for encoder in self._encoders:
            encoder.fill()
        return super().modules()

    # -- the denoiser -------------------------------------------------------------------------------------------

    def adapter_targets(self, part: Part) -> dict[str, list[str]]:
        return {prefix: list(names) for prefix, names in self._targets[part].items()}

    def scheduler_config(self) -> dict[str, object]:
        return dict(self._scheduler)

    def checkpointing(self, on: bool) -> None:
        # both libraries recompute in train mode only; dropout stays off, so that nothing else changes
        unet: Any = self.denoiser
        encoders: list[Any] = list(self.text_encoders.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers renames it; we support both sides of that
            for own in encoders:
                if on:
                    own.gradient_checkpointing_enable({"use_reentrant": False})
                else:
                    own.gradient_checkpointing_disable()
            if on:
                unet.enable_gradient_checkpointing(_recomputed)
            else:
                unet.disable_gradient_checkpointing()
        for module in (layer for own in (unet, *encoders) for layer in own.modules()):
            module.training = on and not isinstance(module, nn.Dropout)

    def compiled(self, on: bool) -> None:
        if on:
            self.denoiser.compile(options=COMPILER)
        elif self.denoiser._compiled_call_impl is not None:
            self.denoiser._compiled_call_impl = None
            torch.compiler.reset()


def _recomputed(block: nn.Module, *given: Any) -> Any:
    """A block's answer, made again in the backward pass. Nothing in it is drawn at random, so no generator is kept, and
    what is made again needs no check."""
    return checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False, determinism_check="none")


def _refuse_misfits(loaded: Loaded) -> None:
    """Parts that are not of one checkpoint, or of one that has another purpose."""
    request, unet, vae = loaded.request, loaded.unet, loaded.vae.module
    if unet.config.in_channels != vae.config.latent_channels:
        raise TenutoError(
            f"{request.name}: its U-Net takes {unet.config.in_channels} channels and its autoencoder makes "
            f"{vae.config.latent_channels} (an inpainting checkpoint?); use the plain text-to-image one"
        )
    for words, encoder in zip(loaded.words, (own.module for own in loaded.text_encoders), strict=True):
        if len(words.tokenizer) > encoder.config.vocab_size:
            raise TenutoError(
                f"{request.name}: its tokenizer has {len(words.tokenizer)} words and its text encoder only "
                f"{encoder.config.vocab_size}; they are not of one checkpoint"
            )
        if not 1 <= request.clip_skip <= encoder.config.num_hidden_layers:
            raise TenutoError(
                f"{request.name}: clip_skip {request.clip_skip} is out of range; its text encoder has "
                f"{encoder.config.num_hidden_layers} layers"
            )


def geometry_of(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """Sizes from the parts' configs. Every block but the last halves its sides."""
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    multiple = factor * 2 ** (len(unet["block_out_channels"]) - 1)
    side = unet.get("sample_size") or 64
    height, width = (side, side) if isinstance(side, int) else side
    return Geometry(int(unet["in_channels"]), factor, multiple, Size(width * factor, height * factor))


def _named(module: nn.Module, endings: tuple[str, ...]) -> list[str]:
    """Names of the linear and convolution layers that end like this."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(tuple(f".{ending}" for ending in endings))
    ]


def _frozen(module: Any, device: torch.device) -> Any:
    return module.to(device).requires_grad_(False).eval()
