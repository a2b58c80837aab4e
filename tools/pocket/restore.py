"""The shipped checkpoint's weights back into the working folder. Optimizers start afresh, steps count from zero."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from tools.pocket import vae
from tools.pocket.common import CHECKPOINT, Bench, save
from tools.pocket.unet import Denoiser
from transformers import CLIPTextModel


def restore(bench: Bench) -> None:
    """What is there already is left alone."""
    if not bench.file("vae.pt").exists():
        coder = AutoencoderKL.from_pretrained(CHECKPOINT / "vae").float()
        save({"model": coder.state_dict()}, bench.file("vae.pt"))
        vae.load(bench)
    if not bench.file("denoiser.pt").exists():
        model = Denoiser()
        model.unet.load_state_dict(UNet2DConditionModel.from_pretrained(CHECKPOINT / "unet").float().state_dict())
        model.text.load_state_dict(CLIPTextModel.from_pretrained(CHECKPOINT / "text_encoder").float().state_dict())
        save({"model": model.state_dict(), "slow": model.state_dict()}, bench.file("denoiser.pt"))
