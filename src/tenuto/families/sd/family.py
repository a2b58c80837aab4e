"""Stable Diffusion 1.x / 2.x: one CLIP text encoder, a U-Net with cross-attention, a KL autoencoder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tenuto.families.base import CHUNK, Base, Conditioning, Geometry, Part
from tenuto.families.process import Prediction, from_alphas
from tenuto.words import Size, TenutoError

UNET_PARTS: dict[Part, tuple[str, ...]] = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    "convolution": ("conv1", "conv2", "conv_shortcut"),
}
"""Endings of layer names. Attention and feed-forward together are what a plain kohya LoRA holds."""
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}


def open_stable_diffusion(
    tokenizer: Path,
    places: Mapping[str, Path],
    scheduler: dict[str, Any],
    *,
    name: str,
    content: str,
    variants: Mapping[str, str | None],
    device: torch.device,
    dtype: torch.dtype,
    clip_skip: int = 1,
) -> StableDiffusion:
    """Load the folders of a checkpoint. The autoencoder stays in float32: it is small, and half precision shows."""
    return StableDiffusion(
        name=name,
        content=content,
        tokenizer=_load_tokenizer(tokenizer),
        text_encoder=_load(CLIPTextModel, places["text_encoder"], variants["text_encoder"], dtype=dtype),
        unet=_load(UNet2DConditionModel, places["unet"], variants["unet"], torch_dtype=dtype),
        vae=_load(AutoencoderKL, places["vae"], variants["vae"], torch_dtype=torch.float32),
        scheduler=scheduler,
        device=device,
        dtype=dtype,
        clip_skip=clip_skip,
    )


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Refuses a folder without a vocabulary: the library would go on with an empty one."""
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise TenutoError(f"{folder}: {name} is missing; download the checkpoint again")
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


def _load(kind: Any, folder: Path, variant: str | None, **precision: torch.dtype) -> Any:
    """Refuses a file that lacks weights: the libraries would go on with random ones."""
    model, info = kind.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, variant=variant, output_loading_info=True, **precision
    )
    if missing := sorted(info["missing_keys"]):
        raise TenutoError(
            f"{folder}: {len(missing)} weights are missing, first {missing[0]}; download the checkpoint again"
        )
    return model


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
        text_encoder: Any,
        unet: Any,
        vae: Any,
        scheduler: dict[str, Any],
        device: torch.device,
        dtype: torch.dtype,
        clip_skip: int = 1,
    ) -> None:
        if unet.config.in_channels != vae.config.latent_channels:
            raise TenutoError(
                f"{name}: its U-Net takes {unet.config.in_channels} channels and its autoencoder makes "
                f"{vae.config.latent_channels} (an inpainting checkpoint?); use the plain text-to-image one"
            )
        if len(tokenizer) > text_encoder.config.vocab_size:
            raise TenutoError(
                f"{name}: its tokenizer has {len(tokenizer)} words and its text encoder only "
                f"{text_encoder.config.vocab_size}; they are not of one checkpoint"
            )
        if not 1 <= clip_skip <= text_encoder.config.num_hidden_layers:
            raise TenutoError(
                f"{name}: clip_skip {clip_skip} is out of range; its text encoder has "
                f"{text_encoder.config.num_hidden_layers} layers"
            )
        self.name, self.hash = name, content
        self.device, self.dtype = device, dtype
        self.tokenizer = tokenizer
        self.text_encoder = _frozen(text_encoder, device)
        self.denoiser = _frozen(unet, device)
        self.vae = _frozen(vae, device)
        self.text_encoders = {"lora_te": self.text_encoder}
        self.clip_skip = clip_skip
        self._scheduler = dict(scheduler)
        self._targets = {part: {"lora_unet": _named(unet, endings)} for part, endings in UNET_PARTS.items()}
        self._targets["text_encoder"] = {"lora_te": _named(text_encoder, TEXT)}
        self.geometry = _geometry(unet, vae)
        schedule: Any = DDPMScheduler
        self.process = from_alphas(schedule.from_config(scheduler).alphas_cumprod, prediction_type(scheduler))

    # -- text ---------------------------------------------------------------------------------------------------

    def chunks(self, prompt: str) -> int:
        return _passes(self._tokens(prompt))

    def _tokens(self, prompt: str) -> list[int]:
        return list(self.tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def encode_text(self, prompts: Sequence[str], sizes: Sequence[Size], chunks: int | None = None) -> Conditioning:
        """Each pass of CHUNK tokens gets its own begin and end mark; passes stand one after the other along L."""
        tokens = [self._tokens(prompt) for prompt in prompts]
        needed = max(map(_passes, tokens))
        passes = chunks or needed
        if needed > passes:
            raise ValueError(f"a prompt takes {needed} passes of text, only {passes} were asked for")
        start, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        table = [
            [start, *part, end, *[pad] * (CHUNK - len(part))]
            for ids in tokens
            for part in (ids[at * CHUNK : (at + 1) * CHUNK] for at in range(passes))
        ]
        read = self._read(torch.tensor(table, device=self.device))
        return Conditioning(read.reshape(len(prompts), passes * (CHUNK + 2), -1))

    def _read(self, tokens: Tensor) -> Tensor:
        if self.clip_skip == 1:
            features: Tensor = self.text_encoder(tokens).last_hidden_state
            return features
        states = self.text_encoder(tokens, output_hidden_states=True).hidden_states
        skipped: Tensor = self.text_encoder.final_layer_norm(states[-self.clip_skip])
        return skipped

    # -- pictures -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        mode = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist.mode()
        scaled: Tensor = (mode - self._shift) * self.vae.config.scaling_factor
        return scaled.float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        plain = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor + self._shift
        pixels: Tensor = self.vae.decode(plain).sample
        return pixels.float().clamp(-1, 1)

    @property
    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0.0)

    # -- the denoiser -------------------------------------------------------------------------------------------

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        told = cond.to(self.device, self.dtype)
        answer: Tensor = self.denoiser(x_t.to(self.device, self.dtype), t.to(self.device), told.text).sample
        return answer

    def adapter_targets(self, part: Part) -> dict[str, list[str]]:
        return {prefix: list(names) for prefix, names in self._targets[part].items()}

    def scheduler_config(self) -> dict[str, object]:
        return dict(self._scheduler)

    def checkpointing(self, on: bool) -> None:
        # both libraries recompute in train mode only; dropout stays off, so that nothing else changes
        unet: Any = self.denoiser
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers renames it; we support both sides of that
            if on:
                unet.enable_gradient_checkpointing()
                self.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
            else:
                unet.disable_gradient_checkpointing()
                self.text_encoder.gradient_checkpointing_disable()
        for module in (*unet.modules(), *self.text_encoder.modules()):
            module.training = on and not isinstance(module, nn.Dropout)


def prediction_type(scheduler: Mapping[str, Any]) -> Prediction:
    """What the network answers, from a diffusers scheduler config."""
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise TenutoError(f"scheduler_config.json: prediction_type {kind!r} is none of {', '.join(PREDICTIONS)}")
    return PREDICTIONS[kind]


def _geometry(unet: Any, vae: Any) -> Geometry:
    factor = 2 ** sum(block.downsamplers is not None for block in vae.encoder.down_blocks)
    multiple = factor * 2 ** sum(block.downsamplers is not None for block in unet.down_blocks)
    side = unet.config.sample_size or 64
    height, width = (side, side) if isinstance(side, int) else side
    return Geometry(unet.config.in_channels, factor, multiple, Size(width * factor, height * factor))


def _passes(tokens: Sequence[int]) -> int:
    return max(1, -(-len(tokens) // CHUNK))


def _named(module: nn.Module, endings: tuple[str, ...]) -> list[str]:
    """Names of the linear and convolution layers that end like this."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(tuple(f".{ending}" for ending in endings))
    ]


def _frozen(module: Any, device: torch.device) -> Any:
    return module.to(device).requires_grad_(False).eval()
