"""What a method needs in its contract tests, where a plain tiny run is not enough for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tenuto.regularizers.base import NOTHING_HEARD, Done, Regularizer
from tenuto.regularizers.catalogue import REGULARIZERS
from tenuto.regularizers.l2_to_base import L2ToBase
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.training.loop import Run
from tests.steps import Thing, things


@dataclass(frozen=True)
class Case:
    """A method as it is tested."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Apart from its weight."""
    beside: dict[str, Regularizer] = field(default_factory=dict)
    """Methods that are there with and without it."""
    loud: float = 1.0
    """The weight at which it does something."""
    run: dict[str, Any] = field(default_factory=dict)
    """What the run needs."""


def masked() -> list[Thing]:
    """Instance things, half of them with masks."""
    left = torch.zeros(1, 8, 8)
    left[..., :3] = 1
    return [replace(thing, mask=left if number % 2 else None) for number, thing in enumerate(things(6))]


def with_states() -> list[Thing]:
    """Prior things whose base paths are kept."""
    return [replace(thing, states=4) for thing in things(8, "prior")]


def two_prompts() -> list[Thing]:
    """Prior things of two prompts only, so that each is seen again."""
    return [replace(thing, caption=f"prior {number % 2}") for number, thing in enumerate(things(8, "prior"))]


CASES: dict[str, Case] = {
    "cached_prior": Case(run={"prior": with_states()}, settings={"fresh": 0.3, "blank": 0.3}),
    "drift_controller": Case(
        settings={"every": 1, "warmup": 0, "budget": 1e-6},
        beside={"l2_to_base": L2ToBase(weight=1.0)},
        loud=0.5,
        run={"steps": 8},
    ),
    "trigger_contrast": Case(settings={"share": 0.5}),
    "overdriven_prior": Case(beside={"prior_prediction": PriorPrediction(weight=100.0)}),
    "hard_prompts": Case(beside={"prior_prediction": PriorPrediction(weight=100.0)}, run={"prior": two_prompts()}),
    "masked_prior": Case(run={"items": masked()}),
    "adapter_dropout": Case(loud=0.5),
    "caption_dropout": Case(beside={"prior_preservation": PriorPreservation()}),
    "max_norm": Case(settings={"limit": 1e-4}),
}


def methods(name: str, weight: float | None = None) -> dict[str, Regularizer]:
    """The method (at its loud weight) and what it is tested beside."""
    case = CASES.get(name, Case())
    return {**case.beside, name: REGULARIZERS[name](weight=case.loud if weight is None else weight, **case.settings)}


def run_of(name: str) -> dict[str, Any]:
    """What `make_run` is told."""
    return CASES.get(name, Case()).run


def beside(name: str) -> dict[str, Regularizer]:
    """The same run without the method."""
    return CASES.get(name, Case()).beside


def moved(run: Run, by: float = 0.01) -> Run:
    """The run with an adapter that does something."""
    with torch.no_grad():
        for parameter in run.adapter.parameters():
            parameter.add_(by)
    return run


def run_done(run: Run, **more: Any) -> Done:
    """What an update of this run came to."""
    given = {"update": 1, "epoch": 0.0, "terms": {}, "heard": NOTHING_HEARD, "lr": 1e-3, "seed": 0}
    given |= {"probe": run.probe, "warn": print}
    return Done(**(given | more))
