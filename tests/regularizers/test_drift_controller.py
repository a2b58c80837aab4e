"""The drift budget: what must hold of the controller, and the trim."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import attach_file
from tenuto.families.base import Base
from tenuto.prior.states import BasePath, State
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.drift_controller import DriftController
from tenuto.regularizers.l2_to_base import L2ToBase
from tests.regularizers.cases import moved, run_done
from tests.steps import make_run


def toy(method: DriftController, updates: int, log: float = 0.0, w: float = 0.0, least: float = 0.0) -> Any:
    """35: inst = (w - 1)^2, drift = w^2, so w = 1 / (1 + lam) at rest; `least` keeps w from falling lower."""
    history: list[tuple[float, float]] = []
    before = w * w
    for update in range(1, updates + 1):
        w = max(w - 0.05 * (2 * (w - 1) + 2 * math.exp(log) * w) / (1 + math.exp(log)), least)
        if not update % method.every:
            log, before = method.advance(log, w * w, before), w * w
            history.append((log, w * w))
    return history


def test_the_controller_reaches_the_budget_and_stays() -> None:
    history = toy(DriftController(budget=0.1), 3000)
    assert all(abs(drift / 0.1 - 1) < 0.05 for _, drift in history[-50:])
    assert math.exp(history[-1][0]) == pytest.approx(2.16, rel=0.1)


@pytest.mark.parametrize("budget", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_drift_that_starts_at_nothing_hardly_overshoots(weight: float, budget: float) -> None:
    """A slow plant with steps of bounded size, as Adam's are: within 15 % of the budget after 600 updates."""
    method, w, before, drifts = DriftController(budget=budget), 0.0, 0.0, list[float]()
    log = math.log(method.start)
    for update in range(1, 601):
        lam = weight * math.exp(log)
        w -= 0.005 * min(max(3 * ((w - 1) + lam * w) / (1 + lam), -1), 1)
        if not update % method.every:
            log = method.advance(log, w * w, before) if update >= method.warmup else log
            before = w * w
            drifts.append(before)
    assert max(drifts) < 1.6 * budget
    assert abs(drifts[-1] / budget - 1) < 0.15


def test_a_budget_out_of_reach_rails_and_recovers_without_winding_up() -> None:
    tight = DriftController(budget=0.1)
    history = toy(tight, 3000, least=0.5)
    log, drift = history[-1]
    assert log == math.log(tight.highest)
    assert tight.stuck(log, drift)
    relaxed = DriftController(budget=0.5)
    later = toy(relaxed, 3000, log=log, w=0.5, least=0.5)
    assert later[0][0] < log
    assert not relaxed.stuck(*later[0])
    assert abs(later[-1][1] / 0.5 - 1) < 0.05


def test_above_the_budget_the_weight_rises_and_below_it_falls() -> None:
    """36: and stays inside its bounds."""
    method = DriftController(budget=0.1)
    assert method.advance(0.0, 0.2, 0.2) > 0 > method.advance(0.0, 0.05, 0.05)
    assert method.advance(0.0, 0.05, 0.02) > 0, "a steep rise is answered before the budget is reached"
    low, high = math.log(method.lowest), math.log(method.highest)
    for drift in (0.0, 1e-9, 1e9):
        log = 0.0
        for _ in range(1000):
            log = method.advance(log, drift, drift / 2)
            assert low <= log <= high


def test_the_controllers_multiplier_is_in_the_loss_and_in_the_log(tiny_base: Base, tmp_path: Path) -> None:
    methods: dict[str, Regularizer] = {"l2": L2ToBase(weight=2.0), "c": DriftController(start=1.0)}
    run = moved(make_run(tiny_base, tmp_path, methods))
    rows = next(run.remaining())
    plain = run.learn(rows)["l2"]
    run.memories["c"] = {**run.memories["c"], "log": torch.tensor(math.log(3.0), dtype=torch.float64)}
    assert run.learn(rows)["l2"] == pytest.approx(3 * plain)
    assert run.weights()["l2"] == pytest.approx(6.0)
    assert run.weights()["c"] == DriftController().weight


def test_the_controller_says_when_the_budget_is_out_of_reach(tiny_base: Base, tmp_path: Path) -> None:
    method = DriftController(budget=1e-9, every=1, warmup=0, highest=1.0, start=1.0)
    said: list[str] = []
    run = moved(make_run(tiny_base, tmp_path, {"l2": L2ToBase(), "c": method}), 0.1)
    run.begin()
    memory = run.memories["c"]
    for update in range(1, 13):
        memory = method.after_update(run.adapter, memory, run_done(run, update=update, warn=said.append))
    assert len(said) == 1
    assert "out of reach" in said[0]
    assert method.notes(memory)["out_of_reach"] == 1.0


def test_a_sensor_reading_is_the_ratio_of_sums(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"c": DriftController(), "l2": L2ToBase()})
    some: Callable[[int], float] = lambda n: float(run.probe.sensor_moved([n])[0])  # noqa: E731
    together = run.probe.sensor_moved(range(0, 64, 4))
    torch.testing.assert_close(together[3], torch.tensor(some(12)), rtol=1e-4, atol=1e-6)
    assert len(run.probe.sensor_effects()) == 64


def test_states_are_read_evenly_in_t(tiny_base: Base, tmp_path: Path) -> None:
    """Of each path two of four places, of the next the other two; where a sampler takes more of its steps does not
    count."""
    run = make_run(tiny_base, tmp_path, {"c": DriftController(), "l2": L2ToBase()})
    path, steps = run.sensor[0], tiny_base.process.steps
    shares = (1.0, 0.93, 0.85, 0.68, 0.6, 0.35, 0.15, 0.02)

    def read(index: int) -> State:
        """Where the prompt has twice as much effect from state to state."""
        own = path.read(0)
        blank = torch.zeros_like(own.answer)
        blank[0, 0, 0] = 2.0**index
        return replace(own, t=shares[index] * steps, answer=torch.zeros_like(blank), blank=blank)

    run = replace(run, sensor=[replace(path, count=len(shares), read=read)] * 2)
    assert run.probe.sensor_effects().sqrt().log2().tolist() == [2, 5, 4, 6], "at .85 and .35, at .6 and .15"


def test_a_path_counts_by_its_weight(tiny_base: Base, tmp_path: Path) -> None:
    run = moved(make_run(tiny_base, tmp_path, {"c": DriftController(), "l2": L2ToBase()}))
    weights = [0.5 + number % 3 for number in range(len(run.sensor))]
    heavy = replace(run, sensor=[replace(path, weight=w) for path, w in zip(run.sensor, weights, strict=True)])
    each = torch.tensor(weights).repeat_interleave(2)
    states = range(3, len(each), 5)
    torch.testing.assert_close(heavy.probe.sensor_effects(), run.probe.sensor_effects() * each)
    plain = run.probe.sensor_moved(states)
    assert plain.min() > 0
    torch.testing.assert_close(heavy.probe.sensor_moved(states), plain * each[list(states)])


def test_a_path_of_one_step_is_read_there(tiny_base: Base, tmp_path: Path) -> None:
    """A distilled checkpoint's sampler may take no more."""
    run = make_run(tiny_base, tmp_path, {"c": DriftController(), "l2": L2ToBase()})
    run = replace(run, sensor=[replace(path, count=1) for path in run.sensor[:5]])
    assert len(run.probe.sensor_effects()) == 5


class Asked:
    """A probe whose states drift by hand: what is watched by 1, the others by 3, each with an effect of 10."""

    def __init__(self) -> None:
        self.readings: list[int] = []

    def sensor_effects(self) -> torch.Tensor:
        return torch.full((256,), 10.0)

    def sensor_moved(self, states: Sequence[int]) -> torch.Tensor:
        self.readings.append(len(states))
        return torch.tensor([1.0 if state < 64 else 3.0 for state in states])


def test_what_is_watched_is_scaled_to_what_all_states_say(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"c": DriftController(), "l2": L2ToBase()})
    method, probe = DriftController(), cast(Any, Asked())
    memory = method.init(run.adapter, probe)
    seen = {}
    for update in range(10, 101, 10):
        memory = method.after_update(run.adapter, memory, replace(run_done(run, update=update), probe=probe))
        seen[update] = method.notes(memory).get("drift")
    assert seen[30] is None, "no number before all that is watched was read"
    assert seen[40] == seen[70] == seen[100] == pytest.approx((64 * 1 + 192 * 3) / 2560)
    assert probe.readings == [16, 16, 16, 256, 16, 16, 16, 256, 16, 16]
    assert method.multiplier(memory) > method.start, "over the budget, and no jump of the scale was taken for a rise"
    assert method.multiplier(memory) == pytest.approx(method.start * (0.25 / 0.1) ** (method.weight * 10 * 6))


def test_all_states_are_read_at_each_doubling_of_the_warm_up() -> None:
    whole = [update for update in range(10, 700, 10) if DriftController().doubled(update)]
    assert whole == [40, 80, 160, 320, 640]
    assert [n for n in range(25, 500, 25) if DriftController(warmup=30, every=25).doubled(n)] == [75, 125, 250]
    assert [n for n in range(1, 20) if DriftController(warmup=0, every=1).doubled(n)] == [2, 4, 8, 16]


# -- the trim -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1.5, 2.0, 2.6])
@pytest.mark.parametrize("trained", [0.07, 0.095, 0.13])
def test_a_finished_lora_is_trimmed_to_the_budget(trained: float, power: float) -> None:
    """Drift as a power of the strength: two readings find it exactly; a third would show it."""
    asked: list[float] = []

    def drift(strength: float) -> float:
        asked.append(strength)
        return trained * strength**power

    strength = DriftController(budget=0.1, trim=0.4).trimmed(drift)
    assert drift(strength) == pytest.approx(0.1, rel=1e-6)
    assert len(asked) == 3


def test_the_trim_stays_within_its_bounds() -> None:
    method = DriftController(budget=0.1, trim=0.25)
    assert method.trimmed(lambda s: 1.0 * s**2) == 0.75
    assert method.trimmed(lambda s: 1e-4 * s**2) == 1.25
    assert method.trimmed(lambda s: 0.0) == 1.25
    assert method.trimmed(lambda s: 0.102 * s**2) == 1.0, "near enough is left alone"
    assert method.trimmed(lambda s: 0.2 if s == 1 else 0.19) < 1, "a drift that hardly follows is no line to go by"
    assert [method.told(strength).partition(":")[2] for strength in (0.75, 0.9, 1.25)] == [
        " it still drifts more than the budget",
        "",
        " it still drifts less than the budget, for which it may train longer",
    ]


def true_to(base: Base, path: BasePath) -> BasePath:
    """The same made-up states with the base's own answers."""

    def read(index: int) -> State:
        state = path.read(index)
        t, told = torch.tensor([state.t]), [base.encode_text([text], [path.size], 1) for text in (path.prompt, "")]
        with torch.no_grad():
            answer, blank = (base.predict(state.x_t[None], t, words)[0] for words in told)
        return replace(state, answer=answer, blank=blank)

    states = [read(index) for index in range(path.count)]
    return replace(path, read=states.__getitem__)


def test_the_file_holds_the_trimmed_lora_and_the_adapter_is_as_trained(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"l2": L2ToBase(), "c": DriftController(budget=1.0)})
    with run.adapter.disabled():
        run = moved(replace(run, sensor=[true_to(tiny_base, path) for path in run.sensor]))
    run.begin()
    whole = float(run.probe.sensor_effects().sum())

    def drift() -> float:
        return float(run.probe.sensor_moved(range(64)).sum()) / whole

    budget, before, asked = 0.8 * drift(), run.adapter.state(), run.maker.forwards
    run.regularizers = {"c": DriftController(budget=budget)}
    said: list[str] = []
    run.listener = lambda event: said.append(str(event.data.get("text")))
    path = run.finish()
    (closing,) = run.journal.read()
    assert closing["forwards"] == run.maker.forwards >= asked + 64, "what the trim asked for is a cost too"
    assert all(torch.equal(before[name], value) for name, value in run.adapter.state().items())
    assert "to be at the drift budget" in said[0]
    run.adapter.detach()
    attach_file(tiny_base, read_lora(path))
    assert drift() == pytest.approx(budget, rel=0.03)
