"""What every stage shares: where things lie, the sizes, the clock, safe saving, a learning-rate schedule."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Size = tuple[int, int]
BUCKETS: dict[Size, float] = {(64, 64): 0.72, (48, 80): 0.08, (80, 48): 0.08, (48, 64): 0.06, (64, 48): 0.06}
"""(width, height) and its share of the pictures; all divisible by 16."""
REPOSITORY = Path(__file__).parents[2]
CHECKPOINT = REPOSITORY / "src/tenuto/pocket/checkpoint"


def name_of(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


@dataclass(frozen=True)
class Bench:
    """The folder where the stages leave what the next one needs."""

    root: Path

    def file(self, name: str) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root / name

    def pictures(self, size: Size) -> np.ndarray:
        """[N, H, W, 3] uint8, read from disk as needed."""
        pictures: np.ndarray = np.load(self.file(f"pictures-{name_of(size)}.npy"), mmap_mode="r")
        return pictures

    def captions(self, size: Size) -> list[dict[str, Any]]:
        lines = self.file(f"captions-{name_of(size)}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def latents(self, size: Size) -> torch.Tensor:
        """[N, C, h, w] float16, already multiplied by the scaling factor."""
        return torch.from_numpy(np.load(self.file(f"latents-{name_of(size)}.npy")))

    def log(self, stage: str, line: str) -> None:
        text = f"{datetime.now():%H:%M:%S} {stage}: {line}"
        print(text, flush=True)
        with self.file("log.txt").open("a") as log:
            log.write(text + "\n")


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def emulates_bf16(where: torch.device) -> bool:
    """A CPU without AVX512 does bf16 arithmetic in software: 25 times as slow as fp32 in a matrix product."""
    return where.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability()


def half_precision(where: torch.device) -> Any:
    """bf16 autocast, but not on a CPU that would only emulate it."""
    return nullcontext() if emulates_bf16(where) else torch.autocast(where.type, torch.bfloat16)


def to_device(pictures: np.ndarray, where: torch.device) -> torch.Tensor:
    """[B, H, W, 3] uint8 to [B, 3, H, W] in -1..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).to(where)
    return (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def save(state: dict[str, Any], path: Path) -> None:
    """All or nothing: a stopped run never leaves half a file."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def moment(text: str) -> float:
    """'11:55' as seconds since the epoch: the next time a clock shows it."""
    hour, minute = map(int, text.split(":"))
    now = datetime.now()
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (at if at > now else at + timedelta(days=1)).timestamp()


@dataclass
class Clock:
    """How far a training is: by steps, or by wall clock, whichever ends first. `began` survives a restart."""

    steps: int
    until: float | None
    began: float = field(default_factory=time.time)

    def progress(self, step: int) -> float:
        by_steps = step / self.steps
        if self.until is None:
            return min(1.0, by_steps)
        by_clock = (time.time() - self.began) / max(1.0, self.until - self.began)
        return min(1.0, max(by_steps, by_clock))


def rate(step: int, progress: float, peak: float, warm_up: int = 200, flat: float = 0.0) -> float:
    """Linear warm-up over steps, then flat, then a cosine to (almost) zero over progress."""
    down = max(0.0, (progress - flat) / (1 - flat))
    return peak * min(1.0, (step + 1) / warm_up) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, down)))


class HasRate(Protocol):
    param_groups: list[dict[str, Any]]


def set_rate(optimizer: HasRate, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


@torch.no_grad()
def average_into(slow: torch.nn.Module, fast: torch.nn.Module, decay: float) -> None:
    """The moving average of weights. Early on pass a smaller decay."""
    pairs = list(zip(slow.parameters(), fast.parameters(), strict=True))
    torch._foreach_lerp_([s for s, _ in pairs], [f.detach() for _, f in pairs], 1 - decay)


Log = Callable[[str], None]
