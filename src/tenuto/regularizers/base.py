"""The interface of a regularizer: a settings section that is also the behaviour, behind a few hooks.

To add one: one file with one `@final` class, one line in `catalogue.py`, and its contract tests run by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.tuners.base import Trait
from tenuto.regularizers.draft import Draft
from tenuto.regularizers.step import At, Step
from tenuto.words import Role, Settings

Memory = Mapping[str, Tensor]
"""What a method remembers from update to update; the loop saves and restores it."""


NOTHING_HEARD = torch.zeros(0)


class WeightSchedule(Settings):
    """How a weight moves over the training. D8's three numbers: weight, target epoch, minimum."""

    shape: Literal["constant", "linear", "cosine"] = "constant"
    """constant: always the weight; linear, cosine: from the weight to `minimum` at `until_epoch`, then constant."""
    minimum: NonNegativeFloat = 0.0
    """Where the weight ends. 0 is a value."""
    until_epoch: PositiveFloat = 100.0
    """The epoch at which `minimum` is reached."""

    def at(self, weight: float, epoch: float) -> float:
        """The weight at this (fractional) epoch."""
        done = min(epoch / self.until_epoch, 1.0)
        gone = {"constant": 0.0, "linear": done, "cosine": (1 - math.cos(math.pi * done)) / 2}[self.shape]
        return weight + (self.minimum - weight) * gone


@dataclass(frozen=True)
class Activations:
    """Of one layer, over many states and places."""

    inputs: Tensor
    """Some of its inputs [N in]; of convolutions whole patches."""
    square: Tensor
    """Mean square of each input, over all places [in]."""
    energy: float
    """Mean squared length of its output."""


class Probe(Protocol):
    """What a method may ask apart from the steps. Every answer is remembered, so methods share the forwards."""

    def prior_prompts(self) -> Mapping[str, str]:
        """The prompt of every prior row of the training, by the row's id."""

    def effect(self, role: Role, at: At) -> Tensor:
        """The prompt's own effect in the base, mean |f_base(c) - f_base(blank)|^2, in each of BINS bins of t [BINS];
        of prompts that have words, 0 where none has."""

    def error(self) -> float:
        """The base's mean squared error on instance rows."""

    def activations(self, count: int) -> Mapping[str, Activations]:
        """What goes through each adapted layer of the base on the controller states, `count` places of it."""

    def sensor_effects(self) -> Tensor:
        """Of every controller state the prompt's effect in the base, |f_base(c) - f_base(blank)|^2, times what its path
        counts [N]."""

    def sensor_moved(self, states: Sequence[int]) -> Tensor:
        """How far the adapted answer is from the base's now, |f(c) - f_base(c)|^2, times what the path counts, at these
        states [R]."""


@dataclass(frozen=True)
class Place:
    """Where a training stands, for `during`."""

    update: int
    """Updates done before this one."""
    epoch: float
    seed: int
    roles: frozenset[Role]
    """Of the rows of this micro-batch."""


@dataclass(frozen=True)
class Done:
    """What an update came to, for `after_update`."""

    update: int
    """Updates done, this one counted."""
    epoch: float
    terms: Mapping[str, float]
    """Every term of the loss: "instance" and one per method."""
    heard: Tensor
    """What the method heard of the update's rows (`hear`)."""
    lr: float
    seed: int
    probe: Probe
    warn: Callable[[str], None]
    """Tells the user something that should be looked at."""


USUAL_RATIO = 0.5
"""Prior rows per instance row: on a style as good as 1 (docs/findings.md)."""


class Regularizer(Settings):
    """Hooks, each with a do-nothing default. L = mean of weighed instance errors + every `loss` and `penalty`."""

    dial: ClassVar[str] = "weight"
    """The setting by which people turn it up and down."""
    weight: NonNegativeFloat = 1.0
    """How much the term counts. 0 is a value: the method is then absent, bit for bit."""
    schedule: WeightSchedule = WeightSchedule()
    """How the weight moves over the training."""

    @model_validator(mode="after")
    def _ends_at_a_weight(self) -> Self:
        """A weight falls to no value that it could not begin with."""
        own = type(self).model_fields["weight"]
        allowed: Any = Annotated[own.annotation, own]
        try:
            TypeAdapter(allowed).validate_python(self.schedule.minimum)
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False)
            raise ValueError(f"schedule.minimum = {self.schedule.minimum:g} is no weight: {first['msg']}") from error
        return self

    def weight_at(self, epoch: float) -> float:
        """The weight that is in the loss, and in the log, at this epoch."""
        return self.schedule.at(self.weight, epoch)

    def active(self) -> bool:
        """Whether the method does anything at all; if not, it is left out and draws nothing."""
        return self.weight > 0 or (self.schedule.shape != "constant" and self.schedule.minimum > 0)

    # -- what it needs, known before any work ---------------------------------------------------------------------

    def needs_prior(self) -> bool:
        """Whether prior rows should join the updates."""
        return False

    def usual_ratio(self) -> float:
        """Prior rows per instance row that it asks for where nobody says how many; the largest of all counts."""
        return USUAL_RATIO if self.needs_prior() else 0.0

    def fewest_ratio(self) -> float:
        """Prior rows per instance row below which its weight is known to drown what is learned; 0: none is known."""
        return 0.0

    def helped_ratio(self) -> float:
        """What it asks for in the place of `usual_ratio` beside a method that holds where the user's pictures are."""
        return self.usual_ratio()

    def needs_trigger(self) -> bool:
        """Whether it makes no sense without a trigger that can be replaced."""
        return False

    def needs_words(self) -> bool:
        """Whether it measures by what prompts do, so that some caption must have a word."""
        return False

    def needs_company(self) -> bool:
        """Whether it works only through other methods' prior rows."""
        return False

    def idle_alone(self) -> bool:
        """Whether it does nothing as the only method: it changes others' prior rows, or chooses their weights."""
        return self.needs_company() or (self.needs_sensor() > 0 and not self.holds())

    def needs_masks(self) -> bool:
        """Whether it makes no sense without masks (concepts.masks, or pictures' transparency)."""
        return False

    def needs_trait(self) -> Trait | None:
        """What it takes the adapter's change of a layer for, which not every kind of adapter's is."""
        return None

    def needs_states(self) -> int:
        """How many states of every prior image's path it reads; 0: none."""
        return 0

    def needs_sensor(self) -> int:
        """How many controller states it reads: at prompts that are neither trained on nor tested with; 0: none."""
        return 0

    def holds(self) -> bool:
        """Whether it has a term of its own."""
        own = type(self)
        return own.loss is not Regularizer.loss or own.penalty is not Regularizer.penalty

    # -- before a step is fixed -----------------------------------------------------------------------------------

    def timesteps(self, chances: Tensor, role: Role) -> Tensor:
        """How likely each timestep is for rows of a role [T], summing to 1."""
        return chances

    def draw(self, draft: Draft, seed: int) -> Draft:
        """Change a row in the making: its words, noise or timestep. Draws are named by seed, purpose, id and visit."""
        return draft

    def apart(self) -> bool:
        """Whether instance and prior rows must not share a forward."""
        return False

    def during(self, adapter: Adapter, place: Place) -> AbstractContextManager[None]:
        """Around the forwards and the backward of a micro-batch. What it does must not differ between the
        micro-batches of an update (but by role, where rows are kept apart), nor when a forward is made again."""
        return nullcontext()

    # -- the loss -------------------------------------------------------------------------------------------------

    def learn(self, step: Step, instance: Tensor) -> Tensor:
        """Put something else in the place of the per-row values of the instance term [B], before any method weighs
        them."""
        return instance

    def weigh(self, step: Step, instance: Tensor) -> Tensor:
        """Change the per-row values of the instance term [B]."""
        return instance

    def weigh_held(self, step: Step, held: Tensor, memory: Memory) -> Tensor:
        """Change the per-row values of another method's term [B]."""
        return held

    def multiplier(self, memory: Memory) -> float:
        """What the weights of all other methods are multiplied by, in the loss and in the log."""
        return 1.0

    def loss(self, step: Step, memory: Memory) -> Tensor | None:
        """One more term, per row [B], already weighted; None when this micro-batch has no row for it."""
        return None

    def penalty(self, adapter: Adapter, memory: Memory, epoch: float) -> Tensor | None:
        """One more term of the adapter alone, a scalar, already weighted; asked once per update."""
        return None

    # -- what rows tell -------------------------------------------------------------------------------------------

    def silence(self, memory: Memory) -> Tensor:
        """What `hear` adds to, over all micro-batches and ranks of an update; empty: it does not listen."""
        return NOTHING_HEARD

    def hear(self, step: Step, memory: Memory) -> Tensor:
        """What the method takes from a micro-batch, after its backward, as a sum that `after_update` is given."""
        return self.silence(memory)

    # -- memory ---------------------------------------------------------------------------------------------------

    def init(self, adapter: Adapter, probe: Probe) -> Memory:
        """Memory at the start of training."""
        return {}

    def after_update(self, adapter: Adapter, memory: Memory, done: Done) -> Memory:
        """After the optimizer's step: may change the adapter's weights; returns the new memory."""
        return memory

    def shipped(self, adapter: Adapter, memory: Memory, epoch: float) -> Mapping[str, Tensor] | None:
        """The adapter's state that goes into LoRA files; None: as trained."""
        return None

    def shipped_strength(self, adapter: Adapter, probe: Probe) -> tuple[float, str]:
        """How strongly the finished adapter ships, and what for, in words; asked once at the end, with the adapter as
        it would ship."""
        return 1.0, ""

    def notes(self, memory: Memory) -> Mapping[str, float]:
        """Numbers for the log."""
        return {}
