"""The loss equation, in one place.

    L = sum_terms sum_i share_i * term_i          share_i = 1 / rows of i's role in the whole update

so the instance term is the mean over instance rows and every prior term the mean over prior rows, whatever the
batch size, the ratio or the way an update is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.step import Step, squared_error


def objective(step: Step, regularizers: Mapping[str, Regularizer]) -> dict[str, Tensor]:
    """Every term of the loss by name, each a scalar: "instance" and one per regularizer that has something to say."""
    terms: dict[str, Tensor] = {}
    rows = step.rows("instance")
    if rows:
        instance = step.spread(rows, squared_error(step.predict(rows), step.target[list(rows)]))
        for regularizer in regularizers.values():
            instance = regularizer.weigh(step, instance)
        terms["instance"] = instance
    for name, regularizer in regularizers.items():
        term = regularizer.loss(step)
        if term is not None:
            terms[name] = term
    return {name: (step.share * term).sum() for name, term in terms.items()}
