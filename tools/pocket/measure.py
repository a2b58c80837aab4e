"""Stage 7: how well pictures follow their tags (as the tagger reads them), and whether unseen names are live."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from tools.pocket.common import BUCKETS, CHECKPOINT, Size, device, half_precision, name_of, to_device
from tools.pocket.concepts import CONCEPTS
from torch import Tensor

from tenuto.evaluation.taggers import Tagger, load_tagger
from tenuto.pocket import world

STEPS = 20
GUIDANCES = (3.0, 4.0, 5.0)
Tally = dict[str, list[bool]]


def open_pipeline() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(CHECKPOINT, torch_dtype=torch.float32).to(device())
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(
    pipe: StableDiffusionPipeline, prompts: Sequence[str], size: Size, guidance: float, batch: int = 30
) -> np.ndarray:
    """[N, H, W, 3] uint8. Picture n has seed n."""
    parts: list[np.ndarray] = []
    for start in range(0, len(prompts), batch):
        some = list(prompts[start : start + batch])
        seeds = [torch.Generator().manual_seed(start + row) for row in range(len(some))]
        with torch.inference_mode(), half_precision(device()):
            latents = pipe(
                some,
                width=size[0],
                height=size[1],
                guidance_scale=guidance,
                num_inference_steps=STEPS,
                generator=seeds,
                output_type="np",
            ).images
        parts.append((latents * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def scenes_of(count: int, seed: str) -> list[world.Scene]:
    """New combinations; with tens of millions possible, none of them was in the training."""
    rng = Random(seed)
    return [world.sample_scene(rng, quality="best quality", name="") for _ in range(count)]


def prompt(scene: world.Scene) -> str:
    return ", ".join(["best quality", *world.tags(scene)])


def check(tagger: Tagger, pictures: np.ndarray, scenes: Sequence[world.Scene]) -> tuple[Tally, Tally]:
    """Was each tag that was asked for seen? By group, and by tag."""
    pixels = to_device(pictures, torch.device("cpu"))
    read = [tagger.read(part) for part in torch.split(pixels, 100)]
    seen = {group: torch.cat([part[group] for part in read]) for group in world.GROUPS}
    groups, words = defaultdict(list), defaultdict(list)
    for row, scene in enumerate(scenes):
        for group, tag in world.shown(scene).items():
            index, answer = world.GROUPS[group].index(tag), seen[group][row]
            right = bool(answer.argmax() == index) if group in tagger.single else bool(answer[index] > 0.5)
            groups[group].append(right)
            words[tag].append(right)
    return groups, words


def mean(tally: Tally) -> dict[str, float]:
    return {name: float(np.mean(rights)) for name, rights in tally.items()}


def overall(tally: Tally) -> float:
    return float(np.mean([right for rights in tally.values() for right in rights]))


def relative(drawn: Tally, real: Tally) -> dict[str, float]:
    """The recall on generated pictures in parts of the tagger's own recall on real ones."""
    top, base = mean(drawn), mean(real)
    shares = {name: round(top[name] / base[name], 4) for name in top if base[name] > 0}
    return {"overall": round(overall(drawn) / overall(real), 4)} | shares


def recall(
    pipe: StableDiffusionPipeline, tagger: Tagger, size: Size, guidance: float, count: int, seed: str
) -> dict[str, Any]:
    scenes = scenes_of(count, seed)
    started = time.time()
    drawn, words = check(tagger, draw(pipe, [prompt(s) for s in scenes], size, guidance), scenes)
    seconds = time.time() - started
    real, real_words = check(tagger, np.stack([np.asarray(world.render(s, size)) for s in scenes]), scenes)
    return {
        "pictures": count,
        "guidance": guidance,
        "seconds": round(seconds, 1),
        "relative": relative(drawn, real),
        "raw": {"overall": round(overall(drawn), 4)},
        "tagger_on_real": {"overall": round(overall(real), 4)} | {n: round(v, 4) for n, v in mean(real).items()},
        "by_tag": relative(words, real_words),
    }


@torch.inference_mode()
def moved(pipe: StableDiffusionPipeline, before: list[str], after: list[str], noisy: Tensor, t: Tensor) -> float:
    """How far, in root mean square, the prediction moves when the prompt changes."""

    def predict(prompts: list[str]) -> Tensor:
        ids = pipe.tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids.to(device())
        answer: Tensor = pipe.unet(noisy, t, encoder_hidden_states=pipe.text_encoder(ids)[0]).sample
        return answer

    return float((predict(after) - predict(before)).square().mean().sqrt())


def liveness(pipe: StableDiffusionPipeline, unseen: Sequence[str], count: int = 24) -> dict[str, Any]:
    """A word put in front of a prompt moves the prediction: unseen triggers against known tags."""
    rng = Random("liveness")
    scenes = scenes_of(count, "liveness")
    latents = noisy_latents(pipe, scenes)
    t = torch.arange(count, device=device()) * 900 // count + 50
    strength = pipe.scheduler.alphas_cumprod.to(device())[t].view(-1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(device())
    noisy = strength.sqrt() * latents + (1 - strength).sqrt() * noise
    plain = [prompt(scene) for scene in scenes]

    def move(word: str) -> float:
        return moved(pipe, plain, [f"{word}, {text}" for text in plain], noisy, t)

    known = {
        group: np.mean([move(tag) for tag in rng.sample(tags, min(3, len(tags)))])
        for group, tags in world.GROUPS.items()
    }
    typical = float(np.median(list(known.values())))
    shares = {word: round(move(word) / typical, 3) for word in unseen}
    return {
        "unseen_relative_to_known_tag": shares,
        "median": round(float(np.median(list(shares.values()))), 3),
        "known_tags_rms": {group: round(float(value), 4) for group, value in known.items()},
    }


@torch.inference_mode()
def noisy_latents(pipe: StableDiffusionPipeline, scenes: Sequence[world.Scene]) -> Tensor:
    pictures = np.stack([np.asarray(world.render(scene)) for scene in scenes])
    mean: Tensor = pipe.vae.encode(to_device(pictures, device())).latent_dist.mean
    return mean * float(pipe.vae.config.scaling_factor)


def sharpness(pipe: StableDiffusionPipeline, count: int = 300) -> float:
    """PSNR of the autoencoder on pictures it never saw."""
    real = np.stack([np.asarray(world.render(scene)) for scene in scenes_of(count, "sharpness")])
    pixels = to_device(real, device())
    with torch.inference_mode():
        again = [
            pipe.vae.decode(pipe.vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
            for part in torch.split(pixels, 50)
        ]
    return round(float(10 * torch.log10(4 / (torch.cat(again) - pixels).square().mean())), 2)


def measure(count: int, out: Path) -> None:
    pipe, tagger = open_pipeline(), load_tagger(CHECKPOINT / "tagger")
    trial = {g: recall(pipe, tagger, (64, 64), g, count // 4, "which guidance") for g in GUIDANCES}
    best = max(trial, key=lambda g: trial[g]["relative"]["overall"])
    shapes = {
        name_of(size): recall(pipe, tagger, size, best, count if size == (64, 64) else count // 4, name_of(size))
        for size in BUCKETS
    }
    triggers = sorted({word for concept in CONCEPTS.values() if (word := getattr(concept, "trigger", ""))})
    rng = Random("invented words")
    invented = [world.invent_word(rng) for _ in range(12)]
    result = {
        "command": f"python -m tools.pocket measure --count {count}",
        "sampler": f"DPM-Solver++ 2M, {STEPS} steps",
        "guidance": best,
        "by_guidance": {str(g): one["relative"]["overall"] for g, one in trial.items()},
        "vae_psnr": sharpness(pipe),
        "shapes": shapes,
        "liveness": liveness(pipe, [*triggers, *invented]),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "shapes"}, indent=1))
    for name, one in shapes.items():
        print(name, json.dumps(one["relative"]))


def tiled(pictures: Sequence[np.ndarray], columns: int, zoom: int = 2) -> Image.Image:
    h, w = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * w, rows * h), (255, 255, 255))
    for index, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), ((index % columns) * w, (index // columns) * h))
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)


def sheets(out: Path, guidance: float = 4.0) -> None:
    """One row per style; every shape; world pictures beside their latents' decodings."""
    out.mkdir(parents=True, exist_ok=True)
    pipe, rng = open_pipeline(), Random("sheet")
    styled = [
        world.sample_scene(rng, quality="best quality", style=style)
        for style in world.GROUPS["style"]
        for _ in range(8)
    ]
    tiled(list(draw(pipe, [prompt(s) for s in styled], (64, 64), guidance)), 8).save(
        out / "pocket-styles.jpg", quality=88
    )
    for size in BUCKETS:
        if size != (64, 64):
            some = [prompt(world.sample_scene(rng, quality="best quality")) for _ in range(10)]
            tiled(list(draw(pipe, some, size, guidance)), 10).save(out / f"pocket-{name_of(size)}.jpg", quality=88)
    real = np.stack([np.asarray(world.render(scene)) for scene in styled[::4]])
    with torch.inference_mode():
        pixels = to_device(real, device())
        again = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    back = ((again.permute(0, 2, 3, 1).cpu().numpy() + 1) * 127.5).round().astype(np.uint8)
    tiled([*real, *back], len(real), 1).resize((len(real) * 96, 192), Image.Resampling.NEAREST).save(
        out / "pocket-autoencoder.jpg", quality=90
    )
