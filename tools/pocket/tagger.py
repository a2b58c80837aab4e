"""Stage 5, the tagger: reads world pictures, half of them spoiled the way that generated ones are."""

from __future__ import annotations

import time
from random import Random

import numpy as np
import torch
from tools.pocket import vae
from tools.pocket.common import (
    BUCKETS,
    CHECKPOINT,
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
from tools.pocket.concepts import CONCEPTS, concept_scene
from tools.pocket.muon import Both
from torch import Tensor
from torch.nn import functional as F

from tenuto.evaluation.convnet import CONCEPTS as DETECTORS
from tenuto.evaluation.convnet import ConvTagger, TaggerConfig
from tenuto.evaluation.taggers import save_convnet
from tenuto.pocket import world

SEVERAL = ("headwear",)
"""Groups that a picture may lack."""
CONCEPT_SHARE = 0.3


def config() -> TaggerConfig:
    return TaggerConfig(
        widths=(32, 64, 128, 192),
        groups=world.GROUPS,
        several=SEVERAL,
        concepts=tuple(CONCEPTS),
        about="Trained by tools/pocket on world pictures, half of them through the autoencoder, blurred or noisy.",
    )


Seen = tuple[list[str], str]
"""The visible tags of a picture, and the concept it shows, if any."""


def truth(seen: list[Seen]) -> dict[str, Tensor]:
    """What ConvTagger.loss wants: class numbers (-1: cannot be seen), or 0/1 where none or several may hold."""
    answers: dict[str, Tensor] = {}
    for group, tags in world.GROUPS.items():
        found = [[tag in words for tag in tags] for words, _ in seen]
        several = group in SEVERAL
        answers[group] = (
            torch.tensor(found).float()
            if several
            else torch.tensor([one.index(True) if any(one) else -1 for one in found])
        )
    if CONCEPTS:
        answers[DETECTORS] = torch.tensor([[float(concept == name) for name in CONCEPTS] for _, concept in seen])
    return answers


def draw(size: Size, count: int) -> tuple[np.ndarray, list[Seen]]:
    """Pictures of unseen concepts: the detectors' good examples."""
    rng, pictures, seen = Random(f"tagger {name_of(size)}"), [], []
    for index in range(count):
        name = list(CONCEPTS)[index % len(CONCEPTS)]
        scene = concept_scene(name, rng)
        pictures.append(np.asarray(world.render(scene, size), dtype=np.uint8))
        seen.append((world.tags(scene), name))
    return np.stack(pictures), seen


class Source:
    """Batches of one shape: pictures of the base's training, and of concepts, spoiled in part."""

    def __init__(self, bench: Bench, seed: int, count: int = 6000) -> None:
        self.coder, self.rng = vae.load(bench), Random(seed)
        self.plain = {
            size: (bench.pictures(size), [(line["tags"], "") for line in bench.captions(size)]) for size in BUCKETS
        }
        self.odd = (
            {size: draw(size, max(60, round(count * share))) for size, share in BUCKETS.items()} if CONCEPTS else {}
        )

    def some(self, source: tuple[np.ndarray, list[Seen]], count: int) -> tuple[np.ndarray, list[Seen]]:
        rows = [self.rng.randrange(len(source[1])) for _ in range(count)]
        return np.stack([source[0][row] for row in rows]), [source[1][row] for row in rows]

    def batch(self, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        size = self.rng.choices(list(BUCKETS), list(BUCKETS.values()))[0]
        odd = round(count * CONCEPT_SHARE) if self.odd else 0
        pictures, seen = self.some(self.plain[size], count - odd)
        if odd:
            more, also = self.some(self.odd[size], odd)
            pictures, seen = np.concatenate([pictures, more]), seen + also
        order = self.rng.sample(range(count), count)
        return self.spoil(to_device(pictures[order], device())), truth([seen[row] for row in order])

    @torch.no_grad()
    def spoil(self, pixels: Tensor) -> Tensor:
        """An eighth through a shaken autoencoder, more blurred, more noisy, half as they are."""
        first, more = len(pixels) // 8, len(pixels) * 3 // 16
        means = self.coder.encode(pixels[:first]).latent_dist.mean
        shaken = means + torch.randn_like(means) * means.std() * self.rng.uniform(0, 0.25)
        pixels[:first] = self.coder.decode(shaken).sample.float().clamp(-1, 1)
        soft = slice(first, first + more)
        smooth = F.avg_pool2d(F.pad(pixels[soft], (1, 1, 1, 1), mode="replicate"), 3, 1)
        pixels[soft] = torch.lerp(pixels[soft], smooth, self.rng.random())
        rough = slice(first + more, first + 2 * more)
        pixels[rough] += torch.randn_like(pixels[rough]) * self.rng.uniform(0, 0.2)
        return pixels


def total(net: ConvTagger, read: dict[str, Tensor], answers: dict[str, Tensor]) -> Tensor:
    """The tagger's own loss; groups with a yes or no for each tag count once per tag, or they would be learned last."""
    loose = [name for name in read if name in (*SEVERAL, DETECTORS)]
    more = [(read[name].shape[1] - 1) * F.binary_cross_entropy_with_logits(read[name], answers[name]) for name in loose]
    return net.loss(read, answers) + torch.stack(more).sum()


def train(bench: Bench, steps: int, until: float | None, count: int = 64, peak: float = 2e-3) -> None:
    where, path = device(), bench.file("tagger.pt")
    torch.manual_seed(0)
    net: ConvTagger = ConvTagger(config()).to(where)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = Both(net, peak)
    clock, step = Clock(steps, until), 0
    if path.exists():
        state = torch.load(path, map_location=where, weights_only=True)
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, clock.began = state["step"], state["began"]
    source, losses, since = Source(bench, step), [], time.time()

    def keep() -> None:
        parts = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
        save(parts | {"step": step, "began": clock.began}, path)

    while (progress := clock.progress(step)) < 1:
        set_rate(optimizer, rate(step, progress, peak, warm_up=100))
        with half_precision(where):
            pixels, answers = source.batch(count)
            read = net(pixels)
        answers = {name: answer.to(where) for name, answer in answers.items()}
        loss = total(net, {name: answer.float() for name, answer in read.items()}, answers)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            bench.log(
                "tagger", f"{step} {progress:.0%} loss {np.mean(losses):.3f} {50 / (time.time() - since):.2f} it/s"
            )
            losses, since = [], time.time()
        if step % 250 == 0:
            keep()
    keep()
    finish(bench, net)


def finish(bench: Bench, net: ConvTagger) -> None:
    net = net.cpu().eval()
    known = accuracy(net)
    done = ConvTagger(net.config.model_copy(update={"accuracy": known}))
    done.load_state_dict(net.state_dict())
    save_convnet(done, CHECKPOINT / "tagger")
    bench.log("tagger", f"saved; recall {known}")


@torch.no_grad()
def accuracy(net: ConvTagger, count: int = 1000) -> dict[str, float]:
    """Recall per group on fresh pictures, and of the detectors."""
    rng = Random("tagger exam")
    scenes = [(world.sample_scene(rng), "") for _ in range(count)]
    scenes += [(concept_scene(name, rng), name) for name in CONCEPTS for _ in range(40)]
    pixels = to_device(np.stack([np.asarray(world.render(scene)) for scene, _ in scenes]), torch.device("cpu"))
    parts = [net.probabilities(chunk) for chunk in torch.split(pixels, 100)]
    answers, known = truth([(world.tags(scene), name) for scene, name in scenes]), {}
    for group in parts[0]:
        p, t = torch.cat([part[group] for part in parts]), answers[group]
        if t.dim() == 1:
            known[group] = float((p.argmax(1) == t)[t >= 0].float().mean())
        else:
            known[group] = float((p > 0.5)[t > 0].float().mean())
            known[f"{group}, false alarms"] = float((p > 0.5)[t == 0].float().mean())
    return {group: round(value, 4) for group, value in known.items()}
