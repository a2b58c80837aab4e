"""A drift budget in the place of a weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, final

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from tenuto.adapters.adapter import Adapter
from tenuto.adapters.tuners.base import Trait
from tenuto.regularizers.base import Done, Memory, Probe, Regularizer

WATCHED = 64
"""States that it steers by, the first ones; fewer are no measure."""
QUARTERS = 4
"""A reading renews this part of what is watched, so that it costs a quarter of it."""
LIMITS = (-1.5, 2.0)
"""The log error that is acted on is cut here: drift starts at 0, and what was let go is slow to come back."""
SHOULDER = 0.25
"""Share of the budget under which a rise of the drift is no news."""
TINY = 1e-12
PATIENCE = 5
"""Readings at the highest weight and over the budget before that is said."""
SLACK = 1.1
NEAR = 0.03
"""A finished drift this close to the budget, as a share of it, is left as it is."""
POWER = 2.0
"""Drift goes with this power of a small LoRA's strength: the first guess of a trim."""


@final
class DriftController(Regularizer):
    """Choose the weight of all other methods so that the drift stays at a budget.

        log M <- log M + weight * every * log(nD / budget) + damping * log(nD' / nD' before)
        nD = sum | f - f_base |^2 / sum | f_base(c) - f_base(empty) |^2        over controller states

    All other methods' weights are multiplied by M. The states lie on the base's own paths, at prompts that are neither
    trained on nor tested with, evenly spaced in t. A quarter of the prompts is near the set, and all of those count as
    much as all that are far from it, as in a comparison. 64 states are watched, and what all come to over those is
    measured anew at each doubling of `warmup`. nD is an energy ratio: 0.1 is 32 % in amplitude; nD' is nD + budget / 4.
    Drift starts at 0 and would overshoot while M follows: the damping answers its rise before the budget is reached. M
    stays between `lowest` and `highest` and does not wind up there. What still differs at the end is trimmed: the
    finished LoRA ships at the strength, up to `trim` more or less than 1, at which nD over all `states` is the budget.

    When   you would rather name a drift that is allowed than try out weights. It may be all that is named: it steers
           what holds a project that names no method.
    Paper  our own; relatives are GECO, arXiv:1810.00597, and PID Lagrangians, arXiv:2007.03964.
    Cost   16 / every forwards per update, `states` at each doubling of `warmup` and at most twice at the end; a path
           of at most 12 steps for every 2 states once, kept in the prior store.
    Avoid  in short trainings, where measuring costs more than learning. A budget that cannot be reached is said.
           Beside `gram_penalty` its reading flatters: both look at the same states.
    """

    dial: ClassVar[str] = "budget"
    weight: NonNegativeFloat = 0.0125
    """How fast M follows: change of its logarithm per update and unit of log error."""
    damping: NonNegativeFloat = 1.0
    """How much a rise of the drift raises M at once, as a power of it; more than 1 may swing."""
    start: PositiveFloat = 16.0
    """M at the start. Holding hard first and letting go slowly learns the most under a budget: what has drifted once is
    held back at the cost of the concept (docs/findings.md)."""
    budget: PositiveFloat = 0.1
    """The drift that is allowed."""
    every: PositiveInt = 10
    """Updates between readings."""
    warmup: NonNegativeInt = 20
    """Updates before it acts, at the least: it acts from the second reading on that knows all that is watched. After
    twice, four, eight ... times as many all states are read."""
    states: PositiveInt = Field(default=256, ge=WATCHED, multiple_of=QUARTERS)
    """Controller states, two of a prompt: prompts differ in how far they drift, so what is kept on few is not kept on
    others."""
    trim: NonNegativeFloat = Field(default=0.4, lt=1)
    """How far from 1 the strength may be at which the finished LoRA ships; 0: as trained, which oft and boft need."""
    lowest: PositiveFloat = 1e-2
    """Least M."""
    highest: PositiveFloat = 1e3
    """Largest M."""

    def needs_sensor(self) -> int:
        return self.states

    def usual_ratio(self) -> float:
        """What weights may rise to wants the rows that a weight of 1 has."""
        return 0.5

    def helped_ratio(self) -> float:
        return self.usual_ratio() / 2

    def needs_trait(self) -> Trait | None:
        return "product" if self.trim else None

    def init(self, adapter: Adapter, probe: Probe) -> Memory:
        effects = probe.sensor_effects()
        return {
            "log": torch.tensor(math.log(self.start), dtype=torch.float64),
            "moved": torch.full((min(WATCHED, len(effects)),), math.nan, dtype=torch.float64),
            "effect": effects[:WATCHED].double().sum(),
            "scale": torch.tensor(1.0, dtype=torch.float64),
            "before": torch.tensor(math.nan, dtype=torch.float64),
            "readings": torch.tensor(0),
            "over": torch.tensor(0),
        }

    def multiplier(self, memory: Memory) -> float:
        return math.exp(float(memory["log"])) if memory else 1.0

    def after_update(self, adapter: Adapter, memory: Memory, done: Done) -> Memory:
        if done.update % self.every:
            return memory
        memory = self._read_all(memory, done.probe) if self.doubled(done.update) else self._read(memory, done.probe)
        drift = _drift(memory)
        before, memory = float(memory["before"]), {**memory, "before": torch.tensor(drift, dtype=torch.float64)}
        if math.isnan(before) or done.update < self.warmup:
            return memory
        log = self.advance(float(memory["log"]), drift, before, done.epoch)
        over = int(memory["over"]) + 1 if self.stuck(log, drift) else 0
        if over == PATIENCE:
            done.warn(
                f"drift budget {self.budget:g} is out of reach: nD {drift:.3g} at {self.highest:g} times the weights; "
                "lower training.optimizer.lr or training.adapter.rank, or allow more"
            )
        return {**memory, "log": torch.tensor(log, dtype=torch.float64), "over": torch.tensor(over)}

    def advance(self, log: float, drift: float, before: float, epoch: float = 0.0) -> float:
        """The next log M. It is the whole state, and bounded: nothing can wind up."""
        low, high = LIMITS
        error = min(max(math.log(max(drift, TINY) / self.budget), low), high)
        shoulder = SHOULDER * self.budget
        rise = math.log((drift + shoulder) / (before + shoulder))
        log += self.weight_at(epoch) * self.every * error + self.damping * rise
        return min(max(log, math.log(self.lowest)), math.log(self.highest))

    def shipped_strength(self, adapter: Adapter, probe: Probe) -> tuple[float, str]:
        effects = probe.sensor_effects().double()

        def drift(strength: float) -> float:
            with adapter.rescaled(strength):
                return float(_moved(probe, range(len(effects))).sum() / effects.sum())

        strength = self.trimmed(drift) if self.trim else 1.0
        return strength, self.told(strength)

    def told(self, strength: float) -> str:
        """What the finished LoRA ships at this strength for."""
        if 1 - self.trim < strength < 1 + self.trim:
            return "to be at the drift budget"
        if strength > 1:
            return "the most that its trim allows: it still drifts less than the budget, for which it may train longer"
        return "the least that its trim allows: it still drifts more than the budget"

    def trimmed(self, drift: Callable[[float], float]) -> float:
        """The strength at which the drift is the budget: a guess, then one step along the line through two readings
        (of logarithms)."""
        trained = drift(1.0)
        first = self._allowed((self.budget / max(trained, TINY)) ** (1 / POWER))
        if abs(trained / self.budget - 1) < NEAR or first == 1:
            return 1.0
        found = drift(first)
        power = math.log(max(found, TINY) / trained) / math.log(first) if trained > TINY else POWER
        return self._allowed(first * (self.budget / max(found, TINY)) ** (1 / power)) if power > 1 else first

    def _allowed(self, strength: float) -> float:
        return min(max(strength, 1 - self.trim), 1 + self.trim)

    def stuck(self, log: float, drift: float) -> bool:
        """Whether the highest weight is not enough."""
        return log >= math.log(self.highest) - 1e-9 and drift > SLACK * self.budget

    def _read(self, memory: Memory, probe: Probe) -> Memory:
        number = int(memory["readings"])
        states = range(number % QUARTERS, len(memory["moved"]), QUARTERS)
        moved = memory["moved"].clone()
        moved[list(states)] = _moved(probe, states)
        return {**memory, "moved": moved, "readings": torch.tensor(number + 1)}

    def _read_all(self, memory: Memory, probe: Probe) -> Memory:
        """With the drift before this reading on the new scale, for what it is compared with."""
        effects = probe.sensor_effects().double().cpu()
        moved = _moved(probe, range(len(effects)))
        watched = moved[: len(memory["moved"])]
        whole, some = moved.sum() / effects.sum(), watched.sum() / memory["effect"]
        scale = whole / some if some > 0 else memory["scale"]
        return {**memory, "moved": watched, "scale": scale, "before": memory["before"] * scale / memory["scale"]}

    def doubled(self, update: int) -> bool:
        """Whether all states are read at this update: the first reading from each doubling of the warm-up on."""
        goal = 2 * max(self.warmup, self.every)
        while goal + self.every <= update:
            goal *= 2
        return goal <= update

    def notes(self, memory: Memory) -> Mapping[str, float]:
        drift = _drift(memory)
        known = {} if math.isnan(drift) else {"drift": drift}
        return {"multiplier": self.multiplier(memory), "out_of_reach": float(memory["over"] >= PATIENCE), **known}


def _drift(memory: Memory) -> float:
    """nD as last read, a ratio of sums; not a number before every watched state was read once."""
    return float(memory["scale"] * memory["moved"].sum() / memory["effect"])


def _moved(probe: Probe, states: Sequence[int]) -> Tensor:
    return probe.sensor_moved(states).double().cpu()
