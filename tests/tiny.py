"""Random-weight Stable Diffusion folders, small enough to be made and run in a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


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
        "vae": AutoencoderKL(
            block_out_channels=(8,) * vae_levels, latent_channels=channels, norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * vae_levels, up_block_types=("UpDecoderBlock2D",) * vae_levels,
            sample_size=8 * 2 ** (vae_levels - 1),
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        "tokenizer": tokenizer,
        "scheduler": DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction,
            clip_sample=False, **scheduler,
        ),
    }  # fmt: skip
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
