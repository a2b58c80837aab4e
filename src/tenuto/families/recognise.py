"""What a safetensors file is, from its keys and shapes: which layout, or which other thing, named in one line."""

from __future__ import annotations

from collections.abc import Callable

from tenuto.families.header import Header
from tenuto.families.layouts import LAYOUTS, Layout
from tenuto.words import TenutoError

UNET = "model.diffusion_model."
STEM = UNET + "input_blocks.0.0.weight"

Marks = tuple[str, ...]

ADAPTERS: Marks = ("lora_", ".lora_A.", ".lora_B.", ".lora.up.", "lycoris_", ".hada_w1", ".lokr_w", ".oft_blocks")

OTHERS: tuple[tuple[Callable[[Header], bool], str], ...] = (
    (
        lambda header: STEM not in header.shapes and _any(header, *ADAPTERS),
        "a LoRA (or its kin), not a checkpoint; give the checkpoint in base.model and a LoRA in training.start_from",
    ),
    (lambda header: _any(header, "double_blocks."), "a Flux-like model, a family that is not supported"),
    (lambda header: _any(header, "joint_blocks."), "Stable Diffusion 3, a family that is not supported"),
    (lambda header: "clf.1.weight" in header.shapes, "Stable Cascade, a family that is not supported"),
    (lambda header: _any(header, "control_model.", "controlnet_", "zero_convs."), "a ControlNet; use a checkpoint"),
    (
        lambda header: "emb_params" in header.shapes or bool({"clip_l", "clip_g"} & header.shapes.keys()),
        "an embedding (textual inversion); use a checkpoint",
    ),
    (
        lambda header: STEM not in header.shapes and _any(header, "encoder.down", "decoder.up"),
        "an autoencoder alone; give it in base.vae and a checkpoint in base.model",
    ),
    (
        lambda header: STEM not in header.shapes and _any(header, "down_blocks."),
        "one part of a diffusers folder; give the whole folder",
    ),
    (
        lambda header: STEM not in header.shapes and "input_blocks.0.0.weight" in _ends(header),
        "a U-Net alone, without text encoder and autoencoder; use the full checkpoint",
    ),
    (
        lambda header: {"edm_mean", "edm_std"} <= header.shapes.keys() or "edm_vpred.sigma_max" in header.shapes,
        "a model with EDM noise (Playground 2.5, CosXL), which is not supported",
    ),
)
"""Things that are no base, in the order in which they are asked for."""

CHANNELS = {
    9: "an inpainting checkpoint",
    8: "an instruct-pix2pix checkpoint",
    7: "an upscaling checkpoint",
    5: "a depth checkpoint",
}
"""Input channels of a U-Net -> what it is for."""

REFINER = 384
"""Channels of the SDXL refiner's first convolution."""


def recognise(header: Header) -> Layout:
    """The layout that the file follows. Raises TenutoError naming what it is instead."""
    for is_it, what in OTHERS:
        if is_it(header):
            raise TenutoError(f"{header.path}: {what}")
    stem = header.shapes.get(STEM, ())
    if len(stem) != 4:
        raise TenutoError(f"{header.path}: not a Stable Diffusion checkpoint (no {STEM} in it)")
    width, channels = stem[0], stem[1]
    if channels != 4:
        what = CHANNELS.get(channels, "not a text-to-image checkpoint")
        raise TenutoError(
            f"{header.path}: {what} (its U-Net takes {channels} channels); use the plain text-to-image one"
        )
    if width == REFINER:
        raise TenutoError(f"{header.path}: the SDXL refiner; train on the SDXL base checkpoint")
    signature = (width, _text_width(header), bool(header.under(UNET + "label_emb.")))
    for layout in LAYOUTS.values():
        if layout.signature == signature:
            return layout
    raise TenutoError(
        f"{header.path}: a U-Net of {width} channels and text width {signature[1]}"
        f"{', with labels,' if signature[2] else ''} is none of {', '.join(own.title for own in LAYOUTS.values())}; "
        "use a checkpoint of one of these (unCLIP and distilled ones are not supported)"
    )


def _any(header: Header, *marks: str) -> bool:
    return any(mark in key for key in header.shapes for mark in marks)


def _ends(header: Header) -> set[str]:
    return {key.removeprefix("diffusion_model.") for key in header.shapes}


def _text_width(header: Header) -> int:
    keys = sorted(key for key in header.under(UNET) if key.endswith(".attn2.to_k.weight"))
    shape = header.shapes[keys[0]] if keys else ()
    return shape[1] if len(shape) == 2 else 0
