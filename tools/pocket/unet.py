"""Stage 4, the denoiser: U-Net and text encoder learn together to say which noise lies on a latent."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from tools.pocket.attention import written_out
from tools.pocket.captions import END, Words, vary
from tools.pocket.common import BUCKETS, Bench, Clock, Size, average_into, device, half_precision, rate, save, set_rate
from tools.pocket.conv import quicken
from tools.pocket.exam import Exam, answers, school
from tools.pocket.models import WIDTH, build_schedule, build_text_encoder, build_unet
from tools.pocket.muon import Both
from torch import Tensor, nn
from transformers import CLIPTokenizer

EXPORT_EVERY = 1000
SAVE_EVERY = 500
EXAM = 0.05
"""What the text encoder's exam counts beside the noise."""
CELL = 4
"""Pixels a latent."""
ON_HEAD, ON_BODY = 4.0, 2.0
"""What an error there counts, where it counts 1 on the place behind."""


class Denoiser(nn.Module):
    """Both networks as one, so that one optimizer, one average and one file hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text = build_unet(), build_text_encoder()

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The noise, and the text's hidden states."""
        hidden = self.text(ids).last_hidden_state
        return self.unet(noisy, t, encoder_hidden_states=hidden).sample, hidden


def attention_to_person(heads: Tensor, size: Size) -> Tensor:
    """How much each latent's error counts [B, 1, h, w]; mean 1. heads [B, 3]: centre and radius in pixels."""
    y, x = torch.meshgrid(*((torch.arange(side // CELL) + 0.5) * CELL for side in reversed(size)), indexing="ij")
    centre_x, centre_y, radius = (heads[:, n].view(-1, 1, 1) for n in range(3))
    right, down = (x - centre_x).abs() / radius, (y - centre_y) / radius
    head = (right.square() + (down + 0.1).square()).sqrt() < 1.6
    body = (right < 1.6) & (down > 0) & (down < 3.2)
    counts = torch.where(head, ON_HEAD, torch.where(body, ON_BODY, 1.0))
    return (counts / counts.mean(dim=(1, 2), keepdim=True)).unsqueeze(1)


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

    def batch(self, count: int) -> tuple[Tensor, ...]:
        """x_t, t, token ids, the noise, what each latent counts, the exam's answers. Timesteps are spread evenly over
        the batch, which calms the loss."""
        size = self.size()
        rows = [self.rng.randrange(len(self.latents[size])) for _ in range(count)]
        x0 = self.latents[size][rows].float()
        t = ((torch.arange(count) + torch.rand(count, generator=self.noise)) * (1000 / count)).long().clamp(max=999)
        noise = torch.randn(x0.shape, generator=self.noise)
        noisy = self.signal[t].view(-1, 1, 1, 1) * x0 + self.strength[t].view(-1, 1, 1, 1) * noise
        lines = [self.captions[size][row] for row in rows]
        ids, marks = self.tell(lines)
        counts = attention_to_person(torch.tensor([line["head"] for line in lines]), size)
        return noisy, t, ids, noise, counts, marks

    def loss(self, predicted: Tensor, noise: Tensor, t: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """What is taught, and the error [B] behind it, before timesteps are weighted."""
        error = (counts * (predicted.float() - noise).square()).mean(dim=(1, 2, 3))
        return (self.weight.to(error.device)[t] * error).mean(), error

    def tell(self, lines: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        """Token ids [B, 77] of varied prompts, and the exam's answers [B, groups]."""
        said = [vary(line, self.rng) for line in lines]
        marks = [answers(line, words) for line, words in zip(lines, said, strict=True)]
        return self.words.batch(said), torch.tensor(marks)

    def prompts(self, count: int) -> tuple[Tensor, Tensor]:
        """Without pictures; ids [B, N] are cut where nobody says anything any more (the encoder is causal)."""
        ids, marks = self.tell(self.rng.choices(self.captions[self.size()], k=count))
        return ids[:, : int((ids != END).sum(1).max()) + 1], marks


def train(bench: Bench, steps: int, until: float | None, count: int, peak: float) -> None:
    from tools.pocket.export import export

    where, path = device(), bench.file("denoiser.pt")
    model, exam = Denoiser().to(where), Exam(WIDTH).to(where)
    slow = copy.deepcopy(model).requires_grad_(False)
    if where.type == "cpu":
        quicken(model.unet)
    optimizer = Both(nn.ModuleList([model, exam]), peak)
    clock, step = Clock(steps, until), 0
    if path.exists():
        state = torch.load(path, map_location=where, weights_only=True)
        model.load_state_dict(state["model"])
        slow.load_state_dict(state["slow"])
        if "optimizer" in state:  # else the weights are all there is, from `restore`
            exam.load_state_dict(state["exam"])
            optimizer.load_state_dict(state["optimizer"])
            step, clock.began = state["step"], state["began"]
    feed = Feed(bench, step)
    if step == 0:
        school(model.text, exam, feed.prompts, partial(bench.log, "unet"))
        slow.load_state_dict(model.state_dict())

    def keep() -> None:
        parts = {"model": model.state_dict(), "slow": slow.state_dict(), "exam": exam.state_dict()}
        parts |= {"optimizer": optimizer.state_dict()}
        save(parts | {"step": step, "began": clock.began}, path)

    losses, since = [], time.time()
    while (progress := clock.progress(step)) < 1:
        set_rate(optimizer, rate(step, progress, peak, flat=0.3))
        noisy, t, ids, noise, counts, marks = (part.to(where, non_blocking=True) for part in feed.batch(count))
        with half_precision(where), written_out() if where.type == "cpu" else nullcontext():
            predicted, hidden = model(noisy.contiguous(memory_format=torch.channels_last), t, ids)
            asked = exam(hidden.float(), marks)
        loss, error = feed.loss(predicted, noise, t, counts)
        loss = loss + EXAM * asked
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        step += 1
        average_into(slow, model, min(0.999, (step + 1) / (step + 10)))
        losses.append((error.detach().mean(), asked.detach()))
        if step % 25 == 0:
            mean, unknown = np.mean([[float(one) for one in pair] for pair in losses], axis=0)
            speed = 25 / (time.time() - since)
            bench.log("unet", f"{step} {progress:.0%} loss {mean:.4f} exam {unknown:.3f} {speed:.2f} it/s")
            losses, since = [], time.time()
        if step % SAVE_EVERY == 0:
            keep()
        if step % EXPORT_EVERY == 0:
            export(bench)
            since = time.time()
    keep()
    export(bench)
    bench.log("unet", f"done at step {step}")
