"""Stage 4, the denoiser: U-Net and text encoder learn together to say which noise lies on a latent."""

from __future__ import annotations

import copy
import random
import time
from contextlib import nullcontext

import numpy as np
import torch
from tools.pocket.attention import written_out
from tools.pocket.captions import Words, vary
from tools.pocket.common import BUCKETS, Bench, Clock, Size, average_into, device, half_precision, rate, save, set_rate
from tools.pocket.conv import quicken
from tools.pocket.models import build_schedule, build_text_encoder, build_unet
from tools.pocket.muon import Both
from torch import Tensor, nn
from transformers import CLIPTokenizer

EXPORT_EVERY = 1000
SAVE_EVERY = 500


class Denoiser(nn.Module):
    """Both networks as one, so that one optimizer, one average and one file hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text = build_unet(), build_text_encoder()

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        return self.unet(noisy, t, encoder_hidden_states=self.text(ids).last_hidden_state).sample


class Feed:
    """Latents with varied captions, batch by batch; a batch holds one shape."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.latents = {size: bench.latents(size) for size in BUCKETS}
        self.captions = {size: bench.captions(size) for size in BUCKETS}
        self.words = Words(CLIPTokenizer.from_pretrained(bench.file("tokenizer")))
        self.rng = random.Random(seed)
        self.noise = torch.Generator().manual_seed(seed)
        schedule = build_schedule().alphas_cumprod
        self.signal, self.strength = schedule.sqrt(), (1 - schedule).sqrt()
        self.weight = (5 * (1 - schedule) / schedule).clamp(max=1) * (1 / schedule).clamp(max=8)
        """Of a timestep's error: the loss of v up to a limit, less where little noise lies (min-SNR 5). Evens out what
        the steps teach; unweighted, the details of almost clean latents drown the layout."""

    def size(self) -> Size:
        return self.rng.choices(list(BUCKETS), list(BUCKETS.values()))[0]

    def batch(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_t, t, token ids, the noise. Timesteps are spread evenly over the batch, which calms the loss."""
        size = self.size()
        rows = [self.rng.randrange(len(self.latents[size])) for _ in range(count)]
        x0 = self.latents[size][rows].float()
        t = ((torch.arange(count) + torch.rand(count, generator=self.noise)) * (1000 / count)).long().clamp(max=999)
        noise = torch.randn(x0.shape, generator=self.noise)
        noisy = self.signal[t].view(-1, 1, 1, 1) * x0 + self.strength[t].view(-1, 1, 1, 1) * noise
        ids = self.words.batch([vary(self.captions[size][row], self.rng) for row in rows])
        return noisy, t, ids, noise


def train(bench: Bench, steps: int, until: float | None, count: int, peak: float) -> None:
    from tools.pocket.export import export

    where, path = device(), bench.file("denoiser.pt")
    model = Denoiser().to(where)
    slow = copy.deepcopy(model).requires_grad_(False)
    if where.type == "cpu":
        quicken(model.unet)
    optimizer = Both(model, peak)
    clock, step = Clock(steps, until), 0
    if path.exists():
        state = torch.load(path, map_location=where, weights_only=True)
        model.load_state_dict(state["model"])
        slow.load_state_dict(state["slow"])
        optimizer.load_state_dict(state["optimizer"])
        step, clock.began = state["step"], state["began"]
    feed = Feed(bench, step)

    def keep() -> None:
        parts = {"model": model.state_dict(), "slow": slow.state_dict(), "optimizer": optimizer.state_dict()}
        save(parts | {"step": step, "began": clock.began}, path)

    losses, since = [], time.time()
    while (progress := clock.progress(step)) < 1:
        set_rate(optimizer, rate(step, progress, peak, flat=0.3))
        noisy, t, ids, noise = (part.to(where, non_blocking=True) for part in feed.batch(count))
        with half_precision(where), written_out() if where.type == "cpu" else nullcontext():
            predicted = model(noisy.contiguous(memory_format=torch.channels_last), t, ids)
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        loss = (feed.weight.to(where)[t] * error).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        step += 1
        average_into(slow, model, min(0.999, (step + 1) / (step + 10)))
        losses.append(error.detach().mean())
        if step % 25 == 0:
            mean = float(np.mean([float(one) for one in losses]))
            bench.log("unet", f"{step} {progress:.0%} loss {mean:.4f} {25 / (time.time() - since):.2f} it/s")
            losses, since = [], time.time()
        if step % SAVE_EVERY == 0:
            keep()
        if step % EXPORT_EVERY == 0:
            export(bench)
            since = time.time()
    keep()
    export(bench)
    bench.log("unet", f"done at step {step}")
