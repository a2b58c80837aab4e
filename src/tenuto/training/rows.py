"""Rows: what one use of an instance item or a prior image is made of, and how rows become micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tenuto.data.schedule import Update
from tenuto.prior.states import BasePath
from tenuto.regularizers.draft import Draft
from tenuto.words import Role, Size

ROLES: tuple[Role, ...] = ("instance", "prior")
EVEN: Mapping[Role, float] = dict.fromkeys(ROLES, 1.0)
MOST = 8.0
"""Largest importance weight: a rarer and still larger gradient would mostly be clipped."""


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
    varied: bool = False
    """Whether the captions are this visit's own: tags shuffled or left out."""


class Source(Protocol):
    """An instance item or a prior image, ready to be used any number of times."""

    def row(self, visit: int) -> Row: ...

    def prompt(self) -> str:
        """What its rows are asked with, as long as no variation changes it."""


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


def roles(rows: Sequence[Row] | Sequence[Draft]) -> dict[Role, int]:
    """How many rows there are of each role."""
    return {role: sum(row.role == role for row in rows) for role in ROLES}


def importance(updates: Sequence[Update]) -> dict[Role, float]:
    """Per role 1 / the part of the updates that has rows of it: what those rows count, so that a role's term is worth
    the same over a training in however few updates its rows come (weight / p); at most MOST."""
    found = {role: sum(bool(update.of(role)) for update in updates) for role in ROLES}
    return {role: min(len(updates) / count, MOST) if count else 1.0 for role, count in found.items()}


def shares(batch: Sequence[Draft], counts: Mapping[Role, int], weights: Mapping[Role, float] = EVEN) -> Tensor:
    """Weight of its role / rows of its role in the whole update, of each row [B]."""
    return torch.tensor([weights[row.role] / counts[row.role] for row in batch])
