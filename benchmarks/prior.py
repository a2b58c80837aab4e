"""Prior images per second from end to end, and what fewer steps cost in quality, by sampler, on pocket.

    python -m benchmarks.prior [--images 96] [--sampler dpmpp_2m --sampler ddim] [--steps 8 --steps 20] [--seed 1]

Every set is built as `tenuto prior build` builds it, at the same prompts, and held against 50 DDIM steps; at the same
seeds too, or at others (`--seed`), where the first row, 50 steps at other seeds, is what there is to reach:

    KID     unbiased squared MMD, kernel (x.y / d + 1)^3, on the features of pocket's tagger (arXiv:1801.01401, whose
            features are Inception's), times 1000. Pairs of one seed are left out of it, so it is unbiased on paired
            sets too, and 0 for equal ones. Its error is a jackknife over the pairs.
    apart   mean squared distance of the latents from those of the reference, over the reference's variance: small where
            a sampler ends in the same pictures; the first row of the table shows it for other pictures of the prompts.

Processor seconds of one thread are counted, not wall seconds: other work on the machine hardly moves them.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import typer
from torch import Tensor

from tenuto.evaluation.taggers import ConvnetTagger, load_tagger
from tenuto.families.base import Base
from tenuto.families.checkpoints import find_base, open_base
from tenuto.families.sampling import SAMPLERS, SamplerSettings
from tenuto.pocket.world import caption, sample_scene, shown
from tenuto.prior.build import build
from tenuto.prior.plan import plan_prior
from tenuto.prior.prompts import PriorPrompt
from tenuto.prior.store import PriorStore

REFERENCE = SamplerSettings(sampler="ddim", steps=50)
STEPS = (8, 12, 16, 20)


@dataclass(frozen=True)
class Made:
    """One prior set."""

    latents: Tensor
    """[N C H W]"""
    features: Tensor
    """[N D]"""
    rate: float
    """Images per processor second, from the plan to the store."""


def make(base: Base, tagger: ConvnetTagger, settings: SamplerSettings, count: int, seed: int = 0) -> Made:
    """Build a set of `count` prompts of the picture world into a store of its own."""
    rng = Random("few steps")
    texts = [caption(list(shown(sample_scene(rng)).values())) for _ in range(count)]
    prompts = [PriorPrompt(text, f"item {n}", "c", base.geometry.native) for n, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        store = PriorStore.open(base.hash, Path(folder))
        images = build(plan_prior(prompts, settings, seed=seed, batch=16), base, store)
        rate = count / (time.process_time() - started)
        latents = torch.stack([store.latents(image.id) for image in images])
    parts = [tagger.features(base.decode(part)) for part in torch.split(latents, 32)]
    return Made(latents, torch.cat(parts).double(), rate)


def kid(x: Tensor, y: Tensor) -> tuple[float, float]:
    """(KID, its standard error) of paired features [N D]."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    h = kernel(x, x) + kernel(y, y) - kernel(x, y) - kernel(y, x)
    n, rows = len(h), h.fill_diagonal_(0).sum(dim=1)
    left_out = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
    error = ((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt()
    return float(rows.sum() / (n * (n - 1))), float(error)


def main(
    images: Annotated[int, typer.Option()] = 96,
    sampler: Annotated[list[str] | None, typer.Option(help="unset: all")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="unset: 8, 12, 16, 20")] = None,
    seed: Annotated[int, typer.Option(help="of the sets; the reference has 0")] = 0,
) -> None:
    torch.set_num_threads(1)
    base = open_base("pocket", device="cpu")
    tagger = load_tagger(Path(find_base("pocket")) / "tagger")
    assert isinstance(tagger, ConvnetTagger)
    known = make(base, tagger, REFERENCE, images)
    print("| sampler | steps | images / s | against 50 | KID x 1000 | apart |\n|---|---|---|---|---|---|", flush=True)

    def show(name: str, count: int, made: Made) -> None:
        distance, error = kid(made.features, known.features)
        apart = float((made.latents - known.latents).square().mean() / known.latents.var())
        print(
            f"| {name} | {count} | {made.rate:.2f} | x{made.rate / known.rate:.2f} | "
            f"{1000 * distance:.2f} ± {1000 * error:.2f} | {apart:.3f} |",
            flush=True,
        )

    show("ddim, other seeds", REFERENCE.steps, make(base, tagger, REFERENCE, images, seed=1))
    for name in sampler or SAMPLERS:
        for count in steps or STEPS:
            settings = SamplerSettings.model_validate({"sampler": name, "steps": count})
            show(name, count, make(base, tagger, settings, images, seed))


if __name__ == "__main__":
    typer.run(main)
