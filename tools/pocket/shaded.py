"""The second base: pocket, taught to draw with light and shade. What changed in its weights ships.

Only what lies outside the attention layers is trained: words keep their places, and the difference stays small.
"""

from __future__ import annotations

import copy
import json
import time

import numpy as np
import torch
from safetensors.torch import save_file
from tools.pocket.attention import written_out
from tools.pocket.common import CHECKPOINT, Bench, Clock, average_into, rate, save, set_rate
from tools.pocket.conv import quicken
from tools.pocket.render import render
from tools.pocket.restore import restore
from tools.pocket.unet import Denoiser, Feed
from tools.pocket.vae import encode
from torch import nn

from tenuto.families.shipped import BASES

DIFFERENCE = BASES["pocket-shaded"].difference
SAVE_EVERY = 100


def make(bench: Bench, pictures: int, steps: int, until: float | None, count: int, peak: float) -> None:
    """Draw, encode and train, each where it was stopped; then write the difference."""
    render(bench, pictures, workers=2, light=True)
    restore(bench)
    if not bench.file("scaling.pt").exists():
        config = json.loads((CHECKPOINT / "vae" / "config.json").read_text())
        encode(bench, scaling=config["scaling_factor"])
    torch.manual_seed(0)
    before, model = _pocket(bench), _pocket(bench)
    learned = {name: own for name, own in model.unet.named_parameters() if "attentions" not in name}
    model.requires_grad_(False)
    for own in learned.values():
        own.requires_grad_(True)
    slow, clock = _train(bench, model, list(learned.values()), Clock(steps, until), count, peak)
    old, new = dict(before.unet.named_parameters()), dict(slow.unet.named_parameters())
    change = {f"unet.{name}": (new[name] - old[name]).half().contiguous() for name in learned}
    assert DIFFERENCE is not None
    save_file(change, DIFFERENCE, {"what": "pocket-shaded minus pocket", "steps": str(clock)})
    bench.log("shaded", f"{DIFFERENCE.stat().st_size / 1e6:.1f} MB")


def _pocket(bench: Bench) -> Denoiser:
    model = Denoiser()
    model.load_state_dict(torch.load(bench.file("denoiser.pt"), map_location="cpu", weights_only=True)["model"])
    return model


def _train(
    bench: Bench, model: Denoiser, learned: list[nn.Parameter], clock: Clock, count: int, peak: float
) -> tuple[Denoiser, int]:
    """The average of the weights, and the number of steps."""
    slow, path, step = copy.deepcopy(model).requires_grad_(False), bench.file("shaded.pt"), 0
    optimizer = torch.optim.AdamW(learned, lr=peak, weight_decay=0.0)
    if path.exists():
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        slow.load_state_dict(state["slow"])
        optimizer.load_state_dict(state["optimizer"])
        step, clock.began = state["step"], state["began"]
    quicken(model.unet)
    feed, losses, since = Feed(bench, step), list[float](), time.time()
    while (progress := clock.progress(step)) < 1:
        set_rate(optimizer, rate(step, progress, peak, warm_up=20, flat=0.3))
        noisy, t, ids, noise, counts, _ = feed.batch(count)
        with written_out():
            predicted, _ = model(noisy.contiguous(memory_format=torch.channels_last), t, ids)
        loss, error = feed.loss(predicted, noise, t, counts)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0, foreach=True)
        optimizer.step()
        step += 1
        average_into(slow, model, min(0.99, (step + 1) / (step + 10)))
        losses.append(float(error.detach().mean()))
        if step % 25 == 0:
            speed = 25 / (time.time() - since)
            bench.log("shaded", f"{step} {progress:.0%} loss {np.mean(losses):.4f} {speed:.2f} it/s")
            losses, since = [], time.time()
        if step % SAVE_EVERY == 0:
            parts = {"model": model.state_dict(), "slow": slow.state_dict(), "optimizer": optimizer.state_dict()}
            save(parts | {"step": step, "began": clock.began}, path)
    return slow, step
