"""All randomness is named (law 5): the same name gives the same numbers, on any batch size, resumed or not."""

from __future__ import annotations

import json
import random
from hashlib import blake2b

from torch import Generator, Tensor, randn

Place = int | str


def seed_for(seed: int, purpose: str, **place: Place) -> int:
    """A 56-bit seed that depends on every part of the name and on nothing else."""
    name = json.dumps([seed, purpose, sorted(place.items())])
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")


def stream(seed: int, purpose: str, **place: Place) -> Generator:
    """A torch generator (CPU) for one named draw."""
    return Generator("cpu").manual_seed(seed_for(seed, purpose, **place))


def shuffler(seed: int, purpose: str, **place: Place) -> random.Random:
    """A Python generator for one named draw of orders and choices."""
    return random.Random(seed_for(seed, purpose, **place))


def noise(shape: tuple[int, ...], seed: int, purpose: str, **place: Place) -> Tensor:
    """Standard normal noise of this shape, drawn on the CPU so that every device sees the same."""
    return randn(shape, generator=stream(seed, purpose, **place))
