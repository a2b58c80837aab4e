"""What a layer is called in LoRA files, as data: kohya, LDM (kohya's SDXL) and diffusers names, and ours.

    ours       lora_unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q   lora_te.encoder.layers.0.mlp.fc1
    kohya      lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q   lora_te_text_model_encoder_…
    kohya, XL  lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q             lora_te1_text_model_encoder_…
    diffusers  unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q        text_encoder.text_model.…

Ours is the kohya prefix and the module's own path; transformers 5 has no `text_model.` in it, files have.
Kohya's names are read word by word (layer names have underscores of their own), never by replacing "_" with ".".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from tenuto.families.keys import UNET_RESNET, unet_blocks

Layout = Literal["sd", "sdxl"]
"""Which kohya names a LoRA's layers have: Stable Diffusion 1.x and 2.x, or SDXL."""

Naming = Literal["kohya", "diffusers"]
"""How the tensors of a file are called."""

UNET = "lora_unet"
PREFIXES = {"lora_unet": UNET, "lycoris": UNET, "lora_te": "lora_te", "lora_te1": "lora_te1", "lora_te2": "lora_te2"}
"""First word of a kohya name -> our prefix."""
COMPONENTS = {"lora_unet": "unet", "lora_te": "text_encoder", "lora_te1": "text_encoder", "lora_te2": "text_encoder_2"}
"""Our prefix -> component of a diffusers pipeline."""
DOTTED = {
    "unet": UNET, "diffusion_model": UNET, "model.diffusion_model": UNET, "text_encoder": "lora_te",
    "text_encoder_2": "lora_te2",
}  # fmt: skip
"""First words of a dotted name -> our prefix; `text_encoder` becomes lora_te1 where the file is for SDXL."""

WORDS = (
    # diffusers
    "down_blocks", "mid_block", "up_blocks", "attentions", "resnets", "downsamplers", "upsamplers",
    "transformer_blocks", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "ff", "net", "proj", "proj_in",
    "proj_out", "conv", "conv1", "conv2", "conv_shortcut", "conv_in", "conv_out", "conv_norm_out", "time_emb_proj",
    "time_embedding", "add_embedding", "linear_1", "linear_2", "norm", "norm1", "norm2", "norm3",
    # LDM
    "input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers", "skip_connection", "op",
    "out", "time_embed", "label_emb",
    # CLIP
    "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1", "fc2",
    "text_projection", "final_layer_norm", "layer_norm1", "layer_norm2",
)  # fmt: skip
"""Every word that a layer's path is made of, besides numbers."""

_WORD = re.compile(rf"(?:{'|'.join(sorted(WORDS, key=len, reverse=True))}|\d{{1,3}})(?=_|$)")


LDM = unet_blocks(
    {
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * 4,
        "up_block_types": ("CrossAttnUpBlock2D",) * 4,
    }
)
"""diffusers block -> LDM block, for two layers per block and up to four levels (SDXL has three). What follows the block
is the same in both, but for UNET_RESNET."""

_FROM_LDM = {ldm: block for block, ldm in LDM.items()} | {"output_blocks.2.1.conv": "up_blocks.0.upsamplers.0.conv"}
"""The last one: SD 1.x's first up block has no attention, so that its upsampler stands second."""
_FROM_INNER = {ldm: inner for inner, ldm in UNET_RESNET.items()}

_TEXT_OLD = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""Old diffusers names within a text encoder's attention."""


def kohya_name(layer: str, layout: Layout = "sd") -> str:
    """Our name to kohya's; U-Net layers of SDXL get LDM block names."""
    prefix, _, path = layer.partition(".")
    if prefix == UNET:
        path = to_ldm(path) if layout == "sdxl" else path
    elif not path.startswith(("text_model.", "text_projection")):
        path = f"text_model.{path}"
    return f"{prefix}_{path}".replace(".", "_")


def diffusers_name(layer: str) -> str:
    """Our name to diffusers'."""
    prefix, _, path = layer.partition(".")
    inner = path if prefix == UNET or path.startswith("text_projection") else f"text_model.{path}"
    return f"{COMPONENTS[prefix]}.{inner}"


def from_kohya(name: str) -> str | None:
    """A kohya name (diffusers or LDM blocks) to ours; None when it holds a word that no layer has."""
    for start in sorted(PREFIXES, key=len, reverse=True):
        if name.startswith(f"{start}_"):
            words = _split(name[len(start) + 1 :])
            return plain_name(f"{PREFIXES[start]}.{'.'.join(words)}") if words else None
    return None


def from_dotted(name: str) -> str | None:
    """A dotted name to ours: diffusers old and new, raw peft, LDM paths; without a component it is a U-Net's."""
    name = name.removeprefix("base_model.model.")
    for start in sorted(DOTTED, key=len, reverse=True):
        if name.startswith(f"{start}."):
            return _dotted(DOTTED[start], name[len(start) + 1 :])
    return _dotted(UNET, name)


def _dotted(prefix: str, path: str) -> str | None:
    parts = [part for part in path.split(".") if part != "processor"]
    if prefix != UNET and len(parts) > 1 and parts[-2] == "self_attn":
        parts[-1] = _TEXT_OLD.get(parts[-1], parts[-1])
    elif prefix == UNET and parts[-1] == "to_out":
        parts.append("0")
    known = all(part in WORDS or (part.isascii() and part.isdigit()) for part in parts)
    return plain_name(f"{prefix}.{'.'.join(parts)}") if known else None


def plain_name(layer: str) -> str:
    """One name per layer: diffusers blocks in a U-Net, no `text_model.` in a text encoder."""
    prefix, _, path = layer.partition(".")
    return f"{prefix}.{from_ldm(path) if prefix == UNET else path.removeprefix('text_model.')}"


def to_ldm(path: str) -> str:
    """A U-Net layer's path to LDM's; what has no LDM name stays as it is."""
    block, inner = _block(path, LDM)
    return ".".join(filter(None, (block, UNET_RESNET.get(inner, inner)))) if block else path


def from_ldm(path: str) -> str:
    """An LDM path to diffusers'; what has no LDM block stays as it is."""
    block, inner = _block(path, _FROM_LDM)
    return ".".join(filter(None, (block, _FROM_INNER.get(inner, inner)))) if block else path


def _block(path: str, table: dict[str, str]) -> tuple[str | None, str]:
    """(translation of the longest known beginning, the rest)."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if (block := table.get(".".join(parts[:length]))) is not None:
            return block, ".".join(parts[length:])
    return None, path


def _split(name: str) -> list[str]:
    """ "mid_block_attentions_0_proj_in" -> its words; empty when a word is unknown."""
    words, at = [], 0
    while at < len(name):
        found = _WORD.match(name, at)
        if not found:
            return []
        words.append(found.group())
        at = found.end() + 1
    return words


_SD = re.compile(r"lora_unet\.(down_blocks\.0\.attentions|up_blocks\.3|down_blocks\.3)")
_XL = re.compile(
    r"lora_te[12]\.|lora_unet\.(up_blocks\.0\.attentions|add_embedding|.*transformer_blocks\.[1-9])"
)  # fmt: skip


def layout_of(layers: Iterable[str], ldm: bool) -> Layout:
    """From our names: what only one of the two has decides; else LDM names in the file mean SDXL."""
    names = list(layers)
    if any(map(_SD.match, names)):
        return "sd"
    return "sdxl" if ldm or any(map(_XL.match, names)) else "sd"


def in_layout(layer: str, layout: Layout) -> str:
    """The first text encoder is called lora_te in one layout and lora_te1 in the other, whatever the file said."""
    prefix, _, path = layer.partition(".")
    if prefix in ("lora_te", "lora_te1"):
        prefix = "lora_te" if layout == "sd" else "lora_te1"
    return f"{prefix}.{path}"
