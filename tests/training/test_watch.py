"""Live readings: the same places every time, and nothing but the adapter moves them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tenuto.adapters.adapter import Adapter, AdapterSettings
from tenuto.families.base import Base
from tenuto.randomness import noise
from tenuto.training.watch import LEVELS, DriftWatch, ValidationWatch
from tests.steps import things


def test_validation_is_the_mean_error_at_fixed_noise(tiny_base: Base) -> None:
    rows = [thing.row(0) for thing in things(2)]
    by_hand = []
    for row in rows:
        cond = tiny_base.encode_text([row.caption], [row.size], row.chunks)
        for level in LEVELS:
            x0, t = row.latents[None], torch.tensor([int(level * tiny_base.process.steps)])
            eps = noise(tuple(x0.shape), 3, "validation", row=row.id, level=str(level))
            answer = tiny_base.predict(tiny_base.process.noisy(x0, eps, t), t, cond)
            by_hand.append(float((answer - tiny_base.process.target(x0, eps, t)).square().mean()))
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=2))
    watch = ValidationWatch(tiny_base, adapter, rows, seed=3)
    assert watch()["validation"] == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert watch()["validation_gain"] == 0.0
    assert watch() == watch()
    adapter.detach()


def test_readings_follow_the_adapter(tiny_base: Base) -> None:
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=2))
    try:
        rows = [thing.row(0) for thing in things(2)]
        loss, drift = ValidationWatch(tiny_base, adapter, rows, 0), DriftWatch(tiny_base, adapter, rows, 0)
        before = loss()["validation"]
        assert drift() == {"drift": 0.0}, "a zero adapter is the base"
        for parameter in adapter.parameters():
            parameter.data.add_(0.05)
        after = loss()
        assert after["validation_gain"] == pytest.approx((before - after["validation"]) / loss.effect)
        assert after["validation"] != before
        assert drift()["drift"] > 0.0
    finally:
        adapter.detach()


def test_no_more_rows_than_fit_go_through_at_once(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update of so many rows has been made; a reading must not need more memory than that."""
    adapter, rows, asked = Adapter.attach(tiny_base, AdapterSettings(rank=2)), [things(1)[0].row(0)], list[int]()
    ask = type(tiny_base).predict

    def counted(base: Base, x_t: Tensor, *words: Any) -> Tensor:
        asked.append(len(x_t))
        return ask(base, x_t, *words)

    monkeypatch.setattr(type(tiny_base), "predict", counted)
    losses = [ValidationWatch(tiny_base, adapter, rows, 0, at_once)()["validation"] for at_once in (1, 3, 8)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    each = len(asked) // (4 + 2 + 1)
    assert asked == [1] * 4 * each + [3, 1] * each + [4] * each
    adapter.detach()
