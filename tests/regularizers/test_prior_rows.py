"""Facts of the methods that look at prior rows: kept states, other strengths than 1, hard prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tenuto.families.base import Base
from tenuto.regularizers.base import Place, Regularizer
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.draft import KEPT
from tenuto.regularizers.hard_prompts import HardPrompts
from tenuto.regularizers.overdriven_prior import OverdrivenPrior
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.random_strength import RandomStrength
from tests.regularizers.cases import moved, run_done, two_prompts, with_states
from tests.steps import PROCESS, make_run

# -- kept states ----------------------------------------------------------------------------------------------------


def test_kept_states_are_each_used_once_before_any_twice(tiny_base: Base, tmp_path: Path) -> None:
    own = with_states()
    method = CachedPrior(fresh=0.0, blank=0.0)
    run = make_run(tiny_base, tmp_path, {"m": method}, prior=own)
    for around in range(2):
        rows = [run.maker.draft(own[0].row(4 * around + visit), run.epoch) for visit in range(4)]
        assert sorted(row.t for row in rows) == [100.0, 300.0, 500.0, 700.0]
        assert all(KEPT in row.marks for row in rows)


def test_shares_of_fresh_and_of_blank_rows(tiny_base: Base, tmp_path: Path) -> None:
    own = with_states()
    run = make_run(tiny_base, tmp_path, {"m": CachedPrior(fresh=0.25, blank=0.5)}, prior=own)
    rows = [run.maker.draft(thing.row(visit), run.epoch) for thing in own for visit in range(40)]
    kept = [row for row in rows if KEPT in row.marks]
    assert len(kept) / len(rows) == pytest.approx(0.75, abs=0.08)
    assert sum(not row.caption for row in kept) / len(kept) == pytest.approx(0.5, abs=0.1)
    blank = next(row for row in kept if not row.caption)
    state = own[[thing.id for thing in own].index(blank.id)].state(int((blank.t - 100) / 200))
    assert torch.equal(blank.noisy(PROCESS)[0], state.x_t)
    assert state.blank is not None
    assert torch.equal(blank.noisy(PROCESS)[1], state.blank)


def test_kept_rows_ask_no_teacher_and_fresh_ones_do(tiny_base: Base, tmp_path: Path) -> None:
    for fresh, teacher in ((0.0, 0), (1.0, 2)):
        run = make_run(tiny_base, tmp_path, {"m": CachedPrior(fresh=fresh, normalised=False)}, prior=with_states())
        run.learn(next(run.remaining()))
        assert run.maker.forwards == 4 * 2 + teacher
        run.adapter.detach()


# -- other strengths than 1 ------------------------------------------------------------------------------------------


def test_all_rows_are_answered_at_one_random_strength_and_the_same_again(tiny_base: Base, tmp_path: Path) -> None:
    """s is even between .33 and 1.67 and depends on the update alone; what it does is what turning a LoRA up does."""
    method = RandomStrength(weight=0.67)
    place = Place(0, 0.0, 3, frozenset(("instance", "prior")))
    drawn = torch.tensor([method.strength(replace(place, update=update)) for update in range(4000)])
    assert 0.33 <= float(drawn.min()) < 0.34
    assert 1.66 < float(drawn.max()) <= 1.67
    assert float(drawn.mean()) == pytest.approx(1, abs=0.02)
    assert method.strength(replace(place, roles=frozenset(("prior",)))) == method.strength(place)

    def terms(own: dict[str, Regularizer], s: float) -> dict[str, float]:
        run = moved(make_run(tiny_base, tmp_path, {"p": PriorPrediction(), **own}))
        run.begin()
        with run.adapter.strength(s):
            found = run.learn(next(run.remaining()))
        run.adapter.detach()
        return found

    s = method.strength(place)
    assert abs(s - 1) > 0.05
    turned, same = terms({"r": method}, 1.0), terms({}, s)
    assert turned == pytest.approx(same, rel=1e-5)
    assert turned != pytest.approx(terms({}, 1.0), rel=1e-3)


def test_prior_rows_are_answered_at_higher_strengths_and_the_same_ones_again(tiny_base: Base, tmp_path: Path) -> None:
    """14: the mean of s^2 over U(1, 2.5) is 3.25; checkpointing changes no gradient."""
    method = OverdrivenPrior()
    places = [Place(update, 0.0, 0, frozenset(("prior",))) for update in range(4000)]
    assert sum(method.strength(place) ** 2 for place in places) / 4000 == pytest.approx(3.25, rel=0.03)

    def gradients(on: bool, own: dict[str, Regularizer]) -> tuple[dict[str, float], list[Tensor]]:
        run = moved(make_run(tiny_base, tmp_path, {"p": PriorPrediction(), **own}))
        tiny_base.checkpointing(on)
        terms = run.learn(next(run.remaining()))
        tiny_base.checkpointing(False)
        found = [p.grad.clone() for p in run.adapter.parameters() if p.grad is not None]
        run.adapter.detach()
        return terms, found

    plain, driven, again = gradients(False, {}), gradients(False, {"o": method}), gradients(True, {"o": method})
    assert driven[0]["p"] > 1.1 * plain[0]["p"]
    assert driven[0]["instance"] == pytest.approx(plain[0]["instance"], rel=1e-5)
    for one, other in zip(driven[1], again[1], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)


def test_hard_prompts_weigh_as_drawing_would_on_the_mean() -> None:
    """factor_k / K is the chance (1 - w) / K + w d_k^a / sum d^a: the mean of the factors is 1."""
    drift = torch.tensor([0.5, 0.02, 0.1, 0.1], dtype=torch.float64)
    method = HardPrompts(weight=0.7, power=0.6, most=100)
    factors = [method.factor(drift, prompt, 0.0) for prompt in range(4)]
    chances = [0.3 / 4 + 0.7 * float(d**0.6 / (drift**0.6).sum()) for d in drift]
    assert [factor / 4 for factor in factors] == pytest.approx(chances)
    assert HardPrompts(weight=0.7, most=1.5).factor(drift, 0, 0.0) == 1.5
    unread = torch.tensor([torch.nan, 0.1])
    assert method.factor(unread, 0, 0.0) == 1.0


def test_hard_prompts_hear_every_row_once_and_follow_slowly(tiny_base: Base, tmp_path: Path) -> None:
    own = {"prior_prediction": PriorPrediction(weight=1.0), "m": HardPrompts()}
    run = moved(make_run(tiny_base, tmp_path, own, prior=two_prompts(), steps=3))
    run.learn(next(run.remaining()))
    sums, counts = run.heard["m"]
    assert counts.sum() == run.rows["prior"]
    memory, seen = run.memories["m"], counts > 0
    assert len(memory["drift"]) == 2
    first = run.regularizers["m"].after_update(run.adapter, memory, run_done(run, heard=run.heard["m"]))["drift"]
    torch.testing.assert_close(first[seen], (sums / counts)[seen])
    louder = torch.stack([3 * sums, counts])
    after = run.regularizers["m"].after_update(run.adapter, {**memory, "drift": first}, run_done(run, heard=louder))
    torch.testing.assert_close(after["drift"][seen], 1.6 * first[seen])


def test_hard_prompts_leave_out_what_is_held_at_the_negative_prompt(tiny_base: Base, tmp_path: Path) -> None:
    own = {"cached_prior": CachedPrior(fresh=0, blank=1), "m": HardPrompts()}
    run = moved(make_run(tiny_base, tmp_path, own, prior=with_states()))
    paths = {thing.id: replace(thing.path(), negative="lowres") for thing in with_states()}
    run.begin()
    rows = [replace(row, path=paths.get(row.id)) for row in next(run.remaining())]
    run.learn(rows)
    assert run.rows["prior"] > 0
    assert run.heard["m"].sum() == 0


def test_hard_prompts_ask_the_base_no_more_than_the_others_do(tiny_base: Base, tmp_path: Path) -> None:
    def forwards(own: dict[str, Regularizer]) -> int:
        run = make_run(tiny_base, tmp_path / str(len(own)), own, prior=two_prompts(), steps=2)
        run.begin()
        before = run.maker.forwards
        run.learn(next(run.remaining()))
        run.adapter.detach()
        return run.maker.forwards - before

    alone: dict[str, Regularizer] = {"prior_prediction": PriorPrediction(weight=1.0)}
    assert forwards(alone) == forwards({**alone, "m": HardPrompts()})
