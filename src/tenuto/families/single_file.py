"""Reading a checkpoint from one safetensors file, as downloaded: SD 1.x, SD 2.x and SDXL in LDM naming.

fp16, bf16 or fp32; EMA copies and training leftovers are passed over. Nothing is asked of the internet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tenuto.families.autoencoder import PREFIX as VAE
from tenuto.families.autoencoder import Content, autoencoder_of, load_autoencoder
from tenuto.families.hashing import content_hash
from tenuto.families.header import Header, Shape, read_header
from tenuto.families.keys import Origin, clip_origins, open_clip_origins, unet_origins
from tenuto.families.layouts import Layout, TextLayout
from tenuto.families.loaded import Loaded, Request
from tenuto.families.prediction import decided
from tenuto.families.recognise import UNET, recognise
from tenuto.families.resting import Component
from tenuto.families.signs import noising_of_file
from tenuto.families.text import load_words
from tenuto.families.weights import check, empty, fill, filled
from tenuto.words import TenutoError

LEFTOVERS = (
    "model_ema.", "alphas_cumprod", "betas", "sqrt_", "posterior_", "log_", "lvlb_weights", "denoiser.", "v_pred",
    "ztsnr", "global_step", "logit_scale", "position_ids", "model_sampling.",
)  # fmt: skip
"""Keys that begin or end like this are known to play no part in predictions."""


def read_single_file(path: Path, request: Request) -> Loaded:
    """Raises TenutoError for everything that is not a whole text-to-image checkpoint of a known layout."""
    header = read_header(path)
    layout = recognise(header)
    noising = decided(request.name, noising_of_file(header, layout), request.noising)
    scheduler = noising.onto(layout.scheduler)
    vae, vae_keys, vae_content = _autoencoder(header, layout, request)  # small parts first: what lacks shows soon
    texts = [_text_encoder(header, own, request) for own in layout.text_encoders]
    unet, unet_keys = _unet(header, unet_config(layout, noising.prediction), request)
    read = vae_keys.union(unet_keys, *(keys for _, keys in texts))
    content: dict[str, Content] = {"file": (_lasting(layout), [path]), "vae": vae_content}
    return Loaded(
        request=request,
        pipeline=layout.pipeline,
        title=layout.title,
        content=content_hash(scheduler, content),
        words=tuple(load_words(layout.tokenizer_folder(), own.pad) for own in layout.text_encoders),
        text_encoders=tuple(encoder for encoder, _ in texts),
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        noising=noising,
        remarks=_unread(header, layout, read),
    )


def _lasting(layout: Layout) -> dict[str, Any]:
    """The configs, as far as the content hash counts them."""
    return {"unet": layout.unet, "vae": layout.vae, "text": [own.config for own in layout.text_encoders]}


def unet_config(layout: Layout, prediction: str) -> dict[str, Any]:
    """The layout's, at the size that a v-predicting release was trained at."""
    if prediction == "v" and layout.sample_size_if_v:
        return {**layout.unet, "sample_size": layout.sample_size_if_v}
    return dict(layout.unet)


def _unet(header: Header, config: dict[str, Any], request: Request) -> tuple[Any, set[str]]:
    """The U-Net, and the keys it was read from. Keys that it has no place for change predictions: they are refused."""
    unet = empty(UNet2DConditionModel, config)
    origins = unet_origins(config, unet.state_dict(), UNET)
    keys = {origin.key for origin in origins.values()}
    if extra := sorted(header.under(UNET) - keys):
        raise TenutoError(
            f"{header.path}: its U-Net has {len(extra)} weights that the architecture lacks, first {extra[0]}; "
            "it is not a plain checkpoint of this family"
        )
    fill(unet, header, origins, request.dtype, "U-Net")
    return unet.eval(), keys


def adaptable(header: Header, layout: Layout) -> dict[str, tuple[Origin, Shape]]:
    """ "unet.conv_in.weight", "text_encoder.encoder…" -> where it stands in the file, and its shape: all that LoRAs are
    put on, checked."""
    unet = empty(UNet2DConditionModel, layout.unet)
    parts = [("unet", unet, unet_origins(layout.unet, unet.state_dict(), UNET))]
    for number, own in enumerate(layout.text_encoders):
        encoder = _empty_encoder(own)
        name = f"text_encoder_{number + 1}" if number else "text_encoder"
        parts.append((name, encoder, _text_origins(header, own, list(encoder.state_dict()))))
    found: dict[str, tuple[Origin, Shape]] = {}
    for part, module, origins in parts:
        wanted = {name: (origins[name], tuple(value.shape)) for name, value in module.state_dict().items()}
        check(header, wanted, part)
        found |= {f"{part}.{name.removeprefix('text_model.')}": place for name, place in wanted.items()}
    return found


def _empty_encoder(layout: TextLayout) -> Any:
    return empty(CLIPTextModelWithProjection if layout.projected else CLIPTextModel, layout.config)


def _text_encoder(header: Header, layout: TextLayout, request: Request) -> tuple[Component, set[str]]:
    origins = _text_origins(header, layout, list(_empty_encoder(layout).state_dict()))
    encoder = filled(lambda: _empty_encoder(layout), header, origins, request.dtype, "text encoder")
    return encoder, {origin.key for origin in origins.values()}


def _text_origins(header: Header, layout: TextLayout, names: list[str]) -> dict[str, Origin]:
    """By the prefix that the file uses: the one under which it has most of what is needed."""
    options = []
    for prefix in layout.prefixes:
        if layout.form == "clip":
            options.append(clip_origins(names, prefix))
            continue
        renamed = prefix + "text_projection.weight" in header.shapes
        options.append(open_clip_origins(names, prefix, "text_projection.weight" if renamed else "text_projection"))
    return max(options, key=lambda own: sum(origin.key in header.shapes for origin in own.values()))


def _autoencoder(header: Header, layout: Layout, request: Request) -> tuple[Component, set[str], Content]:
    """The autoencoder, the keys that are accounted for by it, and what counts for the hash beside the file itself."""
    if request.vae is not None:
        vae, content = load_autoencoder(request.vae, layout.vae)
        return vae, header.under(VAE), content
    if not header.under(VAE):
        raise TenutoError(
            f"{header.path}: holds no autoencoder ({VAE}* keys); name one in base.vae "
            "(a .safetensors file or a folder in diffusers layout)"
        )
    vae, keys = autoencoder_of(header, layout.vae)
    return vae, keys, ({}, [])


def _unread(header: Header, layout: Layout, read: set[str]) -> tuple[str, ...]:
    known = (*LEFTOVERS, *layout.leftovers)
    left = sorted(key for key in header.shapes.keys() - read if not key.startswith(known) and not key.endswith(known))
    return (f"{header.path.name} holds keys that were not read: {len(left)}, first {left[0]}",) if left else ()
