"""The denoiser's parts as they are before training: tokenizer, text encoder, U-Net, noise schedule."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from tools.pocket.vae import LATENTS
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 128
CHANNELS = (64, 128, 192)
BPE = "open_clip/bpe_simple_vocab_16e6.txt.gz"


def _alphabet() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes, in CLIP's order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(rest))]


def write_tokenizer(wheel: Path, folder: Path) -> None:
    """vocab.json and merges.txt from the vocabulary inside the open_clip_torch wheel (MIT licence)."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        lines = gzip.decompress(archive.read(BPE)).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    letters = _alphabet()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(
        json.dumps({word: index for index, word in enumerate(words)}, ensure_ascii=False)
    )
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="<|endoftext|>", model_max_length=77
    )
    tokenizer.save_pretrained(folder)


def build_text_encoder(deviation: float = 0.15) -> CLIPTextModel:
    """The embeddings start large, so that a word which training never meets still says something."""
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
    )
    for name, module in model.named_modules():
        if name.endswith("token_embedding"):
            nn.init.normal_(module.weight, std=deviation)
    return model


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENTS,
        out_channels=LATENTS,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    ).to(memory_format=torch.channels_last)


def build_schedule() -> DDPMScheduler:
    """Stable Diffusion 1's noise: scaled_linear, epsilon."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
    )
