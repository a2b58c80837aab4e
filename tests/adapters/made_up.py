"""Random adapters in every form that files have, for modules that are small or have no weights at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from tenuto.adapters.layers import Lora
from tenuto.adapters.names import plain_name


def sd_unet(width: int = 768, **settings: Any) -> UNet2DConditionModel:
    """SD 1.x's U-Net without memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=width, attention_head_dim=8, **settings)


def xl_unet(channels: tuple[int, ...] = (320, 640, 1280), **settings: Any) -> UNet2DConditionModel:
    """SDXL's U-Net; of its own size without memory, smaller ones with."""
    device = "meta" if channels[0] == 320 else "cpu"
    own: dict[str, Any] = {"cross_attention_dim": 2048, "transformer_layers_per_block": (1, 2, 10)}
    own |= {"attention_head_dim": (5, 10, 20), "projection_class_embeddings_input_dim": 2816}
    with torch.device(device):
        return UNet2DConditionModel(
            block_out_channels=channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8 if device == "cpu" else 256,
            **{**own, **settings},
        )


def small_xl_unet() -> UNet2DConditionModel:
    return xl_unet(
        (8, 16, 16), cross_attention_dim=16, transformer_layers_per_block=(1, 2, 2), attention_head_dim=4,
        norm_num_groups=4, projection_class_embeddings_input_dim=16 + 6 * 8,
    )  # fmt: skip


def adapted(prefix: str, module: nn.Module) -> dict[str, torch.Size]:
    """Our name -> shape of the weight, for every linear layer and convolution."""
    return {
        plain_name(f"{prefix}.{name}"): layer.weight.shape
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * 0.1


def random_lora(shape: Iterable[int], rank: int = 4, alpha: float = 2.0) -> Lora:
    """For a weight of this shape."""
    out, *inner = shape
    ones = (1,) * (len(inner) - 1)
    return Lora(rand(rank, *inner), rand(out, rank, *ones), alpha)
