"""Out of memory, a compiler that fails: other means, the same update, said once and remembered."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo import eval_frame
from torch._dynamo.exc import TorchDynamoException
from torch.utils.hooks import RemovableHandle

from tenuto.events import Event
from tenuto.families.base import Base, Conditioning
from tenuto.regularizers.base import Regularizer
from tenuto.regularizers.prior_prediction import PriorPrediction
from tenuto.training.loop import Run, train
from tenuto.words import Stopped, TenutoError
from tests.steps import apart, equal, make_run


def short_of_memory(base: Base, most: int, monkeypatch: pytest.MonkeyPatch, *, backward: bool = False) -> None:
    """The base runs out of memory above so many rows, in the forward or only in the backward."""
    inner = base.predict

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    def predict(x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        if len(x_t) > most and not (backward and torch.is_grad_enabled()):
            full()
        answer = inner(x_t, t, cond)
        if len(x_t) > most and answer.requires_grad:
            answer.register_hook(full)
        return answer

    monkeypatch.setattr(base, "predict", predict)


def heard(run: Run) -> list[str]:
    """The warnings that the run gives from now on."""
    told: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "warning":
            told.append(event.data["text"])

    run.listener = run.means._listener = listen
    return told


HOLD = {"p": PriorPrediction(weight=5.0)}
NORMALISED = {"p": PriorPrediction(weight=1.0, normalised=True)}
"""Asks the base about four rows at a time before the first update."""


def trained(
    base: Base, folder: Path, methods: Mapping[str, Regularizer] = HOLD, **more: Any
) -> tuple[dict[str, Tensor], list[str]]:
    run = make_run(base, folder, methods, save_every=2, **more)
    told = heard(run)
    train(run)
    state = run.adapter.state()
    run.adapter.detach()
    return state, told


@pytest.mark.parametrize("backward", [False, True])
def test_half_as_many_rows_and_the_same_update(
    backward: bool, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = trained(tiny_base, tmp_path / "whole")
    from_the_start, _ = trained(tiny_base, tmp_path / "small", micro_batch=2)
    with monkeypatch.context() as patch:
        short_of_memory(tiny_base, 2, patch, backward=backward)
        state, told = trained(tiny_base, tmp_path / "short")
    assert equal(state, from_the_start), "the very same micro-batches, so bit for bit"
    for name, value in whole.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=2e-6)
    training = [text for text in told if "in a training step" in text]
    assert training == [training[0]]
    assert "with 4 rows in a training step: 2 at a time" in training[0]
    assert len(told) == 1, "said once"


def test_it_is_remembered_by_a_resumed_training(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(tiny_base, 2, monkeypatch)
    whole, told = trained(tiny_base, tmp_path / "whole", NORMALISED)
    assert ["without a gradient" in text for text in told] == [True, False]
    run = make_run(tiny_base, tmp_path / "cut", NORMALISED, save_every=2)
    run.stop = lambda: run.done == 2
    with pytest.raises(Stopped):
        train(run)
    run.adapter.detach()
    state, told = trained(tiny_base, tmp_path / "cut", NORMALISED)
    assert told == []
    assert equal(state, whole)


def test_a_single_row_that_does_not_fit_is_an_error(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tiny_base, tmp_path)
    short_of_memory(tiny_base, 0, monkeypatch)
    with pytest.raises(TenutoError, match=r"out of memory with a single row.*gradient_checkpointing") as caught:
        train(run)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_fails_is_done_without(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = trained(tiny_base, tmp_path / "plain", NORMALISED)
    inner, state = tiny_base.predict, {"compiled": False}

    def predict(*given: Any) -> Tensor:
        if state["compiled"]:
            raise TorchDynamoException("no C++ compiler found\nand a long tail")
        return inner(*given)

    monkeypatch.setattr(tiny_base, "predict", predict)
    monkeypatch.setattr(tiny_base, "compiled", lambda on: state.update(compiled=on))
    tensors, told = trained(tiny_base, tmp_path / "compiled", NORMALISED, compile=True)
    assert equal(tensors, plain)
    assert told == ["training.compile: failed (no C++ compiler found); this training goes on without it"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch's compiler needs one for C++")
def test_compiled_it_learns_the_same(tiny_base: Base, tmp_path: Path) -> None:
    plain, _ = trained(tiny_base, tmp_path / "plain", NORMALISED)
    compiled, told = trained(tiny_base, tmp_path / "compiled", NORMALISED, compile=True)
    assert not told
    assert not equal(compiled, plain)  # by other kernels
    learned = [{name: value for name, value in own.items() if "lora_B" in name} for own in (plain, compiled)]
    assert apart(*learned) < 0.03  # AdamW's first step is a sign: where a gradient is all but 0, rounding decides


def test_a_compiler_that_loses_gradients_is_found_out(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch's did, where frozen convolutions follow one another; the training is the one without it."""
    plain, _ = trained(tiny_base, tmp_path / "plain", NORMALISED)
    last = tiny_base.denoiser.get_submodule("up_blocks.0")

    def lose(on: bool) -> None:
        if on:
            lossy.append(last.register_forward_hook(lambda *given: None if eager() else given[-1].detach()))
        else:
            lossy.pop().remove()

    lossy: list[RemovableHandle] = []
    monkeypatch.setattr(tiny_base, "compiled", lose)
    tensors, told = trained(tiny_base, tmp_path / "compiled", NORMALISED, compile=True)
    assert [re.sub(r"\d+%", "so far", line) for line in told] == [
        "training.compile: failed (a layer's gradient is so far off); this training goes on without it"
    ]
    assert equal(tensors, plain)


def eager() -> bool:
    """Whether the compiler is kept out."""
    return eval_frame._stance.stance == "force_eager"


def test_right_gradients_are_proven_once(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = trained(tiny_base, tmp_path / "plain", NORMALISED)
    monkeypatch.setattr(tiny_base, "compiled", lambda on: None)
    inner, again = Run._gradients_again, []
    monkeypatch.setattr(Run, "_gradients_again", lambda run, drafts: again.append(run.done) or inner(run, drafts))
    tensors, told = trained(tiny_base, tmp_path / "compiled", NORMALISED, compile=True)
    assert not told
    assert again == [0]
    assert equal(tensors, plain)


def test_other_errors_are_not_hidden(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("something else")

    run = make_run(tiny_base, tmp_path)
    monkeypatch.setattr(tiny_base, "predict", broken)
    with pytest.raises(RuntimeError, match="something else"):
        train(run)
