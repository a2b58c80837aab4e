"""The loss equation, in one place.

    L = sum_terms sum_i share_i * term_i + sum_k penalty_k          share_i = 1 / (p * rows of i's role in the update)

with p the part of the updates that has rows of the role (`rows.importance`): so the instance term is the mean over
instance rows and every prior term, over the training, the mean over prior rows, whatever the batch size, the ratio or
the way an update is cut into micro-batches. Penalties look at the adapter alone, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.regularizers.base import Memory, Regularizer
from tenuto.regularizers.step import Step

Methods = Mapping[str, Regularizer]
Memories = Mapping[str, Memory]
NOTHING: Memory = {}
NONE: Memories = {}


def objective(step: Step, methods: Methods, memories: Memories = NONE) -> dict[str, Tensor]:
    """Every term of the loss by name, each a scalar: "instance" and one per method that has something to say."""
    terms: dict[str, Tensor] = {}
    rows = step.rows("instance")
    if rows:
        instance = step.spread(rows, step.error(rows))
        for method in methods.values():
            instance = method.learn(step, instance)
        for method in methods.values():
            instance = method.weigh(step, instance)
        terms["instance"] = instance
    for name, method in methods.items():
        term = method.loss(step, memories.get(name, NOTHING))
        if term is not None:
            terms[name] = _held(step, name, term, methods, memories)
    return {name: (step.share * term).sum() for name, term in terms.items()}


def _held(step: Step, name: str, term: Tensor, methods: Methods, memories: Memories) -> Tensor:
    """A method's term as the other methods have it."""
    for other, method in methods.items():
        if other != name:
            term = method.weigh_held(step, term, memories.get(other, NOTHING))
    factor = multiplier(name, methods, memories)
    return term if factor == 1 else factor * term


def hear(step: Step, methods: Methods, memories: Memories, heard: dict[str, Tensor]) -> None:
    """Add what every method that listens takes from a micro-batch."""
    for name in heard:
        heard[name] = heard[name] + methods[name].hear(step, memories.get(name, NOTHING))


def silence(methods: Methods, memories: Memories) -> dict[str, Tensor]:
    """Of every method that listens, what it hears at first."""
    found = {name: method.silence(memories.get(name, NOTHING)) for name, method in methods.items()}
    return {name: own for name, own in found.items() if own.numel()}


def penalties(adapter: Adapter, methods: Methods, memories: Memories, epoch: float) -> dict[str, Tensor]:
    """Every term that looks at the adapter alone."""
    terms = {name: method.penalty(adapter, memories.get(name, NOTHING), epoch) for name, method in methods.items()}
    return {name: multiplier(name, methods, memories) * term for name, term in terms.items() if term is not None}


def multiplier(name: str, methods: Methods, memories: Memories) -> float:
    """What a method's weight is multiplied by: all that the others ask for."""
    return math.prod(
        method.multiplier(memories.get(other, NOTHING)) for other, method in methods.items() if other != name
    )
