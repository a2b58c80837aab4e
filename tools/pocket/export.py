"""Stage 6: the checkpoint folder in diffusers' layout, fp16, put in place all at once."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import torch
from tools.pocket import vae
from tools.pocket.common import CHECKPOINT, REPOSITORY, Bench
from tools.pocket.models import build_schedule
from transformers import CLIPTokenizer

from tenuto.pocket import world

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.35.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def bank() -> str:
    lines = ["# Words that pocket knows, by group.", "[groups]"]
    return (
        "\n".join(lines + [f"{json.dumps(group)} = {json.dumps(list(tags))}" for group, tags in world.GROUPS.items()])
        + "\n"
    )


def write(bench: Bench, folder: Path) -> int:
    """Every part; returns the training step of the weights."""
    from tools.pocket.unet import Denoiser

    state = torch.load(bench.file("denoiser.pt"), map_location="cpu", weights_only=True)
    denoiser = Denoiser()
    denoiser.load_state_dict(state["slow"])
    denoiser.unet.half().save_pretrained(folder / "unet")
    denoiser.text.half().save_pretrained(folder / "text_encoder")
    coder = vae.load(bench).cpu()
    coder.register_to_config(scaling_factor=torch.load(bench.file("scaling.pt"), weights_only=True)["scaling"])
    coder.half().save_pretrained(folder / "vae")
    CLIPTokenizer.from_pretrained(bench.file("tokenizer")).save_pretrained(folder / "tokenizer")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(bench.file("tokenizer") / name, folder / "tokenizer" / name)
    (folder / "tokenizer/tokenizer.json").unlink(missing_ok=True)  # says the same as the two files above, in 3.6 MB
    from diffusers import DPMSolverMultistepScheduler

    DPMSolverMultistepScheduler.from_config(build_schedule().config, steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    (folder / "bank.toml").write_text(bank())
    return int(state["step"])


def export(bench: Bench) -> None:
    """Beside the place first, then two renames. What other stages put there (the tagger) moves along."""
    partial, old = CHECKPOINT.with_name("checkpoint.partial"), CHECKPOINT.with_name("checkpoint.old")
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    step = write(bench, partial)
    if (CHECKPOINT / "tagger").exists():
        shutil.copytree(CHECKPOINT / "tagger", partial / "tagger")
    if CHECKPOINT.exists():
        CHECKPOINT.replace(old)
    partial.replace(CHECKPOINT)
    shutil.rmtree(old, ignore_errors=True)
    bench.log("export", f"step {step}")
    with (REPOSITORY / ".work/pocket-status.txt").open("a") as status:
        status.write(f"{datetime.now():%H:%M} tools agent: exported checkpoint at U-Net step {step}\n")
