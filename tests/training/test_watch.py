"""Live readings: the same places every time, and nothing but the adapter moves them."""

from __future__ import annotations

import pytest
import torch

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
    watch = ValidationWatch(tiny_base, rows, seed=3)
    assert watch() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert watch() == watch()


def test_readings_follow_the_adapter(tiny_base: Base) -> None:
    adapter = Adapter.attach(tiny_base, AdapterSettings(rank=2))
    try:
        rows = [thing.row(0) for thing in things(2)]
        loss, drift = ValidationWatch(tiny_base, rows, 0), DriftWatch(tiny_base, adapter, rows, 0)
        before = loss()
        assert drift() == 0.0, "a zero adapter is the base"
        for parameter in adapter.parameters():
            parameter.data.add_(0.05)
        assert loss() != before
        assert drift() > 0.0
    finally:
        adapter.detach()
