"""What must hold exactly, method by method; the numbers are those of the list of facts that the project began from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.adapters.tuners.base import Update
from tenuto.families.base import Base
from tenuto.families.process import from_alphas
from tenuto.regularizers.adapter_dropout import AdapterDropout
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.blank_preservation import BlankPreservation
from tenuto.regularizers.cached_prior import CachedPrior
from tenuto.regularizers.caption_dropout import CaptionDropout
from tenuto.regularizers.direct_consistency import DirectConsistency
from tenuto.regularizers.draft import Draft
from tenuto.regularizers.ema_average import EmaAverage
from tenuto.regularizers.gram_penalty import GramPenalty
from tenuto.regularizers.input_perturbation import InputPerturbation
from tenuto.regularizers.l2_to_base import L2ToBase
from tenuto.regularizers.masked_prior import MaskedPrior
from tenuto.regularizers.max_norm import MaxNorm
from tenuto.regularizers.multires_noise import MultiresNoise
from tenuto.regularizers.noise_offset import NoiseOffset
from tenuto.regularizers.normal import Distilled
from tenuto.regularizers.output_preservation import OutputPreservation
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.regularizers.prior_preservation import PriorPreservation
from tenuto.regularizers.product import squared_norm
from tenuto.regularizers.snr_weight import SnrWeight
from tenuto.regularizers.timestep_weight import TimestepWeight
from tenuto.regularizers.timestep_window import TimestepWindow
from tenuto.regularizers.trigger_contrast import TriggerContrast
from tenuto.regularizers.weight_decay import WeightDecay
from tenuto.training.listening import places_of
from tenuto.training.loop import Run
from tenuto.training.objective import objective
from tenuto.words import TenutoError
from tests.regularizers.cases import masked, moved, run_done, with_states
from tests.steps import EVEN, PROCESS, WIDE, Thing, hand_step, make_run, things


def constant(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def draft_of(run: Run, role: str = "instance") -> Draft:
    return next(run.maker.draft(row, run.epoch) for row in next(run.remaining()) if row.role == role)


def drafts_of(run: Run) -> list[Draft]:
    """Every row of the plan as a draft; nothing is trained."""
    rows = [run.sources[draw.id].row(draw.visit) for update in run.updates for draw in update.draws]
    return [run.maker.draft(row, run.epoch) for row in rows]


# -- exact zeros ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        PriorPrediction(normalised=True),
        OutputPreservation(),
        TriggerContrast(share=1.0),
        BlankPreservation(share=1.0),
        MaskedPrior(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_distillation_is_exactly_zero_at_a_zero_adapter(method: Distilled, tiny_base: Base, tmp_path: Path) -> None:
    """1: the loss, and its gradients."""
    items = [thing for thing in masked() if thing.mask is not None]
    run = make_run(tiny_base, tmp_path, {"m": method}, items=items, prior=things(4, "prior", WIDE))
    rows = next(run.remaining())  # of two sizes: exactly zero asks for equal batches
    assert run.learn(rows)["m"] == 0.0
    run.optimizer.zero_grad(set_to_none=True)
    own = [run.maker.draft(row, run.epoch) for row in rows if row.role == method.measure()[0]]
    term = method.loss(run.maker.step(own, torch.ones(len(own))), run.memories["m"])
    assert term is not None
    term.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in run.adapter.parameters())


def test_l2_is_zero_with_zero_gradient_at_a_zero_adapter(tiny_base: Base) -> None:
    """4."""
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=4))
    penalty = L2ToBase(weight=1.0).penalty(adapter, {}, 0.0)
    assert penalty is not None
    penalty.backward()
    assert float(penalty) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in adapter.parameters())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_masks_that_are_all_black_or_all_white_are_finite(value: float, tiny_base: Base, tmp_path: Path) -> None:
    """6."""
    items = [replace(thing, mask=torch.full((1, 8, 8), value)) for thing in things(6)]
    run = moved(make_run(tiny_base, tmp_path, {"m": MaskedPrior()}, items=items))
    terms = run.learn(next(run.remaining()))
    assert (terms["m"] if value else terms["instance"]) == 0.0
    assert all(math.isfinite(term) for term in terms.values())


def test_the_instance_term_counts_within_the_mask() -> None:
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0] = 1
    answer = constant(0.0)
    answer[..., 0] = 3.0
    step = hand_step(answer, answer, constant(0.0), ("instance",), mask=mask)
    assert float(objective(step, {})["instance"]) == pytest.approx(9.0)


# -- direct consistency ---------------------------------------------------------------------------------------------


def test_direct_consistency_is_log_two_at_the_base_and_lets_go() -> None:
    """13: dL/dD = beta sigmoid(beta D)."""
    method = DirectConsistency(beta=1000.0)

    def slope(gain: float) -> tuple[float, float]:
        error = torch.tensor(1.0, dtype=torch.float64).sqrt()
        answers = (constant(1.0).double() * (error.square() + gain).sqrt()).requires_grad_()
        step = hand_step(answers, constant(1.0), constant(0.0), ("instance",))
        value = objective(step, {"m": method})["instance"]
        value.backward()  # type: ignore[no-untyped-call]
        assert answers.grad is not None
        # d(error)/d(answers) = 2 answers / 4 each; the sum over places divides out to d value / d error
        return float(value.detach()), float((answers.grad / (2 * answers.detach() / 4)).mean())

    assert slope(0.0) == pytest.approx((math.log(2), 500.0), rel=1e-3)
    assert slope(-0.02)[1] < 1e-4
    assert slope(0.02)[1] == pytest.approx(1000.0, rel=1e-3)


# -- sizes of updates -----------------------------------------------------------------------------------------------


def factors() -> tuple[Tensor, Tensor, float]:
    torch.manual_seed(0)
    return torch.randn(4, 30), torch.randn(20, 4), 0.7


def test_the_size_of_a_product_without_building_it() -> None:
    """15, 18 and 21."""
    a, b, s = factors()
    torch.testing.assert_close(squared_norm(Update(a, b, s)), (s * b @ a).square().sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(squared_norm(Update(3 * a, b / 3, s)), squared_norm(Update(a, b, s)), rtol=1e-5, atol=0)
    a, b = a.double().requires_grad_(), b.double().requires_grad_()
    squared_norm(Update(a, b, s)).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(b.grad, (2 * s * s * b @ (a @ a.T)).detach())
    torch.testing.assert_close(a.grad, (2 * s * s * (b.T @ b) @ a).detach())


def factors_of(run: Run) -> list[tuple[Tensor, Tensor, float]]:
    """A, B and s of every layer."""
    return [(a, b, s) for _, (a, b, s) in run.adapter.updates() if b is not None]


def test_max_norm_keeps_the_direction_and_leaves_what_is_small(tiny_base: Base, tmp_path: Path) -> None:
    """19."""
    run = make_run(tiny_base, tmp_path, {"m": MaxNorm(limit=0.5)})
    torch.manual_seed(1)
    with torch.no_grad():
        for number, (a, b, _) in enumerate(factors_of(run)):
            a.copy_(torch.randn_like(a))
            b.copy_(torch.randn_like(b) * (1e-3 if number % 2 else 1.0))
    before = [(a.clone(), b.clone(), s) for a, b, s in factors_of(run)]
    run.begin()
    method, done = run.regularizers["m"], run_done(run)
    memory = method.after_update(run.adapter, run.memories["m"], done)
    for number, ((a0, b0, s), (a, b, _)) in enumerate(zip(before, factors_of(run), strict=True)):
        old, new = s * b0 @ a0, s * b @ a
        if number % 2:
            assert torch.equal(a, a0)
            assert torch.equal(b, b0)
        else:
            assert float(new.norm()) <= 0.5 * (1 + 1e-5)
            torch.testing.assert_close(new / new.norm(), old / old.norm(), rtol=1e-4, atol=1e-6)
    assert method.notes(memory)["limited"] == pytest.approx(0.5, abs=0.1)


def test_the_gram_penalty_is_the_change_of_the_outputs_on_the_inputs_it_saw() -> None:
    """16, and 17: with C = 1 it is L2."""
    a, b, s = factors()
    inputs, ones = torch.randn(50, 30), torch.ones(30)
    changed = (s * inputs @ (b @ a).T).square().sum(dim=1).mean()
    torch.testing.assert_close(GramPenalty(rho=0.0).moved(Update(a, b, s), inputs, ones), changed, rtol=1e-5, atol=0)
    torch.testing.assert_close(GramPenalty(rho=1.0).moved(Update(a, b, s), inputs, ones), squared_norm(Update(a, b, s)))


def test_the_inputs_of_a_convolution_are_what_its_weights_multiply() -> None:
    layer, x = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), torch.randn(2, 3, 8, 8)
    answer = places_of(layer, x) @ layer.weight.flatten(1).T
    torch.testing.assert_close(answer, layer(x).flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_the_gram_penalty_knows_every_layer_of_the_denoiser(tiny_base: Base, tmp_path: Path) -> None:
    parts = ("attention", "feed_forward", "convolution", "text_encoder")
    run = make_run(tiny_base, tmp_path, {"g": GramPenalty()}, parts=parts)
    run.begin()
    known = {name.partition("/")[0] for name in run.memories["g"]}
    assert known == {name for name in run.adapter.layers() if name.startswith("lora_unet")}
    a_layer = next(name for name in run.memories["g"] if name.endswith("/inputs"))
    assert run.memories["g"][a_layer].shape[0] == 64
    assert run.learn(next(run.remaining()))["g"] == 0.0


# -- averages and dropout -------------------------------------------------------------------------------------------


def test_the_file_holds_the_average_and_the_training_goes_on_as_it_was(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"m": EmaAverage(decay=0.5)})
    run.begin()
    start = run.adapter.state()
    moved(run, 1.0)
    run.memories["m"] = run.regularizers["m"].after_update(run.adapter, run.memories["m"], run_done(run, update=100))
    trained = run.adapter.state()
    with run.as_shipped():
        for name, value in run.adapter.state().items():
            torch.testing.assert_close(value, start[name] + 0.5)
    assert all(torch.equal(value, trained[name]) for name, value in run.adapter.state().items())


@pytest.mark.parametrize("what", ["rank", "neuron", "module"])
def test_adapter_dropout_is_the_same_when_a_forward_is_made_again(what: Any, tiny_base: Base, tmp_path: Path) -> None:
    def gradients(on: bool) -> list[Tensor]:
        methods = {"m": AdapterDropout(weight=0.4, what=what)}
        run = moved(make_run(tiny_base, tmp_path, methods, parts=("attention", "convolution")))
        tiny_base.checkpointing(on)
        run.learn(next(run.remaining()))
        tiny_base.checkpointing(False)
        found = [p.grad.clone() for p in run.adapter.parameters() if p.grad is not None]
        run.adapter.detach()
        return found

    plain, again = gradients(False), gradients(True)
    assert any((g == 0).any() for g in plain)
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)


# -- weights over t -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.2, 0.6)])
def test_timestep_weights_have_mean_one_over_the_timesteps_drawn(window: tuple[float, float]) -> None:
    """31."""
    chances = TimestepWindow(low=window[0], high=window[1]).timesteps(EVEN, "instance")
    count = 1000
    nothing = torch.zeros(count, 1, 1, 1)
    step = hand_step(nothing, nothing, nothing, ("instance",) * count, chances={"instance": chances, "prior": EVEN})
    method = TimestepWeight(weight=0.8, power=2.0)
    for weighed in (method.weigh(step, torch.ones(count)), method.weigh_held(step, torch.ones(count), {})):
        assert float((weighed * chances).sum()) == pytest.approx(1.0, rel=1e-4)
    assert method.weigh(step, torch.ones(count)).diff().max() <= 0
    assert method.weigh_held(step, torch.ones(count), {}).diff().min() >= 0


def test_timesteps_fall_into_the_window(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"m": TimestepWindow(low=0.3, high=0.4), "p": PriorPreservation()}, steps=12)
    drafts = drafts_of(run)
    assert all(300 <= draft.t < 400 for draft in drafts if draft.role == "instance")
    assert any(not 300 <= draft.t < 400 for draft in drafts if draft.role == "prior")


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_min_snr(prediction: Any) -> None:
    """31: min(SNR, gamma) / SNR for eps, / (SNR + 1) for v; only instance rows are weighed."""
    process = from_alphas(torch.linspace(0.9999, 0.005, 1000), prediction)
    t = torch.tensor([0, 100, 500, 999])
    a, s = process.schedule(t)
    snr = (a / s).square().flatten()
    wanted = snr.clamp(max=5) / (snr if prediction == "eps" else snr + 1)
    torch.testing.assert_close(SnrWeight().factor(process, t), wanted, rtol=1e-4, atol=1e-6)
    if prediction == "eps":
        debiased = SnrWeight(shape="debiased").factor(process, t)
        torch.testing.assert_close(debiased, snr.clamp(max=1000).rsqrt(), rtol=1e-4, atol=1e-6)
        step = hand_step(constant(1, 1), constant(0, 0), constant(0, 0), ("instance", "prior"), t=torch.tensor([0, 1]))
        assert float(objective(step, {"s": SnrWeight(), "p": PriorPreservation(weight=1.0)})["p"]) == 1.0


# -- rows in the making ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [NoiseOffset(), MultiresNoise(), InputPerturbation()], ids=lambda method: type(method).__name__
)
def test_extra_noise_never_touches_prior_rows(method: Regularizer, tiny_base: Base, tmp_path: Path) -> None:
    """32: teacher and student look at one x_t, and the prior's is the base's own."""
    plain, noisy = (
        make_run(tiny_base, tmp_path, {"p": PriorPreservation(), **more}) for more in ({}, {"m": method})
    )  # fmt: skip
    for role, same in (("instance", False), ("prior", True)):
        states = [draft_of(run, role).noisy(PROCESS) for run in (plain, noisy)]
        assert torch.equal(states[0][0], states[1][0]) is same
    if isinstance(method, InputPerturbation):
        target = [draft_of(run).noisy(PROCESS)[1] for run in (plain, noisy)]
        assert torch.equal(*target)
    else:
        assert float(draft_of(noisy).noise.std()) == pytest.approx(1.0, abs=0.2)


def test_only_prior_rows_lose_their_captions(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"m": CaptionDropout(weight=0.5), "p": PriorPreservation()}, steps=12)
    drafts = drafts_of(run)
    assert all(draft.caption for draft in drafts if draft.role == "instance")
    dropped = [not draft.caption for draft in drafts if draft.role == "prior"]
    assert 0.2 < sum(dropped) / len(dropped) < 0.8


def test_a_share_of_the_rows_counts_so_much_the_more(tiny_base: Base, tmp_path: Path) -> None:
    run = moved(
        make_run(tiny_base, tmp_path, {"m": OutputPreservation(weight=1.0, share=0.25, normalised=False)}, steps=40)
    )
    run.begin()
    rows = drafts_of(run)
    assert 0.1 < sum(bool(row.marks) for row in rows) / len(rows) < 0.45
    row = next(row for row in rows if row.marks)
    term = run.regularizers["m"].loss(run.maker.step([row], torch.ones(1)), {})
    step = run.maker.step([row], torch.ones(1))
    assert float(term) == pytest.approx(4 * float(step.gap((0,), at="class")), rel=1e-5)  # type: ignore[arg-type]


def test_rows_without_the_trigger_are_left_out(tiny_base: Base, tmp_path: Path) -> None:
    items = [replace(thing, class_caption=None) for thing in things(6)]
    run = moved(make_run(tiny_base, tmp_path, {"m": OutputPreservation()}, items=items))
    assert "m" not in run.learn(next(run.remaining()))


# -- normalised weights ---------------------------------------------------------------------------------------------


def test_a_gap_as_large_as_the_prompts_effect_counts_as_much_as_the_instance_term() -> None:
    method = PriorPrediction(weight=1.0, normalised=True)
    memory = {"effect": torch.tensor([4.0, 4.0, 9.0, 9.0]), "error": torch.tensor(0.5)}
    step = hand_step(constant(2, 3), constant(0, 0), constant(0, 0), ("prior", "prior"), t=torch.tensor([0, 1]))
    assert float(objective(step, {"p": method}, {"p": memory})["p"]) == pytest.approx(0.5 * (1 + 9 / 4) / 2)


def test_the_measure_does_not_depend_on_the_adapter_and_is_remembered(tiny_base: Base, tmp_path: Path) -> None:
    methods = {"a": PriorPrediction(normalised=True), "b": PriorPrediction(normalised=True)}
    run = make_run(tiny_base, tmp_path, methods)
    run.begin()
    asked = run.maker.forwards
    again = moved(make_run(tiny_base, tmp_path, methods))
    again.begin()
    assert torch.equal(run.memories["a"]["effect"], again.memories["b"]["effect"])
    assert asked == 8 * 4 * 2 + 6 * 4  # prior rows with and without words, and six instance rows once


def test_kept_states_tell_a_prompts_effect_without_asking(tiny_base: Base, tmp_path: Path) -> None:
    """All bins are seen by five states, of which one (t = 900) is in the last; without it the base is asked."""
    own = [replace(thing, states=5) for thing in (*things(4, "prior"), *things(4, "prior", WIDE))]
    run = make_run(tiny_base, tmp_path, {"m": CachedPrior()}, prior=own)
    run.begin()
    assert run.maker.forwards == 6 * 4  # instance rows, for the error
    states = [thing.state(index) for thing in own for index in (2, 3)]
    gaps = [float((state.answer - (state.blank if state.blank is not None else 0)).square().mean()) for state in states]
    assert float(run.memories["m"]["effect"][2]) == pytest.approx(sum(gaps) / len(gaps), rel=1e-5)
    run.adapter.detach()
    fewer = make_run(tiny_base, tmp_path, {"m": CachedPrior()}, prior=with_states())
    fewer.begin()
    assert fewer.maker.forwards == 8 * 4 * 2 + 6 * 4


def test_prompts_without_words_measure_nothing(tiny_base: Base, tmp_path: Path) -> None:
    """A caption that is the trigger alone leaves no words; its effect is not the measure, the other captions' is."""
    alone = [replace(thing, class_caption="", bare_caption="") for thing in things(6)]
    some = [*alone[:3], *things(6)[3:]]

    def effect(items: list[Thing], method: Distilled) -> Tensor:
        run = make_run(tiny_base, tmp_path, {"m": method}, items=items)
        run.begin()
        run.adapter.detach()
        return run.memories["m"]["effect"]

    own = effect(alone, BlankPreservation())
    assert float(own.min()) > 0
    assert torch.equal(effect(alone, OutputPreservation()), own), "the captions as they are"
    assert torch.equal(effect(alone, TriggerContrast()), own)
    worded = effect(some, OutputPreservation())
    assert float(worded.min()) > 0.3 * float(effect(things(6), OutputPreservation()).min())
    wordless = [replace(thing, caption="") for thing in alone]
    with pytest.raises(TenutoError, match="no caption has a word"):
        effect(wordless, BlankPreservation())


def test_weight_decay_leaves_the_magnitudes_of_dora(tiny_base: Base, tmp_path: Path) -> None:
    own = AdapterSettings(rank=4, parts=("attention",), dora=True)
    run = moved(make_run(tiny_base, tmp_path, {"m": WeightDecay(weight=0.5)}, adapter=own))
    before = run.adapter.state()
    run.regularizers["m"].after_update(run.adapter, {}, run_done(run, lr=0.1))
    after = run.adapter.state()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value if "magnitude" in name else 0.95 * value)
    assert any("magnitude" in name for name in before)


def test_the_gram_penalty_says_where_it_has_nothing_to_look_at(tiny_base: Base, tmp_path: Path) -> None:
    run = make_run(tiny_base, tmp_path, {"m": GramPenalty()}, parts=("text_encoder",))
    with pytest.raises(TenutoError, match="looks at layers of the denoiser, and none is adapted"):
        run.begin()


def test_what_takes_the_place_of_the_instance_term_is_weighed_whatever_the_order() -> None:
    step = hand_step(constant(1), constant(0.5), constant(0), ("instance",), t=torch.tensor([0]))
    both = {"s": SnrWeight(gamma=0.5), "d": DirectConsistency()}
    values = [float(objective(step, dict(order))["instance"]) for order in (both.items(), reversed(both.items()))]
    assert values[0] == values[1]
    assert values[0] != float(objective(step, {"d": DirectConsistency()})["instance"])


@pytest.mark.parametrize(
    ("method", "minimum"), [(AdapterDropout, 1.0), (SnrWeight, 2.0), (MaxNorm, 2.0), (DirectConsistency, 1.5)]
)
def test_a_weight_falls_to_no_value_that_it_could_not_begin_with(method: type[Regularizer], minimum: float) -> None:
    falling = {"shape": "linear", "minimum": minimum}
    with pytest.raises(ValidationError, match=rf"schedule\.minimum = {minimum:g} is no weight: Input should be less"):
        method.model_validate({"schedule": falling})
    method.model_validate({"schedule": falling | {"minimum": 0.5}})
    assert OutputPreservation.model_validate({"schedule": falling}).schedule.minimum == minimum, "it has no bound"
