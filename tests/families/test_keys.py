"""The key tables against diffusers' own converters, at full size and without weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tenuto.families.keys import ldm_name, open_clip_origins, unet_blocks, unet_origins, vae_origins
from tenuto.families.layouts import LAYOUTS
from tenuto.families.recognise import UNET
from tenuto.families.weights import empty
from tests.single_files import VAE, inverse

COUNTS = {"sd1": 686, "sd2": 686, "sdxl": 1680}
"""Tensors in the U-Nets of the published checkpoints."""


def names_and_shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


@pytest.mark.parametrize("form", LAYOUTS)
def test_unet_names_are_what_diffusers_converts(form: str) -> None:
    config = LAYOUTS[form].unet
    ours = empty(UNet2DConditionModel, config).state_dict()
    file = inverse(ours, unet_origins(config, ours, UNET))
    assert len(file) == len(ours) == COUNTS[form]
    back = convert_ldm_unet_checkpoint(file, config)
    assert back.keys() == ours.keys()
    assert all(back[name] is ours[name] for name in ours)


@pytest.mark.parametrize("form", LAYOUTS)
def test_autoencoder_names_are_what_diffusers_converts(form: str) -> None:
    config = LAYOUTS[form].vae
    ours = empty(AutoencoderKL, config).state_dict()
    file = inverse(ours, vae_origins(config, ours, VAE))
    assert len(file) == len(ours) == 248
    back = convert_ldm_vae_checkpoint(file, config)
    assert back.keys() == ours.keys()
    assert all(back[name] is ours[name] for name in ours)


@pytest.mark.parametrize(("form", "kind"), [("sd2", CLIPTextModel), ("sdxl", CLIPTextModelWithProjection)])
def test_open_clip_names_are_what_diffusers_converts(form: str, kind: type) -> None:
    layout = LAYOUTS[form].text_encoders[-1]
    model = kind.config_class(**{**layout.config, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
                                 "num_hidden_layers": 3, "vocab_size": 20, "projection_dim": 8})  # fmt: skip
    encoder = kind(model)
    ours = encoder.state_dict()
    prefix = layout.prefixes[0]
    file = inverse(ours, open_clip_origins(ours, prefix))
    theirs = convert_open_clip_checkpoint(encoder, file, prefix)
    theirs = {name.removeprefix("text_model.").removeprefix("transformer."): value for name, value in theirs.items()}
    for name, value in ours.items():
        assert torch.equal(theirs[name.removeprefix("text_model.")], value), name


def test_names_of_sdxl_layers_as_lora_files_know_them() -> None:
    blocks = unet_blocks(LAYOUTS["sdxl"].unet)
    assert ldm_name("down_blocks.1.attentions.0.proj_in", blocks) == "input_blocks.4.1.proj_in"
    assert ldm_name("mid_block.attentions.0.transformer_blocks.9.ff.net.2", blocks) == (
        "middle_block.1.transformer_blocks.9.ff.net.2"
    )
    assert ldm_name("up_blocks.1.attentions.2.proj_out", blocks) == "output_blocks.5.1.proj_out"
    assert ldm_name("up_blocks.2.resnets.0.conv_shortcut", blocks) == "output_blocks.6.0.skip_connection"
    assert ldm_name("up_blocks.1.upsamplers.0.conv", blocks) == "output_blocks.5.2.conv"
    assert ldm_name("down_blocks.0.downsamplers.0.conv", blocks) == "input_blocks.3.0.op"
    with pytest.raises(KeyError):
        ldm_name("elsewhere.weight", blocks)
