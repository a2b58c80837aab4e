"""Rows: what one use of an instance item or a prior image is made of, and how rows become micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tenuto.prior.states import BasePath
from tenuto.regularizers.draft import Draft
from tenuto.words import Role, Size


@dataclass(frozen=True)
class Row:
    """One sample of an update, before noise is added."""

    id: str
    visit: int
    """How many times this item was used before: with the id, the name of every draw made for the row."""
    role: Role
    size: Size
    caption: str
    chunks: int
    """Text passes of the caption; rows of one micro-batch have the same number."""
    latents: Tensor
    """Clean latents [C H W]."""
    class_caption: str | None = None
    """The caption with the class word for the trigger; None: there is no trigger in it."""
    bare_caption: str | None = None
    """The caption without the trigger and with nothing in its place; None: there is no trigger in it."""
    mask: Tensor | None = None
    """How much each place counts [1 H W] in 0..1, at the latents' size; None: all of it."""
    path: BasePath | None = None
    """The kept states of a prior image, where a method reads them."""


class Source(Protocol):
    """An instance item or a prior image, ready to be used any number of times."""

    def row(self, visit: int) -> Row: ...


def micro_batches(rows: Sequence[Draft], limit: int | None, *, apart: bool = False) -> Iterator[list[Draft]]:
    """Rows of one (size, chunks) together, at most `limit` of them at a time, in the order in which they came.

    apart: and of one role.

    Text of another length changes cross-attention, so rows of different chunks never share a forward.
    """
    groups: dict[tuple[Size, int, str], list[Draft]] = {}
    for row in rows:
        groups.setdefault((row.size, row.chunks, row.role if apart else ""), []).append(row)
    for group in groups.values():
        step = limit or len(group)
        for start in range(0, len(group), step):
            yield group[start : start + step]


def shares(batch: Sequence[Draft], update: Sequence[Draft]) -> Tensor:
    """1 / rows of each row's role in the whole update [B]."""
    counts = {role: sum(row.role == role for row in update) for role in {row.role for row in update}}
    return torch.tensor([1 / counts[row.role] for row in batch])
