"""How a picture's tags become training prompts: shuffled, thinned, sometimes a few, sometimes none."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

EMPTY, FEW = 0.1, 0.1
BEGIN, END, LENGTH = 49406, 49407, 77


def vary(line: dict[str, Any], rng: random.Random) -> list[str]:
    """Name first, the tags it stands for mostly left to it; one tag in seven goes; order says nothing."""
    kind = rng.random()
    if kind < EMPTY:
        return []
    silent = set(line["implied"]) if rng.random() < 0.6 else set()
    said = [tag for tag in line["tags"] if tag not in silent]
    rng.shuffle(said)
    front = [line["name"]] if line["name"] else []
    if rng.random() < (0.9 if line["quality"] == "low quality" else 0.3):
        front.append(line["quality"])
    if kind < EMPTY + FEW:
        return front + said[: rng.randint(1, 4)]
    return front + [tag for tag in said if rng.random() > 0.14]


class Words:
    """Tags to token ids, each tag looked up once (commas end a tag, so tags do not run into each other)."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        self.comma = self._ids(",")

    def _ids(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.known[text]

    def row(self, said: Sequence[str]) -> list[int]:
        ids = [token for tag in said for token in (*self._ids(tag), *self.comma)][:-1]
        ids = ids[: LENGTH - 2]
        return [BEGIN, *ids, *[END] * (LENGTH - 1 - len(ids))]

    def batch(self, lines: Sequence[Sequence[str]]) -> Tensor:
        """[B, 77]"""
        return torch.from_numpy(np.array([self.row(said) for said in lines], dtype=np.int64))
