"""Every layer of the real architectures has one name in each naming, and comes back from it."""

from __future__ import annotations

import pytest
from torch import nn

from tenuto.adapters import names
from tests.adapters.made_up import adapted, sd_unet, xl_unet

LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "samplers.0.conv")
TEXT = [f"encoder.layers.{i}.{n}" for i in range(12) for n in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc2")]


@pytest.fixture(scope="module")
def unets() -> dict[names.Layout, nn.Module]:
    return {"sd": sd_unet(), "sdxl": xl_unet()}


@pytest.mark.parametrize(("layout", "linear", "convolutions"), [("sd", 192, 278), ("sdxl", 722, 788)])
def test_counts_are_those_of_kohyas_files(
    unets: dict[names.Layout, nn.Module], layout: names.Layout, linear: int, convolutions: int
) -> None:
    layers = adapted("lora_unet", unets[layout])
    plain = [name for name in layers if name.endswith(LINEAR)]
    both = [name for name in layers if name.endswith((*LINEAR, *CONVOLUTIONS))]
    assert len({names.kohya_name(name, layout) for name in plain}) == linear
    assert len({names.kohya_name(name, layout) for name in both}) == convolutions


@pytest.mark.parametrize("layout", ["sd", "sdxl"])
def test_every_layer_comes_back_from_every_naming(unets: dict[names.Layout, nn.Module], layout: names.Layout) -> None:
    for name in adapted("lora_unet", unets[layout]):
        path = name.partition(".")[2]
        assert names.from_kohya(names.kohya_name(name, layout)) == name
        assert names.from_kohya(names.kohya_name(name, "sd")) == name
        assert names.from_dotted(names.diffusers_name(name)) == name
        assert names.from_dotted(path) == name
        assert names.from_dotted(f"diffusion_model.{names.to_ldm(path)}") == name
    for te in ("lora_te", "lora_te1", "lora_te2"):
        for path in [*TEXT, "text_projection"]:
            assert names.from_kohya(names.kohya_name(f"{te}.{path}", layout)) == f"{te}.{path}"


@pytest.mark.parametrize("layout", ["sd", "sdxl"])
def test_the_layout_is_told_from_the_names(unets: dict[names.Layout, nn.Module], layout: names.Layout) -> None:
    assert names.layout_of(adapted("lora_unet", unets[layout]), ldm=False) == layout


def test_no_layer_of_sdxl_is_left_with_a_diffusers_name(unets: dict[names.Layout, nn.Module]) -> None:
    written = [names.kohya_name(name, "sdxl") for name in adapted("lora_unet", unets["sdxl"])]
    assert not [name for name in written if "down_blocks" in name or "up_blocks" in name or "resnets" in name]


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        ("lora_unet_input_blocks_4_1_proj_in", "lora_unet.down_blocks.1.attentions.0.proj_in"),
        ("lora_unet_input_blocks_6_0_op", "lora_unet.down_blocks.1.downsamplers.0.conv"),
        ("lora_unet_middle_block_2_in_layers_2", "lora_unet.mid_block.resnets.1.conv1"),
        ("lora_unet_output_blocks_5_2_conv", "lora_unet.up_blocks.1.upsamplers.0.conv"),
        ("lora_unet_output_blocks_2_1_conv", "lora_unet.up_blocks.0.upsamplers.0.conv"),  # SD 1.x in LDM names
        ("lora_unet_output_blocks_2_1_proj_in", "lora_unet.up_blocks.0.attentions.2.proj_in"),
        ("lora_unet_label_emb_0_2", "lora_unet.add_embedding.linear_2"),
        ("lycoris_mid_block_attentions_0_proj_out", "lora_unet.mid_block.attentions.0.proj_out"),
        ("lora_te2_text_projection", "lora_te2.text_projection"),
        ("lora_unet_double_blocks_0_img_attn", None),
        ("lora_unet_", None),
        ("lora_te9_text_model_encoder", None),
    ],
)
def test_kohya_names(foreign: str, ours: str | None) -> None:
    assert names.from_kohya(foreign) == ours


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out", ".attn1.to_out.0"),
        ("text_encoder.text_model.encoder.layers.3.self_attn.to_v", "lora_te.encoder.layers.3.self_attn.v_proj"),
        ("text_encoder_2.text_model.encoder.layers.3.mlp.fc1", "lora_te2.encoder.layers.3.mlp.fc1"),
        ("base_model.model.mid_block.resnets.0.conv1", "lora_unet.mid_block.resnets.0.conv1"),
    ],
)
def test_dotted_names(foreign: str, ours: str) -> None:
    read = names.from_dotted(foreign)
    assert read is not None
    assert read.endswith(ours)
