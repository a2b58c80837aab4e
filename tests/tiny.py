"""Random-weight Stable Diffusion folders, small enough to be made and run in a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with no merges: every letter is a token."""
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    vocab = {token: i for i, token in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>", model_max_length=77)


def tiny_sd_folder(
    folder: Path,
    *,
    prediction: str = "epsilon",
    seed: int = 0,
    channels: int = 4,
    vae_levels: int = 2,
    **scheduler: Any,
) -> Path:
    """A folder in diffusers layout: U-Net of two levels on 8x8 latents, VAE with f = 2 ** (levels - 1)."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    parts = {
        "unet": UNet2DConditionModel(
            sample_size=8, in_channels=channels, out_channels=channels, layers_per_block=1, block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=4, cross_attention_dim=16, attention_head_dim=4,
        ),
        "vae": _autoencoder(vae_levels, channels),
        "text_encoder": CLIPTextModel(_text(tokenizer, 16)),
        "tokenizer": tokenizer,
        "scheduler": _scheduler(prediction, **scheduler),
    }  # fmt: skip
    return _save(folder, "StableDiffusionPipeline", parts)


def tiny_sd2_folder(folder: Path, *, width: int = 16, prediction: str = "epsilon", seed: int = 0) -> Path:
    """The same for SD 2.x: another text encoder, linear projections. LoRAs tell the family by a text width of 1024."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    parts = {
        "unet": UNet2DConditionModel(
            sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=width, attention_head_dim=(2, 4), use_linear_projection=True, upcast_attention=True,
        ),
        "vae": _autoencoder(2, 4),
        "text_encoder": CLIPTextModel(_text(tokenizer, width, hidden_act="gelu")),
        "tokenizer": tokenizer,
        "scheduler": _scheduler(prediction),
    }  # fmt: skip
    return _save(folder, "StableDiffusionPipeline", parts)


def tiny_sdxl_folder(folder: Path, *, prediction: str = "epsilon", seed: int = 0, **scheduler: Any) -> Path:
    """The same for SDXL: two text encoders, pooled text and sizes, a level with a transformer of depth 2."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    parts = {
        "unet": UNet2DConditionModel(
            sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=40, attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2),
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 12,
        ),
        "vae": _autoencoder(2, 4),
        "text_encoder": CLIPTextModel(_text(tokenizer, 16)),
        "text_encoder_2": CLIPTextModelWithProjection(_text(tokenizer, 24, 3, projection_dim=12, hidden_act="gelu")),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "scheduler": _scheduler(prediction, **scheduler),
    }  # fmt: skip
    return _save(folder, "StableDiffusionXLPipeline", parts)


def _autoencoder(levels: int, channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,) * levels, latent_channels=channels, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        sample_size=8 * 2 ** (levels - 1),
    )  # fmt: skip


def _text(tokenizer: CLIPTokenizer, width: int, layers: int = 2, **config: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **config,
    )  # fmt: skip


def _scheduler(prediction: str, **more: Any) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction,
        clip_sample=False, **more,
    )  # fmt: skip


def _save(folder: Path, pipeline: str, parts: dict[str, Any]) -> Path:
    index: dict[str, Any] = {"_class_name": pipeline}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
