"""Stage 2, the autoencoder: pictures to latents of a quarter of the side and back; eyes and outlines stay sharp."""

from __future__ import annotations

import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from tools.pocket.common import (
    BUCKETS,
    Bench,
    Clock,
    Size,
    device,
    half_precision,
    name_of,
    rate,
    save,
    set_rate,
    to_device,
)
from tools.pocket.muon import Both
from torch import Tensor

CHANNELS = (32, 64, 128)
LATENTS = 8
"""Four were tried first: one of them collapsed, and eyes stayed blurred."""
KL_WEIGHT = 1e-6


def build() -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(CHANNELS),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        sample_size=64,
    )
    with torch.no_grad():  # latents start almost without noise: started at deviation 1, channels collapse
        vae.quant_conv.weight[LATENTS:] = 0
        vae.quant_conv.bias[LATENTS:] = -6
    return vae.to(memory_format=torch.channels_last)


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """L = |x - x'| + 3 (x - x')^2 + (grad x - grad x')^2 + 1e-6 KL; and the plain squared error, for the PSNR."""
    posterior = vae.encode(pixels).latent_dist
    again = vae.decode(posterior.sample()).sample.float()
    sharp = sum((a - b).square().mean() for a, b in zip(edges(pixels), edges(again), strict=True))
    squared = (pixels - again).square().mean()
    return (pixels - again).abs().mean() + 3 * squared + sharp + KL_WEIGHT * posterior.kl().mean(), squared


def batch(sets: dict[Size, np.ndarray], rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` pictures of one bucket; buckets by their share."""
    sizes = list(sets)
    shares = np.array([BUCKETS[size] for size in sizes])
    pictures = sets[sizes[rng.choice(len(sizes), p=shares / shares.sum())]]
    return pictures[np.sort(rng.choice(len(pictures), count, replace=False))]


def train(bench: Bench, steps: int, until: float | None, count: int, peak: float, init: str | None) -> None:
    where, path = device(), bench.file("vae.pt")
    vae = build().to(where)
    optimizer = Both(vae, peak)
    clock, step = Clock(steps, until), 0
    if path.exists():
        state = torch.load(path, map_location=where, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, clock.began = state["step"], state["began"]
    elif init:
        vae.load_state_dict(torch.load(init, map_location=where, weights_only=True)["model"])
    sets, rng = {size: bench.pictures(size) for size in BUCKETS}, np.random.default_rng(step + 1)
    squared, since = [], time.time()
    while (progress := clock.progress(step)) < 1:
        set_rate(optimizer, rate(step, progress, peak, warm_up=100))
        with half_precision(where):
            total, error = loss(vae, to_device(batch(sets, rng, count), where))
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        squared.append(error.item())
        step += 1
        if step % 25 == 0:
            psnr = 10 * np.log10(4 / np.mean(squared))
            bench.log("vae", f"{step} {progress:.0%} psnr {psnr:.2f} {25 / (time.time() - since):.2f} it/s")
            squared, since = [], time.time()
        if step % 200 == 0:
            save(
                {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "began": clock.began},
                path,
            )
    save({"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "began": clock.began}, path)
    bench.log("vae", f"done at step {step}")


def load(bench: Bench) -> AutoencoderKL:
    vae = build()
    vae.load_state_dict(torch.load(bench.file("vae.pt"), map_location="cpu", weights_only=True)["model"])
    return vae.to(device()).eval().requires_grad_(False)


@torch.no_grad()
def encode(bench: Bench, share: float = 1.0, count: int = 64, scaling: float | None = None) -> float:
    """Stage 3: the latent means of the first `share` of the pictures, scaled to unit deviation or by a factor that is
    there already. Keeps the factor."""
    vae, where = load(bench), device()
    means: dict[Size, np.ndarray] = {}
    for size in BUCKETS:
        pictures, parts = bench.pictures(size), []
        pictures = pictures[: round(share * len(pictures))]
        for start in range(0, len(pictures), count):
            with half_precision(where):
                parts.append(
                    vae.encode(to_device(pictures[start : start + count], where)).latent_dist.mean.float().cpu()
                )
        means[size] = torch.cat(parts).contiguous().numpy()
    scaling = scaling or float(1 / np.sqrt(np.mean([m.var() for m in means.values()])))
    for size, mean in means.items():
        np.save(bench.file(f"latents-{name_of(size)}.npy"), (mean * scaling).astype(np.float16))
    save({"scaling": scaling}, bench.file("scaling.pt"))
    centre = [round(float(c), 2) for c in means[(64, 64)].mean((0, 2, 3)) * scaling]
    bench.log("encode", f"scaling factor {scaling:.4f}, channel means {centre}")
    return scaling
