"""What the audit counts for architectures at full size: no weights, no GPU, seconds a line.

    python -m benchmarks.memory [--only sdxl]

A LoRA of rank 16 on attention and feed-forward, one prior row for each instance row, `prior_preservation`, as on a GPU
with bfloat16. It prints the table of docs/memory.md.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base
from tenuto.families.checkpoints import FAMILIES
from tenuto.families.layouts import LAYOUTS
from tenuto.families.loaded import Loaded, Request
from tenuto.families.meter import META, Meter, bytes_of, fused_attention, tensors_of
from tenuto.families.prediction import Noising, Wish
from tenuto.families.resting import Component
from tenuto.families.text import load_words
from tenuto.families.weights import empty
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.optimizers import AdamWSettings
from tenuto.training.rows import Row
from tenuto.training.settings import TrainingSettings
from tenuto.training.trial import held_by_update
from tenuto.words import Role, Size
from tenuto.work.memory import GIB, PROGRAM

SIZES = {"sd1": Size(512, 512), "sd2": Size(768, 768), "sdxl": Size(1024, 1024)}
CAPTION = "zxq, 1girl, smile, outdoors, upper body, simple background"
ROLES: tuple[Role, ...] = ("instance", "prior")


def weightless_base(form: str, dtype: torch.dtype) -> Base:
    """A checkpoint of this layout that was never loaded."""
    layout = LAYOUTS[form]
    loaded = Loaded(
        request=Request(name=form, device=META, dtype=dtype, noising=Wish()),
        pipeline=layout.pipeline,
        title=layout.title,
        content="",
        words=tuple(load_words(layout.tokenizer_folder(), own.pad) for own in layout.text_encoders),
        text_encoders=tuple(
            part(empty(CLIPTextModelWithProjection if own.projected else CLIPTextModel, own.config).to(dtype))
            for own in layout.text_encoders
        ),
        unet=empty(UNet2DConditionModel, layout.unet).to(dtype),
        vae=part(empty(AutoencoderKL, layout.vae)),
        scheduler=dict(layout.scheduler),
        noising=Noising("eps"),
    )
    return FAMILIES[layout.pipeline](loaded)


def part(module: Any) -> Component:
    """Never read, so nothing can be read again."""
    return Component(module, lambda: module, ())


def training(base: Base, size: Size, batch: int, *, checkpointing: bool) -> float:
    """GiB that training holds at once, the program's share in it."""
    settings = TrainingSettings(
        batch=batch,
        gradient_checkpointing=checkpointing,
        adapter=AdapterSettings(rank=16, parts=("attention", "feed_forward")),
    )
    latents = torch.zeros(base.geometry.latent(size))
    rows = [Row(f"{role} {n}", 0, role, size, CAPTION, 1, latents) for role in ROLES for n in range(batch)]
    adapter = Adapter.attach(base, settings.adapter)
    try:
        update = held_by_update(base, adapter, settings, {"prior_preservation": PriorPreservation()}, rows)
        weights = bytes_of(base.denoiser.parameters())  # the adapter's among them; text encoders and autoencoder rest
        moments = AdamWSettings.remembers * bytes_of(adapter.parameters())
        return (weights + moments + update) / GIB + PROGRAM
    finally:
        adapter.detach()


@torch.no_grad()
def sampling(base: Base, size: Size) -> tuple[float, float]:
    """GiB beside the weights: a guided picture in the making, and its way through the autoencoder."""
    with fused_attention(), Meter(tensors_of(base)) as making:
        cond = base.encode_text([CAPTION] * 2, [size] * 2)
        latents = torch.zeros(2, *base.geometry.latent(size), device=META)
        base.predict(latents, torch.zeros(2, dtype=torch.long, device=META), cond)
    with fused_attention(), Meter(tensors_of(base)) as seeing:
        base.decode(latents[:1])
        base.encode_image(torch.zeros(1, 3, size.height, size.width, device=META))
    return making.peak / GIB, seeing.peak / GIB


def main(only: Annotated[list[str] | None, typer.Option(help="sd1, sd2 or sdxl; unset: all")] = None) -> None:
    print("| checkpoint | weights | batch | training | with gradient checkpointing | a picture | autoencoder |")
    print("|---|---|---|---|---|---|---|")
    for form in only or SIZES:
        size = SIZES[form]
        base = weightless_base(form, torch.bfloat16)
        picture, autoencoder = sampling(base, size)
        weights = bytes_of(tensors_of(base)) / GIB
        for batch in (1, 4):
            plain, saving = (training(base, size, batch, checkpointing=on) for on in (False, True))
            print(
                f"| {LAYOUTS[form].title}, {size} | {weights:.1f} | {batch} + {batch} | {plain:.1f} | {saving:.1f} | "
                f"{picture:.2f} | {autoencoder:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
