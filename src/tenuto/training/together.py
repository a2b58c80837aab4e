"""What the ranks of a job exchange in an update: gradients, terms, and now and then a whole state.

Each rank has a part of every update's rows. A term's share is 1 / rows of its role in the whole update, so what the
ranks have simply adds up, as micro-batches do. DistributedDataParallel would do this after every backward and divide
by the number of ranks; an update here has several backwards with any number of forwards each, and is a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import torch
from torch import Tensor, nn

from tenuto.ranks import Ranks
from tenuto.training.rows import ROLES
from tenuto.training.state import TrainState, state_bytes, state_from
from tenuto.words import Role


def all_roles(ranks: Ranks, own: Mapping[Role, int]) -> dict[Role, int]:
    """Rows of each role on all ranks."""
    counts = ranks.sum(torch.tensor([own[role] for role in ROLES]))
    return dict(zip(ROLES, counts.tolist(), strict=True))


def add_gradients(ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
    """Give every rank the sum of all ranks' gradients, in one exchange. What has none anywhere still has none."""
    if ranks.count == 1:
        return
    there = [parameter.grad is not None for parameter in parameters]
    parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    flat = ranks.sum(torch.cat([*parts, torch.tensor(there, dtype=parts[0].dtype, device=parts[0].device)]))
    sums = torch.split(flat, [parameter.numel() for parameter in parameters] + [len(parameters)])
    for parameter, own, has in zip(parameters, sums, sums[-1].tolist(), strict=False):
        parameter.grad = own.view_as(parameter).clone() if has else None


def all_terms(ranks: Ranks, own: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Every term of the loss by name, summed over the ranks; what no rank has is left out."""
    if ranks.count == 1:
        return dict(own)
    names = list(names)
    table = torch.tensor([[own.get(name, 0.0), float(name in own)] for name in names], dtype=torch.float64)
    return {name: value for name, (value, has) in zip(names, ranks.sum(table).tolist(), strict=True) if has}


def state_of_first(ranks: Ranks, state: TrainState | None) -> TrainState | None:
    """The first rank's state, on every rank."""
    if ranks.count == 1:
        return state
    data = ranks.from_first(state_bytes(state) if state and ranks.first else b"")
    return state_from(data) if data else None


def in_step(ranks: Ranks, state: TrainState) -> bool:
    """Whether the adapter is the same on all ranks, bit for bit: unlike devices round unlike."""
    return ranks.count == 1 or ranks.same(_digest(state.adapter))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
