"""Base paths: a few of the states that the base met while it sampled a prior image, with its own answers.

They are targets without noise and without a teacher: exactly what the base would have done, at states where it went.
A guided sampler asks with and without the prompt, so both answers are free.

Shapes: B rows, K kept states, C H W latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from tenuto.families.base import Base, Conditioning
from tenuto.randomness import shuffler
from tenuto.words import Size

DTYPE = torch.float16
"""Kept precision: rounding moves an answer by about 1e-3 of itself, far less than any drift that matters."""


@dataclass(frozen=True)
class State:
    """One kept state, in the family's native scale and in float32."""

    x_t: Tensor
    """[C H W]."""
    t: float
    answer: Tensor
    """What the base answered with the prompt [C H W]."""
    blank: Tensor | None
    """What it answered with the negative prompt; None where nothing was guided."""


@dataclass(frozen=True)
class BasePath:
    """The kept states of one prior image; read from disk when asked for."""

    prompt: str
    negative: str
    size: Size
    chunks: int
    """Text passes that both prompts were padded to."""
    count: int
    """How many states there are."""
    read: Callable[[int], State]
    weight: float = 1.0
    """What each of them counts where paths are summed up."""


Kept = dict[str, Tensor]
"""x_t, answer and blank [K C H W], t [K]: the states of one image as they are stored."""


def state_of(kept: Kept) -> State:
    """One state out of tensors of it alone."""
    blank = kept.get("blank")
    return State(
        kept["x_t"].float(), float(kept["t"]), kept["answer"].float(), None if blank is None else blank.float()
    )


def kept_steps(seed: int, steps: int, count: int) -> tuple[int, ...]:
    """Which steps of a path are kept: one out of each of `count` equal stretches, so that paths differ in them."""
    count = min(count, steps)
    edges = [round(part * steps / count) for part in range(count + 1)]
    rng = shuffler(seed, "kept states", count=count)
    return tuple(rng.randrange(low, high) for low, high in pairwise(edges))


def evenly(shares: Sequence[float], count: int) -> list[int]:
    """Which of a path's states lie nearest to `count` evenly spaced places of t, none twice, in the path's order; all
    of them where there are no more. shares: where each stands, 0 (clean) .. 1 (noise)."""
    chosen: set[int] = set()
    for number in range(min(count, len(shares))):
        goal = (number + 0.5) / count
        free = [n for n in range(len(shares)) if n not in chosen]
        chosen.add(min(free, key=lambda n: abs(shares[n] - goal)))
    return sorted(chosen)


class Recorder:
    """Listens to a base while it samples a batch: hand `base` to `sample` in its place, then take `kept`."""

    def __init__(self, base: Base, seeds: Sequence[int], steps: int, count: int) -> None:
        self._base = base
        self._wanted = [kept_steps(seed, steps, count) for seed in seeds]
        self._kept: list[list[Kept]] = [[] for _ in seeds]
        self._step = 0

    @property
    def base(self) -> Base:
        """The base, heard."""
        return cast(Base, _Heard(self._base, self._hear))

    def kept(self) -> list[Kept]:
        """Of every image the states that are kept, in the order in which they were met."""
        return [{name: torch.stack([one[name] for one in own]) for name in own[0]} for own in self._kept]

    def _hear(self, x_t: Tensor, t: Tensor, answer: Tensor) -> None:
        rows = len(self._wanted)
        for row, wanted in enumerate(self._wanted):
            if self._step in wanted:
                one = {"x_t": x_t[row], "answer": answer[row]}
                if len(x_t) > rows:
                    one["blank"] = answer[rows + row]
                kept = {name: value.detach().to("cpu", DTYPE) for name, value in one.items()}
                self._kept[row].append({**kept, "t": t[row].detach().float().cpu()})
        self._step += 1


class _Heard:
    """A base whose answers somebody listens to; all else is the base's own."""

    def __init__(self, base: Base, hear: Callable[[Tensor, Tensor, Tensor], None]) -> None:
        self._base, self._hear = base, hear

    def __getattr__(self, name: str) -> object:
        return getattr(self._base, name)

    def predict(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        answer = self._base.predict(x_t, t, cond)
        self._hear(x_t, t, answer)
        return answer
