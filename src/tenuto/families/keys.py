"""Names of weights in single-file checkpoints (LDM naming) against diffusers' and transformers', as data.

A single file's U-Net counts its blocks through; diffusers groups them by resolution. The tables are built from a
config, so that any depth and width has one. LoRA files of SDXL name layers after the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Names = dict[str, str]


@dataclass(frozen=True)
class Origin:
    """Where a weight of ours stands in a single file, and what is to be done to it."""

    key: str
    third: int | None = None
    """0, 1 or 2: the query, key or value part of OpenCLIP's joint matrix."""
    transposed: bool = False


UNET_ENDS: Names = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET: Names = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ENDS: Names = {
    f"{side}.{ours}": f"{side}.{theirs}"
    for side in ("encoder", "decoder")
    for ours, theirs in {
        "conv_in": "conv_in",
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.attentions.0": "mid.attn_1",
        "mid_block.resnets.1": "mid.block_2",
        "conv_norm_out": "norm_out",
        "conv_out": "conv_out",
    }.items()
} | {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
VAE_RESNET: Names = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION: Names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}

OPEN_CLIP: Names = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER: Names = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
THIRDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def unet_blocks(config: Mapping[str, Any]) -> Names:
    """ "down_blocks.1.attentions.0" -> "input_blocks.4.1" and so on, for every block of such a U-Net."""
    blocks, deep = dict(UNET_ENDS), int(config["layers_per_block"])
    for i in range(len(config["down_block_types"])):
        for j in range(deep):
            at = 1 + i * (deep + 1) + j
            blocks[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{at}.0"
            blocks[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{at}.1"
        blocks[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(i + 1) * (deep + 1)}.0.op"
    for i, kind in enumerate(config["up_block_types"]):
        for j in range(deep + 1):
            at = i * (deep + 1) + j
            blocks[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{at}.0"
            blocks[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{at}.1"
        below = 2 if "CrossAttn" in kind else 1  # it stands behind the attention, where there is one
        blocks[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{i * (deep + 1) + deep}.{below}.conv"
    return blocks


def ldm_name(name: str, blocks: Names) -> str:
    """A U-Net's layer or weight in LDM naming ("down_blocks.0.resnets.1.conv1" -> "input_blocks.2.0.in_layers.2")."""
    block, rest = _split(name, blocks)
    return ".".join(filter(None, (blocks[block], _renamed(rest, UNET_RESNET) if ".resnets." in block else rest)))


def unet_origins(config: Mapping[str, Any], names: Iterable[str], prefix: str) -> dict[str, Origin]:
    """Where the weights of such a U-Net stand in a single file."""
    blocks = unet_blocks(config)
    return {name: Origin(prefix + ldm_name(name, blocks)) for name in names}


def vae_blocks(config: Mapping[str, Any]) -> Names:
    """Blocks of an autoencoder; the decoder's are counted from the other end."""
    blocks, deep, levels = dict(VAE_ENDS), int(config["layers_per_block"]), len(config["down_block_types"])
    for i in range(levels):
        up = levels - 1 - i
        blocks[f"encoder.down_blocks.{i}.downsamplers.0.conv"] = f"encoder.down.{i}.downsample.conv"
        blocks[f"decoder.up_blocks.{i}.upsamplers.0.conv"] = f"decoder.up.{up}.upsample.conv"
        for j in range(deep + 1):
            blocks[f"encoder.down_blocks.{i}.resnets.{j}"] = f"encoder.down.{i}.block.{j}"
            blocks[f"decoder.up_blocks.{i}.resnets.{j}"] = f"decoder.up.{up}.block.{j}"
    return blocks


def vae_origins(
    config: Mapping[str, Any], names: Iterable[str], prefix: str, *, plain: bool = False
) -> dict[str, Origin]:
    """Where the weights of such an autoencoder stand. `plain`: the file uses diffusers' own names."""
    if plain:
        return {name: Origin(prefix + name) for name in names}
    blocks = vae_blocks(config)
    origins = {}
    for name in names:
        block, rest = _split(name, blocks)
        inner = VAE_RESNET if ".resnets." in block else VAE_ATTENTION if ".attentions." in block else {}
        origins[name] = Origin(f"{prefix}{blocks[block]}.{_renamed(rest, inner)}")
    return origins


def clip_origins(names: Iterable[str], prefix: str) -> dict[str, Origin]:
    """Of a text encoder in transformers' naming; `prefix` includes `text_model.` where the file has it."""
    return {name: Origin(prefix + name.removeprefix("text_model.")) for name in names}


def open_clip_origins(names: Iterable[str], prefix: str, projection: str = "text_projection") -> dict[str, Origin]:
    """Of a text encoder in OpenCLIP's naming, where query, key and value are one matrix.

    `projection`: how the file calls the last matrix; under OpenCLIP's own name it is transposed.
    """
    return {name: _open_clip_origin(name.removeprefix("text_model."), prefix, projection) for name in names}


def _open_clip_origin(name: str, prefix: str, projection: str) -> Origin:
    if name == "text_projection.weight":
        return Origin(prefix + projection, transposed=projection == "text_projection")
    if name in OPEN_CLIP:
        return Origin(prefix + OPEN_CLIP[name])
    _, _, number, rest = name.split(".", 3)  # encoder.layers.<number>.<rest>
    layer = f"{prefix}transformer.resblocks.{number}."
    for third, own in enumerate(THIRDS):
        if rest.startswith(own + "."):
            return Origin(f"{layer}attn.in_proj_{rest.removeprefix(own + '.')}", third=third)
    return Origin(layer + _renamed(rest, OPEN_CLIP_LAYER))


def _split(name: str, blocks: Names) -> tuple[str, str]:
    """("down_blocks.0.resnets.1", "conv1.weight"): the longest block that a name begins with, and the rest."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        block = ".".join(parts[:end])
        if block in blocks:
            return block, ".".join(parts[end:])
    raise KeyError(name)


def _renamed(rest: str, inner: Names) -> str:
    for ours, theirs in inner.items():
        if rest == ours or rest.startswith(ours + "."):
            return theirs + rest.removeprefix(ours)
    return rest
